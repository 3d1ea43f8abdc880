//! What is left of content that was overwritten in place, and what of it is new.
//!
//! A page that changes in a database's disk lies in a chunk that did not. The old chunk is read and compared with what
//! lies there now: what is equal is named again as a part of the old chunk, and only what changed is written. Bytes are
//! compared, authenticated ones, and nothing is believed that was kept about them. A chunk that cannot be read is
//! no loss: then all of it is new.
//!
//! Parts are bounded, so that neither the time of a restore nor the space held grows with the number of generations: see
//! [`fold`] and `docs/decisions/0011-parts.md`.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use crate::error::Error;
use crate::id::ChunkId;
use crate::node::bytes_of;
use crate::object::{Leaf, PartOf};
use crate::pack::Lane;
use crate::reader::Reader;
use crate::writer::{Ticket, Writer};

/// What is compared as one: blocks of file systems and most pages of databases are multiples of it, and begin at such places
/// of their file.
const BLOCK: u64 = 4_096;
/// Shorter parts are not worth the naming.
const PART_BYTES_MIN: usize = 2_048;
/// A changed leaf up to this length is not worth reading the old one.
const COMPARED_BYTES_MIN: u32 = 16_384;
/// What was in one unit is cut anew if it would be in more pieces than this.
const PIECES_MAX: usize = 16;

/// A stretch of a stream that was compared.
pub enum Piece {
    /// The repository has it.
    Kept(Leaf),
    /// It was handed in; so long it is.
    Written(Ticket, u32),
}

/// A leaf as it was, and whether it still is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Was {
    /// It.
    pub leaf: Leaf,
    /// Whether its bytes are what they were.
    pub same: bool,
}

/// What becomes of a run of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    bytes: Range<usize>,
    /// Where the repository has them; `None`: they are new.
    kept: Option<Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// A leaf as it was.
    Leaf(Leaf),
    /// From this place on.
    At(PartOf),
}

impl Kept {
    fn chunk(&self) -> ChunkId {
        match self {
            Kept::Leaf(leaf) => leaf.extent().chunk,
            Kept::At(part) => part.chunk,
        }
    }
}

impl Writer {
    /// Takes the bytes that lie now where these leaves were, `at` bytes from the beginning of the stream: keeps what is
    /// left of them and hands in the rest. Reads the leaves that are not the same.
    pub fn overwritten(
        &self,
        reader: &Reader,
        before: &[Was],
        at: u64,
        plain: &Bytes,
    ) -> Result<Vec<Piece>, Error> {
        let worth = |was: &&Was| !was.same && was.leaf.length > COMPARED_BYTES_MIN;
        let mut ids: Vec<ChunkId> = before.iter().filter(worth).map(|was| was.leaf.extent().chunk).collect();
        ids.sort_unstable();
        ids.dedup();
        // What is not there to be used again need not be read.
        ids.retain(|id| self.has(id));
        let read = reader.chunks(&ids);
        self.check()?;
        // How long the chunks are of which something is not used any more.
        let changed = before.iter().filter(|was| !was.same).map(|was| was.leaf.extent().chunk);
        let mut lengths = HashMap::new();
        for chunk in changed {
            if let Some(place) = reader.locate(&chunk)? {
                lengths.insert(chunk, place.plain as usize);
            }
        }
        let old: HashMap<ChunkId, Bytes> = ids
            .into_iter()
            .zip(read)
            .filter_map(|(id, read)| match read {
                Ok(bytes) => Some((id, bytes)),
                Err(error) => {
                    tracing::debug!(chunk = %id, %error, "it cannot be compared and is stored anew");
                    None
                }
            })
            .collect();
        let runs = fold(compare(before, &old, at, plain), &lengths);
        let mut pieces = Vec::with_capacity(runs.len());
        for Run { bytes, kept } in runs {
            let bytes = &plain[bytes];
            let leaf = kept.map(|kept| match kept {
                Kept::Leaf(leaf) => leaf,
                Kept::At(part) => {
                    Leaf { id: self.id_of(bytes), length: bytes.len() as u32, part_of: Some(part) }
                }
            });
            match leaf.filter(|leaf| self.keep(leaf)) {
                Some(leaf) => pieces.push(Piece::Kept(leaf)),
                None => self.cut(bytes, &mut pieces)?,
            }
        }
        Ok(pieces)
    }

