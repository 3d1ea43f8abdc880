//! A `kube::Client` on the router, without a socket: what programs see.

#![allow(clippy::unwrap_used, clippy::panic)] // In a test a failed unwrap is the failed test.

use std::collections::BTreeMap;

use apiserver::{ApiServer, Options};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
    PropagationPolicy, WatchEvent, WatchParams,
};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, verbs};
use kube::{Client, Error, ResourceExt};
use serde_json::{Value, json};

fn start() -> (ApiServer, Client) {
    start_with(Options::deterministic(1))
}

fn start_with(options: Options) -> (ApiServer, Client) {
    let server = ApiServer::new(options);
    let client = Client::new(server.router(), "default");
    (server, client)
}

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn conf(name: &str, value: &str) -> ConfigMap {
    of(json!({"metadata": {"name": name}, "data": {"v": value}}))
}

fn deployment(name: &str) -> Deployment {
    of(
        json!({"metadata": {"name": name}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": {
        "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}}),
    )
}

/// (code, reason) of a refused request.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Api(status)) => (status.code, status.reason),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn is(code: u16, reason: &str) -> (u16, String) {
    (code, reason.to_string())
}

#[tokio::test]
async fn both_forms_of_discovery_find_the_same_kinds() {
    let (_server, client) = start();
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    let legacy = Discovery::new(client).run().await.unwrap();
    let kinds = |discovery: &Discovery| {
        let mut all: Vec<String> = discovery
            .groups()
            .flat_map(|g| g.recommended_resources())
            .filter(|(_, caps)| caps.supports_operation(verbs::LIST))
            .map(|(ar, _)| format!("{}/{}", ar.api_version, ar.kind))
            .collect();
        all.sort();
        all
    };
    assert_eq!(kinds(&aggregated), kinds(&legacy));
    assert!(kinds(&legacy).contains(&"autoscaling/v2/HorizontalPodAutoscaler".to_string()));
    assert!(kinds(&legacy).len() > 45);
}

#[tokio::test]
async fn every_built_in_kind_can_be_listed_as_its_typed_self() {
    let (_server, client) = start();
    let discovery = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    for (resource, caps) in discovery.groups().flat_map(|g| g.recommended_resources()) {
        if caps.supports_operation(verbs::LIST) {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            api.list(&ListParams::default()).await.unwrap_or_else(|e| panic!("{}: {e}", resource.plural));
        }
    }
    // The typed structs read what the server makes of defaults.
    let made = Api::default_namespaced(client.clone())
        .create(&PostParams::default(), &deployment("web"))
        .await
        .unwrap();
    let made: Deployment = made;
    assert_eq!(made.spec.unwrap().strategy.unwrap().type_.as_deref(), Some("RollingUpdate"));
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "kube-system");
    accounts.get("default").await.unwrap();
}

#[tokio::test]
async fn pages_of_a_list_agree_although_the_objects_change() {
    let (_server, client) = start();
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    for n in 0..10 {
        api.create(&PostParams::default(), &conf(&format!("c{n}"), "old")).await.unwrap();
    }
    let first = api.list(&ListParams::default().limit(4)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(7), "ten, and the cluster's certificate");
    api.delete("c7", &DeleteParams::default()).await.unwrap();
    api.create(&PostParams::default(), &conf("c55", "new")).await.unwrap();
    let mut names: Vec<String> = first.items.iter().map(ResourceExt::name_any).collect();
    let mut token = first.metadata.continue_.clone();
    while let Some(next) = token.filter(|t| !t.is_empty()) {
        let page = api.list(&ListParams::default().limit(4).continue_token(&next)).await.unwrap();
        assert_eq!(page.metadata.resource_version, first.metadata.resource_version);
        names.extend(page.items.iter().map(ResourceExt::name_any));
        token = page.metadata.continue_;
    }
    let mut expect: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    expect.push("kube-root-ca.crt".into());
    assert_eq!(names, expect, "as it was when the list began");
    let now = api.list(&ListParams::default().labels("!x").fields("metadata.name=c55")).await.unwrap();
    assert_eq!(now.items.len(), 1);
    assert_eq!(refusal(api.list(&ListParams::default().fields("data.v=old")).await), is(400, "BadRequest"));
}

