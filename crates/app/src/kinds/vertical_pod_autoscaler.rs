//! VerticalPodAutoscaler: it changes what the pods of its target ask for. Held back like every autoscaler.

use super::custom::kind;
use super::{KindInfo, Order, To, rule};
use crate::graph::RefKind;

/// VerticalPodAutoscaler.
pub static KIND: KindInfo = KindInfo {
    order: Order::Autoscale,
    ..kind(
        "autoscaling.k8s.io",
        "VerticalPodAutoscaler",
        &[rule("/spec/targetRef", To::Says("apps", "Deployment"), RefKind::Scales)],
    )
};
