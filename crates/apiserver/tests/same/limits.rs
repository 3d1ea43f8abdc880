//! Limits, quotas, priorities, and everything a schema can say.

use serde_json::{Value, json};

use crate::Step;
use crate::steps::{MERGE, get, made, patch, post};

const PODS: &str = "/api/v1/namespaces/bounded/pods";

fn inside(rest: &str) -> String {
    format!("/api/v1/namespaces/bounded/{rest}")
}

fn pod(name: &str, spec: Value) -> Value {
    let mut whole =
        json!({"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "x:1"}]});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": whole})
}

fn with(resources: Value) -> Value {
    json!({"containers": [{"name": "c", "image": "x:1", "resources": resources}]})
}

pub fn admission() -> Vec<Step> {
    let range = |name: &str, limits: Value| json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name}, "spec": {"limits": limits}});
    let quota = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec});
    let class = |name: &str, value: i64| json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value});
    let claim = |name: &str, size: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
    };
    vec![
        post(
            "bounded namespace",
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bounded"}}),
        ),
        get("its account", &inside("serviceaccounts/default")).own_words(),
        post("priority class", "/apis/scheduling.k8s.io/v1/priorityclasses", class("same-high", 1000)),
        post("pod of a class", PODS, pod("high", json!({"priorityClassName": "same-high"}))),
        post("pod of no class", PODS, pod("q", json!({"priorityClassName": "same-none"}))),
        post(
            "limit range",
            &inside("limitranges"),
            range(
                "l",
                json!([{"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m", "memory": "64Mi"},
                    "min": {"cpu": "50m"}, "max": {"cpu": "1", "memory": "1Gi"}, "maxLimitRequestRatio": {"cpu": "10"}},
                    {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "10Gi"}}]),
            ),
        ),
        post("limited pod", PODS, pod("limited", json!({}))),
        post(
            "pod with its own limits",
            PODS,
            pod("own", with(json!({"limits": {"cpu": "200m"}, "requests": {"memory": "128Mi"}}))),
        ),
        post("too much", PODS, pod("q", with(json!({"limits": {"cpu": "2"}})))).own_words(),
        post("too little", PODS, pod("q", with(json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "60m"}})))),
        post("too wide", PODS, pod("q", with(json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "600m"}})))),
        post("small claim", &inside("persistentvolumeclaims"), claim("small", "1Mi")),
        post("fitting claim", &inside("persistentvolumeclaims"), claim("fit", "2Gi")),
        post(
            "quota",
            &inside("resourcequotas"),
            quota("q", json!({"hard": {"pods": "4", "requests.memory": "1Gi", "limits.cpu": "2", "configmaps": "3",
                "persistentvolumeclaims": "1", "requests.storage": "5Gi", "services.nodeports": "1", "count/deployments.apps": "20"}})),
        )
        .own_words(),
        get("counted", &inside("resourcequotas/q")).counted(),
        post("one more pod", PODS, pod("four", with(json!({"limits": {"cpu": "100m", "memory": "100Mi"}})))),
        post("one pod too many", PODS, pod("five", with(json!({"limits": {"cpu": "100m", "memory": "100Mi"}})))),
        post("one claim too many", &inside("persistentvolumeclaims"), claim("second", "2Gi")),
        post(
            "two node ports",
            &inside("services"),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "np"}, "spec": {"type": "NodePort",
                "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}}),
        ),
        post(
            "one conf",
            &inside("configmaps"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}),
        ),
        post(
            "another conf",
            &inside("configmaps"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two"}}),
        ),
        post(
            "a conf too many",
            &inside("configmaps"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "three"}}),
        ),
        get("counted again", &inside("resourcequotas/q")).counted(),
        patch("a larger quota", &inside("resourcequotas/q"), MERGE, json!({"spec": {"hard": {"pods": "9"}}}))
            .own_words(),
        get("larger", &inside("resourcequotas/q")).counted(),
        post("now it fits", PODS, pod("five", with(json!({"limits": {"cpu": "100m", "memory": "100Mi"}}))))
            .patient(),
        post(
            "quota for the short-lived",
            &inside("resourcequotas"),
            quota("short", json!({"hard": {"pods": "0"}, "scopes": ["Terminating"]})),
        )
        .own_words(),
        get("counts none", &inside("resourcequotas/short")).counted(),
        post(
            "short-lived pod",
            PODS,
            pod("short", json!({"activeDeadlineSeconds": 5, "containers": [{"name": "c", "image": "x:1",
                "resources": {"limits": {"cpu": "100m", "memory": "1Mi"}}}]})),
        ),
        crate::steps::delete("end of bounds", "/api/v1/namespaces/bounded"),
        crate::steps::delete("end of the class", "/apis/scheduling.k8s.io/v1/priorityclasses/same-high"),
    ]
}

