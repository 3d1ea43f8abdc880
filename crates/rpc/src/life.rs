//! Whether the other side of a connection is there, and why it is not any more.
//!
//! TCP notices a peer that went without a word after many minutes. Where that is too late somebody watches
//! ([`KeepAlive`]): a PING goes out every so often, and a peer that has answered none for long enough is gone, which ends
//! every call of the connection. Several may watch one connection at once; each gets what it asked for.

use crate::status::{self, Code, Status};
use h2::{Ping, PingPong};
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How closely a peer is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// From an answer to the next PING.
    pub every: Duration,
    /// From the last answer to the end of the connection; longer than `every`.
    pub gone_after: Duration,
}

impl KeepAlive {
    /// How long one PING may take.
    fn patience(&self) -> Duration {
        self.gone_after.saturating_sub(self.every).max(Duration::from_millis(1))
    }
}

/// Somebody watches the peer for as long as this lives.
#[derive(Debug)]
#[must_use = "the peer is watched for as long as this lives"]
pub struct Watched {
    life: Arc<Life>,
    number: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.life.watchers.send_modify(|watchers| watchers.active.retain(|each| each.number != self.number));
    }
}

#[derive(Debug, Default)]
struct Watchers {
    numbers: u64,
    active: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    number: u64,
    rule: KeepAlive,
    since: Instant,
}

/// What is known of a connection beside its streams.
#[derive(Debug, Default)]
pub(crate) struct Life {
    watchers: watch::Sender<Watchers>,
    over: OnceLock<String>,
}

impl Life {
    /// Of a new connection, watched from the beginning if somebody wants that.
    pub(crate) fn new(rule: Option<KeepAlive>) -> Arc<Life> {
        let life = Life::default();
        if let Some(rule) = rule {
            life.begin(rule);
        }
        Arc::new(life)
    }

    pub(crate) fn watch(life: &Arc<Life>, rule: KeepAlive) -> Watched {
        Watched { number: life.begin(rule), life: Arc::clone(life) }
    }

    fn begin(&self, rule: KeepAlive) -> u64 {
        let mut number = 0;
        self.watchers.send_modify(|watchers| {
            watchers.numbers += 1;
            number = watchers.numbers;
            watchers.active.push(Watcher { number, rule, since: Instant::now() });
        });
        number
    }

    /// Says why all calls end; the first reason stays.
    pub(crate) fn end(&self, why: String) {
        let _ = self.over.set(why);
    }

    /// What stands for the status of a call that an error of its stream ended.
    pub(crate) fn broken(&self, error: &h2::Error) -> Status {
        match self.over.get() {
            Some(why) if !error.is_reset() => Status::new(Code::Unavailable, why.as_str()),
            _ => status::of_error(error),
        }
    }

    /// Sends PINGs as often as the most anxious watcher wants, and returns when one of them gives the peer up.
    pub(crate) async fn guard(&self, pings: Option<PingPong>) -> String {
        let mut changes = self.watchers.subscribe();
        let Some(mut pings) = pings else { return std::future::pending().await };
        let mut heard = Instant::now();
        let mut asked: Option<Instant> = None;
        loop {
            let (next, gone) = {
                let watchers = changes.borrow_and_update();
                // A PING from before somebody began to watch was in no hurry.
                let gone = |each: &Watcher| asked.map(|asked| asked.max(each.since) + each.rule.patience());
                (
                    watchers.active.iter().map(|each| heard + each.rule.every).min(),
                    watchers.active.iter().filter_map(gone).min(),
                )
            };
            tokio::select! {
                pong = poll_fn(|cx| pings.poll_pong(cx)), if asked.is_some() => match pong {
                    Ok(_) => (heard, asked) = (Instant::now(), None),
                    // The connection is over, and whoever drives it knows why.
                    Err(_) => std::future::pending().await,
                },
                () = until(next), if asked.is_none() => match pings.send_ping(Ping::opaque()) {
                    Ok(()) => asked = Some(Instant::now()),
                    Err(_) => std::future::pending().await,
                },
                () = until(gone) => {
                    return format!("the peer is gone: for {:.1?} it has answered no PING", heard.elapsed());
                }
                // Its sender is in `self`.
                _ = changes.changed() => {}
            }
        }
    }
}

/// Never, without a time.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
