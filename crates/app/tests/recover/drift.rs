//! Declared versus live: what was changed past the manifests, by whom, and a patch that says so in them.

use std::path::Path;
use std::process::Command;

use app::drift::{Drift, DriftOptions, with_directory};
use app::point::Point;
use serde_json::json;

use crate::site::*;

/// The shop's manifests in a folder, as its people keep them.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("base")).unwrap();
    std::fs::create_dir(folder.path().join(".git")).unwrap();
    std::fs::write(folder.path().join(".git/config.yaml"), "not: [a manifest").unwrap();
    std::fs::write(folder.path().join("base/shop.yaml"), SHOP).unwrap();
    std::fs::write(folder.path().join("kustomization.yaml"), "resources: [base/shop.yaml]\n").unwrap();
    folder
}

async fn drift(point: &Point, folder: &Path, options: &DriftOptions) -> Drift {
    let mut drift = with_directory(point, folder, options, &env()).await.unwrap();
    // The point of these tests is the shop without what belongs to the cluster.
    drift.only_declared.retain(|key| !key.namespace.is_empty() && key.namespace != "ops");
    drift
}

fn told(drift: &Drift) -> Vec<String> {
    let fields = drift.changed.iter().flat_map(|object| {
        object.fields.iter().map(|field| {
            let by: Vec<String> = field.by.iter().map(|by| by.manager.clone()).collect();
            let show =
                |value: &Option<serde_json::Value>| value.as_ref().map_or("-".into(), ToString::to_string);
            format!(
                "{} {}: {} -> {} by {}",
                object.key.kind,
                field.at,
                show(&field.declared),
                show(&field.live),
                by.join(",")
            )
        })
    });
    fields.collect()
}

fn apply_patch(folder: &Path, patch: &str) {
    std::fs::write(folder.join("drift.patch"), patch).unwrap();
    let done = Command::new("git").args(["apply", "drift.patch"]).current_dir(folder).output().unwrap();
    assert!(
        done.status.success(),
        "{}{}\n{patch}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    std::fs::remove_file(folder.join("drift.patch")).unwrap();
}

#[tokio::test]
async fn what_was_applied_and_left_alone_has_not_drifted() {
    let point = shop_point(&shop(1).await).await;
    let folder = folder();
    let found = drift(&point, folder.path(), &DriftOptions::default()).await;
    assert_eq!(told(&found), Vec::<String>::new(), "a default is no drift");
    assert!(found.only_declared.is_empty() && found.only_live.is_empty(), "{found:#?}");
    assert!(found.same > 10 && found.patch.is_empty());
    assert!(found.findings.iter().all(|f| f.code == "no-manifest"), "{:#?}", found.findings);
}

#[tokio::test]
async fn a_change_past_the_manifests_is_told_with_its_author_and_patched_away() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let deployments = cluster.resources.find("apps", "Deployment").unwrap().clone();
    let web = cluster.list(&deployments, Some("shop"), None).await.unwrap().remove(0);
    let container = web.str("/spec/template/spec/containers/0/name").to_owned();
    let path = format!("{}?fieldManager=kubectl-edit", deployments.object_path("shop", web.name()));
    let change = json!({"metadata": {"labels": {"hot": "fix"}}, "spec": {"replicas": 7, "template": {"spec": {"containers": [
        {"name": container, "env": [{"name": "DEBUG", "value": "yes"}]},
        {"name": "sidecar", "image": "busybox:1"}]}}}});
    let strategic = "application/strategic-merge-patch+json";
    cluster.json(http::Method::PATCH, &path, strategic, Some(&change)).await.unwrap();
    patch(
        &cluster,
        "",
        "ConfigMap",
        "shop",
        "settings",
        json!({"data": {"mode": "no", "short": null, "new": "multi\nline\n"}}),
    )
    .await;
    patch(&cluster, "", "Secret", "shop", "db", json!({"data": {"password": "b3RoZXI="}})).await;
    apply(&server, &[json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by-hand", "namespace": "shop"}})]).await;

    let point = shop_point(&server).await;
    let folder = folder();
    let found = drift(&point, folder.path(), &DriftOptions { secrets: true, ..Default::default() }).await;
    let lines = told(&found);
    let has = |part: &str| assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    has("Deployment /spec/replicas: ");
    has("-> 7 by kubectl-edit");
    has(&format!("Deployment /spec/template/spec/containers[name={container}]/env"));
    has("Deployment /spec/template/spec/containers[name=sidecar]: - -> ");
    has("Deployment /metadata/labels: - -> {\"hot\":\"fix\"} by kubectl-edit");
    has("ConfigMap /data/mode: \"yes\" -> \"no\" by ");
    has("ConfigMap /data/short: ");
    has("Secret /data/password: \"(hidden)\" -> \"(hidden)\"");
    assert_eq!(
        found.only_live.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["ConfigMap shop/by-hand"]
    );
    assert!(
        found.patch.contains("# A three-tier application") || !found.patch.contains("-# A three-tier"),
        "comments stay"
    );
    assert!(found.changed.iter().all(|o| o.file == Path::new("base/shop.yaml")));

    assert!(
        !found.patch.contains("terminationMessagePath"),
        "what a server adds is left to it: {}",
        found.patch
    );
    apply_patch(folder.path(), &found.patch);
    let text = std::fs::read_to_string(folder.path().join("base/shop.yaml")).unwrap();
    assert!(text.starts_with("# A three-tier application as people write it"), "{text}");
    let after = drift(&point, folder.path(), &DriftOptions { secrets: true, ..Default::default() }).await;
    assert_eq!(told(&after), Vec::<String>::new(), "{text}");
    assert_eq!(after.patch, "");

    // Without consent nobody's password is in a patch.
    let folder = self::folder();
    let quiet = drift(&point, folder.path(), &DriftOptions::default()).await;
    assert!(!quiet.patch.contains("other") && quiet.findings.iter().any(|f| f.code == "secret-left-out"));
}

#[tokio::test]
async fn manifests_without_a_namespace_and_lists_are_compared_too() {
    let server = shop(1).await;
    patch(&connect(&server).await, "", "ConfigMap", "shop", "settings", json!({"data": {"mode": "no"}}))
        .await;
    let point = shop_point(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let conf = documents(SHOP)
        .into_iter()
        .find(|o| o["kind"] == "ConfigMap" && o["metadata"]["name"] == "settings")
        .unwrap();
    let mut homeless = conf.clone();
    homeless["metadata"].as_object_mut().unwrap().remove("namespace");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [homeless]});
    std::fs::write(folder.path().join("all.json"), list.to_string()).unwrap();
    std::fs::write(folder.path().join("broken.yaml"), "a: {{ .Values.b }}: c").unwrap();
    let found = drift(&point, folder.path(), &DriftOptions::default()).await;
    assert_eq!(told(&found).len(), 1, "{:#?}", told(&found));
    assert!(
        found.findings.iter().any(|f| f.code == "not-read" && f.what == "broken.yaml"),
        "{:#?}",
        found.findings
    );
    assert!(!found.patch.contains("namespace"), "{}", found.patch);
    apply_patch(folder.path(), &found.patch);
    let after = drift(&point, folder.path(), &DriftOptions::default()).await;
    assert_eq!(told(&after), Vec::<String>::new());
}
