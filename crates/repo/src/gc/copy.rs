//! What a collection writes besides its notes: needed chunks copied out of packs that go, and index segments without
//! the packs that went.

use std::collections::HashSet;

use bytes::BytesMut;

use super::tally::Tally;
use super::walk::Reach;
use super::{Collected, LOCKED_SHOWN};
use crate::env::Cancel;
use crate::error::Error;
use crate::id::{INDEX, PackId, SegmentId};
use crate::index::{SEGMENT_CHUNKS_MAX, Segment, SegmentChunk};
use crate::monitor::{Finding, Progress};
use crate::pack::{Copier, Lane, PACK_BYTES, PACK_CHUNKS_MAX, PackBuilder, pack_bytes_at_most};
use crate::reindex;
use crate::repo::Repository;
use crate::store::StoreError;

/// New segments are kept to this: 12 MiB each, decoded ...
const SEGMENT_CHUNKS: usize = 262_144;
/// A segment below this is small ...
const SMALL_BYTES: u64 = 1 << 20;
/// ... and so many small ones are made one.
const SMALL_MAX: usize = 32;

/// ... or to an eighth of what there is to build an index with: while one is encoded and sealed, it is there three times.
fn segment_chunks(repo: &Repository) -> usize {
    (repo.budget().build / 8 / size_of::<SegmentChunk>()).clamp(PACK_CHUNKS_MAX, SEGMENT_CHUNKS)
}

/// Copies the chunks for which these packs count into new packs, and names those. Returns the packs of which
/// everything needed was copied.
pub(super) fn copy_out(
    repo: &Repository,
    reach: &Reach,
    tally: &Tally,
    packs: &[PackId],
    cancel: &Cancel,
    progress: &dyn Progress,
    done: &mut Collected,
) -> Result<Vec<PackId>, Error> {
    let mut out = Out { repo, open: [None, None], segment: Segment::default(), done };
    let mut emptied = Vec::new();
    let index = reach.index();
    progress.total(packs.len() as u64, 0);
    for id in packs {
        cancel.check()?;
        let pack = match repo.read_pack(id) {
            Ok(pack) => pack,
            // Another collection was faster; what it held is looked at again before anything goes.
            Err(Error::Missing { .. }) => continue,
            Err(error) if error.is_damage() => {
                out.done.findings.push(Finding::error(
                    "pack-damaged",
                    id.key(),
                    format!("{error}; it is left as it is"),
                ));
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut copier = Copier::new(repo, &pack)?;
        let mut whole = true;
        for entry in &pack.entries {
            let places = index.places_of(&entry.id)?;
            if !places.first().is_some_and(|(at, _)| reach.is_needed(*at)) {
                continue;
            }
            let here = tally.choice(index, &places).and_then(|place| index.pack(place.pack));
            if here.is_none_or(|(here, _)| here != *id) {
                continue;
            }
            let builder = out.builder(pack.lane)?;
            if let Err(what) = copier.copy(&pack, entry, builder)? {
                whole = false;
                let error = Error::damaged_chunk(id, &entry.id, what);
                out.done.findings.push(Finding::error("pack-damaged", id.key(), error.to_string()));
                continue;
            }
            out.done.chunks_copied += 1;
            out.done.bytes_copied += u64::from(entry.sealed);
            out.close_full(pack.lane)?;
        }
        if whole {
            emptied.push(*id);
        }
        progress.add(1, 0);
    }
    out.finish()?;
    Ok(emptied)
}

struct Out<'r> {
    repo: &'r Repository,
    open: [Option<PackBuilder>; 2],
    segment: Segment,
    done: &'r mut Collected,
}

impl Out<'_> {
    fn builder(&mut self, lane: Lane) -> Result<&mut PackBuilder, Error> {
        let slot = &mut self.open[usize::from(lane.kind())];
        if slot.is_none() {
            let sealer = self.repo.secrets().pack_sealer(lane.kind(), self.repo.env())?;
            *slot = Some(PackBuilder::new(sealer, BytesMut::with_capacity(pack_bytes_at_most(PACK_BYTES))));
        }
        slot.as_mut().ok_or_else(|| Error::failed("a pack under assembly was lost"))
    }

    fn close_full(&mut self, lane: Lane) -> Result<(), Error> {
        let slot = &mut self.open[usize::from(lane.kind())];
        match slot.take_if(|builder| builder.is_full(PACK_BYTES)) {
            Some(builder) => self.put(builder),
            None => Ok(()),
        }
    }

    fn put(&mut self, builder: PackBuilder) -> Result<(), Error> {
        let pack = builder.finish()?;
        let size = pack.bytes.len() as u32;
        self.repo.put_content(&pack.id.key(), pack.bytes)?;
        self.done.packs_written += 1;
        self.done.bytes_written += u64::from(size);
        if self.segment.chunks.len() + pack.entries.len() > segment_chunks(self.repo) {
            self.put_segment()?;
        }
        reindex::add(&mut self.segment, pack.id, size, pack.entries);
        Ok(())
    }

    fn put_segment(&mut self) -> Result<(), Error> {
        let segment = std::mem::take(&mut self.segment);
        if segment.packs.is_empty() {
            return Ok(());
        }
        self.done.segments_written += 1;
        reindex::put_segment(self.repo, segment)?;
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        for slot in 0..self.open.len() {
            if let Some(builder) = self.open[slot].take() {
                self.put(builder)?;
            }
        }
        self.put_segment()
    }
}

