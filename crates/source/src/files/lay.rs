//! Laying: the one thread that puts everything in order again and writes the tree.
//!
//! Small files lie end to end in one run, which is cut like one file; where a file lies is known at once,
//! but the ids of its chunks only when they are cut and hashed. So entries wait in a queue, in order, and
//! leave it from the front. The queue is bounded: when too much waits for a chunk that is not full yet
//! (one small file, then a million unchanged ones), the run is ended there and a new one begun.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use repo::object::EXTENTS_MAX;
use repo::{
    ChunkId, Content, Extent, Finding, Lane, Leaf, NodeKind, Outcome, Piece, Progress, Ticket, TreeEntry,
    TreeWriter,
};

use super::cut::Cutter;
use super::findings::Findings;
use super::links::Links;
use super::read::{Job, Name, Part, Readers, Stretch, Work};
use super::walk::Step;
use super::{Error, Item, Linked, TreeBackup, shown};

/// How many entries may wait for the chunks of their content.
const WAITING_MAX: usize = 4_096;
/// How much their paths and attributes may take meanwhile.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) struct Lay<'a> {
    readers: &'a Readers<'a>,
    progress: &'a dyn Progress,
    tree: TreeWriter<'a>,
    findings: Findings,
    figures: Figures,
    links: Links<'a>,

    cutter: Cutter,
    /// Bytes of the run so far, as the entries count them.
    laid: u64,
    /// And as they were handed to the cutter.
    fed: u64,
    /// Chunks of the run that waiting entries may lie in.
    chunks: VecDeque<Chunk>,
    /// Where the last of them ends.
    cut_to: u64,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

struct Chunk {
    start: u64,
    length: u32,
    id: Id,
}

enum Id {
    Coming(Ticket),
    Known(ChunkId),
}

impl Id {
    /// The id, if it is known; waits for it if told to.
    fn get(&mut self, wait: bool) -> Result<Option<ChunkId>, repo::Error> {
        let id = match self {
            Id::Known(id) => return Ok(Some(*id)),
            Id::Coming(ticket) => match ticket.try_ready() {
                Some(id) => id,
                None if wait => ticket.wait_ref()?,
                None => return Ok(None),
            },
        };
        *self = Id::Known(id);
        Ok(Some(id))
    }
}

/// An entry whose content is `start..start + length` of the run.
struct Waiting {
    entry: TreeEntry,
    start: u64,
    length: u64,
}

#[derive(Default)]
struct Figures {
    files: u64,
    directories: u64,
    symlinks: u64,
    hardlinks: u64,
    others: u64,
    bytes: u64,
    files_unchanged: u64,
    files_read: u64,
    bytes_read: u64,
}

