//! Patches on the objects a rule selects: JSON patches (RFC 6902), merge patches (RFC 7386) and Kubernetes'
//! strategic merge patches; our own rules, Velero's resource modifiers and Stork's transformations.
//!
//! A patch that does not fit an object it selects stops the plan: someone asked for the change, and a
//! restore without it may do harm. A patch may not rename: references would point to nothing. Conditions are
//! asked of the object as it is in the point, so that no rule changes what the next one selects.

use apiserver::strategic_merge;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Mapping, MappingError, TransformError, stork, title, velero};
use crate::object::string_map;
use crate::selector::{Selector, glob};

/// One patch with what it selects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchRule {
    /// Which objects.
    pub target: Target,
    /// Only if all of these hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// The operations, as RFC 6902 writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patch: Vec<Value>,
    /// Or a merge patch, as RFC 7386 writes it: null removes, lists are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Value>,
    /// Or a strategic merge patch: lists of Kubernetes' own kinds are merged by their keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategic: Option<Value>,
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
    /// Labels, as `kubectl -l` writes them; no glob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
}

impl Target {
    /// Whether it selects the object, labels aside.
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
            ("labels", &self.labels),
        ]
        .into_iter()
        .filter_map(|(what, value)| value.as_ref().map(|value| format!("{what} {value}")))
        .collect();
        if parts.is_empty() { f.write_str("every object") } else { f.write_str(&parts.join(", ")) }
    }
}

/// Something that must hold of the object as it is in the point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// JSON pointer of a field.
    pub path: String,
    /// What it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Or what it must not be; a field that is absent is not it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Value>,
    /// Or whether it must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
}

impl Condition {
    fn holds(&self, object: &Value) -> bool {
        let found = object.pointer(&self.path);
        self.value.as_ref().is_none_or(|want| found == Some(want))
            && self.not.as_ref().is_none_or(|not| found != Some(not))
            && self.exists.is_none_or(|want| found.is_some() == want)
    }

    fn check(&self) -> Result<(), String> {
        let said = [self.value.is_some(), self.not.is_some(), self.exists.is_some()];
        if said.iter().filter(|said| **said).count() != 1 {
            return Err(format!("the condition on {:?} needs one of value, not and exists", self.path));
        }
        if !self.path.is_empty() && !self.path.starts_with('/') {
            return Err(format!("{:?} is not a JSON pointer: it starts with '/'", self.path));
        }
        Ok(())
    }
}

/// A rule that was parsed.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    /// How messages call it: `patch 2`, `resource modifier rule 1`.
    pub(super) name: String,
    /// What it selects, in words.
    pub(super) selects: String,
    select: Select,
    change: Change,
}

#[derive(Debug, Clone)]
enum Select {
    Own(Target, Selector, Vec<Condition>),
    Velero(velero::Checked),
    Stork(stork::Checked),
}

/// What is done to an object.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Json(json_patch::Patch),
    /// As Velero does it: a `test` that fails leaves the object as it is.
    JsonIfTests(json_patch::Patch),
    Merge(Vec<Value>),
    Strategic(Vec<Value>),
    Paths(Vec<stork::PathChange>),
}

/// Parses every rule of a mapping.
pub(super) fn check(mapping: &Mapping) -> Result<Vec<Checked>, MappingError> {
    let mut checked = Vec::new();
    for (at, rule) in mapping.patches.iter().enumerate() {
        let wrong = |why: String| MappingError::Patch { index: at + 1, target: rule.target.to_string(), why };
        let labels = match &rule.target.labels {
            Some(text) => Selector::parse(text).map_err(wrong)?,
            None => Selector::default(),
        };
        rule.when.iter().try_for_each(Condition::check).map_err(wrong)?;
        checked.push(Checked {
            name: format!("patch {}", at + 1),
            selects: rule.target.to_string(),
            select: Select::Own(rule.target.clone(), labels, rule.when.clone()),
            change: own_change(rule).map_err(wrong)?,
        });
    }
    for (at, rule) in mapping.resource_modifier_rules.iter().enumerate() {
        let (select, change) =
            velero::check(rule).map_err(|why| MappingError::Velero { index: at + 1, why })?;
        checked.push(Checked {
            name: format!("resource modifier rule {}", at + 1),
            selects: rule.conditions.group_resource.clone(),
            select: Select::Velero(select),
            change,
        });
    }
    for (at, spec) in mapping.transform_specs.iter().enumerate() {
        let (select, change) =
            stork::check(spec).map_err(|why| MappingError::Stork { index: at + 1, why })?;
        checked.push(Checked {
            name: format!("transform spec {}", at + 1),
            selects: spec.resource.clone(),
            select: Select::Stork(select),
            change,
        });
    }
    Ok(checked)
}

