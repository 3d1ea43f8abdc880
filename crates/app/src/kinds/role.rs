//! Role: what may be done in its namespace.

use super::{KindInfo, Order, PLAIN};

/// Role.
pub static KIND: KindInfo =
    KindInfo { group: "rbac.authorization.k8s.io", kind: "Role", order: Order::Role, ..PLAIN };
