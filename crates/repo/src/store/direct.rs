//! Writes large files past the page cache.
//!
//! A pack is written once, flushed at once and not read again by who wrote it. Through the page cache each of
//! its pages is allocated, copied, written back under the flush, and pushes out a page that an application on
//! the same machine may still need. Written directly it costs a tenth of the processor time, and the copy
//! below.
//!
//! Direct writes want aligned memory, so the bytes pass through an aligned buffer; what does not fill a block
//! at the end goes the ordinary way. A file system that refuses direct writes gets ordinary ones: the result
//! is the same file, and the caller flushes it either way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

/// Alignment of memory, offset and length that satisfies every block device met in practice.
const BLOCK: usize = 4096;
/// How much is written at a time.
const PIECE: usize = 2 << 20;
/// Below this it is not worth the trouble.
const WORTH_IT: usize = 1 << 20;

/// Writes files; keeps its buffers for the next.
#[derive(Debug, Default)]
pub(super) struct Direct {
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Direct {
    /// Writes all of `bytes` to the start of the empty `file`. Not flushed yet.
    pub(super) fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let whole = bytes.len() / BLOCK * BLOCK;
        let mut done = 0;
        if bytes.len() >= WORTH_IT && set_direct(file, true) {
            let buffer = self.lock().pop();
            let mut buffer = buffer.unwrap_or_else(|| vec![0; PIECE + BLOCK]);
            done = write_aligned(file, &bytes[..whole], &mut buffer);
            self.lock().push(buffer);
            if !set_direct(file, false) {
                return Err(io::Error::other("the file does not leave direct mode"));
            }
        }
        // The tail, or all that a direct write did not take: an error that is real shows here again.
        file.write_all_at(&bytes[done..], done as u64)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_direct(file: &File, on: bool) -> bool {
    let Ok(flags) = rustix::fs::fcntl_getfl(file) else { return false };
    let flags = if on { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    rustix::fs::fcntl_setfl(file, flags).is_ok()
}

/// Writes whole blocks through the aligned part of `buffer`; returns how many bytes were taken.
fn write_aligned(file: &File, bytes: &[u8], buffer: &mut [u8]) -> usize {
    let start = buffer.as_ptr().align_offset(BLOCK);
    let Some(aligned) = buffer.get_mut(start..start.saturating_add(PIECE)) else { return 0 };
    let mut done = 0;
    for piece in bytes.chunks(PIECE) {
        let aligned = &mut aligned[..piece.len()];
        aligned.copy_from_slice(piece);
        let mut written = 0;
        while written < aligned.len() {
            match file.write_at(&aligned[written..], (done + written) as u64) {
                // A short write that leaves the blocks could not go on directly.
                Ok(more) if more > 0 && more.is_multiple_of(BLOCK) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return done + written,
            }
        }
        done += piece.len();
    }
    done
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
            direct.write(&file, &bytes).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "{size}");
            let flags = rustix::fs::fcntl_getfl(&file).unwrap();
            assert!(!flags.contains(OFlags::DIRECT), "it is an ordinary file again");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        let bytes = vec![1; 3 << 20];
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(Direct::default().write(&full, &bytes).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
