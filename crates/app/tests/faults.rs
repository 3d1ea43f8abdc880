//! Clusters in trouble: throttled, half broken, or simply large. Each ends in a finding or is tried again, never in a silent gap.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

mod common;
#[path = "common/own.rs"]
mod own;
#[path = "common/round.rs"]
mod round;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use apiserver::{ApiServer, Options};
use app::api::{BrokenGroup, Cluster};
use app::export::{ExportOptions, manifests};
use app::object::Object;
use app::point::Point;
use app::restore::{RestoreOptions, plan};
use app::transform::Mapping;
use common::cluster;
use futures::StreamExt;
use http::{Method, Request, Response};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use own::OwnCluster;
use repo::Severity;
use serde_json::{Value, json};

type Answer = Option<Result<Response<Body>, kube::Error>>;

/// A server behind a proxy that may answer by itself, or hang up.
fn behind(
    server: &ApiServer,
    proxy: impl Fn(&Request<Body>) -> Answer + Send + Sync + 'static,
) -> kube::Client {
    let inner = kube::Client::new(server.router(), "default");
    let proxy = Arc::new(proxy);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, answer) = (inner.clone(), proxy(&request));
        async move {
            match answer {
                Some(answer) => answer,
                None => inner.send(request).await,
            }
        }
    });
    kube::Client::new(service, "default")
}

fn status(code: u16, message: &str) -> Answer {
    let body =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code});
    let body = Body::from(body.to_string().into_bytes());
    Some(Ok(Response::builder().status(code).header("retry-after", "0").body(body).unwrap()))
}

async fn create(cluster: &Cluster, objects: &[Value]) {
    for object in objects {
        let cluster = round::anew(cluster).await;
        let object = Object(object.clone());
        let resource = cluster.resources.find_version(&object.gvk()).unwrap();
        cluster.create(resource, &object, false).await.unwrap_or_else(|e| panic!("{}: {e}", object.key()));
    }
}

fn config(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}, "data": {"a": "b"}})
}

fn space(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn definition() -> Value {
    common::object("crd things.example.com")
}

fn thing(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"namespace": "n", "name": name}, "spec": {}})
}

fn plain(objects: usize) -> Vec<Value> {
    std::iter::once(space("n")).chain((0..objects).map(|i| config("n", &format!("c{i}")))).collect()
}

async fn point_of(cluster: &Cluster, namespaces: &[&str]) -> Point {
    let namespaces: Vec<String> = namespaces.iter().map(|name| (*name).to_owned()).collect();
    round::backed_up(&round::repository(), cluster, &namespaces).await
}

#[tokio::test]
async fn a_server_that_throttles_and_hangs_up_is_asked_again() {
    let server = ApiServer::new(Options::deterministic(1));
    create(&cluster(&server).await, &plain(30)).await;
    let target = ApiServer::new(Options::deterministic(2));
    let calls = Arc::new(AtomicUsize::new(0));
    // One of three requests is refused for now, and now and then the line goes dead.
    let trouble = |server: &ApiServer| {
        let (calls, before) = (calls.clone(), Mutex::new(Vec::<String>::new()));
        behind(server, move |request| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            let line = format!("{} {}", request.method(), request.uri());
            let mut before = before.lock().unwrap();
            if request.method() == Method::GET && call % 5 == 0 && !before.contains(&line) {
                before.push(line);
                return Some(Err(kube::Error::Service("connection reset by peer".into())));
            }
            if call % 3 == 0 { status(429, "the server has asked us to come back") } else { None }
        })
    };
    let troubled = Cluster::connect(trouble(&server)).await.unwrap();
    let point = point_of(&troubled, &["n"]).await;
    assert_eq!(point.objects.iter().filter(|o| o.key.kind == "ConfigMap").count(), 30);
    assert!(point.certificate.complete, "{:#?}", point.certificate.findings);
    let there = Cluster::connect(trouble(&target)).await.unwrap();
    let (_, report) = round::restored(&point, &there, &RestoreOptions::default()).await;
    assert!(report.is_complete(), "{:#?}", report.findings);
    assert_eq!(report.created, point.objects.len());
}

#[tokio::test]
async fn a_definition_whose_conversion_fails_makes_the_point_incomplete() {
    let server = ApiServer::new(Options::deterministic(1));
    create(&cluster(&server).await, &[space("n"), config("n", "c"), definition(), thing("t")]).await;
    let broken = behind(&server, |request| {
        let asked = request.method() == Method::GET && request.uri().path().ends_with("/things");
        let why = "conversion webhook for example.com/v1alpha1, Kind=Thing failed: Post \"https://conv.op.svc:443\": no endpoints available for service";
        if asked { status(500, why) } else { None }
    });
    let point = point_of(&Cluster::connect(broken).await.unwrap(), &["n"]).await;
    assert!(!point.certificate.complete);
    let told = point.certificate.findings.iter().find(|f| f.message.contains("conversion webhook"));
    assert!(told.is_some_and(|f| f.what.contains("things.example.com")), "{:#?}", point.certificate.findings);
    assert!(point.objects.iter().any(|o| o.key.name == "c"), "the rest is protected");
}

