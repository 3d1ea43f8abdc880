//! The threads behind a writer: what they share, and what each does.
//!
//! One pack is under assembly for each lane (several for data on many processors): workers compress on their
//! own, then append and seal under its lock, which is short against compressing. So a small write makes two
//! packs, however many threads there are.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::crypto::ChunkIds;
use crate::effort::Effort;
use crate::env::{Cancel, Timestamp};
use crate::error::Error;
use crate::id::{ChunkId, PackId};
use crate::index::{Index, PackSet, Segment, check_packs};
use crate::lease::{ReliedOn, Session};
use crate::monitor::Counts;
use crate::object::Extent;
use crate::pack::{Compressor, Lane, PACK_BYTES, PackBuilder, PackEntry, pack_bytes_at_most};
use crate::pack_keys::{PackKeys, Remember};
use crate::reindex;
use crate::repo::Repository;
use crate::spill::Spill;
use crate::store::direct;
use crate::writer::WriterOptions;

/// Where a worker leaves the id of a chunk.
pub(crate) type Slot = OnceLock<ChunkId>;

/// A chunk on its way to a worker.
pub(crate) struct Job {
    pub lane: Lane,
    pub plain: Bytes,
    pub slot: std::sync::Arc<Slot>,
}

/// A segment is written as soon as so many chunks wait for one: 2 to 4 GiB of data. What a
/// write that dies has stored up to there is found by the next.
const SEGMENT_CHUNKS: usize = 65_536;
const _: () = assert!(SEGMENT_CHUNKS + crate::pack::PACK_CHUNKS_MAX <= crate::index::SEGMENT_CHUNKS_MAX);

/// How long a thread sleeps before it looks at the stop button again.
const NAP: Duration = Duration::from_millis(50);

/// What a queued chunk costs besides its bytes.
const JOB_BYTES: usize = 128;

/// The id set is split so that workers seldom meet.
const SHARDS: usize = 16;

/// A pack whose put was acknowledged and that no segment names yet.
struct Acknowledged {
    id: PackId,
    size: u32,
    entries: Vec<PackEntry>,
}

pub(crate) struct Engine {
    repo: Repository,
    ids: ChunkIds,
    index: Index,
    touched: PackSet,
    session: Session,
    /// Packs of this write that the store has acknowledged.
    own: Mutex<Vec<(PackId, u32)>>,
    /// Chunks this write stores, by the first 16 bytes of their ids.
    stored: Vec<Mutex<Spill>>,
    cancel: Cancel,
    failure: OnceLock<Error>,
    stopped: AtomicBool,

    budget: usize,
    used: Mutex<usize>,
    freed: Condvar,

    /// Sleepers on anything but the budget; counted, so that a worker need not lock for nobody.
    sleepers: AtomicUsize,
    bell: Mutex<()>,
    rung: Condvar,
    jobs_open: AtomicUsize,
    packs_open: AtomicUsize,

    pack_bytes: usize,
    effort: Effort,
    data: Vec<Mutex<Option<PackBuilder>>>,
    meta: Mutex<Option<PackBuilder>>,
    next_data: AtomicUsize,
    full: Mutex<Option<Sender<PackBuilder>>>,
    /// Idle buffers for packs. The last one back is the next to be used: those never needed take no memory.
    buffers: Mutex<Vec<BytesMut>>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    remember: Remember,
    /// Keys that are known: of the packs of this write, and what was known before.
    pack_keys: PackKeys,
    /// Whether trees and nodes must lie in packs whose keys are known.
    only_known: bool,

