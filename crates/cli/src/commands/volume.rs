//! `holdfast volume`: a directory into the repository and back, without a cluster.

use super::repository::left_behind;
use super::{exit_for, key_value, print_findings};
use crate::context::Context;
use crate::error::{Exit, Failure, Result, io};
use crate::output::{Tone, age, bytes, counted, duration, note, time};
use crate::picking;
use repo::{
    CommitDraft, CommitInfo, EntryKind, Finding, ManifestEntry, NodeKind, ReaderOptions, Severity, TreeEntry,
    WriterOptions,
};
use serde_json::json;
use source::files;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::task::block_in_place;

/// The manifest entry that holds the tree.
const ENTRY: &str = "volume";

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Back up a directory
    Backup(Backup),
    /// Restore a backup, or a part of it, into a directory
    Restore(Restore),
    /// List volume backups
    List(List),
    /// List the files of a backup
    Ls(Ls),
}

/// Arguments of `volume ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// The backup: an id or its beginning, or `latest`
    pub point: String,
    /// Only this file, or this directory and what is below it
    pub path: Option<String>,
}

/// Arguments of `volume backup`.
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// The directory
    pub path: PathBuf,
    /// A label to find it by; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub label: Vec<(String, String)>,
    /// Read every file, also those that look unchanged since the last backup of this directory
    #[arg(long)]
    pub full: bool,
    /// Leave out what is mounted below the directory
    #[arg(long)]
    pub one_file_system: bool,
    /// Threads that read files [default: one for each processor, at most 8]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub threads: usize,
}

/// Arguments of `volume restore`.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// The backup: an id or its beginning, or `latest`
    pub point: String,
    /// The directory to restore into; created if it is not there
    pub target: PathBuf,
    /// What to do with files that are there: refuse a target that is not empty, merge (replace files of the same
    /// name), or mirror (merge, and delete what is not in the backup)
    #[arg(long, value_enum, default_value = "refuse")]
    pub existing: Existing,
    /// Restore only this file or directory of the backup
    #[arg(long, value_name = "PATH")]
    pub only: Option<String>,
    /// Threads that write files [default: one for each processor, at most 8]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub threads: usize,
}

/// Arguments of `volume list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only backups of this directory
    pub path: Option<PathBuf>,
}

/// What to do with files that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Existing {
    /// Refuse a target that is not empty.
    Refuse,
    /// Replace files of the same name.
    Merge,
    /// Replace, and delete what is not in the backup.
    Mirror,
}

/// Runs it.
pub fn run(ctx: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Backup(args) => backup(ctx, &args),
        Command::Restore(args) => restore(ctx, &args),
        Command::List(args) => list(ctx, &args),
        Command::Ls(args) => ls(ctx, &args),
    }
}

