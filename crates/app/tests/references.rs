//! Every reference rule of every kind, one by one: a pair of objects is made from the row itself, the named one is taken away, and
//! the certificate has to say so. A new row is tested by being there; what is no row needs an example below, or a test fails.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

mod common;
#[path = "common/rows.rs"]
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use apiserver::{ApiServer, Options};
use app::certificate::{Reference, State};
use app::kinds;
use app::object::{Object, ObjectKey};
use app::point::Restore;
use app::select::{Selected, Selection, select};
use common::cluster;
use rows::{Case, Names, rows};
use serde_json::{Value, json};

/// References that are no rows: (kind that finds them, object, named object, place). In YAML, `---` between the two.
const EXAMPLES: &[(&str, &str, &str)] = &[
    ("ConfigMap", "{apiVersion: v1, kind: ConfigMap, metadata: {name: it, namespace: home}, data: {url: 'http://target.away.svc/'}}
---
{apiVersion: v1, kind: Service, metadata: {name: target, namespace: away}}", "/data/url"),
    ("Secret", "{apiVersion: v1, kind: Secret, metadata: {name: it, namespace: home}, stringData: {dsn: 'postgres://u:p@target.away.svc/x'}}
---
{apiVersion: v1, kind: Service, metadata: {name: target, namespace: away}}", "/stringData/dsn"),
    ("Secret", "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: it, namespace: home, annotations: {kubernetes.io/service-account.name: target}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: target, namespace: home}}", "/metadata/annotations/kubernetes.io~1service-account.name"),
    ("Endpoints", "{apiVersion: v1, kind: Endpoints, metadata: {name: it, namespace: home}, subsets: [{addresses: [{ip: 10.0.0.1, targetRef: {kind: Pod, name: target, namespace: home}}]}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: target, namespace: home}}", "/subsets/0/addresses/0/targetRef"),
    ("Role", "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: it, namespace: home}, rules: [{apiGroups: [x.example.com], resources: [things], verbs: [update]}]}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: things.x.example.com}, spec: {group: x.example.com, scope: Namespaced, names: {kind: Thing, plural: things}, versions: []}}", "/rules/0"),
    ("ClusterRole", "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: it}, rules: [{apiGroups: [y.example.com], resources: ['*'], verbs: ['*']}]}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: things.y.example.com}, spec: {group: y.example.com, scope: Namespaced, names: {kind: Thing, plural: things}, versions: []}}", "/rules/0"),
    ("RoleBinding", "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: it, namespace: home}, subjects: [{kind: ServiceAccount, name: target, namespace: away}]}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: target, namespace: away}}", "/subjects/0"),
    ("RoleBinding", "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: it, namespace: home}, subjects: [{kind: Group, name: 'system:serviceaccounts:home'}]}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: target, namespace: home}}", "/subjects/0"),
    ("ClusterRoleBinding", "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: it}, subjects: [{kind: User, name: 'system:serviceaccount:away:target'}]}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: target, namespace: away}}", "/subjects/0"),
    ("ResourceQuota", "{apiVersion: v1, kind: ResourceQuota, metadata: {name: it, namespace: home}, spec: {scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [target]}]}}}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: target}}", "/spec/scopeSelector/matchExpressions/0/values/0"),
    ("PodDisruptionBudget", "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: it, namespace: home}, spec: {selector: {matchLabels: {chosen: 'yes'}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: target, namespace: home, labels: {chosen: 'yes'}}}", "/spec/selector"),
    ("StatefulSet", "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: it, namespace: home}, spec: {volumeClaimTemplates: [{metadata: {name: data}}]}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-it-0, namespace: home}}", "/spec/volumeClaimTemplates/0/metadata/name"),
    ("StorageClass", "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: it}, provisioner: d.example.com, parameters: {csi.storage.k8s.io/provisioner-secret-name: target, csi.storage.k8s.io/provisioner-secret-namespace: away}}
---
{apiVersion: v1, kind: Secret, metadata: {name: target, namespace: away}}", "/parameters/csi.storage.k8s.io~1provisioner-secret-name"),
    ("VolumeSnapshotClass", "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotClass, metadata: {name: it}, driver: d.example.com, parameters: {csi.storage.k8s.io/snapshotter-secret-name: target, csi.storage.k8s.io/snapshotter-secret-namespace: away}}
---
{apiVersion: v1, kind: Secret, metadata: {name: target, namespace: away}}", "/parameters/csi.storage.k8s.io~1snapshotter-secret-name"),
    ("VolumeGroupSnapshotClass", "{apiVersion: groupsnapshot.storage.k8s.io/v1, kind: VolumeGroupSnapshotClass, metadata: {name: it}, driver: d.example.com, parameters: {csi.storage.k8s.io/group-snapshotter-secret-name: target, csi.storage.k8s.io/group-snapshotter-secret-namespace: away}}
---
{apiVersion: v1, kind: Secret, metadata: {name: target, namespace: away}}", "/parameters/csi.storage.k8s.io~1group-snapshotter-secret-name"),
    ("NetworkPolicy", "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: it, namespace: home}, spec: {podSelector: {matchLabels: {no: one}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: elsewhere}}}]}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: elsewhere}}", "/spec/ingress/0/from/0/namespaceSelector"),
    ("FlowSchema", "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {name: it}, spec: {rules: [{subjects: [{kind: ServiceAccount, serviceAccount: {name: target, namespace: away}}]}]}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: target, namespace: away}}", "/spec/rules/0/subjects/0"),
    ("SecurityContextConstraints", "{apiVersion: security.openshift.io/v1, kind: SecurityContextConstraints, metadata: {name: it}, users: ['system:serviceaccount:away:target']}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: target, namespace: away}}", "/users/0"),
    ("ValidatingAdmissionPolicyBinding", "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: it}, spec: {policyName: rules, paramRef: {name: target, namespace: away}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: target, namespace: away}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: rules}, spec: {paramKind: {apiVersion: v1, kind: ConfigMap}}}", "/spec/paramRef"),
    ("MutatingAdmissionPolicyBinding", "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicyBinding, metadata: {name: it}, spec: {policyName: rules, paramRef: {name: target, namespace: away}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: target, namespace: away}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy, metadata: {name: rules}, spec: {paramKind: {apiVersion: v1, kind: ConfigMap}}}", "/spec/paramRef"),
];

/// The examples as cases.
fn examples() -> Vec<Case> {
    let case = |(number, (kind, documents, at)): (usize, &(&str, &str, &str))| {
        let names = Names(number);
        let text = documents
            .replace("home", &names.home())
            .replace("away", &names.away())
            .replace("name: it", &format!("name: {}", names.it()))
            .replace("data-it-0", &format!("data-{}-0", names.it()));
        let mut documents: Vec<Value> =
            text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect();
        let others = documents.split_off(2);
        let (target, object) = (documents.pop().unwrap(), documents.pop().unwrap());
        Case {
            story: format!("{kind} {at}"),
            // What is no row is optional, but for these.
            optional: !matches!(
                (*kind, *at),
                ("Secret", "/metadata/annotations/kubernetes.io~1service-account.name")
                    | ("StorageClass" | "VolumeSnapshotClass" | "VolumeGroupSnapshotClass", _)
                    | ("ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding", _)
            ),
            is_selector: ["system:serviceaccounts:", "['*']", "matchLabels"].iter().any(|s| text.contains(s)),
            object,
            target,
            others,
            at: (*at).to_owned(),
            via: None,
        }
    };
    EXAMPLES.iter().enumerate().map(case).collect()
}

/// Selects all referring objects and what they need, with the named objects or without.
async fn certificate(cases: &[Case], with_targets: bool) -> Selected {
    let server = ApiServer::new(Options::deterministic(1));
    let mut all: Vec<Value> = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mut object = case.object.clone();
        if object["metadata"]["namespace"].is_null() {
            // What is cluster-scoped comes with whoever says it belongs there.
            object["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = json!(Names(number).home());
        }
        for name in [Names(number).home(), Names(number).away()] {
            all.push(json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":name}}));
        }
        all.push(object);
        all.extend(case.others.iter().cloned());
        if with_targets {
            all.push(case.target.clone());
        }
    }
    let refused = server.load(all);
    assert!(refused.is_empty(), "{refused:?}");
    let selection = Selection { namespaces: vec!["home-*".into()], ..Selection::default() };
    select(&cluster(&server).await, &selection).await.unwrap()
}

/// With the named object the reference is included (or somebody else keeps it), without it the certificate tells.
async fn check(cases: &[Case]) {
    let (with, without) = (certificate(cases, true).await, certificate(cases, false).await);
    type Place = (ObjectKey, ObjectKey, String);
    let index = |selected: &Selected| -> BTreeMap<Place, Reference> {
        let references = selected.references.iter();
        references.map(|r| ((r.from.clone(), r.to.clone(), r.at.clone()), r.clone())).collect()
    };
    let (with, told) = (index(&with), index(&without));
    let mut wrong = Vec::new();
    for case in cases {
        let (from, mut to) = (Object(case.object.clone()).key(), Object(case.target.clone()).key());
        if kinds::lookup(&to.group, &to.kind).cluster_scoped {
            to.namespace.clear();
        }
        let is_ignored = kinds::lookup(&to.group, &to.kind).ignored.is_some();
        let place: Place = (from.clone(), to.clone(), case.at.clone());
        match with.get(&place) {
            None => wrong.push(format!("{}: there is no reference to {to}", case.story)),
            Some(r) => {
                let is_kept_elsewhere = is_ignored || !r.via.leads_forward();
                let is_fine = r.state == State::Included
                    || (is_kept_elsewhere && r.state == State::ExpectedOnTarget && !r.reason.is_empty());
                if !is_fine || case.via.is_some_and(|via| via != r.via) {
                    wrong.push(format!("{}: with {to} it is {r:?}", case.story));
                }
            }
        }
        match told.get(&place) {
            // A selector that selects nothing any more refers to nothing.
            None if case.is_selector => {}
            None => wrong.push(format!("{}: without {to} the certificate says nothing", case.story)),
            Some(r) => {
                let is_evidence = without.objects.get(&from).is_some_and(|p| p.restore != Restore::Yes);
                let may_lack = case.optional || is_ignored || is_evidence;
                let is_told = r.state != State::Included
                    && !r.reason.is_empty()
                    && (r.state == State::Missing) != may_lack;
                if !is_told {
                    wrong.push(format!("{}: without {to} it is {r:?}", case.story));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn for_every_reference_rule_the_certificate_says_when_its_target_is_gone() {
    let cases = rows();
    assert!(cases.len() > 1000, "{} rows", cases.len());
    check(&cases).await;
}

#[tokio::test]
async fn for_every_reference_that_is_no_row_there_is_an_example() {
    check(&examples()).await;
    let shown: BTreeSet<&str> = EXAMPLES.iter().map(|(kind, ..)| *kind).collect();
    for info in kinds::all().filter(|info| info.find.is_some() || info.near.is_some()) {
        assert!(
            shown.contains(info.kind),
            "{} finds references in code: it needs an example here",
            info.kind
        );
    }
}

#[test]
fn every_built_in_kind_has_an_entry() {
    for (group, kinds_of_it) in [
        (
            "",
            "Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount",
        ),
        (
            "admissionregistration.k8s.io",
            "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration",
        ),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("apiregistration.k8s.io", "APIService"),
        ("apps", "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("batch", "CronJob Job"),
        ("certificates.k8s.io", "CertificateSigningRequest ClusterTrustBundle PodCertificateRequest"),
        ("coordination.k8s.io", "Lease LeaseCandidate"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("events.k8s.io", "Event"),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema PriorityLevelConfiguration"),
        ("internal.apiserver.k8s.io", "StorageVersion"),
        ("networking.k8s.io", "IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR"),
        ("node.k8s.io", "RuntimeClass"),
        ("policy", "PodDisruptionBudget"),
        ("rbac.authorization.k8s.io", "ClusterRole ClusterRoleBinding Role RoleBinding"),
        (
            "resource.k8s.io",
            "DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourcePoolStatusRequest ResourceSlice",
        ),
        ("lifecycle.k8s.io", "Eviction EvictionRequest"),
        ("scheduling.k8s.io", "CompositePodGroup PodGroup PriorityClass Workload"),
        (
            "storage.k8s.io",
            "CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass",
        ),
        ("storagemigration.k8s.io", "StorageVersionMigration"),
    ] {
        for kind in kinds_of_it.split(' ') {
            assert_eq!(kinds::lookup(group, kind).kind, kind, "{group}/{kind} has no entry");
            assert!(kinds::is_built_in(group), "{group}");
        }
    }
    // What the embedded server serves by itself is known, too.
    let known: BTreeSet<(String, bool)> =
        kinds::all().map(|i| (i.kind.to_owned(), i.cluster_scoped)).collect();
    let server = ApiServer::new(Options::deterministic(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for resource in runtime.block_on(cluster(&server)).resources.types.iter().filter(|t| t.can("list")) {
        assert!(
            known.contains(&(resource.kind.clone(), !resource.namespaced)),
            "{} is {}",
            resource.full_name(),
            if resource.namespaced { "namespaced" } else { "cluster-scoped" }
        );
    }
}
