//! Which object is looked at next.
//!
//! A key is in the queue once, however often it was named, and is worked on by one task at a time; if it is named meanwhile it is
//! looked at once more. A failure comes back after a second, doubled up to five minutes. An instant at which an object wants to be
//! looked at again goes by the clock on the wall: if that leaps the instant comes sooner or later with it, as it does for whoever
//! reads the schedule. Pauses after failures go by the steady one. Pure: time and chance go in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Reading;

/// The pause after the first failure.
pub const PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);

/// How looking at an object ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Well; to be looked at again at this instant, if at any.
    Well(Option<Timestamp>),
    /// Not well: to be tried again.
    Failed,
}

/// The keys that are to be looked at.
#[derive(Debug, Clone)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    /// What is in `ready`.
    waits: BTreeSet<K>,
    /// What is worked on, and whether it was named meanwhile.
    busy: BTreeMap<K, bool>,
    /// How often in a row it failed.
    failures: BTreeMap<K, u32>,
    /// When it is tried again, by the steady clock.
    pauses: BTreeSet<(Duration, K)>,
    paused: BTreeMap<K, Duration>,
    /// When it wants to be looked at, by the wall.
    timers: BTreeSet<(Timestamp, K)>,
    timed: BTreeMap<K, Timestamp>,
}

