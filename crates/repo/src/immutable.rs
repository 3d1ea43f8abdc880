//! Locks: how long objects can be removed by nobody, and who sees to it that they stay locked long enough.
//!
//! What is promised: a recovery point, and everything it needs, is locked from the moment it is committed for the
//! time the repository was made with ([`LockPolicy::protects`]), even though most of what it needs was written by
//! earlier writes.
//!
//! How, without a call for every pack every day: an object is locked for longer than promised, by the slack. So a
//! pack written or renewed within the slack is locked long enough for a new point, and that is known without asking:
//! from the date it was written, which a listing tells, or from a record of the renewal (`locks/…`). Only what is older
//! is extended, right before the commit, and recorded. Of 600,000 packs that every daily backup reuses, each is
//! extended once in a slack; on the other days the writer reads one record.
//!
//! A bucket that keeps every object by itself for a time from its put ([`crate::store::keeper`]) extends nothing. There the
//! slack is what the bucket keeps objects for beyond what is promised, and a write relies on no pack older than that: it
//! stores again what such packs hold.
//!
//! Records are a matter of cost, not of trust: [`renew`] with `look` asks the store about every object.
//!
//! ```text
//! written ──────────── promised to points until here ┄┄┄┄ slack ┄┄┄┄ unlocked
//!        └─ a point within the slack of `written` may rely on it as it is
//! ```

mod bucket;
mod record;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::check::packs_of;
use crate::env::{Env, Timestamp, rfc3339};
use crate::error::Error;
use crate::id::{CLAIMS, COMMITS, CommitId, HEADER, INDEX, KEYS, LOCKS, PACKS};
use crate::index::{Index, PackSet};
use crate::monitor::{Finding, Outcome};
use crate::object::Capability;
use crate::reader::ReaderOptions;
use crate::repo::Repository;
use crate::store::locked::Locked;
use crate::store::probe::PROBES;
use crate::store::vault::{Lock, LockMode, Vault};
use crate::store::{Store, StoreError, list_all};

pub(crate) use bucket::look_at_bucket;
use record::{Name, Record, name_of, until_of};
pub(crate) use record::{recode_record, record_samples};

const SECOND: Timestamp = 1_000_000_000;
const DAY: u64 = 86_400;
/// Beyond it, a date is a mistake.
const CENTURY: u64 = 100 * 366 * DAY;
/// Calls under way at a time: over a network the latency is what counts.
const CALLERS: usize = 16;
/// A listing answers so many objects a call.
const LISTED: usize = 1_000;

/// How long objects are locked. Part of the header, and with it of what the keys are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockPolicy {
    /// Who could remove a locked object.
    pub mode: LockMode,
    /// For so many seconds a recovery point and all it needs are locked.
    pub seconds: u64,
    /// Objects are locked for so many seconds more, so that they need not be renewed every day.
    pub slack_seconds: u64,
    /// What locks them.
    #[serde(default, skip_serializing_if = "LockedBy::is_object")]
    pub by: LockedBy,
}

/// What locks the objects of a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockedBy {
    /// Each object has a lock of its own, which can be extended.
    #[default]
    Object,
    /// The bucket keeps each object for a time from its put, by a policy of its own. Nothing is extended: a write
    /// relies on no pack older than the slack.
    Bucket,
}

impl LockedBy {
    fn is_object(&self) -> bool {
        *self == LockedBy::Object
    }
}

impl LockPolicy {
    /// The usual slack: half of the time, at least 3 days (for a lock of a day or more), at most 30 days.
    pub fn new(mode: LockMode, seconds: u64) -> Result<LockPolicy, Error> {
        let least = if seconds >= DAY { 3 * DAY } else { 1 };
        let slack_seconds = (seconds / 2).clamp(least, 30 * DAY);
        let policy = LockPolicy { mode, seconds, slack_seconds, by: LockedBy::Object };
        policy.check().map_err(Error::invalid)?;
        Ok(policy)
    }

