//! Objects of built-in kinds in another version of their kind, as far as the meaning stays the same.
//!
//! Two tables: versions whose fields are the same, and moves of fields that are known. Each move says no where a
//! value has no place in the other version: half a setting is worse than none that is told.

use apiserver::autoscaler::{behavior_of_note, metric_from_old, metric_to_old};
use serde_json::{Map, Value, json};

use super::versions::set_version;
use crate::api::ResourceType;
use crate::object::Gvk;

/// Versions of one kind with the same fields and the same meaning; newest first.
const SAME: &[(&str, &str, &[&str])] = &[
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", &["v1", "v1beta1", "v1alpha1"]),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", &["v1", "v1beta1", "v1alpha1"]),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", &["v1", "v1beta1", "v1alpha1"]),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", &["v1", "v1beta1", "v1alpha1"]),
    ("apiregistration.k8s.io", "APIService", &["v1", "v1beta1"]),
    ("apps", "ControllerRevision", &["v1", "v1beta2", "v1beta1"]),
    ("apps", "DaemonSet", &["v1", "v1beta2"]),
    ("apps", "Deployment", &["v1", "v1beta2", "v1beta1"]),
    ("apps", "ReplicaSet", &["v1", "v1beta2"]),
    ("apps", "StatefulSet", &["v1", "v1beta2", "v1beta1"]),
    ("autoscaling", "HorizontalPodAutoscaler", &["v2", "v2beta2"]),
    ("batch", "CronJob", &["v1", "v1beta1"]),
    ("coordination.k8s.io", "Lease", &["v1", "v1beta1"]),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", &["v1", "v1beta3", "v1beta2", "v1beta1"]),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", &["v1", "v1beta3"]),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", &["v1beta2", "v1beta1"]),
    ("gateway.networking.k8s.io", "BackendTLSPolicy", &["v1", "v1alpha3"]),
    ("gateway.networking.k8s.io", "GRPCRoute", &["v1", "v1alpha2"]),
    ("gateway.networking.k8s.io", "Gateway", &["v1", "v1beta1"]),
    ("gateway.networking.k8s.io", "GatewayClass", &["v1", "v1beta1"]),
    ("gateway.networking.k8s.io", "HTTPRoute", &["v1", "v1beta1"]),
    ("gateway.networking.k8s.io", "ReferenceGrant", &["v1", "v1beta1", "v1alpha2"]),
    ("networking.k8s.io", "IngressClass", &["v1", "v1beta1"]),
    ("networking.k8s.io", "NetworkPolicy", &["v1"]),
    ("node.k8s.io", "RuntimeClass", &["v1", "v1beta1"]),
    ("networking.k8s.io", "Ingress", &["v1beta1"]),
    ("policy", "PodSecurityPolicy", &["v1beta1"]),
    ("policy", "PodDisruptionBudget", &["v1", "v1beta1"]),
    ("rbac.authorization.k8s.io", "ClusterRole", &["v1", "v1beta1"]),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", &["v1", "v1beta1"]),
    ("rbac.authorization.k8s.io", "Role", &["v1", "v1beta1"]),
    ("rbac.authorization.k8s.io", "RoleBinding", &["v1", "v1beta1"]),
    ("scheduling.k8s.io", "PriorityClass", &["v1", "v1beta1"]),
    ("snapshot.storage.k8s.io", "VolumeSnapshot", &["v1", "v1beta1"]),
    ("snapshot.storage.k8s.io", "VolumeSnapshotClass", &["v1", "v1beta1"]),
    ("snapshot.storage.k8s.io", "VolumeSnapshotContent", &["v1", "v1beta1"]),
    ("storage.k8s.io", "CSIDriver", &["v1", "v1beta1"]),
    ("storage.k8s.io", "StorageClass", &["v1", "v1beta1"]),
    ("storage.k8s.io", "VolumeAttributesClass", &["v1", "v1beta1", "v1alpha1"]),
];

