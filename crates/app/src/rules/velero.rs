//! Velero's hook annotations, honoured as they are: `pre.hook.backup.velero.io/command` on a pod is run in it before
//! the cut, `post.hook.backup.velero.io/command` after it.
//!
//! What a hook does is its author's secret: freeze a file system, dump a database, flush. So the two are kept as a
//! pair (the second is run whatever happens once the first may have run), and never raise a volume's level of
//! consistency. Who wants that writes a rule with a lock.

use std::time::Duration;

use repo::Finding;

use super::plan::{RulePlan, Task, container, runs};
use super::read::duration;
use super::{Action, Command, OnError, PairEnd, Step, TIMEOUT, Target};
use crate::object::Object;
use crate::selector::Selector;

const RULE: &str = "velero-hooks";

struct Hook {
    command: Command,
    container: Option<String>,
    timeout: Duration,
    on_error: OnError,
}

/// Adds the hooks of these pods to a plan: theirs are the last before the cut, and the first to be undone.
pub fn add<'a>(plan: &mut RulePlan, pods: impl IntoIterator<Item = &'a Object>) {
    for pod in pods.into_iter().filter(|pod| runs(pod)) {
        let pre = hook(pod, "pre", &mut plan.findings);
        let post = hook(pod, "post", &mut plan.findings);
        match (pre, post) {
            (Some(pre), Some(post)) => {
                let after = PairEnd {
                    command: post.command,
                    container: post.container,
                    timeout: post.timeout,
                    on_error: post.on_error,
                };
                let action = Action::Pair { before: pre.command, after };
                plan.before.push(task(pod, "pre", pre.container, pre.timeout, pre.on_error, action));
            }
            (Some(pre), None) => {
                plan.before.push(task(
                    pod,
                    "pre",
                    pre.container,
                    pre.timeout,
                    pre.on_error,
                    Action::Run(pre.command),
                ));
            }
            (None, Some(post)) => {
                plan.after.push(task(
                    pod,
                    "post",
                    post.container,
                    post.timeout,
                    post.on_error,
                    Action::Run(post.command),
                ));
            }
            (None, None) => {}
        }
    }
}

fn task(
    pod: &Object,
    side: &str,
    container: Option<String>,
    timeout: Duration,
    on_error: OnError,
    action: Action,
) -> Task {
    let at = format!("{side}.hook.backup.velero.io/command");
    let step = Step {
        at,
        pods: Selector::default(),
        container: container.clone(),
        single: true,
        timeout,
        on_error,
        action,
    };
    let target = Target { namespace: pod.namespace().into(), pod: pod.name().into(), container };
    Task { rule: RULE.into(), step, targets: vec![target], hold: Duration::ZERO }
}

fn hook(pod: &Object, side: &str, findings: &mut Vec<Finding>) -> Option<Hook> {
    let name = |field: &str| format!("{side}.hook.backup.velero.io/{field}");
    let value = |field: &str| pod.annotation(&name(field)).filter(|v| !v.trim().is_empty());
    let command = value("command")?;
    let mut wrong = |field: &str, why: String| {
        findings.push(Finding::warning(
            "hook-malformed",
            format!("{} of pod {}/{}", name(field), pod.namespace(), pod.name()),
            why,
        ));
    };
    let command = match command.trim_start().starts_with('[') {
        true => match serde_json::from_str::<Vec<String>>(command) {
            Ok(arguments) if !arguments.is_empty() => Command(arguments),
            _ => {
                wrong(
                    "command",
                    format!("it is not run: {command:?} begins like a JSON array of strings and is none"),
                );
                return None;
            }
        },
        // Not run in a shell: the text is the program.
        false => Command(vec![command.to_owned()]),
    };
    let container = match container(pod, value("container")) {
        Ok(container) => container,
        Err(why) => {
            wrong("container", format!("it is not run: {why}"));
            return None;
        }
    };
    let timeout = match value("timeout").map(|text| (text, duration(text))) {
        None => TIMEOUT,
        Some((_, Some(timeout))) => timeout,
        Some((text, None)) => {
            wrong("timeout", format!("{text:?} is no duration; {TIMEOUT:?} is used"));
            TIMEOUT
        }
    };
    let on_error = if value("on-error") == Some("Continue") { OnError::Continue } else { OnError::Fail };
    Some(Hook { command, container, timeout, on_error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(annotations: serde_json::Value) -> String {
        let pod = Object(json!({"metadata":{"namespace":"shop","name":"db-0","annotations":annotations},
            "spec":{"containers":[{"name":"main"},{"name":"side"}]},"status":{"phase":"Running"}}));
        let mut plan = RulePlan::default();
        add(&mut plan, [&pod]);
        let line = |when: &str, t: &Task| {
            format!("{when} {:?} {:?}: {}", t.step.timeout, t.step.on_error, t.describe())
        };
        let tasks =
            plan.before.iter().map(|t| line("before", t)).chain(plan.after.iter().map(|t| line("after", t)));
        tasks.chain(plan.findings.iter().map(|f| f.message.clone())).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn annotations_are_read_as_velero_reads_them() {
        const PRE: &str = "pre.hook.backup.velero.io";
        const POST: &str = "post.hook.backup.velero.io";
        for (annotations, expected) in [
            (json!({}), ""),
            (
                json!({format!("{PRE}/command"): "/bin/flush"}),
                "before 30s Fail: run `/bin/flush` in shop/db-0 (main)",
            ),
            (
                json!({format!("{PRE}/command"): "[\"sh\",\"-c\",\"sync; echo a\"]", format!("{PRE}/container"): "side", format!("{PRE}/timeout"): "2m", format!("{PRE}/on-error"): "Continue"}),
                "before 120s Continue: run `sync; echo a` in shop/db-0 (side)",
            ),
            (
                json!({format!("{PRE}/command"): "[\"fsfreeze\",\"-f\",\"/d\"]", format!("{POST}/command"): "[\"fsfreeze\",\"-u\",\"/d\"]"}),
                "before 30s Fail: run `fsfreeze -f /d`, and `fsfreeze -u /d` when all is over, in shop/db-0 (main)",
            ),
            (
                json!({format!("{POST}/command"): "/bin/tidy"}),
                "after 30s Fail: run `/bin/tidy` in shop/db-0 (main)",
            ),
            (
                json!({format!("{PRE}/command"): "[oops"}),
                "it is not run: \"[oops\" begins like a JSON array of strings and is none",
            ),
            (
                json!({format!("{PRE}/command"): "x", format!("{PRE}/container"): "nope"}),
                "it is not run: pod shop/db-0 has no container \"nope\"; it has main, side",
            ),
            (
                json!({format!("{PRE}/command"): "x", format!("{PRE}/timeout"): "soon"}),
                "before 30s Fail: run `x` in shop/db-0 (main); \"soon\" is no duration; 30s is used",
            ),
        ] {
            assert_eq!(told(annotations.clone()), expected, "{annotations}");
        }
    }
}
