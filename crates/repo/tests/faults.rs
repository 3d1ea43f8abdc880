//! Histories on a store that fails: whatever it does, a point that was acknowledged restores (R2, R3).
//!
//! Each history is a row of backups, checks, repairs, copies, retentions and collections from one seed, on a store that loses requests and
//! answers, tears puts, shows them late, lists the past or is full, with a clock that jumps. Commands may fail
//! and say why; a command that said it succeeded did. Afterwards, on the same objects without faults: every
//! acknowledged point that was not to be deleted is there byte for byte, a check blames nothing but what a torn put
//! left, a repair puts that right, and the next backup completes. A failure names the seed of its history.
//!
//! Histories meet what the dice give them; the table below them has every act meet every fault.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{
    NOW, bytes, commit_with, init_with, noise, owned, passphrase, read_back, reader, small_chunks,
    small_packs,
};
use repo::check::{Budget, CheckOptions, check};
use repo::copy::{CopyOptions, copy};
use repo::delete::Plan;
use repo::gc::GcOptions;
use repo::repair::RepairOptions;
use repo::retain::Policy;
use repo::store::Store;
use repo::store::faulty::{Faults, Faulty};
use repo::store::mem::MemStore;
use repo::{Cancel, CommitId, Env, Error, Finding, InitOptions, Kdf, Repository, Severity};

/// A number from a seed: the same for the same.
fn dice(seed: u64, turn: u64, below: u64) -> u64 {
    let bytes = noise(seed.wrapping_mul(1_000).wrapping_add(turn), 8);
    u64::from_le_bytes(bytes.try_into().unwrap()) % below.max(1)
}

/// What goes wrong in a history.
fn faults(kind: u64, seed: u64) -> (&'static str, Faults) {
    let none = Faults { seed, ..Faults::default() };
    match kind {
        0 => ("requests are lost", Faults { unavailable_per_mille: 60, ..none }),
        1 => ("answers are lost", Faults { lost_per_mille: 60, ..none }),
        2 => ("puts are torn", Faults { torn_per_mille: 120, ..none }),
        3 => ("puts are seen late", Faults { delay_puts: 1 + seed % 12, ..none }),
        4 => ("listings are behind", Faults { stale_lists: 1 + seed % 30, ..none }),
        5 => (
            "the store fills up",
            Faults { full_after_bytes: Some(200_000 + seed * 7_919 % 800_000), ..none },
        ),
        6 => ("reads are cut and flipped", Faults { flip_per_mille: 20, cut_per_mille: 20, ..none }),
        7 => (
            "deletes are refused",
            Faults {
                denied: BTreeSet::from([repo::store::record::Verb::Delete]),
                lost_per_mille: 20,
                ..none
            },
        ),
        8 => ("nothing but the clock jumps", none),
        _ => (
            "all of it",
            Faults {
                unavailable_per_mille: 20,
                lost_per_mille: 20,
                torn_per_mille: 20,
                flip_per_mille: 5,
                cut_per_mille: 5,
                stale_lists: seed % 10,
                ..none
            },
        ),
    }
}

const KINDS: u64 = 10;

/// A clock that now and then jumps a day or a minute, either way.
fn clock(seed: u64) -> Env {
    const SECOND: i64 = 1_000_000_000;
    let jumps = (0..dice(seed, 900, 4)).map(|n| {
        let by = [86_400, -86_400, 60, -60, 3 * 86_400][dice(seed, 901 + n, 5) as usize] * SECOND;
        (1 + dice(seed, 910 + n, 60), by)
    });
    Env::jumping(NOW + seed as i64, seed, jumps.collect())
}

type Content = Vec<(String, Vec<u8>)>;

struct History {
    seed: u64,
    /// Whether listings show every put that was answered.
    lists_all: bool,
    /// Where points are copied to: another repository on a store that fails in the same way.
    far: Arc<Faulty<MemStore>>,
    /// Points that a copy acknowledged there.
    copied: BTreeMap<CommitId, Content>,
    story: String,
    store: Arc<Faulty<MemStore>>,
    /// Acknowledged, and never asked to be deleted.
    points: BTreeMap<CommitId, Content>,
    failed: u64,
    done: u64,
}

