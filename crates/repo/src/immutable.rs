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
use crate::id::{CLAIMS, COMMITS, CommitId, HEADER, INDEX, KEYS, LOCKS, PACKS, PackId};
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
/// So many locks are extended before a record of it is written.
const AT_ONCE: usize = 65_536;
/// So many that cannot be extended are told one by one.
const FAILED_SHOWN: u64 = 1_000;

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

/// An object that is locked. Of packs there are many, so they take the bytes of their name and not its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Pack(PackId),
    Other(String),
}

impl What {
    fn of(key: &str) -> What {
        PackId::from_key(key).map_or_else(|| What::Other(key.to_owned()), What::Pack)
    }

    fn key(&self) -> String {
        match self {
            What::Pack(id) => id.key(),
            What::Other(key) => key.clone(),
        }
    }

    fn is_in(&self, folder: &str) -> bool {
        match self {
            What::Pack(_) => folder == PACKS,
            What::Other(key) => key.starts_with(folder),
        }
    }
}

/// Until when an object must be locked.
#[derive(Debug, Clone)]
struct Need {
    what: What,
    until: Timestamp,
}

/// Sorted, each object once: 48 bytes a pack.
fn in_order(mut needs: Vec<Need>) -> Vec<Need> {
    needs.sort_unstable_by(|a, b| (&a.what, b.until).cmp(&(&b.what, a.until)));
    needs.dedup_by(|later, first| later.what == first.what);
    needs
}

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
    let mut needs = common(repo, needed)?;
    let packs = touched.numbers().filter_map(|number| index.pack(number));
    needs.extend(packs.map(|(id, _)| Need { what: What::Pack(id), until: needed }));
    let mut needs = in_order(needs);
    let work = Work { repo, policy, vault, now, packs: index.pack_count() };
    if work.too_short(&needs, false)?.is_empty() {
        return Ok(());
    }
    // If some have to be extended, those that would soon have to be go along: a few renewals a slack, and a few
    // records, instead of one every day.
    let soon = policy.slack_seconds as i64 * SECOND / 4;
    needs.iter_mut().for_each(|need| need.until = need.until.saturating_add(soon));
    let short = work.too_short(&needs, false)?;
    let outcome = work.extend(&short, now.saturating_add(policy.lasts()))?;
    match outcome.findings.into_iter().next() {
        None => Ok(()),
        Some(finding) => Err(Error::failed(format!(
            "{}: {}; nothing was committed, since the recovery point would outlive what it needs",
            finding.what, finding.message
        ))),
    }
}

