//! Packs: many sealed chunks in one object, with a sealed directory at the end.
//!
//! A pack is built in one buffer: the compressed chunk is appended, sealed where it lies, and the whole is
//! put as it is. A chunk's nonce is its offset and its additional data the pack's header, so a chunk that was
//! moved, swapped or cut does not open (R4).

use bytes::{BufMut, Bytes, BytesMut};

use crate::crypto::{Keys, PACK_HEADER_LEN, PACK_MAGIC, PackKey, PackOpener, PackSealer, TAG_LEN};
use crate::effort::{Effort, HARDER};
use crate::error::Error;
use crate::id::{ChunkId, PackId};
use crate::object::CHUNK_BYTES_MAX;
use crate::repo::Repository;

/// A pack is closed when it passes this.
pub(crate) const PACK_BYTES: usize = 16 << 20;
/// No pack is larger.
pub(crate) const PACK_BYTES_MAX: usize = 64 << 20;
/// No pack has more chunks.
pub(crate) const PACK_CHUNKS_MAX: usize = 65_536;
/// What sealing adds to a chunk: method and tag.
pub(crate) const CHUNK_OVERHEAD: usize = 1 + TAG_LEN;

const ENTRY_LEN: usize = 44;
const TRAILER_LEN: usize = 16;
const TRAILER_MAGIC: &[u8; 8] = b"HFPACKND";
const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// The most a pack closed at `target` bytes can have: one more chunk, directory and trailer.
pub(crate) fn pack_bytes_at_most(target: usize) -> usize {
    let directory = PACK_CHUNKS_MAX.min(target / (CHUNK_OVERHEAD + 1)) * ENTRY_LEN;
    (target + CHUNK_BYTES_MAX + CHUNK_OVERHEAD + directory + TAG_LEN + TRAILER_LEN).min(PACK_BYTES_MAX)
}

/// Which chunks go together: listing a tree does not read file content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// File content.
    Data,
    /// Tree streams, nodes, manifests.
    Meta,
}

impl Lane {
    pub(crate) fn kind(self) -> u8 {
        match self {
            Lane::Data => 0,
            Lane::Meta => 1,
        }
    }
}

/// One line of a pack's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackEntry {
    /// The chunk.
    pub id: ChunkId,
    /// Where its sealed bytes begin in the pack.
    pub offset: u32,
    /// How many they are.
    pub sealed: u32,
    /// How many plain bytes they stand for.
    pub plain: u32,
}

/// Whether a chunk of these lengths can lie there. Asked of everything that comes from a directory or index.
pub(crate) fn check_place(offset: u32, sealed: u32, plain: u32, end: usize) -> Result<(), String> {
    let (offset, sealed, plain) = (offset as usize, sealed as usize, plain as usize);
    if plain == 0 || plain > CHUNK_BYTES_MAX {
        return Err(format!("a chunk of {plain} bytes (1 to {CHUNK_BYTES_MAX})"));
    }
    if sealed <= CHUNK_OVERHEAD || sealed > plain + CHUNK_OVERHEAD {
        return Err(format!("{sealed} sealed bytes for a chunk of {plain}"));
    }
    if offset < PACK_HEADER_LEN || offset + sealed > end {
        return Err(format!("a chunk at {offset} of {sealed} bytes, where chunks lie from 48 to {end}"));
    }
    Ok(())
}

/// A chunk ready to be appended to a pack.
pub(crate) struct Compressed<'a> {
    method: u8,
    body: &'a [u8],
}

