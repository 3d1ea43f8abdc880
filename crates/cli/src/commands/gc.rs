//! `holdfast repo gc`: give back the space of what no recovery point needs.

use super::print_findings;
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::output::{Tone, bytes, counted};
use crate::when;
use repo::gc::{self, Collected, Fate, GRACE, GcOptions, PlanReport};
use serde_json::json;
use std::time::Duration;
use tokio::task::block_in_place;

/// Arguments of `repo gc`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only show what would be done
    #[arg(long)]
    pub plan: bool,
    /// How long unneeded packs rest before they are deleted (0s, 90m, 36h); writers at work are waited for anyway
    #[arg(long, value_name = "DURATION", value_parser = when::duration_or_none)]
    pub grace: Option<Duration>,
    /// Write packs anew of which less than so many percent are needed; 0: none
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub repack: u8,
}

/// Runs it.
pub fn run(ctx: &Context, args: &Args) -> Result<Exit> {
    let repo = ctx.repository()?;
    let options = GcOptions {
        grace: args.grace.unwrap_or(GRACE),
        repack_percent: args.repack,
        cancel: ctx.interrupt.cancel.clone(),
        ..GcOptions::default()
    };
    let progress = ctx.progress("Looking what is needed");
    let plan = block_in_place(|| gc::plan(&repo, options, &progress));
    progress.finish();
    let plan = plan?;
    let report = plan.report().clone();
    let blocked = report.is_blocked();
    if ctx.out.is_table() {
        print_plan(ctx, &report);
    }
    let collected = if args.plan || blocked {
        None
    } else {
        let _changing = ctx.interrupt.changing()?;
        let progress = ctx.progress("Collecting");
        let collected = block_in_place(|| plan.execute(&progress));
        progress.finish();
        Some(collected?)
    };
    if ctx.out.is_table() {
        match &collected {
            Some(collected) => print_collected(ctx, collected),
            None => print_findings(&ctx.out, &report.findings, ctx.global.verbose > 0),
        }
    } else {
        let repository = repo.id().to_string();
        ctx.out.value(
            &json!({ "repository": repository, "blocked": blocked, "plan": report, "collected": collected }),
        )?;
    }
    let stopped = collected
        .as_ref()
        .is_some_and(|done| done.findings.iter().any(|one| one.severity == repo::Severity::Error));
    Ok(if blocked || stopped { Exit::Damaged } else { Exit::Done })
}

fn print_plan(ctx: &Context, report: &PlanReport) {
    let out = &ctx.out;
    out.line(format!(
        "{} need {} of {} in {}.",
        counted(report.commits, "recovery point", "recovery points"),
        bytes(report.bytes_needed),
        bytes(report.bytes),
        counted(report.packs, "pack", "packs"),
    ));
    for (fate, what) in [
        (Fate::Delete, "sentenced earlier: deleted"),
        (Fate::Carry, "sentenced earlier and needed in part: copied, then deleted"),
        (Fate::Sentence, "marked earlier and not needed: sentenced and deleted"),
        (Fate::Wait, "marked and at rest, for the grace period or for a writer"),
        (Fate::Mark, "not needed: marked"),
        (Fate::Repack, "needed in part: what is needed is copied, the rest marked"),
        (Fate::Young, "not needed yet, and a writer is at work: left alone"),
    ] {
        let (packs, size) = report.count(fate);
        if packs > 0 {
            out.line(format!("  {} ({}) {what}", counted(packs, "pack", "packs"), bytes(size)));
        }
    }
    if report.commits_void > 0 {
        let commits = counted(report.commits_void, "commit", "commits");
        out.line(format!("  {commits} that were never acknowledged: removed"));
    }
    if report.leftovers > 0 {
        let left =
            counted(report.leftovers, "old note of checks or probes", "old notes of checks and probes");
        out.line(format!("  {left}: removed"));
    }
    if report.is_blocked() {
        let verdict = out.tone(Tone::Bad, "Nothing is deleted");
        out.line(format!("{verdict}: something could not be read, and may need anything."));
    }
}

fn print_collected(ctx: &Context, done: &Collected) {
    let out = &ctx.out;
    print_findings(out, &done.findings, ctx.global.verbose > 0);
    out.line(format!(
        "Marked {}, deleted {} ({}).",
        counted(done.packs_marked, "pack", "packs"),
        counted(done.packs_deleted, "pack", "packs"),
        bytes(done.bytes_deleted),
    ));
    if done.chunks_copied > 0 {
        out.line(format!(
            "Copied {} ({}) into {}.",
            counted(done.chunks_copied, "chunk", "chunks"),
            bytes(done.bytes_copied),
            counted(done.packs_written, "new pack", "new packs"),
        ));
    }
    if done.packs_deleted > 0 {
        out.line(format!("Freed {}.", bytes(done.bytes_deleted.saturating_sub(done.bytes_written))));
    }
    if done.packs_waiting > 0 {
        out.line(format!(
            "{} ({}) wait for the grace period or for a writer; run this again later.",
            counted(done.packs_waiting, "marked pack", "marked packs"),
            bytes(done.bytes_waiting),
        ));
    }
    if done.locked > 0 {
        let locked = counted(done.locked, "object is", "objects are");
        out.line(format!("{locked} held by the store (a lock, or rights); a later run tries again."));
    }
}
