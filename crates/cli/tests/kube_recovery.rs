//! A whole application on the real API server, by the commands a user types: backed up, deleted, restored
//! under other names, compared, restored again, exported, and applied by kubectl.
//!
//! The embedded server agrees with us because we wrote both. This one has the real defaults, the real
//! validation, and controllers that work behind our back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test file: clippy knows only test functions.

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use app::api::{Cluster, Propagation};
use app::object::{Object, ObjectKey};
use app::restore::{Served, serve};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use support::Place;

fn kubeconfig() -> PathBuf {
    std::env::var("HOLDFAST_TEST_KUBECONFIG")
        .expect("HOLDFAST_TEST_KUBECONFIG is not set: run this with ./test real, or under `tests/real/with kube -- `")
        .into()
}

async fn connect() -> Cluster {
    let config = Kubeconfig::read_from(kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    Cluster::connect(kube::Client::try_from(config).unwrap()).await.unwrap()
}

async fn eventually<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < Duration::from_secs(90), "within 90 s: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The demo's application and its neighbours, with names of their own, and a disk for its database.
fn demo(prefix: &str, disk: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = include_str!("../src/demo/scene.yaml")
        .replace("shop", prefix)
        .replace("blog", &format!("{prefix}-blog"))
        .replace("platform", &format!("{prefix}-platform"))
        .replace("demo", &format!("{prefix}-demo"))
        .replace("standard", &format!("{prefix}-standard"))
        .split("\n---\n")
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect();
    objects.push(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": format!("{prefix}-standard")}, "provisioner": "kubernetes.io/no-provisioner"}));
    objects.push(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("{prefix}-disk")}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": format!("{prefix}-standard"), "hostPath": {"path": disk}, "claimRef": {"namespace": prefix, "name": "data-db-0"}}}));
    objects
}

/// Two hundred further objects of twenty kinds in three namespaces.
fn further(namespaces: &[String]) -> Vec<Value> {
    let pod = |i: usize| {
        json!({"containers": [{"name": "c", "image": "registry.example.com/x:1", "ports": [{"containerPort": 8080 + i}],
        "env": [{"name": "A", "value": "yes"}, {"name": "N", "value": "0755"}], "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "100m"}}}]})
    };
    // Names of their own for each workload: a controller adopts whatever carries the labels it looks for.
    let app = |kind: &str, i: usize| json!({"app": format!("{kind}-{i}")});
    let template = |kind: &str, i: usize| json!({"metadata": {"labels": app(kind, i)}, "spec": pod(i)});
    let mut once = pod(0);
    once["restartPolicy"] = json!("Never");
    let selector = |kind: &str, i: usize| json!({"matchLabels": app(kind, i)});
    let rbac = "rbac.authorization.k8s.io/v1";
    let mut objects = Vec::new();
    for i in 0..10 {
        let namespace = &namespaces[i % namespaces.len()];
        let mut add = |api_version: &str, kind: &str, rest: Value| {
            let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {
                "namespace": namespace, "name": format!("{}-{i}", kind.to_lowercase()), "labels": {"number": format!("{i}"), "kind": kind},
                "annotations": {"example.com/note": "a: b #c\n- d\n"}}});
            object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            objects.push(object);
        };
        add(
            "v1",
            "ConfigMap",
            json!({"data": {"on": "off", "octal": "0644", "time": "12:30:00", "multi": "a\n\tb\n\n c \n", "uni": "grün 🚀\u{85}"}}),
        );
        add("v1", "Secret", json!({"type": "Opaque", "stringData": {"p": format!("pass-{i}")}}));
        add("v1", "ServiceAccount", json!({"imagePullSecrets": [{"name": format!("secret-{i}")}]}));
        add(
            "v1",
            "Service",
            json!({"spec": {"type": if i % 2 == 0 { "NodePort" } else { "ClusterIP" }, "selector": app("deployment", i), "ports": [
            {"name": "http", "port": 80, "targetPort": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}),
        );
        add(
            "v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "default": {"memory": format!("{}Mi", 128 + i)}}]}}),
        );
        add(
            "v1",
            "ResourceQuota",
            json!({"spec": {"hard": {"count/leases.coordination.k8s.io": format!("{}", 50 + i)}}}),
        );
        add("v1", "PodTemplate", json!({"template": template("podtemplate", i)}));
        add(
            "v1",
            "ReplicationController",
            json!({"spec": {"replicas": 0, "selector": app("rc", i), "template": template("rc", i)}}),
        );
        add("v1", "Pod", json!({"spec": pod(i)}));
        add(
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {"minAvailable": 1, "selector": selector("deployment", i)}}),
        );
        add(
            "apps/v1",
            "Deployment",
            json!({"spec": {"replicas": 1 + i % 2, "selector": selector("deployment", i), "template": template("deployment", i)}}),
        );
        add(
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"serviceName": format!("service-{i}"), "replicas": 0, "selector": selector("statefulset", i), "template": template("statefulset", i)}}),
        );
        add(
            "apps/v1",
            "DaemonSet",
            json!({"spec": {"selector": selector("daemonset", i), "template": template("daemonset", i)}}),
        );
        add(
            "apps/v1",
            "ReplicaSet",
            json!({"spec": {"replicas": 0, "selector": selector("rs", i), "template": template("rs", i)}}),
        );
        add(
            "batch/v1",
            "Job",
            json!({"spec": {"template": {"metadata": {"labels": {"job": "x"}}, "spec": once.clone()}}}),
        );
        add(
            "batch/v1",
            "CronJob",
            json!({"spec": {"schedule": "0 0 31 2 *", "suspend": i % 2 == 0, "jobTemplate": {"spec": {"template": {"spec": once.clone()}}}}}),
        );
        add(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"podSelector": selector("deployment", i), "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}}),
        );
        add(
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"rules": [{"host": format!("h{i}.example.com"), "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": format!("service-{i}"), "port": {"name": "http"}}}}]}}]}}),
        );
        add(
            rbac,
            "Role",
            json!({"rules": [{"apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": ["get"]}]}),
        );
        add(
            rbac,
            "RoleBinding",
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": format!("role-{i}")},
            "subjects": [{"kind": "ServiceAccount", "name": format!("serviceaccount-{i}"), "namespace": namespace}]}),
        );
    }
    objects
}