fn backup(ctx: &Context, args: &Backup) -> Result<Exit> {
    let path =
        args.path.canonicalize().map_err(|e| io(format!("cannot back up {}", args.path.display()), &e))?;
    let shown = path.display().to_string();
    let repo = ctx.repository()?;
    let mut labels: BTreeMap<String, String> = args.label.iter().cloned().collect();
    labels.insert("path".into(), shown.clone());
    labels.insert("host".into(), hostname());
    let changing = ctx.interrupt.changing()?;
    let progress = ctx.progress(format!("Backing up {shown}"));
    let cancel = ctx.interrupt.cancel.clone();
    let made = block_in_place(|| -> Result<(CommitInfo, files::TreeBackup, Vec<Finding>)> {
        let started = ctx.env.now();
        let mut findings = Vec::new();
        let previous = if args.full { None } else { previous(&repo, &labels)? };
        let reader = match &previous {
            Some(_) => Some(repo.reader(ReaderOptions { cancel: cancel.clone(), ..Default::default() })?),
            None => None,
        };
        if let Some(commit) = &previous {
            // As large as it was last time, as far as we know: enough for a percentage and a time that is left.
            let figure = |name: &str| commit.summary.figures.get(name).copied().unwrap_or(0);
            repo::Progress::total(&progress, figure("files"), figure("bytes"));
        }
        let mut parent = None;
        if let (Some(reader), Some(commit)) = (&reader, &previous) {
            match tree(reader, commit) {
                Ok(entry) => {
                    parent =
                        Some(files::Parent { reader, root: entry.root, started: commit.summary.started });
                }
                // What cannot be compared with is read again; the backup before may be damaged, this one is not.
                Err(failure) => findings.push(Finding::warning(
                    "previous-unreadable",
                    commit.id.to_string(),
                    failure.message,
                )),
            }
        }
        let writer = repo.writer(WriterOptions { cancel: cancel.clone(), ..Default::default() })?;
        let options = files::BackupOptions {
            parent,
            one_file_system: args.one_file_system,
            cancel: cancel.clone(),
            threads: args.threads,
        };
        let outcome = files::backup(&path, &writer, &options, &progress)?;
        findings.extend(outcome.findings);
        let tree = outcome.done;
        // Retention must know which points are good: an incomplete one never takes the place of a whole one.
        labels.insert("complete".into(), (exit_for(&findings) == Exit::Done).to_string());
        let draft = CommitDraft {
            kind: picking::VOLUME.into(),
            labels,
            figures: tree.figures.clone(),
            parents: previous.iter().map(|c| c.id).collect(),
            started,
            manifest: vec![ManifestEntry {
                name: ENTRY.into(),
                kind: EntryKind::Tree,
                root: tree.root,
                figures: tree.figures.clone(),
            }],
        };
        Ok((writer.commit(draft)?, tree, findings))
    });
    progress.finish();
    let elapsed = progress.elapsed();
    drop(changing);
    let (commit, tree, findings) =
        made.map_err(|f| left_behind(f, "nothing was committed; earlier backups are not affected"))?;
    let exit = exit_for(&findings);
    if ctx.out.is_table() {
        print_findings(&ctx.out, &findings, ctx.global.verbose > 0);
        let figure = |name: &str| tree.figures.get(name).copied().unwrap_or(0);
        let stored = commit.summary.figures.get("bytes_stored").copied().unwrap_or(0);
        ctx.out.line(format!(
            "Backed up {shown}: {}, {}; {} read, {} added to the repository, in {}",
            counted(figure("files"), "file", "files"),
            bytes(figure("bytes")),
            bytes(figure("bytes_read")),
            bytes(stored),
            duration(elapsed),
        ));
        ctx.out.line(format!("Volume backup {}", ctx.out.tone(Tone::Strong, commit.id.to_string())));
        if exit == Exit::Incomplete {
            ctx.out.line(ctx.out.tone(Tone::Bad, "It is incomplete: what is listed above is not in it."));
        }
    } else {
        ctx.out.value(&json!({
            "id": commit.id.to_string(), "path": shown, "complete": exit == Exit::Done,
            "figures": commit.summary.figures, "findings": findings, "seconds": elapsed.as_secs_f64(),
        }))?;
    }
    Ok(exit)
}

/// The newest backup of the same directory of the same machine.
fn previous(repo: &repo::Repository, labels: &BTreeMap<String, String>) -> Result<Option<CommitInfo>> {
    // A key that may only put cannot see what is there: everything is read, and deduplicated all the same.
    if repo.capability() != repo::Capability::Read {
        return Ok(None);
    }
    let same = |c: &CommitInfo| {
        c.summary.kind == picking::VOLUME
            && ["path", "host"].iter().all(|k| c.summary.labels.get(*k) == labels.get(*k))
    };
    Ok(repo.commits()?.done.into_iter().rev().find(same))
}

fn tree(reader: &repo::Reader, commit: &CommitInfo) -> Result<ManifestEntry> {
    let manifest = reader.manifest(&commit.id)?;
    manifest.into_iter().find(|e| e.name == ENTRY && e.kind == EntryKind::Tree).ok_or_else(|| {
        Failure::new(Exit::Damaged, format!("volume backup {} has no tree {ENTRY:?}", commit.id))
    })
}

