//! Cron, the language of schedules, in a time zone.
//!
//! Minute, hour, day, month, weekday; lists, ranges, steps, names of months and days; `@daily` and its like. If both day and weekday
//! are restricted, either is enough, as everywhere. Why not a library: `docs/decisions/0018-custom-resources.md`.
//!
//! **When clocks change.** What a change skips runs at its end, once. What it repeats runs once, the first time round; but where the
//! hour is `*`, time is what was meant, and both rounds run. So no day is without its backup, none has it twice, and
//! `*/15 * * * *` has no hole of an hour in autumn.

use std::fmt;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// No day that comes at all is further away: 29 February, over a century that is no leap year.
const YEARS_MAX: i16 = 9;

/// When to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// Bit n: at n. Days of the week from Sunday, 0.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_hour: bool,
    any_day: bool,
    any_weekday: bool,
}

/// Why a text is no schedule, and how one is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; write five fields: minute hour day month weekday", self.0)
    }
}

impl std::error::Error for Malformed {}

/// A field: what it is called, its least and greatest value, the names of values.
struct Unit {
    name: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const UNITS: [Unit; 5] = [
    Unit { name: "minute", least: 0, most: 59, names: &[] },
    Unit { name: "hour", least: 0, most: 23, names: &[] },
    Unit { name: "day", least: 1, most: 31, names: &[] },
    Unit { name: "month", least: 1, most: 12, names: MONTHS },
    // 7 is Sunday, too.
    Unit { name: "weekday", least: 0, most: 7, names: DAYS },
];

impl Cron {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Cron, Malformed> {
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            word if word.starts_with('@') => {
                return Err(Malformed(format!(
                    "«{word}» is none of @hourly, @daily, @weekly, @monthly, @yearly"
                )));
            }
            text => text,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(Malformed(format!("«{text}» has {} fields", fields.len())));
        };
        let mut sets = [0u64; 5];
        for ((set, unit), field) in sets.iter_mut().zip(&UNITS).zip(&fields) {
            *set = unit.read(field)?;
        }
        let [minutes, hours, days, months, mut weekdays] = sets;
        weekdays = (weekdays | (weekdays >> 7)) & 0x7f;
        let cron = Cron {
            minutes,
            hours,
            days,
            months,
            weekdays,
            any_hour: hours == (1 << 24) - 1,
            any_day: day.starts_with('*'),
            any_weekday: weekday.starts_with('*'),
        };
        // With weekdays some day of each month comes; without, the month has to have the day.
        if cron.next_civil(DateTime::constant(2096, 1, 1, 0, 0, 0, 0)).is_none() {
            return Err(Malformed(format!(
                "«{minute} {hour} {day} {month} {weekday}» never comes: no such month has such a day"
            )));
        }
        Ok(cron)
    }

    /// The first run after an instant.
    ///
    /// Time is walked along in stretches of one offset each: within one, wall clock and time go in step.
    pub fn after(&self, zone: &TimeZone, instant: Timestamp) -> Option<Timestamp> {
        let end = instant.checked_add((i64::from(YEARS_MAX) * 366 * 24).hours()).ok()?;
        let mut from = instant;
        let mut offset = zone.to_offset(instant);
        // What the wall clock shows a second time until then runs no second time.
        let mut repeated = zone
            .preceding(instant.checked_add(1.nanosecond()).ok()?)
            .next()
            .and_then(|change| self.repeated(zone, change.timestamp()));
        while from <= end {
            let change = zone.following(from).next().map(|change| change.timestamp());
            let mut search = offset.to_datetime(from).checked_add(1.nanosecond()).ok()?;
            if let Some(until) = repeated.filter(|until| *until > search) {
                search = until;
            }
            if let Some(found) = self.next_civil(search) {
                let found = offset.to_timestamp(found).ok()?;
                if change.is_none_or(|change| found < change) {
                    return Some(found);
                }
            }
            let change = change?;
            let new = zone.to_offset(change);
            // What was skipped, and matched, runs now; and what the clock shows now may match by itself.
            let (shown_before, shown) = (offset.to_datetime(change), new.to_datetime(change));
            repeated = self.repeated(zone, change);
            let skipped = new > offset && self.next_civil(shown_before).is_some_and(|found| found <= shown);
            if skipped || (repeated.is_none() && self.matches(shown)) {
                return Some(change);
            }
            offset = new;
            from = change;
        }
        None
    }

