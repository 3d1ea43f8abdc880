//! Webhooks of the target that are asked about our objects, and cannot answer.
//!
//! When a namespace is lost, the webhook configurations that lead into it stay: they belong to the cluster. Until the
//! pods behind them are back they refuse everything they stand before, the objects of their own restore too. A restore
//! tells it beforehand, goes on with what is not asked about, and tries the rest until they answer.

use std::collections::BTreeSet;

use repo::Finding;
use serde_json::Value;

use super::{Action, Step};
use crate::api::{ApiError, Cluster};
use crate::error::Error;
use crate::object::{Object, ObjectKey};

const GROUP: &str = "admissionregistration.k8s.io";

/// Does a write fail because a webhook does not answer? (Not: because it answered no.)
pub(super) fn is_silent(error: &ApiError) -> bool {
    match error {
        ApiError::Invalid { message, .. }
        | ApiError::Other { message, .. }
        | ApiError::Denied { message, .. } => {
            message.contains("failed calling webhook") || message.contains("failed to call webhook")
        }
        _ => false,
    }
}

/// Tells which webhooks of the target must answer and have no Service to do it.
///
/// # Errors
/// If the cluster does not answer.
pub(super) async fn tell_absent(
    cluster: &Cluster,
    steps: &[Step],
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let mut asked = BTreeSet::new();
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let Some(resource) = cluster.resources.find(GROUP, kind) else { continue };
        let live = match cluster.list(resource, None, None).await {
            Ok(live) => live,
            Err(error @ ApiError::Unreachable { .. }) => return Err(error.into()),
            // Whoever may not see them meets them when he writes, and then it is told.
            Err(_) => continue,
        };
        for configuration in &live {
            asked.extend(services(configuration).into_iter().map(|service| (service, configuration.key())));
        }
    }
    let mut told: BTreeSet<(ObjectKey, ObjectKey)> = BTreeSet::new();
    for (service, configuration) in asked {
        let comes = steps.iter().find(|step| step.key == service);
        let is_there = match comes {
            Some(step) => step.action != Action::Create,
            None => !matches!(cluster.get_key(&service).await, Ok(None)),
        };
        if is_there || !told.insert((service.clone(), configuration.clone())) {
            continue;
        }
        let (severity, next) = match comes {
            Some(_) => (repo::Severity::Note, "what it stands before is tried again until it answers"),
            None => (
                repo::Severity::Warning,
                "restore that too, or delete the configuration; until then it refuses what it stands before",
            ),
        };
        findings.push(Finding::new(
            severity,
            "webhook-absent",
            configuration.to_string(),
            format!("it must be asked, and calls {service}, which is not on the target; {next}"),
        ));
    }
    Ok(())
}

/// The Services that must answer for this configuration.
fn services(configuration: &Object) -> Vec<ObjectKey> {
    let hooks = configuration.at("/webhooks").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    hooks
        .iter()
        .filter(|hook| hook.get("failurePolicy").and_then(Value::as_str) != Some("Ignore"))
        .filter_map(|hook| {
            let service = hook.pointer("/clientConfig/service")?;
            let text = |name: &str| service.get(name).and_then(Value::as_str);
            Some(ObjectKey::new("", "Service", text("namespace")?, text("name")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_hooks_that_must_answer_are_waited_for() {
        let service = |name: &str| json!({"service": {"namespace": "op", "name": name}});
        let configuration = Object(json!({"webhooks": [
            {"failurePolicy": "Fail", "clientConfig": service("a")}, {"failurePolicy": "Ignore", "clientConfig": service("b")},
            {"clientConfig": {"url": "https://example.com"}}, {"clientConfig": service("c")}]}));
        let names: Vec<String> = services(&configuration).into_iter().map(|key| key.name).collect();
        assert_eq!(names, ["a", "c"]);
    }
}
