//! Backup: from a running application to one recovery point.
//!
//! Plan first ([`plan`], which `--dry-run` prints), then do ([`BackupPlan::execute`]): read ahead, lock, **cut**
//! (volumes and objects at the same time), release, certify, commit. One commit holds everything (promise P1).
//!
//! Reading ahead: volumes that will be held are read once before the lock, so that under it only what changed
//! since is new and the application stands still for a moment, not for the length of a copy.
//!
//! What cannot be read is a finding and is missing in the certificate; the rest is protected. Only a repository
//! that fails, a cluster that is gone, a rule that must succeed and does not, or the stop button end a backup,
//! and then nothing is committed.

mod cut;
mod execute;
mod level;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use repo::{Cancel, CommitInfo, Env, Finding, Progress, Repository, WriterOptions};
use serde::Serialize;
use serde_json::Value;

use crate::api::Cluster;
use crate::certificate::{Certificate, Note, VolumeState};
use crate::error::Error;
use crate::object::{Object, ObjectKey};
use crate::point::{PointMeta, Restore, Role, VolumeRecord};
use crate::rules::plan::{RulePlan, Task, runs};
use crate::rules::{Hands, Rule};
use crate::select::{self, Selected, Selection};
use crate::volumes::{Located, Volumes};

/// What a backup works with.
#[derive(Clone)]
pub struct Means {
    /// Where the point goes.
    pub repository: Repository,
    /// Reaches the bytes of claims.
    pub volumes: Arc<dyn Volumes>,
    /// Runs commands in pods.
    pub hands: Arc<dyn Hands>,
    /// Clock and dice.
    pub env: Env,
    /// The stop button.
    pub cancel: Cancel,
    /// Who watches.
    pub progress: Arc<dyn Progress + Send + Sync>,
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").field("repository", &self.repository.url()).finish_non_exhaustive()
    }
}

/// How a backup is done.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// What is backed up.
    pub selection: Selection,
    /// What is run in the pods around the cut.
    pub rules: Vec<Rule>,
    /// Honour Velero's hook annotations on pods.
    pub pod_hooks: bool,
    /// How long a lock is held at most, where its rule does not say.
    pub hold: Option<Duration>,
    /// Trust what did not change since the previous point of the same volume.
    pub incremental: bool,
    /// Read volumes once before they are held.
    pub read_ahead: bool,
    /// Volumes read side by side; each has its own threads inside.
    pub volumes_at_once: usize,
    /// Take no point that would be incomplete.
    pub require_complete: bool,
    /// The release that writes the point.
    pub version: String,
    /// How the repository is written.
    pub writer: WriterOptions,
}

impl Default for BackupOptions {
    fn default() -> BackupOptions {
        BackupOptions {
            selection: Selection::default(),
            rules: Vec::new(),
            pod_hooks: true,
            hold: None,
            incremental: true,
            read_ahead: true,
            volumes_at_once: 4,
            require_complete: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            writer: WriterOptions::default(),
        }
    }
}

/// A claim whose data will be read, or the reason why not.
#[derive(Clone, Debug)]
pub struct PlannedVolume {
    /// The claim.
    pub key: ObjectKey,
    /// Name of its PersistentVolume; empty if it is not bound.
    pub volume: String,
    /// Member or shared.
    pub role: Role,
    /// Where its bytes are, or why they cannot be reached.
    pub located: Result<Located, String>,
    /// Running pods that mount it, as (namespace, name).
    pub pods: Vec<(String, String)>,
    /// It is waiting for its first pod: there are no bytes.
    pub is_unbound: bool,
}

/// What a backup will do.
#[derive(Debug)]
pub struct BackupPlan {
    pub(crate) cluster: Cluster,
    pub(crate) cluster_id: String,
    pub(crate) started: repo::Timestamp,
    /// Everything that goes into the point.
    pub selected: Selected,
    /// What is run in which pods.
    pub rules: RulePlan,
    /// The claims.
    pub volumes: Vec<PlannedVolume>,
    /// The previous point of the same application and cluster.
    pub parent: Option<CommitInfo>,
    /// What was found while planning.
    pub findings: Vec<Finding>,
}

