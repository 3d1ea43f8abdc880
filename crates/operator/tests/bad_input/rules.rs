//! Cases of rules about several fields, about what was before, and of what no expression can say.

use serde_json::{Map, Value, json};

use crate::{Case, samples};

/// The sample of a kind, with fewest fields, and what is laid over its spec; `null` takes a field away.
fn made(kind: &str, over: &Value) -> Value {
    let (_, mut object) = samples::least().into_iter().find(|(of, _)| of == kind).unwrap();
    merge(&mut object["spec"], over);
    object
}

fn merge(into: &mut Value, over: &Value) {
    let Value::Object(over) = over else {
        *into = over.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let map = into.as_object_mut().unwrap();
    for (key, value) in over {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn step(more: Value) -> Value {
    let mut step = json!({"podSelector": {"matchLabels": {"app": "db"}}});
    merge(&mut step, &more);
    step
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Kind, what is laid over the sample, where something is said, what; empty: nothing.
    let new: Vec<(&str, Value, &str, &str)> = vec![
        (
            "Repository",
            json!({"keys": {"read": null}}),
            "spec.keys",
            "name keys.read, or keys.put and keys.list",
        ),
        (
            "Repository",
            json!({"keys": {"read": null, "put": {"secret": "k"}}}),
            "spec.keys",
            "name keys.read, or keys.put and keys.list",
        ),
        (
            "Repository",
            json!({"keys": {"read": null, "put": {"secret": "k"}, "list": {"secret": "k"}}}),
            "",
            "",
        ),
        (
            "Repository",
            json!({"keys": {"read": {"kms": "unix:///k"}}}),
            "spec.keys.read",
            "name a secret or a kms",
        ),
        (
            "Repository",
            json!({"keys": {"read": {"secret": null}}}),
            "spec.keys.read",
            "name a secret or a kms",
        ),
        (
            "Repository",
            json!({"allowedNamespaces": {"from": "Selector"}}),
            "spec.allowedNamespaces",
            "selector goes with from: Selector",
        ),
        (
            "Repository",
            json!({"allowedNamespaces": {"from": "All", "selector": {"matchLabels": {"a": "b"}}}}),
            "spec.allowedNamespaces",
            "selector goes with from: Selector",
        ),
        (
            "Repository",
            json!({"allowedNamespaces": {"selector": {"matchLabels": {"a": "b"}}}}),
            "spec.allowedNamespaces",
            "selector goes with from: Selector",
        ),
        ("Repository", json!({"allowedNamespaces": {"from": "All"}}), "", ""),
        ("Repository", json!({"maintenance": {"check": "5 *"}}), "spec.maintenance.check", "or @never"),
        ("Repository", json!({"maintenance": {"check": "@never", "collect": "@weekly"}}), "", ""),
        ("Repository", json!({"url": "ftp://example"}), "spec.url", "write s3://bucket/prefix"),
        ("Repository", json!({"url": "gs://bucket"}), "", ""),
        ("Repository", json!({"bandwidth": {"up": "1Ti", "down": "1Mi"}}), "", ""),
        (
            "Repository",
            json!({"bandwidth": {"up": "2Ti"}}),
            "spec.bandwidth.up",
            "write bytes a second from 1Mi to 1Ti",
        ),
        (
            "Repository",
            json!({"bandwidth": {"down": "1000Ki"}}),
            "spec.bandwidth.down",
            "write bytes a second from 1Mi to 1Ti",
        ),
        ("Repository", json!({"keepAtLeast": "9999w"}), "", ""),
        (
            "Repository",
            json!({"keepAtLeast": "10000h"}),
            "spec.keepAtLeast",
            "should be at most 5 chars long",
        ),
        ("Policy", json!({"retention": {}}), "spec.retention", "a retention that keeps nothing is refused"),
        (
            "Policy",
            json!({"retention": {"daily": 0}}),
            "spec.retention",
            "a retention that keeps nothing is refused",
        ),
        ("Policy", json!({"retention": {"within": "1d"}}), "", ""),
        ("Policy", json!({"retention": {"yearly": 1}}), "", ""),
        (
            "Policy",
            json!({"copies": [{"repository": {"name": "main"}}]}),
            "spec",
            "a copy goes to another repository than the policy's",
        ),
        (
            "Policy",
            json!({"copies": [{"repository": {"name": "vault"}}, {"repository": {"name": "main"}}]}),
            "spec",
            "a copy goes to another repository",
        ),
        (
            "Policy",
            json!({"repository": {"namespace": "a"}, "copies": [{"repository": {"name": "main", "namespace": "a"}}]}),
            "spec",
            "a copy goes to another repository",
        ),
        (
            "Policy",
            json!({"repository": {"namespace": "a"}, "copies": [{"repository": {"name": "main", "namespace": "b"}}]}),
            "",
            "",
        ),
        ("Policy", json!({"copies": [{"repository": {"name": "main", "namespace": "b"}}]}), "", ""),
        ("Policy", json!({"rules": [{}]}), "spec.rules[0]", "name a rule or a recipe: one of them"),
        (
            "Policy",
            json!({"rules": [{"name": "a", "recipe": "etcd"}]}),
            "spec.rules[0]",
            "name a rule or a recipe: one of them",
        ),
        (
            "Policy",
            json!({"rules": [{"name": "a", "side": "Pre"}]}),
            "spec.rules[0]",
            "side and group are for a rule of Stork's",
        ),
        (
            "Policy",
            json!({"rules": [{"name": "a", "group": "stork.libopenstorage.org"}]}),
            "spec.rules[0]",
            "side and group are for a rule of Stork's",
        ),
        (
            "Policy",
            json!({"rules": [{"recipe": "etcd", "group": "stork.libopenstorage.org", "side": "Pre"}]}),
            "spec.rules[0]",
            "side and group are for a rule of Stork's",
        ),
        (
            "Policy",
            json!({"volumes": {"include": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}),
            "spec.volumes.include.matchExpressions[0]",
            "In and NotIn take values",
        ),
        (
            "Policy",
            json!({"volumes": {"include": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}}),
            "spec.volumes.include.matchExpressions[0]",
            "In and NotIn take values",
        ),
        (
            "Policy",
            json!({"volumes": {"include": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}}}),
            "",
            "",
        ),
        ("Application", json!({"policy": null}), "spec", "name a policy, or a repository for points by hand"),
        ("Application", json!({"policy": null, "repository": {"name": "main"}}), "", ""),
        (
            "Application",
            json!({"selection": {"application": "a", "labels": "b=c"}}),
            "spec.selection",
            "select by application, by labels, or whole",
        ),
        (
            "Application",
            json!({"selection": {"whole": true, "labels": "b=c"}}),
            "spec.selection",
            "select by application, by labels, or whole",
        ),
        (
            "Application",
            json!({"selection": {"whole": true, "application": "a"}}),
            "spec.selection",
            "select by application, by labels, or whole",
        ),
        ("Application", json!({"selection": {"whole": true}}), "", ""),
        ("Application", json!({"selection": {}}), "", ""),
        (
            "RecoveryPoint",
            json!({"application": null}),
            "spec",
            "name an application to take a point of, or the commit",
        ),
        (
            "RecoveryPoint",
            json!({"commit": "0".repeat(64)}),
            "spec",
            "name an application to take a point of, or the commit",
        ),
        ("RecoveryPoint", json!({"application": null, "commit": "f".repeat(64)}), "", ""),
        (
            "RecoveryPoint",
            json!({"application": null, "commit": "f".repeat(63)}),
            "spec.commit",
            "a commit's id has 64 digits",
        ),
        (
            "RecoveryPoint",
            json!({"application": null, "commit": "F".repeat(64)}),
            "spec.commit",
            "a commit's id has 64 digits",
        ),
        (
            "Restore",
            json!({"from": {"recoveryPoint": null}}),
            "spec.from",
            "restore from recoveryPoint, application or commit",
        ),
        (
            "Restore",
            json!({"from": {"commit": {"id": "01234567", "repository": {"name": "main"}}}}),
            "spec.from",
            "restore from recoveryPoint, application or commit",
        ),
        (
            "Restore",
            json!({"from": {"recoveryPoint": null, "commit": {"id": "0123456", "repository": {"name": "main"}}}}),
            "spec.from.commit.id",
            "a commit's id has 8 to 64 digits",
        ),
        (
            "Restore",
            json!({"from": {"recoveryPoint": null, "commit": {"id": "0".repeat(64), "repository": {"name": "main"}}}}),
            "",
            "",
        ),
        (
            "Restore",
            json!({"data": "Overwrite", "undo": "Never"}),
            "spec",
            "what is overwritten without an undo point needs approval: Required",
        ),
        (
            "Restore",
            json!({"onConflict": "Replace", "undo": "Never"}),
            "spec",
            "what is overwritten without an undo point needs approval: Required",
        ),
        (
            "Restore",
            json!({"onConflict": "Recreate", "undo": "Never"}),
            "spec",
            "what is overwritten without an undo point needs approval: Required",
        ),
        (
            "Restore",
            json!({"onConflict": "Replace", "data": "Overwrite", "undo": "Never", "approval": "Required"}),
            "",
            "",
        ),
        ("Restore", json!({"onConflict": "Update", "undo": "Never"}), "", ""),
        ("Rule", json!({"pre": null}), "spec", "a rule without steps does nothing"),
        ("Rule", json!({"pre": [], "post": [], "restore": []}), "spec", "a rule without steps does nothing"),
        ("Rule", json!({"pre": null, "restore": [step(json!({"shell": "true"}))]}), "", ""),
        (
            "Rule",
            json!({"pre": [{"podSelector": {}, "shell": "sync"}]}),
            "spec.pre[0].podSelector",
            "selects no pod: write podSelector",
        ),
        (
            "Rule",
            json!({"pre": [{"podSelector": {"matchLabels": {}}, "shell": "sync"}]}),
            "spec.pre[0].podSelector",
            "selects no pod: write podSelector",
        ),
        (
            "Rule",
            json!({"pre": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "shell": "sync"}]}),
            "",
            "",
        ),
        (
            "Rule",
            json!({"pre": [step(json!({}))]}),
            "spec.pre[0]",
            "a step has command, shell or lock: one of them",
        ),
        (
            "Rule",
            json!({"pre": [step(json!({"shell": "a", "command": ["b"]}))]}),
            "spec.pre[0]",
            "a step has command, shell or lock: one of them",
        ),
        (
            "Rule",
            json!({"post": [step(json!({"lock": {"command": "a", "release": "b"}}))]}),
            "spec.post[0]",
            "a lock stands before the cut: move it to pre",
        ),
        (
            "Rule",
            json!({"restore": [step(json!({"lock": {"command": "a", "release": "b"}}))]}),
            "spec.restore[0]",
            "a lock stands before the cut: move it to pre",
        ),
        (
            "Rule",
            json!({"pre": [step(json!({"lock": {"command": "a"}}))]}),
            "spec.pre[0].lock",
            "how is it released?",
        ),
        (
            "Rule",
            json!({"pre": [step(json!({"lock": {"command": "a ${WAIT_CMD}", "release": "b"}}))]}),
            "spec.pre[0].lock",
            "how is it released?",
        ),
        ("Rule", json!({"pre": [step(json!({"lock": {"command": "a ${WAIT_CMD}"}}))]}), "", ""),
    ];
    for (kind, over, field, says) in new {
        let object = made(kind, &over);
        let by_rule = !says.is_empty() && !says.starts_with("should be");
        let expect = if says.is_empty() { vec![] } else { vec![(field.to_owned(), says.to_owned())] };
        cases.push(Case {
            story: format!("{kind} with {over}"),
            kind: kind.into(),
            old: None,
            new: object,
            expect,
            by_rule,
        });
    }
    // Before and after.
    let changed: Vec<(&str, Value, Value, &str, &str)> = vec![
        (
            "Repository",
            json!({}),
            json!({"url": "s3://elsewhere"}),
            "spec.url",
            "a repository does not move: make another Repository",
        ),
        ("Repository", json!({}), json!({"suspend": true}), "", ""),
        ("RecoveryPoint", json!({}), json!({"application": "other"}), "spec", "make another RecoveryPoint"),
        (
            "RecoveryPoint",
            json!({}),
            json!({"repository": {"name": "main"}}),
            "spec",
            "make another RecoveryPoint",
        ),
        (
            "RecoveryPoint",
            json!({"repository": {"name": "main"}}),
            json!({"repository": null}),
            "spec",
            "make another RecoveryPoint",
        ),
        ("RecoveryPoint", json!({}), json!({"reason": "Undo"}), "spec", "make another RecoveryPoint"),
        (
            "RecoveryPoint",
            json!({}),
            json!({"serviceAccountName": "a"}),
            "spec",
            "make another RecoveryPoint",
        ),
        (
            "RecoveryPoint",
            json!({}),
            json!({"cancel": true, "erase": true, "populate": true, "hold": {"reason": "audit"}}),
            "",
            "",
        ),
        (
            "RecoveryPoint",
            json!({"hold": {"reason": "audit"}, "populate": true}),
            json!({"hold": null, "populate": false}),
            "",
            "",
        ),
        (
            "RecoveryPoint",
            json!({"cancel": true}),
            json!({"cancel": false}),
            "spec.cancel",
            "this cannot be taken back: leave it true",
        ),
        (
            "RecoveryPoint",
            json!({"erase": true}),
            json!({"erase": null}),
            "spec.erase",
            "this cannot be taken back: leave it true",
        ),
        (
            "Restore",
            json!({}),
            json!({"mapping": {"namespaces": {"a": "b"}}}),
            "spec",
            "make another Restore: this one says what was done",
        ),
        (
            "Restore",
            json!({"mapping": {"namespaces": {"a": "b"}}}),
            json!({"mapping": {"namespaces": {"a": "c"}}}),
            "spec",
            "make another Restore",
        ),
        (
            "Restore",
            json!({"mapping": {"patches": [{"a": 1}]}}),
            json!({"mapping": {"patches": [{"a": 2}]}}),
            "spec",
            "make another Restore",
        ),
        (
            "Restore",
            json!({}),
            json!({"from": {"recoveryPoint": {"name": "shop-2"}}}),
            "spec",
            "make another Restore",
        ),
        ("Restore", json!({}), json!({"wait": "11m"}), "spec", "make another Restore"),
        (
            "Restore",
            json!({"cancel": true}),
            json!({"cancel": false}),
            "spec.cancel",
            "this cannot be taken back: leave it true",
        ),
        (
            "Restore",
            json!({"approval": "Required"}),
            json!({"approved": "x", "ttlAfterFinished": "1m", "cancel": true}),
            "",
            "",
        ),
        ("Policy", json!({}), json!({"repository": {"name": "other"}}), "", ""),
    ];
    for (kind, before, over, field, says) in changed {
        let old = made(kind, &before);
        let mut new = old.clone();
        merge(&mut new["spec"], &over);
        let expect = if says.is_empty() { vec![] } else { vec![(field.to_owned(), says.to_owned())] };
        let story = format!("{kind} with {before}, then {over}");
        cases.push(Case { story, kind: kind.into(), old: Some(old), new, expect, by_rule: !says.is_empty() });
    }
    cases
}
