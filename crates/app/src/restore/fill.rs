//! Data into claims: after the claims are there, before anything that mounts them.
//!
//! A claim carries an annotation until all its data is in, so a restore that is interrupted is seen by the
//! next one, and nobody takes a half written volume for a whole one. It says whether what is there is known
//! to be ours (`partial`: the next restore starts it over) or not (`waiting`: it is written only if empty).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use futures::StreamExt;
use repo::{Finding, Progress, Reader, Root, Severity};
use serde_json::{Value, json};

use super::decide::{PARTIAL, RESTORING};
use super::execute::{DataSource, Run};
use super::holder::Held;
use super::prepare::{Namespaced, core};
use super::{Report, VolumeResult, VolumeStep};
use crate::api::ResourceType;
use crate::object::{Object, ObjectKey};
use crate::volumes::{Existing, Located, VolumeError, VolumeRestored, Volumes};

/// Volumes written side by side. Each has its own threads inside; more would only seek.
const VOLUMES_AT_ONCE: usize = 2;

/// What was written and where to, nothing if nothing was to be written, or why it failed.
type Filled = (Result<Option<(VolumeRestored, String)>, String>, Vec<Finding>);

/// A copy that did not come to its end.
struct Broken {
    why: String,
    /// Something was written: what is there is ours from now on.
    touched: bool,
    findings: Vec<Finding>,
}

/// Passes progress on, and notices the first byte. Whoever writes looks first whether it may; so before the
/// first byte what is there may be somebody else's, and after it, it is ours.
struct Watch {
    inner: Arc<dyn Progress + Send + Sync>,
    touched: AtomicBool,
}

impl Progress for Watch {
    fn add(&self, files: u64, bytes: u64) {
        if files + bytes > 0 {
            self.touched.store(true, Ordering::Relaxed);
        }
        self.inner.add(files, bytes);
    }

    fn total(&self, files: u64, bytes: u64) {
        self.inner.total(files, bytes);
    }

    fn note(&self, text: &str) {
        self.inner.note(text);
    }
}

