//! Repair: what it puts right, what it leaves, and that nothing is lost by it, however it ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use repo::check::CheckReport;
use repo::repair::{PlanReport, RepairOptions, Repaired, plan};
use repo::store::faulty::{Faults, Faulty};
use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::{Env, Error, InitOptions, Kdf, Lane, Passphrase, Repository, Severity, WriterOptions};

use crate::fixture::{Fixture, NOW, READ, noise, open, stream, write_all_again};
use crate::{Restored, flip, restore, run_check, said};

fn options(read_data: bool) -> RepairOptions {
    RepairOptions { read_data, ..RepairOptions::default() }
}

fn repair(repo: &Repository, read_data: bool) -> Result<(PlanReport, Repaired), Error> {
    let plan = plan(repo, &options(read_data), &())?;
    let report = plan.report().clone();
    Ok((report, plan.execute(&())?))
}

/// What cannot be restored of each point.
fn lost(fixture: &Fixture, store: &MemStore) -> Vec<Restored> {
    let repo = open(store).unwrap();
    fixture.points.iter().map(|(id, expected)| restore(&repo, id, expected)).collect()
}

fn nothing() -> Restored {
    Restored::But(BTreeSet::new())
}

/// Whether all that `before` still gave, `after` gives too.
fn no_less(before: &[Restored], after: &[Restored]) -> bool {
    before.iter().zip(after).all(|(before, after)| match (before, after) {
        (Restored::Nothing, _) => true,
        (Restored::But(_), Restored::Nothing) => false,
        (Restored::But(before), Restored::But(after)) => after.is_subset(before),
    })
}

fn codes(report: &CheckReport) -> BTreeSet<&str> {
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.code).collect()
}

/// Objects with their new bytes; `None`: gone.
pub(crate) type Changes = Vec<(String, Option<Bytes>)>;

/// Every kind of object × every kind of damage.
fn damages(fixture: &Fixture) -> Vec<(String, Changes)> {
    let mut damages: Vec<(String, Changes)> = Vec::new();
    for folder in ["packs/", "index/", "commits/"] {
        let keys = fixture.keys(folder);
        for key in &keys {
            let bytes = &fixture.objects[key];
            let mut one = |what: &str, content: Option<Bytes>| {
                damages.push((format!("{key} {what}"), vec![(key.clone(), content)]));
            };
            for at in [20, bytes.len() / 2, bytes.len() - 30] {
                one(&format!("flipped at {at}"), flip(bytes, at));
            }
            for length in [60, bytes.len() / 2, bytes.len() - 1] {
                one(&format!("cut to {length}"), Some(bytes.slice(..length)));
            }
            one("deleted", None);
        }
        for pair in keys.windows(2) {
            let [a, b] = pair else { continue };
            let get = |key: &String| Some(fixture.objects[key].clone());
            damages.push((format!("{a} and {b} swapped"), vec![(a.clone(), get(b)), (b.clone(), get(a))]));
        }
    }
    damages
}

#[test]
fn after_a_repair_a_check_is_clean_or_names_exactly_what_is_lost() {
    let fixture = Fixture::new();
    let mut healed = 0;
    for (story, changes) in damages(&fixture) {
        let store = fixture.damaged(&changes);
        let before = lost(&fixture, &store);
        let objects = store.snapshot();
        let (planned, done) = repair(&open(&store).unwrap(), true).unwrap();

        // Packs and commits stay as they are, every one of them.
        for (key, bytes) in &objects {
            if !key.starts_with("index/") {
                assert_eq!(store.snapshot().get(key), Some(bytes), "{story}: {key}");
            }
        }
        let after = lost(&fixture, &store);
        assert!(no_less(&before, &after), "{story}: {before:?} {after:?}");
        let gone = |id: &repo::CommitId| changes.iter().any(|(key, new)| *key == id.key() && new.is_none());
        let repo = open(&store).unwrap();
        let report = run_check(&repo, true);
        for (number, (id, expected)) in fixture.points.iter().enumerate() {
            if !gone(id) {
                assert_eq!(said(&report, id, expected), after[number], "{story}, point {number}");
            }
        }
        assert_eq!(report.points, done.after.points, "{story}: the repair tells what is beyond it");
        assert!(
            codes(&report).is_subset(&BTreeSet::from(["index-incomplete", "commit-damaged"])),
            "{story}: {:#?}",
            report.findings
        );
        // What is still an error is a loss, and no loss is less.
        let whole = fixture.points.iter().zip(&after).all(|((id, _), lost)| gone(id) || *lost == nothing());
        assert_eq!(report.is_damaged(), !whole, "{story}: {:#?}", report.findings);
        healed += usize::from(before != after);

        // An index can always be made again.
        if changes.iter().all(|(key, _)| key.starts_with("index/")) {
            assert!(whole && done.packs_named > 0, "{story}");
        }
        // A second repair has nothing to do.
        let again = plan(&repo, &options(true), &()).unwrap();
        assert!(again.report().is_empty(), "{story}: {:#?}", again.report());

        // The same content backed up again in full heals every point that lacks it.
        write_all_again(&repo);
        let report = run_check(&repo, true);
        for (number, (id, expected)) in fixture.points.iter().enumerate() {
            let commit = changes.iter().any(|(key, _)| *key == id.key());
            if !commit {
                assert_eq!(
                    restore(&repo, id, expected),
                    nothing(),
                    "{story}, point {number}, backed up again"
                );
            }
        }
        assert!(
            codes(&report).is_subset(&BTreeSet::from(["commit-damaged"])),
            "{story}: {:#?}",
            report.findings
        );
        let _ = planned;
    }
    assert!(healed > 10, "{healed} cases gained something by the repair alone");
}

