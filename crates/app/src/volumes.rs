//! Where a volume's bytes come from and go to, as seen from the application.
//!
//! `app` knows claims and pods; it does not know file systems, devices or nodes. Whoever runs a backup or a
//! restore hands in a [`Volumes`]: the command line one that reaches the node's directories, tests and the
//! demo one that maps claims to folders.

use std::path::PathBuf;

use repo::{Cancel, EntryKind, Outcome, Progress, Reader, Root, Timestamp, Writer};
use serde_json::Value;

use crate::point::Consistency;

/// A claim whose bytes can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where they are, for the implementation that located them.
    pub path: PathBuf,
    /// How they are reached, in words for people: `directory of local volume pv-7 on node n1`.
    pub how: String,
}

/// The same volume in an earlier point: what did not change since need not be read again.
#[derive(Clone, Debug)]
pub struct Previous {
    /// Its root in the repository.
    pub root: Root,
    /// When its reading began.
    pub started: Timestamp,
}

/// A volume's bytes, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeCopy {
    /// Where they are in the repository.
    pub root: Root,
    /// What the root is.
    pub kind: EntryKind,
    /// The level that the means itself gives: [`Consistency::Fuzzy`] for a walk of live files,
    /// [`Consistency::Crash`] for a snapshot. Rules can only raise it.
    pub consistency: Consistency,
    /// Bytes of its files.
    pub bytes: u64,
    /// Number of its files.
    pub files: u64,
}

/// What was written back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRestored {
    /// Bytes written.
    pub bytes: u64,
    /// Files written.
    pub files: u64,
}

/// What may be in the way when a volume is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Refuse a target that is not empty.
    #[default]
    Refuse,
    /// Write over it, leave other files alone.
    Merge,
    /// Make it exactly like the point; other files go.
    Mirror,
}

/// Why a volume's bytes could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The bytes are out of reach or the target refuses them; other volumes may go on.
    #[error("{0}")]
    Unreachable(String),
    /// The target holds other files.
    #[error("{0}")]
    NotEmpty(String),
    /// The repository failed; nothing goes on.
    #[error(transparent)]
    Repository(#[from] repo::Error),
}

/// Reaches the bytes of claims. Sync: callers in async code wrap it in `spawn_blocking`.
pub trait Volumes: Send + Sync {
    /// Where this claim's bytes are, or in words why they cannot be reached. `pods` are the running pods that
    /// mount it (they say on which node). `pv` is null for an unbound claim.
    fn locate(&self, pv: &Value, pvc: &Value, pods: &[Value]) -> Result<Located, String>;

    /// Writes the bytes into the repository.
    fn backup(
        &self,
        from: &Located,
        writer: &Writer,
        previous: Option<(&Reader, &Previous)>,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Outcome<VolumeCopy>, VolumeError>;

    /// Makes the place of a new, empty volume, where its node would make it for the first pod; not an error if
    /// it is there. Called before `locate` when a claim was just restored.
    fn prepare(&self, pv: &Value, pvc: &Value) -> Result<(), String> {
        let _ = (pv, pvc);
        Ok(())
    }

    /// Writes the bytes back.
    fn restore(
        &self,
        reader: &Reader,
        root: &Root,
        to: &Located,
        existing: Existing,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Outcome<VolumeRestored>, VolumeError>;
}
