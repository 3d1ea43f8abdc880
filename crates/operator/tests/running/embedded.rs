//! On the embedded API server, with a clock of ours: days pass in seconds.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::support::{OURS, World, account, embedded, point, repository, secret};

const START: &str = "2026-05-01T09:55:00Z";

/// A repository that is only named, a policy every ten minutes, and the application `shop`.
async fn shop(world: &World) {
    let keys = json!({"read": {"secret": "none", "key": "key"}});
    let repository = json!({"url": "s3://bucket/prefix", "credentials": {"secret": "none"}, "keys": keys});
    world.ours("shop", "Repository", "repositories", "main", repository).await;
    let policy = json!({"repository": {"name": "main"}, "rpo": "25m", "schedules": [{"name": "often", "cron": "*/10 * * * *"}]});
    world.ours("shop", "Policy", "policies", "gold", policy).await;
    world.ours("shop", "Application", "applications", "shop", json!({"policy": {"name": "gold"}})).await;
}

/// As whoever takes points will say it.
async fn ready(world: &World, name: &str) {
    let path = format!("{}/{name}/status", world.path("shop", "recoverypoints"));
    let time = world.clock.read().wall.to_string();
    world
        .patch(
            &path,
            json!({"status": {"phase": "Ready", "time": time, "application": "shop", "complete": true}}),
        )
        .await;
}

#[tokio::test]
async fn points_are_asked_for_on_time_once_whoever_leads() {
    let (world, dir) = (embedded(START).await, tempfile::tempdir().unwrap());
    shop(&world).await;
    let first = world.replica("first", dir.path());
    let app = format!("{}/shop", world.path("shop", "applications"));
    world.eventually("the first leads", async || world.holder().await.starts_with("first_")).await;
    world.eventually("it is scheduled", async || world.reason(&app, "Scheduled").await == "Scheduled").await;
    assert_eq!(world.get(&app).await["status"]["schedules"][0]["next"], json!("2026-05-01T10:00:00Z"));
    assert_eq!(world.reason(&app, "Protected").await, "NoPointYet");
    let second = world.replica("second", dir.path());

    world.pass_until("2026-05-01T10:00:02Z").await;
    let ten = "shop-often-20260501-100000".to_owned();
    world.eventually("the first point", async || world.points("shop").await == [ten.clone()]).await;
    let path = format!("{}/{ten}", world.path("shop", "recoverypoints"));
    world
        .eventually("it waits", async || world.get(&path).await["status"]["phase"] == json!("Pending"))
        .await;
    let spec = world.get(&path).await["spec"].clone();
    assert_eq!(spec["schedule"], json!({"name": "often", "at": "2026-05-01T10:00:00Z"}));
    ready(&world, &ten).await;
    world.eventually("protected", async || world.reason(&app, "Protected").await == "WithinObjective").await;

    // The leader dies shortly before a run. The other one takes over, late, and asks for it.
    world.pass_until("2026-05-01T10:09:58Z").await;
    first.kill().await;
    world.pass_until("2026-05-01T10:10:05Z").await;
    assert_eq!(world.points("shop").await.len(), 1);
    world.eventually("the second leads", async || world.holder().await.starts_with("second_")).await;
    let both = vec![ten, "shop-often-20260501-101000".into()];
    world.eventually("the second point", async || world.points("shop").await == both).await;

    // It stays unfinished: the next runs are dropped and told, and in time the objective is missed, without any run being due then.
    world.pass_until("2026-05-01T10:20:05Z").await;
    world.eventually("dropped", async || world.events("shop").await.contains(&"RunSkipped".to_owned())).await;
    assert_eq!(world.points("shop").await, both);
    assert_eq!(world.reason(&app, "Protected").await, "WithinObjective");
    let made = world.get(&app).await["status"]["lastPoint"]["time"].as_str().unwrap().to_owned();
    let missed = made.parse::<jiff::Timestamp>().unwrap().checked_add(SignedDuration::from_mins(25)).unwrap();
    world.pass_until(&missed.to_string()).await;
    world.eventually("missed", async || world.reason(&app, "Protected").await == "ObjectiveMissed").await;
    assert!(world.clock.read().wall.duration_since(missed) < SignedDuration::from_secs(20), "by a timer");
    assert!(world.events("shop").await.contains(&"RpoMissed".to_owned()));
    ready(&world, &both[1]).await;
    world.eventually("met again", async || world.events("shop").await.contains(&"RpoMet".to_owned())).await;
    assert_eq!(world.get(&app).await["status"]["points"], json!(2));
    assert_eq!(second.stop().await, 0);
    assert_eq!(world.holder().await, "", "given back");
}

