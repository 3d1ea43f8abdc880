//! Velero's resource modifiers, as they are: the text inside the ConfigMap that `velero restore create
//! --resource-modifier-configmap` names.
//!
//! What is kept of Velero's ways: `*` in `groupResource` does not cross a dot (`*` is every resource of the
//! core group, `*.apps` every one of `apps`), names are matched by an unanchored regular expression, a value is text that
//! becomes JSON where it looks like it, a `test` that fails leaves the object as it is, and conditions are
//! asked of the object before any rule. One thing is wider: `namespaces` may name the namespace an object came
//! from or the one it goes to.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::patches::{Change, Subject, json_operations};
use crate::selector::Selector;

/// One of `resourceModifierRules`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModifierRule {
    /// Which objects.
    pub conditions: Conditions,
    /// JSON patch operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<Operation>,
    /// Merge patches, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merge_patches: Vec<PatchData>,
    /// Strategic merge patches, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strategic_patches: Vec<PatchData>,
}

/// Which objects a rule is for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Conditions {
    /// `pods`, `deployments.apps`, with `*`.
    #[serde(default)]
    pub group_resource: String,
    /// A regular expression on the name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_name_regex: String,
    /// Namespaces; all if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// A label selector as Kubernetes writes it in objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<Value>,
    /// Fields and what they must be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
}

/// A field and what it must be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// JSON pointer.
    pub path: String,
    /// The value, as text.
    #[serde(default, deserialize_with = "any_scalar")]
    pub value: String,
}

/// One JSON patch operation in Velero's words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// `add`, `remove`, `replace`, `move`, `copy`, `test`.
    pub operation: String,
    /// JSON pointer.
    pub path: String,
    /// Where `move` and `copy` take it from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// The value, as text.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "any_scalar")]
    pub value: String,
}

/// A patch as text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PatchData {
    /// YAML or JSON.
    pub patch_data: String,
}

/// YAML's `1` and `true` are taken for the text they were written as, as Velero's reader does.
fn any_scalar<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        value @ (Value::Bool(_) | Value::Number(_)) => Ok(value.to_string()),
        _ => Err(serde::de::Error::custom("a value is text: put objects and lists into quotes")),
    }
}

/// Conditions that were parsed.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    group_resource: String,
    name: Option<Regex>,
    namespaces: Vec<String>,
    labels: Selector,
    matches: Vec<(String, Value)>,
}

/// Parses one rule.
pub(super) fn check(rule: &ModifierRule) -> Result<(Checked, Change), String> {
    let conditions = &rule.conditions;
    if conditions.group_resource.is_empty() {
        return Err("groupResource is empty: name a resource, such as deployments.apps".into());
    }
    let name = match conditions.resource_name_regex.as_str() {
        "" => None,
        text => {
            let expression = Regex::new(text)
                .map_err(|e| format!("resourceNameRegex {text:?} is no regular expression: {e}"))?;
            Some(expression)
        }
    };
    let pointer = |path: &str| match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Err(format!("{path:?} is not a JSON pointer: it starts with '/'")),
    };
    let matches = conditions
        .matches
        .iter()
        .map(|one| Ok((pointer(&one.path)?, value_of(&one.value)?)))
        .collect::<Result<Vec<_>, String>>()?;
    let checked = Checked {
        group_resource: conditions.group_resource.clone(),
        name,
        namespaces: conditions.namespaces.clone(),
        labels: conditions.label_selector.as_ref().map(Selector::from_json).unwrap_or_default(),
        matches,
    };
    let texts = |patches: &[PatchData]| {
        patches
            .iter()
            .map(|patch| {
                serde_saphyr::from_str::<Value>(&patch.patch_data)
                    .map_err(|e| format!("patchData does not parse: {e}"))
                    .and_then(|value| match value {
                        Value::Object(_) => Ok(value),
                        _ => Err("patchData must be a map of fields".to_owned()),
                    })
            })
            .collect::<Result<Vec<_>, String>>()
    };
    let change =
        match (rule.patches.as_slice(), rule.merge_patches.as_slice(), rule.strategic_patches.as_slice()) {
            ([], [], []) => return Err("has no patches".into()),
            (operations, [], []) => {
                let operations = operations.iter().map(operation).collect::<Result<Vec<_>, String>>()?;
                Change::JsonIfTests(json_operations(&operations)?)
            }
            ([], merge, []) => Change::Merge(texts(merge)?),
            ([], [], strategic) => Change::Strategic(texts(strategic)?),
            _ => return Err("only one of patches, mergePatches and strategicPatches may be given".into()),
        };
    Ok((checked, change))
}

