//! Restore: elsewhere, again, over what is there, and in parts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use app::api::Cluster;
use app::object::Object;
use app::point::Point;
use app::restore::{
    Action, Consent, Deadlines, Executor, NotApproved, OnConflict, Only, PlanCounts, Report, RestoreOptions,
    RestorePlan, plan,
};
use app::transform::{Mapping, Transform};
use serde_json::{Value, json};

use crate::site::*;

fn to(namespaces: &[&str]) -> Transform {
    let mut mapping = Mapping::default();
    for pair in namespaces {
        mapping.add_namespace(pair).unwrap();
    }
    mapping.check().unwrap()
}

fn options(transform: Transform, on_conflict: OnConflict) -> RestoreOptions {
    RestoreOptions { transform, on_conflict, ..RestoreOptions::default() }
}

async fn planned(point: &Point, cluster: &Cluster, options: &RestoreOptions) -> RestorePlan {
    plan(point, cluster, options).await.unwrap()
}

async fn restore(point: &Point, cluster: &Cluster, options: &RestoreOptions) -> Report {
    let plan = planned(point, cluster, options).await;
    let approved = plan.approve(&Consent { replace: true, overwrite_data: true }).unwrap();
    approved.execute(&Executor::new(cluster.clone(), env())).await
}

fn actions(plan: &RestorePlan, action: Action) -> Vec<String> {
    plan.steps().filter(|step| step.action == action).map(|step| step.key.to_string()).collect()
}

fn said(object: &Option<Object>, pointer: &str) -> Value {
    object.as_ref().and_then(|object| object.at(pointer)).cloned().unwrap_or(Value::Null)
}

#[tokio::test]
async fn an_application_comes_back_beside_itself_under_another_name() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let point = shop_point(&server).await;
    let before = versions(&server);
    let options = options(to(&["shop=shop-test"]), OnConflict::Skip);
    let report = restore(&point, &cluster, &options).await;
    assert_eq!(report.failed, 0, "{:#?}", report.findings);
    let after = versions(&server);
    assert!(before.iter().all(|object| after.contains(object)), "the original is untouched");

    // Everything that says where it lives says the new place.
    let of = async |group: &str, kind: &str, name: &str| get(&cluster, group, kind, "shop-test", name).await;
    let settings = of("", "ConfigMap", "settings").await;
    assert_eq!(said(&settings, "/data/db.url"), "postgres://db.shop-test.svc.cluster.local:5432/shop");
    assert_eq!(said(&settings, "/data/short"), "db.shop");
    assert!(report.findings.iter().any(|f| f.what.contains("settings") && f.message.contains("db.shop")));
    let web = of("apps", "Deployment", "web").await;
    assert_eq!(said(&web, "/spec/template/spec/initContainers/0/args/0"), "--namespace=shop-test");
    assert_eq!(said(&web, "/spec/template/spec/containers/0/env/1/value"), "db.shop-test.svc:5432");
    assert_eq!(
        said(&of("rbac.authorization.k8s.io", "RoleBinding", "reader").await, "/subjects/0/namespace"),
        "shop-test"
    );
    let binding =
        get(&cluster, "rbac.authorization.k8s.io", "ClusterRoleBinding", "", "shop-nodes-shop-test").await;
    assert_eq!(said(&binding, "/subjects/0/namespace"), "shop-test");
    let hook = get(
        &cluster,
        "admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration",
        "",
        "shop-check-shop-test",
    )
    .await;
    assert_eq!(said(&hook, "/webhooks/0/clientConfig/service/namespace"), "shop-test");
    let disk = get(&cluster, "", "PersistentVolume", "", "db-disk-shop-test").await;
    assert_eq!(said(&disk, "/spec/hostPath/path"), "/var/data/db-shop-test");
    assert_eq!(said(&disk, "/spec/claimRef/namespace"), "shop-test");
    assert_eq!(
        said(&of("", "PersistentVolumeClaim", "data-db-0").await, "/spec/volumeName"),
        "db-disk-shop-test"
    );
    assert_eq!(said(&of("msg.example.com", "Queue", "orders").await, "/spec/size"), 3);
    assert_eq!(said(&of("", "Service", "db").await, "/spec/clusterIP"), "None");
    let web = of("", "Service", "web").await;
    let original = get(&cluster, "", "Service", "shop", "web").await;
    assert_ne!(said(&web, "/spec/clusterIP"), said(&original, "/spec/clusterIP"));

    // And once more: nothing to do, nothing written.
    let before = versions(&server);
    let cluster = connect(&server).await;
    let again = planned(&point, &cluster, &options).await;
    assert!(
        !again.changes_anything(),
        "{:#?}",
        again.steps().filter(|s| s.action != Action::Unchanged).collect::<Vec<_>>()
    );
    assert_eq!(again.counts().unchanged, again.steps().count());
    let report = again.approve(&Consent::default()).unwrap().execute(&Executor::new(cluster, env())).await;
    assert_eq!((report.created, report.updated, report.failed), (0, 0, 0));
    assert_eq!(versions(&server), before);
}

