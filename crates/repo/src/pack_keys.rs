//! Keys of packs: what lets somebody who has a put key read certain packs, and nothing else.
//!
//! Chunks are sealed to the read key, which a node must not have (R5). But each pack has a key of its own
//! (`crypto/pack.rs`), and a reader needs no more than that, the put key and the index. So keys of packs are what is
//! handed around:
//!
//! - A **writer** knows those of the packs it writes ([`WriterOptions::remember`](crate::WriterOptions)); they are kept on the
//!   disk of the node ([`PackKeys::seal`]), and open what was on that node's own disks.
//! - Whoever has the **read key** makes those of the packs that some streams lie in ([`Repository::pack_keys`]), as a
//!   walk that hands them out as it goes.
//! - A **reader** takes them in ([`ReaderOptions::pack_keys`](crate::ReaderOptions)), all at the beginning, or while it
//!   reads ([`PackKeys::awaited`]): then one that lacks a key waits for it, until no more come.
//!
//! A key opens all of its pack, also what others share of it. A reader says which key it lacks ([`Error::KeyMissing`]), and
//! whoever has the read key can make it. In memory a key costs about 100 bytes, 6 MiB for a TiB.
//!
//! **A node must be able to read its own trees again.** Most of a new tree is that of before, in packs that somebody else may
//! have written: another node, or a collection that copied what was still needed. Their keys the node has not; and as what
//! is there is not stored again, it never would. So a writer that is told what is known
//! ([`WriterOptions::known`](crate::WriterOptions)) stores trees and nodes once more that lie elsewhere: a thousandth of the
//! volume, once. Content it does not; a page that was overwritten then costs its chunk.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::crypto::{PACK_HEADER_LEN, PackKey};
use crate::env::Cancel;
use crate::error::Error;
use crate::id::{ChunkId, PackId};
use crate::index::PackSet;
use crate::monitor::{Finding, Outcome};
use crate::node::{check_node, node_refs};
use crate::object::{Content, EntryKind, LEVEL_MAX, NodeKind, Root};
use crate::pack::{Lane, check_header};
use crate::reader::{Reader, ReaderOptions};
use crate::repo::Repository;
use crate::store::StoreError;

/// Of which of its packs a writer remembers the keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Remember {
    /// Of none: whoever reads has the read key.
    #[default]
    Nothing,
    /// Of those with trees and nodes: the next backup finds what is unchanged.
    Trees,
    /// Of those with content, too: the next backup compares old bytes.
    All,
}

impl Remember {
    pub(crate) fn covers(self, lane: Lane) -> bool {
        match self {
            Remember::Nothing => false,
            Remember::Trees => lane == Lane::Meta,
            Remember::All => true,
        }
    }
}

/// How long a waiting reader sleeps before it looks at the stop button again.
const NAP: Duration = Duration::from_millis(50);
/// So many headers of packs are fetched together.
const BATCH: usize = 32;
/// A key is not held back for longer than so many chunks are looked at.
const LATEST: usize = 10_000;

const MAGIC: &[u8; 8] = b"HFPKEY01";
const SALT_LEN: usize = 32;

/// Keys of packs. Clones are the same set: what one takes in the others have.
#[derive(Clone)]
pub struct PackKeys(Arc<Shared>);

struct Shared {
    held: Mutex<Held>,
    changed: Condvar,
    patience: Duration,
}

struct Held {
    keys: HashMap<PackId, PackKey>,
    /// Nothing more will come.
    ended: bool,
    /// Counts signs of life of whoever gives.
    signs: u64,
}

impl Default for PackKeys {
    fn default() -> PackKeys {
        PackKeys::new()
    }
}

impl fmt::Debug for PackKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackKeys({})", self.len())
    }
}

impl PackKeys {
    /// Bytes of one in a list: the pack, the key.
    pub const LINE_LEN: usize = PackId::LEN + 32;

