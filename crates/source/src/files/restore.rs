//! Restoring a tree: plan, place and fill, settle.
//!
//! 1. **Plan**: the whole tree is read once. What no honest backup holds (`..`, absolute names, children of
//!    files, links that lead elsewhere) is refused here, before anything is written; the totals are known
//!    from here on.
//! 2. **Place and fill**: one thread makes directories, symlinks and the rest in the order of the tree
//!    and hands files to the others, which fill, verify and settle them.
//! 3. **Settle**: the tree is read again; hard links are made and directories get their attributes on
//!    the way out of them, when nothing below them changes any more.
//!
//! Directories are for us alone until they are settled, so nobody looks in early; and they have no default
//! ACL until then (an existing one is taken off when it is entered), so that nothing created in them
//! inherits one: every file gets the ACL it had, or none.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::bounded;
use repo::{Cancel, Finding, NodeKind, Outcome, Progress, Reader, Root, TreeEntry};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::Error;
use super::fill::Tally;
use super::findings::Findings;
use super::finish::Finishing;
use super::place::Partials;
use super::placing::Placing;
use super::plan::{LinkTargets, Plan};
use super::select::Select;
use super::settle::{Settle, Shortfalls};
use super::{mirror, shown, sys, threads};

/// What to do with what the target holds already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The target must be empty; a `lost+found` is allowed.
    #[default]
    Refuse,
    /// What the tree names is replaced, file by file and each in one step; the rest stays.
    Merge,
    /// As `Merge`, and what the tree does not name is removed ([`super::plan_mirror`] tells what).
    Mirror,
}

/// Whether owners are restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// As they were. Needs root; without it, the shortfall is a finding.
    #[default]
    Restore,
    /// Everything belongs to whoever restores.
    Ignore,
}

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// What to do with what is there.
    pub existing: Existing,
    /// Whether owners are restored.
    pub ownership: Ownership,
    /// Restore only this: a directory, whose content then becomes the target's, or something else,
    /// which is restored under its own name into the target. As in the tree, without a leading `/`.
    pub subpath: Option<Vec<u8>>,
    /// The stop button.
    pub cancel: Cancel,
    /// Threads that fill files; 0: one for each processor, from 4 to 8.
    pub threads: usize,
}

/// What is in the target now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files, whole and verified.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Further names of files.
    pub hardlinks: u64,
    /// FIFOs, devices, sockets.
    pub others: u64,
    /// Bytes of file content written, without holes.
    pub bytes: u64,
    /// Files that are missing from the target because the repository is damaged.
    pub damaged: u64,
    /// Entries that are missing from the target for other reasons.
    pub failed: u64,
    /// Removed, because the tree does not name them (`Mirror`); a directory counts once.
    pub deleted: u64,
}

