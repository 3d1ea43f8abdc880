//! Addresses that somebody asked for, or had, and somebody else has.
//!
//! A Service keeps the cluster IP and node ports that a person wrote into it. What its old cluster chose for it is asked
//! for again where it is free, since others may know it by now. Beside its own original, or on a cluster that
//! gave them away, they are taken: then the Service gets others, and that is told, since whoever has the old address in
//! his configuration must know.

use std::collections::BTreeMap;

use repo::Finding;
use serde_json::Value;

use super::Prepared;
use crate::api::ApiError;
use crate::object::{Object, ObjectKey};

/// Whether any service of the plan asks for an address.
pub(super) fn are_asked_for(prepared: &Prepared) -> bool {
    prepared
        .candidates
        .iter()
        .filter(|candidate| candidate.key.is("", "Service"))
        .any(|candidate| candidate.addressed.is_some() || !addresses(&candidate.desired).is_empty())
}

/// The service with the addresses its old cluster chose for it, if it chose any.
pub(super) fn addressed(desired: &Object, original: &Value) -> Option<Object> {
    let kind = |service: &Value| service.pointer("/spec/type").and_then(Value::as_str).map(str::to_owned);
    // A patch that makes it another type of service wants none of the old one's.
    if kind(&desired.0) != kind(original) || kind(original).as_deref() == Some("ExternalName") {
        return None;
    }
    let was = original.get("spec").and_then(Value::as_object)?;
    let mut with = desired.clone();
    let spec = with.0.get_mut("spec").and_then(Value::as_object_mut)?;
    if !spec.contains_key("clusterIP")
        && let Some(ip) = was.get("clusterIP").filter(|ip| !matches!(ip.as_str(), None | Some("" | "None")))
    {
        spec.insert("clusterIP".into(), ip.clone());
        // Two families only if somebody asked for two; the target may have one.
        if let Some(ips) = was.get("clusterIPs").and_then(Value::as_array)
            && ips.len() == 1
        {
            spec.insert("clusterIPs".into(), ips.clone().into());
        }
    }
    if let Some(port) = was.get("healthCheckNodePort").filter(|_| !spec.contains_key("healthCheckNodePort")) {
        spec.insert("healthCheckNodePort".into(), port.clone());
    }
    let old_ports = was.get("ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = old_ports
            .iter()
            .find(|old| old.get("port") == port.get("port") && protocol(old) == protocol(port));
        if let (Some(number), Some(fields)) = (same.and_then(|old| old.get("nodePort")), port.as_object_mut())
        {
            fields.entry("nodePort").or_insert_with(|| number.clone());
        }
    }
    (with != *desired).then_some(with)
}

