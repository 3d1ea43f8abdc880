//! Check: what of a repository is as it was written, and what a damage touches.
//!
//! Without reading data it holds every name, MAC and tag of header, keys, commits and index against the
//! content, and follows every recovery point: each stream it names must be made of chunks that the index
//! finds in packs that are there with the promised size; trees and manifests are read and verified on the way.
//! With `read_data` every pack is read once, whatever number of points needs it, and every chunk opened,
//! decompressed and compared with its id (R4). A `budget` reads a part of the packs in each run and all of them in
//! time (`turns.rs`); `points` looks at what these points need and at nothing else.
//!
//! The packs come first and the points after: so one walk over the points both shows what is reachable and
//! names, for everything found bad, the recovery points and files it touches. A stream that several
//! points share is walked once.
//!
//! Nothing is changed; a run with a budget adds a note of how far it came. Bytes are hostile until verified: what does not parse is a finding, never a panic. Not
//! being able to look (no connection, no rights) is an error and no finding, because it says nothing
//! about the data.
//!
//! The codes of findings, which do not change:
//!
//! | code | what | severity |
//! |---|---|---|
//! | `header-missing`, `header-damaged` | the header, since the repository was opened | error |
//! | `key-damaged` | a key object: its passphrase opens nothing | error |
//! | `commit-damaged` | a commit: that point is lost | error |
//! | `hold-damaged` | a hold that cannot be read; it goes on holding | error |
//! | `held-point-missing` | a commit that is held and gone | error |
//! | `segment-damaged` | an index segment: chunks only it names are lost until the index is rebuilt | error |
//! | `index-incomplete` | chunks that points need and no segment names | error |
//! | `index-wrong` | the index promises of a whole pack what it does not hold | error |
//! | `pack-missing`, `pack-damaged` | a pack | error; warning if no segment names it; note if objects are locked and nothing needs it |
//! | `manifest-invalid`, `tree-invalid`, `stream-invalid` | authentic and impossible: written so | error |
//! | `pack-unlisted` | a chunk in a pack that the index names otherwise, but not there | warning |
//! | `read-unsteady` | a pack that was wrong when read first and right when read again | warning |
//! | `check-note-damaged`, `check-not-noted` | how far the turns have come cannot be read, or written | warning |
//! | `check-partial` | the key does not allow more | warning |
//! | `packs-unreferenced`, `parent-missing`, `stray-object` | good to know | note |
//!
//! What check cannot see: a commit deleted by whoever may delete (it shows only as the missing parent of a
//! later one), and a complete older copy of the store served again.

pub(crate) mod damage;
pub(crate) mod packs;
pub(crate) mod turns;
pub(crate) mod walk;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use crate::commit::Sealed;
use crate::env::{Cancel, Timestamp};
use crate::error::Error;
use crate::hold;
use crate::id::{CommitId, HEADER, HoldId, KEYS, PackId, SegmentId};
use crate::immutable;
use crate::immutable::is_passing;
use crate::index::{Index, PackSet};
use crate::lease::{self, Notes};
use crate::monitor::{Finding, Progress, Severity};
use crate::object::{Capability, Root, Summary};
use crate::reader::{Reader, ReaderOptions};
use crate::repo::Repository;
use crate::store::StoreError;
use crate::undelete;

use damage::{Cause, Ledger, Unneeded};
use packs::{PackReader, Places};
use turns::Turns;
pub use turns::{Budget, Turn};
pub(crate) use turns::{note_samples, recode_note};

/// How thorough, and how fast.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Also read every pack and verify every chunk; with `points`, every pack that these need.
    pub read_data: bool,
    /// Also read so much of the packs, those first that were read the longest ago. Not together with `read_data` or
    /// `points`.
    pub budget: Option<Budget>,
    /// Look only at these recovery points and what they need.
    pub points: Option<Vec<CommitId>>,
    /// Threads; 0: one for each processor. Each holds a pack (up to 64 MiB) in memory while it reads data.
    pub threads: usize,
    /// Stops it.
    pub cancel: Cancel,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CheckCounts {
    /// Key objects.
    pub keys: u64,
    /// Commits, damaged ones included.
    pub commits: u64,
    /// Index segments, damaged ones included.
    pub segments: u64,
    /// Packs in the store.
    pub packs: u64,
    /// Places of chunks the index names.
    pub chunks: u64,
    /// Bytes of packs in the store.
    pub bytes_stored: u64,
    /// Chunks opened and compared with their ids; 0 if no data was read.
    pub chunks_read: u64,
    /// Plain bytes of these.
    pub bytes_read: u64,
    /// Packs that no index segment names.
    pub packs_unreferenced: u64,
    /// Bytes of these.
    pub bytes_unreferenced: u64,
}

