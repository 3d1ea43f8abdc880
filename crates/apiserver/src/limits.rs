//! What a namespace's limit ranges and the cluster's priority classes do to a pod or a claim: fill in what it
//! does not say, refuse what is out of bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::State;
use crate::cel::quantity;
use crate::status::Fault;
use crate::storage::Key;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn amounts(list: &Value) -> BTreeMap<String, i128> {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), quantity(amount.as_str()?)?))).collect()
}

fn containers<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    pod["spec"].get(list).and_then(Value::as_array).into_iter().flatten()
}

/// What a pod asks for (`requests`) or may use (`limits`): its containers together, or its largest init container
/// if that is more.
pub fn pod_total(pod: &Value, which: &str) -> BTreeMap<String, i128> {
    let mut total = BTreeMap::new();
    for container in containers(pod, "containers") {
        for (name, amount) in amounts(&container["resources"][which]) {
            *total.entry(name).or_insert(0) += amount;
        }
    }
    for container in containers(pod, "initContainers") {
        let stays = container["restartPolicy"] == json!("Always");
        for (name, amount) in amounts(&container["resources"][which]) {
            let entry = total.entry(name).or_insert(0);
            *entry = if stays { *entry + amount } else { (*entry).max(amount) };
        }
    }
    for (name, amount) in amounts(&pod["spec"]["overhead"]) {
        if let Some(entry) = total.get_mut(&name) {
            *entry += amount;
        }
    }
    total
}

impl State {
    fn limit_items(&self, namespace: &str) -> Vec<Value> {
        let ranges = self.store.list("limitranges", namespace);
        let items = ranges.filter_map(|(_, range)| range["spec"]["limits"].as_array().cloned());
        items.flatten().collect()
    }

    /// The priority of a new pod, from the class it names or the default one.
    pub fn admit_priority(&self, pod: &mut Value) -> Result<(), Fault> {
        let name = text(&pod["metadata"], "name").to_string();
        let class = text(&pod["spec"], "priorityClassName").to_string();
        let found: Option<Arc<Value>> = if class.is_empty() {
            let mut classes = self.store.list("priorityclasses.scheduling.k8s.io", "");
            classes.find(|(_, c)| c["globalDefault"] == json!(true)).map(|(_, c)| c)
        } else {
            let key = Key::new("priorityclasses.scheduling.k8s.io", "", &class);
            let found = self.store.get(&key);
            if found.is_none() {
                let why = format!("no PriorityClass with name {class} was found");
                return Err(Fault::forbidden("", "pods", &name, &why));
            }
            found
        };
        let spec = &mut pod["spec"];
        if let Some(class) = found {
            spec["priorityClassName"] = class["metadata"]["name"].clone();
            spec["priority"] = class["value"].clone();
            if let Some(policy) = class["preemptionPolicy"].as_str() {
                spec["preemptionPolicy"] = json!(policy);
            }
        }
        Ok(())
    }

    /// Limits and requests of a new pod, from the limit ranges of its namespace; then their bounds.
    pub fn admit_limits(&self, pod: &mut Value) -> Result<(), Fault> {
        let items = self.limit_items(text(&pod["metadata"], "namespace"));
        if items.is_empty() {
            return Ok(());
        }
        let mut notes = Vec::new();
        for item in items.iter().filter(|item| text(item, "type") == "Container") {
            for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
                let list = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
                for container in list.into_iter().flatten() {
                    for (which, from, word) in
                        [("requests", "defaultRequest", "request"), ("limits", "default", "limit")]
                    {
                        let mut set = Vec::new();
                        for (name, amount) in item[from].as_object().into_iter().flatten() {
                            let place = &mut container["resources"][which][name.as_str()];
                            if place.is_null() {
                                *place = amount.clone();
                                set.push(name.clone());
                            }
                        }
                        if !set.is_empty() {
                            set.sort();
                            notes.push(format!(
                                "{} {word} for {what} {}",
                                set.join(", "),
                                text(container, "name")
                            ));
                        }
                    }
                }
            }
        }
        if !notes.is_empty() {
            let note = format!("LimitRanger plugin set: {}", notes.join("; "));
            pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"] = json!(note);
        }
        let mut wrong = Vec::new();
        for item in &items {
            match text(item, "type") {
                "Container" => {
                    for container in containers(pod, "containers").chain(containers(pod, "initContainers")) {
                        let resources = &container["resources"];
                        bounds(
                            item,
                            &amounts(&resources["requests"]),
                            &amounts(&resources["limits"]),
                            &mut wrong,
                        );
                    }
                }
                "Pod" => bounds(item, &pod_total(pod, "requests"), &pod_total(pod, "limits"), &mut wrong),
                _ => {}
            }
        }
        refuse("pods", text(&pod["metadata"], "name"), wrong)
    }

    /// The size of a new claim.
    pub fn admit_claim_size(&self, claim: &Value) -> Result<(), Fault> {
        let items = self.limit_items(text(&claim["metadata"], "namespace"));
        let asked = amounts(&claim["spec"]["resources"]["requests"]);
        let mut wrong = Vec::new();
        for item in items.iter().filter(|item| text(item, "type") == "PersistentVolumeClaim") {
            bounds(item, &asked, &asked, &mut wrong);
        }
        refuse("persistentvolumeclaims", text(&claim["metadata"], "name"), wrong)
    }
}

