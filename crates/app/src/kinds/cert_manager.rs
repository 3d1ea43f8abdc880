//! cert-manager and trust-manager. A Certificate writes the Secret it names, so that is no loss; but a stored one saves a round
//! with the issuer, and whoever trusts it goes on.

use super::custom::{cluster_kind, kind};
use super::{Keep, KindInfo, Lookup, RefRule, To, rule};
use crate::graph::RefKind;
use crate::object::Object;

const GROUP: &str = "cert-manager.io";
const ISSUER: To = To::Says(GROUP, "Issuer");

/// Where cert-manager and trust-manager look for what a cluster-scoped object names, unless told otherwise.
const HOME: &str = "cert-manager";

/// The certificate authority that cert-manager writes into a webhook, a definition or an API service.
pub(super) const INJECTED: RefRule = rule(
    "/metadata/annotations/cert-manager.io~1inject-ca-from",
    To::Slashed(GROUP, "Certificate"),
    RefKind::Config,
);
/// The same from a Secret.
pub(super) const INJECTED_SECRET: RefRule = rule(
    "/metadata/annotations/cert-manager.io~1inject-ca-from-secret",
    To::Slashed("", "Secret"),
    RefKind::Secret,
);
/// The issuer of an Ingress's or Gateway's certificates.
pub(super) const ISSUED: RefRule =
    rule("/metadata/annotations/cert-manager.io~1issuer", To::Here(GROUP, "Issuer"), RefKind::Class);
/// The same for the whole cluster.
pub(super) const ISSUED_BY_CLUSTER: RefRule = rule(
    "/metadata/annotations/cert-manager.io~1cluster-issuer",
    To::Cluster(GROUP, "ClusterIssuer"),
    RefKind::Class,
);

/// What an issuer reads, the Secrets in a namespace of its own or in cert-manager's.
macro_rules! issuer {
    ($secret:expr) => {
        &[
            rule("/spec/ca/secretName", $secret, RefKind::Secret).optional(),
            // It is made at the first registration.
            rule("/spec/acme/privateKeySecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/acme/externalAccountBinding/keySecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/vault/auth/tokenSecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/vault/auth/appRole/secretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/vault/auth/kubernetes/secretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/vault/caBundleSecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/vault/clientCertSecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/vault/clientKeySecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/vault/server", To::Host, RefKind::Names).optional(),
            rule("/spec/venafi/cloud/apiTokenSecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/venafi/tpp/credentialsRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/acme/solvers/*/dns01/*/apiTokenSecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/acme/solvers/*/dns01/*/apiKeySecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/acme/solvers/*/dns01/*/accessKeyIDSecretRef/name", $secret, RefKind::Secret)
                .optional(),
            rule("/spec/acme/solvers/*/dns01/*/secretAccessKeySecretRef/name", $secret, RefKind::Secret)
                .optional(),
            rule("/spec/acme/solvers/*/dns01/*/serviceAccountSecretRef/name", $secret, RefKind::Secret)
                .optional(),
            rule("/spec/acme/solvers/*/dns01/*/clientSecretSecretRef/name", $secret, RefKind::Secret)
                .optional(),
            rule("/spec/acme/solvers/*/dns01/*/tsigSecretSecretRef/name", $secret, RefKind::Secret)
                .optional(),
            rule("/spec/acme/solvers/*/dns01/*/tokenSecretRef/name", $secret, RefKind::Secret).optional(),
            rule("/spec/acme/solvers/*/dns01/*/accountSecretRef/name", $secret, RefKind::Secret).optional(),
            rule(
                "/spec/acme/solvers/*/http01/ingress/ingressClassName",
                To::Cluster("networking.k8s.io", "IngressClass"),
                RefKind::Class,
            )
            .optional(),
            rule(
                "/spec/acme/solvers/*/http01/gatewayHTTPRoute/parentRefs/*",
                To::Says("gateway.networking.k8s.io", "Gateway"),
                RefKind::Other,
            )
            .optional(),
        ]
    };
}

/// Certificates, issuers, bundles, and what cert-manager makes on the way.
pub static KINDS: &[KindInfo] = &[
    kind(
        GROUP,
        "Certificate",
        &[
            rule("/spec/issuerRef", ISSUER, RefKind::Class),
            rule("/spec/secretName", To::Here("", "Secret"), RefKind::Secret).optional(),
            rule("/spec/keystores/jks/passwordSecretRef/name", To::Here("", "Secret"), RefKind::Secret),
            rule("/spec/keystores/pkcs12/passwordSecretRef/name", To::Here("", "Secret"), RefKind::Secret),
        ],
    ),
    kind(GROUP, "Issuer", issuer!(To::Here("", "Secret"))),
    cluster_kind(GROUP, "ClusterIssuer", issuer!(To::In(HOME, "", "Secret"))),
    KindInfo {
        keep: made_again,
        ..kind(GROUP, "CertificateRequest", &[rule("/spec/issuerRef", ISSUER, RefKind::Class)])
    },
    KindInfo {
        keep: made_again,
        ..kind("acme.cert-manager.io", "Order", &[rule("/spec/issuerRef", ISSUER, RefKind::Class)])
    },
    KindInfo {
        keep: made_again,
        ..kind("acme.cert-manager.io", "Challenge", &[rule("/spec/issuerRef", ISSUER, RefKind::Class)])
    },
    cluster_kind(
        "trust.cert-manager.io",
        "Bundle",
        &[
            rule("/spec/sources/*/configMap/name", To::In(HOME, "", "ConfigMap"), RefKind::Config).optional(),
            rule("/spec/sources/*/secret/name", To::In(HOME, "", "Secret"), RefKind::Secret).optional(),
        ],
    ),
];

fn made_again(_: &Object, _: Lookup<'_>) -> Keep {
    Keep::Evidence("cert-manager makes it for a certificate")
}
