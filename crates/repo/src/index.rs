//! The index: which pack holds which chunk.
//!
//! Segments lie in the store, each listing whole packs. In memory they become one sorted array of 28 bytes a
//! chunk (450 MB for a terabyte of plain data): the first 16 bytes of the id, the pack, and the place in it.
//! Ids are keyed hashes, so 16 bytes tell 2^64 chunks apart by chance, and a reader verifies the whole id on
//! every chunk it opens. A chunk listed by several segments keeps all its places: any of them serves.
//!
//! A damaged segment costs what only it names, not the repository: it is left out, reported as a finding,
//! and remembered, so that a chunk nobody else names is reported together with it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::crypto::Keys;
use crate::error::Error;
use crate::id::{ChunkId, INDEX, PACKS, PackId, SegmentId};
use crate::monitor::Finding;
use crate::pack::{PACK_BYTES_MAX, check_place, read_u32};
use crate::store::Store;

/// No segment lists more.
pub(crate) const SEGMENT_CHUNKS_MAX: usize = 1_000_000;

const PACK_LEN: usize = 36;
const CHUNK_LEN: usize = 48;

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

/// A chunk in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Which pack, in the segment's table.
    pub pack: u32,
    /// Where its sealed bytes begin in the pack.
    pub offset: u32,
    /// How many they are.
    pub sealed: u32,
    /// How many plain bytes they stand for.
    pub plain: u32,
}

/// An index segment, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// Pack and its size.
    pub packs: Vec<(PackId, u32)>,
    /// Ascending by id.
    pub chunks: Vec<SegmentChunk>,
}

impl Segment {
    /// The body of the segment object.
    pub(crate) fn encode(&mut self) -> Result<Vec<u8>, Error> {
        self.chunks.sort_unstable_by_key(|chunk| (chunk.id, chunk.pack, chunk.offset));
        let counts = [self.packs.len(), self.chunks.len()].map(u32::try_from);
        let [Ok(packs), Ok(chunks)] = counts else {
            return Err(Error::failed("an index segment grew beyond its limits"));
        };
        let mut body = Vec::with_capacity(8 + self.packs.len() * PACK_LEN + self.chunks.len() * CHUNK_LEN);
        body.extend(packs.to_le_bytes());
        body.extend(chunks.to_le_bytes());
        for (id, size) in &self.packs {
            body.extend(id.as_bytes());
            body.extend(size.to_le_bytes());
        }
        for chunk in &self.chunks {
            body.extend(chunk.id.as_bytes());
            for number in [chunk.pack, chunk.offset, chunk.sealed, chunk.plain] {
                body.extend(number.to_le_bytes());
            }
        }
        // Said twice: what we write must be what a reader takes.
        let view = SegmentView::parse(&body).map_err(|what| Error::failed(format!("own index: {what}")))?;
        view.chunks(|_| ()).map_err(|what| Error::failed(format!("own index: {what}")))?;
        Ok(body)
    }

    /// Its inverse.
    pub(crate) fn decode(body: &[u8]) -> Result<Segment, String> {
        let view = SegmentView::parse(body)?;
        let mut chunks = Vec::with_capacity(view.chunks.len());
        view.chunks(|chunk| chunks.push(chunk))?;
        Ok(Segment { packs: view.packs().collect(), chunks })
    }
}

/// A segment's tables where they lie.
struct SegmentView<'b> {
    packs: &'b [[u8; PACK_LEN]],
    chunks: &'b [[u8; CHUNK_LEN]],
}

