//! The summaries of commits this machine has seen, so that listing 100,000 points takes one listing and reads
//! only the new ones.
//!
//! A commit never changes, so its summary is true for as long as its name is listed. They are kept in the
//! local cache in a few files, each sealed whole with a key that only those who may list have:
//!
//! ```text
//! file   = "HFCACHE2" (8) ‖ salt (32) ‖ sealed records
//! record = commit id (32) ‖ length (u32) ‖ summary (CBOR, as in the commit)
//! ```
//!
//! What does not open is removed and fetched again. A check does not look here: it reads the commits.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use crate::cbor;
use crate::crypto::Keys;
use crate::id::CommitId;
use crate::local::{Local, Spot};
use crate::object::{CommitInfo, Summary};
use crate::pack::read_u32;

const MAGIC: &[u8; 8] = b"HFCACHE2";
const HEAD: usize = 40;
const PART: &str = "commits";
const ENDING: &str = ".sums";
/// Files of so few records are written again with whatever comes.
const SMALL_FILE: usize = 500;

/// What the cache holds of the commits that are listed.
#[derive(Default)]
pub(crate) struct Summaries {
    /// Each once.
    pub(crate) known: Vec<CommitInfo>,
    files: Vec<FileOf>,
}

struct FileOf {
    path: PathBuf,
    records: usize,
    /// Of these, commits that are still listed and that no file before this one has.
    living: Vec<CommitId>,
}

impl Summaries {
    /// What the cache holds of `listed`, and those that it does not.
    pub(crate) fn load(local: &Local, keys: &Keys, listed: Vec<CommitId>) -> (Summaries, Vec<CommitId>) {
        let mut summaries = Summaries::default();
        let files = local.files(PART, ENDING);
        if files.is_empty() {
            return (summaries, listed);
        }
        let mut wanted: HashSet<CommitId> = listed.into_iter().collect();
        for path in files {
            let Some(records) = std::fs::read(&path).ok().and_then(|bytes| open(keys, bytes)) else {
                tracing::debug!(path = %path.display(), "no summaries of this repository; fetched again");
                let _ = std::fs::remove_file(&path);
                continue;
            };
            let count = records.len();
            let mut living = Vec::new();
            for (id, summary) in records {
                if wanted.remove(&id) {
                    living.push(id);
                    summaries.known.push(CommitInfo { id, summary });
                }
            }
            summaries.files.push(FileOf { path, records: count, living });
        }
        let mut unknown: Vec<CommitId> = wanted.into_iter().collect();
        unknown.sort_unstable();
        (summaries, unknown)
    }

    /// Keeps those that were not known, and puts small files together. Failing to is no loss.
    pub(crate) fn keep(&self, local: &Local, keys: &Keys, news: &[CommitInfo]) {
        let mut files: Vec<&FileOf> = self.files.iter().collect();
        files.sort_by_key(|file| file.living.len());
        let (mut sum, mut merged) = (news.len(), 0);
        for (at, file) in files.iter().enumerate() {
            let few = !news.is_empty() && file.living.len() <= SMALL_FILE.max(2 * sum);
            if few || 2 * file.living.len() < file.records {
                merged = at + 1;
            }
            sum += file.living.len();
        }
        if news.is_empty() && merged == 0 {
            return;
        }
        let merged = files.get(..merged).unwrap_or_default();
        let old: HashSet<&CommitId> = merged.iter().flat_map(|file| &file.living).collect();
        let old = self.known.iter().filter(|info| old.contains(&info.id));
        let all: BTreeMap<&CommitId, &Summary> =
            old.chain(news).map(|info| (&info.id, &info.summary)).collect();
        if let Err(what) = write(local, keys, &all) {
            tracing::debug!(what, "summaries are not kept");
            return;
        }
        for file in merged {
            let _ = std::fs::remove_file(&file.path);
        }
    }
}

fn write(local: &Local, keys: &Keys, all: &BTreeMap<&CommitId, &Summary>) -> Result<(), String> {
    if all.is_empty() {
        return Ok(());
    }
    let salt = local.salt().map_err(|error| error.to_string())?;
    let mut sealed = encode(all.iter().map(|(id, summary)| (*id, *summary)))?;
    let cipher = keys.commit_cache(&salt).map_err(|error| error.to_string())?;
    cipher.seal(0, 0, &mut sealed).map_err(|error| error.to_string())?;
    let mut scratch = local.scratch(Spot::Cache, PART).map_err(|error| error.to_string())?;
    let head = [MAGIC.as_slice(), &salt].concat();
    scratch.write_at(&head, 0).map_err(|error| error.to_string())?;
    scratch.write_at(&sealed, HEAD as u64).map_err(|error| error.to_string())?;
    match local.publish(&mut scratch, ENDING) {
        Some(_) => Ok(()),
        None => Err("the file got no name".to_owned()),
    }
}

