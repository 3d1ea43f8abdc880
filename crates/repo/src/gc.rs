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
mod tidy;
mod view;
mod walk;

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;

use crate::env::{Cancel, Timestamp};
use crate::error::Error;
use crate::hold;
use crate::id::{CommitId, PackId};
#[cfg(test)]
use crate::lease::Sabotage;
use crate::lease::{self, LEASE, Notes};
use crate::monitor::{Finding, Progress, Severity};
use crate::object::Capability;
use crate::repo::Repository;

use copy::{copy_out, delete, rewrite_segments};
use view::{Looking, View, running};
use walk::Blocked;

/// How many objects that cannot be deleted are told one by one.
const LOCKED_SHOWN: u64 = 20;
/// Stores stamp an object when a put begins rather than when it can be seen, and some keep whole seconds. A writer whose
/// lease is younger than a mark by less than this may not have seen the mark, and is waited for.
const STAMPS_DIFFER: i64 = 60_000_000_000;
/// So long packs may be sentenced by a mark; after that they are marked anew. The grace period is shorter.
const MARK_GOOD: i64 = 30 * 86_400_000_000_000;
/// And so long it stays, even if what it names is needed again: somebody may have read it and be about to sentence,
/// and a writer that begins meanwhile must see it.
const MARK_KEPT: i64 = 31 * 86_400_000_000_000;
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
    /// Memory for chunks that are kept while trees are read; 0: a reader's share of what the repository may use.
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
            memory_bytes: 0,
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
    /// Old notes of checks, and what probes of the store had to leave: removed.
    pub leftovers: u64,
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
    /// Leases, marks, verdicts, voids, notes of checks and other small things that were over.
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
    leftovers: Vec<String>,
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
    if options.grace.as_nanos() >= MARK_GOOD as u128 {
        return Err(Error::invalid("a grace period of 30 days or more: nothing would ever be collected"));
    }
    let looking = Looking { repo, options: &options, progress, own: &HashSet::new() };
    let (mut view, mut blocked) = looking.look(None)?;
    if !blocked.is_empty() {
        // Another collection may have moved things while this one looked: what is so, is so twice.
        (view, blocked) = looking.look(None)?;
    }
    let leftovers = tidy::leftovers(repo)?;
    let mut report = PlanReport {
        leftovers: leftovers.len() as u64,
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
    Ok(Plan { repo: repo.clone(), options, view, leftovers, report })
}

/// Whether a collection may be about to delete something that goes by recovery points of some time ago.
///
/// For who deletes a commit because another one, **acknowledged before this was asked**, names the same content: a *piece*
/// of a point that was put together from several ([`crate::Writer::take_over`]). `false`, once, says that the piece can
/// go, now or at any later time. Why: a collection deletes by verdicts that were in the store before it listed commits. If
/// its listing does not show the new commit, it began before that was put, and so the verdict was there when this was
/// asked. If it was closed by then, its packs are gone already, and whoever deleted them had seen the piece. `true`: ask
/// again later; the next collection closes what others left open. Any key will do.
///
/// An error says neither: a verdict that cannot be read may be an open one.
pub fn open_verdicts(repo: &Repository) -> Result<bool, Error> {
    Ok(!Notes::list(repo)?.open_verdicts(repo)?.is_empty())
}

