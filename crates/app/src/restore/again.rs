//! The second chance: what was refused for a reason that can pass, once everything else is there.

use std::sync::PoisonError;

use super::execute::Run;
use super::{Done, ObjectResult, Report, Step, WaveResult, webhooks};
use crate::api::ApiError;

impl Run<'_> {
    /// What failed for a reason that may have passed: again and again as long as something comes right, or as long as a
    /// webhook that does not answer is given.
    pub(super) async fn again(&self, later: Vec<(Step, ApiError)>, report: &mut Report) {
        if later.is_empty() {
            return;
        }
        let start = self.executor.env.now();
        let objects = later.len();
        let limit = self.executor.deadlines.webhook;
        let mut pauses = limit.as_millis().div_ceil(self.executor.deadlines.step.as_millis().max(1));
        let mut waiting: Vec<(Step, ApiError, ApiError)> =
            later.into_iter().map(|(step, first)| (step, first.clone(), first)).collect();
        let mut told = String::new();
        loop {
            self.blocked.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let before = waiting.len();
            let mut still = Vec::new();
            // In the order of the waves, one at a time: some of them may wait for others of them.
            for (step, first, last) in waiting {
                if let Some(error) = self.blocked(&step) {
                    still.push((step, first, error));
                    continue;
                }
                if self.executor.cancel.is_cancelled() {
                    still.push((step, first, last));
                    continue;
                }
                match self.with_retries(&step).await {
                    Ok((done, message)) => report.add(ObjectResult { key: step.key, done, message }),
                    Err(error) => still.push((step, first, error)),
                }
            }
            waiting = still;
            let came_right = waiting.len() < before;
            let silent = waiting.iter().find(|(.., last)| webhooks::is_silent(last));
            if waiting.is_empty()
                || self.executor.cancel.is_cancelled()
                || !came_right && (silent.is_none() || pauses == 0)
            {
                break;
            }
            if let Some((_, _, error)) = silent {
                self.executor.tell_once(&mut told, format!("waiting for a webhook: {error}"));
                pauses = pauses.saturating_sub(1);
                tokio::time::sleep(self.executor.deadlines.step).await;
            }
        }
        for (step, first, last) in waiting {
            let message = if webhooks::is_silent(&last) {
                format!(
                    "{last} (tried for {} s at the end; look at the pods behind the webhook, then restore again)",
                    limit.as_secs()
                )
            } else if last == first {
                format!("{last} (tried again at the end)")
            } else {
                format!("{last}; before: {first}")
            };
            report.add(ObjectResult { key: step.key, done: Done::Failed, message });
        }
        report.waves.push(WaveResult {
            stage: "again".into(),
            objects,
            milliseconds: self.executor.since(start),
        });
    }
}
