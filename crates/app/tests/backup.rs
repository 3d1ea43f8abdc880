//! A three-tier application on the embedded server becomes one recovery point, and is read back.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::{ApiServer, Options};
use app::backup::{self, BackupOptions, BackupReport, Means};
use app::certificate::State;
use app::error::Error;
use app::point::{Consistency, Contents, Point, Restore, Role, VolumeRecord, points};
use app::rules::{ExecOutcome, Hands, HandsError, Rule, Side, Target};
use app::select::Selection;
use app::volumes::{Existing, Located, Previous, VolumeCopy, VolumeError, VolumeRestored, Volumes};
use async_trait::async_trait;
use common::{cluster, server_with};
use repo::store::mem::MemStore;
use repo::{
    Cancel, EntryKind, Env, InitOptions, Kdf, Outcome, Passphrase, Progress, Reader, ReaderOptions,
    Repository, Root, Writer,
};
use serde_json::Value;

const SHOP: &str = "
    ns kube-system
    deploy web app.kubernetes.io/instance=shop sa:web cm:web secret:tls env:http://api.shop.svc
    deploy api app.kubernetes.io/instance=shop secret:db-password cm:api
    sts db app.kubernetes.io/instance=shop app=db secret:db-password template:data prio:high
    pod db-0 app.kubernetes.io/instance=shop app=db pvc:data-db-0 owner:StatefulSet/db
    svc web app.kubernetes.io/instance=shop sel:app.kubernetes.io/instance=shop
    svc db app.kubernetes.io/instance=shop sel:app=db
    ing shop svc:web tls:tls class:nginx; ingclass nginx
    cm web; cm api; secret tls; secret db-password; sa web
    rb web sa:web role:reader; role reader
    pvc data-db-0 app.kubernetes.io/instance=shop class:fast pv:pv-1; pv pv-1 path:/data; sc fast; prio high
    deploy unrelated app=other";

/// Volumes that are one file in memory.
#[derive(Default)]
struct Disks {
    /// By PersistentVolume.
    bytes: Mutex<BTreeMap<String, Vec<u8>>>,
    /// What happens while a volume is read.
    during: Mutex<Option<Box<dyn FnMut() + Send>>>,
    /// Claims that were read with a previous state at hand.
    with_previous: Mutex<Vec<String>>,
}

impl Volumes for Disks {
    fn locate(&self, pv: &Value, pvc: &Value, _: &[Value]) -> Result<Located, String> {
        let name = pv["metadata"]["name"].as_str().unwrap_or_default();
        if self.bytes.lock().unwrap().contains_key(name) {
            Ok(Located { path: PathBuf::from(name), how: format!("disk {name}") })
        } else {
            Err(format!("no disk for {}", pvc["metadata"]["name"]))
        }
    }

    fn backup(
        &self,
        from: &Located,
        writer: &Writer,
        previous: Option<(&Reader, &Previous)>,
        _: &Cancel,
        _: &dyn Progress,
    ) -> Result<Outcome<VolumeCopy>, VolumeError> {
        if let Some(during) = self.during.lock().unwrap().as_mut() {
            during();
        }
        let name = from.path.to_str().unwrap();
        if let Some((reader, previous)) = previous {
            assert!(reader.bytes(&previous.root, 1 << 20).is_ok());
            self.with_previous.lock().unwrap().push(name.to_owned());
        }
        let Some(bytes) = self.bytes.lock().unwrap().get(name).cloned() else {
            return Err(VolumeError::Unreachable("the disk was pulled".into()));
        };
        let mut stream = writer.stream(repo::Lane::Data);
        stream.append(&bytes)?;
        let copy = VolumeCopy {
            root: stream.finish()?,
            kind: EntryKind::Bytes,
            consistency: Consistency::Fuzzy,
            bytes: bytes.len() as u64,
            files: 1,
        };
        Ok(Outcome::clean(copy))
    }

    fn restore(
        &self,
        _: &Reader,
        _: &Root,
        _: &Located,
        _: Existing,
        _: &Cancel,
        _: &dyn Progress,
    ) -> Result<Outcome<VolumeRestored>, VolumeError> {
        panic!("a backup restores nothing")
    }
}

/// Runs the commands of every pod in one folder of this machine.
struct Shells(PathBuf);

