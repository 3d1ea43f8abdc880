//! Repositories: opened with what they name, told how they are, and their points given objects.
//!
//! Each `discovery.interval` the repository is opened anew, with the keys and accounts its Secrets hold then, and its points are
//! listed. Points of this cluster whose namespace is certainly the one they were taken of get their object there, all others beside the
//! Repository: two clusters' `shop` need not be one tenant, nor two namespaces of one name. An object whose commit is gone goes, and so
//! does that of an old point beyond `discovery.perApplication`; that of the newest whole point of a series never does. The data is not
//! touched by any of this. Collection and checks come with later steps (docs/cluster.md).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{
    Capability, Consistency, DiscoveryMode, Figures, Lock, PointPhase, RecoveryPointStatus, RepositorySpec,
    RepositoryStatus, Truth,
};
use app::api::ApiError;
use async_trait::async_trait;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use repo::retain::{is_whole, series_of};
use repo::{CommitInfo, LocalOptions, Summary};
use serde_json::{Value, json};

use super::{Controller, Failure, Own, POINTS, Plan, REPOSITORIES, World, plain_name, short, spec_of};
use crate::check::lends_our_standing;
use crate::events::Told;
use crate::open::{Closed, of_repository, open};
use crate::requester::acting;
use crate::status::{get, instant, read_instant, set};
use crate::tenancy::{allows, meant};
use crate::watch::{Change, Key, Kind};

/// On an object of a point: the cluster it was taken in.
pub const CLUSTER: &str = "holdfast.dev/cluster";
/// On a namespace: who may change it says that points of its name are its own.
pub const POINTS_ARE_OURS: &str = "holdfast.dev/points";
/// A namespace that was there so long before a point is the one the point was taken of, whatever the clocks of both differed by.
const CERTAINLY_BEFORE: SignedDuration = SignedDuration::from_hours(1);
/// So many objects are made, described or removed at one look; the rest at the next, a moment later.
const STEPS_MAX: usize = 200;
/// When a repository that is not open is tried again.
const TRIED_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// The controller of repositories.
pub struct Repositories {
    /// What this machine lends repositories.
    pub local: LocalOptions,
}

/// What was seen in a repository.
#[derive(Debug, Clone)]
pub struct Facts {
    id: String,
    can: Vec<Capability>,
    lock: Option<Lock>,
    /// All commits that can be read.
    commits: Vec<CommitInfo>,
    /// All commits there are, in hexadecimal.
    ids: BTreeSet<String>,
    /// What was wrong with others.
    damaged: Vec<String>,
    /// What the user should know of the key.
    note: Option<String>,
}

/// A namespace, as far as it matters for who owns points of its name.
#[derive(Debug, Clone)]
pub struct Place {
    made: Option<Timestamp>,
    adopts: bool,
    is_allowed: bool,
}

/// What is known of a repository.
pub struct Seen {
    own: Own<RepositorySpec, RepositoryStatus>,
    /// What would lend a tenant our standing.
    forbidden: Vec<String>,
    /// Why there is no requester.
    unknown: Option<String>,
    /// What was found when it was opened; none if it was not tried.
    found: Option<Result<Facts, Closed>>,
    /// The objects of its points.
    objects: Vec<Arc<Value>>,
    cluster: String,
    namespaces: BTreeMap<String, Place>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make the object of a point that is there.
    Make {
        /// The object.
        object: Value,
        /// What it says of the point.
        status: Value,
    },
    /// Say what the point is.
    Describe {
        /// The object, as it lies there.
        object: Arc<Value>,
        /// What it says of the point.
        status: Value,
    },
    /// Remove an object; the point, if it is there, stays.
    Remove {
        /// The object, as it lies there.
        object: Arc<Value>,
    },
}

#[async_trait]
impl Controller for Repositories {
    type Seen = Seen;
    type Step = Step;
    const KIND: Kind = REPOSITORIES;

    fn wakes(_world: &World, change: &Change) -> Vec<Key> {
        // Opening it costs something: what it says of itself is no reason.
        match change.kind == "Repository" && spec_of(&change.old) != spec_of(&change.new) {
            true => vec![change.key.clone()],
            false => Vec::new(),
        }
    }

