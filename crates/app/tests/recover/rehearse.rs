//! A rehearsal finds what a real restore would have met, and writes nowhere.

use app::rehearse::{Rehearsal, RehearseOptions, rehearse};
use app::restore::{OnConflict, RestoreOptions};
use app::transform::Mapping;
use repo::Cancel;
use serde_json::{Value, json};

use crate::site::*;

async fn try_it(point: &app::point::Point, options: RehearseOptions) -> Rehearsal {
    let scratch = tempfile::tempdir().unwrap();
    rehearse(point, &options, &env(), &Cancel::new(), scratch.path()).await.unwrap()
}

fn told(rehearsal: &Rehearsal) -> Vec<String> {
    let all = rehearsal.refused.iter().chain(&rehearsal.pods_refused);
    all.map(|refused| format!("{}: {}", refused.key, refused.reason)).collect()
}

#[tokio::test]
async fn an_application_that_would_be_restored_is_said_to_be() {
    let source = shop(1).await;
    let point = shop_point(&source).await;
    let before = versions(&source);
    let rehearsal = try_it(&point, RehearseOptions::default()).await;
    assert!(rehearsal.would_succeed(), "{:#?} {:#?}", told(&rehearsal), rehearsal.findings);
    assert!(rehearsal.accepted > 10 && rehearsal.target.version.is_empty());
    assert_eq!(versions(&source), before, "a rehearsal writes nothing");
}

/// Each story puts something on the target that is in the way, and names what must be told.
#[tokio::test]
async fn what_the_target_would_refuse_is_told_beforehand() {
    let point = shop_point(&shop(1).await).await;
    let namespace = |labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}});
    let quota = |hard: Value| json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "shop"}, "spec": {"hard": hard}});
    let stories: Vec<(&str, Vec<Value>, &str)> = vec![
        (
            "no room for another claim",
            vec![namespace(json!({})), quota(json!({"persistentvolumeclaims": "0"}))],
            "PersistentVolumeClaim shop/data-db-0: ",
        ),
        (
            "no room for pods",
            vec![namespace(json!({})), quota(json!({"pods": "0"}))],
            "exceeded quota: q, requested: pods=1",
        ),
        (
            "a namespace with a stricter standard",
            vec![namespace(json!({"pod-security.kubernetes.io/enforce": "restricted"}))],
            "violates PodSecurity \"restricted:latest\"",
        ),
        (
            "a smaller largest claim",
            vec![
                namespace(json!({})),
                json!({"apiVersion": "v1", "kind": "LimitRange",
            "metadata": {"name": "l", "namespace": "shop"}, "spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "1Ki"}}]}}),
            ],
            "maximum storage usage per PersistentVolumeClaim is 1Ki",
        ),
        (
            "a definition with a rule",
            vec![json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "queues.msg.example.com"}, "spec": {"group": "msg.example.com", "scope": "Namespaced",
                "names": {"kind": "Queue", "plural": "queues", "singular": "queue", "listKind": "QueueList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                        "x-kubernetes-validations": [{"rule": "self.size > 1000", "message": "queues are large here"}],
                        "properties": {"size": {"type": "integer"}}}}}}}]}})],
            "queues are large here",
        ),
        (
            "a definition with another schema",
            vec![json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "queues.msg.example.com"}, "spec": {"group": "msg.example.com", "scope": "Namespaced",
                "names": {"kind": "Queue", "plural": "queues", "singular": "queue", "listKind": "QueueList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["mirrors"], "properties": {"size": {"type": "string"}, "mirrors": {"type": "integer"}}}}}}}]}})],
            "spec.size in body must be of type string",
        ),
        (
            "a policy, with its parameters in a namespace of the platform's",
            vec![
                namespace(json!({})),
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "platform"}}),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rules", "namespace": "platform"}, "data": {"registry": "trusted.example.com/"}}),
                json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "registries"}, "spec": {
                    "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
                    "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]},
                    "validations": [{"expression": "object.spec.template.spec.containers.all(c, c.image.startsWith(params.data.registry))",
                        "messageExpression": "'images come from ' + params.data.registry"}]}}),
                json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "registries"},
                    "spec": {"policyName": "registries", "validationActions": ["Deny"],
                        "paramRef": {"name": "rules", "namespace": "platform", "parameterNotFoundAction": "Allow"}}}),
            ],
            "denied request: images come from trusted.example.com/",
        ),
    ];
    for (story, objects, expect) in stories {
        let target = server(7);
        apply(&target, &objects).await;
        let before = versions(&target);
        let options = RehearseOptions { target: Some(connect(&target).await), ..Default::default() };
        let rehearsal = try_it(&point, options).await;
        assert!(!rehearsal.would_succeed(), "{story}");
        let told = told(&rehearsal);
        assert!(told.iter().any(|line| line.contains(expect)), "{story}: {told:#?}");
        assert_eq!(versions(&target), before, "{story}: the target is only read");
    }
}

#[tokio::test]
async fn a_rehearsal_on_the_same_cluster_leaves_alone_what_is_there() {
    let source = shop(1).await;
    let point = shop_point(&source).await;
    let target = || async { Some(connect(&source).await) };
    let rehearsal = try_it(&point, RehearseOptions { target: target().await, ..Default::default() }).await;
    assert!(rehearsal.would_succeed(), "{:#?} {:#?}", told(&rehearsal), rehearsal.findings);
    assert_eq!(rehearsal.accepted, 0, "all of it is there");
    let elsewhere = Mapping::from_yaml("namespaces: {shop: copy}").unwrap().check().unwrap();
    let restore = RestoreOptions { transform: elsewhere, ..RestoreOptions::default() };
    let rehearsal = try_it(&point, RehearseOptions { restore, target: target().await }).await;
    assert!(rehearsal.would_succeed() && rehearsal.accepted > 5, "{:#?}", told(&rehearsal));
    patch(&connect(&source).await, "", "ConfigMap", "shop", "settings", json!({"data": {"mode": "no"}}))
        .await;
    let restore = RestoreOptions { on_conflict: OnConflict::Fail, ..RestoreOptions::default() };
    let rehearsal = try_it(&point, RehearseOptions { restore, target: target().await }).await;
    assert_eq!(told(&rehearsal).len(), 1, "{:#?}", told(&rehearsal));
    assert!(
        told(&rehearsal)[0].starts_with("ConfigMap shop/settings: it differs"),
        "{:#?}",
        told(&rehearsal)
    );
}

#[tokio::test]
async fn webhooks_are_named_and_not_asked() {
    let point = shop_point(&shop(1).await).await;
    let target = server(7);
    apply(&target, &[json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "guard"}, "webhooks": [{"name": "guard.example.com", "failurePolicy": "Fail", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/x"},
            "rules": [{"apiGroups": ["apps"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["deployments"]}]}]})]).await;
    let rehearsal =
        try_it(&point, RehearseOptions { target: Some(connect(&target).await), ..Default::default() }).await;
    let finding = rehearsal.findings.iter().find(|f| f.code == "webhook-not-asked").unwrap();
    assert!(
        finding.what.contains("guard.example.com") && finding.message.contains("refuses them"),
        "{finding:?}"
    );
}
