//! Where the data of a Velero backup's volumes lies, in words: what it is, and whether it can be read.
//!
//! Releases differ in where they write it. `volumeinfo` (since 1.13) says all of it; before, it stands in the companions for
//! file copies and snapshots, and of data that was moved, in the DataUpload objects of the archive itself. A companion
//! that cannot be read is told: then nobody knows what its backup holds of a volume.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use repo::Finding;
use repo::store::{Store, StoreError};
use serde_json::Value;

use super::{COMPANION_BYTES_MAX, Fetch, store_error};
use crate::error::Error;
use crate::object::Object;

/// Who moves data where Velero does it itself.
const OWN_MOVERS: &[&str] = &["", "velero"];

/// Where the data of claims lies, in words, by namespace and name, by UID, and by volume.
#[derive(Default)]
pub(super) struct Data {
    by_claim: BTreeMap<(String, String), String>,
    by_uid: BTreeMap<String, String>,
    by_volume: BTreeMap<String, String>,
    /// What of it could not be read.
    pub(super) findings: Vec<Finding>,
}

/// Reads the companions of a backup; `moved` are the DataUpload objects of its archive.
pub(super) fn data(store: &dyn Store, name: &str, moved: &[Value]) -> Result<Data, Error> {
    let mut reading = Reading { store, name, repositories: BTreeMap::new(), data: Data::default() };
    reading.volume_info()?;
    reading.file_copies()?;
    reading.moved(moved)?;
    reading.snapshots()?;
    let mut data = reading.data;
    data.by_uid.remove("");
    data.by_volume.remove("");
    Ok(data)
}

impl Data {
    /// Of this claim.
    pub(super) fn of(&self, claim: &Object) -> String {
        let by_claim = self.by_claim.get(&(claim.namespace().to_owned(), claim.name().to_owned()));
        by_claim
            .or_else(|| self.by_uid.get(claim.uid()))
            .or_else(|| self.by_volume.get(claim.str("/spec/volumeName")))
            .cloned()
            .unwrap_or_else(|| match self.findings.is_empty() {
                true => "the Velero backup does not say that it holds any data of it".into(),
                false => {
                    "what the Velero backup holds of it is not known: a part of it cannot be read".into()
                }
            })
    }
}

struct Reading<'a> {
    store: &'a dyn Store,
    name: &'a str,
    /// Which repositories of Velero's tools are in this location.
    repositories: BTreeMap<String, bool>,
    data: Data,
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    // Velero writes plain lists; a list object would have its items.
    value.as_array().or_else(|| value.get("items").and_then(Value::as_array)).into_iter().flatten()
}

fn native(what: &str, handle: &str) -> String {
    format!("it is the {what} {handle} of the cloud it ran on, readable there only")
}

fn csi(handle: &str, driver: &str) -> String {
    format!(
        "it is the CSI snapshot {handle} of {driver}, readable as long as that storage keeps it: a VolumeSnapshotContent with \
         this handle leads to it"
    )
}

/// A companion of the backup; null if it is not there, or cannot be read, which is told.
pub(super) fn companion(
    store: &dyn Store,
    name: &str,
    suffix: &str,
    findings: &mut Vec<Finding>,
) -> Result<Value, Error> {
    let key = format!("backups/{name}/{name}-{suffix}.json.gz");
    let fetch = match Fetch::new(store, key.clone()) {
        Err(StoreError::NotFound { .. }) => return Ok(Value::Null),
        fetch => fetch.map_err(|e| store_error(&e))?,
    };
    let mut bytes = Vec::new();
    let read = MultiGzDecoder::new(fetch).take(COMPANION_BYTES_MAX).read_to_end(&mut bytes);
    let parsed = read
        .map_err(|e| format!("it cannot be read: {e}"))
        .and_then(|_| serde_json::from_slice(&bytes).map_err(|e| format!("it does not parse: {e}")));
    Ok(parsed.unwrap_or_else(|why| {
        findings.push(Finding::error("unreadable", key, why));
        Value::Null
    }))
}

