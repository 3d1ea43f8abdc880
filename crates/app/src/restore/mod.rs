//! Restore: a recovery point becomes a running application again.
//!
//! ```text
//! point ─► only ─► prepare (transform, versions, volumes) ─► plan (look at the target, decide) ─► approve ─► execute ─► report
//! ```
//!
//! The plan is a value: `--plan` prints it, tests compare it, and executing consumes it. Each object has one
//! step with its action, its reason and its difference. [`plan()`] only reads; [`ApprovedPlan`] is the proof
//! that somebody agreed, and the only thing that can be executed.
//!
//! Promises. What is already as it should be is not written, so restoring twice changes nothing. What exists
//! and differs is left alone unless the conflict policy says otherwise. What others share (cluster-scoped
//! objects, shared objects) is only ever created, never changed. Data is written into a claim before anything
//! that uses it is applied; if that fails, its users are held back, since a database that starts on an empty
//! volume makes a new, empty database.

mod addresses;
mod again;
mod convert;
mod decide;
mod execute;
mod expected;
mod fill;
mod holder;
mod lost;
mod observe;
mod only;
mod paper;
mod plan;
mod prepare;
mod report;
mod settle;
mod status;
mod versions;
mod volumes;
mod webhooks;

use std::time::Duration;

use repo::Finding;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::ResourceType;
use crate::compare::Change;
use crate::error::Error;
use crate::kinds::Order;
use crate::object::{Object, ObjectKey};
use crate::point::ClusterInfo;
use crate::transform::{Mapping, Transform, TransformError};
use crate::volumes::Existing;

pub(crate) use decide::pair;
pub use execute::{DataSource, Executor};
pub use holder::Holder;
pub(crate) use only::definition_key;
pub use only::{Only, OnlyError};
pub use paper::{Digest, Paper, PaperError, on_paper};
pub use plan::plan;
pub(crate) use plan::{give_way, observe_candidates};
pub(crate) use prepare::{Candidate, Prepared, prepare};
pub use report::{Done, ObjectResult, Report, VolumeResult, WaveResult};
pub use versions::{Served, serve};
pub(crate) use versions::{in_one_version, in_version};

/// What happens to an object that exists on the target and differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// It stays as it is.
    #[default]
    Skip,
    /// Our fields are applied over it; fields the point does not have stay.
    Update,
    /// It is deleted and made again. Never namespaces, definitions, claims or volumes: those hold more than
    /// themselves, and are updated.
    Replace,
    /// It is updated; where a field of it cannot be changed in place, it is deleted and made again.
    Recreate,
    /// Nothing at all is restored.
    Fail,
}

impl std::str::FromStr for OnConflict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "skip" => Ok(Self::Skip),
            "update" => Ok(Self::Update),
            "replace" => Ok(Self::Replace),
            "recreate" => Ok(Self::Recreate),
            "fail" => Ok(Self::Fail),
            _ => Err(format!("{text:?} is no conflict policy; use skip, update, recreate, replace or fail")),
        }
    }
}

/// What happens to objects that belong to the whole cluster: classes, roles, definitions, webhook configurations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterScoped {
    /// They are made where they are absent, and never changed.
    #[default]
    Create,
    /// Where they differ, the conflict policy decides as for any other object.
    Conflict,
    /// They are left to the cluster's administrator; only namespaces and volumes are made.
    Leave,
}

impl std::str::FromStr for ClusterScoped {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "create" => Ok(Self::Create),
            "conflict" => Ok(Self::Conflict),
            "leave" => Ok(Self::Leave),
            _ => Err(format!(
                "{text:?} is no policy for cluster-scoped objects; use create, conflict or leave"
            )),
        }
    }
}

/// What happens to volume data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// It is written into claims that this restore makes, and only where the volume is empty.
    New,
    /// It is also written into claims that exist, which then hold exactly what the point holds. Only if no
    /// running pod mounts them.
    Overwrite,
    /// It stays out: objects only.
    Leave,
}

/// What a restore shall be.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// What changes on the way.
    pub transform: Transform,
    /// What happens to objects that exist and differ.
    pub on_conflict: OnConflict,
    /// What happens to objects of the whole cluster.
    pub cluster_scoped: ClusterScoped,
    /// Kinds whose status is restored, beside those that need it; `*` for all.
    pub status: Vec<String>,
    /// Which objects of the point; empty for all.
    pub only: Only,
    /// What happens to volume data.
    pub data: Data,
    /// Requests in flight while planning.
    pub at_once: usize,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            transform: Transform::default(),
            on_conflict: OnConflict::Skip,
            cluster_scoped: ClusterScoped::Create,
            status: Vec::new(),
            only: Only::default(),
            data: Data::New,
            at_once: 16,
        }
    }
}

