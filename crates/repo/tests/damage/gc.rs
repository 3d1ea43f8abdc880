//! Damage and collection: what cannot be read may need anything, so nothing is deleted. (Damage of what writers and collectors
//! tell each other is in `tests/golden.rs`, which has an object of each kind.)

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use repo::gc::GcOptions;
use repo::store::Store;
use repo::store::mem::MemStore;
use repo::{Cancel, CommitDraft, CommitId, Env, Error, Lane, Passphrase, Repository, WriterOptions};

use crate::fixture::{Fixture, NOW, READ, noise, open, stream};
use crate::repair::Changes;
use crate::{Restored, flip, restore, run_check};

/// A year later, so that no lease is running; dice of its own.
fn later(store: Arc<dyn Store>, seed: u64) -> Repository {
    let env = Env::fixed(NOW + 31_536_000_000_000_000, 5_000 + seed);
    Repository::open(store, &Passphrase::new(READ), &env).unwrap()
}

fn collect(repo: &Repository) -> Result<bool, Error> {
    let options = GcOptions { grace: Duration::ZERO, threads: 1, ..GcOptions::default() };
    let plan = repo::gc::plan(repo, options, &())?;
    let blocked = plan.report().findings.iter().any(|finding| finding.severity == repo::Severity::Error);
    plan.execute(&())?;
    Ok(!blocked)
}

fn write(repo: &Repository, seed: u64) -> Result<CommitId, Error> {
    let writer = repo.writer(WriterOptions::default())?;
    let manifest = vec![repo::ManifestEntry {
        name: "objects".into(),
        kind: repo::EntryKind::Bytes,
        root: stream(&writer, &noise(seed, 60_000)),
        figures: Default::default(),
    }];
    Ok(writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() })?.id)
}

/// Adds what no point needs any more.
fn with_garbage(fixture: &mut Fixture) {
    let store = fixture.damaged(&[]);
    let repo = open(&store).unwrap();
    let gone = write(&repo, 31_337).unwrap();
    let points = repo::delete::points(&repo.commits().unwrap().done, &[], repo.env().now());
    let plan = repo::delete::Plan::of(&repo, points, &BTreeSet::from([gone]), true).unwrap();
    plan.unwrap_or_else(|refused| panic!("{refused:?}")).execute(&repo, &Cancel::new(), &()).unwrap();
    assert_eq!(keys(&store, "commits/").len(), fixture.points.len());
    fixture.objects = store.snapshot();
}

fn all_restore(fixture: &Fixture, store: &MemStore, story: &str) {
    let repo = open(store).unwrap();
    for (id, expected) in &fixture.points {
        assert_eq!(restore(&repo, id, expected), Restored::But(BTreeSet::new()), "{story}");
    }
}

fn keys(store: &MemStore, folder: &str) -> BTreeSet<String> {
    store.snapshot().into_keys().filter(|key| key.starts_with(folder)).collect()
}

/// While a point cannot be followed, a collection deletes neither what it needs nor what only seems unneeded; once it is
/// put right, or deleted, the garbage goes.
#[test]
fn r3_a_collection_that_meets_damage_deletes_nothing() {
    let mut fixture = Fixture::new();
    with_garbage(&mut fixture);
    let mut cases: Vec<(String, Changes)> = Vec::new();
    for key in fixture.keys("commits/") {
        let bytes = &fixture.objects[&key];
        cases.push((format!("{key} flipped"), vec![(key.clone(), flip(bytes, bytes.len() / 2))]));
        cases.push((format!("{key} cut"), vec![(key.clone(), Some(bytes.slice(..60)))]));
    }
    for (pack, _) in fixture.packs(Lane::Meta) {
        // Those of the garbage are not needed, and none looks into them.
        let bytes = &fixture.objects[&pack];
        cases.push((format!("{pack} gone"), vec![(pack.clone(), None)]));
        cases.push((format!("{pack} flipped"), vec![(pack.clone(), flip(bytes, 60))]));
    }
    for key in fixture.keys("index/") {
        let bytes = &fixture.objects[&key];
        cases.push((format!("{key} flipped"), vec![(key.clone(), flip(bytes, bytes.len() / 2))]));
    }
    let mut blocked = 0;
    for (number, (story, changes)) in cases.into_iter().enumerate() {
        let store = fixture.damaged(&changes);
        let before = (keys(&store, "packs/"), keys(&store, "commits/"), keys(&store, "index/"));
        let lost = fixture.points.iter().any(|(id, expected)| {
            restore(&open(&store).unwrap(), id, expected) != Restored::But(BTreeSet::new())
        });
        for turn in 0..3 {
            let repo = later(Arc::new(store.clone()), number as u64 * 10 + turn);
            repo.env().advance(turn as i64 * 86_400_000_000_000);
            let _ = collect(&repo);
        }
        let after = (keys(&store, "packs/"), keys(&store, "commits/"), keys(&store, "index/"));
        assert_eq!(after.1, before.1, "{story}: commits are not a collection's matter");
        if lost {
            blocked += 1;
            assert_eq!(after.0, before.0, "{story}: packs");
            assert_eq!(after.2, before.2, "{story}: segments");
        }
        // Put right from outside: everything restores, whatever the collections did meanwhile.
        for (key, _) in &changes {
            store.tamper(key, Some(fixture.objects[key].clone()));
        }
        all_restore(&fixture, &store, &story);
        assert!(!run_check(&open(&store).unwrap(), true).is_damaged(), "{story}");
        if lost {
            for turn in 0..3 {
                assert!(collect(&later(Arc::new(store.clone()), 900 + turn)).unwrap(), "{story}");
            }
            assert!(keys(&store, "packs/").len() < before.0.len(), "{story}: now the garbage goes");
            all_restore(&fixture, &store, &story);
        }
    }
    assert!(blocked >= 8, "{blocked}");
}
