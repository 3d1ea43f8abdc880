//! What becomes of what the target holds already.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::*;
use repo::{Outcome, ReaderOptions};
use source::files::{Error, Existing, RestoreOptions, Restored, plan_mirror};

/// Makes what the lines say: `d path`, `f path content`, `s path target`.
fn make(at: &Path, lines: &[&str]) {
    fs::create_dir_all(at).unwrap();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let path = at.join(words[1]);
        match words[0] {
            "d" => fs::create_dir(path).unwrap(),
            "f" => fs::write(path, words[2]).unwrap(),
            _ => symlink(words[2], path).unwrap(),
        }
    }
}

/// The other way round.
fn list(at: &Path) -> Vec<String> {
    let line = |(path, fact): (PathBuf, Facts)| {
        let content = String::from_utf8(fact.content).unwrap();
        match fact.kind.as_str() {
            "directory" => format!("d {}", path.display()),
            "file" => format!("f {} {content}", path.display()),
            _ => format!("s {} {content}", path.display()),
        }
    };
    facts(at).into_iter().filter(|(path, _)| !path.as_os_str().is_empty()).map(line).collect()
}

struct Case {
    _dir: tempfile::TempDir,
    outcome: Result<Outcome<Restored>, Error>,
    planned: Vec<PathBuf>,
    left: Vec<String>,
}

fn check(tree: &[&str], target: &[&str], existing: Existing) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    make(&from, tree);
    make(&to, target);
    let depot = depot();
    let saved = depot.save(&from);
    let options = RestoreOptions { existing, ..RestoreOptions::default() };
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let planned = plan_mirror(&reader, &saved.root, &to, &options).unwrap();
    assert_eq!(
        list(&to),
        {
            let mut lines: Vec<_> = target.to_vec();
            lines.sort();
            lines.sort_by_key(|l| l[2..].to_owned());
            lines
        },
        "a plan changes nothing"
    );
    let outcome = depot.try_load(&saved, &to, &options);
    Case { _dir: dir, outcome, planned, left: list(&to) }
}

const TREE: &[&str] = &["d a", "f a/one new", "f b new", "d c", "s d target"];

#[test]
fn a_target_that_holds_something_is_refused() {
    for target in [&["f x old"][..], &["d x"], &["s x y"], &["d lost+found", "f b old"]] {
        let case = check(TREE, target, Existing::Refuse);
        assert!(matches!(case.outcome, Err(Error::NotEmpty { .. })), "{target:?}");
        assert_eq!(case.left.len(), target.len(), "nothing was written");
    }
    let case = check(TREE, &["d lost+found"], Existing::Refuse);
    assert_eq!(case.outcome.unwrap().done.failed, 0, "a fresh file system is empty enough");
    let case = check(&["d lost+found", "f lost+found/x new"], &["d lost+found"], Existing::Refuse);
    assert_eq!(case.left, ["d lost+found", "f lost+found/x new"]);
}

#[test]
fn merging_replaces_what_the_tree_names_and_leaves_the_rest() {
    for (target, left) in [
        (&[][..], TREE),
        (
            &["d a", "f a/one old", "f a/two kept", "f b old", "f e kept"],
            &["d a", "f a/one new", "f a/two kept", "f b new", "d c", "s d target", "f e kept"],
        ),
        // Something else under the name of a directory, a file, a symlink.
        (&["f a old", "s c old"], TREE),
        (&["s b old", "f d old"], TREE),
        (&["s d old"], TREE),
    ] {
        let case = check(TREE, target, Existing::Merge);
        let outcome = case.outcome.unwrap();
        assert_eq!(codes(&outcome.findings), [], "{target:?}");
        assert_eq!(case.left, left, "{target:?}");
        assert_eq!(outcome.done.deleted, 0);
    }
}

#[test]
fn merging_does_not_remove_a_directory_for_a_file() {
    let case = check(TREE, &["d b", "f b/precious kept"], Existing::Merge);
    let outcome = case.outcome.unwrap();
    assert_eq!(codes(&outcome.findings), [("in-the-way", "b".into())]);
    assert_eq!(case.left, ["d a", "f a/one new", "d b", "f b/precious kept", "d c", "s d target"]);
}

#[test]
fn a_mirror_removes_what_its_plan_says_and_nothing_else() {
    for (target, planned) in [
        (&[][..], &[][..]),
        (&["d a", "f a/one old", "f a/two gone", "f b old"], &["a/two"]),
        (&["d a", "d a/x", "f a/x/1 gone", "d a/x/y", "f a/x/y/2 gone", "s z gone"], &["a/x", "z"]),
        (&["d b", "f b/3 gone"], &["b"]),
        (&["d d", "d d/e"], &["d"]),
        (&["d lost+found"], &[]),
        (&["f a.b gone", "f a-b gone"], &["a-b", "a.b"]),
    ] {
        let case = check(TREE, target, Existing::Mirror);
        let outcome = case.outcome.unwrap();
        assert_eq!(codes(&outcome.findings), [], "{target:?}");
        assert_eq!(case.planned, planned.iter().map(PathBuf::from).collect::<Vec<_>>(), "{target:?}");
        let mut left = TREE.to_vec();
        if *target == ["d lost+found"] {
            left.push("d lost+found");
        }
        assert_eq!(case.left, left, "{target:?}");
    }
}

