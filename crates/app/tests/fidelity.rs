//! Fidelity, field by field, on both servers: what docs/restore.md says of a field is made, backed up, lost, restored and looked at.
//! The embedded server shows that we do it; the real one, with its controllers, that it is the right thing to do.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

#[path = "common/apps.rs"]
mod apps;
#[path = "common/own.rs"]
mod own;
#[path = "common/round.rs"]
mod round;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use apiserver::{ApiServer, Options};
use app::api::{Cluster, Propagation};
use app::object::{Object, ObjectKey};
use app::point::Point;
use app::restore::{
    Action, ClusterScoped, Consent, Deadlines, Done, Executor, OnConflict, Report, RestoreOptions,
    RestorePlan, plan,
};
use futures::{FutureExt, StreamExt};
use own::OwnCluster;
use repo::{Env, Finding};
use serde_json::{Value, json};

/// Where a story is told.
#[derive(Clone)]
struct Stage {
    cluster: Cluster,
    /// Somebody counts quotas, fills in tokens and binds volumes.
    has_controllers: bool,
}

impl Stage {
    fn embedded() -> impl Future<Output = Stage> {
        let server = ApiServer::new(Options::deterministic(1));
        async move {
            let cluster = Cluster::connect(kube::Client::new(server.router(), "default")).await.unwrap();
            Stage { cluster, has_controllers: false }
        }
    }

    /// With the kinds as they are served now.
    async fn now(&self) -> Cluster {
        round::anew(&self.cluster).await
    }

    async fn make(&self, objects: &[Value]) {
        for object in objects {
            // A namespace takes pods once it has its account.
            if object["kind"] == "Pod" && self.has_controllers {
                let space = object["metadata"]["namespace"].as_str().unwrap();
                round::eventually("the account", async || {
                    self.get("", "ServiceAccount", space, "default").await.is_some()
                })
                .await;
            }
            apps::create(&self.cluster, std::slice::from_ref(object)).await;
        }
    }

    async fn get(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<Object> {
        let key = ObjectKey::new(group, kind, namespace, name);
        self.now().await.get_key(&key).await.unwrap()
    }

    async fn one(&self, kind: &str, namespace: &str, name: &str) -> Object {
        self.get("", kind, namespace, name)
            .await
            .unwrap_or_else(|| panic!("{kind} {namespace}/{name} is there"))
    }

    async fn patch(
        &self,
        group: &str,
        kind: &str,
        (namespace, name): (&str, &str),
        part: Option<&str>,
        patch: Value,
    ) {
        let cluster = self.now().await;
        let resource = cluster.resources.find(group, kind).unwrap();
        cluster.merge_patch(resource, namespace, name, part, &patch).await.unwrap();
    }

    async fn delete(&self, group: &str, kind: &str, namespace: &str, name: &str) {
        let cluster = self.now().await;
        let resource = cluster.resources.find(group, kind).unwrap();
        cluster.delete(resource, namespace, name, Propagation::Background, None).await.unwrap();
        round::eventually("it is gone", async || self.get(group, kind, namespace, name).await.is_none())
            .await;
    }

    async fn point(&self, namespace: &str) -> Point {
        round::backed_up(&round::repository(), &self.now().await, &[namespace.to_owned()]).await
    }

    async fn plan(&self, point: &Point, options: &RestoreOptions) -> RestorePlan {
        plan(point, &self.now().await, options).await.unwrap()
    }

    async fn restore(&self, point: &Point, options: &RestoreOptions) -> Report {
        let plan = self.plan(point, options).await;
        let executor = Executor {
            deadlines: Deadlines { step: Duration::from_millis(50), ..Deadlines::default() },
            ..Executor::new(self.now().await, Env::real())
        };
        let consent = Consent { replace: true, ..Consent::default() };
        plan.approve(&consent).unwrap().execute(&executor).await
    }
}

fn codes<'a>(findings: &'a [Finding], code: &str) -> Vec<&'a str> {
    findings.iter().filter(|f| f.code == code).map(|f| f.what.as_str()).collect()
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// An object of a namespace: its metadata beside that, and the rest.
fn object(api: &str, kind: &str, space: &str, metadata: Value, rest: Value) -> Value {
    let mut object = json!({"apiVersion": api, "kind": kind, "metadata": metadata});
    object["metadata"]["namespace"] = json!(space);
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    object
}

