//! Deployment: pods by way of ReplicaSets, which it makes itself.

use serde_json::Value;

use super::{Hold, KindInfo, Order, PLAIN, Readiness};

/// Deployment.
pub static KIND: KindInfo = KindInfo {
    group: "apps",
    kind: "Deployment",
    also: &["extensions"],
    order: Order::Workload,
    pod_spec: Some("/spec/template/spec"),
    strip: &[
        "/metadata/annotations/deployment.kubernetes.io~1revision",
        "/spec/template/metadata/creationTimestamp",
    ],
    ready,
    hold: Some(Hold::Zero("/spec/replicas")),
    ..PLAIN
};

fn ready(object: &Value) -> Readiness {
    let number = |at: &str| object.pointer(at).and_then(Value::as_i64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    let conditions =
        object.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let failed = conditions.iter().find(|c| c["type"] == "Progressing" && c["status"] == "False");
    if let Some(condition) = failed {
        return Readiness::Failed(condition["message"].as_str().unwrap_or("it makes no progress").to_owned());
    }
    if number("/status/observedGeneration").unwrap_or(0) < number("/metadata/generation").unwrap_or(0) {
        return Readiness::Waiting("its controller has not seen it yet".into());
    }
    let updated = number("/status/updatedReplicas").unwrap_or(0);
    let available = number("/status/availableReplicas").unwrap_or(0);
    if updated.min(available) < wanted {
        return Readiness::Waiting(format!("{} of {wanted} replicas are available", updated.min(available)));
    }
    Readiness::Ready
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cleaned, refs};
    use serde_json::json;

    #[test]
    fn a_deployment_is_ready_when_its_replicas_are() {
        let of = |status: Value| {
            ready(&json!({"metadata":{"generation":2},"spec":{"replicas":2},"status":status}))
        };
        assert_eq!(
            of(json!({"observedGeneration":2,"updatedReplicas":2,"availableReplicas":2})),
            Readiness::Ready
        );
        assert_eq!(
            of(json!({"observedGeneration":2,"updatedReplicas":2,"availableReplicas":1})),
            Readiness::Waiting("1 of 2 replicas are available".into())
        );
        assert_eq!(
            of(json!({"observedGeneration":1,"updatedReplicas":2,"availableReplicas":2})),
            Readiness::Waiting("its controller has not seen it yet".into())
        );
        assert!(matches!(
            of(json!({"conditions":[{"type":"Progressing","status":"False","message":"deadline"}]})),
            Readiness::Failed(_)
        ));
    }

    #[test]
    fn its_template_is_read_and_its_revision_is_the_clusters() {
        let web = json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"namespace":"shop","name":"web",
            "annotations":{"deployment.kubernetes.io/revision":"3","team":"x"}},
            "spec":{"template":{"spec":{"serviceAccountName":"web","containers":[{"envFrom":[{"configMapRef":{"name":"c"}}]}]}}}});
        assert_eq!(
            refs(&web),
            [
                "ConfigMap shop/c config /spec/template/spec/containers/0/envFrom/0/configMapRef/name",
                "ServiceAccount shop/web service_account /spec/template/spec/serviceAccountName"
            ]
        );
        assert_eq!(cleaned(&web)["metadata"]["annotations"], json!({"team":"x"}));
    }
}