/// Compresses chunks; one for each thread, with its buffers.
pub(crate) struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    out: Vec<u8>,
    level: i32,
    /// For the second time, once there was one.
    harder: Option<zstd::bulk::Compressor<'static>>,
    again: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(level: i32) -> Result<Compressor, Error> {
        let zstd = zstd::bulk::Compressor::new(level)
            .map_err(|error| Error::failed(format!("zstd could not be set up: {error}")))?;
        let out = Vec::with_capacity(CHUNK_BYTES_MAX);
        Ok(Compressor { zstd, out, level, harder: None, again: Vec::new() })
    }

    /// The same, with more effort where it costs nothing and pays.
    pub(crate) fn compress_with<'a>(&'a mut self, plain: &'a [u8], effort: &Effort) -> Compressed<'a> {
        let length = match self.compress(plain) {
            // Neither does noise become shorter.
            Compressed { method: RAW, .. } => return Compressed { method: RAW, body: plain },
            Compressed { body, .. } => body.len(),
        };
        if self.level >= HARDER || !effort.tries() {
            return Compressed { method: ZSTD, body: &self.out[..length] };
        }
        if self.harder.is_none() {
            self.harder = zstd::bulk::Compressor::new(HARDER).ok();
        }
        // Only if it is shorter: there is no room for more.
        self.again.resize(length.saturating_sub(1), 0);
        let again = self.harder.as_mut().map(|zstd| zstd.compress_to_buffer(plain, &mut self.again[..]));
        match again {
            Some(Ok(shorter)) => {
                effort.tell(length, shorter);
                Compressed { method: ZSTD, body: &self.again[..shorter] }
            }
            _ => {
                effort.tell(length, length);
                Compressed { method: ZSTD, body: &self.out[..length] }
            }
        }
    }

    /// The shorter of compressed and plain. A gain below 3 % is not worth the time to decompress.
    pub(crate) fn compress<'a>(&'a mut self, plain: &'a [u8]) -> Compressed<'a> {
        let raw = Compressed { method: RAW, body: plain };
        let most = plain.len() - plain.len().div_ceil(32);
        if most < 16 || looks_random(plain) {
            return raw;
        }
        // The destination is only as large as would be worth it: zstd fails as soon as it is full.
        self.out.resize(most, 0);
        match self.zstd.compress_to_buffer(plain, &mut self.out[..]) {
            Ok(len) => Compressed { method: ZSTD, body: &self.out[..len] },
            Err(_) => raw,
        }
    }
}

/// Whether 4,096 sampled bytes are distributed as evenly as random ones: media, archives, ciphertext.
///
/// For n samples of an even distribution the sum of the squared counts of the 256 values is
/// n + n(n-1)/256 = 69,616 with a deviation of 362; data of which entropy coding would save 3 % is above
/// 72,000. Repetition among even bytes is missed by this, so it is used only on chunks large enough to have
/// samples from many places, where such data is rare and the loss is space, never content.
fn looks_random(plain: &[u8]) -> bool {
    const RUNS: usize = 64;
    const RUN: usize = 64;
    if plain.len() < 4 * RUNS * RUN {
        return false;
    }
    let mut counts = [0_u32; 256];
    let stride = plain.len() / RUNS;
    for run in 0..RUNS {
        for byte in &plain[run * stride..run * stride + RUN] {
            counts[usize::from(*byte)] += 1;
        }
    }
    counts.iter().map(|count| count * count).sum::<u32>() < 71_400
}

/// A pack under assembly.
pub(crate) struct PackBuilder {
    sealer: PackSealer,
    buffer: BytesMut,
    entries: Vec<PackEntry>,
}

impl PackBuilder {
    /// Begins a pack in `buffer`, which is emptied.
    pub(crate) fn new(sealer: PackSealer, mut buffer: BytesMut) -> PackBuilder {
        buffer.clear();
        buffer.extend_from_slice(sealer.header());
        PackBuilder { sealer, buffer, entries: Vec::new() }
    }

    /// Appends and seals a chunk.
    pub(crate) fn add(&mut self, id: ChunkId, plain: usize, chunk: &Compressed<'_>) -> Result<(), Error> {
        let start = self.buffer.len();
        let too_large = || Error::failed("a pack grew beyond its limits");
        let offset = u32::try_from(start).map_err(|_| too_large())?;
        let sealed = u32::try_from(chunk.body.len() + CHUNK_OVERHEAD).map_err(|_| too_large())?;
        let plain = u32::try_from(plain).map_err(|_| too_large())?;
        self.buffer.put_u8(chunk.method);
        self.buffer.extend_from_slice(chunk.body);
        let tag = self.sealer.seal_chunk(offset, &mut self.buffer[start..])?;
        self.buffer.extend_from_slice(&tag);
        self.entries.push(PackEntry { id, offset, sealed, plain });
        Ok(())
    }

