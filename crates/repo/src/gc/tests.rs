//! Collection by itself: what goes, what stays, what is waited for, what stops it.

#[cfg(test)]
mod races;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::check::{CheckOptions, check};
use crate::id::CommitId;
use crate::id::{INDEX, PACKS};
use crate::reader::ReaderOptions;
use crate::store::mem::MemStore;
use crate::store::vault::LockMode;
use crate::store::versioned::{Flaws, VersionedStore};
use crate::store::{Store, StoreError, list_all};
use crate::{
    ChunkBytes, CommitDraft, CommitInfo, EntryKind, Env, InitOptions, Kdf, Lane, ManifestEntry, Passphrase,
    Writer, WriterOptions,
};

const HOUR: i64 = 3_600_000_000_000;

struct World {
    store: MemStore,
    env: Env,
    repo: Repository,
}

fn world() -> World {
    world_of(1)
}

fn world_of(seed: u64) -> World {
    let env = Env::fixed(1_700_000_000_000_000_000, seed);
    let store = MemStore::with_env(env.clone());
    let options = InitOptions {
        kdf: Kdf::cheap(),
        chunk_bytes: ChunkBytes { min: 64, avg: 256, max: 1024 },
        ..InitOptions::default()
    };
    let repo = Repository::init(Arc::new(store.clone()), &Passphrase::new("p"), &options, &env).unwrap();
    World { store, env, repo }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn options(grace_hours: u64) -> GcOptions {
    GcOptions { grace: Duration::from_secs(grace_hours * 3_600), threads: 1, ..GcOptions::default() }
}

impl World {
    fn writer(&self) -> Writer {
        // Packs of the smallest size: two megabytes fill one.
        let options =
            WriterOptions { threads: 1, uploads: 1, memory_bytes: 4 << 20, ..WriterOptions::default() };
        self.repo.writer(options).unwrap()
    }

    fn add(&self, writer: &Writer, content: &[u8]) -> ManifestEntry {
        let mut stream = writer.stream(Lane::Data);
        stream.append(content).unwrap();
        let root = stream.finish().unwrap();
        ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures: Default::default() }
    }

    fn finish(&self, writer: Writer, entry: ManifestEntry) -> Result<CommitInfo, Error> {
        writer.commit(CommitDraft { kind: "test".into(), manifest: vec![entry], ..CommitDraft::default() })
    }

    fn commit(&self, content: &[u8]) -> CommitInfo {
        let writer = self.writer();
        let entry = self.add(&writer, content);
        self.finish(writer, entry).unwrap()
    }

    fn delete(&self, commit: &CommitInfo) {
        self.store.delete(&commit.id.key()).unwrap();
    }

    fn gc(&self, options: GcOptions) -> Collected {
        plan(&self.repo, options, &()).unwrap().execute(&()).unwrap()
    }

    fn count(&self, prefix: &str) -> usize {
        list_all(&self.store, prefix).unwrap().len()
    }

    /// Reads every commit, and finds nothing wrong.
    fn whole(&self, commits: &[(&CommitInfo, &[u8])]) {
        let report = check(&self.repo, &CheckOptions { read_data: true, ..Default::default() }, &()).unwrap();
        assert!(!report.is_damaged(), "{:?}", report.findings);
        let reader = self.repo.reader(ReaderOptions::default()).unwrap();
        for (commit, content) in commits {
            let manifest = reader.manifest(&commit.id).unwrap();
            assert!(reader.bytes(&manifest[0].root, 1 << 30).unwrap() == *content);
        }
    }
}

#[test]
fn what_nobody_needs_goes_after_the_grace_and_the_rest_stays() {
    let world = world();
    let (a, b) = (noise(1, 50_000), noise(2, 50_000));
    let (first, second) = (world.commit(&a), world.commit(&b));
    let idle = world.gc(options(1));
    assert_eq!(idle, Collected { notes_deleted: 4, ..Collected::default() }, "everything is needed");
    world.delete(&first);
    let planned = plan(&world.repo, options(1), &()).unwrap().report().clone();
    assert_eq!((planned.count(Fate::Mark).0, planned.commits), (2, 1));
    let before = world.store.snapshot();
    drop(plan(&world.repo, options(1), &()).unwrap());
    assert_eq!(world.store.snapshot(), before, "a plan changes nothing");

    let marked = world.gc(options(1));
    assert_eq!((marked.packs_marked, marked.packs_deleted, world.count(PACKS)), (2, 0, 4));
    world.env.advance(HOUR / 2);
    let waiting = world.gc(options(1));
    assert_eq!((waiting.packs_marked, waiting.packs_deleted, waiting.packs_waiting), (0, 0, 2));
    world.env.advance(HOUR);
    let gone = world.gc(options(1));
    assert_eq!((gone.packs_sentenced, gone.packs_deleted, world.count(PACKS)), (2, 2, 2));
    world.whole(&[(&second, &b)]);
    assert_eq!(world.count("gc/"), 1, "the closing verdict stays, nothing else");
    assert_eq!(world.count("leases/"), 0);
    assert_eq!(world.gc(options(1)), Collected::default());
}

