//! The secrets of a repository and all that is done with them: the only file that sees one. (What opens them is in
//! `secret.rs`, how they are wrapped in `keys.rs`; the keys of single packs are in `crypto/pack.rs`.)
//!
//! | secret | for |
//! |---|---|
//! | `id_key` | chunk ids (R4: without it, an id says nothing about content) |
//! | `chunker_key` | the gear table |
//! | `index_key` | index segments and pack directories |
//! | `commit_key` | the MAC of commits |
//! | `list` pair | summaries of commits |
//! | `read` pair | chunks, and the roots of commits |
//!
//! A key object holds the secrets of one capability (R5). Data is sealed to a public key, so that who may
//! put cannot read back what others wrote. Rotation wraps the same secrets again; no data is
//! ever encrypted anew.

mod pack;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{agreement, hkdf};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::cbor::{Decoder, Encoder};
use crate::env::Env;
use crate::error::Error;
use crate::id::ChunkId;
use crate::object::Capability;

pub use pack::PackKey;
pub(crate) use pack::{PACK_MAGIC, PackOpener, PackSealer};

/// Bytes an authenticated encryption adds.
pub(crate) const TAG_LEN: usize = 16;
/// Bytes of a public key.
pub(crate) const PUBLIC_LEN: usize = 32;
/// Bytes of a pack header.
pub(crate) const PACK_HEADER_LEN: usize = 48;

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Secret([u8; 32]);

impl Secret {
    fn random(env: &Env) -> Result<Secret, Error> {
        let mut secret = Secret([0; 32]);
        env.random(&mut secret.0)?;
        Ok(secret)
    }

    fn public(&self) -> Result<[u8; PUBLIC_LEN], Error> {
        let private = private_key(&self.0)?;
        let public = private.compute_public_key().map_err(|_| Error::failed("X25519 gave no public key"))?;
        public.as_ref().try_into().map_err(|_| Error::failed("X25519 gave a public key of another length"))
    }
}

/// The secrets one key object holds.
#[derive(Clone)]
pub(crate) struct Keys {
    capability: Capability,
    id_key: Option<Secret>,
    chunker_key: Option<Secret>,
    index_key: Secret,
    commit_key: Secret,
    list_public: [u8; PUBLIC_LEN],
    list_secret: Option<Secret>,
    read_public: [u8; PUBLIC_LEN],
    read_secret: Option<Secret>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.capability)
    }
}

impl Keys {
    /// The secrets of a new repository.
    pub(crate) fn generate(env: &Env) -> Result<Keys, Error> {
        let (list_secret, read_secret) = (Secret::random(env)?, Secret::random(env)?);
        Ok(Keys {
            capability: Capability::Read,
            id_key: Some(Secret::random(env)?),
            chunker_key: Some(Secret::random(env)?),
            index_key: Secret::random(env)?,
            commit_key: Secret::random(env)?,
            list_public: list_secret.public()?,
            list_secret: Some(list_secret),
            read_public: read_secret.public()?,
            read_secret: Some(read_secret),
        })
    }

    pub(crate) fn capability(&self) -> Capability {
        self.capability
    }

    fn not_permitted(&self, needed: Capability) -> Error {
        Error::NotPermitted { needed, held: self.capability }
    }