    /// For how long a point is protected, in nanoseconds.
    pub fn protects(&self) -> Timestamp {
        self.seconds as i64 * SECOND
    }

    /// For how long an object is locked when it is written or renewed.
    pub fn lasts(&self) -> Timestamp {
        self.protects() + self.slack_seconds as i64 * SECOND
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.seconds == 0 || self.seconds > CENTURY || !(1..=CENTURY).contains(&self.slack_seconds) {
            return Err(format!("a lock for {} seconds (1 second to 100 years)", self.seconds));
        }
        Ok(())
    }

    /// The store with these locks. A copy of the repository in a store without any is read, and written, as it is.
    pub(crate) fn wrap(&self, store: Arc<dyn Store>, env: &Env) -> Arc<dyn Store> {
        match store.vault() {
            Some(_) if self.by == LockedBy::Object => {
                Arc::new(Locked::new(store.clone(), self.mode, self.lasts(), env))
            }
            _ => store,
        }
    }

    /// What the clocks of the writer and the store may differ by.
    fn margin(&self) -> Timestamp {
        (self.slack_seconds as i64 * SECOND / 8).min(3_600 * SECOND)
    }
}

/// What extending locks comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Renewed {
    /// Objects looked at.
    pub objects: u64,
    /// Objects whose lock was extended, or is to be.
    pub extended: u64,
    /// Until when (RFC 3339); of a plan, until when it would be.
    pub until: String,
    /// Objects whose lock could not be extended.
    pub failed: u64,
}

/// An object and until when it must be locked.
type Needs = BTreeMap<String, Timestamp>;

/// Before a commit at `now` of a write that began at `begun`: everything the point needs and this write did not store
/// stays locked as long as the point.
pub(crate) fn cover(
    repo: &Repository,
    index: &Index,
    touched: &PackSet,
    begun: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(policy) = repo.lock() else { return Ok(()) };
    let (slack, again) = match policy.by {
        LockedBy::Object => (policy.slack_seconds, "what it stored is there and gets renewed"),
        // What it reuses is at most three quarters of the slack old when it begins.
        LockedBy::Bucket => {
            (policy.slack_seconds / 4, "what it stored is there and need not be stored again")
        }
    };
    let vault = repo.store().vault();
    if (vault.is_some() || policy.by == LockedBy::Bucket)
        && now.saturating_sub(begun) + policy.margin() > slack as i64 * SECOND
    {
        return Err(Error::failed(format!(
            "the write took longer than the {slack} seconds for which its first packs are locked beyond what is promised; nothing was committed: run it again, {again}"
        )));
    }
    let (LockedBy::Object, Some(vault)) = (policy.by, vault) else { return Ok(()) };
    // What is younger than the slack is locked long enough, and nothing is older than the repository.
    if now.saturating_sub(repo.created()) + policy.margin() < policy.slack_seconds as i64 * SECOND {
        return Ok(());
    }
    let needed = now.saturating_add(policy.protects());
    let mut needs = Needs::from([(HEADER.to_owned(), needed)]);
    for folder in [KEYS, INDEX] {
        needs.extend(list_all(&**repo.store(), folder)?.into_iter().map(|object| (object.key, needed)));
    }
    let packs = touched.numbers().filter_map(|number| index.pack(number));
    needs.extend(packs.map(|(id, _)| (id.key(), needed)));
    let work = Work { repo, policy, vault, now, packs: index.pack_count() };
    if work.too_short(&needs, false)?.is_empty() {
        return Ok(());
    }
    // If some have to be extended, those that would soon have to be go along: a few renewals a slack, and a few
    // records, instead of one every day.
    let soon = policy.slack_seconds as i64 * SECOND / 4;
    needs.values_mut().for_each(|needed| *needed = needed.saturating_add(soon));
    let short = work.too_short(&needs, false)?;
    let outcome = work.extend(short, now.saturating_add(policy.lasts()))?;
    match outcome.findings.into_iter().next() {
        None => Ok(()),
        Some(finding) => Err(Error::failed(format!(
            "{}: {}; nothing was committed, since the recovery point would outlive what it needs",
            finding.what, finding.message
        ))),
    }
}

