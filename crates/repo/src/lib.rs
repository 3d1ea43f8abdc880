//! The repository: recovery points as deduplicated, compressed, encrypted, append-only objects in a
//! directory or an object store.
//!
//! The bytes are fixed by `docs/formats/repository.md`; the promises R1 to R8 named there are what this
//! crate is for. It knows nothing of Kubernetes, files or devices: callers hand in bytes and get back a
//! [`Root`], and later turn a root into bytes again.
//!
//! ```text
//! bytes ─► Chunker ─► Writer (hash, deduplicate, compress, seal) ─► packs ─► index ─► commit
//! commit ─► index ─► Reader (fetch, open, decompress, verify) ─► bytes
//! ```
//!
//! Everything is synchronous and uses threads; nothing here needs an async runtime around it.

mod ahead;
mod bundle;
mod cbor;
pub mod check;
mod chunk;
mod commit;
pub mod copy;
#[cfg(test)]
#[path = "../tests/common/cost.rs"]
mod cost;
mod crypto;
#[doc(hidden)]
pub mod decoders;
pub mod delete;
mod effort;
mod engine;
mod entry;
pub mod env;
pub mod error;
pub mod gc;
pub mod hold;
pub mod id;
pub mod immutable;
pub mod index;
mod keys;
mod lease;
mod local;
mod lru;
pub mod monitor;
mod node;
pub mod object;
pub mod pack;
mod pack_keys;
mod parts;
pub mod reader;
pub mod reindex;
pub mod repair;
mod repo;
pub mod retain;
mod secret;
mod spill;
pub mod stats;
pub mod store;
mod stream;
mod summaries;
pub mod tree;
pub mod undelete;
pub mod writer;

pub use ahead::StreamReader;
pub use bundle::Bundle;
pub use chunk::{ChunkBytes, Chunker};
pub use crypto::PackKey;
pub use env::{Cancel, Env, Timestamp};
pub use error::Error;
pub use id::{ChunkId, CommitId, HoldId, PackId, RepositoryId, SegmentId, WriterId};
pub use immutable::{LockPolicy, LockedBy};
pub use index::Location;
pub use keys::{KeyInfo, KeyKind, Rotated};
pub use lease::LEASE;
pub use local::{Budget, LocalOptions, MEMORY_BYTES};
pub use monitor::{Counts, Finding, Outcome, Progress, Severity};
pub use object::{
    Capability, CommitDraft, CommitInfo, Content, EntryKind, Extent, Leaf, ManifestEntry, NodeKind, Origin,
    PartOf, Root, Summary, TreeEntry,
};
pub use pack::Lane;
pub use pack_keys::{PackKeys, Remember};
pub use parts::{Piece, Was};
pub use reader::{Extents, Reader, ReaderOptions, StreamExtent};
pub use repo::{FORMAT_VERSION, InitOptions, Repository};
pub use secret::{Kdf, KeyFile, KeyWrap, Passphrase, RecoveryKey, Unlock, WrapError, WrappedKey};
pub use spill::Spill;
pub use stream::StreamWriter;
pub use tree::{TreeReader, TreeWriter, walk_order};
pub use writer::{Ticket, Writer, WriterOptions};
pub use zeroize::Zeroizing;
