//! A plan on paper: approved by somebody who read it, executed later, once.
//!
//! The paper is the plan as `--plan -o json` prints it, with an approval beside it: which point, which options, and a digest of
//! all that each step would do, contents included. Executing plans anew, by the same code and from the same point and options,
//! and goes on only if every step is what it was: so whatever changed on the target in between is noticed exactly
//! if it matters. The digests are keyed by the repository, since a digest of a Secret that anybody could make would give it
//! away; and they hold the readable part, too, so that what was read is what is done.
//!
//! A plan that ran leaves a Lease on the target, made before anything else: the second run of the same paper finds it.

use std::collections::BTreeMap;

use repo::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ClusterScoped, Data, OnConflict, Only, OwnerLink, RestoreOptions, RestorePlan, Step};
use crate::api::{ApiError, Cluster};
use crate::error::Error;
use crate::object::{Object, ObjectKey};
use crate::selector::Selector;
use crate::transform::Mapping;

/// The layout of the approval.
const FORMAT: u32 = 1;
/// A plan older than this is not executed: who approved it thought of another day.
const DAYS_MAX: i64 = 7;
/// Where the Lease of a plan that ran lies.
const NAMESPACE: &str = "default";
/// On those Leases.
const LABEL: &str = "holdfast.dev/plan";

/// Makes keyed digests; see [`repo::Repository::digest`].
pub type Digest<'a> = &'a dyn Fn(&[u8]) -> Result<String, repo::Error>;

/// What binds a paper to what was planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    format: u32,
    /// Digest of the whole paper without this line.
    #[serde(default)]
    id: String,
    /// The recovery point, by its full id.
    point: String,
    /// When it was planned, RFC 3339.
    made: String,
    options: Options,
    /// Of each step, what it would do.
    steps: BTreeMap<String, String>,
    /// Of the data.
    volumes: String,
}

/// [`RestoreOptions`] as they are written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    mapping: Mapping,
    on_conflict: OnConflict,
    cluster_scoped: ClusterScoped,
    status: Vec<String>,
    data: Data,
    namespaces: Vec<String>,
    kinds: Vec<String>,
    names: Vec<String>,
    labels: String,
}

/// Why a paper is not executed. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum PaperError {
    /// It is no plan, or of another release.
    #[error("this is no restore plan: {0}; make one with `restore POINT --plan -o json`")]
    Malformed(String),
    /// Somebody changed it, or it was made with another repository.
    #[error(
        "the plan was changed after it was made, or belongs to another repository; make a new one and approve that"
    )]
    Forged,
    /// Its time is over.
    #[error("the plan was made at {0} and is older than {DAYS_MAX} days; make a new one and approve that")]
    Old(String),
    /// It is for another cluster.
    #[error("the plan is for the cluster {planned}, and this is {here}; choose the right one with --context")]
    OtherCluster {
        /// The one it was made for.
        planned: String,
        /// The one that is reached.
        here: String,
    },
    /// It would no longer do what was approved.
    #[error(
        "the target has changed since the plan was approved: {}; nothing was restored. Make a new plan and approve that",
        .0.join("; ")
    )]
    Changed(Vec<String>),
    /// It ran.
    #[error("this plan was executed already, at {0}; a plan runs once. Make a new one for what is left")]
    Ran(String),
    /// Whether it ran cannot be found out.
    #[error(
        "whether this plan ran already cannot be noted on the target: {0}; it takes the right to create leases in the namespace {NAMESPACE}"
    )]
    NoLease(ApiError),
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// A plan that was read from a file.
#[derive(Debug, Clone)]
pub struct Paper {
    approval: Approval,
    cluster: String,
}

/// The plan as a document that can be approved and executed later.
///
/// # Errors
/// If the key of the repository makes no digests.
pub fn on_paper(
    plan: &RestorePlan,
    point: &str,
    options: &RestoreOptions,
    now: Timestamp,
    digest: Digest<'_>,
) -> Result<Value, Error> {
    let mut approval = Approval {
        format: FORMAT,
        id: String::new(),
        point: point.to_owned(),
        made: time(now),
        options: Options {
            mapping: options.transform.mapping().clone(),
            on_conflict: options.on_conflict,
            cluster_scoped: options.cluster_scoped,
            status: options.status.clone(),
            data: options.data,
            namespaces: options.only.namespaces.clone(),
            kinds: options.only.kinds.clone(),
            names: options.only.names.clone(),
            labels: options.only.labels.to_string(),
        },
        steps: steps(plan, digest)?,
        volumes: volumes(plan, digest)?,
    };
    let mut whole = value(plan)?;
    whole["approval"] = value(&approval)?;
    approval.id = of_whole(&whole, digest)?;
    whole["approval"]["id"] = approval.id.into();
    Ok(whole)
}

