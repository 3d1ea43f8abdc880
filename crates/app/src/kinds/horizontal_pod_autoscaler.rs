//! HorizontalPodAutoscaler: held back on a restore, or it would scale up what waits for its data.

use super::{KindInfo, Order, PLAIN, To, rule};
use crate::graph::RefKind;

/// HorizontalPodAutoscaler.
pub static KIND: KindInfo = KindInfo {
    group: "autoscaling",
    kind: "HorizontalPodAutoscaler",
    order: Order::Autoscale,
    refs: &[
        rule("/spec/scaleTargetRef", To::Says("apps", "Deployment"), RefKind::Scales),
        rule("/spec/metrics/*/object/describedObject", To::Says("", "Service"), RefKind::Other).optional(),
        rule("/spec/metrics/*/object/target", To::Says("", "Service"), RefKind::Other).optional(),
    ],
    // autoscaling/v1 keeps the status of later versions in annotations.
    strip: &[
        "/metadata/annotations/autoscaling.alpha.kubernetes.io~1conditions",
        "/metadata/annotations/autoscaling.alpha.kubernetes.io~1current-metrics",
    ],
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use crate::kinds::testing::{cleaned, refs};
    use serde_json::json;

    #[test]
    fn it_refers_to_what_it_scales() {
        let scaler = json!({"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"namespace":"shop","name":"h",
            "annotations":{"autoscaling.alpha.kubernetes.io/conditions":"[]","autoscaling.alpha.kubernetes.io/metrics":"[]"}},
            "spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"}}});
        assert_eq!(refs(&scaler), ["Deployment shop/web scales /spec/scaleTargetRef"]);
        assert_eq!(
            cleaned(&scaler)["metadata"]["annotations"],
            json!({"autoscaling.alpha.kubernetes.io/metrics":"[]"})
        );
    }
}
