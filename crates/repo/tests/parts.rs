//! Parts of chunks in streams: written, read, checked, collected and copied like chunks.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{NOW, bytes, entry, init_with, noise, passphrase, read_back, reader, write_stream};
use repo::check::{CheckOptions, check};
use repo::copy::{CopyOptions, copy};
use repo::gc::GcOptions;
use repo::store::Store;
use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::{
    ChunkBytes, ChunkId, CommitDraft, CommitId, EntryKind, Env, Error, InitOptions, Kdf, Lane, Leaf,
    ManifestEntry, PartOf, Passphrase, Piece, ReaderOptions, Repository, Root, Was, Writer, WriterOptions,
};

const DAY: i64 = 86_400_000_000_000;

fn fresh() -> (MemStore, Repository) {
    let store = MemStore::new();
    let repo = init_with(Arc::new(store.clone()), ChunkBytes::default());
    (store, repo)
}

fn writer(repo: &Repository) -> Writer {
    repo.writer(WriterOptions { threads: 2, ..WriterOptions::default() }).unwrap()
}

fn commit(writer: Writer, manifest: Vec<ManifestEntry>) -> CommitId {
    writer.commit(CommitDraft { kind: "test".into(), manifest, ..CommitDraft::default() }).unwrap().id
}

/// The stream with these bytes upon the one that is there, as a backup of a file makes it.
fn upon(repo: &Repository, writer: &Writer, root: &Root, now: &[u8]) -> Root {
    let reader = reader(repo);
    let mut leaves = Vec::new();
    for leaf in reader.extents(root) {
        let leaf = leaf.unwrap();
        let plain = Bytes::copy_from_slice(&now[leaf.offset as usize..][..leaf.length as usize]);
        let was = Was { leaf: leaf.leaf(), same: writer.is(&plain, &leaf.leaf()) };
        for piece in writer.overwritten(&reader, &[was], leaf.offset, &plain).unwrap() {
            leaves.push(match piece {
                Piece::Kept(leaf) => leaf,
                Piece::Written(ticket, length) => Leaf::chunk(ticket.wait().unwrap(), length),
            });
        }
    }
    writer.root_of_leaves(leaves).unwrap()
}

/// A point, and one after it of which a page in each 100,000 bytes is another.
fn two_points(repo: &Repository) -> [(CommitId, Root, Vec<u8>); 2] {
    let first = bytes(1, 3_000_000);
    let one = writer(repo);
    let root = write_stream(&one, &first).unwrap();
    let id = commit(one, vec![entry("disk", root)]);
    repo.env().advance(1_000_000_000);
    let mut second = first.clone();
    for at in (0..first.len() - 8_192).step_by(100_352) {
        second[at..at + 8_192].copy_from_slice(&noise(at as u64, 8_192));
    }
    let two = writer(repo);
    let root_after = upon(repo, &two, &root, &second);
    let id_after = commit(two, vec![entry("disk", root_after)]);
    [(id, root, first), (id_after, root_after, second)]
}

fn parts(repo: &Repository, root: &Root) -> usize {
    reader(repo).extents(root).filter(|leaf| leaf.as_ref().unwrap().part_of.is_some()).count()
}

fn content(repo: &Repository, id: &CommitId) -> Vec<u8> {
    read_back(&reader(repo), id).unwrap().remove(0).1
}

#[test]
fn a_stream_of_parts_reads_as_what_it_was_made_of() {
    let (_, repo) = fresh();
    let [(before, ..), (after, root, second)] = two_points(&repo);
    assert!(parts(&repo, &root) > 30);
    assert!(content(&repo, &before) == bytes(1, 3_000_000));
    assert!(content(&repo, &after) == second);
    // Extents say where the bytes lie.
    let reader = reader(&repo);
    let mut at = 0;
    for leaf in reader.extents(&root) {
        let (leaf, extent) = leaf.map(|leaf| (leaf, leaf.extent())).unwrap();
        let chunk = reader.chunk(&extent.chunk).unwrap();
        let bytes = &chunk[extent.offset as usize..][..extent.length as usize];
        assert_eq!((leaf.offset, bytes), (at as u64, &second[at..at + bytes.len()]));
        assert!(reader.is(bytes, &leaf.id));
        at += bytes.len();
    }
    assert!(
        !check(&repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &())
            .unwrap()
            .is_damaged()
    );
    // Nothing changed: every leaf is what it was.
    let again = writer(&repo);
    assert_eq!(upon(&repo, &again, &root, &second), root);
    assert!(again.has_stream(&reader, &root));
    assert_eq!(again.counts().chunks_new, 0);
}

