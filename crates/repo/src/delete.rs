//! Deleting recovery points: as a plan, and then exactly what the plan says.
//!
//! A plan is made from a policy ([`Plan::by_policy`]) or from names ([`Plan::of`]); it is a value to be shown and
//! approved, and executing consumes it, so that a plan runs once. Between plan and execution the repository goes
//! on living, therefore:
//!
//! - Only the commits that the plan drops are deleted; whatever appeared since is untouched.
//! - A series of which something that was to stay has vanished is left alone altogether: whoever took it away may
//!   have counted on what this plan drops.
//! - A hold placed since the plan wins, to the last moment: after a commit is deleted its holds are looked for
//!   once more, and if there is one the commit is put back, byte for byte. (Whoever places a hold looks for the
//!   commit afterwards. So a hold that was reported as placed is never lost, unless the process is killed
//!   between these two calls: then the commit is missed, and nothing it needs is collected.)
//! - While a commit is away that may come back, no collection deletes anything: that it is being deleted is said in the
//!   store before (R3, docs/decisions/0008-collection.md).
//!
//! Only commit objects are deleted, and ended holds of them. The space is given back by collecting.
//! Deleting is a matter of the store's credentials; to plan takes the list or the read key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use crate::env::{Cancel, Timestamp};
use crate::error::Error;
use crate::hold::Hold;
use crate::id::{CommitId, RepositoryId};
use crate::lease;
#[cfg(test)]
use crate::lease::Sabotage;
use crate::monitor::{Finding, Outcome, Progress};
use crate::object::{Capability, CommitInfo};
use crate::repo::Repository;
use crate::retain::{self, Decision, Point, Policy, Reason, Zone};
use crate::store::StoreError;

/// How many commits are deleted at a time: over a network the latency is what counts.
const THREADS: usize = 8;
/// After so many failures in a row the store means it.
const FAILURES_MAX: usize = 16;

/// The commits as retention sees them, with their active holds.
pub fn points(commits: &[CommitInfo], holds: &[Hold], now: Timestamp) -> Vec<Point> {
    let mut held: BTreeMap<CommitId, Vec<String>> = BTreeMap::new();
    for hold in holds.iter().filter(|hold| hold.is_active(now)) {
        held.entry(hold.commit).or_default().push(hold.to_string());
    }
    let point = |commit: &CommitInfo| Point {
        id: commit.id,
        time: commit.summary.time,
        series: retain::series_of(&commit.summary),
        whole: retain::is_whole(&commit.summary),
        holds: held.get(&commit.id).cloned().unwrap_or_default(),
        locked_until: None,
    };
    commits.iter().map(point).collect()
}

/// What would be deleted, and why the rest stays.
#[derive(Debug, Serialize)]
pub struct Plan {
    repository: RepositoryId,
    /// Every point it was made from, by series and oldest first.
    points: Vec<Decision>,
}

/// Points that were asked to be deleted and must stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused(pub Vec<Decision>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was deleted: ")?;
        for (at, one) in self.0.iter().enumerate() {
            let why: Vec<String> = one.keep.iter().map(Reason::to_string).collect();
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{} must stay ({})", one.point.id.short(), why.join(", "))?;
        }
        Ok(())
    }
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// By this run.
    pub deleted: Vec<CommitId>,
    /// By somebody else, before this run came to it.
    pub gone: Vec<CommitId>,
    /// Not, though the plan said so; the findings say why.
    pub left: Vec<CommitId>,
}

impl Plan {
    /// What a policy keeps and drops of these points.
    pub fn by_policy(
        repo: &Repository,
        points: Vec<Point>,
        policy: &Policy,
        zone: Zone<'_>,
    ) -> Result<Plan, Error> {
        let mut points = retain::retain(points, policy, zone, repo.env().now())?;
        look_for_locks(repo, &mut points)?;
        Ok(Plan { repository: repo.id(), points })
    }

