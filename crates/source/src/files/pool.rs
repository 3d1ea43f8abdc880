//! Buffers that are read into once and then shared in slices, without copying and without asking the
//! kernel for fresh pages each time.
//!
//! A buffer has room at its front ([`HEAD`]): what the last cut left over is put there, so that it lies
//! before the bytes that follow it. The bytes that are read lie aligned, so that they can come from the disk itself
//! (`cold.rs`).

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::direct::BLOCK;

/// Room for what is left over: as long as the longest chunk.
pub(super) const HEAD: usize = repo::object::CHUNK_BYTES_MAX;
/// Room for what is read.
pub(super) const BODY: usize = 1024 * 1024;
const _: () = assert!(HEAD.is_multiple_of(BLOCK) && BODY.is_multiple_of(BLOCK));

/// Idle buffers.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// One buffer in use; it goes back to its pool when the last slice of it is gone.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where the room at the front begins.
    start: usize,
    pool: Pool,
}

impl Pool {
    pub fn take(&self) -> Buffer {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = idle.unwrap_or_else(|| vec![0; HEAD + BODY + BLOCK]);
        let start = bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
        Buffer { bytes, start, pool: self.clone() }
    }
}

impl Buffer {
    /// Where to read to.
    pub fn body(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start + HEAD..][..BODY]
    }

    /// `carry`, followed by the first `used` bytes of the body, to be sliced.
    pub fn freeze(mut self, carry: &[u8], used: usize) -> Bytes {
        let start = HEAD - carry.len();
        self.bytes[self.start + start..self.start + HEAD].copy_from_slice(carry);
        Bytes::from_owner(self).slice(start..HEAD + used)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..][..HEAD + BODY]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}
