//! What a collection sees: everything that matters, listed and read in an order that matters, and what follows from it
//! for every pack.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::tally::{Listed, Tally};
use super::walk::{Blocked, Reach};
use super::{GcOptions, MARK_GOOD};
use crate::env::Timestamp;
use crate::error::Error;
use crate::id::{CommitId, INDEX, PACKS, PackId, SegmentId, WriterId};
#[cfg(test)]
use crate::lease::Sabotage;
use crate::lease::{self, LEASE, LEASES, Notes, PackList};
use crate::monitor::{Finding, Progress, Severity};
use crate::reader::ReaderOptions;
use crate::repo::Repository;
use crate::store::Object;

/// A family of lease objects.
pub(super) struct LeaseSeen {
    pub(super) began: Timestamp,
    pub(super) ends: Timestamp,
    pub(super) keys: Vec<String>,
}

/// When those began that neither have ended nor run out.
pub(super) fn running(
    leases: &BTreeMap<WriterId, LeaseSeen>,
    now: Timestamp,
) -> impl Iterator<Item = Timestamp> {
    leases.values().filter(move |seen| seen.ends > now).map(|seen| seen.began)
}

fn latest(
    packs: &HashMap<PackId, Listed>,
    marks: &[(Object, PackList)],
    leases: &BTreeMap<WriterId, LeaseSeen>,
    now: Timestamp,
) -> Timestamp {
    let packs = packs.values().map(|pack| pack.modified);
    let marks = marks.iter().map(|(object, _)| object.modified);
    packs.chain(marks).chain(leases.values().map(|lease| lease.began)).fold(now, Timestamp::max)
}

/// How much of a pack is needed.
pub(super) struct Needs {
    pub(super) doomed: bool,
    /// Doomed, and something needs it: what it holds has no place in a pack that stays.
    pub(super) held: bool,
    /// Of so many bytes of chunks ...
    pub(super) content: u64,
    /// ... so many.
    pub(super) used: u64,
    pub(super) carried: u64,
}

/// What the store shows, and what follows for every pack.
pub(super) struct View {
    pub(super) leases: BTreeMap<WriterId, LeaseSeen>,
    pub(super) commits: Vec<CommitId>,
    pub(super) voided: HashSet<CommitId>,
    pub(super) notes: Notes,
    pub(super) marks: Vec<(Object, PackList)>,
    pub(super) marked: HashSet<PackId>,
    pub(super) doomed: HashSet<PackId>,
    /// Packs of verdicts that were put before the commits were listed: only these may go.
    doomed_before: HashSet<PackId>,
    pub(super) segments: Vec<SegmentId>,
    pub(super) reach: Reach,
    pub(super) packs: HashMap<PackId, Listed>,
    pub(super) tally: Tally,
}

impl View {
    pub(super) fn running(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        running(&self.leases, now)
    }

    /// The latest time there is a sign of: the store's own clock may be ahead of ours.
    pub(super) fn latest(&self, now: Timestamp) -> Timestamp {
        latest(&self.packs, &self.marks, &self.leases, now)
    }

    /// Whether packs that no segment names may hold what is lost, and therefore stay.
    fn holds_back(&self) -> bool {
        self.tally.lost_chunks() > 0 || !self.reach.index().damaged().is_empty()
    }

    /// `None` for a pack that is not to be touched.
    pub(super) fn needs(&self, id: &PackId) -> Option<Needs> {
        let index = self.reach.index();
        match index.numbers_of(id).find(|number| self.tally.is_present(*number)).or(index.number_of(id)) {
            // Of another size than promised: for `check` to tell.
            Some(number) if !self.tally.is_present(number) => None,
            Some(number) => {
                let (used, carried) = (self.tally.used(number), self.tally.carried(number));
                let content = self.tally.content(number);
                let (doomed, held) = (self.tally.is_doomed(number), self.tally.is_held(number));
                Some(Needs { doomed, held, content, used, carried })
            }
            None if self.holds_back() => None,
            None => {
                let doomed = self.doomed.contains(id);
                Some(Needs { doomed, held: false, content: 0, used: 0, carried: 0 })
            }
        }
    }

    pub(super) fn is_waiting(&self, id: &PackId) -> bool {
        self.packs.contains_key(id) && self.needs(id).is_some_and(|needs| !needs.doomed && needs.used == 0)
    }

    /// Sentenced packs that something needs a part of.
    pub(super) fn carry(&self) -> Vec<PackId> {
        let needed = |id: &&PackId| self.needs(id).is_some_and(|needs| needs.doomed && needs.carried > 0);
        let mut carry: Vec<PackId> = self.packs.keys().filter(needed).copied().collect();
        carry.sort_unstable();
        carry
    }

