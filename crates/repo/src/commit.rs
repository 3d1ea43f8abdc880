//! Commits: what makes written chunks a recovery point.
//!
//! A commit is put last (R2). Its summary is for list keys, its root for read keys, and its MAC shows that
//! somebody with a key of this repository made it; the MAC is checked before anything is decrypted.

use crate::cbor;
use crate::crypto::{Keys, OpenError, PUBLIC_LEN, TAG_LEN};
use crate::env::Env;
use crate::error::Error;
use crate::id::CommitId;
use crate::object::{Root, Summary};
use crate::pack::read_u32;

const MAGIC: &[u8; 8] = b"HFCMIT01";
const HEAD_LEN: usize = 16;
const MAC_LEN: usize = 32;

/// The bytes of a commit object.
pub(crate) fn encode(keys: &Keys, summary: &Summary, manifest: &Root, env: &Env) -> Result<Vec<u8>, Error> {
    let (summary, root) = (cbor::encode_summary(summary), cbor::encode_commit_root(manifest));
    let sealed_len = |plain: &[u8]| {
        u32::try_from(PUBLIC_LEN + plain.len() + TAG_LEN)
            .map_err(|_| Error::invalid("the labels and figures of a commit exceed 4 GiB"))
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(sealed_len(&summary)?.to_le_bytes());
    bytes.extend(sealed_len(&root)?.to_le_bytes());
    let head = bytes.clone();
    bytes.extend(keys.seal_summary(&head, &summary, env)?);
    bytes.extend(keys.seal_root(&head, &root, env)?);
    let mac = keys.commit_mac(&bytes);
    bytes.extend(mac.as_bytes());
    Ok(bytes)
}

/// The parts of a commit whose name and MAC were checked.
pub(crate) struct Sealed<'b> {
    key: String,
    head: &'b [u8],
    summary: &'b [u8],
    root: &'b [u8],
}

impl<'b> Sealed<'b> {
    /// Checks name and MAC.
    pub(crate) fn parse(keys: &Keys, id: &CommitId, bytes: &'b [u8]) -> Result<Sealed<'b>, Error> {
        let damaged = |what: &str| Error::damaged(id.key(), what);
        if *blake3::hash(bytes).as_bytes() != id.0 {
            return Err(damaged("its bytes do not hash to its name"));
        }
        let Some((signed, mac)) = bytes.split_last_chunk::<MAC_LEN>() else {
            return Err(damaged("it is too short for a commit"));
        };
        if keys.commit_mac(signed) != *mac {
            return Err(damaged("its MAC does not fit: nobody with a key of this repository made it"));
        }
        let Some((head, parts)) =
            signed.split_at_checked(HEAD_LEN).filter(|(head, _)| head.starts_with(MAGIC))
        else {
            return Err(damaged("it does not begin as a commit"));
        };
        let (summary, root) = (read_u32(head, 8) as usize, read_u32(head, 12) as usize);
        match parts.split_at_checked(summary) {
            Some((summary, rest)) if rest.len() == root => {
                Ok(Sealed { key: id.key(), head, summary, root: rest })
            }
            _ => Err(damaged("its parts are not as long as it says")),
        }
    }

    fn opened(&self, part: Result<Vec<u8>, OpenError>, name: &str) -> Result<Vec<u8>, Error> {
        part.map_err(|error| match error {
            OpenError::Refused(error) => error,
            OpenError::Changed => {
                Error::damaged(&self.key, format!("the authentication tag of its {name} does not fit"))
            }
        })
    }

    /// What list keys may see.
    pub(crate) fn summary(&self, keys: &Keys) -> Result<Summary, Error> {
        let plain = self.opened(keys.open_summary(self.head, self.summary), "summary")?;
        cbor::decode_summary(&plain)
            .map_err(|broken| Error::damaged(&self.key, format!("its summary: {}", broken.what())))
    }

    /// The manifest's root, for read keys.
    pub(crate) fn manifest(&self, keys: &Keys) -> Result<Root, Error> {
        let plain = self.opened(keys.open_root(self.head, self.root), "root")?;
        cbor::decode_commit_root(&plain)
            .map_err(|broken| Error::damaged(&self.key, format!("its root: {}", broken.what())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::ChunkId;
    use crate::object::Capability;

    fn sample() -> (Keys, Summary, Root, Vec<u8>) {
        let env = Env::fixed(1, 1);
        let keys = Keys::generate(&env).unwrap();
        let labels = [("app".to_string(), "shop".to_string())].into();
        let summary = Summary { time: 9, kind: "volume".into(), labels, ..Summary::default() };
        let root = Root { level: 1, length: 300_000, id: ChunkId([3; 32]) };
        let bytes = encode(&keys, &summary, &root, &env).unwrap();
        (keys, summary, root, bytes)
    }

    fn named(bytes: &[u8]) -> CommitId {
        CommitId(*blake3::hash(bytes).as_bytes())
    }

    #[test]
    fn r5_each_key_sees_its_part_of_a_commit() {
        let (keys, summary, root, bytes) = sample();
        for capability in [Capability::Put, Capability::List, Capability::Read] {
            let keys = keys.restrict(capability).unwrap();
            let sealed = Sealed::parse(&keys, &named(&bytes), &bytes).unwrap();
            match capability {
                Capability::Put => {
                    assert!(matches!(sealed.summary(&keys), Err(Error::NotPermitted { .. })));
                }
                _ => assert_eq!(sealed.summary(&keys).unwrap(), summary),
            }
            match capability {
                Capability::Read => assert_eq!(sealed.manifest(&keys).unwrap(), root),
                _ => assert!(matches!(sealed.manifest(&keys), Err(Error::NotPermitted { .. }))),
            }
        }
    }

    #[test]
    fn r4_a_flipped_bit_is_found_by_name_and_by_mac_alone() {
        let (keys, _, _, bytes) = sample();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            for id in [named(&bytes), named(&changed)] {
                let parsed = Sealed::parse(&keys, &id, &changed);
                assert!(matches!(parsed, Err(Error::Damaged { .. })), "byte {at}");
            }
        }
    }

    #[test]
    fn a_commit_of_another_repository_is_refused() {
        let (_, _, _, bytes) = sample();
        let others = Keys::generate(&Env::fixed(1, 2)).unwrap();
        assert!(matches!(Sealed::parse(&others, &named(&bytes), &bytes), Err(Error::Damaged { .. })));
    }

    proptest! {
        /// Even bytes that a holder of the key signed are not trusted in their lengths.
        #[test]
        fn hostile_bytes_with_a_good_mac_are_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic: bool,
        ) {
            let (keys, ..) = sample();
            if magic && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(MAGIC);
            }
            let mac = keys.commit_mac(&bytes);
            bytes.extend(mac.as_bytes());
            if let Ok(sealed) = Sealed::parse(&keys, &named(&bytes), &bytes) {
                prop_assert!(sealed.summary(&keys).is_err() && sealed.manifest(&keys).is_err());
            }
        }
    }
}