#[tokio::test]
async fn an_application_comes_back_on_an_empty_cluster_in_the_right_order() {
    let point = shop_point(&shop(1).await).await;
    let target = server(2);
    let cluster = connect(&target).await;
    let plan = planned(&point, &cluster, &options(Transform::default(), OnConflict::Fail)).await;
    let stages: Vec<&str> = plan.waves.iter().map(|wave| wave.stage.as_str()).collect();
    let at = |stage: &str| {
        stages.iter().position(|s| *s == stage).unwrap_or_else(|| panic!("{stage} in {stages:?}"))
    };
    assert!(at("namespace") < at("definition") && at("definition") < at("custom"));
    assert!(
        at("config") < at("workload") && at("claim") < at("workload") && at("workload") < at("autoscale")
    );
    assert_eq!(stages.last(), Some(&"webhook"));
    assert_eq!(plan.counts().create, plan.steps().count());
    let wanted = plan.steps().count();
    let report = plan.approve(&Consent::default()).unwrap().execute(&Executor::new(cluster, env())).await;
    assert_eq!((report.created, report.failed), (wanted, 0), "{:#?}", report.findings);
    assert!(report.is_complete(), "{:#?}", report.findings);
    assert!(
        get(&connect(&target).await, "", "ConfigMap", "ops", "shared").await.is_some(),
        "shared, and absent there"
    );
}

#[tokio::test]
async fn what_exists_and_differs_is_treated_as_the_policy_says() {
    let cases = [
        (OnConflict::Skip, PlanCounts { skip: 1, ..PlanCounts::default() }, "blue"),
        (OnConflict::Update, PlanCounts { update: 1, ..PlanCounts::default() }, "yes"),
        (OnConflict::Replace, PlanCounts { replace: 1, ..PlanCounts::default() }, "yes"),
    ];
    for (policy, want, mode) in cases {
        let server = shop(1).await;
        let cluster = connect(&server).await;
        let point = shop_point(&server).await;
        let old = get(&cluster, "", "ConfigMap", "shop", "settings").await.unwrap();
        patch(&cluster, "", "ConfigMap", "shop", "settings", json!({"data": {"mode": "blue", "mine": "x"}}))
            .await;
        let options = options(Transform::default(), policy);
        let plan = planned(&point, &cluster, &options).await;
        let counts = plan.counts();
        assert_eq!(PlanCounts { unchanged: 0, ..counts }, want, "{policy:?}");
        let step = plan.steps().find(|step| step.key.name == "settings").unwrap();
        assert!(
            step.changes.iter().any(|c| c.to_string() == "~ /data/mode: \"blue\" -> \"yes\""),
            "{:?}",
            step.changes
        );
        let report = restore(&point, &cluster, &options).await;
        assert_eq!(report.failed, 0);
        let now = get(&cluster, "", "ConfigMap", "shop", "settings").await.unwrap();
        assert_eq!(now.str("/data/mode"), mode, "{policy:?}");
        // An update keeps what the point knows nothing of, a replacement does not.
        assert_eq!(now.at("/data/mine").is_some(), policy != OnConflict::Replace, "{policy:?}");
        assert_eq!(now.uid() == old.uid(), policy != OnConflict::Replace, "{policy:?}");
        if policy != OnConflict::Skip {
            let again = planned(&point, &cluster, &options).await;
            assert!(!again.changes_anything(), "{policy:?}: {:?}", actions(&again, Action::Update));
        }
    }
}

