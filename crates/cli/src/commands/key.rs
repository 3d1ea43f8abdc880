//! `holdfast repo key`: what opens a repository: list, add, rotate, remove.
//!
//! A key is a passphrase, a key file, a KMS plugin or a recovery key, with the capability it grants. None of these
//! commands touches data: they wrap the same secrets once more, or take a wrapping away (R5).

use super::repository::Kdf;
use super::{exit_for, print_findings};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::unlock::{self, NewKey, Secret, Told};
use repo::{Capability, KeyKind, Repository};
use serde_json::json;
use tokio::task::block_in_place;

/// What to do with the keys.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the keys
    List,
    /// Add a key, with the same or fewer rights
    Add(Add),
    /// Put a key under a new passphrase, key file or plugin key; no data is touched
    Rotate(Rotate),
    /// Remove a key; not the one in use, and not the last that can read
    Remove(Remove),
}

/// Arguments of `repo key add`.
#[derive(Debug, clap::Args)]
pub struct Add {
    #[command(flatten)]
    pub new: NewKey,
    /// What the new key allows: put (back up), list (names and sizes), read (restore; includes the others)
    #[arg(long, default_value = "read", value_name = "put|list|read")]
    pub capability: Capability,
    /// A name for the key
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub label: String,
    #[command(flatten)]
    pub kdf: Kdf,
}

/// Arguments of `repo key rotate`.
#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// The key, as `repo key list` names it, or the beginning of that; without it, the key in use
    pub key: Option<String>,
    #[command(flatten)]
    pub new: NewKey,
    #[command(flatten)]
    pub kdf: Kdf,
}

/// Arguments of `repo key remove`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The key, as `repo key list` names it, or the beginning of that
    pub key: String,
}

/// Runs it.
pub fn run(ctx: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::List => list(ctx),
        Command::Add(args) => add(ctx, &args),
        Command::Rotate(args) => rotate(ctx, &args),
        Command::Remove(args) => remove(ctx, &args),
    }
}

fn list(ctx: &Context) -> Result<Exit> {
    let repo = ctx.repository()?;
    let keys = block_in_place(|| repo.keys())?;
    if !ctx.out.is_table() {
        ctx.out.value(&json!({ "keys": keys.done, "findings": keys.findings }))?;
        return Ok(exit_for(&keys.findings));
    }
    let rows = keys
        .done
        .iter()
        .map(|k| {
            let by = match &k.kms_key_id {
                Some(key_id) => format!("{} ({key_id})", k.kind),
                None => k.kind.to_string(),
            };
            let current = if k.current { "*" } else { "" };
            let (allows, label) = (k.capability.to_string(), k.label.clone());
            vec![k.id.clone(), allows, by, k.created.clone(), current.into(), label]
        })
        .collect();
    ctx.out.table(&["KEY", "ALLOWS", "OPENED BY", "CREATED", "IN USE", "LABEL"], rows);
    print_findings(&ctx.out, &keys.findings, ctx.global.verbose > 0);
    Ok(exit_for(&keys.findings))
}

fn add(ctx: &Context, args: &Add) -> Result<Exit> {
    let repo = ctx.repository()?;
    if args.new.new_recovery_key && args.capability != Capability::Read {
        return Err(Failure::usage("a recovery key restores: its capability is read"));
    }
    let new = args.new.get(ctx)?;
    let _changing = ctx.interrupt.changing()?;
    let added =
        block_in_place(|| repo.add_key(new.unlock(), args.capability, &args.label, args.kdf.chosen()));
    let key = added.inspect_err(|_| args.new.undo())?;
    let mut told = told_of(ctx, &new)?;
    if ctx.out.is_table() {
        ctx.out.line(format!("Added key {key}, which allows {}, to {}", args.capability, repo.url()));
    } else {
        told.insert("key".into(), json!(key));
        told.insert("capability".into(), json!(args.capability));
        told.insert("label".into(), json!(args.label));
        ctx.out.value(&told)?;
    }
    Ok(Exit::Done)
}

