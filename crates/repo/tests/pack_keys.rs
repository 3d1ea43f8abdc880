//! Reading with a put key and the keys of packs: these packs, and no others.
//!
//! What a node agent does: it writes with a put bundle and remembers keys, reads the previous tree by them, and is
//! handed others by whoever has the read key.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{NOW, init_with, noise, small_packs};
use repo::store::Store;
use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::{
    Cancel, Capability, ChunkBytes, CommitDraft, CommitInfo, Content, EntryKind, Env, Error, Lane,
    ManifestEntry, NodeKind, PackId, PackKeys, Reader, ReaderOptions, Remember, Repository, Root, TreeEntry,
    WriterOptions,
};

/// A repository in memory, and one opened with its put bundle.
fn site() -> (MemStore, Repository, Repository) {
    let store = MemStore::new();
    let repo = init_with(Arc::new(store.clone()), ChunkBytes::default());
    let node = node(store.clone(), &repo, 1);
    (store, repo, node)
}

fn node(store: impl Store + 'static, repo: &Repository, seed: u64) -> Repository {
    let bundle = repo.bundle(Capability::Put).unwrap();
    Repository::open(Arc::new(store), &bundle, &Env::fixed(NOW + seed as i64, 3_000 + seed)).unwrap()
}

type Files = BTreeMap<String, Vec<u8>>;

/// Files of these seeds: small ones, and one that is a stream with nodes.
fn files(seed: u64) -> Files {
    let mut files: Files = (0..40).map(|n| (format!("small-{n:02}"), noise(seed * 100 + n, 3_000))).collect();
    files.insert("stream".into(), noise(seed * 100 + 99, 3_000_000));
    files
}

/// Writes a tree of files, each of which is a stream, as an agent does.
fn back_up(node: &Repository, files: &Files, remember: Remember) -> (CommitInfo, Root, PackKeys) {
    back_up_knowing(node, files, remember, None)
}

fn back_up_knowing(
    node: &Repository,
    files: &Files,
    remember: Remember,
    known: Option<PackKeys>,
) -> (CommitInfo, Root, PackKeys) {
    let writer = node.writer(WriterOptions { remember, known, ..small_packs() }).unwrap();
    let mut entries = vec![entry("", NodeKind::Directory)];
    for (path, bytes) in files {
        let mut stream = writer.stream(Lane::Data);
        stream.append(bytes).unwrap();
        let root = stream.finish().unwrap();
        let (size, holes) = (bytes.len() as u64, Vec::new());
        let kind = NodeKind::File { ctime: 0, inode: 1, size, content: content(root), holes };
        entries.push(entry(path, kind));
    }
    let mut tree = writer.tree();
    entries.iter().for_each(|entry| tree.push(entry).unwrap());
    let root = tree.finish().unwrap();
    let keys = writer.pack_keys();
    let manifest =
        vec![ManifestEntry { name: "volume".into(), kind: EntryKind::Tree, root, figures: BTreeMap::new() }];
    let info =
        writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() }).unwrap();
    (info, root, keys)
}

fn content(root: Root) -> Content {
    match root.level {
        0 => {
            let (chunk, length) = (root.id, root.length as u32);
            Content::Extents(vec![repo::Extent { chunk, offset: 0, length }])
        }
        _ => Content::Stream(root),
    }
}

fn entry(path: &str, kind: NodeKind) -> TreeEntry {
    let path = path.as_bytes().to_vec();
    TreeEntry { path, kind, mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() }
}

fn with(node: &Repository, keys: &PackKeys) -> Reader {
    let options = ReaderOptions { pack_keys: Some(keys.clone()), threads: 2, ..ReaderOptions::default() };
    node.reader(options).unwrap()
}

/// The names in a tree.
fn names(reader: &Reader, root: &Root) -> Result<Vec<String>, Error> {
    reader.tree(root).map(|entry| Ok(String::from_utf8(entry?.path).unwrap())).collect()
}

