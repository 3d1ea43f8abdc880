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

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Sender, bounded};
use repo::{Cancel, Content, Finding, NodeKind, Outcome, Progress, Reader, Root, TreeEntry};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::Error;
use super::fill::{self, Large, Layout, Move, Small, Tally, Work};
use super::findings::Findings;
use super::place::{self, Descent, Partials, plain_name, split};
use super::select::Select;
use super::settle::{DEFAULT_ACL, Settle, Shortfalls, handle};
use super::{SMALL, mirror, shown, sys, threads};

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
    /// Threads that fill files; 0: as many as there are processors, at most 8.
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
    let plan = Plan::make(entries(), &options.cancel)?;
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
        let placing = Placing {
            shared: &shared,
            work,
            batch: Vec::new(),
            batch_chunks: 0,
            blocked: &mut blocked,
            done: &mut done,
        };
        placing.run(entries(), dir.clone());
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
    Settling { shared: &shared, blocked: &blocked, done: &mut done, root: dir.clone() }.run(entries(), &dir);
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

/// What is known of a tree before anything is written.
struct Plan {
    entries: u64,
    bytes: u64,
    /// What hard links lead to, to be marked when it is there. Grows with the hard links only.
    link_targets: HashMap<Vec<u8>, bool>,
    last: Option<Vec<u8>>,
    /// Why the tree cannot be read beyond these entries.
    cut: Option<repo::Error>,
}

/// Whether a part of the stream is gone or damaged, so that what comes before it is still good; as
/// opposed to a stream that arrived well and says what no tree says.
fn lost_in_store(error: &repo::Error) -> bool {
    match error {
        repo::Error::Damaged { object, .. } => object.starts_with(repo::id::PACKS),
        error => error.is_damage(),
    }
}

