//! Being another server: the kinds, versions, documents and columns that one served, as they were captured.
//!
//! A snapshot is looked at with the tools of its cluster, so what is served is what was served there, no kind
//! more and none less. Where a kind is known here too, its columns come from here; one that only the other
//! server knew brings the rows it printed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::ApiServer;
use crate::kinds::{Kinds, guessed};

/// A resource in one version, as discovery told it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Such as `deployments`.
    pub plural: String,
    /// Such as `deployment`.
    pub singular: String,
    /// Lives in namespaces.
    pub namespaced: bool,
    /// Such as `deploy`.
    pub short_names: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
    /// What it can be asked for.
    pub verbs: Vec<String>,
    /// Such as `status`.
    pub subresources: Vec<String>,
}

/// The rows a server printed for a kind that only it can print.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Printed {
    /// Column definitions.
    pub columns: Vec<Value>,
    /// Cells, by namespace and name.
    pub rows: BTreeMap<(String, String), Vec<Value>>,
}

/// What a server served.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// Its resources; within a kind the preferred version first. Empty means: those of this server.
    pub resources: Vec<Resource>,
    /// Group versions that were announced and did not answer: `metrics.k8s.io/v1beta1`.
    pub unavailable: Vec<String>,
    /// OpenAPI documents by path: `v2`, `v3/apis/apps/v1`.
    pub documents: BTreeMap<String, Bytes>,
    /// Rows, by group and plural.
    pub printed: BTreeMap<(String, String), Printed>,
}

/// Whether this server has printer columns of its own for a built-in kind.
pub fn prints(group: &str, plural: &str) -> bool {
    Kinds::default().get(group, plural).is_some()
}

impl ApiServer {
    /// Serves what another server served, from now on. To be called before objects are loaded.
    pub fn serve_as(&self, served: Served) {
        self.change(|state| {
            if !served.resources.is_empty() {
                state.kinds = kinds_of(&served);
            }
            state.documents = served.documents;
        });
    }
}

fn kinds_of(served: &Served) -> Kinds {
    let known = Kinds::default();
    let mut all: BTreeMap<(&str, &str), Vec<&Resource>> = BTreeMap::new();
    for resource in &served.resources {
        // What is only ever posted and answered is no kind of object.
        if resource.verbs.is_empty() || resource.verbs.iter().any(|v| v == "get" || v == "list") {
            all.entry((&resource.group, &resource.plural)).or_default().push(resource);
        }
    }
    let mut kinds = Kinds::empty();
    let mut orders: BTreeMap<&str, Vec<Vec<String>>> = BTreeMap::new();
    for ((group, plural), versions) in all {
        let Some(first) = versions.first() else { continue };
        let api_version =
            if group.is_empty() { first.version.clone() } else { format!("{group}/{}", first.version) };
        let mut kind = match known.get(group, plural).filter(|k| k.kind == first.kind) {
            Some(known) => (**known).clone(),
            None => guessed(&api_version, &first.kind, first.namespaced),
        };
        kind.plural = plural.to_string();
        kind.namespaced = first.namespaced;
        if !first.singular.is_empty() {
            kind.singular = first.singular.clone();
        }
        kind.short = first.short_names.clone();
        kind.categories = first.categories.clone();
        kind.verbs = first.verbs.clone();
        kind.printed = served.printed.get(&(group.to_string(), plural.to_string())).cloned().map(Arc::new);
        let template = kind.versions.first().cloned();
        kind.versions = versions
            .iter()
            .filter_map(|resource| {
                let own = kind.version(&resource.version).cloned();
                let mut version = own.or_else(|| template.clone())?;
                let has = |sub: &str| resource.subresources.iter().any(|s| s == sub);
                version.name = resource.version.clone();
                version.status = has("status");
                if !has("scale") {
                    version.scale = None;
                }
                Some(version)
            })
            .collect();
        kind.storage = first.version.clone();
        kind.extra.retain(|(name, ..)| first.subresources.iter().any(|s| s == name));
        orders.entry(group).or_default().push(versions.iter().map(|r| r.version.clone()).collect());
        kinds.insert(kind);
    }
    for (group, lists) in orders {
        kinds.order(group, merged(lists));
    }
    for absent in &served.unavailable {
        let (group, version) = crate::kinds::split_api_version(absent);
        kinds.absent.push(crate::kinds::Absent { group: group.into(), version: version.into() });
    }
    kinds
}

