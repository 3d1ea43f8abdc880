//! R7: what was once released stays readable. Three repositories of format version 1 are read here and never edited:
//!
//! - `golden/v1`: from before anything but passphrases, packs, index and commits was there. Its passphrases are
//!   `golden read`, `golden list` and `golden put`.
//! - `golden/v1-all`: with every kind of object and of key that version 1 has. What opens it lies in
//!   `golden/v1-all.keys`, but for the passphrase `golden read` and the plugin, which is below.
//! - `golden/v1-parts`: with streams of parts of chunks, which came last. Its passphrase is `golden read`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::{NOW, bytes, entry, noise, small_chunks, write_stream};
use repo::check::{Budget, CheckOptions};
use repo::gc::GcOptions;
use repo::immutable::RenewOptions;
use repo::store::Store;
use repo::store::mem::MemStore;
use repo::store::vault::{Lock, LockMode, Vault};
use repo::store::versioned::{Flaws, VersionedStore};
use repo::{
    Capability, CommitDraft, CommitId, Content, EntryKind, Env, Extent, InitOptions, Kdf, KeyFile, KeyWrap,
    Lane, Leaf, LockPolicy, ManifestEntry, NodeKind, PartOf, Passphrase, ReaderOptions, RecoveryKey,
    Repository, Timestamp, TreeEntry, Unlock, WrapError, WrappedKey, WriterOptions, Zeroizing,
};

/// The kinds of objects as the format page lists them, each a name with `<placeholders>`.
fn kinds_of_the_page() -> Vec<String> {
    let page = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/repository.md"),
    );
    let page = page.unwrap();
    let (_, objects) = page.split_once("\n## Objects\n").unwrap();
    let (objects, _) = objects.split_once("\n\nAnyone can check").unwrap();
    let cells =
        objects.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned));
    names.collect()
}

