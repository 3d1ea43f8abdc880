//! What goes wrong is a finding that names the file, and the rest goes on; or it is an error that says what
//! the target holds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use bytes::Bytes;
use common::*;
use repo::{Cancel, Content, NodeKind, Progress, ReaderOptions, TreeEntry, WriterOptions};
use source::files::{BackupOptions, Error, Ownership, RestoreOptions, backup, restore};

/// Does something once, when so many entries or bytes have been seen.
struct When<F: Fn() + Sync> {
    files: u64,
    bytes: u64,
    seen: Mutex<(u64, u64, bool)>,
    act: F,
}

fn when<F: Fn() + Sync>(files: u64, bytes: u64, act: F) -> When<F> {
    When { files, bytes, seen: Mutex::new((0, 0, false)), act }
}

impl<F: Fn() + Sync> Progress for When<F> {
    fn add(&self, files: u64, bytes: u64) {
        let mut seen = self.seen.lock().unwrap();
        seen.0 += files;
        seen.1 += bytes;
        if !seen.2 && seen.0 >= self.files && seen.1 >= self.bytes {
            seen.2 = true;
            (self.act)();
        }
    }
}

/// Runs on a thread that has given up being root.
fn without_root<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            if is_root() {
                use rustix::process::{Gid, Uid};
                rustix::thread::set_thread_groups(&[]).unwrap();
                let (uid, gid) = (Uid::from_raw(65_533), Gid::from_raw(65_533));
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            act()
        };
        scope.spawn(run).join().unwrap()
    })
}

fn entries(depot: &Depot, saved: &Saved) -> Vec<TreeEntry> {
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    reader.tree(&saved.root).map(|entry| entry.unwrap()).collect()
}

#[test]
fn a_large_file_written_while_it_is_read_is_told_and_read_again_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("database");
    fs::write(&path, noise(1, 40_000_000)).unwrap();
    fs::write(dir.path().join("quiet"), b"quiet").unwrap();
    let depot = depot();
    let writer = depot.repo.writer(WriterOptions::default()).unwrap();
    let write = || {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"later", 39_999_000).unwrap();
    };
    let outcome = backup(dir.path(), &writer, &BackupOptions::default(), &when(0, 1_000_000, write)).unwrap();
    assert_eq!(codes(&outcome.findings), [("changed-while-read", "database".into())]);
    assert_eq!(outcome.done.figures["files"], 2, "it is kept as it was read");
    drop(writer);

    let first = depot.save(dir.path());
    let settled = Saved { started: first.started + 3_600_000_000_000, ..first };
    assert_eq!(depot.save_after(dir.path(), Some(&settled)).figures["files_read"], 0);
    write();
    assert_eq!(depot.save_after(dir.path(), Some(&settled)).figures["files_read"], 1);
}

#[test]
fn a_file_cut_short_while_it_is_read_is_stored_as_long_as_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, noise(1, 60_000_000)).unwrap();
    let depot = depot();
    let writer =
        depot.repo.writer(WriterOptions { memory_bytes: 8 << 20, ..WriterOptions::default() }).unwrap();
    let cut = || fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(50_000_001).unwrap();
    let outcome = backup(dir.path(), &writer, &BackupOptions::default(), &when(0, 100_000, cut)).unwrap();
    assert_eq!(codes(&outcome.findings), [("changed-while-read", "log".into())]);
    assert_eq!(outcome.done.figures["bytes"], 50_000_001);
    let root = outcome.done.root;
    writer.commit(repo::CommitDraft::default()).unwrap();
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let to = dir.path().join("back");
    restore(&reader, &root, &to, &RestoreOptions::default(), &()).unwrap();
    assert!(fs::read(to.join("log")).unwrap() == fs::read(&path).unwrap());
}

