//! What the target holds and the tree does not name.
//!
//! Both are read side by side in the same order, so nothing but the names of the directories on the way
//! down is held in memory. A directory that is not named is told once, not entry by entry.

use std::cmp::Ordering;
use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use repo::{Cancel, NodeKind};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::error::Error;
use super::names::Names;
use super::place::{self, Descent};
use super::restore::{Entries, Shared};
use super::sys;

/// What a restore with `Mirror` would remove, as paths below `target`, in order. A directory is named
/// once; so is one that stands where the tree has something else.
pub(super) fn others(
    entries: Entries<'_>,
    dir: &Arc<OwnedFd>,
    target: &Path,
    cancel: &Cancel,
) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    each_other(entries, dir, target, cancel, &mut |_, _, path| {
        paths.push(PathBuf::from(OsStr::from_bytes(path)));
        Ok(())
    })?;
    Ok(paths)
}

/// Removes what the tree does not name. Tells how many, directories counting once.
pub(super) fn remove_others(
    shared: &Shared<'_>,
    entries: Entries<'_>,
    dir: &Arc<OwnedFd>,
) -> Result<u64, Error> {
    let mut removed = 0;
    each_other(entries, dir, shared.target, shared.cancel, &mut |dir, name, path| {
        match place::remove(dir, name) {
            Ok(()) => removed += 1,
            Err(Errno::NOENT) => {}
            Err(e) => shared.found(repo::Finding::error(
                "not-removed",
                super::shown(path),
                format!("the recovery point does not name it, and it could not be removed ({e})"),
            )),
        }
        Ok(())
    })?;
    Ok(removed)
}

type Each<'e> = dyn FnMut(&Arc<OwnedFd>, &CStr, &[u8]) -> Result<(), Errno> + 'e;

fn each_other(
    entries: Entries<'_>,
    dir: &Arc<OwnedFd>,
    target: &Path,
    cancel: &Cancel,
    each: &mut Each<'_>,
) -> Result<(), Error> {
    let failed = |e: Errno| Error::Target { path: target.to_path_buf(), doing: "compare", source: e.into() };
    let mut entries = entries.peekable();
    let mut descent = Descent::new(dir.clone()).map_err(failed)?;
    let mut way = vec![(Vec::new(), sorted_names(dir).map_err(failed)?)];
    while let Some((parent, names)) = way.last_mut() {
        cancel.check()?;
        let Some((name, _)) = names.pop() else {
            way.pop();
            continue;
        };
        // The file system's own; never in a tree's way.
        if parent.is_empty() && name.to_bytes() == b"lost+found" {
            continue;
        }
        let mut path = parent.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let Some(inside) = descent.climb(parent, &mut |_| {}).map_err(failed)? else { continue };
        let is_directory = match sys::stat_at(&inside, &name) {
            Ok(meta) => meta.kind == FileType::Directory,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(failed(e)),
        };
        let named = loop {
            match entries.peek() {
                None => break None,
                Some(Err(_)) => {
                    // What cannot be read might name it: nothing more is told to be removed.
                    return match entries.next() {
                        Some(Err(error)) => Err(error.into()),
                        _ => Ok(()),
                    };
                }
                Some(Ok(entry)) => match repo::walk_order(&entry.path, &path) {
                    Ordering::Less => drop(entries.next()),
                    Ordering::Equal => break Some(entry.kind == NodeKind::Directory),
                    Ordering::Greater => break None,
                },
            }
        };
        match (named, is_directory) {
            (Some(true), true) => {
                let fd = place::open_dir(&inside, &name).map_err(failed)?;
                let names = sorted_names(&fd).map_err(failed)?;
                descent.enter(&path, fd).map_err(failed)?;
                way.push((path, names));
            }
            (None, _) | (Some(false), true) => each(&inside, &name, &path).map_err(failed)?,
            (Some(_), false) => {}
        }
    }
    Ok(())
}

fn sorted_names(dir: &OwnedFd) -> Result<Names, Errno> {
    let (names, outcome) = Names::read(dir);
    outcome.map(|()| names)
}