/// Finalizers, generated names, tokens, limits and quotas, what hangs on a namespace.
async fn names_and_limits(stage: &Stage) {
    const SPACE: &str = "as-meant";
    let named =
        |api: &str, kind: &str, metadata: Value, rest: Value| object(api, kind, SPACE, metadata, rest);
    let mut space = namespace(SPACE);
    space["metadata"]["labels"] = json!({"pod-security.kubernetes.io/warn": "baseline", "team": "a"});
    space["metadata"]["annotations"] = json!({"example.com/owner": "b"});
    let containers = json!([{"name": "c", "image": "example.com/c:1"}]);
    let token = json!({"name": "robot-key", "annotations": {"kubernetes.io/service-account.name": "robot"}});
    let limits = json!([{"type": "Container", "default": {"cpu": "500m", "memory": "64Mi"}}]);
    let objects = [
        space,
        named("v1", "ServiceAccount", json!({"name": "robot"}), json!({})),
        named("v1", "ConfigMap", json!({"generateName": "settings-"}), json!({"data": {"a": "b"}})),
        named("v1", "Secret", token, json!({"type": "kubernetes.io/service-account-token"})),
        named("v1", "ConfigMap", json!({"name": "kept", "finalizers": ["example.com/mine"]}), json!({})),
        // Older than the limits, so that it has none; and there may be one only, and only with limits. Whoever comes back
        // before them is refused, or unlimited.
        named("v1", "Pod", json!({"name": "alone"}), json!({"spec": {"containers": containers}})),
        named("v1", "LimitRange", json!({"name": "small"}), json!({"spec": {"limits": limits}})),
        named(
            "v1",
            "ResourceQuota",
            json!({"name": "few"}),
            json!({"spec": {"hard": {"pods": "1", "limits.cpu": "500m"}}}),
        ),
    ];
    stage.make(&objects).await;
    let uid = "/metadata/annotations/kubernetes.io~1service-account.uid";
    if stage.has_controllers {
        round::eventually("the token is filled in", async || {
            stage.one("Secret", SPACE, "robot-key").await.at("/data/token").is_some()
        })
        .await;
    } else {
        let filled = json!({"metadata": {"annotations": {"kubernetes.io/service-account.uid": "u1"}}, "data": {"token": "b2xk"}});
        stage.patch("", "Secret", (SPACE, "robot-key"), None, filled).await;
    }
    let before = stage.one("Secret", SPACE, "robot-key").await;
    let point = stage.point(SPACE).await;
    let generated =
        point.objects.iter().find(|o| o.key.name.starts_with("settings-")).unwrap().key.name.clone();
    round::lose(&stage.cluster, &objects).await;

    let plan = stage.plan(&point, &RestoreOptions::default()).await;
    let order: Vec<&str> = plan.steps().map(|step| step.key.kind.as_str()).collect();
    let first = |kind: &str| order.iter().position(|k| *k == kind).unwrap();
    for limit in ["LimitRange", "ResourceQuota"] {
        assert!(first("Namespace") < first(limit) && first(limit) < first("ConfigMap"), "{order:?}");
        assert!(first(limit) < first("Pod"), "{order:?}");
    }
    let report = stage.restore(&point, &RestoreOptions::default()).await;
    assert!(report.is_complete() && report.failed == 0, "{:#?} {:#?}", report.findings, report.objects);

    let settings = stage.one("ConfigMap", SPACE, &generated).await;
    assert_eq!(settings.str("/data/a"), "b", "under the name that was generated");
    let kept = stage.one("ConfigMap", SPACE, "kept").await;
    assert_eq!(kept.at("/metadata/finalizers"), Some(&json!(["example.com/mine"])));
    let pod = stage.one("Pod", SPACE, "alone").await;
    assert_eq!(pod.str("/spec/containers/0/resources/limits/cpu"), "500m", "limited as any new pod is");
    round::eventually("the quota counts it", async || {
        stage.one("ResourceQuota", SPACE, "few").await.str("/status/used/pods") == "1"
    })
    .await;
    let space = stage.one("Namespace", "", SPACE).await;
    assert_eq!(space.label("team"), Some("a"));
    assert_eq!(space.label("pod-security.kubernetes.io/warn"), Some("baseline"), "policies hang on it");
    assert_eq!(space.annotation("example.com/owner"), Some("b"));

    let now = stage.one("Secret", SPACE, "robot-key").await;
    assert_eq!(now.annotation("kubernetes.io/service-account.name"), Some("robot"), "it is asked for again");
    if stage.has_controllers {
        round::eventually("it is filled in again", async || {
            stage.one("Secret", SPACE, "robot-key").await.at("/data/token").is_some()
        })
        .await;
        let now = stage.one("Secret", SPACE, "robot-key").await;
        let robot = stage.one("ServiceAccount", SPACE, "robot").await;
        assert_eq!(now.str(uid), robot.uid(), "for the new account");
        assert_ne!(now.str(uid), before.str(uid));
        assert_ne!(now.str("/data/token"), before.str("/data/token"));
    } else {
        assert_eq!(
            (now.at(uid), now.at("/data")),
            (None, None),
            "the old cluster's token is nothing to the new one"
        );
    }
    let again = stage.plan(&point, &RestoreOptions::default()).await;
    let open: Vec<_> = again.steps().filter(|s| s.action != Action::Unchanged).collect();
    assert!(open.is_empty(), "{open:#?}");
    round::lose(&stage.cluster, &objects).await;
}

