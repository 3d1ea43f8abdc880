//! Which namespaces may use what lies in another, as Gateway API has it: who owns a thing says whom it is for.

use std::collections::BTreeMap;

use api::{AllowedFrom, AllowedNamespaces, Ref};
use app::selector::Selector;

use crate::watch::Key;

/// May objects of `asking`, a namespace with these labels, use what lies in `own`?
pub fn allows(
    allowed: &AllowedNamespaces,
    own: &str,
    asking: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    if asking == own {
        return true;
    }
    match allowed.from {
        AllowedFrom::Same => false,
        AllowedFrom::All => true,
        AllowedFrom::Selector => {
            let selector = allowed.selector.as_ref().and_then(|selector| serde_json::to_value(selector).ok());
            // Elsewhere an empty selector selects everything; here it is nobody.
            selector
                .map(|selector| Selector::from_json(&selector))
                .is_some_and(|s| !s.is_empty() && s.matches(labels))
        }
    }
}

/// Which object is meant by a reference in an object of this namespace.
pub fn meant(reference: &Ref, namespace: &str) -> Key {
    Key::new(reference.namespace.as_deref().unwrap_or(namespace), &reference.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_owns_a_thing_says_whom_it_is_for() {
        let check = |allowed: serde_json::Value, asking: &str, expect: bool| {
            let read: AllowedNamespaces = serde_json::from_value(allowed.clone()).unwrap();
            let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
            assert_eq!(allows(&read, "platform", asking, &labels), expect, "{allowed} {asking}");
        };
        for from in ["Same", "All"] {
            check(json!({"from": from}), "platform", true);
            check(json!({"from": from}), "shop", from == "All");
        }
        let selector = |selector| json!({"from": "Selector", "selector": selector});
        check(selector(json!({"matchLabels": {"team": "shop"}})), "shop", true);
        check(selector(json!({"matchLabels": {"team": "bank"}})), "shop", false);
        check(selector(json!({"matchLabels": {"team": "bank"}})), "platform", true);
        check(selector(json!({"matchExpressions": [{"key": "team", "operator": "Exists"}]})), "shop", true);
        check(selector(json!({"matchExpressions": [{"key": "bank", "operator": "Exists"}]})), "shop", false);
        // Nobody, and not everybody.
        check(selector(json!({})), "shop", false);
    }
}
