//! How long a large application takes, and how much memory: each step in a process of its own.
//!
//! ```text
//! cargo run --release -p app --example bench_objects -- objects FOLDER [COUNT]
//! cargo run --release -p app --example bench_objects -- large FOLDER [COUNT]
//! cargo run --release -p app --example bench_objects -- secrets FOLDER [COUNT]
//! ```
//! `objects` serves COUNT objects (100,000) of 60 kinds, with the managed fields, status and references that such
//! objects have, from the embedded API server, in a process that is not counted; finds the applications in them,
//! backs all of them up, and browses the point. `large` does the same with objects of 4.5 kB, four times as large. `secrets` backs up COUNT Secrets (31,000) of one namespace and
//! restores them onto the cluster of `HOLDFAST_TEST_KUBECONFIG`, once into nothing and once again (`bench/objects`
//! starts one). What is made in FOLDER is removed again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measuring program for people"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::backup::{self, BackupOptions, Means};
use app::point::{Contents, Point, points};
use app::restore::{self, Consent, Executor, RestoreOptions};
use repo::store::{StoreOptions, open};
use repo::{Cancel, Env, InitOptions, Kdf, LocalOptions, Outcome, Passphrase, ReaderOptions, Repository};
use serde_json::{Value, json};

#[path = "../../repo/tests/common/cost.rs"]
mod cost;
#[path = "../tests/common/nothing.rs"]
mod nothing;
use nothing::Nothing;

/// Objects of one application.
const PARTS: usize = 40;
/// Applications of one namespace.
const PER_NAMESPACE: usize = 10;
/// Kinds that custom resource definitions make.
const CUSTOM: usize = 36;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |at: usize| arguments.get(at).map(String::as_str);
    let (Some(what), Some(folder)) = (argument(1), argument(2)) else {
        println!("bench_objects objects|large|secrets FOLDER [COUNT]");
        return;
    };
    let usual = if what == "secrets" { "31000" } else { "100000" };
    let count = argument(3).unwrap_or(usual);
    if let ("step", Some(name), Some(address)) = (what, argument(4), argument(5)) {
        let start = Instant::now();
        let told = runtime().block_on(step(Path::new(folder), name, address));
        let wall = start.elapsed().as_secs_f64();
        println!("{name:<16} {:>5} MiB {wall:>7.1} s {:>7.1} CPU s  {told}", cost::peak() >> 20, cost::cpu());
        return;
    }
    if what == "serve" {
        return runtime().block_on(serve(argument(4).unwrap(), count.parse().unwrap()));
    }
    let folder = PathBuf::from(folder).join("bench-objects");
    std::fs::create_dir_all(&folder).unwrap();
    let this = std::env::current_exe().unwrap();
    let mut server =
        Command::new(&this).args(["serve", "-", count, what]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let address = said.next().unwrap().unwrap();
    println!("{what}: {}", said.next().unwrap().unwrap());
    let steps: &[&str] = match what {
        "secrets" => &["init", "back up", "restore", "restore again"],
        _ => &["init", "discover", "back up", "back up again", "browse"],
    };
    let fine = steps.iter().all(|name| {
        let step = ["step", folder.to_str().unwrap(), count, name, &address];
        Command::new(&this).args(step).status().unwrap().success()
    });
    server.kill().unwrap();
    server.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(fine, "a step failed");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

async fn serve(what: &str, count: usize) {
    let server = ApiServer::new(Options::deterministic(1));
    let mut objects = if what == "secrets" { secrets(count) } else { applications(count) };
    if what == "large" {
        enlarge(&mut objects);
    }
    let bytes: usize = objects.iter().map(|object| object.to_string().len()).sum();
    let each = bytes / objects.len();
    let refused = server.load(objects);
    assert!(refused.is_empty(), "{refused:?}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    println!("{} objects of {each} bytes served, by a process of {} MiB", server.len(), cost::peak() >> 20);
    let _serving = server.serve(listener).unwrap();
    std::future::pending().await
}

// --- what is served ---

/// Fields as a server remembers who set them.
fn managed() -> Value {
    let mut own = json!({"f:spec": {}});
    for field in ["template", "replicas", "selector", "strategy", "ports", "rules", "data", "type"] {
        own["f:spec"][format!("f:{field}")] = json!({});
    }
    own["f:metadata"] = json!({"f:labels": {".": {}, "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/instance": {}},
        "f:annotations": {".": {}, "f:example.com/revision": {}}});
    json!([{"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": own}])
}

fn uid(api_version: &str, kind: &str, namespace: &str, name: &str) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in format!("{api_version}/{kind}/{namespace}/{name}").bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
    }
    format!("{hash:032x}")
}