    /// Whether it has reached `target` bytes or the most chunks.
    pub(crate) fn is_full(&self, target: usize) -> bool {
        self.buffer.len() >= target || self.entries.len() >= PACK_CHUNKS_MAX
    }

    /// Seals the directory and names the pack.
    pub(crate) fn finish(mut self) -> Result<FinishedPack, Error> {
        let start = self.buffer.len();
        for entry in &self.entries {
            self.buffer.extend_from_slice(entry.id.as_bytes());
            self.buffer.put_u32_le(entry.offset);
            self.buffer.put_u32_le(entry.sealed);
            self.buffer.put_u32_le(entry.plain);
        }
        let tag = self.sealer.seal_directory(&mut self.buffer[start..])?;
        self.buffer.extend_from_slice(&tag);
        self.buffer.put_u32_le((self.buffer.len() - start) as u32);
        self.buffer.put_u32_le(self.entries.len() as u32);
        self.buffer.extend_from_slice(TRAILER_MAGIC);
        if self.buffer.len() > PACK_BYTES_MAX {
            return Err(Error::failed("a pack grew beyond its limits"));
        }
        let id = PackId(*blake3::hash(&self.buffer).as_bytes());
        let key = self.sealer.key().clone();
        Ok(FinishedPack { id, bytes: self.buffer.freeze(), entries: self.entries, key })
    }

    /// Which chunks it is for.
    pub(crate) fn lane(&self) -> Lane {
        if self.sealer.header()[8] == Lane::Meta.kind() { Lane::Meta } else { Lane::Data }
    }

    /// Gives the buffer back without making a pack.
    pub(crate) fn into_buffer(self) -> BytesMut {
        self.buffer
    }
}

/// A pack ready to be put.
pub(crate) struct FinishedPack {
    pub id: PackId,
    pub bytes: Bytes,
    pub entries: Vec<PackEntry>,
    /// What opens it.
    pub key: PackKey,
}

/// Where a pack's directory lies, from its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes of the sealed directory, which ends where the trailer begins.
    pub directory: u32,
    /// Chunks in the pack.
    pub chunks: u32,
}

impl Trailer {
    /// How many bytes it has.
    pub const LEN: usize = TRAILER_LEN;

    /// From the last bytes of a pack of `size` bytes.
    pub fn parse(bytes: &[u8], size: u64) -> Result<Trailer, String> {
        let Some((_, trailer)) = bytes.split_last_chunk::<TRAILER_LEN>() else {
            return Err("it is too short for a pack".into());
        };
        if !trailer.ends_with(TRAILER_MAGIC) {
            return Err("it does not end as a pack".into());
        }
        let parsed = Trailer { directory: read_u32(trailer, 0), chunks: read_u32(trailer, 4) };
        let fits = parsed.chunks >= 1
            && parsed.chunks as usize <= PACK_CHUNKS_MAX
            && parsed.directory as usize == parsed.chunks as usize * ENTRY_LEN + TAG_LEN
            && (PACK_HEADER_LEN + parsed.directory as usize + TRAILER_LEN) as u64 <= size
            && size <= PACK_BYTES_MAX as u64;
        if fits { Ok(parsed) } else { Err("its trailer does not fit its size".into()) }
    }
}