#[test]
fn without_grace_and_writers_one_run_does_it_all() {
    let world = world();
    let (a, b) = (noise(1, 50_000), noise(2, 50_000));
    let (first, second) = (world.commit(&a), world.commit(&b));
    world.delete(&second);
    let done = world.gc(options(0));
    assert_eq!((done.packs_marked, done.packs_deleted, world.count(PACKS)), (2, 2, 2));
    assert_eq!(world.count(INDEX), 1);
    world.whole(&[(&first, &a)]);
}

/// Their lines in the directory are the larger part of such a pack, and are needed like the chunks.
#[test]
fn packs_of_tiny_chunks_stay_as_they_are_while_they_are_needed() {
    let world = world();
    let writer = world.writer();
    let chunks = (0..2_000_u64).map(|number| {
        let content = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        (writer.chunk_now(Lane::Data, content.to_vec().into()).unwrap(), 8)
    });
    let root = writer.root_of(chunks).unwrap();
    let entry = ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures: Default::default() };
    world.finish(writer, entry).unwrap();
    let idle = world.gc(options(0));
    assert_eq!(idle, Collected { notes_deleted: idle.notes_deleted, ..Collected::default() });
}

#[test]
fn r3_a_writer_at_work_is_waited_for_and_keeps_what_it_relies_on() {
    let world = world();
    let a = noise(1, 50_000);
    let first = world.commit(&a);
    world.env.advance(1);
    let writer = world.writer();
    world.env.advance(1);
    world.delete(&first);
    let done = world.gc(options(0));
    assert_eq!((done.packs_marked, done.packs_deleted, done.packs_waiting), (2, 0, 2));
    let entry = world.add(&writer, &a);
    let second = world.finish(writer, entry).unwrap();
    assert_eq!(second.summary.figures["chunks_reused"], second.summary.figures["chunks_reused"].max(100));
    let done = world.gc(options(0));
    assert_eq!((done.packs_deleted, done.packs_waiting), (0, 0), "all of it is needed again");
    world.whole(&[(&second, &a)]);
    assert_eq!(world.count("gc/mark"), 1, "who has read it may be about to sentence");
    world.env.advance(32 * 24 * HOUR);
    world.gc(options(0));
    assert_eq!(world.count("gc/mark"), 0);
    world.whole(&[(&second, &a)]);
}

#[test]
fn r3_a_writer_that_begins_after_a_mark_stores_anew_what_it_names() {
    let world = world();
    let a = noise(1, 50_000);
    let first = world.commit(&a);
    world.delete(&first);
    world.gc(options(1));
    let second = world.commit(&a);
    assert_eq!(second.summary.figures["chunks_reused"], 0);
    world.env.advance(2 * HOUR);
    let done = world.gc(options(1));
    assert_eq!(done.packs_deleted, 2, "the packs of the first");
    world.whole(&[(&second, &a)]);
}

#[test]
fn r3_a_writer_whose_lease_ran_out_is_refused_and_its_commit_does_not_count() {
    for own in [false, true] {
        let world = world();
        let (a, b) = (noise(1, 50_000), noise(2, 50_000));
        let kept = world.commit(&b);
        let first = world.commit(&a);
        let writer = world.writer();
        let entry = match own {
            // What it stored itself and did not commit yet.
            true => {
                let entry = world.add(&writer, &noise(3, 2_000_000));
                // All that is on its way has arrived: an upload after the clock has moved would renew the lease.
                let mut before = writer.counts();
                while before.bytes_read < 2_000_000 || before.packs == 0 || before != writer.counts() {
                    before = writer.counts();
                    std::thread::sleep(Duration::from_millis(500));
                }
                entry
            }
            false => world.add(&writer, &a),
        };
        world.delete(&first);
        world.env.advance(2 * HOUR);
        let done = world.gc(options(0));
        assert!(done.packs_deleted >= 2, "{done:?}");
        let refused = world.finish(writer, entry).unwrap_err();
        assert!(matches!(refused, Error::Collected { .. } | Error::Missing { .. }), "{refused}");
        assert_eq!(world.repo.commits().unwrap().done.len(), 1);
        world.env.advance(2 * HOUR);
        world.gc(options(0));
        assert_eq!((world.count("commits/"), world.count("gc/"), world.count("leases/")), (1, 1, 0));
        world.whole(&[(&kept, &b)]);
    }
}

