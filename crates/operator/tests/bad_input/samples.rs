//! An object of each kind with every field it can have, and one with as few as it may.

use api::{ApplicationSpec, PolicySpec, RecoveryPointSpec, RepositorySpec, RestoreSpec, RuleSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An object of ours.
pub fn object(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "holdfast.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "sample", "namespace": "default"}, "spec": spec})
}

fn selector() -> Value {
    json!({"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["back"]}]})
}

fn retention() -> Value {
    json!({"last": 3, "hourly": 24, "daily": 14, "weekly": 4, "monthly": 12, "yearly": 2, "within": "12h"})
}

/// Every field. Where of several only one may be there, the others are in [`more`].
pub fn full() -> Vec<(String, Value)> {
    let all = [
        (
            "Repository",
            json!({
                "url": "s3://backups/main", "region": "eu-central-1", "endpoint": "https://minio.example:9000",
                "caBundle": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
                "credentials": {"secret": "s3"}, "agentCredentials": {"secret": "s3-nodes"},
                "keys": {"put": {"secret": "keys", "key": "put"}, "list": {"secret": "keys", "key": "list"},
                    "read": {"secret": "keys", "key": "read"}},
                "allowedNamespaces": {"from": "Selector", "selector": selector()},
                "discovery": {"mode": "All", "perApplication": 10, "interval": "10m"},
                "maintenance": {"timeZone": "Europe/Vienna", "collect": "0 1 * * *", "check": "@never", "readPercent": 10},
                "bandwidth": {"up": "20Mi", "down": "1Gi"}, "keepAtLeast": "7d", "suspend": true,
                "serviceAccountName": "backup",
            }),
        ),
        (
            "Policy",
            json!({
                "repository": {"name": "main", "namespace": "holdfast-system"},
                "allowedNamespaces": {"from": "Selector", "selector": selector()},
                "schedules": [{"name": "hourly", "cron": "0 * * * *", "timeZone": "Europe/Vienna", "jitter": "5m",
                    "catchUpWithin": "12h"}],
                "suspend": true, "rpo": "2h", "retention": retention(),
                "copies": [{"repository": {"name": "vault", "namespace": "holdfast-system"}, "retention": retention(), "after": "1h"}],
                "rules": [{"name": "quiet", "group": "stork.libopenstorage.org", "side": "Pre"}, {"recipe": "postgresql"}],
                "podHooks": false, "freeze": "Never", "hold": "10s", "atLeast": "Crash", "requireComplete": true,
                "snapshots": "Never", "snapshotClasses": {"csi.example": "fast"},
                "volumes": {"include": selector(), "exclude": selector()}, "retries": 1,
                "notify": [{"url": "https://hooks.example/x", "secret": "hook", "on": ["Failed", "RpoMissed"]}],
                "serviceAccountName": "backup",
            }),
        ),
        (
            "Application",
            json!({
                "policy": {"name": "gold", "namespace": "holdfast-system"},
                "repository": {"name": "main", "namespace": "holdfast-system"},
                "selection": {"application": "shop", "namespaces": ["shop", "shop-*"], "whole": false, "includeKinds": ["Deployment"],
                    "excludeKinds": ["Event"], "excludeNames": ["ConfigMap/tmp"]},
                "rules": [{"name": "quiet", "group": "stork.libopenstorage.org", "side": "Post"}, {"recipe": "etcd"}],
                "hold": "10s", "freeze": "Filesystem", "atLeast": "Application", "trigger": "now", "suspend": true,
                "serviceAccountName": "backup",
            }),
        ),
        (
            "RecoveryPoint",
            json!({
                "application": "shop", "repository": {"name": "main", "namespace": "holdfast-system"}, "reason": "Schedule",
                "schedule": {"name": "hourly", "at": "2026-05-01T10:00:00Z"}, "cancel": true,
                "hold": {"reason": "audit", "until": "2027-05-01T00:00:00Z"}, "populate": true, "erase": true,
                "serviceAccountName": "backup",
            }),
        ),
        (
            "Restore",
            json!({
                "from": {"application": {"name": "shop", "namespace": "shop", "cluster": "here",
                    "repository": {"name": "main", "namespace": "holdfast-system"}, "at": "2026-05-01T10:00:00Z"}},
                "only": {"namespaces": ["shop"], "kinds": ["Deployment"], "names": ["Deployment/web"], "labels": "app=web"},
                "mapping": {"namespaces": {"shop": "shop2"}, "storageClasses": {"a": "b"}, "registries": {"docker.io": "r.example"},
                    "hosts": {"a.example": "b.example"}, "nodes": {"n1": "n2"}, "priorityClasses": {"a": "b"},
                    "ingressClasses": {"a": "b"}, "patches": [{"target": {"kind": "Deployment"}, "patch": [{"op": "remove", "path": "/x"}]}],
                    "resourceModifierRules": [{"conditions": {"groupResource": "deployments.apps"}}],
                    "transformSpecs": [{"paths": []}], "serviceNames": false, "clusterDomain": "cluster.local"},
                "onConflict": "Replace", "clusterScoped": "Leave", "status": ["Pod"], "data": "Overwrite", "undo": "Auto",
                "quiesce": false, "approval": "Required", "approved": "sha256:00", "planOnly": true, "hooks": false,
                "readKey": {"secret": "keys", "key": "read"}, "wait": "5m", "cancel": true, "ttlAfterFinished": "24h",
                "serviceAccountName": "restore",
            }),
        ),
        (
            "Rule",
            json!({
                "hold": "5s",
                "pre": [
                    {"podSelector": selector(), "container": "db", "user": "postgres", "timeout": "10s", "onError": "Continue",
                        "singlePod": true, "lock": {"command": "fsfreeze -f /data", "release": "fsfreeze -u /data"}},
                    {"podSelector": selector(), "command": ["psql", "-c", "CHECKPOINT"], "timeout": "30s", "onError": "Fail",
                        "singlePod": false},
                    {"podSelector": selector(), "shell": "sync", "timeout": "30s", "onError": "Fail", "singlePod": false},
                ],
                "post": [{"podSelector": selector(), "container": "db", "user": "postgres", "shell": "echo done", "timeout": "10s",
                    "onError": "Continue", "singlePod": true}],
                "restore": [{"podSelector": selector(), "container": "db", "user": "postgres", "command": ["true"], "timeout": "10s",
                    "onError": "Continue", "singlePod": true}],
            }),
        ),
    ];
    all.into_iter().map(|(kind, spec)| (kind.to_owned(), object(kind, spec))).collect()
}

/// Objects with the fields that exclude some in [`full`].
pub fn more() -> Vec<(String, Value)> {
    let all = [
        (
            "Repository",
            json!({"url": "/backups", "keys": {"put": {"kms": "unix:///p", "key": "key"},
            "list": {"kms": "unix:///l", "key": "key"}, "read": {"kms": "unix:///r", "key": "key"}}}),
        ),
        ("Policy", json!({"repository": {"name": "main"}, "rules": [{"name": "quiet"}]})),
        ("Application", json!({"repository": {"name": "main"}, "selection": {"labels": "app=shop"}})),
        ("RecoveryPoint", json!({"commit": "0".repeat(64), "repository": {"name": "main"}})),
        (
            "Restore",
            json!({"from": {"commit": {"id": "01234567", "repository": {"name": "main", "namespace": "a"}}}}),
        ),
        ("Restore", json!({"from": {"recoveryPoint": {"name": "shop-1", "namespace": "a"}}})),
        (
            "Rule",
            json!({"post": [{"podSelector": selector(), "command": ["true"]}],
            "restore": [{"podSelector": selector(), "shell": "true"}]}),
        ),
    ];
    all.into_iter().map(|(kind, spec)| (kind.to_owned(), object(kind, spec))).collect()
}

/// As few fields as there may be.
pub fn least() -> Vec<(String, Value)> {
    let all = [
        ("Repository", json!({"url": "s3://backups", "keys": {"read": {"secret": "keys"}}})),
        ("Policy", json!({"repository": {"name": "main"}})),
        ("Application", json!({"policy": {"name": "gold"}})),
        ("RecoveryPoint", json!({"application": "shop"})),
        ("Restore", json!({"from": {"recoveryPoint": {"name": "shop-1"}}})),
        ("Rule", json!({"pre": [{"podSelector": {"matchLabels": {"app": "db"}}, "shell": "sync"}]})),
    ];
    all.into_iter().map(|(kind, spec)| (kind.to_owned(), object(kind, spec))).collect()
}

/// Our types read a spec as the server completed it, and write it as it was.
pub fn read_back(kind: &str, spec: &Value) {
    fn check<T: DeserializeOwned + Serialize>(spec: &Value) {
        let read: T = serde_json::from_value(spec.clone()).unwrap_or_else(|why| panic!("{why}: {spec}"));
        assert_eq!(serde_json::to_value(&read).unwrap(), *spec);
    }
    match kind {
        "Repository" => check::<RepositorySpec>(spec),
        "Policy" => check::<PolicySpec>(spec),
        "Application" => check::<ApplicationSpec>(spec),
        "RecoveryPoint" => check::<RecoveryPointSpec>(spec),
        "Restore" => check::<RestoreSpec>(spec),
        "Rule" => check::<RuleSpec>(spec),
        other => panic!("{other} has no type"),
    }
}
