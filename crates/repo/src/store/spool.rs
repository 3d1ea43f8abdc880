//! A layer that acknowledges packs from the local disk and sends them on to the store behind: for who holds an
//! application still, and must not hold it for as long as an upload takes.
//!
//! - **R2 holds.** A pack waits on the disk; every other put waits until all packs before it are in the store. So no
//!   index names a pack and no commit needs one that is not there. Only leases and voids pass: they name no pack, and a
//!   lease that is renewed too late would cost the write. If a pack cannot be sent, every put after it fails, and so
//!   does the write.
//! - **Nothing rests on the disk.** What is in the spool belongs to no commit yet. A crash at any moment, or a disk
//!   that gives back something else (a pack is compared with its name before it is sent), costs the write and nothing
//!   that was committed.
//! - **Room is bounded**: a pack that finds none waits until others have gone. One larger than all of it, or one that
//!   the disk does not take, goes to the store at once, as it would without a spool.
//! - What a process that died leaves is found by the next, which removes it or sends it on ([`leftovers`]). A file lock
//!   tells who is alive.
//! - Reads see what was put: a pack that waits is read from the disk; a listing of packs waits for those before it.
//!
//! It belongs right above the store, and below what a repository adds (locks). A write of more than some 65,000 chunks
//! puts index segments as it goes; the thread that puts one waits, and the other goes on.

mod leftover;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::keeper::Keeper;
use super::local::LocalStore;
use super::vault::{BucketSays, Lock, Vault, Version, none};
use super::{Object, Put, Store, StoreError, holds};
use crate::env::Env;
use crate::id::{PACKS, PackId};
use crate::lease::{GC, LEASES};

use leftover::Place;
pub use leftover::{Leftover, Sent, leftovers};

/// Where a spool lies and how large it may get.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// The folder for spools of one repository, on a local disk; made if absent. Processes may share it.
    pub dir: PathBuf,
    /// Bytes of packs that may wait.
    pub room_bytes: u64,
    /// How many packs are sent at a time. Each is in memory meanwhile.
    pub senders: usize,
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Packs.
    pub packs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A store whose packs are acknowledged from a disk. Once a pack could not be sent it stays failed; who goes on makes
/// a new one. What still waits when it is dropped is thrown away: nothing that was committed needs it.
pub struct Spool {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<()>>,
}

struct Shared {
    inner: Arc<dyn Store>,
    disk: LocalStore,
    place: Place,
    room: u64,
    state: Mutex<State>,
    changed: Condvar,
}

/// A pack that is not in the store yet.
#[derive(Clone)]
struct Pack {
    key: String,
    size: u64,
    lock: Option<Lock>,
}

#[derive(Default)]
struct State {
    /// The number of the next pack.
    next: u64,
    /// By number: on their way to the disk, on it, or on their way to the store.
    packs: BTreeMap<u64, Pack>,
    numbers: HashMap<String, u64>,
    /// Those on the disk that nobody sends yet.
    queue: VecDeque<u64>,
    used: u64,
    failed: Option<StoreError>,
    stopping: bool,
}

impl State {
    fn remove(&mut self, number: u64) {
        if let Some(pack) = self.packs.remove(&number) {
            self.numbers.remove(&pack.key);
            self.used = self.used.saturating_sub(pack.size);
        }
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("inner", &self.shared.inner).field("waiting", &self.waiting()).finish()
    }
}

impl Spool {
    /// A spool of its own in front of `inner`.
    pub fn new(inner: Arc<dyn Store>, options: &SpoolOptions, env: &Env) -> Result<Spool, StoreError> {
        let place = Place::make(&options.dir, env)?;
        let shared = Shared {
            inner,
            disk: LocalStore::new(&place.folder)?,
            place,
            room: options.room_bytes,
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        // A thread that cannot be started drops the spool, which stops those that were and removes the folder.
        let mut spool = Spool { shared: Arc::new(shared), senders: Vec::new() };
        for number in 0..options.senders.max(1) {
            let shared = spool.shared.clone();
            let thread = std::thread::Builder::new().name(format!("repo-spool-{number}"));
            let thread = thread.spawn(move || shared.send_on()).map_err(|error| StoreError::Other {
                key: String::new(),
                url: spool.shared.inner.url(),
                reason: format!("a thread that sends packs on could not be started: {error}"),
            })?;
            spool.senders.push(thread);
        }
        Ok(spool)
    }

    /// Waits until everything put so far is in the store.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.shared.settle()
    }