/// However many there are, and wherever a node ends.
#[test]
fn nodes_of_parts_hold_what_fits_and_a_single_part_has_a_node() {
    let (_, repo) = fresh();
    let one = writer(&repo);
    let plain = noise(1, 100_000);
    let chunk = one.chunk(Lane::Data, plain.clone().into()).unwrap().wait().unwrap();
    let name = |bytes: &[u8]| one.chunk(Lane::Data, bytes.to_vec().into()).unwrap().wait().unwrap();
    let leaf = |offset: usize, length: usize| {
        let id = name(&plain[offset..offset + length]);
        Leaf { id, length: length as u32, part_of: Some(PartOf { chunk, offset: offset as u32 }) }
    };
    let single = one.root_of_leaves([leaf(5, 7)]).unwrap();
    assert_eq!((single.level, single.length), (1, 7));
    // An odd number of slots, so that a part may meet the last one.
    let whole = Leaf::chunk(name(b"whole"), 5);
    let (mut leaves, mut expected) = (Vec::new(), Vec::new());
    for at in 0..5_000_usize {
        if at % 501 == 0 {
            leaves.push(whole);
            expected.extend_from_slice(b"whole");
        }
        leaves.push(leaf(at * 17, 16));
        expected.extend_from_slice(&plain[at * 17..at * 17 + 16]);
    }
    let many = one.root_of_leaves(leaves.clone()).unwrap();
    assert_eq!((many.level, many.length), (2, expected.len() as u64));
    let id = commit(one, vec![entry("many", many), entry("single", single)]);
    let reader = reader(&repo);
    let back = read_back(&reader, &id).unwrap();
    assert!(back[0].1 == expected);
    assert_eq!(back[1].1, &plain[5..12]);
    let read: Vec<Leaf> = reader.extents(&many).map(|leaf| leaf.unwrap().leaf()).collect();
    assert!(read == leaves);
}

#[test]
fn what_is_no_part_is_not_written() {
    let (_, repo) = fresh();
    let one = writer(&repo);
    let [a, b] = [1_u8, 2].map(|byte| ChunkId([byte; 32]));
    for (chunk, offset, length) in [(a, 0, 5), (b, 0, 0), (b, 262_144, 1), (b, 1, 262_144), (b, u32::MAX, 2)]
    {
        let leaf = Leaf { id: a, length, part_of: Some(PartOf { chunk, offset }) };
        assert!(matches!(one.root_of_leaves([leaf]), Err(Error::Invalid { .. })), "{leaf:?}");
    }
}

/// What the node says and the chunk does not give: found by a check, and never returned as data.
#[test]
fn a_part_that_is_not_in_its_chunk_is_found_and_not_returned() {
    let plain = noise(1, 50_000);
    let name = |writer: &Writer, bytes: &[u8]| {
        writer.chunk(Lane::Data, bytes.to_vec().into()).unwrap().wait().unwrap()
    };
    type Lie = fn(ChunkId, ChunkId) -> Leaf;
    let lies: [(&str, bool, Lie); 3] = [
        ("beyond its end", true, |chunk, id| Leaf {
            id,
            length: 1_000,
            part_of: Some(PartOf { chunk, offset: 49_001 }),
        }),
        ("all of it, under another name", true, |chunk, id| Leaf {
            id,
            length: 50_000,
            part_of: Some(PartOf { chunk, offset: 0 }),
        }),
        // That needs the data: a check of the structure has not read it.
        ("at another place", false, |chunk, id| Leaf {
            id,
            length: 1_000,
            part_of: Some(PartOf { chunk, offset: 3 }),
        }),
    ];
    for (what, found, lie) in lies {
        let (_, repo) = fresh();
        let one = writer(&repo);
        let (chunk, id) = (name(&one, &plain), name(&one, &plain[..1_000]));
        let root = one.root_of_leaves([Leaf::chunk(id, 1_000), lie(chunk, id)]).unwrap();
        commit(one, vec![entry("disk", root)]);
        let report = check(&repo, &CheckOptions::default(), &()).unwrap();
        assert_eq!(report.is_damaged(), found, "{what}: {:?}", report.findings);
        let error = reader(&repo).bytes(&root, 1 << 20).unwrap_err();
        assert!(error.is_damage(), "{what}: {error}");
    }
}

/// A tree of parts was made by nobody: it is refused by all who meet it, and stops a collection.
#[test]
fn trees_and_manifests_have_no_parts() {
    let (_, repo) = fresh();
    let one = writer(&repo);
    let mut tree = one.tree();
    let kind = repo::NodeKind::Directory;
    let (path, xattrs) = (Vec::new(), [(b"user.long".to_vec(), noise(1, 2_000))].into());
    tree.push(&repo::TreeEntry { path, kind, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs }).unwrap();
    let root = tree.finish().unwrap();
    commit(one, vec![]);
    let one = writer(&repo);
    let half = root.length as u32 / 2;
    let plain = reader(&repo).chunk(&root.id).unwrap();
    let part = |offset: u32, length: u32| {
        let bytes = plain.slice(offset as usize..(offset + length) as usize);
        let id = one.chunk(Lane::Meta, bytes).unwrap().wait().unwrap();
        Leaf { id, length, part_of: Some(PartOf { chunk: root.id, offset }) }
    };
    let leaves = [part(0, half), part(half, root.length as u32 - half)];
    let parted = one.root_of_leaves(leaves).unwrap();
    let kind = EntryKind::Tree;
    let id = commit(one, vec![ManifestEntry { kind, ..entry("tree", parted) }]);
    let reader = reader(&repo);
    assert!(reader.tree(&parted).next().unwrap().unwrap_err().is_damage());
    let report = check(&repo, &CheckOptions::default(), &()).unwrap();
    assert_eq!(report.findings.first().map(|finding| finding.what.clone()), Some(id.key()), "{report:?}");
    let plan = repo::gc::plan(&repo, GcOptions { threads: 1, ..GcOptions::default() }, &());
    let said = format!("{plan:?}");
    assert!(said.contains("trees have none"), "{said}");
}

