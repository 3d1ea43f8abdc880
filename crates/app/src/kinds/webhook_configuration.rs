//! Validating and mutating webhook configurations: applied last. One whose pods are not up refuses everybody.

use super::{KindInfo, Order, PLAIN, To, rule};
use crate::graph::RefKind;

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
