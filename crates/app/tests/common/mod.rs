//! A cluster in a few words: `deploy web app=shop secret:s; secret s` is a Deployment that mounts a Secret, both in
//! namespace `shop`, on an embedded API server.
#![allow(dead_code)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests: clippy knows only test functions as tests.

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use serde_json::{Value, json};

/// A server with these objects.
pub fn server(objects: &str) -> ApiServer {
    server_with(Options::deterministic(1), objects)
}

/// The same with options.
pub fn server_with(options: Options, objects: &str) -> ApiServer {
    let server = ApiServer::new(options);
    let mut all: Vec<Value> =
        objects.split([';', '\n']).map(str::trim).filter(|l| !l.is_empty()).map(object).collect();
    let mut namespaces: Vec<String> =
        all.iter().filter_map(|o| o["metadata"]["namespace"].as_str().map(str::to_owned)).collect();
    namespaces.sort();
    namespaces.dedup();
    for name in namespaces {
        if !all.iter().any(|o| o["kind"] == "Namespace" && o["metadata"]["name"] == name.as_str()) {
            all.push(json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":name}}));
        }
    }
    let refused = server.load(all);
    assert!(refused.is_empty(), "{refused:?}");
    server
}

/// A client without a socket, and what the server serves.
pub async fn cluster(server: &ApiServer) -> Cluster {
    Cluster::connect(kube::Client::new(server.router(), "default")).await.unwrap()
}

/// One object from its words.
pub fn object(line: &str) -> Value {
    let mut words = line.split_whitespace();
    let (kind, name) =
        (words.next().unwrap(), words.next().unwrap_or_else(|| panic!("{line:?} has no name")));
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    let mut labels = json!({});
    let mut uses: Vec<(String, String)> = Vec::new();
    for word in words {
        match word.split_once(':') {
            Some((what, target)) => uses.push((what.into(), target.into())),
            None => {
                let (label, value) = word.split_once('=').unwrap_or_else(|| panic!("{word:?} in {line:?}"));
                labels[label] = json!(value);
            }
        }
    }
    let used =
        |what: &str| uses.iter().filter(|(w, _)| w == what).map(|(_, t)| t.clone()).collect::<Vec<_>>();
    let one = |what: &str| used(what).into_iter().next();
    let selector = || -> Value {
        used("sel")
            .iter()
            .filter_map(|s| s.split_once('='))
            .map(|(k, v)| (k.to_owned(), json!(v)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    let (api_version, kind, rest) = match kind {
        "deploy" | "sts" | "ds" => {
            let mut spec = json!({"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod_spec(&uses)}});
            if kind == "ds" {
                spec.as_object_mut().unwrap().remove("replicas");
            }
            if let Some(template) = one("template") {
                spec["volumeClaimTemplates"] = json!([{"metadata":{"name":template},"spec":{}}]);
            }
            let kind = match kind {
                "deploy" => "Deployment",
                "sts" => "StatefulSet",
                _ => "DaemonSet",
            };
            ("apps/v1", kind, json!({ "spec": spec }))
        }
        "rs" => (
            "apps/v1",
            "ReplicaSet",
            json!({"spec":{"replicas":0,"template":{"metadata":{"labels":labels},"spec":pod_spec(&uses)}}}),
        ),
        "job" => (
            "batch/v1",
            "Job",
            json!({"spec":{"template":{"metadata":{"labels":labels},"spec":pod_spec(&uses)}}}),
        ),
        "pod" => (
            "v1",
            "Pod",
            json!({"spec": pod_spec(&uses), "status":{"phase": one("phase").unwrap_or("Running".into())}}),
        ),
        "svc" => ("v1", "Service", json!({"spec":{"selector": selector(), "ports":[{"port":80}]}})),
        "np" => (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec":{"podSelector":{"matchLabels":selector()}}}),
        ),
        "pdb" => {
            ("policy/v1", "PodDisruptionBudget", json!({"spec":{"selector":{"matchLabels":selector()}}}))
        }
        "hpa" => (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":one("scales")}}}),
        ),
        "ing" => (
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec":{"ingressClassName":one("class"),"tls":used("tls").iter().map(|s| json!({"secretName":s})).collect::<Vec<_>>(),
                "rules":used("svc").iter().map(|s| json!({"http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":s,"port":{"number":80}}}}]}})).collect::<Vec<_>>()}}),
        ),
        "rb" | "crb" => {
            let role =
                one("role").map(|r| json!({"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":r}));
            let role = role.or(one("clusterrole")
                .map(|r| json!({"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":r})));
            let subjects: Vec<Value> = used("sa")
                .iter()
                .map(|sa| {
                    let (namespace, name) = sa.split_once('/').unwrap_or(("shop", sa));
                    json!({"kind":"ServiceAccount","namespace":namespace,"name":name})
                })
                .collect();
            (
                rbac,
                if kind == "rb" { "RoleBinding" } else { "ClusterRoleBinding" },
                json!({"roleRef":role,"subjects":subjects}),
            )
        }
        "pvc" => (
            "v1",
            "PersistentVolumeClaim",
            json!({"spec":{"storageClassName":one("class"),"volumeName":one("pv"),"resources":{"requests":{"storage":"1Gi"}}},"status":{"phase":if one("pv").is_some() {"Bound"} else {"Pending"}}}),
        ),
        "pv" => (
            "v1",
            "PersistentVolume",
            json!({"spec":{"capacity":{"storage":"1Gi"},"hostPath":{"path":one("path")}}}),
        ),
        "sc" => (
            "storage.k8s.io/v1",
            "StorageClass",
            json!({"provisioner":one("by").unwrap_or("disk.example.com".into())}),
        ),
        "prio" => ("scheduling.k8s.io/v1", "PriorityClass", json!({"value":1000})),
        "ingclass" => ("networking.k8s.io/v1", "IngressClass", json!({"spec":{"controller":"x.io/y"}})),
        "role" => (rbac, "Role", json!({"rules":[]})),
        "clusterrole" => (rbac, "ClusterRole", json!({"rules":[]})),
        "sa" => (
            "v1",
            "ServiceAccount",
            json!({"imagePullSecrets":used("pull").iter().map(|s| json!({"name":s})).collect::<Vec<_>>()}),
        ),
        "secret" => ("v1", "Secret", json!({"data":{"k":"eA=="}})),
        "cm" => ("v1", "ConfigMap", json!({"data":{"text":used("text").join(" ")}})),
        "ns" => ("v1", "Namespace", json!({})),
        "event" => ("v1", "Event", json!({"reason":"x"})),
        "crd" => (
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            json!({"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"things","singular":"thing","kind":"Thing"},
                "versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}),
        ),
        "thing" => ("example.com/v1", "Thing", json!({"spec":{"secretName":one("secret")}})),
        other => panic!("{other:?} in {line:?} is no word of this language"),
    };
    let is_cluster_scoped = [
        "PersistentVolume",
        "StorageClass",
        "PriorityClass",
        "IngressClass",
        "ClusterRole",
        "ClusterRoleBinding",
        "Namespace",
        "CustomResourceDefinition",
    ]
    .contains(&kind);
    let mut object =
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": labels}});
    if !is_cluster_scoped {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if let Some(owner) = one("owner") {
        let (kind, name) = owner.split_once('/').unwrap();
        object["metadata"]["ownerReferences"] = json!([{"apiVersion":if kind == "Thing" { "example.com/v1" } else { "apps/v1" },"kind":kind,"name":name,"uid":"","controller":true}]);
    }
    for (field, value) in rest.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

fn pod_spec(uses: &[(String, String)]) -> Value {
    let mut spec = json!({"containers":[{"name":"main","image":"x","env":[],"envFrom":[],"volumeMounts":[]}],"volumes":[]});
    for (index, (what, target)) in uses.iter().enumerate() {
        let push = |spec: &mut Value, at: &str, value: Value| {
            spec.pointer_mut(at).unwrap().as_array_mut().unwrap().push(value)
        };
        let volume = format!("v{index}");
        match what.as_str() {
            "secret" => push(&mut spec, "/volumes", json!({"name":volume,"secret":{"secretName":target}})),
            "secret?" => push(
                &mut spec,
                "/volumes",
                json!({"name":volume,"secret":{"secretName":target,"optional":true}}),
            ),
            "cm" => push(&mut spec, "/containers/0/envFrom", json!({"configMapRef":{"name":target}})),
            "pvc" => push(
                &mut spec,
                "/volumes",
                json!({"name":volume,"persistentVolumeClaim":{"claimName":target}}),
            ),
            "emptydir" => push(&mut spec, "/volumes", json!({"name":target,"emptyDir":{}})),
            "env" => push(&mut spec, "/containers/0/env", json!({"name":format!("E{index}"),"value":target})),
            "sa" => spec["serviceAccountName"] = json!(target),
            "prio" => spec["priorityClassName"] = json!(target),
            "owner" | "phase" | "template" => {}
            other => panic!("a pod does not use {other:?}"),
        }
    }
    spec
}
