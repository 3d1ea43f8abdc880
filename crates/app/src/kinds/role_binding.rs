//! RoleBinding: who has which role in its namespace. Subjects may be accounts of other namespaces.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN, RefRule, To, rule};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, Namespaces, Target};
use crate::selector::Selector;

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

/// RoleBinding.
pub static KIND: KindInfo = KindInfo {
    group: GROUP,
    kind: "RoleBinding",
    order: Order::Binding,
    refs: REFS,
    find: Some(find),
    ..PLAIN
};

/// The role that is given.
pub(super) const REFS: &[RefRule] = &[rule("/roleRef", To::Says(GROUP, "ClusterRole"), RefKind::Role)];

/// The accounts among the subjects: by name, as a user, or as all accounts of a namespace or of the cluster.
pub(super) fn find(binding: &Object, found: &mut Vec<Found>) {
    for (index, subject) in
        binding.at("/subjects").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let text = |name: &str| subject.get(name).and_then(Value::as_str).unwrap_or("");
        let at = format!("/subjects/{index}");
        match text("kind") {
            "ServiceAccount" => {
                let namespace =
                    if text("namespace").is_empty() { binding.namespace() } else { text("namespace") };
                account(namespace, text("name"), at, found);
            }
            "User" => user(text("name"), at, found),
            "Group" => group(text("name"), at, found),
            _ => {}
        }
    }
}

/// An account. What is given to a subject that does not exist is valid and grants nothing.
fn account(namespace: &str, name: &str, at: String, found: &mut Vec<Found>) {
    if !name.is_empty() {
        let key = ObjectKey::new("", "ServiceAccount", namespace, name);
        found.push(Found::object(key, RefKind::Subject, at).optional());
    }
}

/// `system:serviceaccount:NAMESPACE:NAME` is how an account signs in.
pub(super) fn user(name: &str, at: String, found: &mut Vec<Found>) {
    if let Some((namespace, name)) =
        name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
    {
        account(namespace, name, at, found);
    }
}

/// Groups that accounts are in without anybody having put them there.
pub(super) fn group(name: &str, at: String, found: &mut Vec<Found>) {
    let namespaces = match name {
        "system:serviceaccounts" | "system:authenticated" => Namespaces::Any,
        _ => match name.strip_prefix("system:serviceaccounts:") {
            Some(namespace) => Namespaces::One(namespace.to_owned()),
            None => return,
        },
    };
    let target = Target::Objects {
        group: String::new(),
        kind: "ServiceAccount".into(),
        namespaces,
        selector: Selector::default(),
    };
    found.push(Found { optional: true, ..Found::to(target, RefKind::Subject, at) });
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

    #[test]
    fn groups_and_users_that_stand_for_accounts_are_followed() {
        let binding = json!({"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"namespace":"shop","name":"b"},
            "subjects":[{"kind":"Group","name":"system:serviceaccounts:data"},{"kind":"Group","name":"system:serviceaccounts"},
                {"kind":"Group","name":"people"},{"kind":"User","name":"system:serviceaccount:ops:prom"}]});
        assert_eq!(
            refs(&binding),
            [
                "ServiceAccount of One(\"data\") Selector([]) subject optional /subjects/0",
                "ServiceAccount of Any Selector([]) subject optional /subjects/1",
                "ServiceAccount ops/prom subject optional /subjects/3",
            ]
        );
    }
}