    /// Sentenced packs that nothing needs. What was sentenced after commits were listed may be needed by one that is not
    /// among them, and that was acknowledged before: it goes with the next look.
    pub(super) fn deletable(&self) -> HashSet<PackId> {
        let free = |id: &&PackId| self.needs(id).is_some_and(|needs| needs.doomed && !needs.held);
        self.doomed_before.iter().filter(|id| self.packs.contains_key(id)).filter(free).copied().collect()
    }

    /// As it was once: packs from which nothing is to be copied.
    #[cfg(test)]
    pub(super) fn deletable_wrongly(&self) -> HashSet<PackId> {
        let free = |id: &&PackId| self.needs(id).is_some_and(|needs| needs.doomed && needs.carried == 0);
        self.doomed_before.iter().filter(|id| self.packs.contains_key(id)).filter(free).copied().collect()
    }

    /// Packs that segments name, that are gone, and that nothing misses.
    pub(super) fn dangling(&self) -> impl Iterator<Item = PackId> {
        let index = self.reach.index();
        (0..index.pack_count() as u32)
            .filter(|number| !self.tally.is_lost(*number))
            .filter_map(|number| Some(index.pack(number)?.0))
            .filter(|id| !self.packs.contains_key(id))
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
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
pub(super) struct Looking<'r> {
    pub(super) repo: &'r Repository,
    pub(super) options: &'r GcOptions,
    pub(super) progress: &'r dyn Progress,
    pub(super) own: &'r HashSet<PackId>,
}

impl Looking<'_> {
    /// In an order that matters (R3): leases, commits, verdicts, index, packs. So a lease that ended is seen with its
    /// commit, a commit with its segments, a segment with its packs; and a verdict put after the commits were
    /// listed is put by a collector that sees these commits, too: no place in its packs counts. But it says nothing about
    /// commits that came in between, and by it nothing is deleted.
    pub(super) fn look(&self, before: Option<View>) -> Result<(View, Vec<Blocked>), Error> {
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
        let mut doomed_before = self.own.clone();
        doomed_before.extend(before.iter().flat_map(|before| &before.doomed));
        #[cfg(test)]
        if self.options.sabotage == Sabotage::CollectorHeedsLateVerdicts {
            doomed_before.clone_from(&doomed);
        }
        let marks = self.marks(&notes)?;

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
            Some(before) => {
                let moved = before.reach.moved_to(repo, self.reader()?)?;
                Some(moved.unwrap_or_else(|reader| Reach::new(repo, reader)))
            }
            None => None,
        };
        let mut reach = match known {
            Some(reach) => reach,
            None => Reach::new(repo, self.reader()?),
        };
        self.progress.note("following recovery points");
        let threads = match self.options.threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            threads => threads,
        };
        let blocked = reach.walk(repo, &commits, threads, &self.options.cancel, self.progress)?;
        // What went away meanwhile is not there.
        commits.retain(|id| reach.has_walked(id));
        let packs = list_packs(repo)?;
        let now = latest(&packs, &marks, &leases, repo.env().now());
        let good = marks.iter().filter(|(object, _)| now < object.modified.saturating_add(MARK_GOOD));
        let marked = good.flat_map(|(_, list)| list.packs.iter().copied()).collect();
        let tally = Tally::new(&reach, &packs, &doomed, &marked)?;
        let view = View {
            leases,
            commits,
            voided,
            notes,
            marks,
            marked,
            doomed,
            doomed_before,
            segments,
            reach,
            packs,
            tally,
        };
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

    pub(super) fn marks(&self, notes: &Notes) -> Result<Vec<(Object, PackList)>, Error> {
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

    pub(super) fn leases(&self) -> Result<BTreeMap<WriterId, LeaseSeen>, Error> {
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
                // The last of a writer that is through says so.
                ends: if duration == 0 { Timestamp::MIN } else { last.modified.saturating_add(duration) },
                keys: objects.iter().map(|(_, object)| object.key.clone()).collect(),
            };
            leases.insert(writer, seen);
        }
        Ok(leases)
    }
}

pub(super) fn list_packs(repo: &Repository) -> Result<HashMap<PackId, Listed>, Error> {
    let mut packs = HashMap::new();
    repo.store().list(PACKS, &mut |object| {
        if let Some(id) = PackId::from_key(&object.key) {
            packs.insert(id, Listed { size: object.size, modified: object.modified });
        }
        Ok(())
    })?;
    Ok(packs)
}
