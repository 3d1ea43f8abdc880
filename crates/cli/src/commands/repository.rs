//! `holdfast repo`: create a repository, check it, count it.

use super::{check, gc, immutable, key, print_findings, repair};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{bytes, count, counted};
use crate::unlock::{self, NewKey, Told};
use repo::{InitOptions, Repository, Severity};
use std::path::PathBuf;
use tokio::task::block_in_place;

/// What to do with the repository.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a repository in an empty place
    Init(Init),
    /// Check that everything a recovery point needs is there; with --read-data or a budget, that the bytes are what they were
    Check(check::Args),
    /// Put right what can be put right, and name what cannot; --plan only shows what would be done
    Repair(repair::Args),
    /// Collect garbage: give back the space of what no recovery point needs, beside running backups
    Gc(gc::Args),
    /// Count recovery points, chunks and bytes
    Stats,
    /// Prove what the store does: conditional puts, checksums, versions, locks
    Probe,
    /// Bring back what somebody deleted or overwrote in a bucket that keeps versions
    Undelete(immutable::Undelete),
    /// Extend the locks of what the recovery points need
    Renew(immutable::Renew),
    /// Copy recovery points to another repository
    Copy(super::copy::Args),
    /// List, add, rotate and remove keys
    #[command(subcommand)]
    Key(key::Command),
}

/// Arguments of `repo init`.
#[derive(Debug, Default, clap::Args)]
pub struct Init {
    /// Make a key file for the first key, instead of a passphrase
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
    /// Write the recovery key to a new FILE instead of showing it
    #[arg(long, value_name = "FILE")]
    pub new_recovery_key_file: Option<PathBuf>,
    /// Make no recovery key
    #[arg(long, conflicts_with = "new_recovery_key_file")]
    pub no_recovery_key: bool,
    #[command(flatten)]
    pub kdf: Kdf,
    #[command(flatten)]
    pub locks: immutable::Locks,
    /// Cut and name content as this repository does, so that copies between the two need not read what the other
    /// has, and share it with what is backed up there; all other secrets are different
    #[arg(long, value_name = "URL")]
    pub like: Option<String>,
    /// The file that holds the passphrase of that repository; without it, it is asked for
    #[arg(long, value_name = "FILE", requires = "like")]
    pub like_password_file: Option<PathBuf>,
}

/// What it costs to try a passphrase.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Kdf {
    /// Memory of the key derivation in MiB: the price of each guess at the passphrase. Lower it only where
    /// the machines that open the repository have less
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub kdf_memory: Option<u32>,
}

/// Runs it.
pub fn run(ctx: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Init(args) => {
            let (repo, told) = init(ctx, &args)?;
            if ctx.out.is_table() {
                ctx.out.line(format!("Created repository {} at {}", repo.id(), repo.url()));
                if args.no_recovery_key {
                    ctx.out.line("What opens it is the only way in: keep it where the repository is not.");
                }
                immutable::describe(&ctx.out, repo.probe(), repo.lock());
            } else {
                let mut value = immutable::value(&repo);
                for (name, told) in told {
                    value[name] = told;
                }
                value["id"] = repo.id().to_string().into();
                value["url"] = repo.url().into();
                ctx.out.value(&value)?;
            }
            Ok(Exit::Done)
        }
        Command::Check(args) => check::run(ctx, &args),
        Command::Repair(args) => repair::run(ctx, &args),
        Command::Gc(args) => gc::run(ctx, &args),
        Command::Stats => stats(ctx),
        Command::Probe => immutable::run_probe(ctx),
        Command::Undelete(args) => immutable::run_undelete(ctx, &args),
        Command::Renew(args) => immutable::run_renew(ctx, &args),
        Command::Copy(args) => super::copy::run(ctx, &args),
        Command::Key(command) => key::run(ctx, command),
    }
}

