//! A Velero backup location, as Velero lays one out, becomes recovery points: listed, imported once, shown, browsed with kubectl's
//! requests, compared, and restored from.
#![allow(clippy::unwrap_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::Place;
use support::cluster::Cluster;

fn write(path: &Path, content: &Value) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content.to_string()).unwrap();
}

fn gzip(path: &Path) {
    assert!(Command::new("gzip").arg("-f").arg(path).status().unwrap().success());
}

/// One backup with what Velero puts beside it.
fn backup(location: &Path, name: &str, phase: &str, objects: &[(&str, Value)]) {
    let folder = location.join("backups").join(name);
    let about = json!({"apiVersion": "velero.io/v1", "kind": "Backup",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"velero.io/schedule-name": "daily"},
            "annotations": {"velero.io/source-cluster-k8s-gitversion": "v1.27.3"}},
        "spec": {"includedNamespaces": ["shop"]},
        "status": {"phase": phase, "version": 1, "formatVersion": "1.1.0",
            "startTimestamp": "2026-02-01T03:00:00Z", "completionTimestamp": "2026-02-01T03:00:09Z"}});
    write(&folder.join("velero-backup.json"), &about);
    let tree = location.join("tree");
    std::fs::create_dir_all(tree.join("metadata")).unwrap();
    std::fs::write(tree.join("metadata/version"), "1.1.0").unwrap();
    for (resource, object) in objects {
        let named = format!("{}.json", object["metadata"]["name"].as_str().unwrap());
        let place = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => PathBuf::from(format!("namespaces/{namespace}")).join(named),
            None => PathBuf::from("cluster").join(named),
        };
        for below in ["", "v1-preferredversion"] {
            write(&tree.join("resources").join(resource).join(below).join(&place), object);
        }
    }
    let archive = folder.join(format!("{name}.tar.gz"));
    let tar = Command::new("tar")
        .arg("-czf")
        .arg(archive)
        .arg("-C")
        .arg(&tree)
        .arg("metadata")
        .arg("resources")
        .status();
    assert!(tar.unwrap().success());
    std::fs::remove_dir_all(tree).unwrap();
    let infos = json!([{"pvcNamespace": "shop", "pvcName": "data", "pvName": "pv-1", "backupMethod": "PodVolumeBackup",
        "pvbInfo": {"uploaderType": "kopia", "snapshotHandle": "k7"}}]);
    let infos_at = folder.join(format!("{name}-volumeinfo.json"));
    write(&infos_at, &infos);
    gzip(&infos_at);
    let entry = |object: &Value| match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", object["metadata"]["name"].as_str().unwrap()),
        None => object["metadata"]["name"].as_str().unwrap().to_owned(),
    };
    let mut list = json!({});
    for (_, object) in objects {
        let of = format!("{}/{}", object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        list[of] = json!([entry(object)]);
    }
    let list_at = folder.join(format!("{name}-resource-list.json"));
    write(&list_at, &list);
    gzip(&list_at);
}

fn shop() -> Vec<(&'static str, Value)> {
    let object = |api: &str, kind: &str, name: &str, rest: Value| {
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"namespace": "shop", "name": name,
            "uid": format!("u-{kind}-{name}"), "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
        "containers": [{"name": "web", "image": "web:1", "envFrom": [{"configMapRef": {"name": "settings"}}], "volumeMounts": [{"name": "d", "mountPath": "/d"}]}],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}});
    vec![
        (
            "namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "u-ns"}}),
        ),
        ("configmaps", object("v1", "ConfigMap", "settings", json!({"data": {"mode": "plain"}}))),
        (
            "persistentvolumeclaims",
            object(
                "v1",
                "PersistentVolumeClaim",
                "data",
                json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "standard", "volumeName": "pv-1",
                    "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Bound"}}),
            ),
        ),
        (
            "deployments.apps",
            object(
                "apps/v1",
                "Deployment",
                "web",
                json!({"spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}, "status": {"replicas": 1}}),
            ),
        ),
    ]
}

