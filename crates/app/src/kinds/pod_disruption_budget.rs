//! PodDisruptionBudget: how many of the pods it selects may be away.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN};
use crate::graph::RefKind;
use crate::object::Object;
use crate::refs::{Found, Target};
use crate::selector::Selector;

/// PodDisruptionBudget.
pub static KIND: KindInfo =
    KindInfo { group: "policy", kind: "PodDisruptionBudget", order: Order::Front, find: Some(find), ..PLAIN };

fn find(budget: &Object, found: &mut Vec<Found>) {
    let selector = Selector::from_json(budget.at("/spec/selector").unwrap_or(&Value::Null));
    // An empty selector is every pod in policy/v1 and none in v1beta1.
    if selector.is_empty() && budget.str("/apiVersion") == "policy/v1beta1" {
        return;
    }
    let target = Target::Pods(budget.namespace().to_owned(), selector);
    found.push(Found::to(target, RefKind::Selects, "/spec/selector").optional());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_selector_means_what_its_version_says() {
        for (version, edges) in [("policy/v1", 1), ("policy/v1beta1", 0)] {
            let mut found = Vec::new();
            find(
                &Object(
                    json!({"apiVersion":version,"kind":"PodDisruptionBudget","metadata":{"namespace":"n"},"spec":{"selector":{}}}),
                ),
                &mut found,
            );
            assert_eq!(found.len(), edges, "{version}");
        }
    }
}
