//! `holdfast import`: backups of other tools become recovery points.

use super::print_findings;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Tone, counted};
use app::import::velero::{self, Found, Imported};
use serde_json::json;

/// What stands before the names of variables that are meant for the place imported from.
const FROM: &str = "HOLDFAST_FROM_";

/// Which tool.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Backups in a Velero backup location: objects fully; data of volumes is named by what it is and where it lies
    Velero(Velero),
}

/// Arguments of `import velero`.
#[derive(Debug, clap::Args)]
pub struct Velero {
    /// The backup location: the directory or s3://BUCKET/PREFIX that has `backups/` in it
    #[arg(value_name = "LOCATION")]
    pub location: String,
    /// Only this backup; may be given several times [default: all that are finished]
    #[arg(long, value_name = "NAME")]
    pub backup: Vec<String>,
    /// Only list what is there
    #[arg(long)]
    pub list: bool,
}

/// Runs it.
pub async fn run(ctx: &Context, command: Command) -> Result<Exit> {
    let Command::Velero(args) = command;
    let store = ctx.store_at(&args.location, FROM)?;
    let found = tokio::task::block_in_place(|| velero::backups(&*store))?;
    if let Some(absent) = args.backup.iter().find(|name| !found.iter().any(|f| f.name == **name)) {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no backup {absent:?} in {}", store.url()),
        )
        .next("`--list` shows those that are there"));
    }
    if args.list {
        return list(ctx, &found);
    }
    let repository = ctx.repository()?;
    let changing = ctx.interrupt.changing()?;
    let (mut results, mut is_whole) = (Vec::new(), true);
    for one in found.iter().filter(|one| args.backup.is_empty() || args.backup.contains(&one.name)) {
        if ctx.interrupt.cancel.is_cancelled() {
            return Err(Failure::new(Exit::Interrupted, "interrupted; what was imported stays")
                .next("run the same command again: what is there already is left alone"));
        }
        if let Some(why) = one.refused.as_ref().filter(|_| args.backup.is_empty()) {
            results.push(json!({"backup": one.name, "skipped": why}));
            is_whole = false;
            if ctx.out.is_table() {
                ctx.out.line(format!("{} {}: {why}", ctx.out.tone(Tone::Warn, "skipped"), one.name));
            }
            continue;
        }
        let done = velero::import(&*store, one, &repository, &ctx.env, env!("CARGO_PKG_VERSION")).await?;
        is_whole &= !done.findings.iter().any(|finding| finding.severity > repo::Severity::Note);
        results.push(told(ctx, one, &done));
    }
    drop(changing);
    if !ctx.out.is_table() {
        ctx.out.value(&json!({ "imported": results }))?;
    }
    Ok(if is_whole { Exit::Done } else { Exit::Incomplete })
}

fn list(ctx: &Context, found: &[Found]) -> Result<Exit> {
    if ctx.out.is_table() {
        for one in found {
            let why = one.refused.as_ref().map(|why| format!("  (not imported: {why})")).unwrap_or_default();
            ctx.out.line(format!("{}  {}  {}{why}", one.started, one.name, one.phase));
        }
    } else {
        ctx.out.value(&found)?;
    }
    Ok(Exit::Done)
}

/// What became of one backup, for people at once and for programs as a value.
fn told(ctx: &Context, one: &Found, done: &Imported) -> serde_json::Value {
    let out = &ctx.out;
    let id = done.info.as_ref().map(|info| info.id.to_string());
    if out.is_table() {
        match &done.info {
            None => out.line(format!("{} {}", out.tone(Tone::Dim, "there already"), one.name)),
            Some(info) => {
                print_findings(out, &done.findings, ctx.global.verbose > 0);
                out.line(format!(
                    "{} {} as {}: {}, the data of {} is not in it",
                    out.tone(Tone::Good, "imported"),
                    one.name,
                    info.id.short(),
                    counted(done.objects as u64, "object", "objects"),
                    counted(done.volumes as u64, "claim", "claims"),
                ));
            }
        }
    }
    json!({"backup": one.name, "point": id, "objects": done.objects, "volumes": done.volumes, "findings": done.findings})
}
