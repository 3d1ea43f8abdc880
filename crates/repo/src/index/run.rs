//! A run: some segments of the index, merged and sorted, in a file or in memory.
//!
//! ```text
//! run    = head (4096) ‖ filter page … ‖ block of lines … ‖ sealed table
//! head   = "HFCACHE1" (8) ‖ salt (32) ‖ where the table begins (u64) ‖ its length (u64) ‖ zeros
//! page   = 63 blocks of the filter, sealed                                          4096 bytes each
//! block  = 145 lines, ascending, sealed                                             4096 bytes each
//! line   = first 16 bytes of the chunk's id ‖ place (u64) ‖ pack (u32, into the table)    28 bytes
//! table  = counts ‖ segments (32 each) ‖ packs (36 each, ascending) ‖ first half-id of each block (8 each)
//! ```
//!
//! In memory are the table (8 bytes for each 145 lines, 36 for each pack) and the pages of the filter
//! that were asked for. A look-up that passes the filter reads one block.
//!
//! What a run holds is decided by the segments it was made of, to the last bit of order: so a run that turns
//! out damaged can be made again with every chunk at the same position. This is no format that is
//! promised: another version of it is thrown away and made again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::crypto::{CacheCipher, Keys};
use crate::id::{PackId, SegmentId};
use crate::local::{Local, Scratch};
use crate::pack::read_u32;

use super::filter;

/// Bytes of a sealed block or page.
pub(super) const STRIDE: usize = 4_096;
/// Bytes of a line.
pub(super) const LINE: usize = 28;
/// Lines in a block: what fits beside the tag.
pub(super) const LINES: usize = (STRIDE - 16) / LINE;
/// Blocks of the filter in a page.
pub(super) const FILTER_BLOCKS: usize = (STRIDE - 16) / filter::BLOCK;

pub(super) const MAGIC: &[u8; 8] = b"HFCACHE1";
pub(super) const HEAD: usize = 56;

/// What a sealed part is, so that none passes for another.
pub(super) const KIND_LINES: u32 = 0;
pub(super) const KIND_FILTER: u32 = 1;
pub(super) const KIND_TABLE: u32 = 2;

/// How files of runs end.
pub(super) const ENDING: &str = ".run";
/// Where they lie in the cache.
pub(super) const PART: &str = "index";

/// It is not what was written, or the disk does not give it.
#[derive(Debug)]
pub(crate) struct Broken;

/// One place of one chunk. Ascending by id, then pack, then place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(Rust, packed(4))]
pub(super) struct Line {
    /// The first 16 bytes of the id, big-endian, so that order is that of the ids.
    pub high: u64,
    pub low: u64,
    pub pack: u32,
    /// Offset (26 bits), sealed length (19 bits) and plain length less one (18 bits).
    pub place: u64,
}

const _: () = assert!(size_of::<Line>() == LINE);

impl Line {
    pub fn key(&self) -> (u64, u64) {
        (self.high, self.low)
    }

    pub fn pack_place(offset: u32, sealed: u32, plain: u32) -> u64 {
        u64::from(offset) << 37 | u64::from(sealed) << 18 | u64::from(plain.saturating_sub(1))
    }

    /// Offset, sealed and plain length.
    pub fn place(&self) -> (u32, u32, u32) {
        let place = self.place;
        ((place >> 37) as u32, (place >> 18) as u32 & 0x7_ffff, (place as u32 & 0x3_ffff) + 1)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.high.to_le_bytes());
        out.extend(self.low.to_le_bytes());
        out.extend(self.place.to_le_bytes());
        out.extend(self.pack.to_le_bytes());
    }

    fn read(bytes: &[u8; LINE]) -> Line {
        let [high, low, place] = [0, 8, 16].map(|at| read_u64(bytes, at));
        Line { high, low, pack: read_u32(bytes, 24), place }
    }
}

fn key_at(bytes: &[u8; LINE]) -> (u64, u64) {
    (read_u64(bytes, 0), read_u64(bytes, 8))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk::<8>()).map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// What the table says.
#[derive(Default)]
pub(super) struct Table {
    pub lines: u64,
    pub filter_blocks: u64,
    /// Ascending.
    pub segments: Vec<SegmentId>,
    /// Ascending, with their sizes.
    pub packs: Vec<(PackId, u32)>,
    /// The first half of the id of the first line of each block.
    pub fences: Vec<u64>,
}

