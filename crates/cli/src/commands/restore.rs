//! `holdfast restore`: plan, and (without `--plan`) do.

use super::{mapping, print_findings};
use crate::cluster;
use crate::context::Context;
use crate::error::{Exit, Failure, Result, io};
use crate::output::{Output, Tone, bytes, counted, duration};
use crate::picking;
use crate::volumes::NodeArgs;
use app::point::Point;
use app::restore::{
    Action, ClusterScoped, Consent, Data, DataSource, Done, Executor, Holder, NotApproved, OnConflict, Only,
    Paper, PaperError, Report, RestoreOptions, RestorePlan, on_paper,
};
use app::selector::Selector;
use repo::ReaderOptions;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recovery point: an id or its beginning, `latest`, or `latest:APP`
    #[arg(required_unless_present = "execute")]
    pub point: Option<String>,
    /// Only show what would happen. `-o json` makes a plan that can be approved and executed later
    #[arg(long)]
    pub plan: bool,
    /// Execute a plan that was made with `--plan -o json`, exactly as it is, once
    #[arg(long, value_name = "PLAN.json", conflicts_with_all = ["point", "plan", "conflict", "cluster_scoped", "status",
        "overwrite_data", "no_data", "namespace", "kind", "name", "selector", "to", "storage_class", "registry", "host",
        "map_node", "priority_class", "ingress_class", "mapping"])]
    pub execute: Option<PathBuf>,
    /// What to do with objects that are there and differ: skip (leave them), update (apply the point's fields over
    /// them), recreate (update; delete and make again what cannot be changed in place), replace (delete and make again),
    /// fail (restore nothing at all)
    #[arg(long, default_value = "skip", value_name = "POLICY")]
    pub conflict: OnConflict,
    /// What to do with objects of the whole cluster: create (where they are absent, never changed), conflict (as
    /// --conflict says), leave (to the cluster's administrator, but for namespaces and volumes)
    #[arg(long, default_value = "create", value_name = "POLICY")]
    pub cluster_scoped: ClusterScoped,
    /// Restore the status of objects of this kind, too (`*`: of all); may be given several times
    #[arg(long, value_name = "KIND")]
    pub status: Vec<String>,
    /// Also write data into claims that exist, so that they hold exactly what the point holds
    #[arg(long, conflicts_with = "no_data")]
    pub overwrite_data: bool,
    /// Restore objects only
    #[arg(long)]
    pub no_data: bool,
    /// Agree to what the plan deletes or overwrites
    #[arg(short, long)]
    pub yes: bool,
    /// Do not wait until everything is ready
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait until everything is ready, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS", conflicts_with = "no_wait")]
    pub timeout: u64,
    #[command(flatten)]
    pub only: OnlyArgs,
    #[command(flatten)]
    pub mapping: mapping::Args,
    #[command(flatten)]
    pub node: NodeArgs,
    /// The image of the pod that holds a claim while its data is written, where nothing else makes it reachable
    #[arg(long, default_value = Holder::IMAGE, value_name = "IMAGE", help_heading = "Volumes")]
    pub holder_image: String,
}

/// Which part of a point.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct OnlyArgs {
    /// Only these namespaces of the point, by name or pattern
    #[arg(short, long, value_name = "NS", help_heading = "Selection")]
    pub namespace: Vec<String>,
    /// Only objects of these kinds (deploy, Deployment, deployments.apps)
    #[arg(long, value_name = "KIND", help_heading = "Selection")]
    pub kind: Vec<String>,
    /// Only objects of these names, by name or pattern
    #[arg(long, value_name = "NAME", help_heading = "Selection")]
    pub name: Vec<String>,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", help_heading = "Selection")]
    pub selector: Option<String>,
}

impl OnlyArgs {
    /// Parsed.
    pub fn only(&self) -> Result<Only> {
        let labels = match &self.selector {
            None => Selector::default(),
            Some(text) => {
                Selector::parse(text).map_err(|e| Failure::usage(format!("--selector {text:?}: {e}")))?
            }
        };
        Ok(Only {
            namespaces: self.namespace.clone(),
            kinds: self.kind.clone(),
            names: self.name.clone(),
            labels,
        })
    }
}

/// What the options say.
fn options(args: &Args) -> Result<RestoreOptions> {
    Ok(RestoreOptions {
        transform: args.mapping.transform()?,
        on_conflict: args.conflict,
        cluster_scoped: args.cluster_scoped,
        status: args.status.clone(),
        only: args.only.only()?,
        data: match (args.no_data, args.overwrite_data) {
            (true, _) => Data::Leave,
            (_, true) => Data::Overwrite,
            _ => Data::New,
        },
        ..RestoreOptions::default()
    })
}

