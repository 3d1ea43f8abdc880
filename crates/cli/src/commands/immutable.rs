//! `holdfast repo probe` and `renew`: what the store was proved to do, and locks that last.

use super::{exit_for, print_findings};
use crate::context::Context;
use crate::error::{Exit, Result};
use crate::output::{Output, counted};
use crate::unlock;
use crate::when;
use repo::immutable::RenewOptions;
use repo::store::probe::{Probe, probe};
use repo::store::vault::LockMode;
use repo::undelete::{self, Deed};
use repo::{LockPolicy, LockedBy, Repository};
use serde_json::json;
use std::time::Duration;
use tokio::task::block_in_place;

/// How objects are locked, as `repo init` takes it.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Locks {
    /// Lock every object so that nobody (COMPLIANCE), or nobody without a special right (GOVERNANCE), can remove
    /// it; needs an S3 bucket with object lock, or a bucket of Google or Azure whose own policy keeps objects long enough.
    /// Fixed for the life of the repository
    #[arg(long, value_name = "COMPLIANCE|GOVERNANCE", requires = "lock_for")]
    pub lock: Option<LockMode>,
    /// For how long each recovery point, with all it needs, is locked: 30d, 12w, 52w
    #[arg(long, value_name = "DURATION", value_parser = when::duration, requires = "lock")]
    pub lock_for: Option<Duration>,
}

impl Locks {
    /// The policy, if one is wanted.
    pub fn policy(&self) -> Result<Option<LockPolicy>> {
        match (self.lock, self.lock_for) {
            (Some(mode), Some(long)) => Ok(Some(LockPolicy::new(mode, long.as_secs())?)),
            _ => Ok(None),
        }
    }
}

/// Arguments of `repo renew`.
#[derive(Debug, clap::Args)]
pub struct Renew {
    /// Protect every recovery point for so long from now, instead of from when it was taken: 30d, 12w
    #[arg(long, value_name = "DURATION", value_parser = when::duration)]
    pub protect_for: Option<Duration>,
    /// Ask the store about the lock of every object instead of relying on dates and records
    #[arg(long)]
    pub look: bool,
    /// Only show what would be done
    #[arg(long)]
    pub plan: bool,
}

/// A number of seconds as people say it.
pub fn lasting(seconds: u64) -> String {
    match seconds {
        s if s >= 86_400 && s % 86_400 == 0 => counted(s / 86_400, "day", "days"),
        s if s >= 3_600 && s % 3_600 == 0 => counted(s / 3_600, "hour", "hours"),
        s if s >= 60 && s % 60 == 0 => counted(s / 60, "minute", "minutes"),
        s => counted(s, "second", "seconds"),
    }
}

/// What the store was proved to do, and the locks, in a few lines.
pub fn describe(out: &Output, probe: Option<&Probe>, lock: Option<&LockPolicy>) {
    match lock {
        Some(lock) if lock.by == LockedBy::Bucket => out.line(format!(
            "Locks: {} by the bucket's own policy, each recovery point for {}; what lies in packs older than {} is stored again.",
            lock.mode,
            lasting(lock.seconds),
            lasting(lock.slack_seconds / 4 * 3),
        )),
        Some(lock) => out.line(format!(
            "Locks: {}, each recovery point for {}; objects for {} more, so that they need not be renewed every day.",
            lock.mode,
            lasting(lock.seconds),
            lasting(lock.slack_seconds),
        )),
        None => out.line("Locks: none; who may delete in the store can delete recovery points."),
    }
    let Some(probe) = probe else {
        out.line("The store: not probed (the repository was made before there was a probe).");
        return;
    };
    let yes = |fact: bool| if fact { "yes" } else { "no" };
    let modes: Vec<String> = probe.locks.iter().map(LockMode::to_string).collect();
    out.line(format!(
        "The store, proved at {}: conditional put {}, checksums {}, versions {}, locks {}{}.",
        probe.at,
        yes(probe.conditional_put),
        probe.checksums.map_or("its own way", yes),
        yes(probe.versions),
        if modes.is_empty() { "no".to_owned() } else { modes.join(" and ") },
        probe.default_lock.map_or(String::new(), |lock| format!(
            "; the bucket locks every object by itself: {} for {}",
            lock.mode,
            counted(lock.days, "day", "days")
        )),
    ));
    if let Some(kept) = probe.retention {
        out.line(format!(
            "The bucket keeps every object by itself, as it says and as was tried: {} for {}.",
            kept.mode,
            lasting(kept.seconds)
        ));
    }
    for note in &probe.notes {
        out.line(format!("  {note}"));
    }
    if !probe.conditional_put {
        out.line(
            "  Without conditional puts the names of objects protect them from each other (equal names are equal bytes), \
             and nothing protects them from being overwritten on purpose.",
        );
    }
}

