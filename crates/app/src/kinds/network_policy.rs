//! NetworkPolicy: who may talk to the pods it selects. Its peers are watched for: they come and go, and the policy goes on
//! meaning whoever has the labels. A namespace that it means by name has to be called so on the target.

use serde_json::Value;

use super::{KindInfo, Order, PLAIN, To, rule};
use crate::graph::RefKind;
use crate::object::{Object, ObjectKey};
use crate::refs::{Found, Namespaces, Target};
use crate::selector::Selector;

/// NetworkPolicy.
pub static KIND: KindInfo = KindInfo {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    also: &["extensions"],
    order: Order::Network,
    refs: &[rule("/spec/podSelector", To::Pods, RefKind::Selects).optional()],
    find: Some(find),
    ..PLAIN
};

/// The label that every namespace has with its own name.
const NAME: &str = "kubernetes.io/metadata.name";

fn find(policy: &Object, found: &mut Vec<Found>) {
    for (rules, side) in [("ingress", "from"), ("egress", "to")] {
        let list = policy.at(&format!("/spec/{rules}")).and_then(Value::as_array);
        for (number, rule) in list.into_iter().flatten().enumerate() {
            let peers = rule.get(side).and_then(Value::as_array);
            for (place, peer) in peers.into_iter().flatten().enumerate() {
                peer_of(policy, peer, &format!("/spec/{rules}/{number}/{side}/{place}"), found);
            }
        }
    }
}

/// A peer; an empty selector means everybody, so nobody in particular.
fn peer_of(policy: &Object, peer: &Value, at: &str, found: &mut Vec<Found>) {
    let mut watch =
        |target: Target, at: String| found.push(Found::to(target, RefKind::Watches, at).optional());
    let selector = |field: &str| peer.get(field).filter(|v| v.is_object()).map(Selector::from_json);
    let pods = selector("podSelector").filter(|pods| !pods.is_empty());
    let Some(spaces) = selector("namespaceSelector") else {
        if let Some(pods) = pods {
            watch(Target::Pods(policy.namespace().to_owned(), pods), format!("{at}/podSelector"));
        }
        return;
    };
    if let Some(pods) = pods {
        let namespaces = match spaces.is_empty() {
            true => Namespaces::Any,
            false => Namespaces::Labelled(spaces.clone()),
        };
        let target = Target::Objects { group: String::new(), kind: "Pod".into(), namespaces, selector: pods };
        watch(target, format!("{at}/podSelector"));
    }
    let named = named(peer);
    if named.is_empty() && !spaces.is_empty() {
        let (group, kind) = (String::new(), "Namespace".to_owned());
        let target =
            Target::Objects { group, kind, namespaces: Namespaces::One(String::new()), selector: spaces };
        watch(target, format!("{at}/namespaceSelector"));
    }
    for name in named {
        let key = ObjectKey::new("", "Namespace", "", name);
        watch(Target::Object(key), format!("{at}/namespaceSelector"));
    }
}

/// The namespaces that a peer means by their names.
fn named(peer: &Value) -> Vec<&str> {
    let label = peer.pointer("/namespaceSelector/matchLabels").and_then(|labels| labels.get(NAME)?.as_str());
    let expressions = peer.pointer("/namespaceSelector/matchExpressions").and_then(Value::as_array);
    let listed =
        expressions.into_iter().flatten().filter(|one| one["key"] == NAME && one["operator"] == "In");
    let values = listed.filter_map(|one| one.get("values")?.as_array()).flatten().filter_map(Value::as_str);
    label.into_iter().chain(values).collect()
}

#[cfg(test)]
mod tests {
    use crate::kinds::testing::refs;
    use serde_json::{Value, json};

    fn policy(spec: Value) -> Value {
        json!({"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"namespace":"n","name":"deny"},"spec":spec})
    }

    #[test]
    fn an_empty_selector_is_every_pod() {
        assert_eq!(
            refs(&policy(json!({"podSelector":{}}))),
            ["pods of n Selector([]) selects optional /spec/podSelector"]
        );
    }

    #[test]
    fn peers_are_pods_here_pods_elsewhere_and_namespaces_by_name_or_label() {
        let label = |name: &str, value: &str| json!({"matchLabels": {name: value}});
        let got = refs(&policy(json!({"podSelector": {}, "ingress": [{"from": [
                {"podSelector": label("app", "web")},
                {"namespaceSelector": label("kubernetes.io/metadata.name", "edge")},
                {"namespaceSelector": {}, "podSelector": {}},
                {"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
            "egress": [{"to": [{"namespaceSelector": label("tier", "data"), "podSelector": label("app", "db")}]}]})));
        assert_eq!(got.len(), 5, "{got:#?}");
        for (number, words) in [
            (1, vec!["pods of n", "app", "watches optional", "/spec/ingress/0/from/0/podSelector"]),
            (2, vec!["Namespace edge watches optional", "/spec/ingress/0/from/1/namespaceSelector"]),
            (3, vec!["Pod", "db", "watches optional", "/spec/egress/0/to/0/podSelector"]),
            (4, vec!["Namespace", "tier", "watches optional", "/spec/egress/0/to/0/namespaceSelector"]),
        ] {
            assert!(words.iter().all(|word| got[number].contains(word)), "{words:?}: {}", got[number]);
        }
    }
}
