//! Reading files: several threads, each a batch of names at a time.
//!
//! A small file is read whole into a buffer it shares with its neighbours and handed on in order, to be
//! laid end to end with them. A large file is cut into chunks here, by the thread that reads it, and only
//! the tickets of its chunks are handed on. Holes are asked for and skipped.
//!
//! A file is looked at before and after: if it was written meanwhile, that is a finding. What was read is
//! kept (it is the best there is), and since the entry carries the change time from *before* the read, the
//! next backup reads it again.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};
use repo::{Content, Finding, Leaf, NodeKind, TreeEntry};
use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;

use super::before::{Chunks, Compared};
use super::cold::Cold;
use super::cut::Cutter;
use super::pool::{BODY, Buffer, Pool};
use super::previous::{still_stored, unchanged};
use super::sys::{self, Meta};
use super::{Item, Linked, Parent, Stop, attributes, shown, vanished_or_unreadable};

/// A batch, in the order of the tree.
pub(super) struct Job {
    pub work: Vec<Work>,
    pub parts: Sender<Part>,
}

/// What the walk comes by.
pub(super) enum Work {
    /// A directory, or something that was found: to be passed on.
    Item(Item),
    /// Names of one directory, to be looked at.
    Names {
        dir: Arc<OwnedFd>,
        /// The directory's path.
        path: Vec<u8>,
        names: Vec<Name>,
    },
}

pub(super) struct Name {
    pub name: CString,
    pub kind: FileType,
    pub previous: Option<TreeEntry>,
}

/// What comes out of a batch, in order.
pub(super) enum Part {
    /// Entries, and the bytes of the small files among them, laid end to end in the buffer's body.
    Piece { items: Vec<Item>, bytes: Option<(Buffer, usize)> },
    /// What the large file consists of whose entry follows.
    Stretches(Vec<Stretch>),
    /// The large file, its content still empty, whose stretches came before; `None` if it could not be
    /// read to its end.
    Large(Option<Box<TreeEntry>>),
    /// It cannot go on.
    Failed(repo::Error),
    /// The batch is complete. A batch that ends without this was cut short.
    End,
}

/// A stretch of a large file.
pub(super) enum Stretch {
    /// A chunk that was handed in; so long it is.
    Written(repo::Ticket, u32),
    /// The repository has it.
    Kept(Leaf),
    /// It was overwritten, and is being compared with what it was.
    Compared(Receiver<Compared>),
}

/// What the readers share.
pub(super) struct Readers<'a> {
    pub writer: &'a repo::Writer,
    pub parent: Option<&'a Parent<'a>>,
    pub pool: Pool,
    pub cancel: &'a repo::Cancel,
    /// Files up to this many bytes share chunks.
    pub small: u64,
    /// Taken by whoever reads ahead: one large file at a time, where one thread would set the pace. Several are read
    /// side by side anyway, and buffers are memory.
    pub ahead: Mutex<()>,
}

/// Files from this many bytes on are read ahead.
const AHEAD: u64 = 16 * BODY as u64;

/// Never more holes in an entry than this: an entry has a longest size. The holes after are read as the
/// zeros they are, and restored as zeros.
const HOLES_MAX: usize = 65_536;

