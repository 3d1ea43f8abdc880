//! Data: in its claims before anything that uses it is there, or its users are held back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::ApiServer;
use app::api::Cluster;
use app::backup::{self, BackupOptions, Means};
use app::point::{Consistency, Point};
use app::restore::{
    Action, Consent, Data, DataSource, Deadlines, Executor, Holder, NotApproved, Report, RestoreOptions,
    RestorePlan, plan,
};
use app::select::Selection;
use app::transform::{Mapping, Transform};
use app::volumes::{Existing, Located, Previous, VolumeCopy, VolumeError, VolumeRestored, Volumes};
use repo::store::mem::MemStore;
use repo::{
    Cancel, CommitInfo, EntryKind, Env, Finding, InitOptions, Kdf, Outcome, Passphrase, Progress, Reader,
    ReaderOptions, Repository, Root, Writer,
};
use serde_json::{Value, json};

use crate::nothing::Nothing;
use crate::site::*;

/// Disks in memory, by the path that a hostPath volume names.
#[derive(Default)]
struct Disks {
    bytes: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Looked at while a volume is written.
    target: Mutex<Option<ApiServer>>,
    /// The next write fails half way.
    pulled: Mutex<bool>,
    /// The next write finds the repository damaged.
    damaged: Mutex<bool>,
    writes: Mutex<usize>,
}

impl Volumes for Disks {
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
        let bytes = self.bytes.lock().unwrap().get(from.path.to_str().unwrap()).cloned().unwrap_or_default();
        let mut stream = writer.stream(repo::Lane::Data);
        stream.append(&bytes)?;
        let root = stream.finish()?;
        let bytes = bytes.len() as u64;
        Ok(Outcome::clean(VolumeCopy {
            root,
            kind: EntryKind::Bytes,
            consistency: Consistency::Crash,
            bytes,
            files: 1,
        }))
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
        if let Some(server) = self.target.lock().unwrap().as_ref() {
            let kinds: Vec<String> = server
                .dump()
                .iter()
                .filter(|o| o["metadata"]["namespace"] == "copy")
                .map(|o| o["kind"].to_string())
                .collect();
            assert!(kinds.contains(&"\"PersistentVolumeClaim\"".to_owned()), "{kinds:?}");
            assert!(!kinds.contains(&"\"StatefulSet\"".to_owned()), "nobody may use it yet: {kinds:?}");
        }
        *self.writes.lock().unwrap() += 1;
        let bytes = reader.bytes(root, 1 << 20)?;
        let path = to.path.to_str().unwrap().to_owned();
        let mut disks = self.bytes.lock().unwrap();
        if existing == Existing::Refuse && disks.get(&path).is_some_and(|there| !there.is_empty()) {
            return Err(VolumeError::NotEmpty(format!("{path} holds data")));
        }
        progress.add(0, 1);
        if std::mem::take(&mut *self.pulled.lock().unwrap()) {
            disks.insert(path, bytes[..bytes.len() / 2].to_vec());
            return Err(VolumeError::Unreachable("the disk was pulled".into()));
        }
        let written = bytes.len() as u64;
        disks.insert(path, bytes);
        let mut outcome = Outcome::clean(VolumeRestored { bytes: written, files: 1 });
        if std::mem::take(&mut *self.damaged.lock().unwrap()) {
            outcome.findings.push(Finding::error("file-damaged", "orders", "the repository is damaged"));
        }
        Ok(outcome)
    }
}

/// The shop with data on its disk, and a point of it in a repository.
struct Scene {
    holder: Option<Holder>,
    server: ApiServer,
    disks: Arc<Disks>,
    reader: Arc<Reader>,
    info: CommitInfo,
    point: Point,
}

const DISK: &str = "/var/data/db";
const COPY: &str = "/var/data/db-copy";

