//! Copies recovery points into another repository: other keys, another id, another place.
//!
//! Chunk ids are keyed by the repository, so the same content has another name on the far side, and whoever
//! wants to know whether it is there must either read it or remember. From dearest to cheapest:
//!
//! - A point that is there already (its origin says so) costs nothing: no data, no index is read.
//! - Repositories made alike (`init --like`: the same id and chunker keys, everything else different) name
//!   content the same: what is there is told by the index, and only what is not is read.
//! - Else a chunk is read once, and its far name remembered while memory lasts. Of the last point of a series
//!   that was copied before, both sides' trees are walked in step to learn the names again, so that of
//!   the next point only what changed is read.
//!
//! Chunks keep their boundaries: the plain bytes of a chunk are the same on both sides, so copies
//! deduplicate among each other whatever cut them. What is backed up directly into a far repository that was not
//! made alike is cut elsewhere, and shares little with copies of the same data.
//!
//! A copied point keeps its time, kind, labels and figures; its streams are the same bytes, and its trees the
//! same but for the names of chunks. It names its origin, and the parents it has on the far side. Holds stay behind.
//!
//! A copy that is stopped or killed goes on where it was: finished points are there, and packs that no index
//! segment names yet are named before anything is sent. One bad point is a finding and is not
//! committed; the others are copied. Memory is bounded (R6): batches of chunks, the writer's and
//! the reader's budget, and the names that are remembered.
//!
//! Whoever holds a put key of the far side could forge a point that claims to be the copy of another, as they
//! could forge the last backup of a directory: `check --read-data` on the far side and a look at who holds keys are the
//! answer to both.

mod names;

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use serde::Serialize;

use crate::env::Cancel;
use crate::error::Error;
use crate::id::{ChunkId, CommitId};
use crate::monitor::{Counts, Finding, Outcome, Progress, Severity};
use crate::node::bytes_of;
use crate::object::{
    Capability, CommitInfo, Content, EntryKind, Extent, Leaf, ManifestEntry, NodeKind, Origin, PartOf, Root,
    Summary, TreeEntry,
};
use crate::pack::Lane;
use crate::reader::{Reader, ReaderOptions, StreamExtent};
use crate::reindex;
use crate::repo::Repository;
use crate::stream::Nodes;
use crate::writer::{Ticket, Writer, WriterOptions};

use names::{Names, learn, newest_copied};

/// How a copy works.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Which points; `None`: all.
    pub points: Option<Vec<CommitId>>,
    /// Bytes of memory for names of chunks, besides what reader and writer take.
    pub names_bytes: usize,
    /// Threads that read; 0: as many as processors, disk or network want.
    pub threads: usize,
    /// How the far side is written.
    pub writer: WriterOptions,
    /// Stops it.
    pub cancel: Cancel,
}

impl Default for CopyOptions {
    fn default() -> CopyOptions {
        CopyOptions {
            points: None,
            names_bytes: 64 << 20,
            threads: 0,
            writer: WriterOptions::default(),
            cancel: Cancel::default(),
        }
    }
}

/// One point on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Here.
    pub near: CommitId,
    /// There.
    pub far: CommitId,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// By this run.
    pub copied: Vec<Pair>,
    /// What was there already.
    pub present: Vec<Pair>,
    /// Not, for what the findings say.
    pub failed: Vec<CommitId>,
    /// Chunks of content read here.
    pub chunks_read: u64,
    /// Plain bytes of these.
    pub bytes_read: u64,
    /// What was written there.
    pub written: Counts,
}

