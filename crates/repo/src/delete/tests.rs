//! What is deleted, and above all what is not.

use std::sync::Arc;

use super::*;
use crate::env::Env;
use crate::object::{Capability, CommitDraft};
use crate::store::Store;
use crate::store::faulty::{Faults, Faulty};
use crate::store::mem::MemStore;
use crate::store::record::{Record, Verb};
use crate::{InitOptions, Kdf, Passphrase, WriterOptions};

const HOUR: i64 = 3_600_000_000_000;
const NOW: i64 = 500_000 * HOUR;

fn fresh() -> (Arc<Record<MemStore>>, Repository, Env) {
    let store = Arc::new(Record::new(MemStore::new()));
    let env = Env::fixed(NOW, 1);
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repo = Repository::init(store.clone(), &Passphrase::new("x"), &options, &env).unwrap();
    (store, repo, env)
}

/// One point an hour of a directory; `!` for one that is not whole.
fn points_of(repo: &Repository, env: &Env, path: &str, what: &str) -> Vec<CommitId> {
    what.chars()
        .map(|one| {
            env.advance(HOUR);
            let labels = [("path", path), ("complete", if one == '!' { "false" } else { "true" })];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let draft = CommitDraft { kind: "volume".into(), labels, ..CommitDraft::default() };
            repo.writer(WriterOptions::default()).unwrap().commit(draft).unwrap().id
        })
        .collect()
}

fn listed(repo: &Repository) -> Vec<Point> {
    points(&repo.commits().unwrap().done, &repo.holds().unwrap().done, repo.env().now())
}

fn last(count: u32) -> Policy {
    Policy { last: count, ..Policy::default() }
}

fn by_policy(repo: &Repository, policy: &Policy) -> Plan {
    Plan::by_policy(repo, listed(repo), policy, &|_| 0).unwrap()
}

fn execute(repo: &Repository, plan: Plan) -> Outcome<Deleted> {
    plan.execute(repo, &Cancel::new(), &()).unwrap()
}

fn there(repo: &Repository) -> BTreeSet<CommitId> {
    repo.commit_ids().unwrap().into_iter().collect()
}

#[test]
fn a_plan_deletes_exactly_what_it_says_and_commit_objects_only() {
    let (store, repo, env) = fresh();
    let a = points_of(&repo, &env, "/a", "....");
    let b = points_of(&repo, &env, "/b", ".!!");
    let plan = by_policy(&repo, &last(2));
    let planned: BTreeSet<CommitId> = plan.drops().map(|point| point.id).collect();
    assert_eq!(planned, [a[0], a[1]].into());
    // Meanwhile a backup ends.
    let new = points_of(&repo, &env, "/a", ".");
    store.clear();
    let outcome = execute(&repo, plan);
    assert_eq!((outcome.done.deleted.len(), outcome.findings.len()), (2, 0));
    assert_eq!(there(&repo), [a[2], a[3], b[0], b[1], b[2], new[0]].into());
    let deletions: BTreeSet<String> =
        store.calls(Verb::Delete).into_iter().filter(|key| key.starts_with("commits/")).collect();
    assert_eq!(deletions, planned.iter().map(CommitId::key).collect());
    // That they are being deleted is said, and taken back.
    assert_eq!((store.count(Verb::Put, ""), store.count(Verb::Put, "gc/deletion-")), (2, 2));
    assert_eq!((store.count(Verb::Delete, ""), store.count(Verb::Delete, "gc/deletion-")), (4, 2));
    // The same policy again: only the point that is now one too many.
    let again = by_policy(&repo, &last(2));
    assert_eq!(again.drops().map(|point| point.id).collect::<Vec<_>>(), [a[2]]);
}

#[test]
fn a_hold_keeps_a_point_from_retention_and_from_deletion() {
    let (_, repo, env) = fresh();
    let a = points_of(&repo, &env, "/a", "...");
    repo.add_hold(&a[0], "legal", "me", None).unwrap();
    let ended = repo.add_hold(&a[1], "short", "me", Some(env.now() + HOUR)).unwrap();
    let plan = by_policy(&repo, &last(1));
    assert_eq!(plan.drops().count(), 0);
    assert_eq!(plan.decisions()[0].keep, [Reason::Hold("legal".into())]);
    let refused = Plan::of(&repo, listed(&repo), &[a[0], a[1]].into(), true).unwrap().unwrap_err();
    assert_eq!(refused.0.len(), 2);
    assert!(refused.to_string().contains("hold: legal"), "{refused}");
    // The second ends by itself, and goes with its point.
    env.advance(HOUR);
    let outcome = execute(&repo, by_policy(&repo, &last(1)));
    assert_eq!(outcome.done.deleted, [a[1]]);
    assert!(repo.holds().unwrap().done.iter().all(|hold| hold.id != ended.id));
    assert_eq!(there(&repo), [a[0], a[2]].into());
}