#[tokio::test]
async fn an_api_group_that_does_not_answer_on_the_target_is_told_and_the_rest_comes_back() {
    let server = ApiServer::new(Options::deterministic(1));
    create(&cluster(&server).await, &[space("n"), config("n", "c"), definition(), thing("t")]).await;
    let mut point = point_of(&cluster(&server).await, &["n"]).await;
    // Served by an aggregated server: there is no definition to bring along.
    point.objects.retain(|o| o.key.kind != "CustomResourceDefinition");
    let target = ApiServer::new(Options::deterministic(2));
    let mut there = cluster(&target).await;
    there.resources.broken.push(BrokenGroup {
        group_version: "example.com/v1".into(),
        message: "503 service unavailable".into(),
    });
    let (plan, report) = round::restored(&point, &there, &RestoreOptions::default()).await;
    let told: Vec<_> = report.findings.iter().filter(|f| f.severity == Severity::Error).collect();
    assert_eq!(told.iter().map(|f| f.code).collect::<Vec<_>>(), ["not-served"], "{told:#?}");
    assert!(told[0].message.contains("503 service unavailable") && told[0].what.contains("n/t"), "{told:#?}");
    assert!(!report.is_complete() && report.failed == 0);
    assert!(plan.left.iter().any(|left| left.key.name == "t"));
    let back = cluster(&target).await.resources.find("", "ConfigMap").unwrap().clone();
    assert!(there.get(&back, "n", "c").await.unwrap().is_some());
}

#[tokio::test]
async fn names_at_every_length_limit_go_the_whole_way() {
    let server = ApiServer::new(Options::deterministic(1));
    let target = ApiServer::new(Options::deterministic(2));
    names_at_every_length_limit(&cluster(&server).await, &cluster(&target).await).await;
}

#[tokio::test]
async fn kube_names_at_every_length_limit_go_the_whole_way() {
    let real = real().await;
    names_at_every_length_limit(&real, &real).await;
}

async fn names_at_every_length_limit(here: &Cluster, there: &Cluster) {
    let (space_name, long) = ("n".repeat(63), "x".repeat(253));
    let (label, key) = ("l".repeat(63), format!("{}/{}", "p".repeat(253), "k".repeat(63)));
    let rbac = "rbac.authorization.k8s.io";
    let mut first = config(&space_name, &long);
    first["metadata"]["labels"][&key] = json!(label);
    first["data"]["d".repeat(253)] = json!("v");
    let binding = |name: &str| {
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "ServiceAccount", "namespace": space_name, "name": "a"}]})
    };
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": space_name, "name": "a"}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": space_name, "name": "s".repeat(63)}, "spec": {"ports": [{"port": 80}]}});
    let objects = [
        space(&space_name),
        first,
        account,
        service,
        binding(&format!("{}a", "b".repeat(252))),
        binding(&format!("{}b", "b".repeat(252))),
    ];
    create(here, &objects).await;
    let point = point_of(&round::anew(here).await, &[&space_name]).await;
    let other = "m".repeat(63);
    let mut mapping = Mapping::default();
    mapping.add_namespace(&format!("{space_name}={other}")).unwrap();
    let options = RestoreOptions { transform: mapping.check().unwrap(), ..RestoreOptions::default() };
    let (_, report) = round::restored(&point, there, &options).await;
    assert!(report.failed == 0 && report.is_complete(), "{:#?}", report.findings);
    let bindings =
        there.list(there.resources.find(rbac, "ClusterRoleBinding").unwrap(), None, None).await.unwrap();
    let is_new = |name: &&str| name.starts_with("bbb") && name.ends_with(other.as_str());
    let bindings: Vec<&str> = bindings.iter().map(Object::name).filter(is_new).collect();
    assert_eq!(bindings.len(), 2, "two names that differ in their last letter stay two: {bindings:?}");
    assert!(bindings.iter().all(|name| name.len() <= 253), "{bindings:?}");
    // A file name has 255 bytes at most.
    let folder = tempfile::tempdir().unwrap();
    let export = manifests(&point, &ExportOptions::default()).unwrap();
    export.write_folder(&folder.path().join("out")).unwrap();
    let of_copy: Vec<Value> = bindings.iter().map(|name| binding(name)).chain([space(&other)]).collect();
    round::lose(there, &of_copy).await;
    round::lose(here, &objects).await;
}