    /// These points, by name. Refused as a whole if one of them is held or locked, or, unless `last` allows it,
    /// if a series would be left without a point, or without a whole one that has one.
    pub fn of(
        repo: &Repository,
        points: Vec<Point>,
        asked: &BTreeSet<CommitId>,
        last: bool,
    ) -> Result<Result<Plan, Refused>, Error> {
        let now = repo.env().now();
        let mut points: Vec<Decision> =
            points.into_iter().map(|point| Decision { point, keep: Vec::new() }).collect();
        let order = |one: &Decision| (one.point.series.clone(), one.point.time, one.point.id);
        points.sort_by_cached_key(order);
        let is_asked = |one: &Decision| asked.contains(&one.point.id);
        let mut wanted: Vec<Decision> = points.iter().filter(|one| is_asked(one)).cloned().collect();
        look_for_locks(repo, &mut wanted)?;
        let locked: BTreeMap<CommitId, Timestamp> =
            wanted.iter().filter_map(|one| Some((one.point.id, one.point.locked_until?))).collect();
        // What is asked for and must stay.
        let mut refused: Vec<Decision> = Vec::new();
        for series in points.chunk_by_mut(|a, b| a.point.series == b.point.series) {
            let stays = |whole: bool| series.iter().any(|one| !is_asked(one) && (one.point.whole || !whole));
            let lost = |whole: bool| {
                let newest = series.iter().rfind(|one| one.point.whole || !whole);
                newest.filter(|_| !stays(whole)).map(|one| one.point.id)
            };
            let protected = if last { None } else { lost(true).or_else(|| lost(false)) };
            for one in series {
                if !is_asked(one) {
                    one.keep.push(Reason::NotAsked);
                    continue;
                }
                one.point.locked_until = locked.get(&one.point.id).copied();
                let mut why: Vec<Reason> = one.point.holds.iter().cloned().map(Reason::Hold).collect();
                why.extend(one.point.locked_until.filter(|until| *until > now).map(Reason::Locked));
                why.extend((protected == Some(one.point.id)).then_some(Reason::LastGood));
                if !why.is_empty() {
                    refused.push(Decision { point: one.point.clone(), keep: why });
                }
            }
        }
        Ok(match refused.is_empty() {
            true => Ok(Plan { repository: repo.id(), points }),
            false => Err(Refused(refused)),
        })
    }

    /// Every point and what is decided about it.
    pub fn decisions(&self) -> &[Decision] {
        &self.points
    }

