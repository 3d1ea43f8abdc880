//! What a large file consisted of when it was last backed up.
//!
//! Most of a large file is what it was. Where a leaf of its old content began, hashing what lies there now tells whether
//! it still is: then it is where it was, and there is nothing to cut. Where a leaf was overwritten in place, what is
//! left of it is kept as parts of the old chunk (`repo/src/parts.rs`): other threads read the old
//! chunk and compare, while this one reads on.
//!
//! In place means that what comes behind still lies where it lay. Otherwise bytes may have been put in or taken
//! out, and cutting by content finds what moved.

use std::collections::VecDeque;
use std::thread::{Scope, ScopedJoinHandle};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use repo::{Content, Leaf, NodeKind, Piece, StreamExtent, TreeEntry, Was};

use super::cut::{Known, Sink};
use super::pool::HEAD;
use super::read::{Part, Stretch};
use super::{Parent, Stop};

/// How many leaves may lie between two parts of one chunk.
const BETWEEN: usize = 8;
/// How many leaves behind one that changed are looked at.
const BEHIND: usize = 4;

/// The leaves a file consisted of.
struct Before<'a> {
    leaves: Option<Box<dyn Iterator<Item = StreamExtent> + 'a>>,
    /// Those looked at and not passed yet.
    ahead: VecDeque<StreamExtent>,
    /// Where the content ended. Its last chunk was cut by that, and counts only if it is the last again.
    end: u64,
    /// Whether what was overwritten is compared: a stream is worth it.
    compared: bool,
}

impl<'a> Before<'a> {
    fn new(previous: Option<&'a TreeEntry>, parent: Option<&'a Parent<'a>>) -> Before<'a> {
        let none = Before { leaves: None, ahead: VecDeque::new(), end: 0, compared: false };
        let (Some(TreeEntry { kind: NodeKind::File { content, .. }, .. }), Some(parent)) = (previous, parent)
        else {
            return none;
        };
        let leaves: Box<dyn Iterator<Item = _>> = match content {
            // What cannot be read here costs time, not data: the rest is cut as if it were new.
            Content::Stream(root) => Box::new(parent.reader.extents(root).map_while(Result::ok)),
            Content::Extents(extents) => Box::new(extents.iter().scan(0, |at, extent| {
                let (offset, length) = (*at, extent.length);
                *at += u64::from(length);
                Some(StreamExtent { offset, id: extent.chunk, length, part_of: None })
            })),
        };
        let compared = matches!(content, Content::Stream(_));
        Before { leaves: Some(leaves), end: content.length(), compared, ..none }
    }

    /// The leaf after so many others.
    fn ahead(&mut self, number: usize) -> Option<&StreamExtent> {
        while self.ahead.len() <= number {
            self.ahead.push_back(self.leaves.as_mut()?.next()?);
        }
        self.ahead.get(number)
    }

    /// How many leaves from here on are one: a chunk; or the parts of one and what was written between them. 0 if
    /// none began here.
    fn unit(&mut self, at: u64) -> usize {
        while self.ahead(0).is_some_and(|next| next.offset < at) {
            self.ahead.pop_front();
        }
        let Some(first) = self.ahead(0).copied().filter(|first| first.offset == at) else { return 0 };
        let Some(part) = first.part_of else { return 1 };
        let mut count = 1;
        let mut looked = 1;
        while looked <= count + BETWEEN {
            let Some(next) = self.ahead(looked).copied() else { break };
            looked += 1;
            if next.offset + u64::from(next.length) - at > HEAD as u64 {
                break;
            }
            if next.part_of.is_some_and(|other| other.chunk == part.chunk) {
                count = looked;
            }
        }
        count
    }
}

/// Whether something is where it was.
enum InPlace {
    Yes,
    No,
    /// That takes more bytes to tell.
    Later,
}

/// What is to be compared by another thread.
struct Comparison {
    before: Vec<Was>,
    at: u64,
    plain: Bytes,
    answer: Sender<Compared>,
}

/// What became of a stretch of a file.
pub(super) type Compared = Result<Vec<Piece>, repo::Error>;

/// The threads that compare. Most files need none.
enum Comparers<'scope, 'env> {
    Idle(&'scope Scope<'scope, 'env>),
    AtWork(Sender<Comparison>),
}

/// Hands the chunks of a large file to the writer, or finds that it has them.
pub(super) struct Chunks<'scope, 'env> {
    writer: &'env repo::Writer,
    reader: Option<&'env repo::Reader>,
    before: Before<'env>,
    comparers: Comparers<'scope, 'env>,
    parts: &'env Sender<Part>,
    ready: Vec<Stretch>,
}

impl<'scope, 'env> Chunks<'scope, 'env> {
    /// Of a file that may have been backed up before; its stretches go to `parts`.
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        writer: &'env repo::Writer,
        previous: Option<&'env TreeEntry>,
        parent: Option<&'env Parent<'env>>,
        parts: &'env Sender<Part>,
    ) -> Chunks<'scope, 'env> {
        Chunks {
            writer,
            reader: parent.map(|parent| parent.reader),
            before: Before::new(previous, parent),
            comparers: Comparers::Idle(scope),
            parts,
            ready: Vec::new(),
        }
    }

    /// Hands on what is ready.
    pub fn send(&mut self) -> Result<(), Stop> {
        if self.ready.is_empty() {
            return Ok(());
        }
        self.parts.send(Part::Stretches(std::mem::take(&mut self.ready))).map_err(|_| Stop)
    }

