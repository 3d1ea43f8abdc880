//! A recovery point in a repository: its parts, written and read back.
//!
//! The bytes are fixed in `docs/formats/recovery-point.md`. One commit holds everything (promise P1): objects,
//! volumes, certificate and what the API looked like.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::marker::PhantomData;

use repo::{
    CommitDraft, CommitId, CommitInfo, EntryKind, Lane, ManifestEntry, Outcome, Reader, Repository, Root,
    Writer,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{ApiResources, ResourceType};
use crate::browse::Api;
use crate::captured::{Captured, DOCUMENTS, Document, TABLES};
use crate::certificate::{Certificate, Level};
use crate::graph::Graph;
use crate::object::{ObjectKey, Packed};

/// The format this release writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Kind of the commits that are recovery points.
pub const COMMIT_KIND: &str = "application";

/// How consistent a volume's bytes are (promise P2), weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Read while it was in use.
    Fuzzy,
    /// One atomic snapshot.
    Crash,
    /// Its file system was frozen.
    Filesystem,
    /// Rules held every pod that mounts it.
    Application,
}

impl Consistency {
    /// The word in documents and labels.
    pub fn word(self) -> &'static str {
        match self {
            Consistency::Fuzzy => "fuzzy",
            Consistency::Crash => "crash",
            Consistency::Filesystem => "filesystem",
            Consistency::Application => "application",
        }
    }
}

/// How an object belongs to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Part of the application.
    Member,
    /// Used by it and by others; restored only if absent.
    Shared,
    /// Cluster-scoped; restored only if absent.
    Cluster,
}

/// Whether a restore applies a stored object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restore {
    /// It is applied.
    #[default]
    Yes,
    /// Its controller is in the point and makes it again.
    Owned,
    /// Kept to be looked at only.
    Evidence,
}

/// One stored object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its type; only what identifies it (the rest is in the point's discovery).
    pub resource: ResourceType,
    /// Its identity.
    pub key: ObjectKey,
    /// How it belongs.
    pub role: Role,
    /// Whether a restore applies it.
    #[serde(default)]
    pub restore: Restore,
    /// As the API server gave it.
    pub original: Packed,
    /// As a restore applies it.
    pub clean: Packed,
}

/// One claim and its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim.
    pub claim: String,
    /// Name of its PersistentVolume; empty if it is not bound.
    #[serde(default)]
    pub volume: String,
    /// Manifest entry that holds its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Its level.
    pub consistency: Consistency,
    /// Bytes of its files.
    #[serde(default)]
    pub bytes: u64,
    /// Number of its files.
    #[serde(default)]
    pub files: u64,
    /// When its reading began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<jiff::Timestamp>,
    /// Why the level is weaker than what was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Why its data is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// The cluster a point was taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// UID of `kube-system`; empty if it could not be read.
    #[serde(default)]
    pub id: String,
    /// Version of the API server.
    #[serde(default)]
    pub version: String,
}

/// What held the application during the cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRecord {
    /// Name of the rule.
    pub name: String,
    /// Pods that acknowledged a lock.
    #[serde(default)]
    pub members: u64,
    /// How long they were held.
    #[serde(default)]
    pub held_ms: u64,
    /// All of them were still locked after the cut.
    #[serde(default)]
    pub kept: bool,
}

/// What a point is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointMeta {
    /// Format version.
    pub format: u32,
    /// Name of the application.
    pub application: String,
    /// Where it ran.
    pub cluster: ClusterInfo,
    /// Namespaces of its members, sorted.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// When the first request went to the cluster.
    pub started: jiff::Timestamp,
    /// The instant of the cut.
    pub cut: jiff::Timestamp,
    /// When everything was read.
    pub finished: jiff::Timestamp,
    /// The weakest level of its volumes; none without volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// What was asked for, as it was asked.
    #[serde(default)]
    pub selection: Value,
    /// What held it.
    #[serde(default)]
    pub rules: Vec<RuleRecord>,
    /// The release that wrote it.
    #[serde(default)]
    pub holdfast: String,
}

/// A document read from a point may be this large.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// A document goes to the repository in pieces of this size.
const WRITTEN_BYTES: usize = 64 << 10;

/// Names of the manifest's entries.
mod entry {
    pub const POINT: &str = "point.json";
    pub const OBJECTS: &str = "objects.jsonl";
    pub const CERTIFICATE: &str = "certificate.json";
    pub const VOLUMES: &str = "volumes.json";
    pub const DISCOVERY: &str = "discovery.json";
}

