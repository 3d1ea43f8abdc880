//! A wrapper that makes a store fail on purpose, the same way for the same seed.
//!
//! What the faults stand for: a network that loses requests or answers, a process killed between two calls
//! (or right after one landed), a disk that fills up, a policy that forbids verbs, a medium that flips bits.
//! And stores that break the contract, as real ones do on a bad day: a put torn by a power cut, a disk that
//! acknowledges what it has not written, a listing that is behind. (A clock that jumps: [`crate::Env::jumping`].)

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::keeper::Keeper;
use super::record::Verb;
use super::vault::Vault;
use super::{Object, Put, Store, StoreError};

/// What goes wrong, and when. All off by default.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Decides which calls the shares below hit.
    pub seed: u64,
    /// The first so many calls are unavailable before they reach the store.
    pub unavailable_first: u64,
    /// Of the first so many calls the answer is lost: they happened, and are reported unavailable.
    pub lost_first: u64,
    /// So many of a thousand calls are unavailable before they reach the store.
    pub unavailable_per_mille: u16,
    /// So many of a thousand calls happen, and their answer is lost.
    pub lost_per_mille: u16,
    /// So many of a thousand reads come back with one bit flipped.
    pub flip_per_mille: u16,
    /// So many of a thousand reads come back cut short.
    pub cut_per_mille: u16,
    /// Reads of keys that begin so fail as from a bad sector.
    pub unreadable_prefix: Option<String>,
    /// After so many calls that change the store (put, delete) everything fails, as if the process had died.
    pub die_after_changes: Option<u64>,
    /// Whether the deadly call itself lands before the end.
    pub die_landed: bool,
    /// Instead, a deadly put leaves the first part of its object: a power cut on a disk that lies.
    pub die_torn: bool,
    /// So many of a thousand puts leave the first part of their object and are reported unavailable.
    pub torn_per_mille: u16,
    /// A put is acknowledged at once and seen only so many calls later; until then nothing but another put of the
    /// same key knows of it. What is still on its way when the process dies never lands.
    pub delay_puts: u64,
    /// A listing shows the store as it was so many calls ago: new objects are missing in it, and deleted ones
    /// are still there.
    pub stale_lists: u64,
    /// Once so many bytes were put, puts report a full store.
    pub full_after_bytes: Option<u64>,
    /// Verbs the credentials do not allow.
    pub denied: BTreeSet<Verb>,
    /// While calls still fail by `unavailable_first`, a listing reports so many objects before it breaks.
    pub break_list_after: Option<usize>,
}

/// A store with [`Faults`].
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
    calls: AtomicU64,
    changes: AtomicU64,
    bytes: AtomicU64,
    dice: AtomicU64,
    /// Puts that nobody sees yet: the call at which they land.
    delayed: Mutex<VecDeque<(u64, String, Bytes)>>,
    /// Changes that listings do not show yet: the call at which they will, and the object if it was deleted.
    unlisted: Mutex<VecDeque<(u64, String, Option<Object>)>>,
}

