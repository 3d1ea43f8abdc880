//! R7: what was once released stays readable. The repository in `golden/v1` was written when format version 1
//! was; it is read and never edited. Its passphrases are `golden read`, `golden list` and `golden put`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{NOW, bytes, entry, noise, small_chunks, write_stream};
use repo::store::Store;
use repo::store::mem::MemStore;
use repo::{
    Capability, CommitDraft, Content, EntryKind, Env, Extent, InitOptions, Kdf, Lane, ManifestEntry,
    NodeKind, Passphrase, ReaderOptions, Repository, TreeEntry, WriterOptions,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn load() -> MemStore {
    fn walk(store: &MemStore, root: &Path, at: &Path) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(store, root, &path);
            } else {
                let key = path.strip_prefix(root).unwrap().to_str().unwrap();
                store.put(key, std::fs::read(&path).unwrap().into()).unwrap();
            }
        }
    }
    let store = MemStore::new();
    walk(&store, &folder(), &folder());
    store
}

/// The streams of both commits: name and content.
fn streams(second: bool) -> Vec<(&'static str, Vec<u8>)> {
    let long = bytes(1, 150_000);
    let mut streams = vec![("empty", vec![]), ("long", long.clone()), ("short", b"hold fast".to_vec())];
    if second {
        streams[1].1.splice(70_000..70_010, noise(2, 300));
    }
    streams
}

/// One entry of every kind.
fn tree(chunk: repo::ChunkId) -> Vec<TreeEntry> {
    let node = |path: &str, kind: NodeKind| {
        let path = path.as_bytes().to_vec();
        let hard_link = matches!(kind, NodeKind::HardLink { .. });
        let common = if hard_link { (0, 0, 0, 0) } else { (0o4751, 1000, 100, -1) };
        let (mode, uid, gid, mtime) = common;
        TreeEntry { path, kind, mode, uid, gid, mtime, xattrs: BTreeMap::new() }
    };
    let file = |size, content, holes: &[(u64, u64)]| NodeKind::File {
        ctime: 1 << 60,
        inode: 77,
        size,
        content,
        holes: holes.to_vec(),
    };
    let extent = Content::Extents(vec![Extent { chunk, offset: 2, length: 7 }]);
    let mut entries = vec![
        node("", NodeKind::Directory),
        node("a", NodeKind::Directory),
        node("a/empty", file(0, Content::Extents(vec![]), &[])),
        node("a/hole", file(5_000, Content::Extents(vec![]), &[(0, 5_000)])),
        node("a/sparse", file(1 << 20, extent.clone(), &[(0, 4096), (4100, (1 << 20) - 4103)])),
        node("a-block", NodeKind::BlockDevice { major: 8, minor: 1 }),
        node("a-char", NodeKind::CharDevice { major: 1, minor: 300_000 }),
        node("fifo", NodeKind::Fifo),
        node("file", file(7, extent, &[])),
        node("hard", NodeKind::HardLink { target: b"file".to_vec() }),
        node("link", NodeKind::Symlink { target: b"../\xff/elsewhere".to_vec() }),
        node("socket", NodeKind::Socket),
    ];
    entries[8].xattrs = BTreeMap::from([
        (b"security.capability".to_vec(), vec![1, 0, 0, 2]),
        (b"user.empty".to_vec(), vec![]),
    ]);
    entries
}

