//! Repair: puts right what can be put right, and names what cannot.
//!
//! What can be: the index, which is made again from the packs; and chunks that are whole although the pack they lie
//! in is not, or that lie in another pack too. What cannot is named by points and files, here and by every
//! check after: backing the same content up again in full stores it anew, and heals all points that lack it.
//!
//! First a plan, which changes nothing; then, in this order, so that a reader or a writer beside it, and a repair that
//! is killed, find at every moment at least what they found before (R2, R3):
//!
//! 1. segments for packs that are whole and that no segment names;
//! 2. the readable chunks of damaged packs, verified, into new packs, and segments for these;
//! 3. for every segment that names a pack that is damaged or gone, one without it;
//! 4. only then the segments that were replaced, and the damaged ones, are deleted.
//!
//! Nothing else is deleted: packs and commits stay, damaged or not, for the collection or for whoever can still
//! read them. Nothing is replaced (R1). What a repair left undone, the next one does: it looks at what is there.
//!
//! A pack that is left out of the index is not forgotten: if it comes back whole (undeleted, put back from a copy),
//! the next repair names it again from its own directory.
//!
//! A lease tells collectors that it is at work, as writers do ([`crate::lease`]): what a collection is about to delete is
//! relied on no more than by a write.
//!
//! **From another repository** ([`RepairOptions::from`]): what is lost here may be whole in a copy of it. Where both name content
//! alike, each chunk that is lacking is asked for by its name; else the other's copy of each point that lacks something is
//! walked beside it (`copy.rs`). Either way a chunk is named anew here from its bytes before it is stored, so what is taken is
//! what was lost or of no use to anybody; and nothing is taken before all that can be had here has been.
//!
//! Without `read_data` the listing and the index tell what is damaged: segments, packs that are gone, cut or named by
//! none. With it every pack is read first, like `check` does.

mod from;
mod salvage;
mod segments;

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use crate::check::damage::{Ledger, Unneeded};
use crate::check::packs::{PackReader, Places, PlacesOfPack, gather};
use crate::check::walk::{self, Lacking};
use crate::check::{CheckCounts, CheckOptions, CheckReport, PointTouched, Run, check, lost};
use crate::env::Cancel;
use crate::error::Error;
use crate::id::{PackId, SegmentId};
use crate::index::Index;
use crate::lease::{LEASE, ReliedOn, Session};
use crate::monitor::{Finding, Progress};
use crate::object::Capability;
use crate::reader::{Reader, ReaderOptions};
use crate::repo::Repository;
use crate::store::StoreError;

pub use from::FromPlan;
use salvage::{Found, Salvager, Source};

/// Of so many packs the places are gathered in one walk over the index: 40 bytes a chunk, a few hundred chunks a pack.
const GATHERED_AT_ONCE: usize = 256;
/// So many chunks that are lacking are remembered at a time.
const LACKING_MOST: usize = 1 << 20;

/// How a repair works.
#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// Read every pack to find what is damaged, not only what listing and index tell.
    pub read_data: bool,
    /// Threads; 0: one for each processor.
    pub threads: usize,
    /// Another repository to take from what is lost here: a copy of this one, what this one is a copy of, or one made
    /// alike. Opened with a read key.
    pub from: Option<Repository>,
    /// Only look: no lease is put, and the plan cannot be executed.
    pub plan_only: bool,
    /// Stops it. What was done stays, and the next repair goes on.
    pub cancel: Cancel,
}

/// What is wrong with a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// It is not in the store.
    Gone,
    /// Its bytes are not what was written.
    Damaged,
    /// It is whole, and the index promises in it what it does not hold.
    Misnamed,
}

/// A pack that is to be left out of the index, because its content is elsewhere by then, or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PackPlan {
    /// Which.
    pub pack: PackId,
    /// What is wrong with it.
    pub loss: Loss,
    /// Chunks of it that can be read and are nowhere else: they move to a new pack.
    pub chunks_saved: u64,
    /// Plain bytes of these.
    pub bytes_saved: u64,
    /// Chunks of it that are whole in another pack, too.
    pub chunks_elsewhere: u64,
    /// Chunks of it that cannot be read from it: lost, unless another pack holds them.
    pub chunks_unreadable: u64,
}