/// Addresses that the cluster chose: the same again where they are free, others and a word where they are not.
async fn addresses(stage: &Stage) {
    const SPACE: &str = "reached";
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let spec = json!({"spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": ports}});
    let objects = [namespace(SPACE), object("v1", "Service", SPACE, json!({"name": "web"}), spec)];
    let of = |service: &Object| {
        let at = |at: &str| service.at(at).cloned().unwrap_or_else(|| panic!("{at} in {service:?}"));
        [at("/spec/clusterIP"), at("/spec/ports/0/nodePort"), at("/spec/ports/1/nodePort")]
    };
    stage.make(&objects).await;
    let before = stage.one("Service", SPACE, "web").await;
    let point = stage.point(SPACE).await;
    round::lose(&stage.cluster, &objects).await;
    let report = stage.restore(&point, &RestoreOptions::default()).await;
    assert!(report.is_complete(), "{:#?}", report.findings);
    assert_eq!(codes(&report.findings, "address-changes"), [""; 0], "{:#?}", report.findings);
    assert_eq!(of(&stage.one("Service", SPACE, "web").await), of(&before), "free, so the same");
    assert!(!stage.plan(&point, &RestoreOptions::default()).await.changes_anything());

    round::lose(&stage.cluster, &objects).await;
    let rival = json!({"spec": {"type": "NodePort", "clusterIP": of(&before)[0], "ports": [{"port": 80, "nodePort": of(&before)[1]}]}});
    let rivals = [namespace("rival"), object("v1", "Service", "rival", json!({"name": "first"}), rival)];
    stage.make(&rivals).await;
    let report = stage.restore(&point, &RestoreOptions::default()).await;
    assert!(report.is_complete(), "{:#?}", report.findings);
    let want = [format!("Service {SPACE}/web"), format!("Service {SPACE}/web")];
    assert_eq!(codes(&report.findings, "address-changes"), want, "{:#?}", report.findings);
    let after = stage.one("Service", SPACE, "web").await;
    assert_ne!(of(&after)[0], of(&before)[0]);
    assert_ne!(of(&after)[1], of(&before)[1]);
    assert_eq!(of(&after)[2], of(&before)[2], "this one was free");
    assert!(
        !stage.plan(&point, &RestoreOptions::default()).await.changes_anything(),
        "no difference ever after"
    );
    round::lose(&stage.cluster, &objects).await;
    round::lose(&stage.cluster, &rivals).await;
}