/// What becomes of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is not on the target and is made.
    Create,
    /// It differs and is changed.
    Update,
    /// It differs and is deleted and made again.
    Replace,
    /// It is as it should be.
    Unchanged,
    /// It is left as it is on the target, for the reason given.
    Skip,
    /// It differs, and the policy is to do nothing in that case.
    Conflict,
}

/// How an action is carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Method {
    /// POST: fails if it exists by then, which is decided anew.
    #[default]
    Create,
    /// Server-side apply; also for what the cluster makes by itself (the account `default`).
    Apply,
    /// A merge patch, for objects whose type the server's apply cannot handle.
    Merge,
    /// Takes the old claim's UID off a released volume.
    Release,
}

/// A link to an owner, by the UIDs of the point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OwnerLink {
    /// The owner on the target.
    pub(crate) key: ObjectKey,
    /// The entry, with the old UID.
    pub(crate) entry: Value,
}

/// One object of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// What becomes of it.
    pub action: Action,
    /// Which object, on the target.
    pub key: ObjectKey,
    /// Which object it is in the point, if the name differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<ObjectKey>,
    /// Why this action.
    pub reason: String,
    /// Before is the target now, after is the target then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    #[serde(skip)]
    pub(crate) method: Method,
    #[serde(skip)]
    pub(crate) resource: ResourceType,
    #[serde(skip)]
    pub(crate) desired: Object,
    /// As it is made, where that is more than what is compared: with the addresses it had, with a status that is a
    /// field. If the target refuses the addresses, it is made without.
    #[serde(skip)]
    pub(crate) made_as: Option<Object>,
    /// Written through the status subresource once it is made.
    #[serde(skip)]
    pub(crate) status: Option<Value>,
    #[serde(skip)]
    pub(crate) owners: Vec<OwnerLink>,
    /// UID of the object on the target, if it is there.
    #[serde(skip)]
    pub(crate) live_uid: String,
    /// Claims that have to hold their data before this is applied.
    #[serde(skip)]
    pub(crate) claims: Vec<ObjectKey>,
}

/// Objects applied side by side.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedWave {
    /// The class of their kinds, in a word.
    pub stage: String,
    /// The objects.
    pub steps: Vec<Step>,
    #[serde(skip)]
    pub(crate) order: Option<Order>,
}

/// What becomes of the data of one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeStep {
    /// The claim on the target.
    pub claim: ObjectKey,
    /// The claim in the point, if the name differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<ObjectKey>,
    /// Whether its data is written.
    pub restore: bool,
    /// How, or why not.
    pub reason: String,
    /// Bytes of its files in the point.
    pub bytes: u64,
    /// Number of its files in the point.
    pub files: u64,
    /// Manifest entry that holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    #[serde(skip)]
    pub(crate) existing: Existing,
    /// What is there is half of an earlier restore of ours.
    #[serde(skip)]
    pub(crate) resumes: bool,
    /// The volume this claim is bound to by name, if it is restored with it.
    #[serde(skip)]
    pub(crate) volume: Option<String>,
}

/// An object of the point that is no part of this restore.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Left {
    /// Which, in the point.
    pub key: ObjectKey,
    /// Why.
    pub reason: String,
}

/// How many steps of each action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PlanCounts {
    /// To be made.
    pub create: usize,
    /// To be changed.
    pub update: usize,
    /// To be deleted and made again.
    pub replace: usize,
    /// As they should be.
    pub unchanged: usize,
    /// Left as they are.
    pub skip: usize,
    /// In the way of the policy `fail`.
    pub conflict: usize,
    /// Claims whose data is written.
    pub volumes: usize,
}

/// What a restore would do. Reading it costs nothing, executing it takes an [`ApprovedPlan`].
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    /// The application.
    pub application: String,
    /// The cluster it goes to.
    pub target: ClusterInfo,
    /// What happens to objects that exist and differ.
    pub on_conflict: OnConflict,
    /// What changes on the way.
    pub mapping: Mapping,
    /// The objects, in the order they are applied.
    pub waves: Vec<PlannedWave>,
    /// The data.
    pub volumes: Vec<VolumeStep>,
    /// What is left out.
    pub left: Vec<Left>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
}

