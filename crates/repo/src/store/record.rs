//! A wrapper that writes down every call: a claim about cost becomes a test. And lets something happen right before
//! one: so does a claim about the wrong moment.
//!
//! `assert_eq!(store.calls(Verb::Get), ["index/…"], "an unchanged volume reads one segment")`.

use std::fmt::{Debug, Formatter};

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::keeper::Keeper;
use super::vault::{BucketSays, Lock, Vault, Version, none};
use super::{Object, Put, Store, StoreError};

/// The verbs of [`Store`] and of its vault (`url` is free and not counted, nor is what only a probe asks). A locked
/// put is a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// `put`
    Put,
    /// `get`
    Get,
    /// `get_range`
    GetRange,
    /// `size`
    Size,
    /// `list`
    List,
    /// `delete`, and `hide` of a vault
    Delete,
    /// `lock_of`
    LockOf,
    /// `set_lock`
    SetLock,
    /// `versions`
    Versions,
    /// `get_version`
    GetVersion,
    /// `delete_version`
    DeleteVersion,
    /// `put_over`
    PutOver,
}

/// One call as it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The verb.
    pub verb: Verb,
    /// The key, or the prefix of a list.
    pub key: String,
    /// Bytes put or got; objects listed.
    pub amount: u64,
    /// False when it ended in an error.
    pub ok: bool,
}

type Happens = dyn Fn(Verb, &str) + Send + Sync;

/// What happens right before a call: waiting, or somebody else's calls.
struct Before(Box<Happens>);

impl Debug for Before {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Before")
    }
}

/// A store whose calls are written down.
#[derive(Debug)]
pub struct Record<S> {
    inner: S,
    log: Mutex<Vec<Call>>,
    before: Option<Before>,
}

impl<S: Store> Record<S> {
    /// Records the calls to `inner`.
    pub fn new(inner: S) -> Record<S> {
        Record { inner, log: Mutex::default(), before: None }
    }

    /// With something that happens right before each call, given its verb and its key (of a list, its prefix).
    pub fn before(self, happens: impl Fn(Verb, &str) + Send + Sync + 'static) -> Record<S> {
        Record { before: Some(Before(Box::new(happens))), ..self }
    }

    /// The store inside, for what should not be recorded.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The keys this verb was called with, in order.
    pub fn calls(&self, verb: Verb) -> Vec<String> {
        self.lock().iter().filter(|call| call.verb == verb).map(|call| call.key.clone()).collect()
    }

    /// How often this verb was called with a key that begins with `prefix`.
    pub fn count(&self, verb: Verb, prefix: &str) -> usize {
        self.lock().iter().filter(|call| call.verb == verb && call.key.starts_with(prefix)).count()
    }

    /// Bytes that went over this verb.
    pub fn bytes(&self, verb: Verb) -> u64 {
        self.lock().iter().filter(|call| call.verb == verb).map(|call| call.amount).sum()
    }

    /// The whole log.
    pub fn log(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// Forgets what was recorded so far.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, verb: Verb, key: &str) {
        if let Some(Before(happens)) = &self.before {
            happens(verb, key);
        }
    }

    fn note<T>(&self, verb: Verb, key: &str, result: &Result<T, StoreError>, amount: impl Fn(&T) -> u64) {
        let amount = result.as_ref().map_or(0, amount);
        self.lock().push(Call { verb, key: key.to_owned(), amount, ok: result.is_ok() });
    }
}

impl<S: Store> Store for Record<S> {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.begin(Verb::Put, key);
        let len = bytes.len() as u64;
        let result = self.inner.put(key, bytes);
        self.note(Verb::Put, key, &result, |_| len);
        result
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.begin(Verb::Get, key);
        let result = self.inner.get(key);
        self.note(Verb::Get, key, &result, |bytes| bytes.len() as u64);
        result
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.begin(Verb::GetRange, key);
        let result = self.inner.get_range(key, offset, len);
        self.note(Verb::GetRange, key, &result, |bytes| bytes.len() as u64);
        result
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.begin(Verb::Size, key);
        let result = self.inner.size(key);
        self.note(Verb::Size, key, &result, |_| 0);
        result
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.begin(Verb::List, prefix);
        let mut listed = 0;
        let result = self.inner.list(prefix, &mut |object| {
            listed += 1;
            each(object)
        });
        self.note(Verb::List, prefix, &result, |()| listed);
        result
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.begin(Verb::Delete, key);
        let result = self.inner.delete(key);
        self.note(Verb::Delete, key, &result, |()| 0);
        result
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

impl<S: Store> Record<S> {
    fn vault_of(&self, key: &str) -> Result<&dyn Vault, StoreError> {
        self.inner.vault().ok_or_else(|| none(key, &self.inner.url()))
    }
}

impl<S: Store> Vault for Record<S> {
    fn bucket(&self) -> Result<BucketSays, StoreError> {
        self.vault_of("")?.bucket()
    }

