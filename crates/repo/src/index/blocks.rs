//! Blocks of the index that were looked at last, opened, in a fixed amount of memory.
//!
//! The kernel caches the file, sealed; this saves opening the same block again. A block belongs to one small
//! set by its number, so threads seldom meet, and looking is a comparison of eight numbers.

use std::sync::{Arc, Mutex, PoisonError};

/// Blocks in a set.
const WAYS: usize = 8;
/// What a block takes in memory, with what the allocator adds.
const BLOCK_BYTES: usize = 4_096 + 96;

pub(crate) struct Blocks(Vec<Mutex<Vec<Cached>>>);

struct Cached {
    run: u64,
    number: u64,
    bytes: Arc<Vec<u8>>,
}

impl Blocks {
    /// In so many bytes.
    pub(crate) fn new(bytes: usize) -> Blocks {
        let sets = (bytes / (WAYS * BLOCK_BYTES)).max(1);
        Blocks((0..sets).map(|_| Mutex::default()).collect())
    }

    /// The block of this number of this run, loaded if it is not here.
    pub(crate) fn get<E>(
        &self,
        run: u64,
        number: u64,
        load: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Arc<Vec<u8>>, E> {
        // Neighbours lie in neighbouring sets; the runs begin at different ones.
        let set = number.wrapping_add(run.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % self.0.len() as u64;
        let lock = || self.0.get(set as usize).map(|set| set.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(mut set) = lock()
            && let Some(at) = set.iter().position(|one| (one.run, one.number) == (run, number))
        {
            set[..=at].rotate_right(1);
            return Ok(set[0].bytes.clone());
        }
        let bytes = Arc::new(load()?);
        if let Some(mut set) = lock() {
            set.truncate(WAYS - 1);
            set.insert(0, Cached { run, number, bytes: bytes.clone() });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_last_stays_and_the_memory_is_what_was_given() {
        let blocks = Blocks::new(1);
        let get = |number: u64| {
            let mut loaded = false;
            let bytes = blocks.get(7, number, || {
                loaded = true;
                Ok::<_, ()>(vec![number as u8])
            });
            assert_eq!(*bytes.unwrap(), [number as u8]);
            loaded
        };
        assert!((0..WAYS as u64).all(get), "each is loaded once");
        assert!(!(0..WAYS as u64).any(get), "and then it is there");
        assert!(get(100));
        assert!(get(0) && !get(100), "the one not used for longest went");
        assert_eq!(blocks.0.iter().map(|set| set.lock().unwrap().len()).sum::<usize>(), WAYS);
        assert!(blocks.get(8, 100, || Err(())).is_err(), "of another run");
    }
}