/// Runs it.
pub async fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let repo = ctx.repository()?;
    let digest = |bytes: &[u8]| repo.digest(bytes).map(|digest| digest.to_string());
    let paper = match &args.execute {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|e| mapping::usage_io(io(format!("cannot read the plan {}", file.display()), &e)))?;
            Some(Paper::read(&text, ctx.env.now(), &digest).map_err(not_executed)?)
        }
    };
    let options = match &paper {
        Some(paper) => paper.options().map_err(not_executed)?,
        None => options(&args)?,
    };
    let wanted = match (&paper, &args.point) {
        (Some(paper), _) => paper.point(),
        (None, Some(point)) => point.as_str(),
        (None, None) => return Err(Failure::usage("name a recovery point")),
    };
    let info = picking::one(&repo, picking::APPLICATION, wanted)?;
    let cancel = ctx.interrupt.cancel.clone();
    let reader =
        block_in_place(|| repo.reader(ReaderOptions { cancel: cancel.clone(), ..Default::default() }))?;
    let point = block_in_place(|| Point::read(&reader, &info))?;
    let cluster = cluster::discover(ctx.client().await?).await?;
    let plan = app::restore::plan(&point, &cluster, &options).await?;
    if args.plan {
        match ctx.out.is_table() {
            true => print_plan(ctx, &plan),
            false => {
                let made = on_paper(&plan, &info.id.to_string(), &options, ctx.env.now(), &digest)?;
                ctx.out.value(&made)?;
            }
        }
        return Ok(Exit::Done);
    }
    // Whoever approved a plan read what it deletes and overwrites.
    let yes = args.yes || paper.is_some();
    if let Some(paper) = &paper {
        paper.fits(&plan, &digest).map_err(not_executed)?;
    }
    let approved = plan.approve(&Consent { replace: yes, overwrite_data: yes }).map_err(not_approved)?;
    if let Some(paper) = &paper {
        paper.claim(&cluster, ctx.env.now()).await.map_err(not_executed)?;
    }
    let changing = ctx.interrupt.changing()?;
    let progress = Arc::new(ctx.progress(format!("Restoring {}", point.meta.application)));
    let (files, data) = approved
        .plan()
        .volumes
        .iter()
        .filter(|v| v.restore)
        .fold((0, 0), |(f, b), v| (f + v.files, b + v.bytes));
    repo::Progress::total(&*progress, files, data);
    let mut executor = Executor::new(cluster, ctx.env.clone());
    executor.cancel = cancel;
    executor.progress = progress.clone();
    executor.data = Some(DataSource {
        reader: Arc::new(reader),
        commit: info.id,
        volumes: Arc::new(args.node.volumes()),
    });
    executor.holder = Some(Holder { node: args.node.node(), image: args.holder_image.clone() });
    executor.deadlines.ready = (!args.no_wait).then(|| Duration::from_secs(args.timeout));
    let report = approved.execute(&executor).await;
    progress.finish();
    drop(changing);
    match ctx.out.is_table() {
        true => print_report(ctx, &report),
        false => ctx.out.value(&report)?,
    }
    if report.cancelled {
        return Err(Failure::new(
            Exit::Interrupted,
            format!(
                "interrupted; {} objects were restored, the rest was not tried",
                report.created + report.updated
            ),
        )
        .next("run the same command again: what is done is recognised and left alone"));
    }
    Ok(match (report.is_complete(), damaged(&report)) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Damaged,
        (false, false) => Exit::Incomplete,
    })
}

fn damaged(report: &Report) -> bool {
    report.findings.iter().any(|f| f.code == "damaged")
}

fn not_approved(error: NotApproved) -> Failure {
    Failure::new(Exit::Refused, error.to_string())
}

fn not_executed(error: PaperError) -> Failure {
    let exit = match &error {
        PaperError::Malformed(_) => Exit::Usage,
        PaperError::NoLease(_) => Exit::Denied,
        PaperError::Forged
        | PaperError::Old(_)
        | PaperError::OtherCluster { .. }
        | PaperError::Changed(_)
        | PaperError::Ran(_) => Exit::Refused,
        PaperError::Failed(_) => {
            return match error {
                PaperError::Failed(inner) => inner.into(),
                other => Failure::new(Exit::Failed, other.to_string()),
            };
        }
    };
    Failure::new(exit, error.to_string())
}

