//! `holdfast hold`: keep a recovery point whatever a policy says, until the hold ends or is released.

use super::print_findings;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Tone, note, time};
use crate::picking;
use crate::when::Until;
use repo::Severity;
use repo::hold::Hold;
use serde_json::{Value, json};
use tokio::task::block_in_place;

/// What to do with holds.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Hold a recovery point: nothing deletes it any more
    Add(Add),
    /// List holds
    List(List),
    /// End a hold
    Release(Release),
}

/// Arguments of `hold add`.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// The recovery point: an id or its beginning, `latest`, or `latest:APP`
    pub point: String,
    /// Why; whoever finds the hold must know what it is for
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// When the hold ends by itself: 2027-01-31, 2027-01-31T18:00:00Z, or 90d from now; else when it is released
    #[arg(long, value_name = "TIME")]
    pub until: Option<Until>,
    /// Who holds it [default: the user and the machine]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Arguments of `hold list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only those of this recovery point
    pub point: Option<String>,
}

/// Arguments of `hold release`.
#[derive(Debug, clap::Args)]
pub struct Release {
    /// The hold, as `hold list` names it, or the beginning of that
    pub hold: String,
}

/// Runs it.
pub fn run(ctx: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Add(args) => add(ctx, &args),
        Command::List(args) => list(ctx, &args),
        Command::Release(args) => release(ctx, &args),
    }
}

fn add(ctx: &Context, args: &Add) -> Result<Exit> {
    let repo = ctx.repository()?;
    // By its full name even a key that may list nothing can hold it.
    let commit = match args.point.parse() {
        Ok(id) => id,
        Err(_) => picking::any(&repo, &args.point)?.id,
    };
    let who = args.by.clone().unwrap_or_else(|| {
        let user =
            ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
        format!("{user}@{}", super::volume::hostname())
    });
    let until = args.until.map(|until| until.from(ctx.env.now()));
    let _changing = ctx.interrupt.changing()?;
    let hold = block_in_place(|| repo.add_hold(&commit, &args.reason, &who, until))?;
    if ctx.out.is_table() {
        let end = until.map_or("until it is released".to_owned(), |until| format!("until {}", time(until)));
        ctx.out.line(format!("Hold {} keeps recovery point {} {end}.", hold.id.short(), commit.short()));
    } else {
        ctx.out.value(&told(&hold, ctx.env.now()))?;
    }
    Ok(Exit::Done)
}

fn told(hold: &Hold, now: repo::Timestamp) -> Value {
    json!({
        "id": hold.id, "point": hold.commit, "reason": hold.reason, "who": hold.who,
        "placed": (!hold.damaged).then(|| time(hold.placed)), "until": hold.until.map(time),
        "active": hold.is_active(now), "damaged": hold.damaged,
    })
}

fn list(ctx: &Context, args: &List) -> Result<Exit> {
    let repo = ctx.repository()?;
    let holds = match &args.point {
        Some(point) => {
            let commit = picking::any(&repo, point)?.id;
            block_in_place(|| repo.holds_of(&commit))?
        }
        None => block_in_place(|| repo.holds())?,
    };
    let now = ctx.env.now();
    if ctx.out.is_table() {
        let rows: Vec<Vec<String>> = holds
            .done
            .iter()
            .map(|hold| {
                let state = match (hold.damaged, hold.is_active(now)) {
                    (true, _) => ctx.out.tone(Tone::Bad, "UNREADABLE"),
                    (_, true) => "holds".into(),
                    (_, false) => ctx.out.tone(Tone::Dim, "ended"),
                };
                vec![
                    hold.id.short(),
                    hold.commit.short(),
                    state,
                    if hold.damaged { String::new() } else { time(hold.placed) },
                    hold.until.map_or("released".to_owned(), time),
                    hold.who.clone(),
                    hold.reason.clone(),
                ]
            })
            .collect();
        match rows.is_empty() {
            true => note("No recovery point is held."),
            false => ctx.out.table(&["HOLD", "POINT", "STATE", "PLACED", "UNTIL", "BY", "REASON"], rows),
        }
        print_findings(&ctx.out, &holds.findings, ctx.global.verbose > 0);
    } else {
        let all: Vec<Value> = holds.done.iter().map(|hold| told(hold, now)).collect();
        ctx.out.value(&json!({ "holds": all, "findings": holds.findings }))?;
    }
    Ok(if holds.findings.iter().any(|f| f.severity == Severity::Error) { Exit::Damaged } else { Exit::Done })
}

fn release(ctx: &Context, args: &Release) -> Result<Exit> {
    let repo = ctx.repository()?;
    let holds = block_in_place(|| repo.holds())?.done;
    let wanted = args.hold.to_ascii_lowercase();
    let fits: Vec<&Hold> =
        holds.iter().filter(|hold| !wanted.is_empty() && hold.id.to_string().starts_with(&wanted)).collect();
    let hold = match fits.as_slice() {
        [one] => one,
        [] => {
            return Err(Failure::new(
                Exit::NotFound,
                format!("no hold of {} begins with {:?}", repo.url(), args.hold),
            )
            .next("`holdfast hold list` shows what there is"));
        }
        many => {
            return Err(Failure::usage(format!(
                "{:?} fits {} holds; give more digits",
                args.hold,
                many.len()
            )));
        }
    };
    let _changing = ctx.interrupt.changing()?;
    block_in_place(|| repo.release_hold(hold))?;
    let others = holds
        .iter()
        .filter(|o| o.commit == hold.commit && o.id != hold.id && o.is_active(ctx.env.now()))
        .count();
    if ctx.out.is_table() {
        let still = if others > 0 { format!("; {others} more hold it") } else { String::new() };
        ctx.out.line(format!(
            "Released hold {} of recovery point {}{still}",
            hold.id.short(),
            hold.commit.short()
        ));
    } else {
        ctx.out.value(&json!({ "released": hold.id, "point": hold.commit, "others": others }))?;
    }
    Ok(Exit::Done)
}