    chunks_new: AtomicU64,
    chunks_reused: AtomicU64,
    bytes_read: AtomicU64,
    bytes_new_plain: AtomicU64,
    bytes_stored: AtomicU64,
    packs: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked has failed the engine; what it left in here is not used for a commit.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    pub(crate) fn new(
        repo: &Repository,
        options: &WriterOptions,
        threads: usize,
        uploads: usize,
    ) -> Result<(Engine, Receiver<PackBuilder>), Error> {
        let ids = repo.secrets().chunk_ids()?;
        // In this order (R3): the lease, then what collectors said, then the index, then the packs.
        let session = Session::begin(
            repo,
            options.lease,
            #[cfg(test)]
            options.sabotage,
        )?;
        let mut index = repo.index()?;
        let mut oldest = repo.lock().and_then(|policy| policy.oldest_pack(repo.env().now()));
        if let Some(finding) = session.blind() {
            oldest = Some(Timestamp::MAX);
            index.add_finding(finding.clone());
        }
        index.look_for_packs(&**repo.store(), session.condemned(), oldest, repo.lock().is_some())?;
        // Appending and sealing takes about a sixth of the time of compressing: one pack serves four threads.
        let data_packs = threads.div_ceil(4).max(1);
        let packs = data_packs + 1 + uploads;
        // Two thirds for packs, the rest for plain bytes waiting. More of those than keeps the threads busy
        // would only be memory.
        let pack_bytes = (options.memory_bytes / 3 * 2 / packs).clamp(1 << 20, PACK_BYTES);
        let waiting_max = (threads * (1 << 20)).max(4 << 20);
        let budget = options.memory_bytes.saturating_sub(packs * pack_bytes).clamp(4 << 20, waiting_max);
        // Empty: each is reserved when first used.
        let buffers = Mutex::new((0..packs).map(|_| BytesMut::new()).collect());
        let (full, full_packs) = bounded(packs);
        let share = repo.budget().session / SHARDS;
        let stored = (0..SHARDS).map(|_| Ok(Mutex::new(repo.spill(share)?))).collect::<Result<_, Error>>()?;
        let engine = Engine {
            repo: repo.clone(),
            ids,
            touched: PackSet::of(&index),
            session,
            own: Mutex::default(),
            index,
            stored,
            cancel: options.cancel.clone(),
            failure: OnceLock::new(),
            stopped: AtomicBool::new(false),
            budget,
            used: Mutex::new(0),
            freed: Condvar::new(),
            sleepers: AtomicUsize::new(0),
            bell: Mutex::new(()),
            rung: Condvar::new(),
            jobs_open: AtomicUsize::new(0),
            packs_open: AtomicUsize::new(0),
            pack_bytes,
            effort: Effort::default(),
            data: (0..data_packs).map(|_| Mutex::new(None)).collect(),
            meta: Mutex::new(None),
            next_data: AtomicUsize::new(0),
            full: Mutex::new(Some(full)),
            buffers,
            acknowledged: Mutex::new(Vec::new()),
            remember: options.remember,
            pack_keys: options.known.clone().unwrap_or_default(),
            only_known: options.remember != Remember::Nothing && options.known.is_some(),
            chunks_new: AtomicU64::new(0),
            chunks_reused: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_new_plain: AtomicU64::new(0),
            bytes_stored: AtomicU64::new(0),
            packs: AtomicU64::new(0),
        };
        Ok((engine, full_packs))
    }

    pub(crate) fn repo(&self) -> &Repository {
        &self.repo
    }

    /// Keys of the packs it wrote, as far as they are to be remembered.
    pub(crate) fn pack_keys(&self) -> &PackKeys {
        &self.pack_keys
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn touched(&self) -> &PackSet {
        &self.touched
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn id_of(&self, plain: &[u8]) -> ChunkId {
        self.ids.id(plain)
    }

    // --- failure ---

    /// Remembers the first error, wakes everybody, and returns the first error.
    pub(crate) fn fail(&self, error: Error) -> Error {
        let first = self.failure.get_or_init(|| error).clone();
        let guard = lock(&self.used);
        self.freed.notify_all();
        drop(guard);
        let guard = lock(&self.bell);
        self.rung.notify_all();
        drop(guard);
        first
    }

    /// The first error, if there was one; the stop button is one.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(error) = self.failure.get() {
            return Err(error.clone());
        }
        if self.cancel.is_cancelled() || self.stopped.load(Ordering::Relaxed) {
            return Err(self.fail(Error::Cancelled));
        }
        Ok(())
    }

