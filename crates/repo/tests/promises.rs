//! The promises of docs/formats/repository.md, each shown on a whole repository.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    bytes, commit, commit_with, entry, fresh, gated, init_with, noise, owned, passphrase, read_back, reader,
    reopen, small_chunks, small_packs, write_stream,
};
use repo::store::faulty::{Faults, Faulty};
use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::store::retry::{Retry, RetryPolicy};
use repo::store::{Object, Put, Store, StoreError};
use repo::{
    Cancel, Capability, ChunkBytes, CommitDraft, Env, Error, Kdf, Lane, Passphrase, ReaderOptions,
    Repository, WriterOptions,
};

// --- R1: immutable, named by content, created if absent ---

#[test]
fn r1_every_object_is_created_once_named_by_its_content_and_never_deleted() {
    let store = Arc::new(Record::new(MemStore::new()));
    let repo = init_with(store.clone(), small_chunks());
    for round in 0..3 {
        let content = [bytes(1, 300_000), bytes(round, 300_000)].concat();
        commit(&repo, &[("s", &content)]).unwrap();
    }
    let mut created = BTreeMap::new();
    // (What proves that the store keeps this promise is made and removed under `probe/`.)
    for call in store.log().into_iter().filter(|call| !call.key.starts_with("probe/")) {
        assert_ne!(call.verb, Verb::Delete, "{call:?}");
        if call.verb == Verb::Put {
            *created.entry(call.key).or_insert(0) += 1;
        }
    }
    assert!(created.values().all(|puts| *puts == 1), "{created:?}");
    for (key, content) in store.inner().snapshot() {
        let hash = blake3::hash(&content).to_string();
        match key.split('/').collect::<Vec<_>>()[..] {
            ["holdfast.json"] => {}
            ["keys", id] => assert_eq!(id, &hash[..32]),
            ["packs", folder, id] => assert_eq!((folder, id), (&hash[..2], hash.as_str())),
            ["index" | "commits", id] => assert_eq!(id, hash),
            // Named by its writer, and by a number: each is created once like all the rest.
            ["leases", name] => assert!(name.ends_with("-00000000") || name.ends_with("-00000001")),
            _ => panic!("an object of no kind: {key}"),
        }
    }
}

/// The answer to a put is lost and the put is tried again: the object is there, and it is ours.
#[test]
fn r1_a_put_whose_answer_was_lost_is_recognised_as_done() {
    let (inner, _) = fresh();
    let faults = Faults { seed: 4, lost_per_mille: 300, unavailable_per_mille: 100, ..Faults::default() };
    let (policy, env) = (RetryPolicy::default(), Env::fixed(1, 9));
    let faulty = Faulty::new(inner.clone(), faults);
    let store = Retry::with_sleep(faulty, policy, env, Cancel::new(), Arc::new(|_| {}));
    let repo = reopen(store, 1);
    let content = noise(1, 6_000_000);
    let info = commit(&repo, &[("s", &content)]).unwrap();
    assert_eq!(read_back(&reader(&reopen(inner, 2)), &info.id).unwrap()[0].1, content);
}

/// Where puts are not conditional, names do what the store does not: equal names have equal bytes. Only the header
/// has a name of its own, and whoever makes a repository claims the place first.
#[test]
fn r1_a_store_that_replaces_objects_is_known_and_holds_one_repository() {
    #[derive(Debug, Clone, Default)]
    struct Replacing(MemStore);
    impl Store for Replacing {
        fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
            self.0.tamper(key, Some(bytes));
            Ok(Put::Created)
        }
        fn get(&self, key: &str) -> Result<Bytes, StoreError> {
            self.0.get(key)
        }
        fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
            self.0.get_range(key, offset, len)
        }
        fn size(&self, key: &str) -> Result<u64, StoreError> {
            self.0.size(key)
        }
        fn list(
            &self,
            prefix: &str,
            each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
        ) -> Result<(), StoreError> {
            self.0.list(prefix, each)
        }
        fn delete(&self, key: &str) -> Result<(), StoreError> {
            self.0.delete(key)
        }
        fn url(&self) -> String {
            "replacing:".into()
        }
    }
    let store = Replacing::default();
    let init = |seed: u64| {
        let options = repo::InitOptions { kdf: Kdf::cheap(), ..Default::default() };
        Repository::init(Arc::new(store.clone()), &passphrase(), &options, &Env::fixed(1, seed))
    };
    let made: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (1..=8).map(|seed| scope.spawn(move || init(seed))).collect();
        makers.into_iter().filter_map(|maker| maker.join().unwrap().ok()).collect()
    });
    assert!(made.len() <= 1, "{made:?}");
    let repo = match made.into_iter().next() {
        Some(repo) => repo,
        None => init(9).unwrap(),
    };
    assert!(matches!(init(10), Err(Error::Exists { .. })));
    let probe = repo.probe().unwrap();
    assert!(!probe.conditional_put && probe.notes[0].contains("created only if absent"), "{probe:?}");
    let content = noise(1, 1_000_000);
    let info = commit(&repo, &[("s", &content)]).unwrap();
    assert_eq!(commit(&repo, &[("s", &content)]).unwrap().summary.figures["chunks_new"], 0);
    let reopened = Repository::open(Arc::new(store.clone()), &passphrase(), &Env::fixed(2, 2)).unwrap();
    assert_eq!(read_back(&reader(&reopened), &info.id).unwrap()[0].1, content);
}

