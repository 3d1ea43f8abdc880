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

impl Fixture {
    fn write(
        &mut self,
        repo: &Repository,
        app: &str,
        files: &[(String, Vec<u8>)],
        large: &[u8],
        parent: bool,
    ) {
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let objects = noise(files.len() as u64, 30_000);
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
                root: tree(&writer, files, large),
                figures,
            },
        ];
        let draft = CommitDraft {
            kind: "volume".into(),
            labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
            parents: parent.then(|| self.points.last().unwrap().0).into_iter().collect(),
            manifest,
            ..CommitDraft::default()
        };
        let info = writer.commit(draft).unwrap();
        repo.env().advance(60_000_000_000);
        let mut expected =
            Files::from([("objects".to_owned(), objects), ("volume/large".to_owned(), large.to_vec())]);
        expected.extend(files.iter().map(|(name, bytes)| (format!("volume/dir/{name}"), bytes.clone())));
        self.points.push((info.id, expected));
    }

    /// Points 0 and 1 of one application, the second with three new files; 2 of another application, which
    /// shares nothing; 3 equal to 2.
    pub fn new() -> Fixture {
        let store = MemStore::new();
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let repo =
            Repository::init(Arc::new(store.clone()), &Passphrase::new(READ), &options, &Env::fixed(NOW, 1))
                .unwrap();
        repo.add_key(&Passphrase::new(SECOND), repo::Capability::Read, "second", Kdf::cheap()).unwrap();
        let mut fixture = Fixture { objects: BTreeMap::new(), points: Vec::new() };
        let large = noise(99, 3_000_000);
        let mut shop = small(1, 12);
        fixture.write(&repo, "shop", &shop, &large, false);
        shop.extend((0..3).map(|n| (format!("tiny-{n}"), noise(7000 + n, 20_000))));
        fixture.write(&repo, "shop", &shop, &large, true);
        let blog = small(2, 4);
        fixture.write(&repo, "blog", &blog, &noise(98, 400_000), false);
        fixture.write(&repo, "blog", &blog, &noise(98, 400_000), false);
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
