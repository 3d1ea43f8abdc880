//! Which objects of a point: all, some namespaces, or single ones.
//!
//! Namespaces take with them what ties them to the cluster: the cluster-scoped objects that refer into them
//! or that they refer to. A selection by kind, name or label takes exactly what it names, and beside it only
//! what it cannot exist without: its namespace, its definition, the volume of a claim.

use std::collections::BTreeSet;

use crate::api::ResourceType;
use crate::graph::RefKind;
use crate::object::ObjectKey;
use crate::point::{Restore, StoredObject};
use crate::refs::{self, Target};
use crate::selector::{Selector, glob};

/// A selection. Empty parts select everything; parts are combined with "and".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    /// Namespaces in the point (globs).
    pub namespaces: Vec<String>,
    /// Kinds, as kubectl lets one write them: `deploy`, `Deployment`, `deployments.apps`.
    pub kinds: Vec<String>,
    /// Names in the point (globs).
    pub names: Vec<String>,
    /// Labels.
    pub labels: Selector,
}

impl std::fmt::Display for Only {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        for (what, list) in [("namespace", &self.namespaces), ("kind", &self.kinds), ("name", &self.names)] {
            if !list.is_empty() {
                parts.push(format!("{what} {}", list.join(" or ")));
            }
        }
        if !self.labels.is_empty() {
            parts.push("the labels asked for".into());
        }
        if parts.is_empty() {
            f.write_str("the selection (everything)")
        } else {
            f.write_str(&parts.join(", "))
        }
    }
}

/// Why a selection cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnlyError {
    /// No object of the point is of this kind.
    #[error("no object of the point is of a kind called {0:?}; `show` lists its kinds")]
    Kind(String),
}

impl Only {
    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && !self.is_granular()
    }

    /// Whether single objects are meant.
    fn is_granular(&self) -> bool {
        !self.kinds.is_empty() || !self.names.is_empty() || !self.labels.is_empty()
    }

    /// For each object, whether it is selected.
    ///
    /// # Errors
    /// If a kind is not in the point.
    pub(crate) fn pick(&self, objects: &[StoredObject]) -> Result<Vec<bool>, OnlyError> {
        if self.is_empty() {
            return Ok(vec![true; objects.len()]);
        }
        for kind in &self.kinds {
            if !objects.iter().any(|stored| is_kind(stored, kind)) {
                return Err(OnlyError::Kind(kind.clone()));
            }
        }
        let mut picked: Vec<bool> = objects.iter().map(|stored| self.names_it(stored)).collect();
        let references: Vec<Vec<(ObjectKey, RefKind)>> = objects.iter().map(references).collect();
        // Every round adds what is tied to the ones before; a round that adds nothing ends it.
        loop {
            let keys: BTreeSet<&ObjectKey> = objects
                .iter()
                .zip(&picked)
                .filter(|(_, picked)| **picked)
                .map(|(stored, _)| &stored.key)
                .collect();
            let wanted: BTreeSet<&ObjectKey> = references
                .iter()
                .zip(&picked)
                .filter(|(_, picked)| **picked)
                .flat_map(|(found, _)| found.iter().filter(|(_, via)| self.follows(*via)).map(|(key, _)| key))
                .collect();
            let added: Vec<usize> = objects
                .iter()
                .enumerate()
                .filter(|(index, stored)| {
                    !picked[*index]
                        && stored.key.namespace.is_empty()
                        && stored.restore == Restore::Yes
                        && (wanted.contains(&stored.key)
                            || references[*index].iter().any(|(key, via)| {
                                self.follows(*via) && !key.namespace.is_empty() && keys.contains(key)
                            }))
                })
                .map(|(index, _)| index)
                .collect();
            if added.is_empty() {
                return Ok(picked);
            }
            for index in added {
                picked[index] = true;
            }
        }
    }

    /// Is this object meant by the words of the selection?
    fn names_it(&self, stored: &StoredObject) -> bool {
        let key = &stored.key;
        let any =
            |patterns: &[String], text: &str| patterns.is_empty() || patterns.iter().any(|p| glob(p, text));
        let place = if key.namespace.is_empty() {
            // A cluster-scoped object is meant only if its kind was said.
            self.namespaces.is_empty() && (!self.kinds.is_empty() || !self.labels.is_empty())
        } else {
            any(&self.namespaces, &key.namespace)
        };
        place
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| is_kind(stored, kind)))
            && any(&self.names, &key.name)
            && (self.labels.is_empty() || self.labels.matches(&stored.original.open().labels()))
    }

    fn follows(&self, via: RefKind) -> bool {
        !self.is_granular() || matches!(via, RefKind::Namespace | RefKind::Definition | RefKind::Volume)
    }
}

/// Does `said` name the kind of this object, as kubectl lets one write it?
pub(super) fn is_kind(stored: &StoredObject, said: &str) -> bool {
    let resource = &stored.resource;
    let lower = said.to_ascii_lowercase();
    resource.kind.eq_ignore_ascii_case(said)
        || resource.plural == lower
        || resource.full_name() == lower
        || resource.singular == lower
        || resource.short_names.contains(&lower)
        || short(&lower) == Some(resource.kind.as_str())
}

