//! The walk: directories in the order of the format, their files in batches for the readers.
//!
//! One thread walks. It holds the names of the directories on the way down and nothing else, so memory
//! does not grow with the tree. It moves from directory to directory by open descriptors, one name at a
//! time, so paths may be longer than PATH_MAX and no symlink is ever followed; of a deep chain only the
//! last [`OPEN_MAX`] directories stay open, the others are found again by `..` and recognised by their
//! device and inode number.
//!
//! The tree of the previous backup has the same order, so it is read alongside like the other half of a
//! merge: every name travels to its reader together with what was known of it last time.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use repo::{Cancel, Finding, NodeKind};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::names::Names;
use super::previous::Previous;
use super::read::{Job, Name, Part, Work, entry};
use super::sys::{self, Meta};
use super::{Item, Stop, shown, vanished_or_unreadable};

/// How many directories of one chain stay open.
const OPEN_MAX: usize = 64;
/// How many names go to a reader at once: enough to make handing over cheap, few enough that all readers have work.
const BATCH: usize = 256;
/// And of how many directories at most: each is open as long as it waits.
const BATCH_DIRECTORIES: usize = 16;
/// How many parts of one batch may wait to be laid into the tree.
const PARTS: usize = 64;

/// What the walk hands to the one who writes the tree, in order.
pub(super) enum Step {
    /// The parts of a batch, as a reader makes them.
    Batch(Receiver<Part>),
    /// The walk is complete. One that ends without this was cut short.
    End,
}

pub(super) struct Walk<'a> {
    pub jobs: Sender<Job>,
    pub steps: Sender<Step>,
    pub previous: Previous<'a>,
    pub one_file_system: bool,
    pub cancel: &'a Cancel,
    /// The batch that is being filled.
    pub batch: Batch,
}

/// What goes to a reader together.
#[derive(Default)]
pub(super) struct Batch {
    work: Vec<Work>,
    names: usize,
    directories: usize,
}

struct Frame {
    /// `None` while the directory is closed to save descriptors.
    fd: Option<Arc<OwnedFd>>,
    id: ((u32, u32), u64),
    /// Length of the directory's path inside `Walk::run`'s path buffer.
    path_len: usize,
    /// Names yet to come, last one first.
    names: Names,
}

