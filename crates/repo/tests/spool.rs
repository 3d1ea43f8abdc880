//! Packs that are acknowledged from the local disk: nothing that was committed ever lacks one, whatever dies when.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use common::{NOW, commit, gated, init_with, noise, owned, passphrase, read_back, reader};
use repo::check::{CheckOptions, check};
use repo::store::faulty::{Faults, Faulty};
use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::store::retry::{Retry, RetryPolicy};
use repo::store::spool::{Leftover, Spool, SpoolOptions, leftovers};
use repo::store::vault::{Lock, LockMode, Vault};
use repo::store::versioned::{Flaws, VersionedStore};
use repo::store::{Put, Store};
use repo::{Cancel, ChunkBytes, CommitInfo, Env, Error, PackId, Repository, Severity};
use tempfile::TempDir;

fn spool_at(inner: Arc<dyn Store>, dir: &Path, room_bytes: u64) -> Spool {
    static SEED: AtomicU64 = AtomicU64::new(0);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    let options = SpoolOptions { dir: dir.to_owned(), room_bytes, senders: 2 };
    Spool::new(inner, &options, &Env::fixed(NOW, 5_000 + seed)).unwrap()
}

const ROOMY: u64 = 64 << 20;

/// Some bytes under the name of a pack.
fn pack(seed: u64, length: usize) -> (String, Bytes) {
    let bytes = noise(seed, length);
    (PackId(*blake3::hash(&bytes).as_bytes()).key(), bytes.into())
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// The folder of the only spool there is.
fn folder(dir: &TempDir) -> PathBuf {
    entries(dir.path()).into_iter().find(|path| path.is_dir()).unwrap()
}

#[test]
fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    repo::store::suite::run(&spool_at(Arc::new(MemStore::new()), dir.path(), ROOMY));
}

#[test]
fn r2_packs_are_acknowledged_at_once_and_everything_else_waits_for_them() {
    let (dir, (gate, store)) = (tempfile::tempdir().unwrap(), gated(MemStore::new()));
    let spool = spool_at(store.clone(), dir.path(), ROOMY);
    let packs: Vec<(String, Bytes)> = (0..5).map(|seed| pack(seed, 10_000)).collect();
    for (key, bytes) in &packs {
        assert_eq!(spool.put(key, bytes.clone()).unwrap(), Put::Created);
        assert_eq!(spool.put(key, bytes.clone()).unwrap(), Put::Exists, "a name is put once");
        // What waits is read from the disk.
        assert_eq!(spool.get(key).unwrap(), bytes);
        assert_eq!(spool.get_range(key, 100, 50).unwrap(), bytes.slice(100..150));
        assert_eq!(spool.size(key).unwrap(), 10_000);
    }
    assert!(store.inner().snapshot().is_empty(), "none of it is in the store");
    assert_eq!((spool.waiting().packs, spool.waiting().bytes), (5, 50_000));
    // A lease that is renewed late would cost the write, and a void must not wait for what failed.
    spool.put("leases/x", Bytes::new()).unwrap();
    spool.put("gc/void-x", Bytes::new()).unwrap();
    assert_eq!(store.calls(Verb::Put), ["leases/x", "gc/void-x"]);
    let listed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for key in ["index/x", "commits/x", "locks/x"] {
            let spool = &spool;
            scope.spawn(move || spool.put(key, Bytes::new()).unwrap());
        }
        scope.spawn(|| {
            let listing = spool.list("packs/", &mut |_| {
                listed.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            listing.unwrap();
        });
        gate.wait_for(2);
        assert_eq!(store.calls(Verb::Put).len(), 2, "they wait");
        gate.open();
    });
    let log = store.calls(Verb::Put);
    let first_other = log.iter().skip(2).position(|key| !key.starts_with("packs/")).unwrap();
    assert_eq!((log.len(), first_other), (10, 5), "{log:?}");
    assert_eq!(listed.load(Ordering::SeqCst), 5, "a listing shows what was put before it");
    assert_eq!(spool.waiting().packs, 0);
    for (key, bytes) in &packs {
        assert_eq!(store.inner().get(key).unwrap(), bytes);
        spool.delete(key).unwrap();
    }
    let dir_of_spool = folder(&dir);
    assert!(dir_of_spool.exists());
    drop(spool);
    assert_eq!(entries(dir.path()), Vec::<PathBuf>::new(), "nothing is left on the disk");
}