impl<'b> SegmentView<'b> {
    fn parse(body: &'b [u8]) -> Result<SegmentView<'b>, String> {
        let Some((counts, tables)) = body.split_first_chunk::<8>() else {
            return Err("its body is too short".into());
        };
        let (packs, chunks) = (read_u32(counts, 0) as usize, read_u32(counts, 4) as usize);
        if chunks > SEGMENT_CHUNKS_MAX || packs > chunks {
            return Err(format!("{packs} packs and {chunks} chunks (at most {SEGMENT_CHUNKS_MAX})"));
        }
        let Some((packs, chunks)) =
            tables.split_at_checked(packs * PACK_LEN).filter(|(_, rest)| rest.len() == chunks * CHUNK_LEN)
        else {
            return Err("its tables are not as long as it says".into());
        };
        let view = SegmentView { packs: packs.as_chunks().0, chunks: chunks.as_chunks().0 };
        if view.packs().any(|(_, size)| size as usize > PACK_BYTES_MAX) {
            return Err("a pack above 64 MiB".into());
        }
        Ok(view)
    }

    fn packs(&self) -> impl Iterator<Item = (PackId, u32)> {
        self.packs.iter().map(|line| {
            let (id, _) = line.split_first_chunk::<32>().unwrap_or((&[0; 32], &[]));
            (PackId(*id), read_u32(line, 32))
        })
    }

    /// Hands out the chunks, each checked against its pack and its neighbour.
    fn chunks(&self, mut each: impl FnMut(SegmentChunk)) -> Result<(), String> {
        let mut last = None;
        for line in self.chunks {
            let (id, _) = line.split_first_chunk::<32>().unwrap_or((&[0; 32], &[]));
            let chunk = SegmentChunk {
                id: ChunkId(*id),
                pack: read_u32(line, 32),
                offset: read_u32(line, 36),
                sealed: read_u32(line, 40),
                plain: read_u32(line, 44),
            };
            let Some(pack) = self.packs.get(chunk.pack as usize) else {
                return Err("a chunk in a pack that is not listed".into());
            };
            check_place(chunk.offset, chunk.sealed, chunk.plain, read_u32(pack, 32) as usize)?;
            let order = (chunk.id, chunk.pack, chunk.offset);
            if last.is_some_and(|last| last >= order) {
                return Err("chunks that do not ascend".into());
            }
            last = Some(order);
            each(chunk);
        }
        Ok(())
    }
}

/// One place of one chunk: 28 bytes.
#[derive(Clone, Copy)]
#[repr(Rust, packed(4))]
struct Line {
    /// The first 16 bytes of the id, big-endian, so that order is that of the ids.
    high: u64,
    low: u64,
    /// Offset (26 bits), sealed length (19 bits) and plain length less one (18 bits).
    place: u64,
    pack: u32,
}

const _: () = assert!(size_of::<Line>() == 28);

impl Line {
    fn key(&self) -> (u64, u64) {
        (self.high, self.low)
    }

    /// Offset, sealed and plain length.
    fn unpack(&self) -> (u32, u32, u32) {
        let place = self.place;
        ((place >> 37) as u32, (place >> 18) as u32 & 0x7_ffff, (place as u32 & 0x3_ffff) + 1)
    }
}

/// One place of one chunk, as `check` walks over them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    key: (u64, u64),
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
}

fn key_of(id: &ChunkId) -> (u64, u64) {
    let [high, low, ..] = id.0.as_chunks::<8>().0 else { return (0, 0) };
    (u64::from_be_bytes(*high), u64::from_be_bytes(*low))
}

/// All segments, merged.
#[derive(Default)]
pub struct Index {
    lines: Vec<Line>,
    /// Where in `lines` the ids begin whose first `prefix_bits` bits are the position.
    starts: Vec<u32>,
    prefix_bits: u32,
    packs: Vec<(PackId, u32)>,
    /// Numbers of `packs`, by id.
    by_id: Vec<u32>,
    /// Packs that are not in the store as promised: one bit each. Empty: not looked.
    absent: Vec<u64>,
    damaged: Vec<SegmentId>,
    segments: usize,
    findings: Vec<Finding>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("segments", &self.segments)
            .field("packs", &self.packs.len())
            .field("chunks", &self.lines.len())
            .field("damaged", &self.damaged)
            .finish()
    }
}

