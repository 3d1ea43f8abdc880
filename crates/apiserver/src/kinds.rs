//! What this server serves: one table of built-in kinds, and the kinds that custom resource
//! definitions add while it runs.
//!
//! Routes, discovery, OpenAPI, printer columns and storage all start from here, so a kind is added
//! in one line.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

/// One version in which a kind is served.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Such as `v1`.
    pub name: String,
    /// Has a `/status` subresource, which isolates `status`.
    pub status: bool,
    /// Has a `/scale` subresource.
    pub scale: Option<Scale>,
    /// The `openAPIV3Schema` of a custom resource.
    pub schema: Option<Value>,
    /// The compiled rules of that schema.
    pub rules: crate::rules::Compiled,
    /// Paths a custom resource can be selected by, beside name and namespace.
    pub selectable: Vec<String>,
    /// The `additionalPrinterColumns` of a custom resource.
    pub columns: Vec<Value>,
    /// Message clients are warned with.
    pub deprecation: Option<String>,
}

/// Where a kind keeps what `/scale` shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// Path of the wanted number.
    pub spec: Vec<String>,
    /// Path of the observed number.
    pub status: Vec<String>,
    /// Path of the serialized label selector, for custom resources that have one.
    pub selector: Option<Vec<String>>,
}

/// A kind of object, in all the versions it is served.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// API group, empty for core.
    pub group: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Such as `DeploymentList`.
    pub list_kind: String,
    /// Such as `deployments`.
    pub plural: String,
    /// Such as `deployment`.
    pub singular: String,
    /// Lives in namespaces.
    pub namespaced: bool,
    /// Such as `deploy`.
    pub short: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
    /// Served versions, preferred first.
    pub versions: Vec<Version>,
    /// The version objects are stored in.
    pub storage: String,
    /// Subresources beside status and scale, as (name, kind, verbs).
    pub extra: Vec<(&'static str, &'static str, &'static str)>,
    /// Comes from a custom resource definition.
    pub custom: bool,
    /// Counts changes of its spec in `metadata.generation`.
    pub generation: bool,
    /// Between its versions somebody outside converts, who is not here to be asked.
    pub converted_outside: bool,
    /// What it can be asked for, if that was told; else everything.
    pub verbs: Vec<String>,
    /// Rows that the server this one stands for printed.
    pub printed: Option<Arc<crate::served::Printed>>,
}

impl Kind {
    /// `deployments.apps`: the name that is unique among all kinds.
    pub fn resource(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_string() } else { format!("{}/{version}", self.group) }
    }

    /// The served version of that name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.name == name)
    }

    /// Is this the kind `resource` (`deployments.apps`)?
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// Splits `apps/v1` into group and version.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

const NS: bool = true;
const CLUSTER: bool = false;

struct Row(
    &'static str, // group
    &'static str, // versions, preferred first
    &'static str, // plural
    &'static str, // kind
    bool,         // namespaced
    &'static str, // short names
    &'static str, // categories
    &'static str, // s: status, c: scale, g: generation
);

