//! An application's life with the command line: found, backed up, looked at, compared, lost, restored. And what is
//! wrong with the cluster, the rights or the request, told with its exit code.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // A test may: its helpers are tests too.

mod support;

use serde_json::json;
use std::time::{Duration, Instant};
use support::cluster::Cluster;
use support::{Dice, Place, plant, same_trees, tree};

/// A run, the exit code it must have, what its message must contain.
struct Case<'a> {
    name: &'a str,
    args: &'a [&'a str],
    code: i32,
    says: &'a [&'a str],
}

/// Runs each case and looks that neither the cluster nor the place changed.
#[track_caller]
fn check(cluster: &Cluster, cases: &[Case]) {
    let (objects, files) = (cluster.server.dump(), cluster.place.all());
    for case in cases {
        let run = cluster.place.run(case.args);
        assert_eq!(run.code, case.code, "{}: exit code\n{}{}", case.name, run.out, run.err);
        for part in case.says {
            assert!(run.err.contains(part), "{}: the message lacks {part:?}:\n{}", case.name, run.err);
        }
        assert!(objects == cluster.server.dump(), "{}: the cluster is as it was", case.name);
        same_trees(case.name, &files, &cluster.place.all());
    }
}

#[test]
fn found_backed_up_compared_lost_and_restored() {
    let cluster = Cluster::new();
    let place = &cluster.place;
    plant(&cluster.data("shop", "data"), &mut Dice(11), 12, 30_000);
    let data = tree(&cluster.data("shop", "data"));

    let discovered = place.run(&["discover", "-o", "json"]).expect(0).json();
    let shop = &discovered["applications"].as_array().unwrap().iter().find(|a| a["name"] == "shop").unwrap();
    assert_eq!(
        (shop["namespace"].as_str(), shop["volumes"][0]["claim"].as_str()),
        (Some("shop"), Some("data"))
    );
    for args in [&["discover", "-o", "dot"][..], &["discover", "shop", "-o", "dot"]] {
        let graph = place.run(args).expect(0);
        assert!(graph.out.starts_with("digraph ") && graph.out.trim_end().ends_with('}'), "{}", graph.out);
    }
    let wrong = place.run(&["points", "-o", "dot"]).expect(2);
    assert!(wrong.err.contains("discover"), "{}", wrong.err);
    let one = place.run(&["discover", "shop"]).expect(0);
    assert!(one.out.contains("Deployment web") && one.out.contains("volume data: 1Gi"), "{}", one.out);

    let before = tree(&place.path("repo"));
    let dry = place.run(&["backup", "shop", "--dry-run"]).expect(0);
    assert!(dry.out.contains("Deployment shop/web") && dry.out.contains("data"), "{}", dry.out);
    same_trees("a dry run writes nothing", &before, &tree(&place.path("repo")));

    let backup = place.run(&["backup", "shop"]).expect(0);
    assert!(backup.out.contains("volume shop/data: 12 files"), "{}", backup.out);
    assert!(backup.out.contains("consistency fuzzy"), "no rule held it, and it says so: {}", backup.out);
    let points = place.run(&["points"]).expect(0);
    let mut lines = points.out.lines();
    assert!(lines.next().unwrap().starts_with("POINT"), "{}", points.out);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!((row[1], row[4], row[5]), ("shop", "fuzzy", "yes"), "{}", points.out);
    let shown = place.run(&["show", row[0]]).expect(0);
    assert!(shown.out.contains("Certificate: COMPLETE"), "{}", shown.out);
    assert_eq!(place.run(&["points", "-o", "json"]).expect(0).json()["points"].as_array().unwrap().len(), 1);
    for format in ["json", "yaml"] {
        assert!(
            place.run(&["show", "latest", "-o", format]).expect(0).out.contains("certificate"),
            "{format}"
        );
    }

    place.run(&["diff", "latest"]).expect(0);
    cluster.request(
        "PATCH",
        "/api/v1/namespaces/shop/configmaps/config",
        Some(json!({ "data": { "A": "2" } })),
    );
    let diff = place.run(&["diff", "latest"]).expect(10);
    assert!(diff.out.contains("~ ConfigMap shop/config") && diff.out.contains("/data/A"), "{}", diff.out);
    place.run(&["backup", "shop"]).expect(0);
    let diff = place.run(&["diff", row[0], "latest"]).expect(10);
    assert!(
        diff.out.contains("/data/A")
            && !diff.out.contains("data of PersistentVolumeClaim shop/data: changed"),
        "{}",
        diff.out
    );

    let stream = place.run(&["export", row[0]]).expect(0).out;
    assert!(stream.contains("kind: Deployment") && stream.contains("kind: Secret"), "{stream}");
    let without = place.run(&["export", row[0], "--no-secrets", "-o", "json"]).expect(0).json();
    assert!(without["items"].as_array().unwrap().iter().all(|o| o["kind"] != "Secret"));
    let folder = place.text("manifests");
    place.run(&["export", row[0], "--dir", &folder]).expect(0);
    place.run(&["export", row[0], "--dir", &folder]).expect(8);

    let served = place
        .run(&["browse", row[0], "--", "sh", "-c", "grep server: $KUBECONFIG; echo $KUBECONFIG"])
        .expect(0);
    assert!(served.out.contains("http://127.0.0.1:"), "{}", served.out);
    assert!(!std::path::Path::new(served.out.lines().last().unwrap()).exists(), "its kubeconfig is gone");
    place.run(&["browse", row[0], "--", "false"]).expect(1);

    cluster.request("DELETE", "/api/v1/namespaces/shop", None);
    assert_eq!(cluster.request("GET", "/api/v1/namespaces/shop", None)["code"], 404);
    let objects = cluster.server.dump();
    let plan = place.run(&["restore", row[0], "--plan"]).expect(0);
    assert!(
        plan.out.contains("+ create    Deployment shop/web") && plan.out.contains("data into 1 claim"),
        "{}",
        plan.out
    );
    assert!(objects == cluster.server.dump(), "a plan changes nothing");
    let restored = place.run(&["restore", row[0]]).expect(0);
    assert!(
        restored.out.contains("Restored shop:") && restored.out.contains(" 0 failed"),
        "{}",
        restored.out
    );
    same_trees("the data", &data, &tree(&cluster.data("shop", "data")));
    assert_eq!(cluster.request("GET", "/api/v1/namespaces/shop/configmaps/config", None)["data"]["A"], "1");
    let again = place.run(&["restore", row[0]]).expect(0);
    assert!(
        again.out.contains("0 created, 0 updated"),
        "the second time there is nothing to do: {}",
        again.out
    );

    place.run(&["restore", row[0], "--to", "shop=shop-copy"]).expect(0);
    same_trees("the copy's data", &data, &tree(&cluster.data("shop-copy", "data")));
    place.run(&["repo", "check", "--read-data"]).expect(0);
}