/// The manifest entry of a claim's files.
pub fn volume_entry(namespace: &str, claim: &str) -> String {
    format!("volume/{namespace}/{claim}")
}

/// A recovery point, but for the bytes of its volumes.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// What it is.
    pub meta: PointMeta,
    /// Its objects, sorted by key.
    pub objects: Vec<StoredObject>,
    /// Its account of completeness.
    pub certificate: Certificate,
    /// Its volumes.
    pub volumes: Vec<VolumeRecord>,
    /// The API as it was served.
    pub discovery: ApiResources,
}

/// What a point says of itself, but for its objects: those are written one at a time.
#[derive(Debug)]
pub struct Account {
    /// What it is.
    pub meta: PointMeta,
    /// Its account of completeness.
    pub certificate: Certificate,
    /// Its volumes.
    pub volumes: Vec<VolumeRecord>,
    /// The API as it was served.
    pub discovery: ApiResources,
    /// What that API said of itself.
    pub captured: Captured,
}

/// How many objects of which role were written.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    all: u64,
    shared: u64,
    cluster: u64,
}

impl Account {
    /// Writes everything but the volumes, whose entries are handed in, and drafts the commit (promise P1: one).
    /// Objects come sorted by key, so that one that did not change lies between the same neighbours as in the last
    /// point and its bytes are found again.
    pub fn write(
        &self,
        writer: &Writer,
        objects: impl IntoIterator<Item = StoredObject>,
        volumes: Vec<ManifestEntry>,
        parents: Vec<CommitId>,
    ) -> Result<CommitDraft, repo::Error> {
        let mut manifest = volumes;
        manifest.push(document(writer, entry::POINT, &self.meta)?);
        manifest.push(document(writer, entry::CERTIFICATE, &self.certificate)?);
        manifest.push(document(writer, entry::VOLUMES, &self.volumes)?);
        manifest.push(document(writer, entry::DISCOVERY, &self.discovery)?);
        manifest.extend(self.captured.kept.iter().cloned());
        for Document { path, content } in &self.captured.fresh {
            let mut stream = writer.stream(Lane::Data);
            stream.append(content)?;
            manifest.push(bytes_entry(&format!("{DOCUMENTS}{path}"), stream.finish()?));
        }
        if !self.captured.tables.is_empty() {
            manifest.push(document(writer, TABLES, &self.captured.tables)?);
        }
        let (mut lines, mut tally) = (writer.stream(Lane::Data), Tally::default());
        let mut last = None;
        for object in objects {
            if last.as_ref().is_some_and(|last| *last >= object.key) {
                return Err(repo::Error::invalid(format!(
                    "{} is out of order among the objects of a point",
                    object.key
                )));
            }
            let mut line = encode(&object)?;
            line.push(b'\n');
            lines.append(&line)?;
            tally.all += 1;
            tally.shared += u64::from(object.role == Role::Shared);
            tally.cluster += u64::from(object.role == Role::Cluster);
            last = Some(object.key);
        }
        manifest.push(bytes_entry(entry::OBJECTS, lines.finish()?));
        Ok(CommitDraft {
            kind: COMMIT_KIND.into(),
            labels: self.labels(),
            figures: self.figures(tally),
            parents,
            started: i64::try_from(self.meta.started.as_nanosecond()).unwrap_or(0),
            manifest,
        })
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let consistency = self.meta.consistency.map_or("none", Consistency::word);
        [
            ("application", self.meta.application.clone()),
            ("cluster", self.meta.cluster.id.clone()),
            ("namespaces", self.meta.namespaces.join(",")),
            ("consistency", consistency.to_owned()),
            ("complete", self.certificate.complete.to_string()),
            ("holdfast", self.meta.holdfast.clone()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    fn figures(&self, tally: Tally) -> BTreeMap<String, u64> {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let with_data = || self.volumes.iter().filter(|v| v.entry.is_some());
        [
            ("objects", tally.all),
            ("shared", tally.shared),
            ("cluster_scoped", tally.cluster),
            ("volumes", count(with_data().count())),
            ("volumes_missing", count(self.volumes.iter().filter(|v| v.missing.is_some()).count())),
            ("references_missing", count(self.certificate.missing().count())),
            (
                "findings",
                count(self.certificate.findings.iter().filter(|f| f.severity > Level::Note).count()),
            ),
            ("bytes", with_data().map(|v| v.bytes).sum()),
            ("files", with_data().map(|v| v.files).sum()),
            ("hold_ms", self.meta.rules.iter().map(|r| r.held_ms).max().unwrap_or(0)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

impl Point {
    /// Writes a point that is in memory as a whole.
    pub fn write(
        &self,
        writer: &Writer,
        volumes: Vec<ManifestEntry>,
        parents: Vec<CommitId>,
    ) -> Result<CommitDraft, repo::Error> {
        let account = Account {
            meta: self.meta.clone(),
            certificate: self.certificate.clone(),
            volumes: self.volumes.clone(),
            discovery: self.discovery.clone(),
            captured: Captured::default(),
        };
        let mut sorted = self.objects.clone();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        account.write(writer, sorted, volumes, parents)
    }

    /// Reads a point, without its volumes' bytes.
    pub fn read(reader: &Reader, info: &CommitInfo) -> Result<Point, repo::Error> {
        let contents = Contents::open(reader, info)?;
        Ok(Point {
            meta: contents.meta()?,
            objects: contents.objects()?.collect::<Result<_, _>>()?,
            certificate: contents.certificate()?,
            volumes: contents.volumes()?,
            discovery: contents.discovery()?,
        })
    }

    /// Its objects and references.
    pub fn graph(&self) -> Graph {
        let objects: BTreeSet<ObjectKey> = self.objects.iter().map(|o| o.key.clone()).collect();
        self.certificate.graph(objects)
    }
}

/// What a commit contains, read piece by piece: for who needs only the certificate, or has no room for all objects.
pub struct Contents<'r> {
    reader: &'r Reader,
    commit: CommitId,
    manifest: BTreeMap<String, ManifestEntry>,
}

impl<'r> Contents<'r> {
    /// Reads the manifest. Refuses what is no recovery point, or of a newer format.
    pub fn open(reader: &'r Reader, info: &CommitInfo) -> Result<Contents<'r>, repo::Error> {
        if info.summary.kind != COMMIT_KIND {
            return Err(repo::Error::invalid(format!(
                "commit {} is of kind {:?}, not a recovery point of an application",
                info.id, info.summary.kind
            )));
        }
        let manifest = reader.manifest(&info.id)?.into_iter().map(|e| (e.name.clone(), e)).collect();
        let contents = Contents { reader, commit: info.id, manifest };
        // Only the number is read first: a newer format may have changed all the rest.
        let version =
            contents.document::<Value>(entry::POINT)?.get("format").and_then(Value::as_u64).unwrap_or(0);
        if version > u64::from(FORMAT) {
            let url = format!("recovery point {}", info.id);
            return Err(repo::Error::NewerFormat { url, version, known: u64::from(FORMAT) });
        }
        Ok(contents)
    }

    /// What the point is.
    pub fn meta(&self) -> Result<PointMeta, repo::Error> {
        self.document(entry::POINT)
    }

    /// Its certificate.
    pub fn certificate(&self) -> Result<Certificate, repo::Error> {
        self.document(entry::CERTIFICATE)
    }

    /// Its volumes.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, repo::Error> {
        self.document(entry::VOLUMES)
    }

    /// The API as it was served.
    pub fn discovery(&self) -> Result<ApiResources, repo::Error> {
        self.document(entry::DISCOVERY)
    }

    /// Manifest entries of OpenAPI documents, by path.
    pub fn documents(&self) -> BTreeMap<String, ManifestEntry> {
        let entries = self.manifest.iter();
        let named =
            entries.filter_map(|(name, entry)| Some((name.strip_prefix(DOCUMENTS)?.to_owned(), entry)));
        named.map(|(path, entry)| (path, entry.clone())).collect()
    }

    /// What the cluster said of its API; empty for a point of before that was captured.
    pub fn api(&self) -> Result<Api, repo::Error> {
        let mut api = Api::default();
        for (path, entry) in self.documents() {
            api.documents.insert(path, self.reader.bytes(&entry.root, DOCUMENT_BYTES_MAX)?.into());
        }
        if self.manifest.contains_key(TABLES) {
            api.tables = self.document(TABLES)?;
        }
        Ok(api)
    }

    /// The manifest entry of a volume's files.
    pub fn volume(&self, record: &VolumeRecord) -> Option<&ManifestEntry> {
        self.manifest.get(record.entry.as_ref()?)
    }

    /// Its objects, one after the other.
    pub fn objects(&self) -> Result<Objects<'_>, repo::Error> {
        self.lines()
    }

    /// Its objects as the API server gave them, one after the other: for who does not restore.
    pub fn originals(&self) -> Result<impl Iterator<Item = Result<Value, repo::Error>>, repo::Error> {
        let lines: Objects<'_, Original> = self.lines()?;
        Ok(lines.map(|line| line.map(|line| line.original)))
    }

    fn lines<T>(&self) -> Result<Objects<'_, T>, repo::Error> {
        let root = self.root(entry::OBJECTS)?;
        Ok(Objects {
            lines: BufReader::new(Box::new(self.reader.stream(&root))),
            number: 0,
            commit: self.commit,
            over: false,
            of: PhantomData,
        })
    }

    fn root(&self, name: &str) -> Result<Root, repo::Error> {
        match self.manifest.get(name) {
            Some(entry) => Ok(entry.root),
            None => Err(repo::Error::missing(
                format!("{name} of recovery point {}", self.commit),
                "every recovery point has it",
            )),
        }
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<T, repo::Error> {
        let root = self.root(name)?;
        serde_json::from_reader(BufReader::new(self.reader.stream(&root)))
            .map_err(|e| decoding(e, name, &self.commit))
    }
}

/// What of a stored object is read by who only looks at it.
#[derive(Deserialize)]
struct Original {
    original: Value,
}

/// The objects of a point, one after the other.
pub struct Objects<'r, T = StoredObject> {
    lines: BufReader<Box<dyn std::io::Read + 'r>>,
    number: u64,
    commit: CommitId,
    over: bool,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned> Iterator for Objects<'_, T> {
    type Item = Result<T, repo::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let mut line = Vec::new();
        self.number += 1;
        let what = format!("{} line {}", entry::OBJECTS, self.number);
        // A line that does not end is not taken in whole: it is broken off, and refused as what it then is.
        let item = match (&mut self.lines).take(DOCUMENT_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_slice(&line).map_err(|e| decoding(e, &what, &self.commit))),
            Err(e) => Some(Err(from_io(e, &what, &self.commit))),
        };
        // After an error there is nothing to go on with.
        self.over = !matches!(item, Some(Ok(_)));
        item
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, repo::Error> {
    serde_json::to_vec(value).map_err(unwritten)
}

fn document<T: Serialize>(writer: &Writer, name: &str, value: &T) -> Result<ManifestEntry, repo::Error> {
    // A certificate can be larger than all that it is about: it is never in memory as text.
    let mut stream = std::io::BufWriter::with_capacity(WRITTEN_BYTES, writer.stream(Lane::Data));
    serde_json::to_writer(&mut stream, value).map_err(unwritten)?;
    let stream = stream.into_inner().map_err(|e| unstored(e.into_error()))?;
    Ok(bytes_entry(name, stream.finish()?))
}

fn unwritten(error: serde_json::Error) -> repo::Error {
    if error.is_io() {
        return unstored(error.into());
    }
    repo::Error::invalid(format!("a part of the recovery point cannot be written as JSON: {error}"))
}

fn unstored(error: std::io::Error) -> repo::Error {
    let failed = |error| repo::Error::failed(format!("writing a part of the recovery point: {error}"));
    repo::Error::from_io(error).unwrap_or_else(failed)
}

fn bytes_entry(name: &str, root: Root) -> ManifestEntry {
    ManifestEntry { name: name.into(), kind: EntryKind::Bytes, root, figures: BTreeMap::new() }
}

fn decoding(error: serde_json::Error, what: &str, commit: &CommitId) -> repo::Error {
    if error.is_io() {
        return from_io(error.into(), what, commit);
    }
    // Every byte was authenticated, so it was written like this.
    repo::Error::damaged(
        format!("{what} of recovery point {commit}"),
        format!("it is not what the format says: {error}"),
    )
}

fn from_io(error: std::io::Error, what: &str, commit: &CommitId) -> repo::Error {
    match repo::Error::from_io(error) {
        Ok(error) => error,
        Err(error) => repo::Error::failed(format!("{what} of recovery point {commit}: {error}")),
    }
}

/// The recovery points of a repository, oldest first: of one application, or all.
pub fn points(
    repository: &Repository,
    application: Option<&str>,
) -> Result<Outcome<Vec<CommitInfo>>, repo::Error> {
    let mut commits = repository.commits()?;
    commits.done.retain(|info| {
        info.summary.kind == COMMIT_KIND
            && application
                .is_none_or(|name| info.summary.labels.get("application").is_some_and(|a| a == name))
    });
    Ok(commits)
}
