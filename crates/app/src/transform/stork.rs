//! Stork's ResourceTransformation, as it is.
//!
//! A spec names a kind (`apps/v1/Deployment`; the version does not matter to us), labels, and paths in dots
//! (`spec.template.spec.priorityClassName`), which lead through maps only, as in Stork. `add` sets, `modify` sets, or
//! merges into a `keypair` or `slice` that is there, `delete` removes if it is there. An object in a namespace of its own
//! is meant only if the transformation lies in that namespace, or names none.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::patches::{Change, Subject};
use std::collections::BTreeMap;

/// One of `transformSpecs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformSpec {
    /// `group/version/kind`; the core group is empty or `core`.
    pub resource: String,
    /// Labels the object must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selectors: BTreeMap<String, String>,
    /// What is changed.
    pub paths: Vec<PathSpec>,
    /// The namespace the transformation lies in; empty for any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// One path and what becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathSpec {
    /// Fields, joined by dots.
    pub path: String,
    /// The value, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `int`, `string`, `bool`, `slice` (`a,b`) or `keypair` (`k:v,l:w`).
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// `add`, `modify` or `delete`.
    pub operation: String,
}

/// What a spec selects.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    group: String,
    kind: String,
    labels: BTreeMap<String, String>,
    namespace: String,
}

/// One change that was parsed.
#[derive(Debug, Clone)]
pub(super) struct PathChange {
    path: Vec<String>,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Set(Value),
    /// Into a map that is there.
    Into(Map<String, Value>),
    /// To the end of a list.
    Append(Vec<Value>),
    Remove,
}

/// Parses one spec.
pub(super) fn check(spec: &TransformSpec) -> Result<(Checked, Change), String> {
    let parts: Vec<&str> = spec.resource.split('/').collect();
    let [group, _, kind] = parts.as_slice() else {
        return Err(format!("resource {:?} is not group/version/kind", spec.resource));
    };
    if spec.paths.is_empty() {
        return Err(format!("{} has no paths", spec.resource));
    }
    let changes = spec.paths.iter().map(parse).collect::<Result<Vec<_>, String>>()?;
    let checked = Checked {
        group: if *group == "core" { String::new() } else { (*group).to_owned() },
        kind: (*kind).to_owned(),
        labels: spec.selectors.clone(),
        namespace: spec.namespace.clone(),
    };
    Ok((checked, Change::Paths(changes)))
}

fn parse(said: &PathSpec) -> Result<PathChange, String> {
    let wrong = |why: &str| format!("path {:?}: {why}", said.path);
    if said.path.is_empty() || said.path.split('.').any(str::is_empty) {
        return Err(wrong("is not fields joined by dots"));
    }
    let pairs = || {
        let pair = |text: &str| match text.split(':').collect::<Vec<_>>().as_slice() {
            [key, value] => Ok(((*key).to_owned(), Value::from(*value))),
            _ => Err(wrong(&format!("{text:?} is not key:value"))),
        };
        said.value.split(',').map(pair).collect::<Result<Map<_, _>, _>>()
    };
    let items = || said.value.split(',').map(Value::from).collect::<Vec<_>>();
    let scalar = || match said.kind.as_str() {
        "int" => said
            .value
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| wrong(&format!("{:?} is no whole number", said.value))),
        "bool" => match said.value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true.into()),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false.into()),
            _ => Err(wrong(&format!("{:?} is neither true nor false", said.value))),
        },
        "string" | "" => Ok(said.value.clone().into()),
        other => Err(wrong(&format!("type {other:?} is none of int, string, bool, slice, keypair"))),
    };
    let what = match (said.operation.as_str(), said.kind.as_str()) {
        ("delete", _) => What::Remove,
        ("add", "keypair") => What::Set(Value::Object(pairs()?)),
        ("add", "slice") => What::Set(items().into()),
        ("modify", "keypair") => What::Into(pairs()?),
        ("modify", "slice") => What::Append(items()),
        ("add" | "modify", _) => What::Set(scalar()?),
        (other, _) => {
            return Err(wrong(&format!("operation {other:?} is none of add, modify, delete")));
        }
    };
    Ok(PathChange { path: said.path.split('.').map(str::to_owned).collect(), what })
}