#[test]
fn r6_a_full_spool_holds_the_caller_back() {
    let (dir, (gate, store)) = (tempfile::tempdir().unwrap(), gated(MemStore::new()));
    let spool = spool_at(store.clone(), dir.path(), 25_000);
    let put = |seed, length| {
        let (key, bytes) = pack(seed, length);
        spool.put(&key, bytes).unwrap();
    };
    put(0, 10_000);
    put(1, 10_000);
    let (third, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seed in 2..20 {
                put(seed, 10_000);
                third.store(true, Ordering::SeqCst);
                most.fetch_max(spool.waiting().bytes, Ordering::SeqCst);
            }
        });
        gate.wait_for(2);
        assert!(!third.load(Ordering::SeqCst), "there is no room for a third");
        assert_eq!(spool.waiting().bytes, 20_000);
        gate.open();
    });
    assert!(most.load(Ordering::SeqCst) <= 25_000, "{most:?}");
    spool.settle().unwrap();
    assert_eq!(store.calls(Verb::Put).len(), 20);
    // What is larger than all the room, and what the disk does not take, goes as it would without a spool.
    put(30, 30_000);
    assert_eq!(store.calls(Verb::Put).len(), 21, "it is in the store when it is acknowledged");
    let folder = folder(&dir);
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, b"no directory").unwrap();
    put(31, 10_000);
    assert_eq!((store.calls(Verb::Put).len(), spool.waiting().packs), (22, 0));
    spool.put("index/x", Bytes::new()).unwrap();
}

#[test]
fn a_pack_that_cannot_be_sent_fails_every_put_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |faults: Faults, what: &str| {
        let store = Arc::new(Faulty::new(MemStore::new(), faults));
        let spool = spool_at(store.clone(), dir.path(), ROOMY);
        let (key, bytes) = pack(1, 10_000);
        spool.put(&key, bytes).unwrap();
        for key in ["index/x", "commits/x"] {
            let error = spool.put(key, Bytes::new()).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let (key, bytes) = pack(2, 10_000);
        assert!(
            spool.put(&key, bytes).is_err()
                && spool.settle().is_err()
                && spool.list("", &mut |_| Ok(())).is_err()
        );
        assert!(store.inner().snapshot().keys().all(|key| key.starts_with("packs/")));
    };
    fails(Faults { unavailable_first: 1, ..Faults::default() }, "the request was lost");
    fails(Faults { full_after_bytes: Some(1), ..Faults::default() }, "no space left");
    // The answer was lost: the pack may be there, and nobody relies on it.
    fails(Faults { lost_first: 1, ..Faults::default() }, "the answer was lost");

    // Somebody has other bytes under this name.
    let store = Arc::new(MemStore::new());
    let spool = spool_at(store.clone(), dir.path(), ROOMY);
    let (key, bytes) = pack(3, 10_000);
    store.put(&key, Bytes::from_static(b"garbage")).unwrap();
    spool.put(&key, bytes).unwrap();
    let error = spool.put("index/x", Bytes::new()).unwrap_err().to_string();
    assert!(error.contains(&key) && error.contains("its bytes are others"), "{error}");
    // And who put the same before is no trouble.
    let (store, (key, bytes)) = (Arc::new(MemStore::new()), pack(4, 10_000));
    let spool = spool_at(store.clone(), dir.path(), ROOMY);
    store.put(&key, bytes.clone()).unwrap();
    spool.put(&key, bytes).unwrap();
    spool.put("index/x", Bytes::new()).unwrap();
}

