//! Garbage collection: gives back the space of what no recovery point needs.
//!
//! Runs beside any number of writers, readers and other collections. Why that is safe is told in
//! docs/decisions/0008-collection.md, and byte by byte in docs/formats/repository.md; the writers' part is in
//! `lease.rs`. In short, for a pack nobody needs: a *mark* says so, and writers that begin from now on do not rely on
//! it; when those that began before are through, a *verdict* sentences it; then commits are listed once more, and
//! what a new one needs stays; then index segments without the pack are written, the old ones deleted, and at last
//! the pack.
//!
//! - What is there to be done is a value first, [`Plan`]; [`Plan::execute`] consumes it. Everything it goes by lies in
//!   the store, so a run that is killed anywhere is finished by the next.
//! - If a commit cannot be followed, nothing is deleted: what it cannot read may need anything. Nor is anything while a
//!   held commit is not there: somebody deleted it, and it may be brought back. A chunk of content
//!   that is lost holds back only what the index does not know (it could be in there).
//! - Needs the read key, because only who reads trees knows what is needed.
//! - Memory is some bits a chunk and some words a pack (R6).

mod copy;
#[cfg(test)]
mod histories;
mod tally;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;

use crate::env::{Cancel, Timestamp};
use crate::error::Error;
use crate::hold;
use crate::id::{CommitId, INDEX, PACKS, PackId, SegmentId, WriterId};
#[cfg(test)]
use crate::lease::Sabotage;
use crate::lease::{self, LEASE, LEASES, Notes, PackList};
use crate::monitor::{Finding, Progress, Severity};
use crate::object::Capability;
use crate::reader::ReaderOptions;
use crate::repo::Repository;
use crate::store::Object;

use copy::{copy_out, delete, rewrite_segments};
use tally::{Listed, Tally};
use walk::{Blocked, Reach};

/// How many objects that cannot be deleted are told one by one.
const LOCKED_SHOWN: u64 = 20;
/// How often what a new commit needs is copied out before the rest is left to the next run.
const ROUNDS_MAX: usize = 4;

/// How a collection works.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// How long a mark rests before its packs are sentenced, at least.
    pub grace: Duration,
    /// Packs of which less than so many percent are needed are written anew; 0: none.
    pub repack_percent: u8,
    /// Make few index segments of many small ones.
    pub merge_segments: bool,
    /// Threads; 0: one for each processor.
    pub threads: usize,
    /// Memory for chunks that are kept while trees are read.
    pub memory_bytes: usize,
    /// Stops it. What is done stays done; the next run goes on.
    pub cancel: Cancel,
    /// What a test breaks.
    #[cfg(test)]
    pub(crate) sabotage: Sabotage,
}

/// How long a mark rests unless somebody says otherwise: a restore under way finds its packs so long without
/// reading the index again.
pub const GRACE: Duration = Duration::from_secs(3_600);

impl Default for GcOptions {
    fn default() -> GcOptions {
        GcOptions {
            grace: GRACE,
            repack_percent: 50,
            merge_segments: true,
            threads: 0,
            memory_bytes: 32 << 20,
            cancel: Cancel::default(),
            #[cfg(test)]
            sabotage: Sabotage::None,
        }
    }
}

/// What is to become of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Sentenced, and nobody needs it: it goes.
    Delete,
    /// Sentenced, and something needs a part of it, which is copied first.
    Carry,
    /// Marked long enough: it is sentenced, and goes in the same run if nothing new needs it.
    Sentence,
    /// Marked, and it has to rest: for the grace period, or for a writer that may rely on it.
    Wait,
    /// Nobody needs it: it is marked.
    Mark,
    /// Little of it is needed, which is copied; then it is marked.
    Repack,
    /// Nobody needs it yet, and a writer is at work that may be about to.
    Young,
}

/// A pack that does not simply stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PackFate {
    /// What becomes of it.
    pub fate: Fate,
    /// Which.
    pub pack: PackId,
    /// Its bytes.
    pub bytes: u64,
    /// How many of them are needed.
    pub bytes_needed: u64,
}