impl Run<'_> {
    /// Writes the data of every claim of the plan.
    pub(super) async fn fill(&self, volumes: Vec<VolumeStep>, report: &mut Report) {
        let roots = &self.roots(volumes.iter().any(|volume| volume.restore)).await;
        let mut work = futures::stream::iter(volumes)
            .map(|step| async move {
                let start = self.executor.env.now();
                let (result, findings) = self.fill_one(&step, roots).await;
                (step, result, findings, self.executor.since(start))
            })
            .buffer_unordered(VOLUMES_AT_ONCE);
        let mut results = Vec::new();
        while let Some((step, result, mut findings, milliseconds)) = work.next().await {
            report.findings.append(&mut findings);
            let mut row = VolumeResult {
                claim: step.claim.clone(),
                restored: false,
                bytes: 0,
                files: 0,
                message: String::new(),
                milliseconds,
            };
            match result {
                Ok(Some((done, how))) => {
                    row = VolumeResult {
                        restored: true,
                        bytes: done.bytes,
                        files: done.files,
                        message: how,
                        ..row
                    };
                }
                Ok(None) => row.message = step.reason,
                Err(why) => {
                    self.empty.lock().unwrap_or_else(PoisonError::into_inner).insert(step.claim.clone());
                    report.findings.push(Finding::error(
                        "data-not-restored",
                        step.claim.to_string(),
                        why.clone(),
                    ));
                    row.message = why;
                }
            }
            results.push(row);
        }
        results.sort_by(|a, b| a.claim.cmp(&b.claim));
        report.volumes.append(&mut results);
    }

    /// Where each volume is in the repository, or why that cannot be read.
    async fn roots(&self, wanted: bool) -> Result<BTreeMap<String, Root>, String> {
        let Some(DataSource { reader, commit, .. }) = self.executor.data.clone().filter(|_| wanted) else {
            return Err("nobody was given who could write volumes".into());
        };
        let manifest = tokio::task::spawn_blocking(move || reader.manifest(&commit)).await;
        match manifest {
            Ok(Ok(entries)) => Ok(entries.into_iter().map(|entry| (entry.name, entry.root)).collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn fill_one(&self, step: &VolumeStep, roots: &Result<BTreeMap<String, Root>, String>) -> Filled {
        let (true, Some(entry)) = (step.restore, &step.entry) else { return (Ok(None), Vec::new()) };
        let roots = match roots {
            Ok(roots) => roots,
            Err(why) => return (Err(why.clone()), Vec::new()),
        };
        let Some(root) = roots.get(entry).copied() else {
            return (Err(format!("the point names {entry} and does not have it")), Vec::new());
        };
        let Some(DataSource { reader, volumes, .. }) = self.executor.data.clone() else {
            return (Err("nobody was given who could write volumes".into()), Vec::new());
        };
        if self.executor.cancel.is_cancelled() {
            return (Err("stopped before its turn".into()), Vec::new());
        }
        let mut held = None;
        let mut filled = match self.reach(step, &volumes, &mut held).await {
            Ok(located) => self.fill_reached(step, reader, volumes, root, located).await,
            Err(why) => (Err(why), Vec::new()),
        };
        if let Some(held) = held
            && let Err(why) = held.release().await
        {
            filled.1.push(Finding::warning("still-held", step.claim.to_string(), why));
        }
        filled
    }

    async fn fill_reached(
        &self,
        step: &VolumeStep,
        reader: Arc<Reader>,
        volumes: Arc<dyn Volumes>,
        root: Root,
        located: Located,
    ) -> Filled {
        self.executor.progress.note(&format!("data of {} into {}", step.claim, located.how));
        let how = located.how.clone();
        match self.copy(reader, volumes, root, located, step).await {
            Ok((done, findings)) => match self.mark(step, None).await {
                Ok(()) => (Ok(Some((done, how))), findings),
                Err(why) => {
                    (Err(format!("its data is in, but the claim could not be told: {why}")), findings)
                }
            },
            Err(Broken { why, touched, mut findings }) => {
                if touched && let Err(error) = self.mark(step, Some(PARTIAL)).await {
                    findings.push(Finding::warning(
                        "not-marked",
                        step.claim.to_string(),
                        format!(
                            "part of its data is written, but the claim could not be told ({error}); choose to \
                             overwrite data at the next restore"
                        ),
                    ));
                }
                (Err(why), findings)
            }
        }
    }

    /// Where the claim's bytes go. If that cannot be said yet, waits for the claim to be bound; if it cannot be
    /// said without a pod that mounts it, starts one that does nothing else, and gives it back to be ended.
    async fn reach<'b>(
        &'b self,
        step: &VolumeStep,
        volumes: &Arc<dyn Volumes>,
        held: &mut Option<Held<'b>>,
    ) -> Result<Located, String> {
        let mut why = String::new();
        let mut told = String::new();
        let limit = self.executor.deadlines.bound;
        let pauses = limit.as_millis().div_ceil(self.executor.deadlines.step.as_millis().max(1));
        for _ in 0..=pauses {
            let (claim, volume) = self.claim_and_volume(step).await?;
            let pod = match &held {
                Some(held) => held.running().await,
                None => None,
            };
            let is_bound = !volume.is_null();
            let is_directory = volume.pointer("/spec/hostPath").is_some();
            let is_new = step.existing == Existing::Refuse;
            let volumes = volumes.clone();
            let look = move || {
                if is_new && !volume.is_null() {
                    volumes.prepare(&volume, &claim)?;
                }
                volumes.locate(&volume, &claim, pod.as_slice())
            };
            match tokio::task::spawn_blocking(look).await {
                Ok(Ok(located)) => return Ok(located),
                Ok(Err(reason)) => why = reason,
                Err(error) => return Err(error.to_string()),
            }
            if self.executor.cancel.is_cancelled() {
                return Err("stopped while waiting for its volume".into());
            }
            // A directory of the node is there or not, and no pod changes that; an unbound claim may yet be bound.
            if is_directory || (is_bound && self.executor.holder.is_none()) {
                return Err(why);
            }
            if held.is_none()
                && let Some(holder) = &self.executor.holder
            {
                *held = Some(self.hold(holder, &step.claim).await.map_err(|e| format!("{why}; {e}"))?);
            }
            self.executor.tell_once(&mut told, format!("waiting for the volume of {}: {why}", step.claim));
            tokio::time::sleep(self.executor.deadlines.step).await;
        }
        let trouble = match &held {
            Some(held) => format!("; {}", held.trouble().await),
            None => String::new(),
        };
        Err(format!("its volume could not be reached within {} s: {why}{trouble}", limit.as_secs()))
    }

    /// The claim as it is now, and its volume, or null while it has none.
    async fn claim_and_volume(&self, step: &VolumeStep) -> Result<(Value, Value), String> {
        let get = async |resource: &ResourceType, namespace: &str, name: &str| {
            self.executor.cluster.get(resource, namespace, name).await.map_err(|e| e.to_string())
        };
        let claim = get(&claim_type(), &step.claim.namespace, &step.claim.name)
            .await?
            .ok_or_else(|| "the claim was not restored".to_owned())?;
        let name = match claim.str("/spec/volumeName") {
            "" => step.volume.as_deref().unwrap_or(""),
            name => name,
        };
        if name.is_empty() {
            return Ok((claim.0, Value::Null));
        }
        let volume = get(&core("PersistentVolume", "persistentvolumes", Namespaced::No), "", name).await?;
        let owner = volume.as_ref().map(super::volumes::claim_of).unwrap_or_default();
        if !owner.name.is_empty() && owner != step.claim {
            return Err(format!("PersistentVolume {name} belongs to {owner}, so nothing is written to it"));
        }
        Ok((claim.0, volume.unwrap_or(Object(Value::Null)).0))
    }

    async fn copy(
        &self,
        reader: Arc<Reader>,
        volumes: Arc<dyn Volumes>,
        root: Root,
        located: Located,
        step: &VolumeStep,
    ) -> Result<(VolumeRestored, Vec<Finding>), Broken> {
        let existing = step.existing;
        let cancel = self.executor.cancel.clone();
        let watch =
            Arc::new(Watch { inner: self.executor.progress.clone(), touched: AtomicBool::new(false) });
        let watched = watch.clone();
        let outcome = tokio::task::spawn_blocking(move || {
            volumes.restore(&reader, &root, &located, existing, &cancel, &*watched)
        })
        .await;
        let broken = |why: String, findings: Vec<Finding>| {
            Err(Broken { why, touched: watch.touched.load(Ordering::Relaxed), findings })
        };
        let damaged = |why: &str| Finding::error("damaged", step.claim.to_string(), why);
        match outcome {
            Ok(Ok(outcome)) => {
                // Files that could not be read from the repository are not there: the volume is not whole.
                let lost = outcome.findings.iter().filter(|f| f.severity == Severity::Error).count();
                if lost == 0 {
                    return Ok((outcome.done, outcome.findings));
                }
                let why = format!(
                    "{lost} of its files or lists of files could not be restored (see the findings), so nothing is \
                     started on it; to start on what is there, restore once more without data"
                );
                let mut findings = outcome.findings;
                findings.push(damaged(&why));
                broken(why, findings)
            }
            Ok(Err(VolumeError::NotEmpty(why))) => broken(
                format!("{why}; nothing was written. Choose to overwrite data if that is what you want"),
                Vec::new(),
            ),
            Ok(Err(error)) => {
                let why = error.to_string();
                let findings = match error {
                    VolumeError::Repository(repo::Error::Damaged { .. } | repo::Error::Missing { .. }) => {
                        vec![damaged(&why)]
                    }
                    _ => Vec::new(),
                };
                broken(why, findings)
            }
            Err(error) => broken(format!("the copy ended by itself: {error}"), Vec::new()),
        }
    }

    /// Says on the claim how far its data is.
    async fn mark(&self, step: &VolumeStep, state: Option<&str>) -> Result<(), String> {
        let patch = json!({"metadata": {"annotations": {RESTORING: state}}});
        let ObjectKey { namespace, name, .. } = &step.claim;
        let done = self.executor.cluster.merge_patch(&claim_type(), namespace, name, None, &patch).await;
        done.map(|_| ()).map_err(|e| e.to_string())
    }
}

fn claim_type() -> ResourceType {
    core("PersistentVolumeClaim", "persistentvolumeclaims", Namespaced::Yes)
}
