//! What the integration tests share: a repository in memory, bytes to put in, a commit of streams.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "helpers of tests fail by panicking; not every test uses all"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use repo::store::Store;
use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::{
    ChunkBytes, CommitDraft, CommitId, CommitInfo, EntryKind, Env, Error, InitOptions, Kdf, Lane,
    ManifestEntry, Passphrase, Reader, ReaderOptions, Repository, Root, Writer, WriterOptions,
};

pub const NOW: i64 = 1_700_000_000_000_000_000;

pub fn passphrase() -> Passphrase {
    Passphrase::new("correct horse")
}

/// Small chunks, so that little data has many.
pub fn small_chunks() -> ChunkBytes {
    ChunkBytes { min: 64, avg: 256, max: 1024 }
}

pub fn init_with(store: Arc<dyn Store>, chunk_bytes: ChunkBytes) -> Repository {
    let options = InitOptions { kdf: Kdf::cheap(), chunk_bytes, ..InitOptions::default() };
    Repository::init(store, &passphrase(), &options, &Env::fixed(NOW, 1)).unwrap()
}

/// A repository in memory with small chunks.
pub fn fresh() -> (MemStore, Repository) {
    let store = MemStore::new();
    let repo = init_with(Arc::new(store.clone()), small_chunks());
    (store, repo)
}

/// Opens what lies in a store, with dice of its own.
pub fn reopen(store: impl Store + 'static, seed: u64) -> Repository {
    Repository::open(Arc::new(store), &passphrase(), &Env::fixed(NOW + seed as i64, 1_000 + seed)).unwrap()
}

/// Two threads and packs of the smallest size, so that little data makes several.
pub fn small_packs() -> WriterOptions {
    WriterOptions { threads: 2, uploads: 2, memory_bytes: 8 << 20, ..WriterOptions::default() }
}

/// Bytes that compress about as well as a database: a third is noise.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if at % 3 == 0 { (state >> 56) as u8 } else { (at / 64) as u8 }
        })
        .collect()
}

/// Bytes that do not compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
        })
        .collect()
}

pub fn entry(name: &str, root: Root) -> ManifestEntry {
    ManifestEntry { name: name.into(), kind: EntryKind::Bytes, root, figures: BTreeMap::new() }
}

pub fn write_stream(writer: &Writer, bytes: &[u8]) -> Result<Root, Error> {
    let mut stream = writer.stream(Lane::Data);
    stream.append(bytes)?;
    stream.finish()
}

/// Commits streams by name.
pub fn commit_with(
    repo: &Repository,
    options: WriterOptions,
    streams: &[(&str, &[u8])],
) -> Result<CommitInfo, Error> {
    let writer = repo.writer(options)?;
    let mut manifest = Vec::new();
    for (name, bytes) in streams {
        manifest.push(entry(name, write_stream(&writer, bytes)?));
    }
    writer.commit(CommitDraft { kind: "test".into(), manifest, ..CommitDraft::default() })
}

pub fn commit(repo: &Repository, streams: &[(&str, &[u8])]) -> Result<CommitInfo, Error> {
    commit_with(repo, small_packs(), streams)
}

pub fn reader(repo: &Repository) -> Reader {
    repo.reader(ReaderOptions::default()).unwrap()
}

/// All streams of a commit.
pub fn read_back(reader: &Reader, id: &CommitId) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let manifest = reader.manifest(id)?;
    manifest.into_iter().map(|entry| Ok((entry.name, reader.bytes(&entry.root, 1 << 40)?))).collect()
}

pub fn owned(streams: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    streams.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect()
}

/// Where puts of packs wait.
#[derive(Default)]
pub struct Gate {
    passes: Mutex<Passes>,
    changed: Condvar,
}

#[derive(Default)]
struct Passes {
    standing: usize,
    open: bool,
    /// How many may pass although it is shut.
    left: usize,
}

/// A store with such a gate before it. It is shut.
pub fn gated<S: Store>(store: S) -> (Arc<Gate>, Arc<Record<S>>) {
    let gate = Arc::new(Gate::default());
    let at = gate.clone();
    let store = Record::new(store).before(move |verb, key| {
        if verb == Verb::Put && key.starts_with("packs/") {
            at.pass();
        }
    });
    (gate, Arc::new(store))
}

impl Gate {
    fn pass(&self) {
        let mut passes = self.passes.lock().unwrap();
        passes.standing += 1;
        self.changed.notify_all();
        while !passes.open && passes.left == 0 {
            passes = self.changed.wait(passes).unwrap();
        }
        passes.standing -= 1;
        passes.left = passes.left.saturating_sub(1);
    }

    pub fn open(&self) {
        self.passes.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    pub fn shut(&self) {
        self.passes.lock().unwrap().open = false;
    }

    /// One pack, and not the next.
    pub fn let_one_pass(&self) {
        self.passes.lock().unwrap().left += 1;
        self.changed.notify_all();
    }

    /// How many packs stand at the gate.
    pub fn standing(&self) -> usize {
        self.passes.lock().unwrap().standing
    }

    /// Until so many packs stand at the gate.
    pub fn wait_for(&self, count: usize) {
        let mut passes = self.passes.lock().unwrap();
        while passes.standing < count {
            passes = self.changed.wait(passes).unwrap();
        }
    }
}