#[tokio::test]
async fn the_policy_fail_restores_nothing_if_one_thing_differs() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let point = shop_point(&server).await;
    patch(&cluster, "", "ConfigMap", "shop", "settings", json!({"data": {"mode": "blue"}})).await;
    let resource = cluster.resources.find("", "Secret").unwrap().clone();
    cluster.delete(&resource, "shop", "db", app::api::Propagation::Background, None).await.unwrap();
    let plan = planned(&point, &cluster, &options(Transform::default(), OnConflict::Fail)).await;
    assert_eq!(actions(&plan, Action::Create), ["Secret shop/db"]);
    let refused = plan.approve(&Consent { replace: true, overwrite_data: true }).unwrap_err();
    assert!(matches!(&refused, NotApproved::Conflicts(keys) if keys.len() == 1), "{refused}");
    assert!(refused.to_string().contains("ConfigMap shop/settings"), "{refused}");
    assert!(get(&cluster, "", "Secret", "shop", "db").await.is_none());
}

#[tokio::test]
async fn nothing_is_deleted_without_consent_and_shared_things_are_never_touched() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let point = shop_point(&server).await;
    patch(&cluster, "", "ConfigMap", "shop", "settings", json!({"data": {"mode": "blue"}})).await;
    patch(&cluster, "", "ConfigMap", "ops", "shared", json!({"data": {"a": "theirs"}})).await;
    patch(
        &cluster,
        "rbac.authorization.k8s.io",
        "ClusterRole",
        "",
        "shop-nodes",
        label_patch(json!({"x": "y"})),
    )
    .await;
    patch(&cluster, "", "Namespace", "", "shop", label_patch(json!({"team": "other"}))).await;
    let plan = planned(&point, &cluster, &options(Transform::default(), OnConflict::Replace)).await;
    assert_eq!(actions(&plan, Action::Replace), ["ConfigMap shop/settings"]);
    assert_eq!(actions(&plan, Action::Skip), ["Namespace shop", "ConfigMap ops/shared"]);
    let refused = plan.approve(&Consent::default()).unwrap_err();
    assert!(matches!(refused, NotApproved::Replaces(_)), "{refused}");
}

#[tokio::test]
async fn a_single_object_comes_back_alone() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let point = shop_point(&server).await;
    delete_namespace(&cluster, "shop").await;
    assert!(get(&cluster, "", "ConfigMap", "shop", "settings").await.is_none());
    let only = Only { kinds: vec!["cm".into()], names: vec!["set*".into()], ..Only::default() };
    let report = restore(&point, &cluster, &RestoreOptions { only, ..RestoreOptions::default() }).await;
    let made: Vec<String> = report.objects.iter().map(|o| o.key.to_string()).collect();
    assert_eq!(made, ["Namespace shop", "ConfigMap shop/settings"], "{:#?}", report.findings);
    assert!(get(&cluster, "", "ConfigMap", "shop", "settings").await.is_some());
    assert!(get(&cluster, "", "Secret", "shop", "db").await.is_none());
}

#[tokio::test]
async fn owners_are_linked_to_their_new_selves_also_in_a_circle_of_stages() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    // The config map belongs to the deployment, which comes in a later stage.
    let uid = get(&cluster, "apps", "Deployment", "shop", "web").await.unwrap().uid().to_owned();
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": uid, "blockOwnerDeletion": true});
    patch(&cluster, "", "ConfigMap", "shop", "settings", json!({"metadata": {"ownerReferences": [owner]}}))
        .await;
    let point = shop_point(&server).await;
    let options = options(to(&["shop=copy"]), OnConflict::Skip);
    let report = restore(&point, &cluster, &options).await;
    assert_eq!(report.failed, 0, "{:#?}", report.findings);
    let web = get(&cluster, "apps", "Deployment", "copy", "web").await.unwrap();
    let settings = get(&cluster, "", "ConfigMap", "copy", "settings").await.unwrap();
    let owners = settings.owner_references();
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0].uid, web.uid());
    assert_ne!(owners[0].uid, uid);
    let cluster = connect(&server).await;
    let again = planned(&point, &cluster, &options).await;
    assert!(!again.changes_anything(), "{:?}", actions(&again, Action::Skip));
    assert_eq!(again.counts().skip, 0);
}

