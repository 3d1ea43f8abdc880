//! Discovery of applications, and of an API of which some does not answer.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

mod common;

use app::api::Cluster;
use app::discover::{Sighted, between, discover, discover_outward};
use common::{cluster, server};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tower::ServiceExt;

/// `shop (by app): Deployment web; volumes data 1Gi; shared Secret s; unprotected …`, one line an application.
async fn told(objects: &str) -> Vec<String> {
    let found = discover(&cluster(&server(objects)).await, &[]).await.unwrap();
    let names = |keys: &[app::object::ObjectKey]| {
        keys.iter().map(|k| format!("{} {}", k.kind, k.name)).collect::<Vec<_>>().join(", ")
    };
    let line = |a: &app::discover::Application| {
        let mut line = format!("{}/{} by {}: {}", a.namespace, a.name, a.by, names(&a.parts));
        for volume in &a.volumes {
            line.push_str(&format!("; volume {} {} {}", volume.claim, volume.size, volume.storage_class));
        }
        if !a.shared.is_empty() {
            line.push_str(&format!("; shared {}", names(&a.shared)));
        }
        for unprotected in &a.unprotected {
            line.push_str(&format!("; unprotected {unprotected}"));
        }
        line
    };
    found.applications.iter().map(line).collect()
}

#[tokio::test]
async fn applications_are_found_by_what_is_written_on_them_and_by_what_hangs_together() {
    for (story, objects, expected) in [
        (
            "labels, the most telling first",
            "deploy web app=x app.kubernetes.io/part-of=shop; deploy api app=y app.kubernetes.io/part-of=shop; deploy other app=other",
            vec![
                "shop/other by app: Deployment other",
                "shop/shop by app.kubernetes.io/part-of: Deployment api, Deployment web",
            ],
        ),
        (
            "what says nothing belongs to its only user",
            "deploy web app=web secret:s pvc:d; secret s; pvc d class:fast; svc web sel:app=web",
            vec![
                "shop/web by app: PersistentVolumeClaim d, Secret s, Service web, Deployment web; volume d 1Gi fast",
            ],
        ),
        (
            "and to nobody, if two use it",
            "deploy a app=a secret:s; deploy b app=b secret:s; secret s",
            vec![
                "shop/a by app: Deployment a; shared Secret s",
                "shop/b by app: Deployment b; shared Secret s",
            ],
        ),
        (
            "without any label, by what hangs together",
            "sts db pvc:d; deploy backup pvc:d; pvc d; deploy alone cm:c; cm c",
            vec![
                "shop/alone by references: ConfigMap c, Deployment alone",
                "shop/db by references: PersistentVolumeClaim d, Deployment backup, StatefulSet db; volume d 1Gi ",
            ],
        ),
        (
            "pods follow their owners",
            "deploy web app=web; rs web-1 owner:Deployment/web; pod web-1-x owner:ReplicaSet/web-1",
            vec!["shop/web by app: Pod web-1-x, Deployment web, ReplicaSet web-1"],
        ),
        (
            "what no backup of claims reaches is told",
            "deploy web app=web emptydir:cache",
            vec![
                "shop/web by app: Deployment web; unprotected cache of Deployment shop/web: emptyDir: gone with its pod",
            ],
        ),
        (
            "the same name in two namespaces",
            "deploy a/web app=web; deploy b/web app=web",
            vec!["a/web by app: Deployment web", "b/web by app: Deployment web"],
        ),
    ] {
        assert_eq!(told(objects).await, expected, "{story}");
    }
}

/// The embedded server, but for paths that somebody else answers.
fn with_broken(objects: &str, answer: fn(&str) -> Option<(StatusCode, Value)>) -> kube::Client {
    let router = server(objects).router();
    let service = tower::service_fn(move |request: Request<Body>| {
        let router = router.clone();
        async move {
            if let Some((status, body)) = answer(request.uri().path()) {
                let response = Response::builder()
                    .status(status)
                    .header("content-type", "application/json")
                    .body(Body::from(body.to_string().into_bytes()));
                return Ok::<_, std::convert::Infallible>(response.unwrap());
            }
            let (parts, body) = router.oneshot(request).await?.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes().to_vec();
            Ok(Response::from_parts(parts, Body::from(bytes)))
        }
    });
    kube::Client::new(service, "default")
}

