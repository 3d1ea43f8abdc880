//! Every decoder that meets bytes from a store or from a user's file, as a table. For the fuzzer in `tests/fuzz`; no
//! interface of this crate.
//!
//! What is sealed is decoded here from its plain bytes: an attacker who holds a key can seal what he likes, and the
//! decoders must hold against him too. A new object kind gets its line here on the day it is made.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::bundle::Bundle;
use crate::cbor::{self, Broken, Decoder as Cbor};
use crate::commit::Sealed as SealedCommit;
use crate::crypto::{Keys, PACK_HEADER_LEN};
use crate::entry;
use crate::env::Env;
use crate::error::Error;
use crate::id::{ChunkId, CommitId, PackId, RepositoryId};
use crate::index::{Segment, SegmentChunk};
use crate::object::{
    CHUNK_BYTES_MAX, Capability, Content, EntryKind, Extent, ManifestEntry, NodeKind, Origin, PartOf, Root,
    Summary, TreeEntry,
};
use crate::pack::{self, Compressor, Decompressor, Lane, Pack, PackBuilder, Trailer, read_u32};
use crate::repo::{InitOptions, Repository};
use crate::secret::{Kdf, KeyFile, KeyWrap, Passphrase, RecoveryKey, Unlock, WrapError, WrappedKey};
use crate::store::mem::MemStore;
use crate::{hold, immutable, index, keys, lease, node, repo, summaries};
use zeroize::Zeroizing;

/// What a decoder made of bytes: the bytes it would write for them, if it can; or why it refused.
pub type Recoded = Result<Option<Vec<u8>>, String>;

/// Decodes and encodes again.
pub type Recode = Box<dyn Fn(&[u8]) -> Recoded>;

/// Whether bytes are taken for a sealed object.
pub type Opens = Box<dyn Fn(&[u8]) -> bool>;

/// One decoder.
pub struct Decoder {
    /// What it reads.
    pub name: &'static str,
    /// Whether equal values are equal bytes: what it accepts, it writes again exactly, but for map keys that it skips.
    pub strict: bool,
    /// Bytes it may allocate whatever the length of its input.
    pub slack: usize,
    /// Good inputs.
    pub samples: Vec<Vec<u8>>,
    /// Decodes and encodes again.
    pub recode: Recode,
}

/// One object that is sealed or named by its content, and whether bytes in its place would be taken for it.
pub struct Sealed {
    /// What it is.
    pub name: &'static str,
    /// It.
    pub bytes: Vec<u8>,
    /// Whether these bytes open, their name made to fit.
    pub opens: Opens,
}

fn what(broken: Broken) -> String {
    broken.what()
}

fn told(error: Error) -> String {
    error.to_string()
}

/// A stream of items.
fn items<T>(
    bytes: &[u8],
    decode: impl Fn(&mut Cbor<'_>) -> cbor::Decoded<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Recoded {
    let mut d = Cbor::new(bytes);
    let mut out = Vec::new();
    while d.position() < bytes.len() {
        out.extend(encode(&decode(&mut d).map_err(what)?));
    }
    Ok(Some(out))
}

/// A length in front of what it is the length of.
fn with_length(bytes: &[u8]) -> Result<(u64, &[u8]), String> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or("shorter than its length")?;
    Ok((u64::from_le_bytes(*length), rest))
}

struct Plugin;

impl KeyWrap for Plugin {
    fn name(&self) -> String {
        "a plugin".into()
    }
    fn key_id(&self) -> Result<String, WrapError> {
        Ok("key".into())
    }
    fn wrap(&self, plain: &[u8]) -> Result<WrappedKey, WrapError> {
        let annotations = [("a.example.com".to_string(), vec![1, 2])].into();
        Ok(WrappedKey { key_id: "key".into(), ciphertext: plain.to_vec(), annotations })
    }
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        Ok(Zeroizing::new(wrapped.ciphertext.clone()))
    }
}

/// A repository whose secrets are the same on every run, with a key object of each kind.
fn fixture() -> Result<(Repository, MemStore), Error> {
    let (store, env) = (MemStore::new(), Env::fixed(1_700_000_000_000_000_000, 77));
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repo = Repository::init(Arc::new(store.clone()), &Passphrase::new("words"), &options, &env)?;
    repo.add_key(&KeyFile::generate(&env)?, Capability::Put, "file", Kdf::cheap())?;
    repo.add_key(Unlock::Plugin(&Plugin), Capability::List, "plugin", Kdf::cheap())?;
    repo.add_recovery_key("recovery")?;
    Ok((repo, store))
}