#[test]
fn what_is_little_needed_is_copied_out_and_still_restores() {
    let world = world();
    let (keep, go) = (noise(1, 20_000), noise(2, 400_000));
    let both = [keep.as_slice(), go.as_slice()].concat();
    let first = world.commit(&both);
    let second = world.commit(&keep);
    world.delete(&first);
    let before: u64 = list_all(&world.store, PACKS).unwrap().iter().map(|pack| pack.size).sum();
    let done = world.gc(GcOptions { repack_percent: 0, ..options(0) });
    assert_eq!(done.chunks_copied, 0);
    let done = world.gc(options(0));
    assert!(done.chunks_copied > 20 && done.packs_deleted >= 1, "{done:?}");
    let after: u64 = list_all(&world.store, PACKS).unwrap().iter().map(|pack| pack.size).sum();
    assert!(after < before / 4, "{after} of {before}");
    world.whole(&[(&second, &keep)]);
    assert_eq!(world.gc(options(0)), Collected::default());
}

#[test]
fn many_small_segments_become_one() {
    let world = world();
    let contents: Vec<_> = (0..40).map(|n| noise(n, 3_000)).collect();
    let commits: Vec<_> = contents.iter().map(|content| world.commit(content)).collect();
    assert_eq!(world.count(INDEX), 40);
    world.gc(options(0));
    assert_eq!(world.count(INDEX), 1);
    let pairs: Vec<_> = commits.iter().zip(contents.iter().map(Vec::as_slice)).collect();
    world.whole(&pairs);
}

#[test]
fn what_cannot_be_followed_stops_every_deletion_and_is_named() {
    let world = world();
    let (a, b) = (noise(1, 50_000), noise(2, 50_000));
    let (first, second) = (world.commit(&a), world.commit(&b));
    world.delete(&first);
    let key = second.id.key();
    let mut bytes = world.store.get(&key).unwrap().to_vec();
    bytes[70] ^= 1;
    world.store.tamper(&key, Some(bytes.into()));
    let before = world.store.snapshot();
    let done = world.gc(options(0));
    assert_eq!((done.findings.len(), done.findings[0].what.as_str()), (1, key.as_str()));
    assert_eq!(world.store.snapshot(), before);
}

#[test]
fn what_dead_writers_left_goes_too() {
    let world = world();
    let a = noise(1, 50_000);
    let first = world.commit(&a);
    let writer = world.writer();
    world.add(&writer, &noise(2, 2_000_000));
    while writer.counts().packs == 0 {
        std::thread::yield_now();
    }
    drop(writer);
    let before = world.count(PACKS);
    let done = world.gc(options(0));
    assert_eq!(done.packs_deleted, 0, "it may only be slow");
    world.env.advance(2 * HOUR);
    let done = world.gc(options(0));
    assert!(done.packs_deleted >= 1 && world.count(PACKS) < before);
    assert_eq!((world.count(PACKS), world.count("leases/")), (2, 0));
    world.whole(&[(&first, &a)]);
}

/// A thief with the right to delete took a point that was held. What it needs must be there when it is brought back.
#[test]
fn while_a_held_point_is_gone_nothing_is_collected() {
    let world = world();
    let (a, b) = (noise(1, 50_000), noise(2, 50_000));
    let (first, second) = (world.commit(&a), world.commit(&b));
    let hold = world.repo.add_hold(&first.id, "legal", "me", None).unwrap();
    let bytes = world.store.get(&first.id.key()).unwrap();
    world.delete(&first);
    let packs = world.count(PACKS);
    for _ in 0..3 {
        let stopped = world.gc(options(0));
        assert!(stopped.findings.iter().any(|finding| finding.code == "held-point-missing"));
        assert_eq!((stopped.packs_marked, stopped.packs_deleted, world.count(PACKS)), (0, 0, packs));
        world.env.advance(HOUR);
    }
    world.store.put(&first.id.key(), bytes).unwrap();
    world.gc(options(0));
    world.whole(&[(&first, &a), (&second, &b)]);
    // Released, it goes as any other.
    world.repo.release_hold(&hold).unwrap();
    world.delete(&first);
    assert_eq!(world.gc(options(0)).packs_deleted, 2);
    world.whole(&[(&second, &b)]);
}

