//! An embedded API server on a socket, with a small application in it, for runs of the binary.
#![allow(dead_code)] // Each test file uses its part.

use super::Place;
use apiserver::{Access, ApiServer, Options, Serving};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A cluster and a place whose runs talk to it.
pub struct Cluster {
    pub place: Place,
    pub server: ApiServer,
    _serving: Serving,
    runtime: tokio::runtime::Runtime,
}

/// The node of the embedded cluster.
pub const NODE: &str = "node-1";

impl Cluster {
    /// With a repository and the shop.
    pub fn new() -> Cluster {
        Cluster::denying(|_| false)
    }

    /// Another one.
    pub fn second() -> Cluster {
        Cluster::made(2, |_| false)
    }

    /// The same, whose server denies some requests.
    pub fn denying(deny: impl Fn(&Access<'_>) -> bool + Send + Sync + 'static) -> Cluster {
        Cluster::made(1, deny)
    }

    fn made(seed: u64, deny: impl Fn(&Access<'_>) -> bool + Send + Sync + 'static) -> Cluster {
        let mut place = Place::with_repository();
        let volumes = place.path("volumes");
        std::fs::create_dir(&volumes).unwrap();
        // Denied is only what comes after the shop was made.
        let armed = Arc::new(AtomicBool::new(false));
        let is_armed = armed.clone();
        let deny = move |access: &Access<'_>| is_armed.load(Ordering::Relaxed) && deny(access);
        let server = ApiServer::new(Options::deterministic(seed).simulate(volumes).deny(deny));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serving = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            server.serve(listener).unwrap()
        });
        std::fs::write(place.path("kubeconfig"), serving.kubeconfig()).unwrap();
        place.env.push(("KUBECONFIG".into(), place.text("kubeconfig")));
        place.env.push(("HOLDFAST_NODE_NAME".into(), NODE.into()));
        let cluster = Cluster { place, server, _serving: serving, runtime };
        for object in shop() {
            let kind = object["kind"].as_str().unwrap();
            let (root, plural) = match kind {
                "Deployment" => ("/apis/apps/v1/namespaces/shop", "deployments".to_owned()),
                "Namespace" => ("/api/v1", "namespaces".to_owned()),
                kind => ("/api/v1/namespaces/shop", format!("{}s", kind.to_lowercase())),
            };
            let made = cluster.request("POST", &format!("{root}/{plural}"), Some(object.clone()));
            assert_eq!(made["kind"], object["kind"], "{made}");
        }
        armed.store(true, Ordering::Relaxed);
        cluster
    }

    /// A request of our own, as an administrator's kubectl makes it; refusals are answered, not hidden.
    pub fn request(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let request = kube::client::Body::from(body.map(|b| b.to_string().into_bytes()).unwrap_or_default());
        let client = self.runtime.block_on(async { kube::Client::new(self.server.router(), "default") });
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content)
            .body(request)
            .unwrap();
        self.runtime.block_on(async move {
            let answer = client.send(request).await.unwrap();
            let bytes = answer.into_body().collect_bytes().await.unwrap();
            serde_json::from_slice(&bytes).unwrap_or(Value::Null)
        })
    }

    /// The directory of the claim's volume.
    pub fn data(&self, namespace: &str, claim: &str) -> std::path::PathBuf {
        let claim = self.request(
            "GET",
            &format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}"),
            None,
        );
        self.place.path("volumes").join(claim["spec"]["volumeName"].as_str().unwrap())
    }
}

/// A deployment with configuration, a secret and a volume, in namespace shop.
pub fn shop() -> Vec<Value> {
    let labels = json!({ "app.kubernetes.io/name": "shop" });
    let meta = |name: &str| json!({ "name": name, "namespace": "shop", "labels": labels, });
    let meta = |name: &str| {
        let mut m = meta(name);
        m["labels"]["app.kubernetes.io/part-of"] = json!("shop");
        m
    };
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("config"), "data": { "A": "1" } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta("secret"), "data": { "p": "cGFzcw==" } }),
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta("data"),
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
                "resources": { "requests": { "storage": "1Gi" } } } }),
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("web"),
            "spec": { "replicas": 1, "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": {
                    "containers": [{ "name": "web", "image": "web:1",
                        "envFrom": [{ "configMapRef": { "name": "config" } }, { "secretRef": { "name": "secret" } }],
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
                    "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }] } } } }),
    ]
}