pub fn schemas() -> Vec<Step> {
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let spec = json!({"type": "object", "properties": {
        "pattern": {"type": "string", "pattern": "^[a-z]+$"},
        "ip": {"type": "string", "format": "ipv4"},
        "when": {"type": "string", "format": "date-time"},
        "over": {"type": "integer", "minimum": 3, "exclusiveMinimum": true},
        "step": {"type": "integer", "multipleOf": 5},
        "some": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string", "maxLength": 3}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}}},
        "few": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
        "port": {"x-kubernetes-int-or-string": true},
        "either": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "any": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "never": {"type": "integer", "not": {"enum": [7]}},
        "maybe": {"type": "string", "nullable": true},
        "count": {"type": "integer"}}});
    let version = |name: &str, storage: bool, spec: &Value| {
        json!({"name": name, "served": true, "storage": storage,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count", "labelSelectorPath": ".status.selector"}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": {"type": "object",
                "properties": {"count": {"type": "integer"}, "selector": {"type": "string"}}}}}}})
    };
    let old = json!({"type": "object", "properties": {"count": {"type": "integer"}, "mode": {"type": "string", "default": "plain"}}});
    let gauges = "/apis/schema.same.io/v1/namespaces/same/gauges";
    let gauge = |name: &str, spec: Value| json!({"apiVersion": "schema.same.io/v1", "kind": "Gauge", "metadata": {"name": name}, "spec": spec});
    let bad = |name: &'static str, spec: Value| post(name, gauges, gauge("bad", spec));
    let one = |rest: &str| format!("{gauges}/{rest}");
    let default = |name: &'static str, default: Value| {
        let spec = json!({"type": "object", "default": default, "required": ["a"], "properties": {
            "a": {"type": "string", "maxLength": 3}, "b": {"type": "string", "default": "b"}}});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gauges.schema.same.io"},
            "spec": {"group": "schema.same.io", "scope": "Namespaced", "names": {"plural": "gauges", "kind": "Gauge"}, "versions": [version("v1", true, &spec)]}});
        post(name, definitions, definition)
    };
    vec![
        default("a default of another type", json!({"a": 1})),
        default("a default that lacks what is required", json!({"b": "x"})),
        default("a default that is too long", json!({"a": "abcd"})).own_words(),
        default("a default with more than its fields", json!({"a": "x", "c": "x"})).own_words(),
        post(
            "define gauges",
            definitions,
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gauges.schema.same.io"},
                "spec": {"group": "schema.same.io", "scope": "Namespaced", "names": {"plural": "gauges", "kind": "Gauge"},
                    "versions": [version("v1", true, &spec), version("v1beta1", false, &old)]}}),
        )
        .own_words(),
        get("gauges are served", "/apis/schema.same.io/v1"),
        bad("no match", json!({"pattern": "A1"})),
        bad("no address", json!({"ip": "1.2.3"})),
        bad("no time", json!({"when": "yesterday"})),
        bad("not over", json!({"over": 3})),
        bad("no step", json!({"step": 7})),
        bad("too few", json!({"some": []})),
        bad("too many", json!({"some": ["a", "b", "c"]})),
        bad("too long", json!({"some": ["abcd"]})).differs("1.20 does not tell positions in lists"),
        bad("twice in a set", json!({"set": ["a", "b", "a"]})),
        bad("twice by its key", json!({"keyed": [{"name": "a"}, {"name": "a", "v": 1}]}))
            .differs("1.20 writes the key as Go writes a map"),
        bad("too many members", json!({"few": {"a": "1", "b": "2"}})),
        bad("neither", json!({"either": {}})).own_words(),
        bad("both", json!({"either": {"a": 1, "b": 2}})),
        bad("none of any", json!({"any": {}})).own_words(),
        bad("never seven", json!({"never": 7})),
        bad("null that may not be", json!({"count": null, "pattern": null})),
        post(
            "a gauge that fits",
            gauges,
            gauge("g", json!({"pattern": "abc", "ip": "10.0.0.1", "when": "2026-01-01T00:00:00Z", "over": 4, "step": 10,
                "some": ["a"], "set": ["a", "b"], "keyed": [{"name": "a"}], "few": {"a": "1"}, "port": "http",
                "either": {"b": 1}, "any": {"a": 1, "b": 2}, "never": 8, "maybe": null, "count": 3})),
        ),
        get("its scale", &one("g/scale")),
        patch("rescale it", &one("g/scale"), MERGE, json!({"spec": {"replicas": 5}})),
        patch(
            "its status",
            &one("g/status"),
            MERGE,
            json!({"status": {"count": 4, "selector": "app=x", "typo": 1}}),
        ),
        get("its scale now", &one("g/scale")),
        made("rescale it by put", "PUT", &one("g/scale"), |seen| {
            let mut scale = seen["its scale now"].clone();
            scale["spec"]["replicas"] = json!(7);
            scale
        }),
        get("rescaled", &one("g")),
        get("seen as the older version", "/apis/schema.same.io/v1beta1/namespaces/same/gauges/g"),
        post(
            "made as the older version",
            "/apis/schema.same.io/v1beta1/namespaces/same/gauges",
            json!({"apiVersion": "schema.same.io/v1beta1", "kind": "Gauge", "metadata": {"name": "older"}, "spec": {"count": 1, "mode": "x"}}),
        ),
        get("older one seen as the newer", &one("older")),
        get("all as the older version", "/apis/schema.same.io/v1beta1/namespaces/same/gauges"),
        get("one page", &format!("{gauges}?limit=1")).own_words(),
        crate::steps::delete("undefine gauges", &format!("{definitions}/gauges.schema.same.io")).own_words(),
    ]
}
