//! Reads chunks and streams back: found in the index, fetched in runs, opened, decompressed, verified.
//!
//! - Every byte is authenticated by its pack's key, and every chunk's id is computed again (R4). What does not
//!   fit is named, with pack and chunk, and never returned. If the index knows another place of the chunk,
//!   that is tried first.
//! - Memory is `memory_bytes` (R6): decoded chunks that are asked for one by one stay for the next asker, and
//!   over a network a window around them; streams read ahead a few batches and keep nothing.
//! - A collection may move chunks to other packs while they are read: what is not where the index says is looked for
//!   in the index as it is by then, once for every pack that is gone.
//! - Many threads may read at once; no lock is held while something is fetched, opened or decompressed.
//! - Instead of the read key, the put key and the keys of packs will do (`pack_keys.rs`): then it reads these packs and no
//!   others. Of a chunk that lies in several packs it takes one whose key it has.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};

use crate::ahead::{Ahead, StreamReader};
use crate::crypto::{ChunkIds, PACK_HEADER_LEN, PackOpener};
use crate::env::Cancel;
use crate::error::Error;
use crate::id::{ChunkId, CommitId, PackId};
use crate::index::{Index, Location};
use crate::lru::Lru;
use crate::monitor::Finding;
use crate::node::{Ref, check_node, first_ref};
use crate::object::{CHUNK_BYTES_MAX, Capability, Extent, Leaf, ManifestEntry, PartOf, Root};
use crate::pack::{Decompressor, check_header};
use crate::pack_keys::PackKeys;
use crate::repo::Repository;
use crate::store::{self, StoreError};
use crate::tree::{TreeReader, read_manifest};

/// Takes chunks as they are opened: the number of each in what was asked for, and its bytes.
pub type Visit<'v> = dyn FnMut(usize, Result<&[u8], Error>) + 'v;

/// How a reader works.
#[derive(Debug, Clone, Default)]
pub struct ReaderOptions {
    /// Threads that read ahead in streams; 0: as many as processors, disk or network want.
    pub threads: usize,
    /// Bytes of memory for chunks that are kept; 0: its share of what the repository may use
    /// ([`crate::Budget`]).
    pub memory_bytes: usize,
    /// How much is fetched around a single chunk. `None`: 1 MiB over a network, nothing more locally.
    pub window_bytes: Option<usize>,
    /// Read by these keys of packs, and not by the read key, even if there is one.
    pub pack_keys: Option<PackKeys>,
    /// Stops it.
    pub cancel: Cancel,
}

/// Between two chunks of a batch, so many bytes are fetched in vain rather than asked for apart.
const GAP_LOCAL: u32 = 32 << 10;
const GAP_REMOTE: u32 = 256 << 10;
/// Keys of packs that are kept: about 1 KiB each.
const OPENERS: usize = 2_048;

/// Reads what was committed. Clones are not needed: many threads may use one.
pub struct Reader {
    pub(crate) core: Arc<Core>,
    pub(crate) ahead: Ahead,
}

pub(crate) struct Core {
    repo: Repository,
    index: Index,
    ids: ChunkIds,
    pack_keys: Option<PackKeys>,
    pub(crate) cancel: Cancel,
    remote: bool,
    window: usize,
    decoded: Mutex<Lru<ChunkId, Bytes>>,
    windows: Mutex<Lru<(u32, u32), Bytes>>,
    openers: Mutex<Lru<u32, Arc<PackOpener>>>,
    spare: Mutex<Vec<Decompressor>>,
    later: Mutex<Later>,
}

/// The index as it was read again, because something was not where it had been.
#[derive(Default)]
struct Later {
    core: Option<Arc<Core>>,
    /// What it was read again for: these packs are gone, and that says it all. Zero stands for chunks it did not name.
    packs: HashSet<PackId>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("index", &self.core.index).finish_non_exhaustive()
    }
}

impl Repository {
    /// Begins to read. Opens the index. Needs the read key; or the put key, and what it reads with is in the options.
    pub fn reader(&self, options: ReaderOptions) -> Result<Reader, Error> {
        self.may_read(&options)?;
        self.reader_by(self.index()?, options)
    }