    /// Whether at least half of each chunk is used of which these are parts. The rest of it may have been left behind
    /// by what was cut anew.
    fn worth(&self, leaves: &[Leaf]) -> bool {
        let mut chunks: Vec<_> =
            leaves.iter().filter_map(|leaf| leaf.part_of).map(|part| part.chunk).collect();
        chunks.dedup();
        let of = |leaf: &&Leaf, chunk| leaf.part_of.is_some_and(|part| part.chunk == chunk);
        chunks.into_iter().all(|chunk| {
            let used: u64 =
                leaves.iter().filter(|leaf| of(leaf, chunk)).map(|leaf| u64::from(leaf.length)).sum();
            let place = self.reader.and_then(|reader| reader.locate(&chunk).ok().flatten());
            place.is_some_and(|place| 2 * used >= u64::from(place.plain))
        })
    }

    /// Whether the leaves behind the first `count`, which begin `at`, are where they were.
    fn in_place(&mut self, count: usize, at: u64, rest: &[u8], last: bool) -> InPlace {
        for number in count..count + BEHIND {
            let Some(next) = self.before.ahead(number).copied() else {
                // The file ends where it ended.
                let ends = last && at + rest.len() as u64 == self.before.end;
                return if ends { InPlace::Yes } else { InPlace::No };
            };
            let from = (next.offset - at) as usize;
            let to = from + next.length as usize;
            match rest.get(from..to) {
                Some(bytes) if self.writer.is(bytes, &next.leaf()) => return InPlace::Yes,
                Some(_) => {}
                // As much as can be kept until there is more.
                None if !last && to <= HEAD => return InPlace::Later,
                None => return InPlace::No,
            }
        }
        InPlace::No
    }

    /// Has a stretch compared.
    fn compare(&mut self, before: Vec<Was>, at: u64, plain: Bytes) -> Result<(), Stop> {
        let Some(reader) = self.reader else { return Err(Stop) };
        if let Comparers::Idle(scope) = &self.comparers {
            let (scope, writer) = (*scope, self.writer);
            let (jobs, queue) = bounded(reader.threads());
            for _ in 0..reader.threads() {
                let queue: Receiver<Comparison> = queue.clone();
                let _: ScopedJoinHandle<'_, ()> = scope.spawn(move || {
                    for Comparison { before, at, plain, answer } in queue {
                        // Nobody waits for it any more: the backup is over.
                        let _ = answer.send(writer.overwritten(reader, &before, at, &plain));
                    }
                });
            }
            self.comparers = Comparers::AtWork(jobs);
        }
        let Comparers::AtWork(jobs) = &self.comparers else { return Err(Stop) };
        let (answer, compared) = bounded(1);
        jobs.send(Comparison { before, at, plain, answer }).map_err(|_| Stop)?;
        self.ready.push(Stretch::Compared(compared));
        Ok(())
    }
}

impl Sink<Stop> for Chunks<'_, '_> {
    fn chunk(&mut self, chunk: Bytes) -> Result<(), Stop> {
        let length = chunk.len() as u32;
        match self.writer.chunk(repo::Lane::Data, chunk) {
            Ok(ticket) => {
                self.ready.push(Stretch::Written(ticket, length));
                Ok(())
            }
            Err(error) => self.parts.send(Part::Failed(error)).map_err(|_| Stop),
        }
    }

    fn known(&mut self, at: u64, rest: &[u8], last: bool) -> Result<Known, Stop> {
        let count = self.before.unit(at);
        if count == 0 {
            return Ok(Known::No);
        }
        let leaves: Vec<Leaf> = self.before.ahead.iter().take(count).map(StreamExtent::leaf).collect();
        let length: usize = leaves.iter().map(|leaf| leaf.length as usize).sum();
        let Some(bytes) = rest.get(..length) else {
            return Ok(if last { Known::No } else { Known::Later });
        };
        if at + length as u64 >= self.before.end && !(last && length == rest.len()) {
            // It was cut by the end of the file. More may follow, or does.
            return Ok(if length == rest.len() { Known::Later } else { Known::No });
        }
        let mut from = 0;
        let was = leaves.iter().map(|leaf| {
            let bytes = &bytes[from..from + leaf.length as usize];
            from += leaf.length as usize;
            Was { leaf: *leaf, same: self.writer.is(bytes, leaf) }
        });
        let was: Vec<Was> = was.collect();
        if was.iter().all(|was| was.same) {
            if !self.worth(&leaves) || !leaves.iter().all(|leaf| self.writer.keep(leaf)) {
                return Ok(Known::No);
            }
            self.ready.extend(leaves.into_iter().map(Stretch::Kept));
            return Ok(Known::Taken(length));
        }
        if !self.before.compared {
            return Ok(Known::No);
        }
        // What changed lies before something of the same unit that did not, or before another that did not.
        let within = was.last().is_some_and(|last| last.same);
        let in_place = if within { InPlace::Yes } else { self.in_place(count, at, rest, last) };
        match in_place {
            InPlace::No => Ok(Known::No),
            InPlace::Later => Ok(Known::Later),
            InPlace::Yes => {
                self.compare(was, at, Bytes::copy_from_slice(bytes))?;
                Ok(Known::Taken(length))
            }
        }
    }
}
