//! What is wrong, and what it touches: one entry for each object found bad.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use super::{CheckReport, Point, PointTouched, locked};
use crate::env::rfc3339;
use crate::id::{COMMITS, CommitId, INDEX, PackId};
use crate::monitor::{Finding, Severity};
use crate::object::{Capability, Summary};
use crate::repo::Repository;

/// How many names are listed before they are only counted.
const NAMES_MAX: usize = 20;
/// How many different problems of one object are told.
const PROBLEMS_MAX: usize = 5;

/// A pack that is named and not there.
const PACK_MISSING: &str = "pack-missing";

/// What it means that a pack is not there and no point is known to need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unneeded {
    /// Somebody removed it who should not have: a collection writes the segments that named it anew.
    IsOdd,
    /// A collection removed it, and could not remove a segment that names it.
    IsFine,
    /// That, or it is lost: points were not followed.
    MayBe,
}

impl Unneeded {
    /// In this repository, with this key.
    pub(crate) fn of(repo: &Repository) -> Unneeded {
        match (repo.lock(), repo.capability()) {
            (None, _) => Unneeded::IsOdd,
            (Some(_), Capability::Read) => Unneeded::IsFine,
            (Some(_), _) => Unneeded::MayBe,
        }
    }
}

/// What a loss is put down to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Cause {
    /// A pack.
    Pack(PackId),
    /// An index segment, by its key.
    Segment(String),
    /// No segment names a chunk, and nobody is known to be at fault.
    NotIndexed,
    /// The commit itself says what cannot be.
    Commit(CommitId),
    /// Chunks that are whole and yet cannot be what is said of them; becomes [`Cause::Commit`] where it is
    /// known which commit says so.
    Impossible,
}

impl Cause {
    fn object(&self) -> String {
        match self {
            Cause::Pack(id) => id.key(),
            Cause::Segment(key) => key.clone(),
            Cause::NotIndexed => INDEX.to_owned(),
            Cause::Commit(id) => id.key(),
            Cause::Impossible => COMMITS.to_owned(),
        }
    }
}

#[derive(Default)]
struct Damage {
    code: &'static str,
    /// Worse than a note to whom no point is touched.
    severity: Option<Severity>,
    problems: Vec<String>,
    problems_count: u64,
    touched: Touched,
}

/// Names, the first of them and the count of all.
#[derive(Default)]
struct Names {
    first: Vec<String>,
    seen: HashSet<u64>,
}

impl Names {
    fn add(&mut self, name: &str) {
        // A hash instead of the name: a count of files is not worth the memory of all their names.
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        if self.seen.insert(hasher.finish()) && self.first.len() < NAMES_MAX {
            self.first.push(name.to_owned());
        }
    }

    fn count(&self) -> u64 {
        self.seen.len() as u64
    }
}

#[derive(Default)]
struct Touched {
    /// By number in the order of time: the files of each are counted apart.
    points: BTreeMap<usize, u64>,
    files: Names,
}

#[derive(Default)]
struct PointLoss {
    whole: bool,
    files: Names,
}

#[derive(Default)]
struct Inner {
    damages: BTreeMap<Cause, Damage>,
    points: BTreeMap<usize, PointLoss>,
    /// Commits that cannot be read at all.
    lost: BTreeSet<CommitId>,
    /// What is told as it is.
    findings: Vec<Finding>,
}

/// Collects from all threads.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Inner>);

impl Ledger {
    /// An object is wrong. The first code stays, the problems add up.
    pub(super) fn object(&self, cause: Cause, code: &'static str, problem: String) {
        self.record(cause, code, Severity::Error, problem);
    }

    /// An object is wrong and no recovery point can need it.
    pub(super) fn object_unneeded(&self, cause: Cause, code: &'static str, problem: String) {
        self.record(cause, code, Severity::Warning, problem);
    }

    fn record(&self, cause: Cause, code: &'static str, severity: Severity, problem: String) {
        let mut inner = locked(&self.0);
        let damage = inner.damages.entry(cause).or_default();
        if damage.code.is_empty() {
            damage.code = code;
        }
        damage.severity = damage.severity.max(Some(severity));
        damage.problems_count += 1;
        if damage.problems.len() < PROBLEMS_MAX {
            damage.problems.push(problem);
        }
    }

    /// A pack that an index segment names is not there. How bad that is shows at the end: by whether a point needs it.
    pub(super) fn missing(&self, pack: PackId) {
        self.object(Cause::Pack(pack), PACK_MISSING, "it is not in the store".to_owned());
    }

    /// Something that is no damage of an object.
    pub(super) fn finding(&self, finding: Finding) {
        locked(&self.0).findings.push(finding);
    }

    /// A commit that cannot be read.
    pub(super) fn lost_point(&self, id: CommitId, code: &'static str, problem: String) {
        self.object(Cause::Commit(id), code, problem);
        locked(&self.0).lost.insert(id);
    }

    /// A file (or another named stream) of a point needs what these causes lost.
    pub(super) fn touch(&self, causes: &[Cause], point: usize, name: &str) {
        let mut inner = locked(&self.0);
        for cause in causes {
            let touched = &mut inner.damages.entry(cause.clone()).or_default().touched;
            *touched.points.entry(point).or_default() += 1;
            touched.files.add(name);
        }
        inner.points.entry(point).or_default().files.add(name);
    }

