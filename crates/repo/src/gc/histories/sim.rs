//! The world of a simulated history: its store, its clock, its dice, and who has the turn.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::pieces::Request;
use crate::error::Error;
use crate::id::{COMMITS, CommitId, HOLDS, INDEX, PACKS};
use crate::lease::LEASES;
use crate::store::{Object, Put, Store, StoreError};

pub(super) const SECOND: i64 = 1_000_000_000;
pub(super) const LEASE_SECONDS: i64 = 600;
pub(super) const BEGIN: i64 = 1_700_000_000 * SECOND;
/// How much earlier than it can be seen an object may be stamped.
pub(super) const STAMP_SECONDS: u64 = 30;

/// Histories end.
pub(super) const GUESTS_MAX: usize = 5;

/// SplitMix64.
#[derive(Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub(super) fn hit(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the store's clock does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clock {
    /// It goes slowly: no lease runs out.
    Steady,
    /// It leaps ahead: leases run out under those at work.
    Leaping,
    /// It is set back, too.
    Wrong,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Writer,
    Collector,
    /// Deletes a recovery point.
    Deleter,
    /// Places a hold on one.
    Holder,
    /// Writes a piece of a point.
    Node(usize),
    /// Puts the pieces of a point together.
    Operator(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Running,
    Waiting,
    Ended,
}

pub(super) struct Actor {
    pub(super) role: Role,
    pub(super) state: State,
    pub(super) dead: bool,
    /// What it is about to do, or did last.
    pub(super) verb: &'static str,
    /// It has put a verdict, and nothing after that.
    pub(super) half_done: bool,
    /// It has put a verdict.
    pub(super) sentenced: bool,
    /// Not before this step, unless everybody sleeps ...
    pub(super) asleep_until: u64,
    /// ... or these have ended.
    pub(super) asleep_for: Vec<usize>,
    /// When its lease was put, by the store's clock.
    pub(super) leased: Option<i64>,
    pub(super) bell: Arc<Condvar>,
}

/// A call without an answer that takes effect later.
pub(super) enum Late {
    Put(String, Bytes),
    Delete(String),
}

impl Late {
    pub(super) fn key(&self) -> &str {
        match self {
            Late::Put(key, _) | Late::Delete(key) => key,
        }
    }
}

/// What the director is to do while nobody else runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Spawn(Role),
    Look,
    End,
}

pub(super) struct Acknowledged {
    pub(super) commit: CommitId,
    pub(super) blocks: Vec<u64>,
}

/// People who hold and delete points, and what must be true of these.
#[derive(Default)]
pub(super) struct People {
    /// Somebody is deleting these, or did; nobody counts on them unless they are held.
    pub(super) leaving: Vec<Acknowledged>,
    /// Somebody is about to hold these.
    pub(super) wanted: HashSet<CommitId>,
    /// Somebody was told that these are held.
    pub(super) held: Vec<Acknowledged>,
    /// Of which somebody died while he deleted them, or got no answer: a held one is brought back from a copy.
    pub(super) in_doubt: HashSet<CommitId>,
    /// A put without an answer came late and brought these back after they were deleted: whoever holds them then holds
    /// what is left of them, and nobody can help it.
    pub(super) ghosts: HashSet<CommitId>,
    /// Every commit there ever was.
    pub(super) copies: HashMap<String, Bytes>,
    /// How many came because there was something to delete or to hold.
    pub(super) came: usize,
}

/// Everything there is, under one lock.
pub(super) struct World {
    pub(super) objects: BTreeMap<String, (Bytes, i64)>,
    pub(super) now: i64,
    pub(super) clock: Clock,
    pub(super) faults: bool,
    pub(super) crowd: usize,
    /// Whether every call is printed.
    pub(super) told: bool,
    pub(super) step: u64,
    pub(super) calls: u64,
    pub(super) dice: Dice,
    pub(super) actors: Vec<Actor>,
    pub(super) to_come: Vec<Role>,
    pub(super) late: Vec<(u64, Late)>,
    /// How often somebody came because somebody slept.
    pub(super) guests: usize,
    /// Who keeps the turn, and for how many calls.
    pub(super) streak: (usize, u64),
    pub(super) order: Option<Order>,
    /// Acknowledged, and not deleted since.
    pub(super) acknowledged: Vec<Acknowledged>,
    /// How many were acknowledged.
    pub(super) told_points: u64,
    pub(super) wrong: Vec<String>,
    /// In some histories.
    pub(super) people: Option<People>,
    /// In some histories: points that several write.
    pub(super) requests: Option<Vec<Request>>,
}

