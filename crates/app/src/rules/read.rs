//! Reading rules, ours and Stork's: strict, and precise about where something is wrong.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Action, Command, Malformed, OnError, Rule, Side, Step, TIMEOUT, WAIT_CMD};
use crate::selector::Selector;

/// Stork tries foreground commands for about a minute, and waits this long for a background one to be at rest.
const STORK_TIMEOUT: Duration = Duration::from_secs(60);
const STORK_LOCK_TIMEOUT: Duration = Duration::from_secs(900);

impl Rule {
    /// Reads a rule from YAML or JSON, ours or Stork's. `side` says what a Stork rule is for.
    pub fn parse(text: &str, side: Side) -> Result<Rule, Malformed> {
        let value: Value = serde_saphyr::from_str(text)
            .map_err(|e| Malformed { at: "document".into(), why: format!("no YAML: {e}") })?;
        Rule::from_value(&value, side)
    }

    /// Reads a rule from its parsed document.
    pub fn from_value(value: &Value, side: Side) -> Result<Rule, Malformed> {
        let root = Place::root(value);
        let top = root.fields()?;
        let api_version = top.get("apiVersion").and_then(Value::as_str).unwrap_or("");
        match (api_version.split('/').next().unwrap_or(""), top.get("kind").and_then(Value::as_str)) {
            ("holdfast.dev", Some("Rule")) => own(&root),
            ("stork.libopenstorage.org", Some("Rule")) => stork(&root, side),
            (group, kind) => Err(root.wrong(format!(
                "is kind {:?} of {group:?}; a rule is `kind: Rule` of `holdfast.dev/v1alpha1` or `stork.libopenstorage.org/v1alpha1`",
                kind.unwrap_or("")
            ))),
        }
    }
}

/// A value and where it stands, for errors that say so.
struct Place<'v> {
    at: String,
    value: &'v Value,
}

impl<'v> Place<'v> {
    fn root(value: &'v Value) -> Place<'v> {
        Place { at: String::new(), value }
    }

    fn wrong(&self, why: impl Into<String>) -> Malformed {
        Malformed {
            at: if self.at.is_empty() { "document".into() } else { self.at.clone() },
            why: why.into(),
        }
    }

    fn fields(&self) -> Result<&'v Map<String, Value>, Malformed> {
        self.value.as_object().ok_or_else(|| self.wrong("must be a mapping"))
    }

    /// Refuses fields that are not known.
    fn only(&self, known: &[&str]) -> Result<(), Malformed> {
        match self.fields()?.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(self
                .under(name, &Value::Null)
                .wrong(format!("unknown field; known here: {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    fn under<'a>(&self, name: &str, value: &'a Value) -> Place<'a> {
        Place { at: if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }, value }
    }

    /// A field, if it is there and not null.
    fn get(&self, name: &str) -> Option<Place<'v>> {
        let value = self.value.get(name).filter(|v| !v.is_null())?;
        Some(self.under(name, value))
    }

    fn need(&self, name: &str) -> Result<Place<'v>, Malformed> {
        self.get(name).ok_or_else(|| self.under(name, &Value::Null).wrong("is missing"))
    }

