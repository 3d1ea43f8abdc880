//! Writes one commit: chunks in, packs, index and commit out.
//!
//! ```text
//! callers ─ chunk() ─► queue ─► workers: hash, deduplicate, compress ─► pack under assembly (seal in place)
//!                (byte budget)                                             │ full
//!                                                                          ▼
//!                                             uploaders: directory, name, put ─► index segments
//! ```
//!
//! - Packs are acknowledged by the store before a segment names them, and segments before the commit (R2).
//!   Segments are written from time to time already, so that a write that dies leaves its packs usable.
//! - The first error, wherever it happens, is what every later call returns; nothing hangs, nothing is
//!   committed.
//! - Memory is `memory_bytes`: the plain bytes waiting, the packs under assembly and those on their way (R6).
//!   `chunk` blocks while it is used up.
//! - A lease tells collectors that it is at work. Before the commit, every pack that a reused chunk lies in is
//!   looked for again; after it, whether a collection meanwhile sentenced one (R3, `lease.rs`).
//! - What other commits name already can be named again without reading it ([`Writer::take_over`]): these commits keep
//!   it, and are looked for after the commit.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Sender, bounded, unbounded};

use crate::cbor;
use crate::chunk::Chunker;
use crate::commit;
use crate::engine::{Engine, Job, Slot, run_uploader, run_worker};
use crate::env::{Cancel, Timestamp};
use crate::error::Error;
use crate::id::{ChunkId, CommitId};
use crate::immutable;
use crate::lease::{LEASE, Name, ReliedOn};
use crate::monitor::{Counts, Finding};
use crate::node::{Ref, check_node, node_refs};
use crate::object::{
    CHUNK_BYTES_MAX, CommitDraft, CommitInfo, LEVEL_MAX, Leaf, ManifestEntry, Root, Summary,
};
use crate::pack::Lane;
use crate::pack_keys::{PackKeys, Remember};
use crate::reader::Reader;
use crate::repo::Repository;
use crate::store;
use crate::stream::{Nodes, StreamWriter};
use crate::tree::{MANIFEST_BYTES_MAX, TreeWriter};

/// How a writer works.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Threads that hash, compress and seal; 0: one for each processor.
    pub threads: usize,
    /// Puts under way at a time. Each holds a pack in memory. 0: two over a network, where a put mostly waits, and one into a
    /// directory.
    pub uploads: usize,
    /// Bytes of memory the writer may use, packs on their way included; 0: its share of what the repository may
    /// use ([`crate::Budget`]).
    pub memory_bytes: usize,
    /// The zstd level of new chunks.
    pub compression: i32,
    /// Of which packs it remembers the keys ([`Writer::pack_keys`]).
    pub remember: Remember,
    /// The keys that are known already, by who has no read key. What is remembered is added to them; and trees and nodes that
    /// lie in other packs are stored once more, so that the next backup can read them. `None`: nothing is stored again.
    pub known: Option<PackKeys>,
    /// How long its lease lasts unless renewed, which it is while it works. A collection waits for it.
    pub lease: Duration,
    /// Stops it.
    pub cancel: Cancel,
    /// What a test breaks.
    #[cfg(test)]
    pub(crate) sabotage: crate::lease::Sabotage,
}

impl Default for WriterOptions {
    fn default() -> WriterOptions {
        WriterOptions {
            threads: 0,
            uploads: 0,
            memory_bytes: 0,
            compression: 2,
            remember: Remember::Nothing,
            known: None,
            lease: LEASE,
            cancel: Cancel::default(),
            #[cfg(test)]
            sabotage: crate::lease::Sabotage::None,
        }
    }
}

/// Writes one commit. Many threads may call it at once.
pub struct Writer {
    engine: Arc<Engine>,
    chunker: Chunker,
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    uploaders: Vec<JoinHandle<()>>,
    begun: Timestamp,
    /// The thread that renews the lease, and what ends it.
    keeper: Option<(Sender<()>, JoinHandle<()>)>,
    taken: Mutex<Taken>,
}

/// What is named by other commits, which keep it.
#[derive(Default)]
struct Taken {
    commits: Vec<CommitId>,
    roots: HashSet<Root>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Repository {
    /// Begins a write. Opens the index. Needs the put or the read key.
    pub fn writer(&self, options: WriterOptions) -> Result<Writer, Error> {
        Writer::start(self, options)
    }
}

/// A chunk on its way.
pub struct Ticket {
    slot: Arc<Slot>,
    engine: Arc<Engine>,
}

impl Ticket {
    /// The id, if it is known by now.
    pub fn try_ready(&self) -> Option<ChunkId> {
        self.slot.get().copied()
    }