    /// The part of these secrets that `capability` is made of.
    pub(crate) fn restrict(&self, capability: Capability) -> Result<Keys, Error> {
        if self.capability != Capability::Read && self.capability != capability {
            return Err(self.not_permitted(capability));
        }
        let mut keys = self.clone();
        keys.capability = capability;
        if capability != Capability::Read {
            keys.read_secret = None;
        }
        if capability == Capability::Put {
            keys.list_secret = None;
        }
        if capability == Capability::List {
            keys.id_key = None;
            keys.chunker_key = None;
        }
        Ok(keys)
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let own = [&self.id_key, &self.chunker_key, &self.list_secret, &self.read_secret];
        // As long as a bundle gets, so that no copy of the secrets is left behind by a reallocation.
        let mut e = Encoder::with_capacity(320);
        e.map(5 + own.iter().filter(|secret| secret.is_some()).count());
        e.uint(0).uint(match self.capability {
            Capability::Put => 1,
            Capability::List => 2,
            Capability::Read => 3,
        });
        let fields = [
            (1, self.id_key.as_ref().map(|secret| &secret.0)),
            (2, self.chunker_key.as_ref().map(|secret| &secret.0)),
            (3, Some(&self.index_key.0)),
            (4, Some(&self.commit_key.0)),
            (5, Some(&self.list_public)),
            (6, self.list_secret.as_ref().map(|secret| &secret.0)),
            (7, Some(&self.read_public)),
            (8, self.read_secret.as_ref().map(|secret| &secret.0)),
        ];
        for (key, bytes) in fields {
            if let Some(bytes) = bytes {
                e.uint(key).bytes(bytes);
            }
        }
        Zeroizing::new(e.finish())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Keys, String> {
        let mut d = Decoder::new(bytes);
        let mut claimed = 0;
        let mut found: [Option<Secret>; 8] = Default::default();
        d.fields(|key, d| {
            match key {
                0 => claimed = d.uint()?,
                1..=8 => {
                    let bytes: Option<[u8; 32]> = d.bytes()?.try_into().ok();
                    found[key as usize - 1] = bytes.map(Secret);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })
        .and_then(|()| d.end())
        .map_err(crate::cbor::Broken::what)?;
        let [id, chunker, Some(index), Some(commit), Some(list_public), list, Some(read_public), read] =
            found
        else {
            return Err("a bundle that lacks a secret".into());
        };
        // The secrets decide what a bundle grants, not what it says; if they differ, something is wrong.
        let capability = match (id.is_some() && chunker.is_some(), list.is_some(), read.is_some()) {
            (true, true, true) if claimed == 3 => Capability::Read,
            (true, false, false) if claimed == 1 => Capability::Put,
            (false, true, false) if claimed == 2 && id.is_none() && chunker.is_none() => Capability::List,
            _ => return Err("a bundle whose secrets make no capability".into()),
        };
        for (secret, public) in [(&list, &list_public), (&read, &read_public)] {
            if let Some(secret) = secret
                && secret.public().map_err(|error| error.to_string())? != public.0
            {
                return Err("a bundle whose public key does not belong to its secret".into());
            }
        }
        Ok(Keys {
            capability,
            id_key: id,
            chunker_key: chunker,
            index_key: index,
            commit_key: commit,
            list_public: list_public.0,
            list_secret: list,
            read_public: read_public.0,
            read_secret: read,
        })
    }

    /// The bundle of these secrets under a wrapping key. `header` is the bytes of `holdfast.json`: bound in, so that a
    /// changed header opens no key.
    pub(crate) fn wrap(
        &self,
        wrapping: &[u8; 32],
        nonce: [u8; NONCE_LEN],
        header: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let plain = self.encode();
        // Room for the tag, so that no copy of the secrets is left behind by a reallocation.
        let mut bundle = Vec::with_capacity(plain.len() + TAG_LEN);
        bundle.extend_from_slice(&plain);
        seal_in_place(&cipher(wrapping)?, nonce, &bundle_aad(header, self.capability), &mut bundle)?;
        Ok(bundle)
    }

    /// Opens a wrapped bundle; `Ok(None)` if this wrapping key (or header) is not the one.
    pub(crate) fn unwrap(
        wrapping: &[u8; 32],
        nonce: [u8; NONCE_LEN],
        bundle: &[u8],
        capability: Capability,
        header: &[u8],
    ) -> Result<Option<Keys>, String> {
        let key = cipher(wrapping).map_err(|error| error.to_string())?;
        let mut bundle = Zeroizing::new(bundle.to_vec());
        let Some(plain) = open_in_place(&key, nonce, &bundle_aad(header, capability), &mut bundle) else {
            return Ok(None);
        };
        let keys = Keys::decode(plain)?;
        if keys.capability == capability {
            Ok(Some(keys))
        } else {
            Err("a key object that names another capability than its secrets make".into())
        }
    }

    /// Fresh secrets that name and cut chunks as `other` does, which needs its put or read key.
    pub(crate) fn generate_like(other: &Keys, env: &Env) -> Result<Keys, Error> {
        let needed = || other.not_permitted(Capability::Put);
        let mut keys = Keys::generate(env)?;
        keys.id_key = Some(other.id_key.clone().ok_or_else(needed)?);
        keys.chunker_key = Some(other.chunker_key.clone().ok_or_else(needed)?);
        Ok(keys)
    }

    /// Whether both name the same chunk the same.
    pub(crate) fn names_like(&self, other: &Keys) -> bool {
        // Hashes are compared in constant time.
        let hash = |keys: &Keys| keys.id_key.as_ref().map(|secret| blake3::hash(&secret.0));
        hash(self).is_some_and(|own| Some(own) == hash(other))
    }

    /// What makes chunk ids; put and read keys have it.
    pub(crate) fn chunk_ids(&self) -> Result<ChunkIds, Error> {
        let secret = self.id_key.clone();
        secret.map(ChunkIds).ok_or_else(|| self.not_permitted(Capability::Put))
    }

    /// The table of the chunker; put and read keys have it.
    pub(crate) fn gear(&self) -> Result<Zeroizing<[u64; 256]>, Error> {
        let secret = self.chunker_key.as_ref().ok_or_else(|| self.not_permitted(Capability::Put))?;
        let mut bytes = Zeroizing::new([0; 2048]);
        let mut hasher = blake3::Hasher::new_keyed(&secret.0);
        hasher.update(b"holdfast v1 gear").finalize_xof().fill(bytes.as_mut_slice());
        let mut gear = Zeroizing::new([0; 256]);
        for (value, eight) in gear.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *value = u64::from_le_bytes(*eight);
        }
        Ok(gear)
    }

    /// What seals a new pack; every key has it (all know the public read key).
    pub(crate) fn pack_sealer(&self, kind: u8, env: &Env) -> Result<PackSealer, Error> {
        let (public, key) = seal_to(&self.read_public, "pack", env)?;
        PackSealer::new(kind, &public, PackKey::from_bytes(&key), |header| self.directory_cipher(header))
    }

    /// What opens the chunks of the pack with this header; read keys only.
    pub(crate) fn pack_opener(&self, header: &[u8; PACK_HEADER_LEN]) -> Result<PackOpener, Error> {
        PackOpener::new(header, &self.pack_key(header)?)
    }

    /// The key of the pack with this header, to be handed to somebody else; read keys only.
    pub(crate) fn pack_key(&self, header: &[u8; PACK_HEADER_LEN]) -> Result<PackKey, Error> {
        let secret = self.read_secret.as_ref().ok_or_else(|| self.not_permitted(Capability::Read))?;
        let (_, public) = header.split_last_chunk::<PUBLIC_LEN>().unwrap_or((&[], &[0; PUBLIC_LEN]));
        Ok(PackKey::from_bytes(&*open_from(secret, &self.read_public, public, "pack")?))
    }

    fn directory_cipher(&self, header: &[u8; PACK_HEADER_LEN]) -> Result<LessSafeKey, Error> {
        cipher(&*hkdf(&header[16..], &self.index_key.0, "directory")?)
    }

    /// Opens the directory of a pack; `None` if it was changed.
    pub(crate) fn open_directory(
        &self,
        header: &[u8; PACK_HEADER_LEN],
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes = sealed.to_vec();
        let key = self.directory_cipher(header)?;
        let opened = open_in_place(&key, [0; NONCE_LEN], header, &mut bytes).map(|plain| plain.len());
        Ok(opened.map(|len| {
            bytes.truncate(len);
            bytes
        }))
    }

    /// An index segment around `body`.
    pub(crate) fn seal_segment(&self, body: &[u8], env: &Env) -> Result<Vec<u8>, Error> {
        let mut salt = [0; 32];
        env.random(&mut salt)?;
        let mut bytes = Vec::with_capacity(SEGMENT_PREFIX_LEN + body.len() + TAG_LEN);
        bytes.extend_from_slice(SEGMENT_MAGIC);
        bytes.extend_from_slice(&salt);
        bytes.extend_from_slice(body);
        let key = cipher(&*hkdf(&salt, &self.index_key.0, "index")?)?;
        let (prefix, body) = bytes.split_at_mut(SEGMENT_PREFIX_LEN);
        let tag = seal_separate(&key, [0; NONCE_LEN], prefix, body)?;
        bytes.extend_from_slice(&tag);
        Ok(bytes)
    }

    /// The body of an index segment, opened where it lies.
    pub(crate) fn open_segment<'b>(&self, bytes: &'b mut [u8]) -> Result<&'b [u8], String> {
        let Some((prefix, sealed)) = bytes.split_at_mut_checked(SEGMENT_PREFIX_LEN) else {
            return Err("it is too short".into());
        };
        let Some(salt) = prefix.strip_prefix(SEGMENT_MAGIC) else {
            return Err("it does not begin as an index segment".into());
        };
        let key = hkdf(salt, &self.index_key.0, "index").and_then(|key| cipher(&key));
        let key = key.map_err(|error| error.to_string())?;
        match open_in_place(&key, [0; NONCE_LEN], prefix, sealed) {
            Some(body) => Ok(body),
            None => Err("its authentication tag does not fit".into()),
        }
    }

