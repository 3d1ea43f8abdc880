//! NetworkPolicy: who may talk to the pods it selects.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN};
use crate::graph::RefKind;
use crate::object::Object;
use crate::refs::{Found, Target};
use crate::selector::Selector;

/// NetworkPolicy.
pub static KIND: KindInfo = KindInfo {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    also: &["extensions"],
    order: Order::Network,
    find: Some(find),
    ..PLAIN
};

fn find(policy: &Object, found: &mut Vec<Found>) {
    let selector = Selector::from_json(policy.at("/spec/podSelector").unwrap_or(&Value::Null));
    let target = Target::Pods(policy.namespace().to_owned(), selector);
    found.push(Found { target, via: RefKind::Selects, at: "/spec/podSelector".into(), optional: true });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_selector_is_every_pod() {
        let policy = Object(
            json!({"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"namespace":"n","name":"deny"},"spec":{"podSelector":{}}}),
        );
        let mut found = Vec::new();
        find(&policy, &mut found);
        assert_eq!(found[0].target, Target::Pods("n".into(), Selector::default()));
    }
}
