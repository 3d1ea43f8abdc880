//! What each Kubernetes kind means to us: one file a kind, one table for all.
//!
//! A kind's file says what it refers to, when it is applied, what is stripped, which objects of it are not
//! ours to keep, and how we know it is ready. Nothing else in the house has a `match kind`. A kind that has
//! no file gets [`CUSTOM`]: custom resources, whose references are recognised by their usual shapes.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::Found;

/// When a kind is applied on a restore. Earlier waves first; within a wave references decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Order {
    /// Namespaces: everything lives in one.
    Namespace,
    /// Custom resource definitions: before what they define, and to be established first.
    Definition,
    /// Classes of storage, priority, ingress, runtime.
    Class,
    /// Quotas and limits: before what they count, so that defaults are filled in as they were.
    Limit,
    /// Service accounts.
    Account,
    /// Roles.
    Role,
    /// Role bindings.
    Binding,
    /// ConfigMaps and Secrets.
    Config,
    /// Persistent volumes.
    Volume,
    /// Claims; their data is written before anything of a later wave is applied.
    Claim,
    /// Services and network policies: names and rules before those who use them.
    Network,
    /// Custom resources, before workloads that may wait for what their controllers make of them.
    Custom,
    /// What runs.
    Workload,
    /// Budgets, ingresses, routes: once there is something behind them.
    Front,
    /// Autoscalers: held back until what they scale has its data.
    Autoscale,
    /// API services: once their Service answers.
    Api,
    /// Webhook configurations, last: a webhook whose pods are not up refuses everybody else.
    Webhook,
}

/// Is a restored object doing what it is there for?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Not yet, in words: `2 of 3 replicas are ready`.
    Waiting(String),
    /// It will not become ready by itself.
    Failed(String),
}

