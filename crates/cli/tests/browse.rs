//! A recovery point as a cluster, for programs that others wrote: kubectl, and the client library for Python. They find what the
//! point's own cluster served and as it served it, whatever became of that cluster, and can change nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{Run, python, root};

/// The shop and a kind of its own, with columns; backed up, and then gone.
fn backed_up() -> (Cluster, Value) {
    let cluster = Cluster::new();
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "mice.acme.io"},
        "spec": {"group": "acme.io", "scope": "Namespaced",
            "names": {"kind": "Mouse", "plural": "mice", "singular": "mouse", "listKind": "MouseList", "shortNames": ["mo"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "additionalPrinterColumns": [column("Teeth", "integer", ".spec.teeth"), column("Mood", "string", ".status.mood")],
                "schema": {"openAPIV3Schema": {"type": "object", "description": "A small animal.", "properties": {
                    "spec": {"type": "object", "properties": {"teeth": {"type": "integer", "description": "How many it has left."}}},
                    "status": {"type": "object", "properties": {"mood": {"type": "string"}}}}}}}]}});
    let mouse = json!({"apiVersion": "acme.io/v1", "kind": "Mouse", "metadata": {"name": "jerry", "labels": {"app.kubernetes.io/part-of": "shop"}},
        "spec": {"teeth": 16}, "status": {"mood": "fine"}});
    cluster.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", Some(definition));
    assert_eq!(
        cluster.request("POST", "/apis/acme.io/v1/namespaces/shop/mice", Some(mouse))["kind"],
        "Mouse"
    );
    let web = cluster.request("GET", "/apis/apps/v1/namespaces/shop/deployments/web", None);
    cluster.place.run(&["backup", "shop"]).expect(0);
    for gone in [
        "/apis/acme.io/v1/namespaces/shop/mice/jerry",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/mice.acme.io",
        "/apis/apps/v1/namespaces/shop/deployments/web",
    ] {
        cluster.request("DELETE", gone, None);
    }
    (cluster, web)
}

fn browse(cluster: &Cluster, command: &[&str]) -> Run {
    let args: Vec<&str> = ["browse", "latest", "--"].iter().chain(command).copied().collect();
    cluster.place.run(&args)
}

#[test]
fn a_client_library_reads_a_point_as_it_would_read_its_cluster() {
    let (cluster, web) = backed_up();
    let (python, script) = (python(), root().join("tests/real/client.py").display().to_string());
    let seen = browse(&cluster, &[&python, &script, "shop", "mice"]).expect(0).json();
    assert_eq!(seen["uid"], web["metadata"]["uid"], "the object as it was: {seen}");
    assert!(seen["created"].as_str().unwrap().len() > 18, "{seen}");
    assert_eq!(seen["image"], "web:1");
    assert!(seen["namespaces"].as_array().unwrap().contains(&json!("shop")), "{seen}");
    assert!(seen["pages"].as_array().unwrap().contains(&json!("config")), "{seen}");
    assert_eq!(seen["selected"], json!(["secret"]));
    assert!(seen["watched"].as_array().unwrap().contains(&json!("ADDED secret")), "{seen}");
    assert_eq!(seen["custom"], json!([["Mouse", "jerry", 16]]), "a kind that only this cluster had");
    assert!(seen["groups"].as_array().unwrap().contains(&json!("acme.io")), "{seen}");
    let documents = seen["documents"].as_array().unwrap();
    assert!(
        documents.contains(&json!("apis/acme.io/v1")) && documents.contains(&json!("apis/apps/v1")),
        "{seen}"
    );
    let shown = seen["shown"].as_object().unwrap();
    assert!(shown.len() > 40, "{shown:?}");
    for (kind, view) in shown {
        assert_eq!(view["may"], json!([true, true, true, false, false]), "{kind}");
        assert_eq!(view["kind"], "Table", "{kind}");
        let columns = view["columns"].as_array().unwrap().len();
        let rows = view["rows"].as_array().unwrap();
        assert!(columns > 0 && rows.iter().all(|row| row[2] == columns), "{kind}: {view}");
    }
    assert_eq!(shown["acme.io/v1 mice"]["columns"], json!(["Name", "Teeth", "Mood"]));
    assert_eq!(shown["acme.io/v1 mice"]["rows"], json!([["Mouse", "jerry", 3]]));
    for refused in seen["changes"].as_array().unwrap() {
        assert!(
            refused[0].as_u64().is_some_and(|status| (400..500).contains(&status))
                && refused[1].as_str().unwrap().contains("read-only"),
            "{seen}"
        );
    }
}

#[test]
fn kubectl_shows_kinds_columns_and_descriptions_that_are_gone_from_the_cluster() {
    let (cluster, _) = backed_up();
    for (line, wanted) in [
        ("kubectl -n shop get mice", vec!["NAME TEETH MOOD", "jerry 16 fine"]),
        ("kubectl -n shop get mo jerry -o jsonpath={.spec.teeth}", vec!["16"]),
        ("kubectl explain mouse.spec", vec!["How many it has left."]),
        ("kubectl api-resources --api-group=acme.io", vec!["mice mo acme.io/v1 true Mouse"]),
        ("kubectl -n shop get deploy,pvc -o wide", vec!["deployment.apps/web", "persistentvolumeclaim/data"]),
        ("kubectl -n shop describe deployment web", vec!["Image: web:1"]),
        (
            "kubectl get crd mice.acme.io -o name",
            vec!["customresourcedefinition.apiextensions.k8s.io/mice.acme.io"],
        ),
        ("kubectl -n shop get configmap -l app.kubernetes.io/part-of=shop -o name", vec!["configmap/config"]),
        ("kubectl auth can-i list pods --all-namespaces", vec!["yes"]),
        ("kubectl -n shop auth can-i watch mice", vec!["yes"]),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let run = browse(&cluster, &words).expect(0);
        let squeezed: Vec<String> =
            run.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for want in wanted {
            assert!(squeezed.iter().any(|line| line.contains(want)), "{line}: {want:?} in {}", run.out);
        }
    }
    // Who asks first, as k9s does, is told that nothing can be changed.
    for line in ["kubectl -n shop auth can-i delete pods", "kubectl auth can-i '*' '*'"] {
        let words: Vec<&str> = line.split(' ').map(|word| word.trim_matches('\'')).collect();
        let run = browse(&cluster, &words);
        assert!(run.code != 0 && run.out.contains("no"), "{line}: {run:?}");
    }
    for line in [
        "kubectl -n shop delete mouse jerry",
        "kubectl -n shop scale deployment web --replicas=3",
        "kubectl -n shop label configmap config a=b",
        "kubectl create namespace other",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let run = browse(&cluster, &words);
        assert!(run.code != 0 && run.err.contains("read-only"), "{line}: {run:?}");
    }
}
