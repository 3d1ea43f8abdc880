//! CustomResourceDefinition: before what it defines, and established before anything of it is applied.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN, Readiness, To, rule};
use crate::graph::RefKind;
use crate::object::ObjectKey;

/// API group of definitions.
pub const GROUP: &str = "apiextensions.k8s.io";

/// CustomResourceDefinition.
pub static KIND: KindInfo = KindInfo {
    group: GROUP,
    kind: "CustomResourceDefinition",
    order: Order::Definition,
    cluster_scoped: true,
    refs: &[
        // It can be established before its converter runs; only other versions have to wait.
        rule("/spec/conversion/webhook/clientConfig/service", To::There("", "Service"), RefKind::Calls)
            .optional(),
        rule("/spec/conversion/webhookClientConfig/service", To::There("", "Service"), RefKind::Calls)
            .optional(),
        super::cert_manager::INJECTED,
        super::cert_manager::INJECTED_SECRET,
    ],
    ready,
    ..PLAIN
};

/// The key of the definition behind a custom resource.
pub fn definition(plural: &str, group: &str) -> ObjectKey {
    ObjectKey::new(GROUP, "CustomResourceDefinition", "", &format!("{plural}.{group}"))
}

fn ready(definition: &Value) -> Readiness {
    let conditions =
        definition.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
        return Readiness::Ready;
    }
    match conditions.iter().find(|c| c["type"] == "NamesAccepted" && c["status"] == "False") {
        Some(condition) => {
            Readiness::Failed(condition["message"].as_str().unwrap_or("its names are taken").to_owned())
        }
        None => Readiness::Waiting("not established yet".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn it_is_ready_when_established() {
        assert_eq!(
            ready(&json!({"status":{"conditions":[{"type":"Established","status":"True"}]}})),
            Readiness::Ready
        );
        assert!(matches!(ready(&json!({})), Readiness::Waiting(_)));
        assert!(matches!(
            ready(&json!({"status":{"conditions":[{"type":"NamesAccepted","status":"False"}]}})),
            Readiness::Failed(_)
        ));
    }

    #[test]
    fn its_converter_is_a_reference() {
        let crd = json!({"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.example.com"},
            "spec":{"conversion":{"webhook":{"clientConfig":{"service":{"namespace":"op","name":"hook"}}}}}});
        assert_eq!(
            refs(&crd),
            ["Service op/hook calls optional /spec/conversion/webhook/clientConfig/service"]
        );
    }
}