/// What a repair would do, and how things stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlanReport {
    /// Whether all data was read to find what is damaged.
    pub read_data: bool,
    /// Packs that are whole and that no segment names: they are named.
    pub packs_to_name: u64,
    /// Bytes of these.
    pub bytes_to_name: u64,
    /// Packs to leave out of the index.
    pub packs: Vec<PackPlan>,
    /// Segments that name such packs: each is replaced by one without them.
    pub segments_to_replace: Vec<SegmentId>,
    /// Segments that are damaged: deleted once all packs are named otherwise.
    pub segments_to_drop: Vec<SegmentId>,
    /// What the other repository has of what is lost here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<FromPlan>,
    /// What is wrong now. Part of it is put right by the steps above.
    pub findings: Vec<Finding>,
    /// The points that lack something now. Part of it comes back with the packs that are named.
    pub points: Vec<PointTouched>,
}

impl PlanReport {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.packs_to_name == 0
            && self.packs.is_empty()
            && self.segments_to_replace.is_empty()
            && self.segments_to_drop.is_empty()
            && self.from.as_ref().is_none_or(FromPlan::is_empty)
    }
}

/// What a repair did, and what is beyond it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Packs named that no segment had named.
    pub packs_named: u64,
    /// Chunks moved from damaged packs to new ones.
    pub chunks_saved: u64,
    /// Packs written for them.
    pub packs_written: u64,
    /// Packs left out of the index.
    pub packs_left_out: u64,
    /// Segments written.
    pub segments_written: u64,
    /// Segments deleted: damaged ones, and those that were replaced.
    pub segments_deleted: u64,
    /// Chunks taken from the other repository.
    pub chunks_taken: u64,
    /// Plain bytes of these.
    pub bytes_taken: u64,
    /// What was found on the way.
    pub findings: Vec<Finding>,
    /// How things stand afterwards: what it still names is beyond repair.
    pub after: CheckReport,
}

/// A plan, to be executed once.
pub struct Plan {
    repo: Repository,
    /// None if it is only looked at.
    session: Option<Session>,
    options: RepairOptions,
    report: PlanReport,
    /// Whose index the numbers in `places` are of.
    reader: Reader,
    places: Places,
    sound: Vec<(PackId, u64)>,
    /// Packs to leave out.
    left_out: BTreeSet<PackId>,
    /// Of these, whole ones whose own directory is right.
    misnamed: BTreeSet<PackId>,
    /// Of these, whole ones whose own directory is wrong: only what they really hold is taken from them.
    forged: BTreeSet<PackId>,
    /// Packs that no segment names and that are not whole: their directory may still tell what can be read.
    unnamed_broken: Vec<PackId>,
    /// There is a pack of which neither index nor directory tell where its chunks are: only a damaged segment may.
    opaque: bool,
    /// How many chunks of each pack the segments that stay name.
    kept: HashMap<PackId, u32>,
}

impl Drop for Plan {
    /// Whether it was executed or not.
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.end();
        }
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("report", &self.report).finish_non_exhaustive()
    }
}

