//! ClusterRoleBinding: who has which role anywhere. Found from the accounts of an application.

use super::{KindInfo, Order, PLAIN, cluster_role, role_binding};

/// ClusterRoleBinding.
pub static KIND: KindInfo = KindInfo {
    group: role_binding::GROUP,
    kind: "ClusterRoleBinding",
    cluster_scoped: true,
    order: Order::Binding,
    refs: role_binding::REFS,
    find: Some(role_binding::find),
    keep: cluster_role::keep,
    ..PLAIN
};
