//! Retention told as tables: points in a line, a policy, and which of them stay for which reason. Below the
//! tables an independent, naive way to decide, which must agree on anything thrown at it.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3_600 * SECOND;
const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/Havana",
];

fn tz(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn offset(tz: &TimeZone, time: Timestamp) -> i32 {
    tz.to_offset(jiff::Timestamp::from_nanosecond(time.into()).unwrap()).seconds()
}

/// `2026-11-20T10:00` in the zone, or an instant with its own offset (`…Z`, `…+02:00`).
fn instant(zone: &TimeZone, text: &str) -> Timestamp {
    let instant = match text.parse::<jiff::Timestamp>() {
        Ok(instant) => instant,
        Err(_) => zone.to_timestamp(text.parse().unwrap()).unwrap(),
    };
    instant.as_nanosecond() as i64
}

fn point(series: &str, time: Timestamp, number: usize) -> Point {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Point {
        id: CommitId(id),
        time,
        series: series.into(),
        whole: true,
        holds: Vec::new(),
        locked_until: None,
    }
}

/// `last 3, daily 2, within 36h`
fn policy(text: &str) -> Policy {
    let mut policy = Policy::default();
    for rule in text.split(", ").filter(|rule| !rule.is_empty()) {
        let (name, value) = rule.split_once(' ').unwrap();
        let count = || value.parse().unwrap();
        match name {
            "last" => policy.last = count(),
            "hourly" => policy.hourly = count(),
            "daily" => policy.daily = count(),
            "weekly" => policy.weekly = count(),
            "monthly" => policy.monthly = count(),
            "yearly" => policy.yearly = count(),
            "within" => {
                let (number, unit) = value.split_at(value.len() - 1);
                let unit = match unit {
                    "d" => 86_400,
                    "h" => 3_600,
                    "m" => 60,
                    _ => 1,
                };
                policy.within = Some(Duration::from_secs(number.parse::<u64>().unwrap() * unit));
            }
            _ => panic!("{name}"),
        }
    }
    policy
}

/// `points`: one a word, oldest first, as local times; `!` behind it: not whole; `=`: held for "legal". Says what
/// stays: `time: reasons`, one a line, with every reason.
fn decide_in(zone: &str, rules: &str, points: &str) -> Vec<(String, String)> {
    let tz = tz(zone);
    let mut names = Vec::new();
    let mut given = Vec::new();
    for (number, word) in points.split_whitespace().enumerate() {
        let time = word.trim_end_matches(['!', '=']);
        let mut point = point("a", instant(&tz, time), number);
        point.whole = !word.contains('!');
        if word.contains('=') {
            point.holds.push("legal".into());
        }
        names.push(time.to_owned());
        given.push(point);
    }
    let now = instant(&tz, "2026-11-21T12:00:00Z");
    let zone = |time| offset(&tz, time);
    let decided = retain(given, &policy(rules), &zone, now).unwrap();
    decided
        .into_iter()
        .filter(|one| !one.is_drop())
        .map(|one| {
            let number = u64::from_be_bytes(one.point.id.0[..8].try_into().unwrap());
            let reasons: Vec<String> = one.keep.iter().map(Reason::to_string).collect();
            (names[number as usize].clone(), reasons.join(", "))
        })
        .collect()
}

#[track_caller]
fn check_in(zone: &str, rules: &str, points: &str, stays: &[(&str, &str)]) {
    let stays: Vec<(String, String)> =
        stays.iter().map(|(time, why)| (time.to_string(), why.to_string())).collect();
    assert_eq!(decide_in(zone, rules, points), stays, "{rules} in {zone} of {points}");
}

#[track_caller]
fn check(rules: &str, points: &str, stays: &[(&str, &str)]) {
    check_in("UTC", rules, points, stays);
}

#[test]
fn each_rule_alone_keeps_the_newest_point_of_each_of_its_periods() {
    check(
        "last 2",
        "2026-11-20T10:00 2026-11-20T11:00 2026-11-20T12:00",
        &[("2026-11-20T11:00", "last"), ("2026-11-20T12:00", "last, last good point")],
    );
    check(
        "hourly 2",
        "2026-11-20T09:59 2026-11-20T10:00 2026-11-20T10:59 2026-11-20T12:00",
        &[
            ("2026-11-20T10:59", "hourly 2026-11-20T10+00:00"),
            ("2026-11-20T12:00", "hourly 2026-11-20T12+00:00, last good point"),
        ],
    );
    check(
        "daily 3",
        "2026-11-15T10:00 2026-11-17T10:00 2026-11-17T23:59:59 2026-11-19T00:00 2026-11-20T10:00",
        &[
            ("2026-11-17T23:59:59", "daily 2026-11-17"),
            ("2026-11-19T00:00", "daily 2026-11-19"),
            ("2026-11-20T10:00", "daily 2026-11-20, last good point"),
        ],
    );
    check(
        "weekly 2",
        // The 15th is a Sunday, the 16th a Monday.
        "2026-11-09T00:00 2026-11-15T23:59:59 2026-11-16T00:00 2026-11-20T10:00",
        &[
            ("2026-11-15T23:59:59", "weekly 2026-W46"),
            ("2026-11-20T10:00", "weekly 2026-W47, last good point"),
        ],
    );
    check(
        "monthly 2",
        "2026-09-30T23:59:59 2026-10-01T00:00 2026-10-31T23:59:59 2026-11-01T00:00",
        &[
            ("2026-10-31T23:59:59", "monthly 2026-10"),
            ("2026-11-01T00:00", "monthly 2026-11, last good point"),
        ],
    );
    check(
        "yearly 2",
        "2024-12-31T23:59:59 2025-01-01T00:00 2025-12-31T23:59:59 2026-01-01T00:00",
        &[("2025-12-31T23:59:59", "yearly 2025"), ("2026-01-01T00:00", "yearly 2026, last good point")],
    );
    check(
        "within 36h",
        "2026-11-18T23:59:59 2026-11-19T00:00 2026-11-20T12:00",
        &[("2026-11-19T00:00", "within 36h"), ("2026-11-20T12:00", "within 36h, last good point")],
    );
}

#[test]
fn two_rules_keep_what_either_keeps_and_say_both_reasons() {
    let points = "2024-06-01T10:00 2025-12-30T10:00 2026-10-31T10:00 2026-11-13T10:00 2026-11-19T10:00 2026-11-20T09:00 2026-11-20T10:00";
    let rules = ["last 1", "hourly 2", "daily 2", "weekly 2", "monthly 2", "yearly 2", "within 12h"];
    for one in rules {
        for other in rules {
            if one == other {
                continue;
            }
            let kept = |rules: &str| decide_in("UTC", rules, points);
            let both: BTreeSet<String> =
                kept(&format!("{one}, {other}")).into_iter().map(|(time, _)| time).collect();
            let apart: BTreeSet<String> =
                kept(one).into_iter().chain(kept(other)).map(|(time, _)| time).collect();
            assert_eq!(both, apart, "{one}, {other}");
        }
    }
    check(
        "last 1, daily 2, weekly 2, monthly 2, yearly 2, within 1h",
        points,
        &[
            ("2025-12-30T10:00", "yearly 2025"),
            ("2026-10-31T10:00", "monthly 2026-10"),
            ("2026-11-13T10:00", "weekly 2026-W46"),
            ("2026-11-19T10:00", "daily 2026-11-19"),
            ("2026-11-20T09:00", "within 1h"),
            (
                "2026-11-20T10:00",
                "last, daily 2026-11-20, weekly 2026-W47, monthly 2026-11, yearly 2026, within 1h, last good point",
            ),
        ],
    );
}

#[test]
fn days_are_those_of_the_zone() {
    // One in the evening and one at night: two days in Berlin, one in UTC.
    let points = "2026-11-19T22:30Z 2026-11-19T23:30Z";
    check("daily 5", points, &[("2026-11-19T23:30Z", "daily 2026-11-19, last good point")]);
    check_in(
        "Europe/Berlin",
        "daily 5",
        points,
        &[
            ("2026-11-19T22:30Z", "daily 2026-11-19"),
            ("2026-11-19T23:30Z", "daily 2026-11-20, last good point"),
        ],
    );
    // Half hours: Newfoundland is 3:30 behind, Nepal 5:45 ahead.
    check_in(
        "America/St_Johns",
        "hourly 5",
        "2026-11-19T12:29Z 2026-11-19T12:30Z",
        &[
            ("2026-11-19T12:29Z", "hourly 2026-11-19T08-03:30"),
            ("2026-11-19T12:30Z", "hourly 2026-11-19T09-03:30, last good point"),
        ],
    );
    check_in(
        "Asia/Kathmandu",
        "daily 5",
        "2026-11-19T18:14Z 2026-11-19T18:15Z",
        &[
            ("2026-11-19T18:14Z", "daily 2026-11-19"),
            ("2026-11-19T18:15Z", "daily 2026-11-20, last good point"),
        ],
    );
}

#[test]
fn the_hour_that_comes_twice_in_autumn_is_two_hours_and_one_day() {
    let points =
        "2026-10-25T02:30+02:00 2026-10-25T02:59+02:00 2026-10-25T02:00+01:00 2026-10-25T02:30+01:00";
    check_in(
        "Europe/Berlin",
        "hourly 5",
        points,
        &[
            ("2026-10-25T02:59+02:00", "hourly 2026-10-25T02+02:00"),
            ("2026-10-25T02:30+01:00", "hourly 2026-10-25T02+01:00, last good point"),
        ],
    );
    // That day has 25 hours; both its ends are the same day.
    check_in(
        "Europe/Berlin",
        "daily 5",
        "2026-10-24T23:59:59 2026-10-25T00:00 2026-10-25T23:59:59 2026-10-26T00:00",
        &[
            ("2026-10-24T23:59:59", "daily 2026-10-24"),
            ("2026-10-25T23:59:59", "daily 2026-10-25"),
            ("2026-10-26T00:00", "daily 2026-10-26, last good point"),
        ],
    );
    // Lord Howe goes back half an hour: 1:30 to 2:00 comes twice.
    check_in(
        "Australia/Lord_Howe",
        "hourly 5",
        "2026-04-05T01:45+11:00 2026-04-05T01:45+10:30",
        &[
            ("2026-04-05T01:45+11:00", "hourly 2026-04-05T01+11:00"),
            ("2026-04-05T01:45+10:30", "hourly 2026-04-05T01+10:30, last good point"),
        ],
    );
    // In Havana the clock goes back at 1:00, to midnight: still the same day.
    check_in(
        "America/Havana",
        "daily 5",
        "2026-10-31T23:59:59 2026-11-01T00:30-04:00 2026-11-01T00:30-05:00",
        &[
            ("2026-10-31T23:59:59", "daily 2026-10-31"),
            ("2026-11-01T00:30-05:00", "daily 2026-11-01, last good point"),
        ],
    );
}

#[test]
fn the_hour_that_is_left_out_in_spring_is_missed_by_nobody() {
    check_in(
        "Europe/Berlin",
        "hourly 2",
        "2026-03-29T00:59 2026-03-29T01:59:59 2026-03-29T03:00",
        &[
            ("2026-03-29T01:59:59", "hourly 2026-03-29T01+01:00"),
            ("2026-03-29T03:00", "hourly 2026-03-29T03+02:00, last good point"),
        ],
    );
    // The day of 23 hours.
    check_in(
        "Europe/Berlin",
        "daily 2",
        "2026-03-28T23:59:59 2026-03-29T00:00 2026-03-29T23:59:59 2026-03-30T00:00",
        &[
            ("2026-03-29T23:59:59", "daily 2026-03-29"),
            ("2026-03-30T00:00", "daily 2026-03-30, last good point"),
        ],
    );
    // Apia left out the whole of 2011-12-30.
    check_in(
        "Pacific/Apia",
        "daily 2",
        "2011-12-28T12:00 2011-12-29T23:59:59 2011-12-31T00:00",
        &[
            ("2011-12-29T23:59:59", "daily 2011-12-29"),
            ("2011-12-31T00:00", "daily 2011-12-31, last good point"),
        ],
    );
}

#[test]
fn a_week_is_that_of_iso_8601_and_belongs_to_the_year_of_its_thursday() {
    for (day, week) in [
        ("2024-12-29", "2024-W52"),
        ("2024-12-30", "2025-W01"),
        ("2021-01-03", "2020-W53"),
        ("2021-01-04", "2021-W01"),
        ("2026-01-01", "2026-W01"),
        ("2027-01-01", "2026-W53"),
        ("2016-01-03", "2015-W53"),
        ("2000-02-29", "2000-W09"),
    ] {
        let time = instant(&tz("UTC"), &format!("{day}T12:00"));
        assert_eq!(period_name(Rule::Weekly, time, &|_| 0), week, "{day}");
    }
    // The week over new year is one week in two years.
    check(
        "weekly 9",
        "2024-12-29T12:00 2024-12-31T12:00 2025-01-05T12:00 2025-01-06T12:00",
        &[
            ("2024-12-29T12:00", "weekly 2024-W52"),
            ("2025-01-05T12:00", "weekly 2025-W01"),
            ("2025-01-06T12:00", "weekly 2025-W02, last good point"),
        ],
    );
}

#[test]
fn the_last_good_point_stays_however_many_incomplete_ones_come_after() {
    check(
        "last 1",
        "2026-11-01T10:00 2026-11-02T10:00 2026-11-18T10:00! 2026-11-19T10:00! 2026-11-20T10:00!",
        &[("2026-11-02T10:00", "last, last good point"), ("2026-11-20T10:00", "last")],
    );
    // Not only the last: incomplete points do not push whole ones out at all.
    check(
        "daily 2",
        "2026-11-01T10:00 2026-11-02T10:00 2026-11-03T10:00 2026-11-18T10:00! 2026-11-19T10:00! 2026-11-20T10:00!",
        &[
            ("2026-11-02T10:00", "daily 2026-11-02"),
            ("2026-11-03T10:00", "daily 2026-11-03, last good point"),
            ("2026-11-19T10:00", "daily 2026-11-19"),
            ("2026-11-20T10:00", "daily 2026-11-20"),
        ],
    );
    // Within, too, counts from the newest whole point once more.
    check(
        "within 1d",
        "2026-11-01T10:00 2026-11-02T10:00 2026-11-02T11:00! 2026-11-20T10:00!",
        &[
            ("2026-11-01T10:00", "within 1d"),
            ("2026-11-02T10:00", "within 1d, last good point"),
            ("2026-11-20T10:00", "within 1d"),
        ],
    );
    // A whole point of the same day is better than a later one that lacks something.
    check(
        "daily 1",
        "2026-11-20T09:00 2026-11-20T10:00!",
        &[("2026-11-20T09:00", "daily 2026-11-20, last good point")],
    );
    // Where nothing is whole, the rules count what there is.
    check(
        "daily 1",
        "2026-11-19T09:00! 2026-11-20T09:00! 2026-11-20T10:00!",
        &[("2026-11-20T10:00", "daily 2026-11-20")],
    );
}

#[test]
fn a_hold_keeps_what_no_rule_keeps_and_takes_no_place() {
    check(
        "last 1",
        "2026-11-01T10:00= 2026-11-02T10:00 2026-11-03T10:00",
        &[("2026-11-01T10:00", "hold: legal"), ("2026-11-03T10:00", "last, last good point")],
    );
    check(
        "last 1",
        "2026-11-01T10:00 2026-11-02T10:00!= 2026-11-03T10:00=",
        &[("2026-11-02T10:00", "hold: legal"), ("2026-11-03T10:00", "last, hold: legal, last good point")],
    );
}

#[test]
fn a_point_the_store_locks_stays_until_the_lock_ends() {
    let now = 100 * HOUR;
    for (until, stays) in [(now + 1, true), (now, false), (now - 1, false)] {
        let mut locked = point("a", 1, 1);
        locked.locked_until = Some(until);
        let decided = retain(vec![locked, point("a", 2, 2)], &policy("last 1"), &|_| 0, now).unwrap();
        assert_eq!(!decided[0].is_drop(), stays, "{until}");
    }
    assert_eq!(Reason::Locked(0).to_string(), "locked until 1970-01-01T00:00:00Z");
}

#[test]
fn points_of_the_future_stay_and_take_no_place() {
    // Now is the 21st, noon. Somebody's clock was in 2099.
    check(
        "last 1, daily 1, within 1h",
        "2026-11-19T10:00 2026-11-20T10:00 2026-11-21T12:00:01 2099-01-01T00:00 2099-01-01T00:00!",
        &[
            ("2026-11-20T10:00", "last, daily 2026-11-20, within 1h, last good point"),
            ("2026-11-21T12:00:01", "in the future"),
            ("2099-01-01T00:00", "in the future"),
            ("2099-01-01T00:00", "in the future"),
        ],
    );
    // A point of this very instant is none of the future.
    check("last 1", "2026-11-21T12:00", &[("2026-11-21T12:00", "last, last good point")]);
}

#[test]
fn points_of_the_same_time_are_told_apart_by_their_ids_whatever_order_they_come_in() {
    let points: Vec<Point> = (0..4).map(|number| point("a", HOUR, number)).collect();
    let mut reversed = points.clone();
    reversed.reverse();
    for given in [points, reversed] {
        let decided = retain(given, &policy("last 2"), &|_| 0, 2 * HOUR).unwrap();
        let kept: Vec<u8> =
            decided.iter().filter(|one| !one.is_drop()).map(|one| one.point.id.0[7]).collect();
        assert_eq!(kept, [2, 3]);
    }
}

#[test]
fn each_series_is_decided_by_itself() {
    let points =
        vec![point("b", 1, 1), point("a", 2, 2), point("b", 3, 3), point("a", 4, 4), point("c", 0, 5)];
    let decided = retain(points, &policy("last 1"), &|_| 0, HOUR).unwrap();
    let told: Vec<(&str, i64, bool)> =
        decided.iter().map(|one| (one.point.series.as_str(), one.point.time, one.is_drop())).collect();
    assert_eq!(told, [("a", 2, true), ("a", 4, false), ("b", 1, true), ("b", 3, false), ("c", 0, false)]);
}

#[test]
fn within_counts_from_the_newest_point_so_a_series_that_ended_loses_nothing_by_waiting() {
    check(
        "within 1d",
        "2020-01-01T10:00 2020-01-02T10:00",
        &[("2020-01-01T10:00", "within 1d"), ("2020-01-02T10:00", "within 1d, last good point")],
    );
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    for points in [vec![], vec![point("a", 0, 1)]] {
        let refused = retain(points, &Policy::default(), &|_| 0, HOUR).unwrap_err();
        assert!(refused.to_string().contains("keeps nothing"), "{refused}");
    }
    let moment = Policy { within: Some(Duration::ZERO), ..Policy::default() };
    let decided = retain(vec![point("a", 0, 1), point("a", 1, 2)], &moment, &|_| 0, HOUR).unwrap();
    assert_eq!(decided.iter().filter(|one| one.is_drop()).count(), 1, "the newest stays");
}

#[test]
fn a_policy_without_a_bound_keeps_all_and_hurts_nobody() {
    let all = Policy { last: u32::MAX, within: Some(Duration::MAX), ..Policy::default() };
    let points = vec![point("a", i64::MIN, 1), point("a", 0, 2), point("a", i64::MAX, 3)];
    let decided = retain(points, &all, &|_| 50_400, 0).unwrap();
    assert!(decided.iter().all(|one| !one.is_drop()));
}

#[test]
fn a_series_is_what_was_backed_up_and_where() {
    let summary = |kind: &str, labels: &[(&str, &str)]| Summary {
        kind: kind.into(),
        labels: labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..Summary::default()
    };
    let series = |kind: &str, labels: &[(&str, &str)]| series_of(&summary(kind, labels));
    assert_eq!(
        series("volume", &[("path", "/srv"), ("host", "a"), ("x", "y")]),
        r#"volume host="a" path="/srv""#
    );
    assert_eq!(
        series("application", &[("application", "shop"), ("cluster", "c"), ("complete", "false")]),
        r#"application cluster="c" application="shop""#
    );
    assert_ne!(
        series("application", &[("application", "shop"), ("cluster", "c")]),
        series("application", &[("application", "shop"), ("cluster", "d")]),
        "the same name in two clusters is two applications"
    );
    assert_ne!(
        series("volume", &[("path", r#"a" path="b"#), ("host", "")]),
        series("volume", &[("path", "b"), ("host", r#"" path="a"#)]),
    );
    assert_ne!(
        series("new", &[("a", "1")]),
        series("new", &[("a", "2")]),
        "an unknown kind: all labels count"
    );
    for (labels, whole) in
        [(&[][..], true), (&[("complete", "true")], true), (&[("complete", "false")], false)]
    {
        assert_eq!(is_whole(&summary("volume", labels)), whole);
    }
}

// --- an independent way to decide ---

/// The name of a period, made by another calendar than ours.
fn named(rule: Rule, tz: &TimeZone, point: &Point) -> String {
    let at = tz.to_timestamp_zoned(point.time);
    let format = match rule {
        Rule::Last => return format!("{} {}", point.time, point.id),
        Rule::Hourly => "%Y-%m-%dT%H%z",
        Rule::Daily => "%Y-%m-%d",
        Rule::Weekly => "%G-W%V",
        Rule::Monthly => "%Y-%m",
        Rule::Yearly => "%Y",
    };
    at.strftime(format).to_string()
}

trait Zoned {
    fn to_timestamp_zoned(&self, time: Timestamp) -> jiff::Zoned;
}

impl Zoned for TimeZone {
    fn to_timestamp_zoned(&self, time: Timestamp) -> jiff::Zoned {
        jiff::Timestamp::from_nanosecond(time.into()).unwrap().to_zoned(self.clone())
    }
}

/// Walks back from the newest and counts names not seen yet.
fn naive(points: &[Point], policy: &Policy, tz: &TimeZone, now: Timestamp) -> BTreeSet<CommitId> {
    let mut kept = BTreeSet::new();
    let series: BTreeSet<&str> = points.iter().map(|point| point.series.as_str()).collect();
    for series in series {
        let mut all: Vec<&Point> = points.iter().filter(|point| point.series == series).collect();
        all.sort_by_key(|point| Reverse((point.time, point.id)));
        kept.extend(all.iter().filter(|p| p.time > now || !p.holds.is_empty()).map(|p| p.id));
        all.retain(|point| point.time <= now);
        kept.extend(all.iter().find(|point| point.whole).map(|point| point.id));
        for only_whole in [false, true] {
            let some: Vec<&Point> = all.iter().copied().filter(|point| point.whole || !only_whole).collect();
            for (rule, count) in policy.counts() {
                let mut seen: Vec<String> = Vec::new();
                for point in &some {
                    let name = named(rule, tz, point);
                    if seen.contains(&name) || seen.len() == count as usize {
                        continue;
                    }
                    let same = |other: &&&Point| named(rule, tz, other) == name;
                    let best = some.iter().filter(same).find(|p| p.whole).unwrap_or(point);
                    kept.insert(best.id);
                    seen.push(name);
                }
            }
            if let (Some(within), Some(newest)) = (policy.within, some.first()) {
                let from = newest.time - within.as_nanos() as i64;
                kept.extend(some.iter().filter(|point| point.time >= from).map(|point| point.id));
            }
        }
    }
    kept
}

fn some_points() -> impl Strategy<Value = Vec<Point>> {
    // Close together, on round hours often, around the turns of clocks and of the year 2026.
    let turn = prop::sample::select(vec![
        "2026-10-25T01:00:00Z",
        "2026-03-29T01:00:00Z",
        "2026-01-01T00:00:00Z",
        "2026-04-04T15:00:00Z",
        "2026-11-01T05:00:00Z",
        "2026-11-21T12:00:00Z",
    ]);
    let step =
        prop_oneof![-200..200_i64, Just(0_i64), -9_000..50_i64].prop_map(|quarters| quarters * HOUR / 4);
    let one = (turn, step, 0..3_u8, prop::bool::weighted(0.7), prop::bool::weighted(0.1));
    prop::collection::vec(one, 0..40).prop_map(|all| {
        let utc = tz("UTC");
        all.into_iter()
            .enumerate()
            .map(|(number, (turn, step, series, whole, held))| {
                let mut made = point(&series.to_string(), instant(&utc, turn) + step, number);
                made.whole = whole;
                made.holds.extend(held.then(|| "legal".to_owned()));
                made
            })
            .collect()
    })
}

fn some_policy() -> impl Strategy<Value = Policy> {
    let count = || prop_oneof![3 => Just(0_u32), 2 => 1..4_u32, 1 => 4..40_u32];
    let within =
        prop::option::weighted(0.3, (0..2_000_u64).prop_map(|hours| Duration::from_secs(hours * 3_600)));
    (count(), count(), count(), count(), count(), count(), within)
        .prop_map(|(last, hourly, daily, weekly, monthly, yearly, within)| Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
        })
        .prop_filter("a policy that keeps something", |policy| !policy.is_empty())
}

fn kept(points: &[Point], policy: &Policy, tz: &TimeZone, now: Timestamp) -> BTreeSet<CommitId> {
    let decided = retain(points.to_vec(), policy, &|time| offset(tz, time), now).unwrap();
    decided.iter().filter(|one| !one.is_drop()).map(|one| one.point.id).collect()
}

fn now() -> Timestamp {
    instant(&tz("UTC"), "2026-11-21T12:00:00Z")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_naive_calendar_decides_alike(
        points in some_points(), policy in some_policy(), zone in prop::sample::select(ZONES.to_vec()),
    ) {
        let tz = tz(zone);
        prop_assert_eq!(kept(&points, &policy, &tz, now()), naive(&points, &policy, &tz, now()));
    }

    #[test]
    fn deciding_again_about_what_was_kept_drops_nothing_more(
        points in some_points(), policy in some_policy(), zone in prop::sample::select(ZONES.to_vec()),
    ) {
        let tz = tz(zone);
        let once = kept(&points, &policy, &tz, now());
        let left: Vec<Point> = points.into_iter().filter(|point| once.contains(&point.id)).collect();
        prop_assert_eq!(kept(&left, &policy, &tz, now()), once);
    }

    #[test]
    fn a_larger_policy_keeps_all_that_a_smaller_one_keeps(
        points in some_points(), policy in some_policy(), more in some_policy(),
        zone in prop::sample::select(ZONES.to_vec()),
    ) {
        let larger = Policy {
            last: policy.last + more.last,
            hourly: policy.hourly + more.hourly,
            daily: policy.daily + more.daily,
            weekly: policy.weekly + more.weekly,
            monthly: policy.monthly + more.monthly,
            yearly: policy.yearly + more.yearly,
            within: policy.within.max(more.within),
        };
        let tz = tz(zone);
        let (small, large) = (kept(&points, &policy, &tz, now()), kept(&points, &larger, &tz, now()));
        prop_assert!(small.is_subset(&large));
    }

    #[test]
    fn no_series_is_emptied_and_none_loses_its_last_good_point(
        points in some_points(), policy in some_policy(), zone in prop::sample::select(ZONES.to_vec()),
    ) {
        let kept = kept(&points, &policy, &tz(zone), now());
        for point in &points {
            let mut same = points.iter().filter(|other| other.series == point.series);
            prop_assert!(same.clone().any(|other| kept.contains(&other.id)), "{} is empty", point.series);
            let newest_whole = same.clone().filter(|p| p.whole && p.time <= now()).max_by_key(|p| (p.time, p.id));
            prop_assert!(newest_whole.is_none_or(|newest| kept.contains(&newest.id)));
            prop_assert!(same.all(|p| p.holds.is_empty() || kept.contains(&p.id)), "holds always win");
        }
    }

    #[test]
    fn the_order_in_which_points_are_listed_does_not_matter(
        points in some_points(), policy in some_policy(), seed in any::<u64>(),
    ) {
        let mut shuffled = points.clone();
        shuffled.sort_by_key(|point| blake3::hash(&[&point.id.0[..], &seed.to_le_bytes()].concat()).as_bytes().to_owned());
        prop_assert_eq!(kept(&points, &policy, &tz("UTC"), now()), kept(&shuffled, &policy, &tz("UTC"), now()));
    }
}