#[test]
fn a_repair_without_reading_puts_right_what_the_listing_tells() {
    let fixture = Fixture::new();
    for (story, changes) in damages(&fixture) {
        let [(key, content)] = changes.as_slice() else { continue };
        let same_size = content.as_ref().is_some_and(|new| new.len() == fixture.objects[key].len());
        if key.starts_with("packs/") && same_size || key.starts_with("commits/") {
            continue;
        }
        let store = fixture.damaged(&changes);
        let before = lost(&fixture, &store);
        let (_, done) = repair(&open(&store).unwrap(), false).unwrap();
        let after = lost(&fixture, &store);
        assert!(no_less(&before, &after), "{story}");
        let report = run_check(&open(&store).unwrap(), true);
        assert!(
            codes(&report).is_subset(&BTreeSet::from(["index-incomplete"])),
            "{story}: {:#?}",
            report.findings
        );
        assert_eq!(report.points, done.after.points, "{story}");
    }
}

#[test]
fn a_plan_changes_nothing_and_says_what_would_be_done() {
    let fixture = Fixture::new();
    let (pack, chunks) = fixture.packs(Lane::Data).remove(0);
    let store = fixture.damaged(&[(pack.clone(), flip(&fixture.objects[&pack], 100))]);
    let before = store.snapshot();
    let look = RepairOptions { plan_only: true, ..options(true) };
    let planned = plan(&open(&store).unwrap(), &look, &()).unwrap();
    let report = planned.report();
    assert!(store.snapshot() == before, "a plan puts nothing");
    let [one] = report.packs.as_slice() else { panic!("{report:#?}") };
    assert_eq!((one.pack.key(), one.chunks_saved, one.chunks_unreadable), (pack, chunks.len() as u64 - 1, 1));
    assert_eq!(
        (report.segments_to_replace.len(), report.segments_to_drop.len(), report.packs_to_name),
        (1, 0, 0)
    );
    assert!(!report.points.is_empty() && !report.findings.is_empty());
    // Nothing wrong, nothing to do.
    let planned = plan(&open(&fixture.damaged(&[])).unwrap(), &options(true), &()).unwrap();
    assert!(planned.report().is_empty() && planned.report().findings.is_empty(), "{:#?}", planned.report());
}

#[test]
fn a_pack_that_comes_back_is_named_again() {
    let fixture = Fixture::new();
    let (pack, _) = fixture.packs(Lane::Data).remove(0);
    let store = fixture.damaged(&[(pack.clone(), None)]);
    repair(&open(&store).unwrap(), false).unwrap();
    assert!(lost(&fixture, &store) != vec![nothing(); 4]);
    store.tamper(&pack, Some(fixture.objects[&pack].clone()));
    let (_, done) = repair(&open(&store).unwrap(), false).unwrap();
    assert_eq!((done.packs_named, done.after.is_damaged()), (1, false));
    assert_eq!(lost(&fixture, &store), vec![nothing(); 4]);
}

