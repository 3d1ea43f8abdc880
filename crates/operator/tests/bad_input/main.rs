//! Every field at its limit and beyond it, and every rule broken: refused with a sentence that says how to mend it, in the same words
//! by a server that knows the rules and by the operator in the place of one that does not (C7).
//!
//! Cases of single fields are made from the definitions, so that none is left out; those of rules about several fields are a table
//! ([`rules`]). Each is sent to the embedded API server and given to the operator's check, and, with a real Kubernetes 1.20 at hand,
//! to that: it has no CEL, so it has to say the same of types and limits, and take what only a rule forbids, which the operator then says.
//! A server of today can take its place by hand, and has to say all of it.

// The lints know only functions marked #[test]; the helpers here are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fields;
mod rules;
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use apiserver::{ApiServer, Definition, Options};
use k8s_openapi as _; // kube wants one of its versions to be chosen.
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// Where definitions are.
const ALL: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// What may be wrong: where, and what is said.
type Causes = BTreeSet<(String, String)>;

/// An object that is sent, and what has to be said of it.
pub struct Case {
    /// What it is about, for people.
    pub story: String,
    /// The kind.
    pub kind: String,
    /// What the object was before; none: it is new.
    pub old: Option<Value>,
    /// The object.
    pub new: Value,
    /// What has to be said, in part; empty: nothing.
    pub expect: Vec<(String, String)>,
    /// Only a rule or the operator forbids it, so a server without CEL takes it.
    pub by_rule: bool,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for definition in api::definitions() {
        cases.extend(fields::cases(&definition));
    }
    cases.extend(rules::cases());
    cases
}

/// The operator's answer.
fn checked(definitions: &BTreeMap<String, Definition>, case: &Case) -> Causes {
    let definition = &definitions[&case.kind];
    let complete = |object: &Value| {
        let mut object = object.clone();
        definition.complete(&mut object);
        object
    };
    let old = case.old.as_ref().map(complete);
    let causes = operator::check::check(definition, old.as_ref(), &complete(&case.new));
    causes.into_iter().map(|cause| (cause.field, cause.message)).collect()
}

async fn ask(
    client: &Client,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Value, (u16, Causes, String)> {
    let content_type = if method == "PATCH" { "application/apply-patch+yaml" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
    match client.request::<Value>(request.body(serde_json::to_vec(body).unwrap()).unwrap()).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            let causes = causes.map(|cause| (cause.field.clone(), cause.message.clone())).collect();
            Err((status.code, causes, status.message.clone()))
        }
        Err(other) => panic!("{method} {path}: {other}"),
    }
}

/// Made once: cases are many.
static DEFINITIONS: LazyLock<Vec<Value>> = LazyLock::new(api::definitions);
static SENTENCES: LazyLock<BTreeSet<String>> = LazyLock::new(sentences);

fn collection(kind: &str) -> String {
    let definition = DEFINITIONS.iter().find(|d| d["spec"]["names"]["kind"] == kind).unwrap();
    let plural = definition["spec"]["names"]["plural"].as_str().unwrap().to_owned();
    format!("/apis/holdfast.dev/v1alpha1/namespaces/default/{plural}")
}