    async fn observe(&self, world: &World, key: &Key) -> Result<Option<Seen>, Failure> {
        let Some(object) = world.repositories.get(key) else { return Ok(None) };
        let own = world.read::<api::Repository>(object)?;
        let ours = key.namespace == world.namespace;
        let forbidden = match ours {
            true => Vec::new(),
            false => lends_our_standing("Repository", &own.object)
                .into_iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect(),
        };
        let (mut unknown, mut found) = (None, None);
        if let Ok(spec) = &own.spec
            && forbidden.is_empty()
            && !spec.suspend
        {
            match acting(&world.cluster, &key.namespace, spec.service_account_name.as_deref()).await? {
                Err(why) => unknown = Some(why.0),
                Ok(acting) => found = Some(self.facts(world, &acting, &key.namespace, spec, ours).await),
            }
        }
        let is_ours = |object: &Arc<Value>| {
            let reference = serde_json::from_value(object["spec"]["repository"].clone()).ok();
            reference.is_some_and(|reference| meant(&reference, &Key::of(object).namespace) == *key)
        };
        let objects = world.points.all().into_iter().filter(is_ours).collect();
        let allowed = own.spec.as_ref().ok().map(|spec| &spec.allowed_namespaces);
        let place = |object: &Arc<Value>| {
            let (name, labels) = (Key::of(object).name, super::labels(object));
            let metadata = &object["metadata"];
            let place = Place {
                made: read_instant(metadata["creationTimestamp"].as_str()),
                adopts: metadata["annotations"][POINTS_ARE_OURS].as_str() == Some("adopt"),
                is_allowed: metadata["deletionTimestamp"].is_null()
                    && allowed.is_some_and(|allowed| allows(allowed, &key.namespace, &name, &labels)),
            };
            (name, place)
        };
        let namespaces = world.namespaces.all().iter().map(place).collect();
        let system = world.namespaces.get(&Key::new("", "kube-system"));
        let cluster = system
            .and_then(|object| object["metadata"]["uid"].as_str().map(str::to_owned))
            .unwrap_or_default();
        Ok(Some(Seen { own, forbidden, unknown, found, objects, cluster, namespaces }))
    }

    fn object(seen: &Seen) -> &Value {
        &seen.own.object
    }

    fn decide(seen: &Seen, now: Timestamp) -> Plan<Step> {
        plan(seen, now)
    }

