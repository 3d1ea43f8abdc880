//! APIService: an API group served by somebody else's Service. Those without a Service the cluster makes.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN, Readiness, To, rule};
use crate::graph::RefKind;
use crate::object::Object;

/// APIService.
pub static KIND: KindInfo = KindInfo {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    order: Order::Api,
    cluster_scoped: true,
    refs: &[
        rule("/spec/service", To::There("", "Service"), RefKind::Calls),
        super::cert_manager::INJECTED,
        super::cert_manager::INJECTED_SECRET,
    ],
    keep,
    ready,
    ..PLAIN
};

fn keep(service: &Object, _: Lookup<'_>) -> Keep {
    match service.at("/spec/service") {
        None | Some(Value::Null) => Keep::No("the API server makes it for a group of its own"),
        Some(_) => Keep::Yes,
    }
}

fn ready(service: &Value) -> Readiness {
    let conditions =
        service.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    match conditions.iter().find(|c| c["type"] == "Available") {
        Some(condition) if condition["status"] == "True" => Readiness::Ready,
        Some(condition) => {
            Readiness::Waiting(condition["message"].as_str().unwrap_or("not available").to_owned())
        }
        None => Readiness::Waiting("not seen yet".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{kept, refs};
    use serde_json::json;

    #[test]
    fn only_those_with_a_service_are_somebodys() {
        let of = |spec: Value| json!({"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1.apps"},"spec":spec});
        assert!(matches!(kept(&of(json!({"group":"apps"}))), Keep::No(_)));
        let metrics = of(json!({"service":{"namespace":"kube-system","name":"metrics-server"}}));
        assert_eq!(kept(&metrics), Keep::Yes);
        assert_eq!(refs(&metrics), ["Service kube-system/metrics-server calls /spec/service"]);
    }
}
