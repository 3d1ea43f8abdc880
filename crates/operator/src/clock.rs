//! Two clocks: one that never leaps and says how long ago something was, and the one on the wall.
//!
//! What lasts (a lease, a pause after a failure) goes by the first, what is written down (a run that is due, a condition's time) by
//! the second. Wall clocks leap: a machine slept, somebody set it, a time server came late. So no timer waits for an instant by
//! computing how long that is once and for all; whoever waits for one looks at the wall again and again ([`LOOK_AGAIN`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use repo::Env;
use tokio::sync::watch;

/// Who waits for an instant on the wall looks at it at least so often.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What both clocks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Since some beginning; never leaps, and stands still while the machine sleeps.
    pub steady: Duration,
    /// The time of day.
    pub wall: Timestamp,
}

impl Reading {
    /// The time since an earlier reading, by the clock that ran further: for who must not believe that less time has passed.
    pub fn at_most_since(&self, earlier: &Reading) -> Duration {
        let by_wall = Duration::try_from(self.wall.duration_since(earlier.wall)).unwrap_or_default();
        self.steady.saturating_sub(earlier.steady).max(by_wall)
    }
}

/// Both clocks. Clones are the same.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

enum Source {
    Real { env: Env, begun: Instant },
    Ours { now: Mutex<Reading>, moved: watch::Sender<()> },
}

impl Clock {
    /// The machine's.
    pub fn real(env: Env) -> Clock {
        Clock(Arc::new(Source::Real { env, begun: Instant::now() }))
    }

    /// One that stands still until it is moved: for tests.
    pub fn ours(wall: Timestamp) -> Clock {
        let now = Mutex::new(Reading { steady: Duration::ZERO, wall });
        Clock(Arc::new(Source::Ours { now, moved: watch::Sender::new(()) }))
    }

    /// What they say.
    pub fn read(&self) -> Reading {
        match &*self.0 {
            Source::Real { env, begun } => {
                let wall = Timestamp::from_nanosecond(i128::from(env.now())).unwrap_or(Timestamp::UNIX_EPOCH);
                Reading { steady: begun.elapsed(), wall }
            }
            Source::Ours { now, .. } => *now.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Returns when so much time has passed.
    pub async fn sleep(&self, duration: Duration) {
        match &*self.0 {
            Source::Real { .. } => tokio::time::sleep(duration).await,
            Source::Ours { moved, .. } => {
                let mut moved = moved.subscribe();
                let until = self.read().steady.saturating_add(duration);
                while self.read().steady < until {
                    if moved.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Lets time pass. The machine's clock is left alone.
    pub fn pass(&self, duration: Duration) {
        self.change(|now| {
            now.steady += duration;
            now.wall = now.wall.checked_add(duration).unwrap_or(Timestamp::MAX);
        });
    }

    /// Sets the clock on the wall forward or back. The machine's is left alone.
    pub fn leap(&self, by: SignedDuration) {
        self.change(|now| now.wall = now.wall.checked_add(by).unwrap_or(now.wall));
    }

    fn change(&self, change: impl FnOnce(&mut Reading)) {
        if let Source::Ours { now, moved } = &*self.0 {
            change(&mut now.lock().unwrap_or_else(PoisonError::into_inner));
            moved.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_something_believes_the_clock_that_ran_further() {
        let clock = Clock::ours(Timestamp::constant(1_900_000_000, 0));
        let begun = clock.read();
        let check = |expect: u64| assert_eq!(clock.read().at_most_since(&begun), Duration::from_secs(expect));
        clock.pass(Duration::from_secs(4));
        check(4);
        clock.leap(SignedDuration::from_secs(-3600));
        check(4);
        clock.leap(SignedDuration::from_secs(3600 + 100));
        check(104);
    }

    #[tokio::test]
    async fn a_sleep_ends_when_time_has_passed_and_not_when_the_wall_clock_leaps() {
        let clock = Clock::ours(Timestamp::UNIX_EPOCH);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        clock.leap(SignedDuration::from_hours(5));
        clock.pass(Duration::from_secs(9));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(!sleeper.is_finished());
        clock.pass(Duration::from_secs(1));
        sleeper.await.unwrap();
    }
}