/// Creates the repository. Shows its recovery key, or returns it as the beginning of a result for programs.
pub fn init(ctx: &Context, args: &Init) -> Result<(Repository, Told)> {
    let store = ctx.store()?;
    let like = match &args.like {
        Some(url) => Some(ctx.other_repository(
            url,
            args.like_password_file.as_deref(),
            "--like-password-file",
            "HOLDFAST_LIKE_",
        )?),
        None => None,
    };
    let new = NewKey { new_key_file: args.new_key_file.clone(), ..NewKey::default() };
    let secret = if new.is_open() { unlock::first(ctx)? } else { new.get(ctx)? };
    let _changing = ctx.interrupt.changing()?;
    let (kdf, lock) = (args.kdf.chosen(), args.locks.policy()?);
    let options = InitOptions { kdf, lock, like, ..InitOptions::default() };
    let made = block_in_place(|| Repository::init(store, secret.unlock(), &options, &ctx.env));
    let repo = made.inspect_err(|_| new.undo())?.with_local(&ctx.local());
    let mut told = serde_json::Map::new();
    if !args.no_recovery_key {
        let left = "the repository is made and has no recovery key you could use; `holdfast repo key add --new-recovery-key` makes one";
        told = block_in_place(|| repo.add_recovery_key("recovery"))
            .map_err(Failure::from)
            .and_then(|(_, key)| unlock::show_recovery_key(ctx, &key, args.new_recovery_key_file.as_deref()))
            .map_err(|failure| left_behind(failure, left))?;
    }
    Ok((repo, told))
}

impl Kdf {
    /// The parameters for a new passphrase.
    pub fn chosen(&self) -> repo::Kdf {
        let mut kdf = repo::Kdf::default();
        if let Some(mib) = self.kdf_memory {
            kdf.memory_kib = mib * 1024;
        }
        kdf
    }
}

fn stats(ctx: &Context) -> Result<Exit> {
    let repo = ctx.repository()?;
    let stats = block_in_place(|| repo::stats::stats(&repo))?;
    let damaged = stats.findings.iter().any(|f| f.severity == Severity::Error);
    if !ctx.out.is_table() {
        let mut value = serde_json::to_value(&stats)
            .map_err(|error| Failure::new(Exit::Failed, format!("JSON: {error}")))?;
        value["protection"] = immutable::value(&repo);
        ctx.out.value(&value)?;
    } else {
        let factor = |f: Option<f64>| f.map_or("–".to_owned(), |f| format!("{f:.2} : 1"));
        let objects =
            |name: &str, o: &repo::stats::Objects| vec![name.to_owned(), count(o.count), bytes(o.bytes)];
        let mut rows = vec![
            objects("recovery points", &stats.commits),
            objects("packs", &stats.packs),
            objects("index segments", &stats.index),
            objects("keys", &stats.keys),
        ];
        if stats.others.count > 0 {
            rows.push(objects("other objects, never read", &stats.others));
        }
        rows.push(objects("all objects", &stats.total));
        ctx.out.table(&["IN THE STORE", "COUNT", "SIZE"], rows);
        ctx.out.line("");
        if let Some(logical) = stats.bytes_logical {
            ctx.out.line(format!("All recovery points restored would take {}.", bytes(logical)));
        }
        ctx.out.line(format!(
            "Their content is {} of different data in {} (deduplication {}), {} compressed and encrypted (compression {}).",
            bytes(stats.bytes_unique),
            counted(stats.chunks, "chunk", "chunks"),
            factor(stats.dedup_ratio),
            bytes(stats.bytes_sealed),
            factor(stats.compression_ratio),
        ));
        immutable::describe(&ctx.out, repo.probe(), repo.lock());
        print_findings(&ctx.out, &stats.findings, ctx.global.verbose > 0);
    }
    Ok(if damaged { Exit::Damaged } else { Exit::Done })
}

/// A failure while something was being written, told with what is left.
pub fn left_behind(failure: Failure, left: &str) -> Failure {
    match failure.exit {
        Exit::Interrupted => Failure { message: format!("interrupted; {left}"), ..failure },
        _ => Failure { message: format!("{}; {left}", failure.message), ..failure },
    }
}
