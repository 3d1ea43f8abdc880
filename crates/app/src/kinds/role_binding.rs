//! RoleBinding: who has which role in its namespace. Subjects may be accounts of other namespaces.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::Found;

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

/// RoleBinding.
pub static KIND: KindInfo =
    KindInfo { group: GROUP, kind: "RoleBinding", order: Order::Binding, find: Some(find), ..PLAIN };

/// The role, and the accounts among the subjects (users and groups are no objects).
pub(super) fn find(binding: &Object, found: &mut Vec<Found>) {
    let role =
        |name: &str| binding.at("/roleRef").and_then(|r| r.get(name)).and_then(Value::as_str).unwrap_or("");
    if !role("name").is_empty() {
        let namespace = if role("kind") == "Role" { binding.namespace() } else { "" };
        found.push(Found::object(
            ObjectKey::new(GROUP, role("kind"), namespace, role("name")),
            RefKind::Role,
            "/roleRef",
        ));
    }
    for (index, subject) in
        binding.at("/subjects").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let text = |name: &str| subject.get(name).and_then(Value::as_str).unwrap_or("");
        if text("kind") == "ServiceAccount" {
            let namespace =
                if text("namespace").is_empty() { binding.namespace() } else { text("namespace") };
            let key = ObjectKey::new("", "ServiceAccount", namespace, text("name"));
            // A binding with a subject that does not exist is valid and grants nothing.
            found.push(Found::object(key, RefKind::Subject, format!("/subjects/{index}")).optional());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn role_and_accounts_are_references() {
        let of = |kind: &str, role: &str| {
            refs(
                &json!({"apiVersion":"rbac.authorization.k8s.io/v1","kind":kind,"metadata":{"namespace":if kind == "RoleBinding" {"shop"} else {""},"name":"b"},
                "roleRef":{"kind":role,"name":"r","apiGroup":"rbac.authorization.k8s.io"},
                "subjects":[{"kind":"ServiceAccount","name":"web","namespace":"shop"},{"kind":"User","name":"ann"},{"kind":"ServiceAccount","name":"prom","namespace":"monitoring"}]}),
            )
        };
        let subjects = [
            "ServiceAccount shop/web subject optional /subjects/0",
            "ServiceAccount monitoring/prom subject optional /subjects/2",
        ];
        assert_eq!(of("RoleBinding", "Role"), ["Role shop/r role /roleRef", subjects[0], subjects[1]]);
        assert_eq!(
            of("RoleBinding", "ClusterRole"),
            ["ClusterRole r role /roleRef", subjects[0], subjects[1]]
        );
        assert_eq!(
            of("ClusterRoleBinding", "ClusterRole"),
            ["ClusterRole r role /roleRef", subjects[0], subjects[1]]
        );
    }
}
