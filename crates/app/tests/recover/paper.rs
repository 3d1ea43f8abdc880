//! A plan on paper: executed exactly as it was approved, once, or not at all.

use std::hash::{DefaultHasher, Hash, Hasher};

use app::api::Cluster;
use app::restore::{
    ClusterScoped, Consent, Executor, OnConflict, Only, Paper, PaperError, RestoreOptions, on_paper, plan,
};
use app::selector::Selector;
use app::transform::Mapping;
use serde_json::{Value, json};

use crate::site::*;

/// A digest for tests: the repository's own is keyed.
fn digest(bytes: &[u8]) -> Result<String, repo::Error> {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok(format!("{:016x}{:016x}{:032x}", hasher.finish(), bytes.len(), 7))
}

fn options() -> RestoreOptions {
    let mapping = "
namespaces: {shop: copy}
patches: [{target: {kind: Deployment}, merge: {spec: {replicas: 1}}}]";
    RestoreOptions {
        transform: Mapping::from_yaml(mapping).unwrap().check().unwrap(),
        on_conflict: OnConflict::Recreate,
        cluster_scoped: ClusterScoped::Create,
        status: vec!["queues".into()],
        only: Only { labels: Selector::parse("!nothing,x notin (y)").unwrap(), ..Only::default() },
        ..RestoreOptions::default()
    }
}

const POINT: &str = "0123456789abcdef";

async fn written(point: &app::point::Point, cluster: &Cluster, options: &RestoreOptions) -> String {
    let plan = plan(point, cluster, options).await.unwrap();
    on_paper(&plan, POINT, options, env().now(), &digest).unwrap().to_string()
}

#[tokio::test]
async fn an_approved_plan_is_executed_as_it_was_read_and_only_once() {
    let source = shop(1).await;
    let point = shop_point(&source).await;
    let target = server(2);
    let cluster = connect(&target).await;
    let text = written(&point, &cluster, &options()).await;
    // Reformatted by somebody's editor.
    let text = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&text).unwrap()).unwrap();

    let paper = Paper::read(&text, env().now(), &digest).unwrap();
    assert_eq!(paper.point(), POINT);
    let again = paper.options().unwrap();
    assert_eq!(
        (again.on_conflict, &again.only, &again.status),
        (OnConflict::Recreate, &options().only, &options().status)
    );
    assert_eq!(again.transform.mapping(), options().transform.mapping());
    let plan_now = plan(&point, &cluster, &again).await.unwrap();
    paper.fits(&plan_now, &digest).unwrap();
    let approved = plan_now.approve(&Consent::default()).unwrap();
    paper.claim(&cluster, env().now()).await.unwrap();
    let report = approved.execute(&Executor::new(cluster.clone(), env())).await;
    assert!(report.is_complete(), "{:#?}", report.findings);
    assert!(get(&cluster, "apps", "Deployment", "copy", "web").await.is_some());

    // It ran: what it would do now is something else, and even were it the same, it was used.
    let cluster = connect(&target).await;
    let now = plan(&point, &cluster, &again).await.unwrap();
    let changed = paper.fits(&now, &digest).unwrap_err();
    assert!(changed.to_string().contains("was create and is unchanged now"), "{changed}");
    let ran = paper.claim(&cluster, env().now()).await.unwrap_err();
    assert!(matches!(&ran, PaperError::Ran(when) if when.starts_with("2026-01-01")), "{ran}");
}

#[tokio::test]
async fn a_plan_is_refused_when_the_target_changed_in_what_it_would_do() {
    let source = shop(1).await;
    let point = shop_point(&source).await;
    let target = shop(2).await;
    let cluster = connect(&target).await;
    let options = RestoreOptions { on_conflict: OnConflict::Update, ..RestoreOptions::default() };
    patch(&cluster, "", "ConfigMap", "shop", "settings", json!({"data": {"mode": "blue"}})).await;
    let text = written(&point, &cluster, &options).await;
    let paper = Paper::read(&text, env().now(), &digest).unwrap();
    let fits = async || paper.fits(&plan(&point, &cluster, &options).await.unwrap(), &digest);
    fits().await.unwrap();
    // What the restore does not touch may change.
    let other =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ops", "name": "another"}});
    apply(&target, &[other]).await;
    fits().await.unwrap();
    let steps: [(&str, &str, Value, &str); 2] = [
        (
            "settings",
            "blue to green",
            json!({"data": {"mode": "green"}}),
            "ConfigMap shop/settings is another update now",
        ),
        ("settings", "as in the point", json!({"data": {"mode": "yes"}}), "was update and is unchanged now"),
    ];
    for (name, story, change, want) in steps {
        patch(&cluster, "", "ConfigMap", "shop", name, change).await;
        let error = fits().await.unwrap_err();
        assert!(error.to_string().contains(want), "{story}: {error}");
    }
    let elsewhere = connect(&shop(3).await).await;
    let error = paper.fits(&plan(&point, &elsewhere, &options).await.unwrap(), &digest).unwrap_err();
    assert!(matches!(error, PaperError::OtherCluster { .. } | PaperError::Changed(_)), "{error}");
}

#[tokio::test]
async fn a_paper_that_was_changed_or_is_none_is_refused() {
    let source = shop(1).await;
    let point = shop_point(&source).await;
    let target = server(2);
    let cluster = connect(&target).await;
    let text = written(&point, &cluster, &options()).await;
    let whole: Value = serde_json::from_str(&text).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut whole = whole.clone();
        change(&mut whole);
        whole.to_string()
    };
    let later = env().now() + 8 * 24 * 3600 * 1_000_000_000;
    let cases: [(&str, String, i64, &str); 6] = [
        ("as it is", text.clone(), env().now(), ""),
        (
            "a step was taken out of what people read",
            changed(&|w| {
                w["waves"].as_array_mut().unwrap().pop();
            }),
            env().now(),
            "was changed after it was made",
        ),
        (
            "another mapping",
            changed(&|w| w["approval"]["options"]["mapping"]["namespaces"]["shop"] = json!("prod")),
            env().now(),
            "was changed after it was made",
        ),
        ("another format", changed(&|w| w["approval"]["format"] = json!(9)), env().now(), "of format 9"),
        ("no plan", "{}".into(), env().now(), "has no approval"),
        ("last week's", text, later, "older than 7 days"),
    ];
    for (story, text, now, want) in cases {
        match Paper::read(&text, now, &digest) {
            Ok(_) => assert_eq!(want, "", "{story}"),
            Err(error) => assert!(!want.is_empty() && error.to_string().contains(want), "{story}: {error}"),
        }
    }
    let secret = serde_json::to_string(&whole).unwrap();
    assert!(!secret.contains("c2VjcmV0") && !secret.contains("stringData"), "no secret is on the paper");
}
