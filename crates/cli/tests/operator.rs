//! `holdfast operator` as a pod runs it: it takes its lease, acts on what is in the cluster, and gives the lease back when it is told to stop.

// The lints know only functions marked #[test]; the helpers here are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::Run;
use support::cluster::Cluster;

fn eventually(what: &str, ask: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ask() {
        assert!(begun.elapsed() < Duration::from_secs(60), "within a minute: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_operator_acts_on_what_is_there_and_gives_its_lease_back() {
    let cluster = Cluster::new();
    let definitions = std::fs::read_to_string(support::root().join("deploy/crds.yaml")).unwrap();
    for text in definitions.split("\n---\n").filter(|text| text.contains("CustomResourceDefinition")) {
        let definition = apiserver::read_yaml(text).unwrap();
        let made = cluster.request(
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            Some(definition),
        );
        assert_eq!(made["kind"], json!("CustomResourceDefinition"), "{made}");
    }
    let policies = "/apis/holdfast.dev/v1alpha1/namespaces/shop/policies";
    let policy = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "gold"},
        "spec": {"repository": {"name": "main"}}});
    assert_eq!(cluster.request("POST", policies, Some(policy))["kind"], json!("Policy"));

    let child = cluster.place.spawn(&["operator", "--namespace", "default", "--name", "one", "-o", "json"]);
    let holder = || {
        let lease = cluster.request(
            "GET",
            "/apis/coordination.k8s.io/v1/namespaces/default/leases/holdfast-operator",
            None,
        );
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    eventually("it leads", || holder().starts_with("one_"));
    let status = || cluster.request("GET", &format!("{policies}/gold"), None)["status"].clone();
    eventually("it acts", || status()["conditions"][0]["reason"] == json!("RefNotFound"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    let run = Run::of(child.wait_with_output().unwrap()).expect(0);
    assert_eq!(run.json(), json!({"ended": "stopped"}));
    assert!(run.err.contains("leads, term"), "{}", run.err);
    assert_eq!(holder(), "", "given back");
    assert_ne!(status(), Value::Null);
}
