//! What is decided for an application, by tables: what is there, what time it is, what is done and said.

use std::sync::LazyLock;

use apiserver::Definition;

use super::*;
use crate::check::definitions;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Made once: stories are many.
static DEFINITIONS: LazyLock<BTreeMap<String, Definition>> = LazyLock::new(definitions);

fn spec<T: DeserializeOwned>(kind: &str, spec: Value) -> T {
    let mut object =
        json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec});
    DEFINITIONS[kind].complete(&mut object);
    serde_json::from_value(object["spec"].take()).unwrap()
}

/// An application of namespace `shop` with a policy that takes points hourly and wants none older than two hours.
struct Story {
    seen: Seen,
}

fn story() -> Story {
    let own = Own {
        key: Key::new("shop", "shop"),
        uid: "u-1".into(),
        generation: 1,
        spec: Ok(spec("Application", json!({"policy": {"name": "gold"}}))),
        status: serde_json::from_value(json!({})).unwrap(),
        object: Arc::new(json!({})),
    };
    let policy = spec(
        "Policy",
        json!({"repository": {"name": "main"}, "rpo": "2h", "schedules": [{"name": "hourly", "cron": "0 * * * *"}]}),
    );
    let repository = spec(
        "Repository",
        json!({"url": "s3://b/p", "keys": {"read": {"secret": "k"}}, "credentials": {"secret": "s"}}),
    );
    let seen = Seen {
        own,
        policy: Named::There(Key::new("shop", "gold"), policy),
        repository: Named::There(Key::new("shop", "main"), repository),
        points: Vec::new(),
        running: Vec::new(),
    };
    Story { seen }
}

impl Story {
    fn app(mut self, wanted: Value) -> Story {
        self.seen.own.spec = Ok(spec("Application", wanted));
        self
    }

    fn policy(mut self, wanted: Value) -> Story {
        let mut full = json!({"repository": {"name": "main"}});
        full.as_object_mut().unwrap().extend(wanted.as_object().unwrap().clone());
        self.seen.policy = Named::There(Key::new("shop", "gold"), spec("Policy", full));
        self
    }

    fn status(mut self, status: Value) -> Story {
        self.seen.own.status = serde_json::from_value(status).unwrap();
        self
    }

    fn considered(self, time: &str) -> Story {
        self.status(json!({"schedules": [{"name": "hourly", "considered": time}]}))
    }

    fn point(mut self, name: &str, spec: Value, status: Value) -> Story {
        let object = json!({"metadata": {"namespace": "shop", "name": name, "generation": 1,
            "creationTimestamp": format!("2026-05-01T00:00:{:02}Z", self.seen.points.len())}, "spec": spec, "status": status});
        self.seen.points.push(Point::read(Arc::new(object)).unwrap());
        self
    }

    fn ready(self, name: &str, time: &str) -> Story {
        let commit = "ab".repeat(32);
        let status = json!({"phase": "Ready", "application": "shop", "time": time, "commit": commit,
            "consistency": "Filesystem", "complete": true});
        self.point(name, json!({"commit": commit}), status)
    }

    fn plan(&self, now: &str) -> Plan<Step> {
        plan(&self.seen, None, at(now))
    }

    fn asked(&self, now: &str) -> Vec<String> {
        let asked = |step: &Step| match step {
            Step::Ask { name, .. } => Some(name.clone()),
            Step::Wait { .. } => None,
        };
        self.plan(now).steps.iter().filter_map(asked).collect()
    }

    fn said(&self, now: &str, kind: &str) -> (Truth, String) {
        let status: ApplicationStatus = serde_json::from_value(self.plan(now).status).unwrap();
        let said = get(&status.conditions, kind).unwrap();
        (said.status, said.reason.clone())
    }

    fn told(&self, now: &str) -> Vec<&'static str> {
        self.plan(now).events.iter().map(|told| told.reason).collect()
    }
}