/// A collection without a grace period moved what a restore under way was about to read.
#[test]
fn a_reader_finds_what_a_collection_moved_meanwhile() {
    for reading in [false, true] {
        let world = world();
        let (keep, go) = (noise(1, 20_000), noise(2, 400_000));
        let both = [keep.as_slice(), go.as_slice()].concat();
        let first = world.commit(&both);
        let second = world.commit(&keep);
        let keeps_nothing = ReaderOptions { memory_bytes: 1, ..ReaderOptions::default() };
        let reader = world.repo.reader(keeps_nothing).unwrap();
        let manifest = if reading { reader.manifest(&second.id).unwrap() } else { Vec::new() };
        let before: Vec<_> =
            world.store.snapshot().into_keys().filter(|key| key.starts_with(PACKS)).collect();
        world.delete(&first);
        // Twice moved: the index is read again for every pack that is gone.
        for round in 0..2 {
            world.env.advance(HOUR);
            let done = world.gc(GcOptions { repack_percent: 100, ..options(0) });
            assert_eq!(done.packs_deleted > 0, round == 0, "{done:?}");
            let manifest = match reading {
                true => manifest.clone(),
                false => reader.manifest(&second.id).unwrap(),
            };
            assert!(reader.bytes(&manifest[0].root, 1 << 30).unwrap() == keep);
        }
        assert!(before.iter().any(|key| world.store.get(key).is_err()), "something was moved");
        // What is gone for good is still told, by the pack it was in.
        for pack in list_all(&world.store, PACKS).unwrap() {
            world.store.delete(&pack.key).unwrap();
        }
        let root = match manifest.first() {
            Some(entry) => entry.root,
            None => continue,
        };
        let lost = reader.bytes(&root, 1 << 30).unwrap_err();
        assert!(matches!(lost, Error::Missing { .. }) && lost.to_string().contains("packs/"), "{lost}");
    }
}

/// The writer was killed between its commit and the void: `gc` names the commit and the command, and goes on after it.
#[test]
fn a_commit_whose_writer_died_before_it_could_take_it_back_is_named_with_the_way_out() {
    let world = world();
    let (a, b) = (noise(1, 50_000), noise(2, 50_000));
    let kept = world.commit(&b);
    let first = world.commit(&a);
    let (store, env, repo) = (world.store.clone(), world.env.clone(), world.repo.clone());
    let strike = move || {
        store.delete(&first.id.key()).unwrap();
        env.advance(2 * HOUR);
        let done = plan(&repo, options(0), &()).unwrap().execute(&()).unwrap();
        assert_eq!(done.packs_deleted, 2);
    };
    let dying = Between { inner: world.store.clone(), strike: Mutex::new(Some(Box::new(strike))) };
    let repo = world.repo.elsewhere(Arc::new(dying), &world.env).unwrap();
    let writer = repo.writer(WriterOptions { threads: 1, ..WriterOptions::default() }).unwrap();
    let entry = world.add(&writer, &a);
    world.finish(writer, entry).unwrap_err();
    assert_eq!((world.count("gc/void-"), world.count("commits/")), (0, 2));
    let there = list_all(&world.store, "commits/").unwrap();
    let broken = there.iter().filter_map(|object| CommitId::from_key(&object.key));
    let broken = broken.into_iter().find(|id| *id != kept.id).unwrap();

    let before = world.store.snapshot();
    let stopped = world.gc(options(0));
    assert_eq!(world.store.snapshot(), before, "nothing is deleted");
    let finding = stopped.findings.iter().find(|finding| finding.code == "commit-unreadable").unwrap();
    assert_eq!(finding.what, broken.key());
    assert!(finding.message.contains(&format!("holdfast delete {}", broken.short())), "{}", finding.message);

    // As the command does it.
    let listed = crate::delete::points(
        &world.repo.commits().unwrap().done,
        &world.repo.holds().unwrap().done,
        world.env.now(),
    );
    let chosen = world.repo.find_commit(&broken.short()).unwrap().id;
    let plan = crate::delete::Plan::of(&world.repo, listed, &[chosen].into(), true).unwrap().unwrap();
    plan.execute(&world.repo, &Cancel::new(), &()).unwrap();
    world.env.advance(2 * HOUR);
    let done = world.gc(options(0));
    assert_eq!(done.findings, []);
    assert_eq!((world.count("commits/"), world.count(PACKS)), (1, 2));
    world.whole(&[(&kept, &b)]);
}

