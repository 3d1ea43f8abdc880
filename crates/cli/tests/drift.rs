//! Rehearsals, drift and what a point says of its cluster's API, with the command line.

#![allow(clippy::unwrap_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use serde_json::json;
use std::process::Command;
use support::cluster::{Cluster, shop};

/// The shop's manifests as its people keep them, one of them commented.
fn manifests(cluster: &Cluster) -> String {
    let folder = cluster.place.path("git");
    std::fs::create_dir(&folder).unwrap();
    for object in shop() {
        let name = format!("{}.json", object["kind"].as_str().unwrap().to_lowercase());
        std::fs::write(folder.join(name), serde_json::to_string_pretty(&object).unwrap()).unwrap();
    }
    let conf = "# ask before you change it\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config\n  labels: \
                {app.kubernetes.io/name: shop, app.kubernetes.io/part-of: shop}\ndata:\n  A: \"1\" # of three\n";
    std::fs::remove_file(folder.join("configmap.json")).unwrap();
    std::fs::write(folder.join("conf.yaml"), conf).unwrap();
    folder.display().to_string()
}

#[test]
fn what_drifted_is_told_patched_and_gone() {
    let cluster = Cluster::new();
    let (place, folder) = (&cluster.place, manifests(&cluster));
    place.run(&["backup", "shop"]).expect(0);
    let none = place.run(&["diff", "latest", "--manifests", &folder]).expect(0);
    assert!(none.out.contains("0 drifted"), "{}", none.out);
    let path = "/api/v1/namespaces/shop/configmaps/config?fieldManager=night-shift";
    cluster.request("PATCH", path, Some(json!({ "data": { "A": "2", "B": "new" } })));
    place.run(&["backup", "shop"]).expect(0);
    let drift = place.run(&["diff", "latest", "--manifests", &folder]).expect(10);
    assert!(drift.out.contains("~ ConfigMap shop/config  (conf.yaml)"), "{}", drift.out);
    assert!(drift.out.contains("~ /data/A: \"1\" -> \"2\"  by night-shift (update"), "{}", drift.out);
    let told = place.run(&["diff", "latest", "--manifests", &folder, "-o", "json"]).expect(10).json();
    assert_eq!(told["changed"][0]["fields"][0]["by"][0]["manager"], "night-shift");

    let patch = place.run(&["diff", "latest", "--manifests", &folder, "-o", "patch"]).expect(10).out;
    std::fs::write(place.path("up.patch"), &patch).unwrap();
    let applied =
        Command::new("git").args(["apply", &place.text("up.patch")]).current_dir(&folder).status().unwrap();
    assert!(applied.success(), "{patch}");
    let conf = std::fs::read_to_string(place.path("git/conf.yaml")).unwrap();
    assert!(conf.starts_with("# ask before you change it\n") && conf.contains("  A: \"2\""), "{conf}");
    let after = place.run(&["diff", "latest", "--manifests", &folder]).expect(0);
    assert!(after.out.contains("0 drifted"), "{}", after.out);
    assert_eq!(place.run(&["diff", "latest", "--manifests", &folder, "-o", "patch"]).expect(0).out, "");

    place.run(&["diff", "latest", "-o", "patch"]).expect(2);
    place.run(&["points", "-o", "patch"]).expect(2);
    place.run(&["diff", "latest", "--manifests", &place.text("nowhere")]).expect(4);
    place.run(&["diff", "latest", "--manifests", &folder, "--to", "shop=other"]).expect(2);
}