#[rustfmt::skip] // One row a kind reads as the table it is.
const TABLE: &[Row] = &[
    Row("", "v1", "configmaps", "ConfigMap", NS, "cm", "", ""),
    Row("", "v1", "endpoints", "Endpoints", NS, "ep", "", ""),
    Row("", "v1", "events", "Event", NS, "ev", "", ""),
    Row("", "v1", "limitranges", "LimitRange", NS, "limits", "", ""),
    Row("", "v1", "namespaces", "Namespace", CLUSTER, "ns", "", "s"),
    Row("", "v1", "nodes", "Node", CLUSTER, "no", "", "s"),
    Row("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", NS, "pvc", "", "s"),
    Row("", "v1", "persistentvolumes", "PersistentVolume", CLUSTER, "pv", "", "s"),
    Row("", "v1", "pods", "Pod", NS, "po", "all", "s"),
    Row("", "v1", "podtemplates", "PodTemplate", NS, "", "", "g"),
    Row("", "v1", "replicationcontrollers", "ReplicationController", NS, "rc", "all", "scg"),
    Row("", "v1", "resourcequotas", "ResourceQuota", NS, "quota", "", "s"),
    Row("", "v1", "secrets", "Secret", NS, "", "", ""),
    Row("", "v1", "serviceaccounts", "ServiceAccount", NS, "sa", "", ""),
    Row("", "v1", "services", "Service", NS, "svc", "all", "s"),
    Row("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", CLUSTER, "", "api-extensions", "g"),
    Row("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", CLUSTER, "", "api-extensions", "sg"),
    Row("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", CLUSTER, "", "api-extensions", "g"),
    Row("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", CLUSTER, "", "api-extensions", "g"),
    Row("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", CLUSTER, "crd,crds", "api-extensions", "sg"),
    Row("apiregistration.k8s.io", "v1", "apiservices", "APIService", CLUSTER, "", "api-extensions", "s"),
    Row("apps", "v1", "controllerrevisions", "ControllerRevision", NS, "", "", ""),
    Row("apps", "v1", "daemonsets", "DaemonSet", NS, "ds", "all", "sg"),
    Row("apps", "v1", "deployments", "Deployment", NS, "deploy", "all", "scg"),
    Row("apps", "v1", "replicasets", "ReplicaSet", NS, "rs", "all", "scg"),
    Row("apps", "v1", "statefulsets", "StatefulSet", NS, "sts", "all", "scg"),
    Row("autoscaling", "v2,v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", NS, "hpa", "all", "s"),
    Row("batch", "v1", "cronjobs", "CronJob", NS, "cj", "all", "sg"),
    Row("batch", "v1", "jobs", "Job", NS, "", "all", "sg"),
    Row("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", CLUSTER, "csr", "", "s"),
    Row("coordination.k8s.io", "v1", "leases", "Lease", NS, "", "", ""),
    Row("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", NS, "", "", "g"),
    Row("events.k8s.io", "v1", "events", "Event", NS, "ev", "", ""),
    Row("networking.k8s.io", "v1", "ingressclasses", "IngressClass", CLUSTER, "", "", "g"),
    Row("networking.k8s.io", "v1", "ingresses", "Ingress", NS, "ing", "", "sg"),
    Row("networking.k8s.io", "v1", "ipaddresses", "IPAddress", CLUSTER, "ip", "", ""),
    Row("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", NS, "netpol", "", "g"),
    Row("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", CLUSTER, "", "", "s"),
    Row("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", CLUSTER, "", "", ""),
    Row("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", NS, "pdb", "", "sg"),
    Row("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", CLUSTER, "", "", ""),
    Row("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", CLUSTER, "", "", ""),
    Row("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", NS, "", "", ""),
    Row("rbac.authorization.k8s.io", "v1", "roles", "Role", NS, "", "", ""),
    Row("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", CLUSTER, "pc", "", "g"),
    Row("storage.k8s.io", "v1", "csidrivers", "CSIDriver", CLUSTER, "", "", ""),
    Row("storage.k8s.io", "v1", "csinodes", "CSINode", CLUSTER, "", "", ""),
    Row("storage.k8s.io", "v1", "csistoragecapacities", "CSIStorageCapacity", NS, "", "", ""),
    Row("storage.k8s.io", "v1", "storageclasses", "StorageClass", CLUSTER, "sc", "", ""),
    Row("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", CLUSTER, "", "", "s"),
];

/// Subresources beside status and scale: (resource, name, kind, verbs).
const EXTRA: &[(&str, &str, &str, &str)] = &[
    ("namespaces", "finalize", "Namespace", "update"),
    ("pods", "attach", "PodAttachOptions", "create,get"),
    ("pods", "binding", "Binding", "create"),
    ("pods", "ephemeralcontainers", "Pod", "get,patch,update"),
    ("pods", "eviction", "Eviction", "create"),
    ("pods", "exec", "PodExecOptions", "create,get"),
    ("pods", "log", "Pod", "get"),
    ("pods", "portforward", "PodPortForwardOptions", "create,get"),
    ("serviceaccounts", "token", "TokenRequest", "create"),
];

/// Kinds that are only ever posted and answered, never stored: (group, plural, kind, namespaced).
pub const REVIEWS: &[(&str, &str, &str, bool)] = &[
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", CLUSTER),
    ("authentication.k8s.io", "tokenreviews", "TokenReview", CLUSTER),
    ("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", NS),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", CLUSTER),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", CLUSTER),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", CLUSTER),
];

