//! A Velero backup location: what lies under its prefix, and how a backup there becomes a recovery point.
//!
//! `backups/NAME/velero-backup.json` says what the backup is. It is written before the rest and rewritten
//! after, so it is believed only once its phase is an end. `NAME.tar.gz` holds the objects, one JSON file each; format
//! 1.1 holds each a second time under its version, which is passed over. The companions tell where the data of volumes
//! lies; those that are missing say nothing, which is told.

mod data;
mod listed;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use apiserver::ApiServer;
use flate2::read::MultiGzDecoder;
use repo::store::{Store, StoreError};
use repo::{CommitInfo, Env, Finding, Repository, WriterOptions};
use serde_json::{Value, json};

use self::data::{Data, data};
use super::tar::Archive;
use crate::api::{ApiResources, Cluster, ResourceType};
use crate::browse;
use crate::captured::Captured;
use crate::certificate::{Certificate, Note, VolumeState};
use crate::collect::stored;
use crate::error::Error;
use crate::kinds::{self, Keep};
use crate::object::{Object, ObjectKey, Packed};
use crate::point::{
    Account, ClusterInfo, Consistency, FORMAT, PointMeta, Restore, Role, StoredObject, VolumeRecord, points,
};
use crate::select::{Selection, select};

/// Bytes fetched at a time.
const FETCH_BYTES: usize = 4 << 20;
/// An object is not larger than this; etcd takes 1.5 MiB.
const OBJECT_BYTES_MAX: u64 = 16 << 20;
/// Nor is a companion.
const COMPANION_BYTES_MAX: u64 = 256 << 20;
/// The label of a point that says what it was.
const LABEL: &str = "imported";

/// A backup in a location.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its phase: `Completed`, `PartiallyFailed`, ….
    pub phase: String,
    /// The schedule that made it, if one did.
    pub schedule: String,
    /// When it was begun, as Velero wrote it.
    pub started: String,
    /// Why it cannot be imported, if it cannot.
    pub refused: Option<String>,
    #[serde(skip)]
    whole: Value,
}

/// What became of one backup.
#[derive(Debug)]
pub struct Imported {
    /// The new point; none if there was one of this backup already.
    pub info: Option<CommitInfo>,
    /// Objects in it.
    pub objects: usize,
    /// Claims, whose data is not in it.
    pub volumes: usize,
    /// What was found on the way.
    pub findings: Vec<Finding>,
}

fn store_error(error: &StoreError) -> Error {
    match error {
        StoreError::NotFound { .. } => Error::NotFound(error.to_string()),
        StoreError::Denied { .. } => Error::Denied(error.to_string()),
        _ => Error::Unreachable(error.to_string()),
    }
}

/// The backups of a location, oldest first.
///
/// # Errors
/// If the location cannot be read, or there is no backup in it.
pub fn backups(store: &dyn Store) -> Result<Vec<Found>, Error> {
    let mut names = Vec::new();
    let listed = store.list("backups/", &mut |object| {
        if let Some(name) =
            object.key.strip_prefix("backups/").and_then(|k| k.strip_suffix("/velero-backup.json"))
        {
            names.push(name.to_owned());
        }
        Ok(())
    });
    listed.map_err(|e| store_error(&e))?;
    if names.is_empty() {
        return Err(Error::NotFound(format!(
            "there is no Velero backup in {}: the prefix is the one that `backups/` lies under",
            store.url()
        )));
    }
    let mut found = Vec::new();
    for name in names {
        let bytes = store.get(&format!("backups/{name}/velero-backup.json")).map_err(|e| store_error(&e))?;
        found.push(match serde_json::from_slice::<Value>(&bytes) {
            Ok(backup) => described(name, backup),
            Err(error) => Found {
                refused: Some(format!("its velero-backup.json does not parse: {error}")),
                ..described(name, Value::Null)
            },
        });
    }
    found.sort_by(|a, b| (&a.started, &a.name).cmp(&(&b.started, &b.name)));
    Ok(found)
}