fn restore(ctx: &Context, args: &Restore) -> Result<Exit> {
    let repo = ctx.repository()?;
    let commit = picking::one(&repo, picking::VOLUME, &args.point)?;
    let shown = args.target.display().to_string();
    let cancel = ctx.interrupt.cancel.clone();
    let reader =
        block_in_place(|| repo.reader(ReaderOptions { cancel: cancel.clone(), ..Default::default() }))?;
    let entry = block_in_place(|| tree(&reader, &commit))?;
    let changing = ctx.interrupt.changing()?;
    let progress = ctx.progress(format!("Restoring into {shown}"));
    if args.only.is_none() {
        let figure = |name: &str| entry.figures.get(name).copied().unwrap_or(0);
        repo::Progress::total(&progress, figure("files"), figure("bytes"));
    }
    let options = files::RestoreOptions {
        existing: match args.existing {
            Existing::Refuse => files::Existing::Refuse,
            Existing::Merge => files::Existing::Merge,
            Existing::Mirror => files::Existing::Mirror,
        },
        subpath: args.only.as_ref().map(|p| p.trim_matches('/').as_bytes().to_vec()),
        cancel,
        threads: args.threads,
        ..Default::default()
    };
    let restored = block_in_place(|| files::restore(&reader, &entry.root, &args.target, &options, &progress));
    progress.finish();
    let elapsed = progress.elapsed();
    drop(changing);
    let outcome = restored.map_err(|e| {
        let failure = Failure::from(e);
        match failure.exit {
            // These say themselves what is there.
            Exit::Refused | Exit::Usage | Exit::NotFound | Exit::Denied | Exit::NoSpace => failure,
            _ => left_behind(
                failure,
                &format!(
                    "{shown} may be partly written; run the same command with --existing merge to complete it"
                ),
            ),
        }
    })?;
    let damaged = outcome.findings.iter().any(|f| f.severity == Severity::Error);
    if ctx.out.is_table() {
        print_findings(&ctx.out, &outcome.findings, ctx.global.verbose > 0);
        ctx.out.line(format!(
            "Restored {} of {} into {shown}: {}, {}, in {}",
            args.only.as_deref().unwrap_or("all"),
            commit.id.short(),
            counted(outcome.done.files, "file", "files"),
            bytes(outcome.done.bytes),
            duration(elapsed),
        ));
        if damaged {
            ctx.out.line(ctx.out.tone(Tone::Bad, "What is listed above could not be restored."));
        }
    } else {
        ctx.out.value(&json!({
            "id": commit.id.to_string(), "target": shown, "files": outcome.done.files, "bytes": outcome.done.bytes,
            "findings": outcome.findings, "seconds": elapsed.as_secs_f64(),
        }))?;
    }
    Ok(if damaged { Exit::Damaged } else { Exit::Done })
}

fn list(ctx: &Context, args: &List) -> Result<Exit> {
    let repo = ctx.repository()?;
    let (mut commits, findings) = picking::all(&repo, picking::VOLUME)?;
    if let Some(path) = &args.path {
        // A directory that is gone can still have backups.
        let path = path.canonicalize().unwrap_or_else(|_| absolute(path)).display().to_string();
        commits.retain(|c| c.summary.labels.get("path") == Some(&path));
    }
    if ctx.out.is_table() {
        let now = ctx.env.now();
        let label = |c: &CommitInfo, k: &str| c.summary.labels.get(k).cloned().unwrap_or_default();
        let figure = |c: &CommitInfo, k: &str| c.summary.figures.get(k).copied().unwrap_or(0);
        let rows: Vec<Vec<String>> = commits
            .iter()
            .map(|c| {
                vec![
                    c.id.short(),
                    time(c.summary.time),
                    age(c.summary.time, now),
                    label(c, "host"),
                    label(c, "path"),
                    crate::output::count(figure(c, "files")),
                    bytes(figure(c, "bytes")),
                    bytes(figure(c, "bytes_stored")),
                ]
            })
            .collect();
        match rows.is_empty() {
            true => note(format!("No volume backups in {}.", repo.url())),
            false => {
                ctx.out.table(&["BACKUP", "TIME", "AGE", "HOST", "PATH", "FILES", "SIZE", "ADDED"], rows)
            }
        }
        print_findings(&ctx.out, &findings, ctx.global.verbose > 0);
    } else {
        ctx.out.value(&json!({ "backups": commits, "findings": findings }))?;
    }
    Ok(if findings.iter().any(|f| f.severity == Severity::Error) { Exit::Damaged } else { Exit::Done })
}

