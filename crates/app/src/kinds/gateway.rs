//! Gateway API: gateways, routes to Services, and the grants that let them cross namespaces.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN, Readiness, To, rule};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, walk};

const GROUP: &str = "gateway.networking.k8s.io";

/// Gateway.
pub static GATEWAY: KindInfo = KindInfo {
    group: GROUP,
    kind: "Gateway",
    order: Order::Front,
    refs: &[rule("/spec/gatewayClassName", To::Cluster(GROUP, "GatewayClass"), RefKind::Class)],
    find: Some(find),
    ready,
    ..PLAIN
};
/// HTTPRoute.
pub static HTTP_ROUTE: KindInfo =
    KindInfo { group: GROUP, kind: "HTTPRoute", order: Order::Front, find: Some(find), ..PLAIN };
/// GRPCRoute.
pub static GRPC_ROUTE: KindInfo = KindInfo { kind: "GRPCRoute", ..HTTP_ROUTE };
/// TCPRoute.
pub static TCP_ROUTE: KindInfo = KindInfo { kind: "TCPRoute", ..HTTP_ROUTE };
/// TLSRoute.
pub static TLS_ROUTE: KindInfo = KindInfo { kind: "TLSRoute", ..HTTP_ROUTE };
/// UDPRoute.
pub static UDP_ROUTE: KindInfo = KindInfo { kind: "UDPRoute", ..HTTP_ROUTE };
/// ReferenceGrant.
pub static GRANT: KindInfo =
    KindInfo { group: GROUP, kind: "ReferenceGrant", order: Order::Network, ..PLAIN };

/// Where references stand, and what they are to when they do not say.
const PLACES: &[(&str, &str, &str, RefKind)] = &[
    ("/spec/rules/*/backendRefs/*", "", "Service", RefKind::Routes),
    ("/spec/parentRefs/*", GROUP, "Gateway", RefKind::Other),
    ("/spec/listeners/*/tls/certificateRefs/*", "", "Secret", RefKind::Secret),
];

fn find(object: &Object, found: &mut Vec<Found>) {
    for (place, group, kind, via) in PLACES {
        walk(&object.0, place, String::new(), false, &mut |reference, at, _| {
            let text = |name: &str, default: &str| {
                reference.get(name).and_then(Value::as_str).unwrap_or(default).to_owned()
            };
            let name = text("name", "");
            if !name.is_empty() {
                let key = ObjectKey::new(
                    &text("group", group),
                    &text("kind", kind),
                    &text("namespace", object.namespace()),
                    &name,
                );
                found.push(Found::object(key, *via, at));
            }
        });
    }
}

fn ready(gateway: &Value) -> Readiness {
    let conditions =
        gateway.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if conditions.iter().any(|c| c["type"] == "Programmed" && c["status"] == "True") {
        Readiness::Ready
    } else {
        Readiness::Waiting("no controller has programmed it".into())
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn routes_gateways_and_certificates() {
        let route = json!({"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"namespace":"shop","name":"r"},"spec":{
            "parentRefs":[{"name":"edge","namespace":"infra"}],"rules":[{"backendRefs":[{"name":"web","port":80},{"name":"b","kind":"Bucket","group":"x.io"}]}]}});
        assert_eq!(
            refs(&route),
            [
                "Service shop/web routes /spec/rules/0/backendRefs/0",
                "Bucket.x.io shop/b routes /spec/rules/0/backendRefs/1",
                "Gateway infra/edge other /spec/parentRefs/0",
            ]
        );
        let gateway = json!({"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"namespace":"infra","name":"edge"},"spec":{
            "gatewayClassName":"nginx","listeners":[{"tls":{"certificateRefs":[{"name":"tls"}]}}]}});
        assert_eq!(
            refs(&gateway),
            [
                "GatewayClass nginx class /spec/gatewayClassName",
                "Secret infra/tls secret /spec/listeners/0/tls/certificateRefs/0",
            ]
        );
    }
}
