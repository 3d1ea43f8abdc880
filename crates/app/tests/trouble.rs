//! Every trouble an API server can make, one a row: throttling, dead lines, answers cut short, expired lists, broken conversions.
//! Each is tried again until it is over, or ends in a finding and a point that says it is not complete; never in a point that
//! lacks something and calls itself whole. The same table against the embedded server and against a real one.
//!
//! Holdfast opens no watch, so none can be dropped: what it waits for it asks for again. That is counted here, too.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

mod common;
#[path = "common/own.rs"]
mod own;
#[path = "common/round.rs"]
mod round;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::{ApiServer, Options};
use app::api::{Cluster, Propagation};
use app::backup::{self, BackupOptions, Means};
use app::certificate::Level;
use app::object::Object;
use app::point::Point;
use app::restore::{Consent, Deadlines, Executor, Report, RestoreOptions, plan};
use app::select::Selection;
use app::transform::Mapping;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use kube::client::Body;
use own::OwnCluster;
use repo::{Cancel, Env, ReaderOptions};
use serde_json::{Value, json};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The server answers with this status and these words, and asks to come back at once.
    Says(u16, &'static str),
    /// The line goes dead before the server hears of it.
    HangsUp,
    /// The server does what it was asked, and the line goes dead before it can say so.
    Forgets,
    /// The line goes dead in the middle of the answer.
    CutsOff,
    /// The answer ends in the middle, as if that were all.
    EndsEarly,
    /// Somebody else answers: a login page, with status 200.
    Stranger,
}

/// What has to come of it.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// As if nothing had been.
    Whole,
    /// An incomplete point: a finding with this code that names this.
    Told(&'static str, &'static str),
    /// No point at all, and an error.
    Refused,
}

const ALWAYS: usize = usize::MAX;

/// One row.
struct Trouble {
    story: &'static str,
    /// Which requests it meets.
    meets: fn(&Request<Body>) -> bool,
    /// How many of them.
    times: usize,
    fault: Fault,
    ends: Ends,
}

fn asks_for(request: &Request<Body>, plural: &str) -> bool {
    request.method() == Method::GET && request.uri().path().ends_with(&format!("/{plural}"))
}

fn any(request: &Request<Body>) -> bool {
    request.method() == Method::GET
}

fn configs(request: &Request<Body>) -> bool {
    asks_for(request, "configmaps")
}

fn next_page(request: &Request<Body>) -> bool {
    configs(request) && request.uri().query().unwrap_or("").contains("continue=")
}

fn things(request: &Request<Body>) -> bool {
    asks_for(request, "things")
}

const BUSY: &str = "the server has received too many requests and has asked us to try again later";
const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result";
const CONVERSION: &str = "conversion webhook for example.com/v1alpha1, Kind=Thing failed: Post \"https://conv.op.svc:443\": no endpoints available for service";

/// While a backup reads.
#[rustfmt::skip]
const READING: &[Trouble] = &[
    Trouble { story: "throttled now and then", meets: any, times: 4, fault: Fault::Says(429, BUSY), ends: Ends::Whole },
    Trouble { story: "throttled for good", meets: configs, times: ALWAYS, fault: Fault::Says(429, BUSY), ends: Ends::Told("unreadable", "configmaps") },
    Trouble { story: "throttled for good, a custom kind", meets: things, times: ALWAYS, fault: Fault::Says(429, BUSY), ends: Ends::Told("unreadable", "things.example.com") },
    Trouble { story: "a line goes dead", meets: configs, times: 1, fault: Fault::HangsUp, ends: Ends::Whole },
    Trouble { story: "a line goes dead in the middle of a list", meets: next_page, times: 1, fault: Fault::CutsOff, ends: Ends::Whole },
    Trouble { story: "every line goes dead: the cluster is gone", meets: configs, times: ALWAYS, fault: Fault::HangsUp, ends: Ends::Refused },
    Trouble { story: "every list is cut in the middle: the cluster is gone", meets: next_page, times: ALWAYS, fault: Fault::CutsOff, ends: Ends::Refused },
    Trouble { story: "every line of one custom kind goes dead", meets: things, times: ALWAYS, fault: Fault::HangsUp, ends: Ends::Told("unreadable", "things.example.com") },
    Trouble { story: "a list ends early and says nothing of it", meets: next_page, times: ALWAYS, fault: Fault::EndsEarly, ends: Ends::Told("unreadable", "configmaps") },
    Trouble { story: "a stranger answers", meets: configs, times: ALWAYS, fault: Fault::Stranger, ends: Ends::Told("unreadable", "configmaps") },
    Trouble { story: "a list expires half way", meets: next_page, times: 2, fault: Fault::Says(410, EXPIRED), ends: Ends::Whole },
    Trouble { story: "a list expires whenever it is half way", meets: next_page, times: ALWAYS, fault: Fault::Says(410, EXPIRED), ends: Ends::Told("unreadable", "configmaps") },
    Trouble { story: "the right to read ends half way", meets: next_page, times: ALWAYS, fault: Fault::Says(403, "forbidden"), ends: Ends::Told("forbidden", "configmaps") },
    Trouble { story: "a kind of Kubernetes' own is not found", meets: configs, times: ALWAYS, fault: Fault::Says(404, "the server could not find the requested resource"), ends: Ends::Told("unreadable", "configmaps") },
    Trouble { story: "a conversion fails", meets: things, times: ALWAYS, fault: Fault::Says(500, CONVERSION), ends: Ends::Told("unreadable", "things.example.com") },
    Trouble { story: "an aggregated server is not there", meets: things, times: ALWAYS, fault: Fault::Says(503, "the server is currently unable to handle the request"), ends: Ends::Told("unreadable", "things.example.com") },
    Trouble { story: "a request takes the server too long", meets: things, times: ALWAYS, fault: Fault::Says(504, "request did not complete within the allotted timeout"), ends: Ends::Told("unreadable", "things.example.com") },
    Trouble { story: "etcd has lost its leader", meets: configs, times: ALWAYS, fault: Fault::Says(500, "etcdserver: no leader"), ends: Ends::Told("unreadable", "configmaps") },
];

