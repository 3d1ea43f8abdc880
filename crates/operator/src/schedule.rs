//! When points of an application are due. Pure: what was, and what time it is, go in; what to do comes out.
//!
//! The last run that was *considered* is in the application's status, so a new leader goes on where the old one stopped. Runs that
//! were missed since then are made up for by one, if the newest is young enough. A run that finds the one before still under way is
//! dropped and told. Clocks that leap forward make runs missed; clocks that leap back repeat none.

use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use crate::cron::Cron;

/// More missed runs than this are not counted.
const MISSED_MAX: u32 = 1000;

/// Our own zones, not those of the node: two replicas have to agree.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone by the name the IANA gave it.
pub fn zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

/// A schedule of one application.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// When.
    pub cron: Cron,
    /// In which time zone.
    pub zone: TimeZone,
    /// How much later than that this application runs: its part of the policy's jitter ([`part_of_jitter`]).
    pub later: SignedDuration,
    /// How old a missed run may be to be made up for.
    pub catch_up_within: SignedDuration,
}

/// What is known of a schedule when it is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// The last run that was considered; none: it is seen for the first time.
    pub considered: Option<Timestamp>,
    /// It is suspended, by the policy or the application.
    pub suspended: bool,
    /// A point of this application is under way.
    pub running: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What to do now.
    pub run: Run,
    /// What to write down as considered; the same as before if nothing happened.
    pub considered: Timestamp,
    /// When to look again; none if nothing comes within years.
    pub next: Option<Timestamp>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Nothing.
    Nothing,
    /// Take the point that was due at this instant. So many runs before it were missed, and it stands for them, too.
    Take {
        /// When it was due.
        at: Timestamp,
        /// How many before it were missed.
        missed: u32,
    },
    /// It was due, but the one before is still under way.
    Dropped {
        /// When it was due.
        at: Timestamp,
    },
    /// So many were missed, and the newest is too old to be made up for.
    TooLate {
        /// When the newest was due.
        at: Timestamp,
        /// How many were missed.
        missed: u32,
    },
}

impl Schedule {
    /// What is due now.
    pub fn due(&self, seen: &Seen, now: Timestamp) -> Due {
        // A clock that was set back by more than it could ever be corrected by was wrong before: begin anew. Set back by a little, it
        // comes to the same runs again, which were considered already.
        let considered =
            seen.considered.filter(|before| before.duration_since(now) <= SignedDuration::from_hours(1));
        let Some(considered) = considered else {
            return Due { run: Run::Nothing, considered: now, next: self.after(now) };
        };
        let next = self.after(now.max(considered));
        let Some(at) = self.newest(considered, now) else {
            return Due { run: Run::Nothing, considered, next };
        };
        let done = |run| Due { run, considered: at, next };
        if seen.suspended {
            return done(Run::Nothing);
        }
        let count = || self.cron.count(&self.zone, self.plain(considered), self.plain(at), MISSED_MAX);
        if now.duration_since(at) > self.catch_up_within.max(SignedDuration::from_secs(60)) {
            return done(Run::TooLate { at, missed: count() });
        }
        if seen.running {
            return done(Run::Dropped { at });
        }
        done(Run::Take { at, missed: count().saturating_sub(1) })
    }

    /// The first run after an instant.
    pub fn after(&self, instant: Timestamp) -> Option<Timestamp> {
        self.cron.after(&self.zone, self.plain(instant))?.checked_add(self.later).ok()
    }

    fn newest(&self, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        if until <= from {
            return None;
        }
        self.cron.newest(&self.zone, self.plain(from), self.plain(until))?.checked_add(self.later).ok()
    }

    /// The instant without this application's part of the jitter.
    fn plain(&self, instant: Timestamp) -> Timestamp {
        instant.checked_sub(self.later).unwrap_or(Timestamp::MIN)
    }
}

