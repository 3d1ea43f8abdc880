//! The index: which pack holds which chunk.
//!
//! Segments lie in the store, each listing whole packs. Here they are merged into a few sorted runs
//! ([`run`]): files in the local cache, or without a cache files without a name, or memory. Opening the
//! index lists the segments, fetches those no run holds yet, and merges the small runs, so that there are
//! never more than a few. What stays in memory is 8 bytes for each 145 chunks, 36 for each pack, and of the
//! filter what was asked for (1.25 bytes a chunk), all within a budget (R6): the rest is read where it lies.
//!
//! Ids are keyed hashes, so the 16 bytes kept of each tell 2^64 chunks apart by chance, and a reader verifies
//! the whole id on every chunk it opens. A chunk listed by several segments keeps all its places: any of them
//! serves.
//!
//! - **The segments are the truth.** A run is used only if each of its segments is in the store now. What
//!   does not open of a run, when it is opened or later, is made again from its segments: a damaged or forged
//!   cache costs time and nothing else.
//! - A damaged segment costs what only it names, not the repository: it is left out, reported as a finding,
//!   and remembered, so that a chunk nobody else names is reported together with it.
//! - Every pack is in one run only, and every place of a chunk once. So each place has a **position**, a
//!   number below [`Index::chunk_count`], and each pack a number below [`Index::pack_count`], which stay as
//!   they are while the index is open: what is to be known of all of them fits into bits ([`Bits`]).

mod bits;
pub(crate) mod blocks;
mod build;
mod filter;
mod present;
pub(crate) mod run;
mod segment;
mod source;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::Error;
use crate::id::{ChunkId, PackId, SegmentId};
use crate::local::Spot;
use crate::monitor::Finding;

pub(crate) use bits::{Bits, PackSet};
pub(crate) use build::{Trouble, merge as merge_runs, run_of_keys};
pub(crate) use present::check_packs;
use run::{Broken, Line, Run, Scan};
pub(crate) use segment::SEGMENT_CHUNKS_MAX;
pub use segment::{Segment, SegmentChunk};
pub(crate) use source::Source;

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// Where its sealed bytes begin in the pack.
    pub offset: u32,
    /// How many they are.
    pub sealed: u32,
    /// How many plain bytes they stand for.
    pub plain: u32,
}

/// The first 16 bytes of a chunk's id, which is what the index keeps of it. Ascends as the ids do.
pub(crate) type Key = (u64, u64);

pub(crate) fn key_of(id: &ChunkId) -> Key {
    let [high, low, ..] = id.0.as_chunks::<8>().0 else { return (0, 0) };
    (u64::from_be_bytes(*high), u64::from_be_bytes(*low))
}

/// One place of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: Key,
    /// The number of the pack.
    pub(crate) pack: u32,
    pub(crate) offset: u32,
    pub(crate) sealed: u32,
    pub(crate) plain: u32,
}

impl Place {
    /// Whether it is of this chunk, as far as the index keeps its id.
    pub(crate) fn is_of(&self, id: &ChunkId) -> bool {
        self.key == key_of(id)
    }

    /// An id that finds the same chunk in another reading of the index; only its first 16 bytes are known.
    pub(crate) fn id_as_far_as_known(&self) -> ChunkId {
        let mut id = ChunkId::ZERO;
        id.0[..8].copy_from_slice(&self.key.0.to_be_bytes());
        id.0[8..16].copy_from_slice(&self.key.1.to_be_bytes());
        id
    }
}

/// Is handed all places of one chunk, each with its position.
pub(crate) type EachChunk<'e> = dyn FnMut(&[(usize, Place)]) -> Result<(), Error> + 'e;

/// A run in use.
struct Slot {
    run: Arc<Run>,
    /// What stands in for it since it turned out damaged.
    healed: OnceLock<Arc<Run>>,
    /// The position of its first line.
    lines_at: usize,
    /// The number of its first pack.
    packs_at: usize,
}

impl Slot {
    fn run(&self) -> &Arc<Run> {
        self.healed.get().unwrap_or(&self.run)
    }

    fn place(&self, line: &Line) -> Place {
        let (offset, sealed, plain) = line.place();
        Place { key: line.key(), pack: self.packs_at as u32 + line.pack, offset, sealed, plain }
    }
}

/// All segments, merged.
pub struct Index {
    source: Source,
    slots: Vec<Slot>,
    lines: usize,
    packs: usize,
    /// Packs that are not in the store as promised. `None`: not looked.
    absent: Option<Bits>,
    damaged: Vec<SegmentId>,
    segments: usize,
    findings: Vec<Finding>,
    healing: Mutex<()>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("segments", &self.segments)
            .field("packs", &self.packs)
            .field("chunks", &self.lines)
            .field("runs", &self.slots.len())
            .field("damaged", &self.damaged)
            .finish()
    }
}

