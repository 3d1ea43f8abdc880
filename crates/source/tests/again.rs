//! A large file that is read again: what it was is recognised by its old chunks, which must change nothing but the time
//! it takes.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::*;

const LENGTH: usize = 40_000_000;

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn overwrite(path: &Path, places: impl Iterator<Item = usize>) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    for (number, at) in places.enumerate() {
        file.write_all_at(&noise(9_000 + number as u64, 8_192), at as u64).unwrap();
    }
}

/// Whatever happened to it, it is restored; and unless it was overwritten in place, it is cut as if it were seen for the
/// first time: the tree is the same to the bit. (One page may lie in a chunk of which too little is left: then that is `None`.)
#[test]
fn a_file_that_changed_is_cut_as_if_it_were_new_unless_it_was_overwritten_in_place() {
    type Change = fn(&Path);
    let changes: [(&str, Option<bool>, Change); 13] = [
        ("nothing but its times", Some(true), |path| rewrite(path, |_| {})),
        ("a page", None, |path| overwrite(path, std::iter::once(20_000_000))),
        ("pages all over it", Some(false), |path| overwrite(path, (0..38_000_000).step_by(1_000_003))),
        ("its beginning", None, |path| overwrite(path, std::iter::once(0))),
        ("its end", None, |path| overwrite(path, std::iter::once(LENGTH - 8_192))),
        ("an end more", Some(true), |path| {
            fs::OpenOptions::new().append(true).open(path).unwrap().write_all(&noise(8, 300_000)).unwrap();
        }),
        ("a byte more", Some(true), |path| rewrite(path, |bytes| bytes.push(7))),
        ("an end less", Some(true), |path| rewrite(path, |bytes| bytes.truncate(23_456_789))),
        ("bytes put in", Some(true), |path| {
            rewrite(path, |bytes| drop(bytes.splice(9_999_999..9_999_999, noise(7, 777))))
        }),
        ("bytes taken out", Some(true), |path| rewrite(path, |bytes| drop(bytes.drain(5_000..5_100)))),
        ("a hole", Some(true), |path| {
            fs::remove_file(path).unwrap();
            let file = fs::File::create(path).unwrap();
            file.write_all_at(&noise(1, LENGTH)[..8_192_000], 0).unwrap();
            file.write_all_at(&noise(1, LENGTH)[8_192_000..], 16_384_000).unwrap();
        }),
        ("a megabyte overwritten", None, |path| {
            rewrite(path, |bytes| bytes[10_000_000..11_000_000].copy_from_slice(&noise(5, 1_000_000)))
        }),
        ("everything", Some(true), |path| rewrite(path, |bytes| *bytes = noise(2, 17_000_000))),
    ];
    for (what, as_new, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        let large = dir.path().join("large");
        fs::write(&large, noise(1, LENGTH)).unwrap();
        // In at most eight chunks, wherever they are cut: it has no stream.
        fs::write(dir.path().join("medium"), noise(3, 130_000)).unwrap();
        let depot = depot();
        let first = depot.save(dir.path());
        change(&large);
        rewrite(&dir.path().join("medium"), |bytes| bytes[100_000] ^= 1);
        let again = depot.save_after(dir.path(), Some(&first));
        assert_eq!((again.figures["files_read"], again.findings.len()), (2, 0), "{what}");
        let alone = depot.save(dir.path());
        if let Some(as_new) = as_new {
            assert_eq!(again.root == alone.root, as_new, "{what}");
        }
        let to = tempfile::tempdir().unwrap();
        assert_eq!(depot.load(&again, to.path()).done.damaged, 0, "{what}");
        assert!(fs::read(to.path().join("large")).unwrap() == fs::read(&large).unwrap(), "{what}");
    }
}

/// The counts of a write say what was read and what was there already, whichever way it was found.
#[test]
fn a_file_that_is_what_it_was_counts_as_chunks_used_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large"), noise(1, LENGTH)).unwrap();
    let depot = depot();
    let first = depot.save(dir.path());
    rewrite(&dir.path().join("large"), |_| {});
    let again = depot.save_after(dir.path(), Some(&first));
    let figure = |name: &str| again.info.summary.figures[name];
    assert_eq!(again.figures["bytes_read"], LENGTH as u64);
    assert!(figure("chunks_reused") > 500 && figure("chunks_new") < 5, "{:?}", again.info.summary.figures);
    assert!(figure("bytes_new_plain") < 10_000, "{:?}", again.info.summary.figures);
}