/// Does an object belong into a recovery point?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Stored and restored.
    Yes,
    /// Stored to be looked at; a restore leaves it alone, for this reason.
    Evidence(&'static str),
    /// Not stored, for this reason: the cluster makes it, or it is gone in a minute.
    No(&'static str),
}

/// How a workload is held back until its data is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// This number (JSON pointer) becomes 0.
    Zero(&'static str),
    /// This flag (JSON pointer) becomes true.
    True(&'static str),
}

/// Whose name stands at a reference rule's path, and how it is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The name of one of this group and kind, in the namespace of the object itself.
    Here(&'static str, &'static str),
    /// The name of one that is cluster-scoped.
    Cluster(&'static str, &'static str),
    /// The name of one in a fixed namespace: (namespace, group, kind).
    In(&'static str, &'static str, &'static str),
    /// An object with `name`, and perhaps `namespace`.
    There(&'static str, &'static str),
    /// The same with other field names: (group, kind, field of the name, field of the namespace).
    Named(&'static str, &'static str, &'static str, &'static str),
    /// An object that also says what it names, in `kind` and `apiVersion`, `apiGroup` or `group`; where it says
    /// nothing, it is of this group and kind.
    Says(&'static str, &'static str),
    /// `name` or `namespace/name` in one text.
    Slashed(&'static str, &'static str),
    /// A label selector for pods of the object's namespace.
    Pods,
    /// A plain map of labels for pods of the object's namespace; an empty one selects nothing.
    PodLabels,
    /// A label selector for objects of this group and kind, and where they are looked for.
    Objects(&'static str, &'static str, Where),
    /// A host, a list of hosts, or a URL.
    Host,
}

/// Where a selector looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In the object's own namespace.
    Here,
    /// Among what is cluster-scoped.
    Cluster,
    /// In the namespaces that this field beside the selector says: `any`, `matchNames`, or a label selector for
    /// namespaces; the object's own without it.
    Beside(&'static str),
}

/// One line of a kind's reference table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefRule {
    /// JSON pointer to the name; `*` stands for every element or member. If the object that holds the name has
    /// `optional: true`, so is the reference.
    pub at: &'static str,
    /// Whose name it is.
    pub to: To,
    /// What the reference means.
    pub via: RefKind,
    /// The object can do without.
    pub optional: bool,
}

/// A line of a reference table.
pub const fn rule(at: &'static str, to: To, via: RefKind) -> RefRule {
    RefRule { at, to, via, optional: false }
}

impl RefRule {
    /// The same, and the object can do without.
    pub const fn optional(self) -> RefRule {
        RefRule { optional: true, ..self }
    }
}

/// Looks at other objects of the cluster, for kinds whose fate depends on a neighbour.
pub type Lookup<'a> = &'a dyn Fn(&ObjectKey) -> Option<Object>;

/// What a kind means to us.
#[derive(Clone, Copy)]
pub struct KindInfo {
    /// API group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Other groups that serve the very same objects (`extensions`): not listed a second time.
    pub also: &'static [&'static str],
    /// Why the whole kind is not even read: it is never stored.
    pub ignored: Option<&'static str>,
    /// When it is applied.
    pub order: Order,
    /// Objects of it live in no namespace.
    pub cluster_scoped: bool,
    /// Names it holds.
    pub refs: &'static [RefRule],
    /// Where it has a pod spec (JSON pointer); its references are read by one table for all kinds.
    pub pod_spec: Option<&'static str>,
    /// Where it has parts of a pod spec (JSON pointers) without being what runs: an operator makes the pods.
    pub like_pods: &'static [&'static str],
    /// References a table cannot say: subjects, names that are computed, hosts in text.
    pub find: Option<fn(&Object, &mut Vec<Found>)>,
    /// References that another object completes: the kind of a parameter stands in its policy.
    pub near: Option<fn(&Object, Lookup<'_>, &mut Vec<Found>)>,
    /// JSON pointers (with `*`) removed from the clean object, beside what goes for every kind.
    pub strip: &'static [&'static str],
    /// Cleaning that a list of pointers cannot say. Gets the original and the object to clean.
    pub clean: Option<fn(&Object, &mut Value)>,
    /// Does `status` stay in the clean object?
    pub keep_status: bool,
    /// Does this object belong into a recovery point?
    pub keep: fn(&Object, Lookup<'_>) -> Keep,
    /// Is it ready?
    pub ready: fn(&Value) -> Readiness,
    /// How it is held back until data is in.
    pub hold: Option<Hold>,
}

impl std::fmt::Debug for KindInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KindInfo({}/{})", self.group, self.kind)
    }
}

fn keep_all(_: &Object, _: Lookup<'_>) -> Keep {
    Keep::Yes
}

fn ready_when_there(_: &Value) -> Readiness {
    Readiness::Ready
}

/// A kind about which there is nothing to say; every kind's file starts from it.
pub const PLAIN: KindInfo = KindInfo {
    group: "",
    kind: "",
    also: &[],
    ignored: None,
    order: Order::Custom,
    cluster_scoped: false,
    refs: &[],
    pod_spec: None,
    like_pods: &[],
    find: None,
    near: None,
    strip: &[],
    clean: None,
    keep_status: false,
    keep: keep_all,
    ready: ready_when_there,
    hold: None,
};

mod admission_policy;
mod api_service;
mod argo;
mod cert_manager;
mod class;
mod cloud_native_pg;
mod cluster_role;
mod cluster_role_binding;
mod config_map;
mod controller_revision;
mod cron_job;
pub mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device;
mod endpoint_slice;
mod endpoints;
mod external_secrets;
mod flow;
mod flux;
mod gang;
mod gateway;
mod horizontal_pod_autoscaler;
mod ingress;
mod job;
mod keda;
mod limits;
mod namespace;
mod network_attachment;
mod network_policy;
mod openshift;
mod passing;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_disruption_budget;
mod pod_template;
mod prometheus;
mod replica_set;
mod replication_controller;
mod role;
mod role_binding;
mod secret;
mod service;
mod service_account;
mod stateful_set;
mod storage_class;
mod strimzi;
mod vertical_pod_autoscaler;
mod volume_snapshot;
mod webhook_configuration;