/// The store gave no answer to the commit, the writer says that it failed, and the commit arrives later.
#[test]
fn a_commit_that_arrives_after_its_writer_gave_up_does_not_count() {
    let world = world();
    let (a, b) = (noise(1, 50_000), noise(2, 50_000));
    let kept = world.commit(&b);
    let faulty = Unanswered { inner: world.store.clone(), late: Mutex::default() };
    let faulty = Arc::new(faulty);
    let repo = world.repo.elsewhere(faulty.clone(), &world.env).unwrap();
    let writer = repo.writer(WriterOptions { threads: 1, ..WriterOptions::default() }).unwrap();
    let entry = world.add(&writer, &a);
    world.finish(writer, entry).unwrap_err();
    world.env.advance(2 * HOUR);
    assert_eq!(world.gc(options(0)).packs_deleted, 2);
    let (key, bytes) = faulty.late.lock().unwrap().take().unwrap();
    world.store.put(&key, bytes).unwrap();
    assert_eq!(world.repo.commits().unwrap().done.len(), 1, "it is not listed");
    let done = world.gc(options(0));
    assert_eq!((done.findings.as_slice(), done.commits_deleted), (&[][..], 1));
    world.whole(&[(&kept, &b)]);
    // And a void whose commit never comes stays a day, not for ever.
    world.env.advance(30 * HOUR);
    world.gc(options(0));
    assert_eq!(world.count("gc/void"), 0);
}

/// A store in which something happens right before a commit arrives, and to which no void comes through.
struct Between {
    inner: MemStore,
    strike: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

impl Store for Between {
    fn put(&self, key: &str, bytes: bytes::Bytes) -> Result<crate::store::Put, StoreError> {
        if key.starts_with("commits/")
            && let Some(strike) = self.strike.lock().unwrap().take()
        {
            strike();
        }
        if key.starts_with("gc/void-") {
            return Err(StoreError::Other { key: key.into(), url: self.url(), reason: "died".into() });
        }
        self.inner.put(key, bytes)
    }
    fn get(&self, key: &str) -> Result<bytes::Bytes, StoreError> {
        self.inner.get(key)
    }
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<bytes::Bytes, StoreError> {
        self.inner.get_range(key, offset, len)
    }
    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.inner.size(key)
    }
    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(crate::store::Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.inner.list(prefix, each)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key)
    }
    fn url(&self) -> String {
        self.inner.url()
    }
}

/// A store that takes a commit in and does not answer.
#[derive(Debug)]
struct Unanswered {
    inner: MemStore,
    late: Mutex<Option<(String, bytes::Bytes)>>,
}

impl Store for Unanswered {
    fn put(&self, key: &str, bytes: bytes::Bytes) -> Result<crate::store::Put, StoreError> {
        if key.starts_with("commits/") {
            *self.late.lock().unwrap() = Some((key.to_owned(), bytes));
            return Err(StoreError::Unavailable {
                key: key.into(),
                url: self.url(),
                reason: "no answer".into(),
            });
        }
        self.inner.put(key, bytes)
    }
    fn get(&self, key: &str) -> Result<bytes::Bytes, StoreError> {
        self.inner.get(key)
    }
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<bytes::Bytes, StoreError> {
        self.inner.get_range(key, offset, len)
    }
    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.inner.size(key)
    }
    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(crate::store::Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.inner.list(prefix, each)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key)
    }
    fn url(&self) -> String {
        self.inner.url()
    }
}

