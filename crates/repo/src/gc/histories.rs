//! Simulated histories: writers and collectors whose single store calls are interleaved by one seed.
//!
//! Every actor is a thread that gives the turn away before each store call; exactly one has it, so a seed repeats its
//! history call by call. The store keeps its contract ([`crate::store`]) and nothing beyond: listings come in pages
//! and are not of one moment, times are stamped when a put begins, a call without an answer may have happened, may
//! happen much later, or never. Actors die before or after a call took effect, sleep at the worst moments (right before
//! a commit, after a verdict), clocks jump (the store's and each writer's own), recovery points are deleted, and now
//! and then 24 writers are at work at once. What must hold, whatever happens:
//!
//! - every acknowledged commit that was not deleted restores byte by byte and is listed, at the end and in between;
//! - no writer is refused while its lease is good, unless the store's clock was set back;
//! - in the end nothing is left that no recovery point needs, and nothing is left to be done.
//!
//! In histories with people (`histories/people.rs`) points are also held and deleted as the commands do it; in those with
//! pieces (`histories/pieces.rs`) points are also put together from what several nodes wrote.
//!
//! A failure names its seed: `HOLDFAST_SEED=<n> cargo test -p repo no_history_of_writers -- --nocapture` runs that history
//! alone and prints every call (`no_history_of_holds` for those with people, `no_history_of_pieces`).
//! `HOLDFAST_HISTORIES=<n>` runs so many, from `HOLDFAST_FIRST` on. That the test can fail is a test: each step of the protocol is left out in
//! turn, and the histories notice. (`HOLDFAST_STEP=WriterLooksNot` leaves out that one only.)

#[cfg(test)]
mod people;
#[cfg(test)]
mod pieces;
#[cfg(test)]
mod sim;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::env::Env;
use crate::id::{CommitId, PACKS};
use crate::lease::{HistoryKind as Kind, LEASES, VOID_KEPT};
use crate::reader::ReaderOptions;
use crate::store::mem::MemStore;
use crate::store::{Object, Store, list_all};
use crate::{
    ChunkBytes, CommitDraft, EntryKind, InitOptions, Kdf, Lane, ManifestEntry, Passphrase, Writer,
    WriterOptions,
};

use sim::{
    Acknowledged, Actor, BEGIN, Clock, Dice, Hand, LEASE_SECONDS, Order, People, Role, SECOND, Sim, State,
    Turn, World,
};

/// The content of a block: histories write few different ones, so that they share. Every third has more than a chunk.
fn block(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; if number.is_multiple_of(3) { 700 } else { 60 }];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

const BLOCKS: u64 = 10;

/// An empty repository, the same for all histories: making keys is dear.
fn empty() -> &'static (Repository, BTreeMap<String, Bytes>) {
    static EMPTY: OnceLock<(Repository, BTreeMap<String, Bytes>)> = OnceLock::new();
    EMPTY.get_or_init(|| {
        let store = MemStore::new();
        let options = InitOptions {
            kdf: Kdf::cheap(),
            chunk_bytes: ChunkBytes { min: 64, avg: 256, max: 1024 },
            ..InitOptions::default()
        };
        let env = Env::fixed(BEGIN, 1);
        let repo = Repository::init(Arc::new(store.clone()), &Passphrase::new("p"), &options, &env).unwrap();
        (repo, store.snapshot())
    })
}

fn open(hand: Hand, env: &Env) -> Repository {
    let repo = empty().0.elsewhere(Arc::new(hand), env).unwrap();
    repo.set_fetchers(1);
    repo
}

struct History {
    sabotage: Sabotage,
    sim: Arc<Sim>,
}

