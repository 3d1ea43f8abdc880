//! Addresses that somebody asked for and somebody else has.
//!
//! A Service keeps the cluster IP and node ports that a person wrote into it. Beside its own original, or on
//! a cluster that gave them away, they are taken: then the Service gets others, and that is told, since
//! whoever has the old address in his configuration must know.

use std::collections::BTreeMap;

use repo::Finding;
use serde_json::Value;

use super::Prepared;
use crate::object::{Object, ObjectKey};

/// Whether any service of the plan asks for an address.
pub(super) fn are_asked_for(prepared: &Prepared) -> bool {
    prepared
        .candidates
        .iter()
        .filter(|candidate| candidate.key.is("", "Service"))
        .any(|candidate| !addresses(&candidate.desired).is_empty())
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
}