fn block((commit, what): &Blocked) -> Finding {
    Finding::error(
        "commit-unreadable",
        commit.key(),
        format!(
            "{what}; while this recovery point cannot be followed nothing is deleted, because it may need anything. If the backup that wrote it failed or was killed it was never a recovery point: `holdfast delete {}`. Otherwise see `holdfast repo check`, and `holdfast repo repair` for what can be saved of it",
            commit.short()
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
            if needs.held { Fate::Carry } else { Fate::Delete }
        } else if needs.used > 0 {
            let little = needs.used * 100 < needs.content * u64::from(options.repack_percent);
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
    let seen_by_all = modified.saturating_add(STAMPS_DIFFER);
    let rested = modified.saturating_add(grace) <= now && now < modified.saturating_add(MARK_GOOD);
    rested && running.iter().all(|began| *began > seen_by_all)
}

impl Plan {
    /// What it says.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    /// Does it. If it is killed, or fails, the next run finishes it.
    pub fn execute(self, progress: &dyn Progress) -> Result<Collected, Error> {
        let Plan { repo, options, view, leftovers, report } = self;
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
            for key in &leftovers {
                run.delete_note(key)?;
            }
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
                rounds += 1;
                let unsettled = self.unsettled(&view)?;
                if !unsettled.is_empty() {
                    if rounds > ROUNDS_MAX {
                        self.done.findings.extend(unsettled);
                        return Ok(());
                    }
                    continue;
                }
                let carry = view.carry();
                if carry.is_empty() || self.options.repack_percent == 0 || rounds > ROUNDS_MAX {
                    break;
                }
                if self.copy_out(&view, &carry)?.is_empty() {
                    break;
                }
            }
            gone = view.deletable();
            #[cfg(test)]
            if self.options.sabotage == Sabotage::CollectorCountsOnTheSentenced {
                gone = view.deletable_wrongly();
            }
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

    /// Points that this view does not show and that may be there again (R3): held ones that are not there, and those
    /// that somebody is deleting, who may still find a hold and put them back. Asked after the commits of the view were
    /// listed and read, what is being deleted first: who has put a point back ends its deletion, and then the hold shows.
    fn unsettled(&mut self, view: &View) -> Result<Vec<Finding>, Error> {
        let absent = |id: &CommitId| view.commits.binary_search(id).is_err() && !view.voided.contains(id);
        let mut findings = Vec::new();
        let mut leaving = Notes::list(self.repo)?.deletions;
        leaving.retain(|(id, _)| absent(id));
        #[cfg(test)]
        let leaving = match self.options.sabotage {
            Sabotage::CollectorIgnoresDeletions => Vec::new(),
            _ => leaving,
        };
        let now = if leaving.is_empty() { Timestamp::MIN } else { lease::store_now(self.repo)? };
        for (commit, object) in &leaving {
            let over = object.modified.saturating_add(LEASE.as_nanos() as i64) <= now;
            // Whoever began it an hour ago is dead. Removed before anything is done: should he come back, he sees that.
            if over && !delete(self.repo, &object.key, &mut self.done)? {
                // In a bucket that keeps everything.
                continue;
            }
            self.done.notes_deleted += u64::from(over);
            findings.push(Finding::note(
                "deletion-under-way",
                commit.key(),
                "somebody is deleting this recovery point and may still have to put it back, because it is held; what is sentenced goes with the next collection",
            ));
        }
        #[cfg(test)]
        if self.options.sabotage == Sabotage::CollectorIgnoresHolds {
            return Ok(findings);
        }
        let now = self.repo.env().now();
        let holds = self.repo.holds()?.done;
        findings
            .extend(hold::missing(holds.iter().filter(|hold| hold.is_active(now) && absent(&hold.commit))));
        Ok(findings)
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
        let mut marks = looking.marks(&notes)?;
        let emptied: HashSet<&PackId> = emptied.iter().collect();
        for (_, list) in &mut marks {
            list.packs.retain(|id| {
                view.packs.contains_key(id)
                    && (emptied.contains(id)
                        || view.needs(id).is_some_and(|needs| !needs.doomed && needs.used == 0))
            });
        }
        marks.retain(|(_, list)| !list.packs.is_empty());
        if marks.is_empty() {
            return Ok(());
        }
        let leases = looking.leases()?;
        let now = lease::store_now(self.repo)?;
        let running: Vec<_> = running(&leases, now).collect();
        let mut sentenced: Vec<PackId> = marks
            .iter()
            .filter(|(object, _)| is_ripe(object.modified, self.options, now, &running))
            .flat_map(|(_, list)| list.packs.iter().copied())
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
            lease::put_verdict(
                self.repo,
                &sentenced,
                notes.top(),
                #[cfg(test)]
                self.options.sabotage,
            )?;
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
}