/// Restores the tree `root` into `target`, which is created if it does not exist.
pub fn restore(
    reader: &Reader,
    root: &Root,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<Outcome<Restored>, Error> {
    let select = Select::new(options.subpath.as_deref(), || reader.tree(root))?;
    restore_entries(reader, &|| Box::new(select.entries(reader.tree(root))), target, options, progress)
}

/// Entries of a tree, from the beginning.
pub(super) type Entries<'e> = Box<dyn Iterator<Item = Result<TreeEntry, repo::Error>> + 'e>;

/// [`restore`], of whatever entries: it does not rely on what the reader of trees has checked.
pub(super) fn restore_entries<'e>(
    reader: &Reader,
    entries: &dyn Fn() -> Entries<'e>,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<Outcome<Restored>, Error> {
    let plan = Plan::make(entries(), reader.repository(), &options.cancel)?;
    let dir = open_target(target, options.existing)?;
    progress.total(plan.entries, plan.bytes);
    let limit = usize::try_from(plan.entries).unwrap_or(usize::MAX);
    let entries = || -> Entries<'e> { Box::new(entries().take(limit)) };

    let shared = Shared {
        reader,
        progress,
        cancel: &options.cancel,
        target,
        replace: options.existing != Existing::Refuse,
        remove_others: options.existing == Existing::Mirror,
        settle: Settle { owners: options.ownership == Ownership::Restore, shortfalls: Shortfalls::default() },
        partials: Partials::default(),
        link_targets: Mutex::new(plan.link_targets),
        findings: Mutex::default(),
        tally: Tally::default(),
        stop: AtomicBool::new(false),
        fatal: Mutex::new(None),
    };
    if let Some(error) = plan.cut {
        shared.tally.damaged.fetch_add(1, Ordering::Relaxed);
        shared.found(Finding::error(
            "tree-damaged",
            plan.last.as_deref().map_or_else(String::new, shown),
            format!("the list of files is damaged in the repository after this entry; everything behind it is not restored: {error}"),
        ));
    }
    let mut done = Restored::default();
    let mut blocked = BTreeSet::new();

    let threads = threads(options.threads);
    let (work, queue) = bounded(2 * threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (shared, queue) = (&shared, queue.clone());
            scope.spawn(move || shared.serve(&queue));
        }
        Placing::new(&shared, work, &mut blocked, &mut done).run(entries(), dir.clone());
    });
    shared.ended()?;

    if shared.remove_others {
        let failed =
            shared.tally.failed.load(Ordering::Relaxed) + shared.tally.damaged.load(Ordering::Relaxed);
        if failed == 0 {
            done.deleted = mirror::remove_others(&shared, entries(), &dir)?;
        } else {
            shared.found(Finding::warning(
                "nothing-removed",
                shown(b""),
                "what the recovery point does not name was left in the target, because not everything it names could be restored",
            ));
        }
    }
    Finishing { shared: &shared, blocked: &blocked, done: &mut done, root: dir.clone() }.run(entries(), &dir);
    shared.ended()?;
    rustix::fs::syncfs(&dir).map_err(|e| shared.fatal_error(e, "flush what was written"))?;

    done.files += shared.tally.files.load(Ordering::Relaxed);
    done.bytes += shared.tally.bytes.load(Ordering::Relaxed);
    done.damaged += shared.tally.damaged.load(Ordering::Relaxed);
    done.failed += shared.tally.failed.load(Ordering::Relaxed);
    let mut findings = std::mem::take(&mut *lock(&shared.findings)).all();
    findings.extend(shared.settle.shortfalls.findings());
    Ok(Outcome { done, findings })
}

fn open_target(target: &Path, existing: Existing) -> Result<Arc<OwnedFd>, Error> {
    let failed = |doing: &'static str| {
        move |e: Errno| match e {
            Errno::ROFS => Error::ReadOnly { target: target.to_path_buf() },
            e => Error::Target { path: target.to_path_buf(), doing, source: e.into() },
        }
    };
    match rustix::fs::mkdir(target, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        // A mount point on a read-only file system may well be there and writable.
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) if target.is_dir() => {}
        Err(e) => return Err(failed("create")(e)),
    }
    // The target itself may be given as a symlink: whoever names it means what it points to.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(target, flags, Mode::empty()).map_err(failed("open"))?;
    if existing == Existing::Refuse {
        let mut names = Vec::new();
        sys::names(&dir, &mut names).map_err(failed("read"))?;
        if let Some((name, _)) = names.iter().find(|(name, _)| name.to_bytes() != b"lost+found") {
            return Err(Error::NotEmpty { target: target.to_path_buf(), found: shown(name.to_bytes()) });
        }
    }
    Ok(Arc::new(dir))
}

/// Why one entry is not in the target.
pub(super) enum Trouble {
    Repo(repo::Error),
    Os(Errno),
    /// What was written reads back differently, from here on.
    Differs(u64),
    /// The file became this long.
    Size(u64),
    /// A directory has the name, and what it holds was not to be removed.
    InTheWay,
    /// Everything stops; the reason is known elsewhere.
    Stopped,
}

impl From<repo::Error> for Trouble {
    fn from(error: repo::Error) -> Trouble {
        Trouble::Repo(error)
    }
}