/// How many segments are fetched at a time: over a network the latency is what counts.
const FETCHERS: usize = 8;

impl Index {
    /// Reads all segments of the store.
    pub(crate) fn load(store: &dyn Store, keys: &Keys) -> Result<Index, Error> {
        let (mut names, mut bytes) = (Vec::new(), 0);
        store.list(INDEX, &mut |object| {
            // A foreign name in the folder is for `check` to report; it can name no chunk for us.
            if let Some(name) = SegmentId::from_key(&object.key) {
                names.push(name);
                bytes += object.size;
            }
            Ok(())
        })?;
        // The sizes tell how many lines there will be: growing step by step would take twice the memory.
        let mut index = Index::default();
        let lines = usize::try_from(bytes).unwrap_or(0) / CHUNK_LEN;
        if index.lines.try_reserve_exact(lines).is_err() {
            return Err(Error::failed(format!("an index of {lines} chunks does not fit into memory")));
        }
        let merged = Mutex::new((index, HashMap::new()));
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let next = AtomicUsize::new(0);
        let fetch = || {
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                let lock = || merged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                match fetch_segment(store, name) {
                    Ok(mut bytes) => {
                        // Opened before the lock is taken: threads meet only to merge.
                        let view = keys.open_segment(&mut bytes).and_then(SegmentView::parse);
                        let (index, known) = &mut *lock();
                        if let Err(what) = view.and_then(|view| index.append(&view, known)) {
                            index.leave_out(*name, &what);
                        }
                    }
                    Err(error) if error.is_damage() => lock().0.leave_out(*name, &error.to_string()),
                    // Not being able to look is not damage: deciding without it could store all again.
                    Err(error) => {
                        failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
                        next.store(names.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..FETCHERS.min(names.len()) {
                scope.spawn(fetch);
            }
            fetch();
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            return Err(error);
        }
        let (mut index, _) = merged.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        index.segments = names.len();
        index.arrange();
        Ok(index)
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

    fn append(&mut self, view: &SegmentView<'_>, known: &mut HashMap<PackId, u32>) -> Result<(), String> {
        let (lines, packs) = (self.lines.len(), self.packs.len());
        let mut numbers = Vec::with_capacity(view.packs.len());
        for (id, size) in view.packs() {
            let number = *known.entry(id).or_insert_with(|| {
                self.packs.push((id, size));
                self.packs.len() as u32 - 1
            });
            numbers.push(number);
        }
        let outcome = view.chunks(|chunk| {
            let (high, low) = key_of(&chunk.id);
            let place = u64::from(chunk.offset) << 37
                | u64::from(chunk.sealed) << 18
                | u64::from(chunk.plain.saturating_sub(1));
            let pack = numbers.get(chunk.pack as usize).copied().unwrap_or(0);
            self.lines.push(Line { high, low, place, pack });
        });
        if outcome.is_err() {
            // All of a segment or nothing of it.
            self.lines.truncate(lines);
            for (id, _) in self.packs.drain(packs..) {
                known.remove(&id);
            }
        }
        outcome
    }

    fn arrange(&mut self) {
        let whole = |line: &Line| (line.high, line.low, line.pack, line.place);
        self.lines.sort_unstable_by_key(whole);
        self.lines.dedup_by_key(|line| whole(line));
        self.by_id = (0..self.packs.len() as u32).collect();
        let packs = &self.packs;
        self.by_id.sort_unstable_by_key(|number| packs[*number as usize].0);
        // About 16 lines for each prefix.
        self.prefix_bits = (self.lines.len() as u64 / 16).checked_ilog2().unwrap_or(0);
        self.starts = Vec::with_capacity((1 << self.prefix_bits) + 1);
        for (at, line) in self.lines.iter().enumerate() {
            let bucket = self.bucket(line.high);
            while self.starts.len() <= bucket {
                self.starts.push(at as u32);
            }
        }
        self.starts.resize((1 << self.prefix_bits) + 1, self.lines.len() as u32);
    }

    fn bucket(&self, high: u64) -> usize {
        // A shift by 64 is no shift in Rust; no bits means one bucket.
        high.checked_shr(64 - self.prefix_bits).unwrap_or(0) as usize
    }

    /// The places of a chunk, present or not.
    fn find(&self, id: &ChunkId) -> &[Line] {
        self.lines.get(self.places_of(id)).unwrap_or_default()
    }

    /// The numbers of the places of a chunk; see [`Index::place`].
    pub(crate) fn places_of(&self, id: &ChunkId) -> Range<usize> {
        let key = key_of(id);
        let bucket = self.bucket(key.0);
        let bounds = match (self.starts.get(bucket), self.starts.get(bucket + 1)) {
            (Some(start), Some(end)) => *start as usize..*end as usize,
            _ => return 0..0,
        };
        let lines = self.lines.get(bounds.clone()).unwrap_or_default();
        let first = lines.partition_point(|line| line.key() < key);
        let count = lines[first..].iter().take_while(|line| line.key() == key).count();
        let start = bounds.start + first;
        start..start + count
    }

    fn is_absent(&self, pack: u32) -> bool {
        let word = self.absent.get(pack as usize / 64).copied().unwrap_or(0);
        word >> (pack % 64) & 1 == 1
    }

    /// The number of a pack that holds the chunk and was not found missing.
    pub(crate) fn pack_with(&self, id: &ChunkId) -> Option<u32> {
        self.find(id).iter().map(|line| line.pack).find(|pack| !self.is_absent(*pack))
    }

    /// All places of a chunk, as (number of the pack, place).
    pub(crate) fn places(&self, id: &ChunkId) -> impl Iterator<Item = (u32, Location)> {
        self.find(id).iter().map(|line| {
            let (offset, sealed, plain) = line.unpack();
            let pack = self.packs.get(line.pack as usize).map_or(PackId::ZERO, |(id, _)| *id);
            (line.pack, Location { pack, offset, sealed, plain })
        })
    }

    /// One place of every chunk.
    pub(crate) fn first_places(&self) -> impl Iterator<Item = Place> {
        let is_first = |at: &usize| *at == 0 || self.lines[*at].key() != self.lines[*at - 1].key();
        (0..self.lines.len()).filter(is_first).filter_map(|at| self.place(at))
    }

    /// A place by its number, which is below [`Index::chunk_count`].
    pub(crate) fn place(&self, number: usize) -> Option<Place> {
        let line = self.lines.get(number)?;
        let (offset, sealed, plain) = line.unpack();
        Some(Place { key: line.key(), pack: line.pack, offset, sealed, plain })
    }

    /// A pack by its number.
    pub(crate) fn pack(&self, number: u32) -> Option<(PackId, u32)> {
        self.packs.get(number as usize).copied()
    }

    pub(crate) fn number_of(&self, id: &PackId) -> Option<u32> {
        let at = self.by_id.binary_search_by_key(id, |number| self.packs[*number as usize].0).ok()?;
        self.by_id.get(at).copied()
    }

    /// Looks which of the packs are in the store with the promised size, so that a new write does not rely on
    /// one that is gone (R3), and stores its chunks again instead.
    pub(crate) fn look_for_packs(&mut self, store: &dyn Store) -> Result<(), Error> {
        if self.packs.is_empty() {
            return Ok(());
        }
        let mut absent = vec![u64::MAX; self.packs.len().div_ceil(64)];
        store.list(PACKS, &mut |object| {
            let number = PackId::from_key(&object.key).and_then(|id| self.number_of(&id));
            if let Some(number) = number
                && u64::from(self.packs[number as usize].1) == object.size
            {
                absent[number as usize / 64] &= !(1 << (number % 64));
            }
            Ok(())
        })?;
        self.absent = absent;
        for number in 0..self.packs.len() as u32 {
            if self.is_absent(number) {
                let key = self.packs[number as usize].0.key();
                self.findings.push(Finding::error(
                    "pack-missing",
                    key,
                    "the index promises chunks in this pack, and it is gone or of another size; content that is still there is stored again",
                ));
            }
        }
        Ok(())
    }

    /// How many packs it names.
    pub fn pack_count(&self) -> usize {
        self.packs.len()
    }

    /// How many places of chunks it names.
    pub fn chunk_count(&self) -> usize {
        self.lines.len()
    }

    /// How many segments there are, damaged ones included.
    pub fn segment_count(&self) -> usize {
        self.segments
    }

    /// Segments that could not be read.
    pub fn damaged(&self) -> &[SegmentId] {
        &self.damaged
    }

    /// What was found while reading it.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

fn fetch_segment(store: &dyn Store, name: &SegmentId) -> Result<Vec<u8>, Error> {
    let bytes = store.get(&name.key())?;
    if *blake3::hash(&bytes).as_bytes() != name.0 {
        return Err(Error::damaged(name.key(), "its bytes do not hash to its name"));
    }
    Ok(Vec::from(bytes))
}

/// A set of packs by their numbers, which many threads add to.
pub(crate) struct PackSet(Vec<AtomicU64>);

impl PackSet {
    pub(crate) fn of(index: &Index) -> PackSet {
        PackSet((0..index.packs.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn insert(&self, number: u32) {
        if let Some(word) = self.0.get(number as usize / 64) {
            let bit = 1 << (number % 64);
            // Reading first keeps the cache line shared: most chunks lie in packs already marked.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let word = word.load(Ordering::Relaxed);
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at as u32 * 64 + bit)
        })
    }
}

/// That every pack a write relies on is still there with the promised size (R3). One call for each pack, or
/// one listing, whichever is fewer.
pub(crate) fn check_packs(store: &dyn Store, index: &Index, touched: &PackSet) -> Result<(), Error> {
    let mut wanted: HashMap<PackId, u32> =
        touched.numbers().filter_map(|number| index.pack(number)).collect();
    let gone = |id: &PackId, what: String| {
        Error::missing(
            id.key(),
            format!(
                "{what}; this write relied on it. Nothing was committed; run it again to store that content anew"
            ),
        )
    };
    // A listing answers up to 1,000 objects a call.
    if wanted.len() <= index.pack_count().div_ceil(1_000) {
        for (id, promised) in &wanted {
            match store.size(&id.key()) {
                Ok(size) if size == u64::from(*promised) => {}
                Ok(size) => {
                    return Err(gone(id, format!("it has {size} bytes, the index promises {promised}")));
                }
                Err(crate::store::StoreError::NotFound { .. }) => {
                    return Err(gone(id, "it is no longer there".into()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        return Ok(());
    }
    store.list(PACKS, &mut |object| {
        if let Some(id) = PackId::from_key(&object.key)
            && wanted.get(&id).is_some_and(|promised| u64::from(*promised) == object.size)
        {
            wanted.remove(&id);
        }
        Ok(())
    })?;
    match wanted.keys().min() {
        None => Ok(()),
        Some(id) => Err(gone(id, format!("{} pack(s) are gone or of another size", wanted.len()))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::env::Env;
    use crate::store::Put;
    use crate::store::mem::MemStore;

    fn keys() -> Keys {
        Keys::generate(&Env::fixed(1, 1)).unwrap()
    }

    fn id(number: u64) -> ChunkId {
        ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn pack_id(number: u64) -> PackId {
        PackId(*blake3::hash(&(number << 32).to_le_bytes()).as_bytes())
    }

    /// A segment of one pack that holds these chunks, 100 bytes each.
    fn segment(pack: u64, chunks: impl IntoIterator<Item = u64>) -> Segment {
        let mut segment = Segment::default();
        for (at, number) in chunks.into_iter().enumerate() {
            let offset = 48 + at as u32 * 117;
            segment.chunks.push(SegmentChunk { id: id(number), pack: 0, offset, sealed: 117, plain: 100 });
        }
        segment.packs.push((pack_id(pack), 48 + 117 * segment.chunks.len() as u32 + 100));
        segment
    }

    fn put(store: &MemStore, keys: &Keys, mut segment: Segment) -> SegmentId {
        let body = segment.encode().unwrap();
        let bytes = keys.seal_segment(&body, &Env::real()).unwrap();
        let name = SegmentId(*blake3::hash(&bytes).as_bytes());
        assert_eq!(store.put(&name.key(), bytes.into()).unwrap(), Put::Created);
        name
    }

    fn lookup(index: &Index, number: u64) -> Vec<(PackId, u32)> {
        index.places(&id(number)).map(|(_, place)| (place.pack, place.offset)).collect()
    }

    #[test]
    fn every_chunk_of_every_segment_is_found_where_it_is_and_no_other() {
        for count in [0_u64, 1, 15, 16, 17, 300, 20_000] {
            let (store, keys) = (MemStore::new(), keys());
            let mut model = BTreeMap::new();
            for part in 0..7 {
                let chunks: Vec<u64> = (0..count).filter(|number| number % 7 == part).collect();
                for (at, number) in chunks.iter().enumerate() {
                    model.insert(*number, (pack_id(part), 48 + at as u32 * 117));
                }
                if !chunks.is_empty() {
                    put(&store, &keys, segment(part, chunks));
                }
            }
            let index = Index::load(&store, &keys).unwrap();
            assert_eq!(index.chunk_count() as u64, count);
            for (number, place) in &model {
                assert_eq!(lookup(&index, *number), [*place], "{number} of {count}");
            }
            for number in count..count + 500 {
                assert_eq!(lookup(&index, number), []);
                assert_eq!(index.pack_with(&id(number)), None);
            }
        }
    }

    #[test]
    fn the_extremes_of_a_place_survive_packing() {
        let (store, keys) = (MemStore::new(), keys());
        let end = PACK_BYTES_MAX as u32;
        let mut wide = Segment { packs: vec![(pack_id(1), end)], chunks: Vec::new() };
        for (number, offset, sealed, plain) in [
            (1, 48, 18, 1),
            (2, 48, 262_161, 262_144),
            (3, end - 262_161, 262_161, 262_144),
            (4, end - 18, 18, 262_144),
        ] {
            wide.chunks.push(SegmentChunk { id: id(number), pack: 0, offset, sealed, plain });
        }
        let chunks = wide.chunks.clone();
        put(&store, &keys, wide);
        let index = Index::load(&store, &keys).unwrap();
        for chunk in chunks {
            let places: Vec<_> = index.places(&chunk.id).map(|(_, place)| place).collect();
            let SegmentChunk { offset, sealed, plain, .. } = chunk;
            assert_eq!(places, [Location { pack: pack_id(1), offset, sealed, plain }]);
        }
    }

    #[test]
    fn a_chunk_written_twice_at_once_keeps_both_places() {
        let (store, keys) = (MemStore::new(), keys());
        put(&store, &keys, segment(1, [5, 6]));
        put(&store, &keys, segment(2, [6, 7]));
        // The same pack listed once more, as a rebuilt index would.
        put(&store, &keys, segment(1, [5, 6]));
        let index = Index::load(&store, &keys).unwrap();
        assert_eq!((index.pack_count(), index.chunk_count()), (2, 4));
        let mut places = lookup(&index, 6);
        places.sort();
        let mut expected = vec![(pack_id(1), 48 + 117), (pack_id(2), 48)];
        expected.sort();
        assert_eq!(places, expected);
    }

    #[test]
    fn a_damaged_segment_costs_what_only_it_names() {
        let (store, keys) = (MemStore::new(), keys());
        put(&store, &keys, segment(1, [1, 2]));
        let name = put(&store, &keys, segment(2, [2, 3]));
        let whole = store.get(&name.key()).unwrap();
        for at in [0, 9, 45, whole.len() - 1] {
            let mut changed = whole.to_vec();
            changed[at] ^= 4;
            store.tamper(&name.key(), Some(changed.into()));
            let index = Index::load(&store, &keys).unwrap();
            assert_eq!((index.damaged(), index.findings().len()), (&[name][..], 1), "byte {at}");
            assert_eq!(index.findings()[0].what, name.key());
            assert_eq!(
                (lookup(&index, 1).len(), lookup(&index, 2).len(), lookup(&index, 3).len()),
                (1, 1, 0)
            );
        }
        // Well sealed and wrongly said is damage, too: half of it must not stay.
        store.tamper(&name.key(), None);
        let mut body = segment(2, [8, 9]).encode().unwrap();
        let last = body.len() - 4;
        body[last..].copy_from_slice(&u32::MAX.to_le_bytes());
        let bytes = Bytes::from(keys.seal_segment(&body, &Env::real()).unwrap());
        let name = SegmentId(*blake3::hash(&bytes).as_bytes());
        store.put(&name.key(), bytes).unwrap();
        let index = Index::load(&store, &keys).unwrap();
        assert_eq!((index.damaged(), index.pack_count(), index.chunk_count()), (&[name][..], 1, 2));
    }

    #[test]
    fn r3_a_pack_that_is_gone_or_cut_is_not_relied_on() {
        let (store, keys) = (MemStore::new(), keys());
        put(&store, &keys, segment(1, [1, 2]));
        put(&store, &keys, segment(2, [2, 3]));
        put(&store, &keys, segment(3, [4]));
        let size = |number: u64| segment(number, [0, 0]).packs[0].1 as usize;
        store.put(&pack_id(1).key(), vec![0; size(1)].into()).unwrap();
        store.put(&pack_id(3).key(), vec![0; 9].into()).unwrap();
        let mut index = Index::load(&store, &keys).unwrap();
        index.look_for_packs(&store).unwrap();
        let present: Vec<_> = (1..=4).map(|number| index.pack_with(&id(number)).is_some()).collect();
        assert_eq!(present, [true, true, false, false], "2 is in another pack as well");
        assert_eq!(index.findings().len(), 2);

        let touched = PackSet::of(&index);
        touched.insert(index.pack_with(&id(1)).unwrap());
        check_packs(&store, &index, &touched).unwrap();
        store.tamper(&pack_id(1).key(), None);
        let gone = check_packs(&store, &index, &touched).unwrap_err();
        assert!(gone.is_damage() && gone.to_string().contains(&pack_id(1).key()), "{gone}");
        store.tamper(&pack_id(1).key(), Some(vec![0; 7].into()));
        assert!(check_packs(&store, &index, &touched).unwrap_err().is_damage());
    }

    proptest! {
        #[test]
        fn hostile_bodies_are_refused_or_sound(mut body in proptest::collection::vec(any::<u8>(), 0..300), small: bool) {
            if small && body.len() >= 8 {
                body[..8].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
                body.resize(8 + 36 + 96, 0);
            }
            if let Ok(mut segment) = Segment::decode(&body) {
                prop_assert_eq!(segment.encode().unwrap(), body);
            }
        }

        #[test]
        fn a_changed_body_is_refused_or_is_another_segment_exactly(at: prop::sample::Index, with in 1_u8..) {
            let mut body = segment(1, 0..5).encode().unwrap();
            let at = at.index(body.len());
            body[at] ^= with;
            if let Ok(mut changed) = Segment::decode(&body) {
                prop_assert_eq!(changed.encode().unwrap(), body);
            }
        }
    }
}
