//! What this machine lends a repository: memory, and places for what need not be fetched or kept in memory.
//!
//! - **Memory** is one number ([`LocalOptions::memory_bytes`]), divided here and nowhere else (R6).
//! - **The cache** is a directory that keeps the index and the summaries of commits between runs. It is a
//!   convenience: it may be deleted at any time, copied, shared by processes, torn by a crash or changed by
//!   a stranger. All of it is sealed with keys of the repository, so what does not open is thrown away and
//!   fetched again. Nothing in it is ever flushed to disk for safety's sake for the same reason.
//! - **Temporary files** hold what grows with a repository where there is no cache. They have no name and are
//!   sealed like the cache.
//!
//! Without either, everything is in memory, which then grows with the repository.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use data_encoding::HEXLOWER;

use crate::env::Env;
use crate::error::Error;
use crate::id::RepositoryId;
use crate::index::blocks::Blocks;
use crate::index::run::Run;

/// What a repository may use of this machine.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Where caches of repositories lie, each in a directory named by the repository's id; made if absent.
    /// `None`: nothing is kept between runs.
    pub cache: Option<PathBuf>,
    /// Where temporary files may lie, for what the memory does not hold and no cache keeps.
    pub temporary: Option<PathBuf>,
    /// How many bytes of memory everything together may take, whatever the size of the repository.
    pub memory_bytes: usize,
}

/// The memory a repository may use unless somebody says otherwise.
pub const MEMORY_BYTES: usize = 512 << 20;

impl Default for LocalOptions {
    fn default() -> LocalOptions {
        LocalOptions { cache: None, temporary: None, memory_bytes: MEMORY_BYTES }
    }
}

/// How the memory is divided. What is in use at the same time (a backup: all but `build`, `check`
/// and `packs`) adds up to two thirds: threads, their stacks, the buffers of connections and what the allocator wastes live in the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Blocks of the index that were looked at last.
    pub blocks: usize,
    /// The filter in front of the index.
    pub filter: usize,
    /// Sorting and merging index segments, while an index is opened.
    pub build: usize,
    /// The chunks a write has stored and the index does not name yet.
    pub session: usize,
    /// What a check remembers of streams it has followed.
    pub check: usize,
    /// Packs a check reads at a time, each whole.
    pub packs: usize,
    /// What a writer has under way ([`crate::WriterOptions::memory_bytes`]).
    pub writer: usize,
    /// What a reader keeps ([`crate::ReaderOptions::memory_bytes`]).
    pub reader: usize,
    /// What a walk over files has to remember: names of a directory, files of several names.
    pub walk: usize,
}

impl Budget {
    /// The division of `memory` bytes.
    pub fn of(memory: usize) -> Budget {
        let part = memory / 32;
        Budget {
            blocks: 6 * part,
            filter: 3 * part,
            build: 6 * part,
            session: 4 * part,
            check: 4 * part,
            packs: 16 * part,
            writer: 6 * part,
            reader: 2 * part,
            walk: 4 * part,
        }
    }
}

/// Where something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spot {
    /// Under a name in the cache, once it is complete.
    Cache,
    /// In a file without a name.
    Temporary,
    /// In memory.
    Memory,
}

/// The options at work, and what all users of one repository in this process share.
pub(crate) struct Local {
    cache: Option<PathBuf>,
    temporary: Option<PathBuf>,
    pub(crate) budget: Budget,
    pub(crate) blocks: Blocks,
    /// Bytes of filters that may still be loaded.
    filter_left: AtomicUsize,
    /// The runs of the index that somebody has open.
    runs: Mutex<Vec<Weak<Run>>>,
    serial: AtomicU64,
    /// Names and salts. Never the repository's own dice: those belong to what is written into it.
    dice: Env,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("cache", &self.cache).field("budget", &self.budget).finish()
    }
}

impl Local {
    pub(crate) fn new(options: &LocalOptions, repository: RepositoryId) -> Local {
        let budget = Budget::of(options.memory_bytes);
        Local {
            cache: options.cache.as_ref().map(|base| base.join(repository.to_string())),
            temporary: options.temporary.clone(),
            budget,
            blocks: Blocks::new(budget.blocks),
            filter_left: AtomicUsize::new(budget.filter),
            runs: Mutex::default(),
            serial: AtomicU64::new(0),
            dice: Env::real(),
        }
    }

    /// Where to keep something, best first. The last always works.
    pub(crate) fn spots(&self) -> impl Iterator<Item = Spot> + use<> {
        let cache = self.cache.as_ref().map(|_| Spot::Cache);
        let temporary = self.temporary.as_ref().map(|_| Spot::Temporary);
        cache.into_iter().chain(temporary).chain([Spot::Memory])
    }

    /// The same for what is not worth keeping when the process ends.
    pub(crate) fn spots_for_now(&self) -> impl Iterator<Item = Spot> + use<> {
        self.spots().filter(|spot| *spot != Spot::Cache)
    }

    /// A number no other of this process has.
    pub(crate) fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn salt(&self) -> Result<[u8; 32], Error> {
        let mut salt = [0; 32];
        self.dice.random(&mut salt)?;
        Ok(salt)
    }