#[test]
fn a_plan_is_approved_on_paper_and_executed_once() {
    let cluster = Cluster::new();
    let place = &cluster.place;
    plant(&cluster.data("shop", "data"), &mut Dice(12), 3, 3_000);
    place.run(&["backup", "shop"]).expect(0);
    let made = place.run(&["restore", "latest", "--plan", "-o", "json", "--to", "shop=shop-copy"]).expect(0);
    let paper = place.path("plan.json");
    std::fs::write(&paper, &made.out).unwrap();
    let forged = place.path("forged.json");
    std::fs::write(&forged, made.out.replace("\"skip\"", "\"update\"")).unwrap();
    let (paper, forged) = (paper.display().to_string(), forged.display().to_string());
    let cases = [
        Case {
            name: "forged",
            args: &["restore", "--execute", &forged],
            code: 8,
            says: &["was changed after it was made"],
        },
        Case {
            name: "no plan",
            args: &["restore", "--execute", "/dev/null"],
            code: 2,
            says: &["no restore plan"],
        },
        Case {
            name: "no file",
            args: &["restore", "--execute", "/nowhere/x"],
            code: 2,
            says: &["/nowhere/x"],
        },
        Case {
            name: "both",
            args: &["restore", "latest", "--execute", &paper],
            code: 2,
            says: &["--execute"],
        },
        Case { name: "neither", args: &["restore"], code: 2, says: &["POINT"] },
        Case {
            name: "with a mapping",
            args: &["restore", "--execute", &paper, "--to", "a=b"],
            code: 2,
            says: &["--to"],
        },
    ];
    check(&cluster, &cases);
    place.run(&["restore", "--execute", &paper]).expect(0);
    let moved = cluster
        .server
        .dump()
        .iter()
        .any(|o| o["metadata"]["namespace"] == "shop-copy" && o["kind"] == "Deployment");
    assert!(moved, "it was restored under the approved mapping");
    let again = [Case {
        name: "again",
        args: &["restore", "--execute", &paper],
        code: 8,
        says: &["target has changed"],
    }];
    check(&cluster, &again);
}