/// A tree with the content of its files.
fn restore(reader: &Reader, root: &Root) -> Result<Files, Error> {
    let mut files = Files::new();
    for entry in reader.tree(root) {
        let entry = entry?;
        let NodeKind::File { content, .. } = entry.kind else { continue };
        let bytes = match content {
            Content::Stream(root) => reader.bytes(&root, 1 << 30)?,
            Content::Extents(extents) => extents
                .iter()
                .map(|e| Ok(reader.chunk(&e.chunk)?.to_vec()))
                .collect::<Result<Vec<_>, Error>>()?
                .concat(),
        };
        files.insert(String::from_utf8(entry.path).unwrap(), bytes);
    }
    Ok(files)
}

fn lacks(result: Result<Files, Error>) -> PackId {
    match result {
        Err(Error::KeyMissing { pack, .. }) => pack,
        other => panic!("{:?}", other.map(|files| files.len())),
    }
}

/// The keys that whoever has the read key makes of a tree.
fn made(repo: &Repository, root: &Root, content: bool) -> PackKeys {
    let (keys, mut seen) = (PackKeys::new(), BTreeSet::new());
    let outcome = repo
        .pack_keys(&[(EntryKind::Tree, *root)], content, &Cancel::new(), &mut |pack, key| {
            assert!(seen.insert(pack), "each once");
            keys.give(pack, key);
            Ok(())
        })
        .unwrap();
    assert_eq!((outcome.done as usize, outcome.findings), (keys.len(), vec![]));
    keys
}

/// The packs in the store, by what is in them.
fn packs(repo: &Repository, store: &MemStore, lane: Lane) -> BTreeSet<PackId> {
    let ids = store.snapshot().into_keys().filter_map(|key| PackId::from_key(&key));
    ids.filter(|id| repo.read_pack(id).unwrap().lane == lane).collect()
}

#[test]
fn r5_a_node_reads_its_own_trees_by_the_keys_it_remembered_and_content_only_if_it_remembered_that() {
    let (store, repo, node) = site();
    let tree = files(1);
    let (_, root, keys) = back_up(&node, &tree, Remember::Trees);
    assert_eq!(keys.len(), packs(&repo, &store, Lane::Meta).len());
    let reader = with(&node, &keys);
    assert_eq!(names(&reader, &root).unwrap().len(), tree.len() + 1);
    // It finds what is unchanged, nodes of content included.
    let writer = node.writer(small_packs()).unwrap();
    for entry in reader.tree(&root) {
        if let NodeKind::File { content: Content::Stream(root), .. } = entry.unwrap().kind {
            assert!(root.level > 0 && writer.has_stream(&reader, &root));
        }
    }
    drop(writer);
    let missing = lacks(restore(&reader, &root));
    assert!(packs(&repo, &store, Lane::Data).contains(&missing), "it says which key it lacks");

    let (_, other, keys) = back_up(&node, &files(2), Remember::All);
    assert!(restore(&with(&node, &keys), &other).unwrap() == files(2));
    assert!(keys.len() >= 4, "{keys:?}");
    let (_, _, none) = back_up(&node, &files(3), Remember::Nothing);
    assert!(none.is_empty());
    // Over a restart of the node: sealed on its disk.
    let kept = PackKeys::unseal(&node, &keys.seal(&node).unwrap()).unwrap();
    assert!(restore(&with(&node, &kept), &other).unwrap() == files(2));
}

#[test]
fn r5_whoever_has_the_read_key_makes_the_keys_of_one_tree_and_they_open_no_other() {
    let (store, repo, node) = site();
    let (one, root, remembered) = back_up(&node, &files(1), Remember::All);
    let (_, other, _) = back_up(&node, &files(2), Remember::All);
    let entries = made(&repo, &root, false);
    let all = made(&repo, &root, true);
    // The same that the writer had, which wrote nothing else but the manifest.
    for pack in packs(&repo, &store, Lane::Data) {
        assert_eq!(all.has(&pack), remembered.has(&pack));
        assert!(!entries.has(&pack), "nothing of content for who only looks what is unchanged");
    }
    assert!(restore(&with(&node, &all), &root).unwrap() == files(1));
    assert_eq!(names(&with(&node, &entries), &root).unwrap().len(), 42);
    assert!(matches!(names(&with(&node, &all), &other), Err(Error::KeyMissing { .. })));
    assert!(matches!(with(&node, &all).manifest(&one.id), Err(Error::NotPermitted { .. })));
    // Also with the read key: by these keys and no others.
    assert!(matches!(names(&with(&repo, &all), &other), Err(Error::KeyMissing { .. })));
    let refused = node.pack_keys(&[(EntryKind::Tree, root)], true, &Cancel::new(), &mut |_, _| Ok(()));
    assert!(matches!(refused, Err(Error::NotPermitted { .. })));
}