pub use webhook_configuration::sees as webhook_sees;

/// Kinds of Kubernetes itself and of its own extensions: each has a file.
static ALONE: &[&KindInfo] = &[
    &api_service::KIND,
    &class::PRIORITY,
    &class::RUNTIME,
    &class::INGRESS,
    &class::VOLUME_ATTRIBUTES,
    &class::TRUST_BUNDLE,
    &class::CSI_DRIVER,
    &cluster_role::KIND,
    &cluster_role_binding::KIND,
    &config_map::KIND,
    &controller_revision::KIND,
    &cron_job::KIND,
    &custom_resource_definition::KIND,
    &daemon_set::KIND,
    &deployment::KIND,
    &endpoint_slice::KIND,
    &endpoints::KIND,
    &horizontal_pod_autoscaler::KIND,
    &ingress::KIND,
    &job::KIND,
    &limits::QUOTA,
    &limits::RANGE,
    &namespace::KIND,
    &network_policy::KIND,
    &passing::EVENT,
    &passing::LEASE,
    &passing::LEASE_CANDIDATE,
    &passing::POD_METRICS,
    &passing::NODE_METRICS,
    &passing::COMPONENT_STATUS,
    &passing::SIGNING_REQUEST,
    &passing::VOLUME_ATTACHMENT,
    &passing::NODE,
    &passing::CSI_NODE,
    &passing::CSI_CAPACITY,
    &passing::RESOURCE_SLICE,
    &passing::STORAGE_VERSION,
    &passing::STORAGE_MIGRATION,
    &passing::POD_CERTIFICATE,
    &passing::TAINT_RULE,
    &passing::POOL_STATUS,
    &passing::EVICTION,
    &passing::EVICTION_REQUEST,
    &passing::BINDING,
    &passing::IP_ADDRESS,
    &passing::SERVICE_CIDR,
    &persistent_volume::KIND,
    &persistent_volume_claim::KIND,
    &pod::KIND,
    &pod_disruption_budget::KIND,
    &pod_template::KIND,
    &replica_set::KIND,
    &replication_controller::KIND,
    &role::KIND,
    &role_binding::KIND,
    &secret::KIND,
    &service::KIND,
    &service_account::KIND,
    &stateful_set::KIND,
    &storage_class::KIND,
    &vertical_pod_autoscaler::KIND,
    &webhook_configuration::VALIDATING,
    &webhook_configuration::MUTATING,
];

/// Families of kinds that come together: tables of their own.
static FAMILIES: &[&[KindInfo]] = &[
    admission_policy::KINDS,
    argo::KINDS,
    cert_manager::KINDS,
    cloud_native_pg::KINDS,
    device::KINDS,
    external_secrets::KINDS,
    flow::KINDS,
    flux::KINDS,
    gang::KINDS,
    gateway::KINDS,
    keda::KINDS,
    network_attachment::KINDS,
    openshift::KINDS,
    prometheus::KINDS,
    strimzi::KINDS,
    volume_snapshot::KINDS,
];

mod custom;
pub(crate) mod podspec;
pub use custom::CUSTOM;
pub use podspec::REFS as POD_RULES;

/// Every kind that has an entry.
pub fn all() -> impl Iterator<Item = &'static KindInfo> {
    ALONE.iter().copied().chain(FAMILIES.iter().copied().flatten())
}

/// Entries by kind: asked for with every object, so not by walking the table.
static BY_KIND: LazyLock<HashMap<&'static str, Vec<&'static KindInfo>>> = LazyLock::new(|| {
    let mut by_kind: HashMap<&'static str, Vec<&'static KindInfo>> = HashMap::new();
    for info in all() {
        by_kind.entry(info.kind).or_default().push(info);
    }
    by_kind
});