    fn may_read(&self, options: &ReaderOptions) -> Result<(), Error> {
        match options.pack_keys {
            Some(_) => self.secrets().chunk_ids().map(drop),
            None => self.require(Capability::Read),
        }
    }

    /// A reader that reads by this index.
    pub(crate) fn reader_by(&self, index: Index, options: ReaderOptions) -> Result<Reader, Error> {
        self.may_read(&options)?;
        // A store names its kind by its URL; only over a network is fetching more than asked a gain.
        let remote = store::is_remote(&self.url());
        let window = options.window_bytes.unwrap_or(if remote { 1 << 20 } else { 0 });
        let memory = match options.memory_bytes {
            0 => self.budget().reader,
            bytes => bytes,
        };
        let for_windows = if window == 0 { 0 } else { memory / 2 };
        let core = Core {
            repo: self.clone(),
            index,
            ids: self.secrets().chunk_ids()?,
            pack_keys: options.pack_keys,
            cancel: options.cancel,
            remote,
            window,
            decoded: Mutex::new(Lru::new(memory - for_windows)),
            windows: Mutex::new(Lru::new(for_windows)),
            openers: Mutex::new(Lru::new(OPENERS)),
            spare: Mutex::new(Vec::new()),
            later: Mutex::default(),
        };
        let threads = match options.threads {
            // One more than can compute: somebody always waits for the disk, and over a network most do.
            0 if remote => std::thread::available_parallelism().map_or(8, |cores| usize::from(cores).max(8)),
            0 => std::thread::available_parallelism().map_or(2, usize::from) + 1,
            threads => threads,
        };
        Ok(Reader { core: Arc::new(core), ahead: Ahead::new(threads, remote) })
    }
}

impl Reader {
    /// What it reads from.
    pub fn repository(&self) -> &Repository {
        &self.core.repo
    }

    /// What was found wrong with the index when reading began.
    pub fn findings(&self) -> &[Finding] {
        self.core.index.findings()
    }

    /// The index it reads by.
    pub(crate) fn index(&self) -> &Index {
        &self.core.index
    }

    /// One chunk, verified.
    pub fn chunk(&self, id: &ChunkId) -> Result<Bytes, Error> {
        self.core.chunk(id)
    }

    /// Several chunks, verified, fetched together where they lie together. For content that is used once:
    /// unlike [`Reader::chunk`] it keeps nothing.
    pub fn chunks(&self, ids: &[ChunkId]) -> Vec<Result<Bytes, Error>> {
        self.core.batch(ids)
    }

    /// As [`Reader::chunks`], for content that goes elsewhere at once: hands every chunk to `each` with its number in
    /// `ids`, in the order in which they lie in the packs, and keeps none of them in memory.
    pub fn visit(&self, ids: &[ChunkId], each: &mut Visit<'_>) {
        self.core.visit(ids, each);
    }

    /// Where a chunk is, as the index says.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<Location>, Error> {
        Ok(self.core.index.places(id)?.first().map(|(_, location)| *location))
    }

    /// The bytes of a stream, from its beginning.
    pub fn stream(&self, root: &Root) -> StreamReader<'_> {
        StreamReader::new(self, root, self.extents(root))
    }

    /// The same for a tree or a manifest.
    pub(crate) fn whole_stream(&self, root: &Root) -> StreamReader<'_> {
        StreamReader::new(self, root, self.whole_extents(root))
    }

    /// The leaves of a stream, in order, with their place in it.
    pub fn extents(&self, root: &Root) -> Extents<'_> {
        Extents::new(&self.core, root, true)
    }

    /// The same for what has no parts of chunks: trees and manifests.
    pub(crate) fn whole_extents(&self, root: &Root) -> Extents<'_> {
        Extents::new(&self.core, root, false)
    }

    /// Whether these bytes are the leaf of this id.
    pub fn is(&self, plain: &[u8], id: &ChunkId) -> bool {
        self.core.ids.id(plain) == *id
    }

    /// Whether the index names this pack. The key of one that it does not name is of no use any more.
    pub fn has_pack(&self, pack: &PackId) -> bool {
        self.core.index.number_of(pack).is_some()
    }

    /// How many threads are worth having that read at the same time.
    pub fn threads(&self) -> usize {
        self.ahead.threads()
    }

    /// A whole stream, refused if it is longer than `limit`.
    pub fn bytes(&self, root: &Root, limit: u64) -> Result<Vec<u8>, Error> {
        if root.length > limit {
            let length = root.length;
            return Err(Error::invalid(format!(
                "a stream of {length} bytes where at most {limit} are expected"
            )));
        }
        let mut bytes = Vec::new();
        let mut stream = self.stream(root);
        while let Some(chunk) = stream.next_chunk()? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// The entries of a tree.
    pub fn tree(&self, root: &Root) -> TreeReader<'_> {
        TreeReader::new(self, root)
    }

    /// The named streams of a commit.
    pub fn manifest(&self, commit: &CommitId) -> Result<Vec<ManifestEntry>, Error> {
        let root = self.core.repo.manifest_root(commit)?;
        read_manifest(self, &root)
    }
}