    /// None yet. A reader that lacks one does not wait for it.
    pub fn new() -> PackKeys {
        PackKeys::with(true, Duration::ZERO)
    }

    /// None yet, and more will come while they are used: a reader that lacks one waits, until [`PackKeys::end`], or until
    /// whoever gives has not been heard of for so long.
    pub fn awaited(patience: Duration) -> PackKeys {
        PackKeys::with(false, patience)
    }

    fn with(ended: bool, patience: Duration) -> PackKeys {
        let held = Mutex::new(Held { keys: HashMap::new(), ended, signs: 0 });
        PackKeys(Arc::new(Shared { held, changed: Condvar::new(), patience }))
    }

    // Whole at every moment: each change is one insertion or one assignment.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in; in place of another, if there is one of this pack.
    pub fn give(&self, pack: PackId, key: PackKey) {
        let mut held = self.held();
        held.keys.insert(pack, key);
        held.signs += 1;
        drop(held);
        self.0.changed.notify_all();
    }

    /// Takes a list in, as [`PackKeys::to_bytes`] makes it. An empty one says that more are to come, and waiting goes on.
    pub fn give_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let (lines, rest) = bytes.as_chunks::<{ PackKeys::LINE_LEN }>();
        if !rest.is_empty() {
            let (length, line) = (bytes.len(), PackKeys::LINE_LEN);
            return Err(Error::invalid(format!(
                "a list of pack keys of {length} bytes, which is no multiple of {line}"
            )));
        }
        let mut held = self.held();
        for line in lines {
            if let Some((pack, key)) = line.split_first_chunk::<32>()
                && let Some(key) = key.first_chunk::<32>()
            {
                held.keys.insert(PackId(*pack), PackKey::from_bytes(key));
            }
        }
        held.signs += 1;
        drop(held);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Says that nothing more will come: whoever waits is told.
    pub fn end(&self) {
        self.held().ended = true;
        self.0.changed.notify_all();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held().keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is one of this pack.
    pub fn has(&self, pack: &PackId) -> bool {
        self.held().keys.contains_key(pack)
    }

    /// Lets go of those of packs that `keep` says no to.
    pub fn retain(&self, mut keep: impl FnMut(&PackId) -> bool) {
        self.held().keys.retain(|pack, _| keep(pack));
    }

    /// All of them as a list, 64 bytes each, by the names of the packs. Whoever has it reads these packs.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let held = self.held();
        let mut packs: Vec<&PackId> = held.keys.keys().collect();
        packs.sort_unstable();
        // As long as it gets, so that no copy is left behind by a reallocation.
        let mut bytes = Zeroizing::new(Vec::with_capacity(packs.len() * PackKeys::LINE_LEN));
        for pack in packs {
            if let Some(key) = held.keys.get(pack) {
                bytes.extend_from_slice(pack.as_bytes());
                bytes.extend_from_slice(key.as_bytes());
            }
        }
        bytes
    }

    /// All of them sealed, to be kept on this machine's own disk: who has the put or the read key of the repository opens
    /// them again.
    pub fn seal(&self, repo: &Repository) -> Result<Vec<u8>, Error> {
        let mut salt = [0; SALT_LEN];
        repo.env().random(&mut salt)?;
        let plain = self.to_bytes();
        // Sealed where it lies: with room for the tag no copy of the keys is left behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(plain.len() + 16));
        sealed.extend_from_slice(&plain);
        repo.secrets().kept_pack_keys(&salt)?.seal(0, 0, &mut sealed)?;
        Ok([MAGIC.as_slice(), &salt, &sealed].concat())
    }

    /// Opens what [`PackKeys::seal`] made. A disk may lie: what was changed is refused.
    pub fn unseal(repo: &Repository, bytes: &[u8]) -> Result<PackKeys, Error> {
        let refused = || {
            Error::invalid(
                "the kept pack keys were changed, or are of another repository; remove them: the next backup reads all it backs up",
            )
        };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(refused)?;
        let (salt, sealed) = rest.split_first_chunk::<SALT_LEN>().ok_or_else(refused)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        if !repo.secrets().kept_pack_keys(salt)?.open(0, 0, &mut opened) {
            return Err(refused());
        }
        let keys = PackKeys::new();
        keys.give_bytes(&opened)?;
        Ok(keys)
    }

