//! Fidelity: what of an object comes back, field by field, and what is said where it cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::ApiServer;
use app::api::Cluster;
use app::point::{Point, Role};
use app::restore::{
    Action, ClusterScoped, Consent, Deadlines, Done, Executor, OnConflict, Report, RestoreOptions,
    RestorePlan, plan,
};
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use crate::site::*;

/// A point of everything in namespace `n`, and of what is cluster-scoped among these objects.
async fn point_of(server: &ApiServer, objects: &[Value]) -> Point {
    let cluster = connect(server).await;
    let mut point = point(server, &cluster.resources, &["n"], &[]);
    let ours: Vec<String> =
        objects.iter().map(|o| app::object::Object(o.clone()).key().to_string()).collect();
    for object in server.dump().into_iter().map(app::object::Object) {
        let key = object.key();
        if key.namespace.is_empty() && ours.contains(&key.to_string()) {
            point.objects.push(app::point::StoredObject {
                resource: cluster.resources.find_version(&object.gvk()).unwrap().bare(),
                role: Role::Cluster,
                restore: app::point::Restore::Yes,
                clean: (&app::clean::clean(&object)).into(),
                key,
                original: object.0.into(),
            });
        }
    }
    point.objects.sort_by(|a, b| a.key.cmp(&b.key));
    point
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}, "annotations": {"team": "a"}}})
}

fn definition(group: &str, kind: &str, subresource: bool) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let mut version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    if subresource {
        version["subresources"] = json!({"status": {}});
    }
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")}, "versions": [version]}})
}

async fn planned(point: &Point, cluster: &Cluster, options: &RestoreOptions) -> RestorePlan {
    plan(point, cluster, options).await.unwrap()
}

async fn executed(plan: RestorePlan, cluster: &Cluster, deadlines: Deadlines) -> Report {
    let approved = plan.approve(&Consent { replace: true, overwrite_data: true }).unwrap();
    approved.execute(&Executor { deadlines, ..Executor::new(cluster.clone(), env()) }).await
}

async fn restored(point: &Point, cluster: &Cluster, options: &RestoreOptions) -> Report {
    executed(planned(point, cluster, options).await, cluster, Deadlines::default()).await
}

fn codes<'a>(findings: &'a [repo::Finding], code: &str) -> Vec<&'a str> {
    findings.iter().filter(|f| f.code == code).map(|f| f.what.as_str()).collect()
}

#[tokio::test]
async fn status_comes_back_where_it_is_state_and_where_it_is_a_field_like_any_other() {
    let named = |group: &str, kind: &str| json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"namespace": "n", "name": "a"}, "spec": {"x": 1}});
    let mut plain = named("example.com", "Note");
    plain["status"] = json!({"said": "by its author"});
    let objects = [
        namespace(),
        definition("kafka.strimzi.io", "Kafka", true),
        definition("example.com", "Thing", true),
        definition("example.com", "Note", false),
        named("kafka.strimzi.io", "Kafka"),
        named("example.com", "Thing"),
        plain,
    ];
    let server = server(1);
    apply(&server, &objects).await;
    let source = connect(&server).await;
    for (group, kind) in [("kafka.strimzi.io", "Kafka"), ("example.com", "Thing")] {
        let resource = source.resources.find(group, kind).unwrap();
        let patch = json!({"status": {"clusterId": "k1"}});
        source.merge_patch(resource, "n", "a", Some("status"), &patch).await.unwrap();
    }
    let point = point_of(&server, &objects).await;
    for (asked, thing) in [(vec![], Value::Null), (vec!["things".to_owned()], json!("k1"))] {
        let target = crate::site::server(2);
        let cluster = connect(&target).await;
        let options = RestoreOptions { status: asked, ..RestoreOptions::default() };
        let report = restored(&point, &cluster, &options).await;
        assert!(report.is_complete(), "{:#?}", report.findings);
        let status = async |group: &str, kind: &str, at: &str| {
            get(&cluster, group, kind, "n", "a").await.unwrap().at(at).cloned().unwrap_or(Value::Null)
        };
        assert_eq!(status("kafka.strimzi.io", "Kafka", "/status/clusterId").await, "k1");
        assert_eq!(status("example.com", "Thing", "/status/clusterId").await, thing);
        assert_eq!(status("example.com", "Note", "/status/said").await, "by its author");
        let again = planned(&point, &connect(&target).await, &options).await;
        assert!(!again.changes_anything(), "{:?}", again.counts());
        let space = get(&cluster, "", "Namespace", "", "n").await.unwrap();
        assert_eq!(space.label("pod-security.kubernetes.io/enforce"), Some("restricted"));
        assert_eq!(space.annotation("team"), Some("a"));
    }
}