/// One known move: of these kinds, from these versions to those; false if a value has no place there.
struct Move {
    kinds: &'static [&'static str],
    from: &'static [&'static str],
    to: &'static [&'static str],
    done: fn(&mut Value) -> bool,
}

const MOVES: &[Move] = &[
    Move { kinds: &["Ingress"], from: &["v1beta1"], to: &["v1"], done: ingress_to_v1 },
    Move { kinds: &["Ingress"], from: &["v1"], to: &["v1beta1"], done: ingress_to_v1beta1 },
    Move { kinds: &[AUTOSCALER], from: &["v1"], to: &["v2", "v2beta2"], done: autoscaler_from_v1 },
    Move { kinds: &[AUTOSCALER], from: &["v2beta1"], to: &["v2", "v2beta2"], done: autoscaler_from_v2beta1 },
    Move { kinds: &[AUTOSCALER], from: &["v2", "v2beta2"], to: &["v2beta1"], done: autoscaler_to_v2beta1 },
    Move { kinds: &[AUTOSCALER], from: &["v2", "v2beta2"], to: &["v1"], done: autoscaler_to_v1 },
    Move {
        kinds: &["PriorityLevelConfiguration"],
        from: &["v1beta1", "v1beta2"],
        to: &["v1beta3", "v1"],
        done: |level| renamed(level, "assuredConcurrencyShares", "nominalConcurrencyShares"),
    },
    Move {
        kinds: &["PriorityLevelConfiguration"],
        from: &["v1beta3", "v1"],
        to: &["v1beta1", "v1beta2"],
        done: priority_level_to_v1beta2,
    },
    Move { kinds: &["EndpointSlice"], from: &["v1beta1"], to: &["v1"], done: slice_to_v1 },
    Move { kinds: &["EndpointSlice"], from: &["v1"], to: &["v1beta1"], done: slice_to_v1beta1 },
    Move { kinds: &["CustomResourceDefinition"], from: &["v1beta1"], to: &["v1"], done: definition_to_v1 },
    Move {
        kinds: &["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"],
        from: &["v1beta1"],
        to: &["v1"],
        done: webhooks_to_v1,
    },
    Move {
        kinds: &["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"],
        from: &["v1"],
        to: &["v1beta1"],
        // Match conditions would be dropped, and the webhook asked about what it must not see.
        done: |hooks| {
            !each(hooks, "/webhooks", |hook| hook.get("matchConditions").is_none()).contains(&false)
        },
    },
];

const AUTOSCALER: &str = "HorizontalPodAutoscaler";

/// The object in another version of its kind, if that is safe.
pub(super) fn convert(object: &Value, from: &Gvk, to: &ResourceType) -> Option<Value> {
    let mut converted = object.clone();
    set_version(&mut converted, to);
    match (to.kind.as_str(), from.version.as_str(), to.version.as_str()) {
        // The one thing that changed its meaning: no selector term was nothing in v1beta1 and is everything in v1.
        ("PodDisruptionBudget", ..) if empty_selector(object) => return None,
        ("CronJob", "v1", "v1beta1") if object.pointer("/spec/timeZone").is_some() => return None,
        _ => {}
    }
    let (kind, was, will) = (to.kind.as_str(), from.version.as_str(), to.version.as_str());
    let known =
        MOVES.iter().find(|m| m.kinds.contains(&kind) && m.from.contains(&was) && m.to.contains(&will));
    if let Some(known) = known {
        return (known.done)(&mut converted).then_some(converted);
    }
    let same = SAME.iter().any(|(group, of, versions)| {
        *group == to.group
            && *of == kind
            && versions.contains(&will)
            && (versions.contains(&was) || from.group == "extensions")
    });
    if to.group == "apps" && will == "v1" {
        workload_to_v1(&mut converted);
    }
    same.then_some(converted)
}