impl Scene {
    async fn new() -> Scene {
        let server = shop(1).await;
        let cluster = connect(&server).await;
        // What a binder would have done.
        patch(
            &cluster,
            "",
            "PersistentVolumeClaim",
            "shop",
            "data-db-0",
            json!({"spec": {"volumeName": "db-disk"}}),
        )
        .await;
        let disks = Arc::new(Disks::default());
        disks.bytes.lock().unwrap().insert(DISK.into(), b"every order ever made".to_vec());
        let env = Env::real();
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let passphrase = Passphrase::new("correct horse battery staple");
        let repository = Repository::init(Arc::new(MemStore::new()), &passphrase, &options, &env).unwrap();
        let means = Means {
            repository: repository.clone(),
            volumes: disks.clone(),
            hands: Arc::new(Nothing),
            env,
            cancel: Cancel::new(),
            progress: Arc::new(()),
        };
        let selection = Selection { namespaces: vec!["shop".into()], ..Selection::default() };
        let report = backup::run(&cluster, &means, &BackupOptions { selection, ..BackupOptions::default() })
            .await
            .unwrap();
        let reader = Arc::new(repository.reader(ReaderOptions::default()).unwrap());
        let point = Point::read(&reader, &report.info).unwrap();
        Scene { holder: None, server, disks, reader, info: report.info, point }
    }

    async fn cluster(&self) -> Cluster {
        connect(&self.server).await
    }

    async fn plan(&self, data: Data, transform: Transform) -> RestorePlan {
        let options = RestoreOptions { transform, data, ..RestoreOptions::default() };
        plan(&self.point, &self.cluster().await, &options).await.unwrap()
    }

    async fn execute(&self, plan: RestorePlan) -> Report {
        self.execute_with(plan, &Consent::default()).await
    }

    async fn execute_with(&self, plan: RestorePlan, consent: &Consent) -> Report {
        let approved = plan.approve(consent).unwrap();
        let executor = Executor {
            data: Some(DataSource {
                reader: self.reader.clone(),
                commit: self.info.id,
                volumes: self.disks.clone(),
            }),
            holder: self.holder.clone(),
            deadlines: Deadlines {
                step: Duration::from_millis(1),
                bound: Duration::from_millis(500),
                ..Deadlines::default()
            },
            ..Executor::new(self.cluster().await, env())
        };
        approved.execute(&executor).await
    }

    fn disk(&self, path: &str) -> String {
        String::from_utf8(self.disks.bytes.lock().unwrap().get(path).cloned().unwrap_or_default()).unwrap()
    }

    async fn claim(&self) -> Value {
        get(&self.cluster().await, "", "PersistentVolumeClaim", "copy", "data-db-0").await.unwrap().0
    }
}

fn copy() -> Transform {
    Mapping::from_yaml("namespaces: {shop: copy}").unwrap().check().unwrap()
}

#[tokio::test]
async fn data_is_in_before_anything_that_uses_it_and_restoring_again_leaves_it_alone() {
    let scene = Scene::new().await;
    *scene.disks.target.lock().unwrap() = Some(scene.server.clone());
    let report = scene.execute(scene.plan(Data::New, copy()).await).await;
    assert!(report.is_complete(), "{:#?}", report.findings);
    assert_eq!(
        (scene.disk(COPY).as_str(), scene.disk(DISK).as_str()),
        ("every order ever made", "every order ever made")
    );
    assert_eq!((report.volumes.len(), report.volumes[0].restored, report.volumes[0].bytes), (1, true, 21));
    assert_eq!(scene.claim().await.pointer("/metadata/annotations"), None, "the mark is taken off");

    scene.disks.bytes.lock().unwrap().insert(COPY.into(), b"a new order".to_vec());
    let again = scene.plan(Data::New, copy()).await;
    assert!(
        !again.changes_anything(),
        "{:#?}",
        again.steps().filter(|s| s.action != Action::Unchanged).collect::<Vec<_>>()
    );
    scene.execute(again).await;
    assert_eq!((scene.disk(COPY).as_str(), *scene.disks.writes.lock().unwrap()), ("a new order", 1));
}

