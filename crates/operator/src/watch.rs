//! What is in the cluster, as far as controllers have to know it: lists that watches keep up to date.
//!
//! A list in pages, then a watch from its version on; bookmarks keep that version young, so that a connection that ends is taken up
//! where it was. A server that has forgotten the version (410) is listed anew, and so it is every few hours in any case ([`RESYNC`]):
//! what a watch may ever have swallowed comes out there. A list is compared with what was known, so what went while nobody watched is
//! told, too. Objects are kept as JSON: one that no type of ours can read is told by its controller and spoils nothing for others.
//!
//! Of what is not ours only metadata are asked for: memory grows with names, not with objects. Not kube's `runtime`: it reads into
//! types, an object that cannot be read ends its list, and these three hundred lines would stay but for a hundred.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use app::api::{ApiError, ApiResources, Cluster, segment};
use futures::TryStreamExt;
use http::{Method, Request};
use kube::core::WatchEvent;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;

/// Everything is listed anew after so long.
pub const RESYNC: Duration = Duration::from_secs(6 * 3600);
/// A watch is asked to end after so long, so that a line that went dead unnoticed is not listened to for ever.
const WATCH_SECONDS: u64 = 280;
/// And if it does not, it is ended.
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS + 30);
/// Objects a page.
const PAGE: usize = 500;
/// The pause after a failure, doubled up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Which object: its namespace (empty for what is in none) and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// Of an object.
    pub fn of(object: &Value) -> Key {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        Key::new(text("namespace"), text("name"))
    }

    /// By its parts.
    pub fn new(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// Its name: `Policy`.
    pub kind: &'static str,
    /// `holdfast.dev/v1alpha1`.
    pub version: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    /// Only metadata are asked for.
    pub metadata_only: bool,
    /// Only those with these labels.
    pub labels: Option<&'static str>,
}

impl Kind {
    /// The path of all of them.
    pub fn path(&self) -> String {
        let root = if self.version.contains('/') { "/apis" } else { "/api" };
        format!("{root}/{}/{}", self.version, self.plural)
    }

    /// The path of one.
    pub fn object_path(&self, key: &Key) -> String {
        format!("{}/{}", self.collection_path(&key.namespace), segment(&key.name))
    }

    /// The path of those in a namespace.
    pub fn collection_path(&self, namespace: &str) -> String {
        let root = if self.version.contains('/') { "/apis" } else { "/api" };
        match namespace {
            "" => self.path(),
            namespace => format!("{root}/{}/namespaces/{}/{}", self.version, segment(namespace), self.plural),
        }
    }
}

/// An object came, changed or went.
#[derive(Debug, Clone)]
pub struct Change {
    /// Of which kind: [`Kind::kind`].
    pub kind: &'static str,
    /// Which.
    pub key: Key,
    /// As it was.
    pub old: Option<Arc<Value>>,
    /// As it is.
    pub new: Option<Arc<Value>>,
}

/// The objects of a kind, as the watch has it.
#[derive(Clone)]
pub struct Known {
    kind: &'static str,
    objects: Arc<RwLock<BTreeMap<Key, Arc<Value>>>>,
}

impl Known {
    fn new(kind: &'static str) -> Known {
        Known { kind, objects: Arc::default() }
    }

    /// One.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All in a namespace.
    pub fn within(&self, namespace: &str) -> Vec<Arc<Value>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let from = Key::new(namespace, "");
        objects
            .range(from..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, o)| o.clone())
            .collect()
    }

    /// All.
    pub fn all(&self) -> Vec<Arc<Value>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// All keys.
    pub fn keys(&self) -> Vec<Key> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// One is so now, or is gone. None if nothing changed.
    fn put(&self, key: Key, new: Option<Value>) -> Option<Change> {
        let new = new.map(Arc::new);
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let old = match &new {
            Some(new) => objects.insert(key.clone(), new.clone()),
            None => objects.remove(&key),
        };
        let version =
            |object: &Option<Arc<Value>>| object.as_ref().map(|o| o["metadata"]["resourceVersion"].clone());
        let same = version(&old) == version(&new);
        (!same).then_some(Change { kind: self.kind, key, old, new })
    }

    /// These are all there are.
    fn replace(&self, all: BTreeMap<Key, Value>) -> Vec<Change> {
        let gone: Vec<Key> = self.keys().into_iter().filter(|key| !all.contains_key(key)).collect();
        let gone = gone.into_iter().map(|key| (key, None));
        let all = all.into_iter().map(|(key, object)| (key, Some(object)));
        gone.chain(all).filter_map(|(key, object)| self.put(key, object)).collect()
    }
}

