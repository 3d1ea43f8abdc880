//! Large files written past the page cache, and read back from the disk itself.
//!
//! What a restore writes, nobody reads soon. Through the page cache every page of it is allocated, copied, and
//! pushes out a page that the applications on this machine still use, and all of it waits for the flush at the end.
//! Written directly it costs a tenth of the processor time, and the range that is read back and compared comes from
//! where it will be read from later, not from memory.
//!
//! Only whole blocks can go this way. The ends of a range that share their blocks with its neighbours go the ordinary
//! way; no block is ever written by both, so neither sees old bytes of the other. The space is taken beforehand: then
//! several ranges of a file can be written at once, a full disk shows at the beginning, and blocks of zeros need no
//! writing, because that is what space just taken reads as.
//!
//! A file system says whether and how it takes direct transfers (Linux 6.1); where it does not, everything goes the
//! ordinary way.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::sys;

/// What is aligned: offsets, lengths and memory.
pub(super) const BLOCK: usize = 4096;
/// Below this a file is not worth it.
const WORTH_IT: u64 = 4 * 1024 * 1024;
/// Zeros are looked for in pieces of this many bytes.
const ZEROS: usize = 64 * 1024;

/// A file open a second time, for direct transfers.
pub(super) struct Direct {
    fd: OwnedFd,
    /// All of its data has its space, and reads as zeros until it is written.
    taken: bool,
}

impl Direct {
    /// Opens the file just created as `name`, if it is large enough and its file system takes direct transfers, and
    /// takes the space of its `data`: ranges of bytes. The file has its size already.
    pub fn open(
        dir: &OwnedFd,
        name: &CStr,
        file: &OwnedFd,
        size: u64,
        data: impl Iterator<Item = Range<u64>>,
    ) -> Result<Option<Direct>, Errno> {
        if size < WORTH_IT || !takes_blocks(file) {
            return Ok(None);
        }
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(dir, name, flags, Mode::empty()) else { return Ok(None) };
        // Somebody may have put another file there meanwhile.
        let (ours, found) = (sys::stat_fd(file)?, sys::stat_fd(&fd)?);
        if (ours.dev, ours.ino) != (found.dev, found.ino) {
            return Ok(None);
        }
        let mut taken = true;
        for range in data {
            match rustix::fs::fallocate(&fd, FallocateFlags::empty(), range.start, range.end - range.start) {
                Ok(()) => {}
                Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => return Err(e),
                // A file system that cannot take space beforehand.
                Err(_) => {
                    taken = false;
                    break;
                }
            }
        }
        Ok(Some(Direct { fd, taken }))
    }

    /// Writes whole blocks that lie aligned in memory. `false` if it does not work after all, and the ordinary way
    /// has to take them: an error that is real shows there again.
    pub fn write(&self, bytes: &[u8], at: u64) -> bool {
        let mut done = 0;
        while done < bytes.len() {
            let next = if self.taken { next_piece(bytes, done) } else { Piece::Data(done..bytes.len()) };
            let part = match next {
                Piece::Zeros(to) => {
                    done = to;
                    continue;
                }
                Piece::Data(part) => part,
            };
            done = part.start;
            while done < part.end {
                match rustix::io::pwrite(&self.fd, &bytes[done..part.end], at + done as u64) {
                    Ok(more) if more > 0 && more.is_multiple_of(BLOCK) => done += more,
                    Err(Errno::INTR) => {}
                    _ => return false,
                }
            }
        }
        true
    }

    /// Reads as [`read_blocks`] does.
    pub fn read(&self, into: &mut [u8], at: u64) -> Option<usize> {
        read_blocks(&self.fd, into, at)
    }
}