#[test]
fn a_point_is_asked_for_when_it_is_due_and_once() {
    let now = "2026-05-01T11:00:05Z";
    let nothing: Vec<String> = Vec::new();
    assert_eq!(story().asked(now), nothing, "seen for the first time: begins with the next");
    let due = story().considered("2026-05-01T10:00:00Z");
    let plan = due.plan(now);
    let run = Run { name: "hourly".into(), at: "2026-05-01T11:00:00Z".into() };
    let name = "shop-hourly-20260501-110000".to_owned();
    assert_eq!(plan.steps, [Step::Ask { name, reason: Reason::Schedule, run: Some(run) }]);
    assert_eq!(
        plan.status["schedules"],
        json!([{"name": "hourly", "considered": "2026-05-01T11:00:00Z", "next": "2026-05-01T12:00:00Z"}])
    );
    assert_eq!(plan.again, Some(at("2026-05-01T12:00:00Z")));
    assert_eq!(story().considered("2026-05-01T11:00:00Z").asked(now), nothing, "it was");
    // Whoever could not ask for it tries again, and says what was in the way.
    let failed = Applications::failed(&due.seen, "POST: denied: quota", at(now)).unwrap();
    assert_eq!(failed.status["schedules"][0]["considered"], json!("2026-05-01T10:00:00Z"));
    assert_eq!(
        failed.status["lastFailure"],
        json!({"time": "2026-05-01T11:00:05Z", "message": "POST: denied: quota"})
    );
    assert!(failed.steps.is_empty());
}

#[test]
fn what_was_missed_is_made_up_for_by_one_point() {
    let due = story().considered("2026-05-01T05:00:00Z");
    assert_eq!(due.asked("2026-05-01T11:20:00Z"), ["shop-hourly-20260501-110000"]);
    assert_eq!(due.told("2026-05-01T11:20:00Z"), ["CaughtUp"]);
    let late = story()
        .policy(json!({"schedules": [{"name": "hourly", "cron": "0 3 * * *", "catchUpWithin": "1h"}]}));
    let late = late.considered("2026-04-30T03:00:00Z");
    assert!(late.asked("2026-05-01T11:20:00Z").is_empty());
    assert_eq!(late.told("2026-05-01T11:20:00Z"), ["RunSkipped"]);
}

#[test]
fn schedules_that_are_due_at_once_are_one_point() {
    let both = json!({"schedules": [{"name": "hourly", "cron": "0 * * * *"}, {"name": "daily", "cron": "0 0 * * *"}]});
    let story = story().policy(both).status(json!({"schedules": [
        {"name": "hourly", "considered": "2026-04-30T23:00:00Z"}, {"name": "daily", "considered": "2026-04-30T00:00:00Z"}]}));
    assert_eq!(story.asked("2026-05-01T00:00:01Z"), ["shop-hourly-20260501-000000"]);
    let plan = story.plan("2026-05-01T00:00:01Z");
    assert!(plan.events.is_empty());
    for schedule in plan.status["schedules"].as_array().unwrap() {
        assert_eq!(schedule["considered"], json!("2026-05-01T00:00:00Z"));
    }
}