fn makes(request: &Request<Body>, plural: &str) -> bool {
    let is_dry = request.uri().query().unwrap_or("").contains("dryRun");
    request.method() == Method::POST && !is_dry && request.uri().path().ends_with(&format!("/{plural}"))
}

fn makes_configs(request: &Request<Body>) -> bool {
    makes(request, "configmaps")
}

fn makes_things(request: &Request<Body>) -> bool {
    makes(request, "things")
}

const SILENT: &str =
    "Internal error occurred: failed calling webhook \"judge.example.com\": context deadline exceeded";

/// While a restore writes.
#[rustfmt::skip]
const WRITING: &[Trouble] = &[
    Trouble { story: "throttled while it writes", meets: makes_configs, times: 9, fault: Fault::Says(429, BUSY), ends: Ends::Whole },
    Trouble { story: "a line goes dead while it writes", meets: makes_configs, times: 2, fault: Fault::HangsUp, ends: Ends::Whole },
    Trouble { story: "what was made is not told", meets: makes_configs, times: 3, fault: Fault::Forgets, ends: Ends::Whole },
    Trouble { story: "what was made is told in half", meets: makes_configs, times: 3, fault: Fault::CutsOff, ends: Ends::Whole },
    Trouble { story: "a webhook takes too long, for a while", meets: makes_things, times: 2, fault: Fault::Says(500, SILENT), ends: Ends::Whole },
    Trouble { story: "a webhook takes too long, for good", meets: makes_things, times: ALWAYS, fault: Fault::Says(500, SILENT), ends: Ends::Told("not-restored", "Thing.example.com") },
    Trouble { story: "an object is too large", meets: makes_things, times: ALWAYS, fault: Fault::Says(413, "Request entity too large: limit is 3145728"), ends: Ends::Told("not-restored", "Thing.example.com") },
    Trouble { story: "one kind cannot be written", meets: makes_things, times: ALWAYS, fault: Fault::HangsUp, ends: Ends::Told("not-restored", "Thing.example.com") },
];

type Broken = Box<dyn std::error::Error + Send + Sync>;
type Reply = Response<UnsyncBoxBody<Bytes, Broken>>;

fn reply(response: Response<Body>) -> Reply {
    response.map(|body| body.map_err(|e| Box::new(e) as Broken).boxed_unsync())
}

/// A client whose requests meet the trouble; and how many watches it opened.
fn troubled(inner: kube::Client, trouble: &Trouble) -> (kube::Client, Arc<AtomicUsize>) {
    let (left, watches) = (Arc::new(AtomicUsize::new(trouble.times)), Arc::new(AtomicUsize::new(0)));
    let (meets, fault, counter) = (trouble.meets, trouble.fault, watches.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        if request.uri().query().unwrap_or("").contains("watch") {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        let take = |left: usize| if left == ALWAYS { Some(ALWAYS) } else { left.checked_sub(1) };
        let is_met = meets(&request) && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        let inner = inner.clone();
        async move {
            match is_met {
                true => meet(fault, inner, request).await,
                false => inner.send(request).await.map(reply),
            }
        }
    });
    (kube::Client::new(service, "default"), watches)
}

