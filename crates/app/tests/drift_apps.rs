//! Every application for tests, created as it stands: nothing of it has drifted from its own manifests, whatever the
//! server added, and a rehearsal elsewhere goes through.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

#[path = "common/apps.rs"]
mod apps;
mod common;

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::certificate::Certificate;
use app::drift::{DriftOptions, with_directory};
use app::point::{ClusterInfo, Point, PointMeta};
use app::rehearse::{RehearseOptions, rehearse};
use app::select::{Selection, select};
use common::cluster;
use repo::{Cancel, Env};

fn env() -> Env {
    Env::fixed(1_767_225_600_000_000_000, 1)
}

/// What a backup of these namespaces would hold.
async fn point(cluster: &Cluster, namespaces: Vec<String>) -> Point {
    let selected = select(cluster, &Selection { namespaces, ..Selection::default() }).await.unwrap();
    let time = jiff::Timestamp::UNIX_EPOCH;
    Point {
        meta: PointMeta {
            format: 1,
            application: selected.name.clone(),
            cluster: ClusterInfo { id: String::new(), version: cluster.resources.version.clone() },
            namespaces: selected.namespaces.iter().cloned().collect(),
            started: time,
            cut: time,
            finished: time,
            consistency: None,
            selection: serde_json::Value::Null,
            rules: Vec::new(),
            holdfast: "test".into(),
        },
        objects: app::collect::collect(&selected).collect(),
        certificate: Certificate::new(selected.references.clone(), Vec::new(), Vec::new()),
        volumes: Vec::new(),
        discovery: cluster.resources.clone(),
    }
}

/// What of an application is not as its manifests say.
async fn drifted(cluster: &Cluster, name: &str) -> Vec<String> {
    let point = point(cluster, apps::namespaces(&apps::objects(name))).await;
    let drift =
        with_directory(&point, &apps::path(&format!("{name}.yaml")), &DriftOptions::default(), &env())
            .await
            .unwrap();
    let fields = drift.changed.iter().flat_map(|object| {
        object.fields.iter().map(move |field| {
            format!("{name}: {} {}: {:?} -> {:?}", object.key, field.at, field.declared, field.live)
        })
    });
    let declared = drift.only_declared.iter().filter(|key| !key.namespace.is_empty());
    let refused = drift.findings.iter().filter(|finding| finding.code == "manifest-refused");
    fields
        .chain(declared.map(|key| format!("{name}: {key} is only declared")))
        .chain(drift.only_live.iter().map(|key| format!("{name}: {key} is declared nowhere")))
        .chain(refused.map(|finding| format!("{name}: {} {}", finding.what, finding.message)))
        .collect()
}

#[tokio::test]
async fn what_a_server_adds_is_no_drift() {
    let server = ApiServer::new(Options::deterministic(1));
    let cluster = cluster(&server).await;
    let mut found = Vec::new();
    for name in apps::ALL {
        apps::create(&cluster, &apps::objects(name)).await;
        let fresh = Cluster::connect(cluster.client.clone()).await.unwrap();
        found.extend(drifted(&fresh, name).await);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test]
async fn every_application_for_tests_can_be_rehearsed() {
    let mut found = Vec::new();
    for name in apps::ALL {
        let server = ApiServer::new(Options::deterministic(1));
        let cluster = cluster(&server).await;
        apps::create(&cluster, &apps::objects(name)).await;
        let fresh = Cluster::connect(cluster.client.clone()).await.unwrap();
        let point = point(&fresh, apps::namespaces(&apps::objects(name))).await;
        let scratch = tempfile::tempdir().unwrap();
        let rehearsal = rehearse(&point, &RehearseOptions::default(), &env(), &Cancel::new(), scratch.path())
            .await
            .unwrap();
        let refused = rehearsal.refused.iter().chain(&rehearsal.pods_refused);
        // One tenant's own namespace refuses its pods, as it would in a cluster.
        let refused =
            refused.filter(|r| name != &"tenants" || !r.reason.contains("violates PodSecurity \"restricted"));
        found.extend(refused.map(|refused| format!("{name}: {}: {}", refused.key, refused.reason)));
        assert!(rehearsal.accepted > 3, "{name}: {}", rehearsal.accepted);
    }
    assert_eq!(found, Vec::<String>::new());
}
