//! DaemonSet: a pod on every node that fits. How many that is, the target decides.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN, Readiness};

/// DaemonSet.
pub static KIND: KindInfo = KindInfo {
    group: "apps",
    kind: "DaemonSet",
    also: &["extensions"],
    order: Order::Workload,
    pod_spec: Some("/spec/template/spec"),
    strip: &[
        "/metadata/annotations/deprecated.daemonset.template.generation",
        "/spec/template/metadata/creationTimestamp",
        "/spec/templateGeneration",
    ],
    ready,
    ..PLAIN
};

fn ready(object: &Value) -> Readiness {
    let number = |at: &str| object.pointer(at).and_then(Value::as_i64);
    match number("/status/desiredNumberScheduled") {
        Some(wanted) => super::replicas_ready(object, wanted, number("/status/numberReady").unwrap_or(0)),
        None => Readiness::Waiting("its controller has not seen it yet".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::cleaned;
    use serde_json::json;

    #[test]
    fn it_is_ready_on_the_nodes_the_target_chose() {
        assert_eq!(ready(&json!({"status":{"desiredNumberScheduled":0}})), Readiness::Ready);
        assert_eq!(ready(&json!({"status":{"desiredNumberScheduled":3,"numberReady":3}})), Readiness::Ready);
        assert!(matches!(
            ready(&json!({"status":{"desiredNumberScheduled":3,"numberReady":1}})),
            Readiness::Waiting(_)
        ));
        assert!(matches!(ready(&json!({})), Readiness::Waiting(_)));
    }

    #[test]
    fn the_controllers_counter_is_stripped() {
        let agent = json!({"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"a","namespace":"n",
            "annotations":{"deprecated.daemonset.template.generation":"4"}},"spec":{"template":{"metadata":{"creationTimestamp":null}}}});
        assert_eq!(cleaned(&agent)["metadata"], json!({"name":"a","namespace":"n"}));
        assert_eq!(cleaned(&agent)["spec"], json!({"template":{"metadata":{}}}));
    }
}
