//! A wrapper that keeps a store's traffic below so many bytes a second, up and down apart.
//!
//! One [`Bandwidth`] is shared by all who are to share the line: the tasks of a node, several stores. It is a bucket
//! that holds no more than what is under way: whatever goes is paid for before the next one goes, and being idle
//! saves nothing up. So over any time no more goes than the rate allows and one object besides. What is asked for
//! first goes first, and an object goes as fast as the line takes it; the pause comes before the next.
//!
//! - A read of which the length is not known before ([`Store::get`]) is paid for afterwards.
//! - Verbs that carry no content (list, size, delete) are free and do not wait.
//! - It lies above the tries of a remote store, so that a long wait is not taken for a store that does not answer. What
//!   is sent again after a failure is not counted again.
//! - [`Bandwidth::lift`] lets everything through for a while: an application that is held still does not wait for a limit.
//!   [`Bandwidth::set`] changes the rates. Both count at once, also for who waits already.
//!
//! Time is handed in as a [`Clock`], so that a test owns it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::keeper::Keeper;
use super::vault::{BucketSays, Lock, Vault, Version, none};
use super::{Object, Put, Store, StoreError};
use crate::env::Cancel;

/// Nobody sleeps longer without looking whether something has changed.
const STEP: Duration = Duration::from_millis(200);

/// Bytes a second; 0: as many as go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// To the store.
    pub up: u64,
    /// From the store.
    pub down: u64,
}

/// A clock that only goes forward, and a way to wait.
pub trait Clock: Send + Sync {
    /// How long it has been going.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The machine's.
struct Monotonic(Instant);

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// What may go, shared by all who share it.
pub struct Bandwidth {
    clock: Box<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rates: Rates,
    /// When all that was let through has been paid for.
    paid: [Duration; 2],
    /// How many have it lifted.
    lifted: usize,
    /// Counts what makes all waiting out of date.
    turn: u64,
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

impl State {
    /// What so many bytes cost this way; `None`: nothing.
    fn cost(&self, way: Way, bytes: u64) -> Option<Duration> {
        let rate = match way {
            Way::Up => self.rates.up,
            Way::Down => self.rates.down,
        };
        if rate == 0 || self.lifted > 0 {
            return None;
        }
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }

    fn paid(&mut self, way: Way) -> &mut Duration {
        let [up, down] = &mut self.paid;
        match way {
            Way::Up => up,
            Way::Down => down,
        }
    }
}

impl fmt::Debug for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bandwidth({:?})", self.state().rates)
    }
}

impl Bandwidth {
    /// By the machine's clock.
    pub fn new(rates: Rates) -> Arc<Bandwidth> {
        Bandwidth::with_clock(rates, Monotonic(Instant::now()))
    }

    /// By this clock: for tests that own the time.
    pub fn with_clock(rates: Rates, clock: impl Clock + 'static) -> Arc<Bandwidth> {
        let state = State { rates, ..State::default() };
        Arc::new(Bandwidth { clock: Box::new(clock), state: Mutex::new(state) })
    }

    // Whole at every moment: each change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rates.
    pub fn rates(&self) -> Rates {
        self.state().rates
    }

    /// Other rates from now on. What has gone at the old ones is forgotten.
    pub fn set(&self, rates: Rates) {
        let mut state = self.state();
        if state.rates != rates {
            let (lifted, turn) = (state.lifted, state.turn + 1);
            *state = State { rates, lifted, turn, paid: Default::default() };
        }
    }

    /// No limit until the last of what this returns is dropped. What goes meanwhile is not paid for.
    pub fn lift(self: &Arc<Bandwidth>) -> Lifted {
        let mut state = self.state();
        state.lifted += 1;
        state.turn += 1;
        drop(state);
        Lifted(self.clone())
    }