    fn text(&self) -> Result<&'v str, Malformed> {
        self.value.as_str().ok_or_else(|| self.wrong(format!("must be a string, not {}", self.value)))
    }

    fn flag(&self) -> Result<bool, Malformed> {
        self.value.as_bool().ok_or_else(|| self.wrong(format!("must be true or false, not {}", self.value)))
    }

    fn items(&self) -> Result<Vec<Place<'v>>, Malformed> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("must be a list"))?;
        Ok(items
            .iter()
            .enumerate()
            .map(|(i, value)| Place { at: format!("{}[{i}]", self.at), value })
            .collect())
    }

    fn duration(&self) -> Result<Duration, Malformed> {
        let parsed = match self.value {
            Value::Number(n) => n.as_f64().filter(|s| *s > 0.0 && s.is_finite()).map(Duration::from_secs_f64),
            Value::String(text) => duration(text),
            _ => None,
        };
        parsed.ok_or_else(|| {
            self.wrong(format!("must be a positive duration such as 30s or 2m, not {}", self.value))
        })
    }

    fn selector(&self) -> Result<Selector, Malformed> {
        let fields = self.fields()?;
        let is_label_selector = fields.contains_key("matchLabels") || fields.contains_key("matchExpressions");
        if is_label_selector {
            self.only(&["matchLabels", "matchExpressions"])?;
        } else if let Some((name, value)) = fields.iter().find(|(_, v)| !v.is_string()) {
            return Err(self
                .under(name, value)
                .wrong("the value of a label must be a string; put it in quotes"));
        }
        if fields.is_empty() {
            return Err(self.wrong("selects every pod; name at least one label"));
        }
        Ok(if is_label_selector {
            Selector::from_json(self.value)
        } else {
            Selector::from_map(Some(self.value))
        })
    }

    fn command(&self) -> Result<Command, Malformed> {
        match self.value {
            Value::String(line) if !line.trim().is_empty() => Ok(Command::shell(line)),
            Value::Array(items) if !items.is_empty() => {
                let arguments = self
                    .items()?
                    .iter()
                    .map(|item| item.text().map(str::to_owned))
                    .collect::<Result<_, _>>()?;
                Ok(Command(arguments))
            }
            _ => Err(self.wrong("must be a line for the shell, or a list of arguments")),
        }
    }
}

/// `500ms`, `30s`, `2m`, `1h30m`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = &rest[unit_end..];
    }
    (total > Duration::ZERO).then_some(total)
}

fn name_of(root: &Place<'_>) -> Result<String, Malformed> {
    match root.get("metadata").and_then(|m| m.get("name")) {
        Some(name) => name.text().map(str::to_owned),
        None => Ok("rule".into()),
    }
}

fn own(root: &Place<'_>) -> Result<Rule, Malformed> {
    root.only(&["apiVersion", "kind", "metadata", "spec"])?;
    let spec = root.need("spec")?;
    spec.only(&["hold", "pre", "post"])?;
    let steps = |name: &str| -> Result<Vec<Step>, Malformed> {
        match spec.get(name) {
            Some(list) => list.items()?.iter().map(own_step).collect(),
            None => Ok(Vec::new()),
        }
    };
    let rule = Rule {
        name: name_of(root)?,
        hold: spec.get("hold").map(|h| h.duration()).transpose()?,
        pre: steps("pre")?,
        post: steps("post")?,
    };
    if let Some(lock) = rule.post.iter().find(|s| s.action.locks()) {
        return Err(Malformed {
            at: format!("{}.lock", lock.at),
            why: "a lock after the cut holds nothing; put it under `pre`".into(),
        });
    }
    if rule.pre.is_empty() && rule.post.is_empty() {
        return Err(spec.wrong("has neither `pre` nor `post` steps, so it would do nothing"));
    }
    Ok(rule)
}

fn own_step(step: &Place<'_>) -> Result<Step, Malformed> {
    step.only(&["podSelector", "container", "command", "lock", "timeout", "onError", "singlePod"])?;
    let action = match (step.get("command"), step.get("lock")) {
        (Some(command), None) => {
            let command = command.command()?;
            if command.as_shell().contains(WAIT_CMD) {
                return Err(step.wrong("${WAIT_CMD} holds a lock; write the command under `lock`"));
            }
            Action::Run(command)
        }
        (None, Some(lock)) => own_lock(&lock)?,
        _ => return Err(step.wrong("needs either `command` or `lock`")),
    };
    let on_error = match step.get("onError") {
        None => OnError::Fail,
        Some(place) => match place.text()? {
            "Fail" => OnError::Fail,
            "Continue" => OnError::Continue,
            other => return Err(place.wrong(format!("must be Fail or Continue, not {other:?}"))),
        },
    };
    Ok(Step {
        at: step.at.clone(),
        pods: step.need("podSelector")?.selector()?,
        container: step.get("container").map(|c| c.text().map(str::to_owned)).transpose()?,
        single: step.get("singlePod").map_or(Ok(false), |s| s.flag())?,
        timeout: step.get("timeout").map_or(Ok(TIMEOUT), |t| t.duration())?,
        on_error,
        action,
    })
}

