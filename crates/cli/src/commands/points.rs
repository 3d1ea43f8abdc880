//! `holdfast points`: what recovery points there are.

use super::print_findings;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Tone, age, bytes, count, note, time};
use crate::picking;
use repo::{CommitInfo, Severity};
use serde_json::json;

/// Arguments of `points`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only those of this application
    pub app: Option<String>,
}

/// Runs it.
pub fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let repo = ctx.repository()?;
    let (mut points, findings) = picking::all(&repo, picking::APPLICATION)?;
    if let Some(app) = &args.app {
        points.retain(|p| label(p, "application") == app);
        if points.is_empty() {
            return Err(Failure::new(
                Exit::NotFound,
                format!("no recovery point of application {app:?} in {}", repo.url()),
            )
            .next("`holdfast points` lists those of all applications"));
        }
    }
    if !ctx.out.is_table() {
        ctx.out.value(&json!({ "points": points, "findings": findings }))?;
    } else {
        let now = ctx.env.now();
        let rows: Vec<Vec<String>> = points.iter().map(|p| row(ctx, p, now)).collect();
        match rows.is_empty() {
            true => note(format!("No recovery points in {} yet; `holdfast backup` makes one.", repo.url())),
            false => ctx.out.table(
                &[
                    "POINT",
                    "APPLICATION",
                    "TIME",
                    "AGE",
                    "CONSISTENCY",
                    "COMPLETE",
                    "OBJECTS",
                    "VOLUMES",
                    "SIZE",
                    "ADDED",
                ],
                rows,
            ),
        }
        print_findings(&ctx.out, &findings, ctx.global.verbose > 0);
    }
    Ok(if findings.iter().any(|f| f.severity == Severity::Error) { Exit::Damaged } else { Exit::Done })
}

fn row(ctx: &Context, point: &CommitInfo, now: repo::Timestamp) -> Vec<String> {
    let figure = |name: &str| point.summary.figures.get(name).copied().unwrap_or(0);
    let complete = match label(point, "complete") {
        "true" => "yes".into(),
        _ => ctx.out.tone(Tone::Bad, "NO"),
    };
    vec![
        point.id.short(),
        label(point, "application").to_owned(),
        time(point.summary.time),
        age(point.summary.time, now),
        label(point, "consistency").to_owned(),
        complete,
        count(figure("objects")),
        match figure("volumes_missing") {
            0 => count(figure("volumes")),
            n => format!("{} (+{} missing)", count(figure("volumes")), count(n)),
        },
        bytes(figure("bytes")),
        bytes(figure("bytes_stored")),
    ]
}

/// A label of a point; empty if it has none of this name.
pub fn label<'a>(point: &'a CommitInfo, name: &str) -> &'a str {
    point.summary.labels.get(name).map_or("", String::as_str)
}
