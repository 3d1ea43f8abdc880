//! A store that is slow leaves time to compress: what goes into it is shorter, and reads back the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::{
    CommitDraft, EntryKind, Env, InitOptions, Kdf, Lane, ManifestEntry, Passphrase, ReaderOptions,
    Repository, WriterOptions,
};

/// The sources of this crate, a few times over in other letters, so that nothing is known already.
fn text() -> Vec<u8> {
    fn below(folder: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { below(&path, files) } else { files.push(path) }
        }
    }
    let mut files = Vec::new();
    below(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    files.sort();
    let once: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    let turned = |by: u8| {
        let turn =
            move |byte: u8| if byte.is_ascii_lowercase() { (byte - b'a' + by) % 26 + b'a' } else { byte };
        once.iter().map(move |byte| turn(*byte)).collect::<Vec<u8>>()
    };
    (0..13).flat_map(turned).collect()
}

#[test]
fn a_slow_store_is_sent_less_and_what_it_holds_is_the_same() {
    let content = text();
    let stored = |pause: u64, memory_bytes: usize| {
        // Takes its time for every pack.
        let store = Arc::new(Record::new(MemStore::new()).before(move |verb, key| {
            if verb == Verb::Put && key.starts_with("packs/") {
                std::thread::sleep(Duration::from_millis(pause));
            }
        }));
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let repo = Repository::init(store, &Passphrase::new("x"), &options, &Env::fixed(0, 1)).unwrap();
        let options = WriterOptions { threads: 2, uploads: 1, memory_bytes, ..WriterOptions::default() };
        let writer = repo.writer(options).unwrap();
        let mut stream = writer.stream(Lane::Data);
        content.chunks(100_000).for_each(|part| stream.append(part).unwrap());
        let root = stream.finish().unwrap();
        let entry =
            ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures: Default::default() };
        let draft = CommitDraft { kind: "test".into(), manifest: vec![entry], ..CommitDraft::default() };
        let info = writer.commit(draft).unwrap();
        let reader = repo.reader(ReaderOptions::default()).unwrap();
        assert!(reader.bytes(&root, 1 << 30).unwrap() == content);
        info.summary.figures["bytes_stored"]
    };
    // All of it fits into the packs that a writer may have under way, so nobody waits; and a megabyte each takes long.
    let (fast, slow) = (stored(0, 192 << 20), stored(800, 4 << 20));
    assert!(slow < fast - fast / 100, "{slow} of {fast}");
}