/// How [`renew`] works.
#[derive(Debug, Clone, Default)]
pub struct RenewOptions {
    /// Protect every point for so many seconds from now, instead of from when it was taken.
    pub protect_seconds: Option<u64>,
    /// Ask the store about every object instead of relying on dates and records.
    pub look: bool,
    /// Only say what would be done.
    pub plan: bool,
}

/// Extends the locks of all that the repository's points need to the dates they are promised. Needs the list or the
/// read key. An object that cannot be extended is a finding.
pub fn renew(repo: &Repository, options: &RenewOptions) -> Result<Outcome<Renewed>, Error> {
    let Some(policy) = repo.lock() else {
        return Err(Error::invalid(format!(
            "{} was made without locks; make one with `holdfast repo init --lock` and copy the points there",
            repo.url()
        )));
    };
    if policy.by == LockedBy::Bucket {
        return Err(Error::invalid(format!(
            "{} is kept by its bucket, each object for a time from its put, and nothing of it can be extended: to keep recovery points for longer, copy them, or lengthen the bucket's policy",
            repo.url()
        )));
    }
    let Some(vault) = repo.store().vault() else {
        return Err(Error::invalid(format!("{} is a store without locks", repo.url())));
    };
    if options.protect_seconds.is_some_and(|seconds| seconds > CENTURY) {
        return Err(Error::invalid("points are not protected for more than 100 years at a time"));
    }
    let now = repo.env().now();
    let points = repo.commits()?;
    let index = repo.index()?;
    let work = Work { repo, policy, vault, now, packs: index.pack_count() };
    let mut needs = Needs::new();
    let holds = repo.holds()?;
    let mut groups: BTreeMap<Timestamp, Vec<CommitId>> = BTreeMap::new();
    // With the slack on top, or the next renewal would extend everything again.
    let protect = options.protect_seconds.unwrap_or(0).max(policy.seconds);
    let usual = now.saturating_add(protect.saturating_add(policy.slack_seconds) as i64 * SECOND);
    for point in &points.done {
        let mut until = match options.protect_seconds {
            Some(seconds) => now.saturating_add(seconds as i64 * SECOND),
            None => point.summary.time.saturating_add(policy.protects()),
        };
        // A hold without an end is renewed again and again; one with an end is locked until then.
        for hold in holds.done.iter().filter(|hold| hold.commit == point.id && hold.is_active(now)) {
            until = until.max(hold.until.unwrap_or(now.saturating_add(policy.protects())));
        }
        if until > now {
            needs.insert(point.id.key(), until);
            // Whatever is extended is extended to the usual date at least: points below it need not be told apart.
            groups.entry(if until <= usual { 0 } else { until }).or_default().push(point.id);
        }
    }
    let longest = needs.values().copied().max();
    if let Some(until) = longest {
        needs.insert(HEADER.to_owned(), until);
        for folder in [KEYS, INDEX] {
            needs.extend(list_all(&**repo.store(), folder)?.into_iter().map(|object| (object.key, until)));
        }
    }
    let packs = match repo.capability() {
        Capability::Read => {
            let reader = repo.reader(ReaderOptions::default())?;
            let mut packs = Needs::new();
            for (date, ids) in groups {
                let until = ids.iter().filter_map(|id| needs.get(&id.key())).copied().max().unwrap_or(date);
                for number in packs_of(repo, &reader, &ids)?.numbers() {
                    if let Some((id, _)) = reader.index().pack(number) {
                        let known = packs.entry(id.key()).or_insert(until);
                        *known = until.max(*known);
                    }
                }
            }
            packs
        }
        // Which packs a point is made of is not for this key to know: all of them, to the usual date.
        _ => {
            let until = longest.map_or(now, |until| until.min(usual));
            let packs = (0..index.pack_count() as u32).filter_map(|number| index.pack(number));
            packs.filter(|_| longest.is_some()).map(|(id, _)| (id.key(), until)).collect()
        }
    };
    needs.extend(packs);
    let short = work.too_short(&needs, options.look)?;
    let mut outcome = if options.plan {
        let until = short.iter().map(|(_, needed)| *needed).max().unwrap_or(usual).max(usual);
        let extended = short.len() as u64;
        Outcome::clean(Renewed { extended, until: rfc3339(until), ..Renewed::default() })
    } else {
        work.extend(short, usual)?
    };
    if repo.capability() != Capability::Read && longest.is_some_and(|until| until > usual) {
        outcome.findings.push(Finding::warning(
            "renew-partial",
            repo.url(),
            "opened with the list key, which does not tell the packs of a point: those of points that are held or protected for longer are locked to the usual date only; renew with the read key for that",
        ));
    }
    outcome.done.objects = needs.len() as u64;
    outcome.findings.extend(points.findings);
    outcome.findings.extend(holds.findings);
    Ok(outcome)
}