#[tokio::test]
async fn a_watch_starts_where_it_is_told_and_says_410_when_that_is_too_long_ago() {
    let (_server, client) = start_with(Options { history: 5, ..Options::deterministic(1) });
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let start = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut watch = api.watch(&WatchParams::default(), &start).await.unwrap().boxed();
    api.create(&PostParams::default(), &conf("a", "1")).await.unwrap();
    api.replace("a", &PostParams::default(), &conf("a", "2")).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(match watch.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(c) => format!("added {}", c.data.unwrap()["v"]),
            WatchEvent::Modified(c) => format!("modified {}", c.data.unwrap()["v"]),
            WatchEvent::Deleted(c) => format!("deleted {}", c.data.unwrap()["v"]),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["added 1", "modified 2", "deleted 2"]);
    for n in 0..6 {
        api.create(&PostParams::default(), &conf(&format!("b{n}"), "1")).await.unwrap();
    }
    let mut late = api.watch(&WatchParams::default(), &start).await.unwrap().boxed();
    match late.try_next().await.unwrap().unwrap() {
        WatchEvent::Error(status) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
    assert!(late.try_next().await.unwrap().is_none(), "and ends");
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let (_server, client) = start();
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    api.create(&PostParams::default(), &conf("a", "1")).await.unwrap();
    let params = WatchParams::default().initial_events().fields("metadata.name!=kube-root-ca.crt");
    let mut watch = api.watch(&params, "0").await.unwrap().boxed();
    assert!(matches!(watch.try_next().await.unwrap().unwrap(), WatchEvent::Added(c) if c.name_any() == "a"));
    match watch.try_next().await.unwrap().unwrap() {
        WatchEvent::Bookmark(mark) => {
            assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true")
        }
        other => panic!("{other:?}"),
    }
    api.create(&PostParams::default(), &conf("b", "1")).await.unwrap();
    assert!(matches!(watch.try_next().await.unwrap().unwrap(), WatchEvent::Added(c) if c.name_any() == "b"));
}

#[tokio::test]
async fn an_update_based_on_an_old_version_is_refused() {
    let (_server, client) = start();
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let old = api.create(&PostParams::default(), &conf("a", "1")).await.unwrap();
    assert_eq!(refusal(api.create(&PostParams::default(), &conf("a", "1")).await), is(409, "AlreadyExists"));
    let mut mine = old.clone();
    mine.data = Some(BTreeMap::from([("v".into(), "2".into())]));
    let new = api.replace("a", &PostParams::default(), &mine).await.unwrap();
    assert_ne!(new.resource_version(), old.resource_version());
    assert_eq!(refusal(api.replace("a", &PostParams::default(), &mine).await), is(409, "Conflict"));
    let same = api.replace("a", &PostParams::default(), &new).await.unwrap();
    assert_eq!(same.resource_version(), new.resource_version(), "nothing changed, so nothing changes");
    let mut alien = new.clone();
    alien.metadata.uid = Some("somebody-else".into());
    assert_eq!(refusal(api.replace("a", &PostParams::default(), &alien).await), is(409, "Conflict"));
    let stamped: ConfigMap = of(json!({"metadata": {"name": "b", "resourceVersion": "7"}}));
    assert_eq!(refusal(api.create(&PostParams::default(), &stamped).await).0, 500, "as real servers answer");
    let odd: ConfigMap = of(json!({"metadata": {"name": "Not_A_Name"}}));
    assert_eq!(refusal(api.create(&PostParams::default(), &odd).await), is(422, "Invalid"));
    let named: ConfigMap = of(json!({"metadata": {"generateName": "gen-"}}));
    let (x, y) = (
        api.create(&PostParams::default(), &named).await.unwrap(),
        api.create(&PostParams::default(), &named).await.unwrap(),
    );
    assert!(x.name_any().starts_with("gen-") && x.name_any() != y.name_any());
}

#[tokio::test]
async fn status_and_spec_do_not_touch_each_other() {
    let (_server, client) = start();
    let api: Api<Deployment> = Api::default_namespaced(client);
    let made = api.create(&PostParams::default(), &deployment("web")).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let patch = json!({"spec": {"replicas": 9}, "status": {"replicas": 3, "readyReplicas": 3}});
    let status = api.patch_status("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!((status.spec.unwrap().replicas, status.status.unwrap().ready_replicas), (Some(1), Some(3)));
    assert_eq!(status.metadata.generation, Some(1));
    let main = api.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!((main.spec.unwrap().replicas, main.status.unwrap().replicas), (Some(9), Some(3)));
    assert_eq!(main.metadata.generation, Some(2));
    let scale = api.get_scale("web").await.unwrap();
    assert_eq!(
        (scale.spec.unwrap().replicas, scale.status.unwrap().selector.as_deref()),
        (Some(9), Some("app=web"))
    );
}

#[tokio::test]
async fn patches_of_all_kinds_change_what_they_say() {
    let (_server, client) = start();
    let api: Api<Deployment> = Api::default_namespaced(client);
    api.create(&PostParams::default(), &deployment("web")).await.unwrap();
    let pp = PatchParams::default();
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}});
    let image_of = |d: Deployment| d.spec.unwrap().template.spec.unwrap().containers[0].clone();
    let strategic = image_of(api.patch("web", &pp, &Patch::Strategic(&image)).await.unwrap());
    assert_eq!(
        (strategic.image.as_deref(), strategic.image_pull_policy.as_deref()),
        (Some("nginx:2"), Some("IfNotPresent"))
    );
    let merged = image_of(api.patch("web", &pp, &Patch::Merge(&image)).await.unwrap());
    assert_eq!(merged.image.as_deref(), Some("nginx:2"));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let before = api.get("web").await.unwrap();
    let dried = api.patch("web", &dry, &Patch::Merge(json!({"spec": {"replicas": 4}}))).await.unwrap();
    assert_eq!(dried.spec.unwrap().replicas, Some(4));
    assert_eq!(api.get("web").await.unwrap(), before);
}

