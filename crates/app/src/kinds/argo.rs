//! Argo CD and Argo Rollouts. An Application says where it deploys to; what it deployed is found by the mark that Argo CD leaves
//! on it, and has a life of its own.

use super::custom::kind;
use super::{Hold, KindInfo, Order, To, rule};
use crate::graph::RefKind;

const GROUP: &str = "argoproj.io";
const SECRET: To = To::Here("", "Secret");
const SERVICE: To = To::Here("", "Service");

/// Application, ApplicationSet, AppProject, Rollout and its analyses.
pub static KINDS: &[KindInfo] = &[
    kind(
        GROUP,
        "Application",
        &[
            rule("/spec/project", To::Here(GROUP, "AppProject"), RefKind::Class),
            rule("/spec/destination/namespace", To::Cluster("", "Namespace"), RefKind::Watches).optional(),
        ],
    ),
    kind(
        GROUP,
        "ApplicationSet",
        &[
            rule("/spec/template/spec/project", To::Here(GROUP, "AppProject"), RefKind::Class).optional(),
            rule("/spec/generators/*/scmProvider/*/tokenRef/secretName", SECRET, RefKind::Secret),
            rule("/spec/generators/*/pullRequest/*/tokenRef/secretName", SECRET, RefKind::Secret),
            rule("/spec/generators/*/plugin/configMapRef/name", To::Here("", "ConfigMap"), RefKind::Config),
            rule(
                "/spec/generators/*/clusterDecisionResource/configMapRef",
                To::Here("", "ConfigMap"),
                RefKind::Config,
            ),
        ],
    ),
    KindInfo {
        order: Order::Class,
        ..kind(
            GROUP,
            "AppProject",
            &[rule("/spec/destinations/*/namespace", To::Cluster("", "Namespace"), RefKind::Watches)
                .optional()],
        )
    },
    KindInfo {
        order: Order::Workload,
        pod_spec: Some("/spec/template/spec"),
        hold: Some(Hold::Zero("/spec/replicas")),
        ..kind(
            GROUP,
            "Rollout",
            &[
                rule("/spec/workloadRef", To::Says("apps", "Deployment"), RefKind::Scales),
                rule("/spec/strategy/blueGreen/activeService", SERVICE, RefKind::Other),
                rule("/spec/strategy/blueGreen/previewService", SERVICE, RefKind::Other),
                rule("/spec/strategy/canary/stableService", SERVICE, RefKind::Other),
                rule("/spec/strategy/canary/canaryService", SERVICE, RefKind::Other),
                rule(
                    "/spec/strategy/canary/trafficRouting/nginx/stableIngress",
                    To::Here("networking.k8s.io", "Ingress"),
                    RefKind::Other,
                ),
                rule(
                    "/spec/strategy/canary/steps/*/analysis/templates/*/templateName",
                    To::Here(GROUP, "AnalysisTemplate"),
                    RefKind::Other,
                ),
            ],
        )
    },
    kind(
        GROUP,
        "AnalysisTemplate",
        &[rule("/spec/args/*/valueFrom/secretKeyRef/name", SECRET, RefKind::Secret)],
    ),
];
