//! Retention: which recovery points stay, and why.
//!
//! A pure function of the points, the policy, the time zone and the time: what it decides is a value that can
//! be shown, compared and argued about before anything is deleted ([`crate::delete`]).
//!
//! A **series** is the points of one thing: of one application of one cluster, or of one directory of one
//! machine. Each series is decided by itself:
//!
//! - Every rule divides the series into periods (the rule *last* makes each point its own) and keeps one point
//!   of each of the newest N periods that have one: the newest whole point, or the newest there is if none is
//!   whole. So that a run of incomplete points cannot push the whole ones out, every rule is applied once more
//!   to the whole points alone.
//! - The newest whole point of a series always stays, whatever the policy says.
//! - A held point stays, and so does one that the store keeps locked.
//! - A point of the future (a clock was wrong) stays, and takes no other point's place.
//! - Points of the same time are told apart by their ids, so that everybody decides alike.
//! - *Within* counts back from the newest point of the series, not from now: a series that gets no new points
//!   loses nothing by waiting.
//!
//! What follows from it, and is tested: deciding about what was kept drops nothing more; a larger policy keeps
//! all that a smaller one keeps; no series is ever emptied.
//!
//! Periods are those of a time zone, which is handed in as its offset from UTC at an instant: this crate
//! carries no time-zone tables. A week is that of ISO 8601. The hour that a clock shows twice in
//! autumn is two hours, and the day is one day however long it is.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::env::{Timestamp, civil_from_days, rfc3339};
use crate::error::Error;
use crate::id::CommitId;
use crate::object::Summary;

/// Seconds that local time is ahead of UTC at an instant.
pub type Zone<'z> = &'z dyn Fn(Timestamp) -> i32;

/// A recovery point as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Which.
    pub id: CommitId,
    /// When it was made.
    pub time: Timestamp,
    /// What it is a point of; points of equal text are one series.
    pub series: String,
    /// Whether it says of itself that it lacks nothing.
    pub whole: bool,
    /// Why it is held; empty: it is not.
    pub holds: Vec<String>,
    /// Until when the store refuses to delete it.
    pub locked_until: Option<Timestamp>,
}

/// How many points of which kind are to stay. Nothing of it set keeps nothing, and is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest points.
    pub last: u32,
    /// One for each of the newest hours that have one.
    pub hourly: u32,
    /// One a day.
    pub daily: u32,
    /// One an ISO week.
    pub weekly: u32,
    /// One a month.
    pub monthly: u32,
    /// One a year.
    pub yearly: u32,
    /// All that are at most so much older than the newest.
    pub within: Option<Duration>,
}

impl Policy {
    /// Whether it would keep nothing.
    pub fn is_empty(&self) -> bool {
        self.counts().iter().all(|(_, count)| *count == 0) && self.within.is_none()
    }

    fn counts(&self) -> [(Rule, u32); 6] {
        [
            (Rule::Last, self.last),
            (Rule::Hourly, self.hourly),
            (Rule::Daily, self.daily),
            (Rule::Weekly, self.weekly),
            (Rule::Monthly, self.monthly),
            (Rule::Yearly, self.yearly),
        ]
    }
}

/// A rule that counts periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Each point is its own period.
    Last,
    /// Hours.
    Hourly,
    /// Days.
    Daily,
    /// ISO weeks.
    Weekly,
    /// Months.
    Monthly,
    /// Years.
    Yearly,
}

impl Rule {
    /// The word of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Last => "last",
            Rule::Hourly => "hourly",
            Rule::Daily => "daily",
            Rule::Weekly => "weekly",
            Rule::Monthly => "monthly",
            Rule::Yearly => "yearly",
        }
    }
}

