//! A large file that is overwritten here and there, as a database's disk is: what is left of its chunks is kept in parts, and
//! only what changed is stored.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use common::*;
use proptest::prelude::*;
use repo::check::{CheckOptions, check};
use repo::store::Store;
use repo::{ChunkId, Content, NodeKind, ReaderOptions, StreamExtent};

const LENGTH: usize = 40_000_000;
const PAGE: usize = 8_192;

fn overwrite(path: &Path, pages: impl IntoIterator<Item = usize>, seed: u64) -> usize {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut count = 0;
    for page in pages {
        file.write_all_at(&noise(seed * 1_000_003 + page as u64, PAGE), (page * PAGE) as u64).unwrap();
        count += 1;
    }
    count
}

/// The leaves of the one file of a backup.
fn leaves(depot: &Depot, saved: &Saved) -> Vec<StreamExtent> {
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let mut leaves = Vec::new();
    for entry in reader.tree(&saved.root) {
        if let NodeKind::File { content: Content::Stream(root), .. } = entry.unwrap().kind {
            leaves.extend(reader.extents(&root).map(|leaf| leaf.unwrap()));
        }
    }
    leaves
}

fn parts(leaves: &[StreamExtent]) -> usize {
    leaves.iter().filter(|leaf| leaf.part_of.is_some()).count()
}

fn figure(saved: &Saved, name: &str) -> u64 {
    saved.info.summary.figures[name]
}

/// What comes back is what is there, and nobody finds fault with how it is stored.
fn assert_restored(depot: &Depot, saved: &Saved, from: &Path) {
    let to = tempfile::tempdir().unwrap();
    let outcome = depot.load(saved, to.path());
    assert_eq!((outcome.done.damaged, outcome.findings.as_slice()), (0, &[][..]));
    assert_same(from, to.path());
}

fn assert_sound(depot: &Depot) {
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = check(&depot.repo, &options, &()).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

/// Keys of the packs in which these chunks lie.
fn packs(depot: &Depot, chunks: impl IntoIterator<Item = ChunkId>) -> BTreeSet<String> {
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    chunks.into_iter().map(|chunk| reader.locate(&chunk).unwrap().unwrap().pack.key()).collect()
}

/// As long as they were, and nothing of what they were.
fn garble(depot: &Depot, packs: &BTreeSet<String>) {
    for pack in packs {
        let length = depot.store.get(pack).unwrap().len();
        depot.store.tamper(pack, Some(Bytes::from(vec![0; length])));
    }
}

#[test]
fn pages_that_change_cost_themselves_and_not_their_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large");
    fs::write(&large, noise(1, LENGTH)).unwrap();
    let depot = depot();
    let first = depot.save(dir.path());
    // One in a hundred, and two that follow each other.
    let pages = overwrite(&large, (7..LENGTH / PAGE).step_by(100).chain([1_008]), 2);
    let second = depot.save_after(dir.path(), Some(&first));
    let parted = leaves(&depot, &second);
    assert!(parts(&parted) > pages, "{} parts for {pages} pages", parts(&parted));
    // Blocks of 4 KiB: a page that begins at a multiple of it is stored alone. The rest are nodes.
    let new = figure(&second, "bytes_new_plain") as usize;
    assert!(new < pages * PAGE * 5 / 4 + 150_000, "{new} bytes for {pages} pages");
    assert_restored(&depot, &second, dir.path());
    assert_sound(&depot);

    // As it is: every part is recognised, by its node alone. The packs of the data may as well be gone.
    garble(&depot, &packs(&depot, parted.iter().map(|leaf| leaf.extent().chunk)));
    fs::File::options()
        .append(true)
        .open(&large)
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    let third = depot.save_after(dir.path(), Some(&second));
    assert_eq!(third.figures["bytes_read"], LENGTH as u64);
    assert_eq!(leaves(&depot, &third), parted);
    assert!(figure(&third, "bytes_new_plain") < 10_000, "{:?}", third.info.summary.figures);
}

/// The chunks around pages are cut anew, as they were before there were parts, if the old ones cannot be read.
#[test]
fn what_cannot_be_compared_is_stored_whole() {
    for gone in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let large = dir.path().join("large");
        fs::write(&large, noise(1, LENGTH)).unwrap();
        let depot = depot();
        let first = depot.save(dir.path());
        let old = packs(&depot, leaves(&depot, &first).iter().map(|leaf| leaf.id));
        match gone {
            true => old.iter().for_each(|pack| depot.store.tamper(pack, None)),
            false => garble(&depot, &old),
        }
        overwrite(&large, [100, 2_000, 4_000], 3);
        let second = depot.save_after(dir.path(), Some(&first));
        let after = leaves(&depot, &second);
        assert_eq!(parts(&after), 0, "gone: {gone}");
        if gone {
            assert_restored(&depot, &second, dir.path());
        }
    }
}

