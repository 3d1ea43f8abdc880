//! `holdfast repo check`: is everything there, and is it what it was?

use super::print_findings;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Output, Tone, age, bytes, count, counted};
use crate::picking::{self, APPLICATION};
use repo::check::{Budget, CheckOptions, CheckReport, PointTouched};
use repo::{CommitId, Repository};
use serde_json::json;
use std::time::Duration;
use tokio::task::block_in_place;

/// Arguments of `repo check`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Read, decrypt and compare every chunk too
    #[arg(long, conflicts_with = "read_data_budget")]
    pub read_data: bool,
    /// Read so much of the data, what was read the longest ago first: a share (5%), an amount (20GiB) or a time
    /// (10m). In time, all of it is read
    #[arg(long, value_name = "BUDGET", value_parser = budget, conflicts_with_all = ["point", "app"])]
    pub read_data_budget: Option<Budget>,
    /// Check only what this recovery point needs: an id or its beginning, latest, latest:APP; can be repeated
    #[arg(long, value_name = "POINT")]
    pub point: Vec<String>,
    /// Check only what the recovery points of this application need
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
}

/// Runs it.
pub fn run(ctx: &Context, args: &Args) -> Result<Exit> {
    let repo = ctx.repository()?;
    let options = CheckOptions {
        read_data: args.read_data,
        budget: args.read_data_budget,
        points: points(&repo, args)?,
        cancel: ctx.interrupt.cancel.clone(),
        ..CheckOptions::default()
    };
    let progress = ctx.progress("Checking");
    let report = block_in_place(|| repo::check::check(&repo, &options, &progress));
    progress.finish();
    let report = report?;
    if !ctx.out.is_table() {
        ctx.out.value(
            &json!({ "repository": repo.id().to_string(), "damaged": report.is_damaged(), "report": report }),
        )?;
    } else {
        print(ctx, &repo, &report, options.points.is_some());
    }
    Ok(if report.is_damaged() { Exit::Damaged } else { Exit::Done })
}

/// The points that are asked for, if not all are.
fn points(repo: &Repository, args: &Args) -> Result<Option<Vec<CommitId>>> {
    if args.point.is_empty() && args.app.is_none() {
        return Ok(None);
    }
    let mut points = Vec::new();
    for wanted in &args.point {
        points.push(match wanted.strip_prefix("latest:") {
            Some(_) => picking::one(repo, APPLICATION, wanted)?.id,
            None => block_in_place(|| repo.find_commit(wanted))?.id,
        });
    }
    if let Some(app) = &args.app {
        let (commits, _) = picking::all(repo, APPLICATION)?;
        let before = points.len();
        let of_app = commits.iter().filter(|c| c.summary.labels.get("application") == Some(app));
        points.extend(of_app.map(|c| c.id));
        if points.len() == before {
            return Err(Failure::new(
                Exit::NotFound,
                format!("no recovery point of application {app:?} in {}", repo.url()),
            )
            .next("`holdfast points` lists those of all applications"));
        }
    }
    points.sort_unstable();
    points.dedup();
    Ok(Some(points))
}

/// `5%`, `20GiB` or `10m`.
fn budget(text: &str) -> std::result::Result<Budget, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || format!("{text:?} is no share (5%), amount (500MiB, 20GiB, 1TiB) or time (90s, 10m, 2h)");
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let amount = |one: u64| Budget::Bytes((number * one as f64) as u64);
    let time = |one: f64| Budget::Time(Duration::try_from_secs_f64(number * one).unwrap_or(Duration::MAX));
    let budget = match unit.trim() {
        "%" => Budget::Share(number / 100.0),
        "MiB" | "M" => amount(1 << 20),
        "GiB" | "G" => amount(1 << 30),
        "TiB" | "T" => amount(1 << 40),
        "s" => time(1.0),
        "m" => time(60.0),
        "h" => time(3600.0),
        _ => return Err(wrong()),
    };
    match budget {
        Budget::Share(share) if share > 0.0 && share <= 1.0 => Ok(budget),
        Budget::Share(_) => Err("a share is above 0% and at most 100%".into()),
        Budget::Bytes(0) | Budget::Time(Duration::ZERO) => Err(format!("{text:?} would read nothing")),
        Budget::Bytes(_) | Budget::Time(_) => Ok(budget),
    }
}