/// One chunk of a batch, found.
struct Wanted {
    at: usize,
    number: u32,
    location: Location,
}

impl Core {
    fn chunk(&self, id: &ChunkId) -> Result<Bytes, Error> {
        self.cancel.check()?;
        if let Some(bytes) = lock(&self.decoded).get(id) {
            return Ok(bytes);
        }
        let bytes = self.try_anew(id, None)?;
        lock(&self.decoded).put(*id, bytes.clone(), bytes.len());
        Ok(bytes)
    }

    /// As [`Core::try_places`]; and what is gone is looked for in the index as it is now.
    fn try_anew(&self, id: &ChunkId, failed: Option<(Location, Error)>) -> Result<Bytes, Error> {
        let mut core: Option<Arc<Core>> = None;
        let mut outcome = self.try_places(id, failed);
        let first = match &outcome {
            Err(error @ Error::Missing { .. }) => error.clone(),
            _ => return outcome,
        };
        while let Err(Error::Missing { .. }) = outcome {
            let places = core.as_deref().unwrap_or(self).index.places(id)?;
            let mut packs: HashSet<PackId> = places.iter().map(|(_, location)| location.pack).collect();
            if packs.is_empty() {
                packs.insert(PackId::ZERO);
            }
            match self.later(core.as_ref(), packs)? {
                Some(later) => {
                    outcome = later.try_places(id, None);
                    core = Some(later);
                }
                None => return Err(first),
            }
        }
        // Damaged there as well: what is known of the first place is the better account.
        outcome.map_err(|error| if error.is_damage() { first } else { error })
    }

    /// The index read after `tried`, in which these packs were gone; `None` if it was read again for them before.
    fn later(&self, tried: Option<&Arc<Core>>, packs: HashSet<PackId>) -> Result<Option<Arc<Core>>, Error> {
        let mut later = lock(&self.later);
        let newer = later.core.as_ref().filter(|core| tried.is_none_or(|tried| !Arc::ptr_eq(core, tried)));
        if let Some(core) = newer {
            return Ok(Some(core.clone()));
        }
        if packs.is_subset(&later.packs) {
            return Ok(None);
        }
        tracing::debug!(packs = packs.len(), "packs are gone; the index is read again");
        // Of its own it keeps nothing.
        let options = ReaderOptions {
            threads: 1,
            memory_bytes: 1,
            window_bytes: Some(0),
            pack_keys: self.pack_keys.clone(),
            cancel: self.cancel.clone(),
        };
        let reader = self.repo.reader(options)?;
        later.packs.extend(packs);
        later.core = Some(reader.core.clone());
        Ok(Some(reader.core))
    }