#[tokio::test]
async fn a_broken_group_costs_a_finding_and_nothing_else() {
    // The legacy way: the server knows no aggregated discovery, and one announced group answers 503.
    let client = with_broken("deploy web app=web; secret s", |path| match path {
        "/api" => Some((StatusCode::OK, json!({"kind":"APIVersions","versions":["v1"]}))),
        "/apis" => Some((
            StatusCode::OK,
            json!({"kind":"APIGroupList","groups":[
            {"name":"metrics.k8s.io","versions":[{"groupVersion":"metrics.k8s.io/v1beta1","version":"v1beta1"}],"preferredVersion":{"groupVersion":"metrics.k8s.io/v1beta1"}},
            {"name":"apps","versions":[{"groupVersion":"apps/v1","version":"v1"}],"preferredVersion":{"groupVersion":"apps/v1"}}]}),
        )),
        "/apis/metrics.k8s.io/v1beta1" => Some((
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({"message":"the server is currently unable to handle the request"}),
        )),
        _ => None,
    });
    let cluster = Cluster::connect(client).await.unwrap();
    assert_eq!(cluster.resources.broken.len(), 1);
    assert_eq!(cluster.resources.broken[0].group_version, "metrics.k8s.io/v1beta1");
    let found = discover(&cluster, &["shop".into()]).await.unwrap();
    assert_eq!(found.applications.len(), 1);
    assert_eq!(found.applications[0].name, "web");
    assert!(
        found.findings.iter().any(|f| f.code == "api-group-broken" && f.what == "metrics.k8s.io/v1beta1"),
        "{:?}",
        found.findings
    );
}

#[tokio::test]
async fn both_ways_of_discovery_find_the_same() {
    let objects = "deploy web app=web; crd things.example.com; thing t";
    let aggregated = cluster(&server(objects)).await.resources;
    // An answer with the plain content type is what a server before 1.26 gives to the same request.
    let plain = with_broken(objects, |_| None);
    let legacy = {
        let strip = tower::service_fn(move |mut request: Request<Body>| {
            request.headers_mut().insert("accept", "application/json".parse().unwrap());
            let plain = plain.clone();
            async move { plain.send(request).await }
        });
        Cluster::connect(kube::Client::new(strip, "default")).await.unwrap().resources
    };
    let names = |r: &app::api::ApiResources| {
        r.types
            .iter()
            .map(|t| {
                format!("{} {} {} {} {:?}", t.api_version(), t.kind, t.plural, t.preferred, t.namespaced)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&aggregated), names(&legacy));
    assert!(aggregated.find("example.com", "Thing").is_some());
    assert!(aggregated.types.len() > 40, "{}", aggregated.types.len());
}

#[tokio::test]
async fn a_list_that_expires_half_way_starts_anew() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let call = counter.fetch_add(1, Ordering::SeqCst);
        let query = request.uri().query().unwrap_or("").to_owned();
        async move {
            let (status, body) = match (call, query.contains("continue=two")) {
                (0, false) => {
                    (200, json!({"metadata":{"continue":"two"},"items":[{"metadata":{"name":"old"}}]}))
                }
                (1, true) => (410, json!({"message":"The provided continue parameter is too old"})),
                (2, false) => {
                    (200, json!({"metadata":{"continue":"two"},"items":[{"metadata":{"name":"a"}}]}))
                }
                (3, true) => (200, json!({"metadata":{},"items":[{"metadata":{"name":"b"}}]})),
                other => panic!("{other:?}"),
            };
            Ok::<_, std::convert::Infallible>(
                Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap(),
            )
        }
    });
    let cluster = Cluster { client: kube::Client::new(service, "default"), resources: Default::default() };
    let pods = app::api::ResourceType {
        version: "v1".into(),
        kind: "Pod".into(),
        plural: "pods".into(),
        namespaced: true,
        ..Default::default()
    };
    let listed = cluster.list(&pods, Some("shop"), None).await.unwrap();
    assert_eq!(listed.iter().map(|o| o.key().to_string()).collect::<Vec<_>>(), ["Pod a", "Pod b"]);
    assert_eq!(listed[0].gvk().to_string(), "v1/Pod", "list items get their kind");
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

