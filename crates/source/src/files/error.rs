//! What ends a backup or a restore, as coarse as a caller acts on it.

use std::path::PathBuf;

/// Why a backup or restore ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository failed, or the stop button was pressed (`repo::Error::Cancelled`).
    #[error(transparent)]
    Repo(#[from] repo::Error),

    /// There is nothing to back up.
    #[error("cannot read {}: {source}; nothing was backed up", path.display())]
    Root {
        /// What was to be backed up.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// The root is a socket, a device, …
    #[error("{} is neither a directory nor a regular file; nothing was backed up", path.display())]
    RootKind {
        /// What was to be backed up.
        path: PathBuf,
    },

    /// The tree holds what no honest backup writes.
    #[error(
        "the recovery point is refused: {path:?}: {what}; nothing was written. It was damaged or made to do harm"
    )]
    Refused {
        /// The entry.
        path: String,
        /// What is wrong with it.
        what: String,
    },

    /// The part asked for is not there.
    #[error("the recovery point has no {path:?}; `holdfast volume ls` lists what it has")]
    NoSuchPath {
        /// What was asked for.
        path: String,
    },

    /// The target holds something already.
    #[error("{} is not empty (it holds {found:?}); nothing was written. Choose an empty directory, or say what is to become of what is there", target.display())]
    NotEmpty {
        /// Where.
        target: PathBuf,
        /// What is there.
        found: String,
    },

    /// The target is full.
    #[error("no space is left in {}; {files} files are in it, whole and verified, the others are not. Make room and restore again, merging", target.display())]
    NoSpace {
        /// Where.
        target: PathBuf,
        /// How many files are there.
        files: u64,
    },

    /// The target cannot be written.
    #[error("{} is on a read-only file system; mount it writable or choose another place", target.display())]
    ReadOnly {
        /// Where.
        target: PathBuf,
    },

    /// The target failed otherwise.
    #[error("cannot {doing} {}: {source}", path.display())]
    Target {
        /// Where.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },

    /// A thread of ours ended before its work did.
    #[error(
        "the backup of {what} was cut short inside holdfast; nothing was committed, try again and report this"
    )]
    CutShort {
        /// What was being done.
        what: &'static str,
    },
}
