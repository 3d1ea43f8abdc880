//! How hard new chunks are compressed: as hard as the store leaves time for.
//!
//! As long as packs leave as fast as they fill, time is what counts, and chunks are compressed once, at the level the
//! writer was told. When every buffer is on its way to the store the workers would only wait. Then a chunk is compressed a
//! second time, harder, and the shorter of the two is kept: it is never longer for it, and the store has less to take.
//!
//! Whether that gains anything depends on the content: text shrinks by an eighth, a database's pages not at all
//! (docs/performance.md). So the gain is counted, and while it is small only one chunk in sixteen is tried: processors that
//! this writer does not need belong to somebody else.
//!
//! The level is nobody's promise: every reader reads every level.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The level of the second time. Those between 2 and this one make database pages longer, and those above gain
/// little for much.
pub(crate) const HARDER: i32 = 6;
/// One chunk in so many is tried although it gains little.
const SELDOM: u64 = 16;
/// A gain below so many per cent is little.
const LITTLE: u64 = 3;
/// What was tried counts half as soon as so many bytes were: content changes.
const MEMORY: u64 = 4 << 20;
/// Before so many bytes were tried nothing is known.
const KNOWN: u64 = 256 << 10;

/// What the workers of a writer know of how the store keeps up, and of what more effort gains.
#[derive(Debug, Default)]
pub(crate) struct Effort {
    /// The store is behind.
    waits: AtomicBool,
    /// Chunks since anything was tried.
    skipped: AtomicU64,
    /// Bytes at the first try, of chunks that were tried again ...
    first: AtomicU64,
    /// ... and at the second.
    second: AtomicU64,
}

impl Effort {
    /// A pack is begun; `waited`: there was no room for it, because all others were on their way to the store.
    pub(crate) fn begin_pack(&self, waited: bool) {
        self.waits.store(waited, Ordering::Relaxed);
    }

    /// Whether the next chunk is to be tried a second time.
    pub(crate) fn tries(&self) -> bool {
        if !self.waits.load(Ordering::Relaxed) {
            return false;
        }
        let (first, second) = (self.first.load(Ordering::Relaxed), self.second.load(Ordering::Relaxed));
        if first < KNOWN || first.saturating_sub(second) * 100 >= first * LITTLE {
            return true;
        }
        self.skipped.fetch_add(1, Ordering::Relaxed) % SELDOM == SELDOM - 1
    }

    /// What came of it: bytes at the first try, and at the better of the two.
    pub(crate) fn tell(&self, first: usize, better: usize) {
        let sum = self.first.fetch_add(first as u64, Ordering::Relaxed) + first as u64;
        self.second.fetch_add(better as u64, Ordering::Relaxed);
        if sum > MEMORY {
            // Threads that meet here lose a chunk or two of the account, which is no matter.
            self.first.store(sum / 2, Ordering::Relaxed);
            self.second.store(self.second.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a hundred chunks of 32 KiB are tried, each of which shrinks to so many per cent.
    fn tried(effort: &Effort, per_cent: usize) -> usize {
        let tries = (0..100).filter(|_| {
            let tries = effort.tries();
            if tries {
                effort.tell(32 << 10, (32 << 10) * per_cent / 100);
            }
            tries
        });
        tries.count()
    }

    #[test]
    fn more_effort_is_made_while_the_store_is_behind_and_it_pays() {
        let effort = Effort::default();
        assert_eq!(tried(&effort, 80), 0, "the store keeps up");
        effort.begin_pack(true);
        assert_eq!(tried(&effort, 88), 100);
        effort.begin_pack(false);
        assert_eq!(tried(&effort, 88), 0);
        effort.begin_pack(true);
        // Then content comes that gains nothing: after some of it, one in sixteen is tried ...
        let seldom = (0..10).map(|_| tried(&effort, 100)).last().unwrap();
        assert!((5..=8).contains(&seldom), "{seldom}");
        // ... until it gains again.
        let often = (0..20).map(|_| tried(&effort, 80)).last().unwrap();
        assert_eq!(often, 100);
    }
}