/// One order that agrees with all of them: each kind tells only of the versions it has.
fn merged(lists: Vec<Vec<String>>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for list in lists {
        let mut at = 0;
        for version in list {
            match order.iter().position(|known| *known == version) {
                Some(found) => at = found + 1,
                None => {
                    order.insert(at, version);
                    at += 1;
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_keep_the_order_of_their_server() {
        let lists = |all: &[&[&str]]| all.iter().map(|l| l.iter().map(|v| v.to_string()).collect()).collect();
        assert_eq!(
            merged(lists(&[&["v1", "v2beta2"], &["v1", "v2beta1", "v2beta2"]])),
            ["v1", "v2beta1", "v2beta2"]
        );
        assert_eq!(merged(lists(&[&["v1beta1"], &["v1", "v1beta1"]])), ["v1", "v1beta1"]);
    }

    #[test]
    fn a_snapshot_shows_an_object_as_it_was_and_not_as_nobody_converted_it() {
        let server = ApiServer::new(crate::Options::deterministic(1).read_only());
        let of = |version: &str| Resource {
            group: "acme.io".into(),
            version: version.into(),
            kind: "Mouse".into(),
            plural: "mice".into(),
            namespaced: true,
            verbs: vec!["list".into()],
            ..Resource::default()
        };
        let service = serde_json::json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v2.acme.io"}, "spec": {"group": "acme.io", "version": "v2", "service": {"name": "x", "namespace": "y"}}});
        let version = |name: &str, storage: bool, field: &str| {
            serde_json::json!({"name": name, "served": true, "storage": storage,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {field: {"type": "string"}}}}})
        };
        let definition = serde_json::json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "mice.acme.io"}, "spec": {"group": "acme.io", "scope": "Namespaced",
                "names": {"kind": "Mouse", "plural": "mice"}, "conversion": {"strategy": "Webhook"},
                "versions": [version("v2", false, "tail"), version("v1", true, "tale")]}});
        let mouse = serde_json::json!({"apiVersion": "acme.io/v2", "kind": "Mouse", "tail": "long",
            "metadata": {"name": "m", "namespace": "x", "uid": "u", "resourceVersion": "7"}});
        server.serve_as(Served { resources: vec![of("v2"), of("v1")], ..Served::default() });
        assert_eq!(server.load([definition, service, mouse.clone()]), Vec::<String>::new());
        assert!(server.dump().contains(&mouse), "{:?}", server.dump());
        assert!(
            !server.shared.lock().kinds.is_absent("acme.io", "v2"),
            "its server answered when it was captured"
        );
        assert_eq!(server.shared.lock().kinds.get("acme.io", "mice").unwrap().storage, "v2");
    }

    #[test]
    fn an_old_server_is_served_with_its_versions_and_nothing_newer() {
        let of = |group: &str, version: &str, kind: &str, plural: &str| Resource {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced: true,
            verbs: vec!["get".into(), "list".into()],
            ..Resource::default()
        };
        let kinds = kinds_of(&Served {
            resources: vec![
                of("", "v1", "Pod", "pods"),
                of("batch", "v1beta1", "CronJob", "cronjobs"),
                of("batch", "v1", "Job", "jobs"),
                of("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
                of("autoscaling", "v2beta2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
                of("acme.io", "v3", "Mouse", "mice"),
            ],
            unavailable: vec!["metrics.k8s.io/v1beta1".into()],
            ..Served::default()
        });
        assert_eq!(kinds.versions("autoscaling"), ["v1", "v2beta2"]);
        assert_eq!(kinds.versions("batch"), ["v1", "v1beta1"]);
        assert_eq!(kinds.get("batch", "cronjobs").unwrap().storage, "v1beta1");
        assert!(kinds.get("policy", "poddisruptionbudgets").is_none());
        assert_eq!(kinds.get("acme.io", "mice").unwrap().kind, "Mouse");
        assert!(kinds.is_absent("metrics.k8s.io", "v1beta1"));
        assert!(!kinds.groups().contains(&"apps".to_string()));
    }
}