#[test]
fn a_velero_location_is_imported_browsed_and_restored_from() {
    let cluster = Cluster::new();
    let place = &cluster.place;
    cluster.request("DELETE", "/api/v1/namespaces/shop", None);
    let location = place.path("velero");
    backup(&location, "daily-1", "Completed", &shop());
    backup(&location, "daily-2", "InProgress", &shop());
    let location = location.display().to_string();

    let listed = place.run(&["import", "velero", &location, "--list"]).expect(0);
    assert!(
        listed.out.contains("daily-1  Completed") && listed.out.contains("not imported"),
        "{}",
        listed.out
    );
    assert!(place.run(&["points"]).expect(0).out.lines().count() <= 1, "a list imports nothing");

    // One is not finished and the data of the other's volume is elsewhere: told, and by the exit code too.
    let imported = place.run(&["import", "velero", &location]).expect(3);
    assert!(
        imported.out.contains("imported daily-1 as ") && imported.out.contains("skipped daily-2"),
        "{}",
        imported.out
    );
    assert!(imported.out.contains("4 objects, the data of 1 claim is not in it"), "{}", imported.out);
    let again =
        place.run(&["import", "velero", &location, "--backup", "daily-1", "-o", "json"]).expect(0).json();
    assert_eq!(again["imported"][0]["point"], Value::Null, "it is there already");
    let absent = place.run(&["import", "velero", &location, "--backup", "weekly"]).expect(4);
    assert!(absent.err.contains("weekly"), "{}", absent.err);

    let points = place.run(&["points", "-o", "json"]).expect(0).json();
    assert_eq!(points["points"].as_array().unwrap().len(), 1);
    let shown = place.run(&["show", "latest"]).expect(0);
    assert!(shown.out.contains("Certificate: INCOMPLETE") && shown.out.contains("kopia"), "{}", shown.out);

    // As kubectl would: the kubeconfig's server, asked for an object.
    let ask = "kubectl -n shop get deployment web -o json";
    let browsed = place.run(&["browse", "latest", "--", "sh", "-c", ask]).expect(0);
    let deployment: Value = serde_json::from_str(browsed.out.trim()).unwrap();
    assert_eq!(deployment["status"]["replicas"], 1, "as it was, status and all");

    let plan = place.run(&["restore", "latest", "--plan"]).expect(0);
    assert!(plan.out.contains("+ create    Deployment shop/web"), "{}", plan.out);
    assert!(place.run(&["restore", "latest"]).code != 0, "the data of a claim is not there, and it says so");
    let config = cluster.request("GET", "/api/v1/namespaces/shop/configmaps/settings", None);
    assert_eq!(config["data"]["mode"], "plain");
    place.run(&["restore", "latest", "--to", "shop=other", "--no-data"]).expect(3);
    let moved = cluster.request("GET", "/apis/apps/v1/namespaces/other/deployments/web", None);
    assert_eq!(moved["spec"]["template"]["spec"]["containers"][0]["image"], "web:1");
    cluster.request(
        "PATCH",
        "/api/v1/namespaces/shop/configmaps/settings",
        Some(json!({"data": {"mode": "other"}})),
    );
    let diff = place.run(&["diff", "latest"]).expect(10);
    assert!(diff.out.contains("/data/mode"), "{}", diff.out);
    place.run(&["repo", "check", "--read-data"]).expect(0);
}

#[test]
fn what_is_no_velero_location_is_told_before_anything_is_written() {
    let place = Place::with_repository();
    let before = place.all();
    let empty = place.text("empty");
    std::fs::create_dir(&empty).unwrap();
    let run = place.run(&["import", "velero", &empty]).expect(4);
    assert!(run.err.contains("backups/"), "{}", run.err);
    std::fs::remove_dir(&empty).unwrap();
    support::same_trees("nothing was written", &before, &place.all());
}
