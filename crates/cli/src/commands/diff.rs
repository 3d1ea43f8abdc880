//! `holdfast diff`: a recovery point against another, against the cluster as it is now, or against manifests.

use super::restore::OnlyArgs;
use super::{mapping, print_findings};
use crate::cluster;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::manifests::Source;
use crate::output::{Output, Tone, bytes, counted};
use crate::picking;
use app::compare::Change;
use app::diff::{Diff, DiffOptions, VolumeRoots};
use app::drift::{Drift, DriftOptions};
use app::point::Point;
use app::transform::Mapping;
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
    /// Against manifests: what was changed past them, and by whom. A directory or file; DIR@REV, a revision of the Git
    /// repository it is in; git:URL[//PATH][@REV]; or - for what kustomize or Helm rendered. With `-o patch`: a patch that
    /// brings them up to date
    #[arg(long, value_name = "FROM", conflicts_with_all = ["other", "status"], allow_hyphen_values = true)]
    pub manifests: Option<String>,
    /// The namespace of manifests that name none [default: the point's, if it has one only]
    #[arg(long, value_name = "NS", requires = "manifests")]
    pub manifest_namespace: Option<String>,
    /// Contents of Secrets in the patch, as readable text
    #[arg(long, requires = "manifests")]
    pub secrets: bool,
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
    if ctx.out.is_patch() && args.manifests.is_none() {
        return Err(
            Failure::usage("-o patch needs --manifests").next("name the directory with the manifests")
        );
    }
    let repo = ctx.repository()?;
    let reader = block_in_place(|| repo.reader(ReaderOptions::default()))?;
    let before = picking::one(&repo, picking::APPLICATION, &args.point)?;
    let point = block_in_place(|| Point::read(&reader, &before))?;
    if let Some(from) = &args.manifests {
        if *options.transform.mapping() != Mapping::default() {
            return Err(Failure::usage(
                "manifests are compared as they are: leave out --to, --mapping and their like",
            ));
        }
        let options = DriftOptions {
            only: options.only,
            namespace: args.manifest_namespace.clone(),
            secrets: args.secrets,
        };
        let source = Source::parse(from);
        if ctx.out.is_patch() && source == Source::Stdin {
            return Err(
                Failure::usage("a stream cannot be patched").next("name the directory it is rendered from")
            );
        }
        let manifests = block_in_place(|| source.read(ctx))?;
        let drift = app::drift::compare(&point, manifests, &options, &ctx.env).await?;
        return drifted(ctx, &drift, &format!("point {}", before.id.short()));
    }
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

fn drifted(ctx: &Context, drift: &Drift, point: &str) -> Result<Exit> {
    let out = &ctx.out;
    if out.is_patch() {
        if !drift.patch.is_empty() {
            out.line(drift.patch.trim_end_matches('\n'));
        }
        print_findings(&Output::to_stderr(out.is_quiet()), &drift.findings, ctx.global.verbose > 0);
    } else if out.is_table() {
        for object in &drift.changed {
            out.line(format!("{} {}  ({})", out.tone(Tone::Warn, "~"), object.key, object.file.display()));
            for field in &object.fields {
                let change = Change {
                    at: field.at.clone(),
                    before: field.declared.clone(),
                    after: field.live.clone(),
                };
                let by: Vec<String> = field.by.iter().map(ToString::to_string).collect();
                let by = if by.is_empty() { String::new() } else { format!("  by {}", by.join(", ")) };
                out.line(format!("    {change}{}", out.tone(Tone::Dim, by)));
            }
        }
        for key in &drift.only_declared {
            out.line(format!("{} {key}  (declared, and not in {point})", out.tone(Tone::Bad, "-")));
        }
        for key in &drift.not_compared {
            out.line(format!(
                "{} {key}  (declared in another version, and not compared)",
                out.tone(Tone::Warn, "?")
            ));
        }
        for key in &drift.only_live {
            out.line(format!("{} {key}  (in {point}, and declared nowhere)", out.tone(Tone::Good, "+")));
        }
        print_findings(out, &drift.findings, ctx.global.verbose > 0);
        out.line(format!(
            "The manifests against {point}: {} as declared, {} drifted, {} only declared, {} declared nowhere.",
            drift.same,
            drift.changed.len(),
            drift.only_declared.len(),
            drift.only_live.len(),
        ));
    } else {
        out.value(drift)?;
    }
    Ok(if drift.is_empty() { Exit::Done } else { Exit::Different })
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