#[test]
fn a_hold_placed_between_plan_and_execution_wins() {
    let (_, repo, env) = fresh();
    let a = points_of(&repo, &env, "/a", "...");
    let plan = by_policy(&repo, &last(1));
    repo.add_hold(&a[0], "just in time", "me", None).unwrap();
    let outcome = execute(&repo, plan);
    assert_eq!((outcome.done.deleted, outcome.done.left), (vec![a[1]], vec![a[0]]));
    assert_eq!(outcome.findings[0].code, "point-held");
}

#[test]
fn a_hold_placed_while_its_point_is_deleted_brings_the_point_back_byte_for_byte() {
    let (store, repo, env) = fresh();
    let a = points_of(&repo, &env, "/a", "..");
    let plan = by_policy(&repo, &last(1));
    let before = store.get(&a[0].key()).unwrap();
    let hold = repo.add_hold(&a[0], "now", "me", None).unwrap();
    let key = hold.id.key(&a[0]);
    let bytes = store.get(&key).unwrap();
    store.delete(&key).unwrap();
    // Placed again at the very moment the commit is deleted.
    let (behind, hold) = (store.clone(), Mutex::new(Some((key, bytes))));
    let racing = Record::new(store.clone()).before(move |verb, _| {
        if verb == Verb::Delete
            && let Some((key, bytes)) = hold.lock().unwrap().take()
        {
            behind.put(&key, bytes).unwrap();
        }
    });
    let repo = Repository::open(Arc::new(racing), &Passphrase::new("x"), &env).unwrap();
    let outcome = execute(&repo, plan);
    assert_eq!((outcome.done.deleted, outcome.done.left), (vec![], vec![a[0]]));
    assert_eq!(store.get(&a[0].key()).unwrap(), before);
    assert!(repo.holds_without_commit().unwrap().is_empty());
}

#[test]
fn a_series_that_lost_what_was_to_stay_is_left_alone() {
    let (store, repo, env) = fresh();
    let a = points_of(&repo, &env, "/a", "...");
    let b = points_of(&repo, &env, "/b", "..");
    let plan = by_policy(&repo, &last(1));
    store.delete(&a[2].key()).unwrap();
    store.delete(&a[0].key()).unwrap();
    let outcome = execute(&repo, plan);
    assert_eq!(outcome.findings[0].code, "series-changed");
    let Deleted { deleted, gone, left } = outcome.done;
    assert_eq!((deleted, gone, left), (vec![b[0]], vec![a[0]], vec![a[1]]));
}

#[test]
fn the_last_good_point_is_deleted_only_if_that_is_said() {
    let (_, repo, env) = fresh();
    let a = points_of(&repo, &env, "/a", "..!!");
    let b = points_of(&repo, &env, "/b", "!!");
    let c = points_of(&repo, &env, "/c", ".");
    let cases: [(&str, Vec<CommitId>, Vec<CommitId>); 8] = [
        ("an older whole one", vec![a[0]], vec![]),
        ("the newest whole one, another stays", vec![a[1]], vec![]),
        ("all whole ones", vec![a[0], a[1]], vec![a[1]]),
        ("incomplete ones", vec![a[2], a[3]], vec![]),
        ("all of a series", a.clone(), vec![a[1]]),
        ("all of a series that has none whole", b.clone(), vec![b[1]]),
        ("one of them", vec![b[1]], vec![]),
        ("the only one", c.clone(), c.clone()),
    ];
    for (story, asked, protected) in cases {
        let asked: BTreeSet<CommitId> = asked.into_iter().collect();
        let refused = match Plan::of(&repo, listed(&repo), &asked, false).unwrap() {
            Ok(plan) => {
                assert_eq!(plan.drops().map(|point| point.id).collect::<BTreeSet<_>>(), asked, "{story}");
                vec![]
            }
            Err(Refused(refused)) => refused.into_iter().map(|one| one.point.id).collect(),
        };
        assert_eq!(refused, protected, "{story}");
        let plan = Plan::of(&repo, listed(&repo), &asked, true).unwrap().unwrap();
        assert_eq!(plan.drops().count(), asked.len(), "{story}, said so");
    }
    let all = Plan::of(&repo, listed(&repo), &c.iter().copied().collect(), true).unwrap().unwrap();
    assert_eq!(execute(&repo, all).done.deleted, c);
}

#[test]
fn a_plan_belongs_to_its_repository_and_can_be_stopped() {
    let (_, repo, env) = fresh();
    points_of(&repo, &env, "/a", "...");
    let other = Repository::init(
        Arc::new(MemStore::new()),
        &Passphrase::new("x"),
        &InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() },
        &Env::fixed(NOW, 9),
    )
    .unwrap();
    let plan = by_policy(&repo, &last(1));
    assert!(matches!(plan.execute(&other, &Cancel::new(), &()), Err(Error::Invalid { .. })));
    let stopped = Cancel::new();
    stopped.cancel();
    let outcome = by_policy(&repo, &last(1)).execute(&repo, &stopped, &()).unwrap();
    assert_eq!((outcome.done.deleted.len(), outcome.done.left.len()), (0, 2));
    assert_eq!(there(&repo).len(), 3);
}

