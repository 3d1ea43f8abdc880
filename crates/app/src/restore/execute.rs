//! Executing an approved plan: wave by wave, data before those who use it, and a report of everything.
//!
//! One object that fails does not end the restore. What may come right by itself (a webhook whose pods are
//! still starting, a quota not counted yet, a busy server) is tried a few times where it stands and once more
//! at the end. Owners that come after what they own are linked at the end too: then every UID is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use repo::{Cancel, CommitId, Env, Finding, Progress, Reader, Timestamp};
use serde_json::{Value, json};

use super::decide::{RESTORING, WAITING, field_dropped, is_apply_unable, pair};
use super::holder::Holder;
use super::only::definition_key;
use super::{
    Action, ApprovedPlan, Deadlines, Done, Method, ObjectResult, OnConflict, PlannedWave, Report, Step,
    WaveResult, addresses, lost, webhooks,
};
use crate::api::{ApiError, ApplyOptions, Cluster, FIELD_MANAGER, Propagation};
use crate::compare::changes;
use crate::kinds::Order;
use crate::object::{Object, ObjectKey};
use crate::volumes::Volumes;

/// Tries where it stands; the pauses double from the first.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Where the data is, and who writes it.
#[derive(Clone)]
pub struct DataSource {
    /// The repository.
    pub reader: Arc<Reader>,
    /// The recovery point in it.
    pub commit: CommitId,
    /// Who reaches the volumes.
    pub volumes: Arc<dyn Volumes>,
}

/// Everything an execution needs from outside.
#[derive(Clone)]
pub struct Executor {
    /// The target.
    pub cluster: Cluster,
    /// The clock.
    pub env: Env,
    /// The stop button.
    pub cancel: Cancel,
    /// Who watches.
    pub progress: Arc<dyn Progress + Send + Sync>,
    /// Where the data is and who writes it; none restores objects only.
    pub data: Option<DataSource>,
    /// Who holds claims that cannot be reached otherwise; without it, they are not.
    pub holder: Option<Holder>,
    /// Requests in flight.
    pub at_once: usize,
    /// How long to wait for the target.
    pub deadlines: Deadlines,
}

impl Executor {
    /// An executor for objects only, with the usual limits.
    pub fn new(cluster: Cluster, env: Env) -> Self {
        Self {
            cluster,
            env,
            cancel: Cancel::new(),
            progress: Arc::new(()),
            data: None,
            holder: None,
            at_once: 16,
            deadlines: Deadlines::default(),
        }
    }

    /// Tells what is waited for, unless it is what was told last.
    pub(super) fn tell_once(&self, told: &mut String, what: String) {
        if *told != what {
            self.progress.note(&what);
            *told = what;
        }
    }

    pub(crate) fn since(&self, start: Timestamp) -> u64 {
        u64::try_from(self.env.now().saturating_sub(start).max(0) / 1_000_000).unwrap_or(0)
    }

    /// Looks again and again until `done` says so, or the time is up.
    pub(super) async fn wait<T, F>(&self, limit: Duration, mut look: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Option<T>>,
    {
        // Counted in pauses and not by the clock: a clock that is set would end or prolong it.
        let pauses = limit.as_millis().div_ceil(self.deadlines.step.as_millis().max(1));
        for _ in 0..pauses {
            if let Some(found) = look().await {
                return Some(found);
            }
            if self.cancel.is_cancelled() {
                return None;
            }
            tokio::time::sleep(self.deadlines.step).await;
        }
        look().await
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor")
            .field("cluster", &self.cluster)
            .field("data", &self.data.is_some())
            .finish_non_exhaustive()
    }
}

/// What is known while it runs.
pub(super) struct Run<'a> {
    pub(super) executor: &'a Executor,
    on_conflict: OnConflict,
    /// UIDs on the target.
    pub(super) uids: Mutex<BTreeMap<ObjectKey, String>>,
    /// Claims whose data is not in though it should be.
    pub(super) empty: Mutex<BTreeSet<ObjectKey>>,
    /// Namespaces and definitions that could not be restored.
    lost: Mutex<BTreeSet<ObjectKey>>,
    /// Claims that get data.
    filled: BTreeSet<ObjectKey>,
    /// Collections whose objects a silent webhook stands before, and what it said.
    pub(super) blocked: Mutex<BTreeMap<String, ApiError>>,
    /// What was found while writing.
    findings: Mutex<Vec<Finding>>,
}