/// All of the index is lost, and one pack is damaged besides: its own directory tells what can be saved.
#[test]
fn an_index_lost_whole_is_made_again_around_a_damaged_pack() {
    let fixture = Fixture::new();
    let (pack, chunks) = fixture.packs(Lane::Data).remove(0);
    let mut changes: Changes = fixture.keys("index/").into_iter().map(|key| (key, None)).collect();
    changes.push((pack.clone(), flip(&fixture.objects[&pack], 100)));
    let store = fixture.damaged(&changes);
    let (planned, done) = repair(&open(&store).unwrap(), false).unwrap();
    assert_eq!(planned.packs.len(), 1, "{planned:#?}");
    assert_eq!(done.chunks_saved, chunks.len() as u64 - 1);
    let only_pack = lost(&fixture, &fixture.damaged(&changes[changes.len() - 1..]));
    assert_eq!(lost(&fixture, &store), only_pack, "no more is lost than the one chunk costs");
    // The same, and its directory is gone, too: nothing tells where its chunks are, and the damaged segments stay.
    let bytes = &fixture.objects[&pack];
    let mut changes: Changes = fixture
        .keys("index/")
        .into_iter()
        .map(|key| (key.clone(), flip(&fixture.objects[&key], 99)))
        .collect();
    changes.push((pack, Some(bytes.slice(..bytes.len() - 1))));
    let store = fixture.damaged(&changes);
    let (_, done) = repair(&open(&store).unwrap(), false).unwrap();
    assert_eq!(done.segments_deleted, 0);
    assert!(done.findings.iter().any(|finding| finding.code == "segment-kept"), "{:#?}", done.findings);
}

/// R2: killed before, after or in the midst of any change it makes, a repair costs nothing, and the next completes.
#[test]
fn r2_a_repair_that_dies_at_any_change_costs_nothing_and_is_completed_by_the_next() {
    let fixture = Fixture::new();
    let (data, _) = fixture.packs(Lane::Data).remove(0);
    let (meta, _) = fixture.packs(Lane::Meta).remove(0);
    let segments = fixture.keys("index/");
    let cases: [(&str, Changes); 4] = [
        ("a flipped data pack", vec![(data.clone(), flip(&fixture.objects[&data], 100))]),
        ("a cut data pack", vec![(data.clone(), Some(fixture.objects[&data].slice(..500_000)))]),
        ("all segments", segments.iter().map(|key| (key.clone(), flip(&fixture.objects[key], 50))).collect()),
        (
            "a segment, a data pack and a meta pack that is gone",
            vec![
                (segments[0].clone(), flip(&fixture.objects[&segments[0]], 50)),
                (data.clone(), flip(&fixture.objects[&data], 100)),
                (meta, None),
            ],
        ),
    ];
    for (story, changes) in cases {
        let store = fixture.damaged(&changes);
        let before = lost(&fixture, &store);
        repair(&open(&store).unwrap(), true).unwrap();
        let best = lost(&fixture, &store);
        for die_after in 0..40 {
            let mut died = 0;
            for (die_landed, die_torn) in [(false, false), (true, false), (false, true)] {
                let faults =
                    Faults { die_after_changes: Some(die_after), die_landed, die_torn, ..Faults::default() };
                let store = Arc::new(Faulty::new(fixture.damaged(&changes), faults));
                let repo =
                    Repository::open(store.clone(), &Passphrase::new(READ), &Env::fixed(NOW, 3)).unwrap();
                died += usize::from(repair(&repo, true).is_err());
                let left = MemStore::from_snapshot(store.inner().snapshot());
                let now = lost(&fixture, &left);
                assert!(no_less(&before, &now), "{story}, change {die_after}: {before:?} {now:?}");
                repair(&open(&left).unwrap(), true).unwrap();
                assert_eq!(lost(&fixture, &left), best, "{story}, change {die_after}");
                let report = run_check(&open(&left).unwrap(), true);
                assert!(
                    codes(&report).is_subset(&BTreeSet::from(["index-incomplete"])),
                    "{:#?}",
                    report.findings
                );
            }
            if died == 0 {
                assert!(die_after >= 2, "{story}: it makes several changes");
                break;
            }
            assert!(die_after < 39, "{story}: it ends");
        }
    }
}

