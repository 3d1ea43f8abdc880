//! How far it is: a moving bar on a terminal, one line every ten seconds elsewhere, nothing when quiet.
//!
//! Always on standard error. The workers only add to two counters; a thread of our own looks at them, so
//! that a slow terminal never slows a backup.

use crate::output::{bytes, count, duration, note};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const TERMINAL_TICK: Duration = Duration::from_millis(100);
const LOG_TICK: Duration = Duration::from_secs(10);

/// Whether and how progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A bar that moves.
    Bar,
    /// One line per interval.
    Lines,
    /// Nothing.
    Off,
}

impl Mode {
    /// What suits this run.
    pub fn choose(off: bool) -> Mode {
        match (off, std::io::stderr().is_terminal()) {
            (true, _) => Mode::Off,
            (false, true) => Mode::Bar,
            (false, false) => Mode::Lines,
        }
    }
}

/// The progress of one piece of work; ends when dropped.
#[derive(Debug)]
pub struct Progress {
    seen: Arc<Seen>,
    mode: Mode,
    bar: Option<indicatif::ProgressBar>,
    stop: Mutex<Option<(Sender<()>, std::thread::JoinHandle<()>)>>,
}

#[derive(Debug)]
struct Seen {
    title: String,
    started: Instant,
    files: AtomicU64,
    bytes: AtomicU64,
    files_total: AtomicU64,
    bytes_total: AtomicU64,
    doing: Mutex<String>,
}

impl Progress {
    /// Starts to show progress of what `title` names.
    pub fn start(mode: Mode, title: impl Into<String>) -> Progress {
        let seen = Arc::new(Seen {
            title: title.into(),
            started: Instant::now(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            files_total: AtomicU64::new(0),
            bytes_total: AtomicU64::new(0),
            doing: Mutex::default(),
        });
        let bar = (mode == Mode::Bar).then(|| {
            let bar = indicatif::ProgressBar::new_spinner();
            if let Ok(style) = indicatif::ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        let stop = (mode != Mode::Off).then(|| {
            let (sender, receiver) = channel::<()>();
            let (seen, bar) = (seen.clone(), bar.clone());
            let thread = std::thread::spawn(move || {
                let tick = if bar.is_some() { TERMINAL_TICK } else { LOG_TICK };
                while receiver.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                    match &bar {
                        Some(bar) => {
                            bar.set_message(seen.text());
                            bar.tick();
                        }
                        None => note(seen.text()),
                    }
                }
            });
            (sender, thread)
        });
        Progress { seen, mode, bar, stop: Mutex::new(stop) }
    }

    /// Stops showing; the line of the bar is wiped.
    pub fn finish(&self) {
        let stop = self.stop.lock().map(|mut s| s.take()).unwrap_or_default();
        if let Some((sender, thread)) = stop {
            drop(sender);
            // The thread only prints; it cannot fail in a way that matters here.
            let _ = thread.join();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.seen.started.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl repo::Progress for Progress {
    fn add(&self, files: u64, bytes: u64) {
        self.seen.files.fetch_add(files, Relaxed);
        self.seen.bytes.fetch_add(bytes, Relaxed);
    }

    fn total(&self, files: u64, bytes: u64) {
        self.seen.files_total.fetch_max(files, Relaxed);
        self.seen.bytes_total.fetch_max(bytes, Relaxed);
    }

    fn note(&self, text: &str) {
        match self.mode {
            Mode::Off => {}
            Mode::Lines => note(format!("{}: {text}", self.seen.title)),
            // What is being done now belongs into the moving line, not into the scrollback.
            Mode::Bar => text.clone_into(&mut self.seen.doing.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl Seen {
    fn text(&self) -> String {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        let title = if doing.is_empty() { self.title.clone() } else { format!("{} ({doing})", self.title) };
        describe(
            &title,
            (self.files.load(Relaxed), self.files_total.load(Relaxed)),
            (self.bytes.load(Relaxed), self.bytes_total.load(Relaxed)),
            self.started.elapsed(),
        )
    }
}

/// One line: what, files, bytes, rate, and how long it will still take when the total is known.
fn describe(title: &str, files: (u64, u64), done: (u64, u64), elapsed: Duration) -> String {
    let mut text = format!("{title}: ");
    match files {
        (n, total) if total > 0 => text += &format!("{} of {} files, ", count(n), count(total.max(n))),
        (0, _) => {}
        (n, _) => text += &format!("{} files, ", count(n)),
    }
    let rate = done.0 as f64 / elapsed.as_secs_f64().max(0.001);
    match done {
        (n, total) if total > 0 => {
            let percent = n.min(total) as f64 * 100.0 / total as f64;
            text += &format!("{} of {} ({percent:.0} %)", bytes(n), bytes(total.max(n)));
        }
        (n, _) => text += &bytes(n),
    }
    text += &format!(", {}/s, {} so far", bytes(rate as u64), duration(elapsed));
    if done.1 > done.0 && rate >= 1.0 {
        let left = Duration::from_secs_f64(((done.1 - done.0) as f64 / rate).min(1e9));
        text += &format!(", about {} left", duration(left));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_files_bytes_rate_and_what_is_left() {
        let mib = 1 << 20;
        let s = Duration::from_secs(2);
        let cases = [
            (
                (10, 40),
                (100 * mib, 400 * mib),
                "x: 10 of 40 files, 100.0 MiB of 400.0 MiB (25 %), 50.0 MiB/s, 2.0 s so far, about 6.0 s left",
            ),
            ((10, 0), (100 * mib, 0), "x: 10 files, 100.0 MiB, 50.0 MiB/s, 2.0 s so far"),
            ((0, 0), (0, 0), "x: 0 B, 0 B/s, 2.0 s so far"),
            // More than announced (the tree grew): never above 100 %, never a negative rest.
            (
                (5, 4),
                (200 * mib, 100 * mib),
                "x: 5 of 5 files, 200.0 MiB of 200.0 MiB (100 %), 100.0 MiB/s, 2.0 s so far",
            ),
        ];
        for (files, done, text) in cases {
            assert_eq!(describe("x", files, done, s), text);
        }
    }
}