impl History {
    /// Counts how a command ended. What it says names what happened.
    fn ended<T>(&mut self, command: &str, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                self.done += 1;
                Some(value)
            }
            Err(error) => {
                self.failed += 1;
                let text = error.to_string();
                let told = match &error {
                    Error::Store(_) => {
                        text.contains("on purpose")
                            || text.contains("is not there")
                            || text.contains("cut short")
                    }
                    Error::Damaged { object, .. } | Error::Missing { object, .. } => !object.is_empty(),
                    Error::WrongKey { note, .. } => !note.is_empty(),
                    Error::NoRepository { .. } => false,
                    _ => false,
                };
                assert!(told, "{}: {command} failed and does not say why: {error:?}", self.story);
                None
            }
        }
    }

    fn open(&mut self, turn: u64, store: &Arc<Faulty<MemStore>>) -> Option<Repository> {
        let env = clock(self.seed * 100 + turn);
        env.advance(turn as i64 * 3_600_000_000_000);
        let opened = Repository::open(store.clone(), &passphrase(), &env);
        // A header that came over a bad wire opens no key: the only error that cannot tell more.
        if let Err(Error::WrongKey { .. } | Error::NewerFormat { .. }) = &opened
            && (self.story.contains("flipped") || self.story.contains("all of it"))
        {
            return opened.ok();
        }
        self.ended("open", opened)
    }

    fn step(&mut self, turn: u64) {
        let Some(repo) = self.open(turn, &self.store.clone()) else { return };
        let seed = self.seed;
        match dice(seed, turn, 10) {
            0..=3 => {
                // Some of it new, some of it as before.
                let length = |n| 1 + dice(seed, turn * 10 + n, 60_000) as usize;
                let new = noise(seed * 10 + turn, length(1));
                let old = bytes(seed + dice(seed, turn + 50, 2), 40_000);
                let streams: Vec<(&str, &[u8])> = vec![("new", &new), ("old", &old)];
                let made = commit_with(&repo, small_packs(), &streams);
                if let Some(info) = self.ended("backup", made) {
                    self.points.insert(info.id, owned(&streams));
                }
            }
            // What a collection asks of a store is that a listing shows every put that was answered; where it does not,
            // no collection is run (docs/decisions/0005-collection.md).
            4 if self.lists_all && dice(seed, turn + 30, 2) == 0 => {
                let grace = Duration::from_secs(dice(seed, turn + 31, 2) * 7_200);
                let options = GcOptions { grace, ..GcOptions::default() };
                let done = repo::gc::plan(&repo, options, &()).and_then(|plan| plan.execute(&()));
                self.ended("collection", done);
            }
            4 => {
                let read_data = dice(seed, turn + 20, 2) == 0;
                let budget = (!read_data).then_some(Budget::Share(0.3));
                let options = CheckOptions { read_data, budget, ..CheckOptions::default() };
                let report = check(&repo, &options, &());
                self.ended("check", report);
            }
            5 | 6 => {
                let read_data = dice(seed, turn + 20, 2) == 0;
                let options = RepairOptions { read_data, ..RepairOptions::default() };
                let done = repo::repair::plan(&repo, &options, &()).and_then(|plan| plan.execute(&()));
                self.ended("repair", done);
            }
            7 | 8 => {
                let Some(far) = self.open(turn + 50, &self.far.clone()) else { return };
                let writer = small_packs();
                let copied = copy(&repo, &far, &CopyOptions { writer, ..CopyOptions::default() }, &());
                if let Some(outcome) = self.ended("copy", copied) {
                    for pair in outcome.done.copied.iter().chain(&outcome.done.present) {
                        // Points that retention deletes here stay there.
                        if let Some(content) = self.points.get(&pair.near) {
                            self.copied.insert(pair.far, content.clone());
                        }
                    }
                }
            }
            _ => {
                let policy = Policy { last: 2, ..Policy::default() };
                let plan = repo.commits().and_then(|commits| {
                    let holds = repo.holds()?.done;
                    let points = repo::delete::points(&commits.done, &holds, repo.env().now());
                    Plan::by_policy(&repo, points, &policy, &|_| 0)
                });
                if let Some(plan) = self.ended("retain", plan) {
                    // Whether a delete that failed was done nobody knows.
                    for drop in plan.drops() {
                        self.points.remove(&drop.id);
                    }
                    let done = plan.execute(&repo, &Cancel::new(), &());
                    self.ended("delete", done);
                }
            }
        }
    }
}

