//! `holdfast repo repair`: put right what can be put right, and name what cannot.

use super::check::print_lost;
use super::print_findings;
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::output::{Tone, bytes, count, counted};
use repo::repair::{Loss, PlanReport, RepairOptions, Repaired};
use repo::{Repository, Severity};
use serde_json::json;
use std::path::PathBuf;
use tokio::task::block_in_place;

/// Arguments of `repo repair`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Show what would be done, and change nothing
    #[arg(long)]
    pub plan: bool,
    /// Read every pack to find what is damaged, not only what the listing and the index tell
    #[arg(long)]
    pub read_data: bool,
    /// Take what is lost from this repository, where it is there: a copy of this one, what this one was copied from, or one
    /// made with `--like`
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// The file that holds the passphrase of that repository; without it, it is asked for
    #[arg(long, value_name = "FILE", requires = "from")]
    pub from_password_file: Option<PathBuf>,
}

/// What stands before the names of variables that are meant for the other repository.
const OTHER: &str = "HOLDFAST_FROM_";

/// Runs it.
pub fn run(ctx: &Context, args: &Args) -> Result<Exit> {
    let repo = ctx.repository()?;
    let from = match &args.from {
        Some(url) => {
            let file = args.from_password_file.as_deref();
            Some(ctx.other_repository(url, file, "--from-password-file", OTHER)?)
        }
        None => None,
    };
    let options = RepairOptions {
        read_data: args.read_data,
        from,
        plan_only: args.plan,
        cancel: ctx.interrupt.cancel.clone(),
        ..RepairOptions::default()
    };
    // A lease is put before anything is read.
    let _changing = if args.plan { None } else { Some(ctx.interrupt.changing()?) };
    let progress = ctx.progress("Looking");
    let plan = block_in_place(|| repo::repair::plan(&repo, &options, &progress));
    progress.finish();
    let plan = plan?;
    let (planned, table) = (plan.report().clone(), ctx.out.is_table());
    if table {
        print_plan(ctx, &repo, &planned);
    }
    let damaged = planned.findings.iter().any(|finding| finding.severity == Severity::Error);
    if args.plan || planned.is_empty() {
        if table && planned.is_empty() {
            print_findings(&ctx.out, &planned.findings, ctx.global.verbose > 0);
            print_beyond(ctx, &repo, damaged);
        }
        if !table {
            ctx.out.value(&json!({ "repository": repo.id().to_string(), "plan": planned, "done": null }))?;
        }
        return Ok(if damaged { Exit::Damaged } else { Exit::Done });
    }
    let progress = ctx.progress("Repairing");
    let done = block_in_place(|| plan.execute(&progress));
    progress.finish();
    let done = done?;
    match table {
        true => print_done(ctx, &repo, &done),
        false => {
            ctx.out.value(&json!({ "repository": repo.id().to_string(), "plan": planned, "done": done }))?
        }
    }
    Ok(if done.after.is_damaged() { Exit::Damaged } else { Exit::Done })
}

fn print_plan(ctx: &Context, repo: &Repository, plan: &PlanReport) {
    let out = &ctx.out;
    if plan.is_empty() {
        out.line(format!("{}: there is nothing that a repair could put right.", repo.url()));
        return;
    }
    out.line(format!("To repair {}:", repo.url()));
    if plan.packs_to_name > 0 {
        out.line(format!(
            "  name {} ({}) in the index again",
            counted(plan.packs_to_name, "whole pack", "whole packs"),
            bytes(plan.bytes_to_name)
        ));
    }
    const SHOWN: usize = 50;
    for pack in plan.packs.iter().take(SHOWN) {
        let loss = match pack.loss {
            Loss::Gone => "gone",
            Loss::Damaged => "damaged",
            Loss::Misnamed => "not what the index says",
        };
        let mut line = format!("  leave {} out of the index: it is {loss}", pack.pack.key());
        if pack.chunks_saved > 0 {
            line += &format!(
                "; save {} ({}) of it",
                counted(pack.chunks_saved, "chunk", "chunks"),
                bytes(pack.bytes_saved)
            );
        }
        if pack.chunks_elsewhere > 0 {
            line +=
                &format!("; {} lie in other packs, too", counted(pack.chunks_elsewhere, "chunk", "chunks"));
        }
        if pack.chunks_unreadable > 0 {
            line +=
                &format!("; {} cannot be read from it", counted(pack.chunks_unreadable, "chunk", "chunks"));
        }
        out.line(line);
    }
    if plan.packs.len() > SHOWN {
        out.line(format!("  … and {} more packs; -o json shows all of them", plan.packs.len() - SHOWN));
    }
    for segment in &plan.segments_to_replace {
        out.line(format!("  write {} anew without these packs, then delete it", segment.key()));
    }
    for segment in &plan.segments_to_drop {
        out.line(format!("  delete {}, which is damaged, once all packs are named", segment.key()));
    }
    if let Some(from) = &plan.from {
        out.line(match (from.alike, from.is_empty()) {
            (_, true) => format!("  {} has nothing of what is lost", from.url),
            (true, _) => format!(
                "  take from {} what can then still not be had: it has {} of {} that are lost now, and what lies below them",
                from.url,
                count(from.chunks_there),
                counted(from.chunks_lacking, "chunk", "chunks")
            ),
            (false, _) => format!(
                "  take from {} what can then still not be had: it has {} of {} that lack something",
                from.url,
                count(from.points_there.len() as u64),
                counted(plan.points.len() as u64, "point", "points")
            ),
        });
    }
    if !plan.points.is_empty() {
        out.line("As things stand now, before the repair:");
        print_lost(out, &plan.points);
    }
}

fn print_done(ctx: &Context, repo: &Repository, done: &Repaired) {
    let out = &ctx.out;
    out.line(format!(
        "Named {}, saved {} in {}, left {} out of the index; wrote {}, deleted {}.",
        counted(done.packs_named, "pack", "packs"),
        counted(done.chunks_saved, "chunk", "chunks"),
        counted(done.packs_written, "new pack", "new packs"),
        counted(done.packs_left_out, "pack", "packs"),
        counted(done.segments_written, "index segment", "index segments"),
        counted(done.segments_deleted, "index segment", "index segments"),
    ));
    if done.chunks_taken > 0 {
        out.line(format!(
            "Took {} ({}) from the other repository.",
            counted(done.chunks_taken, "chunk", "chunks"),
            bytes(done.bytes_taken)
        ));
    }
    print_findings(out, &done.findings, ctx.global.verbose > 0);
    print_findings(out, &done.after.findings, ctx.global.verbose > 0);
    print_lost(out, &done.after.points);
    print_beyond(ctx, repo, done.after.is_damaged());
}

fn print_beyond(ctx: &Context, repo: &Repository, damaged: bool) {
    let out = &ctx.out;
    match damaged {
        false => out.line(format!("{}: {}.", repo.url(), out.tone(Tone::Good, "No damage left"))),
        true => {
            out.line(format!(
                "{}: {}.",
                repo.url(),
                out.tone(Tone::Bad, "what is named above is beyond repair")
            ));
            out.line(
                "A full backup of the same content (--full) stores it anew, for all points that lack it.",
            );
        }
    }
}