    /// The key of a pack, waited for if more are to come.
    pub(crate) fn find(&self, pack: &PackId, cancel: &Cancel) -> Result<PackKey, Error> {
        let mut held = self.held();
        let (mut since, mut signs) = (Instant::now(), held.signs);
        loop {
            if let Some(key) = held.keys.get(pack) {
                return Ok(key.clone());
            }
            let missing = |why: String| Error::KeyMissing { pack: *pack, why };
            if held.ended {
                return Err(missing("it was not handed in".into()));
            }
            cancel.check()?;
            if held.signs != signs {
                (since, signs) = (Instant::now(), held.signs);
            }
            let Some(left) = self.0.patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
            else {
                let seconds = self.0.patience.as_secs();
                return Err(missing(format!("no key has come for {seconds} seconds")));
            };
            let woken = self.0.changed.wait_timeout(held, left.min(NAP));
            held = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Repository {
    /// Hands out the key of every pack that is needed to read these streams, each once, about in the order in which a
    /// reader needs them. Without `content`: to read the entries of trees, and of what they name the nodes (what a
    /// backup upon them reads); with it all. Of a chunk that lies in several packs, all are handed out: a reader takes any.
    ///
    /// Reads trees and nodes, not content, and keeps one bit for each pack of the index (R6). What cannot be read is a
    /// finding. Returns how many keys there were. Needs the read key.
    pub fn pack_keys(
        &self,
        streams: &[(EntryKind, Root)],
        content: bool,
        cancel: &Cancel,
        each: &mut dyn FnMut(PackId, PackKey) -> Result<(), Error>,
    ) -> Result<Outcome<u64>, Error> {
        let reader = self.reader(ReaderOptions { cancel: cancel.clone(), ..ReaderOptions::default() })?;
        let mut walk = Walk {
            repo: self,
            reader: &reader,
            seen: PackSet::of(reader.index()),
            waiting: Vec::with_capacity(BATCH),
            looked: 0,
            cancel,
            each,
            outcome: Outcome::clean(0),
        };
        for (kind, root) in streams {
            match kind {
                EntryKind::Bytes => walk.stream(root, content)?,
                EntryKind::Tree => walk.tree(root, content)?,
            }
            walk.flush()?;
        }
        Ok(walk.outcome)
    }
}

/// Follows streams to the packs they lie in.
struct Walk<'w> {
    repo: &'w Repository,
    reader: &'w Reader,
    /// Packs whose keys were handed out, or wait for it.
    seen: PackSet,
    waiting: Vec<u32>,
    /// Chunks that were looked at since keys were last handed out.
    looked: usize,
    cancel: &'w Cancel,
    each: &'w mut dyn FnMut(PackId, PackKey) -> Result<(), Error>,
    outcome: Outcome<u64>,
}

impl Walk<'_> {
    fn tree(&mut self, root: &Root, content: bool) -> Result<(), Error> {
        // First all of the tree's own packs, which are few: whoever reads it reads ahead in it.
        self.stream(root, true)?;
        self.flush()?;
        let reader = self.reader;
        for entry in reader.tree(root) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.found(&format!("tree {}", root.id), error),
            };
            let NodeKind::File { content: of, .. } = entry.kind else { continue };
            match of {
                Content::Stream(root) => self.stream(&root, content)?,
                Content::Extents(extents) if content => {
                    extents.iter().try_for_each(|extent| self.need(&extent.chunk))?;
                }
                Content::Extents(_) => {}
            }
        }
        Ok(())
    }

    /// The nodes of a stream, and its leaves.
    fn stream(&mut self, root: &Root, leaves: bool) -> Result<(), Error> {
        if root.length == 0 || (root.level == 0 && !leaves) {
            return Ok(());
        }
        self.need(&root.id)?;
        let Some(level) = root.level.checked_sub(1) else { return Ok(()) };
        let name = format!("node {}", root.id);
        if root.level > LEVEL_MAX {
            return self.found(&name, Error::damaged(&name, "it is above the highest level"));
        }
        let node = match self.reader.chunk(&root.id) {
            Ok(node) => node,
            Err(error) => return self.found(&name, error),
        };
        if let Err(what) = check_node(level, &node, root.length) {
            return self.found(&name, Error::damaged(&name, what));
        }
        for child in node_refs(level, &node) {
            match child.level {
                0 if leaves => self.need(&child.chunk())?,
                0 => {}
                _ => self.stream(&child.root(), leaves)?,
            }
        }
        Ok(())
    }

    /// Notes something that cannot be read; a reader will meet it again and say which files it touches.
    fn found(&mut self, what: &str, error: Error) -> Result<(), Error> {
        if !error.is_damage() {
            return Err(error);
        }
        self.outcome.findings.push(Finding::error("not-followed", what, error.to_string()));
        Ok(())
    }

    fn need(&mut self, chunk: &ChunkId) -> Result<(), Error> {
        self.cancel.check()?;
        for (_, place) in self.reader.index().places_of(chunk)? {
            if !self.seen.contains(place.pack) {
                self.seen.insert(place.pack);
                self.waiting.push(place.pack);
            }
        }
        self.looked += 1;
        if self.waiting.len() >= BATCH || self.looked >= LATEST { self.flush() } else { Ok(()) }
    }

    /// Hands out the keys of what waits. Over a network the latency of each header is what counts.
    fn flush(&mut self) -> Result<(), Error> {
        self.looked = 0;
        let packs: Vec<PackId> = std::mem::take(&mut self.waiting)
            .into_iter()
            .filter_map(|number| self.reader.index().pack(number).map(|(pack, _)| pack))
            .collect();
        let repo = self.repo;
        let made: Vec<(PackId, Result<PackKey, Error>)> = std::thread::scope(|scope| {
            let parts = packs.chunks(packs.len().div_ceil(repo.fetchers()).max(1));
            let threads: Vec<_> = parts
                .map(|part| {
                    scope.spawn(move || {
                        part.iter().map(|pack| (*pack, key_of(repo, pack))).collect::<Vec<_>>()
                    })
                })
                .collect();
            let lost = |_| vec![(PackId::ZERO, Err(Error::failed("a thread that makes pack keys panicked")))];
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(lost)).collect()
        });
        for (pack, key) in made {
            match key {
                Ok(key) => {
                    self.outcome.done += 1;
                    (self.each)(pack, key)?;
                }
                // Another place of the chunk may serve; and where segments are locked, some name packs that were removed.
                Err(error) if error.is_damage() => {
                    let finding = Finding::warning("pack-key-not-made", pack.key(), error.to_string());
                    self.outcome.findings.push(finding);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The key of one pack, from its header.
fn key_of(repo: &Repository, pack: &PackId) -> Result<PackKey, Error> {
    let key = pack.key();
    let bytes = repo.store().get_range(&key, 0, PACK_HEADER_LEN).map_err(|error| match error {
        StoreError::NotFound { .. } => Error::missing(&key, "the index promises chunks in this pack"),
        error => error.into(),
    })?;
    let damaged = |what: String| Error::damaged(&key, what);
    let header = bytes.as_ref().try_into().map_err(|_| damaged("it is too short for a pack".into()))?;
    check_header(header).map_err(damaged)?;
    // Only a forged public key is refused.
    repo.secrets().pack_key(header).map_err(|error| match error {
        Error::Failed { what } => damaged(what),
        error => error,
    })
}

#[cfg(test)]
mod tests;
