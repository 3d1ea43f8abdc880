//! What rules will do to which pods, decided before anything is done.
//!
//! Pure: rules and pods in, tasks out. A lock and its release are one task, so that there is no way to plan the
//! one without the other; the order of release is the order of locking, backwards.

use std::collections::BTreeSet;
use std::time::Duration;

use repo::Finding;
use serde_json::Value;

use super::{Action, HOLD_MAX, Rule, Step, Target};
use crate::object::Object;

/// A step and the pods it is run in, at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Name of the rule.
    pub rule: String,
    /// The step.
    pub step: Step,
    /// Where.
    pub targets: Vec<Target>,
    /// How long its lock is held at most.
    pub hold: Duration,
}

impl Task {
    /// One line for people: `lock fsfreeze -f /data in shop/db-0 (postgres)`.
    pub fn describe(&self) -> String {
        let what = match &self.step.action {
            Action::Run(command) => format!("run `{}`", command.as_shell()),
            Action::Lock { acquire, release } => {
                format!(
                    "lock with `{}`, release with `{}` after at most {:?}",
                    acquire.as_shell(),
                    release.as_shell(),
                    self.hold
                )
            }
            Action::Hold(line) => format!("hold with `{line}` for at most {:?}", self.hold),
            Action::Pair { before, after } => {
                format!("run `{}`, and `{}` when all is over,", before.as_shell(), after.command.as_shell())
            }
        };
        let targets: Vec<String> = self.targets.iter().map(Target::to_string).collect();
        format!("{what} in {}", targets.join(", "))
    }
}

/// Everything rules do around a cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulePlan {
    /// Before the cut, in order.
    pub before: Vec<Task>,
    /// After it, in order.
    pub after: Vec<Task>,
    /// What was found while planning.
    pub findings: Vec<Finding>,
}

impl RulePlan {
    /// Does anything hold the application?
    pub fn locks(&self) -> bool {
        self.before.iter().any(|t| t.step.action.locks())
    }

    /// Is there anything that may make the application wait until the cut is over?
    pub fn burdens(&self) -> bool {
        self.before.iter().any(|t| !matches!(t.step.action, Action::Run(_)))
    }

    /// Names of the rules in it.
    pub fn rules(&self) -> BTreeSet<&str> {
        self.before.iter().chain(&self.after).map(|t| t.rule.as_str()).collect()
    }
}

/// Plans rules for these pods. `hold` is used where a rule does not say.
pub fn plan<'a>(
    rules: &[Rule],
    pods: impl IntoIterator<Item = &'a Object>,
    hold: Option<Duration>,
) -> RulePlan {
    let pods: Vec<&Object> = pods.into_iter().collect();
    let mut plan = RulePlan::default();
    for rule in rules {
        let hold = rule.hold.or(hold).unwrap_or(HOLD_MAX);
        for (steps, side) in [(&rule.pre, true), (&rule.post, false)] {
            for step in steps {
                let targets = targets(rule, step, &pods, &mut plan.findings);
                if targets.is_empty() {
                    continue;
                }
                let task = Task { rule: rule.name.clone(), step: step.clone(), targets, hold };
                if side {
                    plan.before.push(task);
                } else {
                    plan.after.push(task);
                }
            }
        }
    }
    plan
}

fn targets(rule: &Rule, step: &Step, pods: &[&Object], findings: &mut Vec<Finding>) -> Vec<Target> {
    let what = format!("{} of rule {}", step.at, rule.name);
    let mut targets = Vec::new();
    for pod in pods.iter().filter(|pod| step.pods.matches(&pod.labels())) {
        if !runs(pod) {
            findings.push(Finding::note(
                "rule-pod-skipped",
                &what,
                format!("pod {}/{} does not run", pod.namespace(), pod.name()),
            ));
            continue;
        }
        match container(pod, step.container.as_deref()) {
            Ok(container) => {
                targets.push(Target { namespace: pod.namespace().into(), pod: pod.name().into(), container })
            }
            Err(why) => findings.push(Finding::warning("rule-no-container", &what, why)),
        }
    }
    targets.sort();
    if step.single {
        targets.truncate(1);
    }
    if targets.is_empty() {
        // As in Stork: a rule for pods that do not run right now is no failure. But it holds nothing either.
        findings.push(Finding::warning(
            "rule-no-pod",
            &what,
            "its selector fits no running pod, so it does nothing",
        ));
    }
    targets
}

