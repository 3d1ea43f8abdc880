//! Data that comes late: until it is in, nothing acts. No pod runs, nothing makes one, nothing scales, no custom resource gives an
//! operator anything to do; claims, configuration, accounts and services are there. On the embedded server, and on a
//! real one, whose controllers would act at once.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

#[path = "common/apps.rs"]
mod apps;
#[path = "common/round.rs"]
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::backup::{self, BackupOptions, Means};
use app::object::Object;
use app::point::{Consistency, Point};
use app::restore::{Consent, DataSource, Deadlines, Done, Executor, Report, RestoreOptions, plan};
use app::select::Selection;
use app::volumes::{Existing, Located, Previous, VolumeCopy, VolumeError, VolumeRestored, Volumes};
use kube::config::{KubeConfigOptions, Kubeconfig};
use repo::{Cancel, EntryKind, Env, Outcome, Progress, Reader, ReaderOptions, Root, Writer};
use serde_json::{Value, json};

/// Disks by the path a hostPath volume names. What is written onto them waits until the gate is opened.
#[derive(Default)]
struct Gate {
    disks: Mutex<BTreeMap<String, Vec<u8>>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Writes that have begun.
    begun: usize,
    is_open: bool,
    /// It opens onto a broken disk.
    is_broken: bool,
}

impl Gate {
    fn begun(&self) -> usize {
        self.state.lock().unwrap().begun
    }

    fn set(&self, is_open: bool, is_broken: bool) {
        let mut state = self.state.lock().unwrap();
        *state = State { is_open, is_broken, begun: 0 };
        self.changed.notify_all();
    }
}

impl Volumes for Gate {
    fn locate(&self, pv: &Value, _: &Value, _: &[Value]) -> Result<Located, String> {
        let path = pv.pointer("/spec/hostPath/path").and_then(Value::as_str).ok_or("no volume")?;
        Ok(Located { path: PathBuf::from(path), how: format!("disk {path}") })
    }

    fn backup(
        &self,
        from: &Located,
        writer: &Writer,
        _: Option<(&Reader, &Previous)>,
        _: &Cancel,
        _: &dyn Progress,
    ) -> Result<Outcome<VolumeCopy>, VolumeError> {
        let bytes = self.disks.lock().unwrap()[from.path.to_str().unwrap()].clone();
        let mut stream = writer.stream(repo::Lane::Data);
        stream.append(&bytes)?;
        let root = stream.finish()?;
        let bytes = bytes.len() as u64;
        let (kind, consistency) = (EntryKind::Bytes, Consistency::Crash);
        Ok(Outcome::clean(VolumeCopy { root, kind, consistency, bytes, files: 1 }))
    }

    fn restore(
        &self,
        reader: &Reader,
        root: &Root,
        to: &Located,
        _: Existing,
        _: &Cancel,
        progress: &dyn Progress,
    ) -> Result<Outcome<VolumeRestored>, VolumeError> {
        let mut state = self.state.lock().unwrap();
        state.begun += 1;
        let limit = Duration::from_secs(120);
        let (state, _) = self.changed.wait_timeout_while(state, limit, |state| !state.is_open).unwrap();
        assert!(state.is_open, "nobody opened the gate");
        if state.is_broken {
            return Err(VolumeError::Unreachable("the disk was pulled".into()));
        }
        let bytes = reader.bytes(root, 1 << 20)?;
        progress.add(1, bytes.len() as u64);
        let written = bytes.len() as u64;
        self.disks.lock().unwrap().insert(to.path.to_str().unwrap().to_owned(), bytes);
        Ok(Outcome::clean(VolumeRestored { bytes: written, files: 1 }))
    }
}

const SPACE: &str = "late";
const DISK: &str = "/var/data/late";
const GROUP: &str = "late.example.com";
/// A StatefulSet that the operator of the custom resource made.
const MADE: &str = "made-of-db";

