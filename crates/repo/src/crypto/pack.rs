//! The keys of one pack: what seals it, what opens it.
//!
//! A pack is sealed to the public read key by a fresh pair. What comes of both is its key, 32 bytes ([`PackKey`]): whoever
//! wrote the pack had it, and whoever has the read key derives it again. It opens this pack's chunks and nothing else,
//! because no other pack has the same fresh pair; so it can be handed to who has no read key.

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{PACK_HEADER_LEN, PUBLIC_LEN, TAG_LEN, cipher, seal_separate};
use crate::error::Error;

/// How packs begin.
pub(crate) const PACK_MAGIC: &[u8; 8] = b"HFPACK01";

/// What opens the chunks of one pack. Wiped when dropped; never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PackKey([u8; 32]);

impl std::fmt::Debug for PackKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PackKey(…)")
    }
}

impl PackKey {
    /// From the bytes of one.
    pub fn from_bytes(bytes: &[u8; 32]) -> PackKey {
        PackKey(*bytes)
    }

    /// The bytes. Whoever has them reads the pack.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Seals the chunks and the directory of one pack.
pub(crate) struct PackSealer {
    header: [u8; PACK_HEADER_LEN],
    key: PackKey,
    chunks: LessSafeKey,
    directory: LessSafeKey,
}

impl PackSealer {
    pub(super) fn new(
        kind: u8,
        public: &[u8; PUBLIC_LEN],
        key: PackKey,
        directory: impl FnOnce(&[u8; PACK_HEADER_LEN]) -> Result<LessSafeKey, Error>,
    ) -> Result<PackSealer, Error> {
        let mut header = [0; PACK_HEADER_LEN];
        header[..8].copy_from_slice(PACK_MAGIC);
        header[8] = kind;
        header[16..].copy_from_slice(public);
        Ok(PackSealer { chunks: cipher(&key.0)?, directory: directory(&header)?, key, header })
    }

    /// The header that the pack begins with.
    pub(crate) fn header(&self) -> &[u8; PACK_HEADER_LEN] {
        &self.header
    }

    /// What opens the pack again.
    pub(crate) fn key(&self) -> &PackKey {
        &self.key
    }

    /// Seals what lies at `offset` of the pack; the tag goes behind it. An offset must be used once.
    pub(crate) fn seal_chunk(&self, offset: u32, bytes: &mut [u8]) -> Result<[u8; TAG_LEN], Error> {
        seal_separate(&self.chunks, chunk_nonce(offset), &self.header, bytes)
    }

    /// Seals the directory; the tag goes behind it.
    pub(crate) fn seal_directory(&self, bytes: &mut [u8]) -> Result<[u8; TAG_LEN], Error> {
        seal_separate(&self.directory, [0; NONCE_LEN], &self.header, bytes)
    }
}

/// Opens the chunks of one pack.
pub(crate) struct PackOpener {
    header: [u8; PACK_HEADER_LEN],
    key: LessSafeKey,
}

impl PackOpener {
    /// Of the pack with this header.
    pub(crate) fn new(header: &[u8; PACK_HEADER_LEN], key: &PackKey) -> Result<PackOpener, Error> {
        Ok(PackOpener { header: *header, key: cipher(&key.0)? })
    }

    /// Opens the chunk sealed at `offset` into `out`; `false` if it was changed or moved.
    pub(crate) fn open_chunk(&self, offset: u32, sealed: &[u8], out: &mut Vec<u8>) -> bool {
        let Some((ciphertext, tag)) = sealed.split_last_chunk::<TAG_LEN>() else {
            return false;
        };
        out.resize(ciphertext.len(), 0);
        let nonce = Nonce::assume_unique_for_key(chunk_nonce(offset));
        self.key.open_separate_gather(nonce, Aad::from(&self.header), ciphertext, tag, out).is_ok()
    }
}

fn chunk_nonce(offset: u32) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&u64::from(offset).to_le_bytes());
    nonce
}
