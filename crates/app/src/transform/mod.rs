//! Changing objects on their way to another place: other namespaces, storage classes, registries, and
//! whatever a JSON patch says.
//!
//! Used by restore, export and diff, always through the same pure function [`Transform::apply`]: what
//! `restore --plan` shows is what `export` writes. A [`Mapping`] is what a user wrote; a [`Transform`] is
//! a mapping that was checked. Order: namespaces, storage classes, registries, other names, patches last, so that
//! a patch has the final word. A patch selects by the names in the recovery point, before any mapping.
//!
//! The rules are by shape, not by kind, because custom resources carry namespaces and images too. What a
//! shape cannot prove is left as it was and told in a note; nothing is guessed.

mod images;
mod names;
mod namespaces;
mod patches;
mod storage;
mod stork;
mod velero;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use namespaces::is_namespace_name;
pub use patches::{Condition, PatchRule, Target};
pub use stork::{PathSpec, TransformSpec};
pub use velero::{Conditions, Match, ModifierRule, Operation, PatchData};

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
    /// Host names, old to new; one that begins with a dot means every host below it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, String>,
    /// Nodes, old to new.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, String>,
    /// Priority classes, old to new.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub priority_classes: BTreeMap<String, String>,
    /// Ingress classes, old to new.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ingress_classes: BTreeMap<String, String>,
    /// JSON, merge and strategic patches on the objects they select, applied in the order written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchRule>,
    /// Velero's resource modifiers, after the patches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_modifier_rules: Vec<ModifierRule>,
    /// Stork's transformations, after those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transform_specs: Vec<TransformSpec>,
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
            hosts: BTreeMap::new(),
            nodes: BTreeMap::new(),
            priority_classes: BTreeMap::new(),
            ingress_classes: BTreeMap::new(),
            patches: Vec::new(),
            resource_modifier_rules: Vec::new(),
            transform_specs: Vec::new(),
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
    /// One of Velero's rules is not one.
    #[error("resource modifier rule {index}: {why}")]
    Velero {
        /// Its place in the list, from 1.
        index: usize,
        /// What is wrong.
        why: String,
    },
    /// One of Stork's specs is not one.
    #[error("transform spec {index}: {why}")]
    Stork {
        /// Its place in the list, from 1.
        index: usize,
        /// What is wrong.
        why: String,
    },
}

impl Mapping {
    /// Reads a mapping file (YAML or JSON): our own, Velero's resource modifiers or the ConfigMap around them or
    /// around a plugin's mapping, or Stork's ResourceTransformation; several documents of these add up.
    ///
    /// # Errors
    /// [`MappingError::File`] with the place and the reason.
    pub fn from_yaml(text: &str) -> Result<Self, MappingError> {
        let mut mapping = Self::default();
        for document in documents(text) {
            mapping.add_document(document)?;
        }
        Ok(mapping)
    }

    fn add_document(&mut self, text: &str) -> Result<(), MappingError> {
        let document: Value = serde_saphyr::from_str(text).map_err(|e| MappingError::File(e.to_string()))?;
        if let Some(specs) = stork::read(&document).map_err(MappingError::File)? {
            self.transform_specs.extend(specs);
            return Ok(());
        }
        match velero::read(&document).map_err(MappingError::File)? {
            Some(velero::Found::Rules(rules)) => self.resource_modifier_rules.extend(rules),
            Some(velero::Found::StorageClasses(pairs)) => {
                merge(&mut self.storage_classes, "storage class mapping", pairs)?;
            }
            Some(velero::Found::Nodes(pairs)) => merge(&mut self.nodes, "node mapping", pairs)?,
            // Once more from the text: its errors say the line.
            None => self.add(serde_saphyr::from_str(text).map_err(|e| MappingError::File(e.to_string()))?)?,
        }
        Ok(())
    }

    /// Adds another mapping to this one.
    ///
    /// # Errors
    /// When a name goes to two places.
    pub fn add(&mut self, other: Self) -> Result<(), MappingError> {
        merge(&mut self.namespaces, "namespace mapping", other.namespaces)?;
        merge(&mut self.storage_classes, "storage class mapping", other.storage_classes)?;
        merge(&mut self.registries, "registry mapping", other.registries)?;
        merge(&mut self.hosts, "host mapping", other.hosts)?;
        merge(&mut self.nodes, "node mapping", other.nodes)?;
        merge(&mut self.priority_classes, "priority class mapping", other.priority_classes)?;
        merge(&mut self.ingress_classes, "ingress class mapping", other.ingress_classes)?;
        self.patches.extend(other.patches);
        self.resource_modifier_rules.extend(other.resource_modifier_rules);
        self.transform_specs.extend(other.transform_specs);
        self.service_names &= other.service_names;
        if other.cluster_domain != Self::default().cluster_domain {
            self.cluster_domain = other.cluster_domain;
        }
        Ok(())
    }

    /// Adds `OLD=NEW` for a host name.
    ///
    /// # Errors
    /// When the text is no pair, or `OLD` already goes elsewhere.
    pub fn add_host(&mut self, pair: &str) -> Result<(), MappingError> {
        add(&mut self.hosts, "host mapping", pair, "shop.example.com=shop.example.org")
    }

    /// Adds `OLD=NEW` for a node.
    ///
    /// # Errors
    /// When the text is no pair, or `OLD` already goes elsewhere.
    pub fn add_node(&mut self, pair: &str) -> Result<(), MappingError> {
        add(&mut self.nodes, "node mapping", pair, "node-1=worker-a")
    }

