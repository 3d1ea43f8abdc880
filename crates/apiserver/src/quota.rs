//! Resource quotas: what a namespace has used, and what it may still take.
//!
//! A quota's status is the account, as in a cluster: a write is judged by it, and what is stored or removed is
//! entered there at once. Only a new or changed quota counts everything anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::State;
use crate::cel::quantity;
use crate::kinds::Kind;
use crate::limits::{pod_total, shown};
use crate::status::Fault;
use crate::storage::Key;

const ONE: i128 = 1_000_000_000;
const QUOTAS: &str = "resourcequotas";

type Amounts = BTreeMap<String, i128>;

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    path.split('.').try_fold(value, |value, key| value.get(key)).and_then(Value::as_str).unwrap_or("")
}

fn over(pod: &Value) -> bool {
    matches!(text(pod, "status.phase"), "Succeeded" | "Failed")
}

/// What one object uses, under every name a quota may have for it.
fn usage(resource: &str, object: &Value) -> Amounts {
    let mut used = Amounts::new();
    used.insert(format!("count/{resource}"), ONE);
    match resource {
        "pods" => {
            if over(object) {
                return used;
            }
            used.insert("pods".into(), ONE);
            for (which, plain) in [("requests", true), ("limits", false)] {
                for (name, amount) in pod_total(object, which) {
                    if plain && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                        used.insert(name.clone(), amount);
                    }
                    used.insert(format!("{which}.{name}"), amount);
                }
            }
        }
        "services" => {
            used.insert("services".into(), ONE);
            let ports = object["spec"]["ports"].as_array().map_or(0, Vec::len) as i128;
            let with_ports = match text(object, "spec.type") {
                "NodePort" => ports,
                "LoadBalancer" => {
                    used.insert("services.loadbalancers".into(), ONE);
                    if object["spec"]["allocateLoadBalancerNodePorts"] == json!(false) { 0 } else { ports }
                }
                _ => 0,
            };
            if with_ports > 0 {
                used.insert("services.nodeports".into(), with_ports * ONE);
            }
        }
        "persistentvolumeclaims" => {
            let size = quantity(text(object, "spec.resources.requests.storage")).unwrap_or(0);
            let class = text(object, "spec.storageClassName");
            used.insert("persistentvolumeclaims".into(), ONE);
            used.insert("requests.storage".into(), size);
            if !class.is_empty() {
                let prefix = format!("{class}.storageclass.storage.k8s.io");
                used.insert(format!("{prefix}/persistentvolumeclaims"), ONE);
                used.insert(format!("{prefix}/requests.storage"), size);
            }
        }
        "configmaps" | "secrets" | "replicationcontrollers" | QUOTAS => {
            used.insert(resource.into(), ONE);
        }
        _ => {}
    }
    used
}