fn described(name: String, whole: Value) -> Found {
    let text = |pointer: &str| whole.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let phase = text("/status/phase");
    let refused = match phase.as_str() {
        "Completed" | "PartiallyFailed" => None,
        "Failed" | "FailedValidation" | "Deleting" => {
            Some(format!("its phase is {phase}: Velero does not restore it either"))
        }
        "" => Some("it says no phase: it is not finished, or damaged".into()),
        _ => Some(format!("its phase is {phase}: it is not finished")),
    };
    Found {
        uid: text("/metadata/uid"),
        schedule: text("/metadata/labels/velero.io~1schedule-name"),
        started: text("/status/startTimestamp"),
        name,
        phase,
        refused,
        whole,
    }
}

/// Reads an object of a store bit by bit.
struct Fetch<'a> {
    store: &'a dyn Store,
    key: String,
    size: u64,
    at: u64,
    have: bytes::Bytes,
}

impl<'a> Fetch<'a> {
    fn new(store: &'a dyn Store, key: String) -> Result<Self, StoreError> {
        Ok(Self { store, size: store.size(&key)?, key, at: 0, have: bytes::Bytes::new() })
    }
}

impl Read for Fetch<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.have.is_empty() && self.at < self.size {
            let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(FETCH_BYTES);
            self.have = self.store.get_range(&self.key, self.at, left).map_err(io::Error::other)?;
            self.at += left as u64;
        }
        let take = into.len().min(self.have.len());
        let taken = self.have.split_to(take);
        if let Some(room) = into.get_mut(..take) {
            room.copy_from_slice(&taken);
        }
        Ok(take)
    }
}

/// The objects of a backup, and their types.
#[derive(Default)]
struct Contents {
    objects: Vec<Value>,
    /// Velero's own record of data it moved: of where that is, and no object of the application.
    uploads: Vec<Value>,
    types: BTreeMap<(String, String), ResourceType>,
    findings: Vec<Finding>,
}

/// `resources/deployments.apps/namespaces/shop/web.json`: the resource's plural name, and whether it is namespaced. The
/// group is what the object itself says.
fn resource_of(path: &str) -> Option<(&str, bool)> {
    let path = path.strip_prefix("./").unwrap_or(path).strip_prefix("resources/")?;
    let parts: Vec<&str> = path.split('/').collect();
    let (resource, namespaced) = match parts.as_slice() {
        [resource, "namespaces", _, file] if file.ends_with(".json") => (resource, true),
        [resource, "cluster", file] if file.ends_with(".json") => (resource, false),
        _ => return None,
    };
    Some((resource.split_once('.').map_or(resource, |(plural, _)| plural), namespaced))
}

fn contents(store: &dyn Store, name: &str) -> Result<Contents, Error> {
    let key = format!("backups/{name}/{name}.tar.gz");
    let damaged = |error: io::Error| Error::Invalid(format!("{key} cannot be read: {error}"));
    let fetch = Fetch::new(store, key.clone()).map_err(|e| store_error(&e))?;
    let mut archive = Archive::new(MultiGzDecoder::new(fetch), OBJECT_BYTES_MAX);
    let mut contents = Contents::default();
    while let Some(entry) = archive.next().map_err(damaged)? {
        let Some((plural, namespaced)) = resource_of(&entry.name) else { continue };
        let unreadable = |why: String| Finding::error("unreadable", entry.name.clone(), why);
        let Some(content) = &entry.content else {
            contents
                .findings
                .push(unreadable(format!("it has {} bytes, more than an object can have", entry.size)));
            continue;
        };
        let object = match serde_json::from_slice::<Value>(content) {
            Ok(value @ Value::Object(_)) => Object(value),
            Ok(_) => {
                contents.findings.push(unreadable("it is no object".into()));
                continue;
            }
            Err(error) => {
                contents.findings.push(unreadable(format!("it does not parse: {error}")));
                continue;
            }
        };
        let gvk = object.gvk();
        if gvk.kind.is_empty() || object.name().is_empty() || object.namespace().is_empty() == namespaced {
            contents.findings.push(unreadable("it does not say what its place says".into()));
            continue;
        }
        if gvk.group == "velero.io" && gvk.kind == "DataUpload" {
            contents.uploads.push(object.0);
            continue;
        }
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"].map(str::to_owned);
        contents.types.entry((gvk.api_version(), gvk.kind.clone())).or_insert_with(|| ResourceType {
            group: gvk.group.clone(),
            version: gvk.version.clone(),
            kind: gvk.kind.clone(),
            plural: plural.to_owned(),
            namespaced,
            preferred: true,
            singular: gvk.kind.to_lowercase(),
            verbs: verbs.to_vec(),
            ..ResourceType::default()
        });
        contents.objects.push(object.0);
    }
    Ok(contents)
}