    /// Adds `OLD=NEW` for a priority class.
    ///
    /// # Errors
    /// When the text is no pair, or `OLD` already goes elsewhere.
    pub fn add_priority_class(&mut self, pair: &str) -> Result<(), MappingError> {
        add(&mut self.priority_classes, "priority class mapping", pair, "high=urgent")
    }

    /// Adds `OLD=NEW` for an ingress class.
    ///
    /// # Errors
    /// When the text is no pair, or `OLD` already goes elsewhere.
    pub fn add_ingress_class(&mut self, pair: &str) -> Result<(), MappingError> {
        add(&mut self.ingress_classes, "ingress class mapping", pair, "nginx=traefik")
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
        let plain = [
            &self.storage_classes,
            &self.registries,
            &self.hosts,
            &self.nodes,
            &self.priority_classes,
            &self.ingress_classes,
        ];
        for (old, new) in plain.into_iter().flatten() {
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
        for (old, new) in &self.hosts {
            for name in [old, new] {
                if name.starts_with('.') != old.starts_with('.')
                    || name.contains(['/', ':', '@', '*'])
                    || name.ends_with('.')
                {
                    return Err(MappingError::Name {
                        what: "host",
                        name: name.clone(),
                        why: "must be a host name, no URL and no wildcard; where one side begins with a dot (every \
                              host below), so does the other"
                            .into(),
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
        for names in [&mut self.hosts, &mut self.nodes, &mut self.priority_classes, &mut self.ingress_classes]
        {
            names.retain(|old, new| old != new);
        }
        let patches = patches::check(&self)?;
        Ok(Transform { mapping: self, patches, services: BTreeSet::new() })
    }
}

/// The documents of a YAML text, each with the line breaks before it, so that errors say the right line.
fn documents(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" {
            found.push(text.get(start..at).unwrap_or(""));
            start = at + line.len();
        }
        at += line.len();
    }
    found.push(text.get(start..).unwrap_or(""));
    let says_something =
        |text: &&str| text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#'));
    found.retain(says_something);
    found
}

fn merge(
    map: &mut BTreeMap<String, String>,
    what: &'static str,
    other: BTreeMap<String, String>,
) -> Result<(), MappingError> {
    other.into_iter().try_for_each(|(old, new)| insert(map, what, old, new))
}

fn insert(
    map: &mut BTreeMap<String, String>,
    what: &'static str,
    old: String,
    new: String,
) -> Result<(), MappingError> {
    match map.insert(old.clone(), new.clone()) {
        Some(first) if first != new => Err(MappingError::Twice { what, name: old, first, second: new }),
        _ => Ok(()),
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
    insert(map, what, old.to_owned(), new.to_owned())
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
    /// Places (by index in [`Transform::rules`]) of the patches that selected this object.
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
    #[error("{rule} does not fit {object}: {why}; correct it, or narrow what it selects")]
    Patch {
        /// Which: `patch 1`, `resource modifier rule 2`.
        rule: String,
        /// `Kind namespace/name`.
        object: String,
        /// The operation and the reason.
        why: String,
    },
    /// A patch changed what the object is called.
    #[error(
        "{rule} changes {field} of {object}, which would make it another object that nothing refers to; \
         map namespaces with a namespace mapping, and leave the rest of the name"
    )]
    Identity {
        /// Which: `patch 1`, `resource modifier rule 2`.
        rule: String,
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
            && !names::are_mapped(m)
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

    /// Rules that are patches, in words: `patch 1 (kind Deployment)`.
    pub fn rules(&self) -> impl Iterator<Item = String> {
        self.patches.iter().map(|rule| format!("{} ({})", rule.name, rule.selects))
    }

    /// The object as it shall be on the target. `plural` is its resource's name in paths, by which Velero selects.
    ///
    /// # Errors
    /// When a patch that selects the object does not fit it.
    pub fn apply(&self, object: &Value, plural: &str) -> Result<Transformed, TransformError> {
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
        if names::are_mapped(&self.mapping) {
            names::apply(&self.mapping, &mut value);
        }
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("");
        let subject = patches::Subject { original: object, plural, namespace: self.namespace(namespace) };
        let patched = patches::apply(&self.patches, &subject, &mut value)?;
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
            ("hosts: {'https://a.b': c.d}", "host \"https://a.b\" must be a host name"),
            ("hosts: {.a.b: c.d}", "host \"c.d\" must be a host name"),
            ("hosts: {a.b: 'c d'}", "mapped name \"c d\" must not be empty or contain blanks"),
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
        let several = "namespaces: {a: b}\n---\n# nothing\n---\nhosts: {a.b: c.d}\npatches: [{target: {}, merge: {a: 1}}]\n---\nnamespaces: {c: d}\n";
        let several = Mapping::from_yaml(several).unwrap();
        assert_eq!((several.namespaces.len(), several.hosts.len(), several.patches.len()), (2, 1, 1));
        let twice = Mapping::from_yaml("nodes: {a: b}\n---\nnodes: {a: c}").unwrap_err().to_string();
        assert!(twice.contains("node mapping \"a\" is mapped to both"), "{twice}");
        let nothing = Mapping::from_yaml("namespaces: {ops: ops}").unwrap().check().unwrap();
        assert!(nothing.is_empty());
        assert!(Transform::default().is_empty());
    }
}
