//! Which chunks recovery points need: one bit a chunk, by its position in the index.
//!
//! What several points share is looked at once. A node of content that was followed is not followed again; of trees,
//! which have to be read, a leaf is passed over if it was read before in the same place, that is after the same
//! rest of an entry of the leaf before it. So a tree that differs little from one walked before costs its nodes and
//! the leaves around what differs. Memory is two bits a chunk and a bounded memory of leaves (R6).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::cbor::{Broken, Decoder};
use crate::check::walk::entries_in;
use crate::commit::Sealed;
use crate::entry;
use crate::env::Cancel;
use crate::error::Error;
use crate::id::{ChunkId, CommitId};
use crate::index::{Bits, Index};
use crate::monitor::Progress;
use crate::node::{Ref, check_node, node_refs};
use crate::object::{Content, EntryKind, ITEM_BYTES_MAX, LEVEL_MAX, NodeKind, Root};
use crate::reader::Reader;
use crate::repo::Repository;
use crate::tree::read_manifest;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A leaf of a tree, by its position in the index, and where in it the rest of an entry begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Rest {
    leaf: u32,
    offset: u32,
}

/// Before the first leaf there is no rest.
const NO_REST: Rest = Rest { leaf: u32::MAX, offset: 0 };

/// What is known to be needed.
pub(super) struct Reach {
    pub(super) reader: Reader,
    needed: Bits,
    /// Nodes of level 1 that were followed.
    followed: Bits,
    /// And of the levels above, which are few.
    followed_above: Mutex<HashSet<(u32, u8)>>,
    /// What rest a leaf leaves, by the rest it was met with.
    leaves: Mutex<HashMap<(Rest, u32), u32>>,
    /// How many of them are remembered; beyond it they are read again.
    leaves_max: usize,
    trees: Mutex<HashSet<Root>>,
    walked: HashSet<CommitId>,
}

/// A commit that cannot be followed, and why.
pub(super) type Blocked = (CommitId, String);

impl Reach {
    /// Nothing is needed yet.
    pub(super) fn new(repo: &Repository, reader: Reader) -> Reach {
        let count = reader.index().chunk_count();
        Reach {
            reader,
            needed: Bits::none(count),
            followed: Bits::none(count),
            followed_above: Mutex::default(),
            leaves: Mutex::default(),
            leaves_max: entries_in::<((Rest, u32), u32)>(repo.budget().check),
            trees: Mutex::default(),
            walked: HashSet::new(),
        }
    }

    pub(super) fn index(&self) -> &Index {
        self.reader.index()
    }

    /// Whether a commit needs the chunk whose first place has this position.
    pub(super) fn is_needed(&self, at: usize) -> bool {
        self.needed.contains(at)
    }

    pub(super) fn commits(&self) -> usize {
        self.walked.len()
    }

    /// Whether this commit was there, and was followed.
    pub(super) fn has_walked(&self, commit: &CommitId) -> bool {
        self.walked.contains(commit)
    }

    /// The same needs by another reading of the index; the reader is given back if it lacks one of the chunks.
    pub(super) fn moved_to(self, repo: &Repository, reader: Reader) -> Result<Result<Reach, Reader>, Error> {
        let mut moved = Reach::new(repo, reader);
        let mut lacks = false;
        self.index().each_chunk(&mut |places| {
            let Some((at, first)) = places.first() else { return Ok(()) };
            if self.needed.contains(*at) {
                match moved.index().places_of(&first.id_as_far_as_known())?.first() {
                    Some((at, _)) => moved.needed.insert(*at),
                    None => lacks = true,
                }
            }
            Ok(())
        })?;
        if lacks {
            return Ok(Err(moved.reader));
        }
        moved.walked = self.walked;
        Ok(Ok(moved))
    }