    /// All of a point needs what these causes lost.
    pub(super) fn touch_whole(&self, causes: &[Cause], point: usize) {
        let mut inner = locked(&self.0);
        for cause in causes {
            inner.damages.entry(cause.clone()).or_default().touched.points.entry(point).or_default();
        }
        inner.points.entry(point).or_default().whole = true;
    }

    /// Writes it all into the report.
    pub(crate) fn finish(self, points: &[Point], unneeded: Unneeded, report: &mut CheckReport) {
        let inner = self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        report.findings.extend(inner.findings);
        // A point that lacks something cannot be followed to its end: what it needs there nobody knows.
        let all_followed = inner.points.is_empty() && inner.lost.is_empty();
        for (cause, damage) in inner.damages {
            let gone =
                damage.code == PACK_MISSING && damage.problems_count == 1 && damage.touched.points.is_empty();
            report.findings.push(match unneeded {
                Unneeded::IsFine if gone && all_followed => {
                    collected(&cause, "no recovery point needs it", Severity::Note)
                }
                Unneeded::MayBe if gone => collected(
                    &cause,
                    "whether a recovery point needs it is not for this key to tell: check with the read key",
                    Severity::Warning,
                ),
                _ => finding(&cause, damage, points),
            });
        }
        for id in inner.lost {
            let Summary { time, kind, labels, .. } = Summary::default();
            let (files, files_count) = (Vec::new(), 0);
            report.points.push(PointTouched {
                commit: id,
                time,
                kind,
                labels,
                whole: true,
                files,
                files_count,
            });
        }
        for (number, loss) in inner.points {
            let Some(point) = points.get(number) else { continue };
            report.points.push(PointTouched {
                commit: point.id,
                time: point.summary.time,
                kind: point.summary.kind.clone(),
                labels: point.summary.labels.clone(),
                whole: loss.whole,
                files_count: loss.files.count(),
                files: loss.files.first,
            });
        }
    }
}

/// What is said of a pack that a collection may have removed, while an index segment that names it is locked.
fn collected(cause: &Cause, needed: &str, severity: Severity) -> Finding {
    let message = format!(
        "it is not in the store; {needed}. A collection that removes a pack cannot remove an index segment that is locked, and this names the pack until its lock ends"
    );
    Finding { severity, code: PACK_MISSING, what: cause.object(), message }
}

fn finding(cause: &Cause, damage: Damage, points: &[Point]) -> Finding {
    let (code, severity) = match (cause, damage.severity) {
        // Reached without ever being reported by itself: there is no such object to report.
        (Cause::NotIndexed, _) => ("index-incomplete", Severity::Error),
        // Told by none, and yet somebody lacks it: never without a word for programs.
        (_, severity) if damage.code.is_empty() => ("object-damaged", severity.unwrap_or(Severity::Error)),
        (_, severity) => (damage.code, severity.unwrap_or(Severity::Error)),
    };
    let mut message = match cause {
        Cause::NotIndexed => "chunks that recovery points need are named by no index segment: a segment is lost, or a repair left out what was damaged. `holdfast repo repair` names what the packs still hold; a full backup of the same content stores the rest anew".to_owned(),
        _ => damage.problems.join("; "),
    };
    let more = damage.problems_count.saturating_sub(damage.problems.len() as u64);
    if more > 0 {
        message += &format!("; and {more} more");
    }
    message += ". ";
    message += &say_touched(cause, &damage.touched, points);
    Finding { severity, code, what: cause.object(), message }
}

fn say_touched(cause: &Cause, touched: &Touched, points: &[Point]) -> String {
    if let (Cause::Commit(id), true) = (cause, touched.points.is_empty()) {
        return format!("Recovery point {} cannot be restored", id.short());
    }
    if touched.points.is_empty() {
        return "No recovery point needs what is lost".to_owned();
    }
    let named = touched.points.iter().take(NAMES_MAX).filter_map(|(number, files)| {
        let point = points.get(*number)?;
        let part = match files {
            0 => "all of it".to_owned(),
            1 => "1 file".to_owned(),
            files => format!("{files} files"),
        };
        Some(format!("{} ({}; {part})", point.id.short(), describe(&point.summary)))
    });
    let mut text = format!(
        "Touches {} recovery point(s): {}",
        touched.points.len(),
        named.collect::<Vec<_>>().join(", ")
    );
    let more = touched.points.len().saturating_sub(NAMES_MAX);
    if more > 0 {
        text += &format!(", and {more} more");
    }
    let files = &touched.files;
    if files.count() > 0 {
        text += &format!(". {} file(s): {}", files.count(), files.first.join(", "));
        let more = files.count() - files.first.len() as u64;
        if more > 0 {
            text += &format!(", and {more} more");
        }
    }
    text
}

/// `volume app=shop, 2026-11-21T11:45:20Z`
fn describe(summary: &Summary) -> String {
    let labels = summary.labels.iter().map(|(name, value)| format!("{name}={value}"));
    let words: Vec<String> = std::iter::once(summary.kind.clone()).chain(labels).collect();
    format!("{}, {}", words.join(" "), rfc3339(summary.time))
}