/// An application's part of a schedule's jitter: always the same for the same application and schedule, so that the time between
/// its runs is that of the schedule; in whole seconds, below `jitter`.
pub fn part_of_jitter(uid: &str, schedule: &str, jitter: SignedDuration) -> SignedDuration {
    let Some(seconds) = u64::try_from(jitter.as_secs()).ok().filter(|seconds| *seconds > 0) else {
        return SignedDuration::ZERO;
    };
    // FNV-1a, and the end of murmur3 to spread it: no secret, but the same in all versions.
    let bytes = uid.bytes().chain([0]).chain(schedule.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccdu64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^= hash >> 33;
    SignedDuration::from_secs(i64::try_from(hash % seconds).unwrap_or(0))
}

/// When an application's newest point is too old: at this instant `Protected` turns false. None if that never comes.
pub fn missed_at(newest: Timestamp, objective: SignedDuration) -> Option<Timestamp> {
    newest.checked_add(objective).ok()
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    fn at(text: &str) -> Timestamp {
        let text = if text.len() == 16 { format!("{text}:00Z") } else { format!("{text}Z") };
        text.parse().unwrap()
    }

    fn schedule(cron: &str, later: i64, catch_up: &str) -> Schedule {
        Schedule {
            cron: Cron::parse(cron).unwrap(),
            zone: TimeZone::UTC,
            later: SignedDuration::from_secs(later),
            catch_up_within: catch_up.parse().unwrap(),
        }
    }

    const HOURLY: &str = "0 * * * *";

    #[test]
    fn runs_that_are_due_missed_dropped_and_too_late() {
        let nothing = |considered: &str, next: &str| Due {
            run: Run::Nothing,
            considered: at(considered),
            next: Some(at(next)),
        };
        let take = |due: &str, missed: u32, next: &str| Due {
            run: Run::Take { at: at(due), missed },
            considered: at(due),
            next: Some(at(next)),
        };
        let seen = |considered: &str| Seen { considered: Some(at(considered)), ..Seen::default() };
        let day = || schedule(HOURLY, 0, "24h");
        for (story, schedule, seen, now, expect) in [
            (
                "seen for the first time",
                day(),
                Seen::default(),
                "2026-05-01T10:30",
                nothing("2026-05-01T10:30", "2026-05-01T11:00"),
            ),
            (
                "nothing yet",
                day(),
                seen("2026-05-01T10:00"),
                "2026-05-01T10:59:59",
                nothing("2026-05-01T10:00", "2026-05-01T11:00"),
            ),
            (
                "due to the second",
                day(),
                seen("2026-05-01T10:00"),
                "2026-05-01T11:00",
                take("2026-05-01T11:00", 0, "2026-05-01T12:00"),
            ),
            (
                "a little late",
                day(),
                seen("2026-05-01T10:00"),
                "2026-05-01T11:00:07",
                take("2026-05-01T11:00", 0, "2026-05-01T12:00"),
            ),
            (
                "once, not again",
                day(),
                seen("2026-05-01T11:00"),
                "2026-05-01T11:00:07",
                nothing("2026-05-01T11:00", "2026-05-01T12:00"),
            ),
            (
                "the operator was away for five hours: one run for all",
                day(),
                seen("2026-05-01T10:00"),
                "2026-05-01T15:20",
                take("2026-05-01T15:00", 4, "2026-05-01T16:00"),
            ),
            (
                "away for a week, hourly: the newest is young all the same",
                day(),
                seen("2026-05-01T10:00"),
                "2026-05-08T10:20",
                take("2026-05-08T10:00", 167, "2026-05-08T11:00"),
            ),
            (
                "away for years: counted up to a thousand",
                day(),
                seen("2020-05-01T10:00"),
                "2026-05-08T10:20",
                take("2026-05-08T10:00", 999, "2026-05-08T11:00"),
            ),
            (
                "too old to be made up for",
                schedule("0 3 * * *", 0, "1h"),
                seen("2026-05-01T03:00"),
                "2026-05-02T09:00",
                Due {
                    run: Run::TooLate { at: at("2026-05-02T03:00"), missed: 1 },
                    considered: at("2026-05-02T03:00"),
                    next: Some(at("2026-05-03T03:00")),
                },
            ),
            (
                "nothing is made up for, but a run may be a moment late",
                schedule(HOURLY, 0, "0s"),
                seen("2026-05-01T10:00"),
                "2026-05-01T11:00:20",
                take("2026-05-01T11:00", 0, "2026-05-01T12:00"),
            ),
            (
                "the one before is under way",
                day(),
                Seen { running: true, ..seen("2026-05-01T10:00") },
                "2026-05-01T11:00",
                Due {
                    run: Run::Dropped { at: at("2026-05-01T11:00") },
                    considered: at("2026-05-01T11:00"),
                    next: Some(at("2026-05-01T12:00")),
                },
            ),
            (
                "suspended: considered and not run, so nothing is made up for later",
                day(),
                Seen { suspended: true, ..seen("2026-05-01T10:00") },
                "2026-05-01T14:30",
                nothing("2026-05-01T14:00", "2026-05-01T15:00"),
            ),
            (
                "the clock was set back a little: what ran does not run again",
                day(),
                seen("2026-05-01T11:00"),
                "2026-05-01T10:59:50",
                nothing("2026-05-01T11:00", "2026-05-01T12:00"),
            ),
            (
                "the clock was in another year for a moment: begin anew",
                day(),
                seen("2031-05-01T11:00"),
                "2026-05-01T10:30",
                nothing("2026-05-01T10:30", "2026-05-01T11:00"),
            ),
            (
                "jitter moves every run by the same",
                schedule(HOURLY, 90, "24h"),
                seen("2026-05-01T10:01:30"),
                "2026-05-01T11:01:29",
                nothing("2026-05-01T10:01:30", "2026-05-01T11:01:30"),
            ),
            (
                "jitter, due",
                schedule(HOURLY, 90, "24h"),
                seen("2026-05-01T10:01:30"),
                "2026-05-01T13:01:30",
                take("2026-05-01T13:01:30", 2, "2026-05-01T14:01:30"),
            ),
        ] {
            assert_eq!(schedule.due(&seen, at(now)), expect, "{story}");
        }
    }

    /// A year with an operator that looks at odd times, dies, and has its clock corrected: each run is taken once or made up for.
    #[test]
    fn over_a_year_of_looks_no_run_is_taken_twice_and_none_is_forgotten() {
        let schedule = Schedule {
            zone: zone("Europe/Vienna").unwrap(),
            ..schedule("15 2,8,14,20 * * *", 1234, "8784h")
        };
        let begin = at("2026-01-01T00:00");
        let mut seen = Seen { considered: Some(begin), ..Seen::default() };
        let (mut now, mut taken, mut missed, mut dice) = (begin, Vec::new(), 0, 1u64);
        while now < at("2027-01-01T00:00") {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let minutes = match dice >> 60 {
                0 => 60 * 24 * 3,
                1 => -5,
                n => n as i64 * 17,
            };
            now = now.checked_add(minutes.minutes()).unwrap();
            let due = schedule.due(&seen, now);
            if let Run::Take { at, missed: before } = due.run {
                taken.push(at);
                missed += before;
            }
            seen.considered = Some(due.considered);
        }
        assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "none twice");
        let all = schedule.cron.count(&schedule.zone, schedule.plain(begin), schedule.plain(now), 10_000);
        assert_eq!(taken.len() as u32 + missed, all, "none forgotten");
        assert!(missed > 100 && taken.len() > 300, "{missed} {}", taken.len());
    }

    #[test]
    fn the_part_of_the_jitter_is_fixed_spread_and_below_it() {
        let hour = SignedDuration::from_hours(1);
        let part = |n: u32| part_of_jitter(&format!("0f8e-{n}"), "hourly", hour);
        assert_eq!(part(1), part(1));
        assert_ne!(part_of_jitter("a", "hourly", hour), part_of_jitter("a", "daily", hour));
        assert_eq!(part_of_jitter("a", "hourly", SignedDuration::ZERO), SignedDuration::ZERO);
        assert_eq!(part_of_jitter("a", "hourly", SignedDuration::from_millis(500)), SignedDuration::ZERO);
        // 2,000 applications over an hour: no minute has three times its share.
        let mut minutes = [0u32; 60];
        for n in 0..2000 {
            let part = part(n);
            assert!(part >= SignedDuration::ZERO && part < hour);
            minutes[(part.as_secs() / 60) as usize] += 1;
        }
        assert!(minutes.iter().all(|n| (10..100).contains(n)), "{minutes:?}");
    }

    #[test]
    fn an_objective_is_missed_at_an_instant() {
        let missed = missed_at(at("2026-05-01T10:00"), SignedDuration::from_hours(2)).unwrap();
        assert_eq!(missed, at("2026-05-01T12:00"));
        assert_eq!(missed_at(Timestamp::MAX, SignedDuration::from_hours(2)), None);
    }
}