/// How many extents are resolved at a time.
const BATCH_EXTENTS: usize = 1_024;
/// How many entries of a tree wait for theirs, and how many bytes of names and attributes.
const BATCH_ENTRIES: usize = 4_096;
const BATCH_ENTRY_BYTES: usize = 4 << 20;
/// How many chunks one thread reads at a time: 1 MiB as chunks are cut, 4 MiB at most.
const READ_CHUNKS: usize = 16;
/// After a point, a writer that has stored so many chunks, or is so old (nanoseconds), makes room for a new one: it
/// remembers what it stored, and what it found in the store when it began.
const WRITER_CHUNKS: u64 = 1 << 20;
const WRITER_AGE: i64 = 2 * 3_600 * 1_000_000_000;
/// What a remembered name costs at most, with the table around it and while that grows.
const NAME_BYTES: usize = 128;

/// Copies points, oldest first. Needs the read key of both.
pub fn copy(
    near: &Repository,
    far: &Repository,
    options: &CopyOptions,
    progress: &dyn Progress,
) -> Result<Outcome<Copied>, Error> {
    near.require(Capability::Read)?;
    far.require(Capability::Read)?;
    if near.id() == far.id() {
        return Err(Error::invalid(format!(
            "{} and {} are the same repository ({}); copy its objects as they are, or name another place",
            near.url(),
            far.url(),
            near.id()
        )));
    }
    let mut outcome = Outcome::clean(Copied::default());
    progress.note("looking what is there");
    let known = origins(far, &mut outcome)?;
    let points = near.commits()?;
    let todo = choose(near, points.findings, &points.done, options, &known, &mut outcome)?;
    if todo.is_empty() {
        return Ok(outcome);
    }
    let bytes = todo.iter().filter_map(|point| point.summary.figures.get("bytes")).sum();
    let files = todo.iter().filter_map(|point| point.summary.figures.get("files")).sum();
    progress.total(files, bytes);
    // What a killed run has sent is named before it would be sent again.
    let adopted = reindex::reindex(far, &options.cancel, &())?;
    outcome.findings.extend(adopted.findings.into_iter().map(|finding| {
        // Of packs that nobody needs: not this run's matter.
        Finding { severity: Severity::Warning, ..finding }
    }));
    let reader_options = ReaderOptions {
        threads: options.threads,
        cancel: options.cancel.clone(),
        ..ReaderOptions::default()
    };
    let reader = near.reader(reader_options.clone())?;
    let begin = || far.writer(WriterOptions { cancel: options.cancel.clone(), ..options.writer.clone() });
    let mut begun = far.env().now();
    let mut run = Run::new(near, far, &reader, begin()?, options, progress);
    let mut far_ids: BTreeMap<CommitId, CommitId> =
        outcome.done.present.iter().map(|pair| (pair.near, pair.far)).collect();
    if !run.alike {
        let pairs = newest_copied(near, &points.done, &todo, &known);
        learn(far, &run, &reader_options, &pairs)?;
    }
    for point in &todo {
        options.cancel.check()?;
        if run.writer.counts().chunks_new >= WRITER_CHUNKS || far.env().now() - begun > WRITER_AGE {
            outcome.done.written.add(&run.writer.counts());
            begun = far.env().now();
            run.writer.end();
            run.writer = begin()?;
        }
        progress.note(&format!("copying {}", point.id.short()));
        match run.point(point, &far_ids, near) {
            Ok(far_id) => {
                far_ids.insert(point.id, far_id);
                outcome.done.copied.push(Pair { near: point.id, far: far_id });
            }
            Err(Failed { at, error }) if error.is_damage() => {
                outcome.done.failed.push(point.id);
                outcome.findings.push(Finding::error(
                    "point-not-copied",
                    point.id.to_string(),
                    format!(
                        "{at}{error}; the far side has no part of this point that anything would restore"
                    ),
                ));
            }
            // Nothing more can be done; what was copied is there.
            Err(Failed { error, .. }) => return Err(error),
        }
    }
    outcome.done.chunks_read = run.chunks_read.into_inner();
    outcome.done.bytes_read = run.bytes_read.into_inner();
    outcome.done.written.add(&run.writer.counts());
    run.writer.end();
    Ok(outcome)
}

