//! Canonical CBOR (RFC 8949, section 4.2), and with it roots, summaries and manifest entries.
//!
//! Exactly one byte sequence stands for each value: shortest heads, definite lengths, map keys ascending.
//! The encoder can write nothing else and the decoder refuses everything else, so that equal entries are
//! equal bytes and deduplicate. That strictness is why both are written here, forty lines each, and not
//! taken from a general library (the tests compare with one).
//!
//! The decoder takes hostile bytes: no panic, and no allocation larger than what is really there.

use std::collections::BTreeMap;

use crate::id::{ChunkId, CommitId, RepositoryId, WriterId};
use crate::object::{EntryKind, LEVEL_MAX, ManifestEntry, Origin, Root, Summary};

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

pub(crate) fn wrong<T>(what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken::Wrong(what.into()))
}

pub(crate) type Decoded<T> = Result<T, Broken>;

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
    pub(crate) fn with_capacity(bytes: usize) -> Encoder {
        Encoder { out: Vec::with_capacity(bytes) }
    }

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

    pub(crate) fn id(&mut self) -> Decoded<[u8; 32]> {
        self.bytes()?.try_into().or_else(|_| wrong("an id that is not 32 bytes"))
    }

    pub(crate) fn ascending<K: Ord, V>(
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

pub(crate) fn put_root(e: &mut Encoder, root: &Root) {
    e.array(3).uint(root.level.into()).uint(root.length).bytes(root.id.as_bytes());
}

pub(crate) fn get_root(d: &mut Decoder<'_>) -> Decoded<Root> {
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
    e.map(6 + usize::from(summary.origin.is_some()) + usize::from(summary.writer.is_some()));
    e.uint(0).int(summary.time).uint(1).text(&summary.kind);
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
    if let Some(origin) = &summary.origin {
        e.uint(6).array(2).bytes(origin.repository.as_bytes()).bytes(origin.commit.as_bytes());
    }
    if let Some(writer) = summary.writer {
        e.uint(7).bytes(writer.as_bytes());
    }
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
            6 => {
                d.array_of(2)?;
                let repository = RepositoryId::from_slice(d.bytes()?);
                let Some(repository) = repository else {
                    return wrong("a repository id that is not 16 bytes");
                };
                summary.origin = Some(Origin { repository, commit: CommitId(d.id()?) });
            }
            7 => summary.writer = Some(WriterId(d.id()?)),
            _ => return Ok(false),
        }
        seen |= 1 << key;
        Ok(true)
    })?;
    d.end()?;
    if seen & 0b11_1111 == 0b11_1111 { Ok(summary) } else { wrong("a summary that lacks a field") }
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A general library as second opinion: it reads what we write, and what it writes is what we write.
        #[test]
        fn another_library_agrees_on_every_head(u: u64, i: i64, bytes in vec(any::<u8>(), 0..300), text: String) {
            let mut e = Encoder::default();
            e.array(5).uint(u).int(i).bytes(&bytes).text(&text).map(1).uint(1).int(-1);
            let mut theirs = minicbor::Encoder::new(Vec::new());
            theirs.array(5).unwrap().u64(u).unwrap().i64(i).unwrap().bytes(&bytes).unwrap();
            theirs.str(&text).unwrap().map(1).unwrap().u8(1).unwrap().i8(-1).unwrap();
            let ours = e.finish();
            prop_assert_eq!(&ours, &theirs.into_writer());
            let mut d = Decoder::new(&ours);
            d.array_of(5).unwrap();
            prop_assert_eq!(d.uint(), Ok(u));
            prop_assert_eq!(d.int(), Ok(i));
            prop_assert_eq!(d.bytes(), Ok(&bytes[..]));
            prop_assert_eq!(d.text(), Ok(text.as_str()));
            d.skip().unwrap();
            prop_assert_eq!(d.end(), Ok(()));
        }

        #[test]
        fn skipping_hostile_bytes_ends(bytes in vec(any::<u8>(), 0..200)) {
            let mut d = Decoder::new(&bytes);
            while d.skip().is_ok() && d.position() < bytes.len() {}
        }

        #[test]
        fn summaries_and_manifest_entries_come_back(
            time: i64, started: i64, kind: String,
            labels in btree_map(any::<String>(), any::<String>(), 0..5),
            figures in btree_map(any::<String>(), any::<u64>(), 0..5),
            parents in vec(any::<[u8; 32]>().prop_map(CommitId), 0..3),
            tree: bool, level in 0..=6_u8, length in 1..200_000_u64, id: [u8; 32], copied: Option<([u8; 16], [u8; 32])>,
        ) {
            let name = kind.clone();
            let writer = tree.then_some(WriterId(id));
            let origin = copied.map(|(repository, commit)| Origin { repository: RepositoryId(repository), commit: CommitId(commit) });
            let summary = Summary { time, started, kind, labels, figures: figures.clone(), parents, origin, writer };
            prop_assert_eq!(decode_summary(&encode_summary(&summary)), Ok(summary));
            let kind = if tree { EntryKind::Tree } else { EntryKind::Bytes };
            let root = Root { level, length, id: ChunkId(id) };
            prop_assert_eq!(decode_commit_root(&encode_commit_root(&root)), Ok(root));
            let entry = ManifestEntry { name, kind, root, figures };
            prop_assert_eq!(decode_manifest_entry(&mut Decoder::new(&encode_manifest_entry(&entry))), Ok(entry));
        }

        #[test]
        fn hostile_bytes_are_no_summary_root_or_manifest(bytes in vec(any::<u8>(), 0..300)) {
            let _ = decode_summary(&bytes);
            let _ = decode_commit_root(&bytes);
            let _ = decode_manifest_entry(&mut Decoder::new(&bytes));
        }

        #[test]
        fn a_changed_summary_is_refused_or_is_another_summary_exactly(
            labels in btree_map("[a-z]{0,9}", "[a-z]{0,9}", 0..4), at: prop::sample::Index, with: u8,
        ) {
            let mut bytes = encode_summary(&Summary { labels, ..Summary::default() });
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            if let Ok(changed) = decode_summary(&bytes) {
                prop_assert_eq!(encode_summary(&changed), bytes);
            }
        }
    }

    fn refused<T: Debug>(result: Decoded<T>) -> bool {
        matches!(result, Err(Broken::Wrong(_)))
    }

    #[test]
    fn there_is_one_way_to_write_a_value() {
        // A head longer than needed, an indefinite length, a reserved one.
        for bytes in
            [&[0x18, 0x17][..], &[0x19, 0, 0xff], &[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], &[0x1c]]
        {
            assert!(refused(Decoder::new(bytes).uint()), "{bytes:02x?}");
        }
        assert!(refused(Decoder::new(&[0x5f, 0x41, 0, 0xff]).bytes()));
        assert!(refused(Decoder::new(&[0x62, 0xff, 0xfe]).text()), "not UTF-8");
        let mut swapped = Encoder::default();
        swapped.map(2).uint(1).uint(0).uint(0).uint(0);
        assert!(refused(Decoder::new(&swapped.finish()).fields(|_, _| Ok(false))), "keys that descend");
        let mut twice = Encoder::default();
        twice.map(2).text("a").uint(0).text("a").uint(0);
        assert!(refused(Decoder::new(&twice.finish()).figures()), "a name twice");
    }

    #[test]
    fn a_length_that_is_not_there_takes_no_memory() {
        // 2^62 bytes, text, items, pairs are promised; nothing follows.
        for major in [BYTES, TEXT, ARRAY, MAP] {
            let mut e = Encoder::default();
            e.head(major, 1 << 62);
            let bytes = e.finish();
            assert!(Decoder::new(&bytes).skip().is_err());
        }
        let mut e = Encoder::default();
        e.map(1).uint(4).array(1 << 40);
        assert_eq!(decode_summary(&e.finish()), Err(Broken::Short));
    }

    #[test]
    fn roots_that_cannot_be_are_refused() {
        for (level, length, id) in [(7, 1, 1), (0, 262_145, 1), (0, 0, 1), (1, 0, 0), (0, 1 << 40, 1)] {
            let root = Root { level, length, id: ChunkId([id; 32]) };
            assert!(refused(decode_commit_root(&encode_commit_root(&root))), "{root:?}");
        }
        assert_eq!(decode_commit_root(&encode_commit_root(&Root::EMPTY)), Ok(Root::EMPTY));
    }
}