    /// Takes room for a part of a filter, if there is any left.
    pub(crate) fn take_filter(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.filter_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    pub(crate) fn give_filter(&self, bytes: usize) {
        self.filter_left.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The runs that are open in this process.
    pub(crate) fn open_runs(&self) -> Vec<Arc<Run>> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|run| run.strong_count() > 0);
        runs.iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn remember_run(&self, run: &Arc<Run>) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(run));
    }

    /// A part of the cache; `None` if there is no cache or it cannot be made.
    fn folder(&self, part: &str) -> Option<PathBuf> {
        let folder = self.cache.as_ref()?.join(part);
        match DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
            Ok(()) => Some(folder),
            Err(error) => {
                tracing::debug!(folder = %folder.display(), %error, "no cache there");
                None
            }
        }
    }

    /// The files of a part of the cache with this ending. What a crash left half written goes away.
    pub(crate) fn files(&self, part: &str, ending: &str) -> Vec<PathBuf> {
        let Some(listed) = self.cache.as_ref().and_then(|cache| std::fs::read_dir(cache.join(part)).ok())
        else {
            return Vec::new();
        };
        let mut files = Vec::new();
        for entry in listed.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with(UNFINISHED) {
                remove_if_abandoned(&path);
            } else if name.ends_with(ending) {
                files.push(path);
            }
        }
        files.sort();
        files
    }

    /// A new place to write to. Fails only if `spot` cannot be written.
    pub(crate) fn scratch(&self, spot: Spot, part: &str) -> io::Result<Scratch> {
        let folder = match spot {
            Spot::Memory => return Ok(Scratch { medium: Medium::Memory(Vec::new()), unfinished: None }),
            Spot::Temporary => self.temporary.clone(),
            Spot::Cache => self.folder(part),
        };
        let Some(folder) = folder else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        let path = folder.join(format!("{UNFINISHED}{}", self.name()?));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        if spot == Spot::Temporary {
            std::fs::remove_file(&path)?;
            return Ok(Scratch { medium: Medium::File(file), unfinished: None });
        }
        // Locked while it is written, so that nobody takes it for what a crash left. Where files cannot be
        // locked, somebody may, and then the file just loses its name.
        let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        Ok(Scratch { medium: Medium::File(file), unfinished: Some(path) })
    }

    fn name(&self) -> io::Result<String> {
        let mut name = [0; 16];
        self.dice.random(&mut name).map_err(io::Error::other)?;
        Ok(HEXLOWER.encode(&name))
    }

    /// Gives what was written its name in the cache. It is as good without one, for this process.
    pub(crate) fn publish(&self, scratch: &mut Scratch, ending: &str) -> Option<PathBuf> {
        let unfinished = scratch.unfinished.take()?;
        let published = unfinished.with_file_name(format!("{}{ending}", self.name().ok()?));
        match std::fs::rename(&unfinished, &published) {
            Ok(()) => Some(published),
            Err(error) => {
                tracing::debug!(path = %unfinished.display(), %error, "it is not kept in the cache");
                let _ = std::fs::remove_file(&unfinished);
                None
            }
        }
    }
}

/// How the names of files begin that are being written.
const UNFINISHED: &str = "tmp-";

fn remove_if_abandoned(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = std::fs::remove_file(path);
    }
}

/// Bytes that are written once and then read at any place: a file, or memory.
pub(crate) struct Scratch {
    medium: Medium,
    /// Its name while it is not complete. Removed with it.
    unfinished: Option<PathBuf>,
}

enum Medium {
    File(File),
    /// Pieces that grow to [`PIECE`] bytes: one long vector would take twice its size whenever it grows.
    Memory(Vec<Vec<u8>>),
}

const PIECE: usize = 1 << 20;

impl Scratch {
    /// What a file of the cache holds.
    pub(crate) fn open(path: &Path) -> io::Result<Scratch> {
        Ok(Scratch { medium: Medium::File(File::open(path)?), unfinished: None })
    }

    pub(crate) fn write_at(&mut self, mut bytes: &[u8], offset: u64) -> io::Result<()> {
        let pieces = match &mut self.medium {
            Medium::File(file) => return file.write_all_at(bytes, offset),
            Medium::Memory(pieces) => pieces,
        };
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        while !bytes.is_empty() {
            let take = (PIECE - at % PIECE).min(bytes.len());
            if pieces.len() <= at / PIECE {
                pieces.resize_with(at / PIECE + 1, Vec::new);
            }
            let piece = &mut pieces[at / PIECE];
            if piece.len() < at % PIECE + take {
                piece.resize(at % PIECE + take, 0);
            }
            piece[at % PIECE..at % PIECE + take].copy_from_slice(&bytes[..take]);
            (at, bytes) = (at + take, &bytes[take..]);
        }
        Ok(())
    }

    pub(crate) fn read_at(&self, mut out: &mut [u8], offset: u64) -> io::Result<()> {
        let pieces = match &self.medium {
            Medium::File(file) => return file.read_exact_at(out, offset),
            Medium::Memory(pieces) => pieces,
        };
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        while !out.is_empty() {
            let piece = pieces.get(at / PIECE).and_then(|piece| piece.get(at % PIECE..));
            let Some(piece) = piece.filter(|piece| !piece.is_empty()) else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            };
            let take = piece.len().min(out.len());
            out[..take].copy_from_slice(&piece[..take]);
            (at, out) = (at + take, &mut out[take..]);
        }
        Ok(())
    }

    /// Nothing more will be written.
    pub(crate) fn complete(&mut self) {
        if let Medium::Memory(pieces) = &mut self.medium {
            pieces.shrink_to_fit();
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = &self.unfinished {
            let _ = std::fs::remove_file(path);
        }
    }
}
