//! Takes whole chunks out of damaged packs, into new ones.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};

use super::Repaired;
use crate::check::packs::{Places, PlacesOfPack};
use crate::crypto::PACK_HEADER_LEN;
use crate::error::Error;
use crate::id::{ChunkId, PackId};
use crate::index::{Index, Segment};
use crate::pack::{Compressor, Decompressor, Lane, PACK_BYTES, PackBuilder, check_header};
use crate::reindex;
use crate::repo::Repository;

/// The zstd level of chunks that move.
const COMPRESSION: i32 = 1;

/// A damaged pack, and what was promised in it.
pub(super) struct Source<'r> {
    pub(super) repo: &'r Repository,
    pub(super) index: &'r Index,
    pub(super) places: &'r Places,
    pub(super) left_out: &'r BTreeSet<PackId>,
    /// Packs that a collection is about to delete.
    pub(super) shaky: &'r dyn Fn(&PackId) -> bool,
    pub(super) bytes: Bytes,
    pub(super) promised: PlacesOfPack,
}

/// What a place in a damaged pack gave.
pub(super) enum Found<'b> {
    /// A chunk, authentic and named by its content.
    Whole {
        /// Its name.
        id: ChunkId,
        /// It.
        plain: &'b [u8],
        /// Another pack that is not known to be damaged holds it, too.
        elsewhere: bool,
    },
    /// Nothing that can be used.
    Unreadable,
}

impl Source<'_> {
    fn lane(&self) -> Option<Lane> {
        check_header(self.bytes.first_chunk::<PACK_HEADER_LEN>()?).ok()
    }

    /// Tries every place where a chunk was: as the index says, and as the pack's own directory does if it can still
    /// be read.
    pub(super) fn read(&self, each: &mut dyn FnMut(Found<'_>)) {
        let directory = reindex::directory_in(self.repo, &self.bytes).unwrap_or_default();
        // The two may differ: the bytes may be those of another pack.
        let mut spots: BTreeSet<(u32, u32, u32)> = BTreeSet::new();
        spots.extend(directory.iter().map(|entry| (entry.offset, entry.sealed, entry.plain)));
        spots.extend(self.promised.iter().map(|(_, place)| (place.offset, place.sealed, place.plain)));
        let keys = self.repo.secrets();
        let header = self.bytes.first_chunk::<PACK_HEADER_LEN>();
        let opener = header.and_then(|header| keys.pack_opener(header).ok());
        let (Some(opener), Ok(ids), Ok(mut decompressor)) = (opener, keys.chunk_ids(), Decompressor::new())
        else {
            spots.iter().for_each(|_| each(Found::Unreadable));
            return;
        };
        for (offset, sealed, plain) in spots {
            let start = offset as usize;
            let part = self.bytes.get(start..start.saturating_add(sealed as usize)).unwrap_or_default();
            match decompressor.open(&opener, offset, part, plain as usize) {
                Ok(plain) => {
                    let id = ids.id(plain);
                    each(Found::Whole { id, plain, elsewhere: self.elsewhere(&id) });
                }
                Err(_) => each(Found::Unreadable),
            }
        }
    }

    fn elsewhere(&self, id: &ChunkId) -> bool {
        // If the index cannot be asked the chunk is saved once more, which harms nobody.
        self.index.places_of(id).unwrap_or_default().iter().any(|(at, place)| {
            let pack = self.index.pack(place.pack).map(|(pack, _)| pack);
            pack.is_some_and(|pack| !self.left_out.contains(&pack) && !(self.shaky)(&pack))
                && !self.places.is_bad(*at, place)
        })
    }
}

/// Writes what was saved.
pub(super) struct Salvager<'r> {
    repo: &'r Repository,
    compressor: Compressor,
    open: BTreeMap<Lane, PackBuilder>,
    segment: Segment,
    chunks: u64,
    packs: u64,
    segments: u64,
}

impl<'r> Salvager<'r> {
    pub(super) fn new(repo: &'r Repository) -> Result<Salvager<'r>, Error> {
        Ok(Salvager {
            repo,
            compressor: Compressor::new(COMPRESSION)?,
            open: BTreeMap::new(),
            segment: Segment::default(),
            chunks: 0,
            packs: 0,
            segments: 0,
        })
    }

    /// Takes in what can be had from the pack and from nowhere else.
    pub(super) fn take(&mut self, source: Source<'_>) -> Result<(), Error> {
        let Some(lane) = source.lane() else { return Ok(()) };
        let mut outcome = Ok(());
        source.read(&mut |found| {
            if let (Found::Whole { id, plain, elsewhere: false }, Ok(())) = (found, &outcome) {
                outcome = self.add(lane, id, plain);
            }
        });
        outcome
    }

    /// The lane of a pack, as far as it can be read; that of content otherwise.
    pub(super) fn lane_of(&self, pack: &PackId) -> Lane {
        let header = self.repo.store().get_range(&pack.key(), 0, PACK_HEADER_LEN).ok();
        let lane =
            header.as_deref().and_then(|bytes| check_header(bytes.first_chunk::<PACK_HEADER_LEN>()?).ok());
        lane.unwrap_or(Lane::Data)
    }

    pub(super) fn add(&mut self, lane: Lane, id: ChunkId, plain: &[u8]) -> Result<(), Error> {
        let builder = match self.open.entry(lane) {
            std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let sealer = self.repo.secrets().pack_sealer(lane.kind(), self.repo.env())?;
                place.insert(PackBuilder::new(sealer, BytesMut::new()))
            }
        };
        builder.add(id, plain.len(), &self.compressor.compress(plain))?;
        self.chunks += 1;
        if builder.is_full(PACK_BYTES) {
            self.put_pack(lane)?;
        }
        Ok(())
    }

    fn put_pack(&mut self, lane: Lane) -> Result<(), Error> {
        let Some(builder) = self.open.remove(&lane) else { return Ok(()) };
        let pack = builder.finish()?;
        let size = pack.bytes.len() as u32;
        self.repo.put_content(&pack.id.key(), pack.bytes)?;
        self.packs += 1;
        if self.segment.chunks.len() + pack.entries.len() > reindex::SEGMENT_CHUNKS {
            self.put_segment()?;
        }
        reindex::add(&mut self.segment, pack.id, size, pack.entries);
        Ok(())
    }

    fn put_segment(&mut self) -> Result<(), Error> {
        let segment = std::mem::take(&mut self.segment);
        if !segment.chunks.is_empty() {
            reindex::put_segment(self.repo, segment)?;
            self.segments += 1;
        }
        Ok(())
    }

    /// Puts what is still open. Once it returns, all that was taken in is stored and named. Returns how many chunks.
    pub(super) fn finish(mut self, done: &mut Repaired) -> Result<u64, Error> {
        for lane in [Lane::Data, Lane::Meta] {
            self.put_pack(lane)?;
        }
        self.put_segment()?;
        done.packs_written += self.packs;
        done.segments_written += self.segments;
        Ok(self.chunks)
    }
}
