//! A volume with everything a volume can hold comes back bit by bit.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::*;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use source::files::{BackupOptions, Existing, RestoreOptions};

/// u::rw-, u:1000:rwx, g::r--, m::rwx, o::r--, as the kernel keeps it.
const ACCESS_ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16,
    0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

fn everything(at: &Path) {
    let file = |path: &str, bytes: &[u8]| fs::write(at.join(path), bytes).unwrap();
    fs::create_dir_all(at.join("dir/deeper/empty")).unwrap();
    fs::create_dir_all(at.join("dir.d")).unwrap();
    file("empty", b"");
    file("one byte", b"x");
    // Small files whose chunks are shared; sizes around every limit; and the same content twice.
    for (n, size) in
        [5, 4_000, 16_384, 65_536, 98_303, 98_304, 98_305, 131_072, 300_000].into_iter().enumerate()
    {
        file(&format!("dir/size-{size}"), &noise(n as u64, size));
        file(&format!("dir.d/again-{size}"), &noise(n as u64, size));
    }
    file("dir/large", &noise(99, 9_000_000));
    file("zeros", &[0; 500_000]);
    fs::write(at.join(name(b"not \xff utf-8 \x01\n")), b"named").unwrap();
    fs::write(at.join("n".repeat(255)), b"long").unwrap();

    symlink("dir/large", at.join("link")).unwrap();
    symlink("/nowhere/at all", at.join("dangling")).unwrap();
    symlink(name(b"\xfe\xfd"), at.join("dir/raw link")).unwrap();
    fs::hard_link(at.join("dir/large"), at.join("dir.d/large too")).unwrap();
    fs::hard_link(at.join("dir/size-5"), at.join("zz second name")).unwrap();
    fs::hard_link(at.join("dir/size-5"), at.join("aa first name")).unwrap();

    let sparse = |path: &str, size: u64, data: &[(u64, usize)]| {
        let file = fs::File::create(at.join(path)).unwrap();
        for (n, (offset, length)) in data.iter().enumerate() {
            file.write_all_at(&noise(1000 + n as u64, *length), *offset).unwrap();
        }
        file.set_len(size).unwrap();
    };
    sparse("sparse/none", 0, &[]);
    sparse("sparse/all hole", 1 << 20, &[]);
    sparse("sparse/small", 90_000, &[(8_192, 4_096), (40_960, 4_096)]);
    sparse("sparse/middle", 50 << 20, &[(4 << 20, 700_000), (30 << 20, 4_096)]);
    sparse("sparse/start", 5 << 20, &[(0, 65_536)]);
    sparse("sparse/end", (5 << 20) + 100, &[((5 << 20) - 4_096, 4_196)]);
    sparse("sparse/huge", 1 << 40, &[(1 << 39, 12_288)]);

    set_xattr(&at.join("one byte"), "user.comment", b"hello");
    set_xattr(&at.join("one byte"), "user.empty", b"");
    set_xattr(&at.join("dir"), "user.on a directory", &[0, 255, 10]);
    UnixListener::bind(at.join("socket")).unwrap();
    mknodat(CWD, at.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();

    if is_root() {
        use std::os::unix::fs::{chown, lchown};
        mknodat(CWD, at.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3))
            .unwrap();
        mknodat(CWD, at.join("loop"), FileType::BlockDevice, Mode::from_raw_mode(0o660), makedev(7, 300))
            .unwrap();
        chown(at.join("dir/size-4000"), Some(1234), Some(70_000)).unwrap();
        lchown(at.join("dangling"), Some(99), Some(98)).unwrap();
        chown(at.join("fifo"), Some(5), Some(6)).unwrap();
        chown(at.join("dir/deeper"), Some(4_294_967_294), Some(3)).unwrap();
        set_xattr(&at.join("dir/large"), "trusted.secret", b"root only");
        set_xattr(&at.join("dangling"), "trusted.on a link", b"yes");
        set_xattr(&at.join("null"), "security.label", b"yes");
        // Capabilities are dropped by chown, so the order on restore matters.
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        chown(at.join("zeros"), Some(7), Some(7)).unwrap();
        set_xattr(&at.join("zeros"), "security.capability", &capability);
        chown(at.join("empty"), Some(8), Some(9)).unwrap();
    }
    set_xattr(&at.join("dir/size-65536"), "system.posix_acl_access", ACCESS_ACL);
    set_xattr(&at.join("dir/deeper"), "system.posix_acl_default", ACCESS_ACL);
    for (path, mode) in [
        ("empty", 0o6751),
        ("one byte", 0o000),
        ("dir/size-5", 0o604),
        ("dir.d", 0o2775),
        ("dir/deeper/empty", 0o1777),
        ("sparse", 0o500),
    ] {
        set_mode(&at.join(path), mode);
    }
    for (path, seconds, nanoseconds) in [
        ("empty", 0, 1),
        ("dir/large", 1_700_000_000, 123_456_789),
        ("dangling", -5, 999_999_999),
        ("fifo", 2_000_000_000, 7),
        ("dir/deeper/empty", 1_000_000, 2),
        ("dir/deeper", 1_000_001, 3),
        ("sparse/huge", 1_000_002, 4),
        ("", 1_000_003, 5),
    ] {
        set_mtime(&at.join(path), seconds, nanoseconds);
    }
}