fn own_lock(lock: &Place<'_>) -> Result<Action, Malformed> {
    lock.only(&["command", "release"])?;
    let acquire = lock.need("command")?.command()?;
    let waits = acquire.as_shell().contains(WAIT_CMD);
    match (waits, lock.get("release")) {
        (true, None) => Ok(Action::Hold(acquire.as_shell())),
        (true, Some(release)) => Err(release
            .wrong("${WAIT_CMD} lets go by itself when it ends; a release is for commands that end at once")),
        (false, Some(release)) => Ok(Action::Lock { acquire, release: release.command()? }),
        (false, None) => Err(lock
            .under("release", &Value::Null)
            .wrong("is missing: every lock is paired with the command that lets it go")),
    }
}

fn stork(root: &Place<'_>, side: Side) -> Result<Rule, Malformed> {
    root.only(&["apiVersion", "kind", "metadata", "rules", "spec"])?;
    let list = match (root.get("rules"), root.get("spec")) {
        (Some(rules), None) => rules,
        // Not in Stork's schema, where it would silently do nothing; in its documentation and in the field.
        (None, Some(spec)) => spec,
        (Some(_), Some(spec)) => return Err(spec.wrong("the list stands under `rules` already")),
        (None, None) => return Err(root.wrong("has no `rules`, so it would do nothing")),
    };
    let mut steps = Vec::new();
    for item in list.items()? {
        item.only(&["podSelector", "container", "actions"])?;
        let pods = item.need("podSelector")?.selector()?;
        let container =
            item.get("container").map(|c| c.text()).transpose()?.filter(|c| !c.is_empty()).map(str::to_owned);
        let actions = item.need("actions")?.items()?;
        for action in &actions {
            steps.push(stork_step(action, &pods, container.as_deref(), side)?);
        }
    }
    if steps.is_empty() {
        return Err(list.wrong("has no action, so it would do nothing"));
    }
    let (pre, post) = match side {
        Side::Pre => (steps, Vec::new()),
        Side::Post => (Vec::new(), steps),
    };
    Ok(Rule { name: name_of(root)?, hold: None, pre, post })
}

