//! What `points` and `show` tell: recovery points as rows, and one of them in detail.
//!
//! A row needs only a commit's summary, so listing a thousand points reads no object.

use std::collections::BTreeMap;

use repo::{CommitId, CommitInfo};
use serde::Serialize;

use crate::certificate::{Note, Reference, State};
use crate::object::ObjectKey;
use crate::point::{COMMIT_KIND, Point, PointMeta, Restore, Role, VolumeRecord};

/// One recovery point in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its commit.
    pub id: CommitId,
    /// The application.
    pub application: String,
    /// When it was committed.
    pub time: jiff::Timestamp,
    /// Namespaces of its members.
    pub namespaces: Vec<String>,
    /// The weakest level of its volumes; `none` without volumes.
    pub consistency: String,
    /// Nothing is missing.
    pub complete: bool,
    /// Objects stored.
    pub objects: u64,
    /// Volumes with their data.
    pub volumes: u64,
    /// Volumes without.
    pub volumes_missing: u64,
    /// References that lead nowhere.
    pub references_missing: u64,
    /// Bytes in volumes.
    pub bytes: u64,
    /// Files in volumes.
    pub files: u64,
    /// Warnings and errors.
    pub findings: u64,
    /// How long the application was held, in milliseconds.
    pub hold_ms: u64,
}

impl Row {
    /// What a commit's summary says, or `None` if it is no recovery point.
    pub fn of(info: &CommitInfo) -> Option<Row> {
        let summary = &info.summary;
        if summary.kind != COMMIT_KIND {
            return None;
        }
        let label = |name: &str| summary.labels.get(name).cloned().unwrap_or_default();
        let figure = |name: &str| summary.figures.get(name).copied().unwrap_or(0);
        Some(Row {
            id: info.id,
            application: label("application"),
            // A time outside of the years jiff knows is nonsense, and shown as 1970 rather than hidden.
            time: jiff::Timestamp::from_nanosecond(i128::from(summary.time))
                .unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            namespaces: label("namespaces").split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect(),
            consistency: label("consistency"),
            complete: label("complete") == "true",
            objects: figure("objects"),
            volumes: figure("volumes"),
            volumes_missing: figure("volumes_missing"),
            references_missing: figure("references_missing"),
            bytes: figure("bytes"),
            files: figure("files"),
            findings: figure("findings"),
            hold_ms: figure("hold_ms"),
        })
    }
}

/// The recovery points among commits, in their order; of one application, if one is named.
pub fn rows(commits: &[CommitInfo], application: Option<&str>) -> Vec<Row> {
    commits
        .iter()
        .filter_map(Row::of)
        .filter(|row| application.is_none_or(|name| row.application == name))
        .collect()
}

/// One object of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectRow {
    /// Which.
    pub key: ObjectKey,
    /// API version it was stored in.
    pub api_version: String,
    /// How it belongs.
    pub role: Role,
    /// Whether a restore applies it.
    pub restore: Restore,
}

/// One recovery point in detail.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Detail {
    /// Its row.
    pub row: Row,
    /// What it is.
    pub meta: PointMeta,
    /// How many objects of each kind.
    pub kinds: BTreeMap<String, usize>,
    /// Its objects.
    pub objects: Vec<ObjectRow>,
    /// Its volumes.
    pub volumes: Vec<VolumeRecord>,
    /// References that lead nowhere.
    pub missing: Vec<Reference>,
    /// References that the target has to satisfy.
    pub expected: Vec<Reference>,
    /// How many references are satisfied by the point itself.
    pub included: usize,
    /// What was found when it was taken.
    pub findings: Vec<Note>,
}

/// A point in detail, or `None` if the commit is no recovery point.
pub fn detail(info: &CommitInfo, point: &Point) -> Option<Detail> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for stored in &point.objects {
        *kinds.entry(stored.resource.full_name()).or_default() += 1;
    }
    let of = |state: State| -> Vec<Reference> {
        point.certificate.references.iter().filter(|reference| reference.state == state).cloned().collect()
    };
    Some(Detail {
        row: Row::of(info)?,
        meta: point.meta.clone(),
        kinds,
        objects: point
            .objects
            .iter()
            .map(|stored| ObjectRow {
                key: stored.key.clone(),
                api_version: stored.resource.api_version(),
                role: stored.role,
                restore: stored.restore,
            })
            .collect(),
        volumes: point.volumes.clone(),
        missing: of(State::Missing),
        expected: of(State::ExpectedOnTarget),
        included: of(State::Included).len(),
        findings: point.certificate.findings.clone(),
    })
}
