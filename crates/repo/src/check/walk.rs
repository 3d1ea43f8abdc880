//! Follows recovery points down to their chunks, and puts what cannot be had down to its cause.
//!
//! What several points share is looked at once: nodes, streams and whole trees that were seen are remembered
//! with what they lack. Only a tree that lacks something is read again for every point, to name its files.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::damage::{Cause, Ledger};
use super::packs::Places;
use super::{Point, Run, locked, lost};
use crate::error::Error;
use crate::id::ChunkId;
use crate::index::{Index, PackSet, Place};
use crate::node::{Ref, check_node, node_refs};
use crate::object::{Content, EntryKind, Extent, LEVEL_MAX, ManifestEntry, NodeKind, Root};
use crate::pack::Lane;
use crate::reader::Reader;
use crate::tree::read_manifest;

/// Whether the leaves of a stream are read or only looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Leaves {
    Read,
    LookUp,
}

/// Follows all points. Adds the packs of every chunk they are made of to `needed`, if there is one.
pub(crate) fn walk_all(
    run: &Run<'_>,
    reader: &Reader,
    places: &Places,
    ledger: &Ledger,
    points: &[Point],
    needed: Option<&PackSet>,
) -> Result<(), Error> {
    walk(run, reader, places, ledger, points, needed, None)
}

/// Chunks that points need and that cannot be had, with whether they are tree, node or manifest: as many as were met, up
/// to a bound. Below a node or a tree that is among them there may be more.
#[derive(Debug)]
pub(crate) struct Lacking {
    most: usize,
    ids: Mutex<HashMap<ChunkId, Lane>>,
}

impl Lacking {
    pub(crate) fn new(most: usize) -> Lacking {
        Lacking { most, ids: Mutex::default() }
    }

    fn add(&self, id: &ChunkId, lane: Lane) {
        let mut ids = locked(&self.ids);
        if ids.len() < self.most {
            ids.entry(*id).or_insert(lane);
        }
    }

    pub(crate) fn into_inner(self) -> HashMap<ChunkId, Lane> {
        self.ids.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Follows all points and collects what they lack.
pub(crate) fn lacking(
    run: &Run<'_>,
    reader: &Reader,
    places: &Places,
    ledger: &Ledger,
    points: &[Point],
    lacking: &Lacking,
) -> Result<(), Error> {
    walk(run, reader, places, ledger, points, None, Some(lacking))
}

fn walk(
    run: &Run<'_>,
    reader: &Reader,
    places: &Places,
    ledger: &Ledger,
    points: &[Point],
    needed: Option<&PackSet>,
    lacking: Option<&Lacking>,
) -> Result<(), Error> {
    let index = reader.index();
    let mut unnamed: Vec<_> = index.damaged().iter().map(|segment| Cause::Segment(segment.key())).collect();
    if unnamed.is_empty() {
        unnamed.push(Cause::NotIndexed);
    }
    let walker = Walker {
        reader,
        index,
        places,
        ledger,
        unnamed,
        needed,
        lacking,
        streams: Mutex::default(),
        leaves: Mutex::default(),
        trees: Mutex::default(),
        streams_max: entries_in::<((Root, Leaves), Lacks)>(run.repo.budget().check / 2),
        leaves_max: entries_in::<ChunkId>(run.repo.budget().check / 2),
    };
    run.progress.total(points.len() as u64, 0);
    run.parallel(run.threads, points.len(), |at| {
        if let Some(point) = points.get(at) {
            walker.point(at, point)?;
            run.progress.add(1, 0);
        }
        Ok(())
    })
}

/// How many entries a hash table holds in so many bytes: seven eighths of a power of two, and then it doubles.
pub(crate) fn entries_in<T>(bytes: usize) -> usize {
    let slots = (bytes / (size_of::<T>() + 1)).max(16);
    (1 << slots.ilog2()) / 8 * 7
}

/// What a stream lacks: nothing, mostly.
type Lacks = Arc<[Cause]>;

struct Walker<'r> {
    reader: &'r Reader,
    index: &'r Index,
    places: &'r Places,
    ledger: &'r Ledger,
    /// Whose fault it is that nobody names a chunk: the damaged segments, if there are any.
    unnamed: Vec<Cause>,
    needed: Option<&'r PackSet>,
    lacking: Option<&'r Lacking>,
    /// Nodes and streams already followed.
    streams: Mutex<HashMap<(Root, Leaves), Lacks>>,
    /// Leaves already read: those of trees and manifests.
    leaves: Mutex<HashSet<ChunkId>>,
    /// How many of each are remembered; the rest is looked at again.
    streams_max: usize,
    leaves_max: usize,
    /// Trees that lack nothing.
    trees: Mutex<HashSet<Root>>,
}

impl Walker<'_> {
    fn point(&self, number: usize, point: &Point) -> Result<(), Error> {
        let Some(root) = &point.root else { return Ok(()) };
        let mut lacks = self.settle(point, self.stream(root, Leaves::Read)?, "its manifest");
        if lacks.is_empty() {
            match read_manifest(self.reader, root) {
                Ok(manifest) => {
                    return manifest.iter().try_for_each(|entry| self.entry(number, point, entry));
                }
                // Its chunks are whole, so it was written like this.
                Err(error) => {
                    lacks = self.blame(point, "manifest-invalid", format!("its manifest: {}", lost(error)?))
                }
            }
        }
        self.ledger.touch_whole(&lacks, number);
        Ok(())
    }