fn refuse(resource: &str, name: &str, mut wrong: Vec<String>) -> Result<(), Fault> {
    wrong.sort();
    wrong.dedup();
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(Fault::forbidden("", resource, name, one)),
        many => Err(Fault::forbidden("", resource, name, &format!("[{}]", many.join(", ")))),
    }
}

fn bounds(
    item: &Value,
    requests: &BTreeMap<String, i128>,
    limits: &BTreeMap<String, i128>,
    wrong: &mut Vec<String>,
) {
    let of = text(item, "type");
    let each = |key: &str| {
        let entries = item[key].as_object().into_iter().flatten();
        let entries = entries.filter_map(|(name, bound)| Some((name.clone(), bound.as_str()?.to_string())));
        entries.collect::<Vec<(String, String)>>()
    };
    for (name, bound) in each("min") {
        let Some(least) = quantity(&bound) else { continue };
        let head = format!("minimum {name} usage per {of} is {bound}");
        match requests.get(&name) {
            None => wrong.push(format!("{head}.  No request is specified")),
            Some(asked) if *asked < least => {
                wrong.push(format!("{head}, but request is {}", shown(*asked, &bound)))
            }
            Some(_) => match limits.get(&name) {
                Some(limit) if *limit < least => {
                    wrong.push(format!("{head}, but limit is {}", shown(*limit, &bound)));
                }
                _ => {}
            },
        }
    }
    for (name, bound) in each("max") {
        let Some(most) = quantity(&bound) else { continue };
        let head = format!("maximum {name} usage per {of} is {bound}");
        match limits.get(&name) {
            None => wrong.push(format!("{head}.  No limit is specified")),
            Some(limit) if *limit > most => {
                wrong.push(format!("{head}, but limit is {}", shown(*limit, &bound)))
            }
            Some(_) => match requests.get(&name) {
                Some(asked) if *asked > most => {
                    wrong.push(format!("{head}, but request is {}", shown(*asked, &bound)));
                }
                _ => {}
            },
        }
    }
    for (name, bound) in each("maxLimitRequestRatio") {
        let Some(most) = quantity(&bound) else { continue };
        let head = format!("{name} max limit to request ratio per {of} is {bound}");
        let (asked, limit) = (requests.get(&name).copied(), limits.get(&name).copied());
        match (asked.filter(|n| *n != 0), limit.filter(|n| *n != 0)) {
            (None, _) => wrong.push(format!("{head}, but no request is specified or request is 0")),
            (_, None) => wrong.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(asked), Some(limit)) => {
                let ratio = limit as f64 / asked as f64;
                if ratio > most as f64 / 1e9 {
                    wrong.push(format!("{head}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

/// An amount in the shortest exact form, in powers of two or of ten as `like` is written.
pub fn shown(nanos: i128, like: &str) -> String {
    const ONE: i128 = 1_000_000_000;
    if nanos % ONE == 0 {
        let whole = nanos / ONE;
        let (base, suffixes): (i128, &[&str]) = match like.ends_with('i') {
            true => (1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]),
            false => (1000, &["", "k", "M", "G", "T", "P", "E"]),
        };
        let (mut number, mut at) = (whole, 0);
        while number != 0 && number % base == 0 && at + 1 < suffixes.len() {
            number /= base;
            at += 1;
        }
        return format!("{number}{}", suffixes.get(at).unwrap_or(&""));
    }
    match nanos {
        n if n % 1_000_000 == 0 => format!("{}m", n / 1_000_000),
        n if n % 1_000 == 0 => format!("{}u", n / 1_000),
        n => format!("{n}n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_as_people_wrote_them() {
        for (text, like, expect) in [
            ("1024Mi", "1Gi", "1Gi"),
            ("1500m", "1", "1500m"),
            ("1000m", "1", "1"),
            ("2000", "1", "2k"),
            ("0", "1Gi", "0"),
            ("1.5Gi", "1Gi", "1536Mi"),
        ] {
            assert_eq!(quantity(text).map(|n| shown(n, like)).as_deref(), Some(expect), "{text}");
        }
    }
}