/// Reads the directory of a pack from its first 48 bytes and the sealed directory; `end` is where the
/// directory begins in the pack.
pub(crate) fn open_directory(
    keys: &Keys,
    header: &[u8; PACK_HEADER_LEN],
    sealed: &[u8],
    end: usize,
) -> Result<(Lane, Vec<PackEntry>), String> {
    let lane = check_header(header)?;
    let plain = keys.open_directory(header, sealed).map_err(|error| error.to_string())?;
    let plain = plain.ok_or("the authentication tag of its directory does not fit")?;
    let (lines, []) = plain.as_chunks::<ENTRY_LEN>() else {
        return Err("a directory of a broken length".into());
    };
    let mut entries = Vec::with_capacity(lines.len());
    let mut next = PACK_HEADER_LEN;
    for line in lines {
        let (id, _) = line.split_first_chunk::<32>().unwrap_or((&[0; 32], &[]));
        let entry = PackEntry {
            id: ChunkId(*id),
            offset: read_u32(line, 32),
            sealed: read_u32(line, 36),
            plain: read_u32(line, 40),
        };
        check_place(entry.offset, entry.sealed, entry.plain, end)?;
        if entry.offset as usize != next {
            return Err("a directory with a gap between chunks".into());
        }
        next += entry.sealed as usize;
        entries.push(entry);
    }
    if next != end {
        return Err("a directory that does not reach to where it begins".into());
    }
    Ok((lane, entries))
}

/// The lane of a pack that begins so.
pub(crate) fn check_header(header: &[u8; PACK_HEADER_LEN]) -> Result<Lane, String> {
    if !header.starts_with(PACK_MAGIC) || header[9..16] != [0; 7] {
        return Err("it does not begin as a pack".into());
    }
    match header[8] {
        0 => Ok(Lane::Data),
        1 => Ok(Lane::Meta),
        kind => Err(format!("a pack of kind {kind}, which this release does not know")),
    }
}

/// A whole pack in memory, its directory opened. What `check` and repairs work on.
pub struct Pack {
    /// Its lane.
    pub lane: Lane,
    /// Its directory, in the order of the pack.
    pub entries: Vec<PackEntry>,
    bytes: Bytes,
    header: [u8; PACK_HEADER_LEN],
}

impl Pack {
    /// Opens the directory of the pack that `bytes` are; checks the name first.
    pub(crate) fn parse(keys: &Keys, id: &PackId, bytes: Bytes) -> Result<Pack, String> {
        if *blake3::hash(&bytes).as_bytes() != id.0 {
            return Err("its bytes do not hash to its name".into());
        }
        let trailer = Trailer::parse(&bytes, bytes.len() as u64)?;
        let end = bytes.len() - TRAILER_LEN - trailer.directory as usize;
        let header: [u8; PACK_HEADER_LEN] =
            bytes[..PACK_HEADER_LEN].try_into().map_err(|_| "it is too short for a pack")?;
        let (lane, entries) = open_directory(keys, &header, &bytes[end..bytes.len() - TRAILER_LEN], end)?;
        Ok(Pack { lane, entries, bytes, header })
    }

    /// Opens every chunk, computes its id again, and tells what is wrong with it. Needs the read key.
    pub fn verify(
        &self,
        repo: &Repository,
        each: &mut dyn FnMut(&PackEntry, Result<(), String>),
    ) -> Result<(), Error> {
        let (opener, ids) = (repo.secrets().pack_opener(&self.header)?, repo.secrets().chunk_ids()?);
        let mut decompressor = Decompressor::new()?;
        for entry in &self.entries {
            let start = entry.offset as usize;
            let sealed = self.bytes.get(start..start + entry.sealed as usize).unwrap_or_default();
            let opened = decompressor.open(&opener, entry.offset, sealed, entry.plain as usize);
            each(
                entry,
                opened.and_then(|plain| match ids.id(plain) == entry.id {
                    true => Ok(()),
                    false => Err("its content is not what its id says".into()),
                }),
            );
        }
        Ok(())
    }
}

/// Takes chunks over from one pack into others, each opened and compared with its id on the way.
pub(crate) struct Copier {
    opener: PackOpener,
    ids: crate::crypto::ChunkIds,
    decompressor: Decompressor,
}

impl Copier {
    /// For the chunks of this pack. Needs the read key.
    pub(crate) fn new(repo: &Repository, pack: &Pack) -> Result<Copier, Error> {
        let opener = repo.secrets().pack_opener(&pack.header)?;
        Ok(Copier { opener, ids: repo.secrets().chunk_ids()?, decompressor: Decompressor::new()? })
    }