fn object(api_version: &str, kind: &str, namespace: &str, name: &str, app: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name,
        "uid": uid(api_version, kind, namespace, name), "creationTimestamp": "2026-01-01T00:00:00Z"}});
    let metadata = &mut object["metadata"];
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    if !app.is_empty() {
        metadata["labels"] = json!({"app.kubernetes.io/name": name, "app.kubernetes.io/instance": app});
        metadata["annotations"] = json!({"example.com/revision": "17"});
    }
    metadata["managedFields"] = managed();
    for (field, value) in rest.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

fn secrets(count: usize) -> Vec<Value> {
    let namespace = "bench-secrets";
    let mut objects = vec![object("v1", "Namespace", "", namespace, "", json!({}))];
    objects.extend((0..count).map(|number| {
        let name = format!("secret-{number:05}");
        let data = json!({"type": "Opaque", "data": {"number": format!("AAA{number:05}"),
            "tls.key": "bm90IGEga2V5".repeat(60)}});
        object("v1", "Secret", namespace, &name, "vault", data)
    }));
    objects
}

/// What makes objects large in life: annotations in which tools keep what they applied and what they found. Half of it is what the
/// object says anyway, the other half is like nothing else.
fn enlarge(objects: &mut [Value]) {
    let mut dice = 1u64;
    for object in objects {
        let applied: String = object.to_string().chars().take(2_000).collect();
        let mut found = String::new();
        while found.len() < 2_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            found.push_str(&format!("{:x} ", dice >> 20));
        }
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
            json!(applied);
        object["metadata"]["annotations"]["example.com/found"] = json!(found);
    }
}