fn operation(said: &Operation) -> Result<Value, String> {
    let op = said.operation.to_ascii_lowercase();
    let mut operation = json!({"op": op, "path": said.path});
    match op.as_str() {
        "move" | "copy" => operation["from"] = said.from.clone().into(),
        "add" | "replace" | "test" => operation["value"] = value_of(&said.value)?,
        "remove" => {}
        _ => return Err(format!("unsupported operation {:?}", said.operation)),
    }
    Ok(operation)
}

/// The JSON that Velero makes of a text: in quotes it is text, and so is whatever is no null, truth value, number,
/// object or list.
fn value_of(text: &str) -> Result<Value, String> {
    if let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return serde_json::from_str(text).or_else(|_| Ok(Value::String(inner.to_owned())));
    }
    let is_json = text == "null"
        || matches!(text.to_ascii_lowercase().as_str(), "true" | "false")
        || text.starts_with(['{', '['])
        || text.parse::<f64>().is_ok();
    if !is_json {
        return Ok(text.into());
    }
    let lower = text.to_ascii_lowercase();
    let text = if matches!(lower.as_str(), "true" | "false") { &lower } else { text };
    serde_json::from_str(text).map_err(|e| format!("the value {text:?} looks like JSON and is none: {e}"))
}

impl Checked {
    /// Whether the rule is for this object.
    pub(super) fn select(&self, subject: &Subject<'_>) -> bool {
        let group = subject.text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
        let resource =
            if group.is_empty() { subject.plural.to_owned() } else { format!("{}.{group}", subject.plural) };
        let from = subject.text("/metadata/namespace");
        let in_namespace = from.is_empty()
            || self.namespaces.is_empty()
            || self.namespaces.iter().any(|name| name == "*" || name == from || name == subject.namespace);
        in_namespace
            && dotted_glob(&self.group_resource, &resource)
            && self.name.as_ref().is_none_or(|name| name.is_match(subject.text("/metadata/name")))
            && self.labels.matches(&subject.labels())
            && self.matches.iter().all(|(path, want)| subject.original.pointer(path) == Some(want))
    }
}

/// A glob whose `*` and `?` stop at dots and whose `**` does not.
fn dotted_glob(pattern: &str, text: &str) -> bool {
    let mut expression = String::from("^");
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let (taken, piece) = match first {
            '*' if rest.starts_with("**") => (2, ".*".to_owned()),
            '*' => (1, "[^.]*".to_owned()),
            '?' => (1, "[^.]".to_owned()),
            other => (other.len_utf8(), regex::escape(&other.to_string())),
        };
        expression.push_str(&piece);
        rest = rest.get(taken..).unwrap_or("");
    }
    expression.push('$');
    Regex::new(&expression).is_ok_and(|expression| expression.is_match(text))
}

/// What one of Velero's ConfigMaps holds.
pub(super) enum Found {
    /// Resource modifiers.
    Rules(Vec<ModifierRule>),
    /// The plugin's map of storage classes.
    StorageClasses(BTreeMap<String, String>),
    /// The plugin's map of nodes.
    Nodes(BTreeMap<String, String>),
}

/// Reads Velero's part of a document, if it is one: bare rules, or a ConfigMap around them.
pub(super) fn read(document: &Value) -> Result<Option<Found>, String> {
    if document.get("resourceModifierRules").is_some() {
        return rules(document).map(|rules| Some(Found::Rules(rules)));
    }
    if document.get("kind").and_then(Value::as_str) != Some("ConfigMap") {
        return Ok(None);
    }
    let data = crate::object::string_map(document.get("data"));
    let label = |name: &str| document["metadata"]["labels"].get(name).is_some();
    if label("velero.io/change-storage-class") {
        return Ok(Some(Found::StorageClasses(data)));
    }
    if label("velero.io/change-pvc-node-selector") {
        return Ok(Some(Found::Nodes(data)));
    }
    match data.values().collect::<Vec<_>>().as_slice() {
        [text] => {
            let inner: Value = serde_saphyr::from_str(text)
                .map_err(|e| format!("the resource modifiers in the ConfigMap do not parse: {e}"))?;
            rules(&inner).map(|rules| Some(Found::Rules(rules)))
        }
        several => Err(format!(
            "a ConfigMap with resource modifiers has one entry, this one has {}; for a mapping of Velero's plugins it \
             needs their label",
            several.len()
        )),
    }
}

