//! Validating and mutating webhook configurations: applied last. One whose pods are not up refuses everybody.

use super::{KindInfo, Order, PLAIN, To, rule};
use crate::graph::RefKind;
use serde_json::Value;

const GROUP: &str = "admissionregistration.k8s.io";

/// ValidatingWebhookConfiguration.
pub static VALIDATING: KindInfo = KindInfo {
    group: GROUP,
    kind: "ValidatingWebhookConfiguration",
    cluster_scoped: true,
    order: Order::Webhook,
    refs: &[
        rule("/webhooks/*/clientConfig/service", To::There("", "Service"), RefKind::Calls),
        super::cert_manager::INJECTED,
        super::cert_manager::INJECTED_SECRET,
    ],
    ..PLAIN
};
/// MutatingWebhookConfiguration.
pub static MUTATING: KindInfo = KindInfo { kind: "MutatingWebhookConfiguration", ..VALIDATING };

/// Is a webhook asked about objects of this resource, by its rules? Its selectors may narrow that further.
pub fn sees(webhook: &Value, group: &str, plural: &str) -> bool {
    let any = |rule: &Value, key: &str, wanted: &str| {
        let list = rule.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        list.into_iter().any(|entry| entry == "*" || entry == "*/*" || entry == wanted)
    };
    let rules = webhook.get("rules").and_then(Value::as_array).into_iter().flatten();
    rules.into_iter().any(|rule| {
        let writes = any(rule, "operations", "CREATE") || any(rule, "operations", "UPDATE");
        writes && any(rule, "apiGroups", group) && any(rule, "resources", plural)
    })
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn the_services_behind_the_hooks_are_references() {
        for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
            let hooks = json!({"apiVersion":"admissionregistration.k8s.io/v1","kind":kind,"metadata":{"name":"h"},"webhooks":[
                {"clientConfig":{"url":"https://example.com"}},{"clientConfig":{"service":{"namespace":"op","name":"hook"}}}]});
            assert_eq!(refs(&hooks), ["Service op/hook calls /webhooks/1/clientConfig/service"], "{kind}");
        }
    }
}