    /// A note of what was checked, around `body`; list and read keys only, so that who may put cannot claim that
    /// all has been read.
    pub(crate) fn seal_check(&self, body: &[u8], env: &Env) -> Result<Vec<u8>, Error> {
        let secret = self.list_secret.as_ref().ok_or_else(|| self.not_permitted(Capability::List))?;
        let mut salt = [0; 32];
        env.random(&mut salt)?;
        let mut bytes = [CHECK_MAGIC.as_slice(), &salt, body].concat();
        let key = cipher(&*hkdf(&salt, &secret.0, "check")?)?;
        let (prefix, body) = bytes.split_at_mut(SEGMENT_PREFIX_LEN);
        let tag = seal_separate(&key, [0; NONCE_LEN], prefix, body)?;
        bytes.extend_from_slice(&tag);
        Ok(bytes)
    }

    /// Its inverse; `None` if the bytes are not what was written.
    pub(crate) fn open_check(&self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let secret = self.list_secret.as_ref().ok_or_else(|| self.not_permitted(Capability::List))?;
        let Some((prefix, sealed)) = bytes.split_at_checked(SEGMENT_PREFIX_LEN) else { return Ok(None) };
        let Some(salt) = prefix.strip_prefix(CHECK_MAGIC) else { return Ok(None) };
        let key = cipher(&*hkdf(salt, &secret.0, "check")?)?;
        let mut body = sealed.to_vec();
        Ok(open_in_place(&key, [0; NONCE_LEN], prefix, &mut body).map(<[u8]>::to_vec))
    }

