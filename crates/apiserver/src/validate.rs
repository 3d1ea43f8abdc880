//! Checks on built-in kinds that a real server makes and a restore can trip over: names, required
//! fields, selectors that match, fields that may never change.

use serde_json::{Value, json};

use crate::finalize::remove_field;
use crate::kinds::Kind;
use crate::rest::Part;
use crate::select::label_selector_matches;
use crate::status::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// (resource, path of a field that must be there).
const REQUIRED: &[(&str, &str)] = &[
    ("daemonsets.apps", "spec.selector"),
    ("deployments.apps", "spec.selector"),
    ("replicasets.apps", "spec.selector"),
    ("statefulsets.apps", "spec.selector"),
    ("cronjobs.batch", "spec.schedule"),
    ("persistentvolumes", "spec.accessModes"),
    ("persistentvolumes", "spec.capacity"),
    ("horizontalpodautoscalers.autoscaling", "spec.maxReplicas"),
    ("horizontalpodautoscalers.autoscaling", "spec.scaleTargetRef.name"),
    ("ingressclasses.networking.k8s.io", "spec.controller"),
    ("rolebindings.rbac.authorization.k8s.io", "roleRef.name"),
    ("clusterrolebindings.rbac.authorization.k8s.io", "roleRef.name"),
    ("storageclasses.storage.k8s.io", "provisioner"),
    ("runtimeclasses.node.k8s.io", "handler"),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.group"),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.scope"),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.names.plural"),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.names.kind"),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.versions"),
];

/// (resource, path, allowed values).
const ENUMS: &[(&str, &str, &[&str])] = &[
    ("services", "spec.type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    ("services", "spec.sessionAffinity", &["ClientIP", "None"]),
    ("persistentvolumes", "spec.persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]),
    ("persistentvolumes", "spec.volumeMode", &["Block", "Filesystem"]),
    ("persistentvolumeclaims", "spec.volumeMode", &["Block", "Filesystem"]),
    ("cronjobs.batch", "spec.concurrencyPolicy", &["Allow", "Forbid", "Replace"]),
    ("deployments.apps", "spec.template.spec.restartPolicy", &["Always"]),
    ("statefulsets.apps", "spec.template.spec.restartPolicy", &["Always"]),
    ("daemonsets.apps", "spec.template.spec.restartPolicy", &["Always"]),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.scope", &["Cluster", "Namespaced"]),
];

/// (resource, path of a field that may not change).
const IMMUTABLE: &[(&str, &str)] = &[
    ("daemonsets.apps", "spec.selector"),
    ("deployments.apps", "spec.selector"),
    ("replicasets.apps", "spec.selector"),
    ("jobs.batch", "spec.selector"),
    ("jobs.batch", "spec.template"),
    ("jobs.batch", "spec.completionMode"),
    ("secrets", "type"),
    ("storageclasses.storage.k8s.io", "volumeBindingMode"),
    ("ingressclasses.networking.k8s.io", "spec.controller"),
    ("runtimeclasses.node.k8s.io", "handler"),
    ("priorityclasses.scheduling.k8s.io", "value"),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.group"),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.scope"),
    ("customresourcedefinitions.apiextensions.k8s.io", "spec.names.plural"),
];

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, key| &value[key])
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && (is_label(part) || (part.len() > 63 && is_label(&part[..63])));
    !text.is_empty() && text.len() <= 253 && text.split('.').all(part)
}

fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && edge(text.chars().next())
        && edge(text.chars().last())
}

