//! Canonical CBOR (RFC 8949, section 4.2) of roots, summaries, manifest and tree entries.
//!
//! Exactly one byte sequence stands for each value: shortest heads, definite lengths, map keys ascending.
//! The encoder can write nothing else and the decoder refuses everything else, so that equal entries are
//! equal bytes and deduplicate. That strictness is why both are written here, forty lines each, and not
//! taken from a general library (the tests compare with one).
//!
//! The decoder takes hostile bytes: no panic, and no allocation larger than what is really there.

use std::collections::BTreeMap;

use crate::id::{ChunkId, CommitId};
use crate::object::{
    Content, EXTENTS_MAX, EntryKind, Extent, LEVEL_MAX, ManifestEntry, NAME_BYTES_MAX, NodeKind, Root,
    Summary, TreeEntry,
};

/// Why bytes are not the value asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// They end too early: with more bytes it might become one.
    Short,
    /// They never will.
    Wrong(String),
}

impl Broken {
    /// For messages about objects that are complete, where too short is simply wrong.
    pub(crate) fn what(self) -> String {
        match self {
            Broken::Short => "it ends in the middle of a value".into(),
            Broken::Wrong(what) => what,
        }
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken::Wrong(what.into()))
}

type Decoded<T> = Result<T, Broken>;

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// Writes canonical items.
#[derive(Default)]
pub(crate) struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        match value {
            0..24 => self.out.push(major | value as u8),
            24..0x100 => self.out.extend([major | 24, value as u8]),
            0x100..0x1_0000 => {
                self.out.push(major | 25);
                self.out.extend((value as u16).to_be_bytes());
            }
            0x1_0000..0x1_0000_0000 => {
                self.out.push(major | 26);
                self.out.extend((value as u32).to_be_bytes());
            }
            _ => {
                self.out.push(major | 27);
                self.out.extend(value.to_be_bytes());
            }
        }
        self
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        self.head(UINT, value)
    }

    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        if value < 0 { self.head(NEGATIVE, !value as u64) } else { self.head(UINT, value as u64) }
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(BYTES, value.len() as u64).out.extend_from_slice(value);
        self
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.head(TEXT, value.len() as u64).out.extend_from_slice(value.as_bytes());
        self
    }

    pub(crate) fn array(&mut self, items: usize) -> &mut Self {
        self.head(ARRAY, items as u64)
    }

    pub(crate) fn map(&mut self, pairs: usize) -> &mut Self {
        self.head(MAP, pairs as u64)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Reads canonical items.
pub(crate) struct Decoder<'b> {
    input: &'b [u8],
    at: usize,
}

