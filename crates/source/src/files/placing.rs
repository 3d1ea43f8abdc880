//! Placing: one thread makes directories, symlinks and the rest in the order of the tree, and hands files
//! to those who fill them.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;
use repo::{Content, NodeKind, TreeEntry};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::direct::Direct;
use super::error::Error;
use super::fill::{Large, Layout, Made, Move, Small, Work};
use super::place::{self, Descent, plain_name, split};
use super::restore::{Entries, Restored, Shared, Trouble};
use super::settle::{DEFAULT_ACL, handle};
use super::{SMALL, shown, sys};

/// How many files, and chunks of them, are filled by one thread at a time.
const BATCH_FILES: usize = 128;
const BATCH_CHUNKS: usize = 16;
/// How many bytes of a large file are one range.
const RANGE_BYTES: u64 = 2 * 1024 * 1024;

/// The second step: everything but hard links and the attributes of directories.
pub(super) struct Placing<'a, 's> {
    shared: &'a Shared<'s>,
    work: Sender<Work>,
    batch: Vec<Small>,
    batch_chunks: usize,
    /// Directories that could not be made.
    blocked: &'a mut BTreeSet<Vec<u8>>,
    done: &'a mut Restored,
}

impl<'a, 's> Placing<'a, 's> {
    /// `work` leads to the threads that fill files.
    pub fn new(
        shared: &'a Shared<'s>,
        work: Sender<Work>,
        blocked: &'a mut BTreeSet<Vec<u8>>,
        done: &'a mut Restored,
    ) -> Placing<'a, 's> {
        Placing { shared, work, batch: Vec::new(), batch_chunks: 0, blocked, done }
    }
}

impl Placing<'_, '_> {
    /// Places everything. What goes wrong is booked with what is shared.
    pub fn run(mut self, entries: Entries<'_>, target: Arc<OwnedFd>) {
        let outcome = self.place(entries, target);
        self.send_batch();
        if let Err(error) = outcome {
            self.shared.end(error);
        }
    }