    /// Waits for the id. The chunk itself may still be on its way: only a commit says that all arrived.
    pub fn wait(self) -> Result<ChunkId, Error> {
        self.wait_ref()
    }

    /// [`Ticket::wait`] for a ticket in a list.
    pub fn wait_ref(&self) -> Result<ChunkId, Error> {
        self.engine.wait_for(&self.slot)
    }
}

impl Writer {
    fn start(repo: &Repository, options: WriterOptions) -> Result<Writer, Error> {
        let chunker = repo.chunker()?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            threads => threads,
        };
        let uploads = match options.uploads {
            0 if store::is_remote(&repo.url()) => 2,
            0 => 1,
            uploads => uploads,
        };
        let mut options = options;
        if options.memory_bytes == 0 {
            options.memory_bytes = repo.budget().writer;
        }
        let (jobs, queue) = unbounded();
        let (engine, full_packs) = Engine::new(repo, &options, threads, uploads)?;
        let engine = Arc::new(engine);
        let (workers, uploaders, begun) = (Vec::new(), Vec::new(), repo.env().now());
        let mut writer = Writer {
            engine,
            chunker,
            jobs: Some(jobs),
            workers,
            uploaders,
            begun,
            keeper: None,
            taken: Mutex::default(),
        };
        // A thread that cannot be started drops `writer`, which stops those that were.
        for number in 0..threads {
            let (engine, queue) = (writer.engine.clone(), queue.clone());
            let level = options.compression;
            let work = move || run_worker(&engine, &queue, level);
            writer.workers.push(spawn(format!("repo-pack-{number}"), work)?);
        }
        for number in 0..uploads {
            let (engine, full_packs) = (writer.engine.clone(), full_packs.clone());
            let work = move || run_uploader(&engine, &full_packs);
            writer.uploaders.push(spawn(format!("repo-put-{number}"), work)?);
        }
        let (stop, stopped) = bounded(0);
        let engine = writer.engine.clone();
        let keeper = spawn("repo-lease".into(), move || engine.session().keep(&stopped))?;
        writer.keeper = Some((stop, keeper));
        Ok(writer)
    }

    /// What it writes into.
    pub fn repository(&self) -> &Repository {
        self.engine.repo()
    }

    /// The keys of the packs it has written and is to remember: those the store has acknowledged; and those that were
    /// known before. The set grows, and is complete once [`Writer::commit`] has returned.
    pub fn pack_keys(&self) -> PackKeys {
        self.engine.pack_keys().clone()
    }

    /// What was found wrong with the index and the packs when the write began. None of it stops a write.
    pub fn findings(&self) -> &[Finding] {
        self.engine.index().findings()
    }

    /// Hands in a chunk. Blocks while the memory is used up; fails if anything before it failed.
    pub fn chunk(&self, lane: Lane, plain: Bytes) -> Result<Ticket, Error> {
        let slot = Arc::new(Slot::new());
        self.submit(lane, plain, slot.clone())?;
        Ok(Ticket { slot, engine: self.engine.clone() })
    }

    /// Hands in a chunk and returns its id at once, hashing it here.
    pub fn chunk_now(&self, lane: Lane, plain: Bytes) -> Result<ChunkId, Error> {
        let id = self.engine.id_of(&plain);
        let slot = Arc::new(Slot::from(id));
        self.submit(lane, plain, slot)?;
        Ok(id)
    }

    /// Whether these bytes are this leaf of a stream. For content of which it is likely that it is what it was:
    /// hashing it is cheaper than cutting it.
    pub fn is(&self, plain: &[u8], leaf: &Leaf) -> bool {
        plain.len() == leaf.length as usize && self.engine.id_of(plain) == leaf.id
    }

    /// Takes a leaf over as it is, if the repository has its chunk. It counts as a chunk that was handed in.
    pub fn keep(&self, leaf: &Leaf) -> bool {
        self.engine.keep(&leaf.extent())
    }

    /// What these bytes are called here.
    pub(crate) fn id_of(&self, plain: &[u8]) -> ChunkId {
        self.engine.id_of(plain)
    }

