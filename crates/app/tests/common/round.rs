//! A round trip: backed up, deleted, restored, compared, backed up again.
#![allow(dead_code)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests: clippy knows only test functions as tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use app::api::{Cluster, Propagation};
use app::backup::{self, BackupOptions, Means};
use app::object::{Object, ObjectKey};
use app::point::{Contents, Point, points};
use app::restore::{Consent, Deadlines, Executor, Report, RestoreOptions, RestorePlan, plan};
use app::select::Selection;
use repo::store::mem::MemStore;
use repo::{Cancel, Env, InitOptions, Kdf, Passphrase, ReaderOptions, Repository};
use serde_json::{Value, json};

#[path = "nothing.rs"]
mod nothing;
pub use nothing::Nothing;

/// Waits for it, for a minute.
pub async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("within a minute: {what}");
}

/// An empty repository in memory.
pub fn repository() -> Repository {
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    Repository::init(Arc::new(MemStore::new()), &Passphrase::new("correct horse"), &options, &Env::real())
        .unwrap()
}

/// A point of these namespaces.
pub async fn backed_up(repository: &Repository, cluster: &Cluster, namespaces: &[String]) -> Point {
    let means = Means {
        repository: repository.clone(),
        volumes: Arc::new(Nothing),
        hands: Arc::new(Nothing),
        env: Env::real(),
        cancel: Cancel::new(),
        progress: Arc::new(()),
    };
    let selection = Selection { namespaces: namespaces.to_vec(), ..Selection::default() };
    let options = BackupOptions { selection, ..BackupOptions::default() };
    let report = backup::run(cluster, &means, &options).await.unwrap();
    Point::read(&repository.reader(ReaderOptions::default()).unwrap(), &report.info).unwrap()
}

/// What the cluster of the latest point said of its API.
pub fn documents(repository: &Repository) -> BTreeMap<String, Value> {
    let reader = repository.reader(ReaderOptions::default()).unwrap();
    let all = points(repository, None).unwrap().done;
    let api = Contents::open(&reader, all.last().unwrap()).unwrap().api().unwrap();
    let read = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap();
    api.documents.iter().map(|(path, content)| (path.clone(), read(content))).collect()
}

/// Plans and executes, objects only.
pub async fn restored(point: &Point, cluster: &Cluster, options: &RestoreOptions) -> (RestorePlan, Report) {
    let plan = plan(point, cluster, options).await.unwrap();
    let executor = Executor {
        deadlines: Deadlines { step: Duration::from_millis(50), ..Deadlines::default() },
        ..Executor::new(cluster.clone(), Env::real())
    };
    let report = plan.clone().approve(&Consent::default()).unwrap().execute(&executor).await;
    (plan, report)
}

/// The cluster as it is served now: a definition adds a kind.
pub async fn anew(cluster: &Cluster) -> Cluster {
    Cluster::connect(cluster.client.clone()).await.unwrap()
}

async fn get(cluster: &Cluster, key: &ObjectKey) -> Option<Object> {
    cluster.get_key(key).await.unwrap()
}

/// Deletes an application: its namespaces, then what it has beside them, the last made first. Takes finalizers off that only a
/// controller would take off.
pub async fn lose(cluster: &Cluster, objects: &[Value]) {
    let cluster = anew(cluster).await;
    let keys: Vec<ObjectKey> = objects.iter().map(|o| Object(o.clone()).key()).collect();
    for (object, key) in objects.iter().zip(&keys) {
        if object.pointer("/metadata/finalizers").is_some()
            && let Some(resource) = cluster.resources.find(&key.group, &key.kind)
        {
            let off = json!({"metadata": {"finalizers": null}});
            let _ = cluster.merge_patch(resource, &key.namespace, &key.name, None, &off).await;
        }
    }
    let outside = keys.iter().rev().filter(|key| key.namespace.is_empty());
    let (spaces, others): (Vec<_>, Vec<_>) = outside.partition(|key| key.is("", "Namespace"));
    // Webhooks and API services first: without pods one stands before everything else, and the other keeps namespaces from going.
    let (hooks, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|key| {
        key.kind.ends_with("WebhookConfiguration") || key.is("apiregistration.k8s.io", "APIService")
    });
    for key in hooks.into_iter().chain(spaces).chain(others) {
        let Some(resource) = cluster.resources.find(&key.group, &key.kind) else { continue };
        cluster.delete(resource, "", &key.name, Propagation::Background, None).await.unwrap();
        for turn in 0.. {
            if get(&cluster, key).await.is_none() {
                break;
            }
            assert!(turn < 600, "{key} is gone within a minute");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The references of a certificate in words, with a mapping undone.
pub fn references(point: &Point, undo: &dyn Fn(&ObjectKey) -> String) -> BTreeSet<String> {
    point
        .certificate
        .references
        .iter()
        .map(|r| format!("{} -> {} {:?} {} {:?}", undo(&r.from), undo(&r.to), r.via, r.at, r.state))
        .collect()
}
