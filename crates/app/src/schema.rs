//! References that a custom resource's definition tells: its structural schema says what a field is where the field's own
//! name does not. Read once a definition, not once an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::graph::{By, RefKind};
use crate::names;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, Target, escape, pod_rules, walk};
use crate::selector::Selector;

/// What stands at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// An object with the name of a Secret, or of a ConfigMap.
    Key(&'static str, RefKind),
    /// An object with the name of one of this kind of the same group.
    Kin(Kin),
    /// A label selector for pods.
    Pods,
    /// A pod spec.
    PodSpec,
}

/// A kind of the same API group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kin {
    /// Group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Does it live outside of namespaces?
    pub cluster_scoped: bool,
}

/// The places of one kind's schema that hold references, as patterns of JSON pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema(Vec<(String, What)>);

/// Deeper than this no schema goes that a person wrote; one that does is cut off.
const DEPTH: usize = 32;

/// The schemas of all definitions that tell something, by group and kind.
pub fn all(definitions: &[&Object]) -> BTreeMap<(String, String), Schema> {
    let mut kin: BTreeMap<&str, BTreeMap<String, Kin>> = BTreeMap::new();
    for definition in definitions {
        let (group, kind) = (definition.str("/spec/group"), definition.str("/spec/names/kind"));
        let one = Kin {
            group: group.to_owned(),
            kind: kind.to_owned(),
            cluster_scoped: definition.str("/spec/scope") == "Cluster",
        };
        kin.entry(group).or_default().insert(kind.to_ascii_lowercase(), one);
    }
    let mut schemas = BTreeMap::new();
    let none = BTreeMap::new();
    for definition in definitions {
        let (group, kind) = (definition.str("/spec/group"), definition.str("/spec/names/kind"));
        let schema = Schema::of(definition, kin.get(group).unwrap_or(&none));
        if !schema.0.is_empty() {
            schemas.insert((group.to_owned(), kind.to_owned()), schema);
        }
    }
    schemas
}