/// The order in which real servers list their groups.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "apps",
];

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|t| !t.is_empty()).map(str::to_string).collect()
}

fn path(text: &str) -> Vec<String> {
    text.split('.').filter(|t| !t.is_empty()).map(str::to_string).collect()
}

fn built_in(row: &Row) -> Kind {
    let Row(group, versions, plural, kind, namespaced, short, categories, flags) = *row;
    let scale = flags.contains('c').then(|| Scale {
        spec: path("spec.replicas"),
        status: path("status.replicas"),
        selector: None,
    });
    let version = |name: String| Version {
        name,
        status: flags.contains('s'),
        scale: scale.clone(),
        schema: None,
        rules: Default::default(),
        selectable: Vec::new(),
        columns: Vec::new(),
        deprecation: None,
    };
    let versions: Vec<Version> = list(versions).into_iter().map(version).collect();
    Kind {
        group: group.into(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        namespaced,
        short: list(short),
        categories: list(categories),
        storage: versions.first().map(|v| v.name.clone()).unwrap_or_default(),
        versions,
        extra: EXTRA.iter().filter(|e| group.is_empty() && e.0 == plural).map(|e| (e.1, e.2, e.3)).collect(),
        custom: false,
        generation: flags.contains('g'),
        converted_outside: false,
        verbs: Vec::new(),
        printed: None,
    }
}

/// A group that an aggregated API server should serve, as told by an `APIService` object. We never
/// run one, so it is unavailable: clients must cope, as they must with a dead metrics server.
#[derive(Debug, Clone, PartialEq)]
pub struct Absent {
    /// API group.
    pub group: String,
    /// Its version.
    pub version: String,
}

/// All kinds served now.
#[derive(Debug, Clone)]
pub struct Kinds {
    kinds: BTreeMap<(String, String), Arc<Kind>>,
    custom_groups: Vec<String>,
    /// Versions of a group in the order another server has them.
    orders: BTreeMap<String, Vec<String>>,
    /// Only what was inserted is served.
    captured: bool,
    /// How often a kind came or went.
    changes: u64,
    /// Aggregated APIs that answer 503.
    pub absent: Vec<Absent>,
}

impl Default for Kinds {
    fn default() -> Kinds {
        let kinds =
            TABLE.iter().map(built_in).map(|k| ((k.group.clone(), k.plural.clone()), Arc::new(k))).collect();
        Kinds { kinds, ..Kinds::none(false) }
    }
}

impl Kinds {
    fn none(captured: bool) -> Kinds {
        Kinds {
            kinds: BTreeMap::new(),
            custom_groups: Vec::new(),
            orders: BTreeMap::new(),
            captured,
            changes: 0,
            absent: Vec::new(),
        }
    }

    /// Nothing yet: what another server served is to come.
    pub fn empty() -> Kinds {
        Kinds::none(true)
    }

    /// The order of a group's versions.
    pub fn order(&mut self, group: &str, versions: Vec<String>) {
        self.orders.insert(group.to_string(), versions);
    }

    /// The kind with this plural name, if it is served.
    pub fn get(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.kinds.get(&(group.to_string(), plural.to_string()))
    }

    /// The kind of an object's `apiVersion` and `kind`.
    pub fn of(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = split_api_version(api_version);
        self.kinds.values().find(|k| k.group == group && k.kind == kind && k.version(version).is_some())
    }

    /// The kind in any version, as garbage collection looks owners up.
    pub fn of_group(&self, group: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.kinds.values().find(|k| k.group == group && k.kind == kind)
    }

    /// The kind of that unique name (`deployments.apps`).
    pub fn resource(&self, resource: &str) -> Option<&Arc<Kind>> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        self.get(group, plural)
    }

    /// Every kind, by group and plural.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// Groups in the order of a real server, custom ones last; the core group first.
    pub fn groups(&self) -> Vec<String> {
        let mut groups: Vec<String> = GROUP_ORDER.iter().map(|g| g.to_string()).collect();
        groups.extend(self.custom_groups.iter().filter(|g| !GROUP_ORDER.contains(&g.as_str())).cloned());
        for absent in &self.absent {
            if !groups.contains(&absent.group) {
                groups.push(absent.group.clone());
            }
        }
        if self.captured {
            groups.retain(|group| !self.versions(group).is_empty());
        }
        groups
    }

    /// Versions of a group, preferred first.
    pub fn versions(&self, group: &str) -> Vec<String> {
        let mut versions: Vec<String> = Vec::new();
        for kind in self.kinds.values().filter(|k| k.group == group) {
            for version in &kind.versions {
                if !versions.contains(&version.name) {
                    versions.push(version.name.clone());
                }
            }
        }
        if REVIEWS.iter().any(|r| r.0 == group) && versions.is_empty() {
            versions.push("v1".into());
        }
        versions.extend(self.absent.iter().filter(|a| a.group == group).map(|a| a.version.clone()));
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        if let Some(order) = self.orders.get(group) {
            versions.sort_by_key(|v| order.iter().position(|o| o == v).unwrap_or(usize::MAX));
        }
        versions
    }

    /// Kinds of a group version, by plural name.
    pub fn within(&self, group: &str, version: &str) -> Vec<Arc<Kind>> {
        self.kinds.values().filter(|k| k.group == group && k.version(version).is_some()).cloned().collect()
    }

    /// Is this group version an aggregated API that nobody serves?
    pub fn is_absent(&self, group: &str, version: &str) -> bool {
        self.absent.iter().any(|a| a.group == group && a.version == version)
    }

    /// Adds what a definition defines. Where another server is stood for, its objects are at hand in the version that
    /// one preferred, whatever it stored.
    pub fn define(&mut self, mut kind: Kind) {
        let before = self.get(&kind.group, &kind.plural).filter(|_| self.captured);
        if let Some(before) = before {
            if kind.version(&before.storage).is_some() {
                kind.storage = before.storage.clone();
            }
            kind.printed = before.printed.clone();
        }
        self.insert(kind);
    }

    /// Adds an aggregated API that nobody serves, unless its kinds were captured.
    pub fn miss(&mut self, absent: Absent) {
        let is_known = self.captured && !self.within(&absent.group, &absent.version).is_empty();
        if !is_known && !self.absent.contains(&absent) {
            self.absent.push(absent);
        }
    }

    /// How often a kind came or went.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Serves a kind; replaces an earlier one of the same name.
    pub fn insert(&mut self, kind: Kind) {
        self.changes += 1;
        if !self.custom_groups.contains(&kind.group) && !GROUP_ORDER.contains(&kind.group.as_str()) {
            self.custom_groups.push(kind.group.clone());
        }
        self.kinds.insert((kind.group.clone(), kind.plural.clone()), Arc::new(kind));
    }

    /// Stops serving a custom kind.
    pub fn remove(&mut self, group: &str, plural: &str) {
        self.changes += 1;
        self.kinds.remove(&(group.to_string(), plural.to_string()));
        if !self.kinds.values().any(|k| k.group == group) {
            self.custom_groups.retain(|g| g != group);
        }
    }
}

