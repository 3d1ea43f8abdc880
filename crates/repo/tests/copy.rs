//! Copies of recovery points in another repository: the same bytes under other names, sent once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{NOW, bytes, entry, noise, reader, small_chunks, small_packs, write_stream};
use repo::check::{CheckOptions, check};
use repo::copy::{Copied, CopyOptions, Pair, copy};
use repo::store::faulty::{Faults, Faulty};
use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::store::{Store, list_all};
use repo::{
    Capability, CommitDraft, CommitId, CommitInfo, Content, EntryKind, Env, Error, Extent, InitOptions, Kdf,
    Lane, ManifestEntry, NodeKind, Origin, Outcome, Passphrase, Repository, Root, TreeEntry, Writer,
};

type Kept = Arc<Record<MemStore>>;

fn init(seed: u64, like: Option<Repository>) -> (Kept, Repository) {
    let store = Arc::new(Record::new(MemStore::new()));
    let options =
        InitOptions { kdf: Kdf::cheap(), chunk_bytes: small_chunks(), like, ..InitOptions::default() };
    let repo = Repository::init(store.clone(), &word(seed), &options, &Env::fixed(NOW, seed)).unwrap();
    (store, repo)
}

fn word(seed: u64) -> Passphrase {
    Passphrase::new(format!("word {seed}"))
}

fn reopen(store: impl Store + 'static, seed: u64, dice: u64) -> Repository {
    Repository::open(Arc::new(store), &word(seed), &Env::fixed(NOW, 1_000 + dice)).unwrap()
}

fn options() -> CopyOptions {
    CopyOptions { writer: small_packs(), ..CopyOptions::default() }
}

fn all(near: &Repository, far: &Repository) -> Outcome<Copied> {
    copy(near, far, &options(), &()).unwrap()
}

fn file(path: &str, size: u64, content: Content, holes: Vec<(u64, u64)>) -> TreeEntry {
    let kind = NodeKind::File { ctime: 1, inode: 2, size, content, holes };
    node(path, kind)
}

fn node(path: &str, kind: NodeKind) -> TreeEntry {
    let xattrs = BTreeMap::from([(b"user.a".to_vec(), b"b".to_vec())]);
    let xattrs = if matches!(kind, NodeKind::HardLink { .. }) { BTreeMap::new() } else { xattrs };
    let hard = matches!(kind, NodeKind::HardLink { .. });
    let plain = |value: u32| if hard { 0 } else { value };
    TreeEntry {
        path: path.into(),
        kind,
        mode: plain(0o640),
        uid: plain(1),
        gid: plain(2),
        mtime: if hard { 0 } else { 3 },
        xattrs,
    }
}

/// A tree as a backup of files makes it: small files that share chunks, one large one, one with holes, links.
fn write_tree(writer: &Writer, large: &[u8], small: &[u8]) -> Result<Root, Error> {
    let mut tree = writer.tree();
    tree.push(&node("", NodeKind::Directory))?;
    tree.push(&file("a-empty", 0, Content::Extents(vec![]), vec![]))?;
    let root = write_stream(writer, large)?;
    tree.push(&file("b-large", root.length, Content::Stream(root), vec![]))?;
    tree.push(&node("c-dir", NodeKind::Directory))?;
    let run: Vec<_> = small
        .chunks(1_000)
        .map(|chunk| Ok((writer.chunk(Lane::Data, chunk.to_vec().into())?.wait()?, chunk.len() as u32)))
        .collect::<Result<_, Error>>()?;
    // Each small file has the end of one chunk and the beginning of the next.
    for (at, pair) in run.windows(2).enumerate() {
        let (first, second) = (pair[0], pair[1]);
        let extents = vec![
            Extent { chunk: first.0, offset: first.1 / 2, length: first.1 - first.1 / 2 },
            Extent { chunk: second.0, offset: 0, length: second.1 / 2 + 1 },
        ];
        let size = extents.iter().map(|extent| u64::from(extent.length)).sum();
        tree.push(&file(&format!("c-dir/f{at:05}"), size, Content::Extents(extents), vec![]))?;
    }
    let one = Content::Extents(vec![Extent { chunk: run[0].0, offset: 0, length: run[0].1 }]);
    tree.push(&file("d-sparse", u64::from(run[0].1) + 4_096, one, vec![(0, 4_096)]))?;
    tree.push(&node("e-hard", NodeKind::HardLink { target: b"b-large".to_vec() }))?;
    tree.push(&node("f-soft", NodeKind::Symlink { target: b"/etc".to_vec() }))?;
    tree.finish()
}

