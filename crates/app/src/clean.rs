//! Cleaning: from the object as the API server gave it to the one a restore applies.
//!
//! Out goes what the cluster filled in and would fill in again. What a person or a tool wrote stays, even where
//! we do not know it. Per kind the rest is in its file; the original is always stored beside the result.

use serde_json::Value;

use crate::kinds;
use crate::object::Object;

/// Stripped from every kind.
const EVERYWHERE: &[&str] = &[
    "/metadata/uid",
    "/metadata/resourceVersion",
    "/metadata/generation",
    "/metadata/creationTimestamp",
    "/metadata/deletionTimestamp",
    "/metadata/deletionGracePeriodSeconds",
    "/metadata/selfLink",
    "/metadata/managedFields",
    // Owner references stay: the restore gives them the new UIDs.
];

/// Finalizers that Kubernetes adds by itself; everybody else's stay.
const OWN_FINALIZERS: &[&str] = &[
    "kubernetes.io/pvc-protection",
    "kubernetes.io/pv-protection",
    "kubernetes",
    "foregroundDeletion",
    "orphan",
    "service.kubernetes.io/load-balancer-cleanup",
    "batch.kubernetes.io/job-tracking",
    "external-provisioner.volume.kubernetes.io/finalizer",
];

/// The object a restore applies.
pub fn clean(original: &Object) -> Object {
    let info = kinds::of(original);
    let mut clean = original.0.clone();
    for pointer in EVERYWHERE.iter().chain(info.strip) {
        remove(&mut clean, pointer);
    }
    if !info.keep_status {
        remove(&mut clean, "/status");
    }
    if let Some(finalizers) = clean.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|f| !f.as_str().is_some_and(|f| OWN_FINALIZERS.contains(&f)));
    }
    if let Some(extra) = info.clean {
        extra(original, &mut clean);
    }
    for emptied in ["finalizers", "annotations", "labels"] {
        remove_if_empty(&mut clean, &format!("/metadata/{emptied}"));
    }
    Object(clean)
}

/// Removes what a JSON pointer (with `*` for every element or member) leads to.
pub(crate) fn remove(value: &mut Value, pointer: &str) {
    let Some(rest) = pointer.strip_prefix('/') else { return };
    let (head, tail) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    match value {
        Value::Array(items) if head == "*" => items.iter_mut().for_each(|item| remove(item, tail)),
        Value::Object(fields) if head == "*" => fields.values_mut().for_each(|field| remove(field, tail)),
        Value::Object(fields) => {
            let name = head.replace("~1", "/").replace("~0", "~");
            if tail.is_empty() {
                // shift_remove keeps the others in the order people wrote them.
                fields.shift_remove(&name);
            } else if let Some(field) = fields.get_mut(&name) {
                remove(field, tail);
            }
        }
        _ => {}
    }
}

/// Removes an object or array that cleaning left empty.
pub(crate) fn remove_if_empty(value: &mut Value, pointer: &str) {
    let empty = match value.pointer(pointer) {
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        _ => false,
    };
    if empty {
        remove(value, pointer);
    }
}

/// Did somebody set this field, or did the cluster choose its value? Asked of `managedFields` and kubectl's own
/// record. `path` is in members' names; a list is skipped over to any of its entries.
pub(crate) fn was_set(original: &Object, path: &[&str]) -> bool {
    let applied = original
        .annotation("kubectl.kubernetes.io/last-applied-configuration")
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    let managed =
        original.at("/metadata/managedFields").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    applied.is_some_and(|value| holds(&value, path))
        || managed
            .iter()
            .filter(|entry| !is_only_kept(entry, path))
            .filter_map(|entry| entry.get("fieldsV1"))
            .any(|fields| owns(fields, path))
}

/// The field manager of a restore that asks for these fields as the old cluster chose them: nobody set them, then or now.
pub(crate) fn keeper(fields: &[&str]) -> String {
    format!("{}_{}", crate::api::FIELD_MANAGER, fields.join("_"))
}

/// Is this the entry of a [`keeper`] of this field?
fn is_only_kept(entry: &Value, path: &[&str]) -> bool {
    let manager = entry.get("manager").and_then(Value::as_str).unwrap_or("");
    let kept = manager.strip_prefix(crate::api::FIELD_MANAGER).and_then(|rest| rest.strip_prefix('_'));
    kept.is_some_and(|fields| path.last().is_some_and(|last| fields.split('_').any(|field| field == *last)))
}

fn holds(value: &Value, path: &[&str]) -> bool {
    match (path, value) {
        ([], value) => !value.is_null(),
        (_, Value::Array(items)) => items.iter().any(|item| holds(item, path)),
        ([head, tail @ ..], value) => value.get(head).is_some_and(|field| holds(field, tail)),
    }
}

fn owns(fields: &Value, path: &[&str]) -> bool {
    let Some(fields) = fields.as_object() else { return path.is_empty() };
    match path {
        [] => true,
        [head, tail @ ..] => fields.iter().any(|(name, below)| match name.split_once(':') {
            Some(("f", name)) => name == *head && owns(below, tail),
            Some(("k", _)) => owns(below, path),
            _ => false,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_people_wrote_stays_and_what_the_cluster_filled_in_goes() {
        let original = Object(
            json!({"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a","namespace":"n","uid":"u",
            "resourceVersion":"1","generation":2,"creationTimestamp":"t","managedFields":[],"labels":{"a":"b"},"annotations":{},
            "finalizers":["example.com/x","foregroundDeletion"]},"spec":{"anything":[1]},"status":{"ok":true}}),
        );
        assert_eq!(
            clean(&original).0,
            json!({"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a","namespace":"n","labels":{"a":"b"},
            "finalizers":["example.com/x"]},"spec":{"anything":[1]}})
        );
    }

    #[test]
    fn a_field_was_set_if_somebody_owns_it() {
        let with = |fields: Value| {
            Object(json!({"metadata":{"managedFields":[{"manager":"kubectl","fieldsV1":fields}]}}))
        };
        let ports =
            |inner: Value| with(json!({"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":inner}}}));
        assert!(was_set(&ports(json!({".":{},"f:nodePort":{}})), &["spec", "ports", "nodePort"]));
        assert!(!was_set(&ports(json!({".":{},"f:port":{}})), &["spec", "ports", "nodePort"]));
        let applied =
            Object(json!({"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":
            "{\"spec\":{\"ports\":[{\"port\":80,\"nodePort\":30080}]}}"}}}));
        assert!(was_set(&applied, &["spec", "ports", "nodePort"]));
        assert!(!was_set(&applied, &["spec", "clusterIP"]));
    }

    #[test]
    fn an_address_that_a_restore_kept_was_set_by_nobody() {
        let manager = keeper(&["clusterIP"]);
        assert!(
            manager.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "it goes into a query as it is"
        );
        let of = |manager: &str| {
            Object(
                json!({"metadata":{"managedFields":[{"manager":manager,"fieldsV1":{"f:spec":{"f:clusterIP":{},"f:ports":{"k:{}":{"f:nodePort":{}}}}}}]}}),
            )
        };
        assert!(was_set(&of("holdfast"), &["spec", "clusterIP"]));
        assert!(!was_set(&of(&manager), &["spec", "clusterIP"]));
        assert!(was_set(&of(&manager), &["spec", "ports", "nodePort"]));
    }
}