impl Plan {
    fn make(entries: Entries<'_>, cancel: &Cancel) -> Result<Plan, Error> {
        let mut plan = Plan { entries: 0, bytes: 0, link_targets: HashMap::new(), last: None, cut: None };
        // The directories on the way down to the last entry.
        let mut way: Vec<Vec<u8>> = vec![Vec::new()];
        for entry in entries {
            cancel.check()?;
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if plan.entries > 0 && lost_in_store(&error) => {
                    plan.cut = Some(error);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            let refuse = |what: &str| Error::Refused { path: shown(&entry.path), what: what.into() };
            if let Some(last) = &plan.last
                && repo::walk_order(last, &entry.path) != std::cmp::Ordering::Less
            {
                return Err(refuse("it is named twice or out of order"));
            }
            if !entry.path.is_empty() {
                let (parent, name) = split(&entry.path);
                plain_name(name).map_err(refuse)?;
                while way.last().is_some_and(|at| at != parent) {
                    way.pop();
                }
                if way.is_empty() {
                    return Err(refuse("its parent is no directory of the tree"));
                }
            } else if entry.kind != NodeKind::Directory {
                return Err(refuse("the root of the tree is no directory"));
            }
            match &entry.kind {
                NodeKind::Directory if entry.path.is_empty() => {}
                NodeKind::Directory => way.push(entry.path.clone()),
                NodeKind::File { content, .. } => {
                    if !fill::adds_up(&entry.kind) {
                        return Err(refuse("its size, content and holes do not add up"));
                    }
                    plan.bytes = plan.bytes.saturating_add(content.length());
                }
                NodeKind::HardLink { target } => {
                    let earlier = repo::walk_order(target, &entry.path) == std::cmp::Ordering::Less;
                    if !earlier || target.is_empty() {
                        return Err(refuse("it repeats a file that does not come before it"));
                    }
                    plan.link_targets.insert(target.clone(), false);
                }
                NodeKind::Symlink { target } if target.is_empty() || target.contains(&0) => {
                    return Err(refuse("it points nowhere"));
                }
                _ => {}
            }
            plan.entries += 1;
            plan.last = Some(entry.path);
        }
        Ok(plan)
    }
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
    pub link_targets: Mutex<HashMap<Vec<u8>, bool>>,
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

    fn end(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The reason to stop, if there is one.
    fn ended(&self) -> Result<(), Error> {
        if let Some(error) = lock(&self.fatal).take() {
            return Err(error);
        }
        Ok(self.cancel.check()?)
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
                if let Some(there) = lock(&self.link_targets).get_mut(&entry.path) {
                    *there = true;
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

/// How many files, and chunks of them, are filled by one thread at a time.
const BATCH_FILES: usize = 128;
const BATCH_CHUNKS: usize = 16;
/// How many bytes of a large file are one range.
const RANGE_BYTES: u64 = 2 * 1024 * 1024;

/// The second step: everything but hard links and the attributes of directories.
struct Placing<'a, 's> {
    shared: &'a Shared<'s>,
    work: Sender<Work>,
    batch: Vec<Small>,
    batch_chunks: usize,
    /// Directories that could not be made.
    blocked: &'a mut BTreeSet<Vec<u8>>,
    done: &'a mut Restored,
}

impl Placing<'_, '_> {
    fn run(mut self, entries: Entries<'_>, target: Arc<OwnedFd>) {
        let outcome = self.place(entries, target);
        self.send_batch();
        if let Err(error) = outcome {
            self.shared.end(error);
        }
    }

    fn place(&mut self, entries: Entries<'_>, target: Arc<OwnedFd>) -> Result<(), Error> {
        let lost = |e| self.shared.fatal_error(e, "find the way back in");
        let mut descent = Descent::new(target.clone()).map_err(lost)?;
        let mut blocked: Option<Vec<u8>> = None;
        for entry in entries {
            let entry = entry?;
            if self.shared.stopped() {
                return Ok(());
            }
            if entry.path.is_empty() {
                // The target stands for it.
                drop_default_acl(&target);
                self.done.directories += 1;
                self.shared.progress.add(1, 0);
                continue;
            }
            if blocked.as_ref().is_some_and(|blocked| is_below(&entry.path, blocked)) {
                self.shared.tally.failed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (parent, name) = split(&entry.path);
            let refuse = |what: &str| Error::Refused { path: shown(&entry.path), what: what.into() };
            let name = plain_name(name).map_err(refuse)?;
            let lost = |e| self.shared.fatal_error(e, "find the way back in");
            let dir = descent.climb(parent, &mut |_| {}).map_err(lost)?;
            let Some(dir) = dir else {
                return Err(refuse("its parent is no directory of the tree"));
            };
            let path = entry.path.clone();
            match self.one(&dir, name, entry) {
                Ok(Some(fd)) => descent.enter(&path, fd).map_err(lost)?,
                Ok(None) => {}
                Err((what, trouble)) => {
                    self.shared.not_restored(&path, trouble);
                    if what == What::Directory {
                        self.blocked.insert(path.clone());
                        blocked = Some(path);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes one entry, or sees to it that it is made. A directory is returned, to go into.
    fn one(
        &mut self,
        dir: &Arc<OwnedFd>,
        name: CString,
        entry: TreeEntry,
    ) -> Result<Option<OwnedFd>, (What, Trouble)> {
        let shared = self.shared;
        let other = |trouble| (What::Other, trouble);
        match &entry.kind {
            NodeKind::Directory => {
                let fd = self.directory(dir, &name, &entry).map_err(|trouble| (What::Directory, trouble))?;
                self.done.directories += 1;
                shared.progress.add(1, 0);
                return Ok(Some(fd));
            }
            NodeKind::HardLink { .. } => return Ok(None),
            NodeKind::File { content, .. } => {
                let small = matches!(content, Content::Extents(_)) && content.length() <= SMALL;
                if small {
                    self.small(dir, name, entry)
                } else {
                    self.large(dir, name, entry).map_err(other)?
                }
                return Ok(None);
            }
            NodeKind::Symlink { target } => {
                shared
                    .make(dir, &name, |name| rustix::fs::symlinkat(target.as_slice(), dir, name))
                    .map_err(other)?;
                self.settle_made(dir, &name, FileType::Symlink, &entry).map_err(other)?;
                self.done.symlinks += 1;
            }
            special => {
                let (kind, (major, minor)) = match special {
                    NodeKind::CharDevice { major, minor } => (FileType::CharacterDevice, (*major, *minor)),
                    NodeKind::BlockDevice { major, minor } => (FileType::BlockDevice, (*major, *minor)),
                    NodeKind::Socket => (FileType::Socket, (0, 0)),
                    _ => (FileType::Fifo, (0, 0)),
                };
                let mode = Mode::RUSR | Mode::WUSR;
                let device = rustix::fs::makedev(major, minor);
                match shared.make(dir, &name, |name| rustix::fs::mknodat(dir, name, kind, mode, device)) {
                    Err(Trouble::Os(e @ Errno::PERM)) => {
                        let why = || format!("a device node cannot be made ({e})");
                        let advice = "run as root to restore device nodes";
                        shared.settle.shortfalls.add("device-not-made", &entry.path, why, advice);
                        shared.tally.failed.fetch_add(1, Ordering::Relaxed);
                        return Ok(None);
                    }
                    other_outcome => other_outcome.map_err(other)?,
                }
                self.settle_made(dir, &name, kind, &entry).map_err(other)?;
                self.done.others += 1;
            }
        }
        shared.progress.add(1, 0);
        Ok(None)
    }

    /// Settles what was just made and is not opened. Only something of its kind gets its attributes, not
    /// what somebody may have put in its place.
    fn settle_made(
        &self,
        dir: &Arc<OwnedFd>,
        name: &CString,
        kind: FileType,
        entry: &TreeEntry,
    ) -> Result<(), Trouble> {
        let made = handle(dir, name)?;
        if sys::stat_fd(&made)?.kind != kind {
            return Err(Trouble::Os(Errno::EXIST));
        }
        self.shared.settle.handle(&made, entry, kind != FileType::Symlink)?;
        Ok(())
    }

    fn directory(&self, dir: &Arc<OwnedFd>, name: &CString, entry: &TreeEntry) -> Result<OwnedFd, Trouble> {
        let shared = self.shared;
        match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            Ok(()) => return Ok(place::open_dir(dir, name)?),
            Err(Errno::EXIST) if shared.replace || entry.path == b"lost+found" => {}
            Err(e) => return Err(e.into()),
        }
        let fd = match place::open_dir(dir, name) {
            Err(Errno::NOTDIR | Errno::LOOP) if shared.replace => {
                // Not a directory, and the tree says it is one.
                rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
                rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
                place::open_dir(dir, name)?
            }
            other => other?,
        };
        // So that we may work in it even without being root; settling puts the mode right.
        let meta = sys::stat_fd(&fd)?;
        if meta.mode & 0o700 != 0o700 {
            let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(meta.mode | 0o700));
        }
        drop_default_acl(&fd);
        Ok(fd)
    }

    fn small(&mut self, dir: &Arc<OwnedFd>, name: CString, entry: TreeEntry) {
        let moves = moves_of_extents(&entry.kind);
        let shared_with_last = match (self.batch.last().and_then(|last| last.moves.last()), moves.first()) {
            (Some(last), Some(first)) => last.chunk == first.chunk,
            _ => true,
        };
        let full = self.batch_chunks >= BATCH_CHUNKS || self.batch.len() >= BATCH_FILES;
        if (full && !shared_with_last) || self.batch.len() >= 4 * BATCH_FILES {
            self.send_batch();
        }
        self.batch_chunks += moves.len() - usize::from(shared_with_last && !moves.is_empty());
        self.batch.push(Small { dir: dir.clone(), name, entry, moves });
    }

    fn send_batch(&mut self) {
        self.batch_chunks = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            // Nobody takes it only if all threads are gone, which they are not while we hold the sender.
            let _ = self.work.send(Work::Small(batch));
        }
    }

    fn large(&mut self, dir: &Arc<OwnedFd>, name: CString, entry: TreeEntry) -> Result<(), Trouble> {
        let shared = self.shared;
        let NodeKind::File { size, content, holes, .. } = &entry.kind else { return Ok(()) };
        let (size, content, holes) = (*size, content.clone(), holes.clone());
        let made = shared.create(dir, &name, true)?;
        let file = Arc::new(Large {
            dir: dir.clone(),
            name,
            made,
            entry,
            open: AtomicUsize::new(1),
            failed: Mutex::new(None),
        });
        let done = self.hand_out(&file, size, &content, &holes);
        shared.range_done(&file, done);
        Ok(())
    }

    fn hand_out(
        &self,
        file: &Arc<Large>,
        size: u64,
        content: &Content,
        holes: &[(u64, u64)],
    ) -> Result<(), Trouble> {
        rustix::fs::ftruncate(&file.made.fd, size)?;
        let mut layout = Layout::new(holes);
        let (mut moves, mut bytes) = (Vec::new(), 0);
        let send = |moves: &mut Vec<Move>| {
            file.open.fetch_add(1, Ordering::AcqRel);
            self.work.send(Work::Range(file.clone(), std::mem::take(moves))).map_err(|_| Trouble::Stopped)
        };
        let root = match content {
            Content::Extents(extents) => {
                for extent in extents {
                    layout.place(extent.chunk, extent.offset, extent.length, &mut moves);
                }
                return send(&mut moves);
            }
            Content::Stream(root) => root,
        };
        for leaf in self.shared.reader.extents(root) {
            let leaf = leaf?;
            if self.shared.stopped() {
                return Err(Trouble::Stopped);
            }
            layout.place(leaf.id, 0, leaf.length, &mut moves);
            bytes += u64::from(leaf.length);
            if bytes >= RANGE_BYTES {
                send(&mut moves)?;
                bytes = 0;
            }
        }
        if moves.is_empty() { Ok(()) } else { send(&mut moves) }
    }
}

#[derive(PartialEq, Eq)]
enum What {
    Directory,
    Other,
}

/// Where the content of a small file goes.
fn moves_of_extents(kind: &NodeKind) -> Vec<Move> {
    let mut moves = Vec::new();
    if let NodeKind::File { content: Content::Extents(extents), holes, .. } = kind {
        let mut layout = Layout::new(holes);
        for extent in extents {
            layout.place(extent.chunk, extent.offset, extent.length, &mut moves);
        }
    }
    moves
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Nothing created from here on shall inherit an ACL. What the tree says of it is set when the directory
/// is settled.
fn drop_default_acl(dir: &OwnedFd) {
    // Absent, unknown to the file system, or not ours to change: then there is none to inherit, or the
    // mode of every file is compared after it is set anyway.
    let _ = rustix::fs::fremovexattr(dir, DEFAULT_ACL);
}

impl Shared<'_> {
    /// Makes something that is whole at once, in place of what is there if that is wanted.
    pub fn make(
        &self,
        dir: &Arc<OwnedFd>,
        name: &CString,
        mut make: impl FnMut(&std::ffi::CStr) -> Result<(), Errno>,
    ) -> Result<(), Trouble> {
        if !self.replace {
            return Ok(make(name)?);
        }
        let (partial, ()) = self.partials.make(make)?;
        self.rename(dir, &partial, name)
    }
}

/// The last step: hard links, and directories on the way out of them.
struct Settling<'a, 's> {
    shared: &'a Shared<'s>,
    blocked: &'a BTreeSet<Vec<u8>>,
    done: &'a mut Restored,
    root: Arc<OwnedFd>,
}

impl Settling<'_, '_> {
    fn run(&mut self, entries: Entries<'_>, target: &Arc<OwnedFd>) {
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
        if lock(&shared.link_targets).get(target) != Some(&true) {
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

/// What is below `target` and not in the tree.
pub fn plan_mirror(
    reader: &Reader,
    root: &Root,
    target: &Path,
    options: &RestoreOptions,
) -> Result<Vec<PathBuf>, Error> {
    let select = Select::new(options.subpath.as_deref(), || reader.tree(root))?;
    let dir = open_target(target, Existing::Mirror)?;
    mirror::others(Box::new(select.entries(reader.tree(root))), &dir, target, &options.cancel)
}