impl RestorePlan {
    /// All steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.waves.iter().flat_map(|wave| &wave.steps)
    }

    /// How many steps of each action.
    pub fn counts(&self) -> PlanCounts {
        let mut counts = PlanCounts::default();
        for step in self.steps() {
            *match step.action {
                Action::Create => &mut counts.create,
                Action::Update => &mut counts.update,
                Action::Replace => &mut counts.replace,
                Action::Unchanged => &mut counts.unchanged,
                Action::Skip => &mut counts.skip,
                Action::Conflict => &mut counts.conflict,
            } += 1;
        }
        counts.volumes = self.volumes.iter().filter(|volume| volume.restore).count();
        counts
    }

    /// Whether executing it would write anything.
    pub fn changes_anything(&self) -> bool {
        let counts = self.counts();
        counts.create + counts.update + counts.replace + counts.volumes > 0
    }

    /// Turns the plan into one that can be executed.
    ///
    /// # Errors
    /// If an object is in the way of the policy `fail`, or if something is destroyed without consent.
    pub fn approve(self, consent: &Consent) -> Result<ApprovedPlan, NotApproved> {
        let of = |action: Action| -> Vec<ObjectKey> {
            self.steps().filter(|step| step.action == action).map(|step| step.key.clone()).collect()
        };
        let conflicts = of(Action::Conflict);
        if !conflicts.is_empty() {
            return Err(NotApproved::Conflicts(conflicts));
        }
        let replaced = of(Action::Replace);
        if !replaced.is_empty() && !consent.replace {
            return Err(NotApproved::Replaces(replaced));
        }
        let overwritten: Vec<ObjectKey> = self
            .volumes
            .iter()
            .filter(|volume| volume.restore && volume.existing == Existing::Mirror && !volume.resumes)
            .map(|volume| volume.claim.clone())
            .collect();
        if !overwritten.is_empty() && !consent.overwrite_data {
            return Err(NotApproved::Overwrites(overwritten));
        }
        Ok(ApprovedPlan(self))
    }
}

/// What the user agreed to beyond the plan itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Consent {
    /// Objects may be deleted and made again.
    pub replace: bool,
    /// Data in claims may be overwritten.
    pub overwrite_data: bool,
}

/// Why a plan may not be executed. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// The policy is `fail`, and these differ.
    #[error(
        "{} on the target differ from the point and the conflict policy is fail, so nothing was restored: {}; \
         look at them with --plan, then choose skip, update or replace",
        count(.0.len(), "object"), some(.0)
    )]
    Conflicts(Vec<ObjectKey>),
    /// These would be deleted and made again.
    #[error(
        "{} would be deleted and made again: {}; nothing was restored. Add --yes if that is what you want",
        count(.0.len(), "object"), some(.0)
    )]
    Replaces(Vec<ObjectKey>),
    /// The data of these would be replaced by the point's.
    #[error(
        "the data in {} would be overwritten: {}; nothing was restored. Add --yes if that is what you want",
        count(.0.len(), "claim"), some(.0)
    )]
    Overwrites(Vec<ObjectKey>),
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// The first few names.
fn some(keys: &[ObjectKey]) -> String {
    let mut names: Vec<String> = keys.iter().take(5).map(ToString::to_string).collect();
    if keys.len() > names.len() {
        names.push(format!("and {} more", keys.len() - names.len()));
    }
    names.join(", ")
}

/// A plan somebody agreed to.
#[derive(Debug)]
pub struct ApprovedPlan(pub(crate) RestorePlan);

impl ApprovedPlan {
    /// The plan.
    pub fn plan(&self) -> &RestorePlan {
        &self.0
    }
}

/// How long a restore waits for the target, at most, each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For a namespace that is being deleted to be gone, and for a new one to be active.
    pub namespace: Duration,
    /// For a definition to be established and its kind to be served.
    pub definition: Duration,
    /// For an object that is replaced to be gone.
    pub gone: Duration,
    /// For a claim's volume to be reached: bound, and mounted if it has to be.
    pub bound: Duration,
    /// For a webhook that does not answer to do so, at the end.
    pub webhook: Duration,
    /// For everything to be ready, at the end; `None` does not wait.
    pub ready: Option<Duration>,
    /// Between two looks.
    pub step: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            namespace: Duration::from_secs(120),
            definition: Duration::from_secs(60),
            gone: Duration::from_secs(60),
            bound: Duration::from_secs(180),
            webhook: Duration::from_secs(60),
            ready: None,
            step: Duration::from_millis(250),
        }
    }
}

impl From<TransformError> for Error {
    fn from(error: TransformError) -> Error {
        Error::Invalid(error.to_string())
    }
}

impl From<OnlyError> for Error {
    fn from(error: OnlyError) -> Error {
        Error::NotFound(error.to_string())
    }
}

/// Nothing of a point was selected.
pub(crate) fn nothing_selected(only: &Only) -> Error {
    Error::NotFound(format!("nothing in the point matches {only}; `show` lists what it holds"))
}

/// A stage in a word.
pub(crate) fn stage_name(order: Order) -> String {
    format!("{order:?}").to_lowercase()
}
