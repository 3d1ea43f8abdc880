//! Pods that are scheduled together or not at all: what a workload asks for, and the groups its controller makes of that.

use super::{KindInfo, Order, PLAIN, RefRule, To, rule};
use crate::graph::RefKind;

const GROUP: &str = "scheduling.k8s.io";
const PRIORITY: To = To::Cluster(GROUP, "PriorityClass");
const CLAIM: To = To::Here("resource.k8s.io", "ResourceClaim");
const TEMPLATE: To = To::Here("resource.k8s.io", "ResourceClaimTemplate");
const WORKLOAD: To = To::Here(GROUP, "Workload");
/// Groups of groups are a few levels deep at most; so many are looked into.
const IN_GROUPS: &[RefRule] = &[
    // Who makes its pods: it comes with it, and says of it how they are placed.
    rule("/spec/controllerRef", To::Says("batch", "Job"), RefKind::Attaches).optional(),
    rule("/spec/podGroupTemplates/*/priorityClassName", PRIORITY, RefKind::Class),
    rule("/spec/podGroupTemplates/*/resourceClaims/*/resourceClaimName", CLAIM, RefKind::Other),
    rule("/spec/podGroupTemplates/*/resourceClaims/*/resourceClaimTemplateName", TEMPLATE, RefKind::Other),
    rule("/spec/compositePodGroupTemplates/*/priorityClassName", PRIORITY, RefKind::Class),
    rule(
        "/spec/compositePodGroupTemplates/*/podGroupTemplates/*/priorityClassName",
        PRIORITY,
        RefKind::Class,
    ),
    rule(
        "/spec/compositePodGroupTemplates/*/podGroupTemplates/*/resourceClaims/*/resourceClaimName",
        CLAIM,
        RefKind::Other,
    ),
    rule(
        "/spec/compositePodGroupTemplates/*/podGroupTemplates/*/resourceClaims/*/resourceClaimTemplateName",
        TEMPLATE,
        RefKind::Other,
    ),
];

/// Workload, PodGroup, CompositePodGroup.
pub static KINDS: &[KindInfo] = &[
    KindInfo { group: GROUP, kind: "Workload", order: Order::Custom, refs: IN_GROUPS, ..PLAIN },
    KindInfo {
        group: GROUP,
        kind: "PodGroup",
        refs: &[
            rule("/spec/workloadRef/workloadName", WORKLOAD, RefKind::PartOf),
            // Before scheduling.k8s.io/v1alpha3.
            rule("/spec/podGroupTemplateRef/workload/workloadName", WORKLOAD, RefKind::PartOf),
            rule("/spec/parentCompositePodGroupName", To::Here(GROUP, "CompositePodGroup"), RefKind::PartOf),
            rule("/spec/priorityClassName", PRIORITY, RefKind::Class),
            rule("/spec/resourceClaims/*/resourceClaimName", CLAIM, RefKind::Other),
            rule("/spec/resourceClaims/*/resourceClaimTemplateName", TEMPLATE, RefKind::Other),
        ],
        ..PLAIN
    },
    KindInfo {
        group: GROUP,
        kind: "CompositePodGroup",
        refs: &[
            rule("/spec/workloadRef/workloadName", WORKLOAD, RefKind::PartOf),
            rule("/spec/parentCompositePodGroupName", To::Here(GROUP, "CompositePodGroup"), RefKind::PartOf),
            rule("/spec/priorityClassName", PRIORITY, RefKind::Class),
        ],
        ..PLAIN
    },
];
