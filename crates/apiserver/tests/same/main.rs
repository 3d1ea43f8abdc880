//! The same requests to a real API server and to ours: the answers must be the same.
//!
//! What tests against our server prove is worth as much as our server is like a real one. Each step
//! is one request; compared are the status, the reason, the fields complained about, the sentence,
//! and the whole object, less what no two servers share (uids, times, addresses) and what a server
//! of another version has or lacks. The real one is Kubernetes 1.20, ours speaks as 1.33.
//!
//! Controllers of a real cluster take their time: a read that differs is repeated for a while.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // In a test a failed unwrap is the failed test.

mod hooks;
mod limits;
mod steps;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use apiserver::{ApiServer, Options};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// Answers so far, by the name of their step.
type Seen = BTreeMap<&'static str, Value>;

enum Body {
    None,
    Fixed(Value),
    Raw(&'static str),
    Made(fn(&Seen) -> Value),
}

struct Step {
    name: &'static str,
    method: &'static str,
    path: String,
    content_type: &'static str,
    body: Body,
    /// The sentence differs between versions; all else must not.
    own_words: bool,
    /// Why the two differ here, if they are known to. That is printed, and no failure; that they do not any more is.
    known: Option<&'static str>,
    /// May take a moment to be so, and changes nothing until it is: asked until the answers agree.
    patient: bool,
    /// What makes the controller behind the answer look again, sent to the real server while its answer differs.
    nudge: &'static [&'static str],
}

impl Step {
    fn own_words(self) -> Step {
        Step { own_words: true, ..self }
    }

    fn patient(self) -> Step {
        Step { patient: true, ..self }
    }

    /// A quota is counted when its spec changes, from what the controller has been told by then: of an object that was made a moment
    /// before it may not have heard yet, and it does not count again for minutes. These two changes make it count anew.
    fn counted(self) -> Step {
        Step {
            nudge: &[
                r#"{"spec": {"hard": {"count/leases.coordination.k8s.io": "1"}}}"#,
                r#"{"spec": {"hard": {"count/leases.coordination.k8s.io": null}}}"#,
            ],
            ..self
        }
    }

    fn differs(self, why: &'static str) -> Step {
        Step { known: Some(why), ..self }
    }
}

async fn ask(client: &Client, step: &Step, seen: &Seen) -> (u16, Value) {
    let bytes = match &step.body {
        Body::None => Vec::new(),
        Body::Fixed(value) => serde_json::to_vec(value).unwrap(),
        Body::Raw(text) => text.as_bytes().to_vec(),
        Body::Made(make) => serde_json::to_vec(&make(seen)).unwrap(),
    };
    send(client, step.method, &revised(&step.path, seen), step.content_type, bytes).await
}

/// A path with the revision of an earlier answer in it, named in braces.
fn revised(path: &str, seen: &Seen) -> String {
    match path.split_once('{').and_then(|(start, rest)| Some((start, rest.split_once('}')?))) {
        None => path.to_owned(),
        Some((start, (name, rest))) => {
            let revision = seen[name]["metadata"]["resourceVersion"].as_str().unwrap();
            format!("{start}{revision}{rest}")
        }
    }
}

async fn send(client: &Client, method: &str, path: &str, content_type: &str, bytes: Vec<u8>) -> (u16, Value) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .header("accept", "application/json")
        .header("user-agent", "same/1");
    let response = client.send(request.body(bytes.into()).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let body = axum::body::Body::new(response.into_body());
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    // What is not one document is a watch, a document a line; or a sentence.
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let value = serde_json::from_slice(&body)
        .or_else(|_| lines.map(serde_json::from_slice).collect::<Result<Vec<Value>, _>>().map(Value::Array))
        .unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
    // Of a watch with one event, too.
    let value = if path.contains("watch=true") && value.is_object() { json!([value]) } else { value };
    (code, value)
}

/// Keys whose values no two servers share.
const CHANCE: &[&str] = &["uid", "resourceVersion", "time", "clusterIP", "nodePort", "controller-uid"];
/// Keys that only one of the two versions has, or that real controllers add at a time of their own.
const VERSION: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "clusterIPs",
    "completionMode",
    "creationTimestamp",
    "deletionTimestamp",
    "deployment.kubernetes.io/revision",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "kubernetes.io/description",
    "kubernetes.io/metadata.name",
    "lastTransitionTime",
    "managedFields",
    "maxSurge",
    "matchLabels",
    "persistentVolumeClaimRetentionPolicy",
    "podReplacementPolicy",
    "selfLink",
    "serverAddressByClientCIDRs",
    "singularName",
    "storageVersionHash",
    "suspend",
];