/// What the old workload kinds had beyond the new: a rollback to be done once, a counter, and a selector that was taken
/// from the template's labels.
fn workload_to_v1(workload: &mut Value) {
    let labels = workload.pointer("/spec/template/metadata/labels").cloned();
    let Some(Value::Object(spec)) = workload.get_mut("spec") else { return };
    spec.shift_remove("rollbackTo");
    spec.shift_remove("templateGeneration");
    if let (None, Some(labels)) = (spec.get("selector"), labels) {
        spec.insert("selector".into(), json!({ "matchLabels": labels }));
    }
}

/// Does something with every element of a list, and tells what it said.
fn each(value: &mut Value, list: &str, mut done: impl FnMut(&mut Map<String, Value>) -> bool) -> Vec<bool> {
    let items = value.pointer_mut(list).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut).map(&mut done).collect()
}

fn renamed(level: &mut Value, old: &str, new: &str) -> bool {
    if let Some(Value::Object(limited)) = level.pointer_mut("/spec/limited")
        && let Some(shares) = limited.shift_remove(old)
    {
        limited.insert(new.into(), shares);
    }
    true
}

fn priority_level_to_v1beta2(level: &mut Value) -> bool {
    let newer = ["/spec/exempt", "/spec/limited/lendablePercent", "/spec/limited/borrowingLimitPercent"];
    // What is lent by default is nothing, so zero loses nothing.
    let says = |at: &&str| level.pointer(at).is_some_and(|value| value.as_u64() != Some(0));
    if newer.iter().any(says) {
        return false;
    }
    if let Some(Value::Object(limited)) = level.pointer_mut("/spec/limited") {
        limited.shift_remove("lendablePercent");
    }
    renamed(level, "nominalConcurrencyShares", "assuredConcurrencyShares")
}

const NODE_LABEL: &str = "kubernetes.io/hostname";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

fn slice_to_v1(slice: &mut Value) -> bool {
    each(slice, "/endpoints", |endpoint| {
        let Some(Value::Object(mut topology)) = endpoint.shift_remove("topology") else { return true };
        for (label, field) in [(NODE_LABEL, "nodeName"), (ZONE_LABEL, "zone")] {
            if let Some(value) = topology.shift_remove(label) {
                endpoint.entry(field).or_insert(value);
            }
        }
        if !topology.is_empty() {
            endpoint.insert("deprecatedTopology".into(), topology.into());
        }
        true
    });
    true
}

fn slice_to_v1beta1(slice: &mut Value) -> bool {
    each(slice, "/endpoints", |endpoint| {
        let mut topology = match endpoint.shift_remove("deprecatedTopology") {
            Some(Value::Object(topology)) => topology,
            _ => Map::new(),
        };
        if let Some(node) = endpoint.get("nodeName").cloned() {
            topology.insert(NODE_LABEL.into(), node);
        }
        if let Some(zone) = endpoint.shift_remove("zone") {
            topology.insert(ZONE_LABEL.into(), zone);
        }
        if !topology.is_empty() {
            endpoint.insert("topology".into(), topology.into());
        }
        true
    });
    true
}

/// v1 wants a webhook to say that a dry run has no effect; one that did not say so cannot be carried over.
fn webhooks_to_v1(hooks: &mut Value) -> bool {
    !each(hooks, "/webhooks", |hook| {
        // What v1beta1 meant where nothing is said, which v1 means otherwise.
        for (field, meant) in [
            ("failurePolicy", json!("Ignore")),
            ("matchPolicy", json!("Exact")),
            ("timeoutSeconds", json!(30)),
        ] {
            hook.entry(field).or_insert(meant);
        }
        hook.entry("admissionReviewVersions").or_insert_with(|| json!(["v1beta1"]));
        matches!(hook.get("sideEffects").and_then(Value::as_str), Some("None" | "NoneOnDryRun"))
    })
    .contains(&false)
}