#[test]
fn a_collection_keeps_the_chunks_whose_parts_are_needed() {
    let env = Env::fixed(NOW, 7);
    let store = MemStore::with_env(env.clone());
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repo = Repository::init(Arc::new(store.clone()), &passphrase(), &options, &env).unwrap();
    let collect = || {
        let mut deleted = 0;
        for _ in 0..3 {
            env.advance(2 * DAY);
            let options = GcOptions { threads: 1, repack_percent: 0, ..GcOptions::default() };
            let outcome = repo::gc::plan(&repo, options, &()).unwrap().execute(&()).unwrap();
            assert_eq!(outcome.findings, []);
            deleted += outcome.packs_deleted;
        }
        deleted
    };
    let [(before, ..), (after, root, second)] = two_points(&repo);
    let other = writer(&repo);
    let kept = write_stream(&other, &noise(50, 100_000)).unwrap();
    commit(other, vec![entry("other", kept)]);
    let large = |id: &CommitId| {
        let root = reader(&repo).manifest(id).unwrap()[0].root;
        let leaf = reader(&repo).extents(&root).next().unwrap().unwrap();
        reader(&repo).locate(&leaf.extent().chunk).unwrap().unwrap().pack
    };
    // The data of the first point, of which the second needs parts.
    let pack = large(&before);
    store.delete(&before.key()).unwrap();
    collect();
    assert!(store.get(&pack.key()).is_ok());
    assert!(content(&repo, &after) == second);
    let report = check(&repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    assert!(repo.reader(ReaderOptions::default()).unwrap().extents(&root).all(|leaf| leaf.is_ok()));
    // With the point it goes.
    store.delete(&after.key()).unwrap();
    assert!(collect() >= 2);
    assert!(store.get(&pack.key()).is_err());
}

/// Under other keys parts have other names, which are learnt again from what was copied before.
#[test]
fn a_copy_has_the_same_parts_and_reads_nothing_twice() {
    for alike in [false, true] {
        let (_, near) = fresh();
        let [_, (after, root, second)] = two_points(&near);
        let far_store = Arc::new(Record::new(MemStore::new()));
        let like = alike.then(|| near.clone());
        let options = InitOptions { kdf: Kdf::cheap(), like, ..InitOptions::default() };
        let far = Repository::init(far_store.clone(), &Passphrase::new("far"), &options, &Env::fixed(NOW, 9))
            .unwrap();
        let copied = copy(&near, &far, &CopyOptions::default(), &()).unwrap();
        assert_eq!((copied.done.copied.len(), copied.findings.as_slice()), (2, &[][..]));
        let there = copied.done.copied.iter().find(|pair| pair.near == after).unwrap().far;
        assert!(content(&far, &there) == second);
        let far_reader = reader(&far);
        let far_root = far_reader.manifest(&there).unwrap()[0].root;
        assert_eq!(parts(&far, &far_root), parts(&near, &root));
        assert_eq!(far_root == root, alike);
        for leaf in far_reader.extents(&far_root) {
            let (leaf, extent) = leaf.map(|leaf| (leaf, leaf.extent())).unwrap();
            let chunk = far_reader.chunk(&extent.chunk).unwrap();
            assert!(far_reader.is(&chunk[extent.offset as usize..][..extent.length as usize], &leaf.id));
        }
        let report = check(&far, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
        assert!(!report.is_damaged(), "{:?}", report.findings);
        // One more page: a point that shares all else.
        let mut third = second.clone();
        third[2_000_000..2_008_192].copy_from_slice(&noise(99, 8_192));
        let one = writer(&near);
        let root = upon(&near, &one, &root, &third);
        let id = commit(one, vec![entry("disk", root)]);
        far_store.clear();
        let copied = copy(&near, &far, &CopyOptions::default(), &()).unwrap();
        let there = copied.done.copied.iter().find(|pair| pair.near == id).unwrap().far;
        assert!(copied.done.bytes_read < 100_000, "{:?}", copied.done);
        assert!(far_store.bytes(Verb::Put) < 200_000);
        assert!(content(&far, &there) == third);
    }
}

/// A stream is only there if the chunks of its parts are.
#[test]
fn a_stream_without_a_chunk_of_its_parts_is_not_there() {
    let (store, repo) = fresh();
    let [_, (_, root, _)] = two_points(&repo);
    let before = reader(&repo);
    let part = before.extents(&root).map(|leaf| leaf.unwrap()).find(|leaf| leaf.part_of.is_some()).unwrap();
    let pack = before.locate(&part.extent().chunk).unwrap().unwrap().pack;
    store.tamper(&pack.key(), None);
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    assert!(!writer(&repo).has_stream(&reader, &root));
}
