//! A repository in a directory: a local disk, an NFS or SMB mount, a volume in a pod.
//!
//! A put writes to `tmp/`, flushes, links the file to its name without replacing, and flushes the folder, so
//! that a crash at any moment leaves the whole object or none (R1, R2). Where the file system has no hard
//! links it renames without replacing; where it has neither, the put fails and says so, because there is no
//! other way to keep two writers from replacing each other.
//!
//! The directory may be writable by others than its owner, so nothing in it is trusted: every component below
//! the root is opened without following symbolic links, and what is not a regular file is refused.
//! What a crash leaves in `tmp/` is never listed or read.
//!
//! Packs are written and read past the page cache (`direct.rs`): they would only push out what others need.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::direct::Direct;
use super::probe::PROBES;
use super::{Object, Put, Store, StoreError, check_key, range_end};
use crate::env::Timestamp;
use crate::id::CLAIMS;
use crate::pack::PACK_BYTES_MAX;

/// Where puts are staged.
const TMP: &str = "tmp";
/// Files kept open for range reads.
const OPEN_FILES_MAX: usize = 32;

const FOLDER_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);

/// Whether the folder of this key goes with the last object in it: what a probe, or making a repository, needed once.
fn passes(key: &str) -> bool {
    key.starts_with(PROBES) || key.starts_with(CLAIMS)
}

/// A file kept open for range reads.
struct Open {
    file: File,
    /// The same file for reads past the page cache, once one was asked for, if the file system has them.
    direct: OnceLock<Option<File>>,
}

/// A directory as a store.
pub struct LocalStore {
    root: PathBuf,
    url: String,
    open_files: Mutex<VecDeque<(String, Arc<Open>)>>,
    staged: AtomicU64,
    direct: Direct,
    /// Whether to try hard links first; always, but in the test of what comes without them.
    hard_links: bool,
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStore").field("root", &self.root).finish_non_exhaustive()
    }
}

impl LocalStore {
    /// The store in this directory, which the first put creates if it is not there yet.
    pub fn new(root: &Path) -> Result<LocalStore, StoreError> {
        let url = root.display().to_string();
        match std::fs::metadata(root) {
            Ok(meta) if !meta.is_dir() => {
                let reason = "is not a directory; give the directory of the repository".to_owned();
                Err(StoreError::Invalid { key: String::new(), url, reason })
            }
            // Missing, or not accessible: the first call says so with its key.
            _ => Ok(LocalStore {
                root: root.to_owned(),
                url,
                open_files: Mutex::default(),
                staged: AtomicU64::new(0),
                direct: Direct::default(),
                hard_links: true,
            }),
        }
    }

    fn root(&self, key: &str) -> Result<OwnedFd, StoreError> {
        // The root itself may be a link: the user named it.
        rustix::fs::open(&self.root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| self.error(key, "open the directory", errno))
    }