pub(super) struct Sim {
    pub(super) world: Mutex<World>,
    pub(super) director: Condvar,
}

impl Sim {
    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        // Who panicked is told of when its thread is joined.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn delete_one(&mut self) {
        if !self.acknowledged.is_empty() {
            let at = self.dice.below(self.acknowledged.len() as u64) as usize;
            let chosen = self.acknowledged[at].commit;
            if self.people.as_ref().is_some_and(|people| people.wanted.contains(&chosen)) {
                // It is deleted as the command does it, or not at all.
                return;
            }
            let gone = self.acknowledged.swap_remove(at);
            if self.told {
                println!("{:5} somebody deletes {}", self.step, gone.commit);
            }
            self.objects.remove(&gone.commit.key());
        }
    }

    /// Who is refused runs again, and nothing is lost. But it is not for nothing.
    pub(super) fn refused(&mut self, at: usize, error: &Error) {
        if !matches!(error, Error::Collected { .. } | Error::Missing { .. }) {
            return;
        }
        let good = self.actors[at].leased.is_some_and(|at| self.now < at + LEASE_SECONDS * SECOND);
        if good && self.clock != Clock::Wrong {
            self.wrong.push(format!("a writer was refused although its lease is good: {error}"));
        }
    }

    fn put(&mut self, key: &str, bytes: &Bytes) -> Put {
        if self.objects.contains_key(key) {
            return Put::Exists;
        }
        let stamp = self.now - self.dice.below(STAMP_SECONDS) as i64 * SECOND;
        self.objects.insert(key.to_owned(), (Bytes::copy_from_slice(bytes), stamp));
        if let Some(people) = self.people.as_mut().filter(|_| key.starts_with(COMMITS)) {
            people.copies.insert(key.to_owned(), Bytes::copy_from_slice(bytes));
        }
        Put::Created
    }

    fn is_waiting(&self, at: usize) -> bool {
        self.actors[at].state == State::Waiting
    }

    fn is_awake(&self, at: usize) -> bool {
        let actor = &self.actors[at];
        actor.asleep_until <= self.step
            || (!actor.asleep_for.is_empty()
                && actor
                    .asleep_for
                    .iter()
                    .all(|other| self.actors.get(*other).is_some_and(|other| other.state == State::Ended)))
    }

    /// Gives the turn to somebody: an actor, or the director.
    pub(super) fn pass(&mut self, director: &Condvar) {
        let waiting: Vec<usize> = (0..self.actors.len()).filter(|at| self.is_waiting(*at)).collect();
        let room = waiting.len() < self.crowd && !self.to_come.is_empty();
        let order = match (room, waiting.is_empty()) {
            (true, true) => self.to_come.pop().map(Order::Spawn),
            (true, false) if self.dice.hit(5) => self.to_come.pop().map(Order::Spawn),
            (false, true) => Some(Order::End),
            _ if self.dice.below(1_500) == 0 => Some(Order::Look),
            _ => None,
        };
        if order.is_some() {
            self.order = order;
            director.notify_one();
            return;
        }
        self.step += 1;
        self.calls += 1;
        let awake: Vec<usize> = waiting.iter().copied().filter(|at| self.is_awake(*at)).collect();
        let waiting = if awake.is_empty() { waiting } else { awake };
        let chosen = match self.streak {
            (actor, left) if left > 0 && waiting.contains(&actor) => {
                self.streak.1 -= 1;
                actor
            }
            _ => {
                let actor = waiting[self.dice.below(waiting.len() as u64) as usize];
                // Some get many turns: a collection that runs through while a writer sleeps.
                let turns = if self.dice.hit(15) { self.dice.below(60) } else { 0 };
                self.streak = (actor, turns);
                actor
            }
        };
        self.happen();
        let actor = &mut self.actors[chosen];
        actor.state = State::Running;
        actor.bell.notify_one();
    }

    /// What happens between two calls without anybody's doing.
    pub(super) fn happen(&mut self) {
        match (self.dice.below(400), self.clock) {
            (0, _) => self.delete_one(),
            (2..8, Clock::Leaping | Clock::Wrong) => self.now += self.dice.below(900) as i64 * SECOND,
            (8..10, Clock::Wrong) => self.now -= self.dice.below(300) as i64 * SECOND,
            (10..20, _) => self.now += self.dice.below(20) as i64 * SECOND,
            (20..28, _) => self.now += SECOND / 100,
            _ => {}
        }
        let step = self.step;
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= step);
        self.late = late;
        for (_, effect) in due {
            if self.told {
                println!("{step:5} late: {}", effect.key());
            }
            match effect {
                Late::Put(key, bytes) => {
                    if let Some(people) = &mut self.people
                        && people.copies.contains_key(&key)
                        && !self.objects.contains_key(&key)
                    {
                        people.ghosts.extend(CommitId::from_key(&key));
                    }
                    self.put(&key, &bytes);
                }
                Late::Delete(key) => _ = self.objects.remove(&key),
            }
        }
    }

    /// Somebody removes the last verdict by hand, which has closed the others; no collection is running.
    fn delete_verdict(&mut self) {
        let runs = |actor: &Actor| actor.role == Role::Collector && actor.state != State::Ended;
        if self.actors.iter().any(runs) {
            return;
        }
        let last = self.objects.range("gc/verdict-".to_owned().."gc/verdict-~".to_owned()).next_back();
        if let Some(key) = last.filter(|(_, (bytes, _))| bytes.len() < 88).map(|(key, _)| key.clone()) {
            if self.told {
                println!("{:5} somebody deletes {key}", self.step);
            }
            self.objects.remove(&key);
        }
    }

    /// Where holds and deletions are, the moments are others.
    fn maybe_sleep_among_people(&mut self, at: usize, verb: &'static str, key: &str) {
        let (role, last) = (self.actors[at].role, self.actors[at].verb);
        let chance = match (role, verb, last) {
            (Role::Deleter, "delete", _) if key.starts_with(COMMITS) => 60,
            (Role::Deleter, "list", "delete") if key.starts_with(HOLDS) => 60,
            (Role::Deleter, "delete", _) => 20,
            (Role::Holder, "put", _) => 60,
            (Role::Holder, "size", "put") => 60,
            (Role::Collector, "list", "list") if key == "gc/" => 15,
            _ => 0,
        };
        if chance == 0 || !self.dice.hit(chance) {
            return;
        }
        let steps = 20 + self.dice.below(200);
        self.actors[at].asleep_until = self.step + steps;
        let came = self.people.as_ref().map_or(0, |people| people.came);
        match (role, verb) {
            // Who holds it has seen it by then.
            (Role::Deleter, "delete") if key.starts_with(COMMITS) && came < 8 => {
                self.come(Role::Holder);
            }
            (Role::Deleter, "list") if self.guests < GUESTS_MAX => {
                self.guests += 1;
                let first = self.actors.len();
                self.to_come.push(Role::Collector);
                self.actors[at].asleep_for = vec![first];
                self.actors[at].asleep_until = self.step + 2_000;
            }
            // Until whoever is deleting is through.
            (Role::Holder, "size") => {
                let deleting = |at: &usize| {
                    self.actors[*at].role == Role::Deleter && self.actors[*at].state != State::Ended
                };
                self.actors[at].asleep_for = (0..self.actors.len()).filter(deleting).collect();
                self.actors[at].asleep_until = self.step + 2_000;
            }
            _ => {}
        }
    }

    /// Somebody comes.
    pub(super) fn come(&mut self, role: Role) {
        if let Some(people) = self.people.as_mut().filter(|people| people.came < 12) {
            people.came += 1;
            self.to_come.push(role);
        }
    }

    /// Where pieces are, the moments are those between a collector's verdict and what it sees of commits, and between an
    /// operator's look and what it deletes. Whether it sleeps.
    fn maybe_sleep_among_pieces(&mut self, at: usize, verb: &'static str, key: &str) -> bool {
        let (role, sentenced) = (self.actors[at].role, self.actors[at].sentenced);
        let piece_of = if verb == "get" { self.request_with(key) } else { None };
        let chance = match (role, verb) {
            // It has seen a part of the commits, or their names, and others may go before it reads them.
            (Role::Collector, "page") if sentenced && key == COMMITS => 60,
            (Role::Collector, "get") if sentenced && piece_of.is_some() => 70,
            (Role::Collector, "list") if !sentenced && key == LEASES => 15,
            (Role::Operator(_), "put") if key.starts_with(COMMITS) => 30,
            (Role::Operator(_), "put") if key.starts_with("gc/deletion-") => 15,
            (Role::Operator(_), "delete") if key.starts_with(COMMITS) => 15,
            _ => 0,
        };
        if chance == 0 || !self.dice.hit(chance) {
            return false;
        }
        self.actors[at].asleep_until = self.step + 30 + self.dice.below(200);
        let first = self.actors.len();
        match role {
            Role::Operator(request) => {
                self.summon(Some(request));
                let hits = verb == "put" && key.starts_with(COMMITS) && self.dice.hit(30);
                if hits && self.delete_piece(request) && self.guests < GUESTS_MAX {
                    // And what only the piece needed goes.
                    if self.clock != Clock::Steady {
                        self.now += (LEASE_SECONDS + 60) * SECOND;
                    }
                    self.guests += 1;
                    self.to_come.extend([Role::Collector; 2]);
                    self.actors[at].asleep_for = vec![first, first + 1];
                    self.actors[at].asleep_until = self.step + 2_000;
                } else if self.guests < GUESTS_MAX {
                    self.guests += 1;
                    self.to_come.push(Role::Collector);
                }
            }
            _ if self.summon(piece_of) => {
                // Until the operator is through.
                self.actors[at].asleep_for = vec![first];
                self.actors[at].asleep_until = self.step + 2_000;
            }
            _ => {}
        }
        true
    }

    /// Who is about to do something that others should come in between of goes to sleep.
    fn maybe_sleep(&mut self, at: usize, verb: &'static str, key: &str) {
        if self.people.is_some() {
            self.maybe_sleep_among_people(at, verb, key);
        }
        let sleeps = self.requests.is_some() && self.maybe_sleep_among_pieces(at, verb, key);
        let actor = &self.actors[at];
        let role = match actor.role {
            Role::Node(_) | Role::Operator(_) => Role::Writer,
            role => role,
        };
        let last = actor.verb;
        let chance = match (role, verb, last) {
            (Role::Writer, "put", _) if key.starts_with(COMMITS) => 40,
            // Its commit is there, and it has not looked yet.
            (Role::Writer, "list", "put commit") => 25,
            (Role::Writer, "list", _) if key == PACKS => 10,
            (Role::Writer, "list", _) if key == INDEX => 10,
            (Role::Collector, "put", _) if key.starts_with("gc/verdict") => 20,
            (Role::Collector, _, "put verdict") => 30,
            (Role::Collector, "delete", _) if key.starts_with(PACKS) => 15,
            (Role::Collector, "delete", _) if key.starts_with(INDEX) => 15,
            (Role::Collector, "delete", _) if key.starts_with("gc/verdict") => 10,
            _ => 0,
        };
        self.actors[at].half_done = last == "put verdict";
        self.actors[at].sentenced |= last == "put verdict";
        self.actors[at].verb = match verb {
            "put" if key.starts_with(COMMITS) => "put commit",
            "put" if key.starts_with("gc/verdict") => "put verdict",
            verb => verb,
        };
        if sleeps || chance == 0 || !self.dice.hit(chance) {
            return;
        }
        let crowd = self.actors.iter().filter(|actor| actor.state != State::Ended).count();
        let steps = 30 + self.dice.below(200);
        self.actors[at].asleep_until = self.step + steps;
        if crowd > 8 || self.guests >= GUESTS_MAX {
            return;
        }
        self.guests += 1;
        if role == Role::Collector {
            // Others begin meanwhile.
            let sentenced = last == "put verdict" || key.starts_with(PACKS);
            let guest = if sentenced || self.dice.hit(40) { Role::Writer } else { Role::Collector };
            self.to_come.push(guest);
            return;
        }
        self.delete_one();
        if (self.people.is_some() || self.requests.is_some()) && self.dice.hit(50) {
            self.delete_verdict();
        }
        if self.clock != Clock::Steady {
            self.now += (LEASE_SECONDS + 60) * SECOND;
        }
        let collections = 1 + self.dice.below(2);
        self.to_come.extend((0..collections).map(|_| Role::Collector));
        // Until they are through, whatever that takes.
        let first = self.actors.len();
        self.actors[at].asleep_for = (first..first + collections as usize).collect();
        self.actors[at].asleep_until = self.step + 2_000;
    }
}

