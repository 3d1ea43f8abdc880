//! Where a byte stream is cut: content-defined, with a table only key holders know.
//!
//! FastCDC (Xia et al., 2020 revision) at normalisation level 1, as `fastcdc::v2020::cut_gear` computes it,
//! over a gear table derived from the repository's `chunker_key`. The same bytes are cut at the same places
//! wherever they lie, so shifted data deduplicates; without the key, chunk lengths do not fingerprint
//! content (R4). The cut points are part of the format: a golden test below fixes them, and another compares them with
//! the crate's own.
//!
//! The scan is ours, and a fifth faster: each step of the hash waits for the one before, so two places of the data are
//! scanned at a time. The hash at a byte depends on the 48 before it alone (the masks look no higher), which is how
//! the second place can begin in the middle.

use std::sync::Arc;

use fastcdc::v2020::{Normalization, select_masks};

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
        ChunkBytes { min: 16_384, avg: 32_768, max: 131_072 }
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
    tables: Arc<Tables>,
}

/// The gear table, and the same shifted by one: two bytes are hashed with one shift of the hash.
struct Tables {
    gear: [u64; 256],
    shifted: [u64; 256],
}

/// How many bytes each of two places is scanned before they move on.
const STRETCH: usize = 1024;
/// How many bytes before a place its hash depends on.
const MEMORY: usize = 48;

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
            tables: Arc::new(Tables { gear: *gear, shifted: gear.map(|value| value << 1) }),
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
        let (min, avg) = (self.sizes.min as usize, self.sizes.avg as usize);
        let length = data.len().min(self.max());
        if length <= min {
            return Some(length);
        }
        // Bytes are looked at in pairs: an odd one at the end is none to cut at.
        let (normal, end) = (avg.min(length) & !1, length & !1);
        let (strict, loose) = self.masks;
        let mut hash = 0;
        let found = self.tables.scan(&data[min..normal.max(min)], &mut hash, strict).map(|at| min + at);
        let found = found.or_else(|| {
            self.tables.scan(&data[normal.max(min)..end], &mut hash, loose).map(|at| normal.max(min) + at)
        });
        Some(found.unwrap_or(length))
    }
}

impl Tables {
    /// The first byte at which the hash has none of the bits of `mask`. `hash` is that of what comes before, and
    /// becomes that of all of it if there is none. The length is even.
    fn scan(&self, data: &[u8], hash: &mut u64, mask: u64) -> Option<usize> {
        let mut at = 0;
        while let Some((one, two)) = two_stretches(&data[at..]) {
            let (mut first, mut second) = (*hash, 0);
            for byte in &one[STRETCH - MEMORY..] {
                second = self.step(second, *byte);
            }
            for (pair, (a, b)) in one.as_chunks::<2>().0.iter().zip(two.as_chunks::<2>().0).enumerate() {
                let found = match self.pair(&mut first, *a, mask) {
                    Some(byte) => return Some(at + 2 * pair + byte),
                    None => self.pair(&mut second, *b, mask),
                };
                if let Some(byte) = found {
                    // What is left of the first place comes before it.
                    let rest = &one[2 * pair + 2..];
                    let earlier = self.plain(rest, &mut first, mask).map(|byte| 2 * pair + 2 + byte);
                    return Some(at + earlier.unwrap_or(STRETCH + 2 * pair + byte));
                }
            }
            *hash = second;
            at += 2 * STRETCH;
        }
        self.plain(&data[at..], hash, mask).map(|byte| at + byte)
    }

    fn plain(&self, data: &[u8], hash: &mut u64, mask: u64) -> Option<usize> {
        let pairs = data.as_chunks::<2>().0.iter().enumerate();
        pairs.into_iter().find_map(|(number, two)| Some(2 * number + self.pair(hash, *two, mask)?))
    }

    /// Hashes two bytes; tells which of them is one to cut at.
    #[inline]
    fn pair(&self, hash: &mut u64, [a, b]: [u8; 2], mask: u64) -> Option<usize> {
        *hash = (*hash << 2).wrapping_add(self.shifted[usize::from(a)]);
        if *hash & (mask << 1) == 0 {
            return Some(0);
        }
        *hash = hash.wrapping_add(self.gear[usize::from(b)]);
        if *hash & mask == 0 { Some(1) } else { None }
    }

    #[inline]
    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.gear[usize::from(byte)])
    }
}

fn two_stretches(data: &[u8]) -> Option<(&[u8; STRETCH], &[u8; STRETCH])> {
    let (one, rest) = data.split_first_chunk::<STRETCH>()?;
    Some((one, rest.first_chunk::<STRETCH>()?))
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
        for (sizes, golden) in [
            (ChunkBytes::default(), GOLDEN),
            (ChunkBytes { min: 16_384, avg: 65_536, max: 262_144 }, GOLDEN_LARGE),
        ] {
            assert_eq!(cuts(&chunker(sizes), &data(1 << 20)), golden, "{sizes:?}");
        }
    }

    const GOLDEN: &[usize] = &[
        49110, 33959, 36827, 36847, 39221, 36671, 44757, 49796, 37786, 48833, 46311, 55239, 38204, 72669,
        33487, 41739, 66069, 18856, 25258, 121749, 49172, 29038, 36978,
    ];
    const GOLDEN_LARGE: &[usize] =
        &[120688, 95221, 84251, 96330, 74267, 91853, 72747, 132168, 18856, 25258, 160384, 76553];

    /// Noise, text of few letters, and runs of one byte, of every parity of length.
    #[test]
    fn cuts_are_those_of_the_crate() {
        for (number, sizes) in [
            ChunkBytes::default(),
            ChunkBytes { min: 64, avg: 256, max: 1024 },
            ChunkBytes { min: 2_048, avg: 4_096, max: 8_192 },
            ChunkBytes { min: 4_100, avg: 8_192, max: 262_144 },
        ]
        .into_iter()
        .enumerate()
        {
            let ours = chunker(sizes);
            let (strict, loose) = select_masks(sizes.avg as usize, Normalization::Level1);
            assert_eq!(
                (strict | loose) >> MEMORY,
                0,
                "the masks look no higher than what the hash remembers"
            );
            let mut bytes = data(3_000_000 + number);
            bytes[500_000..1_200_000].iter_mut().for_each(|byte| *byte &= 3);
            bytes[1_900_000..2_300_001].fill(number as u8);
            let mut at = 0;
            while at < bytes.len() {
                let (min, avg, max) = (sizes.min as usize, sizes.avg as usize, sizes.max as usize);
                let (_, expected) = fastcdc::v2020::cut_gear(
                    &bytes[at..],
                    min,
                    avg,
                    max,
                    strict,
                    loose,
                    strict << 1,
                    loose << 1,
                    &ours.tables.gear,
                    &ours.tables.shifted,
                );
                assert_eq!(ours.next(&bytes[at..], true), Some(expected), "{sizes:?} at {at}");
                // Not only where cuts are: from everywhere, as far as time allows.
                at += expected.min(977);
            }
            for length in (0..5_000).step_by(7) {
                let expected = fastcdc::v2020::cut_gear(
                    &bytes[..length],
                    sizes.min as usize,
                    sizes.avg as usize,
                    sizes.max as usize,
                    strict,
                    loose,
                    strict << 1,
                    loose << 1,
                    &ours.tables.gear,
                    &ours.tables.shifted,
                );
                let found = ours.next(&bytes[..length], true).unwrap_or(0);
                assert_eq!(found, expected.1, "{sizes:?}, {length} bytes");
            }
        }
    }

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
