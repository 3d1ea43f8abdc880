//! Memory follows the budget, not the repository (R6).
//!
//! Each step runs in a process of its own, and what counts is its peak as the kernel saw it. The budget is so
//! small that anything which grows with the number of chunks shows: between the small and the large repository lie
//! 800,000 chunks, and the test fails at 16 bytes for each. (`source/examples/bench_memory.rs` does the same
//! with 10 million chunks and half a gigabyte.)
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use repo::check::{CheckOptions, check};
use repo::delete::{self, Plan};
use repo::gc::{self, GcOptions};
use repo::repair::{self, RepairOptions};
use repo::stats::stats;
use repo::store::{Store, StoreOptions, open};
use repo::{
    Cancel, CommitDraft, EntryKind, Env, InitOptions, Kdf, Lane, LocalOptions, ManifestEntry, Passphrase,
    ReaderOptions, Repository, WriterOptions,
};

#[path = "common/cost.rs"]
mod cost;

const BUDGET: usize = 16 << 20;
const SMALL: u64 = 200_000;
const LARGE: u64 = 1_000_000;
/// More than the noise of an allocator, and less than any table of all chunks.
const GROWTH_MAX: u64 = 12 << 20;

fn store(folder: &Path) -> Arc<dyn Store> {
    open(folder.join("repository").to_str().unwrap(), &StoreOptions::default()).unwrap()
}

fn content(number: u64) -> Bytes {
    let hash = |part: u64| (number * 2 + part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    [hash(0).to_le_bytes(), hash(1).to_le_bytes()].concat().into()
}

fn step(folder: &Path, name: &str, cache: bool, count: u64) {
    let local = LocalOptions {
        cache: cache.then(|| folder.join("cache")),
        temporary: Some(folder.into()),
        memory_bytes: BUDGET,
    };
    let opened = Repository::open(store(folder), &Passphrase::new("x"), &Env::real()).unwrap();
    let repo = opened.with_local(&local);
    match name {
        "write" => {
            let writer =
                repo.writer(WriterOptions { threads: 1, uploads: 1, ..WriterOptions::default() }).unwrap();
            let chunks = (0..count).map(|number| {
                let content = content(number);
                (writer.chunk_now(Lane::Data, content.clone()).unwrap(), content.len() as u64)
            });
            let root = writer.root_of(chunks).unwrap();
            let figures = Default::default();
            let manifest =
                vec![ManifestEntry { name: "image".into(), kind: EntryKind::Bytes, root, figures }];
            let draft = CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() };
            writer.commit(draft).unwrap();
        }
        "read" => {
            let reader = repo.reader(ReaderOptions::default()).unwrap();
            let commit = repo.find_commit("latest").unwrap();
            let root = reader.manifest(&commit.id).unwrap()[0].root;
            // As the reader meets them, not in the order of the index.
            for extent in reader.extents(&root).step_by(97) {
                assert!(reader.locate(&extent.unwrap().id).unwrap().is_some());
            }
        }
        "check" => {
            let report = check(&repo, &CheckOptions { threads: 2, ..CheckOptions::default() }, &()).unwrap();
            assert_eq!(report.findings, []);
            assert!(report.counts.chunks > count / 4);
        }
        "lose the index" => {
            std::fs::remove_dir_all(folder.join("repository/index")).unwrap();
            std::fs::remove_dir_all(folder.join("cache")).unwrap();
        }
        "repair" => {
            let options = RepairOptions { threads: 2, ..RepairOptions::default() };
            let done = repair::plan(&repo, &options, &()).unwrap().execute(&()).unwrap();
            assert!(done.packs_named > 0 && !done.after.is_damaged());
        }
        "thin" => {
            let whole = repo.find_commit("latest").unwrap();
            let writer =
                repo.writer(WriterOptions { threads: 1, uploads: 1, ..WriterOptions::default() }).unwrap();
            let chunks = (0..count).step_by(4).map(|number| {
                let content = content(number);
                (writer.chunk_now(Lane::Data, content.clone()).unwrap(), content.len() as u64)
            });
            let root = writer.root_of(chunks).unwrap();
            let figures = Default::default();
            let manifest =
                vec![ManifestEntry { name: "image".into(), kind: EntryKind::Bytes, root, figures }];
            let draft = CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() };
            writer.commit(draft).unwrap();
            let points = delete::points(&repo.commits().unwrap().done, &[], i64::MAX);
            let plan = Plan::of(&repo, points, &[whole.id].into(), true).unwrap().unwrap();
            assert_eq!(plan.execute(&repo, &Cancel::new(), &()).unwrap().done.deleted, [whole.id]);
        }
        "plan gc" => {
            let plan = gc::plan(&repo, GcOptions { threads: 2, ..GcOptions::default() }, &()).unwrap();
            assert_eq!(plan.report().findings, []);
        }
        "gc" => {
            let options = GcOptions { threads: 2, grace: std::time::Duration::ZERO, ..GcOptions::default() };
            let done = gc::plan(&repo, options, &()).unwrap().execute(&()).unwrap();
            assert_eq!(done.findings, []);
            assert!(done.chunks_copied >= count / 4 && done.packs_deleted > 0, "written anew: {done:?}");
        }
        _ => assert!(stats(&repo).unwrap().chunks > count),
    }
}

/// One step. The test below starts this program again for it, because a peak is that of a whole process; alone it
/// has nothing to measure, and fails.
#[test]
#[ignore = "one step of the test below, which starts it in a process of its own"]
fn child() {
    let asked = std::env::var("MEMORY_TEST_STEP").expect("the test below says which step");
    let parts: Vec<&str> = asked.splitn(4, ',').collect();
    let [name, cache, count, folder] = parts.as_slice() else { panic!("{asked}") };
    step(Path::new(folder), name, *cache == "cache", count.parse().unwrap());
    cost::tell();
}

fn peak(folder: &Path, name: &str, cache: &str, count: u64) -> u64 {
    let asked = format!("{name},{cache},{count},{}", folder.display());
    cost::peak_of(cost::step("child").env("MEMORY_TEST_STEP", asked))
}

#[test]
fn r6_memory_follows_the_budget_and_not_the_number_of_chunks() {
    let folders = [SMALL, LARGE].map(|count| (count, tempfile::tempdir().unwrap()));
    for (_, folder) in &folders {
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        Repository::init(store(folder.path()), &Passphrase::new("x"), &options, &Env::real()).unwrap();
    }
    for (name, cache) in [
        ("write", "cache"),
        ("read", "cache"),
        ("read", "cache"),
        ("read", "none"),
        ("stats", "cache"),
        ("check", "cache"),
        ("check", "none"),
        ("lose the index", "none"),
        ("repair", "cache"),
        ("thin", "cache"),
        ("plan gc", "none"),
        ("gc", "cache"),
        ("check", "cache"),
    ] {
        let [small, large] =
            folders.each_ref().map(|(count, folder)| peak(folder.path(), name, cache, *count));
        println!("{name}, {cache}: {} and {} KiB", small >> 10, large >> 10);
        // The larger one fills more of the pack it writes.
        let room = if name == "gc" { 8 << 20 } else { 0 };
        assert!(large < small + GROWTH_MAX + room, "{name}, {cache}: {small} and {large} bytes");
    }
    for (_, folder) in &folders {
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the repository and the cache: {left:?}");
    }
}