/// What a server does not let anybody change: told, and made again with consent only.
async fn immutable(stage: &Stage) {
    const SPACE: &str = "cast";
    let config = |name: &str, word: &str, immutable: bool| {
        object(
            "v1",
            "ConfigMap",
            SPACE,
            json!({"name": name}),
            json!({"data": {"a": word}, "immutable": immutable}),
        )
    };
    let workload = |label: &str| {
        let labels = json!({"app": label});
        let pods = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "example.com/c:1"}]}});
        let spec = json!({"spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pods}});
        object("apps/v1", "Deployment", SPACE, json!({"name": "web"}), spec)
    };
    let all = |word: &str| [config("fixed", word, true), config("loose", word, false), workload(word)];
    let objects: Vec<Value> = std::iter::once(namespace(SPACE)).chain(all("old")).collect();
    stage.make(&objects).await;
    let point = stage.point(SPACE).await;
    for (group, kind, name) in
        [("", "ConfigMap", "fixed"), ("", "ConfigMap", "loose"), ("apps", "Deployment", "web")]
    {
        stage.delete(group, kind, SPACE, name).await;
    }
    stage.make(&all("new")).await;
    let loose = stage.one("ConfigMap", SPACE, "loose").await;
    for (policy, cast) in [(OnConflict::Update, Action::Skip), (OnConflict::Recreate, Action::Replace)] {
        let options = RestoreOptions { on_conflict: policy, ..RestoreOptions::default() };
        let plan = stage.plan(&point, &options).await;
        let of = |name: &str| plan.steps().find(|step| step.key.name == name).unwrap();
        assert_eq!((of("fixed").action, of("web").action, of("loose").action), (cast, cast, Action::Update));
        for name in ["fixed", "web"] {
            assert!(of(name).reason.contains("cannot be changed in place"), "{}", of(name).reason);
        }
        let told = codes(&plan.findings, "not-updated").len();
        assert_eq!(told, if cast == Action::Skip { 2 } else { 0 }, "{:#?}", plan.findings);
        assert_eq!(
            plan.approve(&Consent::default()).is_err(),
            cast == Action::Replace,
            "not without consent"
        );
    }
    let options = RestoreOptions { on_conflict: OnConflict::Recreate, ..RestoreOptions::default() };
    let report = stage.restore(&point, &options).await;
    assert!(report.is_complete() && report.failed == 0, "{:#?}", report.findings);
    assert_eq!(stage.one("ConfigMap", SPACE, "fixed").await.str("/data/a"), "old");
    let now = stage.one("ConfigMap", SPACE, "loose").await;
    assert_eq!((now.str("/data/a"), now.uid()), ("old", loose.uid()), "updated in place");
    let web = stage.get("apps", "Deployment", SPACE, "web").await.unwrap();
    assert_eq!(web.str("/spec/selector/matchLabels/app"), "old");
    assert!(!stage.plan(&point, &options).await.changes_anything());
    round::lose(&stage.cluster, &objects).await;
}

/// A definition of `things.GROUP` with these versions, all of the same fields, the first of them stored.
fn definition(group: &str, versions: &[&str], conversion: Value) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}});
    let version = |(i, name): (usize, &&str)| json!({"name": name, "served": true, "storage": i == 0, "schema": schema, "subresources": {"status": {}}});
    let versions: Vec<Value> = versions.iter().enumerate().map(version).collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("things.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "versions": versions, "conversion": conversion,
            "names": {"kind": "Thing", "plural": "things", "singular": "thing", "listKind": "ThingList"}}})
}