#[test]
fn a_file_that_vanishes_between_listing_and_reading_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..5_000 {
        fs::write(dir.path().join(format!("{n:04}")), b"x").unwrap();
    }
    let depot = depot();
    let writer = depot.repo.writer(WriterOptions::default()).unwrap();
    let vanish = || {
        for n in [4_990, 4_995] {
            fs::remove_file(dir.path().join(format!("{n}"))).unwrap();
        }
    };
    let options = BackupOptions { threads: 1, ..BackupOptions::default() };
    let outcome = backup(dir.path(), &writer, &options, &when(2, 0, vanish)).unwrap();
    assert_eq!(codes(&outcome.findings), [("vanished", "4990".into()), ("vanished", "4995".into())]);
    assert_eq!(outcome.done.figures["files"], 4_998);
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_backed_up() {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("closed/inside")).unwrap();
    fs::create_dir_all(at("open")).unwrap();
    fs::write(at("closed/file"), b"x").unwrap();
    fs::write(at("open/file"), b"x").unwrap();
    fs::write(at("secret"), b"x").unwrap();
    set_mode(&at("secret"), 0o000);
    set_mode(&at("closed"), 0o000);
    let depot = depot();
    let saved = without_root(|| depot.save(dir.path()));
    assert_eq!(codes(&saved.findings), [("unreadable", "closed".into()), ("unreadable", "secret".into())]);
    assert!(saved.findings.iter().all(|f| f.severity == repo::Severity::Error));
    let paths: Vec<_> =
        entries(&depot, &saved).into_iter().map(|e| String::from_utf8(e.path).unwrap()).collect();
    assert_eq!(paths, ["", "closed", "open", "open/file"]);
    set_mode(&at("closed"), 0o755);
}

#[test]
fn a_root_that_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let depot = depot();
    let save = |path: &Path| depot.try_save(path, None, &BackupOptions::default()).map(|_| ());
    assert!(matches!(save(&dir.path().join("missing")), Err(Error::Root { .. })));
    assert!(matches!(save(Path::new("/dev/null")), Err(Error::RootKind { .. })));
    fs::create_dir(dir.path().join("closed")).unwrap();
    set_mode(dir.path(), 0o755);
    set_mode(&dir.path().join("closed"), 0o000);
    let closed = without_root(|| save(&dir.path().join("closed")));
    assert!(matches!(closed, Err(Error::Root { .. })));
}

/// Flips a byte in the middle of the stored form of a chunk.
fn damage(depot: &Depot, chunk: &repo::ChunkId) {
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let place = reader.locate(chunk).unwrap().unwrap();
    let key = place.pack.key();
    let mut pack = depot.store.snapshot()[&key].to_vec();
    pack[(place.offset + place.sealed / 2) as usize] ^= 1;
    depot.store.tamper(&key, Some(Bytes::from(pack)));
}

#[test]
fn a_damaged_chunk_costs_the_files_that_lie_in_it_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for n in 0..200 {
        fs::write(from.join(format!("small-{n:03}")), noise(n, 5_000)).unwrap();
    }
    fs::write(from.join("large"), noise(1_000, 6_000_000)).unwrap();
    fs::hard_link(from.join("large"), from.join("larger")).unwrap();
    fs::write(from.join("last"), noise(1_001, 6_000_000)).unwrap();
    let depot = depot();
    let saved = depot.save(&from);
    let all = entries(&depot, &saved);
    let extents = |path: &[u8]| match &all.iter().find(|e| e.path == path).unwrap().kind {
        NodeKind::File { content: Content::Extents(extents), .. } => extents.clone(),
        _ => panic!("no extents"),
    };
    let small = extents(b"small-100")[0].chunk;
    let touched: Vec<_> = all
        .iter()
        .filter(|e| matches!(&e.kind, NodeKind::File { content: Content::Extents(x), .. } if x.iter().any(|x| x.chunk == small)))
        .map(|e| String::from_utf8(e.path.clone()).unwrap())
        .collect();
    assert!(touched.len() > 1, "small files share chunks");
    damage(&depot, &small);
    let large = match &all.iter().find(|e| e.path == b"large").unwrap().kind {
        NodeKind::File { content: Content::Stream(root), .. } => *root,
        _ => panic!("no stream"),
    };
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let leaf = reader.extents(&large).nth(30).unwrap().unwrap().id;
    damage(&depot, &leaf);

    let to = dir.path().join("to");
    let outcome = depot.load(&saved, &to);
    assert_eq!(outcome.done.damaged, touched.len() as u64 + 1);
    assert_eq!(outcome.done.failed, 1, "the second name of the large file");
    let mut damaged: Vec<_> =
        outcome.findings.iter().filter(|f| f.code == "damaged").map(|f| f.what.clone()).collect();
    damaged.sort();
    let mut expected = touched.clone();
    expected.push("large".into());
    expected.sort();
    assert_eq!(damaged, expected);
    assert!(outcome.findings.iter().any(|f| f.what == "large" && f.message.contains(&leaf.to_string())));
    let left = facts(&to);
    assert_eq!(left.len(), 1 + 200 - touched.len() + 1, "no file that is not whole, and no partial one");
    for (path, fact) in facts(&from) {
        let name = path.to_string_lossy().into_owned();
        if !expected.contains(&name) && name != "larger" {
            assert_eq!(left[&path], fact, "{name}");
        }
    }
}