fn tone(out: &Output, action: Action) -> String {
    let (tone, sign) = match action {
        Action::Create => (Tone::Good, "+ create"),
        Action::Update => (Tone::Warn, "~ update"),
        Action::Replace => (Tone::Bad, "! replace"),
        Action::Unchanged => (Tone::Dim, "= unchanged"),
        Action::Skip => (Tone::Dim, "- skip"),
        Action::Conflict => (Tone::Bad, "x conflict"),
    };
    out.tone(tone, format!("{sign:<11}"))
}

fn print_plan(ctx: &Context, plan: &RestorePlan) {
    let out = &ctx.out;
    let target = if plan.target.version.is_empty() {
        String::new()
    } else {
        format!(" on Kubernetes {}", plan.target.version)
    };
    out.line(format!("Plan to restore {}{target}. Nothing is changed by looking at it.", plan.application));
    for wave in &plan.waves {
        out.line(out.tone(Tone::Strong, format!("{}:", wave.stage)));
        for step in &wave.steps {
            let was = step.was.as_ref().map(|k| format!(" (was {k})")).unwrap_or_default();
            let reason = if step.reason.is_empty() {
                String::new()
            } else {
                format!("  {}", out.tone(Tone::Dim, &step.reason))
            };
            out.line(format!("  {} {}{was}{reason}", tone(out, step.action), step.key));
            for change in &step.changes {
                out.line(format!("      {change}"));
            }
        }
    }
    if !plan.volumes.is_empty() {
        out.line(out.tone(Tone::Strong, "data:"));
        for volume in &plan.volumes {
            let sign = if volume.restore {
                out.tone(Tone::Good, "+ write    ")
            } else {
                out.tone(Tone::Dim, "- leave    ")
            };
            let size = format!("{}, {}", counted(volume.files, "file", "files"), bytes(volume.bytes));
            out.line(format!("  {sign} {} ({size})  {}", volume.claim, out.tone(Tone::Dim, &volume.reason)));
        }
    }
    if !plan.left.is_empty() && ctx.global.verbose > 0 {
        out.line(out.tone(Tone::Strong, "left out:"));
        for left in &plan.left {
            out.line(format!("  {}  {}", left.key, left.reason));
        }
    }
    print_findings(out, &plan.findings, ctx.global.verbose > 0);
    let c = plan.counts();
    out.line(format!(
        "{} to create, {} to update, {} to replace, {} unchanged, {} skipped, {} in conflict, {} left out; data into {}.",
        c.create, c.update, c.replace, c.unchanged, c.skip, c.conflict, plan.left.len(), counted(c.volumes as u64, "claim", "claims"),
    ));
}

fn print_report(ctx: &Context, report: &Report) {
    let out = &ctx.out;
    for volume in &report.volumes {
        let sign =
            if volume.restored { out.tone(Tone::Good, "data") } else { out.tone(Tone::Bad, "no data") };
        let size = format!("{}, {}", counted(volume.files, "file", "files"), bytes(volume.bytes));
        out.line(format!(
            "{sign} {} ({size}, {}) {}",
            volume.claim,
            millis(volume.milliseconds),
            volume.message
        ));
    }
    if ctx.global.verbose > 0 {
        for object in &report.objects {
            out.line(format!(
                "{:<9} {}  {}",
                format!("{:?}", object.done).to_lowercase(),
                object.key,
                object.message
            ));
        }
        for wave in &report.waves {
            out.line(format!(
                "wave {}: {} in {}",
                wave.stage,
                counted(wave.objects as u64, "object", "objects"),
                millis(wave.milliseconds)
            ));
        }
    } else {
        for object in report.objects.iter().filter(|o| o.done == Done::Skipped && !o.message.is_empty()) {
            out.line(format!("{} {}: {}", out.tone(Tone::Dim, "skipped"), object.key, object.message));
        }
    }
    print_findings(out, &report.findings, ctx.global.verbose > 0);
    let word = match (report.cancelled, report.is_complete()) {
        (true, _) => out.tone(Tone::Bad, "Interrupted while restoring"),
        (_, true) => out.tone(Tone::Good, "Restored"),
        (_, false) => out.tone(Tone::Bad, "Restored in part"),
    };
    out.line(format!(
        "{word} {}: {} created, {} updated, {} unchanged, {} skipped, {} failed, in {}",
        report.application,
        report.created,
        report.updated,
        report.unchanged,
        report.skipped,
        report.failed,
        millis(report.milliseconds),
    ));
}

fn millis(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}
