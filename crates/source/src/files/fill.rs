//! Filling: file content from the repository into the target, by several threads.
//!
//! Neighbouring small files share chunks, so they travel in batches: a batch fetches its chunks once and
//! serves all its files from them. A large file is filled in ranges by several threads at once, each
//! writing at its own offset; whoever is done last settles it.
//!
//! Every range is read back and compared before the file counts. A file whose content is damaged in the
//! repository, or that did not become what it should, is removed: it must not stay under a name that
//! promises more.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use repo::{ChunkId, Content, NodeKind, TreeEntry};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::place;
use super::restore::{Shared, Trouble};

/// A run of bytes on its way from a chunk into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub chunk: ChunkId,
    pub skip: u32,
    pub length: u32,
    pub to: u64,
}

pub(super) enum Work {
    Small(Vec<Small>),
    Range(Arc<Large>, Vec<Move>),
}

pub(super) struct Small {
    pub dir: Arc<OwnedFd>,
    pub name: CString,
    pub entry: TreeEntry,
    pub moves: Vec<Move>,
}

/// A large file while ranges of it are under way.
pub(super) struct Large {
    pub dir: Arc<OwnedFd>,
    pub name: CString,
    pub made: Made,
    pub entry: TreeEntry,
    /// Ranges not done yet, and one for whoever still hands them out.
    pub open: AtomicUsize,
    pub failed: Mutex<Option<Trouble>>,
    /// Held while a range is written. The kernel lets one writer of a file in at a time anyway, and makes
    /// the others spin: on a busy machine that cost more than half of the speed.
    pub writing: Mutex<()>,
}

/// A file just created.
pub(super) struct Made {
    pub fd: OwnedFd,
    /// Its name until it is whole, if that is not its own.
    pub partial: Option<CString>,
}

/// Lays content over the data of a file, between its holes.
pub(super) struct Layout<'h> {
    holes: std::iter::Peekable<std::slice::Iter<'h, (u64, u64)>>,
    at: u64,
}

impl<'h> Layout<'h> {
    pub fn new(holes: &'h [(u64, u64)]) -> Layout<'h> {
        Layout { holes: holes.iter().peekable(), at: 0 }
    }

    /// Where the next `length` bytes of the content go, which are in `chunk` from `skip`.
    pub fn place(&mut self, chunk: ChunkId, mut skip: u32, mut length: u32, moves: &mut Vec<Move>) {
        while length > 0 {
            while let Some((_, hole)) = self.holes.next_if(|(start, _)| *start <= self.at) {
                self.at += hole;
            }
            let room = self.holes.peek().map_or(u64::MAX, |(start, _)| start - self.at);
            let part = u64::from(length).min(room) as u32;
            moves.push(Move { chunk, skip, length: part, to: self.at });
            self.at += u64::from(part);
            skip += part;
            length -= part;
        }
    }
}

/// Whether content, holes and size of a file add up.
pub(super) fn adds_up(kind: &NodeKind) -> bool {
    let NodeKind::File { size, content, holes, .. } = kind else { return true };
    let mut at = Some(0u64);
    let mut hollow = 0u64;
    for (offset, length) in holes {
        at = at.filter(|at| at <= offset).and_then(|_| offset.checked_add(*length));
        hollow = hollow.saturating_add(*length);
    }
    // Extents are summed in 64 bits by the format's own count; a hostile sum would not match.
    at.is_some_and(|end| end <= *size) && content.length().checked_add(hollow) == Some(*size)
}

impl Shared<'_> {
    /// Serves work until there is none.
    pub fn serve(&self, work: &Receiver<Work>) {
        let mut scratch = Vec::new();
        for work in work {
            if self.stopped() {
                // Ranges still count down, so that the last one removes what is not whole.
                if let Work::Range(file, _) = work {
                    self.range_done(&file, Err(Trouble::Stopped));
                }
                continue;
            }
            match work {
                Work::Small(batch) => self.small(batch, &mut scratch),
                Work::Range(file, moves) => {
                    let done = self.range(&file, &moves, &mut scratch);
                    self.range_done(&file, done);
                }
            }
        }
    }