    /// What waits now.
    pub fn waiting(&self) -> Waiting {
        let state = self.shared.state();
        Waiting { packs: state.packs.len(), bytes: state.used }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.shared.changed.notify_all();
        for thread in self.senders.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
        if let Err(error) = self.shared.place.remove() {
            tracing::warn!(%error, "a spool could not be removed; the next process removes it");
        }
    }
}

/// Fails the spool if its thread unwinds: nobody may wait for it for ever.
struct Watch<'s>(&'s Shared);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason =
                "a thread that sends packs on panicked; this is a defect, please report it".to_owned();
            self.0.fail(StoreError::Other { key: String::new(), url: self.0.inner.url(), reason });
        }
    }
}

impl Shared {
    // Whole at every moment: each change under the lock is complete when it is let go.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: StoreError) {
        self.state().failed.get_or_insert(error);
        self.changed.notify_all();
    }

    // --- taking packs in ---

    fn put_pack(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<Put, StoreError> {
        let size = bytes.len() as u64;
        let mut state = self.state();
        let number = loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.numbers.contains_key(key) {
                return Ok(Put::Exists);
            }
            if size > self.room {
                drop(state);
                return self.put_through(key, bytes, lock);
            }
            if state.used + size <= self.room {
                break state.next;
            }
            state = self.wait(state);
        };
        // Numbered before it is on the disk, so that a put that comes after this one waits for it.
        state.next += 1;
        state.used += size;
        state.packs.insert(number, Pack { key: key.to_owned(), size, lock: lock.copied() });
        state.numbers.insert(key.to_owned(), number);
        drop(state);
        match self.disk.put(key, bytes.clone()) {
            Ok(_) => {
                self.state().queue.push_back(number);
                self.changed.notify_all();
                Ok(Put::Created)
            }
            Err(error) => {
                tracing::warn!(%error, "the spool's disk does not take a pack, which goes to the store at once");
                self.state().remove(number);
                self.changed.notify_all();
                self.put_through(key, bytes, lock)
            }
        }
    }

    /// A put as it is without a spool.
    fn put_through(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<Put, StoreError> {
        match lock {
            None => self.inner.put(key, bytes),
            Some(lock) => self.vault_of(key)?.put_locked(key, bytes, lock),
        }
    }

    fn vault_of(&self, key: &str) -> Result<&dyn Vault, StoreError> {
        self.inner.vault().ok_or_else(|| none(key, &self.inner.url()))
    }

    // --- sending them on ---

    fn send_on(&self) {
        let _watch = Watch(self);
        while let Some((number, pack)) = self.next() {
            if let Err(error) = self.send(&pack) {
                return self.fail(error);
            }
            if let Err(error) = self.disk.delete(&pack.key) {
                tracing::warn!(%error, "a pack that was sent stays in the spool");
            }
            self.state().remove(number);
            self.changed.notify_all();
        }
    }

    /// The next to be sent, waited for; `None` when there is nothing more to do.
    fn next(&self) -> Option<(u64, Pack)> {
        let mut state = self.state();
        loop {
            if state.stopping || state.failed.is_some() {
                return None;
            }
            if let Some(number) = state.queue.pop_front() {
                let pack = state.packs.get(&number)?.clone();
                return Some((number, pack));
            }
            state = self.wait(state);
        }
    }

    fn send(&self, pack: &Pack) -> Result<(), StoreError> {
        let Pack { key, lock, .. } = pack;
        let refused = |reason: &str| {
            let (key, url) = (key.clone(), self.inner.url());
            Err(StoreError::Other { key, url, reason: reason.to_owned() })
        };
        let bytes = self.disk.get(key)?;
        // It was acknowledged as these bytes, and a commit would rely on them.
        if PackId::from_key(key) != Some(PackId(*blake3::hash(&bytes).as_bytes())) {
            return refused("the disk of the spool gave back other bytes than were put; look at that disk");
        }
        let put = self.put_through(key, bytes.clone(), lock.as_ref())?;
        if put == Put::Created || holds(&*self.inner, key, &bytes)? {
            return Ok(());
        }
        refused("an object of this name is there, and its bytes are others")
    }

    // --- what comes after them ---

    /// Waits until all packs that were put before this call are in the store.
    fn settle(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        let upto = state.next;
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.packs.first_key_value().is_none_or(|(number, _)| *number >= upto) {
                return Ok(());
            }
            state = self.wait(state);
        }
    }

    fn is_waiting(&self, key: &str) -> bool {
        self.state().numbers.contains_key(key)
    }

    /// Something is done to an object that may still be on its way.
    fn settle_if_waiting(&self, key: &str) -> Result<(), StoreError> {
        if self.is_waiting(key) { self.settle() } else { Ok(()) }
    }

    /// Reads an object from where it is.
    fn read<T>(
        &self,
        key: &str,
        read: impl Fn(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.is_waiting(key) {
            match read(&self.disk) {
                // Sent meanwhile.
                Err(StoreError::NotFound { .. }) => {}
                answer => return answer,
            }
        }
        read(&*self.inner)
    }

    /// What every other put and every listing of packs does first.
    fn before(&self, key: &str) -> Result<(), StoreError> {
        // They name no pack, and must not come late.
        if key.starts_with(LEASES) || key.starts_with(GC) { Ok(()) } else { self.settle() }
    }
}