/// What extending works with.
struct Work<'r> {
    repo: &'r Repository,
    policy: &'r LockPolicy,
    vault: &'r dyn Vault,
    now: Timestamp,
    /// How many packs there are.
    packs: usize,
}

impl Work<'_> {
    /// The objects that unlock before they may.
    fn too_short(&self, needs: &Needs, look: bool) -> Result<Vec<(String, Timestamp)>, Error> {
        let mut open: Needs = needs.clone();
        if !look {
            let covered = self.read_records(needs.values().copied().min().unwrap_or(0))?;
            open.retain(|key, needed| !covered.iter().any(|record| record.covers(key, *needed)));
            self.drop_young(&mut open)?;
        }
        // What is left is asked, one by one if it is to be looked at, and extended otherwise.
        if !look {
            return Ok(open.into_iter().collect());
        }
        let keys: Vec<(String, Timestamp)> = open.into_iter().collect();
        let short = each(&keys, |(key, needed)| match self.vault.lock_of(key) {
            Ok(Some(lock)) if lock.until >= *needed => Ok(None),
            Ok(_) => Ok(Some((key.clone(), *needed))),
            // A pack that is gone is for `check` to tell.
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        Ok(short.into_iter().flatten().collect())
    }

    /// Removes what was written so late that its first lock lasts. One listing a folder, or one question an object,
    /// whichever is fewer calls.
    fn drop_young(&self, open: &mut Needs) -> Result<(), Error> {
        for folder in [PACKS, INDEX, COMMITS, KEYS, HEADER] {
            let keys: Vec<(String, Timestamp)> = open
                .iter()
                .filter(|(key, _)| key.starts_with(folder))
                .map(|(key, needed)| (key.clone(), *needed))
                .collect();
            if keys.is_empty() {
                continue;
            }
            let few = folder == PACKS && keys.len() <= self.packs / LISTED;
            if few || folder == HEADER {
                let fine = each(&keys, |(key, needed)| match self.vault.lock_of(key) {
                    Ok(Some(lock)) if lock.until >= *needed => Ok(Some(key.clone())),
                    Ok(_) => Ok(None),
                    Err(error) => Err(error.into()),
                })?;
                for key in fine.into_iter().flatten() {
                    open.remove(&key);
                }
                continue;
            }
            let lasts = self.policy.lasts().saturating_sub(self.policy.margin());
            // The oldest version decides: what somebody put over it since is not what the points need.
            let mut oldest: BTreeMap<String, Timestamp> = BTreeMap::new();
            self.vault.versions(folder, &mut |version| {
                if !version.marker && open.contains_key(&version.key) {
                    let known = oldest.entry(version.key).or_insert(version.modified);
                    *known = version.modified.min(*known);
                }
                Ok(())
            })?;
            open.retain(|key, needed| {
                oldest.get(key).is_none_or(|written| written.saturating_add(lasts) < *needed)
            });
        }
        Ok(())
    }

    /// Moves the locks to the usual date, or later where it is needed, and records those it moved.
    fn extend(&self, short: Vec<(String, Timestamp)>, usual: Timestamp) -> Result<Outcome<Renewed>, Error> {
        let mode = self.policy.mode;
        let results = each(&short, |(key, needed)| {
            match self.vault.set_lock(key, &Lock::new(mode, usual.max(*needed))) {
                Ok(()) => Ok(Ok(true)),
                Err(error) if error.is_unavailable() => Err(error.into()),
                Err(error) => match self.vault.lock_of(key) {
                    // Locked for longer than we would: by the bucket, or by somebody who renewed meanwhile.
                    Ok(Some(there)) if there.until >= *needed => Ok(Ok(false)),
                    _ => Ok(Err(Finding::error(
                        "lock-not-extended",
                        key.clone(),
                        format!("its lock ends too early and could not be extended: {error}"),
                    ))),
                },
            }
        })?;
        let mut outcome = Outcome::clean(Renewed::default());
        let mut extended: BTreeMap<Timestamp, Vec<Name>> = BTreeMap::new();
        for ((key, needed), result) in short.iter().zip(results) {
            match result {
                Ok(true) => {
                    extended.entry(usual.max(*needed)).or_default().push(name_of(key));
                    outcome.done.extended += 1;
                }
                Ok(false) => {}
                Err(finding) => outcome.findings.push(finding),
            }
        }
        outcome.done.failed = outcome.findings.len() as u64;
        outcome.done.until = rfc3339(extended.keys().next_back().copied().unwrap_or(usual));
        if !extended.is_empty() {
            for (until, names) in extended {
                let (key, bytes) = Record { until, names }.encode(self.repo.secrets());
                self.repo.put_content(&key, bytes)?;
            }
            self.drop_old_records();
        }
        Ok(outcome)
    }

    /// The records that may still say something about a lock that lasts until `needed`.
    fn read_records(&self, needed: Timestamp) -> Result<Vec<Record>, Error> {
        let mut names: Vec<String> = Vec::new();
        for object in list_all(&**self.repo.store(), LOCKS)? {
            if until_of(&object.key).is_some_and(|until| until >= needed) {
                names.push(object.key);
            }
        }
        let records = each(&names, |key| {
            // A record that is damaged or gone costs calls, not safety.
            match self.repo.store().get(key) {
                Ok(bytes) => Ok(Record::decode(self.repo.secrets(), &bytes)),
                Err(error) if error.is_loss() => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        Ok(records.into_iter().flatten().collect())
    }

    /// Records that no point can need any more. Whoever may not delete leaves them to others.
    fn drop_old_records(&self) {
        let Ok(objects) = list_all(&**self.repo.store(), LOCKS) else { return };
        for object in objects {
            if until_of(&object.key).is_some_and(|until| until < self.now) {
                let _ = self.repo.store().delete(&object.key);
            }
        }
    }
}

/// Calls `work` for each item from several threads; the results in the order of the items. The first error ends it.
pub(crate) fn each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new((0..items.len()).map(|_| None).collect());
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            match work(item) {
                Ok(result) => {
                    if let Some(slot) = results.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
                        *slot = Some(result);
                    }
                }
                Err(error) => {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    next.store(items.len(), Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..CALLERS.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => {
            Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect())
        }
    }
}

/// The policy in a header's bytes, if it has one that makes sense.
pub(crate) fn lock_in_header(header: &[u8]) -> Option<LockPolicy> {
    #[derive(Deserialize)]
    struct Header {
        lock: Option<LockPolicy>,
    }
    let header: Header = serde_json::from_slice(header).ok()?;
    header.lock.filter(|policy| policy.check().is_ok())
}

/// Objects that come and go and are no part of what a point needs: not strays to a check.
pub(crate) fn is_passing(key: &str) -> bool {
    [LOCKS, PROBES, CLAIMS].iter().any(|folder| key.starts_with(folder))
}

#[cfg(test)]
mod tests;