/// Looks at what is wrong and what can be done about it. Changes nothing. Needs the read key.
pub fn plan(repo: &Repository, options: &RepairOptions, progress: &dyn Progress) -> Result<Plan, Error> {
    repo.require(Capability::Read)?;
    if let Some(from) = &options.from {
        from.require(Capability::Read)?;
        if from.id() == repo.id() {
            return Err(Error::invalid(format!(
                "{} and {} are the same repository ({}); put whole objects of the one into the other's place",
                repo.url(),
                from.url(),
                repo.id()
            )));
        }
    }
    // Before anything is read (R3).
    let session = if options.plan_only { None } else { Some(begin(repo)?) };
    let run = Run::new(repo, options.threads, &options.cancel, progress);
    progress.note("listing objects");
    let listing = run.list()?;
    let ledger = Ledger::default();
    let points = run.commits(&listing.commits, &ledger)?;

    progress.note("reading the index");
    let reader_options = ReaderOptions { cancel: options.cancel.clone(), ..ReaderOptions::default() };
    // What the store holds counts, not what this machine remembers of it.
    let reader = repo.reader_by(repo.index_verified()?, reader_options)?;
    let index = reader.index();
    let places = Places::new(index, &listing.packs);
    places.report(index, &ledger);

    progress.note("reading packs");
    let gone = confirm_gone(repo, index, &places)?;
    let packs = PackReader::new(&run, index, &places, &ledger)?;
    let chosen = match options.read_data {
        true => listing.packs.clone(),
        // What is named and of the promised size is believed.
        false => {
            listing.packs.iter().copied().filter(|(id, size)| !is_as_promised(index, id, *size)).collect()
        }
    };
    progress.total(chosen.len() as u64, chosen.iter().map(|(_, size)| size).sum());
    packs.read(chosen.len(), &|at| chosen.get(at).copied(), &|_| false).1?;
    let read = packs.finish(&mut CheckCounts::default());

    progress.note("following recovery points");
    let lacking = Lacking::new(LACKING_MOST);
    walk::lacking(&run, &reader, &places, &ledger, &points, &lacking)?;
    let mut now = CheckReport::default();
    ledger.finish(&points, Unneeded::of(repo), &mut now);
    let from = match &options.from {
        Some(from) => Some(from::look(repo, from, lacking, &now.points)?),
        None => None,
    };

    let sound_ids: BTreeSet<PackId> = read.sound.iter().map(|(id, _)| *id).collect();
    let unnamed_broken: Vec<PackId> =
        places.unreferenced().iter().map(|(id, _)| *id).filter(|id| !sound_ids.contains(id)).collect();
    let left_out: BTreeSet<PackId> =
        [&read.broken, &read.misnamed, &read.forged].into_iter().flatten().chain(&gone).copied().collect();
    let mut plan = Plan {
        repo: repo.clone(),
        options: options.clone(),
        report: PlanReport {
            read_data: options.read_data,
            packs_to_name: (read.sound.len() + read.misnamed.len()) as u64,
            bytes_to_name: read.sound.iter().map(|(_, size)| size).sum(),
            findings: now.findings,
            points: now.points,
            from,
            ..PlanReport::default()
        },
        session,
        reader,
        places,
        sound: read.sound,
        left_out,
        misnamed: &read.misnamed - &read.forged,
        forged: read.forged,
        unnamed_broken,
        opaque: false,
        kept: HashMap::new(),
    };
    plan.look_at_packs(&gone, progress)?;
    plan.look_at_segments(&listing.segments)?;
    plan.report.findings.sort_by(|a, b| (b.severity, a.code, &a.what).cmp(&(a.severity, b.code, &b.what)));
    Ok(plan)
}

/// A lease as a writer's.
fn begin(repo: &Repository) -> Result<Session, Error> {
    Session::begin(
        repo,
        LEASE,
        #[cfg(test)]
        crate::lease::Sabotage::None,
    )
}

/// What a repair relies on: what the index names and it does not leave out. That it is there, the check at its end says.
struct Relied<'p>(&'p Plan);

