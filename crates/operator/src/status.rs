//! What is written into the status of an object: conditions, and only what changed.

use api::{Condition, Truth};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The longest message of a condition; what is longer is cut.
const MESSAGE_MAX: usize = 32_768;

/// An instant as objects carry it: in whole seconds.
pub fn instant(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// An instant that was written into an object; none if it is none.
pub fn read_instant(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

/// Says something of an object. Since when changes only if whether changes.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: Truth,
    reason: &str,
    message: impl Into<String>,
    generation: u64,
    now: Timestamp,
) {
    let mut message: String = message.into();
    if message.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
    }
    let old = conditions.iter_mut().find(|condition| condition.r#type == kind);
    let since = match &old {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        _ => instant(now),
    };
    let new = Condition {
        r#type: kind.into(),
        status,
        observed_generation: Some(generation),
        last_transition_time: since,
        reason: reason.into(),
        message,
    };
    match old {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// What is said of an object.
pub fn get<'c>(conditions: &'c [Condition], kind: &str) -> Option<&'c Condition> {
    conditions.iter().find(|condition| condition.r#type == kind)
}

/// The merge patch that makes the new of the old; none if they are the same. Lists are replaced as a whole.
pub fn patch(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Some(new.clone()) };
    let mut patch = Map::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in new {
        match old.get(name) {
            None => {
                patch.insert(name.clone(), value.clone());
            }
            Some(before) => {
                if let Some(inner) = self::patch(before, value) {
                    patch.insert(name.clone(), inner);
                }
            }
        }
    }
    // Equal but for the order of members.
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The request body that changes the status of an object in the version that was read.
pub fn patch_of(object: &Value, status: &Value) -> Option<Value> {
    let nothing = json!({});
    let old = if object["status"].is_null() { &nothing } else { &object["status"] };
    let patch = patch(old, status)?;
    Some(json!({"metadata": {"resourceVersion": object["metadata"]["resourceVersion"]}, "status": patch}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_when_changes_only_if_whether_changes() {
        let at = |seconds: i64| Timestamp::from_second(1_900_000_000 + seconds).unwrap();
        let mut conditions = Vec::new();
        set(&mut conditions, "Ready", Truth::False, "Waiting", "waits", 1, at(0));
        set(&mut conditions, "Ready", Truth::False, "Failed", "it failed", 2, at(5));
        let ready = get(&conditions, "Ready").unwrap();
        assert_eq!(
            (ready.reason.as_str(), ready.last_transition_time.as_str()),
            ("Failed", "2030-03-17T17:46:40Z")
        );
        set(&mut conditions, "Ready", Truth::True, "Open", "", 2, at(9));
        assert_eq!(get(&conditions, "Ready").unwrap().last_transition_time, "2030-03-17T17:46:49Z");
        assert_eq!(conditions.len(), 1);
        set(&mut conditions, "Long", Truth::True, "Long", "ä".repeat(40_000), 2, at(9));
        assert_eq!(get(&conditions, "Long").unwrap().message.len(), 32_768);
    }

    #[test]
    fn only_what_changed_is_written() {
        for (old, new, expect) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": 1}), json!({"a": 2}), Some(json!({"a": 2}))),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), Some(json!({"b": null}))),
            (json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": 1, "y": 3}}), Some(json!({"a": {"y": 3}}))),
            (json!({"l": [1, 2]}), json!({"l": [1]}), Some(json!({"l": [1]}))),
            (json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1}), None),
        ] {
            let got = patch(&old, &new);
            assert_eq!(got, expect, "{old} -> {new}");
            if let Some(patch) = got {
                let mut merged = old.clone();
                json_merge(&mut merged, &patch);
                assert_eq!(merged, new);
            }
        }
        let object = json!({"metadata": {"resourceVersion": "7"}});
        assert_eq!(patch_of(&object, &json!({})), None);
        let body = patch_of(&object, &json!({"points": 1})).unwrap();
        assert_eq!(body, json!({"metadata": {"resourceVersion": "7"}, "status": {"points": 1}}));
    }

    /// RFC 7386.
    fn json_merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        for (name, value) in patch {
            match value {
                Value::Null => {
                    target.as_object_mut().unwrap().remove(name);
                }
                value => json_merge(&mut target[name], value),
            }
        }
    }
}
