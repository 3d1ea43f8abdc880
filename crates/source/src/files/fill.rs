//! Filling: file content from the repository into the target, by several threads.
//!
//! Neighbouring small files share chunks, so they travel in batches: a batch fetches its chunks once and
//! serves all its files from them. A large file is filled in ranges by several threads at once, each
//! writing at its own offset; whoever is done last settles it.
//!
//! Large ranges go past the page cache where the file system allows it (`direct.rs`).
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

use super::direct::{Aligned, BLOCK, Direct};
use super::place;
use super::restore::{Shared, Trouble};

/// So much is read back at a time, through the page cache.
const BACK: usize = 256 * 1024;

/// A run of bytes on its way from a chunk into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub chunk: ChunkId,
    pub skip: u32,
    pub length: u32,
    pub to: u64,
    /// Of a part of a chunk: what these bytes are called.
    pub part: Option<ChunkId>,
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
    /// The same file for whole blocks.
    pub direct: Option<Direct>,
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
            moves.push(Move { chunk, skip, length: part, to: self.at, part: None });
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
        let mut scratch = Scratch::default();
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

    fn small(&self, batch: Vec<Small>, scratch: &mut Scratch) {
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
                        let bytes = data(next, &chunk)?;
                        write(&made.fd, bytes, next.to)?;
                        compare(&made.fd, bytes, next.to, scratch.back.get(bytes.len()))
                    })
                    .and_then(|()| self.settle_file(&made.fd, &entry))
                    .and_then(|()| self.publish(&dir, &made, &name));
                filled.inspect_err(|_| self.discard(&dir, &made, &name))
            });
            self.file_done(&entry, done);
        }
    }

    fn range(&self, file: &Large, moves: &[Move], scratch: &mut Scratch) -> Result<(), Trouble> {
        if file.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let runs = runs(moves);
        let bytes = scratch.bytes.get(runs.last().map_or(0, |run| run.end));
        let mut ids: Vec<ChunkId> = moves.iter().map(|next| next.chunk).collect();
        // A chunk split by a hole follows itself, and a run of zeros is one chunk over and over.
        ids.dedup();
        // Each chunk goes to its place as soon as it is opened; `first` says which moves want it.
        let mut first = Vec::with_capacity(ids.len() + 1);
        let mut places = Vec::with_capacity(moves.len());
        for run in &runs {
            for (number, next) in moves[run.moves.clone()].iter().enumerate() {
                let number = run.moves.start + number;
                if number == 0 || moves[number - 1].chunk != next.chunk {
                    first.push(number);
                }
                places.push(run.start + (next.to - moves[run.moves.start].to) as usize);
            }
        }
        first.push(moves.len());
        let mut outcome = Ok(());
        let mut missing = ids.len();
        self.reader.visit(&ids, &mut |at, chunk| {
            missing -= 1;
            let filled = chunk.map_err(Trouble::from).and_then(|chunk| {
                (first[at]..first[at + 1]).try_for_each(|number| {
                    let data = data(&moves[number], chunk)?;
                    if moves[number].part.is_some_and(|part| !self.reader.is(data, &part)) {
                        let what = "a part of it is not what its id says";
                        return Err(
                            repo::Error::damaged(format!("chunk {}", moves[number].chunk), what).into()
                        );
                    }
                    bytes[places[number]..places[number] + data.len()].copy_from_slice(data);
                    Ok(())
                })
            });
            if let Err(trouble) = filled
                && outcome.is_ok()
            {
                outcome = Err(trouble);
            }
        });
        outcome?;
        if missing > 0 || self.stopped() {
            return Err(Trouble::Stopped);
        }
        for run in &runs {
            self.write_run(file, &bytes[run.start..run.end], moves[run.moves.start].to, &mut scratch.back)?;
        }
        self.progress.add(0, moves.iter().map(|next| u64::from(next.length)).sum());
        Ok(())
    }

    /// Writes what follows each other in a file, and reads it back. `bytes` lie as far into a block as in the file.
    fn write_run(&self, file: &Large, bytes: &[u8], to: u64, back: &mut Aligned) -> Result<(), Trouble> {
        let fd = &file.made.fd;
        let head = (to.next_multiple_of(BLOCK as u64) - to).min(bytes.len() as u64) as usize;
        let whole = (bytes.len() - head) / BLOCK * BLOCK;
        let blocks = head..head + whole;
        let directly = match &file.direct {
            Some(direct) if whole > 0 => {
                if direct.write(&bytes[blocks.clone()], to + head as u64) {
                    Some(direct)
                } else {
                    None
                }
            }
            _ => None,
        };
        // What does not go directly: all, or the ends.
        let parts = match directly {
            Some(_) => [0..head, blocks.end..bytes.len()],
            None => [0..bytes.len(), 0..0],
        };
        {
            let _one = file.writing.lock().unwrap_or_else(PoisonError::into_inner);
            for part in parts.clone() {
                write(fd, &bytes[part.clone()], to + part.start as u64)?;
            }
        }
        if let Some(direct) = directly {
            let (expected, at) = (&bytes[blocks.clone()], to + head as u64);
            let back = back.get(whole);
            match direct.read(back, at) {
                Some(got) if back[..got] == *expected => {}
                Some(_) => return Err(Trouble::Differs(at)),
                None => compare(fd, expected, at, back)?,
            }
        }
        for part in parts {
            // In small pieces, while they are still in the processor's cache.
            for (number, piece) in bytes[part.clone()].chunks(BACK).enumerate() {
                compare(fd, piece, to + (part.start + number * BACK) as u64, back.get(piece.len()))?;
            }
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
    pub fn discard(&self, dir: &Arc<OwnedFd>, made: &Made, name: &CStr) {
        let name = made.partial.as_deref().unwrap_or(name);
        // Best effort: if even this fails, an empty file shows more clearly than half a one.
        if rustix::fs::unlinkat(dir, name, AtFlags::empty()).is_err() {
            let _ = rustix::fs::ftruncate(&made.fd, 0);
        }
    }
}

/// Moves that follow each other in the file without a hole, and where their bytes are put together in memory: as far
/// into a block as in the file, unless there is no whole block among them.
struct Run {
    moves: std::ops::Range<usize>,
    start: usize,
    end: usize,
}

fn runs(moves: &[Move]) -> Vec<Run> {
    let mut runs = Vec::new();
    let (mut from, mut free) = (0, 0_usize);
    for run in moves.chunk_by(|a, b| a.to + u64::from(a.length) == b.to) {
        let length = run.iter().map(|next| next.length as usize).sum::<usize>();
        let start = match run.first() {
            Some(first) if length >= BLOCK => {
                free.next_multiple_of(BLOCK) + (first.to % BLOCK as u64) as usize
            }
            _ => free,
        };
        runs.push(Run { moves: from..from + run.len(), start, end: start + length });
        from += run.len();
        free = start + length;
    }
    runs
}

/// Memory that a thread uses over and over.
#[derive(Default)]
struct Scratch {
    bytes: Aligned,
    back: Aligned,
}

/// The bytes of a range.
fn data<'c>(next: &Move, chunk: &'c [u8]) -> Result<&'c [u8], Trouble> {
    let (from, to) = (next.skip as usize, next.skip as usize + next.length as usize);
    chunk.get(from..to).ok_or_else(|| {
        let what = format!("it has {} bytes where {to} were promised", chunk.len());
        repo::Error::damaged(format!("chunk {}", next.chunk), what).into()
    })
}

