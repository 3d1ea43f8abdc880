//! `holdfast retain`: which recovery points a policy keeps; and (without `--plan`) delete the others.

use super::print_findings;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Tone, counted, note, time};
use crate::{picking, when};
use jiff::tz::TimeZone;
use repo::delete::{self, Deleted, Plan};
use repo::retain::{Decision, Policy, Reason};
use repo::{CommitInfo, Finding, Outcome, Repository, Severity};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::block_in_place;

/// Arguments of `retain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only points of this application
    pub app: Option<String>,
    /// Only backups of this directory
    #[arg(long, value_name = "PATH", conflicts_with = "app")]
    pub volume: Option<PathBuf>,
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Where days, weeks, months and years begin and end
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = when::zone)]
    pub time_zone: TimeZone,
    /// Only show what would be kept and deleted, and why
    #[arg(long)]
    pub plan: bool,
    /// Agree to what the plan deletes
    #[arg(short, long)]
    pub yes: bool,
}

/// What is to stay, of each application and of each directory.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct PolicyArgs {
    /// The last N points
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Policy")]
    pub keep_last: u32,
    /// A point of each of the last N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Policy")]
    pub keep_hourly: u32,
    /// … of the last N days that have one
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Policy")]
    pub keep_daily: u32,
    /// … of the last N weeks (ISO, from Monday)
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Policy")]
    pub keep_weekly: u32,
    /// … of the last N months
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Policy")]
    pub keep_monthly: u32,
    /// … of the last N years
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Policy")]
    pub keep_yearly: u32,
    /// All points that are at most so much older than the newest (36h, 14d, 2w)
    #[arg(long, value_name = "DURATION", value_parser = when::duration, help_heading = "Policy")]
    pub keep_within: Option<Duration>,
}

impl PolicyArgs {
    fn policy(&self) -> Result<Policy> {
        let policy = Policy {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            within: self.keep_within,
        };
        match policy.is_empty() {
            false => Ok(policy),
            true => Err(Failure::usage("the policy keeps nothing")
                .next("say what is to stay, such as --keep-daily 7 --keep-weekly 5 --keep-monthly 12")),
        }
    }
}

/// Runs it.
pub fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let policy = args.policy.policy()?;
    let repo = ctx.repository()?;
    let (mut commits, listed) = listed(&repo)?;
    select(&repo, &args, &mut commits)?;
    let holds = block_in_place(|| repo.holds())?;
    let points = delete::points(&commits, &holds.done, ctx.env.now());
    let zone = |at| when::offset(&args.time_zone, at);
    let plan = block_in_place(|| Plan::by_policy(&repo, points, &policy, &zone))?;
    let found: Vec<Finding> = listed.into_iter().chain(holds.findings).collect();
    let zone = args.time_zone.iana_name().unwrap_or("UTC").to_owned();
    carry_out(
        ctx,
        &repo,
        plan,
        found,
        Consent { plan: args.plan, yes: args.yes },
        json!({ "timeZone": zone }),
    )
}

fn listed(repo: &Repository) -> Result<(Vec<CommitInfo>, Vec<Finding>)> {
    let listed = block_in_place(|| repo.commits())?;
    Ok((listed.done, listed.findings))
}

fn select(repo: &Repository, args: &Args, commits: &mut Vec<CommitInfo>) -> Result<()> {
    let (kind, name, wanted) = match (&args.app, &args.volume) {
        (Some(app), _) => (picking::APPLICATION, "application", app.clone()),
        (None, Some(path)) => {
            // A directory that is gone can still have backups.
            let absolute = || std::path::absolute(path).unwrap_or_else(|_| path.clone());
            (
                picking::VOLUME,
                "path",
                path.canonicalize().unwrap_or_else(|_| absolute()).display().to_string(),
            )
        }
        (None, None) => return Ok(()),
    };
    commits.retain(|c| c.summary.kind == kind && c.summary.labels.get(name) == Some(&wanted));
    match commits.is_empty() {
        false => Ok(()),
        true => Err(Failure::new(
            Exit::NotFound,
            format!("there is no recovery point of {name} {wanted:?} in {}", repo.url()),
        )
        .next("`holdfast points` and `holdfast volume list` show what there is")),
    }
}

/// What the user said about carrying a plan out.
#[derive(Clone, Copy, Debug)]
pub struct Consent {
    /// Only look.
    pub plan: bool,
    /// Agreed beforehand.
    pub yes: bool,
}

