//! KEDA: workloads scaled by what waits for them. Held back on a restore like every autoscaler.

use super::custom::{cluster_kind, kind};
use super::{Hold, KindInfo, Order, To, rule};
use crate::graph::RefKind;

const GROUP: &str = "keda.sh";
/// Where KEDA looks for what a cluster-scoped authentication names.
const HOME: &str = "keda";

const AUTHENTICATION: To = To::Says(GROUP, "TriggerAuthentication");

macro_rules! authentication {
    ($secret:expr, $config:expr, $account:expr) => {
        &[
            rule("/spec/secretTargetRef/*/name", $secret, RefKind::Secret),
            rule("/spec/configMapTargetRef/*/name", $config, RefKind::Config),
            rule("/spec/hashiCorpVault/credential/serviceAccount", $account, RefKind::ServiceAccount)
                .optional(),
            rule("/spec/hashiCorpVault/address", To::Host, RefKind::Names).optional(),
            rule(
                "/spec/azureKeyVault/credentials/clientSecret/valueFrom/secretKeyRef/name",
                $secret,
                RefKind::Secret,
            ),
            rule(
                "/spec/awsSecretManager/credentials/accessKey/valueFrom/secretKeyRef/name",
                $secret,
                RefKind::Secret,
            ),
            rule(
                "/spec/awsSecretManager/credentials/accessSecretKey/valueFrom/secretKeyRef/name",
                $secret,
                RefKind::Secret,
            ),
            rule(
                "/spec/gcpSecretManager/credentials/clientSecret/valueFrom/secretKeyRef/name",
                $secret,
                RefKind::Secret,
            ),
            rule("/spec/boundServiceAccountToken/*/serviceAccountName", $account, RefKind::ServiceAccount),
        ]
    };
}

/// Scaled objects and jobs, and how they get to their triggers.
pub static KINDS: &[KindInfo] = &[
    KindInfo {
        order: Order::Autoscale,
        ..kind(
            GROUP,
            "ScaledObject",
            &[
                rule("/spec/scaleTargetRef", To::Says("apps", "Deployment"), RefKind::Scales),
                rule("/spec/triggers/*/authenticationRef", AUTHENTICATION, RefKind::Config),
            ],
        )
    },
    KindInfo {
        order: Order::Workload,
        pod_spec: Some("/spec/jobTargetRef/template/spec"),
        hold: Some(Hold::Zero("/spec/maxReplicaCount")),
        ..kind(
            GROUP,
            "ScaledJob",
            &[rule("/spec/triggers/*/authenticationRef", AUTHENTICATION, RefKind::Config)],
        )
    },
    kind(
        GROUP,
        "TriggerAuthentication",
        authentication!(To::Here("", "Secret"), To::Here("", "ConfigMap"), To::Here("", "ServiceAccount")),
    ),
    cluster_kind(
        GROUP,
        "ClusterTriggerAuthentication",
        authentication!(
            To::In(HOME, "", "Secret"),
            To::In(HOME, "", "ConfigMap"),
            To::In(HOME, "", "ServiceAccount")
        ),
    ),
];
