//! The packs: which are there, and with `read_data` whether every chunk in them is what its id says.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::damage::{Cause, Ledger};
use super::{CheckCounts, Run, lost};
use crate::crypto::{ChunkIds, PACK_HEADER_LEN, PackOpener};
use crate::error::Error;
use crate::id::{ChunkId, PackId};
use crate::index::{Index, Place};
use crate::pack::{Decompressor, Pack, PackEntry};

/// For every place of a chunk that the index names: whether the bytes can be there.
pub(super) struct Places {
    /// By pack number: the size of the pack in the store, or `None`.
    sizes: Vec<Option<u64>>,
    /// One bit a place: it was read and is bad.
    bad: Vec<AtomicU64>,
    /// Packs in the store that the index does not name.
    unreferenced: Vec<(PackId, u64)>,
}

impl Places {
    /// `packs` as the store lists them, ascending.
    pub(super) fn new(index: &Index, packs: &[(PackId, u64)]) -> Places {
        let mut sizes = vec![None; index.pack_count()];
        let mut unreferenced = Vec::new();
        for (id, size) in packs {
            match index.number_of(id).and_then(|number| sizes.get_mut(number as usize)) {
                Some(known) => *known = Some(*size),
                None => unreferenced.push((*id, *size)),
            }
        }
        let bad = (0..index.chunk_count().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Places { sizes, bad, unreferenced }
    }

    pub(super) fn unreferenced(&self) -> &[(PackId, u64)] {
        &self.unreferenced
    }

    /// Reports packs that are gone or of another size than the index says.
    pub(super) fn report_packs(&self, index: &Index, ledger: &Ledger) {
        for (number, size) in self.sizes.iter().enumerate() {
            let Some((id, promised)) = index.pack(number as u32) else { continue };
            match size {
                Some(size) if *size == u64::from(promised) => {}
                Some(size) => ledger.object(
                    Cause::Pack(id),
                    "pack-damaged",
                    format!("it has {size} bytes and the index promises {promised}"),
                ),
                None => ledger.object(Cause::Pack(id), "pack-missing", "it is not in the store".to_owned()),
            }
        }
    }

    pub(super) fn mark_bad(&self, at: usize) {
        if let Some(word) = self.bad.get(at / 64) {
            word.fetch_or(1 << (at % 64), Ordering::Relaxed);
        }
    }

    /// Whether the chunk cannot be had from this place.
    pub(super) fn is_bad(&self, at: usize, place: &Place) -> bool {
        let word = self.bad.get(at / 64).map_or(0, |word| word.load(Ordering::Relaxed));
        let end = u64::from(place.offset) + u64::from(place.sealed);
        let fits = self.sizes.get(place.pack as usize).copied().flatten().is_some_and(|size| end <= size);
        !fits || word >> (at % 64) & 1 == 1
    }
}

/// The places of the index, grouped by pack: `starts[p]..starts[p + 1]` in `order` are those of pack p.
struct ByPack {
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl ByPack {
    fn new(index: &Index) -> ByPack {
        let mut starts = vec![0_u32; index.pack_count() + 1];
        let each = || (0..index.chunk_count()).filter_map(|at| Some((at, index.place(at)?)));
        for (_, place) in each() {
            if let Some(count) = starts.get_mut(place.pack as usize + 1) {
                *count += 1;
            }
        }
        for pack in 1..starts.len() {
            starts[pack] += starts[pack - 1];
        }
        let mut next = starts.clone();
        let mut order = vec![0; index.chunk_count()];
        for (at, place) in each() {
            let Some(slot) = next.get_mut(place.pack as usize) else { continue };
            if let Some(entry) = order.get_mut(*slot as usize) {
                *entry = at as u32;
            }
            *slot += 1;
        }
        ByPack { starts, order }
    }

    /// The places in one pack, by offset.
    fn places(&self, index: &Index, pack: usize) -> Vec<(usize, Place)> {
        let range = match (self.starts.get(pack), self.starts.get(pack + 1)) {
            (Some(start), Some(end)) => *start as usize..*end as usize,
            _ => return Vec::new(),
        };
        let numbers = self.order.get(range).unwrap_or_default();
        let mut places: Vec<(usize, Place)> =
            numbers.iter().filter_map(|at| Some((*at as usize, index.place(*at as usize)?))).collect();
        places.sort_by_key(|(_, place)| place.offset);
        places
    }
}

/// Reads every pack in the store once.
pub(super) fn read_all(
    run: &Run<'_>,
    index: &Index,
    places: &Places,
    ledger: &Ledger,
    counts: &mut CheckCounts,
) -> Result<(), Error> {
    let present: Vec<(u32, PackId)> = (0..index.pack_count() as u32)
        .filter(|number| places.sizes.get(*number as usize).copied().flatten().is_some())
        .filter_map(|number| Some((number, index.pack(number)?.0)))
        .collect();
    run.progress.total((present.len() + places.unreferenced.len()) as u64, counts.bytes_stored);
    let by_pack = ByPack::new(index);
    let ids = run.repo.secrets().chunk_ids()?;
    let (chunks, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let count = present.len() + places.unreferenced.len();
    run.parallel(run.threads, count, |at| {
        let mut reading = Reading {
            run,
            ids: &ids,
            places,
            ledger,
            decompressor: Decompressor::new()?,
            chunks: 0,
            bytes: 0,
        };
        match (present.get(at), places.unreferenced.get(at.wrapping_sub(present.len()))) {
            (Some((number, id)), _) => {
                reading.indexed(*id, &by_pack.places(index, *number as usize))?;
            }
            (None, Some((id, _))) => reading.unreferenced(*id)?,
            (None, None) => {}
        }
        chunks.fetch_add(reading.chunks, Ordering::Relaxed);
        bytes.fetch_add(reading.bytes, Ordering::Relaxed);
        Ok(())
    })?;
    counts.chunks_read = chunks.into_inner();
    counts.bytes_read = bytes.into_inner();
    Ok(())
}

/// One pack being read.
struct Reading<'r> {
    run: &'r Run<'r>,
    ids: &'r ChunkIds,
    places: &'r Places,
    ledger: &'r Ledger,
    decompressor: Decompressor,
    chunks: u64,
    bytes: u64,
}

impl Reading<'_> {
    fn get(&self, id: &PackId) -> Result<Result<Bytes, String>, Error> {
        match self.run.repo.store().get(&id.key()) {
            Ok(bytes) => {
                self.run.progress.add(1, bytes.len() as u64);
                Ok(Ok(bytes))
            }
            Err(error) => lost(error.into()).map(Err),
        }
    }

