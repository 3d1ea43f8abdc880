//! What all controllers have in common: observe, decide, act, report (docs/operator.md, One shape).
//!
//! `observe` reads, and its answer is all that `decide` knows: so that is pure and total, and has most of the tests. It says which steps
//! to take, what the status is when they are taken, what is told in events, and when to look again. `act` takes one step, which may be
//! repeated: whoever dies between a step and the report takes it again. The report is written on the version that was observed, so of
//! two leaders, or of a leader and a watch that is behind, one is told to look again.

pub mod application;
pub mod label;
pub mod policy;
pub mod repository;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use api::Kind as OwnKind;
use apiserver::{Cause, Definition};
use app::api::{ApiError, Cluster};
use async_trait::async_trait;
use futures::FutureExt;
use http::Method;
use jiff::Timestamp;
use repo::Env;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::check;
use crate::clock::{Clock, LOOK_AGAIN};
use crate::events::{self, Told};
use crate::queue::{Ended, Queue};
use crate::status;
use crate::watch::{Change, Key, Kind, Known};

/// Objects that are looked at at once, of all kinds.
pub const AT_ONCE: usize = 32;

/// Our kinds, Namespaces, and what a label can be on.
pub const REPOSITORIES: Kind = ours("Repository", "repositories");
/// See [`REPOSITORIES`].
pub const POLICIES: Kind = ours("Policy", "policies");
/// See [`REPOSITORIES`].
pub const APPLICATIONS: Kind = ours("Application", "applications");
/// See [`REPOSITORIES`].
pub const POINTS: Kind = ours("RecoveryPoint", "recoverypoints");
/// Their labels say what they may use.
pub const NAMESPACES: Kind =
    Kind { kind: "Namespace", version: "v1", plural: "namespaces", metadata_only: true, labels: None };

const fn ours(kind: &'static str, plural: &'static str) -> Kind {
    Kind { kind, version: "holdfast.dev/v1alpha1", plural, metadata_only: false, labels: None }
}

/// What every controller works with.
pub struct World {
    /// The API, behind the fence.
    pub cluster: Cluster,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub env: Env,
    /// The operator's own namespace.
    pub namespace: String,
    /// This process, in events.
    pub instance: String,
    /// The definitions of our kinds.
    pub definitions: BTreeMap<String, Definition>,
    /// What is in the cluster.
    pub repositories: Known,
    /// What is in the cluster.
    pub policies: Known,
    /// What is in the cluster.
    pub applications: Known,
    /// What is in the cluster.
    pub points: Known,
    /// What is in the cluster.
    pub namespaces: Known,
    /// Workloads with our label.
    pub workloads: Vec<(Kind, Known)>,
    /// What was said of objects that many others name, by kind and key: of which version, and the spec with all defaults.
    pub checked: Mutex<BTreeMap<(&'static str, Key), Checked>>,
}

/// What was said of an object, and of which version.
pub type Checked = (Value, Result<Value, String>);

impl World {
    /// The labels of a namespace.
    pub fn labels(&self, namespace: &str) -> BTreeMap<String, String> {
        self.namespaces.get(&Key::new("", namespace)).map(|object| labels(&object)).unwrap_or_default()
    }

    /// Reads an object of ours: whether it is as it has to be, and what it says then.
    pub fn read<K>(&self, object: Arc<Value>) -> Result<Own<K::Spec, K::Status>, Failure>
    where
        K: OwnKind,
        K::Spec: DeserializeOwned,
        K::Status: DeserializeOwned,
    {
        let unreadable = |what: &str| Failure::Other(format!("this release has no {what} of {}", K::KIND));
        let definition = self.definitions.get(K::KIND).ok_or_else(|| unreadable("definition"))?;
        let version = &object["metadata"]["resourceVersion"];
        let at = (K::KIND, Key::of(&object));
        // A policy is looked at for each of its applications, and to check it takes much longer than all else.
        let is_named = matches!(K::KIND, "Policy" | "Repository") && version.is_string();
        let known = || {
            let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            checked.get(&at).filter(|(of, _)| of == version).map(|(_, said)| said.clone())
        };
        let said = match known().filter(|_| is_named) {
            Some(said) => said,
            None => {
                let said = checked(definition, &object);
                if is_named {
                    let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
                    checked.insert(at, (version.clone(), said.clone()));
                }
                said
            }
        };
        let spec = said.and_then(|spec| serde_json::from_value(spec).map_err(|e| format!("spec: {e}")));
        let read = serde_json::from_value(object["status"].clone()).ok();
        let status = match read {
            Some(status) => status,
            // Nothing yet, or nothing that we wrote.
            None => serde_json::from_value(json!({})).map_err(|_| unreadable("empty status"))?,
        };
        let metadata = &object["metadata"];
        Ok(Own {
            key: Key::of(&object),
            uid: metadata["uid"].as_str().unwrap_or_default().into(),
            generation: metadata["generation"].as_u64().unwrap_or(0),
            spec,
            status,
            object,
        })
    }