/// A database with its disk, one of everything that acts, and a custom resource whose operator uses the same disk.
fn application() -> Vec<Value> {
    let named = |api: &str, kind: &str, name: &str, rest: Value| {
        let mut object =
            json!({"apiVersion": api, "kind": kind, "metadata": {"namespace": SPACE, "name": name}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    let labels = json!({"app": "late"});
    let containers = json!([{"name": "c", "image": "example.com/c:1"}]);
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    let mut on_disk = template.clone();
    on_disk["spec"]["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]);
    let mut made = json!({"spec": {"serviceName": "db", "replicas": 0, "selector": {"matchLabels": labels}, "template": on_disk}});
    made["metadata"] = json!({"namespace": SPACE, "name": MADE, "ownerReferences": [
        {"apiVersion": format!("{GROUP}/v1"), "kind": "Database", "name": "db", "uid": "", "controller": true}]});
    let selector = json!({"matchLabels": labels});
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("databases.{GROUP}")},
            "spec": {"group": GROUP, "scope": "Namespaced", "names": {"kind": "Database", "plural": "databases", "singular": "database", "listKind": "DatabaseList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}}),
        named("v1", "ConfigMap", "settings", json!({"data": {"a": "b"}})),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "late-disk"}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": DISK},
            // What a binder writes, which the embedded server has none of: without it, the claim comes back unbound and waits for one.
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": SPACE, "name": "data"}}}),
        named(
            "v1",
            "PersistentVolumeClaim",
            "data",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "late-disk", "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        named("v1", "Service", "db", json!({"spec": {"selector": labels, "ports": [{"port": 80}]}})),
        named(&format!("{GROUP}/v1"), "Database", "db", json!({"spec": {"claim": "data"}})),
        named(
            "apps/v1",
            "StatefulSet",
            "db",
            json!({"spec": {"serviceName": "db", "selector": selector, "template": on_disk}}),
        ),
        // What the operator made of its resource.
        named("apps/v1", "StatefulSet", MADE, made),
        named("apps/v1", "Deployment", "web", json!({"spec": {"selector": selector, "template": template}})),
        named("apps/v1", "DaemonSet", "agent", json!({"spec": {"selector": selector, "template": template}})),
        named("apps/v1", "ReplicaSet", "bare", json!({"spec": {"selector": selector, "template": template}})),
        named("batch/v1", "Job", "once", json!({"spec": {"template": once}})),
        named(
            "batch/v1",
            "CronJob",
            "often",
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}}}),
        ),
        named("v1", "Pod", "alone", json!({"spec": {"containers": containers}})),
        named(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "web",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}}),
        ),
        named(
            "policy/v1",
            "PodDisruptionBudget",
            "web",
            json!({"spec": {"minAvailable": 1, "selector": selector}}),
        ),
    ]
}

/// What acts, or makes something act.
const ACTING: &[(&str, &str)] = &[
    ("", "Pod"),
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("apps", "ReplicaSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("policy", "PodDisruptionBudget"),
    (GROUP, "Database"),
];

/// Kinds of which there is something in the namespace.
async fn there(cluster: &Cluster) -> BTreeSet<&'static str> {
    let cluster = round::anew(cluster).await;
    let mut found = BTreeSet::new();
    for (group, kind) in ACTING.iter().chain(&[("", "PersistentVolumeClaim"), ("", "ConfigMap")]) {
        let Some(resource) = cluster.resources.find(group, kind) else { continue };
        if !cluster.list(resource, Some(SPACE), None).await.unwrap().is_empty() {
            found.insert(*kind);
        }
    }
    found
}

/// Restores the point; `meanwhile` is what happens while its data is on the way.
async fn restored(
    (point, source): (&Point, &DataSource),
    cluster: &Cluster,
    meanwhile: impl AsyncFnOnce(),
) -> Report {
    let cluster = round::anew(cluster).await;
    let plan = plan(point, &cluster, &RestoreOptions::default()).await.unwrap();
    let executor = Executor {
        data: Some(source.clone()),
        deadlines: Deadlines { step: Duration::from_millis(20), ..Deadlines::default() },
        ..Executor::new(cluster, Env::real())
    };
    let approved = plan.approve(&Consent::default()).unwrap();
    let execution = approved.execute(&executor);
    tokio::join!(execution, meanwhile()).0
}

