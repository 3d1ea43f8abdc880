//! Collection beside writers with threads of their own on a real directory: what the simulated histories
//! (`src/gc/histories.rs`) decide call by call, here the machine decides.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{bytes, entry, passphrase, small_chunks};
use repo::gc::{self, GcOptions};
use repo::store::Store;
use repo::store::local::LocalStore;
use repo::{
    CommitDraft, CommitInfo, Env, Error, InitOptions, Kdf, Lane, ReaderOptions, Repository, WriterOptions,
};

const WRITERS: u64 = 24;
/// Different contents; writers share them.
const CONTENTS: u64 = 40;

fn content(number: u64) -> Vec<u8> {
    bytes(number, 3_000)
}

struct Point {
    info: CommitInfo,
    contents: Vec<u64>,
}

/// One backup of a few contents that others have, too.
fn back_up(repo: &Repository, first: u64, lease: Duration) -> Result<Point, Error> {
    let options =
        WriterOptions { threads: 1, uploads: 1, memory_bytes: 4 << 20, lease, ..WriterOptions::default() };
    let writer = repo.writer(options)?;
    let contents: Vec<u64> = (0..4).map(|at| (first + at * at) % CONTENTS).collect();
    let mut manifest = Vec::new();
    for (at, number) in contents.iter().enumerate() {
        let mut stream = writer.stream(Lane::Data);
        stream.append(&content(*number))?;
        manifest.push(entry(&format!("{at}"), stream.finish()?));
    }
    let info = writer.commit(CommitDraft { kind: "test".into(), manifest, ..CommitDraft::default() })?;
    Ok(Point { info, contents })
}

fn collect(repo: &Repository) -> gc::Collected {
    let options = GcOptions { grace: Duration::ZERO, repack_percent: 90, threads: 1, ..GcOptions::default() };
    gc::plan(repo, options, &()).unwrap().execute(&()).unwrap()
}

/// 24 writers, two collectors without a grace period, somebody who deletes points: whatever was acknowledged is there.
/// First writers without leases (of no duration), so that collections strike under them, and those they strike are refused;
/// then writers with good leases, of whom none may be refused.
#[test]
fn r3_24_writers_and_collections_at_once_lose_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("repository");
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&place).unwrap());
    let options = InitOptions { kdf: Kdf::cheap(), chunk_bytes: small_chunks(), ..InitOptions::default() };
    let repo = Repository::init(store, &passphrase(), &options, &Env::real()).unwrap();
    let points: Mutex<Vec<Point>> = Mutex::default();
    let (refused, deleted, packs_deleted) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    for (round, lease) in [Duration::ZERO, repo::LEASE].into_iter().enumerate() {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (repo, points, refused, deleted) = (&repo, &points, &refused, &deleted);
                    scope.spawn(move || {
                        for turn in 0..3 {
                            match back_up(repo, writer * 7 + turn * 11, lease) {
                                Ok(point) => points.lock().unwrap().push(point),
                                Err(Error::Collected { .. } | Error::Missing { .. }) => {
                                    assert_eq!(round, 0, "a writer was refused although its lease is good");
                                    refused.fetch_add(1, Ordering::Relaxed);
                                }
                                Err(error) => panic!("{error}"),
                            }
                            // Every second backup somebody deletes the oldest point.
                            if turn % 2 == 1 && points.lock().unwrap().len() > 5 {
                                let oldest = points.lock().unwrap().remove(0);
                                repo.store().delete(&oldest.info.id.key()).unwrap();
                                deleted.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        packs_deleted.fetch_add(collect(&repo).packs_deleted, Ordering::Relaxed);
                    }
                });
            }
            let ends: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            done.store(true, Ordering::Relaxed);
            ends.into_iter().for_each(|end| end.unwrap());
        });
    }
    let beside = packs_deleted.load(Ordering::Relaxed);
    assert!(beside > 0 && deleted.load(Ordering::Relaxed) > 0, "the collections had something to do");

    let again = Repository::open(Arc::new(LocalStore::new(&place).unwrap()), &passphrase(), &Env::real());
    let again = again.unwrap();
    let points = points.into_inner().unwrap();
    let whole = |when: &str| {
        let listed = again.commit_ids().unwrap();
        let reader = again.reader(ReaderOptions::default()).unwrap();
        for point in &points {
            assert!(listed.contains(&point.info.id), "{when}: an acknowledged point is not listed");
            let manifest = reader.manifest(&point.info.id).unwrap();
            assert_eq!(manifest.len(), point.contents.len());
            for (entry, number) in manifest.iter().zip(&point.contents) {
                assert!(reader.bytes(&entry.root, 1 << 20).unwrap() == content(*number), "{when}");
            }
        }
        assert_eq!(listed.len(), points.len(), "{when}");
    };
    whole("when all are done");
    assert!(!points.is_empty());
    collect(&again);
    whole("after one more collection");
    println!(
        "{} points there, {} deleted, {} writers refused, {beside} packs deleted beside them",
        points.len(),
        deleted.into_inner(),
        refused.into_inner()
    );
}
