//! Watches: the history read forwards, as a stream of JSON lines.
//!
//! A watch never misses a change and never sees one twice: it reads the history from the revision it
//! has seen, and waits for the store to grow. If the history no longer reaches back that far, it says
//! 410 and ends, and the client lists again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Response;
use serde_json::{Value, json};

use crate::rest::Call;
use crate::select::Selector;
use crate::status::Fault;
use crate::storage::{Change, Event, Held};
use crate::{ApiServer, Shared, convert, http, table};

/// How long a watch lasts that does not say.
const LIFE: Duration = Duration::from_secs(45 * 60);
/// How often a quiet watch is told how far it has come.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

struct Watch {
    shared: Arc<Shared>,
    changed: tokio::sync::watch::Receiver<u64>,
    call: Call,
    selector: Selector,
    resource: String,
    /// The last revision this watch has seen.
    seen: u64,
    /// Lines not sent yet.
    lines: VecDeque<Bytes>,
    bookmarks: bool,
    /// A table's columns are only sent with its first rows.
    headed: bool,
    ends: tokio::time::Instant,
    over: bool,
}

/// Answers a watch request.
pub(crate) fn start(server: &ApiServer, call: Call) -> Result<Response<Body>, Fault> {
    let query = &call.query;
    let selector =
        Selector::parse(query.get("labelSelector"), query.get("fieldSelector"), &call.target.kind)?;
    let resource = convert::stored_resource(&call.target.kind);
    let seconds = match query.get("timeoutSeconds") {
        "" | "0" => LIFE,
        text => Duration::from_secs(
            text.parse().map_err(|_| Fault::bad_request(format!("invalid timeoutSeconds {text:?}")))?,
        ),
    };
    let initial = query.on("sendInitialEvents");
    if initial && query.get("resourceVersionMatch") != "NotOlderThan" {
        let cause = crate::status::Cause::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
        return Err(Fault::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
    }
    // Listen before looking, so that no change falls between.
    let changed = server.shared.changed.subscribe();
    let version = query.get("resourceVersion");
    let bookmarks = query.on("allowWatchBookmarks");
    let mut watch = Watch {
        shared: server.shared.clone(),
        changed,
        selector,
        resource,
        seen: 0,
        lines: VecDeque::new(),
        bookmarks,
        headed: false,
        ends: tokio::time::Instant::now() + seconds,
        over: false,
        call: call.clone(),
    };
    {
        let state = server.shared.lock();
        let now = state.store.revision();
        if initial || version.is_empty() || version == "0" {
            let objects: Vec<Held> = state
                .store
                .held(&watch.resource, &watch.call.target.namespace)
                .filter(|(_, held)| watch.selector.is_empty() || watch.selector.matches(&held.open()))
                .map(|(_, held)| held.clone())
                .collect();
            drop(state);
            // `sendInitialEvents=false` asks for what comes, not for what is.
            if query.get("sendInitialEvents") != "false" {
                for object in objects {
                    watch.push("ADDED", &object.open());
                }
            }
            watch.seen = now;
            if initial && bookmarks {
                watch.bookmark(true);
            }
        } else {
            watch.seen = version.parse().map_err(|_| {
                let cause =
                    crate::status::Cause::invalid("resourceVersion", &json!(version), "must be an integer");
                Fault::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
            })?;
            // An impossible start is told as an event, as a real server does: the watch itself was fine.
            drop(state);
        }
    }
    let stream = futures::stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok::<Bytes, Infallible>(line), watch))
    });
    Ok(http::answer(200, "application/json", Body::from_stream(stream)))
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            self.changed.mark_unchanged();
            self.read();
            if !self.lines.is_empty() {
                continue;
            }
            let pause = tokio::time::sleep(BOOKMARK_EVERY);
            tokio::select! {
                changed = self.changed.changed() => self.over |= changed.is_err(),
                () = tokio::time::sleep_until(self.ends) => {
                    // A last bookmark lets the client go on from here.
                    if self.bookmarks {
                        self.bookmark(false);
                    }
                    self.over = true;
                }
                () = pause, if self.bookmarks => self.bookmark(false),
            }
        }
    }

    /// Turns the changes since the last look into lines.
    fn read(&mut self) {
        let events: Result<(Vec<Event>, u64), u64> = {
            let state = self.shared.lock();
            let inside = |e: &&Event| {
                *e.key.resource == *self.resource
                    && (self.call.target.namespace.is_empty()
                        || e.key.namespace == self.call.target.namespace)
            };
            match state.store.since(self.seen) {
                Ok(events) => Ok((events.filter(inside).cloned().collect(), state.store.revision())),
                Err(expired) => Err(expired.oldest),
            }
        };
        match events {
            Ok((events, now)) => {
                for event in events {
                    self.tell(&event);
                }
                self.seen = self.seen.max(now);
            }
            Err(oldest) => {
                let fault = Fault::expired(format!("too old resource version: {} ({oldest})", self.seen));
                self.line("ERROR", &fault.status());
                self.over = true;
            }
        }
    }

    /// What a change means to this watch depends on whether its selector let the object through before.
    fn tell(&mut self, event: &Event) {
        let before = event.before.as_ref().is_some_and(|o| self.selector.matches(o));
        let after = event.change != Change::Deleted && self.selector.matches(&event.after);
        match (before, after) {
            (false, true) => self.push("ADDED", &event.after),
            (true, true) => self.push("MODIFIED", &event.after),
            (true, false) => {
                // What the client knew, stamped with the revision at which it went out of sight.
                let known = event.before.as_ref().unwrap_or(&event.after);
                let mut known = (**known).clone();
                known["metadata"]["resourceVersion"] = json!(event.revision.to_string());
                self.push("DELETED", &known);
            }
            (false, false) => {}
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let object = self.call.present(object);
        let now = (self.shared.options.clock)();
        let mut shown = table::one(&self.call.target, self.call.view, &self.call.query, object, now);
        if matches!(self.call.view, crate::request::View::Table(_)) {
            if self.headed {
                shown["columnDefinitions"] = json!([]);
            }
            self.headed = true;
        }
        self.line(kind, &shown);
    }

    fn bookmark(&mut self, end_of_initial: bool) {
        let target = &self.call.target;
        let mut object = json!({
            "kind": target.kind.kind,
            "apiVersion": target.kind.api_version(&target.version),
            "metadata": { "resourceVersion": self.seen.to_string(), "creationTimestamp": null },
        });
        if end_of_initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        self.line("BOOKMARK", &object);
    }

    fn line(&mut self, kind: &str, object: &Value) {
        let mut text = json!({ "type": kind, "object": object }).to_string();
        text.push('\n');
        self.lines.push_back(Bytes::from(text));
    }
}