async fn meet(fault: Fault, inner: kube::Client, request: Request<Body>) -> Result<Reply, kube::Error> {
    let dead = || kube::Error::Service("connection reset by peer".into());
    let said = |status: u16, body: Vec<u8>| {
        let response = Response::builder().status(status).header("retry-after", "0");
        Ok(reply(response.header("content-type", "application/json").body(Body::from(body)).unwrap()))
    };
    if let Fault::Says(code, message) = fault {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code});
        return said(code, status.to_string().into_bytes());
    }
    match fault {
        Fault::HangsUp => return Err(dead()),
        Fault::Stranger => return said(200, b"<html>Please sign in</html>".to_vec()),
        _ => {}
    }
    let (parts, body) = inner.send(request).await?.into_parts();
    let whole = body.collect().await.unwrap().to_bytes();
    let half = whole.len() / 2;
    Ok(match fault {
        Fault::Forgets => return Err(dead()),
        Fault::CutsOff => Response::from_parts(parts, Limited::new(Full::new(whole), half).boxed_unsync()),
        _ => reply(Response::from_parts(parts, Body::from(whole[..half].to_vec()))),
    })
}

fn object(kind: &str, namespace: &str, name: &str) -> Value {
    let api = if kind == "Thing" { "example.com/v1" } else { "v1" };
    let mut object =
        json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    let content = if kind == "Thing" { "spec" } else { "data" };
    object[content] = json!({"a": "b"});
    object
}

fn space(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// Two namespaces: one of several pages, and a small one to be restored again and again.
async fn plant(client: &kube::Client) {
    let mut cluster = Cluster::connect(client.clone()).await.unwrap();
    let definition = common::object("crd things.example.com");
    for first in [definition, space("wide"), space("small")] {
        create(&cluster, first).await;
    }
    while cluster.resources.find("example.com", "Thing").is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster = round::anew(&cluster).await;
    }
    let wide = (0..600).map(|i| object("ConfigMap", "wide", &format!("c{i:03}")));
    let small = (0..12).map(|i| object("ConfigMap", "small", &format!("c{i:03}")));
    let things =
        ["wide", "small"].into_iter().flat_map(|n| (0..3).map(move |i| object("Thing", n, &format!("t{i}"))));
    let all: Vec<Value> = wide.chain(small).chain(things).collect();
    futures::stream::iter(all)
        .map(|object| create(&cluster, object))
        .buffer_unordered(16)
        .collect::<()>()
        .await;
}

