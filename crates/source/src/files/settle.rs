//! Settling: what a file has besides its content, set in the one order that works and looked at again.
//!
//! Owner first, because changing it clears the set-id bits and file capabilities. Then the attributes,
//! ACLs among them; then the mode, which a new ACL would have changed; the times last.
//!
//! What we are not permitted to set does not end a restore: it is counted, and told once with its number.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use repo::{Finding, TreeEntry};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::shown;
use super::sys::{self, Meta};

/// Counts what could not be set.
#[derive(Default)]
pub(super) struct Shortfalls(Mutex<BTreeMap<&'static str, Shortfall>>);

struct Shortfall {
    count: u64,
    first: Vec<u8>,
    why: String,
    advice: &'static str,
}

impl Shortfalls {
    pub fn add(&self, code: &'static str, path: &[u8], why: impl FnOnce() -> String, advice: &'static str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(code)
            .or_insert_with(|| Shortfall { count: 0, first: path.to_vec(), why: why(), advice })
            .count += 1;
    }

    pub fn findings(&self) -> Vec<Finding> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let finding = |(code, s): (&&'static str, &Shortfall)| {
            let message = match s.count {
                1 => format!("{}; {}", s.why, s.advice),
                n => format!("{} (and {} more entries like it); {}", s.why, n - 1, s.advice),
            };
            Finding::warning(code, shown(&s.first), message)
        };
        all.iter().map(finding).collect()
    }
}

/// How to settle.
pub(super) struct Settle {
    /// Whether owners are wanted at all.
    pub owners: bool,
    pub shortfalls: Shortfalls,
}

/// What the calls below act on: an open file or directory, or an entry that is not opened.
enum Place<'f> {
    Open(BorrowedFd<'f>),
    Handle(BorrowedFd<'f>),
}

impl Settle {
    /// Settles an open file or directory.
    pub fn open(&self, fd: impl AsFd, entry: &TreeEntry) -> Result<Meta, Errno> {
        self.all(&Place::Open(fd.as_fd()), entry, true)
    }

    /// Settles what is not opened, by a handle on it. A symlink has no mode of its own.
    pub fn handle(&self, made: &OwnedFd, entry: &TreeEntry, has_mode: bool) -> Result<Meta, Errno> {
        self.all(&Place::Handle(made.as_fd()), entry, has_mode)
    }

    fn all(&self, place: &Place<'_>, entry: &TreeEntry, has_mode: bool) -> Result<Meta, Errno> {
        let path = &entry.path;
        let missed = |code, e: Errno, what: String, advice| {
            self.shortfalls.add(code, path, || format!("{what} cannot be set ({e})"), advice);
        };
        let mut owner_set = false;
        if self.owners {
            match place.chown(entry.uid, entry.gid) {
                Ok(()) => owner_set = true,
                Err(e @ (Errno::PERM | Errno::INVAL | Errno::NOTSUP)) => missed(
                    "owner-not-set",
                    e,
                    format!("owner {}:{}", entry.uid, entry.gid),
                    "run as root to restore owners, or ask for a restore without them",
                ),
                Err(e) => return Err(e),
            }
        }
        for (name, value) in &entry.xattrs {
            let set = CString::new(name.as_slice()).map_err(|_| Errno::INVAL);
            match set.and_then(|name| place.set_xattr(&name, value)) {
                Ok(()) => {}
                // Even «no space»: it may be that of the inode. If it is the disk's, the next write tells.
                Err(e) => missed(
                    "attribute-not-set",
                    e,
                    format!("the extended attribute {}", shown(name)),
                    "run as root, on a file system that has such attributes",
                ),
            }
        }
        if has_mode {
            match place.chmod(entry.mode) {
                Ok(()) => {}
                Err(e @ (Errno::PERM | Errno::NOTSUP)) => missed(
                    "mode-not-set",
                    e,
                    format!("mode {:o}", entry.mode),
                    "run as root, on a file system that has permissions",
                ),
                Err(e) => return Err(e),
            }
        }
        place.set_mtime(entry.mtime)?;
        let meta = place.stat()?;
        if has_mode && meta.mode != entry.mode {
            missed(
                "mode-not-set",
                Errno::PERM,
                format!("mode {:o} (it is {:o})", entry.mode, meta.mode),
                "run as root, on a file system that has permissions",
            );
        }
        if owner_set && (meta.uid, meta.gid) != (entry.uid, entry.gid) {
            missed(
                "owner-not-set",
                Errno::PERM,
                format!("owner {}:{}", entry.uid, entry.gid),
                "run as root to restore owners, or ask for a restore without them",
            );
        }
        if meta.mtime != entry.mtime {
            // Told, because change detection of others compares it.
            self.shortfalls.add(
                "time-rounded",
                path,
                || format!("the file system keeps the time {} as {}", entry.mtime, meta.mtime),
                "its times are coarser or its years fewer than those of the origin",
            );
        }
        Ok(meta)
    }
}

impl Place<'_> {
    fn chown(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        // All ones would mean «leave as it is».
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Place::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            Place::Handle(fd) => rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn set_xattr(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        match self {
            Place::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            // The link in /proc leads to what we hold, whatever its name means by now.
            Place::Handle(fd) => {
                rustix::fs::setxattr(proc_fd(fd).as_c_str(), name, value, XattrFlags::empty())
            }
        }
    }

    fn chmod(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Place::Open(fd) => rustix::fs::fchmod(fd, mode),
            Place::Handle(fd) => rustix::fs::chmod(proc_fd(fd).as_c_str(), mode),
        }
    }

    fn set_mtime(&self, mtime: i64) -> Result<(), Errno> {
        let time = Timespec {
            tv_sec: mtime.div_euclid(1_000_000_000),
            tv_nsec: mtime.rem_euclid(1_000_000_000) as _,
        };
        // Reading it is not what happened to it: the access time starts with the modification time.
        let times = Timestamps { last_access: time, last_modification: time };
        match self {
            Place::Open(fd) => rustix::fs::futimens(fd, &times),
            Place::Handle(fd) => rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH),
        }
    }

    fn stat(&self) -> Result<Meta, Errno> {
        match self {
            Place::Open(fd) | Place::Handle(fd) => sys::stat_fd(fd),
        }
    }
}

fn proc_fd(fd: &BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// A handle on an entry that must not be opened, to settle exactly that and not what took its place.
pub(super) fn handle(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The attribute that makes what is created in a directory inherit an ACL.
pub(super) const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