/// What one attempt came to.
enum Attempt {
    Finished(ObjectResult),
    /// Somebody pressed stop before its turn.
    NotTried,
    /// May succeed when everything else is there.
    Later(Box<Step>, ApiError),
}

impl ApprovedPlan {
    /// Does what the plan says.
    pub async fn execute(self, executor: &Executor) -> Report {
        let plan = self.0;
        let start = executor.env.now();
        let mut report = Report {
            application: plan.application,
            left: plan.left,
            findings: plan.findings,
            ..Report::default()
        };
        let run = Run {
            executor,
            on_conflict: plan.on_conflict,
            uids: Mutex::new(
                plan.waves
                    .iter()
                    .flat_map(|wave| &wave.steps)
                    .filter(|step| !step.live_uid.is_empty())
                    .map(|step| (step.key.clone(), step.live_uid.clone()))
                    .collect(),
            ),
            empty: Mutex::default(),
            lost: Mutex::default(),
            filled: plan
                .volumes
                .iter()
                .filter(|volume| volume.restore)
                .map(|volume| volume.claim.clone())
                .collect(),
            blocked: Mutex::default(),
            findings: Mutex::default(),
        };
        let linked: Vec<Step> = plan
            .waves
            .iter()
            .flat_map(|wave| &wave.steps)
            .filter(|step| !step.owners.is_empty() && writes(step.action))
            .cloned()
            .collect();
        let awaited: Vec<Step> = plan
            .waves
            .iter()
            .filter(|wave| executor.deadlines.ready.is_some() && wave.order >= Some(Order::Network))
            .flat_map(|wave| &wave.steps)
            .filter(|step| writes(step.action))
            .cloned()
            .collect();
        let filled = plan.volumes.iter().filter(|volume| volume.restore);
        let (files, bytes) = filled.fold((0, 0), |(f, b), volume| (f + volume.files, b + volume.bytes));
        executor.progress.total(files, bytes);
        let mut volumes = Some(plan.volumes);
        let mut later = Vec::new();
        for wave in plan.waves {
            if wave.order > Some(Order::Claim)
                && let Some(volumes) = volumes.take()
            {
                run.fill(volumes, &mut report).await;
            }
            if executor.cancel.is_cancelled() {
                report.cancelled = true;
                break;
            }
            later.append(&mut run.wave(wave, &mut report).await);
        }
        if let Some(volumes) = volumes.take()
            && !report.cancelled
        {
            run.fill(volumes, &mut report).await;
        }
        if !report.cancelled {
            run.again(later, &mut report).await;
            run.link(linked, &mut report).await;
            if let Some(limit) = executor.deadlines.ready {
                run.ready(awaited, limit, &mut report).await;
            }
        }
        run.tell(&mut report);
        report.cancelled |= executor.cancel.is_cancelled();
        report.milliseconds = executor.since(start);
        report
    }
}

fn writes(action: Action) -> bool {
    matches!(action, Action::Create | Action::Update | Action::Replace)
}

