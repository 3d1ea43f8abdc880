//! What holds for the index wherever it is kept.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::run::PART;
use super::*;
use crate::crypto::Keys;
use crate::env::Env;
use crate::id::{INDEX, RepositoryId};
use crate::local::{Local, LocalOptions};
use crate::pack::PACK_BYTES_MAX;
use crate::store::mem::MemStore;
use crate::store::record::{Record, Verb};
use crate::store::{Put, Store};

fn keys() -> Keys {
    Keys::generate(&Env::fixed(1, 1)).unwrap()
}

/// A store, and a machine with a disk.
struct Depot {
    store: Arc<Record<MemStore>>,
    keys: Keys,
    disk: tempfile::TempDir,
}

/// Enough for anything here.
const MUCH: usize = 64 << 20;
/// So little that a few thousand chunks take several runs.
const LITTLE: usize = 1 << 20;

impl Depot {
    fn new() -> Depot {
        let store = Arc::new(Record::new(MemStore::new()));
        Depot { store, keys: keys(), disk: tempfile::tempdir().unwrap() }
    }

    fn options(&self, spot: Spot, memory_bytes: usize) -> LocalOptions {
        let path = |wanted| (spot == wanted).then(|| self.disk.path().to_path_buf());
        LocalOptions { cache: path(Spot::Cache), temporary: path(Spot::Temporary), memory_bytes }
    }

    /// As a process that just started would.
    fn open(&self, spot: Spot) -> Index {
        self.open_in(spot, MUCH)
    }

    fn open_in(&self, spot: Spot, memory: usize) -> Index {
        Index::open(&self.source(spot, memory), false).unwrap()
    }

