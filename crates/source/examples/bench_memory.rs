//! How much memory a large repository and a large tree take: each step in a process of its own, its peak as
//! the kernel saw it.
//!
//! ```text
//! cargo run --release -p source --example bench_memory -- chunks FOLDER [COUNT] [MIB]
//! cargo run --release -p source --example bench_memory -- files FOLDER [COUNT] [MIB]
//! ```
//! `chunks` writes a repository of COUNT chunks (10,000,000) of 24 bytes each, all new in one write and all in
//! one recovery point; it needs 350 bytes of disk a chunk. Its index is lost and made again, all of it is copied into
//! another repository, and at last a point that needs every fourth chunk is all that stays, so that a collection
//! writes every pack anew. `files` makes a tree of COUNT files (4,000,000),
//! most of them empty, in directories of 1,000; FOLDER is best a tmpfs. MIB is the budget (512). What is made in
//! FOLDER is removed again.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring program for people")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use repo::check::{CheckOptions, check};
use repo::copy::{CopyOptions, copy};
use repo::delete::{self, Plan};
use repo::gc::{self, GcOptions};
use repo::repair::{self, RepairOptions};
use repo::store::{StoreOptions, open};
use repo::{
    Cancel, ChunkId, CommitDraft, EntryKind, Env, InitOptions, Kdf, Lane, LocalOptions, ManifestEntry,
    Passphrase, ReaderOptions, Repository, Root, WriterOptions,
};
use source::files::{BackupOptions, Parent, RestoreOptions, backup, restore};

#[path = "../../repo/tests/common/cost.rs"]
mod cost;

struct Site {
    folder: PathBuf,
    count: u64,
    memory: usize,
    cache: bool,
}

impl Site {
    fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    fn local(&self, repo: Repository) -> Repository {
        let cache = self.cache.then(|| self.folder.join("cache"));
        let temporary = Some(self.folder.clone());
        repo.with_local(&LocalOptions { cache, temporary, memory_bytes: self.memory })
    }

    fn store(&self) -> std::sync::Arc<dyn repo::store::Store> {
        open(self.folder.join("repository").to_str().unwrap(), &StoreOptions::default()).unwrap()
    }

    fn open(&self) -> Repository {
        self.local(Repository::open(self.store(), &Passphrase::new("x"), &Env::real()).unwrap())
    }

    /// Another repository, made the first time.
    fn far(&self) -> Repository {
        let store = open(self.folder.join("far").to_str().unwrap(), &StoreOptions::default()).unwrap();
        let options = InitOptions { kdf: Kdf::default(), ..InitOptions::default() };
        let opened = Repository::open(store.clone(), &Passphrase::new("x"), &Env::real());
        let far = opened.or_else(|_| Repository::init(store, &Passphrase::new("x"), &options, &Env::real()));
        self.local(far.unwrap())
    }

    fn newest(&self, repo: &Repository) -> (Root, i64) {
        let commit = repo.find_commit("latest").unwrap();
        let reader = repo.reader(ReaderOptions::default()).unwrap();
        (reader.manifest(&commit.id).unwrap()[0].root, commit.summary.started)
    }
}

/// The content of chunk `number`: no two are alike, none compresses.
fn content(number: u64) -> Bytes {
    let mix = |part: u64| {
        let mut z = (3 * number + part).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31).to_le_bytes()
    };
    [mix(0), mix(1), mix(2)].concat().into()
}

fn commit(writer: repo::Writer, name: &str, kind: EntryKind, root: Root, started: i64) {
    let figures = std::collections::BTreeMap::new();
    let manifest = vec![ManifestEntry { name: name.into(), kind, root, figures }];
    let kind = "volume".into();
    writer.commit(CommitDraft { kind, manifest, started, ..CommitDraft::default() }).unwrap();
}

