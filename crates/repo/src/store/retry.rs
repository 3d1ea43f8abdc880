//! A wrapper that tries again what a remote store could not answer: with pauses that double, carry jitter
//! (so that a thousand nodes do not come back in step) and end at a deadline.
//!
//! Only [`StoreError::Unavailable`] is tried again. A put that landed although its answer was lost is met as
//! [`Put::Exists`] by the next try; the writer compares the object and goes on (R1).
//! A listing that breaks starts over and skips what was reported already.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::keeper::Keeper;
use super::vault::{BucketSays, Lock, Vault, Version, none};
use super::{Object, Put, Store, StoreError};
use crate::env::{Cancel, Env};

/// How long and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first pause; each later one doubles.
    pub pause_first: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
    /// No try begins later than this after the first.
    pub deadline: Duration,
    /// Nor are there more tries than this.
    pub tries_max: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            pause_first: Duration::from_millis(100),
            pause_max: Duration::from_secs(10),
            deadline: Duration::from_secs(120),
            tries_max: 20,
        }
    }
}

type Sleep = Arc<dyn Fn(Duration) + Send + Sync>;

/// A store that is asked again while it is unavailable.
#[derive(Clone)]
pub struct Retry<S> {
    inner: S,
    policy: RetryPolicy,
    env: Env,
    cancel: Cancel,
    sleep: Sleep,
}

impl<S: fmt::Debug> fmt::Debug for Retry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl<S: Store> Retry<S> {
    /// Pauses by sleeping.
    pub fn new(inner: S, policy: RetryPolicy, env: Env, cancel: Cancel) -> Retry<S> {
        Retry::with_sleep(inner, policy, env, cancel, Arc::new(std::thread::sleep))
    }

    /// Pauses by calling `sleep`: for tests that own the time.
    pub fn with_sleep(inner: S, policy: RetryPolicy, env: Env, cancel: Cancel, sleep: Sleep) -> Retry<S> {
        Retry { inner, policy, env, cancel, sleep }
    }

    /// The store inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn again<T>(&self, mut call: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let begun = self.env.now();
        let mut slept = Duration::ZERO;
        let mut pause = self.policy.pause_first;
        let mut tries = 1;
        loop {
            let error = match call() {
                Err(error @ StoreError::Unavailable { .. }) => error,
                done => return done,
            };
            // The larger of both, so that a clock set back does not prolong this for ever.
            let elapsed = Duration::from_nanos(self.env.now().saturating_sub(begun).max(0) as u64).max(slept);
            let wait = self.jitter(pause);
            if tries >= self.policy.tries_max || elapsed + wait > self.policy.deadline {
                return Err(tried(error, tries));
            }
            if !self.pause(wait) {
                return Err(error);
            }
            slept += wait;
            tries += 1;
            pause = (pause * 2).min(self.policy.pause_max);
        }
    }

    /// Between half and all of the pause.
    fn jitter(&self, pause: Duration) -> Duration {
        let mut dice = [0; 2];
        // Without randomness there is no jitter, which is no reason to fail a call that may succeed.
        let share = match self.env.random(&mut dice) {
            Ok(()) => f64::from(u16::from_le_bytes(dice)) / f64::from(u16::MAX),
            Err(_) => 1.0,
        };
        pause.mul_f64(0.5 + share / 2.0)
    }

    /// In short steps, so that the stop button is noticed. False once it is pressed.
    fn pause(&self, wait: Duration) -> bool {
        const STEP: Duration = Duration::from_millis(200);
        let mut left = wait;
        while !left.is_zero() {
            if self.cancel.is_cancelled() {
                return false;
            }
            let step = left.min(STEP);
            (self.sleep)(step);
            left -= step;
        }
        !self.cancel.is_cancelled()
    }
}

/// Adds how often we tried to the message of the last try.
fn tried(error: StoreError, tries: u32) -> StoreError {
    match error {
        StoreError::Unavailable { key, url, reason } if tries > 1 => {
            StoreError::Unavailable { key, url, reason: format!("{reason} (tried {tries} times)") }
        }
        other => other,
    }
}

