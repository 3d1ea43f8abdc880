//! `holdfast backup`: one recovery point of an application, of namespaces, or of a selection.

use super::mapping::usage_io;
use super::repository::left_behind;
use crate::cluster;
use crate::context::Context;
use crate::error::{Exit, Failure, Result, io};
use crate::output::{Tone, bytes, count, counted, duration};
use crate::volumes::NodeArgs;
use app::backup::{BackupOptions, BackupReport, Means, PlanSummary, plan};
use app::certificate::{Level, Note};
use app::rules::kube::KubeHands;
use app::rules::{Rule, Side};
use app::select::Selection;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The application, as `holdfast discover` names it
    #[arg(required_unless_present_any = ["namespace", "selector"])]
    pub app: Option<String>,
    /// Everything in these namespaces, by name or pattern (shop-*); with APP: where it is
    #[arg(short, long, value_name = "NS", help_heading = "Selection")]
    pub namespace: Vec<String>,
    /// Everything with these labels, and what it needs
    #[arg(short = 'l', long, value_name = "SELECTOR", help_heading = "Selection")]
    pub selector: Option<String>,
    /// Only these kinds (deploy, Deployment, deployments.apps), and what they need
    #[arg(long, value_name = "KIND", help_heading = "Selection")]
    pub include_kind: Vec<String>,
    /// Never these kinds, even where they are needed
    #[arg(long, value_name = "KIND", help_heading = "Selection")]
    pub exclude_kind: Vec<String>,
    /// Never these objects: NAME or Kind/NAME, patterns allowed
    #[arg(long, value_name = "NAME", help_heading = "Selection")]
    pub exclude: Vec<String>,
    /// Only show what would be backed up
    #[arg(long)]
    pub dry_run: bool,
    /// Take no recovery point that would be incomplete: fail with exit code 11 instead
    #[arg(long)]
    pub require_complete: bool,
    /// A rule to run around the cut: Holdfast's own or Stork's; may be given several times
    #[arg(long, value_name = "FILE", help_heading = "Consistency")]
    pub rule: Vec<PathBuf>,
    /// A Stork rule to run after the cut
    #[arg(long, value_name = "FILE", help_heading = "Consistency")]
    pub post_rule: Vec<PathBuf>,
    /// How many seconds a lock is held at most, where its rule does not say [default: 5]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600), help_heading = "Consistency")]
    pub hold: Option<u64>,
    /// Read every file, also those that look unchanged since the last point
    #[arg(long, help_heading = "Volumes")]
    pub full: bool,
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Runs it.
pub async fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let options = options(&args)?;
    let repository = ctx.repository()?;
    let client = ctx.client().await?;
    let cluster = cluster::discover(client.clone()).await?;
    let progress = Arc::new(ctx.progress("Backing up"));
    let means = Means {
        repository,
        volumes: Arc::new(args.node.volumes()),
        hands: ctx.given.hands.clone().unwrap_or_else(|| Arc::new(KubeHands::new(client))),
        env: ctx.env.clone(),
        cancel: ctx.interrupt.cancel.clone(),
        progress: progress.clone(),
    };
    let plan =
        plan(&cluster, &means, &options).await.map_err(|e| match (Failure::from(e), &args.selector) {
            (f, Some(labels)) if f.exit == Exit::NotFound => {
                f.next(format!("look what has these labels: kubectl get all --all-namespaces -l '{labels}'"))
            }
            (f, None) if f.exit == Exit::NotFound => f.next("`holdfast discover` lists what there is"),
            (f, _) => f,
        })?;
    if args.dry_run {
        progress.finish();
        match ctx.out.is_table() {
            true => print_plan(ctx, &plan.summary()),
            false => ctx.out.value(&plan.summary())?,
        }
        return Ok(if args.require_complete && !plan.gaps().is_empty() {
            Exit::NotComplete
        } else {
            Exit::Done
        });
    }
    let changing = ctx.interrupt.changing()?;
    let done = plan.execute(&means, &options).await;
    progress.finish();
    drop(changing);
    let report = done.map_err(|e| match Failure::from(e) {
        f if f.exit == Exit::NotComplete => f.next(
            "bring back what is missing, leave it out with --exclude, or back up without --require-complete",
        ),
        f if f.message.contains("nothing was committed") && f.exit != Exit::Interrupted => f,
        f => left_behind(f, "nothing was committed; every lock is released"),
    })?;
    match ctx.out.is_table() {
        true => print(ctx, &report, progress.elapsed()),
        false => ctx.out.value(&json!({
            "id": report.info.id.to_string(), "point": report.meta, "objects": report.objects,
            "volumes": report.volumes, "certificate": report.certificate, "figures": report.info.summary.figures,
            "seconds": progress.elapsed().as_secs_f64(),
        }))?,
    }
    Ok(if report.certificate.complete { Exit::Done } else { Exit::Incomplete })
}

fn options(args: &Args) -> Result<BackupOptions> {
    let mut rules = Vec::new();
    for (files, side) in [(&args.rule, Side::Pre), (&args.post_rule, Side::Post)] {
        for file in files {
            rules.push(rule(file, side)?);
        }
    }
    Ok(BackupOptions {
        selection: Selection {
            application: args.app.clone(),
            namespaces: args.namespace.clone(),
            labels: args.selector.clone().unwrap_or_default(),
            include_kinds: args.include_kind.clone(),
            exclude_kinds: args.exclude_kind.clone(),
            exclude_names: args.exclude.clone(),
        },
        rules,
        hold: args.hold.map(Duration::from_secs),
        incremental: !args.full,
        require_complete: args.require_complete,
        ..BackupOptions::default()
    })
}