/// Makes objects as a user would, in whatever version of their kind this server has.
async fn make(objects: &[Value]) {
    let mut cluster = connect().await;
    for object in objects {
        let object = Object(object.clone());
        if cluster.resources.find(&object.gvk().group, &object.gvk().kind).is_none() {
            // A kind that was just defined is served a moment later.
            let begun = Instant::now();
            while cluster.resources.find(&object.gvk().group, &object.gvk().kind).is_none() {
                assert!(begun.elapsed() < Duration::from_secs(30), "{} is served", object.gvk());
                cluster = connect().await;
            }
        }
        match serve(&object, &cluster.resources, None) {
            Served::As(resource, object, _) => {
                cluster.create(&resource, &object, false).await.unwrap();
            }
            Served::Not(why) => panic!("{}: {why}", object.key()),
        }
    }
}

async fn get(cluster: &Cluster, key: &ObjectKey) -> Option<Object> {
    cluster.get_key(key).await.unwrap()
}

async fn delete_and_wait(cluster: &Cluster, group: &str, kind: &str, names: &[String]) {
    let resource = cluster.resources.find(group, kind).unwrap();
    for name in names {
        cluster.delete(resource, "", name, Propagation::Background, None).await.unwrap();
    }
    for name in names {
        let key = ObjectKey::new(group, kind, "", name);
        eventually(&format!("{key} is gone"), || async { get(cluster, &key).await.is_none() }).await;
    }
}

fn kubectl(args: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let out = Command::new("kubectl")
        .args(args)
        .env("KUBECONFIG", kubeconfig())
        .env("HOME", home.path())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "kubectl {args:?}: {stdout}\n{stderr}");
}

/// `--to a=a-new --to b=b-new`.
fn to(namespaces: &[String], suffix: &str) -> Vec<String> {
    namespaces.iter().flat_map(|name| ["--to".to_owned(), format!("{name}={name}{suffix}")]).collect()
}