impl Paper {
    /// Reads a plan and proves that it is as it was made.
    ///
    /// # Errors
    /// If it is none, was changed, or is too old.
    pub fn read(text: &str, now: Timestamp, digest: Digest<'_>) -> Result<Paper, PaperError> {
        let whole: Value = serde_json::from_str(text).map_err(|e| PaperError::Malformed(e.to_string()))?;
        let Some(approval) = whole.get("approval") else {
            return Err(PaperError::Malformed("it has no approval in it".into()));
        };
        match approval.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                return Err(PaperError::Malformed(format!(
                    "it is of format {format}, this release knows {FORMAT}"
                )));
            }
            None => return Err(PaperError::Malformed("its approval has no format".into())),
        }
        let approval: Approval =
            serde_json::from_value(approval.clone()).map_err(|e| PaperError::Malformed(e.to_string()))?;
        if of_whole(&whole, digest)? != approval.id {
            return Err(PaperError::Forged);
        }
        let made: jiff::Timestamp = approval.made.parse().map_err(|_| PaperError::Forged)?;
        let age = (now / 1_000_000_000).saturating_sub(made.as_second());
        if age > DAYS_MAX * 24 * 3600 {
            return Err(PaperError::Old(approval.made));
        }
        let cluster = whole.pointer("/target/id").and_then(Value::as_str).unwrap_or("").to_owned();
        Ok(Paper { approval, cluster })
    }

    /// The recovery point it is for.
    pub fn point(&self) -> &str {
        &self.approval.point
    }

    /// What was asked for when it was made.
    ///
    /// # Errors
    /// If this release does not take what that one took.
    pub fn options(&self) -> Result<RestoreOptions, PaperError> {
        let options = &self.approval.options;
        let labels = Selector::parse(&options.labels).map_err(PaperError::Malformed)?;
        Ok(RestoreOptions {
            transform: options.mapping.clone().check().map_err(|e| PaperError::Malformed(e.to_string()))?,
            on_conflict: options.on_conflict,
            cluster_scoped: options.cluster_scoped,
            status: options.status.clone(),
            only: Only {
                namespaces: options.namespaces.clone(),
                kinds: options.kinds.clone(),
                names: options.names.clone(),
                labels,
            },
            data: options.data,
            ..RestoreOptions::default()
        })
    }

    /// Whether the plan made anew would do exactly what was approved.
    ///
    /// # Errors
    /// If it would not, with what is different.
    pub fn fits(&self, plan: &RestorePlan, digest: Digest<'_>) -> Result<(), PaperError> {
        if plan.target.id != self.cluster {
            return Err(PaperError::OtherCluster {
                planned: self.cluster.clone(),
                here: plan.target.id.clone(),
            });
        }
        let now = steps(plan, digest)?;
        let mut changed: Vec<String> = Vec::new();
        for (key, was) in &self.approval.steps {
            match now.get(key) {
                None => changed.push(format!("{key} is no step any more")),
                Some(is) if is != was => changed.push(match (was.split(' ').next(), is.split(' ').next()) {
                    (Some(was), Some(is)) if was != is => format!("{key} was {was} and is {is} now"),
                    (Some(was), _) => format!("{key} is another {was} now"),
                    _ => key.clone(),
                }),
                Some(_) => {}
            }
        }
        changed.extend(
            now.keys()
                .filter(|key| !self.approval.steps.contains_key(*key))
                .map(|key| format!("{key} is new")),
        );
        if volumes(plan, digest)? != self.approval.volumes {
            changed.push("what becomes of the data".into());
        }
        const NAMED_MAX: usize = 8;
        if changed.len() > NAMED_MAX {
            let more = changed.len() - NAMED_MAX;
            changed.truncate(NAMED_MAX);
            changed.push(format!("and {more} more"));
        }
        if changed.is_empty() { Ok(()) } else { Err(PaperError::Changed(changed)) }
    }

    /// Notes on the target that this plan runs now: whoever comes second is refused. Before anything is changed.
    ///
    /// # Errors
    /// If it ran already, or that cannot be noted.
    pub async fn claim(&self, cluster: &Cluster, now: Timestamp) -> Result<(), PaperError> {
        let name = format!("holdfast-plan-{}", self.approval.id.get(..32).unwrap_or(&self.approval.id));
        let Some(resource) = cluster.resources.find("coordination.k8s.io", "Lease") else {
            let message = "it serves no leases".to_owned();
            return Err(PaperError::NoLease(ApiError::Invalid { what: name, message }));
        };
        let made = time(now);
        // Leases want microseconds.
        let micro =
            made.split_once('.').map_or(made.trim_end_matches('Z'), |(seconds, _)| seconds).to_owned()
                + ".000000Z";
        let lease = Object(json!({
            "apiVersion": resource.api_version(), "kind": "Lease",
            "metadata": {"namespace": NAMESPACE, "name": name, "labels": {LABEL: "executed"}},
            "spec": {"holderIdentity": format!("restore of {}", self.approval.point), "acquireTime": micro},
        }));
        match cluster.create(resource, &lease, false).await {
            Ok(_) => Ok(()),
            Err(ApiError::Conflict { .. }) => {
                let there = cluster.get(resource, NAMESPACE, &name).await.ok().flatten();
                let when = there.map(|lease| lease.str("/spec/acquireTime").to_owned()).unwrap_or_default();
                Err(PaperError::Ran(when))
            }
            Err(error @ ApiError::Unreachable { .. }) => Err(PaperError::Failed(error.into())),
            Err(error) => Err(PaperError::NoLease(error)),
        }
    }
}