fn rules(document: &Value) -> Result<Vec<ModifierRule>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Modifiers {
        version: String,
        resource_modifier_rules: Vec<ModifierRule>,
    }
    let modifiers: Modifiers = serde_json::from_value(document.clone())
        .map_err(|e| format!("the resource modifiers do not parse: {e}"))?;
    if !modifiers.version.eq_ignore_ascii_case("v1") {
        return Err(format!("resource modifiers of version {:?} are not known, only v1", modifiers.version));
    }
    if modifiers.resource_modifier_rules.is_empty() {
        return Err("there is no resource modifier rule in it".into());
    }
    Ok(modifiers.resource_modifier_rules)
}

#[cfg(test)]
mod tests {
    use super::super::Mapping;
    use super::*;

    fn claim() -> Value {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "mysql-data", "namespace": "shop", "labels": {"app": "db"}},
            "spec": {"storageClassName": "premium", "accessModes": ["ReadWriteOnce"]}})
    }

    /// Applies rules to an object; the spec that comes out, or the error.
    fn run(rules: &str, object: &Value, plural: &str) -> Result<Value, String> {
        let text = format!("version: v1\nresourceModifierRules:\n{rules}");
        let transform = Mapping::from_yaml(&text).and_then(Mapping::check).map_err(|e| e.to_string())?;
        let done = transform.apply(object, plural).map_err(|e| e.to_string())?;
        Ok(done.value["spec"].clone())
    }

    #[test]
    fn a_rule_selects_as_velero_selects() {
        let cases = [
            ("groupResource: persistentvolumeclaims", true),
            ("groupResource: '*'", true),
            ("groupResource: '*.*'", false),
            ("groupResource: '**'", true),
            ("groupResource: pods", false),
            ("groupResource: persistentvolumeclaims\n    resourceNameRegex: ^mysql", true),
            ("groupResource: persistentvolumeclaims\n    resourceNameRegex: data", true),
            ("groupResource: persistentvolumeclaims\n    resourceNameRegex: ^data", false),
            ("groupResource: persistentvolumeclaims\n    namespaces: [shop, other]", true),
            ("groupResource: persistentvolumeclaims\n    namespaces: [other]", false),
            ("groupResource: persistentvolumeclaims\n    labelSelector: {matchLabels: {app: db}}", true),
            (
                "groupResource: persistentvolumeclaims\n    labelSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db]}]}",
                false,
            ),
            (
                "groupResource: persistentvolumeclaims\n    matches: [{path: /spec/storageClassName, value: premium}]",
                true,
            ),
            (
                "groupResource: persistentvolumeclaims\n    matches: [{path: /spec/storageClassName, value: slow}]",
                false,
            ),
            (
                "groupResource: persistentvolumeclaims\n    matches: [{path: /spec/nothing, value: slow}]",
                false,
            ),
        ];
        for (conditions, want) in cases {
            let rule = format!(
                "- conditions:\n    {conditions}\n  patches: [{{operation: replace, path: /spec/storageClassName, value: standard}}]"
            );
            let got = run(&rule, &claim(), "persistentvolumeclaims").unwrap();
            assert_eq!(got["storageClassName"] == "standard", want, "{conditions}");
        }
        assert!(dotted_glob("*.apps", "deployments.apps"));
        assert!(!dotted_glob("*.*", "ingresses.networking.k8s.io"));
        assert!(dotted_glob("*.networking.k8s.io", "ingresses.networking.k8s.io"));
    }

    #[test]
    fn a_namespace_is_the_one_an_object_came_from_or_goes_to() {
        for (named, want) in [("shop", true), ("copy", true), ("third", false)] {
            let text = format!(
                "version: v1\nresourceModifierRules:\n- conditions: {{groupResource: persistentvolumeclaims, namespaces: [{named}]}}\n  patches: [{{operation: remove, path: /spec/storageClassName}}]"
            );
            let mut mapping = Mapping::from_yaml(&text).unwrap();
            mapping.add_namespace("shop=copy").unwrap();
            let done = mapping.check().unwrap().apply(&claim(), "persistentvolumeclaims").unwrap();
            assert_eq!(done.value["spec"].get("storageClassName").is_none(), want, "{named}");
        }
    }

    #[test]
    fn values_are_text_that_becomes_json_where_it_looks_like_it() {
        for (text, want) in [
            ("", json!("")),
            ("plain", json!("plain")),
            ("\"true\"", json!("true")),
            ("\"3\"", json!("3")),
            ("true", json!(true)),
            ("FALSE", json!(false)),
            ("3", json!(3)),
            ("-1.5", json!(-1.5)),
            ("null", json!(null)),
            ("[1, \"a\"]", json!([1, "a"])),
            ("{\"a\": 1}", json!({"a": 1})),
            ("10Gi", json!("10Gi")),
        ] {
            assert_eq!(value_of(text).unwrap(), want, "{text}");
        }
        assert!(value_of("{broken").unwrap_err().contains("looks like JSON"));
    }

    #[test]
    fn every_kind_of_patch_does_what_it_does_in_velero() {
        let all = "- conditions: {groupResource: '*'}\n  ";
        let cases = [
            (
                "patches:\n  - {operation: test, path: /spec/storageClassName, value: premium}\n  - {operation: replace, path: /spec/storageClassName, value: x}",
                json!("x"),
            ),
            (
                "patches:\n  - {operation: test, path: /spec/storageClassName, value: other}\n  - {operation: replace, path: /spec/storageClassName, value: x}",
                json!("premium"),
            ),
            (
                "patches:\n  - {operation: copy, from: /metadata/name, path: /spec/storageClassName}",
                json!("mysql-data"),
            ),
            (
                "mergePatches:\n  - patchData: |\n      {\"spec\": {\"storageClassName\": null}}\n  - patchData: |\n      spec:\n        storageClassName: two",
                json!("two"),
            ),
            ("strategicPatches:\n  - patchData: |\n      spec: {storageClassName: three}", json!("three")),
        ];
        for (patches, want) in cases {
            let got = run(&format!("{all}{patches}"), &claim(), "persistentvolumeclaims").unwrap();
            assert_eq!(got["storageClassName"], want, "{patches}");
            assert_eq!(got["accessModes"], json!(["ReadWriteOnce"]), "{patches}");
        }
        for (rule, want) in [
            (format!("{all}patches: [{{operation: remove, path: /spec/nothing}}]"), "resource modifier rule 1 does not fit"),
            (format!("{all}patches: [{{operation: put, path: /spec}}]"), "unsupported operation \"put\""),
            (format!("{all}patches: []"), "has no patches"),
            (format!("{all}mergePatches: [{{patchData: '{{'}}]"), "patchData does not parse"),
            ("- conditions: {}\n  patches: [{operation: remove, path: /a}]".to_owned(), "groupResource is empty"),
            ("- conditions: {groupResource: pods, resourceNameRegex: '('}\n  patches: [{operation: remove, path: /a}]".to_owned(), "no regular expression"),
            ("- conditions: {groupResources: pods}\n  patches: []".to_owned(), "groupResources"),
        ] {
            let error = run(&rule, &claim(), "persistentvolumeclaims").unwrap_err();
            assert!(error.contains(want), "{rule}: {error}");
        }
    }

    #[test]
    fn a_config_map_is_taken_as_velero_takes_it() {
        let inner = "version: v1\\nresourceModifierRules:\\n- conditions: {groupResource: pods}\\n  patches: [{operation: remove, path: /a}]";
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m, namespace: velero}}\ndata:\n  modifiers.yaml: \"{inner}\"\n"
        );
        assert_eq!(Mapping::from_yaml(&text).unwrap().resource_modifier_rules.len(), 1);
        let classes = "kind: ConfigMap\nmetadata: {labels: {velero.io/plugin-config: '', velero.io/change-storage-class: RestoreItemAction}}\ndata: {fast: slow}";
        assert_eq!(Mapping::from_yaml(classes).unwrap().storage_classes["fast"], "slow");
        let nodes = "kind: ConfigMap\nmetadata: {labels: {velero.io/change-pvc-node-selector: RestoreItemAction}}\ndata: {n1: n2}";
        assert_eq!(Mapping::from_yaml(nodes).unwrap().nodes["n1"], "n2");
        for (text, want) in [
            ("kind: ConfigMap\ndata: {a: x, b: z}", "has one entry, this one has 2"),
            ("version: v2\nresourceModifierRules: []", "of version \"v2\" are not known"),
            ("version: v1\nresourceModifierRules: []", "no resource modifier rule"),
        ] {
            let error = Mapping::from_yaml(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