/// What a thief of the node has: its bundle, its keys, and whatever the store gives.
#[test]
fn r5_without_its_key_nothing_of_a_pack_is_even_fetched() {
    let (store, repo, node_before) = site();
    let (_, root, keys) = back_up(&node_before, &files(1), Remember::Trees);
    let recorded = Arc::new(Record::new(store.clone()));
    let node = node(recorded.clone(), &repo, 2);
    lacks(restore(&with(&node, &keys), &root));
    let data = packs(&repo, &store, Lane::Data);
    for pack in data {
        for verb in [Verb::Get, Verb::GetRange] {
            assert_eq!(recorded.count(verb, &pack.key()), 0);
        }
    }
    let list = repo.bundle(Capability::List).unwrap();
    let list = Repository::open(Arc::new(store), &list, &Env::fixed(1, 1)).unwrap();
    let options = ReaderOptions { pack_keys: Some(keys), ..ReaderOptions::default() };
    assert!(matches!(list.reader(options), Err(Error::NotPermitted { .. })), "a list key names no chunks");
}

#[test]
fn a_wrong_key_is_told_as_what_it_may_be() {
    let (_, repo, node) = site();
    let (_, root, _) = back_up(&node, &files(1), Remember::Nothing);
    let (right, wrong) = (made(&repo, &root, true), PackKeys::new());
    for line in right.to_bytes().as_chunks::<{ PackKeys::LINE_LEN }>().0 {
        let mut line = *line;
        line[40] ^= 1;
        wrong.give_bytes(&line).unwrap();
    }
    let error = names(&with(&node, &wrong), &root).unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("key that was handed in"), "{error}");
}

/// A restore whose keys come while it reads, each only when the reader waits for it or later.
#[test]
fn a_reader_waits_for_keys_that_are_streamed_to_it_and_for_no_longer_than_they_come() {
    let (_, repo, node) = site();
    let (_, root, _) = back_up(&node, &files(1), Remember::Nothing);
    let all = made(&repo, &root, true).to_bytes();
    let lines = all.as_chunks::<{ PackKeys::LINE_LEN }>().0;
    assert!(lines.len() >= 4, "{}", lines.len());
    let patient = || PackKeys::awaited(Duration::from_secs(3_600));
    let keys = patient();
    let reader = with(&node, &keys);
    let restored = std::thread::scope(|scope| {
        let restoring = scope.spawn(|| restore(&reader, &root));
        for line in lines.iter().rev() {
            keys.give_bytes(line).unwrap();
        }
        keys.end();
        restoring.join().unwrap()
    });
    assert!(restored.unwrap() == files(1));

    // All but one come.
    for left_out in 0..lines.len() {
        let keys = patient();
        let reader = with(&node, &keys);
        let restored = std::thread::scope(|scope| {
            let restoring = scope.spawn(|| restore(&reader, &root));
            let given = lines.iter().enumerate().filter(|(at, _)| *at != left_out);
            given.for_each(|(_, line)| keys.give_bytes(line).unwrap());
            keys.end();
            restoring.join().unwrap()
        });
        assert_eq!(lacks(restored).as_bytes(), &lines[left_out][..32]);
    }
}

/// Two who write the same at once store it twice; who has the key of one of the packs reads that.
#[test]
fn of_a_chunk_in_two_packs_the_one_is_read_whose_key_is_there() {
    let (store, repo, first) = site();
    let second = node(store.clone(), &repo, 2);
    let content = noise(1, 60_000);
    let begin =
        |node: &Repository| node.writer(WriterOptions { remember: Remember::All, ..small_packs() }).unwrap();
    let writers = [begin(&first), begin(&second)];
    let written: Vec<(Root, PackKeys)> = writers
        .into_iter()
        .map(|writer| {
            let mut stream = writer.stream(Lane::Data);
            stream.append(&content).unwrap();
            let (root, keys) = (stream.finish().unwrap(), writer.pack_keys());
            let manifest = vec![common::entry("s", root)];
            writer.commit(CommitDraft { manifest, ..CommitDraft::default() }).unwrap();
            (root, keys)
        })
        .collect();
    assert_eq!(written[0].0, written[1].0);
    assert_eq!(packs(&repo, &store, Lane::Data).len(), 2);
    for (root, keys) in &written {
        let node = node(store.clone(), &repo, 5);
        assert!(with(&node, keys).bytes(root, 1 << 20).unwrap() == content);
        // As batches are read, and one by one.
        let reader = with(&node, keys);
        let ids: Vec<_> = reader.extents(root).map(|extent| extent.unwrap().id).collect();
        assert!(reader.chunks(&ids).iter().all(Result::is_ok));
        assert!(ids.iter().all(|id| reader.chunk(id).is_ok()));
    }
}

