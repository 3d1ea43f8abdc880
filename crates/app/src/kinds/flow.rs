//! Priority and fairness: which requests wait for which. What the API server keeps by itself is its own.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, role_binding, rule};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::Found;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// FlowSchema and PriorityLevelConfiguration.
pub static KINDS: &[KindInfo] = &[
    KindInfo {
        group: GROUP,
        kind: "FlowSchema",
        cluster_scoped: true,
        order: Order::Binding,
        refs: &[rule(
            "/spec/priorityLevelConfiguration/name",
            To::Cluster(GROUP, "PriorityLevelConfiguration"),
            RefKind::Class,
        )],
        find: Some(find),
        keep,
        ..PLAIN
    },
    KindInfo {
        group: GROUP,
        kind: "PriorityLevelConfiguration",
        cluster_scoped: true,
        order: Order::Class,
        keep,
        ..PLAIN
    },
];

fn keep(object: &Object, _: Lookup<'_>) -> Keep {
    if object.annotation("apf.kubernetes.io/autoupdate-spec").is_some() {
        Keep::No("the API server keeps it")
    } else {
        Keep::Yes
    }
}

/// The accounts whose requests it is about.
fn find(schema: &Object, found: &mut Vec<Found>) {
    for (number, rule) in schema.at("/spec/rules").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let subjects = rule.get("subjects").and_then(Value::as_array);
        for (index, subject) in subjects.into_iter().flatten().enumerate() {
            let text = |at: &str| subject.pointer(at).and_then(Value::as_str).unwrap_or("");
            let at = format!("/spec/rules/{number}/subjects/{index}");
            match text("/kind") {
                // `*` is every account of the namespace.
                "ServiceAccount" if text("/serviceAccount/name") == "*" => {
                    let name = format!("system:serviceaccounts:{}", text("/serviceAccount/namespace"));
                    role_binding::group(&name, at, found);
                }
                "ServiceAccount" => {
                    let (namespace, name) = (text("/serviceAccount/namespace"), text("/serviceAccount/name"));
                    let key = ObjectKey::new("", "ServiceAccount", namespace, name);
                    found.push(Found::object(key, RefKind::Subject, at).optional());
                }
                "User" => role_binding::user(text("/user/name"), at, found),
                // The groups of everybody are in most schemas and lead nowhere; those of a namespace lead there.
                "Group" if text("/group/name").starts_with("system:serviceaccounts:") => {
                    role_binding::group(text("/group/name"), at, found);
                }
                _ => {}
            }
        }
    }
}
