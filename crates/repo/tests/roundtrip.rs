//! What goes in comes out, whatever its size and shape, and is stored once.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use common::{
    bytes, commit, entry, fresh, init_with, noise, read_back, reader, reopen, small_packs, write_stream,
};
use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::{
    ChunkBytes, ChunkId, CommitDraft, Content, Error, Extent, Lane, NodeKind, Reader, ReaderOptions, Root,
    TreeEntry, WriterOptions, walk_order,
};

#[test]
fn streams_of_every_size_come_back_and_a_second_write_stores_nothing() {
    let store = MemStore::new();
    let repo = init_with(Arc::new(store.clone()), ChunkBytes::default());
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

        let again = reopen(store.clone(), round);
        assert_eq!(again.commit(&info.id).unwrap(), info);
        let reader = reader(&again);
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

#[test]
fn streams_of_several_levels_come_back_and_equal_the_root_over_their_chunks() {
    let (store, repo) = fresh();
    let content = bytes(1, 3_000_000);
    let writer = repo.writer(small_packs()).unwrap();
    let root = write_stream(&writer, &content).unwrap();
    assert_eq!(root.level, 2, "some 10,000 chunks, nodes of 512");
    // The caller cuts: the same chunker, the same chunks, the same root.
    let (chunker, mut rest, mut chunks) = (writer.chunker(), &content[..], Vec::new());
    while let Some(length) = chunker.next(rest, true) {
        let (chunk, after) = rest.split_at(length);
        let ticket = writer.chunk(Lane::Data, chunk.to_vec().into()).unwrap();
        chunks.push((ticket.wait().unwrap(), length as u64));
        rest = after;
    }
    assert_eq!(writer.root_of(chunks.clone()).unwrap(), root);
    let draft = CommitDraft { manifest: vec![entry("s", root)], ..CommitDraft::default() };
    let info = writer.commit(draft).unwrap();
    let reader = reader(&reopen(store, 1));
    assert_eq!(read_back(&reader, &info.id).unwrap(), [("s".to_string(), content)]);
    let listed: Vec<_> =
        reader.extents(&root).map(|one| one.unwrap()).map(|one| (one.id, one.length.into())).collect();
    assert_eq!(listed, chunks);
}

#[test]
fn a_stream_of_a_terabyte_has_a_small_tree_of_nodes_read_bit_by_bit() {
    let (_, repo) = fresh();
    let writer = repo.writer(WriterOptions::default()).unwrap();
    let id = |number: u32| {
        let mut id = [0; 32];
        let mixed = (u64::from(number) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        id[..8].copy_from_slice(&mixed.to_be_bytes());
        id[8..12].copy_from_slice(&number.to_be_bytes());
        ChunkId(id)
    };
    let count = 1_500_000;
    let root = writer.root_of((0..count).map(|number| (id(number), 65_536))).unwrap();
    assert_eq!((root.level, root.length), (3, u64::from(count) * 65_536));
    writer.commit(CommitDraft::default()).unwrap();
    let reader = reader(&repo);
    for (number, extent) in reader.extents(&root).enumerate() {
        let extent = extent.unwrap();
        assert_eq!((extent.id, extent.offset), (id(number as u32), number as u64 * 65_536));
    }
    // The chunks themselves were never written, and whoever asks for one is told.
    let missing = reader.stream(&root).next_chunk().unwrap_err();
    assert!(matches!(missing, Error::Missing { .. }), "{missing}");
}

#[test]
fn equal_chunks_are_stored_once_whoever_hands_them_in() {
    let store = Arc::new(Record::new(MemStore::new()));
    let repo = init_with(store.clone(), ChunkBytes::default());
    let writer = repo.writer(WriterOptions { threads: 4, ..WriterOptions::default() }).unwrap();
    let chunks: Vec<Vec<u8>> = (0..50).map(|seed| noise(seed, 20_000)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for chunk in &chunks {
                    let ticket = writer.chunk(Lane::Data, chunk.clone().into()).unwrap();
                    assert!(writer.has(&ticket.wait().unwrap()));
                }
            });
        }
    });
    let info = writer.commit(CommitDraft::default()).unwrap();
    let figure = |name: &str| info.summary.figures[name];
    assert_eq!((figure("chunks_new"), figure("chunks_reused")), (50, 150));
    assert_eq!(figure("bytes_new_plain"), 1_000_000);
    assert!(figure("bytes_stored") < 1_010_000);
    assert_eq!(store.count(Verb::Put, "packs/"), 1, "a small write makes one pack a lane");
    assert_eq!((store.count(Verb::Put, "index/"), store.count(Verb::Put, "commits/")), (1, 1));

    // Again: everything is reused, nothing but the commit is put. A look before it assures the pack, and as nothing was
    // ever collected here, one after it: verdicts may have come and gone without a trace.
    store.clear();
    let writer = repo.writer(WriterOptions::default()).unwrap();
    for chunk in &chunks {
        writer.chunk(Lane::Data, chunk.clone().into()).unwrap();
    }
    let info = writer.commit(CommitDraft::default()).unwrap();
    assert_eq!((info.summary.figures["chunks_new"], info.summary.figures["chunks_reused"]), (0, 50));
    assert_eq!((store.count(Verb::Put, "leases/"), store.calls(Verb::Put).len()), (2, 3));
    assert_eq!(store.calls(Verb::Put)[1], info.id.key());
    assert_eq!(store.calls(Verb::List), ["gc/", "index/", "packs/", "gc/"]);
    assert_eq!(store.count(Verb::Size, "packs/"), 2, "R3");
}