    fn put_locked(&self, key: &str, bytes: Bytes, lock: &Lock) -> Result<Put, StoreError> {
        self.begin(Verb::Put, key);
        let len = bytes.len() as u64;
        let result = self.vault_of(key)?.put_locked(key, bytes, lock);
        self.note(Verb::Put, key, &result, |_| len);
        result
    }

    fn lock_of(&self, key: &str) -> Result<Option<Lock>, StoreError> {
        self.begin(Verb::LockOf, key);
        let result = self.vault_of(key)?.lock_of(key);
        self.note(Verb::LockOf, key, &result, |_| 0);
        result
    }

    fn set_lock(&self, key: &str, lock: &Lock) -> Result<(), StoreError> {
        self.begin(Verb::SetLock, key);
        let result = self.vault_of(key)?.set_lock(key, lock);
        self.note(Verb::SetLock, key, &result, |()| 0);
        result
    }

    fn versions(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Version) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.begin(Verb::Versions, prefix);
        let mut listed = 0;
        let result = self.vault_of(prefix)?.versions(prefix, &mut |version| {
            listed += 1;
            each(version)
        });
        self.note(Verb::Versions, prefix, &result, |()| listed);
        result
    }

    fn get_version(&self, key: &str, id: &str) -> Result<Bytes, StoreError> {
        self.begin(Verb::GetVersion, key);
        let result = self.vault_of(key)?.get_version(key, id);
        self.note(Verb::GetVersion, key, &result, |bytes| bytes.len() as u64);
        result
    }

    fn delete_version(&self, key: &str, id: &str) -> Result<(), StoreError> {
        self.begin(Verb::DeleteVersion, key);
        let result = self.vault_of(key)?.delete_version(key, id);
        self.note(Verb::DeleteVersion, key, &result, |()| 0);
        result
    }

    fn put_over(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<(), StoreError> {
        self.begin(Verb::PutOver, key);
        let len = bytes.len() as u64;
        let result = self.vault_of(key)?.put_over(key, bytes, lock);
        self.note(Verb::PutOver, key, &result, |()| len);
        result
    }

    fn hide(&self, key: &str) -> Result<(), StoreError> {
        self.begin(Verb::Delete, key);
        let result = self.vault_of(key)?.hide(key);
        self.note(Verb::Delete, key, &result, |()| 0);
        result
    }

    fn refuses_damage(&self, key: &str) -> Result<bool, StoreError> {
        self.vault_of(key)?.refuses_damage(key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::mem::MemStore;
    use super::*;

    #[test]
    fn what_was_asked_can_be_read_afterwards() {
        let store = Record::new(MemStore::new());
        store.put("a/1", Bytes::from_static(b"123")).unwrap();
        store.get("a/1").unwrap();
        store.get("a/2").unwrap_err();
        store.get_range("a/1", 1, 2).unwrap();
        store.list("a/", &mut |_| Ok(())).unwrap();
        assert_eq!(store.calls(Verb::Get), ["a/1", "a/2"]);
        assert_eq!((store.bytes(Verb::Get), store.bytes(Verb::GetRange)), (3, 2));
        assert_eq!(store.count(Verb::Put, "a/"), 1);
        assert_eq!(
            store.log().last(),
            Some(&Call { verb: Verb::List, key: "a/".into(), amount: 1, ok: true })
        );
        store.clear();
        assert!(store.log().is_empty());
    }

    #[test]
    fn what_happens_before_a_call_is_there_for_it() {
        let bucket = MemStore::new();
        let other = bucket.clone();
        let store = Record::new(bucket).before(move |verb, key| {
            if (verb, key) == (Verb::Get, "a/1") {
                other.put(key, Bytes::from_static(b"in time")).unwrap();
            }
        });
        assert_eq!(store.get("a/1").unwrap(), "in time");
        assert_eq!(store.log().len(), 1);
    }

    #[test]
    fn keeps_the_contract() {
        crate::store::suite::run(&Record::new(MemStore::new()));
    }
}