    fn submit(&self, lane: Lane, plain: Bytes, slot: Arc<Slot>) -> Result<(), Error> {
        if plain.is_empty() || plain.len() > CHUNK_BYTES_MAX {
            let length = plain.len();
            return Err(Error::invalid(format!("a chunk of {length} bytes (1 to {CHUNK_BYTES_MAX})")));
        }
        self.engine.admit(plain.len())?;
        let job = Job { lane, plain, slot };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(self.engine.fail(Error::failed("the threads of the writer are gone"))) }
    }

    /// Whether the repository has the chunk already, or this writer has taken it in (which is so once its
    /// ticket is ready). Relying on the answer is safe: the pack it lies in is looked for again before the
    /// commit.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.engine.has(id)
    }

    /// Whether the repository has all of a stream: its chunks and the nodes above them. Like [`Writer::has`] for
    /// each of them; a node that cannot be read counts as one it does not have.
    pub fn has_stream(&self, reader: &Reader, root: &Root) -> bool {
        if root.length == 0 {
            return true;
        }
        root.level <= LEVEL_MAX && self.has_below(reader, &Ref::from(root))
    }

    fn has_below(&self, reader: &Reader, one: &Ref) -> bool {
        if !self.has(&one.chunk()) {
            return false;
        }
        let Some(below) = one.level.checked_sub(1) else { return true };
        reader.chunk(&one.id).is_ok_and(|node| {
            check_node(below, &node, one.length).is_ok()
                && node_refs(below, &node).all(|one| self.has_below(reader, &one))
        })
    }

    /// Has the commit of this write name these roots of another commit, without reading what is below them and without
    /// their chunks being looked for: as long as that commit is there it keeps them, wherever a collection moves them.
    /// It has to be there now, and once this write's commit is in the store it is looked for again; if it is gone, this one is
    /// void.
    ///
    /// - The other commit must have been **acknowledged** to whoever calls this. One that is merely listed may be
    ///   of a writer that died before its last look, and lack what it names.
    /// - It may be deleted when this write's commit was acknowledged and after that [`crate::gc::open_verdicts`] said
    ///   that there is none. Sooner, and a collection that saw neither of the two may delete what both need.
    ///
    /// Where objects are locked, this commit's promise for what is below is the other's.
    pub fn take_over(&self, commit: &CommitId, roots: impl IntoIterator<Item = Root>) -> Result<(), Error> {
        self.look_for(commit)?;
        let mut taken = self.taken();
        taken.commits.push(*commit);
        taken.roots.extend(roots);
        Ok(())
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_for(&self, taken: &CommitId) -> Result<(), Error> {
        match self.engine.repo().has_commit(taken)? {
            true => Ok(()),
            false => Err(Error::missing(
                taken.key(),
                "this write was to name what that commit names, and it is not there any more, so what it kept may be gone. Nothing was committed; write that content again",
            )),
        }
    }

    /// Begins a stream of bytes.
    pub fn stream(&self, lane: Lane) -> StreamWriter<'_> {
        StreamWriter::new(self, lane)
    }

    /// The repository's cutter, for callers that cut themselves.
    pub fn chunker(&self) -> Chunker {
        self.chunker.clone()
    }

    /// The root of a stream over chunks that were handed in or found with [`Writer::has`].
    pub fn root_of(&self, chunks: impl IntoIterator<Item = (ChunkId, u64)>) -> Result<Root, Error> {
        self.root_of_leaves(chunks.into_iter().map(|(id, length)| {
            // One that is too long for any chunk is refused as that.
            Leaf::chunk(id, u32::try_from(length).unwrap_or(u32::MAX))
        }))
    }

    /// The same, where some leaves are parts of chunks.
    pub fn root_of_leaves(&self, leaves: impl IntoIterator<Item = Leaf>) -> Result<Root, Error> {
        let mut nodes = Nodes::new(self);
        for leaf in leaves {
            nodes.push(&leaf)?;
        }
        nodes.finish()
    }

    /// Begins a tree.
    pub fn tree(&self) -> TreeWriter<'_> {
        TreeWriter::new(self)
    }

    /// What has been done so far.
    pub fn counts(&self) -> Counts {
        self.engine.counts()
    }

    /// Fails if anything failed so far, or the stop button was pressed.
    pub fn check(&self) -> Result<(), Error> {
        self.engine.check()
    }

    fn write_manifest(&self, mut entries: Vec<ManifestEntry>) -> Result<Root, Error> {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::invalid(format!("two manifest entries named {:?}", pair[0].name)));
        }
        let mut stream = self.stream(Lane::Meta);
        for entry in &entries {
            stream.append(&cbor::encode_manifest_entry(entry))?;
        }
        let root = stream.finish()?;
        if root.length > MANIFEST_BYTES_MAX {
            return Err(Error::invalid(format!("a manifest of {} bytes (at most 64 MiB)", root.length)));
        }
        Ok(root)
    }

    /// Ends the write: packs, then index, then commit (R2). On any error nothing is committed.
    pub fn commit(self, draft: CommitDraft) -> Result<CommitInfo, Error> {
        self.commit_dated(draft, None)
    }

    /// The same for content that is older than its commit, such as another tool's backup: what decides about the
    /// point by its age goes by this time. A time that is still to come is not taken.
    pub fn commit_dated(self, draft: CommitDraft, time: Option<Timestamp>) -> Result<CommitInfo, Error> {
        let (manifest, now) = self.complete(draft.manifest)?;
        let time = time.map_or(now, |time| time.min(now));
        let mut figures = draft.figures;
        for (name, value) in own_figures(&self.counts()) {
            figures.entry(name.into()).or_insert(value);
        }
        let committed = self.put_commit(
            Summary {
                time,
                started: draft.started,
                kind: draft.kind,
                labels: draft.labels,
                figures,
                parents: draft.parents,
                origin: None,
                writer: None,
            },
            &manifest,
            self.engine.session().name(),
        );
        // Not before the last look: until then this write relies on packs that a collection waits with.
        self.end();
        committed
    }

    /// Nothing more will be committed.
    pub(crate) fn end(&self) {
        self.engine.session().end();
    }

    /// The same with a summary given whole, as of a point made elsewhere, and the writer goes on.
    pub(crate) fn commit_as(
        &self,
        summary: Summary,
        manifest: Vec<ManifestEntry>,
    ) -> Result<CommitInfo, Error> {
        let (manifest, _) = self.complete(manifest)?;
        // Under a name of its own: a void reveals its secret, and the other commits of this writer still count.
        let name = Name::new(self.engine.repo().env())?;
        self.put_commit(summary, &manifest, &name)
    }

    /// Everything that a commit with this manifest needs is in the store and in the index.
    /// Returns when that was looked at.
    pub(crate) fn complete(&self, entries: Vec<ManifestEntry>) -> Result<(Root, Timestamp), Error> {
        let named: Vec<(String, Root)> =
            entries.iter().map(|entry| (entry.name.clone(), entry.root)).collect();
        let manifest = self.write_manifest(entries)?;
        self.engine.flush()?;
        // A commit must not name what is not there; and the pack of a root taken over from an earlier commit is
        // looked for again like any other (R3).
        let taken = self.taken().roots.clone();
        for (name, root) in named {
            if root != Root::EMPTY && !taken.contains(&root) && !self.has(&root.id) {
                let id = root.id;
                return Err(Error::invalid(format!(
                    "manifest entry {name:?} names chunk {id}, which is neither in the repository nor in this write"
                )));
            }
        }
        let repo = self.engine.repo();
        self.engine.all_present()?;
        let now = repo.env().now();
        immutable::cover(repo, self.engine.index(), self.engine.touched(), self.begun, now)?;
        Ok((manifest, now))
    }

    fn put_commit(&self, summary: Summary, manifest: &Root, name: &Name) -> Result<CommitInfo, Error> {
        let repo = self.engine.repo();
        let summary = Summary { writer: Some(name.id()), ..summary };
        let bytes = Bytes::from(commit::encode(repo.secrets(), &summary, manifest, repo.env())?);
        let id = CommitId(*blake3::hash(&bytes).as_bytes());
        self.engine.session().look_before(&*self.engine)?;
        // The last moment at which stopping leaves no trace.
        self.engine.check()?;
        let session = self.engine.session();
        // Without an answer it may be there, or arrive later: it must not count when this says that it failed.
        repo.put_content(&id.key(), bytes).map_err(|error| session.void(&id, name, error))?;
        // A collection may have struck between the last look and the commit: only now is it known (R3).
        session.look_after(&id, name, &*self.engine)?;
        // They were there all the time until this one could be seen: whoever collects sees one of the two (R3).
        let taken = self.taken().commits.clone();
        #[cfg(test)]
        let taken = match session.leaves_out(crate::lease::Sabotage::OperatorMindsNotThatPiecesGo) {
            true => Vec::new(),
            false => taken,
        };
        let all = taken.iter().try_for_each(|commit| self.look_for(commit));
        all.map_err(|error| session.void(&id, name, error))?;
        Ok(CommitInfo { id, summary })
    }
}

fn own_figures(counts: &Counts) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("bytes_new_plain", counts.bytes_new_plain),
        ("bytes_stored", counts.bytes_stored),
        ("chunks_new", counts.chunks_new),
        ("chunks_reused", counts.chunks_reused),
        ("packs", counts.packs),
    ])
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| Error::failed(format!("a thread could not be started: {error}")))
}

impl Drop for Writer {
    /// Stops the threads. Without a commit, what was put so far is unreferenced and harms nobody.
    fn drop(&mut self) {
        self.engine.stop();
        self.jobs = None;
        if let Some((stop, keeper)) = self.keeper.take() {
            drop(stop);
            let _ = keeper.join();
        }
        // Workers first: they feed the uploaders, whose queue closes when the engine lets go of it.
        for thread in self.workers.drain(..).chain(self.uploaders.drain(..)) {
            // A thread that panicked has told the engine; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}
