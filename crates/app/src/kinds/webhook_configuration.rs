//! Validating and mutating webhook configurations: applied last. One whose pods are not up refuses everybody.

use super::{KindInfo, Order, PLAIN};
use crate::object::Object;
use crate::refs::Found;

const GROUP: &str = "admissionregistration.k8s.io";

/// ValidatingWebhookConfiguration.
pub static VALIDATING: KindInfo = KindInfo {
    group: GROUP,
    kind: "ValidatingWebhookConfiguration",
    order: Order::Webhook,
    find: Some(find),
    ..PLAIN
};
/// MutatingWebhookConfiguration.
pub static MUTATING: KindInfo = KindInfo { kind: "MutatingWebhookConfiguration", ..VALIDATING };

fn find(configuration: &Object, found: &mut Vec<Found>) {
    let hooks = configuration.at("/webhooks").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    for index in 0..hooks {
        super::called_service(configuration, &format!("/webhooks/{index}/clientConfig/service"), found);
    }
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