/// What a collection would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlanReport {
    /// Recovery points followed.
    pub commits: u64,
    /// Commits that were never acknowledged and say so: they are removed.
    pub commits_void: u64,
    /// Writers at work, by their leases.
    pub writers: u64,
    /// Packs in the store.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of packs that recovery points need.
    pub bytes_needed: u64,
    /// Index segments.
    pub segments: u64,
    /// The packs that do not simply stay.
    pub fates: Vec<PackFate>,
    /// What was found. An error among them: nothing will be done.
    pub findings: Vec<Finding>,
}

impl PlanReport {
    /// How many packs have this fate, and their bytes.
    pub fn count(&self, fate: Fate) -> (u64, u64) {
        let of = self.fates.iter().filter(|one| one.fate == fate);
        of.fold((0, 0), |(count, bytes), one| (count + 1, bytes + one.bytes))
    }

    /// Whether nothing may be deleted, because something could not be read.
    pub fn is_blocked(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Packs marked.
    pub packs_marked: u64,
    /// Packs sentenced.
    pub packs_sentenced: u64,
    /// Packs deleted.
    pub packs_deleted: u64,
    /// Bytes of these.
    pub bytes_deleted: u64,
    /// Chunks copied out of packs that go.
    pub chunks_copied: u64,
    /// Sealed bytes of these.
    pub bytes_copied: u64,
    /// Packs written with them.
    pub packs_written: u64,
    /// Bytes of these.
    pub bytes_written: u64,
    /// Index segments written.
    pub segments_written: u64,
    /// Index segments deleted.
    pub segments_deleted: u64,
    /// Leases, marks, verdicts and voids that were over.
    pub notes_deleted: u64,
    /// Commits that were never acknowledged, removed.
    pub commits_deleted: u64,
    /// Marked packs that wait.
    pub packs_waiting: u64,
    /// Bytes of these.
    pub bytes_waiting: u64,
    /// Objects the store does not let go yet.
    pub locked: u64,
    /// What was found. An error among them: nothing was deleted.
    pub findings: Vec<Finding>,
}

/// What a collection is about to do. Made by [`plan`], consumed by [`Plan::execute`].
pub struct Plan {
    repo: Repository,
    options: GcOptions,
    view: View,
    report: PlanReport,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("report", &self.report).finish_non_exhaustive()
    }
}

/// Looks what is needed and decides what to do. Changes nothing. Needs the read key.
pub fn plan(repo: &Repository, options: GcOptions, progress: &dyn Progress) -> Result<Plan, Error> {
    repo.require(Capability::Read)?;
    let looking = Looking { repo, options: &options, progress, own: &HashSet::new() };
    let (mut view, mut blocked) = looking.look(None)?;
    if !blocked.is_empty() {
        // Another collection may have moved things while this one looked: what is so, is so twice.
        (view, blocked) = looking.look(None)?;
    }
    let mut report = PlanReport {
        commits: view.reach.commits() as u64,
        commits_void: view.voided.len() as u64,
        writers: view.running(view.latest(repo.env().now())).count() as u64,
        packs: view.packs.len() as u64,
        bytes: view.packs.values().map(|pack| pack.size).sum(),
        segments: view.segments.len() as u64,
        ..PlanReport::default()
    };
    report.findings.extend(blocked.iter().map(block));
    report.findings.extend(view.findings());
    report.findings.extend(hold::held_and_gone(repo)?);
    if !report.is_blocked() {
        decide(&view, &options, repo.env().now(), &mut report);
    }
    Ok(Plan { repo: repo.clone(), options, view, report })
}

fn block((commit, what): &Blocked) -> Finding {
    Finding::error(
        "commit-unreadable",
        commit.key(),
        format!(
            "{what}; while this recovery point cannot be followed nothing is deleted, because it may need anything: repair it or delete it"
        ),
    )
}