#[test]
fn a_damaged_list_of_files_costs_what_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for n in 0..20_000 {
        fs::write(from.join(format!("{n:05}-{}", "long name ".repeat(10))), b"").unwrap();
    }
    let depot = depot();
    let saved = depot.save(&from);
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let leaves: Vec<_> = reader.extents(&saved.root).map(|leaf| leaf.unwrap()).collect();
    damage(&depot, &leaves[leaves.len() / 2].id);
    let to = dir.path().join("to");
    let outcome = depot.load(&saved, &to);
    assert_eq!(outcome.done.damaged, 1);
    assert!(outcome.findings.iter().any(|f| f.code == "tree-damaged" && f.severity == repo::Severity::Error));
    assert!(outcome.done.files > 5_000 && outcome.done.files < 15_000, "{}", outcome.done.files);
    assert_eq!(fs::read_dir(&to).unwrap().count() as u64, outcome.done.files);
}

#[test]
fn without_root_everything_comes_back_but_what_only_root_may_make() {
    assert!(
        is_root(),
        "run this test as root: it hands files to other owners and then gives its rights away"
    );
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    use std::os::unix::fs::chown;
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o777);
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("closed")).unwrap();
    fs::write(from.join("closed/file"), b"x").unwrap();
    fs::write(from.join("theirs"), b"y").unwrap();
    chown(from.join("theirs"), Some(1), Some(2)).unwrap();
    mknodat(CWD, from.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3))
        .unwrap();
    set_xattr(&from.join("theirs"), "user.kept", b"1");
    set_xattr(&from.join("theirs"), "trusted.lost", b"1");
    set_mode(&from.join("closed"), 0o500);
    set_mode(&from.join("theirs"), 0o4711);
    let depot = depot();
    let saved = depot.save(&from);
    let to = dir.path().join("to");
    let outcome = without_root(|| depot.load(&saved, &to));
    let mut found: Vec<_> = outcome.findings.iter().map(|f| f.code).collect();
    found.sort_unstable();
    assert_eq!(found, ["attribute-not-set", "device-not-made", "owner-not-set"]);
    let there = facts(&to);
    let wanted = facts(&from);
    assert_eq!(there.len(), wanted.len() - 1);
    for (path, fact) in &there {
        let wanted = &wanted[path];
        assert_eq!(
            (fact.mode, fact.mtime, &fact.content),
            (wanted.mode, wanted.mtime, &wanted.content),
            "{path:?}"
        );
    }
    assert_eq!(there[Path::new("theirs")].xattrs.len(), 1);

    let quiet = dir.path().join("quiet");
    let options = RestoreOptions { ownership: Ownership::Ignore, ..RestoreOptions::default() };
    let outcome = without_root(|| depot.try_load(&saved, &quiet, &options).unwrap());
    assert!(outcome.findings.iter().all(|f| f.code != "owner-not-set"));
    set_mode(&to.join("closed"), 0o700);
    set_mode(&quiet.join("closed"), 0o700);
}