    /// Hands in bytes as chunks.
    fn cut(&self, mut bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), Error> {
        let chunker = self.chunker();
        while let Some(length) = chunker.next(bytes, true) {
            let (chunk, rest) = bytes.split_at(length);
            // Copied: a page on its way must not hold all that lay around it in memory.
            let ticket = self.chunk(Lane::Data, Bytes::copy_from_slice(chunk))?;
            pieces.push(Piece::Written(ticket, length as u32));
            bytes = rest;
        }
        Ok(())
    }
}

/// What is equal and what is not, in order; neighbours differ in that, or lie apart.
fn compare(before: &[Was], old: &HashMap<ChunkId, Bytes>, at: u64, plain: &[u8]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut start = 0;
    for Was { leaf, same } in before {
        let end = plain.len().min(start + leaf.length as usize);
        let extent = leaf.extent();
        let was = old.get(&extent.chunk).and_then(|chunk| bytes_of(&extent, chunk).ok());
        match was {
            _ if *same => push(&mut runs, start..end, Some(Kept::Leaf(*leaf))),
            None => push(&mut runs, start..end, None),
            Some(was) => {
                for equal in equal_runs(&plain[start..end], &was, at + start as u64) {
                    let (from, to) = (start + equal.start, start + equal.end);
                    let reached = runs.last().map_or(0, |run| run.bytes.end);
                    push(&mut runs, reached..from, None);
                    let offset = extent.offset + equal.start as u32;
                    push(&mut runs, from..to, Some(Kept::At(PartOf { chunk: extent.chunk, offset })));
                }
                let reached = runs.last().map_or(0, |run| run.bytes.end);
                push(&mut runs, reached..end, None);
            }
        }
        start = end;
    }
    runs
}

/// Appends a run; what is new joins what is new before it.
fn push(runs: &mut Vec<Run>, bytes: Range<usize>, kept: Option<Kept>) {
    if bytes.is_empty() {
        return;
    }
    match runs.last_mut() {
        Some(last) if last.kept.is_none() && kept.is_none() => last.bytes.end = bytes.end,
        _ => runs.push(Run { bytes, kept }),
    }
}

/// Where two runs of bytes of equal length are equal, block by block; `at` is where the first byte lies in its file.
fn equal_runs(now: &[u8], was: &[u8], at: u64) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    while start < now.len() {
        let to_next = (BLOCK - (at + start as u64) % BLOCK) as usize;
        let end = now.len().min(start + to_next);
        if now[start..end] == was[start..end] {
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        start = end;
    }
    runs.retain(|run| run.len() >= PART_BYTES_MIN);
    runs
}

