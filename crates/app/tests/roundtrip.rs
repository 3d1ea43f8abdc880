//! Round trips: what was backed up, lost and restored is what it was, and becomes the same point again. On the embedded server and
//! on a real one, for every application for tests; and for sets of objects that nobody thought of.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

#[path = "common/apps.rs"]
mod apps;
mod common;
#[path = "common/round.rs"]
mod round;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::diff::{DiffOptions, points, with_cluster};
use app::object::{Object, ObjectKey};
use app::point::Restore;
use app::restore::{Action, RestoreOptions, plan};
use app::transform::Mapping;
use futures::{FutureExt, StreamExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use proptest::prelude::*;
use repo::Severity;

/// Findings that a round trip of objects only has to have.
const EXPECTED: &[&str] = &["data-missing"];

/// Makes an application, backs it up, loses it, restores it, compares it, and backs it up again.
async fn round_trip(name: &str, cluster: &Cluster) {
    let objects = apps::objects(name);
    let namespaces = apps::namespaces(&objects);
    let made = apps::create(cluster, &objects).await;
    settled(cluster, &made).await;
    let cluster = round::anew(cluster).await;
    let repository = round::repository();
    let point = round::backed_up(&repository, &cluster, &namespaces).await;

    round::lose(&cluster, &objects).await;
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

    settled(&cluster, &made).await;
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
    round::lose(&cluster, &objects).await;
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

#[tokio::test]
async fn every_application_comes_back_as_it_was() {
    let mut wrong = Vec::new();
    for name in apps::ALL {
        let server = ApiServer::new(Options::deterministic(1));
        let cluster = common::cluster(&server).await;
        // One that does not come back says nothing of the others.
        if AssertUnwindSafe(round_trip(name, &cluster)).catch_unwind().await.is_err() {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test]
async fn kube_every_application_comes_back_as_it_was() {
    let path = std::env::var("HOLDFAST_TEST_KUBECONFIG").unwrap_or_else(|_| {
        panic!("HOLDFAST_TEST_KUBECONFIG is not set: run this under `tests/real/with kube -- `")
    });
    let config = Kubeconfig::read_from(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let cluster = Cluster::connect(kube::Client::try_from(config).unwrap()).await.unwrap();
    // Side by side, since most of the time is spent waiting until a namespace is gone; they share nothing.
    let trips = futures::stream::iter(apps::ALL).map(|name| {
        let cluster = cluster.clone();
        async move {
            let begun = std::time::Instant::now();
            // One that does not come back says nothing of the others.
            let trip = AssertUnwindSafe(round_trip(name, &cluster)).catch_unwind().await;
            println!("{name}: {:?}", begun.elapsed());
            (*name, trip.is_err())
        }
    });
    let trips: Vec<(&str, bool)> = trips.buffer_unordered(5).collect().await;
    let wrong: Vec<_> = trips.into_iter().filter(|(_, is_wrong)| *is_wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A name that others of its kind may have, too.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "web", "db-0", "x.y", "shop"]).prop_map(str::to_owned)
}

fn space() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["shop", "ops"]).prop_map(str::to_owned)
}

/// One object in the words of `common`: it may use what is there, and what is not.
fn words() -> impl Strategy<Value = String> {
    let uses =
        prop::collection::vec((prop::sample::select(vec!["secret", "cm", "pvc", "secret?"]), name()), 0..4);
    let workload = (prop::sample::select(vec!["deploy", "sts", "ds", "job"]), space(), name(), uses, name())
        .prop_map(|(kind, space, name, uses, account)| {
            let name = name.replace('.', "-");
            let uses: Vec<String> = uses.iter().map(|(what, of)| format!("{what}:{of}")).collect();
            format!("{kind} {space}/{name} app={name} sa:{account} prio:high {}", uses.join(" "))
        });
    let plain = (prop::sample::select(vec!["secret", "sa", "role"]), space(), name())
        .prop_map(|(kind, space, name)| format!("{kind} {space}/{name} part=1"));
    let text = (space(), name(), name(), space()).prop_map(|(space, name, host, of)| {
        format!("cm {space}/{name} text:http://{}.{of}.svc/x", host.replace('.', "-"))
    });
    let service = (space(), name()).prop_map(|(space, name)| {
        let name = name.replace('.', "-");
        format!("svc {space}/{name} sel:app={name}")
    });
    let binding = (prop::sample::select(vec!["rb", "crb"]), space(), name(), space(), name(), name())
        .prop_map(|(kind, space, name, of, account, role)| {
            let role = if kind == "rb" { format!("role:{role}") } else { "clusterrole:admin-of-all".into() };
            format!("{kind} {space}/{name} sa:{of}/{account} {role}")
        });
    let front = (prop::sample::select(vec!["np", "pdb"]), space(), name(), name()).prop_map(
        |(kind, space, name, of)| format!("{kind} {space}/{name} sel:app={}", of.replace('.', "-")),
    );
    let ingress = (space(), name(), name(), name()).prop_map(|(space, name, service, tls)| {
        format!("ing {space}/{name} svc:{} tls:{tls} class:nginx", service.replace('.', "-"))
    });
    let claim = (space(), name()).prop_map(|(space, name)| format!("pvc {space}/{name} class:fast"));
    let custom =
        (space(), name(), name()).prop_map(|(space, name, of)| format!("thing {space}/{name} secret:{of}"));
    prop_oneof![4 => workload, 3 => plain, 2 => text, 2 => service, 2 => binding, 2 => front, 1 => ingress, 1 => claim, 1 => custom]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_set_of_objects_restored_elsewhere_is_the_same_point_again(words in prop::collection::vec(words(), 1..24)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(elsewhere(words));
    }
}

/// Backs up namespaces `shop` and `ops`, restores them under other names on another cluster, backs that up.
async fn elsewhere(words: Vec<String>) {
    let mut seen = BTreeSet::new();
    let mut lines: Vec<String> = [
        "ns shop",
        "ns ops",
        "prio high",
        "sc fast",
        "ingclass nginx",
        "clusterrole admin-of-all",
        "crd things.example.com",
        "cm shop/always",
        "cm ops/always",
    ]
    .map(str::to_owned)
    .into();
    for line in words {
        let object = common::object(&line);
        if seen.insert(Object(object).key()) {
            lines.push(line);
        }
    }
    // Through the API and not past it, so that they are as objects are.
    let server = ApiServer::new(Options::deterministic(1));
    let mut cluster = common::cluster(&server).await;
    for line in &lines {
        let mut object = Object(common::object(line));
        if line.starts_with("job ") {
            object.0["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
        }
        if line.starts_with("pvc ") {
            object.0["spec"]["accessModes"] = vec!["ReadWriteOnce"].into();
        }
        if cluster.resources.find_version(&object.gvk()).is_none() {
            cluster = round::anew(&cluster).await;
        }
        let resource = cluster.resources.find_version(&object.gvk()).unwrap().clone();
        cluster.create(&resource, &object, false).await.unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    let repository = round::repository();
    let spaces = ["shop".to_owned(), "ops".to_owned()];
    let point = round::backed_up(&repository, &cluster, &spaces).await;

    let target = ApiServer::new(Options::deterministic(7));
    let there = common::cluster(&target).await;
    let transform =
        Mapping::from_yaml("namespaces: {shop: shop-new, ops: ops-new}").unwrap().check().unwrap();
    let options = RestoreOptions { transform: transform.clone(), ..RestoreOptions::default() };
    let (_, report) = round::restored(&point, &there, &options).await;
    assert_eq!(report.failed, 0, "{lines:#?} {:#?}", report.findings);
    let there = round::anew(&there).await;
    let again = plan(&point, &there, &options).await.unwrap();
    assert!(!again.changes_anything(), "{lines:#?} {:?}", again.counts());

    let second = round::backed_up(&repository, &there, &["shop-new".to_owned(), "ops-new".to_owned()]).await;
    let none = app::diff::VolumeRoots::new();
    let options = DiffOptions { transform, ..DiffOptions::default() };
    let diff = points((&point, &none), (&second, &none), &options).unwrap();
    assert!(
        diff.changed.is_empty() && diff.only_before.is_empty() && diff.only_after.is_empty(),
        "{lines:#?} {:#?} {:#?} {:#?}",
        diff.changed,
        diff.only_before,
        diff.only_after
    );
    let plain = |key: &ObjectKey| key.to_string();
    let back = |key: &ObjectKey| {
        let strip = |name: &str| {
            name.trim_end_matches("-new").trim_end_matches("-shop").trim_end_matches("-ops").to_owned()
        };
        let name = if key.namespace.is_empty() && key.kind != "Namespace" {
            strip(&key.name)
        } else {
            key.name.trim_end_matches("-new").to_owned()
        };
        ObjectKey { namespace: key.namespace.trim_end_matches("-new").to_owned(), name, ..key.clone() }
            .to_string()
    };
    assert_eq!(round::references(&second, &back), round::references(&point, &plain), "{lines:#?}");
}
