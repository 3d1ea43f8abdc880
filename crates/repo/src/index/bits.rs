//! Sets of numbers, for what is to be known of all packs or all places: one bit each.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Index;

/// A set of numbers below a bound (packs, or positions of places), one bit each, that many threads change.
pub(crate) struct Bits(Vec<AtomicU64>);

impl Bits {
    /// The empty set of numbers below `count`.
    pub(crate) fn none(count: usize) -> Bits {
        Bits((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// All numbers below `count`.
    pub(crate) fn all(count: usize) -> Bits {
        let bits = Bits::none(count);
        for (at, word) in bits.0.iter().enumerate() {
            let left = count - 64 * at;
            word.store(if left < 64 { (1 << left) - 1 } else { u64::MAX }, Ordering::Relaxed);
        }
        bits
    }

    pub(crate) fn insert(&self, number: usize) {
        if let Some(word) = self.0.get(number / 64) {
            let bit = 1 << (number % 64);
            // Reading first keeps the cache line shared: most are marked already.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn remove(&self, number: usize) {
        if let Some(word) = self.0.get(number / 64) {
            word.fetch_and(!(1 << (number % 64)), Ordering::Relaxed);
        }
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (number % 64) & 1 == 1)
    }

    /// Those in the set, ascending.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let word = word.load(Ordering::Relaxed);
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        })
    }
}

/// A set of packs by their numbers, which many threads add to.
pub(crate) struct PackSet(Bits);

impl PackSet {
    pub(crate) fn of(index: &Index) -> PackSet {
        PackSet(Bits::none(index.pack_count()))
    }

    pub(crate) fn insert(&self, number: u32) {
        self.0.insert(number as usize);
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.0.contains(number as usize)
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.numbers().map(|number| number as u32)
    }
}
