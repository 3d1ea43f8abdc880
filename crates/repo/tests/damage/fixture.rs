//! A repository of four recovery points, to be damaged one place at a time.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use repo::pack::PackEntry;
use repo::store::mem::MemStore;
use repo::{
    CommitDraft, CommitId, Content, EntryKind, Env, Error, Extent, InitOptions, Kdf, Lane, ManifestEntry,
    NodeKind, Passphrase, Repository, Root, TreeEntry, Writer, WriterOptions,
};

pub const NOW: i64 = 1_790_000_000_000_000_000;
/// The passphrases of its two keys.
pub const READ: &str = "correct horse";
pub const SECOND: &str = "battery staple";

/// Noise that neither compresses nor repeats.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn node(path: &str, kind: NodeKind) -> TreeEntry {
    let (mode, uid, gid) = (0o644, 1000, 1000);
    TreeEntry { path: path.into(), kind, mode, uid, gid, mtime: NOW, xattrs: BTreeMap::new() }
}

fn file(path: &str, content: Content) -> TreeEntry {
    let (size, holes) = (content.length(), Vec::new());
    node(path, NodeKind::File { ctime: NOW, inode: 1, size, content, holes })
}

pub fn stream(writer: &Writer, bytes: &[u8]) -> Root {
    let mut stream = writer.stream(Lane::Data);
    stream.write_all(bytes).unwrap();
    stream.finish().unwrap()
}

/// A tree of one directory: files of one chunk each (of equal length), and a large one that is a stream.
fn tree(writer: &Writer, small: &[(String, Vec<u8>)], large: &[u8]) -> Root {
    let mut entries = vec![node("", NodeKind::Directory), node("dir", NodeKind::Directory)];
    for (name, content) in small {
        let ticket = writer.chunk(Lane::Data, content.clone().into()).unwrap();
        let extent = Extent { chunk: ticket.wait().unwrap(), offset: 0, length: content.len() as u32 };
        entries.push(file(&format!("dir/{name}"), Content::Extents(vec![extent])));
    }
    entries.push(file("large", Content::Stream(stream(writer, large))));
    let mut tree = writer.tree();
    for entry in &entries {
        tree.push(entry).unwrap();
    }
    tree.finish().unwrap()
}

fn small(seed: u64, count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|n| (format!("small-{n:02}"), noise(seed * 1000 + n as u64, 20_000))).collect()
}

/// Everything that a restore of a point gives, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

pub struct Fixture {
    pub objects: BTreeMap<String, Bytes>,
    /// Oldest first, with what a restore gives.
    pub points: Vec<(CommitId, Files)>,
}

/// What one point holds.
struct Holds {
    app: &'static str,
    files: Vec<(String, Vec<u8>)>,
    large: Vec<u8>,
    /// Whether it builds on the point before.
    child: bool,
}

/// Points 0 and 1 of one application, the second with three new files; 2 of another application, which
/// shares nothing; 3 equal to 2.
fn contents() -> [Holds; 4] {
    let large = noise(99, 3_000_000);
    let shop = small(1, 12);
    let mut more = shop.clone();
    more.extend((0..3).map(|n| (format!("tiny-{n}"), noise(7000 + n, 20_000))));
    let blog = || Holds { app: "blog", files: small(2, 4), large: noise(98, 400_000), child: false };
    [
        Holds { app: "shop", files: shop, large: large.clone(), child: false },
        Holds { app: "shop", files: more, large, child: true },
        blog(),
        blog(),
    ]
}

/// Writes a point; its id, and what a restore gives.
fn write(repo: &Repository, holds: &Holds, parent: Option<CommitId>) -> (CommitId, Files) {
    let writer = repo.writer(WriterOptions::default()).unwrap();
    let objects = noise(holds.files.len() as u64, 30_000);
    let figures = BTreeMap::new();
    let manifest = vec![
        ManifestEntry {
            name: "objects".into(),
            kind: EntryKind::Bytes,
            root: stream(&writer, &objects),
            figures: figures.clone(),
        },
        ManifestEntry {
            name: "volume".into(),
            kind: EntryKind::Tree,
            root: tree(&writer, &holds.files, &holds.large),
            figures,
        },
    ];
    let draft = CommitDraft {
        kind: "volume".into(),
        labels: BTreeMap::from([("app".to_owned(), holds.app.to_owned())]),
        parents: parent.filter(|_| holds.child).into_iter().collect(),
        manifest,
        ..CommitDraft::default()
    };
    let info = writer.commit(draft).unwrap();
    repo.env().advance(60_000_000_000);
    let mut expected =
        Files::from([("objects".to_owned(), objects), ("volume/large".to_owned(), holds.large.clone())]);
    expected.extend(holds.files.iter().map(|(name, bytes)| (format!("volume/dir/{name}"), bytes.clone())));
    (info.id, expected)
}

/// Backs the content of all points up again, all of it read.
pub fn write_all_again(repo: &Repository) {
    for holds in &contents() {
        write(repo, holds, None);
    }
}

impl Fixture {
    /// The four points of [`contents`].
    pub fn new() -> Fixture {
        let store = MemStore::new();
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let repo =
            Repository::init(Arc::new(store.clone()), &Passphrase::new(READ), &options, &Env::fixed(NOW, 1))
                .unwrap();
        repo.add_key(&Passphrase::new(SECOND), repo::Capability::Read, "second", Kdf::cheap()).unwrap();
        let mut fixture = Fixture { objects: BTreeMap::new(), points: Vec::new() };
        for holds in &contents() {
            let parent = fixture.points.last().map(|(id, _)| *id);
            fixture.points.push(write(&repo, holds, parent));
        }
        fixture.objects = store.snapshot();
        fixture
    }

    /// A copy in which these objects have other bytes, or are gone.
    pub fn damaged(&self, changes: &[(String, Option<Bytes>)]) -> MemStore {
        let store = MemStore::from_snapshot(self.objects.clone());
        for (key, content) in changes {
            store.tamper(key, content.clone());
        }
        store
    }

    /// The keys of a folder, ascending.
    pub fn keys(&self, folder: &str) -> Vec<String> {
        self.objects.keys().filter(|key| key.starts_with(folder)).cloned().collect()
    }

    /// Packs of one lane, largest first, with their directories.
    pub fn packs(&self, lane: Lane) -> Vec<(String, Vec<PackEntry>)> {
        let repo = open(&self.damaged(&[])).unwrap();
        let mut packs = Vec::new();
        for key in self.keys("packs/") {
            let pack = repo.read_pack(&repo::PackId::from_key(&key).unwrap()).unwrap();
            if pack.lane == lane {
                packs.push((key, pack.entries));
            }
        }
        packs.sort_by_key(|(key, _)| std::cmp::Reverse(self.objects[key].len()));
        packs
    }
}

pub fn open(store: &MemStore) -> Result<Repository, Error> {
    Repository::open(Arc::new(store.clone()), &Passphrase::new(READ), &Env::fixed(NOW, 2))
}
