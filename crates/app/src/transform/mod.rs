//! Changing objects on their way to another place: other namespaces, storage classes, registries, and
//! whatever a JSON patch says.
//!
//! Used by restore, export and diff, always through the same pure function [`Transform::apply`]: what
//! `restore --plan` shows is what `export` writes. A [`Mapping`] is what a user wrote; a [`Transform`] is
//! a mapping that was checked. Order: namespaces, storage classes, registries, patches last, so that a
//! patch has the final word. A patch selects by the names in the recovery point, before any mapping.
//!
//! The rules are by shape, not by kind, because custom resources carry namespaces and images too. What a
//! shape cannot prove is left as it was and told in a note; nothing is guessed.

mod images;
mod namespaces;
mod patches;
mod storage;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use namespaces::is_namespace_name;
pub use patches::{PatchRule, Target};

/// The annotation in which kubectl notes what it applied.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is changed on the way, as a user writes it: flags of `restore` and `export`, or a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mapping {
    /// Namespaces, old to new.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, String>,
    /// Storage classes, old to new.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_classes: BTreeMap<String, String>,
    /// Image name prefixes, old to new; `docker.io` also means images written without a registry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub registries: BTreeMap<String, String>,
    /// JSON patches (RFC 6902) on the objects they select, applied in the order written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchRule>,
    /// Rewrite full service names (`db.shop.svc`, `db.shop.svc.cluster.local`) in plain configuration.
    pub service_names: bool,
    /// The DNS domain of the cluster that full service names may end in.
    pub cluster_domain: String,
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            namespaces: BTreeMap::new(),
            storage_classes: BTreeMap::new(),
            registries: BTreeMap::new(),
            patches: Vec::new(),
            service_names: true,
            cluster_domain: "cluster.local".into(),
        }
    }
}

/// Why a mapping cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The text is not what a mapping looks like.
    #[error("{what} {text:?} is not OLD=NEW: write both sides, for example {example}")]
    Pair {
        /// Which mapping.
        what: &'static str,
        /// What was written.
        text: String,
        /// A good one.
        example: &'static str,
    },
    /// One side of a pair cannot be what it should be.
    #[error("{what} {name:?} {why}")]
    Name {
        /// Which mapping.
        what: &'static str,
        /// The bad name.
        name: String,
        /// The rule it breaks.
        why: String,
    },
    /// The same name was mapped twice, to different places.
    #[error("{what} {name:?} is mapped to both {first:?} and {second:?}: decide for one")]
    Twice {
        /// Which mapping.
        what: &'static str,
        /// The name on the left.
        name: String,
        /// Where it went first.
        first: String,
        /// Where it should go then.
        second: String,
    },
    /// The file does not parse.
    #[error("the mapping file does not parse: {0}")]
    File(String),
    /// A patch is not one.
    #[error("patch {index} ({target}): {why}")]
    Patch {
        /// Its place in the list, from 1.
        index: usize,
        /// What it selects.
        target: String,
        /// What is wrong.
        why: String,
    },
}

impl Mapping {
    /// Reads a mapping file (YAML or JSON).
    ///
    /// # Errors
    /// [`MappingError::File`] with the place and the reason.
    pub fn from_yaml(text: &str) -> Result<Self, MappingError> {
        let mapping: Self = serde_saphyr::from_str(text).map_err(|e| MappingError::File(e.to_string()))?;
        Ok(mapping)
    }

    /// Adds `OLD=NEW` for a namespace.
    ///
    /// # Errors
    /// When the text is no pair, or `OLD` already goes elsewhere.
    pub fn add_namespace(&mut self, pair: &str) -> Result<(), MappingError> {
        add(&mut self.namespaces, "namespace mapping", pair, "shop=shop-test")
    }

    /// Adds `OLD=NEW` for a storage class.
    ///
    /// # Errors
    /// When the text is no pair, or `OLD` already goes elsewhere.
    pub fn add_storage_class(&mut self, pair: &str) -> Result<(), MappingError> {
        add(&mut self.storage_classes, "storage class mapping", pair, "fast=standard")
    }

    /// Adds `OLD=NEW` for an image name prefix.
    ///
    /// # Errors
    /// When the text is no pair, or `OLD` already goes elsewhere.
    pub fn add_registry(&mut self, pair: &str) -> Result<(), MappingError> {
        add(&mut self.registries, "registry mapping", pair, "docker.io=registry.example.com/mirror")
    }

