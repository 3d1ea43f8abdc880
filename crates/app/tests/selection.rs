//! What belongs to an application. Each case is a cluster in a few words, what was asked for, and what has to be in
//! the point: members, what is shared, what is cluster-scoped, and what the certificate says is missing.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

mod common;

use app::api::{ApiError, Cluster};
use app::certificate::State;
use app::error::Error;
use app::point::{Restore, Role};
use app::select::{Selected, Selection, select};
use common::{cluster, server, server_with};
use serde_json::json;

fn ask(words: &str) -> Selection {
    let mut selection = Selection::default();
    for word in words.split_whitespace() {
        match word.split_once(':') {
            Some(("ns", value)) => selection.namespaces.push(value.into()),
            Some(("app", value)) => selection.application = Some(value.into()),
            Some(("kind", value)) => selection.include_kinds.push(value.into()),
            Some(("not", value)) => selection.exclude_kinds.push(value.into()),
            Some(("without", value)) => selection.exclude_names.push(value.into()),
            Some(("label", value)) => selection.labels = value.into(),
            _ => panic!("{word:?}"),
        }
    }
    selection
}

/// `Deployment web, Secret s | shared: … | cluster: … | missing: …`, without the namespace `shop`, and without
/// the Namespace object that is always there.
fn told(selected: &Selected) -> String {
    let name = |key: &app::object::ObjectKey| key.to_string().replace(" shop/", " ");
    let of = |role: Role| {
        let keys = selected.objects.iter().filter(|(k, p)| p.role == role && k.kind != "Namespace");
        keys.map(|(k, p)| format!("{}{}", name(k), if p.restore == Restore::Yes { "" } else { "*" }))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut parts = vec![of(Role::Member)];
    for (word, text) in [("shared", of(Role::Shared)), ("cluster", of(Role::Cluster))] {
        if !text.is_empty() {
            parts.push(format!("{word}: {text}"));
        }
    }
    let missing: Vec<_> =
        selected.references.iter().filter(|r| r.state == State::Missing).map(|r| name(&r.to)).collect();
    if !missing.is_empty() {
        parts.push(format!("missing: {}", missing.join(", ")));
    }
    parts.join(" | ")
}

async fn check(story: &str, objects: &str, asked: &str, expected: &str) {
    let server = server(objects);
    let selected = select(&cluster(&server).await, &ask(asked)).await;
    let got = match selected {
        Ok(selected) => told(&selected),
        Err(e) => format!("error: {e}"),
    };
    assert_eq!(got, expected, "{story}");
}

#[tokio::test]
async fn what_an_application_needs_comes_along() {
    for (story, objects, asked, expected) in [
        (
            "a namespace is everything in it",
            "deploy web app=web secret:s; secret s; cm c",
            "ns:shop",
            "ConfigMap c, Secret s, Deployment web",
        ),
        (
            "a label brings what the labelled needs",
            "deploy web app=web secret:s cm:c sa:x pvc:data; secret s; cm c; sa x; pvc data; deploy other app=o; secret unused",
            "ns:shop label:app=web",
            "ConfigMap c, PersistentVolumeClaim data, Secret s, ServiceAccount x, Deployment web",
        ),
        (
            "what leads to it comes too",
            "deploy web app=web; svc web sel:app=web; hpa h scales:web; pdb p sel:app=web; np n sel:app=web; ing i svc:web tls:t; secret t",
            "ns:shop label:app=web",
            "Secret t, Service web, Deployment web, HorizontalPodAutoscaler h, Ingress i, NetworkPolicy n, PodDisruptionBudget p",
        ),
        (
            "a secret of two applications is shared",
            "deploy a app=a secret:s; deploy b app=b secret:s; secret s",
            "ns:shop label:app=a",
            "Deployment a | shared: Secret s",
        ),
        (
            "a policy for every pod is shared",
            "deploy a app=a; deploy b app=b; np deny",
            "ns:shop label:app=a",
            "Deployment a | shared: NetworkPolicy deny",
        ),
        (
            "classes, roles and bindings of its account are found, other accounts' are not",
            "deploy web app=web sa:x pvc:d prio:high; sa x; pvc d class:fast; sc fast; sc slow; prio high
             rb r sa:x role:r; role r; crb c sa:x sa:elsewhere/y clusterrole:cr; clusterrole cr; crb d sa:other/z clusterrole:cr2; clusterrole cr2; sa elsewhere/y",
            "ns:shop label:app=web",
            "PersistentVolumeClaim d, ServiceAccount x, Deployment web, Role r, RoleBinding r | cluster: ClusterRole cr, ClusterRoleBinding c, PriorityClass high, StorageClass fast",
        ),
        (
            "bindings of the default account count, though the account itself is every namespace's",
            "deploy web app=web; sa default; rb r sa:default role:r; role r",
            "ns:shop label:app=web",
            "Deployment web, Role r, RoleBinding r",
        ),
        (
            "and are shared if others run as it too",
            "deploy web app=web; deploy b app=b; sa default; rb r sa:default role:r; role r",
            "ns:shop label:app=web",
            "Deployment web | shared: Role r, RoleBinding r",
        ),
        (
            "a custom resource brings its definition",
            "crd things.example.com; thing t secret:s; secret s",
            "ns:shop kind:things",
            "Secret s, Thing.example.com t | cluster: CustomResourceDefinition things.example.com",
        ),
        (
            "a service of another namespace that is named in plain text",
            "deploy web app=web env:postgres://db.data.svc:5432 cm:c; cm c text:http://cache.other.svc.cluster.local; svc data/db sel:app=db; deploy data/db app=db",
            "ns:shop",
            "ConfigMap c, Deployment web | shared: Service data/db",
        ),
        (
            "pods and replica sets are kept as evidence of their owners",
            "deploy web app=web; rs web-1 app=web owner:Deployment/web; pod web-1-x app=web owner:ReplicaSet/web-1; pod lone app=web; pod done phase:Succeeded app=web",
            "ns:shop",
            "Pod done*, Pod lone, Pod web-1-x*, Deployment web, ReplicaSet web-1*",
        ),
        (
            "what an operator owns is restored: a password it generates anew would not open the data",
            "crd things.example.com; thing t; secret password owner:Thing/t; sts db owner:Thing/t; pod db-0 owner:StatefulSet/db; pvc d owner:StatefulSet/db",
            "ns:shop",
            "PersistentVolumeClaim d, Pod db-0*, Secret password, StatefulSet db, Thing.example.com t | cluster: CustomResourceDefinition things.example.com",
        ),
        (
            "claims of a stateful set",
            "sts db app=db template:data; pvc data-db-0 pv:pv-1; pv pv-1 path:/x; pvc data-db-1",
            "ns:shop label:app=db",
            "PersistentVolumeClaim data-db-0, StatefulSet db | cluster: PersistentVolume pv-1",
        ),
        (
            "events, leases and what every cluster makes stay out",
            "deploy web app=web; event e; cm kube-root-ca.crt; sa default",
            "ns:shop",
            "Deployment web",
        ),
        ("what is excluded stays out, and is not missing", "deploy web app=web secret:s; secret s; cm c", "ns:shop not:secrets without:cm*", "ConfigMap c, Deployment web"),
        ("names are excluded by pattern", "deploy web app=web cm:c1; cm c1; cm c2; secret c3", "ns:shop without:configmap/c*", "Secret c3, Deployment web"),
        ("kinds are asked for, needs come along", "deploy web app=web cm:c; cm c; svc other; secret s", "ns:shop kind:deploy", "ConfigMap c, Deployment web"),
    ] {
        check(story, objects, asked, expected).await;
    }
}

#[tokio::test]
async fn what_is_missing_is_told() {
    for (story, objects, asked, expected) in [
        (
            "a secret nobody has",
            "deploy web app=web secret:s",
            "ns:shop",
            "Deployment web | missing: Secret s",
        ),
        ("an optional secret nobody has", "deploy web app=web secret?:s", "ns:shop", "Deployment web"),
        (
            "a class nobody has",
            "pvc d class:gone",
            "ns:shop",
            "PersistentVolumeClaim d | missing: StorageClass gone",
        ),
        (
            "a class that only pairs a claim with a volume made by hand",
            "pv v path:/srv/v; pvc d class:manual pv:v",
            "ns:shop",
            "PersistentVolumeClaim d | cluster: PersistentVolume v",
        ),
        (
            "an old replica set's config is no loss",
            "deploy web app=web; rs web-1 cm:old owner:Deployment/web",
            "ns:shop",
            "Deployment web, ReplicaSet web-1*",
        ),
        ("a service named in text only is no loss", "cm c text:x.y.svc", "ns:shop", "ConfigMap c"),
        (
            "built-in roles are everywhere",
            "sa x; rb r sa:x clusterrole:view; deploy w sa:x",
            "ns:shop",
            "ServiceAccount x, Deployment w, RoleBinding r",
        ),
        (
            "a role nobody has",
            "sa x; rb r sa:x role:gone",
            "ns:shop",
            "ServiceAccount x, RoleBinding r | missing: Role gone",
        ),
    ] {
        check(story, objects, asked, expected).await;
    }
}

#[tokio::test]
async fn applications_are_asked_for_by_name() {
    let two = "deploy a/web app.kubernetes.io/instance=shop; deploy b/web app.kubernetes.io/instance=shop; secret a/s";
    for (story, objects, asked, expected) in [
        (
            "by its label",
            "deploy web app=web secret:s; secret s; deploy b app=b",
            "app:web",
            "Secret s, Deployment web",
        ),
        (
            "by nothing but its workload",
            "deploy web cm:c; cm c",
            "app:web ns:shop",
            "ConfigMap c, Deployment web",
        ),
        ("in two namespaces, one of them named", two, "app:shop ns:a", "Deployment a/web"),
        (
            "in two namespaces",
            two,
            "app:shop",
            "error: \"shop\" is an application in several namespaces (a, b); say which with -n",
        ),
        (
            "none such",
            two,
            "app:nope",
            "error: there is no application \"nope\"; `holdfast discover` lists them",
        ),
        ("no such namespace", two, "ns:nope", "error: there is no namespace \"nope\""),
        ("no namespace fits", two, "ns:nope-*", "error: no namespace fits nope-*"),
        ("nothing fits", two, "ns:a label:app=z", "error: nothing in a fits the selection"),
        (
            "no such kind",
            two,
            "ns:a kind:nope",
            "error: the cluster serves no kind \"nope\"; `kubectl api-resources` lists them",
        ),
        (
            "a malformed selector",
            two,
            "ns:a label:app=(",
            "error: label selector \"app=(\": the value has a character labels cannot have",
        ),
    ] {
        check(story, objects, asked, expected).await;
    }
}

#[tokio::test]
async fn a_namespace_pattern_takes_all_that_fit() {
    check(
        "both shops",
        "cm shop-a/x; cm shop-b/y; cm other/z",
        "ns:shop-*",
        "ConfigMap shop-a/x, ConfigMap shop-b/y",
    )
    .await;
    // One that nothing is in is a namespace all the same: its labels and what hangs on them.
    let server = server_with(apiserver::Options::deterministic(1), "cm shop-a/x");
    let empty = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop-empty", "labels": {"tier": "test"}}});
    assert!(server.load([empty]).is_empty());
    for (asked, want) in [("ns:shop-empty", vec!["shop-empty"]), ("ns:shop-*", vec!["shop-a", "shop-empty"])]
    {
        let selected = select(&cluster(&server).await, &ask(asked)).await.unwrap();
        let stored =
            selected.objects.keys().filter(|key| key.is("", "Namespace")).map(|key| key.name.as_str());
        assert_eq!(stored.collect::<Vec<_>>(), want, "{asked}");
        assert_eq!(selected.namespaces.iter().map(String::as_str).collect::<Vec<_>>(), want, "{asked}");
    }
    // More namespaces than are listed one by one.
    let many = "cm n1/x; cm n2/x; cm n3/x; cm n4/x; cm n5/x; cm m1/x";
    check(
        "many",
        many,
        "ns:n*",
        "ConfigMap n1/x, ConfigMap n2/x, ConfigMap n3/x, ConfigMap n4/x, ConfigMap n5/x",
    )
    .await;
}

#[test]
fn what_has_no_name_is_named_as_it_was_asked_for() {
    for (asked, name) in [
        ("app:web ns:shop", "web"),
        ("ns:b ns:a", "a+b"),
        ("ns:shop-*", "shop-*"),
        ("ns:shop label:app=web", "shop/app=web"),
        ("", "everything"),
    ] {
        assert_eq!(ask(asked).name(), name, "{asked}");
        assert_eq!(Selection::from_json(&ask(asked).to_json()), ask(asked));
    }
}

const WEB: &str = "deploy web app=web secret:s cm:c; secret s; cm c";

async fn with_denied(deny: fn(&apiserver::Access<'_>) -> bool) -> Result<Selected, Error> {
    let server = server_with(apiserver::Options::deterministic(1).deny(deny), WEB);
    select(&cluster(&server).await, &ask("ns:shop")).await
}

#[tokio::test]
async fn a_kind_that_may_not_be_read_makes_the_point_partial() {
    let selected = with_denied(|access| access.resource == "secrets").await.unwrap();
    assert_eq!(told(&selected), "ConfigMap c, Deployment web | missing: Secret s");
    let finding = selected.findings.iter().find(|f| f.code == "forbidden").unwrap();
    assert_eq!(finding.what, "secrets in shop");
    assert!(selected.references.iter().any(|r| r.reason == "not readable with these credentials"));
}

#[tokio::test]
async fn who_may_not_list_the_clusters_own_objects_still_gets_the_named_ones() {
    let server = server_with(
        apiserver::Options::deterministic(1).deny(|a| a.namespace.is_empty() && a.verb == "list"),
        "pvc d class:fast; sc fast",
    );
    let selected = select(&cluster(&server).await, &ask("ns:shop")).await.unwrap();
    assert_eq!(told(&selected), "PersistentVolumeClaim d | cluster: StorageClass fast");
    assert!(selected.findings.iter().all(|f| f.code != "forbidden"), "what was needed could be read");
}

#[tokio::test]
async fn credentials_that_may_read_nothing_are_an_error() {
    let error = with_denied(|access| access.namespace == "shop").await.unwrap_err();
    assert!(matches!(&error, Error::Denied(why) if why.contains("shop")), "{error}");
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_unreachable() {
    let refuses = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("connection refused"))
    });
    let error = Cluster::connect(kube::Client::new(refuses, "default")).await.unwrap_err();
    assert!(
        matches!(&error, ApiError::Unreachable { message, .. } if message.contains("connection refused")),
        "{error}"
    );
}