#[async_trait]
impl Hands for Shells {
    async fn exec(
        &self,
        _: &Target,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, HandsError> {
        let root = self.0.to_str().unwrap();
        let command: Vec<String> =
            command.iter().map(|a| a.replace("/tmp/holdfast-", &format!("{root}/holdfast-"))).collect();
        let mut process = tokio::process::Command::new(&command[0]);
        process
            .args(&command[1..])
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match tokio::time::timeout(timeout, process.spawn().unwrap().wait_with_output()).await {
            Ok(output) => {
                let output = output.unwrap();
                Ok(ExecOutcome {
                    exit_code: output.status.code().unwrap_or(-1),
                    stdout: output.stdout,
                    stderr: output.stderr,
                })
            }
            Err(_) => Err(HandsError::Timeout(timeout)),
        }
    }
}

struct Site {
    server: ApiServer,
    disks: Arc<Disks>,
    folder: tempfile::TempDir,
    means: Means,
}

impl Site {
    fn new(objects: &str) -> Site {
        Site::with(Options::deterministic(1), objects)
    }

    fn with(options: Options, objects: &str) -> Site {
        let kdf = Kdf { memory_kib: 64, passes: 1, lanes: 1 };
        let env = Env::fixed(1_767_225_600_000_000_000, 7);
        let passphrase = Passphrase::new("correct horse battery staple");
        let repository = Repository::init(
            Arc::new(MemStore::new()),
            &passphrase,
            &InitOptions { kdf, ..InitOptions::default() },
            &env,
        )
        .unwrap();
        let disks = Arc::new(Disks::default());
        disks.bytes.lock().unwrap().insert("pv-1".into(), b"rows and rows".to_vec());
        let folder = tempfile::tempdir().unwrap();
        let means = Means {
            repository,
            volumes: disks.clone(),
            hands: Arc::new(Shells(folder.path().into())),
            env,
            cancel: Cancel::new(),
            progress: Arc::new(()),
        };
        Site { server: server_with(options, objects), disks, folder, means }
    }

    async fn back_up(&self, options: &BackupOptions) -> Result<BackupReport, Error> {
        backup::run(&cluster(&self.server).await, &self.means, options).await
    }

    fn read(&self, report: &BackupReport) -> Point {
        let reader = self.means.repository.reader(ReaderOptions::default()).unwrap();
        Point::read(&reader, &report.info).unwrap()
    }