/// What is wrong with an object.
pub fn object(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    metadata(kind, &object["metadata"], &mut causes);
    if kind.custom {
        return causes;
    }
    let resource = kind.resource();
    for (_, path) in REQUIRED.iter().filter(|r| r.0 == resource) {
        let value = at(object, path);
        let empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty() && *path != "spec.selector",
            _ => false,
        };
        if empty {
            causes.push(Cause::required(*path, ""));
        }
    }
    for (_, path, allowed) in ENUMS.iter().filter(|r| r.0 == resource) {
        let value = at(object, path);
        if value.as_str().is_some_and(|v| !allowed.contains(&v)) {
            causes.push(Cause::unsupported(*path, value, allowed));
        }
    }
    if matches!(
        resource.as_str(),
        "daemonsets.apps" | "deployments.apps" | "replicasets.apps" | "statefulsets.apps"
    ) {
        let labels = at(object, "spec.template.metadata.labels");
        let selector = at(object, "spec.selector");
        if !selector.is_object() || !label_selector_matches(selector, labels) {
            let why = "`selector` does not match template `labels`";
            causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
        }
    }
    let pods = match resource.as_str() {
        "pods" => "spec",
        "cronjobs.batch" => "spec.jobTemplate.spec.template.spec",
        "daemonsets.apps" | "deployments.apps" | "jobs.batch" | "replicasets.apps" | "statefulsets.apps" => {
            "spec.template.spec"
        }
        _ => "",
    };
    if !pods.is_empty() {
        containers(at(object, pods), pods, resource == "statefulsets.apps", &mut causes);
    }
    match resource.as_str() {
        "services" => service(&object["spec"], &mut causes),
        "persistentvolumeclaims" => {
            if object["spec"]["accessModes"].as_array().is_none_or(Vec::is_empty) {
                causes.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
            }
            if object["spec"]["resources"]["requests"]["storage"].is_null() {
                causes.push(Cause::required("spec.resources[storage]", ""));
            }
        }
        "persistentvolumes" => {
            let general = |key: &str| {
                crate::types::get("core.v1.PersistentVolumeSpec")
                    .and_then(|t| t.field(key))
                    .is_none_or(|f| f.wire.len() < 2)
            };
            let spec = object["spec"].as_object().into_iter().flatten();
            if spec.map(|(key, _)| key).all(|key| general(key)) {
                causes.push(Cause::required("spec", "must specify a volume type"));
            }
        }
        "jobs.batch" => job(object, &mut causes),
        "ingresses.networking.k8s.io" => {
            let spec = &object["spec"];
            if spec["defaultBackend"].is_null() && spec["rules"].as_array().is_none_or(Vec::is_empty) {
                let why = "either `defaultBackend` or `rules` must be specified";
                causes.push(Cause::invalid("spec", &json!(null), why));
            }
        }
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object, &mut causes),
        _ => {}
    }
    causes
}

fn metadata(kind: &Kind, metadata: &Value, causes: &mut Vec<Cause>) {
    let name = metadata["name"].as_str().unwrap_or("");
    let (fits, why) = match kind.plural.as_str() {
        _ if name.is_empty() => (true, ""),
        "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings" => {
            (name != "." && name != ".." && !name.contains(['/', '%']), "may not contain '/' or '%'")
        }
        "services" if kind.group.is_empty() => {
            (is_label(name) && !name.starts_with(|c: char| c.is_ascii_digit()), LABEL_1035)
        }
        "namespaces" => (is_label(name), LABEL),
        "ipaddresses" | "events" => (true, ""),
        _ => (is_subdomain(name), SUBDOMAIN),
    };
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if !fits {
        causes.push(Cause::invalid("metadata.name", &metadata["name"], why));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        qualified_name("metadata.labels", key, causes);
        if !value.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid("metadata.labels", value, LABEL_VALUE));
        }
    }
    for key in metadata["annotations"].as_object().into_iter().flatten().map(|(key, _)| key) {
        // Annotations differ in case only, so they are checked without it.
        qualified_name("metadata.annotations", &key.to_lowercase(), causes);
    }
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        for key in ["apiVersion", "kind", "name", "uid"] {
            if owner[key].as_str().unwrap_or("").is_empty() {
                let what = if key == "apiVersion" { "version" } else { key };
                let field = format!("metadata.ownerReferences.{key}");
                causes.push(Cause::invalid(field, &json!(""), format!("{what} must not be empty")));
            }
        }
    }
    for (index, finalizer) in metadata["finalizers"].as_array().into_iter().flatten().enumerate() {
        let known = matches!(finalizer.as_str(), Some("orphan" | "foregroundDeletion" | "kubernetes"));
        if !known && !finalizer.as_str().is_some_and(|f| f.contains('/') || f.contains('.')) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(format!("metadata.finalizers[{index}]"), finalizer, why));
        }
    }
}

