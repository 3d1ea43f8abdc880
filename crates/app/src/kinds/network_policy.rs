//! NetworkPolicy: who may talk to the pods it selects.

use super::{KindInfo, Order, PLAIN, To, rule};
use crate::graph::RefKind;

/// NetworkPolicy.
pub static KIND: KindInfo = KindInfo {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    also: &["extensions"],
    order: Order::Network,
    refs: &[rule("/spec/podSelector", To::Pods, RefKind::Selects).optional()],
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn an_empty_selector_is_every_pod() {
        let policy = json!({"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"namespace":"n","name":"deny"},"spec":{"podSelector":{}}});
        assert_eq!(refs(&policy), ["pods of n Selector([]) selects optional /spec/podSelector"]);
    }
}