/// So many objects: applications of forty each, ten of them in a namespace.
fn applications(count: usize) -> Vec<Value> {
    let mut objects = Vec::with_capacity(count + PARTS);
    let one = |kind: &str, api: &str, name: &str, rest: Value| object(api, kind, "", name, "", rest);
    for number in 0..CUSTOM {
        let (group, kind) = (format!("group{number}.example.com"), format!("Custom{number}"));
        let plural = kind.to_lowercase() + "s";
        objects.push(one(
            "CustomResourceDefinition",
            "apiextensions.k8s.io/v1",
            &format!("{plural}.{group}"),
            json!({"spec": {"group": group, "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}),
        ));
    }
    for (kind, api, name, rest) in [
        ("StorageClass", "storage.k8s.io/v1", "fast", json!({"provisioner": "disk.example.com"})),
        ("PriorityClass", "scheduling.k8s.io/v1", "high", json!({"value": 1000})),
        ("IngressClass", "networking.k8s.io/v1", "public", json!({"spec": {"controller": "x.io/y"}})),
        ("ClusterRole", "rbac.authorization.k8s.io/v1", "reader", json!({"rules": []})),
    ] {
        objects.push(one(kind, api, name, rest));
    }
    let mut number = 0;
    while objects.len() < count {
        let namespace = format!("team-{:04}", number / PER_NAMESPACE);
        if number % PER_NAMESPACE == 0 {
            objects.push(one("Namespace", "v1", &namespace, json!({})));
            let key = json!({"type": "Opaque", "data": {"tls.key": "bm90IGEga2V5".repeat(60)}});
            for (kind, name, rest) in [
                ("ServiceAccount", "default", json!({})),
                ("ResourceQuota", "quota", json!({"spec": {"hard": {"pods": "1000"}}})),
                ("LimitRange", "limits", json!({"spec": {"limits": []}})),
                ("Secret", "shared-tls", key),
            ] {
                objects.push(object("v1", kind, &namespace, name, "", rest));
            }
        }
        application(&namespace, &format!("app-{number:05}"), number, &mut objects);
        number += 1;
    }
    objects
}

fn application(namespace: &str, app: &str, number: usize, objects: &mut Vec<Value>) {
    let rbac = "rbac.authorization.k8s.io";
    let labels = json!({"app.kubernetes.io/instance": app});
    let condition = json!([{"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable",
        "message": "Deployment has minimum availability.", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let spec = json!({"serviceAccountName": app, "priorityClassName": "high", "containers": [{"name": "main",
        "image": "registry.example.com/team/app:1.2.3", "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": "DSN", "value": format!("postgres://db.{namespace}.svc:5432/x")},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": app, "key": "password"}}}],
        "envFrom": [{"configMapRef": {"name": app}}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tls", "mountPath": "/tls", "readOnly": true}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10},
        "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": app}}, {"name": "tls", "secret": {"secretName": "shared-tls"}}],
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler"});
    let template = json!({"metadata": {"labels": labels}, "spec": spec});
    let selector = json!({"matchLabels": labels});
    let workload = ["Deployment", "StatefulSet", "DaemonSet", "Deployment"][number % 4];
    let replicas = format!("{app}-7f9c");
    let running = json!({"spec": spec, "status": {"phase": "Running", "podIP": "10.1.2.3", "conditions": condition,
        "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "image": "registry.example.com/team/app:1.2.3"}]}});
    let owned = |mut rest: Value, kind: &str, name: &str| {
        rest["owner"] = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true,
            "uid": uid("apps/v1", kind, namespace, name)});
        rest
    };
    let scale = json!({"apiVersion": "apps/v1", "kind": workload, "name": app});
    let job = json!({"template": {"metadata": {"labels": {"job": app}}, "spec": spec}});
    let mut parts = vec![
        (
            "ConfigMap",
            "v1",
            app.to_owned(),
            json!({"data": {"config.yaml": format!("upstream: http://web.{namespace}.svc/\n").repeat(8)}}),
        ),
        ("Secret", "v1", app.to_owned(), json!({"type": "Opaque", "data": {"password": "cGFzc3dvcmQ="}})),
        ("ServiceAccount", "v1", app.to_owned(), json!({"imagePullSecrets": [{"name": app}]})),
        (
            "Role",
            "rbac.authorization.k8s.io/v1",
            app.to_owned(),
            json!({"rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]}),
        ),
        (
            "RoleBinding",
            "rbac.authorization.k8s.io/v1",
            app.to_owned(),
            json!({"roleRef": {"apiGroup": rbac, "kind": "Role", "name": app},
            "subjects": [{"kind": "ServiceAccount", "name": app, "namespace": namespace}]}),
        ),
        (
            "PersistentVolumeClaim",
            "v1",
            app.to_owned(),
            json!({"spec": {"storageClassName": "fast", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}}),
        ),
        (
            "Service",
            "v1",
            app.to_owned(),
            json!({"spec": {"selector": labels, "clusterIP": "10.0.0.1", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]}}),
        ),
        (
            workload,
            "apps/v1",
            app.to_owned(),
            json!({"spec": {"replicas": 2, "selector": selector, "template": template}, "status": {"replicas": 2, "conditions": condition}}),
        ),
        (
            "ReplicaSet",
            "apps/v1",
            replicas.clone(),
            owned(
                json!({"spec": {"replicas": 2, "selector": selector, "template": template}}),
                workload,
                app,
            ),
        ),
        ("Pod", "v1", format!("{replicas}-a"), owned(running.clone(), "ReplicaSet", &replicas)),
        ("Pod", "v1", format!("{replicas}-b"), owned(running, "ReplicaSet", &replicas)),
        (
            "HorizontalPodAutoscaler",
            "autoscaling/v2",
            app.to_owned(),
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": scale}}),
        ),
        (
            "PodDisruptionBudget",
            "policy/v1",
            app.to_owned(),
            json!({"spec": {"selector": selector, "minAvailable": 1}}),
        ),
        (
            "NetworkPolicy",
            "networking.k8s.io/v1",
            app.to_owned(),
            json!({"spec": {"podSelector": selector, "policyTypes": ["Ingress"]}}),
        ),
        (
            "Ingress",
            "networking.k8s.io/v1",
            app.to_owned(),
            json!({"spec": {"ingressClassName": "public", "tls": [{"secretName": "shared-tls"}],
            "rules": [{"host": format!("{app}.example.com"), "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": app, "port": {"number": 80}}}}]}}]}}),
        ),
        (
            "CronJob",
            "batch/v1",
            app.to_owned(),
            json!({"spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": job}}}),
        ),
    ];
    let customs: Vec<(String, String)> = (parts.len()..PARTS)
        .map(|at| (number * 7 + at) % CUSTOM)
        .map(|at| (format!("Custom{at}"), format!("group{at}.example.com/v1")))
        .collect();
    for (kind, api) in &customs {
        let rest = json!({"spec": {"secretName": app, "configMapRef": {"name": app}, "size": 3, "options": {"a": "b", "c": ["d", "e"]}},
            "status": {"ready": true, "conditions": condition}});
        parts.push((kind, api, app.to_owned(), rest));
    }
    for (kind, api, name, mut rest) in parts {
        let owner = rest.as_object_mut().unwrap().remove("owner");
        let mut part = object(api, kind, namespace, &name, app, rest);
        if let Some(owner) = owner {
            part["metadata"]["ownerReferences"] = json!([owner]);
        }
        objects.push(part);
    }
}

// --- what is measured ---

async fn step(folder: &Path, name: &str, address: &str) -> String {
    let store = open(folder.join("repository").to_str().unwrap(), &StoreOptions::default()).unwrap();
    let (passphrase, env) = (Passphrase::new("x"), Env::real());
    if name == "init" {
        let options = InitOptions { kdf: Kdf::default(), ..InitOptions::default() };
        Repository::init(store, &passphrase, &options, &env).unwrap();
        return String::new();
    }
    let source =
        || async { Cluster::connect(client(kube::Config::new(address.parse().unwrap()))).await.unwrap() };
    if name == "discover" {
        let found = app::discover::discover(&source().await, &[]).await.unwrap();
        let parts: usize = found.applications.iter().map(|application| application.parts.len()).sum();
        return format!(
            "{} applications of {parts} parts, {} findings",
            found.applications.len(),
            found.findings.len()
        );
    }
    let local = LocalOptions {
        cache: Some(folder.join("cache")),
        temporary: Some(folder.into()),
        ..LocalOptions::default()
    };
    let repository = Repository::open(store, &passphrase, &env).unwrap().with_local(&local);
    if name.starts_with("back up") {
        let means = Means {
            repository,
            volumes: Arc::new(Nothing),
            hands: Arc::new(Nothing),
            env,
            cancel: Cancel::new(),
            progress: Arc::new(()),
        };
        let start = Instant::now();
        let plan = backup::plan(&source().await, &means, &BackupOptions::default()).await.unwrap();
        let planned = start.elapsed().as_secs_f64();
        let done = plan.execute(&means, &BackupOptions::default()).await.unwrap();
        return format!(
            "{} objects and {} references, selected after {planned:.1} s; {} kB stored",
            done.objects,
            done.certificate.references.len(),
            done.info.summary.figures["bytes_stored"] / 1000
        );
    }
    if name == "browse" {
        let shown = move || {
            let newest = points(&repository, None).unwrap().done.pop().unwrap();
            let reader = repository.reader(ReaderOptions::default()).unwrap();
            app::browse::from_repository(&Contents::open(&reader, &newest).unwrap(), &env).unwrap()
        };
        let start = Instant::now();
        let shown = tokio::task::spawn_blocking(shown).await.unwrap();
        return browse(&shown, start.elapsed().as_secs_f64()).await;
    }
    let point = move || {
        let newest = points(&repository, None).unwrap().done.pop().unwrap();
        Point::read(&repository.reader(ReaderOptions::default()).unwrap(), &newest).unwrap()
    };
    let point = tokio::task::spawn_blocking(point).await.unwrap();
    let env = Env::real();
    let path =
        std::env::var("HOLDFAST_TEST_KUBECONFIG").expect("bench/objects sets HOLDFAST_TEST_KUBECONFIG");
    let kubeconfig = kube::config::Kubeconfig::read_from(path).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let cluster = Cluster::connect(client(config)).await.unwrap();
    let start = Instant::now();
    let plan = restore::plan(&point, &cluster, &RestoreOptions::default()).await.unwrap();
    let planned = start.elapsed().as_secs_f64();
    drop(point);
    let start = Instant::now();
    let report = plan.approve(&Consent::default()).unwrap().execute(&Executor::new(cluster, env)).await;
    let done = start.elapsed().as_secs_f64();
    assert_eq!(report.findings, []);
    let (created, unchanged, failed) = (report.created, report.unchanged, report.failed);
    format!(
        "planned in {planned:.1} s, done in {done:.1} s: {created} created, {unchanged} unchanged, {failed} failed"
    )
}

/// Everything that is there, as `kubectl get -A` would ask for it, a kind at a time; and one object.
async fn browse(shown: &Outcome<ApiServer>, served: f64) -> String {
    let first = cost::peak() >> 20;
    assert_eq!(shown.findings, []);
    let start = Instant::now();
    let cluster = Cluster::connect(kube::Client::new(shown.done.router(), "default")).await.unwrap();
    let (mut kinds, mut objects) = (0, 0);
    let listable: Vec<_> = cluster.resources.preferred().filter(|kind| kind.can("list")).cloned().collect();
    for kind in listable {
        // Whoever lists them shows them and forgets them.
        let found = cluster.list_as(&kind, None, None, drop).await.unwrap().len();
        kinds += usize::from(found > 0);
        objects += found;
    }
    let listed = start.elapsed().as_secs_f64();
    format!(
        "served after {served:.1} s ({first} MiB), {objects} objects of {kinds} kinds listed in {listed:.1} s"
    )
}

fn client(mut config: kube::Config) -> kube::Client {
    config.read_timeout = Some(Duration::from_secs(60));
    kube::Client::try_from(config).unwrap()
}
