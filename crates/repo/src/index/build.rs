//! Makes runs: out of segments, and out of other runs.
//!
//! Segments are collected in memory up to a limit, sorted, and written as a run; runs are merged line by line.
//! Neither takes more memory for a larger index.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::sync::Arc;

use crate::crypto::{CacheCipher, Keys};
use crate::error::Error;
use crate::id::{PackId, SegmentId};
use crate::local::{Local, Scratch, Spot};

use super::filter;
use super::run::{
    Broken, FILTER_BLOCKS, HEAD, KIND_FILTER, KIND_LINES, KIND_TABLE, LINE, LINES, Line, MAGIC, PART, Run,
    STRIDE, Scan, Table,
};
use super::segment::SegmentView;
use super::{Key, key_of};

/// Why no run was made.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The place it was to be written to does not take it. Another may.
    Place(io::Error),
    /// A run it was to be made of is damaged. The segments are not.
    Broken,
    /// A segment went away since it was listed.
    Vanished,
    /// Anything else.
    Error(Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Place(error)
    }
}

impl From<Broken> for Trouble {
    fn from(Broken: Broken) -> Trouble {
        Trouble::Broken
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Error(error)
    }
}

/// Bytes are handed to the file in pieces of this size.
const WRITE_BYTES: usize = 128 << 10;

/// Where in a file something is being written, front to back.
struct Cursor {
    at: u64,
    pending: Vec<u8>,
}

impl Cursor {
    fn new(at: u64) -> Cursor {
        Cursor { at, pending: Vec::new() }
    }

    fn write(&mut self, scratch: &mut Scratch, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= WRITE_BYTES { self.flush(scratch) } else { Ok(()) }
    }