fn own_change(rule: &PatchRule) -> Result<Change, String> {
    let is_map = |what: &str, value: &Value| match value {
        Value::Object(_) => Ok(value.clone()),
        _ => Err(format!("{what} must be a map of fields")),
    };
    match (rule.patch.as_slice(), &rule.merge, &rule.strategic) {
        ([], None, None) => Err("has no operations: write one of patch, merge and strategic".into()),
        (operations, None, None) => json_operations(operations).map(Change::Json),
        ([], Some(merge), None) => Ok(Change::Merge(vec![is_map("merge", merge)?])),
        ([], None, Some(strategic)) => Ok(Change::Strategic(vec![is_map("strategic", strategic)?])),
        _ => Err("has more than one of patch, merge and strategic: write a rule for each".into()),
    }
}

/// Parses the operations of a JSON patch.
pub(super) fn json_operations(operations: &[Value]) -> Result<json_patch::Patch, String> {
    let parse = |(at, operation): (usize, &Value)| {
        serde_json::from_value::<json_patch::PatchOperation>(operation.clone())
            .map_err(|e| format!("operation {} ({operation}) is not a JSON patch operation: {e}", at + 1))
    };
    Ok(json_patch::Patch(operations.iter().enumerate().map(parse).collect::<Result<_, _>>()?))
}

/// The object a rule is asked about.
pub(super) struct Subject<'a> {
    /// As it is in the point.
    pub(super) original: &'a Value,
    /// Its resource's name in paths: `deployments`.
    pub(super) plural: &'a str,
    /// The namespace it goes to.
    pub(super) namespace: &'a str,
}

impl Subject<'_> {
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.original.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    pub(super) fn labels(&self) -> std::collections::BTreeMap<String, String> {
        string_map(self.original.pointer("/metadata/labels"))
    }
}

fn selects(rule: &Checked, subject: &Subject<'_>) -> bool {
    match &rule.select {
        Select::Own(target, labels, when) => {
            target.selects(subject.original)
                && labels.matches(&subject.labels())
                && when.iter().all(|condition| condition.holds(subject.original))
        }
        Select::Velero(conditions) => conditions.select(subject),
        Select::Stork(spec) => spec.selects(subject),
    }
}

/// Applies the rules that select the subject to `value`; returns which did.
pub(super) fn apply(
    rules: &[Checked],
    subject: &Subject<'_>,
    value: &mut Value,
) -> Result<Vec<usize>, TransformError> {
    const IDENTITY: [(&str, &str); 4] = [
        ("apiVersion", "/apiVersion"),
        ("kind", "/kind"),
        ("metadata.name", "/metadata/name"),
        ("metadata.namespace", "/metadata/namespace"),
    ];
    let mut patched = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        if !selects(rule, subject) {
            continue;
        }
        let before = IDENTITY.map(|(_, pointer)| value.pointer(pointer).cloned());
        change(&rule.change, value).map_err(|why| TransformError::Patch {
            rule: rule.name.clone(),
            object: title(subject.original),
            why,
        })?;
        for ((field, pointer), before) in IDENTITY.iter().zip(before) {
            if value.pointer(pointer) != before.as_ref() {
                return Err(TransformError::Identity {
                    rule: rule.name.clone(),
                    field,
                    object: title(subject.original),
                });
            }
        }
        patched.push(at);
    }
    Ok(patched)
}

