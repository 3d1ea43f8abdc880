//! Round trips: what was backed up, lost and restored is what it was, and becomes the same point again. On the embedded server and
//! on a real one, for every application for tests; and for sets of objects that nobody thought of.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

#[path = "common/apps.rs"]
mod apps;
mod common;
#[path = "common/round.rs"]
mod round;
#[path = "common/trip.rs"]
mod trip;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::diff::{DiffOptions, points};
use app::object::{Object, ObjectKey};
use app::restore::{RestoreOptions, plan};
use app::transform::Mapping;
use futures::{FutureExt, StreamExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use proptest::prelude::*;
use trip::round_trip;

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

#[tokio::test]
async fn what_every_cluster_has_is_as_it_was_if_nobody_changed_it() {
    let server = ApiServer::new(Options::deterministic(1));
    let cluster = common::cluster(&server).await;
    let settings = Object(common::object("cm default/settings text:x"));
    let resource = cluster.resources.find_version(&settings.gvk()).unwrap();
    cluster.create(resource, &settings, false).await.unwrap();
    let point = round::backed_up(&round::repository(), &cluster, &["default".to_owned()]).await;
    let plan = plan(&point, &cluster, &RestoreOptions::default()).await.unwrap();
    let steps: Vec<_> = plan.steps().map(|s| format!("{:?} {}: {}", s.action, s.key, s.reason)).collect();
    assert!(steps.iter().any(|step| step.contains("Namespace default")), "{steps:#?}");
    assert!(!plan.changes_anything(), "{steps:#?}");
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