    fn entry(&self, number: usize, point: &Point, entry: &ManifestEntry) -> Result<(), Error> {
        match entry.kind {
            EntryKind::Tree => self.tree(number, point, entry),
            EntryKind::Bytes => {
                let lacks = self.settle(point, self.stream(&entry.root, Leaves::LookUp)?, &entry.name);
                self.touch(&lacks, number, &entry.name);
                Ok(())
            }
        }
    }

    fn tree(&self, number: usize, point: &Point, entry: &ManifestEntry) -> Result<(), Error> {
        if locked(&self.trees).contains(&entry.root) {
            return Ok(());
        }
        let mut last = None;
        // Files that lack something: their further names lack it, too.
        let mut lacking: HashMap<Vec<u8>, Lacks> = HashMap::new();
        for item in self.reader.tree(&entry.root) {
            let item = match item {
                Ok(item) => item,
                Err(error) => {
                    let what = lost(error)?;
                    self.tree_ends(number, point, entry, last.as_deref(), &what)?;
                    return Ok(());
                }
            };
            let name = match item.path.as_slice() {
                [] => entry.name.clone(),
                path => format!("{}/{}", entry.name, String::from_utf8_lossy(path)),
            };
            let lacks = match &item.kind {
                NodeKind::File { content: Content::Stream(root), .. } => self.stream(root, Leaves::LookUp)?,
                NodeKind::File { content: Content::Extents(extents), .. } => self.extents(extents)?,
                NodeKind::HardLink { target } => lacking.get(target).cloned().unwrap_or_default(),
                _ => Lacks::default(),
            };
            if !lacks.is_empty() {
                let lacks = self.settle(point, lacks, &name);
                self.touch(&lacks, number, &name);
                lacking.insert(item.path, lacks);
            }
            last = Some(name);
        }
        if lacking.is_empty() {
            locked(&self.trees).insert(entry.root);
        }
        Ok(())
    }

    /// A tree cannot be read beyond `last`.
    fn tree_ends(
        &self,
        number: usize,
        point: &Point,
        entry: &ManifestEntry,
        last: Option<&str>,
        what: &str,
    ) -> Result<(), Error> {
        let mut lacks = self.settle(point, self.stream(&entry.root, Leaves::Read)?, &entry.name);
        if lacks.is_empty() {
            // Its chunks are whole, so it was written like this.
            lacks = self.blame(point, "tree-invalid", format!("its tree {}: {what}", entry.name));
        }
        let rest = match last {
            None => format!("{} (all of it)", entry.name),
            Some(last) => format!("{} (all after {last})", entry.name),
        };
        self.touch(&lacks, number, &rest);
        Ok(())
    }

    fn touch(&self, lacks: &[Cause], number: usize, name: &str) {
        if !lacks.is_empty() {
            self.ledger.touch(lacks, number, name);
        }
    }

    /// Puts something down to the commit that says it.
    fn blame(&self, point: &Point, code: &'static str, what: String) -> Lacks {
        let cause = Cause::Commit(point.id);
        self.ledger.object(cause.clone(), code, what);
        Arc::from([cause])
    }

    /// What is impossible although no chunk is bad was written so, and is put down to the commit.
    fn settle(&self, point: &Point, lacks: Lacks, name: &str) -> Lacks {
        if !lacks.contains(&Cause::Impossible) {
            return lacks;
        }
        let what = format!(
            "{name} is made of chunks whose lengths, as the index gives them, do not add up to what it promises"
        );
        let blamed = self.blame(point, "stream-invalid", what);
        let others = lacks.iter().filter(|cause| **cause != Cause::Impossible);
        others.chain(blamed.iter()).cloned().collect()
    }

    fn extents(&self, extents: &[Extent]) -> Result<Lacks, Error> {
        let mut lacks = Vec::new();
        for extent in extents {
            let end = u64::from(extent.offset) + u64::from(extent.length);
            self.look_up(&extent.chunk, Lane::Data, |plain| end <= plain, &mut lacks)?;
        }
        Ok(tidy(lacks))
    }

