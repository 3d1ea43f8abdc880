//! Doing what was planned: read ahead, hold, cut, release, certify, commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use repo::{Finding, ManifestEntry, ReaderOptions, Timestamp, Writer};

use super::cut::{ReadVolume, Reading, read_volumes};
use super::level::Held;
use super::{
    BackupOptions, BackupPlan, BackupReport, Means, PlannedVolume, PreviousPoint, PreviousVolumes, blocking,
    from_repo, mounting,
};
use crate::captured::{self, Before, Captured};
use crate::certificate::{Certificate, Note, VolumeState};
use crate::collect::collect;
use crate::error::Error;
use crate::object::{Object, ObjectKey};
use crate::point::{
    Account, ClusterInfo, Consistency, Contents, FORMAT, PointMeta, RuleRecord, VolumeRecord, volume_entry,
};
use crate::rules::run::{Around, NoCut, around};
use crate::select::{Selected, select};
use crate::volumes::Previous;

/// What was taken under the lock.
struct Cut {
    at: Timestamp,
    volumes: Result<BTreeMap<ObjectKey, ReadVolume>, Error>,
    /// Objects as they were at the same instant; none without a lock, where the first list is as good.
    objects: Option<Result<Selected, Error>>,
}

impl BackupPlan {
    /// Does it. Nothing is committed unless everything that can be read was read.
    pub async fn execute(mut self, means: &Means, options: &BackupOptions) -> Result<BackupReport, Error> {
        let gaps = if options.require_complete { self.gaps() } else { Vec::new() };
        if !gaps.is_empty() {
            return Err(Error::Incomplete(gaps));
        }
        let token = token(means)?;
        let reading = self.reading(means, options).await?;
        let captured = self.capture(&reading).await?;
        let mut progress = means.progress.clone();
        if self.rules.burdens() && options.read_ahead {
            means.progress.note("reading ahead, before the application is held");
            // Only the bytes are wanted: they are in the repository when the same ones are met under the lock.
            read_volumes(&self.volumes, &reading, means, options, progress).await?;
            progress = Arc::new(());
        }
        if means.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let taking = async {
            let at = means.env.now();
            let volumes = read_volumes(&self.volumes, &reading, means, options, progress);
            if self.rules.locks() {
                let (volumes, objects) = tokio::join!(volumes, select(&self.cluster, &options.selection));
                Cut { at, volumes, objects: Some(objects) }
            } else {
                Cut { at, volumes: volumes.await, objects: None }
            }
        };
        let around = around(&self.rules, means.hands.as_ref(), &token, &means.cancel, taking).await;
        let rules = self.rule_records(&around);
        let Around { cut, locked, kept, findings, .. } = around;
        self.findings.extend(findings);
        let cut = match cut {
            Ok(cut) => cut,
            Err(NoCut::Cancelled) => return Err(Error::Cancelled),
            Err(NoCut::Failed(why)) => {
                return Err(Error::Rule(format!("{why}; every lock is released and nothing was committed")));
            }
        };
        let volumes = cut.volumes?;
        let is_fresh = self.take_second_list(cut.objects)?;
        let pods_after = if is_fresh { self.mounting_now() } else { BTreeMap::new() };
        let held = Held { plan: &self.rules, locked: &locked, kept: &kept };
        let (records, entries, found) = records(&self.volumes, &self.selected, volumes, &held, &pods_after);
        self.findings.extend(found);
        let account = self.account(records, rules, cut.at, captured, means, options);
        if options.require_complete && !account.certificate.complete {
            return Err(Error::Incomplete(account.certificate.gaps()));
        }
        commit(account, self.selected, entries, self.parent.map(|p| p.id), reading, means).await
    }

    /// Opens the repository for writing, and the previous point for reading.
    async fn reading(&mut self, means: &Means, options: &BackupOptions) -> Result<Reading, Error> {
        let (repository, mut writer_options) = (means.repository.clone(), options.writer.clone());
        writer_options.cancel = means.cancel.clone();
        let parent = self
            .parent
            .clone()
            .filter(|_| options.incremental && repository.capability() >= repo::Capability::Read);
        let cancel = means.cancel.clone();
        let opened = blocking(move || -> Result<_, repo::Error> {
            let writer = repository.writer(writer_options)?;
            let Some(parent) = parent else { return Ok((writer, None, Vec::new())) };
            let reader = repository.reader(ReaderOptions { cancel, ..ReaderOptions::default() })?;
            // A previous point that cannot be read costs time, not the backup.
            match previous(&reader, &parent) {
                Ok(volumes) => Ok((writer, Some((Arc::new(reader), Arc::new(volumes))), Vec::new())),
                Err(e) => {
                    let finding = Finding::warning(
                        "previous-unreadable",
                        parent.id.to_string(),
                        format!("volumes are read in full: {e}"),
                    );
                    Ok((writer, None, vec![finding]))
                }
            }
        })
        .await?;
        let (writer, previous, findings) = opened.map_err(from_repo)?;
        self.findings.extend(writer.findings().iter().cloned());
        self.findings.extend(findings);
        Ok(Reading { writer: Arc::new(writer), previous })
    }

