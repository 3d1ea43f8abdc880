//! Manifests that others publish, as they are: not ours to keep here, and not to be had in every place, so whoever has some names the
//! directory. Each file or folder in it is one application; it is made, backed up, lost, restored, compared and backed up again as
//! ours are, and nothing is known of any of them. What has been tried is in `tests/published.md`.
//!
//! ```text
//! HOLDFAST_PUBLISHED=DIR cargo test -p app --test published -- --ignored --nocapture
//! ```
//! On the cluster of `HOLDFAST_TEST_KUBECONFIG` if that is set, else on the embedded server.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // A test file, which tells people what it saw.

#[path = "common/apps.rs"]
mod apps;
#[path = "common/round.rs"]
mod round;
#[path = "common/trip.rs"]
mod trip;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::certificate::{External, State};
use app::discover::discover;
use app::drift;
use app::object::Object;
use app::select::{Selection, select};
use futures::FutureExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

async fn real(path: &str) -> Cluster {
    let config = Kubeconfig::read_from(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    Cluster::connect(kube::Client::try_from(config).unwrap()).await.unwrap()
}

/// In an order in which they can be made: namespaces, definitions, the rest as it is written, webhooks last.
fn in_order(mut objects: Vec<Value>) -> Vec<Value> {
    let rank = |object: &Value| match object["kind"].as_str().unwrap_or("") {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "StorageClass" | "PriorityClass" | "ServiceAccount" | "ConfigMap" | "Secret" => 2,
        kind if kind.ends_with("WebhookConfiguration") || kind == "APIService" => 4,
        _ => 3,
    };
    objects.sort_by_key(rank);
    objects
}

/// The application of a file or folder. What says no namespace gets one with the name of the application, as `kubectl -n` would do.
fn application(path: &Path, name: &str, cluster: &Cluster) -> Vec<Value> {
    let read = drift::read(path).unwrap();
    for finding in &read.findings {
        println!("  {}: {}", finding.what, finding.message);
    }
    let mut objects: Vec<Value> = read.declared.into_iter().map(|declared| declared.written).collect();
    let custom: BTreeSet<(String, String)> = objects
        .iter()
        .filter(|o| o["kind"] == "CustomResourceDefinition" && o["spec"]["scope"] == "Cluster")
        .map(|o| {
            let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
            (text(&o["spec"]["group"]), text(&o["spec"]["names"]["kind"]))
        })
        .collect();
    let mut spaces: BTreeSet<String> = BTreeSet::new();
    for object in &mut objects {
        let gvk = Object(object.clone()).gvk();
        let served = cluster.resources.find(&gvk.group, &gvk.kind).map(|served| served.namespaced);
        let is_namespaced =
            served.unwrap_or_else(|| !custom.contains(&(gvk.group.clone(), gvk.kind.clone())));
        if is_namespaced && !object["metadata"]["namespace"].is_string() {
            object["metadata"]["namespace"] = json!(name);
        }
        if let Some(space) = object["metadata"]["namespace"].as_str() {
            spaces.insert(space.to_owned());
        }
        // What servers and other tools wrote is not the author's.
        object.as_object_mut().unwrap().remove("status");
    }
    for space in spaces {
        let is_it = |o: &Value| o["kind"] == "Namespace" && o["metadata"]["name"] == space.as_str();
        if !["default", "kube-system"].contains(&space.as_str()) && !objects.iter().any(is_it) {
            objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}));
        }
    }
    in_order(objects)
}

/// Prints what is found of it without configuration, and what a point of its namespaces lacks.
async fn told(cluster: &Cluster, namespaces: &[String]) {
    let found = discover(cluster, namespaces).await.unwrap();
    for application in &found.applications {
        println!(
            "  application {} by {}: {} parts, {} claims, shared {:?}, needs {:?}, outside {:?}, unprotected {:?}",
            application.full_name(),
            application.by,
            application.parts.len(),
            application.volumes.len(),
            application.shared.iter().map(ToString::to_string).collect::<Vec<_>>(),
            application
                .needs
                .iter()
                .map(|need| format!("{} of {}", need.to, need.application))
                .collect::<Vec<_>>(),
            application.external.iter().map(External::words).collect::<Vec<_>>(),
            application.unprotected,
        );
    }
    for key in &found.unclaimed {
        println!("  of no application: {key}");
    }
    let selection = Selection { namespaces: namespaces.to_vec(), ..Selection::default() };
    let selected = select(cluster, &selection).await.unwrap();
    let of = |state: State| selected.references.iter().filter(move |r| r.state == state);
    println!(
        "  a point: {} objects, {} references inside, {} expected on the target, {} missing",
        selected.objects.len(),
        of(State::Included).count(),
        of(State::ExpectedOnTarget).count(),
        of(State::Missing).count()
    );
    for lacks in of(State::Missing) {
        println!(
            "  missing: {} of {} at {} ({:?}): {}",
            lacks.to, lacks.from, lacks.at, lacks.by, lacks.reason
        );
    }
    let outside: BTreeSet<String> =
        of(State::ExpectedOnTarget).map(|r| format!("{}: {}", r.to, r.reason)).collect();
    for expected in outside {
        println!("  expected: {expected}");
    }
    for finding in found.findings.iter().chain(&selected.findings) {
        println!("  {:?} {} {}: {}", finding.severity, finding.code, finding.what, finding.message);
    }
}

#[tokio::test]
#[ignore = "needs manifests that are not ours: HOLDFAST_PUBLISHED names their directory"]
async fn published_manifests_come_back_as_they_were() {
    let folder =
        std::env::var("HOLDFAST_PUBLISHED").unwrap_or_else(|_| panic!("HOLDFAST_PUBLISHED is not set"));
    let kubeconfig = std::env::var("HOLDFAST_TEST_KUBECONFIG").ok();
    let mut places: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    places.sort();
    let mut wrong = Vec::new();
    for place in places {
        let name = place.file_stem().unwrap().to_str().unwrap().to_lowercase();
        let server = ApiServer::new(Options::deterministic(1));
        let cluster = match &kubeconfig {
            Some(path) => real(path).await,
            None => Cluster::connect(kube::Client::new(server.router(), "default")).await.unwrap(),
        };
        let objects = application(&place, &name, &cluster);
        let (made, refused) = apps::try_create(&cluster, &objects).await;
        let kinds: BTreeSet<&str> = made.iter().map(|o| o.str("/kind")).collect();
        println!("{name}: {} objects of {} kinds, {} refused", made.len(), kinds.len(), refused.len());
        for why in refused {
            println!("  refused: {}", why.chars().take(300).collect::<String>());
        }
        let taken: Vec<Value> =
            objects.into_iter().filter(|o| made.iter().any(|m| m.key() == Object(o.clone()).key())).collect();
        told(&round::anew(&cluster).await, &apps::namespaces(&taken)).await;
        let trip = trip::comes_back(&name, &taken, &made, &cluster);
        if AssertUnwindSafe(trip).catch_unwind().await.is_err() {
            let _ = AssertUnwindSafe(round::lose(&cluster, &taken)).catch_unwind().await;
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
