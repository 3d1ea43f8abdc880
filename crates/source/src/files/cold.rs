//! Large files that nobody is using are read past the page cache.
//!
//! Through the cache each page of such a file is allocated, copied, and pushes out a page that an application on this
//! machine still needs, for bytes that nobody reads again: of two gigabytes that costs 1.5 seconds of the kernel's
//! time instead of 0.2. What is in the cache already costs nothing there, and is read from there.
//!
//! Which of the two it is, is asked every few megabytes: reading a page without waiting tells whether it is there.
//! Only whole, aligned blocks can be read directly, and not every file system does; whatever does not work goes the
//! ordinary way, which also tells what is wrong. Direct or not, what was written before is what is read: the kernel
//! sees to that.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;

use rustix::fs::{Advice, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::direct::{BLOCK, read_blocks, takes_blocks};
use super::read::read_at;

/// Below this a file is not worth it.
const WORTH_IT: u64 = 16 << 20;
/// So often it is asked whether the file is in the cache.
const STRIDE: u64 = 8 << 20;

/// One file, being read from its beginning to its end.
pub(super) struct Cold<'f> {
    fd: &'f OwnedFd,
    /// Whether it can be read directly.
    able: bool,
    /// Whether it is being read directly.
    direct: bool,
    /// Where it is asked next.
    next: u64,
}

impl<'f> Cold<'f> {
    /// To read so many bytes of this file.
    pub fn new(fd: &'f OwnedFd, bytes: u64) -> Cold<'f> {
        let able = bytes >= WORTH_IT && takes_blocks(fd);
        if able {
            // Asking for a page must not bring its neighbours in. If it does all the same, that is only dearer.
            let _ = rustix::fs::fadvise(fd, 0, None, Advice::Random);
        }
        Cold { fd, able, direct: false, next: 0 }
    }

    /// Fills `buffer` from `offset`; less only at the end of the file.
    pub fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let whole = buffer.len().is_multiple_of(BLOCK)
            && offset.is_multiple_of(BLOCK as u64)
            && buffer.as_ptr().align_offset(BLOCK) == 0;
        if self.able && whole && offset >= self.next {
            self.next = offset + STRIDE;
            self.set(false);
            let cold = self.able && self.is_cold(buffer, offset);
            self.set(cold);
        }
        if !(self.able && whole) {
            self.set(false);
        }
        if self.direct {
            if let Some(got) = read_blocks(self.fd, buffer, offset) {
                return Ok(got);
            }
            self.set(false);
            self.able = false;
        }
        read_at(self.fd, buffer, offset)
    }

    /// Whether what lies here is not in the cache. Some kernels begin to read a page that they are asked for, and a quick
    /// disk has it there before they look: so it is asked for a few, far apart, and one that is not there is enough.
    fn is_cold(&mut self, buffer: &mut [u8], offset: u64) -> bool {
        let apart = (buffer.len() / 4).next_multiple_of(BLOCK).max(BLOCK);
        for at in (0..buffer.len()).step_by(apart) {
            let mut page = [IoSliceMut::new(&mut buffer[at..at + BLOCK])];
            match rustix::io::preadv2(self.fd, &mut page, offset + at as u64, ReadWriteFlags::NOWAIT) {
                Err(Errno::AGAIN) => return true,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => {
                    self.able = false;
                    return false;
                }
            }
        }
        false
    }

    fn set(&mut self, direct: bool) {
        if direct == self.direct {
            return;
        }
        let changed = rustix::fs::fcntl_getfl(self.fd).and_then(|flags| {
            let flags = if direct { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
            rustix::fs::fcntl_setfl(self.fd, flags)
        });
        match changed {
            Ok(()) => self.direct = direct,
            Err(_) => self.able = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::path::Path;
    use std::process::Command;

    use super::super::pool::{BODY, Pool};
    use super::*;

    /// How many of the file's pages are in the cache, as util-linux tells. (Asking for pages would bring them in.)
    fn cached(path: &Path) -> u64 {
        let told =
            Command::new("fincore").args(["--raw", "--noheadings", "--output", "PAGES"]).arg(path).output();
        let told = told.expect("fincore, of the package util-linux");
        assert!(told.status.success(), "{told:?}");
        String::from_utf8(told.stdout).unwrap().trim().parse().unwrap()
    }

    fn forget(fd: &OwnedFd) {
        rustix::fs::fsync(fd).unwrap();
        rustix::fs::fadvise(fd, 0, None, Advice::DontNeed).unwrap();
    }

    #[test]
    fn a_cold_file_is_read_whole_and_stays_out_of_the_cache_and_a_warm_one_stays_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let size = 40 * BODY + 12_345;
        let content: Vec<u8> = (0..size).map(|at| (at / 4096 * 7 + at % 251) as u8).collect();
        let path = dir.path().join("image");
        File::create(&path).unwrap().write_all(&content).unwrap();
        let fd = OwnedFd::from(File::open(&path).unwrap());
        let pool = Pool::default();
        let read = |fd: &OwnedFd, from: usize| {
            let mut cold = Cold::new(fd, size as u64);
            for at in (from..size).step_by(BODY) {
                let mut buffer = pool.take();
                let want = BODY.min(size - at);
                let got = cold.read(&mut buffer.body()[..want], at as u64).unwrap();
                assert!(got == want && buffer.body()[..want] == content[at..at + want], "at {at}");
            }
            (cold.able, cold.direct)
        };
        let able = takes_blocks(&fd);
        // Warm, just written: from the cache. The end is no whole block, and goes the ordinary way.
        assert_eq!(read(&fd, 0), (able, false));
        forget(&fd);
        let before = cached(&path);
        assert_eq!(read(&fd, 0), (able, false));
        let after = cached(&path);
        // The last, cut block and the pages asked for in each stride, with what they bring along; where there are no
        // direct transfers, or nothing leaves the cache, everything.
        assert!(!able || before > 0 || after <= 2 * (BODY / BLOCK) as u64, "{before} {after}");
        // From an odd place nothing lies as it must.
        assert_eq!(read(&fd, 777), (able, false));
    }

    #[test]
    fn a_file_that_became_shorter_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, vec![7; 2 * BODY]).unwrap();
        let fd = OwnedFd::from(File::open(&path).unwrap());
        let pool = Pool::default();
        let mut cold = Cold::new(&fd, 100 * BODY as u64);
        let mut buffer = pool.take();
        assert_eq!(cold.read(buffer.body(), BODY as u64), Ok(BODY));
        assert_eq!(cold.read(buffer.body(), 2 * BODY as u64), Ok(0));
        File::options().write(true).open(&path).unwrap().set_len(BODY as u64 + 5_000).unwrap();
        forget(&fd);
        let mut cold = Cold::new(&fd, 100 * BODY as u64);
        assert_eq!(cold.read(buffer.body(), BODY as u64), Ok(5_000));
    }
}
