//! The names of chunks that a copy remembers, and how it learns them again from what was copied before: of the newest point
//! of a series that both sides have, both sides' trees are walked in step.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Pair, Run, lock, origin_of};
use crate::error::Error;
use crate::id::{ChunkId, CommitId};
use crate::object::{CommitInfo, Content, EntryKind, ManifestEntry, NodeKind, Origin, Root};
use crate::reader::{Reader, ReaderOptions};
use crate::repo::Repository;
use crate::retain;

/// Names of chunks there, by their names here. Two halves: when the younger is full the older one is
/// forgotten, and what is asked for moves to the younger. The first 16 bytes of a keyed hash name a chunk.
pub(super) struct Names {
    half: usize,
    young: HashMap<[u8; 16], ChunkId>,
    old: HashMap<[u8; 16], ChunkId>,
}

fn short(id: &ChunkId) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&id.0[..16]);
    short
}

impl Names {
    pub(super) fn new(most: usize) -> Names {
        Names { half: (most / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    pub(super) fn get(&mut self, near: &ChunkId) -> Option<ChunkId> {
        let key = short(near);
        if let Some(far) = self.young.get(&key) {
            return Some(*far);
        }
        let far = self.old.remove(&key)?;
        self.put(near, far);
        Some(far)
    }

    pub(super) fn put(&mut self, near: &ChunkId, far: ChunkId) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(short(near), far);
    }
}

/// The newest point of each series about to be copied that is on both sides.
pub(super) fn newest_copied(
    near: &Repository,
    points: &[CommitInfo],
    todo: &[CommitInfo],
    known: &HashMap<Origin, CommitId>,
) -> Vec<Pair> {
    let series: BTreeSet<String> = todo.iter().map(|point| retain::series_of(&point.summary)).collect();
    let mut newest: BTreeMap<String, Pair> = BTreeMap::new();
    for point in points {
        let name = retain::series_of(&point.summary);
        if let Some(there) = known.get(&origin_of(near, point)).filter(|_| series.contains(&name)) {
            newest.insert(name, Pair { near: point.id, far: *there });
        }
    }
    newest.into_values().collect()
}

/// Walks these points on both sides in step.
pub(super) fn learn(
    far: &Repository,
    run: &Run<'_>,
    options: &ReaderOptions,
    pairs: &[Pair],
) -> Result<(), Error> {
    if pairs.is_empty() {
        return Ok(());
    }
    run.progress.note("learning what was copied before");
    let there = far.reader(options.clone())?;
    for pair in pairs {
        match learn_point(run, &there, pair) {
            Ok(()) => {}
            // What cannot be learnt is read; that the point is damaged is for `check` to say.
            Err(error) if error.is_damage() => {
                tracing::debug!("nothing more is learnt from {}: {error}", pair.far);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn learn_point(run: &Run<'_>, there: &Reader, pair: &Pair) -> Result<(), Error> {
    let (near, far) = (run.reader.manifest(&pair.near)?, there.manifest(&pair.far)?);
    let far: BTreeMap<&str, &ManifestEntry> = far.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    for entry in &near {
        let Some(twin) = far.get(entry.name.as_str()).filter(|twin| twin.kind == entry.kind) else {
            continue;
        };
        match entry.kind {
            EntryKind::Bytes => learn_stream(run, there, &entry.root, &twin.root)?,
            EntryKind::Tree => learn_tree(run, there, &entry.root, &twin.root)?,
        }
    }
    Ok(())
}

fn learn_stream(run: &Run<'_>, there: &Reader, near: &Root, far: &Root) -> Result<(), Error> {
    for (here, there) in run.reader.extents(near).zip(there.extents(far)) {
        let (here, there) = (here?, there?);
        if (here.offset, here.length) != (there.offset, there.length) {
            break;
        }
        match (here.part_of, there.part_of) {
            (None, None) => {}
            (Some(near), Some(far)) if near.offset == far.offset => {
                lock(&run.names).put(&near.chunk, far.chunk);
            }
            _ => break,
        }
        lock(&run.names).put(&here.id, there.id);
    }
    run.cancel.check()
}

fn learn_tree(run: &Run<'_>, there: &Reader, near: &Root, far: &Root) -> Result<(), Error> {
    for (here, twin) in run.reader.tree(near).zip(there.tree(far)) {
        let (here, twin) = (here?, twin?);
        if here.path != twin.path {
            break;
        }
        let (NodeKind::File { content: here, .. }, NodeKind::File { content: twin, .. }) =
            (&here.kind, &twin.kind)
        else {
            continue;
        };
        match (here, twin) {
            (Content::Extents(here), Content::Extents(twin)) if here.len() == twin.len() => {
                for (here, twin) in here.iter().zip(twin) {
                    if (here.offset, here.length) == (twin.offset, twin.length) {
                        lock(&run.names).put(&here.chunk, twin.chunk);
                    }
                }
            }
            (Content::Stream(here), Content::Stream(twin)) => learn_stream(run, there, here, twin)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> ChunkId {
        ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn names_are_bounded_and_those_in_use_stay() {
        let mut names = Names::new(100);
        names.put(&id(0), id(1_000));
        for number in 1..1_000 {
            names.put(&id(number), id(number + 1_000));
            // Asked for all the time, so never forgotten.
            assert_eq!(names.get(&id(0)), Some(id(1_000)), "{number}");
            assert!(names.young.len() + names.old.len() <= 100);
        }
        assert_eq!(names.get(&id(999)), Some(id(1_999)));
        assert_eq!(names.get(&id(500)), None);
    }
}