fn definition_to_v1(definition: &mut Value) -> bool {
    let Some(Value::Object(spec)) = definition.get_mut("spec") else { return false };
    // Unless it says otherwise, v1beta1 keeps every field it does not know.
    let keeps_all = spec.shift_remove("preserveUnknownFields") != Some(Value::Bool(false));
    let schema = spec.shift_remove("validation");
    let columns = spec.shift_remove("additionalPrinterColumns");
    let subresources = spec.shift_remove("subresources");
    let version = spec.shift_remove("version");
    if !spec.contains_key("versions")
        && let Some(name) = version
    {
        spec.insert("versions".into(), json!([{"name": name, "served": true, "storage": true}]));
    }
    if let Some(Value::Object(conversion)) = spec.get_mut("conversion") {
        let client = conversion.shift_remove("webhookClientConfig");
        let reviews = conversion.shift_remove("conversionReviewVersions");
        if let Some(client) = client {
            let reviews = reviews.unwrap_or_else(|| json!(["v1beta1"]));
            conversion.insert(
                "webhook".into(),
                json!({"clientConfig": client, "conversionReviewVersions": reviews}),
            );
        }
    }
    let Some(Value::Array(versions)) = spec.get_mut("versions") else { return false };
    for version in versions.iter_mut().filter_map(Value::as_object_mut) {
        let for_all =
            [("schema", &schema), ("additionalPrinterColumns", &columns), ("subresources", &subresources)];
        for (field, value) in for_all {
            if let Some(value) = value.as_ref().filter(|value| !value.is_null()) {
                version.entry(field).or_insert_with(|| value.clone());
            }
        }
        let schema = version.entry("schema").or_insert_with(
            || json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}),
        );
        if keeps_all && let Some(schema) = schema.get_mut("openAPIV3Schema") {
            keep_unknown(schema);
        }
        for column in
            version.get_mut("additionalPrinterColumns").and_then(Value::as_array_mut).into_iter().flatten()
        {
            if let Some(column) = column.as_object_mut()
                && let Some(path) = column.shift_remove("JSONPath")
            {
                column.insert("jsonPath".into(), path);
            }
        }
    }
    !versions.is_empty()
}

/// Marks every object of a schema as one whose unknown fields stay.
fn keep_unknown(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let is_object = fields.contains_key("properties")
        || fields.get("type").and_then(Value::as_str) == Some("object")
            && !fields.contains_key("additionalProperties");
    if is_object {
        fields.entry("type").or_insert_with(|| "object".into());
        fields.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(keep_unknown);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(below) {
            keep_unknown(below);
        }
    }
}

const CPU: &str = "targetCPUUtilizationPercentage";
/// Where v1 keeps the metrics it has no fields for, in the words of v2beta1.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

fn autoscaler_from_v1(autoscaler: &mut Value) -> bool {
    let (mut more, mut behavior) = (Vec::new(), None);
    if let Some(Value::Object(annotations)) = autoscaler.pointer_mut("/metadata/annotations") {
        if let Some(text) = annotations.shift_remove(BEHAVIOR) {
            match text.as_str().and_then(behavior_of_note) {
                Some(said) => behavior = Some(said),
                None => return false,
            }
        }
        annotations.shift_remove(CONDITIONS);
        annotations.shift_remove(CURRENT);
        if let Some(text) = annotations.shift_remove(METRICS) {
            match text.as_str().and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok()) {
                Some(metrics) => more = metrics,
                None => return false,
            }
        }
        if annotations.is_empty()
            && let Some(Value::Object(metadata)) = autoscaler.get_mut("metadata")
        {
            metadata.shift_remove("annotations");
        }
    }
    let Some(Value::Object(spec)) = autoscaler.get_mut("spec") else { return false };
    let mut metrics: Vec<Value> = Vec::new();
    if let Some(percent) = spec.shift_remove(CPU) {
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}));
    }
    for metric in more {
        match metric_from_old(&metric) {
            Some(metric) => metrics.push(metric),
            None => return false,
        }
    }
    if !metrics.is_empty() {
        spec.insert("metrics".into(), metrics.into());
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".into(), behavior);
    }
    true
}

