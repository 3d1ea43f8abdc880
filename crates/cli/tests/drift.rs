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
