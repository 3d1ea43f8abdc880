//! Where a spool lies, and what becomes of one whose process died.
//!
//! A spool is a folder `<16 hex digits>` with packs in it, and beside it `<the same>.lock`, locked by its process for as
//! long as that lives: the kernel lets go of the lock whatever ends it, also across containers of one node. The lock is
//! there before the folder and goes after it. So a folder whose lock can be had is a leftover.
//!
//! A leftover belongs to no commit. [`Leftover::remove`] forgets it; [`Leftover::send`] saves what was uploaded for nothing:
//! the packs go to the store and an index segment names them, so the next backup finds their chunks. What is torn does not
//! hash to its name and is left out.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::super::local::LocalStore;
use super::super::{Store, StoreError, list_all};
use crate::env::Env;
use crate::error::Error;
use crate::id::{PACKS, PackId};
use crate::index::Segment;
use crate::lease::{LEASE, ReliedOn, Session};
use crate::monitor::{Finding, Outcome};
use crate::pack::Pack;
use crate::reindex::{SEGMENT_CHUNKS, add, put_segment};
use crate::repo::Repository;

/// Hex digits of a spool's name.
const NAME_LEN: usize = 16;
/// How often another name is tried: each is random, and only who repeats dice needs a second.
const NAMES_MAX: usize = 100;

fn trouble(path: &Path, what: &str, error: &io::Error) -> StoreError {
    let (key, url) = (String::new(), path.display().to_string());
    let reason = format!("cannot {what}: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => StoreError::Denied { key, url, reason },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Full { key, url, reason }
        }
        _ => StoreError::Other { key, url, reason },
    }
}

/// A spool's folder, whose lock this process has.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    lock: PathBuf,
    /// Held open: the lock goes with it.
    _held: File,
}

impl Place {
    /// A new one in `dir`.
    pub(super) fn make(dir: &Path, env: &Env) -> Result<Place, StoreError> {
        let make = |path: &Path| DirBuilder::new().mode(0o700).recursive(path == dir).create(path);
        make(dir).map_err(|error| trouble(dir, "create the spool's directory", &error))?;
        for _ in 0..NAMES_MAX {
            let mut name = [0; NAME_LEN / 2];
            env.random(&mut name).map_err(|error| trouble(dir, "name a spool", &io::Error::other(error)))?;
            let folder = dir.join(HEXLOWER.encode(&name));
            let Some(place) = Place::take(folder)? else { continue };
            match make(&place.folder) {
                Ok(()) => return Ok(place),
                // A leftover of this very name; its lock is left to whoever looks for those.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let _ = std::fs::remove_file(&place.lock);
                    return Err(trouble(&place.folder, "create a spool", &error));
                }
            }
        }
        Err(trouble(dir, "create a spool", &io::Error::other("every name that was tried is taken")))
    }

    /// The place of this folder, whether that is there or not; `None` while somebody else has it.
    fn take(folder: PathBuf) -> Result<Option<Place>, StoreError> {
        let lock = folder.with_extension("lock");
        let held = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
        let held = held.map_err(|error| trouble(&lock, "open a spool's lock", &error))?;
        match rustix::fs::flock(held.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(trouble(&lock, "lock a spool", &errno.into())),
        }
        // Removed between the two calls by whoever had it: this is the lock of nothing.
        let linked =
            held.metadata().map_err(|error| trouble(&lock, "look at a spool's lock", &error))?.nlink();
        Ok((linked > 0).then_some(Place { folder, lock, _held: held }))
    }

    /// Removes folder and lock, in this order.
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(trouble(&self.folder, "remove a spool", &error));
            }
            _ => {}
        }
        match std::fs::remove_file(&self.lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(trouble(&self.lock, "remove a spool's lock", &error))
            }
            _ => Ok(()),
        }
    }
}

/// The spool of a process that died.
#[derive(Debug)]
pub struct Leftover {
    place: Place,
    disk: LocalStore,
    packs: Vec<(PackId, u64)>,
}