    /// Checks everything once, so that applying it can trust it.
    ///
    /// # Errors
    /// The first thing that is wrong, naming it.
    pub fn check(mut self) -> Result<Transform, MappingError> {
        for (old, new) in &self.namespaces {
            for name in [old, new] {
                if !is_namespace_name(name) {
                    return Err(MappingError::Name {
                        what: "namespace",
                        name: name.clone(),
                        why: "is not a namespace name: lower-case letters, digits and '-', at most 63, \
                              starting and ending with a letter or digit"
                            .into(),
                    });
                }
            }
        }
        for (old, new) in self.storage_classes.iter().chain(&self.registries) {
            for name in [old, new] {
                if name.is_empty() || name.chars().any(char::is_whitespace) {
                    return Err(MappingError::Name {
                        what: "mapped name",
                        name: name.clone(),
                        why: "must not be empty or contain blanks".into(),
                    });
                }
            }
        }
        let registries = std::mem::take(&mut self.registries);
        for (old, new) in registries {
            let old = old.trim_end_matches('/').to_owned();
            let new = new.trim_end_matches('/').to_owned();
            for name in [&old, &new] {
                if name.contains("://") || name.contains('@') {
                    return Err(MappingError::Name {
                        what: "registry",
                        name: name.clone(),
                        why: "must be the beginning of an image name, such as registry.example.com/team: \
                              no scheme and no digest"
                            .into(),
                    });
                }
            }
            self.registries.insert(old, new);
        }
        // A name that maps to itself changes nothing; without it "is anything mapped" is one question.
        self.namespaces.retain(|old, new| old != new);
        self.storage_classes.retain(|old, new| old != new);
        self.registries.retain(|old, new| old != new);
        let patches = patches::check(&self.patches)?;
        Ok(Transform { mapping: self, patches, services: BTreeSet::new() })
    }
}

fn add(
    map: &mut BTreeMap<String, String>,
    what: &'static str,
    pair: &str,
    example: &'static str,
) -> Result<(), MappingError> {
    let (old, new) = pair
        .split_once('=')
        .map(|(old, new)| (old.trim(), new.trim()))
        .filter(|(old, new)| !old.is_empty() && !new.is_empty())
        .ok_or_else(|| MappingError::Pair { what, text: pair.to_owned(), example })?;
    match map.insert(old.to_owned(), new.to_owned()) {
        Some(first) if first != new => {
            Err(MappingError::Twice { what, name: old.to_owned(), first, second: new.to_owned() })
        }
        _ => Ok(()),
    }
}

/// A mapping that was checked. The empty one changes nothing.
#[derive(Debug, Clone, Default)]
pub struct Transform {
    mapping: Mapping,
    patches: Vec<patches::Checked>,
    /// `(namespace, name)` of the services in the recovery point, to notice short names of them.
    services: BTreeSet<(String, String)>,
}

/// One object after the transform.
#[derive(Debug, Clone, PartialEq)]
pub struct Transformed {
    /// The object as it shall be on the target.
    pub value: Value,
    /// Where something was seen that could mean a mapped name, but was left: told, not guessed.
    pub notes: Vec<Note>,
    /// Places (by index in the mapping) of the patches that selected this object.
    pub patched: Vec<usize>,
}

/// Something worth telling about one place of one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// JSON pointer of the place.
    pub at: String,
    /// What was seen, and what was done or not done.
    pub message: String,
}

/// Why an object could not be changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// A patch does not fit the object it selected.
    #[error("patch {index} does not fit {object}: {why}; correct the patch, or narrow its target")]
    Patch {
        /// Its place in the mapping, from 1.
        index: usize,
        /// `Kind namespace/name`.
        object: String,
        /// The operation and the reason.
        why: String,
    },
    /// A patch changed what the object is called.
    #[error(
        "patch {index} changes {field} of {object}, which would make it another object that nothing refers to; \
         map namespaces with a namespace mapping, and leave the rest of the name"
    )]
    Identity {
        /// Its place in the mapping, from 1.
        index: usize,
        /// Which of apiVersion, kind, metadata.name, metadata.namespace.
        field: &'static str,
        /// `Kind namespace/name`.
        object: String,
    },
}

impl Transform {
    /// What the user asked for, after the check.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Whether nothing is changed at all.
    pub fn is_empty(&self) -> bool {
        let m = &self.mapping;
        m.namespaces.is_empty()
            && m.storage_classes.is_empty()
            && m.registries.is_empty()
            && self.patches.is_empty()
    }

    /// Names the services of the recovery point, so that their short names (`db.shop`) are noticed.
    #[must_use]
    pub fn knowing_services(mut self, services: impl IntoIterator<Item = (String, String)>) -> Self {
        self.services = services.into_iter().collect();
        self
    }

    /// Where a namespace goes.
    pub fn namespace<'a>(&'a self, old: &'a str) -> &'a str {
        self.mapping.namespaces.get(old).map_or(old, String::as_str)
    }

    /// Where a storage class goes.
    pub fn storage_class<'a>(&'a self, old: &'a str) -> &'a str {
        self.mapping.storage_classes.get(old).map_or(old, String::as_str)
    }