    /// What seals what this machine keeps of the index. Every key has it.
    pub(crate) fn index_cache(&self, salt: &[u8; 32]) -> Result<CacheCipher, Error> {
        Ok(CacheCipher(cipher(&*hkdf(salt, &self.index_key.0, "cached index")?)?))
    }

    /// What seals what this machine keeps of the summaries of commits; list and read keys have it.
    pub(crate) fn commit_cache(&self, salt: &[u8; 32]) -> Result<CacheCipher, Error> {
        let secret = self.list_secret.as_ref().ok_or_else(|| self.not_permitted(Capability::List))?;
        Ok(CacheCipher(cipher(&*hkdf(salt, &secret.0, "cached commits")?)?))
    }

    /// What seals the pack keys that a writer keeps on its own disk; put and read keys have it, list keys have not.
    pub(crate) fn kept_pack_keys(&self, salt: &[u8; 32]) -> Result<CacheCipher, Error> {
        let secret = self.id_key.as_ref().ok_or_else(|| self.not_permitted(Capability::Put))?;
        Ok(CacheCipher(cipher(&*hkdf(salt, &secret.0, "kept pack keys")?)?))
    }

    /// A small object for everybody who may see the index: a lease, a mark, a verdict.
    pub(crate) fn seal_note(
        &self,
        magic: &[u8; 8],
        info: &str,
        body: &[u8],
        env: &Env,
    ) -> Result<Vec<u8>, Error> {
        let mut salt = [0; 32];
        env.random(&mut salt)?;
        let mut bytes = [magic.as_slice(), &salt, body].concat();
        let key = cipher(&*hkdf(&salt, &self.index_key.0, info)?)?;
        let (prefix, body) = bytes.split_at_mut(SEGMENT_PREFIX_LEN);
        let tag = seal_separate(&key, [0; NONCE_LEN], prefix, body)?;
        bytes.extend_from_slice(&tag);
        Ok(bytes)
    }