fn change(change: &Change, value: &mut Value) -> Result<(), String> {
    match change {
        Change::Json(patch) => json_patch::patch(value, patch).map_err(|e| e.to_string()),
        Change::JsonIfTests(patch) => {
            let tests = patch.0.iter().position(|o| !matches!(o, json_patch::PatchOperation::Test(_)));
            let leading = patch.0.get(..tests.unwrap_or(patch.0.len())).unwrap_or_default();
            let mut tried = value.clone();
            match json_patch::patch(&mut tried, &patch.0) {
                Ok(()) => *value = tried,
                // Whatever else does not fit is a mistake; a test is a question, and the answer was no.
                Err(error) if matches!(error.kind, json_patch::PatchErrorKind::TestFailed) => {}
                Err(_) if json_patch::patch(&mut value.clone(), leading).is_err() => {}
                Err(error) => return Err(error.to_string()),
            }
            Ok(())
        }
        Change::Merge(patches) => {
            patches.iter().for_each(|patch| json_patch::merge(value, patch));
            Ok(())
        }
        Change::Strategic(patches) => {
            let text = |value: &Value, field: &str| value[field].as_str().unwrap_or("").to_owned();
            let (api_version, kind) = (text(value, "apiVersion"), text(value, "kind"));
            patches.iter().try_for_each(|patch| strategic_merge(&api_version, &kind, value, patch))
        }
        Change::Paths(changes) => changes.iter().try_for_each(|change| change.apply(value)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Mapping;
    use super::*;

    fn deployment() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop", "labels": {"tier": "front"}},
            "spec": {"replicas": 3}})
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

    fn check_rules(rules: &str, object: Value, want: Result<Value, &str>) {
        let transform = Mapping::from_yaml(&format!("patches: [{rules}]")).and_then(Mapping::check).unwrap();
        match (transform.apply(&object, "deployments"), want) {
            (Ok(done), Ok(want)) => assert_eq!(done.value.get("spec"), Some(&want), "{rules}"),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{rules}: {error}"),
            (got, want) => panic!("{rules}: {got:?}, expected {want:?}"),
        }
    }

    fn check_patch(operations: &str, want: Result<Value, &str>) {
        check_rules(&format!("{{target: {{kind: Deployment}}, patch: [{operations}]}}"), deployment(), want);
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

    #[test]
    fn merge_and_strategic_patches_change_what_they_name_and_only_where_their_conditions_hold() {
        let three = || Ok(json!({"replicas": 3}));
        let one = || Ok(json!({"replicas": 1}));
        let cases = [
            ("{target: {}, merge: {spec: {replicas: 1}}}", one()),
            ("{target: {}, merge: {spec: {replicas: null, paused: true}}}", Ok(json!({"paused": true}))),
            ("{target: {labels: tier=front}, merge: {spec: {replicas: 1}}}", one()),
            ("{target: {labels: 'tier!=front'}, merge: {spec: {replicas: 1}}}", three()),
            ("{target: {}, when: [{path: /spec/replicas, value: 3}], merge: {spec: {replicas: 1}}}", one()),
            ("{target: {}, when: [{path: /spec/replicas, value: 4}], merge: {spec: {replicas: 1}}}", three()),
            ("{target: {}, when: [{path: /spec/replicas, not: 3}], merge: {spec: {replicas: 1}}}", three()),
            ("{target: {}, when: [{path: /spec/x, not: 3}], merge: {spec: {replicas: 1}}}", one()),
            ("{target: {}, when: [{path: /spec/x, exists: false}], merge: {spec: {replicas: 1}}}", one()),
            ("{target: {}, when: [{path: /spec/x, exists: true}], merge: {spec: {replicas: 1}}}", three()),
            // Asked of the point, so the rule before does not change what this one selects.
            (
                "{target: {}, merge: {spec: {replicas: 9}}}, {target: {}, when: [{path: /spec/replicas, value: 3}], merge: {spec: {replicas: 1}}}",
                one(),
            ),
            (
                "{target: {}, merge: {metadata: {namespace: other}}}",
                Err("patch 1 changes metadata.namespace"),
            ),
        ];
        for (rules, want) in cases {
            check_rules(rules, deployment(), want);
        }
        let mut object = deployment();
        object["spec"]["template"]["spec"]["containers"] =
            json!([{"name": "web", "image": "w:1"}, {"name": "proxy", "image": "p:1"}]);
        let mut want = object["spec"].clone();
        want["template"]["spec"]["containers"][1]["image"] = "p:2".into();
        check_rules(
            "{target: {}, strategic: {spec: {template: {spec: {containers: [{name: proxy, image: 'p:2'}]}}}}}",
            object,
            Ok(want),
        );
    }

    #[test]
    fn a_rule_that_says_two_things_or_none_is_refused() {
        for (rule, want) in [
            ("{target: {}, patch: [], merge: {a: 1}, strategic: {a: 1}}", "more than one of patch, merge"),
            ("{target: {}, merge: 3}", "merge must be a map of fields"),
            ("{target: {labels: 'a in'}, merge: {a: 1}}", "label selector"),
            ("{target: {}, when: [{path: a, value: 1}], merge: {a: 1}}", "is not a JSON pointer"),
            ("{target: {}, when: [{path: /a}], merge: {a: 1}}", "needs one of value, not and exists"),
        ] {
            let error =
                Mapping::from_yaml(&format!("patches: [{rule}]")).and_then(Mapping::check).unwrap_err();
            assert!(error.to_string().contains(want), "{rule}: {error}");
        }
    }
}