#[test]
fn requests_that_do_not_fit_are_told_and_change_nothing() {
    let cluster = Cluster::new();
    let place = &cluster.place;
    plant(&cluster.data("shop", "data"), &mut Dice(12), 3, 3_000);
    let file = |name: &str, text: &str| {
        std::fs::write(place.path(name), text).unwrap();
        place.text(name)
    };
    let no_rule = file("rule1", "kind: Pod\n");
    let misspelt = file(
        "rule2",
        "apiVersion: holdfast.dev/v1alpha1\nkind: Rule\nmetadata: {name: r}\nspec:\n  pre: [{podSelector: {a: b}, comand: x}]\n",
    );
    let no_map = file("map1", "namespaces: [shop]\n");
    let no_patch = file("map2", "patches: [{target: {kind: Ingress}, patch: [{op: explode, path: /x}]}]\n");
    let no_config = file("config", "this: is not a kubeconfig: at all\n");
    let absent = place.text("absent");
    check(
        &cluster,
        &[
            Case { name: "unknown application", args: &["backup", "shoop"], code: 4, says: &["shoop"] },
            Case {
                name: "unknown application, looked at",
                args: &["discover", "shoop"],
                code: 4,
                says: &["shoop"],
            },
            Case {
                name: "unknown namespace",
                args: &["backup", "-n", "nowhere"],
                code: 4,
                says: &["nowhere"],
            },
            Case {
                name: "a selector that matches nothing",
                args: &["backup", "-l", "app=none"],
                code: 4,
                says: &["app=none"],
            },
            Case {
                name: "malformed selector",
                args: &["backup", "-l", "app in (a"],
                code: 2,
                says: &["app in (a"],
            },
            Case {
                name: "unknown kind",
                args: &["backup", "-n", "shop", "--include-kind", "Gadget"],
                code: 4,
                says: &["Gadget"],
            },
            Case { name: "nothing asked for", args: &["backup"], code: 2, says: &["required"] },
            Case {
                name: "no rule",
                args: &["backup", "shop", "--rule", &no_rule],
                code: 2,
                says: &["kind: Rule", &no_rule],
            },
            Case {
                name: "misspelt rule",
                args: &["backup", "shop", "--rule", &misspelt],
                code: 2,
                says: &["spec.pre[0].comand", "unknown field"],
            },
            Case {
                name: "no such rule file",
                args: &["backup", "shop", "--rule", &absent],
                code: 2,
                says: &[&absent],
            },
            Case {
                name: "a hold of no time",
                args: &["backup", "shop", "--hold", "0"],
                code: 2,
                says: &["--hold"],
            },
            Case {
                name: "no Velero location",
                args: &["import", "velero", &place.text("repo")],
                code: 4,
                says: &["no Velero backup", "`backups/`"],
            },
            Case { name: "no such point", args: &["restore", "abcdef01"], code: 4, says: &["abcdef01"] },
            Case {
                name: "no kubeconfig",
                args: &["discover", "--kubeconfig", &absent],
                code: 2,
                says: &[&absent],
            },
            Case {
                name: "malformed kubeconfig",
                args: &["discover", "--kubeconfig", &no_config],
                code: 2,
                says: &[&no_config],
            },
            Case {
                name: "unknown context",
                args: &["discover", "--context", "prod"],
                code: 2,
                says: &["prod"],
            },
        ],
    );
    place.run(&["backup", "shop"]).expect(0);
    cluster.request(
        "PATCH",
        "/api/v1/namespaces/shop/configmaps/config",
        Some(json!({ "data": { "A": "2" } })),
    );
    check(
        &cluster,
        &[
            Case {
                name: "malformed mapping",
                args: &["restore", "latest", "--to", "shop"],
                code: 2,
                says: &["shop", "OLD=NEW"],
            },
            Case {
                name: "a namespace that cannot be",
                args: &["restore", "latest", "--to", "shop=No_Name"],
                code: 2,
                says: &["No_Name"],
            },
            Case {
                name: "malformed mapping file",
                args: &["restore", "latest", "--mapping", &no_map],
                code: 2,
                says: &[&no_map],
            },
            Case {
                name: "malformed patch",
                args: &["restore", "latest", "--mapping", &no_patch],
                code: 2,
                says: &["patch 1", "explode"],
            },
            Case {
                name: "no such mapping file",
                args: &["restore", "latest", "--mapping", &absent],
                code: 2,
                says: &[&absent],
            },
            Case {
                name: "unknown policy",
                args: &["restore", "latest", "--conflict", "merge"],
                code: 2,
                says: &["merge", "skip, update, recreate, replace or fail"],
            },
            Case {
                name: "policy fail",
                args: &["restore", "latest", "--conflict", "fail"],
                code: 8,
                says: &["ConfigMap shop/config", "nothing was restored"],
            },
            Case {
                name: "replace without consent",
                args: &["restore", "latest", "--conflict", "replace"],
                code: 8,
                says: &["--yes"],
            },
            Case {
                name: "nothing selected",
                args: &["restore", "latest", "--name", "nothing-like-it"],
                code: 4,
                says: &["show"],
            },
            Case {
                name: "unknown kind in the point",
                args: &["restore", "latest", "--kind", "gadget"],
                code: 4,
                says: &["gadget"],
            },
            Case {
                name: "unknown application's point",
                args: &["restore", "latest:shoop"],
                code: 4,
                says: &["shoop"],
            },
            Case { name: "points of nothing", args: &["points", "shoop"], code: 4, says: &["shoop"] },
            Case {
                name: "served to everybody",
                args: &["browse", "latest", "--listen", "0.0.0.0:0"],
                code: 2,
                says: &["127.0.0.1"],
            },
        ],
    );
}

