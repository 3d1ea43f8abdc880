//! The wall clock, the dice and the stop button: the only file that reads the first two.
//!
//! They are handed in as an [`Env`], so that a test owns them: `Env::fixed(now, seed)` gives the same
//! repository bytes on every run.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Error;

/// Nanoseconds since 1970-01-01T00:00:00Z.
pub type Timestamp = i64;

/// Where time and randomness come from.
#[derive(Clone)]
pub struct Env(Arc<Source>);

enum Source {
    Real,
    Fixed {
        now: AtomicI64,
        dice: Mutex<blake3::OutputReader>,
        /// How often the clock was read, and by how much it jumps at which reading.
        readings: AtomicU64,
        jumps: Vec<(u64, i64)>,
    },
}

impl Env {
    /// The machine's clock and the operating system's randomness.
    pub fn real() -> Env {
        Env(Arc::new(Source::Real))
    }

    /// A clock that stands still at `now` and randomness that repeats for the same `seed`. For tests only:
    /// keys made with it are no secret.
    pub fn fixed(now: Timestamp, seed: u64) -> Env {
        Env::jumping(now, seed, Vec::new())
    }

    /// [`Env::fixed`] with a clock that is set forward or back by so many nanoseconds at these readings (the first is
    /// number 1): what a machine without a time server does in the middle of a backup.
    pub fn jumping(now: Timestamp, seed: u64, jumps: Vec<(u64, i64)>) -> Env {
        let mut hasher = blake3::Hasher::new_derive_key("holdfast fixed test dice");
        hasher.update(&seed.to_le_bytes());
        let dice = Mutex::new(hasher.finalize_xof());
        Env(Arc::new(Source::Fixed { now: AtomicI64::new(now), dice, readings: AtomicU64::new(0), jumps }))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::Fixed { now, readings, jumps, .. } => {
                let reading = readings.fetch_add(1, Ordering::Relaxed) + 1;
                let jump: i64 = jumps.iter().filter(|(at, _)| *at == reading).map(|(_, by)| by).sum();
                now.fetch_add(jump, Ordering::Relaxed).saturating_add(jump)
            }
            // A clock before 1970 or after 2262 is wrong anyway; it must not end a backup.
            Source::Real => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| i64::try_from(since.as_nanos()).ok())
                .unwrap_or(0),
        }
    }

    /// Moves a fixed clock forward; the machine's clock is left alone.
    pub fn advance(&self, nanoseconds: i64) {
        if let Source::Fixed { now, .. } = &*self.0 {
            now.fetch_add(nanoseconds, Ordering::Relaxed);
        }
    }

    /// Fills `out` with random bytes.
    pub fn random(&self, out: &mut [u8]) -> Result<(), Error> {
        match &*self.0 {
            Source::Real => aws_lc_rs::rand::fill(out)
                .map_err(|_| Error::Failed { what: "the operating system gave no random bytes".into() }),
            Source::Fixed { dice, .. } => {
                dice.lock().unwrap_or_else(PoisonError::into_inner).fill(out);
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.0 {
            Source::Real => f.write_str("Env::real"),
            Source::Fixed { .. } => f.write_str("Env::fixed"),
        }
    }
}

/// A stop button that any number of threads look at. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A button not pressed yet.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Presses it; there is no way back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has been pressed.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Error::Cancelled`] once pressed.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// `2026-11-21T11:45:20Z`: how times are written in the JSON objects of a repository.
pub fn rfc3339(time: Timestamp) -> String {
    let seconds = time.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the Gregorian calendar, so many days after 1970-01-01.
pub(crate) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    // Days since 0000-03-01, so that the leap day is the last of its year; 400 years are 146,097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096).div_euclid(365);
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// The inverse, for times that others wrote: with or without a fraction, in UTC or with an offset. `None` when it
/// is no such time.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let mark = |at: usize, marks: &[u8]| text.as_bytes().get(at).is_some_and(|b| marks.contains(b));
    if !(mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanoseconds = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let scale = 10_i64.checked_pow(9_u32.checked_sub(digits.min(9) as u32)?)?;
        nanoseconds = fraction.get(..digits.min(9))?.parse::<i64>().ok()? * scale;
        rest = fraction.get(digits..)?;
    }
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = if rest.starts_with('-') { -1 } else { rest.starts_with('+').then_some(1)? };
            let (hours, minutes) = rest.get(1..)?.split_once(':')?;
            sign * (hours.parse::<u8>().ok()? as i64 * 3600 + minutes.parse::<u8>().ok()? as i64 * 60)
        }
    };
    // Years begin in March here, as above.
    let (year, month_from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * month_from_march + 2) / 5 + day - 1;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_078_012_800, "2004-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_261_520, "2026-11-21T11:45:20Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000), text);
            assert_eq!(parse_rfc3339(text), Some(seconds * 1_000_000_000));
        }
        for (text, expected) in [
            ("1970-01-01T00:00:01.5Z", Some(1_500_000_000)),
            ("1970-01-01T00:00:01.123456789012Z", Some(1_123_456_789)),
            ("1970-01-01T01:00:01+01:00", Some(1_000_000_000)),
            ("1969-12-31T23:30:01-00:30", Some(1_000_000_000)),
            ("1970-01-01T00:00:01", None),
            ("1970-13-01T00:00:01Z", None),
            ("1970-01-01T00:00:01.Z", None),
            ("yesterday", None),
            ("", None),
            ("1970-01-01T00:00:ä1Z", None),
        ] {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn a_fixed_env_repeats_and_its_clock_moves_only_when_told() {
        let (one, two) = (Env::fixed(5, 7), Env::fixed(5, 7));
        let (mut a, mut b) = ([0; 40], [0; 40]);
        one.random(&mut a).unwrap();
        two.random(&mut b).unwrap();
        assert_eq!(a, b);
        one.random(&mut b).unwrap();
        assert_ne!(a, b);
        one.advance(3);
        assert_eq!((one.now(), two.now()), (8, 5));
        let jumping = Env::jumping(100, 1, vec![(2, 50), (4, -120)]);
        assert_eq!([(); 5].map(|()| jumping.now()), [100, 150, 150, 30, 30]);
    }
}
