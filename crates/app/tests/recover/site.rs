//! A cluster in this process, an application on it, and a recovery point of that.

use apiserver::{ApiServer, Options};
use app::api::{ApiResources, Cluster, ResourceType};
use app::certificate::Certificate;
use app::clean::clean;
use app::kinds::{self, Keep};
use app::object::{Object, ObjectKey};
use app::point::{ClusterInfo, Point, PointMeta, Restore, Role, StoredObject, VolumeRecord};
use repo::Env;
use serde_json::{Value, json};

pub const SHOP: &str = include_str!("shop.yaml");

/// An empty cluster.
pub fn server(seed: u64) -> ApiServer {
    ApiServer::new(Options::deterministic(seed))
}

pub async fn connect(server: &ApiServer) -> Cluster {
    Cluster::connect(kube::Client::new(server.router(), "default")).await.unwrap()
}

pub fn env() -> Env {
    Env::fixed(1_767_225_600_000_000_000, 1)
}

pub fn documents(yaml: &str) -> Vec<Value> {
    yaml.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

/// Applies manifests as a user would.
pub async fn apply(server: &ApiServer, objects: &[Value]) {
    for object in objects {
        // Discovered anew, since a definition adds a kind.
        let cluster = connect(server).await;
        let object = Object(object.clone());
        let resource = cluster.resources.find_version(&object.gvk()).unwrap().clone();
        cluster.create(&resource, &object, false).await.unwrap();
    }
}

/// A cluster with the shop on it.
pub async fn shop(seed: u64) -> ApiServer {
    let server = server(seed);
    apply(&server, &documents(SHOP)).await;
    server
}

/// Everything of these namespaces and all that is cluster-scoped and came with the shop, as a recovery point.
/// Selecting is the protect side's work and has its own tests; here it is spelled out.
pub fn point(server: &ApiServer, resources: &ApiResources, namespaces: &[&str], shared: &[&str]) -> Point {
    let ours = documents(SHOP).iter().map(|value| Object(value.clone()).key()).collect::<Vec<_>>();
    let mut objects: Vec<StoredObject> = server
        .dump()
        .into_iter()
        .map(Object)
        .filter(|object| {
            let key = object.key();
            if key.namespace.is_empty() {
                ours.contains(&key) && (!key.is("", "Namespace") || namespaces.contains(&key.name.as_str()))
            } else {
                namespaces.contains(&key.namespace.as_str()) || shared.contains(&key.to_string().as_str())
            }
        })
        .filter_map(|object| {
            let restore = match (kinds::of(&object).keep)(&object, &|_| None) {
                Keep::Yes if object.controller().is_some() => Restore::Owned,
                Keep::Yes => Restore::Yes,
                Keep::Evidence(_) => Restore::Evidence,
                Keep::No(_) => return None,
            };
            let key = object.key();
            Some(StoredObject {
                resource: resources.find_version(&object.gvk()).map(ResourceType::bare).unwrap(),
                role: if shared.contains(&key.to_string().as_str()) {
                    Role::Shared
                } else if key.namespace.is_empty() {
                    Role::Cluster
                } else {
                    Role::Member
                },
                key,
                restore,
                clean: (&clean(&object)).into(),
                original: object.0.into(),
            })
        })
        .collect();
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    let time = jiff::Timestamp::UNIX_EPOCH;
    Point {
        meta: PointMeta {
            format: 1,
            application: "shop".into(),
            cluster: ClusterInfo::default(),
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
            started: time,
            cut: time,
            finished: time,
            consistency: None,
            selection: Value::Null,
            rules: Vec::new(),
            holdfast: "test".into(),
        },
        objects,
        certificate: Certificate::default(),
        volumes: Vec::<VolumeRecord>::new(),
        discovery: resources.clone(),
    }
}

/// The whole shop as a point, with the shared part of `ops`.
pub async fn shop_point(server: &ApiServer) -> Point {
    let cluster = connect(server).await;
    point(server, &cluster.resources, &["shop"], &["ConfigMap ops/shared"])
}

pub async fn get(cluster: &Cluster, group: &str, kind: &str, namespace: &str, name: &str) -> Option<Object> {
    let fresh = Cluster::connect(cluster.client.clone()).await.unwrap();
    fresh.get_key(&ObjectKey::new(group, kind, namespace, name)).await.unwrap()
}

/// Changes an object by a merge patch.
pub async fn patch(cluster: &Cluster, group: &str, kind: &str, namespace: &str, name: &str, patch: Value) {
    let resource = cluster.resources.find(group, kind).unwrap();
    cluster.merge_patch(resource, namespace, name, None, &patch).await.unwrap();
}

pub async fn delete_namespace(cluster: &Cluster, name: &str) {
    let resource = cluster.resources.find("", "Namespace").unwrap();
    cluster.delete(resource, "", name, app::api::Propagation::Background, None).await.unwrap();
}

/// Every object's identity and resourceVersion: what a restore that changes nothing must not touch.
pub fn versions(server: &ApiServer) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = server
        .dump()
        .into_iter()
        .map(Object)
        .map(|object| (object.key().to_string(), object.resource_version().to_owned()))
        .collect();
    all.sort();
    all
}

pub fn label_patch(value: Value) -> Value {
    json!({"metadata": {"labels": value}})
}