/// Writes a range.
fn write(fd: &OwnedFd, data: &[u8], to: u64) -> Result<(), Trouble> {
    let mut written = 0;
    while written < data.len() {
        match rustix::io::pwrite(fd, &data[written..], to + written as u64) {
            Ok(0) => return Err(Errno::IO.into()),
            Ok(n) => written += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Reads a range back and compares it with what it should be.
fn compare(fd: &OwnedFd, data: &[u8], to: u64, back: &mut [u8]) -> Result<(), Trouble> {
    let mut got = 0;
    while got < data.len() {
        match rustix::io::pread(fd, &mut back[got..data.len()], to + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if back[..got] == *data { Ok(()) } else { Err(Trouble::Differs(to)) }
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
        let next = Move { chunk: ChunkId([1; 32]), skip: 2, length: 4, to: 6, part: None };
        let chunk = Bytes::from_static(b"..data..");
        let both = |fd: &OwnedFd, chunk: &Bytes| {
            let data = data(&next, chunk)?;
            write(fd, data, next.to).and_then(|()| compare(fd, data, next.to, &mut [0; 8]))
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
    fn moves_are_put_together_as_they_lie_in_their_blocks() {
        let at = |to: u64, length: u32| Move { chunk: ChunkId([1; 32]), skip: 0, length, to, part: None };
        let found = |moves: &[Move]| {
            runs(moves).into_iter().map(|run| (run.moves, run.start, run.end)).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[at(0, 100), at(100, 5_000)]), [(0..2, 0, 5_100)]);
        let apart = [at(8_200, 100), at(8_300, 10_000), at(40_970, 7)];
        assert_eq!(found(&apart), [(0..2, 8, 10_108), (2..3, 10_108, 10_115)]);
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
