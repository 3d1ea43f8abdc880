//! What an unchanged backup does not do: open a file.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::mem::MaybeUninit;

use common::*;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

#[test]
fn an_unchanged_backup_opens_no_file_and_reads_no_content() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..300 {
        fs::write(dir.path().join(format!("{n:03}")), noise(n, 3_000)).unwrap();
    }
    fs::write(dir.path().join("large"), noise(1_000, 20_000_000)).unwrap();
    fs::hard_link(dir.path().join("large"), dir.path().join("larger")).unwrap();
    let depot = depot();
    let first = depot.save(dir.path());

    // The kernel's own account of who opens what in the directory.
    let watch = inotify::init(CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, dir.path(), WatchFlags::OPEN | WatchFlags::ACCESS).unwrap();
    let opened = || {
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let mut reader = inotify::Reader::new(&watch, &mut buffer);
        let mut names = Vec::new();
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::ISDIR) => {}
                Ok(event) => names.extend(event.file_name().map(|name| name.to_str().unwrap().to_owned())),
                Err(Errno::AGAIN) => return names,
                Err(e) => panic!("{e}"),
            }
        }
    };

    let recent = Saved { started: first.started, ..first };
    let second = depot.save_after(dir.path(), Some(&recent));
    assert_eq!(second.figures["files_read"], 301, "written just before the first backup began: not trusted");
    let mut names = opened();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 301, "one name of the file of two names, and all others");

    let settled = Saved { started: recent.started + 3_600_000_000_000, ..recent };
    let third = depot.save_after(dir.path(), Some(&settled));
    assert_eq!(opened(), Vec::<String>::new());
    assert_eq!((third.figures["files_unchanged"], third.figures["bytes_read"]), (301, 0));
    assert_eq!(third.root, settled.root);
    assert!(
        third.info.summary.figures["chunks_new"] <= 1,
        "but the manifest, which says that nothing was read"
    );

    fs::write(dir.path().join("007"), b"changed").unwrap();
    let fourth = depot.save_after(dir.path(), Some(&settled));
    let mut names = opened();
    names.dedup();
    assert_eq!(names, ["007"]);
    assert_eq!(fourth.figures["files_read"], 1);
}

#[test]
fn a_file_whose_chunks_the_repository_lost_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large"), noise(1, 20_000_000)).unwrap();
    fs::write(dir.path().join("small"), noise(2, 2_000)).unwrap();
    let depot = depot();
    let first = depot.save(dir.path());
    let settled = Saved { started: first.started + 3_600_000_000_000, ..first };
    // Every pack that holds content; the lists of files stay.
    let reader = depot.repo.reader(repo::ReaderOptions::default()).unwrap();
    let mut packs = std::collections::BTreeSet::new();
    for entry in reader.tree(&settled.root) {
        if let repo::NodeKind::File { content, .. } = entry.unwrap().kind {
            match content {
                repo::Content::Extents(extents) => {
                    packs
                        .extend(extents.iter().map(|e| reader.locate(&e.chunk).unwrap().unwrap().pack.key()));
                }
                repo::Content::Stream(root) => {
                    packs.extend(
                        reader
                            .extents(&root)
                            .map(|e| reader.locate(&e.unwrap().id).unwrap().unwrap().pack.key()),
                    );
                }
            }
        }
    }
    for pack in packs {
        depot.store.tamper(&pack, None);
    }
    let second = depot.save_after(dir.path(), Some(&settled));
    assert_eq!(second.figures["files_read"], 2);
    let to = tempfile::tempdir().unwrap();
    let outcome = depot.load(&second, to.path());
    assert_eq!((outcome.done.files, outcome.done.damaged), (2, 0));
}
