//! What only some stores can: keep the old versions of an object, and refuse to let go of one before a date.
//!
//! A bucket with versions turns a deletion into a marker and an overwrite into a new version; with object lock a
//! version cannot be removed before its date, by nobody (compliance) or by nobody without a special right
//! (governance). Together they keep a repository from whoever has stolen its credentials. A store that can do
//! this says so by [`Store::vault`](super::Store::vault).
//!
//! None of it is believed because a service says so: [`super::probe`] has it proved.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Put, StoreError};
use crate::env::Timestamp;

/// Who may remove a locked object before its date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LockMode {
    /// Nobody, the owner of the account included.
    Compliance,
    /// Who has the right to bypass governance.
    Governance,
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LockMode::Compliance => "COMPLIANCE",
            LockMode::Governance => "GOVERNANCE",
        })
    }
}

impl FromStr for LockMode {
    type Err = String;
    fn from_str(text: &str) -> Result<LockMode, String> {
        match text.to_ascii_uppercase().as_str() {
            "COMPLIANCE" => Ok(LockMode::Compliance),
            "GOVERNANCE" => Ok(LockMode::Governance),
            _ => Err(format!("{text:?} is no lock mode; there are COMPLIANCE and GOVERNANCE")),
        }
    }
}

/// An object's lock. Ordered by what matters: until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Until when the object can neither be removed nor replaced. Services keep whole seconds.
    pub until: Timestamp,
    /// By whom it could be.
    pub mode: LockMode,
}

impl Lock {
    /// Until this moment, rounded up to the whole seconds that services keep, so that nothing unlocks early.
    pub fn new(mode: LockMode, until: Timestamp) -> Lock {
        const SECOND: Timestamp = 1_000_000_000;
        let whole = until.div_euclid(SECOND).saturating_add(i64::from(until.rem_euclid(SECOND) > 0));
        Lock { mode, until: whole.saturating_mul(SECOND) }
    }
}

/// One version of an object, or a marker that hides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The object's key, relative to the store's root.
    pub key: String,
    /// The version's name, which the service gave it.
    pub id: String,
    /// True for a delete marker: the object looks deleted and is not.
    pub marker: bool,
    /// Whether this is what `get` and `list` see.
    pub latest: bool,
    /// Its bytes; a marker has none.
    pub size: u64,
    /// When it was written, as the service says.
    pub modified: Timestamp,
}

/// What the bucket does with every object by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultLock {
    /// The mode.
    pub mode: LockMode,
    /// For how many days from the put.
    pub days: u64,
}

/// What the service says about the bucket. Claims, not proof.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketSays {
    /// Old versions are kept.
    pub versions: bool,
    /// Objects can be locked.
    pub lock: bool,
    /// And are, without being asked.
    pub default_lock: Option<DefaultLock>,
}

/// The verbs of a store with versions and locks. See the module page.
pub trait Vault: Send + Sync {
    /// What the service says about the bucket.
    fn bucket(&self) -> Result<BucketSays, StoreError>;

    /// [`Store::put`](super::Store::put) of an object that is locked from its first moment.
    fn put_locked(&self, key: &str, bytes: Bytes, lock: &Lock) -> Result<Put, StoreError>;

    /// The lock of the object as it is now; `None` when it has none.
    fn lock_of(&self, key: &str) -> Result<Option<Lock>, StoreError>;

    /// Locks the object as it is now, or moves its date. A service refuses an earlier date.
    fn set_lock(&self, key: &str, lock: &Lock) -> Result<(), StoreError>;

    /// Calls `each` for every version and marker of every object whose key begins with `prefix`; those of one
    /// object follow each other, the newest first.
    fn versions(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Version) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// The bytes of one version.
    fn get_version(&self, key: &str, id: &str) -> Result<Bytes, StoreError>;

    /// Removes one version or marker for good; [`StoreError::Locked`] when its lock forbids that.
    fn delete_version(&self, key: &str, id: &str) -> Result<(), StoreError>;

    /// Makes these bytes the object's newest version, whatever it is now; nothing older is touched.
    fn put_over(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<(), StoreError>;

    /// Hides the object behind a delete marker (what a deletion is to somebody who knows no versions). In a bucket
    /// without versions the object is gone.
    fn hide(&self, key: &str) -> Result<(), StoreError>;

    /// Puts an object whose checksum does not fit its bytes, and says whether the service refused it, as it must.
    fn refuses_damage(&self, key: &str) -> Result<bool, StoreError>;
}

/// All versions below a prefix, in one list: for tests, and where they are known to be few.
pub fn list_versions(vault: &dyn Vault, prefix: &str) -> Result<Vec<Version>, StoreError> {
    let mut found = Vec::new();
    vault.versions(prefix, &mut |version| {
        found.push(version);
        Ok(())
    })?;
    Ok(found)
}

/// What a wrapper says whose inner store has no vault; nobody who asked for it first gets here.
pub(crate) fn none(key: &str, url: &str) -> StoreError {
    StoreError::NotSupported {
        key: key.to_owned(),
        url: url.to_owned(),
        reason: "it keeps neither versions nor locks".to_owned(),
    }
}