#[tokio::test]
async fn server_side_apply_owns_shares_conflicts_and_gives_up() {
    let (_server, client) = start();
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let config = |data: Value| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}),
        )
    };
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    let made = api.patch("a", &one, &config(json!({"x": "1", "y": "1"}))).await.unwrap();
    let again = api.patch("a", &one, &config(json!({"x": "1", "y": "1"}))).await.unwrap();
    assert_eq!(made, again);
    assert_eq!(refusal(api.patch("a", &two, &config(json!({"x": "2"}))).await), is(409, "Conflict"));
    api.patch("a", &two, &config(json!({"x": "1"}))).await.unwrap();
    let less = api.patch("a", &one, &config(json!({"y": "1"}))).await.unwrap();
    assert_eq!(less.data.unwrap().len(), 2, "two still owns x");
    let forced = api
        .patch("a", &PatchParams { force: true, ..one.clone() }, &config(json!({"x": "3"})))
        .await
        .unwrap();
    assert_eq!(forced.data.unwrap(), BTreeMap::from([("x".into(), "3".into())]), "and y was given up");
    let managers: Vec<Option<String>> =
        forced.metadata.managed_fields.unwrap().into_iter().map(|m| m.manager).collect();
    assert_eq!(managers, [Some("one".to_string())]);
    let nameless = PatchParams::default();
    assert!(api.patch("a", &nameless, &config(json!({}))).await.is_err(), "an apply needs a manager");
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_one_is_gone() {
    let (_server, client) = start();
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let held: ConfigMap = of(json!({"metadata": {"name": "a", "finalizers": ["x.io/1", "x.io/2"]}}));
    let made = api.create(&PostParams::default(), &held).await.unwrap();
    let wrong = DeleteParams {
        preconditions: Some(Preconditions { uid: Some("other".into()), ..Preconditions::default() }),
        ..DeleteParams::default()
    };
    assert_eq!(refusal(api.delete("a", &wrong).await), is(409, "Conflict"));
    assert!(api.delete("a", &DeleteParams::default().dry_run()).await.unwrap().is_left());
    assert!(api.get("a").await.unwrap().metadata.deletion_timestamp.is_none());
    let marked = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    assert_eq!(refusal(api.create(&PostParams::default(), &conf("a", "1")).await), is(409, "AlreadyExists"));
    let drop = |list: Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    api.patch("a", &PatchParams::default(), &drop(json!(["x.io/2"]))).await.unwrap();
    assert_eq!(api.get("a").await.unwrap().uid(), made.uid());
    api.patch("a", &PatchParams::default(), &drop(json!([]))).await.unwrap();
    assert_eq!(refusal(api.get("a").await), is(404, "NotFound"));
    let status = api.create(&PostParams::default(), &conf("b", "1")).await.unwrap();
    let gone = api.delete("b", &DeleteParams::default()).await.unwrap().right().unwrap();
    assert_eq!(gone.details.unwrap().uid, status.uid().unwrap());
}