/// A pod has moved, a node's disk was lost, or a collection has copied: most of the tree lies in packs of others.
#[test]
fn a_node_can_read_the_tree_it_wrote_even_if_others_had_written_most_of_it() {
    let (store, repo, first) = site();
    let (_, root, _) = back_up(&first, &files(1), Remember::Trees);
    let second = node(store.clone(), &repo, 2);
    let data = packs(&repo, &store, Lane::Data);
    // Without saying what is known, nothing is stored again, and nothing of it can be read: now and for ever.
    for _ in 0..2 {
        let (_, again, keys) = back_up(&second, &files(1), Remember::Trees);
        assert_eq!(again, root);
        assert!(matches!(names(&with(&second, &keys), &again), Err(Error::KeyMissing { .. })));
    }
    let (info, again, keys) = back_up_knowing(&second, &files(1), Remember::Trees, Some(PackKeys::new()));
    assert_eq!(again, root);
    let reader = with(&second, &keys);
    assert_eq!(names(&reader, &again).unwrap().len(), 42);
    assert!(info.summary.figures["bytes_new_plain"] < 40_000, "{:?}", info.summary.figures);
    assert_eq!(packs(&repo, &store, Lane::Data), data, "content is not stored again");
    let writer = second.writer(small_packs()).unwrap();
    for entry in reader.tree(&again) {
        if let NodeKind::File { content: Content::Stream(root), .. } = entry.unwrap().kind {
            assert!(writer.has_stream(&reader, &root), "nodes of content, too");
        }
    }
    drop(writer);
    // And then it knows: no more is stored.
    let (info, _, keys) = back_up_knowing(&second, &files(1), Remember::Trees, Some(keys));
    assert!(info.summary.figures["bytes_new_plain"] < 2_000, "{:?}", info.summary.figures);
    assert_eq!(names(&with(&second, &keys), &again).unwrap().len(), 42);
    // Who has the read key reads either.
    assert!(restore(&with(&repo, &made(&repo, &again, true)), &again).unwrap() == files(1));
}

/// Damage does not end the walk that makes keys: what can be read is.
#[test]
fn keys_are_made_of_what_can_be_followed_and_the_rest_is_told() {
    let (store, repo, node) = site();
    let (_, root, _) = back_up(&node, &files(1), Remember::Nothing);
    let all = made(&repo, &root, true).len() as u64;
    let gone = packs(&repo, &store, Lane::Data).into_iter().next().unwrap();
    store.delete(&gone.key()).unwrap();
    let mut given = Vec::new();
    let outcome = repo
        .pack_keys(&[(EntryKind::Tree, root)], true, &Cancel::new(), &mut |pack, _| {
            given.push(pack);
            Ok(())
        })
        .unwrap();
    assert_eq!((outcome.done, given.len() as u64), (all - 1, all - 1));
    assert!(outcome.findings.len() == 1 && outcome.findings[0].what == gone.key(), "{:?}", outcome.findings);
    // Whoever takes the keys may stop it, and so may the button.
    let stopped = repo.pack_keys(&[(EntryKind::Tree, root)], true, &Cancel::new(), &mut |_, _| {
        Err(Error::invalid("the line is gone"))
    });
    assert!(matches!(stopped, Err(Error::Invalid { .. })));
    let cancel = Cancel::new();
    cancel.cancel();
    let stopped = repo.pack_keys(&[(EntryKind::Tree, root)], true, &cancel, &mut |_, _| Ok(()));
    assert!(matches!(stopped, Err(Error::Cancelled)));
}