fn volume() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("volume")).unwrap();
    fs::create_dir(dir.path().join("volume/sparse")).unwrap();
    everything(&dir.path().join("volume"));
    dir
}

#[test]
fn a_volume_with_everything_comes_back_as_it_was() {
    let dir = volume();
    let (from, to) = (dir.path().join("volume"), dir.path().join("back"));
    let depot = depot();
    let saved = depot.save(&from);
    assert_eq!(codes(&saved.findings), []);
    let loaded = depot.load(&saved, &to);
    assert_eq!(codes(&loaded.findings), []);
    assert_same(&from, &to);

    let done = loaded.done;
    assert_eq!((done.damaged, done.failed, done.deleted), (0, 0, 0));
    assert_eq!(done.files, saved.figures["files"]);
    assert_eq!(done.hardlinks, saved.figures["hardlinks"]);
    assert_eq!(done.hardlinks, 3);
    assert_eq!(saved.figures["bytes_read"], done.bytes, "holes are neither read nor written");
    assert!(saved.figures["bytes"] > 1 << 40, "but they count as size");

    // What was restored is backed up to the same chunks; only the tree has new inode numbers.
    let again = depot.save(&to);
    assert_eq!(again.findings, []);
    assert!(again.info.summary.figures["chunks_new"] <= 2, "{:?}", again.info.summary.figures);
}

#[test]
fn an_unchanged_volume_is_not_read_again_and_a_changed_file_is() {
    let dir = volume();
    let from = dir.path().join("volume");
    let depot = depot();
    let first = depot.save(&from);
    // As if the first backup had begun an hour from now: everything had been left alone before it.
    let settled = Saved { started: first.started + 3_600_000_000_000, ..first };
    let second = depot.save_after(&from, Some(&settled));
    assert_eq!(second.figures["files_read"], 0);
    assert_eq!(second.figures["files_unchanged"], second.figures["files"]);
    assert_eq!(second.root, settled.root, "the same tree has the same root");

    fs::write(from.join("dir/size-5"), b"other").unwrap();
    let third = depot.save_after(&from, Some(&settled));
    assert_eq!(third.figures["files_read"], 1);
    let to = dir.path().join("back");
    depot.load(&third, &to);
    assert_same(&from, &to);
}

