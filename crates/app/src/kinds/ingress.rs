//! Ingress: host names and paths to Services, with the certificates of the hosts.

use super::{KindInfo, Order, PLAIN, To, rule};
use crate::graph::RefKind;

const SERVICE: To = To::Here("", "Service");
/// `name` or `namespace/name`.
const SECRET: To = To::Slashed("", "Secret");

/// Ingress.
pub static KIND: KindInfo = KindInfo {
    group: "networking.k8s.io",
    kind: "Ingress",
    also: &["extensions"],
    order: Order::Front,
    refs: &[
        rule("/spec/rules/*/http/paths/*/backend/service/name", SERVICE, RefKind::Routes),
        rule("/spec/defaultBackend/service/name", SERVICE, RefKind::Routes),
        // Before networking.k8s.io/v1.
        rule("/spec/rules/*/http/paths/*/backend/serviceName", SERVICE, RefKind::Routes),
        rule("/spec/backend/serviceName", SERVICE, RefKind::Routes),
        rule("/spec/tls/*/secretName", To::Here("", "Secret"), RefKind::Secret),
        rule("/spec/ingressClassName", To::Cluster("networking.k8s.io", "IngressClass"), RefKind::Class),
        // The annotation named a controller before there were classes: a class of that name need not exist.
        rule(
            "/metadata/annotations/kubernetes.io~1ingress.class",
            To::Cluster("networking.k8s.io", "IngressClass"),
            RefKind::Class,
        )
        .optional(),
        rule("/spec/defaultBackend/resource", To::Says("", "Service"), RefKind::Other),
        rule("/spec/rules/*/http/paths/*/backend/resource", To::Says("", "Service"), RefKind::Other),
        // What the usual controllers read from annotations.
        rule("/metadata/annotations/nginx.ingress.kubernetes.io~1auth-secret", SECRET, RefKind::Secret),
        rule("/metadata/annotations/nginx.ingress.kubernetes.io~1auth-tls-secret", SECRET, RefKind::Secret),
        rule("/metadata/annotations/nginx.ingress.kubernetes.io~1proxy-ssl-secret", SECRET, RefKind::Secret),
        rule(
            "/metadata/annotations/nginx.ingress.kubernetes.io~1default-backend",
            To::Here("", "Service"),
            RefKind::Routes,
        ),
        super::cert_manager::ISSUED,
        super::cert_manager::ISSUED_BY_CLUSTER,
    ],
    // Ready as soon as it is there: many controllers serve it and never write an address into its status.
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn nothing_waits_for_an_address_that_may_never_be_written() {
        let ingress = json!({"apiVersion":"networking.k8s.io/v1","kind":"Ingress","spec":{},"status":{"loadBalancer":{}}});
        assert_eq!((super::KIND.ready)(&ingress), crate::kinds::Readiness::Ready);
    }

    #[test]
    fn backends_certificates_and_class_of_both_generations() {
        let new = json!({"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"shop","name":"i",
            "annotations":{"nginx.ingress.kubernetes.io/auth-secret":"other/users","kubernetes.io/ingress.class":"nginx"}},"spec":{
            "ingressClassName":"nginx","tls":[{"secretName":"tls"}],"defaultBackend":{"service":{"name":"web"}},
            "rules":[{"http":{"paths":[{"backend":{"service":{"name":"api"}}}]}}]}});
        assert_eq!(
            refs(&new),
            [
                "Service shop/api routes /spec/rules/0/http/paths/0/backend/service/name",
                "Service shop/web routes /spec/defaultBackend/service/name",
                "Secret shop/tls secret /spec/tls/0/secretName",
                "IngressClass nginx class /spec/ingressClassName",
                "IngressClass nginx class optional /metadata/annotations/kubernetes.io~1ingress.class",
                "Secret other/users secret /metadata/annotations/nginx.ingress.kubernetes.io~1auth-secret",
            ]
        );
        let old = json!({"apiVersion":"extensions/v1beta1","kind":"Ingress","metadata":{"namespace":"shop","name":"i"},"spec":{
            "backend":{"serviceName":"web"},"rules":[{"http":{"paths":[{"backend":{"serviceName":"api"}}]}}]}});
        assert_eq!(
            refs(&old),
            [
                "Service shop/api routes /spec/rules/0/http/paths/0/backend/serviceName",
                "Service shop/web routes /spec/backend/serviceName",
            ]
        );
    }
}
