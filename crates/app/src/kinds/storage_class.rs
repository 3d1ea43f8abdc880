//! StorageClass: how volumes are made. The driver behind it has to be installed on the target.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, escape};

/// StorageClass.
pub static KIND: KindInfo = KindInfo {
    group: "storage.k8s.io",
    kind: "StorageClass",
    cluster_scoped: true,
    order: Order::Class,
    find: Some(find),
    ..PLAIN
};

/// The CSI driver, and the Secrets that its sidecars read.
fn find(class: &Object, found: &mut Vec<Found>) {
    let provisioner = class.str("/provisioner");
    if !provisioner.is_empty() && !provisioner.starts_with("kubernetes.io/") {
        // Not every provisioner registers a CSIDriver (external provisioners of old do not).
        found.push(
            Found::object(
                ObjectKey::new("storage.k8s.io", "CSIDriver", "", provisioner),
                RefKind::Class,
                "/provisioner",
            )
            .optional(),
        );
    }
    secrets(class, found);
}

/// The Secrets that a driver's sidecars read, named by pairs of parameters.
pub(super) fn secrets(class: &Object, found: &mut Vec<Found>) {
    for (name, value) in class.at("/parameters").and_then(Value::as_object).into_iter().flatten() {
        let (Some(stem), Some(secret)) = (name.strip_suffix("-secret-name"), value.as_str()) else {
            continue;
        };
        let namespace = class
            .at("/parameters")
            .and_then(|p| p.get(format!("{stem}-secret-namespace")))
            .and_then(Value::as_str)
            .unwrap_or("");
        // `${pvc.name}` and the like are filled in for each claim.
        if !namespace.is_empty() && !secret.contains('$') && !namespace.contains('$') {
            let key = ObjectKey::new("", "Secret", namespace, secret);
            found.push(Found::object(key, RefKind::Secret, format!("/parameters/{}", escape(name))));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn the_secrets_of_its_driver_are_references() {
        let class = json!({"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"rbd"},"provisioner":"rbd.csi.ceph.com","parameters":{
            "csi.storage.k8s.io/provisioner-secret-name":"ceph","csi.storage.k8s.io/provisioner-secret-namespace":"rook",
            "csi.storage.k8s.io/node-stage-secret-name":"${pvc.name}","csi.storage.k8s.io/node-stage-secret-namespace":"rook"}});
        assert_eq!(
            refs(&class),
            [
                "CSIDriver rbd.csi.ceph.com class optional /provisioner",
                "Secret rook/ceph secret /parameters/csi.storage.k8s.io~1provisioner-secret-name",
            ]
        );
    }
}
