//! An application that really runs: a PostgreSQL in a container, on a volume of its own, under load. Held by a rule for the
//! cut, backed up, deleted with its namespace, restored, and asked what it remembers.
//!
//! What our own API server and a cluster without nodes cannot show: exec through a kubelet, a storage class that gives
//! a claim its volume only for a pod, a volume with a file system of its own, a database that has to start on what it gets.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // A test may: its helpers are tests too.

mod support;

use support::node::Nodes;
use support::root;

/// One transaction takes from nobody: these four are equal after each.
const SUMS: &str = "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), \
                    (select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history)";
const COUNT: &str = "select count(*) from pgbench_history";

/// A session that locks the tables of the load holds them as long as the cut takes.
const RULE: &str = r#"
apiVersion: holdfast.dev/v1alpha1
kind: Rule
metadata: {name: postgres}
spec:
  hold: 60s
  pre:
  - podSelector: {app: db}
    container: postgres
    timeout: 30s
    lock:
      command: >-
        printf '%s\n' 'begin;'
        'lock table pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history in exclusive mode;'
        'checkpoint;' '\! ${WAIT_CMD}' 'commit;'
        | psql --no-psqlrc -v ON_ERROR_STOP=1 -U postgres
"#;

/// The database of one namespace.
struct Bank<'a> {
    nodes: &'a Nodes,
    namespace: &'a str,
}

impl Bank<'_> {
    #[track_caller]
    fn sql(&self, query: &str) -> String {
        self.nodes.kubectl(&[
            "-n",
            self.namespace,
            "exec",
            "db-0",
            "--",
            "psql",
            "-U",
            "postgres",
            "-Atc",
            query,
        ])
    }

    #[track_caller]
    fn is_ready(&self) {
        self.nodes.kubectl(&["-n", self.namespace, "rollout", "status", "statefulset/db", "--timeout=120s"]);
    }

    fn transactions(&self) -> u64 {
        self.sql(COUNT).parse().unwrap()
    }

    /// The node its volume is on, as options for our commands.
    fn options(&self) -> [String; 4] {
        let node = self.nodes.kubectl(&[
            "-n",
            self.namespace,
            "get",
            "pod",
            "db-0",
            "-o",
            "jsonpath={.spec.nodeName}",
        ]);
        self.nodes.on(&node)
    }
}

fn with<'a>(first: &[&'a str], rest: &'a [String]) -> Vec<&'a str> {
    first.iter().copied().chain(rest.iter().map(String::as_str)).collect()
}

#[test]
fn node_a_database_under_load_is_held_lost_and_restored_with_every_transaction() {
    let nodes = Nodes::of_this_run();
    let bank = Bank { nodes: &nodes, namespace: "recovered-bank" };
    let place = nodes.place();
    std::fs::write(place.path("rule.yaml"), RULE).unwrap();
    let rule = place.text("rule.yaml");

    nodes.kubectl(&["create", "namespace", bank.namespace]);
    let manifest = root().join("tests/real/postgres.yaml").display().to_string();
    nodes.kubectl(&["-n", bank.namespace, "apply", "--validate=false", "-f", &manifest]);
    bank.is_ready();
    nodes.kubectl(&[
        "-n",
        bank.namespace,
        "exec",
        "db-0",
        "--",
        "pgbench",
        "-i",
        "-q",
        "-s",
        "1",
        "-U",
        "postgres",
    ]);
    let load = [
        "-n",
        bank.namespace,
        "exec",
        "db-0",
        "--",
        "pgbench",
        "-n",
        "-c",
        "4",
        "-T",
        "300",
        "-U",
        "postgres",
    ];
    let mut load = nodes.command(&load).spawn().unwrap();
    nodes.eventually("the load runs", || bank.transactions() > 100);

    let options = bank.options();
    let before = bank.transactions();
    let backup = place.run(&with(&["backup", "-n", bank.namespace, "--rule", &rule], &options)).expect(0);
    let after = bank.transactions();
    println!("{}\n{before} transactions before, {after} after", backup.out);
    assert!(!backup.out.contains("fuzzy"), "a rule held it, and it says so: {}", backup.out);
    nodes.eventually("the load goes on after the cut", || bank.transactions() > after);

    // Lost, with its volume.
    let claim = ["-n", bank.namespace, "get", "pvc", "data-db-0", "-o", "jsonpath={.spec.volumeName}"];
    let volume = nodes.kubectl(&claim);
    nodes.kubectl(&["delete", "namespace", bank.namespace, "--timeout=120s"]);
    let _ = load.kill();
    load.wait().unwrap();
    nodes.eventually("the volume is gone", || {
        nodes.kubectl(&["get", "pv", "-o", "name"]).lines().all(|v| !v.ends_with(&volume))
    });

    let restored = with(&["restore", "latest", "--holder-image", "localhost/pause:1"], &options);
    println!("{}", place.run(&restored).expect(0).out);
    bank.is_ready();
    assert_ne!(nodes.kubectl(&claim), volume, "on a new volume");
    let count = bank.transactions();
    println!("{count} transactions restored");
    assert!(
        (before..=after).contains(&count),
        "{before} committed before the cut, {after} after; restored {count}"
    );
    let sums = bank.sql(SUMS);
    let sums: Vec<&str> = sums.split('|').collect();
    assert!(sums.iter().all(|sum| *sum == sums[0]), "whole transactions only: {sums:?}");
    assert_eq!(bank.sql("select count(*) from pgbench_accounts"), "100000");

    nodes.kubectl(&["delete", "namespace", bank.namespace, "--timeout=120s"]);
}