impl Walk<'_> {
    /// Walks everything below `root`. Returns early only if the other side is gone or the stop button
    /// was pressed, in which case the other side knows better why.
    pub fn run(mut self, root: OwnedFd) -> Result<(), Stop> {
        let meta = match sys::stat_fd(&root) {
            Ok(meta) => meta,
            Err(e) => return self.found(vanished_or_unreadable(b"", e)),
        };
        let device = meta.dev;
        let mut path = Vec::new();
        self.enter(&root, c"", &path, &meta)?;
        let mut frames = vec![self.frame(root, &meta, &path)?];
        let mut names: Vec<Name> = Vec::new();

        while let Some(frame) = frames.last_mut() {
            let Some((name, kind)) = frame.names.pop() else {
                self.send(frame, &path, &mut names)?;
                self.leave(&mut frames, &mut path)?;
                continue;
            };
            // The last directory is always open; were it not, the walk would end here and not be complete.
            let fd = frame.fd.clone().ok_or(Stop)?;
            let parent_len = path.len();
            if parent_len > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            if path.len() > PATH_BYTES_MAX {
                let what = shown(&path[..parent_len]);
                path.truncate(parent_len);
                self.found(Finding::error(
                    "path-too-long",
                    what,
                    "a name below is beyond 1 MiB of path and is left out",
                ))?;
                continue;
            }

            // Some file systems do not say in the listing what an entry is.
            let mut known = None;
            let mut kind = kind;
            if kind == FileType::Unknown || kind == FileType::Directory {
                match sys::stat_at(&fd, &name) {
                    Ok(meta) => {
                        kind = meta.kind;
                        known = Some(meta);
                    }
                    Err(e) => {
                        self.send(frame, &path[..parent_len], &mut names)?;
                        self.found(vanished_or_unreadable(&path, e))?;
                        path.truncate(parent_len);
                        continue;
                    }
                }
            }
            let Some(meta) = known.filter(|_| kind == FileType::Directory) else {
                let previous = self.previous.take(&path);
                path.truncate(parent_len);
                names.push(Name { name, kind, previous });
                if names.len() >= BATCH {
                    self.send(frame, &path, &mut names)?;
                }
                continue;
            };

            self.send(frame, &path[..parent_len], &mut names)?;
            if self.cancel.is_cancelled() {
                return Err(Stop);
            }
            self.previous.take(&path);
            if self.one_file_system && meta.dev != device {
                self.enter(&fd, &name, &path, &meta)?;
                self.found(Finding::note(
                    "other-file-system",
                    shown(&path),
                    "another file system is mounted here; its content is left out, as asked",
                ))?;
                path.truncate(parent_len);
                continue;
            }
            match sys::open_dir(&fd, &name).and_then(|fd| Ok((sys::stat_fd(&fd)?, fd))) {
                Ok((meta, child)) => {
                    self.enter(&child, c"", &path, &meta)?;
                    let deeper = self.frame(child, &meta, &path)?;
                    frames.push(deeper);
                    if let Some(far) = frames.len().checked_sub(OPEN_MAX + 1) {
                        frames[far].fd = None;
                    }
                }
                Err(e) => {
                    // What it is can still be kept; what it holds cannot.
                    if e != Errno::NOENT {
                        self.enter(&fd, &name, &path, &meta)?;
                    }
                    self.found(vanished_or_unreadable(&path, e))?;
                    path.truncate(parent_len);
                }
            }
        }
        if let Some(finding) = self.previous.trouble() {
            self.found(finding)?;
        }
        self.end()
    }

    /// A tree of one file, for a root that is one: a directory of our making, and the file in it.
    pub fn run_single(mut self, file: OwnedFd, meta: &Meta, root: &Path) -> Result<(), Stop> {
        let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else { return Err(Stop) };
        drop(file);
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let name = CString::new(name.as_bytes()).map_err(|_| Stop)?;
        let dir = match rustix::fs::open(parent, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(e) => return self.found(vanished_or_unreadable(name.as_bytes(), e)),
        };
        // It belongs to whom the file belongs to, and others may enter it as they may read the file.
        let meta = Meta { mode: 0o700 | (meta.mode & 0o444) | (meta.mode & 0o044) >> 2, ..*meta };
        self.step(Item::Entry {
            entry: entry(Vec::new(), NodeKind::Directory, &meta, BTreeMap::new()),
            run: 0,
            reused: false,
        })?;
        self.previous.take(b"");
        let previous = self.previous.take(name.as_bytes());
        let mut names = vec![Name { name, kind: FileType::RegularFile, previous }];
        let frame =
            Frame { fd: Some(Arc::new(dir)), id: (meta.dev, meta.ino), path_len: 0, names: Names::default() };
        self.send(&frame, b"", &mut names)?;
        self.end()
    }

    /// Goes back to the parent of the last frame, opening it again if it was closed on the way down.
    fn leave(&mut self, frames: &mut Vec<Frame>, path: &mut Vec<u8>) -> Result<(), Stop> {
        let Some(done) = frames.pop() else { return Ok(()) };
        let Some(parent) = frames.last_mut() else { return Ok(()) };
        if parent.fd.is_none() {
            let again = match &done.fd {
                Some(fd) => sys::open_dir(fd, c"..").and_then(|fd| Ok((sys::stat_fd(&fd)?, fd))),
                None => Err(Errno::BADF),
            };
            match again {
                Ok((meta, fd)) if (meta.dev, meta.ino) == parent.id => parent.fd = Some(Arc::new(fd)),
                _ => {
                    parent.names.clear();
                    let what = shown(&path[..parent.path_len]);
                    path.truncate(parent.path_len);
                    return self.found(Finding::error(
                        "changed-while-read",
                        what,
                        "the directory was moved while it was read; the rest of it is left out",
                    ));
                }
            }
        }
        path.truncate(parent.path_len);
        Ok(())
    }

    /// Puts a directory itself into the tree. `name` is empty when `fd` is the directory.
    fn enter(&mut self, fd: impl AsFd, name: &CStr, path: &[u8], meta: &Meta) -> Result<(), Stop> {
        let attributes = if name.is_empty() { sys::xattrs_fd(fd) } else { sys::xattrs_at(fd, name) };
        let (xattrs, finding) = super::attributes(path, attributes);
        if let Some(finding) = finding {
            self.found(finding)?;
        }
        self.step(Item::Entry {
            entry: entry(path.to_vec(), NodeKind::Directory, meta, xattrs),
            run: 0,
            reused: false,
        })
    }

    /// Reads the names of a directory.
    fn frame(&mut self, fd: OwnedFd, meta: &Meta, path: &[u8]) -> Result<Frame, Stop> {
        let (names, outcome) = Names::read(&fd);
        if let Err(e) = outcome {
            let message =
                format!("its names cannot all be read ({e}); what is missing is not in this backup");
            self.found(Finding::error("unreadable", shown(path), message))?;
        }
        Ok(Frame { fd: Some(Arc::new(fd)), id: (meta.dev, meta.ino), path_len: path.len(), names })
    }

    /// Adds names of a directory to the batch, and hands the batch on when it is full.
    fn send(&mut self, frame: &Frame, path: &[u8], names: &mut Vec<Name>) -> Result<(), Stop> {
        if names.is_empty() {
            return Ok(());
        }
        let dir = frame.fd.clone().ok_or(Stop)?;
        self.batch.names += names.len();
        self.batch.directories += 1;
        self.batch.work.push(Work::Names { dir, path: path.to_vec(), names: std::mem::take(names) });
        if self.batch.names >= BATCH || self.batch.directories >= BATCH_DIRECTORIES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop);
        }
        let work = std::mem::take(&mut self.batch).work;
        if work.is_empty() {
            return Ok(());
        }
        let (parts, receiver) = bounded(PARTS);
        self.jobs.send(Job { work, parts }).map_err(|_| Stop)?;
        self.steps.send(Step::Batch(receiver)).map_err(|_| Stop)
    }

    fn end(&mut self) -> Result<(), Stop> {
        self.flush()?;
        self.steps.send(Step::End).map_err(|_| Stop)
    }

    fn step(&mut self, item: Item) -> Result<(), Stop> {
        self.batch.work.push(Work::Item(item));
        // A tree may be all directories.
        if self.batch.work.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn found(&mut self, finding: Finding) -> Result<(), Stop> {
        self.step(Item::Finding(finding))
    }
}

/// An entry of the format must fit its longest item; a path beyond this has no room for the rest.
const PATH_BYTES_MAX: usize = 1024 * 1024;
