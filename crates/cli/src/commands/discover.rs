//! `holdfast discover`: which applications there are, what they consist of, what is shared, what is unprotected.

use super::print_findings;
use crate::cluster;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Tone, counted, note};
use app::discover::{Application, Discovered, Outward, Sighted, between, discover_outward};
use app::map;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Lines shown of each thing that lies between applications.
const LINES_MAX: usize = 20;

/// Arguments of `discover`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only this application, with all its parts
    pub app: Option<String>,
    /// Only these namespaces, by name or pattern (shop-*)
    #[arg(short, long, value_name = "NS")]
    pub namespace: Vec<String>,
    /// Look at the cluster of this context of the kubeconfig too, and at what lies between them: who reaches whom, which databases, buckets,
    /// storage and content they share. May be given several times
    #[arg(long, value_name = "CONTEXT", conflicts_with = "app")]
    pub beside: Vec<String>,
}

/// Runs it.
pub async fn run(ctx: &Context, args: Args) -> Result<Exit> {
    if !args.beside.is_empty() {
        return beside(ctx, args).await;
    }
    let cluster = cluster::discover(ctx.client().await?).await?;
    let mut found = app::discover::discover(&cluster, &args.namespace).await?;
    if let Some(app) = &args.app {
        found.applications.retain(|a| &a.name == app);
        if found.applications.is_empty() {
            return Err(Failure::new(
                Exit::NotFound,
                format!("the cluster has no application {app:?} that we can see"),
            )
            .next("`holdfast discover` lists what there is"));
        }
        let names: BTreeSet<String> = found.applications.iter().map(Application::full_name).collect();
        found.shared.retain(|s| s.used_by.iter().any(|user| names.contains(user)));
    }
    if ctx.out.is_dot() {
        match (args.app.is_some(), found.applications.as_slice()) {
            (true, [one]) => ctx.out.line(map::dot_of(&found, one).trim_end()),
            _ => ctx.out.line(map::dot(&found).trim_end()),
        }
        return Ok(Exit::Done);
    }
    if !ctx.out.is_table() {
        ctx.out.value(&found)?;
        return Ok(Exit::Done);
    }
    if found.applications.is_empty() {
        note("No applications found.");
    } else if args.app.is_some() {
        for application in &found.applications {
            print_one(ctx, &found, application);
        }
    } else {
        print_all(ctx, &found);
    }
    print_findings(&ctx.out, &found.findings, ctx.global.verbose > 0);
    Ok(Exit::Done)
}

fn print_all(ctx: &Context, found: &Discovered) {
    let rows = found.applications.iter().map(row).collect();
    ctx.out.table(
        &["NAMESPACE", "APPLICATION", "FOUND BY", "WORKLOADS", "PARTS", "VOLUMES", "SHARED", "UNPROTECTED"],
        rows,
    );
    map::between(found, LINES_MAX).iter().for_each(|line| ctx.out.line(line));
}

/// Several clusters, each as if it were alone, and then what lies between them.
async fn beside(ctx: &Context, args: Args) -> Result<Exit> {
    if ctx.out.is_dot() {
        return Err(Failure::usage("a graph is of one cluster").next("leave out --beside, or -o dot"));
    }
    let own = ctx.global.context.clone().unwrap_or_else(|| "this cluster".to_owned());
    let mut clusters: Vec<(String, Discovered, Outward)> = Vec::new();
    for name in std::iter::once(&own).chain(&args.beside) {
        let client = if clusters.is_empty() { ctx.client().await? } else { ctx.client_of(name).await? };
        let (found, outward) = discover_outward(&cluster::discover(client).await?, &args.namespace).await?;
        let same = |(_, _, other): &&(String, Discovered, Outward)| {
            !outward.cluster.is_empty() && other.cluster == outward.cluster
        };
        if let Some((other, ..)) = clusters.iter().find(same) {
            return Err(Failure::usage(format!("{name} and {other} are one cluster under two names"))
                .next("name contexts of different clusters"));
        }
        clusters.push((name.clone(), found, outward));
    }
    let sighted: Vec<Sighted<'_>> =
        clusters.iter().map(|(name, found, outward)| Sighted { name, found, outward }).collect();
    let between = between(&sighted);
    if !ctx.out.is_table() {
        let each = |(name, found, _): &(String, Discovered, Outward)| -> Result<Value> {
            let mut told = serde_json::to_value(found)
                .map_err(|e| Failure::new(Exit::Failed, format!("cannot tell of {name}: {e}")))?;
            told["context"] = json!(name);
            Ok(told)
        };
        let told = clusters.iter().map(each).collect::<Result<Vec<_>>>()?;
        ctx.out.value(&json!({"clusters": told, "between": between}))?;
        return Ok(Exit::Done);
    }
    for (name, found, _) in &clusters {
        ctx.out.line(ctx.out.tone(Tone::Strong, format!("{name}:")));
        print_all(ctx, found);
        print_findings(&ctx.out, &found.findings, ctx.global.verbose > 0);
    }
    ctx.out.line(ctx.out.tone(Tone::Strong, "between them:"));
    if between.is_empty() {
        ctx.out.line("nothing that we can see");
    }
    between.iter().for_each(|one| ctx.out.line(one.words()));
    Ok(Exit::Done)
}

fn row(a: &Application) -> Vec<String> {
    let unprotected = if a.unprotected.is_empty() {
        "-".to_owned()
    } else {
        counted(a.unprotected.len() as u64, "place", "places")
    };
    vec![
        a.namespace.clone(),
        a.name.clone(),
        a.by.clone(),
        kinds(a.workloads.iter().map(|k| k.kind.as_str())),
        a.parts.len().to_string(),
        a.volumes.len().to_string(),
        a.shared.len().to_string(),
        unprotected,
    ]
}

/// `2 Deployment, 1 StatefulSet`
fn kinds<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in all {
        *counts.entry(kind).or_default() += 1;
    }
    counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect::<Vec<_>>().join(", ")
}

fn print_one(ctx: &Context, found: &Discovered, application: &Application) {
    for (number, line) in map::draw(found, application).lines().enumerate() {
        let tone = match line.trim_start() {
            _ if number == 0 => Tone::Strong,
            text if text.starts_with("unprotected") => Tone::Warn,
            text if text.ends_with("(not there)") => Tone::Bad,
            _ => {
                ctx.out.line(line);
                continue;
            }
        };
        ctx.out.line(ctx.out.tone(tone, line));
    }
    for v in &application.volumes {
        let bound = if v.volume.is_empty() { "not bound" } else { &v.volume };
        ctx.out.line(format!("  volume {}: {} of class {}, {bound}", v.claim, v.size, v.storage_class));
    }
}
