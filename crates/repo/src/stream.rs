//! Streams written: bytes in, chunks and nodes out, one root at the end.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::chunk::Chunker;
use crate::error::Error;
use crate::id::ChunkId;
use crate::node::{SLOT_LEN, check_leaf, put_ref, slots_of};
use crate::object::{LEVEL_MAX, Leaf, NODE_SLOTS_MAX, PartOf, Root};
use crate::pack::Lane;
use crate::writer::{Ticket, Writer};

/// How much is collected before it is cut: several chunks share one allocation.
const BUFFER_BYTES: usize = 1 << 20;

/// How many chunks may be on their way before the oldest is waited for.
const TICKETS_MAX: usize = 1_024;

/// Whether a node closes after this ref: one in 512, by content, so that an insertion changes few nodes.
fn closes(id: &ChunkId) -> bool {
    id.0[0] == 0 && id.0[1] & 1 == 0
}

/// Builds the tree of nodes over the leaves of one stream, each level as it comes.
pub(crate) struct Nodes<'w> {
    writer: &'w Writer,
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    /// Refs of the open node.
    open: Vec<u8>,
    open_length: u64,
    /// The open node closes before the next ref. Not at once: if none follows, its only ref may be the root.
    complete: bool,
    /// How many refs this level has had in all, and the first if it may be a root: a part is none.
    count: u64,
    first: Option<(ChunkId, u64)>,
}

impl<'w> Nodes<'w> {
    pub(crate) fn new(writer: &'w Writer) -> Nodes<'w> {
        Nodes { writer, levels: Vec::new() }
    }

    /// The next leaf of the stream.
    pub(crate) fn push(&mut self, leaf: &Leaf) -> Result<(), Error> {
        check_leaf(leaf).map_err(Error::invalid)?;
        self.push_at(0, leaf.id, leaf.length.into(), leaf.part_of)
    }

    fn push_at(
        &mut self,
        level: usize,
        id: ChunkId,
        length: u64,
        part_of: Option<PartOf>,
    ) -> Result<(), Error> {
        if level > usize::from(LEVEL_MAX) {
            return Err(Error::invalid(format!("a stream that needs more than {LEVEL_MAX} levels of nodes")));
        }
        if self.levels.len() <= level {
            self.levels.push(Level::default());
        }
        let slots = self.levels[level].open.len() / SLOT_LEN + slots_of(part_of.as_ref());
        if self.levels[level].complete || slots > NODE_SLOTS_MAX {
            self.close(level)?;
        }
        let at = &mut self.levels[level];
        put_ref(&mut at.open, &id, length, part_of.as_ref());
        at.open_length += length;
        at.count += 1;
        if at.count == 1 && part_of.is_none() {
            at.first = Some((id, length));
        }
        at.complete = closes(&id);
        Ok(())
    }

    fn close(&mut self, level: usize) -> Result<(), Error> {
        let at = &mut self.levels[level];
        let node = Bytes::copy_from_slice(&at.open);
        let length = at.open_length;
        at.open.clear();
        at.open_length = 0;
        at.complete = false;
        let id = self.writer.chunk_now(Lane::Meta, node)?;
        self.push_at(level + 1, id, length, None)
    }

    /// The root over all that was pushed.
    pub(crate) fn finish(mut self) -> Result<Root, Error> {
        let mut level = 0;
        loop {
            match self.levels.get(level) {
                None => return Ok(Root::EMPTY),
                Some(Level { count: 1, first: Some((id, length)), .. }) => {
                    return Ok(Root { level: level as u8, length: *length, id: *id });
                }
                Some(_) => self.close(level)?,
            }
            level += 1;
        }
    }
}

/// Takes bytes, cuts them by content, and gives the root of the stream.
pub struct StreamWriter<'w> {
    writer: &'w Writer,
    lane: Lane,
    chunker: Chunker,
    buffer: BytesMut,
    pending: VecDeque<(Ticket, u32)>,
    nodes: Nodes<'w>,
}

impl<'w> StreamWriter<'w> {
    pub(crate) fn new(writer: &'w Writer, lane: Lane) -> StreamWriter<'w> {
        StreamWriter {
            writer,
            lane,
            chunker: writer.chunker(),
            buffer: BytesMut::new(),
            pending: VecDeque::new(),
            nodes: Nodes::new(writer),
        }
    }

    /// The next bytes of the stream.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let take = bytes.len().min(BUFFER_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.buffer.len() == BUFFER_BYTES {
                self.cut(false)?;
            }
        }
        Ok(())
    }

    /// Cuts what is collected; keeps what could still be cut otherwise by what follows.
    fn cut(&mut self, last: bool) -> Result<(), Error> {
        let mut rest = std::mem::take(&mut self.buffer).freeze();
        while let Some(length) = self.chunker.next(&rest, last) {
            let chunk = rest.split_to(length);
            let ticket = self.writer.chunk(self.lane, chunk)?;
            self.pending.push_back((ticket, length as u32));
        }
        if !last {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES);
            self.buffer.extend_from_slice(&rest);
        }
        self.settle(TICKETS_MAX)
    }

    /// Takes in the chunks whose ids are known, and waits until at most `most` are not.
    fn settle(&mut self, most: usize) -> Result<(), Error> {
        while let Some((ticket, length)) = self.pending.front() {
            let (id, length) = match ticket.try_ready() {
                Some(id) => (id, *length),
                None if self.pending.len() <= most => return Ok(()),
                None => (ticket.wait_ref()?, *length),
            };
            self.pending.pop_front();
            self.nodes.push(&Leaf::chunk(id, length))?;
        }
        Ok(())
    }

    /// Ends the stream.
    pub fn finish(mut self) -> Result<Root, Error> {
        self.cut(true)?;
        self.settle(0)?;
        self.nodes.finish()
    }
}

impl std::io::Write for StreamWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
