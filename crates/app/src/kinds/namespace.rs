//! Namespace: its labels and annotations matter (policies hang on them); the rest the cluster fills in.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN};
use crate::clean::{remove, remove_if_empty};
use crate::object::Object;

/// Namespace.
pub static KIND: KindInfo = KindInfo {
    kind: "Namespace",
    cluster_scoped: true,
    order: Order::Namespace,
    strip: &["/metadata/labels/kubernetes.io~1metadata.name"],
    clean: Some(clean),
    keep,
    ..PLAIN
};

fn clean(_: &Object, namespace: &mut Value) {
    if let Some(finalizers) = namespace.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|f| f != "kubernetes");
    }
    remove_if_empty(namespace, "/spec/finalizers");
    if namespace.get("spec").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
        remove(namespace, "/spec");
    }
}

fn keep(namespace: &Object, _: Lookup<'_>) -> Keep {
    match namespace.name() {
        "default" | "kube-system" | "kube-public" | "kube-node-lease" => Keep::No("every cluster has it"),
        _ => Keep::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cleaned, kept};
    use serde_json::json;

    #[test]
    fn labels_stay_and_the_rest_is_the_clusters() {
        let shop = json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","labels":{"kubernetes.io/metadata.name":"shop","team":"x"}},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}});
        assert_eq!(
            cleaned(&shop),
            json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","labels":{"team":"x"}}})
        );
        assert_eq!(kept(&shop), Keep::Yes);
        assert!(matches!(
            kept(&json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"default"}})),
            Keep::No(_)
        ));
    }
}
