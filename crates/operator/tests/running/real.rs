//! On a real Kubernetes 1.20: two replicas, rights that the API server enforces, and a leader that dies. It has a server of its own: an
//! operator looks at all there is, and elsewhere that is what other tests make and break meanwhile.

use std::time::Duration;

use app::api::{ApiResources, Cluster};
use operator::clock::Clock;
use repo::Env;
use serde_json::json;

use super::own::OwnCluster;
use super::support::{World, account, repository, secret};

const NAMESPACE: &str = "operator-running";

async fn world(own: &OwnCluster) -> World {
    let client = own.client().await;
    let cluster = Cluster { client: client.clone(), resources: ApiResources::default() };
    let world = World {
        client,
        cluster,
        clock: Clock::real(Env::real()),
        namespace: NAMESPACE.into(),
        is_embedded: false,
    };
    for definition in api::definitions() {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let path = format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}?fieldManager=holdfast&force=true"
        );
        let body = api::without_rules(definition.clone());
        world
            .cluster
            .json(http::Method::PATCH, &path, "application/apply-patch+yaml", Some(&body))
            .await
            .unwrap();
    }
    for plural in ["repositories", "policies", "applications", "recoverypoints"] {
        let all = format!("/apis/holdfast.dev/v1alpha1/{plural}");
        world.eventually("served", async || !world.get(&all).await.is_null()).await;
    }
    world.namespace(NAMESPACE, json!({})).await;
    world
}

#[tokio::test]
async fn kube_two_replicas_change_leaders_and_nothing_is_done_twice() {
    let (own, dir) = (OwnCluster::up().await, tempfile::tempdir().unwrap());
    let world = world(&own).await;
    let (_repository, key) = repository(&dir.path().join("repo"));
    let first = world.replica("first", dir.path());
    world.eventually("the first leads", async || world.holder().await.starts_with("first_")).await;
    let second = world.replica("second", dir.path());

    // The API server, not we, says what the account of a Repository may do.
    let url = dir.path().join("repo").display().to_string();
    world.make(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), account("keeper")).await;
    world.make(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"), secret("keys", "read", &key)).await;
    let spec = json!({"url": url, "serviceAccountName": "keeper", "keys": {"read": {"secret": "keys", "key": "read"}}});
    world.ours(NAMESPACE, "Repository", "repositories", "main", spec).await;
    let main = format!("{}/main", world.path(NAMESPACE, "repositories"));
    world.eventually("denied", async || world.reason(&main, "Authorized").await == "Denied").await;
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "keys"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["keys"], "verbs": ["get"]}]});
    world.make(&format!("{rbac}/roles"), role).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "keys"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "keys"},
        "subjects": [{"kind": "ServiceAccount", "name": "keeper", "namespace": NAMESPACE}]});
    world.make(&format!("{rbac}/rolebindings"), binding).await;
    // A change of the spec is looked at at once.
    world.patch(&main, json!({"spec": {"discovery": {"interval": "1m"}}})).await;
    world.eventually("open", async || world.reason(&main, "Ready").await == "Open").await;

    let policy = json!({"repository": {"name": "main"}, "rpo": "1h", "schedules": [{"name": "minutely", "cron": "* * * * *"}]});
    world.ours(NAMESPACE, "Policy", "policies", "gold", policy).await;
    world.ours(NAMESPACE, "Application", "applications", "shop", json!({"policy": {"name": "gold"}})).await;
    let app = format!("{}/shop", world.path(NAMESPACE, "applications"));
    world.eventually("scheduled", async || world.reason(&app, "Scheduled").await == "Scheduled").await;

    // The leader dies. What is asked for meanwhile is done by its successor, and once.
    let term = async || {
        let lease = world
            .get(&format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/holdfast-operator"))
            .await;
        lease["spec"]["leaseTransitions"].as_u64().unwrap()
    };
    let before = term().await;
    first.kill().await;
    world.patch(&app, json!({"spec": {"trigger": "now", "suspend": false}})).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(world.points(NAMESPACE).await.iter().all(|name| !name.contains("trigger")), "nobody leads");
    world.eventually("the second leads", async || world.holder().await.starts_with("second_")).await;
    assert_eq!(term().await, before + 1);
    world.eventually("a point", async || !world.points(NAMESPACE).await.is_empty()).await;
    world.eventually("heeded", async || world.get(&app).await["status"]["trigger"] == json!("now")).await;
    let asked = world.points(NAMESPACE).await;
    let path = format!("{}/{}", world.path(NAMESPACE, "recoverypoints"), asked[0]);
    world.eventually("it waits", async || world.reason(&path, "Ready").await == "Waiting").await;
    // The next runs find it unfinished.
    world
        .eventually("dropped", async || world.events(NAMESPACE).await.contains(&"RunSkipped".to_owned()))
        .await;
    assert_eq!(world.points(NAMESPACE).await, asked);

    // Labels, on a server whose CronJobs are a beta.
    world
        .patch(
            &format!("/api/v1/namespaces/{NAMESPACE}"),
            json!({"metadata": {"labels": {"holdfast.dev/policy": "gold"}}}),
        )
        .await;
    let whole = format!("{}/{NAMESPACE}", world.path(NAMESPACE, "applications"));
    world
        .eventually("made", async || world.get(&whole).await["spec"]["selection"]["whole"] == json!(true))
        .await;

    assert_eq!(second.stop().await, 0);
    assert_eq!(world.holder().await, "", "given back");
}