#[tokio::test]
async fn an_old_cluster_gets_what_it_can_take_and_is_told_the_rest() {
    // The point knows a kind that the target does not, whose definition is not in the point either.
    let server = shop(1).await;
    let mut point = shop_point(&server).await;
    point.objects.retain(|stored| stored.key.kind != "CustomResourceDefinition");
    let target = crate::site::server(2);
    let cluster = connect(&target).await;
    let plan = planned(&point, &cluster, &RestoreOptions::default()).await;
    let left: Vec<String> = plan.left.iter().map(|left| left.key.to_string()).collect();
    assert_eq!(left, ["Queue.msg.example.com shop/orders"]);
    assert!(plan.findings.iter().any(|f| f.code == "not-served"), "{:?}", plan.findings);
    let report = plan.approve(&Consent::default()).unwrap().execute(&Executor::new(cluster, env())).await;
    assert_eq!(report.failed, 0);
    assert!(!report.is_complete(), "something was left out that should be there");
}

#[tokio::test]
async fn a_mapping_reaches_the_target() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let point = shop_point(&server).await;
    let mapping = "
namespaces: {shop: copy}
registries: {registry.example.com: mirror.example.com/x, docker.io: mirror.example.com/hub}
patches:
- target: {kind: Deployment, name: web}
  patch: [{op: replace, path: /spec/replicas, value: 1}]
";
    let transform = Mapping::from_yaml(mapping).unwrap().check().unwrap();
    let report = restore(&point, &cluster, &options(transform, OnConflict::Skip)).await;
    assert_eq!(report.failed, 0, "{:#?}", report.findings);
    let web = get(&cluster, "apps", "Deployment", "copy", "web").await;
    assert_eq!(said(&web, "/spec/replicas"), 1);
    assert_eq!(
        said(&web, "/spec/template/spec/containers/0/image"),
        "mirror.example.com/x/shop/web@sha256:0123"
    );
    assert_eq!(said(&web, "/spec/template/spec/initContainers/0/image"), "mirror.example.com/x/tools/wait:1");
    let db = get(&cluster, "apps", "StatefulSet", "copy", "db").await;
    assert_eq!(
        said(&db, "/spec/template/spec/containers/0/image"),
        "mirror.example.com/hub/library/postgres:16"
    );
    let report_job = get(&cluster, "batch", "CronJob", "copy", "report").await;
    assert_eq!(
        said(&report_job, "/spec/jobTemplate/spec/template/spec/containers/0/image"),
        "mirror.example.com/x/shop/report:1"
    );
}

#[tokio::test]
async fn nobody_may_be_refused_without_a_word() {
    let source = shop(1).await;
    let point = shop_point(&source).await;
    let target = apiserver::ApiServer::new(
        apiserver::Options::deterministic(2)
            .deny(|access| access.resource == "secrets" && access.verb == "create"),
    );
    let cluster = connect(&target).await;
    let report = restore(&point, &cluster, &RestoreOptions::default()).await;
    let failed: Vec<String> = report
        .objects
        .iter()
        .filter(|object| object.done == app::restore::Done::Failed)
        .map(|object| object.key.to_string())
        .collect();
    assert_eq!(failed, ["Secret shop/db", "Secret shop/tls"]);
    assert!(report.created > 15, "the rest came back");
    assert_eq!(report.findings.iter().filter(|f| f.code == "not-restored").count(), 2);
}

#[tokio::test]
async fn whoever_may_work_in_one_namespace_only_can_restore_it() {
    let source = shop(1).await;
    let point = shop_point(&source).await;
    let options = apiserver::Options::deterministic(2).deny(|access| access.namespace != "shop");
    let target = apiserver::ApiServer::new(options);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let class = documents(SHOP).into_iter().filter(|o| o["kind"] == "CustomResourceDefinition");
    assert!(target.load(class.chain([namespace])).is_empty());
    let cluster = connect(&target).await;
    let report = restore(&point, &cluster, &RestoreOptions::default()).await;
    assert_eq!(report.failed, 0, "{:#?}", report.findings);
    // Its own namespace can be seen; everything else out there cannot.
    let elsewhere: Vec<_> = report
        .objects
        .iter()
        .filter(|object| object.key.namespace != "shop" && object.key.to_string() != "Namespace shop")
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    assert!(get(&cluster, "apps", "Deployment", "shop", "web").await.is_some());
    let told: Vec<&str> =
        report.findings.iter().filter(|f| f.code == "forbidden").map(|f| f.what.as_str()).collect();
    assert!(told.contains(&"ClusterRole shop-nodes") && told.contains(&"ConfigMap ops/shared"), "{told:?}");
    let again = planned(&point, &cluster, &RestoreOptions::default()).await;
    assert!(!again.changes_anything());
}