#[test]
fn a_list_key_plans_and_a_put_key_does_not() {
    let (store, repo, env) = fresh();
    let a = points_of(&repo, &env, "/a", "..");
    for (word, capability) in [("list", Capability::List), ("put", Capability::Put)] {
        repo.add_key(&Passphrase::new(word), capability, word, Kdf::cheap()).unwrap();
    }
    let open = |word: &str| Repository::open(store.clone(), &Passphrase::new(word), &env).unwrap();
    assert!(matches!(open("put").commits(), Err(Error::NotPermitted { .. })));
    let list = open("list");
    assert_eq!(execute(&list, by_policy(&list, &last(1))).done.deleted, [a[0]]);
}

#[test]
fn a_store_that_refuses_to_delete_is_told_by_point_and_not_asked_for_ever() {
    let (store, repo, env) = fresh();
    let a = points_of(&repo, &env, "/a", &".".repeat(60));
    let faults = Faults { denied: [Verb::Delete].into(), ..Faults::default() };
    let worm = Repository::open(Arc::new(Faulty::new(store, faults)), &Passphrase::new("x"), &env).unwrap();
    let outcome = execute(&worm, by_policy(&worm, &last(1)));
    assert_eq!((outcome.done.deleted.len(), outcome.done.left.len()), (0, 59));
    assert!(
        (FAILURES_MAX..FAILURES_MAX + THREADS).contains(&outcome.findings.len()),
        "{}",
        outcome.findings.len()
    );
    assert!(outcome.findings[0].message.contains("on purpose"));
    assert_eq!(there(&repo).len(), a.len());
}

#[test]
fn what_the_store_locks_is_neither_retained_away_nor_deleted_until_the_lock_ends() {
    use crate::immutable::LockPolicy;
    use crate::store::vault::LockMode;
    use crate::store::versioned::{Flaws, VersionedStore};

    let env = Env::fixed(NOW, 1);
    let store = Arc::new(VersionedStore::new(&env, Flaws::default()));
    let lock = LockPolicy::new(LockMode::Governance, 10 * 86_400).unwrap();
    let lasts = lock.lasts();
    let options = InitOptions { kdf: Kdf::cheap(), lock: Some(lock), ..InitOptions::default() };
    let repo = Repository::init(store, &Passphrase::new("x"), &options, &env).unwrap();
    let a = points_of(&repo, &env, "/a", "...");
    let plan = by_policy(&repo, &last(1));
    assert_eq!(plan.drops().count(), 0);
    assert!(matches!(plan.decisions()[0].keep[..], [Reason::Locked(until)] if until > env.now()));
    let refused = Plan::of(&repo, listed(&repo), &[a[0]].into(), true).unwrap().unwrap_err();
    assert!(refused.to_string().contains("locked until"), "{refused}");
    env.advance(lasts);
    let outcome = execute(&repo, by_policy(&repo, &last(1)));
    assert_eq!((outcome.done.deleted.len(), outcome.findings.len()), (2, 0), "{:?}", outcome.findings);
}

/// Killed before or after any change: what was to stay is there, held points too, and the next run ends what this one began.
#[test]
fn a_deletion_killed_at_any_change_takes_nothing_that_was_to_stay() {
    use crate::store::faulty::{Faults, Faulty};

    let (store, repo, env) = fresh();
    let a = points_of(&repo, &env, "/a", "......");
    repo.add_hold(&a[1], "legal", "me", None).unwrap();
    repo.add_hold(&a[2], "short", "me", Some(env.now() + 1)).unwrap();
    env.advance(2);
    let stay: BTreeSet<CommitId> = [a[1], a[4], a[5]].into();
    let objects = store.inner().snapshot();
    // Three commits, what is said of each and taken back, and an ended hold.
    for die in 0..10 {
        for landed in [false, true] {
            let left = MemStore::from_snapshot(objects.clone());
            let faults = Faults { die_after_changes: Some(die), die_landed: landed, ..Faults::default() };
            let open = |store: Arc<dyn Store>| Repository::open(store, &Passphrase::new("x"), &env).unwrap();
            let dying = open(Arc::new(Faulty::new(left.clone(), faults)));
            let plan = by_policy(&dying, &last(2));
            // A dead store makes findings, or an error.
            let _ = plan.execute(&dying, &Cancel::new(), &());
            let repo = open(Arc::new(left));
            assert!(there(&repo).is_superset(&stay), "at {die}");
            let outcome = execute(&repo, by_policy(&repo, &last(2)));
            assert_eq!((there(&repo), outcome.findings.len()), (stay.clone(), 0), "at {die}");
            assert!(repo.holds_without_commit().unwrap().is_empty());
        }
    }
}
