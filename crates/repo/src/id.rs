//! Names: 32 bytes that say what the content is, and the keys they get in a store.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

macro_rules! id {
    ($name:ident, $bytes:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// How many bytes it has.
            pub const LEN: usize = $bytes;

            /// All bytes zero: names nothing.
            pub const ZERO: $name = $name([0; $bytes]);

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// From exactly as many bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<$name> {
                bytes.try_into().ok().map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<$name, NotAnId> {
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NotAnId)?;
                $name::from_slice(&bytes).ok_or(NotAnId)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

/// The text is not an id: wrong length, or not lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id (lower-case hexadecimal of the full length)")]
pub struct NotAnId;

id!(ChunkId, 32, "A chunk: BLAKE3, keyed by the repository's `id_key`, of its plain bytes (R4).");
id!(PackId, 32, "A pack: BLAKE3 of its bytes.");
id!(SegmentId, 32, "An index segment: BLAKE3 of its bytes.");
id!(CommitId, 32, "A commit: BLAKE3 of its bytes.");
id!(HoldId, 32, "A hold: BLAKE3 of its bytes.");
id!(WriterId, 32, "A writer: BLAKE3 of a secret that only it knows.");
id!(RepositoryId, 16, "A repository: random, made once.");

/// Where packs are.
pub const PACKS: &str = "packs/";
/// Where index segments are.
pub const INDEX: &str = "index/";
/// Where commits are.
pub const COMMITS: &str = "commits/";
/// Where holds are.
pub const HOLDS: &str = "holds/";
/// Where whoever makes a repository says so, if puts are not conditional.
pub const CLAIMS: &str = "init/";
/// Where records of renewed locks are.
pub const LOCKS: &str = "locks/";
/// Where key objects are.
pub const KEYS: &str = "keys/";
/// The header.
pub const HEADER: &str = "holdfast.json";

impl PackId {
    /// `packs/<xx>/<id>`
    pub fn key(&self) -> String {
        let hex = HEXLOWER.encode(&self.0);
        format!("{PACKS}{}/{hex}", &hex[..2])
    }

    /// From `packs/<xx>/<id>`; `None` for a key of any other shape.
    pub fn from_key(key: &str) -> Option<PackId> {
        let (folder, hex) = key.strip_prefix(PACKS)?.split_once('/')?;
        let id = hex.parse().ok()?;
        (hex.get(..2) == Some(folder)).then_some(id)
    }
}

impl SegmentId {
    /// `index/<id>`
    pub fn key(&self) -> String {
        format!("{INDEX}{self}")
    }

    /// From `index/<id>`; `None` for a key of any other shape.
    pub fn from_key(key: &str) -> Option<SegmentId> {
        key.strip_prefix(INDEX)?.parse().ok()
    }
}

impl WriterId {
    /// The writer whose secret this is.
    pub fn of_secret(secret: &[u8]) -> WriterId {
        WriterId(*blake3::hash(secret).as_bytes())
    }
}

impl CommitId {
    /// `commits/<id>`
    pub fn key(&self) -> String {
        format!("{COMMITS}{self}")
    }

    /// From `commits/<id>`; `None` for a key of any other shape.
    pub fn from_key(key: &str) -> Option<CommitId> {
        key.strip_prefix(COMMITS)?.parse().ok()
    }

    /// The first eight digits: enough for people.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }
}

impl HoldId {
    /// `holds/<commit>/<id>`
    pub fn key(&self, commit: &CommitId) -> String {
        format!("{HOLDS}{commit}/{self}")
    }

    /// From `holds/<commit>/<id>`; `None` for a key of any other shape.
    pub fn from_key(key: &str) -> Option<(CommitId, HoldId)> {
        let (commit, hold) = key.strip_prefix(HOLDS)?.split_once('/')?;
        Some((commit.parse().ok()?, hold.parse().ok()?))
    }

    /// The first eight digits: enough for people.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_back_to_their_ids_and_nothing_else_does() {
        let pack = PackId([0xab; 32]);
        assert_eq!(PackId::from_key(&pack.key()), Some(pack));
        let segment = SegmentId([1; 32]);
        assert_eq!(SegmentId::from_key(&segment.key()), Some(segment));
        let commit = CommitId([2; 32]);
        assert_eq!(CommitId::from_key(&commit.key()), Some(commit));
        let hold = HoldId([3; 32]);
        assert_eq!(HoldId::from_key(&hold.key(&commit)), Some((commit, hold)));
        assert_eq!(HoldId::from_key(&format!("holds/{hold}")), None);
        for wrong in [
            format!("packs/ac/{pack}"),
            format!("packs/{pack}"),
            format!("packs/ab/{}", &pack.to_string()[1..]),
            format!("packs/AB/{}", pack.to_string().to_uppercase()),
            format!("packs/ab/{pack}.tmp"),
            String::new(),
        ] {
            assert_eq!(PackId::from_key(&wrong), None, "{wrong}");
        }
    }
}
