//! The simulated controllers: an application comes up, is destroyed, and comes up again.

#![allow(clippy::unwrap_used)] // In a test a failed unwrap is the failed test.

use apiserver::{ApiServer, Options};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "postgres:16",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}})
}

async fn names<T>(api: &Api<T>) -> Vec<String>
where
    T: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.list(&ListParams::default()).await.unwrap().items.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn a_stateful_application_comes_up_with_real_directories_and_takes_them_along() {
    let root = tempfile::tempdir().unwrap();
    let server = ApiServer::new(Options::deterministic(1).simulate(root.path()));
    let client = Client::new(server.router(), "shop");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), "shop");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), "shop");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let pp = PostParams::default();
    let start = async || {
        namespaces.create(&pp, &of(json!({"metadata": {"name": "shop"}}))).await.unwrap();
        let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}}, "template": template("db"), "volumeClaimTemplates": [{"metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
        sets.create(&pp, &of(set)).await.unwrap();
    };
    start().await;
    assert_eq!(names(&pods).await, ["db-0", "db-1"]);
    assert_eq!(names(&claims).await, ["data-db-0", "data-db-1"]);
    let status = sets.get("db").await.unwrap().status.unwrap();
    assert_eq!((status.ready_replicas, status.replicas), (Some(2), 2));
    let claim = claims.get("data-db-0").await.unwrap();
    assert_eq!(claim.status.unwrap().phase.as_deref(), Some("Bound"));
    let volume = volumes.get(claim.spec.unwrap().volume_name.as_deref().unwrap()).await.unwrap();
    let path = volume.spec.unwrap().host_path.unwrap().path;
    std::fs::write(format!("{path}/precious"), "data").unwrap();

    // Fewer replicas leave their claims; more find them again.
    let scale = |n: i64| Patch::Merge(json!({"spec": {"replicas": n}}));
    sets.patch("db", &PatchParams::default(), &scale(0)).await.unwrap();
    assert_eq!(names(&pods).await, Vec::<String>::new());
    assert_eq!(names(&claims).await.len(), 2);
    sets.patch("db", &PatchParams::default(), &scale(2)).await.unwrap();
    assert_eq!(sets.get("db").await.unwrap().status.unwrap().ready_replicas, Some(2));
    assert!(std::fs::exists(format!("{path}/precious")).unwrap());

    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    assert_eq!(names(&namespaces).await.len(), 4, "shop is gone");
    assert_eq!(names(&volumes).await, Vec::<String>::new());
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "and its data");
    start().await;
    assert_eq!(sets.get("db").await.unwrap().status.unwrap().ready_replicas, Some(2));
}

#[tokio::test]
async fn a_deployment_has_one_replica_set_a_template_and_ready_pods() {
    let root = tempfile::tempdir().unwrap();
    let server = ApiServer::new(Options::deterministic(1).simulate(root.path()));
    let client = Client::new(server.router(), "default");
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}});
    api.create(&PostParams::default(), &of(json!({"metadata": {"name": "web"}, "spec": spec})))
        .await
        .unwrap();
    let status = api.get("web").await.unwrap().status.unwrap();
    assert_eq!(
        (status.ready_replicas, status.updated_replicas, status.observed_generation),
        (Some(3), Some(3), Some(1))
    );
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}});
    api.patch("web", &PatchParams::default(), &Patch::Strategic(image)).await.unwrap();
    let running = pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(running.items.len(), 3);
    assert!(
        running
            .items
            .iter()
            .all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("nginx:2"))
    );
    // A pod that is deleted comes back under another name.
    let one = running.items[0].name_any();
    pods.delete(&one, &DeleteParams::default()).await.unwrap();
    let after = names(&pods).await;
    assert!(after.len() == 3 && !after.contains(&one));
    api.delete("web", &DeleteParams::background()).await.unwrap();
    assert!(names(&pods).await.is_empty());
}

#[tokio::test]
async fn a_claim_waits_for_the_volume_it_names() {
    let root = tempfile::tempdir().unwrap();
    let server = ApiServer::new(Options::deterministic(1).simulate(root.path()));
    let client = Client::new(server.router(), "default");
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "restored",
        "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}});
    claims.create(&PostParams::default(), &of(claim)).await.unwrap();
    let phase = async || claims.get("c").await.unwrap().status.unwrap().phase.unwrap();
    assert_eq!(phase().await, "Pending");
    let volume = json!({"metadata": {"name": "restored"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "claimRef": {"name": "c", "namespace": "default"}, "hostPath": {"path": "/somewhere"}}});
    volumes.create(&PostParams::default(), &of(volume)).await.unwrap();
    assert_eq!(phase().await, "Bound");
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    let left = volumes.get("restored").await.unwrap();
    assert_eq!(
        left.status.unwrap().phase.as_deref(),
        Some("Released"),
        "a volume made by hand is never deleted"
    );
}
