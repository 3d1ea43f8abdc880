//! Defaults of built-in kinds: what a real server adds to an object that says nothing.
//!
//! Constant defaults are a table by type, applied wherever the type occurs. Those that depend on
//! other fields are in [`kind`]. Restores and `kubectl diff` compare against objects that went
//! through this, so what is missing here shows up there as a difference.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::finalize::remove_field;
use crate::kinds::Kind;
use crate::schema::Shape;
use crate::types::Ty;

/// (type, field, default as JSON).
const CONSTANT: &[(&str, &str, &str)] = &[
    ("apps.v1.DaemonSetSpec", "revisionHistoryLimit", "10"),
    ("apps.v1.DaemonSetSpec", "updateStrategy", "{}"),
    ("apps.v1.DeploymentSpec", "progressDeadlineSeconds", "600"),
    ("apps.v1.DeploymentSpec", "replicas", "1"),
    ("apps.v1.DeploymentSpec", "revisionHistoryLimit", "10"),
    ("apps.v1.DeploymentSpec", "strategy", "{}"),
    ("apps.v1.DeploymentStrategy", "type", r#""RollingUpdate""#),
    ("apps.v1.DaemonSetUpdateStrategy", "type", r#""RollingUpdate""#),
    ("apps.v1.StatefulSetUpdateStrategy", "type", r#""RollingUpdate""#),
    ("apps.v1.ReplicaSetSpec", "replicas", "1"),
    (
        "apps.v1.StatefulSetSpec",
        "persistentVolumeClaimRetentionPolicy",
        r#"{"whenDeleted":"Retain","whenScaled":"Retain"}"#,
    ),
    ("apps.v1.StatefulSetSpec", "podManagementPolicy", r#""OrderedReady""#),
    ("apps.v1.StatefulSetSpec", "replicas", "1"),
    ("apps.v1.StatefulSetSpec", "revisionHistoryLimit", "10"),
    ("apps.v1.StatefulSetSpec", "updateStrategy", "{}"),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", "minReplicas", "1"),
    ("batch.v1.CronJobSpec", "concurrencyPolicy", r#""Allow""#),
    ("batch.v1.CronJobSpec", "failedJobsHistoryLimit", "1"),
    ("batch.v1.CronJobSpec", "successfulJobsHistoryLimit", "3"),
    ("batch.v1.CronJobSpec", "suspend", "false"),
    ("core.v1.AzureDiskVolumeSource", "fsType", r#""ext4""#),
    ("core.v1.ConfigMapVolumeSource", "defaultMode", "420"),
    ("core.v1.Container", "resources", "{}"),
    ("core.v1.Container", "terminationMessagePath", r#""/dev/termination-log""#),
    ("core.v1.Container", "terminationMessagePolicy", r#""File""#),
    ("core.v1.ContainerPort", "protocol", r#""TCP""#),
    ("core.v1.DownwardAPIVolumeSource", "defaultMode", "420"),
    ("core.v1.EndpointPort", "protocol", r#""TCP""#),
    ("core.v1.GRPCAction", "service", r#""""#),
    ("core.v1.HTTPGetAction", "path", r#""/""#),
    ("core.v1.HTTPGetAction", "scheme", r#""HTTP""#),
    ("core.v1.HostPathVolumeSource", "type", r#""""#),
    ("core.v1.ISCSIVolumeSource", "iscsiInterface", r#""default""#),
    ("core.v1.ObjectFieldSelector", "apiVersion", r#""v1""#),
    ("core.v1.PersistentVolumeClaimSpec", "volumeMode", r#""Filesystem""#),
    ("core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy", r#""Retain""#),
    ("core.v1.PersistentVolumeSpec", "volumeMode", r#""Filesystem""#),
    ("core.v1.PodSpec", "dnsPolicy", r#""ClusterFirst""#),
    ("core.v1.PodSpec", "restartPolicy", r#""Always""#),
    ("core.v1.PodSpec", "schedulerName", r#""default-scheduler""#),
    ("core.v1.PodSpec", "securityContext", "{}"),
    ("core.v1.PodSpec", "terminationGracePeriodSeconds", "30"),
    ("core.v1.Probe", "failureThreshold", "3"),
    ("core.v1.Probe", "periodSeconds", "10"),
    ("core.v1.Probe", "successThreshold", "1"),
    ("core.v1.Probe", "timeoutSeconds", "1"),
    ("core.v1.ProjectedVolumeSource", "defaultMode", "420"),
    ("core.v1.ReplicationControllerSpec", "replicas", "1"),
    ("core.v1.Secret", "type", r#""Opaque""#),
    ("core.v1.SecretVolumeSource", "defaultMode", "420"),
    ("core.v1.ServiceAccountTokenProjection", "expirationSeconds", "3600"),
    ("core.v1.ServicePort", "protocol", r#""TCP""#),
    ("core.v1.ServiceSpec", "sessionAffinity", r#""None""#),
    ("core.v1.ServiceSpec", "type", r#""ClusterIP""#),
    ("networking.v1.NetworkPolicyPort", "protocol", r#""TCP""#),
    ("rbac.v1.RoleRef", "apiGroup", r#""rbac.authorization.k8s.io""#),
    ("admissionregistration.v1.ServiceReference", "port", "443"),
    ("scheduling.v1.PriorityClass", "preemptionPolicy", r#""PreemptLowerPriority""#),
    ("storage.v1.CSIDriverSpec", "attachRequired", "true"),
    ("storage.v1.CSIDriverSpec", "fsGroupPolicy", r#""ReadWriteOnceWithFSType""#),
    ("storage.v1.CSIDriverSpec", "podInfoOnMount", "false"),
    ("storage.v1.CSIDriverSpec", "requiresRepublish", "false"),
    ("storage.v1.CSIDriverSpec", "storageCapacity", "false"),
    ("storage.v1.StorageClass", "reclaimPolicy", r#""Delete""#),
    ("storage.v1.StorageClass", "volumeBindingMode", r#""Immediate""#),
    ("admissionregistration.v1.MutatingWebhook", "reinvocationPolicy", r#""Never""#),
    ("admissionregistration.v1.RuleWithOperations", "scope", r#""*""#),
    ("apiextensions.v1.CustomResourceDefinitionSpec", "conversion", r#"{"strategy":"None"}"#),
    ("discovery.v1.EndpointPort", "protocol", r#""TCP""#),
];

/// Both kinds of webhooks have these.
const WEBHOOK: &[(&str, &str)] = &[
    ("failurePolicy", r#""Fail""#),
    ("matchPolicy", r#""Equivalent""#),
    ("namespaceSelector", "{}"),
    ("objectSelector", "{}"),
    ("timeoutSeconds", "10"),
];

type Table = BTreeMap<&'static str, Vec<(&'static str, Value)>>;
static TABLE: OnceLock<Table> = OnceLock::new();

fn table() -> &'static Table {
    TABLE.get_or_init(|| {
        let mut table = Table::new();
        let mut add = |ty, field, text: &str| {
            // The tables above are checked by a test; a typing error would only lose a default.
            if let Ok(value) = serde_json::from_str(text) {
                table.entry(ty).or_default().push((field, value));
            }
        };
        for (ty, field, text) in CONSTANT {
            add(ty, *field, text);
        }
        for ty in ["admissionregistration.v1.MutatingWebhook", "admissionregistration.v1.ValidatingWebhook"] {
            for (field, text) in WEBHOOK {
                add(ty, *field, text);
            }
        }
        table
    })
}

/// Fills in the constant defaults, everywhere below.
pub fn fill(shape: Shape<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let name = match shape {
                Shape::Object(ty) => ty.name,
                Shape::Typed(Ty::Named(name), _) => name,
                _ => "",
            };
            for (field, default) in table().get(name).into_iter().flatten() {
                if map.get(*field).is_none_or(Value::is_null) {
                    map.insert((*field).to_string(), default.clone());
                }
            }
            computed(name, map);
            for (key, inner) in map.iter_mut() {
                if let Some(child) = shape.child(key) {
                    fill(child, inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(shape.item(), item)),
        _ => {}
    }
}

/// Defaults that look at their neighbours, for types that occur in many places.
fn computed(name: &str, map: &mut Map<String, Value>) {
    match name {
        "core.v1.Container" if !map.contains_key("imagePullPolicy") => {
            if let Some(image) = map.get("image").and_then(Value::as_str).filter(|i| !i.is_empty()) {
                let tagless =
                    image.rsplit('/').next().is_some_and(|last| !last.contains(':') && !last.contains('@'));
                let policy = if tagless || image.ends_with(":latest") { "Always" } else { "IfNotPresent" };
                map.insert("imagePullPolicy".into(), json!(policy));
            }
        }
        "core.v1.PodSpec" => {
            match (map.get("serviceAccountName").cloned(), map.get("serviceAccount").cloned()) {
                (Some(name), None) => {
                    map.insert("serviceAccount".into(), name);
                }
                (None, Some(name)) => {
                    map.insert("serviceAccountName".into(), name);
                }
                _ => {}
            }
        }
        "core.v1.Volume" if map.len() == 1 => {
            map.insert("emptyDir".into(), json!({}));
        }
        "core.v1.ServicePort" if map.get("targetPort").is_none_or(|t| *t == json!(0) || *t == json!("")) => {
            let port = map.get("port").cloned().unwrap_or(json!(0));
            map.insert("targetPort".into(), port);
        }
        "apps.v1.DeploymentStrategy" if map.get("type") == Some(&json!("RollingUpdate")) => {
            let rolling = map.entry("rollingUpdate").or_insert_with(|| json!({}));
            if rolling.is_null() {
                *rolling = json!({});
            }
            for key in ["maxUnavailable", "maxSurge"] {
                if rolling[key].is_null() {
                    rolling[key] = json!("25%");
                }
            }
        }
        "apps.v1.DaemonSetUpdateStrategy" if map.get("type") == Some(&json!("RollingUpdate")) => {
            let rolling = map.entry("rollingUpdate").or_insert_with(|| json!({}));
            for (key, value) in [("maxSurge", 0), ("maxUnavailable", 1)] {
                if rolling[key].is_null() {
                    rolling[key] = json!(value);
                }
            }
        }
        "apps.v1.StatefulSetUpdateStrategy" if map.get("type") == Some(&json!("RollingUpdate")) => {
            let rolling = map.entry("rollingUpdate").or_insert_with(|| json!({}));
            if rolling["partition"].is_null() {
                rolling["partition"] = json!(0);
            }
        }
        "core.v1.LimitRangeItem" if map.get("type") == Some(&json!("Container")) => {
            // A limit nobody named is the largest one, a request the limit, or the smallest one.
            for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                let amounts = map.get(from).and_then(Value::as_object).cloned().unwrap_or_default();
                let into = map.entry(to).or_insert_with(|| json!({}));
                for (name, amount) in amounts {
                    if into[name.as_str()].is_null() {
                        into[name.as_str()] = amount;
                    }
                }
                if *into == json!({}) {
                    map.shift_remove(to);
                }
            }
        }
        "rbac.v1.Subject" if !map.contains_key("apiGroup") => {
            if matches!(map.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
                map.insert("apiGroup".into(), json!("rbac.authorization.k8s.io"));
            }
        }
        _ => {}
    }
}

const GENERATION: &str = "deprecated.daemonset.template.generation";

/// Defaults of a whole object. `old` is absent on create.
pub fn kind(kind: &Kind, old: Option<&Value>, object: &mut Value) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "namespaces") => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        ("", "secrets") => encode_secret(object),
        ("", "services") => service(object),
        ("", "pods") => pod(object, old.is_none()),
        ("", "replicationcontrollers") => {
            let labels = object["spec"]["template"]["metadata"]["labels"].clone();
            for path in [("spec", "selector"), ("metadata", "labels")] {
                if object[path.0][path.1].is_null() && labels.is_object() {
                    object[path.0][path.1] = labels.clone();
                }
            }
        }
        ("apps", "statefulsets") => {
            let claims = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
            for claim in claims.into_iter().flatten() {
                claim["apiVersion"] = json!("v1");
                claim["kind"] = json!("PersistentVolumeClaim");
                claim["status"] = json!({ "phase": "Pending" });
            }
        }
        ("apps", "daemonsets") => {
            // Left from the first version of the kind, and still kept up by every server.
            let changed = old.is_some_and(|o| o["spec"]["template"] != object["spec"]["template"]);
            let before =
                old.and_then(|o| o["metadata"]["annotations"][GENERATION].as_str()?.parse::<i64>().ok());
            let now = before.map_or(1, |n| n + i64::from(changed));
            object["metadata"]["annotations"][GENERATION] = json!(now.to_string());
        }
        ("batch", "jobs") => {
            job(object);
            if old.is_none() {
                job_selector(object);
            }
        }
        ("networking.k8s.io", "networkpolicies")
            if object["spec"]["policyTypes"].is_null() && object["spec"].is_object() =>
        {
            let both = object["spec"].get("egress").is_some();
            object["spec"]["policyTypes"] =
                if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
        ("autoscaling", "horizontalpodautoscalers")
            if object["spec"]["metrics"].is_null() && object["spec"].is_object() =>
        {
            object["spec"]["metrics"] = json!([{ "type": "Resource", "resource": { "name": "cpu",
                "target": { "type": "Utilization", "averageUtilization": 80 } } }]);
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            let names = &mut object["spec"]["names"];
            if let Some(kind) = names.get("kind").and_then(Value::as_str).map(str::to_string) {
                if names["singular"].is_null() {
                    names["singular"] = json!(kind.to_lowercase());
                }
                if names["listKind"].is_null() {
                    names["listKind"] = json!(format!("{kind}List"));
                }
            }
        }
        _ => {}
    }
}

/// Of a job itself: what a CronJob makes jobs from is not filled in.
fn job(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".into(), json!(1));
    }
    for (field, value) in [
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!(replacement)),
    ] {
        spec.entry(field).or_insert(value);
    }
}

/// `stringData` is write-only: it ends up in `data`.
fn encode_secret(object: &mut Value) {
    let Some(Value::Object(plain)) = object.get("stringData").cloned() else { return };
    remove_field(object, "stringData");
    for (key, value) in plain {
        object["data"][key.as_str()] = json!(base64(value.as_str().unwrap_or("").as_bytes()));
    }
}

/// What standard base64 says; none if it is none.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let get = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = (get(0) << 16) | (get(1) << 8) | get(2);
        for at in 0..4 {
            if at <= chunk.len() {
                out.push(char::from(LETTERS[((word >> (18 - 6 * at)) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn service(object: &mut Value) {
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return;
    }
    let kind = spec["type"].as_str().unwrap_or("ClusterIP").to_string();
    if kind == "ExternalName" {
        return;
    }
    let mut set = |key: &str, value: Value| {
        if spec[key].is_null() {
            spec[key] = value;
        }
    };
    set("internalTrafficPolicy", json!("Cluster"));
    let outside = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if outside {
        set("externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set("allocateLoadBalancerNodePorts", json!(true));
    }
    if spec["sessionAffinity"] == json!("ClientIP") && spec["sessionAffinityConfig"].is_null() {
        spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": 10800 } });
    }
    for key in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts", "sessionAffinityConfig"] {
        if spec[key].is_null() {
            remove_field(spec, key);
        }
    }
    if !outside {
        remove_field(spec, "externalTrafficPolicy");
    }
}

fn pod(object: &mut Value, new: bool) {
    let spec = &mut object["spec"];
    if !new || !spec.is_object() {
        return;
    }
    for (key, value) in [
        ("enableServiceLinks", json!(true)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
        ("priority", json!(0)),
    ] {
        if spec[key].is_null() {
            spec[key] = value;
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(Value::Object(limits)) = container["resources"].get("limits").cloned() else { continue };
            for (name, amount) in limits {
                if container["resources"]["requests"][name.as_str()].is_null() {
                    container["resources"]["requests"][name.as_str()] = amount;
                }
            }
        }
    }
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations
            .iter()
            .any(|t| t["key"] == json!(key) || (t["key"].is_null() && t["operator"] == json!("Exists")))
        {
            tolerations.push(
                json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }),
            );
        }
    }
    spec["tolerations"] = json!(tolerations);
}

/// A job finds its pods by its own uid, unless told otherwise.
fn job_selector(object: &mut Value) {
    if object["spec"]["manualSelector"] == json!(true) || !object["spec"].is_object() {
        return;
    }
    let (uid, name) = (object["metadata"]["uid"].clone(), object["metadata"]["name"].clone());
    // What is set already stays, and is refused by validation if it is wrong.
    let set = |map: &mut Value, key: &str, value: &Value| {
        if map[key].is_null() {
            map[key] = value.clone();
        }
    };
    let labels = &mut object["spec"]["template"]["metadata"]["labels"];
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        set(labels, key, value);
    }
    let labels = labels.clone();
    set(&mut object["spec"]["selector"]["matchLabels"], "batch.kubernetes.io/controller-uid", &uid);
    if object["metadata"]["labels"].is_null() {
        object["metadata"]["labels"] = labels;
    }
}

/// Guaranteed, Burstable or BestEffort.
pub fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut all = true;
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            let resources = &container["resources"];
            for name in ["cpu", "memory"] {
                let (limit, request) = (&resources["limits"][name], &resources["requests"][name]);
                any |= !limit.is_null() || !request.is_null();
                all &= !limit.is_null() && (request.is_null() || request == limit);
            }
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Mounts the service account's token into every container that has nothing there.
pub fn mount_token(spec: &mut Value, volume: &str) {
    const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().all(|m| m["mountPath"] != json!(PATH)) {
                mounts.push(json!({ "mountPath": PATH, "name": volume, "readOnly": true }));
                container["volumeMounts"] = json!(mounts);
                mounted = true;
            }
        }
    }
    if !mounted {
        return;
    }
    let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    volumes.push(json!({ "name": volume, "projected": { "defaultMode": 420, "sources": [
        { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
        { "configMap": { "items": [{ "key": "ca.crt", "path": "ca.crt" }], "name": "kube-root-ca.crt" } },
        { "downwardAPI": { "items": [{ "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" }, "path": "namespace" }] } },
    ] } }));
    spec["volumes"] = json!(volumes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;
    use crate::types;

    #[test]
    fn every_default_names_a_field_that_exists() {
        for (ty, field, text) in CONSTANT {
            assert!(types::get(ty).is_some_and(|t| t.field(field).is_some()), "{ty}.{field}");
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{ty}.{field}: {text}");
        }
    }

    #[test]
    fn a_small_deployment_grows_to_what_a_real_server_stores() {
        let kinds = Kinds::default();
        let kind = kinds.get("apps", "deployments").unwrap();
        let mut object = json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}]}}}});
        fill(Shape::of(kind, "v1"), &mut object);
        let expect = json!({
            "progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "a"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {
                "containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "failureThreshold": 3,
                        "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30,
                "volumes": [{"name": "v", "emptyDir": {}}]}}});
        assert_eq!(object["spec"], expect);
    }

    #[test]
    fn a_pull_policy_follows_the_tag() {
        let check = |image: &str, expect: &str| {
            let mut map = json!({ "image": image }).as_object().cloned().unwrap();
            computed("core.v1.Container", &mut map);
            assert_eq!(map["imagePullPolicy"], expect, "{image}");
        };
        check("nginx", "Always");
        check("nginx:latest", "Always");
        check("localhost:5000/nginx", "Always");
        check("nginx:1.25", "IfNotPresent");
        check("localhost:5000/nginx:1", "IfNotPresent");
        check("nginx@sha256:abc", "IfNotPresent");
    }

    #[test]
    fn base64_is_the_standard_one() {
        for (plain, encoded) in
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("hello world", "aGVsbG8gd29ybGQ=")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