// --- R2: packs, then index, then commit ---

#[test]
fn r2_packs_come_before_the_index_and_the_commit_comes_last() {
    let store = Arc::new(Record::new(MemStore::new()));
    let repo = init_with(store.clone(), small_chunks());
    store.clear();
    commit(&repo, &[("s", &noise(1, 5_000_000))]).unwrap();
    let folders: Vec<String> =
        store.calls(Verb::Put).iter().map(|key| key.split('/').next().unwrap().to_string()).collect();
    let mut in_order = folders[1..folders.len() - 1].to_vec();
    in_order.sort_by_key(|folder| ["packs", "index", "commits"].iter().position(|known| known == folder));
    // Around it the lease, from its beginning to its end.
    let in_order = [vec!["leases".to_owned()], in_order, vec!["leases".to_owned()]].concat();
    assert_eq!(folders, in_order);
    assert!(folders.len() >= 6, "several packs: {folders:?}");
}

/// The process dies at every put there is, just before it lands and just after.
#[test]
fn r2_a_crash_between_any_two_puts_leaves_every_commit_readable() {
    let (base, repo) = fresh();
    let first = noise(1, 2_000_000);
    let second = [noise(2, 3_000_000), first[..1_000_000].to_vec()].concat();
    let kept = commit(&repo, &[("s", &first)]).unwrap();
    let whole = Faulty::new(MemStore::from_snapshot(base.snapshot()), Faults::default());
    let whole = Arc::new(whole);
    commit(&reopen(whole.clone(), 1), &[("s", &second)]).unwrap();
    let puts = whole.changes();
    assert!(puts >= 5, "{puts}");
    for at in 0..puts + 1 {
        for landed in [false, true] {
            let left = MemStore::from_snapshot(base.snapshot());
            let faults = Faults { die_after_changes: Some(at), die_landed: landed, ..Faults::default() };
            let dying = reopen(Faulty::new(left.clone(), faults), 1);
            let outcome = commit(&dying, &[("s", &second)]);
            // The last put only ends the lease.
            assert_eq!(outcome.is_ok(), at >= puts - 1, "died at put {at}, landed {landed}");

            let repo = reopen(left.clone(), 2);
            let listed = repo.commits().unwrap();
            assert_eq!(listed.findings, []);
            let reader = reader(&repo);
            assert_eq!(reader.findings(), []);
            assert_eq!(read_back(&reader, &kept.id).unwrap(), owned(&[("s", &first)]));
            // A commit is there only as a whole, even if nobody was told.
            let there = listed.done.iter().filter(|info| info.id != kept.id).collect::<Vec<_>>();
            assert_eq!(there.len(), usize::from(at >= puts - 1 || (landed && at == puts - 2)));
            for info in there {
                assert_eq!(read_back(&reader, &info.id).unwrap(), owned(&[("s", &second)]));
            }
            let again = commit(&repo, &[("s", &second)]).unwrap();
            let reader = common::reader(&repo);
            assert_eq!(read_back(&reader, &again.id).unwrap(), owned(&[("s", &second)]));
        }
    }
}

