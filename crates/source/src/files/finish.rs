//! Finishing: hard links are made when every file is whole, and directories get their attributes on the
//! way out of them, when nothing below them changes any more.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use repo::{NodeKind, TreeEntry};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::error::Error;
use super::place::{self, Descent, plain_name, split};
use super::placing::is_below;
use super::restore::{Entries, Restored, Shared, Trouble, lock};
use super::{shown, sys};

/// The last step: hard links, and directories on the way out of them.
pub(super) struct Finishing<'a, 's> {
    pub shared: &'a Shared<'s>,
    pub blocked: &'a BTreeSet<Vec<u8>>,
    pub done: &'a mut Restored,
    pub root: Arc<OwnedFd>,
}

impl Finishing<'_, '_> {
    /// Finishes everything. What goes wrong is booked with what is shared.
    pub fn run(&mut self, entries: Entries<'_>, target: &Arc<OwnedFd>) {
        if let Err(error) = self.settle(entries, target) {
            self.shared.end(error);
        }
    }

    fn settle(&mut self, entries: Entries<'_>, target: &Arc<OwnedFd>) -> Result<(), Error> {
        let shared = self.shared;
        let lost = |e| shared.fatal_error(e, "find the way back in");
        let mut descent = Descent::new(target.clone()).map_err(lost)?;
        // Directories we are in, to be settled on the way out.
        let mut inside: Vec<TreeEntry> = Vec::new();
        let mut blocked: Option<Vec<u8>> = None;
        for entry in entries {
            let entry = entry?;
            if shared.stopped() {
                return Ok(());
            }
            if blocked.as_ref().is_some_and(|blocked| is_below(&entry.path, blocked)) {
                continue;
            }
            if !matches!(entry.kind, NodeKind::Directory | NodeKind::HardLink { .. }) {
                continue;
            }
            if entry.path.is_empty() {
                inside.push(entry);
                continue;
            }
            let refuse = |what: &str| Error::Refused { path: shown(&entry.path), what: what.into() };
            let (parent, name) = split(&entry.path);
            let name = plain_name(name).map_err(refuse)?;
            let dir = descent.climb(parent, &mut |left| leave(shared, &mut inside, &left)).map_err(lost)?;
            let Some(dir) = dir else { return Err(refuse("its parent is no directory of the tree")) };
            if self.blocked.contains(&entry.path) {
                blocked = Some(entry.path);
                continue;
            }
            match &entry.kind {
                NodeKind::HardLink { target } => match self.link(&dir, &name, target) {
                    Ok(()) => {
                        shared.progress.add(1, 0);
                        self.done.hardlinks += 1;
                    }
                    Err(trouble) => shared.not_restored(&entry.path, trouble),
                },
                _ => match place::open_dir(&dir, &name) {
                    Ok(fd) => {
                        descent.enter(&entry.path, fd).map_err(lost)?;
                        inside.push(entry);
                    }
                    Err(e) => {
                        shared.not_restored(&entry.path, e.into());
                        blocked = Some(entry.path);
                    }
                },
            }
        }
        descent.finish(&mut |left| leave(shared, &mut inside, &left)).map_err(lost)
    }

    fn link(&self, dir: &Arc<OwnedFd>, name: &CString, target: &[u8]) -> Result<(), Trouble> {
        let shared = self.shared;
        if !lock(&shared.link_targets).has(target)? {
            // The file it repeats is damaged or was no file of this tree; both are told there.
            return Err(Trouble::Os(Errno::NOENT));
        }
        let (parent, target) = split(target);
        let from = place::open_below(&self.root, parent)?;
        let target = plain_name(target).map_err(|_| Errno::INVAL)?;
        if sys::stat_at(&from, &target)?.kind != FileType::RegularFile {
            return Err(Trouble::Os(Errno::NOENT));
        }
        shared.make(dir, name, |name| rustix::fs::linkat(&from, &target, dir, name, AtFlags::empty()))
    }
}

/// Settles a directory when nothing below it changes any more.
fn leave(shared: &Shared<'_>, inside: &mut Vec<TreeEntry>, left: &place::Left) {
    let Some(entry) = inside.pop_if(|entry| entry.path == left.path) else { return };
    if let Err(e) =
        shared.remove_other_attributes(&left.fd, &entry).and_then(|()| shared.settle.open(&left.fd, &entry))
    {
        shared.not_restored(&entry.path, e.into());
    }
}

impl Shared<'_> {
    /// A directory that was there before may have attributes that the tree does not give it.
    fn remove_other_attributes(&self, dir: &OwnedFd, entry: &TreeEntry) -> Result<(), Errno> {
        if !self.replace {
            return Ok(());
        }
        let (there, _) = sys::xattrs_fd(dir)?;
        for name in there.keys().filter(|name| !entry.xattrs.contains_key(*name)) {
            // Labels of the security modules are the machine's own matter.
            if !name.starts_with(b"security.") {
                let _ = rustix::fs::fremovexattr(dir, name.as_slice());
            }
        }
        Ok(())
    }
}