fn owned(name: &str, owner: &ConfigMap, blocks: bool, finalizer: &[&str]) -> ConfigMap {
    of(
        json!({"metadata": {"name": name, "finalizers": finalizer, "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap",
        "name": owner.name_any(), "uid": owner.uid(), "blockOwnerDeletion": blocks}]}}),
    )
}

#[tokio::test]
async fn dependents_go_stay_or_are_waited_for() {
    let (_server, client) = start();
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let pp = PostParams::default();
    let with = |policy| DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };

    let top = api.create(&pp, &conf("top", "1")).await.unwrap();
    let mid = api.create(&pp, &owned("mid", &top, true, &[])).await.unwrap();
    api.create(&pp, &owned("low", &mid, true, &[])).await.unwrap();
    api.delete("top", &with(PropagationPolicy::Background)).await.unwrap();
    for name in ["top", "mid", "low"] {
        assert_eq!(refusal(api.get(name).await).0, 404, "{name}");
    }

    let top = api.create(&pp, &conf("top", "1")).await.unwrap();
    api.create(&pp, &owned("kept", &top, true, &[])).await.unwrap();
    api.delete("top", &with(PropagationPolicy::Orphan)).await.unwrap();
    assert_eq!(refusal(api.get("top").await).0, 404);
    assert_eq!(api.get("kept").await.unwrap().owner_references(), []);

    let top = api.create(&pp, &conf("top", "1")).await.unwrap();
    api.create(&pp, &owned("held", &top, true, &["x.io/1"])).await.unwrap();
    api.create(&pp, &owned("free", &top, false, &[])).await.unwrap();
    api.delete("top", &with(PropagationPolicy::Foreground)).await.unwrap();
    assert_eq!(api.get("top").await.unwrap().finalizers(), ["foregroundDeletion"]);
    assert_eq!(refusal(api.get("free").await).0, 404);
    let open = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("held", &PatchParams::default(), &open).await.unwrap();
    for name in ["top", "held"] {
        assert_eq!(refusal(api.get(name).await).0, 404, "{name}");
    }

    // An object restored with the uid of an owner that no longer exists is garbage.
    let gone = top;
    api.create(&pp, &owned("stray", &gone, true, &[])).await.unwrap();
    assert_eq!(refusal(api.get("stray").await).0, 404);
    // One of two owners is enough to live.
    let (x, y) =
        (api.create(&pp, &conf("x", "1")).await.unwrap(), api.create(&pp, &conf("y", "1")).await.unwrap());
    let mut both = owned("both", &x, true, &[]);
    both.owner_references_mut().extend(owned("", &y, true, &[]).owner_references().to_vec());
    api.create(&pp, &both).await.unwrap();
    api.delete("x", &DeleteParams::default()).await.unwrap();
    assert_eq!(api.get("both").await.unwrap().owner_references().len(), 1);
}