impl<S: Store> Store for Retry<S> {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.again(|| self.inner.put(key, bytes.clone()))
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.again(|| self.inner.get(key))
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.again(|| self.inner.get_range(key, offset, len))
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.again(|| self.inner.size(key))
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // Every object is reported once, whatever breaks. Services differ in the order of keys, so what was
        // reported is remembered, as a hash: a repository may have millions of objects.
        let mut seen: HashSet<u64> = HashSet::new();
        let mut first = true;
        // An error of `each` is the caller's and not tried again, even if it says «unavailable».
        let mut theirs = None;
        let listed = self.again(|| {
            let result = self.inner.list(prefix, &mut |object| {
                let mut hasher = DefaultHasher::new();
                object.key.hash(&mut hasher);
                // Two keys of one hash cannot hide each other in a listing that does not break.
                if !seen.insert(hasher.finish()) && !first {
                    return Ok(());
                }
                each(object).inspect_err(|error| theirs = Some(error.clone()))
            });
            first = false;
            if theirs.is_some() { Ok(()) } else { result }
        });
        match theirs {
            Some(error) => Err(error),
            None => listed,
        }
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.again(|| self.inner.delete(key))
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

impl<S: Store> Retry<S> {
    fn ask<T>(
        &self,
        key: &str,
        mut call: impl FnMut(&dyn Vault) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.again(|| call(self.inner.vault().ok_or_else(|| none(key, &self.inner.url()))?))
    }
}

impl<S: Store> Vault for Retry<S> {
    fn bucket(&self) -> Result<BucketSays, StoreError> {
        self.ask("", |vault| vault.bucket())
    }

    fn put_locked(&self, key: &str, bytes: Bytes, lock: &Lock) -> Result<Put, StoreError> {
        self.ask(key, |vault| vault.put_locked(key, bytes.clone(), lock))
    }

    fn lock_of(&self, key: &str) -> Result<Option<Lock>, StoreError> {
        self.ask(key, |vault| vault.lock_of(key))
    }

    fn set_lock(&self, key: &str, lock: &Lock) -> Result<(), StoreError> {
        self.ask(key, |vault| vault.set_lock(key, lock))
    }

    fn versions(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Version) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // As `list`: what was reported before the listing broke is skipped.
        let mut seen: HashSet<u64> = HashSet::new();
        let mut theirs = None;
        let listed = self.ask(prefix, |vault| {
            let result = vault.versions(prefix, &mut |version| {
                let mut hasher = DefaultHasher::new();
                (&version.key, &version.id).hash(&mut hasher);
                if !seen.insert(hasher.finish()) {
                    return Ok(());
                }
                each(version).inspect_err(|error| theirs = Some(error.clone()))
            });
            if theirs.is_some() { Ok(()) } else { result }
        });
        theirs.map_or(listed, Err)
    }

    fn get_version(&self, key: &str, id: &str) -> Result<Bytes, StoreError> {
        self.ask(key, |vault| vault.get_version(key, id))
    }

    fn delete_version(&self, key: &str, id: &str) -> Result<(), StoreError> {
        self.ask(key, |vault| vault.delete_version(key, id))
    }

    fn put_over(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<(), StoreError> {
        // One whose answer was lost leaves two versions of the same bytes, which harms nobody.
        self.ask(key, |vault| vault.put_over(key, bytes.clone(), lock))
    }

    fn hide(&self, key: &str) -> Result<(), StoreError> {
        self.ask(key, |vault| vault.hide(key))
    }

    fn refuses_damage(&self, key: &str) -> Result<bool, StoreError> {
        self.ask(key, |vault| vault.refuses_damage(key))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::faulty::{Faults, Faulty};
    use super::super::mem::MemStore;
    use super::super::record::{Record, Verb};
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            pause_first: Duration::from_secs(1),
            pause_max: Duration::from_secs(8),
            deadline: Duration::from_secs(60),
            tries_max: 100,
        }
    }