/// R3: a write that began before the repair and commits after it.
#[test]
fn r3_a_repair_beside_a_writer_costs_the_writer_nothing() {
    let fixture = Fixture::new();
    let (data, _) = fixture.packs(Lane::Data).remove(0);
    let segment = fixture.keys("index/").remove(0);
    for (story, changes) in [
        ("a segment", vec![(segment.clone(), flip(&fixture.objects[&segment], 50))]),
        ("a pack", vec![(data.clone(), flip(&fixture.objects[&data], 100))]),
        ("a pack cut", vec![(data.clone(), Some(fixture.objects[&data].slice(..500_000)))]),
    ] {
        let store = fixture.damaged(&changes);
        let repo = open(&store).unwrap();
        let writer = repo.writer(WriterOptions::default()).unwrap();
        // Content of its own, and content that it shares with points that lost nothing by the damage.
        let (new, shared) = (noise(4711, 900_000), noise(98, 400_000));
        let root = stream(&writer, &new);
        repair(&open(&store).unwrap(), true).unwrap();
        let root_shared = stream(&writer, &shared);
        let entry = |name: &str, root| repo::ManifestEntry {
            name: name.into(),
            kind: repo::EntryKind::Bytes,
            root,
            figures: Default::default(),
        };
        let manifest = vec![entry("new", root), entry("shared", root_shared)];
        let draft = repo::CommitDraft { kind: "volume".into(), manifest, ..Default::default() };
        let info = writer.commit(draft).unwrap();
        let reader = open(&store).unwrap().reader(Default::default()).unwrap();
        assert_eq!(reader.bytes(&root, 1 << 30).unwrap(), new, "{story}");
        if story != "a segment" || reader.bytes(&root_shared, 1 << 30).is_ok() {
            let report = run_check(&open(&store).unwrap(), true);
            assert!(!report.points.iter().any(|point| point.commit == info.id), "{story}: {report:#?}");
        }
    }
}

/// A store that refuses deletes (object lock, a role without the right): all is put right but for what stays.
#[test]
fn a_store_that_refuses_deletes_keeps_its_damaged_segments_and_loses_nothing() {
    let fixture = Fixture::new();
    let key = fixture.keys("index/").remove(0);
    let faults = Faults { denied: BTreeSet::from([repo::store::record::Verb::Delete]), ..Faults::default() };
    let store =
        Arc::new(Faulty::new(fixture.damaged(&[(key.clone(), flip(&fixture.objects[&key], 50))]), faults));
    let repo = Repository::open(store.clone(), &Passphrase::new(READ), &Env::fixed(NOW, 3)).unwrap();
    let (_, done) = repair(&repo, false).unwrap();
    assert!(done.findings.iter().any(|finding| finding.code == "segment-kept" && finding.what == key));
    assert_eq!(lost(&fixture, store.inner()), vec![nothing(); 4]);
    assert_eq!(codes(&done.after), BTreeSet::from(["segment-damaged"]));
    assert_eq!(done.after.points, []);
}

/// Bits that flip on the way and not in the store cost nothing: what is whole in the store stays as it is.
#[test]
fn a_repair_over_a_bad_wire_drops_nothing_that_is_whole() {
    let fixture = Fixture::new();
    for seed in 0..60 {
        let faults = Faults { seed, flip_per_mille: 200, cut_per_mille: 50, ..Faults::default() };
        let store = Arc::new(Faulty::new(fixture.damaged(&[]), faults));
        let Ok(repo) = Repository::open(store.clone(), &Passphrase::new(READ), &Env::fixed(NOW, 3)) else {
            continue;
        };
        // Whatever it thinks it sees, and whether it ends well:
        let _ = repair(&repo, true);
        let left = MemStore::from_snapshot(store.inner().snapshot());
        // A pack that was never once read right may be left out; it names itself again over a good wire.
        repair(&open(&left).unwrap(), true).unwrap();
        assert_eq!(lost(&fixture, &left), vec![nothing(); 4], "seed {seed}");
        let report = run_check(&open(&left).unwrap(), true);
        assert!(!report.is_damaged(), "seed {seed}: {:#?}", report.findings);
    }
}