/// Reads whole blocks from a file opened for direct transfers into memory that lies aligned; returns how many bytes
/// there were. `None` if that does not work, and the ordinary way has to tell why.
pub(super) fn read_blocks(file: &OwnedFd, into: &mut [u8], at: u64) -> Option<usize> {
    let mut got = 0;
    while got < into.len() {
        match rustix::io::pread(file, &mut into[got..], at + got as u64) {
            Ok(0) => break,
            Ok(more) => {
                got += more;
                // Only the end of the file is not a whole block.
                if !got.is_multiple_of(BLOCK) {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(got)
}

/// Whether the file system says that it takes direct transfers of our blocks.
pub(super) fn takes_blocks(file: &OwnedFd) -> bool {
    let Ok(stat) = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return false;
    };
    let fits = |align: u32| align > 0 && (BLOCK as u32).is_multiple_of(align);
    StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN)
        && fits(stat.stx_dio_mem_align)
        && fits(stat.stx_dio_offset_align)
}

enum Piece {
    /// Zeros up to here.
    Zeros(usize),
    /// Bytes to be written.
    Data(Range<usize>),
}

/// What comes next in `bytes` after `from`.
fn next_piece(bytes: &[u8], from: usize) -> Piece {
    let mut pieces = bytes[from..].chunks(ZEROS).map(|piece| (is_zero(piece), piece.len()));
    let Some((zero, mut length)) = pieces.next() else { return Piece::Data(from..from) };
    length += pieces.take_while(|(next, _)| *next == zero).map(|(_, length)| length).sum::<usize>();
    if zero { Piece::Zeros(from + length) } else { Piece::Data(from..from + length) }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    rest.iter().all(|byte| *byte == 0) && words.iter().all(|word| *word == [0; 64])
}

/// Memory whose first byte lies aligned.
#[derive(Default)]
pub(super) struct Aligned(Vec<u8>);

impl Aligned {
    /// Its first `length` bytes, whatever they hold.
    pub fn get(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length + BLOCK {
            self.0 = vec![0; length + BLOCK];
        }
        let start = self.0.as_ptr().align_offset(BLOCK).min(BLOCK);
        &mut self.0[start..start + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_left_out_and_everything_else_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = rustix::fs::open(dir.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        let size = 6 * 1024 * 1024_u64;
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = rustix::fs::openat(&folder, "file", flags, Mode::RUSR | Mode::WUSR).unwrap();
        rustix::fs::ftruncate(&file, size).unwrap();
        let direct = Direct::open(&folder, c"file", &file, size, std::iter::once(0..size)).unwrap();
        // Where direct transfers do not work there is nothing to test.
        let Some(direct) = direct else { return };
        let mut memory = Aligned::default();
        let bytes = memory.get(1024 * 1024);
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = if at / 100_000 % 2 == 0 { (at / 4096) as u8 } else { 0 };
        }
        assert!(direct.write(bytes, 8192));
        let mut back = Aligned::default();
        let back = back.get(bytes.len());
        assert_eq!(direct.read(back, 8192), Some(bytes.len()));
        assert!(back == bytes);
        let all = std::fs::read(dir.path().join("file")).unwrap();
        assert!(all[8192..8192 + bytes.len()] == *bytes);
        assert!(all[..8192].iter().chain(&all[8192 + bytes.len()..]).all(|byte| *byte == 0));
        assert_eq!(direct.read(back, size - 4096), Some(4096), "no more than there is");
        let small = Direct::open(&folder, c"file", &file, 1000, std::iter::empty()).unwrap();
        assert!(small.is_none(), "a small file is not worth it");
    }

    #[test]
    fn bytes_are_taken_apart_into_zeros_and_data() {
        let mut bytes = vec![0; 5 * ZEROS + 100];
        bytes[ZEROS] = 1;
        bytes[3 * ZEROS - 1] = 1;
        let mut at = 0;
        let mut found = Vec::new();
        while at < bytes.len() {
            let (kind, to) = match next_piece(&bytes, at) {
                Piece::Zeros(to) => ("zeros", to),
                Piece::Data(part) => ("data", part.end),
            };
            found.push((kind, at, to));
            at = to;
        }
        let expected =
            [("zeros", 0, ZEROS), ("data", ZEROS, 3 * ZEROS), ("zeros", 3 * ZEROS, 5 * ZEROS + 100)];
        assert_eq!(found, expected);
    }
}