async fn comes_late(cluster: &Cluster, has_controllers: bool) {
    let objects = application();
    apps::create(cluster, &objects).await;
    let here = round::anew(cluster).await;
    if has_controllers {
        let claims = here.resources.find("", "PersistentVolumeClaim").unwrap();
        round::eventually("the claim is bound", async || {
            here.get(claims, SPACE, "data").await.unwrap().is_some_and(|c| c.str("/status/phase") == "Bound")
        })
        .await;
    }
    let gate = Arc::new(Gate::default());
    gate.disks.lock().unwrap().insert(DISK.into(), b"every order ever made".to_vec());
    let repository = round::repository();
    let means = Means {
        repository: repository.clone(),
        volumes: gate.clone(),
        hands: Arc::new(round::Nothing),
        env: Env::real(),
        cancel: Cancel::new(),
        progress: Arc::new(()),
    };
    let selection = Selection { namespaces: vec![SPACE.into()], ..Selection::default() };
    let options = BackupOptions { selection, ..BackupOptions::default() };
    let report = backup::run(&here, &means, &options).await.unwrap();
    let reader = Arc::new(repository.reader(ReaderOptions::default()).unwrap());
    let point = Point::read(&reader, &report.info).unwrap();
    assert!(point.certificate.complete, "{:#?}", point.certificate.findings);
    let source = DataSource { reader, commit: report.info.id, volumes: gate.clone() };
    let all: Vec<Object> = objects.into_iter().map(Object).collect();

    // Late, and then there.
    let raw: Vec<Value> = all.iter().map(|o| o.0.clone()).collect();
    round::lose(cluster, &raw).await;
    gate.disks.lock().unwrap().clear();
    gate.set(false, false);
    let looks = if has_controllers { 30 } else { 3 };
    let report = restored((&point, &source), cluster, async || {
        round::eventually("the data is on its way", async || gate.begun() == 1).await;
        for _ in 0..looks {
            let found = there(cluster).await;
            assert_eq!(found, ["ConfigMap", "PersistentVolumeClaim"].into(), "the data is not in yet");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(gate.disks.lock().unwrap().is_empty());
        gate.set(true, false);
    })
    .await;
    assert!(report.is_complete() && report.failed == 0, "{:#?}", report.findings);
    assert_eq!(gate.disks.lock().unwrap()[DISK], b"every order ever made");
    let here = round::anew(cluster).await;
    let known = |object: &Object| here.resources.find(&object.gvk().group, &object.gvk().kind).is_some();
    for object in all.iter().filter(|object| known(object)) {
        assert!(here.get_key(&object.key()).await.unwrap().is_some(), "{} is there again", object.key());
    }
    assert!(
        ACTING
            .iter()
            .all(|(_, kind)| report.objects.iter().any(|o| o.key.kind == *kind && o.done == Done::Created))
    );
    if has_controllers {
        round::eventually("and now they act", async || {
            let pods = here.resources.find("", "Pod").unwrap();
            let pods = here.list(pods, Some(SPACE), None).await.unwrap();
            ["db-0", "web-"].iter().all(|name| pods.iter().any(|pod| pod.name().starts_with(name)))
        })
        .await;
    }

    // Late, and then broken: what uses it is held back, and so is what would make that again. The rest is there.
    round::lose(cluster, &raw).await;
    gate.disks.lock().unwrap().clear();
    gate.set(false, false);
    let report = restored((&point, &source), cluster, async || {
        round::eventually("the data is on its way", async || gate.begun() == 1).await;
        gate.set(true, true);
    })
    .await;
    let mut held: Vec<String> =
        report.objects.iter().filter(|o| o.done == Done::Failed).map(|o| o.key.to_string()).collect();
    held.sort();
    let want = [
        format!("Database.{GROUP} {SPACE}/db"),
        format!("StatefulSet {SPACE}/db"),
        format!("StatefulSet {SPACE}/{MADE}"),
    ];
    assert_eq!(held, want, "{:#?}", report.findings);
    assert!(report.findings.iter().any(|f| f.code == "data-not-restored"), "{:#?}", report.findings);
    round::lose(cluster, &raw).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autoscalers_and_controllers_are_held_until_data_is_in() {
    let server = ApiServer::new(Options::deterministic(1));
    let cluster = Cluster::connect(kube::Client::new(server.router(), "default")).await.unwrap();
    comes_late(&cluster, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_autoscalers_and_controllers_are_held_until_data_is_in() {
    let path = std::env::var("HOLDFAST_TEST_KUBECONFIG").unwrap_or_else(|_| {
        panic!("HOLDFAST_TEST_KUBECONFIG is not set: run this under `tests/real/with kube -- `")
    });
    let config = Kubeconfig::read_from(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let cluster = Cluster::connect(kube::Client::try_from(config).unwrap()).await.unwrap();
    comes_late(&cluster, true).await;
}