/// Keeps the objects of a kind known.
pub struct Watch {
    /// What is watched.
    pub kind: Kind,
    /// What is known of it.
    pub known: Known,
    /// Whether all of it was listed once.
    pub listed: watch::Sender<bool>,
}

/// Why a watch ended.
enum Over {
    /// In good order, or the line broke: it goes on from where it was.
    Line,
    /// The server has forgotten that version.
    Forgotten,
    /// It is time to list anew.
    Resync,
    /// The server refuses.
    Refused(String),
}

impl Watch {
    /// Of a kind.
    pub fn new(kind: Kind) -> Watch {
        let known = Known::new(kind.kind);
        Watch { kind, known, listed: watch::Sender::new(false) }
    }

    /// Watches until it is dropped. Changes go to `changes`.
    pub async fn run(&self, client: kube::Client, clock: Clock, changes: mpsc::UnboundedSender<Change>) {
        let cluster = Cluster { client, resources: ApiResources::default() };
        let mut pause = PAUSE.0;
        let mut told = String::new();
        loop {
            let failed = match self.list(&cluster, &changes).await {
                Err(error) => error.to_string(),
                Ok(mut version) => {
                    pause = PAUSE.0;
                    told.clear();
                    let listed_at = clock.read().steady;
                    loop {
                        let until = (listed_at + RESYNC).saturating_sub(clock.read().steady);
                        match self.watch(&cluster, &mut version, until, &clock, &changes).await {
                            Over::Line => clock.sleep(PAUSE.0).await,
                            Over::Forgotten | Over::Resync => break String::new(),
                            Over::Refused(why) => break why,
                        }
                    }
                }
            };
            if failed.is_empty() {
                continue;
            }
            if failed != told {
                tracing::warn!("{} cannot be watched: {failed}", self.kind.plural);
                told = failed;
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn accept(&self, list: bool) -> String {
        match self.kind.metadata_only {
            false => "application/json".into(),
            true => {
                let list = if list { "List" } else { "" };
                format!("application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1")
            }
        }
    }

    fn query(&self) -> String {
        self.kind.labels.map(|labels| format!("&labelSelector={}", segment(labels))).unwrap_or_default()
    }

    /// Lists all, tells what is new, and gives the version from which on to watch.
    async fn list(
        &self,
        cluster: &Cluster,
        changes: &mpsc::UnboundedSender<Change>,
    ) -> Result<String, ApiError> {
        let mut all = BTreeMap::new();
        let mut next = String::new();
        loop {
            let path = format!("{}?limit={PAGE}{}{next}", self.kind.path(), self.query());
            let accept = self.accept(true);
            let answer = cluster.send(Method::GET, &path, &[("accept", &accept)], Vec::new()).await?;
            if !answer.status.is_success() {
                let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let message = status["message"].as_str().unwrap_or_default().to_owned();
                return Err(ApiError::Other {
                    what: format!("GET {path}"),
                    status: answer.status.as_u16(),
                    message,
                });
            }
            let mut page: serde_json::Map<String, Value> =
                serde_json::from_slice(&answer.body).map_err(|e| ApiError::Other {
                    what: format!("GET {path}"),
                    status: answer.status.as_u16(),
                    message: format!("the answer is no list: {e}"),
                })?;
            if let Some(Value::Array(items)) = page.remove("items") {
                all.extend(items.into_iter().map(|item| (Key::of(&item), item)));
            }
            let metadata = page.remove("metadata").unwrap_or_default();
            match metadata["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => next = format!("&continue={}", segment(token)),
                None => {
                    for change in self.known.replace(all) {
                        tell(changes, change);
                    }
                    self.listed.send_replace(true);
                    return Ok(metadata["resourceVersion"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
    }

    async fn watch(
        &self,
        cluster: &Cluster,
        version: &mut String,
        until: Duration,
        clock: &Clock,
        changes: &mpsc::UnboundedSender<Change>,
    ) -> Over {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}{}",
            self.kind.path(),
            segment(version),
            self.query()
        );
        let request = match Request::get(&path).header("accept", self.accept(false)).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => return Over::Refused(error.to_string()),
        };
        let events = match cluster.client.request_events::<Value>(request).await {
            Ok(events) => events,
            Err(kube::Error::Api(status)) if status.code == 410 => return Over::Forgotten,
            Err(error) => return Over::Refused(error.to_string()),
        };
        let mut events = std::pin::pin!(events);
        let resync = clock.sleep(until);
        let mut resync = std::pin::pin!(resync);
        loop {
            let event = tokio::select! {
                event = tokio::time::timeout(SILENCE_MAX, events.try_next()) => event,
                () = &mut resync => return Over::Resync,
            };
            let (object, gone) = match event {
                Ok(Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => (object, false),
                Ok(Ok(Some(WatchEvent::Deleted(object)))) => (object, true),
                Ok(Ok(Some(WatchEvent::Bookmark(mark)))) => {
                    *version = mark.metadata.resource_version;
                    continue;
                }
                Ok(Ok(Some(WatchEvent::Error(status)))) if status.code == 410 => return Over::Forgotten,
                Ok(Ok(Some(WatchEvent::Error(status)))) => return Over::Refused(status.message),
                Ok(Ok(None) | Err(_)) | Err(_) => return Over::Line,
            };
            if let Some(newer) = object["metadata"]["resourceVersion"].as_str() {
                *version = newer.to_owned();
            }
            let change = self.known.put(Key::of(&object), (!gone).then_some(object));
            if let Some(change) = change {
                tell(changes, change);
            }
        }
    }
}

/// Whoever listened has ended, and with it soon the watch: nobody misses this.
fn tell(changes: &mpsc::UnboundedSender<Change>, change: Change) {
    let _ = changes.send(change);
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiserver::{ApiServer, Options};
    use jiff::Timestamp;
    use serde_json::json;

    const MAPS: Kind =
        Kind { kind: "ConfigMap", version: "v1", plural: "configmaps", metadata_only: false, labels: None };

    fn object(name: &str, version: &str) -> (Key, Value) {
        let object = json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": version}});
        (Key::of(&object), object)
    }

    #[test]
    fn a_list_tells_what_came_changed_and_went_meanwhile() {
        let known = Known::new("ConfigMap");
        let told = |changes: Vec<Change>| -> Vec<String> {
            let word = |c: &Change| match (&c.old, &c.new) {
                (None, Some(_)) => format!("+{}", c.key.name),
                (Some(_), Some(_)) => format!("~{}", c.key.name),
                _ => format!("-{}", c.key.name),
            };
            changes.iter().map(word).collect()
        };
        let all =
            |objects: &[(&str, &str)]| objects.iter().map(|(n, v)| object(n, v)).collect::<BTreeMap<_, _>>();
        assert_eq!(told(known.replace(all(&[("a", "1"), ("b", "2")]))), ["+a", "+b"]);
        assert_eq!(told(known.replace(all(&[("a", "1"), ("b", "3"), ("c", "4")]))), ["~b", "+c"]);
        assert_eq!(told(known.replace(all(&[("b", "3")]))), ["-a", "-c"]);
        let (key, again) = object("b", "3");
        assert!(known.put(key, Some(again)).is_none(), "the same again is no change");
        assert_eq!(known.within("shop").len(), 1);
        assert!(known.within("sho").is_empty() && known.within("shop2").is_empty());
    }

    struct Watched {
        server: ApiServer,
        cluster: Cluster,
        clock: Clock,
        known: Known,
        changes: mpsc::UnboundedReceiver<Change>,
        task: tokio::task::JoinHandle<()>,
    }

    async fn watched(kind: Kind, options: Options) -> Watched {
        let server = ApiServer::new(options);
        let client = kube::Client::new(server.router(), "default");
        let cluster = Cluster { client: client.clone(), resources: ApiResources::default() };
        let clock = Clock::ours(Timestamp::UNIX_EPOCH);
        let watch = Watch::new(kind);
        let (known, mut listed) = (watch.known.clone(), watch.listed.subscribe());
        let (tell, changes) = mpsc::unbounded_channel();
        let on = clock.clone();
        let task = tokio::spawn(async move { watch.run(client, on, tell).await });
        listed.wait_for(|listed| *listed).await.unwrap();
        Watched { server, cluster, clock, known, changes, task }
    }

    impl Watched {
        async fn make(&self, name: &str, labels: Value) {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "labels": labels}, "data": {"a": "b"}});
            let path = "/api/v1/namespaces/default/configmaps";
            self.cluster.json(Method::POST, path, "application/json", Some(&map)).await.unwrap();
        }

        async fn next(&mut self) -> Change {
            tokio::time::timeout(Duration::from_secs(20), self.changes.recv()).await.unwrap().unwrap()
        }
    }

    #[tokio::test]
    async fn what_comes_changes_and_goes_is_told() {
        let mut watched = watched(MAPS, Options::deterministic(1)).await;
        let before = watched.known.all().len();
        for _ in 0..before {
            watched.next().await;
        }
        watched.make("one", json!({})).await;
        let came = watched.next().await;
        assert!(came.key.name == "one" && came.old.is_none());
        let path = "/api/v1/namespaces/default/configmaps/one";
        let patch = json!({"data": {"a": "c"}});
        watched
            .cluster
            .json(Method::PATCH, path, "application/merge-patch+json", Some(&patch))
            .await
            .unwrap();
        let changed = watched.next().await;
        assert_eq!(
            (changed.old.unwrap()["data"]["a"].clone(), changed.new.unwrap()["data"]["a"].clone()),
            (json!("b"), json!("c"))
        );
        watched.cluster.json(Method::DELETE, path, "application/json", Some(&json!({}))).await.unwrap();
        assert!(watched.next().await.new.is_none());
        assert_eq!(watched.known.all().len(), before);
        watched.task.abort();
    }

    #[tokio::test]
    async fn only_metadata_and_only_those_with_the_labels() {
        let kind = Kind { metadata_only: true, labels: Some("policy"), ..MAPS };
        let mut watched = watched(kind, Options::deterministic(1)).await;
        watched.make("without", json!({})).await;
        watched.make("with", json!({"policy": "gold"})).await;
        let came = watched.next().await;
        assert_eq!(came.key.name, "with");
        assert!(came.new.unwrap()["data"].is_null(), "no content is kept");
        // Who loses the label goes.
        let path = "/api/v1/namespaces/default/configmaps/with";
        let patch = json!({"metadata": {"labels": {"policy": null}}});
        watched
            .cluster
            .json(Method::PATCH, path, "application/merge-patch+json", Some(&patch))
            .await
            .unwrap();
        assert!(watched.next().await.new.is_none());
        watched.task.abort();
    }

    /// The server keeps ten changes; while nobody watches a hundred are made.
    #[tokio::test]
    async fn what_a_server_has_forgotten_is_listed_anew() {
        let mut watched = watched(MAPS, Options { history: 10, ..Options::deterministic(1) }).await;
        while watched.changes.try_recv().is_ok() {}
        let kind = Watch::new(MAPS);
        let (tell, mut changes) = mpsc::unbounded_channel();
        let version = kind.list(&watched.cluster, &tell).await.unwrap();
        while changes.try_recv().is_ok() {}
        for n in 0..100 {
            watched.make(&format!("map-{n}"), json!({})).await;
        }
        let mut old = version.clone();
        let over = kind.watch(&watched.cluster, &mut old, RESYNC, &watched.clock, &tell).await;
        assert!(matches!(over, Over::Forgotten));
        // The one that ran all the time saw them all; one that lists anew does, too.
        for _ in 0..100 {
            watched.next().await;
        }
        kind.list(&watched.cluster, &tell).await.unwrap();
        let mut seen = 0;
        while changes.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 100);
        watched.task.abort();
    }

    #[tokio::test]
    async fn everything_is_listed_anew_after_hours_and_a_lie_comes_out() {
        let mut watched = watched(MAPS, Options::deterministic(1)).await;
        while watched.changes.try_recv().is_ok() {}
        // As if an event had been swallowed.
        let (key, ghost) = object("ghost", "1");
        watched.known.put(key, Some(ghost));
        assert!(watched.known.all().iter().any(|o| o["metadata"]["name"] == "ghost"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        watched.clock.pass(RESYNC);
        let gone = watched.next().await;
        assert!(gone.key.name == "ghost" && gone.new.is_none());
        drop(watched.server);
        watched.task.abort();
    }
}