    fn flush(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        scratch.write_at(&self.pending, self.at)?;
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// Writes a run, line by line, ascending.
struct Builder {
    local: Arc<Local>,
    scratch: Scratch,
    salt: [u8; 32],
    cipher: CacheCipher,
    table: Table,
    lines: Cursor,
    block: Vec<u8>,
    blocks: u64,
    filter: Cursor,
    page: Vec<u8>,
    pages: u64,
}

impl Builder {
    /// `most`: there will be no more lines than this.
    fn new(local: &Arc<Local>, keys: &Keys, spot: Spot, most: usize) -> Result<Builder, Trouble> {
        let salt = local.salt()?;
        let filter_blocks = filter::blocks_for(most as u64);
        let pages = filter_blocks.div_ceil(FILTER_BLOCKS as u64);
        let table = Table { filter_blocks, ..Table::default() };
        Ok(Builder {
            local: local.clone(),
            scratch: local.scratch(spot, PART)?,
            salt,
            cipher: keys.index_cache(&salt)?,
            table,
            lines: Cursor::new(STRIDE as u64 * (1 + pages)),
            block: Vec::with_capacity(STRIDE),
            blocks: 0,
            filter: Cursor::new(STRIDE as u64),
            page: empty_page(),
            pages: 0,
        })
    }

    fn push(&mut self, line: &Line) -> Result<(), Trouble> {
        if self.block.len() == LINES * LINE {
            self.end_block()?;
        }
        if self.block.is_empty() {
            self.table.fences.push(line.high);
        }
        line.write(&mut self.block);
        self.table.lines += 1;
        let block = filter::block_of(line.high, self.table.filter_blocks);
        while self.pages < block / FILTER_BLOCKS as u64 {
            self.end_page()?;
        }
        let at = block as usize % FILTER_BLOCKS * filter::BLOCK;
        if let Some(block) = self.page.get_mut(at..at + filter::BLOCK) {
            filter::insert(block, line.low);
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), Trouble> {
        self.block.resize(STRIDE - 16, 0);
        self.cipher.seal(KIND_LINES, self.blocks, &mut self.block)?;
        self.lines.write(&mut self.scratch, &self.block)?;
        self.block.clear();
        self.blocks += 1;
        Ok(())
    }

    fn end_page(&mut self) -> Result<(), Trouble> {
        let mut page = std::mem::replace(&mut self.page, empty_page());
        self.cipher.seal(KIND_FILTER, self.pages, &mut page)?;
        self.filter.write(&mut self.scratch, &page)?;
        self.pages += 1;
        Ok(())
    }

    fn finish(mut self, segments: Vec<SegmentId>, packs: Vec<(PackId, u32)>) -> Result<Run, Trouble> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        while self.pages < self.table.filter_blocks.div_ceil(FILTER_BLOCKS as u64) {
            self.end_page()?;
        }
        self.filter.flush(&mut self.scratch)?;
        self.lines.flush(&mut self.scratch)?;
        self.table.segments = segments;
        self.table.packs = packs;
        let at = self.lines.at;
        let mut sealed = self.table.encode();
        self.cipher.seal(KIND_TABLE, at, &mut sealed)?;
        self.scratch.write_at(&sealed, at)?;
        let mut head = Vec::with_capacity(HEAD);
        head.extend(MAGIC);
        head.extend(self.salt);
        head.extend(at.to_le_bytes());
        head.extend((sealed.len() as u64).to_le_bytes());
        self.scratch.write_at(&head, 0)?;
        self.scratch.complete();
        self.table.fences.shrink_to_fit();
        Ok(Run::new(&self.local, self.scratch, self.cipher, self.table))
    }
}

fn empty_page() -> Vec<u8> {
    let mut page = Vec::with_capacity(STRIDE);
    page.resize(STRIDE - 16, 0);
    page
}

/// Segments that are collected in memory to become a run.
pub(super) struct Batch {
    lines: Vec<Line>,
    packs: Vec<(PackId, u32)>,
    numbers: HashMap<(PackId, u32), u32>,
    segments: Vec<SegmentId>,
}

impl Batch {
    /// With room for so many lines.
    pub fn new(lines: usize) -> Result<Batch, Error> {
        let mut batch =
            Batch { lines: Vec::new(), packs: Vec::new(), numbers: HashMap::new(), segments: Vec::new() };
        if batch.lines.try_reserve_exact(lines).is_err() {
            return Err(Error::failed(format!("{lines} chunks of an index do not fit into memory")));
        }
        Ok(batch)
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Adds a segment: all of it, or nothing if it is not sound.
    pub fn append(&mut self, name: SegmentId, view: &SegmentView<'_>) -> Result<(), String> {
        let (lines, packs) = (self.lines.len(), self.packs.len());
        let mut numbers = Vec::with_capacity(view.pack_count());
        for pack in view.packs() {
            let number = *self.numbers.entry(pack).or_insert_with(|| {
                self.packs.push(pack);
                self.packs.len() as u32 - 1
            });
            numbers.push(number);
        }
        let outcome = view.chunks(|chunk| {
            let (high, low) = key_of(&chunk.id);
            let place = Line::pack_place(chunk.offset, chunk.sealed, chunk.plain);
            let pack = numbers.get(chunk.pack as usize).copied().unwrap_or(0);
            self.lines.push(Line { high, low, pack, place });
        });
        match outcome {
            Ok(()) => self.segments.push(name),
            Err(_) => {
                self.lines.truncate(lines);
                for pack in self.packs.drain(packs..) {
                    self.numbers.remove(&pack);
                }
            }
        }
        outcome
    }

    /// Sorts and writes what was collected, and is empty again.
    pub fn write(&mut self, local: &Arc<Local>, keys: &Keys, spot: Spot) -> Result<Run, Trouble> {
        self.numbers = HashMap::new();
        let packs = std::mem::take(&mut self.packs);
        let mut order: Vec<u32> = (0..packs.len() as u32).collect();
        order.sort_unstable_by_key(|number| packs[*number as usize]);
        let mut rank = vec![0; packs.len()];
        for (at, number) in order.iter().enumerate() {
            rank[*number as usize] = at as u32;
        }
        for line in &mut self.lines {
            line.pack = rank.get(line.pack as usize).copied().unwrap_or(0);
        }
        // Segments are sorted already, one behind the other: the stable sort finds that and merges.
        self.lines.sort();
        self.lines.dedup();
        let mut builder = Builder::new(local, keys, spot, self.lines.len())?;
        for line in &self.lines {
            builder.push(line)?;
        }
        self.lines.clear();
        let mut segments = std::mem::take(&mut self.segments);
        segments.sort_unstable();
        let packs = order.iter().map(|number| packs[*number as usize]).collect();
        builder.finish(segments, packs)
    }
}

/// A run of nothing but keys, ascending, each with a number in the stead of a place.
pub(crate) fn run_of_keys(
    local: &Arc<Local>,
    keys: &Keys,
    spot: Spot,
    sorted: &[(Key, u64)],
) -> Result<Run, Trouble> {
    let mut builder = Builder::new(local, keys, spot, sorted.len())?;
    for ((high, low), place) in sorted {
        builder.push(&Line { high: *high, low: *low, pack: 0, place: *place })?;
    }
    builder.finish(Vec::new(), Vec::new())
}

/// How many runs are merged at a time.
const FAN_IN: usize = 64;

/// One run out of several.
pub(crate) fn merge(
    local: &Arc<Local>,
    keys: &Keys,
    spot: Spot,
    mut inputs: Vec<Arc<Run>>,
) -> Result<Run, Trouble> {
    while inputs.len() > FAN_IN {
        // The smallest first, so that little is written twice.
        inputs.sort_by_key(|run| Reverse(run.len()));
        let some = inputs.split_off(inputs.len() - FAN_IN);
        inputs.push(Arc::new(merge_some(local, keys, spot, &some)?));
    }
    merge_some(local, keys, spot, &inputs)
}

fn merge_some(local: &Arc<Local>, keys: &Keys, spot: Spot, inputs: &[Arc<Run>]) -> Result<Run, Trouble> {
    let mut packs: Vec<(PackId, u32)> =
        inputs.iter().flat_map(|run| run.table.packs.iter().copied()).collect();
    packs.sort_unstable();
    packs.dedup();
    let number_of = |pack: &(PackId, u32)| packs.binary_search(pack).unwrap_or(0) as u32;
    let numbers: Vec<Vec<u32>> =
        inputs.iter().map(|run| run.table.packs.iter().map(number_of).collect()).collect();
    let next = |scan: &mut Scan, input: usize| -> Result<Option<Reverse<(Line, usize)>>, Broken> {
        Ok(scan.next()?.map(|mut line| {
            line.pack = numbers[input].get(line.pack as usize).copied().unwrap_or(0);
            Reverse((line, input))
        }))
    };
    let mut scans: Vec<Scan> = inputs.iter().map(|run| Scan::new(run, 0)).collect();
    let mut heap = BinaryHeap::with_capacity(inputs.len());
    for (input, scan) in scans.iter_mut().enumerate() {
        heap.extend(next(scan, input)?);
    }
    let mut builder = Builder::new(local, keys, spot, inputs.iter().map(|run| run.len()).sum())?;
    let mut last = None;
    while let Some(mut top) = heap.peek_mut() {
        let Reverse((line, input)) = *top;
        if last != Some(line) {
            builder.push(&line)?;
            last = Some(line);
        }
        match next(&mut scans[input], input)? {
            Some(line) => *top = line,
            None => drop(std::collections::binary_heap::PeekMut::pop(top)),
        }
    }
    let mut segments: Vec<SegmentId> =
        inputs.iter().flat_map(|run| run.table.segments.iter().copied()).collect();
    segments.sort_unstable();
    builder.finish(segments, packs)
}