/// What is to become of every pack.
fn decide(view: &View, options: &GcOptions, now: Timestamp, report: &mut PlanReport) {
    let now = view.latest(now);
    let running: Vec<_> = view.running(now).collect();
    let oldest = running.iter().copied().min();
    let mut ripe: HashSet<PackId> = HashSet::new();
    for (object, list) in &view.marks {
        if is_ripe(object.modified, options, now, &running) {
            ripe.extend(&list.packs);
        }
    }
    for (id, listed) in &view.packs {
        let Some(needs) = view.needs(id) else { continue };
        report.bytes_needed += needs.used + needs.carried;
        let fate = if needs.doomed {
            if needs.carried > 0 { Fate::Carry } else { Fate::Delete }
        } else if needs.used > 0 {
            let little = needs.used * 100 < listed.size * u64::from(options.repack_percent);
            if little && !view.marked.contains(id) { Fate::Repack } else { continue }
        } else if ripe.contains(id) {
            Fate::Sentence
        } else if view.marked.contains(id) {
            Fate::Wait
        } else if oldest.is_some_and(|oldest| listed.modified >= oldest) {
            Fate::Young
        } else {
            Fate::Mark
        };
        let bytes_needed = needs.used + needs.carried;
        report.fates.push(PackFate { fate, pack: *id, bytes: listed.size, bytes_needed });
    }
    report.fates.sort_unstable();
}

/// Whether every writer that began before the mark is through, and the grace period is over.
fn is_ripe(modified: Timestamp, options: &GcOptions, now: Timestamp, running: &[Timestamp]) -> bool {
    #[cfg(test)]
    let running = if options.sabotage == Sabotage::CollectorIgnoresLeases { &[] } else { running };
    let grace = i64::try_from(options.grace.as_nanos()).unwrap_or(i64::MAX);
    modified.saturating_add(grace) <= now && running.iter().all(|began| *began > modified)
}

impl Plan {
    /// What it says.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    /// Does it. If it is killed, or fails, the next run finishes it.
    pub fn execute(self, progress: &dyn Progress) -> Result<Collected, Error> {
        let Plan { repo, options, view, report } = self;
        let mut run = Run {
            repo: &repo,
            options: &options,
            progress,
            done: Collected { findings: report.findings.clone(), ..Collected::default() },
            own: HashSet::new(),
        };
        if !report.is_blocked() {
            let fated = |fate| {
                let of = report.fates.iter().filter(move |one| one.fate == fate);
                of.map(|one| one.pack).collect::<Vec<_>>()
            };
            run.execute(view, fated(Fate::Repack), fated(Fate::Mark))?;
        }
        run.done.findings.sort_by(|a, b| (b.severity, a.code, &a.what).cmp(&(a.severity, b.code, &b.what)));
        Ok(run.done)
    }
}

struct Run<'r> {
    repo: &'r Repository,
    options: &'r GcOptions,
    progress: &'r dyn Progress,
    done: Collected,
    /// Packs this run has sentenced.
    own: HashSet<PackId>,
}