/// What two clusters have between them, one line each.
async fn beside(east: (&str, Vec<Value>), west: (&str, Vec<Value>)) -> Vec<String> {
    let mut sights = Vec::new();
    for (name, (words, more)) in [("east", east), ("west", west)] {
        let server = server(words);
        assert!(server.load(more).is_empty());
        let (found, outward) = discover_outward(&cluster(&server).await, &[]).await.unwrap();
        sights.push((name, found, outward));
    }
    let sighted: Vec<Sighted<'_>> =
        sights.iter().map(|(name, found, outward)| Sighted { name, found, outward }).collect();
    between(&sighted).iter().map(|one| one.words()).collect()
}

#[tokio::test]
async fn what_lies_between_clusters_is_found() {
    let named = |api: &str, kind: &str, name: &str, rest: Value| {
        let mut object =
            json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "shop"}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    let ingress = |host: &str| {
        named("networking.k8s.io/v1", "Ingress", "front", json!({"spec": {"rules": [{"host": host}]}}))
    };
    let volume = |name: &str, claim: &str, source: Value| {
        let mut spec =
            json!({"claimRef": {"namespace": "shop", "name": claim}, "capacity": {"storage": "1Gi"}});
        spec.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
    };
    let secret = |name: &str, data: Value| named("v1", "Secret", name, json!({"data": data}));
    let key = json!({"tls.key": "a2V5IG9mIHRoZSBzaG9wLCBsb25nIGVub3VnaA=="});
    let balanced = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}, "spec": {"ports": [{"port": 5432}]}});
    for (story, east, west, expected) in [
        ("nothing", ("deploy web app=web", vec![]), ("deploy web app=web", vec![]), vec![]),
        (
            "a host that an Ingress there answers",
            ("deploy web app=web env:https://api.west.example.com/v1", vec![]),
            ("deploy api app=api", vec![ingress("api.west.example.com")]),
            vec![
                "east Deployment shop/web (shop/web) reaches west Ingress shop/front as api.west.example.com",
            ],
        ),
        (
            "one below a name for all",
            ("deploy api app=api", vec![ingress("*.east.example.com")]),
            ("deploy web app=web env:https://api.east.example.com", vec![]),
            vec![
                "west Deployment shop/web (shop/web) reaches east Ingress shop/front as api.east.example.com",
            ],
        ),
        (
            "an address of a balancer",
            ("deploy web app=web env:postgres://203.0.113.7:5432/x", vec![]),
            ("deploy db app=db", vec![named("v1", "Service", "db", balanced)]),
            vec!["east Deployment shop/web (shop/web) reaches west Service shop/db as 203.0.113.7"],
        ),
        (
            "a database that is in neither",
            ("deploy web app=web env:postgres://db.example.com:5432/shop", vec![]),
            ("deploy jobs app=jobs env:postgres://db.example.com:5432/shop", vec![]),
            vec![
                "both use database postgres://db.example.com:5432/shop: east Deployment shop/web (shop/web), west Deployment shop/jobs (shop/jobs)",
            ],
        ),
        (
            "storage that both have",
            (
                "deploy web app=web pvc:files",
                vec![volume("a", "files", json!({"nfs": {"server": "nas", "path": "/shop"}}))],
            ),
            (
                "deploy web app=web",
                vec![volume("b", "copy", json!({"nfs": {"server": "nas", "path": "/shop"}}))],
            ),
            vec![
                "on the same storage, nfs nas /shop: east PersistentVolumeClaim shop/files, west PersistentVolumeClaim shop/copy",
            ],
        ),
        (
            "storage that is not the same",
            ("ns shop", vec![volume("a", "d", json!({"csi": {"driver": "disk", "volumeHandle": "1"}}))]),
            ("ns shop", vec![volume("a", "d", json!({"csi": {"driver": "disk", "volumeHandle": "2"}}))]),
            vec![],
        ),
        (
            "a key that somebody keeps in step",
            ("deploy web app=web secret:key", vec![secret("key", key.clone())]),
            ("ns shop", vec![secret("other-name", key), secret("short", json!({"a": "eA=="}))]),
            vec!["Secret of the same content: east Secret shop/key (shop/web), west Secret shop/other-name"],
        ),
    ] {
        assert_eq!(beside(east, west).await, expected, "{story}");
    }
}
