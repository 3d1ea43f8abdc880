//! The applications of `tests/apps`, loaded into a cluster: one by one, as a person would create them.
#![allow(dead_code)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests: clippy knows only test functions as tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use app::api::{ApiResources, Cluster};
use app::object::Object;
use serde_json::{Value, json};

/// The names of all applications for tests.
pub const ALL: &[&str] = &[
    "agent",
    "batch",
    "broker",
    "edge",
    "gitops",
    "monitoring",
    "operator",
    "plain",
    "postgres",
    "ring",
    "shop",
    "split",
    "tenants",
    "webhook",
    "wiki",
];

/// A file of `tests/apps`.
pub fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/apps").join(file)
}

/// The objects of one application, as they are written.
pub fn objects(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path(&format!("{name}.yaml"))).unwrap();
    text.split("\n---\n")
        .map(|document| {
            serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{name}: {e}\n{document}"))
        })
        .collect()
}

/// The namespaces of an application.
pub fn namespaces(objects: &[Value]) -> Vec<String> {
    let namespaces = objects.iter().filter(|o| o["kind"] == "Namespace");
    namespaces.map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Creates the objects in their order; gives them back as the server answered.
pub async fn create(cluster: &Cluster, objects: &[Value]) -> Vec<Object> {
    let (made, refused) = try_create(cluster, objects).await;
    assert!(refused.is_empty(), "{refused:#?}");
    made
}

/// The same of objects that a server may refuse; says which, and why.
pub async fn try_create(cluster: &Cluster, objects: &[Value]) -> (Vec<Object>, Vec<String>) {
    let mut resources = cluster.resources.clone();
    let (mut made, mut refused): (Vec<Object>, Vec<String>) = (Vec::new(), Vec::new());
    let mut unserved = BTreeSet::new();
    for object in objects {
        let mut object = Object(object.clone());
        for owner in object
            .0
            .pointer_mut("/metadata/ownerReferences")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let named = made.iter().find(|o| o.str("/kind") == owner["kind"] && o.name() == owner["name"]);
            owner["uid"] = json!(named.unwrap_or_else(|| panic!("{owner} stands before its owner")).uid());
        }
        if resources.find_version(&object.gvk()).is_none() {
            for_this_server(&resources, &mut object);
        }
        // A definition adds a kind, and a real server takes a moment to serve it.
        for _ in 0..300 {
            if unserved.contains(&object.gvk()) || resources.find_version(&object.gvk()).is_some() {
                break;
            }
            resources = Cluster::connect(cluster.client.clone()).await.unwrap().resources;
            if resources.find_version(&object.gvk()).is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        let Some(resource) = resources.find_version(&object.gvk()) else {
            refused.push(format!("{}: the cluster serves no {}", object.key(), object.gvk()));
            unserved.insert(object.gvk());
            continue;
        };
        match cluster.create(resource, &object, false).await {
            Ok(created) => made.push(created),
            Err(why) => refused.push(format!("{}: {why}", object.key())),
        }
    }
    (made, refused)
}

/// The version an older server has of the same fields.
fn for_this_server(resources: &ApiResources, object: &mut Object) {
    let older = match (object.str("/apiVersion"), object.str("/kind")) {
        ("policy/v1", _) => "policy/v1beta1",
        ("batch/v1", "CronJob") => "batch/v1beta1",
        ("autoscaling/v2", _) => "autoscaling/v2beta2",
        _ => return,
    };
    let kind = object.str("/kind").to_owned();
    if resources.types.iter().any(|t| t.api_version() == older && t.kind == kind) {
        object.0["apiVersion"] = json!(older);
    }
}