    /// Changes the status of an object in the version that was read, if there is something to change.
    pub async fn write_status(&self, kind: &Kind, object: &Value, new: &Value) -> Result<(), ApiError> {
        let Some(body) = status::patch_of(object, new) else { return Ok(()) };
        let path = format!("{}/status", kind.object_path(&Key::of(object)));
        self.cluster.json(Method::PATCH, &path, "application/merge-patch+json", Some(&body)).await.map(drop)
    }
}

/// An object of ours, read.
#[derive(Debug, Clone)]
pub struct Own<S, T> {
    /// Which.
    pub key: Key,
    /// Its UID.
    pub uid: String,
    /// Which version of its spec.
    pub generation: u64,
    /// What it asks for, with all defaults; else what is wrong with it.
    pub spec: Result<S, String>,
    /// What was seen of it.
    pub status: T,
    /// As it lies in the cluster.
    pub object: Arc<Value>,
}

/// The spec of an object with all defaults, or what is wrong with it.
fn checked(definition: &Definition, object: &Value) -> Result<Value, String> {
    let mut complete = object.clone();
    definition.complete(&mut complete);
    // What may never change is compared with what was accepted: a controller has not seen what was before.
    let accepted = &object["status"]["accepted"];
    let old = accepted.is_object().then(|| {
        let mut old = json!({"spec": accepted, "metadata": object["metadata"]});
        definition.complete(&mut old);
        old
    });
    // What Holdfast wrote itself is not judged.
    if let Some(complete) = complete.as_object_mut() {
        complete.remove("status");
    }
    let causes = check::check(definition, old.as_ref(), &complete);
    if causes.is_empty() { Ok(complete["spec"].take()) } else { Err(told(&causes)) }
}

/// What is wrong, in one text.
pub fn told(causes: &[Cause]) -> String {
    causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>().join("; ")
}

/// The labels of an object.
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object();
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}

/// What an object asks for.
fn spec_of(object: &Option<Arc<Value>>) -> Option<&Value> {
    object.as_ref().map(|object| &object["spec"])
}

/// What people call something, as names of objects have it.
fn plain_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let plain: String = text.to_lowercase().chars().map(plain).collect();
    match plain.trim_matches('-') {
        "" => "point".into(),
        plain => plain.into(),
    }
}

/// A name that others are made of, with room for what comes after it.
fn short(name: &str) -> String {
    if name.len() <= 190 {
        return name.into();
    }
    // Names that differ only at their end stay two.
    let begin: String = name.chars().take(180).collect();
    format!("{}-{}", begin.trim_end_matches(['-', '.']), &blake3::hash(name.as_bytes()).to_hex()[..8])
}

/// Why an object could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cluster did not do what was asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// What is to be done with an object, and said of it then.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<S> {
    /// What to do, in this order.
    pub steps: Vec<S>,
    /// Its status, when that is done.
    pub status: Value,
    /// What is told.
    pub events: Vec<Told>,
    /// When to look again, if nothing changes before.
    pub again: Option<Timestamp>,
}

