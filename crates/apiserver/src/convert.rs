//! Between the version a client speaks and the version an object is stored in.
//!
//! Custom resources have conversion `None`: `apiVersion` differs, and what the other version does not know is not
//! there. Two built-in kinds really
//! differ: events, which two groups share, and horizontal pod autoscalers, whose v1 knows one metric.

use serde_json::{Map, Value, json};

use crate::autoscaler;
use crate::kinds::Kind;
use crate::schema::{self, Shape};

/// The resource an object of this kind is stored under.
pub fn stored_resource(kind: &Kind) -> String {
    // Both groups show the same events.
    if kind.is("events.k8s.io", "events") { "events".into() } else { kind.resource() }
}

/// The `apiVersion` an object of this kind is stored with.
pub fn stored_api_version(kind: &Kind) -> String {
    if kind.is("events.k8s.io", "events") { "v1".into() } else { kind.api_version(&kind.storage) }
}

/// Field names of an event: in `events.k8s.io/v1`, and stored.
const EVENT: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// From `version` to the stored form, in place.
pub fn to_stored(kind: &Kind, version: &str, object: &mut Value) {
    if kind.is("events.k8s.io", "events") {
        for (theirs, ours) in EVENT {
            rename(object, theirs, ours);
        }
    }
    if kind.is("autoscaling", "horizontalpodautoscalers") {
        autoscaler_to(version, &kind.storage, object);
    }
    object["apiVersion"] = json!(stored_api_version(kind));
    fit(kind, version, &kind.storage, object);
}

/// A custom resource in another version has only what that version's schema knows.
fn fit(kind: &Kind, from: &str, to: &str, object: &mut Value) {
    if kind.custom && from != to && !kind.converted_outside {
        schema::prune(Shape::of(kind, to), object);
    }
}

/// Is an object in `version` what it is stored as, but for its `apiVersion`?
pub fn is_same(kind: &Kind, version: &str) -> bool {
    let has_other_forms = kind.custom || kind.is("autoscaling", "horizontalpodautoscalers");
    !kind.is("events.k8s.io", "events") && (version == kind.storage || !has_other_forms)
}

/// From the stored form to `version`, in place.
pub fn from_stored(kind: &Kind, version: &str, object: &mut Value) {
    if kind.is("events.k8s.io", "events") {
        for (theirs, ours) in EVENT {
            rename(object, ours, theirs);
        }
    }
    if kind.is("autoscaling", "horizontalpodautoscalers") {
        autoscaler_to(&kind.storage, version, object);
    }
    object["apiVersion"] = json!(kind.api_version(version));
    fit(kind, &kind.storage, version, object);
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(map) = object.as_object_mut()
        && let Some(value) = map.shift_remove(from)
    {
        map.insert(to.into(), value);
    }
}

/// Where the v1 form keeps the metrics it has no field for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// All versions but the first know many metrics.
fn autoscaler_to(from: &str, to: &str, object: &mut Value) {
    match (from == "v1", to == "v1") {
        (true, false) => autoscaler_to_v2(object),
        (false, true) => autoscaler_to_v1(object),
        _ => {}
    }
}

fn autoscaler_to_v2(object: &mut Value) {
    let mut metrics: Vec<Value> = Vec::new();
    let mut behavior = None;
    if let Some(notes) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        if let Some(text) = notes.shift_remove(METRICS) {
            metrics = text.as_str().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
            for metric in &mut metrics {
                if let Some(current) = autoscaler::metric_from_old(metric) {
                    *metric = current;
                }
            }
        }
        if let Some(text) = notes.shift_remove(BEHAVIOR) {
            behavior = text.as_str().and_then(autoscaler::behavior_of_note);
        }
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(percent) = spec.shift_remove("targetCPUUtilizationPercentage") {
        let target = json!({ "type": "Utilization", "averageUtilization": percent });
        metrics.insert(0, json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } }));
    }
    if !metrics.is_empty() {
        spec.insert("metrics".into(), Value::Array(metrics));
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".into(), behavior);
    }
}

fn autoscaler_to_v1(object: &mut Value) {
    let mut notes = Map::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut rest = Vec::new();
        for metric in spec.shift_remove("metrics").and_then(|m| m.as_array().cloned()).unwrap_or_default() {
            let percent = &metric["resource"]["target"]["averageUtilization"];
            let cpu = metric["resource"]["name"] == json!("cpu") && percent.is_i64();
            if cpu && !spec.contains_key("targetCPUUtilizationPercentage") {
                spec.insert("targetCPUUtilizationPercentage".into(), percent.clone());
            } else {
                rest.push(autoscaler::metric_to_old(&metric).unwrap_or(metric));
            }
        }
        if !rest.is_empty() {
            notes.insert(METRICS.into(), json!(Value::Array(rest).to_string()));
        }
        if let Some(behavior) = spec.shift_remove("behavior") {
            notes.insert(BEHAVIOR.into(), json!(autoscaler::note_of_behavior(&behavior)));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let current = status.shift_remove("currentMetrics");
        let percent = current.as_ref().map(|c| c[0]["resource"]["current"]["averageUtilization"].clone());
        if let Some(percent @ Value::Number(_)) = percent {
            status.insert("currentCPUUtilizationPercentage".into(), percent);
        }
        status.shift_remove("conditions");
        status.entry("currentReplicas").or_insert(json!(0));
    }
    if !notes.is_empty() {
        if !object["metadata"]["annotations"].is_object() {
            object["metadata"]["annotations"] = json!({});
        }
        if let Some(all) = object["metadata"]["annotations"].as_object_mut() {
            all.extend(notes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn an_autoscaler_survives_the_trip_through_v1() {
        let kinds = Kinds::default();
        let kind = kinds.get("autoscaling", "horizontalpodautoscalers").unwrap();
        let stored = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a"}, "spec": {"maxReplicas": 3,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}}]}});
        let mut object = stored.clone();
        from_stored(kind, "v1", &mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        // As a real server notes them, in words of their own.
        let notes = &object["metadata"]["annotations"];
        assert_eq!(
            notes[METRICS],
            r#"[{"type":"Resource","resource":{"name":"memory","targetAverageUtilization":70}}]"#
        );
        assert_eq!(notes[BEHAVIOR], r#"{"ScaleDown":{"StabilizationWindowSeconds":60}}"#);
        to_stored(kind, "v1", &mut object);
        assert_eq!(object["spec"], stored["spec"]);
    }

    #[test]
    fn both_event_groups_show_the_same_event() {
        let kinds = Kinds::default();
        let kind = kinds.get("events.k8s.io", "events").unwrap();
        let mut event = json!({"note": "hello", "regarding": {"name": "web"}, "reportingController": "x"});
        to_stored(kind, "v1", &mut event);
        assert_eq!((&event["message"], &event["involvedObject"]["name"]), (&json!("hello"), &json!("web")));
        assert_eq!(event["apiVersion"], "v1");
        from_stored(kind, "v1", &mut event);
        assert_eq!((&event["note"], &event["apiVersion"]), (&json!("hello"), &json!("events.k8s.io/v1")));
    }
}
