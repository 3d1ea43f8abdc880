//! A tree that means harm, a target that means harm: nothing is written outside of the target.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use repo::{Lane, Progress, ReaderOptions, Root, WriterOptions};
use source::files::{Error, Existing, RestoreOptions, restore};

/// Just enough CBOR to write a tree by hand, right or wrong.
struct Cbor(Vec<u8>);

impl Cbor {
    fn head(&mut self, major: u8, value: u64) -> &mut Cbor {
        match value {
            0..24 => self.0.push(major << 5 | value as u8),
            24..256 => self.0.extend([major << 5 | 24, value as u8]),
            256..65_536 => {
                self.0.push(major << 5 | 25);
                self.0.extend((value as u16).to_be_bytes());
            }
            _ => {
                self.0.push(major << 5 | 27);
                self.0.extend(value.to_be_bytes());
            }
        }
        self
    }

    fn uint(&mut self, value: u64) -> &mut Cbor {
        self.head(0, value)
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Cbor {
        self.head(2, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// The fields 0 to 5.
    fn common(&mut self, more: u64, path: &str, kind: u64) -> &mut Cbor {
        self.head(5, 6 + more).uint(0).bytes(path.as_bytes()).uint(1).uint(kind);
        self.uint(2).uint(0o755).uint(3).uint(0).uint(4).uint(0).uint(5).uint(0)
    }
}

/// `d path`, `f path` (an empty file), `s path -> target`, `h path -> target`.
fn tree(lines: &[&str]) -> Vec<u8> {
    let mut out = Cbor(Vec::new());
    for line in lines {
        let (kind, rest) = line.split_at(2);
        let (path, target) = rest.split_once(" -> ").unwrap_or((rest, ""));
        match kind {
            "d " => out.common(0, path, 1),
            "f " => out.common(3, path, 0).uint(6).uint(0).uint(7).uint(1).uint(8).uint(0),
            "s " => out.common(1, path, 2).uint(12).bytes(target.as_bytes()),
            _ => out
                .head(5, 3)
                .uint(0)
                .bytes(path.as_bytes())
                .uint(1)
                .uint(3)
                .uint(12)
                .bytes(target.as_bytes()),
        };
    }
    out.0
}

fn stored(depot: &Depot, bytes: &[u8]) -> Root {
    let writer = depot.repo.writer(WriterOptions::default()).unwrap();
    let mut stream = writer.stream(Lane::Meta);
    stream.write_all(bytes).unwrap();
    let root = stream.finish().unwrap();
    writer.commit(repo::CommitDraft::default()).unwrap();
    root
}

/// A directory beside the target that must stay as it is, with one file in it.
struct Scene {
    _dir: tempfile::TempDir,
    target: PathBuf,
    outside: PathBuf,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let (target, outside) = (dir.path().join("target"), dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"untouched").unwrap();
    Scene { _dir: dir, target, outside }
}

impl Scene {
    fn outside_is_untouched(&self) {
        assert_eq!(fs::read_dir(&self.outside).unwrap().count(), 1);
        assert_eq!(fs::read(self.outside.join("precious")).unwrap(), b"untouched");
    }
}

fn restored(depot: &Depot, root: Root, target: &Path) -> Result<(), Error> {
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    restore(&reader, &root, target, &RestoreOptions::default(), &()).map(|_| ())
}

#[test]
fn a_tree_written_by_hand_is_a_tree() {
    let (depot, scene) = (depot(), scene());
    let root = stored(&depot, &tree(&["d ", "d a", "f a/b", "f c", "h d -> a/b", "s e -> /etc/passwd"]));
    restored(&depot, root, &scene.target).unwrap();
    assert_eq!(facts(&scene.target).len(), 6, "so the refusals below are about what is wrong with them");
}

#[test]
fn a_hostile_tree_is_refused_before_anything_is_written() {
    for (what, lines) in [
        ("a way out", &["d ", "f ../outside/new"][..]),
        ("a way out in the middle", &["d ", "d a", "f a/../../outside/new"]),
        ("only a way out", &["d ", "d .."]),
        ("the directory itself", &["d ", "f ."]),
        ("an absolute name", &["d ", "f /tmp/holdfast-hostile"]),
        ("an empty name", &["d ", "d a", "f a//b"]),
        ("a trailing slash", &["d ", "d a/"]),
        ("a NUL byte", &["d ", "f a\0b"]),
        ("a name of 256 bytes", &["d ", &format!("f {}", "n".repeat(256))]),
        ("through a symlink", &["d ", "s a -> ../outside", "f a/new"]),
        ("through a file", &["d ", "f a", "f a/new"]),
        ("without its parent", &["d ", "f a/new"]),
        ("twice", &["d ", "f a", "f a"]),
        ("first a symlink, then a file", &["d ", "s a -> ../outside/precious", "f a"]),
        ("first a symlink, then a directory", &["d ", "s a -> ../outside", "d a", "f a/new"]),
        ("out of order", &["d ", "f b", "f a"]),
        ("back into a directory", &["d ", "d a", "f b", "f a/c"]),
        ("a link out", &["d ", "h a -> ../outside/precious"]),
        ("a link to an absolute name", &["d ", "h a -> /etc/passwd"]),
        ("a link to what comes later", &["d ", "h a -> b", "f b"]),
        ("a link to itself", &["d ", "h a -> a"]),
        ("a root that is a symlink", &["s  -> ../outside", "f a"]),
        ("two roots", &["d ", "d "]),
    ] {
        let (depot, scene) = (depot(), scene());
        let root = stored(&depot, &tree(lines));
        assert!(restored(&depot, root, &scene.target).is_err(), "{what}");
        assert!(!scene.target.exists(), "{what}: something was written");
        scene.outside_is_untouched();
    }
}

#[test]
fn a_link_to_what_is_no_file_of_the_tree_is_not_made() {
    let (depot, scene) = (depot(), scene());
    // The path is in order, but names a symlink; or a directory; or nothing.
    let root = stored(
        &depot,
        &tree(&["d ", "s a -> ../outside/precious", "d b", "h x -> a", "h y -> b", "h z -> c"]),
    );
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let outcome = restore(&reader, &root, &scene.target, &RestoreOptions::default(), &()).unwrap();
    assert_eq!((outcome.done.failed, outcome.done.hardlinks), (3, 0));
    scene.outside_is_untouched();
}

/// Swaps `dir` in the target for a symlink that leads out, as soon as something has been restored.
struct Swap<'a> {
    scene: &'a Scene,
    done: AtomicBool,
}

impl Progress for Swap<'_> {
    fn add(&self, files: u64, _: u64) {
        let dir = self.scene.target.join("dir");
        if files > 0 && dir.exists() && !self.done.swap(true, Ordering::SeqCst) {
            fs::rename(&dir, self.scene.target.join("moved")).unwrap();
            symlink(&self.scene.outside, &dir).unwrap();
        }
    }
}

#[test]
fn a_directory_swapped_for_a_symlink_during_the_restore_leads_nowhere() {
    let (depot, scene) = (depot(), scene());
    let from = tempfile::tempdir().unwrap();
    fs::create_dir_all(from.path().join("dir/sub")).unwrap();
    for n in 0..500 {
        fs::write(from.path().join(format!("dir/sub/{n}")), noise(n, 1_000)).unwrap();
        fs::write(from.path().join(format!("dir/{n}")), noise(n, 1_000)).unwrap();
    }
    fs::hard_link(from.path().join("dir/7"), from.path().join("dir/zz link")).unwrap();
    fs::write(from.path().join("dir/precious"), b"of the tree").unwrap();
    let saved = depot.save(from.path());
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    for existing in [Existing::Refuse, Existing::Merge, Existing::Mirror] {
        let _ = fs::remove_dir_all(&scene.target);
        let swap = Swap { scene: &scene, done: AtomicBool::new(false) };
        let options = RestoreOptions { existing, ..RestoreOptions::default() };
        let outcome = restore(&reader, &saved.root, &scene.target, &options, &swap);
        assert!(swap.done.load(Ordering::SeqCst));
        scene.outside_is_untouched();
        if existing == Existing::Refuse {
            let outcome = outcome.unwrap();
            assert!(outcome.findings.iter().any(|f| f.what == "dir"), "{:?}", outcome.findings);
        }
    }
}

#[test]
fn symlinks_that_wait_in_the_target_are_replaced_and_not_followed() {
    let (depot, scene) = (depot(), scene());
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("dir")).unwrap();
    fs::write(from.path().join("dir/precious"), b"of the tree").unwrap();
    fs::write(from.path().join("large"), noise(1, 3_000_000)).unwrap();
    fs::write(from.path().join("small"), b"small").unwrap();
    symlink("somewhere", from.path().join("link")).unwrap();
    let saved = depot.save(from.path());
    for existing in [Existing::Merge, Existing::Mirror] {
        fs::create_dir(&scene.target).unwrap();
        symlink(&scene.outside, scene.target.join("dir")).unwrap();
        for name in ["large", "small", "link"] {
            symlink(scene.outside.join("precious"), scene.target.join(name)).unwrap();
        }
        let options = RestoreOptions { existing, ..RestoreOptions::default() };
        depot.try_load(&saved, &scene.target, &options).unwrap();
        scene.outside_is_untouched();
        assert_same(from.path(), &scene.target);
        fs::remove_dir_all(&scene.target).unwrap();
    }
}