/// The store as one actor has it: every call waits for its turn. Without an actor: as it is.
#[derive(Clone)]
pub(super) struct Hand {
    pub(super) sim: Arc<Sim>,
    pub(super) actor: Option<usize>,
    /// Calls without an answer are made again.
    pub(super) retries: bool,
}

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hand {:?}", self.actor)
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Fine,
    /// Without an answer, and it did not happen.
    Lost,
    /// It happened, without an answer.
    Unanswered,
    /// It will happen later, without an answer.
    Late,
    /// It happened, and whoever made it died.
    Last,
}

pub(super) fn died(key: &str) -> StoreError {
    StoreError::Other { key: key.into(), url: "sim".into(), reason: "died".into() }
}

pub(super) fn unanswered(key: &str) -> StoreError {
    StoreError::Unavailable { key: key.into(), url: "sim".into(), reason: "no answer".into() }
}

impl Hand {
    /// Waits for the turn and says what is to become of the call.
    fn turn(&self, verb: &'static str, key: &str) -> Result<(MutexGuard<'_, World>, Fate), StoreError> {
        let mut world = self.sim.lock();
        let Some(at) = self.actor else { return Ok((world, Fate::Fine)) };
        if world.actors[at].dead {
            return Err(died(key));
        }
        world.maybe_sleep(at, verb, key);
        world.actors[at].state = State::Waiting;
        let bell = world.actors[at].bell.clone();
        world.pass(&self.sim.director);
        while world.actors[at].state == State::Waiting {
            world = bell.wait(world).unwrap();
        }
        let changes = verb == "put" || verb == "delete";
        // Half-done work is what others have to cope with.
        let deadly = if world.actors[at].half_done { 100 } else { 3 };
        world.actors[at].half_done = false;
        let fate = match world.dice.below(1_000) {
            chance if chance < deadly => {
                if world.told {
                    println!("{:5} {at:2} {:?} dies before {verb} {key}", world.step, world.actors[at].role);
                }
                world.actors[at].dead = true;
                return Err(died(key));
            }
            3..6 if changes => Fate::Last,
            6..9 if world.faults && changes => Fate::Lost,
            9..12 if world.faults && changes => Fate::Unanswered,
            // A deletion that comes late takes a held point with it, and nobody can help it.
            12..20
                if world.faults
                    && changes
                    && !(world.people.is_some() && key.starts_with(COMMITS) && verb == "delete") =>
            {
                Fate::Late
            }
            6..8 if world.faults && !self.retries => return Err(unanswered(key)),
            _ => Fate::Fine,
        };
        if fate == Fate::Last {
            world.actors[at].dead = true;
        }
        if world.told {
            let (step, role) = (world.step, world.actors[at].role);
            println!("{step:5} {at:2} {role:?} {verb} {key} {fate:?}");
        }
        Ok((world, fate))
    }

