//! What is made, changed and removed for labels, by a table.

use super::*;

struct Story {
    seen: Seen,
}

/// Namespace `shop`, perhaps with the label.
fn story(label: Option<&str>) -> Story {
    let mut namespace =
        json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}}});
    if let Some(label) = label {
        namespace["metadata"]["labels"][POLICY] = json!(label);
    }
    let here = |name: &str| (name.to_owned(), Ref { name: name.into(), namespace: None });
    let there = ("gold".to_owned(), Ref { name: "gold".into(), namespace: Some("holdfast-system".into()) });
    let policies = BTreeMap::from([there, here("silver")]);
    Story {
        seen: Seen {
            namespace: Arc::new(namespace),
            workloads: Vec::new(),
            policies,
            applications: Vec::new(),
            belongs: BTreeMap::new(),
        },
    }
}

impl Story {
    fn workload(mut self, name: &str, policy: &str, belongs: Option<Result<&str, &str>>) -> Story {
        let workload = Workload {
            kind: "Deployment",
            version: "apps/v1",
            name: name.into(),
            uid: format!("uid-{name}"),
            policy: policy.into(),
        };
        if let Some(belongs) = belongs {
            let belongs = belongs.map(str::to_owned).map_err(str::to_owned);
            self.seen.belongs.insert(workload.full(), belongs);
        }
        self.seen.workloads.push(workload);
        self
    }

    fn there(mut self, object: Value) -> Story {
        self.seen.applications.push(Arc::new(object));
        self
    }

    fn check(&self, expect: &[&str], events: &[&str]) -> Vec<Step> {
        let plan = plan(&self.seen, Timestamp::UNIX_EPOCH);
        let word = |step: &Step| match step {
            Step::Make(object) => format!(
                "make {} {} {}",
                Key::of(object).name,
                object["spec"]["policy"]["name"].as_str().unwrap(),
                object["spec"]["selection"]
            ),
            Step::Change { object, patch } => format!("change {} {}", Key::of(object).name, patch["spec"]),
            Step::Remove(object) => format!("remove {}", Key::of(object).name),
        };
        assert_eq!(plan.steps.iter().map(word).collect::<Vec<_>>(), expect);
        assert_eq!(plan.events.iter().map(|told| told.reason).collect::<Vec<_>>(), events);
        plan.steps
    }
}

fn made(step: &Step) -> Value {
    match step {
        Step::Make(object) => object.clone(),
        _ => Value::Null,
    }
}

#[test]
fn a_label_on_a_namespace_protects_all_of_it() {
    story(None).check(&[], &[]);
    let steps = story(Some("gold")).check(&["make shop gold {\"whole\":true}"], &[]);
    let application = made(&steps[0]);
    assert_eq!(application["spec"]["policy"]["namespace"], json!("holdfast-system"));
    assert_eq!(application["metadata"]["labels"][MADE_BY], json!("label"));
    // It is there: nothing to do. The label goes: so does it.
    story(Some("gold")).there(application.clone()).check(&[], &[]);
    story(None).there(application.clone()).check(&["remove shop"], &[]);
    story(Some("none")).there(application.clone()).check(&["remove shop"], &[]);
    // Another policy.
    story(Some("silver")).there(application.clone()).check(
        &["change shop {\"policy\":{\"name\":\"silver\",\"namespace\":null},\"selection\":{\"whole\":true}}"],
        &[],
    );
    // What was made by hand is let alone, whatever it is called.
    let mut by_hand = application.clone();
    by_hand["metadata"]["labels"] = json!({});
    story(Some("gold")).there(by_hand.clone()).check(&[], &["Invalid"]);
    story(None).there(by_hand).check(&[], &[]);
    // What somebody wrote into it besides stays.
    let mut theirs = application;
    theirs["spec"]["trigger"] = json!("now");
    theirs["spec"]["selection"]["labels"] = Value::Null;
    story(Some("gold")).there(theirs).check(&[], &[]);
}

#[test]
fn none_takes_a_workload_out_of_its_namespaces() {
    let with = story(Some("gold")).workload("cache", "none", None);
    let steps = with.check(&["make shop gold {\"whole\":true,\"excludeNames\":[\"Deployment/cache\"]}"], &[]);
    // And in again.
    story(Some("gold")).there(made(&steps[0])).check(
        &["change shop {\"policy\":{\"name\":\"gold\",\"namespace\":\"holdfast-system\"},\"selection\":{\"whole\":true,\"excludeNames\":null}}"], &[]);
    story(None).workload("cache", "none", None).check(&[], &[]);
}

#[test]
fn workloads_of_one_application_make_one() {
    let two =
        || story(None).workload("db", "gold", Some(Ok("Shop"))).workload("web", "gold", Some(Ok("Shop")));
    let steps = two().check(&["make shop gold {\"application\":\"Shop\"}"], &[]);
    let application = made(&steps[0]);
    assert_eq!(application["metadata"]["annotations"][MADE_FOR], json!("Deployment/db,Deployment/web"));
    assert_eq!(application["metadata"]["ownerReferences"].as_array().unwrap().len(), 2);
    two().there(application.clone()).check(&[], &[]);
    // One of them loses its label.
    let one = story(None).workload("db", "gold", Some(Ok("Shop"))).there(application.clone());
    let steps = one.check(&["change shop {\"policy\":{\"name\":\"gold\",\"namespace\":\"holdfast-system\"},\"selection\":{\"application\":\"Shop\"}}"], &[]);
    let Step::Change { patch, .. } = &steps[0] else { unreachable!() };
    assert_eq!(patch["metadata"]["annotations"][MADE_FOR], json!("Deployment/db"));
    // Two policies for one application: the first counts, and it is told.
    story(None)
        .workload("db", "gold", Some(Ok("Shop")))
        .workload("web", "silver", Some(Ok("Shop")))
        .check(&["make shop gold {\"application\":\"Shop\"}"], &["Invalid"]);
    story(Some("silver"))
        .workload("web", "gold", Some(Ok("web")))
        .check(&["make shop silver {\"whole\":true}", "make web gold {\"application\":\"web\"}"], &[]);
}

#[test]
fn as_long_as_nobody_knows_what_a_workload_belongs_to_nothing_is_removed() {
    let application = made(
        &story(None)
            .workload("db", "gold", Some(Ok("shop")))
            .check(&["make shop gold {\"application\":\"shop\"}"], &[])[0],
    );
    let unknown = story(None).workload("db", "gold", Some(Err("denied"))).there(application);
    unknown.check(&[], &["Denied"]);
    assert!(plan(&unknown.seen, Timestamp::UNIX_EPOCH).again.is_some());
}

#[test]
fn in_a_namespace_that_goes_nothing_is_made() {
    let mut going = story(Some("gold"));
    let mut namespace = (*going.seen.namespace).clone();
    namespace["metadata"]["deletionTimestamp"] = json!("2026-05-01T00:00:00Z");
    going.seen.namespace = Arc::new(namespace);
    going.check(&[], &[]);
}
