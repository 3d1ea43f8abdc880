//! Nodes: the inner chunks of a stream, each a run of refs to what lies below it.
//!
//! ```text
//! ref  = id (32) ‖ length (u64)                                                   one slot of 40 bytes
//! part = chunk id (32) ‖ 2^63 + offset (u64) ‖ part id (32) ‖ length (u64)        two slots, in level 1 alone
//! ```
//!
//! A part names some of the bytes of a chunk: what is left of one that was overwritten (`parts.rs`). It has the id that
//! these bytes would have as a chunk, so it is recognised, and checked, like one. There is one way to write each
//! leaf: the whole of a chunk is never a part.

use bytes::Bytes;

use crate::error::Error;
use crate::id::ChunkId;
use crate::object::{CHUNK_BYTES_MAX, Extent, Leaf, NODE_SLOTS_MAX, PartOf, Root};

/// Bytes of one slot.
pub(crate) const SLOT_LEN: usize = 40;
/// What the length of the first slot of a part has above the offset.
const PART: u64 = 1 << 63;

/// What a ref names: a node, or a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ref {
    /// 0: a leaf.
    pub level: u8,
    /// Bytes of what is named.
    pub length: u64,
    /// Its name.
    pub id: ChunkId,
    /// Of a leaf: where it lies, if it is no chunk by itself.
    pub part_of: Option<PartOf>,
}

impl Ref {
    /// The chunk that has to be there: the node, the leaf, or what the leaf is a part of.
    pub(crate) fn chunk(&self) -> ChunkId {
        self.part_of.map_or(self.id, |part| part.chunk)
    }

    /// Of a node.
    pub(crate) fn root(&self) -> Root {
        Root { level: self.level, length: self.length, id: self.id }
    }

    /// Of a leaf whose node has passed [`check_node`], or whose length was looked at.
    pub(crate) fn leaf(&self) -> Leaf {
        Leaf { id: self.id, length: self.length as u32, part_of: self.part_of }
    }

    /// Whether a leaf fits a chunk of this length: it is all of it, or a part that is less.
    pub(crate) fn fits(&self, plain: u64) -> bool {
        match self.part_of {
            None => self.length == plain,
            Some(part) => self.length < plain && u64::from(part.offset) + self.length <= plain,
        }
    }
}

impl From<&Root> for Ref {
    fn from(root: &Root) -> Ref {
        Ref { level: root.level, length: root.length, id: root.id, part_of: None }
    }
}

/// Whether a leaf is one the format allows. Asked before writing and after reading.
pub(crate) fn check_leaf(leaf: &Leaf) -> Result<(), String> {
    let Leaf { id, length, part_of } = leaf;
    let end = u64::from(part_of.map_or(0, |part| part.offset)) + u64::from(*length);
    if *length == 0 || end > CHUNK_BYTES_MAX as u64 {
        return Err(format!(
            "a leaf of {length} bytes that ends at {end} of its chunk (1 to {CHUNK_BYTES_MAX})"
        ));
    }
    match part_of {
        Some(part) if part.chunk == *id => Err(format!("a part that is the whole of its chunk {id}")),
        _ => Ok(()),
    }
}

/// How many slots a ref takes.
pub(crate) fn slots_of(part_of: Option<&PartOf>) -> usize {
    if part_of.is_some() { 2 } else { 1 }
}

/// Appends a ref to a node.
pub(crate) fn put_ref(node: &mut Vec<u8>, id: &ChunkId, length: u64, part_of: Option<&PartOf>) {
    if let Some(part) = part_of {
        node.extend_from_slice(part.chunk.as_bytes());
        node.extend_from_slice(&(PART + u64::from(part.offset)).to_le_bytes());
    }
    node.extend_from_slice(id.as_bytes());
    node.extend_from_slice(&length.to_le_bytes());
}

fn slot(bytes: &[u8]) -> (ChunkId, u64) {
    let (id, length) = bytes.split_first_chunk::<32>().unwrap_or((&[0; 32], &[]));
    (ChunkId(*id), length.first_chunk::<8>().map_or(0, |eight| u64::from_le_bytes(*eight)))
}

/// The first ref of a node, and how many bytes it takes; `None` at the end. The node has passed [`check_node`].
pub(crate) fn first_ref(level: u8, node: &[u8]) -> Option<(Ref, usize)> {
    let (first, rest) = node.split_first_chunk::<SLOT_LEN>()?;
    let (id, length) = slot(first);
    let Some(offset) = length.checked_sub(PART).filter(|_| level == 0) else {
        return Some((Ref { level, length, id, part_of: None }, SLOT_LEN));
    };
    let part_of = Some(PartOf { chunk: id, offset: u32::try_from(offset).unwrap_or(u32::MAX) });
    let (id, length) = slot(rest.first_chunk::<SLOT_LEN>()?);
    Some((Ref { level, length, id, part_of }, 2 * SLOT_LEN))
}

