//! VolumeSnapshots and their contents: pointers into the old cluster's storage. Our points carry the data, so
//! these are evidence; the classes are restored.

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, rule};
use crate::graph::RefKind;
use crate::object::Object;

const GROUP: &str = "snapshot.storage.k8s.io";

/// VolumeSnapshot.
pub static SNAPSHOT: KindInfo = KindInfo {
    group: GROUP,
    kind: "VolumeSnapshot",
    order: Order::Claim,
    refs: &[
        rule("/spec/source/persistentVolumeClaimName", To::Here("", "PersistentVolumeClaim"), RefKind::Claim),
        rule("/spec/volumeSnapshotClassName", To::Cluster(GROUP, "VolumeSnapshotClass"), RefKind::Class),
    ],
    keep,
    ..PLAIN
};
/// VolumeSnapshotContent.
pub static CONTENT: KindInfo =
    KindInfo { group: GROUP, kind: "VolumeSnapshotContent", order: Order::Volume, keep, ..PLAIN };
/// VolumeSnapshotClass.
pub static CLASS: KindInfo =
    KindInfo { group: GROUP, kind: "VolumeSnapshotClass", order: Order::Class, ..PLAIN };

fn keep(_: &Object, _: Lookup<'_>) -> Keep {
    Keep::Evidence("it points into the storage it was taken on")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{kept, refs};
    use serde_json::json;

    #[test]
    fn a_snapshot_is_evidence() {
        let snapshot = json!({"apiVersion":"snapshot.storage.k8s.io/v1","kind":"VolumeSnapshot","metadata":{"namespace":"n","name":"s"},
            "spec":{"source":{"persistentVolumeClaimName":"data"},"volumeSnapshotClassName":"c"}});
        assert!(matches!(kept(&snapshot), Keep::Evidence(_)));
        assert_eq!(refs(&snapshot).len(), 2);
    }
}
