//! What differs between two JSON objects, field by field, in the words of people who read manifests.
//!
//! Lists of named things (containers, ports, volumes, env) are compared by name, so one container added in
//! front is one addition and not a change of every other: `/spec/template/spec/containers[name=web]/image`.
//! A null is the same as nothing, as it is for the API server. The result is sorted and stable.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::transform::escape;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Where: a JSON pointer whose steps into named lists read `[name=web]`.
    pub at: String,
    /// What was there; absent if the field is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is there now; absent if the field went away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "+ {}: {after}", self.at),
            (Some(before), None) => write!(f, "- {}: {before}", self.at),
            (Some(before), Some(after)) => write!(f, "~ {}: {before} -> {after}", self.at),
            (None, None) => write!(f, "  {}", self.at),
        }
    }
}

/// Every field that differs between `before` and `after`. Values of Secrets are hidden: a diff is read on
/// screens and kept in logs.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare(&mut String::new(), Some(before), Some(after), &mut found);
    let secret = |value: &Value| {
        value.get("kind").and_then(Value::as_str) == Some("Secret")
            && value.get("apiVersion").and_then(Value::as_str) == Some("v1")
    };
    if secret(before) || secret(after) {
        found.iter_mut().for_each(hide);
    }
    found
}

/// Places of secret content: the data, and kubectl's copy of it.
fn hide(change: &mut Change) {
    let content = ["/data", "/stringData", "/metadata/annotations"]
        .iter()
        .any(|place| change.at == *place || change.at.starts_with(&format!("{place}/")))
        || change.at.is_empty();
    if content {
        for value in [&mut change.before, &mut change.after].into_iter().flatten() {
            *value = Value::String(match value {
                Value::String(text) => format!("(hidden, {} characters)", text.chars().count()),
                Value::Object(map) => format!("(hidden, {} entries)", map.len()),
                _ => "(hidden)".into(),
            });
        }
    }
}

fn compare(at: &mut String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    let before = before.filter(|value| !value.is_null());
    let after = after.filter(|value| !value.is_null());
    match (before, after) {
        (None, None) => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let mut keys: Vec<&String> =
                old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
            keys.sort();
            for key in keys {
                step(at, &format!("/{}", escape(key)), |at| compare(at, old.get(key), new.get(key), found));
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => lists(at, old, new, found),
        (old, new) if same(old, new) => {}
        (old, new) => found.push(Change { at: at.clone(), before: old.cloned(), after: new.cloned() }),
    }
}

/// `3` and `3.0` are one number.
fn same(old: Option<&Value>, new: Option<&Value>) -> bool {
    match (old, new) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
        }
        (old, new) => old == new,
    }
}

fn step(at: &mut String, step: &str, inner: impl FnOnce(&mut String)) {
    let length = at.len();
    at.push_str(step);
    inner(at);
    at.truncate(length);
}

fn lists(at: &mut String, old: &[Value], new: &[Value], found: &mut Vec<Change>) {
    let Some((old_names, new_names)) = names(old).zip(names(new)) else {
        for index in 0..old.len().max(new.len()) {
            step(at, &format!("/{index}"), |at| compare(at, old.get(index), new.get(index), found));
        }
        return;
    };
    let by_name = |names: &[&str], list: &[Value], name: &str| {
        names.iter().position(|n| *n == name).and_then(|index| list.get(index)).cloned()
    };
    let mut all: Vec<&str> =
        old_names.iter().chain(new_names.iter().filter(|n| !old_names.contains(n))).copied().collect();
    all.sort_unstable();
    for name in all {
        let (was, is) = (by_name(&old_names, old, name), by_name(&new_names, new, name));
        step(at, &format!("[name={name}]"), |at| compare(at, was.as_ref(), is.as_ref(), found));
    }
    // The order of what is on both sides can matter (init containers, variables that use others).
    let kept = |names: &[&str], other: &[&str]| -> Vec<String> {
        names.iter().filter(|n| other.contains(n)).map(|n| (*n).to_owned()).collect()
    };
    let (was, is) = (kept(&old_names, &new_names), kept(&new_names, &old_names));
    if was != is {
        found.push(Change { at: format!("{at}[order]"), before: Some(was.into()), after: Some(is.into()) });
    }
}

/// The names in a list in which everything has one of its own. An empty list fits any other.
fn names(list: &[Value]) -> Option<Vec<&str>> {
    let names: Option<Vec<&str>> = list.iter().map(|item| item.get("name")?.as_str()).collect();
    names.filter(|names| {
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.windows(2).all(|pair| pair[0] != pair[1])
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(story: &str, before: Value, after: Value, want: &[&str]) {
        let got: Vec<String> = changes(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(got, want, "{story}");
    }

    #[test]
    fn a_difference_names_its_field() {
        check("nothing", json!({"a": 1, "b": [1]}), json!({"b": [1], "a": 1}), &[]);
        check("null is nothing", json!({"a": null}), json!({}), &[]);
        check("numbers", json!({"a": 3, "b": 3}), json!({"a": 3.0, "b": 4}), &["~ /b: 3 -> 4"]);
        check(
            "fields come, go and change",
            json!({"a": 1, "c": {"d/e": "x"}, "g": 1}),
            json!({"b": 2, "c": {"d/e": "y"}, "g": 1}),
            &["- /a: 1", "+ /b: 2", "~ /c/d~1e: \"x\" -> \"y\""],
        );
        check(
            "a container in front of others",
            json!({"containers": [{"name": "web", "image": "w:1"}]}),
            json!({"containers": [{"name": "proxy", "image": "p:1"}, {"name": "web", "image": "w:2"}]}),
            &[
                "+ /containers[name=proxy]: {\"name\":\"proxy\",\"image\":\"p:1\"}",
                "~ /containers[name=web]/image: \"w:1\" -> \"w:2\"",
            ],
        );
        check(
            "another order",
            json!({"env": [{"name": "A"}, {"name": "B"}]}),
            json!({"env": [{"name": "B"}, {"name": "A"}]}),
            &["~ /env[order]: [\"A\",\"B\"] -> [\"B\",\"A\"]"],
        );
        check(
            "plain lists",
            json!({"l": ["a", "b"]}),
            json!({"l": ["a", "c", "d"]}),
            &["~ /l/1: \"b\" -> \"c\"", "+ /l/2: \"d\""],
        );
        check(
            "two of one name are told apart by place",
            json!({"l": [{"name": "a", "x": 1}, {"name": "a", "x": 2}]}),
            json!({"l": [{"name": "a", "x": 1}, {"name": "a", "x": 3}]}),
            &["~ /l/1/x: 2 -> 3"],
        );
    }

    #[test]
    fn secrets_stay_hidden() {
        let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"labels": {"a": "b"}}, "data": data});
        check(
            "changed content",
            secret(json!({"p": "c2VjcmV0"})),
            secret(json!({"p": "b3RoZXI=", "q": "eA=="})),
            &[
                "~ /data/p: \"(hidden, 8 characters)\" -> \"(hidden, 8 characters)\"",
                "+ /data/q: \"(hidden, 4 characters)\"",
            ],
        );
        let shown = format!("{:?}", changes(&Value::Null, &secret(json!({"p": "c2VjcmV0"}))));
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
    }
}
