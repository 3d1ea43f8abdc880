//! A plan: what it says is what happens, and the target itself was asked.

use std::collections::BTreeMap;

use app::point::Point;
use app::restore::{Action, Consent, Done, Executor, OnConflict, RestoreOptions, RestorePlan, plan};
use app::transform::Mapping;
use serde_json::{Value, json};

use crate::site::*;

async fn planned(point: &Point, server: &apiserver::ApiServer, options: &RestoreOptions) -> RestorePlan {
    plan(point, &connect(server).await, options).await.unwrap()
}

/// Every object, what becomes of it, and each change with its old and new value.
fn in_words(plan: &RestorePlan) -> Vec<String> {
    let words = |step: &app::restore::Step| {
        let changes: Vec<String> = step.changes.iter().map(ToString::to_string).collect();
        format!("{:?} {}: {} {}", step.action, step.key, step.reason, changes.join("; "))
    };
    plan.steps().map(words).collect()
}

#[tokio::test]
async fn what_a_plan_says_is_what_the_restore_then_does() {
    let point = shop_point(&shop(1).await).await;
    for policy in [OnConflict::Skip, OnConflict::Update, OnConflict::Recreate, OnConflict::Replace] {
        // On the target one thing is gone, two differ, one of them where nobody can change it, and the rest is there.
        let target = shop(2).await;
        let cluster = connect(&target).await;
        let delete = async |group: &str, kind: &str, name: &str| {
            let resource = cluster.resources.find(group, kind).unwrap();
            cluster.delete(resource, "shop", name, app::api::Propagation::Background, None).await.unwrap();
        };
        delete("batch", "CronJob", "report").await;
        delete("apps", "Deployment", "web").await;
        let mut other = documents(SHOP).into_iter().find(|o| o["kind"] == "Deployment").unwrap();
        other["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
        other["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
        apply(&target, &[other]).await;
        patch(&cluster, "", "ConfigMap", "shop", "settings", json!({"data": {"mode": "no", "umask": null}}))
            .await;

        let before = versions(&target);
        let options = RestoreOptions { on_conflict: policy, ..RestoreOptions::default() };
        let plan = planned(&point, &target, &options).await;
        assert_eq!(versions(&target), before, "{policy:?}: a plan changes nothing");
        assert_eq!(
            in_words(&planned(&point, &target, &options).await),
            in_words(&plan),
            "and says the same again"
        );
        let step =
            |name: &str| plan.steps().find(|s| s.key.name == name && s.key.namespace == "shop").unwrap();
        let differ: Vec<&str> =
            plan.steps().filter(|s| !s.changes.is_empty()).map(|s| s.key.name.as_str()).collect();
        assert_eq!(differ, ["settings", "web"], "{policy:?}: {:#?}", in_words(&plan));
        let changes: Vec<String> = step("settings").changes.iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["~ /data/mode: \"no\" -> \"yes\"", "+ /data/umask: \"0022\""], "{policy:?}");
        assert!(plan.steps().all(|step| !step.reason.is_empty()), "{policy:?}: each says why");

        let said: BTreeMap<String, Done> = plan
            .steps()
            .map(|step| {
                let done = match step.action {
                    Action::Create => Done::Created,
                    Action::Update | Action::Replace => Done::Updated,
                    Action::Unchanged => Done::Unchanged,
                    Action::Skip | Action::Conflict => Done::Skipped,
                };
                (step.key.to_string(), done)
            })
            .collect();
        let changed = step("settings").action != Action::Skip;
        let consent = Consent { replace: true, ..Consent::default() };
        let executor = Executor::new(cluster.clone(), env());
        let report = plan.approve(&consent).unwrap().execute(&executor).await;
        let done: BTreeMap<String, Done> =
            report.objects.iter().map(|object| (object.key.to_string(), object.done)).collect();
        assert_eq!(done, said, "{policy:?}");
        let settings = get(&cluster, "", "ConfigMap", "shop", "settings").await.unwrap();
        assert_eq!(settings.str("/data/mode"), if changed { "yes" } else { "no" }, "{policy:?}");
        // What was neither made nor changed was not written.
        let written = |key: &str| matches!(done.get(key), Some(Done::Created | Done::Updated));
        let after = versions(&target);
        for object in before.iter().filter(|(key, _)| !written(key) && !key.contains("ReplicaSet")) {
            assert!(after.contains(object), "{policy:?}: {object:?} was not to be written");
        }
    }
}

#[tokio::test]
async fn the_target_itself_is_asked_what_it_would_make_of_an_object() {
    let point = shop_point(&shop(1).await).await;
    // It has no room for a ConfigMap, which only it can know.
    let target = server(2);
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "shop", "name": "few"}, "spec": {"hard": {"configmaps": "0"}}});
    apply(&target, &[space, quota]).await;
    let before = versions(&target);
    let plan = planned(&point, &target, &RestoreOptions::default()).await;
    let refused: Vec<(&str, bool)> = plan
        .findings
        .iter()
        .filter(|f| f.code == "would-be-refused")
        .map(|f| (f.what.as_str(), f.message.contains("exceeded quota: few")))
        .collect();
    assert_eq!(refused, [("ConfigMap shop/settings", true)], "{:#?}", plan.findings);
    assert_eq!(versions(&target), before);

    // A field that somebody else set, and that an update would leave: only the target knows that it is no difference.
    let target = shop(3).await;
    let cluster = connect(&target).await;
    patch(&cluster, "", "ConfigMap", "shop", "settings", json!({"data": {"mine": "x"}})).await;
    let options = RestoreOptions { on_conflict: OnConflict::Update, ..RestoreOptions::default() };
    let plan = planned(&point, &target, &options).await;
    let step = plan.steps().find(|step| step.key.name == "settings").unwrap();
    assert_eq!(
        (step.action, step.reason.as_str()),
        (Action::Unchanged, "as in the point; the rest of it is the target's own")
    );
}