#[tokio::test]
async fn a_database_is_held_back_while_its_data_is_not_in_and_the_next_restore_goes_on() {
    let scene = Scene::new().await;
    *scene.disks.pulled.lock().unwrap() = true;
    let report = scene.execute(scene.plan(Data::New, copy()).await).await;
    assert!(!report.is_complete());
    let failed: Vec<String> = report
        .objects
        .iter()
        .filter(|object| object.done == app::restore::Done::Failed)
        .map(|object| format!("{}: {}", object.key, object.message))
        .collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].starts_with("StatefulSet copy/db: held back: the data of"), "{failed:?}");
    assert!(
        report.findings.iter().any(|f| f.code == "data-not-restored" && f.message == "the disk was pulled")
    );
    assert_eq!(scene.disk(COPY), "every orde");
    assert!(scene.claim().await.pointer("/metadata/annotations").is_some(), "half of it is marked as that");

    let again = scene.plan(Data::New, copy()).await;
    assert_eq!(again.volumes[0].reason, "an earlier restore did not finish it");
    assert_eq!(again.counts().create, 1, "only the database is missing");
    let report = scene.execute(again).await;
    assert!(report.is_complete(), "{:#?}", report.findings);
    assert_eq!(scene.disk(COPY), "every order ever made");
    assert!(!scene.plan(Data::New, copy()).await.changes_anything());
}

#[tokio::test]
async fn data_that_is_there_is_overwritten_only_with_consent_and_never_under_a_running_pod() {
    let scene = Scene::new().await;
    scene.disks.bytes.lock().unwrap().insert(DISK.into(), b"later".to_vec());
    let plan = scene.plan(Data::Overwrite, Transform::default()).await;
    let refused = plan.clone().approve(&Consent::default()).unwrap_err();
    assert!(matches!(refused, NotApproved::Overwrites(_)), "{refused}");
    assert_eq!(scene.disk(DISK), "later");

    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "db-0"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data-db-0"}}]}});
    apply(&scene.server, &[pod]).await;
    let in_use = scene.plan(Data::Overwrite, Transform::default()).await;
    assert!(!in_use.volumes[0].restore);
    assert!(in_use.findings.iter().any(|f| f.code == "claim-in-use" && f.message.contains("Pod shop/db-0")));

    let report = scene.execute_with(plan, &Consent { overwrite_data: true, ..Consent::default() }).await;
    assert_eq!(report.failed, 0, "{:#?}", report.findings);
    assert_eq!(scene.disk(DISK), "every order ever made");
}

#[tokio::test]
async fn a_deleted_application_comes_back_onto_its_own_disk_which_must_be_empty() {
    let scene = Scene::new().await;
    let cluster = scene.cluster().await;
    delete_namespace(&cluster, "shop").await;
    // What the volume controller leaves of a retained volume whose claim was deleted.
    let mut disk = get(&cluster, "", "PersistentVolume", "", "db-disk").await.unwrap().0;
    disk["spec"]["claimRef"]["uid"] = json!("gone");
    disk["status"]["phase"] = json!("Released");
    assert!(scene.server.load([disk]).is_empty());
    let plan = scene.plan(Data::New, Transform::default()).await;
    let step = plan.steps().find(|step| step.key.kind == "PersistentVolume").unwrap();
    assert_eq!(step.action, Action::Update, "{}", step.reason);
    let report = scene.execute(plan).await;
    let disk = get(&cluster, "", "PersistentVolume", "", "db-disk").await.unwrap();
    assert_eq!(disk.at("/spec/claimRef/uid"), None, "the old claim's hold is off");
    assert_eq!(disk.str("/spec/claimRef/name"), "data-db-0");
    assert_eq!(scene.disk(DISK), "every order ever made");
    // The disk still holds what it held: that may be newer than the point, so it is not written over.
    assert!(
        report.findings.iter().any(|f| f.message.contains("/var/data/db holds data")),
        "{:#?}",
        report.findings
    );
    assert!(get(&cluster, "apps", "StatefulSet", "shop", "db").await.is_none(), "held back");

    let again = scene.execute(scene.plan(Data::New, Transform::default()).await).await;
    assert!(
        again.findings.iter().any(|f| f.message.contains("/var/data/db holds data")),
        "not the second time either"
    );
    assert_eq!(scene.disk(DISK), "every order ever made");

    scene.disks.bytes.lock().unwrap().insert(DISK.into(), Vec::new());
    let report = scene.execute(scene.plan(Data::New, Transform::default()).await).await;
    assert!(report.is_complete(), "{:#?}", report.findings);
    assert_eq!(scene.disk(DISK), "every order ever made");
}

