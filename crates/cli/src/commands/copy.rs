//! `holdfast repo copy`: recovery points into another repository, with other keys, in another place.

use super::print_findings;
use super::repository::left_behind;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Tone, bytes, counted, duration};
use crate::picking;
use repo::copy::{CopyOptions, copy};
use repo::{LocalOptions, Severity, WriterOptions};
use serde_json::json;
use std::path::PathBuf;
use tokio::task::block_in_place;

/// What stands before the names of variables that are meant for the other side.
pub const FAR: &str = "HOLDFAST_TO_";

/// Arguments of `repo copy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recovery points: ids or their beginnings, `latest`, or `latest:APP`
    #[arg(value_name = "POINT", required_unless_present = "all", conflicts_with = "all")]
    pub points: Vec<String>,
    /// All recovery points
    #[arg(long)]
    pub all: bool,
    /// The repository to copy to, which is there already
    #[arg(long, value_name = "URL", env = "HOLDFAST_TO_REPO")]
    pub to: String,
    /// The file that holds its passphrase; without it (or HOLDFAST_TO_PASSWORD_FILE, HOLDFAST_TO_KEY_FILE or HOLDFAST_TO_KMS), it
    /// is asked for
    // Its variable is read by hand, like all that open a repository: an empty one counts as not set.
    #[arg(long, value_name = "FILE")]
    pub to_password_file: Option<PathBuf>,
    /// How many threads read [default: as many as processors, disk or network want]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub threads: usize,
}

/// Runs it.
pub fn run(ctx: &Context, args: &Args) -> Result<Exit> {
    // One number for both sides, and for the names of chunks that are remembered between them.
    let local = ctx.local();
    let (names_bytes, side) = (local.memory_bytes / 8, local.memory_bytes / 16 * 7);
    let local = LocalOptions { memory_bytes: side, ..local };
    let near = ctx.repository()?.with_local(&local);
    let far = ctx.other_repository(&args.to, args.to_password_file.as_deref(), "--to-password-file", FAR)?;
    let far = far.with_local(&local);
    let points = match args.all {
        true => None,
        false => {
            let ids = args.points.iter().map(|point| picking::any(&near, point).map(|commit| commit.id));
            Some(ids.collect::<Result<Vec<_>>>()?)
        }
    };
    let cancel = ctx.interrupt.cancel.clone();
    let options = CopyOptions {
        points,
        threads: args.threads,
        names_bytes,
        writer: WriterOptions { cancel: cancel.clone(), ..WriterOptions::default() },
        cancel,
    };
    let changing = ctx.interrupt.changing()?;
    let progress = ctx.progress(format!("Copying to {}", far.url()));
    let copied = block_in_place(|| copy(&near, &far, &options, &progress));
    progress.finish();
    let elapsed = progress.elapsed();
    drop(changing);
    let outcome = copied.map_err(|error| {
        left_behind(
            Failure::from(error),
            "points that were finished are in the other repository; run the same command again to go on",
        )
    })?;
    let done = &outcome.done;
    if ctx.out.is_table() {
        print_findings(&ctx.out, &outcome.findings, ctx.global.verbose > 0);
        let points = |n: usize| counted(n as u64, "recovery point", "recovery points");
        ctx.out.line(format!(
            "Copied {} to {} ({} there already); {} read, {} sent, in {}",
            points(done.copied.len()),
            far.url(),
            done.present.len(),
            bytes(done.bytes_read),
            bytes(done.written.bytes_stored),
            duration(elapsed),
        ));
        if !done.failed.is_empty() {
            let failed = format!("{} not copied; what is wrong is listed above.", points(done.failed.len()));
            ctx.out.line(ctx.out.tone(Tone::Bad, failed));
        }
    } else {
        ctx.out.value(&json!({
            "from": near.id(), "to": far.id(), "copied": done.copied, "present": done.present,
            "failed": done.failed, "bytes_read": done.bytes_read, "chunks_read": done.chunks_read,
            "written": done.written, "findings": outcome.findings, "seconds": elapsed.as_secs_f64(),
        }))?;
    }
    let damaged = outcome.findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if damaged { Exit::Damaged } else { Exit::Done })
}