/// In a bucket that locks objects, segments stay although a collection has written them anew.
#[test]
fn a_run_that_has_nothing_to_do_writes_nothing_even_if_the_store_lets_go_of_nothing() {
    let env = Env::fixed(1_700_000_000_000_000_000, 1);
    let store = Arc::new(VersionedStore::new(&env, Flaws::default()));
    let options = InitOptions {
        kdf: Kdf::cheap(),
        chunk_bytes: ChunkBytes { min: 64, avg: 256, max: 1024 },
        lock: Some(crate::LockPolicy::new(LockMode::Compliance, 86_400).unwrap()),
        ..InitOptions::default()
    };
    let repo = Repository::init(store.clone(), &Passphrase::new("p"), &options, &env).unwrap();
    let commit = |repo: &Repository, seed| {
        let writer = repo.writer(WriterOptions { threads: 1, ..WriterOptions::default() }).unwrap();
        let mut stream = writer.stream(Lane::Data);
        stream.append(&noise(seed, 5_000)).unwrap();
        let root = stream.finish().unwrap();
        let entry =
            ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures: Default::default() };
        writer.commit(CommitDraft { manifest: vec![entry], ..CommitDraft::default() }).unwrap().id
    };
    let ids: Vec<_> = (0..40).map(|seed| commit(&repo, seed)).collect();
    let keys = || list_all(&*store, "").unwrap().into_iter().map(|object| object.key).collect::<Vec<_>>();
    let gc = || {
        plan(&repo, GcOptions { threads: 1, grace: Duration::ZERO, ..GcOptions::default() }, &())
            .unwrap()
            .execute(&())
            .unwrap()
    };
    // 40 small segments would be made one, but they are locked.
    gc();
    let before = keys();
    for _ in 0..3 {
        let done = gc();
        assert_eq!((done.segments_written, keys()), (0, before.clone()), "{done:?}");
    }
    // The locks of packs end, those of the index are renewed with every point.
    env.advance(10 * 24 * HOUR);
    commit(&repo, 39);
    store.delete(&ids[0].key()).unwrap();
    let first = gc();
    assert_eq!(first.packs_deleted, 2, "{first:?}");
    let before = keys();
    for _ in 0..3 {
        let done = gc();
        assert_eq!((done.segments_written, keys()), (0, before.clone()), "{done:?}");
    }
    // Segments that are locked name packs that are gone, and that is no damage and no news to a backup.
    let told = |repo: &Repository| {
        let report = check(repo, &CheckOptions { read_data: true, ..Default::default() }, &()).unwrap();
        let gone: Vec<_> = report.findings.iter().filter(|one| one.code == "pack-missing").cloned().collect();
        (report.is_damaged(), gone.len(), gone.iter().map(|one| one.severity).max(), report.points.len())
    };
    assert_eq!(told(&repo), (false, 2, Some(Severity::Note), 0));
    let findings = repo.writer(WriterOptions::default()).unwrap().findings().to_vec();
    assert_eq!(
        findings.iter().map(|one| (one.severity, one.code)).collect::<Vec<_>>(),
        [(Severity::Note, "packs-gone")]
    );
    // Who cannot follow the points says so much, and no more.
    repo.add_key(&Passphrase::new("list"), Capability::List, "", Kdf::cheap()).unwrap();
    let list = Repository::open(store.clone(), &Passphrase::new("list"), &env).unwrap();
    assert_eq!(told(&list), (false, 2, Some(Severity::Warning), 0));
    // One that a point needs is missed as ever, and so is whatever else is gone while that point cannot be followed.
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    let root = reader.manifest(&ids[5]).unwrap()[0].root;
    let number = reader.index().pack_with(&root.id).unwrap().unwrap();
    let needed = reader.index().pack(number).unwrap().0;
    env.advance(100 * 24 * HOUR);
    store.delete(&needed.key()).unwrap();
    let (damaged, gone, severity, points) = told(&repo);
    assert_eq!((damaged, gone, severity, points), (true, 3, Some(Severity::Error), 1));
}

/// Notes of checks, and what a probe of the store was killed over.
#[test]
fn old_notes_of_checks_and_probes_go_and_the_plan_says_so() {
    let world = world();
    world.commit(&noise(1, 50_000));
    let budget = Some(crate::check::Budget::Share(0.1));
    for _ in 0..20 {
        world.env.advance(HOUR);
        check(&world.repo, &CheckOptions { budget, ..Default::default() }, &()).unwrap();
    }
    world.store.put("probe/left", bytes::Bytes::from_static(b"x")).unwrap();
    assert_eq!(world.count("checks/"), 20);
    let young = plan(&world.repo, options(0), &()).unwrap().report().leftovers;
    assert_eq!(young, 4, "a probe may be at work");
    world.env.advance(2 * HOUR);
    let planned = plan(&world.repo, options(0), &()).unwrap();
    assert_eq!(planned.report().leftovers, 5);
    planned.execute(&()).unwrap();
    assert_eq!((world.count("checks/"), world.count("probe/")), (16, 0));
    assert_eq!(world.gc(options(0)), Collected::default());
}