    fn put_once(&self, key: &str, bytes: &Bytes) -> Result<Put, StoreError> {
        let (mut world, fate) = self.turn("put", key)?;
        if matches!(fate, Fate::Fine | Fate::Unanswered | Fate::Last) {
            let put = world.put(key, bytes);
            if let Some(at) = self.actor
                && key.starts_with(LEASES)
                && world.actors[at].leased.is_none()
            {
                world.actors[at].leased = Some(world.objects[key].1);
            }
            if fate == Fate::Fine {
                return Ok(put);
            }
        } else if fate == Fate::Late {
            let due = world.step + 1 + world.dice.below(400);
            world.late.push((due, Late::Put(key.to_owned(), Bytes::copy_from_slice(bytes))));
        }
        Err(if fate == Fate::Last { died(key) } else { unanswered(key) })
    }

    fn delete_once(&self, key: &str) -> Result<(), StoreError> {
        let (mut world, fate) = self.turn("delete", key)?;
        if matches!(fate, Fate::Fine | Fate::Unanswered | Fate::Last) {
            world.objects.remove(key);
            if fate == Fate::Fine {
                return Ok(());
            }
        } else if fate == Fate::Late {
            let due = world.step + 1 + world.dice.below(400);
            world.late.push((due, Late::Delete(key.to_owned())));
        }
        Err(if fate == Fate::Last { died(key) } else { unanswered(key) })
    }