/// The shop's Ingress asks for a class.
async fn by_nginx(cluster: &app::api::Cluster) {
    let class = json!({"spec": {"ingressClassName": "nginx"}});
    patch(cluster, "networking.k8s.io", "Ingress", "shop", "web", class).await;
}

#[tokio::test]
async fn what_is_needed_of_the_target_and_not_there_is_told() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let uses =
        json!({"spec": {"template": {"spec": {"priorityClassName": "high", "serviceAccountName": "web"}}}});
    patch(&cluster, "apps", "Deployment", "shop", "web", uses).await;
    by_nginx(&cluster).await;
    let point = shop_point(&server).await;
    let absent = async |target: &apiserver::ApiServer, mapping: &str| {
        let transform = Mapping::from_yaml(mapping).unwrap().check().unwrap();
        let options = RestoreOptions { transform, ..RestoreOptions::default() };
        let plan = planned(&point, target, &options).await;
        let absent = plan.findings.into_iter().filter(|f| f.code == "expected-absent");
        absent.map(|f| f.what).collect::<Vec<String>>()
    };
    let class = |api: &str, kind: &str, name: &str, rest: Value| {
        let mut class = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}});
        class.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        class
    };
    let target = crate::site::server(2);
    let both = ["IngressClass nginx", "PriorityClass high"];
    let found = absent(&target, "{}").await;
    assert!(
        both.iter().all(|name| found.iter().any(|f| f.starts_with(&name[..name.len() - 6]))),
        "{found:?}"
    );
    assert_eq!(found.len(), 2, "{found:?}");
    apply(
        &target,
        &[
            class("scheduling.k8s.io/v1", "PriorityClass", "urgent", json!({"value": 5})),
            class(
                "networking.k8s.io/v1",
                "IngressClass",
                "traefik",
                json!({"spec": {"controller": "example.com/c"}}),
            ),
        ],
    )
    .await;
    assert_eq!(absent(&target, "{}").await.len(), 2, "under other names");
    let mapped = "priorityClasses: {high: urgent}\ningressClasses: {nginx: traefik}";
    assert_eq!(absent(&target, mapped).await, [""; 0], "under the names they are mapped to");
}

#[tokio::test]
async fn every_mapping_and_every_kind_of_patch_reaches_the_target() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let pods = json!({"spec": {"template": {"spec": {"priorityClassName": "high", "nodeSelector": {"kubernetes.io/hostname": "n1"}}}}});
    patch(&cluster, "apps", "Deployment", "shop", "web", pods).await;
    by_nginx(&cluster).await;
    let point = shop_point(&server).await;
    // Ours, Velero's as it lies in a ConfigMap, and Stork's as it is.
    let mapping = r#"