impl Run<'_> {
    pub(super) fn cluster(&self) -> &Cluster {
        &self.executor.cluster
    }

    pub(super) fn uid(&self, key: &ObjectKey) -> Option<String> {
        self.uids.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn learn(&self, key: &ObjectKey, object: &Object) {
        self.uids.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), object.uid().to_owned());
    }

    /// One wave; returns what is to be tried again at the end.
    async fn wave(&self, wave: PlannedWave, report: &mut Report) -> Vec<(Step, ApiError)> {
        let start = self.executor.env.now();
        let objects = wave.steps.len();
        self.executor.progress.note(&format!("{}: {objects} objects", wave.stage));
        let mut later = Vec::new();
        let mut made = Vec::new();
        let mut attempts = futures::stream::iter(wave.steps)
            .map(|step| self.attempt(step))
            .buffer_unordered(self.executor.at_once.max(1));
        let mut results = Vec::with_capacity(objects);
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Attempt::Finished(result) => {
                    if matches!(result.done, Done::Created | Done::Updated) {
                        made.push(result.key.clone());
                    }
                    results.push(result);
                }
                Attempt::NotTried => report.cancelled = true,
                Attempt::Later(step, error) => later.push((*step, error)),
            }
        }
        results.sort_by(|a, b| a.key.cmp(&b.key));
        if matches!(wave.order, Some(Order::Namespace | Order::Definition)) {
            let failed =
                results.iter().filter(|result| result.done == Done::Failed).map(|result| result.key.clone());
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
        }
        results.into_iter().for_each(|result| report.add(result));
        match wave.order {
            Some(Order::Definition) => self.established(&made, report).await,
            Some(Order::Namespace) => self.active(&made, report).await,
            _ => {}
        }
        report.waves.push(WaveResult {
            stage: wave.stage,
            objects,
            milliseconds: self.executor.since(start),
        });
        later
    }

    async fn attempt(&self, step: Step) -> Attempt {
        let finished =
            |done, message: String| Attempt::Finished(ObjectResult { key: step.key.clone(), done, message });
        match step.action {
            Action::Unchanged => return finished(Done::Unchanged, String::new()),
            Action::Skip | Action::Conflict => return finished(Done::Skipped, step.reason.clone()),
            Action::Create | Action::Update | Action::Replace => {}
        }
        if self.executor.cancel.is_cancelled() {
            return Attempt::NotTried;
        }
        if let Some(ground) = self.lost_ground(&step) {
            return finished(
                Done::Failed,
                format!("{ground} could not be restored, and it cannot be without"),
            );
        }
        if let Some(claim) = self.held_by(&step) {
            return finished(
                Done::Failed,
                format!(
                    "held back: the data of {claim} is not in, and it must not start without; restore again"
                ),
            );
        }
        // Each try may take as long as the webhook's time limit; one of a collection is enough to know.
        if let Some(error) = self.blocked(&step) {
            return Attempt::Later(Box::new(step), error);
        }
        match self.with_retries(&step).await {
            Ok(done) => finished(done.0, done.1),
            Err(error) if may_come_right(&error) => Attempt::Later(Box::new(step), error),
            Err(error) => finished(Done::Failed, error.to_string()),
        }
    }

    /// The namespace or definition that this needs and that failed: asking for it would only take time.
    fn lost_ground(&self, step: &Step) -> Option<ObjectKey> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = ObjectKey::new("", "Namespace", "", &step.key.namespace);
        [namespace, definition_key(&step.resource)].into_iter().find(|key| lost.contains(key))
    }

    fn held_by(&self, step: &Step) -> Option<ObjectKey> {
        let empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        step.claims.iter().find(|claim| empty.contains(claim)).cloned()
    }

    pub(super) async fn with_retries(&self, step: &Step) -> Result<(Done, String), ApiError> {
        let mut pause = FIRST_PAUSE;
        let mut left = TRIES;
        loop {
            left -= 1;
            match self.write(step).await {
                Err(error) if webhooks::is_silent(&error) => {
                    self.blocked
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(step.resource.path(Some(&step.key.namespace)), error.clone());
                    return Err(error);
                }
                Err(error) if left > 0 && is_passing(&error) && !self.executor.cancel.is_cancelled() => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => return result,
            }
        }
    }

    pub(super) fn blocked(&self, step: &Step) -> Option<ApiError> {
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.get(&step.resource.path(Some(&step.key.namespace))).cloned()
    }

    fn found(&self, finding: Finding) {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }

    /// What was found while writing, without what the plan told already.
    fn tell(&self, report: &mut Report) {
        let mut found = std::mem::take(&mut *self.findings.lock().unwrap_or_else(PoisonError::into_inner));
        found.retain(|new| !report.findings.iter().any(|old| (old.code, &old.what) == (new.code, &new.what)));
        found.sort_by(|a, b| (&a.what, a.code).cmp(&(&b.what, b.code)));
        report.findings.append(&mut found);
    }

    /// One write, by the step's method.
    async fn write(&self, step: &Step) -> Result<(Done, String), ApiError> {
        let body = self.body(step);
        match (step.action, step.method) {
            (Action::Replace, _) => {
                self.remove(step).await?;
                self.create(step, &body).await.map(|(_, message)| (Done::Updated, message))
            }
            (_, Method::Create) => self.create(step, &body).await,
            (_, Method::Apply) => self.apply(step, &body).await,
            (_, Method::Merge) => self.merge(step, &body.0).await,
            (_, Method::Release) => {
                let release = json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
                self.merge(step, &release).await
            }
        }
    }

    /// The wanted object, with the owners that are known by now.
    pub(super) fn body(&self, step: &Step) -> Object {
        let made = matches!(step.action, Action::Create | Action::Replace);
        let mut body = step.made_as.as_ref().filter(|_| made).unwrap_or(&step.desired).clone();
        let owners: Vec<Value> = step
            .owners
            .iter()
            .filter_map(|owner| {
                let mut entry = owner.entry.clone();
                entry["uid"] = self.uid(&owner.key)?.into();
                entry["name"] = owner.key.name.clone().into();
                Some(entry)
            })
            .collect();
        if !owners.is_empty() {
            body.0["metadata"]["ownerReferences"] = owners.into();
        }
        if step.action == Action::Create && self.filled.contains(&step.key) {
            // Taken off when the data is in. If we die on the way, the next restore sees it.
            body.0["metadata"]["annotations"][RESTORING] = WAITING.into();
        }
        body
    }

    async fn create(&self, step: &Step, body: &Object) -> Result<(Done, String), ApiError> {
        let kept = step.made_as.as_ref().filter(|_| step.key.is("", "Service"));
        let manager =
            kept.map_or_else(|| FIELD_MANAGER.to_owned(), |with| addresses::keeper(&step.desired, with));
        match self.cluster().create_as(&manager, &step.resource, body, false).await {
            Ok(made) => {
                self.made(step, &made).await;
                Ok((Done::Created, String::new()))
            }
            Err(error)
                if step.made_as.is_some() && step.key.is("", "Service") && addresses::is_refusal(&error) =>
            {
                let plain = self.body(&Step { made_as: None, ..step.clone() });
                let made = self.cluster().create(&step.resource, &plain, false).await?;
                self.made(step, &made).await;
                let message =
                    format!("the target does not take the addresses it had, so it got others: {error}");
                self.found(Finding::note("address-changes", step.key.to_string(), message.clone()));
                Ok((Done::Created, message))
            }
            Err(error @ ApiError::Conflict { .. }) => self.met(step, body, error).await,
            Err(error) => Err(error),
        }
    }

    /// What follows when an object was made: its UID is known, what the server did not keep is told, and its status
    /// is written where that is restored.
    async fn made(&self, step: &Step, made: &Object) {
        let key = &step.key;
        self.learn(key, made);
        let lost = lost::fields(&step.desired, made);
        if !lost.is_empty() {
            self.found(field_dropped(key, &lost));
        }
        let Some(status) = &step.status else { return };
        let patch = json!({ "status": status });
        let (mut pause, mut left) = (FIRST_PAUSE, TRIES);
        loop {
            left -= 1;
            let written = self
                .cluster()
                .merge_patch(&step.resource, &key.namespace, &key.name, Some("status"), &patch)
                .await;
            match written {
                Err(error) if left > 0 && is_passing(&error) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    self.found(Finding::warning(
                        "status-not-restored",
                        key.to_string(),
                        format!("it is there, but its status was refused: {error}"),
                    ));
                    return;
                }
                Ok(_) => return,
            }
        }
    }

    /// It exists, against the plan: it is going away, or an answer got lost and it is ours, or somebody made it.
    async fn met(&self, step: &Step, body: &Object, error: ApiError) -> Result<(Done, String), ApiError> {
        let key = &step.key;
        let Some(live) = self.cluster().get(&step.resource, &key.namespace, &key.name).await? else {
            return Err(error);
        };
        if !live.str("/metadata/deletionTimestamp").is_empty() {
            let limit = if key.is("", "Namespace") {
                self.executor.deadlines.namespace
            } else {
                self.executor.deadlines.gone
            };
            self.gone(step, live.uid(), limit).await?;
            let made = self.cluster().create(&step.resource, body, false).await?;
            self.made(step, &made).await;
            return Ok((Done::Created, String::new()));
        }
        self.learn(key, &live);
        let (now, wanted) = pair(&step.desired, &live);
        if changes(&now.0, &wanted.0).is_empty() {
            return Ok((Done::Unchanged, "it was there meanwhile, as in the point".into()));
        }
        match self.on_conflict {
            OnConflict::Skip => Ok((Done::Skipped, "somebody made it since the plan, and it differs".into())),
            OnConflict::Update => self.apply(step, body).await,
            OnConflict::Recreate | OnConflict::Replace | OnConflict::Fail => Err(ApiError::Invalid {
                what: key.to_string(),
                message: "somebody made it since the plan, and it differs; plan again".into(),
            }),
        }
    }

    async fn apply(&self, step: &Step, body: &Object) -> Result<(Done, String), ApiError> {
        let mut body = body.clone();
        if !step.live_uid.is_empty() {
            // Only the very object the plan looked at.
            body.0["metadata"]["uid"] = step.live_uid.clone().into();
        }
        match self.cluster().apply(&step.resource, &body, &ApplyOptions { force: true, dry_run: false }).await
        {
            Ok(made) => {
                self.learn(&step.key, &made);
                Ok((if step.action == Action::Create { Done::Created } else { Done::Updated }, String::new()))
            }
            Err(error) if is_apply_unable(&error) => self.merge(step, &body.0).await,
            Err(error) => Err(error),
        }
    }

    async fn merge(&self, step: &Step, patch: &Value) -> Result<(Done, String), ApiError> {
        let key = &step.key;
        let made = self.cluster().merge_patch(&step.resource, &key.namespace, &key.name, None, patch).await?;
        self.learn(key, &made);
        Ok((Done::Updated, String::new()))
    }

    async fn remove(&self, step: &Step) -> Result<(), ApiError> {
        let key = &step.key;
        let uid = Some(step.live_uid.as_str()).filter(|uid| !uid.is_empty());
        self.cluster()
            .delete(&step.resource, &key.namespace, &key.name, Propagation::Background, uid)
            .await?;
        self.gone(step, &step.live_uid, self.executor.deadlines.gone).await
    }

    async fn gone(&self, step: &Step, uid: &str, limit: Duration) -> Result<(), ApiError> {
        let key = &step.key;
        let look = || async {
            match self.cluster().get(&step.resource, &key.namespace, &key.name).await {
                Ok(Some(live)) if live.uid() == uid => None,
                Ok(_) => Some(Ok(())),
                Err(error) if is_passing(&error) => None,
                Err(error) => Some(Err(error)),
            }
        };
        match self.executor.wait(limit, look).await {
            Some(done) => done,
            None => Err(ApiError::Invalid {
                what: key.to_string(),
                message: format!(
                    "it is being deleted and not gone after {} s; see which finalizers hold it, then restore again",
                    limit.as_secs()
                ),
            }),
        }
    }
}

