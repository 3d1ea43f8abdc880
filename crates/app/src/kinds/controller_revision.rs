//! ControllerRevision: history that StatefulSets and DaemonSets write and own.

use super::{Keep, KindInfo, Lookup, Order, PLAIN};
use crate::object::Object;

/// ControllerRevision.
pub static KIND: KindInfo =
    KindInfo { group: "apps", kind: "ControllerRevision", order: Order::Workload, keep, ..PLAIN };

fn keep(_: &Object, _: Lookup<'_>) -> Keep {
    Keep::Evidence("its controller writes its own history")
}
