//! Service: a name and an address. The name is the application's; the address is the cluster's unless somebody
//! asked for it.

use serde_json::Value;

use super::{Keep, KindInfo, Lookup, Order, PLAIN, Readiness, To, rule};
use crate::clean::{remove, was_set};
use crate::graph::RefKind;
use crate::object::Object;

/// Service.
pub static KIND: KindInfo = KindInfo {
    kind: "Service",
    order: Order::Network,
    refs: &[
        // Without a selector somebody else writes its endpoints.
        rule("/spec/selector", To::PodLabels, RefKind::Selects).optional(),
        rule("/spec/externalName", To::Host, RefKind::Names).optional(),
    ],
    clean: Some(clean),
    keep,
    ready,
    ..PLAIN
};

fn clean(original: &Object, service: &mut Value) {
    // `None` makes it headless: that is a choice, not an address.
    if original.str("/spec/clusterIP") != "None" && !was_set(original, &["spec", "clusterIP"]) {
        remove(service, "/spec/clusterIP");
        remove(service, "/spec/clusterIPs");
    }
    // The families of the old cluster; a cluster of the other family would refuse them.
    for chosen in ["ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"] {
        if !was_set(original, &["spec", chosen]) {
            remove(service, &format!("/spec/{chosen}"));
        }
    }
    if !was_set(original, &["spec", "ports", "nodePort"]) {
        remove(service, "/spec/ports/*/nodePort");
    }
}

fn keep(service: &Object, _: Lookup<'_>) -> Keep {
    if service.namespace() == "default" && service.name() == "kubernetes" {
        return Keep::No("the API server makes it");
    }
    Keep::Yes
}

fn ready(service: &Value) -> Readiness {
    let is_balanced = service.pointer("/spec/type").is_some_and(|t| t == "LoadBalancer");
    let has_address = service
        .pointer("/status/loadBalancer/ingress")
        .and_then(Value::as_array)
        .is_some_and(|i| !i.is_empty());
    if is_balanced && !has_address {
        Readiness::Waiting("it has no load balancer yet".into())
    } else {
        Readiness::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cleaned, kept, refs};
    use serde_json::json;

    fn service(spec: Value, fields: Value) -> Value {
        json!({"apiVersion":"v1","kind":"Service","metadata":{"namespace":"shop","name":"web","managedFields":[{"fieldsV1":{"f:spec":fields}}]},"spec":spec})
    }

    #[test]
    fn addresses_the_cluster_chose_are_stripped_and_those_people_chose_stay() {
        let given = json!({"clusterIP":"10.0.0.7","clusterIPs":["10.0.0.7"],"ipFamilies":["IPv4"],"ports":[{"port":80,"nodePort":30123}]});
        assert_eq!(cleaned(&service(given.clone(), json!({})))["spec"], json!({"ports":[{"port":80}]}));
        let asked = json!({"f:clusterIP":{},"f:ipFamilies":{},"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{"f:nodePort":{}}}});
        assert_eq!(cleaned(&service(given.clone(), asked))["spec"], given);
        let headless = json!({"clusterIP":"None","clusterIPs":["None"]});
        assert_eq!(cleaned(&service(headless.clone(), json!({})))["spec"], headless);
    }

    #[test]
    fn it_refers_to_the_pods_it_selects_and_to_the_service_behind_its_name() {
        assert_eq!(refs(&service(json!({"selector":{"app":"web"}}), json!({}))).len(), 1);
        assert_eq!(refs(&service(json!({}), json!({}))), Vec::<String>::new());
        assert_eq!(
            refs(&service(json!({"externalName":"db.data.svc.cluster.local"}), json!({}))),
            ["Service data/db names optional /spec/externalName"]
        );
    }

    #[test]
    fn a_balanced_service_waits_for_its_address() {
        assert!(matches!(ready(&json!({"spec":{"type":"LoadBalancer"}})), Readiness::Waiting(_)));
        assert_eq!(
            ready(
                &json!({"spec":{"type":"LoadBalancer"},"status":{"loadBalancer":{"ingress":[{"ip":"1.2.3.4"}]}}})
            ),
            Readiness::Ready
        );
        assert_eq!(ready(&json!({"spec":{}})), Readiness::Ready);
    }

    #[test]
    fn the_clusters_own_service_is_left_out() {
        let own = json!({"apiVersion":"v1","kind":"Service","metadata":{"namespace":"default","name":"kubernetes"}});
        assert!(matches!(kept(&own), Keep::No(_)));
    }
}