fn open(keys: &Keys, mut bytes: Vec<u8>) -> Option<Vec<(CommitId, Summary)>> {
    let mut sealed = bytes.split_off(HEAD.min(bytes.len()));
    let salt = bytes.strip_prefix(MAGIC)?.first_chunk::<32>()?;
    if !keys.commit_cache(salt).ok()?.open(0, 0, &mut sealed) {
        return None;
    }
    decode(&sealed)
}

/// What is sealed in a file: records of an id, a length and a summary.
fn encode<'s>(all: impl Iterator<Item = (&'s CommitId, &'s Summary)>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for (id, summary) in all {
        let summary = cbor::encode_summary(summary);
        out.extend(id.as_bytes());
        out.extend(u32::try_from(summary.len()).map_err(|error| error.to_string())?.to_le_bytes());
        out.extend(summary);
    }
    Ok(out)
}

/// For the fuzzer: there and back.
pub(crate) fn recode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let records = decode(bytes).ok_or("no records of commits")?;
    encode(records.iter().map(|(id, summary)| (id, summary)))
}

fn decode(sealed: &[u8]) -> Option<Vec<(CommitId, Summary)>> {
    let (mut rest, mut records) = (sealed, Vec::new());
    while !rest.is_empty() {
        let (head, more) = rest.split_at_checked(36)?;
        let (summary, more) = more.split_at_checked(read_u32(head, 32) as usize)?;
        let id = CommitId::from_slice(head.get(..32)?)?;
        records.push((id, cbor::decode_summary(summary).ok()?));
        rest = more;
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use crate::id::COMMITS;
    use crate::store::mem::MemStore;
    use crate::store::record::{Record, Verb};
    use crate::store::{Store, list_all};
    use crate::*;

    struct Site {
        store: Arc<Record<MemStore>>,
        disk: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Site {
            let store = Arc::new(Record::new(MemStore::new()));
            let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
            let env = Env::fixed(1, 1);
            let repo = Repository::init(store.clone(), &Passphrase::new("x"), &options, &env).unwrap();
            repo.add_key(&Passphrase::new("list"), Capability::List, "", Kdf::cheap()).unwrap();
            Site { store, disk: tempfile::tempdir().unwrap() }
        }

        /// As a process that just started would.
        fn open(&self, passphrase: &str) -> Repository {
            let local = LocalOptions { cache: Some(self.disk.path().into()), ..LocalOptions::default() };
            Repository::open(self.store.clone(), &Passphrase::new(passphrase), &Env::real())
                .unwrap()
                .with_local(&local)
        }

        fn commit(&self, label: &str) -> CommitId {
            let draft = CommitDraft {
                kind: "volume".into(),
                labels: [("n".to_owned(), label.to_owned())].into(),
                ..CommitDraft::default()
            };
            let writer = self.open("x").writer(WriterOptions { threads: 1, ..WriterOptions::default() });
            writer.unwrap().commit(draft).unwrap().id
        }

        /// What is listed, and how many commits were fetched for it.
        fn listed(&self, passphrase: &str) -> (BTreeSet<String>, usize) {
            let repo = self.open(passphrase);
            self.store.clear();
            let commits = repo.commits().unwrap();
            assert_eq!(commits.findings, []);
            let labels = commits.done.iter().map(|info| info.summary.labels["n"].clone()).collect();
            (labels, self.store.count(Verb::Get, COMMITS))
        }

        fn files(&self) -> Vec<std::path::PathBuf> {
            let folder = std::fs::read_dir(self.disk.path()).unwrap().next().unwrap().unwrap().path();
            std::fs::read_dir(folder.join("commits")).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
    }

    #[test]
    fn a_list_reads_only_commits_it_has_not_seen() {
        let site = Site::new();
        let mut labels = BTreeSet::new();
        let mut ids = Vec::new();
        for number in 0..12 {
            labels.insert(format!("point {number}"));
            ids.push(site.commit(&format!("point {number}")));
            if number % 3 == 0 {
                let (listed, fetched) = site.listed("x");
                assert_eq!((&listed, fetched), (&labels, if number == 0 { 1 } else { 3 }));
            }
        }
        assert_eq!(site.listed("list"), (labels.clone(), 2), "each key that may list shares it");
        assert_eq!(site.listed("x"), (labels.clone(), 0));
        assert_eq!(site.files().len(), 1);

        // Deleted points are gone at once, and forgotten when most of a file is.
        for (id, number) in ids.iter().zip(0..10) {
            site.store.delete(&id.key()).unwrap();
            labels.remove(&format!("point {number}"));
        }
        assert_eq!(site.listed("x"), (labels.clone(), 0));
        let before = std::fs::metadata(&site.files()[0]).unwrap().len();
        assert_eq!(site.listed("x"), (labels, 0));
        assert!(std::fs::metadata(&site.files()[0]).unwrap().len() <= before);
        assert_eq!(list_all(&*site.store, COMMITS).unwrap().len(), 2);
    }

    /// Puts the commits of `POINTS_OF` applications' points, then does what `POINTS_DO` says; prints its peak.
    #[test]
    #[ignore = "one step of the test below, which starts it in a process of its own"]
    fn child() {
        let asked = |name| std::env::var(name).expect("the test below says what");
        let site = Site::new();
        let repo = site.open("x");
        for number in 0..asked("POINTS_OF").parse::<i64>().unwrap() {
            let labels = ["application", "cluster", "namespaces", "consistency", "complete", "holdfast"];
            let figures =
                ["objects", "shared", "volumes", "bytes", "files", "chunks_new", "bytes_stored", "packs"];
            let summary = Summary {
                time: number * 3_600_000_000_000,
                started: number,
                kind: "application".into(),
                labels: labels.map(|name| (name.into(), format!("{name} {}", number % 100))).into(),
                figures: figures.map(|name| (name.into(), number as u64)).into(),
                parents: vec![CommitId::ZERO],
                origin: None,
                writer: None,
            };
            let bytes = crate::commit::encode(repo.secrets(), &summary, &Root::EMPTY, repo.env()).unwrap();
            let id = CommitId(*blake3::hash(&bytes).as_bytes());
            site.store.put(&id.key(), bytes.into()).unwrap();
        }
        site.store.clear();
        if asked("POINTS_DO") == "list" {
            // A listing that fetches them all, and one that finds them in the cache.
            drop(repo.commits().unwrap());
            site.store.clear();
            let points = crate::delete::points(&repo.commits().unwrap().done, &[], i64::MAX);
            let policy = retain::Policy { daily: 7, ..retain::Policy::default() };
            let plan = crate::delete::Plan::by_policy(&repo, points, &policy, &|_| 0).unwrap();
            assert_eq!(plan.drops().count() + 700, plan.decisions().len());
        }
        crate::cost::tell();
    }

    /// What listing so many points, and a retention plan of them, add to the peak of a process, in bytes.
    fn peak(count: u64) -> u64 {
        let [before, with] = ["nothing", "list"].map(|what| {
            let mut step = crate::cost::step("summaries::tests::child");
            crate::cost::peak_of(step.env("POINTS_OF", count.to_string()).env("POINTS_DO", what))
        });
        println!("{count} points: {} KiB, and {} KiB after a plan", before >> 10, with >> 10);
        with.saturating_sub(before)
    }

    /// Lists of points are what grows: by their summaries, once.
    #[test]
    fn r6_a_list_of_many_points_takes_little_memory() {
        let [few, many] = [3_000, 15_000].map(peak);
        assert!(many < few + 12_000 * 4_096, "{few} and {many} bytes");
    }

    #[test]
    fn a_damaged_cache_of_commits_is_fetched_again() {
        let site = Site::new();
        let labels = BTreeSet::from(["here".to_owned(), "there".to_owned()]);
        for label in &labels {
            site.commit(label);
        }
        assert_eq!(site.listed("x"), (labels.clone(), 2));
        let whole = std::fs::read(&site.files()[0]).unwrap();
        assert!(!whole.windows(5).any(|window| window == b"there"), "labels are sealed");
        for at in (0..whole.len()).step_by(17).chain([whole.len() - 1]) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&site.files()[0], changed).unwrap();
            assert_eq!(site.listed("x"), (labels.clone(), 2), "byte {at}");
        }
        for length in [0, 7, 40, whole.len() - 1] {
            std::fs::write(&site.files()[0], &whole[..length]).unwrap();
            assert_eq!(site.listed("x"), (labels.clone(), 2), "{length} bytes");
        }
        assert_eq!(site.listed("x"), (labels, 0));
    }
}
