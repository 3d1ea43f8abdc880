//! Names packs that no index segment names.
//!
//! Every pack carries its directory, so the index can always be made again from the packs: after a segment was
//! damaged or lost, and for what a killed write had stored, which then serves the next one. Only segments are
//! added (R1); a damaged one stays where it is and no longer matters. Any key will do: who may list or put can
//! read directories and no chunk (R5).

use crate::crypto::PACK_HEADER_LEN;
use crate::env::Cancel;
use crate::error::Error;
use crate::id::{PACKS, PackId, SegmentId};
use crate::index::{Segment, SegmentChunk};
use crate::monitor::{Finding, Outcome, Progress};
use crate::pack::{PACK_CHUNKS_MAX, PackEntry, Trailer, open_directory};
use crate::repo::Repository;

/// Segments are kept to this, so that memory is (R6).
pub(crate) const SEGMENT_CHUNKS: usize = 2 * PACK_CHUNKS_MAX;

/// What was named anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Reindexed {
    /// Packs in the store.
    pub packs: u64,
    /// Of these, packs that no readable segment had named and one names now.
    pub packs_named: u64,
    /// The chunks in them.
    pub chunks_named: u64,
    /// Segments written.
    pub segments: u64,
}

/// Writes index segments for all packs that no readable segment names. A pack whose directory cannot be read
/// is a finding.
pub fn reindex(
    repo: &Repository,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Outcome<Reindexed>, Error> {
    // What the store holds counts, not what this machine remembers of it.
    let index = repo.index_verified()?;
    let mut outcome = Outcome::clean(Reindexed::default());
    let mut unnamed = Vec::new();
    repo.store().list(PACKS, &mut |object| {
        if let Some(id) = PackId::from_key(&object.key) {
            outcome.done.packs += 1;
            if index.number_of(&id).is_none() {
                unnamed.push((id, object.size));
            }
        }
        Ok(())
    })?;
    drop(index);
    unnamed.sort_unstable();
    progress.total(unnamed.len() as u64, unnamed.iter().map(|(_, size)| size).sum());
    let mut segment = Segment::default();
    for (id, size) in unnamed {
        cancel.check()?;
        // All of it, though its directory would do: one that a repair left out because a bit is flipped in it must not
        // be promised again.
        match repo.read_pack(&id).map(|pack| pack.entries) {
            Ok(entries) => {
                if segment.chunks.len() + entries.len() > SEGMENT_CHUNKS {
                    outcome.done.segments += 1;
                    put_segment(repo, std::mem::take(&mut segment))?;
                }
                outcome.done.packs_named += 1;
                outcome.done.chunks_named += entries.len() as u64;
                add(&mut segment, id, size as u32, entries);
            }
            Err(error) if error.is_damage() => outcome.findings.push(Finding::error(
                "pack-damaged",
                id.key(),
                format!("{error}; its chunks cannot be named"),
            )),
            Err(error) => return Err(error),
        }
        progress.add(1, size);
    }
    if !segment.chunks.is_empty() {
        outcome.done.segments += 1;
        put_segment(repo, segment)?;
    }
    Ok(outcome)
}

/// Adds a pack and what it holds to a segment.
pub(crate) fn add(segment: &mut Segment, id: PackId, size: u32, entries: Vec<PackEntry>) {
    let pack = segment.packs.len() as u32;
    segment.packs.push((id, size));
    segment.chunks.extend(entries.into_iter().map(|entry| SegmentChunk {
        id: entry.id,
        pack,
        offset: entry.offset,
        sealed: entry.sealed,
        plain: entry.plain,
    }));
}

/// Seals and puts a segment.
pub(crate) fn put_segment(repo: &Repository, mut segment: Segment) -> Result<SegmentId, Error> {
    let body = segment.encode()?;
    drop(segment);
    let bytes = bytes::Bytes::from(repo.secrets().seal_segment(&body, repo.env())?);
    let id = SegmentId(*blake3::hash(&bytes).as_bytes());
    repo.put_content(&id.key(), bytes)?;
    Ok(id)
}

/// The directory of a pack, without fetching its chunks.
pub(crate) fn directory(repo: &Repository, id: &PackId, size: u64) -> Result<Vec<PackEntry>, Error> {
    let (key, store) = (id.key(), repo.store());
    let damaged = |what: String| Error::damaged(id.key(), what);
    let least = (PACK_HEADER_LEN + Trailer::LEN) as u64;
    if size < least {
        return Err(damaged(format!("{size} bytes are too few for a pack")));
    }
    let trailer = store.get_range(&key, size - Trailer::LEN as u64, Trailer::LEN)?;
    let trailer = Trailer::parse(&trailer, size).map_err(damaged)?;
    let end = size - Trailer::LEN as u64 - u64::from(trailer.directory);
    let header = store.get_range(&key, 0, PACK_HEADER_LEN)?;
    let header = header.as_ref().try_into().map_err(|_| damaged("its header is cut short".into()))?;
    let sealed = store.get_range(&key, end, trailer.directory as usize)?;
    let (_, entries) = open_directory(repo.secrets(), header, &sealed, end as usize).map_err(damaged)?;
    if entries.len() != trailer.chunks as usize {
        return Err(damaged("its trailer and its directory count chunks differently".into()));
    }
    Ok(entries)
}

/// The directory in the bytes of a pack, if it can be read, whatever became of its chunks.
pub(crate) fn directory_in(repo: &Repository, bytes: &[u8]) -> Option<Vec<PackEntry>> {
    let header = bytes.first_chunk::<PACK_HEADER_LEN>()?;
    let trailer = Trailer::parse(bytes, bytes.len() as u64).ok()?;
    let end = bytes.len() - Trailer::LEN - trailer.directory as usize;
    let sealed = bytes.get(end..bytes.len() - Trailer::LEN)?;
    open_directory(repo.secrets(), header, sealed, end).ok().map(|(_, entries)| entries)
}
