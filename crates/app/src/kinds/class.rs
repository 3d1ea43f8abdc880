//! Classes that objects name and the cluster's administrator provides: stored with the application that uses
//! them, restored where they are absent.

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, rule};
use crate::graph::RefKind;
use crate::object::Object;

/// PriorityClass.
pub static PRIORITY: KindInfo = KindInfo {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    cluster_scoped: true,
    order: Order::Class,
    keep: keep_priority,
    ..PLAIN
};
/// RuntimeClass.
pub static RUNTIME: KindInfo = KindInfo {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    cluster_scoped: true,
    order: Order::Class,
    ..PLAIN
};
/// IngressClass.
pub static INGRESS: KindInfo = KindInfo {
    group: "networking.k8s.io",
    kind: "IngressClass",
    cluster_scoped: true,
    order: Order::Class,
    also: &["extensions"],
    refs: &[rule("/spec/parameters", To::Says("", "ConfigMap"), RefKind::Config)],
    ..PLAIN
};
/// VolumeAttributesClass.
pub static VOLUME_ATTRIBUTES: KindInfo = KindInfo {
    group: "storage.k8s.io",
    kind: "VolumeAttributesClass",
    cluster_scoped: true,
    order: Order::Class,
    // Not every driver registers itself.
    refs: &[rule("/driverName", To::Cluster("storage.k8s.io", "CSIDriver"), RefKind::Class).optional()],
    ..PLAIN
};
/// ClusterTrustBundle.
pub static TRUST_BUNDLE: KindInfo = KindInfo {
    group: "certificates.k8s.io",
    kind: "ClusterTrustBundle",
    cluster_scoped: true,
    order: Order::Class,
    ..PLAIN
};
/// CSIDriver.
pub static CSI_DRIVER: KindInfo = KindInfo {
    group: "storage.k8s.io",
    kind: "CSIDriver",
    cluster_scoped: true,
    ignored: Some("it is installed with its driver"),
    ..PLAIN
};

fn keep_priority(class: &Object, _: Lookup<'_>) -> Keep {
    if class.name().starts_with("system-") { Keep::No("it comes with every cluster") } else { Keep::Yes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::kept;
    use serde_json::json;

    #[test]
    fn what_comes_with_the_cluster_or_its_driver_is_expected_there() {
        let of = |api: &str, kind: &str, name: &str| {
            kept(&json!({"apiVersion":api,"kind":kind,"metadata":{"name":name}}))
        };
        assert!(matches!(of("scheduling.k8s.io/v1", "PriorityClass", "system-node-critical"), Keep::No(_)));
        assert_eq!(of("scheduling.k8s.io/v1", "PriorityClass", "high"), Keep::Yes);
        assert!(crate::kinds::lookup("storage.k8s.io", "CSIDriver").ignored.is_some());
        assert_eq!(of("networking.k8s.io/v1", "IngressClass", "nginx"), Keep::Yes);
    }
}
