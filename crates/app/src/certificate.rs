//! The certificate (promise P3): a recovery point's own account of completeness.
//!
//! Every reference of every stored object is included, expected on the target, or missing, and every volume
//! has its bytes here or says why not. A restore that fails for a Secret nobody had would have been told
//! at backup time. Bytes: `docs/formats/recovery-point.md`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::graph::{By, Edge, Graph, RefKind};
use crate::names::Kind;
use crate::object::ObjectKey;
use crate::point::{Consistency, VolumeRecord};

/// What became of one reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The referred object is in the point.
    Included,
    /// The target cluster or its administrator provides it.
    #[serde(rename = "expected")]
    ExpectedOnTarget,
    /// It is nowhere: a restore will lack it.
    Missing,
}

/// One reference and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The object that refers.
    pub from: ObjectKey,
    /// The object referred to.
    pub to: ObjectKey,
    /// What the reference means.
    pub via: RefKind,
    /// JSON pointer into `from`: the evidence.
    pub at: String,
    /// How it is known.
    #[serde(default, skip_serializing_if = "By::is_table")]
    pub by: By,
    /// What became of it.
    pub state: State,
    /// Why, unless it is included.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Something outside of the cluster that an object names. No point has its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct External {
    /// The object that names it.
    pub from: ObjectKey,
    /// JSON pointer into `from`: the evidence.
    pub at: String,
    /// What it is.
    pub kind: Kind,
    /// `postgres://db.example.com:5432/shop`, without anything secret.
    pub name: String,
}

impl External {
    /// `database postgres://db.example.com:5432/shop`.
    pub fn words(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }
}

/// How one claim's data stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeState {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim.
    pub claim: String,
    /// Its level, if its data is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// Why its data is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl VolumeState {
    /// What a volume record says.
    pub fn of(record: &VolumeRecord) -> VolumeState {
        VolumeState {
            namespace: record.namespace.clone(),
            claim: record.claim.clone(),
            consistency: record.missing.is_none().then_some(record.consistency),
            missing: record.missing.clone(),
        }
    }
}

/// How bad a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Something is weaker than it should be.
    Warning,
    /// Something is not protected.
    Error,
}

/// A finding as it is stored: what was found, on what, how bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How bad.
    pub severity: Level,
    /// A stable word for machines: `forbidden`, `api-group-broken`.
    pub code: String,
    /// What it is about.
    pub what: String,
    /// What happened and what to do next.
    pub message: String,
}

impl From<&repo::Finding> for Note {
    fn from(finding: &repo::Finding) -> Note {
        Note {
            severity: match finding.severity {
                repo::Severity::Note => Level::Note,
                repo::Severity::Warning => Level::Warning,
                repo::Severity::Error => Level::Error,
            },
            code: finding.code.to_owned(),
            what: finding.what.clone(),
            message: finding.message.clone(),
        }
    }
}

/// The account of completeness.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Nothing is missing.
    pub complete: bool,
    /// Every reference of every stored object.
    #[serde(default)]
    pub references: Vec<Reference>,
    /// What is outside of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<External>,
    /// Every claim a stored object uses.
    #[serde(default)]
    pub volumes: Vec<VolumeState>,
    /// What was found on the way.
    #[serde(default)]
    pub findings: Vec<Note>,
}

/// Findings with these codes mean that something could not be read: the point is incomplete.
pub const CODES_INCOMPLETE: &[&str] = &["forbidden", "unreadable"];

fn is_gap(note: &Note) -> bool {
    note.severity >= Level::Error || CODES_INCOMPLETE.contains(&note.code.as_str())
}

impl Certificate {
    /// Puts the parts together and decides whether the point is complete.
    pub fn new(references: Vec<Reference>, volumes: Vec<VolumeState>, findings: Vec<Note>) -> Certificate {
        let complete = references.iter().all(|r| r.state != State::Missing)
            && volumes.iter().all(|v| v.missing.is_none())
            && !findings.iter().any(is_gap);
        Certificate { complete, references, external: Vec::new(), volumes, findings }
    }

    /// The same, with what is outside of the cluster. It does not count: nobody can put it into a point.
    pub fn with_external(self, external: Vec<External>) -> Certificate {
        Certificate { external, ..self }
    }

    /// What is missing, in words, one line each: references, volumes, and what could not be read.
    pub fn gaps(&self) -> Vec<String> {
        let references = self.missing().map(|r| format!("{} of {} at {}: {}", r.to, r.from, r.at, r.reason));
        let volumes = self.volumes.iter().filter_map(|v| {
            Some(format!(
                "the data of PersistentVolumeClaim {}/{}: {}",
                v.namespace,
                v.claim,
                v.missing.as_ref()?
            ))
        });
        let findings = self.findings.iter().filter(|f| is_gap(f));
        references.chain(volumes).chain(findings.map(|f| format!("{}: {}", f.what, f.message))).collect()
    }

    /// References that are missing.
    pub fn missing(&self) -> impl Iterator<Item = &Reference> {
        self.references.iter().filter(|r| r.state == State::Missing)
    }

    /// The application's graph: the point's objects and these references.
    pub fn graph(&self, objects: BTreeSet<ObjectKey>) -> Graph {
        let edges = self
            .references
            .iter()
            .map(|r| Edge {
                from: r.from.clone(),
                to: r.to.clone(),
                via: r.via,
                at: r.at.clone(),
                optional: false,
                by: r.by,
            })
            .collect();
        Graph::new(objects, edges)
    }
}