    fn small(&self, batch: Vec<Small>, scratch: &mut Vec<u8>) {
        let mut ids: Vec<ChunkId> = Vec::new();
        for small in &batch {
            for next in &small.moves {
                // Neighbours share chunks; the same one again is the last one or the one before.
                if !ids.iter().rev().take(4).any(|id| *id == next.chunk) {
                    ids.push(next.chunk);
                }
            }
        }
        let chunks = self.reader.chunks(&ids);
        let chunk = |wanted: &ChunkId| match ids.iter().position(|id| id == wanted).map(|at| &chunks[at]) {
            Some(Ok(bytes)) => Ok(bytes.clone()),
            Some(Err(error)) => Err(Trouble::from(error.clone())),
            None => Err(Trouble::Stopped),
        };
        for Small { dir, name, entry, moves } in batch {
            if self.stopped() {
                return;
            }
            // Fetched before the file is made: one whose content is damaged never appears.
            let fetched = moves.iter().map(|next| chunk(&next.chunk)).collect::<Result<Vec<Bytes>, _>>();
            let done = fetched.and_then(|chunks| {
                let made = self.create(&dir, &name, false)?;
                let filled = moves
                    .iter()
                    .zip(chunks)
                    .try_for_each(|(next, chunk)| {
                        write(&made.fd, next, &chunk)?;
                        compare(&made.fd, next, &chunk, scratch)
                    })
                    .and_then(|()| self.settle_file(&made.fd, &entry))
                    .and_then(|()| self.publish(&dir, &made, &name));
                filled.inspect_err(|_| self.discard(&dir, &made, &name))
            });
            self.file_done(&entry, done);
        }
    }

    fn range(&self, file: &Large, moves: &[Move], scratch: &mut Vec<u8>) -> Result<(), Trouble> {
        if file.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut ids: Vec<ChunkId> = moves.iter().map(|next| next.chunk).collect();
        // A chunk split by a hole follows itself.
        ids.dedup();
        let mut chunks = self.reader.chunks(&ids).into_iter();
        let mut parts: Vec<(&Move, Bytes)> = Vec::with_capacity(moves.len());
        for next in moves {
            let chunk = match parts.last() {
                Some((last, chunk)) if last.chunk == next.chunk => chunk.clone(),
                _ => chunks.next().ok_or(Trouble::Stopped)??,
            };
            parts.push((next, chunk));
        }
        if self.stopped() {
            return Err(Trouble::Stopped);
        }
        let fd = &file.made.fd;
        {
            let _one = file.writing.lock().unwrap_or_else(PoisonError::into_inner);
            parts.iter().try_for_each(|(next, chunk)| write(fd, next, chunk))?;
        }
        for (next, chunk) in parts {
            compare(fd, next, &chunk, scratch)?;
            self.progress.add(0, u64::from(next.length));
        }
        Ok(())
    }