fn summary() -> Summary {
    Summary {
        time: 1_700_000_000_000_000_000,
        started: -5,
        kind: "application".into(),
        labels: [("app".to_string(), "shop".to_string()), ("ü".to_string(), String::new())].into(),
        figures: [("bytes".to_string(), u64::MAX), ("files".to_string(), 3)].into(),
        parents: vec![CommitId([7; 32]), CommitId([8; 32])],
        origin: Some(Origin { repository: RepositoryId([6; 16]), commit: CommitId([9; 32]) }),
        writer: Some(crate::id::WriterId([5; 32])),
    }
}

fn root(level: u8) -> Root {
    Root { level, length: 200_000 << (4 * level), id: ChunkId([level + 1; 32]) }
}

fn manifest() -> Vec<u8> {
    let entry = |name: &str, kind, root| {
        let figures = [("bytes".to_string(), 9)].into();
        cbor::encode_manifest_entry(&ManifestEntry { name: name.into(), kind, root, figures })
    };
    [entry("objects", EntryKind::Bytes, root(0)), entry("volume", EntryKind::Tree, root(6))].concat()
}

/// Entries of every kind, each a sample, and all of them as one.
fn tree() -> Vec<Vec<u8>> {
    let extent = |at: u8| Extent { chunk: ChunkId([at; 32]), offset: 2, length: 7 };
    let file = |size, content, holes: &[(u64, u64)]| {
        let (ctime, inode, holes) = (i64::MIN, u64::MAX, holes.to_vec());
        NodeKind::File { ctime, inode, size, content, holes }
    };
    let kinds = [
        NodeKind::Directory,
        file(0, Content::Extents(vec![]), &[]),
        file(56, Content::Extents((0..8).map(extent).collect()), &[]),
        file(1 << 40, Content::Extents(vec![extent(9)]), &[(0, 4096), (4100, (1 << 40) - 4103)]),
        file(200_000 << 8, Content::Stream(root(2)), &[]),
        NodeKind::Symlink { target: b"../\xff".to_vec() },
        NodeKind::HardLink { target: b"a/b".to_vec() },
        NodeKind::Fifo,
        NodeKind::CharDevice { major: 1, minor: 300_000 },
        NodeKind::BlockDevice { major: 8, minor: 1 },
        NodeKind::Socket,
    ];
    let mut all: Vec<Vec<u8>> = kinds
        .into_iter()
        .enumerate()
        .map(|(at, kind)| {
            let link = matches!(kind, NodeKind::HardLink { .. });
            let path = if at == 0 { vec![] } else { format!("dir/entry-{at}").into_bytes() };
            let (mode, uid, gid, mtime) = if link { (0, 0, 0, 0) } else { (0o4751, 1000, 100, -1) };
            let xattrs = match at {
                2 => [(b"user.a".to_vec(), vec![]), (b"user.b".to_vec(), vec![0, 255])].into(),
                _ => Default::default(),
            };
            entry::encode_tree_entry(&TreeEntry { path, kind, mode, uid, gid, mtime, xattrs })
        })
        .collect();
    all.push(all.concat());
    all
}

fn segment() -> Result<Vec<u8>, Error> {
    let chunks = (0..40_u8)
        .map(|at| SegmentChunk {
            id: ChunkId([at; 32]),
            pack: u32::from(at % 2),
            offset: 48 + 1000 * u32::from(at / 2),
            sealed: 1000,
            plain: 4000,
        })
        .collect();
    Segment { packs: vec![(PackId([1; 32]), 40_000), (PackId([2; 32]), 50_000)], chunks }.encode()
}

/// A node of which every second leaf is a part, or none; its length is in front.
fn node(parts: bool) -> Vec<u8> {
    let lengths = [1_u64, 262_144, 77, 4_096];
    let mut bytes = lengths.iter().sum::<u64>().to_le_bytes().to_vec();
    for (at, length) in lengths.iter().enumerate() {
        let part = PartOf { chunk: ChunkId([7; 32]), offset: 1_000 };
        let part = Some(part).filter(|_| parts && at % 2 == 0);
        node::put_ref(&mut bytes, &ChunkId([at as u8; 32]), *length, part.as_ref());
    }
    bytes
}