impl Readers<'_> {
    /// Serves batches until there are no more, or nobody wants them.
    pub fn serve(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            if self.batch(job, true).is_err() {
                return;
            }
        }
    }

    /// Reads one batch. `defer`: leave files of several names to the one who knows which came first.
    pub fn batch(&self, job: Job, defer: bool) -> Result<(), Stop> {
        let mut piece = Piece { items: Vec::new(), buffer: None, used: 0 };
        for work in job.work {
            match work {
                Work::Item(item) => piece.push(item)?,
                Work::Names { dir, path, names } => {
                    piece.items.reserve(names.len());
                    for name in names {
                        if self.cancel.is_cancelled() {
                            return Err(Stop);
                        }
                        self.one(&dir, &path, name, defer, &mut piece, &job.parts)?;
                    }
                }
            }
        }
        piece.send(&job.parts)?;
        job.parts.send(Part::End).map_err(|_| Stop)
    }

    fn one(
        &self,
        dir: &Arc<OwnedFd>,
        parent: &[u8],
        Name { name, kind, previous }: Name,
        defer: bool,
        piece: &mut Piece,
        parts: &Sender<Part>,
    ) -> Result<(), Stop> {
        // A new regular file is opened at once and asked for its status then: one look-up less.
        let mut opened = None;
        let looked = if kind == FileType::RegularFile && previous.is_none() {
            sys::open_file(dir, &name).and_then(|fd| {
                let meta = sys::stat_fd(&fd)?;
                opened = Some(fd);
                Ok(meta)
            })
        } else {
            sys::stat_at(dir, &name)
        };
        let meta = match looked {
            Ok(meta) => meta,
            Err(e) => return piece.found(vanished_or_unreadable(&join(parent, &name), e)),
        };
        // By far the most files of a later backup end here, with nothing made for them.
        let linked = meta.nlink > 1 && defer;
        let mut previous = previous;
        if meta.kind == FileType::RegularFile
            && !linked
            && let Some(entry) = previous.take_if(|previous| self.reuse(previous, &meta))
        {
            return piece.push(Item::Entry { entry, run: 0, reused: true });
        }
        let path = join(parent, &name);
        if meta.kind != FileType::RegularFile {
            return piece.special(dir, &name, path, &meta);
        }
        if linked {
            // It may be read while this item is laid, so the bytes of those before it must be laid already.
            piece.send(parts)?;
            let linked = Linked { dir: dir.clone(), name, path, meta, previous };
            return piece.push(Item::Linked(Box::new(linked)));
        }
        let opened = match opened {
            Some(fd) => Ok((fd, meta)),
            None => {
                sys::open_file(dir, &name).and_then(|fd| Ok((sys::stat_fd(&fd)?, fd))).map(|(m, fd)| (fd, m))
            }
        };
        match opened.and_then(|(fd, meta)| Ok((sys::xattrs_fd(&fd)?, fd, meta))) {
            Ok((xattrs, fd, meta)) if meta.kind == FileType::RegularFile => {
                let (xattrs, finding) = attributes(&path, Ok(xattrs));
                if let Some(finding) = finding {
                    piece.found(finding)?;
                }
                let entry = entry(path, NodeKind::Fifo, &meta, xattrs);
                self.read(&fd, meta, entry, previous.as_ref(), piece, parts)
            }
            Ok(_) => piece.found(changed(&path, "it was a file when it was listed and is none now")),
            Err(e) => piece.found(vanished_or_unreadable(&path, e)),
        }
    }

    /// Whether the previous entry still describes the file, and its chunks are all there.
    fn reuse(&self, previous: &TreeEntry, meta: &Meta) -> bool {
        let Some(parent) = self.parent else { return false };
        unchanged(previous, meta, parent.started)
            && match &previous.kind {
                NodeKind::File { content, .. } => still_stored(content, parent, self.writer),
                _ => false,
            }
    }

    /// Reads a file that has been opened; `entry` lacks what only a file has.
    fn read(
        &self,
        fd: &OwnedFd,
        meta: Meta,
        entry: TreeEntry,
        previous: Option<&TreeEntry>,
        piece: &mut Piece,
        parts: &Sender<Part>,
    ) -> Result<(), Stop> {
        if meta.size <= self.small {
            self.read_small(fd, meta, entry, piece, parts)
        } else {
            piece.send(parts)?;
            self.read_large(fd, meta, entry, previous, piece, parts)
        }
    }

    fn read_small(
        &self,
        fd: &OwnedFd,
        mut meta: Meta,
        mut entry: TreeEntry,
        piece: &mut Piece,
        parts: &Sender<Part>,
    ) -> Result<(), Stop> {
        if piece.used + self.small as usize > BODY {
            piece.send(parts)?;
        }
        let used = piece.used;
        let body = &mut piece.buffer.get_or_insert_with(|| self.pool.take()).body()[used..];
        let mut again = true;
        let (data, size, length, settled) = loop {
            let read = segments(fd, &meta).and_then(|data| {
                let (mut size, mut length) = (meta.size, 0);
                for &(offset, part) in &data {
                    let got = read_at(fd, &mut body[length..length + part as usize], offset)?;
                    length += got;
                    if (got as u64) < part {
                        size = offset + got as u64;
                        break;
                    }
                }
                Ok((data, size, length, sys::stat_fd(fd)?))
            });
            match read {
                Err(e) => return piece.found(vanished_or_unreadable(&entry.path, e)),
                // Written while it was read: a second look costs little and mostly catches it at rest.
                Ok((.., after)) if again && !after.same_content(&meta) && after.size <= self.small => {
                    (meta, again) = (after, false);
                    entry.mtime = meta.mtime;
                }
                Ok((data, size, length, after)) => break (data, size, length, after.same_content(&meta)),
            }
        };
        if !settled {
            piece.found(changed(&entry.path, "its content may be part old, part new"))?;
        }
        entry.kind = file(&meta, size, holes(&data, size));
        piece.used += length;
        piece.push(Item::Entry { entry, run: length, reused: false })
    }

    fn read_large(
        &self,
        fd: &OwnedFd,
        meta: Meta,
        mut entry: TreeEntry,
        previous: Option<&TreeEntry>,
        piece: &mut Piece,
        parts: &Sender<Part>,
    ) -> Result<(), Stop> {
        let data = match segments(fd, &meta) {
            Ok(data) => data,
            Err(e) => return piece.found(vanished_or_unreadable(&entry.path, e)),
        };
        // The threads that compare end with it: they are done when there is nothing more to compare.
        let end = std::thread::scope(|scope| {
            let chunks = Chunks::new(scope, self.writer, previous, self.parent, parts);
            self.chunks(fd, &meta, &data, chunks)
        })?;
        let size = match end {
            Ok(size) => size,
            Err(e) => {
                // A file that cannot be read to its end is left out: a shorter one under its
                // name would look whole. The chunks sent so far serve nobody and harm nobody.
                parts.send(Part::Large(None)).map_err(|_| Stop)?;
                return piece.found(vanished_or_unreadable(&entry.path, e));
            }
        };
        if !sys::stat_fd(fd).is_ok_and(|after| after.same_content(&meta)) {
            piece.found(changed(&entry.path, "its content may be part old, part new"))?;
        }
        entry.kind = file(&meta, size, holes(&data, size));
        parts.send(Part::Large(Some(Box::new(entry)))).map_err(|_| Stop)
    }

    /// Cuts the data of a file, or finds what it was. Returns the file's size, or why it cannot be read.
    fn chunks(
        &self,
        fd: &OwnedFd,
        meta: &Meta,
        data: &[(u64, u64)],
        mut chunks: Chunks<'_, '_>,
    ) -> Result<Result<u64, Errno>, Stop> {
        let mut cutter = Cutter::new(self.writer.chunker());
        let mut end = Ok(meta.size);
        let mut take = |block: Block| -> Result<bool, Stop> {
            let Block { buffer, at, want, got } = block;
            let got = match got {
                Ok(got) => got,
                Err(e) => {
                    end = Err(e);
                    return Ok(false);
                }
            };
            cutter.feed(buffer, got, &mut chunks)?;
            chunks.send()?;
            if got < want {
                end = Ok(at + got as u64);
            }
            Ok(true)
        };
        let alone = if meta.size < AHEAD { None } else { self.ahead.try_lock().ok() };
        let whole = match alone {
            None => self.blocks(fd, data, &mut take)?,
            Some(_alone) => std::thread::scope(|scope| {
                let (blocks, ahead) = bounded(1);
                scope.spawn(move || {
                    self.blocks(fd, data, &mut |block| blocks.send(block).map(|()| true).map_err(|_| Stop))
                });
                // Dropped when this is over, also early: then nobody reads on.
                for block in ahead {
                    if !take(block)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?,
        };
        if self.cancel.is_cancelled() {
            return Err(Stop);
        }
        if whole {
            cutter.finish(&mut chunks)?;
            chunks.send()?;
        }
        Ok(end)
    }

    /// Reads the data of a file block by block, until `take` has enough, or there is no more.
    fn blocks(
        &self,
        fd: &OwnedFd,
        data: &[(u64, u64)],
        take: &mut impl FnMut(Block) -> Result<bool, Stop>,
    ) -> Result<bool, Stop> {
        let mut file = Cold::new(fd, data.iter().map(|(_, length)| length).sum());
        for &(mut at, mut length) in data {
            while length > 0 {
                if self.cancel.is_cancelled() {
                    return Err(Stop);
                }
                let mut buffer = self.pool.take();
                let want = usize::try_from(length).unwrap_or(BODY).min(BODY);
                let got = file.read(&mut buffer.body()[..want], at);
                let end = *got.as_ref().unwrap_or(&0) < want;
                if !take(Block { buffer, at, want, got })? {
                    return Ok(false);
                }
                if end {
                    return Ok(true);
                }
                at += want as u64;
                length -= want as u64;
            }
        }
        Ok(true)
    }
}

/// What has been read of a large file at one place.
struct Block {
    buffer: Buffer,
    at: u64,
    want: usize,
    /// Less than wanted at the end of the file alone.
    got: Result<usize, Errno>,
}

/// What has been read of a batch and is not handed on yet.
struct Piece {
    items: Vec<Item>,
    buffer: Option<Buffer>,
    used: usize,
}

impl Piece {
    fn push(&mut self, item: Item) -> Result<(), Stop> {
        self.items.push(item);
        Ok(())
    }

    fn found(&mut self, finding: Finding) -> Result<(), Stop> {
        self.push(Item::Finding(finding))
    }

    fn send(&mut self, parts: &Sender<Part>) -> Result<(), Stop> {
        if self.items.is_empty() {
            return Ok(());
        }
        let (items, used) = (std::mem::take(&mut self.items), std::mem::take(&mut self.used));
        let bytes = self.buffer.take().map(|buffer| (buffer, used));
        parts.send(Part::Piece { items, bytes }).map_err(|_| Stop)
    }

    /// Whatever is neither a file nor a directory; it is never opened.
    fn special(&mut self, dir: &OwnedFd, name: &CString, path: Vec<u8>, meta: &Meta) -> Result<(), Stop> {
        let (major, minor) = meta.rdev;
        let kind = match meta.kind {
            FileType::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
                Ok(target) => NodeKind::Symlink { target: target.into_bytes() },
                Err(e) => return self.found(vanished_or_unreadable(&path, e)),
            },
            FileType::Fifo => NodeKind::Fifo,
            FileType::Socket => NodeKind::Socket,
            FileType::CharacterDevice => NodeKind::CharDevice { major, minor },
            FileType::BlockDevice => NodeKind::BlockDevice { major, minor },
            _ => {
                return self
                    .found(changed(&path, "it became a directory after it was listed and is left out"));
            }
        };
        let (xattrs, finding) = attributes(&path, sys::xattrs_at(dir, name));
        if let Some(finding) = finding {
            self.found(finding)?;
        }
        self.push(Item::Entry { entry: entry(path, kind, meta, xattrs), run: 0, reused: false })
    }
}

fn join(parent: &[u8], name: &CStr) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.count_bytes());
    if !parent.is_empty() {
        path.extend_from_slice(parent);
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    path
}

