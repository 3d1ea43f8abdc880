//! Which points get an object, where it lies and what it says, by tables; and what conditions say of a repository.

use std::sync::LazyLock;

use apiserver::Definition;

use super::*;
use crate::check::definitions;

/// Made once: they take a moment.
static DEFINITIONS: LazyLock<BTreeMap<String, Definition>> = LazyLock::new(definitions);

const CLUSTER_ID: &str = "11111111-2222-3333-4444-555555555555";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOW: &str = "2026-05-01T12:00:00Z";

fn spec(more: Value) -> RepositorySpec {
    let mut spec =
        json!({"url": "s3://b/p", "keys": {"read": {"secret": "k"}}, "credentials": {"secret": "s"}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut object = json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "x"}, "spec": spec});
    DEFINITIONS["Repository"].complete(&mut object);
    serde_json::from_value(object["spec"].take()).unwrap()
}

fn commit(number: u8, application: &str, time: &str, labels: &[(&str, &str)]) -> CommitInfo {
    let nanoseconds = i64::try_from(at(time).as_nanosecond()).unwrap();
    let own = [
        ("application", application),
        ("cluster", CLUSTER_ID),
        ("namespaces", "shop"),
        ("complete", "true"),
        ("consistency", "filesystem"),
    ];
    let labels =
        own.iter().chain(labels).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let figures = BTreeMap::from([
        ("objects".to_owned(), 7),
        ("bytes".to_owned(), 1000),
        ("volumes_missing".to_owned(), 1),
    ]);
    let summary = Summary {
        time: nanoseconds,
        started: nanoseconds,
        kind: "application".into(),
        labels,
        figures,
        ..Summary::default()
    };
    let mut id = repo::CommitId::ZERO;
    id.0.fill(number);
    CommitInfo { id, summary }
}

fn seen(more: Value, commits: Vec<CommitInfo>) -> Seen {
    let ids = commits.iter().map(|commit| commit.id.to_string()).collect();
    let facts = Facts {
        id: "r".into(),
        can: vec![Capability::Read],
        lock: None,
        commits,
        ids,
        damaged: Vec::new(),
        note: None,
    };
    let own = Own {
        key: Key::new("platform", "main"),
        uid: "u".into(),
        generation: 1,
        spec: Ok(spec(more)),
        status: serde_json::from_value(json!({})).unwrap(),
        object: Arc::new(json!({"spec": {"url": "s3://b/p"}})),
    };
    let place = |made: &str, is_allowed| Place { made: Some(at(made)), adopts: false, is_allowed };
    let namespaces = BTreeMap::from([
        ("shop".to_owned(), place("2026-01-01T00:00:00Z", true)),
        ("bank".to_owned(), place("2026-01-01T00:00:00Z", false)),
        ("new".to_owned(), place("2026-05-01T09:30:00Z", true)),
    ]);
    Seen {
        own,
        forbidden: Vec::new(),
        unknown: None,
        found: Some(Ok(facts)),
        objects: Vec::new(),
        cluster: CLUSTER_ID.into(),
        namespaces,
    }
}

/// The objects that are made, as the server would have them.
fn made(seen: &Seen) -> Vec<Arc<Value>> {
    let made = |step: Step| match step {
        Step::Make { mut object, status } => {
            object["status"] = status;
            object["metadata"]["generation"] = json!(1);
            Some(Arc::new(object))
        }
        _ => None,
    };
    plan(seen, at(NOW)).steps.into_iter().filter_map(made).collect()
}

fn keys(objects: &[Arc<Value>]) -> Vec<String> {
    objects.iter().map(|object| Key::of(object).to_string()).collect()
}

#[test]
fn a_point_lies_in_its_namespace_only_if_that_is_certainly_the_same() {
    let check = |story: &str, labels: &[(&str, &str)], time: &str, expect: &str| {
        let seen = seen(json!({}), vec![commit(1, "shop", time, labels)]);
        assert_eq!(Key::of(&made(&seen)[0]).namespace, expect, "{story}");
    };
    let ten = "2026-05-01T10:00:00Z";
    check("of this cluster and its namespace", &[], ten, "shop");
    check(
        "of another cluster, though the namespace has the same name",
        &[("cluster", "other")],
        ten,
        "platform",
    );
    check("of no cluster that is known", &[("cluster", "")], ten, "platform");
    check("of two namespaces", &[("namespaces", "shop,bank")], ten, "platform");
    check("of a namespace that may not use the repository", &[("namespaces", "bank")], ten, "platform");
    check("of a namespace that is gone", &[("namespaces", "old")], ten, "platform");
    check("the namespace was made anew since", &[("namespaces", "new")], "2026-05-01T09:00:00Z", "platform");
    check("made so shortly before that clocks may differ by more", &[("namespaces", "new")], ten, "platform");
    check("made long enough before", &[("namespaces", "new")], "2026-05-01T10:30:00Z", "new");
    let mut adopted = seen(json!({}), vec![commit(1, "x", ten, &[("namespaces", "new")])]);
    adopted.namespaces.get_mut("new").unwrap().adopts = true;
    assert_eq!(Key::of(&made(&adopted)[0]).namespace, "new", "whoever may change the namespace said so");
    adopted.namespaces.get_mut("new").unwrap().is_allowed = false;
    assert_eq!(Key::of(&made(&adopted)[0]).namespace, "platform");
}

