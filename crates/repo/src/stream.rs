//! Streams written: bytes in, chunks and nodes out, one root at the end.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::chunk::Chunker;
use crate::error::Error;
use crate::id::ChunkId;
use crate::object::{CHUNK_BYTES_MAX, LEVEL_MAX, NODE_REFS_MAX, Root};
use crate::pack::Lane;
use crate::writer::{Ticket, Writer};

/// Bytes of one ref in a node.
pub(crate) const REF_LEN: usize = 40;

/// How much is collected before it is cut: several chunks share one allocation.
const BUFFER_BYTES: usize = 1 << 20;

/// How many chunks may be on their way before the oldest is waited for.
const TICKETS_MAX: usize = 1_024;

/// Whether a node closes after this ref: one in 512, by content, so that an insertion changes few nodes.
fn closes(id: &ChunkId) -> bool {
    id.0[0] == 0 && id.0[1] & 1 == 0
}

/// Builds the tree of nodes over the chunks of one stream, each level as it comes.
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
    /// How many refs this level has had in all, and the first.
    count: u64,
    first: Option<(ChunkId, u64)>,
}

impl<'w> Nodes<'w> {
    pub(crate) fn new(writer: &'w Writer) -> Nodes<'w> {
        Nodes { writer, levels: Vec::new() }
    }

    /// The next chunk of the stream.
    pub(crate) fn push(&mut self, id: ChunkId, length: u64) -> Result<(), Error> {
        if length == 0 || length > CHUNK_BYTES_MAX as u64 {
            return Err(Error::invalid(format!(
                "a chunk of {length} bytes in a stream (1 to {CHUNK_BYTES_MAX})"
            )));
        }
        self.push_at(0, id, length)
    }

    fn push_at(&mut self, level: usize, id: ChunkId, length: u64) -> Result<(), Error> {
        if level > usize::from(LEVEL_MAX) {
            return Err(Error::invalid(format!("a stream that needs more than {LEVEL_MAX} levels of nodes")));
        }
        if self.levels.len() <= level {
            self.levels.push(Level::default());
        }
        if self.levels[level].complete {
            self.close(level)?;
        }
        let at = &mut self.levels[level];
        at.open.extend_from_slice(id.as_bytes());
        at.open.extend_from_slice(&length.to_le_bytes());
        at.open_length += length;
        at.count += 1;
        at.first.get_or_insert((id, length));
        at.complete = closes(&id) || at.open.len() >= NODE_REFS_MAX * REF_LEN;
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
        self.push_at(level + 1, id, length)
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
    pending: VecDeque<(Ticket, u64)>,
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
            self.pending.push_back((ticket, length as u64));
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
            self.nodes.push(id, length)?;
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