#[tokio::test]
async fn a_clock_that_leaps_costs_a_change_of_leaders_and_no_point() {
    let (world, dir) = (embedded(START).await, tempfile::tempdir().unwrap());
    shop(&world).await;
    let replica = world.replica("only", dir.path());
    let app = format!("{}/shop", world.path("shop", "applications"));
    world.eventually("it is scheduled", async || world.reason(&app, "Scheduled").await == "Scheduled").await;
    // Three hours on: whoever led cannot know whether another does, and its process begins anew. One point stands for all runs missed.
    world.clock.leap(SignedDuration::from_hours(3));
    let one = vec!["shop-often-20260501-125000".to_owned()];
    world.eventually("one point for eighteen runs", async || world.points("shop").await == one).await;
    world.eventually("told", async || world.events("shop").await.contains(&"CaughtUp".to_owned())).await;
    ready(&world, &one[0]).await;
    // Set back by half an hour: what ran does not run again.
    world.clock.leap(SignedDuration::from_mins(-30));
    world.pass(25 * 60).await;
    assert_eq!(world.points("shop").await, one);
    world.pass_until("2026-05-01T13:00:05Z").await;
    world.eventually("the next one", async || world.points("shop").await.len() == 2).await;
    assert!(replica.stop().await >= 1, "the lease was lost by the leap");
}