/// What a node refers to, in order; `level` is theirs, and the node has passed [`check_node`].
pub(crate) fn node_refs(level: u8, node: &[u8]) -> impl Iterator<Item = Ref> {
    let mut rest = node;
    std::iter::from_fn(move || {
        let (one, length) = first_ref(level, rest)?;
        rest = rest.get(length..)?;
        Some(one)
    })
}

/// Whether the bytes are a node of a stream of `length` bytes, with refs of this level.
pub(crate) fn check_node(level: u8, node: &[u8], length: u64) -> Result<(), String> {
    let (slots, rest) = node.as_chunks::<SLOT_LEN>();
    if slots.is_empty() || !rest.is_empty() || slots.len() > NODE_SLOTS_MAX {
        return Err(format!("a node of {} bytes", node.len()));
    }
    let (mut sum, mut rest) = (0_u64, node);
    while let Some((one, taken)) = first_ref(level, rest) {
        let possible = match level {
            0 => one.length <= CHUNK_BYTES_MAX as u64 && check_leaf(&one.leaf()).is_ok(),
            _ => one.length > 0,
        };
        sum = match sum.checked_add(one.length).filter(|_| possible) {
            Some(sum) => sum,
            None => return Err("a node with a ref of an impossible length".into()),
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    if !rest.is_empty() {
        return Err("a node that ends in the middle of a part".into());
    }
    if sum == length { Ok(()) } else { Err(format!("a node of {sum} bytes where {length} were promised")) }
}

/// The bytes of a leaf in its chunk, if that is long enough.
pub(crate) fn bytes_of(extent: &Extent, chunk: &Bytes) -> Result<Bytes, Error> {
    let (from, to) = (extent.offset as usize, extent.offset as usize + extent.length as usize);
    if to > chunk.len() {
        let what = format!("it has {} bytes where {to} were promised", chunk.len());
        return Err(Error::damaged(format!("chunk {}", extent.chunk), what));
    }
    Ok(chunk.slice(from..to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ChunkId {
        ChunkId([number; 32])
    }

    fn part(chunk: u8, offset: u32) -> Option<PartOf> {
        Some(PartOf { chunk: id(chunk), offset })
    }

    fn node(refs: &[(u8, u64, Option<PartOf>)]) -> (Vec<u8>, u64) {
        let mut bytes = Vec::new();
        for (number, length, part_of) in refs {
            put_ref(&mut bytes, &id(*number), *length, part_of.as_ref());
        }
        (bytes, refs.iter().map(|(_, length, _)| length).sum())
    }

    #[test]
    fn what_is_written_is_read() {
        let refs = [(1, 5, None), (2, 7, part(9, 100)), (3, 262_144, None), (4, 1, part(9, 262_143))];
        let (bytes, length) = node(&refs);
        assert_eq!(bytes.len(), 6 * SLOT_LEN);
        check_node(0, &bytes, length).unwrap();
        let read: Vec<_> = node_refs(0, &bytes).map(|one| (one.id.0[0], one.length, one.part_of)).collect();
        assert_eq!(read, refs);
        let chunks: Vec<_> = node_refs(0, &bytes).map(|one| one.chunk().0[0]).collect();
        assert_eq!(chunks, [1, 9, 3, 9]);
        assert!(check_node(0, &bytes, length + 1).is_err());
    }

    /// Nobody can give one stream two names, nor one that reaches beyond its chunk.
    #[test]
    fn parts_that_are_none_are_refused() {
        for (what, refs) in [
            ("the whole of a chunk", vec![(9, 7, part(9, 0))]),
            ("beyond any chunk", vec![(1, 2, part(9, 262_143))]),
            ("an offset beyond any chunk", vec![(1, 2, part(9, u32::MAX))]),
            ("nothing", vec![(1, 0, part(9, 1)), (2, 5, None)]),
            ("a chunk that is too long", vec![(1, 262_145, None)]),
        ] {
            let (bytes, length) = node(&refs);
            assert!(check_node(0, &bytes, length).is_err(), "{what}");
        }
        let (bytes, length) = node(&[(1, 5, None), (2, 7, part(9, 100))]);
        assert!(check_node(0, &bytes[..2 * SLOT_LEN], 5).is_err(), "half a part");
        assert!(check_node(1, &bytes, length).is_err(), "above level 1");
        // An offset, and then another instead of a length.
        let twice = [&bytes[SLOT_LEN..2 * SLOT_LEN], &bytes[SLOT_LEN..]].concat();
        assert!(check_node(0, &twice, 7).is_err());
        // A part whose offset does not fit 32 bits.
        let mut far = node(&[(2, 7, part(9, 100))]).0;
        far[36] = 1;
        assert!(check_node(0, &far, 7).is_err());
    }

    #[test]
    fn a_leaf_fits_its_chunk_or_does_not() {
        let one = |length, part_of| Ref { level: 0, length, id: id(1), part_of };
        assert!(one(10, None).fits(10) && !one(10, None).fits(11));
        assert!(one(10, part(9, 5)).fits(15) && one(10, part(9, 0)).fits(11));
        assert!(!one(10, part(9, 5)).fits(14) && !one(10, part(9, 0)).fits(10));
    }
}