/// Who asks for the addresses in `with` that are not in `desired`: a field manager that tells later readers that nobody set them.
pub(super) fn keeper(desired: &Object, with: &Object) -> String {
    let mut kept = Vec::new();
    for (field, also) in [("clusterIP", Some("clusterIPs")), ("healthCheckNodePort", None)] {
        let at = format!("/spec/{field}");
        if desired.at(&at).is_none() && with.at(&at).is_some() {
            kept.extend([Some(field), also].into_iter().flatten());
        }
    }
    let ports = |service: &Object| {
        let ports = service.at("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
        ports.iter().any(|port| port.get("nodePort").is_some())
    };
    if !ports(desired) && ports(with) {
        kept.push("nodePort");
    }
    crate::clean::keeper(&kept)
}

/// Does the target refuse a service because of an address it asks for?
pub(super) fn is_refusal(error: &ApiError) -> bool {
    let (ApiError::Invalid { message, .. } | ApiError::Other { message, .. }) = error else { return false };
    ["clusterIP", "nodePort", "healthCheckNodePort", "ipFamil", "provided IP", "provided port"]
        .iter()
        .any(|word| message.contains(word))
}

/// The address a balancer gave it, if nobody asked for that one: the target's gives another.
pub(super) fn balanced_at(original: &Value) -> Option<String> {
    let ingress = original.pointer("/status/loadBalancer/ingress").and_then(Value::as_array)?;
    let asked = original.pointer("/spec/loadBalancerIP").and_then(Value::as_str);
    let names: Vec<&str> = ingress
        .iter()
        .filter_map(|one| one.get("ip").or_else(|| one.get("hostname"))?.as_str())
        .filter(|name| Some(*name) != asked)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Takes away the addresses that services on the target have.
pub(super) fn without_taken(prepared: &mut Prepared, live: &[Object]) {
    let mut owners: BTreeMap<String, ObjectKey> = BTreeMap::new();
    for service in live {
        for address in addresses(service) {
            owners.insert(address, service.key());
        }
    }
    let Prepared { candidates, findings, .. } = prepared;
    for candidate in candidates.iter_mut().filter(|candidate| candidate.key.is("", "Service")) {
        for address in addresses(&candidate.desired) {
            let Some(owner) = owners.get(&address).filter(|owner| **owner != candidate.key) else { continue };
            drop_address(&mut candidate.desired.0, &address);
            findings.push(Finding::warning(
                "address-taken",
                candidate.key.to_string(),
                format!("{address} belongs to {owner} on the target, so it gets another one"),
            ));
        }
        let Some(addressed) = &mut candidate.addressed else { continue };
        for address in addresses(addressed) {
            let Some(owner) = owners.get(&address).filter(|owner| **owner != candidate.key) else { continue };
            drop_address(&mut addressed.0, &address);
            findings.push(Finding::note(
                "address-changes",
                candidate.key.to_string(),
                format!("it had {address}, which belongs to {owner} on the target, so it gets another one"),
            ));
        }
    }
}

/// `cluster IP 10.0.0.1`, `node port 30080/TCP`, …
fn addresses(service: &Object) -> Vec<String> {
    let mut found = Vec::new();
    let ip = service.str("/spec/clusterIP");
    if !matches!(ip, "" | "None") {
        found.push(format!("cluster IP {ip}"));
    }
    for port in service.at("/spec/ports").and_then(Value::as_array).into_iter().flatten() {
        if let Some(number) = port.get("nodePort").and_then(Value::as_u64).filter(|number| *number > 0) {
            found.push(format!("node port {number}/{}", protocol(port)));
        }
    }
    if let Some(number) = service.at("/spec/healthCheckNodePort").and_then(Value::as_u64).filter(|n| *n > 0) {
        found.push(format!("health check node port {number}"));
    }
    let ip = service.str("/spec/loadBalancerIP");
    if !ip.is_empty() {
        found.push(format!("load balancer address {ip}"));
    }
    found
}

fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

fn drop_address(service: &mut Value, address: &str) {
    let Some(Value::Object(spec)) = service.get_mut("spec") else { return };
    if address.starts_with("cluster IP") {
        spec.shift_remove("clusterIP");
        spec.shift_remove("clusterIPs");
    } else if address.starts_with("health check") {
        spec.shift_remove("healthCheckNodePort");
    } else if address.starts_with("load balancer") {
        spec.shift_remove("loadBalancerIP");
    } else if let Some(Value::Array(ports)) = spec.get_mut("ports") {
        for port in ports {
            let number = port.get("nodePort").and_then(Value::as_u64).unwrap_or(0);
            if format!("node port {number}/{}", protocol(port)) == address
                && let Value::Object(port) = port
            {
                port.shift_remove("nodePort");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::restore::prepare::tests::candidate;

    #[test]
    fn an_address_is_kept_unless_somebody_else_has_it() {
        let service = |name: &str, ip: &str, ports: &[u32]| {
            let ports: Vec<Value> = ports.iter().map(|p| json!({"port": 80, "nodePort": p})).collect();
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "n", "name": name}, "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": ports}})
        };
        let cases = [
            (
                "free",
                service("b", "10.0.0.2", &[30081]),
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30080}, {"port": 80, "nodePort": 30090}]}),
                0,
            ),
            (
                "its own",
                service("a", "10.0.0.1", &[30080, 30090]),
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30080}, {"port": 80, "nodePort": 30090}]}),
                0,
            ),
            (
                "one taken",
                service("b", "10.0.0.2", &[30080]),
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}, {"port": 80, "nodePort": 30090}]}),
                1,
            ),
            (
                "all taken",
                service("b", "10.0.0.1", &[30080, 30090]),
                json!({"ports": [{"port": 80}, {"port": 80}]}),
                3,
            ),
            (
                "headless is no address",
                service("b", "None", &[]),
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30080}, {"port": 80, "nodePort": 30090}]}),
                0,
            ),
        ];
        for (story, live, want, told) in cases {
            let wanted = service("a", "10.0.0.1", &[30080, 30090]);
            let mut prepared = Prepared { candidates: vec![candidate(0, wanted)], ..Prepared::default() };
            assert!(are_asked_for(&prepared));
            without_taken(&mut prepared, &[Object(live)]);
            assert_eq!(prepared.candidates[0].desired.at("/spec"), Some(&want), "{story}");
            assert_eq!(prepared.findings.len(), told, "{story}");
        }
    }

    #[test]
    fn what_the_old_cluster_chose_is_asked_for_again_where_it_is_free() {
        let was = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "n", "name": "a"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "healthCheckNodePort": 31000, "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 80, "protocol": "UDP", "nodePort": 30081}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}});
        let clean = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "n", "name": "a"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}, {"port": 81}]}});
        let with = addressed(&Object(clean.clone()), &was).unwrap();
        assert_eq!(
            with.at("/spec"),
            Some(
                &json!({"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 80, "protocol": "UDP", "nodePort": 30081}, {"port": 81}],
                "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "healthCheckNodePort": 31000})
            )
        );
        assert_eq!(balanced_at(&was).as_deref(), Some("192.0.2.7"));
        let mut prepared = Prepared { candidates: vec![candidate(0, clean.clone())], ..Prepared::default() };
        prepared.candidates[0].addressed = Some(with);
        assert!(are_asked_for(&prepared));
        let other = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "m", "name": "b"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1, "nodePort": 30081, "protocol": "UDP"}]}});
        without_taken(&mut prepared, &[Object(other)]);
        let left = prepared.candidates[0].addressed.as_ref().map(addresses);
        assert_eq!(
            left,
            Some(vec!["node port 30080/TCP".to_owned(), "health check node port 31000".to_owned()])
        );
        assert_eq!(prepared.findings.len(), 2);
        let mut another = clean.clone();
        another["spec"]["type"] = json!("ClusterIP");
        assert_eq!(addressed(&Object(another), &was), None, "a patch made it another type");
        for none in ["None", ""] {
            let headless = json!({"spec": {"clusterIP": none, "ports": [{"port": 80}]}});
            assert_eq!(addressed(&Object(json!({"spec": {"ports": [{"port": 80}]}})), &headless), None);
        }
    }
}
