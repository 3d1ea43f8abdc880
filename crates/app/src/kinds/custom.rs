//! Every kind without an entry: custom resources. Their references are recognised by the shapes people use
//! (`crate::shapes`) and by the schema of their definition (`crate::schema`).

use serde_json::Value;

use super::{KindInfo, Order, PLAIN, Readiness, RefRule};

/// A kind we have no entry for.
pub static CUSTOM: KindInfo = BASE;

/// What every kind of a definition starts from.
pub(super) const BASE: KindInfo = KindInfo { order: Order::Custom, ready, ..PLAIN };

/// An entry of a family of kinds that live in namespaces.
pub(super) const fn kind(group: &'static str, kind: &'static str, refs: &'static [RefRule]) -> KindInfo {
    KindInfo { group, kind, refs, ..BASE }
}

/// An entry of a family of kinds that are cluster-scoped.
pub(super) const fn cluster_kind(
    group: &'static str,
    kind: &'static str,
    refs: &'static [RefRule],
) -> KindInfo {
    KindInfo { group, kind, refs, cluster_scoped: true, order: Order::Class, ..BASE }
}

/// Most controllers write a `Ready` condition; one that writes none is taken as it is.
fn ready(object: &Value) -> Readiness {
    let conditions =
        object.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    match conditions.iter().find(|c| c["type"] == "Ready" || c["type"] == "Available") {
        Some(condition) if condition["status"] != "True" => {
            Readiness::Waiting(condition["message"].as_str().unwrap_or("not ready").to_owned())
        }
        _ => Readiness::Ready,
    }
}