/// Imports one backup as a recovery point. A backup that was imported before is left.
///
/// # Errors
/// If the backup cannot be imported, or the repository fails; then nothing is committed.
pub async fn import(
    store: &dyn Store,
    found: &Found,
    repository: &Repository,
    env: &Env,
    version: &str,
) -> Result<Imported, Error> {
    if let Some(why) = &found.refused {
        return Err(Error::Invalid(format!("the Velero backup {} is not imported: {why}", found.name)));
    }
    let mark = format!("velero/{}/{}", found.name, found.uid);
    if points(repository, None)?.done.iter().any(|info| info.summary.labels.get(LABEL) == Some(&mark)) {
        return Ok(Imported { info: None, objects: 0, volumes: 0, findings: Vec::new() });
    }
    let mut contents = contents(store, &found.name)?;
    let data = data(store, &found.name, &contents.uploads)?;
    contents.findings.extend(data.findings.iter().cloned());
    let held = contents.objects.iter().chain(&contents.uploads);
    contents.findings.extend(listed::absent(store, &found.name, held)?);
    let (account, objects) = account(contents, &data, found, env, version).await?;
    let (count, volumes) = (objects.len(), account.volumes.len());
    let started = i64::try_from(account.meta.cut.as_nanosecond()).unwrap_or(i64::MAX);
    let findings = account.certificate.findings.iter().map(finding).collect();
    let writer = repository.writer(WriterOptions::default())?;
    let mut draft = account.write(&writer, objects, Vec::new(), Vec::new())?;
    draft.labels.insert(LABEL.into(), mark);
    // As old as its content: retention decides by that, and `restore` finds the state of an hour.
    let info = writer.commit_dated(draft, Some(started))?;
    Ok(Imported { info: Some(info), objects: count, volumes, findings })
}

fn finding(note: &Note) -> Finding {
    use crate::certificate::Level;
    let code = match note.code.as_str() {
        "velero-failed" => "velero-failed",
        "volume-missing" => "volume-missing",
        "unreadable" => "unreadable",
        _ => "imported",
    };
    match note.severity {
        Level::Note => Finding::note(code, note.what.clone(), note.message.clone()),
        Level::Warning => Finding::warning(code, note.what.clone(), note.message.clone()),
        Level::Error => Finding::error(code, note.what.clone(), note.message.clone()),
    }
}

