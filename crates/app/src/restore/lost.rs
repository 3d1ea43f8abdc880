//! Fields that a server took in silence and did not keep.
//!
//! An API server drops what its version of a type does not know and says "created". A restore onto an older cluster, or
//! under another schema, would lose a setting without a word; so what was sent is compared with what came back.

use serde_json::{Map, Value};

use crate::object::Object;
use crate::transform::escape;

/// At most so many places are named.
const NAMED_MAX: usize = 8;

/// Places in `sent` that say something and are not in `made`; values that changed are not lost, servers complete and
/// normalise them.
pub(super) fn fields(sent: &Object, made: &Object) -> Vec<String> {
    let mut lost = Vec::new();
    let (Value::Object(sent), Value::Object(made)) = (&sent.0, &made.0) else { return lost };
    for (key, value) in sent {
        match key.as_str() {
            "apiVersion" | "kind" | "status" | "stringData" => {}
            "metadata" => {
                for part in ["labels", "annotations", "finalizers"] {
                    let now = made.get("metadata").and_then(|metadata| metadata.get(part));
                    if let Some(was) = value.get(part) {
                        compare(&mut format!("/metadata/{part}"), was, now, &mut lost);
                    }
                }
            }
            _ => compare(&mut format!("/{}", escape(key)), value, made.get(key), &mut lost),
        }
    }
    lost
}

/// The places in words.
pub(super) fn told(lost: &[String]) -> String {
    let mut names: Vec<&str> = lost.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = format!("and {} more", lost.len().saturating_sub(NAMED_MAX));
    if lost.len() > NAMED_MAX {
        names.push(&more);
    }
    names.join(", ")
}

/// Is it the same as nothing? Servers leave such values out.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

fn compare(at: &mut String, was: &Value, now: Option<&Value>, lost: &mut Vec<String>) {
    if is_nothing(was) {
        return;
    }
    match (was, now) {
        (_, None | Some(Value::Null)) => lost.push(at.clone()),
        (Value::Object(was), Some(Value::Object(now))) => {
            for (key, value) in was {
                below(at, &format!("/{}", escape(key)), |at| compare(at, value, now.get(key), lost));
            }
        }
        (Value::Array(was), Some(Value::Array(now))) => {
            for (index, value) in was.iter().enumerate() {
                below(at, &format!("/{index}"), |at| {
                    compare(at, value, counterpart(value, index, now), lost)
                });
            }
        }
        _ => {}
    }
}

/// The element of the same name, else the one in the same place.
fn counterpart<'a>(value: &Value, index: usize, now: &'a [Value]) -> Option<&'a Value> {
    let name = |value: &Value| -> Option<Value> {
        value.as_object().and_then(|map: &Map<_, _>| map.get("name").cloned())
    };
    match name(value) {
        Some(wanted) => {
            now.iter().find(|item| name(item).as_ref() == Some(&wanted)).or_else(|| now.get(index))
        }
        None => now.get(index),
    }
}

fn below(at: &mut String, step: &str, inner: impl FnOnce(&mut String)) {
    let length = at.len();
    at.push_str(step);
    inner(at);
    at.truncate(length);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_server_forgets_is_noticed_and_what_it_completes_is_not() {
        let cases = [
            ("the same", json!({"spec": {"a": 1}}), json!({"spec": {"a": 1}}), vec![]),
            (
                "completed and normalised",
                json!({"spec": {"cpu": "1000m", "l": [{"name": "a"}]}}),
                json!({"spec": {"cpu": "1", "l": [{"name": "b"}, {"name": "a", "x": 1}], "d": 1}}),
                vec![],
            ),
            (
                "nothing is nothing",
                json!({"spec": {"a": "", "b": {}, "c": [], "d": {"e": null}, "f": false}}),
                json!({}),
                vec![],
            ),
            (
                "dropped",
                json!({"spec": {"a": {"b": "x"}, "l": [{"name": "c", "restartPolicy": "Always"}]}}),
                json!({"spec": {"a": {}, "l": [{"name": "c"}]}}),
                vec!["/spec/a/b", "/spec/l/0/restartPolicy"],
            ),
            (
                "a shorter list",
                json!({"spec": {"l": ["a", "b"]}}),
                json!({"spec": {"l": ["a"]}}),
                vec!["/spec/l/1"],
            ),
            (
                "a label",
                json!({"metadata": {"labels": {"a/b": "c"}, "uid": "u"}}),
                json!({"metadata": {}}),
                vec!["/metadata/labels"],
            ),
            ("status is somebody else's", json!({"status": {"a": 1}}), json!({}), vec![]),
        ];
        for (story, sent, made, want) in cases {
            assert_eq!(fields(&Object(sent), &Object(made)), want, "{story}");
        }
    }
}