/// The objects, when everything that was on its way has arrived and nothing fails any more.
fn settled(store: &Faulty<MemStore>) -> MemStore {
    for _ in 0..40 {
        let _ = store.size("nothing");
    }
    MemStore::from_snapshot(store.inner().snapshot())
}

fn hold(story: &str, points: &BTreeMap<CommitId, Content>, repo: &Repository, when: &str) {
    let reader = reader(repo);
    for (id, content) in points {
        match read_back(&reader, id) {
            Ok(read) => assert!(read == *content, "{story}, {when}: point {id} has other bytes"),
            Err(error) => panic!("{story}, {when}: point {id} was acknowledged and is lost: {error}"),
        }
    }
}

/// What a check blames, but for these.
fn errors(repo: &Repository, but: &[&str]) -> Vec<Finding> {
    let report = check(repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
    let blamed = |finding: &Finding| finding.severity == Severity::Error && !but.contains(&finding.code);
    report.findings.into_iter().filter(blamed).collect()
}

/// What must be so when all is over: the points restore, before and after a repair, and the next write completes.
fn verify(story: &str, torn: bool, left: &MemStore, points: &BTreeMap<CommitId, Content>) {
    let open = || {
        let env = Env::fixed(NOW + 86_400_000_000_000, 77);
        Repository::open(Arc::new(left.clone()), &passphrase(), &env).unwrap()
    };
    hold(story, points, &open(), "afterwards");
    let of_torn_puts: &[&str] =
        if torn { &["segment-damaged", "commit-damaged", "hold-damaged"] } else { &[] };
    assert_eq!(errors(&open(), of_torn_puts), [], "{story}");
    let options = RepairOptions { read_data: true, ..RepairOptions::default() };
    repo::repair::plan(&open(), &options, &()).unwrap().execute(&()).unwrap();
    hold(story, points, &open(), "after a repair");
    assert_eq!(errors(&open(), &["commit-damaged"]), [], "{story}, repaired");
    let repo = open();
    let new = noise(1, 30_000);
    let info = commit_with(&repo, small_packs(), &[("last", &new)]).unwrap();
    assert_eq!(read_back(&reader(&repo), &info.id).unwrap(), owned(&[("last", &new)]), "{story}");
}

/// One history; how many commands failed, how many did what they were asked, and how many points were copied.
fn live(kind: u64, seed: u64) -> (u64, u64, usize) {
    let (near, far) = (MemStore::new(), MemStore::new());
    init_with(Arc::new(near.clone()), small_chunks());
    let options = InitOptions { kdf: Kdf::cheap(), chunk_bytes: small_chunks(), ..InitOptions::default() };
    Repository::init(Arc::new(far.clone()), &passphrase(), &options, &Env::fixed(NOW, 4_711)).unwrap();
    let (what, faults) = faults(kind, seed);
    let story = format!("seed {seed}, {what}");
    let torn = faults.torn_per_mille > 0;
    let lists_all = faults.stale_lists == 0 && faults.delay_puts == 0;
    let store = Arc::new(Faulty::new(near, faults.clone()));
    let far = Arc::new(Faulty::new(far, faults));
    let (points, copied) = (BTreeMap::new(), BTreeMap::new());
    let mut history = History { seed, lists_all, far, copied, story, store, points, failed: 0, done: 0 };
    for turn in 0..10 {
        history.step(turn);
    }
    verify(&history.story, torn, &settled(&history.store), &history.points);
    verify(&format!("{}, the copy", history.story), torn, &settled(&history.far), &history.copied);
    (history.failed, history.done, history.copied.len())
}

#[test]
fn r2_r3_no_acknowledged_point_is_lost_on_a_store_that_fails() {
    let only = std::env::var("HOLDFAST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let (mut failed_at_all, mut copied) = (0, 0);
    for kind in 0..KINDS {
        let (mut failed, mut done) = (0, 0);
        let seeds: Vec<u64> = only.map_or_else(|| (0..10).collect(), |seed| vec![seed]);
        for seed in seeds {
            let (more_failed, more_done, more_copied) = live(kind, seed);
            failed += more_failed;
            done += more_done;
            copied += more_copied;
        }
        let (name, _) = faults(kind, 0);
        println!("{name}: {failed} commands failed, {done} did what they were asked");
        assert!(done > 20 || only.is_some(), "{name}: hardly anything succeeded");
        failed_at_all += failed;
    }
    assert!(
        failed_at_all > 100 && copied > 20 || only.is_some(),
        "{failed_at_all} failed, {copied} were copied"
    );
}

// --- every act × every fault ---

/// What is done on a store that fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Backup,
    Restore,
    Check,
    Repair,
    RepairFromACopy,
    Collect,
    Copy,
    Delete,
}

const ACTS: [Act; 8] = [
    Act::Backup,
    Act::Restore,
    Act::Check,
    Act::Repair,
    Act::RepairFromACopy,
    Act::Collect,
    Act::Copy,
    Act::Delete,
];

/// How often each is tried, unless `HOLDFAST_TEST_TRIES` says otherwise. (Threads take turns as they like, so the same seed
/// is not the same story twice.)
const TRIES: u64 = 4;

/// A repository with garbage, points to keep and one to delete, and a copy of it.
struct Base {
    near: BTreeMap<String, bytes::Bytes>,
    far: BTreeMap<String, bytes::Bytes>,
    points: BTreeMap<CommitId, Content>,
    to_delete: CommitId,
    /// A pack that the points need.
    needed: String,
}

fn base() -> Base {
    let (near, far) = (MemStore::new(), MemStore::new());
    let repo = init_with(Arc::new(near.clone()), small_chunks());
    let mut points = BTreeMap::new();
    let mut first = None;
    for n in 0..3 {
        let (new, old) = (noise(n, 30_000), bytes(7, 40_000));
        let streams: Vec<(&str, &[u8])> = vec![("new", &new), ("old", &old)];
        let info = commit_with(&repo, small_packs(), &streams).unwrap();
        let packs = || near.snapshot().into_keys().filter(|key| key.starts_with("packs/"));
        first.get_or_insert_with(|| packs().max_by_key(|key| near.snapshot()[key].len()).unwrap());
        points.insert(info.id, owned(&streams));
    }
    let gone = commit_with(&repo, small_packs(), &[("gone", &noise(8, 50_000))]).unwrap();
    let to_delete = commit_with(&repo, small_packs(), &[("later", &noise(9, 20_000))]).unwrap();
    near.delete(&gone.id.key()).unwrap();
    let options = InitOptions { kdf: Kdf::cheap(), chunk_bytes: small_chunks(), ..InitOptions::default() };
    let copy_of =
        Repository::init(Arc::new(far.clone()), &passphrase(), &options, &Env::fixed(NOW, 4_711)).unwrap();
    copy(&repo, &copy_of, &CopyOptions::default(), &()).unwrap();
    let (near, far) = (near.snapshot(), far.snapshot());
    Base { near, far, points, to_delete: to_delete.id, needed: first.unwrap() }
}

/// Does it, and says what there must be afterwards besides what there was.
fn act(act: Act, base: &Base, repo: &Repository, far: &Repository, seed: u64) -> Result<Promised, Error> {
    let mut more = Promised::default();
    match act {
        Act::Backup => {
            let (new, old) = (noise(100 + seed, 50_000), bytes(7, 40_000));
            let streams: Vec<(&str, &[u8])> = vec![("new", &new), ("old", &old)];
            let info = commit_with(repo, small_packs(), &streams)?;
            more.here.insert(info.id, owned(&streams));
        }
        Act::Restore => {
            let reader = repo.reader(repo::ReaderOptions::default())?;
            for (id, content) in &base.points {
                assert!(read_back(&reader, id)? == *content, "R4: other bytes than were written");
            }
        }
        Act::Check => drop(check(repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &())?),
        Act::Repair | Act::RepairFromACopy => {
            let from = (act == Act::RepairFromACopy).then(|| far.clone());
            let options = RepairOptions { read_data: true, from, ..RepairOptions::default() };
            drop(repo::repair::plan(repo, &options, &())?.execute(&())?);
        }
        Act::Collect => {
            let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
            for _ in 0..2 {
                drop(repo::gc::plan(repo, options.clone(), &())?.execute(&())?);
                repo.env().advance(7_200_000_000_000);
            }
        }
        Act::Copy => {
            let options =
                InitOptions { kdf: Kdf::cheap(), chunk_bytes: small_chunks(), ..InitOptions::default() };
            let target = MemStore::new();
            let env = Env::fixed(NOW, 99);
            let target = Repository::init(Arc::new(target), &passphrase(), &options, &env)?;
            let copied = copy(repo, &target, &CopyOptions::default(), &())?;
            let reader = reader(&target);
            for pair in &copied.done.copied {
                if let Some(content) = base.points.get(&pair.near) {
                    assert!(read_back(&reader, &pair.far)? == *content, "a copy of other bytes");
                }
            }
        }
        Act::Delete => {
            let commits = repo.commits()?;
            let points = repo::delete::points(&commits.done, &repo.holds()?.done, repo.env().now());
            if let Ok(plan) = Plan::of(repo, points, &BTreeSet::from([base.to_delete]), false)? {
                drop(plan.execute(repo, &Cancel::new(), &())?);
            }
        }
    }
    Ok(more)
}

/// What an act promised.
#[derive(Default)]
struct Promised {
    here: BTreeMap<CommitId, Content>,
}

#[test]
fn r2_r3_r4_every_act_meets_every_fault_and_no_point_is_lost() {
    let tries = std::env::var("HOLDFAST_TEST_TRIES").map_or(TRIES, |tries| tries.parse().unwrap());
    let base = base();
    let mut table = String::new();
    let mut disturbed = BTreeMap::new();
    for one in ACTS {
        for kind in 0..KINDS {
            let (mut failed, mut done) = (0, 0);
            for seed in 0..tries {
                let (what, mut faults) = faults(kind, seed + 1);
                // Every act puts something, and some of them little.
                faults.full_after_bytes = faults.full_after_bytes.map(|_| seed * 15_000);
                let lists_all = faults.stale_lists == 0 && faults.delay_puts == 0;
                // What a collection asks of a store is that a listing shows every put that was answered.
                if one == Act::Collect && !lists_all {
                    continue;
                }
                let story = format!("{one:?}, {what}, seed {seed}");
                let torn = faults.torn_per_mille > 0;
                let near = MemStore::from_snapshot(base.near.clone());
                if one == Act::RepairFromACopy {
                    near.tamper(&base.needed, None);
                }
                let store = Arc::new(Faulty::new(near, faults));
                let clean = Arc::new(MemStore::from_snapshot(base.far.clone()));
                let far = Repository::open(clean, &passphrase(), &Env::fixed(NOW, 5)).unwrap();
                let ended = Repository::open(store.clone(), &passphrase(), &clock(seed * 31 + kind))
                    .and_then(|repo| act(one, &base, &repo, &far, seed));
                let mut points = base.points.clone();
                match ended {
                    Ok(more) => {
                        done += 1;
                        points.extend(more.here);
                    }
                    Err(error) => {
                        failed += 1;
                        assert!(!error.to_string().is_empty(), "{story}");
                    }
                }
                let left = settled(&store);
                if one == Act::RepairFromACopy {
                    // Whatever became of it, the next one completes.
                    let env = Env::fixed(NOW + 86_400_000_000_000, 60_006);
                    let repo = Repository::open(Arc::new(left.clone()), &passphrase(), &env).unwrap();
                    let options =
                        RepairOptions { read_data: true, from: Some(far), ..RepairOptions::default() };
                    repo::repair::plan(&repo, &options, &()).unwrap().execute(&()).unwrap();
                }
                verify(&story, torn, &left, &points);
            }
            if failed + done > 0 {
                table += &format!(
                    "{:16} {:26} {failed} failed, {done} done\n",
                    format!("{one:?}"),
                    faults(kind, 1).0
                );
            }
            *disturbed.entry(kind).or_insert(0) += failed;
        }
    }
    println!("{table}");
    // Late puts, old listings and a clock that jumps need not fail anything; the others do.
    for kind in [0, 1, 2, 5, 6, 7, 9] {
        assert!(disturbed[&kind] > 0, "{}: {} failed\n{table}", faults(kind, 1).0, disturbed[&kind]);
    }
}
