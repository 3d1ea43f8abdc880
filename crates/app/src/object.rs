//! Kubernetes objects as they are: JSON that we read fields of and never squeeze into a struct.
//!
//! A typed struct drops every field its version does not know, and a backup that drops fields is not one.
//! So objects stay `serde_json::Value` from the API server to the repository and back, and this file gives
//! them the few names everybody needs. Where many are held at once they are held as text ([`Packed`]).

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// What an object is, its version included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gvk {
    /// API group; empty for the core group.
    pub group: String,
    /// API version, `v1`.
    pub version: String,
    /// Kind, `Deployment`.
    pub kind: String,
}

impl Gvk {
    /// From `apiVersion` and `kind` as they stand in a manifest.
    pub fn parse(api_version: &str, kind: &str) -> Gvk {
        let (group, version) = split_api_version(api_version);
        Gvk { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }
}

impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.kind)
    }
}

/// Splits `apps/v1` into (`apps`, `v1`) and `v1` into (``, `v1`).
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The reverse of [`split_api_version`].
pub fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Which object: an identity without a version, since one object is served in several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for what is cluster-scoped.
    #[serde(default)]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its four parts.
    pub fn new(group: &str, kind: &str, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    /// Is it of this group and kind?
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

/// `Deployment shop/web`, `StorageClass fast`; custom kinds carry their group: `Certificate.cert-manager.io shop/tls`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        // Groups of Kubernetes itself have no dot or end in k8s.io; others may reuse a kind's name.
        if self.group.contains('.') && !self.group.ends_with(".k8s.io") {
            write!(f, ".{}", self.group)?;
        }
        if self.namespace.is_empty() {
            write!(f, " {}", self.name)
        } else {
            write!(f, " {}/{}", self.namespace, self.name)
        }
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRef {
    /// What the owner is.
    pub gvk: Gvk,
    /// Its name.
    pub name: String,
    /// Its UID in the cluster it was read from.
    pub uid: String,
    /// Is it the managing controller?
    pub controller: bool,
}

/// A Kubernetes object: JSON with names for its usual parts. A missing part reads as empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(pub Value);

impl Object {
    /// The string at a JSON pointer, or "".
    pub fn str(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    /// The value at a JSON pointer.
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    /// Group, version and kind.
    pub fn gvk(&self) -> Gvk {
        Gvk::parse(self.str("/apiVersion"), self.str("/kind"))
    }

    /// Its identity.
    pub fn key(&self) -> ObjectKey {
        let (group, _) = split_api_version(self.str("/apiVersion"));
        ObjectKey::new(group, self.str("/kind"), self.namespace(), self.name())
    }

    /// `metadata.namespace`; empty for what is cluster-scoped.
    pub fn namespace(&self) -> &str {
        self.str("/metadata/namespace")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.str("/metadata/name")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.str("/metadata/uid")
    }

    /// `metadata.resourceVersion`.
    pub fn resource_version(&self) -> &str {
        self.str("/metadata/resourceVersion")
    }

    /// One label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.0.get("metadata")?.get("labels")?.get(name)?.as_str()
    }

    /// One annotation's value.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.0.get("metadata")?.get("annotations")?.get(name)?.as_str()
    }

    /// All labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        string_map(self.at("/metadata/labels"))
    }

    /// All annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        string_map(self.at("/metadata/annotations"))
    }

    /// `metadata.ownerReferences`.
    pub fn owner_references(&self) -> Vec<OwnerRef> {
        let Some(list) = self.at("/metadata/ownerReferences").and_then(Value::as_array) else {
            return Vec::new();
        };
        list.iter()
            .map(|owner| {
                let text = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or("");
                OwnerRef {
                    gvk: Gvk::parse(text("apiVersion"), text("kind")),
                    name: text("name").to_owned(),
                    uid: text("uid").to_owned(),
                    controller: owner.get("controller").and_then(Value::as_bool).unwrap_or(false),
                }
            })
            .collect()
    }

    /// The owner that manages it, if there is one.
    pub fn controller(&self) -> Option<OwnerRef> {
        self.owner_references().into_iter().find(|owner| owner.controller)
    }
}

impl From<Value> for Object {
    fn from(value: Value) -> Object {
        Object(value)
    }
}

/// An object held as text, to be opened where its fields are asked for: as a tree of values it takes five times as much
/// memory, and a large application has a hundred thousand of them. A long text is compressed.
#[derive(Clone)]
pub struct Packed(Form);

#[derive(Clone)]
enum Form {
    Text(Arc<str>),
    /// Compressed, and how long the text is.
    Pressed(Arc<[u8]>, usize),
}

/// A text of so many bytes is worth compressing: those of most objects are shorter, and opened faster as they are.
const PRESSED_FROM: usize = 2048;

thread_local! {
    /// Making one takes longer than compressing an object.
    static PRESS: RefCell<Option<zstd::bulk::Compressor<'static>>> = RefCell::new(zstd::bulk::Compressor::new(1).ok());
    static UNPRESS: RefCell<Option<zstd::bulk::Decompressor<'static>>> = RefCell::new(zstd::bulk::Decompressor::new().ok());
}

