//! ResourceQuota and LimitRange: before what they count, so that defaults are filled in as they were.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::Found;

/// ResourceQuota.
pub static QUOTA: KindInfo =
    KindInfo { kind: "ResourceQuota", order: Order::Limit, find: Some(find), ..PLAIN };
/// LimitRange.
pub static RANGE: KindInfo = KindInfo { kind: "LimitRange", order: Order::Limit, ..PLAIN };

/// A quota may count the pods of some priority classes only.
fn find(quota: &Object, found: &mut Vec<Found>) {
    let base = "/spec/scopeSelector/matchExpressions";
    for (index, needs) in quota.at(base).and_then(Value::as_array).into_iter().flatten().enumerate() {
        let scope = needs.get("scopeName").and_then(Value::as_str);
        let classes =
            needs.get("values").and_then(Value::as_array).filter(|_| scope == Some("PriorityClass"));
        for (number, class) in classes.into_iter().flatten().enumerate() {
            let Some(name) = class.as_str() else { continue };
            let key = ObjectKey::new("scheduling.k8s.io", "PriorityClass", "", name);
            let at = format!("{base}/{index}/values/{number}");
            found.push(Found::object(key, RefKind::Class, at).optional());
        }
    }
}
