//! A store in memory: for tests and the demo. Keeps the contract of the others, and forgets all at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Object, Put, Store, StoreError, check_key, range_end};
use crate::env::{Env, Timestamp};

/// Objects in a map. Clones share it.
#[derive(Clone)]
pub struct MemStore {
    objects: Arc<Mutex<BTreeMap<String, (Bytes, Timestamp)>>>,
    env: Env,
}

impl Default for MemStore {
    fn default() -> MemStore {
        MemStore::with_env(Env::real())
    }
}

impl std::fmt::Debug for MemStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemStore").field("objects", &self.lock().len()).finish()
    }
}

const URL: &str = "mem://";

impl MemStore {
    /// An empty store.
    pub fn new() -> MemStore {
        MemStore::default()
    }

    /// An empty store whose clock is that of `env`.
    pub fn with_env(env: Env) -> MemStore {
        MemStore { objects: Arc::default(), env }
    }

    /// All objects as they are now: for tests that compare or keep the state of a store.
    pub fn snapshot(&self) -> BTreeMap<String, Bytes> {
        self.lock().iter().map(|(key, (bytes, _))| (key.clone(), bytes.clone())).collect()
    }

    /// A store that holds these objects: for tests that go back to a state.
    pub fn from_snapshot(objects: BTreeMap<String, Bytes>) -> MemStore {
        let store = MemStore::new();
        objects.into_iter().for_each(|(key, bytes)| store.tamper(&key, Some(bytes)));
        store
    }

    /// Replaces or removes an object behind the contract's back: what a failing disk or a thief does.
    pub fn tamper(&self, key: &str, content: Option<Bytes>) {
        match content {
            Some(bytes) => self.lock().insert(key.to_owned(), (bytes, self.env.now())),
            None => self.lock().remove(key),
        };
    }

    // A thread that panicked while holding the lock left a whole map behind: every change is one insert or remove.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Bytes, Timestamp)>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &str) -> Result<Bytes, StoreError> {
        check_key(key, URL)?;
        let missing = || StoreError::NotFound { key: key.to_owned(), url: URL.to_owned() };
        self.lock().get(key).map(|(bytes, _)| bytes.clone()).ok_or_else(missing)
    }
}

impl Store for MemStore {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        check_key(key, URL)?;
        let mut objects = self.lock();
        if objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        // A copy: the caller's bytes may be a slice of a much larger buffer that should not stay alive.
        objects.insert(key.to_owned(), (Bytes::copy_from_slice(&bytes), self.env.now()));
        Ok(Put::Created)
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
        // Collected first: `each` may call the store.
        let found: Vec<Object> = self
            .lock()
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (bytes, modified))| Object {
                key: key.clone(),
                size: bytes.len() as u64,
                modified: *modified,
            })
            .collect();
        found.into_iter().try_for_each(each)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, URL)?;
        self.lock().remove(key);
        Ok(())
    }

    fn url(&self) -> String {
        URL.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn keeps_the_contract() {
        crate::store::suite::run(&super::MemStore::new());
    }
}