/// Writes the segments anew that name a pack of `gone`, and the small ones if there are many, as few large ones;
/// then deletes the old. The new are there before an old one goes, so whoever reads the index meanwhile finds
/// everything, or a segment missing and lists again.
///
/// A segment that the store holds on to stays; what it names is written anew once, and not again as long as other
/// segments name it.
pub(super) fn rewrite_segments(
    repo: &Repository,
    gone: &HashSet<PackId>,
    merge: bool,
    cancel: &Cancel,
    done: &mut Collected,
) -> Result<(), Error> {
    let mut listed = Vec::new();
    repo.store().list(INDEX, &mut |object| {
        listed.extend(SegmentId::from_key(&object.key).map(|id| (id, object.size)));
        Ok(())
    })?;
    listed.sort_unstable();
    let is_small = |size: u64| merge && size < SMALL_BYTES;
    let mut small = 0;
    for (id, size) in &listed {
        if is_small(*size) && (repo.lock().is_none() || !is_held(repo, &id.key())?) {
            small += 1;
        }
    }
    let merge = small > SMALL_MAX;
    if gone.is_empty() && !merge {
        return Ok(());
    }
    let (mut new, mut old, mut held) = (Merged::default(), Vec::new(), Vec::new());
    // What the segments name that stay as they are.
    let mut named = HashSet::new();
    for (id, size) in listed {
        cancel.check()?;
        // Damaged, or gone: told by whoever reads the index, and left as it is.
        let Some(segment) = read_steadily(repo, &id)? else { continue };
        let dead = segment.packs.iter().any(|(pack, _)| gone.contains(pack));
        let goes = dead || (merge && is_small(size));
        match goes && is_held(repo, &id.key())? {
            true if dead => held.push(id),
            false if goes => {
                new.take(repo, segment, gone, done)?;
                old.push(id);
            }
            _ if repo.lock().is_some() => named.extend(segment.packs.into_iter().map(|(pack, _)| pack)),
            _ => {}
        }
    }
    for id in held {
        let segment = repo.read_segment(&id)?;
        let is_named = |pack: &PackId| gone.contains(pack) || named.contains(pack) || new.names(pack);
        if !segment.packs.iter().all(|(pack, _)| is_named(pack)) {
            named.extend(segment.packs.iter().map(|(pack, _)| *pack));
            new.take(repo, segment, gone, done)?;
        }
    }
    new.put(repo, done)?;
    for id in old {
        cancel.check()?;
        if delete(repo, &id.key(), done)? {
            done.segments_deleted += 1;
        }
    }
    Ok(())
}

