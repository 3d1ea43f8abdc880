//! The things a repository speaks of: roots, manifest and tree entries, summaries. Their bytes are in
//! `cbor.rs`, which refuses on reading whatever this release would not have written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::env::Timestamp;
use crate::id::{ChunkId, CommitId, RepositoryId, WriterId};

/// What a key allows (R5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Write and deduplicate.
    Put,
    /// Names, sizes, retention.
    List,
    /// Restore; includes the other two.
    Read,
}

impl Capability {
    /// `put`, `list` or `read`: the word in key objects.
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::Put => "put",
            Capability::List => "list",
            Capability::Read => "read",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Capability {
    type Err = String;
    fn from_str(text: &str) -> Result<Capability, String> {
        match text {
            "put" => Ok(Capability::Put),
            "list" => Ok(Capability::List),
            "read" => Ok(Capability::Read),
            _ => Err(format!("{text:?} is no capability (put, list, read)")),
        }
    }
}

/// The largest chunk, in plain bytes.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// The most slots in one node: a ref takes one, a part of a chunk two.
pub const NODE_SLOTS_MAX: usize = 2_048;
/// The highest level of a stream.
pub const LEVEL_MAX: u8 = 6;
/// The most extents a file entry carries itself; a file of more has a stream.
pub const EXTENTS_MAX: usize = 8;
/// The longest CBOR item of a tree or manifest stream. An entry above this is refused when written.
pub const ITEM_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest name in a path.
pub const NAME_BYTES_MAX: usize = 255;

/// Names a stream: a byte sequence of any length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Root {
    /// 0: the stream is the chunk `id`; above: `id` is a node.
    pub level: u8,
    /// Bytes of the whole stream.
    pub length: u64,
    /// The chunk.
    pub id: ChunkId,
}

impl Root {
    /// The stream without a byte.
    pub const EMPTY: Root = Root { level: 0, length: 0, id: ChunkId::ZERO };
}

/// What the stream of a manifest entry is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// Bytes as they are.
    Bytes,
    /// Tree entries.
    Tree,
}

/// One named stream of a commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ManifestEntry {
    /// Its name; unique in the manifest.
    pub name: String,
    /// What its stream is.
    pub kind: EntryKind,
    /// Its stream.
    pub root: Root,
    /// Bytes, files and the like, for show.
    pub figures: BTreeMap<String, u64>,
}

/// What `points` shows of a commit and retention decides by; readable with the list key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    /// When it was committed.
    pub time: Timestamp,
    /// When its write began: files changed after this may be in an older state.
    pub started: Timestamp,
    /// `volume`, `application`.
    pub kind: String,
    /// What it is of.
    pub labels: BTreeMap<String, String>,
    /// Bytes, files and the like, for show.
    pub figures: BTreeMap<String, u64>,
    /// The commits it builds on.
    pub parents: Vec<CommitId>,
    /// The point it is a copy of; `None`: it was made here.
    pub origin: Option<Origin>,
    /// Who wrote it, as its lease is named.
    #[serde(skip)]
    pub writer: Option<WriterId>,
}

/// Where a copied point was made, however often it was copied since.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Origin {
    /// In which repository.
    pub repository: RepositoryId,
    /// Under which name.
    pub commit: CommitId,
}

/// A commit as it is listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CommitInfo {
    /// Its name.
    pub id: CommitId,
    /// What it says of itself.
    pub summary: Summary,
}

/// What a caller says of a commit about to be made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommitDraft {
    /// `volume`, `application`.
    pub kind: String,
    /// What it is of.
    pub labels: BTreeMap<String, String>,
    /// Figures for show. The writer's own counts are added where the caller set none of the name.
    pub figures: BTreeMap<String, u64>,
    /// The commits it builds on.
    pub parents: Vec<CommitId>,
    /// When the write began.
    pub started: Timestamp,
    /// The named streams, in any order.
    pub manifest: Vec<ManifestEntry>,
}

/// A run of bytes inside a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Extent {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Where in its plain bytes the run begins.
    pub offset: u32,
    /// How long it is; never zero.
    pub length: u32,
}

/// Which chunk has the bytes of a part, and where in it they begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PartOf {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Where in its plain bytes the part begins.
    pub offset: u32,
}

/// A leaf of a stream: a chunk, or a part of one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Leaf {
    /// The id of the chunk, or the one that the bytes of the part would have as a chunk.
    pub id: ChunkId,
    /// How long it is; never zero.
    pub length: u32,
    /// Where a part lies; `None`: it is the chunk `id`.
    pub part_of: Option<PartOf>,
}

impl Leaf {
    /// A whole chunk.
    pub fn chunk(id: ChunkId, length: u32) -> Leaf {
        Leaf { id, length, part_of: None }
    }

    /// Where its bytes lie.
    pub fn extent(&self) -> Extent {
        let PartOf { chunk, offset } = self.part_of.unwrap_or(PartOf { chunk: self.id, offset: 0 });
        Extent { chunk, offset, length: self.length }
    }
}

/// The bytes of a file without its holes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Content {
    /// Up to [`EXTENTS_MAX`] runs, in order.
    Extents(Vec<Extent>),
    /// A stream, for files of more, or of parts.
    Stream(Root),
}

impl Content {
    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        match self {
            Content::Extents(extents) => extents.iter().map(|extent| u64::from(extent.length)).sum(),
            Content::Stream(root) => root.length,
        }
    }
}

/// What a tree entry is, with what only this kind has.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NodeKind {
    /// A regular file.
    File {
        /// Change time at backup, for change detection only.
        ctime: Timestamp,
        /// Inode number at backup, for change detection only.
        inode: u64,
        /// Size in bytes, holes included.
        size: u64,
        /// Its bytes without the holes.
        content: Content,
        /// `(offset, length)`, ascending, not touching.
        holes: Vec<(u64, u64)>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as it is.
        target: Vec<u8>,
    },
    /// One more name of a file met earlier in the walk. Carries no mode, owner, time or attributes.
    HardLink {
        /// The path of the entry it repeats.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A socket.
    Socket,
}

/// One entry of a tree, in walk order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TreeEntry {
    /// Relative to the root of the tree, components joined by `/`; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
    /// The 12 permission bits. Zero for hard links, as are the next three fields.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes, ACLs included.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}