    /// Adds one of its chunks to another pack, compressed as it was. An inner error says what is wrong with it.
    pub(crate) fn copy(
        &mut self,
        pack: &Pack,
        entry: &PackEntry,
        into: &mut PackBuilder,
    ) -> Result<Result<(), String>, Error> {
        let start = entry.offset as usize;
        let sealed = pack.bytes.get(start..start + entry.sealed as usize).unwrap_or_default();
        match self.decompressor.open(&self.opener, entry.offset, sealed, entry.plain as usize) {
            Ok(plain) if self.ids.id(plain) == entry.id => {}
            Ok(_) => return Ok(Err("its content is not what its id says".into())),
            Err(what) => return Ok(Err(what)),
        }
        // What was opened is still there: the method, then the body.
        let Some((&method, body)) = self.decompressor.opened.split_first() else {
            return Ok(Err("it is empty".into()));
        };
        into.add(entry.id, entry.plain as usize, &Compressed { method, body })?;
        Ok(Ok(()))
    }
}

/// Opens, decompresses and verifies chunks; one for each thread, with its buffers: fresh memory for every chunk would
/// cost more than decrypting it.
pub(crate) struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
    opened: Vec<u8>,
    plain: Vec<u8>,
}

impl Decompressor {
    pub(crate) fn new() -> Result<Decompressor, Error> {
        let zstd = zstd::bulk::Decompressor::new()
            .map_err(|error| Error::failed(format!("zstd could not be set up: {error}")))?;
        Ok(Decompressor { zstd, opened: Vec::new(), plain: Vec::new() })
    }

    /// The plain bytes of a chunk, until the next is opened; without the check of its id, which is the caller's.
    pub(crate) fn open(
        &mut self,
        opener: &PackOpener,
        offset: u32,
        sealed: &[u8],
        plain: usize,
    ) -> Result<&[u8], String> {
        if !opener.open_chunk(offset, sealed, &mut self.opened) {
            return Err("its authentication tag does not fit".into());
        }
        match self.opened.split_first() {
            Some((&RAW, body)) if body.len() == plain => Ok(body),
            Some((&RAW, body)) => Err(format!("{} bytes where {plain} were promised", body.len())),
            Some((&ZSTD, body)) => {
                // Never more than was promised, whatever the frame says of itself.
                let promised = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
                if promised != Some(plain as u64) {
                    return Err("a compressed frame of another size than promised".into());
                }
                self.plain.clear();
                self.plain.reserve(plain);
                match self.zstd.decompress_to_buffer(body, &mut self.plain) {
                    Ok(len) if len == plain => Ok(&self.plain),
                    Ok(len) => Err(format!("{len} bytes where {plain} were promised")),
                    Err(error) => Err(format!("it does not decompress: {error}")),
                }
            }
            Some((method, _)) => {
                Err(format!("compression method {method}, which this release does not know"))
            }
            None => Err("it is empty".into()),
        }
    }
}