/// A plan for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct PlanSummary {
    /// Name of the application.
    pub application: String,
    /// Its namespaces.
    pub namespaces: Vec<String>,
    /// What will be stored, as (object, role, restored how).
    pub objects: Vec<(String, Role, Restore)>,
    /// Claims: name, and how they are reached or why not.
    pub volumes: Vec<(String, String)>,
    /// What is run before the cut, and after it.
    pub before: Vec<String>,
    /// What is run after the cut.
    pub after: Vec<String>,
    /// References that dangle.
    pub missing: Vec<String>,
    /// What was found.
    pub findings: Vec<Note>,
    /// The point it builds on.
    pub parent: Option<String>,
}

/// A finished backup.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// The commit.
    pub info: CommitInfo,
    /// What the point is.
    pub meta: PointMeta,
    /// Its account of completeness, all findings included.
    pub certificate: Certificate,
    /// Its volumes.
    pub volumes: Vec<VolumeRecord>,
    /// Objects stored.
    pub objects: usize,
}

/// Plans and does it.
pub async fn run(cluster: &Cluster, means: &Means, options: &BackupOptions) -> Result<BackupReport, Error> {
    plan(cluster, means, options).await?.execute(means, options).await
}

/// Reads the cluster and decides what a backup will do. Changes nothing.
pub async fn plan(cluster: &Cluster, means: &Means, options: &BackupOptions) -> Result<BackupPlan, Error> {
    let started = means.env.now();
    let mut selected = select::select(cluster, &options.selection).await?;
    let cluster_id = cluster.id().await?;
    let pods: Vec<Object> =
        selected.objects.iter().filter(|(k, _)| k.is("", "Pod")).map(|(_, p)| p.seen.object.open()).collect();
    let mut rules = crate::rules::plan::plan(&options.rules, &pods, options.hold);
    if options.pod_hooks {
        crate::rules::velero::add(&mut rules, &pods);
    }
    let volumes = volumes(&selected, &pods, means).await?;
    let mut findings = std::mem::take(&mut selected.findings);
    findings.append(&mut rules.findings);
    findings.extend(select::unprotected(&selected));
    let (parent, mut found) = parent(means, &selected.name, &cluster_id).await?;
    findings.append(&mut found);
    Ok(BackupPlan {
        cluster: cluster.clone(),
        cluster_id,
        started,
        selected,
        rules,
        volumes,
        parent,
        findings,
    })
}

impl BackupPlan {
    /// What a point would lack as far as can be told before any data is read, in words.
    pub fn gaps(&self) -> Vec<String> {
        let volumes = self.volumes.iter().filter(|v| !v.is_unbound).filter_map(|v| {
            Some(VolumeState {
                namespace: v.key.namespace.clone(),
                claim: v.key.name.clone(),
                consistency: None,
                missing: Some(v.located.clone().err()?),
            })
        });
        let notes = self.findings.iter().map(Note::from).collect();
        Certificate::new(self.selected.references.clone(), volumes.collect(), notes).gaps()
    }

    /// What it will do, in words.
    pub fn summary(&self) -> PlanSummary {
        let missing =
            self.selected.references.iter().filter(|r| r.state == crate::certificate::State::Missing);
        PlanSummary {
            application: self.selected.name.clone(),
            namespaces: self.selected.namespaces.iter().cloned().collect(),
            objects: self.selected.objects.iter().map(|(k, p)| (k.to_string(), p.role, p.restore)).collect(),
            volumes: self.volumes.iter().map(|v| (v.key.to_string(), v.words())).collect(),
            before: self.rules.before.iter().map(Task::describe).collect(),
            after: self.rules.after.iter().map(Task::describe).collect(),
            missing: missing.map(|r| format!("{} of {} at {}: {}", r.to, r.from, r.at, r.reason)).collect(),
            findings: self.findings.iter().map(Note::from).collect(),
            parent: self.parent.as_ref().map(|p| p.id.to_string()),
        }
    }
}

impl PlannedVolume {
    fn words(&self) -> String {
        match &self.located {
            _ if self.is_unbound => "not bound yet: there is no data".into(),
            Ok(located) => located.how.clone(),
            Err(why) => format!("out of reach: {why}"),
        }
    }
}

