//! The pod spec, read once for every kind that has one: what a pod needs before it can start.

use serde_json::Value;

use super::{RefRule, To, rule};
use crate::graph::RefKind;
use crate::names;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, hosts};

const CONFIG_MAP: To = To::Here("", "ConfigMap");
const SECRET: To = To::Here("", "Secret");

macro_rules! containers {
    ($list:literal) => {
        [
            rule(concat!("/", $list, "/*/env/*/valueFrom/configMapKeyRef/name"), CONFIG_MAP, RefKind::Config),
            rule(concat!("/", $list, "/*/env/*/valueFrom/secretKeyRef/name"), SECRET, RefKind::Secret),
            rule(concat!("/", $list, "/*/envFrom/*/configMapRef/name"), CONFIG_MAP, RefKind::Config),
            rule(concat!("/", $list, "/*/envFrom/*/secretRef/name"), SECRET, RefKind::Secret),
        ]
    };
}

/// References of a pod spec; pointers are relative to it.
pub static REFS: &[&[RefRule]] = &[
    &containers!("containers"),
    &containers!("initContainers"),
    &containers!("ephemeralContainers"),
    &[
        rule("/volumes/*/configMap/name", CONFIG_MAP, RefKind::Config),
        rule("/volumes/*/secret/secretName", SECRET, RefKind::Secret),
        rule("/volumes/*/projected/sources/*/configMap/name", CONFIG_MAP, RefKind::Config),
        rule("/volumes/*/projected/sources/*/secret/name", SECRET, RefKind::Secret),
        rule(
            "/volumes/*/persistentVolumeClaim/claimName",
            To::Here("", "PersistentVolumeClaim"),
            RefKind::Claim,
        ),
        rule(
            "/volumes/*/ephemeral/volumeClaimTemplate/spec/storageClassName",
            To::Cluster("storage.k8s.io", "StorageClass"),
            RefKind::Class,
        ),
        rule(
            "/volumes/*/ephemeral/volumeClaimTemplate/spec/volumeAttributesClassName",
            To::Cluster("storage.k8s.io", "VolumeAttributesClass"),
            RefKind::Class,
        ),
        rule(
            "/volumes/*/ephemeral/volumeClaimTemplate/spec/dataSource",
            To::Says("", "PersistentVolumeClaim"),
            RefKind::Other,
        ),
        rule(
            "/volumes/*/ephemeral/volumeClaimTemplate/spec/dataSourceRef",
            To::Says("", "PersistentVolumeClaim"),
            RefKind::Other,
        ),
        rule(
            "/volumes/*/projected/sources/*/clusterTrustBundle/name",
            To::Cluster("certificates.k8s.io", "ClusterTrustBundle"),
            RefKind::Config,
        ),
        rule(
            "/volumes/*/csi/volumeAttributes/secretProviderClass",
            To::Here("secrets-store.csi.x-k8s.io", "SecretProviderClass"),
            RefKind::Config,
        ),
        rule("/volumes/*/csi/nodePublishSecretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/csi/driver", To::Cluster("storage.k8s.io", "CSIDriver"), RefKind::Class),
        rule("/volumes/*/cephfs/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/rbd/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/iscsi/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/flexVolume/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/azureFile/secretName", SECRET, RefKind::Secret),
        rule("/volumes/*/scaleIO/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/storageos/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/cinder/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/glusterfs/endpoints", To::Here("", "Endpoints"), RefKind::Other),
        rule("/volumes/*/nfs/server", To::Host, RefKind::Names).optional(),
        rule("/imagePullSecrets/*/name", SECRET, RefKind::Secret),
        rule("/serviceAccountName", To::Here("", "ServiceAccount"), RefKind::ServiceAccount),
        rule("/priorityClassName", To::Cluster("scheduling.k8s.io", "PriorityClass"), RefKind::Class),
        rule("/runtimeClassName", To::Cluster("node.k8s.io", "RuntimeClass"), RefKind::Class),
        rule("/schedulingGroup/podGroupName", To::Here("scheduling.k8s.io", "PodGroup"), RefKind::Other),
        rule("/workloadRef/name", To::Here("scheduling.k8s.io", "Workload"), RefKind::Other),
        rule(
            "/resourceClaims/*/resourceClaimName",
            To::Here("resource.k8s.io", "ResourceClaim"),
            RefKind::Other,
        ),
        rule(
            "/resourceClaims/*/resourceClaimTemplateName",
            To::Here("resource.k8s.io", "ResourceClaimTemplate"),
            RefKind::Other,
        ),
    ],
];

/// What a table cannot say: hosts in environment, arguments and commands, and the account that is meant where none
/// is named.
pub(crate) fn find(object: &Object, base: &str, found: &mut Vec<Found>) {
    let at = format!("{base}/serviceAccountName");
    if object.str(&at).is_empty() {
        let key = ObjectKey::new("", "ServiceAccount", object.namespace(), "default");
        found.push(Found::object(key, RefKind::ServiceAccount, at).optional());
    }
    super::network_attachment::asked_for(object, base, found);
    text(object, base, found);
}

/// Hosts in the plain text of a pod spec.
pub(crate) fn text(object: &Object, base: &str, found: &mut Vec<Found>) {
    for list in ["containers", "initContainers"] {
        let containers = object.at(&format!("{base}/{list}")).and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let at = format!("{base}/{list}/{index}");
            let variables: Vec<(&str, &str)> = array(container, "env")
                .iter()
                .map(|v| {
                    let text = |name: &str| v.get(name).and_then(Value::as_str).unwrap_or("");
                    (text("name"), text("value"))
                })
                .collect();
            for (number, (name, value)) in variables.iter().enumerate().filter(|(_, (_, v))| !v.is_empty()) {
                // Kubernetes fills in variables that stand before; a part of a URL often is one.
                let known = variables.get(..number).unwrap_or(&[]);
                let mentions = names::in_value(name, &names::filled_in(value, known));
                hosts(mentions, &format!("{at}/env/{number}/value"), found);
            }
            for name in ["command", "args"] {
                let words: Vec<String> = array(container, name)
                    .iter()
                    .map(|word| names::filled_in(word.as_str().unwrap_or(""), &variables).into_owned())
                    .collect();
                for (number, mentions) in names::in_arguments(&words) {
                    hosts(mentions, &format!("{at}/{name}/{number}"), found);
                }
            }
        }
    }
}

/// The images that have to be had where its pods run, and where each is named.
pub(crate) fn images<'o>(object: &'o Object, base: &str) -> Vec<(String, &'o str)> {
    let mut images = Vec::new();
    for list in ["containers", "initContainers"] {
        let containers = object.at(&format!("{base}/{list}")).and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            if let Some(image) = container.get("image").and_then(Value::as_str).filter(|i| !i.is_empty()) {
                images.push((format!("{base}/{list}/{index}/image"), image));
            }
        }
    }
    let volumes = object.at(&format!("{base}/volumes")).and_then(Value::as_array);
    for (index, volume) in volumes.into_iter().flatten().enumerate() {
        if let Some(image) = volume.pointer("/image/reference").and_then(Value::as_str) {
            images.push((format!("{base}/volumes/{index}/image/reference"), image));
        }
    }
    images
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Removes a list that cleaning emptied.
pub(crate) fn drop_if_empty(value: &mut Value, name: &str) {
    if value.get(name).and_then(Value::as_array).is_some_and(Vec::is_empty) {
        crate::clean::remove(value, &format!("/{name}"));
    }
}
