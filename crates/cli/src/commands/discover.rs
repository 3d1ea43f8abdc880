//! `holdfast discover`: which applications there are, what they consist of, what is shared, what is unprotected.

use super::print_findings;
use crate::cluster;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Tone, counted, note};
use app::discover::Application;
use serde_json::json;
use std::collections::BTreeMap;

/// Arguments of `discover`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only this application, with all its parts
    pub app: Option<String>,
    /// Only these namespaces, by name or pattern (shop-*)
    #[arg(short, long, value_name = "NS")]
    pub namespace: Vec<String>,
}

/// Runs it.
pub async fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let cluster = cluster::discover(ctx.client().await?).await?;
    let outcome = app::discover::applications(&cluster, &args.namespace).await?;
    let (mut applications, findings) = (outcome.done, outcome.findings);
    if let Some(app) = &args.app {
        applications.retain(|a| &a.name == app);
        if applications.is_empty() {
            return Err(Failure::new(
                Exit::NotFound,
                format!("the cluster has no application {app:?} that we can see"),
            )
            .next("`holdfast discover` lists what there is"));
        }
    }
    if !ctx.out.is_table() {
        ctx.out.value(&json!({ "applications": applications, "findings": findings }))?;
        return Ok(Exit::Done);
    }
    if applications.is_empty() {
        note("No applications found.");
    } else if args.app.is_some() {
        for application in &applications {
            print_one(ctx, application);
        }
    } else {
        let rows = applications.iter().map(row).collect();
        ctx.out.table(
            &[
                "NAMESPACE",
                "APPLICATION",
                "FOUND BY",
                "WORKLOADS",
                "PARTS",
                "VOLUMES",
                "SHARED",
                "UNPROTECTED",
            ],
            rows,
        );
    }
    print_findings(&ctx.out, &findings, ctx.global.verbose > 0);
    Ok(Exit::Done)
}

fn row(a: &Application) -> Vec<String> {
    let unprotected = if a.unprotected.is_empty() {
        "-".to_owned()
    } else {
        counted(a.unprotected.len() as u64, "volume", "volumes")
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

fn print_one(ctx: &Context, a: &Application) {
    ctx.out.line(
        ctx.out.tone(Tone::Strong, format!("{} in namespace {} (found by {})", a.name, a.namespace, a.by)),
    );
    let mut by_kind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for part in &a.parts {
        by_kind.entry(&part.kind).or_default().push(&part.name);
    }
    for (kind, names) in by_kind {
        ctx.out.line(format!("  {kind}: {}", names.join(", ")));
    }
    for v in &a.volumes {
        let bound = if v.volume.is_empty() { "not bound" } else { &v.volume };
        ctx.out.line(format!("  volume {}: {} of class {}, {bound}", v.claim, v.size, v.storage_class));
    }
    for shared in &a.shared {
        ctx.out.line(format!("  shared: {shared}"));
    }
    for text in &a.unprotected {
        ctx.out.line(format!("  {}: {text}", ctx.out.tone(Tone::Warn, "unprotected")));
    }
}