#[tokio::test]
async fn addresses_that_the_old_cluster_chose_come_back_where_they_are_free() {
    let service = |namespace: &str, name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name}, "spec": spec});
    let web =
        service("n", "web", json!({"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]}));
    let server = server(1);
    apply(&server, &[namespace(), web.clone()]).await;
    let point = point_of(&server, &[namespace()]).await;
    let source = connect(&server).await;
    let before = get(&source, "", "Service", "n", "web").await.unwrap();
    let address = |object: &app::object::Object| {
        (object.str("/spec/clusterIP").to_owned(), object.at("/spec/ports/0/nodePort").cloned())
    };
    assert!(address(&before).0.contains('.') && address(&before).1.is_some());

    // Free: the same. And again: nothing to do.
    let target = crate::site::server(2);
    let cluster = connect(&target).await;
    let report = restored(&point, &cluster, &RestoreOptions::default()).await;
    assert!(
        report.is_complete() && codes(&report.findings, "address-changes").is_empty(),
        "{:#?}",
        report.findings
    );
    let after = get(&cluster, "", "Service", "n", "web").await.unwrap();
    assert_eq!(address(&after), address(&before));
    assert!(!planned(&point, &cluster, &RestoreOptions::default()).await.changes_anything());

    // Taken: others, told, and no difference ever after.
    let target = crate::site::server(3);
    let mut rival = service("other", "rival", before.0["spec"].clone());
    rival["spec"]
        .as_object_mut()
        .unwrap()
        .retain(|key, _| ["type", "clusterIP", "clusterIPs", "ports"].contains(&key.as_str()));
    apply(&target, &[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}), rival])
        .await;
    let cluster = connect(&target).await;
    let report = restored(&point, &cluster, &RestoreOptions::default()).await;
    assert!(report.is_complete(), "{:#?}", report.findings);
    assert_eq!(
        codes(&report.findings, "address-changes"),
        ["Service n/web", "Service n/web"],
        "{:#?}",
        report.findings
    );
    let after = get(&cluster, "", "Service", "n", "web").await.unwrap();
    assert_ne!(address(&after).0, address(&before).0);
    assert_ne!(address(&after).1, address(&before).1);
    assert!(!planned(&point, &cluster, &RestoreOptions::default()).await.changes_anything());
}

#[tokio::test]
async fn what_cannot_be_changed_in_place_is_told_and_made_again_with_consent() {
    let config = |name: &str, data: &str, immutable: bool| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "n", "name": name}, "data": {"a": data}, "immutable": immutable});
    let server = server(1);
    apply(&server, &[namespace(), config("fixed", "old", true), config("loose", "old", false)]).await;
    let point = point_of(&server, &[namespace()]).await;
    let target = crate::site::server(2);
    apply(&target, &[namespace(), config("fixed", "new", true), config("loose", "new", false)]).await;
    let cluster = connect(&target).await;
    for (policy, fixed, loose) in [
        (OnConflict::Update, Action::Skip, Action::Update),
        (OnConflict::Recreate, Action::Replace, Action::Update),
        (OnConflict::Replace, Action::Replace, Action::Replace),
    ] {
        let options = RestoreOptions { on_conflict: policy, ..RestoreOptions::default() };
        let plan = planned(&point, &cluster, &options).await;
        let of = |name: &str| plan.steps().find(|step| step.key.name == name).unwrap();
        assert_eq!((of("fixed").action, of("loose").action), (fixed, loose), "{policy:?}");
        assert!(
            policy == OnConflict::Replace || of("fixed").reason.contains("cannot be changed in place"),
            "{}",
            of("fixed").reason
        );
        assert_eq!(codes(&plan.findings, "not-updated").is_empty(), fixed != Action::Skip);
        assert_eq!(plan.clone().approve(&Consent::default()).is_err(), fixed == Action::Replace);
    }
    let options = RestoreOptions { on_conflict: OnConflict::Recreate, ..RestoreOptions::default() };
    let before = get(&cluster, "", "ConfigMap", "n", "loose").await.unwrap();
    assert!(restored(&point, &cluster, &options).await.is_complete());
    for name in ["fixed", "loose"] {
        let now = get(&cluster, "", "ConfigMap", "n", name).await.unwrap();
        assert_eq!(now.str("/data/a"), "old");
        assert!(name != "loose" || now.uid() == before.uid(), "updated in place");
    }
}

