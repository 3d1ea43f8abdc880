//! From an old cluster to a new one and back: every application for tests is made on a real API server of long ago, moves to a
//! current one, and returns. Versions of kinds come and go on the way; what was meant stays, and what cannot be said in
//! the other cluster is told.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

#[path = "common/apps.rs"]
mod apps;
mod common;
#[path = "common/own.rs"]
mod own;
#[path = "common/round.rs"]
mod round;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::diff::{Diff, DiffOptions, VolumeRoots, points, with_cluster};
use app::object::ObjectKey;
use app::point::Point;
use app::restore::{Report, RestoreOptions, RestorePlan};
use futures::{FutureExt, StreamExt};
use own::OwnCluster;
use repo::Severity;
use serde_json::{Value, json};

/// Findings of a restore of objects only, and of what a cluster of another age does not know.
const EXPECTED: &[&str] = &["data-missing", "not-served"];

/// What is wrong with a restore: anything that failed, and errors nobody expects.
fn wrong(report: &Report) -> Vec<String> {
    let errors = report.findings.iter().filter(|f| f.severity == Severity::Error);
    errors.filter(|f| !EXPECTED.contains(&f.code)).map(|f| format!("{}: {}", f.what, f.message)).collect()
}

/// What a comparison finds, but for what the plan said it leaves.
fn differences(diff: &Diff, plan: Option<&RestorePlan>) -> Vec<String> {
    let left: BTreeSet<&ObjectKey> = plan.into_iter().flat_map(|p| &p.left).map(|left| &left.key).collect();
    let gone = diff.only_before.iter().filter(|key| !left.contains(key));
    let fields = diff
        .changed
        .iter()
        .flat_map(|object| object.changes.iter().map(move |change| format!("{} {change}", object.key)));
    let apart = diff.findings.iter().filter(|f| f.code == "no-common-version").map(|f| f.message.clone());
    gone.map(|key| format!("{key} is gone")).chain(fields).chain(apart).collect()
}

async fn compared(point: &Point, cluster: &Cluster, plan: &RestorePlan) -> Vec<String> {
    differences(&with_cluster(point, cluster, &DiffOptions::default()).await.unwrap(), Some(plan))
}

/// There and back; gives what was not as it was, and what each side told.
async fn moves(name: &str, objects: &[Value], old: &Cluster) -> Vec<String> {
    let told = |step: &str, found: Vec<String>| -> Vec<String> {
        found.into_iter().map(|line| format!("{name}, {step}: {line}")).collect()
    };
    let namespaces = apps::namespaces(objects);
    apps::create(old, objects).await;
    let old = round::anew(old).await;
    let repository = round::repository();
    let point = round::backed_up(&repository, &old, &namespaces).await;
    let mut found = Vec::new();

    let server = ApiServer::new(Options::deterministic(1));
    let new = common::cluster(&server).await;
    let (plan, report) = round::restored(&point, &new, &RestoreOptions::default()).await;
    found.extend(told("restored onto the new", wrong(&report)));
    let new = round::anew(&new).await;
    found.extend(told("compared with the new", compared(&point, &new, &plan).await));
    let there = round::backed_up(&repository, &new, &namespaces).await;
    let none = VolumeRoots::new();
    let between = points((&point, &none), (&there, &none), &DiffOptions::default()).unwrap();
    found.extend(told("one point with the other", differences(&between, Some(&plan))));

    round::lose(&old, objects).await;
    let old = round::anew(&old).await;
    let (plan, report) = round::restored(&there, &old, &RestoreOptions::default()).await;
    found.extend(told("restored onto the old", wrong(&report)));
    let old = round::anew(&old).await;
    found.extend(told("compared with the old", compared(&there, &old, &plan).await));
    round::lose(&old, objects).await;
    found
}

#[tokio::test]
async fn kube_every_application_moves_to_a_new_cluster_and_back() {
    let own = OwnCluster::up().await;
    let old = own.connect().await;
    // Side by side, since most of the time is spent waiting until a namespace is gone; they share nothing.
    let journeys = futures::stream::iter(apps::ALL).map(|name| {
        let old = old.clone();
        async move {
            let begun = std::time::Instant::now();
            // One that does not arrive says nothing of the others.
            let journey = AssertUnwindSafe(moves(name, &apps::objects(name), &old)).catch_unwind().await;
            println!("{name}: {:?}", begun.elapsed());
            journey.unwrap_or_else(|_| vec![format!("{name} did not arrive: see the panic above")])
        }
    });
    let found: Vec<Vec<String>> = journeys.buffer_unordered(5).collect().await;
    let found: Vec<String> = found.into_iter().flatten().collect();
    assert!(found.is_empty(), "{found:#?}");
}

fn named(api: &str, kind: &str, name: &str, rest: Value) -> Value {
    let mut object =
        json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "aged"}});
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    object
}

/// Kinds as people wrote them when this server was new.
fn of_old() -> Vec<Value> {
    let pods = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "example.com/web"}]}});
    let mut once = pods.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let backend = json!({"serviceName": "web", "servicePort": 80});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "aged"}}),
        named(
            "apps/v1",
            "Deployment",
            "web",
            json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": pods}}),
        ),
        named("v1", "Service", "web", json!({"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})),
        named("batch/v1", "Job", "once", json!({"spec": {"template": once}})),
        named(
            "batch/v1beta1",
            "CronJob",
            "nightly",
            json!({"spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": once}}}}),
        ),
        named(
            "policy/v1beta1",
            "PodDisruptionBudget",
            "web",
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        ),
        named(
            "networking.k8s.io/v1beta1",
            "Ingress",
            "web",
            json!({"spec": {"backend": backend, "rules": [{"host": "web.example.com", "http": {"paths": [{"path": "/", "backend": backend}]}}]}}),
        ),
        named(
            "extensions/v1beta1",
            "Ingress",
            "older",
            json!({"spec": {"rules": [{"host": "old.example.com", "http": {"paths": [{"path": "/", "backend": backend}]}}]}}),
        ),
        named(
            "discovery.k8s.io/v1beta1",
            "EndpointSlice",
            "by-hand",
            json!({"addressType": "IPv4", "ports": [{"port": 5432}],
            "endpoints": [{"addresses": ["10.9.8.7"], "topology": {"kubernetes.io/hostname": "n1", "topology.kubernetes.io/zone": "z1"}}]}),
        ),
        named(
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            "first",
            json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 70}}),
        ),
        named(
            "autoscaling/v2beta1",
            "HorizontalPodAutoscaler",
            "second",
            json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}}, {"type": "Pods", "pods": {"metricName": "requests", "targetAverageValue": "10"}}]}}),
        ),
        named(
            "autoscaling/v2beta2",
            "HorizontalPodAutoscaler",
            "third",
            json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}}),
        ),
    ]
}

#[tokio::test]
async fn kube_what_was_written_long_ago_moves_to_a_new_cluster_and_back() {
    let own = OwnCluster::up().await;
    let found = moves("aged", &of_old(), &own.connect().await).await;
    assert!(found.is_empty(), "{found:#?}");
}