/// `repo probe`: proves it again, now.
pub fn run_probe(ctx: &Context) -> Result<Exit> {
    let store = ctx.store()?;
    let _changing = ctx.interrupt.changing()?;
    let modes = [LockMode::Compliance, LockMode::Governance];
    let modes = if store.vault().is_some() { &modes[..] } else { &[] };
    let found = block_in_place(|| probe(&*store, modes, &ctx.env))?;
    if ctx.out.is_table() {
        let yes = |fact: bool| if fact { "yes" } else { "no" };
        let locks = |mode| yes(found.locks.contains(&mode)).to_owned();
        let default = found
            .default_lock
            .map_or("no".to_owned(), |lock| format!("{}, {}", lock.mode, counted(lock.days, "day", "days")));
        ctx.out.table(
            &["PROVED", ""],
            vec![
                vec!["conditional put, one winner of eight".into(), yes(found.conditional_put).into()],
                vec!["checksums are looked at".into(), found.checksums.map_or("–", yes).into()],
                vec!["versions are kept".into(), yes(found.versions).into()],
                vec!["COMPLIANCE locks hold".into(), locks(LockMode::Compliance)],
                vec!["GOVERNANCE locks hold".into(), locks(LockMode::Governance)],
                vec!["the bucket locks by itself (as it says)".into(), default],
                vec![
                    "the bucket keeps objects by itself".into(),
                    found
                        .retention
                        .map_or("no".to_owned(), |kept| format!("{}, {}", kept.mode, lasting(kept.seconds))),
                ],
            ],
        );
        for note in &found.notes {
            ctx.out.line(note);
        }
    } else {
        ctx.out.value(&found)?;
    }
    Ok(Exit::Done)
}

/// `repo renew`.
pub fn run_renew(ctx: &Context, args: &Renew) -> Result<Exit> {
    let repo = ctx.repository()?;
    let options = RenewOptions {
        protect_seconds: args.protect_for.map(|long| long.as_secs()),
        look: args.look,
        plan: args.plan,
    };
    let _changing = if args.plan { None } else { Some(ctx.interrupt.changing()?) };
    let renewed = block_in_place(|| repo::immutable::renew(&repo, &options))?;
    if !ctx.out.is_table() {
        ctx.out
            .value(&json!({ "plan": args.plan, "renewed": renewed.done, "findings": renewed.findings }))?;
        return Ok(exit_for(&renewed.findings));
    }
    let done = &renewed.done;
    ctx.out.line(match (done.extended, args.plan) {
        (0, _) if done.failed == 0 => {
            format!("{} are locked long enough.", counted(done.objects, "object", "objects"))
        }
        (n, true) => format!(
            "Would extend the locks of {} of {} to {}.",
            n,
            counted(done.objects, "object", "objects"),
            done.until
        ),
        (n, false) => format!(
            "Extended the locks of {} of {} to {}.",
            n,
            counted(done.objects, "object", "objects"),
            done.until
        ),
    });
    print_findings(&ctx.out, &renewed.findings, ctx.global.verbose > 0);
    Ok(exit_for(&renewed.findings))
}

/// Arguments of `repo undelete`.
#[derive(Debug, clap::Args)]
pub struct Undelete {
    /// Only show what would be brought back
    #[arg(long)]
    pub plan: bool,
}

const NOTHING: &str = "Nothing was deleted or overwritten by anybody else.";

/// `repo undelete`. Not through an open repository: its header and keys may be among what is gone.
pub fn run_undelete(ctx: &Context, args: &Undelete) -> Result<Exit> {
    let store = ctx.store()?;
    let secret = unlock::existing(ctx)?;
    let plan = block_in_place(|| undelete::plan(&*store, Some(secret.unlock())))?;
    if args.plan {
        if ctx.out.is_table() {
            let rows = plan.steps.iter().map(|step| {
                let deed = match step.deed {
                    Deed::Deleted => "deleted",
                    Deed::Overwritten => "overwritten",
                };
                vec![step.key.clone(), deed.to_owned(), step.at.clone(), step.version.clone()]
            });
            ctx.out.table(&["OBJECT", "WAS", "AT", "VERSION TO BRING BACK"], rows.collect());
            if plan.steps.is_empty() {
                ctx.out.line(NOTHING);
            }
            print_findings(&ctx.out, &plan.findings, ctx.global.verbose > 0);
        } else {
            ctx.out.value(&json!({ "plan": plan.steps, "findings": plan.findings }))?;
        }
        return Ok(exit_for(&plan.findings));
    }
    let _changing = ctx.interrupt.changing()?;
    let outcome = block_in_place(|| plan.execute(&*store, &ctx.env))?;
    if ctx.out.is_table() {
        let nothing = outcome.done == repo::undelete::Undeleted::default();
        ctx.out.line(if nothing {
            NOTHING.to_owned()
        } else {
            format!(
                "Brought back {} and {}. Whoever did that has credentials of the store: replace them.",
                counted(outcome.done.deleted, "deleted object", "deleted objects"),
                counted(outcome.done.overwritten, "overwritten object", "overwritten objects"),
            )
        });
        print_findings(&ctx.out, &outcome.findings, ctx.global.verbose > 0);
    } else {
        ctx.out.value(&json!({ "done": outcome.done, "findings": outcome.findings }))?;
    }
    Ok(exit_for(&outcome.findings))
}

/// The same for programs.
pub fn value(repo: &Repository) -> serde_json::Value {
    json!({ "lock": repo.lock(), "store": repo.probe() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_its_largest_whole_unit() {
        for (seconds, text) in [(86_400, "1 day"), (7_200, "2 hours"), (90, "90 seconds"), (120, "2 minutes")]
        {
            assert_eq!(lasting(seconds), text);
        }
    }
}
