//! Dynamic resource allocation: devices are claimed like volumes. A claim that a controller made for a pod comes back with its
//! pod; what is allocated to it belongs to the old cluster.

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, rule};
use crate::graph::RefKind;
use crate::object::Object;

const GROUP: &str = "resource.k8s.io";
const CLASS: To = To::Cluster(GROUP, "DeviceClass");

/// DeviceClass, ResourceClaim, ResourceClaimTemplate.
pub static KINDS: &[KindInfo] = &[
    KindInfo { group: GROUP, kind: "DeviceClass", cluster_scoped: true, order: Order::Class, ..PLAIN },
    KindInfo {
        group: GROUP,
        kind: "ResourceClaim",
        order: Order::Claim,
        refs: &[
            rule("/spec/devices/requests/*/exactly/deviceClassName", CLASS, RefKind::Class),
            rule("/spec/devices/requests/*/firstAvailable/*/deviceClassName", CLASS, RefKind::Class),
            // Before resource.k8s.io/v1beta2, and before v1alpha4.
            rule("/spec/devices/requests/*/deviceClassName", CLASS, RefKind::Class),
            rule("/spec/resourceClassName", To::Cluster(GROUP, "ResourceClass"), RefKind::Class),
        ],
        keep,
        ..PLAIN
    },
    KindInfo {
        group: GROUP,
        kind: "ResourceClaimTemplate",
        order: Order::Claim,
        refs: &[
            rule("/spec/spec/devices/requests/*/exactly/deviceClassName", CLASS, RefKind::Class),
            rule("/spec/spec/devices/requests/*/firstAvailable/*/deviceClassName", CLASS, RefKind::Class),
            rule("/spec/spec/devices/requests/*/deviceClassName", CLASS, RefKind::Class),
        ],
        ..PLAIN
    },
    KindInfo { group: GROUP, kind: "ResourceClass", cluster_scoped: true, order: Order::Class, ..PLAIN },
];

fn keep(claim: &Object, _: Lookup<'_>) -> Keep {
    match claim.annotation("resource.kubernetes.io/pod-claim-name") {
        Some(_) => Keep::Evidence("it was made for a pod, and is made again with it"),
        None => Keep::Yes,
    }
}
