//! Pod: what runs. One with a controller comes back by itself; a bare one is ours to restore.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN, Readiness};
use crate::clean::remove;
use crate::object::Object;

/// Pod.
pub static KIND: KindInfo = KindInfo {
    kind: "Pod",
    order: Order::Workload,
    pod_spec: Some("/spec"),
    // Admission computes priority from the class and refuses any other number; the scheduler picks the node.
    strip: &["/spec/nodeName", "/spec/priority", "/spec/preemptionPolicy", "/spec/ephemeralContainers"],
    clean: Some(clean),
    keep,
    ready,
    ..PLAIN
};

const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Takes out the token volume that admission put in: it names a Secret of the old cluster, or is put in again.
fn clean(_: &Object, pod: &mut Value) {
    let mut injected: Vec<String> = Vec::new();
    for list in ["containers", "initContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|mount| {
                    let name = mount["name"].as_str().unwrap_or("");
                    let is_injected = mount["mountPath"] == TOKEN_MOUNT && is_token_volume(name);
                    if is_injected {
                        injected.push(name.to_owned());
                    }
                    !is_injected
                });
            }
            super::podspec::drop_if_empty(container, "volumeMounts");
        }
    }
    if let Some(volumes) = pod.pointer_mut("/spec/volumes").and_then(Value::as_array_mut) {
        volumes
            .retain(|volume| !volume["name"].as_str().is_some_and(|name| injected.iter().any(|i| i == name)));
    }
    if pod.pointer("/spec/volumes").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        remove(pod, "/spec/volumes");
    }
}

/// `kube-api-access-x7k2p` since 1.21; `default-token-x7k2p` before.
pub(crate) fn is_token_volume(name: &str) -> bool {
    let random =
        |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.strip_prefix("kube-api-access-").is_some_and(random)
        || name.rsplit_once("-token-").is_some_and(|(_, end)| random(end))
}

fn keep(pod: &Object, _: Lookup<'_>) -> Keep {
    if pod.annotation("kubernetes.io/config.mirror").is_some() {
        return Keep::No("the kubelet mirrors it from a file on its node");
    }
    match pod.str("/status/phase") {
        "Succeeded" | "Failed" if pod.controller().is_none() => {
            Keep::Evidence("it has ended; restoring it would run it again")
        }
        _ => Keep::Yes,
    }
}

fn ready(pod: &Value) -> Readiness {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending");
    let conditions =
        pod.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    match phase {
        "Succeeded" => Readiness::Ready,
        "Failed" => Readiness::Failed(
            pod.pointer("/status/message").and_then(Value::as_str).unwrap_or("it failed").to_owned(),
        ),
        _ if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") => Readiness::Ready,
        phase => {
            let waiting =
                pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
            let reason = waiting.filter_map(|c| c.pointer("/state/waiting/reason")?.as_str()).next();
            Readiness::Waiting(
                reason.map_or_else(|| format!("{phase}, not ready"), |r| format!("{phase}: {r}")),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cleaned, kept, refs};
    use serde_json::json;

    #[test]
    fn everything_a_pod_needs_to_start_is_a_reference() {
        let pod = json!({"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"shop","name":"p"},"spec":{
            "serviceAccountName":"web","priorityClassName":"high","runtimeClassName":"gvisor","imagePullSecrets":[{"name":"reg"}],
            "initContainers":[{"env":[{"name":"A","valueFrom":{"secretKeyRef":{"name":"s1","key":"k"}}}]}],
            "containers":[{"envFrom":[{"secretRef":{"name":"s2","optional":true}}],
                "env":[{"name":"B","valueFrom":{"configMapKeyRef":{"name":"c1","key":"k"}}},{"name":"URL","value":"http://db.data.svc/"}]}],
            "volumes":[{"name":"a","configMap":{"name":"c2"}},{"name":"b","secret":{"secretName":"s3"}},
                {"name":"c","projected":{"sources":[{"configMap":{"name":"c3"}},{"secret":{"name":"s4"}}]}},
                {"name":"d","persistentVolumeClaim":{"claimName":"data"}},
                {"name":"e","csi":{"driver":"secrets-store.csi.k8s.io","nodePublishSecretRef":{"name":"s5"}}}]}});
        assert_eq!(
            refs(&pod),
            [
                "ConfigMap shop/c1 config /spec/containers/0/env/0/valueFrom/configMapKeyRef/name",
                "Secret shop/s2 secret optional /spec/containers/0/envFrom/0/secretRef/name",
                "Secret shop/s1 secret /spec/initContainers/0/env/0/valueFrom/secretKeyRef/name",
                "ConfigMap shop/c2 config /spec/volumes/0/configMap/name",
                "Secret shop/s3 secret /spec/volumes/1/secret/secretName",
                "ConfigMap shop/c3 config /spec/volumes/2/projected/sources/0/configMap/name",
                "Secret shop/s4 secret /spec/volumes/2/projected/sources/1/secret/name",
                "PersistentVolumeClaim shop/data claim /spec/volumes/3/persistentVolumeClaim/claimName",
                "Secret shop/s5 secret /spec/volumes/4/csi/nodePublishSecretRef/name",
                "CSIDriver secrets-store.csi.k8s.io class /spec/volumes/4/csi/driver",
                "Secret shop/reg secret /spec/imagePullSecrets/0/name",
                "ServiceAccount shop/web service_account /spec/serviceAccountName",
                "PriorityClass high class /spec/priorityClassName",
                "RuntimeClass gvisor class /spec/runtimeClassName",
                "Service data/db names optional /spec/containers/0/env/1/value",
            ]
        );
    }

    #[test]
    fn a_restored_pod_is_scheduled_anew_and_gets_a_new_token() {
        let pod = json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"n"},"spec":{"nodeName":"n1","priority":0,
            "containers":[{"name":"a","volumeMounts":[{"name":"data","mountPath":"/d"},{"name":"kube-api-access-abcde","mountPath":TOKEN_MOUNT}]},
                          {"name":"b","volumeMounts":[{"name":"kube-api-access-abcde","mountPath":TOKEN_MOUNT}]}],
            "volumes":[{"name":"data"},{"name":"kube-api-access-abcde","projected":{}}]}});
        assert_eq!(
            cleaned(&pod)["spec"],
            json!({"containers":[{"name":"a","volumeMounts":[{"name":"data","mountPath":"/d"}]},{"name":"b"}],"volumes":[{"name":"data"}]})
        );
    }

    #[test]
    fn which_pods_are_kept() {
        let of = |metadata: Value, phase: &str| {
            kept(&json!({"kind":"Pod","apiVersion":"v1","metadata":metadata,"status":{"phase":phase}}))
        };
        assert_eq!(of(json!({}), "Running"), Keep::Yes);
        assert!(matches!(of(json!({}), "Succeeded"), Keep::Evidence(_)));
        assert_eq!(of(json!({"ownerReferences":[{"controller":true}]}), "Succeeded"), Keep::Yes);
        assert!(matches!(
            of(json!({"annotations":{"kubernetes.io/config.mirror":"x"}}), "Running"),
            Keep::No(_)
        ));
    }
}