/// Why a point stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It stands for a period, which is named.
    Period(Rule, String),
    /// It is at most so much older than the newest of its series.
    Within(Duration),
    /// Somebody holds it.
    Hold(String),
    /// The store keeps it until then.
    Locked(Timestamp),
    /// It is the newest whole point of its series.
    LastGood,
    /// It lies in the future.
    Future,
    /// It was not chosen to be deleted.
    NotAsked,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Period(Rule::Last, _) => f.write_str("last"),
            Reason::Period(rule, name) => write!(f, "{} {name}", rule.as_str()),
            Reason::Within(duration) => write!(f, "within {}", duration_text(*duration)),
            Reason::Hold(text) => write!(f, "hold: {text}"),
            Reason::Locked(until) => write!(f, "locked until {}", rfc3339(*until)),
            Reason::LastGood => f.write_str("last good point"),
            Reason::Future => f.write_str("in the future"),
            Reason::NotAsked => f.write_str("not asked for"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is decided about one point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The point.
    #[serde(flatten)]
    pub point: Point,
    /// Why it stays; empty: it is to be deleted.
    pub keep: Vec<Reason>,
}

impl Decision {
    /// Whether the point is to be deleted.
    pub fn is_drop(&self) -> bool {
        self.keep.is_empty()
    }
}

/// Decides about every point; the answers are ordered by series, and oldest first.
pub fn retain(
    points: Vec<Point>,
    policy: &Policy,
    zone: Zone<'_>,
    now: Timestamp,
) -> Result<Vec<Decision>, Error> {
    if policy.is_empty() {
        return Err(Error::invalid(
            "a retention policy that keeps nothing; say what is to stay, such as the last 7 points",
        ));
    }
    let mut decisions: Vec<Decision> =
        points.into_iter().map(|point| Decision { point, keep: Vec::new() }).collect();
    decisions.sort_by(|a, b| order(&a.point).cmp(&order(&b.point)));
    for series in decisions.chunk_by_mut(|a, b| a.point.series == b.point.series) {
        decide(series, policy, zone, now);
    }
    Ok(decisions)
}

fn order(point: &Point) -> (&str, Timestamp, CommitId) {
    (&point.series, point.time, point.id)
}

/// One series, oldest first.
fn decide(series: &mut [Decision], policy: &Policy, zone: Zone<'_>, now: Timestamp) {
    // Points of the future are at the end. They take no part: one date far ahead would otherwise be the
    // newest for ever, and the rest would be counted from there.
    let past = series.partition_point(|one| one.point.time <= now);
    let (past, future) = series.split_at_mut(past);
    for one in future {
        one.keep.push(Reason::Future);
        keep_for_others(one, now);
    }
    for (rule, count) in policy.counts() {
        if count > 0 {
            apply(past, rule, count as usize, zone);
        }
    }
    if let Some(within) = policy.within {
        apply_within(past, within);
    }
    for one in past.iter_mut() {
        keep_for_others(one, now);
    }
    if let Some(newest) = past.iter_mut().rfind(|one| one.point.whole) {
        newest.keep.push(Reason::LastGood);
    }
}

/// What keeps a point whatever the policy says.
fn keep_for_others(one: &mut Decision, now: Timestamp) {
    one.keep.extend(one.point.holds.iter().cloned().map(Reason::Hold));
    one.keep.extend(one.point.locked_until.filter(|until| *until > now).map(Reason::Locked));
}

/// Periods, in the order of the calendar and not of the clock: where clocks are set back over midnight the
/// two differ, and an order that depends on which points are left would not decide the same twice.
type Period = (i64, Reverse<i64>, CommitId);

fn apply(past: &mut [Decision], rule: Rule, count: usize, zone: Zone<'_>) {
    // For each period the newest point, and the newest whole one.
    let mut periods: BTreeMap<Period, (usize, Option<usize>)> = BTreeMap::new();
    for (at, one) in past.iter().enumerate() {
        let best = periods.entry(period(rule, &one.point, zone)).or_insert((at, None));
        best.0 = at;
        if one.point.whole {
            best.1 = Some(at);
        }
    }
    let any = periods.values().rev().map(|(newest, whole)| whole.unwrap_or(*newest)).take(count);
    let whole = periods.values().rev().filter_map(|(_, whole)| *whole).take(count);
    let mut chosen: Vec<usize> = any.chain(whole).collect();
    chosen.sort_unstable();
    chosen.dedup();
    for at in chosen {
        let name = period_name(rule, past[at].point.time, zone);
        past[at].keep.push(Reason::Period(rule, name));
    }
}