/// A segment; `None` if it is gone or damaged. What is damaged reads the same twice. What does not was spoilt on its way, and
/// says nothing about the object: passed over, it would go on naming the packs that are deleted next.
fn read_steadily(repo: &Repository, id: &SegmentId) -> Result<Option<Segment>, Error> {
    match repo.read_segment(id) {
        Ok(segment) => return Ok(Some(segment)),
        Err(error) if error.is_damage() => {}
        Err(error) => return Err(error),
    }
    let get = || match repo.store().get(&id.key()) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. } | StoreError::Unreadable { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    let (one, other) = (get()?, get()?);
    if one != other {
        return Err(Error::damaged(
            id.key(),
            "it reads differently from one time to the next: look at this machine's memory, its network and the store. Nothing it names was deleted; collect again",
        ));
    }
    Ok(one.and_then(|bytes| repo.open_segment(id, bytes).ok()))
}

/// Whether the store holds on to an object, as far as that can be asked.
fn is_held(repo: &Repository, key: &str) -> Result<bool, Error> {
    let (Some(_), Some(vault)) = (repo.lock(), repo.store().vault()) else { return Ok(false) };
    let lock = match vault.lock_of(key) {
        Err(error) if error.is_not_found() => None,
        lock => lock?,
    };
    Ok(lock.is_some_and(|lock| lock.until > repo.env().now()))
}

#[derive(Default)]
struct Merged {
    segment: Segment,
    packs: HashSet<PackId>,
}

impl Merged {
    /// Whether the segment under way names this pack.
    fn names(&self, pack: &PackId) -> bool {
        self.packs.contains(pack)
    }

    /// Takes over the packs of a segment that are not gone, each once.
    fn take(
        &mut self,
        repo: &Repository,
        segment: Segment,
        gone: &HashSet<PackId>,
        done: &mut Collected,
    ) -> Result<(), Error> {
        let total = self.segment.chunks.len() + segment.chunks.len();
        if total > segment_chunks(repo).max(segment.chunks.len()) || total > SEGMENT_CHUNKS_MAX {
            self.put(repo, done)?;
        }
        let mut numbers = Vec::with_capacity(segment.packs.len());
        for (id, size) in segment.packs {
            let fresh = !gone.contains(&id) && self.packs.insert(id);
            numbers.push(fresh.then_some(self.segment.packs.len() as u32));
            if fresh {
                self.segment.packs.push((id, size));
            }
        }
        for mut chunk in segment.chunks {
            if let Some(Some(number)) = numbers.get(chunk.pack as usize) {
                chunk.pack = *number;
                self.segment.chunks.push(chunk);
            }
        }
        Ok(())
    }

    fn put(&mut self, repo: &Repository, done: &mut Collected) -> Result<(), Error> {
        let Merged { segment, .. } = std::mem::take(self);
        if segment.packs.is_empty() {
            return Ok(());
        }
        done.segments_written += 1;
        reindex::put_segment(repo, segment)?;
        Ok(())
    }
}

/// Deletes an object. One that the store holds on to is a finding; `false` then.
pub(super) fn delete(repo: &Repository, key: &str, done: &mut Collected) -> Result<bool, Error> {
    match repo.store().delete(key) {
        Ok(()) => Ok(true),
        Err(error @ (StoreError::Denied { .. } | StoreError::Locked { .. })) => {
            done.locked += 1;
            if done.locked <= LOCKED_SHOWN {
                done.findings.push(Finding::note(
                    "object-locked",
                    key,
                    format!("{error}; a later collection tries again"),
                ));
            }
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
