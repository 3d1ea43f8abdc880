//! The shape of an object while walking down it: built-in type, custom resource schema, or unknown.
//!
//! Patches, field ownership and pruning all walk objects; they ask here what they stand on, and do
//! not care whether the answer came from the table of built-in types or from a definition's schema.

use serde_json::{Value, json};

mod check;

use crate::kinds::{Kind, Version};
use crate::types::{self, Field, Merge, Ty, Type};

pub use check::validate;

/// What we know about a value.
#[derive(Debug, Clone, Copy)]
pub enum Shape<'a> {
    /// A whole built-in object: its type, and `apiVersion` and `kind`.
    Object(&'static Type),
    /// A value in a built-in object, and the field that holds it.
    Typed(&'static Ty, Option<&'static Field>),
    /// A whole custom resource, or an object embedded in one.
    Custom(&'a Value),
    /// A value in a custom resource.
    Schema(&'a Value),
    /// No idea: maps merge, lists are replaced.
    Unknown,
}

static TEXT: Ty = Ty::Scalar('s');
static METADATA: Ty = Ty::Named("meta.v1.ObjectMeta");

/// How a list merges in server-side apply.
#[derive(Debug, Clone, PartialEq)]
pub enum ListKind<'a> {
    /// Replaced and owned as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// By keys of its elements.
    Keys(Vec<&'a str>),
}

impl<'a> Shape<'a> {
    /// The shape of an object of this kind in this version.
    pub fn of(kind: &'a Kind, version: &str) -> Shape<'a> {
        if !kind.custom {
            return types::of_kind(&kind.group, version, &kind.kind).map_or(Shape::Unknown, Shape::Object);
        }
        match kind.version(version).and_then(|v: &Version| v.schema.as_ref()) {
            Some(schema) => Shape::Custom(schema),
            None => Shape::Unknown,
        }
    }

    /// The shape below a key of a map or struct; `None` if the type has no such field.
    pub fn child(self, key: &str) -> Option<Shape<'a>> {
        match self {
            Shape::Object(_) if key == "apiVersion" || key == "kind" => Some(Shape::Typed(&TEXT, None)),
            Shape::Object(ty) => ty.field(key).map(|f| Shape::Typed(&f.ty, Some(f))),
            Shape::Typed(Ty::Named(name), _) => match types::get(name) {
                // A whole object inside another one, such as a volume claim template.
                Some(ty) if (key == "apiVersion" || key == "kind") && ty.field("metadata").is_some() => {
                    Some(Shape::Typed(&TEXT, None))
                }
                Some(ty) => ty.field(key).map(|f| Shape::Typed(&f.ty, Some(f))),
                None => Some(Shape::Unknown),
            },
            Shape::Typed(Ty::Map(inner), _) => Some(Shape::Typed(inner, None)),
            Shape::Typed(..) => Some(Shape::Unknown),
            Shape::Custom(_) if key == "apiVersion" || key == "kind" => Some(Shape::Typed(&TEXT, None)),
            Shape::Custom(_) if key == "metadata" => Some(Shape::Typed(&METADATA, None)),
            Shape::Custom(schema) | Shape::Schema(schema) => below(schema, key),
            Shape::Unknown => Some(Shape::Unknown),
        }
    }

    /// The shape of a list's elements.
    pub fn item(self) -> Shape<'a> {
        match self {
            Shape::Typed(Ty::List(inner), _) => Shape::Typed(inner, None),
            Shape::Custom(schema) | Shape::Schema(schema) => {
                schema.get("items").map_or(Shape::Unknown, nested)
            }
            _ => Shape::Unknown,
        }
    }

    /// How server-side apply merges this list.
    pub fn list(self) -> ListKind<'a> {
        match self {
            Shape::Typed(_, Some(field)) => match &field.apply {
                Merge::Replace => ListKind::Atomic,
                Merge::Set => ListKind::Set,
                Merge::Keys(keys) => ListKind::Keys(keys.clone()),
            },
            Shape::Custom(schema) | Shape::Schema(schema) => {
                match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                    Some("set") => ListKind::Set,
                    Some("map") => {
                        let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                        ListKind::Keys(keys.filter_map(Value::as_str).collect())
                    }
                    _ => ListKind::Atomic,
                }
            }
            _ => ListKind::Atomic,
        }
    }

    /// The default a list key takes if an element leaves it out, such as `TCP` for a port's protocol.
    pub fn key_default(self, key: &str) -> Option<Value> {
        match self.item() {
            Shape::Typed(..) => (key == "protocol").then(|| json!("TCP")),
            Shape::Schema(schema) | Shape::Custom(schema) => {
                schema.get("properties")?.get(key)?.get("default").cloned()
            }
            _ => None,
        }
    }

    /// How strategic merge patch merges this list.
    pub fn strategic(self) -> &'static Merge {
        match self {
            Shape::Typed(_, Some(field)) => &field.strategic,
            _ => &Merge::Replace,
        }
    }

    /// Is this map or struct owned as a whole?
    pub fn atomic(self) -> bool {
        match self {
            Shape::Typed(ty, field) => match (field.and_then(|f| f.atomic), ty) {
                (Some(atomic), _) => atomic,
                (None, Ty::Named(name)) => types::get(name).is_some_and(|t| t.atomic),
                (None, Ty::Scalar('*')) => true,
                _ => false,
            },
            Shape::Custom(schema) | Shape::Schema(schema) => {
                schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic")
            }
            _ => false,
        }
    }
}

