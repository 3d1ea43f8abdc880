//! Gateway API: gateways, routes to Services, policies on them, and the grants that let them cross namespaces.

use serde_json::Value;

use super::custom::{cluster_kind, kind};
use super::{KindInfo, Order, Readiness, RefRule, To, rule};
use crate::graph::RefKind;

const GROUP: &str = "gateway.networking.k8s.io";
const SERVICE: To = To::Says("", "Service");
const SECRET: To = To::Says("", "Secret");

/// What every kind of route has.
static ROUTE: &[RefRule] = &[
    rule("/spec/rules/*/backendRefs/*", SERVICE, RefKind::Routes),
    rule("/spec/rules/*/filters/*/requestMirror/backendRef", SERVICE, RefKind::Routes),
    rule("/spec/rules/*/filters/*/extensionRef", To::Says("", "ConfigMap"), RefKind::Config),
    rule("/spec/rules/*/backendRefs/*/filters/*/requestMirror/backendRef", SERVICE, RefKind::Routes),
    rule("/spec/rules/*/backendRefs/*/filters/*/extensionRef", To::Says("", "ConfigMap"), RefKind::Config),
    rule("/spec/parentRefs/*", To::Says(GROUP, "Gateway"), RefKind::Other),
];

const fn route(name: &'static str) -> KindInfo {
    KindInfo { order: Order::Front, ready: there, ..kind(GROUP, name, ROUTE) }
}

const BACKEND_TLS: KindInfo = KindInfo {
    order: Order::Front,
    ready: there,
    ..kind(
        GROUP,
        "BackendTLSPolicy",
        &[
            rule("/spec/targetRefs/*", SERVICE, RefKind::Attaches),
            rule("/spec/validation/caCertificateRefs/*", To::Says("", "ConfigMap"), RefKind::Config),
        ],
    )
};

/// All kinds of the Gateway API.
pub static KINDS: &[KindInfo] = &[
    cluster_kind(
        GROUP,
        "GatewayClass",
        &[rule("/spec/parametersRef", To::Says("", "ConfigMap"), RefKind::Config)],
    ),
    KindInfo {
        order: Order::Front,
        ready,
        ..kind(
            GROUP,
            "Gateway",
            &[
                rule("/spec/gatewayClassName", To::Cluster(GROUP, "GatewayClass"), RefKind::Class),
                rule("/spec/listeners/*/tls/certificateRefs/*", SECRET, RefKind::Secret),
                rule(
                    "/spec/listeners/*/tls/frontendValidation/caCertificateRefs/*",
                    To::Says("", "ConfigMap"),
                    RefKind::Config,
                ),
                rule("/spec/infrastructure/parametersRef", To::Says("", "ConfigMap"), RefKind::Config),
                super::cert_manager::ISSUED,
                super::cert_manager::ISSUED_BY_CLUSTER,
            ],
        )
    },
    KindInfo {
        order: Order::Front,
        ready: there,
        ..kind(
            GROUP,
            "ListenerSet",
            &[
                rule("/spec/parentRef", To::Says(GROUP, "Gateway"), RefKind::PartOf),
                rule("/spec/listeners/*/tls/certificateRefs/*", SECRET, RefKind::Secret),
            ],
        )
    },
    route("HTTPRoute"),
    route("GRPCRoute"),
    route("TCPRoute"),
    route("TLSRoute"),
    route("UDPRoute"),
    BACKEND_TLS,
    // It lets others lead to what is here, and is of no use without.
    KindInfo {
        order: Order::Network,
        ready: there,
        ..kind(
            GROUP,
            "ReferenceGrant",
            &[
                rule("/spec/to/*", SERVICE, RefKind::Attaches).optional(),
                rule("/spec/from/*/namespace", To::Cluster("", "Namespace"), RefKind::Watches).optional(),
            ],
        )
    },
];

fn there(_: &Value) -> Readiness {
    Readiness::Ready
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