/// A recovery point that lost something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PointTouched {
    /// Which.
    pub commit: CommitId,
    /// When it was made; 0 if the commit itself cannot be read.
    pub time: Timestamp,
    /// Its kind; empty if the commit itself cannot be read.
    pub kind: String,
    /// Its labels; empty if the commit itself cannot be read.
    pub labels: BTreeMap<String, String>,
    /// Nothing of it can be restored.
    pub whole: bool,
    /// The first files that cannot be restored, as `<manifest entry>/<path>`.
    pub files: Vec<String>,
    /// How many there are.
    pub files_count: u64,
}

/// What a check did and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Whether all data was read (with chosen points: all that they need).
    pub read_data: bool,
    /// What a run with a budget read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<Turn>,
    /// What was looked at.
    pub counts: CheckCounts,
    /// What was found; errors first.
    pub findings: Vec<Finding>,
    /// The recovery points that lost something, oldest first.
    pub points: Vec<PointTouched>,
}

impl CheckReport {
    /// Whether anything is missing or damaged.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// A commit that could be read.
pub(crate) struct Point {
    id: CommitId,
    summary: Summary,
    /// Of its manifest; `None` without the read key.
    root: Option<Root>,
}

/// What the listing of the store showed.
#[derive(Default)]
pub(crate) struct Listing {
    keys: u64,
    pub(crate) commits: Vec<CommitId>,
    pub(crate) segments: Vec<SegmentId>,
    /// Ascending.
    pub(crate) packs: Vec<(PackId, u64)>,
    notes: Vec<String>,
    strays: Vec<String>,
}

/// Checks the repository. Needs the list key, and the read key to follow recovery points and to read data.
pub fn check(
    repo: &Repository,
    options: &CheckOptions,
    progress: &dyn Progress,
) -> Result<CheckReport, Error> {
    repo.require(Capability::List)?;
    if options.budget.is_some() && (options.read_data || options.points.is_some()) {
        return Err(Error::invalid(
            "a budget is for all packs in turn: without read_data, and without points",
        ));
    }
    let run = Run::new(repo, options.threads, &options.cancel, progress);
    let mut report = CheckReport { read_data: options.read_data, ..CheckReport::default() };
    let ledger = Ledger::default();

    progress.note("listing objects");
    let mut listing = run.list()?;
    // Never acknowledged, and said so: nobody counts on them.
    let notes = Notes::list(repo)?;
    let voided = lease::voided(repo, &notes)?;
    report.findings.extend(lease::look_at_verdicts(repo, &notes)?);
    listing.commits.retain(|id| !voided.contains(id));
    report.findings.extend(run.header()?);
    match &options.points {
        // Whatever else there is is not asked for.
        Some(points) => listing.commits.clone_from(points),
        None => {
            for key in &listing.strays {
                report.findings.push(Finding::note(
                    "stray-object",
                    key,
                    "no object of a repository has such a name; it is never read",
                ));
            }
            report.findings.extend(repo.keys()?.findings);
            check_holds(repo, &mut report)?;
            report.findings.extend(what_somebody_did(repo)?);
            report.findings.extend(immutable::look_at_bucket(repo)?);
        }
    }
    report.counts.keys = listing.keys;
    report.counts.commits = listing.commits.len() as u64;
    report.counts.packs = listing.packs.len() as u64;
    report.counts.bytes_stored = listing.packs.iter().map(|(_, size)| size).sum();

    progress.note("reading commits");
    let points = run.commits(&listing.commits, &ledger)?;
    if options.points.is_none() {
        note_missing_parents(&points, &listing.commits, &mut report);
    }

    progress.note("reading the index");
    match repo.capability() {
        Capability::Read => {
            let reader_options = ReaderOptions { cancel: options.cancel.clone(), ..ReaderOptions::default() };
            let reader = repo.reader_by(repo.index_verified()?, reader_options)?;
            run.content(reader.index(), Some(&reader), &mut listing, &points, options, &ledger, &mut report)?;
        }
        _ => {
            run.content(&repo.index_verified()?, None, &mut listing, &points, options, &ledger, &mut report)?;
            report.findings.push(Finding::warning(
                "check-partial",
                repo.url(),
                "opened with the list key: recovery points were not followed and no data was read; check with the read key for that",
            ));
        }
    }
    ledger.finish(&points, Unneeded::of(repo), &mut report);
    report.findings.sort_by(|a, b| (b.severity, a.code, &a.what).cmp(&(a.severity, b.code, &b.what)));
    Ok(report)
}

/// Deletions and overwrites that a bucket with versions still knows of.
fn what_somebody_did(repo: &Repository) -> Result<Vec<Finding>, Error> {
    if !repo.probe().is_some_and(|probe| probe.versions) || repo.store().vault().is_none() {
        return Ok(Vec::new());
    }
    // The header opened this repository: it is right.
    match undelete::plan(&**repo.store(), None) {
        Ok(plan) => Ok(plan.steps.iter().map(undelete::Step::finding).chain(plan.findings).collect()),
        Err(Error::Store(error @ (StoreError::Denied { .. } | StoreError::NotSupported { .. }))) => {
            Ok(vec![Finding::note(
                "versions-not-seen",
                repo.url(),
                format!("whether somebody deleted or overwrote objects cannot be seen: {error}"),
            )])
        }
        Err(error) => Err(error),
    }
}

/// The packs that these points are made of, as far as the index knows them. Needs the read key.
pub(crate) fn packs_of(repo: &Repository, reader: &Reader, points: &[CommitId]) -> Result<PackSet, Error> {
    let cancel = Cancel::default();
    let run = Run::new(repo, 0, &cancel, &());
    let index = reader.index();
    let mut packs: Vec<(PackId, u64)> = (0..index.pack_count() as u32)
        .filter_map(|number| index.pack(number).map(|(id, size)| (id, u64::from(size))))
        .collect();
    packs.sort_unstable();
    // What is damaged is for a check to tell.
    let ledger = Ledger::default();
    let points = run.commits(points, &ledger)?;
    let needed = PackSet::of(index);
    walk::walk_all(&run, reader, &Places::new(index, &packs), &ledger, &points, Some(&needed))?;
    Ok(needed)
}

fn check_holds(repo: &Repository, report: &mut CheckReport) -> Result<(), Error> {
    report.findings.extend(repo.holds()?.findings);
    report.findings.extend(hold::held_and_gone(repo)?);
    Ok(())
}

fn note_missing_parents(points: &[Point], present: &[CommitId], report: &mut CheckReport) {
    let mut present = present.to_vec();
    present.sort_unstable();
    for point in points {
        for parent in &point.summary.parents {
            if present.binary_search(parent).is_err() {
                report.findings.push(Finding::note(
                    "parent-missing",
                    parent.key(),
                    format!(
                        "recovery point {} builds on it and it is not there: removed by retention, or lost. {} does not need it",
                        point.id.short(),
                        point.id.short()
                    ),
                ));
            }
        }
    }
}

fn note_unreferenced(places: &Places, report: &mut CheckReport) {
    let unreferenced = places.unreferenced();
    let bytes = unreferenced.iter().map(|(_, size)| size).sum();
    report.counts.packs_unreferenced = unreferenced.len() as u64;
    report.counts.bytes_unreferenced = bytes;
    if let Some((first, _)) = unreferenced.first() {
        report.findings.push(Finding::note(
            "packs-unreferenced",
            first.key(),
            format!(
                "{} pack(s) of {bytes} bytes are named by no index segment: of a write under way, of one that died, or of a lost segment. They cost space only",
                unreferenced.len()
            ),
        ));
    }
}

/// After so many packs the note of how far the turns have come is put, so that a run that is killed has not read in
/// vain: 64 GiB in packs of 16 MiB.
const PACKS_A_NOTE: usize = 4_096;

/// What every part of a check is handed.
pub(crate) struct Run<'r> {
    repo: &'r Repository,
    threads: usize,
    cancel: &'r Cancel,
    progress: &'r dyn Progress,
}

