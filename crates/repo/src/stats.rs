//! Statistics: what a repository holds, and what deduplication and compression saved.

use serde::Serialize;

use crate::error::Error;
use crate::id::{COMMITS, HEADER, HOLDS, INDEX, KEYS, PACKS};
use crate::lease;
use crate::monitor::Finding;
use crate::object::Capability;
use crate::repo::Repository;

/// How many objects of a kind there are, and their bytes in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Objects {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Objects {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What a repository holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Key objects.
    pub keys: Objects,
    /// Packs.
    pub packs: Objects,
    /// Index segments.
    pub index: Objects,
    /// Commits.
    pub commits: Objects,
    /// Holds.
    pub holds: Objects,
    /// Leases of writers, and what collections leave for them.
    pub collection: Objects,
    /// Anything else, the header aside; never read.
    pub others: Objects,
    /// All objects.
    pub total: Objects,
    /// Different chunks.
    pub chunks: u64,
    /// Plain bytes of these: what the content takes once deduplicated.
    pub bytes_unique: u64,
    /// Sealed bytes of these: what it takes once compressed, too.
    pub bytes_sealed: u64,
    /// Bytes all recovery points would take if each were restored, as far as they say. `None` with the put key, which
    /// may not read what they say.
    pub bytes_logical: Option<u64>,
    /// Recovery points that do not say how many bytes they have.
    pub points_without_bytes: u64,
    /// `bytes_logical / bytes_unique`; `None` if either is unknown or zero.
    pub dedup_ratio: Option<f64>,
    /// `bytes_unique / bytes_sealed`; `None` while there is nothing.
    pub compression_ratio: Option<f64>,
    /// What was found damaged on the way; the figures are without it.
    pub findings: Vec<Finding>,
}

/// The figure in which a commit says how many bytes it restores to.
pub const BYTES_FIGURE: &str = "bytes";

/// Counts. Reads the listing, the index and the commits, no pack.
pub fn stats(repo: &Repository) -> Result<Stats, Error> {
    let mut stats = Stats::default();
    repo.store().list("", &mut |object| {
        let kind = match object.key.as_str() {
            HEADER => None,
            key if key.starts_with(KEYS) => Some(&mut stats.keys),
            key if key.starts_with(PACKS) => Some(&mut stats.packs),
            key if key.starts_with(INDEX) => Some(&mut stats.index),
            key if key.starts_with(COMMITS) => Some(&mut stats.commits),
            key if key.starts_with(HOLDS) => Some(&mut stats.holds),
            key if lease::is_known(key) => Some(&mut stats.collection),
            _ => Some(&mut stats.others),
        };
        if let Some(objects) = kind {
            objects.add(object.size);
        }
        stats.total.add(object.size);
        Ok(())
    })?;

    let index = repo.index()?;
    stats.findings.extend_from_slice(index.findings());
    index.each_chunk(&mut |places| {
        if let Some((_, place)) = places.first() {
            stats.chunks += 1;
            stats.bytes_unique += u64::from(place.plain);
            stats.bytes_sealed += u64::from(place.sealed);
        }
        Ok(())
    })?;

    if repo.capability() != Capability::Put {
        let commits = repo.commits()?;
        stats.findings.extend(commits.findings);
        let mut logical = 0_u64;
        for commit in commits.done {
            match commit.summary.figures.get(BYTES_FIGURE) {
                Some(bytes) => logical = logical.saturating_add(*bytes),
                None => stats.points_without_bytes += 1,
            }
        }
        stats.bytes_logical = Some(logical);
        if stats.points_without_bytes == 0 {
            stats.dedup_ratio = ratio(logical, stats.bytes_unique);
        }
    }
    stats.compression_ratio = ratio(stats.bytes_unique, stats.bytes_sealed);
    Ok(stats)
}

fn ratio(of: u64, to: u64) -> Option<f64> {
    (of > 0 && to > 0).then(|| of as f64 / to as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::store::mem::MemStore;
    use crate::{
        CommitDraft, EntryKind, Env, InitOptions, Kdf, Lane, ManifestEntry, Passphrase, WriterOptions,
    };

    #[test]
    fn what_is_stored_twice_and_compressed_shows() {
        let store = Arc::new(MemStore::new());
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let repo =
            Repository::init(store.clone(), &Passphrase::new("x"), &options, &Env::fixed(0, 1)).unwrap();
        let empty = stats(&repo).unwrap();
        assert_eq!((empty.dedup_ratio, empty.compression_ratio, empty.chunks), (None, None, 0));
        assert_eq!((empty.total.count, empty.keys.count), (2, 1));

        // Numbers as text: compresses well, and does not repeat at the distance of a chunk.
        let content: Vec<u8> = (0..200_000_u32).flat_map(|n| format!("{n:09} ").into_bytes()).collect();
        for _ in 0..2 {
            let writer = repo.writer(WriterOptions::default()).unwrap();
            let mut stream = writer.stream(Lane::Data);
            stream.write_all(&content).unwrap();
            let root = stream.finish().unwrap();
            let manifest = vec![ManifestEntry {
                name: "a".into(),
                kind: EntryKind::Bytes,
                root,
                figures: BTreeMap::new(),
            }];
            let figures = BTreeMap::from([(BYTES_FIGURE.to_owned(), content.len() as u64)]);
            let draft = CommitDraft { kind: "volume".into(), manifest, figures, ..CommitDraft::default() };
            writer.commit(draft).unwrap();
            repo.env().advance(1);
        }
        let stats = stats(&repo).unwrap();
        assert_eq!((stats.commits.count, stats.others.count, stats.points_without_bytes), (2, 0, 0));
        assert_eq!(stats.bytes_logical, Some(4_000_000));
        assert!(
            stats.bytes_unique >= 2_000_000 && stats.bytes_unique < 2_010_000,
            "content, nodes, a manifest"
        );
        assert!((1.99..2.0).contains(&stats.dedup_ratio.unwrap()), "{:?}", stats.dedup_ratio);
        assert!(stats.compression_ratio.unwrap() > 2.0, "{:?}", stats.compression_ratio);
        assert!(stats.packs.bytes > stats.bytes_sealed, "packs have headers and directories");
        let parts = [stats.keys, stats.packs, stats.index, stats.commits, stats.collection];
        let header = store.snapshot()["holdfast.json"].len() as u64;
        assert_eq!(stats.total.bytes, parts.iter().map(|part| part.bytes).sum::<u64>() + header);
        assert_eq!(stats.total.count, parts.iter().map(|part| part.count).sum::<u64>() + 1);
    }
}