#[test]
fn r2_what_a_dead_write_had_indexed_is_not_stored_again() {
    let (base, repo) = fresh();
    let content = noise(3, 4_000_000);
    // Everything lands but the commit, and the end of the lease.
    let counted = Arc::new(Faulty::new(MemStore::from_snapshot(base.snapshot()), Faults::default()));
    commit(&reopen(counted.clone(), 1), &[("s", &content)]).unwrap();
    let faults = Faults { die_after_changes: Some(counted.changes() - 2), ..Faults::default() };
    commit(&reopen(Faulty::new(base.clone(), faults), 1), &[("s", &content)]).unwrap_err();
    let info = commit(&repo, &[("s", &content)]).unwrap();
    assert_eq!(info.summary.figures["bytes_new_plain"], 0);
}

// --- R3: no lock file; reused chunks are looked for again ---

/// A stream taken over whole needs the nodes between its root and its chunks, too, wherever they lie.
#[test]
fn r3_the_nodes_of_a_stream_that_is_taken_over_are_relied_on_like_its_chunks() {
    let (store, repo) = fresh();
    let chunk = |number: u32| Bytes::from(number.to_le_bytes().to_vec());
    let stream = |numbers: std::ops::Range<u32>| {
        let before = store.snapshot();
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let chunks: Vec<_> =
            numbers.map(|n| (writer.chunk(Lane::Data, chunk(n)).unwrap().wait().unwrap(), 4)).collect();
        let root = writer.root_of(chunks).unwrap();
        let manifest = vec![entry("s", root)];
        writer.commit(CommitDraft { manifest, ..CommitDraft::default() }).unwrap();
        let packs = store.snapshot().into_keys().filter(|key| key.starts_with("packs/"));
        (root, packs.filter(|key| !before.contains_key(key)).collect::<Vec<_>>())
    };
    // The second stream goes on where the first ends: its root is new, and most nodes below it are the first one's.
    let (_, first) = stream(0..6_000);
    let (root, second) = stream(0..6_010);
    assert!(root.level >= 2 && first.len() == 2 && second.len() == 2, "{root:?} {first:?} {second:?}");
    // One of the two packs holds the chunks, the other the nodes.
    for pack in first {
        let bytes = store.get(&pack).unwrap();
        let writer = repo.writer(WriterOptions::default()).unwrap();
        assert!(writer.has_stream(&reader(&repo), &root));
        store.delete(&pack).unwrap();
        let manifest = vec![entry("s", root)];
        let refused = writer.commit(CommitDraft { manifest, ..CommitDraft::default() }).unwrap_err();
        assert!(matches!(&refused, Error::Missing { object, .. } if *object == pack), "{refused}");
        store.put(&pack, bytes).unwrap();
    }
    assert!(repo.writer(WriterOptions::default()).unwrap().has_stream(&reader(&repo), &root));
}

#[test]
fn r3_a_pack_deleted_under_a_writer_is_noticed_before_the_commit() {
    let (store, repo) = fresh();
    let content = noise(1, 1_500_000);
    commit(&repo, &[("s", &content)]).unwrap();
    for by_has in [false, true] {
        let writer = repo.writer(small_packs()).unwrap();
        let root = if by_has {
            let chunks: Vec<_> = {
                let reader = reader(&repo);
                let manifest = reader.manifest(&repo.find_commit("latest").unwrap().id).unwrap();
                reader.extents(&manifest[0].root).map(|one| one.unwrap()).collect()
            };
            assert!(chunks.iter().all(|chunk| writer.has(&chunk.id)));
            writer.root_of(chunks.iter().map(|chunk| (chunk.id, chunk.length.into()))).unwrap()
        } else {
            write_stream(&writer, &content).unwrap()
        };
        let pack = store.snapshot().into_keys().find(|key| key.starts_with("packs/")).unwrap();
        store.delete(&pack).unwrap();
        let manifest = vec![entry("s", root)];
        let refused = writer.commit(CommitDraft { manifest, ..CommitDraft::default() }).unwrap_err();
        assert!(matches!(&refused, Error::Missing { object, .. } if *object == pack), "{refused}");

        // The next write sees that the pack is gone, says so, and stores its content again.
        let writer = repo.writer(small_packs()).unwrap();
        assert!(writer.findings().iter().any(|finding| finding.what == pack));
        drop(writer);
        let info = commit(&repo, &[("s", &content)]).unwrap();
        assert!(info.summary.figures["bytes_new_plain"] > 0);
        assert_eq!(read_back(&reader(&repo), &info.id).unwrap(), owned(&[("s", &content)]));
    }
}

// --- R4: keyed, authenticated, named, never returned as data ---

