//! What follows the writes: definitions that are served, namespaces that are active, owners that were made after what they own,
//! and applications that do what they are there for.
//!
//! All of it is asking again and again, of many objects at the same time: a thousand of them must not wait for each other.

use std::time::Duration;

use futures::StreamExt;
use repo::Finding;
use serde_json::{Value, json};

use super::execute::Run;
use super::{Report, Step};
use crate::kinds::{self, Readiness};
use crate::object::{Object, ObjectKey};

/// What one look at an object came to.
enum Look {
    /// It is ready, failed before, or is gone: nothing to wait for.
    Settled,
    Waiting(String),
    Failed(String),
}

impl Run<'_> {
    /// New kinds are served a moment after their definition is accepted.
    pub(super) async fn established(&self, made: &[ObjectKey], report: &mut Report) {
        let is_established = |definition: &Object| {
            let conditions = definition.at("/status/conditions").and_then(Value::as_array);
            conditions.into_iter().flatten().any(|c| {
                c.get("type") == Some(&json!("Established")) && c.get("status") == Some(&json!("True"))
            })
        };
        for key in self.not_yet(made, self.executor.deadlines.definition, is_established).await {
            report.findings.push(Finding::warning(
                "not-established",
                key.to_string(),
                "the target did not establish it in time; objects of its kind may be refused",
            ));
        }
    }

    /// A namespace takes objects once it is active.
    pub(super) async fn active(&self, made: &[ObjectKey], report: &mut Report) {
        // A server without a namespace controller leaves the phase out.
        let is_active = |namespace: &Object| matches!(namespace.str("/status/phase"), "Active" | "");
        for key in self.not_yet(made, self.executor.deadlines.namespace, is_active).await {
            report.findings.push(Finding::warning(
                "not-active",
                key.to_string(),
                "it did not become active in time",
            ));
        }
    }

    /// Those that are not as they should be when the time is up.
    async fn not_yet(
        &self,
        made: &[ObjectKey],
        limit: Duration,
        is_so: impl Fn(&Object) -> bool + Copy,
    ) -> Vec<ObjectKey> {
        let looks = made.iter().map(|key| async move {
            let look =
                || async { self.cluster().get_key(key).await.ok().flatten().filter(is_so).map(|_| ()) };
            (key, self.executor.wait(limit, look).await.is_some())
        });
        let looks = futures::stream::iter(looks).buffered(self.executor.at_once.max(1));
        let late = looks.filter_map(|(key, is_so)| std::future::ready((!is_so).then(|| key.clone())));
        late.collect().await
    }

    /// Owners that were made after what they own.
    pub(super) async fn link(&self, steps: Vec<Step>, report: &mut Report) {
        let links = steps.iter().map(|step| self.link_one(step));
        let found: Vec<Option<Finding>> =
            futures::stream::iter(links).buffered(self.executor.at_once.max(1)).collect().await;
        report.findings.extend(found.into_iter().flatten());
    }

    async fn link_one(&self, step: &Step) -> Option<Finding> {
        let key = &step.key;
        let not_linked = |why: String| Some(Finding::warning("not-linked", key.to_string(), why));
        self.uid(key)?;
        let live = match self.cluster().get(&step.resource, &key.namespace, &key.name).await {
            Ok(live) => live?,
            Err(error) => return not_linked(error.to_string()),
        };
        let mut entries =
            live.at("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default();
        let before = entries.len();
        let body = self.body(step);
        let wanted = body.at("/metadata/ownerReferences").and_then(Value::as_array);
        for entry in wanted.into_iter().flatten() {
            if !entries.iter().any(|have| have.get("uid") == entry.get("uid")) {
                entries.push(entry.clone());
            }
        }
        if entries.len() == before {
            return None;
        }
        // With the version read, so that an owner somebody adds meanwhile is not lost.
        let patch =
            json!({"metadata": {"ownerReferences": entries, "resourceVersion": live.resource_version()}});
        match self.cluster().merge_patch(&step.resource, &key.namespace, &key.name, None, &patch).await {
            Ok(_) => None,
            Err(error) => {
                not_linked(format!("its owner does not know it yet: {error}; restore again to link them"))
            }
        }
    }

    /// Waits until what was restored does what it is there for.
    pub(super) async fn ready(&self, steps: Vec<Step>, limit: Duration, report: &mut Report) {
        let mut waiting: Vec<(Step, String)> = steps.into_iter().map(|step| (step, String::new())).collect();
        let pauses = limit.as_millis().div_ceil(self.executor.deadlines.step.as_millis().max(1));
        let mut told = String::new();
        for turn in 0..=pauses {
            let looks = std::mem::take(&mut waiting).into_iter().map(|(step, _)| async move {
                let look = self.look(&step).await;
                (step, look)
            });
            let mut looks = futures::stream::iter(looks).buffered(self.executor.at_once.max(1));
            while let Some((step, look)) = looks.next().await {
                match look {
                    Look::Settled => {}
                    Look::Waiting(why) => waiting.push((step, why)),
                    Look::Failed(why) => {
                        report.findings.push(Finding::error("not-ready", step.key.to_string(), why));
                    }
                }
            }
            if waiting.is_empty() || self.executor.cancel.is_cancelled() || turn == pauses {
                break;
            }
            if let Some((step, why)) = waiting.first() {
                let others = match waiting.len() - 1 {
                    0 => String::new(),
                    others => format!(", and for {others} more"),
                };
                self.executor.tell_once(&mut told, format!("waiting for {}: {why}{others}", step.key));
            }
            tokio::time::sleep(self.executor.deadlines.step).await;
        }
        for (step, why) in waiting {
            let message = format!("not ready after {} s: {why}", limit.as_secs());
            report.findings.push(Finding::error("not-ready", step.key.to_string(), message));
        }
    }

    async fn look(&self, step: &Step) -> Look {
        let key = &step.key;
        match self.cluster().get(&step.resource, &key.namespace, &key.name).await {
            Ok(Some(live)) => match (kinds::of(&live).ready)(&live.0) {
                Readiness::Ready => Look::Settled,
                Readiness::Waiting(why) => Look::Waiting(why),
                Readiness::Failed(why) => Look::Failed(why),
            },
            Ok(None) => Look::Settled,
            Err(error) => Look::Waiting(error.to_string()),
        }
    }
}