impl Run<'_> {
    fn look(&self, before: Option<View>) -> Result<(View, Vec<Blocked>), Error> {
        let looking =
            Looking { repo: self.repo, options: self.options, progress: self.progress, own: &self.own };
        looking.look(before)
    }

    fn execute(&mut self, mut view: View, repack: Vec<PackId>, mut mark: Vec<PackId>) -> Result<(), Error> {
        let emptied = self.copy_out(&view, &repack)?;
        mark.extend(&emptied);
        mark.sort_unstable();
        if !mark.is_empty() {
            self.progress.note("marking packs");
            self.done.packs_marked = mark.len() as u64;
            lease::put_mark(self.repo, mark.clone())?;
        }
        self.sentence(&view, &emptied)?;
        let mut gone = HashSet::new();
        if !self.own.is_empty() || !view.doomed.is_empty() {
            let mut rounds = 0;
            loop {
                // After the verdict: what was committed until now shows, and what comes later sees the verdict (R3).
                let (now, blocked) = self.look(Some(view))?;
                view = now;
                if !blocked.is_empty() {
                    self.done.findings.extend(blocked.iter().map(block));
                    return Ok(());
                }
                let carry = view.carry();
                rounds += 1;
                if carry.is_empty() || self.options.repack_percent == 0 || rounds > ROUNDS_MAX {
                    break;
                }
                if self.copy_out(&view, &carry)?.is_empty() {
                    break;
                }
            }
            gone = view.deletable();
        }
        self.progress.note("writing index segments");
        let mut unnamed = gone.clone();
        unnamed.extend(view.dangling());
        rewrite_segments(
            self.repo,
            &unnamed,
            self.options.merge_segments,
            &self.options.cancel,
            &mut self.done,
        )?;
        self.delete_packs(&view, &gone)?;
        self.tidy(&view, &gone, &mark)
    }

    fn copy_out(&mut self, view: &View, packs: &[PackId]) -> Result<Vec<PackId>, Error> {
        if packs.is_empty() {
            return Ok(Vec::new());
        }
        self.progress.note("copying what is needed out of packs that go");
        let cancel = &self.options.cancel;
        copy_out(self.repo, &view.reach, &view.tally, packs, cancel, self.progress, &mut self.done)
    }

    /// Puts the verdict on what rested long enough.
    fn sentence(&mut self, view: &View, emptied: &[PackId]) -> Result<(), Error> {
        // Leases after marks: a writer that puts its lease later sees the mark.
        let notes = Notes::list(self.repo)?;
        let looking =
            Looking { repo: self.repo, options: self.options, progress: self.progress, own: &self.own };
        let marks = looking.marks(&notes)?;
        if marks.is_empty() {
            return Ok(());
        }
        let leases = looking.leases()?;
        let now = lease::store_now(self.repo)?;
        let running: Vec<_> = running(&leases, &view.reach, now).collect();
        let emptied: HashSet<&PackId> = emptied.iter().collect();
        let mut sentenced: Vec<PackId> = marks
            .iter()
            .filter(|(object, _)| is_ripe(object.modified, self.options, now, &running))
            .flat_map(|(_, list)| list.packs.iter())
            .filter(|id| view.packs.contains_key(id))
            .filter(|id| {
                emptied.contains(id) || view.needs(id).is_some_and(|needs| !needs.doomed && needs.used == 0)
            })
            .copied()
            .collect();
        sentenced.sort_unstable();
        sentenced.dedup();
        if sentenced.is_empty() {
            return Ok(());
        }
        self.progress.note("sentencing packs");
        self.done.packs_sentenced = sentenced.len() as u64;
        #[cfg(test)]
        let give = self.options.sabotage != Sabotage::CollectorGivesNoVerdict;
        #[cfg(not(test))]
        let give = true;
        if give {
            lease::put_verdict(self.repo, &sentenced, notes.top())?;
        }
        self.own = sentenced.into_iter().collect();
        Ok(())
    }

    /// The packs, once no segment of ours names them.
    fn delete_packs(&mut self, view: &View, gone: &HashSet<PackId>) -> Result<(), Error> {
        self.progress.note("deleting packs");
        let mut gone: Vec<_> = gone.iter().collect();
        gone.sort_unstable();
        self.progress.total(gone.len() as u64, 0);
        for id in gone {
            self.options.cancel.check()?;
            if delete(self.repo, &id.key(), &mut self.done)? {
                self.done.packs_deleted += 1;
                self.done.bytes_deleted += view.packs.get(id).map_or(0, |pack| pack.size);
            }
            self.progress.add(1, 0);
        }
        Ok(())
    }

    /// Removes what is over.
    fn tidy(&mut self, view: &View, gone: &HashSet<PackId>, new: &[PackId]) -> Result<(), Error> {
        self.progress.note("tidying up");
        let leases =
            Looking { repo: self.repo, options: self.options, progress: self.progress, own: &self.own }
                .leases()?;
        let now = lease::store_now(self.repo)?;
        self.tidy_verdicts(view)?;
        for (object, list) in &view.marks {
            let waits = |id: &PackId| !gone.contains(id) && view.is_waiting(id);
            if !list.packs.iter().any(waits) {
                self.delete_note(&object.key)?;
            }
        }
        let new: HashSet<PackId> = new.iter().copied().collect();
        for id in view.marked.union(&new) {
            // What was emptied and is not sentenced yet still looks needed in a view from before.
            if !gone.contains(id) && (view.is_waiting(id) || new.contains(id)) {
                self.done.packs_waiting += 1;
                self.done.bytes_waiting += view.packs.get(id).map_or(0, |pack| pack.size);
            }
        }
        for (writer, seen) in &leases {
            if seen.ends <= now || view.reach.has_committed(writer) {
                for key in &seen.keys {
                    self.delete_note(key)?;
                }
            }
        }
        for clock in &view.notes.clocks {
            if clock.modified.saturating_add(LEASE.as_nanos() as i64) < now {
                self.delete_note(&clock.key)?;
            }
        }
        for (commit, key) in &view.notes.voids {
            if view.voided.contains(commit) {
                // The commit first: without its void it would count.
                if !delete(self.repo, &commit.key(), &mut self.done)? {
                    continue;
                }
                self.done.commits_deleted += 1;
            } else if view.commits.binary_search(commit).is_ok() {
                self.done.findings.push(Finding::warning(
                    "void-forged",
                    key.clone(),
                    "the writer of this commit did not make it, so it counts for nothing; somebody else with access to the store put it there",
                ));
            }
            self.delete_note(key)?;
        }
        Ok(())
    }

    fn delete_note(&mut self, key: &str) -> Result<(), Error> {
        if delete(self.repo, key, &mut self.done)? {
            self.done.notes_deleted += 1;
        }
        Ok(())
    }

    /// Closes verdicts whose packs are all gone, and removes what lies below the highest closing one. That one stays:
    /// by it, a writer sees that it missed some.
    fn tidy_verdicts(&mut self, view: &View) -> Result<(), Error> {
        if view.notes.verdicts.is_empty() && self.own.is_empty() {
            return Ok(());
        }
        let notes = Notes::list(self.repo)?;
        let open = notes.open_verdicts(self.repo)?;
        let mut closing = match open.iter().map(|list| list.number).min() {
            // The one right below the open ones, if it is still there.
            Some(lowest) => notes.verdicts.range(..lowest).next_back().map_or(0, |(number, _)| *number),
            None => notes.top(),
        };
        if !open.is_empty() {
            let packs = list_packs(self.repo)?;
            if open.iter().flat_map(|list| &list.packs).all(|id| !packs.contains_key(id)) {
                #[cfg(test)]
                let forget = self.options.sabotage == Sabotage::CollectorForgetsNumbers;
                #[cfg(not(test))]
                let forget = false;
                closing = match forget {
                    true => u64::MAX,
                    false => lease::put_verdict(self.repo, &[], notes.top())?.unwrap_or(closing),
                };
            }
        }
        for (_, object) in notes.verdicts.range(..closing) {
            self.delete_note(&object.key)?;
        }
        Ok(())
    }
}