#[test]
fn r4_chunk_ids_and_cuts_reveal_nothing_without_the_key() {
    let content = bytes(1, 500_000);
    let roots: Vec<_> = (1..3)
        .map(|seed| {
            let options =
                repo::InitOptions { kdf: Kdf::cheap(), chunk_bytes: small_chunks(), ..Default::default() };
            let store = Arc::new(MemStore::new());
            let repo = Repository::init(store, &passphrase(), &options, &Env::fixed(1, seed)).unwrap();
            let writer = repo.writer(small_packs()).unwrap();
            let root = write_stream(&writer, &content).unwrap();
            writer.commit(CommitDraft::default()).unwrap();
            let chunks: Vec<_> = reader(&repo).extents(&root).map(|one| one.unwrap()).collect();
            chunks
        })
        .collect();
    assert!(roots[0].iter().all(|one| roots[1].iter().all(|two| one.id != two.id)));
    let cuts = |at: usize| roots[at].iter().map(|one| one.offset).collect::<Vec<_>>();
    let common = cuts(0).iter().filter(|cut| cuts(1).contains(cut)).count();
    assert!(common < roots[0].len() / 20, "{common} of {}", roots[0].len());
}

/// Every object of a repository is changed, one bit at a time, cut short, and taken away.
#[test]
fn r4_whatever_is_changed_is_named_and_never_returned_as_data() {
    let (base, repo) = fresh();
    let streams: [(&str, &[u8]); 2] = [("one", &noise(1, 30_000)), ("two", &bytes(2, 30_000))];
    let info = commit(&repo, &streams).unwrap();
    let good: BTreeMap<_, _> = owned(&streams).into_iter().collect();
    let objects = base.snapshot();
    for (key, content) in &objects {
        let places = (0..content.len()).filter(|at| at % 61 == 0 || content.len() - at < 20 || *at < 50);
        let mut changes: Vec<Option<Bytes>> = places
            .map(|at| {
                let mut changed = content.to_vec();
                changed[at] ^= 1 << (at % 8);
                Some(changed.into())
            })
            .collect();
        changes.push(None);
        changes.push(Some(content.slice(..content.len() - 1)));
        changes.push(Some(content.slice(..content.len() / 2)));
        changes.push(Some(Bytes::new()));
        for changed in changes {
            let store = MemStore::from_snapshot(objects.clone());
            store.tamper(key, changed);
            let opened = Repository::open(Arc::new(store), &passphrase(), &Env::fixed(1, 5));
            let repo = match opened {
                Ok(repo) => repo,
                Err(error) => {
                    assert!(key == "holdfast.json" || key.starts_with("keys/"), "{key}: {error}");
                    continue;
                }
            };
            if key == "holdfast.json" {
                panic!("a changed header opened");
            }
            let Ok(reader) = repo.reader(ReaderOptions::default()) else { panic!("{key}: no reader") };
            let manifest = match reader.manifest(&info.id) {
                Ok(manifest) => manifest,
                Err(error) => {
                    assert!(error.is_damage(), "{key}: {error}");
                    assert!(
                        !key.starts_with("commits/") || error.to_string().contains(key),
                        "{key}: {error}"
                    );
                    continue;
                }
            };
            for entry in manifest {
                match reader.bytes(&entry.root, 1 << 30) {
                    Ok(read) => assert!(read == good[&entry.name], "{key}: wrong bytes were returned"),
                    Err(error) => {
                        assert!(error.is_damage(), "{key}: {error}");
                        let told = error.to_string().contains(key)
                            || reader.findings().iter().any(|finding| finding.what == *key);
                        assert!(told, "{key} is not named: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn r4_a_chunk_that_lies_twice_is_read_from_the_good_place() {
    let (store, repo) = fresh();
    let content = noise(1, 400_000);
    // Two writers that began before either had committed: both store all.
    let writers = [repo.writer(small_packs()).unwrap(), repo.writer(small_packs()).unwrap()];
    let mut packs = Vec::new();
    let mut last = None;
    for writer in writers {
        let before = store.snapshot();
        let manifest = vec![entry("s", write_stream(&writer, &content).unwrap())];
        last = Some(writer.commit(CommitDraft { manifest, ..CommitDraft::default() }).unwrap());
        let new =
            store.snapshot().into_keys().filter(|key| key.starts_with("packs/") && !before.contains_key(key));
        packs.push(new.collect::<Vec<_>>());
    }
    for written in packs {
        let left = MemStore::from_snapshot(store.snapshot());
        for (number, key) in written.iter().enumerate() {
            let mut content = left.get(key).unwrap().to_vec();
            content.iter_mut().skip(48).step_by(100).for_each(|byte| *byte ^= 1);
            left.tamper(key, (number % 2 == 0).then(|| content.into()));
        }
        let reader = reader(&reopen(left, 9));
        assert_eq!(read_back(&reader, &last.as_ref().unwrap().id).unwrap()[0].1, content);
    }
}

#[test]
fn r4_a_reader_that_cannot_reach_the_store_says_so_and_not_that_data_is_damaged() {
    let (store, repo) = fresh();
    let info = commit(&repo, &[("s", &noise(1, 100_000))]).unwrap();
    let faults = Faults { denied: [Verb::GetRange].into(), ..Faults::default() };
    let reader = reader(&reopen(Faulty::new(store, faults), 3));
    let error = reader.manifest(&info.id).unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Denied { .. })) && !error.is_damage(), "{error}");
}

// --- R5: three capabilities ---

#[test]
fn r5_a_put_key_writes_deduplicates_and_needs_neither_get_on_packs_nor_delete() {
    let (inner, repo) = fresh();
    let content = noise(1, 1_000_000);
    commit(&repo, &[("s", &content)]).unwrap();
    repo.add_key(&Passphrase::new("agent"), Capability::Put, "agent", Kdf::cheap()).unwrap();
    repo.add_key(&Passphrase::new("operator"), Capability::List, "operator", Kdf::cheap()).unwrap();
    let open = |store: Arc<Record<MemStore>>, words: &str| {
        Repository::open(store, &Passphrase::new(words), &Env::fixed(common::NOW + 7, 7)).unwrap()
    };
    let store = Arc::new(Record::new(inner.clone()));
    let info = commit(&open(store.clone(), "agent"), &[("s", &[&content[..], b"more"].concat())]).unwrap();
    let new = info.summary.figures["bytes_new_plain"];
    assert!(new < 100_000, "it deduplicates against what others wrote: {new}");
    for verb in [Verb::Get, Verb::GetRange, Verb::Delete] {
        assert_eq!(store.count(verb, "packs/"), 0);
    }
    assert_eq!(store.count(Verb::Get, "commits/"), 0);

    // The operator sees what there is, and fetches no pack either.
    let store = Arc::new(Record::new(inner.clone()));
    let operator = open(store.clone(), "operator");
    assert_eq!(operator.find_commit("latest").unwrap().summary, info.summary);
    assert!(matches!(operator.reader(ReaderOptions::default()), Err(Error::NotPermitted { .. })));
    assert_eq!(store.count(Verb::Get, "packs/"), 0);
    assert_eq!(read_back(&reader(&repo), &info.id).unwrap()[0].1.len(), content.len() + 4);
}

// --- R6: memory is bounded by configuration ---

#[test]
fn r6_a_slow_store_holds_the_caller_back_at_the_configured_memory() {
    let (gate, store) = gated(MemStore::new());
    let repo = init_with(store, ChunkBytes::default());
    for memory_bytes in [8 << 20, 24 << 20] {
        gate.shut();
        let options = WriterOptions { threads: 2, uploads: 2, memory_bytes, ..WriterOptions::default() };
        let writer = repo.writer(options).unwrap();
        let (fed, total) = (AtomicUsize::new(0), 80 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..total / 65_536 {
                    let chunk = noise((memory_bytes + number) as u64, 65_536);
                    writer.chunk(Lane::Data, chunk.into()).unwrap();
                    fed.fetch_add(65_536, Ordering::SeqCst);
                }
            });
            // It stands still once everything is full.
            let mut last = usize::MAX;
            while last != fed.load(Ordering::SeqCst) || gate.standing() < 2 {
                last = fed.load(Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(300));
            }
            assert!(last <= memory_bytes + (2 << 20), "{last} bytes taken in with {memory_bytes} allowed");
            assert!(last >= memory_bytes / 3, "{last} bytes of {memory_bytes} used");
            gate.open();
        });
        let info = writer.commit(CommitDraft::default()).unwrap();
        assert_eq!(info.summary.figures["bytes_new_plain"], total as u64);
    }
}

