//! Role: what may be done in its namespace. Who may write resources of a custom kind is their controller, and of no
//! use without their definitions.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN, custom_resource_definition, is_built_in};
use crate::graph::RefKind;
use crate::object::Object;
use crate::refs::{Found, Target};

/// Role.
pub static KIND: KindInfo = KindInfo {
    group: "rbac.authorization.k8s.io",
    kind: "Role",
    order: Order::Role,
    find: Some(find),
    ..PLAIN
};

/// The definitions of the custom resources that a role may write.
pub(super) fn find(role: &Object, found: &mut Vec<Found>) {
    let texts = |rule: &Value, name: &str| -> Vec<String> {
        let list = rule.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    for (index, rule) in role.at("/rules").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let writes =
            texts(rule, "verbs").iter().any(|v| matches!(v.as_str(), "*" | "create" | "update" | "patch"));
        if !writes {
            continue;
        }
        for group in texts(rule, "apiGroups").iter().filter(|g| g.as_str() != "*" && !is_built_in(g)) {
            for resource in texts(rule, "resources") {
                let at = format!("/rules/{index}");
                let plural = resource.split('/').next().unwrap_or("");
                let target = match plural {
                    "" => continue,
                    "*" => Target::Definitions(group.clone()),
                    plural => Target::Object(custom_resource_definition::definition(plural, group)),
                };
                let one = Found { optional: true, ..Found::to(target, RefKind::Definition, at) };
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn who_writes_custom_resources_needs_their_definitions() {
        let role = json!({"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"op"},"rules":[
            {"apiGroups":["db.example.com"],"resources":["clusters","clusters/status"],"verbs":["get","update"]},
            {"apiGroups":["x.example.com"],"resources":["*"],"verbs":["*"]},
            {"apiGroups":["cert-manager.io"],"resources":["certificates"],"verbs":["get","list"]},
            {"apiGroups":["","apps","*"],"resources":["secrets"],"verbs":["*"]}]});
        assert_eq!(
            refs(&role),
            [
                "CustomResourceDefinition clusters.db.example.com definition optional /rules/0",
                "definitions of x.example.com definition optional /rules/1",
            ]
        );
    }
}
