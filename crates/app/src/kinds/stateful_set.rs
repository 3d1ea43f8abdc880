//! StatefulSet: pods with names and claims of their own. It makes its claims, so they are references by name.

use serde_json::Value;

use super::{Hold, KindInfo, Order, PLAIN, Readiness, To, rule};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::Found;

/// StatefulSet.
pub static KIND: KindInfo = KindInfo {
    group: "apps",
    kind: "StatefulSet",
    order: Order::Workload,
    pod_spec: Some("/spec/template/spec"),
    refs: &[
        rule("/spec/serviceName", To::Here("", "Service"), RefKind::Routes),
        rule(
            "/spec/volumeClaimTemplates/*/spec/storageClassName",
            To::Cluster("storage.k8s.io", "StorageClass"),
            RefKind::Class,
        ),
        rule(
            "/spec/volumeClaimTemplates/*/spec/volumeAttributesClassName",
            To::Cluster("storage.k8s.io", "VolumeAttributesClass"),
            RefKind::Class,
        ),
    ],
    find: Some(find),
    strip: &[
        "/spec/template/metadata/creationTimestamp",
        "/spec/volumeClaimTemplates/*/metadata/creationTimestamp",
        "/spec/volumeClaimTemplates/*/status",
    ],
    ready,
    hold: Some(Hold::Zero("/spec/replicas")),
    ..PLAIN
};

/// `data` of `db` with 2 replicas is the claims `data-db-0` and `data-db-1`. One that was never made (a pod
/// that never started) is no loss: the StatefulSet makes it.
fn find(set: &Object, found: &mut Vec<Found>) {
    let start = set.at("/spec/ordinals/start").and_then(Value::as_u64).unwrap_or(0);
    let replicas = set.at("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let templates = set.at("/spec/volumeClaimTemplates").and_then(Value::as_array);
    for (index, template) in templates.into_iter().flatten().enumerate() {
        let name = template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
        for ordinal in start..start + replicas {
            let claim = ObjectKey::new(
                "",
                "PersistentVolumeClaim",
                set.namespace(),
                &format!("{name}-{}-{ordinal}", set.name()),
            );
            found.push(
                Found::object(
                    claim,
                    RefKind::Claim,
                    format!("/spec/volumeClaimTemplates/{index}/metadata/name"),
                )
                .optional(),
            );
        }
    }
}

fn ready(object: &Value) -> Readiness {
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
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn its_claims_are_known_by_name() {
        let db = json!({"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"namespace":"shop","name":"db"},"spec":{
            "replicas":2,"serviceName":"db","volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"storageClassName":"fast"}}]}});
        assert_eq!(
            refs(&db),
            [
                "Service shop/db routes /spec/serviceName",
                "StorageClass fast class /spec/volumeClaimTemplates/0/spec/storageClassName",
                "PersistentVolumeClaim shop/data-db-0 claim optional /spec/volumeClaimTemplates/0/metadata/name",
                "PersistentVolumeClaim shop/data-db-1 claim optional /spec/volumeClaimTemplates/0/metadata/name",
            ]
        );
    }

    #[test]
    fn it_is_ready_when_all_its_pods_are() {
        let of = |ready: i64| super::ready(&json!({"spec":{"replicas":2},"status":{"readyReplicas":ready}}));
        assert_eq!(of(2), Readiness::Ready);
        assert_eq!(of(1), Readiness::Waiting("1 of 2 replicas are ready".into()));
    }
}