    fn source(&self, spot: Spot, memory: usize) -> Source {
        let local = Arc::new(Local::new(&self.options(spot, memory), RepositoryId::ZERO));
        Source { store: self.store.clone(), keys: self.keys.clone(), local, fetchers: 8 }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.disk.path().join(RepositoryId::ZERO.to_string()).join(PART)
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let Ok(listed) = std::fs::read_dir(self.folder()) else { return Vec::new() };
        let mut files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// How many segments were fetched since this was last asked.
    fn fetched(&self) -> usize {
        let count = self.store.count(Verb::Get, INDEX);
        self.store.clear();
        count
    }

    fn put(&self, mut segment: Segment) -> SegmentId {
        let body = segment.encode().unwrap();
        self.put_body(&body)
    }

    fn put_body(&self, body: &[u8]) -> SegmentId {
        let bytes = self.keys.seal_segment(body, &Env::real()).unwrap();
        let name = SegmentId(*blake3::hash(&bytes).as_bytes());
        assert_eq!(self.store.put(&name.key(), bytes.into()).unwrap(), Put::Created);
        name
    }

    fn tamper(&self, key: &str, content: Option<Bytes>) {
        self.store.inner().tamper(key, content);
    }
}

const SPOTS: [Spot; 3] = [Spot::Cache, Spot::Temporary, Spot::Memory];

fn id(number: u64) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn pack_id(number: u64) -> PackId {
    PackId(*blake3::hash(&(number << 32).to_le_bytes()).as_bytes())
}

/// A segment of one pack that holds these chunks, 100 bytes each.
fn segment(pack: u64, chunks: impl IntoIterator<Item = u64>) -> Segment {
    let mut segment = Segment::default();
    for (at, number) in chunks.into_iter().enumerate() {
        let offset = 48 + at as u32 * 117;
        segment.chunks.push(SegmentChunk { id: id(number), pack: 0, offset, sealed: 117, plain: 100 });
    }
    segment.packs.push((pack_id(pack), 48 + 117 * segment.chunks.len() as u32 + 100));
    segment
}

fn lookup(index: &Index, number: u64) -> Vec<(PackId, u32)> {
    index.places(&id(number)).unwrap().iter().map(|(_, place)| (place.pack, place.offset)).collect()
}

/// Where each chunk is: pack and offset.
type Truth = BTreeMap<Key, Vec<(PackId, u32)>>;
/// What each segment says.
type Listed = BTreeMap<SegmentId, Vec<(Key, (PackId, u32))>>;

/// What the index says of every chunk, gathered the other ways round.
fn walked(index: &Index) -> Truth {
    let mut by_place: Truth = BTreeMap::new();
    let mut next = 0;
    index
        .each_place(&mut |at, place| {
            assert_eq!(at, next, "positions have no gaps");
            next += 1;
            let location = index.location(place);
            by_place.entry(place.key).or_default().push((location.pack, location.offset));
            Ok(())
        })
        .unwrap();
    assert_eq!(next, index.chunk_count());
    let (mut by_chunk, mut last) = (BTreeMap::new(), None);
    index
        .each_chunk(&mut |places| {
            let key = places[0].1.key;
            assert!(last < Some(key), "each chunk once, ascending");
            last = Some(key);
            let named = |(at, place): &(usize, Place)| {
                assert!(place.key == key && *at < next);
                let location = index.location(place);
                (location.pack, location.offset)
            };
            by_chunk.insert(key, places.iter().map(named).collect::<Vec<_>>());
            Ok(())
        })
        .unwrap();
    for places in by_place.values_mut().chain(by_chunk.values_mut()) {
        places.sort();
    }
    assert_eq!(by_place, by_chunk);
    by_chunk
}

#[test]
fn every_chunk_of_every_segment_is_found_where_it_is_and_no_other() {
    for (spot, memory) in SPOTS.into_iter().flat_map(|spot| [(spot, MUCH), (spot, LITTLE)]) {
        for count in [0_u64, 1, 144, 145, 146, 300, 20_000] {
            let depot = Depot::new();
            let mut model = BTreeMap::new();
            for part in 0..7 {
                let chunks: Vec<u64> = (0..count).filter(|number| number % 7 == part).collect();
                for (at, number) in chunks.iter().enumerate() {
                    model.insert(*number, (pack_id(part), 48 + at as u32 * 117));
                }
                if !chunks.is_empty() {
                    depot.put(segment(part, chunks));
                }
            }
            let index = depot.open_in(spot, memory);
            assert_eq!(index.chunk_count() as u64, count);
            for (number, place) in &model {
                assert_eq!(lookup(&index, *number), [*place], "{number} of {count}");
            }
            for number in count..count + 500 {
                assert_eq!(lookup(&index, number), []);
                assert_eq!(index.pack_with(&id(number)).unwrap(), None);
            }
            let expected: BTreeMap<_, _> =
                model.iter().map(|(number, place)| (key_of(&id(*number)), vec![*place])).collect();
            assert_eq!(walked(&index), expected);
            for number in 0..index.pack_count() as u32 {
                let (id, _) = index.pack(number).unwrap();
                assert_eq!(index.number_of(&id), Some(number));
            }
        }
    }
}

#[test]
fn chunks_whose_ids_begin_alike_are_told_apart() {
    // No hash makes these; a run must not depend on that.
    let alike = |number: u64| {
        let mut id = [7; 32];
        id[8..16].copy_from_slice(&number.to_be_bytes());
        ChunkId(id)
    };
    let depot = Depot::new();
    let mut many = segment(1, []);
    for number in 0..1_000 {
        let offset = 48 + number as u32 * 117;
        many.chunks.push(SegmentChunk { id: alike(2 * number), pack: 0, offset, sealed: 117, plain: 100 });
    }
    many.packs[0].1 = 200_000;
    depot.put(many);
    let index = depot.open(Spot::Memory);
    for number in 0..2_000 {
        let found = index.places(&alike(number)).unwrap();
        let expected = (number % 2 == 0).then(|| 48 + number as u32 / 2 * 117);
        assert_eq!(found.iter().map(|(_, place)| place.offset).collect::<Vec<_>>(), Vec::from_iter(expected));
    }
}

#[test]
fn the_extremes_of_a_place_survive_packing() {
    let depot = Depot::new();
    let end = PACK_BYTES_MAX as u32;
    let mut wide = Segment { packs: vec![(pack_id(1), end)], chunks: Vec::new() };
    for (number, offset, sealed, plain) in [
        (1, 48, 18, 1),
        (2, 48, 262_161, 262_144),
        (3, end - 262_161, 262_161, 262_144),
        (4, end - 18, 18, 262_144),
    ] {
        wide.chunks.push(SegmentChunk { id: id(number), pack: 0, offset, sealed, plain });
    }
    let chunks = wide.chunks.clone();
    depot.put(wide);
    let index = depot.open(Spot::Cache);
    for chunk in chunks {
        let places: Vec<_> = index.places(&chunk.id).unwrap().iter().map(|(_, place)| *place).collect();
        let SegmentChunk { offset, sealed, plain, .. } = chunk;
        assert_eq!(places, [Location { pack: pack_id(1), offset, sealed, plain }]);
    }
}

#[test]
fn a_chunk_written_twice_at_once_keeps_both_places() {
    for spot in SPOTS {
        let depot = Depot::new();
        depot.put(segment(1, [5, 6]));
        depot.put(segment(2, [6, 7]));
        let before = depot.open(spot);
        assert_eq!((before.pack_count(), before.chunk_count()), (2, 4));
        // The same pack listed once more, as a rebuilt index would; it comes while the others are known.
        depot.put(segment(1, [5, 6]));
        let index = depot.open(spot);
        assert_eq!((index.pack_count(), index.chunk_count(), index.segment_count()), (2, 4, 3));
        let mut places = lookup(&index, 6);
        places.sort();
        let mut expected = vec![(pack_id(1), 48 + 117), (pack_id(2), 48)];
        expected.sort();
        assert_eq!(places, expected);
    }
}

#[test]
fn segments_that_differ_on_the_size_of_a_pack_are_both_heard() {
    let depot = Depot::new();
    depot.put(segment(1, [1, 2]));
    let mut lie = segment(1, [3]);
    lie.packs[0].1 += 40;
    depot.put(lie);
    let honest = segment(1, [1, 2]).packs[0].1 as usize;
    depot.store.put(&pack_id(1).key(), vec![0; honest].into()).unwrap();
    let mut index = depot.open(Spot::Memory);
    assert_eq!(index.numbers_of(&pack_id(1)).count(), 2);
    index.look_for_packs(&depot.store, &HashSet::new(), None, false).unwrap();
    let present = |number| index.pack_with(&id(number)).unwrap().is_some();
    assert_eq!((present(1), present(2), present(3)), (true, true, false));
}

#[test]
fn a_damaged_segment_costs_what_only_it_names() {
    for spot in SPOTS {
        let depot = Depot::new();
        depot.put(segment(1, [1, 2]));
        let name = depot.put(segment(2, [2, 3]));
        let whole = depot.store.get(&name.key()).unwrap();
        for at in [0, 9, 45, whole.len() - 1] {
            let mut changed = whole.to_vec();
            changed[at] ^= 4;
            depot.tamper(&name.key(), Some(changed.into()));
            let index = depot.open(spot);
            assert_eq!((index.damaged(), index.findings().len()), (&[name][..], 1), "byte {at}");
            assert_eq!(index.findings()[0].what, name.key());
            assert_eq!(
                (lookup(&index, 1).len(), lookup(&index, 2).len(), lookup(&index, 3).len()),
                (1, 1, 0)
            );
        }
        // Well sealed and wrongly said is damage, too: half of it must not stay.
        depot.tamper(&name.key(), None);
        let mut body = segment(2, [8, 9]).encode().unwrap();
        let last = body.len() - 4;
        body[last..].copy_from_slice(&u32::MAX.to_le_bytes());
        let name = depot.put_body(&body);
        let index = depot.open(spot);
        assert_eq!((index.damaged(), index.pack_count(), index.chunk_count()), (&[name][..], 1, 2));
    }
}

#[test]
fn a_segment_damaged_after_it_was_cached_is_missed_by_who_reads_all_of_them() {
    let depot = Depot::new();
    let name = depot.put(segment(1, [1, 2]));
    depot.open(Spot::Cache);
    depot.tamper(&name.key(), Some(vec![0; 500].into()));
    let index = depot.open(Spot::Cache);
    assert_eq!((lookup(&index, 1).len(), index.findings()), (1, &[][..]));
    let verified = Index::open(&depot.source(Spot::Cache, MUCH), true).unwrap();
    assert_eq!((lookup(&verified, 1).len(), verified.damaged()), (0, &[name][..]));
    assert_eq!(lookup(&index, 1).len(), 1, "who had it open goes on");
}

#[test]
fn r3_a_pack_that_is_gone_or_cut_is_not_relied_on() {
    let depot = Depot::new();
    depot.put(segment(1, [1, 2]));
    depot.put(segment(2, [2, 3]));
    depot.put(segment(3, [4]));
    let store = &depot.store;
    let size = |number: u64| segment(number, [0, 0]).packs[0].1 as usize;
    store.put(&pack_id(1).key(), vec![0; size(1)].into()).unwrap();
    store.put(&pack_id(3).key(), vec![0; 9].into()).unwrap();
    let mut index = depot.open(Spot::Cache);
    index.look_for_packs(store, &HashSet::new(), None, false).unwrap();
    let present: Vec<_> = (1..=4).map(|number| index.pack_with(&id(number)).unwrap().is_some()).collect();
    assert_eq!(present, [true, true, false, false], "2 is in another pack as well");
    assert_eq!(index.findings().len(), 2);
    // Where a collection cannot remove what names them, one that is gone is no news; one that is cut is.
    let mut locked = depot.open(Spot::Cache);
    locked.look_for_packs(store, &HashSet::new(), None, true).unwrap();
    assert_eq!(
        locked.findings().iter().map(|one| one.code).collect::<Vec<_>>(),
        ["pack-missing", "packs-gone"]
    );

    let touched = PackSet::of(&index);
    touched.insert(index.pack_with(&id(1)).unwrap().unwrap());
    check_packs(store, &index, &touched, &[]).unwrap();
    depot.tamper(&pack_id(1).key(), None);
    let gone = check_packs(store, &index, &touched, &[]).unwrap_err();
    assert!(gone.is_damage() && gone.to_string().contains(&pack_id(1).key()), "{gone}");
    depot.tamper(&pack_id(1).key(), Some(vec![0; 7].into()));
    assert!(check_packs(store, &index, &touched, &[]).unwrap_err().is_damage());
}

#[test]
fn opening_again_fetches_only_what_is_new() {
    let depot = Depot::new();
    for part in 0..20 {
        depot.put(segment(part, 100 * part..100 * part + 100));
    }
    assert_eq!((depot.open(Spot::Cache).chunk_count(), depot.fetched()), (2_000, 20));
    assert_eq!((depot.open(Spot::Cache).chunk_count(), depot.fetched()), (2_000, 0));
    depot.put(segment(77, [77_000]));
    assert_eq!((depot.open(Spot::Cache).chunk_count(), depot.fetched()), (2_001, 1));
    assert_eq!((depot.open(Spot::Cache).chunk_count(), depot.fetched()), (2_001, 0));
    assert_eq!(depot.files().len(), 1, "small runs are merged");

    // Without a cache, as long as somebody has it open.
    let source = depot.source(Spot::Memory, MUCH);
    let first = Index::open(&source, false).unwrap();
    assert_eq!(depot.fetched(), 21);
    let second = Index::open(&source, false).unwrap();
    assert_eq!((depot.fetched(), second.chunk_count()), (0, first.chunk_count()));
    drop((first, second));
    Index::open(&source, false).unwrap();
    assert_eq!(depot.fetched(), 21);
}

#[test]
fn runs_stay_few_and_lines_are_not_written_again_for_every_segment() {
    let depot = Depot::new();
    // As after each of 40 backups; only the first is large.
    depot.put(segment(1_000, 0..200_000));
    let large = |depot: &Depot| {
        let size = |path: &std::path::PathBuf| std::fs::metadata(path).unwrap().len();
        depot.files().into_iter().max_by_key(size)
    };
    depot.open(Spot::Cache);
    let first = large(&depot);
    for part in 0..40 {
        depot.put(segment(part, 1_000_000 + 500 * part..1_000_000 + 500 * part + 500));
        depot.open(Spot::Cache);
        assert!(depot.files().len() <= 2, "{:?}", depot.files());
        assert_eq!(large(&depot), first, "a large run is left alone while the new ones are small beside it");
    }
    let index = depot.open(Spot::Cache);
    assert_eq!((index.chunk_count(), depot.fetched()), (220_000, 41));
}

#[test]
fn a_segment_that_is_deleted_takes_what_only_it_named_along() {
    for spot in SPOTS {
        let depot = Depot::new();
        let gone = depot.put(segment(1, [1, 2]));
        depot.put(segment(2, [2, 3]));
        let before = depot.open(spot);
        depot.store.delete(&gone.key()).unwrap();
        // As a collector leaves it: what is kept of the pack is named by another segment.
        depot.put(segment(4, [1]));
        let index = depot.open(spot);
        assert_eq!(lookup(&index, 1), [(pack_id(4), 48)]);
        assert_eq!(lookup(&index, 2), [(pack_id(2), 48)]);
        assert_eq!(index.pack_count(), 2);
        assert_eq!(lookup(&before, 1), [(pack_id(1), 48)], "who had it open goes on with what was");
    }
}

#[test]
fn the_cache_is_for_its_owner_and_tells_a_thief_nothing() {
    let depot = Depot::new();
    let name = depot.put(segment(1, 0..1_000));
    depot.open(Spot::Cache);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = depot.folder();
    assert_eq!((mode(&folder), mode(folder.parent().unwrap())), (0o700, 0o700));
    let [file] = depot.files().try_into().unwrap();
    assert_eq!(mode(&file), 0o600);
    let bytes = std::fs::read(&file).unwrap();
    let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    assert!(!holds(&pack_id(1).0[..8]) && !holds(&name.0[..8]));
    for number in 0..1_000 {
        let (high, _) = key_of(&id(number));
        assert!(!holds(&high.to_le_bytes()) && !holds(&high.to_be_bytes()));
    }
    // And its keys are those of the repository.
    let other = Keys::generate(&Env::fixed(1, 2)).unwrap();
    let local = depot.source(Spot::Cache, MUCH).local;
    assert!(Run::open(&local, &depot.keys, &file).is_some());
    assert!(Run::open(&local, &other, &file).is_none());
}

#[test]
fn a_cache_that_cannot_be_made_or_written_is_done_without() {
    let depot = Depot::new();
    depot.put(segment(1, [1]));
    // A file where a directory should be: root is refused nothing else.
    std::fs::write(depot.disk.path().join(RepositoryId::ZERO.to_string()), "").unwrap();
    assert_eq!(lookup(&depot.open(Spot::Cache), 1).len(), 1);
    let mut options = depot.options(Spot::Cache, MUCH);
    options.temporary = Some(depot.disk.path().join("not there"));
    let source = depot.source(Spot::Cache, MUCH);
    let local = Arc::new(Local::new(&options, RepositoryId::ZERO));
    assert_eq!(lookup(&Index::open(&Source { local, ..source }, false).unwrap(), 1).len(), 1);
}

#[test]
fn what_a_crash_left_half_written_is_removed_and_what_is_being_written_stays() {
    let depot = Depot::new();
    depot.put(segment(1, [1]));
    let source = depot.source(Spot::Cache, MUCH);
    let writing = source.local.scratch(Spot::Cache, PART).unwrap();
    std::fs::write(depot.folder().join("tmp-0123"), "half").unwrap();
    depot.open(Spot::Cache);
    let names: Vec<_> =
        depot.files().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("tmp-")).count(), 1, "{names:?}");
    assert!(!names.contains(&"tmp-0123".to_owned()));
    drop(writing);
    assert_eq!(depot.files().len(), 1);
}

