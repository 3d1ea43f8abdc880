//! Applications: points that are due are asked for, and it is told how well each is protected.
//!
//! To ask for a point is to make a RecoveryPoint. Its name follows from the run it stands for, so that whoever dies before that is
//! written down makes the same one again. A run that finds a point of its application unfinished is dropped and told; a point that
//! somebody asks for by hand or by `spec.trigger` waits, and says for whom. `Protected` turns false at the instant at which the newest
//! point is too old, by a timer, whether or not a run comes then.
//!
//! What takes the points, retention, and what belongs to an application come with later steps (docs/cluster.md).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{
    ApplicationSpec, ApplicationStatus, Consistency, LastFailure, LastPoint, PointPhase, PolicySpec, Reason,
    RecoveryPointSpec, RecoveryPointStatus, Ref, RepositorySpec, Rpo, Run, ScheduleState, Truth,
};
use app::api::ApiError;
use async_trait::async_trait;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{APPLICATIONS, Controller, Failure, Own, POINTS, Plan, World, short, spec_of};
use crate::conflicts::{Running, claims};
use crate::cron::Cron;
use crate::events::Told;
use crate::schedule::{self, Due, Schedule, missed_at, part_of_jitter, zone};
use crate::status::{get, instant, read_instant, set};
use crate::tenancy::{allows, meant};
use crate::watch::{Change, Key, Kind, Known};

/// The controller of applications.
pub struct Applications;

/// Another object that is named.
#[derive(Debug, Clone, PartialEq)]
pub enum Named<T> {
    /// None is.
    No,
    /// It can be used.
    There(Key, T),
    /// It cannot: reason and message of the condition.
    Not(&'static str, String),
}

impl<T> Named<T> {
    fn there(&self) -> Option<&T> {
        match self {
            Named::There(_, spec) => Some(spec),
            _ => None,
        }
    }
}

/// A point of the application.
#[derive(Debug, Clone)]
pub struct Point {
    /// Its object.
    pub object: Arc<Value>,
    /// What is asked for.
    pub spec: RecoveryPointSpec,
    /// What is seen of it.
    pub status: RecoveryPointStatus,
}

impl Point {
    fn read(object: Arc<Value>) -> Option<Point> {
        // A point that cannot be read is told by whoever takes points; here it counts for nothing.
        let mut spec = object["spec"].clone();
        for (name, default) in [
            ("reason", json!("Manual")),
            ("cancel", json!(false)),
            ("populate", json!(false)),
            ("erase", json!(false)),
        ] {
            let spec = spec.as_object_mut()?;
            spec.entry(name).or_insert(default);
        }
        let spec = serde_json::from_value(spec).ok()?;
        let status =
            serde_json::from_value(object["status"].clone()).or_else(|_| serde_json::from_value(json!({})));
        Some(Point { object, spec, status: status.ok()? })
    }

    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn created(&self) -> &str {
        self.object["metadata"]["creationTimestamp"].as_str().unwrap_or_default()
    }

    /// Asked for, and neither there nor given up.
    fn is_unfinished(&self) -> bool {
        let phase = self.status.phase;
        self.spec.application.is_some()
            && matches!(phase, None | Some(PointPhase::Pending) | Some(PointPhase::Running))
            && self.object["metadata"]["deletionTimestamp"].is_null()
    }

    fn time(&self) -> Option<Timestamp> {
        read_instant(self.status.time.as_deref())
    }
}

/// What is known of an application.
pub struct Seen {
    own: Own<ApplicationSpec, ApplicationStatus>,
    policy: Named<PolicySpec>,
    repository: Named<RepositorySpec>,
    /// All of its points.
    points: Vec<Point>,
    /// Those that are being taken in the cluster.
    running: Vec<Running>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Ask for a point.
    Ask {
        /// Under this name.
        name: String,
        /// Why.
        reason: Reason,
        /// For which run.
        run: Option<Run>,
    },
    /// Say that a point waits, and what for.
    Wait {
        /// The point's object.
        point: Arc<Value>,
        /// Its status then.
        status: Value,
    },
}

#[async_trait]
impl Controller for Applications {
    type Seen = Seen;
    type Step = Step;
    const KIND: Kind = APPLICATIONS;