/// Whether an object has such a name: a placeholder is hexadecimal digits, `…` is anything.
fn is_of_kind(key: &str, kind: &str) -> bool {
    let (mut key, mut kind) = (key, kind);
    loop {
        let end = kind.find(['<', '…']).unwrap_or(kind.len());
        let Some(rest) = key.strip_prefix(&kind[..end]) else { return false };
        if kind[end..].starts_with('…') {
            return true;
        }
        if end == kind.len() {
            return rest.is_empty();
        }
        let digits = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        if digits == 0 {
            return false;
        }
        (key, kind) = (&rest[digits..], &kind[end + kind[end..].find('>').unwrap() + 1..]);
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn load(name: &str) -> MemStore {
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
    walk(&store, &golden(name), &golden(name));
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
    assert!(!golden("v1").exists(), "it is never edited");
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
    write_points(&repo, &env);
    keep("v1", store.snapshot());
}

/// Two commits, the second upon the first.
fn write_points(repo: &Repository, env: &Env) -> Vec<CommitId> {
    let mut ids = Vec::new();
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
        ids.push(info.id);
    }
    ids
}

fn keep(name: &str, objects: BTreeMap<String, Bytes>) {
    for (key, content) in objects {
        let path = golden(name).join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// A plugin whose key is in this file.
struct Plugin;

impl KeyWrap for Plugin {
    fn name(&self) -> String {
        "golden".into()
    }

    fn key_id(&self) -> Result<String, WrapError> {
        Ok("golden key".into())
    }

    fn wrap(&self, plain: &[u8]) -> Result<WrappedKey, WrapError> {
        let ciphertext = plain.iter().map(|byte| byte ^ 0x5a).collect();
        let annotations = BTreeMap::from([("golden.example.com".to_string(), b"\x00\xff".to_vec())]);
        Ok(WrappedKey { key_id: self.key_id()?, ciphertext, annotations })
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        let same = self.wrap(&[])?;
        if (&wrapped.key_id, &wrapped.annotations) != (&same.key_id, &same.annotations) {
            return Err(WrapError::Refused("not what it was given".into()));
        }
        Ok(Zeroizing::new(wrapped.ciphertext.iter().map(|byte| byte ^ 0x5a).collect()))
    }
}

const DAY: Timestamp = 86_400_000_000_000;

/// Wrote `golden/v1-all`; kept to show how, and never run again.
#[test]
#[ignore = "the golden repository is never edited"]
fn write_the_golden_repository_of_all_kinds() {
    assert!(!golden("v1-all").exists(), "it is never edited");
    let env = Env::fixed(NOW, 2_027);
    let bucket = VersionedStore::new(&env, Flaws::default());
    let options = InitOptions {
        chunk_bytes: small_chunks(),
        kdf: Kdf::cheap(),
        label: "golden".into(),
        lock: Some(LockPolicy::new(LockMode::Governance, 30 * 86_400).unwrap()),
        like: None,
    };
    let store = Arc::new(bucket.clone());
    let repo = Repository::init(store, &Passphrase::new("golden read"), &options, &env).unwrap();
    let file = KeyFile::generate(&env).unwrap();
    repo.add_key(&file, Capability::List, "file", Kdf::cheap()).unwrap();
    repo.add_key(Unlock::Plugin(&Plugin), Capability::Put, "plugin", Kdf::cheap()).unwrap();
    let (_, recovery) = repo.add_recovery_key("recovery").unwrap();
    let points = write_points(&repo, &env);
    repo.add_hold(&points[0], "an audit", "ops", None).unwrap();
    repo.add_hold(&points[1], "until the new year", "ops", Some(NOW + 240 * DAY)).unwrap();
    // Two points that retention lets go, one after the other, and what a collector makes of them.
    let one = || WriterOptions { threads: 1, uploads: 1, ..WriterOptions::default() };
    let write = |writer: &repo::Writer, seed| {
        vec![entry("gone", write_stream(writer, &noise(seed, 20_000)).unwrap())]
    };
    let draft = |manifest| CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() };
    let [first, second] = [3, 4].map(|seed| {
        let writer = repo.writer(one()).unwrap();
        let manifest = write(&writer, seed);
        writer.commit(draft(manifest)).unwrap().id
    });
    env.advance(100 * DAY);
    // A writer whose clock stands still relies on what the first was made of ...
    let (store, still) = (Arc::new(bucket.clone()), Env::fixed(env.now(), 2_028));
    let stuck = Repository::open(store, &Passphrase::new("golden read"), &still).unwrap();
    let writer = stuck.writer(one()).unwrap();
    let manifest = write(&writer, 3);
    let collect = || {
        let options = GcOptions { threads: 1, ..GcOptions::default() };
        repo::gc::plan(&repo, options, &()).unwrap().execute(&()).unwrap()
    };
    bucket.delete(&first.key()).unwrap();
    collect();
    // ... which is sentenced when its lease is over, and cannot be deleted yet: the verdict stays open ...
    for pack in repo::store::list_all(&bucket, "packs/").unwrap() {
        bucket.set_lock(&pack.key, &Lock::new(LockMode::Governance, env.now() + 300 * DAY)).unwrap();
    }
    env.advance(100 * DAY);
    bucket.delete(&second.key()).unwrap();
    collect();
    // ... so that the writer voids what it has committed. Another one is killed.
    assert!(matches!(writer.commit(draft(manifest)), Err(repo::Error::Collected { .. })));
    drop(repo.writer(one()).unwrap());
    // What is put and deleted again at once, left by a kill in between.
    for key in
        ["gc/clock-000102030405060708090a0b0c0d0e0f", "probe/0001020304050607-race", "init/0001020304050607"]
    {
        bucket.put(key, Bytes::new()).unwrap();
    }
    // The same of a deletion: laid beside the others when this kind came.
    bucket.put(&format!("gc/deletion-{}-0001020304050607", points[0]), Bytes::new()).unwrap();
    let budget = Some(Budget::Share(0.3));
    repo::check::check(&repo, &CheckOptions { budget, threads: 1, ..CheckOptions::default() }, &()).unwrap();
    env.advance(20 * DAY);
    repo::immutable::renew(
        &repo,
        &RenewOptions { protect_seconds: Some(90 * 86_400), ..RenewOptions::default() },
    )
    .unwrap();
    let objects = repo::store::list_all(&bucket, "").unwrap();
    keep(
        "v1-all",
        objects.into_iter().map(|object| (object.key.clone(), bucket.get(&object.key).unwrap())).collect(),
    );
    let texts = [("key-file", file.to_text()), ("recovery-key", recovery.to_text())];
    keep(
        "v1-all.keys",
        texts.map(|(name, text)| (name.to_string(), Bytes::copy_from_slice(text.as_bytes()))).into(),
    );
}

/// Two streams of parts, and what they hold: a run of bytes in which a page was overwritten, between what is left of it and
/// a whole chunk; and one part alone.
fn parted(writer: &repo::Writer) -> [(&'static str, repo::Root, Vec<u8>); 2] {
    let (old, page, last) = (bytes(7, 50_000), noise(8, 8_192), b"hold fast".to_vec());
    let chunk = |plain: &[u8]| writer.chunk(Lane::Data, plain.to_vec().into()).unwrap().wait().unwrap();
    let whole = |plain: &[u8]| Leaf::chunk(chunk(plain), plain.len() as u32);
    let part = |from: usize, to: usize| {
        let (id, offset) = (chunk(&old[from..to]), from as u32);
        Leaf { id, length: (to - from) as u32, part_of: Some(PartOf { chunk: chunk(&old), offset }) }
    };
    let disk = [part(0, 20_000), whole(&page), part(28_192, 50_000), whole(&last)];
    let content = [&old[..20_000], &page, &old[28_192..], &last].concat();
    let root = |leaves: &[Leaf]| writer.root_of_leaves(leaves.iter().copied()).unwrap();
    [("disk", root(&disk), content), ("single", root(&[part(1, 2)]), old[1..2].to_vec())]
}

fn file_of(root: repo::Root) -> Vec<TreeEntry> {
    let kind = NodeKind::File {
        ctime: 1,
        inode: 2,
        size: root.length + 4_096,
        content: Content::Stream(root),
        holes: vec![(24_576, 4_096)],
    };
    let entry = |path: &str, kind| TreeEntry {
        path: path.into(),
        kind,
        mode: 0o600,
        uid: 1,
        gid: 2,
        mtime: 3,
        xattrs: BTreeMap::new(),
    };
    vec![entry("", NodeKind::Directory), entry("disk", kind)]
}

/// Wrote `golden/v1-parts`; kept to show how, and never run again.
#[test]
#[ignore = "the golden repository is never edited"]
fn write_the_golden_repository_with_parts() {
    assert!(!golden("v1-parts").exists(), "it is never edited");
    let (store, env) = (MemStore::new(), Env::fixed(NOW, 2_029));
    let options = InitOptions {
        chunk_bytes: small_chunks(),
        kdf: Kdf::cheap(),
        label: "golden".into(),
        lock: None,
        like: None,
    };
    let repo =
        Repository::init(Arc::new(store.clone()), &Passphrase::new("golden read"), &options, &env).unwrap();
    let writer = repo.writer(WriterOptions { threads: 1, uploads: 1, ..WriterOptions::default() }).unwrap();
    let streams = parted(&writer);
    let mut tree = writer.tree();
    file_of(streams[0].1).iter().for_each(|entry| tree.push(entry).unwrap());
    let (root, figures) = (tree.finish().unwrap(), BTreeMap::new());
    let mut manifest: Vec<_> = streams.iter().map(|(name, root, _)| entry(name, *root)).collect();
    manifest.push(ManifestEntry { name: "volume".into(), kind: EntryKind::Tree, root, figures });
    writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() }).unwrap();
    keep("v1-parts", store.snapshot());
}

#[test]
fn r7_parts_of_chunks_stay_readable_and_are_found_again() {
    let store: Arc<dyn Store> = Arc::new(load("v1-parts"));
    let repo = Repository::open(store, &Passphrase::new("golden read"), &Env::fixed(NOW, 1)).unwrap();
    let commits = repo.commits().unwrap();
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    let manifest = reader.manifest(&commits.done[0].id).unwrap();
    let writer = repo.writer(WriterOptions::default()).unwrap();
    let streams = parted(&writer);
    for ((name, root, content), there) in streams.iter().zip(&manifest) {
        assert_eq!((*name, *root), (there.name.as_str(), there.root));
        assert!(reader.bytes(root, 1 << 20).unwrap() == *content, "{name}");
        assert!(reader.extents(root).any(|leaf| leaf.unwrap().part_of.is_some()), "{name}");
        assert!(writer.has_stream(&reader, root));
    }
    assert_eq!(writer.counts().chunks_new, 0);
    let tree: Vec<_> = reader.tree(&manifest[2].root).map(|entry| entry.unwrap()).collect();
    assert_eq!(tree, file_of(streams[0].1));
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = repo::check::check(&repo, &options, &()).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

#[test]
fn r7_the_golden_repository_of_version_1_stays_readable() {
    let store: Arc<dyn Store> = Arc::new(load("v1"));
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

/// A new kind gets its line on the page and its golden object on the day it is made.
#[test]
fn r7_every_kind_of_object_of_the_page_is_in_the_golden_repository_and_no_other() {
    let (kinds, objects) = (kinds_of_the_page(), load("v1-all").snapshot());
    assert!(kinds.len() >= 15, "{kinds:?}");
    for kind in &kinds {
        assert!(objects.keys().any(|key| is_of_kind(key, kind)), "{kind} is not in golden/v1-all");
    }
    for key in objects.keys() {
        assert!(kinds.iter().any(|kind| is_of_kind(key, kind)), "{key} is not on the page");
    }
    // A verdict says nothing once a higher one without packs closes it: one that is open says more.
    let open = objects.iter().any(|(key, bytes)| key.starts_with("gc/verdict-") && bytes.len() > 100);
    assert!(open, "an open verdict");
}

#[test]
fn r7_every_kind_of_object_and_key_of_version_1_stays_readable() {
    let loaded = load("v1-all");
    let store: Arc<dyn Store> = Arc::new(loaded);
    let text = |name: &str| std::fs::read_to_string(golden("v1-all.keys").join(name)).unwrap();
    let (words, file) =
        (Passphrase::new("golden read"), KeyFile::parse(text("key-file").as_bytes()).unwrap());
    let recovery = RecoveryKey::parse(&text("recovery-key")).unwrap();
    let env = Env::fixed(NOW + 220 * DAY, 1);
    let ways = [
        (Unlock::from(&words), Capability::Read),
        (Unlock::from(&file), Capability::List),
        (Unlock::Plugin(&Plugin), Capability::Put),
        (Unlock::from(&recovery), Capability::Read),
    ];
    for (unlock, capability) in ways {
        let repo = Repository::open(store.clone(), unlock, &env).unwrap();
        assert_eq!((repo.capability(), repo.key_note()), (capability, None));
    }
    let repo = Repository::open(store.clone(), &recovery, &env).unwrap();
    let lock = repo.lock().unwrap();
    assert_eq!(
        (lock.mode, lock.seconds, lock.slack_seconds),
        (LockMode::Governance, 30 * 86_400, 15 * 86_400)
    );
    // A third commit is there, and void.
    let commits = repo.commits().unwrap();
    assert_eq!((commits.done.len(), commits.findings), (2, vec![]));
    let count = |prefix: &str| repo::store::list_all(&*store, prefix).unwrap().len();
    assert_eq!((count("commits/"), count("gc/void-")), (3, 1));
    let holds = repo.holds().unwrap();
    let mut until: Vec<_> = holds.done.iter().map(|hold| (hold.reason.as_str(), hold.until)).collect();
    until.sort();
    assert_eq!(until, [("an audit", None), ("until the new year", Some(NOW + 240 * DAY))]);
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = repo::check::check(&repo, &options, &()).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    let manifest = reader.manifest(&commits.done[1].id).unwrap();
    let read: Vec<_> = manifest[..3]
        .iter()
        .map(|one| (one.name.as_str(), reader.bytes(&one.root, 1 << 20).unwrap()))
        .collect();
    assert!(read == streams(true));
}

/// The same bytes in the same repository are the same chunks for ever: a release that cuts, hashes or encodes
/// otherwise would store everything anew.
#[test]
fn r7_a_write_of_today_finds_all_that_was_written_then() {
    let store: Arc<dyn Store> = Arc::new(load("v1"));
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

/// What writers and collectors tell each other, each object × every kind of damage: it may cost a run or a warning, and
/// loses no point, neither one that was there nor one that is acknowledged now.
#[test]
fn r3_damaged_leases_marks_verdicts_and_voids_cost_no_point() {
    let objects = load("v1-all").snapshot();
    let notes: Vec<&String> =
        objects.keys().filter(|key| key.starts_with("leases/") || key.starts_with("gc/")).collect();
    assert!(notes.len() >= 5, "{notes:?}");
    /// Objects with their new bytes; `None`: gone.
    type Changes<'k> = Vec<(&'k String, Option<Bytes>)>;
    let mut cases: Vec<(String, Changes<'_>)> = vec![("nothing".into(), vec![])];
    for key in &notes {
        let bytes = &objects[*key];
        let mut one = |what: String, content| cases.push((format!("{key} {what}"), vec![(*key, content)]));
        for at in (0..bytes.len()).step_by(bytes.len() / 3 + 1) {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            one(format!("flipped at {at}"), Some(flipped.into()));
        }
        one("cut".into(), Some(bytes.slice(..bytes.len() / 2)));
        one("noise".into(), Some(noise(3, 300).into()));
        one("gone".into(), None);
        // Another one's bytes under this name.
        for other in notes.iter().filter(|other| other != &key) {
            one(format!("is {other}"), Some(objects[*other].clone()));
        }
    }
    cases.push(("all noise".into(), notes.iter().map(|key| (*key, Some(noise(4, 100).into()))).collect()));
    cases.push(("all gone".into(), notes.iter().map(|key| (*key, None)).collect()));
    let mut acknowledged = 0;
    for (number, (story, changes)) in cases.iter().enumerate() {
        // As they were put, ten days ago.
        let env = Env::fixed(NOW + 210 * DAY, 3_000 + number as u64);
        let bucket = VersionedStore::new(&env, Flaws::default());
        let mut there = objects.clone();
        for (key, content) in changes {
            match content {
                Some(bytes) => drop(there.insert((*key).clone(), bytes.clone())),
                None => drop(there.remove(*key)),
            }
        }
        for (key, bytes) in there {
            bucket.put(&key, bytes).unwrap();
        }
        env.advance(10 * DAY);
        let open = || {
            let store = Arc::new(bucket.clone());
            Repository::open(store, &Passphrase::new("golden read"), &env).unwrap()
        };
        // Content that lies in packs which are marked, sentenced, and needed by nobody.
        let gone: Vec<Vec<u8>> = [3, 4].map(|seed| noise(seed, 20_000)).into();
        let mut made = Vec::new();
        for _ in 0..3 {
            let repo = open();
            let writer =
                repo.writer(WriterOptions { threads: 1, uploads: 1, ..WriterOptions::default() }).unwrap();
            let entries = gone
                .iter()
                .enumerate()
                .map(|(at, content)| entry(&at.to_string(), write_stream(&writer, content).unwrap()));
            let manifest = entries.collect();
            let draft = CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() };
            match writer.commit(draft) {
                Ok(info) => made.push(info.id),
                Err(error) => assert!(matches!(error, repo::Error::Collected { .. }), "{story}: {error}"),
            }
            let options = GcOptions { threads: 1, ..GcOptions::default() };
            let _ = repo::gc::plan(&repo, options, &()).and_then(|plan| plan.execute(&()));
            env.advance(DAY);
        }
        acknowledged += made.len();
        let repo = open();
        let reader = repo.reader(ReaderOptions::default()).unwrap();
        for id in &made {
            for (one, content) in reader.manifest(id).unwrap().iter().zip(&gone) {
                assert!(reader.bytes(&one.root, 1 << 20).unwrap() == *content, "{story}");
            }
        }
        let commits = repo.commits().unwrap().done;
        for (second, info) in [false, true].into_iter().zip(&commits) {
            let manifest = reader.manifest(&info.id).unwrap();
            for (one, (_, content)) in manifest.iter().zip(streams(second)) {
                assert!(reader.bytes(&one.root, 1 << 20).unwrap() == content, "{story}");
            }
        }
        // (A void that is gone or damaged brings back a commit that nobody was promised.)
        let promised: Vec<String> =
            commits[..2].iter().map(|info| info.id).chain(made).map(|id| id.to_string()).collect();
        let report = repo::check::check(&repo, &CheckOptions::default(), &()).unwrap();
        for point in &report.points {
            assert!(!promised.contains(&point.commit.to_string()), "{story}: {report:#?}");
        }
    }
    assert!(acknowledged > 2 * cases.len(), "{acknowledged} of {}", 3 * cases.len());
}