/// A family of lease objects.
struct LeaseSeen {
    began: Timestamp,
    ends: Timestamp,
    keys: Vec<String>,
}

/// When those began that neither have ended nor run out.
fn running(
    leases: &BTreeMap<WriterId, LeaseSeen>,
    reach: &Reach,
    now: Timestamp,
) -> impl Iterator<Item = Timestamp> {
    let running = leases.iter().filter(move |(id, seen)| seen.ends > now && !reach.has_committed(id));
    running.map(|(_, seen)| seen.began)
}

/// How much of a pack is needed.
struct Needs {
    doomed: bool,
    used: u64,
    carried: u64,
}

/// What the store shows, and what follows for every pack.
struct View {
    leases: BTreeMap<WriterId, LeaseSeen>,
    commits: Vec<CommitId>,
    voided: HashSet<CommitId>,
    notes: Notes,
    marks: Vec<(Object, PackList)>,
    marked: HashSet<PackId>,
    doomed: HashSet<PackId>,
    segments: Vec<SegmentId>,
    reach: Reach,
    packs: HashMap<PackId, Listed>,
    tally: Tally,
}

impl View {
    fn running(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        running(&self.leases, &self.reach, now)
    }

    /// The latest time there is a sign of: the store's own clock may be ahead of ours.
    fn latest(&self, now: Timestamp) -> Timestamp {
        let packs = self.packs.values().map(|pack| pack.modified);
        let marks = self.marks.iter().map(|(object, _)| object.modified);
        packs.chain(marks).chain(self.leases.values().map(|lease| lease.began)).fold(now, Timestamp::max)
    }