fn print(ctx: &Context, repo: &Repository, report: &CheckReport, chosen: bool) {
    let out = &ctx.out;
    print_findings(out, &report.findings, ctx.global.verbose > 0);
    print_lost(out, &report.points);
    let c = &report.counts;
    out.line(format!(
        "Looked at {}, {}, {}, {} of packs.",
        counted(c.commits, "recovery point", "recovery points"),
        counted(c.packs, "pack", "packs"),
        counted(c.chunks, "chunk", "chunks"),
        bytes(c.bytes_stored),
    ));
    if c.chunks_read > 0 {
        out.line(format!(
            "Read and compared {}, {}.",
            counted(c.chunks_read, "chunk", "chunks"),
            bytes(c.bytes_read)
        ));
    }
    if let Some(turn) = &report.turn {
        let since = match turn.all_read_since {
            None => "the first round is not complete yet".to_owned(),
            Some(at) => format!("everything older has been read within the last {}", age(at, ctx.env.now())),
        };
        out.line(format!(
            "This turn: {} of {}; {}, {since}.",
            counted(turn.packs, "pack", "packs"),
            bytes(turn.bytes),
            counted(turn.laps, "round", "rounds"),
        ));
    }
    if c.packs_unreferenced > 0 {
        out.line(format!(
            "{} ({}) of interrupted writes: unused, harmless, used by the next write of the same content.",
            counted(c.packs_unreferenced, "pack", "packs"),
            bytes(c.bytes_unreferenced),
        ));
    }
    let verdict = match report.is_damaged() {
        false => out.tone(Tone::Good, "No damage found"),
        true => out.tone(Tone::Bad, "DAMAGED"),
    };
    let depth = match (report.read_data, report.turn.is_some(), chosen) {
        (true, _, false) => "every byte read",
        (true, _, true) => "every byte these points need read",
        (false, true, _) => "structure, and a part of the data",
        (false, false, true) => "structure of what these points need; --read-data reads every byte of it",
        (false, false, false) => "structure only; --read-data reads every byte",
    };
    out.line(format!("{}: {verdict} ({depth}).", repo.url()));
    if report.is_damaged() {
        out.line("`holdfast repo repair --plan` shows what can be put right.");
    }
}

/// The points that lost something, and the files.
pub fn print_lost(out: &Output, points: &[PointTouched]) {
    for point in points {
        let name =
            point.labels.get("application").or_else(|| point.labels.get("path")).map_or("", String::as_str);
        let lost = match (point.whole, point.files_count) {
            (true, _) => "nothing of it can be restored".to_owned(),
            (false, 0) => "parts of it cannot be restored".to_owned(),
            (false, n) => format!("{} cannot be restored", counted(n, "file", "files")),
        };
        out.line(format!("{} {} {name}: {lost}", out.tone(Tone::Bad, "point"), point.commit.short()));
        for file in &point.files {
            out.line(format!("    {file}"));
        }
        let more = point.files_count.saturating_sub(point.files.len() as u64);
        if more > 0 {
            out.line(format!("    … and {} more", count(more)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_share_an_amount_or_a_time() {
        for (text, expected) in [
            ("5%", Some(Budget::Share(0.05))),
            ("100%", Some(Budget::Share(1.0))),
            ("12.5%", Some(Budget::Share(0.125))),
            ("20GiB", Some(Budget::Bytes(20 << 30))),
            ("1.5 TiB", Some(Budget::Bytes(3 << 39))),
            ("500M", Some(Budget::Bytes(500 << 20))),
            ("10m", Some(Budget::Time(Duration::from_secs(600)))),
            ("90s", Some(Budget::Time(Duration::from_secs(90)))),
            ("2h", Some(Budget::Time(Duration::from_secs(7200)))),
            ("0%", None),
            ("101%", None),
            ("0s", None),
            ("10", None),
            ("ten minutes", None),
            ("-5%", None),
            ("", None),
        ] {
            assert_eq!(budget(text).ok(), expected, "{text}");
        }
    }
}
