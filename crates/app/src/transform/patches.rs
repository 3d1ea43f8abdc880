//! JSON patches (RFC 6902) on the objects a target selects.
//!
//! A patch that does not fit an object it selects stops the plan: someone asked for the change, and a
//! restore without it may do harm. A patch may not rename: references would point to nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MappingError, TransformError, title};
use crate::selector::glob;

/// One patch with what it selects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchRule {
    /// Which objects.
    pub target: Target,
    /// The operations, as RFC 6902 writes them.
    pub patch: Vec<Value>,
}

/// Which objects a patch is for. Every field is a glob (`*` any run, `?` one character); one left out
/// matches everything. `core` is the group without a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    /// API group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name in the recovery point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace in the recovery point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Target {
    /// Whether it selects the object.
    pub fn selects(&self, object: &Value) -> bool {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let group = text("/apiVersion").split_once('/').map_or("core", |(group, _)| group);
        let fits = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|want| glob(want, have));
        let group_fits = match self.group.as_deref() {
            Some("") => group == "core",
            _ => fits(&self.group, group),
        };
        group_fits
            && fits(&self.kind, text("/kind"))
            && fits(&self.name, text("/metadata/name"))
            && fits(&self.namespace, text("/metadata/namespace"))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = [
            ("group", &self.group),
            ("kind", &self.kind),
            ("namespace", &self.namespace),
            ("name", &self.name),
        ]
        .into_iter()
        .filter_map(|(what, value)| value.as_ref().map(|value| format!("{what} {value}")))
        .collect();
        if parts.is_empty() { f.write_str("every object") } else { f.write_str(&parts.join(", ")) }
    }
}

/// A patch whose operations were parsed.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    target: Target,
    patch: json_patch::Patch,
}

/// Parses every operation of every patch.
pub(super) fn check(rules: &[PatchRule]) -> Result<Vec<Checked>, MappingError> {
    let mut checked = Vec::with_capacity(rules.len());
    for (at, rule) in rules.iter().enumerate() {
        let wrong = |why: String| MappingError::Patch { index: at + 1, target: rule.target.to_string(), why };
        if rule.patch.is_empty() {
            return Err(wrong("has no operations".into()));
        }
        let mut operations = Vec::with_capacity(rule.patch.len());
        for (at, operation) in rule.patch.iter().enumerate() {
            let parsed: json_patch::PatchOperation =
                serde_json::from_value(operation.clone()).map_err(|e| {
                    wrong(format!("operation {} ({operation}) is not a JSON patch operation: {e}", at + 1))
                })?;
            operations.push(parsed);
        }
        checked.push(Checked { target: rule.target.clone(), patch: json_patch::Patch(operations) });
    }
    Ok(checked)
}

/// Applies the patches that select `original` to `value`; returns which did.
pub(super) fn apply(
    patches: &[Checked],
    original: &Value,
    value: &mut Value,
) -> Result<Vec<usize>, TransformError> {
    const IDENTITY: [(&str, &str); 4] = [
        ("apiVersion", "/apiVersion"),
        ("kind", "/kind"),
        ("metadata.name", "/metadata/name"),
        ("metadata.namespace", "/metadata/namespace"),
    ];
    let mut patched = Vec::new();
    for (at, rule) in patches.iter().enumerate() {
        if !rule.target.selects(original) {
            continue;
        }
        let before = IDENTITY.map(|(_, pointer)| value.pointer(pointer).cloned());
        json_patch::patch(value, &rule.patch).map_err(|e| TransformError::Patch {
            index: at + 1,
            object: title(original),
            why: e.to_string(),
        })?;
        for ((field, pointer), before) in IDENTITY.iter().zip(before) {
            if value.pointer(pointer) != before.as_ref() {
                return Err(TransformError::Identity { index: at + 1, field, object: title(original) });
            }
        }
        patched.push(at);
    }
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Mapping;
    use super::*;

    fn deployment() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": 3}})
    }

    #[test]
    fn a_target_selects_by_globs_and_what_it_leaves_out_matches_everything() {
        let cases = [
            ("{}", true),
            ("{kind: Deployment}", true),
            ("{group: apps}", true),
            ("{group: '*'}", true),
            ("{group: ''}", false),
            ("{group: core}", false),
            ("{name: 'w*'}", true),
            ("{name: 'w?b', namespace: shop}", true),
            ("{name: 'w?'}", false),
            ("{name: web-*}", false),
            ("{namespace: sho}", false),
        ];
        for (target, want) in cases {
            let target: Target = serde_saphyr::from_str(target).unwrap();
            assert_eq!(target.selects(&deployment()), want, "{target}");
        }
    }

    fn check_patch(operations: &str, want: Result<Value, &str>) {
        let yaml = format!("patches: [{{target: {{kind: Deployment}}, patch: [{operations}]}}]");
        let transform = Mapping::from_yaml(&yaml).unwrap().check().unwrap();
        match (transform.apply(&deployment()), want) {
            (Ok(done), Ok(want)) => assert_eq!(done.value.get("spec"), Some(&want), "{operations}"),
            (Err(error), Err(want)) => {
                assert!(error.to_string().contains(want), "{operations}: {error}");
            }
            (got, want) => panic!("{operations}: {got:?}, expected {want:?}"),
        }
    }

    #[test]
    fn a_patch_has_the_last_word_and_one_that_does_not_fit_stops_the_plan() {
        check_patch("{op: replace, path: /spec/replicas, value: 1}", Ok(json!({"replicas": 1})));
        check_patch("{op: add, path: /spec/paused, value: true}", Ok(json!({"replicas": 3, "paused": true})));
        check_patch(
            "{op: test, path: /spec/replicas, value: 3}, {op: remove, path: /spec/replicas}",
            Ok(json!({})),
        );
        check_patch(
            "{op: test, path: /spec/replicas, value: 4}",
            Err("patch 1 does not fit Deployment shop/web"),
        );
        check_patch("{op: remove, path: /spec/nothing}", Err("patch 1 does not fit Deployment shop/web"));
        check_patch(
            "{op: replace, path: /metadata/name, value: other}",
            Err("patch 1 changes metadata.name of Deployment shop/web"),
        );
    }
}
