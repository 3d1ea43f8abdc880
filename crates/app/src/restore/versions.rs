//! From the API version an object was stored in to one the target serves.
//!
//! The API server converts between the versions it serves; we cannot ask it to convert from one it no longer
//! knows. What we do ourselves is only what cannot change the meaning: versions whose fields are the same,
//! the few well-known moves of built-in kinds, and custom kinds whose definition says that versions differ
//! in name only. Everything else is left out of the plan and told.

use serde_json::Value;

use crate::api::{ApiResources, ResourceType};
use crate::object::{Gvk, Object};

use super::convert::convert;

/// How an object can be applied on the target.
#[derive(Debug, Clone, PartialEq)]
pub enum Served {
    /// As it is, or converted: the type to use, the object in that version, and what was done, if anything.
    As(Box<ResourceType>, Box<Object>, Option<String>),
    /// Not at all, for this reason.
    Not(String),
}

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
    let listed =
        definition.pointer("/spec/versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let resource = |version: &str| ResourceType {
        group: gvk.group.clone(),
        version: version.to_owned(),
        kind: gvk.kind.clone(),
        plural: text("/spec/names/plural").to_owned(),
        namespaced: text("/spec/scope") == "Namespaced",
        preferred: true,
        verbs: ["create", "delete", "get", "list", "patch", "update", "watch"].map(str::to_owned).to_vec(),
        subresources: listed
            .iter()
            .filter(|listed| listed.get("name").and_then(Value::as_str) == Some(version))
            .filter_map(|listed| {
                listed.get("subresources").or_else(|| definition.pointer("/spec/subresources"))
            })
            .filter_map(Value::as_object)
            .flat_map(|names| names.keys().cloned())
            .collect(),
        ..ResourceType::default()
    };
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

/// Two objects of one kind in one version of it: that of the second where the first can be had in it without a loss, else
/// that of the first; none if neither can. `definition` is that of a custom kind.
pub(crate) fn in_one_version(
    first: &Object,
    second: &Object,
    definition: Option<&Value>,
) -> Option<(Object, Object)> {
    if let Some(first) = in_version(first, &second.gvk(), definition) {
        return Some((first, second.clone()));
    }
    in_version(second, &first.gvk(), definition).map(|second| (first.clone(), second))
}

/// An object in another version of its kind, if that loses nothing.
pub(crate) fn in_version(object: &Object, to: &Gvk, definition: Option<&Value>) -> Option<Object> {
    if object.gvk() == *to {
        return Some(object.clone());
    }
    let resource = ResourceType {
        group: to.group.clone(),
        version: to.version.clone(),
        kind: to.kind.clone(),
        ..ResourceType::default()
    };
    let Some(definition) = definition else {
        return convert(&object.0, &object.gvk(), &resource).map(Object);
    };
    let strategy = definition.pointer("/spec/conversion/strategy").and_then(Value::as_str);
    matches!(strategy, None | Some("None")).then(|| {
        let mut converted = object.clone();
        set_version(&mut converted.0, &resource);
        converted
    })
}

pub(super) fn set_version(object: &mut Value, resource: &ResourceType) {
    if let Value::Object(fields) = object {
        fields.insert("apiVersion".into(), resource.api_version().into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    fn two_objects_meet_in_the_version_that_can_say_what_both_say() {
        let scaler = |api: &str, spec: Value| {
            Object(json!({"apiVersion": api, "kind": "HorizontalPodAutoscaler", "spec": spec}))
        };
        let cpu = |percent: u32| json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}]});
        let simple = scaler("autoscaling/v1", json!({"targetCPUUtilizationPercentage": 80}));
        let mut held = cpu(80);
        held["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 1}});
        let pods = json!({"metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}}]});
        let old_pods =
            json!({"metrics": [{"type": "Pods", "pods": {"metricName": "m", "targetAverageValue": "1"}}]});
        for (story, first, second, want) in [
            ("up", simple.clone(), scaler("autoscaling/v2", cpu(80)), Some("autoscaling/v2")),
            (
                "down, as the second is",
                scaler("autoscaling/v2", cpu(80)),
                simple.clone(),
                Some("autoscaling/v1"),
            ),
            (
                "up, as only the newer can say it",
                scaler("autoscaling/v2", held.clone()),
                simple,
                Some("autoscaling/v2"),
            ),
            (
                "through the middle",
                scaler("autoscaling/v2beta1", old_pods),
                scaler("autoscaling/v2", pods),
                Some("autoscaling/v2"),
            ),
            (
                "as they are",
                scaler("autoscaling/v2", held.clone()),
                scaler("autoscaling/v2", held),
                Some("autoscaling/v2"),
            ),
        ] {
            let got = in_one_version(&first, &second, None);
            let versions = got.as_ref().map(|(a, b)| (a.str("/apiVersion"), b.str("/apiVersion")));
            assert_eq!(versions, want.map(|want| (want, want)), "{story}");
        }
        let job = |api: &str, zone: Option<&str>| {
            Object(json!({"apiVersion": api, "kind": "CronJob", "spec": {"timeZone": zone}}))
        };
        let budget = |api: &str| {
            Object(json!({"apiVersion": api, "kind": "PodDisruptionBudget", "spec": {"selector": {}}}))
        };
        assert!(in_one_version(&job("batch/v1beta1", None), &job("batch/v1", Some("UTC")), None).is_some());
        assert!(
            in_one_version(&budget("policy/v1"), &budget("policy/v1beta1"), None).is_none(),
            "one is everything, the other nothing"
        );
        let thing =
            |version: &str| Object(json!({"apiVersion": format!("example.com/{version}"), "kind": "Thing"}));
        let definition = |strategy: &str| json!({"spec": {"conversion": {"strategy": strategy}}});
        assert!(in_one_version(&thing("v1"), &thing("v2"), Some(&definition("None"))).is_some());
        assert!(in_one_version(&thing("v1"), &thing("v2"), Some(&definition("Webhook"))).is_none());
        assert!(in_one_version(&thing("v1"), &thing("v2"), None).is_none(), "nobody knows it");
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