#[test]
fn a_run_that_finds_another_under_way_is_dropped_and_told() {
    let now = "2026-05-01T11:00:05Z";
    let with = |phase: Value, more: Value| {
        let mut request = json!({"application": "shop"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        story().considered("2026-05-01T10:00:00Z").point("before", request, json!({"phase": phase}))
    };
    for phase in ["Pending", "Running"] {
        let story = with(json!(phase), json!({}));
        assert!(story.asked(now).is_empty(), "{phase}");
        assert_eq!(story.told(now), ["RunSkipped"], "{phase}");
        assert_eq!(story.plan(now).status["schedules"][0]["considered"], json!("2026-05-01T11:00:00Z"));
    }
    for phase in ["Ready", "Failed", "Cancelled"] {
        assert_eq!(with(json!(phase), json!({})).asked(now).len(), 1, "{phase}");
    }
    // It is the point of this very run, made by somebody who died before that was written down.
    let story = with(
        json!("Pending"),
        json!({"schedule": {"name": "hourly", "at": "2026-05-01T11:00:00Z"}, "reason": "Schedule"}),
    );
    assert!(story.asked(now).is_empty() && story.told(now).is_empty());
    assert_eq!(story.plan(now).status["schedules"][0]["considered"], json!("2026-05-01T11:00:00Z"));
    // Asked for by hand, though one waits: it waits, too.
    let story = with(json!("Pending"), json!({})).app(json!({"policy": {"name": "gold"}, "trigger": "now"}));
    assert_eq!(story.asked(now).len(), 1);
}

#[test]
fn a_new_trigger_takes_a_point_and_the_same_one_does_not() {
    let now = "2026-05-01T10:30:00Z";
    let with = |wanted: &str, heeded: Option<&str>| {
        let status = json!({"schedules": [{"name": "hourly", "considered": "2026-05-01T10:00:00Z"}]});
        let mut story = story().app(json!({"policy": {"name": "gold"}, "trigger": wanted})).status(status);
        story.seen.own.status.trigger = heeded.map(str::to_owned);
        story
    };
    let asked = with("a", None).asked(now);
    assert!(asked.len() == 1 && asked[0].starts_with("shop-trigger-"), "{asked:?}");
    assert_eq!(with("a", None).plan(now).status["trigger"], json!("a"));
    assert!(with("a", Some("a")).asked(now).is_empty());
    assert_eq!(with("b", Some("a")).asked(now).len(), 1);
    // To and fro is three points: the generation tells them apart.
    let mut later = with("a", Some("b"));
    later.seen.own.generation = 7;
    assert_ne!(later.asked(now), asked);
    let failed = Applications::failed(&with("a", None).seen, "no", at(now)).unwrap();
    assert_eq!(failed.status.get("trigger"), None, "not heeded yet");
}

#[test]
fn suspended_nothing_is_asked_for_and_nothing_made_up_for_later() {
    let now = "2026-05-01T11:00:05Z";
    let mut stories = [
        story().app(json!({"policy": {"name": "gold"}, "suspend": true, "trigger": "now"})),
        story().policy(json!({"suspend": true, "schedules": [{"name": "hourly", "cron": "0 * * * *"}]})),
        story(),
    ];
    if let Named::There(_, repository) = &mut stories[2].seen.repository {
        repository.suspend = true;
    }
    for story in stories {
        let story = story.considered("2026-05-01T10:00:00Z");
        assert!(story.asked(now).is_empty());
        assert_eq!(story.plan(now).status["schedules"][0]["considered"], json!("2026-05-01T11:00:00Z"));
        assert_eq!(story.said(now, "Scheduled"), (Truth::False, "Suspended".into()));
    }
}

#[test]
fn what_is_not_accepted_is_not_worked_on_and_says_why() {
    let now = "2026-05-01T11:00:05Z";
    let check = |change: &dyn Fn(&mut Seen), reason: &str| {
        let mut story = story().considered("2026-05-01T10:00:00Z");
        change(&mut story.seen);
        assert!(story.asked(now).is_empty(), "{reason}");
        assert_eq!(story.said(now, "Accepted"), (Truth::False, reason.into()));
        assert_eq!(story.said(now, "Scheduled"), (Truth::False, "NotAccepted".into()));
        // Once it is mended what was missed is caught up.
        assert_eq!(
            story.plan(now).status["schedules"][0]["considered"],
            json!("2026-05-01T10:00:00Z"),
            "{reason}"
        );
    };
    check(&|seen| seen.own.spec = Err("spec: name a policy".into()), "Invalid");
    check(&|seen| seen.policy = Named::Not("RefNotFound", "no such".into()), "RefNotFound");
    check(&|seen| seen.repository = Named::Not("NotAllowed", "not here".into()), "NotAllowed");
}

#[test]
fn an_objective_is_missed_at_its_instant_and_told_once() {
    let protected = |story: &Story, now: &str| story.said(now, "Protected");
    let story = || story().considered("2026-05-01T12:00:00Z");
    assert_eq!(protected(&story(), "2026-05-01T12:00:01Z"), (Truth::False, "NoPointYet".into()));
    let point = story().ready("old", "2026-05-01T08:00:00Z").ready("new", "2026-05-01T10:30:00Z");
    assert_eq!(protected(&point, "2026-05-01T12:29:59Z"), (Truth::True, "WithinObjective".into()));
    let plan = point.plan("2026-05-01T12:10:00Z");
    assert_eq!(plan.again, Some(at("2026-05-01T12:30:00Z")), "before the next run of 13:00");
    assert_eq!(plan.status["lastPoint"]["name"], json!("new"));
    assert_eq!((&plan.status["points"], &plan.status["rpo"]["objective"]), (&json!(2), &json!("2h")));
    assert_eq!(protected(&point, "2026-05-01T12:30:00Z"), (Truth::False, "ObjectiveMissed".into()));
    // Told when it turns, not each time.
    let mut now_missed = story().ready("new", "2026-05-01T10:30:00Z");
    now_missed.seen.own.status = serde_json::from_value(plan.status).unwrap();
    assert_eq!(now_missed.told("2026-05-01T12:30:00Z"), ["RpoMissed"]);
    now_missed.seen.own.status =
        serde_json::from_value(now_missed.plan("2026-05-01T12:30:00Z").status).unwrap();
    assert!(now_missed.told("2026-05-01T12:31:00Z").is_empty());
    let met = now_missed.ready("newer", "2026-05-01T12:40:00Z");
    assert_eq!(met.told("2026-05-01T12:41:00Z"), ["RpoMet"]);
    // Without an objective nobody knows.
    let open = story().policy(json!({})).ready("new", "2026-05-01T10:30:00Z");
    assert_eq!(protected(&open, "2027-01-01T00:00:00Z"), (Truth::Unknown, "NoObjective".into()));
}

#[test]
fn the_newest_point_says_how_complete_and_consistent_the_application_is() {
    let now = "2026-05-01T11:00:00Z";
    let check = |complete: Value, consistency: Value, at_least: &str, expect: (&str, &str)| {
        let mut status = json!({"phase": "Ready", "application": "shop", "time": "2026-05-01T10:30:00Z"});
        if !complete.is_null() {
            status["complete"] = complete.clone();
        }
        if !consistency.is_null() {
            status["consistency"] = consistency.clone();
        }
        let story = story().policy(json!({"atLeast": at_least})).point(
            "p",
            json!({"commit": "ab".repeat(32)}),
            status,
        );
        let got = (story.said(now, "Complete").1, story.said(now, "Consistent").1);
        assert_eq!((got.0.as_str(), got.1.as_str()), expect, "{complete} {consistency} {at_least}");
    };
    check(json!(true), json!("Crash"), "Fuzzy", ("Complete", "Consistent"));
    check(json!(false), json!("Crash"), "Crash", ("Missing", "Consistent"));
    check(json!(true), json!("Fuzzy"), "Crash", ("Complete", "WeakerThanAsked"));
    check(json!(true), json!("Application"), "Filesystem", ("Complete", "Consistent"));
    check(json!(true), Value::Null, "Application", ("Complete", "Consistent"));
}

#[test]
fn who_waits_says_for_whom_and_says_it_once() {
    let now = "2026-05-01T10:30:00Z";
    let messages = |story: &Story| -> Vec<(String, String)> {
        let wait = |step: &Step| match step {
            Step::Wait { point, status } => {
                assert_eq!(status["phase"], json!("Pending"));
                let message = status["conditions"][0]["message"].as_str().unwrap().to_owned();
                Some((point["metadata"]["name"].as_str().unwrap().to_owned(), message))
            }
            Step::Ask { .. } => None,
        };
        story.plan(now).steps.iter().filter_map(wait).collect()
    };
    let request = || json!({"application": "shop"});
    let mut story = story().considered("2026-05-01T10:00:00Z").point("first", request(), json!({})).point(
        "second",
        request(),
        json!({}),
    );
    let said = messages(&story);
    assert_eq!(said[0].0, "first");
    assert!(said[0].1.contains("holdfast backup"), "{}", said[0].1);
    assert_eq!(
        said[1],
        ("second".into(), "waits for recoverypoint shop/first, which has application shop/shop".into())
    );
    // Said already: nothing is written.
    let plan = story.plan(now);
    for step in plan.steps {
        let Step::Wait { point, status } = step else { continue };
        let at = story.seen.points.iter().position(|p| Arc::ptr_eq(&p.object, &point)).unwrap();
        let mut object = (*point).clone();
        object["status"] = status;
        story.seen.points[at] = Point::read(Arc::new(object)).unwrap();
    }
    assert!(messages(&story).is_empty());
    // One runs: both wait for it.
    story.seen.running = vec![Running::point("recoverypoint shop/zero", "shop/shop")];
    assert!(
        messages(&story)
            .iter()
            .all(|(_, said)| said == "waits for recoverypoint shop/zero, which has application shop/shop")
    );
    // As many run as may.
    story.seen.running =
        (0..16).map(|n| Running::point(&format!("recoverypoint other/{n}"), &format!("other/{n}"))).collect();
    assert!(messages(&story)[0].1.contains("fewer than 16"));
}

#[test]
fn the_last_failure_is_told_until_a_newer_one() {
    let now = "2026-05-01T10:30:00Z";
    let failed = |finished: &str| {
        json!({"phase": "Failed", "finishedAt": finished, "conditions": [{
        "type": "Ready", "status": "False", "reason": "Failed", "message": "the store is full", "lastTransitionTime": finished}]})
    };
    let request = json!({"application": "shop"});
    let one = story().point("one", request.clone(), failed("2026-05-01T09:00:00Z"));
    assert_eq!(
        one.plan(now).status["lastFailure"],
        json!({"time": "2026-05-01T09:00:00Z", "message": "one: the store is full"})
    );
    // The same failure of ours again is not told anew.
    let ours = json!({"lastFailure": {"time": "2026-05-01T10:00:00Z", "message": "denied"}});
    let again = Applications::failed(&story().status(ours.clone()).seen, "denied", at(now)).unwrap();
    assert_eq!(again.status["lastFailure"], ours["lastFailure"]);
    // The object of the point is gone; what it said stays.
    let gone = story().status(
        json!({"lastFailure": {"time": "2026-05-01T09:00:00Z", "message": "one: the store is full"}}),
    );
    assert_eq!(gone.plan(now).status["lastFailure"]["message"], json!("one: the store is full"));
    let older = gone.point("zero", request, failed("2026-05-01T08:00:00Z"));
    assert_eq!(older.plan(now).status["lastFailure"]["message"], json!("one: the store is full"));
}

#[test]
fn a_name_is_the_same_for_the_same_run_and_never_too_long() {
    let long = "a".repeat(250);
    for (application, expect) in [("shop", "shop-hourly-20260501-110000"), (long.as_str(), "")] {
        let name = point_name(application, "hourly", at("2026-05-01T11:00:00Z"));
        assert!(expect.is_empty() || name == expect);
        assert!(name.len() <= 253 && name == point_name(application, "hourly", at("2026-05-01T11:00:00Z")));
    }
    assert_ne!(short(&format!("{long}b")), short(&format!("{long}c")));
}

/// A year of an application whose operator dies at any moment, is followed by another, and whose clock is set: each run is asked for
/// once, under its own name, or told as missed.
#[test]
fn over_a_year_of_deaths_no_run_is_asked_for_under_two_names() {
    let mut status = json!({"schedules": [{"name": "hourly", "considered": "2026-01-01T00:00:00Z"}]});
    let (mut now, mut dice) = (at("2026-01-01T00:00:00Z"), 3u64);
    let mut asked = std::collections::BTreeSet::new();
    let mut twice = 0;
    while now < at("2026-03-01T00:00:00Z") {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let minutes = match dice >> 60 {
            0 => 60 * 7,
            1 => -20,
            n => n as i64 * 5,
        };
        now = now.checked_add(SignedDuration::from_mins(minutes)).unwrap();
        let story = story().status(status.clone());
        let plan = plan(&story.seen, None, now);
        for step in &plan.steps {
            if let Step::Ask { name, run: Some(run), .. } = step {
                assert!(name.ends_with(&at(&run.at).strftime("%Y%m%d-%H%M%S").to_string()));
                twice += u32::from(!asked.insert(name.clone()));
            }
        }
        // It dies before it can report: the next one asks again, under the same name.
        if (dice >> 50) % 4 != 0 {
            status = plan.status;
        }
    }
    assert!(asked.len() > 700 && twice > 50, "{} {twice}", asked.len());
}