impl<'r> Run<'r> {
    /// `threads` 0: one for each processor.
    pub(crate) fn new(
        repo: &'r Repository,
        threads: usize,
        cancel: &'r Cancel,
        progress: &'r dyn Progress,
    ) -> Run<'r> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            threads => threads,
        };
        Run { repo, threads, cancel, progress }
    }

    /// The header opened this repository, so all it can be is gone or changed since.
    fn header(&self) -> Result<Option<Finding>, Error> {
        let (code, what) = match self.repo.store().get(HEADER) {
            Ok(bytes) if bytes == *self.repo.header() => return Ok(None),
            Ok(_) => ("header-damaged", "it was changed since this repository was opened".to_owned()),
            Err(StoreError::NotFound { .. }) => {
                ("header-missing", "it is gone since this repository was opened".to_owned())
            }
            Err(error) => ("header-damaged", lost(error.into())?),
        };
        let next = "without its exact bytes no key opens; put it back from a copy";
        Ok(Some(Finding::error(code, HEADER, format!("{what}; {next}"))))
    }

    pub(crate) fn list(&self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        self.repo.store().list("", &mut |object| {
            let key = &object.key;
            if let Some(id) = PackId::from_key(key) {
                listing.packs.push((id, object.size));
            } else if let Some(id) = SegmentId::from_key(key) {
                listing.segments.push(id);
            } else if let Some(id) = CommitId::from_key(key) {
                listing.commits.push(id);
            } else if key.strip_prefix(KEYS).is_some_and(|name| !name.contains('/')) {
                listing.keys += 1;
            } else if turns::is_note_key(key) {
                listing.notes.push(object.key);
            } else if key != HEADER
                && HoldId::from_key(key).is_none()
                && !is_passing(key)
                && !lease::is_known(key)
            {
                listing.strays.push(object.key);
            }
            Ok(())
        })?;
        listing.packs.sort_unstable();
        Ok(listing)
    }

    /// Index, packs and, with a reader, what the points are made of.
    #[allow(clippy::too_many_arguments, reason = "one call site; what each part of a check needs")]
    fn content(
        &self,
        index: &Index,
        reader: Option<&Reader>,
        listing: &mut Listing,
        points: &[Point],
        options: &CheckOptions,
        ledger: &Ledger,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        report.counts.segments = index.segment_count() as u64;
        report.counts.chunks = index.chunk_count() as u64;
        for finding in index.findings() {
            ledger.object(Cause::Segment(finding.what.clone()), finding.code, finding.message.clone());
        }
        let places = Places::new(index, &listing.packs);
        let needed = match (&options.points, reader) {
            (Some(_), Some(reader)) => {
                self.progress.note("finding what the points need");
                let needed = PackSet::of(index);
                walk::walk_all(self, reader, &places, &Ledger::default(), points, Some(&needed))?;
                Some(needed)
            }
            _ => None,
        };
        places.report_packs(index, needed.as_ref(), ledger);
        if options.points.is_none() {
            note_unreferenced(&places, report);
        }
        let Some(reader) = reader else { return Ok(()) };
        if options.read_data || options.budget.is_some() {
            self.progress.note("reading packs");
            let packs = PackReader::new(self, index, &places, ledger)?;
            match (options.budget, needed) {
                (Some(budget), _) => {
                    let turns = Turns::new(self.repo, &mut listing.notes, &listing.packs, budget)?;
                    report.findings.extend(turns.1);
                    self.take_turns(&packs, &turns.0, report)?;
                }
                (None, Some(needed)) => {
                    let chosen = needed.numbers().filter(|number| places.size(*number).is_some());
                    let chosen = chosen.filter_map(|number| index.pack(number));
                    let chosen: Vec<_> = chosen.map(|(id, size)| (id, u64::from(size))).collect();
                    self.read_packs(&packs, &chosen)?;
                }
                (None, None) => self.read_packs(&packs, &listing.packs)?,
            }
            packs.finish(&mut report.counts);
        }
        self.progress.note("following recovery points");
        walk::walk_all(self, reader, &places, ledger, points, None)
    }

    fn read_packs(&self, reader: &PackReader<'_>, packs: &[(PackId, u64)]) -> Result<(), Error> {
        self.progress.total(packs.len() as u64, packs.iter().map(|(_, size)| size).sum());
        reader.read(packs.len(), &|at| packs.get(at).copied(), &|_| false).1
    }

    /// Reads the packs whose turn it is, and writes down how far it came.
    fn take_turns(
        &self,
        reader: &PackReader<'_>,
        turns: &Turns<'_>,
        report: &mut CheckReport,
    ) -> Result<(), Error> {
        let count = turns.count();
        let bytes = (0..count).filter_map(|at| turns.pack(at)).map(|(_, size)| size).sum();
        self.progress.total(count as u64, bytes);
        let mut read = 0;
        while read < count {
            let batch = PACKS_A_NOTE.min(count - read);
            // One pack in each run at least, however short the time: so the turns go on.
            let is_over = |at: usize| read + at > 0 && turns.is_over();
            let (more, outcome) = reader.read(batch, &|at| turns.pack(read + at), &is_over);
            read += more;
            let (turn, finding) = turns.put(read)?;
            report.turn = Some(turn);
            report.findings.extend(finding);
            outcome?;
            if more < batch {
                break;
            }
        }
        Ok(())
    }

    /// Reads all commits, oldest first; what cannot be read goes to the ledger.
    pub(crate) fn commits(&self, ids: &[CommitId], ledger: &Ledger) -> Result<Vec<Point>, Error> {
        let points = Mutex::new(Vec::with_capacity(ids.len()));
        // Small objects: over a network it is the latency that counts.
        self.parallel(self.threads.max(8), ids.len(), |at| {
            let Some(id) = ids.get(at) else { return Ok(()) };
            match self.commit(id) {
                Ok(point) => locked(&points).push(point),
                Err(error) => {
                    let what = lost(error)?;
                    ledger.lost_point(*id, "commit-damaged", what);
                }
            }
            Ok(())
        })?;
        let mut points = points.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        points.sort_by_key(|point| (point.summary.time, point.id));
        Ok(points)
    }

    fn commit(&self, id: &CommitId) -> Result<Point, Error> {
        let bytes = self.repo.store().get(&id.key())?;
        let keys = self.repo.secrets();
        let sealed = Sealed::parse(keys, id, &bytes)?;
        let summary = sealed.summary(keys)?;
        let root = match self.repo.capability() {
            Capability::Read => Some(sealed.manifest(keys)?),
            _ => None,
        };
        Ok(Point { id: *id, summary, root })
    }

    /// Calls `work` for 0 to `count` on several threads; the first error ends all of them.
    pub(crate) fn parallel(
        &self,
        threads: usize,
        count: usize,
        work: impl Fn(usize) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let run = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return;
                }
                if let Err(error) = self.cancel.check().and_then(|()| work(at)) {
                    locked(&failed).get_or_insert(error);
                    next.store(count, Ordering::Relaxed);
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(count) {
                scope.spawn(run);
            }
            run();
        });
        match failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// What an error says of the object that was read, if it is about the object: wrong or missing bytes, or a
/// medium that does not give them. Any other error says nothing about the data and ends the check.
pub(crate) fn lost(error: Error) -> Result<String, Error> {
    match error {
        Error::Damaged { what, .. } => Ok(what),
        Error::Missing { what, .. } => Ok(format!("it is missing ({what})")),
        Error::Store(StoreError::NotFound { .. }) => Ok("it is missing".to_owned()),
        Error::Store(StoreError::Short { size, wanted, .. }) => {
            Ok(format!("it has {size} bytes where {wanted} were expected"))
        }
        Error::Store(StoreError::Unreadable { reason, .. }) => Ok(format!("it cannot be read: {reason}")),
        error => Err(error),
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What a thread left behind when it panicked is whole: every change is one call on a collection.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests;