fn step(site: &Site, name: &str) -> String {
    match name {
        "init" => {
            let options = InitOptions { kdf: Kdf::default(), ..InitOptions::default() };
            Repository::init(site.store(), &Passphrase::new("x"), &options, &Env::real()).unwrap();
            String::new()
        }
        "write" => {
            let repo = site.open();
            let writer = repo.writer(WriterOptions::default()).unwrap();
            let chunks = (0..site.count).map(|number| {
                let id = writer.chunk_now(Lane::Data, content(number)).unwrap();
                (id, 24)
            });
            let root = writer.root_of(chunks).unwrap();
            let counts = writer.counts();
            commit(writer, "image", EntryKind::Bytes, root, 0);
            format!("{} new chunks in {} packs", counts.chunks_new, counts.packs)
        }
        "open" => {
            let index = site.open().index().unwrap();
            format!("{} places of chunks, {} segments", index.chunk_count(), index.segment_count())
        }
        "look up" => {
            let repo = site.open();
            let writer = repo.writer(WriterOptions::default()).unwrap();
            let reader = repo.reader(ReaderOptions::default()).unwrap();
            let known: Vec<ChunkId> = (0..200_000)
                .map(|number| writer.chunk_now(Lane::Data, content(number * 7919 % site.count)).unwrap())
                .collect();
            // Hashed once more: as likely to be anywhere, and in no repository.
            let unknown: Vec<ChunkId> =
                known.iter().map(|id| ChunkId(id.0.map(|byte| byte ^ 0x5a))).collect();
            let mut told = Vec::new();
            for (name, ids, found) in
                [("known", &known, known.len()), ("unknown", &unknown, 0), ("unknown again", &unknown, 0)]
            {
                let before = cost::cpu();
                assert_eq!(ids.iter().filter(|id| reader.locate(id).unwrap().is_some()).count(), found);
                told.push(format!(
                    "{name} {:.2} CPU us each",
                    (cost::cpu() - before) / ids.len() as f64 * 1e6
                ));
            }
            told.join(", ")
        }
        "small backup" => {
            let repo = site.open();
            let folder = site.folder.join("small");
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..1_000 {
                std::fs::write(folder.join(format!("file {number}")), content(number).repeat(40)).unwrap();
            }
            let writer = repo.writer(WriterOptions::default()).unwrap();
            let made = backup(&folder, &writer, &BackupOptions::default(), &()).unwrap();
            let read = made.done.figures["files_read"];
            commit(writer, "volume", EntryKind::Tree, made.done.root, 0);
            format!("{read} files read")
        }
        "check" => {
            let report = check(&site.open(), &CheckOptions::default(), &()).unwrap();
            assert!(!report.is_damaged(), "{:?}", report.findings);
            format!("{} chunks in {} packs, undamaged", report.counts.chunks, report.counts.packs)
        }
        "lose the index" => {
            std::fs::remove_dir_all(site.folder.join("repository/index")).unwrap();
            std::fs::remove_dir_all(site.folder.join("cache")).unwrap();
            String::new()
        }
        "repair" => {
            let plan = repair::plan(&site.open(), &RepairOptions::default(), &()).unwrap();
            let done = plan.execute(&()).unwrap();
            assert!(!done.after.is_damaged(), "{:?}", done.after.findings);
            format!("{} packs named again, {} segments", done.packs_named, done.segments_written)
        }
        "copy" | "copy again" => {
            // As `holdfast repo copy` divides it: two repositories, and the names of chunks.
            let options = CopyOptions { names_bytes: site.memory / 8, ..CopyOptions::default() };
            let site = Site { memory: site.memory / 16 * 7, folder: site.folder.clone(), ..*site };
            let done = copy(&site.open(), &site.far(), &options, &()).unwrap().done;
            assert_eq!(done.failed, []);
            format!("{} points copied, {} chunks read", done.copied.len(), done.chunks_read)
        }
        "thin" => {
            let repo = site.open();
            let writer = repo.writer(WriterOptions::default()).unwrap();
            let chunks = (0..site.count).step_by(4);
            let root = writer
                .root_of(chunks.map(|number| (writer.chunk_now(Lane::Data, content(number)).unwrap(), 24)));
            commit(writer, "image", EntryKind::Bytes, root.unwrap(), 0);
            // The others are no longer needed.
            let points = repo.commits().unwrap().done;
            let newest = points.last().unwrap().id;
            let others = points.iter().map(|point| point.id).filter(|id| *id != newest).collect();
            let plan = Plan::of(&repo, delete::points(&points, &[], i64::MAX), &others, true).unwrap();
            plan.unwrap().execute(&repo, &Cancel::new(), &()).unwrap();
            format!("{} points left", repo.commit_ids().unwrap().len())
        }
        "gc" | "gc again" => {
            let options = GcOptions { grace: Duration::ZERO, ..GcOptions::default() };
            let plan = gc::plan(&site.open(), options, &()).unwrap();
            let (commits, packs) = (plan.report().commits, plan.report().packs);
            let done = plan.execute(&()).unwrap();
            assert_eq!(done.findings, []);
            format!(
                "{commits} points, {packs} packs; {} marked, {} deleted, {} chunks copied into {} packs, {} segments for {}",
                done.packs_marked,
                done.packs_deleted,
                done.chunks_copied,
                done.packs_written,
                done.segments_written,
                done.segments_deleted
            )
        }
        "make" => {
            let mut links = 0;
            for number in 0..site.count {
                let folder =
                    site.tree().join(format!("{:03}/{:04}", number / 1_000_000, number / 1_000 % 1_000));
                if number % 1_000 == 0 {
                    std::fs::create_dir_all(&folder).unwrap();
                }
                let path = folder.join(format!("a file of some name {number}"));
                if number % 10 == 9 && number > 1_000_000.min(site.count / 4) {
                    // Of a directory far away, so that the first name waits long for the second.
                    let first = number - 1_000_000.min(site.count / 4);
                    let from = site.tree().join(format!(
                        "{:03}/{:04}/a file of some name {first}",
                        first / 1_000_000,
                        first / 1_000 % 1_000
                    ));
                    if std::fs::hard_link(&from, &path).is_ok() {
                        links += 1;
                        continue;
                    }
                }
                let mut file = File::create(path).unwrap();
                if number % 16 == 0 {
                    file.write_all(&content(number)).unwrap();
                }
            }
            format!("{links} of them further names of others")
        }
        "backup" | "backup unchanged" => {
            let repo = site.open();
            let started = repo.env().now();
            let before = (name != "backup").then(|| site.newest(&repo));
            let reader = repo.reader(ReaderOptions::default()).unwrap();
            // As if the tree had rested for a while.
            let parent = before.map(|(root, started)| Parent {
                reader: &reader,
                root,
                started: started + 120_000_000_000,
            });
            let writer = repo.writer(WriterOptions::default()).unwrap();
            let options = BackupOptions { parent, ..BackupOptions::default() };
            let made = backup(&site.tree(), &writer, &options, &()).unwrap();
            let figure = |name: &str| made.done.figures[name];
            let told = format!(
                "{} files, {} links, {} unchanged, {} findings",
                figure("files"),
                figure("hardlinks"),
                figure("files_unchanged"),
                made.findings.len()
            );
            commit(writer, "volume", EntryKind::Tree, made.done.root, started);
            told
        }
        "list" => {
            let repo = site.open();
            let (root, _) = site.newest(&repo);
            let reader = repo.reader(ReaderOptions::default()).unwrap();
            let entries = reader.tree(&root).try_fold(0_u64, |count, entry| entry.map(|_| count + 1));
            format!("{} entries", entries.unwrap())
        }
        "remove" => {
            std::fs::remove_dir_all(site.tree()).unwrap();
            String::new()
        }
        "restore" => {
            let repo = site.open();
            let (root, _) = site.newest(&repo);
            let reader = repo.reader(ReaderOptions::default()).unwrap();
            let done = restore(&reader, &root, &site.tree(), &RestoreOptions::default(), &()).unwrap();
            format!(
                "{} files, {} links, {} failed, {} findings",
                done.done.files,
                done.done.hardlinks,
                done.done.failed,
                done.findings.len()
            )
        }
        other => format!("no step is called {other:?}"),
    }
}