    /// Whether packs that no segment names may hold what is lost, and therefore stay.
    fn holds_back(&self) -> bool {
        self.tally.lost_chunks() > 0 || !self.reach.index().damaged().is_empty()
    }

    /// `None` for a pack that is not to be touched.
    fn needs(&self, id: &PackId) -> Option<Needs> {
        let index = self.reach.index();
        match index.numbers_of(id).find(|number| self.tally.is_present(*number)).or(index.number_of(id)) {
            // Of another size than promised: for `check` to tell.
            Some(number) if !self.tally.is_present(number) => None,
            Some(number) => {
                let (used, carried) = (self.tally.used(number), self.tally.carried(number));
                Some(Needs { doomed: self.tally.is_doomed(number), used, carried })
            }
            None if self.holds_back() => None,
            None => Some(Needs { doomed: self.doomed.contains(id), used: 0, carried: 0 }),
        }
    }

    fn is_waiting(&self, id: &PackId) -> bool {
        self.packs.contains_key(id) && self.needs(id).is_some_and(|needs| !needs.doomed && needs.used == 0)
    }

    /// Sentenced packs that something needs a part of.
    fn carry(&self) -> Vec<PackId> {
        let needed = |id: &&PackId| self.needs(id).is_some_and(|needs| needs.doomed && needs.carried > 0);
        let mut carry: Vec<PackId> = self.packs.keys().filter(needed).copied().collect();
        carry.sort_unstable();
        carry
    }

    /// Sentenced packs that nothing needs.
    fn deletable(&self) -> HashSet<PackId> {
        let free = |id: &&PackId| self.needs(id).is_some_and(|needs| needs.doomed && needs.carried == 0);
        self.packs.keys().filter(free).copied().collect()
    }

    /// Packs that segments name, that are gone, and that nothing misses.
    fn dangling(&self) -> impl Iterator<Item = PackId> {
        let index = self.reach.index();
        (0..index.pack_count() as u32)
            .filter(|number| !self.tally.is_lost(*number))
            .filter_map(|number| Some(index.pack(number)?.0))
            .filter(|id| !self.packs.contains_key(id))
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        // What a damaged segment named may be needed, and is unknown.
        for finding in self.reach.index().findings() {
            findings.push(Finding { severity: Severity::Warning, ..finding.clone() });
        }
        if self.tally.lost_chunks() > 0 {
            findings.push(Finding::warning(
                "chunks-lost",
                "index",
                format!(
                    "{} chunks that recovery points need are in no pack that is there; `holdfast repo check` names the points and files",
                    self.tally.lost_chunks()
                ),
            ));
        }
        let unnamed = self.packs.keys().filter(|id| self.reach.index().number_of(id).is_none()).count();
        if self.holds_back() && unnamed > 0 {
            findings.push(Finding::warning(
                "packs-held-back",
                "index",
                format!(
                    "{unnamed} packs that no readable index segment names stay, because what is lost may be in them; repair the index, then collect again"
                ),
            ));
        }
        findings
    }
}

/// Reads what the store shows.
struct Looking<'r> {
    repo: &'r Repository,
    options: &'r GcOptions,
    progress: &'r dyn Progress,
    own: &'r HashSet<PackId>,
}

