//! PersistentVolume: the old cluster's storage behind a claim. One that was provisioned for its claim is evidence,
//! since the target provisions its own; one that an administrator wrote is restored where there is none.

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, rule};
use crate::graph::RefKind;
use crate::object::Object;

const SECRET: To = To::There("", "Secret");

/// PersistentVolume.
pub static KIND: KindInfo = KindInfo {
    kind: "PersistentVolume",
    order: Order::Volume,
    cluster_scoped: true,
    refs: &[
        rule("/spec/storageClassName", To::Cluster("storage.k8s.io", "StorageClass"), RefKind::Class),
        rule(
            "/spec/volumeAttributesClassName",
            To::Cluster("storage.k8s.io", "VolumeAttributesClass"),
            RefKind::Class,
        ),
        rule("/spec/claimRef", To::There("", "PersistentVolumeClaim"), RefKind::Volume).optional(),
        rule("/spec/csi/driver", To::Cluster("storage.k8s.io", "CSIDriver"), RefKind::Class),
        rule("/spec/csi/controllerPublishSecretRef", SECRET, RefKind::Secret),
        rule("/spec/csi/nodeStageSecretRef", SECRET, RefKind::Secret),
        rule("/spec/csi/nodePublishSecretRef", SECRET, RefKind::Secret),
        rule("/spec/csi/controllerExpandSecretRef", SECRET, RefKind::Secret),
        rule("/spec/csi/nodeExpandSecretRef", SECRET, RefKind::Secret),
        rule("/spec/cephfs/secretRef", SECRET, RefKind::Secret),
        rule("/spec/rbd/secretRef", SECRET, RefKind::Secret),
        rule("/spec/iscsi/secretRef", SECRET, RefKind::Secret),
        rule("/spec/flexVolume/secretRef", SECRET, RefKind::Secret),
        rule("/spec/scaleIO/secretRef", SECRET, RefKind::Secret),
        rule("/spec/storageos/secretRef", SECRET, RefKind::Secret),
        rule("/spec/azureFile", To::Named("", "Secret", "secretName", "secretNamespace"), RefKind::Secret),
        rule(
            "/spec/glusterfs",
            To::Named("", "Endpoints", "endpoints", "endpointsNamespace"),
            RefKind::Other,
        ),
    ],
    strip: &[
        "/spec/claimRef/uid",
        "/spec/claimRef/resourceVersion",
        "/metadata/annotations/pv.kubernetes.io~1bound-by-controller",
    ],
    keep,
    ..PLAIN
};

fn keep(volume: &Object, _: Lookup<'_>) -> Keep {
    if volume.annotation("pv.kubernetes.io/provisioned-by").is_some() {
        return Keep::Evidence("it was provisioned for its claim; the target provisions its own");
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cleaned, kept, refs};
    use serde_json::json;

    #[test]
    fn a_provisioned_volume_is_evidence_and_a_written_one_is_restored() {
        let volume = |annotations: serde_json::Value| {
            json!({"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"pv","annotations":annotations},
            "spec":{"storageClassName":"","csi":{"driver":"d.example.com"},"claimRef":{"namespace":"shop","name":"data","uid":"u","resourceVersion":"3"}}})
        };
        assert!(matches!(kept(&volume(json!({"pv.kubernetes.io/provisioned-by":"x"}))), Keep::Evidence(_)));
        let written = volume(json!({}));
        assert_eq!(kept(&written), Keep::Yes);
        assert_eq!(cleaned(&written)["spec"]["claimRef"], json!({"namespace":"shop","name":"data"}));
        assert_eq!(
            refs(&written),
            [
                "PersistentVolumeClaim shop/data volume optional /spec/claimRef",
                "CSIDriver d.example.com class /spec/csi/driver",
            ]
        );
    }
}
