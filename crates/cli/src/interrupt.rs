//! Ctrl-C and SIGTERM.
//!
//! While nothing is being changed, the first signal ends the process at once. While something is being
//! changed, the first signal asks the work to stop: it gives back every lock, then says what it left; the second
//! signal ends the process without waiting. What has been committed stays committed either way, and what has
//! not is never visible (docs/formats/repository.md, R2).

use crate::error::{Exit, Failure, Result};
use crate::output::note;
use repo::env::Cancel;
use std::sync::{Arc, Mutex, PoisonError};

/// Stops this run when the user asks for it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    /// Handed to the work, which looks at it often.
    pub cancel: Cancel,
    state: Arc<Mutex<State>>,
    asked: Arc<tokio::sync::Notify>,
}

#[derive(Debug, Default)]
struct State {
    signals: u32,
    changing: u32,
    echo: Option<rustix::termios::Termios>,
}

/// Held while something is being changed.
#[derive(Debug)]
pub struct Changing(Interrupt);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.lock(|s| s.changing -= 1);
    }
}

impl Interrupt {
    /// Starts to listen. Must run inside the runtime.
    pub fn listen(&self) -> Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |e| Failure::new(Exit::Failed, format!("cannot listen for Ctrl-C: {e}"));
        let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut term = signal(SignalKind::terminate()).map_err(failed)?;
        let me = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = int.recv() => me.signal(),
                    _ = term.recv() => me.signal(),
                }
            }
        });
        Ok(())
    }

    /// Marks the start of a change: from here on a signal is answered by the work itself.
    pub fn changing(&self) -> Result<Changing> {
        self.lock(|s| s.changing += 1);
        let held = Changing(self.clone());
        if self.cancel.is_cancelled() {
            return Err(Failure::new(Exit::Interrupted, "interrupted; nothing was changed"));
        }
        Ok(held)
    }

    /// Completes once the user asked to stop.
    pub async fn asked(&self) {
        let notified = self.asked.notified();
        if !self.cancel.is_cancelled() {
            notified.await;
        }
    }

    /// Remembers how the terminal was, to put it back if a signal ends the process.
    pub fn remember_terminal(&self, termios: Option<rustix::termios::Termios>) {
        self.lock(|s| s.echo = termios);
    }

    fn signal(&self) {
        // Decided under the lock, so that a change cannot begin between the look and the exit.
        self.lock(|s| {
            s.signals += 1;
            if let Some(termios) = &s.echo {
                // Best effort: a terminal that went away needs no echo.
                let _ = rustix::termios::tcsetattr(
                    std::io::stdin(),
                    rustix::termios::OptionalActions::Now,
                    termios,
                );
            }
            match (s.changing, s.signals) {
                (0, _) => end("interrupted; nothing was changed"),
                (_, 1) => {
                    self.cancel.cancel();
                    self.asked.notify_waiters();
                    note("Interrupted: stopping cleanly. Press Ctrl-C again to end at once.");
                }
                _ => end("interrupted twice: ended without cleaning up; committed recovery points are not affected"),
            }
        });
    }

    fn lock<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[allow(clippy::exit)] // The one place that may: the user asked twice, or nothing is under way.
fn end(message: &str) -> ! {
    note(message);
    std::process::exit(Exit::Interrupted as i32)
}
