//! A store in memory, for tests and demonstrations: gone when the last clone is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::{Object, Put, Store, StoreError};

/// Objects in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemStore {
    objects: Arc<RwLock<BTreeMap<String, Bytes>>>,
}

impl MemStore {
    /// An empty one.
    pub fn new() -> MemStore {
        MemStore::default()
    }

    fn not_found(&self, key: &str) -> StoreError {
        StoreError::NotFound { key: key.into(), url: self.url() }
    }
}

impl Store for MemStore {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        if objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        objects.insert(key.into(), Bytes::copy_from_slice(&bytes));
        Ok(Put::Created)
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(key).cloned().ok_or_else(|| self.not_found(key))
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let whole = self.get(key)?;
        let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(len)?));
        match range.filter(|range| range.end <= whole.len()) {
            Some(range) => Ok(whole.slice(range)),
            None => Err(StoreError::Other {
                key: key.into(),
                url: self.url(),
                reason: format!("{len} bytes at {offset} were asked for and the object has {}", whole.len()),
            }),
        }
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        Ok(self.get(key)?.len() as u64)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // A copy of the names, so that `each` may call the store.
        let found: Vec<Object> = {
            let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
            objects
                .range(prefix.to_string()..)
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(key, bytes)| Object { key: key.clone(), size: bytes.len() as u64 })
                .collect()
        };
        found.into_iter().try_for_each(each)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(())
    }

    fn url(&self) -> String {
        "mem:".into()
    }
}
