//! Buckets that keep every object for a time by themselves: retention policies of Google Cloud Storage, immutability
//! policies of Azure.
//!
//! Such a bucket protects a repository without our asking for a lock on each object, as far as its period reaches. What
//! it says is read, and then [`super::probe`] tries it: an object is put, its date is asked for, and it must survive
//! being overwritten and deleted. A store of this kind says so by [`Store::keeper`](super::Store::keeper).
//!
//! What it cannot do is extend: an object's time runs from its put. So in a repository that counts on it, a write stores
//! again what lies in packs that would not be kept as long as its recovery point ([`crate::immutable`]).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::vault::LockMode;
use crate::env::Timestamp;

/// What a bucket was seen to do with every object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// COMPLIANCE if the policy itself is locked; GOVERNANCE if the bucket's owner can still shorten it or take it away.
    pub mode: LockMode,
    /// For so many seconds from its put.
    pub seconds: u64,
}

/// What the service says about the bucket. Claims, not proof.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeeperSays {
    /// There is a policy that keeps objects.
    pub keeps: bool,
    /// How, as far as it says.
    pub retention: Option<Retention>,
    /// What else is worth knowing, each in a sentence.
    pub notes: Vec<String>,
}

/// How long the service keeps one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// When its time began.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Whether that can be taken back; `None` where only the bucket tells.
    pub mode: Option<LockMode>,
}

/// What became of an object that somebody tried to overwrite and to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is as it was.
    Stays,
    /// It is out of sight; its bytes are kept as a version that cannot be removed.
    Hidden,
    /// It is gone or changed.
    Lost,
}

/// The verbs of a store that keeps objects by itself.
pub trait Keeper: Send + Sync {
    /// What the service says about the bucket.
    fn policy(&self) -> Result<KeeperSays, StoreError>;

    /// How long the service keeps this object; `None` if it may be removed now.
    fn kept(&self, key: &str) -> Result<Option<Kept>, StoreError>;

    /// Overwrites and deletes the object, as a thief of the credentials would, and looks what is left of `content`.
    fn attack(&self, key: &str, content: &Bytes) -> Result<Fate, StoreError>;
}

/// Whether an attempt was refused, as it should be. A store that cannot be reached refuses nothing.
pub(super) fn refused(result: Result<(), StoreError>) -> Result<bool, StoreError> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if error.is_unavailable() => Err(error),
        Err(_) => Ok(true),
    }
}