#[test]
fn a_cluster_that_does_not_answer_or_refuses_us_is_told() {
    let cluster = Cluster::new();
    let place = &cluster.place;
    let kubeconfig = |name: &str, server: String, user: &str| {
        let text = std::fs::read_to_string(place.path("kubeconfig")).unwrap();
        let old = text.lines().find(|l| l.contains("server:")).unwrap().trim().to_owned();
        let text =
            text.replace(&old, &format!("server: {server}")).replace("user: {}", &format!("user: {user}"));
        std::fs::write(place.path(name), text).unwrap();
        place.text(name)
    };
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        kubeconfig("nobody", format!("http://{}", listener.local_addr().unwrap()), "{}")
    };
    // A server that knows nobody: what an expired token or certificate gets.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let expired = kubeconfig("expired", format!("http://{}", listener.local_addr().unwrap()), "{token: old}");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            use std::io::{Read, Write};
            let _ = stream.read(&mut [0; 4096]);
            let body = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let begun = Instant::now();
    check(
        &cluster,
        &[
            Case {
                name: "unreachable",
                args: &["backup", "shop", "--kubeconfig", &nobody],
                code: 6,
                says: &["no answer", "refused"],
            },
            Case {
                name: "expired credentials",
                args: &["backup", "shop", "--kubeconfig", &expired],
                code: 5,
                says: &["nauthorized"],
            },
            Case {
                name: "expired credentials, looking",
                args: &["discover", "--kubeconfig", &expired],
                code: 5,
                says: &["nauthorized"],
            },
        ],
    );
    assert!(begun.elapsed() < Duration::from_secs(60), "told within seconds: {:?}", begun.elapsed());
    let alone = Place::with_repository();
    let run = alone.run(&["discover"]).expect(5);
    assert!(run.err.contains("no credentials") && run.err.contains("--kubeconfig"), "{}", run.err);
}