/// Does a quota count this object at all?
fn in_scope(quota: &Value, resource: &str, object: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let plain = plain.map(|scope| (scope, "Exists", Vec::new()));
    let chosen = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().map(|e| {
        let values = e["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
        (text(e, "scopeName"), text(e, "operator"), values.collect::<Vec<&str>>())
    });
    plain.chain(chosen).all(|(scope, operator, values)| {
        // Every scope is about pods.
        if resource != "pods" {
            return false;
        }
        let deadline = object["spec"]["activeDeadlineSeconds"].as_i64().is_some();
        let best_effort = crate::defaults::qos_class(&object["spec"]) == "BestEffort";
        let class = text(object, "spec.priorityClassName");
        match (scope, operator) {
            ("Terminating", _) => deadline,
            ("NotTerminating", _) => !deadline,
            ("BestEffort", _) => best_effort,
            ("NotBestEffort", _) => !best_effort,
            ("PriorityClass", "In") => values.contains(&class),
            ("PriorityClass", "NotIn") => !values.contains(&class),
            ("PriorityClass", "DoesNotExist") => class.is_empty(),
            ("PriorityClass", _) => !class.is_empty(),
            _ => false,
        }
    })
}

fn hard(quota: &Value) -> BTreeMap<String, (i128, String)> {
    let entries = quota["spec"]["hard"].as_object().into_iter().flatten();
    entries
        .filter_map(|(name, amount)| {
            let amount = amount.as_str()?;
            Some((name.clone(), (quantity(amount)?, amount.to_string())))
        })
        .collect()
}

/// What each container of a pod must say so that it can be counted.
fn unsaid(quota: &Value, pod: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    for name in hard(quota).keys() {
        let (which, resource) = match name.split_once('.') {
            Some((which @ ("requests" | "limits"), resource @ ("cpu" | "memory"))) => (which, resource),
            None if matches!(name.as_str(), "cpu" | "memory") => ("requests", name.as_str()),
            _ => continue,
        };
        let lists = ["containers", "initContainers"].map(|list| pod["spec"][list].as_array());
        if lists.into_iter().flatten().flatten().any(|c| c["resources"][which][resource].is_null()) {
            missing.push(name.clone());
        }
    }
    missing
}

impl State {
    fn quotas(&self, namespace: &str) -> Vec<(Key, Arc<Value>)> {
        if namespace.is_empty() {
            return Vec::new();
        }
        self.store.list(QUOTAS, namespace).map(|(k, v)| (k.clone(), v)).collect()
    }

    /// May this object be stored? `old` is what it replaces.
    pub fn admit_quota(&self, kind: &Kind, old: Option<&Value>, new: &Value) -> Result<(), Fault> {
        let resource = kind.resource();
        let (namespace, name) = (text(new, "metadata.namespace"), text(new, "metadata.name"));
        for (key, quota) in self.quotas(namespace) {
            if !in_scope(&quota, &resource, new) {
                continue;
            }
            let before = old.map(|old| usage(&resource, old)).unwrap_or_default();
            let after = usage(&resource, new);
            if old.is_none() && resource == "pods" {
                let missing = unsaid(&quota, new);
                if !missing.is_empty() {
                    let why = format!("failed quota: {}: must specify {}", key.name, missing.join(","));
                    return Err(Fault::forbidden(&kind.group, &kind.plural, name, &why));
                }
            }
            let (mut requested, mut used, mut limited) = (Vec::new(), Vec::new(), Vec::new());
            for (what, (most, written)) in hard(&quota) {
                let more = after.get(&what).unwrap_or(&0) - before.get(&what).unwrap_or(&0);
                let now = quota["status"]["used"][what.as_str()].as_str().and_then(quantity).unwrap_or(0);
                if more > 0 && now + more > most {
                    requested.push(format!("{what}={}", shown(more, &written)));
                    used.push(format!("{what}={}", shown(now, &written)));
                    limited.push(format!("{what}={written}"));
                }
            }
            if !requested.is_empty() {
                let why = format!(
                    "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                    key.name,
                    requested.join(","),
                    used.join(","),
                    limited.join(",")
                );
                return Err(Fault::forbidden(&kind.group, &kind.plural, name, &why));
            }
        }
        Ok(())
    }

    /// Enters what was stored or removed in the accounts of its namespace.
    pub fn account(&mut self, key: &Key, old: Option<&Value>, new: Option<&Value>) {
        let quotas = self.quotas(&key.namespace);
        if quotas.is_empty() {
            return;
        }
        for (quota_key, quota) in quotas {
            if &*key.resource == QUOTAS && key.name == quota_key.name {
                if new.is_some() {
                    self.count_anew(&quota_key, &quota);
                }
                continue;
            }
            let counted = |object: Option<&Value>| match object {
                Some(object) if in_scope(&quota, &key.resource, object) => usage(&key.resource, object),
                _ => Amounts::new(),
            };
            let (before, after) = (counted(old), counted(new));
            if before == after {
                continue;
            }
            let mut changed = (*quota).clone();
            for (what, (_, written)) in hard(&quota) {
                let more = after.get(&what).unwrap_or(&0) - before.get(&what).unwrap_or(&0);
                let now = quota["status"]["used"][what.as_str()].as_str().and_then(quantity).unwrap_or(0);
                if more != 0 {
                    changed["status"]["used"][what.as_str()] = json!(shown(now + more, &written));
                }
            }
            if changed != *quota {
                self.store.put(quota_key, changed);
            }
        }
    }

    fn count_anew(&mut self, key: &Key, quota: &Arc<Value>) {
        let hard = hard(quota);
        let mut totals: BTreeMap<&String, i128> = hard.keys().map(|name| (name, 0)).collect();
        for (other, object) in self.store.all().filter(|(other, _)| other.namespace == key.namespace) {
            let object = object.open();
            if !in_scope(quota, &other.resource, &object) {
                continue;
            }
            for (what, amount) in usage(&other.resource, &object) {
                if let Some(total) = totals.get_mut(&what) {
                    *total += amount;
                }
            }
        }
        let used: serde_json::Map<String, Value> = totals
            .into_iter()
            .map(|(what, total)| {
                let written = hard.get(what).map_or("", |(_, written)| written.as_str());
                (what.clone(), json!(shown(total, written)))
            })
            .collect();
        let status = json!({ "hard": quota["spec"]["hard"], "used": used });
        if quota["status"] != status {
            let mut changed = (**quota).clone();
            changed["status"] = status;
            self.store.put(key.clone(), changed);
        }
    }
}