/// Kubernetes' order of versions: v2 before v1 before v1beta2 before v1alpha1 before anything else.
pub fn priority(version: &str) -> (u8, u32, u32) {
    let parse = |text: &str| -> Option<(u8, u32, u32)> {
        let rest = text.strip_prefix('v')?;
        let split = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..split].parse().ok()?;
        let tail = &rest[split..];
        match (tail, tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            ("", ..) => Some((3, major, 0)),
            (_, Some(minor), _) => Some((2, major, minor.parse().ok()?)),
            (_, _, Some(minor)) => Some((1, major, minor.parse().ok()?)),
            _ => None,
        }
    };
    parse(version).unwrap_or((0, 0, 0))
}

/// The kind a custom resource definition describes. `None` if the definition names no served version.
pub fn from_definition(definition: &Value) -> Option<Kind> {
    let spec = definition.get("spec")?;
    let names = spec.get("names")?;
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_string);
    let texts = |value: &Value, key: &str| -> Vec<String> {
        let items = value.get(key).and_then(Value::as_array);
        items.into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
    };
    let kind = text(names, "kind")?;
    let mut storage = None;
    let mut versions = Vec::new();
    for version in spec.get("versions")?.as_array()? {
        let name = text(version, "name")?;
        if version["storage"] == json!(true) {
            storage = Some(name.clone());
        }
        if version["served"] != json!(true) {
            continue;
        }
        let sub = &version["subresources"];
        let scale = sub.get("scale").and_then(|scale| {
            Some(Scale {
                spec: path(scale.get("specReplicasPath")?.as_str()?),
                status: path(scale.get("statusReplicasPath")?.as_str()?),
                selector: scale.get("labelSelectorPath").and_then(Value::as_str).map(path),
            })
        });
        let schema = version.get("schema").and_then(|s| s.get("openAPIV3Schema")).cloned();
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let selectable = selectable.filter_map(|f| f["jsonPath"].as_str());
        let deprecated = version["deprecated"] == json!(true);
        versions.push(Version {
            status: sub.get("status").is_some_and(|s| !s.is_null()),
            scale,
            rules: schema.as_ref().map(crate::rules::compile).unwrap_or_default(),
            schema,
            selectable: selectable.map(|path| path.trim_start_matches('.').to_string()).collect(),
            columns: version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
            deprecation: deprecated.then(|| {
                text(version, "deprecationWarning").unwrap_or_else(|| {
                    format!("{}/{name} {kind} is deprecated", text(spec, "group").unwrap_or_default())
                })
            }),
            name,
        });
    }
    versions.sort_by_key(|v| std::cmp::Reverse(priority(&v.name)));
    let storage = storage.or_else(|| versions.first().map(|v| v.name.clone()))?;
    Some(Kind {
        group: text(spec, "group")?,
        list_kind: text(names, "listKind").unwrap_or_else(|| format!("{kind}List")),
        plural: text(names, "plural")?,
        singular: text(names, "singular").unwrap_or_else(|| kind.to_lowercase()),
        namespaced: spec["scope"] == json!("Namespaced"),
        short: texts(names, "shortNames"),
        categories: texts(names, "categories"),
        versions,
        storage,
        extra: Vec::new(),
        custom: true,
        generation: true,
        converted_outside: spec["conversion"]["strategy"] == json!("Webhook"),
        verbs: Vec::new(),
        printed: None,
        kind,
    })
}