/// What every point needs besides its packs.
fn common(repo: &Repository, until: Timestamp) -> Result<Vec<Need>, Error> {
    let mut needs = vec![Need { what: What::Other(HEADER.to_owned()), until }];
    for folder in [KEYS, INDEX] {
        let objects = list_all(&**repo.store(), folder)?.into_iter();
        needs.extend(objects.map(|object| Need { what: What::Other(object.key), until }));
    }
    Ok(needs)
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
    let mut needs = Vec::new();
    let holds = repo.holds()?;
    let mut held: BTreeMap<CommitId, Timestamp> = BTreeMap::new();
    for hold in holds.done.iter().filter(|hold| hold.is_active(now)) {
        // A hold without an end is renewed again and again; one with an end is locked until then.
        let until = hold.until.unwrap_or(now.saturating_add(policy.protects()));
        let known = held.entry(hold.commit).or_insert(until);
        *known = until.max(*known);
    }
    let mut groups: BTreeMap<Timestamp, (Timestamp, Vec<CommitId>)> = BTreeMap::new();
    // With the slack on top, or the next renewal would extend everything again.
    let protect = options.protect_seconds.unwrap_or(0).max(policy.seconds);
    let usual = now.saturating_add(protect.saturating_add(policy.slack_seconds) as i64 * SECOND);
    for point in &points.done {
        let mut until = match options.protect_seconds {
            Some(seconds) => now.saturating_add(seconds as i64 * SECOND),
            None => point.summary.time.saturating_add(policy.protects()),
        };
        until = held.get(&point.id).map_or(until, |held| until.max(*held));
        if until > now {
            needs.push(Need { what: What::Other(point.id.key()), until });
            // Whatever is extended is extended to the usual date at least: points below it need not be told apart.
            let group = groups.entry(if until <= usual { 0 } else { until }).or_default();
            group.0 = until.max(group.0);
            group.1.push(point.id);
        }
    }
    let longest = needs.iter().map(|need| need.until).max();
    if let Some(until) = longest {
        needs.extend(common(repo, until)?);
    }
    match repo.capability() {
        Capability::Read => {
            let reader = repo.reader(ReaderOptions::default())?;
            let mut dates: Vec<Timestamp> = vec![0; reader.index().pack_count()];
            for (until, ids) in groups.into_values() {
                for number in packs_of(repo, &reader, &ids)?.numbers() {
                    if let Some(date) = dates.get_mut(number as usize) {
                        *date = until.max(*date);
                    }
                }
            }
            for (number, until) in dates.into_iter().enumerate().filter(|(_, until)| *until > 0) {
                let pack = reader.index().pack(number as u32);
                needs.extend(pack.map(|(id, _)| Need { what: What::Pack(id), until }));
            }
        }
        // Which packs a point is made of is not for this key to know: all of them, to the usual date.
        _ => {
            let until = longest.map_or(now, |until| until.min(usual));
            let packs = (0..index.pack_count() as u32).filter_map(|number| index.pack(number));
            let packs = packs.filter(|_| longest.is_some());
            needs.extend(packs.map(|(id, _)| Need { what: What::Pack(id), until }));
        }
    }
    drop(index);
    let needs = in_order(needs);
    let short = work.too_short(&needs, options.look)?;
    let mut outcome = if options.plan {
        let until = short.iter().map(|need| need.until).max().unwrap_or(usual).max(usual);
        let extended = short.len() as u64;
        Outcome::clean(Renewed { extended, until: rfc3339(until), ..Renewed::default() })
    } else {
        work.extend(&short, usual)?
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
    /// The objects that unlock before they may. `needs` is in order.
    fn too_short<'n>(&self, needs: &'n [Need], look: bool) -> Result<Vec<&'n Need>, Error> {
        if look {
            let mut short = Vec::new();
            for some in needs.chunks(AT_ONCE) {
                let asked = each(some, |need| match self.vault.lock_of(&need.what.key()) {
                    Ok(lock) => Ok(lock.is_none_or(|lock| lock.until < need.until)),
                    // A pack that is gone is for `check` to tell.
                    Err(StoreError::NotFound { .. }) => Ok(false),
                    Err(error) => Err(error.into()),
                })?;
                short.extend(some.iter().zip(asked).filter(|(_, short)| *short).map(|(need, _)| need));
            }
            return Ok(short);
        }
        let covered = self.read_records(needs.iter().map(|need| need.until).min().unwrap_or(0))?;
        let covers = |need: &Need| {
            let name = name_of(&need.what.key());
            covered.iter().any(|record| record.covers(&name, need.until))
        };
        let mut open: Vec<&Need> = needs.iter().filter(|need| covered.is_empty() || !covers(need)).collect();
        drop(covered);
        for folder in [PACKS, INDEX, COMMITS, KEYS, HEADER] {
            let young = self.young(&open, folder)?;
            let mut young = young.into_iter();
            open.retain(|need| !need.what.is_in(folder) || !young.next().unwrap_or(false));
        }
        Ok(open)
    }

    /// Of those in a folder, in order, which were written so late that their first lock lasts. One listing, or one
    /// question an object, whichever is fewer calls.
    fn young(&self, open: &[&Need], folder: &str) -> Result<Vec<bool>, Error> {
        let needs: Vec<&Need> = open.iter().copied().filter(|need| need.what.is_in(folder)).collect();
        if needs.is_empty() {
            return Ok(Vec::new());
        }
        let few = folder == PACKS && needs.len() <= self.packs / LISTED;
        if few || folder == HEADER {
            return each(&needs, |need| {
                let lock = self.vault.lock_of(&need.what.key())?;
                Ok(lock.is_some_and(|lock| lock.until >= need.until))
            });
        }
        let lasts = self.policy.lasts().saturating_sub(self.policy.margin());
        // The oldest version decides: what somebody put over it since is not what the points need.
        let mut oldest: Vec<Option<Timestamp>> = vec![None; needs.len()];
        self.vault.versions(folder, &mut |version| {
            let what = What::of(&version.key);
            if !version.marker
                && let Ok(at) = needs.binary_search_by(|need| need.what.cmp(&what))
                && let Some(known) = oldest.get_mut(at)
            {
                *known = Some(known.map_or(version.modified, |known| version.modified.min(known)));
            }
            Ok(())
        })?;
        let is_young = |(need, oldest): (&&Need, Option<Timestamp>)| {
            oldest.is_some_and(|written| written.saturating_add(lasts) >= need.until)
        };
        Ok(needs.iter().zip(oldest).map(is_young).collect())
    }

    /// Moves the locks to the usual date, or later where it is needed, and records those it moved: from time to time,
    /// so that who is stopped need not begin again.
    fn extend(&self, short: &[&Need], usual: Timestamp) -> Result<Outcome<Renewed>, Error> {
        let mode = self.policy.mode;
        let mut outcome = Outcome::clean(Renewed::default());
        let mut last = usual;
        for some in short.chunks(AT_ONCE) {
            let results = each(some, |need| {
                let key = need.what.key();
                match self.vault.set_lock(&key, &Lock::new(mode, usual.max(need.until))) {
                    Ok(()) => Ok(Ok(true)),
                    Err(error) if error.is_unavailable() => Err(error.into()),
                    Err(error) => match self.vault.lock_of(&key) {
                        // Locked for longer than we would: by the bucket, or by somebody who renewed meanwhile.
                        Ok(Some(there)) if there.until >= need.until => Ok(Ok(false)),
                        _ => Ok(Err(Finding::error(
                            "lock-not-extended",
                            key,
                            format!("its lock ends too early and could not be extended: {error}"),
                        ))),
                    },
                }
            })?;
            let mut extended: BTreeMap<Timestamp, Vec<Name>> = BTreeMap::new();
            for (need, result) in some.iter().zip(results) {
                match result {
                    Ok(true) => {
                        let names = extended.entry(usual.max(need.until)).or_default();
                        names.push(name_of(&need.what.key()));
                        outcome.done.extended += 1;
                    }
                    Ok(false) => {}
                    Err(finding) => {
                        outcome.done.failed += 1;
                        if outcome.done.failed <= FAILED_SHOWN {
                            outcome.findings.push(finding);
                        }
                    }
                }
            }
            for (until, names) in extended {
                last = last.max(until);
                let (key, bytes) = Record { until, names }.encode(self.repo.secrets());
                self.repo.put_content(&key, bytes)?;
            }
        }
        outcome.done.until = rfc3339(last);
        if outcome.done.extended > 0 {
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