    /// What the cluster says of its API, before anything is held: nobody waits for it.
    async fn capture(&mut self, reading: &Reading) -> Result<Captured, Error> {
        let mut captured = Captured::default();
        let hashes = reading.previous.as_ref().map(|(_, previous)| &previous.documents.hashes);
        match captured::announced(&self.cluster, hashes).await {
            Ok(announced) => {
                let before = reading.previous.clone();
                let writer = reading.writer.clone();
                let (wanted, mut kept) = blocking(move || {
                    let mut kept = Captured::default();
                    let wanted = match before {
                        // A point that cannot be read costs a request, not the backup.
                        Some((reader, previous)) => {
                            captured::keep(announced, &previous.documents, &reader, &writer, &mut kept)
                        }
                        None => announced,
                    };
                    (wanted, kept)
                })
                .await?;
                captured::fetch(&self.cluster, wanted, &mut kept).await;
                captured = kept;
            }
            Err(error) => captured.findings.push(Finding::note(
                "openapi-not-captured",
                "/openapi/v3",
                format!("the point is browsed without the cluster's own descriptions: {error}"),
            )),
        }
        captured::tables(&self.cluster, &self.selected, &mut captured).await?;
        self.findings.append(&mut captured.findings);
        Ok(captured)
    }

    /// Objects listed under the lock take the place of those listed before. Says whether there are such.
    fn take_second_list(&mut self, second: Option<Result<Selected, Error>>) -> Result<bool, Error> {
        match second {
            None => Ok(false),
            Some(Ok(second)) => {
                // What could not be read the first time is told once; what is new is told.
                for finding in
                    second.findings.iter().filter(|f| !self.findings.contains(f)).cloned().collect::<Vec<_>>()
                {
                    self.findings.push(finding);
                }
                self.selected = Selected { findings: Vec::new(), ..second };
                Ok(true)
            }
            Some(Err(Error::Cancelled)) => Err(Error::Cancelled),
            Some(Err(e)) => {
                let message = format!(
                    "objects are those listed before the lock, since listing them under it failed: {e}"
                );
                self.findings.push(Finding::warning("objects-before-cut", &self.selected.name, message));
                Ok(false)
            }
        }
    }

    /// Running pods that mount each claim, as of the second list.
    fn mounting_now(&self) -> BTreeMap<ObjectKey, Vec<(String, String)>> {
        let pods = self.selected.objects.iter().filter(|(k, _)| k.is("", "Pod"));
        let pods: Vec<Object> = pods.map(|(_, picked)| picked.seen.object.open()).collect();
        let mounting = mounting(&pods);
        let name = |pod: &&Object| (pod.namespace().to_owned(), pod.name().to_owned());
        let claims = self.selected.claims().filter_map(|(key, _)| {
            let pods = mounting.get(&(key.namespace.as_str(), key.name.as_str()))?;
            Some((key.clone(), pods.iter().map(name).collect()))
        });
        claims.collect()
    }

    /// What each rule with a lock achieved.
    fn rule_records<T>(&self, around: &Around<T>) -> Vec<RuleRecord> {
        let mut targets: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
        for task in self.rules.before.iter().filter(|t| t.step.action.locks()) {
            targets.entry(&task.rule).or_default().extend(&task.targets);
        }
        let record = |(name, targets): (&str, BTreeSet<_>)| RuleRecord {
            name: name.to_owned(),
            members: targets.iter().filter(|t| around.locked.contains(**t)).count() as u64,
            held_ms: u64::try_from(around.held.as_millis()).unwrap_or(u64::MAX),
            kept: targets.iter().all(|t| around.kept.contains(*t)),
        };
        targets.into_iter().map(record).collect()
    }

    fn account(
        &mut self,
        volumes: Vec<VolumeRecord>,
        rules: Vec<RuleRecord>,
        cut: Timestamp,
        captured: Captured,
        means: &Means,
        options: &BackupOptions,
    ) -> Account {
        let findings: Vec<Note> = self.findings.iter().map(Note::from).collect();
        let states = volumes
            .iter()
            .filter(|v| v.entry.is_some() || v.missing.is_some())
            .map(VolumeState::of)
            .collect();
        let references = std::mem::take(&mut self.selected.references);
        let external = std::mem::take(&mut self.selected.external);
        let certificate = Certificate::new(references, states, findings).with_external(external);
        let with_data = volumes.iter().filter(|v| v.entry.is_some());
        let meta = PointMeta {
            format: FORMAT,
            application: self.selected.name.clone(),
            cluster: ClusterInfo {
                id: self.cluster_id.clone(),
                version: self.cluster.resources.version.clone(),
            },
            namespaces: self.selected.namespaces.iter().cloned().collect(),
            started: instant(self.started),
            cut: instant(cut),
            finished: instant(means.env.now()),
            consistency: with_data.map(|v| v.consistency).min(),
            selection: options.selection.to_json(),
            rules,
            holdfast: options.version.clone(),
        };
        let mut discovery = self.cluster.resources.clone();
        discovery.openapi = captured.hashes.clone();
        Account { meta, certificate, volumes, discovery, captured }
    }
}

