//! The protect side against a real API server of the oldest version we meet: its older paths of discovery, its
//! older kinds, what its controllers make by themselves, and its access rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

#[path = "common/own.rs"]
mod own;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use app::api::{ApplyOptions, Cluster, Propagation};
use app::certificate::State;
use app::discover::discover;
use app::object::Object;
use app::point::Restore;
use app::select::{Selected, Selection, select};
use kube::config::{KubeConfigOptions, Kubeconfig};
use own::OwnCluster;
use serde_json::{Value, json};

const TOLD: &str = "is not set: run this test with `./test real` or under `tests/real/with kube -- `";

async fn connect(path: &str) -> Cluster {
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Cluster::connect(kube::Client::try_from(config).unwrap()).await.unwrap()
}

async fn admin() -> Cluster {
    connect(
        &std::env::var("HOLDFAST_TEST_KUBECONFIG")
            .unwrap_or_else(|_| panic!("HOLDFAST_TEST_KUBECONFIG {TOLD}")),
    )
    .await
}

/// Applies objects, whatever version the server has of their kind.
async fn apply(cluster: &Cluster, objects: &[Value]) {
    for object in objects {
        let mut object = Object(object.clone());
        let gvk = object.gvk();
        let resource =
            cluster.resources.find(&gvk.group, &gvk.kind).unwrap_or_else(|| panic!("{gvk} is not served"));
        object.0["apiVersion"] = resource.api_version().into();
        cluster
            .apply(resource, &object, &ApplyOptions::default())
            .await
            .unwrap_or_else(|e| panic!("{}: {e}", object.key()));
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn pod_spec() -> Value {
    json!({"serviceAccountName": "web", "priorityClassName": "protect-high", "containers": [{"name": "main", "image": "example.com/web",
        "envFrom": [{"secretRef": {"name": "keys"}}], "volumeMounts": [{"name": "d", "mountPath": "/d"}]}],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]})
}

fn application(namespace: &str) -> Vec<Value> {
    let named = |kind: &str, api: &str, name: &str, rest: Value| {
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"namespace": namespace, "name": name, "labels": {"app": "web"}}});
        for (field, value) in rest.as_object().unwrap() {
            object[field] = value.clone();
        }
        object
    };
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()});
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = "Never".into();
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "protect-high"}, "value": 1000}),
        named("ServiceAccount", "v1", "web", json!({})),
        named("Secret", "v1", "keys", json!({"stringData": {"dsn": "postgres://db.elsewhere.svc/x"}})),
        named(
            "PersistentVolumeClaim",
            "v1",
            "data",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        named(
            "Deployment",
            "apps/v1",
            "web",
            json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}}),
        ),
        named(
            "CronJob",
            "batch/v1",
            "nightly",
            json!({"spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": job}}}}),
        ),
        named(
            "Service",
            "v1",
            "web",
            json!({"spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}]}}),
        ),
        named(
            "Ingress",
            "networking.k8s.io/v1",
            "web",
            json!({"spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        ),
        named(
            "PodDisruptionBudget",
            "policy/v1",
            "web",
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        ),
        named(
            "RoleBinding",
            "rbac.authorization.k8s.io/v1",
            "web",
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": namespace}]}),
        ),
    ]
}

/// Waits until the controllers have done their part: pods of the Deployment, the accounts' tokens.
async fn settled(cluster: &Cluster, namespace: &str) {
    eventually("the controllers have made pods, accounts and tokens", || async {
        let count = |kind: &'static str| async move {
            let resource = cluster.resources.find("", kind).unwrap();
            cluster.list(resource, Some(namespace), None).await.unwrap().len()
        };
        count("Pod").await >= 2
            && count("ServiceAccount").await >= 2
            && count("Secret").await >= 3
            && count("Event").await >= 1
    })
    .await;
}

async fn select_in(cluster: &Cluster, namespace: &str) -> Selected {
    select(cluster, &Selection { namespaces: vec![namespace.into()], ..Selection::default() }).await.unwrap()
}

async fn drop_namespace(cluster: &Cluster, namespace: &str) {
    let resource = cluster.resources.find("", "Namespace").unwrap();
    cluster.delete(resource, "", namespace, Propagation::Background, None).await.unwrap();
}

#[tokio::test]
async fn kube_a_real_application_is_selected_whole_and_without_what_the_cluster_makes() {
    let (cluster, namespace) = (admin().await, "protect-whole");
    apply(&cluster, &application(namespace)).await;
    settled(&cluster, namespace).await;
    let selected = select_in(&cluster, namespace).await;

    let told = |restore: Restore| -> BTreeSet<String> {
        let fitting = selected.objects.iter().filter(|(_, p)| p.restore == restore);
        fitting
            .map(|(k, _)| {
                if restore == Restore::Yes {
                    k.to_string().replace(&format!(" {namespace}/"), " ")
                } else {
                    k.kind.clone()
                }
            })
            .collect()
    };
    let expected = [
        "CronJob nightly",
        "Deployment web",
        "Ingress web",
        "Namespace protect-whole",
        "PersistentVolumeClaim data",
        "PodDisruptionBudget web",
        "PriorityClass protect-high",
        "RoleBinding web",
        "Secret keys",
        "Service web",
        "ServiceAccount web",
    ];
    assert_eq!(told(Restore::Yes), expected.iter().map(|s| (*s).to_owned()).collect());
    assert_eq!(told(Restore::Owned), ["Pod", "ReplicaSet"].iter().map(|s| (*s).to_owned()).collect());
    let missing: Vec<_> = selected.references.iter().filter(|r| r.state == State::Missing).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(selected.findings.is_empty(), "{:#?}", selected.findings);

    // What the cluster chose is not in the clean object; what was asked for is.
    let stored = app::collect::collect(&selected).collect::<Vec<_>>();
    let clean = |kind: &str| {
        stored.iter().find(|o| o.key.kind == kind && o.restore == Restore::Yes).unwrap().clean.open().0
    };
    let service = clean("Service");
    assert_eq!(
        (service["spec"].get("clusterIP"), service["spec"]["ports"][0].get("nodePort")),
        (None, None),
        "{service}"
    );
    assert_eq!(service["spec"]["type"], "NodePort");
    assert_eq!(clean("ServiceAccount").get("secrets"), None, "the token is the old cluster's");

    // Every clean object is accepted as it is, in another namespace, by the same server.
    let fresh = "protect-whole-copy";
    apply(&cluster, &[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": fresh}})]).await;
    for object in stored.iter().filter(|o| o.restore == Restore::Yes && !o.key.namespace.is_empty()) {
        let mut copy = object.clean.open();
        copy.0["metadata"]["namespace"] = fresh.into();
        let resource = cluster.resources.find(&object.resource.group, &object.resource.kind).unwrap();
        cluster.create(resource, &copy, true).await.unwrap_or_else(|e| panic!("{}: {e}", object.key));
    }

    let found = discover(&cluster, &[namespace.into()]).await.unwrap();
    let web = found.applications.iter().find(|a| a.name == "web").unwrap();
    assert_eq!(
        web.workloads.iter().map(|k| k.to_string()).collect::<Vec<_>>(),
        [format!("Deployment {namespace}/web"), format!("CronJob {namespace}/nightly")]
    );
    assert_eq!(web.volumes.len(), 1);
    drop_namespace(&cluster, namespace).await;
    drop_namespace(&cluster, fresh).await;
}

#[tokio::test]
async fn kube_who_may_not_read_secrets_gets_the_rest_and_is_told() {
    let (cluster, namespace) = (admin().await, "protect-restricted");
    let state = std::env::var("HOLDFAST_TEST_STATE").unwrap_or_else(|_| panic!("HOLDFAST_TEST_STATE {TOLD}"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/real/user");
    let made = Command::new(script).arg("protector").env("HOLDFAST_TEST_STATE", state).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    apply(&cluster, &application(namespace)).await;
    apply(&cluster, &[
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"namespace": namespace, "name": "reader"}, "rules": [
            {"apiGroups": ["apps", "batch", "networking.k8s.io", "policy", "rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["configmaps", "services", "pods", "serviceaccounts", "persistentvolumeclaims"], "verbs": ["get", "list"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"namespace": namespace, "name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}, "subjects": [{"kind": "User", "name": "protector"}]}),
    ])
    .await;
    let restricted = connect(String::from_utf8_lossy(&made.stdout).trim()).await;
    // An authorizer hears of a new binding a moment later.
    eventually("the binding is in force", || async {
        let pods = restricted.resources.find("", "Pod").unwrap();
        restricted.list(pods, Some(namespace), None).await.is_ok()
    })
    .await;
    let selected = select_in(&restricted, namespace).await;
    assert!(
        selected
            .findings
            .iter()
            .any(|f| f.code == "forbidden" && f.what == format!("secrets in {namespace}")),
        "{:#?}",
        selected.findings
    );
    assert!(selected.objects.keys().any(|k| k.kind == "Deployment"));
    assert!(!selected.objects.keys().any(|k| k.kind == "Secret"));
    let missing: BTreeSet<String> = selected
        .references
        .iter()
        .filter(|r| r.state == State::Missing)
        .map(|r| format!("{}: {}", r.to, r.reason))
        .collect();
    assert_eq!(missing, [format!("Secret {namespace}/keys: not readable with these credentials")].into());

    let nobody =
        select(&restricted, &Selection { namespaces: vec!["default".into()], ..Selection::default() })
            .await
            .unwrap_err();
    assert!(matches!(nobody, app::error::Error::Denied(_)), "{nobody}");
    drop_namespace(&cluster, namespace).await;
}

#[tokio::test]
async fn kube_a_dead_api_service_costs_a_finding_and_not_the_backup() {
    // A broken API service stands in everybody's way.
    let own = OwnCluster::up().await;
    let cluster = connect(&own.kubeconfig).await;
    apply(&cluster, &application("protect-broken")).await;
    let dead = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.example.com"},
        "spec": {"group": "metrics.example.com", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true,
        "service": {"namespace": "protect-broken", "name": "nobody"}}});
    // Created and not applied: the server of 1.20 drops the connection when an APIService is applied.
    let resource = cluster.resources.find("apiregistration.k8s.io", "APIService").unwrap();
    cluster.create(resource, &Object(dead), false).await.unwrap();
    eventually("the group is announced", || async {
        let groups = cluster.get_path("/apis").await.unwrap();
        groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "metrics.example.com")
    })
    .await;
    let begun = Instant::now();
    let again = connect(&own.kubeconfig).await;
    assert_eq!(
        again.resources.broken.iter().map(|b| b.group_version.as_str()).collect::<Vec<_>>(),
        ["metrics.example.com/v1beta1"]
    );
    let selected = select_in(&again, "protect-broken").await;
    let told = selected.findings.iter().find(|f| f.code == "api-group-broken");
    assert!(told.is_some_and(|f| f.severity == repo::Severity::Error), "{:#?}", selected.findings);
    assert!(
        selected.objects.len() > 8,
        "{:?}",
        selected.objects.keys().map(ToString::to_string).collect::<Vec<_>>()
    );
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