    /// A pack that the index names, and the places it names in it.
    fn indexed(&mut self, id: PackId, promised: &[(usize, Place)]) -> Result<(), Error> {
        let wrong = |code, what| self.ledger.object(Cause::Pack(id), code, what);
        let bytes = match self.get(&id)? {
            Ok(bytes) => bytes,
            Err(what) => {
                wrong("pack-damaged", what);
                promised.iter().for_each(|(at, _)| self.places.mark_bad(*at));
                return Ok(());
            }
        };
        let Some(opener) = self.opener(&bytes)? else {
            wrong("pack-damaged", "its header does not lead to a key".to_owned());
            promised.iter().for_each(|(at, _)| self.places.mark_bad(*at));
            return Ok(());
        };
        match Pack::parse(self.run.repo.secrets(), &id, bytes.clone()) {
            Ok(pack) => self.whole(id, &pack.entries, promised, &opener, &bytes),
            // Not the pack that was written; the chunks may still be: the index knows where each of them begins.
            Err(what) => {
                wrong("pack-damaged", what);
                let mut lost = 0;
                for (at, place) in promised {
                    let opened = self.open(&opener, &bytes, place.offset, place.sealed, place.plain);
                    if !opened.is_ok_and(|found| place.is_of(&found)) {
                        self.places.mark_bad(*at);
                        lost += 1;
                    }
                }
                wrong("pack-damaged", format!("{lost} of the {} chunks in it are lost", promised.len()));
            }
        }
        Ok(())
    }

    /// A pack whose name, trailer and directory are right: what is wrong now was written so, in the pack or in
    /// the index.
    fn whole(
        &mut self,
        id: PackId,
        entries: &[PackEntry],
        promised: &[(usize, Place)],
        opener: &PackOpener,
        bytes: &Bytes,
    ) {
        let mut listed = entries.iter().peekable();
        for (at, place) in promised {
            // Both ascend by offset.
            while let Some(entry) = listed.next_if(|entry| entry.offset < place.offset) {
                self.unlisted(id, &entry.id);
            }
            let entry = listed.next_if(|entry| entry.offset == place.offset);
            let agrees = entry.is_some_and(|entry| {
                place.is_of(&entry.id) && (entry.sealed, entry.plain) == (place.sealed, place.plain)
            });
            let opened = self.open(opener, bytes, place.offset, place.sealed, place.plain);
            let (code, what) = match opened {
                Ok(found) if agrees && place.is_of(&found) => continue,
                Ok(found) if agrees => (
                    "pack-damaged",
                    format!("what lies there is chunk {found}, against the pack's directory"),
                ),
                Err(what) if agrees => ("pack-damaged", what),
                _ => (
                    "index-wrong",
                    "the index promises a chunk there that the pack's directory does not name".to_owned(),
                ),
            };
            let what = format!("at {}, {} bytes: {what}", place.offset, place.sealed);
            self.ledger.object(Cause::Pack(id), code, what);
            self.places.mark_bad(*at);
        }
        for entry in listed {
            self.unlisted(id, &entry.id);
        }
    }

    /// In the pack, and not in the index.
    fn unlisted(&self, id: PackId, chunk: &ChunkId) {
        let what = format!("chunk {chunk} is in the pack and no index segment names it there");
        self.ledger.object_unneeded(Cause::Pack(id), "pack-unlisted", what);
    }

    /// A pack that no segment names: nothing relies on it.
    fn unreferenced(&mut self, id: PackId) -> Result<(), Error> {
        let outcome = match self.get(&id)? {
            Err(what) => Err(what),
            Ok(bytes) => match Pack::parse(self.run.repo.secrets(), &id, bytes.clone()) {
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
        if let Err(what) = outcome {
            self.ledger.object_unneeded(Cause::Pack(id), "pack-damaged", what);
        }
        Ok(())
    }

    /// `None` if the pack's header is cut or its public key is none.
    fn opener(&self, bytes: &Bytes) -> Result<Option<PackOpener>, Error> {
        let Some(header) = bytes.first_chunk::<PACK_HEADER_LEN>() else { return Ok(None) };
        match self.run.repo.secrets().pack_opener(header) {
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
        self.chunks += 1;
        self.bytes += content.len() as u64;
        Ok(self.ids.id(&content))
    }
}
