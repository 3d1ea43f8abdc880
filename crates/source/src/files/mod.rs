//! A file tree as the content of a volume.
//!
//! [`backup`] walks a directory and writes it into a repository as a tree stream
//! (`docs/formats/repository.md`, Trees); [`restore`] writes such a tree back. Both hold everything a
//! volume holds: modes, owners, nanosecond times, symlinks, hard links, holes, extended attributes and
//! ACLs, FIFOs, sockets and device nodes, under names of any bytes.
//!
//! ```text
//! walk ─► read (several threads, a batch of names each) ─► lay (in order again) ─► repo::Writer
//!   ▲                                                        small files end to end, cut as one
//!   └── the previous tree, merged: what is unchanged is taken over without being opened
//!
//! repo::Reader ─► plan (refuses what is hostile) ─► place ─► fill (several threads) ─► settle
//! ```
//!
//! What is promised:
//! - **One bad file does not end a backup.** What vanished, changed or could not be read is a finding;
//!   only the root itself is worth an error.
//! - **Nothing is missed.** A file is taken over unread only if its change time proves that it is what it
//!   was ([`previous`]).
//! - **A restore never leaves its target.** It moves by descriptors, one name at a time, and follows no
//!   symlink, so the tree need not be trusted, and neither need those who can write into the target.
//! - **What was written is what was stored.** Every range is read back and compared, every status looked
//!   at again; a file with a damaged chunk does not stay under its name.
//! - **Memory is bounded** by the number of threads, not by the tree.

mod before;
mod cold;
mod cut;
mod direct;
mod error;
mod fill;
mod findings;
mod finish;
mod lay;
mod links;
mod mirror;
mod names;
mod place;
mod placing;
mod plan;
mod pool;
mod previous;
mod read;
mod restore;
mod select;
mod settle;
mod sys;
mod walk;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::bounded;
use repo::{Cancel, Finding, Outcome, Progress, Root, Timestamp, TreeEntry, Writer};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

pub use error::Error;
pub use restore::{Existing, Ownership, RestoreOptions, Restored, plan_mirror, restore};

/// The tree of the backup before, to recognise what has not changed.
#[derive(Clone, Copy)]
pub struct Parent<'a> {
    /// Reads the repository the tree is in.
    pub reader: &'a repo::Reader,
    /// The tree.
    pub root: Root,
    /// When that backup began (`Summary::started`): files changed around then or later are read.
    pub started: Timestamp,
}

/// How to back up.
#[derive(Clone, Default)]
pub struct BackupOptions<'a> {
    /// The backup before, if there is one and it can be read.
    pub parent: Option<Parent<'a>>,
    /// Leave out what is mounted below the root.
    pub one_file_system: bool,
    /// The stop button.
    pub cancel: Cancel,
    /// Threads that read files; 0: one for each processor, from 4 to 8.
    pub threads: usize,
}

/// A tree that has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeBackup {
    /// For a manifest entry of kind `Tree`.
    pub root: Root,
    /// `files`, `directories`, `symlinks`, `hardlinks`, `others`; `bytes` (sizes added up, holes
    /// included, a hard-linked file once); `files_unchanged` (taken over unread), `files_read`,
    /// `bytes_read`.
    pub figures: BTreeMap<String, u64>,
}

/// Files of at most this many bytes share chunks with their neighbours.
const SMALL: u64 = 96 * 1024;

/// [`SMALL`], or less if the chunks of the repository are so small that such a file could lie in more of
/// them than an entry lists: all of its bytes, but for the ends, are cut into chunks of at least the smallest.
fn small(sizes: repo::ChunkBytes) -> u64 {
    SMALL.min(u64::from(sizes.min) * (repo::object::EXTENTS_MAX as u64 - 1))
}