impl From<Errno> for Trouble {
    fn from(e: Errno) -> Trouble {
        Trouble::Os(e)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all threads of a restore share.
pub(super) struct Shared<'a> {
    pub reader: &'a Reader,
    pub progress: &'a dyn Progress,
    pub cancel: &'a Cancel,
    pub target: &'a Path,
    /// What is there already may be replaced.
    pub replace: bool,
    /// And a directory in the way may be removed with all it holds.
    pub remove_others: bool,
    pub settle: Settle,
    pub partials: Partials,
    pub link_targets: Mutex<LinkTargets>,
    pub findings: Mutex<Findings>,
    pub tally: Tally,
    stop: AtomicBool,
    fatal: Mutex<Option<Error>>,
}

impl Shared<'_> {
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancel.is_cancelled()
    }

    pub fn found(&self, finding: Finding) {
        lock(&self.findings).push(finding);
    }

    pub fn end(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The reason to stop, if there is one.
    fn ended(&self) -> Result<(), Error> {
        match lock(&self.fatal).take() {
            // While one thread met the end of the disk, others may have finished what they had begun.
            Some(Error::NoSpace { target, .. }) => {
                Err(Error::NoSpace { target, files: self.tally.files.load(Ordering::Relaxed) })
            }
            Some(error) => Err(error),
            None => Ok(self.cancel.check()?),
        }
    }

    pub fn fatal_error(&self, e: Errno, doing: &'static str) -> Error {
        let (target, files) = (self.target.to_path_buf(), self.tally.files.load(Ordering::Relaxed));
        match e {
            Errno::NOSPC | Errno::DQUOT => Error::NoSpace { target, files },
            Errno::ROFS => Error::ReadOnly { target },
            e => Error::Target { path: target, doing, source: e.into() },
        }
    }

    /// Books a file that is whole now, or what became of it.
    pub fn file_done(&self, entry: &TreeEntry, done: Result<(), Trouble>) {
        self.progress.add(1, 0);
        let NodeKind::File { content, .. } = &entry.kind else { return };
        match done {
            Ok(()) => {
                self.tally.files.fetch_add(1, Ordering::Relaxed);
                self.tally.bytes.fetch_add(content.length(), Ordering::Relaxed);
                if let Err(error) = lock(&self.link_targets).is_there(&entry.path) {
                    self.end(error.into());
                }
            }
            Err(trouble) => self.not_restored(&entry.path, trouble),
        }
    }

    /// Books an entry that is not in the target.
    pub fn not_restored(&self, path: &[u8], trouble: Trouble) {
        let (counter, code, message) = match trouble {
            Trouble::Stopped => return,
            Trouble::Repo(error) if error.is_damage() => (
                &self.tally.damaged,
                "damaged",
                format!("its content is damaged in the repository, and it was not restored: {error}"),
            ),
            // The repository cannot be reached, or the stop button was pressed: no file will fare better.
            Trouble::Repo(error) => return self.end(error.into()),
            Trouble::Os(e @ (Errno::NOSPC | Errno::DQUOT | Errno::ROFS)) => {
                return self.end(self.fatal_error(e, "write"));
            }
            Trouble::Os(Errno::EXIST) => (
                &self.tally.failed,
                "in-the-way",
                "something appeared under its name during the restore, and it was not restored".into(),
            ),
            Trouble::Os(e) => (
                &self.tally.failed,
                "not-restored",
                format!("it could not be written ({e}) and is not in the target"),
            ),
            Trouble::InTheWay => (
                &self.tally.failed,
                "in-the-way",
                "a directory has its name, and what that holds was to stay; it was not restored".into(),
            ),
            Trouble::Differs(at) => (
                &self.tally.failed,
                "verify-failed",
                format!(
                    "what was written at byte {at} reads back differently; the file was removed. Do not trust the target's disk or memory"
                ),
            ),
            Trouble::Size(size) => (
                &self.tally.failed,
                "verify-failed",
                format!(
                    "it is {size} bytes long after everything was written; the file was removed. Do not trust the target's disk"
                ),
            ),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.found(Finding::error(code, shown(path), message));
    }
}

/// What a restore with [`Existing::Mirror`] would remove: paths below `target`, in order. A directory is
/// named once, not with all it holds; so is one that stands where the tree has something else. Changes nothing.
pub fn plan_mirror(
    reader: &Reader,
    root: &Root,
    target: &Path,
    options: &RestoreOptions,
) -> Result<Vec<PathBuf>, Error> {
    let select = Select::new(options.subpath.as_deref(), || reader.tree(root))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match rustix::fs::open(target, flags, Mode::empty()) {
        Ok(dir) => Arc::new(dir),
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(e) => return Err(Error::Target { path: target.to_path_buf(), doing: "open", source: e.into() }),
    };
    mirror::others(Box::new(select.entries(reader.tree(root))), &dir, target, &options.cancel)
}
