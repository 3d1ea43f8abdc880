//! Many objects take little memory (R6): they are held as text, and opened one at a time.
//!
//! Each step runs in a process of its own, and what counts is its peak as the kernel saw it, for a small and a large
//! cluster. An object of these is 1.4 kB of JSON, and some 10 kB as a tree of values, once for each time it is held. What it
//! may take is less, with its references and all else that is known of it: a step that holds one tree of each fails, but
//! for a plan.
//! (`bench/objects` does the same with 100,000 objects.)
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use apiserver::{ApiServer, Options};
use app::api::Cluster;
use app::backup::{self, BackupOptions, Means};
use app::browse;
use app::discover::discover;
use app::point::{Contents, Point, points};
use app::restore::{RestoreOptions, plan};
use repo::store::{StoreOptions, open};
use repo::{Cancel, Env, InitOptions, Kdf, Passphrase, ReaderOptions, Repository};
use serde_json::{Value, json};

#[path = "../../repo/tests/common/cost.rs"]
mod cost;
#[path = "common/nothing.rs"]
mod nothing;
use nothing::Nothing;

/// Applications of four objects each.
const SMALL: usize = 250;
const LARGE: usize = 1_750;
/// What an object may take, in bytes.
const EACH_MAX: u64 = 7_000;
/// The same for a plan of a restore, which has what is wanted of each as a tree.
const PLANNED_MAX: u64 = 20_000;

/// Objects as a cluster has them: with the fields of who set what, and a status.
fn objects(applications: usize) -> Vec<Value> {
    let owned: Value = (0..24)
        .map(|field| (format!("f:field-{field}"), json!({})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut objects = Vec::new();
    for number in 0..applications {
        let (name, namespace) = (format!("app-{number}"), format!("space-{}", number / 50));
        if number % 50 == 0 {
            objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
        }
        let mut add = |api: &str, kind: &str, rest: Value| {
            let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace,
                "labels": {"app.kubernetes.io/instance": name, "tier": "web"},
                "managedFields": [{"manager": "kubectl", "operation": "Update", "apiVersion": api,
                    "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": owned, "f:spec": owned}}]}});
            object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            objects.push(object);
        };
        let labels = json!({"app": name});
        add("v1", "ConfigMap", json!({"data": {"config": "a=b\n".repeat(20)}}));
        add("v1", "Secret", json!({"type": "Opaque", "data": {"password": "c2VjcmV0"}}));
        add("v1", "Service", json!({"spec": {"selector": labels, "ports": [{"port": 80}]}}));
        add(
            "apps/v1",
            "Deployment",
            json!({"spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template":
            {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i", "envFrom": [
                {"configMapRef": {"name": name}}, {"secretRef": {"name": name}}]}]}}},
            "status": {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]}}),
        );
    }
    objects
}

async fn step(folder: &Path, name: &str, address: &str) {
    let store = open(folder.join("repository").to_str().unwrap(), &StoreOptions::default()).unwrap();
    let (passphrase, env) = (Passphrase::new("x"), Env::real());
    let connected = async |address: &str| {
        let client = kube::Client::try_from(kube::Config::new(address.parse().unwrap())).unwrap();
        Cluster::connect(client).await.unwrap()
    };
    if name == "discover" {
        let found = discover(&connected(address).await, &[]).await.unwrap();
        assert!(found.applications.len() >= SMALL);
        return;
    }
    let repository = Repository::open(store, &passphrase, &env).unwrap();
    if name == "back up" {
        let means = Means {
            repository,
            volumes: Arc::new(Nothing),
            hands: Arc::new(Nothing),
            env,
            cancel: Cancel::new(),
            progress: Arc::new(()),
        };
        let done = backup::run(&connected(address).await, &means, &BackupOptions::default()).await.unwrap();
        assert!(done.objects >= 4 * SMALL);
        return;
    }
    let newest = points(&repository, None).unwrap().done.pop().unwrap();
    let reader = repository.reader(ReaderOptions::default()).unwrap();
    if name == "browse" {
        let shown = browse::from_repository(&Contents::open(&reader, &newest).unwrap(), &env).unwrap();
        assert_eq!(shown.findings, []);
        let cluster = Cluster::connect(kube::Client::new(shown.done.router(), "default")).await.unwrap();
        let secrets = cluster.resources.find("", "Secret").unwrap();
        let found = cluster.list_as(secrets, None, None, drop).await.unwrap();
        assert!(found.len() >= SMALL);
    } else {
        let point = Point::read(&reader, &newest).unwrap();
        let plan = plan(&point, &connected(address).await, &RestoreOptions::default()).await.unwrap();
        assert!(plan.steps().count() >= 4 * SMALL);
    }
}

/// One step. The test below starts this program again for it, because a peak is that of a whole process; alone it
/// has nothing to measure, and fails.
#[test]
#[ignore = "one step of the test below, which starts it in a process of its own"]
fn child() {
    let asked = std::env::var("MEMORY_TEST_STEP").expect("the test below says which step");
    let [name, address, folder] = asked.splitn(3, ',').collect::<Vec<_>>()[..] else { panic!("{asked}") };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if name == "serve" {
        return runtime.block_on(serve(address.parse().unwrap()));
    }
    runtime.block_on(step(Path::new(folder), name, address));
    cost::tell();
}

/// Serves so many applications until nobody holds the other end of its input.
async fn serve(applications: usize) {
    let server = ApiServer::new(Options::deterministic(1));
    assert_eq!(server.load(objects(applications)), [""; 0]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nhttp://{}", listener.local_addr().unwrap()).unwrap();
    out.flush().unwrap();
    let _serving = server.serve(listener).unwrap();
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await.unwrap();
}

fn this(asked: String) -> Command {
    let mut command = cost::step("child");
    command.env("MEMORY_TEST_STEP", asked);
    command
}

#[test]
fn r6_many_objects_take_little_memory() {
    let sites = [SMALL, LARGE].map(|applications| {
        let folder = tempfile::tempdir().unwrap();
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let store = open(folder.path().join("repository").to_str().unwrap(), &StoreOptions::default());
        Repository::init(store.unwrap(), &Passphrase::new("x"), &options, &Env::real()).unwrap();
        // It ends with its input.
        let mut server = this(format!("serve,{applications},"));
        let mut server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = said.find(|line| line.starts_with("http://")).unwrap();
        (folder, server, said, address)
    });
    for (name, most) in [
        ("discover", EACH_MAX),
        ("back up", EACH_MAX),
        ("back up", EACH_MAX),
        ("browse", EACH_MAX),
        ("plan a restore", PLANNED_MAX),
    ] {
        let [small, large] = sites.each_ref().map(|(folder, _, _, address)| {
            cost::peak_of(&mut this(format!("{name},{address},{}", folder.path().display())))
        });
        let each = large.saturating_sub(small) / (4 * (LARGE - SMALL)) as u64;
        println!("{name}: {} and {} KiB, {each} bytes an object", small >> 10, large >> 10);
        assert!(each < most, "{name}: {small} and {large} bytes, {each} an object");
    }
    for (_folder, mut server, _said, _) in sites {
        drop(server.stdin.take());
        assert!(server.wait().unwrap().success());
    }
}