    /// Waits until what went before is paid for, and takes so many bytes; `false` once the stop button is pressed.
    fn pass(&self, way: Way, bytes: u64, cancel: &Cancel) -> bool {
        loop {
            let (start, cost, turn) = {
                let mut state = self.state();
                let Some(cost) = state.cost(way, bytes) else { return !cancel.is_cancelled() };
                let now = self.clock.now();
                let paid = state.paid(way);
                let start = (*paid).max(now);
                *paid = start.saturating_add(cost);
                (start, cost, state.turn)
            };
            loop {
                if cancel.is_cancelled() {
                    // Those behind need not wait for what never goes.
                    let mut state = self.state();
                    if state.turn == turn {
                        let paid = state.paid(way);
                        *paid = paid.saturating_sub(cost);
                    }
                    return false;
                }
                let now = self.clock.now();
                if now >= start {
                    return true;
                }
                self.clock.sleep((start - now).min(STEP));
                if self.state().turn != turn {
                    break;
                }
            }
        }
    }

    /// Takes bytes that have gone already.
    fn charge(&self, way: Way, bytes: u64) {
        let mut state = self.state();
        if let Some(cost) = state.cost(way, bytes) {
            let now = self.clock.now();
            let paid = state.paid(way);
            *paid = (*paid).max(now).saturating_add(cost);
        }
    }
}

/// While this is there, nothing is limited.
#[derive(Debug)]
pub struct Lifted(Arc<Bandwidth>);

impl Drop for Lifted {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.lifted = state.lifted.saturating_sub(1);
        state.paid = Default::default();
    }
}

/// A store whose traffic is limited.
#[derive(Debug)]
pub struct Limited<S> {
    inner: S,
    bandwidth: Arc<Bandwidth>,
    cancel: Cancel,
}

impl<S: Store> Limited<S> {
    /// `inner` within this bandwidth; the stop button ends all waiting for it.
    pub fn new(inner: S, bandwidth: Arc<Bandwidth>, cancel: Cancel) -> Limited<S> {
        Limited { inner, bandwidth, cancel }
    }

    /// The store inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn pass(&self, way: Way, key: &str, bytes: u64) -> Result<(), StoreError> {
        if self.bandwidth.pass(way, bytes, &self.cancel) {
            return Ok(());
        }
        Err(StoreError::Unavailable {
            key: key.to_owned(),
            url: self.inner.url(),
            reason: "stopped while it waited for its share of the bandwidth".to_owned(),
        })
    }

    /// Bytes of which nobody knew how many they are.
    fn taken(&self, result: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        if let Ok(bytes) = &result {
            self.bandwidth.charge(Way::Down, bytes.len() as u64);
        }
        result
    }
}

impl<S: Store> Store for Limited<S> {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.pass(Way::Up, key, bytes.len() as u64)?;
        self.inner.put(key, bytes)
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.pass(Way::Down, key, 0)?;
        self.taken(self.inner.get(key))
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.pass(Way::Down, key, len as u64)?;
        self.inner.get_range(key, offset, len)
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.inner.size(key)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.inner.list(prefix, each)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key)
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn vault(&self) -> Option<&dyn Vault> {
        self.inner.vault().map(|_| self as &dyn Vault)
    }

    fn keeper(&self) -> Option<&dyn Keeper> {
        self.inner.keeper()
    }
}

impl<S: Store> Limited<S> {
    fn vault_of(&self, key: &str) -> Result<&dyn Vault, StoreError> {
        self.inner.vault().ok_or_else(|| none(key, &self.inner.url()))
    }
}

impl<S: Store> Vault for Limited<S> {
    fn bucket(&self) -> Result<BucketSays, StoreError> {
        self.vault_of("")?.bucket()
    }

    fn put_locked(&self, key: &str, bytes: Bytes, lock: &Lock) -> Result<Put, StoreError> {
        self.pass(Way::Up, key, bytes.len() as u64)?;
        self.vault_of(key)?.put_locked(key, bytes, lock)
    }

    fn lock_of(&self, key: &str) -> Result<Option<Lock>, StoreError> {
        self.vault_of(key)?.lock_of(key)
    }

    fn set_lock(&self, key: &str, lock: &Lock) -> Result<(), StoreError> {
        self.vault_of(key)?.set_lock(key, lock)
    }

