//! PersistentVolumeClaim: where an application's data is. Restored unbound, so that the target gives it a volume
//! of its own, which gets the data before any pod sees it.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN, Readiness, To, rule};
use crate::graph::RefKind;

/// PersistentVolumeClaim.
pub static KIND: KindInfo = KindInfo {
    kind: "PersistentVolumeClaim",
    order: Order::Claim,
    refs: &[
        rule("/spec/storageClassName", To::Cluster("storage.k8s.io", "StorageClass"), RefKind::Class),
        rule(
            "/metadata/annotations/volume.beta.kubernetes.io~1storage-class",
            To::Cluster("storage.k8s.io", "StorageClass"),
            RefKind::Class,
        ),
        rule(
            "/spec/volumeAttributesClassName",
            To::Cluster("storage.k8s.io", "VolumeAttributesClass"),
            RefKind::Class,
        ),
        rule("/spec/volumeName", To::Cluster("", "PersistentVolume"), RefKind::Volume),
        // What it was filled from once; its data is its own since.
        rule("/spec/dataSource", To::Says("", "PersistentVolumeClaim"), RefKind::Watches).optional(),
        rule("/spec/dataSourceRef", To::Says("", "PersistentVolumeClaim"), RefKind::Watches).optional(),
    ],
    strip: &[
        "/spec/volumeName",
        // It would be filled from a snapshot of the old cluster; we fill it.
        "/spec/dataSource",
        "/spec/dataSourceRef",
        "/metadata/annotations/pv.kubernetes.io~1bind-completed",
        "/metadata/annotations/pv.kubernetes.io~1bound-by-controller",
        "/metadata/annotations/volume.kubernetes.io~1selected-node",
        "/metadata/annotations/volume.kubernetes.io~1storage-provisioner",
        "/metadata/annotations/volume.beta.kubernetes.io~1storage-provisioner",
        "/metadata/annotations/volume.kubernetes.io~1storage-resizer",
    ],
    ready,
    ..PLAIN
};

fn ready(claim: &Value) -> Readiness {
    match claim.pointer("/status/phase").and_then(Value::as_str) {
        Some("Bound") => Readiness::Ready,
        Some("Lost") => Readiness::Failed("its volume is gone".into()),
        _ => Readiness::Waiting("it is not bound".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cleaned, refs};
    use serde_json::json;

    #[test]
    fn a_claim_is_restored_unbound() {
        let claim = json!({"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"namespace":"shop","name":"data",
            "finalizers":["kubernetes.io/pvc-protection"],
            "annotations":{"pv.kubernetes.io/bind-completed":"yes","pv.kubernetes.io/bound-by-controller":"yes","volume.kubernetes.io/selected-node":"n1"}},
            "spec":{"storageClassName":"fast","volumeName":"pvc-1","accessModes":["ReadWriteOnce"],"dataSource":{"apiGroup":"snapshot.storage.k8s.io","kind":"VolumeSnapshot","name":"s"}},"status":{"phase":"Bound"}});
        assert_eq!(
            cleaned(&claim),
            json!({"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"namespace":"shop","name":"data"},
                "spec":{"storageClassName":"fast","accessModes":["ReadWriteOnce"]}})
        );
        assert_eq!(
            refs(&claim),
            [
                "StorageClass fast class /spec/storageClassName",
                "PersistentVolume pvc-1 volume /spec/volumeName",
                "VolumeSnapshot shop/s watches optional /spec/dataSource",
            ]
        );
        assert_eq!(ready(&claim), Readiness::Ready);
    }
}
