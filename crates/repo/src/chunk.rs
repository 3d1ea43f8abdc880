//! Where a byte stream is cut: content-defined, with a table only key holders know.
//!
//! FastCDC (Xia et al., 2020 revision) at normalisation level 1, as `fastcdc::v2020::cut_gear` computes it,
//! over a gear table derived from the repository's `chunker_key`. The same bytes are cut at the same places
//! wherever they lie, so shifted data deduplicates; without the key, chunk lengths do not fingerprint
//! content (R4). The cut points are part of the format: a golden test below fixes them.

use std::sync::Arc;

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::object::CHUNK_BYTES_MAX;

/// Smallest, intended and largest chunk of a repository, in bytes; fixed in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChunkBytes {
    /// No chunk but the last of a stream is smaller.
    pub min: u32,
    /// What chunks are around.
    pub avg: u32,
    /// No chunk is larger.
    pub max: u32,
}

impl Default for ChunkBytes {
    fn default() -> ChunkBytes {
        ChunkBytes { min: 16_384, avg: 65_536, max: 262_144 }
    }
}

impl ChunkBytes {
    /// Whether a chunker can be made of them.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ascending = 64 <= self.min && self.min < self.avg && self.avg < self.max;
        let even = self.min.is_multiple_of(2) && self.max.is_multiple_of(2);
        let fits = self.avg >= 256 && self.avg.is_power_of_two() && self.max as usize <= CHUNK_BYTES_MAX;
        if ascending && even && fits {
            return Ok(());
        }
        Err(format!(
            "chunk sizes {}, {}, {} (64 <= min < avg < max <= {CHUNK_BYTES_MAX}, even, avg a power of two from 256)",
            self.min, self.avg, self.max
        ))
    }
}

/// Cuts byte streams into chunks. Cheap to clone; has no state.
#[derive(Clone)]
pub struct Chunker {
    sizes: ChunkBytes,
    masks: (u64, u64),
    gear: Arc<[u64]>,
    gear_shifted: Arc<[u64]>,
}

impl std::fmt::Debug for Chunker {
    // The table is a secret: who has it can compare chunk lengths with known content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunker").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

impl Chunker {
    /// A chunker of these sizes (which passed [`ChunkBytes::check`]) and this table.
    pub(crate) fn new(sizes: ChunkBytes, gear: &[u64; 256]) -> Chunker {
        Chunker {
            sizes,
            masks: select_masks(sizes.avg as usize, Normalization::Level1),
            gear: gear.iter().copied().collect(),
            gear_shifted: gear.iter().map(|value| value << 1).collect(),
        }
    }

    /// The sizes.
    pub fn sizes(&self) -> ChunkBytes {
        self.sizes
    }

    /// The largest chunk: with this many bytes at hand a cut never depends on what follows.
    pub fn max(&self) -> usize {
        self.sizes.max as usize
    }

    /// The length of the chunk at the start of `data`. `last` says that the stream ends with `data`;
    /// otherwise `None` means that more bytes are needed before the cut is certain. Also `None` at the end.
    pub fn next(&self, data: &[u8], last: bool) -> Option<usize> {
        if data.is_empty() || (!last && data.len() < self.max()) {
            return None;
        }
        let (strict, loose) = self.masks;
        let (_, cut) = cut_gear(
            data,
            self.sizes.min as usize,
            self.sizes.avg as usize,
            self.sizes.max as usize,
            strict,
            loose,
            strict << 1,
            loose << 1,
            &self.gear,
            &self.gear_shifted,
        );
        Some(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunker(sizes: ChunkBytes) -> Chunker {
        let mut gear = [0; 256];
        let mut dice = blake3::Hasher::new_keyed(&[7; 32]).update(b"holdfast v1 gear").finalize_xof();
        for value in &mut gear {
            let mut eight = [0; 8];
            dice.fill(&mut eight);
            *value = u64::from_le_bytes(eight);
        }
        Chunker::new(sizes, &gear)
    }

    fn data(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"golden data").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
        let (mut at, mut lengths) = (0, Vec::new());
        while let Some(length) = chunker.next(&data[at..], true) {
            lengths.push(length);
            at += length;
        }
        lengths
    }

    /// The cut points are part of the format: whatever makes this fail stores everything again.
    #[test]
    fn the_cut_points_of_a_fixed_key_are_fixed() {
        let lengths = cuts(&chunker(ChunkBytes::default()), &data(1 << 20));
        assert_eq!(lengths, GOLDEN);
    }

    const GOLDEN: &[usize] =
        &[120688, 95221, 84251, 96330, 74267, 91853, 72747, 132168, 18856, 25258, 160384, 76553];

    #[test]
    fn bytes_are_cut_alike_however_they_arrive() {
        let (chunker, data) = (chunker(ChunkBytes { min: 64, avg: 256, max: 1024 }), data(100_000));
        let whole = cuts(&chunker, &data);
        for step in [1_024, 1_025, 4_000, 33_333] {
            let (mut from, mut to, mut lengths) = (0, 0, Vec::new());
            while from < data.len() {
                to = (to + step).min(data.len());
                while let Some(length) = chunker.next(&data[from..to], to == data.len()) {
                    lengths.push(length);
                    from += length;
                }
            }
            assert_eq!(lengths, whole, "in steps of {step}");
        }
    }

    #[test]
    fn shifted_bytes_are_cut_alike_after_a_few_chunks() {
        let (chunker, data) = (chunker(ChunkBytes { min: 64, avg: 256, max: 1024 }), data(100_000));
        let shifted = [b"seventeen bytes..".as_slice(), &data].concat();
        let (mut one, mut two) = (cuts(&chunker, &data), cuts(&chunker, &shifted));
        one.reverse();
        two.reverse();
        let same = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
        assert!(same > one.len() - 10, "{same} of {}", one.len());
    }

    #[test]
    fn sizes_that_make_no_chunker_are_refused() {
        for (min, avg, max) in [
            (0, 256, 1024),
            (64, 64, 128),
            (64, 300, 1024),
            (65, 256, 1024),
            (64, 256, 262_146),
            (256, 512, 512),
        ] {
            assert!(ChunkBytes { min, avg, max }.check().is_err(), "{min} {avg} {max}");
        }
        assert_eq!(ChunkBytes::default().check(), Ok(()));
    }
}
