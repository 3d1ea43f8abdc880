//! Diff: after a restore there is none, and every real one is told.

use std::collections::BTreeMap;

use app::diff::{self, DiffOptions};
use app::restore::{Consent, Executor, RestoreOptions, plan};
use app::transform::{Mapping, Transform};
use serde_json::json;

use crate::site::*;

fn to_copy() -> Transform {
    Mapping::from_yaml("namespaces: {shop: copy}").unwrap().check().unwrap()
}

#[tokio::test]
async fn after_a_restore_only_what_it_must_change_differs_and_that_is_listed() {
    let server = shop(1).await;
    let point = shop_point(&server).await;
    let cluster = connect(&server).await;
    let options = RestoreOptions { transform: to_copy(), ..RestoreOptions::default() };
    let plan = plan(&point, &cluster, &options).await.unwrap();
    let count = plan.steps().count();
    let report = plan.approve(&Consent::default()).unwrap().execute(&Executor::new(cluster, env())).await;
    assert_eq!(report.failed, 0, "{:#?}", report.findings);
    let cluster = connect(&server).await;
    let found =
        diff::with_cluster(&point, &cluster, &DiffOptions { transform: to_copy(), ..Default::default() })
            .await
            .unwrap();
    assert!(found.is_empty(), "{:#?} {:#?} {:#?}", found.changed, found.only_before, found.only_after);
    assert_eq!(found.same, count);
    let listed: Vec<(&str, &str)> = found.ignored.iter().map(|i| (i.what, i.at.as_str())).collect();
    for want in [
        ("uid", "/metadata/uid"),
        ("resource version", "/metadata/resourceVersion"),
        ("time and place of creation", "/metadata/creationTimestamp"),
        ("managed fields", "/metadata/managedFields"),
        ("assigned by the cluster", "/spec/clusterIP"),
    ] {
        assert!(listed.contains(&want), "{want:?} in {listed:?}");
    }
    let again =
        diff::with_cluster(&point, &cluster, &DiffOptions { transform: to_copy(), ..Default::default() })
            .await
            .unwrap();
    assert_eq!(found, again, "the same question has the same answer");
}

#[tokio::test]
async fn a_diff_with_the_cluster_tells_what_came_went_and_changed() {
    let server = shop(1).await;
    let mut point = shop_point(&server).await;
    point.meta.selection = json!({"namespaces": ["shop"]});
    let cluster = connect(&server).await;
    patch(&cluster, "", "ConfigMap", "shop", "settings", json!({"data": {"mode": "no"}})).await;
    patch(&cluster, "", "Secret", "shop", "db", json!({"stringData": {"password": "other"}})).await;
    let resource = cluster.resources.find("batch", "CronJob").unwrap().clone();
    cluster.delete(&resource, "shop", "report", app::api::Propagation::Background, None).await.unwrap();
    let new =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "new"}});
    apply(&server, &[new]).await;
    let found = diff::with_cluster(&point, &cluster, &DiffOptions::default()).await.unwrap();
    let names = |keys: &[app::object::ObjectKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&found.only_before), ["CronJob shop/report"]);
    assert_eq!(names(&found.only_after), ["ConfigMap shop/new"]);
    let changed: Vec<String> = found
        .changed
        .iter()
        .flat_map(|changed| changed.changes.iter().map(move |change| format!("{} {change}", changed.key)))
        .collect();
    assert_eq!(
        changed,
        [
            "ConfigMap shop/settings ~ /data/mode: \"yes\" -> \"no\"",
            "Secret shop/db ~ /data/password: \"(hidden, 8 characters)\" -> \"(hidden, 8 characters)\"",
        ]
    );
}

#[tokio::test]
async fn two_points_differ_in_objects_and_in_data() {
    let server = shop(1).await;
    let cluster = connect(&server).await;
    let mut before = shop_point(&server).await;
    patch(&cluster, "apps", "Deployment", "shop", "web", json!({"spec": {"replicas": 5}})).await;
    let mut after = shop_point(&server).await;
    let record = |claim: &str, bytes| app::point::VolumeRecord {
        namespace: "shop".into(),
        claim: claim.into(),
        volume: String::new(),
        entry: Some(format!("volume/shop/{claim}")),
        consistency: app::point::Consistency::Fuzzy,
        bytes,
        files: 1,
        started: None,
        note: String::new(),
        missing: None,
    };
    before.volumes = vec![record("a", 1), record("b", 1), record("c", 1)];
    after.volumes = vec![record("a", 1), record("b", 2), record("d", 4)];
    let root = |n: u64| repo::Root { length: n, ..repo::Root::EMPTY };
    let roots = |list: &[(&str, u64)]| -> BTreeMap<String, repo::Root> {
        list.iter().map(|(claim, n)| (format!("volume/shop/{claim}"), root(*n))).collect()
    };
    let (old, new) = (roots(&[("a", 1), ("b", 1), ("c", 1)]), roots(&[("a", 1), ("b", 2), ("d", 4)]));
    let found = diff::points((&before, &old), (&after, &new), &DiffOptions::default()).unwrap();
    assert_eq!((found.only_before.len(), found.only_after.len(), found.changed.len()), (0, 0, 1));
    assert_eq!(found.changed[0].changes[0].to_string(), "~ /spec/replicas: 2 -> 5");
    let volumes: Vec<(&str, &str, bool)> =
        found.volumes.iter().map(|v| (v.claim.name.as_str(), v.state.as_str(), v.differs)).collect();
    assert_eq!(
        volumes,
        [("a", "same", false), ("b", "changed", true), ("c", "only before", true), ("d", "only after", true)]
    );
    let same = diff::points((&before, &old), (&before, &old), &DiffOptions::default()).unwrap();
    assert!(same.is_empty() && same.ignored.is_empty());
}