    /// Its inverse, opened where it lies.
    pub(crate) fn open_note<'b>(
        &self,
        magic: &[u8; 8],
        info: &str,
        bytes: &'b mut [u8],
    ) -> Result<&'b [u8], String> {
        let Some((prefix, sealed)) = bytes.split_at_mut_checked(SEGMENT_PREFIX_LEN) else {
            return Err("it is too short".into());
        };
        let Some(salt) = prefix.strip_prefix(magic) else {
            return Err("it does not begin as what its name says".into());
        };
        let key = hkdf(salt, &self.index_key.0, info).and_then(|key| cipher(&key));
        let key = key.map_err(|error| error.to_string())?;
        match open_in_place(&key, [0; NONCE_LEN], prefix, sealed) {
            Some(body) => Ok(body),
            None => Err("its authentication tag does not fit".into()),
        }
    }

    /// `e_public ‖ ciphertext ‖ tag` of a commit's summary, for list keys.
    pub(crate) fn seal_summary(&self, aad: &[u8], plain: &[u8], env: &Env) -> Result<Vec<u8>, Error> {
        seal_message(&self.list_public, "summary", aad, plain, env)
    }

    /// Its inverse.
    pub(crate) fn open_summary(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let secret = self.list_secret.as_ref().ok_or_else(|| self.not_permitted(Capability::List))?;
        open_message(secret, &self.list_public, "summary", aad, sealed)
    }

    /// `e_public ‖ ciphertext ‖ tag` of a commit's root, for read keys.
    pub(crate) fn seal_root(&self, aad: &[u8], plain: &[u8], env: &Env) -> Result<Vec<u8>, Error> {
        seal_message(&self.read_public, "root", aad, plain, env)
    }

    /// Its inverse.
    pub(crate) fn open_root(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let secret = self.read_secret.as_ref().ok_or_else(|| self.not_permitted(Capability::Read))?;
        open_message(secret, &self.read_public, "root", aad, sealed)
    }

    /// `e_public ‖ ciphertext ‖ tag` of a hold, for list keys. Every key can make one.
    pub(crate) fn seal_hold(&self, aad: &[u8], plain: &[u8], env: &Env) -> Result<Vec<u8>, Error> {
        seal_message(&self.list_public, "hold", aad, plain, env)
    }

    /// Its inverse.
    pub(crate) fn open_hold(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let secret = self.list_secret.as_ref().ok_or_else(|| self.not_permitted(Capability::List))?;
        open_message(secret, &self.list_public, "hold", aad, sealed)
    }

    /// The MAC of a commit or a hold, which begin differently. Compare it as it is: `blake3::Hash` compares in constant time.
    pub(crate) fn commit_mac(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.commit_key.0, bytes)
    }
}

/// Seals what this machine keeps, in numbered parts. Made from a fresh salt for each file, so that no nonce
/// repeats.
pub(crate) struct CacheCipher(LessSafeKey);

impl CacheCipher {
    fn nonce(kind: u32, number: u64) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&kind.to_le_bytes());
        nonce[4..].copy_from_slice(&number.to_le_bytes());
        nonce
    }

    /// Seals a part; the tag goes behind it. A part must be sealed once.
    pub(crate) fn seal(&self, kind: u32, number: u64, bytes: &mut Vec<u8>) -> Result<(), Error> {
        seal_in_place(&self.0, Self::nonce(kind, number), b"", bytes)
    }

    /// Opens a part where it lies; `false` if it is not what was sealed under this number.
    pub(crate) fn open(&self, kind: u32, number: u64, bytes: &mut Vec<u8>) -> bool {
        let opened = open_in_place(&self.0, Self::nonce(kind, number), b"", bytes).map(|plain| plain.len());
        bytes.truncate(opened.unwrap_or(0));
        opened.is_some()
    }
}

/// A message did not open.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The key for it is not here.
    Refused(Error),
    /// It was changed.
    Changed,
}

impl From<Error> for OpenError {
    fn from(error: Error) -> OpenError {
        OpenError::Refused(error)
    }
}

/// Makes chunk ids.
#[derive(Clone)]
pub(crate) struct ChunkIds(Secret);

impl ChunkIds {
    pub(crate) fn id(&self, plain: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.0.0, plain).as_bytes())
    }
}

impl std::fmt::Debug for ChunkIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChunkIds(…)")
    }
}

const CHECK_MAGIC: &[u8; 8] = b"HFCHCK01";
const SEGMENT_MAGIC: &[u8; 8] = b"HFINDX01";
const SEGMENT_PREFIX_LEN: usize = 40;

