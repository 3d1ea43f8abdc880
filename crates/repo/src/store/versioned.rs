//! A store in memory with versions and locks, as S3 has them, and with the faults that services are known for: for
//! tests of all that defends a repository, without a server.
//!
//! [`Vault::hide`], [`Vault::put_over`] and the rest are also what an attacker has who stole credentials.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::vault::{BucketSays, Lock, LockMode, Vault, Version};
use super::{Object, Put, Store, StoreError, check_key, range_end};
use crate::env::{Env, Timestamp};

/// What the service gets wrong. All off by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flaws {
    /// A put replaces what is there: the condition is ignored, or not atomic.
    pub replaces: bool,
    /// Locks are accepted and forgotten.
    pub forgets_locks: bool,
    /// Locks are kept, shown, and do not keep anybody from deleting.
    pub deletes_locked: bool,
    /// A lock's date can be moved back.
    pub shortens: bool,
    /// Wrong checksums are accepted.
    pub accepts_damage: bool,
    /// Versions are not kept.
    pub one_version: bool,
}

struct Stored {
    id: String,
    /// A marker has none.
    bytes: Option<Bytes>,
    modified: Timestamp,
    lock: Option<Lock>,
}

#[derive(Default)]
struct State {
    /// Oldest version first; never empty.
    objects: BTreeMap<String, Vec<Stored>>,
    made: u64,
}

/// Objects with their versions. Clones share them.
#[derive(Clone)]
pub struct VersionedStore {
    state: Arc<Mutex<State>>,
    env: Env,
    flaws: Flaws,
}

impl std::fmt::Debug for VersionedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VersionedStore").field("flaws", &self.flaws).finish_non_exhaustive()
    }
}

const URL: &str = "mem://versioned";
/// So many objects are listed at a time.
const PAGE: usize = 1_000;

impl VersionedStore {
    /// An empty one, on this clock.
    pub fn new(env: &Env, flaws: Flaws) -> VersionedStore {
        VersionedStore { state: Arc::default(), env: env.clone(), flaws }
    }

    /// The same objects, with other faults.
    pub fn with_flaws(&self, flaws: Flaws) -> VersionedStore {
        VersionedStore { flaws, ..self.clone() }
    }

    // Every change is whole by itself: a thread that panicked left nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(&self, key: &str) -> StoreError {
        StoreError::NotFound { key: key.to_owned(), url: URL.to_owned() }
    }

    fn find(&self, key: &str) -> Result<Bytes, StoreError> {
        check_key(key, URL)?;
        let state = self.lock();
        let newest = state.objects.get(key).and_then(|versions| versions.last());
        newest.and_then(|version| version.bytes.clone()).ok_or_else(|| self.missing(key))
    }

    fn add(&self, state: &mut State, key: &str, bytes: Option<Bytes>, lock: Option<Lock>) {
        state.made += 1;
        let stored = Stored {
            id: format!("v{}", state.made),
            bytes,
            modified: self.env.now(),
            lock: lock.filter(|_| !self.flaws.forgets_locks),
        };
        let versions = state.objects.entry(key.to_owned()).or_default();
        if self.flaws.one_version {
            versions.clear();
        }
        versions.push(stored);
    }

    fn put_as(&self, key: &str, bytes: Bytes, lock: Option<Lock>) -> Result<Put, StoreError> {
        check_key(key, URL)?;
        if !self.flaws.replaces && self.find(key).is_ok() {
            return Ok(Put::Exists);
        }
        let mut state = self.lock();
        let there = state.objects.get(key).and_then(|versions| versions.last());
        if !self.flaws.replaces && there.is_some_and(|version| version.bytes.is_some()) {
            return Ok(Put::Exists);
        }
        self.add(&mut state, key, Some(Bytes::copy_from_slice(&bytes)), lock);
        Ok(Put::Created)
    }

    /// Hands over what `take` makes of the objects of a prefix, a page at a time as a service answers: `each` may
    /// call the store.
    fn in_pages<T>(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(T) -> Result<(), StoreError>,
        take: impl Fn(&String, &[Stored], &mut Vec<T>),
    ) -> Result<(), StoreError> {
        let mut from = Bound::Included(prefix.to_owned());
        loop {
            let mut page = Vec::new();
            let mut last = None;
            let state = self.lock();
            let rest = state.objects.range((from, Bound::Unbounded));
            for (key, versions) in rest.take_while(|(key, _)| key.starts_with(prefix)).take(PAGE) {
                take(key, versions, &mut page);
                last = Some(key.clone());
            }
            drop(state);
            page.into_iter().try_for_each(&mut *each)?;
            match last {
                Some(last) => from = Bound::Excluded(last),
                None => return Ok(()),
            }
        }
    }

    fn forbids(&self, key: &str, stored: &Stored) -> Option<StoreError> {
        let lock = stored.lock.filter(|lock| lock.until > self.env.now() && !self.flaws.deletes_locked)?;
        Some(StoreError::Locked {
            key: key.to_owned(),
            url: URL.to_owned(),
            until: lock.until,
            mode: lock.mode,
        })
    }
}