impl Checked {
    /// Whether the spec is for this object.
    pub(super) fn selects(&self, subject: &Subject<'_>) -> bool {
        let group = subject.text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
        let namespace = subject.text("/metadata/namespace");
        let labels = subject.labels();
        group == self.group
            && subject.text("/kind") == self.kind
            && (self.namespace.is_empty() || namespace.is_empty() || namespace == self.namespace)
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl PathChange {
    /// Does it, or says why it does not fit.
    pub(super) fn apply(&self, object: &mut Value) -> Result<(), String> {
        let Some((last, parents)) = self.path.split_last() else { return Ok(()) };
        let path = || self.path.join(".");
        let mut at = object;
        for parent in parents {
            let Value::Object(fields) = at else {
                return Err(format!("{} leads through what is no map", path()));
            };
            if matches!(self.what, What::Remove) && !fields.contains_key(parent) {
                return Ok(());
            }
            at = fields.entry(parent.clone()).or_insert_with(|| Value::Object(Map::new()));
        }
        let Value::Object(fields) = at else {
            return Err(format!("{} leads through what is no map", path()));
        };
        match &self.what {
            What::Set(value) => {
                fields.insert(last.clone(), value.clone());
            }
            What::Remove => {
                fields.shift_remove(last);
            }
            What::Into(pairs) => match fields.get_mut(last) {
                Some(Value::Object(map)) if !map.is_empty() => {
                    map.extend(pairs.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
                _ => return Err(format!("{} is not there to be modified", path())),
            },
            What::Append(items) => {
                match fields.entry(last.clone()).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(list) => list.extend(items.iter().cloned()),
                    _ => return Err(format!("{} is no list", path())),
                }
            }
        }
        Ok(())
    }
}

/// Reads a ResourceTransformation, if the document is one.
pub(super) fn read(document: &Value) -> Result<Option<Vec<TransformSpec>>, String> {
    if document.get("kind").and_then(Value::as_str) != Some("ResourceTransformation") {
        return Ok(None);
    }
    let specs = ["specs", "spec"].iter().find_map(|name| document.get(*name)?.get("transformSpecs"));
    let Some(specs) = specs else {
        return Err("the ResourceTransformation has no specs.transformSpecs".into());
    };
    let mut specs: Vec<TransformSpec> = serde_json::from_value(specs.clone())
        .map_err(|e| format!("the ResourceTransformation does not parse: {e}"))?;
    let namespace = document["metadata"]["namespace"].as_str().unwrap_or("");
    specs.iter_mut().for_each(|spec| namespace.clone_into(&mut spec.namespace));
    Ok(Some(specs))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Mapping;

    fn service() -> super::Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "externalIPs": ["1.1.1.1"]}})
    }

    fn run(namespace: &str, resource: &str, selectors: &str, path: &str) -> Result<super::Value, String> {
        let text = format!(
            "apiVersion: stork.libopenstorage.org/v1alpha1\nkind: ResourceTransformation\nmetadata: {{name: t{namespace}}}\nspecs:\n  transformSpecs:\n  - resource: {resource}\n    selectors: {selectors}\n    paths: [{path}]\n"
        );
        let transform = Mapping::from_yaml(&text).and_then(Mapping::check).map_err(|e| e.to_string())?;
        Ok(transform.apply(&service(), "services").map_err(|e| e.to_string())?.value["spec"].clone())
    }

    #[test]
    fn paths_are_changed_as_stork_changes_them() {
        let cases = [
            (
                "{path: spec.type, value: ClusterIP, type: string, operation: modify}",
                "/type",
                Some(json!("ClusterIP")),
            ),
            (
                "{path: spec.healthCheckNodePort, value: '30000', type: int, operation: add}",
                "/healthCheckNodePort",
                Some(json!(30000)),
            ),
            (
                "{path: spec.publishNotReadyAddresses, value: 'true', type: bool, operation: add}",
                "/publishNotReadyAddresses",
                Some(json!(true)),
            ),
            (
                "{path: spec.selector, value: 'tier:front,x:y', type: keypair, operation: modify}",
                "/selector",
                Some(json!({"app": "web", "tier": "front", "x": "y"})),
            ),
            (
                "{path: spec.selector, value: 'tier:front', type: keypair, operation: add}",
                "/selector",
                Some(json!({"tier": "front"})),
            ),
            (
                "{path: spec.externalIPs, value: '2.2.2.2,3.3.3.3', type: slice, operation: modify}",
                "/externalIPs",
                Some(json!(["1.1.1.1", "2.2.2.2", "3.3.3.3"])),
            ),
            (
                "{path: spec.externalIPs, value: 2.2.2.2, type: slice, operation: add}",
                "/externalIPs",
                Some(json!(["2.2.2.2"])),
            ),
            ("{path: spec.type, operation: delete, type: string}", "/type", None),
            ("{path: spec.no.such, operation: delete, type: string}", "/no", None),
        ];
        for (path, at, want) in cases {
            let got = run("", "/v1/Service", "{app: web}", path).unwrap();
            assert_eq!(got.pointer(at), want.as_ref(), "{path}");
        }
    }

    #[test]
    fn what_it_does_not_select_stays_and_what_does_not_fit_is_told() {
        let set = "{path: spec.type, value: x, type: string, operation: modify}";
        for (namespace, resource, selectors, want) in [
            ("", "core/v1/Service", "{}", "x"),
            (", namespace: shop", "/v1/Service", "{app: web}", "x"),
            (", namespace: other", "/v1/Service", "{}", "LoadBalancer"),
            ("", "/v1/Service", "{app: db}", "LoadBalancer"),
            ("", "apps/v1/Deployment", "{}", "LoadBalancer"),
        ] {
            assert_eq!(
                run(namespace, resource, selectors, set).unwrap()["type"],
                want,
                "{namespace}{resource}{selectors}"
            );
        }
        for (resource, path, want) in [
            ("v1/Service", set, "is not group/version/kind"),
            ("/v1/Service", "{path: spec.x, value: a, type: int, operation: add}", "is no whole number"),
            ("/v1/Service", "{path: spec.x, value: a, type: keypair, operation: add}", "is not key:value"),
            (
                "/v1/Service",
                "{path: spec.x, value: 'a:b', type: keypair, operation: modify}",
                "is not there to be modified",
            ),
            (
                "/v1/Service",
                "{path: spec.type.x, value: a, type: string, operation: add}",
                "leads through what is no map",
            ),
            (
                "/v1/Service",
                "{path: spec.x, value: a, type: string, operation: jsonpatch}",
                "none of add, modify, delete",
            ),
        ] {
            let error = run("", resource, "{}", path).unwrap_err();
            assert!(error.contains(want), "{path}: {error}");
        }
    }
}