/// Backs up the tree at `root`: a directory, or one regular file (a disk image, say), which becomes a
/// tree of that one file.
pub fn backup(
    root: &Path,
    writer: &Writer,
    options: &BackupOptions<'_>,
    progress: &dyn Progress,
) -> Result<Outcome<TreeBackup>, Error> {
    let unreadable = |e: Errno| Error::Root { path: root.to_path_buf(), source: e.into() };
    // The root itself may be given as a symlink: whoever names it means what it points to.
    let fd = rustix::fs::open(root, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .map_err(unreadable)?;
    let meta = sys::stat_fd(&fd).map_err(unreadable)?;
    let single = match meta.kind {
        FileType::Directory => None,
        FileType::RegularFile => Some(
            std::fs::canonicalize(root).map_err(|source| Error::Root { path: root.to_path_buf(), source })?,
        ),
        _ => return Err(Error::RootKind { path: root.to_path_buf() }),
    };

    let threads = threads(options.threads);
    let (jobs, jobs_out) = bounded(threads);
    let (steps, steps_out) = bounded(2 * threads + 2);
    let readers = read::Readers {
        writer,
        parent: options.parent.as_ref(),
        pool: pool::Pool::default(),
        cancel: &options.cancel,
        small: small(writer.chunker().sizes()),
        ahead: std::sync::Mutex::new(()),
    };
    let walk = walk::Walk {
        jobs,
        steps,
        previous: previous::Previous::new(options.parent.as_ref()),
        one_file_system: options.one_file_system,
        cancel: &options.cancel,
        batch: walk::Batch::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (readers, jobs) = (&readers, jobs_out.clone());
            scope.spawn(move || readers.serve(&jobs));
        }
        // The readers alone hold the queue, so that the walk ends when they have.
        drop(jobs_out);
        scope.spawn(move || match single {
            None => walk.run(fd),
            Some(file) => walk.run_single(fd, &meta, &file),
        });
        // `steps_out` goes down with the call, which is how the others learn of a failure.
        lay::Lay::new(&readers, progress).run(steps_out)
    })
}

/// How many threads to use: what was asked for, or the processors there are. At least four, because they
/// wait for disks and networks more than they compute.
fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(4, |n| n.get().clamp(4, 8)),
        n => n,
    }
}

/// The other side is gone or the stop button was pressed; whoever ended it knows why.
#[derive(Debug)]
struct Stop;

/// What the walk and the readers find, before it is an entry of the tree.
enum Item {
    /// Complete but for the content of a small file: the next `run` bytes that are laid.
    Entry {
        entry: TreeEntry,
        run: usize,
        reused: bool,
    },
    /// A file of several names; whether this is its first is not known yet.
    Linked(Box<Linked>),
    Finding(Finding),
}

struct Linked {
    dir: Arc<OwnedFd>,
    name: CString,
    path: Vec<u8>,
    meta: sys::Meta,
    previous: Option<TreeEntry>,
}

/// A path as it is shown to people.
fn shown(path: &[u8]) -> String {
    if path.is_empty() { ".".into() } else { String::from_utf8_lossy(path).into_owned() }
}

fn vanished_or_unreadable(path: &[u8], e: Errno) -> Finding {
    match e {
        Errno::NOENT | Errno::STALE => Finding::warning(
            "vanished",
            shown(path),
            "it was listed and gone before it could be read; it is not in this backup",
        ),
        // A file became a symlink or a directory something else between listing and opening.
        Errno::LOOP | Errno::NOTDIR => Finding::warning(
            "changed-while-read",
            shown(path),
            "something else took its place while it was read; it is not in this backup",
        ),
        e => Finding::error(
            "unreadable",
            shown(path),
            format!("it cannot be read ({e}) and is not in this backup; check permissions and the disk"),
        ),
    }
}

/// Attributes for an entry, and what is to be said of those that are missing.
fn attributes(
    path: &[u8],
    read: Result<sys::Xattrs, Errno>,
) -> (BTreeMap<Vec<u8>, Vec<u8>>, Option<Finding>) {
    let finding = |what: String| {
        Finding::warning("attributes-unreadable", shown(path), format!("{what}; they are not in this backup"))
    };
    match read {
        Ok((xattrs, unreadable)) if unreadable.is_empty() => (xattrs, None),
        Ok((xattrs, unreadable)) => {
            let names: Vec<_> = unreadable.iter().map(|name| shown(name)).collect();
            let what = format!("extended attributes cannot be read: {}", names.join(", "));
            (xattrs, Some(finding(what)))
        }
        // Gone meanwhile, or no /proc to reach them by: the entry itself is known.
        Err(e) => (BTreeMap::new(), Some(finding(format!("extended attributes cannot be read ({e})")))),
    }
}
