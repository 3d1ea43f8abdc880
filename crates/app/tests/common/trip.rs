//! A whole round trip of an application: made, backed up, lost, restored, compared, planned and backed up again.
#![allow(dead_code)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests: clippy knows only test functions as tests.

use std::collections::BTreeSet;
use std::time::Duration;

use app::api::Cluster;
use app::diff::{DiffOptions, with_cluster};
use app::object::{Object, ObjectKey};
use app::point::Restore;
use app::restore::{Action, RestoreOptions, plan};
use repo::Severity;
use serde_json::Value;

use crate::{apps, round};

/// Findings that a round trip of objects only has to have.
const EXPECTED: &[&str] = &["data-missing"];

/// Makes an application, backs it up, loses it, restores it, compares it, and backs it up again.
pub async fn round_trip(name: &str, cluster: &Cluster) {
    let objects = apps::objects(name);
    let made = apps::create(cluster, &objects).await;
    comes_back(name, &objects, &made, cluster).await;
}

/// The same of an application that is there.
pub async fn comes_back(name: &str, objects: &[Value], made: &[Object], cluster: &Cluster) {
    let namespaces = apps::namespaces(objects);
    settled(cluster, made).await;
    let cluster = round::anew(cluster).await;
    let repository = round::repository();
    let point = round::backed_up(&repository, &cluster, &namespaces).await;

    round::lose(&cluster, objects).await;
    let cluster = round::anew(&cluster).await;
    let (plan_before, report) = round::restored(&point, &cluster, &RestoreOptions::default()).await;
    let errors: Vec<_> = report
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Error && !EXPECTED.contains(&f.code))
        .collect();
    assert!(report.failed == 0 && errors.is_empty(), "{name}: {errors:#?}");
    let dropped: Vec<_> = report.findings.iter().filter(|f| f.code == "field-dropped").collect();
    assert!(dropped.is_empty(), "{name}: {dropped:#?}");

    // Everything of it that is in the point is there again, but what the plan says is left.
    let cluster = round::anew(&cluster).await;
    let stored: BTreeSet<&ObjectKey> = point.objects.iter().map(|o| &o.key).collect();
    let mut missing = Vec::new();
    for key in made.iter().map(Object::key).filter(|key| stored.contains(key)) {
        let left = plan_before.left.iter().any(|left| left.key == key);
        if !left && cluster.get_key(&key).await.unwrap().is_none() {
            missing.push(key);
        }
    }
    assert!(missing.is_empty(), "{name}: not there again: {missing:#?}");

    settled(&cluster, made).await;
    let diff = with_cluster(&point, &cluster, &DiffOptions::default()).await.unwrap();
    assert!(
        diff.changed.is_empty() && diff.only_before.is_empty(),
        "{name}: {:#?} {:#?}",
        diff.changed,
        diff.only_before
    );
    assert!(diff.only_after.is_empty(), "{name}: more than there was: {:#?}", diff.only_after);
    let again = plan(&point, &cluster, &RestoreOptions::default()).await.unwrap();
    let open: Vec<_> = again
        .steps()
        .filter(|step| step.action != Action::Unchanged)
        .map(|step| format!("{:?} {}: {} {:?}", step.action, step.key, step.reason, step.changes))
        .collect();
    assert!(open.is_empty(), "{name}: {open:#?}");

    // Owners are the new ones.
    for stored in point.objects.iter().filter(|o| o.restore == Restore::Yes) {
        let before = stored.original.open().owner_references();
        let Some(live) = cluster.get_key(&stored.key).await.unwrap() else { continue };
        for owner in before {
            let now = live.owner_references().into_iter().find(|now| now.name == owner.name);
            let now = now.unwrap_or_else(|| panic!("{name}: {} lost its owner {}", stored.key, owner.name));
            assert_ne!(now.uid, owner.uid, "{name}: {} has the old UID of {}", stored.key, owner.name);
        }
    }

    let second = round::backed_up(&repository, &cluster, &namespaces).await;
    let plain = |key: &ObjectKey| key.to_string();
    let (before, after) = (round::references(&point, &plain), round::references(&second, &plain));
    // Pods and what else controllers make again have names of their own, and so have the token secrets an old server
    // mounts into every pod.
    let lasting = |set: &BTreeSet<String>| -> BTreeSet<String> {
        let made_again: Vec<String> = point
            .objects
            .iter()
            .chain(&second.objects)
            .filter(|o| o.restore != Restore::Yes)
            .map(|o| o.key.to_string())
            .collect();
        let of_old_server = |line: &&String| line.contains("-token-") && line.contains("-> Secret");
        set.iter()
            .filter(|line| !made_again.iter().any(|key| line.contains(key.as_str())))
            .filter(|line| !of_old_server(line))
            .cloned()
            .collect()
    };
    let (before, after) = (lasting(&before), lasting(&after));
    let lost: Vec<_> = before.difference(&after).collect();
    let more: Vec<_> = after.difference(&before).collect();
    assert!(lost.is_empty() && more.is_empty(), "{name}: the certificate differs: {lost:#?} {more:#?}");
    round::lose(&cluster, objects).await;
}

/// Until the controllers of workloads have seen what was made, if there are any.
async fn settled(cluster: &Cluster, made: &[Object]) {
    if std::env::var_os("HOLDFAST_TEST_KUBECONFIG").is_none() {
        return;
    }
    let cluster = round::anew(cluster).await;
    for turn in 0..300 {
        let mut waiting = Vec::new();
        for key in made.iter().map(Object::key) {
            if !matches!(key.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") {
                continue;
            }
            let live = cluster.get_key(&key).await.unwrap();
            let seen = live
                .is_none_or(|live| live.at("/status/observedGeneration") == live.at("/metadata/generation"));
            if !seen {
                waiting.push(key.to_string());
            }
        }
        if waiting.is_empty() {
            break;
        }
        assert!(turn < 299, "within half a minute: {waiting:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
