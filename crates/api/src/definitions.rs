//! The definitions, as the API server takes them.

use serde_json::{Map, Value, json};

use crate::schema::{Record, record};
use crate::{Application, GROUP, Policy, RecoveryPoint, Repository, Restore, Rule, VERSION};

/// A kind of ours.
pub trait Kind {
    /// Its name.
    const KIND: &'static str;
    /// Its name in paths.
    const PLURAL: &'static str;
    /// Its short name.
    const SHORT: &'static str;
    /// What it is, for `kubectl explain`.
    const ABOUT: &'static str;
    /// What is written by users.
    type Spec: Record;
    /// What is written by Holdfast.
    type Status: Record;
    /// What `kubectl get` prints between name and age.
    fn columns() -> Vec<Column>;
}

/// A column of `kubectl get`.
pub struct Column(Map<String, Value>);

impl Column {
    fn new(name: &str, kind: &str, path: &str) -> Column {
        let mut column = Map::new();
        column.insert("name".into(), json!(name));
        column.insert("type".into(), json!(kind));
        column.insert("jsonPath".into(), json!(path));
        Column(column)
    }

    /// A text.
    pub fn text(name: &str, path: &str) -> Column {
        Column::new(name, "string", path)
    }

    /// A number.
    pub fn number(name: &str, path: &str) -> Column {
        Column::new(name, "integer", path)
    }

    /// Yes or no.
    pub fn flag(name: &str, path: &str) -> Column {
        Column::new(name, "boolean", path)
    }

    /// How long ago an instant was. One to come would be printed as invalid: that is a text.
    pub fn age(name: &str, path: &str) -> Column {
        Column::new(name, "date", path)
    }

    /// Whether a condition holds.
    pub fn condition(name: &str) -> Column {
        Column::new(name, "string", &format!(".status.conditions[?(@.type==\"{name}\")].status"))
    }

    /// Only with `-o wide`.
    pub fn wide(mut self) -> Column {
        self.0.insert("priority".into(), json!(1));
        self
    }
}

/// The definition of a kind.
pub fn definition<K: Kind>() -> Value {
    let with = |about: &str, schema: Value| {
        let mut described = Map::new();
        described.insert("description".into(), json!(about));
        described.extend(schema.as_object().cloned().unwrap_or_default());
        Value::Object(described)
    };
    let mut columns: Vec<Value> = K::columns().into_iter().map(|column| Value::Object(column.0)).collect();
    columns.push(Value::Object(Column::age("Age", ".metadata.creationTimestamp").0));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{GROUP}", K::PLURAL)},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": K::KIND,
                "listKind": format!("{}List", K::KIND),
                "plural": K::PLURAL,
                "singular": K::KIND.to_lowercase(),
                "shortNames": [K::SHORT],
                "categories": ["holdfast"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "description": K::ABOUT,
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": with("What is asked for.", record::<K::Spec>().into_json()),
                        "status": with("What Holdfast sees and does.", record::<K::Status>().into_json()),
                    },
                }},
            }],
        },
    })
}

/// The definitions of all kinds, in the order of `deploy/crds.yaml`.
pub fn definitions() -> Vec<Value> {
    vec![
        definition::<Application>(),
        definition::<Policy>(),
        definition::<RecoveryPoint>(),
        definition::<Repository>(),
        definition::<Restore>(),
        definition::<Rule>(),
    ]
}

/// A definition for a server that knows no rules (before 1.25): that drops them at a create and refuses them at an apply.
pub fn without_rules(mut definition: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.shift_remove("x-kubernetes-validations");
                map.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut definition);
    definition
}