/// A custom resource: its status, its owner, its definition of another age.
async fn custom_resources(stage: &Stage) {
    const SPACE: &str = "custom";
    const GROUP: &str = "fidelity.example.com";
    let none = json!({"strategy": "None"});
    let thing = |name: &str, said: Value| {
        let metadata = json!({"name": name, "annotations": said});
        object(&format!("{GROUP}/v1alpha1"), "Thing", SPACE, metadata, json!({"spec": {"size": 3}}))
    };
    let owner = json!([{"apiVersion": format!("{GROUP}/v1alpha1"), "kind": "Thing", "name": "a", "uid": "", "controller": false}]);
    let objects = [
        namespace(SPACE),
        definition(GROUP, &["v1alpha1"], none.clone()),
        thing("a", json!({"velero.io/restore-status": "true"})),
        thing("b", json!({})),
        object("v1", "ConfigMap", SPACE, json!({"name": "of-a", "ownerReferences": owner}), json!({})),
    ];
    // All at once, since an owner is looked for among what was made with it.
    apps::create(&stage.cluster, &objects).await;
    for name in ["a", "b"] {
        stage.patch(GROUP, "Thing", (SPACE, name), Some("status"), json!({"status": {"id": "k1"}})).await;
    }
    let before = stage.get(GROUP, "Thing", SPACE, "a").await.unwrap();
    let point = stage.point(SPACE).await;
    assert!(
        point.objects.iter().any(|o| o.key.kind == "CustomResourceDefinition"),
        "its definition came along"
    );

    // With its own definition; and where somebody has a newer one already, in the version that one serves.
    for newer in [None, Some(definition(GROUP, &["v1"], none))] {
        round::lose(&stage.cluster, &objects).await;
        let version = if newer.is_some() { "v1" } else { "v1alpha1" };
        if let Some(newer) = &newer {
            stage.make(std::slice::from_ref(newer)).await;
            round::eventually("the newer version is served", async || {
                stage.now().await.resources.find(GROUP, "Thing").is_some_and(|t| t.version == version)
            })
            .await;
        }
        let report = stage.restore(&point, &RestoreOptions::default()).await;
        assert!(report.is_complete() && report.failed == 0, "{version}: {:#?}", report.findings);
        let a = stage.get(GROUP, "Thing", SPACE, "a").await.unwrap();
        assert_eq!(a.str("/apiVersion"), format!("{GROUP}/{version}"));
        assert_eq!(a.at("/spec/size"), Some(&json!(3)));
        assert_eq!(a.str("/status/id"), "k1", "it says of itself that its status is to be restored");
        let b = stage.get(GROUP, "Thing", SPACE, "b").await.unwrap();
        assert_eq!(b.at("/status/id"), None, "this one's controller observes it anew");
        let owners = stage.one("ConfigMap", SPACE, "of-a").await.owner_references();
        assert_eq!(owners.iter().map(|o| o.uid.as_str()).collect::<Vec<_>>(), [a.uid()], "its new self");
        assert_ne!(a.uid(), before.uid());
        assert!(!stage.plan(&point, &RestoreOptions::default()).await.changes_anything(), "{version}");
    }

    // Only a converter could tell what it means in the version that is served, and that cannot be asked: told.
    round::lose(&stage.cluster, &objects).await;
    let service = json!({"namespace": "nowhere", "name": "converter", "path": "/"});
    let webhook = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"service": service}}});
    stage.make(&[definition(GROUP, &["v1"], webhook)]).await;
    round::eventually("it is served", async || stage.now().await.resources.find(GROUP, "Thing").is_some())
        .await;
    let plan = stage.plan(&point, &RestoreOptions::default()).await;
    let left: Vec<String> = plan.left.iter().map(|left| left.key.to_string()).collect();
    assert_eq!(left, [format!("Thing.{GROUP} {SPACE}/a"), format!("Thing.{GROUP} {SPACE}/b")]);
    assert_eq!(codes(&plan.findings, "not-served"), left, "{:#?}", plan.findings);
    round::lose(&stage.cluster, &objects).await;
}