    fn again<T>(&self, mut call: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        loop {
            match call() {
                Err(error) if error.is_unavailable() && self.retries => {}
                answer => return answer,
            }
        }
    }

    fn find(&self, verb: &'static str, key: &str) -> Result<Bytes, StoreError> {
        let (world, _) = self.turn(verb, key)?;
        let missing = || StoreError::NotFound { key: key.to_owned(), url: "sim".into() };
        world.objects.get(key).map(|(bytes, _)| bytes.clone()).ok_or_else(missing)
    }
}

impl Store for Hand {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.again(|| self.put_once(key, &bytes))
    }
    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.find("get", key)
    }
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let bytes = self.find("get", key)?;
        let end = crate::store::range_end(key, "sim", offset, len, bytes.len() as u64)?;
        Ok(bytes.slice(offset as usize..end as usize))
    }
    fn size(&self, key: &str) -> Result<u64, StoreError> {
        Ok(self.find("size", key)?.len() as u64)
    }
    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let object = |(key, (bytes, stamp)): (&String, &(Bytes, i64))| Object {
            key: key.clone(),
            size: bytes.len() as u64,
            modified: *stamp,
        };
        let below = |world: &World| -> Vec<Object> {
            let from = world.objects.range(prefix.to_owned()..);
            from.take_while(|(key, _)| key.starts_with(prefix)).map(object).collect()
        };
        let (mut world, _) = self.turn("list", prefix)?;
        let mut found = below(&world);
        // The rest comes with a later page, as it is then.
        if self.actor.is_some() && found.len() > 1 && world.dice.hit(25) {
            let cut = world.dice.below(found.len() as u64) as usize;
            let from = found[cut].key.clone();
            found.truncate(cut);
            drop(world);
            let (world, _) = self.turn("page", prefix)?;
            found.extend(below(&world).into_iter().filter(|object| object.key >= from));
        } else {
            drop(world);
        }
        found.into_iter().try_for_each(each)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.again(|| self.delete_once(key))
    }
    fn url(&self) -> String {
        "mem://sim".into()
    }
}

/// Ends an actor's turn for good, should it panic, too.
pub(super) struct Turn<'s>(pub(super) &'s Sim, pub(super) usize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut world = self.0.lock();
        world.actors[self.1].state = State::Ended;
        world.pass(&self.0.director);
    }
}