    /// Counts a range of a large file down; the last one settles it.
    pub fn range_done(&self, file: &Arc<Large>, done: Result<(), Trouble>) {
        if let Err(trouble) = done {
            file.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble);
        }
        if file.open.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let failed = file.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let done = match failed {
            Some(trouble) => Err(trouble),
            None => self
                .settle_file(&file.made.fd, &file.entry)
                .and_then(|()| self.publish(&file.dir, &file.made, &file.name)),
        };
        if done.is_err() {
            self.discard(&file.dir, &file.made, &file.name);
        }
        self.file_done(&file.entry, done);
    }

    /// Creates a file: under its own name if it is whole in an instant and nothing is to be replaced,
    /// else under a name that tells that it is not whole.
    pub fn create(&self, dir: &Arc<OwnedFd>, name: &CStr, long: bool) -> Result<Made, Trouble> {
        if !long && !self.replace {
            let fd = place::create_file(dir, name)?;
            return Ok(Made { fd, partial: None });
        }
        let (partial, fd) = self.partials.make(|partial| place::create_file(dir, partial))?;
        Ok(Made { fd, partial: Some(partial) })
    }

    /// Gives a filled file its size, its attributes and its times, and looks at it again.
    fn settle_file(&self, fd: &OwnedFd, entry: &TreeEntry) -> Result<(), Trouble> {
        let NodeKind::File { size, content, holes, .. } = &entry.kind else { return Ok(()) };
        // Holes need no writing, but one at the end is only there if the size says so.
        let stream = matches!(content, Content::Stream(_));
        if !stream && holes.last().is_some_and(|(start, length)| start + length == *size) {
            rustix::fs::ftruncate(fd, *size)?;
        }
        let meta = self.settle.open(fd, entry)?;
        if meta.size != *size {
            return Err(Trouble::Size(meta.size));
        }
        Ok(())
    }

    /// Gives a whole file its name.
    fn publish(&self, dir: &Arc<OwnedFd>, made: &Made, name: &CStr) -> Result<(), Trouble> {
        match &made.partial {
            Some(partial) => self.rename(dir, partial, name),
            None => Ok(()),
        }
    }

    /// Gives something whole its name, in place of what has it now if that is wanted.
    pub fn rename(&self, dir: &Arc<OwnedFd>, partial: &CStr, name: &CStr) -> Result<(), Trouble> {
        if !self.replace {
            use rustix::fs::RenameFlags;
            match rustix::fs::renameat_with(dir, partial, dir, name, RenameFlags::NOREPLACE) {
                // File systems that cannot promise it; the target was empty when we began.
                Err(Errno::INVAL | Errno::NOSYS) => {}
                other => return Ok(other?),
            }
        }
        match rustix::fs::renameat(dir, partial, dir, name) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) if self.remove_others => {
                place::remove(dir, name)?;
                rustix::fs::renameat(dir, partial, dir, name)?;
            }
            Err(Errno::ISDIR | Errno::NOTEMPTY) => return Err(Trouble::InTheWay),
            other => other?,
        }
        // Two names of one file: then rename does nothing and says it is done.
        match rustix::fs::unlinkat(dir, partial, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes what did not become whole.
    fn discard(&self, dir: &Arc<OwnedFd>, made: &Made, name: &CStr) {
        let name = made.partial.as_deref().unwrap_or(name);
        // Best effort: if even this fails, an empty file shows more clearly than half a one.
        if rustix::fs::unlinkat(dir, name, AtFlags::empty()).is_err() {
            let _ = rustix::fs::ftruncate(&made.fd, 0);
        }
    }
}

/// The bytes of a range.
fn data<'c>(next: &Move, chunk: &'c Bytes) -> Result<&'c [u8], Trouble> {
    let (from, to) = (next.skip as usize, next.skip as usize + next.length as usize);
    chunk.get(from..to).ok_or_else(|| {
        let what = format!("it has {} bytes where {to} were promised", chunk.len());
        repo::Error::damaged(format!("chunk {}", next.chunk), what).into()
    })
}

