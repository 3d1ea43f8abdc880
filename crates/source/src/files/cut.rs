//! Cutting what was read into chunks without copying it.
//!
//! The cut points of a stream must not depend on how it came in, so a cut that only happened because
//! the bytes at hand ended is not one: that rest is carried over and put before the next bytes. FastCDC
//! looks at one byte after the other and stops at the first that fits, so a cut that leaves bytes behind
//! it has been decided by the bytes before it alone and is certain at once. (Bytes, not one byte: it looks
//! at them in pairs, and an odd last one is a case of its own.)

use bytes::Bytes;

use super::pool::{Buffer, HEAD};

/// What takes the chunks of a stream.
pub(super) trait Sink<E> {
    /// The next chunk.
    fn chunk(&mut self, chunk: Bytes) -> Result<(), E>;

    /// Asked before the stream is scanned for the next cut, `at` bytes from its beginning, with the bytes at hand;
    /// `last` says that they are all that follows. Who knows a chunk that begins here and sees that it still does
    /// takes it: the same bytes from the same start are cut at the same place, so there is nothing to look for. Who
    /// asks for more bytes can have as many as the longest chunk.
    fn known(&mut self, _at: u64, _rest: &[u8], _last: bool) -> Result<Known, E> {
        Ok(Known::No)
    }
}

/// What is known of the chunk that begins somewhere.
pub(super) enum Known {
    /// Nothing, or it is another one now.
    No,
    /// It may be known when there are more bytes.
    Later,
    /// It has been taken; so long it is.
    Taken(usize),
}

impl<E, F: FnMut(Bytes) -> Result<(), E>> Sink<E> for F {
    fn chunk(&mut self, chunk: Bytes) -> Result<(), E> {
        self(chunk)
    }
}

pub(super) struct Cutter {
    chunker: repo::Chunker,
    carry: Vec<u8>,
    /// Where in the stream what is carried begins.
    at: u64,
}

impl Cutter {
    pub fn new(chunker: repo::Chunker) -> Cutter {
        Cutter { chunker, carry: Vec::with_capacity(HEAD), at: 0 }
    }

    /// Takes the first `used` bytes of the buffer's body and hands on every chunk they complete.
    pub fn feed<E>(&mut self, buffer: Buffer, used: usize, sink: &mut impl Sink<E>) -> Result<(), E> {
        let mut buffer = buffer;
        if self.carry.len() + used < self.chunker.max() {
            // Too little to be worth a look: many small helpings would be looked at again and again.
            self.carry.extend_from_slice(&buffer.body()[..used]);
            return Ok(());
        }
        let mut rest = buffer.freeze(&self.carry, used);
        while !rest.is_empty() {
            let length = match sink.known(self.at, &rest, false)? {
                Known::Later => break,
                Known::Taken(length) => {
                    let _ = rest.split_to(length);
                    length
                }
                Known::No => {
                    let cut = self.chunker.next(&rest, true);
                    let certain = |length: &usize| *length == self.chunker.max() || length + 2 <= rest.len();
                    let Some(length) = cut.filter(certain) else { break };
                    sink.chunk(rest.split_to(length))?;
                    length
                }
            };
            self.at += length as u64;
        }
        self.carry.clear();
        self.carry.extend_from_slice(&rest);
        Ok(())
    }

    /// The stream ends here, or is to be cut here as if it did.
    pub fn finish<E>(&mut self, sink: &mut impl Sink<E>) -> Result<(), E> {
        let mut rest = Bytes::from(std::mem::take(&mut self.carry));
        while !rest.is_empty() {
            let length = match sink.known(self.at, &rest, true)? {
                Known::Taken(length) => {
                    let _ = rest.split_to(length);
                    length
                }
                _ => {
                    let Some(length) = self.chunker.next(&rest, true) else { break };
                    sink.chunk(rest.split_to(length))?;
                    length
                }
            };
            self.at += length as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use repo::{Env, InitOptions, Kdf, Passphrase, Repository, WriterOptions};

    use super::super::pool::{BODY, Pool};
    use super::*;

    fn chunker() -> repo::Chunker {
        let store = Arc::new(repo::store::mem::MemStore::new());
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let repo = Repository::init(store, &Passphrase::new("x"), &options, &Env::fixed(0, 1)).unwrap();
        repo.writer(WriterOptions::default()).unwrap().chunker()
    }

    /// Text, noise and zeros: cuts that are found, and cuts that are forced.
    fn content(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..length)
            .map(|at| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                match at / 700_000 % 3 {
                    0 => (state >> 60) as u8,
                    1 => (state >> 56) as u8,
                    _ => 0,
                }
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn cuts_do_not_depend_on_how_the_bytes_came_in(
            length in 0..4_000_000usize,
            helpings in prop::collection::vec(prop_oneof![1..2_000usize, 1..BODY, Just(BODY)], 1..40),
        ) {
            let (chunker, pool, bytes) = (chunker(), Pool::default(), content(length));
            let mut whole = Vec::new();
            let mut rest = bytes.as_slice();
            while let Some(cut) = chunker.next(rest, true) {
                whole.push(cut);
                rest = &rest[cut..];
            }
            let (mut cutter, mut cuts, mut at) = (Cutter::new(chunker), Vec::new(), 0);
            let mut emit = |chunk: Bytes| {
                let start: usize = cuts.iter().sum();
                assert!(chunk == bytes[start..start + chunk.len()]);
                cuts.push(chunk.len());
                Ok::<(), ()>(())
            };
            for helping in helpings.iter().cycle() {
                let part = &bytes[at..bytes.len().min(at + helping)];
                if part.is_empty() {
                    break;
                }
                let mut buffer = pool.take();
                buffer.body()[..part.len()].copy_from_slice(part);
                cutter.feed(buffer, part.len(), &mut emit).unwrap();
                at += part.len();
            }
            cutter.finish(&mut emit).unwrap();
            prop_assert_eq!(cuts, whole);
        }
    }
}