impl Table {
    pub fn encode(&self) -> Vec<u8> {
        let bytes = 28 + 32 * self.segments.len() + 36 * self.packs.len() + 8 * self.fences.len();
        // Room for the tag.
        let mut out = Vec::with_capacity(bytes + 16);
        out.extend(self.lines.to_le_bytes());
        out.extend(self.filter_blocks.to_le_bytes());
        for count in [self.segments.len(), self.packs.len(), self.fences.len()] {
            out.extend((count as u32).to_le_bytes());
        }
        self.segments.iter().for_each(|segment| out.extend(segment.as_bytes()));
        for (id, size) in &self.packs {
            out.extend(id.as_bytes());
            out.extend(size.to_le_bytes());
        }
        self.fences.iter().for_each(|fence| out.extend(fence.to_le_bytes()));
        out
    }

    fn decode(bytes: &[u8]) -> Option<Table> {
        let (counts, rest) = bytes.split_first_chunk::<28>()?;
        let [segments, packs, fences] = [16, 20, 24].map(|at| read_u32(counts, at) as usize);
        let (segments, rest) = rest.split_at_checked(segments.checked_mul(32)?)?;
        let (packs, rest) = rest.split_at_checked(packs.checked_mul(36)?)?;
        let (lines, filter_blocks) = (read_u64(counts, 0), read_u64(counts, 8));
        let sound = rest.len() == fences.checked_mul(8)?
            && lines.div_ceil(LINES as u64) == fences as u64
            && filter_blocks == filter_blocks.clamp(1, 1 << 40);
        sound.then(|| Table {
            lines,
            filter_blocks,
            segments: segments.as_chunks().0.iter().map(|id| SegmentId(*id)).collect(),
            packs: packs
                .as_chunks::<36>()
                .0
                .iter()
                .filter_map(|line| Some((PackId::from_slice(line.get(..32)?)?, read_u32(line, 32))))
                .collect(),
            fences: rest.as_chunks().0.iter().map(|fence| u64::from_le_bytes(*fence)).collect(),
        })
    }
}

/// For the fuzzer: a table there and back.
pub(crate) fn recode_table(bytes: &[u8]) -> Option<Vec<u8>> {
    Table::decode(bytes).map(|table| table.encode())
}

/// For the fuzzer: good tables.
pub(crate) fn table_samples() -> Vec<Vec<u8>> {
    let some = Table {
        lines: 300,
        filter_blocks: 64,
        segments: vec![SegmentId([1; 32]), SegmentId([2; 32])],
        packs: vec![(PackId([3; 32]), 40_000), (PackId([4; 32]), 50_000)],
        fences: vec![1, 1 << 40, u64::MAX],
    };
    vec![some.encode(), Table { filter_blocks: 1, ..Table::default() }.encode()]
}

/// A page of the filter: not asked for yet, in memory, or not to be had.
type Page = OnceLock<Option<Box<[u8]>>>;

pub(crate) struct Run {
    local: Arc<Local>,
    scratch: Scratch,
    cipher: CacheCipher,
    serial: u64,
    pub(super) table: Table,
    filter: Vec<Page>,
    /// Its name in the cache.
    pub(super) path: Option<PathBuf>,
}

impl Run {
    pub(super) fn new(local: &Arc<Local>, scratch: Scratch, cipher: CacheCipher, table: Table) -> Run {
        let pages = table.filter_blocks.div_ceil(FILTER_BLOCKS as u64);
        Run {
            local: local.clone(),
            scratch,
            cipher,
            serial: local.serial(),
            filter: (0..pages).map(|_| OnceLock::new()).collect(),
            table,
            path: None,
        }
    }

    /// A run of the cache; `None` if it is not one of this repository and this version, or not as it was written.
    pub(super) fn open(local: &Arc<Local>, keys: &Keys, path: &Path) -> Option<Run> {
        let scratch = Scratch::open(path).ok()?;
        let mut head = [0; HEAD];
        scratch.read_at(&mut head, 0).ok()?;
        let (salt, places) = head.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
        let cipher = keys.index_cache(salt).ok()?;
        let (at, length) = (read_u64(places, 0), read_u64(places, 8));
        // Not sealed, and yet it decides how much memory is taken: no table is larger than its file.
        let size = std::fs::metadata(path).ok()?.len();
        if at.checked_add(length)? != size {
            return None;
        }
        let mut table = vec![0; usize::try_from(length).ok()?];
        scratch.read_at(&mut table, at).ok()?;
        if !cipher.open(KIND_TABLE, at, &mut table) {
            return None;
        }
        let table = Table::decode(&table)?;
        let mut run = Run::new(local, scratch, cipher, table);
        run.path = Some(path.to_path_buf());
        Some(run)
    }

    /// Removes its file from the cache. Whoever has it open can go on reading.
    pub(super) fn discard(&self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }

    pub(super) fn publish(&mut self) {
        self.path = self.local.publish(&mut self.scratch, ENDING);
    }

    pub(crate) fn len(&self) -> usize {
        self.table.lines as usize
    }

