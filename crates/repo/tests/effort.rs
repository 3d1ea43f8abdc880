//! A store that holds a backup back leaves time to compress: what goes into it is shorter, and reads back the same. One
//! that keeps up gets what it always got.
//!
//! That a store is behind is no matter of time here. Its gate lets a pack through when the writer stands still, because all
//! of its memory is on its way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{bytes, entry, gated, init_with, reader};
use repo::store::Store;
use repo::store::mem::MemStore;
use repo::{ChunkBytes, ChunkId, CommitDraft, Lane, Repository, Root, Writer, WriterOptions};

const CHUNK: usize = 64 << 10;

/// The sources of this crate, many times over in other letters, so that no chunk is known already.
fn text() -> Vec<u8> {
    fn below(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { below(&path, files) } else { files.push(path) }
        }
    }
    let mut files = Vec::new();
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    files.sort();
    let once: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    let turned = |by: u8| {
        let turn =
            move |byte: u8| if byte.is_ascii_lowercase() { (byte - b'a' + by) % 26 + b'a' } else { byte };
        once.iter().map(move |byte| turn(*byte)).collect::<Vec<u8>>()
    };
    (0..26).flat_map(turned).collect()
}

/// One worker, so that chunks lie in packs in the order in which they were handed in, and packs of a megabyte.
fn options(uploads: usize) -> WriterOptions {
    WriterOptions { threads: 1, uploads, memory_bytes: 4 << 20, ..WriterOptions::default() }
}

fn repository(store: Arc<dyn Store>) -> Repository {
    init_with(store, ChunkBytes::default())
}

/// Hands content in, chunk by chunk; `before` each it is asked with its number.
fn write(writer: &Writer, content: &[u8], before: impl Fn(usize)) -> (Root, Vec<ChunkId>) {
    let tickets: Vec<_> = content
        .chunks(CHUNK)
        .enumerate()
        .map(|(number, chunk)| {
            before(number);
            (writer.chunk(Lane::Data, Bytes::copy_from_slice(chunk)).unwrap(), chunk.len() as u64)
        })
        .collect();
    let chunks: Vec<(ChunkId, u64)> =
        tickets.into_iter().map(|(ticket, length)| (ticket.wait().unwrap(), length)).collect();
    let root = writer.root_of(chunks.iter().copied()).unwrap();
    (root, chunks.into_iter().map(|(id, _)| id).collect())
}

/// Commits, reads everything back, and tells how many bytes are stored.
fn finish(repo: &Repository, writer: Writer, root: Root, content: &[u8]) -> u64 {
    let manifest = vec![entry("a", root)];
    let info =
        writer.commit(CommitDraft { kind: "test".into(), manifest, ..CommitDraft::default() }).unwrap();
    assert!(reader(repo).bytes(&root, 1 << 30).unwrap() == content);
    info.summary.figures["bytes_stored"]
}

/// Into a store with room for everything at once: nobody waits. Also says with which chunks packs begin.
fn roomy(content: &[u8]) -> (u64, Vec<usize>) {
    let repo = repository(Arc::new(MemStore::new()));
    let writer = repo.writer(options(40)).unwrap();
    let (root, ids) = write(&writer, content, |_| ());
    let stored = finish(&repo, writer, root, content);
    let reader = reader(&repo);
    let packs: Vec<_> = ids.iter().map(|id| reader.locate(id).unwrap().unwrap().pack).collect();
    let begins: Vec<usize> = (1..packs.len()).filter(|at| packs[at - 1] != packs[*at]).collect();
    assert!(begins.len() < 40, "{}", begins.len());
    (stored, begins)
}

/// Into a store that has always taken a pack before the next but one begins.
fn keeping_up(content: &[u8], begins: &[usize]) -> u64 {
    let repo = repository(Arc::new(MemStore::new()));
    let writer = repo.writer(options(1)).unwrap();
    let (root, _) = write(&writer, content, |number| {
        if let Ok(full) = begins.binary_search(&number) {
            while writer.counts().packs as usize <= full {
                std::thread::yield_now();
            }
        }
    });
    finish(&repo, writer, root, content)
}

/// Into a store that takes a pack when the writer can do no more.
fn behind(content: &[u8]) -> u64 {
    let (gate, store) = gated(MemStore::new());
    let repo = repository(store);
    let writer = repo.writer(options(1)).unwrap();
    let root = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(&writer, content, |_| ()).0);
        let mut last = None;
        while !writing.is_finished() {
            std::thread::sleep(Duration::from_millis(150));
            let now = Some(writer.counts().chunks_new);
            if gate.standing() > 0 && last == now {
                gate.let_one_pass();
                last = None;
            } else {
                last = now;
            }
        }
        writing.join().unwrap()
    });
    gate.open();
    finish(&repo, writer, root, content)
}

#[test]
fn a_store_that_holds_a_backup_back_is_sent_less_and_one_that_keeps_up_what_it_always_got() {
    // What must be gained, in per cent.
    for (what, content, gain) in [("text", text(), 5), ("pages", bytes(1, 12 << 20), 0)] {
        let (roomy, begins) = roomy(&content);
        assert!(begins.len() >= 7, "{what}: {} packs", begins.len() + 1);
        assert_eq!(keeping_up(&content, &begins), roomy, "{what}: a store that keeps up");
        let behind = behind(&content);
        assert!(behind <= roomy - roomy * gain / 100, "{what}: {behind} bytes instead of {roomy}");
    }
}
