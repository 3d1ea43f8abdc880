//! A volume backed up and restored by who has a put key and the keys of packs, as a node agent has: unchanged files are
//! not read, a page that was overwritten costs a page, and what was given back is what was there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use common::*;
use repo::{
    Bundle, Cancel, Capability, CommitDraft, EntryKind, Env, ManifestEntry, PackKeys, Reader, ReaderOptions,
    Remember, Repository, WriterOptions,
};
use source::files::{BackupOptions, Parent, RestoreOptions, backup, restore};

/// A node: the repository opened with a put bundle, and what it remembers.
struct Node {
    repo: Repository,
    keys: PackKeys,
    remember: Remember,
}

impl Node {
    fn new(depot: &Depot, remember: Remember) -> Node {
        let bundle = depot.repo.bundle(Capability::Put).unwrap();
        let bundle = Bundle::from_bytes(bundle.as_bytes()).unwrap();
        let repo = Repository::open(Arc::new(depot.store.clone()), &bundle, &Env::real()).unwrap();
        Node { repo, keys: PackKeys::new(), remember }
    }

    fn reader(&self, keys: &PackKeys) -> Reader {
        let options = ReaderOptions { pack_keys: Some(keys.clone()), ..ReaderOptions::default() };
        self.repo.reader(options).unwrap()
    }

    /// As if everything had been left alone for an hour before.
    fn save(&self, dir: &Path, before: Option<&Saved>) -> Saved {
        let started = self.repo.env().now() + 3_600_000_000_000;
        let reader = self.reader(&self.keys);
        let parent =
            before.map(|before| Parent { reader: &reader, root: before.root, started: before.started });
        let options = BackupOptions { parent, ..BackupOptions::default() };
        let (remember, known) = (self.remember, Some(self.keys.clone()));
        let writer = self.repo.writer(WriterOptions { remember, known, ..WriterOptions::default() }).unwrap();
        let outcome = backup(dir, &writer, &options, &()).unwrap();
        let (root, figures) = (outcome.done.root, outcome.done.figures);
        let entry =
            ManifestEntry { name: "volume".into(), kind: EntryKind::Tree, root, figures: figures.clone() };
        let draft = CommitDraft { kind: "piece".into(), manifest: vec![entry], ..CommitDraft::default() };
        let info = writer.commit(draft).unwrap();
        Saved { root, started, figures, findings: outcome.findings, info }
    }
}

fn volume(dir: &Path) {
    for n in 0..50 {
        fs::write(dir.join(format!("small-{n:02}")), noise(n, 3_000)).unwrap();
    }
    fs::write(dir.join("database"), noise(1_000, 6_000_000)).unwrap();
}

fn new_bytes(saved: &Saved) -> u64 {
    saved.info.summary.figures["bytes_new_plain"]
}

#[test]
fn r5_a_node_backs_up_and_restores_a_volume_without_the_read_key() {
    let (dir, depot) = (tempfile::tempdir().unwrap(), depot());
    volume(dir.path());
    let before_dir = tempfile::tempdir().unwrap();
    volume(before_dir.path());
    let node = Node::new(&depot, Remember::All);
    let first = node.save(dir.path(), None);
    let second = node.save(dir.path(), Some(&first));
    assert_eq!((second.figures["files_read"], second.findings.as_slice()), (0, &[][..]));
    assert_eq!((second.figures["files_unchanged"], second.root), (51, first.root));

    // A page of the database: by parts, which compare the old bytes, it costs a page.
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("database")).unwrap();
    file.write_all_at(&noise(7, 8_192), 375 * 8_192).unwrap();
    let third = node.save(dir.path(), Some(&second));
    assert_eq!(third.figures["files_read"], 1);
    // What it costs who has the read key.
    let twin = common::depot();
    let before = twin.save(before_dir.path());
    let settled = Saved { started: before.started + 3_600_000_000_000, ..before };
    fs::copy(dir.path().join("database"), before_dir.path().join("database")).unwrap();
    let with_read_key = new_bytes(&twin.save_after(before_dir.path(), Some(&settled)));
    assert!(new_bytes(&third) < with_read_key + 130_000, "{}", new_bytes(&third));
    let to = dir.path().with_extension("back");
    restore(&node.reader(&node.keys), &third.root, &to, &RestoreOptions::default(), &()).unwrap();
    assert_same(dir.path(), &to);
    fs::remove_dir_all(&to).unwrap();

    // The pod moves to a node that has nothing: everything is read once, the tree is stored once more, and that is all.
    let other = Node::new(&depot, Remember::All);
    let moved = other.save(dir.path(), Some(&third));
    assert_eq!(moved.figures["files_unchanged"], 0);
    assert!(moved.findings.iter().any(|finding| finding.code == "parent-unreadable"), "{:?}", moved.findings);
    // (The chunks around the page that had been kept in parts, too: nobody could compare.)
    assert!(new_bytes(&moved) < 400_000, "{}", new_bytes(&moved));
    let settled = other.save(dir.path(), Some(&moved));
    assert_eq!((settled.figures["files_read"], settled.findings.as_slice()), (0, &[][..]));

    // Restored there: whoever has the read key walks ahead and hands the keys over.
    let given = PackKeys::awaited(std::time::Duration::from_secs(600));
    let reader = other.reader(&given);
    let outcome = std::thread::scope(|scope| {
        let restoring = scope.spawn(|| restore(&reader, &third.root, &to, &RestoreOptions::default(), &()));
        let mut give = |pack, key| {
            given.give(pack, key);
            Ok(())
        };
        let streams = [(EntryKind::Tree, third.root)];
        depot.repo.pack_keys(&streams, true, &Cancel::new(), &mut give).unwrap();
        given.end();
        restoring.join().unwrap()
    });
    assert_eq!(outcome.unwrap().findings, []);
    assert_same(dir.path(), &to);
    fs::remove_dir_all(&to).unwrap();
}
