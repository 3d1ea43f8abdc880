//! A whole application on the real API server: backed up, deleted, restored under other names, compared,
//! restored again, exported, and applied by kubectl.
//!
//! The embedded server agrees with us because we wrote both. This one has the real defaults, the real
//! validation, and controllers that work behind our back.

// The lints know only functions marked #[test]; the helpers here are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use app::api::{Cluster, Propagation};
use app::backup::{self, BackupOptions, Means};
use app::diff::{self, DiffOptions};
use app::export::{ExportOptions, manifests};
use app::object::{Object, ObjectKey};
use app::point::{Consistency, Point};
use app::restore::{Action, Consent, DataSource, Executor, RestoreOptions, Served, plan, serve};
use app::rules::{ExecOutcome, Hands, HandsError, Target};
use app::select::Selection;
use app::transform::{Mapping, Transform};
use app::volumes::{Existing, Located, Previous, VolumeCopy, VolumeError, VolumeRestored, Volumes};
use async_trait::async_trait;
use kube::config::{KubeConfigOptions, Kubeconfig};
use repo::store::mem::MemStore;
use repo::{
    Cancel, EntryKind, Env, InitOptions, Kdf, Outcome, Passphrase, Progress, Reader, ReaderOptions,
    Repository, Root, Writer,
};
use serde_json::{Value, json};
use source::files;

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

/// Directories of this machine, by the path of a hostPath volume.
struct Directories;

impl Volumes for Directories {
    fn locate(&self, pv: &Value, _: &Value, _: &[Value]) -> Result<Located, String> {
        let path =
            pv.pointer("/spec/hostPath/path").and_then(Value::as_str).ok_or("it has no directory here")?;
        Ok(Located { path: path.into(), how: format!("directory {path}") })
    }