    /// Opens the folder of a key, or makes it.
    fn folder(&self, key: &str, folder: &str, make: bool) -> Result<OwnedFd, StoreError> {
        let mut at = match self.root(key) {
            Err(StoreError::NotFound { .. }) if make => {
                std::fs::create_dir_all(&self.root)
                    .map_err(|e| self.io_error(key, "create the directory", &e))?;
                self.root(key)?
            }
            root => root?,
        };
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            at = match open_folder(&at, part) {
                Err(Errno::NOENT) if make => {
                    match rustix::fs::mkdirat(&at, part, FOLDER_MODE) {
                        Ok(()) => self.flush_folder(&at, key)?,
                        // Another writer was faster.
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(self.error(key, "create a folder", errno)),
                    }
                    open_folder(&at, part).map_err(|errno| self.folder_error(key, &at, part, errno))?
                }
                opened => opened.map_err(|errno| self.folder_error(key, &at, part, errno))?,
            };
        }
        Ok(at)
    }

    fn folder_error(&self, key: &str, at: &OwnedFd, part: &str, errno: Errno) -> StoreError {
        if is_link(at, part) {
            return self.link_error(key, part);
        }
        match errno {
            // A file where a folder should be holds no object below it.
            Errno::NOTDIR => StoreError::NotFound { key: key.to_owned(), url: self.url.clone() },
            errno => self.error(key, "open a folder", errno),
        }
    }

    fn link_error(&self, key: &str, part: &str) -> StoreError {
        StoreError::Invalid {
            key: key.to_owned(),
            url: self.url.clone(),
            reason: format!(
                "{part:?} is a symbolic link, which a repository never holds and which is not followed; \
                 replace it by what it points to"
            ),
        }
    }

    /// Opens an object and asks for its size.
    fn open(&self, key: &str) -> Result<(File, u64), StoreError> {
        self.open_as(key, OFlags::empty())
    }

    fn open_as(&self, key: &str, more: OFlags) -> Result<(File, u64), StoreError> {
        check_key(key, &self.url)?;
        let (folder, name) = split(key);
        let at = self.folder(key, folder, false)?;
        // NONBLOCK: a FIFO somebody planted must not hold us for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
        let file = match rustix::fs::openat(&at, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::LOOP) => return Err(self.link_error(key, name)),
            Err(errno) => return Err(self.error(key, "open", errno)),
        };
        let meta = file.metadata().map_err(|e| self.io_error(key, "stat", &e))?;
        if !meta.is_file() {
            return Err(self.other(key, "is not a regular file".to_owned()));
        }
        Ok((file, meta.len()))
    }

    /// An open file for range reads, from the few kept.
    fn cached(&self, key: &str) -> Result<Arc<Open>, StoreError> {
        if let Some((_, file)) = self.open_files().iter().find(|(open, _)| open == key) {
            return Ok(file.clone());
        }
        let (file, _) = self.open(key)?;
        let file = Arc::new(Open { file, direct: OnceLock::new() });
        let mut open_files = self.open_files();
        if open_files.len() >= OPEN_FILES_MAX {
            open_files.pop_front();
        }
        open_files.push_back((key.to_owned(), file.clone()));
        Ok(file)
    }

    // A thread that panicked while holding the lock left a whole list behind: every change is one push or pop.
    fn open_files(&self) -> MutexGuard<'_, VecDeque<(String, Arc<Open>)>> {
        self.open_files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes and flushes a new file in `tmp/`; returns its name.
    fn stage(&self, key: &str, tmp: &OwnedFd, bytes: &[u8]) -> Result<(String, File), StoreError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let process = std::process::id();
        loop {
            // Another host that shares the directory may have the same process id, and so may a crashed
            // predecessor: EXCL tells, and the next number is tried.
            let name = format!("{process}-{}", self.staged.fetch_add(1, Ordering::Relaxed));
            match rustix::fs::openat(tmp, name.as_str(), flags, FILE_MODE) {
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(self.error(key, "create a file in tmp/", errno)),
                Ok(fd) => {
                    let file = File::from(fd);
                    let written = self.direct.write(&file, bytes).and_then(|()| file.sync_all());
                    if let Err(error) = written {
                        unstage(tmp, &name);
                        return Err(self.io_error(key, "write", &error));
                    }
                    return Ok((name, file));
                }
            }
        }
    }

    /// Gives the staged file its name, unless it is taken.
    fn publish(
        &self,
        key: &str,
        (tmp, staged, file): (&OwnedFd, &str, &File),
        (folder, name): (&OwnedFd, &str),
    ) -> Result<Put, StoreError> {
        let linked = match self.hard_links {
            true => rustix::fs::linkat(tmp, staged, folder, name, AtFlags::empty()),
            false => Err(Errno::OPNOTSUPP),
        };
        match linked {
            Ok(()) => {
                unstage(tmp, staged);
                return Ok(Put::Created);
            }
            Err(Errno::EXIST) => {
                // Over NFS an answer can be lost and the repeated request meets its own link: two names tell.
                let ours = rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink == 2);
                unstage(tmp, staged);
                return Ok(if ours { Put::Created } else { Put::Exists });
            }
            // No hard links on this file system.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {}
            Err(errno) => {
                unstage(tmp, staged);
                return Err(self.error(key, "link", errno));
            }
        }
        match rustix::fs::renameat_with(tmp, staged, folder, name, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Put::Created),
            Err(errno) => {
                unstage(tmp, staged);
                match errno {
                    Errno::EXIST => Ok(Put::Exists),
                    Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => Err(StoreError::Invalid {
                        key: key.to_owned(),
                        url: self.url.clone(),
                        reason: "this file system has neither hard links nor rename without replacing, so \
                                 two writers could overwrite each other; choose another place"
                            .to_owned(),
                    }),
                    errno => Err(self.error(key, "rename", errno)),
                }
            }
        }
    }

    fn put_once(&self, key: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        let (folder, name) = split(key);
        let at = self.folder(key, folder, true)?;
        if rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            // It may have been linked a moment ago by a writer that has not flushed the folder yet, and our
            // caller will rely on it.
            self.flush_folder(&at, key)?;
            return Ok(Put::Exists);
        }
        let tmp = self.folder(key, TMP, true)?;
        let (staged, file) = self.stage(key, &tmp, bytes)?;
        let put = self.publish(key, (&tmp, &staged, &file), (&at, name))?;
        self.flush_folder(&at, key)?;
        Ok(put)
    }

    /// Makes names in a folder durable.
    fn flush_folder(&self, folder: &OwnedFd, key: &str) -> Result<(), StoreError> {
        match rustix::fs::fsync(folder) {
            // Some network file systems have no flush for folders: theirs are durable when the server answers.
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP | Errno::BADF | Errno::NOSYS) => Ok(()),
            Err(errno) => Err(self.error(key, "flush the folder", errno)),
        }
    }

    /// Lists one folder and those below it, ascending.
    fn walk(
        &self,
        folder: &str,
        at: &OwnedFd,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |errno| self.error(folder, "list", errno);
        // Folders with their slash, so that the order is that of the keys below them.
        let mut found: Vec<(String, CString, u64, Timestamp)> = Vec::new();
        for entry in rustix::fs::Dir::read_from(at).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name == c"." || name == c".." || (folder.is_empty() && is_not_ours(name)) {
                continue;
            }
            let mut key = format!("{folder}{}", name.to_string_lossy());
            // This, or something below it, may be what we look for.
            if !(key.starts_with(prefix) || prefix.starts_with(&key)) {
                continue;
            }
            let (mut size, mut modified) = (0, 0);
            let mut kind = entry.file_type();
            if kind != FileType::Directory {
                match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => {
                        kind = FileType::from_raw_mode(stat.st_mode);
                        size = u64::try_from(stat.st_size).unwrap_or(0);
                        modified = modified_of(&stat);
                    }
                    // Deleted meanwhile.
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(self.error(&key, "stat", errno)),
                }
            }
            if kind == FileType::Directory {
                key.push('/');
            }
            found.push((key, name.to_owned(), size, modified));
        }
        found.sort_unstable();
        for (key, name, size, modified) in found {
            if !key.ends_with('/') {
                if key.starts_with(prefix) {
                    each(Object { key, size, modified })?;
                }
            } else if key.starts_with(prefix) || prefix.starts_with(&key) {
                match open_folder(at, name.as_c_str()) {
                    Ok(fd) => self.walk(&key, &fd, prefix, each)?,
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(self.error(&key, "open a folder", errno)),
                }
            }
        }
        Ok(())
    }

    fn other(&self, key: &str, reason: String) -> StoreError {
        StoreError::Other { key: key.to_owned(), url: self.url.clone(), reason }
    }

    fn io_error(&self, key: &str, what: &str, error: &io::Error) -> StoreError {
        match Errno::from_io_error(error) {
            Some(errno) => self.error(key, what, errno),
            None => self.other(key, format!("cannot {what}: {error}")),
        }
    }

    /// What the medium does not give is lost, for all we know; another copy of it may not be.
    fn read_error(&self, key: &str, error: &io::Error) -> StoreError {
        match Errno::from_io_error(error) {
            Some(Errno::IO | Errno::BADMSG | Errno::UCLEAN | Errno::NXIO | Errno::NODATA) => {
                let reason = format!("{error}; look at the kernel's log and at the disk");
                StoreError::Unreadable { key: key.to_owned(), url: self.url.clone(), reason }
            }
            _ => self.io_error(key, "read", error),
        }
    }

    fn error(&self, key: &str, what: &str, errno: Errno) -> StoreError {
        let (key, url) = (key.to_owned(), self.url.clone());
        let text = io::Error::from(errno);
        match errno {
            Errno::NOENT => StoreError::NotFound { key, url },
            Errno::ACCESS | Errno::PERM => StoreError::Denied {
                key,
                url,
                reason: format!("cannot {what}: {text}; run as a user who may, or change the permissions"),
            },
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => StoreError::Full {
                key,
                url,
                reason: format!("{text}; free some space or raise the quota, then run again"),
            },
            Errno::ROFS => StoreError::Full {
                key,
                url,
                reason: "the file system is mounted read-only; mount it writable, then run again".to_owned(),
            },
            Errno::STALE | Errno::TIMEDOUT | Errno::HOSTDOWN | Errno::HOSTUNREACH | Errno::NOTCONN => {
                StoreError::Unavailable {
                    key,
                    url,
                    reason: format!("cannot {what}: {text}; is the network mount alive?"),
                }
            }
            _ => StoreError::Other { key, url, reason: format!("cannot {what}: {text}") },
        }
    }
}