#[test]
fn a_mirror_of_a_damaged_point_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    make(&from, TREE);
    make(&to, &["f z kept"]);
    let depot = depot();
    let saved = depot.save(&from);
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let chunk = reader
        .tree(&saved.root)
        .find_map(|entry| match entry.unwrap().kind {
            repo::NodeKind::File { content: repo::Content::Extents(extents), .. } => Some(extents[0].chunk),
            _ => None,
        })
        .unwrap();
    depot.store.tamper(&reader.locate(&chunk).unwrap().unwrap().pack.key(), None);
    let options = RestoreOptions { existing: Existing::Mirror, ..RestoreOptions::default() };
    let outcome = depot.try_load(&saved, &to, &options).unwrap();
    assert_eq!(outcome.done.damaged, 2);
    assert_eq!(outcome.done.deleted, 0);
    assert!(outcome.findings.iter().any(|f| f.code == "nothing-removed"));
    assert!(to.join("z").exists());
}

#[test]
fn hard_links_are_made_again_over_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    make(&from, &["f a one", "f x two"]);
    fs::hard_link(from.join("a"), from.join("b")).unwrap();
    fs::hard_link(from.join("a"), from.join("c")).unwrap();
    let depot = depot();
    let saved = depot.save(&from);
    let options = RestoreOptions { existing: Existing::Mirror, ..RestoreOptions::default() };
    for _ in 0..2 {
        assert_eq!(codes(&depot.try_load(&saved, &to, &options).unwrap().findings), []);
        assert_same(&from, &to);
    }
    // Linked otherwise than in the tree: writing one must not write the other.
    fs::remove_dir_all(&to).unwrap();
    make(&to, &["f a old"]);
    fs::hard_link(to.join("a"), to.join("x")).unwrap();
    depot.try_load(&saved, &to, &options).unwrap();
    assert_same(&from, &to);
}

/// u::rwx, u:1000:rwx, g::r-x, m::rwx, o::---
const DEFAULT_ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 232, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16,
    0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

#[test]
fn nothing_restored_inherits_an_acl_of_the_target() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    make(&from, TREE);
    fs::create_dir(from.join("with acl")).unwrap();
    fs::write(from.join("with acl/file"), b"x").unwrap();
    set_xattr(&from.join("with acl"), "system.posix_acl_default", DEFAULT_ACL);
    let depot = depot();
    let saved = depot.save(&from);
    make(&to, &["d a"]);
    for path in [&to, &to.join("a")] {
        set_xattr(path, "system.posix_acl_default", DEFAULT_ACL);
        set_xattr(path, "user.of the target", b"1");
    }
    let options = RestoreOptions { existing: Existing::Merge, ..RestoreOptions::default() };
    depot.try_load(&saved, &to, &options).unwrap();
    assert_same(&from, &to);
}

#[test]
fn a_part_of_a_volume_is_a_volume() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    make(&from, &["d a", "d a/b", "f a/b/1 one", "f a/b.c no", "d x", "f x/2 two", "s x/l target"]);
    fs::hard_link(from.join("a/b/1"), from.join("x/3")).unwrap();
    fs::hard_link(from.join("a/b/1"), from.join("x/4")).unwrap();
    set_mode(&from.join("a/b"), 0o710);
    let depot = depot();
    let saved = depot.save(&from);
    for (part, left) in [
        ("a", &["d b", "f b.c no", "f b/1 one"][..]),
        ("a/b", &["f 1 one"]),
        ("a/b/1", &["f 1 one"]),
        ("x/l", &["s l target"]),
        // Links to a file outside of the part bring it along, once.
        ("x", &["f 2 two", "f 3 one", "f 4 one", "s l target"]),
        ("x/4", &["f 4 one"]),
    ] {
        let to = dir.path().join(part.replace('/', "-"));
        let options = RestoreOptions { subpath: Some(part.into()), ..RestoreOptions::default() };
        let outcome = depot.try_load(&saved, &to, &options).unwrap();
        assert_eq!(codes(&outcome.findings), [], "{part}");
        let mut lines = list(&to);
        lines.sort_by_key(|line| line[2..].to_owned());
        assert_eq!(lines, left, "{part}");
    }
    assert_eq!(facts(&dir.path().join("a-b"))[Path::new("")].mode, 0o710);
    assert_eq!(facts(&dir.path().join("x"))[Path::new("4")].same_as, Some("3".into()));
    for missing in ["y", "a/c", "a/b/", "/a", "../a", "b"] {
        let options = RestoreOptions { subpath: Some(missing.into()), ..RestoreOptions::default() };
        let to = dir.path().join("missing");
        assert!(matches!(depot.try_load(&saved, &to, &options), Err(Error::NoSuchPath { .. })), "{missing}");
        assert!(!to.exists());
    }
}
