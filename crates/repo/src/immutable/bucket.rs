//! Repositories that count on what their bucket keeps by itself: when one may be made, what a write may rely on there, and
//! what a check has to say of it.

use crate::env::{Timestamp, rfc3339};
use crate::error::Error;
use crate::id::{HEADER, KEYS};
use crate::monitor::Finding;
use crate::repo::Repository;
use crate::store::keeper::Retention;
use crate::store::probe::Probe;
use crate::store::vault::LockMode;
use crate::store::{Store, list_all};

use super::{DAY, LockPolicy, LockedBy, SECOND};

/// What the bucket does, and what is asked of it.
const WEAKER: (LockMode, LockMode) = (LockMode::Governance, LockMode::Compliance);

impl LockPolicy {
    /// The policy as this store can hold it: with locks of its own on each object, or by what the bucket keeps by
    /// itself. Only what was proved counts.
    pub(crate) fn settle(&self, store: &dyn Store, probe: &Probe) -> Result<LockPolicy, Error> {
        if store.vault().is_some() {
            return match probe.locks.contains(&self.mode) {
                true => Ok(*self),
                false => Err(Error::invalid(format!(
                    "{} was not proved to hold {} locks, so no repository is made that counts on them: {}",
                    store.url(),
                    self.mode,
                    probe.notes.join("; ")
                ))),
            };
        }
        if store.keeper().is_none() {
            return Err(Error::invalid(format!(
                "{} cannot lock objects: locks need an S3 bucket with object lock, or a bucket of Google or Azure with a retention policy",
                store.url()
            )));
        }
        let Some(retention) = probe.retention else {
            return Err(Error::invalid(format!(
                "{} keeps nothing by itself that was proved; give the bucket a retention policy and lock it ({})",
                store.url(),
                probe.notes.join("; ")
            )));
        };
        if (retention.mode, self.mode) == WEAKER {
            return Err(Error::invalid(format!(
                "{} keeps objects by a policy that is not locked: its owner can take it away, which is GOVERNANCE and not COMPLIANCE; lock the policy, or ask for GOVERNANCE ({})",
                store.url(),
                probe.notes.join("; ")
            )));
        }
        // What a point shares with older ones must be kept as long as the point: the same least slack as elsewhere.
        let least = if self.seconds >= DAY { 3 * DAY } else { 1 };
        let needed = self.seconds.saturating_add(least);
        if retention.seconds < needed {
            let said = |seconds: u64| match seconds % DAY {
                0 => format!("{} days", seconds / DAY),
                _ => format!("{seconds} seconds"),
            };
            return Err(Error::invalid(format!(
                "{} keeps objects for {} by itself, and recovery points that last {} need {}, because they share packs with earlier ones: lengthen the bucket's policy, or protect them for less",
                store.url(),
                said(retention.seconds),
                said(self.seconds),
                said(needed),
            )));
        }
        let slack_seconds = retention.seconds - self.seconds;
        let policy = LockPolicy { slack_seconds, by: LockedBy::Bucket, ..*self };
        policy.check().map_err(Error::invalid)?;
        Ok(policy)
    }

    /// Packs put before this count as absent for a write that begins now; `None`: none do. A quarter of the slack is left
    /// for the write itself ([`cover`] sees to it).
    pub(crate) fn oldest_pack(&self, now: Timestamp) -> Option<Timestamp> {
        let slack = self.slack_seconds as i64 * SECOND;
        (self.by == LockedBy::Bucket).then(|| now.saturating_sub(slack / 4 * 3 - self.margin()))
    }
}

/// What a check has to say of a bucket that a repository counts on: whether it still keeps objects as long, and whether what
/// no write stores again, the header and the keys, is kept as long as a recovery point made now.
pub(crate) fn look_at_bucket(repo: &Repository) -> Result<Vec<Finding>, Error> {
    let (Some(policy), Some(keeper)) = (repo.lock(), repo.store().keeper()) else { return Ok(vec![]) };
    if policy.by != LockedBy::Bucket {
        return Ok(vec![]);
    }
    let mut findings = Vec::new();
    let promised = policy.seconds.saturating_add(policy.slack_seconds);
    match keeper.policy() {
        Ok(says) => {
            let holds = |r: &Retention| r.seconds >= promised && (r.mode, policy.mode) != WEAKER;
            // Where the bucket does not tell, each object does.
            let fine = if says.keeps { says.retention.is_none_or(|r| holds(&r)) } else { false };
            if !fine {
                findings.push(Finding::warning(
                    "retention-shorter",
                    repo.url(),
                    format!(
                        "this repository counts on its bucket to keep every object for {promised} seconds ({}), and the bucket does not say so any more: recovery points made from now on are not protected as long as promised; put its policy right",
                        policy.mode
                    ),
                ));
            }
        }
        Err(error) if error.is_unavailable() => return Err(error.into()),
        Err(error) => findings.push(Finding::note(
            "retention-not-seen",
            repo.url(),
            format!("what the bucket keeps by itself cannot be read: {error}"),
        )),
    }
    let needed = repo.env().now().saturating_add(policy.protects());
    let mut keys = vec![HEADER.to_owned()];
    keys.extend(list_all(&**repo.store(), KEYS)?.into_iter().map(|object| object.key));
    for key in keys {
        match keeper.kept(&key) {
            Ok(Some(kept)) if kept.until >= needed => {}
            Ok(kept) => findings.push(Finding::warning(
                "kept-too-short",
                key,
                format!(
                    "the bucket keeps it {}, and recovery points made now need it longer. It cannot be renewed: keep a copy of it elsewhere, under its name and byte for byte, or put it under a hold of the service",
                    kept.map_or("no longer".to_owned(), |kept| format!("until {}", rfc3339(kept.until)))
                ),
            )),
            Err(error) if error.is_unavailable() => return Err(error.into()),
            Err(error) => findings.push(Finding::note(
                "retention-not-seen",
                key,
                format!("until when the bucket keeps it cannot be read: {error}"),
            )),
        }
    }
    Ok(findings)
}
