//! Snapshots of volumes and of groups of volumes, and their contents: pointers into the old cluster's storage. Our points carry
//! the data, so these are evidence; the classes are restored.

use super::custom::{cluster_kind, kind};
use super::{Keep, KindInfo, Lookup, Order, RefRule, To, rule, storage_class};
use crate::graph::RefKind;
use crate::object::Object;

const GROUP: &str = "snapshot.storage.k8s.io";
const GROUPS: &str = "groupsnapshot.storage.k8s.io";
const CLAIM: To = To::Here("", "PersistentVolumeClaim");

/// Not every driver registers itself.
const DRIVER: RefRule =
    rule("/driver", To::Cluster("storage.k8s.io", "CSIDriver"), RefKind::Class).optional();

/// Snapshots, contents and classes of both groups.
pub static KINDS: &[KindInfo] = &[
    KindInfo {
        order: Order::Claim,
        keep,
        ..kind(
            GROUP,
            "VolumeSnapshot",
            &[
                rule("/spec/source/persistentVolumeClaimName", CLAIM, RefKind::Claim),
                rule(
                    "/spec/source/volumeSnapshotContentName",
                    To::Cluster(GROUP, "VolumeSnapshotContent"),
                    RefKind::Volume,
                ),
                rule(
                    "/status/boundVolumeSnapshotContentName",
                    To::Cluster(GROUP, "VolumeSnapshotContent"),
                    RefKind::Volume,
                )
                .optional(),
                rule(
                    "/spec/volumeSnapshotClassName",
                    To::Cluster(GROUP, "VolumeSnapshotClass"),
                    RefKind::Class,
                ),
            ],
        )
    },
    KindInfo {
        order: Order::Volume,
        keep,
        ..cluster_kind(
            GROUP,
            "VolumeSnapshotContent",
            &[
                rule("/spec/volumeSnapshotRef", To::There(GROUP, "VolumeSnapshot"), RefKind::Volume)
                    .optional(),
                rule(
                    "/spec/volumeSnapshotClassName",
                    To::Cluster(GROUP, "VolumeSnapshotClass"),
                    RefKind::Class,
                ),
            ],
        )
    },
    KindInfo { find: Some(storage_class::secrets), ..cluster_kind(GROUP, "VolumeSnapshotClass", &[DRIVER]) },
    KindInfo {
        order: Order::Claim,
        keep,
        ..kind(
            GROUPS,
            "VolumeGroupSnapshot",
            &[
                rule(
                    "/spec/source/selector",
                    To::Objects("", "PersistentVolumeClaim", super::Where::Here),
                    RefKind::Selects,
                )
                .optional(),
                rule(
                    "/spec/source/volumeGroupSnapshotContentName",
                    To::Cluster(GROUPS, "VolumeGroupSnapshotContent"),
                    RefKind::Volume,
                ),
                rule(
                    "/spec/volumeGroupSnapshotClassName",
                    To::Cluster(GROUPS, "VolumeGroupSnapshotClass"),
                    RefKind::Class,
                ),
            ],
        )
    },
    KindInfo {
        order: Order::Volume,
        keep,
        ..cluster_kind(
            GROUPS,
            "VolumeGroupSnapshotContent",
            &[
                rule(
                    "/spec/volumeGroupSnapshotRef",
                    To::There(GROUPS, "VolumeGroupSnapshot"),
                    RefKind::Volume,
                )
                .optional(),
                rule(
                    "/spec/volumeGroupSnapshotClassName",
                    To::Cluster(GROUPS, "VolumeGroupSnapshotClass"),
                    RefKind::Class,
                ),
            ],
        )
    },
    KindInfo {
        find: Some(storage_class::secrets),
        ..cluster_kind(GROUPS, "VolumeGroupSnapshotClass", &[DRIVER])
    },
];

fn keep(_: &Object, _: Lookup<'_>) -> Keep {
    Keep::Evidence("it points into the storage it was taken on")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::kept;
    use serde_json::json;

    #[test]
    fn snapshots_are_evidence_and_their_classes_are_restored() {
        for info in KINDS {
            let object =
                json!({"apiVersion":format!("{}/v1", info.group),"kind":info.kind,"metadata":{"name":"x"}});
            assert_eq!(kept(&object) == Keep::Yes, info.kind.ends_with("Class"), "{}", info.kind);
        }
    }
}
