//! Every kind that has a table, with everything it can name, moves to another cluster and other namespaces: nothing is lost on the
//! way, nothing differs but the mapping, and the certificate says the same there. What no table thought of is in `roundtrip.rs`.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

mod common;
#[path = "common/round.rs"]
mod round;
#[path = "common/rows.rs"]
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::diff::{DiffOptions, VolumeRoots, points};
use app::kinds::{self, Keep};
use app::object::{Gvk, Object, ObjectKey};
use app::point::Restore;
use app::restore::{RestoreOptions, plan};
use app::transform::Mapping;
use proptest::prelude::*;
use rows::{Case, Names, rows};
use serde_json::{Value, json};

/// Rows taken at a time: each takes two namespaces.
const AT_ONCE: usize = 60;

/// What a server wants to see in an object of its own kinds, beside what the row puts there. In YAML.
const BASES: &[(&str, &str)] = &[
    ("Pod", "spec: {containers: [{name: c, image: i}]}"),
    ("PodTemplate", "template: {spec: {containers: [{name: c, image: i}]}}"),
    (
        "Deployment StatefulSet DaemonSet ReplicaSet",
        "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}",
    ),
    (
        "ReplicationController",
        "spec: {selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}",
    ),
    ("Job", "spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}"),
    (
        "CronJob",
        "spec: {schedule: '0 3 * * *', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}",
    ),
    ("Service", "spec: {ports: [{port: 80}]}"),
    ("PersistentVolumeClaim", "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}"),
    (
        "PersistentVolume",
        "spec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, csi: {driver: d.example.com, volumeHandle: v}}",
    ),
    ("Ingress", "spec: {rules: [{host: h.example.com}]}"),
    ("IngressClass", "spec: {controller: x.io/y}"),
    (
        "HorizontalPodAutoscaler",
        "spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: none}}",
    ),
    ("StorageClass", "provisioner: d.example.com"),
    ("PriorityClass", "value: 7"),
    ("RuntimeClass", "handler: h"),
    ("VolumeAttributesClass", "driverName: d.example.com"),
    (
        "RoleBinding ClusterRoleBinding",
        "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}",
    ),
    ("EndpointSlice", "addressType: IPv4"),
    (
        "ValidatingWebhookConfiguration MutatingWebhookConfiguration",
        "webhooks: [{name: w.example.com, admissionReviewVersions: [v1], sideEffects: None, failurePolicy: Ignore, clientConfig: {url: 'https://w.example.com/'}}]",
    ),
    ("CSIDriver", "spec: {attachRequired: false}"),
    ("APIService", "spec: {group: g, version: v1, groupPriorityMinimum: 1, versionPriority: 1}"),
];