    /// Walks those of the commits that were not walked yet. What cannot be followed is returned; not being able to
    /// look is an error.
    pub(super) fn walk(
        &mut self,
        repo: &Repository,
        commits: &[CommitId],
        threads: usize,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Vec<Blocked>, Error> {
        let new: Vec<_> = commits.iter().filter(|id| !self.walked.contains(id)).collect();
        progress.total(new.len() as u64, 0);
        let (blocked, failed) = (Mutex::new(Vec::new()), Mutex::new(None));
        let gone = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        let this = &*self;
        let work = || {
            while let Some(id) = new.get(next.fetch_add(1, Ordering::Relaxed)) {
                match cancel.check().and_then(|()| this.commit(repo, id)) {
                    Ok(true) => progress.add(1, 0),
                    // It may come back (`delete.rs`), and is followed then.
                    Ok(false) => lock(&gone).push(**id),
                    Err(error) if error.is_damage() => lock(&blocked).push((**id, error.to_string())),
                    Err(error) => {
                        lock(&failed).get_or_insert(error);
                        next.store(new.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(new.len()) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut blocked = blocked.into_inner().unwrap_or_else(PoisonError::into_inner);
        blocked.sort();
        let new: Vec<CommitId> = new.into_iter().copied().collect();
        self.walked.extend(new);
        let gone = gone.into_inner().unwrap_or_else(PoisonError::into_inner);
        for id in blocked.iter().map(|(id, _)| id).chain(&gone) {
            self.walked.remove(id);
        }
        Ok(blocked)
    }

    /// `false`: it is not there any more.
    fn commit(&self, repo: &Repository, id: &CommitId) -> Result<bool, Error> {
        let bytes = match repo.store().get(&id.key()) {
            Ok(bytes) => bytes,
            // Deleted since it was listed: it needs nothing any more.
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let keys = repo.secrets();
        let sealed = Sealed::parse(keys, id, &bytes)?;
        let root = sealed.manifest(keys)?;
        self.content(&root)?;
        for entry in read_manifest(&self.reader, &root)? {
            match entry.kind {
                EntryKind::Bytes => self.content(&entry.root)?,
                EntryKind::Tree => self.tree(&entry.root)?,
            }
        }
        Ok(true)
    }

    /// Notes that a chunk is needed; returns the position of its places.
    fn need(&self, id: &ChunkId) -> Result<usize, Error> {
        let places = self.index().places_of(id)?;
        let Some((at, _)) = places.first() else {
            return Err(Error::missing(format!("chunk {id}"), "no readable index segment names it"));
        };
        self.needed.insert(*at);
        Ok(*at)
    }

    /// Reads a node, of which the level is above 0.
    fn node(&self, root: &Root) -> Result<Bytes, Error> {
        if root.level > LEVEL_MAX {
            return Err(Error::damaged(format!("node {}", root.id), "it is above the highest level"));
        }
        let node = self.reader.chunk(&root.id)?;
        check_node(root.level - 1, &node, root.length)
            .map_err(|what| Error::damaged(format!("node {}", root.id), what))?;
        Ok(node)
    }

    /// A stream of bytes, which is not read.
    fn content(&self, root: &Root) -> Result<(), Error> {
        if root.length == 0 {
            return Ok(());
        }
        let at = self.need(&root.id)?;
        let seen = match root.level {
            0 => true,
            1 => {
                let seen = self.followed.contains(at);
                self.followed.insert(at);
                seen
            }
            level => !lock(&self.followed_above).insert((at as u32, level)),
        };
        if seen {
            return Ok(());
        }
        let node = self.node(root)?;
        node_refs(root.level - 1, &node).try_for_each(|child| match child.part_of {
            // All of the chunk stays, however little of it is used.
            Some(part) => self.need(&part.chunk).map(|_| ()),
            None => self.content(&child.root()),
        })
    }

    /// A stream of tree entries, and what they name.
    fn tree(&self, root: &Root) -> Result<(), Error> {
        if root.length == 0 || !lock(&self.trees).insert(*root) {
            return Ok(());
        }
        let mut parser = Parser { reach: self, rest: NO_REST, last: None, held: Vec::new() };
        self.leaves(root, &mut parser)?;
        parser.end(root)
    }

    fn leaves(&self, root: &Root, parser: &mut Parser<'_>) -> Result<(), Error> {
        let at = self.need(&root.id)?;
        if root.level == 0 {
            return parser.leaf(root, at as u32);
        }
        let node = self.node(root)?;
        node_refs(root.level - 1, &node).try_for_each(|child| match child {
            Ref { part_of: None, .. } => self.leaves(&child.root(), parser),
            Ref { id, .. } => {
                Err(Error::damaged(format!("tree leaf {id}"), "it is a part of a chunk; trees have none"))
            }
        })
    }

    fn entries(&self, bytes: &[u8], root: &Root) -> Result<usize, Error> {
        let mut position = 0;
        while let Some(rest) = bytes.get(position..).filter(|rest| !rest.is_empty()) {
            let mut decoder = Decoder::new(rest);
            let entry = match entry::decode_tree_entry(&mut decoder) {
                Ok(entry) => entry,
                Err(Broken::Short) if rest.len() <= ITEM_BYTES_MAX => break,
                Err(broken) => return Err(Error::damaged(format!("tree leaf {}", root.id), broken.what())),
            };
            position += decoder.position();
            if let NodeKind::File { content, .. } = &entry.kind {
                match content {
                    Content::Stream(root) => self.content(root)?,
                    Content::Extents(extents) => {
                        for extent in extents {
                            self.need(&extent.chunk)?;
                        }
                    }
                }
            }
        }
        Ok(position)
    }
}

/// Reads the entries of one tree, leaf by leaf.
struct Parser<'r> {
    reach: &'r Reach,
    /// Where the rest of the last entry begins; if it does not begin in the last leaf, it is held.
    rest: Rest,
    last: Option<Root>,
    held: Vec<u8>,
}

impl Parser<'_> {
    fn leaf(&mut self, leaf: &Root, at: u32) -> Result<(), Error> {
        let key = (self.rest, at);
        let known = match self.held.is_empty() {
            true => lock(&self.reach.leaves).get(&key).copied(),
            false => None,
        };
        if let Some(offset) = known {
            self.rest = Rest { leaf: at, offset };
            self.last = Some(*leaf);
            return Ok(());
        }
        let bytes = self.reach.reader.chunk(&leaf.id)?;
        if bytes.len() as u64 != leaf.length {
            let what = format!("{} bytes where {} were promised", bytes.len(), leaf.length);
            return Err(Error::damaged(format!("tree leaf {}", leaf.id), what));
        }
        let was_held = !self.held.is_empty();
        let mut whole = self.rest()?;
        whole.extend_from_slice(&bytes);
        let position = self.reach.entries(&whole, leaf)?;
        let left = whole.len() - position;
        self.last = Some(*leaf);
        match bytes.len().checked_sub(left) {
            Some(offset) => {
                self.rest = Rest { leaf: at, offset: offset as u32 };
                let mut leaves = lock(&self.reach.leaves);
                if !was_held && leaves.len() < self.reach.leaves_max {
                    leaves.insert(key, offset as u32);
                }
            }
            // An entry that spans leaves: rare, and not remembered.
            None => {
                whole.drain(..position);
                self.held = whole;
            }
        }
        Ok(())
    }

    /// What the last leaf left over.
    fn rest(&mut self) -> Result<Vec<u8>, Error> {
        if !self.held.is_empty() {
            return Ok(std::mem::take(&mut self.held));
        }
        match self.last {
            Some(leaf) if u64::from(self.rest.offset) < leaf.length => {
                let bytes = self.reach.reader.chunk(&leaf.id)?;
                Ok(bytes.get(self.rest.offset as usize..).unwrap_or_default().to_vec())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn end(mut self, root: &Root) -> Result<(), Error> {
        match self.rest()?.is_empty() {
            true => Ok(()),
            false => Err(Error::damaged(format!("tree {}", root.id), "it ends in the middle of an entry")),
        }
    }
}
