//! A recovery point in a repository: its parts, written and read back.
//!
//! The bytes are fixed in `docs/formats/recovery-point.md`. One commit holds everything (promise P1): objects,
//! volumes, certificate and what the API looked like.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::ResourceType;
use crate::object::ObjectKey;

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
    pub original: Value,
    /// As a restore applies it.
    pub clean: Value,
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