/// Puts `over` on top of `base`; lists element by element.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (field, value) in over {
                merge(base.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(over)) if !over.is_empty() => {
            for (at, value) in over.iter().enumerate() {
                match base.get_mut(at) {
                    Some(there) => merge(there, value),
                    None => base.push(value.clone()),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// Elements of a pod that cannot be without a name.
fn named(value: &mut Value, field: &str) {
    match value {
        Value::Array(elements) => {
            let is_named = ["containers", "initContainers", "volumes", "env", "claims", "resourceClaims"]
                .contains(&field);
            for element in elements {
                if is_named && element.is_object() && element.get("name").is_none() {
                    element["name"] = json!("n");
                }
                if field == "initContainers" && element.get("image").is_none() {
                    element["image"] = json!("i");
                }
                named(element, "");
            }
        }
        Value::Object(fields) => fields.iter_mut().for_each(|(field, value)| named(value, field)),
        _ => {}
    }
}

/// An object as a server would take it.
fn whole(object: &Value) -> Value {
    let kind = object["kind"].as_str().unwrap();
    let gvk = Object(object.clone()).gvk();
    let base = BASES.iter().find(|(kinds, _)| kinds.split(' ').any(|of| of == kind));
    let mut whole = match base.filter(|_| is_own(&gvk)) {
        Some((_, yaml)) => serde_saphyr::from_str(yaml).unwrap(),
        None => json!({}),
    };
    merge(&mut whole, object);
    if is_own(&gvk) {
        named(&mut whole, "");
        // A workload selects its own pods, and a row may have other labels for them.
        let labels = whole.pointer("/spec/selector/matchLabels").cloned();
        if let (Some(there), Some(labels)) = (whole.pointer_mut("/spec/template/metadata/labels"), labels) {
            *there = labels;
        }
    }
    whole
}

/// The definition of a kind that Kubernetes does not have.
fn definition(group: &str, kind: &str, namespaced: bool) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}"),
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {"group": group, "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

/// Kinds whose names are made of their fields, and which change what the API serves. They go through their round trips with the
/// applications for tests.
const NOT_HERE: &[&str] = &["CustomResourceDefinition", "APIService"];

/// Kinds of Kubernetes that came or went since the API that the embedded server has by itself: here both clusters have them defined.
const OTHERS: &[&str] = &[
    "ClusterTrustBundle",
    "CompositePodGroup",
    "DeviceClass",
    "FlowSchema",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "PodGroup",
    "PriorityLevelConfiguration",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourceClass",
    "VolumeAttributesClass",
    "Workload",
];

/// What a restore leaves out on purpose: a claim gets a volume of its own and its data from the point, and a container that
/// somebody started to look into a pod is not started again.
const LEFT: &[(&str, &str)] = &[
    ("PersistentVolumeClaim ", " /spec/volumeName "),
    ("PersistentVolumeClaim ", " /spec/dataSource"),
    ("Pod ", " /spec/ephemeralContainers/"),
];

/// The rows whose objects a restore makes, with their numbers.
fn usable() -> Vec<(usize, Case)> {
    let is_restored = |object: &Value| {
        let object = Object(object.clone());
        let gvk = object.gvk();
        let info = kinds::lookup(&gvk.group, &gvk.kind);
        !NOT_HERE.contains(&gvk.kind.as_str())
            && info.ignored.is_none()
            && (info.keep)(&object, &|_| None) == Keep::Yes
    };
    let all = rows().into_iter().enumerate();
    all.filter(|(_, case)| is_restored(&case.object) && is_restored(&case.target)).collect()
}

fn is_own(gvk: &Gvk) -> bool {
    kinds::is_built_in(&gvk.group) && !OTHERS.contains(&gvk.kind.as_str())
}

/// The definitions that these rows need, of the groups that are wanted.
fn definitions_of(cases: &[&(usize, Case)], wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    let objects = cases.iter().flat_map(|(_, case)| [&case.target, &case.object]);
    let mut all = BTreeMap::new();
    for object in objects {
        let gvk = Object(object.clone()).gvk();
        if !is_own(&gvk) && wanted(&gvk.group) {
            all.insert((gvk.group, gvk.kind), object["metadata"]["namespace"].is_string());
        }
    }
    all.iter().map(|((group, kind), namespaced)| definition(group, kind, *namespaced)).collect()
}

async fn define(cluster: &Cluster, definitions: &[Value]) {
    let resource = cluster.resources.find("apiextensions.k8s.io", "CustomResourceDefinition").unwrap();
    for definition in definitions {
        cluster.create(resource, &Object(definition.clone()), false).await.unwrap();
    }
}

/// Makes the objects of these rows, through the API and not past it; returns what was refused.
async fn make(cluster: &Cluster, cases: &[&(usize, Case)]) -> Vec<String> {
    let mut objects: Vec<Value> = Vec::new();
    for (number, case) in cases {
        for name in [Names(*number).home(), Names(*number).away()] {
            objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        }
        for object in [&case.target, &case.object] {
            let mut object = whole(object);
            let space = object["metadata"]["namespace"].as_str().map(str::to_owned);
            match space {
                // What is cluster-scoped comes with whoever says it belongs there.
                None if object["kind"] != "Namespace" => {
                    object["metadata"]["annotations"]["meta.helm.sh/release-namespace"] =
                        json!(Names(*number).home());
                }
                // A row may name something in a namespace of Kubernetes' own.
                Some(space) if ![Names(*number).home(), Names(*number).away()].contains(&space) => {
                    objects
                        .push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}));
                }
                _ => {}
            }
            objects.push(object);
        }
    }
    let resource = |cluster: &Cluster, object: &Object| {
        let gvk = object.gvk();
        cluster
            .resources
            .find_version(&gvk)
            .or_else(|| cluster.resources.find(&gvk.group, &gvk.kind))
            .cloned()
    };
    let (mut refused, mut made) = (Vec::new(), BTreeSet::new());
    let mut cluster = cluster.clone();
    define(&cluster, &definitions_of(cases, |_| true)).await;
    cluster = round::anew(&cluster).await;
    for object in objects {
        let mut object = Object(object);
        if !made.insert(object.key()) {
            continue;
        }
        let Some(resource) = resource(&cluster, &object) else {
            refused.push(format!("{}: not served", object.key()));
            continue;
        };
        // The rows say v1 for every group.
        object.0["apiVersion"] = json!(resource.gvk().api_version());
        if let Err(why) = cluster.create(&resource, &object, false).await {
            refused.push(format!("{}: {why}", object.key()));
        }
    }
    refused
}

/// A name without what the mapping put behind it.
fn undone(key: &ObjectKey) -> String {
    let strip = |text: &str| text.strip_suffix("-new").unwrap_or(text).to_owned();
    let mut key = key.clone();
    key.namespace = strip(&key.namespace);
    key.name = strip(&key.name);
    // `it-7-home-7-new`: a second one of what is cluster-scoped has the namespace behind its name.
    if key.namespace.is_empty() && key.kind != "Namespace" {
        for place in ["-home-", "-away-"] {
            if let Some((name, number)) = key.name.clone().rsplit_once(place)
                && number.chars().all(|c| c.is_ascii_digit())
            {
                key.name = name.to_owned();
            }
        }
    }
    key.to_string()
}