/// R3: a chunk lies in two packs, and a collection that counted on one of them is about to delete the other. A repair
/// that leaves out the first must not count on the second.
#[test]
fn r3_a_repair_does_not_count_on_a_twin_that_a_collection_may_delete() {
    let fixture = Fixture::new();
    let (damaged, chunks) = fixture.packs(Lane::Data).remove(0);
    let store = fixture.damaged(&[]);
    // Two writers at once store the same content twice.
    let before: BTreeSet<String> = store.snapshot().into_keys().collect();
    let blank = MemStore::from_snapshot(fixture.objects.clone());
    fixture.keys("index/").iter().for_each(|key| blank.tamper(key, None));
    let env = Env::fixed(NOW, 99);
    write_all_again(&Repository::open(Arc::new(blank.clone()), &Passphrase::new(READ), &env).unwrap());
    let mut twins = Vec::new();
    for (key, bytes) in blank.snapshot() {
        if !before.contains(&key) && !key.starts_with("commits/") {
            twins.extend(key.starts_with("packs/").then(|| key.clone()));
            store.tamper(&key, Some(bytes));
        }
    }
    store.tamper(&damaged, flip(&fixture.objects[&damaged], 100));
    let (_, done) = repair(&open(&store).unwrap(), true).unwrap();
    assert!(done.chunks_saved >= chunks.len() as u64 && !done.after.is_damaged(), "{done:#?}");
    // Now the collection deletes what it had found unneeded.
    for twin in twins {
        store.tamper(&twin, None);
    }
    assert_eq!(lost(&fixture, &store), vec![nothing(); 4]);
}

// --- from another repository ---

/// Another repository with all points of the fixture.
fn copied(fixture: &Fixture, alike: bool) -> MemStore {
    let (near, store) = (open(&fixture.damaged(&[])).unwrap(), MemStore::new());
    let like = alike.then(|| near.clone());
    let options = InitOptions { kdf: Kdf::cheap(), like, ..InitOptions::default() };
    let env = Env::fixed(NOW + 1_000_000_000_000, 77);
    let far = Repository::init(Arc::new(store.clone()), &Passphrase::new(READ), &options, &env).unwrap();
    let done = repo::copy::copy(&near, &far, &repo::copy::CopyOptions::default(), &()).unwrap();
    assert_eq!((done.done.copied.len(), done.findings), (4, vec![]));
    store
}

fn repair_from(store: &MemStore, other: &MemStore) -> (PlanReport, Repaired) {
    let from = Some(open(other).unwrap());
    let options = RepairOptions { read_data: true, from, ..RepairOptions::default() };
    let plan = plan(&open(store).unwrap(), &options, &()).unwrap();
    let report = plan.report().clone();
    (report, plan.execute(&()).unwrap())
}

/// Whatever was lost of packs and index, in any place: a second copy brings all of it back, and a check is clean.
#[test]
fn what_is_lost_here_comes_back_from_a_copy() {
    let fixture = Fixture::new();
    let everything: Changes = [fixture.keys("packs/"), fixture.keys("index/")]
        .concat()
        .into_iter()
        .map(|key| (key, None))
        .collect();
    let mut stories: Vec<(String, Changes)> = damages(&fixture)
        .into_iter()
        .filter(|(_, changes)| !changes.iter().any(|(key, _)| key.starts_with("commits/")))
        .step_by(2)
        .collect();
    stories.push(("all packs and the index gone".into(), everything.clone()));
    let half: Changes = everything.into_iter().step_by(2).collect();
    stories.push(("every other pack and segment gone".into(), half));
    for alike in [true, false] {
        let copy = copied(&fixture, alike);
        let there = copy.snapshot();
        let mut taken = 0;
        for (story, changes) in &stories {
            let store = fixture.damaged(changes);
            let (planned, done) = repair_from(&store, &copy);
            assert_eq!(lost(&fixture, &store), vec![nothing(); 4], "{story}, alike {alike}: {done:#?}");
            let report = run_check(&open(&store).unwrap(), true);
            assert!(!report.is_damaged() && report.points.is_empty(), "{story}: {:#?}", report.findings);
            assert!(!done.after.is_damaged(), "{story}: {done:#?}");
            let from = planned.from.unwrap();
            assert_eq!(from.alike, alike);
            if done.chunks_taken > 0 {
                assert!(!from.is_empty(), "{story}: the plan says that there is something to be had");
            }
            taken += done.chunks_taken;
            // A second one finds nothing to do.
            let (again, _) = repair_from(&store, &copy);
            assert!(again.is_empty(), "{story}: {again:#?}");
        }
        assert!(taken > 100, "{taken}");
        assert!(copy.snapshot() == there, "the other repository is only read");
    }
}

