//! The filter in front of the index: answers «not here» for most chunks that are not, without a look at
//! the disk.
//!
//! A blocked Bloom filter: ten bits a chunk, all bits of one chunk in one block of 64 bytes. The ids are
//! keyed hashes already, so their own bits say which. The block comes from the first bits of the id, so the
//! filter lies in the order of the chunks: it is written in one pass beside them, with no memory that grows,
//! and read page by page as it is asked.

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64;
/// Bits for each chunk.
const BITS: u64 = 10;
/// How many of them a chunk sets, at most.
const PROBES: u32 = 6;

/// How many blocks serve so many chunks.
pub(crate) fn blocks_for(chunks: u64) -> u64 {
    (chunks * BITS).div_ceil(BLOCK as u64 * 8).max(1)
}

/// Which block a chunk belongs to; ascends with the first half of its id.
pub(crate) fn block_of(high: u64, blocks: u64) -> u64 {
    ((u128::from(high) * u128::from(blocks)) >> 64) as u64
}

/// The bits of a chunk in its block.
fn bits(low: u64) -> impl Iterator<Item = (usize, u8)> {
    (0..PROBES).map(move |probe| {
        let bit = (low >> (9 * probe)) as usize & 0x1ff;
        (bit / 8, 1 << (bit % 8))
    })
}

/// Marks a chunk in its block.
pub(crate) fn insert(block: &mut [u8], low: u64) {
    for (at, bit) in bits(low) {
        if let Some(byte) = block.get_mut(at) {
            *byte |= bit;
        }
    }
}

/// Whether the chunk can be among those marked.
pub(crate) fn may_hold(block: &[u8], low: u64) -> bool {
    bits(low).all(|(at, bit)| block.get(at).is_none_or(|byte| byte & bit != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_that_is_there_is_denied_and_few_that_are_not_are_suspected() {
        let id = |number: u64| {
            let hash = *blake3::hash(&number.to_le_bytes()).as_bytes();
            let [high, low, ..] = hash.as_chunks::<8>().0 else { unreachable!() };
            (u64::from_be_bytes(*high), u64::from_be_bytes(*low))
        };
        let chunks = 100_000;
        let blocks = blocks_for(chunks);
        let mut bytes = vec![0; blocks as usize * BLOCK];
        let range = |high| {
            let at = block_of(high, blocks) as usize * BLOCK;
            at..at + BLOCK
        };
        for number in 0..chunks {
            let (high, low) = id(number);
            insert(&mut bytes[range(high)], low);
        }
        let held = |number| {
            let (high, low) = id(number);
            may_hold(&bytes[range(high)], low)
        };
        assert!((0..chunks).all(held));
        let suspected = (chunks..2 * chunks).filter(|number| held(*number)).count();
        assert!(suspected < 2_500, "{suspected} of {chunks}");
        assert_eq!((block_of(0, blocks), block_of(u64::MAX, blocks)), (0, blocks - 1));
    }
}
