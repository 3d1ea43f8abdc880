//! Index segments: what a write puts into the store to say which pack holds which chunk.

use crate::error::Error;
use crate::id::{ChunkId, PackId};
use crate::pack::{PACK_BYTES_MAX, check_place, read_u32};

/// No segment lists more.
pub(crate) const SEGMENT_CHUNKS_MAX: usize = 1_000_000;

const PACK_LEN: usize = 36;
pub(super) const CHUNK_LEN: usize = 48;

/// A chunk in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Which pack, in the segment's table.
    pub pack: u32,
    /// Where its sealed bytes begin in the pack.
    pub offset: u32,
    /// How many they are.
    pub sealed: u32,
    /// How many plain bytes they stand for.
    pub plain: u32,
}

/// An index segment, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// Pack and its size.
    pub packs: Vec<(PackId, u32)>,
    /// Ascending by id.
    pub chunks: Vec<SegmentChunk>,
}

impl Segment {
    /// The body of the segment object.
    pub(crate) fn encode(&mut self) -> Result<Vec<u8>, Error> {
        self.chunks.sort_unstable_by_key(|chunk| (chunk.id, chunk.pack, chunk.offset));
        let counts = [self.packs.len(), self.chunks.len()].map(u32::try_from);
        let [Ok(packs), Ok(chunks)] = counts else {
            return Err(Error::failed("an index segment grew beyond its limits"));
        };
        let mut body = Vec::with_capacity(8 + self.packs.len() * PACK_LEN + self.chunks.len() * CHUNK_LEN);
        body.extend(packs.to_le_bytes());
        body.extend(chunks.to_le_bytes());
        for (id, size) in &self.packs {
            body.extend(id.as_bytes());
            body.extend(size.to_le_bytes());
        }
        for chunk in &self.chunks {
            body.extend(chunk.id.as_bytes());
            for number in [chunk.pack, chunk.offset, chunk.sealed, chunk.plain] {
                body.extend(number.to_le_bytes());
            }
        }
        // Said twice: what we write must be what a reader takes.
        let view = SegmentView::parse(&body).map_err(|what| Error::failed(format!("own index: {what}")))?;
        view.chunks(|_| ()).map_err(|what| Error::failed(format!("own index: {what}")))?;
        Ok(body)
    }

    /// Its inverse.
    pub(crate) fn decode(body: &[u8]) -> Result<Segment, String> {
        let view = SegmentView::parse(body)?;
        let mut chunks = Vec::with_capacity(view.chunks.len());
        view.chunks(|chunk| chunks.push(chunk))?;
        Ok(Segment { packs: view.packs().collect(), chunks })
    }
}

/// A segment's tables where they lie.
pub(super) struct SegmentView<'b> {
    packs: &'b [[u8; PACK_LEN]],
    chunks: &'b [[u8; CHUNK_LEN]],
}

impl<'b> SegmentView<'b> {
    pub fn parse(body: &'b [u8]) -> Result<SegmentView<'b>, String> {
        let Some((counts, tables)) = body.split_first_chunk::<8>() else {
            return Err("its body is too short".into());
        };
        let (packs, chunks) = (read_u32(counts, 0) as usize, read_u32(counts, 4) as usize);
        if chunks > SEGMENT_CHUNKS_MAX || packs > chunks {
            return Err(format!("{packs} packs and {chunks} chunks (at most {SEGMENT_CHUNKS_MAX})"));
        }
        let Some((packs, chunks)) =
            tables.split_at_checked(packs * PACK_LEN).filter(|(_, rest)| rest.len() == chunks * CHUNK_LEN)
        else {
            return Err("its tables are not as long as it says".into());
        };
        let view = SegmentView { packs: packs.as_chunks().0, chunks: chunks.as_chunks().0 };
        if view.packs().any(|(_, size)| size as usize > PACK_BYTES_MAX) {
            return Err("a pack above 64 MiB".into());
        }
        Ok(view)
    }

    pub fn pack_count(&self) -> usize {
        self.packs.len()
    }

    pub fn packs(&self) -> impl Iterator<Item = (PackId, u32)> {
        self.packs.iter().map(|line| {
            let (id, _) = line.split_first_chunk::<32>().unwrap_or((&[0; 32], &[]));
            (PackId(*id), read_u32(line, 32))
        })
    }

    /// Hands out the chunks, each checked against its pack and its neighbour.
    pub fn chunks(&self, mut each: impl FnMut(SegmentChunk)) -> Result<(), String> {
        let mut last = None;
        for line in self.chunks {
            let (id, _) = line.split_first_chunk::<32>().unwrap_or((&[0; 32], &[]));
            let chunk = SegmentChunk {
                id: ChunkId(*id),
                pack: read_u32(line, 32),
                offset: read_u32(line, 36),
                sealed: read_u32(line, 40),
                plain: read_u32(line, 44),
            };
            let Some(pack) = self.packs.get(chunk.pack as usize) else {
                return Err("a chunk in a pack that is not listed".into());
            };
            check_place(chunk.offset, chunk.sealed, chunk.plain, read_u32(pack, 32) as usize)?;
            let order = (chunk.id, chunk.pack, chunk.offset);
            if last.is_some_and(|last| last >= order) {
                return Err("chunks that do not ascend".into());
            }
            last = Some(order);
            each(chunk);
        }
        Ok(())
    }
}