#[tokio::test]
async fn a_namespace_ends_when_its_content_has() {
    let (_server, client) = start();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let pp = PostParams::default();
    let shop: Namespace = of(json!({"metadata": {"name": "shop"}}));
    let made = namespaces.create(&pp, &shop).await.unwrap();
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Active"));
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
    api.get("kube-root-ca.crt").await.unwrap();
    let held: ConfigMap = of(json!({"metadata": {"name": "held", "finalizers": ["x.io/1"]}}));
    api.create(&pp, &held).await.unwrap();
    api.create(&pp, &conf("plain", "1")).await.unwrap();
    let going = namespaces.delete("shop", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(going.status.unwrap().phase.as_deref(), Some("Terminating"));
    let left: Vec<String> =
        api.list(&ListParams::default()).await.unwrap().items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, ["held"]);
    assert_eq!(refusal(api.create(&pp, &conf("new", "1")).await), is(403, "Forbidden"));
    api.patch("held", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}})))
        .await
        .unwrap();
    assert_eq!(refusal(namespaces.get("shop").await), is(404, "NotFound"));
    assert_eq!(refusal(api.create(&pp, &conf("new", "1")).await), is(404, "NotFound"));
    assert!(
        api.list(&ListParams::default()).await.unwrap().items.is_empty(),
        "and is not an error to look at"
    );
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let (_server, client) = start();
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    for name in ["a", "b"] {
        let labelled: ConfigMap = of(json!({"metadata": {"name": name, "labels": {"app": "x"}}}));
        api.create(&PostParams::default(), &labelled).await.unwrap();
    }
    api.create(&PostParams::default(), &conf("c", "1")).await.unwrap();
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=x")).await.unwrap();
    let left: Vec<String> =
        api.list(&ListParams::default()).await.unwrap().items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, ["c", "kube-root-ca.crt"]);
}

#[tokio::test]
async fn services_never_share_an_address_or_a_port() {
    let (_server, client) = start();
    let api: Api<Service> = Api::default_namespaced(client);
    let pp = PostParams::default();
    let service =
        |name: &str, spec: Value| -> Service { of(json!({"metadata": {"name": name}, "spec": spec})) };
    let port = json!([{"port": 80}]);
    let a = api
        .create(&pp, &service("a", json!({"ports": port, "type": "NodePort"})))
        .await
        .unwrap()
        .spec
        .unwrap();
    let (ip, node_port) = (a.cluster_ip.unwrap(), a.ports.unwrap()[0].node_port.unwrap());
    assert_eq!(
        (a.session_affinity.as_deref(), a.ip_families.unwrap()),
        (Some("None"), vec!["IPv4".to_string()])
    );
    assert_eq!(
        refusal(api.create(&pp, &service("b", json!({"ports": port, "clusterIP": ip}))).await),
        is(422, "Invalid")
    );
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port}]});
    assert_eq!(refusal(api.create(&pp, &service("c", taken)).await), is(422, "Invalid"));
    let foreign = json!({"ports": port, "clusterIP": "172.20.1.1"});
    assert_eq!(
        refusal(api.create(&pp, &service("d", foreign)).await),
        is(422, "Invalid"),
        "an address of another cluster"
    );
    let headless = api.create(&pp, &service("e", json!({"clusterIP": "None"}))).await.unwrap().spec.unwrap();
    assert_eq!(headless.cluster_ip.as_deref(), Some("None"));
    // A replace that leaves the address out keeps it.
    let kept =
        api.replace("a", &pp, &service("a", json!({"ports": [{"port": 81}]}))).await.unwrap().spec.unwrap();
    assert_eq!((kept.cluster_ip.as_deref(), kept.ports.unwrap()[0].node_port), (Some(ip.as_str()), None));
    let moved = Patch::Merge(json!({"spec": {"clusterIP": "10.96.7.7"}}));
    assert_eq!(refusal(api.patch("a", &PatchParams::default(), &moved).await), is(422, "Invalid"));
}