/// Worth the same request again in a moment.
pub(super) fn is_passing(error: &ApiError) -> bool {
    match error {
        ApiError::Unreachable { .. } => true,
        // An object that is too big stays too big, whatever the status says.
        ApiError::Other { message, .. } if message.contains("too large") => false,
        ApiError::Other { status, .. } => *status == 429 || *status >= 500,
        ApiError::Conflict { message, .. } => {
            !message.contains("already exists") && !message.contains("Precondition failed")
        }
        // The kind is not served yet, or its namespace is just being made known.
        ApiError::NotFound { .. } => true,
        // A quota that was not counted yet.
        ApiError::Denied { message, .. } => message.contains("status unknown for quota"),
        ApiError::Invalid { .. } => false,
    }
}

/// Worth a try when everything else is there.
fn may_come_right(error: &ApiError) -> bool {
    let webhook = |message: &str| message.contains("webhook") && !message.contains("too large");
    is_passing(error)
        || matches!(error, ApiError::Denied { message, .. } | ApiError::Invalid { message, .. } if webhook(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_pass_is_tried_again() {
        let what = String::new;
        let message = |text: &str| text.to_owned();
        let cases = [
            (ApiError::Unreachable { what: what(), message: what() }, true, true),
            (
                ApiError::Other { what: what(), status: 500, message: message("failed calling webhook") },
                true,
                true,
            ),
            (ApiError::Other { what: what(), status: 429, message: what() }, true, true),
            (
                ApiError::Other {
                    what: what(),
                    status: 500,
                    message: message("etcdserver: request is too large"),
                },
                false,
                false,
            ),
            (ApiError::Other { what: what(), status: 418, message: what() }, false, false),
            (
                ApiError::Conflict { what: what(), message: message("the object has been modified") },
                true,
                true,
            ),
            (ApiError::Conflict { what: what(), message: message("\"a\" already exists") }, false, false),
            (ApiError::Denied { what: what(), message: message("may not create") }, false, false),
            (ApiError::Denied { what: what(), message: message("status unknown for quota: q") }, true, true),
            (
                ApiError::Invalid {
                    what: what(),
                    message: message("admission webhook \"w\" denied the request"),
                },
                false,
                true,
            ),
            (ApiError::Invalid { what: what(), message: message("spec is immutable") }, false, false),
        ];
        for (error, passing, later) in cases {
            assert_eq!((is_passing(&error), may_come_right(&error)), (passing, later), "{error}");
        }
    }
}