/// Folders of a file system's root that hold nothing of ours and that we may not even enter.
fn is_not_ours(name: &CStr) -> bool {
    name.to_bytes() == TMP.as_bytes() || name == c"lost+found"
}

/// When the file was written, as the file system (a file server's clock, on a network mount) says.
fn modified_of(stat: &rustix::fs::Stat) -> Timestamp {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn open_folder(at: &OwnedFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn is_link(at: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(at.as_fd(), OsStr::from_bytes(name.as_bytes()), AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Removes a staged file. If that fails it stays as a leftover, which costs space only; the put itself has
/// its own result to report.
fn unstage(tmp: &OwnedFd, name: &str) {
    if let Err(errno) = rustix::fs::unlinkat(tmp, name, AtFlags::empty()) {
        tracing::warn!(file = name, %errno, "a staged file could not be removed from tmp/");
    }
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

impl Store for LocalStore {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        check_key(key, &self.url)?;
        let mut tries = 0;
        loop {
            match self.put_once(key, &bytes) {
                // Somebody removed the folder, because it was empty.
                Err(StoreError::NotFound { .. }) if passes(key) && tries < 100 => tries += 1,
                put => return put,
            }
        }
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let (mut file, size) = self.open(key)?;
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        if Direct::is_worth_reading(length)
            && length <= PACK_BYTES_MAX
            && let Ok((direct, _)) = self.open_as(key, OFlags::DIRECT)
            && let Some(bytes) = self.direct.read(&direct, 0, length)
        {
            return Ok(bytes);
        }
        let capacity = usize::try_from(size).unwrap_or(0);
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(capacity)
            .map_err(|_| self.other(key, format!("has {size} bytes, which do not fit into memory")))?;
        file.read_to_end(&mut bytes).map_err(|e| self.read_error(key, &e))?;
        Ok(bytes.into())
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        check_key(key, &self.url)?;
        let open = self.cached(key)?;
        let file = &open.file;
        let short = || -> Result<u64, StoreError> {
            let size = file.metadata().map_err(|e| self.io_error(key, "stat", &e))?.len();
            range_end(key, &self.url, offset, len, size)
        };
        if len == 0 || offset > i64::MAX as u64 {
            short()?;
            return Ok(Bytes::new());
        }
        if Direct::is_worth_reading(len) {
            let direct =
                open.direct.get_or_init(|| self.open_as(key, OFlags::DIRECT).ok().map(|(file, _)| file));
            if let Some(bytes) = direct.as_ref().and_then(|file| self.direct.read(file, offset, len)) {
                return Ok(bytes);
            }
        }
        let mut bytes = vec![0; len];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                short()?;
                Err(self.other(key, "changed its length while it was read".to_owned()))
            }
            Err(error) => Err(self.read_error(key, &error)),
        }
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        Ok(self.open(key)?.1)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // Begin at the deepest folder the prefix names, so that listing one shard reads one folder.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !folder.is_empty() {
            check_key(folder, &self.url)?;
        }
        let at = match self.folder(prefix, folder, false) {
            Ok(at) => at,
            // No such folder: nothing in it. (Also for a directory that is not there at all.)
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        self.walk(&folder, &at, prefix, each)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, &self.url)?;
        self.open_files().retain(|(open, _)| open != key);
        let (folder, name) = split(key);
        let at = match self.folder(key, folder, false) {
            Err(StoreError::NotFound { .. }) => return Ok(()),
            at => at?,
        };
        match rustix::fs::unlinkat(&at, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.error(key, "delete", errno)),
        }
        if passes(key) {
            // If there is nothing else in it.
            let _ = rustix::fs::unlinkat(self.root(key)?, folder, AtFlags::REMOVEDIR);
        }
        Ok(())
    }

    fn url(&self) -> String {
        self.url.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn bytes() -> Bytes {
        Bytes::from_static(b"content")
    }

    fn keys(store: &LocalStore) -> Vec<String> {
        let found = super::super::list_all(store, "").unwrap();
        found.into_iter().map(|object| object.key).collect()
    }

    #[test]
    fn keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(&dir.path().join("made/by/the/first/put")).unwrap();
        super::super::suite::run(&store);
        assert_eq!(fs::read_dir(dir.path().join("made/by/the/first/put/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn keeps_the_contract_without_hard_links() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = LocalStore::new(dir.path()).unwrap();
        store.hard_links = false;
        super::super::suite::run(&store);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_of_a_crash_are_not_seen_and_hinder_nobody() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        for n in 0..5 {
            fs::write(dir.path().join(format!("tmp/{}-{n}", std::process::id())), "half").unwrap();
        }
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        assert_eq!(keys(&store), Vec::<String>::new());
        assert_eq!(store.put("keys/a", bytes()).unwrap(), Put::Created);
        assert_eq!(keys(&store), ["keys/a"]);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 5, "others' files stay");
    }

    #[test]
    fn what_a_probe_needed_leaves_no_folder_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        for key in ["probe/a", "probe/b", "init/a", "packs/ab/x"] {
            store.put(key, bytes()).unwrap();
        }
        let there = |name: &str| dir.path().join(name).exists();
        store.delete("probe/a").unwrap();
        assert!(there("probe"));
        for key in ["probe/b", "init/a", "packs/ab/x"] {
            store.delete(key).unwrap();
        }
        assert_eq!(["probe", "init", "packs/ab"].map(there), [false, false, true]);
        // Probes at once, each of which removes the folder from under the others.
        std::thread::scope(|scope| {
            for racer in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let key = format!("probe/{racer}");
                        assert_eq!(store.put(&key, bytes()).unwrap(), Put::Created);
                        store.delete(&key).unwrap();
                    }
                });
            }
        });
        assert!(!there("probe"));
    }

    #[test]
    fn links_inside_the_repository_lead_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("packs")).unwrap();
        fs::create_dir(dir.path().join("keys")).unwrap();
        symlink(outside.path().join("secret"), dir.path().join("keys/secret")).unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        for result in [
            store.get("packs/secret").map(|_| ()),
            store.get("keys/secret").map(|_| ()),
            store.get_range("keys/secret", 0, 1).map(|_| ()),
            store.put("packs/new", bytes()).map(|_| ()),
            store.delete("packs/secret"),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
        assert_eq!(store.put("keys/secret", bytes()).unwrap(), Put::Exists, "the name is taken");
        assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
        // The user's own link to the repository is followed.
        let link = outside.path().join("repository");
        symlink(dir.path(), &link).unwrap();
        let store = LocalStore::new(&link).unwrap();
        store.put("commits/a", bytes()).unwrap();
        assert_eq!(store.get("commits/a").unwrap(), bytes());
    }

    #[test]
    fn what_is_not_a_file_is_refused_and_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("keys/folder")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("keys/fifo"), FileType::Fifo, FILE_MODE, 0)
            .unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        assert!(store.get("keys/folder").unwrap_err().to_string().contains("not a regular file"));
        assert!(store.get("keys/fifo").unwrap_err().to_string().contains("not a regular file"));
        fs::write(dir.path().join("file"), "").unwrap();
        let error = LocalStore::new(&dir.path().join("file")).unwrap_err();
        assert!(error.to_string().contains("not a directory"), "{error}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_empty() {
        let store = LocalStore::new(Path::new("/nonexistent/backup")).unwrap();
        assert_eq!(keys(&store), Vec::<String>::new());
        assert!(store.get("holdfast.json").unwrap_err().is_not_found());
        assert!(store.delete("holdfast.json").is_ok());
    }

    #[test]
    fn errors_of_the_disk_say_what_to_do() {
        let store = LocalStore::new(Path::new("/x")).unwrap();
        for (errno, kind, hint) in [
            (Errno::NOSPC, "Full", "free some space"),
            (Errno::DQUOT, "Full", "quota"),
            (Errno::ROFS, "Full", "read-only"),
            (Errno::ACCESS, "Denied", "permissions"),
            (Errno::NOENT, "NotFound", "/x/packs/a"),
            (Errno::STALE, "Unavailable", "network mount"),
            (Errno::IO, "Other", "cannot write"),
        ] {
            let error = store.error("packs/a", "write", errno);
            assert!(format!("{error:?}").starts_with(kind), "{error:?}");
            assert!(error.to_string().contains(hint), "{error}");
        }
        let bad_sector = store.read_error("packs/a", &Errno::IO.into());
        assert!(bad_sector.is_loss() && bad_sector.to_string().contains("the disk"), "{bad_sector}");
    }

    #[test]
    fn open_files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        for n in 0..100 {
            let key = format!("packs/{n}");
            store.put(&key, bytes()).unwrap();
            assert_eq!(store.get_range(&key, 1, 2).unwrap(), "on");
        }
        assert_eq!(store.open_files().len(), OPEN_FILES_MAX);
    }
}