#[tokio::test]
async fn pods_get_their_account_and_its_token() {
    let (_server, client) = start();
    let api: Api<Pod> = Api::default_namespaced(client);
    let pod = |name: &str, account: Value| -> Pod {
        of(
            json!({"metadata": {"name": name}, "spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]}}),
        )
    };
    let made = api.create(&PostParams::default(), &pod("a", json!(null))).await.unwrap().spec.unwrap();
    assert_eq!(made.service_account_name.as_deref(), Some("default"));
    assert!(made.volumes.unwrap()[0].name.starts_with("kube-api-access-"));
    let missing = api.create(&PostParams::default(), &pod("b", json!("nobody"))).await;
    assert_eq!(refusal(missing), is(403, "Forbidden"), "the account comes first");
}

#[tokio::test]
async fn secrets_are_encoded_and_immutable_ones_stay() {
    let (_server, client) = start();
    let api: Api<Secret> = Api::default_namespaced(client);
    let secret: Secret = of(json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}, "immutable": true}));
    let made = api.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!((made.data.unwrap()["k"].0.as_slice(), made.string_data), (&b"v"[..], None));
    let change = Patch::Merge(json!({"stringData": {"k": "w"}}));
    assert_eq!(refusal(api.patch("s", &PatchParams::default(), &change).await), is(422, "Invalid"));
}

#[tokio::test]
async fn custom_objects_live_and_die_with_their_definition() {
    let (_server, client) = start();
    let definitions: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &ApiResource::from_gvk(&GroupVersionKind::gvk(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
        )),
    );
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"n": {"type": "integer"},
                "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                    "items": {"type": "object", "properties": {"id": {"type": "string"}, "v": {"type": "string"}}}}}}}}}})
    };
    let definition: DynamicObject = of(
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gears.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": {"plural": "gears", "kind": "Gear"}, "versions": [version("v1", false), version("v2", true)]}}),
    );
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let gears = |version: &str| -> Api<DynamicObject> {
        Api::all_with(
            client.clone(),
            &ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", version, "Gear")),
        )
    };
    let gear: DynamicObject = of(
        json!({"apiVersion": "example.com/v1", "kind": "Gear", "metadata": {"name": "g"}, "spec": {"n": 1, "typo": 2}}),
    );
    let made = gears("v1").create(&PostParams::default(), &gear).await.unwrap();
    assert_eq!(
        (made.types.unwrap().api_version.as_str(), &made.data["spec"]),
        ("example.com/v1", &json!({"n": 1}))
    );
    let other = gears("v2").get("g").await.unwrap();
    assert_eq!(other.types.unwrap().api_version, "example.com/v2");
    // Lists of custom kinds merge by the keys their schema names.
    let items = |id: &str| {
        Patch::Apply(
            json!({"apiVersion": "example.com/v2", "kind": "Gear", "spec": {"items": [{"id": id, "v": id}]}}),
        )
    };
    gears("v2").patch("g", &PatchParams::apply("one"), &items("a")).await.unwrap();
    let both = gears("v2").patch("g", &PatchParams::apply("two"), &items("b")).await.unwrap();
    assert_eq!(both.data["spec"]["items"].as_array().unwrap().len(), 2);
    let strategic = Patch::Strategic(json!({"spec": {"n": 2}}));
    assert_eq!(
        refusal(gears("v2").patch("g", &PatchParams::default(), &strategic).await),
        is(415, "UnsupportedMediaType")
    );

    let mut watch =
        gears("v2").watch(&WatchParams::default(), &both.resource_version().unwrap()).await.unwrap().boxed();
    definitions.delete("gears.example.com", &DeleteParams::default()).await.unwrap();
    assert!(
        matches!(watch.try_next().await.unwrap().unwrap(), WatchEvent::Deleted(g) if g.name_any() == "g")
    );
    assert_eq!(refusal(gears("v2").list(&ListParams::default()).await).0, 404);
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    assert!(gears("v2").list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn tens_of_thousands_of_objects_are_no_trouble() {
    let (server, client) = start_with(Options::deterministic(1).read_only());
    server.load((0..20_000).map(|n| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{n:05}"), "namespace": format!("n{}", n % 50)},
            "data": {"k": "v"}})
    }));
    let api: Api<ConfigMap> = Api::all(client.clone());
    let page = api.list(&ListParams::default().limit(500)).await.unwrap();
    assert_eq!((page.items.len(), page.metadata.remaining_item_count), (500, Some(19_500)));
    let one: Api<ConfigMap> = Api::namespaced(client, "n7");
    assert_eq!(one.list(&ListParams::default()).await.unwrap().items.len(), 400);
}
