//! Bundles: the keys of one capability as bytes, with which another process opens the repository.
//!
//! Key objects are opened by what a user holds. A node agent holds nothing: whoever gives it work has opened the
//! repository, and hands it the keys that the work needs and no others ([`Repository::bundle`]). The process at the
//! other end opens the repository with them ([`Unlock::Bundle`](crate::Unlock::Bundle)); key objects are not even read.
//!
//! ```text
//! bundle = "HFBNDL01" (8) ‖ repository id (16) ‖ BLAKE3(holdfast.json) (32) ‖ secrets (CBOR) ‖ check (16)
//! check  = the first 16 of BLAKE3("holdfast bundle 1" ‖ all bytes before)
//! ```
//!
//! - What a bundle grants its secrets decide, as in a key object (R5). Nobody makes a greater one of a lesser one.
//! - It is bound to the header, as key objects are (R4): whoever changed that in the store is found out.
//! - The check is not there against forgery, which is the line's matter, but against damage. A put key has public keys
//!   whose secrets it does not know; with one flipped bit in them backups would succeed, and nobody could ever read them.
//! - It is open: whoever has it has the keys. It belongs into memory and on authenticated, encrypted lines, never into a
//!   file, a log, an object of a cluster. It is wiped when dropped and has no `Debug` that shows it.
//!
//! The bytes are no part of the repository's format; nothing of them is ever stored.

use zeroize::Zeroizing;

use crate::crypto::Keys;
use crate::error::Error;
use crate::id::{HEADER, RepositoryId};
use crate::keys::Opened;
use crate::object::Capability;
use crate::repo::Repository;

const MAGIC: &[u8; 8] = b"HFBNDL01";
const CHECK_LEN: usize = 16;
/// Before the secrets: magic, repository, header.
const PREFIX_LEN: usize = 8 + RepositoryId::LEN + 32;
/// Longer than any bundle gets.
const BYTES_MAX: usize = 1_024;

/// The keys of one capability, for another process.
#[derive(Clone)]
pub struct Bundle {
    bytes: Zeroizing<Vec<u8>>,
    capability: Capability,
    repository: RepositoryId,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bundle(…)")
    }
}

impl Repository {
    /// The keys of a capability, to be handed to another process: this one's, or those of a lesser one.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] if the key in use has less.
    pub fn bundle(&self, capability: Capability) -> Result<Bundle, Error> {
        let secrets = self.secrets().restrict(capability)?.encode();
        // As long as it gets, so that no copy of the secrets is left behind by a reallocation.
        let mut bytes = Zeroizing::new(Vec::with_capacity(PREFIX_LEN + secrets.len() + CHECK_LEN));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.id().as_bytes());
        bytes.extend_from_slice(blake3::hash(self.header()).as_bytes());
        bytes.extend_from_slice(&secrets);
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        Ok(Bundle { bytes, capability, repository: self.id() })
    }
}

impl Bundle {
    /// Takes bytes that [`Bundle::as_bytes`] gave. The message of a refusal repeats nothing of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Bundle, Error> {
        let (keys, repository, _) = parse(bytes)?;
        let bytes = Zeroizing::new(bytes.to_vec());
        Ok(Bundle { bytes, capability: keys.capability(), repository })
    }

    /// The bytes. They are the keys: see the story of this file for where they may go.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it allows.
    pub fn capability(&self) -> Capability {
        self.capability
    }

    /// The repository it opens.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The keys for the repository `id` with this header, which was found at `url`.
    pub(crate) fn opened(&self, header: &[u8], id: RepositoryId, url: &str) -> Result<Opened, Error> {
        let (keys, repository, bound) = parse(&self.bytes)?;
        if repository != id {
            return Err(Error::invalid(format!(
                "the bundle is of repository {repository}, and at {url} is repository {id}: hand in that one's, or correct the address"
            )));
        }
        if bound != *blake3::hash(header).as_bytes() {
            return Err(Error::damaged(HEADER, "it is not what it was when the bundle was made"));
        }
        Ok(Opened { keys, key_id: String::new(), note: None })
    }
}

/// The keys in a bundle, the repository they are of, and the hash of its header.
fn parse(bytes: &[u8]) -> Result<(Keys, RepositoryId, [u8; 32]), Error> {
    let refused = |what: String| Error::invalid(what);
    let length = bytes.len();
    let sound = (PREFIX_LEN + CHECK_LEN..=BYTES_MAX).contains(&length);
    let Some((signed, found)) = bytes.split_last_chunk::<CHECK_LEN>().filter(|_| sound) else {
        return Err(refused(format!("{length} bytes are no bundle of keys")));
    };
    let Some(rest) = signed.strip_prefix(MAGIC) else {
        return Err(refused("these bytes are no bundle of keys, or one of another release".into()));
    };
    if check(signed) != *found {
        return Err(refused("the bundle of keys was damaged on its way; hand it in again".into()));
    }
    let parts = rest.split_first_chunk::<{ RepositoryId::LEN }>();
    let parts = parts.and_then(|(id, rest)| Some((id, rest.split_first_chunk::<32>()?)));
    let Some((id, (header, secrets))) = parts else {
        return Err(refused(format!("{length} bytes are no bundle of keys")));
    };
    let keys = Keys::decode(secrets).map_err(|what| refused(format!("the bundle of keys is {what}")))?;
    Ok((keys, RepositoryId(*id), *header))
}

fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"holdfast bundle 1").update(bytes);
    hasher.finalize_xof().fill(&mut check);
    check
}