#[test]
fn partial_rights_give_a_partial_point_that_says_so() {
    let cluster = Cluster::denying(|access| access.resource == "secrets");
    // Who insists on a complete point gets none.
    let run = cluster.place.run(&["backup", "-n", "shop", "--require-complete"]).expect(11);
    assert!(run.err.contains("would lack") && run.err.contains("Secret shop/secret"), "{}", run.err);
    cluster.place.run(&["backup", "-n", "shop", "--require-complete", "--dry-run"]).expect(11);
    assert_eq!(cluster.place.run(&["points", "-o", "json"]).expect(0).json()["points"], json!([]));
    let run = cluster.place.run(&["backup", "-n", "shop"]).expect(3);
    assert!(run.out.contains("INCOMPLETE") && run.out.contains("secrets"), "{}", run.out);
    let points = cluster.place.run(&["points"]).expect(0);
    assert!(points.out.contains("NO"), "{}", points.out);
    let shown = cluster.place.run(&["show", "latest"]).expect(0);
    assert!(
        shown.out.contains("Certificate: INCOMPLETE") && shown.out.contains("Secret shop/secret"),
        "{}",
        shown.out
    );
}

#[test]
fn no_rights_at_all_are_told_and_nothing_is_committed() {
    let cluster = Cluster::denying(|access| access.namespace == "shop" || access.namespace.is_empty());
    let run = cluster.place.run(&["backup", "-n", "shop"]);
    assert_eq!(run.code, 5, "{}{}", run.out, run.err);
    assert_eq!(cluster.place.run(&["points", "-o", "json"]).expect(0).json()["points"], json!([]));
}

#[test]
fn a_volume_out_of_reach_is_missing_with_its_reason() {
    let mut cluster = Cluster::new();
    cluster.place.env.retain(|(name, _)| name != "HOLDFAST_NODE_NAME");
    let run = cluster.place.run(&["backup", "shop", "--node-name", "elsewhere"]).expect(3);
    assert!(run.out.contains("volume MISSING shop/data") && run.out.contains("node-1"), "{}", run.out);
    let shown = cluster.place.run(&["show", "latest"]).expect(0);
    assert!(shown.out.contains("MISSING") && shown.out.contains("INCOMPLETE"), "{}", shown.out);
}

#[test]
fn a_rule_that_cannot_be_run_fails_the_backup_and_commits_nothing() {
    // The embedded server runs no containers: exec is refused there.
    let cluster = Cluster::new();
    let rule = cluster.place.path("rule");
    let text = "apiVersion: holdfast.dev/v1alpha1\nkind: Rule\nmetadata: {name: r}\nspec:\n  pre:\n  - podSelector: {app.kubernetes.io/name: shop}\n    command: sync\n";
    std::fs::write(&rule, text).unwrap();
    let run = cluster.place.run(&["backup", "shop", "--rule", &rule.display().to_string()]).expect(1);
    assert!(run.err.contains("nothing was committed"), "{}", run.err);
    assert_eq!(cluster.place.run(&["points", "-o", "json"]).expect(0).json()["points"], json!([]));
}