/// Whether a key is one of a pack: a name that its bytes can be compared with.
fn is_pack(key: &str) -> bool {
    PackId::from_key(key).is_some()
}

impl Store for Spool {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        if is_pack(key) {
            return self.shared.put_pack(key, bytes, None);
        }
        self.shared.before(key)?;
        self.shared.inner.put(key, bytes)
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.shared.read(key, |store| store.get(key))
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.shared.read(key, |store| store.get_range(key, offset, len))
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.shared.read(key, |store| store.size(key))
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if prefix.starts_with(PACKS) || PACKS.starts_with(prefix) {
            self.shared.settle()?;
        }
        self.shared.inner.list(prefix, each)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.shared.settle_if_waiting(key)?;
        self.shared.inner.delete(key)
    }

    fn url(&self) -> String {
        self.shared.inner.url()
    }

    fn vault(&self) -> Option<&dyn Vault> {
        self.shared.inner.vault().map(|_| self as &dyn Vault)
    }

    fn keeper(&self) -> Option<&dyn Keeper> {
        self.shared.inner.keeper()
    }
}

impl Vault for Spool {
    fn bucket(&self) -> Result<BucketSays, StoreError> {
        self.shared.vault_of("")?.bucket()
    }

    fn put_locked(&self, key: &str, bytes: Bytes, lock: &Lock) -> Result<Put, StoreError> {
        if is_pack(key) {
            return self.shared.put_pack(key, bytes, Some(lock));
        }
        self.shared.before(key)?;
        self.shared.vault_of(key)?.put_locked(key, bytes, lock)
    }

    fn lock_of(&self, key: &str) -> Result<Option<Lock>, StoreError> {
        self.shared.settle_if_waiting(key)?;
        self.shared.vault_of(key)?.lock_of(key)
    }

    fn set_lock(&self, key: &str, lock: &Lock) -> Result<(), StoreError> {
        self.shared.settle_if_waiting(key)?;
        self.shared.vault_of(key)?.set_lock(key, lock)
    }

    fn versions(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Version) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if prefix.starts_with(PACKS) || PACKS.starts_with(prefix) {
            self.shared.settle()?;
        }
        self.shared.vault_of(prefix)?.versions(prefix, each)
    }

    fn get_version(&self, key: &str, id: &str) -> Result<Bytes, StoreError> {
        self.shared.vault_of(key)?.get_version(key, id)
    }

    fn delete_version(&self, key: &str, id: &str) -> Result<(), StoreError> {
        self.shared.vault_of(key)?.delete_version(key, id)
    }

    fn put_over(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<(), StoreError> {
        self.shared.settle()?;
        self.shared.vault_of(key)?.put_over(key, bytes, lock)
    }

    fn hide(&self, key: &str) -> Result<(), StoreError> {
        self.shared.settle_if_waiting(key)?;
        self.shared.vault_of(key)?.hide(key)
    }

    fn refuses_damage(&self, key: &str) -> Result<bool, StoreError> {
        self.shared.vault_of(key)?.refuses_damage(key)
    }
}