/// Writes a range.
fn write(fd: &OwnedFd, next: &Move, chunk: &Bytes) -> Result<(), Trouble> {
    let data = data(next, chunk)?;
    let mut written = 0;
    while written < data.len() {
        match rustix::io::pwrite(fd, &data[written..], next.to + written as u64) {
            Ok(0) => return Err(Errno::IO.into()),
            Ok(n) => written += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Reads a range back and compares it with what it should be.
fn compare(fd: &OwnedFd, next: &Move, chunk: &Bytes, scratch: &mut Vec<u8>) -> Result<(), Trouble> {
    let data = data(next, chunk)?;
    if scratch.len() < data.len() {
        scratch.resize(data.len().max(64 * 1024), 0);
    }
    let mut got = 0;
    while got < data.len() {
        match rustix::io::pread(fd, &mut scratch[got..data.len()], next.to + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if scratch[..got] == *data { Ok(()) } else { Err(Trouble::Differs(next.to)) }
}

/// What has been restored so far.
#[derive(Default)]
pub(super) struct Tally {
    pub files: AtomicU64,
    pub bytes: AtomicU64,
    pub damaged: AtomicU64,
    pub failed: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_lies_between_the_holes() {
        let id = ChunkId([1; 32]);
        let moves = |holes: &[(u64, u64)], parts: &[(u32, u32)]| {
            let (mut layout, mut moves) = (Layout::new(holes), Vec::new());
            for (skip, length) in parts {
                layout.place(id, *skip, *length, &mut moves);
            }
            moves.iter().map(|m| (m.skip, m.length, m.to)).collect::<Vec<_>>()
        };
        assert_eq!(moves(&[], &[(5, 10), (0, 3)]), [(5, 10, 0), (0, 3, 10)]);
        assert_eq!(moves(&[(0, 4)], &[(0, 2)]), [(0, 2, 4)]);
        assert_eq!(moves(&[(2, 4), (8, 1)], &[(0, 5)]), [(0, 2, 0), (2, 2, 6), (4, 1, 9)]);
        assert_eq!(moves(&[(2, 4), (6, 1)], &[(0, 2), (0, 1)]), [(0, 2, 0), (0, 1, 7)]);
    }

    #[test]
    fn what_was_written_is_read_back_and_compared() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str, append: bool| {
            let mut options = std::fs::OpenOptions::new();
            OwnedFd::from(
                options
                    .create(true)
                    .read(true)
                    .write(!append)
                    .append(append)
                    .open(dir.path().join(name))
                    .unwrap(),
            )
        };
        let next = Move { chunk: ChunkId([1; 32]), skip: 2, length: 4, to: 6 };
        let (chunk, mut scratch) = (Bytes::from_static(b"..data.."), Vec::new());
        let mut both = |fd: &OwnedFd, chunk: &Bytes| {
            write(fd, &next, chunk).and_then(|()| compare(fd, &next, chunk, &mut scratch))
        };
        let good = open("good", false);
        assert!(both(&good, &chunk).is_ok());
        assert_eq!(std::fs::read(dir.path().join("good")).unwrap(), b"\0\0\0\0\0\0data");
        // A file that writes elsewhere than it is told to, as this one always at its end, is found out.
        std::fs::write(dir.path().join("bad"), b"0123456789").unwrap();
        let bad = open("bad", true);
        assert!(matches!(both(&bad, &chunk), Err(Trouble::Differs(6))));
        // A chunk shorter than its entry says is damage, not a crash.
        let short = Bytes::from_static(b"..da");
        assert!(matches!(both(&good, &short), Err(Trouble::Repo(e)) if e.is_damage()));
    }

    #[test]
    fn sizes_that_do_not_add_up_are_seen() {
        let file = |size, data: u32, holes: &[(u64, u64)]| {
            let extents = vec![repo::Extent { chunk: ChunkId([1; 32]), offset: 0, length: data }];
            let content = Content::Extents(extents);
            adds_up(&NodeKind::File { ctime: 0, inode: 0, size, content, holes: holes.to_vec() })
        };
        assert!(file(10, 10, &[]));
        assert!(file(10, 4, &[(0, 2), (6, 4)]));
        assert!(!file(10, 9, &[]));
        assert!(!file(10, 4, &[(6, 4), (0, 2)]), "not ascending");
        assert!(!file(10, 4, &[(8, 6)]), "beyond the end");
        assert!(!file(10, 4, &[(u64::MAX, 6)]), "beyond everything");
    }
}