impl<'b> Decoder<'b> {
    pub(crate) fn new(input: &'b [u8]) -> Decoder<'b> {
        Decoder { input, at: 0 }
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Decoded<()> {
        if self.at == self.input.len() { Ok(()) } else { wrong("something follows the value") }
    }

    fn take(&mut self, len: u64) -> Decoded<&'b [u8]> {
        let rest = &self.input[self.at..];
        let len = usize::try_from(len).ok().filter(|len| *len <= rest.len()).ok_or(Broken::Short)?;
        self.at += len;
        Ok(&rest[..len])
    }

    fn big_endian(&mut self, len: u64) -> Decoded<u64> {
        Ok(self.take(len)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn any_head(&mut self) -> Decoded<(u8, u64)> {
        let first = self.big_endian(1)? as u8;
        let (value, least) = match first & 31 {
            short @ 0..24 => (u64::from(short), 0),
            24 => (self.big_endian(1)?, 24),
            25 => (self.big_endian(2)?, 0x100),
            26 => (self.big_endian(4)?, 0x1_0000),
            27 => (self.big_endian(8)?, 0x1_0000_0000),
            _ => return wrong("an indefinite or reserved length"),
        };
        // Major type 7 holds floats, whose bits may be anything; they only ever pass through `skip`.
        if value < least && first >> 5 != 7 {
            return wrong("a head that is longer than needed");
        }
        Ok((first >> 5, value))
    }

    fn head(&mut self, major: u8, name: &str) -> Decoded<u64> {
        match self.any_head()? {
            (found, value) if found == major => Ok(value),
            (found, _) => wrong(format!("major type {found} where {name} belongs")),
        }
    }

    pub(crate) fn uint(&mut self) -> Decoded<u64> {
        self.head(UINT, "a number")
    }

    pub(crate) fn u32(&mut self) -> Decoded<u32> {
        u32::try_from(self.uint()?).or_else(|_| wrong("a number above 32 bits"))
    }

    pub(crate) fn int(&mut self) -> Decoded<i64> {
        let (major, value) = self.any_head()?;
        match (major, i64::try_from(value)) {
            (UINT, Ok(value)) => Ok(value),
            (NEGATIVE, Ok(value)) => Ok(!value),
            (UINT | NEGATIVE, Err(_)) => wrong("a number above 63 bits"),
            _ => wrong(format!("major type {major} where a number belongs")),
        }
    }

    pub(crate) fn bytes(&mut self) -> Decoded<&'b [u8]> {
        let len = self.head(BYTES, "a byte string")?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Decoded<&'b str> {
        let len = self.head(TEXT, "a text")?;
        std::str::from_utf8(self.take(len)?).or_else(|_| wrong("a text that is not UTF-8"))
    }

    pub(crate) fn array(&mut self) -> Decoded<u64> {
        self.head(ARRAY, "an array")
    }

    pub(crate) fn array_of(&mut self, items: u64) -> Decoded<()> {
        match self.array()? {
            found if found == items => Ok(()),
            found => wrong(format!("an array of {found} where {items} belong")),
        }
    }

    pub(crate) fn map(&mut self) -> Decoded<u64> {
        self.head(MAP, "a map")
    }

    /// Reads a map with ascending numeric keys; `field` reads the value, or returns `false` to have an
    /// unknown one skipped.
    pub(crate) fn fields(
        &mut self,
        mut field: impl FnMut(u64, &mut Decoder<'b>) -> Decoded<bool>,
    ) -> Decoded<()> {
        let mut last = None;
        for _ in 0..self.map()? {
            let key = self.uint()?;
            if last.is_some_and(|last| last >= key) {
                return wrong("map keys that do not ascend");
            }
            last = Some(key);
            if !field(key, self)? {
                self.skip()?;
            }
        }
        Ok(())
    }

    /// Passes over one value of any kind, however deep, without recursion.
    fn skip(&mut self) -> Decoded<()> {
        let mut left: u64 = 1;
        while left > 0 {
            left -= 1;
            let (major, value) = self.any_head()?;
            let inside = match major {
                BYTES | TEXT => {
                    self.take(value)?;
                    Some(0)
                }
                ARRAY => Some(value),
                MAP => value.checked_mul(2),
                6 => Some(1),
                _ => Some(0),
            };
            left = match inside.and_then(|inside| left.checked_add(inside)) {
                Some(left) => left,
                None => return wrong("a value of impossible size"),
            };
        }
        Ok(())
    }

    fn id(&mut self) -> Decoded<[u8; 32]> {
        self.bytes()?.try_into().or_else(|_| wrong("an id that is not 32 bytes"))
    }

    fn ascending<K: Ord, V>(
        &mut self,
        mut pair: impl FnMut(&mut Decoder<'b>) -> Decoded<(K, V)>,
    ) -> Decoded<BTreeMap<K, V>> {
        let mut map = BTreeMap::new();
        for _ in 0..self.map()? {
            let (key, value) = pair(self)?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return wrong("map names that do not ascend");
            }
            map.insert(key, value);
        }
        Ok(map)
    }

    fn figures(&mut self) -> Decoded<BTreeMap<String, u64>> {
        self.ascending(|d| Ok((d.text()?.to_string(), d.uint()?)))
    }
}

fn put_figures(e: &mut Encoder, figures: &BTreeMap<String, u64>) {
    e.map(figures.len());
    for (name, value) in figures {
        e.text(name).uint(*value);
    }
}

// --- roots ---

fn put_root(e: &mut Encoder, root: &Root) {
    e.array(3).uint(root.level.into()).uint(root.length).bytes(root.id.as_bytes());
}

fn get_root(d: &mut Decoder<'_>) -> Decoded<Root> {
    d.array_of(3)?;
    let level = d.uint()?;
    let length = d.uint()?;
    let id = ChunkId(d.id()?);
    let Some(level) = u8::try_from(level).ok().filter(|level| *level <= LEVEL_MAX) else {
        return wrong(format!("a stream of level {level} (at most {LEVEL_MAX})"));
    };
    let root = Root { level, length, id };
    if level == 0 && length > crate::object::CHUNK_BYTES_MAX as u64 {
        return wrong("a single chunk above 256 KiB");
    }
    if (length == 0) != (root == Root::EMPTY) {
        return wrong("an empty stream that is not written as one");
    }
    Ok(root)
}

/// The root object of a commit: `{0: root of the manifest stream}`.
pub(crate) fn encode_commit_root(manifest: &Root) -> Vec<u8> {
    let mut e = Encoder::default();
    put_root(e.map(1).uint(0), manifest);
    e.finish()
}

/// The root of the manifest stream in a commit's root object.
pub(crate) fn decode_commit_root(bytes: &[u8]) -> Decoded<Root> {
    let mut d = Decoder::new(bytes);
    let mut root = None;
    d.fields(|key, d| {
        if key == 0 {
            root = Some(get_root(d)?);
        }
        Ok(key == 0)
    })?;
    d.end()?;
    root.map_or_else(|| wrong("no manifest"), Ok)
}

// --- summaries ---

/// A summary, as it is sealed into a commit.
pub(crate) fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut e = Encoder::default();
    e.map(6).uint(0).int(summary.time).uint(1).text(&summary.kind);
    e.uint(2).map(summary.labels.len());
    for (name, value) in &summary.labels {
        e.text(name).text(value);
    }
    put_figures(e.uint(3), &summary.figures);
    e.uint(4).array(summary.parents.len());
    for parent in &summary.parents {
        e.bytes(parent.as_bytes());
    }
    e.uint(5).int(summary.started);
    e.finish()
}

/// Its inverse.
pub(crate) fn decode_summary(bytes: &[u8]) -> Decoded<Summary> {
    let mut d = Decoder::new(bytes);
    let mut summary = Summary::default();
    let mut seen = 0_u8;
    d.fields(|key, d| {
        match key {
            0 => summary.time = d.int()?,
            1 => summary.kind = d.text()?.to_string(),
            2 => summary.labels = d.ascending(|d| Ok((d.text()?.to_string(), d.text()?.to_string())))?,
            3 => summary.figures = d.figures()?,
            4 => {
                for _ in 0..d.array()? {
                    summary.parents.push(CommitId(d.id()?));
                }
            }
            5 => summary.started = d.int()?,
            _ => return Ok(false),
        }
        seen |= 1 << key;
        Ok(true)
    })?;
    d.end()?;
    if seen == 0b11_1111 { Ok(summary) } else { wrong("a summary that lacks a field") }
}

// --- manifest entries ---

/// One item of a manifest stream.
pub(crate) fn encode_manifest_entry(entry: &ManifestEntry) -> Vec<u8> {
    let mut e = Encoder::default();
    let kind = match entry.kind {
        EntryKind::Bytes => 0,
        EntryKind::Tree => 1,
    };
    put_root(e.array(4).text(&entry.name).uint(kind), &entry.root);
    put_figures(&mut e, &entry.figures);
    e.finish()
}

/// The next item of a manifest stream.
pub(crate) fn decode_manifest_entry(d: &mut Decoder<'_>) -> Decoded<ManifestEntry> {
    d.array_of(4)?;
    let name = d.text()?.to_string();
    let kind = match d.uint()? {
        0 => EntryKind::Bytes,
        1 => EntryKind::Tree,
        kind => return wrong(format!("a manifest entry of kind {kind}, which this release does not know")),
    };
    Ok(ManifestEntry { name, kind, root: get_root(d)?, figures: d.figures()? })
}

// --- tree entries ---

/// Whether the entry alone, without its neighbours, is one the format allows. Asked before writing and
/// after reading: a bug here is ours, and the disk may lie.
pub(crate) fn check_tree_entry(entry: &TreeEntry) -> Result<(), String> {
    check_path(&entry.path)?;
    if entry.mode & !0o7777 != 0 {
        return Err(format!("mode {:o} has more than the 12 permission bits", entry.mode));
    }
    match &entry.kind {
        NodeKind::File { size, content, holes, .. } => {
            check_content(content)?;
            let mut end = None;
            let mut in_holes = 0_u64;
            for (offset, length) in holes {
                // Touching holes would be one hole: only one way to write it.
                if *length == 0 || end.is_some_and(|end| *offset <= end) {
                    return Err("holes that are empty, touch or do not ascend".into());
                }
                let hole_end = offset.checked_add(*length).filter(|end| end <= size);
                end = Some(hole_end.ok_or("a hole beyond the end of the file")?);
                in_holes += length;
            }
            if content.length().checked_add(in_holes) != Some(*size) {
                return Err(format!(
                    "content of {} and holes of {in_holes} bytes do not make a file of {size}",
                    content.length()
                ));
            }
        }
        NodeKind::Symlink { target } if target.is_empty() || target.contains(&0) => {
            return Err("a symbolic link to an empty path or one with a NUL byte".into());
        }
        NodeKind::HardLink { target } => {
            check_path(target)?;
            if crate::tree::walk_order(target, &entry.path) != std::cmp::Ordering::Less {
                return Err("a hard link to a path that does not come before it".into());
            }
            let blank = entry.mode == 0 && entry.uid == 0 && entry.gid == 0 && entry.mtime == 0;
            if !blank || !entry.xattrs.is_empty() {
                return Err("a hard link with a mode, owner, time or attributes of its own".into());
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_content(content: &Content) -> Result<(), String> {
    match content {
        Content::Extents(extents) if extents.len() > EXTENTS_MAX => {
            Err(format!("{} extents (at most {EXTENTS_MAX}; more belong into a stream)", extents.len()))
        }
        Content::Extents(extents) => {
            for extent in extents {
                let end = extent.offset.checked_add(extent.length);
                if extent.length == 0 || end.is_none_or(|end| end as usize > crate::object::CHUNK_BYTES_MAX) {
                    return Err("an extent that is empty or reaches beyond any chunk".into());
                }
            }
            Ok(())
        }
        Content::Stream(root) if *root == Root::EMPTY => Err("an empty content stream".into()),
        Content::Stream(_) => Ok(()),
    }
}

/// Relative, without empty, `.` and `..` components, NUL bytes and overlong names.
fn check_path(path: &[u8]) -> Result<(), String> {
    if path.is_empty() {
        return Ok(());
    }
    for name in path.split(|byte| *byte == b'/') {
        let problem = match name {
            b"" => "is absolute or has an empty component",
            b"." | b".." => "has a component . or ..",
            name if name.len() > NAME_BYTES_MAX => "has a component above 255 bytes",
            name if name.contains(&0) => "has a NUL byte",
            _ => continue,
        };
        return Err(format!("the path {:?} {problem}", String::from_utf8_lossy(path)));
    }
    Ok(())
}

/// One item of a tree stream.
pub(crate) fn encode_tree_entry(entry: &TreeEntry) -> Vec<u8> {
    let mut e = Encoder::default();
    let hard_link = matches!(entry.kind, NodeKind::HardLink { .. });
    let own_fields = match &entry.kind {
        NodeKind::File { size, content, holes, .. } => {
            let content = usize::from(*size > 0 || matches!(content, Content::Stream(_)));
            3 + content + usize::from(!holes.is_empty())
        }
        NodeKind::Directory | NodeKind::Fifo | NodeKind::Socket => 0,
        _ => 1,
    };
    let common = if hard_link { 2 } else { 6 + usize::from(!entry.xattrs.is_empty()) };
    e.map(common + own_fields).uint(0).bytes(&entry.path);
    e.uint(1).uint(match entry.kind {
        NodeKind::File { .. } => 0,
        NodeKind::Directory => 1,
        NodeKind::Symlink { .. } => 2,
        NodeKind::HardLink { .. } => 3,
        NodeKind::Fifo => 4,
        NodeKind::CharDevice { .. } => 5,
        NodeKind::BlockDevice { .. } => 6,
        NodeKind::Socket => 7,
    });
    if !hard_link {
        e.uint(2).uint(entry.mode.into()).uint(3).uint(entry.uid.into()).uint(4).uint(entry.gid.into());
        e.uint(5).int(entry.mtime);
    }
    match &entry.kind {
        NodeKind::File { ctime, inode, size, content, holes } => {
            e.uint(6).int(*ctime).uint(7).uint(*inode).uint(8).uint(*size);
            match content {
                Content::Extents(_) if *size == 0 => {}
                Content::Extents(extents) => {
                    e.uint(9).array(extents.len());
                    for extent in extents {
                        e.array(3).bytes(extent.chunk.as_bytes());
                        e.uint(extent.offset.into()).uint(extent.length.into());
                    }
                }
                Content::Stream(root) => put_root(e.uint(10), root),
            }
            if !holes.is_empty() {
                e.uint(11).array(holes.len());
                for (offset, length) in holes {
                    e.array(2).uint(*offset).uint(*length);
                }
            }
        }
        NodeKind::Symlink { target } | NodeKind::HardLink { target } => {
            e.uint(12).bytes(target);
        }
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
            e.uint(13).array(2).uint((*major).into()).uint((*minor).into());
        }
        NodeKind::Directory | NodeKind::Fifo | NodeKind::Socket => {}
    }
    if !hard_link && !entry.xattrs.is_empty() {
        e.uint(14).map(entry.xattrs.len());
        for (name, value) in &entry.xattrs {
            e.bytes(name).bytes(value);
        }
    }
    e.finish()
}

/// The fields of an entry as they are met, before it is known which of them belong together.
#[derive(Default)]
struct Fields {
    path: Option<Vec<u8>>,
    kind: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    ctime: Option<i64>,
    inode: Option<u64>,
    size: Option<u64>,
    extents: Option<Vec<Extent>>,
    stream: Option<Root>,
    holes: Option<Vec<(u64, u64)>>,
    target: Option<Vec<u8>>,
    device: Option<(u32, u32)>,
    xattrs: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// The next item of a tree stream, checked by itself ([`check_tree_entry`]).
pub(crate) fn decode_tree_entry(d: &mut Decoder<'_>) -> Decoded<TreeEntry> {
    let mut f = Fields::default();
    d.fields(|key, d| {
        match key {
            0 => f.path = Some(d.bytes()?.to_vec()),
            1 => f.kind = Some(d.uint()?),
            2 => f.mode = Some(d.u32()?),
            3 => f.uid = Some(d.u32()?),
            4 => f.gid = Some(d.u32()?),
            5 => f.mtime = Some(d.int()?),
            6 => f.ctime = Some(d.int()?),
            7 => f.inode = Some(d.uint()?),
            8 => f.size = Some(d.uint()?),
            9 => f.extents = Some(get_extents(d)?),
            10 => f.stream = Some(get_root(d)?),
            11 => f.holes = Some(get_holes(d)?),
            12 => f.target = Some(d.bytes()?.to_vec()),
            13 => {
                d.array_of(2)?;
                f.device = Some((d.u32()?, d.u32()?));
            }
            14 => f.xattrs = Some(d.ascending(|d| Ok((d.bytes()?.to_vec(), d.bytes()?.to_vec())))?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let entry = assemble(f)?;
    check_tree_entry(&entry).map_err(Broken::Wrong)?;
    Ok(entry)
}

fn get_extents(d: &mut Decoder<'_>) -> Decoded<Vec<Extent>> {
    let count = d.array()?;
    if count > EXTENTS_MAX as u64 {
        return wrong(format!("{count} extents (at most {EXTENTS_MAX})"));
    }
    let mut extents = Vec::with_capacity(EXTENTS_MAX);
    for _ in 0..count {
        d.array_of(3)?;
        extents.push(Extent { chunk: ChunkId(d.id()?), offset: d.u32()?, length: d.u32()? });
    }
    Ok(extents)
}

fn get_holes(d: &mut Decoder<'_>) -> Decoded<Vec<(u64, u64)>> {
    let count = d.array()?;
    if count == 0 {
        return wrong("a list of holes without one");
    }
    let mut holes = Vec::new();
    for _ in 0..count {
        d.array_of(2)?;
        holes.push((d.uint()?, d.uint()?));
    }
    Ok(holes)
}

fn assemble(f: Fields) -> Decoded<TreeEntry> {
    let need = |present: bool, what: &str| {
        if present { Ok(()) } else { wrong(format!("an entry without its {what}")) }
    };
    let (Some(path), Some(kind)) = (f.path, f.kind) else {
        return wrong("an entry without path or type");
    };
    let is_file = kind == 0;
    let is_link = kind == 2 || kind == 3;
    let is_device = kind == 5 || kind == 6;
    // A field that does not belong would be lost when the entry is written again: refuse it.
    let of_file = f.ctime.is_some() || f.inode.is_some() || f.size.is_some();
    let of_content = f.extents.is_some() || f.stream.is_some() || f.holes.is_some();
    if ((of_file || of_content) && !is_file)
        || (is_link != f.target.is_some())
        || (is_device != f.device.is_some())
        || f.xattrs.as_ref().is_some_and(BTreeMap::is_empty)
    {
        return wrong(format!("an entry of type {kind} with fields of another type, or without its own"));
    }
    if kind == 3 {
        let own = f.mode.is_some() || f.uid.is_some() || f.gid.is_some() || f.mtime.is_some();
        if own || f.xattrs.is_some() {
            return wrong("a hard link with a mode, owner, time or attributes of its own");
        }
    } else {
        need(f.mode.is_some() && f.uid.is_some() && f.gid.is_some(), "mode or owner")?;
        need(f.mtime.is_some(), "time")?;
    }
    let target = f.target.unwrap_or_default();
    let (major, minor) = f.device.unwrap_or_default();
    let kind = match kind {
        0 => {
            need(f.ctime.is_some() && f.inode.is_some() && f.size.is_some(), "size or change marks")?;
            let size = f.size.unwrap_or_default();
            let content = match (f.extents, f.stream) {
                (None, Some(root)) => Content::Stream(root),
                (Some(extents), None) if size > 0 => Content::Extents(extents),
                (None, None) if size == 0 => Content::Extents(Vec::new()),
                _ => return wrong("a file with both kinds of content, or none"),
            };
            NodeKind::File {
                ctime: f.ctime.unwrap_or_default(),
                inode: f.inode.unwrap_or_default(),
                size,
                content,
                holes: f.holes.unwrap_or_default(),
            }
        }
        1 => NodeKind::Directory,
        2 => NodeKind::Symlink { target },
        3 => NodeKind::HardLink { target },
        4 => NodeKind::Fifo,
        5 => NodeKind::CharDevice { major, minor },
        6 => NodeKind::BlockDevice { major, minor },
        7 => NodeKind::Socket,
        kind => return wrong(format!("an entry of type {kind}, which this release does not know")),
    };
    Ok(TreeEntry {
        path,
        kind,
        mode: f.mode.unwrap_or_default(),
        uid: f.uid.unwrap_or_default(),
        gid: f.gid.unwrap_or_default(),
        mtime: f.mtime.unwrap_or_default(),
        xattrs: f.xattrs.unwrap_or_default(),
    })
}