/// An entry with what every kind has.
pub(super) fn entry(
    path: Vec<u8>,
    kind: NodeKind,
    meta: &Meta,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
) -> TreeEntry {
    TreeEntry { path, kind, mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs }
}

fn file(meta: &Meta, size: u64, holes: Vec<(u64, u64)>) -> NodeKind {
    let content = Content::Extents(Vec::new());
    NodeKind::File { ctime: meta.ctime, inode: meta.ino, size, content, holes }
}

fn changed(path: &[u8], what: &str) -> Finding {
    Finding::warning(
        "changed-while-read",
        shown(path),
        format!(
            "the file changed while it was read; {what}. A snapshot or a rule that holds the application avoids this"
        ),
    )
}

/// Where the file has data, as `(offset, length)`, ascending.
fn segments(fd: &OwnedFd, meta: &Meta) -> Result<Vec<(u64, u64)>, Errno> {
    let size = meta.size;
    if !meta.may_have_holes() {
        return Ok(if size == 0 { Vec::new() } else { vec![(0, size)] });
    }
    let (mut data, mut at) = (Vec::new(), 0);
    while at < size {
        if data.len() == HOLES_MAX {
            data.push((at, size - at));
            break;
        }
        let start = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data from here on.
            Err(Errno::NXIO) => break,
            // A file system that does not know holes.
            Err(Errno::INVAL | Errno::NOTSUP) if at == 0 => return Ok(vec![(0, size)]),
            Err(e) => return Err(e),
        };
        if start >= size {
            break;
        }
        let end = match rustix::fs::seek(fd, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e),
        };
        data.push((start, end - start));
        at = end;
    }
    Ok(data)
}

/// What lies between the data of a file of `size`.
fn holes(data: &[(u64, u64)], size: u64) -> Vec<(u64, u64)> {
    let (mut holes, mut at) = (Vec::new(), 0);
    for &(offset, length) in data {
        let offset = offset.min(size);
        if offset > at {
            holes.push((at, offset - at));
        }
        at = (offset + length).min(size);
    }
    if at < size {
        holes.push((at, size - at));
    }
    holes
}

/// Fills `buffer` from `offset`; less only at the end of the file.
pub(super) fn read_at(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut got = 0;
    while got < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