impl ReliedOn for Relied<'_> {
    fn relies_on(&self, pack: &PackId) -> bool {
        let Relied(plan) = self;
        plan.index().number_of(pack).is_some() && !plan.left_out.contains(pack) && !plan.shaky(pack)
    }

    fn all_present(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Packs that the index names and that the listing does not show, each asked for by name: a listing may be behind.
fn confirm_gone(repo: &Repository, index: &Index, places: &Places) -> Result<Vec<PackId>, Error> {
    let mut gone = Vec::new();
    for number in 0..index.pack_count() as u32 {
        let Some((id, _)) = index.pack(number).filter(|_| places.size(number).is_none()) else { continue };
        match repo.store().size(&id.key()) {
            Err(StoreError::NotFound { .. }) => gone.push(id),
            // There after all: the next run will see it listed.
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(gone)
}

fn is_as_promised(index: &Index, id: &PackId, size: u64) -> bool {
    let promised = index.number_of(id).and_then(|number| index.pack(number));
    promised.is_some_and(|(_, promised)| u64::from(promised) == size)
}

impl Plan {
    /// What would be done.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    fn index(&self) -> &Index {
        self.reader.index()
    }

    /// Whether a collection is about to delete it, or may be.
    fn shaky(&self, pack: &PackId) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.blind().is_some() || session.condemned().contains(pack))
    }

    /// In between, so that a long repair keeps its lease.
    fn breathe(&self) -> Result<(), Error> {
        if let Some(session) = &self.session {
            session.renew_if_due();
        }
        self.options.cancel.check()
    }

    /// What can be had of each pack that is to be left out.
    fn look_at_packs(&mut self, gone: &[PackId], progress: &dyn Progress) -> Result<(), Error> {
        progress.note("looking what can be saved");
        let none = |pack: PackId, loss| PackPlan {
            pack,
            loss,
            chunks_saved: 0,
            bytes_saved: 0,
            chunks_elsewhere: 0,
            chunks_unreadable: 0,
        };
        let mut packs: Vec<PackPlan> = self.misnamed.iter().map(|pack| none(*pack, Loss::Misnamed)).collect();
        for some in gone.chunks(GATHERED_AT_ONCE) {
            let promised = self.promised(some)?;
            for pack in some {
                let chunks_unreadable = promised.get(pack).map_or(0, Vec::len) as u64;
                packs.push(PackPlan { chunks_unreadable, ..none(*pack, Loss::Gone) });
            }
        }
        let mut opaque = false;
        let whole = self.each_source(&mut |source, pack| {
            let mut one = none(pack, Loss::Damaged);
            source.read(&mut |found| match found {
                Found::Whole { elsewhere: true, .. } => one.chunks_elsewhere += 1,
                Found::Whole { plain, .. } => {
                    one.chunks_saved += 1;
                    one.bytes_saved += plain.len() as u64;
                }
                Found::Unreadable => one.chunks_unreadable += 1,
            });
            opaque |= one == none(pack, Loss::Damaged);
            // A damaged pack that no segment names is only of interest while something can be had of it.
            if one.chunks_saved > 0 || self.left_out.contains(&pack) {
                packs.push(one);
            }
            Ok(())
        })?;
        let mut findings = Vec::new();
        self.spare(&whole, &mut findings);
        self.report.findings.extend(findings);
        packs.sort_by_key(|plan| plan.pack);
        self.unnamed_broken.retain(|pack| packs.binary_search_by_key(pack, |plan| plan.pack).is_ok());
        self.report.packs = packs;
        self.opaque = opaque;
        Ok(())
    }

    /// What the index promises in these packs: one walk over the index.
    fn promised(&self, packs: &[PackId]) -> Result<HashMap<PackId, PlacesOfPack>, Error> {
        let index = self.index();
        let numbers = packs.iter().flat_map(|pack| index.numbers_of(pack));
        let mut promised: HashMap<PackId, PlacesOfPack> = HashMap::new();
        for (number, places) in gather(index, numbers)? {
            if let Some((pack, _)) = index.pack(number) {
                promised.entry(pack).or_default().extend(places);
            }
        }
        Ok(promised)
    }

    /// Hands over every damaged pack that is there, read again. Returns those that are whole this time.
    fn each_source(
        &self,
        each: &mut dyn FnMut(Source<'_>, PackId) -> Result<(), Error>,
    ) -> Result<Vec<PackId>, Error> {
        let mut whole = Vec::new();
        let named = self.left_out.iter().filter(|pack| !self.misnamed.contains(pack));
        let packs: Vec<PackId> = named.chain(&self.unnamed_broken).copied().collect();
        for some in packs.chunks(GATHERED_AT_ONCE) {
            let mut promised = self.promised(some)?;
            for pack in some {
                self.breathe()?;
                let bytes = match self.repo.store().get(&pack.key()) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        lost(error.into())?;
                        continue;
                    }
                };
                if *blake3::hash(&bytes).as_bytes() == pack.0 && !self.forged.contains(pack) {
                    whole.push(*pack);
                    continue;
                }
                let source = Source {
                    repo: &self.repo,
                    index: self.index(),
                    places: &self.places,
                    left_out: &self.left_out,
                    shaky: &|pack| self.shaky(pack),
                    bytes,
                    promised: promised.remove(pack).unwrap_or_default(),
                };
                each(source, *pack)?;
            }
        }
        Ok(whole)
    }

    /// What was damaged when read before and is whole now stays in the index.
    fn spare(&mut self, whole: &[PackId], findings: &mut Vec<Finding>) {
        for pack in whole {
            self.left_out.remove(pack);
            findings.push(unsteady(pack.key()));
        }
    }

    /// Does it.
    pub fn execute(mut self, progress: &dyn Progress) -> Result<Repaired, Error> {
        if self.session.is_none() {
            return Err(Error::invalid("this plan was only to be looked at; make one to be executed"));
        }
        self.carry_out(progress)
    }

    fn carry_out(&mut self, progress: &dyn Progress) -> Result<Repaired, Error> {
        let mut done = Repaired::default();
        progress.note("naming packs");
        self.name_packs(&mut done)?;
        progress.note("saving chunks");
        let repo = self.repo.clone();
        let mut salvager = Salvager::new(&repo)?;
        let whole = self.each_source(&mut |source, _| salvager.take(source))?;
        self.spare(&whole, &mut done.findings);
        self.copy_twins(&mut salvager)?;
        done.chunks_saved += salvager.finish(&mut done)?;
        progress.note("replacing index segments");
        let replaced = self.replace_segments(&mut done)?;
        // Nobody can read a damaged segment today. Yet as long as something is missing, and a pack is there of which
        // nothing else may tell what is in it, it is the last trace.
        let last_trace =
            self.opaque && !self.report.segments_to_drop.is_empty() && lacks_chunks(&self.check(progress)?);
        self.delete_segments(&replaced, last_trace, &mut done)?;
        done.packs_left_out = self.left_out.len() as u64;
        done.after = self.check(progress)?;
        if let Some(other) = self.options.from.clone()
            && !done.after.points.is_empty()
        {
            self.take_from(&other, &mut done, progress)?;
            done.after = self.check(progress)?;
        }
        if let Some(session) = &self.session
            && let Err(error) = session.look_again(&Relied(self))
        {
            done.findings.push(Finding::warning(
                "collected-meanwhile",
                self.repo.url(),
                format!("{error}; what this repair relied on may be gone soon: run it again"),
            ));
        }
        Ok(done)
    }

    fn check(&self, progress: &dyn Progress) -> Result<CheckReport, Error> {
        progress.note("checking");
        let options = CheckOptions {
            threads: self.options.threads,
            cancel: self.options.cancel.clone(),
            ..CheckOptions::default()
        };
        check(&self.repo, &options, progress)
    }

    /// Chunks of packs that are left out, of which other packs hold twins, are copied, too: a collection that runs now may
    /// have counted on the packs that are left out, and be about to delete the others (R3).
    fn copy_twins(&self, salvager: &mut Salvager<'_>) -> Result<(), Error> {
        let mut lanes = HashMap::new();
        for id in &self.report.segments_to_replace {
            self.breathe()?;
            let segment = match self.repo.read_segment(id) {
                Ok(segment) => segment,
                Err(Error::Missing { .. }) => continue,
                Err(error) => return Err(error),
            };
            for chunk in &segment.chunks {
                let pack = segment.packs.get(chunk.pack as usize).map(|(pack, _)| *pack);
                let Some(pack) = pack.filter(|pack| self.left_out.contains(pack)) else { continue };
                let twin = self.index().places_of(&chunk.id)?.into_iter().any(|(at, place)| {
                    let other = self.index().pack(place.pack).map(|(other, _)| other);
                    other.is_some_and(|other| !self.left_out.contains(&other))
                        && !self.places.is_bad(at, &place)
                });
                if !twin {
                    continue;
                }
                match self.reader.chunk(&chunk.id) {
                    Ok(plain) => {
                        let lane = *lanes.entry(pack).or_insert_with(|| salvager.lane_of(&pack));
                        salvager.add(lane, chunk.id, &plain)?;
                    }
                    Err(error) => drop(lost(error)?),
                }
            }
        }
        Ok(())
    }
}

/// Whether a point lacks something though its commit can be read.
fn lacks_chunks(report: &CheckReport) -> bool {
    let damaged = report.findings.iter().filter(|finding| finding.code == "commit-damaged");
    let damaged: BTreeSet<&str> = damaged.map(|finding| finding.what.as_str()).collect();
    report.points.iter().any(|point| !damaged.contains(point.commit.key().as_str()))
}

fn unsteady(key: String) -> Finding {
    Finding::warning(
        "read-unsteady",
        key,
        "it was damaged when read before and is whole now, so it stays: look at this machine's memory, its network and the store",
    )
}
