//! Places: directories of the target held open, and names made in them.
//!
//! Nothing here takes a path. A place is reached from the target by opening one name after the other,
//! each with O_NOFOLLOW and O_DIRECTORY, so neither `..` nor a symlink (of the tree, or put there by
//! somebody while we work) can lead out. `openat2` with RESOLVE_BENEATH says the same about several names
//! at once; one name at a time needs no other kernel and no second way.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::sys;

/// How many directories of one chain stay open.
const OPEN_MAX: usize = 64;

/// The way from the target down to a directory of it.
pub(super) struct Descent {
    frames: Vec<Frame>,
    path: Vec<u8>,
}

struct Frame {
    fd: Option<Arc<OwnedFd>>,
    id: ((u32, u32), u64),
    path_len: usize,
}

/// A directory that is left behind on the way to the next entry.
pub(super) struct Left {
    pub fd: Arc<OwnedFd>,
    pub path: Vec<u8>,
}

impl Descent {
    /// Starts in the target itself.
    pub fn new(target: Arc<OwnedFd>) -> Result<Descent, Errno> {
        let meta = sys::stat_fd(&target)?;
        let root = Frame { fd: Some(target), id: (meta.dev, meta.ino), path_len: 0 };
        Ok(Descent { frames: vec![root], path: Vec::new() })
    }

    /// Climbs up until the directory `path` is reached, telling of each directory that is left. `None`
    /// if `path` is not on the way up: then it is no directory we went into.
    pub fn climb(&mut self, path: &[u8], left: &mut impl FnMut(Left)) -> Result<Option<Arc<OwnedFd>>, Errno> {
        while self.path != path {
            if self.path.len() <= path.len() {
                return Ok(None);
            }
            self.up(left)?;
        }
        Ok(self.frames.last().and_then(|frame| frame.fd.clone()))
    }

    /// Climbs out of everything, the target included.
    pub fn finish(mut self, left: &mut impl FnMut(Left)) -> Result<(), Errno> {
        while !self.frames.is_empty() {
            self.up(left)?;
        }
        Ok(())
    }

    fn up(&mut self, left: &mut impl FnMut(Left)) -> Result<(), Errno> {
        let Some(Frame { fd: Some(fd), .. }) = self.frames.pop() else { return Err(Errno::BADF) };
        let path = self.path.clone();
        if let Some(parent) = self.frames.last_mut() {
            if parent.fd.is_none() {
                // Closed on the way down. `..` leads out of the target if somebody moved the directory,
                // so it counts only if it is the very directory we came from.
                let again = open_dir(&fd, c"..")?;
                let meta = sys::stat_fd(&again)?;
                if (meta.dev, meta.ino) != parent.id {
                    return Err(Errno::STALE);
                }
                parent.fd = Some(Arc::new(again));
            }
            self.path.truncate(parent.path_len);
        }
        left(Left { fd, path });
        Ok(())
    }

    /// Goes down into a directory of the current one.
    pub fn enter(&mut self, path: &[u8], fd: OwnedFd) -> Result<(), Errno> {
        let meta = sys::stat_fd(&fd)?;
        self.path = path.to_vec();
        self.frames.push(Frame { fd: Some(Arc::new(fd)), id: (meta.dev, meta.ino), path_len: path.len() });
        if let Some(far) = self.frames.len().checked_sub(OPEN_MAX + 1) {
            self.frames[far].fd = None;
        }
        Ok(())
    }
}

/// Splits a path into its directory and its name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// A name that stays in its directory, or why it does not.
pub(super) fn plain_name(name: &[u8]) -> Result<CString, &'static str> {
    match name {
        b"" => Err("an empty name"),
        b"." | b".." => Err("a name that leads elsewhere"),
        _ if name.contains(&b'/') => Err("a name that is a path"),
        _ if name.len() > repo::object::NAME_BYTES_MAX => Err("a name above 255 bytes"),
        _ => CString::new(name).map_err(|_| "a name with a NUL byte"),
    }
}

/// Opens a directory, never a symlink to one.
pub(super) fn open_dir(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Opens the directory at `path` below `root`, one name at a time.
pub(super) fn open_below(root: &Arc<OwnedFd>, path: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
    let mut at = root.clone();
    for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        let name = plain_name(name).map_err(|_| Errno::INVAL)?;
        at = Arc::new(open_dir(&at, &name)?);
    }
    Ok(at)
}

/// Creates a new file, for us alone until its mode is set.
pub(super) fn create_file(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Names for what is not whole yet.
#[derive(Default)]
pub(super) struct Partials(AtomicU64);

impl Partials {
    /// Makes something under a name of its own: `.holdfast-partial-N`. Whoever finds one of these after a
    /// crash knows that it is not whole.
    pub fn make<T>(&self, mut make: impl FnMut(&CStr) -> Result<T, Errno>) -> Result<(CString, T), Errno> {
        loop {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let name = CString::new(format!(".holdfast-partial-{number}")).map_err(|_| Errno::INVAL)?;
            match make(&name) {
                Err(Errno::EXIST) => {}
                other => return other.map(|made| (name, made)),
            }
        }
    }
}

/// Removes what is there under this name, a directory with all it holds. Follows nothing.
pub(super) fn remove(dir: &Arc<OwnedFd>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    // Depth first with a stack of our own: the tree may be deeper than descriptors allow, so of each
    // level only the name is kept and the way down is walked again.
    loop {
        let mut parent = dir.clone();
        let mut at = name.to_owned();
        'down: loop {
            let inside = Arc::new(open_dir(&parent, &at)?);
            let mut children = Vec::new();
            sys::names(&inside, &mut children)?;
            for (child, _) in children {
                match rustix::fs::unlinkat(&inside, &child, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR | Errno::PERM) => {
                        match rustix::fs::unlinkat(&inside, &child, AtFlags::REMOVEDIR) {
                            Ok(()) | Err(Errno::NOENT) => {}
                            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                                (parent, at) = (inside, child);
                                continue 'down;
                            }
                            Err(e) => return Err(e),
                        }
                    }
                    Err(e) => return Err(e),
                }
            }
            rustix::fs::unlinkat(&parent, &at, AtFlags::REMOVEDIR)?;
            break;
        }
        match sys::stat_at(dir, name) {
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e),
            Ok(_) => {}
        }
    }
}
