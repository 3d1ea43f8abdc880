//! Endpoints: the addresses behind a Service. Its controller writes them, unless the Service has no selector.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, rule};
use crate::graph::RefKind;
use crate::names;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, hosts};

/// Endpoints.
pub static KIND: KindInfo = KindInfo {
    kind: "Endpoints",
    order: Order::Network,
    // They are what stands behind a Service of the same name that selects nothing.
    refs: &[
        rule("/metadata/name", To::Here("", "Service"), RefKind::Attaches).optional(),
        rule("/subsets/*/addresses/*/targetRef", To::Says("", "Pod"), RefKind::Other).optional(),
    ],
    strip: &["/metadata/annotations/endpoints.kubernetes.io~1last-change-trigger-time"],
    find: Some(find),
    keep,
    ..PLAIN
};

/// Addresses that are no pods' stand for something outside, often a database.
fn find(endpoints: &Object, found: &mut Vec<Found>) {
    let subsets = endpoints.at("/subsets").and_then(Value::as_array);
    for (index, subset) in subsets.into_iter().flatten().enumerate() {
        let list = |name: &str| subset.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let port = list("ports").first().and_then(|p| p.get("port")).and_then(Value::as_u64).unwrap_or(0);
        for (number, address) in list("addresses").iter().enumerate() {
            let Some(ip) = address.get("ip").and_then(Value::as_str) else { continue };
            if address.get("targetRef").is_none() {
                let at = format!("/subsets/{index}/addresses/{number}/ip");
                let shown = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
                hosts(names::in_value("host", &shown), &at, found);
            }
        }
    }
}

fn keep(endpoints: &Object, lookup: Lookup<'_>) -> Keep {
    if endpoints.annotation("control-plane.alpha.kubernetes.io/leader").is_some() {
        return Keep::No("a leader's lock");
    }
    if endpoints.namespace() == "default" && endpoints.name() == "kubernetes" {
        return Keep::No("the API server makes it");
    }
    let service = lookup(&ObjectKey::new("", "Service", endpoints.namespace(), endpoints.name()));
    match service.as_ref().and_then(|s| s.at("/spec/selector")) {
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
            keep(&endpoints, &|_| Some(service.clone()))
        };
        assert!(matches!(with(json!({"selector":{"app":"db"}})), Keep::No(_)));
        assert_eq!(with(json!({})), Keep::Yes);
        assert_eq!(keep(&endpoints, &|_| None), Keep::Yes);
    }
}