fn recode_node(level: u8, bytes: &[u8]) -> Recoded {
    let (length, node) = with_length(bytes)?;
    node::check_node(level, node, length)?;
    let mut out = length.to_le_bytes().to_vec();
    for one in node::node_refs(level, node) {
        node::put_ref(&mut out, &one.id, one.length, one.part_of.as_ref());
    }
    Ok(Some(out))
}

fn finished_pack(keys: &Keys) -> Result<Vec<u8>, Error> {
    let sealer = keys.pack_sealer(Lane::Data.kind(), &Env::fixed(1, 2))?;
    let mut builder = PackBuilder::new(sealer, BytesMut::new());
    let (mut compressor, ids) = (Compressor::new(1)?, keys.chunk_ids()?);
    for plain in [b"x".to_vec(), vec![0; 5_000], b"hold fast ".repeat(30)] {
        builder.add(ids.id(&plain), plain.len(), &compressor.compress(&plain))?;
    }
    Ok(builder.finish()?.bytes.to_vec())
}

/// A directory as somebody with a key could have sealed it.
fn recode_directory(keys: &Keys, plain: &[u8]) -> Recoded {
    let sealer = keys.pack_sealer(0, &Env::fixed(1, 3)).map_err(told)?;
    let mut sealed = plain.to_vec();
    let tag = sealer.seal_directory(&mut sealed).map_err(told)?;
    sealed.extend(tag);
    let last = plain.len().checked_sub(12).map_or(0, |at| read_u32(plain, at) as usize);
    let end = last + plain.len().checked_sub(8).map_or(0, |at| read_u32(plain, at) as usize);
    let (_, entries) = pack::open_directory(keys, sealer.header(), &sealed, end)?;
    let mut out = Vec::with_capacity(plain.len());
    for entry in entries {
        out.extend(entry.id.as_bytes());
        for number in [entry.offset, entry.sealed, entry.plain] {
            out.extend(number.to_le_bytes());
        }
    }
    Ok(Some(out))
}

fn directory() -> Vec<u8> {
    let mut out = Vec::new();
    for at in 0..5_u32 {
        out.extend([at as u8; 32]);
        for number in [48 + 500 * at, 500, 483 + at] {
            out.extend(number.to_le_bytes());
        }
    }
    out
}

/// A chunk as somebody with a key could have sealed it; its promised length is in front.
fn recode_chunk(keys: &Keys, bytes: &[u8]) -> Recoded {
    let (length, body) = with_length(bytes)?;
    let sealer = keys.pack_sealer(0, &Env::fixed(1, 3)).map_err(told)?;
    let opener = keys.pack_opener(sealer.header()).map_err(told)?;
    let mut sealed = body.to_vec();
    let tag = sealer.seal_chunk(48, &mut sealed).map_err(told)?;
    sealed.extend(tag);
    let plain = usize::try_from(length).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
    let mut decompressor = Decompressor::new().map_err(told)?;
    let opened = decompressor.open(&opener, 48, &sealed, plain)?;
    if opened.len() == plain { Ok(None) } else { Err("MORE OR LESS THAN WAS PROMISED".into()) }
}

fn chunks() -> Result<Vec<Vec<u8>>, Error> {
    let plain = b"hold fast ".repeat(60);
    let mut compressor = zstd::bulk::Compressor::new(3).map_err(|error| Error::failed(error.to_string()))?;
    let body = compressor.compress(&plain).map_err(|error| Error::failed(error.to_string()))?;
    let length = (plain.len() as u64).to_le_bytes();
    Ok(vec![[&length[..], &[0], &plain].concat(), [&length[..], &[1], &body].concat()])
}

