//! A cluster with our definitions, replicas that are started again when they end, and requests as `kubectl` makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use apiserver::{ApiServer, Options};
use app::api::{ApiError, ApiResources, Cluster};
use data_encoding::BASE64;
use http::Method;
use jiff::Timestamp;
use kube::Client;
use operator::clock::Clock;
use operator::run::{self, Ended};
use repo::store::{self, StoreOptions};
use repo::{CommitDraft, Env, InitOptions, Kdf, KeyFile, LocalOptions, Repository, WriterOptions};
use serde_json::{Value, json};

/// The operator's namespace.
pub const OURS: &str = "holdfast-system";

/// A cluster, and a clock.
pub struct World {
    pub client: Client,
    pub cluster: Cluster,
    pub clock: Clock,
    pub namespace: String,
    pub is_embedded: bool,
}

/// An embedded server whose clock is ours, with our definitions and namespaces.
pub async fn embedded(start: &str) -> World {
    let clock = Clock::ours(start.parse().unwrap());
    let (time, dice) = (clock.clone(), AtomicU64::new(1));
    let now = move || i64::try_from(time.read().wall.as_nanosecond()).unwrap();
    let draw = move || {
        dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .rotate_left(17)
            .wrapping_mul(0xff51_afd7_ed55_8ccd)
    };
    let server = ApiServer::new(Options::new(Arc::new(now), Arc::new(draw)));
    let client = Client::new(server.router(), "default");
    let cluster = Cluster { client: client.clone(), resources: ApiResources::default() };
    let world = World { client, cluster, clock, namespace: OURS.into(), is_embedded: true };
    for definition in api::definitions() {
        world.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    }
    for namespace in [OURS, "shop"] {
        world.namespace(namespace, json!({})).await;
    }
    world
}

impl World {
    pub async fn make(&self, path: &str, object: Value) -> Value {
        self.try_make(path, object).await.unwrap()
    }

    pub async fn try_make(&self, path: &str, object: Value) -> Result<Value, ApiError> {
        self.cluster.json(Method::POST, path, "application/json", Some(&object)).await
    }