/// Makes the records of all claims, and the manifest entries of those with data.
fn records(
    planned: &[PlannedVolume],
    selected: &Selected,
    mut read: BTreeMap<ObjectKey, ReadVolume>,
    held: &Held<'_>,
    pods_after: &BTreeMap<ObjectKey, Vec<(String, String)>>,
) -> (Vec<VolumeRecord>, Vec<ManifestEntry>, Vec<Finding>) {
    let (mut records, mut entries, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    let by_key: BTreeMap<&ObjectKey, &PlannedVolume> = planned.iter().map(|p| (&p.key, p)).collect();
    for (key, picked) in selected.claims() {
        let mut record = VolumeRecord {
            namespace: key.namespace.clone(),
            claim: key.name.clone(),
            volume: picked.seen.object.open().str("/spec/volumeName").to_owned(),
            entry: None,
            consistency: Consistency::Fuzzy,
            bytes: 0,
            files: 0,
            started: None,
            note: String::new(),
            missing: None,
        };
        match (by_key.get(key), read.remove(key)) {
            (Some(planned), Some(ReadVolume { started, copy: Ok(copy), findings: found })) => {
                let (level, note) =
                    held.level(planned, copy.consistency, pods_after.get(key).map_or(&[], Vec::as_slice));
                let name = volume_entry(&key.namespace, &key.name);
                (record.consistency, record.note) = (level, note);
                (record.bytes, record.files, record.started) =
                    (copy.bytes, copy.files, Some(instant(started)));
                let figures = [("bytes".to_owned(), copy.bytes), ("files".to_owned(), copy.files)].into();
                entries.push(ManifestEntry { name: name.clone(), kind: copy.kind, root: copy.root, figures });
                record.entry = Some(name);
                findings
                    .extend(found.into_iter().map(|f| Finding { what: format!("{key}: {}", f.what), ..f }));
            }
            (Some(_), Some(ReadVolume { copy: Err(why), .. })) => record.missing = Some(why),
            (Some(planned), None) if planned.is_unbound => {
                record.note = "not bound yet: there is no data".into()
            }
            (Some(planned), None) => {
                record.missing =
                    Some(planned.located.clone().err().unwrap_or_else(|| "it was not read".into()))
            }
            (None, _) => {
                record.missing = Some("it was made while the backup ran; the next one has it".into())
            }
        }
        if let Some(why) = &record.missing {
            findings.push(Finding::warning(
                "volume-missing",
                key.to_string(),
                format!("its data is not in the point: {why}"),
            ));
        }
        records.push(record);
    }
    for key in read.keys() {
        findings.push(Finding::note(
            "volume-gone",
            key.to_string(),
            "it was deleted while the backup ran, and is not in the point",
        ));
    }
    (records, entries, findings)
}

/// Volumes of the previous point, by claim, each with the volume it was; and its documents.
fn previous(reader: &repo::Reader, parent: &repo::CommitInfo) -> Result<PreviousPoint, repo::Error> {
    let contents = Contents::open(reader, parent)?;
    let mut volumes = PreviousVolumes::new();
    for record in contents.volumes()? {
        if let (Some(entry), Some(started)) = (contents.volume(&record), record.started) {
            let started = i64::try_from(started.as_nanosecond()).unwrap_or(0);
            volumes.insert(
                (record.namespace, record.claim),
                (record.volume, Previous { root: entry.root, started }),
            );
        }
    }
    let documents = Before { entries: contents.documents(), hashes: contents.discovery()?.openapi };
    Ok(PreviousPoint { volumes, documents })
}

async fn commit(
    account: Account,
    selected: Selected,
    entries: Vec<ManifestEntry>,
    parent: Option<repo::CommitId>,
    reading: Reading,
    means: &Means,
) -> Result<BackupReport, Error> {
    if means.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    means.progress.note("writing the recovery point");
    let Reading { writer, previous } = reading;
    drop(previous);
    let writer: Writer = Arc::try_unwrap(writer).map_err(|_| {
        Error::Repository(repo::Error::failed("a volume is still being read after all were read"))
    })?;
    let committed = blocking(move || -> Result<_, repo::Error> {
        let draft = account.write(&writer, collect(&selected), entries, parent.into_iter().collect())?;
        let info = writer.commit(draft)?;
        Ok((info, account, selected.objects.len()))
    })
    .await?;
    let (info, account, objects) = committed.map_err(from_repo)?;
    Ok(BackupReport {
        info,
        objects,
        meta: account.meta,
        certificate: account.certificate,
        volumes: account.volumes,
    })
}

/// Names this run's locks apart from those of any other.
fn token(means: &Means) -> Result<String, Error> {
    let mut random = [0; 8];
    means.env.random(&mut random).map_err(from_repo)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn instant(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(time)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}
