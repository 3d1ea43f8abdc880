//! Export and browse, judged by the real kubectl.

use std::path::Path;
use std::process::{Command, Output};

use apiserver::{ApiServer, Serving};
use app::compare::changes;
use app::export::{ExportOptions, manifests};
use app::object::{Object, ObjectKey};
use app::restore::{Consent, Executor, RestoreOptions, plan};
use app::transform::{Mapping, Transform};
use tempfile::TempDir;

use crate::site::*;

/// A server that listens, and a kubectl that knows it.
struct Kubectl {
    serving: Serving,
    home: TempDir,
}

impl Kubectl {
    async fn new(server: &ApiServer) -> Kubectl {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serving = server.serve(listener).unwrap();
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config"), serving.kubeconfig()).unwrap();
        Kubectl { serving, home }
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("kubectl");
        command.args(args).env("KUBECONFIG", self.home.path().join("config")).env("HOME", self.home.path());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn must(&self, args: &[&str]) -> String {
        let out = self.run(args).await;
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "kubectl {args:?}: {stdout}{stderr}");
        stdout.into_owned()
    }

    async fn stop(self) {
        self.serving.stop().await;
    }
}

fn copy() -> Transform {
    Mapping::from_yaml("namespaces: {shop: copy}").unwrap().check().unwrap()
}

/// Everything on a server as a restore would see it, without what kubectl notes down for itself.
fn state(server: &ApiServer) -> Vec<(ObjectKey, Object)> {
    let mut all: Vec<(ObjectKey, Object)> = server
        .dump()
        .into_iter()
        .map(|value| {
            let mut object = app::clean::clean(&Object(value));
            if let Some(annotations) =
                object.0.pointer_mut("/metadata/annotations").and_then(|a| a.as_object_mut())
            {
                annotations.shift_remove("kubectl.kubernetes.io/last-applied-configuration");
                if annotations.is_empty() {
                    object.0["metadata"].as_object_mut().unwrap().shift_remove("annotations");
                }
            }
            (object.key(), object)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_makes_of_an_export_what_a_restore_makes() {
    let point = shop_point(&shop(1).await).await;
    let options = ExportOptions { transform: copy(), ..Default::default() };
    let export = manifests(&point, &options).unwrap();

    let by_kubectl = server(2);
    let kubectl = Kubectl::new(&by_kubectl).await;
    let folder = tempfile::tempdir().unwrap();
    for part in export.write_folder(&folder.path().join("out")).unwrap() {
        kubectl.must(&["apply", "-f", &part.display().to_string()]).await;
    }
    kubectl.stop().await;

    let by_restore = server(3);
    let cluster = connect(&by_restore).await;
    let options = RestoreOptions { transform: copy(), ..Default::default() };
    let plan = plan(&point, &cluster, &options).await.unwrap();
    plan.approve(&Consent::default()).unwrap().execute(&Executor::new(cluster, env())).await;

    let (left, right) = (state(&by_kubectl), state(&by_restore));
    let keys = |all: &[(ObjectKey, Object)]| all.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>();
    assert_eq!(keys(&left), keys(&right));
    for ((key, left), (_, right)) in left.iter().zip(&right) {
        let mut differences = changes(&left.0, &right.0);
        // Addresses are drawn by each server for itself.
        differences.retain(|change| !change.at.contains("clusterIP") && !change.at.contains("nodePort"));
        assert_eq!(differences, [], "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_applied_twice_when_it_defines_kinds() {
    let point = shop_point(&shop(1).await).await;
    let export = manifests(&point, &ExportOptions::default()).unwrap();
    let mut text = Vec::new();
    export.write_stream(&mut text).unwrap();
    assert!(String::from_utf8_lossy(&text).starts_with("# This stream defines kinds"));
    let target = server(2);
    let kubectl = Kubectl::new(&target).await;
    let file = kubectl.home.path().join("all.yaml");
    std::fs::write(&file, &text).unwrap();
    let file = file.display().to_string();
    kubectl.run(&["apply", "-f", &file]).await;
    kubectl.must(&["apply", "-f", &file]).await;
    kubectl.stop().await;
    assert!(get(&connect(&target).await, "msg.example.com", "Queue", "shop", "orders").await.is_some());
}

#[tokio::test]
async fn an_export_says_what_it_does_not_hold() {
    let point = shop_point(&shop(1).await).await;
    let export = manifests(&point, &ExportOptions { secrets: false, ..Default::default() }).unwrap();
    assert!(!export.manifests.iter().any(|manifest| manifest.yaml.contains("kind: Secret")));
    assert_eq!(export.left.iter().filter(|left| left.reason == "secrets are left out").count(), 2);
    let claim =
        export.manifests.iter().find(|manifest| manifest.key.kind == "PersistentVolumeClaim").unwrap();
    assert!(claim.yaml.starts_with("# This claim comes up empty"), "{}", claim.yaml);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "").unwrap();
    assert!(export.write_folder(folder.path()).unwrap_err().to_string().contains("is not empty"));
    assert!(Path::new(&folder.path().join("mine")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_can_be_read_like_a_cluster_and_not_be_written() {
    let source = shop(1).await;
    let point = shop_point(&source).await;
    let shown = app::browse::server(&point, app::browse::Api::default(), &env());
    assert!(shown.findings.is_empty(), "{:?}", shown.findings);
    let kubectl = Kubectl::new(&shown.done).await;
    let queues = kubectl.must(&["get", "queues", "-n", "shop", "-o", "name"]).await;
    assert_eq!(queues.trim(), "queue.msg.example.com/orders");
    let ip = get(&connect(&source).await, "", "Service", "shop", "web")
        .await
        .unwrap()
        .str("/spec/clusterIP")
        .to_owned();
    let services = kubectl.must(&["get", "services", "-n", "shop"]).await;
    assert!(services.contains(&ip), "as it was: {services}");
    let refused = kubectl.run(&["delete", "configmap", "settings", "-n", "shop"]).await;
    assert!(!refused.status.success());
    kubectl.stop().await;
}