/// The real server that the tests share.
async fn real() -> Cluster {
    let path = std::env::var("HOLDFAST_TEST_KUBECONFIG").unwrap_or_else(|_| {
        panic!("HOLDFAST_TEST_KUBECONFIG is not set: run this under `tests/real/with kube -- `")
    });
    let config = Kubeconfig::read_from(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    Cluster::connect(kube::Client::try_from(config).unwrap()).await.unwrap()
}

/// On a server of its own: the controllers of a real one put an account, its token and a certificate into every namespace, which
/// takes them minutes, and stands in everybody's way.
#[tokio::test]
async fn kube_five_thousand_namespaces_are_no_reason_to_wait() {
    let own = OwnCluster::up().await;
    let here = own.connect().await;
    let spaces = here.resources.find("", "Namespace").unwrap();
    let configs = here.resources.find("", "ConfigMap").unwrap();
    let begun = Instant::now();
    futures::stream::iter(0..5_000)
        .map(async |i| {
            let name = format!("n{i:04}");
            here.create(spaces, &Object(space(&name)), false).await.unwrap();
            here.create(configs, &Object(config(&name, "c")), false).await.unwrap();
        })
        .buffer_unordered(16)
        .collect::<()>()
        .await;
    println!("5000 namespaces made in {:?}", begun.elapsed());
    let begun = Instant::now();
    let one = point_of(&here, &["n0007"]).await;
    println!("one of 5000 namespaces backed up in {:?}", begun.elapsed());
    assert!(one.objects.iter().any(|o| o.key.name == "c") && one.meta.namespaces == ["n0007"]);
    let begun = Instant::now();
    let all = point_of(&here, &["n*"]).await;
    println!("5000 namespaces backed up in {:?}", begun.elapsed());
    let named =
        |name: &str| all.objects.iter().filter(|o| o.key.kind == "ConfigMap" && o.key.name == name).count();
    assert_eq!((all.meta.namespaces.len(), named("c")), (5_000, 5_000));
    assert!(all.certificate.complete, "{:#?}", all.certificate.findings.first());
    // Deleting them takes a real controller longer than all else, so it is planned and not done: every one is looked at.
    let begun = Instant::now();
    let plan = plan(&all, &here, &RestoreOptions::default()).await.unwrap();
    println!("a restore of 5000 namespaces planned in {:?}", begun.elapsed());
    let counts = plan.counts();
    assert!(!plan.changes_anything() && counts.unchanged >= 10_000, "{counts:?}");
}

#[tokio::test]
async fn five_thousand_namespaces_are_no_reason_to_wait() {
    let server = ApiServer::new(Options::deterministic(1));
    let objects = (0..5_000).flat_map(|i| {
        let name = format!("n{i:04}");
        [space(&name), config(&name, "c")]
    });
    assert!(server.load(objects).is_empty());
    let here = cluster(&server).await;
    let begun = Instant::now();
    let one = point_of(&here, &["n0007"]).await;
    println!("one of 5000 namespaces backed up in {:?}", begun.elapsed());
    assert_eq!(one.objects.iter().filter(|o| o.key.kind == "ConfigMap").count(), 1);
    let begun = Instant::now();
    let all = point_of(&here, &["n*"]).await;
    println!("5000 namespaces backed up in {:?}", begun.elapsed());
    assert_eq!(all.meta.namespaces.len(), 5_000);
    let target = ApiServer::new(Options::deterministic(2));
    let begun = Instant::now();
    let (_, report) = round::restored(&all, &cluster(&target).await, &RestoreOptions::default()).await;
    println!("5000 namespaces restored in {:?}", begun.elapsed());
    assert_eq!((report.created, report.failed), (10_000, 0), "{:#?}", report.findings.first());
}

/// A cluster of before 1.24 has one description of its API, megabytes of it. It is fetched when it is another one than the last point has, which
/// its server says without sending it.
#[tokio::test]
async fn a_description_that_did_not_change_is_not_sent_again() {
    let server = ApiServer::new(Options::deterministic(1));
    create(&cluster(&server).await, &[space("n"), config("n", "c")]).await;
    let tag = Arc::new(Mutex::new("\"A1\"".to_owned()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (told, seen) = (tag.clone(), asked.clone());
    let old = behind(&server, move |request| match request.uri().path() {
        "/openapi/v3" => status(404, "the server could not find the requested resource"),
        "/openapi/v2" => {
            let tag = told.lock().unwrap().clone();
            let condition = request.headers().get("if-none-match").map(|v| v.to_str().unwrap().to_owned());
            let same = condition.as_deref() == Some(tag.as_str());
            seen.lock().unwrap().push((condition, same));
            let document = json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": tag}, "paths": {}, "definitions": {}});
            let answer = Response::builder().status(if same { 304 } else { 200 }).header("etag", tag);
            let body = if same { Vec::new() } else { document.to_string().into_bytes() };
            Some(Ok(answer.header("content-type", "application/json").body(Body::from(body)).unwrap()))
        }
        _ => None,
    });
    let repository = round::repository();
    let backup = async || {
        let cluster = Cluster::connect(old.clone()).await.unwrap();
        let point = round::backed_up(&repository, &cluster, &["n".to_owned()]).await;
        let document = round::documents(&repository).remove("v2").unwrap();
        (point, document["info"]["version"].as_str().unwrap().to_owned())
    };
    assert_eq!(backup().await.1, "\"A1\"");
    assert_eq!(backup().await.1, "\"A1\"", "the second point has it too");
    *tag.lock().unwrap() = "\"B2\"".to_owned();
    assert_eq!(backup().await.1, "\"B2\"");
    let asked = asked.lock().unwrap().clone();
    let a = || Some("\"A1\"".to_owned());
    assert_eq!(asked, [(None, false), (a(), true), (a(), false)], "the condition, and whether it held");
}