fn qualified_name(field: &str, key: &str, causes: &mut Vec<Cause>) {
    let (prefix, name) = key.split_once('/').unwrap_or(("", key));
    if key.contains('/') && !is_subdomain(prefix) {
        causes.push(Cause::invalid(field, &json!(key), format!("prefix part {SUBDOMAIN}")));
    }
    if name.is_empty() || !is_label_value(name) {
        let why = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        causes.push(Cause::invalid(field, &json!(key), why));
    }
}

fn containers(spec: &Value, prefix: &str, claims: bool, causes: &mut Vec<Cause>) {
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{prefix}.containers"), ""));
    }
    for list in ["initContainers", "containers"] {
        let mut seen: Vec<&str> = Vec::new();
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("{prefix}.{list}[{index}]");
            match container["name"].as_str().unwrap_or("") {
                "" => causes.push(Cause::required(format!("{path}.name"), "")),
                name if !is_label(name) => {
                    causes.push(Cause::invalid(format!("{path}.name"), &container["name"], LABEL));
                }
                name if seen.contains(&name) => {
                    causes.push(Cause::duplicate(format!("{path}.name"), &container["name"]));
                }
                name => seen.push(name),
            }
            if container["image"].as_str().unwrap_or("").is_empty() {
                causes.push(Cause::required(format!("{path}.image"), ""));
            }
            for (mount, volume) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
                let known =
                    spec["volumes"].as_array().into_iter().flatten().any(|v| v["name"] == volume["name"]);
                // A stateful set's claims are volumes too; its pods get them on creation.
                if !known && !claims {
                    let cause = Cause::invalid("", &volume["name"], "");
                    let message = cause
                        .message
                        .replace("Invalid value", "Not found")
                        .trim_end_matches(": ")
                        .to_string();
                    let field = format!("{path}.volumeMounts[{mount}].name");
                    causes.push(Cause { reason: "FieldValueNotFound", field, message });
                }
            }
        }
    }
}

/// A job that does not choose its pods itself must be selected by its own uid. This is where a job
/// restored with the labels of its former self is refused.
fn job(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if !matches!(spec["template"]["spec"]["restartPolicy"].as_str(), Some("OnFailure" | "Never")) {
        causes.push(Cause::required(
            "spec.template.spec.restartPolicy",
            "valid values: \"OnFailure\", \"Never\"",
        ));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !spec["selector"].is_null() && !label_selector_matches(&spec["selector"], labels) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
    }
    if spec["manualSelector"] == json!(true) {
        return;
    }
    let (uid, name) = (&object["metadata"]["uid"], &object["metadata"]["name"]);
    let mut expected = json!({});
    for (key, want) in [
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", uid),
        ("job-name", name),
    ] {
        expected[key] = want.clone();
        if labels[key] != *want {
            let why = format!("must be '{}'", want.as_str().unwrap_or(""));
            causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
        }
    }
    if !label_selector_matches(&spec["selector"], &expected) {
        causes.push(Cause::invalid("spec.selector", &spec["selector"], "`selector` not auto-generated"));
    }
}

fn service(spec: &Value, causes: &mut Vec<Cause>) {
    let external = spec["type"] == json!("ExternalName");
    let headless = spec["clusterIP"] == json!("None");
    let ports = spec["ports"].as_array().cloned().unwrap_or_default();
    if ports.is_empty() && !external && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    if external && spec["externalName"].as_str().unwrap_or("").is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            let why = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(format!("spec.ports[{index}].port"), &json!(number), why));
        }
        if ports.len() > 1 && port["name"].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
    }
}

fn definition(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap_or("").to_string();
    let expect = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if object["metadata"]["name"] != json!(expect) {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &object["metadata"]["name"], why));
    }
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    if versions.iter().filter(|v| v["storage"] == json!(true)).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &spec["versions"], why));
    }
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
            causes.push(Cause::required(path, "schemas are required"));
        }
    }
    // A schema that all versions share is told about as one.
    let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
    let shared = versions.windows(2).all(|pair| schema(&pair[0]) == schema(&pair[1]));
    for (index, version) in versions.iter().enumerate() {
        let path = match shared {
            true if index > 0 => break,
            true => "spec.validation.openAPIV3Schema".to_string(),
            false => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        crate::rules::check_definition(&schema(version), &path, causes);
    }
}