#[test]
fn r4_a_disk_that_gives_back_other_bytes_is_found_out_before_anything_rests_on_them() {
    let (dir, (gate, store)) = (tempfile::tempdir().unwrap(), gated(MemStore::new()));
    let spool = spool_at(store.clone(), dir.path(), ROOMY);
    // Two are on their way already.
    for seed in 0..3 {
        let (key, bytes) = pack(seed, 10_000);
        spool.put(&key, bytes).unwrap();
    }
    gate.wait_for(2);
    let standing: Vec<String> = (0..3).map(|seed| pack(seed, 10_000).0).collect();
    for key in &standing {
        let file = folder(&dir).join(key);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[5_000] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    gate.open();
    let error = spool.put("commits/x", Bytes::new()).unwrap_err().to_string();
    assert!(error.contains("other bytes than were put"), "{error}");
    for (key, bytes) in store.inner().snapshot() {
        assert_eq!(PackId::from_key(&key), Some(PackId(*blake3::hash(&bytes).as_bytes())), "{key}");
    }
    assert_eq!(store.inner().snapshot().len(), 2);
}

#[test]
fn a_store_that_panics_fails_the_spool_and_hangs_nobody() {
    let panicking =
        Record::new(MemStore::new()).before(|verb, key| assert!(verb != Verb::Put, "on purpose, at {key}"));
    let dir = tempfile::tempdir().unwrap();
    let spool = spool_at(Arc::new(panicking), dir.path(), ROOMY);
    let (key, bytes) = pack(1, 1_000);
    spool.put(&key, bytes).unwrap();
    let error = spool.settle().unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");
}

#[test]
fn a_pack_that_waits_is_locked_when_it_comes_into_the_store() {
    let (dir, env) = (tempfile::tempdir().unwrap(), Env::fixed(0, 1));
    let store = VersionedStore::new(&env, Flaws::default());
    let spool = spool_at(Arc::new(store.clone()), dir.path(), ROOMY);
    let vault: &dyn Vault = spool.vault().unwrap();
    let lock = Lock::new(LockMode::Compliance, 1_000_000_000);
    let later = Lock::new(LockMode::Compliance, 5_000_000_000);
    let (first, second) = (pack(1, 1_000), pack(2, 1_000));
    vault.put_locked(&first.0, first.1, &lock).unwrap();
    vault.put_locked(&second.0, second.1, &lock).unwrap();
    vault.set_lock(&second.0, &later).unwrap();
    vault.put_locked("commits/x", Bytes::new(), &lock).unwrap();
    for (key, lock) in [(first.0.as_str(), lock), (second.0.as_str(), later), ("commits/x", lock)] {
        assert_eq!(store.lock_of(key).unwrap(), Some(lock), "{key}");
        assert_eq!(vault.lock_of(key).unwrap(), Some(lock), "{key}");
    }
}

// --- a repository on it ---

fn open(store: Arc<dyn Store>, seed: u64) -> Result<Repository, Error> {
    Repository::open(store, &passphrase(), &Env::fixed(NOW + seed as i64, 4_000 + seed))
}

/// A repository with a point in it.
fn base() -> (BTreeMap<String, Bytes>, CommitInfo, Vec<u8>) {
    let store = MemStore::new();
    let repo = init_with(Arc::new(store.clone()), ChunkBytes::default());
    let content = noise(1, 500_000);
    let info = commit(&repo, &[("s", &content)]).unwrap();
    (store.snapshot(), info, content)
}

/// Every point that is there restores, and no index names what is not.
fn verify(story: &str, left: MemStore, committed: &[(CommitInfo, Vec<u8>)]) {
    let repo = open(Arc::new(left), 77).unwrap();
    let reader = reader(&repo);
    let there = repo.commits().unwrap();
    assert_eq!(there.findings, [], "{story}");
    for info in &there.done {
        read_back(&reader, &info.id).unwrap_or_else(|error| panic!("{story}: {error}"));
    }
    for (info, content) in committed {
        assert!(there.done.iter().any(|one| one.id == info.id), "{story}: it was acknowledged");
        assert_eq!(read_back(&reader, &info.id).unwrap(), owned(&[("s", content)]), "{story}");
    }
    let report = check(&repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
    let errors: Vec<_> =
        report.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{story}: {errors:?}");
    commit(&repo, &[("s", &noise(9, 10_000))]).unwrap();
}

#[test]
fn r2_killed_at_any_change_of_the_store_no_commit_lacks_a_pack() {
    let (before, first, old) = base();
    let content = [&old[..200_000], &noise(2, 4_000_000)].concat();
    let dir = tempfile::tempdir().unwrap();
    let run = |faults: Faults| {
        let store = Arc::new(Faulty::new(MemStore::from_snapshot(before.clone()), faults));
        let spool = spool_at(store.clone(), dir.path(), 3 << 20);
        let made = open(Arc::new(spool), 1).and_then(|repo| commit(&repo, &[("s", &content)]));
        (store, made)
    };
    let (store, made) = run(Faults::default());
    let changes = store.changes();
    assert!(made.is_ok() && changes >= 8, "{changes}");
    verify(
        "no fault",
        MemStore::from_snapshot(store.inner().snapshot()),
        &[(made.unwrap(), content.clone())],
    );
    let mut failed = 0;
    for at in 0..changes {
        for landed in [false, true] {
            let story = format!("killed at change {at}, landed: {landed}");
            let faults = Faults { die_after_changes: Some(at), die_landed: landed, ..Faults::default() };
            let (store, made) = run(faults);
            let mut committed = vec![(first.clone(), old.clone())];
            match made {
                Ok(info) => committed.push((info, content.clone())),
                Err(_) => failed += 1,
            }
            verify(&story, MemStore::from_snapshot(store.inner().snapshot()), &committed);
        }
    }
    assert!(
        failed >= 2 * (changes - 2),
        "{failed} of {changes}: the end of a lease may be lost, nothing else"
    );
}

#[test]
fn r2_on_a_store_that_fails_what_was_acknowledged_is_there() {
    let (before, first, old) = base();
    let dir = tempfile::tempdir().unwrap();
    let (mut failed, mut done) = (0, 0);
    for seed in 0..40_u64 {
        let faults = match seed % 4 {
            0 => Faults { seed, unavailable_per_mille: 150, ..Faults::default() },
            1 => Faults { seed, lost_per_mille: 150, ..Faults::default() },
            2 => Faults { seed, full_after_bytes: Some(seed * 150_000), ..Faults::default() },
            _ => Faults { seed, unavailable_per_mille: 60, lost_per_mille: 60, ..Faults::default() },
        };
        let store = Arc::new(Faulty::new(MemStore::from_snapshot(before.clone()), faults));
        let policy = RetryPolicy { tries_max: 3, ..RetryPolicy::default() };
        let retry =
            Retry::with_sleep(store.clone(), policy, Env::fixed(0, seed), Cancel::new(), Arc::new(|_| {}));
        let spool = spool_at(Arc::new(retry), dir.path(), 2 << 20);
        let content = noise(seed, 3_000_000);
        let mut committed = vec![(first.clone(), old.clone())];
        match open(Arc::new(spool), seed).and_then(|repo| commit(&repo, &[("s", &content)])) {
            Ok(info) => {
                done += 1;
                committed.push((info, content));
            }
            Err(_) => failed += 1,
        }
        verify(&format!("seed {seed}"), MemStore::from_snapshot(store.inner().snapshot()), &committed);
    }
    assert!(failed >= 5 && done >= 5, "{failed} failed, {done} done");
}

// --- what a dead process leaves ---

/// A spool as a process leaves it that dies: these packs, and the last torn.
fn dead(dir: &Path, packs: &[(String, Bytes)], torn: usize) -> PathBuf {
    let folder = dir.join("0123456789abcdef");
    for (at, (key, bytes)) in packs.iter().enumerate() {
        let file = folder.join(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let length = if at == packs.len() - 1 { bytes.len() - torn } else { bytes.len() };
        std::fs::write(file, &bytes[..length]).unwrap();
    }
    std::fs::write(folder.with_extension("lock"), b"").unwrap();
    folder
}

fn only(dir: &Path) -> Leftover {
    let mut found = leftovers(dir).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn what_a_dead_process_left_is_found_and_what_a_living_one_has_is_not() {
    let (dir, (gate, store)) = (tempfile::tempdir().unwrap(), gated(MemStore::new()));
    assert!(leftovers(&dir.path().join("nowhere")).unwrap().is_empty());
    let spool = spool_at(store.clone(), dir.path(), ROOMY);
    let (key, bytes) = pack(1, 1_000);
    spool.put(&key, bytes.clone()).unwrap();
    assert!(leftovers(dir.path()).unwrap().is_empty(), "its process lives");
    std::fs::write(dir.path().join("notes"), b"somebody else's").unwrap();
    let folder = dead(dir.path(), &[pack(2, 500), pack(3, 700)], 1);
    let leftover = only(dir.path());
    assert_eq!((leftover.packs(), leftover.bytes()), (2, 1_199));
    assert!(leftovers(dir.path()).unwrap().is_empty(), "somebody looks after it");
    drop(leftover);
    let leftover = only(dir.path());
    leftover.remove().unwrap();
    assert!(!folder.exists() && !folder.with_extension("lock").exists());
    assert!(leftovers(dir.path()).unwrap().is_empty());
    // A lock without a folder is what is left of one that was being removed.
    std::fs::write(folder.with_extension("lock"), b"").unwrap();
    assert!(leftovers(dir.path()).unwrap().is_empty() && !folder.with_extension("lock").exists());
    gate.open();
    spool.settle().unwrap();
    assert_eq!(store.inner().get(&key).unwrap(), bytes, "the living one was let alone");
}

#[test]
fn what_a_dead_process_left_is_sent_on_and_serves_the_next_backup() {
    let (before, first, old) = base();
    // What it had written: packs in its spool, nothing in the store.
    let content = noise(5, 3_000_000);
    let written = MemStore::from_snapshot(before.clone());
    commit(&open(Arc::new(written.clone()), 1).unwrap(), &[("s", &content)]).unwrap();
    let packs: Vec<(String, Bytes)> = written
        .snapshot()
        .into_iter()
        .filter(|(key, _)| key.starts_with("packs/") && !before.contains_key(key))
        .collect();
    assert!(packs.len() >= 3);
    let dir = tempfile::tempdir().unwrap();
    let folder = dead(dir.path(), &packs, 7);

    // A store that is not there: it stays, and is sent later.
    let store = MemStore::from_snapshot(before);
    let broken = Faulty::new(store.clone(), Faults { full_after_bytes: Some(5_000), ..Faults::default() });
    let leftover = only(dir.path());
    leftover.send(&open(Arc::new(broken), 2).unwrap()).unwrap_err();
    assert!(folder.exists());
    let leftover = only(dir.path());
    let repo = open(Arc::new(store.clone()), 3).unwrap();
    let sent = leftover.send(&repo).unwrap();
    assert_eq!(sent.done.packs as usize, packs.len() - 1);
    assert_eq!(sent.findings.len(), 1, "{:?}", sent.findings);
    assert_eq!(
        (sent.findings[0].code, &sent.findings[0].what),
        ("spooled-pack-torn", &packs.last().unwrap().0)
    );
    assert!(!folder.exists());

    let info = commit(&repo, &[("s", &content)]).unwrap();
    let new = info.summary.figures["bytes_new_plain"];
    assert!(new < 2_200_000, "it finds what was sent: {new}");
    verify("sent on", store, &[(first, old), (info, content)]);
}
