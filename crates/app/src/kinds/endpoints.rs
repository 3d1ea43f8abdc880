//! Endpoints: the addresses behind a Service. Its controller writes them, unless the Service has no selector.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN};
use crate::object::{Object, ObjectKey};

/// Endpoints.
pub static KIND: KindInfo = KindInfo {
    kind: "Endpoints",
    order: Order::Network,
    strip: &["/metadata/annotations/endpoints.kubernetes.io~1last-change-trigger-time"],
    keep,
    ..PLAIN
};

fn keep(endpoints: &Object, lookup: Lookup<'_>) -> Keep {
    if endpoints.annotation("control-plane.alpha.kubernetes.io/leader").is_some() {
        return Keep::No("a leader's lock");
    }
    if endpoints.namespace() == "default" && endpoints.name() == "kubernetes" {
        return Keep::No("the API server makes it");
    }
    let service = lookup(&ObjectKey::new("", "Service", endpoints.namespace(), endpoints.name()));
    match service.and_then(|s| s.at("/spec/selector")) {
        Some(Value::Object(selector)) if !selector.is_empty() => {
            Keep::No("it follows its Service's selector")
        }
        _ => Keep::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_somebody_wrote_are_kept() {
        let endpoints =
            Object(json!({"apiVersion":"v1","kind":"Endpoints","metadata":{"namespace":"shop","name":"db"}}));
        let with = |spec: Value| {
            let service = Object(json!({"spec":spec}));
            keep(&endpoints, &|_| Some(&service))
        };
        assert!(matches!(with(json!({"selector":{"app":"db"}})), Keep::No(_)));
        assert_eq!(with(json!({})), Keep::Yes);
        assert_eq!(keep(&endpoints, &|_| None), Keep::Yes);
    }
}