/// A file system of its own, gone when dropped.
struct Mounted(std::path::PathBuf);

fn mounted(at: &Path, options: &str) -> Mounted {
    fs::create_dir_all(at).unwrap();
    let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).output().unwrap();
    assert!(
        done.status.success(),
        "run this test as root, it mounts a file system: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Mounted(at.to_path_buf())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn a_full_target_ends_the_restore_and_says_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for n in 0..100 {
        fs::write(from.join(format!("{n:03}")), noise(n, 20_000)).unwrap();
    }
    fs::write(from.join("zz"), noise(7, 4_000_000)).unwrap();
    let depot = depot();
    let saved = depot.save(&from);
    let target = mounted(&dir.path().join("small"), "size=1m");
    let error = depot.try_load(&saved, &target.0, &RestoreOptions::default()).unwrap_err();
    let Error::NoSpace { files, .. } = error else { panic!("{error}") };
    let there = facts(&target.0);
    assert_eq!(there.len() as u64, files + 1, "whole files and nothing else");
    let wanted = facts(&from);
    for (path, fact) in there.iter().filter(|(_, fact)| fact.kind == "file") {
        assert_eq!(fact, &wanted[path]);
    }

    let target = mounted(&dir.path().join("read-only"), "ro");
    let error = depot.try_load(&saved, &target.0, &RestoreOptions::default()).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
}

#[test]
fn another_file_system_is_left_out_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("mount")).unwrap();
    let other = mounted(&dir.path().join("mount"), "size=1m");
    fs::write(other.0.join("inside"), b"x").unwrap();
    fs::write(dir.path().join("outside"), b"x").unwrap();
    let depot = depot();
    assert_eq!(depot.save(dir.path()).figures["files"], 2);
    let options = BackupOptions { one_file_system: true, ..BackupOptions::default() };
    let saved = depot.try_save(dir.path(), None, &options).unwrap();
    assert_eq!((saved.figures["files"], saved.figures["directories"]), (1, 2));
    assert_eq!(codes(&saved.findings), [("other-file-system", "mount".into())]);
}

#[test]
fn the_stop_button_ends_both_ways_at_once_and_leaves_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("large"), noise(1, 30_000_000)).unwrap();
    for n in 0..2_000 {
        fs::write(from.join(format!("{n:04}")), noise(n, 500)).unwrap();
    }
    let depot = depot();
    let saved = depot.save(&from);

    let cancel = Cancel::new();
    let writer = depot.repo.writer(WriterOptions::default()).unwrap();
    let options = BackupOptions { cancel: cancel.clone(), ..BackupOptions::default() };
    let ended = backup(&from, &writer, &options, &when(0, 100_000, || cancel.cancel()));
    assert!(matches!(ended, Err(Error::Repo(repo::Error::Cancelled))));

    let cancel = Cancel::new();
    let options = RestoreOptions { cancel: cancel.clone(), ..RestoreOptions::default() };
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let to = dir.path().join("to");
    let ended = restore(&reader, &saved.root, &to, &options, &when(300, 0, || cancel.cancel()));
    assert!(matches!(ended, Err(Error::Repo(repo::Error::Cancelled))));
    let (there, wanted) = (facts(&to), facts(&from));
    assert!(there.len() > 100 && there.len() < 2_000, "{}", there.len());
    for (path, fact) in there.iter().filter(|(_, fact)| fact.kind == "file") {
        assert_eq!(fact, &wanted[path]);
    }
}

#[test]
fn reading_a_volume_does_not_mark_it_as_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    fs::write(dir.path().join("dir/file"), b"x").unwrap();
    let old = 1_000_000_000;
    set_mtime(&dir.path().join("dir/file"), old, 0);
    set_mtime(&dir.path().join("dir"), old, 0);
    depot().save(dir.path());
    for path in ["dir/file", "dir"] {
        assert_eq!(fs::symlink_metadata(dir.path().join(path)).unwrap().atime(), old, "{path}");
    }
}
