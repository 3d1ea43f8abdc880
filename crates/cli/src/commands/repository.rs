//! `holdfast repo`: create a repository, check it, count it, and hand out keys.

use super::{check, exit_for, immutable, print_findings, repair};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{bytes, count, counted};
use crate::passphrase;
use repo::{Capability, InitOptions, Repository, Severity};
use serde_json::json;
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
    /// List and add keys
    #[command(subcommand)]
    Key(Key),
}

/// Arguments of `repo init`.
#[derive(Debug, Default, clap::Args)]
pub struct Init {
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

/// What to do with the keys.
#[derive(Debug, clap::Subcommand)]
pub enum Key {
    /// List the keys
    List,
    /// Add a passphrase, with the same or fewer rights
    Add(KeyAdd),
    /// Remove a key; not the one in use
    Remove(KeyRemove),
}

/// Arguments of `repo key remove`.
#[derive(Debug, clap::Args)]
pub struct KeyRemove {
    /// The key, as `repo key list` names it, or the beginning of that
    pub key: String,
}

/// Arguments of `repo key add`.
#[derive(Debug, clap::Args)]
pub struct KeyAdd {
    /// The file that holds the new passphrase; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    /// What the new passphrase allows: put (back up), list (names and sizes), read (restore; includes the others)
    #[arg(long, default_value = "read", value_name = "put|list|read")]
    pub capability: Capability,
    /// A name for the key
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub label: String,
    #[command(flatten)]
    pub kdf: Kdf,
}

/// Runs it.
pub fn run(ctx: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Init(args) => {
            let repo = init(ctx, &args)?;
            if ctx.out.is_table() {
                ctx.out.line(format!("Created repository {} at {}", repo.id(), repo.url()));
                ctx.out.line("The passphrase is the only way in: keep it where the repository is not.");
                immutable::describe(&ctx.out, repo.probe(), repo.lock());
            } else {
                let mut value = immutable::value(&repo);
                value["id"] = repo.id().to_string().into();
                value["url"] = repo.url().into();
                ctx.out.value(&value)?;
            }
            Ok(Exit::Done)
        }
        Command::Check(args) => check::run(ctx, &args),
        Command::Repair(args) => repair::run(ctx, &args),
        Command::Stats => stats(ctx),
        Command::Probe => immutable::run_probe(ctx),
        Command::Undelete(args) => immutable::run_undelete(ctx, &args),
        Command::Renew(args) => immutable::run_renew(ctx, &args),
        Command::Copy(args) => super::copy::run(ctx, &args),
        Command::Key(Key::List) => key_list(ctx),
        Command::Key(Key::Add(args)) => key_add(ctx, &args),
        Command::Key(Key::Remove(args)) => key_remove(ctx, &args),
    }
}

/// Creates the repository.
pub fn init(ctx: &Context, args: &Init) -> Result<Repository> {
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
    let passphrase = passphrase::new(ctx, ctx.global.password_file.as_deref(), "--password-file")?;
    let _changing = ctx.interrupt.changing()?;
    let lock = args.locks.policy()?;
    let options = InitOptions { kdf: kdf(&args.kdf), lock, like, ..InitOptions::default() };
    let made = block_in_place(|| Repository::init(store, &passphrase, &options, &ctx.env))?;
    Ok(made.with_local(&ctx.local()))
}

fn kdf(args: &Kdf) -> repo::Kdf {
    let mut kdf = repo::Kdf::default();
    if let Some(mib) = args.kdf_memory {
        kdf.memory_kib = mib * 1024;
    }
    kdf
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

fn key_list(ctx: &Context) -> Result<Exit> {
    let repo = ctx.repository()?;
    let keys = block_in_place(|| repo.keys())?;
    if !ctx.out.is_table() {
        ctx.out.value(&json!({ "keys": keys.done, "findings": keys.findings }))?;
        return Ok(Exit::Done);
    }
    let rows = keys
        .done
        .iter()
        .map(|k| {
            let current = if k.current { "*" } else { "" };
            vec![k.id.clone(), k.capability.to_string(), k.created.clone(), current.into(), k.label.clone()]
        })
        .collect();
    ctx.out.table(&["KEY", "ALLOWS", "CREATED", "IN USE", "LABEL"], rows);
    print_findings(&ctx.out, &keys.findings, ctx.global.verbose > 0);
    Ok(exit_for(&keys.findings))
}

fn key_add(ctx: &Context, args: &KeyAdd) -> Result<Exit> {
    let repo = ctx.repository()?;
    let new = passphrase::new(ctx, args.new_password_file.as_deref(), "--new-password-file")?;
    let _changing = ctx.interrupt.changing()?;
    let key = block_in_place(|| repo.add_key(&new, args.capability, &args.label, kdf(&args.kdf)))?;
    if ctx.out.is_table() {
        ctx.out.line(format!("Added key {key}, which allows {}, to {}", args.capability, repo.url()));
    } else {
        ctx.out.value(&json!({ "key": key, "capability": args.capability, "label": args.label }))?;
    }
    Ok(Exit::Done)
}

fn key_remove(ctx: &Context, args: &KeyRemove) -> Result<Exit> {
    let repo = ctx.repository()?;
    let keys = block_in_place(|| repo.keys())?.done;
    let fits: Vec<&str> = keys.iter().map(|k| k.id.as_str()).filter(|id| id.starts_with(&args.key)).collect();
    let id = match fits.as_slice() {
        [one] => one,
        [] => {
            return Err(Failure::new(
                Exit::NotFound,
                format!("no key of {} begins with {:?}", repo.url(), args.key),
            )
            .next("`holdfast repo key list` shows what there is"));
        }
        many => {
            return Err(Failure::usage(format!("{:?} fits {} keys; give more digits", args.key, many.len())));
        }
    };
    let _changing = ctx.interrupt.changing()?;
    block_in_place(|| repo.remove_key(id))?;
    if ctx.out.is_table() {
        ctx.out.line(format!("Removed key {id} from {}; its passphrase opens nothing any more", repo.url()));
    } else {
        ctx.out.value(&json!({ "removed": id }))?;
    }
    Ok(Exit::Done)
}

/// A failure while something was being written, told with what is left.
pub fn left_behind(failure: Failure, left: &str) -> Failure {
    match failure.exit {
        Exit::Interrupted => Failure { message: format!("interrupted; {left}"), ..failure },
        _ => Failure { message: format!("{}; {left}", failure.message), ..failure },
    }
}