impl Packed {
    fn of(text: String) -> Packed {
        let pressed = (text.len() >= PRESSED_FROM)
            .then(|| PRESS.with_borrow_mut(|press| press.as_mut()?.compress(text.as_bytes()).ok()))
            .flatten();
        Packed(match pressed {
            Some(bytes) if bytes.len() < text.len() => Form::Pressed(bytes.into(), text.len()),
            _ => Form::Text(text.into()),
        })
    }

    fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Text(text) => Cow::Borrowed(text),
            Form::Pressed(bytes, length) => {
                let text = UNPRESS.with_borrow_mut(|press| press.as_mut()?.decompress(bytes, *length).ok());
                // It was a text when it was compressed, and has been in our memory since.
                Cow::Owned(text.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default())
            }
        }
    }

    /// The object, to be looked at. It costs reading the text; who looks twice opens once.
    pub fn open(&self) -> Object {
        // It was written from a tree of values, so it is one.
        Object(serde_json::from_str(&self.text()).unwrap_or_default())
    }
}

impl From<&Value> for Packed {
    fn from(value: &Value) -> Packed {
        Packed::of(value.to_string())
    }
}

impl From<Value> for Packed {
    fn from(value: Value) -> Packed {
        Packed::from(&value)
    }
}

impl From<&Object> for Packed {
    fn from(object: &Object) -> Packed {
        Packed::from(&object.0)
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Packed) -> bool {
        // The order of members is no difference.
        self.text() == other.text() || self.open() == other.open()
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.text();
        let text: &RawValue = serde_json::from_str(&text).map_err(serde::ser::Error::custom)?;
        text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Packed, D::Error> {
        // Read as a tree first: what cannot be opened is not taken.
        Value::deserialize(deserializer).map(Packed::from)
    }
}

/// A JSON object of strings as a map; what is not a string is left out.
pub fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    value
        .and_then(Value::as_object)
        .map(|map| map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_reads_as_people_say_it() {
        for (object, said) in [
            (
                json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"namespace":"shop","name":"web"}}),
                "Deployment shop/web",
            ),
            (json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}), "Namespace shop"),
            (
                json!({"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"fast"}}),
                "StorageClass fast",
            ),
            (
                json!({"apiVersion":"cert-manager.io/v1","kind":"Certificate","metadata":{"namespace":"shop","name":"tls"}}),
                "Certificate.cert-manager.io shop/tls",
            ),
        ] {
            assert_eq!(Object(object).key().to_string(), said);
        }
    }

    #[test]
    fn a_packed_object_is_the_same_object() {
        let object = json!({"kind": "X", "metadata": {"name": "a\u{2028}\"b"}, "n": [1, -2.5, 1e100, null, {}], "last": ""});
        let packed = Packed::from(&object);
        assert_eq!(packed.open().0, object);
        assert_eq!(packed.open().0.to_string(), object.to_string(), "in its order");
        assert_eq!(
            packed,
            Packed::from(json!({"last": "", "n": [1, -2.5, 1e100, null, {}], "kind": "X",
            "metadata": {"name": "a\u{2028}\"b"}})),
            "another order is no difference"
        );
        let beside = serde_json::to_string(&[packed.clone(), packed.clone()]).unwrap();
        assert_eq!(beside, json!([object, object]).to_string(), "it stands in a document as what it is");
        assert_eq!(serde_json::from_str::<Vec<Packed>>(&beside).unwrap(), [packed.clone(), packed]);
        assert!(
            serde_json::from_str::<Packed>("{\"a\":1e999}").is_err(),
            "what cannot be opened is not taken"
        );
    }

    #[test]
    fn a_long_text_is_held_compressed_and_a_short_one_as_it_is() {
        let with = |text: String| json!({"kind": "ConfigMap", "data": {"text": text, "last": "\u{e9}"}});
        let noise: String =
            (0..4000u32).map(|n| char::from(33 + (n.wrapping_mul(2_654_435_761) >> 16) as u8 % 90)).collect();
        for (text, is_pressed) in [("short".to_owned(), false), ("a=b\n".repeat(2000), true), (noise, true)] {
            let packed = Packed::from(with(text.clone()));
            assert_eq!(matches!(packed.0, Form::Pressed(..)), is_pressed);
            assert_eq!(packed.open().0, with(text.clone()));
            assert_eq!(serde_json::to_string(&packed).unwrap(), with(text.clone()).to_string());
            assert_eq!(packed, Packed::from(with(text)));
        }
    }

    #[test]
    fn owners_and_labels_of_a_bare_object_are_empty() {
        let bare = Object(json!({"kind":"X"}));
        assert_eq!(bare.owner_references(), vec![]);
        assert_eq!(bare.labels().len() + bare.annotations().len(), 0);
        assert_eq!((bare.namespace(), bare.name(), bare.uid()), ("", "", ""));
    }
}