impl Reading<'_> {
    fn companion(&mut self, suffix: &str) -> Result<Value, Error> {
        companion(self.store, self.name, suffix, &mut self.data.findings)
    }

    /// In a repository of one of Velero's tools, which has one for each namespace.
    fn in_repository(&mut self, tool: &str, namespace: &str) -> Result<String, Error> {
        let tool = if tool.is_empty() { "restic" } else { tool };
        let place = format!("{tool}/{namespace}/");
        let there = match self.repositories.get(&place) {
            Some(there) => *there,
            None => {
                let mut there = false;
                let mut seen = |_| {
                    there = true;
                    Ok(())
                };
                self.store.list(&place, &mut seen).map_err(|e| store_error(&e))?;
                self.repositories.insert(place.clone(), there);
                there
            }
        };
        Ok(match there {
            true => format!(
                "in the {tool} repository {place} of this location: readable with {tool} and the repository's password, not by this \
                 release"
            ),
            false => format!(
                "in a {tool} repository {place}, which is not in this location: not readable from here"
            ),
        })
    }

    /// Snapshots whose content a data mover carried elsewhere.
    fn moved_by(
        &mut self,
        mover: &str,
        tool: &str,
        snapshot: &str,
        namespace: &str,
    ) -> Result<String, Error> {
        if !OWN_MOVERS.contains(&mover) {
            return Ok(format!(
                "the data mover {mover} took it as {snapshot}, to where only that mover knows: not readable from here"
            ));
        }
        // Velero's own mover knows no other tool.
        let tool = if tool.is_empty() { "kopia" } else { tool };
        Ok(format!("Velero moved it as snapshot {snapshot}, {}", self.in_repository(tool, namespace)?))
    }

    fn volume_info(&mut self) -> Result<(), Error> {
        let infos = self.companion("volumeinfo")?;
        for info in items(&infos) {
            let (namespace, claim) = (text(info, "/pvcNamespace"), text(info, "/pvcName"));
            let is = |field: &str| info.get(field).and_then(Value::as_bool).unwrap_or(false);
            let method = text(info, "/backupMethod");
            let handle = text(info, "/csiSnapshotInfo/snapshotHandle");
            let driver = text(info, "/csiSnapshotInfo/driver");
            let said = match method.as_str() {
                _ if is("skipped") => format!("Velero skipped it: {}", text(info, "/skippedReason")),
                "CSISnapshot" if is("snapshotDataMoved") => {
                    let of = |field: &str| text(info, &format!("/snapshotDataMovementInfo/{field}"));
                    let moved = self.moved_by(
                        &of("dataMover"),
                        &of("uploaderType"),
                        &of("snapshotHandle"),
                        &namespace,
                    )?;
                    match is("preserveLocalSnapshot") && !handle.is_empty() {
                        true => format!("{moved}; beside that {}", csi(&handle, &driver)),
                        false => moved,
                    }
                }
                "CSISnapshot" => csi(&handle, &driver),
                "NativeSnapshot" => native(
                    &format!("{} snapshot", text(info, "/nativeSnapshotInfo/volumeType")),
                    &text(info, "/nativeSnapshotInfo/snapshotHandle"),
                ),
                "PodVolumeBackup" => {
                    let (tool, snapshot) =
                        (text(info, "/pvbInfo/uploaderType"), text(info, "/pvbInfo/snapshotHandle"));
                    let place = self.in_repository(&tool, &namespace)?;
                    format!("Velero copied its files as snapshot {snapshot}, {place}")
                }
                other => format!("Velero backed it up in a way this release does not know: {other:?}"),
            };
            self.data.by_volume.insert(text(info, "/pvName"), said.clone());
            self.data.by_claim.insert((namespace, claim), said);
        }
        Ok(())
    }

    fn file_copies(&mut self) -> Result<(), Error> {
        let copies = self.companion("podvolumebackups")?;
        for copy in items(&copies) {
            let (tool, snapshot) = (text(copy, "/spec/uploaderType"), text(copy, "/status/snapshotID"));
            let said = if snapshot.is_empty() {
                format!(
                    "Velero's copy of its files ended as {:?} and has no data: {}",
                    text(copy, "/status/phase"),
                    text(copy, "/status/message")
                )
            } else {
                let place = self.in_repository(&tool, &text(copy, "/spec/pod/namespace"))?;
                format!("Velero copied its files as snapshot {snapshot}, {place}")
            };
            self.data.by_uid.insert(text(copy, "/spec/tags/pvc-uid"), said);
        }
        Ok(())
    }

    fn snapshots(&mut self) -> Result<(), Error> {
        let snapshots = self.companion("volumesnapshots")?;
        for snapshot in items(&snapshots) {
            let said = native("snapshot", &text(snapshot, "/status/providerSnapshotID"));
            self.data.by_volume.entry(text(snapshot, "/spec/persistentVolumeName")).or_insert(said);
        }
        let contents = self.companion("csi-volumesnapshotcontents")?;
        let snapshots = self.companion("csi-volumesnapshots")?;
        for snapshot in items(&snapshots) {
            let bound = text(snapshot, "/status/boundVolumeSnapshotContentName");
            let content = items(&contents).find(|content| text(content, "/metadata/name") == bound);
            let of = |pointer: &str| content.map(|content| text(content, pointer)).unwrap_or_default();
            let said = csi(&of("/status/snapshotHandle"), &of("/spec/driver"));
            let claim = (
                text(snapshot, "/metadata/namespace"),
                text(snapshot, "/spec/source/persistentVolumeClaimName"),
            );
            self.data.by_claim.entry(claim).or_insert(said);
        }
        Ok(())
    }

    /// What 1.12 wrote: its snapshots are gone once their data is moved, so this comes before them.
    fn moved(&mut self, uploads: &[Value]) -> Result<(), Error> {
        for upload in uploads {
            let namespace = text(upload, "/spec/sourceNamespace");
            let snapshot = text(upload, "/status/snapshotID");
            let said = if snapshot.is_empty() {
                format!(
                    "Velero's move of it ended as {:?} and has no data: {}",
                    text(upload, "/status/phase"),
                    text(upload, "/status/message")
                )
            } else {
                self.moved_by(&text(upload, "/spec/datamover"), "", &snapshot, &namespace)?
            };
            self.data.by_claim.entry((namespace, text(upload, "/spec/sourcePVC"))).or_insert(said);
        }
        Ok(())
    }
}
