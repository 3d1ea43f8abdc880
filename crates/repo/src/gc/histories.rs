//! Simulated histories: writers and collectors whose single store calls are interleaved by one seed.
//!
//! Every actor is a thread that stops before each store call until the scheduler lets it make one; nobody else runs
//! meanwhile, so a seed repeats its history call by call. Between calls actors die, clocks jump (the store's and each
//! writer's own), and recovery points are deleted. What must hold, whatever happens:
//!
//! - every acknowledged commit that was not deleted restores byte by byte, at the end and in between;
//! - in the end nothing is left that no recovery point needs.
//!
//! A failure names its seed: `HOLDFAST_SEED=<n> cargo test -p repo histories` runs that history alone.
//! `HOLDFAST_HISTORIES=<n>` runs so many. That the test can fail is a test: each step of the protocol is broken in
//! turn (those whose loss is certain soon), and the histories notice.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;

use super::*;
use crate::id::COMMITS;
use crate::store::mem::MemStore;
use crate::store::{Put, Store, StoreError, list_all};
use crate::{
    ChunkBytes, CommitDraft, EntryKind, Env, InitOptions, Kdf, Lane, ManifestEntry, Passphrase, WriterOptions,
};

const SECOND: i64 = 1_000_000_000;
const LEASE_SECONDS: i64 = 600;

/// SplitMix64.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn hit(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Running,
    Waiting,
    Ended,
}

/// Who may make the next call.
#[derive(Default)]
struct Stage {
    actors: Mutex<Vec<State>>,
    changed: Condvar,
    /// Who is about to put a commit.
    committing: Mutex<HashSet<usize>>,
}

impl Stage {
    fn set(&self, actor: usize, state: State) {
        self.actors.lock().unwrap()[actor] = state;
        self.changed.notify_all();
    }

    /// Waits until nobody runs.
    fn settle(&self) -> Vec<State> {
        let mut actors = self.actors.lock().unwrap();
        while actors.contains(&State::Running) {
            actors = self.changed.wait(actors).unwrap();
        }
        actors.clone()
    }
}

/// The store as one actor has it: every call waits for its turn.
struct Hand {
    inner: MemStore,
    stage: Arc<Stage>,
    actor: usize,
    dead: Arc<AtomicBool>,
    /// Let through at once: while an actor gets ready.
    free: Arc<AtomicBool>,
}

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hand {}", self.actor)
    }
}

impl Hand {
    fn wait(&self, key: &str) -> Result<(), StoreError> {
        self.wait_as(key, false)
    }

    fn wait_as(&self, key: &str, committing: bool) -> Result<(), StoreError> {
        use std::sync::atomic::Ordering::SeqCst;
        if !self.free.load(SeqCst) && !self.dead.load(SeqCst) {
            if committing {
                self.stage.committing.lock().unwrap().insert(self.actor);
            }
            let mut actors = self.stage.actors.lock().unwrap();
            actors[self.actor] = State::Waiting;
            self.stage.changed.notify_all();
            while actors[self.actor] == State::Waiting {
                actors = self.stage.changed.wait(actors).unwrap();
            }
        }
        match self.dead.load(SeqCst) {
            true => Err(StoreError::Other { key: key.into(), url: "sim".into(), reason: "died".into() }),
            false => Ok(()),
        }
    }
}

impl Store for Hand {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.wait_as(key, key.starts_with(COMMITS))?;
        self.inner.put(key, bytes)
    }
    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.wait(key)?;
        self.inner.get(key)
    }
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.wait(key)?;
        self.inner.get_range(key, offset, len)
    }
    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.wait(key)?;
        self.inner.size(key)
    }
    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.wait(prefix)?;
        self.inner.list(prefix, each)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.wait(key)?;
        self.inner.delete(key)
    }
    fn url(&self) -> String {
        "mem://sim".into()
    }
}

/// The content of a block: histories write few different ones, so that they share.
fn block(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 700];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

struct Acknowledged {
    commit: CommitId,
    blocks: Vec<u64>,
}

struct History {
    seed: u64,
    sabotage: Sabotage,
    store: MemStore,
    /// The store's clock.
    env: Env,
    stage: Arc<Stage>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
}

fn passphrase() -> Passphrase {
    Passphrase::new("p")
}

fn init(env: &Env) -> MemStore {
    let store = MemStore::with_env(env.clone());
    let options = InitOptions {
        kdf: Kdf::cheap(),
        chunk_bytes: ChunkBytes { min: 64, avg: 256, max: 1024 },
        ..InitOptions::default()
    };
    Repository::init(Arc::new(store.clone()), &passphrase(), &options, env).unwrap();
    store
}

