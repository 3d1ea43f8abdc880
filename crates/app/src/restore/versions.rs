//! From the API version an object was stored in to one the target serves.
//!
//! The API server converts between the versions it serves; we cannot ask it to convert from one it no longer
//! knows. What we do ourselves is only what cannot change the meaning: versions whose fields are the same,
//! the few well-known moves of built-in kinds, and custom kinds whose definition says that versions differ
//! in name only. Everything else is left out of the plan and told.

use serde_json::{Value, json};

use crate::api::{ApiResources, ResourceType};
use crate::object::{Gvk, Object};

/// How an object can be applied on the target.
#[derive(Debug, Clone, PartialEq)]
pub enum Served {
    /// As it is, or converted: the type to use, the object in that version, and what was done, if anything.
    As(Box<ResourceType>, Box<Object>, Option<String>),
    /// Not at all, for this reason.
    Not(String),
}

/// Versions of one kind with the same fields and the same meaning; newest first.
const SAME: &[(&str, &str, &[&str])] = &[
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", &["v1", "v1beta1"]),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", &["v1", "v1beta1"]),
    ("apiregistration.k8s.io", "APIService", &["v1", "v1beta1"]),
    ("apps", "ControllerRevision", &["v1", "v1beta2", "v1beta1"]),
    ("apps", "DaemonSet", &["v1", "v1beta2"]),
    ("apps", "Deployment", &["v1", "v1beta2", "v1beta1"]),
    ("apps", "ReplicaSet", &["v1", "v1beta2"]),
    ("apps", "StatefulSet", &["v1", "v1beta2", "v1beta1"]),
    ("autoscaling", "HorizontalPodAutoscaler", &["v2", "v2beta2"]),
    ("batch", "CronJob", &["v1", "v1beta1"]),
    ("coordination.k8s.io", "Lease", &["v1", "v1beta1"]),
    ("gateway.networking.k8s.io", "Gateway", &["v1", "v1beta1"]),
    ("gateway.networking.k8s.io", "GatewayClass", &["v1", "v1beta1"]),
    ("gateway.networking.k8s.io", "HTTPRoute", &["v1", "v1beta1"]),
    ("networking.k8s.io", "IngressClass", &["v1", "v1beta1"]),
    ("networking.k8s.io", "NetworkPolicy", &["v1"]),
    ("node.k8s.io", "RuntimeClass", &["v1", "v1beta1"]),
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
];

/// Where the kinds of the old `extensions` group live now.
fn home(group: &str, kind: &str) -> &'static str {
    match (group, kind) {
        ("extensions", "Ingress" | "NetworkPolicy") => "networking.k8s.io",
        ("extensions", "Deployment" | "DaemonSet" | "ReplicaSet") => "apps",
        ("extensions", "PodSecurityPolicy") => "policy",
        _ => "",
    }
}

/// Finds how the target serves this object. `definition` is the kind's custom resource definition, on the
/// target or in the same plan.
pub fn serve(object: &Object, target: &ApiResources, definition: Option<&Value>) -> Served {
    let gvk = object.gvk();
    if let Some(resource) = target.find_version(&gvk) {
        return Served::As(Box::new(resource.clone()), Box::new(object.clone()), None);
    }
    if let Some(definition) = definition {
        return by_definition(object, &gvk, definition);
    }
    let moved = home(&gvk.group, &gvk.kind);
    let groups = [gvk.group.as_str(), moved];
    let known: Vec<&ResourceType> = target
        .types
        .iter()
        .filter(|t| {
            t.kind == gvk.kind
                && groups.contains(&t.group.as_str())
                && (!t.group.is_empty() || gvk.group.is_empty())
        })
        .collect();
    if known.is_empty() {
        let broken =
            target.broken.iter().find(|b| b.group_version.split('/').next() == Some(gvk.group.as_str()));
        return Served::Not(match broken {
            Some(broken) => format!(
                "the target announces {} but it does not answer ({}); restore again when it does",
                broken.group_version, broken.message
            ),
            None => format!(
                "the target does not know {} of {:?}; install what defines it, then restore again",
                gvk.kind, gvk.group
            ),
        });
    }
    let converted = known.iter().find_map(|resource| {
        let value = convert(&object.0, &gvk, resource)?;
        Some(((*resource).clone(), Object(value)))
    });
    match converted {
        Some((resource, object)) => {
            let note = format!("stored as {}, applied as {}", gvk.api_version(), resource.api_version());
            Served::As(Box::new(resource), Box::new(object), Some(note))
        }
        None => {
            let versions: Vec<String> = known.iter().map(|t| t.api_version()).collect();
            Served::Not(format!(
                "it was stored as {}, the target serves {}, and no conversion between them is safe; convert it by \
                 hand from `export`",
                gvk.api_version(),
                versions.join(", ")
            ))
        }
    }
}