    fn volume(&self, report: &BackupReport, record: &VolumeRecord) -> Vec<u8> {
        let reader = self.means.repository.reader(ReaderOptions::default()).unwrap();
        let manifest = reader.manifest(&report.info.id).unwrap();
        let entry = manifest.iter().find(|e| Some(&e.name) == record.entry.as_ref()).unwrap();
        reader.bytes(&entry.root, 1 << 20).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log"))
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn shop() -> BackupOptions {
    BackupOptions {
        selection: Selection { application: Some("shop".into()), ..Selection::default() },
        writer: repo::WriterOptions { threads: 1, ..repo::WriterOptions::default() },
        ..BackupOptions::default()
    }
}

fn with_rule(spec: &str) -> BackupOptions {
    let text =
        format!("apiVersion: holdfast.dev/v1alpha1\nkind: Rule\nmetadata: {{name: db}}\nspec:\n{spec}\n");
    BackupOptions { rules: vec![Rule::parse(&text, Side::Pre).unwrap()], ..shop() }
}

const LOCK: &str = "  pre:\n  - {podSelector: {app: db}, command: echo flush >> log}\n  - {podSelector: {app: db}, lock: {command: echo lock >> log, release: echo free >> log}}\n  post: [{podSelector: {app: db}, command: echo after >> log}]";

#[tokio::test]
async fn a_three_tier_application_becomes_one_point_and_is_read_back() {
    let site = Site::new(SHOP);
    let report = site.back_up(&shop()).await.unwrap();
    let point = site.read(&report);

    assert!(point.certificate.complete, "{:#?}", point.certificate);
    assert_eq!(point.meta, report.meta);
    assert_eq!(
        (point.meta.application.as_str(), point.meta.namespaces.join(",")),
        ("shop", "shop".to_owned())
    );
    let names = |role: Role| {
        point
            .objects
            .iter()
            .filter(|o| o.role == role)
            .map(|o| o.key.to_string().replace(" shop/", " "))
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(
        names(Role::Member),
        "ConfigMap api, ConfigMap web, PersistentVolumeClaim data-db-0, Pod db-0, Secret db-password, Secret tls, Service db, Service web, ServiceAccount web, Deployment api, Deployment web, StatefulSet db, Ingress shop, Role reader, RoleBinding web"
    );
    assert_eq!(
        names(Role::Cluster),
        "Namespace shop, PersistentVolume pv-1, IngressClass nginx, PriorityClass high, StorageClass fast"
    );
    assert!(point.objects.is_sorted_by(|a, b| a.key < b.key), "sorted, so that points deduplicate");

    // The untouched object beside the cleaned one.
    let db = point.objects.iter().find(|o| o.key.kind == "Pod").unwrap();
    assert_eq!(db.restore, Restore::Owned);
    let web = point.objects.iter().find(|o| o.key.kind == "Service" && o.key.name == "web").unwrap();
    let (original, clean) = (web.original.open(), web.clean.open());
    assert!(site.server.dump().contains(&original.0), "as the server has it");
    assert!(clean.at("/metadata/uid").is_none() && !original.uid().is_empty());

    // Its volume.
    assert_eq!(point.volumes.len(), 1);
    assert_eq!(point.volumes[0].entry.as_deref(), Some("volume/shop/data-db-0"));
    assert_eq!(site.volume(&report, &point.volumes[0]), b"rows and rows");
    assert_eq!(point.meta.consistency, Some(Consistency::Fuzzy), "nobody held it, and it says so");

    // The graph, and the summary that lists of points show.
    let graph = point.graph();
    assert!(graph.edges.iter().any(|e| e.from.name == "api" && e.to.name == "db-password"));
    assert_eq!(report.info.summary.labels["complete"], "true");
    assert_eq!(report.info.summary.labels["consistency"], "fuzzy");
    assert!(!report.info.summary.labels["cluster"].is_empty());
    assert_eq!(report.info.summary.figures["objects"], point.objects.len() as u64);
    assert_eq!(report.info.summary.figures["volumes"], 1);
    assert!(point.discovery.find("apps", "Deployment").is_some());
}

#[tokio::test]
async fn a_locked_application_is_at_rest_in_the_point() {
    let site = Site::new(SHOP);
    let log = site.folder.path().join("log");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watcher = seen.clone();
    *site.disks.during.lock().unwrap() = Some(Box::new(move || {
        watcher
            .lock()
            .unwrap()
            .push(std::fs::read_to_string(&log).unwrap_or_default().lines().last().unwrap_or("").to_owned())
    }));
    let report = site.back_up(&with_rule(LOCK)).await.unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        ["", "lock"],
        "read ahead while it runs, then once more under the lock"
    );
    assert_eq!(site.log(), "flush lock free after");
    let point = site.read(&report);
    assert_eq!(point.volumes[0].consistency, Consistency::Application);
    assert_eq!(point.meta.consistency, Some(Consistency::Application));
    assert_eq!((point.meta.rules[0].members, point.meta.rules[0].kept), (1, true));
    assert!(point.certificate.complete, "{:?}", point.certificate.findings);
}

#[tokio::test]
async fn objects_are_those_of_the_cut() {
    let site = Site::new(SHOP);
    let server = site.server.clone();
    let mut reads = 0;
    *site.disks.during.lock().unwrap() = Some(Box::new(move || {
        reads += 1;
        if reads == 1 {
            // While it reads ahead, somebody deploys: the point has what was there under the lock.
            let mut late = common::object("cm late app.kubernetes.io/instance=shop");
            late["metadata"]["uid"] = "late".into();
            assert!(server.load([late]).is_empty());
        }
    }));
    let report = site.back_up(&with_rule(LOCK)).await.unwrap();
    assert!(site.read(&report).objects.iter().any(|o| o.key.name == "late"));
}

#[tokio::test]
async fn a_lock_that_went_early_weakens_the_level_and_the_point_says_why() {
    let site = Site::new(SHOP);
    let mut reads = 0;
    *site.disks.during.lock().unwrap() = Some(Box::new(move || {
        reads += 1;
        if reads == 2 {
            std::thread::sleep(Duration::from_millis(3000));
        }
    }));
    let report = site.back_up(&with_rule(&format!("  hold: 1s\n{LOCK}"))).await.unwrap();
    assert_eq!(site.log(), "flush lock free after", "let go once, by the guard");
    let point = site.read(&report);
    assert_eq!(point.volumes[0].consistency, Consistency::Fuzzy);
    assert_eq!(point.volumes[0].note, "pod shop/db-0 mounts it and did not stay locked through the cut");
    assert!(!point.meta.rules[0].kept);
    assert!(point.certificate.findings.iter().any(|f| f.code == "lock-lost"));
}

#[tokio::test]
async fn a_rule_that_fails_ends_the_backup_and_nothing_is_committed() {
    let site = Site::new(SHOP);
    let spec = "  pre:\n  - {podSelector: {app: db}, lock: {command: echo lock >> log, release: echo free >> log}}\n  - {podSelector: {app: db}, command: exit 7}";
    let error = site.back_up(&with_rule(spec)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Rule(why) if why.contains("spec.pre[1] of rule db in shop/db-0 (main): exit code 7")),
        "{error}"
    );
    assert_eq!(site.log(), "lock free");
    assert!(points(&site.means.repository, None).unwrap().done.is_empty());

    let site = Site::new(SHOP);
    let report =
        site.back_up(&with_rule(&spec.replace("exit 7", "exit 7, onError: Continue"))).await.unwrap();
    assert!(report.certificate.findings.iter().any(|f| f.code == "rule-step-failed"));
}

#[tokio::test]
async fn cancelling_during_the_cut_releases_and_commits_nothing() {
    let site = Site::new(SHOP);
    let (cancel, mut reads) = (site.means.cancel.clone(), 0);
    *site.disks.during.lock().unwrap() = Some(Box::new(move || {
        reads += 1;
        if reads == 2 {
            cancel.cancel();
        }
    }));
    let error = site.back_up(&with_rule(LOCK)).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(site.log().starts_with("flush lock free"), "{}", site.log());
    assert!(points(&site.means.repository, None).unwrap().done.is_empty());
}

#[tokio::test]
async fn what_is_missing_is_in_the_certificate_and_the_rest_is_safe() {
    for (story, objects, code, told) in [
        (
            "a secret nobody has",
            "deploy web app.kubernetes.io/instance=shop secret:gone",
            "",
            "Secret shop/gone: not found in the cluster",
        ),
        (
            "a volume out of reach",
            "pvc d app.kubernetes.io/instance=shop pv:pv-9; pv pv-9 path:/x",
            "volume-missing",
            "d: no disk for \"d\"",
        ),
    ] {
        let site = Site::new(objects);
        let report = site.back_up(&shop()).await.unwrap();
        let point = site.read(&report);
        assert!(!point.certificate.complete, "{story}");
        assert_eq!(report.info.summary.labels["complete"], "false");
        let references = point
            .certificate
            .references
            .iter()
            .filter(|r| r.state == State::Missing)
            .map(|r| format!("{}: {}", r.to, r.reason));
        let volumes = point
            .certificate
            .volumes
            .iter()
            .filter_map(|v| Some(format!("{}: {}", v.claim, v.missing.as_ref()?)));
        assert_eq!(references.chain(volumes).collect::<Vec<_>>(), [told], "{story}");
        assert!(code.is_empty() || point.certificate.findings.iter().any(|f| f.code == code), "{story}");
        assert!(!point.objects.is_empty(), "the rest is there");
    }
}

#[tokio::test]
async fn an_unbound_claim_has_nothing_that_could_be_missing() {
    let site = Site::new("pvc d app.kubernetes.io/instance=shop");
    let point = site.read(&site.back_up(&shop()).await.unwrap());
    assert!(point.certificate.complete);
    assert_eq!((&point.volumes[0].entry, &point.volumes[0].missing), (&None, &None));
    assert_eq!(point.volumes[0].note, "not bound yet: there is no data");
}

#[tokio::test]
async fn a_point_without_the_right_to_read_secrets_is_partial() {
    let site = Site::with(Options::deterministic(1).deny(|a| a.resource == "secrets"), SHOP);
    let point = site.read(&site.back_up(&shop()).await.unwrap());
    assert!(!point.certificate.complete);
    assert!(point.certificate.findings.iter().any(|f| f.code == "forbidden" && f.what == "secrets in shop"));
    assert!(point.objects.iter().any(|o| o.key.kind == "Deployment"));
}

#[tokio::test]
async fn the_next_point_builds_on_the_last_and_unchanged_objects_cost_nothing() {
    let site = Site::new(SHOP);
    let first = site.back_up(&shop()).await.unwrap();
    assert!(first.info.summary.parents.is_empty());
    site.means.env.advance(3_600_000_000_000);
    let second = site.back_up(&shop()).await.unwrap();
    assert_eq!(second.info.summary.parents, [first.info.id]);
    assert_eq!(*site.disks.with_previous.lock().unwrap(), ["pv-1"]);
    let new = [&first, &second].map(|done| done.info.summary.figures["bytes_new_plain"]);
    assert!(new[1] < new[0] / 10, "only what the point says of itself is new: {new:?}");
    let (a, b) = (site.read(&first), site.read(&second));
    assert_eq!(a.objects, b.objects);
    let all = points(&site.means.repository, Some("shop")).unwrap().done;
    assert_eq!(all.iter().map(|i| i.id).collect::<Vec<_>>(), [first.info.id, second.info.id]);
    assert!(points(&site.means.repository, Some("other")).unwrap().done.is_empty());
}

#[tokio::test]
async fn what_the_cluster_says_of_its_api_is_stored_once_for_all_points() {
    let site = Site::new(SHOP);
    let first = site.back_up(&shop()).await.unwrap();
    site.means.env.advance(3_600_000_000_000);
    let second = site.back_up(&shop()).await.unwrap();
    let reader = site.means.repository.reader(ReaderOptions::default()).unwrap();
    let of = |report: &BackupReport| Contents::open(&reader, &report.info).unwrap();
    let (a, b) = (of(&first), of(&second));
    let documents = a.documents();
    assert!(
        documents.contains_key("v3/api/v1") && documents.contains_key("v3/apis/apps/v1"),
        "{documents:?}"
    );
    assert_eq!(documents, b.documents(), "equal bytes are one object, whatever the number of points");
    let api = b.api().unwrap();
    let apps: Value = serde_json::from_slice(&api.documents["v3/apis/apps/v1"]).unwrap();
    assert_eq!(apps["info"]["title"], "Kubernetes");
    assert!(b.discovery().unwrap().openapi.contains_key("v3/apis/apps/v1"));
    // A kind more is another document; the others stay where they are.
    let definition = serde_json::json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "mice.acme.io"}, "spec": {"group": "acme.io", "scope": "Namespaced",
            "names": {"kind": "Mouse", "plural": "mice", "singular": "mouse", "listKind": "MouseList"}, "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    assert!(site.server.load([definition]).is_empty());
    let third = site.back_up(&shop()).await.unwrap();
    let reader = site.means.repository.reader(ReaderOptions::default()).unwrap();
    let with_mice = Contents::open(&reader, &third.info).unwrap().documents();
    assert_eq!(with_mice["v3/apis/apps/v1"], documents["v3/apis/apps/v1"]);
    assert!(with_mice.contains_key("v3/apis/acme.io/v1"));

    // What is browsed says what its own cluster said.
    let point = site.read(&second);
    let shown = app::browse::server(&point, api, &site.means.env).done;
    let shown = cluster(&shown).await;
    assert_eq!(shown.get_path("/openapi/v3/apis/apps/v1").await.unwrap(), apps);
    assert_eq!(shown.resources.types, point.discovery.types, "its own discovery");
    let conf = app::object::Object(serde_json::json!({"metadata": {"name": "x", "namespace": "shop"}}));
    let refused = shown.create(shown.resources.find("", "ConfigMap").unwrap(), &conf, false);
    assert!(refused.await.unwrap_err().to_string().contains("read-only"));
}

#[tokio::test]
async fn rows_that_only_their_cluster_can_print_are_captured_and_shown() {
    let site = Site::new(&format!("{SHOP}; thing gear app.kubernetes.io/instance=shop"));
    let report = site.back_up(&shop()).await.unwrap();
    let reader = site.means.repository.reader(ReaderOptions::default()).unwrap();
    let api = Contents::open(&reader, &report.info).unwrap().api().unwrap();
    assert_eq!(api.tables.len(), 1, "{:?}", api.tables);
    assert_eq!(api.tables[0].rows[0].name, "gear");
    let mut api = api;
    // As a server with columns of its own would have printed it.
    api.tables[0].columns =
        serde_json::from_str(r#"[{"name":"Name","type":"string"},{"name":"Teeth","type":"integer"}]"#)
            .unwrap();
    api.tables[0].rows[0].cells = vec!["gear".into(), 12.into()];
    let (group, plural) = (api.tables[0].group.clone(), api.tables[0].plural.clone());
    let shown = cluster(&app::browse::server(&site.read(&report), api, &site.means.env).done).await;
    let path = format!("/apis/{group}/v1/namespaces/shop/{plural}");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let answer = shown.send(http::Method::GET, &path, &accept, Vec::new()).await.unwrap();
    let table: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(table["columnDefinitions"][1]["name"], "Teeth");
    assert_eq!(table["rows"][0]["cells"], serde_json::json!(["gear", 12]));
}

#[tokio::test]
async fn a_volume_under_an_old_name_is_read_in_full() {
    let site = Site::new(SHOP);
    site.back_up(&shop()).await.unwrap();
    // The claim was deleted and made again: another volume, which the old state says nothing about.
    let volume = common::object("pv pv-2 path:/data2");
    let claim = common::object("pvc data-db-0 app.kubernetes.io/instance=shop class:fast pv:pv-2");
    assert!(site.server.load([volume, claim]).is_empty());
    site.disks.bytes.lock().unwrap().insert("pv-2".into(), b"new rows".to_vec());
    let report = site.back_up(&shop()).await.unwrap();
    assert!(site.disks.with_previous.lock().unwrap().is_empty());
    assert_eq!(site.volume(&report, &report.volumes[0]), b"new rows");
}

#[tokio::test]
async fn a_plan_tells_everything_and_does_nothing() {
    let site = Site::new(SHOP);
    let before = site.server.dump();
    let plan = backup::plan(&cluster(&site.server).await, &site.means, &with_rule(LOCK)).await.unwrap();
    let summary = plan.summary();
    assert_eq!(summary.application, "shop");
    assert_eq!(
        summary.volumes,
        [("PersistentVolumeClaim shop/data-db-0".to_owned(), "disk pv-1".to_owned())]
    );
    assert_eq!(
        summary.before,
        [
            "run `echo flush >> log` in shop/db-0 (main)",
            "lock with `echo lock >> log`, release with `echo free >> log` after at most 5s in shop/db-0 (main)"
        ]
    );
    assert_eq!(summary.after, ["run `echo after >> log` in shop/db-0 (main)"]);
    assert_eq!(summary.objects.len(), plan.selected.objects.len());
    assert!(serde_json::to_value(&summary).is_ok());
    assert_eq!(site.log(), "");
    assert_eq!(site.server.dump(), before);
    assert!(points(&site.means.repository, None).unwrap().done.is_empty());
}

#[tokio::test]
async fn a_point_of_a_newer_format_is_refused_and_a_commit_of_another_kind_is_none() {
    let site = Site::new("cm c app.kubernetes.io/instance=shop");
    let report = site.back_up(&shop()).await.unwrap();
    let mut newer = site.read(&report);
    newer.meta.format = 99;
    let writer = site.means.repository.writer(repo::WriterOptions::default()).unwrap();
    let draft = newer.write(&writer, Vec::new(), Vec::new()).unwrap();
    let info = writer.commit(draft).unwrap();
    let reader = site.means.repository.reader(ReaderOptions::default()).unwrap();
    assert!(matches!(Point::read(&reader, &info), Err(repo::Error::NewerFormat { version: 99, .. })));
    let writer = site.means.repository.writer(repo::WriterOptions::default()).unwrap();
    let info =
        writer.commit(repo::CommitDraft { kind: "volume".into(), ..repo::CommitDraft::default() }).unwrap();
    let reader = site.means.repository.reader(ReaderOptions::default()).unwrap();
    let error = Point::read(&reader, &info).unwrap_err().to_string();
    assert!(error.contains("not a recovery point"), "{error}");
    assert_eq!(
        points(&site.means.repository, None).unwrap().done.len(),
        2,
        "lists of points have no volumes in them"
    );
}