impl<'a> Lay<'a> {
    pub fn new(readers: &'a Readers<'a>, progress: &'a dyn Progress) -> Lay<'a> {
        Lay {
            readers,
            progress,
            tree: readers.writer.tree(),
            findings: Findings::default(),
            figures: Figures::default(),
            links: Links::new(readers.writer.repository()),
            cutter: Cutter::new(readers.writer.chunker()),
            laid: 0,
            fed: 0,
            chunks: VecDeque::new(),
            cut_to: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes every step of the walk and writes the tree.
    pub fn run(mut self, steps: Receiver<Step>) -> Result<Outcome<TreeBackup>, Error> {
        let mut complete = false;
        for step in &steps {
            self.readers.cancel.check()?;
            match step {
                Step::Batch(parts) => self.batch(&parts)?,
                Step::End => complete = true,
            }
        }
        self.readers.cancel.check()?;
        if !complete {
            return Err(Error::CutShort { what: "the walk" });
        }
        self.end_run()?;
        self.settle(true)?;
        let root = self.tree.finish()?;
        Ok(Outcome {
            done: TreeBackup { root, figures: self.figures.named() },
            findings: self.findings.all(),
        })
    }

    /// Takes what a reader made of a batch.
    fn batch(&mut self, parts: &Receiver<Part>) -> Result<(), Error> {
        loop {
            match parts.recv() {
                Ok(Part::Piece { items, bytes }) => {
                    for item in items {
                        self.item(item)?;
                    }
                    if let Some((buffer, used)) = bytes {
                        let (writer, chunks, cut_to) =
                            (self.readers.writer, &mut self.chunks, &mut self.cut_to);
                        self.fed += used as u64;
                        self.cutter.feed(buffer, used, &mut |chunk| submit(writer, chunks, cut_to, chunk))?;
                    }
                    self.in_step()?;
                    self.settle(false)?;
                }
                Ok(Part::Stretches(first)) => self.large(first, parts)?,
                Ok(Part::Large(Some(entry))) => self.wait(*entry, 0)?,
                Ok(Part::Large(None)) => {}
                Ok(Part::Failed(error)) => return Err(error.into()),
                Ok(Part::End) => return Ok(()),
                Err(_) => {
                    self.readers.cancel.check()?;
                    return Err(Error::CutShort { what: "a directory" });
                }
            }
        }
    }

    /// Where entries believe their bytes are is where they are.
    fn in_step(&self) -> Result<(), Error> {
        if self.laid == self.fed { Ok(()) } else { Err(Error::CutShort { what: "a run of small files" }) }
    }

    fn item(&mut self, item: Item) -> Result<(), Error> {
        match item {
            Item::Finding(finding) => self.findings.push(finding),
            Item::Linked(linked) => self.linked(*linked)?,
            Item::Entry { entry, run, reused } => {
                if let NodeKind::File { content, .. } = &entry.kind {
                    if reused {
                        self.figures.files_unchanged += 1;
                        self.progress.add(0, content.length());
                    } else if run > 0 {
                        self.progress.add(0, run as u64);
                        self.figures.bytes_read += run as u64;
                    }
                    self.figures.files_read += u64::from(!reused);
                }
                self.wait(entry, run as u64)?;
            }
        }
        Ok(())
    }

    /// A file of several names: the first in the order is the file, the others repeat it.
    fn linked(&mut self, linked: Linked) -> Result<(), Error> {
        let Linked { dir, name, path, meta, previous } = linked;
        if let Some(target) = self.links.seen(&meta)? {
            let kind = NodeKind::HardLink { target };
            let none = BTreeMap::new();
            return self.wait(TreeEntry { path, kind, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: none }, 0);
        }
        self.in_step()?;
        let before = self.figures.files;
        let parent = path.len().saturating_sub(name.as_bytes().len() + 1);
        let (parts, receiver) = bounded(16);
        let job = Job {
            work: vec![Work::Names {
                dir,
                path: path[..parent].to_vec(),
                names: vec![Name { name, kind: meta.kind, previous }],
            }],
            parts,
        };
        if meta.size <= self.readers.small {
            // A few parts at most, which fit the channel: no thread is needed to read it.
            let _ = self.readers.batch(job, false);
            self.batch(&receiver)?;
        } else {
            std::thread::scope(|scope| {
                scope.spawn(|| self.readers.batch(job, false));
                // Dropped before the scope waits for the reader, which would otherwise wait for us.
                let receiver = receiver;
                self.batch(&receiver)
            })?;
        }
        // Only a file that made it into the tree can be repeated; the next name of one that did not
        // gets its own chance.
        if self.figures.files > before {
            self.links.insert(&meta, path)?;
        }
        Ok(())
    }

    /// A large file: its stretches, then its entry. A few chunks are extents; more are a stream, and so are parts.
    fn large(&mut self, mut first: Vec<Stretch>, parts: &Receiver<Part>) -> Result<(), Error> {
        let entry = loop {
            if first.len() > EXTENTS_MAX {
                break None;
            }
            match parts.recv() {
                Ok(Part::Stretches(more)) => first.extend(more),
                Ok(Part::Large(entry)) => break Some(entry),
                other => return Err(self.cut_short(other)),
            }
        };
        let (content, entry) = match entry {
            Some(entry) => {
                let mut leaves = VecDeque::new();
                for stretch in first {
                    self.leaves(stretch, &mut leaves)?;
                }
                let few = leaves.len() <= EXTENTS_MAX && leaves.iter().all(|leaf| leaf.part_of.is_none());
                let content = match few {
                    true => Content::Extents(leaves.iter().map(Leaf::extent).collect()),
                    false => Content::Stream(self.readers.writer.root_of_leaves(leaves)?),
                };
                (content, entry)
            }
            None => {
                let (mut ready, mut end) = (first.into_iter(), Err(Error::CutShort { what: "a large file" }));
                let (writer, mut leaves) = (self.readers.writer, VecDeque::new());
                let root = writer.root_of_leaves(std::iter::from_fn(|| {
                    loop {
                        if let Some(leaf) = leaves.pop_front() {
                            return Some(leaf);
                        }
                        if let Some(stretch) = ready.next() {
                            if let Err(error) = self.leaves(stretch, &mut leaves) {
                                end = Err(error);
                                return None;
                            }
                            continue;
                        }
                        match parts.recv() {
                            Ok(Part::Stretches(more)) => ready = more.into_iter(),
                            Ok(Part::Large(entry)) => {
                                end = Ok(entry);
                                return None;
                            }
                            other => {
                                end = Err(self.cut_short(other));
                                return None;
                            }
                        }
                    }
                }))?;
                (Content::Stream(root), end?)
            }
        };
        let Some(mut entry) = entry else { return Ok(()) };
        if let NodeKind::File { content: place, .. } = &mut entry.kind {
            *place = content;
        }
        self.figures.files_read += 1;
        self.wait(*entry, 0)
    }

    /// Appends what a stretch of a large file has become.
    fn leaves(&mut self, stretch: Stretch, leaves: &mut VecDeque<Leaf>) -> Result<(), Error> {
        let pieces = match stretch {
            Stretch::Written(ticket, length) => vec![Piece::Written(ticket, length)],
            Stretch::Kept(leaf) => vec![Piece::Kept(leaf)],
            Stretch::Compared(compared) => match compared.recv() {
                Ok(compared) => compared?,
                Err(gone) => return Err(self.cut_short(Err(gone))),
            },
        };
        for piece in pieces {
            let leaf = match piece {
                Piece::Kept(leaf) => leaf,
                Piece::Written(ticket, length) => Leaf::chunk(ticket.wait()?, length),
            };
            self.read(leaf.length);
            leaves.push_back(leaf);
        }
        Ok(())
    }

    fn read(&mut self, length: u32) {
        self.figures.bytes_read += u64::from(length);
        self.progress.add(0, u64::from(length));
    }

    fn cut_short(&self, part: Result<Part, crossbeam_channel::RecvError>) -> Error {
        match (part, self.readers.cancel.check()) {
            (Ok(Part::Failed(error)), _) | (_, Err(error)) => error.into(),
            _ => Error::CutShort { what: "a large file" },
        }
    }

    /// Queues an entry whose content is the next `length` bytes of the run.
    fn wait(&mut self, entry: TreeEntry, length: u64) -> Result<(), Error> {
        self.figures.count(&entry);
        self.progress.add(1, 0);
        self.waiting_bytes += weight(&entry);
        self.waiting.push_back(Waiting { entry, start: self.laid, length });
        self.laid += length;
        Ok(())
    }

    /// Writes the entries whose chunks are known. Unless `all`, it waits for a chunk only when too much
    /// is waiting for it.
    fn settle(&mut self, all: bool) -> Result<(), Error> {
        loop {
            let full = self.waiting.len() > WAITING_MAX || self.waiting_bytes > WAITING_BYTES_MAX;
            let Some(front) = self.waiting.front() else { return Ok(()) };
            let (start, end) = (front.start, front.start + front.length);
            if end > self.cut_to {
                if !full {
                    return Ok(());
                }
                self.end_run()?;
            }
            while self.chunks.front().is_some_and(|chunk| chunk.start + u64::from(chunk.length) <= start) {
                self.chunks.pop_front();
            }
            let mut extents = Vec::new();
            if end > start {
                for chunk in self.chunks.iter_mut().take_while(|chunk| chunk.start < end) {
                    let Some(id) = chunk.id.get(all || full)? else { return Ok(()) };
                    let from = start.max(chunk.start);
                    let to = end.min(chunk.start + u64::from(chunk.length));
                    extents.push(Extent {
                        chunk: id,
                        offset: (from - chunk.start) as u32,
                        length: (to - from) as u32,
                    });
                }
            }
            let Some(Waiting { mut entry, .. }) = self.waiting.pop_front() else { return Ok(()) };
            self.waiting_bytes -= weight(&entry);
            if !extents.is_empty()
                && let NodeKind::File { content, .. } = &mut entry.kind
            {
                *content = Content::Extents(extents);
            }
            match self.tree.push(&entry) {
                Ok(()) => {}
                // Attributes beyond the longest entry, a number beyond its field: this one, not the rest.
                Err(repo::Error::Invalid { what }) => self.findings.push(Finding::error(
                    "not-storable",
                    shown(&entry.path),
                    format!("it does not fit the format and is not in this backup: {what}"),
                )),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the run: what waits in the cutter becomes a chunk as it is.
    fn end_run(&mut self) -> Result<(), Error> {
        let (writer, chunks, cut_to) = (self.readers.writer, &mut self.chunks, &mut self.cut_to);
        self.cutter.finish(&mut |chunk| submit(writer, chunks, cut_to, chunk))
    }
}

fn submit(
    writer: &repo::Writer,
    chunks: &mut VecDeque<Chunk>,
    cut_to: &mut u64,
    chunk: Bytes,
) -> Result<(), Error> {
    let length = chunk.len() as u32;
    let ticket = writer.chunk(Lane::Data, chunk)?;
    chunks.push_back(Chunk { start: *cut_to, length, id: Id::Coming(ticket) });
    *cut_to += u64::from(length);
    Ok(())
}

fn weight(entry: &TreeEntry) -> usize {
    entry.path.len() + entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

impl Figures {
    fn count(&mut self, entry: &TreeEntry) {
        match &entry.kind {
            NodeKind::File { size, .. } => {
                self.files += 1;
                self.bytes += size;
            }
            NodeKind::Directory => self.directories += 1,
            NodeKind::Symlink { .. } => self.symlinks += 1,
            NodeKind::HardLink { .. } => self.hardlinks += 1,
            _ => self.others += 1,
        }
    }

    fn named(self) -> BTreeMap<String, u64> {
        [
            ("files", self.files),
            ("directories", self.directories),
            ("symlinks", self.symlinks),
            ("hardlinks", self.hardlinks),
            ("others", self.others),
            ("bytes", self.bytes),
            ("files_unchanged", self.files_unchanged),
            ("files_read", self.files_read),
            ("bytes_read", self.bytes_read),
        ]
        .map(|(name, figure)| (name.to_owned(), figure))
        .into()
    }
}