#[tokio::test]
async fn objects_of_the_whole_cluster_go_by_their_own_policy() {
    let class = |value: i64| json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high", "labels": {"v": value.to_string()}}, "value": 5});
    let server = server(1);
    apply(&server, &[namespace(), class(1)]).await;
    let point = point_of(&server, &[namespace(), class(1)]).await;
    let target = crate::site::server(2);
    apply(&target, &[class(2)]).await;
    let cluster = connect(&target).await;
    for (policy, want) in [
        (ClusterScoped::Create, Some(Action::Skip)),
        (ClusterScoped::Conflict, Some(Action::Update)),
        (ClusterScoped::Leave, None),
    ] {
        let options = RestoreOptions {
            cluster_scoped: policy,
            on_conflict: OnConflict::Update,
            ..RestoreOptions::default()
        };
        let plan = planned(&point, &cluster, &options).await;
        let action = plan.steps().find(|step| step.key.name == "high").map(|step| step.action);
        assert_eq!(action, want, "{policy:?}");
        assert_eq!(plan.left.iter().any(|left| left.key.name == "high"), want.is_none(), "{policy:?}");
        assert!(plan.steps().any(|step| step.key.to_string() == "Namespace n"), "{policy:?}");
    }
}

type Answer = Option<Response<Body>>;

/// A server behind a proxy that may answer by itself, or change the body.
fn behind(
    server: &ApiServer,
    proxy: impl Fn(&Request<Body>) -> Answer + Send + Sync + 'static,
) -> kube::Client {
    let inner = kube::Client::new(server.router(), "default");
    let proxy = Arc::new(proxy);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, answer) = (inner.clone(), proxy(&request));
        async move {
            match answer {
                Some(answer) => Ok(answer),
                None => inner.send(request).await,
            }
        }
    });
    kube::Client::new(service, "default")
}

fn status(code: u16, message: &str) -> Answer {
    let body =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code});
    Some(Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap())
}

fn is_write(request: &Request<Body>, plural: &str) -> bool {
    let dry = request.uri().query().unwrap_or("").contains("dryRun");
    request.method() == Method::POST && request.uri().path().ends_with(plural) && !dry
}

const SILENT: &str = "Internal error occurred: failed calling webhook \"check.example.com\": Post \"https://hook.n.svc:443/\": context deadline exceeded";

fn quick() -> Deadlines {
    Deadlines { webhook: Duration::from_millis(200), step: Duration::from_millis(5), ..Deadlines::default() }
}