#[tokio::test]
async fn nothing_starts_on_a_volume_with_damaged_files_unless_it_is_asked_for() {
    let scene = Scene::new().await;
    *scene.disks.damaged.lock().unwrap() = true;
    let report = scene.execute(scene.plan(Data::New, copy()).await).await;
    assert!(report.findings.iter().any(|f| f.code == "damaged"), "{:#?}", report.findings);
    assert!(get(&scene.cluster().await, "apps", "StatefulSet", "copy", "db").await.is_none());
    // What the message says to do.
    let report = scene.execute(scene.plan(Data::Leave, copy()).await).await;
    assert_eq!((report.created, report.failed), (1, 0), "{:#?}", report.findings);
    assert!(get(&scene.cluster().await, "apps", "StatefulSet", "copy", "db").await.is_some());
}

/// What a scheduler, a provisioner and a kubelet would do about one pod, and then about its end.
async fn play_node(server: &ApiServer, cluster: &Cluster) -> Value {
    let find =
        || server.dump().into_iter().find(|o| o["kind"] == "Pod" && o["metadata"]["namespace"] == "copy");
    let mut pod = loop {
        match find() {
            Some(pod) => break pod,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pvc-new"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/provisioned"},
        "claimRef": {"namespace": "copy", "name": "data-db-0"}}});
    apply(server, &[volume]).await;
    patch(
        cluster,
        "",
        "PersistentVolumeClaim",
        "copy",
        "data-db-0",
        json!({"spec": {"volumeName": "pvc-new"}}),
    )
    .await;
    pod["status"]["phase"] = json!("Running");
    pod["spec"]["nodeName"] = json!("me");
    assert!(server.load([pod.clone()]).is_empty());
    pod
}

#[tokio::test]
async fn a_claim_that_waits_for_a_pod_gets_one_for_as_long_as_its_data_takes() {
    let mut scene = Scene::new().await;
    *scene.disks.target.lock().unwrap() = Some(scene.server.clone());
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "waits"},
        "provisioner": "example.com/disks", "volumeBindingMode": "WaitForFirstConsumer"});
    apply(&scene.server, &[class]).await;
    let transform = Mapping::from_yaml("{namespaces: {shop: copy}, storageClasses: {manual: waits}}")
        .unwrap()
        .check()
        .unwrap();
    scene.holder = Some(Holder { node: "me".into(), image: "pause".into() });

    // Not a node of this cluster: no pod can help.
    let report = scene.execute(scene.plan(Data::New, transform.clone()).await).await;
    assert!(
        report.findings.iter().any(|f| f.message.contains("is no node of the cluster")),
        "{:#?}",
        report.findings
    );
    assert!(get(&scene.cluster().await, "apps", "StatefulSet", "copy", "db").await.is_none());

    assert!(
        scene
            .server
            .load([json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "me"}})])
            .is_empty()
    );
    let plan = scene.plan(Data::New, transform.clone()).await;
    assert_eq!(plan.volumes[0].reason, "an earlier restore did not come to it");
    let cluster = scene.cluster().await;
    let (report, pod) = tokio::join!(scene.execute(plan), play_node(&scene.server, &cluster));
    assert_eq!(pod["spec"]["nodeSelector"]["kubernetes.io/hostname"], "me");
    assert!(report.is_complete(), "{:#?}", report.findings);
    assert_eq!(scene.disk("/provisioned"), "every order ever made");
    assert!(!scene.server.dump().iter().any(|o| o["kind"] == "Pod"), "the pod is gone");
    assert!(get(&cluster, "apps", "StatefulSet", "copy", "db").await.is_some());
    let again = scene.plan(Data::New, transform).await;
    assert!(
        !again.changes_anything(),
        "{:#?}",
        again.steps().filter(|s| s.action != Action::Unchanged).collect::<Vec<_>>()
    );
}