impl Looking<'_> {
    /// In an order that matters (R3): leases, commits, verdicts, index, packs. So a lease that ended is seen with its
    /// commit, a commit with its segments, a segment with its packs; and a verdict put after the commits were
    /// listed is put by a collector that sees these commits, too.
    fn look(&self, before: Option<View>) -> Result<(View, Vec<Blocked>), Error> {
        let repo = self.repo;
        self.progress.note("listing recovery points and packs");
        let leases = self.leases()?;
        let mut commits = repo.all_commit_ids()?;
        #[cfg(test)]
        if let (Sabotage::CollectorListsNot, Some(before)) = (self.options.sabotage, &before) {
            commits.clone_from(&before.commits);
        }
        let notes = Notes::list(repo)?;
        let voided = lease::voided(repo, &notes)?;
        commits.retain(|id| !voided.contains(id));
        commits.sort_unstable();
        let open = notes.open_verdicts(repo)?;
        let mut doomed: HashSet<PackId> = open.iter().flat_map(|list| list.packs.iter().copied()).collect();
        #[cfg(test)]
        match self.options.sabotage {
            Sabotage::CollectorGivesNoVerdict => doomed.extend(self.own),
            Sabotage::CollectorIgnoresOthers => doomed.retain(|id| self.own.contains(id)),
            _ => {}
        }
        // What this run has sentenced is sentenced, should the verdict be gone.
        doomed.extend(self.own);
        let marks = self.marks(&notes)?;
        let marked = marks.iter().flat_map(|(_, list)| list.packs.iter().copied()).collect();

        let mut segments = Vec::new();
        repo.store().list(INDEX, &mut |object| {
            segments.extend(SegmentId::from_key(&object.key));
            Ok(())
        })?;
        segments.sort_unstable();
        let known = match before {
            // The index says what it said.
            Some(before) if before.segments == segments => Some(before.reach),
            // Unless something that was needed went away with its commit: then everything is looked at again.
            Some(before) => Some(before.reach.moved_to(self.reader()?)?.unwrap_or_else(Reach::new)),
            None => None,
        };
        let mut reach = match known {
            Some(reach) => reach,
            None => Reach::new(self.reader()?),
        };
        self.progress.note("following recovery points");
        let threads = match self.options.threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            threads => threads,
        };
        let blocked = reach.walk(repo, &commits, threads, &self.options.cancel, self.progress)?;
        let packs = list_packs(repo)?;
        let tally = Tally::new(&reach, &packs, &doomed, &marked)?;
        let view =
            View { leases, commits, voided, notes, marks, marked, doomed, segments, reach, packs, tally };
        Ok((view, blocked))
    }

    fn reader(&self) -> Result<crate::reader::Reader, Error> {
        self.progress.note("reading the index");
        self.repo.reader(ReaderOptions {
            threads: 1,
            memory_bytes: self.options.memory_bytes,
            cancel: self.options.cancel.clone(),
            ..ReaderOptions::default()
        })
    }

    fn marks(&self, notes: &Notes) -> Result<Vec<(Object, PackList)>, Error> {
        let mut marks = Vec::new();
        for object in &notes.marks {
            match lease::read_mark(self.repo, object) {
                Ok(list) => marks.extend(list.map(|list| (object.clone(), list))),
                // Nobody can heed it: as if it said nothing.
                Err(error) if error.is_damage() => marks.push((object.clone(), PackList::default())),
                Err(error) => return Err(error),
            }
        }
        Ok(marks)
    }

    fn leases(&self) -> Result<BTreeMap<WriterId, LeaseSeen>, Error> {
        let mut found: BTreeMap<WriterId, Vec<(u64, Object)>> = BTreeMap::new();
        self.repo.store().list(LEASES, &mut |object| {
            if let Some((writer, number)) = lease::lease_of(&object.key) {
                found.entry(writer).or_default().push((number, object));
            }
            Ok(())
        })?;
        let mut leases = BTreeMap::new();
        for (writer, mut objects) in found {
            objects.sort();
            let (Some((_, first)), Some((_, last))) = (objects.first(), objects.last()) else { continue };
            let duration = match lease::read_lease(self.repo, &last.key) {
                Ok(lease) => i64::try_from(lease.duration).unwrap_or(i64::MAX),
                // Removed by another collection: it is over.
                Err(Error::Store(error)) if error.is_not_found() => continue,
                Err(error) if error.is_damage() => LEASE.as_nanos() as i64,
                Err(error) => return Err(error),
            };
            let seen = LeaseSeen {
                began: first.modified,
                ends: last.modified.saturating_add(duration),
                keys: objects.iter().map(|(_, object)| object.key.clone()).collect(),
            };
            leases.insert(writer, seen);
        }
        Ok(leases)
    }
}

fn list_packs(repo: &Repository) -> Result<HashMap<PackId, Listed>, Error> {
    let mut packs = HashMap::new();
    repo.store().list(PACKS, &mut |object| {
        if let Some(id) = PackId::from_key(&object.key) {
            packs.insert(id, Listed { size: object.size, modified: object.modified });
        }
        Ok(())
    })?;
    Ok(packs)
}