/// What a call meets.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Fine,
    Lost,
    Dies,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole at every moment: each change is one push or one removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Store> Faulty<S> {
    /// Makes `inner` fail as planned.
    pub fn new(inner: S, faults: Faults) -> Faulty<S> {
        let dice = AtomicU64::new(faults.seed);
        Faulty {
            inner,
            faults,
            calls: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dice,
            delayed: Mutex::default(),
            unlisted: Mutex::default(),
        }
    }

    /// The store inside: what is left when the process has died.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How many calls that change the store (put, delete) were made so far: the range for `die_after_changes`.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// True with the chance `per_mille` of a thousand.
    fn hit(&self, per_mille: u16) -> bool {
        per_mille > 0 && self.roll() % 1000 < u64::from(per_mille)
    }

    /// SplitMix64: one addition a roll, so threads share it without a lock.
    fn roll(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.dice.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unavailable(&self, key: &str, reason: &str) -> StoreError {
        StoreError::Unavailable { key: key.to_owned(), url: self.inner.url(), reason: reason.to_owned() }
    }

    fn dead(&self, key: &str) -> StoreError {
        StoreError::Other {
            key: key.to_owned(),
            url: self.inner.url(),
            reason: "the process died here, on purpose".to_owned(),
        }
    }

    fn before(&self, verb: Verb, key: &str) -> Result<Fate, StoreError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        self.land(call)?;
        if self.faults.denied.contains(&verb) {
            return Err(StoreError::Denied {
                key: key.to_owned(),
                url: self.inner.url(),
                reason: format!("{verb:?} is denied, on purpose"),
            });
        }
        if let Some(limit) = self.faults.die_after_changes {
            if matches!(verb, Verb::Put | Verb::Delete) {
                let change = self.changes.fetch_add(1, Ordering::Relaxed);
                if change == limit && self.faults.die_landed {
                    return Ok(Fate::Dies);
                }
            }
            if self.changes.load(Ordering::Relaxed) > limit {
                return Err(self.dead(key));
            }
        } else if matches!(verb, Verb::Put | Verb::Delete) {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        if call < self.faults.unavailable_first || self.hit(self.faults.unavailable_per_mille) {
            return Err(self.unavailable(key, "the request was lost, on purpose"));
        }
        if call < self.faults.lost_first || self.hit(self.faults.lost_per_mille) {
            return Ok(Fate::Lost);
        }
        Ok(Fate::Fine)
    }

    fn dead_now(&self) -> bool {
        self.faults.die_after_changes.is_some_and(|limit| self.changes.load(Ordering::Relaxed) > limit)
    }

    /// What was delayed until now arrives.
    fn land(&self, call: u64) -> Result<(), StoreError> {
        if self.faults.delay_puts == 0 || self.dead_now() {
            return Ok(());
        }
        let mut delayed = lock(&self.delayed);
        while delayed.front().is_some_and(|(due, ..)| *due <= call) {
            if let Some((_, key, bytes)) = delayed.pop_front() {
                self.inner.put(&key, bytes)?;
            }
        }
        Ok(())
    }

    fn is_delayed(&self, key: &str) -> bool {
        self.faults.delay_puts > 0 && lock(&self.delayed).iter().any(|(_, delayed, _)| delayed == key)
    }

    /// Listings learn of this change later.
    fn hide(&self, key: &str, deleted: Option<Object>) {
        if self.faults.stale_lists > 0 {
            let due = self.calls.load(Ordering::Relaxed) + self.faults.stale_lists;
            lock(&self.unlisted).push_back((due, key.to_owned(), deleted));
        }
    }

    /// A put that reaches the store, whole or not.
    fn put_now(&self, key: &str, bytes: Bytes, fate: Fate) -> Result<Put, StoreError> {
        let torn = self.hit(self.faults.torn_per_mille) || (fate == Fate::Dies && self.faults.die_torn);
        if torn {
            let size = self.roll() % (bytes.len() as u64).max(1);
            return match self.inner.put(key, bytes.slice(..size as usize))? {
                Put::Created => {
                    self.hide(key, None);
                    Err(self.unavailable(key, "the power failed during the put, on purpose"))
                }
                Put::Exists => Ok(Put::Exists),
            };
        }
        if self.faults.delay_puts > 0 && fate != Fate::Dies {
            if self.is_delayed(key) || self.inner.size(key).is_ok() {
                return Ok(Put::Exists);
            }
            let due = self.calls.load(Ordering::Relaxed) + self.faults.delay_puts;
            lock(&self.delayed).push_back((due, key.to_owned(), bytes));
            return Ok(Put::Created);
        }
        let put = self.inner.put(key, bytes)?;
        if put == Put::Created {
            self.hide(key, None);
        }
        Ok(put)
    }

    /// A listing as it was some calls ago.
    fn list_stale(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let now = self.calls.load(Ordering::Relaxed);
        let unlisted: Vec<(String, Option<Object>)> = {
            let mut unlisted = lock(&self.unlisted);
            while unlisted.front().is_some_and(|(due, ..)| *due <= now) {
                unlisted.pop_front();
            }
            unlisted.iter().map(|(_, key, deleted)| (key.clone(), deleted.clone())).collect()
        };
        let mut seen: Vec<Object> = Vec::new();
        self.inner.list(prefix, &mut |object| {
            seen.push(object);
            Ok(())
        })?;
        // Backwards through the changes: the oldest of them is undone last.
        for (key, deleted) in unlisted.into_iter().rev().filter(|(key, _)| key.starts_with(prefix)) {
            seen.retain(|object| object.key != key);
            seen.extend(deleted);
        }
        seen.sort();
        seen.into_iter().try_for_each(each)
    }

    fn after<T>(&self, fate: Fate, key: &str, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match fate {
            Fate::Fine => result,
            Fate::Lost => Err(self.unavailable(key, "the answer was lost, on purpose")),
            Fate::Dies => Err(self.dead(key)),
        }
    }

    /// Does to read bytes what the medium or the wire did.
    fn spoil(&self, key: &str, result: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        let bytes = result?;
        if self.faults.unreadable_prefix.as_ref().is_some_and(|prefix| key.starts_with(prefix)) {
            return Err(StoreError::Unreadable {
                key: key.to_owned(),
                url: self.inner.url(),
                reason: "a bad sector, on purpose".to_owned(),
            });
        }
        if bytes.is_empty() {
            return Ok(bytes);
        }
        if self.hit(self.faults.cut_per_mille) {
            let size = self.roll() % bytes.len() as u64;
            let wanted = bytes.len() as u64;
            return Err(StoreError::Short { key: key.to_owned(), url: self.inner.url(), size, wanted });
        }
        if self.hit(self.faults.flip_per_mille) {
            let mut spoilt = bytes.to_vec();
            let bit = self.roll() % (spoilt.len() as u64 * 8);
            if let Some(byte) = spoilt.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
            return Ok(spoilt.into());
        }
        Ok(bytes)
    }
}

impl<S: Store> Store for Faulty<S> {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        let fate = self.before(Verb::Put, key)?;
        if let Some(limit) = self.faults.full_after_bytes {
            let before = self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if before.saturating_add(bytes.len() as u64) > limit {
                return Err(StoreError::Full {
                    key: key.to_owned(),
                    url: self.inner.url(),
                    reason: "no space left, on purpose".to_owned(),
                });
            }
        }
        let result = self.put_now(key, bytes, fate);
        self.after(fate, key, result)
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let fate = self.before(Verb::Get, key)?;
        let result = self.spoil(key, self.inner.get(key));
        self.after(fate, key, result)
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let fate = self.before(Verb::GetRange, key)?;
        let result = self.spoil(key, self.inner.get_range(key, offset, len));
        self.after(fate, key, result)
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        let fate = self.before(Verb::Size, key)?;
        self.after(fate, key, self.inner.size(key))
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let fate = match (self.before(Verb::List, prefix), self.faults.break_list_after) {
            (Ok(fate), _) => fate,
            (Err(error @ StoreError::Unavailable { .. }), Some(limit)) => {
                let mut reported = 0;
                self.inner.list(prefix, &mut |object| {
                    reported += 1;
                    if reported > limit { Err(error.clone()) } else { each(object) }
                })?;
                return Err(error);
            }
            (Err(error), _) => return Err(error),
        };
        let result = match self.faults.stale_lists {
            0 => self.inner.list(prefix, each),
            _ => self.list_stale(prefix, each),
        };
        self.after(fate, prefix, result)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let fate = self.before(Verb::Delete, key)?;
        if self.faults.stale_lists > 0 {
            let mut found = None;
            self.inner.list(key, &mut |object| {
                if object.key == key {
                    found = Some(object);
                }
                Ok(())
            })?;
            if found.is_some() {
                self.hide(key, found);
            }
        }
        lock(&self.delayed).retain(|(_, delayed, _)| delayed != key);
        let result = self.inner.delete(key);
        self.after(fate, key, result)
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn vault(&self) -> Option<&dyn Vault> {
        self.inner.vault()
    }

    fn keeper(&self) -> Option<&dyn Keeper> {
        self.inner.keeper()
    }
}

#[cfg(test)]
mod tests {
    use super::super::mem::MemStore;
    use super::*;

    fn bytes() -> Bytes {
        Bytes::from_static(b"0123456789")
    }

    #[test]
    fn dies_before_or_after_the_chosen_change_and_stays_dead() {
        for landed in [false, true] {
            let faults = Faults { die_after_changes: Some(2), die_landed: landed, ..Faults::default() };
            let store = Faulty::new(MemStore::new(), faults);
            assert!(store.put("a", bytes()).is_ok() && store.put("b", bytes()).is_ok());
            assert!(store.get("a").is_ok(), "reads do not count");
            assert!(store.put("c", bytes()).is_err());
            assert!(store.put("d", bytes()).is_err() && store.get("a").is_err(), "it stays dead");
            let left: Vec<_> = store.inner().snapshot().into_keys().collect();
            assert_eq!(left.contains(&"c".to_owned()), landed);
            assert!(!left.contains(&"d".to_owned()));
        }
    }

    #[test]
    fn the_same_seed_fails_the_same_calls() {
        let run = |seed| {
            let faults =
                Faults { seed, unavailable_per_mille: 300, lost_per_mille: 100, ..Faults::default() };
            let store = Faulty::new(MemStore::new(), faults);
            (0..100).map(|n| store.put(&format!("k{n}"), bytes()).is_ok()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let fine = run(1).iter().filter(|ok| **ok).count();
        assert!((40..85).contains(&fine), "{fine}");
    }

    #[test]
    fn reads_are_spoilt_and_the_store_is_not() {
        let faults = Faults { seed: 3, flip_per_mille: 1000, ..Faults::default() };
        let store = Faulty::new(MemStore::new(), faults);
        store.put("a", bytes()).unwrap();
        let read = store.get("a").unwrap();
        let flipped: u32 = read.iter().zip(bytes().iter()).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, 1);
        assert_eq!(store.inner().get("a").unwrap(), bytes());
        let faults = Faults { cut_per_mille: 1000, ..Faults::default() };
        let store = Faulty::new(store.inner, faults);
        assert!(matches!(store.get("a"), Err(StoreError::Short { .. })));
    }

    #[test]
    fn a_full_store_takes_nothing_more_and_a_denied_verb_is_denied() {
        let faults = Faults {
            full_after_bytes: Some(25),
            denied: BTreeSet::from([Verb::Delete]),
            ..Faults::default()
        };
        let store = Faulty::new(MemStore::new(), faults);
        assert!(store.put("a", bytes()).is_ok() && store.put("b", bytes()).is_ok());
        assert!(matches!(store.put("c", bytes()), Err(StoreError::Full { .. })));
        assert!(store.get("a").is_ok());
        assert!(matches!(store.delete("a"), Err(StoreError::Denied { .. })));
    }

    #[test]
    fn a_torn_put_leaves_a_first_part_and_is_told() {
        for faults in [
            Faults { seed: 5, torn_per_mille: 1000, ..Faults::default() },
            Faults {
                seed: 5,
                die_after_changes: Some(0),
                die_landed: true,
                die_torn: true,
                ..Faults::default()
            },
        ] {
            let store = Faulty::new(MemStore::new(), faults);
            assert!(store.put("a", bytes()).is_err());
            let left = store.inner().get("a").unwrap();
            assert!(left.len() < 10 && bytes().starts_with(&left), "{left:?}");
            assert!(store.put("a", bytes()).is_err() || store.put("a", bytes()).unwrap() == Put::Exists);
        }
    }

    #[test]
    fn a_delayed_put_is_acknowledged_seen_later_and_lost_when_the_process_dies() {
        let delayed = Faults { delay_puts: 3, ..Faults::default() };
        let store = Faulty::new(MemStore::new(), delayed.clone());
        assert_eq!(store.put("a", bytes()).unwrap(), Put::Created);
        assert!(store.get("a").unwrap_err().is_not_found());
        assert_eq!(store.put("a", bytes()).unwrap(), Put::Exists);
        assert!(store.size("a").is_err());
        assert_eq!(store.get("a").unwrap(), bytes(), "it is there three calls later");
        let store = Faulty::new(MemStore::new(), Faults { die_after_changes: Some(1), ..delayed });
        store.put("a", bytes()).unwrap();
        store.put("b", bytes()).unwrap_err();
        for _ in 0..9 {
            store.get("a").unwrap_err();
        }
        assert!(store.inner().snapshot().is_empty(), "acknowledged and never written");
    }

    #[test]
    fn a_stale_listing_lacks_the_new_and_shows_the_deleted() {
        let store = Faulty::new(MemStore::new(), Faults { stale_lists: 3, ..Faults::default() });
        let listed = || -> Vec<String> {
            super::super::list_all(&store, "").unwrap().into_iter().map(|object| object.key).collect()
        };
        store.put("a", bytes()).unwrap();
        assert_eq!(store.get("a").unwrap(), bytes(), "reads are up to date");
        assert!(listed().is_empty());
        assert_eq!(listed(), ["a"]);
        store.delete("a").unwrap();
        assert_eq!(listed(), ["a"], "deleted and still shown");
        listed();
        assert!(listed().is_empty());
        assert!(store.inner().snapshot().is_empty());
    }

    #[test]
    fn without_faults_keeps_the_contract() {
        crate::store::suite::run(&Faulty::new(MemStore::new(), Faults::default()));
    }
}
