//! What goes in comes out, whatever its size and shape, and is stored once.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use repo::store::mem::MemStore;
use repo::{
    CommitDraft, EntryKind, Env, InitOptions, Kdf, Lane, ManifestEntry, Passphrase, ReaderOptions,
    Repository, Root, WriterOptions,
};

fn passphrase() -> Passphrase {
    Passphrase::new("correct horse")
}

fn fresh(seed: u64) -> (MemStore, Repository) {
    let store = MemStore::new();
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let env = Env::fixed(1_700_000_000_000_000_000, seed);
    let repo = Repository::init(Arc::new(store.clone()), &passphrase(), &options, &env).unwrap();
    (store, repo)
}

/// Bytes that compress about as well as a database: a third is noise.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if at % 3 == 0 { (state >> 56) as u8 } else { (at / 64) as u8 }
        })
        .collect()
}

fn entry(name: &str, root: Root) -> ManifestEntry {
    ManifestEntry { name: name.into(), kind: EntryKind::Bytes, root, figures: BTreeMap::new() }
}

#[test]
fn streams_of_every_size_come_back_and_a_second_write_stores_nothing() {
    let (store, repo) = fresh(1);
    let sizes = [0, 1, 17, 16_383, 16_384, 65_536, 262_144, 262_145, 1 << 20, 5_000_001, 40 << 20];
    let mut before = None;
    for round in 0..2 {
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let mut manifest = Vec::new();
        for (at, size) in sizes.iter().enumerate() {
            let mut stream = writer.stream(Lane::Data);
            for piece in bytes(at as u64, *size).chunks(100_003) {
                stream.write_all(piece).unwrap();
            }
            manifest.push(entry(&format!("stream-{size:09}"), stream.finish().unwrap()));
        }
        let roots: Vec<Root> = manifest.iter().map(|entry| entry.root).collect();
        if let Some(before) = &before {
            assert_eq!(&roots, before, "the same bytes have the same roots");
            assert_eq!(writer.counts().chunks_new, 0, "round {round}");
        }
        before = Some(roots);
        let draft = CommitDraft { kind: "test".into(), manifest, ..CommitDraft::default() };
        let info = writer.commit(draft).unwrap();

        let again = Repository::open(Arc::new(store.clone()), &passphrase(), &Env::fixed(5, 5)).unwrap();
        assert_eq!(again.find_commit("latest").unwrap(), again.commit(&info.id).unwrap());
        let reader = again.reader(ReaderOptions::default()).unwrap();
        assert_eq!(reader.findings(), []);
        for (at, one) in reader.manifest(&info.id).unwrap().iter().enumerate() {
            let mut back = Vec::new();
            reader.stream(&one.root).read_to_end(&mut back).unwrap();
            assert!(back == bytes(at as u64, sizes[at]), "{}", one.name);
            let listed: u64 = reader.extents(&one.root).map(|extent| u64::from(extent.unwrap().length)).sum();
            assert_eq!(listed, one.root.length);
        }
    }
}