fn stork_step(
    action: &Place<'_>,
    pods: &Selector,
    container: Option<&str>,
    side: Side,
) -> Result<Step, Malformed> {
    action.only(&["type", "background", "runInSinglePod", "value"])?;
    let kind = action.need("type")?;
    if kind.text()? != "command" {
        return Err(kind.wrong(format!("unsupported action type {}; there is only `command`", kind.value)));
    }
    let value = action.need("value")?;
    let line = value.text()?;
    let background = action.get("background").map_or(Ok(false), |b| b.flag())?;
    if background && side == Side::Post {
        return Err(action
            .under("background", &Value::Null)
            .wrong("a rule after the cut cannot hold anything"));
    }
    if background && !line.contains(WAIT_CMD) {
        return Err(
            value.wrong("a background command must contain ${WAIT_CMD}, or nobody knows when it holds")
        );
    }
    Ok(Step {
        at: action.at.clone(),
        pods: pods.clone(),
        container: container.map(str::to_owned),
        single: action.get("runInSinglePod").map_or(Ok(false), |s| s.flag())?,
        timeout: if background { STORK_LOCK_TIMEOUT } else { STORK_TIMEOUT },
        on_error: OnError::Fail,
        action: if background { Action::Hold(line.to_owned()) } else { Action::Run(Command::shell(line)) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule in one line a step: `pre spec.pre[0] pods… run sh -c …`.
    fn told(text: &str, side: Side) -> Vec<String> {
        match Rule::parse(text, side) {
            Err(e) => vec![e.to_string()],
            Ok(rule) => {
                let line = |when: &str, s: &Step| {
                    let action = match &s.action {
                        Action::Run(c) => format!("run {}", c.0.join(" ")),
                        Action::Lock { acquire, release } => {
                            format!("lock {} release {}", acquire.as_shell(), release.as_shell())
                        }
                        Action::Hold(line) => format!("hold {line}"),
                        Action::Pair { before, .. } => format!("pair {}", before.0.join(" ")),
                    };
                    let container = s.container.as_ref().map(|c| format!(" in {c}")).unwrap_or_default();
                    format!(
                        "{when} {}{container}{} {:?} {:?}: {action}",
                        s.at,
                        if s.single { " once" } else { "" },
                        s.timeout,
                        s.on_error
                    )
                };
                rule.pre
                    .iter()
                    .map(|s| line("pre", s))
                    .chain(rule.post.iter().map(|s| line("post", s)))
                    .collect()
            }
        }
    }

    #[test]
    fn the_sample_everybody_copies_is_read_as_it_was_meant() {
        // As published: the list under `spec`, which Stork itself reads as an empty rule.
        let sample = "apiVersion: stork.libopenstorage.org/v1alpha1\nkind: Rule\nmetadata:\n  name: cassandra-presnap-rule\nspec:\n  - podSelector:\n      app: cassandra\n    actions:\n      - type: command\n        value: nodetool flush\n";
        assert_eq!(told(sample, Side::Pre), ["pre spec[0].actions[0] 60s Fail: run sh -c nodetool flush"]);
        assert_eq!(Rule::parse(sample, Side::Pre).unwrap().name, "cassandra-presnap-rule");
        let right = sample.replace("spec:", "rules:");
        assert_eq!(told(&right, Side::Pre), ["pre rules[0].actions[0] 60s Fail: run sh -c nodetool flush"]);
        assert_eq!(told(&right, Side::Post), ["post rules[0].actions[0] 60s Fail: run sh -c nodetool flush"]);
    }

    const STORK: &str = "apiVersion: stork.libopenstorage.org/v1alpha1\nkind: Rule\nmetadata: {name: m}\nrules:\n- podSelector: {app: mysql}\n  container: db\n  actions:\n  - ";
    const OWN: &str = "apiVersion: holdfast.dev/v1alpha1\nkind: Rule\nmetadata: {name: r}\nspec:\n  ";

    #[test]
    fn stork_rules() {
        for (action, side, expected) in [
            (
                "{type: command, background: true, runInSinglePod: true, value: \"mysql -e 'flush tables with read lock; system ${WAIT_CMD};'\"}",
                Side::Pre,
                "pre rules[0].actions[0] in db once 900s Fail: hold mysql -e 'flush tables with read lock; system ${WAIT_CMD};'",
            ),
            (
                "{type: command, background: true, value: sleep 1}",
                Side::Pre,
                "rule: rules[0].actions[0].value: a background command must contain ${WAIT_CMD}, or nobody knows when it holds",
            ),
            (
                "{type: command, background: true, value: \"${WAIT_CMD}\"}",
                Side::Post,
                "rule: rules[0].actions[0].background: a rule after the cut cannot hold anything",
            ),
            (
                "{type: http, value: x}",
                Side::Pre,
                "rule: rules[0].actions[0].type: unsupported action type \"http\"; there is only `command`",
            ),
            ("{type: command}", Side::Pre, "rule: rules[0].actions[0].value: is missing"),
            (
                "{type: command, value: x, runInSinglePods: true}",
                Side::Pre,
                "rule: rules[0].actions[0].runInSinglePods: unknown field; known here: type, background, runInSinglePod, value",
            ),
        ] {
            assert_eq!(told(&format!("{STORK}{action}\n"), side), [expected], "{action}");
        }
    }

    #[test]
    fn our_own_rules() {
        for (spec, expected) in [
            (
                "pre: [{podSelector: {app: db}, command: [psql, -c, CHECKPOINT], timeout: 1m30s, onError: Continue}]",
                "pre spec.pre[0] 90s Continue: run psql -c CHECKPOINT",
            ),
            (
                "post: [{podSelector: {app: db}, command: rm /dump, singlePod: true}]",
                "post spec.post[0] once 30s Fail: run sh -c rm /dump",
            ),
            (
                "pre: [{podSelector: {matchLabels: {app: db}}, container: c, lock: {command: fsfreeze -f /d, release: [fsfreeze, -u, /d]}}]",
                "pre spec.pre[0] in c 30s Fail: lock fsfreeze -f /d release fsfreeze -u /d",
            ),
            (
                "pre: [{podSelector: {app: db}, lock: {command: \"lock; ${WAIT_CMD}\"}}]",
                "pre spec.pre[0] 30s Fail: hold lock; ${WAIT_CMD}",
            ),
            (
                "pre: [{podSelector: {app: db}, lock: {command: fsfreeze -f /d}}]",
                "rule: spec.pre[0].lock.release: is missing: every lock is paired with the command that lets it go",
            ),
            (
                "pre: [{podSelector: {app: db}, lock: {command: \"${WAIT_CMD}\", release: x}}]",
                "rule: spec.pre[0].lock.release: ${WAIT_CMD} lets go by itself when it ends; a release is for commands that end at once",
            ),
            (
                "post: [{podSelector: {app: db}, lock: {command: a, release: b}}]",
                "rule: spec.post[0].lock: a lock after the cut holds nothing; put it under `pre`",
            ),
            (
                "pre: [{podSelector: {app: db}, command: x, onEror: Continue}]",
                "rule: spec.pre[0].onEror: unknown field; known here: podSelector, container, command, lock, timeout, onError, singlePod",
            ),
            (
                "pre: [{podSelector: {app: db}, command: x, onError: Ignore}]",
                "rule: spec.pre[0].onError: must be Fail or Continue, not \"Ignore\"",
            ),
            (
                "pre: [{podSelector: {app: db}, command: x, timeout: soon}]",
                "rule: spec.pre[0].timeout: must be a positive duration such as 30s or 2m, not \"soon\"",
            ),
            (
                "pre: [{podSelector: {app: db}, command: x, timeout: 0s}]",
                "rule: spec.pre[0].timeout: must be a positive duration such as 30s or 2m, not \"0s\"",
            ),
            (
                "pre: [{podSelector: {}, command: x}]",
                "rule: spec.pre[0].podSelector: selects every pod; name at least one label",
            ),
            (
                "pre: [{podSelector: {tier: 1}, command: x}]",
                "rule: spec.pre[0].podSelector.tier: the value of a label must be a string; put it in quotes",
            ),
            ("pre: [{command: x}]", "rule: spec.pre[0].podSelector: is missing"),
            (
                "pre: [{podSelector: {app: db}, command: []}]",
                "rule: spec.pre[0].command: must be a line for the shell, or a list of arguments",
            ),
            ("pre: [{podSelector: {app: db}}]", "rule: spec.pre[0]: needs either `command` or `lock`"),
            (
                "pre: [{podSelector: {app: db}, command: \"x ${WAIT_CMD}\"}]",
                "rule: spec.pre[0]: ${WAIT_CMD} holds a lock; write the command under `lock`",
            ),
            ("pre: {a: b}", "rule: spec.pre: must be a list"),
            ("hold: 5s", "rule: spec: has neither `pre` nor `post` steps, so it would do nothing"),
        ] {
            assert_eq!(told(&format!("{OWN}{spec}\n"), Side::Pre), [expected], "{spec}");
        }
    }

    #[test]
    fn documents_that_are_no_rule() {
        for (text, part) in [
            ("kind: Rule", "a rule is `kind: Rule` of"),
            ("apiVersion: v1\nkind: Pod", "is kind \"Pod\" of \"v1\""),
            ("[1, 2]", "document: must be a mapping"),
            ("a: [", "no YAML"),
            ("apiVersion: stork.libopenstorage.org/v1alpha1\nkind: Rule\nmetadata: {}", "has no `rules`"),
            ("apiVersion: stork.libopenstorage.org/v1alpha1\nkind: Rule\nrules: []", "has no action"),
        ] {
            let said = told(text, Side::Pre).join("");
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1_500)),
            ("5", None),
            ("", None),
            ("-1s", None),
            ("3d", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), millis, "{text}");
        }
    }
}
