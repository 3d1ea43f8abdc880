//! `holdfast delete`: delete recovery points by name.

use super::retain::{Consent, carry_out};
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::picking;
use repo::delete::{self, Plan};
use serde_json::json;
use std::collections::BTreeSet;
use tokio::task::block_in_place;

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recovery points: ids or their beginnings, `latest`, or `latest:APP`
    #[arg(required = true, value_name = "POINT")]
    pub points: Vec<String>,
    /// Delete even the last good point of an application or directory
    #[arg(long)]
    pub last: bool,
    /// Only show what would be deleted
    #[arg(long)]
    pub plan: bool,
    /// Agree to it
    #[arg(short, long)]
    pub yes: bool,
}

/// Runs it.
pub fn run(ctx: &Context, args: Args) -> Result<Exit> {
    let repo = ctx.repository()?;
    let mut asked = BTreeSet::new();
    for point in &args.points {
        asked.insert(picking::any(&repo, point)?.id);
    }
    let (commits, holds) = block_in_place(|| Ok::<_, repo::Error>((repo.commits()?, repo.holds()?)))?;
    let points = delete::points(&commits.done, &holds.done, ctx.env.now());
    // Only the series that are touched are worth looking at.
    let touched: BTreeSet<String> =
        points.iter().filter(|point| asked.contains(&point.id)).map(|point| point.series.clone()).collect();
    let points = points.into_iter().filter(|point| touched.contains(&point.series)).collect();
    let plan = block_in_place(|| Plan::of(&repo, points, &asked, args.last))?;
    let plan = plan.map_err(|refused| {
        let held = refused.0.iter().any(|one| !one.point.holds.is_empty());
        let locked = refused.0.iter().any(|one| one.point.locked_until.is_some());
        Failure::new(Exit::Refused, refused.to_string()).next(match (held, locked) {
            (true, _) => "`holdfast hold list` shows who holds them, `holdfast hold release` ends a hold",
            (_, true) => "wait until the lock ends",
            _ => "keep it, or say --last if it may be the last",
        })
    })?;
    let findings = holds.findings;
    carry_out(ctx, &repo, plan, findings, Consent { plan: args.plan, yes: args.yes }, json!({}))
}