fn ls(ctx: &Context, args: &Ls) -> Result<Exit> {
    let repo = ctx.repository()?;
    let commit = picking::one(&repo, picking::VOLUME, &args.point)?;
    let only = args.path.as_deref().map(|p| p.trim_matches('/')).filter(|p| !p.is_empty());
    block_in_place(|| {
        let reader = repo.reader(ReaderOptions::default())?;
        let root = tree(&reader, &commit)?.root;
        let mut found = Vec::new();
        let mut any = false;
        for entry in reader.tree(&root) {
            let entry = entry?;
            let below = |p: &str| {
                entry.path.strip_prefix(p.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
            };
            if entry.path.is_empty() || only.is_some_and(|p| !below(p)) {
                continue;
            }
            any = true;
            // A million files are not kept in memory: a table of fixed columns goes out line by line.
            match ctx.out.is_table() {
                true => ctx.out.line(ls_line(&entry)),
                false => found.push(json!({
                    "path": String::from_utf8_lossy(&entry.path), "type": type_word(&entry.kind), "mode": format!("{:04o}", entry.mode),
                    "uid": entry.uid, "gid": entry.gid, "mtime": time(entry.mtime), "size": size(&entry.kind),
                })),
            }
        }
        match only {
            Some(path) if !any => {
                Err(Failure::new(Exit::NotFound, format!("backup {} has no {path:?}", commit.id.short())))
            }
            _ if ctx.out.is_table() => Ok(Exit::Done),
            _ => {
                ctx.out.value(&json!({ "id": commit.id.to_string(), "entries": found })).map(|()| Exit::Done)
            }
        }
    })
}

fn ls_line(entry: &TreeEntry) -> String {
    let name = String::from_utf8_lossy(&entry.path);
    let target = match &entry.kind {
        NodeKind::Symlink { target } | NodeKind::HardLink { target } => {
            format!(" -> {}", String::from_utf8_lossy(target))
        }
        _ => String::new(),
    };
    // A hard link has no attributes of its own: they are those of the entry it repeats.
    let (mode, owner, at) = match &entry.kind {
        NodeKind::HardLink { .. } => (String::new(), String::new(), String::new()),
        _ => (format!("{:04o}", entry.mode), format!("{}:{}", entry.uid, entry.gid), time(entry.mtime)),
    };
    let size = size(&entry.kind).map(|n| n.to_string()).unwrap_or_default();
    format!("{:<9} {mode:>4} {owner:>11} {size:>14} {at:>20} {name}{target}", type_word(&entry.kind))
}

fn size(kind: &NodeKind) -> Option<u64> {
    match kind {
        NodeKind::File { size, .. } => Some(*size),
        _ => None,
    }
}

fn type_word(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::File { .. } => "file",
        NodeKind::Directory => "directory",
        NodeKind::Symlink { .. } => "symlink",
        NodeKind::HardLink { .. } => "hardlink",
        NodeKind::Fifo => "fifo",
        NodeKind::CharDevice { .. } => "chardev",
        NodeKind::BlockDevice { .. } => "blockdev",
        NodeKind::Socket => "socket",
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The name of this machine; empty if the kernel does not say.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