async fn create(cluster: &Cluster, object: Value) {
    let object = Object(object);
    let resource =
        cluster.resources.find_version(&object.gvk()).unwrap_or_else(|| panic!("{}", object.key()));
    let mut patience = 100;
    loop {
        match cluster.create(resource, &object, false).await {
            Ok(_) => return,
            // A real server takes a moment to take objects of a new kind.
            Err(app::api::ApiError::NotFound { .. }) if patience > 0 => patience -= 1,
            Err(error) => panic!("{}: {error}", object.key()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A backup of a namespace that may fail.
async fn backed_up(client: kube::Client, namespace: &str) -> Result<Point, String> {
    let cluster = Cluster::connect(client).await.map_err(|e| e.to_string())?;
    let repository = round::repository();
    let means = Means {
        repository: repository.clone(),
        volumes: Arc::new(round::Nothing),
        hands: Arc::new(round::Nothing),
        env: Env::real(),
        cancel: Cancel::new(),
        progress: Arc::new(()),
    };
    let selection = Selection { namespaces: vec![namespace.into()], ..Selection::default() };
    let options = BackupOptions { selection, ..BackupOptions::default() };
    let report = backup::run(&cluster, &means, &options).await.map_err(|e| e.to_string())?;
    Ok(Point::read(&repository.reader(ReaderOptions::default()).unwrap(), &report.info).unwrap())
}

fn count(point: &Point, kind: &str) -> usize {
    point.objects.iter().filter(|o| o.key.kind == kind && !o.key.name.starts_with("kube-root")).count()
}

/// What is wrong with how a backup ended.
fn judge_backup(trouble: &Trouble, done: Result<Point, String>) -> Result<(), String> {
    let point = match (trouble.ends, done) {
        (Ends::Refused, Err(_)) => return Ok(()),
        (Ends::Refused, Ok(_)) => return Err("a point was taken".into()),
        (_, Err(error)) => return Err(format!("no point: {error}")),
        (_, Ok(point)) => point,
    };
    let (configs, things) = (count(&point, "ConfigMap"), count(&point, "Thing"));
    let is_whole = (configs, things) == (600, 3);
    let found: Vec<String> =
        point.certificate.findings.iter().map(|f| format!("{} {}", f.code, f.what)).collect();
    if point.certificate.complete && !is_whole {
        return Err(format!("{configs} and {things} objects, and it calls itself complete: {found:?}"));
    }
    match trouble.ends {
        Ends::Whole if is_whole && point.certificate.complete => Ok(()),
        Ends::Told(code, what) => {
            let findings = point.certificate.findings.iter();
            let told = findings
                .filter(|f| f.severity >= Level::Warning && f.code == code && f.what.contains(what))
                .count();
            let rest = if what == "configmaps" { things == 3 } else { configs == 600 };
            match (told > 0, rest, point.certificate.complete) {
                (true, true, false) => Ok(()),
                _ => Err(format!("told {told}, {configs} and {things} objects: {found:?}")),
            }
        }
        _ => Err(format!("{configs} and {things} objects: {found:?}")),
    }
}

fn judge_restore(trouble: &Trouble, report: &Report, there: usize) -> Result<(), String> {
    let found: Vec<String> = report.findings.iter().map(|f| format!("{} {}", f.code, f.what)).collect();
    let fine = match trouble.ends {
        Ends::Whole => report.is_complete() && report.failed == 0 && there == 15,
        Ends::Told(code, what) => {
            let told = report.findings.iter().any(|f| f.code == code && f.what.contains(what));
            told && report.failed == 3 && !report.is_complete() && there == 12
        }
        Ends::Refused => false,
    };
    if fine { Ok(()) } else { Err(format!("{} failed, {there} there: {found:?}", report.failed)) }
}

/// Runs the whole table; every row that ends otherwise is named.
async fn run(client: kube::Client) {
    plant(&client).await;
    let mut wrong = Vec::new();
    for trouble in READING {
        let (client, watches) = troubled(client.clone(), trouble);
        if let Err(why) = judge_backup(trouble, backed_up(client, "wide").await) {
            wrong.push(format!("{}: {why}", trouble.story));
        }
        assert_eq!(watches.load(Ordering::SeqCst), 0, "{}: a watch was opened", trouble.story);
    }
    let point = backed_up(client.clone(), "small").await.unwrap();
    for (number, trouble) in WRITING.iter().enumerate() {
        let space = format!("small-{number}");
        let (troubled, watches) = troubled(client.clone(), trouble);
        let cluster = Cluster::connect(troubled).await.unwrap();
        let mut mapping = Mapping::default();
        mapping.add_namespace(&format!("small={space}")).unwrap();
        let options = RestoreOptions { transform: mapping.check().unwrap(), ..RestoreOptions::default() };
        let plan = plan(&point, &cluster, &options).await.unwrap();
        let deadlines = Deadlines {
            webhook: Duration::from_millis(300),
            step: Duration::from_millis(50),
            ..Deadlines::default()
        };
        let executor = Executor { deadlines, ..Executor::new(cluster, Env::real()) };
        let report = plan.approve(&Consent::default()).unwrap().execute(&executor).await;
        let free = Cluster::connect(client.clone()).await.unwrap();
        let mut there = 0;
        for (group, kind) in [("", "ConfigMap"), ("example.com", "Thing")] {
            let resource = free.resources.find(group, kind).unwrap();
            let list = free.list(resource, Some(&space), None).await.unwrap();
            there += list.iter().filter(|o| !o.name().starts_with("kube-root")).count();
        }
        if let Err(why) = judge_restore(trouble, &report, there) {
            wrong.push(format!("{}: {why}", trouble.story));
        }
        assert_eq!(watches.load(Ordering::SeqCst), 0, "{}: a watch was opened", trouble.story);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn every_trouble_is_over_when_it_is_over_or_ends_in_a_finding() {
    let server = ApiServer::new(Options::deterministic(1));
    run(kube::Client::new(server.router(), "default")).await;
}

#[tokio::test]
async fn kube_every_trouble_is_over_when_it_is_over_or_ends_in_a_finding() {
    let own = OwnCluster::up().await;
    run(own.client().await).await;
}

/// A definition of two versions, the newer one preferred, with a converter that is not there.
fn unconvertible() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema});
    let names =
        json!({"kind": "Gadget", "plural": "gadgets", "singular": "gadget", "listKind": "GadgetList"});
    let client = json!({"url": "https://127.0.0.1:1/convert"});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gadgets.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version("v1", false), version("v1alpha1", true)],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}}}})
}