    /// Until which wall clock time the stretch that begins with a change of clocks repeats what ran before it; none if it does not,
    /// or if that is to run again.
    fn repeated(&self, zone: &TimeZone, change: Timestamp) -> Option<DateTime> {
        if self.any_hour {
            return None;
        }
        let before = zone.to_offset(change.checked_sub(1.nanosecond()).ok()?);
        let after = zone.to_offset(change);
        (after < before).then(|| before.to_datetime(change))
    }

    /// The newest run after `from` and not after `until`.
    pub fn newest(&self, zone: &TimeZone, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        // Backwards in windows that grow: an operator that was away for a year has not to walk through it minute by minute.
        let mut hours = 1i64;
        loop {
            let begin = until.checked_sub(SignedDuration::from_hours(hours)).unwrap_or(from).max(from);
            let mut newest = None;
            let mut at = begin;
            while let Some(next) = self.after(zone, at).filter(|next| *next <= until) {
                newest = Some(next);
                at = next;
            }
            if newest.is_some() || begin <= from {
                return newest;
            }
            hours = hours.saturating_mul(8).min(1 << 30);
        }
    }

    /// How many runs there are after `from` and not after `until`; at most `most` are counted.
    pub fn count(&self, zone: &TimeZone, from: Timestamp, until: Timestamp, most: u32) -> u32 {
        let mut at = from;
        let mut count = 0;
        while count < most
            && let Some(next) = self.after(zone, at).filter(|next| *next <= until)
        {
            at = next;
            count += 1;
        }
        count
    }

    /// The shortest time between two runs; none if there is only one in years.
    pub fn shortest(&self) -> Option<SignedDuration> {
        let begin = Timestamp::constant(1_704_067_200, 0); // 1 January 2024, a leap year
        let end = begin.checked_add((5 * 366 * 24i64).hours()).ok()?;
        let mut before = self.after(&TimeZone::UTC, begin)?;
        let mut shortest = None;
        // More than there are minutes in a day: the night between two days is among them.
        for _ in 0..1600 {
            let Some(next) = self.after(&TimeZone::UTC, before).filter(|next| *next <= end) else { break };
            let between = next.duration_since(before);
            shortest = Some(shortest.map_or(between, |least: SignedDuration| least.min(between)));
            before = next;
        }
        shortest
    }

    fn matches(&self, at: DateTime) -> bool {
        at.second() == 0
            && at.subsec_nanosecond() == 0
            && has(self.minutes, at.minute())
            && has(self.hours, at.hour())
            && self.on(at.date())
    }

    fn on(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month())
            && match (self.any_day, self.any_weekday) {
                (false, false) => day || weekday,
                _ => day && weekday,
            }
    }

    /// The first time on the wall that is not before `from`.
    fn next_civil(&self, from: DateTime) -> Option<DateTime> {
        let minute = from.time().with().second(0).subsec_nanosecond(0).build().ok()?;
        let mut at = from.date().to_datetime(minute);
        if at < from {
            at = at.checked_add(1.minute()).ok()?;
        }
        let last = at.date().checked_add(i64::from(YEARS_MAX).years()).ok()?;
        let mut date = at.date();
        let mut earliest = at.time();
        while date <= last {
            if !has(self.months, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
                earliest = Time::midnight();
                continue;
            }
            if self.on(date)
                && let Some(time) = self.next_time(earliest)
            {
                return Some(date.to_datetime(time));
            }
            date = date.tomorrow().ok()?;
            earliest = Time::midnight();
        }
        None
    }

    fn next_time(&self, from: Time) -> Option<Time> {
        let hours = (from.hour()..24).filter(|hour| has(self.hours, *hour));
        for hour in hours {
            let first = if hour == from.hour() { from.minute() } else { 0 };
            if let Some(minute) = (first..60).find(|minute| has(self.minutes, *minute)) {
                return Time::new(hour, minute, 0, 0).ok();
            }
        }
        None
    }
}

fn has(set: u64, n: i8) -> bool {
    u32::try_from(n).is_ok_and(|n| set >> n & 1 == 1)
}