/// A point of a tree and two streams.
fn point(repo: &Repository, path: &str, parents: &[CommitId], large: &[u8], small: &[u8]) -> CommitInfo {
    repo.env().advance(3_600_000_000_000);
    let writer = repo.writer(small_packs()).unwrap();
    let tree = write_tree(&writer, large, small).unwrap();
    let manifest = vec![
        ManifestEntry {
            name: "volume/a".into(),
            kind: EntryKind::Tree,
            root: tree,
            figures: [("files".into(), 7)].into(),
        },
        entry("certificate.json", write_stream(&writer, b"{\"complete\":true}").unwrap()),
        entry("empty", Root::EMPTY),
        entry("objects.jsonl", write_stream(&writer, &bytes(5, 40_000)).unwrap()),
    ];
    let labels = [("path", path), ("host", "here"), ("team", "a")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let draft = CommitDraft {
        kind: "volume".into(),
        labels,
        figures: [("bytes".into(), large.len() as u64)].into(),
        parents: parents.to_vec(),
        started: repo.env().now() - 5,
        manifest,
    };
    writer.commit(draft).unwrap()
}

/// A manifest entry: name, figures, and what its stream holds.
type Part = (String, BTreeMap<String, u64>, Vec<Vec<u8>>);

/// Everything that can be had of a point: streams byte by byte, trees entry by entry with their content. Names of
/// chunks are not in it.
fn content(repo: &Repository, id: &CommitId) -> Vec<Part> {
    let reader = reader(repo);
    let plain = |entry: TreeEntry| {
        let mut parts = vec![entry.path.clone(), format!("{:?} {:?}", entry.mode, entry.xattrs).into_bytes()];
        match &entry.kind {
            NodeKind::File { content: Content::Stream(root), size, holes, .. } => {
                parts.push(format!("{size} {holes:?}").into_bytes());
                parts.push(reader.bytes(root, 1 << 40).unwrap());
            }
            NodeKind::File { content: Content::Extents(extents), size, holes, ctime, inode } => {
                parts.push(format!("{size} {holes:?} {ctime} {inode}").into_bytes());
                for extent in extents {
                    let (from, to) = (extent.offset as usize, (extent.offset + extent.length) as usize);
                    parts.push(reader.chunk(&extent.chunk).unwrap()[from..to].to_vec());
                }
            }
            other => parts.push(format!("{other:?}").into_bytes()),
        }
        parts.concat()
    };
    reader
        .manifest(id)
        .unwrap()
        .into_iter()
        .map(|entry| {
            let parts = match entry.kind {
                EntryKind::Bytes => vec![reader.bytes(&entry.root, 1 << 40).unwrap()],
                EntryKind::Tree => reader.tree(&entry.root).map(|entry| plain(entry.unwrap())).collect(),
            };
            (entry.name, entry.figures, parts)
        })
        .collect()
}

#[track_caller]
fn clean(repo: &Repository) {
    let report = check(repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
    assert!(!report.is_damaged(), "{:#?}", report.findings);
}

fn far_of(outcome: &Outcome<Copied>, near: &CommitId) -> CommitId {
    let pairs = outcome.done.copied.iter().chain(&outcome.done.present);
    pairs.filter(|pair| pair.near == *near).map(|pair| pair.far).next().unwrap()
}

/// Three points: the second changed a little of the first, the third is of something else.
fn three(repo: &Repository) -> [CommitInfo; 3] {
    let (large, small) = (noise(1, 400_000), bytes(2, 60_000));
    let mut changed = large.clone();
    changed[200_000..200_100].fill(0);
    let first = point(repo, "/a", &[], &large, &small);
    let second = point(repo, "/a", &[first.id, CommitId([9; 32])], &changed, &small);
    let third = point(repo, "/b", &[], &noise(3, 50_000), &bytes(4, 20_000));
    [first, second, third]
}

#[test]
fn a_copy_holds_the_same_bytes_and_says_where_it_is_from() {
    for alike in [false, true] {
        let (_, near) = init(1, None);
        let points = three(&near);
        let (_, far) = init(2, alike.then(|| near.clone()));
        far.env().advance(77_000_000_000_000);
        let outcome = all(&near, &far);
        assert_eq!((outcome.done.copied.len(), outcome.findings.len()), (3, 0), "{:?}", outcome.findings);
        clean(&far);
        for point in &points {
            let id = far_of(&outcome, &point.id);
            assert_ne!(id, point.id);
            assert_eq!(content(&far, &id), content(&near, &point.id));
            let there = far.commit(&id).unwrap().summary;
            assert_eq!(there.origin, Some(Origin { repository: near.id(), commit: point.id }));
            let here = point.summary.clone();
            assert_eq!(
                (there.time, there.started, there.kind, there.labels, there.figures),
                (here.time, here.started, here.kind, here.labels, here.figures)
            );
        }
        // The parent that is there, under its name there; the one nobody knows is left out.
        let second = far.commit(&far_of(&outcome, &points[1].id)).unwrap();
        assert_eq!(second.summary.parents, [far_of(&outcome, &points[0].id)]);
    }
}

#[test]
fn copying_again_reads_no_data_and_puts_nothing() {
    for alike in [false, true] {
        let (near_store, near) = init(1, None);
        let points = three(&near);
        let (far_store, far) = init(2, alike.then(|| near.clone()));
        all(&near, &far);
        let (near, far) = (reopen(near_store.clone(), 1, 1), reopen(far_store.clone(), 2, 1));
        near_store.clear();
        far_store.clear();
        let again = all(&near, &far);
        assert_eq!((again.done.copied.len(), again.done.present.len()), (0, 3));
        for store in [&near_store, &far_store] {
            assert_eq!(store.count(Verb::Put, "") + store.count(Verb::Delete, ""), 0);
            assert_eq!(store.count(Verb::GetRange, ""), 0);
            assert_eq!(store.count(Verb::Get, "packs/") + store.count(Verb::Get, "index/"), 0);
            assert_eq!(store.count(Verb::Get, ""), points.len(), "the summaries, and nothing else");
        }
    }
}

#[test]
fn of_the_next_point_only_what_changed_is_read_and_sent() {
    for alike in [false, true] {
        let (near_store, near) = init(1, None);
        let (large, small) = (noise(1, 400_000), bytes(2, 60_000));
        point(&near, "/a", &[], &large, &small);
        let (far_store, far) = init(2, alike.then(|| near.clone()));
        let first = all(&near, &far);
        assert!(first.done.bytes_read >= 460_000, "{:?}", first.done);
        let mut changed = large.clone();
        changed[200_000..200_100].fill(0);
        let next = point(&near, "/a", &[], &changed, &small);
        // Another run of another process, that remembers nothing.
        let (near, far) = (reopen(near_store, 1, 1), reopen(far_store, 2, 1));
        let second = all(&near, &far);
        assert_eq!(second.done.copied.len(), 1);
        let done = second.done.clone();
        assert!(done.bytes_read < 5_000, "alike {alike}: {done:?}");
        // The chunk, and the node and the tree stream it is named in: with chunks of 256 bytes no small part.
        assert!(done.written.bytes_stored < 80_000, "alike {alike}: {done:?}");
        assert_eq!(content(&far, &far_of(&second, &next.id)), content(&near, &next.id));
    }
}

#[test]
fn only_the_points_asked_for_are_copied() {
    let (_, near) = init(1, None);
    let points = three(&near);
    let (_, far) = init(2, None);
    let some = CopyOptions { points: Some(vec![points[1].id]), ..options() };
    let outcome = copy(&near, &far, &some, &()).unwrap();
    assert_eq!(outcome.done.copied.iter().map(|pair| pair.near).collect::<Vec<_>>(), [points[1].id]);
    let none = CopyOptions { points: Some(vec![CommitId([3; 32])]), ..options() };
    assert!(matches!(copy(&near, &far, &none, &()), Err(Error::NoSuchCommit { .. })));
    assert_eq!(far.commit_ids().unwrap().len(), 1);
}

#[test]
fn made_alike_both_name_content_the_same_and_share_it_with_what_is_backed_up_there() {
    let (_, near) = init(1, None);
    let (_, far) = init(2, Some(near.clone()));
    assert_ne!(near.id(), far.id());
    let (large, small) = (noise(1, 300_000), bytes(2, 30_000));
    let here = point(&near, "/a", &[], &large, &small);
    let there = point(&far, "/a", &[], &large, &small);
    let root = |repo: &Repository, id: &CommitId| reader(repo).manifest(id).unwrap()[3].root;
    assert_eq!(root(&near, &here.id), root(&far, &there.id));
    let outcome = all(&near, &far);
    assert_eq!((outcome.done.copied.len(), outcome.done.bytes_read), (1, 0));
    assert_eq!(root(&far, &far_of(&outcome, &here.id)), root(&near, &here.id));
    // All else differs: the keys of one open nothing of the other.
    let other = list_all(&**near.store(), "packs/").unwrap();
    let stolen = near.store().get(&other[0].key).unwrap();
    far.store().put(&other[0].key, stolen).unwrap();
    let id = repo::PackId::from_key(&other[0].key).unwrap();
    assert!(far.read_pack(&id).is_err());
}

#[test]
fn a_list_key_is_no_model_for_another_repository() {
    let (store, near) = init(1, None);
    near.add_key(&Passphrase::new("list"), Capability::List, "", Kdf::cheap()).unwrap();
    let list = Repository::open(store, &Passphrase::new("list"), &Env::fixed(NOW, 3)).unwrap();
    let options = InitOptions { kdf: Kdf::cheap(), like: Some(list), ..InitOptions::default() };
    let place = Arc::new(MemStore::new());
    let refused = Repository::init(place.clone(), &word(2), &options, &Env::fixed(NOW, 2));
    assert!(matches!(refused, Err(Error::NotPermitted { .. })));
    assert!(place.snapshot().is_empty());
}

#[test]
fn r2_a_copy_killed_at_any_change_goes_on_and_sends_nothing_twice() {
    let (_, near) = init(1, None);
    let points = three(&near);
    for alike in [false, true] {
        let (whole, far) = init(2, alike.then(|| near.clone()));
        all(&near, &far);
        let changes = whole.count(Verb::Put, "packs/") + whole.count(Verb::Put, "index/") + 3;
        let unique = repo::stats::stats(&far).unwrap().chunks;
        for die in 0..changes as u64 {
            for landed in [false, true] {
                let (store, _) = init(2, alike.then(|| near.clone()));
                let faults = Faults { die_after_changes: Some(die), die_landed: landed, ..Faults::default() };
                let dying = reopen(Faulty::new(store.inner().clone(), faults), 2, die);
                let died = copy(&near, &dying, &options(), &());
                let far = reopen(store.inner().clone(), 2, 100 + die);
                clean(&far);
                let after = far.commit_ids().unwrap().len();
                assert!(died.is_err() || after == 3, "at {die}");
                let again = all(&near, &far);
                assert_eq!(again.done.present.len(), after, "at {die}");
                for point in &points {
                    assert_eq!(
                        content(&far, &far_of(&again, &point.id)),
                        content(&near, &point.id),
                        "at {die}"
                    );
                }
                assert_eq!(far.commit_ids().unwrap().len(), 3);
                // No chunk has two places: nothing that had arrived was sent again.
                assert_eq!(far.index().unwrap().chunk_count() as u64, unique, "at {die}, {landed}");
            }
        }
    }
}

/// Requests and answers are lost on both sides. Whatever becomes of a run, what is committed is whole, and runs
/// repeated until one succeeds end with everything.
#[test]
fn over_a_bad_network_a_copy_gets_there() {
    let (near_store, near) = init(1, None);
    let points = three(&near);
    for seed in 0..12 {
        let (store, _) = init(2, (seed % 2 == 0).then(|| near.clone()));
        let mut runs = 0;
        loop {
            let faults = |share: u16| Faults {
                seed: seed * 1_000 + runs,
                unavailable_per_mille: share,
                lost_per_mille: share,
                ..Faults::default()
            };
            let bad = |store: &Kept, share: u16| Faulty::new(store.inner().clone(), faults(share));
            // The worse at first: later runs have less to do.
            let share = 20_u64.saturating_sub(runs) as u16;
            let open =
                |store, seed| Repository::open(Arc::new(bad(store, share)), &word(seed), &Env::fixed(NOW, 9));
            let run = open(&near_store, 1).and_then(|near| copy(&near, &open(&store, 2)?, &options(), &()));
            runs += 1;
            match run {
                Ok(outcome) => {
                    assert_eq!(outcome.done.failed, [], "{:?}", outcome.findings);
                    break;
                }
                Err(Error::Store(error)) => assert!(error.is_unavailable(), "{error}"),
                Err(error) => panic!("{error}"),
            }
        }
        let far = reopen(store.inner().clone(), 2, 500 + seed);
        clean(&far);
        let again = all(&near, &far);
        assert_eq!((again.done.copied.len(), again.done.present.len()), (0, 3), "after {runs} runs");
        for point in &points {
            assert_eq!(content(&far, &far_of(&again, &point.id)), content(&near, &point.id));
        }
        // An answer that was lost after a commit landed makes no second copy of the point.
        assert_eq!(far.commit_ids().unwrap().len(), 3);
    }
}

#[test]
fn a_copy_that_is_stopped_leaves_no_part_of_a_point() {
    let (_, near) = init(1, None);
    three(&near);
    let (store, far) = init(2, None);
    let stopped = options();
    stopped.cancel.cancel();
    assert!(matches!(copy(&near, &far, &stopped, &()), Err(Error::Cancelled)));
    assert_eq!(store.count(Verb::Put, "commits/"), 0);
}

#[test]
fn a_point_that_comes_back_is_known_and_one_that_was_lost_comes_back_whole() {
    let (near_store, near) = init(1, None);
    let points = three(&near);
    let (_, far) = init(2, None);
    let there = all(&near, &far);
    let back = all(&far, &near);
    assert_eq!((back.done.copied.len(), back.done.present.len()), (0, 3));
    let before = content(&near, &points[0].id);
    near_store.delete(&points[0].id.key()).unwrap();
    let back = all(&far, &near);
    let [Pair { far: id, .. }] = back.done.copied[..] else { panic!("{back:?}") };
    assert_eq!(content(&near, &id), before);
    let summary = near.commit(&id).unwrap().summary;
    assert_eq!(summary.origin, Some(Origin { repository: near.id(), commit: points[0].id }));
    // Its content was here all the time.
    assert!(back.done.written.bytes_stored < 60_000, "{:?}", back.done);
    // And there it is known by either name.
    let again = all(&near, &far);
    assert_eq!((again.done.copied.len(), again.done.present.len()), (0, 3));
    assert_eq!(far_of(&again, &id), far_of(&there, &points[0].id));
}

#[test]
fn a_copy_of_a_copy_names_the_first_origin() {
    let (_, a) = init(1, None);
    let points = three(&a);
    let ((_, b), (_, c)) = (init(2, None), init(3, None));
    all(&a, &b);
    let outcome = all(&b, &c);
    let origins: Vec<_> = c.commits().unwrap().done.iter().map(|one| one.summary.origin.unwrap()).collect();
    let first: Vec<_> = points.iter().map(|one| Origin { repository: a.id(), commit: one.id }).collect();
    assert_eq!(origins, first);
    assert_eq!(outcome.done.copied.len(), 3);
    assert_eq!(all(&a, &c).done.copied.len(), 0);
}

#[test]
fn r4_a_damaged_point_is_named_and_not_committed_and_the_others_are_copied() {
    let (store, near) = init(1, None);
    let points = three(&near);
    // A chunk in the middle of the large file, which only the second point has.
    let reader = reader(&near);
    let manifest = reader.manifest(&points[1].id).unwrap();
    let tree = manifest.iter().find(|entry| entry.name == "volume/a").unwrap().root;
    let large = reader.tree(&tree).map(Result::unwrap).find(|entry| entry.path == b"b-large").unwrap();
    let NodeKind::File { content: Content::Stream(root), .. } = large.kind else { panic!() };
    let hit = reader
        .extents(&root)
        .map(Result::unwrap)
        .find(|extent| extent.offset + u64::from(extent.length) > 200_050);
    let place = reader.locate(&hit.unwrap().id).unwrap().unwrap();
    let mut pack = store.get(&place.pack.key()).unwrap().to_vec();
    pack[(place.offset + place.sealed / 2) as usize] ^= 1;
    store.inner().tamper(&place.pack.key(), Some(pack.into()));
    for alike in [false, true] {
        let (_, far) = init(2, alike.then(|| near.clone()));
        let outcome = all(&near, &far);
        assert_eq!((outcome.done.copied.len(), &outcome.done.failed), (2, &vec![points[1].id]));
        let [finding] = &outcome.findings[..] else { panic!("{:?}", outcome.findings) };
        assert_eq!((finding.code, &finding.what), ("point-not-copied", &points[1].id.to_string()));
        assert!(finding.message.starts_with("volume/a/b-large: "), "{}", finding.message);
        clean(&far);
        assert_eq!(far.commit_ids().unwrap().len(), 2);
        for at in [0, 2] {
            let id = far_of(&outcome, &points[at].id);
            assert_eq!(content(&far, &id), content(&near, &points[at].id));
        }
    }
    // A chunk that small files share, and a commit that is noise: one finding each.
    store.inner().tamper(&points[2].id.key(), Some("noise".into()));
    let (_, far) = init(3, None);
    let outcome = all(&near, &far);
    assert_eq!((outcome.done.copied.len(), outcome.done.failed.len()), (1, 2));
    assert!(outcome.findings.iter().any(|finding| finding.code == "commit-damaged"));
}

#[test]
fn a_damaged_chunk_of_small_files_names_a_file() {
    let (store, near) = init(1, None);
    let one = point(&near, "/a", &[], &noise(1, 5_000), &bytes(2, 30_000));
    let reader = reader(&near);
    let tree = reader.manifest(&one.id).unwrap()[3].root;
    let entry = reader.tree(&tree).map(Result::unwrap).find(|entry| entry.path == b"c-dir/f00010").unwrap();
    let NodeKind::File { content: Content::Extents(extents), .. } = entry.kind else { panic!() };
    let place = reader.locate(&extents[1].chunk).unwrap().unwrap();
    let mut pack = store.get(&place.pack.key()).unwrap().to_vec();
    pack[(place.offset + 5) as usize] ^= 1;
    store.inner().tamper(&place.pack.key(), Some(pack.into()));
    let (_, far) = init(2, None);
    let outcome = all(&near, &far);
    assert!(outcome.findings[0].message.starts_with("volume/a/c-dir/f00010: "), "{:?}", outcome.findings);
}

#[test]
fn what_cannot_be_copied_is_refused_before_anything_is_changed() {
    let (near_store, near) = init(1, None);
    three(&near);
    let (far_store, far) = init(2, None);
    assert!(matches!(copy(&near, &near.clone(), &options(), &()), Err(Error::Invalid { .. })));
    far_store.clear();
    for (word, capability) in [("list", Capability::List), ("put", Capability::Put)] {
        near.add_key(&Passphrase::new(word), capability, word, Kdf::cheap()).unwrap();
        far.add_key(&Passphrase::new(word), capability, word, Kdf::cheap()).unwrap();
        let open = |store: &Kept| {
            Repository::open(store.clone(), &Passphrase::new(word), &Env::fixed(NOW, 5)).unwrap()
        };
        assert!(matches!(copy(&open(&near_store), &far, &options(), &()), Err(Error::NotPermitted { .. })));
        assert!(matches!(copy(&near, &open(&far_store), &options(), &()), Err(Error::NotPermitted { .. })));
    }
    assert_eq!(far_store.count(Verb::Put, "packs/") + far_store.count(Verb::Put, "commits/"), 0);
}

#[test]
fn with_little_memory_for_names_a_copy_is_right_and_reads_more() {
    let (near_store, near) = init(1, None);
    let (large, small) = (noise(1, 400_000), bytes(2, 60_000));
    point(&near, "/a", &[], &large, &small);
    point(&near, "/a", &[], &large, &small);
    let (_, far) = init(2, None);
    let few = CopyOptions { names_bytes: 0, ..options() };
    let outcome = copy(&reopen(near_store, 1, 3), &far, &few, &()).unwrap();
    assert_eq!(outcome.done.copied.len(), 2);
    assert!(outcome.done.bytes_read > 900_000, "{:?}", outcome.done);
    assert!(outcome.done.written.bytes_new_plain < 800_000, "sent once all the same: {:?}", outcome.done);
    clean(&far);
}
