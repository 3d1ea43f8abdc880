//! The words of horizontal pod autoscalers through their versions.
//!
//! v2beta1 wrote metrics otherwise than the versions after it, and so does the annotation in which v1 keeps the metrics it has no
//! field for. Behaviour is in an annotation of v1, too, in the words of the server's inside: those of the current
//! versions with a capital in front.

use serde_json::{Map, Value, json};

/// Behaviour, from what v1 notes of it.
pub fn behavior_of_note(text: &str) -> Option<Value> {
    let said: Value = serde_json::from_str(text).ok()?;
    said.is_object().then(|| renamed(&said, |first| first.to_ascii_lowercase()))
}

/// What v1 notes of behaviour.
pub fn note_of_behavior(behavior: &Value) -> String {
    renamed(behavior, |first| first.to_ascii_uppercase()).to_string()
}

/// The same with the first letter of every field changed; what is null is not said.
fn renamed(value: &Value, first: fn(&char) -> char) -> Value {
    match value {
        Value::Object(map) => {
            let name =
                |key: &str| key.chars().take(1).map(|c| first(&c)).chain(key.chars().skip(1)).collect();
            let said = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(said.map(|(key, value)| (name(key), renamed(value, first))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| renamed(item, first)).collect()),
        other => other.clone(),
    }
}

/// The part of a metric that has its name in lower case: `Resource` says more under `resource`.
fn part_of(metric: &Value) -> Option<(&'static str, &'static str)> {
    Some(match metric.get("type")?.as_str()? {
        "Resource" => ("Resource", "resource"),
        "ContainerResource" => ("ContainerResource", "containerResource"),
        "Pods" => ("Pods", "pods"),
        "Object" => ("Object", "object"),
        "External" => ("External", "external"),
        _ => return None,
    })
}

/// A metric of the current versions, from one as v2beta1 and the annotation of v1 write it; none if it is no such metric.
pub fn metric_from_old(metric: &Value) -> Option<Value> {
    let (kind, part) = part_of(metric)?;
    let old = metric.get(part)?.as_object()?;
    let target = [
        ("targetAverageUtilization", "Utilization", "averageUtilization"),
        ("targetAverageValue", "AverageValue", "averageValue"),
        ("averageValue", "AverageValue", "averageValue"),
        ("targetValue", "Value", "value"),
    ]
    .into_iter()
    .find_map(|(field, kind, new)| Some(json!({"type": kind, new: old.get(field)?})))?;
    let mut new = Map::new();
    for field in ["name", "container"] {
        if let Some(value) = old.get(field) {
            new.insert(field.into(), value.clone());
        }
    }
    if let Some(name) = old.get("metricName") {
        let mut named = Map::from_iter([("name".to_owned(), name.clone())]);
        if let Some(selector) = old.get("selector").or_else(|| old.get("metricSelector")) {
            named.insert("selector".into(), selector.clone());
        }
        new.insert("metric".into(), named.into());
    }
    if kind == "Object" {
        new.insert("describedObject".into(), old.get("target")?.clone());
    }
    new.insert("target".into(), target);
    Some(json!({"type": kind, part: new}))
}

/// And back; none if it cannot be said there.
pub fn metric_to_old(metric: &Value) -> Option<Value> {
    let (kind, part) = part_of(metric)?;
    let new = metric.get(part)?.as_object()?;
    let target = new.get("target")?;
    let of = |field: &str| target.get(field).cloned();
    let mut old = Map::new();
    for field in ["name", "container"] {
        if let Some(value) = new.get(field) {
            old.insert(field.into(), value.clone());
        }
    }
    if let Some(name) = new.get("metric") {
        old.insert("metricName".into(), name.get("name")?.clone());
        if let Some(selector) = name.get("selector") {
            old.insert(
                if kind == "External" { "metricSelector" } else { "selector" }.into(),
                selector.clone(),
            );
        }
    }
    match (of("averageUtilization"), of("averageValue"), of("value")) {
        (Some(percent), ..) => old.insert("targetAverageUtilization".into(), percent),
        // Beside a value for the whole object this was its own field.
        (_, Some(value), _) if kind == "Object" => {
            old.insert("targetValue".into(), value.clone());
            old.insert("averageValue".into(), value)
        }
        (_, Some(value), _) => old.insert("targetAverageValue".into(), value),
        (_, _, Some(value)) => old.insert("targetValue".into(), value),
        _ => return None,
    };
    if kind == "Object" {
        old.insert("target".into(), new.get("describedObject")?.clone());
    }
    Some(json!({"type": kind, part: old}))
}