#[test]
fn an_object_says_what_its_point_is_and_is_made_once() {
    let mut seen = seen(json!({}), vec![commit(0xab, "My Shop", "2026-05-01T10:00:00Z", &[])]);
    let made = made(&seen);
    assert_eq!(keys(&made), ["shop/my-shop-20260501-100000-abababab"]);
    let object = &made[0];
    assert_eq!(object["metadata"]["labels"][CLUSTER], json!(CLUSTER_ID));
    assert_eq!(
        object["spec"],
        json!({"commit": "ab".repeat(32), "repository": {"name": "main", "namespace": "platform"}, "reason": "Discovered"})
    );
    let status = &object["status"];
    assert_eq!(
        (&status["phase"], &status["time"], &status["consistency"], &status["complete"]),
        (&json!("Ready"), &json!("2026-05-01T10:00:00Z"), &json!("Filesystem"), &json!(true))
    );
    assert_eq!((&status["figures"]["bytes"], &status["figures"]["missing"]), (&json!(1000), &json!(1)));
    // There: nothing to do. Its status was not written: that is done.
    seen.objects = made.clone();
    assert!(plan(&seen, at(NOW)).steps.is_empty());
    let mut bare = (*made[0]).clone();
    bare["status"] = Value::Null;
    seen.objects = vec![Arc::new(bare)];
    assert!(
        matches!(&plan(&seen, at(NOW)).steps[..], [Step::Describe { status, .. }] if status["phase"] == json!("Ready"))
    );
    // Somebody else's object of that name is let alone.
    let mut foreign = (*made[0]).clone();
    foreign["spec"]["reason"] = json!("Manual");
    seen.objects = vec![Arc::new(foreign)];
    assert!(plan(&seen, at(NOW)).steps.is_empty());
}

