//! Storage class names: claims, volumes, claim templates, quotas, and custom resources by shape.

use std::collections::BTreeMap;

use serde_json::Value;

use super::is_opaque;

const LEGACY: &str = "volume.beta.kubernetes.io/storage-class";
const QUOTA: &str = ".storageclass.storage.k8s.io/";

/// Renames the classes in one object.
pub(super) fn apply(classes: &BTreeMap<String, String>, object: &mut Value) {
    if let Some(Value::String(class)) =
        object.pointer_mut("/metadata/annotations").and_then(|a| a.get_mut(LEGACY))
    {
        rename(classes, class);
    }
    if object.get("kind").and_then(Value::as_str) == Some("ResourceQuota")
        && let Some(Value::Object(hard)) = object.pointer_mut("/spec/hard")
    {
        *hard = std::mem::take(hard)
            .into_iter()
            .map(|(key, value)| match key.split_once(QUOTA) {
                Some((class, rest)) => {
                    let class = classes.get(class).map_or(class, String::as_str);
                    (format!("{class}{QUOTA}{rest}"), value)
                }
                None => (key, value),
            })
            .collect();
    }
    if let Some(spec) = object.get_mut("spec") {
        walk(classes, spec);
    }
}

fn walk(classes: &BTreeMap<String, String>, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    // The names the ecosystem uses for a class in a spec: claims (storageClassName) and
                    // operators (storageClass).
                    Value::String(class) if key == "storageClassName" || key == "storageClass" => {
                        rename(classes, class);
                    }
                    Value::Object(inner) if key == "annotations" => {
                        if let Some(Value::String(class)) = inner.get_mut(LEGACY) {
                            rename(classes, class);
                        }
                    }
                    _ if is_opaque(key) => {}
                    _ => walk(classes, value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(classes, item)),
        _ => {}
    }
}

fn rename(classes: &BTreeMap<String, String>, class: &mut String) {
    if let Some(new) = classes.get(class) {
        class.clone_from(new);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_is_renamed_wherever_a_claim_can_be_written() {
        let classes = BTreeMap::from([("fast".to_owned(), "standard".to_owned())]);
        let cases = [
            (
                "a claim",
                json!({"kind": "PersistentVolumeClaim", "metadata": {"annotations": {LEGACY: "fast"}}, "spec": {"storageClassName": "fast"}}),
                json!({"kind": "PersistentVolumeClaim", "metadata": {"annotations": {LEGACY: "standard"}}, "spec": {"storageClassName": "standard"}}),
            ),
            (
                "claim templates, and an ephemeral claim",
                json!({"kind": "StatefulSet", "spec": {"volumeClaimTemplates": [{"metadata": {"annotations": {LEGACY: "fast"}}, "spec": {"storageClassName": "fast"}}],
                    "template": {"spec": {"volumes": [{"ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "fast"}}}}]}}}}),
                json!({"kind": "StatefulSet", "spec": {"volumeClaimTemplates": [{"metadata": {"annotations": {LEGACY: "standard"}}, "spec": {"storageClassName": "standard"}}],
                    "template": {"spec": {"volumes": [{"ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "standard"}}}}]}}}}),
            ),
            (
                "an operator's way to say it",
                json!({"kind": "Cluster", "spec": {"storage": {"size": "1Gi", "storageClass": "fast"}}}),
                json!({"kind": "Cluster", "spec": {"storage": {"size": "1Gi", "storageClass": "standard"}}}),
            ),
            (
                "a quota for a class",
                json!({"kind": "ResourceQuota", "spec": {"hard": {"fast.storageclass.storage.k8s.io/requests.storage": "5Gi", "pods": "3"}}}),
                json!({"kind": "ResourceQuota", "spec": {"hard": {"standard.storageclass.storage.k8s.io/requests.storage": "5Gi", "pods": "3"}}}),
            ),
            (
                "another class, and a label that only looks like one",
                json!({"kind": "PersistentVolumeClaim", "spec": {"storageClassName": "slow", "selector": {"matchLabels": {"storageClass": "fast"}}}}),
                json!({"kind": "PersistentVolumeClaim", "spec": {"storageClassName": "slow", "selector": {"matchLabels": {"storageClass": "fast"}}}}),
            ),
        ];
        for (story, mut object, want) in cases {
            apply(&classes, &mut object);
            assert_eq!(object, want, "{story}");
        }
    }
}