/// A controller of a kind.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// What is known of an object.
    type Seen: Send + Sync;
    /// Something to do.
    type Step: Send + Sync;

    /// What it looks after.
    const KIND: Kind;

    /// Whom of its objects a change concerns.
    fn wakes(world: &World, change: &Change) -> Vec<Key>;

    /// Reads all that matters for an object; none if it is gone.
    async fn observe(&self, world: &World, key: &Key) -> Result<Option<Self::Seen>, Failure>;

    /// The object, as it was read.
    fn object(seen: &Self::Seen) -> &Value;

    /// What to do and to say.
    fn decide(seen: &Self::Seen, now: Timestamp) -> Plan<Self::Step>;

    /// Does one thing, which may be done before.
    async fn act(&self, world: &World, seen: &Self::Seen, step: &Self::Step) -> Result<(), Failure>;

    /// What to say if a step failed; nothing, if it is only to be tried again.
    fn failed(_seen: &Self::Seen, _why: &str, _now: Timestamp) -> Option<Plan<Self::Step>> {
        None
    }
}

/// Looks at one object.
pub async fn look<C: Controller>(
    controller: &C,
    world: &World,
    key: &Key,
) -> Result<Option<Timestamp>, Failure> {
    let Some(seen) = controller.observe(world, key).await? else { return Ok(None) };
    let now = world.clock.read().wall;
    let mut plan = C::decide(&seen, now);
    let mut failure = None;
    for step in &plan.steps {
        if let Err(why) = controller.act(world, &seen, step).await {
            failure = Some(why);
            break;
        }
    }
    if let Some(why) = &failure {
        match C::failed(&seen, &why.to_string(), now) {
            Some(instead) => plan = instead,
            None => return failure.map_or(Ok(None), Err),
        }
    }
    let object = C::object(&seen);
    world.write_status(&C::KIND, object, &plan.status).await?;
    for told in &plan.events {
        events::tell(&world.cluster, &world.instance, object, told, now).await;
    }
    match failure {
        Some(why) => Err(why),
        None => Ok(plan.again),
    }
}

/// Looks after all objects of a kind whose keys come, until it is dropped or no more can come.
pub async fn run<C: Controller>(
    controller: Arc<C>,
    world: Arc<World>,
    mut keys: mpsc::UnboundedReceiver<Key>,
    at_once: Arc<Semaphore>,
) {
    let mut queue = Queue::default();
    let mut tasks: JoinSet<(Key, Ended)> = JoinSet::new();
    loop {
        let now = world.clock.read();
        while tasks.len() < AT_ONCE
            && let Some(key) = queue.take(now)
        {
            let (controller, world, at_once) = (controller.clone(), world.clone(), at_once.clone());
            tasks.spawn(async move {
                let _slot = at_once.acquire().await;
                let ended = guarded(&*controller, &world, &key).await;
                (key, ended)
            });
        }
        // The wall is looked at again even if no timer is due by what it says now: it may leap.
        let idle = queue.idle(now).map(|idle| idle.min(LOOK_AGAIN));
        tokio::select! {
            key = keys.recv() => match key {
                Some(key) => queue.add(key),
                None => return,
            },
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => if let Ok((key, ended)) = ended {
                let mut dice = [0; 2];
                if let Err(error) = world.env.random(&mut dice) {
                    tracing::warn!("{error}");
                }
                queue.ended(key, ended, world.clock.read(), u16::from_le_bytes(dice));
            },
            () = world.clock.sleep(idle.unwrap_or_default()), if idle.is_some() && tasks.len() < AT_ONCE => {}
        }
    }
}

/// A look whose panic is a failure: one object that we cannot cope with is not to stop all others.
async fn guarded<C: Controller>(controller: &C, world: &World, key: &Key) -> Ended {
    let kind = C::KIND.kind;
    match AssertUnwindSafe(look(controller, world, key)).catch_unwind().await {
        Ok(Ok(again)) => Ended::Well(again),
        Ok(Err(Failure::Api(error @ ApiError::Conflict { .. }))) => {
            // The watch is a moment behind, or somebody wrote at the same time: looked at again, and no matter.
            tracing::debug!("{kind} {key}: {error}");
            Ended::Failed
        }
        Ok(Err(why)) => {
            tracing::warn!("{kind} {key}: {why}");
            Ended::Failed
        }
        Err(_) => {
            tracing::error!("{kind} {key}: looking after it panicked; the others go on");
            Ended::Failed
        }
    }
}