/// kubectl's short names; the stored type carries only what identifies it.
fn short(said: &str) -> Option<&'static str> {
    Some(match said {
        "cm" => "ConfigMap",
        "crd" | "crds" => "CustomResourceDefinition",
        "cj" => "CronJob",
        "deploy" => "Deployment",
        "ds" => "DaemonSet",
        "hpa" => "HorizontalPodAutoscaler",
        "ing" => "Ingress",
        "limits" => "LimitRange",
        "netpol" => "NetworkPolicy",
        "ns" => "Namespace",
        "pc" => "PriorityClass",
        "pdb" => "PodDisruptionBudget",
        "po" => "Pod",
        "pv" => "PersistentVolume",
        "pvc" => "PersistentVolumeClaim",
        "quota" => "ResourceQuota",
        "rc" => "ReplicationController",
        "rs" => "ReplicaSet",
        "sa" => "ServiceAccount",
        "sc" => "StorageClass",
        "sts" => "StatefulSet",
        "svc" => "Service",
        _ => return None,
    })
}

/// What an object refers to, and what it is tied to without a reference of its own: the definition of its
/// kind, the claim of a volume.
fn references(stored: &StoredObject) -> Vec<(ObjectKey, RefKind)> {
    let object = stored.original.open();
    let mut found: Vec<(ObjectKey, RefKind)> = refs::of(&object)
        .into_iter()
        .filter_map(|found| match found.target {
            Target::Object(key) => Some((key, found.via)),
            _ => None,
        })
        .collect();
    if stored.key.is("", "PersistentVolume") {
        let (namespace, name) = (object.str("/spec/claimRef/namespace"), object.str("/spec/claimRef/name"));
        found.push((ObjectKey::new("", "PersistentVolumeClaim", namespace, name), RefKind::Volume));
    }
    if stored.key.group.contains('.') {
        found.push((definition_key(&stored.resource), RefKind::Definition));
    }
    found
}

/// The definition of a custom kind.
pub(crate) fn definition_key(resource: &ResourceType) -> ObjectKey {
    ObjectKey::new("apiextensions.k8s.io", "CustomResourceDefinition", "", &resource.full_name())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::object::Object;
    use crate::point::Role;

    fn stored(
        api_version: &str,
        kind: &str,
        plural: &str,
        namespace: &str,
        name: &str,
        rest: Value,
    ) -> StoredObject {
        let mut original = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": {"app": name}}});
        if !namespace.is_empty() {
            original["metadata"]["namespace"] = json!(namespace);
        }
        for (field, value) in rest.as_object().unwrap() {
            original[field] = value.clone();
        }
        let gvk = Object(original.clone()).gvk();
        let resource = ResourceType {
            group: gvk.group,
            version: gvk.version,
            kind: gvk.kind,
            plural: plural.into(),
            namespaced: !namespace.is_empty(),
            ..Default::default()
        };
        let key = Object(original.clone()).key();
        StoredObject {
            resource,
            key,
            role: Role::Member,
            restore: Restore::Yes,
            clean: (&original).into(),
            original: original.into(),
        }
    }

    fn point() -> Vec<StoredObject> {
        vec![
            stored("v1", "Namespace", "namespaces", "", "shop", json!({})),
            stored("v1", "Namespace", "namespaces", "", "other", json!({})),
            stored("v1", "ConfigMap", "configmaps", "shop", "web", json!({})),
            stored("v1", "ConfigMap", "configmaps", "other", "web", json!({})),
            stored(
                "v1",
                "PersistentVolumeClaim",
                "persistentvolumeclaims",
                "shop",
                "data",
                json!({"spec": {"volumeName": "pv", "storageClassName": "fast"}}),
            ),
            stored(
                "v1",
                "PersistentVolume",
                "persistentvolumes",
                "",
                "pv",
                json!({"spec": {"claimRef": {"namespace": "shop", "name": "data"}}}),
            ),
            stored("storage.k8s.io/v1", "StorageClass", "storageclasses", "", "fast", json!({})),
            stored("example.com/v1", "Thing", "things", "shop", "t", json!({})),
            stored(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                "customresourcedefinitions",
                "",
                "things.example.com",
                json!({}),
            ),
        ]
    }

    fn check(only: Only, want: &[&str]) {
        let objects = point();
        let picked = only.pick(&objects).unwrap();
        let got: Vec<String> =
            objects.iter().zip(picked).filter(|(_, p)| *p).map(|(o, _)| o.key.to_string()).collect();
        assert_eq!(got, want, "{only:?}");
    }

    #[test]
    fn a_part_of_a_point_takes_with_it_what_it_needs() {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        check(
            Only { namespaces: words(&["sh*"]), ..Default::default() },
            &[
                "Namespace shop",
                "ConfigMap shop/web",
                "PersistentVolumeClaim shop/data",
                "PersistentVolume pv",
                "StorageClass fast",
                "Thing.example.com shop/t",
                "CustomResourceDefinition things.example.com",
            ],
        );
        check(
            Only { kinds: words(&["cm"]), namespaces: words(&["other"]), ..Default::default() },
            &["Namespace other", "ConfigMap other/web"],
        );
        check(
            Only { kinds: words(&["pvc"]), ..Default::default() },
            &["Namespace shop", "PersistentVolumeClaim shop/data", "PersistentVolume pv"],
        );
        check(
            Only { kinds: words(&["things.example.com"]), ..Default::default() },
            &["Namespace shop", "Thing.example.com shop/t", "CustomResourceDefinition things.example.com"],
        );
        check(Only { names: words(&["nothing"]), ..Default::default() }, &[]);
        check(
            Only { labels: Selector::parse("app=web").unwrap(), ..Default::default() },
            &["Namespace shop", "Namespace other", "ConfigMap shop/web", "ConfigMap other/web"],
        );
        let error = Only { kinds: words(&["Deploiment"]), ..Default::default() }.pick(&point()).unwrap_err();
        assert!(error.to_string().contains("\"Deploiment\""), "{error}");
    }
}
