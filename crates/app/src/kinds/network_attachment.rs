//! NetworkAttachmentDefinition (Multus and its kin): a network beside the cluster's own, which pods ask for in an annotation.

use serde_json::Value;

use super::custom::kind;
use super::{KindInfo, Order};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, escape};

const GROUP: &str = "k8s.cni.cncf.io";
const KIND: &str = "NetworkAttachmentDefinition";

/// A pod that asks for one does not start without it, so it comes before workloads.
pub static KINDS: &[KindInfo] = &[KindInfo { order: Order::Config, ..kind(GROUP, KIND, &[]) }];

/// Where pods ask for networks.
const ASKED: &[&str] = &["k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network"];

/// The networks that a pod, or a template of pods, asks for. `base` is where its pod spec stands.
pub(super) fn asked_for(object: &Object, base: &str, found: &mut Vec<Found>) {
    let Some(metadata) = base.strip_suffix("/spec").map(|pod| format!("{pod}/metadata/annotations")) else {
        return;
    };
    for name in ASKED {
        let at = format!("{metadata}/{}", escape(name));
        let text = object.str(&at);
        for (namespace, name) in networks(text) {
            let namespace = if namespace.is_empty() { object.namespace().to_owned() } else { namespace };
            found.push(Found::object(ObjectKey::new(GROUP, KIND, &namespace, &name), RefKind::Config, &at));
        }
    }
}

/// `[{"name": "a", "namespace": "b"}]`, or `b/a@net1, c`.
fn networks(text: &str) -> Vec<(String, String)> {
    if let Ok(Value::Array(list)) = serde_json::from_str(text) {
        let field = |one: &Value, name: &str| one.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let all = list.iter().map(|one| (field(one, "namespace"), field(one, "name")));
        return all.filter(|(_, name)| !name.is_empty()).collect();
    }
    text.split(',')
        .map(|one| one.trim().split('@').next().unwrap_or(""))
        .filter(|one| !one.is_empty() && !one.contains(['{', '[', '"']))
        .map(|one| one.split_once('/').map_or((String::new(), one.to_owned()), |(n, m)| (n.into(), m.into())))
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::json;

    #[test]
    fn a_pod_that_asks_for_a_network_needs_its_definition() {
        for (text, want) in [
            ("mesh", vec!["shop/mesh"]),
            ("mesh@eth1, infra/storage", vec!["shop/mesh", "infra/storage"]),
            (
                r#"[{"name":"mesh"},{"name":"storage","namespace":"infra","interface":"n1"}]"#,
                vec!["shop/mesh", "infra/storage"],
            ),
            ("", vec![]),
            ("[{broken", vec![]),
        ] {
            let pod = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": "web"},
                "spec": {"template": {"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": text}}, "spec": {"serviceAccountName": "a", "containers": []}}}});
            let got: Vec<String> =
                refs(&pod).into_iter().filter(|r| r.contains("NetworkAttachment")).collect();
            let at = "/spec/template/metadata/annotations/k8s.v1.cni.cncf.io~1networks";
            let want: Vec<String> = want
                .into_iter()
                .map(|name| format!("NetworkAttachmentDefinition.k8s.cni.cncf.io {name} config {at}"))
                .collect();
            assert_eq!(got, want, "{text}");
        }
    }
}