fn normal(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = serde_json::Map::new();
            for (key, inner) in map {
                if VERSION.contains(&key.as_str()) || inner.is_null() {
                    continue;
                }
                let chance = CHANCE.contains(&key.as_str()) && inner.as_str() != Some("None");
                let inner = if chance { json!("*") } else { normal(inner) };
                // Empty after all that: one of the two had only what the other had not.
                if inner != json!({}) || key == "status" {
                    out.insert(key.clone(), inner);
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.iter().map(normal).collect()),
        Value::String(text) if text.starts_with("too old resource version") => {
            json!("too old resource version")
        }
        Value::String(text) if text.len() == 36 && text.matches('-').count() == 4 => json!("*"),
        other => other.clone(),
    }
}

/// What of an answer must be the same.
fn essence(step: &Step, code: u16, body: &Value) -> Value {
    if code < 400 {
        let mut body = normal(body);
        // Controllers write the status of workloads; conditions and counts are theirs.
        if ["Deployment", "DaemonSet", "ReplicaSet"].contains(&body["kind"].as_str().unwrap_or("")) {
            body.as_object_mut().unwrap().remove("status");
        }
        if body["kind"] == "Job" {
            // Jobs count their generations only since 1.23.
            body["metadata"].as_object_mut().unwrap().remove("generation");
        }
        body.sort_all_objects();
        return json!({ "code": code, "body": body });
    }
    let mut fields: Vec<String> =
        body["details"]["causes"].as_array().into_iter().flatten().map(|c| c["field"].to_string()).collect();
    fields.sort();
    fields.dedup();
    let message =
        if step.own_words { Value::Null } else { normal(&json!({ "message": scrubbed(&body["message"]) })) };
    json!({ "code": code, "reason": body["reason"], "name": body["details"]["name"], "kind": body["details"]["kind"],
        "fields": fields, "says": message })
}

/// A sentence without the uids in it.
fn scrubbed(message: &Value) -> Value {
    let words = message.as_str().unwrap_or("").split(' ');
    let uid = |word: &&str| word.len() >= 36 && word.matches('-').count() == 4;
    json!(words.map(|w| if uid(&w) { "*" } else { w }).collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn kube_the_real_server_answers_the_same() {
    let path = std::env::var("HOLDFAST_TEST_KUBECONFIG")
        .expect("HOLDFAST_TEST_KUBECONFIG is not set: run this test with `./test real` or under `tests/real/with kube -- `");
    let config = Kubeconfig::read_from(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let real = Client::try_from(config).unwrap();
    // It forgets soon, so that there is a past it does not know.
    let options = Options { history: 60, ..Options::deterministic(1) }.webhooks(hooks::ask());
    let ours = Client::new(ApiServer::new(options).router(), "default");
    let (mut seen_real, mut seen_ours) = (Seen::new(), Seen::new());
    let mut differences = Vec::new();
    let steps = steps::all(hooks::start());
    for step in &steps {
        let (code, our_body) = ask(&ours, step, &seen_ours).await;
        let expect = essence(step, code, &our_body);
        let begun = Instant::now();
        let (real_code, real_body) = loop {
            let (code, body) = ask(&real, step, &seen_real).await;
            let patience =
                if step.method == "GET" || step.patient { Duration::from_secs(20) } else { Duration::ZERO };
            // Refused because the quota is not counted yet, which changes nothing: another time it says what it thinks.
            let is_uncounted =
                body["message"].as_str().is_some_and(|m| m.contains("status unknown for quota"));
            let patience = if is_uncounted { Duration::from_secs(20) } else { patience };
            if essence(step, code, &body) == expect || begun.elapsed() >= patience {
                break (code, body);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
            for change in step.nudge {
                send(&real, "PATCH", &step.path, steps::MERGE, change.as_bytes().to_vec()).await;
            }
        };
        let found = essence(step, real_code, &real_body);
        let same = found == expect || (step.own_words && code < 400 && code == real_code);
        let told = format!("{}: {} {}\n   real {found}\n   ours {expect}", step.name, step.method, step.path);
        match (same, step.known) {
            (true, None) => {}
            (true, Some(why)) => differences.push(format!("{}: no difference any more: {why}", step.name)),
            (false, Some(why)) => println!("known difference, {why}\n{told}"),
            (false, None) => differences.push(told),
        }
        seen_real.insert(step.name, real_body);
        seen_ours.insert(step.name, our_body);
    }
    assert!(
        differences.is_empty(),
        "{} of {} answers differ:\n{}",
        differences.len(),
        steps.len(),
        differences.join("\n")
    );
}
