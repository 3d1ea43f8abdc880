//! ConfigMap: plain configuration, which may name services anywhere.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN};
use crate::names;
use crate::object::Object;
use crate::refs::{Found, escape, hosts};

/// ConfigMap.
pub static KIND: KindInfo =
    KindInfo { kind: "ConfigMap", order: Order::Config, find: Some(find), keep, ..PLAIN };

fn find(map: &Object, found: &mut Vec<Found>) {
    for (name, value) in map.at("/data").and_then(Value::as_object).into_iter().flatten() {
        if let Some(text) = value.as_str() {
            hosts(names::in_document(name, text), &format!("/data/{}", escape(name)), found);
        }
    }
}

fn keep(map: &Object, _: Lookup<'_>) -> Keep {
    match map.name() {
        "kube-root-ca.crt" | "openshift-service-ca.crt" => {
            Keep::No("the cluster puts its own into every namespace")
        }
        _ if map.annotation("control-plane.alpha.kubernetes.io/leader").is_some() => {
            Keep::No("a leader's lock")
        }
        _ => Keep::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{kept, refs};
    use serde_json::json;

    #[test]
    fn a_service_named_in_a_file_is_found() {
        let map = json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"shop","name":"c"},"data":{"app.yaml":"db:\n  host: pg.data.svc\n"}});
        assert_eq!(refs(&map), ["Service data/pg names optional /data/app.yaml"]);
        assert_eq!(kept(&map), Keep::Yes);
    }

    #[test]
    fn what_every_cluster_makes_is_left_out() {
        assert!(matches!(
            kept(&json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kube-root-ca.crt"}})),
            Keep::No(_)
        ));
        let lock = json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","annotations":{"control-plane.alpha.kubernetes.io/leader":"{}"}}});
        assert!(matches!(kept(&lock), Keep::No(_)));
    }
}