/// A little-endian u32 at `at`, which the caller knows to be inside.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::env::Env;

    fn keys() -> Keys {
        Keys::generate(&Env::fixed(1, 1)).unwrap()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn sample(keys: &Keys) -> (Vec<Vec<u8>>, FinishedPack) {
        let sealer = keys.pack_sealer(Lane::Data.kind(), &Env::fixed(1, 2)).unwrap();
        let mut builder = PackBuilder::new(sealer, BytesMut::new());
        let mut compressor = Compressor::new(1).unwrap();
        let ids = keys.chunk_ids().unwrap();
        let chunks = vec![b"x".to_vec(), vec![0; 5_000], noise(40_000), b"hold fast ".repeat(30)];
        for plain in &chunks {
            builder.add(ids.id(plain), plain.len(), &compressor.compress(plain)).unwrap();
        }
        (chunks, builder.finish().unwrap())
    }

    fn open(keys: &Keys, bytes: &[u8], entry: &PackEntry) -> Result<Vec<u8>, String> {
        let header = bytes[..PACK_HEADER_LEN].try_into().unwrap();
        let opener = keys.pack_opener(header).unwrap();
        let start = entry.offset as usize;
        let sealed = &bytes[start..start + entry.sealed as usize];
        let mut decompressor = Decompressor::new().unwrap();
        decompressor.open(&opener, entry.offset, sealed, entry.plain as usize).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_pack_gives_back_its_chunks_and_says_what_it_holds() {
        let keys = keys();
        let (chunks, pack) = sample(&keys);
        let parsed = Pack::parse(&keys, &pack.id, pack.bytes.clone()).unwrap();
        assert_eq!((parsed.lane, &parsed.entries), (Lane::Data, &pack.entries));
        for (plain, entry) in chunks.iter().zip(&parsed.entries) {
            assert_eq!(open(&keys, &pack.bytes, entry).unwrap(), *plain);
        }
        let sealed: Vec<u32> = parsed.entries.iter().map(|entry| entry.sealed).collect();
        assert!(sealed[0] == 18 && sealed[1] < 60, "one byte raw, zeros compressed: {sealed:?}");
        assert_eq!(sealed[2], 40_017, "noise stays as it is");
        assert!(sealed[3] < 60, "{sealed:?}");
    }

    #[test]
    fn r5_a_put_key_lists_a_pack_and_opens_no_chunk() {
        let keys = keys();
        let (_, pack) = sample(&keys);
        let put = keys.restrict(crate::object::Capability::Put).unwrap();
        assert_eq!(Pack::parse(&put, &pack.id, pack.bytes.clone()).unwrap().entries, pack.entries);
        let header = pack.bytes[..PACK_HEADER_LEN].try_into().unwrap();
        assert!(matches!(put.pack_opener(header), Err(Error::NotPermitted { .. })));
    }

    #[test]
    fn r4_a_flipped_bit_anywhere_in_a_pack_is_found() {
        let keys = keys();
        let (_, pack) = sample(&keys);
        let directory = pack.entries.last().map(|entry| (entry.offset + entry.sealed) as usize).unwrap();
        // Every byte of the small chunks, the header, directory and trailer; some of the large chunk.
        let large = pack.entries[2].offset as usize + 50..pack.entries[3].offset as usize;
        for at in (0..pack.bytes.len()).filter(|at| !large.contains(at) || at % 999 == 0) {
            let mut changed = pack.bytes.to_vec();
            changed[at] ^= 1 << (at % 8);
            assert!(
                Pack::parse(&keys, &pack.id, changed.clone().into()).is_err(),
                "its name tells, byte {at}"
            );
            let renamed = PackId(*blake3::hash(&changed).as_bytes());
            let parsed = Pack::parse(&keys, &renamed, changed.clone().into());
            assert_eq!(parsed.is_err(), at < PACK_HEADER_LEN || at >= directory, "its directory, byte {at}");
            for entry in &pack.entries {
                let inside = (entry.offset..entry.offset + entry.sealed).contains(&(at as u32));
                if inside || at < PACK_HEADER_LEN {
                    assert!(open(&keys, &changed, entry).is_err(), "chunk at {}, byte {at}", entry.offset);
                }
            }
        }
    }

    #[test]
    fn r4_a_chunk_moved_inside_its_pack_or_to_another_does_not_open() {
        let keys = keys();
        let (_, pack) = sample(&keys);
        let mut changed = pack.bytes.to_vec();
        let zeros = pack.entries[1];
        let range = zeros.offset as usize..(zeros.offset + zeros.sealed) as usize;
        changed.copy_within(range.clone(), pack.entries[2].offset as usize);
        let moved = PackEntry { offset: pack.entries[2].offset, ..zeros };
        assert!(open(&keys, &changed, &moved).is_err());
        let sealer = keys.pack_sealer(0, &Env::fixed(1, 3)).unwrap();
        let mut other = pack.bytes.to_vec();
        other[..PACK_HEADER_LEN].copy_from_slice(sealer.header());
        assert!(open(&keys, &other, &zeros).is_err());
    }

    #[test]
    fn a_frame_that_grows_beyond_its_promise_is_refused() {
        // A bomb: a frame of 256 KiB under an entry that promises 100 bytes.
        let keys = keys();
        let sealer = keys.pack_sealer(0, &Env::fixed(1, 2)).unwrap();
        let mut builder = PackBuilder::new(sealer, BytesMut::new());
        let mut compressor = Compressor::new(1).unwrap();
        let bomb = vec![0; CHUNK_BYTES_MAX];
        builder.add(ChunkId::ZERO, 100, &compressor.compress(&bomb)).unwrap();
        let pack = builder.finish().unwrap();
        let refused = open(&keys, &pack.bytes, &pack.entries[0]).unwrap_err();
        assert!(refused.contains("another size"), "{refused}");
    }

    #[test]
    fn more_effort_makes_chunks_shorter_or_leaves_them_as_they_are() {
        let effort = Effort::default();
        let mut compressor = Compressor::new(2).unwrap();
        // Words in an order that takes a search to find.
        let words: Vec<String> =
            (0..500_u32).map(|n| format!("word{} ", n.wrapping_mul(2_654_435_761) % 97)).collect();
        let texts: Vec<Vec<u8>> = (0..60).map(|n| words[n..n + 400].concat().into_bytes()).collect();
        let mut lengths = Vec::new();
        for waits in [false, true] {
            effort.begin_pack(waits);
            let mut sum = 0;
            for text in texts.iter().cloned().chain([noise(40_000), vec![0; 100_000]]) {
                let chunk = compressor.compress_with(&text, &effort);
                sum += chunk.body.len();
                let plain = match chunk.method {
                    RAW => chunk.body.to_vec(),
                    _ => zstd::bulk::decompress(chunk.body, text.len()).unwrap(),
                };
                assert!(plain == text);
            }
            lengths.push(sum);
        }
        assert!(lengths[1] < lengths[0], "{lengths:?}");
    }

    #[test]
    fn noise_is_recognised_and_text_is_not() {
        assert!(looks_random(&noise(CHUNK_BYTES_MAX)));
        assert!(!looks_random(&noise(1_000)), "too little to tell");
        assert!(!looks_random(&b"the quick brown fox ".repeat(4_000)));
        let mut uneven = noise(CHUNK_BYTES_MAX);
        uneven.iter_mut().step_by(8).for_each(|byte| *byte &= 0x3f);
        assert!(!looks_random(&uneven), "a few per cent to gain");
    }

    proptest! {
        #[test]
        fn hostile_trailers_and_packs_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), magic: bool) {
            if magic && bytes.len() >= 64 {
                let end = bytes.len();
                bytes[end - 8..].copy_from_slice(TRAILER_MAGIC);
                bytes[..8].copy_from_slice(PACK_MAGIC);
            }
            let id = PackId(*blake3::hash(&bytes).as_bytes());
            let _ = Trailer::parse(&bytes, bytes.len() as u64);
            prop_assert!(Pack::parse(&keys(), &id, bytes.into()).is_err());
        }

        /// A directory that a holder of the index key made up is held to the bounds of its pack.
        #[test]
        fn hostile_directories_are_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let keys = keys();
            let sealer = keys.pack_sealer(0, &Env::fixed(1, 2)).unwrap();
            let mut sealed = body.clone();
            let tag = sealer.seal_directory(&mut sealed).unwrap();
            sealed.extend(tag);
            if let Ok((_, entries)) = open_directory(&keys, sealer.header(), &sealed, 1_000_000) {
                prop_assert!(body.len() == 44 * entries.len());
                prop_assert!(entries.iter().all(|entry| entry.offset + entry.sealed <= 1_000_000));
            }
        }

        #[test]
        fn whatever_is_compressed_is_what_is_opened(plain in proptest::collection::vec(0_u8..7, 1..3_000)) {
            let keys = keys();
            let mut builder = PackBuilder::new(keys.pack_sealer(1, &Env::fixed(1, 2)).unwrap(), BytesMut::new());
            builder.add(ChunkId::ZERO, plain.len(), &Compressor::new(1).unwrap().compress(&plain)).unwrap();
            let pack = builder.finish().unwrap();
            prop_assert_eq!(open(&keys, &pack.bytes, &pack.entries[0]), Ok(plain));
        }
    }
}