    fn place(&mut self, entries: Entries<'_>, target: Arc<OwnedFd>) -> Result<(), Error> {
        let lost = |e| self.shared.fatal_error(e, "find the way back in");
        let mut descent = Descent::new(target.clone()).map_err(lost)?;
        let mut blocked: Option<Vec<u8>> = None;
        for entry in entries {
            let entry = entry?;
            if self.shared.stopped() {
                return Ok(());
            }
            if entry.path.is_empty() {
                // The target stands for it.
                drop_default_acl(&target);
                self.done.directories += 1;
                self.shared.progress.add(1, 0);
                continue;
            }
            if blocked.as_ref().is_some_and(|blocked| is_below(&entry.path, blocked)) {
                self.shared.tally.failed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (parent, name) = split(&entry.path);
            let refuse = |what: &str| Error::Refused { path: shown(&entry.path), what: what.into() };
            let name = plain_name(name).map_err(refuse)?;
            let lost = |e| self.shared.fatal_error(e, "find the way back in");
            let dir = descent.climb(parent, &mut |_| {}).map_err(lost)?;
            let Some(dir) = dir else {
                return Err(refuse("its parent is no directory of the tree"));
            };
            let path = entry.path.clone();
            match self.one(&dir, name, entry) {
                Ok(Some(fd)) => descent.enter(&path, fd).map_err(lost)?,
                Ok(None) => {}
                Err((what, trouble)) => {
                    self.shared.not_restored(&path, trouble);
                    if what == What::Directory {
                        self.blocked.insert(path.clone());
                        blocked = Some(path);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes one entry, or sees to it that it is made. A directory is returned, to go into.
    fn one(
        &mut self,
        dir: &Arc<OwnedFd>,
        name: CString,
        entry: TreeEntry,
    ) -> Result<Option<OwnedFd>, (What, Trouble)> {
        let shared = self.shared;
        let other = |trouble| (What::Other, trouble);
        match &entry.kind {
            NodeKind::Directory => {
                let fd = self.directory(dir, &name, &entry).map_err(|trouble| (What::Directory, trouble))?;
                self.done.directories += 1;
                shared.progress.add(1, 0);
                return Ok(Some(fd));
            }
            NodeKind::HardLink { .. } => return Ok(None),
            NodeKind::File { content, .. } => {
                let small = matches!(content, Content::Extents(_)) && content.length() <= SMALL;
                if small {
                    self.small(dir, name, entry)
                } else {
                    self.large(dir, name, entry).map_err(other)?
                }
                return Ok(None);
            }
            NodeKind::Symlink { target } => {
                shared
                    .make(dir, &name, |name| rustix::fs::symlinkat(target.as_slice(), dir, name))
                    .map_err(other)?;
                self.settle_made(dir, &name, FileType::Symlink, &entry).map_err(other)?;
                self.done.symlinks += 1;
            }
            special => {
                let (kind, (major, minor)) = match special {
                    NodeKind::CharDevice { major, minor } => (FileType::CharacterDevice, (*major, *minor)),
                    NodeKind::BlockDevice { major, minor } => (FileType::BlockDevice, (*major, *minor)),
                    NodeKind::Socket => (FileType::Socket, (0, 0)),
                    _ => (FileType::Fifo, (0, 0)),
                };
                let mode = Mode::RUSR | Mode::WUSR;
                let device = rustix::fs::makedev(major, minor);
                match shared.make(dir, &name, |name| rustix::fs::mknodat(dir, name, kind, mode, device)) {
                    Err(Trouble::Os(e @ Errno::PERM)) => {
                        let why = || format!("a device node cannot be made ({e})");
                        let advice = "run as root to restore device nodes";
                        shared.settle.shortfalls.add("device-not-made", &entry.path, why, advice);
                        shared.tally.failed.fetch_add(1, Ordering::Relaxed);
                        return Ok(None);
                    }
                    other_outcome => other_outcome.map_err(other)?,
                }
                self.settle_made(dir, &name, kind, &entry).map_err(other)?;
                self.done.others += 1;
            }
        }
        shared.progress.add(1, 0);
        Ok(None)
    }

    /// Settles what was just made and is not opened. Only something of its kind gets its attributes, not
    /// what somebody may have put in its place.
    fn settle_made(
        &self,
        dir: &Arc<OwnedFd>,
        name: &CString,
        kind: FileType,
        entry: &TreeEntry,
    ) -> Result<(), Trouble> {
        let made = handle(dir, name)?;
        if sys::stat_fd(&made)?.kind != kind {
            return Err(Trouble::Os(Errno::EXIST));
        }
        self.shared.settle.handle(&made, entry, kind != FileType::Symlink)?;
        Ok(())
    }

    fn directory(&self, dir: &Arc<OwnedFd>, name: &CString, entry: &TreeEntry) -> Result<OwnedFd, Trouble> {
        let shared = self.shared;
        match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            Ok(()) => return Ok(place::open_dir(dir, name)?),
            Err(Errno::EXIST) if shared.replace || entry.path == b"lost+found" => {}
            Err(e) => return Err(e.into()),
        }
        let fd = match place::open_dir(dir, name) {
            Err(Errno::NOTDIR | Errno::LOOP) if shared.replace => {
                // Not a directory, and the tree says it is one.
                rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
                rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
                place::open_dir(dir, name)?
            }
            other => other?,
        };
        // So that we may work in it even without being root; settling puts the mode right.
        let meta = sys::stat_fd(&fd)?;
        if meta.mode & 0o700 != 0o700 {
            let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(meta.mode | 0o700));
        }
        drop_default_acl(&fd);
        Ok(fd)
    }

    fn small(&mut self, dir: &Arc<OwnedFd>, name: CString, entry: TreeEntry) {
        let moves = moves_of_extents(&entry.kind);
        let shared_with_last = match (self.batch.last().and_then(|last| last.moves.last()), moves.first()) {
            (Some(last), Some(first)) => last.chunk == first.chunk,
            _ => true,
        };
        let full = self.batch_chunks >= BATCH_CHUNKS || self.batch.len() >= BATCH_FILES;
        if (full && !shared_with_last) || self.batch.len() >= 4 * BATCH_FILES {
            self.send_batch();
        }
        self.batch_chunks += moves.len() - usize::from(shared_with_last && !moves.is_empty());
        self.batch.push(Small { dir: dir.clone(), name, entry, moves });
    }

    fn send_batch(&mut self) {
        self.batch_chunks = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            // Nobody takes it only if all threads are gone, which they are not while we hold the sender.
            let _ = self.work.send(Work::Small(batch));
        }
    }

    fn large(&mut self, dir: &Arc<OwnedFd>, name: CString, entry: TreeEntry) -> Result<(), Trouble> {
        let shared = self.shared;
        let NodeKind::File { size, content, holes, .. } = &entry.kind else { return Ok(()) };
        let (size, content, holes) = (*size, content.clone(), holes.clone());
        let made = shared.create(dir, &name, true)?;
        let direct = self.prepare(dir, &made, &name, size, &holes);
        let direct = direct.inspect_err(|_| shared.discard(dir, &made, &name))?;
        let file = Arc::new(Large {
            dir: dir.clone(),
            name,
            made,
            direct,
            entry,
            open: AtomicUsize::new(1),
            failed: Mutex::new(None),
            writing: Mutex::new(()),
        });
        let done = self.hand_out(&file, &content, &holes);
        shared.range_done(&file, done);
        Ok(())
    }

    /// Gives a large file its size and, where that is worth it, the space of its data.
    fn prepare(
        &self,
        dir: &OwnedFd,
        made: &Made,
        name: &CStr,
        size: u64,
        holes: &[(u64, u64)],
    ) -> Result<Option<Direct>, Trouble> {
        rustix::fs::ftruncate(&made.fd, size)?;
        let starts = std::iter::once(0).chain(holes.iter().map(|(start, length)| start + length));
        let ends = holes.iter().map(|(start, _)| *start).chain(std::iter::once(size));
        let data = starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty());
        Ok(Direct::open(dir, made.partial.as_deref().unwrap_or(name), &made.fd, size, data)?)
    }

    fn hand_out(&self, file: &Arc<Large>, content: &Content, holes: &[(u64, u64)]) -> Result<(), Trouble> {
        let mut layout = Layout::new(holes);
        let (mut moves, mut bytes) = (Vec::new(), 0);
        let send = |moves: &mut Vec<Move>| {
            file.open.fetch_add(1, Ordering::AcqRel);
            self.work.send(Work::Range(file.clone(), std::mem::take(moves))).map_err(|_| Trouble::Stopped)
        };
        let root = match content {
            Content::Extents(extents) => {
                for extent in extents {
                    layout.place(extent.chunk, extent.offset, extent.length, &mut moves);
                }
                return send(&mut moves);
            }
            Content::Stream(root) => root,
        };
        for leaf in self.shared.reader.extents(root) {
            let leaf = leaf?;
            if self.shared.stopped() {
                return Err(Trouble::Stopped);
            }
            let extent = leaf.extent();
            let before = moves.len();
            layout.place(extent.chunk, extent.offset, extent.length, &mut moves);
            // One that a hole takes apart is verified with its chunk alone.
            if let (Some(_), [one]) = (leaf.part_of, &mut moves[before..]) {
                one.part = Some(leaf.id);
            }
            bytes += u64::from(leaf.length);
            if bytes >= RANGE_BYTES {
                send(&mut moves)?;
                bytes = 0;
            }
        }
        if moves.is_empty() { Ok(()) } else { send(&mut moves) }
    }
}

#[derive(PartialEq, Eq)]
enum What {
    Directory,
    Other,
}

/// Where the content of a small file goes.
fn moves_of_extents(kind: &NodeKind) -> Vec<Move> {
    let mut moves = Vec::new();
    if let NodeKind::File { content: Content::Extents(extents), holes, .. } = kind {
        let mut layout = Layout::new(holes);
        for extent in extents {
            layout.place(extent.chunk, extent.offset, extent.length, &mut moves);
        }
    }
    moves
}

pub(super) fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Nothing created from here on shall inherit an ACL. What the tree says of it is set when the directory
/// is settled.
fn drop_default_acl(dir: &OwnedFd) {
    // Absent, unknown to the file system, or not ours to change: then there is none to inherit, or the
    // mode of every file is compared after it is set anyway.
    let _ = rustix::fs::fremovexattr(dir, DEFAULT_ACL);
}

impl Shared<'_> {
    /// Makes something that is whole at once, in place of what is there if that is wanted.
    pub fn make(
        &self,
        dir: &Arc<OwnedFd>,
        name: &CString,
        mut make: impl FnMut(&CStr) -> Result<(), Errno>,
    ) -> Result<(), Trouble> {
        if !self.replace {
            return Ok(make(name)?);
        }
        let (partial, ()) = self.partials.make(make)?;
        self.rename(dir, &partial, name)
    }
}