/// How often the index may change under us while it is opened: a collection replaces segments once.
const VANISHED_MAX: usize = 100;
/// Runs of so many lines are merged with whatever comes: writing them again costs nothing worth counting.
const SMALL_RUN: usize = 64 << 10;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    /// Opens the index. `fresh`: nothing that this machine keeps is believed, every segment is read.
    pub(crate) fn open(source: &Source, fresh: bool) -> Result<Index, Error> {
        let mut fresh = fresh;
        let mut vanished = 0;
        let mut spots = source.local.spots().peekable();
        while let Some(spot) = spots.peek() {
            match Index::open_at(source, *spot, fresh) {
                Ok(index) => return Ok(index),
                Err(Trouble::Error(error)) => return Err(error),
                Err(Trouble::Vanished) if vanished < VANISHED_MAX => vanished += 1,
                Err(Trouble::Vanished) => return Err(unstable()),
                Err(Trouble::Broken) if !fresh => fresh = true,
                Err(Trouble::Broken) => return Err(unstable()),
                Err(Trouble::Place(error)) => {
                    tracing::debug!(?spot, %error, "the index cannot be kept there");
                    spots.next();
                }
            }
        }
        Err(Error::failed("there is no place for the index, not even memory"))
    }

    fn open_at(source: &Source, spot: Spot, fresh: bool) -> Result<Index, Trouble> {
        let listed = source.listed()?;
        let (mut runs, mut useless) = source.known(if fresh { &[] } else { &listed });
        let held: HashSet<SegmentId> =
            runs.iter().flat_map(|run| run.table.segments.iter().copied()).collect();
        let missing: Vec<_> = listed.iter().filter(|(name, _)| !held.contains(name)).copied().collect();
        let gathered = source.gather(spot, &missing)?;
        let news = gathered.runs.len();
        let first_new = runs.len();
        runs.extend(gathered.runs);
        let merging = worth_merging(&runs, news > 0);
        let mut kept = Vec::new();
        let mut inputs = Vec::new();
        for (at, run) in runs.into_iter().enumerate() {
            if merging.contains(&at) {
                inputs.push(run);
            } else if at >= first_new {
                kept.push(publish(run));
            } else {
                kept.push(run);
            }
        }
        if !inputs.is_empty() {
            let merged = build::merge(&source.local, &source.keys, spot, inputs.clone())?;
            kept.push(publish(Arc::new(merged)));
            useless.extend(inputs);
        }
        // After what replaces them has its name: a crash in between leaves one too many, not one too few.
        useless.iter().for_each(|run| run.discard());
        for run in &kept {
            if !source.local.open_runs().iter().any(|open| Arc::ptr_eq(open, run)) {
                source.local.remember_run(run);
            }
        }
        let mut index = Index::of(source, kept)?;
        index.segments = listed.len();
        for (name, what) in gathered.damaged {
            index.leave_out(name, &what);
        }
        Ok(index)
    }

    fn of(source: &Source, mut runs: Vec<Arc<Run>>) -> Result<Index, Error> {
        runs.sort_by_key(|run| Reverse(run.len()));
        let (mut lines, mut packs, mut slots) = (0, 0, Vec::with_capacity(runs.len()));
        for run in runs {
            let (lines_at, packs_at) = (lines, packs);
            lines += run.len();
            packs += run.table.packs.len();
            slots.push(Slot { run, healed: OnceLock::new(), lines_at, packs_at });
        }
        if u32::try_from(packs).is_err() {
            return Err(Error::failed("an index of more than 2^32 packs"));
        }
        Ok(Index {
            source: source.clone(),
            slots,
            lines,
            packs,
            absent: None,
            damaged: Vec::new(),
            segments: 0,
            findings: Vec::new(),
            healing: Mutex::default(),
        })
    }

    fn leave_out(&mut self, name: SegmentId, what: &str) {
        self.damaged.push(name);
        self.findings.push(Finding::error(
            "segment-damaged",
            name.key(),
            format!(
                "{what}; chunks that only this index segment names cannot be found until it is rebuilt from the packs"
            ),
        ));
    }

    /// Asks a run; one that turns out damaged is made again first.
    fn ask<T>(&self, slot: &Slot, ask: &mut dyn FnMut(&Arc<Run>) -> Result<T, Broken>) -> Result<T, Error> {
        match ask(slot.run()) {
            Ok(answer) => Ok(answer),
            Err(Broken) => {
                self.heal(slot)?;
                ask(slot.run()).map_err(|Broken| unstable())
            }
        }
    }

    /// Makes a damaged run again. Every line gets the position it had, because order and content follow from
    /// the segments alone.
    fn heal(&self, slot: &Slot) -> Result<(), Error> {
        let _one_at_a_time = lock(&self.healing);
        if slot.healed.get().is_some() {
            return Ok(());
        }
        slot.run.discard();
        let source = &self.source;
        let names: Vec<(SegmentId, u64)> = source
            .listed()?
            .into_iter()
            .filter(|(name, _)| slot.run.table.segments.binary_search(name).is_ok())
            .collect();
        for spot in source.local.spots_for_now() {
            let made = source.gather(spot, &names).and_then(|gathered| match gathered.runs.as_slice() {
                [one] => Ok(one.clone()),
                _ => build::merge(&source.local, &source.keys, spot, gathered.runs).map(Arc::new),
            });
            match made {
                Ok(run) if run.table.packs == slot.run.table.packs && run.len() == slot.run.len() => {
                    tracing::debug!(chunks = run.len(), "a damaged part of the cached index was made again");
                    // Under the lock: nobody was faster.
                    let _ = slot.healed.set(run);
                    return Ok(());
                }
                Ok(_) | Err(Trouble::Broken | Trouble::Vanished) => return Err(unstable()),
                Err(Trouble::Error(error)) => return Err(error),
                Err(Trouble::Place(_)) => {}
            }
        }
        Err(unstable())
    }

    /// The places of a chunk and their positions, present or not, put behind `found`.
    fn find(&self, id: &ChunkId, found: &mut Vec<(usize, Place)>) -> Result<(), Error> {
        let key = key_of(id);
        for slot in &self.slots {
            let mut lines = Vec::new();
            self.ask(slot, &mut |run| {
                lines.clear();
                run.find(key, &mut lines)
            })?;
            found.extend(lines.iter().map(|(at, line)| (slot.lines_at + at, slot.place(line))));
        }
        Ok(())
    }

    /// The places of a chunk, present or not, each with its position.
    pub(crate) fn places_of(&self, id: &ChunkId) -> Result<Vec<(usize, Place)>, Error> {
        let mut found = Vec::new();
        self.find(id, &mut found)?;
        Ok(found)
    }

    fn is_absent(&self, pack: u32) -> bool {
        self.absent.as_ref().is_some_and(|absent| absent.contains(pack as usize))
    }

    /// The number of a pack that holds the chunk and was not found missing.
    pub(crate) fn pack_with(&self, id: &ChunkId) -> Result<Option<u32>, Error> {
        let places = self.places_of(id)?;
        Ok(places.iter().map(|(_, place)| place.pack).find(|pack| !self.is_absent(*pack)))
    }

    /// The same, of the packs that `fits` says yes to.
    pub(crate) fn pack_among(
        &self,
        id: &ChunkId,
        fits: &dyn Fn(&PackId) -> bool,
    ) -> Result<Option<u32>, Error> {
        let places = self.places_of(id)?;
        let mut packs = places.iter().map(|(_, place)| place.pack).filter(|pack| !self.is_absent(*pack));
        Ok(packs.find(|pack| self.pack(*pack).is_some_and(|(id, _)| fits(&id))))
    }

    /// All places of a chunk, as (number of the pack, place).
    pub(crate) fn places(&self, id: &ChunkId) -> Result<Vec<(u32, Location)>, Error> {
        let places = self.places_of(id)?;
        Ok(places.iter().map(|(_, place)| (place.pack, self.location(place))).collect())
    }

    /// A place with the name of its pack.
    pub(crate) fn location(&self, place: &Place) -> Location {
        let pack = self.pack(place.pack).map_or(PackId::ZERO, |(id, _)| id);
        Location { pack, offset: place.offset, sealed: place.sealed, plain: place.plain }
    }

    /// Every place once, by position: ascending by id within a run, and run after run. Reads the whole
    /// index, a block at a time.
    pub(crate) fn each_place(
        &self,
        each: &mut dyn FnMut(usize, &Place) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for slot in &self.slots {
            let mut walk = Walk::new(self, slot);
            while let Some((position, place)) = walk.next()? {
                each(position, &place)?;
            }
        }
        Ok(())
    }

    /// Every chunk once, ascending by id, with all its places. Reads the whole index, a block of each run at
    /// a time.
    pub(crate) fn each_chunk(&self, each: &mut EachChunk<'_>) -> Result<(), Error> {
        let mut walks: Vec<Walk<'_>> = self.slots.iter().map(|slot| Walk::new(self, slot)).collect();
        let mut heap = BinaryHeap::new();
        let mut heads = Vec::with_capacity(walks.len());
        for (number, walk) in walks.iter_mut().enumerate() {
            let head = walk.next()?;
            heap.extend(head.map(|(_, place)| Reverse((place.key, number))));
            heads.push(head);
        }
        let mut places: Vec<(usize, Place)> = Vec::new();
        while let Some(Reverse((key, number))) = heap.pop() {
            if places.first().is_some_and(|(_, first)| first.key != key) {
                each(&places)?;
                places.clear();
            }
            places.extend(heads[number]);
            heads[number] = walks[number].next()?;
            heap.extend(heads[number].map(|(_, place)| Reverse((place.key, number))));
        }
        if places.is_empty() { Ok(()) } else { each(&places) }
    }

    /// A pack by its number: its name, and its size as the index promises it.
    pub(crate) fn pack(&self, number: u32) -> Option<(PackId, u32)> {
        let at = self.slots.partition_point(|slot| slot.packs_at <= number as usize).saturating_sub(1);
        let slot = self.slots.get(at)?;
        slot.run.table.packs.get(number as usize - slot.packs_at).copied()
    }

    /// The numbers of the packs of this name: more than one only if segments differ on its size.
    pub(crate) fn numbers_of(&self, id: &PackId) -> impl Iterator<Item = u32> {
        self.slots
            .iter()
            .flat_map(move |slot| slot.run.numbers_of(id).map(move |number| (slot.packs_at + number) as u32))
    }

    /// The number of the pack of this name.
    pub(crate) fn number_of(&self, id: &PackId) -> Option<u32> {
        self.numbers_of(id).next()
    }

    /// How many packs it names.
    pub fn pack_count(&self) -> usize {
        self.packs
    }

    /// How many places of chunks it names.
    pub fn chunk_count(&self) -> usize {
        self.lines
    }

    /// How many segments there are, damaged ones included.
    pub fn segment_count(&self) -> usize {
        self.segments
    }

    /// Segments that could not be read.
    pub fn damaged(&self) -> &[SegmentId] {
        &self.damaged
    }

    /// What else whoever opened it found.
    pub(crate) fn add_finding(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// What was found while reading it.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

fn publish(mut run: Arc<Run>) -> Arc<Run> {
    if let Some(run) = Arc::get_mut(&mut run) {
        run.publish();
    }
    run
}

fn unstable() -> Error {
    Error::failed(
        "the local cache of the index is damaged and the index in the repository has changed since it was opened; run it again",
    )
}

/// Which of the runs are to become one: those that name the same pack always, and if something is new the
/// small ones, each with all that are not much larger than those before it together. So there are few, and a
/// line is written again only when its run has grown by half.
fn worth_merging(runs: &[Arc<Run>], news: bool) -> BTreeSet<usize> {
    let mut merging = BTreeSet::new();
    for (at, run) in runs.iter().enumerate() {
        for (other_at, other) in runs.iter().enumerate() {
            let fewer = (run.table.packs.len(), at) < (other.table.packs.len(), other_at);
            if fewer && run.table.packs.iter().any(|(id, _)| !other.numbers_of(id).is_empty()) {
                merging.extend([at, other_at]);
            }
        }
    }
    if news {
        let mut by_size: Vec<(usize, usize)> =
            runs.iter().enumerate().map(|(at, run)| (run.len(), at)).collect();
        by_size.sort_unstable();
        let mut sum = 0;
        for (count, (lines, _)) in by_size.iter().enumerate() {
            if *lines <= SMALL_RUN || *lines <= 2 * sum {
                merging.extend(by_size[..=count].iter().map(|(_, at)| *at));
            }
            sum += lines;
        }
    }
    if merging.len() < 2 { BTreeSet::new() } else { merging }
}

/// The places of one run, in order. A run that turns out damaged is made again, and the walk goes on.
struct Walk<'i> {
    index: &'i Index,
    slot: &'i Slot,
    scan: Scan,
}

impl<'i> Walk<'i> {
    fn new(index: &'i Index, slot: &'i Slot) -> Walk<'i> {
        Walk { index, slot, scan: Scan::new(slot.run(), 0) }
    }

    fn next(&mut self) -> Result<Option<(usize, Place)>, Error> {
        let at = self.scan.position();
        let line = match self.scan.next() {
            Ok(line) => line,
            Err(Broken) => {
                self.index.heal(self.slot)?;
                self.scan = Scan::new(self.slot.run(), at);
                self.scan.next().map_err(|Broken| unstable())?
            }
        };
        Ok(line.map(|line| (self.slot.lines_at + at, self.slot.place(&line))))
    }
}