/// The points that both repositories have, as far as these of the far side go: the one was copied from the other, or both
/// from a third.
pub(crate) fn twins(near: &Repository, far: &Repository, wanted: &[CommitId]) -> Result<Vec<Pair>, Error> {
    let known = origins(near, &mut Outcome::clean(Copied::default()))?;
    let mut pairs = Vec::new();
    for id in wanted {
        let point = match far.commit(id) {
            Ok(point) => point,
            Err(error) if error.is_damage() => continue,
            Err(error) => return Err(error),
        };
        let names = [origin_of(far, &point), Origin { repository: far.id(), commit: *id }];
        if let Some(near) = names.iter().find_map(|name| known.get(name)) {
            pairs.push(Pair { near: *near, far: *id });
        }
    }
    Ok(pairs)
}

/// Stores again what the far points of these pairs lack, from their near twins: what a copy of the twin would send. A chunk's
/// name is made of its bytes, so what is taken is what was lost, or nothing that anybody needs. Commits nothing.
pub(crate) fn remake(
    near: &Repository,
    far: &Repository,
    pairs: &[Pair],
    options: &CopyOptions,
    progress: &dyn Progress,
) -> Result<Outcome<Counts>, Error> {
    let reader_options = ReaderOptions {
        threads: options.threads,
        cancel: options.cancel.clone(),
        ..ReaderOptions::default()
    };
    let reader = near.reader(reader_options.clone())?;
    let writer = WriterOptions { cancel: options.cancel.clone(), ..options.writer.clone() };
    let run = Run::new(near, far, &reader, far.writer(writer)?, options, progress);
    if !run.alike {
        learn(far, &run, &reader_options, pairs)?;
    }
    let mut findings = Vec::new();
    for pair in pairs {
        options.cancel.check()?;
        progress.note(&format!("taking {} from {}", pair.far.short(), pair.near.short()));
        let remade = run.manifest(&pair.near).and_then(|manifest| Ok(run.writer.complete(manifest)?.0));
        let (code, what) = match remade {
            Ok(root) if far.manifest_root(&pair.far)? == root => continue,
            Ok(_) => ("twin-differs", "it is not the same in the other repository".to_owned()),
            Err(Failed { at, error }) if error.is_damage() => {
                ("twin-damaged", format!("the other repository has not all of it, either: {at}{error}"))
            }
            Err(Failed { error, .. }) => return Err(error),
        };
        findings.push(Finding::warning(code, pair.far.key(), what));
    }
    Ok(Outcome { done: run.writer.counts(), findings })
}

fn origin_of(repo: &Repository, point: &CommitInfo) -> Origin {
    point.summary.origin.unwrap_or(Origin { repository: repo.id(), commit: point.id })
}

/// What the far side has, by where it came from; its own points are their own origin.
fn origins(far: &Repository, outcome: &mut Outcome<Copied>) -> Result<HashMap<Origin, CommitId>, Error> {
    let commits = far.commits()?;
    outcome.findings.extend(commits.findings.into_iter().map(|finding| Finding {
        severity: Severity::Warning,
        message: format!("on the far side: {}; a copy of it would be made again", finding.message),
        ..finding
    }));
    let mut known = HashMap::new();
    for commit in &commits.done {
        known.insert(origin_of(far, commit), commit.id);
        known.insert(Origin { repository: far.id(), commit: commit.id }, commit.id);
    }
    Ok(known)
}

