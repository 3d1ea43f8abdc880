//! A repository in memory, trees to put into it, and a second opinion on what a directory holds.

#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use repo::store::mem::MemStore;
use repo::{
    ChunkBytes, CommitDraft, CommitInfo, EntryKind, Env, Finding, InitOptions, Kdf, ManifestEntry, Outcome,
    Passphrase, ReaderOptions, Repository, Root, WriterOptions,
};
use source::files::{BackupOptions, Error, Parent, RestoreOptions, Restored, TreeBackup, backup, restore};

/// A repository, and the tree that was last written to it.
pub struct Depot {
    pub store: MemStore,
    pub repo: Repository,
}

/// A backup that was committed.
pub struct Saved {
    pub root: Root,
    pub started: i64,
    pub figures: BTreeMap<String, u64>,
    pub findings: Vec<Finding>,
    pub info: CommitInfo,
}

pub fn depot() -> Depot {
    depot_of(ChunkBytes::default())
}

pub fn depot_of(chunk_bytes: ChunkBytes) -> Depot {
    let store = MemStore::new();
    let options = InitOptions { kdf: Kdf::cheap(), chunk_bytes, ..InitOptions::default() };
    let repo =
        Repository::init(Arc::new(store.clone()), &Passphrase::new("x"), &options, &Env::real()).unwrap();
    Depot { store, repo }
}

impl Depot {
    pub fn save(&self, dir: &Path) -> Saved {
        self.save_after(dir, None)
    }

    /// Backs up as if everything had been left alone for a day before the backup began.
    pub fn save_after(&self, dir: &Path, before: Option<&Saved>) -> Saved {
        self.try_save(dir, before, &BackupOptions::default()).unwrap()
    }

    pub fn try_save(
        &self,
        dir: &Path,
        before: Option<&Saved>,
        options: &BackupOptions<'_>,
    ) -> Result<Saved, Error> {
        let started = Env::real().now();
        let reader = self.repo.reader(ReaderOptions::default()).unwrap();
        let parent =
            before.map(|before| Parent { reader: &reader, root: before.root, started: before.started });
        let options = BackupOptions { parent, ..options.clone() };
        let writer = self.repo.writer(WriterOptions::default()).unwrap();
        let Outcome { done: TreeBackup { root, figures }, findings } = backup(dir, &writer, &options, &())?;
        let manifest = vec![ManifestEntry {
            name: "volume".into(),
            kind: EntryKind::Tree,
            root,
            figures: figures.clone(),
        }];
        let draft = CommitDraft { kind: "volume".into(), started, manifest, ..CommitDraft::default() };
        let info = writer.commit(draft).unwrap();
        Ok(Saved { root, started, figures, findings, info })
    }

    pub fn load(&self, saved: &Saved, target: &Path) -> Outcome<Restored> {
        self.try_load(saved, target, &RestoreOptions::default()).unwrap()
    }

    pub fn try_load(
        &self,
        saved: &Saved,
        target: &Path,
        options: &RestoreOptions,
    ) -> Result<Outcome<Restored>, Error> {
        let reader = self.repo.reader(ReaderOptions::default()).unwrap();
        restore(&reader, &saved.root, target, options, &())
    }
}

/// What an entry is, as far as anybody could tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    pub kind: String,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub size: u64,
    pub content: Vec<u8>,
    pub data_runs: Vec<(u64, u64)>,
    pub rdev: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same file, for files of several names.
    pub same_as: Option<PathBuf>,
}

/// Everything below `dir` and `dir` itself, read with other means than those under test.
pub fn facts(dir: &Path) -> BTreeMap<PathBuf, Facts> {
    let (mut all, mut first) = (BTreeMap::new(), BTreeMap::new());
    collect(dir, PathBuf::new(), &mut all);
    let keys: Vec<PathBuf> = all.keys().cloned().collect();
    for path in keys {
        let meta = std::fs::symlink_metadata(dir.join(&path)).unwrap();
        if meta.nlink() > 1 && meta.is_file() {
            let first = first.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone());
            all.get_mut(&path).unwrap().same_as = Some(first.clone());
        }
    }
    all
}

fn collect(dir: &Path, path: PathBuf, all: &mut BTreeMap<PathBuf, Facts>) {
    let full = if path.as_os_str().is_empty() { dir.to_path_buf() } else { dir.join(&path) };
    let meta = std::fs::symlink_metadata(&full).unwrap();
    let kind = meta.file_type();
    let word = match kind {
        k if k.is_file() => "file",
        k if k.is_dir() => "directory",
        k if k.is_symlink() => "symlink",
        k if k.is_fifo() => "fifo",
        k if k.is_socket() => "socket",
        k if k.is_char_device() => "char",
        _ => "block",
    };
    let content = match word {
        // Only the data: some holes are larger than memory.
        "file" => data_runs(&full, meta.size())
            .into_iter()
            .flat_map(|(start, end)| {
                let mut bytes = vec![0; (end - start) as usize];
                std::fs::File::open(&full).unwrap().read_exact_at(&mut bytes, start).unwrap();
                bytes
            })
            .collect(),
        "symlink" => std::fs::read_link(&full).unwrap().into_os_string().into_vec(),
        _ => Vec::new(),
    };
    let facts = Facts {
        kind: word.into(),
        mode: meta.permissions().mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if word == "directory" { 0 } else { meta.size() },
        content,
        data_runs: if word == "file" { data_runs(&full, meta.size()) } else { Vec::new() },
        rdev: meta.rdev(),
        xattrs: xattrs(&full),
        same_as: None,
    };
    all.insert(path.clone(), facts);
    if word == "directory" {
        for entry in std::fs::read_dir(&full).unwrap() {
            collect(dir, path.join(entry.unwrap().file_name()), all);
        }
    }
}

/// Where a file has data.
pub fn data_runs(path: &Path, size: u64) -> Vec<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let file = std::fs::File::open(path).unwrap();
    let (mut runs, mut at) = (Vec::new(), 0);
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        let end = seek(&file, SeekFrom::Hole(start)).unwrap().min(size);
        runs.push((start, end));
        at = end;
    }
    runs
}

pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 65536];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names[..n]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 65536];
            let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..n].to_vec())
        })
        .collect()
}

/// Fails with the first path whose facts differ.
pub fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (facts(left), facts(right));
    for (path, fact) in &left {
        match right.get(path) {
            None => panic!("{} is missing", path.display()),
            Some(other) if other != fact => {
                let strip =
                    |f: &Facts| Facts { content: f.content.iter().take(64).copied().collect(), ..f.clone() };
                panic!("{} differs:\n{:?}\n{:?}", path.display(), strip(fact), strip(other))
            }
            Some(_) => {}
        }
    }
    let extra: Vec<_> = right.keys().filter(|path| !left.contains_key(*path)).collect();
    assert_eq!(extra, Vec::<&PathBuf>::new(), "not expected");
}

pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// Bytes that compress a little and repeat nowhere.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&(state & 0x0FFF_F0FF_FFFF_0FFF).to_le_bytes());
    }
    out.truncate(length);
    out
}

pub fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

pub fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn codes(findings: &[Finding]) -> Vec<(&'static str, String)> {
    findings.iter().map(|f| (f.code, f.what.clone())).collect()
}