    /// Tries the places of a chunk until one gives it; `failed` is what a first try already met.
    fn try_places(&self, id: &ChunkId, failed: Option<(Location, Error)>) -> Result<Bytes, Error> {
        let (mut tried, mut first) = match failed {
            Some((location, error)) => (vec![location], Some(error)),
            None => (Vec::new(), None),
        };
        for (number, location) in self.places(id)? {
            if tried.contains(&location) {
                continue;
            }
            let opened = self.key_at_hand(number, &location.pack).and_then(|()| {
                let sealed = self.sealed(number, &location)?;
                self.open(number, &location, id, &sealed)
            });
            match opened {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.is_damage() || matches!(error, Error::KeyMissing { .. }) => {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
            tried.push(location);
        }
        Err(first.unwrap_or_else(|| self.unknown(id)))
    }

    /// The places of a chunk, those first whose key is here.
    fn places(&self, id: &ChunkId) -> Result<Vec<(u32, Location)>, Error> {
        let mut places = self.index.places(id)?;
        if let Some(keys) = self.pack_keys.as_ref().filter(|_| places.len() > 1) {
            places.sort_by_key(|(_, location)| !keys.has(&location.pack));
        }
        Ok(places)
    }

    /// Who reads by the keys of packs fetches nothing of a pack before its key is here.
    fn key_at_hand(&self, number: u32, pack: &PackId) -> Result<(), Error> {
        if self.pack_keys.is_some() { self.opener(number, pack).map(|_| ()) } else { Ok(()) }
    }

    fn unknown(&self, id: &ChunkId) -> Error {
        let damaged: Vec<_> = self.index.damaged().iter().map(|segment| segment.key()).collect();
        let why = match damaged.as_slice() {
            [] => "no index segment names it".into(),
            damaged => {
                format!("no readable index segment names it, and these are damaged: {}", damaged.join(", "))
            }
        };
        Error::missing(format!("chunk {id}"), why)
    }

    /// The sealed bytes of a chunk, through the window where there is one.
    fn sealed(&self, number: u32, location: &Location) -> Result<Bytes, Error> {
        if self.window == 0 {
            return self.fetch(number, location.offset, location.sealed as usize);
        }
        // Windows lie on a grid, so that two readers of neighbours ask for the same one.
        let (_, size) = self.index.pack(number).unwrap_or((PackId::ZERO, 0));
        let grid = self.window as u32;
        let (first, end) = (location.offset / grid * grid, location.offset + location.sealed);
        let last = (end - 1) / grid * grid;
        let mut parts = Vec::with_capacity(2);
        for start in (first..=last).step_by(self.window) {
            let cached = lock(&self.windows).get(&(number, start));
            let window = match cached {
                Some(window) => window,
                None => {
                    let length = grid.min(size.saturating_sub(start)) as usize;
                    let window = self.fetch(number, start, length)?;
                    lock(&self.windows).put((number, start), window.clone(), length);
                    window
                }
            };
            let from = location.offset.saturating_sub(start) as usize;
            let to = (end - start).min(grid) as usize;
            if to > window.len() {
                return Err(Error::damaged(location.pack.key(), "it is shorter than the index promises"));
            }
            parts.push(window.slice(from..to));
        }
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            several => Ok(Bytes::from(several.concat())),
        }
    }

    fn fetch(&self, number: u32, offset: u32, length: usize) -> Result<Bytes, Error> {
        let Some((pack, promised)) = self.index.pack(number) else {
            return Err(Error::failed("the index names a pack that it does not list"));
        };
        let key = pack.key();
        let store = self.repo.store();
        store.get_range(&key, u64::from(offset), length).map_err(|error| match error {
            StoreError::NotFound { .. } => Error::missing(key, "the index promises chunks in this pack"),
            StoreError::Unavailable { .. } | StoreError::Denied { .. } => error.into(),
            // A pack cut short fails in as many ways as there are stores: its size tells.
            error => match store.size(&key) {
                Ok(size) if size != u64::from(promised) => {
                    Error::damaged(key, format!("it has {size} bytes, the index promises {promised}"))
                }
                Err(StoreError::NotFound { .. }) => {
                    Error::missing(key, "the index promises chunks in this pack")
                }
                _ => error.into(),
            },
        })
    }

    fn opener(&self, number: u32, pack: &PackId) -> Result<Arc<PackOpener>, Error> {
        if let Some(opener) = lock(&self.openers).get(&number) {
            return Ok(opener);
        }
        let key = self.pack_keys.as_ref().map(|keys| keys.find(pack, &self.cancel)).transpose()?;
        let bytes = self.fetch(number, 0, PACK_HEADER_LEN)?;
        let damaged = |what: String| Error::damaged(pack.key(), what);
        let header = bytes.as_ref().try_into().map_err(|_| damaged("it is too short for a pack".into()))?;
        check_header(header).map_err(damaged)?;
        let opener = match key {
            Some(key) => PackOpener::new(header, &key),
            None => self.repo.secrets().pack_opener(header),
        };
        let opener = match opener {
            Ok(opener) => Arc::new(opener),
            // Only a forged public key is refused.
            Err(Error::Failed { what }) => return Err(damaged(what)),
            Err(error) => return Err(error),
        };
        lock(&self.openers).put(number, opener.clone(), 1);
        Ok(opener)
    }

    fn open(&self, number: u32, location: &Location, id: &ChunkId, sealed: &[u8]) -> Result<Bytes, Error> {
        let mut decompressor = self.decompressor()?;
        let opened = self.open_with(&mut decompressor, number, location, id, sealed);
        let opened = opened.map(Bytes::copy_from_slice);
        lock(&self.spare).push(decompressor);
        opened
    }

    fn decompressor(&self) -> Result<Decompressor, Error> {
        let spare = lock(&self.spare).pop();
        spare.map_or_else(Decompressor::new, Ok)
    }

    fn open_with<'d>(
        &self,
        decompressor: &'d mut Decompressor,
        number: u32,
        location: &Location,
        id: &ChunkId,
        sealed: &[u8],
    ) -> Result<&'d [u8], Error> {
        let opener = self.opener(number, &location.pack)?;
        match decompressor.open(&opener, location.offset, sealed, location.plain as usize) {
            Ok(plain) if self.ids.id(plain) == *id => Ok(plain),
            Ok(_) => Err(Error::damaged_chunk(&location.pack, id, "its content is not what its id says")),
            // The two look the same.
            Err(what) if self.pack_keys.is_some() => {
                let what = format!("{what}; or the key that was handed in is not the one of this pack");
                Err(Error::damaged_chunk(&location.pack, id, what))
            }
            Err(what) => Err(Error::damaged_chunk(&location.pack, id, what)),
        }
    }

    /// Several chunks, as memory of their own.
    pub(crate) fn batch(&self, ids: &[ChunkId]) -> Vec<Result<Bytes, Error>> {
        let mut found: Vec<Option<Result<Bytes, Error>>> = ids.iter().map(|_| None).collect();
        // Runs of one chunk, such as zeros, share it: they are told of one after the other.
        let mut last: Option<(ChunkId, Bytes)> = None;
        self.visit(ids, &mut |at, opened| {
            let bytes = opened.map(|plain| match &last {
                Some((id, bytes)) if *id == ids[at] => bytes.clone(),
                _ => {
                    let bytes = Bytes::copy_from_slice(plain);
                    last = Some((ids[at], bytes.clone()));
                    bytes
                }
            });
            found[at] = Some(bytes);
        });
        let lost = || Err(Error::failed("a chunk of a batch was lost"));
        found.into_iter().map(|one| one.unwrap_or_else(lost)).collect()
    }

    /// Several chunks: what lies close together in a pack is fetched with one call, and what is asked for twice is
    /// opened once.
    fn visit(&self, ids: &[ChunkId], each: &mut Visit<'_>) {
        let later = lock(&self.later).core.clone();
        let core = later.as_deref().unwrap_or(self);
        let mut wanted = Vec::with_capacity(ids.len());
        for (at, id) in ids.iter().enumerate() {
            match core.places(id) {
                Ok(places) => match places.first() {
                    Some((number, location)) => {
                        wanted.push(Wanted { at, number: *number, location: *location });
                    }
                    None => {
                        let anew = self.try_anew(id, None);
                        each(at, anew.as_deref().map_err(Error::clone));
                    }
                },
                Err(error) => each(at, Err(error)),
            }
        }
        wanted.sort_unstable_by_key(|one| (one.number, one.location.offset));
        let gap = if self.remote { GAP_REMOTE } else { GAP_LOCAL };
        let joined = |a: &Wanted, b: &Wanted| {
            a.number == b.number
                && b.location.offset.saturating_sub(a.location.offset + a.location.sealed) <= gap
        };
        let mut decompressor = match self.decompressor() {
            Ok(decompressor) => decompressor,
            Err(error) => return wanted.iter().for_each(|one| each(one.at, Err(error.clone()))),
        };
        for run in wanted.chunk_by(joined) {
            self.run(core, ids, run, &mut decompressor, each);
        }
        lock(&self.spare).push(decompressor);
    }

    /// `core`: by whose index they were found.
    fn run(
        &self,
        core: &Core,
        ids: &[ChunkId],
        run: &[Wanted],
        decompressor: &mut Decompressor,
        each: &mut Visit<'_>,
    ) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return;
        };
        let start = first.location.offset;
        let length = (last.location.offset + last.location.sealed - start) as usize;
        let fetched = self.cancel.check().and_then(|()| {
            core.key_at_hand(first.number, &first.location.pack)?;
            core.fetch(first.number, start, length)
        });
        let same = |a: &Wanted, b: &Wanted| a.location == b.location && ids[a.at] == ids[b.at];
        for same in run.chunk_by(same) {
            let Some(one) = same.first() else { continue };
            let (id, location) = (&ids[one.at], &one.location);
            let from = (location.offset - start) as usize;
            let again;
            let opened = match &fetched {
                Ok(bytes) => {
                    let sealed = &bytes[from..from + location.sealed as usize];
                    match core.open_with(decompressor, one.number, location, id, sealed) {
                        Err(error) if error.is_damage() => Err(error),
                        opened => {
                            same.iter().for_each(|one| each(one.at, opened.clone()));
                            continue;
                        }
                    }
                }
                Err(error) => Err(error.clone()),
            };
            let opened = match opened {
                Err(error) if error.is_damage() => {
                    again = self.try_anew(id, Some((*location, error)));
                    again.as_deref().map_err(Error::clone)
                }
                opened => opened,
            };
            same.iter().for_each(|one| each(one.at, opened.clone()));
        }
    }
}