/// The points to be copied, oldest first.
fn choose(
    near: &Repository,
    findings: Vec<Finding>,
    points: &[CommitInfo],
    options: &CopyOptions,
    known: &HashMap<Origin, CommitId>,
    outcome: &mut Outcome<Copied>,
) -> Result<Vec<CommitInfo>, Error> {
    let damaged = |finding: &Finding| {
        let id = CommitId::from_key(&finding.what)?;
        options.points.as_ref().is_none_or(|asked| asked.contains(&id)).then_some(id)
    };
    for finding in findings {
        if let Some(id) = damaged(&finding) {
            outcome.done.failed.push(id);
            outcome.findings.push(finding);
        }
    }
    let mut todo = points.to_vec();
    if let Some(asked) = &options.points {
        todo.retain(|point| asked.contains(&point.id));
        for id in asked {
            if !todo.iter().any(|point| point.id == *id) && !outcome.done.failed.contains(id) {
                return Err(Error::NoSuchCommit { wanted: id.to_string(), url: near.url() });
            }
        }
    }
    todo.retain(|point| match known.get(&origin_of(near, point)) {
        Some(there) => {
            outcome.done.present.push(Pair { near: point.id, far: *there });
            false
        }
        None => true,
    });
    Ok(todo)
}

/// Why a point was not copied.
struct Failed {
    /// `volume/…/path: `, or nothing.
    at: String,
    error: Error,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { at: String::new(), error }
    }
}

fn at(name: &str, path: Option<&[u8]>) -> impl FnOnce(Error) -> Failed {
    let at = match path {
        Some(path) => format!("{name}/{}: ", String::from_utf8_lossy(path)),
        None => format!("{name}: "),
    };
    move |error| Failed { at, error }
}

struct Run<'r> {
    reader: &'r Reader,
    writer: Writer,
    /// Both sides name chunks the same.
    alike: bool,
    names: Mutex<Names>,
    threads: usize,
    cancel: &'r Cancel,
    progress: &'r dyn Progress,
    chunks_read: AtomicU64,
    bytes_read: AtomicU64,
}