/// All of them.
pub fn all() -> Result<Vec<Decoder>, Error> {
    let (repository, store) = fixture()?;
    let secrets = repository.secrets().clone();
    let env = Env::fixed(1, 4);
    let key_objects: Vec<Vec<u8>> = store
        .snapshot()
        .into_iter()
        .filter(|(key, _)| key.starts_with(crate::id::KEYS))
        .map(|(_, bytes)| bytes.to_vec())
        .collect();
    let bundles = [Capability::Put, Capability::List, Capability::Read]
        .map(|capability| secrets.restrict(capability).map(|keys| keys.encode().to_vec()));
    let [for_directory, for_chunk, for_record] = [(); 3].map(|()| secrets.clone());
    let pack = finished_pack(&secrets)?;
    let trailer = [&(pack.len() as u64).to_le_bytes()[..], &pack[pack.len() - Trailer::LEN..]].concat();
    let row =
        |name, strict, samples, recode: Recode| Decoder { name, strict, slack: 64 * 1024, samples, recode };
    let mut all = vec![
        row(
            "header",
            false,
            vec![repository.header().to_vec()],
            Box::new(|bytes| repo::recode_header(bytes).map(Some).map_err(told)),
        ),
        row("key-object", false, key_objects, Box::new(|bytes| keys::recode(bytes).map(Some))),
        row(
            "key-file",
            false,
            vec![KeyFile::generate(&env)?.to_text().as_bytes().to_vec()],
            Box::new(|bytes| {
                KeyFile::parse(bytes).map(|key| Some(key.to_text().as_bytes().to_vec())).map_err(told)
            }),
        ),
        row(
            "recovery-key",
            false,
            vec![RecoveryKey::generate(&env)?.to_text().as_bytes().to_vec()],
            Box::new(|bytes| {
                let text = std::str::from_utf8(bytes).map_err(|_| "not text")?;
                RecoveryKey::parse(text).map(|key| Some(key.to_text().as_bytes().to_vec())).map_err(told)
            }),
        ),
        row(
            "bundle",
            true,
            bundles.into_iter().collect::<Result<_, _>>()?,
            Box::new(|bytes| Keys::decode(bytes).map(|keys| Some(keys.encode().to_vec()))),
        ),
        row(
            "summary",
            true,
            vec![cbor::encode_summary(&summary()), cbor::encode_summary(&Summary::default())],
            Box::new(|bytes| {
                cbor::decode_summary(bytes).map(|value| Some(cbor::encode_summary(&value))).map_err(what)
            }),
        ),
        row(
            "commit-root",
            true,
            vec![cbor::encode_commit_root(&root(3)), cbor::encode_commit_root(&Root::EMPTY)],
            Box::new(|bytes| {
                cbor::decode_commit_root(bytes)
                    .map(|value| Some(cbor::encode_commit_root(&value)))
                    .map_err(what)
            }),
        ),
        row(
            "manifest",
            true,
            vec![manifest()],
            Box::new(|bytes| items(bytes, cbor::decode_manifest_entry, cbor::encode_manifest_entry)),
        ),
        row(
            "tree",
            true,
            tree(),
            Box::new(|bytes| items(bytes, entry::decode_tree_entry, entry::encode_tree_entry)),
        ),
        row("node", true, vec![node(false), node(true)], Box::new(|bytes| recode_node(0, bytes))),
        row("node-above", true, vec![node(false)], Box::new(|bytes| recode_node(1, bytes))),
        row(
            "pack-header",
            true,
            vec![pack[..PACK_HEADER_LEN].to_vec()],
            Box::new(|bytes| {
                let header = bytes.try_into().map_err(|_| "not 48 bytes")?;
                pack::check_header(header).map(|_| Some(bytes.to_vec()))
            }),
        ),
        row(
            "pack-trailer",
            true,
            vec![trailer],
            Box::new(|bytes| {
                let (size, trailer) = with_length(bytes)?;
                Trailer::parse(trailer, size).map(|_| None)
            }),
        ),
        row(
            "pack-directory",
            true,
            vec![directory()],
            Box::new(move |bytes| recode_directory(&for_directory, bytes)),
        ),
        row(
            "index-segment",
            true,
            vec![segment()?],
            Box::new(|bytes| Segment::decode(bytes)?.encode().map(Some).map_err(told)),
        ),
        Decoder {
            name: "chunk",
            strict: true,
            // What was promised, and no more, whatever a compressed frame says of itself.
            slack: CHUNK_BYTES_MAX + 64 * 1024,
            samples: chunks()?,
            recode: Box::new(move |bytes| recode_chunk(&for_chunk, bytes)),
        },
        row(
            "lock-record",
            true,
            immutable::record_samples(&secrets),
            Box::new(move |bytes| match immutable::recode_record(&for_record, bytes) {
                Some(again) => Ok(Some(again)),
                None => Err("no record of locks".into()),
            }),
        ),
        row("hold", true, hold::samples(), Box::new(|bytes| hold::recode(bytes).map(Some).map_err(what))),
        row(
            "check-note",
            true,
            crate::check::note_samples(),
            Box::new(|bytes| crate::check::recode_note(bytes).map(Some).map_err(what)),
        ),
    ];
    all.push(row(
        "void",
        true,
        vec![vec![7; 32]],
        Box::new(|bytes| match lease::decode_void(bytes) {
            Some(secret) => Ok(Some(secret.to_vec())),
            None => Err("not 32 bytes".into()),
        }),
    ));
    // What a machine keeps of a repository is sealed, too, and its disk may lie.
    let commits = [(CommitId([1; 32]), summary()), (CommitId([2; 32]), Summary::default())];
    let kept = commits.iter().flat_map(|(id, summary)| {
        let summary = cbor::encode_summary(summary);
        [id.as_bytes().to_vec(), (summary.len() as u32).to_le_bytes().to_vec(), summary].concat()
    });
    all.push(row(
        "cache-commits",
        true,
        vec![kept.collect(), vec![]],
        Box::new(|bytes| summaries::recode(bytes).map(Some)),
    ));
    all.push(row(
        "cache-table",
        true,
        index::run::table_samples(),
        Box::new(|bytes| match index::run::recode_table(bytes) {
            Some(again) => Ok(Some(again)),
            None => Err("no table of a run".into()),
        }),
    ));
    for (name, samples, recode) in lease::rows() {
        all.push(row(name, true, samples, Box::new(move |bytes| recode(bytes).map(Some).map_err(what))));
    }
    Ok(all)
}