impl<K> Default for Queue<K> {
    fn default() -> Queue<K> {
        Queue {
            ready: VecDeque::new(),
            waits: BTreeSet::new(),
            busy: BTreeMap::new(),
            failures: BTreeMap::new(),
            pauses: BTreeSet::new(),
            paused: BTreeMap::new(),
            timers: BTreeSet::new(),
            timed: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// Something about it changed.
    pub fn add(&mut self, key: K) {
        if let Some(again) = self.busy.get_mut(&key) {
            *again = true;
        } else if self.waits.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// The next one to be worked on. Each that is taken is given back by [`Queue::ended`].
    pub fn take(&mut self, now: Reading) -> Option<K> {
        while let Some((at, key)) = self.pauses.first().cloned().filter(|(at, _)| *at <= now.steady) {
            self.pauses.remove(&(at, key.clone()));
            self.paused.remove(&key);
            self.add(key);
        }
        while let Some((at, key)) = self.timers.first().cloned().filter(|(at, _)| *at <= now.wall) {
            self.timers.remove(&(at, key.clone()));
            self.timed.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.waits.remove(&key);
        self.forget_times(&key);
        self.busy.insert(key.clone(), false);
        Some(key)
    }

    /// It was looked at. `dice` spreads those that failed together.
    pub fn ended(&mut self, key: K, how: Ended, now: Reading, dice: u16) {
        let named = self.busy.remove(&key).unwrap_or(false);
        match how {
            Ended::Well(at) => {
                self.failures.remove(&key);
                if let Some(at) = at {
                    self.timed.insert(key.clone(), at);
                    self.timers.insert((at, key.clone()));
                }
            }
            Ended::Failed => {
                let failures = self.failures.entry(key.clone()).or_insert(0);
                let pause = pause(*failures, dice);
                *failures = failures.saturating_add(1);
                let at = now.steady + pause;
                self.paused.insert(key.clone(), at);
                self.pauses.insert((at, key.clone()));
            }
        }
        if named {
            self.add(key);
        }
    }

    /// How long there is certainly nothing to take; none if nothing waits for a time.
    pub fn idle(&self, now: Reading) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let pause = self.pauses.first().map(|(at, _)| at.saturating_sub(now.steady));
        let timer = self
            .timers
            .first()
            .map(|(at, _)| Duration::try_from(at.duration_since(now.wall)).unwrap_or_default());
        pause.into_iter().chain(timer).min()
    }

    /// How many wait to be worked on now.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Is nothing to be worked on now?
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    fn forget_times(&mut self, key: &K) {
        if let Some(at) = self.paused.remove(key) {
            self.pauses.remove(&(at, key.clone()));
        }
        if let Some(at) = self.timed.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
    }
}

/// The pause after so many failures before this one: between half of it and all of it, as the dice have it.
fn pause(failures: u32, dice: u16) -> Duration {
    let full = PAUSE.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
    full / 2 + (full / 2).mul_f64(f64::from(dice) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::constant(1_900_000_000, 0);

    fn at(seconds: u64) -> Reading {
        Reading { steady: Duration::from_secs(seconds), wall: on_wall(seconds as i64) }
    }

    fn on_wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(START.as_second() + seconds).unwrap()
    }

    const WELL: Ended = Ended::Well(None);

    #[test]
    fn a_key_is_there_once_and_with_one_task_at_a_time() {
        let mut queue = Queue::default();
        for key in ["a", "b", "a", "a"] {
            queue.add(key);
        }
        assert_eq!(queue.len(), 2);
        assert_eq!((queue.take(at(0)), queue.take(at(0)), queue.take(at(0))), (Some("a"), Some("b"), None));
        // Named twice while it is worked on: once more afterwards, not at once and not twice.
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take(at(0)), None);
        queue.ended("a", WELL, at(0), 0);
        queue.ended("b", WELL, at(0), 0);
        assert_eq!((queue.take(at(0)), queue.take(at(0))), (Some("a"), None));
        queue.ended("a", WELL, at(0), 0);
        assert!(queue.is_empty() && queue.idle(at(0)).is_none());
    }

    #[test]
    fn failures_come_back_later_and_later_and_a_success_forgets_them() {
        let mut queue = Queue::default();
        let mut now = 0;
        queue.add("a");
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let begun = now;
            while queue.take(at(now)).is_none() {
                now += 1;
                assert!(now < begun + 400, "it never comes back");
            }
            pauses.push(now - begun);
            queue.ended("a", Ended::Failed, at(now), u16::MAX);
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(queue.idle(at(now)), Some(Duration::from_secs(300)));
        // Whoever changes it need not wait.
        queue.add("a");
        assert_eq!(queue.take(at(now)), Some("a"));
        queue.ended("a", WELL, at(now), 0);
        assert_eq!(queue.idle(at(now)), None, "the pause is over, too");
        queue.add("a");
        assert_eq!(queue.take(at(now)), Some("a"));
        queue.ended("a", Ended::Failed, at(now), u16::MAX);
        assert_eq!(queue.idle(at(now)), Some(PAUSE), "begins anew");
        assert!(
            (0..=u16::MAX).step_by(97).all(|dice| pause(3, dice) >= 4 * PAUSE && pause(3, dice) <= 8 * PAUSE)
        );
    }

    #[test]
    fn an_instant_goes_by_the_wall_and_the_newest_counts() {
        let mut queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.take(at(0)), Some("a"));
        queue.ended("a", Ended::Well(Some(on_wall(100))), at(0), 0);
        assert_eq!((queue.idle(at(0)), queue.take(at(99))), (Some(Duration::from_secs(100)), None));
        // The wall leaps: it is time.
        let leapt = Reading { steady: Duration::from_secs(1), wall: on_wall(3600) };
        assert_eq!((queue.idle(leapt), queue.take(leapt)), (Some(Duration::ZERO), Some("a")));
        queue.ended("a", Ended::Well(Some(on_wall(7200))), leapt, 0);
        // Set back: then it takes as long as the wall says.
        assert_eq!(queue.idle(at(2)), Some(Duration::from_secs(7198)));
        // Looked at for another reason: what it wants now counts.
        queue.add("a");
        assert_eq!(queue.take(at(2)), Some("a"));
        queue.ended("a", Ended::Well(Some(on_wall(50))), at(2), 0);
        assert_eq!(queue.take(at(50)), Some("a"));
        queue.ended("a", WELL, at(50), 0);
        assert_eq!(queue.take(at(10_000)), None);
    }

    #[test]
    fn over_many_moves_nothing_is_lost_and_nothing_is_worked_on_twice_at_once() {
        let (mut queue, mut dice) = (Queue::default(), 7u64);
        let (mut now, mut busy, mut owed) = (0, Vec::<u32>::new(), BTreeSet::<u32>::new());
        let mut worked = 0;
        for _ in 0..20_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (move_, key) = ((dice >> 60) % 4, (dice >> 40) as u32 % 20);
            match move_ {
                0 => {
                    queue.add(key);
                    owed.insert(key);
                }
                1 => now += (dice >> 50) % 3,
                2 => {
                    if let Some(key) = queue.take(at(now)) {
                        assert!(!busy.contains(&key), "worked on twice at once");
                        owed.remove(&key);
                        busy.push(key);
                        worked += 1;
                    }
                }
                _ => {
                    if let Some(key) = busy.pop() {
                        let failed = (dice >> 33) % 3 == 0;
                        if failed {
                            owed.insert(key);
                        }
                        let how = if failed { Ended::Failed } else { WELL };
                        queue.ended(key, how, at(now), dice as u16);
                    }
                }
            }
        }
        for key in busy {
            queue.ended(key, WELL, at(now), 0);
        }
        now += PAUSE_MAX.as_secs();
        while let Some(key) = queue.take(at(now)) {
            owed.remove(&key);
            queue.ended(key, WELL, at(now), 0);
        }
        assert!(owed.is_empty(), "lost: {owed:?}");
        assert!(worked > 2000, "{worked}");
    }
}