    fn versions(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Version) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.vault_of(prefix)?.versions(prefix, each)
    }

    fn get_version(&self, key: &str, id: &str) -> Result<Bytes, StoreError> {
        self.pass(Way::Down, key, 0)?;
        self.taken(self.vault_of(key)?.get_version(key, id))
    }

    fn delete_version(&self, key: &str, id: &str) -> Result<(), StoreError> {
        self.vault_of(key)?.delete_version(key, id)
    }

    fn put_over(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<(), StoreError> {
        self.pass(Way::Up, key, bytes.len() as u64)?;
        self.vault_of(key)?.put_over(key, bytes, lock)
    }

    fn hide(&self, key: &str) -> Result<(), StoreError> {
        self.vault_of(key)?.hide(key)
    }

    fn refuses_damage(&self, key: &str) -> Result<bool, StoreError> {
        self.vault_of(key)?.refuses_damage(key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::mem::MemStore;
    use super::super::versioned::{Flaws, VersionedStore};
    use super::*;
    use crate::env::Env;

    /// Time goes on when somebody sleeps, and not otherwise.
    #[derive(Clone, Default)]
    struct Slept(Arc<Mutex<Duration>>);

    impl Clock for Slept {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }
        fn sleep(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn limited(up: u64, down: u64) -> (Limited<MemStore>, Slept) {
        let clock = Slept::default();
        let bandwidth = Bandwidth::with_clock(Rates { up, down }, clock.clone());
        (Limited::new(MemStore::new(), bandwidth, Cancel::new()), clock)
    }

    fn bytes(length: usize) -> Bytes {
        Bytes::from(vec![7; length])
    }

    /// Whatever is asked, when it had to wait for what before.
    #[test]
    fn what_went_is_paid_for_before_the_next_goes_and_each_way_has_its_own_rate() {
        let (store, clock) = limited(1_000, 500);
        let mut log = Vec::new();
        let mut at = |what: &str| log.push(format!("{what} {:.3}", clock.now().as_secs_f64()));
        store.put("a", bytes(3_000)).unwrap();
        at("the first goes at once");
        store.put("b", bytes(500)).unwrap();
        at("the second waits for the first");
        store.get_range("a", 0, 1_000).unwrap();
        at("down is another way");
        store.get("b").unwrap();
        at("which has its own debt");
        store.size("a").unwrap();
        store.list("", &mut |_| Ok(())).unwrap();
        store.delete("b").unwrap();
        at("what carries nothing is free");
        store.get_range("a", 0, 1).unwrap();
        at("a whole object is paid for afterwards");
        clock.sleep(100 * SECOND);
        store.put("c", bytes(2_000)).unwrap();
        store.put("d", bytes(1)).unwrap();
        at("being idle saves nothing up");
        assert_eq!(
            log,
            [
                "the first goes at once 0.000",
                "the second waits for the first 3.000",
                "down is another way 3.000",
                "which has its own debt 5.000",
                "what carries nothing is free 5.000",
                "a whole object is paid for afterwards 6.000",
                "being idle saves nothing up 108.000",
            ]
        );
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let (store, clock) = limited(0, 0);
        for n in 0..100 {
            store.put(&format!("k{n}"), bytes(100_000)).unwrap();
            store.get(&format!("k{n}")).unwrap();
        }
        assert_eq!(clock.now(), Duration::ZERO);
    }

    /// Two stores and eight threads share one line: at no moment has more gone than its rate and what is under way.
    #[test]
    fn many_users_of_several_stores_share_one_line() {
        let (rate, object) = (10_000, 1_000);
        let clock = Slept::default();
        let bandwidth = Bandwidth::with_clock(Rates { up: rate, down: 0 }, clock.clone());
        let stores = [(); 2].map(|()| Limited::new(MemStore::new(), bandwidth.clone(), Cancel::new()));
        let log = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..8_usize {
                let (log, store, clock) = (&log, &stores[thread % 2], &clock);
                scope.spawn(move || {
                    for n in 0..20 {
                        store.put(&format!("t{thread}/{n}"), bytes(object)).unwrap();
                        log.lock().unwrap().push(clock.now().as_nanos() as u64);
                    }
                });
            }
        });
        let mut times: Vec<u64> = log.into_inner().unwrap();
        times.sort_unstable();
        assert_eq!(times.len(), 160);
        for (before, time) in times.iter().enumerate() {
            let (gone, allowed) = ((before * object) as u64 * 1_000_000_000, time * rate);
            assert!(gone <= allowed, "{before} objects had gone after {time} ns");
        }
        assert!(*times.last().unwrap() >= 15_900_000_000, "160 objects of a tenth of a second each");
    }

    /// A clock that presses a button, or does something else, the first time somebody waits.
    struct Then(Slept, AtomicBool, Box<dyn Fn() + Send + Sync>);

    impl Clock for Then {
        fn now(&self) -> Duration {
            self.0.now()
        }
        fn sleep(&self, time: Duration) {
            self.0.sleep(time);
            if !self.1.swap(true, Ordering::SeqCst) {
                (self.2)();
            }
        }
    }

    #[test]
    fn the_stop_button_ends_the_waiting_and_gives_the_share_back() {
        let (clock, cancel) = (Slept::default(), Cancel::new());
        let press = cancel.clone();
        let stopping = Then(clock.clone(), AtomicBool::new(false), Box::new(move || press.cancel()));
        let bandwidth = Bandwidth::with_clock(Rates { up: 1, down: 0 }, stopping);
        let store = Limited::new(MemStore::new(), bandwidth.clone(), cancel);
        store.put("a", bytes(60)).unwrap();
        let error = store.put("b", bytes(1_000_000)).unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains("bandwidth"), "{error}");
        assert_eq!(store.inner().snapshot().len(), 1, "it did not go");
        let other = Limited::new(MemStore::new(), bandwidth, Cancel::new());
        other.put("c", bytes(1)).unwrap();
        assert_eq!(clock.now(), 60 * SECOND, "only what went was waited for");
    }

    #[test]
    fn a_limit_that_is_lifted_or_changed_counts_at_once_for_who_waits() {
        for lift in [true, false] {
            let clock = Slept::default();
            let cell: Arc<Mutex<Option<Arc<Bandwidth>>>> = Arc::default();
            let kept = Arc::new(Mutex::new(None));
            let (seen, keep) = (cell.clone(), kept.clone());
            let change = move || {
                let bandwidth = seen.lock().unwrap().clone().unwrap();
                match lift {
                    true => *keep.lock().unwrap() = Some(bandwidth.lift()),
                    false => bandwidth.set(Rates { up: 1_000_000, down: 0 }),
                }
            };
            let then = Then(clock.clone(), AtomicBool::new(false), Box::new(change));
            let bandwidth = Bandwidth::with_clock(Rates { up: 1, down: 0 }, then);
            *cell.lock().unwrap() = Some(bandwidth.clone());
            let store = Limited::new(MemStore::new(), bandwidth.clone(), Cancel::new());
            store.put("a", bytes(10_000)).unwrap();
            store.put("b", bytes(10_000)).unwrap();
            assert_eq!(clock.now(), STEP, "not the hours that the first would have cost");
            if lift {
                for n in 0..50 {
                    store.put(&format!("free/{n}"), bytes(10_000)).unwrap();
                }
                assert_eq!(clock.now(), STEP);
                *kept.lock().unwrap() = None;
                store.put("c", bytes(5)).unwrap();
                store.put("d", bytes(5)).unwrap();
                assert_eq!(clock.now(), STEP + 5 * SECOND, "it counts again, and what went free is free");
            }
            *cell.lock().unwrap() = None;
        }
    }

    #[test]
    fn objects_that_are_put_with_a_lock_count_too() {
        let env = Env::fixed(0, 1);
        let clock = Slept::default();
        let bandwidth = Bandwidth::with_clock(Rates { up: 100, down: 100 }, clock.clone());
        let inner = VersionedStore::new(&env, Flaws::default());
        let store = Limited::new(inner, bandwidth, Cancel::new());
        let vault = store.vault().unwrap();
        let lock = Lock::new(super::super::vault::LockMode::Governance, 0);
        vault.put_locked("a", bytes(100), &lock).unwrap();
        vault.put_over("a", bytes(100), None).unwrap();
        store.put("b", bytes(1)).unwrap();
        assert_eq!(clock.now(), 2 * SECOND);
    }

    #[test]
    fn keeps_the_contract() {
        crate::store::suite::run(&limited(1 << 40, 1 << 40).0);
    }
}
