//! Cutting what was read into chunks without copying it.
//!
//! The cut points of a stream must not depend on how it came in, so a cut that only happened because
//! the bytes at hand ended is not one: that rest is carried over and put before the next bytes. FastCDC
//! looks at one byte after the other and stops at the first that fits, so a cut that leaves bytes behind
//! it has been decided by the bytes before it alone and is certain at once. (Bytes, not one byte: it looks
//! at them in pairs, and an odd last one is a case of its own.)

use bytes::Bytes;

use super::pool::{Buffer, HEAD};

pub(super) struct Cutter {
    chunker: repo::Chunker,
    carry: Vec<u8>,
}

impl Cutter {
    pub fn new(chunker: repo::Chunker) -> Cutter {
        Cutter { chunker, carry: Vec::with_capacity(HEAD) }
    }

    /// Takes the first `used` bytes of the buffer's body and hands on every chunk they complete.
    pub fn feed<E>(
        &mut self,
        buffer: Buffer,
        used: usize,
        emit: &mut impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = buffer;
        if self.carry.len() + used < self.chunker.max() {
            // Too little to be worth a look: many small helpings would be looked at again and again.
            self.carry.extend_from_slice(&buffer.body()[..used]);
            return Ok(());
        }
        let mut rest = buffer.freeze(&self.carry, used);
        while let Some(length) = self.chunker.next(&rest, true) {
            if length < self.chunker.max() && length + 2 > rest.len() {
                break;
            }
            emit(rest.split_to(length))?;
        }
        self.carry.clear();
        self.carry.extend_from_slice(&rest);
        Ok(())
    }

    /// The stream ends here.
    pub fn finish<E>(&mut self, emit: &mut impl FnMut(Bytes) -> Result<(), E>) -> Result<(), E> {
        let mut rest = Bytes::from(std::mem::take(&mut self.carry));
        while let Some(length) = self.chunker.next(&rest, true) {
            emit(rest.split_to(length))?;
        }
        Ok(())
    }
}
