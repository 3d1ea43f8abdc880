//! A Kubernetes API server in a library: browse a snapshot, rehearse a restore, test without a cluster.
//!
//! It speaks as much of the Kubernetes API as unmodified `kubectl` and client libraries need: built-in
//! kinds and custom resource definitions, lists with selectors and pages, watches, the four kinds of
//! patch, dry runs, finalizers, owner references, namespace termination, tables, discovery, OpenAPI.
//!
//! Objects are JSON in memory, under one lock; those of a snapshot stay text. What a cluster's controllers do eventually (garbage
//! collection, namespace termination, serving a new custom kind) is done here before the request that
//! caused it returns, so that a test needs no patience. A client that is correct against a real
//! cluster is correct here; the reverse is what the behavioural suite is for.
//!
//! Left out on purpose: authentication, persistence, running containers.
//! Time and chance are handed in; nothing here reads the clock or the dice.
//!
//! ```
//! let server = apiserver::ApiServer::new(apiserver::Options::deterministic(1));
//! let router: axum::Router = server.router(); // give it to `kube::Client::new(router, "default")`
//! # drop(router);
//! ```

mod admit;
mod allocate;
mod apply;
pub mod autoscaler;
mod cel;
mod columns;
mod convert;
mod defaults;
mod definition;
mod discovery;
mod fields;
mod finalize;
mod http;
mod kinds;
mod limits;
mod openapi;
mod patch;
mod policy;
mod protobuf;
mod quota;
mod request;
mod rest;
mod review;
mod rules;
mod schema;
mod security;
mod select;
mod serve;
mod served;
mod simulate;
mod status;
mod storage;
mod table;
mod types;
mod validate;
mod watch;
mod webhook;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

pub use definition::Definition;
pub use patch::strategic_merge;
pub use serve::{Serving, kubeconfig};
pub use served::{Printed, Resource, Served, prints};
pub use simulate::{SIMULATED_CLASS, Simulate};
pub use status::{Cause, Fault};
pub use webhook::{Ask, Question};

use kinds::Kinds;
use storage::{Key, Store};

/// Nanoseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Random 64-bit numbers: uids and generated names come from it.
pub type Entropy = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Says whether a request is denied.
pub type Deny = Arc<dyn Fn(&Access<'_>) -> bool + Send + Sync>;

/// A request, as authorization sees it.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: &'a str,
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural name, with the subresource if there is one: `pods`, `pods/exec`.
    pub resource: &'a str,
    /// Namespace; empty for cluster-scoped objects and for all namespaces.
    pub namespace: &'a str,
    /// Object name; empty for collections.
    pub name: &'a str,
}

/// How a server behaves.
#[derive(Clone)]
pub struct Options {
    /// The clock.
    pub clock: Clock,
    /// The dice.
    pub entropy: Entropy,
    /// Refuse every change over HTTP; [`ApiServer::load`] still works.
    pub read_only: bool,
    /// What `/version` says, such as `v1.33.1`.
    pub version: String,
    /// Which requests get a 403; none if absent.
    pub deny: Option<Deny>,
    /// How many changes watches and paged lists can go back.
    pub history: usize,
    /// Pretend that there are controllers and a node.
    pub simulate: Option<Simulate>,
    /// Who asks admission webhooks; without it, nobody is asked.
    pub webhooks: Option<Ask>,
}

impl Options {
    /// A server that can be written to, with this clock and these dice.
    pub fn new(clock: Clock, entropy: Entropy) -> Options {
        Options {
            clock,
            entropy,
            read_only: false,
            version: "v1.33.1".into(),
            deny: None,
            history: 10_000,
            simulate: None,
            webhooks: None,
        }
    }

    /// For tests: starts on 1 January 2026, each look at the clock is a millisecond later, and the
    /// dice fall the same way for the same seed.
    pub fn deterministic(seed: u64) -> Options {
        let now = AtomicI64::new(1_767_225_600_000_000_000);
        let dice = AtomicU64::new(seed);
        Options::new(
            Arc::new(move || now.fetch_add(1_000_000, Ordering::Relaxed)),
            Arc::new(move || mix(dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))),
        )
    }

    /// The same server, refusing every change.
    pub fn read_only(self) -> Options {
        Options { read_only: true, ..self }
    }

    /// The same server with controllers and a node that look alive, and volumes that are directories.
    pub fn simulate(self, volumes: impl Into<std::path::PathBuf>) -> Options {
        Options { simulate: Some(Simulate { volumes: volumes.into() }), ..self }
    }

    /// The same server, asking admission webhooks.
    pub fn webhooks(self, ask: Ask) -> Options {
        Options { webhooks: Some(ask), ..self }
    }

    /// The same server, denying some requests.
    pub fn deny(self, deny: impl Fn(&Access<'_>) -> bool + Send + Sync + 'static) -> Options {
        Options { deny: Some(Arc::new(deny)), ..self }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("read_only", &self.read_only)
            .field("version", &self.version)
            .field("history", &self.history)
            .finish_non_exhaustive()
    }
}