// --- What goes wrong ends the write, at once and with its reason ---

/// Runs `work` and fails the test if it has not ended after a while: nothing hangs.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let thread = std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(Duration::from_secs(60)) {
        Ok(result) => {
            thread.join().unwrap().unwrap();
            result
        }
        Err(_) => panic!("it hangs, or panicked"),
    }
}

#[test]
fn a_store_that_refuses_ends_the_write_with_its_reason_and_no_commit() {
    let full = Faults { full_after_bytes: Some(3 << 20), ..Faults::default() };
    let denied = Faults { denied: [Verb::Put].into(), ..Faults::default() };
    let away = Faults { unavailable_per_mille: 1_000, ..Faults::default() };
    for (name, faults) in [("full", full), ("denied", denied), ("away", away)] {
        let (store, _) = fresh();
        let before = store.snapshot();
        // Opened while all is well; the trouble begins with the write.
        let trouble = Arc::new(Faulty::new(store.clone(), faults));
        let switch = Arc::new(Switch { good: store.clone(), bad: trouble, on: AtomicBool::new(false) });
        let repo = Repository::open(switch.clone(), &passphrase(), &Env::fixed(5, 5)).unwrap();
        let error = ends(move || {
            let writer = repo.writer(small_packs()).unwrap();
            switch.on.store(true, Ordering::SeqCst);
            let failed = write_stream(&writer, &noise(1, 30_000_000)).err();
            let again = writer.chunk(Lane::Data, Bytes::from_static(b"x")).err();
            let committed = writer.commit(CommitDraft::default()).unwrap_err();
            for earlier in failed.into_iter().chain(again) {
                assert_eq!(earlier.to_string(), committed.to_string(), "the first error is what is told");
            }
            committed
        });
        let fits = match &error {
            Error::Store(StoreError::Full { .. }) => name == "full",
            Error::Store(StoreError::Denied { .. }) => name == "denied",
            Error::Store(StoreError::Unavailable { .. }) => name == "away",
            _ => false,
        };
        assert!(fits, "{name}: {error}");
        let new: Vec<_> = store.snapshot().into_keys().filter(|key| !before.contains_key(key)).collect();
        let harmless = |key: &String| key.starts_with("packs/") || key.starts_with("leases/");
        assert!(new.iter().all(harmless), "{new:?}");
    }
}