fn bundle_aad(header: &[u8], capability: Capability) -> Vec<u8> {
    [blake3::hash(header).as_bytes(), capability.as_str().as_bytes()].concat()
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, Error> {
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Error::failed("AES-256-GCM took no key"))?;
    Ok(LessSafeKey::new(key))
}

fn seal_separate(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    bytes: &mut [u8],
) -> Result<[u8; TAG_LEN], Error> {
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), bytes)
        .map_err(|_| Error::failed("AES-256-GCM did not encrypt"))?;
    tag.as_ref().try_into().map_err(|_| Error::failed("AES-256-GCM gave a tag of another length"))
}

fn seal_in_place(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    bytes: &mut Vec<u8>,
) -> Result<(), Error> {
    let tag = seal_separate(key, nonce, aad, bytes)?;
    bytes.extend_from_slice(&tag);
    Ok(())
}

fn open_in_place<'b>(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    bytes: &'b mut [u8],
) -> Option<&'b [u8]> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.open_in_place(nonce, Aad::from(aad), bytes).ok().map(|plain| &*plain)
}

struct Len32;

impl hkdf::KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA256 with info `holdfast v1 <context>`.
pub(crate) fn hkdf(salt: &[u8], ikm: &[u8], context: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(&[b"holdfast v1 ", context.as_bytes()], Len32)
        .and_then(|output| output.fill(key.as_mut_slice()))
        .map_err(|_| Error::failed("HKDF gave no key"))?;
    Ok(key)
}

fn private_key(secret: &[u8; 32]) -> Result<agreement::PrivateKey, Error> {
    agreement::PrivateKey::from_private_key(&agreement::X25519, secret)
        .map_err(|_| Error::failed("X25519 took no private key"))
}

fn agree(private: &agreement::PrivateKey, public: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, public);
    let failed = || Error::failed("X25519 refused a public key");
    agreement::agree(private, peer, failed(), |shared| Ok(Zeroizing::new(shared.to_vec())))
}

/// A fresh key that only the owner of `public`'s secret can derive again, and the public half of the fresh
/// pair it came from. Because the key is fresh, no nonce repeats under it.
fn seal_to(
    public: &[u8; PUBLIC_LEN],
    context: &str,
    env: &Env,
) -> Result<([u8; PUBLIC_LEN], Zeroizing<[u8; 32]>), Error> {
    let ephemeral = Secret::random(env)?;
    let ephemeral_public = ephemeral.public()?;
    let shared = agree(&private_key(&ephemeral.0)?, public)?;
    let key = hkdf(&[ephemeral_public, *public].concat(), &shared, context)?;
    Ok((ephemeral_public, key))
}

fn open_from(
    secret: &Secret,
    public: &[u8; PUBLIC_LEN],
    ephemeral_public: &[u8],
    context: &str,
) -> Result<Zeroizing<[u8; 32]>, Error> {
    let shared = agree(&private_key(&secret.0)?, ephemeral_public)?;
    hkdf(&[ephemeral_public, public.as_slice()].concat(), &shared, context)
}

fn seal_message(
    public: &[u8; PUBLIC_LEN],
    context: &str,
    aad: &[u8],
    plain: &[u8],
    env: &Env,
) -> Result<Vec<u8>, Error> {
    let (ephemeral, key) = seal_to(public, context, env)?;
    let mut sealed = plain.to_vec();
    seal_in_place(&cipher(&key)?, [0; NONCE_LEN], aad, &mut sealed)?;
    Ok([ephemeral.as_slice(), &sealed].concat())
}

fn open_message(
    secret: &Secret,
    public: &[u8; PUBLIC_LEN],
    context: &str,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let (ephemeral, sealed) = sealed.split_first_chunk::<PUBLIC_LEN>().ok_or(OpenError::Changed)?;
    // A public key of low order is refused by the agreement: it can only be forged.
    let key = open_from(secret, public, ephemeral, context).map_err(|_| OpenError::Changed)?;
    let mut bytes = sealed.to_vec();
    let opened = open_in_place(&cipher(&key)?, [0; NONCE_LEN], aad, &mut bytes).map(|plain| plain.len());
    bytes.truncate(opened.ok_or(OpenError::Changed)?);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
