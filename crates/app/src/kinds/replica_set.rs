//! ReplicaSet: usually its Deployment's, and then only evidence of what ran.

use serde_json::Value;

use super::{Hold, KindInfo, Order, PLAIN, Readiness};

/// ReplicaSet.
pub static KIND: KindInfo = KindInfo {
    group: "apps",
    kind: "ReplicaSet",
    also: &["extensions"],
    order: Order::Workload,
    pod_spec: Some("/spec/template/spec"),
    strip: &[
        "/metadata/annotations/deployment.kubernetes.io~1revision",
        "/metadata/annotations/deployment.kubernetes.io~1desired-replicas",
        "/metadata/annotations/deployment.kubernetes.io~1max-replicas",
        "/spec/template/metadata/creationTimestamp",
    ],
    ready,
    hold: Some(Hold::Zero("/spec/replicas")),
    ..PLAIN
};

pub(super) fn ready(object: &Value) -> Readiness {
    let number = |at: &str| object.pointer(at).and_then(Value::as_i64);
    super::replicas_ready(
        object,
        number("/spec/replicas").unwrap_or(1),
        number("/status/readyReplicas").unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::cleaned;
    use serde_json::json;

    #[test]
    fn what_its_deployment_wrote_on_it_is_stripped() {
        let set = json!({"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"name":"a","annotations":{
            "deployment.kubernetes.io/revision":"1","deployment.kubernetes.io/desired-replicas":"1","deployment.kubernetes.io/max-replicas":"2"}}});
        assert_eq!(cleaned(&set)["metadata"], json!({"name":"a"}));
        assert_eq!(ready(&json!({"spec":{"replicas":0}})), Readiness::Ready);
    }
}