/// What is wrong with a change.
pub fn change(kind: &Kind, old: &Value, new: &Value, part: Part) -> Vec<Cause> {
    let mut causes = Vec::new();
    let finalizers =
        |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if old["metadata"]["deletionTimestamp"].is_string() {
        let before = finalizers(old);
        let new: Vec<Value> = finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
        if !new.is_empty() {
            let list: Vec<String> = new.iter().map(Value::to_string).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            causes.push(Cause::forbidden("metadata.finalizers", &why));
        }
    }
    if kind.custom || part != Part::Main {
        return causes;
    }
    let resource = kind.resource();
    for (_, path) in IMMUTABLE.iter().filter(|r| r.0 == resource) {
        if at(old, path) != at(new, path) {
            causes.push(Cause::invalid(*path, at(new, path), "field is immutable"));
        }
    }
    let differ = |keep: &dyn Fn(&mut Value)| {
        let bare = |object: &Value| {
            let mut spec = object["spec"].clone();
            keep(&mut spec);
            spec
        };
        bare(old) != bare(new)
    };
    match resource.as_str() {
        "configmaps" | "secrets" if old["immutable"] == json!(true) => {
            for field in ["data", "binaryData", "immutable"] {
                if old[field] != new[field] {
                    causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
                }
            }
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io"
            if old["roleRef"] != new["roleRef"] =>
        {
            causes.push(Cause::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
        }
        "storageclasses.storage.k8s.io" => {
            for field in ["provisioner", "parameters", "reclaimPolicy"] {
                if old[field] != new[field] {
                    causes.push(Cause::forbidden(field, &format!("updates to {field} are forbidden.")));
                }
            }
        }
        "services" => {
            let (before, after) = (&old["spec"]["clusterIP"], &new["spec"]["clusterIP"]);
            let set = |ip: &Value| ip.as_str().is_some_and(|ip| !ip.is_empty());
            let external =
                new["spec"]["type"] == json!("ExternalName") || old["spec"]["type"] == json!("ExternalName");
            if set(before) && set(after) && before != after && !external {
                causes.push(Cause::invalid("spec.clusterIPs[0]", &json!([after]), "may not change once set"));
            }
        }
        "statefulsets.apps" => {
            let may = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
                "revisionHistoryLimit",
            ];
            if differ(&|spec| may.iter().for_each(|key| remove_field(spec, key))) {
                causes.push(Cause::forbidden(
                    "spec",
                    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
                ));
            }
        }
        "persistentvolumeclaims" => {
            let bound = old["spec"]["volumeName"].is_string();
            let may = |spec: &mut Value| {
                for key in ["resources", "volumeAttributesClassName"] {
                    remove_field(spec, key);
                }
                if !bound {
                    remove_field(spec, "volumeName");
                }
            };
            if differ(&may) {
                causes.push(Cause::forbidden(
                    "spec",
                    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
                ));
            }
        }
        "persistentvolumes" => {
            let may = [
                "capacity",
                "accessModes",
                "persistentVolumeReclaimPolicy",
                "claimRef",
                "storageClassName",
                "mountOptions",
                "nodeAffinity",
                "volumeAttributesClassName",
            ];
            if differ(&|spec| may.iter().for_each(|key| remove_field(spec, key))) {
                causes.push(Cause::forbidden(
                    "spec.persistentvolumesource",
                    "spec.persistentvolumesource is immutable after creation",
                ));
            }
        }
        "pods" => {
            let may = |spec: &mut Value| {
                for key in [
                    "activeDeadlineSeconds",
                    "tolerations",
                    "terminationGracePeriodSeconds",
                    "schedulingGates",
                    "ephemeralContainers",
                ] {
                    remove_field(spec, key);
                }
                for list in ["containers", "initContainers"] {
                    for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                        remove_field(container, "image");
                    }
                }
            };
            if differ(&may) {
                causes.push(Cause::forbidden(
                    "spec",
                    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
                ));
            }
        }
        _ => {}
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kinds;

    fn fields(causes: Vec<Cause>) -> Vec<String> {
        causes.into_iter().map(|c| c.field).collect()
    }

    #[test]
    fn objects_a_real_server_refuses_are_refused_for_the_same_field() {
        let kinds = Kinds::default();
        let check = |group: &str, plural: &str, value: Value, expect: &[&str]| {
            let kind = kinds.get(group, plural).unwrap();
            assert_eq!(fields(object(kind, &value)), expect, "{value}");
        };
        let pod = json!({"containers": [{"name": "c", "image": "i"}]});
        let named = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
        check("", "configmaps", json!({"metadata": {"name": "a.b-c"}}), &[]);
        check("", "configmaps", json!({"metadata": {"name": "A"}}), &["metadata.name"]);
        check("", "configmaps", json!({"metadata": {}}), &["metadata.name"]);
        check(
            "",
            "configmaps",
            json!({"metadata": {"name": "a", "labels": {"k": "not ok"}}}),
            &["metadata.labels"],
        );
        check("", "services", named("1a", json!({"ports": [{"port": 80}]})), &["metadata.name"]);
        check("", "services", named("a", json!({})), &["spec.ports"]);
        check("", "services", named("a", json!({"clusterIP": "None"})), &[]);
        check("rbac.authorization.k8s.io", "roles", json!({"metadata": {"name": "system:x"}}), &[]);
        check("", "pods", named("a", pod.clone()), &[]);
        check(
            "",
            "pods",
            named("a", json!({"containers": [{"name": "c"}, {"name": "c", "image": "i"}]})),
            &["spec.containers[0].image", "spec.containers[1].name"],
        );
        let unlabelled = named("a", json!({"template": {"spec": pod}}));
        check("apps", "deployments", unlabelled, &["spec.selector", "spec.template.metadata.labels"]);
        check(
            "apps",
            "deployments",
            named(
                "a",
                json!({"selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "y"}}, "spec": pod}}),
            ),
            &["spec.template.metadata.labels"],
        );
        check(
            "batch",
            "jobs",
            named(
                "a",
                json!({"manualSelector": true, "template": {"spec": {"restartPolicy": "Always",
            "containers": [{"name": "c", "image": "i"}]}}}),
            ),
            &["spec.template.spec.restartPolicy"],
        );
        // A job restored with the labels of its former self.
        let former = json!({"controller-uid": "old", "job-name": "a", "batch.kubernetes.io/controller-uid": "old",
            "batch.kubernetes.io/job-name": "a"});
        let job = json!({"metadata": {"name": "a", "uid": "new"}, "spec": {
            "selector": {"matchLabels": {"controller-uid": "old"}}, "template": {"metadata": {"labels": former},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        let labels = "spec.template.metadata.labels";
        check("batch", "jobs", job, &[labels, labels, "spec.selector"]);
    }

    #[test]
    fn what_may_not_change_does_not() {
        let kinds = Kinds::default();
        let check = |group: &str, plural: &str, old: Value, new: Value, expect: &[&str]| {
            let kind = kinds.get(group, plural).unwrap();
            assert_eq!(fields(change(kind, &old, &new, Part::Main)), expect, "{new}");
        };
        let spec = |spec: Value| json!({ "spec": spec });
        check(
            "apps",
            "deployments",
            spec(json!({"selector": {"a": 1}})),
            spec(json!({"selector": {"a": 2}})),
            &["spec.selector"],
        );
        check("apps", "statefulsets", spec(json!({"replicas": 1})), spec(json!({"replicas": 2})), &[]);
        check(
            "apps",
            "statefulsets",
            spec(json!({"serviceName": "a"})),
            spec(json!({"serviceName": "b"})),
            &["spec"],
        );
        check("", "persistentvolumeclaims", spec(json!({})), spec(json!({"volumeName": "pv"})), &[]);
        check(
            "",
            "persistentvolumeclaims",
            spec(json!({"volumeName": "pv"})),
            spec(json!({"volumeName": "other"})),
            &["spec"],
        );
        check(
            "",
            "pods",
            spec(json!({"containers": [{"name": "a", "image": "1"}]})),
            spec(json!({"containers": [{"name": "a", "image": "2"}]})),
            &[],
        );
        check("", "pods", spec(json!({"nodeName": "a"})), spec(json!({"nodeName": "b"})), &["spec"]);
        check(
            "",
            "secrets",
            json!({"immutable": true, "data": {"a": "1"}}),
            json!({"immutable": true, "data": {"a": "2"}}),
            &["data"],
        );
    }
}