#[derive(Debug)]
struct Switch {
    good: MemStore,
    bad: Arc<dyn Store>,
    on: AtomicBool,
}

impl Switch {
    fn now(&self) -> &dyn Store {
        if self.on.load(Ordering::SeqCst) { &*self.bad } else { &self.good }
    }
}

impl Store for Switch {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.now().put(key, bytes)
    }
    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.now().get(key)
    }
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.now().get_range(key, offset, len)
    }
    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.now().size(key)
    }
    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.now().list(prefix, each)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.now().delete(key)
    }
    fn url(&self) -> String {
        "switch:".into()
    }
}

#[test]
fn a_store_that_panics_fails_the_write_and_hangs_nobody() {
    let (store, _) = fresh();
    let panicking = Record::new(store.clone()).before(|verb, key| {
        // The lease is put by the caller's thread, before there are others.
        assert!(verb != Verb::Put || key.starts_with("leases/"), "on purpose, at {key}");
    });
    let repo = reopen(panicking, 1);
    let error = ends(move || commit(&repo, &[("s", &noise(1, 30_000_000))]).unwrap_err());
    assert!(matches!(&error, Error::Failed { what } if what.contains("panicked")), "{error}");
    assert!(store.snapshot().keys().all(|key| !key.starts_with("commits/")));
}

#[test]
fn the_stop_button_ends_a_write_that_waits_for_a_store() {
    let (gate, store) = gated(MemStore::new());
    let repo = init_with(store, ChunkBytes::default());
    let options = small_packs();
    let cancel = options.cancel.clone();
    let writer = repo.writer(options).unwrap();
    std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            for number in 0..10_000 {
                if let Err(error) = writer.chunk(Lane::Data, noise(number, 65_536).into()) {
                    return (error, Instant::now());
                }
            }
            panic!("nobody stopped it")
        });
        gate.wait_for(2);
        std::thread::sleep(Duration::from_millis(200));
        let pressed = Instant::now();
        cancel.cancel();
        let (error, ended) = feeding.join().unwrap();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert!(ended.duration_since(pressed) < Duration::from_secs(1));
    });
    gate.open();
    assert!(matches!(writer.commit(CommitDraft::default()), Err(Error::Cancelled)));
    assert_eq!(repo.commit_ids().unwrap(), []);
}

