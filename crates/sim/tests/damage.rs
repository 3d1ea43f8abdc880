//! Every object of a repository on disk × every kind of damage × check and a restore of real files (R4).
//!
//! Three backups of two directories go into a repository in a directory. Then each of its objects is damaged
//! in turn: a bit flipped, bytes zeroed, cut, emptied, deleted, swapped with another of its kind. Whatever it
//! was:
//! - a restored file has exactly the bytes it had, or it is not there; none has others;
//! - `check` says beforehand which recovery points and which files will be missing, no more and no less;
//! - a restore that met damage says so.
//!
//! `crates/repo/tests/damage` has the same for the inside of objects, region by region.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use repo::check::{CheckOptions, CheckReport, check};
use repo::store::local::LocalStore;
use repo::{
    CommitDraft, CommitId, EntryKind, Env, Error, InitOptions, Kdf, ManifestEntry, Passphrase, ReaderOptions,
    Repository, WriterOptions, walk_order,
};
use source::files::{BackupOptions, RestoreOptions};
use tempfile::TempDir;

const NOW: i64 = 1_790_000_000_000_000_000;

/// In memory where there is such a place: a restore flushes its file system.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

fn write_tree(root: &Path, seed: u64) {
    for dir in ["", "config", "data/base"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for n in 0..6 {
        fs::write(root.join(format!("config/small-{n}")), noise(seed + n, 700 * (n as usize + 1))).unwrap();
    }
    fs::write(root.join("config/empty"), "").unwrap();
    fs::write(root.join("data/base/middle"), noise(seed + 50, 150_000)).unwrap();
    fs::write(root.join("data/base/large"), noise(seed + 51, 2_000_000)).unwrap();
    fs::hard_link(root.join("data/base/middle"), root.join("data/second-name")).unwrap();
    symlink("base/large", root.join("data/link")).unwrap();
    let sparse = fs::File::create(root.join("data/sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(seed + 52, 60_000), 3_000_000).unwrap();
}

/// Every file below a directory, hard links included, by its path.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                walk(root, &path, found);
            } else if meta.is_file() {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

struct Site {
    dir: TempDir,
    points: Vec<(CommitId, BTreeMap<String, Vec<u8>>)>,
}

fn open(place: &Path) -> Result<Repository, Error> {
    let store = LocalStore::new(place).unwrap();
    Repository::open(Arc::new(store), &Passphrase::new("x"), &Env::fixed(NOW, 2))
}

impl Site {
    /// Two backups of `shop`, the second after a small change, and one of `blog`.
    fn new() -> Site {
        let dir = scratch();
        let place = dir.path().join("repository");
        let env = Env::fixed(NOW, 1);
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let store = Arc::new(LocalStore::new(&place).unwrap());
        let repo = Repository::init(store, &Passphrase::new("x"), &options, &env).unwrap();
        let (shop, blog) = (dir.path().join("shop"), dir.path().join("blog"));
        write_tree(&shop, 100);
        write_tree(&blog, 200);
        let mut site = Site { dir, points: Vec::new() };
        site.backup(&repo, "shop", &shop);
        fs::write(shop.join("config/small-3"), noise(999, 3_000)).unwrap();
        fs::write(shop.join("data/new"), noise(998, 120_000)).unwrap();
        site.backup(&repo, "shop", &shop);
        site.backup(&repo, "blog", &blog);
        site
    }

    fn backup(&mut self, repo: &Repository, app: &str, root: &Path) {
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let backup = source::files::backup(root, &writer, &BackupOptions::default(), &()).unwrap();
        assert_eq!(backup.findings, []);
        let (name, root_of_tree, figures) = ("volume".to_owned(), backup.done.root, BTreeMap::new());
        let draft = CommitDraft {
            kind: "volume".into(),
            labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
            manifest: vec![ManifestEntry { name, kind: EntryKind::Tree, root: root_of_tree, figures }],
            ..CommitDraft::default()
        };
        self.points.push((writer.commit(draft).unwrap().id, files(root)));
        repo.env().advance(60_000_000_000);
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// The objects whose damage leaves a repository that opens.
    fn objects(&self) -> Vec<String> {
        let place = self.repository();
        let all = files(&place).into_keys();
        all.filter(|key| ["packs/", "index/", "commits/"].iter().any(|kind| key.starts_with(kind))).collect()
    }
}

/// What does not come back of a point.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lost {
    Files(BTreeSet<String>),
    All,
}

/// Restores a point into an empty directory and compares.
fn restore(repo: &Repository, id: &CommitId, expected: &BTreeMap<String, Vec<u8>>) -> Lost {
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    let manifest = match reader.manifest(id) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(error.is_damage(), "{error:?}");
            return Lost::All;
        }
    };
    let target = scratch();
    let restored =
        source::files::restore(&reader, &manifest[0].root, target.path(), &RestoreOptions::default(), &());
    let back = files(target.path());
    for (name, bytes) in &back {
        assert!(expected.get(name) == Some(bytes), "{name} came back with other bytes");
    }
    let missing: BTreeSet<String> =
        expected.keys().filter(|name| !back.contains_key(*name)).cloned().collect();
    match restored {
        Ok(outcome) => {
            let told = outcome.done.damaged > 0 && !outcome.findings.is_empty();
            assert_eq!(told, !missing.is_empty(), "{missing:?}: {outcome:?}");
        }
        // Not an entry of the tree can be read.
        Err(error) => assert!(back.is_empty(), "{error}"),
    }
    Lost::Files(missing)
}

/// What check says will be missing.
fn said(report: &CheckReport, id: &CommitId, expected: &BTreeMap<String, Vec<u8>>) -> Lost {
    let mut names = BTreeSet::new();
    if let Some(point) = report.points.iter().find(|point| point.commit == *id) {
        if point.whole {
            return Lost::All;
        }
        assert!(point.files_count <= 20, "the report lists 20; keep the trees smaller");
        for name in &point.files {
            if name == "volume (all of it)" {
                names.extend(expected.keys().cloned());
            } else if let Some(last) = name.strip_prefix("volume (all after volume") {
                let last = last.trim_start_matches('/').strip_suffix(')').unwrap();
                let behind = |name: &&String| walk_order(name.as_bytes(), last.as_bytes()).is_gt();
                names.extend(expected.keys().filter(behind).cloned());
            } else {
                names.insert(name.strip_prefix("volume/").unwrap().to_owned());
            }
        }
    }
    Lost::Files(names)
}

/// Damages one thing, looks, and puts it back.
fn hold(site: &Site, story: &str, changes: &[(&str, Option<Vec<u8>>)]) -> BTreeSet<&'static str> {
    let place = site.repository();
    let before: Vec<_> = changes.iter().map(|(key, _)| fs::read(place.join(key)).unwrap()).collect();
    for (key, content) in changes {
        match content {
            Some(bytes) => fs::write(place.join(key), bytes).unwrap(),
            None => fs::remove_file(place.join(key)).unwrap(),
        }
    }
    let repo = open(&place).unwrap();
    let report = check(&repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
    let mut lost = 0;
    for (number, (id, expected)) in site.points.iter().enumerate() {
        let restored = if changes.iter().any(|(key, content)| content.is_none() && *key == id.key()) {
            // Whoever deletes a commit leaves no trace of it; there is nothing to restore either.
            assert!(repo.find_commit(&id.to_string()).is_err());
            continue;
        } else {
            restore(&repo, id, expected)
        };
        assert_eq!(said(&report, id, expected), restored, "{story}, point {number}: check, then restore");
        if restored != Lost::Files(BTreeSet::new()) {
            lost += 1;
            let told = report.findings.iter().any(|finding| {
                finding.message.contains(&id.short())
                    && match &restored {
                        Lost::Files(names) => {
                            names.iter().any(|name| finding.message.contains(name.as_str()))
                                || finding.message.contains("all after")
                                || finding.message.contains("all of it")
                        }
                        Lost::All => true,
                    }
            });
            assert!(told, "{story}: a finding names the point and its files: {:#?}", report.findings);
        }
    }
    assert!(lost == 0 || report.is_damaged(), "{story}");
    let file_lost =
        |name: &str| report.points.iter().any(|point| point.files.iter().any(|file| file == name));
    if file_lost("volume/data/base/middle") {
        assert!(file_lost("volume/data/second-name"), "{story}: a file's other name is lost with it");
    }
    for ((key, _), bytes) in changes.iter().zip(before) {
        fs::write(place.join(key), bytes).unwrap();
    }
    report.findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn damage_is_found_named_and_never_restored() {
    let site = Site::new();
    let objects = site.objects();
    let place = site.repository();
    assert!(
        objects.len() >= 3 * 4,
        "each point has a commit, a segment and packs of both lanes: {objects:?}"
    );
    assert_eq!(hold(&site, "nothing", &[]), BTreeSet::new());

    let mut codes = BTreeMap::new();
    for key in &objects {
        let bytes = fs::read(place.join(key)).unwrap();
        let kind = key.split('/').next().unwrap();
        let mut one = |story: &str, content: Option<Vec<u8>>| {
            let found = hold(&site, &format!("{key} {story}"), &[(key, content)]);
            assert!(!found.is_empty() || kind == "commits", "{key} {story}: nothing was found");
            codes.entry((kind, story.to_owned())).or_insert_with(BTreeSet::new).extend(found);
        };
        for share in [0, 3, 5, 9] {
            let mut flipped = bytes.clone();
            flipped[(bytes.len() - 1) * share / 9] ^= 1;
            one("flipped", Some(flipped));
        }
        let mut zeroed = bytes.clone();
        zeroed[bytes.len() / 3..bytes.len() / 2].fill(0);
        one("zeroed", Some(zeroed));
        one("cut", Some(bytes[..bytes.len() / 2].to_vec()));
        one("emptied", Some(Vec::new()));
        one("deleted", None);
    }
    for (a, b) in objects.iter().zip(objects.iter().skip(1)) {
        if a.split('/').next() == b.split('/').next() {
            let (first, second) = (fs::read(place.join(a)).unwrap(), fs::read(place.join(b)).unwrap());
            let found = hold(&site, &format!("{a} and {b} swapped"), &[(a, Some(second)), (b, Some(first))]);
            assert!(!found.is_empty());
        }
    }
    // The same kind of damage is always told by the same words.
    let told = |kind, story: &str| codes[&(kind, story.to_owned())].iter().copied().collect::<Vec<_>>();
    for story in ["flipped", "zeroed", "cut", "emptied"] {
        assert_eq!(told("packs", story), ["pack-damaged"], "{story}");
        assert_eq!(told("commits", story), ["commit-damaged"], "{story}");
        assert_eq!(told("index", story), ["packs-unreferenced", "segment-damaged"], "{story}");
    }
    assert_eq!(told("packs", "deleted"), ["pack-missing"]);
    assert_eq!(told("index", "deleted"), ["index-incomplete", "packs-unreferenced"]);

    assert_eq!(hold(&site, "all put back", &[]), BTreeSet::new());
}