/// What can befall a file of the cache.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip(prop::sample::Index),
    Zeros(prop::sample::Index),
    Cut(prop::sample::Index),
    Grow,
    Empty,
    Remove,
    /// Another file's content under this name.
    Swap,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Harm::Flip),
        any::<prop::sample::Index>().prop_map(Harm::Zeros),
        any::<prop::sample::Index>().prop_map(Harm::Cut),
        Just(Harm::Grow),
        Just(Harm::Empty),
        Just(Harm::Remove),
        Just(Harm::Swap),
    ]
}

fn befall(files: &[std::path::PathBuf], which: prop::sample::Index, harm: Harm) {
    if files.is_empty() {
        return;
    }
    let path = which.get(files);
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match harm {
        Harm::Flip(at) => bytes[at.index(length)] ^= 0x10,
        Harm::Zeros(at) => {
            let at = at.index(length);
            bytes[at..length.min(at + 5_000)].fill(0);
        }
        Harm::Cut(at) => bytes.truncate(at.index(length)),
        Harm::Grow => bytes.extend([1; 4_096]),
        Harm::Empty => bytes.clear(),
        Harm::Remove => return std::fs::remove_file(path).unwrap(),
        Harm::Swap => bytes = std::fs::read(&files[(which.index(files.len()) + 1) % files.len()]).unwrap(),
    }
    // In place: whoever has the file open sees it.
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Put(u64, u64),
    Delete(prop::sample::Index),
    Open,
    Harm(prop::sample::Index, Harm),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..300, 1_u64..700).prop_map(|(from, count)| Step::Put(from, count)),
        1 => any::<prop::sample::Index>().prop_map(Step::Delete),
        3 => Just(Step::Open),
        3 => (any::<prop::sample::Index>(), harm()).prop_map(|(which, harm)| Step::Harm(which, harm)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Segments come and go, the cache is damaged in every way at every moment, also under those who have
    /// it open: each index keeps saying exactly what the segments said when it was opened.
    #[test]
    fn r6_a_cache_costs_time_and_never_the_truth(steps in proptest::collection::vec(step(), 1..30), little: bool) {
        let depot = Depot::new();
        let mut segments: Listed = BTreeMap::new();
        let mut opened: Vec<(Index, Truth)> = Vec::new();
        let memory = if little { LITTLE } else { MUCH };
        let truth = |segments: &Listed| {
            let mut truth: Truth = BTreeMap::new();
            for (key, place) in segments.values().flatten() {
                truth.entry(*key).or_default().push(*place);
            }
            for places in truth.values_mut() {
                places.sort();
            }
            truth
        };
        for (number, step) in steps.into_iter().chain([Step::Open]).enumerate() {
            match step {
                Step::Put(from, count) => {
                    let pack = number as u64;
                    let segment = segment(pack, from..from + count);
                    let places = segment.chunks.iter().map(|chunk| (key_of(&chunk.id), (pack_id(pack), chunk.offset)));
                    let places = places.collect();
                    segments.insert(depot.put(segment), places);
                }
                Step::Delete(which) => {
                    // Those who have it open may need it once more to heal; only a collector's grace gives
                    // them that, so here they leave first.
                    opened.clear();
                    if let Some(name) = (!segments.is_empty()).then(|| *which.get(&Vec::from_iter(segments.keys()))).copied() {
                        depot.store.delete(&name.key()).unwrap();
                        segments.remove(&name);
                    }
                }
                Step::Open => opened.push((depot.open_in(Spot::Cache, memory), truth(&segments))),
                Step::Harm(which, harm) => befall(&depot.files(), which, harm),
            }
            for (index, truth) in &opened {
                prop_assert_eq!(index.findings().len(), 0);
                for number in (0..1_000).step_by(61) {
                    let mut found = lookup(index, number);
                    found.sort();
                    prop_assert_eq!(found, truth.get(&key_of(&id(number))).cloned().unwrap_or_default());
                }
                prop_assert_eq!(&walked(index), truth);
            }
        }
    }
}

