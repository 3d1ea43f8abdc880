//! Records of renewed locks: who reads one need not ask the store about each object. They save calls and are not trusted.

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::crypto::Keys;
use crate::env::Timestamp;
use crate::id::LOCKS;

/// An object in a record: the first 16 bytes of the hash of its key.
pub(super) type Name = [u8; 16];

pub(super) fn name_of(key: &str) -> Name {
    let mut name = [0; 16];
    name.copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..16]);
    name
}

/// `locks/<until>-<hash>`: objects that are locked until a date.
///
/// ```text
/// record = "HFLOCK01" (8) ‖ until (i64) ‖ count (u32) ‖ names, ascending (16 each) ‖ BLAKE3-keyed(commit_key, all before) (32)
/// ```
pub(super) struct Record {
    pub(super) until: Timestamp,
    pub(super) names: Vec<Name>,
}

const MAGIC: &[u8; 8] = b"HFLOCK01";
const HEAD: usize = 20;
const MAC: usize = 32;

/// The date in a record's key.
pub(super) fn until_of(key: &str) -> Option<Timestamp> {
    let (until, _) = key.strip_prefix(LOCKS)?.split_once('-')?;
    i64::from_str_radix(until, 16).ok().filter(|until| *until >= 0)
}

impl Record {
    pub(super) fn encode(mut self, keys: &Keys) -> (String, Bytes) {
        self.names.sort_unstable();
        self.names.dedup();
        let mut bytes = Vec::with_capacity(HEAD + self.names.len() * 16 + MAC);
        bytes.extend(MAGIC);
        bytes.extend(self.until.to_le_bytes());
        bytes.extend((self.names.len() as u32).to_le_bytes());
        bytes.extend(self.names.as_flattened());
        let mac = keys.commit_mac(&bytes);
        bytes.extend(mac.as_bytes());
        let hash = blake3::hash(&bytes);
        let key = format!("{LOCKS}{:016x}-{}", self.until, HEXLOWER.encode(&hash.as_bytes()[..16]));
        (key, bytes.into())
    }

    /// `None` for whatever was not written so.
    pub(super) fn decode(keys: &Keys, bytes: &[u8]) -> Option<Record> {
        let (body, mac) = bytes.split_last_chunk::<MAC>()?;
        let (head, names) = body.split_first_chunk::<HEAD>()?;
        // A comparison of hashes takes the same time whatever differs.
        if blake3::Hash::from_bytes(*mac) != keys.commit_mac(body) || !head.starts_with(MAGIC) {
            return None;
        }
        let (until, count) = head.get(8..)?.split_first_chunk::<8>()?;
        let count = u32::from_le_bytes(count.try_into().ok()?) as usize;
        let (names, rest) = names.as_chunks::<16>();
        if names.len() != count || !rest.is_empty() || !names.is_sorted_by(|a, b| a < b) {
            return None;
        }
        Some(Record { until: i64::from_le_bytes(*until), names: names.to_vec() })
    }

    pub(super) fn covers(&self, name: &Name, needed: Timestamp) -> bool {
        self.until >= needed && self.names.binary_search(name).is_ok()
    }
}

/// What the fuzzer asks: a record without its MAC, as somebody with a key could have written it, read and written again.
pub(crate) fn recode_record(keys: &Keys, body: &[u8]) -> Option<Vec<u8>> {
    let bytes = [body, keys.commit_mac(body).as_bytes()].concat();
    let (_, again) = Record::decode(keys, &bytes)?.encode(keys);
    again.split_last_chunk::<MAC>().map(|(body, _)| body.to_vec())
}

/// Bodies to begin with.
pub(crate) fn record_samples(keys: &Keys) -> Vec<Vec<u8>> {
    let body = |names: Vec<Name>| {
        let (_, bytes) = Record { until: 1_700_000_000_000_000_000, names }.encode(keys);
        bytes[..bytes.len() - MAC].to_vec()
    };
    vec![body(vec![]), body((0..9).map(|at| name_of(&format!("packs/{at}"))).collect())]
}
