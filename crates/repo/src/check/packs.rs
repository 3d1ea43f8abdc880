//! The packs: which are there, and with data read whether every chunk in them is what its id says.
//!
//! Each pack is fetched once, in one call, and checked from its own directory: name, directory, then every chunk
//! opened, decompressed and named again, and looked for in the index. Only when the two do not agree, or the pack
//! is not what was written, are its places gathered from the index, for a few packs at a time, and the pack read
//! a second time: so no table of all chunks is needed, and a bit that was flipped on the way here and not in the
//! store is told apart from one that is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::damage::{Cause, Ledger};
use super::{CheckCounts, Run, locked, lost};
use crate::crypto::{ChunkIds, PACK_HEADER_LEN, PackOpener};
use crate::error::Error;
use crate::id::{ChunkId, PackId};
use crate::index::{Index, PackSet, Place};
use crate::monitor::Finding;
use crate::pack::{Decompressor, Pack};

/// For every place of a chunk that the index names: whether the bytes can be there.
pub(crate) struct Places {
    /// By pack number: the size of the pack in the store, or `None`.
    sizes: Vec<Option<u64>>,
    /// One bit a place: it was read and is bad.
    bad: Vec<AtomicU64>,
    /// Packs in the store that the index does not name.
    unreferenced: Vec<(PackId, u64)>,
}

impl Places {
    /// `packs` as the store lists them, ascending.
    pub(crate) fn new(index: &Index, packs: &[(PackId, u64)]) -> Places {
        let mut sizes = vec![None; index.pack_count()];
        let mut unreferenced = Vec::new();
        for (id, size) in packs {
            let mut named = false;
            for number in index.numbers_of(id) {
                named = true;
                if let Some(known) = sizes.get_mut(number as usize) {
                    *known = Some(*size);
                }
            }
            if !named {
                unreferenced.push((*id, *size));
            }
        }
        let bad = (0..index.chunk_count().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Places { sizes, bad, unreferenced }
    }

    pub(crate) fn unreferenced(&self) -> &[(PackId, u64)] {
        &self.unreferenced
    }

    /// The size of a pack in the store, by its number; `None` if it is not there.
    pub(crate) fn size(&self, number: u32) -> Option<u64> {
        self.sizes.get(number as usize).copied().flatten()
    }

    /// Reports packs that are gone or of another size than the index says; with `only`, of these.
    pub(super) fn report_packs(&self, index: &Index, only: Option<&PackSet>, ledger: &Ledger) {
        let numbers: Box<dyn Iterator<Item = u32>> = match only {
            Some(set) => Box::new(set.numbers()),
            None => Box::new(0..self.sizes.len() as u32),
        };
        for number in numbers {
            let Some((id, promised)) = index.pack(number) else { continue };
            match self.size(number) {
                Some(size) if size == u64::from(promised) => {}
                Some(size) => ledger.object(
                    Cause::Pack(id),
                    "pack-damaged",
                    format!("it has {size} bytes and the index promises {promised}"),
                ),
                None => ledger.missing(id),
            }
        }
    }

    /// Reports all packs that are gone or of another size than the index says.
    pub(crate) fn report(&self, index: &Index, ledger: &Ledger) {
        self.report_packs(index, None, ledger);
    }

    pub(crate) fn mark_bad(&self, at: usize) {
        if let Some(word) = self.bad.get(at / 64) {
            word.fetch_or(1 << (at % 64), Ordering::Relaxed);
        }
    }

    /// Whether the chunk cannot be had from this place.
    pub(crate) fn is_bad(&self, at: usize, place: &Place) -> bool {
        let word = self.bad.get(at / 64).map_or(0, |word| word.load(Ordering::Relaxed));
        let end = u64::from(place.offset) + u64::from(place.sealed);
        let fits = self.size(place.pack).is_some_and(|size| end <= size);
        !fits || word >> (at % 64) & 1 == 1
    }
}

/// How many places are gathered from the index at a time, for packs that are not as the index says: 40 MB.
const GATHERED_MAX: u64 = 1 << 20;

/// What reading packs is handed, and what it leaves.
pub(crate) struct PackReader<'r> {
    run: &'r Run<'r>,
    index: &'r Index,
    places: &'r Places,
    ledger: &'r Ledger,
    ids: ChunkIds,
    /// How many places of each pack the index names.
    promised: Vec<u32>,
    chunks: AtomicU64,
    bytes: AtomicU64,
    /// Packs the index names that are not what was written, whatever of their chunks can be read.
    broken: Mutex<BTreeSet<PackId>>,
    /// Packs of which the index promises what they do not hold.
    misnamed: Mutex<BTreeSet<PackId>>,
    /// Packs that are what was written, and whose directory says what they do not hold.
    forged: Mutex<BTreeSet<PackId>>,
    /// Packs that no segment names, and all of whose chunks were read and are good.
    sound: Mutex<Vec<(PackId, u64)>>,
}

