//! JSON patch, merge patch and strategic merge patch. (Server-side apply has its own file.)

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::schema::Shape;
use crate::status::Fault;
use crate::types::Merge;

/// RFC 7386: null removes, maps merge, everything else replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(map) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.shift_remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// RFC 6902.
pub fn json_patch(target: &mut Value, patch: Value) -> Result<(), Fault> {
    let patch: json_patch::Patch = serde_json::from_value(patch).map_err(|e| {
        Fault::bad_request(format!("json: cannot unmarshal into Go value of type jsonpatch.Patch: {e}"))
    })?;
    json_patch::patch(target, &patch).map_err(|_| Fault {
        code: 422,
        reason: "Invalid",
        message: "the server rejected our request due to an error in our request".into(),
        details: Some(json!({})),
        extra: None,
        plain: false,
    })
}

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Kubernetes' own patch: lists merge by the keys the type declares, directives say what to delete.
pub fn strategic(shape: Shape<'_>, target: &mut Value, patch: &Value) -> Result<(), Fault> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            *target = Value::Object(without_directives(patch));
            return Ok(());
        }
        Some("delete") => {
            *target = json!({});
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => {
            return Err(Fault::bad_request(format!("unknown patch type found: map[$patch:{other}]")));
        }
    }
    if !target.is_object() {
        *target = json!({});
    }
    let Some(map) = target.as_object_mut() else { return Ok(()) };
    if let Some(keep) = patch.get(RETAIN).and_then(Value::as_array) {
        map.retain(|key, _| keep.iter().any(|k| k.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(items) = map.get_mut(field).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        }
    }
    for (key, value) in patch.iter().filter(|(k, _)| !k.starts_with('$')) {
        if value.is_null() {
            map.shift_remove(key);
            continue;
        }
        let child = shape.child(key).unwrap_or(Shape::Unknown);
        let order = patch.get(&format!("{ORDER}{key}"));
        match value {
            Value::Array(items) => {
                let slot = map.entry(key.clone()).or_insert_with(|| json!([]));
                strategic_list(child, slot, items, order)?;
            }
            // A whole new map still needs its directives taken out, so it merges into an empty one.
            Value::Object(_) => strategic(child, map.entry(key.clone()).or_insert_with(|| json!({})), value)?,
            scalar => {
                map.insert(key.clone(), scalar.clone());
            }
        }
    }
    // An order without elements reorders what is there.
    for (key, order) in patch {
        let Some(field) = key.strip_prefix(ORDER) else { continue };
        if patch.contains_key(field) {
            continue;
        }
        let child = shape.child(field).unwrap_or(Shape::Unknown);
        if let Some(slot) = map.get_mut(field) {
            strategic_list(child, slot, &[], Some(order))?;
        }
    }
    Ok(())
}

/// A strategic merge patch on an object outside of any server. Lists of built-in kinds merge by their keys; of other
/// kinds nothing is known, so there it is a merge patch with directives.
///
/// # Errors
/// If the patch does not fit; the text says why.
pub fn strategic_merge(
    api_version: &str,
    kind: &str,
    target: &mut Value,
    patch: &Value,
) -> Result<(), String> {
    let (group, version) = crate::kinds::split_api_version(api_version);
    let built_in = !group.contains('.') || group.ends_with(".k8s.io");
    let shape = crate::types::of_kind(group, version, kind).filter(|_| built_in);
    strategic(shape.map_or(Shape::Unknown, Shape::Object), target, patch)
        .map_err(|fault| fault.message.into())
}