/// The copy is the one that is damaged: the original heals it as well.
#[test]
fn a_copy_is_healed_from_its_original() {
    let fixture = Fixture::new();
    for alike in [true, false] {
        let copy = copied(&fixture, alike);
        let packs: Vec<String> =
            copy.snapshot().into_keys().filter(|key| key.starts_with("packs/")).collect();
        for pack in packs.iter().step_by(2) {
            copy.tamper(pack, None);
        }
        let (_, done) = repair_from(&copy, &fixture.damaged(&[]));
        assert!(!done.after.is_damaged() && done.chunks_taken > 0, "alike {alike}: {done:#?}");
    }
}

/// Who has nothing of it, or is damaged in the same place, gives nothing; what is missing stays named.
#[test]
fn another_repository_gives_what_it_has_and_nothing_else() {
    let fixture = Fixture::new();
    let (pack, _) = fixture.packs(Lane::Data).remove(0);
    let changes = vec![(pack.clone(), None)];
    // A stranger, alike or not, with other content.
    for alike in [true, false] {
        let near = open(&fixture.damaged(&[])).unwrap();
        let store = MemStore::new();
        let options =
            InitOptions { kdf: Kdf::cheap(), like: alike.then_some(near), ..InitOptions::default() };
        let env = Env::fixed(NOW, 78);
        let far = Repository::init(Arc::new(store.clone()), &Passphrase::new(READ), &options, &env).unwrap();
        let writer = far.writer(WriterOptions::default()).unwrap();
        stream(&writer, &noise(4_712, 500_000));
        writer.commit(repo::CommitDraft { kind: "volume".into(), ..Default::default() }).unwrap();
        let damaged = fixture.damaged(&changes);
        let (planned, done) = repair_from(&damaged, &store);
        assert!(planned.from.unwrap().is_empty());
        assert!(done.chunks_taken == 0 && done.after.is_damaged(), "{done:#?}");
    }
    // A copy that has lost the same content.
    let copy = copied(&fixture, false);
    let packs = copy.snapshot().into_iter().filter(|(key, _)| key.starts_with("packs/"));
    let largest = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap().0;
    copy.tamper(&largest, None);
    let store = fixture.damaged(&changes);
    let (_, done) = repair_from(&store, &copy);
    assert!(done.after.is_damaged() && done.findings.iter().any(|f| f.code == "twin-damaged"), "{done:#?}");
    let before = lost(&fixture, &fixture.damaged(&changes));
    assert!(no_less(&before, &lost(&fixture, &store)));
    // And the same repository under another name is refused.
    let same = RepairOptions { from: Some(open(&store).unwrap()), ..RepairOptions::default() };
    let refused = plan(&open(&store).unwrap(), &same, &()).unwrap_err();
    assert!(refused.to_string().contains("the same repository"), "{refused}");
}

/// A plan that is only looked at puts nothing, and cannot be executed by mistake.
#[test]
fn a_plan_to_look_at_changes_nothing() {
    let fixture = Fixture::new();
    let (pack, _) = fixture.packs(Lane::Data).remove(0);
    let (store, copy) = (fixture.damaged(&[(pack, None)]), copied(&fixture, true));
    let before = store.snapshot();
    let options =
        RepairOptions { plan_only: true, from: Some(open(&copy).unwrap()), ..RepairOptions::default() };
    let plan = plan(&open(&store).unwrap(), &options, &()).unwrap();
    let from = plan.report().from.clone().unwrap();
    assert!(from.chunks_there > 0 && from.chunks_there == from.chunks_lacking, "{from:?}");
    assert!(plan.execute(&()).unwrap_err().to_string().contains("only to be looked at"));
    assert!(store.snapshot() == before, "a plan to look at puts nothing");
}

/// R3: a repair puts its lease before it reads anything, and ends it when it is through.
#[test]
fn r3_a_repair_is_at_work_for_collectors_from_its_first_call_to_its_last() {
    let fixture = Fixture::new();
    let (pack, _) = fixture.packs(Lane::Data).remove(0);
    let store = Arc::new(Record::new(fixture.damaged(&[(pack, None)])));
    let repo = Repository::open(store.clone(), &Passphrase::new(READ), &Env::fixed(NOW, 3)).unwrap();
    store.clear();
    repair(&repo, false).unwrap();
    let log = store.log();
    let first = log.first().map(|call| (call.verb, call.key.starts_with("leases/")));
    assert_eq!(first, Some((Verb::Put, true)), "{:?}", log.first());
    let last = log.last().map(|call| (call.verb, call.key.starts_with("leases/")));
    assert_eq!(last, Some((Verb::Put, true)), "{:?}", log.last());
}