#[test]
fn of_each_series_the_newest_and_always_the_last_good_one() {
    let day = |n: u8| format!("2026-04-{n:02}T10:00:00Z");
    let mut commits: Vec<CommitInfo> = (1..=9).map(|n| commit(n, "shop", &day(n), &[])).collect();
    // Of the bank's, only the oldest lacks nothing.
    commits.push(commit(20, "bank", &day(1), &[]));
    commits.extend((2..=5).map(|n| commit(20 + n, "bank", &day(n), &[("complete", "false")])));
    commits.push(CommitInfo {
        summary: Summary { kind: "piece".into(), ..Summary::default() },
        ..commit(99, "shop", &day(9), &[])
    });
    let offered = |mode: &str, most: u32| -> Vec<u8> {
        let seen = seen(json!({"discovery": {"mode": mode, "perApplication": most}}), commits.clone());
        let Some(Ok(facts)) = &seen.found else { unreachable!() };
        let mut ids: Vec<u8> =
            offered(seen.own.spec.as_ref().unwrap(), facts).iter().map(|commit| commit.id.0[0]).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(offered("Newest", 2), [8, 9, 20, 24, 25]);
    assert_eq!(offered("Newest", 5), [5, 6, 7, 8, 9, 20, 22, 23, 24, 25]);
    assert_eq!(offered("All", 1).len(), 14);
    assert!(offered("None", 5).is_empty());
}

#[test]
fn an_object_goes_with_its_commit_and_a_point_never_with_its_object() {
    let ten = "2026-05-01T10:00:00Z";
    let all = vec![commit(1, "shop", "2026-04-01T10:00:00Z", &[]), commit(2, "shop", ten, &[])];
    let objects = made(&seen(json!({}), all.clone()));
    let removed = |more: Value,
                   commits: Vec<CommitInfo>,
                   change: &dyn Fn(&mut Value)|
     -> (Vec<String>, Vec<&'static str>) {
        let mut seen = seen(more, commits);
        seen.objects = objects
            .iter()
            .map(|object| {
                let mut object = (**object).clone();
                change(&mut object);
                Arc::new(object)
            })
            .collect();
        let plan = plan(&seen, at(NOW));
        let removed = plan.steps.iter().filter_map(|step| match step {
            Step::Remove { object } => Some(Key::of(object).name),
            _ => None,
        });
        (
            removed.collect(),
            plan.events.iter().map(|told| told.reason).filter(|reason| *reason == "PointGone").collect(),
        )
    };
    let old = "shop-20260401-100000-01010101".to_owned();
    assert_eq!(removed(json!({}), all.clone(), &|_| ()), (vec![], vec![]));
    assert_eq!(removed(json!({}), vec![all[1].clone()], &|_| ()), (vec![old.clone()], vec!["PointGone"]));
    // Beyond what is offered: the object goes, nobody is alarmed.
    let one = json!({"discovery": {"perApplication": 1}});
    assert_eq!(removed(one.clone(), all.clone(), &|_| ()), (vec![old], vec![]));
    // Unless somebody has asked something of it since.
    let held = |object: &mut Value| object["spec"]["hold"] = json!({"reason": "audit"});
    assert_eq!(removed(one.clone(), all.clone(), &held), (vec![], vec![]));
    // What was not made by discovery is not removed by it.
    let by_hand = |object: &mut Value| object["spec"]["reason"] = json!("Manual");
    assert_eq!(removed(one, vec![all[1].clone()], &by_hand), (vec![], vec![]));
    // A store that does not answer says nothing about points.
    let mut away = seen(json!({}), Vec::new());
    away.objects = objects.clone();
    away.found = Some(Err(Closed { reason: "Unreachable", message: "away".into() }));
    assert!(plan(&away, at(NOW)).steps.is_empty());
    // Nor does a commit that cannot be read.
    let mut damaged = seen(json!({}), all);
    damaged.objects = objects;
    if let Some(Ok(facts)) = &mut damaged.found {
        facts.commits.remove(0);
    }
    assert!(
        plan(&damaged, at(NOW))
            .steps
            .iter()
            .all(|step| !matches!(step, Step::Remove { object } if commit_of(object).starts_with("02")))
    );
}

#[test]
fn conditions_say_what_is_wrong_and_again_is_looked() {
    let check = |change: &dyn Fn(&mut Seen), expect: [&str; 3], minutes: Option<i64>| {
        let mut seen = seen(json!({"discovery": {"interval": "10m"}}), Vec::new());
        change(&mut seen);
        let plan = plan(&seen, at(NOW));
        let status: RepositoryStatus = serde_json::from_value(plan.status).unwrap();
        let reason = |kind: &str| get(&status.conditions, kind).map(|c| c.reason.clone()).unwrap_or_default();
        assert_eq!(["Accepted", "Authorized", "Ready"].map(reason), expect);
        assert_eq!(plan.again.map(|again| again.duration_since(at(NOW)).as_mins()), minutes, "{expect:?}");
    };
    check(&|_| (), ["Valid", "Allowed", "Open"], Some(10));
    check(&|seen| seen.own.spec = Err("spec.url: …".into()), ["Invalid", "Allowed", "NotAccepted"], None);
    let closed = |reason: &'static str| {
        move |seen: &mut Seen| seen.found = Some(Err(Closed { reason, message: "m".into() }))
    };
    for reason in ["Unreachable", "KeyRefused", "CredentialsRefused", "NewerFormat", "NotFound"] {
        check(&closed(reason), ["Valid", "Allowed", reason], Some(1));
    }
    check(&closed("Denied"), ["Valid", "Denied", "NotAuthorized"], Some(1));
    let not_tried = |seen: &mut Seen| seen.found = None;
    check(
        &|seen| {
            not_tried(seen);
            seen.unknown = Some("set spec.serviceAccountName".into())
        },
        ["Valid", "RequesterUnknown", "NotAuthorized"],
        Some(1),
    );
    check(
        &|seen| {
            not_tried(seen);
            seen.forbidden = vec!["a path".into()]
        },
        ["NotAllowed", "", "NotAccepted"],
        None,
    );
    check(
        &|seen| {
            not_tried(seen);
            seen.own.spec.as_mut().unwrap().suspend = true
        },
        ["Valid", "", "Suspended"],
        None,
    );
}

#[test]
fn a_repository_that_turns_is_told_once() {
    let told = |seen: &Seen| plan(seen, at(NOW)).events.iter().map(|told| told.reason).collect::<Vec<_>>();
    let mut open = seen(json!({}), Vec::new());
    assert_eq!(told(&open), ["RepositoryReady"]);
    open.own.status = serde_json::from_value(plan(&open, at(NOW)).status).unwrap();
    assert!(told(&open).is_empty());
    open.found = Some(Err(Closed { reason: "Unreachable", message: "away".into() }));
    assert_eq!(told(&open), ["RepositoryUnreachable"]);
    open.own.status = serde_json::from_value(plan(&open, at(NOW)).status).unwrap();
    assert!(told(&open).is_empty());
}