fn autoscaler_to_v1(autoscaler: &mut Value) -> bool {
    let Some(Value::Object(spec)) = autoscaler.get_mut("spec") else { return false };
    if spec.contains_key("behavior") {
        return false;
    }
    let metrics = match spec.shift_remove("metrics") {
        Some(Value::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    match metrics.as_slice() {
        [] => true,
        [one] => {
            let percent = one.pointer("/resource/target/averageUtilization").cloned();
            let is_cpu = one.pointer("/resource/name").and_then(Value::as_str) == Some("cpu");
            match percent.filter(|_| is_cpu) {
                Some(percent) => {
                    spec.insert(CPU.into(), percent);
                    true
                }
                None => false,
            }
        }
        _ => false,
    }
}

fn autoscaler_from_v2beta1(autoscaler: &mut Value) -> bool {
    metrics(autoscaler, metric_from_old)
}

fn autoscaler_to_v2beta1(autoscaler: &mut Value) -> bool {
    autoscaler.pointer("/spec/behavior").is_none() && metrics(autoscaler, metric_to_old)
}

fn metrics(autoscaler: &mut Value, one: fn(&Value) -> Option<Value>) -> bool {
    let Some(Value::Array(metrics)) = autoscaler.pointer_mut("/spec/metrics") else { return true };
    metrics.iter_mut().all(|metric| match one(metric) {
        Some(new) => {
            *metric = new;
            true
        }
        None => false,
    })
}

fn empty_selector(object: &Value) -> bool {
    let selector = object.pointer("/spec/selector").and_then(Value::as_object);
    selector.is_none_or(|s| {
        s.values().all(|terms| {
            terms.as_object().is_none_or(serde_json::Map::is_empty)
                && terms.as_array().is_none_or(Vec::is_empty)
        })
    })
}

fn backends(ingress: &mut Value, each: &mut dyn FnMut(&mut Value) -> bool) -> bool {
    let Some(Value::Array(rules)) = ingress.pointer_mut("/spec/rules") else { return true };
    rules.iter_mut().all(|rule| match rule.pointer_mut("/http/paths") {
        Some(Value::Array(paths)) => paths.iter_mut().all(&mut *each),
        _ => true,
    })
}

fn ingress_to_v1(ingress: &mut Value) -> bool {
    let backend = |old: &Value| -> Option<Value> {
        if let Some(resource) = old.get("resource") {
            return Some(json!({ "resource": resource }));
        }
        let port = match old.get("servicePort")? {
            Value::String(name) => json!({ "name": name }),
            number => json!({ "number": number }),
        };
        Some(json!({"service": {"name": old.get("serviceName")?, "port": port}}))
    };
    let done = backends(ingress, &mut |path| {
        let Some(new) = path.get("backend").and_then(backend) else { return false };
        let Value::Object(fields) = path else { return false };
        fields.insert("backend".into(), new);
        fields.entry("pathType").or_insert_with(|| "ImplementationSpecific".into());
        true
    });
    if let Some(Value::Object(spec)) = ingress.get_mut("spec")
        && let Some(old) = spec.shift_remove("backend")
    {
        let Some(new) = backend(&old) else { return false };
        spec.insert("defaultBackend".into(), new);
    }
    done
}

fn ingress_to_v1beta1(ingress: &mut Value) -> bool {
    let backend = |new: &Value| -> Option<Value> {
        if let Some(resource) = new.get("resource") {
            return Some(json!({ "resource": resource }));
        }
        let service = new.get("service")?;
        let port = service.get("port")?;
        let port = port.get("number").or_else(|| port.get("name"))?;
        Some(json!({"serviceName": service.get("name")?, "servicePort": port}))
    };
    let done = backends(ingress, &mut |path| {
        let Some(old) = path.get("backend").and_then(backend) else { return false };
        let Value::Object(fields) = path else { return false };
        fields.insert("backend".into(), old);
        true
    });
    if let Some(Value::Object(spec)) = ingress.get_mut("spec")
        && let Some(new) = spec.shift_remove("defaultBackend")
    {
        let Some(old) = backend(&new) else { return false };
        spec.insert("backend".into(), old);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(story: &str, from: &str, to: &str, object: Value, want: Option<Value>) {
        let (gvk, to) = (Gvk::parse(from, object["kind"].as_str().unwrap()), Gvk::parse(to, ""));
        let resource = ResourceType {
            group: to.group,
            version: to.version,
            kind: gvk.kind.clone(),
            ..Default::default()
        };
        let got = convert(&object, &gvk, &resource).map(|mut value| {
            value.as_object_mut().unwrap().retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind"));
            value
        });
        assert_eq!(got, want, "{story}");
    }

    #[test]
    fn autoscalers_go_through_all_their_versions_and_back() {
        let of = |spec: Value| json!({"kind": AUTOSCALER, "spec": spec});
        let spec = |spec: Value| Some(json!({ "spec": spec }));
        let old = json!({"metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 80}},
            {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}},
            {"type": "Pods", "pods": {"metricName": "requests", "targetAverageValue": "1k", "selector": {"matchLabels": {"a": "b"}}}},
            {"type": "Object", "object": {"metricName": "hits", "targetValue": "10", "target": {"kind": "Ingress", "name": "web"}}},
            {"type": "External", "external": {"metricName": "queue", "metricSelector": {"matchLabels": {"q": "w"}}, "targetAverageValue": "30"}}]});
        let new = json!({"metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
            {"type": "Pods", "pods": {"metric": {"name": "requests", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "1k"}}},
            {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Ingress", "name": "web"}, "target": {"type": "Value", "value": "10"}}},
            {"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"q": "w"}}}, "target": {"type": "AverageValue", "averageValue": "30"}}}]});
        check("up", "autoscaling/v2beta1", "autoscaling/v2", of(old.clone()), spec(new.clone()));
        check("down", "autoscaling/v2", "autoscaling/v2beta1", of(new.clone()), spec(old.clone()));
        check("the same fields", "autoscaling/v2beta2", "autoscaling/v2", of(new.clone()), spec(new.clone()));
        let mut held = new.clone();
        held["behavior"] = json!({"scaleDown": {}});
        check("behaviour has no place", "autoscaling/v2", "autoscaling/v2beta1", of(held), None);
        let cpu = json!({"metrics": [new["metrics"][0]]});
        check("one figure", "autoscaling/v2", "autoscaling/v1", of(cpu.clone()), spec(json!({CPU: 80})));
        check("one figure, up", "autoscaling/v1", "autoscaling/v2", of(json!({CPU: 80})), spec(cpu));
        check("more figures", "autoscaling/v2", "autoscaling/v1", of(new.clone()), None);
        let annotated = json!({"kind": AUTOSCALER, "metadata": {"annotations": {METRICS: old["metrics"].to_string(), CONDITIONS: "[]"}}, "spec": {}});
        check(
            "figures in an annotation",
            "autoscaling/v1",
            "autoscaling/v2",
            annotated,
            Some(json!({"metadata": {}, "spec": new})),
        );
        let behaved = |text: &str| json!({"kind": AUTOSCALER, "metadata": {"annotations": {BEHAVIOR: text}}, "spec": {}});
        check(
            "behaviour in one, in the words of the server's inside",
            "autoscaling/v1",
            "autoscaling/v2",
            behaved(
                r#"{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":60,"Policies":[{"Type":"Pods","Value":4}]}}"#,
            ),
            Some(
                json!({"metadata": {}, "spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60, "policies": [{"type": "Pods", "value": 4}]}}}}),
            ),
        );
        check("nonsense in one", "autoscaling/v1", "autoscaling/v2", behaved("?"), None);
    }

    #[test]
    fn old_workloads_definitions_and_webhooks_come_onto_a_new_cluster() {
        let labels = json!({"metadata": {"labels": {"a": "b"}}});
        check(
            "a workload of long ago",
            "extensions/v1beta1",
            "apps/v1",
            json!({"kind": "Deployment", "spec": {"rollbackTo": {"revision": 1}, "template": labels}}),
            Some(json!({"spec": {"template": labels, "selector": {"matchLabels": {"a": "b"}}}})),
        );
        let old = json!({"kind": "CustomResourceDefinition", "spec": {"group": "g", "version": "v1", "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "A", "JSONPath": ".a"}], "validation": {"openAPIV3Schema": {"properties": {"spec": {"type": "object"}}}},
            "conversion": {"strategy": "Webhook", "webhookClientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]}}});
        let kept = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let schema = json!({"properties": {"spec": kept}, "type": "object", "x-kubernetes-preserve-unknown-fields": true});
        check(
            "a definition",
            "apiextensions.k8s.io/v1beta1",
            "apiextensions.k8s.io/v1",
            old,
            Some(json!({"spec": {"group": "g",
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]}},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "additionalPrinterColumns": [{"name": "A", "jsonPath": ".a"}], "subresources": {"status": {}}}]}})),
        );
        let hooks = |side: &str| json!({"kind": "ValidatingWebhookConfiguration", "webhooks": [{"name": "a", "sideEffects": side, "failurePolicy": "Fail"}]});
        let (was, will) = ("admissionregistration.k8s.io/v1beta1", "admissionregistration.k8s.io/v1");
        check(
            "a webhook",
            was,
            will,
            hooks("None"),
            Some(json!({"webhooks": [{"name": "a", "sideEffects": "None", "failurePolicy": "Fail",
            "matchPolicy": "Exact", "timeoutSeconds": 30, "admissionReviewVersions": ["v1beta1"]}]})),
        );
        check("a webhook that does not say what a dry run does", was, will, hooks("Unknown"), None);
        check(
            "and back",
            will,
            was,
            hooks("None"),
            Some(json!({"webhooks": [{"name": "a", "sideEffects": "None", "failurePolicy": "Fail"}]})),
        );
    }

    #[test]
    fn slices_and_priority_levels_keep_what_they_say() {
        let (old, new) = ("discovery.k8s.io/v1beta1", "discovery.k8s.io/v1");
        let before = json!({"kind": "EndpointSlice", "endpoints": [{"addresses": ["1.1.1.1"], "topology": {NODE_LABEL: "n", ZONE_LABEL: "z"}}, {"addresses": []}]});
        let after = json!({"kind": "EndpointSlice", "endpoints": [{"addresses": ["1.1.1.1"], "nodeName": "n", "zone": "z"}, {"addresses": []}]});
        check("a slice", old, new, before, Some(json!({"endpoints": after["endpoints"]})));
        check(
            "and back",
            new,
            old,
            after,
            Some(
                json!({"endpoints": [{"addresses": ["1.1.1.1"], "nodeName": "n", "topology": {NODE_LABEL: "n", ZONE_LABEL: "z"}}, {"addresses": []}]}),
            ),
        );
        let level =
            |limited: Value| json!({"kind": "PriorityLevelConfiguration", "spec": {"limited": limited}});
        let spec = |limited: Value| Some(json!({"spec": {"limited": limited}}));
        let (old, new) = ("flowcontrol.apiserver.k8s.io/v1beta2", "flowcontrol.apiserver.k8s.io/v1");
        check(
            "a level",
            old,
            new,
            level(json!({"assuredConcurrencyShares": 5})),
            spec(json!({"nominalConcurrencyShares": 5})),
        );
        check(
            "and back",
            new,
            old,
            level(json!({"nominalConcurrencyShares": 5, "lendablePercent": 0})),
            spec(json!({"assuredConcurrencyShares": 5})),
        );
        check(
            "one that lends",
            new,
            old,
            level(json!({"nominalConcurrencyShares": 5, "lendablePercent": 50})),
            None,
        );
    }
}