fn size(path: &Path) -> u64 {
    let Ok(listed) = std::fs::read_dir(path) else { return 0 };
    listed
        .map(|entry| {
            let (entry, path) = entry.map(|entry| (entry.metadata().unwrap(), entry.path())).unwrap();
            if entry.is_dir() { size(&path) } else { entry.len() }
        })
        .sum()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |at: usize| arguments.get(at).map(String::as_str);
    let (Some(what), Some(folder)) = (argument(1), argument(2)) else {
        println!("bench_memory chunks|files FOLDER [COUNT] [MIB]");
        return;
    };
    let number = |at: usize, usual: u64| argument(at).map_or(usual, |text| text.parse().unwrap());
    let folder = PathBuf::from(folder).join("bench-memory");
    let site = |count: u64| Site {
        folder: folder.clone(),
        count,
        memory: number(4, 512) as usize * (1 << 20),
        cache: argument(6) != Some("no cache"),
    };
    if what == "step" {
        let start = Instant::now();
        let name = argument(5).unwrap();
        let told = step(&site(number(3, 0)), name);
        let wall = start.elapsed().as_secs_f64();
        println!("{name:<18} {:>5} MiB {wall:>7.1} s {:>7.1} CPU s  {told}", cost::peak() >> 20, cost::cpu());
        return;
    }
    let (count, steps): (u64, &[(&str, &str)]) = match what {
        "chunks" => (
            10_000_000,
            &[
                ("init", ""),
                ("write", ""),
                ("open", ""),
                ("open", ""),
                ("open", "no cache"),
                ("look up", ""),
                ("small backup", ""),
                ("check", ""),
                ("gc", ""),
                ("copy", ""),
                ("copy again", ""),
                ("lose the index", ""),
                ("repair", ""),
                ("thin", ""),
                ("gc", ""),
                ("gc again", ""),
                ("check", ""),
            ],
        ),
        _ => (
            4_000_000,
            &[
                ("init", ""),
                ("make", ""),
                ("backup", ""),
                ("backup unchanged", ""),
                ("list", ""),
                ("check", ""),
                ("remove", ""),
                ("restore", ""),
            ],
        ),
    };
    let count = number(3, count).to_string();
    let memory = number(4, 512).to_string();
    println!("{what}: {count}, {memory} MiB");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, cache) in steps {
        let parent = folder.parent().unwrap();
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["step", parent.to_str().unwrap(), &count, &memory, name, cache])
            .status();
        assert!(done.unwrap().success(), "{name}");
    }
    println!(
        "repository {} MB, cache {} MB",
        size(&folder.join("repository")) / 1_000_000,
        size(&folder.join("cache")) / 1_000_000
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