    /// A store that fails its first `failures` calls, and the pauses that were made.
    type Setup = (Retry<Faulty<Record<MemStore>>>, Arc<Mutex<Vec<Duration>>>);
    fn failing(failures: u64, cancel: Cancel) -> Setup {
        let faults = Faults { unavailable_first: failures, ..Faults::default() };
        let store = Faulty::new(Record::new(MemStore::new()), faults);
        let pauses = Arc::new(Mutex::new(Vec::new()));
        let log = pauses.clone();
        let sleep = Arc::new(move |step| log.lock().unwrap().push(step));
        (Retry::with_sleep(store, policy(), Env::fixed(0, 1), cancel, sleep), pauses)
    }

    #[test]
    fn pauses_double_with_jitter_and_end_at_the_deadline() {
        let (store, pauses) = failing(u64::MAX, Cancel::new());
        let error = store.get("a").unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains("tried "), "{error}");
        let total: Duration = pauses.lock().unwrap().iter().sum();
        assert!(total > Duration::from_secs(45) && total <= Duration::from_secs(60), "{total:?}");
    }

    #[test]
    fn a_store_that_comes_back_is_used() {
        let (store, pauses) = failing(3, Cancel::new());
        assert_eq!(store.put("a", Bytes::from_static(b"x")).unwrap(), Put::Created);
        let total: Duration = pauses.lock().unwrap().iter().sum();
        assert!(total >= Duration::from_millis(3500) && total <= Duration::from_secs(7), "{total:?}");
    }

    #[test]
    fn what_will_not_change_is_not_tried_again() {
        let (store, pauses) = failing(0, Cancel::new());
        assert!(store.get("missing").unwrap_err().is_not_found());
        assert!(pauses.lock().unwrap().is_empty());
        assert_eq!(store.inner().inner().count(Verb::Get, ""), 1);
    }

    #[test]
    fn the_stop_button_ends_the_waiting() {
        let cancel = Cancel::new();
        let (store, pauses) = failing(u64::MAX, cancel.clone());
        cancel.cancel();
        assert!(store.get("a").unwrap_err().is_unavailable());
        assert!(pauses.lock().unwrap().is_empty());
    }

    #[test]
    fn a_put_whose_answer_was_lost_is_met_as_existing() {
        let faults = Faults { lost_first: 1, ..Faults::default() };
        let store = Retry::with_sleep(
            Faulty::new(MemStore::new(), faults),
            policy(),
            Env::fixed(0, 1),
            Cancel::new(),
            Arc::new(|_| {}),
        );
        assert_eq!(store.put("a", Bytes::from_static(b"x")).unwrap(), Put::Exists);
        assert_eq!(store.get("a").unwrap(), "x");
    }

    #[test]
    fn a_listing_that_breaks_reports_every_object_once() {
        let inner = MemStore::new();
        for n in 0..50 {
            inner.put(&format!("k/{n:02}"), Bytes::new()).unwrap();
        }
        let faults = Faults { break_list_after: Some(20), unavailable_first: 2, ..Faults::default() };
        let store = Retry::with_sleep(
            Faulty::new(inner, faults),
            policy(),
            Env::fixed(0, 1),
            Cancel::new(),
            Arc::new(|_| {}),
        );
        let found = super::super::list_all(&store, "k/").unwrap();
        let keys: Vec<String> = found.into_iter().map(|object| object.key).collect();
        assert_eq!(keys, (0..50).map(|n| format!("k/{n:02}")).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_of_the_caller_ends_a_listing_at_once() {
        let (store, pauses) = failing(0, Cancel::new());
        store.put("k/1", Bytes::new()).unwrap();
        let theirs = || StoreError::Unavailable { key: "x".into(), url: "y".into(), reason: "z".into() };
        let error = store.list("k/", &mut |_| Err(theirs())).unwrap_err();
        assert_eq!(error.key(), "x");
        assert!(pauses.lock().unwrap().is_empty());
    }

    #[test]
    fn keeps_the_contract() {
        let (store, _) = failing(0, Cancel::new());
        crate::store::suite::run(&store);
    }
}
