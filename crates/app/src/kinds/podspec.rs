//! The pod spec, read once for every kind that has one: what a pod needs before it can start.

use serde_json::Value;

use super::{RefRule, To, rule};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, services_below, services_in};

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
pub(crate) static REFS: &[&[RefRule]] = &[
    &containers!("containers"),
    &containers!("initContainers"),
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
        rule("/volumes/*/csi/nodePublishSecretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/csi/driver", To::Cluster("storage.k8s.io", "CSIDriver"), RefKind::Class),
        rule("/volumes/*/cephfs/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/rbd/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/iscsi/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/flexVolume/secretRef/name", SECRET, RefKind::Secret),
        rule("/volumes/*/azureFile/secretName", SECRET, RefKind::Secret),
        rule("/imagePullSecrets/*/name", SECRET, RefKind::Secret),
        rule("/serviceAccountName", To::Here("", "ServiceAccount"), RefKind::ServiceAccount),
        rule("/priorityClassName", To::Cluster("scheduling.k8s.io", "PriorityClass"), RefKind::Class),
        rule("/runtimeClassName", To::Cluster("node.k8s.io", "RuntimeClass"), RefKind::Class),
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

/// What a table cannot say: services named in environment, arguments and commands, and the account that is meant
/// where none is named.
pub(crate) fn find(object: &Object, base: &str, found: &mut Vec<Found>) {
    let at = format!("{base}/serviceAccountName");
    if object.str(&at).is_empty() {
        let key = ObjectKey::new("", "ServiceAccount", object.namespace(), "default");
        found.push(Found::object(key, RefKind::ServiceAccount, at).optional());
    }
    for list in ["containers", "initContainers"] {
        let containers = object.at(&format!("{base}/{list}")).and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let at = format!("{base}/{list}/{index}");
            for (number, variable) in
                container.get("env").and_then(Value::as_array).into_iter().flatten().enumerate()
            {
                if let Some(text) = variable.get("value").and_then(Value::as_str) {
                    services_in(text, &format!("{at}/env/{number}/value"), found);
                }
            }
            for name in ["args", "command"] {
                if let Some(value) = container.get(name) {
                    services_below(value, &format!("{at}/{name}"), found);
                }
            }
        }
    }
}

/// Removes a list that cleaning emptied.
pub(crate) fn drop_if_empty(value: &mut Value, name: &str) {
    if value.get(name).and_then(Value::as_array).is_some_and(Vec::is_empty) {
        crate::clean::remove(value, &format!("/{name}"));
    }
}