/// What belongs to the whole cluster goes by its own policy.
async fn cluster_scoped(stage: &Stage) {
    const SPACE: &str = "within";
    let class = |note: &str| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "fidelity-high"},
            "value": 5, "description": note})
    };
    let labels = json!({"app": "web"});
    let pods = json!({"metadata": {"labels": labels}, "spec": {"priorityClassName": "fidelity-high", "containers": [{"name": "c", "image": "example.com/c:1"}]}});
    let spec = json!({"spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pods}});
    let objects = [
        namespace(SPACE),
        class("ours"),
        object("apps/v1", "Deployment", SPACE, json!({"name": "web"}), spec),
    ];
    stage.make(&objects).await;
    let point = stage.point(SPACE).await;
    for (there, policy, want, says) in [
        (None, ClusterScoped::Create, Some(Done::Created), Some("ours")),
        (None, ClusterScoped::Leave, None, None),
        (Some("theirs"), ClusterScoped::Create, Some(Done::Skipped), Some("theirs")),
        (Some("theirs"), ClusterScoped::Conflict, Some(Done::Updated), Some("ours")),
    ] {
        round::lose(&stage.cluster, &objects).await;
        if let Some(note) = there {
            stage.make(&[class(note)]).await;
        }
        let on_conflict = OnConflict::Update;
        let options = RestoreOptions { cluster_scoped: policy, on_conflict, ..RestoreOptions::default() };
        let report = stage.restore(&point, &options).await;
        let done = report.objects.iter().find(|o| o.key.kind == "PriorityClass").map(|o| o.done);
        assert_eq!(done, want, "{there:?} {policy:?}");
        let live = stage.get("scheduling.k8s.io", "PriorityClass", "", "fidelity-high").await;
        assert_eq!(live.as_ref().map(|class| class.str("/description")), says, "{there:?} {policy:?}");
        assert!(
            stage.get("apps", "Deployment", SPACE, "web").await.is_some(),
            "the rest is there in any case"
        );
        assert_eq!(
            report.left.iter().any(|left| left.key.kind == "PriorityClass"),
            want.is_none(),
            "and it is told"
        );
    }
    round::lose(&stage.cluster, &objects).await;
}

#[tokio::test]
async fn names_finalizers_tokens_and_limits_come_back_as_people_meant_them() {
    names_and_limits(&Stage::embedded().await).await;
}

#[tokio::test]
async fn a_service_has_the_addresses_it_had_as_far_as_they_are_free() {
    addresses(&Stage::embedded().await).await;
}

#[tokio::test]
async fn what_cannot_be_changed_is_made_again_with_consent_only() {
    immutable(&Stage::embedded().await).await;
}

#[tokio::test]
async fn custom_resources_come_back_with_status_and_owner_in_a_version_that_is_served() {
    custom_resources(&Stage::embedded().await).await;
}

#[tokio::test]
async fn what_belongs_to_the_whole_cluster_goes_by_its_own_policy() {
    cluster_scoped(&Stage::embedded().await).await;
}

/// On a cluster of its own: addresses that are free are so only as long as nobody else makes services.
#[tokio::test]
async fn kube_every_field_comes_back_as_it_is_told() {
    let own = OwnCluster::up().await;
    let stage = Stage { cluster: own.connect().await, has_controllers: true };
    // Side by side, since most of the time is spent waiting until a namespace is gone; they share nothing.
    let names = ["names and limits", "addresses", "immutable", "custom resources", "cluster-scoped"];
    let stories = futures::stream::iter(names).map(|name| {
        let stage = stage.clone();
        async move {
            let begun = std::time::Instant::now();
            let story = async {
                match name {
                    "names and limits" => names_and_limits(&stage).await,
                    "addresses" => addresses(&stage).await,
                    "immutable" => immutable(&stage).await,
                    "custom resources" => custom_resources(&stage).await,
                    _ => cluster_scoped(&stage).await,
                }
            };
            // One that ends badly says nothing of the others.
            let told = AssertUnwindSafe(story).catch_unwind().await;
            println!("{name}: {:?}", begun.elapsed());
            (name, told.is_err())
        }
    });
    let told: Vec<(&str, bool)> = stories.buffer_unordered(5).collect().await;
    let wrong: Vec<_> = told.into_iter().filter(|(_, is_wrong)| *is_wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}: see the panics above");
}