/// Finds where every claim's bytes are.
async fn volumes(selected: &Selected, pods: &[Object], means: &Means) -> Result<Vec<PlannedVolume>, Error> {
    let mut planned = Vec::new();
    let pods = mounting(pods);
    for (key, picked) in selected.claims() {
        let claim = picked.seen.object.open();
        let volume = claim.str("/spec/volumeName").to_owned();
        let pv = selected.objects.get(&ObjectKey::new("", "PersistentVolume", "", &volume));
        let pv = pv.map_or(Value::Null, |p| p.seen.object.open().0);
        let mounting = pods.get(&(key.namespace.as_str(), key.name.as_str())).map_or(&[][..], Vec::as_slice);
        let is_unbound = volume.is_empty() && claim.str("/status/phase") != "Lost";
        planned.push((
            PlannedVolume {
                key: key.clone(),
                volume,
                role: picked.role,
                located: Err("it is not bound to a volume".into()),
                pods: mounting.iter().map(|p| (p.namespace().to_owned(), p.name().to_owned())).collect(),
                is_unbound,
            },
            pv,
            claim.0,
            mounting.iter().map(|p| p.0.clone()).collect::<Vec<_>>(),
        ));
    }
    let volumes = means.volumes.clone();
    // Locating may look at directories, which a dead network share makes slow.
    blocking(move || {
        planned
            .into_iter()
            .map(|(mut planned, pv, pvc, pods)| {
                if !planned.volume.is_empty() {
                    planned.located = volumes.locate(&pv, &pvc, &pods);
                }
                planned
            })
            .collect()
    })
    .await
}

/// Claims by namespace and name, with the running pods that mount them.
pub(crate) fn mounting<'p>(
    pods: impl IntoIterator<Item = &'p Object>,
) -> BTreeMap<(&'p str, &'p str), Vec<&'p Object>> {
    let mut mounting: BTreeMap<(&str, &str), Vec<&Object>> = BTreeMap::new();
    for pod in pods.into_iter().filter(|pod| runs(pod)) {
        let volumes = pod.at("/spec/volumes").and_then(Value::as_array);
        let claims = volumes
            .into_iter()
            .flatten()
            .filter_map(|v| v.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str));
        for claim in claims.collect::<BTreeSet<_>>() {
            mounting.entry((pod.namespace(), claim)).or_default().push(pod);
        }
    }
    mounting
}

/// The last point of the same application on the same cluster.
async fn parent(
    means: &Means,
    application: &str,
    cluster_id: &str,
) -> Result<(Option<CommitInfo>, Vec<Finding>), Error> {
    // Where we do not know which cluster this is, nothing tells its volumes from those of another one.
    if cluster_id.is_empty() {
        let message = "the namespace kube-system cannot be read, so the cluster has no identity and volumes are read in full";
        return Ok((None, vec![Finding::note("cluster-unknown", "cluster", message)]));
    }
    let (repository, application, cluster_id) =
        (means.repository.clone(), application.to_owned(), cluster_id.to_owned());
    if repository.capability() < repo::Capability::List {
        return Ok((None, Vec::new()));
    }
    let points = blocking(move || crate::point::points(&repository, Some(&application))).await??;
    let newest =
        points.done.into_iter().rfind(|info| info.summary.labels.get("cluster") == Some(&cluster_id));
    Ok((newest, points.findings))
}

/// Runs what blocks away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let failed = |e| Error::Repository(repo::Error::failed(format!("a worker thread ended early: {e}")));
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

/// A repository's error as ours: the stop button is the stop button wherever it was noticed.
pub(crate) fn from_repo(error: repo::Error) -> Error {
    match error {
        repo::Error::Cancelled => Error::Cancelled,
        other => Error::Repository(other),
    }
}

/// Previous states of volumes, by claim.
pub(crate) type PreviousVolumes = BTreeMap<(String, String), (String, crate::volumes::Previous)>;

/// What of the last point saves work.
#[derive(Debug, Default)]
pub(crate) struct PreviousPoint {
    /// Its volumes.
    pub volumes: PreviousVolumes,
    /// Its documents.
    pub documents: crate::captured::Before,
}