    fn backup(
        &self,
        from: &Located,
        writer: &Writer,
        _: Option<(&Reader, &Previous)>,
        _: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Outcome<VolumeCopy>, VolumeError> {
        let done = files::backup(&from.path, writer, &files::BackupOptions::default(), progress)
            .map_err(|e| VolumeError::Unreachable(e.to_string()))?;
        let figure = |name: &str| done.done.figures.get(name).copied().unwrap_or(0);
        let (bytes, files) = (figure("bytes"), figure("files"));
        Ok(Outcome {
            done: VolumeCopy {
                root: done.done.root,
                kind: EntryKind::Tree,
                consistency: Consistency::Fuzzy,
                bytes,
                files,
            },
            findings: done.findings,
        })
    }

    fn restore(
        &self,
        reader: &Reader,
        root: &Root,
        to: &Located,
        existing: Existing,
        _: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Outcome<VolumeRestored>, VolumeError> {
        let existing = match existing {
            Existing::Refuse => files::Existing::Refuse,
            Existing::Merge => files::Existing::Merge,
            Existing::Mirror => files::Existing::Mirror,
        };
        let options = files::RestoreOptions { existing, ..files::RestoreOptions::default() };
        let done = files::restore(reader, root, &to.path, &options, progress)
            .map_err(|e| VolumeError::Unreachable(e.to_string()))?;
        Ok(Outcome {
            done: VolumeRestored { bytes: done.done.bytes, files: done.done.files },
            findings: done.findings,
        })
    }
}

/// There are no nodes, so nothing runs, and no rule is used.
struct NoHands;

#[async_trait]
impl Hands for NoHands {
    async fn exec(&self, _: &Target, _: &[String], timeout: Duration) -> Result<ExecOutcome, HandsError> {
        Err(HandsError::Timeout(timeout))
    }
}

/// The three-tier application of the recover side's tests, with names and a disk of its own.
fn shop(prefix: &str, disk: &Path) -> Vec<Value> {
    include_str!("../../app/tests/recover/shop.yaml")
        .replace("/var/data/db", &disk.display().to_string())
        .replace("shop", prefix)
        .replace("name: ops", &format!("name: {prefix}-ops"))
        .replace("namespace: ops", &format!("namespace: {prefix}-ops"))
        .replace("manual", &format!("{prefix}-manual"))
        .replace("msg.example.com", &format!("msg.{prefix}.example.com"))
        .replace("db-disk", &format!("{prefix}-disk"))
        .split("\n---\n")
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect()
}

/// Two hundred further objects of twenty kinds in three namespaces.
fn further(namespaces: &[String]) -> Vec<Value> {
    let pod = |i: usize| {
        json!({"containers": [{"name": "c", "image": "registry.example.com/x:1", "ports": [{"containerPort": 8080 + i}],
        "env": [{"name": "A", "value": "yes"}, {"name": "N", "value": "0755"}], "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "100m"}}}]})
    };
    let template = |i: usize| json!({"metadata": {"labels": {"app": format!("a{i}")}}, "spec": pod(i)});
    let mut once = pod(0);
    once["restartPolicy"] = json!("Never");
    let selector = |i: usize| json!({"matchLabels": {"app": format!("a{i}")}});
    let rbac = "rbac.authorization.k8s.io/v1";
    let mut objects = Vec::new();
    for i in 0..10 {
        let namespace = &namespaces[i % namespaces.len()];
        let mut add = |api_version: &str, kind: &str, rest: Value| {
            let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {
                "namespace": namespace, "name": format!("{}-{i}", kind.to_lowercase()), "labels": {"number": format!("{i}"), "app": format!("a{i}")},
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
            json!({"spec": {"type": if i % 2 == 0 { "NodePort" } else { "ClusterIP" }, "selector": {"app": format!("a{i}")}, "ports": [
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
        add("v1", "PodTemplate", json!({"template": template(i)}));
        add(
            "v1",
            "ReplicationController",
            json!({"spec": {"replicas": 0, "selector": {"app": format!("rc{i}")}, "template": {"metadata": {"labels": {"app": format!("rc{i}")}}, "spec": pod(i)}}}),
        );
        add("v1", "Pod", json!({"spec": pod(i)}));
        add(
            "v1",
            "PersistentVolumeClaim",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "nobody-provisions", "resources": {"requests": {"storage": format!("{}Gi", 1 + i)}}}}),
        );
        add(
            "apps/v1",
            "Deployment",
            json!({"spec": {"replicas": 1 + i % 2, "selector": selector(i), "template": template(i)}}),
        );
        add(
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"serviceName": "x", "replicas": 0, "selector": selector(i), "template": template(i)}}),
        );
        add("apps/v1", "DaemonSet", json!({"spec": {"selector": selector(i), "template": template(i)}}));
        add(
            "apps/v1",
            "ReplicaSet",
            json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": format!("rs{i}")}}, "template": {"metadata": {"labels": {"app": format!("rs{i}")}}, "spec": pod(i)}}}),
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
            json!({"spec": {"podSelector": selector(i), "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}}),
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

fn renamed(namespaces: &[String], suffix: &str) -> Transform {
    let mut mapping = Mapping::default();
    for name in namespaces {
        mapping.add_namespace(&format!("{name}={name}{suffix}")).unwrap();
    }
    mapping.check().unwrap()
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

#[tokio::test(flavor = "multi_thread")]
async fn kube_an_application_is_deleted_and_comes_back_under_other_names() {
    let prefix = "recover";
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
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
    make(&shop(prefix, &disk)).await;
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
    let env = Env::real();
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repository = Repository::init(
        Arc::new(MemStore::new()),
        &Passphrase::new("correct horse battery staple"),
        &options,
        &env,
    )
    .unwrap();
    let volumes: Arc<dyn Volumes> = Arc::new(Directories);
    let means = Means {
        repository: repository.clone(),
        volumes: volumes.clone(),
        hands: Arc::new(NoHands),
        env: env.clone(),
        cancel: Cancel::new(),
        progress: Arc::new(()),
    };
    let selection = Selection { namespaces: namespaces.clone(), ..Selection::default() };
    let begun = Instant::now();
    let taken = backup::run(&cluster, &means, &BackupOptions { selection, ..BackupOptions::default() })
        .await
        .unwrap();
    println!("backed up {} objects in {:?}", taken.objects, begun.elapsed());
    let reader = Arc::new(repository.reader(ReaderOptions::default()).unwrap());
    let point = Point::read(&reader, &taken.info).unwrap();
    let applied = point.objects.iter().filter(|o| o.restore == app::point::Restore::Yes);
    let kinds: BTreeSet<&str> = applied.clone().map(|o| o.key.kind.as_str()).collect();
    assert!(applied.count() >= 200 && kinds.len() >= 20, "{kinds:?}");

    // Disaster.
    delete_and_wait(&cluster, "", "Namespace", &namespaces).await;
    std::fs::write(disk.join("orders"), "overwritten").unwrap();

    // Restore.
    let transform = renamed(&namespaces, "-new");
    let options = RestoreOptions { transform: transform.clone(), ..RestoreOptions::default() };
    let planned = plan(&point, &cluster, &options).await.unwrap();
    let steps = planned.steps().count();
    let executor = Executor {
        data: Some(DataSource { reader: reader.clone(), commit: taken.info.id, volumes }),
        ..Executor::new(cluster.clone(), env.clone())
    };
    let report = planned.approve(&Consent::default()).unwrap().execute(&executor).await;
    println!("restored {} of {steps} objects in {} ms", report.created, report.milliseconds);
    for wave in &report.waves {
        println!("  {:>10} {:>4} objects {:>6} ms", wave.stage, wave.objects, wave.milliseconds);
    }
    let errors: Vec<_> = report.findings.iter().filter(|f| f.severity == repo::Severity::Error).collect();
    assert_eq!((report.failed, errors.len()), (0, 0), "{errors:#?}");
    let copy = disk.with_file_name(format!("disk-{prefix}-new")).join("orders");
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "every order ever made");

    // Nothing differs but what a restore must change, and that is listed.
    let cluster = connect().await;
    let compare =
        |transform: &Transform| DiffOptions { transform: transform.clone(), ..DiffOptions::default() };
    let found = diff::with_cluster(&point, &cluster, &compare(&transform)).await.unwrap();
    assert!(
        found.is_empty(),
        "changed {:#?}\nonly before {:#?}\nonly after {:#?}",
        found.changed,
        found.only_before,
        found.only_after
    );
    println!("{} objects are the same; what a restore must change:", found.same);
    for ignored in &found.ignored {
        println!("  {:>4} x {} ({})", ignored.objects, ignored.at, ignored.what);
    }
    for must in [
        "uid",
        "resource version",
        "time and place of creation",
        "managed fields",
        "status",
        "assigned by the cluster",
    ] {
        assert!(found.ignored.iter().any(|ignored| ignored.what == must), "{must} is listed");
    }

    // Again: nothing to do, and nothing done.
    let again = plan(&point, &cluster, &options).await.unwrap();
    let other: Vec<_> = again.steps().filter(|step| step.action != Action::Unchanged).collect();
    assert!(other.is_empty() && !again.changes_anything(), "{other:#?}");
    // Of what no controller writes to.
    let quiet =
        ["ConfigMap", "Secret", "Role", "RoleBinding", "NetworkPolicy", "Service", "CronJob", "PodTemplate"];
    let keys: Vec<ObjectKey> =
        again.steps().map(|step| step.key.clone()).filter(|key| quiet.contains(&key.kind.as_str())).collect();
    let before = versions(&cluster, &keys).await;
    let report = again.approve(&Consent::default()).unwrap().execute(&executor).await;
    assert_eq!((report.created, report.updated, report.failed), (0, 0, 0));
    assert_eq!(versions(&cluster, &keys).await, before);

    // Exported, and applied by kubectl: the same objects.
    let transform = renamed(&namespaces, "-applied");
    let export =
        manifests(&point, &ExportOptions { transform: transform.clone(), ..ExportOptions::default() })
            .unwrap();
    for part in export.write_folder(&folder.path().join("export")).unwrap() {
        kubectl(&["apply", "-f", &part.display().to_string()]);
    }
    let found = diff::with_cluster(&point, &cluster, &compare(&transform)).await.unwrap();
    assert!(
        found.is_empty(),
        "changed {:#?}\nonly before {:#?}\nonly after {:#?}",
        found.changed,
        found.only_before,
        found.only_after
    );

    // Leave the cluster as it was.
    let mut made: Vec<String> =
        namespaces.iter().flat_map(|n| [format!("{n}-new"), format!("{n}-applied")]).collect();
    made.push(format!("{prefix}-ops"));
    delete_and_wait(&cluster, "", "Namespace", &made).await;
    for (group, kind) in [
        ("", "PersistentVolume"),
        ("storage.k8s.io", "StorageClass"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ] {
        let all = cluster.list(cluster.resources.find(group, kind).unwrap(), None, None).await.unwrap();
        let ours: Vec<String> =
            all.iter().map(|object| object.name().to_owned()).filter(|name| name.contains(prefix)).collect();
        delete_and_wait(&cluster, group, kind, &ours).await;
    }
}

async fn versions(cluster: &Cluster, keys: &[ObjectKey]) -> BTreeMap<ObjectKey, String> {
    let mut versions = BTreeMap::new();
    for key in keys {
        let live = get(cluster, key).await.unwrap();
        versions.insert(key.clone(), live.resource_version().to_owned());
    }
    versions
}
