//! `holdfast diff`: a recovery point against another, or against the cluster as it is now.

use super::restore::OnlyArgs;
use super::{mapping, print_findings};
use crate::cluster;
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::output::{Tone, bytes, counted};
use crate::picking;
use app::diff::{Diff, DiffOptions, VolumeRoots};
use app::point::Point;
use repo::{CommitInfo, Reader, ReaderOptions};
use std::collections::BTreeMap;
use tokio::task::block_in_place;

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recovery point: an id or its beginning, `latest`, or `latest:APP`
    pub point: String,
    /// The other point; without it, the cluster
    pub other: Option<String>,
    /// Compare the status of objects as well
    #[arg(long)]
    pub status: bool,
    #[command(flatten)]
    pub only: OnlyArgs,
    #[command(flatten)]
    pub mapping: mapping::Args,
}

/// Runs it.
pub async fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let options =
        DiffOptions { transform: args.mapping.transform()?, only: args.only.only()?, status: args.status };
    let repo = ctx.repository()?;
    let reader = block_in_place(|| repo.reader(ReaderOptions::default()))?;
    let before = picking::one(&repo, picking::APPLICATION, &args.point)?;
    let point = block_in_place(|| Point::read(&reader, &before))?;
    let (diff, name) = match &args.other {
        Some(other) => {
            let after = picking::one(&repo, picking::APPLICATION, other)?;
            let diff = block_in_place(|| -> Result<Diff> {
                let other = Point::read(&reader, &after)?;
                let (roots, other_roots) = (roots(&reader, &before)?, self::roots(&reader, &after)?);
                Ok(app::diff::points((&point, &roots), (&other, &other_roots), &options)?)
            })?;
            (diff, format!("point {}", after.id.short()))
        }
        None => {
            let cluster = cluster::discover(ctx.client().await?).await?;
            (app::diff::with_cluster(&point, &cluster, &options).await?, "the cluster".to_owned())
        }
    };
    if ctx.out.is_table() {
        print(ctx, &diff, &format!("point {}", before.id.short()), &name);
    } else {
        ctx.out.value(&diff)?;
    }
    Ok(if diff.is_empty() { Exit::Done } else { Exit::Different })
}

fn roots(reader: &Reader, info: &CommitInfo) -> Result<VolumeRoots> {
    Ok(reader.manifest(&info.id)?.into_iter().map(|entry| (entry.name, entry.root)).collect())
}

fn print(ctx: &Context, diff: &Diff, before: &str, after: &str) {
    let out = &ctx.out;
    for key in &diff.only_before {
        out.line(format!("{} {key}  (only in {before})", out.tone(Tone::Bad, "-")));
    }
    for key in &diff.only_after {
        out.line(format!("{} {key}  (only in {after})", out.tone(Tone::Good, "+")));
    }
    for changed in &diff.changed {
        let was = changed.was.as_ref().map(|k| format!(" (was {k})")).unwrap_or_default();
        out.line(format!("{} {}{was}", out.tone(Tone::Warn, "~"), changed.key));
        for change in &changed.changes {
            out.line(format!("    {change}"));
        }
    }
    for volume in &diff.volumes {
        let size = |b: Option<u64>, f: Option<u64>| match (b, f) {
            (Some(b), Some(f)) => format!("{} in {}", bytes(b), counted(f, "file", "files")),
            _ => "-".into(),
        };
        let sign = if volume.differs { out.tone(Tone::Warn, "~") } else { "=".into() };
        let sizes = match volume.differs {
            true => format!(
                ": {} -> {}",
                size(volume.bytes_before, volume.files_before),
                size(volume.bytes_after, volume.files_after)
            ),
            false => String::new(),
        };
        out.line(format!("{sign} data of {}: {}{sizes}", volume.claim, volume.state));
    }
    if !diff.ignored.is_empty() {
        out.line("What a restore must change, and is no difference:");
        let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ignored in &diff.ignored {
            let place = format!("{} in {}", ignored.at, counted(ignored.objects as u64, "object", "objects"));
            kinds.entry(ignored.what).or_default().push(place);
        }
        for (what, places) in kinds {
            out.line(out.tone(Tone::Dim, format!("  {what}: {}", places.join(", "))));
        }
    }
    if ctx.global.verbose > 0 {
        for left in &diff.left {
            out.line(out.tone(Tone::Dim, format!("not compared: {}: {}", left.key, left.reason)));
        }
    }
    print_findings(out, &diff.findings, ctx.global.verbose > 0);
    let volumes = diff.volumes.iter().filter(|v| v.differs).count();
    out.line(format!(
        "{before} against {after}: {} the same, {} changed, {} only in {before}, {} only in {after}; data of {} changed.",
        diff.same,
        diff.changed.len(),
        diff.only_before.len(),
        diff.only_after.len(),
        counted(volumes as u64, "claim", "claims"),
    ));
}