/// A kind for objects whose definition is unknown, so that a snapshot can show them all the same.
/// The plural is guessed the way Kubernetes guesses it.
pub fn guessed(api_version: &str, kind: &str, namespaced: bool) -> Kind {
    let (group, version) = split_api_version(api_version);
    let singular = kind.to_lowercase();
    let plural = match singular.as_bytes() {
        [.., b's'] | [.., b'x'] | [.., b'c', b'h'] | [.., b's', b'h'] => format!("{singular}es"),
        [.., b'y'] => format!("{}ies", &singular[..singular.len() - 1]),
        _ => format!("{singular}s"),
    };
    Kind {
        group: group.into(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        plural,
        singular,
        namespaced,
        short: Vec::new(),
        categories: Vec::new(),
        versions: vec![Version {
            name: version.into(),
            status: false,
            scale: None,
            schema: None,
            rules: Default::default(),
            selectable: Vec::new(),
            columns: Vec::new(),
            deprecation: None,
        }],
        storage: version.into(),
        extra: Vec::new(),
        custom: true,
        generation: true,
        converted_outside: false,
        verbs: Vec::new(),
        printed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_kubernetes_sorts_them() {
        let mut versions = ["foo1", "v1alpha1", "v10", "v1beta1", "v2", "v1beta2", "v1"];
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo1"]);
    }

    #[test]
    fn a_definition_serves_only_its_served_versions_and_stores_in_its_storage_version() {
        let kind = from_definition(&json!({"spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {"name": "v1alpha1", "served": true, "storage": false},
            {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}},
            {"name": "v0", "served": false, "storage": false},
        ]}}))
        .unwrap();
        let names: Vec<&str> = kind.versions.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["v1", "v1alpha1"]);
        assert_eq!((kind.storage.as_str(), kind.list_kind.as_str()), ("v1", "WidgetList"));
        assert_eq!(kind.resource(), "widgets.example.com");
        assert!(kind.version("v1").unwrap().status && !kind.version("v1alpha1").unwrap().status);
    }
}