    /// The numbers of the packs of this name: more than one only if segments differ on its size.
    pub(super) fn numbers_of(&self, id: &PackId) -> std::ops::Range<usize> {
        let start = self.table.packs.partition_point(|(pack, _)| pack < id);
        let count = self.table.packs[start..].iter().take_while(|(pack, _)| pack == id).count();
        start..start + count
    }

    fn sealed(&self, kind: u32, number: u64, at: u64) -> Result<Vec<u8>, Broken> {
        let mut bytes = vec![0; STRIDE];
        self.scratch.read_at(&mut bytes, at).map_err(|_| Broken)?;
        if self.cipher.open(kind, number, &mut bytes) { Ok(bytes) } else { Err(Broken) }
    }

    fn block(&self, number: usize) -> Result<Vec<u8>, Broken> {
        let at = STRIDE * (1 + self.filter.len() + number);
        self.sealed(KIND_LINES, number as u64, at as u64)
    }

    fn cached(&self, number: usize) -> Result<Arc<Vec<u8>>, Broken> {
        self.local.blocks.get(self.serial, number as u64, || self.block(number))
    }

    /// The lines of a block, of which the last is not full.
    fn lines_of<'b>(&self, number: usize, bytes: &'b [u8]) -> &'b [[u8; LINE]] {
        let count = self.len().saturating_sub(number * LINES).min(LINES);
        bytes.as_chunks::<LINE>().0.get(..count).unwrap_or_default()
    }

    /// Whether the filter lets the chunk pass. Where the filter is not to be had, it does.
    fn may_hold(&self, (high, low): (u64, u64)) -> bool {
        let block = filter::block_of(high, self.table.filter_blocks);
        let (number, at) = (block / FILTER_BLOCKS as u64, block as usize % FILTER_BLOCKS * filter::BLOCK);
        let Some(page) = self.filter.get(number as usize) else { return true };
        let page = page.get_or_init(|| {
            if !self.local.take_filter(STRIDE) {
                return None;
            }
            let page = self.sealed(KIND_FILTER, number, (STRIDE as u64) * (1 + number));
            match page {
                Ok(page) => Some(page.into()),
                // The look-up then meets the damage, if it is more than this page.
                Err(Broken) => {
                    self.local.give_filter(STRIDE);
                    None
                }
            }
        });
        match page {
            Some(page) => page.get(at..at + filter::BLOCK).is_none_or(|block| filter::may_hold(block, low)),
            None => true,
        }
    }

    /// The places of a chunk and their positions, put behind `found`.
    pub(super) fn find(&self, key: (u64, u64), found: &mut Vec<(usize, Line)>) -> Result<(), Broken> {
        if !self.may_hold(key) {
            return Ok(());
        }
        let fences = &self.table.fences;
        // The first that can hold it is the last that begins below it: a block may end with it.
        let first = fences.partition_point(|fence| *fence < key.0).saturating_sub(1);
        for number in first..fences.len() {
            if fences.get(number).is_none_or(|fence| *fence > key.0) {
                break;
            }
            let bytes = self.cached(number)?;
            let lines = self.lines_of(number, &bytes);
            let start = lines.partition_point(|line| key_at(line) < key);
            for (at, line) in lines.iter().enumerate().skip(start) {
                if key_at(line) != key {
                    return Ok(());
                }
                found.push((number * LINES + at, Line::read(line)));
            }
        }
        Ok(())
    }
}

/// For runs of keys that are no chunks.
impl Run {
    /// The numbers under a key, put behind `found`.
    pub(crate) fn find_raw(&self, key: (u64, u64), found: &mut Vec<u64>) -> Result<(), Broken> {
        let mut lines = Vec::new();
        self.find(key, &mut lines)?;
        found.extend(lines.iter().map(|(_, line)| line.place));
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let pages = self.filter.iter().filter(|page| matches!(page.get(), Some(Some(_)))).count();
        self.local.give_filter(pages * STRIDE);
    }
}

/// Walks over the lines of a run, one block in memory, past the cache of blocks.
pub(super) struct Scan {
    run: Arc<Run>,
    at: usize,
    block: Vec<u8>,
}

impl Scan {
    /// From a position on.
    pub fn new(run: &Arc<Run>, at: usize) -> Scan {
        Scan { run: run.clone(), at, block: Vec::new() }
    }

    /// Where the next line lies.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn next(&mut self) -> Result<Option<Line>, Broken> {
        if self.at >= self.run.len() {
            return Ok(None);
        }
        let number = self.at / LINES;
        if self.block.is_empty() || self.at.is_multiple_of(LINES) {
            self.block = self.run.block(number)?;
        }
        let line = self.run.lines_of(number, &self.block).get(self.at % LINES).map(Line::read);
        self.at += 1;
        Ok(line)
    }
}