namespaces: {shop: copy}
storageClasses: {manual: fast}
registries: {registry.example.com: mirror.example.com/x}
hosts: {shop.example.com: shop.example.org}
nodes: {n1: m1}
priorityClasses: {high: urgent}
ingressClasses: {nginx: traefik}
patches:
- target: {kind: Deployment, name: web}
  patch: [{op: replace, path: /spec/replicas, value: 7}]
- target: {kind: ConfigMap, name: settings}
  when: [{path: /data/mode, value: "yes"}]
  merge: {data: {merged: "yes", short: null}}
- target: {kind: ConfigMap, name: settings}
  when: [{path: /data/mode, value: never}]
  merge: {data: {merged: wrongly}}
- target: {kind: Deployment, name: web}
  strategic: {spec: {template: {spec: {containers: [{name: web, env: [{name: ADDED, value: "1"}]}]}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: modifiers, namespace: velero}
data:
  m.yaml: |
    version: v1
    resourceModifierRules:
    - conditions: {groupResource: configmaps, resourceNameRegex: "^settings$"}
      mergePatches: [{patchData: '{"data":{"velero":"was here"}}'}]
---
apiVersion: stork.libopenstorage.org/v1alpha1
kind: ResourceTransformation
metadata: {name: t}
specs:
  transformSpecs:
  - resource: /v1/Service
    paths: [{path: spec.sessionAffinity, value: ClientIP, type: string, operation: modify}]
"#;
    let transform = Mapping::from_yaml(mapping).unwrap().check().unwrap();
    let options = RestoreOptions { transform, ..RestoreOptions::default() };
    let target = crate::site::server(2);
    let there = connect(&target).await;
    let plan = planned(&point, &target, &options).await;
    let report =
        plan.approve(&Consent::default()).unwrap().execute(&Executor::new(there.clone(), env())).await;
    assert_eq!(report.failed, 0, "{:#?}", report.findings);
    let web = "/spec/template/spec";
    let cases: &[(&str, &str, &str, &str, Value)] = &[
        ("", "PersistentVolumeClaim", "data-db-0", "/spec/storageClassName", json!("fast")),
        ("apps", "StatefulSet", "db", "/spec/volumeClaimTemplates/0/spec/storageClassName", json!("fast")),
        (
            "apps",
            "Deployment",
            "web",
            &format!("{web}/containers/0/image"),
            json!("mirror.example.com/x/shop/web@sha256:0123"),
        ),
        ("networking.k8s.io", "Ingress", "web", "/spec/rules/0/host", json!("shop.example.org")),
        ("networking.k8s.io", "Ingress", "web", "/spec/tls/0/hosts/0", json!("shop.example.org")),
        ("networking.k8s.io", "Ingress", "web", "/spec/ingressClassName", json!("traefik")),
        ("apps", "Deployment", "web", &format!("{web}/nodeSelector/kubernetes.io~1hostname"), json!("m1")),
        ("apps", "Deployment", "web", &format!("{web}/priorityClassName"), json!("urgent")),
        ("apps", "Deployment", "web", "/spec/replicas", json!(7)),
        ("", "ConfigMap", "settings", "/data/merged", json!("yes")),
        ("", "ConfigMap", "settings", "/data/short", Value::Null),
        ("", "ConfigMap", "settings", "/data/velero", json!("was here")),
        ("apps", "Deployment", "web", &format!("{web}/containers/0/name"), json!("web")),
        ("", "Service", "web", "/spec/sessionAffinity", json!("ClientIP")),
    ];
    for (group, kind, name, at, want) in cases {
        let object = get(&there, group, kind, "copy", name).await.unwrap();
        assert_eq!(object.at(at).unwrap_or(&Value::Null), want, "{kind} {name} {at}");
    }
    let deployment = get(&there, "apps", "Deployment", "copy", "web").await.unwrap();
    let env = deployment.at("/spec/template/spec/containers/0/env").and_then(Value::as_array).unwrap();
    let names: Vec<&str> = env.iter().filter_map(|e| e["name"].as_str()).collect();
    assert!(
        names.contains(&"ADDED") && names.contains(&"DB"),
        "merged into the list, not put in its place: {names:?}"
    );
    assert!(!planned(&point, &target, &options).await.changes_anything());
}