    fn wakes(world: &World, change: &Change) -> Vec<Key> {
        let all = || world.applications.all();
        let names = |object: &Value, pointer: &str| {
            let namespace = Key::of(object).namespace;
            object
                .pointer(pointer)
                .and_then(|r| serde_json::from_value::<Ref>(r.clone()).ok())
                .map(|r| meant(&r, &namespace))
        };
        match change.kind {
            // What is said of an object is no reason to look at whom it concerns; what is asked for is.
            "Application" if spec_of(&change.old) != spec_of(&change.new) => vec![change.key.clone()],
            "RecoveryPoint" => {
                let concerned = |o: &Arc<Value>| {
                    [&change.old, &change.new].into_iter().flatten().any(|point| is_point_of(point, o))
                };
                let within = world.applications.within(&change.key.namespace);
                within.iter().filter(|o| concerned(o)).map(|o| Key::of(o)).collect()
            }
            "Policy" if spec_of(&change.old) != spec_of(&change.new) => {
                let uses = |o: &Arc<Value>| names(o, "/spec/policy").as_ref() == Some(&change.key);
                all().iter().filter(|o| uses(o)).map(|o| Key::of(o)).collect()
            }
            "Repository" if spec_of(&change.old) != spec_of(&change.new) => {
                let policies: Vec<Key> = world
                    .policies
                    .all()
                    .iter()
                    .filter(|o| names(o, "/spec/repository").as_ref() == Some(&change.key))
                    .map(|o| Key::of(o))
                    .collect();
                let uses = |o: &Arc<Value>| {
                    names(o, "/spec/repository").as_ref() == Some(&change.key)
                        || names(o, "/spec/policy").is_some_and(|policy| policies.contains(&policy))
                };
                all().iter().filter(|o| uses(o)).map(|o| Key::of(o)).collect()
            }
            // Its labels say what its applications may use.
            "Namespace" if labels_of(&change.old) != labels_of(&change.new) => {
                world.applications.within(&change.key.name).iter().map(|o| Key::of(o)).collect()
            }
            _ => Vec::new(),
        }
    }

    async fn observe(&self, world: &World, key: &Key) -> Result<Option<Seen>, Failure> {
        let Some(object) = world.applications.get(key) else { return Ok(None) };
        let own = world.read::<api::Application>(object)?;
        let (mut policy, mut repository) = (Named::No, Named::No);
        if let Ok(spec) = &own.spec {
            let mut from = None;
            if let Some(reference) = &spec.policy {
                let named = meant(reference, &key.namespace);
                policy = find::<api::Policy>(world, &world.policies, named, &key.namespace, |p| {
                    &p.allowed_namespaces
                })?;
                if let Named::There(at, found) = &policy {
                    // Of the policy's words: its own namespace is meant.
                    from = Some(meant(&found.repository, &at.namespace));
                }
            }
            if let Some(named) = spec.repository.as_ref().map(|r| meant(r, &key.namespace)).or(from) {
                repository =
                    find::<api::Repository>(world, &world.repositories, named, &key.namespace, |r| {
                        &r.allowed_namespaces
                    })?;
            }
        }
        let points = world.points.within(&key.namespace);
        let points: Vec<Point> = points
            .into_iter()
            .filter(|point| is_point_of(point, &own.object))
            .filter_map(Point::read)
            .collect();
        // Who waits for whom is asked only if somebody waits.
        let running = if points.iter().any(Point::is_unfinished) { running(world) } else { Vec::new() };
        Ok(Some(Seen { own, policy, repository, points, running }))
    }

    fn object(seen: &Seen) -> &Value {
        &seen.own.object
    }

    fn decide(seen: &Seen, now: Timestamp) -> Plan<Step> {
        plan(seen, None, now)
    }

