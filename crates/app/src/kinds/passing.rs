//! Kinds that say how things stand right now, or that each cluster keeps for itself. Never stored: a restore of
//! them would be wrong at once, and they would make every point different from the last.

use super::{Keep, KindInfo, Lookup, PLAIN};
use crate::object::Object;

fn gone_in_a_minute(_: &Object, _: Lookup<'_>) -> Keep {
    Keep::No("it says how things stood at one moment")
}

fn of_the_cluster(_: &Object, _: Lookup<'_>) -> Keep {
    Keep::No("it belongs to the cluster and its nodes")
}

const PASSING: KindInfo = KindInfo { keep: gone_in_a_minute, ..PLAIN };
const CLUSTERS: KindInfo = KindInfo { keep: of_the_cluster, ..PLAIN };

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
pub static NODE_METRICS: KindInfo = KindInfo { group: "metrics.k8s.io", kind: "NodeMetrics", ..PASSING };
/// ComponentStatus.
pub static COMPONENT_STATUS: KindInfo = KindInfo { kind: "ComponentStatus", ..PASSING };
/// CertificateSigningRequest.
pub static SIGNING_REQUEST: KindInfo =
    KindInfo { group: "certificates.k8s.io", kind: "CertificateSigningRequest", ..PASSING };
/// VolumeAttachment.
pub static VOLUME_ATTACHMENT: KindInfo =
    KindInfo { group: "storage.k8s.io", kind: "VolumeAttachment", ..CLUSTERS };
/// Node.
pub static NODE: KindInfo = KindInfo { kind: "Node", ..CLUSTERS };
/// CSINode.
pub static CSI_NODE: KindInfo = KindInfo { group: "storage.k8s.io", kind: "CSINode", ..CLUSTERS };
/// CSIStorageCapacity.
pub static CSI_CAPACITY: KindInfo =
    KindInfo { group: "storage.k8s.io", kind: "CSIStorageCapacity", ..CLUSTERS };
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
/// FlowSchema.
pub static FLOW_SCHEMA: KindInfo =
    KindInfo { group: "flowcontrol.apiserver.k8s.io", kind: "FlowSchema", ..CLUSTERS };
/// PriorityLevelConfiguration.
pub static PRIORITY_LEVEL: KindInfo =
    KindInfo { group: "flowcontrol.apiserver.k8s.io", kind: "PriorityLevelConfiguration", ..CLUSTERS };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::kept;
    use serde_json::json;

    #[test]
    fn none_of_them_is_stored() {
        for (api, kind) in [
            ("v1", "Event"),
            ("events.k8s.io/v1", "Event"),
            ("coordination.k8s.io/v1", "Lease"),
            ("v1", "Node"),
            ("storage.k8s.io/v1", "VolumeAttachment"),
        ] {
            assert!(
                matches!(kept(&json!({"apiVersion":api,"kind":kind,"metadata":{"name":"x"}})), Keep::No(_)),
                "{api} {kind}"
            );
        }
    }
}
