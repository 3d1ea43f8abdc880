//! ReplicationController: the ReplicaSet of old.

use super::{Hold, KindInfo, Order, PLAIN};

/// ReplicationController.
pub static KIND: KindInfo = KindInfo {
    kind: "ReplicationController",
    order: Order::Workload,
    pod_spec: Some("/spec/template/spec"),
    strip: &["/spec/template/metadata/creationTimestamp"],
    ready: super::replica_set::ready,
    hold: Some(Hold::Zero("/spec/replicas")),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn its_pods_references_are_its_own() {
        let rc = json!({"apiVersion":"v1","kind":"ReplicationController","metadata":{"namespace":"n","name":"a"},
            "spec":{"template":{"spec":{"volumes":[{"secret":{"secretName":"s"}}]}}}});
        assert_eq!(refs(&rc), ["Secret n/s secret /spec/template/spec/volumes/0/secret/secretName"]);
    }
}