fn rotate(ctx: &Context, args: &Rotate) -> Result<Exit> {
    let (repo, with) = ctx.unlocked()?;
    let known = block_in_place(|| repo.keys())?.done;
    let id = match &args.key {
        Some(begin) => find(&repo, begin)?,
        None => known.iter().find(|key| key.current).map(|key| key.id.clone()).ok_or_else(|| {
            Failure::new(Exit::NotFound, "the key in use is gone: somebody removed it just now")
        })?,
    };
    let kind = known.iter().find(|key| key.id == id).map_or(KeyKind::Unknown, |key| key.kind);
    // With nothing said, the same kind again: the plugin's new key, a new recovery key, a new passphrase.
    let made;
    let new = match (args.new.is_open(), kind, &with) {
        (true, KeyKind::Kms, Secret::Plugin(_)) => &with,
        (true, KeyKind::Kms, _) => {
            return Err(Failure::usage("this key is under a KMS plugin; name it with --new-kms"));
        }
        (true, KeyKind::KeyFile, _) => {
            return Err(Failure::usage("this key has a key file; name a new one with --new-key-file"));
        }
        (true, KeyKind::RecoveryKey, _) => {
            made = NewKey { new_recovery_key: true, ..NewKey::default() }.get(ctx)?;
            &made
        }
        _ => {
            made = args.new.get(ctx)?;
            &made
        }
    };
    let _changing = ctx.interrupt.changing()?;
    let rotated = block_in_place(|| repo.rotate_key(&id, new.unlock(), args.kdf.chosen()));
    let rotated = rotated.inspect_err(|_| args.new.undo())?;
    let mut told = told_of(ctx, new)?;
    if ctx.out.is_table() {
        ctx.out.line(format!(
            "Rotated key {} to {} at {}; no data was touched",
            rotated.old,
            rotated.new,
            repo.url()
        ));
        ctx.out.line(match &rotated.old_stays {
            None => "What opened it before opens nothing any more.".to_owned(),
            Some(why) => format!(
                "The old key could not be deleted and STILL OPENS ({why}): run `holdfast repo key remove {}` when the store allows it.",
                rotated.old
            ),
        });
    } else {
        told.insert("old".into(), json!(rotated.old));
        told.insert("new".into(), json!(rotated.new));
        told.insert("oldStays".into(), json!(rotated.old_stays));
        ctx.out.value(&told)?;
    }
    Ok(if rotated.old_stays.is_some() { Exit::Incomplete } else { Exit::Done })
}

/// Shows a recovery key that was made; the beginning of a result for programs.
fn told_of(ctx: &Context, new: &Secret) -> Result<Told> {
    match new {
        Secret::RecoveryKey(key) => unlock::show_recovery_key(ctx, key, None),
        _ => Ok(Told::new()),
    }
}

fn remove(ctx: &Context, args: &Remove) -> Result<Exit> {
    let repo = ctx.repository()?;
    let id = find(&repo, &args.key)?;
    let _changing = ctx.interrupt.changing()?;
    block_in_place(|| repo.remove_key(&id))?;
    if ctx.out.is_table() {
        ctx.out.line(format!("Removed key {id} from {}; what opened it opens nothing any more", repo.url()));
    } else {
        ctx.out.value(&json!({ "removed": id }))?;
    }
    Ok(Exit::Done)
}

/// The one key, damaged ones included, whose name begins so.
fn find(repo: &Repository, begin: &str) -> Result<String> {
    let mut fits = block_in_place(|| repo.key_ids())?;
    fits.retain(|id| id.starts_with(begin));
    match (fits.pop(), fits.len()) {
        (Some(id), 0) => Ok(id),
        (None, _) => {
            Err(Failure::new(Exit::NotFound, format!("no key of {} begins with {begin:?}", repo.url()))
                .next("`holdfast repo key list` shows what there is"))
        }
        (Some(_), more) => Err(Failure::usage(format!("{begin:?} fits {} keys; give more digits", more + 1))),
    }
}
