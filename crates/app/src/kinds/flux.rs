//! Flux: sources, what is made of them, and who is told.

use super::custom::kind;
use super::{KindInfo, To, rule};
use crate::graph::RefKind;

const SOURCE: &str = "source.toolkit.fluxcd.io";
const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io";
const HELM: &str = "helm.toolkit.fluxcd.io";
const NOTIFICATION: &str = "notification.toolkit.fluxcd.io";
const IMAGE: &str = "image.toolkit.fluxcd.io";

const SECRET: To = To::Here("", "Secret");
const ACCOUNT: To = To::Here("", "ServiceAccount");
/// ConfigMaps and Secrets with values.
const VALUES: To = To::Says("", "ConfigMap");
const NAMESPACE: To = To::Cluster("", "Namespace");

/// All kinds of Flux that refer to something.
pub static KINDS: &[KindInfo] = &[
    kind(
        SOURCE,
        "GitRepository",
        &[
            rule("/spec/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/proxySecretRef/name", SECRET, RefKind::Secret),
            rule("/spec/verify/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/include/*/repository/name", To::Here(SOURCE, "GitRepository"), RefKind::Other),
            rule("/spec/serviceAccountName", ACCOUNT, RefKind::ServiceAccount),
        ],
    ),
    kind(
        SOURCE,
        "OCIRepository",
        &[
            rule("/spec/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/certSecretRef/name", SECRET, RefKind::Secret),
            rule("/spec/proxySecretRef/name", SECRET, RefKind::Secret),
            rule("/spec/verify/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/serviceAccountName", ACCOUNT, RefKind::ServiceAccount),
        ],
    ),
    kind(
        SOURCE,
        "HelmRepository",
        &[
            rule("/spec/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/certSecretRef/name", SECRET, RefKind::Secret),
        ],
    ),
    kind(
        SOURCE,
        "HelmChart",
        &[
            rule("/spec/sourceRef", To::Says(SOURCE, "HelmRepository"), RefKind::Config),
            rule("/spec/verify/secretRef/name", SECRET, RefKind::Secret),
        ],
    ),
    kind(
        SOURCE,
        "Bucket",
        &[
            rule("/spec/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/certSecretRef/name", SECRET, RefKind::Secret),
            rule("/spec/proxySecretRef/name", SECRET, RefKind::Secret),
            rule("/spec/sts/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/endpoint", To::Host, RefKind::Names).optional(),
        ],
    ),
    kind(
        KUSTOMIZE,
        "Kustomization",
        &[
            rule("/spec/sourceRef", To::Says(SOURCE, "GitRepository"), RefKind::Config),
            rule("/spec/decryption/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/kubeConfig/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/postBuild/substituteFrom/*", VALUES, RefKind::Config),
            rule("/spec/dependsOn/*", To::There(KUSTOMIZE, "Kustomization"), RefKind::Other),
            rule("/spec/healthChecks/*", To::Says("apps", "Deployment"), RefKind::Watches).optional(),
            rule("/spec/serviceAccountName", ACCOUNT, RefKind::ServiceAccount),
            rule("/spec/targetNamespace", NAMESPACE, RefKind::Watches).optional(),
        ],
    ),
    kind(
        HELM,
        "HelmRelease",
        &[
            rule("/spec/chart/spec/sourceRef", To::Says(SOURCE, "HelmRepository"), RefKind::Config),
            rule("/spec/chart/spec/verify/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/chartRef", To::Says(SOURCE, "OCIRepository"), RefKind::Config),
            rule("/spec/valuesFrom/*", VALUES, RefKind::Config),
            rule("/spec/dependsOn/*", To::There(HELM, "HelmRelease"), RefKind::Other),
            rule("/spec/kubeConfig/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/serviceAccountName", ACCOUNT, RefKind::ServiceAccount),
            rule("/spec/targetNamespace", NAMESPACE, RefKind::Watches).optional(),
            rule("/spec/storageNamespace", NAMESPACE, RefKind::Watches).optional(),
        ],
    ),
    kind(
        NOTIFICATION,
        "Alert",
        &[
            rule("/spec/providerRef/name", To::Here(NOTIFICATION, "Provider"), RefKind::Config),
            rule("/spec/eventSources/*", To::Says(KUSTOMIZE, "Kustomization"), RefKind::Watches).optional(),
        ],
    ),
    kind(
        NOTIFICATION,
        "Provider",
        &[
            rule("/spec/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/certSecretRef/name", SECRET, RefKind::Secret),
            rule("/spec/proxySecretRef/name", SECRET, RefKind::Secret),
            rule("/spec/serviceAccountName", ACCOUNT, RefKind::ServiceAccount),
        ],
    ),
    kind(
        NOTIFICATION,
        "Receiver",
        &[
            rule("/spec/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/resources/*", To::Says(SOURCE, "GitRepository"), RefKind::Watches).optional(),
        ],
    ),
    kind(
        IMAGE,
        "ImageRepository",
        &[
            rule("/spec/secretRef/name", SECRET, RefKind::Secret),
            rule("/spec/certSecretRef/name", SECRET, RefKind::Secret),
            rule("/spec/proxySecretRef/name", SECRET, RefKind::Secret),
            rule("/spec/serviceAccountName", ACCOUNT, RefKind::ServiceAccount),
        ],
    ),
    kind(
        IMAGE,
        "ImagePolicy",
        &[rule("/spec/imageRepositoryRef", To::There(IMAGE, "ImageRepository"), RefKind::Config)],
    ),
    kind(
        IMAGE,
        "ImageUpdateAutomation",
        &[
            rule("/spec/sourceRef", To::Says(SOURCE, "GitRepository"), RefKind::Config),
            rule("/spec/git/commit/signingKey/secretRef/name", SECRET, RefKind::Secret),
        ],
    ),
];
