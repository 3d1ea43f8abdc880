//! HorizontalPodAutoscaler: held back on a restore, or it would scale up what waits for its data.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey, split_api_version};
use crate::refs::Found;

/// HorizontalPodAutoscaler.
pub static KIND: KindInfo = KindInfo {
    group: "autoscaling",
    kind: "HorizontalPodAutoscaler",
    order: Order::Autoscale,
    find: Some(find),
    // autoscaling/v1 keeps the status of later versions in annotations.
    strip: &[
        "/metadata/annotations/autoscaling.alpha.kubernetes.io~1conditions",
        "/metadata/annotations/autoscaling.alpha.kubernetes.io~1current-metrics",
    ],
    ..PLAIN
};

fn find(scaler: &Object, found: &mut Vec<Found>) {
    let text = |name: &str| {
        scaler.at("/spec/scaleTargetRef").and_then(|t| t.get(name)).and_then(Value::as_str).unwrap_or("")
    };
    if !text("name").is_empty() {
        let (group, _) = split_api_version(text("apiVersion"));
        let key = ObjectKey::new(group, text("kind"), scaler.namespace(), text("name"));
        found.push(Found::object(key, RefKind::Scales, "/spec/scaleTargetRef"));
    }
}

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