fn open(store: Arc<dyn Store>, env: &Env) -> Repository {
    let repo = Repository::open(store, &passphrase(), env).unwrap();
    repo.set_fetchers(1);
    repo
}

impl History {
    fn new(seed: u64, sabotage: Sabotage) -> History {
        let env = Env::fixed(1_700_000_000 * SECOND, seed);
        History {
            seed,
            sabotage,
            store: init(&env),
            env,
            stage: Arc::default(),
            acknowledged: Arc::default(),
        }
    }

    fn is_writer_side(&self) -> bool {
        matches!(
            self.sabotage,
            Sabotage::WriterLooksNot
                | Sabotage::WriterIgnoresVerdicts
                | Sabotage::WriterIgnoresGaps
                | Sabotage::WriterIgnoresMarks
        )
    }

    /// Begins an actor; it stops before its first call.
    fn spawn<'s>(
        &self,
        scope: &'s std::thread::Scope<'s, '_>,
        env: Env,
        work: impl FnOnce(&Repository) + Send + 'static,
    ) -> Arc<AtomicBool> {
        use std::sync::atomic::Ordering::SeqCst;
        let actor = {
            let mut actors = self.stage.actors.lock().unwrap();
            actors.push(State::Running);
            actors.len() - 1
        };
        let (dead, free) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let hand = Hand {
            inner: self.store.clone(),
            stage: self.stage.clone(),
            actor,
            dead: dead.clone(),
            free: free.clone(),
        };
        let stage = self.stage.clone();
        scope.spawn(move || {
            let repo = open(Arc::new(hand), &env);
            free.store(false, SeqCst);
            work(&repo);
            stage.set(actor, State::Ended);
        });
        dead
    }

    fn writer(&self, dice: &mut Dice, steady: bool) -> (Env, impl FnOnce(&Repository) + Send + 'static) {
        let count = 1 + dice.below(4);
        let first = dice.below(12);
        let blocks: Vec<u64> = (0..count).map(|at| (first + at) % 12).collect();
        let skew = if steady { 0 } else { dice.below(5_000) as i64 - 2_500 };
        let env = Env::fixed(self.env.now() + skew * SECOND, dice.roll());
        let sabotage = if self.is_writer_side() { self.sabotage } else { Sabotage::None };
        let acknowledged = self.acknowledged.clone();
        let work = move |repo: &Repository| {
            let options = WriterOptions {
                threads: 1,
                uploads: 1,
                memory_bytes: 4 << 20,
                lease: Duration::from_secs(LEASE_SECONDS as u64),
                sabotage,
                ..WriterOptions::default()
            };
            let committed = repo.writer(options).and_then(|writer| {
                let mut manifest = Vec::new();
                for number in &blocks {
                    let mut stream = writer.stream(Lane::Data);
                    stream.append(&block(*number))?;
                    manifest.push(ManifestEntry {
                        name: format!("{number:04}"),
                        kind: EntryKind::Bytes,
                        root: stream.finish()?,
                        figures: Default::default(),
                    });
                }
                writer.commit(CommitDraft { kind: "sim".into(), manifest, ..CommitDraft::default() })
            });
            // Who is refused runs again, and nothing is lost.
            if let Ok(info) = committed {
                acknowledged.lock().unwrap().push(Acknowledged { commit: info.id, blocks });
            }
        };
        (env, work)
    }

    fn collector(&self, dice: &mut Dice) -> (Env, impl FnOnce(&Repository) + Send + 'static) {
        let env = Env::fixed(self.env.now(), dice.roll());
        let options = GcOptions {
            grace: Duration::from_secs([0, 0, 120][dice.below(3) as usize]),
            repack_percent: [0, 50, 95][dice.below(3) as usize],
            threads: 1,
            sabotage: if self.is_writer_side() { Sabotage::None } else { self.sabotage },
            ..GcOptions::default()
        };
        let work = move |repo: &Repository| {
            // What it could not do the next run does.
            let _ = plan(repo, options, &()).and_then(|plan| plan.execute(&()));
        };
        (env, work)
    }

    /// One call after the other until all have ended.
    fn run(&self) -> Result<(), String> {
        use std::sync::atomic::Ordering::SeqCst;
        let mut dice = Dice(self.seed);
        // In half of the histories no lease runs out.
        let steady = dice.hit(50);
        let writers = match dice.below(20) {
            0 => 24,
            1..4 => 8,
            _ => 1 + dice.below(4),
        };
        let collectors = 1 + dice.below(3);
        let mut to_come: Vec<bool> =
            (0..writers).map(|_| true).chain((0..collectors).map(|_| false)).collect();
        for at in (1..to_come.len()).rev() {
            to_come.swap(at, dice.below(at as u64 + 1) as usize);
        }
        std::thread::scope(|scope| {
            let mut dead: Vec<Arc<AtomicBool>> = Vec::new();
            let mut asleep: BTreeMap<usize, u64> = BTreeMap::new();
            let mut collecting: Vec<usize> = Vec::new();
            loop {
                let states = self.stage.settle();
                let waiting: Vec<usize> =
                    (0..states.len()).filter(|at| states[*at] == State::Waiting).collect();
                if waiting.is_empty() && to_come.is_empty() {
                    break;
                }
                if waiting.is_empty() || (waiting.len() < 6 && !to_come.is_empty() && dice.hit(4)) {
                    let Some(is_writer) = to_come.pop() else { continue };
                    // And there is one collector at a time.
                    if !is_writer
                        && steady
                        && collecting.iter().any(|at| states.get(*at) != Some(&State::Ended))
                    {
                        continue;
                    }
                    if !is_writer {
                        collecting.push(dead.len());
                    }
                    dead.push(if is_writer {
                        let (env, work) = self.writer(&mut dice, steady);
                        self.spawn(scope, env, work)
                    } else {
                        let (env, work) = self.collector(&mut dice);
                        self.spawn(scope, env, work)
                    });
                    continue;
                }
                // The worst moment to sleep is right before the commit: everything was looked at, nothing is said.
                for actor in std::mem::take(&mut *self.stage.committing.lock().unwrap()) {
                    if dice.hit(40) {
                        asleep.insert(actor, 60 + dice.below(200));
                        self.delete_one(&mut dice);
                        self.delete_one(&mut dice);
                        if !steady {
                            self.env.advance((LEASE_SECONDS + 1) * SECOND);
                        }
                        let busy =
                            steady && collecting.iter().any(|at| states.get(*at) != Some(&State::Ended));
                        if busy {
                            continue;
                        }
                        collecting.push(dead.len());
                        let (env, work) = self.collector(&mut dice);
                        dead.push(self.spawn(scope, env, work));
                        if !steady && dice.hit(50) {
                            let (env, work) = self.collector(&mut dice);
                            dead.push(self.spawn(scope, env, work));
                        }
                    }
                }
                asleep.retain(|_, left| {
                    *left -= 1;
                    *left > 0
                });
                let awake: Vec<usize> =
                    waiting.iter().copied().filter(|at| !asleep.contains_key(at)).collect();
                let waiting = if awake.is_empty() { waiting } else { awake };
                let actor = waiting[dice.below(waiting.len() as u64) as usize];
                match dice.below(400) {
                    0..2 => dead[actor].store(true, SeqCst),
                    2..4 => self.delete_one(&mut dice),
                    4..10 if !steady => self.env.advance(dice.below(900) as i64 * SECOND),
                    10..12 if !steady => self.env.advance(-(dice.below(300) as i64) * SECOND),
                    // As long as everybody's lease is good in the steady histories.
                    12..20 => self.env.advance(SECOND / 100),
                    20 => {
                        if let Err(what) = self.look(false) {
                            // Nobody is left waiting for a turn that does not come.
                            dead.iter().for_each(|dead| dead.store(true, SeqCst));
                            while self.stage.settle().contains(&State::Waiting) {
                                let mut actors = self.stage.actors.lock().unwrap();
                                let waiting = actors.iter_mut().filter(|state| **state == State::Waiting);
                                waiting.for_each(|state| *state = State::Running);
                                drop(actors);
                                self.stage.changed.notify_all();
                            }
                            return Err(what);
                        }
                    }
                    _ => {}
                }
                // Some get many turns: a collection that runs through while a writer sleeps.
                let turns = if dice.hit(10) { 1 + dice.below(60) } else { 1 };
                for _ in 0..turns {
                    if self.stage.settle()[actor] != State::Waiting {
                        break;
                    }
                    self.stage.set(actor, State::Running);
                }
            }
            Ok::<(), String>(())
        })?;
        self.look(true)
    }

    fn delete_one(&self, dice: &mut Dice) {
        let mut acknowledged = self.acknowledged.lock().unwrap();
        if !acknowledged.is_empty() {
            let at = dice.below(acknowledged.len() as u64) as usize;
            let gone = acknowledged.swap_remove(at);
            self.store.delete(&gone.commit.key()).unwrap();
        }
    }

    /// Whether everything acknowledged restores.
    fn look(&self, end: bool) -> Result<(), String> {
        let repo = open(Arc::new(self.store.clone()), &Env::fixed(self.env.now(), 1));
        self.restores(&repo)?;
        if !end {
            return Ok(());
        }
        // Everybody is done. What nobody acknowledged may be whole or not; whoever finds it not whole deletes it.
        let known: HashSet<CommitId> =
            self.acknowledged.lock().unwrap().iter().map(|one| one.commit).collect();
        self.env.advance(10 * LEASE_SECONDS * SECOND);
        for _ in 0..4 {
            let options = GcOptions {
                grace: Duration::ZERO,
                threads: 1,
                repack_percent: 100,
                sabotage: if self.is_writer_side() { Sabotage::None } else { self.sabotage },
                ..GcOptions::default()
            };
            let planned = plan(&repo, options, &()).map_err(|error| error.to_string())?;
            for finding in planned.report().findings.iter().filter(|one| one.code == "commit-unreadable") {
                let commit = CommitId::from_key(&finding.what).unwrap();
                if known.contains(&commit) {
                    return Err(format!("an acknowledged commit cannot be followed: {}", finding.message));
                }
                self.store.delete(&finding.what).unwrap();
            }
            planned.execute(&()).map_err(|error| error.to_string())?;
            self.env.advance(SECOND);
        }
        self.restores(&repo)?;
        let index = repo.index().map_err(|error| error.to_string())?;
        let packs = list_all(&self.store, PACKS).unwrap();
        if let Some(stray) = packs
            .iter()
            .find(|pack| PackId::from_key(&pack.key).is_none_or(|id| index.number_of(&id).is_none()))
        {
            return Err(format!("{} is left and nobody names it", stray.key));
        }
        let options = GcOptions { grace: Duration::ZERO, threads: 1, ..GcOptions::default() };
        let fates = plan(&repo, options, &()).map_err(|error| error.to_string())?.report().fates.clone();
        if let Some(fate) = fates.iter().find(|fate| !matches!(fate.fate, Fate::Repack | Fate::Carry)) {
            return Err(format!("{} is left and nobody needs it: {fate:?}", fate.pack));
        }
        let notes = list_all(&self.store, "gc/").unwrap();
        if notes.len() > 1 || !list_all(&self.store, LEASES).unwrap().is_empty() {
            return Err(format!("notes are left: {notes:?}"));
        }
        Ok(())
    }

    fn restores(&self, repo: &Repository) -> Result<(), String> {
        let acknowledged = self.acknowledged.lock().unwrap();
        if acknowledged.is_empty() {
            return Ok(());
        }
        let reader = repo.reader(ReaderOptions { threads: 1, ..ReaderOptions::default() });
        let reader = reader.map_err(|error| error.to_string())?;
        for one in acknowledged.iter() {
            let lost = |error: Error| format!("acknowledged commit {} is lost: {error}", one.commit);
            let manifest = reader.manifest(&one.commit).map_err(lost)?;
            for entry in manifest {
                let number: u64 = entry.name.parse().unwrap();
                if reader.bytes(&entry.root, 1 << 20).map_err(lost)? != block(number) {
                    return Err(format!("acknowledged commit {} reads back as something else", one.commit));
                }
            }
            if !one.blocks.is_empty() && reader.manifest(&one.commit).map_err(lost)?.len() != one.blocks.len()
            {
                return Err(format!("acknowledged commit {} lacks entries", one.commit));
            }
        }
        Ok(())
    }
}

fn number(name: &str, default: u64) -> u64 {
    // A misspelt seed must not pass for the history that was asked for.
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

#[test]
fn r3_no_history_of_writers_and_collectors_loses_an_acknowledged_point() {
    let seeds = match number("HOLDFAST_SEED", 0) {
        0 => 1..number("HOLDFAST_HISTORIES", 120) + 1,
        seed => seed..seed + 1,
    };
    for seed in seeds {
        if let Err(what) = History::new(seed, Sabotage::None).run() {
            panic!("HOLDFAST_SEED={seed}: {what}");
        }
    }
}

/// Each step of the protocol, left out: the histories notice.
#[test]
fn r3_histories_notice_a_step_that_is_left_out() {
    let most = number("HOLDFAST_HISTORIES", 300);
    for sabotage in [Sabotage::WriterLooksNot, Sabotage::CollectorListsNot, Sabotage::CollectorGivesNoVerdict]
    {
        let noticed = (1..=most).find_map(|seed| {
            let what = History::new(seed, sabotage).run().err()?;
            Some((seed, what))
        });
        let Some((seed, what)) = noticed else { panic!("{sabotage:?} was not noticed in {most} histories") };
        println!("{sabotage:?}: noticed by seed {seed}: {what}");
    }
}