#[test]
fn two_writers_at_once_both_commit_and_both_read_back() {
    let (store, repo) = fresh();
    let (one, two) = (bytes(1, 400_000), [bytes(1, 200_000), bytes(2, 200_000)].concat());
    let (a, b) =
        (repo.writer(small_packs()).unwrap(), reopen(store.clone(), 2).writer(small_packs()).unwrap());
    let commits: Vec<_> = std::thread::scope(|scope| {
        let work = [(a, &one), (b, &two)].map(|(writer, content)| {
            scope.spawn(move || {
                let root = write_stream(&writer, content).unwrap();
                let manifest = vec![entry("s", root)];
                writer.commit(CommitDraft { manifest, ..CommitDraft::default() }).unwrap()
            })
        });
        work.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let repo = reopen(store, 3);
    let reader = reader(&repo);
    assert_eq!(read_back(&reader, &commits[0].id).unwrap()[0].1, one);
    assert_eq!(read_back(&reader, &commits[1].id).unwrap()[0].1, two);
    assert_eq!(repo.commits().unwrap().done.len(), 2);
}

#[test]
fn commits_are_found_by_prefix_and_latest_and_listed_by_time() {
    let (store, repo) = fresh();
    assert!(matches!(repo.find_commit("latest"), Err(Error::NoSuchCommit { .. })));
    let mut ids = Vec::new();
    for number in 0..20_u8 {
        ids.push(commit(&repo, &[("s", &[number])]).unwrap().id);
        repo.env().advance(1_000);
    }
    let repo = reopen(store, 1);
    let listed: Vec<_> = repo.commits().unwrap().done.into_iter().map(|info| info.id).collect();
    assert_eq!(listed, ids);
    assert_eq!(repo.find_commit("latest").unwrap().id, ids[19]);
    assert_eq!(repo.find_commit(&ids[3].short()).unwrap().id, ids[3]);
    assert_eq!(repo.find_commit(&ids[4].to_string().to_uppercase()).unwrap().id, ids[4]);
    // Twenty names and sixteen digits: two share their first.
    let first = |id: &repo::CommitId| id.to_string()[..1].to_string();
    let shared = ids.iter().map(first).find(|digit| ids.iter().filter(|id| first(id) == *digit).count() > 1);
    assert!(matches!(repo.find_commit(&shared.unwrap()), Err(Error::Ambiguous { count: 2.., .. })));
    for nothing in ["", "xyz", "latest2", "0000000000000000"] {
        assert!(matches!(repo.find_commit(nothing), Err(Error::NoSuchCommit { .. })), "{nothing:?}");
    }
}

#[test]
fn a_manifest_is_sorted_and_a_name_is_given_once() {
    let (_, repo) = fresh();
    let writer = repo.writer(small_packs()).unwrap();
    let manifest = ["b", "a", "c"].map(|name| entry(name, Root::EMPTY)).to_vec();
    let info = writer.commit(CommitDraft { manifest, ..CommitDraft::default() }).unwrap();
    let names: Vec<_> =
        reader(&repo).manifest(&info.id).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let writer = repo.writer(small_packs()).unwrap();
    let manifest = vec![entry("a", Root::EMPTY), entry("a", Root::EMPTY)];
    assert!(matches!(
        writer.commit(CommitDraft { manifest, ..CommitDraft::default() }),
        Err(Error::Invalid { .. })
    ));
    // A stream that nobody wrote, such as one of another repository, is not committed either.
    let writer = repo.writer(small_packs()).unwrap();
    let manifest = vec![entry("a", Root { level: 1, length: 20, id: ChunkId([7; 32]) })];
    let refused = writer.commit(CommitDraft { manifest, ..CommitDraft::default() }).unwrap_err();
    assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
    assert_eq!(repo.commit_ids().unwrap().len(), 1);
}

// --- trees ---

fn node(path: &str, kind: NodeKind) -> TreeEntry {
    let xattrs = BTreeMap::from([(b"user.k".to_vec(), b"v".to_vec())]);
    TreeEntry { path: path.into(), kind, mode: 0o755, uid: 0, gid: 0, mtime: -5, xattrs }
}

fn file(path: &str) -> TreeEntry {
    let content = Content::Extents(vec![Extent { chunk: ChunkId([9; 32]), offset: 3, length: 7 }]);
    node(path, NodeKind::File { ctime: 1, inode: 2, size: 7, content, holes: vec![] })
}

fn tree_of(reader: &Reader, root: &Root) -> Result<Vec<TreeEntry>, Error> {
    reader.tree(root).collect()
}

#[test]
fn a_tree_larger_than_a_chunk_comes_back_in_walk_order() {
    let (_, repo) = fresh();
    let mut entries = vec![node("", NodeKind::Directory)];
    for folder in 0..40 {
        // `a-b` sorts before `a/…` as a string, and after it in a walk.
        for name in [format!("d{folder:02}"), format!("d{folder:02}-more")] {
            entries.push(node(&name, NodeKind::Directory));
            entries.extend((0..100).map(|number| file(&format!("{name}/f{number:03}"))));
        }
    }
    entries.sort_by(|a, b| walk_order(&a.path, &b.path));
    let writer = repo.writer(small_packs()).unwrap();
    let mut tree = writer.tree();
    entries.iter().for_each(|entry| tree.push(entry).unwrap());
    let root = tree.finish().unwrap();
    let empty = writer.tree().finish().unwrap();
    writer.commit(CommitDraft::default()).unwrap();
    let reader = reader(&repo);
    assert!(tree_of(&reader, &root).unwrap() == entries);
    assert_eq!(tree_of(&reader, &empty).unwrap(), []);
}

/// Entries a walk cannot give: refused when written, and nothing of them is in the tree.
#[test]
fn an_entry_out_of_place_is_refused_and_the_tree_goes_on_without_it() {
    let (_, repo) = fresh();
    let writer = repo.writer(small_packs()).unwrap();
    let mut tree = writer.tree();
    assert!(tree.push(&file("a")).is_err(), "the root comes first");
    let good = [node("", NodeKind::Directory), node("a", NodeKind::Directory), file("a/f"), file("b")];
    for (entry, bad) in
        good.iter().zip([vec!["a/x"], vec!["x/y"], vec!["", "a", "a/f", "a/f/x", "a/e"], vec!["a/z", "b/c"]])
    {
        tree.push(entry).unwrap();
        for path in bad {
            let refused = tree.push(&file(path)).unwrap_err();
            assert!(matches!(refused, Error::Invalid { .. }), "{path:?} after {:?}: {refused}", entry.path);
        }
    }
    let mut large = file("c");
    large.xattrs.insert(b"user.large".to_vec(), vec![0; 5 << 20]);
    assert!(tree.push(&large).unwrap_err().to_string().contains("at most 4194304"));
    let root = tree.finish().unwrap();
    writer.commit(CommitDraft::default()).unwrap();
    assert_eq!(tree_of(&reader(&repo), &root).unwrap(), good);
}

#[test]
fn a_reader_with_windows_asks_a_remote_store_seldom_and_gives_the_same() {
    let store = Arc::new(Record::new(MemStore::new()));
    let repo = init_with(store.clone(), common::small_chunks());
    let content = noise(7, 2_000_000);
    let info = common::commit(&repo, &[("s", &content)]).unwrap();
    for window_bytes in [0, 1_000, 65_536, 1 << 20] {
        let options = ReaderOptions { window_bytes: Some(window_bytes), ..ReaderOptions::default() };
        let reader = repo.reader(options).unwrap();
        let root = reader.manifest(&info.id).unwrap()[0].root;
        store.clear();
        let mut back = Vec::new();
        for extent in reader.extents(&root) {
            back.extend_from_slice(&reader.chunk(&extent.unwrap().id).unwrap());
        }
        assert!(back == content, "window {window_bytes}");
        let calls = store.count(Verb::GetRange, "packs/");
        match window_bytes {
            0 => assert!(calls > 5_000),
            1_000 => assert!(calls < 4_000, "{calls}"),
            65_536 => assert!(calls < 50, "{calls}"),
            _ => assert!(calls < 15, "{calls}"),
        }
        store.clear();
        assert!(reader.bytes(&root, 1 << 30).unwrap() == content);
        let calls = store.count(Verb::GetRange, "packs/");
        assert!(calls < 200, "streams are fetched in runs of 64 chunks: {calls}");
    }
}