/// Backs these rows up, restores them elsewhere under other names, and backs that up.
async fn move_them(cases: &[&(usize, Case)]) {
    let stories =
        || cases.iter().map(|(number, case)| format!("{number}: {}", case.story)).collect::<Vec<_>>();
    let server = ApiServer::new(Options::deterministic(1));
    let here = common::cluster(&server).await;
    let refused = make(&here, cases).await;
    assert!(refused.is_empty(), "{refused:#?}");
    let here = round::anew(&here).await;
    let repository = round::repository();
    let homes: Vec<String> = cases.iter().map(|(number, _)| Names(*number).home()).collect();
    let point = round::backed_up(&repository, &here, &homes).await;
    for (_, case) in cases {
        let key = Object(case.object.clone()).key();
        let is_there = point.objects.iter().any(|stored| stored.key == key);
        assert!(is_there, "{key} is not in the point: {}", case.story);
    }

    let mut mapping = Mapping::default();
    for (number, _) in cases {
        for space in [Names(*number).home(), Names(*number).away()] {
            mapping.add_namespace(&format!("{space}={space}-new")).unwrap();
        }
    }
    let transform = mapping.check().unwrap();
    let target = ApiServer::new(Options::deterministic(7));
    let there = common::cluster(&target).await;
    define(&there, &definitions_of(cases, kinds::is_built_in)).await;
    let there = round::anew(&there).await;
    let options = RestoreOptions { transform: transform.clone(), ..RestoreOptions::default() };
    let (_, report) = round::restored(&point, &there, &options).await;
    assert_eq!(report.failed, 0, "{:#?} {:#?}", stories(), report.findings);
    let there = round::anew(&there).await;
    let again = plan(&point, &there, &options).await.unwrap();
    let open: Vec<String> = again
        .steps()
        .filter(|step| step.action != app::restore::Action::Unchanged)
        .map(|step| format!("{:?} {}: {} {:?}", step.action, step.key, step.reason, step.changes))
        .collect();
    assert!(open.is_empty(), "{open:#?}");

    let spaces: Vec<String> = homes.iter().map(|name| format!("{name}-new")).collect();
    let second = round::backed_up(&repository, &there, &spaces).await;
    let none = VolumeRoots::new();
    let options = DiffOptions { transform, ..DiffOptions::default() };
    let diff = points((&point, &none), (&second, &none), &options).unwrap();
    assert!(
        diff.is_empty(),
        "changed {:#?}, only before {:#?}, only after {:#?}",
        diff.changed,
        diff.only_before,
        diff.only_after
    );
    let evidence: Vec<String> = point
        .objects
        .iter()
        .filter(|stored| stored.restore != Restore::Yes)
        .map(|stored| format!("{} -> ", stored.key))
        .collect();
    let lasting = |all: BTreeSet<String>| -> BTreeSet<String> {
        let is_left =
            |line: &String| LEFT.iter().any(|(kind, at)| line.starts_with(kind) && line.contains(at));
        all.into_iter()
            .filter(|line| !is_left(line) && !evidence.iter().any(|from| line.starts_with(from.as_str())))
            .collect()
    };
    let before = lasting(round::references(&point, &|key| key.to_string()));
    let after = lasting(round::references(&second, &undone));
    let lost: Vec<_> = before.difference(&after).collect();
    let more: Vec<_> = after.difference(&before).collect();
    assert!(lost.is_empty() && more.is_empty(), "lost {lost:#?} more {more:#?}");
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

#[test]
fn every_kind_with_all_that_its_table_names_is_the_same_point_again_elsewhere() {
    let cases = usable();
    let kinds: BTreeSet<&str> = cases.iter().map(|(_, case)| case.object["kind"].as_str().unwrap()).collect();
    println!("{} rows of {} kinds", cases.len(), kinds.len());
    let whole: Vec<&(usize, Case)> = cases.iter().collect();
    let mut wrong = Vec::new();
    for some in whole.chunks(AT_ONCE) {
        // Rows that do not come back say nothing of the others.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| block_on(move_them(some)))).is_err() {
            wrong.push(some.first().map(|(number, case)| format!("{number}: {}", case.story)));
        }
    }
    assert!(wrong.is_empty(), "from these rows on: {wrong:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_beside_each_other_are_the_same_point_again_elsewhere(picks in prop::collection::vec(any::<prop::sample::Index>(), 1..30)) {
        let cases = usable();
        let numbers: BTreeSet<usize> = picks.iter().map(|pick| pick.index(cases.len())).collect();
        let some: Vec<&(usize, Case)> = numbers.iter().map(|at| &cases[*at]).collect();
        block_on(move_them(&some));
    }
}
