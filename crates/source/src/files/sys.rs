//! The few questions asked of the operating system about one file: status, attributes, and a way to
//! open it that neither follows a symlink nor marks it as read.
//!
//! Everything is relative to an open directory and names one component, so neither the length of a
//! path nor a symlink on the way to it matters.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub dev: (u32, u32),
    pub ino: u64,
    pub kind: FileType,
    /// The 12 permission bits.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: (u32, u32),
    pub size: u64,
    /// Allocated, in units of 512 bytes.
    pub blocks: u64,
    pub mtime: i64,
    pub ctime: i64,
}

impl Meta {
    /// A file that was not written between two looks has the same of these.
    pub fn same_content(&self, other: &Meta) -> bool {
        (self.dev, self.ino, self.size, self.mtime, self.ctime)
            == (other.dev, other.ino, other.size, other.mtime, other.ctime)
    }

    /// Fewer blocks than bytes: there may be holes (or data kept inside the inode).
    pub fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }
}

fn nanoseconds(time: StatxTimestamp) -> i64 {
    // Instants outside of 1677 to 2262 do not fit the format; they stop at its ends.
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
}

fn statx(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Meta, Errno> {
    let s = rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)?;
    let mode = u32::from(s.stx_mode);
    Ok(Meta {
        dev: (s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        kind: FileType::from_raw_mode(mode),
        mode: mode & 0o7777,
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: (s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blocks: s.stx_blocks,
        mtime: nanoseconds(s.stx_mtime),
        ctime: nanoseconds(s.stx_ctime),
    })
}

/// The status of the entry itself, never of what a symlink points to.
pub(super) fn stat_at(dir: impl AsFd, name: &CStr) -> Result<Meta, Errno> {
    statx(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

/// The status of an open file.
pub(super) fn stat_fd(fd: impl AsFd) -> Result<Meta, Errno> {
    statx(fd.as_fd(), c"", AtFlags::EMPTY_PATH)
}

/// Opens a file for reading. O_NOATIME needs ownership, so it is tried and done without; O_NONBLOCK
/// keeps a FIFO that took the place of a file from holding us up.
pub(super) fn open_file(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    open(dir.as_fd(), name, OFlags::NONBLOCK)
}

/// Opens a directory for reading its names.
pub(super) fn open_dir(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    open(dir.as_fd(), name, OFlags::DIRECTORY)
}

fn open(dir: BorrowedFd<'_>, name: &CStr, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    let opened = match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    };
    match opened {
        // Only a lease says this, as file servers take on files: it is being given back, so wait for it.
        Err(Errno::AGAIN) => rustix::fs::openat(dir, name, flags - OFlags::NONBLOCK, Mode::empty()),
        other => other,
    }
}

/// Adds the names of a directory, but `.` and `..`. After an error, those read before it are there.
pub(super) fn names(dir: impl AsFd, names: &mut Vec<(CString, FileType)>) -> Result<(), Errno> {
    each_name(dir, &mut |name, kind| names.push((name.to_owned(), kind)))
}

/// Tells the names of a directory, but `.` and `..`, in no order, until there are no more or an error.
pub(super) fn each_name(dir: impl AsFd, each: &mut dyn FnMut(&CStr, FileType)) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut listing = RawDir::new(dir, &mut buffer);
    while let Some(entry) = listing.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            each(entry.file_name(), entry.file_type());
        }
    }
    Ok(())
}

/// Extended attributes by name, and the names of those whose value could not be read.
pub(super) type Xattrs = (BTreeMap<Vec<u8>, Vec<u8>>, Vec<Vec<u8>>);

/// The extended attributes of an open file. A file system without them has none.
pub(super) fn xattrs_fd(fd: impl AsFd) -> Result<Xattrs, Errno> {
    let fd = fd.as_fd();
    xattrs(|buf| rustix::fs::flistxattr(fd, buf), |name, buf| rustix::fs::fgetxattr(fd, name, buf))
}

/// The extended attributes of an entry that is not opened: a symlink, a FIFO, a device. There is no
/// call for them relative to a directory before Linux 6.13, so the way goes through /proc.
pub(super) fn xattrs_at(dir: impl AsFd, name: &CStr) -> Result<Xattrs, Errno> {
    let path = proc_path(dir, name);
    xattrs(
        |buf| rustix::fs::llistxattr(path.as_slice(), buf),
        |name, buf| rustix::fs::lgetxattr(path.as_slice(), name, buf),
    )
}

/// `/proc/self/fd/N/name`: an entry of an open directory, for calls that only take paths.
pub(super) fn proc_path(dir: impl AsFd, name: &CStr) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    path
}

fn xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> Result<Xattrs, Errno> {
    let mut small = [0u8; 256];
    let mut large = Vec::new();
    let names: &[u8] = match list(&mut small) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Default::default()),
        Ok(n) => &small[..n],
        Err(Errno::RANGE) => {
            large.resize(XATTR_MAX, 0);
            let n = list(&mut large)?;
            &large[..n]
        }
        Err(e) => return Err(e),
    };
    let mut value = vec![0u8; XATTR_MAX];
    let (mut found, mut unreadable) = (BTreeMap::new(), Vec::new());
    for name in names.split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        match get(name, &mut value) {
            Ok(n) => {
                found.insert(name.to_bytes().to_vec(), value[..n].to_vec());
            }
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(_) => unreadable.push(name.to_bytes().to_vec()),
        }
    }
    Ok((found, unreadable))
}

/// The kernel's limit for the names together and for one value.
const XATTR_MAX: usize = 65_536;