/// A server's answer: a dry run, so that one case is nothing to the next.
async fn served(client: &Client, case: &Case) -> Causes {
    let collection = collection(&case.kind);
    let answer = match &case.old {
        None => ask(client, "POST", &format!("{collection}?dryRun=All"), &case.new).await,
        Some(old) => {
            let made = ask(client, "POST", &collection, old)
                .await
                .unwrap_or_else(|why| panic!("{}: {why:?}", case.story));
            let path = format!("{collection}/{}", old["metadata"]["name"].as_str().unwrap());
            let mut new = case.new.clone();
            new["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
            let answer = ask(client, "PUT", &format!("{path}?dryRun=All"), &new).await;
            ask(client, "DELETE", &path, &json!({})).await.unwrap();
            answer
        }
    };
    match answer {
        Ok(_) => Causes::new(),
        Err((422, causes, _)) => causes,
        Err(other) => panic!("{}: {other:?}\n{}", case.story, case.new),
    }
}

fn told(causes: &Causes) -> String {
    let short = |message: &str| message.replace(&"a".repeat(60), "");
    causes.iter().map(|(field, message)| format!("   {field}: {}\n", short(message))).collect()
}

/// As 1.20 says it: without the places in lists. And what it says of an empty text, which it takes for a null, is left out.
fn as_of_old(causes: &Causes) -> Causes {
    let index = regex::Regex::new(r"\[[0-9]+\]").unwrap();
    let plain = |text: &str| index.replace_all(text, "").into_owned();
    let causes = causes.iter().map(|(field, message)| (plain(field), plain(message)));
    causes.filter(|(_, message)| !message.ends_with(": \"null\"")).collect()
}

/// Does a cause say what was expected, and does each say what would be right?
fn judge(case: &Case, causes: &Causes, wrong: &mut Vec<String>) {
    let missing = case.expect.iter().find(|(field, part)| {
        !causes.iter().any(|(at, message)| at == field && message.contains(part.as_str()))
    });
    if let Some((field, part)) = missing {
        wrong.push(format!("{}: nothing says «{field}: … {part}»; said is\n{}", case.story, told(causes)));
    }
    if case.expect.is_empty() && !causes.is_empty() {
        wrong.push(format!("{}: right, and refused:\n{}", case.story, told(causes)));
    }
    for (field, message) in causes {
        if !mends(message) {
            wrong.push(format!("{}: «{field}: {message}» does not say how to mend it", case.story));
        }
    }
}

/// Words of the server that say what would be right; and all sentences of ours, which are written to.
fn mends(message: &str) -> bool {
    const WORDS: &[&str] = &[
        "should be at least",
        "should be at most",
        "should be greater than or equal to",
        "should be less than or equal to",
        "should have at least",
        "should have at most",
        "must be of type",
        "supported values",
        "Required value",
        "Duplicate value",
    ];
    WORDS.iter().any(|word| message.contains(word))
        || SENTENCES.iter().any(|ours| message.ends_with(ours.as_str()))
}

/// The messages of all rules of all definitions.
fn sentences() -> BTreeSet<String> {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        for rule in value["x-kubernetes-validations"].as_array().into_iter().flatten() {
            found.insert(rule["message"].as_str().unwrap().to_owned());
        }
        match value {
            Value::Object(map) => map.values().for_each(|inner| collect(inner, found)),
            Value::Array(items) => items.iter().for_each(|inner| collect(inner, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    api::definitions().iter().for_each(|definition| collect(definition, &mut found));
    found
}

async fn embedded() -> Client {
    let server = ApiServer::new(Options::deterministic(1));
    let client = Client::new(server.router(), "default");
    for definition in api::definitions() {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        ask(&client, "POST", path, &definition).await.unwrap();
    }
    client
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_same_words_by_the_server_and_by_the_operator() {
    let (client, definitions) = (embedded().await, operator::check::definitions());
    let (mut wrong, mut broken, cases) = (Vec::new(), BTreeSet::new(), cases());
    for case in &cases {
        let (by_server, by_operator) = (served(&client, case).await, checked(&definitions, case));
        if by_server != by_operator {
            wrong.push(format!(
                "{}: the server says\n{}the operator says\n{}",
                case.story,
                told(&by_server),
                told(&by_operator)
            ));
        }
        judge(case, &by_operator, &mut wrong);
        broken.extend(by_operator.into_iter().map(|(_, message)| message));
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let rules = &*SENTENCES;
    for ours in rules {
        assert!(broken.iter().any(|said| said.ends_with(ours)), "no case breaks the rule that says: {ours}");
    }
    println!("{} cases, {} different sentences of rules", cases.len(), rules.len());
    assert!(cases.len() > 400, "{}", cases.len());
}

#[tokio::test]
async fn every_sample_is_taken_and_read_back_as_it_was_written() {
    let client = embedded().await;
    for (kind, full) in samples::full() {
        let stored = ask(&client, "POST", &collection(&kind), &full).await.unwrap();
        assert_eq!(
            stored["spec"], full["spec"],
            "{kind}: nothing pruned, nothing filled in: the sample names every field"
        );
        samples::read_back(&kind, &stored["spec"]);
        ask(&client, "DELETE", &format!("{}/sample", collection(&kind)), &json!({})).await.unwrap();
    }
    for (kind, least) in samples::least() {
        let stored =
            ask(&client, "POST", &format!("{}?dryRun=All", collection(&kind)), &least).await.unwrap();
        samples::read_back(&kind, &stored["spec"]);
    }
}

/// What 1.20 refuses in words of its own: an instant that is no text it calls `int64`, of an element that is no object it speaks
/// twice, and an element that is there twice it prints as Go does.
const OTHER_WORDS: &[&str] = &[
    "Policy spec.schedules twice the same",
    "Policy spec.schedules[0] = \"x\"",
    "RecoveryPoint spec.schedule.at = 1",
    "RecoveryPoint spec.hold.until = 1",
    "Restore spec.from.application.at = 1",
];

#[tokio::test]
async fn kube_a_server_without_cel_says_the_same_of_types_and_limits_and_the_operator_says_the_rest() {
    let path = std::env::var("HOLDFAST_TEST_KUBECONFIG").expect(
        "HOLDFAST_TEST_KUBECONFIG is not set: run this test with `./test real` or under `tests/real/with kube -- `",
    );
    let config = Kubeconfig::read_from(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    if knows_rules(&client).await {
        return with_rules(&client).await;
    }
    for definition in api::definitions() {
        // As they are they are taken, and what the server does not know is dropped.
        match ask(&client, "POST", &format!("{ALL}?dryRun=All"), &definition).await {
            Ok(taken) => assert!(!taken.to_string().contains("x-kubernetes-validations")),
            Err((code, ..)) => assert_eq!(code, 409, "there since the last run"),
        }
        // An apply of them is refused, so `install` leaves the rules out there.
        let apply = format!("{}?fieldManager=holdfast&force=true", named(&definition));
        let why = ask(&client, "PATCH", &format!("{apply}&dryRun=All"), &definition).await;
        assert!(why.is_err(), "{why:?}");
        ask(&client, "PATCH", &apply, &api::without_rules(definition.clone())).await.unwrap();
    }
    established(&client).await;
    let definitions = operator::check::definitions();
    let (mut wrong, cases) = (Vec::new(), cases());
    let (mut same, mut ours) = (0, 0);
    for case in &cases {
        let by_server = as_of_old(&served(&client, case).await);
        let by_operator = as_of_old(&checked(&definitions, case));
        match case.by_rule {
            // Only the operator can say it.
            true if by_server.is_empty() && !by_operator.is_empty() => ours += 1,
            false if OTHER_WORDS.contains(&case.story.as_str()) => {
                let fields =
                    |causes: &Causes| causes.iter().map(|(field, _)| field.clone()).collect::<BTreeSet<_>>();
                assert_eq!(fields(&by_server), fields(&by_operator), "{}", case.story);
                assert_ne!(by_server, by_operator, "{}: no other words any more", case.story);
            }
            false if by_server == by_operator => same += 1,
            _ => wrong.push(format!(
                "{}: 1.20 says\n{}the operator says\n{}",
                case.story,
                told(&by_server),
                told(&by_operator)
            )),
        }
    }
    // The definitions stay: tests beside this one would see kinds go that they just found.
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases: {same} said alike, {ours} only by the operator", cases.len());
    assert!(same > 200 && ours > 100, "{same} {ours}");
}

/// What a server of today says more or less of: a value that is there six times it tells once, and an empty text that is too short it
/// shows to the rules all the same.
const OF_TODAY: &[&str] = &[
    r#"Policy spec.notify[0].on = ["Failed","Failed","Failed","Failed","Failed","Failed"]"#,
    r#"Repository spec.url = """#,
];

/// Rules came with 1.25.
async fn knows_rules(client: &Client) -> bool {
    let version = ask(client, "GET", "/version", &json!({})).await.unwrap();
    let minor = version["minor"].as_str().unwrap().trim_end_matches('+').parse::<u32>().unwrap();
    minor >= 25
}

/// Until the definitions are served.
async fn established(client: &Client) {
    for definition in api::definitions() {
        let begun = std::time::Instant::now();
        loop {
            let seen = ask(client, "GET", &named(&definition), &json!({})).await.unwrap();
            let conditions = seen["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
            assert!(!is("NonStructuralSchema"), "{conditions:?}");
            // Served a moment after it is established.
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
            if is("Established") && ask(client, "GET", &collection(kind), &json!({})).await.is_ok() {
                break;
            }
            assert!(begun.elapsed().as_secs() < 30, "established within half a minute: {conditions:?}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
}

fn named(definition: &Value) -> String {
    format!("{ALL}/{}", definition["metadata"]["name"].as_str().unwrap())
}

/// What a server of today, which has its own CEL, has to say: of what a rule forbids the very sentence of the operator, of types
/// and limits the same fields; how it says those has changed from release to release.
async fn with_rules(client: &Client) {
    for definition in api::definitions() {
        let apply = format!("{}?fieldManager=holdfast&force=true", named(&definition));
        let taken = ask(client, "PATCH", &apply, &definition).await.unwrap();
        assert_eq!(
            taken.to_string().matches("x-kubernetes-validations").count(),
            definition.to_string().matches("x-kubernetes-validations").count(),
            "all rules are taken"
        );
    }
    established(client).await;
    let definitions = operator::check::definitions();
    // The field, and of a rule its sentence; before it stands a value, which is told in another way.
    let essence = |causes: &Causes| -> BTreeSet<(String, Option<&str>)> {
        let causes =
            causes.iter().filter(|(_, message)| !message.contains("some validation rules were not checked"));
        let sentence =
            |message: &str| SENTENCES.iter().map(String::as_str).find(|ours| message.ends_with(ours));
        causes.map(|(field, message)| (field.clone(), sentence(message))).collect()
    };
    let (mut wrong, cases) = (Vec::new(), cases());
    for case in &cases {
        let (by_server, by_operator) = (served(client, case).await, checked(&definitions, case));
        let is_known = OF_TODAY.contains(&case.story.as_str())
            && !essence(&by_server).is_disjoint(&essence(&by_operator));
        if essence(&by_server) != essence(&by_operator) && !is_known {
            wrong.push(format!(
                "{}: the server says\n{}the operator says\n{}",
                case.story,
                told(&by_server),
                told(&by_operator)
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// What `kubectl get` prints.
#[tokio::test]
async fn each_kind_has_its_columns() {
    let client = embedded().await;
    for (kind, expect) in [
        ("Application", "Name Policy Protected Last Consistency Complete Points Next Age"),
        ("Policy", "Name Repository RPO Schedule Apps Suspended Age"),
        ("RecoveryPoint", "Name Application Phase Time Consistency Complete Size Cluster Commit Age"),
        ("Repository", "Name Ready URL Points Size Lock Checked Age"),
        ("Restore", "Name From Phase Created Volumes Progress Age"),
        ("Rule", "Name Hold Pre Post Accepted Age"),
    ] {
        let request = http::Request::get(collection(kind))
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
        let table: Value = client.request(request.body(Vec::new()).unwrap()).await.unwrap();
        let columns = table["columnDefinitions"].as_array().unwrap();
        let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(names.join(" "), expect, "{kind}");
    }
}
