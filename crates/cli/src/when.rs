//! Durations, instants and time zones as people write them on the command line.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use repo::Timestamp;
use std::time::Duration;

fn wrong(text: &str) -> String {
    format!("{text:?} is no duration; write a number and s, m, h, d or w, such as 14d")
}

/// `90s`, `30m`, `36h`, `14d`, `2w`, and several of them one after the other: `1d12h`. Not nothing.
pub fn duration(text: &str) -> Result<Duration, String> {
    duration_or_none(text).ok().filter(|duration| !duration.is_zero()).ok_or_else(|| wrong(text))
}

/// [`duration`], or `0s`.
pub fn duration_or_none(text: &str) -> Result<Duration, String> {
    let wrong = || wrong(text);
    if text.is_empty() {
        return Err(wrong());
    }
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let mut letters = after.chars();
        let unit = match letters.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => return Err(wrong()),
        };
        rest = letters.as_str();
        seconds = number.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(&wrong)?;
    }
    Ok(Duration::from_secs(seconds))
}

/// When something ends: an instant as RFC 3339, a date (the end of that day in UTC), or a duration from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Then.
    At(Timestamp),
    /// So long from now.
    In(Duration),
}

impl Until {
    /// The instant.
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Until::At(at) => at,
            Until::In(duration) => now.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)),
        }
    }
}

impl std::str::FromStr for Until {
    type Err = String;
    fn from_str(text: &str) -> Result<Until, String> {
        let nanoseconds = |at: jiff::Timestamp| Timestamp::try_from(at.as_nanosecond()).ok();
        let at = if let Ok(at) = text.parse::<jiff::Timestamp>() {
            nanoseconds(at)
        } else if let Ok(date) = text.parse::<Date>() {
            // To the end of the day named: a hold that ends a day early is the worse mistake.
            let next = date.tomorrow().ok().and_then(|next| next.to_zoned(TimeZone::UTC).ok());
            next.and_then(|next| nanoseconds(next.timestamp()))
        } else if let Ok(duration) = duration(text) {
            return Ok(Until::In(duration));
        } else {
            None
        };
        at.map(Until::At).ok_or_else(|| {
            format!("{text:?} is no time; write 2027-01-31, 2027-01-31T18:00:00Z, or a duration such as 90d")
        })
    }
}

/// A time zone by its name in the IANA database.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("{name:?} is no time zone; write its name, such as Europe/Berlin or UTC"))
}

/// Seconds that the zone is ahead of UTC at this instant.
pub fn offset(zone: &TimeZone, at: Timestamp) -> i32 {
    // Every 64-bit count of nanoseconds is in the range of the calendar.
    jiff::Timestamp::from_nanosecond(at.into()).map_or(0, |at| zone.to_offset(at).seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("30m", Some(1_800)),
            ("36h", Some(129_600)),
            ("14d", Some(1_209_600)),
            ("2w", Some(1_209_600)),
            ("1d12h", Some(129_600)),
            ("14", None),
            ("d", None),
            ("", None),
            ("0d", None),
            ("-1d", None),
            ("1y", None),
            ("1.5d", None),
            ("99999999999999999w", None),
            ("1ä", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_secs()), seconds, "{text}");
        }
    }

    #[test]
    fn an_end_is_an_instant_a_day_or_a_duration_from_now() {
        const SECOND: i64 = 1_000_000_000;
        for (text, at) in [
            ("1970-01-02", Some(2 * 86_400)),
            ("1970-01-01T00:01:00Z", Some(60)),
            ("1970-01-01T01:01:00+01:00", Some(60)),
            ("2h", Some(10 + 7_200)),
            ("tomorrow", None),
            ("1970-13-01", None),
            ("9999-12-31", None),
        ] {
            let at = at.map(|seconds: i64| seconds * SECOND);
            assert_eq!(text.parse::<Until>().ok().map(|until| until.from(10 * SECOND)), at, "{text}");
        }
    }

    #[test]
    fn a_time_zone_has_its_name_and_its_clock() {
        let berlin = zone("Europe/Berlin").unwrap();
        // 2026-07-01 and 2026-12-01, noon.
        assert_eq!(offset(&berlin, 1_782_907_200_000_000_000), 7_200);
        assert_eq!(offset(&berlin, 1_796_126_400_000_000_000), 3_600);
        assert!(zone("Mars/Olympus").is_err());
    }
}