#[tokio::test]
async fn a_namespace_that_is_still_going_away_is_waited_for() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let point = shop_point(&server).await;
    patch(
        &cluster,
        "",
        "ConfigMap",
        "shop",
        "settings",
        json!({"metadata": {"finalizers": ["example.com/slow"]}}),
    )
    .await;
    delete_namespace(&cluster, "shop").await;
    assert_eq!(get(&cluster, "", "Namespace", "", "shop").await.unwrap().str("/status/phase"), "Terminating");
    let plan = planned(&point, &cluster, &RestoreOptions::default()).await;
    let step = plan.steps().find(|step| step.key.to_string() == "Namespace shop").unwrap();
    assert_eq!(
        (step.action, step.reason.contains("is being deleted")),
        (Action::Create, true),
        "{}",
        step.reason
    );

    let slow = Deadlines {
        namespace: Duration::from_millis(20),
        step: Duration::from_millis(5),
        ..Deadlines::default()
    };
    let mut executor = Executor { deadlines: slow, ..Executor::new(cluster.clone(), env()) };
    let report = plan.clone().approve(&Consent::default()).unwrap().execute(&executor).await;
    let namespace = report.objects.iter().find(|object| object.key.to_string() == "Namespace shop").unwrap();
    assert!(namespace.message.contains("finalizers hold it"), "{}", namespace.message);
    let lost: Vec<&str> = report
        .objects
        .iter()
        .filter(|object| object.key.namespace == "shop")
        .map(|object| object.message.as_str())
        .collect();
    assert!(
        lost.len() > 10
            && lost.iter().all(|m| *m == "Namespace shop could not be restored, and it cannot be without"),
        "{lost:?}"
    );

    executor.deadlines.namespace = Duration::from_secs(20);
    let (report, ()) = tokio::join!(plan.approve(&Consent::default()).unwrap().execute(&executor), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        patch(&cluster, "", "ConfigMap", "shop", "settings", json!({"metadata": {"finalizers": null}})).await;
    });
    assert_eq!(report.failed, 0, "{:#?}", report.findings);
    assert_eq!(get(&cluster, "", "Namespace", "", "shop").await.unwrap().str("/status/phase"), "Active");
}

/// A server that answers the first of every write with "too busy" or an error of its own.
fn grumpy(server: &apiserver::ApiServer) -> kube::Client {
    let seen = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let inner = kube::Client::new(server.router(), "default");
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (inner, seen) = (inner.clone(), seen.clone());
        async move {
            let tries = {
                let mut seen = seen.lock().unwrap();
                let tries = seen.entry(format!("{} {}", request.method(), request.uri())).or_default();
                *tries += 1;
                *tries
            };
            if request.method() == http::Method::POST && tries <= 2 {
                let status = if tries == 1 { 429 } else { 500 };
                let body =
                    kube::client::Body::from(br#"{"message":"failed calling webhook: not up yet"}"#.to_vec());
                return Ok(http::Response::builder().status(status).body(body).unwrap());
            }
            inner.send(request).await
        }
    });
    kube::Client::new(service, "default")
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let point = shop_point(&shop(1).await).await;
    let target = crate::site::server(2);
    let cluster = Cluster::connect(grumpy(&target)).await.unwrap();
    let plan = planned(&point, &cluster, &RestoreOptions::default()).await;
    let wanted = plan.steps().count();
    let report = plan.approve(&Consent::default()).unwrap().execute(&Executor::new(cluster, env())).await;
    assert_eq!((report.created, report.failed), (wanted, 0), "{:#?}", report.findings);
}

#[tokio::test]
async fn the_stop_button_ends_a_restore_and_the_next_one_goes_on() {
    let point = shop_point(&shop(1).await).await;
    let target = crate::site::server(2);
    let cluster = connect(&target).await;
    let executor = Executor::new(cluster.clone(), env());
    executor.cancel.cancel();
    let plan = planned(&point, &cluster, &RestoreOptions::default()).await;
    let report = plan.approve(&Consent::default()).unwrap().execute(&executor).await;
    assert!(report.cancelled && !report.is_complete() && report.objects.is_empty());
    let report = restore(&point, &cluster, &RestoreOptions::default()).await;
    assert!(report.is_complete(), "{:#?}", report.findings);
}