fn below<'a>(schema: &'a Value, key: &str) -> Option<Shape<'a>> {
    if let Some(property) = schema.get("properties").and_then(|p| p.get(key)) {
        return Some(nested(property));
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(true)) => return Some(Shape::Unknown),
        Some(inner @ Value::Object(_)) => return Some(nested(inner)),
        _ => {}
    }
    preserves(schema).then_some(Shape::Unknown)
}

/// The shape of what a schema inside another one describes.
pub fn nested(schema: &Value) -> Shape<'_> {
    if schema["x-kubernetes-embedded-resource"] == json!(true) {
        Shape::Custom(schema)
    } else {
        Shape::Schema(schema)
    }
}

fn preserves(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == json!(true)
}

/// Removes what the type does not know and returns its paths, as a real server drops unknown fields.
/// Built-in objects also lose nulls and empty optional lists and maps, which typed decoding does.
pub fn prune(shape: Shape<'_>, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_at(shape, value, "", &mut unknown);
    unknown
}

fn prune_at(shape: Shape<'_>, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let typed = matches!(shape, Shape::Object(_) | Shape::Typed(..));
            let keys: Vec<String> = map.keys().cloned().collect();
            for key in keys {
                let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let Some(child) = shape.child(&key) else {
                    map.shift_remove(&key);
                    unknown.push(here);
                    continue;
                };
                let Some(inner) = map.get_mut(&key) else { continue };
                prune_at(child, inner, &here, unknown);
                if typed && (inner.is_null() || droppable(child, inner)) {
                    map.shift_remove(&key);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                prune_at(shape.item(), item, &format!("{path}[{at}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Lists whose emptiness means something, or that a real server prints although they are empty.
const KEPT_EMPTY: &[&str] = &["rules", "subsets", "endpoints", "versions", "drivers"];

fn droppable(shape: Shape<'_>, value: &Value) -> bool {
    let Shape::Typed(ty, Some(field)) = shape else { return false };
    match (ty, value) {
        (Ty::List(_), Value::Array(items)) => items.is_empty() && !KEPT_EMPTY.contains(&field.name),
        (Ty::Map(_), Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

/// Checks that built-in fields hold what their type says, turning numbers into quantities on the way.
/// The message is the one of a failed decoding.
pub fn conform(shape: Shape<'_>, value: &mut Value, path: &str) -> Result<(), String> {
    let wrong = |value: &Value, want: &str| {
        let got = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Err(format!("json: cannot unmarshal {got} into Go struct field {path} of type {want}"))
    };
    if value.is_null() {
        return Ok(());
    }
    match shape {
        Shape::Typed(Ty::Scalar(letter), _) => match (letter, &*value) {
            ('s' | 't' | 'y', v) if !v.is_string() => return wrong(v, "string"),
            ('b', v) if !v.is_boolean() => return wrong(v, "bool"),
            ('i' | 'l', v) if !v.is_i64() && !v.is_u64() => {
                return wrong(v, if *letter == 'i' { "int32" } else { "int64" });
            }
            ('n', v) if !v.is_number() => return wrong(v, "float64"),
            ('x', v) if !v.is_string() && !v.is_i64() => return wrong(v, "intstr.IntOrString"),
            ('q', Value::Number(number)) => *value = json!(number.to_string()),
            ('y', Value::String(text)) if !is_base64(text) => return Err("illegal base64 data".into()),
            ('q', v) if !v.is_string() => return wrong(v, "resource.Quantity"),
            _ => {}
        },
        Shape::Typed(Ty::List(_), _) => match value {
            Value::Array(items) => {
                for item in items {
                    conform(shape.item(), item, path)?;
                }
            }
            v => return wrong(v, "[]"),
        },
        Shape::Object(_) | Shape::Typed(..) | Shape::Custom(_) => match value {
            Value::Object(map) => {
                for (key, inner) in map.iter_mut() {
                    // Of a custom resource only the metadata is built in.
                    if matches!(shape, Shape::Custom(_)) && key != "metadata" {
                        continue;
                    }
                    let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    if let Some(child) = shape.child(key) {
                        conform(child, inner, &here)?;
                    }
                }
            }
            v => return wrong(v, "map"),
        },
        Shape::Schema(_) | Shape::Unknown => {}
    }
    Ok(())
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let padded = text.len() - body.len();
    // Line breaks are skipped by Go's decoder.
    let letters = body.bytes().filter(|b| !matches!(b, b'\n' | b'\r'));
    let (mut count, mut fits) = (0, true);
    for byte in letters {
        count += 1;
        fits &= byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    }
    fits && padded <= 2 && (count + padded).is_multiple_of(4)
}

/// Fills in the defaults of a custom resource's schema.
pub fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                // A null that may not be there is not there.
                if map.get(key).is_some_and(Value::is_null) && property["nullable"] != json!(true) {
                    map.shift_remove(key);
                }
                if let Some(default) = property.get("default") {
                    let nullable = property["nullable"] == json!(true);
                    if map.get(key).is_none_or(|v| v.is_null() && !nullable) {
                        map.insert(key.clone(), default.clone());
                    }
                }
                if let Some(inner) = map.get_mut(key) {
                    self::default(property, inner);
                }
            }
            if let Some(more @ Value::Object(_)) = schema.get("additionalProperties") {
                for inner in map.values_mut() {
                    self::default(more, inner);
                }
            }
        }
        Value::Array(items) => {
            if let Some(inner) = schema.get("items") {
                items.iter_mut().for_each(|item| self::default(inner, item));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    #[test]
    fn a_built_in_object_loses_what_its_type_does_not_know() {
        let kinds = Kinds::default();
        let kind = kinds.get("apps", "deployments").unwrap();
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {}, "lables": {}},
            "spec": {"replica": 1, "replicas": 0, "template": {"spec": {"containers": [
                {"name": "c", "imagee": "x", "emptyDir": null}], "volumes": [{"name": "v", "emptyDir": {}}]}}}});
        let unknown = prune(Shape::of(kind, "v1"), &mut object);
        assert_eq!(
            unknown,
            [
                "metadata.lables",
                "spec.replica",
                "spec.template.spec.containers[0].imagee",
                "spec.template.spec.containers[0].emptyDir"
            ]
        );
        assert_eq!(
            object,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"replicas": 0, "template": {"spec": {"containers": [{"name": "c"}],
                "volumes": [{"name": "v", "emptyDir": {}}]}}}})
        );
    }

    #[test]
    fn a_wrong_type_is_refused_and_a_number_is_a_quantity() {
        let kinds = Kinds::default();
        let kind = kinds.get("", "persistentvolumeclaims").unwrap();
        let mut good = json!({"spec": {"resources": {"requests": {"storage": 5}}}});
        conform(Shape::of(kind, "v1"), &mut good, "").unwrap();
        assert_eq!(good["spec"]["resources"]["requests"]["storage"], "5");
        let mut bad = json!({"spec": {"accessModes": "ReadWriteOnce"}});
        assert!(conform(Shape::of(kind, "v1"), &mut bad, "").unwrap_err().contains("spec.accessModes"));
    }

    #[test]
    fn a_custom_schema_prunes_defaults_and_validates() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "required": ["size"], "properties": {
                "size": {"type": "integer", "minimum": 1},
                "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
        let mut object =
            json!({"metadata": {"name": "x"}, "spec": {"size": 0, "free": {"k": 1}, "typo": 1}, "extra": 1});
        assert_eq!(prune(Shape::Custom(&schema), &mut object), ["spec.typo", "extra"]);
        default(&schema, &mut object);
        assert_eq!(object["spec"], json!({"size": 0, "free": {"k": 1}, "mode": "a"}));
        let check = |object: Value, expect: &[&str]| {
            let mut causes = Vec::new();
            validate(&schema, &object, "", &mut causes);
            assert_eq!(causes.iter().map(|c| c.field.as_str()).collect::<Vec<_>>(), expect, "{object}");
        };
        check(object, &["spec.size"]);
        check(json!({"spec": {}}), &["spec.size"]);
        check(json!({"spec": {"size": 2, "mode": "c"}}), &["spec.mode"]);
        check(json!({"spec": {"size": "2"}}), &["spec.size"]);
        check(json!({"spec": {"size": 2}}), &[]);
    }
}