/// A custom kind: its definition says which versions there are and whether they differ in more than the name.
fn by_definition(object: &Object, gvk: &Gvk, definition: &Value) -> Served {
    let text = |pointer| definition.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let resource = |version: &str| ResourceType {
        group: gvk.group.clone(),
        version: version.to_owned(),
        kind: gvk.kind.clone(),
        plural: text("/spec/names/plural").to_owned(),
        namespaced: text("/spec/scope") == "Namespaced",
        preferred: true,
        verbs: ["create", "delete", "get", "list", "patch", "update", "watch"].map(str::to_owned).to_vec(),
        ..ResourceType::default()
    };
    let listed =
        definition.pointer("/spec/versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let served: Vec<&str> = listed
        .iter()
        .filter(|version| version.get("served").and_then(Value::as_bool) == Some(true))
        .filter_map(|version| version.get("name")?.as_str())
        .collect();
    let storage = listed
        .iter()
        .find(|version| version.get("storage").and_then(Value::as_bool) == Some(true))
        .and_then(|version| version.get("name")?.as_str());
    if served.contains(&gvk.version.as_str()) {
        return Served::As(Box::new(resource(&gvk.version)), Box::new(object.clone()), None);
    }
    let by_name_only = matches!(text("/spec/conversion/strategy"), "" | "None");
    let other = storage.filter(|version| served.contains(version)).or(served.first().copied());
    match other {
        Some(version) if by_name_only => {
            let resource = resource(version);
            let mut converted = object.clone();
            set_version(&mut converted.0, &resource);
            let note = format!(
                "stored as {}, applied as {}: its definition says the versions differ in name only",
                gvk.api_version(),
                resource.api_version()
            );
            Served::As(Box::new(resource), Box::new(converted), Some(note))
        }
        Some(_) => Served::Not(format!(
            "it was stored as {}, the target serves {} and converts by a webhook that we cannot ask; restore the \
             definition of the point first, or convert by hand from `export`",
            gvk.api_version(),
            served.join(", ")
        )),
        None => Served::Not(format!("its definition {} serves no version", text("/metadata/name"))),
    }
}

fn set_version(object: &mut Value, resource: &ResourceType) {
    if let Value::Object(fields) = object {
        fields.insert("apiVersion".into(), resource.api_version().into());
    }
}

/// The object in another version of its kind, if that is safe.
fn convert(object: &Value, from: &Gvk, to: &ResourceType) -> Option<Value> {
    let mut converted = object.clone();
    set_version(&mut converted, to);
    let same = SAME.iter().any(|(group, kind, versions)| {
        *group == to.group
            && *kind == to.kind
            && versions.contains(&to.version.as_str())
            && (versions.contains(&from.version.as_str()) || from.group == "extensions")
    });
    match (to.kind.as_str(), from.version.as_str(), to.version.as_str()) {
        // The one thing that changed its meaning: no selector term was nothing in v1beta1 and is everything in v1.
        ("PodDisruptionBudget", ..) if empty_selector(object) => None,
        ("CronJob", "v1", "v1beta1") if object.pointer("/spec/timeZone").is_some() => None,
        ("Ingress", "v1beta1", "v1") => ingress_to_v1(&mut converted).then_some(converted),
        ("Ingress", "v1", "v1beta1") => ingress_to_v1beta1(&mut converted).then_some(converted),
        ("HorizontalPodAutoscaler", "v1", "v2" | "v2beta2") => {
            autoscaler_to_v2(&mut converted);
            Some(converted)
        }
        _ => same.then_some(converted),
    }
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

fn autoscaler_to_v2(autoscaler: &mut Value) {
    if let Some(Value::Object(spec)) = autoscaler.get_mut("spec")
        && let Some(percent) = spec.shift_remove("targetCPUUtilizationPercentage")
    {
        spec.insert(
            "metrics".into(),
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}]),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(types: &[(&str, &str)]) -> ApiResources {
        let types = types
            .iter()
            .map(|(api_version, kind)| {
                let gvk = Gvk::parse(api_version, kind);
                ResourceType {
                    group: gvk.group,
                    version: gvk.version,
                    kind: gvk.kind,
                    preferred: true,
                    ..Default::default()
                }
            })
            .collect();
        ApiResources { types, ..Default::default() }
    }

    /// `want`: the spec expected in the only version served, or a part of the reason why not.
    fn check(story: &str, object: Value, serves: &str, want: Result<Value, &str>) {
        let object = Object(object);
        let target = target(&[(serves, &object.gvk().kind)]);
        match (serve(&object, &target, None), want) {
            (Served::As(resource, got, _), Ok(want)) => {
                assert_eq!(resource.api_version(), serves, "{story}");
                assert_eq!(got.str("/apiVersion"), serves, "{story}");
                assert_eq!(got.at("/spec"), Some(&want), "{story}");
            }
            (Served::Not(reason), Err(want)) => assert!(reason.contains(want), "{story}: {reason}"),
            (got, want) => panic!("{story}: {got:?}, expected {want:?}"),
        }
    }

    #[test]
    fn an_object_of_an_old_version_comes_back_where_that_is_safe() {
        let object = |api_version: &str, kind: &str, spec: Value| json!({"apiVersion": api_version, "kind": kind, "spec": spec});
        check(
            "the same version",
            object("apps/v1", "Deployment", json!({"a": 1})),
            "apps/v1",
            Ok(json!({"a": 1})),
        );
        check(
            "an old cron job",
            object("batch/v1beta1", "CronJob", json!({"a": 1})),
            "batch/v1",
            Ok(json!({"a": 1})),
        );
        check(
            "a new one on an old cluster",
            object("batch/v1", "CronJob", json!({"a": 1})),
            "batch/v1beta1",
            Ok(json!({"a": 1})),
        );
        check(
            "a new one whose time zone an old cluster would drop",
            object("batch/v1", "CronJob", json!({"timeZone": "Europe/Berlin"})),
            "batch/v1beta1",
            Err("no conversion between them is safe"),
        );
        let selector = json!({"selector": {"matchLabels": {"a": "b"}}});
        check(
            "a budget",
            object("policy/v1beta1", "PodDisruptionBudget", selector.clone()),
            "policy/v1",
            Ok(selector),
        );
        check(
            "a budget whose selector would mean the opposite",
            object("policy/v1beta1", "PodDisruptionBudget", json!({"selector": {}})),
            "policy/v1",
            Err("no conversion between them is safe"),
        );
        let old = json!({"backend": {"serviceName": "d", "servicePort": "http"}, "rules": [{"http": {"paths": [{"path": "/", "backend": {"serviceName": "w", "servicePort": 80}}]}}]});
        let new = json!({"rules": [{"http": {"paths": [{"path": "/", "backend": {"service": {"name": "w", "port": {"number": 80}}}, "pathType": "ImplementationSpecific"}]}}],
            "defaultBackend": {"service": {"name": "d", "port": {"name": "http"}}}});
        check(
            "an ingress of long ago",
            object("extensions/v1beta1", "Ingress", old.clone()),
            "networking.k8s.io/v1",
            Ok(new.clone()),
        );
        check(
            "an ingress of old",
            object("networking.k8s.io/v1beta1", "Ingress", old.clone()),
            "networking.k8s.io/v1",
            Ok(new.clone()),
        );
        let mut back = old;
        back["rules"][0]["http"]["paths"][0]["pathType"] = json!("ImplementationSpecific");
        check(
            "and back",
            object("networking.k8s.io/v1", "Ingress", new),
            "networking.k8s.io/v1beta1",
            Ok(back),
        );
        check(
            "an autoscaler",
            object(
                "autoscaling/v1",
                "HorizontalPodAutoscaler",
                json!({"minReplicas": 1, "targetCPUUtilizationPercentage": 80}),
            ),
            "autoscaling/v2",
            Ok(
                json!({"minReplicas": 1, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}),
            ),
        );
        check(
            "a definition of old",
            object("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition", json!({})),
            "apiextensions.k8s.io/v1",
            Err("no conversion between them is safe"),
        );
        check(
            "a stranger of the same name",
            object("example.com/v1", "Service", json!({})),
            "v1",
            Err("does not know Service"),
        );
    }

    #[test]
    fn a_custom_kind_goes_by_its_definition() {
        let definition = |strategy: &str, served: &[&str]| {
            let versions: Vec<Value> = served
                .iter()
                .enumerate()
                .map(|(i, v)| json!({"name": v, "served": true, "storage": i == 0}))
                .collect();
            json!({"metadata": {"name": "things.example.com"}, "spec": {"scope": "Namespaced", "names": {"plural": "things"},
                "conversion": {"strategy": strategy}, "versions": versions}})
        };
        let object = Object(json!({"apiVersion": "example.com/v1alpha1", "kind": "Thing", "spec": {}}));
        let cases = [
            ("None", vec!["v1", "v1alpha1"], Some("example.com/v1alpha1")),
            ("None", vec!["v1"], Some("example.com/v1")),
            ("Webhook", vec!["v1"], None),
            ("None", vec![], None),
        ];
        for (strategy, served, want) in cases {
            let got = match serve(&object, &ApiResources::default(), Some(&definition(strategy, &served))) {
                Served::As(resource, object, _) => {
                    assert_eq!(
                        resource.path(Some("n")),
                        format!("/apis/{}/namespaces/n/things", object.str("/apiVersion"))
                    );
                    Some(object.str("/apiVersion").to_owned())
                }
                Served::Not(_) => None,
            };
            assert_eq!(got.as_deref(), want, "{strategy} {served:?}");
        }
    }
}