/// What was sent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packs, which an index segment names now.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The spools in `dir` whose processes died. Each is this process's as long as the value lives.
pub fn leftovers(dir: &Path) -> Result<Vec<Leftover>, StoreError> {
    let failed = |error: io::Error| trouble(dir, "look for spools", &error);
    let mut names: Vec<String> = Vec::new();
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
        Ok(entries) => {
            for entry in entries {
                // Both the folder and its lock tell of a spool.
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                names.push(name.strip_suffix(".lock").map_or(name.clone(), str::to_owned));
            }
        }
    }
    names.retain(|name| name.len() == NAME_LEN && HEXLOWER.decode(name.as_bytes()).is_ok());
    names.sort_unstable();
    names.dedup();
    let mut found = Vec::new();
    for name in names {
        let Some(place) = Place::take(dir.join(name))? else { continue };
        if !place.folder.is_dir() {
            place.remove()?;
            continue;
        }
        let disk = LocalStore::new(&place.folder)?;
        let packs = list_all(&disk, PACKS)?;
        let packs = packs.iter().filter_map(|object| Some((PackId::from_key(&object.key)?, object.size)));
        found.push(Leftover { packs: packs.collect(), place, disk });
    }
    Ok(found)
}

impl Leftover {
    /// How many packs are in it, torn ones included.
    pub fn packs(&self) -> usize {
        self.packs.len()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.packs.iter().map(|(_, size)| size).sum()
    }

    /// Removes it.
    pub fn remove(self) -> Result<(), StoreError> {
        self.place.remove()
    }

    /// Sends its packs on, has the index name them, and removes it. On an error it stays, and may be sent again. A pack
    /// that is torn, or of another repository, is a finding. Needs the put or the read key.
    pub fn send(self, repo: &Repository) -> Result<Outcome<Sent>, Error> {
        // Before anything is relied on (R3): it may have been sent before, and collected since.
        let session = Session::begin(
            repo,
            LEASE,
            #[cfg(test)]
            crate::lease::Sabotage::None,
        )?;
        let sent = self.send_as(&session, repo);
        session.end();
        let outcome = sent?;
        self.place.remove()?;
        Ok(outcome)
    }

    fn send_as(&self, session: &Session, repo: &Repository) -> Result<Outcome<Sent>, Error> {
        let mut outcome = Outcome::clean(Sent::default());
        let (mut segment, mut relied) = (Segment::default(), Relied { repo, packs: HashSet::new() });
        for (id, _) in self.packs.iter().filter(|(id, _)| !session.condemned().contains(id)) {
            let parsed = self.disk.get(&id.key()).map_err(|error| error.to_string());
            let parsed = parsed.and_then(|bytes| {
                Pack::parse(repo.secrets(), id, bytes.clone()).map(|pack| (bytes, pack.entries))
            });
            let (bytes, entries) = match parsed {
                Ok(parsed) => parsed,
                Err(what) => {
                    outcome.findings.push(Finding::note(
                        "spooled-pack-torn",
                        id.key(),
                        format!("{what}; no commit needs it, and it was removed from the spool"),
                    ));
                    continue;
                }
            };
            let size = bytes.len() as u32;
            repo.put_content(&id.key(), bytes)?;
            if segment.chunks.len() + entries.len() > SEGMENT_CHUNKS {
                put_segment(repo, std::mem::take(&mut segment))?;
            }
            add(&mut segment, *id, size, entries);
            relied.packs.insert(*id);
            outcome.done.packs += 1;
            outcome.done.bytes += u64::from(size);
        }
        if !segment.chunks.is_empty() {
            put_segment(repo, segment)?;
        }
        session.look_again(&relied)?;
        Ok(outcome)
    }
}

/// What the segments rely on.
struct Relied<'r> {
    repo: &'r Repository,
    packs: HashSet<PackId>,
}

impl ReliedOn for Relied<'_> {
    fn relies_on(&self, pack: &PackId) -> bool {
        self.packs.contains(pack)
    }

    fn all_present(&self) -> Result<(), Error> {
        let mut missing: HashSet<PackId> = self.packs.clone();
        self.repo.store().list(PACKS, &mut |object| {
            PackId::from_key(&object.key).map(|id| missing.remove(&id));
            Ok(())
        })?;
        match missing.iter().min() {
            None => Ok(()),
            Some(id) => Err(Error::missing(id.key(), "it was sent on from a spool a moment ago")),
        }
    }
}