/// A webhook behind an address where somebody takes the call and never says a word.
fn judge(address: &std::net::SocketAddr) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "trouble-judge"},
        "webhooks": [{"name": "judge.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 1, "failurePolicy": "Fail",
            "namespaceSelector": {"matchLabels": {"judged": "yes"}}, "clientConfig": {"url": format!("https://{address}/judge")},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]})
}

#[tokio::test]
async fn kube_a_broken_converter_a_silent_webhook_and_a_huge_object_on_a_real_server() {
    let own = OwnCluster::up().await;
    let cluster = own.connect().await;
    let mut judged = space("judged");
    judged["metadata"]["labels"] = json!({"judged": "yes"});
    for object in [unconvertible(), common::object("crd things.example.com"), judged] {
        create(&cluster, object).await;
    }
    let mut cluster = round::anew(&cluster).await;
    while cluster.resources.find("example.org", "Gadget").is_none()
        || cluster.resources.find("example.com", "Thing").is_none()
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster = round::anew(&cluster).await;
    }
    // More than a mebibyte, which a Secret or ConfigMap may not have and a custom resource may.
    let mut huge = object("Thing", "judged", "huge");
    huge["spec"] = json!({"text": "x".repeat(1_200_000)});
    for object in [huge, object("ConfigMap", "judged", "c")] {
        create(&cluster, object).await;
    }
    let gadget = json!({"apiVersion": "example.org/v1alpha1", "kind": "Gadget", "metadata": {"name": "g", "namespace": "judged"}, "spec": {}});
    create(&cluster, gadget).await;

    let point = backed_up(own.client().await, "judged").await.unwrap();
    assert!(!point.certificate.complete);
    let told = point.certificate.findings.iter().find(|f| f.what.contains("gadgets.example.org"));
    assert!(
        told.is_some_and(|f| f.code == "unreadable" && f.message.contains("conversion")),
        "{:#?}",
        point.certificate.findings
    );
    assert!(point.objects.iter().any(|o| o.key.name == "huge") && count(&point, "ConfigMap") == 1);

    // Lost, and restored past a webhook that takes the call and says nothing.
    let spaces = cluster.resources.find("", "Namespace").unwrap().clone();
    let definition =
        cluster.resources.find("apiextensions.k8s.io", "CustomResourceDefinition").unwrap().clone();
    cluster.delete(&definition, "", "gadgets.example.org", Propagation::Background, None).await.unwrap();
    cluster.delete(&spaces, "", "judged", Propagation::Background, None).await.unwrap();
    for turn in 0.. {
        if cluster.get(&spaces, "", "judged").await.unwrap().is_none() {
            break;
        }
        assert!(turn < 600, "the namespace is gone within a minute");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    create(&cluster, judge(&silent.local_addr().unwrap())).await;
    let restore = async |step: &str| {
        let cluster = own.connect().await;
        let plan = plan(&point, &cluster, &RestoreOptions::default()).await.unwrap();
        let deadlines = Deadlines { webhook: Duration::from_secs(2), ..Deadlines::default() };
        let executor = Executor { deadlines, ..Executor::new(cluster, Env::real()) };
        let report = plan.approve(&Consent::default()).unwrap().execute(&executor).await;
        println!("{step}: {} created, {} failed", report.created, report.failed);
        report
    };
    let mut report = restore("with the silent webhook").await;
    let refused = |report: &Report| {
        report
            .findings
            .iter()
            .any(|f| f.code == "not-restored" && f.what.contains("judged/c") && f.message.contains("webhook"))
    };
    // A real server hears of a new webhook a moment later.
    for _ in 0..20 {
        if refused(&report) {
            break;
        }
        let configs = cluster.resources.find("", "ConfigMap").unwrap();
        cluster.delete(configs, "judged", "c", Propagation::Background, None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        report = restore("once more").await;
    }
    assert!(refused(&report) && report.failed >= 1, "{:#?}", report.findings);
    let things = cluster.resources.find("example.com", "Thing").unwrap().clone();
    let huge = cluster.get(&things, "judged", "huge").await.unwrap().unwrap();
    assert_eq!(huge.str("/spec/text").len(), 1_200_000);
    // The webhook is gone: the same restore goes on.
    let hooks = cluster
        .resources
        .find("admissionregistration.k8s.io", "ValidatingWebhookConfiguration")
        .unwrap()
        .clone();
    cluster.delete(&hooks, "", "trouble-judge", Propagation::Background, None).await.unwrap();
    let mut last = restore("without").await;
    for _ in 0..20 {
        if last.failed == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        last = restore("without").await;
    }
    assert!(last.failed == 0, "{:#?}", last.findings);
    drop(silent);
}