#[test]
fn the_same_volume_read_by_any_number_of_threads_is_the_same_tree() {
    let dir = volume();
    let from = dir.path().join("volume");
    let depot = depot();
    let roots: Vec<_> = [1, 2, 7]
        .into_iter()
        .map(|threads| {
            let options = BackupOptions { threads, ..BackupOptions::default() };
            depot.try_save(&from, None, &options).unwrap().root
        })
        .collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    for threads in [1, 5] {
        let to = dir.path().join(format!("back-{threads}"));
        let saved = Saved { root: roots[0], ..depot.save(&from) };
        let options = RestoreOptions { threads, ..RestoreOptions::default() };
        depot.try_load(&saved, &to, &options).unwrap();
        assert_same(&from, &to);
    }
}

#[test]
fn small_files_with_several_names_lie_between_small_files_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for n in 0..400 {
        fs::write(from.join(format!("{n:03}")), noise(n, 100 + n as usize)).unwrap();
        if n % 3 == 0 {
            fs::hard_link(from.join(format!("{n:03}")), from.join(format!("{:03} too", n * 7 % 400)))
                .unwrap();
        }
    }
    fs::write(from.join("200 large"), noise(9, 2_000_000)).unwrap();
    fs::hard_link(from.join("200 large"), from.join("100 large")).unwrap();
    let depot = depot();
    let saved = depot.save(&from);
    let to = dir.path().join("to");
    depot.load(&saved, &to);
    assert_same(&from, &to);
}

#[test]
fn chunks_of_any_size_hold_files_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for n in 0..300 {
        fs::write(from.join(format!("{n}")), noise(n, (n * n) as usize)).unwrap();
    }
    for (n, (min, avg, max)) in
        [(64, 256, 512), (100, 1_024, 262_144), (65_536, 131_072, 262_144)].into_iter().enumerate()
    {
        let depot = depot_of(repo::ChunkBytes { min, avg, max });
        let saved = depot.save(&from);
        assert_eq!(codes(&saved.findings), []);
        let to = dir.path().join(format!("to-{n}"));
        depot.load(&saved, &to);
        assert_same(&from, &to);
    }
}

#[test]
fn one_file_is_a_volume_too() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    fs::write(&image, noise(5, 3_000_000)).unwrap();
    set_mode(&image, 0o640);
    let depot = depot();
    let saved = depot.save(&image);
    assert_eq!(codes(&saved.findings), []);
    let to = dir.path().join("back");
    depot.load(&saved, &to);
    assert!(fs::read(to.join("disk.img")).unwrap() == fs::read(&image).unwrap());
    let settled = Saved { started: saved.started + 3_600_000_000_000, ..saved };
    assert_eq!(depot.save_after(&image, Some(&settled)).figures["files_unchanged"], 1);
}

#[test]
fn a_path_longer_than_the_system_takes_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    // 40 levels of 200 bytes are beyond PATH_MAX; 300 levels beyond what is kept open.
    let mut at = rustix::fs::open(&from, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    for level in 0..300 {
        let name = if level < 40 { "d".repeat(200) } else { "d".into() };
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
        let file =
            rustix::fs::openat(&at, "e", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, Mode::RUSR);
        rustix::io::write(file.unwrap(), format!("level {level}").as_bytes()).unwrap();
        at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let depot = depot();
    let saved = depot.save(&from);
    assert_eq!(codes(&saved.findings), []);
    assert_eq!((saved.figures["files"], saved.figures["directories"]), (300, 301));
    let to = dir.path().join("to");
    let loaded = depot.load(&saved, &to);
    assert_eq!(codes(&loaded.findings), []);
    assert_eq!((loaded.done.files, loaded.done.directories), (300, 301));
    let again = depot.save(&to);
    assert_eq!(again.figures, saved.figures);
    // The usual tools cannot remove these; a mirror of nothing can.
    let empty = dir.path().join("nothing");
    fs::create_dir(&empty).unwrap();
    let nothing = depot.save(&empty);
    let mirror = RestoreOptions { existing: Existing::Mirror, ..RestoreOptions::default() };
    for deep in [&from, &to] {
        assert_eq!(depot.try_load(&nothing, deep, &mirror).unwrap().done.deleted, 2);
        assert_eq!(fs::read_dir(deep).unwrap().count(), 0);
    }
}