impl Store for VersionedStore {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.put_as(key, bytes, None)
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.find(key)
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let bytes = self.find(key)?;
        let end = range_end(key, URL, offset, len, bytes.len() as u64)?;
        Ok(bytes.slice(offset as usize..end as usize))
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        Ok(self.find(key)?.len() as u64)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.in_pages(prefix, each, |key, versions, page| {
            if let Some(Stored { bytes: Some(bytes), modified, .. }) = versions.last() {
                page.push(Object { key: key.clone(), size: bytes.len() as u64, modified: *modified });
            }
        })
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, URL)?;
        let mut state = self.lock();
        if let Some(versions) = state.objects.get_mut(key) {
            while let Some(version) = versions.last() {
                if let Some(error) = self.forbids(key, version) {
                    return Err(error);
                }
                versions.pop();
            }
        }
        state.objects.remove(key);
        Ok(())
    }

    fn url(&self) -> String {
        URL.to_owned()
    }

    fn vault(&self) -> Option<&dyn Vault> {
        Some(self)
    }
}

impl Vault for VersionedStore {
    fn bucket(&self) -> Result<BucketSays, StoreError> {
        Ok(BucketSays { versions: !self.flaws.one_version, lock: true, default_lock: None })
    }

    fn put_locked(&self, key: &str, bytes: Bytes, lock: &Lock) -> Result<Put, StoreError> {
        self.put_as(key, bytes, Some(*lock))
    }

    fn lock_of(&self, key: &str) -> Result<Option<Lock>, StoreError> {
        self.find(key)?;
        Ok(self.lock().objects.get(key).and_then(|versions| versions.last()).and_then(|version| version.lock))
    }

    fn set_lock(&self, key: &str, lock: &Lock) -> Result<(), StoreError> {
        self.find(key)?;
        let mut state = self.lock();
        let Some(version) = state.objects.get_mut(key).and_then(|versions| versions.last_mut()) else {
            return Err(self.missing(key));
        };
        if let Some(old) = version.lock
            && old.until > self.env.now()
            && (lock.until < old.until
                || (old.mode == LockMode::Compliance && lock.mode == LockMode::Governance))
            && !self.flaws.shortens
        {
            let reason = "a lock cannot be made weaker".to_owned();
            return Err(StoreError::Denied { key: key.to_owned(), url: URL.to_owned(), reason });
        }
        version.lock = Some(*lock).filter(|_| !self.flaws.forgets_locks);
        Ok(())
    }

    fn versions(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Version) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.in_pages(prefix, each, |key, versions, page| {
            for (at, version) in versions.iter().enumerate().rev() {
                page.push(Version {
                    key: key.clone(),
                    id: version.id.clone(),
                    marker: version.bytes.is_none(),
                    latest: at + 1 == versions.len(),
                    size: version.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
                    modified: version.modified,
                });
            }
        })
    }

    fn get_version(&self, key: &str, id: &str) -> Result<Bytes, StoreError> {
        let state = self.lock();
        let version = state.objects.get(key).and_then(|versions| versions.iter().find(|v| v.id == id));
        version.and_then(|version| version.bytes.clone()).ok_or_else(|| self.missing(key))
    }

    fn delete_version(&self, key: &str, id: &str) -> Result<(), StoreError> {
        let mut state = self.lock();
        let Some(versions) = state.objects.get_mut(key) else { return Ok(()) };
        if let Some(error) =
            versions.iter().find(|version| version.id == id).and_then(|version| self.forbids(key, version))
        {
            return Err(error);
        }
        versions.retain(|version| version.id != id);
        if versions.is_empty() {
            state.objects.remove(key);
        }
        Ok(())
    }

    fn put_over(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<(), StoreError> {
        check_key(key, URL)?;
        self.add(&mut self.lock(), key, Some(Bytes::copy_from_slice(&bytes)), lock.copied());
        Ok(())
    }

    fn hide(&self, key: &str) -> Result<(), StoreError> {
        let mut state = self.lock();
        if self.flaws.one_version {
            state.objects.remove(key);
        } else {
            self.add(&mut state, key, None, None);
        }
        Ok(())
    }

    fn refuses_damage(&self, key: &str) -> Result<bool, StoreError> {
        if self.flaws.accepts_damage {
            self.put(key, Bytes::from_static(b"these bytes"))?;
        }
        Ok(!self.flaws.accepts_damage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_contract() {
        crate::store::suite::run(&VersionedStore::new(&Env::fixed(0, 1), Flaws::default()));
    }
}