/// Spreads a counter over all 64 bits (the SplitMix64 finalizer).
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A handle on a server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
}

/// Reads YAML as Kubernetes does: numbers and booleans of YAML 1.1.
///
/// # Errors
/// In words, if the text is none.
pub fn read_yaml(text: &str) -> Result<Value, String> {
    request::yaml(text.as_bytes()).map_err(|fault| fault.message.into())
}

/// Do two texts state the same amount, as `1000m` and `1` do?
pub fn same_quantity(a: &str, b: &str) -> bool {
    match (cel::quantity(a), cel::quantity(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

pub(crate) struct Shared {
    pub options: Options,
    state: Mutex<State>,
    /// Tells watches that the store has a new revision.
    pub changed: tokio::sync::watch::Sender<u64>,
}

/// What the server knows. Everything that changes it is a method here, in the file named for it.
pub(crate) struct State {
    pub store: Store,
    pub kinds: Kinds,
    pub clock: Clock,
    pub entropy: Entropy,
    /// OpenAPI documents of the server this one stands for, by path.
    pub documents: std::collections::BTreeMap<String, bytes::Bytes>,
    /// What the write at hand knows of webhooks.
    pub(crate) hooks: Option<webhook::Hooks>,
    /// Namespaces whose contents are being deleted right now.
    pub emptying: Vec<String>,
}

impl ApiServer {
    /// A server. If it can be written to, it has what every cluster has: the four initial
    /// namespaces with their service accounts, and the built-in cluster roles.
    pub fn new(options: Options) -> ApiServer {
        let mut state = State {
            store: Store::new(options.history, options.simulate.is_none()),
            kinds: Kinds::default(),
            clock: options.clock.clone(),
            entropy: options.entropy.clone(),
            documents: Default::default(),
            hooks: None,
            emptying: Vec::new(),
        };
        if !options.read_only {
            state.furnish();
            if options.simulate.is_some() {
                simulate::furnish(&mut state);
            }
        }
        let (changed, _) = tokio::sync::watch::channel(state.store.revision());
        ApiServer { shared: Arc::new(Shared { options, state: Mutex::new(state), changed }) }
    }

    /// The server as a tower service: serve it, or give it to a client library directly.
    pub fn router(&self) -> axum::Router {
        http::router(self.clone())
    }

    /// Places objects as they are, with their uid, resourceVersion, status and timestamps: how a
    /// snapshot gets in. Custom resource definitions are served at once; an object of a kind that is
    /// defined nowhere is served under a guessed plural name.
    ///
    /// Returns one sentence for each object that could not be placed.
    pub fn load(&self, objects: impl IntoIterator<Item = Value>) -> Vec<String> {
        let mut refused = Vec::new();
        self.change(|state| {
            // Definitions first: they say which of the others are namespaced. These wait as text, since as trees of
            // values they take more memory than all else that is done with them.
            let mut waiting: Vec<Box<str>> = Vec::new();
            for object in objects {
                if object["kind"] != json!("CustomResourceDefinition") {
                    waiting.push(object.to_string().into());
                } else if let Err(why) = state.place(object) {
                    refused.push(why);
                }
            }
            for text in waiting {
                // It was written from a tree of values, so it is one.
                if let Err(why) = state.place(serde_json::from_str(&text).unwrap_or_default()) {
                    refused.push(why);
                }
            }
        });
        refused
    }

    /// Serves on a listener, plain HTTP, until the returned handle is stopped or dropped.
    pub fn serve(&self, listener: tokio::net::TcpListener) -> std::io::Result<Serving> {
        serve::serve(self.router(), listener)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.lock().store.len()
    }

    /// Are there no objects?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every object as stored, for assertions and for saving.
    pub fn dump(&self) -> Vec<Value> {
        self.shared.lock().store.all().map(|(_, held)| Arc::unwrap_or_clone(held.open())).collect()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.shared.change(change)
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Shared {
    /// The state. A panic while it was held cannot leave it half changed in a way that matters more
    /// than the panic itself, so a poisoned lock is used as it is.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the watches.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (out, revision) = {
            let mut state = self.lock();
            let before = state.store.revision();
            let out = change(&mut state);
            if let Some(simulate) = &self.options.simulate
                && state.store.revision() != before
            {
                simulate::settle(&mut state, simulate);
            }
            (out, state.store.revision())
        };
        self.changed.send_if_modified(|seen| {
            let new = *seen != revision;
            *seen = revision;
            new
        });
        out
    }
}

impl State {
    /// Nanoseconds since the epoch.
    pub fn now(&self) -> i64 {
        match &self.hooks {
            Some(hooks) => hooks.now(&*self.clock),
            None => (self.clock)(),
        }
    }

    /// The time as objects carry it.
    pub fn timestamp(&self) -> String {
        timestamp(self.now())
    }

    fn draw(&self) -> u64 {
        match &self.hooks {
            Some(hooks) => hooks.draw(&*self.entropy),
            None => (self.entropy)(),
        }
    }

    /// A fresh uid, in the form of a version 4 UUID.
    pub fn uid(&self) -> String {
        let (a, b) = (self.draw(), self.draw());
        let (a, b) = ((a & !0xf000) | 0x4000, (b >> 2) | (1 << 63));
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
    }

    /// Five characters for generated names; no vowels, so that no words appear.
    pub fn suffix(&self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut dice = self.draw();
        let mut out = String::new();
        for _ in 0..5 {
            let at = (dice % LETTERS.len() as u64) as usize;
            out.push(char::from(LETTERS.get(at).copied().unwrap_or(b'x')));
            dice /= LETTERS.len() as u64;
        }
        out
    }

    fn place(&mut self, mut object: Value) -> Result<(), String> {
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (name, namespace) = (text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]));
        if api_version.is_empty() || kind.is_empty() || name.is_empty() {
            let seen = format!("apiVersion {api_version:?}, kind {kind:?}, name {name:?}");
            return Err(format!("an object cannot be placed without all of these: {seen}"));
        }
        let (group, version) = kinds::split_api_version(&api_version);
        let known = self.kinds.of(&api_version, &kind).or_else(|| self.kinds.of_group(group, &kind));
        let found = match known.cloned() {
            Some(found) => found,
            None => {
                self.kinds.insert(kinds::guessed(&api_version, &kind, !namespace.is_empty()));
                match self.kinds.of(&api_version, &kind) {
                    Some(found) => found.clone(),
                    None => return Err(format!("{kind} {name:?} of {api_version} cannot be served")),
                }
            }
        };
        if found.namespaced == namespace.is_empty() {
            let expect = if found.namespaced { "must" } else { "must not" };
            return Err(format!("{kind} {name:?} {expect} have a namespace"));
        }
        convert::to_stored(&found, version, &mut object);
        if object["metadata"]["uid"].as_str().is_none_or(str::is_empty) {
            object["metadata"]["uid"] = json!(self.uid());
        }
        self.learn(&found, &object);
        self.store.place(Key::new(&convert::stored_resource(&found), &namespace, &name), object);
        Ok(())
    }
}

/// RFC 3339 in whole seconds, as objects carry it.
pub(crate) fn timestamp(nanos: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_names() {
        let make = |seed| {
            let server = ApiServer::new(Options::deterministic(seed));
            let state = server.shared.lock();
            (state.uid(), state.suffix(), state.timestamp())
        };
        assert_eq!(make(7), make(7));
        assert_ne!(make(7).0, make(8).0);
        let (uid, suffix, time) = make(7);
        assert_eq!((uid.len(), uid.as_bytes()[14], suffix.len()), (36, b'4', 5));
        assert_eq!(time, "2026-01-01T00:00:00Z");
    }

    #[test]
    fn a_snapshot_keeps_what_its_objects_said() {
        let server = ApiServer::new(Options::deterministic(1).read_only());
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": "a", "namespace": "x", "uid": "u", "resourceVersion": "42",
            "creationTimestamp": "2020-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
        let alien = json!({"apiVersion": "acme.io/v1", "kind": "Policy", "metadata": {"name": "p"}});
        let refused = server.load([pod.clone(), alien, json!({"kind": "Pod"})]);
        assert_eq!(refused.len(), 1);
        assert!(server.dump().contains(&pod));
        assert!(
            server.shared.lock().kinds.get("acme.io", "policies").is_some(),
            "served under a guessed name"
        );
    }
}
