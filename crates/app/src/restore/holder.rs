//! A pod that holds a claim while its data is written.
//!
//! Most storage gives a claim its volume only when a pod uses it, and mounts it only where that pod is. So
//! where a claim's bytes cannot be reached otherwise, a pod that does nothing mounts the claim on the node
//! this runs on, for as long as the writing takes. It is gone before anything that uses the claim is applied.

use std::time::Duration;

use serde_json::{Value, json};

use super::execute::{Executor, Run, is_passing};
use super::prepare::{Namespaced, core};
use crate::api::{ApiError, Propagation};
use crate::object::{Object, ObjectKey};

/// How to hold claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The node this runs on.
    pub node: String,
    /// An image whose default command waits.
    pub image: String,
}

impl Holder {
    /// The image Kubernetes itself uses for pods that wait; most nodes have it.
    pub const IMAGE: &'static str = "registry.k8s.io/pause:3.10";
}

/// The pod for a claim.
fn pod(holder: &Holder, claim: &ObjectKey) -> Value {
    // As little as the strictest pod security and the usual quotas let pass.
    let little = json!({"cpu": "10m", "memory": "16Mi"});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": claim.namespace, "name": name(claim),
            "labels": {"app.kubernetes.io/managed-by": "holdfast"},
            "annotations": {"holdfast.dev/holds": claim.name},
        },
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": holder.node},
            "tolerations": [{"operator": "Exists"}],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "hold", "image": holder.image, "imagePullPolicy": "IfNotPresent",
                "resources": {"requests": little, "limits": little},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim.name}}],
        },
    })
}

/// Names of pods end at 253 characters, and a claim's may be as long.
fn name(claim: &ObjectKey) -> String {
    format!("holdfast-{}", claim.name.chars().take(240).collect::<String>())
        .trim_end_matches(['-', '.'])
        .to_owned()
}

/// A claim that is held.
pub(super) struct Held<'a> {
    executor: &'a Executor,
    claim: ObjectKey,
}

impl Run<'_> {
    /// Starts the pod, or takes over the one an interrupted restore left.
    pub(super) async fn hold(&self, holder: &Holder, claim: &ObjectKey) -> Result<Held<'_>, String> {
        let cluster = &self.executor.cluster;
        match cluster.get(&core("Node", "nodes", Namespaced::No), "", &holder.node).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                return Err(format!(
                    "this machine ({}) is no node of the cluster, so no pod can hold the claim here; run holdfast on a node, \
                     or say with --node-name which one this is",
                    holder.node
                ));
            }
            // Whoever may not see nodes may well start pods on them.
            Err(ApiError::Denied { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
        let resource = core("Pod", "pods", Namespaced::Yes);
        match cluster.create(&resource, &Object(pod(holder, claim)), false).await {
            Ok(_) | Err(ApiError::Conflict { .. }) => {
                Ok(Held { executor: self.executor, claim: claim.clone() })
            }
            Err(error) => Err(format!("no pod could be started to hold the claim: {error}")),
        }
    }
}

impl Held<'_> {
    /// The pod, once it runs: then the volume is mounted.
    pub(super) async fn running(&self) -> Option<Value> {
        let pod = self.look().await.ok().flatten()?;
        (pod.str("/status/phase") == "Running").then_some(pod.0)
    }

    /// Why it does not run yet, in the cluster's words.
    pub(super) async fn trouble(&self) -> String {
        let pod = match self.look().await {
            Ok(Some(pod)) => pod,
            Ok(None) => return "the pod that held it is gone".into(),
            Err(error) => return error.to_string(),
        };
        let words = |list: &str, pointer: &str| {
            let list = pod.at(list).and_then(Value::as_array);
            list.into_iter().flatten().find_map(|item| item.pointer(pointer)?.as_str().map(str::to_owned))
        };
        words("/status/conditions", "/message")
            .or_else(|| words("/status/containerStatuses", "/state/waiting/reason"))
            .unwrap_or_else(|| format!("the pod that holds it is {}", pod.str("/status/phase")))
    }

    async fn look(&self) -> Result<Option<Object>, ApiError> {
        let resource = core("Pod", "pods", Namespaced::Yes);
        self.executor.cluster.get(&resource, &self.claim.namespace, &name(&self.claim)).await
    }

    /// Ends the pod, and waits until it is gone: a volume may be mounted on one node only.
    pub(super) async fn release(self) -> Result<(), String> {
        let resource = core("Pod", "pods", Namespaced::Yes);
        let (namespace, name) = (&self.claim.namespace, &name(&self.claim));
        let cluster = &self.executor.cluster;
        let end = || async {
            match cluster.delete(&resource, namespace, name, Propagation::Background, None).await {
                Ok(true) => None,
                Ok(false) => Some(Ok(())),
                Err(error) if is_passing(&error) => None,
                Err(error) => Some(Err(error.to_string())),
            }
        };
        let limit: Duration = self.executor.deadlines.gone;
        self.executor.wait(limit, end).await.unwrap_or_else(|| Err(format!("not gone after {} s", limit.as_secs()))).map_err(|why| {
            format!("Pod {namespace}/{name}, which held it while its data was written, could not be ended ({why}); delete it")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_claim_still_gives_a_pod_a_name() {
        let claim = |name: &str| ObjectKey::new("", "PersistentVolumeClaim", "n", name);
        assert_eq!(name(&claim("data-db-0")), "holdfast-data-db-0");
        let long = name(&claim(&format!("{}-{}", "a".repeat(239), "b".repeat(13))));
        assert_eq!(long, format!("holdfast-{}", "a".repeat(239)));
    }
}