fn time(now: Timestamp) -> String {
    jiff::Timestamp::from_second(now / 1_000_000_000).map(|time| time.to_string()).unwrap_or_default()
}

fn value(what: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(what).map_err(|e| Error::Invalid(e.to_string()))
}

fn digested(what: &Value, digest: Digest<'_>) -> Result<String, Error> {
    Ok(digest(sorted(what).to_string().as_bytes())?)
}

/// Of the paper without its own id.
fn of_whole(whole: &Value, digest: Digest<'_>) -> Result<String, Error> {
    let mut whole = whole.clone();
    if let Some(Value::Object(approval)) = whole.get_mut("approval") {
        approval.shift_remove("id");
    }
    digested(&whole, digest)
}

/// The same value with the members of objects in order: people reformat files.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<&String, Value> =
                fields.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// `apps/Deployment shop/web`: with the group, since kinds of two groups may share a name.
fn title(key: &ObjectKey) -> String {
    if key.group.is_empty() { key.to_string() } else { format!("{}/{key}", key.group) }
}

/// Of every step its action and the digest of all it would do.
fn steps(plan: &RestorePlan, digest: Digest<'_>) -> Result<BTreeMap<String, String>, Error> {
    plan.steps()
        .map(|step| {
            let action = value(&step.action)?;
            let whole = digested(&everything(step), digest)?;
            Ok((title(&step.key), format!("{} {whole}", action.as_str().unwrap_or(""))))
        })
        .collect()
}

/// All that decides what a step does. Not its reason: servers word those as they like.
fn everything(step: &Step) -> Value {
    let owners: Vec<Value> =
        step.owners.iter().map(|OwnerLink { key, entry }| json!([title(key), entry])).collect();
    json!({
        "was": step.was.as_ref().map(title),
        "method": format!("{:?}", step.method),
        "resource": step.resource.path(None),
        "desired": step.desired.0,
        "made_as": step.made_as.as_ref().map(|object| &object.0),
        "status": step.status,
        "owners": owners,
        "live_uid": step.live_uid,
        "claims": step.claims.iter().map(title).collect::<Vec<_>>(),
        "changes": step.changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn volumes(plan: &RestorePlan, digest: Digest<'_>) -> Result<String, Error> {
    let all: Vec<Value> = plan
        .volumes
        .iter()
        .map(|volume| {
            json!([
                title(&volume.claim),
                volume.restore,
                volume.entry,
                format!("{:?}", volume.existing),
                volume.resumes,
                volume.volume
            ])
        })
        .collect();
    digested(&all.into(), digest)
}
