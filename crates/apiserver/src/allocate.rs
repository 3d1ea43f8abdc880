//! Addresses and ports of services: unique across the cluster, refused if taken.
//!
//! This is what a restore into a living cluster trips over: the old cluster IP may belong to somebody
//! else by now.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::State;
use crate::finalize::remove_field;
use crate::kinds::Kind;
use crate::status::{Cause, Fault};

/// 10.96.0.0/16; the first address belongs to the API server itself.
const NETWORK: [u8; 2] = [10, 96];
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;

impl State {
    /// Gives a service its address and ports; nothing is taken until the object is stored, so a dry run
    /// may ask, too.
    pub fn allocate(&mut self, kind: &Kind, old: Option<&Value>, object: &mut Value) -> Result<(), Fault> {
        if !kind.is("", "services") {
            return Ok(());
        }
        let name = object["metadata"]["name"].as_str().unwrap_or("").to_string();
        let refuse = |cause: Cause| Fault::invalid("", "Service", &name, vec![cause]);
        let me = (object["metadata"]["namespace"].clone(), object["metadata"]["name"].clone());
        let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for (_, other) in self.store.list("services", "") {
            if (&other["metadata"]["namespace"], &other["metadata"]["name"]) == (&me.0, &me.1) {
                continue;
            }
            addresses.extend(other["spec"]["clusterIP"].as_str().map(str::to_string));
            for port in other["spec"]["ports"].as_array().into_iter().flatten() {
                ports.extend(port["nodePort"].as_i64());
            }
        }
        let spec = &mut object["spec"];
        let kind_of = spec["type"].as_str().unwrap_or("ClusterIP").to_string();
        self.allocate_address(&kind_of, old, spec, &addresses).map_err(refuse)?;
        self.allocate_ports(&kind_of, old, spec, &mut ports).map_err(refuse)
    }

    fn allocate_address(
        &self,
        kind: &str,
        old: Option<&Value>,
        spec: &mut Value,
        taken: &BTreeSet<String>,
    ) -> Result<(), Cause> {
        if kind == "ExternalName" {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
                remove_field(spec, key);
            }
            return Ok(());
        }
        // Drawn with the address, so that nobody owns them who did not write them.
        for (key, value) in [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))] {
            if spec[key].is_null() {
                spec[key] = value;
            }
        }
        if spec["clusterIP"].as_str().unwrap_or("").is_empty() {
            // An update that leaves it out keeps it.
            let before = old
                .map(|o| o["spec"]["clusterIP"].clone())
                .filter(|ip| ip.as_str().is_some_and(|s| !s.is_empty()));
            let asked = spec["clusterIPs"][0].clone();
            spec["clusterIP"] = match (asked, before) {
                (Value::String(asked), _) => json!(asked),
                (_, Some(before)) => before,
                _ => json!(self.free_address(taken)),
            };
        }
        let address = spec["clusterIP"].as_str().unwrap_or("").to_string();
        if address != "None" {
            let parsed: Result<Ipv4Addr, _> = address.parse();
            let inside = parsed.as_ref().is_ok_and(|ip| ip.octets()[..2] == NETWORK);
            let kept = old.is_some_and(|o| o["spec"]["clusterIP"] == json!(address));
            if parsed.is_err() {
                return Err(Cause::invalid(
                    "spec.clusterIPs[0]",
                    &json!([address]),
                    "must be a valid IP address",
                ));
            }
            if !inside && !kept {
                let why = format!(
                    "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is 10.96.0.0/16"
                );
                return Err(Cause::invalid("spec.clusterIPs", &json!([address]), why));
            }
            if taken.contains(&address) {
                let why = format!("failed to allocate IP {address}: provided IP is already allocated");
                return Err(Cause::invalid("spec.clusterIPs", &json!([address]), why));
            }
        }
        let second = spec["clusterIPs"].as_array().and_then(|l| l.get(1)).cloned();
        spec["clusterIPs"] = match second {
            Some(second) => json!([address, second]),
            None => json!([address]),
        };
        Ok(())
    }

    fn free_address(&self, taken: &BTreeSet<String>) -> String {
        loop {
            let dice = (self.entropy)();
            let [a, b] = NETWORK;
            let address =
                Ipv4Addr::new(a, b, (dice >> 8) as u8, ((dice & 0xff) as u8).clamp(2, 254)).to_string();
            if !taken.contains(&address) {
                return address;
            }
        }
    }

    fn allocate_ports(
        &self,
        kind: &str,
        old: Option<&Value>,
        spec: &mut Value,
        taken: &mut BTreeSet<i64>,
    ) -> Result<(), Cause> {
        let wants = kind == "NodePort"
            || (kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != json!(false));
        let before: Vec<Value> = old.and_then(|o| o["spec"]["ports"].as_array().cloned()).unwrap_or_default();
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
        for (at, port) in ports.enumerate() {
            let asked = port["nodePort"].as_i64().unwrap_or(0);
            if asked == 0 && !wants {
                remove_field(port, "nodePort");
                continue;
            }
            if asked != 0 {
                let path = format!("spec.ports[{at}].nodePort");
                if !wants && kind == "ClusterIP" {
                    // Real servers drop ports that an earlier type left behind.
                    if old.is_some() {
                        remove_field(port, "nodePort");
                        continue;
                    }
                    return Err(Cause::forbidden(path, "may not be used when `type` is 'ClusterIP'"));
                }
                if !NODE_PORTS.contains(&asked) {
                    let why =
                        "provided port is not in the valid range. The range of valid ports is 30000-32767";
                    return Err(Cause::invalid(path, &json!(asked), why));
                }
                if !taken.insert(asked) {
                    return Err(Cause::invalid(path, &json!(asked), "provided port is already allocated"));
                }
                continue;
            }
            let same = |o: &&Value| o["port"] == port["port"] && o["protocol"] == port["protocol"];
            let kept = before.iter().find(same).and_then(|o| o["nodePort"].as_i64());
            let span = (NODE_PORTS.end() - NODE_PORTS.start() + 1) as u64;
            let mut number = kept.unwrap_or(0);
            while number == 0 || (kept.is_none() && taken.contains(&number)) {
                number = NODE_PORTS.start() + ((self.entropy)() % span) as i64;
            }
            taken.insert(number);
            port["nodePort"] = json!(number);
        }
        Ok(())
    }
}
