//! ClusterRole: what may be done anywhere. The built-in ones come with the cluster.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, Where, rule};
use crate::clean::remove;
use crate::graph::RefKind;
use crate::object::Object;

/// ClusterRole.
pub static KIND: KindInfo = KindInfo {
    group: super::role_binding::GROUP,
    kind: "ClusterRole",
    cluster_scoped: true,
    order: Order::Role,
    // The rules of an aggregated role are those of the roles it selects.
    refs: &[rule(
        "/aggregationRule/clusterRoleSelectors/*",
        To::Objects(super::role_binding::GROUP, "ClusterRole", Where::Cluster),
        RefKind::Role,
    )],
    find: Some(super::role::find),
    clean: Some(clean),
    keep,
    ..PLAIN
};

/// The rules of an aggregated role are written by its controller, from the roles it selects.
fn clean(original: &Object, role: &mut Value) {
    if original.at("/aggregationRule").is_some_and(|rule| !rule.is_null()) {
        remove(role, "/rules");
    }
}

/// Built-in roles and bindings carry this label; `system:` is reserved for them.
pub(super) fn keep(object: &Object, _: Lookup<'_>) -> Keep {
    let is_built_in = object.label("kubernetes.io/bootstrapping") == Some("rbac-defaults")
        || object.name().starts_with("system:");
    if is_built_in { Keep::No("it comes with every cluster") } else { Keep::Yes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::kept;
    use serde_json::json;

    #[test]
    fn the_rules_of_an_aggregated_role_are_its_controllers() {
        let role = |aggregated: bool| {
            let mut role = json!({"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"r"},"rules":[{"verbs":["get"]}]});
            if aggregated {
                role["aggregationRule"] = json!({"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]});
            }
            crate::kinds::testing::cleaned(&role)
        };
        assert!(role(true).get("rules").is_none() && role(true).get("aggregationRule").is_some());
        assert!(role(false).get("rules").is_some());
    }

    #[test]
    fn built_in_roles_are_the_clusters() {
        let of = |kind: &str, name: &str, labels: serde_json::Value| {
            kept(
                &json!({"apiVersion":"rbac.authorization.k8s.io/v1","kind":kind,"metadata":{"name":name,"labels":labels}}),
            )
        };
        for kind in ["ClusterRole", "ClusterRoleBinding"] {
            assert!(matches!(
                of(kind, "view", json!({"kubernetes.io/bootstrapping":"rbac-defaults"})),
                Keep::No(_)
            ));
            assert!(matches!(of(kind, "system:node", json!({})), Keep::No(_)));
            assert_eq!(of(kind, "operator", json!({})), Keep::Yes);
        }
    }
}