/// What the point says of itself, and its objects, sorted.
async fn account(
    contents: Contents,
    data: &Data,
    found: &Found,
    env: &Env,
    version: &str,
) -> Result<(Account, Vec<StoredObject>), Error> {
    let Contents { objects, types, mut findings, .. } = contents;
    let namespaces: BTreeSet<String> = objects
        .iter()
        .filter_map(|object| object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned))
        .collect();
    let text = |pointer: &str| found.whole.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let discovery = ApiResources {
        version: text("/metadata/annotations/velero.io~1source-cluster-k8s-gitversion"),
        types: types.into_values().collect(),
        ..ApiResources::default()
    };
    // Namespaces that were not in it are only there to be asked for.
    let held: BTreeSet<&str> = objects
        .iter()
        .filter(|object| object.get("kind") == Some(&json!("Namespace")))
        .filter_map(|object| object.pointer("/metadata/name")?.as_str())
        .collect();
    let made: Vec<Value> = namespaces
        .iter()
        .filter(|name| !held.contains(name.as_str()))
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .collect();
    let mut served = discovery.clone();
    if !served.types.iter().any(|of| of.group.is_empty() && of.kind == "Namespace") {
        served.types.push(ResourceType {
            version: "v1".into(),
            kind: "Namespace".into(),
            plural: "namespaces".into(),
            preferred: true,
            verbs: ["get", "list"].map(str::to_owned).to_vec(),
            ..ResourceType::default()
        });
    }
    let server = ApiServer::new(browse::options(env));
    server.serve_as(browse::served(&served, browse::Api::default()));
    let made_keys: BTreeSet<ObjectKey> = made.iter().map(|object| Object(object.clone()).key()).collect();
    for why in server.load(objects.iter().cloned().chain(made)) {
        findings.push(Finding::error("unreadable", found.name.clone(), why));
    }
    let cluster = Cluster::connect(kube::Client::new(server.router(), "default")).await?;
    let selection = Selection { namespaces: namespaces.iter().cloned().collect(), ..Selection::default() };
    let selected = match namespaces.is_empty() {
        true => crate::select::Selected::default(),
        false => select(&cluster, &selection).await?,
    };
    findings.extend(selected.findings.iter().cloned());
    let mut all: BTreeMap<ObjectKey, StoredObject> =
        selected.objects.iter().map(|(key, picked)| (key.clone(), stored(key, picked))).collect();
    all.retain(|key, _| !made_keys.contains(key));
    for object in objects.into_iter().map(Object) {
        let key = object.key();
        let gvk = object.gvk();
        let resource = discovery.types.iter().find(|of| of.gvk() == gvk);
        let (Some(resource), false) = (resource, all.contains_key(&key)) else { continue };
        let restore = match (kinds::of(&object).keep)(&object, &|_| None) {
            Keep::Yes => Restore::Yes,
            Keep::Evidence(_) => Restore::Evidence,
            Keep::No(_) => continue,
        };
        let role = if object.namespace().is_empty() { Role::Cluster } else { Role::Member };
        let clean = Packed::from(&crate::clean::clean(&object));
        let original = Packed::from(&object);
        all.insert(
            key.clone(),
            StoredObject { resource: resource.bare(), key, role, restore, original, clean },
        );
    }
    let claims = all.values().filter(|stored| stored.key.is("", "PersistentVolumeClaim"));
    let volumes: Vec<VolumeRecord> = claims
        .map(|stored| {
            let claim = stored.original.open();
            let is_bound = !claim.str("/spec/volumeName").is_empty();
            VolumeRecord {
                namespace: claim.namespace().to_owned(),
                claim: claim.name().to_owned(),
                volume: claim.str("/spec/volumeName").to_owned(),
                entry: None,
                consistency: Consistency::Fuzzy,
                bytes: 0,
                files: 0,
                started: None,
                note: if is_bound { String::new() } else { "not bound yet: there is no data".into() },
                missing: is_bound.then(|| data.of(&claim)),
            }
        })
        .collect();
    for record in &volumes {
        if let Some(why) = &record.missing {
            let what = format!("PersistentVolumeClaim {}/{}", record.namespace, record.claim);
            findings.push(Finding::warning(
                "volume-missing",
                what,
                format!("its data is not in the point: {why}"),
            ));
        }
    }
    if found.phase != "Completed" {
        let message = format!(
            "Velero ended it with the phase {}: {} errors, {} warnings; what failed is not in it",
            found.phase,
            found.whole.pointer("/status/errors").unwrap_or(&json!(0)),
            found.whole.pointer("/status/warnings").unwrap_or(&json!(0))
        );
        findings.push(Finding::error("velero-failed", found.name.clone(), message));
    }
    let states = volumes.iter().filter(|volume| volume.missing.is_some()).map(VolumeState::of).collect();
    let notes = findings.iter().map(Note::from).collect();
    let certificate = Certificate::new(selected.references, states, notes).with_external(selected.external);
    let time = |pointer: &str| text(pointer).parse::<jiff::Timestamp>().ok();
    let now = jiff::Timestamp::from_second(env.now() / 1_000_000_000).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let started = time("/status/startTimestamp").unwrap_or(now);
    let meta = PointMeta {
        format: FORMAT,
        application: if found.schedule.is_empty() { found.name.clone() } else { found.schedule.clone() },
        cluster: ClusterInfo { id: String::new(), version: discovery.version.clone() },
        namespaces: namespaces.into_iter().collect(),
        started,
        cut: started,
        finished: time("/status/completionTimestamp").unwrap_or(started),
        consistency: None,
        selection: selection.to_json(),
        rules: Vec::new(),
        holdfast: version.to_owned(),
    };
    let account = Account { meta, certificate, volumes, discovery, captured: Captured::default() };
    Ok((account, all.into_values().collect()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use repo::store::mem::MemStore;
    use repo::{InitOptions, Kdf, Passphrase, ReaderOptions};

    use super::super::tar::tests::file;
    use super::*;
    use crate::point::Point;
    use crate::restore::{Consent, Executor, RestoreOptions, plan};

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn put(store: &MemStore, key: &str, bytes: Vec<u8>) {
        store.put(key, bytes.into()).unwrap();
    }

    fn backup(store: &MemStore, name: &str, phase: &str, started: &str, schedule: &str) {
        let whole = json!({"kind": "Backup", "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"velero.io/schedule-name": schedule},
            "annotations": {"velero.io/source-cluster-k8s-gitversion": "v1.27.3"}},
            "status": {"phase": phase, "startTimestamp": started, "completionTimestamp": started, "errors": 2}});
        put(store, &format!("backups/{name}/velero-backup.json"), whole.to_string().into_bytes());
    }

    fn object(api: &str, kind: &str, namespace: &str, name: &str, rest: Value) -> Value {
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "uid": format!("u-{kind}-{name}"), "resourceVersion": "7"}});
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    }

    fn archive(store: &MemStore, name: &str, objects: &[(&str, Value)]) {
        let mut tar = file("metadata/version", b"1.1.0");
        for (resource, object) in objects {
            let text = object.to_string();
            let (namespace, called) =
                (object["metadata"]["namespace"].as_str(), object["metadata"]["name"].as_str().unwrap());
            let place = match namespace {
                Some(namespace) => format!("namespaces/{namespace}/{called}.json"),
                None => format!("cluster/{called}.json"),
            };
            tar.extend(file(&format!("resources/{resource}/{place}"), text.as_bytes()));
            tar.extend(file(&format!("resources/{resource}/v1-preferredversion/{place}"), text.as_bytes()));
        }
        tar.extend(file("resources/secrets/namespaces/shop/broken.json", b"{"));
        tar.extend([0; 1024]);
        put(store, &format!("backups/{name}/{name}.tar.gz"), zipped(&tar));
    }

    fn shop() -> Vec<(&'static str, Value)> {
        let claim = |name: &str| {
            object(
                "v1",
                "PersistentVolumeClaim",
                "shop",
                name,
                json!({"spec": {"volumeName": format!("pv-{name}"), "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
            )
        };
        let pod = json!({"containers": [{"name": "c", "image": "x", "envFrom": [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "gone"}}]}]});
        vec![
            ("namespaces", object("v1", "Namespace", "", "shop", json!({}))),
            ("configmaps", object("v1", "ConfigMap", "shop", "settings", json!({"data": {"a": "b"}}))),
            (
                "deployments.apps",
                object(
                    "apps/v1",
                    "Deployment",
                    "shop",
                    "web",
                    json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}}),
                ),
            ),
            ("persistentvolumeclaims", claim("moved")),
            ("persistentvolumeclaims", claim("files")),
            ("persistentvolumeclaims", claim("snapped")),
            ("persistentvolumeclaims", claim("unknown")),
            (
                "priorityclasses.scheduling.k8s.io",
                object("scheduling.k8s.io/v1", "PriorityClass", "", "lonely", json!({"value": 7})),
            ),
            (
                "oddities.example.com",
                object("example.com/v1", "Oddity", "shop", "one", json!({"spec": {"x": 1}})),
            ),
        ]
    }

    #[tokio::test]
    async fn a_velero_location_becomes_recovery_points_and_says_where_the_data_is() {
        let store = MemStore::new();
        backup(&store, "daily-2", "PartiallyFailed", "2026-02-02T03:00:00Z", "daily");
        backup(&store, "daily-1", "Completed", "2026-02-01T03:00:00Z", "daily");
        backup(&store, "running", "InProgress", "2026-02-03T03:00:00Z", "");
        put(&store, "backups/odd/velero-backup.json", b"{".to_vec());
        for name in ["daily-1", "daily-2"] {
            archive(&store, name, &shop());
        }
        put(&store, "kopia/shop/kopia.repository", b"x".to_vec());
        let infos = json!([
            {"pvcNamespace": "shop", "pvcName": "moved", "pvName": "pv-moved", "backupMethod": "CSISnapshot", "snapshotDataMoved": true,
                "snapshotDataMovementInfo": {"uploaderType": "kopia", "snapshotHandle": "k1"}},
            {"pvcNamespace": "shop", "pvcName": "snapped", "backupMethod": "CSISnapshot", "csiSnapshotInfo": {"snapshotHandle": "s1", "driver": "d.example.com"}},
            {"pvcNamespace": "shop", "pvcName": "files", "backupMethod": "PodVolumeBackup", "pvbInfo": {"uploaderType": "restic", "snapshotHandle": "r1"}}]);
        put(&store, "backups/daily-1/daily-1-volumeinfo.json.gz", zipped(infos.to_string().as_bytes()));

        let found = backups(&store).unwrap();
        let names: Vec<(&str, bool)> = found.iter().map(|f| (f.name.as_str(), f.refused.is_none())).collect();
        assert_eq!(names, [("odd", false), ("daily-1", true), ("daily-2", true), ("running", false)]);

        let env = Env::real();
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let repository =
            Repository::init(Arc::new(MemStore::new()), &Passphrase::new("x y z"), &options, &env).unwrap();
        for refused in found.iter().filter(|f| f.refused.is_some()) {
            let error = import(&store, refused, &repository, &env, "test").await.unwrap_err();
            assert!(error.to_string().contains(&refused.name), "{error}");
        }
        let done = import(&store, &found[1], &repository, &env, "test").await.unwrap();
        assert_eq!((done.objects, done.volumes), (9, 4), "{:#?}", done.findings);
        let info = done.info.unwrap();
        assert_eq!(info.summary.labels[LABEL], "velero/daily-1/uid-daily-1");
        let point = Point::read(&repository.reader(ReaderOptions::default()).unwrap(), &info).unwrap();
        assert_eq!(
            (point.meta.application.as_str(), point.meta.cluster.version.as_str()),
            ("daily", "v1.27.3")
        );
        assert_eq!(point.meta.cut.to_string(), "2026-02-01T03:00:00Z");
        let cut = i64::try_from(point.meta.cut.as_nanosecond()).unwrap();
        assert_eq!(info.summary.time, cut, "as old as its content");
        let missing =
            |claim: &str| point.volumes.iter().find(|v| v.claim == claim).unwrap().missing.clone().unwrap();
        for (claim, want) in [
            ("moved", "snapshot k1, in the kopia repository kopia/shop/ of this location"),
            ("files", "snapshot r1, in a restic repository restic/shop/, which is not in this location"),
            ("snapped", "CSI snapshot s1 of d.example.com"),
            ("unknown", "does not say that it holds any data"),
        ] {
            assert!(missing(claim).contains(want), "{claim}: {}", missing(claim));
        }
        let gone = point.certificate.references.iter().find(|r| r.to.name == "gone").unwrap();
        assert_eq!(gone.state, crate::certificate::State::Missing);
        assert!(
            point.certificate.findings.iter().any(|f| f.what.ends_with("broken.json")),
            "what is damaged is named"
        );
        assert!(!point.certificate.complete);

        // Twice is once; what failed in Velero is told.
        assert!(import(&store, &found[1], &repository, &env, "test").await.unwrap().info.is_none());
        let second = import(&store, &found[2], &repository, &env, "test").await.unwrap();
        assert!(
            second.info.is_some() && second.findings.iter().any(|f| f.code == "velero-failed"),
            "{:#?}",
            second.findings
        );

        // And it is a point like any other.
        let target = ApiServer::new(browse::options(&env));
        let cluster = Cluster::connect(kube::Client::new(target.router(), "default")).await.unwrap();
        let plan = plan(&point, &cluster, &RestoreOptions::default()).await.unwrap();
        let left: Vec<&str> = plan.left.iter().map(|left| left.key.name.as_str()).collect();
        assert_eq!(left, ["one"], "nobody defines it");
        let report = plan.approve(&Consent::default()).unwrap().execute(&Executor::new(cluster, env)).await;
        assert_eq!((report.created, report.failed), (8, 0), "{:#?}", report.findings);
    }

    #[test]
    fn the_data_of_a_volume_is_named_by_what_it_is_whichever_release_wrote_it() {
        let claim = |name: &str| {
            Object(
                json!({"kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": name, "uid": format!("u-{name}")},
                "spec": {"volumeName": format!("pv-{name}")}}),
            )
        };
        let at =
            |name: &str| json!({"pvcNamespace": "shop", "pvcName": name, "pvName": format!("pv-{name}")});
        let with = |name: &str, more: Value| {
            let mut info = at(name);
            info.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            info
        };
        let infos = json!([
            with(
                "foreign",
                json!({"backupMethod": "CSISnapshot", "snapshotDataMoved": true,
                "snapshotDataMovementInfo": {"dataMover": "acme", "snapshotHandle": "a1"}})
            ),
            with(
                "both",
                json!({"backupMethod": "CSISnapshot", "snapshotDataMoved": true, "preserveLocalSnapshot": true,
                "snapshotDataMovementInfo": {"dataMover": "velero", "uploaderType": "kopia", "snapshotHandle": "k2"},
                "csiSnapshotInfo": {"snapshotHandle": "s2", "driver": "d.example.com"}})
            ),
            with(
                "disk",
                json!({"backupMethod": "NativeSnapshot", "nativeSnapshotInfo": {"volumeType": "gp3", "snapshotHandle": "snap-1"}})
            ),
            with("left", json!({"skipped": true, "skippedReason": "by policy"})),
            with("future", json!({"backupMethod": "Teleport"})),
        ]);
        let copies = json!([
            {"spec": {"uploaderType": "restic", "pod": {"namespace": "shop"}, "tags": {"pvc-uid": "u-files"}}, "status": {"snapshotID": "r1"}},
            {"spec": {"uploaderType": "kopia", "pod": {"namespace": "shop"}, "tags": {"pvc-uid": "u-broken"}}, "status": {"phase": "Failed", "message": "out of disk"}}]);
        let uploads = [
            json!({"spec": {"sourceNamespace": "shop", "sourcePVC": "carried"}, "status": {"snapshotID": "k3"}}),
            json!({"spec": {"sourceNamespace": "shop", "sourcePVC": "dropped"}, "status": {"phase": "Canceled"}}),
        ];
        let snapshots = json!([{"metadata": {"namespace": "shop"}, "spec": {"source": {"persistentVolumeClaimName": "carried"}},
            "status": {"boundVolumeSnapshotContentName": "c"}}]);
        let store = MemStore::new();
        put(&store, "kopia/shop/kopia.repository", b"x".to_vec());
        for (suffix, value) in
            [("volumeinfo", &infos), ("podvolumebackups", &copies), ("csi-volumesnapshots", &snapshots)]
        {
            put(&store, &format!("backups/b/b-{suffix}.json.gz"), zipped(value.to_string().as_bytes()));
        }
        let found = data(&store, "b", &uploads).unwrap();
        assert!(found.findings.is_empty(), "{:#?}", found.findings);
        for (name, want) in [
            ("foreign", "the data mover acme took it as a1"),
            ("both", "kopia repository kopia/shop/ of this location: readable with kopia"),
            ("both", "beside that it is the CSI snapshot s2 of d.example.com, readable as long as"),
            ("disk", "gp3 snapshot snap-1 of the cloud it ran on, readable there only"),
            ("left", "Velero skipped it: by policy"),
            ("future", "in a way this release does not know: \"Teleport\""),
            (
                "files",
                "snapshot r1, in a restic repository restic/shop/, which is not in this location: not readable",
            ),
            ("broken", "ended as \"Failed\" and has no data: out of disk"),
            ("carried", "Velero moved it as snapshot k3, in the kopia repository"),
            ("dropped", "ended as \"Canceled\" and has no data"),
            ("other", "does not say that it holds any data"),
        ] {
            let said = found.of(&claim(name));
            assert!(said.contains(want), "{name}: {said}");
        }
        // A companion that is damaged is told, and nothing is made up.
        put(&store, "backups/c/c-volumeinfo.json.gz", b"no gzip".to_vec());
        let found = data(&store, "c", &[]).unwrap();
        assert_eq!(found.findings.iter().map(|f| f.code).collect::<Vec<_>>(), ["unreadable"]);
        assert!(found.of(&claim("other")).contains("is not known"), "{}", found.of(&claim("other")));
    }

    #[test]
    fn an_empty_place_and_a_damaged_archive_are_told() {
        let store = MemStore::new();
        assert!(matches!(backups(&store), Err(Error::NotFound(_))));
        backup(&store, "b", "Completed", "2026-02-01T03:00:00Z", "");
        assert!(matches!(contents(&store, "b"), Err(Error::NotFound(_))));
        put(&store, "backups/b/b.tar.gz", b"no gzip at all".to_vec());
        let error = contents(&store, "b").err().unwrap();
        assert!(error.to_string().contains("backups/b/b.tar.gz cannot be read"), "{error}");
    }
}