/// What is kept must be worth it: of a chunk that lost something (these are so long) at least half is still used here,
/// and it all lies in few pieces.
fn fold(runs: Vec<Run>, lengths: &HashMap<ChunkId, usize>) -> Vec<Run> {
    let mut used: HashMap<ChunkId, usize> = HashMap::new();
    for run in &runs {
        if let Some(kept) = run.kept {
            *used.entry(kept.chunk()).or_default() += run.bytes.len();
        }
    }
    let worth = |kept: &Kept| match lengths.get(&kept.chunk()) {
        Some(length) => 2 * used.get(&kept.chunk()).copied().unwrap_or(0) >= *length,
        None => true,
    };
    let mut folded = Vec::with_capacity(runs.len());
    for Run { bytes, kept } in runs {
        push(&mut folded, bytes, kept.filter(worth));
    }
    if folded.len() > PIECES_MAX {
        let all = folded.last().map_or(0, |run| run.bytes.end);
        return vec![Run { bytes: 0..all, kept: None }];
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ChunkId {
        ChunkId([number; 32])
    }

    fn content(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"content").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn lengths(old: &HashMap<ChunkId, Bytes>) -> HashMap<ChunkId, usize> {
        old.iter().map(|(id, bytes)| (*id, bytes.len())).collect()
    }

    /// `from..to old`, `from..to as it was` or `from..to new`.
    fn told(runs: &[Run]) -> Vec<String> {
        let one = |run: &Run| {
            let Range { start, end } = run.bytes;
            match run.kept {
                None => format!("{start}..{end} new"),
                Some(Kept::Leaf(_)) => format!("{start}..{end} as it was"),
                Some(Kept::At(part)) => format!("{start}..{end} of {} from {}", part.chunk.0[0], part.offset),
            }
        };
        runs.iter().map(one).collect()
    }

    /// One chunk of 64 KiB that began `at` in its file, with this range overwritten.
    fn check(at: u64, changed: Range<usize>, expected: &[&str]) {
        let was = content(65_536);
        let mut now = was.clone();
        now[changed.clone()].iter_mut().for_each(|byte| *byte ^= 0xff);
        let before = [Was { leaf: Leaf::chunk(id(1), 65_536), same: false }];
        let old = HashMap::from([(id(1), Bytes::from(was))]);
        let runs = fold(compare(&before, &old, at, &now), &lengths(&old));
        assert_eq!(told(&runs), expected, "{changed:?} at {at}");
    }

    #[test]
    fn what_is_equal_is_kept_and_the_blocks_that_changed_are_new() {
        check(0, 8_192..16_384, &["0..8192 of 1 from 0", "8192..16384 new", "16384..65536 of 1 from 16384"]);
        check(
            100,
            12_000..12_001,
            &["0..8092 of 1 from 0", "8092..12188 new", "12188..65536 of 1 from 12188"],
        );
        check(0, 0..1, &["0..4096 new", "4096..65536 of 1 from 4096"]);
        check(0, 65_535..65_536, &["0..61440 of 1 from 0", "61440..65536 new"]);
        // An end that is short joins what is new beside it.
        check(3_096, 1_500..1_600, &["0..5096 new", "5096..65536 of 1 from 5096"]);
    }

    #[test]
    fn what_is_not_worth_keeping_is_new_as_a_whole() {
        check(0, 0..32_769, &["0..65536 new"]);
        check(0, 0..32_768, &["0..32768 new", "32768..65536 of 1 from 32768"]);
        check(0, 0..65_536, &["0..65536 new"]);
        let was = content(131_072);
        let mut now = was.clone();
        (0..131_072).step_by(12_288).for_each(|at| now[at] ^= 1);
        let old = HashMap::from([(id(1), Bytes::from(was))]);
        let before = [Was { leaf: Leaf::chunk(id(1), 131_072), same: false }];
        let runs = compare(&before, &old, 0, &now);
        assert_eq!(runs.len(), 22, "two thirds of it, in many pieces");
        assert_eq!(told(&fold(runs, &lengths(&old))), ["0..131072 new"]);
    }

    /// Half of a chunk, a page written later, the other half; now another page of the second half.
    #[test]
    fn a_chunk_in_parts_is_looked_at_as_a_whole() {
        let chunk = content(65_536);
        let part = |offset: u32, length: u32| Leaf {
            id: id(100 + offset as u8 % 7),
            length,
            part_of: Some(PartOf { chunk: id(1), offset }),
        };
        let before = |same| {
            [
                Was { leaf: part(0, 32_768), same: true },
                Was { leaf: Leaf::chunk(id(2), 8_192), same: true },
                Was { leaf: part(40_960, 24_576), same },
            ]
        };
        let old = HashMap::from([(id(1), Bytes::from(chunk.clone()))]);
        let mut now = chunk.clone();
        now[50_000] ^= 1;
        let runs = fold(compare(&before(false), &old, 0, &now), &lengths(&old));
        let kept = ["0..32768 as it was", "32768..40960 as it was"];
        let rest = ["40960..49152 of 1 from 40960", "49152..53248 new", "53248..65536 of 1 from 53248"];
        assert_eq!(told(&runs), [&kept[..], &rest].concat());
        // With less than half of the chunk left, its other part is not held either.
        now[40_960..].iter_mut().for_each(|byte| *byte ^= 1);
        let smaller = [Was { leaf: part(8_192, 24_576), same: true }, before(true)[1], before(false)[2]];
        let runs = fold(compare(&smaller, &old, 8_192, &now[8_192..]), &lengths(&old));
        assert_eq!(told(&runs), ["0..24576 new", "24576..32768 as it was", "32768..57344 new"]);
    }

    #[test]
    fn what_could_not_be_read_or_is_too_short_is_new() {
        let now = content(50_000);
        let before = [Was { leaf: Leaf::chunk(id(1), 50_000), same: false }];
        assert_eq!(told(&compare(&before, &HashMap::new(), 0, &now)), ["0..50000 new"]);
        let old = HashMap::from([(id(1), Bytes::from(now[..49_999].to_vec()))]);
        assert_eq!(told(&compare(&before, &old, 0, &now)), ["0..50000 new"]);
    }
}