/// git in a directory, as somebody who commits there.
fn git(folder: &str, words: &[&str]) {
    let who = ["-c", "user.name=dev", "-c", "user.email=dev@example.com", "-c", "init.defaultBranch=main"];
    let done = Command::new("git").args(who).args(words).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_is_declared_is_what_was_committed_or_rendered() {
    let cluster = Cluster::new();
    let (place, folder) = (&cluster.place, manifests(&cluster));
    place.run(&["backup", "shop"]).expect(0);
    // In a directory of a repository, beside other things.
    let top = place.text("top");
    std::fs::create_dir_all(place.path("top/deploy/.hidden")).unwrap();
    std::fs::write(
        place.path("top/other.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stranger}\n",
    )
    .unwrap();
    std::fs::write(place.path("top/deploy/.hidden/x.yaml"), "nonsense: [").unwrap();
    for file in std::fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), place.path("top/deploy").join(file.file_name())).unwrap();
    }
    git(&top, &["init", "--quiet"]);
    git(&top, &["add", "--all"]);
    git(&top, &["commit", "--quiet", "--message", "as it is"]);
    git(&top, &["tag", "v1"]);
    let conf = place.path("top/deploy/conf.yaml");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, text.replace("\"1\"", "\"5\"")).unwrap();
    git(&top, &["commit", "--quiet", "--all", "--message", "five"]);
    std::fs::write(&conf, "somebody: is typing").unwrap();

    let deploy = place.text("top/deploy");
    let diff = |from: &str| place.run(&["diff", "latest", "--manifests", from]);
    let revision = |name: &str| format!("{deploy}@{name}");
    assert!(diff(&revision("v1")).expect(0).out.contains("0 drifted"));
    for from in
        [revision("HEAD"), format!("git:file://{top}//deploy"), format!("git:file://{top}//deploy@main")]
    {
        let five = diff(&from).expect(10);
        assert!(five.out.contains("/data/A: \"5\" -> \"1\""), "{from}: {}", five.out);
    }
    assert!(diff(&format!("git:file://{top}//deploy@v1")).expect(0).out.contains("0 drifted"));
    // The patch fits the revision it was made of.
    let patch =
        place.run(&["diff", "latest", "--manifests", &revision("HEAD"), "-o", "patch"]).expect(10).out;
    std::fs::write(place.path("up.patch"), &patch).unwrap();
    git(&top, &["checkout", "--quiet", "--", "deploy/conf.yaml"]);
    git(&deploy, &["apply", &place.text("up.patch")]);
    assert!(diff(&deploy).expect(0).out.contains("0 drifted"));

    assert!(diff(&revision("v9")).expect(4).err.contains("v9"));
    assert!(diff(&revision("--output=x")).expect(2).err.contains("no revision"));
    assert!(diff(&format!("git:file://{top}-nowhere")).expect(4).err.contains("git:"));

    // Rendered by another tool.
    let stream: String = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| format!("---\n{}\n", std::fs::read_to_string(file.unwrap().path()).unwrap()))
        .collect();
    let piped = place.run_with(&["diff", "latest", "--manifests", "-"], &stream).expect(0);
    assert!(piped.out.contains("0 drifted"), "{}", piped.out);
    place.run_with(&["diff", "latest", "--manifests", "-", "-o", "patch"], &stream).expect(2);
    place.run_with(&["diff", "latest", "--manifests", "-"], "").expect(4);
}

#[test]
fn a_rehearsal_says_what_would_have_failed_and_writes_nothing() {
    let cluster = Cluster::new();
    let place = &cluster.place;
    place.run(&["backup", "shop"]).expect(0);
    let good = place.run(&["rehearse", "latest", "--embedded"]).expect(0);
    assert!(good.out.contains("Would be restored: shop against a current, empty cluster"), "{}", good.out);
    cluster.request("DELETE", "/api/v1/namespaces/shop", None);
    cluster.request(
        "POST",
        "/api/v1/namespaces",
        Some(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})),
    );
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0", "configmaps": "1"}}});
    cluster.request("POST", "/api/v1/namespaces/shop/resourcequotas", Some(quota));
    let before = cluster.server.dump();
    let bad = place.run(&["rehearse", "latest", "--embedded", "--target"]).expect(3);
    assert!(
        bad.out.contains("pods refused Deployment shop/web") || bad.out.contains("pods refused ReplicaSet"),
        "{}",
        bad.out
    );
    assert!(bad.out.contains("exceeded quota: q, requested: pods=1"), "{}", bad.out);
    assert!(bad.out.contains("refused      ConfigMap shop/config"), "{}", bad.out);
    let told = place.run(&["rehearse", "latest", "--embedded", "--target", "-o", "json"]).expect(3).json();
    assert_eq!(told["refused"].as_array().unwrap().len(), 1, "{told}");
    assert!(before == cluster.server.dump(), "the target is only read");
    // Elsewhere there is room.
    place.run(&["rehearse", "latest", "--embedded", "--target", "--to", "shop=shop-test"]).expect(0);
    place.run(&["rehearse", "latest"]).expect(2);
}

#[test]
fn a_point_is_browsed_as_its_own_cluster_described_itself() {
    let cluster = Cluster::new();
    let place = &cluster.place;
    place.run(&["backup", "shop"]).expect(0);
    let look = |line: &str| place.run(&["browse", "latest", "--", "sh", "-c", line]);
    let got =
        look("kubectl get deploy -n shop; kubectl explain deployment.spec.replicas; kubectl api-resources")
            .expect(0);
    assert!(got.out.contains("READY") && got.out.contains("replicas <integer>"), "{}", got.out);
    assert!(got.out.contains("deployments"), "{}", got.out);
    let refused = look("kubectl -n shop delete configmap config 2>&1 || echo refused").expect(0);
    assert!(refused.out.contains("read-only") && refused.out.contains("refused"), "{}", refused.out);
}