fn strategic_list(
    shape: Shape<'_>,
    slot: &mut Value,
    patch: &[Value],
    order: Option<&Value>,
) -> Result<(), Fault> {
    let before: Vec<Value> = slot.as_array().cloned().unwrap_or_default();
    let merged = match shape.strategic() {
        Merge::Replace if patch.is_empty() && order.is_some() => before.clone(),
        Merge::Replace => patch.to_vec(),
        Merge::Set => {
            let mut merged = before.clone();
            for item in patch {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            reorder(merged, &before, order, |item| item.to_string())
        }
        Merge::Keys(keys) => {
            let key = keys.first().copied().unwrap_or("name");
            let id = |item: &Value| item.get(key).unwrap_or(item).to_string();
            if patch.iter().any(|p| p.get(DIRECTIVE).and_then(Value::as_str) == Some("replace")) {
                patch.iter().filter(|p| p.get(DIRECTIVE).is_none()).cloned().collect()
            } else {
                let mut merged = before.clone();
                for item in patch {
                    if item.get(key).is_none_or(Value::is_null) {
                        let why = format!("map: {item} does not contain declared merge key: {key}");
                        return Err(Fault::raw(500, why));
                    }
                    if item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                        merged.retain(|m| id(m) != id(item));
                        continue;
                    }
                    match merged.iter_mut().find(|m| id(m) == id(item)) {
                        Some(existing) => strategic(shape.item(), existing, item)?,
                        None => {
                            let mut new = json!({});
                            strategic(shape.item(), &mut new, item)?;
                            merged.push(new);
                        }
                    }
                }
                reorder(merged, &before, order, id)
            }
        }
    };
    *slot = Value::Array(merged);
    Ok(())
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter().filter(|(k, _)| !k.starts_with('$')).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn reorder(
    merged: Vec<Value>,
    before: &[Value],
    order: Option<&Value>,
    id: impl Fn(&Value) -> String,
) -> Vec<Value> {
    let Some(order) = order.and_then(Value::as_array) else { return merged };
    let wanted: Vec<String> = order.iter().map(&id).collect();
    let before: Vec<String> = before.iter().map(&id).collect();
    interleave(merged, &wanted, &before, id)
}

/// Puts the elements named in `wanted` in that order; the others stay where they were relative to
/// them (`before` is the old order).
pub fn interleave(
    items: Vec<Value>,
    wanted: &[String],
    before: &[String],
    id: impl Fn(&Value) -> String,
) -> Vec<Value> {
    let place = |list: &[String], item: &Value| list.iter().position(|w| *w == id(item));
    let named: BTreeSet<&String> = wanted.iter().collect();
    let (mut ours, others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|i| named.contains(&id(i)));
    ours.sort_by_key(|item| place(wanted, item));
    let mut out = Vec::with_capacity(ours.len() + others.len());
    let (mut ours, mut others) = (ours.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(our), Some(other)) = (ours.peek(), others.peek()) {
        let other_first = match (place(before, our), place(before, other)) {
            (Some(our), Some(other)) => other < our,
            _ => false,
        };
        let next = if other_first { others.next() } else { ours.next() };
        out.extend(next);
    }
    out.extend(ours);
    out.extend(others);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn merge_patch_removes_nulls_and_replaces_lists() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(&mut target, &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3]}));
        assert_eq!(target, json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3]}));
    }

    #[test]
    fn a_failed_test_operation_refuses_the_json_patch() {
        let mut target = json!({"a": 1});
        let fault = json_patch(&mut target, json!([{"op": "test", "path": "/a", "value": 2}])).unwrap_err();
        assert_eq!((fault.code, fault.reason), (422, "Invalid"));
        json_patch(&mut target, json!([{"op": "add", "path": "/b", "value": 2}])).unwrap();
        assert_eq!(target, json!({"a": 1, "b": 2}));
    }

    /// Each case patches the pod spec of a deployment.
    #[test]
    fn strategic_patches_change_what_kubectl_means_them_to_change() {
        let kinds = Kinds::default();
        let kind = kinds.get("apps", "deployments").unwrap();
        let spec = json!({
            "containers": [
                {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80}]},
                {"name": "b", "image": "b:1", "args": ["x"]}],
            "tolerations": [{"key": "k"}],
            "volumes": [{"name": "v", "emptyDir": {}}]});
        let check = |patch: Value, pointer: &str, expect: Value| {
            let mut object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
                "template": {"spec": spec.clone()}}});
            strategic(Shape::of(kind, "v1"), &mut object, &patch).unwrap();
            assert_eq!(object.pointer(pointer).unwrap_or(&Value::Null), &expect, "{patch}");
        };
        let pod = |patch: Value| json!({"spec": {"template": {"spec": patch}}});
        let at = |rest: &str| format!("/spec/template/spec{rest}");
        check(
            pod(json!({"containers": [{"name": "b", "image": "b:2"}]})),
            &at("/containers/1"),
            json!({"name": "b", "image": "b:2", "args": ["x"]}),
        );
        check(
            pod(json!({"containers": [{"name": "c", "image": "c"}]})),
            &at("/containers/2/name"),
            json!("c"),
        );
        check(
            pod(json!({"containers": [{"name": "a", "$patch": "delete"}]})),
            &at("/containers/0/name"),
            json!("b"),
        );
        check(
            pod(json!({"containers": [{"name": "b", "args": ["y", "z"]}]})),
            &at("/containers/1/args"),
            json!(["y", "z"]),
        );
        check(
            pod(json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]})),
            &at("/containers/0/env"),
            json!([{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]),
        );
        check(pod(json!({"tolerations": [{"key": "z"}]})), &at("/tolerations"), json!([{"key": "z"}]));
        check(
            pod(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})),
            &at("/containers/0/name"),
            json!("b"),
        );
        check(
            pod(
                json!({"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}),
            ),
            &at("/volumes"),
            json!([{"name": "v", "secret": {"secretName": "s"}}]),
        );
        check(
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            "/spec/strategy",
            json!({"type": "Recreate"}),
        );
        check(
            json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}),
            "/spec/strategy",
            json!({"type": "Recreate"}),
        );
        check(json!({"spec": {"strategy": null}}), "/spec/strategy", Value::Null);
    }

    #[test]
    fn finalizers_merge_as_a_set_and_are_taken_out_one_by_one() {
        let kinds = Kinds::default();
        let kind = kinds.get("", "pods").unwrap();
        let mut object = json!({"metadata": {"finalizers": ["a", "b"]}});
        strategic(Shape::of(kind, "v1"), &mut object, &json!({"metadata": {"finalizers": ["c", "a"]}}))
            .unwrap();
        assert_eq!(object["metadata"]["finalizers"], json!(["a", "b", "c"]));
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}});
        strategic(Shape::of(kind, "v1"), &mut object, &patch).unwrap();
        assert_eq!(object["metadata"]["finalizers"], json!(["c", "a"]));
    }

    #[test]
    fn an_element_without_its_key_is_refused() {
        let kinds = Kinds::default();
        let kind = kinds.get("", "pods").unwrap();
        let fault = strategic(
            Shape::of(kind, "v1"),
            &mut json!({}),
            &json!({"spec": {"containers": [{"image": "x"}]}}),
        );
        assert!(fault.unwrap_err().message.contains("does not contain declared merge key: name"));
    }
}