#[test]
fn ctrl_c_during_backup_and_restore_leaves_points_whole_and_can_be_repeated() {
    let cluster = Cluster::new();
    let place = &cluster.place;
    let mut dice = Dice(13);
    plant(&cluster.data("shop", "data"), &mut dice, 60, 60_000);
    let points = || place.run(&["points", "-o", "json"]).expect(0).json()["points"].as_array().unwrap().len();
    let begun = Instant::now();
    place.run(&["backup", "shop"]).expect(0);
    let whole = begun.elapsed();
    let interrupt = |args: &[&str], dice: &mut Dice| {
        let child = place.spawn(args);
        std::thread::sleep(whole.mul_f64(dice.below(1_100) as f64 / 1_000.0));
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::INT,
        );
        support::Run::of(child.wait_with_output().unwrap())
    };
    let (mut before, mut interrupted) = (points(), 0);
    for _ in 0..20 {
        let run = interrupt(&["backup", "shop", "--full"], &mut dice);
        let now = points();
        match run.code {
            0 => assert_eq!(now, before + 1),
            130 => {
                assert_eq!(now, before, "{}", run.err);
                assert!(run.err.contains("nothing was"), "{}", run.err);
                interrupted += 1;
            }
            1002 => assert_eq!(now, before),
            code => panic!("exit code {code}: {}{}", run.out, run.err),
        }
        before = now;
    }
    assert!(interrupted >= 5, "the instants lie inside the run: {interrupted}");
    let data = tree(&cluster.data("shop", "data"));
    for _ in 0..10 {
        cluster.request("DELETE", "/api/v1/namespaces/shop", None);
        let run = interrupt(&["restore", "latest"], &mut dice);
        assert!(matches!(run.code, 0 | 130 | 1002), "exit code {}: {}{}", run.code, run.out, run.err);
        if run.code == 130 {
            assert!(
                run.err.contains("nothing was changed") || run.err.contains("the rest was not tried"),
                "{}",
                run.err
            );
        }
        // As it says itself: the same command again completes it.
        place.run(&["restore", "latest"]).expect(0);
        same_trees("restored after all", &data, &tree(&cluster.data("shop", "data")));
    }
    place.run(&["repo", "check", "--read-data"]).expect(0);
}

#[test]
fn clusters_are_looked_at_beside_each_other() {
    let (east, west) = (Cluster::new(), Cluster::second());
    let place = &east.place;
    // One kubeconfig with both, as people have it.
    let named = |cluster: &Cluster, name: &str| {
        let text =
            std::fs::read_to_string(cluster.place.path("kubeconfig")).unwrap().replace("embedded", name);
        std::fs::write(place.path(name), text).unwrap();
        place.text(name)
    };
    let both = format!("{}:{}", named(&east, "east"), named(&west, "west"));
    let run =
        |args: &[&str]| support::Run::of(place.command(args).env("KUBECONFIG", &both).output().unwrap());
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "front", "namespace": "shop"},
        "spec": {"rules": [{"host": "shop.west.example.com"}]}});
    west.request("POST", "/apis/networking.k8s.io/v1/namespaces/shop/ingresses", Some(ingress));
    east.request(
        "PATCH",
        "/api/v1/namespaces/shop/configmaps/config",
        Some(json!({"data": {"BACKEND_URL": "https://shop.west.example.com/api"}})),
    );
    let told = run(&["discover", "--context", "east", "--beside", "west"]).expect(0);
    let wanted =
        "east ConfigMap shop/config (shop/shop) reaches west Ingress shop/front as shop.west.example.com";
    assert!(
        told.out.contains("east:") && told.out.contains("west:") && told.out.contains(wanted),
        "{}",
        told.out
    );
    let told = run(&["discover", "--context", "east", "--beside", "west", "-o", "json"]).expect(0).json();
    assert_eq!(told["between"][0]["bond"], "reaches");
    assert_eq!(told["clusters"][1]["context"], "west");
    for (args, says) in [
        (&["discover", "--context", "east", "--beside", "north"][..], "north"),
        (&["discover", "--context", "east", "--beside", "east"], "one cluster under two names"),
        (&["discover", "shop", "--beside", "west"], "--beside"),
        (&["discover", "--beside", "west", "-o", "dot"], "a graph is of one cluster"),
    ] {
        let refused = run(args).expect(2);
        assert!(refused.err.contains(says), "{args:?}: {}", refused.err);
    }
}