    /// The points to be deleted.
    pub fn drops(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|one| one.is_drop()).map(|one| &one.point)
    }

    /// Deletes what the plan says. Being stopped, or refused by the store, is told in what is left: what was deleted
    /// until then is deleted.
    pub fn execute(
        self,
        repo: &Repository,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Outcome<Deleted>, Error> {
        if self.repository != repo.id() {
            return Err(Error::invalid("a plan of another repository; make one for this"));
        }
        // Whoever may only put sees neither holds nor what a commit is (R5).
        repo.require(Capability::List)?;
        let present: BTreeSet<CommitId> = repo.commit_ids()?.into_iter().collect();
        let mut outcome = Outcome::clean(Deleted::default());
        let mut todo: Vec<&Point> = Vec::new();
        for series in self.points.chunk_by(|a, b| a.point.series == b.point.series) {
            let vanished = series.iter().find(|one| !one.is_drop() && !present.contains(&one.point.id));
            for one in series.iter().filter(|one| one.is_drop()) {
                match vanished {
                    _ if !present.contains(&one.point.id) => outcome.done.gone.push(one.point.id),
                    Some(_) => outcome.done.left.push(one.point.id),
                    None => todo.push(&one.point),
                }
            }
            if let Some(vanished) = vanished.filter(|_| series.iter().any(Decision::is_drop)) {
                outcome.findings.push(Finding::error(
                    "series-changed",
                    &vanished.point.series,
                    format!(
                        "point {} was to stay and is gone since the plan was made, so no other point of this series was deleted; look at it and plan again",
                        vanished.point.id.short()
                    ),
                ));
            }
        }
        progress.total(todo.len() as u64, 0);
        let shared = Mutex::new(outcome);
        let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            while let Some(point) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                let id = point.id;
                let stop = cancel.is_cancelled() || failures.load(Ordering::Relaxed) >= FAILURES_MAX;
                let fate = if stop { Ok(Fate::NotTried) } else { delete(repo, &id) };
                let mut outcome = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                match fate {
                    Ok(Fate::Deleted) => {
                        failures.store(0, Ordering::Relaxed);
                        outcome.done.deleted.push(id);
                        progress.add(1, 0);
                    }
                    Ok(Fate::Gone) => outcome.done.gone.push(id),
                    Ok(Fate::Held(hold)) => {
                        outcome.done.left.push(id);
                        outcome.findings.push(Finding::warning(
                            "point-held",
                            id.to_string(),
                            format!("it was held while this went on ({hold}) and stays"),
                        ));
                    }
                    Ok(Fate::Doubtful(hold)) => {
                        outcome.done.left.push(id);
                        outcome.findings.push(Finding::error(
                            "point-held-late",
                            id.to_string(),
                            format!(
                                "it was held while this went on ({hold}) and was put back, but more than an hour after it was deleted, and a collection has come by: look at it now, `holdfast repo check --point {}`",
                                id.short()
                            ),
                        ));
                    }
                    Ok(Fate::NotTried) => outcome.done.left.push(id),
                    Err(error) => {
                        failures.fetch_add(1, Ordering::Relaxed);
                        outcome.done.left.push(id);
                        outcome.findings.push(Finding::error(
                            "delete-failed",
                            id.to_string(),
                            error.to_string(),
                        ));
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..THREADS.min(todo.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut outcome = shared.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let done = &mut outcome.done;
        for list in [&mut done.deleted, &mut done.gone, &mut done.left] {
            list.sort_unstable();
        }
        outcome.findings.sort_by(|a, b| (b.severity, &a.what).cmp(&(a.severity, &b.what)));
        Ok(outcome)
    }
}

/// Keeps what would be dropped and the store has locked. The store would refuse to delete it; a plan that says so beforehand
/// is better than one that fails at every point.
fn look_for_locks(repo: &Repository, decisions: &mut [Decision]) -> Result<(), Error> {
    let Some(vault) = repo.store().vault() else { return Ok(()) };
    let now = repo.env().now();
    let drops: Vec<usize> = (0..decisions.len()).filter(|at| decisions[*at].is_drop()).collect();
    let ids: Vec<CommitId> = drops.iter().map(|at| decisions[*at].point.id).collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new((Vec::new(), None));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(id) = ids.get(at) else { return };
            let lock = vault.lock_of(&id.key());
            let mut found = found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match lock {
                Ok(Some(lock)) if lock.until > now => found.0.push((at, lock.until)),
                // A bucket without locks, and a point that has gone since, are none.
                Ok(_) | Err(StoreError::NotFound { .. } | StoreError::NotSupported { .. }) => {}
                Err(error) => {
                    found.1.get_or_insert(error);
                    next.store(ids.len(), Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..THREADS.min(ids.len()) {
            scope.spawn(work);
        }
        work();
    });
    let (locked, failed) = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(error) = failed {
        return Err(error.into());
    }
    for (at, until) in locked {
        let one = &mut decisions[drops[at]];
        one.point.locked_until = Some(until);
        one.keep.push(Reason::Locked(until));
    }
    Ok(())
}

fn delete(repo: &Repository, id: &CommitId) -> Result<Fate, Error> {
    delete_one(
        repo,
        id,
        #[cfg(test)]
        Sabotage::None,
    )
}

/// What became of one.
#[derive(Debug)]
pub(crate) enum Fate {
    Deleted,
    Gone,
    Held(Hold),
    /// Held, and put back so late that a collection may have been at work on what it needs.
    Doubtful(Hold),
    NotTried,
}

/// Deletes one, unless it is held.
pub(crate) fn delete_one(
    repo: &Repository,
    id: &CommitId,
    #[cfg(test)] sabotage: Sabotage,
) -> Result<Fate, Error> {
    let active = |holds: &[Hold]| holds.iter().find(|hold| hold.is_active(repo.env().now())).cloned();
    if let Some(hold) = active(&repo.holds_of(id)?.done) {
        return Ok(Fate::Held(hold));
    }
    // Its bytes stay in hand until it is certain that nobody held it meanwhile.
    let bytes = match repo.store().get(&id.key()) {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(Fate::Gone),
        Err(error) => return Err(error.into()),
    };
    // Said before it is gone: a collection that does not find it sees this, or it is back, or nobody held it.
    let said = lease::put_deletion(repo, id)?;
    #[cfg(test)]
    if sabotage == Sabotage::DeleterSaysNothing {
        repo.store().delete(&said)?;
    }
    let deleted = repo.store().delete(&id.key());
    // Also if that failed: a deletion without an answer may have happened.
    let holds = repo.holds_of(id);
    let held = holds.as_ref().map(|holds| active(&holds.done));
    let mut in_time = true;
    // Not knowing is answered like a hold.
    if !matches!(held, Ok(None)) {
        repo.put_content(&id.key(), bytes)?;
        // A collection that came by an hour later has taken the deleter for dead, and removed what he said.
        in_time = !matches!(repo.store().size(&said), Err(StoreError::NotFound { .. }));
    }
    // If it stays, a collection removes it after an hour.
    if let Err(error) = repo.store().delete(&said) {
        tracing::debug!("{said} stays: {error}");
    }
    let holds = holds?.done;
    if let Some(hold) = active(&holds) {
        return Ok(if in_time { Fate::Held(hold) } else { Fate::Doubtful(hold) });
    }
    deleted?;
    // Ended holds of what is gone would be litter. Only tidiness: that they stay is no failure.
    for hold in holds {
        if let Err(error) = repo.release_hold(&hold) {
            tracing::debug!("an ended hold stays: {error}");
        }
    }
    Ok(Fate::Deleted)
}

#[cfg(test)]
mod tests;