#[test]
fn many_processes_share_a_cache() {
    let depot = Depot::new();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..15 {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    depot.put(segment(number, 50 * number..50 * number + 50));
                    let index = depot.open(Spot::Cache);
                    // Its own, and all that were there before it.
                    assert!(index.chunk_count() >= 50 && index.findings().is_empty());
                    assert_eq!(lookup(&index, 50 * number + 7), [(pack_id(number), 48 + 7 * 117)]);
                }
            });
        }
    });
    let index = depot.open(Spot::Cache);
    assert_eq!(walked(&index).len(), 50 * 90);
    depot.open(Spot::Cache);
    assert_eq!(depot.files().len(), 1, "what stood side by side is one again");
}

proptest! {
    #[test]
    fn hostile_bodies_are_refused_or_sound(mut body in proptest::collection::vec(any::<u8>(), 0..300), small: bool) {
        if small && body.len() >= 8 {
            body[..8].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
            body.resize(8 + 36 + 96, 0);
        }
        if let Ok(mut segment) = Segment::decode(&body) {
            prop_assert_eq!(segment.encode().unwrap(), body);
        }
    }

    #[test]
    fn a_changed_body_is_refused_or_is_another_segment_exactly(at: prop::sample::Index, with in 1_u8..) {
        let mut body = segment(1, 0..5).encode().unwrap();
        let at = at.index(body.len());
        body[at] ^= with;
        if let Ok(mut changed) = Segment::decode(&body) {
            prop_assert_eq!(changed.encode().unwrap(), body);
        }
    }
}