/// What a kind means: its own entry, that of the group it moved to, or [`CUSTOM`].
pub fn lookup(group: &str, kind: &str) -> &'static KindInfo {
    BY_KIND
        .get(kind)
        .into_iter()
        .flatten()
        .find(|info| info.group == group || info.also.contains(&group))
        .copied()
        .unwrap_or(&CUSTOM)
}

/// Is this an API group of Kubernetes itself? All others are served by a definition or by somebody's Service.
pub fn is_built_in(group: &str) -> bool {
    // Groups of extensions end in k8s.io too, so the names have to be known.
    !group.contains('.')
        || matches!(
            group.strip_suffix(".k8s.io"),
            Some(
                "admissionregistration"
                    | "apiextensions"
                    | "apiregistration"
                    | "authentication"
                    | "authorization"
                    | "certificates"
                    | "coordination"
                    | "discovery"
                    | "events"
                    | "flowcontrol.apiserver"
                    | "internal.apiserver"
                    | "lifecycle"
                    | "networking"
                    | "node"
                    | "rbac.authorization"
                    | "resource"
                    | "scheduling"
                    | "storage"
                    | "storagemigration"
            )
        )
}

/// The entry for an object.
pub fn of(object: &Object) -> &'static KindInfo {
    let gvk = object.gvk();
    lookup(&gvk.group, &gvk.kind)
}

/// What every kind with replicas says of itself: seen by its controller, and enough of them ready.
fn replicas_ready(object: &Value, wanted: i64, ready: i64) -> Readiness {
    let number = |at: &str| object.pointer(at).and_then(Value::as_i64);
    let generation = number("/metadata/generation").unwrap_or(0);
    if number("/status/observedGeneration").is_some_and(|seen| seen < generation) {
        return Readiness::Waiting("its controller has not seen it yet".into());
    }
    if ready < wanted {
        Readiness::Waiting(format!("{ready} of {wanted} replicas are ready"))
    } else {
        Readiness::Ready
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! How a kind's test asks about it: the references as lines, what is left after cleaning, what is kept.
    use super::*;
    use crate::refs::Target;

    /// `ConfigMap shop/c config /spec/…`, without what everything has: a namespace, and the
    /// default account.
    pub(crate) fn refs(object: &Value) -> Vec<String> {
        crate::refs::of(&Object(object.clone()))
            .into_iter()
            .filter(|found| {
                found.via != RefKind::Namespace && !(found.via == RefKind::ServiceAccount && found.optional)
            })
            .map(|found| {
                let to = match found.target {
                    Target::Object(key) => key.to_string(),
                    Target::Pods(namespace, selector) => format!("pods of {namespace} {selector:?}"),
                    Target::Objects { kind, namespaces, selector, .. } => {
                        format!("{kind} of {namespaces:?} {selector:?}")
                    }
                    Target::Definitions(group) => format!("definitions of {group}"),
                    Target::Host(mention) => format!("{:?} {}", mention.kind, mention.name),
                };
                let via = serde_json::to_value(found.via).unwrap();
                format!(
                    "{to} {}{} {}",
                    via.as_str().unwrap(),
                    if found.optional { " optional" } else { "" },
                    found.at
                )
            })
            .collect()
    }

    /// What a restore applies.
    pub(crate) fn cleaned(object: &Value) -> Value {
        crate::clean::clean(&Object(object.clone())).0
    }

    /// What becomes of an object that has no neighbours.
    pub(crate) fn kept(object: &Value) -> Keep {
        let object = Object(object.clone());
        (of(&object).keep)(&object, &|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_under_all_its_groups_and_no_two_share_a_name() {
        let mut names: Vec<_> = all().map(|info| (info.kind, info.group)).collect();
        for info in all() {
            for group in info.also.iter().chain([&info.group]) {
                assert!(std::ptr::eq(lookup(group, info.kind), info), "{group}/{}", info.kind);
            }
        }
        let entries = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), entries);
        assert!(std::ptr::eq(lookup("example.com", "Pod"), &CUSTOM), "another group's Pod is not ours");
    }
}