impl Schema {
    /// Reads a definition. All its versions count: an object may be served in any.
    fn of(definition: &Object, kin: &BTreeMap<String, Kin>) -> Schema {
        let mut schema = Schema::default();
        let versions = definition.at("/spec/versions").and_then(Value::as_array);
        let each = versions.into_iter().flatten().filter_map(|v| v.pointer("/schema/openAPIV3Schema"));
        for root in each.chain(definition.at("/spec/validation/openAPIV3Schema")) {
            for (name, field) in properties(root) {
                if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status") {
                    schema.below(name, field, format!("/{}", escape(name)), kin, 0);
                }
            }
        }
        schema.0.sort_by(|a, b| a.0.cmp(&b.0));
        schema.0.dedup();
        schema
    }

    fn below(&mut self, name: &str, field: &Value, at: String, kin: &BTreeMap<String, Kin>, depth: usize) {
        if depth > DEPTH {
            return;
        }
        if let Some(what) = what(name, field, kin) {
            let ends = what != What::Pods;
            self.0.push((at.clone(), what));
            if ends {
                return;
            }
        }
        for (name, field) in properties(field) {
            self.below(name, field, format!("{at}/{}", escape(name)), kin, depth + 1);
        }
        for many in ["items", "additionalProperties"] {
            if let Some(item) = field.get(many).filter(|v| v.is_object()) {
                self.below(name, item, format!("{at}/*"), kin, depth + 1);
            }
        }
    }

    /// The references it finds in an object, but those that are known already.
    pub fn find(&self, object: &Object, found: &mut Vec<Found>) {
        let told = found.len();
        for (pattern, what) in &self.0 {
            walk(&object.0, pattern, String::new(), false, &mut |value, at, _| {
                let is_told = |f: &Found| {
                    f.by != By::Text
                        && (f.at == at || f.at.strip_prefix(&at).is_some_and(|rest| rest.starts_with('/')))
                };
                if found.iter().take(told).any(is_told) {
                    return;
                }
                let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("");
                let here = match text("namespace") {
                    "" => object.namespace(),
                    other => other,
                };
                let mut named = |group: &str, kind: &str, namespace: &str, via: RefKind| {
                    if !text("name").is_empty() {
                        let key = ObjectKey::new(group, kind, namespace, text("name"));
                        found.push(Found::object(key, via, format!("{at}/name")).by(By::Schema));
                    }
                };
                match what {
                    What::Key(kind, via) => named("", kind, here, *via),
                    What::Kin(kin) => {
                        let namespace = if kin.cluster_scoped { "" } else { here };
                        named(&kin.group, &kin.kind, namespace, RefKind::Other);
                    }
                    What::Pods => {
                        let selector = Selector::from_json(value);
                        if !selector.is_empty() {
                            let target = Target::Pods(object.namespace().to_owned(), selector);
                            found.push(Found::to(target, RefKind::Selects, at).by(By::Schema));
                        }
                    }
                    What::PodSpec => {
                        let from = found.len();
                        pod_rules(object, &at, found);
                        crate::kinds::podspec::text(object, &at, found);
                        found
                            .iter_mut()
                            .skip(from)
                            .filter(|f| f.by == By::Table)
                            .for_each(|f| f.by = By::Schema);
                    }
                }
            });
        }
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> + use<'_> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// What a field is, as its schema has it.
fn what(name: &str, field: &Value, kin: &BTreeMap<String, Kin>) -> Option<What> {
    let fields = field.get("properties").and_then(Value::as_object)?;
    if is_pod_spec(fields) {
        return Some(What::PodSpec);
    }
    if fields.contains_key("matchLabels") && fields.contains_key("matchExpressions") {
        let lower = name.to_ascii_lowercase();
        let of_pods = ["selector", "podselector", "endpointselector", "workloadselector"];
        return of_pods.contains(&lower.as_str()).then_some(What::Pods);
    }
    // Names and nothing but what goes with one.
    let is_text = |name: &str| fields.get(name).is_some_and(|f| f.get("type").is_none_or(|t| t == "string"));
    let all_plain = fields.keys().all(|k| {
        matches!(
            k.as_str(),
            "name"
                | "namespace"
                | "key"
                | "optional"
                | "kind"
                | "group"
                | "apiVersion"
                | "apiGroup"
                | "uid"
                | "resourceVersion"
                | "fieldPath"
        )
    });
    if !is_text("name") || !all_plain {
        return None;
    }
    let words = names::words(name);
    let description = field.get("description").and_then(Value::as_str).unwrap_or("").to_ascii_lowercase();
    if fields.contains_key("key") && is_text("key") {
        let lower = name.to_ascii_lowercase();
        if [&lower, &description].iter().any(|text| text.contains("configmap") || text.contains("config map"))
        {
            return Some(What::Key("ConfigMap", RefKind::Config));
        }
        // Keys of something that is no ConfigMap are those of a Secret: passwords, tokens, certificates.
        let kept_secret = [
            "PASSWORD",
            "TOKEN",
            "CREDENTIALS",
            "CREDENTIAL",
            "KEY",
            "CERT",
            "CERTIFICATE",
            "CA",
            "USERNAME",
        ];
        let is_secret = lower.contains("secret")
            || description.contains("secret")
            || words.iter().any(|w| kept_secret.contains(&w.as_str()));
        return is_secret.then_some(What::Key("Secret", RefKind::Secret));
    }
    if fields.contains_key("kind") {
        return None;
    }
    match words.last().map(String::as_str) {
        Some("SECRET") => return Some(What::Key("Secret", RefKind::Secret)),
        Some("REF" | "REFERENCE") => {}
        // `cluster: {name}` as well as `clusterRef: {name}`.
        _ => return kin.get(&name.to_ascii_lowercase()).cloned().map(What::Kin),
    }
    let stem = name.to_ascii_lowercase();
    let stem = stem.trim_end_matches("reference").trim_end_matches("ref").trim_end_matches(['_', '-']);
    kin.get(stem).cloned().map(What::Kin)
}

fn is_pod_spec(fields: &Map<String, Value>) -> bool {
    let item = fields.get("containers").and_then(|c| c.get("items"));
    item.is_some_and(|item| {
        let has = |name: &str| item.pointer(&format!("/properties/{name}")).is_some();
        has("image") || has("env") || has("envFrom")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(kind: &str, scope: &str, spec: Value) -> Object {
        Object(json!({"spec":{"group":"db.example.com","scope":scope,"names":{"kind":kind},
            "versions":[{"name":"v1","schema":{"openAPIV3Schema":{"properties":{"spec":{"properties":spec}}}}}]}}))
    }

    #[test]
    fn a_schema_tells_what_the_name_of_a_field_does_not() {
        let name = json!({"type":"string"});
        let definitions = [
            definition(
                "Instance",
                "Namespaced",
                json!({
                    "admin": {"description":"Selects a key of a secret.","properties":{"name":name,"key":name}},
                    "initScript": {"description":"a ConfigMap's key","properties":{"name":name,"key":name}},
                    "superuserSecret": {"properties":{"name":name}},
                    "planRef": {"properties":{"name":name}},
                    "cluster": {"properties":{"name":name,"namespace":name}},
                    "owner": {"properties":{"name":name}},
                    "users": {"items":{"properties":{"password":{"properties":{"name":name,"key":name}}}}},
                    "sidecar": {"properties":{"containers":{"items":{"properties":{"image":name,"envFrom":{}}}}}},
                    "selector": {"properties":{"matchLabels":{},"matchExpressions":{}}},
                }),
            ),
            definition("Plan", "Cluster", json!({})),
            definition("Cluster", "Namespaced", json!({})),
        ];
        let schemas = all(&definitions.iter().collect::<Vec<_>>());
        let schema = &schemas[&("db.example.com".to_owned(), "Instance".to_owned())];
        let instance = Object(
            json!({"apiVersion":"db.example.com/v1","kind":"Instance","metadata":{"namespace":"shop","name":"i"},"spec":{
            "admin":{"name":"a","key":"k"},"initScript":{"name":"b","key":"k"},"superuserSecret":{"name":"c"},"planRef":{"name":"d"},
            "cluster":{"name":"e","namespace":"other"},"owner":{"name":"nobody"},"users":[{"password":{"name":"f","key":"k"}}],
            "sidecar":{"containers":[{"image":"x","envFrom":[{"configMapRef":{"name":"g"}}]}]},"selector":{"matchLabels":{"app":"x"}}}}),
        );
        let mut found = Vec::new();
        schema.find(&instance, &mut found);
        let mut told: Vec<String> = found
            .iter()
            .map(|f| match &f.target {
                Target::Object(key) => format!("{key} {}", f.at),
                other => format!("{other:?} {}", f.at),
            })
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "Cluster.db.example.com other/e /spec/cluster/name",
                "ConfigMap shop/b /spec/initScript/name",
                "ConfigMap shop/g /spec/sidecar/containers/0/envFrom/0/configMapRef/name",
                "Plan.db.example.com d /spec/planRef/name",
                "Pods(\"shop\", Selector([(\"app\", In({\"x\"}))])) /spec/selector",
                "Secret shop/a /spec/admin/name",
                "Secret shop/c /spec/superuserSecret/name",
                "Secret shop/f /spec/users/0/password/name",
            ]
        );
    }
}