    /// The object as it shall be on the target.
    ///
    /// # Errors
    /// When a patch that selects the object does not fit it.
    pub fn apply(&self, object: &Value) -> Result<Transformed, TransformError> {
        let mut value = object.clone();
        let mut notes = Vec::new();
        if !self.mapping.namespaces.is_empty() {
            namespaces::apply(self, object, &mut value, &mut notes);
        }
        if !self.mapping.storage_classes.is_empty() {
            storage::apply(&self.mapping.storage_classes, &mut value);
        }
        if !self.mapping.registries.is_empty() {
            images::apply(&self.mapping.registries, &mut value);
        }
        let patched = patches::apply(&self.patches, object, &mut value)?;
        notes.sort();
        notes.dedup();
        Ok(Transformed { value, notes, patched })
    }
}

/// `Kind namespace/name` for messages.
pub(crate) fn title(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

/// One step of a JSON pointer, escaped.
pub(crate) fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// Maps whose keys belong to the user: what looks like a field name in them is none.
fn is_opaque(key: &str) -> bool {
    matches!(
        key,
        "labels"
            | "annotations"
            | "matchLabels"
            | "nodeSelector"
            | "data"
            | "stringData"
            | "binaryData"
            | "parameters"
            | "volumeAttributes"
            | "openAPIV3Schema"
            | "managedFields"
            | "fieldsV1"
            | "status"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_mapping_says_what_is_wrong_with_which_part() {
        let cases = [
            ("shop", "namespace mapping \"shop\" is not OLD=NEW"),
            ("shop=", "namespace mapping \"shop=\" is not OLD=NEW"),
            ("=test", "namespace mapping \"=test\" is not OLD=NEW"),
            ("", "namespace mapping \"\" is not OLD=NEW"),
        ];
        for (pair, want) in cases {
            let error = Mapping::default().add_namespace(pair).unwrap_err().to_string();
            assert!(error.starts_with(want), "{pair}: {error}");
        }
        let mut mapping = Mapping::default();
        mapping.add_namespace("shop=a").unwrap();
        mapping.add_namespace(" shop = a ").unwrap();
        let error = mapping.add_namespace("shop=b").unwrap_err().to_string();
        assert_eq!(error, "namespace mapping \"shop\" is mapped to both \"a\" and \"b\": decide for one");
    }

    #[test]
    fn names_that_no_cluster_would_take_are_refused_before_anything_happens() {
        let cases = [
            ("namespaces: {shop: Shop}", "namespace \"Shop\" is not a namespace name"),
            ("namespaces: {shop: a.b}", "namespace \"a.b\" is not a namespace name"),
            ("namespaces: {shop: -a}", "namespace \"-a\" is not a namespace name"),
            ("storageClasses: {fast: ''}", "mapped name \"\" must not be empty"),
            ("registries: {'https://a': b}", "registry \"https://a\" must be the beginning of an image name"),
            ("patches: [{target: {kind: Pod}, patch: []}]", "patch 1 (kind Pod): has no operations"),
            (
                "patches: [{target: {kind: Pod}, patch: [{op: put, path: /a}]}]",
                "patch 1 (kind Pod): operation 1",
            ),
            (
                "patches: [{target: {kind: Pod}, patch: [{op: remove, path: a}]}]",
                "patch 1 (kind Pod): operation 1",
            ),
            ("patches: [{target: {kin: Pod}, patch: []}]", "the mapping file does not parse: "),
            ("namespace: {a: b}", "the mapping file does not parse: "),
            ("namespaces: [a]", "the mapping file does not parse: "),
        ];
        for (yaml, want) in cases {
            let error = Mapping::from_yaml(yaml).and_then(Mapping::check).unwrap_err().to_string();
            assert!(error.starts_with(want), "{yaml}: {error}");
        }
    }

    #[test]
    fn a_whole_file_reads_and_a_mapping_to_itself_is_nothing() {
        let text = "
namespaces: {shop: shop-test, ops: ops}
storageClasses: {fast: standard}
registries: {docker.io: registry.example.com/mirror/}
serviceNames: false
patches:
- target: {group: apps, kind: Deployment, name: 'web-*'}
  patch:
  - {op: replace, path: /spec/replicas, value: 1}
";
        let transform = Mapping::from_yaml(text).unwrap().check().unwrap();
        assert_eq!(transform.namespace("shop"), "shop-test");
        assert_eq!(transform.namespace("ops"), "ops");
        assert_eq!(transform.storage_class("fast"), "standard");
        assert_eq!(transform.mapping().registries["docker.io"], "registry.example.com/mirror");
        assert!(!transform.is_empty());
        let nothing = Mapping::from_yaml("namespaces: {ops: ops}").unwrap().check().unwrap();
        assert!(nothing.is_empty());
        assert!(Transform::default().is_empty());
    }
}
