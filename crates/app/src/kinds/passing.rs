//! Kinds that say how things stand right now, or that each cluster keeps for itself. Never stored: a restore of
//! them would be wrong at once, and they would make every point different from the last.

use super::{KindInfo, PLAIN};

const PASSING: KindInfo = KindInfo { ignored: Some("it says how things stood at one moment"), ..PLAIN };
const CLUSTERS: KindInfo =
    KindInfo { ignored: Some("it belongs to the cluster and its nodes"), cluster_scoped: true, ..PLAIN };

/// Event.
pub static EVENT: KindInfo = KindInfo { kind: "Event", also: &["events.k8s.io"], ..PASSING };
/// Lease.
pub static LEASE: KindInfo = KindInfo { group: "coordination.k8s.io", kind: "Lease", ..PASSING };
/// LeaseCandidate.
pub static LEASE_CANDIDATE: KindInfo =
    KindInfo { group: "coordination.k8s.io", kind: "LeaseCandidate", ..PASSING };
/// PodMetrics.
pub static POD_METRICS: KindInfo = KindInfo { group: "metrics.k8s.io", kind: "PodMetrics", ..PASSING };
/// NodeMetrics.
pub static NODE_METRICS: KindInfo =
    KindInfo { group: "metrics.k8s.io", kind: "NodeMetrics", cluster_scoped: true, ..PASSING };
/// ComponentStatus.
pub static COMPONENT_STATUS: KindInfo = KindInfo { kind: "ComponentStatus", cluster_scoped: true, ..PASSING };
/// CertificateSigningRequest.
pub static SIGNING_REQUEST: KindInfo = KindInfo {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    cluster_scoped: true,
    ..PASSING
};
/// VolumeAttachment.
pub static VOLUME_ATTACHMENT: KindInfo =
    KindInfo { group: "storage.k8s.io", kind: "VolumeAttachment", ..CLUSTERS };
/// Node.
pub static NODE: KindInfo = KindInfo { kind: "Node", ..CLUSTERS };
/// CSINode.
pub static CSI_NODE: KindInfo = KindInfo { group: "storage.k8s.io", kind: "CSINode", ..CLUSTERS };
/// CSIStorageCapacity.
pub static CSI_CAPACITY: KindInfo =
    KindInfo { group: "storage.k8s.io", kind: "CSIStorageCapacity", cluster_scoped: false, ..CLUSTERS };
/// ResourceSlice.
pub static RESOURCE_SLICE: KindInfo =
    KindInfo { group: "resource.k8s.io", kind: "ResourceSlice", ..CLUSTERS };
/// StorageVersion.
pub static STORAGE_VERSION: KindInfo =
    KindInfo { group: "internal.apiserver.k8s.io", kind: "StorageVersion", ..CLUSTERS };
/// IPAddress.
pub static IP_ADDRESS: KindInfo = KindInfo { group: "networking.k8s.io", kind: "IPAddress", ..CLUSTERS };
/// ServiceCIDR.
pub static SERVICE_CIDR: KindInfo = KindInfo { group: "networking.k8s.io", kind: "ServiceCIDR", ..CLUSTERS };
/// StorageVersionMigration.
pub static STORAGE_MIGRATION: KindInfo =
    KindInfo { group: "storagemigration.k8s.io", kind: "StorageVersionMigration", ..CLUSTERS };
/// PodCertificateRequest.
pub static POD_CERTIFICATE: KindInfo =
    KindInfo { group: "certificates.k8s.io", kind: "PodCertificateRequest", ..PASSING };
/// DeviceTaintRule.
pub static TAINT_RULE: KindInfo = KindInfo { group: "resource.k8s.io", kind: "DeviceTaintRule", ..CLUSTERS };
/// ResourcePoolStatusRequest.
pub static POOL_STATUS: KindInfo =
    KindInfo { group: "resource.k8s.io", kind: "ResourcePoolStatusRequest", cluster_scoped: true, ..PASSING };
/// Eviction of lifecycle.k8s.io, which says how one goes on.
pub static EVICTION: KindInfo = KindInfo { group: "lifecycle.k8s.io", kind: "Eviction", ..PASSING };
/// EvictionRequest.
pub static EVICTION_REQUEST: KindInfo =
    KindInfo { group: "lifecycle.k8s.io", kind: "EvictionRequest", ..PASSING };
/// Binding.
pub static BINDING: KindInfo = KindInfo { kind: "Binding", ..PASSING };

#[cfg(test)]
mod tests {
    use crate::kinds::lookup;

    #[test]
    fn none_of_them_is_read() {
        for (group, kind) in [
            ("", "Event"),
            ("events.k8s.io", "Event"),
            ("coordination.k8s.io", "Lease"),
            ("", "Node"),
            ("storage.k8s.io", "VolumeAttachment"),
        ] {
            assert!(lookup(group, kind).ignored.is_some(), "{group} {kind}");
        }
    }
}