/// One leaf of a stream: a chunk, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamExtent {
    /// Where it begins in the stream.
    pub offset: u64,
    /// The chunk, or what the bytes of the part would be called as one.
    pub id: ChunkId,
    /// How long it is.
    pub length: u32,
    /// Where a part lies; `None`: it is the chunk `id`.
    pub part_of: Option<PartOf>,
}

impl StreamExtent {
    /// As a leaf, wherever in the stream.
    pub fn leaf(&self) -> Leaf {
        Leaf { id: self.id, length: self.length, part_of: self.part_of }
    }

    /// Where its bytes lie.
    pub fn extent(&self) -> Extent {
        self.leaf().extent()
    }
}

/// The leaves of a stream, node by node, lazily. Ends after an error.
pub struct Extents<'r> {
    core: &'r Core,
    offset: u64,
    /// Nodes on the way down: level of their refs, what is left of them.
    path: Vec<(u8, Bytes)>,
    start: Option<Ref>,
    /// Whether there may be parts of chunks.
    parts: bool,
}

impl<'r> Extents<'r> {
    fn new(core: &'r Core, root: &Root, parts: bool) -> Extents<'r> {
        Extents { core, offset: 0, path: Vec::new(), start: Some(Ref::from(root)), parts }
    }

    fn step(&mut self) -> Result<Option<StreamExtent>, Error> {
        let mut next = self.start.take().filter(|root| root.length > 0);
        loop {
            let one = match next.take() {
                Some(root) => root,
                None => {
                    let Some((level, refs)) = self.path.last_mut() else {
                        return Ok(None);
                    };
                    let Some((one, taken)) = first_ref(*level, refs) else {
                        self.path.pop();
                        continue;
                    };
                    refs.advance(taken);
                    one
                }
            };
            if one.level == 0 {
                let refused = |what: &str| Err(Error::damaged(format!("chunk {}", one.id), what));
                if one.length > CHUNK_BYTES_MAX as u64 {
                    return refused("a ref to it promises above 256 KiB");
                }
                if one.part_of.is_some() && !self.parts {
                    return refused("it is a part of a chunk in a tree or a manifest, which have none");
                }
                let Leaf { id, length, part_of } = one.leaf();
                let extent = StreamExtent { offset: self.offset, id, length, part_of };
                self.offset += one.length;
                return Ok(Some(extent));
            }
            let (node, below) = (self.core.chunk(&one.id)?, one.level - 1);
            check_node(below, &node, one.length)
                .map_err(|what| Error::damaged(format!("node {}", one.id), what))?;
            self.path.push((below, node));
        }
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<StreamExtent, Error>;

    fn next(&mut self) -> Option<Result<StreamExtent, Error>> {
        let step = self.step();
        if step.is_err() {
            self.path.clear();
        }
        step.transpose()
    }
}
