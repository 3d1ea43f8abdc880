//! Whose `status` is restored: where it is state that nobody can observe again.
//!
//! A controller writes into `status` what it sees, so it is written anew, and an old one can lead it astray ("ready"
//! with nothing behind it). Three cases are different. A kind without the status subresource has no such controller:
//! there `status` is a field like any other. A few kinds keep in it what is known nowhere else ([`STATE`]). And whoever
//! made or restores the object may say so.

use serde_json::Value;

use super::only::is_kind;
use crate::api::ResourceType;
use crate::point::StoredObject;

/// Kinds whose status holds what cannot be observed again, and what that is.
const STATE: &[(&str, &str, &str)] = &[
    ("acme.cert-manager.io", "Challenge", "the authorisation it is about"),
    ("acme.cert-manager.io", "Order", "the order at the issuer"),
    ("argoproj.io", "Workflow", "which steps have run"),
    ("cert-manager.io", "CertificateRequest", "the certificate that was issued"),
    ("kafka.strimzi.io", "Kafka", "the cluster id, which is in the data too"),
    ("kafka.strimzi.io", "KafkaNodePool", "the ids of its nodes"),
    ("tekton.dev", "PipelineRun", "which tasks have run"),
    ("tekton.dev", "TaskRun", "which steps have run"),
];

/// Velero's annotation, by which an object says it of itself.
const ANNOTATION: &str = "velero.io/restore-status";

/// API groups that Kubernetes itself serves; kinds of all others with a dot are defined by somebody.
const BUILT_IN: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// What becomes of an object's status.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// Its controller writes it anew.
    Observed,
    /// It is a field of the object.
    Field(Value),
    /// It is written through the status subresource once the object is there.
    Subresource(Value),
}

/// What becomes of the status of `stored`, whose kind the target serves as `resource`; `asked` are the kinds somebody
/// asked for, `*` for all.
pub(super) fn fate(stored: &StoredObject, resource: &ResourceType, asked: &[String]) -> Fate {
    let said = stored.original.open();
    let status = match said.at("/status") {
        Some(status) if !status.is_null() && *status != Value::Object(serde_json::Map::new()) => status,
        _ => return Fate::Observed,
    };
    let has_subresource = resource.subresources.iter().any(|name| name == "status");
    let group = resource.group.as_str();
    if group.contains('.') && !BUILT_IN.contains(&group) && !has_subresource {
        return Fate::Field(status.clone());
    }
    let wanted = match said.annotation(ANNOTATION) {
        Some(said) => said == "true",
        None => {
            STATE.iter().any(|(of, kind, _)| *of == group && *kind == resource.kind)
                || asked.iter().any(|kind| kind == "*" || is_kind(stored, kind))
        }
    };
    if wanted && has_subresource { Fate::Subresource(status.clone()) } else { Fate::Observed }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::restore::prepare::tests::stored;

    #[test]
    fn status_is_restored_where_nobody_can_observe_it_again() {
        let object = |api: &str, kind: &str, said: Value| {
            stored(
                json!({"apiVersion": api, "kind": kind, "metadata": {"name": "a", "namespace": "n", "annotations": said}, "status": {"x": 1}}),
            )
        };
        let none = json!({});
        let cases = [
            ("a controller's", object("example.com/v1", "Thing", none.clone()), true, vec![], Fate::Observed),
            (
                "a field like any other",
                object("example.com/v1", "Thing", none.clone()),
                false,
                vec![],
                Fate::Field(json!({"x": 1})),
            ),
            (
                "known to be state",
                object("kafka.strimzi.io/v1beta2", "Kafka", none.clone()),
                true,
                vec![],
                Fate::Subresource(json!({"x": 1})),
            ),
            (
                "said by the object",
                object("example.com/v1", "Thing", json!({ANNOTATION: "true"})),
                true,
                vec![],
                Fate::Subresource(json!({"x": 1})),
            ),
            (
                "denied by the object",
                object("kafka.strimzi.io/v1", "Kafka", json!({ANNOTATION: "false"})),
                true,
                vec!["*"],
                Fate::Observed,
            ),
            (
                "asked for",
                object("example.com/v1", "Thing", none.clone()),
                true,
                vec!["thing"],
                Fate::Subresource(json!({"x": 1})),
            ),
            (
                "asked for another",
                object("example.com/v1", "Thing", none.clone()),
                true,
                vec!["other"],
                Fate::Observed,
            ),
            (
                "asked for all",
                object("apps/v1", "Deployment", none.clone()),
                true,
                vec!["*"],
                Fate::Subresource(json!({"x": 1})),
            ),
            (
                "built in, without a subresource",
                object("networking.k8s.io/v1", "IngressClass", none),
                false,
                vec![],
                Fate::Observed,
            ),
        ];
        for (story, stored, subresource, asked, want) in cases {
            let mut resource = stored.resource.clone();
            resource.subresources = if subresource { vec!["status".into()] } else { Vec::new() };
            let asked: Vec<String> = asked.into_iter().map(str::to_owned).collect();
            assert_eq!(fate(&stored, &resource, &asked), want, "{story}");
        }
    }
}