    async fn act(&self, world: &World, seen: &Seen, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Ask { name, reason, run } => ask(world, &seen.own.key, name, *reason, run.as_ref()).await,
            Step::Wait { point, status } => match world.write_status(&POINTS, point, status).await {
                // It changed meanwhile, or is gone: that will be seen, and looked at anew.
                Ok(()) | Err(ApiError::Conflict { .. } | ApiError::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn failed(seen: &Seen, why: &str, now: Timestamp) -> Option<Plan<Step>> {
        Some(plan(seen, Some(why), now))
    }
}

fn labels_of(object: &Option<Arc<Value>>) -> Option<&Value> {
    object.as_ref().map(|object| &object["metadata"]["labels"])
}

/// Is this a point of that application? One that is asked for names its object; one that was found, the application as it is discovered.
fn is_point_of(point: &Value, application: &Value) -> bool {
    let name = application["metadata"]["name"].as_str();
    match point["spec"]["application"].as_str() {
        Some(asked) => name == Some(asked),
        None => {
            let found = point["status"]["application"].as_str();
            found.is_some() && found == application["spec"]["selection"]["application"].as_str().or(name)
        }
    }
}

/// An object that is named, if it may be used from this namespace.
fn find<K: api::Kind>(
    world: &World,
    known: &Known,
    key: Key,
    asking: &str,
    allowed: impl Fn(&K::Spec) -> &api::AllowedNamespaces,
) -> Result<Named<K::Spec>, Failure>
where
    K::Spec: DeserializeOwned,
    K::Status: DeserializeOwned,
{
    let kind = K::KIND;
    let missing = || {
        let why = format!(
            "there is no {kind} {key} that namespace {asking} may use: make it, name another, or have its owner allow this namespace in spec.allowedNamespaces"
        );
        Named::Not("RefNotFound", why)
    };
    let Some(object) = known.get(&key) else { return Ok(missing()) };
    let spec = match world.read::<K>(object)?.spec {
        Ok(spec) => spec,
        // To somebody whom it is not for, nothing of it is told.
        Err(_) if asking != key.namespace => return Ok(missing()),
        Err(why) => return Ok(Named::Not("Invalid", format!("{kind} {key} is not as it has to be: {why}"))),
    };
    match allows(allowed(&spec), &key.namespace, asking, &world.labels(asking)) {
        true => Ok(Named::There(key, spec)),
        false => Ok(Named::Not(
            "NotAllowed",
            format!(
                "{kind} {key} does not allow namespace {asking}: its owner can, in spec.allowedNamespaces"
            ),
        )),
    }
}

/// The points that are being taken. Who waits has nothing yet.
fn running(world: &World) -> Vec<Running> {
    let read = |object: &Arc<Value>| {
        if object["status"]["phase"] != json!("Running") {
            return None;
        }
        let (key, application) = (Key::of(object), object["spec"]["application"].as_str()?);
        Some(Running::point(&format!("recoverypoint {key}"), &format!("{}/{application}", key.namespace)))
    };
    world.points.all().iter().filter_map(read).collect()
}

async fn ask(world: &World, key: &Key, name: &str, reason: Reason, run: Option<&Run>) -> Result<(), Failure> {
    let mut spec = json!({"application": key.name, "reason": reason});
    if let Some(run) = run {
        spec["schedule"] = json!({"name": run.name, "at": run.at});
    }
    let point = json!({"apiVersion": POINTS.version, "kind": POINTS.kind,
        "metadata": {"name": name, "namespace": key.namespace}, "spec": spec});
    let collection = POINTS.collection_path(&key.namespace);
    match world.cluster.json(Method::POST, &collection, "application/json", Some(&point)).await {
        Ok(_) => return Ok(()),
        Err(ApiError::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // Made before, by somebody who died before it was written down; or it is something else.
    let there = world.cluster.get_path(&POINTS.object_path(&Key::new(&key.namespace, name))).await?;
    let same = |pointer: &str| there.pointer(pointer) == point.pointer(pointer);
    match ["/spec/application", "/spec/reason", "/spec/schedule/name"].into_iter().all(same) {
        true => Ok(()),
        false => Err(Failure::Other(format!(
            "a RecoveryPoint {name} is there and is another: delete or rename it (its data stays)"
        ))),
    }
}

/// A run that is due, or was.
struct Looked {
    state: ScheduleState,
    before: Option<String>,
    due: Due,
}

fn plan(seen: &Seen, failure: Option<&str>, now: Timestamp) -> Plan<Step> {
    let own = &seen.own;
    let mut status = own.status.clone();
    let accepted = accepted(seen);
    let policy = seen.policy.there();
    let unfinished = seen.points.iter().any(Point::is_unfinished);
    let (mut steps, mut events) = (Vec::new(), Vec::new());

    // What is due.
    let suspended = own.spec.as_ref().is_ok_and(|spec| spec.suspend)
        || policy.is_some_and(|policy| policy.suspend)
        || seen.repository.there().is_some_and(|repository| repository.suspend);
    let mut looked = Vec::new();
    if accepted.is_ok()
        && let Some(policy) = policy
    {
        looked = look(
            policy,
            &own.uid,
            &status,
            schedule::Seen { considered: None, suspended, running: false },
            now,
        );
    }
    for looked in &mut looked {
        let schedule::Run::Take { at, .. } = looked.due.run else { continue };
        let is_for = |point: &Point| {
            let run = point.spec.schedule.as_ref();
            run.is_some_and(|run| read_instant(Some(&run.at)) == Some(at))
        };
        looked.due.run = match () {
            // It was asked for already, by somebody who died before that was written down.
            () if seen.points.iter().any(is_for) => schedule::Run::Nothing,
            () if unfinished => schedule::Run::Dropped { at },
            () => continue,
        };
    }
    let trigger =
        own.spec.as_ref().ok().and_then(|spec| spec.trigger.clone()).filter(|text| !text.is_empty());
    let is_triggered = accepted.is_ok() && !suspended && trigger.is_some() && trigger != status.trigger;
    if failure.is_none() {
        // One point stands for all that is due at once.
        let due = looked.iter().find_map(|looked| match looked.due.run {
            schedule::Run::Take { at, .. } => Some((looked.state.name.clone(), at)),
            _ => None,
        });
        if let Some((schedule, at)) = due {
            let name = point_name(&own.key.name, &schedule, at);
            steps.push(Step::Ask {
                name,
                reason: Reason::Schedule,
                run: Some(Run { name: schedule, at: instant(at) }),
            });
        } else if is_triggered {
            let mark =
                blake3::hash(format!("{}\0{}\0{:?}", own.uid, own.generation, trigger).as_bytes()).to_hex();
            let name = format!("{}-trigger-{}", short(&own.key.name), &mark[..8]);
            steps.push(Step::Ask { name, reason: Reason::Trigger, run: None });
        }
        steps.extend(waiting(seen, now));
    }
    for looked in &looked {
        match looked.due.run {
            schedule::Run::Take { at, missed } if missed > 0 && failure.is_none() => events.push(Told::normal(
                "CaughtUp",
                format!("schedule {}: {missed} runs before {} were missed; one point is taken for them", looked.state.name, instant(at)),
            )),
            schedule::Run::Dropped { at } => events.push(Told::warning(
                "RunSkipped",
                format!("schedule {}: the run of {} was dropped, since a point of this application is under way; see its RecoveryPoints", looked.state.name, instant(at)),
            )),
            schedule::Run::TooLate { at, missed } => events.push(Told::warning(
                "RunSkipped",
                format!("schedule {}: {missed} runs up to {} were missed, longer ago than catchUpWithin", looked.state.name, instant(at)),
            )),
            _ => {}
        }
    }
    if accepted.is_ok() {
        // A run that could not be asked for is not considered: it is tried again.
        let state = |looked: &Looked| {
            let mut state = looked.state.clone();
            if failure.is_some() && matches!(looked.due.run, schedule::Run::Take { .. }) {
                state.considered = looked.before.clone();
            }
            state
        };
        status.schedules = looked.iter().map(state).collect();
        if failure.is_none() && is_triggered {
            status.trigger = trigger;
        }
    }

    // How well it is protected.
    let ready = |point: &&Point| point.status.phase == Some(PointPhase::Ready) && point.time().is_some();
    let newest = seen.points.iter().filter(ready).max_by_key(|point| (point.time(), point.name().to_owned()));
    status.points = Some(seen.points.iter().filter(ready).count() as u64);
    status.last_point = newest.map(last_point);
    status.last_failure = last_failure(seen, failure, now).or(status.last_failure);
    status.repository = match &seen.repository {
        Named::There(key, _) => Some(Ref { name: key.name.clone(), namespace: Some(key.namespace.clone()) }),
        _ => None,
    };
    let missed = conditions(seen, &mut status, &accepted, newest, suspended, &mut events, now);
    let next = looked.iter().filter_map(|looked| looked.due.next);
    let again = next.chain(missed.filter(|at| *at > now)).min();
    let status = serde_json::to_value(status).unwrap_or_else(|_| json!({}));
    Plan { steps, status, events, again }
}

/// Can it be worked with? Else reason and message.
fn accepted(seen: &Seen) -> Result<(), (&'static str, String)> {
    if let Err(why) = &seen.own.spec {
        return Err(("Invalid", why.clone()));
    }
    if let Named::Not(reason, why) = &seen.policy {
        return Err((reason, why.clone()));
    }
    match &seen.repository {
        Named::Not(reason, why) => Err((reason, why.clone())),
        _ => Ok(()),
    }
}

fn look(
    policy: &PolicySpec,
    uid: &str,
    status: &ApplicationStatus,
    seen: schedule::Seen,
    now: Timestamp,
) -> Vec<Looked> {
    let states: BTreeMap<&str, &ScheduleState> =
        status.schedules.iter().map(|s| (s.name.as_str(), s)).collect();
    let read = |wanted: &api::Schedule| {
        let duration = |text: &str| text.parse::<SignedDuration>().unwrap_or_default();
        let schedule = Schedule {
            cron: Cron::parse(&wanted.cron).ok()?,
            zone: zone(&wanted.time_zone)?,
            later: part_of_jitter(uid, &wanted.name, duration(&wanted.jitter)),
            catch_up_within: duration(&wanted.catch_up_within),
        };
        let before = states.get(wanted.name.as_str()).and_then(|state| state.considered.clone());
        let seen = schedule::Seen { considered: read_instant(before.as_deref()), ..seen };
        let due = schedule.due(&seen, now);
        let state = ScheduleState {
            name: wanted.name.clone(),
            considered: Some(instant(due.considered)),
            next: due.next.map(instant),
        };
        Some(Looked { state, before, due })
    };
    policy.schedules.iter().filter_map(read).collect()
}

/// For each of its points that wait and do not yet say for whom: that they do.
fn waiting(seen: &Seen, now: Timestamp) -> Vec<Step> {
    let mut table = claims(&seen.running);
    let mut unfinished: Vec<&Point> = seen.points.iter().filter(|point| point.is_unfinished()).collect();
    unfinished.sort_by_key(|point| (point.created(), point.name()));
    let mut steps = Vec::new();
    for point in unfinished {
        let name = format!("recoverypoint {}/{}", seen.own.key.namespace, point.name());
        let wants = Running::point(&name, &seen.own.key.to_string());
        let message = match table.admit(&wants) {
            Err(why) => why.to_string(),
            // docs/cluster.md says when this changes.
            Ok(()) => "waits: this release takes no points by itself yet; `holdfast backup` takes one".into(),
        };
        if point.status.phase == Some(PointPhase::Running) {
            continue;
        }
        let mut status = point.status.clone();
        status.phase = Some(PointPhase::Pending);
        status.application = Some(seen.own.key.name.clone());
        let generation = point.object["metadata"]["generation"].as_u64().unwrap_or(0);
        set(&mut status.conditions, "Ready", Truth::False, "Waiting", message, generation, now);
        let status = serde_json::to_value(status).unwrap_or_else(|_| json!({}));
        if crate::status::patch_of(&point.object, &status).is_some() {
            steps.push(Step::Wait { point: point.object.clone(), status });
        }
    }
    steps
}

fn last_point(point: &Point) -> LastPoint {
    LastPoint {
        name: Some(point.name().into()),
        commit: point.status.commit.clone().or(point.spec.commit.clone()),
        time: point.status.time.clone(),
        consistency: point.status.consistency,
        complete: point.status.complete,
    }
}

fn last_failure(seen: &Seen, failure: Option<&str>, now: Timestamp) -> Option<LastFailure> {
    if let Some(why) = failure {
        let message: String = why.chars().take(1000).collect();
        // The same again is not told anew: each change of the status would be one more reason to look.
        let known =
            seen.own.status.last_failure.clone().filter(|last| last.message.as_ref() == Some(&message));
        return known.or(Some(LastFailure { time: Some(instant(now)), message: Some(message) }));
    }
    let failed = |point: &&Point| point.status.phase == Some(PointPhase::Failed);
    let ended = |point: &Point| read_instant(point.status.finished_at.as_deref());
    let newest = seen.points.iter().filter(failed).max_by_key(|point| ended(point))?;
    let said = get(&newest.status.conditions, "Ready").map(|ready| ready.message.clone());
    let time = newest.status.finished_at.clone();
    let known = read_instant(seen.own.status.last_failure.as_ref().and_then(|last| last.time.as_deref()));
    // One that was told already, of a point that is gone, may be newer.
    if known > ended(newest) {
        return None;
    }
    let message = format!("{}: {}", newest.name(), said.unwrap_or_else(|| "it failed".into()));
    Some(LastFailure { time, message: Some(message.chars().take(1000).collect()) })
}

/// Says how it is protected. Returns when its newest point will be too old.
fn conditions(
    seen: &Seen,
    status: &mut ApplicationStatus,
    accepted: &Result<(), (&'static str, String)>,
    newest: Option<&Point>,
    suspended: bool,
    events: &mut Vec<Told>,
    now: Timestamp,
) -> Option<Timestamp> {
    let (generation, policy) = (seen.own.generation, seen.policy.there());
    let say = |status: &mut ApplicationStatus, kind: &str, truth: Truth, reason: &str, message: String| {
        set(&mut status.conditions, kind, truth, reason, message, generation, now);
    };
    match accepted {
        Ok(()) => say(status, "Accepted", Truth::True, "Valid", "it can be worked with".into()),
        Err((reason, why)) => say(status, "Accepted", Truth::False, reason, why.clone()),
    }

    let objective = policy.and_then(|policy| policy.rpo.clone());
    let span = objective.as_deref().and_then(|text| text.parse::<SignedDuration>().ok());
    let was = get(&status.conditions, "Protected").map(|protected| protected.status);
    let missed = newest.and_then(Point::time).zip(span).and_then(|(time, span)| missed_at(time, span));
    let told = objective.clone().unwrap_or_default();
    let (truth, reason, message) = match (span, newest.and_then(Point::time)) {
        (None, _) => (Truth::Unknown, "NoObjective", "no policy says how old its newest point may be (spec.rpo)".into()),
        (Some(_), None) => (
            Truth::False, "NoPointYet",
            "there is no point yet: one comes with the next run of a schedule, or with a new value of spec.trigger".into(),
        ),
        (Some(_), Some(time)) if missed.is_some_and(|missed| missed <= now) => (
            Truth::False, "ObjectiveMissed",
            format!("the newest point is of {}, which is more than {told} ago; its RecoveryPoints say why no other came", instant(time)),
        ),
        (Some(_), Some(time)) => (Truth::True, "WithinObjective", format!("the newest point is of {}, within {told}", instant(time))),
    };
    match (was, truth) {
        (Some(Truth::True), Truth::False) => events.push(Told::warning("RpoMissed", message.clone())),
        (Some(Truth::False), Truth::True) => events.push(Told::normal("RpoMet", message.clone())),
        _ => {}
    }
    say(status, "Protected", truth, reason, message);
    status.rpo = objective.map(|objective| Rpo {
        objective: Some(objective),
        since: get(&status.conditions, "Protected").map(|protected| protected.last_transition_time.clone()),
    });

    let (truth, reason, message) = match newest.map(|point| point.status.complete) {
        None => (Truth::Unknown, "NoPointYet", "there is no point yet".to_owned()),
        Some(Some(false)) => {
            (Truth::False, "Missing", "the newest point lacks something: `holdfast show` tells what".into())
        }
        Some(_) => (Truth::True, "Complete", "the newest point lacks nothing".into()),
    };
    say(status, "Complete", truth, reason, message);

    let wanted =
        seen.own.spec.as_ref().ok().and_then(|spec| spec.at_least).or(policy.map(|policy| policy.at_least));
    let wanted = wanted.unwrap_or(Consistency::Fuzzy);
    let (truth, reason, message) = match newest.map(|point| point.status.consistency) {
        None => (Truth::Unknown, "NoPointYet", "there is no point yet".to_owned()),
        // Without volumes nothing can be torn.
        Some(None) => (Truth::True, "Consistent", "the newest point has no volumes".into()),
        Some(Some(found)) if found < wanted => (
            Truth::False,
            "WeakerThanAsked",
            format!(
                "the newest point is {}, asked for is {}: name a rule, or another freeze, in the policy",
                found.as_str(),
                wanted.as_str()
            ),
        ),
        Some(Some(found)) => (Truth::True, "Consistent", format!("the newest point is {}", found.as_str())),
    };
    say(status, "Consistent", truth, reason, message);

    let (truth, reason, message) = match (accepted, policy) {
        (Err(_), _) => (
            Truth::False,
            "NotAccepted",
            "nothing runs until Accepted is true; its message says what to do".to_owned(),
        ),
        (Ok(()), _) if suspended => (
            Truth::False,
            "Suspended",
            "the application, its policy or its repository has spec.suspend: set it to false".into(),
        ),
        (Ok(()), Some(policy)) if !policy.schedules.is_empty() => {
            (Truth::True, "Scheduled", "status.schedules says when".into())
        }
        (Ok(()), _) => (
            Truth::Unknown,
            "NoSchedule",
            "points are taken by hand only: no policy has a schedule for it".into(),
        ),
    };
    say(status, "Scheduled", truth, reason, message);
    missed
}

/// A point's name for a run: the same whoever asks for it.
fn point_name(application: &str, schedule: &str, at: Timestamp) -> String {
    format!("{}-{schedule}-{}", short(application), at.strftime("%Y%m%d-%H%M%S"))
}

#[cfg(test)]
mod tests;