fn apply_within(past: &mut [Decision], within: Duration) {
    let length = i64::try_from(within.as_nanos()).unwrap_or(i64::MAX);
    let newest = past.last().map(|one| one.point.time);
    let newest_whole = past.iter().rfind(|one| one.point.whole).map(|one| one.point.time);
    for one in past {
        let inside = |newest: Option<Timestamp>| {
            newest.is_some_and(|newest| one.point.time >= newest.saturating_sub(length))
        };
        if inside(newest) || (one.point.whole && inside(newest_whole)) {
            one.keep.push(Reason::Within(within));
        }
    }
}

const DAY: i64 = 86_400;

/// Seconds since 1970 as the clocks of the zone show them, and the zone's offset.
fn local(time: Timestamp, zone: Zone<'_>) -> (i64, i64) {
    let offset = i64::from(zone(time));
    (time.div_euclid(1_000_000_000) + offset, offset)
}

/// Monday is 0; 1970-01-01 was a Thursday.
fn weekday(day: i64) -> i64 {
    (day + 3).rem_euclid(7)
}

fn period(rule: Rule, point: &Point, zone: Zone<'_>) -> Period {
    let (seconds, offset) = local(point.time, zone);
    let day = seconds.div_euclid(DAY);
    let (year, month, _) = civil_from_days(day);
    let number = match rule {
        Rule::Last => return (point.time, Reverse(0), point.id),
        // The hour that comes twice: summer time, which is further ahead, comes first.
        Rule::Hourly => return (seconds.div_euclid(3_600), Reverse(offset), CommitId::ZERO),
        Rule::Daily => day,
        Rule::Weekly => (day + 3).div_euclid(7),
        Rule::Monthly => year * 12 + i64::from(month),
        Rule::Yearly => year,
    };
    (number, Reverse(0), CommitId::ZERO)
}

fn period_name(rule: Rule, time: Timestamp, zone: Zone<'_>) -> String {
    let (seconds, offset) = local(time, zone);
    let day = seconds.div_euclid(DAY);
    let (year, month, date) = civil_from_days(day);
    match rule {
        Rule::Last => String::new(),
        Rule::Hourly => {
            let hour = seconds.rem_euclid(DAY) / 3_600;
            let sign = if offset < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset.abs() / 3_600, offset.abs() / 60 % 60);
            format!("{year:04}-{month:02}-{date:02}T{hour:02}{sign}{hours:02}:{minutes:02}")
        }
        Rule::Daily => format!("{year:04}-{month:02}-{date:02}"),
        Rule::Weekly => {
            // ISO 8601: a week belongs to the year of its Thursday.
            let thursday = day - weekday(day) + 3;
            let (year, ..) = civil_from_days(thursday);
            let first = (0..366).find(|back| civil_from_days(thursday - back - 1).0 != year).unwrap_or(0);
            format!("{year:04}-W{:02}", first / 7 + 1)
        }
        Rule::Monthly => format!("{year:04}-{month:02}"),
        Rule::Yearly => format!("{year:04}"),
    }
}

/// `14d`, `36h`, `90s`: the largest unit in which it is a whole number.
fn duration_text(duration: Duration) -> String {
    match duration.as_secs() {
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// Whether a point says of itself that it lacks something. One that says nothing of it is taken at its word.
pub fn is_whole(summary: &Summary) -> bool {
    summary.labels.get("complete").is_none_or(|complete| complete != "false")
}

/// What a point is a point of: its kind and the labels that tell one source from another.
pub fn series_of(summary: &Summary) -> String {
    let names: &[&str] = match summary.kind.as_str() {
        "volume" => &["host", "path"],
        "application" => &["cluster", "application"],
        // A kind this release does not know: all its labels, so that nothing is taken for a later
        // state of something else.
        _ => &[],
    };
    let mut text = summary.kind.clone();
    let mut add = |name: &str, value: &str| {
        // Quoted, so that no value can end where another begins.
        text.push_str(&format!(" {name}={value:?}"));
    };
    match names {
        [] => summary.labels.iter().for_each(|(name, value)| add(name, value)),
        names => {
            for name in names {
                add(name, summary.labels.get(*name).map_or("", String::as_str));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
