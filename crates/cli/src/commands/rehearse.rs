//! `holdfast rehearse`: a restore, tried where it can do no harm, and what would have failed.

use super::restore::OnlyArgs;
use super::{mapping, print_findings};
use crate::cluster;
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::output::{Tone, counted, duration};
use crate::picking;
use crate::scratch::Scratch;
use app::point::Point;
use app::rehearse::{Refused, Rehearsal, RehearseOptions};
use app::restore::{OnConflict, RestoreOptions};
use repo::ReaderOptions;
use std::time::Duration;
use tokio::task::block_in_place;

/// Arguments of `rehearse`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recovery point: an id or its beginning, `latest`, or `latest:APP`
    pub point: String,
    /// Into an API server inside this process: nothing is written anywhere else
    #[arg(long, required = true)]
    pub embedded: bool,
    /// Rehearse against the cluster of --kubeconfig and --context: its versions, quotas, limits, classes, definitions
    /// and what is there already. It is only read
    #[arg(long)]
    pub target: bool,
    /// What to do with objects that are there and differ, as in `restore`
    #[arg(long, default_value = "skip", value_name = "POLICY")]
    pub conflict: OnConflict,
    #[command(flatten)]
    pub only: OnlyArgs,
    #[command(flatten)]
    pub mapping: mapping::Args,
}

/// Runs it.
pub async fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let restore = RestoreOptions {
        transform: args.mapping.transform()?,
        on_conflict: args.conflict,
        only: args.only.only()?,
        ..RestoreOptions::default()
    };
    let repo = ctx.repository()?;
    let info = picking::one(&repo, picking::APPLICATION, &args.point)?;
    let point = block_in_place(|| -> Result<Point> {
        let reader = repo.reader(ReaderOptions::default())?;
        Ok(Point::read(&reader, &info)?)
    })?;
    let target = match args.target {
        true => Some(cluster::discover(ctx.client().await?).await?),
        false => None,
    };
    // Where pretended volumes lie.
    let scratch = Scratch::new(ctx, "rehearse")?;
    let options = RehearseOptions { restore, target };
    let rehearsal =
        app::rehearse::rehearse(&point, &options, &ctx.env, &ctx.interrupt.cancel, scratch.path()).await?;
    match ctx.out.is_table() {
        true => print(ctx, &rehearsal),
        false => ctx.out.value(&rehearsal)?,
    }
    Ok(if rehearsal.would_succeed() { Exit::Done } else { Exit::Incomplete })
}

fn print(ctx: &Context, rehearsal: &Rehearsal) {
    let out = &ctx.out;
    let tell = |sign: &str, refused: &[Refused]| {
        for Refused { key, reason } in refused {
            out.line(format!("{} {key}: {reason}", out.tone(Tone::Bad, sign)));
        }
    };
    tell("refused     ", &rehearsal.refused);
    tell("pods refused", &rehearsal.pods_refused);
    if ctx.global.verbose > 0 {
        for left in &rehearsal.left {
            out.line(out.tone(Tone::Dim, format!("left out: {}: {}", left.key, left.reason)));
        }
    }
    print_findings(out, &rehearsal.findings, ctx.global.verbose > 0);
    let against = match rehearsal.target.version.as_str() {
        "" => "a current, empty cluster".to_owned(),
        version => format!("the target (Kubernetes {version})"),
    };
    let word = match rehearsal.would_succeed() {
        true => out.tone(Tone::Good, "Would be restored"),
        false => out.tone(Tone::Bad, "Would be restored in part"),
    };
    out.line(format!(
        "{word}: {} against {against}: {} taken, {} untouched, {} refused, {} whose pods are refused; rehearsed in {}. \
         Nothing was written.",
        rehearsal.application,
        counted(rehearsal.accepted as u64, "object", "objects"),
        rehearsal.untouched,
        rehearsal.refused.len(),
        counted(rehearsal.pods_refused.len() as u64, "workload", "workloads"),
        duration(Duration::from_millis(rehearsal.milliseconds)),
    ));
}