#[tokio::test]
async fn an_application_says_what_is_wrong_with_what_it_names() {
    let (world, dir) = (embedded(START).await, tempfile::tempdir().unwrap());
    let replica = world.replica("only", dir.path());
    let app = format!("{}/shop", world.path("shop", "applications"));
    world
        .ours(
            "shop",
            "Application",
            "applications",
            "shop",
            json!({"policy": {"name": "gold", "namespace": OURS}}),
        )
        .await;
    world.eventually("no policy", async || world.reason(&app, "Accepted").await == "RefNotFound").await;
    let policy =
        json!({"repository": {"name": "main"}, "schedules": [{"name": "often", "cron": "*/10 * * * *"}]});
    world.ours(OURS, "Policy", "policies", "gold", policy).await;
    world.eventually("not for it", async || world.reason(&app, "Accepted").await == "NotAllowed").await;
    let gold = format!("{}/gold", world.path(OURS, "policies"));
    let for_shops = json!({"spec": {"allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "shop"}}}}});
    world.patch(&gold, for_shops.clone()).await;
    world.patch("/api/v1/namespaces/shop", json!({"metadata": {"labels": {"team": "shop"}}})).await;
    world
        .eventually("no repository", async || {
            world.condition(&app, "Accepted").await.1.contains("there is no Repository holdfast-system/main")
        })
        .await;
    let keys = json!({"read": {"secret": "none", "key": "key"}});
    world.ours(OURS, "Repository", "repositories", "main", json!({"url": "s3://b/p", "keys": keys})).await;
    world
        .eventually("not for it", async || {
            world
                .condition(&app, "Accepted")
                .await
                .1
                .contains("Repository holdfast-system/main does not allow")
        })
        .await;
    world.patch(&format!("{}/main", world.path(OURS, "repositories")), for_shops).await;
    world.eventually("accepted", async || world.reason(&app, "Accepted").await == "Valid").await;
    world
        .eventually("counted", async || {
            let status = world.get(&gold).await["status"].clone();
            (&status["applications"], &status["conditions"][0]["reason"]) == (&json!(1), &json!("Valid"))
        })
        .await;
    // A policy that is suspended, and one that is taken away.
    world.patch(&gold, json!({"spec": {"suspend": true}})).await;
    world.eventually("suspended", async || world.reason(&app, "Scheduled").await == "Suspended").await;
    world.patch("/api/v1/namespaces/shop", json!({"metadata": {"labels": {"team": null}}})).await;
    world.eventually("taken away", async || world.reason(&app, "Accepted").await == "NotAllowed").await;
    replica.stop().await;
}

/// The cluster's id is the UID of `kube-system`.
async fn cluster_id(world: &World) -> String {
    world.get("/api/v1/namespaces/kube-system").await["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_repository_is_opened_its_points_get_objects_and_tenants_are_not_lent_our_standing() {
    let (world, dir) = (embedded(START).await, tempfile::tempdir().unwrap());
    let (repository, key) = repository(&dir.path().join("repo"));
    world.clock.pass(std::time::Duration::from_secs(4 * 3600));
    let id = cluster_id(&world).await;
    let labels = |cluster: &str, complete: &str| -> Vec<(String, String)> {
        [
            ("application", "shop"),
            ("cluster", cluster),
            ("namespaces", "shop"),
            ("complete", complete),
            ("consistency", "crash"),
        ]
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
    };
    let put = |cluster: &str, complete: &str| {
        let labels = labels(cluster, complete);
        let labels: Vec<(&str, &str)> =
            labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        point(&repository, &labels, world.clock.read().wall)
    };
    let (own, foreign) = (put(&id, "true"), put("other-cluster", "true"));
    let url = dir.path().join("repo").display().to_string();
    let spec = |account: Value| {
        let mut spec = json!({"url": url, "keys": {"read": {"secret": "keys", "key": "read"}}, "allowedNamespaces": {"from": "All"}});
        if !account.is_null() {
            spec["serviceAccountName"] = account;
        }
        spec
    };
    let replica = world.replica("only", dir.path());
    world.ours(OURS, "Repository", "repositories", "main", spec(Value::Null)).await;
    let main = format!("{}/main", world.path(OURS, "repositories"));
    let ready = async |reason: &str| world.reason(&main, "Ready").await == reason;
    world
        .eventually("nobody asked for it", async || {
            world.reason(&main, "Authorized").await == "RequesterUnknown"
        })
        .await;
    assert!(ready("NotAuthorized").await);
    world.make(&format!("/api/v1/namespaces/{OURS}/serviceaccounts"), account("keeper")).await;
    world.patch(&main, json!({"spec": {"serviceAccountName": "keeper"}})).await;
    world.eventually("no key", async || ready("KeyRefused").await).await;
    assert!(world.condition(&main, "Ready").await.1.contains("there is no Secret holdfast-system/keys"));
    world.make(&format!("/api/v1/namespaces/{OURS}/secrets"), secret("keys", "read", "a passphrase")).await;
    world
        .eventually("no key file", async || {
            world.condition(&main, "Ready").await.1.contains("a passphrase is not taken")
        })
        .await;
    let keys = format!("/api/v1/namespaces/{OURS}/secrets/keys");
    world.patch(&keys, json!({"data": secret("", "read", &key)["data"]})).await;
    world.eventually("open", async || ready("Open").await).await;

    let status = world.get(&main).await["status"].clone();
    assert_eq!(status["id"], json!(repository.id().to_string()));
    assert_eq!(status["capabilities"], json!(["put", "list", "read"]));
    assert_eq!(
        (&status["points"], &status["applications"]),
        (&json!(2), &json!(2)),
        "two clusters' shop are two"
    );
    // Ours in its namespace, the other's beside the Repository.
    world
        .eventually("found", async || {
            world.points("shop").await.len() == 1 && world.points(OURS).await.len() == 1
        })
        .await;
    let mine = world.items(&world.path("shop", "recoverypoints")).await.remove(0);
    assert_eq!(mine["spec"]["commit"], json!(own));
    assert_eq!(
        (&mine["status"]["phase"], &mine["status"]["consistency"]),
        (&json!("Ready"), &json!("Crash"))
    );
    let theirs = world.items(&world.path(OURS, "recoverypoints")).await.remove(0);
    assert_eq!(
        (&theirs["spec"]["commit"], &theirs["metadata"]["labels"]["holdfast.dev/cluster"]),
        (&json!(foreign), &json!("other-cluster"))
    );

    // An application of that name counts them as its own.
    world
        .ours(
            "shop",
            "Application",
            "applications",
            "shop",
            json!({"repository": {"name": "main", "namespace": OURS}}),
        )
        .await;
    let app = format!("{}/shop", world.path("shop", "applications"));
    world
        .eventually("its point", async || {
            world.get(&app).await["status"]["lastPoint"]["commit"] == json!(own)
        })
        .await;

    // Somebody deletes the object: it comes back. The commit goes: so does the object, and it is told.
    let name = mine["metadata"]["name"].as_str().unwrap();
    let path = format!("{}/{name}", world.path("shop", "recoverypoints"));
    world.cluster.json(http::Method::DELETE, &path, "application/json", Some(&json!({}))).await.unwrap();
    assert!(world.points("shop").await.is_empty());
    world.pass(301).await;
    world.eventually("back", async || world.points("shop").await == [name]).await;
    repo::store::Store::delete(&**repository.store(), &format!("commits/{own}")).unwrap();
    world.pass(301).await;
    world.eventually("gone", async || world.points("shop").await.is_empty()).await;
    world.eventually("told", async || world.events(OURS).await.contains(&"PointGone".to_owned())).await;
    assert_eq!(world.points(OURS).await.len(), 1);

    // The same of a tenant: refused before anything is opened.
    world.make("/api/v1/namespaces/shop/serviceaccounts", account("keeper")).await;
    world.make("/api/v1/namespaces/shop/secrets", secret("keys", "read", &key)).await;
    world.ours("shop", "Repository", "repositories", "mine", spec(json!("keeper"))).await;
    let mine = format!("{}/mine", world.path("shop", "repositories"));
    world.eventually("not allowed", async || world.reason(&mine, "Accepted").await == "NotAllowed").await;
    assert!(world.get(&mine).await["status"]["id"].is_null());
    replica.stop().await;
}

#[tokio::test]
async fn a_label_is_enough_and_goes_with_what_was_made_for_it() {
    let (world, dir) = (embedded(START).await, tempfile::tempdir().unwrap());
    shop(&world).await;
    world
        .cluster
        .json(
            http::Method::DELETE,
            &format!("{}/shop", world.path("shop", "applications")),
            "application/json",
            Some(&json!({})),
        )
        .await
        .unwrap();
    let replica = world.replica("only", dir.path());
    let all = async || world.items(&world.path("shop", "applications")).await;
    world
        .patch("/api/v1/namespaces/shop", json!({"metadata": {"labels": {"holdfast.dev/policy": "gold"}}}))
        .await;
    world.eventually("made", async || all().await.len() == 1).await;
    let made = all().await.remove(0);
    assert_eq!(made["spec"]["selection"], json!({"whole": true}));
    let app = format!("{}/shop", world.path("shop", "applications"));
    world.eventually("scheduled", async || world.reason(&app, "Scheduled").await == "Scheduled").await;
    world
        .patch("/api/v1/namespaces/shop", json!({"metadata": {"labels": {"holdfast.dev/policy": null}}}))
        .await;
    world.eventually("gone", async || all().await.is_empty()).await;

    // A workload: what it belongs to is found out in the name of the policy's account.
    let pod = |name: &str| json!({"metadata": {"labels": {"run": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let workload = |name: &str, labels: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": {"run": name}}, "template": pod(name)}})
    };
    let part = |policy: &str| json!({"app.kubernetes.io/part-of": "web-shop", "holdfast.dev/policy": policy});
    let deployments = "/apis/apps/v1/namespaces/shop/deployments";
    world.make(deployments, workload("web", part("gold"))).await;
    world.make(deployments, workload("api", part("gold"))).await;
    world
        .eventually("whose rights?", async || world.events("default").await.contains(&"Denied".to_owned()))
        .await;
    assert!(all().await.is_empty());
    world.make("/api/v1/namespaces/shop/serviceaccounts", account("reader")).await;
    world
        .patch(
            &format!("{}/gold", world.path("shop", "policies")),
            json!({"spec": {"serviceAccountName": "reader"}}),
        )
        .await;
    world.eventually("one for both", async || all().await.len() == 1).await;
    let made = all().await.remove(0);
    assert_eq!(
        (made["metadata"]["name"].as_str(), &made["spec"]["selection"]),
        (Some("web-shop"), &json!({"application": "web-shop", "whole": false}))
    );
    world
        .eventually("for both", async || {
            let made = all().await.remove(0);
            made["metadata"]["annotations"]["holdfast.dev/made-for"] == json!("Deployment/api,Deployment/web")
        })
        .await;
    for name in ["web", "api"] {
        world
            .patch(
                &format!("{deployments}/{name}"),
                json!({"metadata": {"labels": {"holdfast.dev/policy": null}}}),
            )
            .await;
    }
    world.eventually("gone", async || all().await.is_empty()).await;
    replica.stop().await;
}