/// Running, and not about to go.
pub fn runs(pod: &Object) -> bool {
    pod.str("/status/phase") == "Running" && pod.at("/metadata/deletionTimestamp").is_none()
}

/// The container a step means; none where the pod has only one, or says nothing of a default.
pub(super) fn container(pod: &Object, wanted: Option<&str>) -> Result<Option<String>, String> {
    let names: Vec<&str> = pod
        .at("/spec/containers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|c| c.get("name").and_then(Value::as_str))
        .collect();
    match wanted {
        Some(name) if names.contains(&name) => Ok(Some(name.to_owned())),
        Some(name) => Err(format!(
            "pod {}/{} has no container {name:?}; it has {}",
            pod.namespace(),
            pod.name(),
            names.join(", ")
        )),
        None => {
            let default =
                pod.annotation("kubectl.kubernetes.io/default-container").filter(|d| names.contains(d));
            Ok(default.or(names.first().copied()).map(str::to_owned))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Command, OnError, Side};
    use crate::selector::Selector;
    use serde_json::json;

    fn pod(name: &str, app: &str, phase: &str) -> Object {
        Object(json!({"metadata":{"namespace":"shop","name":name,"labels":{"app":app}},
            "spec":{"containers":[{"name":"main"},{"name":"side"}]},"status":{"phase":phase}}))
    }

    fn rule(spec: &str) -> Rule {
        Rule::parse(
            &format!(
                "apiVersion: holdfast.dev/v1alpha1\nkind: Rule\nmetadata: {{name: r}}\nspec:\n  {spec}\n"
            ),
            Side::Pre,
        )
        .unwrap()
    }

    #[test]
    fn a_step_is_planned_for_the_running_pods_it_selects() {
        let pods = [
            pod("db-1", "db", "Running"),
            pod("db-0", "db", "Running"),
            pod("db-2", "db", "Pending"),
            pod("web", "web", "Running"),
        ];
        for (spec, expected, found) in [
            (
                "pre: [{podSelector: {app: db}, command: x}]",
                "run `x` in shop/db-0 (main), shop/db-1 (main)",
                "rule-pod-skipped",
            ),
            (
                "pre: [{podSelector: {app: db}, command: x, singlePod: true, container: side}]",
                "run `x` in shop/db-0 (side)",
                "rule-pod-skipped",
            ),
            (
                "pre: [{podSelector: {app: web}, lock: {command: a, release: b}}]",
                "lock with `a`, release with `b` after at most 5s in shop/web (main)",
                "",
            ),
            (
                "{hold: 9s, pre: [{podSelector: {app: web}, lock: {command: \"${WAIT_CMD}\"}}]}",
                "hold with `${WAIT_CMD}` for at most 9s in shop/web (main)",
                "",
            ),
            ("pre: [{podSelector: {app: gone}, command: x}]", "", "rule-no-pod"),
            (
                "pre: [{podSelector: {app: web}, command: x, container: nope}]",
                "",
                "rule-no-container,rule-no-pod",
            ),
        ] {
            let plan = plan(&[rule(spec)], &pods, None);
            assert_eq!(
                plan.before.iter().map(Task::describe).collect::<Vec<_>>().join("; "),
                expected,
                "{spec}"
            );
            assert_eq!(plan.findings.iter().map(|f| f.code).collect::<Vec<_>>().join(","), found, "{spec}");
        }
    }

    #[test]
    fn a_lock_is_held_as_long_as_the_rule_says_else_the_caller_else_the_default() {
        let pods = [pod("web", "web", "Running")];
        let step = Step {
            at: "x".into(),
            pods: Selector::default(),
            container: None,
            single: false,
            timeout: Duration::from_secs(1),
            on_error: OnError::Fail,
            action: Action::Lock { acquire: Command::shell("a"), release: Command::shell("b") },
        };
        let of = |own: Option<u64>, callers: Option<u64>| {
            let rule = Rule {
                name: "r".into(),
                hold: own.map(Duration::from_secs),
                pre: vec![step.clone()],
                post: vec![],
            };
            plan(&[rule], &pods, callers.map(Duration::from_secs)).before[0].hold.as_secs()
        };
        assert_eq!((of(Some(9), Some(7)), of(None, Some(7)), of(None, None)), (9, 7, 5));
    }
}
