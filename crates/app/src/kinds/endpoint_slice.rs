//! EndpointSlice: like Endpoints; controllers sign the ones they write.

use super::{Keep, KindInfo, Lookup, Order, PLAIN, To, rule};
use crate::graph::RefKind;
use crate::object::Object;

/// EndpointSlice.
pub static KIND: KindInfo = KindInfo {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    order: Order::Network,
    refs: &[
        rule("/metadata/labels/kubernetes.io~1service-name", To::Here("", "Service"), RefKind::Attaches)
            .optional(),
        rule("/endpoints/*/targetRef", To::Says("", "Pod"), RefKind::Other).optional(),
    ],
    keep,
    ..PLAIN
};

fn keep(slice: &Object, _: Lookup<'_>) -> Keep {
    match slice.label("endpointslice.kubernetes.io/managed-by") {
        Some("endpointslice-controller.k8s.io") => Keep::No("it follows its Service's selector"),
        Some("endpointslicemirroring-controller.k8s.io") => Keep::No("it mirrors Endpoints"),
        _ if slice.namespace() == "default" && slice.name() == "kubernetes" => {
            Keep::No("the API server makes it")
        }
        _ => Keep::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::kept;
    use serde_json::json;

    #[test]
    fn a_slice_somebody_wrote_is_kept() {
        for (by, yes) in [
            ("endpointslice-controller.k8s.io", false),
            ("endpointslicemirroring-controller.k8s.io", false),
            ("me", true),
        ] {
            let slice = json!({"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"a","labels":{"endpointslice.kubernetes.io/managed-by":by}}});
            assert_eq!(kept(&slice) == Keep::Yes, yes, "{by}");
        }
    }
}
