//! Packs: many sealed chunks in one object, with a sealed directory at the end.
//!
//! A pack is built in one buffer: the compressed chunk is appended, sealed where it lies, and the whole is
//! put as it is. A chunk's nonce is its offset and its additional data the pack's header, so a chunk that was
//! moved, swapped or cut does not open (R4).

use bytes::{BufMut, Bytes, BytesMut};

use crate::crypto::{Keys, PACK_HEADER_LEN, PACK_MAGIC, PackOpener, PackSealer, TAG_LEN};
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
}

impl Compressor {
    pub(crate) fn new(level: i32) -> Result<Compressor, Error> {
        let zstd = zstd::bulk::Compressor::new(level)
            .map_err(|error| Error::failed(format!("zstd could not be set up: {error}")))?;
        Ok(Compressor { zstd, out: Vec::with_capacity(CHUNK_BYTES_MAX) })
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
        Ok(FinishedPack { id, bytes: self.buffer.freeze(), entries: self.entries })
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
        let Some((rest, trailer)) = bytes.split_last_chunk::<TRAILER_LEN>() else {
            return Err("it is too short for a pack".into());
        };
        let _ = rest;
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
                opened.and_then(|plain| match ids.id(&plain) == entry.id {
                    true => Ok(()),
                    false => Err("its content is not what its id says".into()),
                }),
            );
        }
        Ok(())
    }
}

/// Opens, decompresses and verifies chunks; one for each thread, with its buffers.
pub(crate) struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
    opened: Vec<u8>,
}

impl Decompressor {
    pub(crate) fn new() -> Result<Decompressor, Error> {
        let zstd = zstd::bulk::Decompressor::new()
            .map_err(|error| Error::failed(format!("zstd could not be set up: {error}")))?;
        Ok(Decompressor { zstd, opened: Vec::new() })
    }

    /// The plain bytes of a chunk, without the check of its id, which is the caller's.
    pub(crate) fn open(
        &mut self,
        opener: &PackOpener,
        offset: u32,
        sealed: &[u8],
        plain: usize,
    ) -> Result<Vec<u8>, String> {
        if !opener.open_chunk(offset, sealed, &mut self.opened) {
            return Err("its authentication tag does not fit".into());
        }
        match self.opened.split_first() {
            Some((&RAW, body)) if body.len() == plain => Ok(body.to_vec()),
            Some((&RAW, body)) => Err(format!("{} bytes where {plain} were promised", body.len())),
            Some((&ZSTD, body)) => {
                // Never more than was promised, whatever the frame says of itself.
                let promised = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
                if promised != Some(plain as u64) {
                    return Err("a compressed frame of another size than promised".into());
                }
                let mut out = Vec::with_capacity(plain);
                match self.zstd.decompress_to_buffer(body, &mut out) {
                    Ok(len) if len == plain => Ok(out),
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