/// Wrote `golden/v1`; kept to show how, and never run again.
#[test]
#[ignore = "the golden repository is never edited"]
fn write_the_golden_repository() {
    assert!(!folder().exists(), "it is never edited");
    let store = MemStore::new();
    let env = Env::fixed(NOW, 2_026);
    let options = InitOptions {
        chunk_bytes: small_chunks(),
        kdf: Kdf::cheap(),
        label: "golden".into(),
        lock: None,
        like: None,
    };
    let repo =
        Repository::init(Arc::new(store.clone()), &Passphrase::new("golden read"), &options, &env).unwrap();
    for (words, capability) in [("golden list", Capability::List), ("golden put", Capability::Put)] {
        repo.add_key(&Passphrase::new(words), capability, words, Kdf::cheap()).unwrap();
    }
    let mut parents = Vec::new();
    for second in [false, true] {
        env.advance(1_000_000_000);
        let started = env.now();
        let options = WriterOptions { threads: 1, uploads: 1, ..WriterOptions::default() };
        let writer = repo.writer(options).unwrap();
        let mut manifest = Vec::new();
        for (name, content) in streams(second) {
            manifest.push(entry(name, write_stream(&writer, &content).unwrap()));
        }
        let chunk = writer.chunk(Lane::Data, "hold fast".into()).unwrap().wait().unwrap();
        let mut entries = writer.tree();
        tree(chunk).iter().for_each(|entry| entries.push(entry).unwrap());
        let figures = BTreeMap::from([("files".to_string(), 4)]);
        let root = entries.finish().unwrap();
        manifest.push(ManifestEntry { name: "tree".into(), kind: EntryKind::Tree, root, figures });
        env.advance(500_000_000);
        let info = writer
            .commit(CommitDraft {
                kind: "volume".into(),
                labels: BTreeMap::from([("namespace".into(), "shop".into()), ("ünïcode".into(), "✓".into())]),
                figures: BTreeMap::from([("bytes".into(), 150_009)]),
                parents: std::mem::take(&mut parents),
                started,
                manifest,
            })
            .unwrap();
        parents.push(info.id);
    }
    for (key, content) in store.snapshot() {
        let path = folder().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

#[test]
fn r7_the_golden_repository_of_version_1_stays_readable() {
    let store: Arc<dyn Store> = Arc::new(load());
    let open =
        |words: &str| Repository::open(store.clone(), &Passphrase::new(words), &Env::fixed(NOW, 1)).unwrap();
    let repo = open("golden read");
    assert_eq!(open("golden list").capability(), Capability::List);
    assert_eq!(open("golden put").capability(), Capability::Put);
    let commits = repo.commits().unwrap();
    assert_eq!((commits.done.len(), commits.findings), (2, vec![]));
    assert_eq!(open("golden list").commits().unwrap().done, commits.done);
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    assert_eq!(reader.findings(), []);
    for (second, info) in [false, true].into_iter().zip(&commits.done) {
        let summary = &info.summary;
        assert_eq!((summary.kind.as_str(), summary.labels["ünïcode"].as_str()), ("volume", "✓"));
        let seconds = 1_000_000_000 + i64::from(second) * 1_500_000_000;
        assert_eq!((summary.started, summary.time), (NOW + seconds, NOW + seconds + 500_000_000));
        let parents: Vec<_> = commits.done.iter().take(usize::from(second)).map(|info| info.id).collect();
        assert_eq!(summary.parents, parents);

        let manifest = reader.manifest(&info.id).unwrap();
        let (tree_entry, others) = manifest.split_last().unwrap();
        let read: Vec<_> =
            others.iter().map(|one| (one.name.as_str(), reader.bytes(&one.root, 1 << 20).unwrap())).collect();
        assert!(read == streams(second));
        assert_eq!((tree_entry.name.as_str(), tree_entry.kind), ("tree", EntryKind::Tree));
        let entries: Vec<_> = reader.tree(&tree_entry.root).map(|entry| entry.unwrap()).collect();
        let short = others[2].root.id;
        assert_eq!(reader.chunk(&short).unwrap(), "hold fast");
        assert_eq!(entries, tree(short));
    }
}

/// The same bytes in the same repository are the same chunks for ever: a release that cuts, hashes or encodes
/// otherwise would store everything anew.
#[test]
fn r7_a_write_of_today_finds_all_that_was_written_then() {
    let store: Arc<dyn Store> = Arc::new(load());
    let repo = Repository::open(store, &Passphrase::new("golden put"), &Env::fixed(NOW, 1)).unwrap();
    let writer = repo.writer(WriterOptions::default()).unwrap();
    for second in [false, true] {
        for (_, content) in streams(second) {
            write_stream(&writer, &content).unwrap();
        }
    }
    let chunk = writer.chunk(Lane::Data, "hold fast".into()).unwrap().wait().unwrap();
    let mut entries = writer.tree();
    tree(chunk).iter().for_each(|entry| entries.push(entry).unwrap());
    entries.finish().unwrap();
    // The manifest is empty, so the commit adds no chunk of its own.
    let info = writer.commit(CommitDraft::default()).unwrap();
    assert_eq!((info.summary.figures["chunks_new"], info.summary.figures["packs"]), (0, 0));
}