/// What was read, for who does something about it.
#[derive(Default)]
pub(crate) struct PacksRead {
    /// Packs the index names that are not what was written, whatever of their chunks can be read.
    pub(crate) broken: BTreeSet<PackId>,
    /// Packs of which the index promises what they do not hold.
    pub(crate) misnamed: BTreeSet<PackId>,
    /// Packs that are what was written, and whose directory says what they do not hold.
    pub(crate) forged: BTreeSet<PackId>,
    /// Packs that no segment names, and all of whose chunks are good; ascending.
    pub(crate) sound: Vec<(PackId, u64)>,
}

/// The places of the chunks of one pack, with their numbers, by offset.
pub(crate) type PlacesOfPack = Vec<(usize, Place)>;

impl<'r> PackReader<'r> {
    pub(crate) fn new(
        run: &'r Run<'r>,
        index: &'r Index,
        places: &'r Places,
        ledger: &'r Ledger,
    ) -> Result<PackReader<'r>, Error> {
        let mut promised = vec![0_u32; index.pack_count()];
        index.each_place(&mut |_, place| {
            if let Some(count) = promised.get_mut(place.pack as usize) {
                *count += 1;
            }
            Ok(())
        })?;
        Ok(PackReader {
            run,
            index,
            places,
            ledger,
            ids: run.repo.secrets().chunk_ids()?,
            promised,
            chunks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            broken: Mutex::default(),
            misnamed: Mutex::default(),
            forged: Mutex::default(),
            sound: Mutex::default(),
        })
    }

    /// Adds what was read to the counts.
    pub(crate) fn finish(self, counts: &mut CheckCounts) -> PacksRead {
        fn inner<T>(mutex: Mutex<T>) -> T {
            mutex.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
        }
        counts.chunks_read += self.chunks.into_inner();
        counts.bytes_read += self.bytes.into_inner();
        let mut sound = inner(self.sound);
        sound.sort_unstable();
        PacksRead {
            broken: inner(self.broken),
            misnamed: inner(self.misnamed),
            forged: inner(self.forged),
            sound,
        }
    }

    /// Reads the packs 0 to `count` once, each chunk in them, until `is_over`. Returns how many of the first of
    /// them were read, also if an error ended it.
    pub(crate) fn read(
        &self,
        count: usize,
        pack: &(dyn Fn(usize) -> Option<(PackId, u64)> + Sync),
        is_over: &(dyn Fn(usize) -> bool + Sync),
    ) -> (usize, Result<(), Error>) {
        let done: Vec<AtomicBool> = (0..count).map(|_| AtomicBool::new(false)).collect();
        let doubtful = Mutex::new(BTreeMap::new());
        // Each thread holds a pack. One more than can compute: somebody always waits for the store.
        let largest = (0..count).filter_map(pack).map(|(_, size)| size).max().unwrap_or(0).max(1);
        let threads = (self.run.repo.budget().packs as u64 / largest).clamp(1, self.run.threads as u64 + 1);
        let outcome = self.run.parallel(threads as usize, count, |at| {
            let Some((id, size)) = pack(at) else { return Ok(()) };
            if is_over(at) {
                return Ok(());
            }
            let mut reading = Reading { all: self, decompressor: Decompressor::new()? };
            match self.index.number_of(&id) {
                Some(number) => {
                    if let Err(first) = reading.indexed(id, number)? {
                        locked(&doubtful).insert(number, first);
                    }
                }
                None => reading.unreferenced(id, size)?,
            }
            self.run.progress.add(1, size);
            if let Some(done) = done.get(at) {
                done.store(true, Ordering::Release);
            }
            Ok(())
        });
        let outcome = outcome.and_then(|()| {
            self.look_again(doubtful.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
        });
        // What is doubtful was not settled if an error came between: such a pack stays unread.
        let read = done.iter().take_while(|done| done.load(Ordering::Acquire)).count();
        (if outcome.is_ok() { read } else { 0 }, outcome)
    }

    /// Reads packs again, each by what the index promises in it: a pack by its number, and what was wrong.
    fn look_again(&self, doubtful: BTreeMap<u32, String>) -> Result<(), Error> {
        let mut doubtful = doubtful.into_iter().peekable();
        while doubtful.peek().is_some() {
            let mut some = BTreeMap::new();
            let mut sum = 0;
            while let Some((number, first)) = doubtful.next_if(|_| sum < GATHERED_MAX) {
                sum += u64::from(self.promised.get(number as usize).copied().unwrap_or(0));
                some.insert(number, first);
            }
            let gathered: Vec<_> = gather(self.index, some.keys().copied())?.into_iter().collect();
            self.run.parallel(self.run.threads, gathered.len(), |at| {
                let Some((number, places)) = gathered.get(at) else { return Ok(()) };
                let (Some((id, _)), Some(first)) = (self.index.pack(*number), some.get(number)) else {
                    return Ok(());
                };
                Reading { all: self, decompressor: Decompressor::new()? }.by_index(id, *number, first, places)
            })?;
        }
        Ok(())
    }
}

