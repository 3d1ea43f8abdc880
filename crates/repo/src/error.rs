//! What can go wrong with a repository, as coarse as a caller acts on it.
//!
//! Every message says what happened, to what, and what to do next. Errors are `Clone`, because the first
//! failure inside a writer is reported by every call that follows it.

use crate::id::{ChunkId, PackId};
use crate::keys::KeyKind;
use crate::object::Capability;
use crate::store::StoreError;

/// Why a repository call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The store refused, was full, was unreachable or lacks an object.
    #[error(transparent)]
    Store(#[from] StoreError),

    /// There is nothing here that could be opened.
    #[error("no repository at {url}; check the location, or create one with `holdfast repo init`")]
    NoRepository {
        /// Where we looked.
        url: String,
    },

    /// `init` found a repository.
    #[error("{url} already holds a repository; open it, or choose another place")]
    Exists {
        /// Where.
        url: String,
    },

    /// `init` found something else.
    #[error(
        "{url} is not empty (it holds {found:?}); a repository is only created in an empty place, so that nothing is mixed up"
    )]
    NotEmpty {
        /// Where.
        url: String,
        /// The first foreign object met.
        found: String,
    },

    /// The repository was written by a later release.
    #[error(
        "{url} has repository format {version} and this release reads up to {known}; use a newer holdfast"
    )]
    NewerFormat {
        /// Where.
        url: String,
        /// Its version.
        version: u64,
        /// The highest version we read.
        known: u64,
    },

    /// No key object opens with what was given.
    #[error("the {given} opens none of the {tried} key(s) of its kind at {url}{note}")]
    WrongKey {
        /// Where.
        url: String,
        /// What was given.
        given: KeyKind,
        /// How many key objects of its kind were tried.
        tried: usize,
        /// What else is to be known, such as key objects that are damaged; starts with `; ` or is empty.
        note: String,
    },

    /// The KMS plugin is not there, not well, or refuses to make a new key.
    #[error("the KMS plugin at {plugin} cannot be used: {what}")]
    KeyPlugin {
        /// Its address.
        plugin: String,
        /// What is wrong.
        what: String,
    },

    /// The key that opened the repository does not grant this.
    #[error("this needs the {needed} capability, and the key in use has the {held} capability only")]
    NotPermitted {
        /// What would be needed.
        needed: Capability,
        /// What is there.
        held: Capability,
    },

    /// An object's bytes are not what they must be: changed, cut short, or swapped.
    #[error("{object} is damaged: {what}; run `holdfast repo check --read-data` to see all that is touched")]
    Damaged {
        /// The key of the object in the store, or the chunk inside it (`packs/…: chunk …`).
        object: String,
        /// What is wrong with it.
        what: String,
    },

    /// Something that was promised is not there.
    #[error("{object} is missing: {what}; run `holdfast repo check` to see all that is touched")]
    Missing {
        /// The key of the object in the store, or the chunk.
        object: String,
        /// Who promised it.
        what: String,
    },

    /// Who reads by the keys of packs lacks one.
    #[error(
        "the key of {} is missing: {why}; whoever has the read key can hand it in", .pack.key()
    )]
    KeyMissing {
        /// The pack.
        pack: PackId,
        /// What was waited for.
        why: String,
    },

    /// A collection took away what a write relied on, before it could be acknowledged (R3).
    #[error(
        "{} was sentenced by a collection while this write relied on it (its lease had run out, or a clock is wrong); this write does not count and nothing else is touched: run it again", .pack.key()
    )]
    Collected {
        /// One of the packs.
        pack: PackId,
    },

    /// No commit has this id, or none exists.
    #[error("no recovery point matches {wanted:?} in {url}; `holdfast points` lists them")]
    NoSuchCommit {
        /// What was asked for.
        wanted: String,
        /// Where.
        url: String,
    },

    /// A prefix fits several commits.
    #[error("{wanted:?} fits {count} recovery points; give more digits")]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// How many it fits.
        count: usize,
    },

    /// The caller handed in something the format does not allow.
    #[error("{what}")]
    Invalid {
        /// What, and which rule it breaks.
        what: String,
    },

    /// The stop button was pressed.
    #[error("cancelled; nothing was committed")]
    Cancelled,

    /// The machine failed us: no randomness, no thread, no memory for the key derivation.
    #[error("{what}")]
    Failed {
        /// What failed.
        what: String,
    },
}

impl Error {
    /// [`Error::Damaged`] in few words.
    pub fn damaged(object: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Damaged { object: object.into(), what: what.into() }
    }

    /// [`Error::Missing`] in few words.
    pub fn missing(object: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Missing { object: object.into(), what: what.into() }
    }

    /// [`Error::Invalid`] in few words.
    pub fn invalid(what: impl Into<String>) -> Error {
        Error::Invalid { what: what.into() }
    }

    /// [`Error::Failed`] in few words.
    pub fn failed(what: impl Into<String>) -> Error {
        Error::Failed { what: what.into() }
    }

    /// A damaged chunk, named with its pack.
    pub fn damaged_chunk(pack: &PackId, chunk: &ChunkId, what: impl Into<String>) -> Error {
        Error::Damaged { object: format!("{}: chunk {chunk}", pack.key()), what: what.into() }
    }

    /// Whether stored bytes are wrong or gone, so that a reader may go on with the next file and must
    /// report this one.
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Damaged { .. } | Error::Missing { .. } => true,
            Error::Store(error) => error.is_loss(),
            _ => false,
        }
    }
}

/// So that readers and writers can stand behind `std::io` traits; [`Error::from_io`] gives it back.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

impl Error {
    /// The repository error inside an I/O error that a stream of this crate returned.
    pub fn from_io(error: std::io::Error) -> Result<Error, std::io::Error> {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner) => Ok(inner.clone()),
            None => Err(error),
        }
    }
}
