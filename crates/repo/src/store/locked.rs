//! A wrapper that locks every object of a repository from its first moment, for as long as the repository wants.
//!
//! Only what a recovery point needs is locked. Other objects (marks of collection, records of locks) are meant to be
//! removed again.

use std::sync::Arc;

use bytes::Bytes;

use super::keeper::Keeper;
use super::vault::{Lock, LockMode, Vault, none};
use super::{Object, Put, Store, StoreError};
use crate::env::{Env, Timestamp};
use crate::id::{COMMITS, HEADER, INDEX, KEYS, PACKS};

/// Whether objects of this key are locked in a repository with locks.
pub(crate) fn is_kept(key: &str) -> bool {
    key == HEADER || [PACKS, INDEX, COMMITS, KEYS].iter().any(|folder| key.starts_with(folder))
}

/// A store whose puts are locked.
#[derive(Debug)]
pub(crate) struct Locked {
    inner: Arc<dyn Store>,
    mode: LockMode,
    /// From the put on.
    lasts: Timestamp,
    env: Env,
}

impl Locked {
    pub(crate) fn new(inner: Arc<dyn Store>, mode: LockMode, lasts: Timestamp, env: &Env) -> Locked {
        Locked { inner, mode, lasts, env: env.clone() }
    }
}

impl Store for Locked {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        if !is_kept(key) {
            return self.inner.put(key, bytes);
        }
        let lock = Lock::new(self.mode, self.env.now().saturating_add(self.lasts));
        let vault = self.inner.vault().ok_or_else(|| none(key, &self.inner.url()))?;
        vault.put_locked(key, bytes, &lock)
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.inner.get(key)
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
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
        self.inner.vault()
    }

    fn keeper(&self) -> Option<&dyn Keeper> {
        self.inner.keeper()
    }
}

#[cfg(test)]
mod tests {
    use super::super::versioned::{Flaws, VersionedStore};
    use super::*;

    #[test]
    fn what_points_need_is_locked_and_the_rest_is_not() {
        let env = Env::fixed(0, 1);
        let store = Arc::new(VersionedStore::new(&env, Flaws::default()));
        let locked = Locked::new(store.clone(), LockMode::Compliance, 500_000_000, &env);
        for (key, kept) in [
            ("packs/ab/x", true),
            ("index/x", true),
            ("commits/x", true),
            ("keys/x", true),
            ("holdfast.json", true),
            ("locks/x", false),
            ("holdfast.json.x", false),
        ] {
            locked.put(key, Bytes::from_static(b"x")).unwrap();
            let lock = Lock { until: 1_000_000_000, mode: LockMode::Compliance };
            assert_eq!(store.lock_of(key).unwrap(), kept.then_some(lock), "{key}");
            assert_eq!(locked.delete(key).is_err(), kept);
        }
    }

    #[test]
    fn keeps_the_contract() {
        let env = Env::fixed(0, 1);
        let store = Arc::new(VersionedStore::new(&env, Flaws::default()));
        crate::store::suite::run(&Locked::new(store, LockMode::Governance, 1, &env));
    }
}