#[tokio::test]
async fn a_webhook_that_times_out_is_asked_once_a_turn_and_waited_for() {
    let config = |i: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "n", "name": format!("c{i}")}, "data": {"a": "b"}});
    let objects: Vec<Value> = std::iter::once(namespace()).chain((0..40).map(config)).collect();
    let server = server(1);
    apply(&server, &objects).await;
    let point = point_of(&server, &objects).await;
    for (comes_back_after, want) in [(60, Done::Created), (usize::MAX, Done::Failed)] {
        let target = crate::site::server(2);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let proxy = move |request: &Request<Body>| {
            if !is_write(request, "/configmaps") || counter.fetch_add(1, Ordering::SeqCst) >= comes_back_after
            {
                return None;
            }
            status(500, SILENT)
        };
        let cluster = Cluster::connect(behind(&target, proxy)).await.unwrap();
        let plan = planned(&point, &cluster, &RestoreOptions::default()).await;
        let deadlines = if want == Done::Created {
            Deadlines { webhook: Duration::from_secs(20), ..quick() }
        } else {
            quick()
        };
        let report = executed(plan, &cluster, deadlines).await;
        let of: Vec<Done> =
            report.objects.iter().filter(|o| o.key.kind == "ConfigMap").map(|o| o.done).collect();
        assert_eq!(of, vec![want; 40]);
        if want == Done::Failed {
            // Not forty objects times five tries: those in flight at the start, and one a turn.
            assert!(asked.load(Ordering::SeqCst) < 80, "{}", asked.load(Ordering::SeqCst));
            assert!(!report.is_complete());
            assert!(
                report.objects.iter().any(|o| o.message.contains("pods behind the webhook")),
                "{:#?}",
                report.objects
            );
        }
    }
}

#[tokio::test]
async fn a_webhook_left_over_from_the_lost_application_is_told_beforehand() {
    let hooks = |name: &str, namespace: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name},
        "webhooks": [{"name": "check.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "clientConfig": {"service": {"namespace": namespace, "name": "hook"}}, "rules": [{"apiGroups": ["never.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nothings"]}]}]})
    };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "n", "name": "hook"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 443}]}});
    let server = server(1);
    apply(&server, &[namespace(), service]).await;
    let point = point_of(&server, &[]).await;
    let target = crate::site::server(2);
    apply(&target, &[hooks("ours", "n"), hooks("gone", "elsewhere")]).await;
    let cluster = connect(&target).await;
    let plan = planned(&point, &cluster, &RestoreOptions::default()).await;
    let mut told: Vec<(repo::Severity, &str)> = plan
        .findings
        .iter()
        .filter(|f| f.code == "webhook-absent")
        .map(|f| (f.severity, f.what.as_str()))
        .collect();
    told.sort_by_key(|(_, what)| *what);
    let want = [
        (repo::Severity::Warning, "ValidatingWebhookConfiguration gone"),
        (repo::Severity::Note, "ValidatingWebhookConfiguration ours"),
    ];
    assert_eq!(told, want);
}

#[tokio::test]
async fn a_field_that_the_target_drops_in_silence_and_an_object_that_is_too_big_are_told() {
    let config = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "n", "name": name}, "data": {"a": "b"}});
    let server = server(1);
    apply(&server, &[namespace(), config("big"), config("small")]).await;
    let mut point = point_of(&server, &[namespace()]).await;
    for stored in &mut point.objects {
        if stored.key.name == "small" {
            // The embedded server keeps no field of a built-in kind that it does not know.
            let mut clean = stored.clean.open().0;
            clean["gadget"] = json!({"on": true});
            stored.clean = clean.into();
        }
    }
    let target = crate::site::server(2);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let proxy = move |request: &Request<Body>| {
        if !is_write(request, "/configmaps") {
            return None;
        }
        // The first of the two by name is the big one.
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            return status(500, "etcdserver: request is too large");
        }
        None
    };
    let cluster = Cluster::connect(behind(&target, proxy)).await.unwrap();
    let plan = planned(&point, &cluster, &RestoreOptions::default()).await;
    let approved = plan.approve(&Consent::default()).unwrap();
    let report = approved.execute(&Executor { at_once: 1, ..Executor::new(cluster, env()) }).await;
    assert_eq!(codes(&report.findings, "not-restored"), ["ConfigMap n/big"], "{:#?}", report.findings);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "what is too big stays too big");
    assert_eq!(codes(&report.findings, "field-dropped"), ["ConfigMap n/small"], "{:#?}", report.findings);
}