#[test]
fn a_writer_dropped_without_a_commit_leaves_its_repository_as_readable_as_before() {
    let (store, repo) = fresh();
    let content = noise(1, 500_000);
    let info = commit(&repo, &[("s", &content)]).unwrap();
    let writer = repo.writer(small_packs()).unwrap();
    let mut stream = writer.stream(Lane::Data);
    stream.append(&noise(2, 9_000_000)).unwrap();
    drop(stream);
    drop(writer);
    let repo = reopen(store, 1);
    assert_eq!(repo.commits().unwrap().done, std::slice::from_ref(&info));
    assert_eq!(read_back(&reader(&repo), &info.id).unwrap()[0].1, content);
}

#[test]
fn a_reader_that_is_stopped_says_so() {
    let (_, repo) = fresh();
    let info = commit_with(&repo, small_packs(), &[("s", &noise(1, 3_000_000))]).unwrap();
    let options = ReaderOptions::default();
    let cancel = options.cancel.clone();
    let reader = repo.reader(options).unwrap();
    let root = reader.manifest(&info.id).unwrap()[0].root;
    let mut stream = reader.stream(&root);
    stream.next_chunk().unwrap().unwrap();
    cancel.cancel();
    let stopped = std::iter::from_fn(|| stream.next_chunk().transpose()).find_map(Result::err);
    assert!(matches!(stopped, Some(Error::Cancelled)));
}

// --- The index can always be made again ---

#[test]
fn a_lost_or_damaged_index_is_made_again_from_the_packs_with_any_key() {
    let (store, repo) = fresh();
    let content = noise(1, 1_500_000);
    let info = commit(&repo, &[("s", &content)]).unwrap();
    repo.add_key(&Passphrase::new("agent"), Capability::Put, "agent", Kdf::cheap()).unwrap();
    let agent =
        Repository::open(Arc::new(store.clone()), &Passphrase::new("agent"), &Env::fixed(2, 2)).unwrap();
    let nothing = repo::reindex::reindex(&agent, &Cancel::new(), &()).unwrap();
    assert_eq!((nothing.done.packs_named, nothing.done.segments, nothing.findings), (0, 0, vec![]));

    let segment = store.snapshot().into_keys().find(|key| key.starts_with("index/")).unwrap();
    for changed in [None, Some(Bytes::from_static(b"rubbish"))] {
        store.tamper(&segment, changed);
        assert!(reader(&repo).manifest(&info.id).unwrap_err().is_damage());
        let made = repo::reindex::reindex(&agent, &Cancel::new(), &()).unwrap();
        assert_eq!((made.done.packs_named, made.done.segments, made.findings), (made.done.packs, 1, vec![]));
        assert_eq!(read_back(&reader(&repo), &info.id).unwrap(), owned(&[("s", &content)]));
        for key in store.snapshot().into_keys().filter(|key| key.starts_with("index/") && *key != segment) {
            store.delete(&key).unwrap();
        }
    }
    // A pack without a readable directory is told, and does not keep the others from being named.
    let pack = store.snapshot().into_keys().find(|key| key.starts_with("packs/")).unwrap();
    let cut = store.get(&pack).unwrap();
    store.tamper(&pack, Some(cut.slice(..cut.len() - 5)));
    let made = repo::reindex::reindex(&agent, &Cancel::new(), &()).unwrap();
    assert_eq!(made.findings.len(), 1);
    assert_eq!((made.findings[0].what.as_str(), made.done.packs_named), (pack.as_str(), made.done.packs - 1));
}

#[test]
fn what_a_killed_write_stored_serves_the_next_once_it_is_named() {
    let (base, _) = fresh();
    let content = noise(3, 4_000_000);
    let counted = Arc::new(Faulty::new(MemStore::from_snapshot(base.snapshot()), Faults::default()));
    commit(&reopen(counted.clone(), 1), &[("s", &content)]).unwrap();
    // All packs land, their index does not.
    let faults = Faults { die_after_changes: Some(counted.changes() - 3), ..Faults::default() };
    commit(&reopen(Faulty::new(base.clone(), faults), 1), &[("s", &content)]).unwrap_err();
    let repo = reopen(base, 2);
    assert!(repo::reindex::reindex(&repo, &Cancel::new(), &()).unwrap().done.chunks_named > 10_000);
    assert_eq!(commit(&repo, &[("s", &content)]).unwrap().summary.figures["bytes_new_plain"], 0);
}