impl Unit {
    fn read(&self, field: &str) -> Result<u64, Malformed> {
        let mut set = 0;
        for part in field.split(',') {
            let (range, step) = match part.split_once('/') {
                None => (part, None),
                Some((range, step)) => {
                    let step = step.parse::<u8>().ok().filter(|step| (1..=self.most).contains(step));
                    let wrong = || {
                        Malformed(format!(
                            "«{part}» steps by no number of {}s (1 to {})",
                            self.name, self.most
                        ))
                    };
                    (range, Some(step.ok_or_else(wrong)?))
                }
            };
            let (first, last) = match (range, range.split_once('-')) {
                ("*", _) => (self.least, self.most),
                (_, Some((first, last))) => (self.value(first)?, self.value(last)?),
                // `5/15`: from 5 on.
                (one, None) if step.is_some() => (self.value(one)?, self.most),
                (one, None) => (self.value(one)?, self.value(one)?),
            };
            if first > last {
                return Err(Malformed(format!("«{part}» ends before it begins")));
            }
            for value in (first..=last).step_by(usize::from(step.unwrap_or(1))) {
                set |= 1 << value;
            }
        }
        Ok(set)
    }

    fn value(&self, text: &str) -> Result<u8, Malformed> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        // January is month 1, Sunday is day 0.
        let named = named.and_then(|at| u8::try_from(at).ok()).map(|at| at + self.least);
        let number = text.parse::<u8>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        named.or(number).filter(|n| (self.least..=self.most).contains(n)).ok_or_else(|| {
            Malformed(format!("«{text}» is no {} ({} to {})", self.name, self.least, self.most))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        crate::schedule::zone(name).unwrap()
    }

    /// The first runs after an instant, as the wall clock there shows them, with the offset.
    fn check(cron: &str, zone_name: &str, from: &str, expect: &[&str]) {
        let cron = Cron::parse(cron).unwrap();
        let zone = zone(zone_name);
        let mut at: Timestamp = from.parse().unwrap();
        let mut got = Vec::new();
        for _ in expect {
            let Some(next) = cron.after(&zone, at) else { break };
            assert!(next > at, "{cron:?} goes on: {at} {next}");
            at = next;
            got.push(at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string());
        }
        assert_eq!(got, expect, "{cron:?} in {zone_name} after {from}");
    }

    #[test]
    fn fields_lists_ranges_steps_and_names() {
        for (cron, expect) in [
            (
                "0 * * * *",
                ["2026-01-01 01:00:00+00:00", "2026-01-01 02:00:00+00:00", "2026-01-01 03:00:00+00:00"],
            ),
            (
                "*/20 * * * *",
                ["2026-01-01 00:20:00+00:00", "2026-01-01 00:40:00+00:00", "2026-01-01 01:00:00+00:00"],
            ),
            (
                "5/25 4,6 * * *",
                ["2026-01-01 04:05:00+00:00", "2026-01-01 04:30:00+00:00", "2026-01-01 04:55:00+00:00"],
            ),
            (
                "30 2 * * 1-5",
                ["2026-01-01 02:30:00+00:00", "2026-01-02 02:30:00+00:00", "2026-01-05 02:30:00+00:00"],
            ),
            (
                "0 0 * * 7",
                ["2026-01-04 00:00:00+00:00", "2026-01-11 00:00:00+00:00", "2026-01-18 00:00:00+00:00"],
            ),
            (
                "0 0 * * fri-SAT",
                ["2026-01-02 00:00:00+00:00", "2026-01-03 00:00:00+00:00", "2026-01-09 00:00:00+00:00"],
            ),
            (
                "0 0 31 * *",
                ["2026-01-31 00:00:00+00:00", "2026-03-31 00:00:00+00:00", "2026-05-31 00:00:00+00:00"],
            ),
            // Either is enough.
            (
                "0 0 13 * fri",
                ["2026-01-02 00:00:00+00:00", "2026-01-09 00:00:00+00:00", "2026-01-13 00:00:00+00:00"],
            ),
            // A star with a step is no restriction of its own: both have to fit.
            (
                "0 0 */10 * mon",
                ["2026-05-11 00:00:00+00:00", "2026-06-01 00:00:00+00:00", "2026-08-31 00:00:00+00:00"],
            ),
            (
                "0 12 29 feb *",
                ["2028-02-29 12:00:00+00:00", "2032-02-29 12:00:00+00:00", "2036-02-29 12:00:00+00:00"],
            ),
            (
                "@weekly",
                ["2026-01-04 00:00:00+00:00", "2026-01-11 00:00:00+00:00", "2026-01-18 00:00:00+00:00"],
            ),
            (
                "@monthly",
                ["2026-02-01 00:00:00+00:00", "2026-03-01 00:00:00+00:00", "2026-04-01 00:00:00+00:00"],
            ),
            (
                "@yearly",
                ["2027-01-01 00:00:00+00:00", "2028-01-01 00:00:00+00:00", "2029-01-01 00:00:00+00:00"],
            ),
        ] {
            check(cron, "UTC", "2026-01-01T00:00:00Z", &expect);
        }
        check("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", &["2104-02-29 00:00:00+00:00"]);
        check("0 9 * * *", "Asia/Kolkata", "2026-01-01T03:30:00Z", &["2026-01-02 09:00:00+05:30"]);
        check("0 9 * * *", "Asia/Kolkata", "2026-01-01T03:29:59Z", &["2026-01-01 09:00:00+05:30"]);
    }

    #[test]
    fn when_clocks_change_nothing_is_left_out_and_nothing_runs_twice() {
        for (story, cron, zone, from, expect) in [
            (
                "spring: half past two is skipped and runs when the clock goes on",
                "30 2 * * *",
                "Europe/Vienna",
                "2026-03-28T12:00:00Z",
                &["2026-03-29 03:00:00+02:00", "2026-03-30 02:30:00+02:00"][..],
            ),
            (
                "spring: several skipped runs are one, and the one at its end is no second",
                "*/20 * * * *",
                "Europe/Vienna",
                "2026-03-29T00:35:00Z",
                &["2026-03-29 01:40:00+01:00", "2026-03-29 03:00:00+02:00", "2026-03-29 03:20:00+02:00"],
            ),
            (
                "spring: the hours go on",
                "0 * * * *",
                "America/New_York",
                "2026-03-08T05:30:00Z",
                &["2026-03-08 01:00:00-05:00", "2026-03-08 03:00:00-04:00", "2026-03-08 04:00:00-04:00"],
            ),
            (
                "spring: what is not skipped is as ever",
                "0 3 * * *",
                "Europe/Vienna",
                "2026-03-28T12:00:00Z",
                &["2026-03-29 03:00:00+02:00", "2026-03-30 03:00:00+02:00"],
            ),
            (
                "autumn: half past two comes twice and runs once",
                "30 2 * * *",
                "Europe/Vienna",
                "2026-10-24T12:00:00Z",
                &["2026-10-25 02:30:00+02:00", "2026-10-26 02:30:00+01:00"],
            ),
            (
                "autumn: two o'clock, at the very change",
                "0 2 * * *",
                "Europe/Vienna",
                "2026-10-24T12:00:00Z",
                &["2026-10-25 02:00:00+02:00", "2026-10-26 02:00:00+01:00"],
            ),
            (
                "autumn: three o'clock is no part of what is repeated",
                "0 3 * * *",
                "Europe/Vienna",
                "2026-10-24T12:00:00Z",
                &["2026-10-25 03:00:00+01:00", "2026-10-26 03:00:00+01:00"],
            ),
            (
                "autumn: with any hour both rounds run",
                "0,30 * * * *",
                "Europe/Vienna",
                "2026-10-25T00:10:00Z",
                &[
                    "2026-10-25 02:30:00+02:00",
                    "2026-10-25 02:00:00+01:00",
                    "2026-10-25 02:30:00+01:00",
                    "2026-10-25 03:00:00+01:00",
                ],
            ),
            (
                "autumn: asked in the middle of the second round",
                "30 2 * * *",
                "Europe/Vienna",
                "2026-10-25T01:10:00Z",
                &["2026-10-26 02:30:00+01:00"],
            ),
            (
                "autumn: hours that are named run once each",
                "0 1,2,3 * * *",
                "Europe/Vienna",
                "2026-10-24T22:30:00Z",
                &["2026-10-25 01:00:00+02:00", "2026-10-25 02:00:00+02:00", "2026-10-25 03:00:00+01:00"],
            ),
            (
                "half an hour",
                "15 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-03T12:00:00Z",
                &["2026-10-04 02:30:00+11:00", "2026-10-05 02:15:00+11:00"],
            ),
            (
                "at midnight",
                "0 0 * * *",
                "America/Havana",
                "2026-03-07T12:00:00Z",
                &["2026-03-08 01:00:00-04:00", "2026-03-09 00:00:00-04:00"],
            ),
            (
                "a day that never was",
                "0 12 * * *",
                "Pacific/Apia",
                "2011-12-29T00:00:00Z",
                &["2011-12-29 12:00:00-10:00", "2011-12-31 00:00:00+14:00", "2011-12-31 12:00:00+14:00"],
            ),
        ] {
            check(cron, zone, from, expect);
            assert!(!story.is_empty());
        }
    }

    /// Over ten years and three zones: each run is after the one before, each day has its run, none has two.
    #[test]
    fn every_day_has_its_run_wherever_clocks_change() {
        for name in [
            "Europe/Vienna",
            "America/Sao_Paulo",
            "Africa/Casablanca",
            "Australia/Lord_Howe",
            "America/Havana",
        ] {
            let zone = zone(name);
            for hour in 0..4 {
                let cron = Cron::parse(&format!("30 {hour} * * *")).unwrap();
                let mut at: Timestamp = "2015-01-01T12:00:00Z".parse().unwrap();
                let mut day = at.to_zoned(zone.clone()).date();
                for _ in 0..3650 {
                    at = cron.after(&zone, at).unwrap();
                    let here = at.to_zoned(zone.clone()).date();
                    assert_eq!(here, day.tomorrow().unwrap(), "{name} {hour}: {at}");
                    day = here;
                }
            }
        }
    }

    #[test]
    fn what_is_no_schedule_is_told_with_the_field_and_its_limits() {
        for (text, expect) in [
            ("61 * * * *", "«61» is no minute (0 to 59)"),
            ("* 24 * * *", "«24» is no hour (0 to 23)"),
            ("* * 0 * *", "«0» is no day (1 to 31)"),
            ("* * * 13 *", "«13» is no month (1 to 12)"),
            ("* * * * 8", "«8» is no weekday (0 to 7)"),
            ("* * * foo *", "«foo» is no month (1 to 12)"),
            ("* * * mon *", "«mon» is no month (1 to 12)"),
            ("5-1 * * * *", "«5-1» ends before it begins"),
            ("*/0 * * * *", "«*/0» steps by no number of minutes (1 to 59)"),
            ("*/60 * * * *", "«*/60» steps by no number of minutes (1 to 59)"),
            ("1,,2 * * * *", "«» is no minute (0 to 59)"),
            ("+5 * * * *", "«+5» is no minute (0 to 59)"),
            ("* * * *", "«* * * *» has 4 fields"),
            ("0 0 * * * *", "«0 0 * * * *» has 6 fields"),
            ("@reboot", "«@reboot» is none of @hourly, @daily, @weekly, @monthly, @yearly"),
            ("0 0 30 2 *", "«0 0 30 2 *» never comes: no such month has such a day"),
            ("0 0 31 4,6,9,11 *", "«0 0 31 4,6,9,11 *» never comes: no such month has such a day"),
        ] {
            let why = Cron::parse(text).map(|_| ()).unwrap_err().to_string();
            assert_eq!(why, format!("{expect}; write five fields: minute hour day month weekday"), "{text}");
        }
    }

    #[test]
    fn the_shortest_time_between_two_runs() {
        for (cron, seconds) in [
            ("* * * * *", Some(60)),
            ("0 * * * *", Some(3600)),
            ("0,10 * * * *", Some(600)),
            ("55 23 * * *", Some(86_400)),
            // From the evening to the next morning.
            ("0 1,23 * * *", Some(7_200)),
            ("0 0 1 * *", Some(28 * 86_400)),
            ("* * 1 1 *", Some(60)),
            ("0 0 29 2 *", Some(1461 * 86_400)),
        ] {
            let got = Cron::parse(cron).unwrap().shortest().map(|between| between.as_secs());
            assert_eq!(got, seconds, "{cron}");
        }
    }

    #[test]
    fn the_newest_of_many_is_found_without_walking_through_all() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let minutely = Cron::parse("* * * * *").unwrap();
        let utc = TimeZone::UTC;
        let (from, until) = (at("2016-01-01T00:00:00Z"), at("2026-01-01T00:00:30Z"));
        assert_eq!(minutely.newest(&utc, from, until), Some(at("2026-01-01T00:00:00Z")));
        assert_eq!(minutely.count(&utc, from, until, 1000), 1000);
        let yearly = Cron::parse("@yearly").unwrap();
        assert_eq!(yearly.newest(&utc, from, at("2025-12-31T23:59:59Z")), Some(at("2025-01-01T00:00:00Z")));
        assert_eq!(yearly.newest(&utc, at("2025-01-01T00:00:00Z"), at("2025-12-31T00:00:00Z")), None);
        assert_eq!(yearly.count(&utc, from, until, 1000), 10);
    }
}