    pub async fn patch(&self, path: &str, patch: Value) -> Value {
        self.cluster.json(Method::PATCH, path, "application/merge-patch+json", Some(&patch)).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Value {
        self.cluster.get_path(path).await.unwrap_or(Value::Null)
    }

    pub async fn namespace(&self, name: &str, labels: Value) {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.make("/api/v1/namespaces", object).await;
    }

    /// The path of objects of ours.
    pub fn path(&self, namespace: &str, plural: &str) -> String {
        format!("/apis/holdfast.dev/v1alpha1/namespaces/{namespace}/{plural}")
    }

    pub async fn ours(&self, namespace: &str, kind: &str, plural: &str, name: &str, spec: Value) {
        let object = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        self.make(&self.path(namespace, plural), object).await;
    }

    pub async fn items(&self, path: &str) -> Vec<Value> {
        self.get(path).await["items"].as_array().cloned().unwrap_or_default()
    }

    /// The names of the points in a namespace.
    pub async fn points(&self, namespace: &str) -> Vec<String> {
        let items = self.items(&self.path(namespace, "recoverypoints")).await;
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The reasons of events in a namespace.
    pub async fn events(&self, namespace: &str) -> Vec<String> {
        let items = self.items(&format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")).await;
        items.iter().map(|item| item["reason"].as_str().unwrap().to_owned()).collect()
    }

    /// The reason and the message of a condition.
    pub async fn condition(&self, path: &str, kind: &str) -> (String, String) {
        let object = self.get(path).await;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |condition: &Value, name: &str| condition[name].as_str().unwrap().to_owned();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        found.map(|found| (text(found, "reason"), text(found, "message"))).unwrap_or_default()
    }

    pub async fn reason(&self, path: &str, kind: &str) -> String {
        self.condition(path, kind).await.0
    }

    async fn lease(&self) -> Value {
        let path =
            format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/holdfast-operator", self.namespace);
        self.get(&path).await
    }

    pub async fn holder(&self) -> String {
        self.lease().await["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    /// Lets time pass on our clock, in steps that a lease survives. Whoever is woken has a moment to act.
    pub async fn pass(&self, seconds: u64) {
        let mut left = seconds;
        while left > 0 {
            let step = left.min(3);
            self.step(step).await;
            left -= step;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }

    /// A busy machine is not to look like a leader that sleeps: whoever leads has time to renew, if it lives.
    async fn step(&self, seconds: u64) {
        self.clock.pass(Duration::from_secs(seconds));
        tokio::time::sleep(Duration::from_millis(3)).await;
        for _ in 0..if self.is_embedded { 100 } else { 0 } {
            let lease = self.lease().await;
            let renewed = lease["spec"]["renewTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
            let held = lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty());
            let age = renewed.map(|renewed| self.clock.read().wall.duration_since(renewed).as_secs());
            if !held || age.is_none_or(|age| age <= 6) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn pass_until(&self, wall: &str) {
        let until: Timestamp = wall.parse().unwrap();
        while let Ok(left) = u64::try_from(until.duration_since(self.clock.read().wall).as_secs())
            && left > 0
        {
            self.pass(left).await;
        }
    }

    /// Asks until the answer is yes; time passes meanwhile on a clock of ours, too.
    pub async fn eventually(&self, what: &str, ask: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while !ask().await {
            assert!(begun.elapsed() < Duration::from_secs(100), "within so long: {what}");
            self.step(1).await;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    /// A replica, started again whenever it ends.
    pub fn replica(&self, name: &str, dir: &std::path::Path) -> Replica {
        let (client, clock) = (self.client.clone(), self.clock.clone());
        let local = LocalOptions { cache: None, temporary: Some(dir.into()), memory_bytes: 128 << 20 };
        let options = run::Options { namespace: self.namespace.clone(), name: name.into(), local };
        let stop = Arc::new(tokio::sync::Notify::new());
        let asked = stop.clone();
        let task = tokio::spawn(async move {
            let mut lost = 0;
            loop {
                let ended =
                    run::run(client.clone(), clock.clone(), Env::real(), options.clone(), asked.notified())
                        .await;
                match ended.unwrap() {
                    Ended::Stopped => return lost,
                    Ended::Lost(_) => lost += 1,
                }
            }
        });
        Replica { stop, task }
    }
}

/// One that runs.
pub struct Replica {
    stop: Arc<tokio::sync::Notify>,
    task: tokio::task::JoinHandle<usize>,
}

impl Replica {
    /// It dies.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// It is asked to stop. How often it had lost the lease.
    pub async fn stop(self) -> usize {
        self.stop.notify_one();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap()
    }
}

/// A repository in a folder, and the text of the key file that opens it.
pub fn repository(dir: &std::path::Path) -> (Repository, String) {
    let env = Env::real();
    let key = KeyFile::generate(&env).unwrap();
    let store = store::open(dir.to_str().unwrap(), &StoreOptions::default()).unwrap();
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let made = Repository::init(store, &key, &options, &env).unwrap();
    (made, key.to_text().to_string())
}

/// A point without content: what is listed of it is what matters here.
pub fn point(repository: &Repository, labels: &[(&str, &str)], time: Timestamp) -> String {
    let writer = repository.writer(WriterOptions { threads: 1, ..WriterOptions::default() }).unwrap();
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let started = i64::try_from(time.as_nanosecond()).unwrap();
    let draft = CommitDraft { kind: "application".into(), labels, started, ..CommitDraft::default() };
    writer.commit_dated(draft, Some(started)).unwrap().id.to_string()
}

pub fn secret(name: &str, member: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {member: BASE64.encode(value.as_bytes())}})
}

/// An account that consents.
pub fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "labels": {"holdfast.dev/actor": "true"}}})
}
