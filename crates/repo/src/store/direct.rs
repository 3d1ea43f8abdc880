//! Writes and reads large files past the page cache.
//!
//! A pack is written once, flushed at once and not read again by who wrote it; and who reads one, to check or to
//! restore, reads it once. Through the page cache each of its pages is allocated, copied, written back under the
//! flush, and pushes out a page that an application on the same machine may still need. Directly it costs a tenth
//! of the processor time.
//!
//! Direct transfers want aligned memory. A pack is assembled in aligned memory ([`align`]) and written from where
//! it lies; other bytes pass through an aligned buffer; what does not fill a block at the end goes the ordinary
//! way. Reads go to aligned buffers, which are used again. A file system that refuses direct transfers gets
//! ordinary ones: the result is the same, and the caller flushes what it wrote either way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustix::fs::OFlags;

/// Alignment of memory, offset and length that satisfies every block device met in practice.
const BLOCK: usize = 4096;
/// How much is written at a time.
const PIECE: usize = 2 << 20;
/// Below this it is not worth the trouble.
const WORTH_IT: usize = 1 << 20;
/// The same of reads: those cost a wait each, and small ones are better served ahead by the kernel.
const WORTH_READING: usize = 128 << 10;
/// Buffers are multiples of this.
const STEP: usize = 1 << 20;
/// No more idle buffers than this, and none that is larger.
const IDLE_MAX: usize = 4;
const IDLE_BYTES_MAX: usize = 20 << 20;

/// Makes room for `capacity` bytes in the empty `buffer`, beginning where a direct write can begin.
pub(crate) fn align(buffer: &mut BytesMut, capacity: usize) {
    buffer.clear();
    if buffer.as_ptr().align_offset(BLOCK) == 0 && buffer.capacity() >= capacity {
        return;
    }
    // Without its old bytes: growing would copy them.
    *buffer = BytesMut::with_capacity(capacity + BLOCK);
    let skip = buffer.as_ptr().align_offset(BLOCK);
    if skip < BLOCK {
        buffer.put_bytes(0, skip);
        buffer.advance(skip);
    }
}

/// Writes and reads files; keeps its buffers for the next.
#[derive(Debug, Default)]
pub(super) struct Direct {
    idle: Arc<Idle>,
}

#[derive(Debug, Default)]
struct Idle(Mutex<Vec<Vec<u8>>>);

