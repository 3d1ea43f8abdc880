//! External Secrets and the Secrets Store driver: Secrets whose source is elsewhere. The Secret that is made of one is stored too:
//! the source may be gone on the day of the restore.

use super::custom::{cluster_kind, kind};
use super::{KindInfo, Order, To, rule};
use crate::graph::RefKind;

const GROUP: &str = "external-secrets.io";
const STORE: To = To::Says(GROUP, "SecretStore");
const SECRET: To = To::Here("", "Secret");

/// What a store needs to sign in. Fields differ from provider to provider; those all share stand here, and the rest is
/// known by its shape.
macro_rules! store {
    () => {
        &[
            rule(
                "/spec/provider/*/auth/*/serviceAccountRef",
                To::There("", "ServiceAccount"),
                RefKind::ServiceAccount,
            ),
            rule(
                "/spec/provider/*/serviceAccountRef",
                To::There("", "ServiceAccount"),
                RefKind::ServiceAccount,
            ),
            rule("/spec/provider/*/auth/tokenSecretRef", To::There("", "Secret"), RefKind::Secret),
            rule("/spec/provider/*/auth/*/secretRef", To::There("", "Secret"), RefKind::Secret),
            rule(
                "/spec/provider/*/auth/secretRef/accessKeyIDSecretRef",
                To::There("", "Secret"),
                RefKind::Secret,
            ),
            rule(
                "/spec/provider/*/auth/secretRef/secretAccessKeySecretRef",
                To::There("", "Secret"),
                RefKind::Secret,
            ),
            rule("/spec/provider/*/authSecretRef/clientId", To::There("", "Secret"), RefKind::Secret),
            rule("/spec/provider/*/authSecretRef/clientSecret", To::There("", "Secret"), RefKind::Secret),
            rule("/spec/provider/*/server", To::Host, RefKind::Names).optional(),
            rule("/spec/provider/*/url", To::Host, RefKind::Names).optional(),
        ]
    };
}

/// Stores, secrets, and the driver's provider classes.
pub static KINDS: &[KindInfo] = &[
    KindInfo { order: Order::Class, ..kind(GROUP, "SecretStore", store!()) },
    cluster_kind(GROUP, "ClusterSecretStore", store!()),
    kind(
        GROUP,
        "ExternalSecret",
        &[
            rule("/spec/secretStoreRef", STORE, RefKind::Class),
            rule("/spec/data/*/sourceRef/storeRef", STORE, RefKind::Class),
            rule("/spec/dataFrom/*/sourceRef/storeRef", STORE, RefKind::Class),
            rule(
                "/spec/dataFrom/*/sourceRef/generatorRef",
                To::Says("generators.external-secrets.io", "Password"),
                RefKind::Config,
            ),
            // It is what this makes.
            rule("/spec/target/name", SECRET, RefKind::Secret).optional(),
            rule(
                "/spec/target/template/templateFrom/*/configMap/name",
                To::Here("", "ConfigMap"),
                RefKind::Config,
            ),
            rule("/spec/target/template/templateFrom/*/secret/name", SECRET, RefKind::Secret),
        ],
    ),
    cluster_kind(
        GROUP,
        "ClusterExternalSecret",
        &[rule(
            "/spec/externalSecretSpec/secretStoreRef",
            To::Says(GROUP, "ClusterSecretStore"),
            RefKind::Class,
        )
        .optional()],
    ),
    kind(
        GROUP,
        "PushSecret",
        &[
            rule("/spec/secretStoreRefs/*", STORE, RefKind::Class),
            rule("/spec/selector/secret/name", SECRET, RefKind::Secret),
        ],
    ),
    // The Secrets of a provider class are what it makes.
    kind(
        "secrets-store.csi.x-k8s.io",
        "SecretProviderClass",
        &[rule("/spec/secretObjects/*/secretName", SECRET, RefKind::Secret).optional()],
    ),
];