    async fn act(&self, world: &World, _seen: &Seen, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Make { object, status } => {
                let key = Key::of(object);
                let collection = POINTS.collection_path(&key.namespace);
                let made = match world
                    .cluster
                    .json(Method::POST, &collection, "application/json", Some(object))
                    .await
                {
                    // It is there: made a moment ago, or it is somebody's. The next look, which sees it, tells which.
                    Err(ApiError::Conflict { .. }) => return Ok(()),
                    made => made?,
                };
                Ok(world.write_status(&POINTS, &made, status).await?)
            }
            Step::Describe { object, status } => Ok(world.write_status(&POINTS, object, status).await?),
            Step::Remove { object } => {
                let path = POINTS.object_path(&Key::of(object));
                // Another of the same name, made meanwhile, stays.
                let metadata = &object["metadata"];
                let body = json!({"apiVersion": "v1", "kind": "DeleteOptions",
                    "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}});
                match world.cluster.json(Method::DELETE, &path, "application/json", Some(&body)).await {
                    Ok(_) | Err(ApiError::NotFound { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

impl Repositories {
    async fn facts(
        &self,
        world: &World,
        acting: &app::api::Cluster,
        namespace: &str,
        spec: &RepositorySpec,
        ours: bool,
    ) -> Result<Facts, Closed> {
        let opened = open(acting, namespace, spec, ours, &self.local, &world.env).await?;
        let work = move || {
            let repository = opened.repository;
            let ids = repository.commit_ids().map_err(of_repository)?;
            let listed = repository.commits().map_err(of_repository)?;
            let word = |can: &repo::Capability| match can {
                repo::Capability::Put => Capability::Put,
                repo::Capability::List => Capability::List,
                repo::Capability::Read => Capability::Read,
            };
            Ok(Facts {
                id: repository.id().to_string(),
                can: opened.can.iter().map(word).collect(),
                lock: repository.lock().map(lock),
                ids: ids.iter().map(ToString::to_string).collect(),
                damaged: listed
                    .findings
                    .iter()
                    .map(|finding| format!("{}: {}", finding.what, finding.message))
                    .collect(),
                commits: listed.done,
                note: repository.key_note().map(str::to_owned),
            })
        };
        let panicked = |_| Closed {
            reason: "Unreachable",
            message: "listing its points panicked; the log says where".into(),
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(panicked(e)))
    }
}

fn lock(policy: &repo::LockPolicy) -> Lock {
    Lock {
        mode: policy.mode.to_string().to_lowercase(),
        seconds: Some(policy.seconds),
        slack_seconds: Some(policy.slack_seconds),
    }
}

fn plan(seen: &Seen, now: Timestamp) -> Plan<Step> {
    let own = &seen.own;
    let mut status = own.status.clone();
    let mut events = Vec::new();
    let was = get(&status.conditions, "Ready").map(|ready| ready.status);
    say(seen, &mut status, now);
    let ready = get(&status.conditions, "Ready").cloned();
    if let Some(ready) = &ready {
        match (was, ready.status) {
            (None | Some(Truth::False | Truth::Unknown), Truth::True) => {
                events.push(Told::normal("RepositoryReady", &ready.message))
            }
            (None | Some(Truth::True), Truth::False) if ready.reason != "Suspended" => {
                events.push(Told::warning(
                    "RepositoryUnreachable",
                    format!("{}: {}", ready.reason, ready.message),
                ));
            }
            _ => {}
        }
    }
    // Nothing tells when an account or a Secret that it needs is there: it is looked for.
    let mut again = seen.unknown.as_ref().and_then(|_| now.checked_add(TRIED_AGAIN).ok());
    let mut steps = Vec::new();
    if let (Ok(spec), Some(found)) = (&own.spec, &seen.found) {
        again = now.checked_add(TRIED_AGAIN).ok();
        if let Ok(facts) = found {
            let interval = spec.discovery.interval.parse::<SignedDuration>().unwrap_or(TRIED_AGAIN);
            again = now.checked_add(interval).ok();
            status.id = Some(facts.id.clone());
            status.capabilities = facts.can.clone();
            status.lock = facts.lock.clone();
            let applications = facts.commits.iter().filter(|commit| commit.summary.kind == "application");
            status.points = Some(applications.clone().count() as u64);
            let series: BTreeSet<String> = applications.map(|commit| series_of(&commit.summary)).collect();
            status.applications = Some(series.len() as u64);
            status.pieces =
                Some(facts.commits.iter().filter(|commit| commit.summary.kind == "piece").count() as u64);
            steps = discover(seen, spec, facts, now);
            let gone = steps
                .iter()
                .filter(
                    |step| matches!(step, Step::Remove { object } if !facts.ids.contains(commit_of(object))),
                )
                .count();
            if gone > 0 {
                events.push(Told::warning(
                    "PointGone",
                    format!("{gone} points are in the repository no more; their objects are removed"),
                ));
            }
            if steps.len() > STEPS_MAX {
                steps.truncate(STEPS_MAX);
                again = now.checked_add(SignedDuration::from_secs(5)).ok();
            }
            let made = steps.iter().filter(|step| matches!(step, Step::Make { .. })).count();
            if made > 0 {
                events.push(Told::normal(
                    "Discovered",
                    format!("{made} points were found, which had no object"),
                ));
            }
        }
    }
    let status = serde_json::to_value(status).unwrap_or_else(|_| json!({}));
    Plan { steps, status, events, again }
}

/// Its conditions.
fn say(seen: &Seen, status: &mut RepositoryStatus, now: Timestamp) {
    let own = &seen.own;
    let set = |status: &mut RepositoryStatus, kind: &str, truth: Truth, reason: &str, message: &str| {
        set(&mut status.conditions, kind, truth, reason, message, own.generation, now);
    };
    let (truth, reason, message) = match &own.spec {
        Err(why) => (Truth::False, "Invalid", why.clone()),
        Ok(_) if !seen.forbidden.is_empty() => (Truth::False, "NotAllowed", seen.forbidden.join("; ")),
        Ok(_) => (Truth::True, "Valid", "it can be worked with".into()),
    };
    set(status, "Accepted", truth, reason, &message);
    if truth == Truth::True {
        status.accepted = own.object.get("spec").cloned();
    }
    let closed = match &seen.found {
        Some(Err(closed)) => Some(closed),
        _ => None,
    };
    let is_rights = |closed: &&Closed| matches!(closed.reason, "Denied" | "CannotAsk");
    match (&seen.unknown, closed.filter(is_rights), &seen.found) {
        (Some(why), ..) => set(status, "Authorized", Truth::False, "RequesterUnknown", why),
        (None, Some(closed), _) => set(status, "Authorized", Truth::False, closed.reason, &closed.message),
        (None, None, Some(_)) => {
            set(status, "Authorized", Truth::True, "Allowed", "its requester may read its Secrets")
        }
        (None, None, None) => {}
    }
    let suspended = own.spec.as_ref().is_ok_and(|spec| spec.suspend);
    let (truth, reason, message) = match &seen.found {
        _ if truth == Truth::False => {
            (Truth::False, "NotAccepted", "Accepted is false; its message says what to do".to_owned())
        }
        _ if suspended => (Truth::False, "Suspended", "spec.suspend is true: set it to false".into()),
        None => (Truth::False, "NotAuthorized", "Authorized is false; its message says what to do".into()),
        Some(Err(closed)) if is_rights(&closed) => {
            (Truth::False, "NotAuthorized", "Authorized is false; its message says what to do".into())
        }
        Some(Err(closed)) if closed.reason == "NotAllowed" => {
            (Truth::False, closed.reason, closed.message.clone())
        }
        Some(Err(closed)) => (Truth::False, closed.reason, closed.message.clone()),
        Some(Ok(facts)) => (
            Truth::True,
            "Open",
            facts.note.clone().unwrap_or_else(|| "it was opened, and its points listed".into()),
        ),
    };
    set(status, "Ready", truth, reason, &message);
    let (truth, reason, message) = match &seen.found {
        Some(Ok(facts)) if !facts.damaged.is_empty() => (
            Truth::False,
            "Damaged",
            format!(
                "{} of its commits cannot be read: {}; run `holdfast repo check`",
                facts.damaged.len(),
                facts.damaged.iter().take(3).cloned().collect::<Vec<_>>().join("; ")
            ),
        ),
        Some(Err(closed)) if closed.reason == "Damaged" => (Truth::False, "Damaged", closed.message.clone()),
        _ => (Truth::Unknown, "NotChecked", "`holdfast repo check` checks it".into()),
    };
    set(status, "Healthy", truth, reason, &message);
}

/// The objects its points are to have, against those there are.
fn discover(seen: &Seen, spec: &RepositorySpec, facts: &Facts, now: Timestamp) -> Vec<Step> {
    let own = &seen.own.key;
    let there: BTreeMap<Key, &Arc<Value>> =
        seen.objects.iter().map(|object| (Key::of(object), object)).collect();
    let mut wanted = BTreeSet::new();
    let mut steps = Vec::new();
    for commit in offered(spec, facts) {
        let namespace = place(seen, &commit.summary);
        let key = Key::new(&namespace, &point_name(commit));
        let object = there.get(&key);
        let metadata = json!({"name": key.name, "namespace": key.namespace,
            "labels": label(&commit.summary).map(|cluster| json!({CLUSTER: cluster})).unwrap_or_else(|| json!({}))});
        let (id, repository) = (commit.id.to_string(), json!({"name": own.name, "namespace": own.namespace}));
        match object {
            None => {
                let object = json!({"apiVersion": POINTS.version, "kind": POINTS.kind, "metadata": metadata,
                    "spec": {"commit": id, "repository": repository, "reason": "Discovered"}});
                steps.push(Step::Make { object, status: describe(&commit.summary, &id, None, 1, now) });
            }
            Some(object) if commit_of(object) == id && object["spec"]["reason"] == json!("Discovered") => {
                let generation = object["metadata"]["generation"].as_u64().unwrap_or(1);
                let status = describe(&commit.summary, &id, Some(&object["status"]), generation, now);
                if crate::status::patch_of(object, &status).is_some() {
                    steps.push(Step::Describe { object: Arc::clone(object), status });
                }
            }
            // Somebody else's, of the same name.
            Some(_) => {}
        }
        wanted.insert(key);
    }
    let surplus = |object: &&Arc<Value>| {
        let spec = &object["spec"];
        // What somebody has asked something of since stays.
        let untouched =
            spec["hold"].is_null() && spec["erase"] != json!(true) && spec["populate"] != json!(true);
        let gone = !facts.ids.contains(commit_of(object));
        spec["reason"] == json!("Discovered")
            && object["metadata"]["deletionTimestamp"].is_null()
            && !wanted.contains(&Key::of(object))
            && (gone || untouched)
    };
    steps.extend(seen.objects.iter().filter(surplus).map(|object| Step::Remove { object: object.clone() }));
    steps
}

fn commit_of(object: &Value) -> &str {
    object["spec"]["commit"].as_str().unwrap_or_default()
}

/// The points that get an object: of each series the newest, and in any case the newest that lacks nothing.
fn offered<'f>(spec: &RepositorySpec, facts: &'f Facts) -> Vec<&'f CommitInfo> {
    let mut series: BTreeMap<String, Vec<&CommitInfo>> = BTreeMap::new();
    for commit in facts.commits.iter().filter(|commit| commit.summary.kind == "application") {
        series.entry(series_of(&commit.summary)).or_default().push(commit);
    }
    let most = match spec.discovery.mode {
        DiscoveryMode::None => return Vec::new(),
        DiscoveryMode::Newest => spec.discovery.per_application as usize,
        DiscoveryMode::All => usize::MAX,
    };
    let mut offered = Vec::new();
    for mut commits in series.into_values() {
        commits.sort_by_key(|commit| std::cmp::Reverse((commit.summary.time, commit.id)));
        let whole = commits.iter().position(|commit| is_whole(&commit.summary));
        let newest = commits.iter().take(most);
        offered.extend(newest.chain(whole.filter(|at| *at >= most).map(|at| &commits[at])).copied());
    }
    offered
}

/// The namespace in which the object of a point lies.
fn place(seen: &Seen, summary: &Summary) -> String {
    let own = || seen.own.key.namespace.clone();
    let text = |name: &str| summary.labels.get(name).map(String::as_str).unwrap_or_default();
    // Of another cluster, or of nobody knows which.
    if seen.cluster.is_empty() || text("cluster") != seen.cluster {
        return own();
    }
    let name = text("namespaces");
    let Some(place) = seen.namespaces.get(name).filter(|place| place.is_allowed) else { return own() };
    let taken = Timestamp::from_nanosecond(i128::from(summary.started)).ok();
    let before = place.made.and_then(|made| made.checked_add(CERTAINLY_BEFORE).ok());
    let is_same = before.zip(taken).is_some_and(|(before, taken)| before <= taken);
    if is_same || place.adopts { name.to_owned() } else { own() }
}

/// The cluster of a point, if it can stand in a label.
fn label(summary: &Summary) -> Option<&str> {
    let cluster = summary.labels.get("cluster")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_one = cluster.len() <= 63
        && cluster.chars().all(fits)
        && ends(cluster.chars().next())
        && ends(cluster.chars().last());
    is_one.then_some(cluster.as_str())
}

/// What the object of a point is called.
fn point_name(commit: &CommitInfo) -> String {
    let application = commit.summary.labels.get("application").map(String::as_str).unwrap_or_default();
    // Names of applications come from labels, which may have other characters than names of objects.
    let plain = plain_name(application);
    let time = Timestamp::from_nanosecond(i128::from(commit.summary.time)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{}-{}-{}", short(&plain), time.strftime("%Y%m%d-%H%M%S"), &commit.id.to_string()[..8])
}

/// What the object of a point says of it.
fn describe(summary: &Summary, id: &str, old: Option<&Value>, generation: u64, now: Timestamp) -> Value {
    let read = old.and_then(|old| serde_json::from_value::<RecoveryPointStatus>(old.clone()).ok());
    let Some(mut status) = read.or_else(|| serde_json::from_value(json!({})).ok()) else { return json!({}) };
    let label = |name: &str| summary.labels.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let figure = |name: &str| summary.figures.get(name).copied();
    status.phase = Some(PointPhase::Ready);
    status.application = label("application").map(str::to_owned);
    status.commit = Some(id.to_owned());
    status.time = Timestamp::from_nanosecond(i128::from(summary.time)).ok().map(instant);
    status.consistency = match label("consistency") {
        Some("fuzzy") => Some(Consistency::Fuzzy),
        Some("crash") => Some(Consistency::Crash),
        Some("filesystem") => Some(Consistency::Filesystem),
        Some("application") => Some(Consistency::Application),
        _ => None,
    };
    status.complete = label("complete").map(|complete| complete == "true");
    status.cluster = label("cluster").map(str::to_owned);
    let missing = ["volumes_missing", "references_missing"].iter().filter_map(|name| figure(name)).sum();
    status.figures = Some(Figures {
        objects: figure("objects"),
        volumes: figure("volumes"),
        bytes: figure("bytes"),
        bytes_stored: figure("bytes_stored"),
        missing: Some(missing),
    });
    set(
        &mut status.conditions,
        "Ready",
        Truth::True,
        "Committed",
        "it is in the repository",
        generation,
        now,
    );
    let (truth, reason, message) = match status.complete {
        Some(false) => (Truth::False, "Missing", "it lacks something: `holdfast show` tells what"),
        _ => (Truth::True, "Complete", "it lacks nothing"),
    };
    set(&mut status.conditions, "Complete", truth, reason, message, generation, now);
    serde_json::to_value(status).unwrap_or_else(|_| json!({}))
}

#[cfg(test)]
mod tests;