impl Idle {
    /// A buffer with room for `length` aligned bytes, and where they begin.
    fn take(self: &Arc<Idle>, length: usize) -> Aligned {
        // In steps, so that packs of nearly the same size share one.
        let need = (length + BLOCK).next_multiple_of(STEP);
        // One that is far too large would be held by somebody who keeps a few bytes.
        let fits = |bytes: &Vec<u8>| (need..=4 * need).contains(&bytes.len());
        let mut idle = self.lock();
        let found = idle.iter().position(fits).map(|at| idle.swap_remove(at));
        if found.is_none() && idle.len() >= IDLE_MAX {
            idle.clear();
        }
        drop(idle);
        let bytes = found.unwrap_or_else(|| vec![0; need]);
        let start = bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
        Aligned { bytes, start, idle: self.clone() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer in use; it goes back when the last slice of it is gone.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    idle: Arc<Idle>,
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Aligned {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX && bytes.len() <= IDLE_BYTES_MAX {
            idle.push(bytes);
        }
    }
}

impl Direct {
    /// Writes all of `bytes` to the start of the empty `file`. Not flushed yet.
    pub(super) fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let whole = bytes.len() / BLOCK * BLOCK;
        let mut done = 0;
        if bytes.len() >= WORTH_IT && set_direct(file, true) {
            done = if bytes.as_ptr().align_offset(BLOCK) == 0 {
                write_blocks(file, &bytes[..whole], 0)
            } else {
                self.write_through(file, &bytes[..whole])
            };
            if !set_direct(file, false) {
                return Err(io::Error::other("the file does not leave direct mode"));
            }
        }
        // The tail, or all that a direct write did not take: an error that is real shows here again.
        file.write_all_at(&bytes[done..], done as u64)
    }

    /// Writes whole blocks through an aligned buffer; returns how many bytes were taken.
    fn write_through(&self, file: &File, bytes: &[u8]) -> usize {
        let mut buffer = self.idle.take(PIECE);
        let mut done = 0;
        for piece in bytes.chunks(PIECE) {
            let Some(aligned) = buffer.as_mut().get_mut(..piece.len()) else { break };
            aligned.copy_from_slice(piece);
            let taken = write_blocks(file, aligned, done as u64);
            done += taken;
            if taken < piece.len() {
                break;
            }
        }
        done
    }

    /// Whether a range of this length is worth reading directly.
    pub(super) fn is_worth_reading(length: usize) -> bool {
        length >= WORTH_READING
    }

    /// Reads `length` bytes at `offset` of a file opened for direct reading. `None` if that does not work here, or
    /// the file is too short: then the ordinary way tells what is wrong.
    pub(super) fn read(&self, file: &File, offset: u64, length: usize) -> Option<Bytes> {
        let skip = (offset % BLOCK as u64) as usize;
        let from = offset - skip as u64;
        let end = skip.checked_add(length)?;
        let mut buffer = self.idle.take(end.next_multiple_of(BLOCK));
        let into = buffer.as_mut().get_mut(..end.next_multiple_of(BLOCK))?;
        let mut got = 0;
        while got < end {
            match file.read_at(into.get_mut(got..)?, from + got as u64) {
                Ok(0) => return None,
                Ok(more) => {
                    got += more;
                    // Only the end of the file is not a whole block.
                    if got < end && !got.is_multiple_of(BLOCK) {
                        return None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(Bytes::from_owner(buffer).slice(skip..end))
    }
}

fn set_direct(file: &File, on: bool) -> bool {
    let Ok(flags) = rustix::fs::fcntl_getfl(file) else { return false };
    let flags = if on { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    rustix::fs::fcntl_setfl(file, flags).is_ok()
}

/// Writes whole blocks that lie aligned; returns how many bytes were taken.
fn write_blocks(file: &File, aligned: &[u8], at: u64) -> usize {
    let mut written = 0;
    while written < aligned.len() {
        let piece = &aligned[written..aligned.len().min(written + PIECE)];
        match file.write_at(piece, at + written as u64) {
            // A short write that leaves the blocks could not go on directly.
            Ok(more) if more > 0 && more.is_multiple_of(BLOCK) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_every_size_are_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let direct = Direct::default();
        let sizes =
            [0, 1, WORTH_IT - 1, WORTH_IT, WORTH_IT + 1, PIECE, PIECE + BLOCK, 3 * PIECE - 1, 5_000_001];
        for (number, size) in sizes.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..size).map(|at| (at / 7 + number) as u8).collect();
            let path = folder.path().join(size.to_string());
            let file = File::create(&path).unwrap();
            if number % 2 == 0 {
                direct.write(&file, &bytes).unwrap();
            } else {
                let mut aligned = BytesMut::new();
                align(&mut aligned, size);
                aligned.extend_from_slice(&bytes);
                assert_eq!(aligned.as_ptr().align_offset(BLOCK), 0, "it was large enough");
                direct.write(&file, &aligned).unwrap();
            }
            assert!(std::fs::read(&path).unwrap() == bytes, "{size}");
            let flags = rustix::fs::fcntl_getfl(&file).unwrap();
            assert!(!flags.contains(OFlags::DIRECT), "it is an ordinary file again");
        }
    }

    #[test]
    fn ranges_read_directly_are_those_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|at| (at / 5) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let direct = Direct::default();
        let flags = rustix::fs::OFlags::RDONLY | OFlags::DIRECT;
        // Not every file system opens a file so; then there is nothing to test here.
        let Ok(fd) = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()) else { return };
        let file = File::from(fd);
        for (offset, length) in
            [(0, 1), (0, 4096), (1, 4096), (5_000, 700_001), (1_000_000, 3), (0, 1_000_003)]
        {
            let read = direct.read(&file, offset, length);
            let expected = &bytes[offset as usize..offset as usize + length];
            assert!(read.is_none_or(|read| read == expected), "{offset} {length}");
        }
        for (offset, length) in [(1_000_000, 4), (2_000_000, 1), (0, 1_000_004)] {
            assert_eq!(direct.read(&file, offset, length), None, "beyond the end: {offset} {length}");
        }
        assert_eq!(direct.idle.lock().len(), 1, "one buffer serves them all");
    }

    #[test]
    fn a_buffer_is_aligned_once_and_used_again() {
        let mut buffer = BytesMut::new();
        align(&mut buffer, 100_000);
        let place = buffer.as_ptr();
        buffer.extend_from_slice(&[7; 100_000]);
        let again = buffer.freeze().try_into_mut().unwrap();
        let mut again = again;
        align(&mut again, 100_000);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        let bytes = vec![1; 3 << 20];
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(Direct::default().write(&full, &bytes).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