    /// What the chunks of a stream lack. Nodes are always read.
    fn stream(&self, root: &Root, leaves: Leaves) -> Result<Lacks, Error> {
        if root.length == 0 {
            return Ok(Arc::from([]));
        }
        let key = (*root, leaves);
        if let Some(lacks) = locked(&self.streams).get(&key) {
            return Ok(lacks.clone());
        }
        let mut lacks = Vec::new();
        if root.level > LEVEL_MAX {
            lacks.push(Cause::Impossible);
        } else if root.level == 0 {
            self.leaf(&Ref::from(root), leaves, &mut lacks)?;
        } else if let Some(node) = self.read(&root.id, &mut lacks)? {
            if check_node(root.level - 1, &node, root.length).is_err() {
                lacks.push(Cause::Impossible);
            } else {
                for child in node_refs(root.level - 1, &node) {
                    if child.level == 0 {
                        // Leaves are many and cheap: not remembered one by one.
                        self.leaf(&child, leaves, &mut lacks)?;
                    } else {
                        lacks.extend(self.stream(&child.root(), leaves)?.iter().cloned());
                    }
                }
            }
        }
        let lacks = tidy(lacks);
        let mut streams = locked(&self.streams);
        if streams.len() < self.streams_max {
            streams.insert(key, lacks.clone());
        }
        Ok(lacks)
    }

    fn leaf(&self, leaf: &Ref, leaves: Leaves, lacks: &mut Vec<Cause>) -> Result<(), Error> {
        if leaves == Leaves::LookUp {
            return self.look_up(&leaf.chunk(), Lane::Data, |plain| leaf.fits(plain), lacks);
        }
        if leaf.part_of.is_some() {
            // Trees and manifests have no parts.
            lacks.push(Cause::Impossible);
            return Ok(());
        }
        if locked(&self.leaves).contains(&leaf.id) {
            return Ok(());
        }
        let Some(bytes) = self.read(&leaf.id, lacks)? else { return Ok(()) };
        if bytes.len() as u64 != leaf.length {
            lacks.push(Cause::Impossible);
            return Ok(());
        }
        let mut known = locked(&self.leaves);
        if known.len() < self.leaves_max {
            known.insert(leaf.id);
        }
        Ok(())
    }

    /// Whether the index knows a place of the chunk that can be good, of a length that fits.
    fn look_up(
        &self,
        id: &ChunkId,
        lane: Lane,
        fits: impl Fn(u64) -> bool,
        lacks: &mut Vec<Cause>,
    ) -> Result<(), Error> {
        let places = self.index.places_of(id)?;
        self.need(&places);
        let mut causes = Vec::new();
        let mut misfit = false;
        for (at, place) in places {
            if self.places.is_bad(at, &place) {
                causes.extend(self.index.pack(place.pack).map(|(pack, _)| Cause::Pack(pack)));
            } else if fits(u64::from(place.plain)) {
                return Ok(());
            } else {
                misfit = true;
            }
        }
        if let (false, Some(lacking)) = (misfit, self.lacking) {
            lacking.add(id, lane);
        }
        match (misfit, causes.is_empty()) {
            (true, _) => lacks.push(Cause::Impossible),
            (false, true) => lacks.extend(self.unnamed.iter().cloned()),
            (false, false) => lacks.extend(causes),
        }
        Ok(())
    }

    /// Any of its places will do, so all of them count.
    fn need(&self, places: &[(usize, Place)]) {
        let Some(needed) = self.needed else { return };
        places.iter().for_each(|(_, place)| needed.insert(place.pack));
    }

    /// Reads a chunk; what is wrong with it goes to the ledger.
    fn read(&self, id: &ChunkId, lacks: &mut Vec<Cause>) -> Result<Option<Bytes>, Error> {
        if self.needed.is_some() {
            self.need(&self.index.places_of(id)?);
        }
        let what = match self.reader.chunk(id) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) => lost(error)?,
        };
        // The reader has tried all places.
        for (at, place) in self.index.places_of(id)? {
            let Some((pack, _)) = self.index.pack(place.pack) else { continue };
            if !self.places.is_bad(at, &place) {
                self.ledger.object(Cause::Pack(pack), "pack-damaged", format!("chunk {id}: {what}"));
                self.places.mark_bad(at);
            }
        }
        self.look_up(id, Lane::Meta, |_| true, lacks)?;
        Ok(None)
    }
}

fn tidy(mut lacks: Vec<Cause>) -> Lacks {
    lacks.sort_unstable();
    lacks.dedup();
    Arc::from(lacks)
}