fn with<'a>(first: &[&'a str], rest: &'a [String]) -> Vec<&'a str> {
    first.iter().copied().chain(rest.iter().map(String::as_str)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_an_application_is_deleted_and_comes_back_under_other_names() {
    let prefix = "recover";
    let mut place = Place::with_repository();
    place.env.push(("KUBECONFIG".into(), kubeconfig().display().to_string()));
    let disk = place.path("disk");
    std::fs::create_dir(&disk).unwrap();
    std::fs::write(disk.join("orders"), "every order ever made").unwrap();
    let others: Vec<String> = ["a", "b", "c"].iter().map(|n| format!("{prefix}-{n}")).collect();
    let mut namespaces = others.clone();
    namespaces.push(prefix.to_owned());
    let spaces: Vec<Value> = others
        .iter()
        .map(|n| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}}))
        .collect();
    make(&spaces).await;
    make(&demo(prefix, &disk.display().to_string())).await;
    make(&further(&others)).await;

    // Until the controllers have done what they do.
    let cluster = connect().await;
    let claim = ObjectKey::new("", "PersistentVolumeClaim", prefix, "data-db-0");
    eventually("the claim is bound", || async {
        get(&cluster, &claim).await.is_some_and(|claim| claim.str("/status/phase") == "Bound")
    })
    .await;
    let last = ObjectKey::new("apps", "Deployment", &others[0], "deployment-9");
    eventually("the last deployment is seen to", || async {
        get(&cluster, &last).await.is_some_and(|d| d.at("/status/observedGeneration").is_some())
    })
    .await;

    // Backup.
    let selection: Vec<String> = namespaces.iter().flat_map(|name| ["-n".to_owned(), name.clone()]).collect();
    place.run(&with(&["backup"], &selection)).expect(0);
    println!("{}", place.run(&["show", "latest"]).expect(0).out);

    // Disaster.
    delete_and_wait(&cluster, "", "Namespace", &namespaces).await;
    std::fs::write(disk.join("orders"), "overwritten").unwrap();

    // Restore. There are no nodes, so nothing ever gets ready.
    let new = to(&namespaces, "-new");
    let plan = place.run(&with(&["restore", "latest", "--plan", "-o", "json"], &new)).expect(0).json();
    let steps: usize =
        plan["waves"].as_array().unwrap().iter().map(|w| w["steps"].as_array().unwrap().len()).sum();
    let report = place.run(&with(&["restore", "latest", "--no-wait", "-o", "json"], &new)).expect(0).json();
    println!("restored {} of {steps} objects in {} ms", report["created"], report["milliseconds"]);
    for wave in report["waves"].as_array().unwrap() {
        println!("  {} {} objects {} ms", wave["stage"], wave["objects"], wave["milliseconds"]);
    }
    assert!(report["created"].as_u64().unwrap() > 200, "{}", report["created"]);
    let copy = place.path(&format!("disk-{prefix}-new")).join("orders");
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "every order ever made");

    // Nothing differs but what a restore must change, and that is listed.
    let shown = place.run(&with(&["diff", "latest"], &new)).expect(0).out;
    println!("{shown}");
    assert!(shown.contains("What a restore must change"), "{shown}");
    let found = place.run(&with(&["diff", "latest", "-o", "json"], &new)).expect(0).json();
    let listed: Vec<&str> =
        found["ignored"].as_array().unwrap().iter().filter_map(|i| i["what"].as_str()).collect();
    for must in [
        "uid",
        "resource version",
        "time and place of creation",
        "managed fields",
        "status",
        "assigned by the cluster",
    ] {
        assert!(listed.contains(&must), "{must} in {listed:?}");
    }
    assert!(found["same"].as_u64().unwrap() >= 200);

    // Again: nothing to do, and nothing done. Compared is what no controller writes to.
    let quiet =
        ["ConfigMap", "Secret", "Role", "RoleBinding", "NetworkPolicy", "Service", "CronJob", "PodTemplate"];
    let before = versions(&connect().await, &quiet, &namespaces).await;
    assert!(before.len() > 70, "{}", before.len());
    let report = place.run(&with(&["restore", "latest", "--no-wait", "-o", "json"], &new)).expect(0).json();
    assert_eq!(
        (&report["created"], &report["updated"], &report["skipped"]),
        (&json!(0), &json!(0), &json!(0)),
        "{report}"
    );
    assert_eq!(report["unchanged"].as_u64(), Some(steps as u64));
    assert_eq!(versions(&connect().await, &quiet, &namespaces).await, before);

    // Exported, and applied by kubectl: the same objects.
    let applied = to(&namespaces, "-applied");
    let folder = place.text("export");
    place.run(&with(&["export", "latest", "--dir", &folder], &applied)).expect(0);
    for part in ["1-definitions", "2-objects"] {
        let part = place.path("export").join(part);
        if part.exists() {
            kubectl(&["apply", "-f", &part.display().to_string()]);
        }
    }
    place.run(&with(&["diff", "latest"], &applied)).expect(0);

    // Leave the cluster as it was.
    let mut made: Vec<String> =
        namespaces.iter().flat_map(|n| [format!("{n}-new"), format!("{n}-applied")]).collect();
    made.extend(["blog", "platform"].map(|name| format!("{prefix}-{name}")));
    delete_and_wait(&cluster, "", "Namespace", &made).await;
    for (group, kind) in [
        ("", "PersistentVolume"),
        ("storage.k8s.io", "StorageClass"),
        ("networking.k8s.io", "IngressClass"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ] {
        let all = cluster.list(cluster.resources.find(group, kind).unwrap(), None, None).await.unwrap();
        let ours: Vec<String> =
            all.iter().map(|object| object.name().to_owned()).filter(|name| name.contains(prefix)).collect();
        delete_and_wait(&cluster, group, kind, &ours).await;
    }
}

/// `Kind namespace/name` and version of the restored objects of some kinds.
async fn versions(cluster: &Cluster, kinds: &[&str], namespaces: &[String]) -> Vec<(String, String)> {
    let mut versions = Vec::new();
    for resource in cluster.resources.preferred().filter(|resource| kinds.contains(&resource.kind.as_str())) {
        for namespace in namespaces {
            for object in cluster.list(resource, Some(&format!("{namespace}-new")), None).await.unwrap() {
                versions.push((object.key().to_string(), object.resource_version().to_owned()));
            }
        }
    }
    versions
}