/// Shows a plan, asks unless that was answered, deletes, and tells what was done. `extra` goes into the JSON result.
pub fn carry_out(
    ctx: &Context,
    repo: &Repository,
    plan: Plan,
    mut findings: Vec<Finding>,
    consent: Consent,
    extra: Value,
) -> Result<Exit> {
    let table = ctx.out.is_table();
    let decisions = plan.decisions().to_vec();
    let drops = plan.drops().count();
    if table && (consent.plan || !consent.yes) {
        print_plan(ctx, &decisions);
    }
    let mut done = None;
    if !consent.plan && drops > 0 {
        agree(ctx, repo, drops, consent.yes)?;
        let _changing = ctx.interrupt.changing()?;
        let progress = ctx.progress("Deleting recovery points");
        let deleted = block_in_place(|| plan.execute(repo, &ctx.interrupt.cancel, &progress));
        progress.finish();
        let Outcome { done: deleted, findings: more } = deleted?;
        findings.extend(more);
        done = Some(deleted);
    }
    if table {
        print_findings(&ctx.out, &findings, ctx.global.verbose > 0);
        print_outcome(ctx, &decisions, consent, done.as_ref());
    } else {
        let mut value = json!({
            "points": decisions.iter().map(told).collect::<Vec<_>>(),
            "executed": done.is_some(),
            "deleted": done.as_ref().map(|d| &d.deleted),
            "gone": done.as_ref().map(|d| &d.gone),
            "left": done.as_ref().map(|d| &d.left),
            "findings": findings,
        });
        if let (Value::Object(value), Value::Object(extra)) = (&mut value, extra) {
            value.extend(extra);
        }
        ctx.out.value(&value)?;
    }
    let left = done.as_ref().map_or(0, |done| done.left.len());
    if left > 0 && ctx.interrupt.cancel.is_cancelled() {
        return Err(Failure::new(
            Exit::Interrupted,
            format!(
                "interrupted; {} were not deleted",
                counted(left as u64, "recovery point", "recovery points")
            ),
        )
        .next("run the same command again: it plans anew"));
    }
    let damaged = |f: &Finding| f.severity == Severity::Error && f.code.ends_with("-damaged");
    Ok(match left {
        0 if findings.iter().any(damaged) => Exit::Damaged,
        0 => Exit::Done,
        _ => Exit::Incomplete,
    })
}

fn told(one: &Decision) -> Value {
    let word = if one.is_drop() { "delete" } else { "keep" };
    let mut value = serde_json::to_value(one).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        map.insert("decision".into(), word.into());
        map.insert("time".into(), time(one.point.time).into());
        let reasons: Vec<String> = one.keep.iter().map(Reason::to_string).collect();
        map.remove("keep");
        map.insert("reasons".into(), reasons.into());
    }
    value
}

fn agree(ctx: &Context, repo: &Repository, drops: usize, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    let what = counted(drops as u64, "recovery point", "recovery points");
    let refused = |why: &str| {
        Failure::new(Exit::Refused, format!("{why}: {what} of {} would be deleted; nothing was", repo.url()))
            .next("look at it with --plan, then run the same command with --yes")
    };
    if !ctx.out.is_table() || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(refused("not agreed to"));
    }
    let mut asked = std::io::stderr().lock();
    let mut line = String::new();
    let answered = write!(asked, "Delete {what}? [y/N] ").and_then(|()| asked.flush()).and_then(|()| {
        drop(asked);
        std::io::stdin().lock().read_line(&mut line)
    });
    match (answered, line.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(refused("you did not agree")),
    }
}

/// `shop`, `/srv/data on node-1`: the series for people.
fn series(text: &str) -> String {
    // As `series_of` writes it: kind, then name="value".
    let value = |name: &str| {
        let (_, rest) = text.split_once(&format!(" {name}=\""))?;
        Some(rest.split('"').next().unwrap_or_default().to_owned())
    };
    match (value("application"), value("path"), value("host")) {
        (Some(application), _, _) => application,
        (None, Some(path), Some(host)) if !host.is_empty() => format!("{path} on {host}"),
        (None, Some(path), _) => path,
        _ => text.to_owned(),
    }
}

fn print_plan(ctx: &Context, decisions: &[Decision]) {
    let rows: Vec<Vec<String>> = decisions
        .iter()
        .map(|one| {
            let reasons: Vec<String> = one.keep.iter().map(Reason::to_string).collect();
            vec![
                match one.is_drop() {
                    true => ctx.out.tone(Tone::Bad, "- delete"),
                    false => ctx.out.tone(Tone::Good, "= keep"),
                },
                one.point.id.short(),
                time(one.point.time),
                if one.point.whole { "yes".into() } else { ctx.out.tone(Tone::Bad, "NO") },
                series(&one.point.series),
                reasons.join(", "),
            ]
        })
        .collect();
    match rows.is_empty() {
        true => note("There are no recovery points."),
        false => ctx.out.table(&["PLAN", "POINT", "TIME", "COMPLETE", "OF", "BECAUSE"], rows),
    }
}

fn print_outcome(ctx: &Context, decisions: &[Decision], consent: Consent, done: Option<&Deleted>) {
    let points = |n: usize| counted(n as u64, "recovery point", "recovery points");
    let drops = decisions.iter().filter(|one| one.is_drop()).count();
    let kept = decisions.len() - drops;
    let space = "The space is free after `holdfast repo gc`.";
    match done {
        Some(done) => {
            let left = match done.left.len() {
                0 => String::new(),
                n => format!(", {} left", ctx.out.tone(Tone::Bad, n.to_string())),
            };
            ctx.out.line(format!("Deleted {}{left}, kept {kept}. {space}", points(done.deleted.len())));
        }
        None if consent.plan => {
            ctx.out.line(format!(
                "{} to delete, {kept} to keep. Nothing is changed by looking at it.",
                points(drops)
            ));
        }
        None => ctx.out.line(format!("Nothing to delete: all {} stay.", points(kept))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_shown_as_people_name_it() {
        for (text, shown) in [
            (r#"application cluster="6ba7" application="shop""#, "shop"),
            (r#"volume host="node-1" path="/srv/data""#, "/srv/data on node-1"),
            (r#"volume host="" path="/srv/data""#, "/srv/data"),
            (r#"other a="b""#, r#"other a="b""#),
        ] {
            assert_eq!(series(text), shown);
        }
    }
}