/// Objects that nobody without a key can make or change.
pub fn sealed() -> Result<Vec<Sealed>, Error> {
    let (repository, store) = fixture()?;
    let secrets = repository.secrets();
    let env = Env::fixed(1, 5);
    let mut all = Vec::new();
    let keys = secrets.clone();
    all.push(Sealed {
        name: "pack",
        bytes: finished_pack(secrets)?,
        opens: Box::new(move |bytes| {
            // Its directory opens, and so does every chunk.
            let id = PackId(*blake3::hash(bytes).as_bytes());
            let Ok(pack) = Pack::parse(&keys, &id, Bytes::copy_from_slice(bytes)) else { return false };
            let header = bytes.first_chunk::<PACK_HEADER_LEN>();
            let Some(opener) = header.and_then(|header| keys.pack_opener(header).ok()) else { return false };
            let Ok(mut decompressor) = Decompressor::new() else { return false };
            pack.entries.iter().all(|entry| {
                let start = entry.offset as usize;
                let sealed = bytes.get(start..start + entry.sealed as usize).unwrap_or_default();
                decompressor.open(&opener, entry.offset, sealed, entry.plain as usize).is_ok()
            })
        }),
    });
    let keys = secrets.clone();
    all.push(Sealed {
        name: "index segment",
        bytes: secrets.seal_segment(&segment()?, &env)?,
        opens: Box::new(move |bytes| keys.open_segment(&mut bytes.to_vec()).is_ok()),
    });
    let keys = secrets.clone();
    all.push(Sealed {
        name: "commit",
        bytes: crate::commit::encode(secrets, &summary(), &root(1), &env)?,
        opens: Box::new(move |bytes| {
            let id = CommitId(*blake3::hash(bytes).as_bytes());
            let parts =
                |sealed: SealedCommit<'_>| sealed.summary(&keys).is_ok() || sealed.manifest(&keys).is_ok();
            SealedCommit::parse(&keys, &id, bytes).is_ok_and(parts)
        }),
    });
    // What one process hands to another: a bit that flips on the way must not make keys that open nothing.
    all.push(Sealed {
        name: "handed bundle",
        bytes: repository.bundle(Capability::Put)?.as_bytes().to_vec(),
        opens: Box::new(|bytes| Bundle::from_bytes(bytes).is_ok()),
    });
    let (object, key_object) = store
        .snapshot()
        .into_iter()
        .find(|(key, bytes)| {
            key.starts_with(crate::id::KEYS) && bytes.windows(8).any(|part| part == b"argon2id")
        })
        .ok_or_else(|| Error::failed("no key object"))?;
    let header = repository.header().clone();
    all.push(Sealed {
        name: "key object",
        bytes: key_object.to_vec(),
        opens: Box::new(move |bytes| {
            let alone = MemStore::new();
            alone.tamper(&object, None);
            alone.tamper(&keys::name_of(bytes), Some(Bytes::copy_from_slice(bytes)));
            keys::open(&alone, (&Passphrase::new("words")).into(), &header).is_ok()
        }),
    });
    Ok(all)
}