/// Ten generations, three pages of a hundred each: what is stored grows by the pages, and a generation is not in more and
/// more pieces.
#[test]
fn many_generations_hold_no_more_than_twice_what_they_need() {
    const SMALL: usize = 16_000_000;
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large");
    fs::write(&large, noise(1, SMALL)).unwrap();
    let depot = depot();
    let mut saved = depot.save(dir.path());
    let first = figure(&saved, "bytes_new_plain");
    let whole = leaves(&depot, &saved).len();
    let mut grown = 0;
    for generation in 1..=10_u64 {
        let mut dice = generation;
        let mut page = || {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) as usize % (SMALL / PAGE)
        };
        let pages: BTreeSet<usize> = (0..SMALL / PAGE * 3 / 100).map(|_| page()).collect();
        let count = overwrite(&large, pages, generation);
        saved = depot.save_after(dir.path(), Some(&saved));
        let new = figure(&saved, "bytes_new_plain") as usize;
        grown += new;
        assert!(new < count * PAGE * 5 / 2, "generation {generation}: {new} bytes for {count} pages");
    }
    assert!((grown as u64) < first, "{grown} bytes after {first}: a chunk each time would be twice as much");
    let now = leaves(&depot, &saved);
    assert!(now.len() < 5 * whole, "{} leaves, {whole} once", now.len());
    // Of each chunk that is in parts at least half is used.
    let reader = depot.repo.reader(ReaderOptions::default()).unwrap();
    let mut used: BTreeMap<ChunkId, u64> = BTreeMap::new();
    for leaf in now.iter().filter(|leaf| leaf.part_of.is_some()) {
        *used.entry(leaf.extent().chunk).or_default() += u64::from(leaf.length);
    }
    for (chunk, used) in used {
        let held = reader.locate(&chunk).unwrap().unwrap().plain;
        assert!(2 * used >= u64::from(held), "{used} of {held}");
    }
    assert_restored(&depot, &saved, dir.path());
    assert_sound(&depot);
}

/// One thing that happens to a file of some hundred kilobytes. Places are parts of its length.
#[derive(Clone, Debug)]
enum Act {
    Page(u16, u64),
    Byte(u16),
    Run(u16, u16, u64),
    Insert(u16, u16, u64),
    Remove(u16, u16),
    Append(u32, u64),
    Truncate(u16),
    Hole(u16, u16),
    Back(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (any::<u16>(), any::<u64>()).prop_map(|(at, seed)| Act::Page(at, seed)),
        4 => any::<u16>().prop_map(Act::Byte),
        2 => (any::<u16>(), any::<u16>(), any::<u64>()).prop_map(|(at, length, seed)| Act::Run(at, length, seed)),
        1 => (any::<u16>(), 1..5_000u16, any::<u64>()).prop_map(|(at, length, seed)| Act::Insert(at, length, seed)),
        1 => (any::<u16>(), 1..5_000u16).prop_map(|(at, length)| Act::Remove(at, length)),
        1 => (1..200_000u32, any::<u64>()).prop_map(|(length, seed)| Act::Append(length, seed)),
        1 => (40_000..65_535u16).prop_map(Act::Truncate),
        1 => (any::<u16>(), 1..40u16).prop_map(|(at, length)| Act::Hole(at, length)),
        2 => any::<u16>().prop_map(Act::Back),
    ]
}

fn happen(path: &Path, act: &Act, first: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let place = |at: u16| bytes.len() * usize::from(at) / 65_536;
    let write = |at: usize, new: &[u8]| {
        let end = bytes.len().min(at + new.len());
        file.write_all_at(&new[..end - at], at as u64).unwrap();
    };
    match *act {
        Act::Page(at, seed) => write(place(at) / PAGE * PAGE, &noise(seed, PAGE)),
        Act::Byte(at) => write(place(at), &[0xa5]),
        Act::Run(at, length, seed) => write(place(at), &noise(seed, usize::from(length))),
        Act::Insert(at, length, seed) => {
            let at = place(at);
            bytes.splice(at..at, noise(seed, usize::from(length)));
            fs::write(path, bytes).unwrap();
        }
        Act::Remove(at, length) => {
            let at = place(at);
            bytes.drain(at..(at + usize::from(length)).min(bytes.len()));
            fs::write(path, bytes).unwrap();
        }
        Act::Append(length, seed) => {
            file.write_all_at(&noise(seed, length as usize), bytes.len() as u64).unwrap();
        }
        Act::Truncate(to) => file.set_len(place(to) as u64).unwrap(),
        Act::Hole(at, blocks) => {
            use rustix::fs::{FallocateFlags, fallocate};
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let at = (place(at) / 4_096 * 4_096) as u64;
            fallocate(&file, flags, at, u64::from(blocks) * 4_096).unwrap();
        }
        // What was there at the beginning.
        Act::Back(at) => {
            let at = place(at) / PAGE * PAGE;
            write(at, first.get(at..(at + PAGE).min(first.len())).unwrap_or_default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_overwritten_comes_back_as_it_was(
        length in 600_000..1_500_000usize,
        rounds in prop::collection::vec((prop::collection::vec(act(), 0..12), any::<u8>()), 2..9),
        steps in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        let path = from.join("file");
        // Noise, or text whose chunks are long.
        let first = if steps { (0..length).map(|at| (at / 97 % 251) as u8).collect() } else { noise(1, length) };
        fs::write(&path, &first).unwrap();
        let depot = depot();
        let mut saved = vec![depot.save(&from)];
        for (acts, upon) in &rounds {
            acts.iter().for_each(|act| happen(&path, act, &first));
            // Upon the last one, mostly; sometimes upon an older one.
            let upon = if *upon < 200 { saved.len() - 1 } else { usize::from(*upon) % saved.len() };
            let next = depot.save_after(&from, Some(&saved[upon]));
            prop_assert_eq!(codes(&next.findings), []);
            depot.load(&next, &to);
            assert_same(&from, &to);
            fs::remove_dir_all(&to).unwrap();
            saved.push(next);
        }
        assert_sound(&depot);
    }
}