impl History {
    fn new(seed: u64, sabotage: Sabotage, kind: Kind) -> History {
        let mut dice = Dice(seed);
        let clock = [Clock::Steady, Clock::Leaping, Clock::Leaping, Clock::Wrong][dice.below(4) as usize];
        let faults = dice.hit(50);
        let (writers, crowd) = match dice.below(40) {
            0 => (24, 30),
            1..5 => (8, 8),
            _ => (1 + dice.below(4), 6),
        };
        let collectors = 1 + dice.below(3);
        let mut to_come: Vec<Role> = (0..writers).map(|_| Role::Writer).collect();
        to_come.extend((0..collectors).map(|_| Role::Collector));
        let requests = (kind == Kind::Pieces).then(|| pieces::to_come(&mut dice, &mut to_come));
        for at in (1..to_come.len()).rev() {
            to_come.swap(at, dice.below(at as u64 + 1) as usize);
        }
        let objects = empty().1.iter().map(|(key, bytes)| (key.clone(), (bytes.clone(), BEGIN))).collect();
        let world = World {
            objects,
            now: BEGIN + 3_600 * SECOND,
            clock,
            faults,
            crowd,
            told: number("HOLDFAST_SEED", 0) != 0,
            step: 0,
            calls: 0,
            dice,
            actors: Vec::new(),
            to_come,
            late: Vec::new(),
            guests: 0,
            streak: (0, 0),
            order: None,
            acknowledged: Vec::new(),
            told_points: 0,
            wrong: Vec::new(),
            people: (kind == Kind::People).then(People::default),
            requests,
        };
        History { sabotage, sim: Arc::new(Sim { world: Mutex::new(world), director: Condvar::new() }) }
    }

    fn writer_sabotage(&self) -> Sabotage {
        let of_writers =
            self.sabotage.is_of_writers() || self.sabotage == Sabotage::OperatorMindsNotThatPiecesGo;
        if of_writers { self.sabotage } else { Sabotage::None }
    }

    fn collector_sabotage(&self) -> Sabotage {
        if self.sabotage.is_of_collectors() { self.sabotage } else { Sabotage::None }
    }