fn rule(file: &Path, side: Side) -> Result<Rule> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| usage_io(io(format!("cannot read the rule {}", file.display()), &e)))?;
    Rule::parse(&text, side).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))
}

fn print_plan(ctx: &Context, plan: &PlanSummary) {
    let out = &ctx.out;
    out.line(format!(
        "Plan to back up {} in {}. Nothing is read or changed by looking at it.",
        plan.application,
        plan.namespaces.join(", ")
    ));
    for (object, role, restore) in &plan.objects {
        out.line(format!(
            "  {:<8} {:<9} {object}",
            format!("{role:?}").to_lowercase(),
            format!("{restore:?}").to_lowercase()
        ));
    }
    for (claim, how) in &plan.volumes {
        out.line(format!("  data     {claim}: {how}"));
    }
    for (when, steps) in [("before the cut", &plan.before), ("after the cut", &plan.after)] {
        for step in steps {
            out.line(format!("  {when}: {step}"));
        }
    }
    for missing in &plan.missing {
        out.line(format!("  {} {missing}", out.tone(Tone::Bad, "missing")));
    }
    notes(ctx, &plan.findings);
    out.line(format!(
        "{}, {}.",
        counted(plan.objects.len() as u64, "object", "objects"),
        counted(plan.volumes.len() as u64, "volume", "volumes")
    ));
}

fn print(ctx: &Context, report: &BackupReport, took: Duration) {
    let out = &ctx.out;
    notes(ctx, &report.certificate.findings);
    for rule in &report.meta.rules {
        let kept = match rule.kept {
            true => "all still held after the cut".to_owned(),
            false => out.tone(Tone::Bad, "NOT all held after the cut"),
        };
        out.line(format!(
            "rule {}: {} held for {}, {kept}",
            rule.name,
            counted(rule.members, "pod", "pods"),
            duration(Duration::from_millis(rule.held_ms)),
        ));
    }
    for volume in &report.volumes {
        match &volume.missing {
            Some(why) => {
                out.line(format!(
                    "{} {}/{}: {why}",
                    out.tone(Tone::Bad, "volume MISSING"),
                    volume.namespace,
                    volume.claim
                ));
            }
            None => {
                let note = if volume.note.is_empty() { String::new() } else { format!(" ({})", volume.note) };
                out.line(format!(
                    "volume {}/{}: {}, {}, consistency {}{note}",
                    volume.namespace,
                    volume.claim,
                    counted(volume.files, "file", "files"),
                    bytes(volume.bytes),
                    volume.consistency.word(),
                ));
            }
        }
    }
    for reference in report.certificate.missing() {
        out.line(format!(
            "{} {} <- {} at {}: {}",
            out.tone(Tone::Bad, "missing"),
            reference.to,
            reference.from,
            reference.at,
            reference.reason
        ));
    }
    let figure = |name: &str| report.info.summary.figures.get(name).copied().unwrap_or(0);
    let data: u64 = report.volumes.iter().filter(|v| v.missing.is_none()).map(|v| v.bytes).sum();
    out.line(format!(
        "Backed up {}: {}, {} of data; {} added to the repository, in {}",
        report.meta.application,
        counted(report.objects as u64, "object", "objects"),
        bytes(data),
        bytes(figure("bytes_stored")),
        duration(took),
    ));
    outside(ctx, report);
    let references = count(report.certificate.references.len() as u64);
    let verdict = match report.certificate.complete {
        true => out.tone(Tone::Good, format!("complete: all {references} references are accounted for")),
        false => out.tone(Tone::Bad, "INCOMPLETE: it lacks what is listed above"),
    };
    let level =
        report.meta.consistency.map_or("no volumes".to_owned(), |c| format!("consistency {}", c.word()));
    out.line(format!(
        "Recovery point {}, {level}, {verdict}",
        out.tone(Tone::Strong, report.info.id.short())
    ));
}

/// Data that the application has elsewhere: no point has it, and whoever restores should know.
fn outside(ctx: &Context, report: &BackupReport) {
    let mut names: Vec<String> = report
        .certificate
        .external
        .iter()
        .filter(|e| e.kind.holds_data())
        .map(app::certificate::External::words)
        .collect();
    names.sort();
    names.dedup();
    if !names.is_empty() {
        let word = ctx.out.tone(Tone::Warn, "outside of the cluster, and not in the point");
        ctx.out.line(format!("{word}: {}", names.join(", ")));
    }
}

fn notes(ctx: &Context, notes: &[Note]) {
    let out = &ctx.out;
    for note in notes {
        let word = match note.severity {
            Level::Error => out.tone(Tone::Bad, "error"),
            Level::Warning => out.tone(Tone::Warn, "warning"),
            Level::Note if ctx.global.verbose == 0 => continue,
            Level::Note => out.tone(Tone::Dim, "note"),
        };
        out.line(format!("{word}: {}: {} [{}]", note.what, note.message, note.code));
    }
}
