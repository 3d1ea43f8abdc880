//! Defaults that came later: fields a newer server fills in by itself, and an older one has no word for.
//!
//! An object of an old cluster lacks them, and means by that what the default says. So where one side of a comparison has
//! such a field with its default and the other has none, nothing differs: else every application that moved to a new
//! cluster would look changed, and the one real change would drown.

use serde_json::{Value, json};

use crate::kinds;
use crate::object::Gvk;

/// Does this field, which one of two objects has and the other lacks, say what its absence says?
pub(crate) fn says_nothing(gvk: &Gvk, at: &str, value: &Value) -> bool {
    let at = without_positions(at);
    // A template without metadata has an empty one on some servers.
    if at.ends_with("/metadata") && value.as_object().is_some_and(serde_json::Map::is_empty) {
        return true;
    }
    let pods = kinds::lookup(&gvk.group, &gvk.kind).pod_spec;
    let in_pods = |field: &str| pods.is_some_and(|base| at == format!("{base}{field}"));
    let default = match (gvk.kind.as_str(), at.as_str()) {
        ("Service", "/spec/internalTrafficPolicy") => json!("Cluster"),
        ("Service", "/spec/ipFamilyPolicy") => json!("SingleStack"),
        ("Service", "/spec/allocateLoadBalancerNodePorts") => json!(true),
        ("StatefulSet", "/spec/persistentVolumeClaimRetentionPolicy") => {
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        }
        ("DaemonSet", "/spec/updateStrategy/rollingUpdate/maxSurge") => json!(0),
        ("Job", "/spec/completionMode") => json!("NonIndexed"),
        ("Job", "/spec/suspend") => json!(false),
        ("Job", "/spec/podReplacementPolicy") => json!("TerminatingOrFailed"),
        ("Job", "/spec/manualSelector") => json!(false),
        ("CSIDriver", "/spec/storageCapacity" | "/spec/requiresRepublish" | "/spec/seLinuxMount") => {
            json!(false)
        }
        ("CSIDriver", "/spec/fsGroupPolicy") => json!("ReadWriteOnceWithFSType"),
        ("IngressClass", "/spec/parameters/scope") => json!("Cluster"),
        ("Ingress", "/spec/rules/*/http/paths/*/pathType") => json!("ImplementationSpecific"),
        ("PriorityClass", "/preemptionPolicy") => json!("PreemptLowerPriority"),
        ("PriorityLevelConfiguration", "/spec/limited/lendablePercent") => json!(0),
        _ if in_pods("/preemptionPolicy") => json!("PreemptLowerPriority"),
        _ => return false,
    };
    let known = matches!(gvk.group.as_str(), "" | "apps" | "batch") || gvk.group.ends_with(".k8s.io");
    known && *value == default
}

/// `/spec/ports[name=http]/nodePort` and `/spec/ports/0/nodePort` as `/spec/ports/*/nodePort`.
pub(crate) fn without_positions(at: &str) -> String {
    let mut out = String::new();
    let mut rest = at;
    while let Some(start) = rest.find("[name=") {
        out.push_str(&rest[..start]);
        out.push_str("/*");
        rest = rest[start..].find(']').map_or("", |end| &rest[start + end + 1..]);
    }
    out.push_str(rest);
    out.split('/')
        .map(|step| if !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()) { "*" } else { step })
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_that_came_later_is_no_difference_and_any_other_value_is() {
        let cases = [
            ("v1", "Service", "/spec/internalTrafficPolicy", json!("Cluster"), true),
            ("v1", "Service", "/spec/internalTrafficPolicy", json!("Local"), false),
            ("serving.knative.dev/v1", "Service", "/spec/internalTrafficPolicy", json!("Cluster"), false),
            ("batch/v1", "Job", "/spec/suspend", json!(false), true),
            ("batch/v1", "Job", "/spec/suspend", json!(true), false),
            ("batch/v1", "CronJob", "/spec/jobTemplate/metadata", json!({}), true),
            ("apps/v1", "Deployment", "/spec/template/metadata", json!({"labels": {}}), false),
            (
                "apps/v1",
                "Deployment",
                "/spec/template/spec/preemptionPolicy",
                json!("PreemptLowerPriority"),
                true,
            ),
            (
                "networking.k8s.io/v1",
                "Ingress",
                "/spec/rules/0/http/paths/3/pathType",
                json!("ImplementationSpecific"),
                true,
            ),
        ];
        for (api, kind, at, value, want) in cases {
            assert_eq!(says_nothing(&Gvk::parse(api, kind), at, &value), want, "{api} {kind} {at} {value}");
        }
    }
}