    /// Begins an actor, and gives it the turn.
    fn spawn<'s>(&'s self, scope: &'s std::thread::Scope<'s, '_>, role: Role) {
        let mut world = self.sim.lock();
        let at = world.actors.len();
        world.actors.push(Actor {
            role,
            state: State::Running,
            dead: false,
            verb: "",
            half_done: false,
            sentenced: false,
            asleep_until: 0,
            asleep_for: Vec::new(),
            leased: None,
            bell: Arc::default(),
        });
        let mut dice = Dice(world.dice.roll());
        // Everybody's own clock is somewhere, and writers' stand still: nobody knows that a lease ran out.
        let env = Env::fixed(world.now + (dice.below(5_000) as i64 - 2_500) * SECOND, dice.roll());
        drop(world);
        let hand = Hand { sim: self.sim.clone(), actor: Some(at), retries: dice.hit(60) };
        scope.spawn(move || {
            let _turn = Turn(&self.sim, at);
            let repo = open(hand, &env);
            match role {
                Role::Writer => self.write(&repo, &mut dice, at),
                Role::Collector => self.collect(&repo, &mut dice),
                Role::Deleter => self.delete(&repo, &mut dice),
                Role::Holder => self.hold(&repo, &mut dice),
                Role::Node(request) => self.write_piece(&repo, &mut dice, at, request),
                Role::Operator(request) => self.operate(&repo, &mut dice, at, request),
            }
        });
    }

    fn writer_options(&self) -> WriterOptions {
        WriterOptions {
            threads: 1,
            uploads: 1,
            memory_bytes: 4 << 20,
            lease: Duration::from_secs(LEASE_SECONDS as u64),
            sabotage: self.writer_sabotage(),
            ..WriterOptions::default()
        }
    }

    /// What somebody is to write.
    fn some_blocks(&self, dice: &mut Dice) -> Vec<u64> {
        let (count, first) = (1 + dice.below(4), dice.below(BLOCKS));
        (0..count).map(|at| (first + at) % BLOCKS).collect()
    }

    /// Writes blocks.
    fn entries(&self, writer: &Writer, blocks: &[u64]) -> Result<Vec<ManifestEntry>, Error> {
        let mut entries = Vec::new();
        for number in blocks {
            let mut stream = writer.stream(Lane::Data);
            stream.append(&block(*number))?;
            let root = stream.finish()?;
            let name = format!("{number:04}");
            entries.push(ManifestEntry { name, kind: EntryKind::Bytes, root, figures: Default::default() });
        }
        Ok(entries)
    }

    fn write(&self, repo: &Repository, dice: &mut Dice, at: usize) {
        let blocks = self.some_blocks(dice);
        let committed = repo.writer(self.writer_options()).and_then(|writer| {
            let manifest = self.entries(&writer, &blocks)?;
            writer.commit(CommitDraft { kind: "sim".into(), manifest, ..CommitDraft::default() })
        });
        let mut world = self.sim.lock();
        match committed {
            Ok(info) => {
                world.told_points += 1;
                world.acknowledged.push(Acknowledged { commit: info.id, blocks });
                self.may_attract(&mut world);
            }
            Err(error) => world.refused(at, &error),
        }
    }

    fn collect(&self, repo: &Repository, dice: &mut Dice) {
        let options = GcOptions {
            grace: Duration::from_secs([0, 0, 120][dice.below(3) as usize]),
            repack_percent: [0, 50, 95][dice.below(3) as usize],
            threads: 1,
            sabotage: self.collector_sabotage(),
            ..GcOptions::default()
        };
        // What it could not do the next run does.
        let _ = plan(repo, options, &()).and_then(|plan| plan.execute(&()));
    }

    /// One call after the other until all have ended.
    fn run(&self) -> Result<(), String> {
        std::thread::scope(|scope| {
            self.sim.lock().pass(&self.sim.director);
            loop {
                let mut world = self.sim.lock();
                while world.order.is_none() {
                    world = self.sim.director.wait(world).unwrap();
                }
                let order = world.order.take();
                drop(world);
                match order {
                    Some(Order::Spawn(role)) => self.spawn(scope, role),
                    Some(Order::Look) => {
                        if let Err(what) = self.restores() {
                            let mut world = self.sim.lock();
                            world.wrong.push(what);
                        }
                        self.sim.lock().pass(&self.sim.director);
                    }
                    Some(Order::End) | None => break,
                }
            }
        });
        if let Some(what) = self.sim.lock().wrong.first() {
            return Err(what.clone());
        }
        self.end()
    }

    /// Everybody is done.
    fn end(&self) -> Result<(), String> {
        self.restores()?;
        let told = |error: Error| error.to_string();
        let known: HashSet<CommitId> = {
            let mut world = self.sim.lock();
            // What was on its way arrives.
            world.step = u64::MAX;
            world.happen();
            world.now += VOID_KEPT + 2 * MARK_KEPT;
            let held = world.people.iter().flat_map(|people| &people.held);
            let pieces = world.pieces().into_iter().map(|(piece, _)| piece);
            world.acknowledged.iter().chain(held).map(|one| one.commit).chain(pieces).collect()
        };
        let hand = Hand { sim: self.sim.clone(), actor: None, retries: false };
        let repo = open(hand.clone(), &Env::fixed(self.sim.lock().now, 1));
        self.settle(&hand, &repo)?;
        let options = || GcOptions {
            grace: Duration::ZERO,
            threads: 1,
            repack_percent: 100,
            sabotage: self.collector_sabotage(),
            ..GcOptions::default()
        };
        let mut idle = false;
        for _ in 0..6 {
            let planned = plan(&repo, options(), &()).map_err(told)?;
            // What nobody acknowledged may be whole or not; whoever finds it not whole deletes it.
            for finding in planned.report().findings.iter().filter(|one| one.code == "commit-unreadable") {
                let commit = CommitId::from_key(&finding.what).unwrap();
                if known.contains(&commit) {
                    return Err(format!("an acknowledged commit cannot be followed: {}", finding.message));
                }
                hand.delete(&finding.what).unwrap();
            }
            let blocked = planned.report().is_blocked();
            let done = planned.execute(&()).map_err(told)?;
            self.sim.lock().now += 100 * SECOND;
            if !blocked && done == Collected::default() {
                idle = true;
                break;
            }
        }
        if !idle {
            return Err("collections find something to do again and again".into());
        }
        self.restores()?;
        let index = repo.index().map_err(told)?;
        let packs = list_all(&hand, PACKS).unwrap();
        let named =
            |pack: &Object| PackId::from_key(&pack.key).is_some_and(|id| index.number_of(&id).is_some());
        if let Some(stray) = packs.iter().find(|pack| !named(pack)) {
            return Err(format!("{} is left and nobody names it", stray.key));
        }
        let left = list_all(&hand, "gc/").unwrap();
        if left.len() > 1 || !list_all(&hand, LEASES).unwrap().is_empty() {
            return Err(format!("notes are left: {left:?}"));
        }
        Ok(())
    }

    /// Whether everything acknowledged restores.
    fn restores(&self) -> Result<(), String> {
        let acknowledged: Vec<(CommitId, Vec<u64>)> = {
            let world = self.sim.lock();
            let points = world.acknowledged.iter().map(|one| (one.commit, one.blocks.clone()));
            points.chain(world.pieces()).collect()
        };
        if acknowledged.is_empty() {
            return Ok(());
        }
        let hand = Hand { sim: self.sim.clone(), actor: None, retries: false };
        let repo = open(hand, &Env::fixed(BEGIN, 1));
        let told = |error: Error| error.to_string();
        let listed = repo.commit_ids().map_err(told)?;
        let reader = repo.reader(ReaderOptions { threads: 1, ..ReaderOptions::default() }).map_err(told)?;
        let mut read: HashMap<crate::Root, Vec<u8>> = HashMap::new();
        for (commit, blocks) in acknowledged {
            let lost = |error: Error| format!("acknowledged commit {commit} is lost: {error}");
            if !listed.contains(&commit) {
                return Err(format!("acknowledged commit {commit} is not listed"));
            }
            let manifest = reader.manifest(&commit).map_err(lost)?;
            if manifest.len() != blocks.len() {
                return Err(format!("acknowledged commit {commit} lacks entries"));
            }
            for entry in manifest {
                let number = pieces::block_of(&entry);
                let bytes = match read.get(&entry.root) {
                    Some(bytes) => bytes,
                    None => {
                        let bytes = reader.bytes(&entry.root, 1 << 20).map_err(lost)?;
                        read.entry(entry.root).or_insert(bytes)
                    }
                };
                if *bytes != block(number) {
                    return Err(format!("acknowledged commit {commit} reads back as something else"));
                }
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

/// Runs these on all processors. The first that goes wrong, and what; or sums of actors, calls and points.
fn run_all(seeds: Range<u64>, sabotage: Sabotage, kind: Kind) -> Result<[u64; 3], (u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let sums = [const { AtomicU64::new(0) }; 3];
    let wrong: Mutex<Option<(u64, String)>> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let history = History::new(seed, sabotage, kind);
            if let Err(what) = history.run() {
                next.store(seeds.end, Ordering::Relaxed);
                let mut wrong = wrong.lock().unwrap();
                if wrong.as_ref().is_none_or(|(first, _)| seed < *first) {
                    *wrong = Some((seed, what));
                }
            }
            let world = history.sim.lock();
            for (sum, more) in sums.iter().zip([world.actors.len() as u64, world.calls, world.told_points]) {
                sum.fetch_add(more, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    match wrong.into_inner().unwrap() {
        Some(wrong) => Err(wrong),
        None => Ok(sums.map(AtomicU64::into_inner)),
    }
}

/// The seeds that are asked for.
fn no_history_is_wrong(kind: Kind) {
    let seeds = match number("HOLDFAST_SEED", 0) {
        0 => {
            let first = number("HOLDFAST_FIRST", 1);
            first..first + number("HOLDFAST_HISTORIES", 500)
        }
        seed => seed..seed + 1,
    };
    match run_all(seeds.clone(), Sabotage::None, kind) {
        Ok([actors, calls, points]) => {
            println!(
                "{kind:?}, histories {seeds:?}: {actors} actors, {calls} calls, {points} points acknowledged, none lost"
            );
        }
        Err((seed, what)) => panic!("HOLDFAST_SEED={seed}: {what}"),
    }
}

#[test]
fn r3_no_history_of_writers_and_collectors_loses_an_acknowledged_point() {
    no_history_is_wrong(Kind::Writers);
}

#[test]
fn r3_no_history_of_holds_and_deletions_loses_a_held_point() {
    no_history_is_wrong(Kind::People);
}

#[test]
fn r3_no_history_of_pieces_loses_an_acknowledged_point() {
    no_history_is_wrong(Kind::Pieces);
}

/// Each step of the protocol, left out: the histories notice. Beginning with those that long runs have shown to, so that
/// it takes seconds; if the histories change these move, and the search goes on from there.
#[test]
fn r3_histories_notice_a_step_that_is_left_out() {
    let most = number("HOLDFAST_HISTORIES", 2_000);
    let from = number("HOLDFAST_FIRST", 0);
    let mut missed = Vec::new();
    for (sabotage, first) in Sabotage::ALL {
        if std::env::var("HOLDFAST_STEP").is_ok_and(|step| step != format!("{sabotage:?}")) {
            continue;
        }
        let first = if from > 0 { from } else { first };
        match run_all(first..first + most, sabotage, sabotage.kind()) {
            Err((seed, what)) => println!("{sabotage:?}: noticed by seed {seed}: {what}"),
            Ok(_) => missed.push(sabotage),
        }
    }
    assert!(missed.is_empty(), "not noticed in {most} histories: {missed:?}");
}