    /// Whoever still works shall stop.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        *lock(&self.full) = None;
    }

    // --- waiting ---

    /// Sleeps until `done`, or something failed.
    fn sleep_until<T>(&self, mut done: impl FnMut() -> Option<T>) -> Result<T, Error> {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let outcome = loop {
            if let Some(value) = done() {
                break Ok(value);
            }
            if let Err(error) = self.check() {
                break Err(error);
            }
            // Looked at once more under the lock: either the change is seen here, or whoever made it sees the
            // sleeper and rings once the lock is free.
            let guard = lock(&self.bell);
            fence(Ordering::SeqCst);
            if let Some(value) = done() {
                break Ok(value);
            }
            drop(self.rung.wait_timeout(guard, NAP).unwrap_or_else(PoisonError::into_inner));
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let guard = lock(&self.bell);
            self.rung.notify_all();
            drop(guard);
        }
    }

    pub(crate) fn wait_for(&self, slot: &Slot) -> Result<ChunkId, Error> {
        match slot.get() {
            Some(id) => Ok(*id),
            None => self.sleep_until(|| slot.get().copied()),
        }
    }

    // --- the byte budget ---

    fn cost(&self, plain: usize) -> usize {
        (plain + JOB_BYTES).min(self.budget)
    }

    /// Waits until there is room for a chunk.
    pub(crate) fn admit(&self, plain: usize) -> Result<(), Error> {
        let cost = self.cost(plain);
        let mut used = lock(&self.used);
        while *used + cost > self.budget {
            if self.failure.get().is_some() || self.cancel.is_cancelled() {
                break;
            }
            used = self.freed.wait_timeout(used, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += cost;
        drop(used);
        if let Err(error) = self.check() {
            *lock(&self.used) -= cost;
            return Err(error);
        }
        self.jobs_open.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn release(&self, plain: usize) {
        let mut used = lock(&self.used);
        *used = used.saturating_sub(self.cost(plain));
        drop(used);
        self.freed.notify_one();
        if self.jobs_open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.ring();
        }
    }

    // --- deduplication ---

    fn stored_at(&self, id: &ChunkId) -> (MutexGuard<'_, Spill>, [u8; 16]) {
        let mut short = [0; 16];
        short.copy_from_slice(&id.0[..16]);
        (lock(&self.stored[usize::from(id.0[31]) % SHARDS]), short)
    }

    pub(crate) fn has(&self, id: &ChunkId) -> bool {
        match self.index.pack_with(id) {
            Ok(Some(pack)) => {
                self.touched.insert(pack);
                true
            }
            Ok(None) => {
                let (stored, short) = self.stored_at(id);
                let known = stored.contains_key(&short);
                drop(stored);
                known.unwrap_or_else(|error| {
                    self.fail(error);
                    false
                })
            }
            // Whoever asked stores it, or tries to: the write has failed.
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    /// Whether a chunk is stored of which these bytes are used again. Counted as a chunk that was handed in.
    pub(crate) fn keep(&self, extent: &Extent) -> bool {
        let known = self.has(&extent.chunk);
        if known {
            self.bytes_read.fetch_add(extent.length.into(), Ordering::Relaxed);
            self.chunks_reused.fetch_add(1, Ordering::Relaxed);
        }
        known
    }

    /// Whether the caller must store the chunk: it is in no pack, and nobody else in this write has taken it.
    fn claim(&self, id: &ChunkId, lane: Lane) -> Result<bool, Error> {
        let pack = match self.only_known && lane == Lane::Meta {
            // Elsewhere it is of no use to the next backup, which could not read it.
            true => self.index.pack_among(id, &|pack| self.pack_keys.has(pack))?,
            false => self.index.pack_with(id)?,
        };
        if let Some(pack) = pack {
            self.touched.insert(pack);
            return Ok(false);
        }
        let (mut stored, short) = self.stored_at(id);
        stored.insert_key(short)
    }

    // --- packs ---

    fn process(&self, job: &Job, compressor: &mut Compressor) -> Result<(), Error> {
        let known = job.slot.get().copied();
        let id = known.unwrap_or_else(|| self.ids.id(&job.plain));
        // Taken in before the id is told: whoever has the id may ask for the chunk at once.
        let claimed = self.claim(&id, job.lane)?;
        if known.is_none() {
            let _ = job.slot.set(id);
            self.ring();
        }
        let length = job.plain.len() as u64;
        self.bytes_read.fetch_add(length, Ordering::Relaxed);
        if !claimed {
            self.chunks_reused.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.chunks_new.fetch_add(1, Ordering::Relaxed);
        self.bytes_new_plain.fetch_add(length, Ordering::Relaxed);
        let chunk = compressor.compress_with(&job.plain, &self.effort);
        let place = match job.lane {
            Lane::Meta => &self.meta,
            Lane::Data => {
                let turn = self.next_data.fetch_add(1, Ordering::Relaxed);
                &self.data[turn % self.data.len()]
            }
        };
        let mut open = lock(place);
        if open.is_none() {
            *open = Some(self.begin_pack(job.lane)?);
        }
        if let Some(pack) = &mut *open {
            pack.add(id, job.plain.len(), &chunk)?;
            if pack.is_full(self.pack_bytes) {
                self.send(open.take())?;
            }
        }
        Ok(())
    }

    fn begin_pack(&self, lane: Lane) -> Result<PackBuilder, Error> {
        // None while all are on their way to the store.
        let free = lock(&self.buffers).pop();
        self.effort.begin_pack(free.is_none());
        let mut buffer = match free {
            Some(buffer) => buffer,
            None => self.sleep_until(|| lock(&self.buffers).pop())?,
        };
        // The whole at once: memory is only taken as it is filled, and growing would copy. Aligned, so that a
        // store on disk can write it from where it lies.
        direct::align(&mut buffer, pack_bytes_at_most(self.pack_bytes));
        let sealer = self.repo.secrets().pack_sealer(lane.kind(), self.repo.env())?;
        Ok(PackBuilder::new(sealer, buffer))
    }

    fn send(&self, pack: Option<PackBuilder>) -> Result<(), Error> {
        let (Some(pack), Some(full)) = (pack, lock(&self.full).clone()) else {
            return Ok(());
        };
        self.packs_open.fetch_add(1, Ordering::SeqCst);
        // There is room for every buffer there is: this never blocks.
        full.send(pack).map_err(|_| Error::failed("the uploading threads of the writer are gone"))
    }

    fn upload(&self, pack: PackBuilder) -> Result<(), Error> {
        if let Err(error) = self.check() {
            self.take_back(pack.into_buffer());
            return Err(error);
        }
        self.session.renew_if_due();
        let lane = pack.lane();
        let pack = pack.finish()?;
        let size = pack.bytes.len() as u32;
        let put = self.repo.put_content(&pack.id.key(), pack.bytes.clone());
        // The store has let go of it by now, and the memory serves the next pack.
        let buffer = pack.bytes.try_into_mut().unwrap_or_default();
        self.take_back(buffer);
        put?;
        if self.remember.covers(lane) {
            self.pack_keys.give(pack.id, pack.key);
        }
        lock(&self.own).push((pack.id, size));
        self.packs.fetch_add(1, Ordering::Relaxed);
        self.bytes_stored.fetch_add(u64::from(size), Ordering::Relaxed);
        let due = {
            let mut acknowledged = lock(&self.acknowledged);
            acknowledged.push(Acknowledged { id: pack.id, size, entries: pack.entries });
            let waiting: usize = acknowledged.iter().map(|pack| pack.entries.len()).sum();
            if waiting >= SEGMENT_CHUNKS { std::mem::take(&mut *acknowledged) } else { Vec::new() }
        };
        self.write_segment(due)
    }

    fn take_back(&self, buffer: BytesMut) {
        lock(&self.buffers).push(buffer);
        self.ring();
    }

    fn write_segment(&self, packs: Vec<Acknowledged>) -> Result<(), Error> {
        if packs.is_empty() {
            return Ok(());
        }
        let mut segment = Segment::default();
        for pack in packs {
            reindex::add(&mut segment, pack.id, pack.size, pack.entries);
        }
        reindex::put_segment(&self.repo, segment)?;
        Ok(())
    }

    /// All chunks into packs, all packs acknowledged, all of them named by a segment.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let idle = |count: &AtomicUsize| (count.load(Ordering::SeqCst) == 0).then_some(());
        self.sleep_until(|| idle(&self.jobs_open))?;
        self.check()?;
        for place in self.data.iter().chain([&self.meta]) {
            let pack = lock(place).take();
            self.send(pack)?;
        }
        self.sleep_until(|| idle(&self.packs_open))?;
        self.check()?;
        let rest = std::mem::take(&mut *lock(&self.acknowledged));
        self.write_segment(rest)
    }

    pub(crate) fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            chunks_new: get(&self.chunks_new),
            chunks_reused: get(&self.chunks_reused),
            bytes_read: get(&self.bytes_read),
            bytes_new_plain: get(&self.bytes_new_plain),
            bytes_stored: get(&self.bytes_stored),
            packs: get(&self.packs),
        }
    }
}

impl ReliedOn for Engine {
    fn relies_on(&self, pack: &PackId) -> bool {
        self.index.number_of(pack).is_some_and(|number| self.touched.contains(number))
            || lock(&self.own).iter().any(|(own, _)| own == pack)
    }

    fn all_present(&self) -> Result<(), Error> {
        check_packs(&**self.repo.store(), &self.index, &self.touched, &lock(&self.own))
    }
}

/// Fails the engine if its thread unwinds: a panic must not let a commit wait for ever, or succeed.
struct Watch<'e>(&'e Engine);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::failed("a thread of the writer panicked; this is a defect, please report it"));
        }
    }
}

pub(crate) fn run_worker(engine: &Engine, queue: &Receiver<Job>, level: i32) {
    let _watch = Watch(engine);
    let mut compressor = Compressor::new(level);
    for job in queue {
        let outcome = engine.check().and_then(|()| match &mut compressor {
            Ok(compressor) => engine.process(&job, compressor),
            Err(error) => Err(error.clone()),
        });
        if let Err(error) = outcome {
            engine.fail(error);
        }
        let length = job.plain.len();
        // The bytes go before the room they took is given away.
        drop(job);
        engine.release(length);
    }
}

pub(crate) fn run_uploader(engine: &Engine, full: &Receiver<PackBuilder>) {
    let _watch = Watch(engine);
    for pack in full {
        if let Err(error) = engine.upload(pack) {
            engine.fail(error);
        }
        engine.packs_open.fetch_sub(1, Ordering::SeqCst);
        engine.ring();
    }
}