/// Gathers the places of these packs: one walk over the index.
pub(crate) fn gather(
    index: &Index,
    numbers: impl Iterator<Item = u32>,
) -> Result<BTreeMap<u32, PlacesOfPack>, Error> {
    let mut gathered: BTreeMap<u32, PlacesOfPack> = numbers.map(|number| (number, Vec::new())).collect();
    index.each_place(&mut |at, place| {
        if let Some(places) = gathered.get_mut(&place.pack) {
            places.push((at, *place));
        }
        Ok(())
    })?;
    gathered.values_mut().for_each(|places| places.sort_by_key(|(_, place)| place.offset));
    Ok(gathered)
}

/// One pack being read.
struct Reading<'r> {
    all: &'r PackReader<'r>,
    decompressor: Decompressor,
}

impl Reading<'_> {
    fn get(&self, id: &PackId) -> Result<Result<Bytes, String>, Error> {
        match self.all.run.repo.store().get(&id.key()) {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(error) => lost(error.into()).map(Err),
        }
    }

    /// A pack that the index names, read by its own directory. The inner error says why that is not enough.
    fn indexed(&mut self, id: PackId, number: u32) -> Result<Result<(), String>, Error> {
        let bytes = match self.get(&id)? {
            Ok(bytes) => bytes,
            Err(what) => return Ok(Err(what)),
        };
        let pack = match Pack::parse(self.all.run.repo.secrets(), &id, bytes.clone()) {
            Ok(pack) => pack,
            Err(what) => return Ok(Err(what)),
        };
        let Some(opener) = self.opener(&bytes)? else {
            return Ok(Err("its header does not lead to a key".to_owned()));
        };
        if self.whole(id, number, &pack, &opener, &bytes)? { Ok(Ok(())) } else { Ok(Err(String::new())) }
    }

    /// A pack whose name and directory are right: what is wrong now was written so, in the pack or in the index.
    /// Whether all that the index promises in it is in its directory.
    fn whole(
        &mut self,
        id: PackId,
        number: u32,
        pack: &Pack,
        opener: &PackOpener,
        bytes: &Bytes,
    ) -> Result<bool, Error> {
        let mut agreed = 0;
        let mut unlisted = Vec::new();
        for entry in &pack.entries {
            let place = self.all.index.places_of(&entry.id)?.into_iter().find(|(_, place)| {
                (place.pack, place.offset, place.sealed, place.plain)
                    == (number, entry.offset, entry.sealed, entry.plain)
            });
            let Some((at, _)) = place else {
                unlisted.push(entry.id);
                continue;
            };
            agreed += 1;
            let what = match self.open(opener, bytes, entry.offset, entry.sealed, entry.plain) {
                Ok(found) if found == entry.id => continue,
                Ok(found) => format!("what lies there is chunk {found}, against the pack's directory"),
                Err(what) => what,
            };
            self.wrong(id, "pack-damaged", entry.offset, entry.sealed, &what);
            self.all.places.mark_bad(at);
            locked(&self.all.forged).insert(id);
        }
        let whole = Some(&agreed) == self.all.promised.get(number as usize);
        if whole {
            unlisted.iter().for_each(|chunk| self.unlisted(id, chunk));
        }
        Ok(whole)
    }

    /// A pack that was not as it should be, read by what the index promises in it; `first` is what was wrong with
    /// it, and empty if it was the index.
    fn by_index(
        &mut self,
        id: PackId,
        number: u32,
        first: &str,
        promised: &[(usize, Place)],
    ) -> Result<(), Error> {
        let wrong = |what| self.all.ledger.object(Cause::Pack(id), "pack-damaged", what);
        let bad = |places: &[(usize, Place)]| places.iter().for_each(|(at, _)| self.all.places.mark_bad(*at));
        let bytes = match self.get(&id)? {
            Ok(bytes) => bytes,
            Err(what) => {
                wrong(what);
                bad(promised);
                locked(&self.all.broken).insert(id);
                return Ok(());
            }
        };
        let Some(opener) = self.opener(&bytes)? else {
            wrong("its header does not lead to a key".to_owned());
            bad(promised);
            locked(&self.all.broken).insert(id);
            return Ok(());
        };
        match Pack::parse(self.all.run.repo.secrets(), &id, bytes.clone()) {
            Ok(pack) => {
                if !first.is_empty() {
                    self.all.ledger.finding(Finding::warning(
                        "read-unsteady",
                        id.key(),
                        format!(
                            "the first reading was wrong ({first}) and the second right: what is stored is whole, and the way here is not to be trusted. Look at this machine's memory, its network and the store"
                        ),
                    ));
                    if self.whole(id, number, &pack, &opener, &bytes)? {
                        return Ok(());
                    }
                }
                self.index_wrong(id, &pack, promised);
            }
            // Not the pack that was written; the chunks may still be: the index knows where each of them begins.
            Err(what) => {
                wrong(what);
                locked(&self.all.broken).insert(id);
                let mut lost = 0;
                for (at, place) in promised {
                    let opened = self.open(&opener, &bytes, place.offset, place.sealed, place.plain);
                    if !opened.is_ok_and(|found| place.is_of(&found)) {
                        self.all.places.mark_bad(*at);
                        lost += 1;
                    }
                }
                let what = format!("{lost} of the {} chunks in it are lost", promised.len());
                self.all.ledger.object(Cause::Pack(id), "pack-damaged", what);
            }
        }
        Ok(())
    }

    /// A pack that is what was written, and of which the index says something else.
    fn index_wrong(&self, id: PackId, pack: &Pack, promised: &[(usize, Place)]) {
        for (at, place) in promised {
            let found = pack.entries.binary_search_by_key(&place.offset, |entry| entry.offset).ok();
            let agrees = found.and_then(|found| pack.entries.get(found)).is_some_and(|entry| {
                place.is_of(&entry.id) && (entry.sealed, entry.plain) == (place.sealed, place.plain)
            });
            if !agrees {
                let what = "the index promises a chunk there that the pack's directory does not name";
                self.wrong(id, "index-wrong", place.offset, place.sealed, what);
                locked(&self.all.misnamed).insert(id);
                self.all.places.mark_bad(*at);
            }
        }
        for entry in &pack.entries {
            if promised.binary_search_by_key(&entry.offset, |(_, place)| place.offset).is_err() {
                self.unlisted(id, &entry.id);
            }
        }
    }

    fn wrong(&self, id: PackId, code: &'static str, offset: u32, sealed: u32, what: &str) {
        self.all.ledger.object(Cause::Pack(id), code, format!("at {offset}, {sealed} bytes: {what}"));
    }

    /// In the pack, and not in the index.
    fn unlisted(&self, id: PackId, chunk: &ChunkId) {
        let what = format!("chunk {chunk} is in the pack and no index segment names it there");
        self.all.ledger.object_unneeded(Cause::Pack(id), "pack-unlisted", what);
    }

    /// A pack that no segment names: nothing relies on it.
    fn unreferenced(&mut self, id: PackId, size: u64) -> Result<(), Error> {
        let outcome = match self.get(&id)? {
            Err(what) => Err(what),
            Ok(bytes) => match Pack::parse(self.all.run.repo.secrets(), &id, bytes.clone()) {
                Err(what) => Err(what),
                Ok(pack) => match self.opener(&bytes)? {
                    None => Err("its header does not lead to a key".to_owned()),
                    Some(opener) => pack.entries.iter().try_for_each(|entry| {
                        let found = self.open(&opener, &bytes, entry.offset, entry.sealed, entry.plain)?;
                        if found == entry.id { Ok(()) } else { Err(format!("chunk {} is another", entry.id)) }
                    }),
                },
            },
        };
        match outcome {
            Ok(()) => locked(&self.all.sound).push((id, size)),
            Err(what) => self.all.ledger.object_unneeded(Cause::Pack(id), "pack-damaged", what),
        }
        Ok(())
    }

    /// `None` if the pack's header is cut or its public key is none.
    fn opener(&self, bytes: &Bytes) -> Result<Option<PackOpener>, Error> {
        let Some(header) = bytes.first_chunk::<PACK_HEADER_LEN>() else { return Ok(None) };
        match self.all.run.repo.secrets().pack_opener(header) {
            Ok(opener) => Ok(Some(opener)),
            Err(error @ Error::NotPermitted { .. }) => Err(error),
            // X25519 refuses public keys of low order.
            Err(_) => Ok(None),
        }
    }

    /// Opens, decompresses and names what lies there.
    fn open(
        &mut self,
        opener: &PackOpener,
        bytes: &Bytes,
        offset: u32,
        sealed: u32,
        plain: u32,
    ) -> Result<ChunkId, String> {
        let start = offset as usize;
        let Some(part) = bytes.get(start..start.saturating_add(sealed as usize)) else {
            return Err("it lies beyond the end of the pack".to_owned());
        };
        let content = self.decompressor.open(opener, offset, part, plain as usize)?;
        self.all.chunks.fetch_add(1, Ordering::Relaxed);
        self.all.bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
        Ok(self.all.ids.id(content))
    }
}