impl<'r> Run<'r> {
    fn new(
        near: &Repository,
        far: &Repository,
        reader: &'r Reader,
        writer: Writer,
        options: &'r CopyOptions,
        progress: &'r dyn Progress,
    ) -> Run<'r> {
        Run {
            reader,
            writer,
            alike: near.secrets().names_like(far.secrets()),
            names: Mutex::new(Names::new(options.names_bytes / NAME_BYTES)),
            threads: match options.threads {
                0 => std::thread::available_parallelism().map_or(2, usize::from) + 1,
                threads => threads,
            },
            cancel: &options.cancel,
            progress,
            chunks_read: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
        }
    }

    fn point(
        &self,
        point: &CommitInfo,
        far_ids: &BTreeMap<CommitId, CommitId>,
        near: &Repository,
    ) -> Result<CommitId, Failed> {
        let manifest = self.manifest(&point.id)?;
        let summary = Summary {
            parents: point.summary.parents.iter().filter_map(|parent| far_ids.get(parent).copied()).collect(),
            origin: Some(origin_of(near, point)),
            ..point.summary.clone()
        };
        Ok(self.writer.commit_as(summary, manifest)?.id)
    }

    /// All that a point is made of; what the far side lacks of it is handed in there.
    fn manifest(&self, id: &CommitId) -> Result<Vec<ManifestEntry>, Failed> {
        let mut manifest = self.reader.manifest(id)?;
        for entry in &mut manifest {
            entry.root = match entry.kind {
                EntryKind::Bytes => {
                    let root = self.stream(&entry.root).map_err(at(&entry.name, None))?;
                    self.progress.add(0, root.length);
                    root
                }
                EntryKind::Tree => self.tree(&entry.name, &entry.root)?,
            };
        }
        Ok(manifest)
    }

    /// The same bytes in the same chunks, under the far side's names.
    fn stream(&self, root: &Root) -> Result<Root, Error> {
        let mut nodes = Nodes::new(&self.writer);
        let mut extents = self.reader.extents(root);
        loop {
            let batch: Vec<_> = extents.by_ref().take(BATCH_EXTENTS).collect::<Result<_, _>>()?;
            if batch.is_empty() {
                break;
            }
            let ids: Vec<ChunkId> = batch.iter().map(|leaf| leaf.extent().chunk).collect();
            let far = self.resolve(&ids).map_err(|(_, error)| error)?;
            let parts = self.parts(&batch)?;
            for (leaf, chunk) in batch.iter().zip(far) {
                let leaf = match leaf.part_of {
                    None => Leaf { id: chunk, ..leaf.leaf() },
                    Some(PartOf { offset, .. }) => Leaf {
                        id: parts.get(&leaf.id).copied().unwrap_or(ChunkId::ZERO),
                        length: leaf.length,
                        part_of: Some(PartOf { chunk, offset }),
                    },
                };
                nodes.push(&leaf)?;
            }
        }
        let copied = nodes.finish()?;
        // Said twice: as many bytes as there were.
        match copied.length == root.length {
            true => Ok(copied),
            false => Err(Error::damaged(
                format!("stream {}", root.id),
                format!("{} bytes where {} were promised", copied.length, root.length),
            )),
        }
    }

    /// The far names of the parts among these leaves. One that is not remembered is read.
    fn parts(&self, leaves: &[StreamExtent]) -> Result<HashMap<ChunkId, ChunkId>, Error> {
        let mut found = HashMap::new();
        let mut unknown: Vec<Leaf> = Vec::new();
        for leaf in leaves.iter().filter(|leaf| leaf.part_of.is_some()) {
            let known = if self.alike { Some(leaf.id) } else { lock(&self.names).get(&leaf.id) };
            match known {
                Some(far) => drop(found.insert(leaf.id, far)),
                None => unknown.push(leaf.leaf()),
            }
        }
        // A few chunks at a time: they are in memory together.
        for some in unknown.chunks(READ_CHUNKS) {
            self.cancel.check()?;
            let ids: Vec<ChunkId> = some.iter().map(|leaf| leaf.extent().chunk).collect();
            for (leaf, chunk) in some.iter().zip(self.reader.chunks(&ids)) {
                let bytes = bytes_of(&leaf.extent(), &chunk?)?;
                if !self.reader.is(&bytes, &leaf.id) {
                    let what = "a part of it is not what its id says";
                    return Err(Error::damaged(format!("chunk {}", leaf.extent().chunk), what));
                }
                let far = self.writer.id_of(&bytes);
                lock(&self.names).put(&leaf.id, far);
                found.insert(leaf.id, far);
            }
        }
        Ok(found)
    }

    fn tree(&self, name: &str, root: &Root) -> Result<Root, Failed> {
        let mut tree = self.writer.tree();
        let mut entries = self.reader.tree(root);
        let mut waiting = Waiting::default();
        loop {
            self.cancel.check()?;
            let entry = entries.next().transpose().map_err(at(name, None))?;
            let Some(mut entry) = entry else { break };
            if let NodeKind::File { content: Content::Stream(content), .. } = &mut entry.kind {
                // In the order of the walk, and one large file at a time.
                self.settle(name, &mut waiting, &mut tree)?;
                *content = self.stream(content).map_err(at(name, Some(&entry.path)))?;
                self.progress.add(1, content.length);
                tree.push(&entry)?;
                continue;
            }
            waiting.add(entry);
            if waiting.is_full() {
                self.settle(name, &mut waiting, &mut tree)?;
            }
        }
        self.settle(name, &mut waiting, &mut tree)?;
        Ok(tree.finish()?)
    }

    /// Renames the chunks of the entries that wait, and writes the entries.
    fn settle(
        &self,
        name: &str,
        waiting: &mut Waiting,
        tree: &mut crate::tree::TreeWriter<'_>,
    ) -> Result<(), Failed> {
        let waiting = std::mem::take(waiting);
        let resolved = self.resolve(&waiting.ids).map_err(|(bad, error)| {
            let of_it = |entry: &&TreeEntry| extents_of(entry).iter().any(|extent| extent.chunk == bad);
            let path = waiting.entries.iter().find(of_it).map(|entry| entry.path.as_slice());
            at(name, path)(error)
        })?;
        let mut far = resolved.into_iter();
        for mut entry in waiting.entries {
            let (mut files, mut bytes) = (0, 0);
            if let NodeKind::File { content, .. } = &mut entry.kind {
                (files, bytes) = (1, content.length());
                if let Content::Extents(extents) = content {
                    for extent in extents {
                        extent.chunk =
                            far.next().ok_or_else(|| Error::failed("a chunk of a batch was lost"))?;
                    }
                }
            }
            tree.push(&entry)?;
            self.progress.add(files, bytes);
        }
        Ok(())
    }

    /// The far names of chunks, in order. What the far side lacks is read here and handed in there. An error
    /// comes with the chunk it is about.
    fn resolve(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, (ChunkId, Error)> {
        let mut found: HashMap<ChunkId, ChunkId> = HashMap::new();
        let mut missing = Vec::new();
        for id in ids {
            if found.contains_key(id) {
                continue;
            }
            let far = match self.alike {
                true => Some(*id),
                false => lock(&self.names).get(id),
            };
            match far.filter(|far| self.writer.has(far)) {
                Some(far) => {
                    found.insert(*id, far);
                }
                None => {
                    // A placeholder, so that each is read once.
                    found.insert(*id, ChunkId::ZERO);
                    missing.push(*id);
                }
            }
        }
        for (near, far) in self.send(&missing)? {
            if !self.alike {
                lock(&self.names).put(&near, far);
            }
            found.insert(near, far);
        }
        Ok(ids.iter().map(|id| found.get(id).copied().unwrap_or(ChunkId::ZERO)).collect())
    }

    /// Reads chunks on several threads and hands them to the writer, which blocks while it has enough.
    fn send(&self, missing: &[ChunkId]) -> Result<Vec<(ChunkId, ChunkId)>, (ChunkId, Error)> {
        let batches: Vec<&[ChunkId]> = missing.chunks(READ_CHUNKS).collect();
        let sent: Mutex<Vec<(ChunkId, Ticket)>> = Mutex::new(Vec::with_capacity(missing.len()));
        let failed: Mutex<Option<(ChunkId, Error)>> = Mutex::new(None);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(ids) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                for (id, chunk) in ids.iter().zip(self.reader.chunks(ids)) {
                    let handed = chunk.and_then(|plain: Bytes| {
                        self.chunks_read.fetch_add(1, Ordering::Relaxed);
                        self.bytes_read.fetch_add(plain.len() as u64, Ordering::Relaxed);
                        self.writer.chunk(Lane::Data, plain)
                    });
                    match handed {
                        Ok(ticket) => lock(&sent).push((*id, ticket)),
                        Err(error) => {
                            lock(&failed).get_or_insert((*id, error));
                            next.store(batches.len(), Ordering::Relaxed);
                            return;
                        }
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(batches.len()) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(failed) = failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            return Err(failed);
        }
        let sent = sent.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        sent.into_iter()
            .map(|(near, ticket)| ticket.wait().map(|far| (near, far)).map_err(|error| (near, error)))
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn extents_of(entry: &TreeEntry) -> &[Extent] {
    match &entry.kind {
        NodeKind::File { content: Content::Extents(extents), .. } => extents,
        _ => &[],
    }
}

/// Entries of a tree whose chunks are not renamed yet.
#[derive(Default)]
struct Waiting {
    entries: Vec<TreeEntry>,
    ids: Vec<ChunkId>,
    bytes: usize,
}

impl Waiting {
    fn add(&mut self, entry: TreeEntry) {
        self.ids.extend(extents_of(&entry).iter().map(|extent| extent.chunk));
        self.bytes += entry.path.len();
        self.bytes += entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.entries.push(entry);
    }

    fn is_full(&self) -> bool {
        self.ids.len() >= BATCH_EXTENTS
            || self.entries.len() >= BATCH_ENTRIES
            || self.bytes >= BATCH_ENTRY_BYTES
    }
}
