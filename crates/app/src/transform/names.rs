//! Host names, nodes, priority classes and ingress classes: names of things outside the application that are
//! called otherwise on the target.
//!
//! Nodes and classes stand in fields of their own. Host names stand anywhere: in rules and certificates, in
//! variables, annotations, ConfigMaps and opaque Secrets. A host is replaced where it stands as a whole, not as a part of a
//! longer one; `.example.com` means every host below. Image names have a mapping of their own.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::Value;

use super::{Mapping, is_opaque};

const HOSTNAME: &str = "kubernetes.io/hostname";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

/// Whether the mapping names any of these.
pub(super) fn are_mapped(mapping: &Mapping) -> bool {
    !(mapping.hosts.is_empty()
        && mapping.nodes.is_empty()
        && mapping.priority_classes.is_empty()
        && mapping.ingress_classes.is_empty())
}

/// Rewrites one object.
pub(super) fn apply(mapping: &Mapping, object: &mut Value) {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("").to_owned();
    if kind == "CustomResourceDefinition" {
        return;
    }
    let is_plain =
        kind != "Secret" || object.get("type").and_then(Value::as_str).is_none_or(|kind| kind == "Opaque");
    let Value::Object(fields) = object else { return };
    for (key, part) in fields.iter_mut() {
        match (kind.as_str(), key.as_str()) {
            (_, "apiVersion" | "kind" | "status") => {}
            (_, "metadata") => metadata(mapping, part),
            ("ConfigMap", "data") => texts(mapping, part),
            ("Secret", "stringData") if is_plain => texts(mapping, part),
            ("Secret", "data") if is_plain => encoded(mapping, part),
            ("ConfigMap" | "Secret", _) => {}
            _ => field(mapping, key, part),
        }
    }
}

fn metadata(mapping: &Mapping, metadata: &mut Value) {
    let Some(Value::Object(annotations)) = metadata.get_mut("annotations") else { return };
    for (key, value) in annotations.iter_mut() {
        let Value::String(value) = value else { continue };
        if key == INGRESS_CLASS {
            rename(&mapping.ingress_classes, value);
        } else {
            text(mapping, value);
        }
    }
}

fn field(mapping: &Mapping, key: &str, value: &mut Value) {
    match value {
        Value::String(name) => match key {
            "nodeName" => rename(&mapping.nodes, name),
            "priorityClassName" => rename(&mapping.priority_classes, name),
            "ingressClassName" => rename(&mapping.ingress_classes, name),
            "image" | "imageName" => {}
            _ => text(mapping, name),
        },
        Value::Object(labels) if key == "nodeSelector" && labels.contains_key(HOSTNAME) => {
            if let Some(Value::String(node)) = labels.get_mut(HOSTNAME) {
                rename(&mapping.nodes, node);
            }
        }
        Value::Object(metadata_of) if key == "metadata" => {
            // Of a pod template; its annotations say hosts, too.
            if let Some(Value::Object(annotations)) = metadata_of.get_mut("annotations") {
                for value in annotations.values_mut() {
                    if let Value::String(value) = value {
                        text(mapping, value);
                    }
                }
            }
        }
        _ if is_opaque(key) => {}
        Value::Object(fields) => {
            requirement(mapping, fields);
            let class = fields.get("priorityClassName").cloned();
            // The http01 solver of cert-manager says its class in a word.
            if key == "ingress"
                && let Some(Value::String(class)) = fields.get_mut("class")
            {
                rename(&mapping.ingress_classes, class);
            }
            fields.iter_mut().for_each(|(key, value)| field(mapping, key, value));
            if fields.get("priorityClassName") != class.as_ref() {
                // The number of the old class; the target fills in that of the new one.
                fields.shift_remove("priority");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| field(mapping, key, item)),
        _ => {}
    }
}

/// `{key: kubernetes.io/hostname, values: [n1]}`, `{key: metadata.name, …}` of a node affinity, and the scope of a quota.
fn requirement(mapping: &Mapping, fields: &mut serde_json::Map<String, Value>) {
    let said = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("");
    let names = match (said("key"), said("scopeName")) {
        (HOSTNAME | "metadata.name", _) => &mapping.nodes,
        (_, "PriorityClass") => &mapping.priority_classes,
        _ => return,
    };
    if let Some(Value::Array(values)) = fields.get_mut("values") {
        for value in values {
            if let Value::String(name) = value {
                rename(names, name);
            }
        }
    }
}

fn rename(names: &BTreeMap<String, String>, name: &mut String) {
    if let Some(new) = names.get(name) {
        name.clone_from(new);
    }
}

fn texts(mapping: &Mapping, map: &mut Value) {
    for value in map.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        if let Value::String(value) = value {
            text(mapping, value);
        }
    }
}

fn encoded(mapping: &Mapping, map: &mut Value) {
    for value in map.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        let Ok(ByteString(bytes)) = serde_json::from_value::<ByteString>(value.clone()) else { continue };
        let Ok(before) = String::from_utf8(bytes) else { continue };
        if let Some(after) = replaced(&mapping.hosts, &before)
            && let Ok(new) = serde_json::to_value(ByteString(after.into_bytes()))
        {
            *value = new;
        }
    }
}

fn text(mapping: &Mapping, text: &mut String) {
    if let Some(new) = replaced(&mapping.hosts, text) {
        *text = new;
    }
}

/// The text with every mapped host replaced, or `None` if there is none in it.
fn replaced(hosts: &BTreeMap<String, String>, text: &str) -> Option<String> {
    if !hosts.keys().any(|old| text.contains(old.as_str())) {
        return None;
    }
    let (mut out, mut rest, mut changed) = (String::with_capacity(text.len()), text, false);
    while let Some(first) = rest.chars().next() {
        let before = out.chars().next_back();
        let found = hosts
            .iter()
            .filter(|(old, _)| {
                rest.strip_prefix(old.as_str()).is_some_and(|after| stands(old, before, after))
            })
            .max_by_key(|(old, _)| old.len());
        // What was just put in is not looked at again, but it is what stands before.
        let (taken, put) = match found {
            Some((old, new)) => (old.len(), new.as_str()),
            None => (first.len_utf8(), rest.get(..first.len_utf8()).unwrap_or("")),
        };
        changed |= found.is_some();
        out.push_str(put);
        rest = rest.get(taken..).unwrap_or("");
    }
    changed.then_some(out)
}

/// Is it a host by itself here, and not a part of another one?
fn stands(host: &str, before: Option<char>, after: &str) -> bool {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let begins = if host.starts_with('.') {
        before.is_some_and(|c| goes_on(c) || c == '*')
    } else {
        !before.is_some_and(|c| goes_on(c) || c == '.')
    };
    let mut next = after.chars();
    let ends = match next.next() {
        Some('.') => !next.next().is_some_and(goes_on),
        Some(c) => !goes_on(c),
        None => true,
    };
    begins && ends
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mapping() -> Mapping {
        Mapping::from_yaml(
            "
hosts: {shop.example.com: shop.example.org, .apps.example.com: .apps.example.org}
nodes: {n1: m1}
priorityClasses: {high: urgent}
ingressClasses: {nginx: traefik}",
        )
        .unwrap()
    }

    #[test]
    fn a_host_is_replaced_where_it_stands_by_itself() {
        let hosts = mapping().hosts;
        for (text, want) in [
            ("shop.example.com", Some("shop.example.org")),
            (
                "https://shop.example.com/a?b=shop.example.com:8443",
                Some("https://shop.example.org/a?b=shop.example.org:8443"),
            ),
            ("See shop.example.com. And more", Some("See shop.example.org. And more")),
            ("my-shop.example.com", None),
            ("www.shop.example.com", None),
            ("shop.example.com.evil.net", None),
            ("shop.example.community", None),
            ("*.apps.example.com,a.b.apps.example.com", Some("*.apps.example.org,a.b.apps.example.org")),
            ("apps.example.com", None),
            ("amqp://u:p@shop.example.com/v", Some("amqp://u:p@shop.example.org/v")),
        ] {
            assert_eq!(replaced(&hosts, text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn names_are_replaced_where_their_kind_of_name_stands() {
        let cases = [
            (
                "an ingress",
                json!({"kind": "Ingress", "metadata": {"annotations": {INGRESS_CLASS: "nginx", "external-dns.alpha.kubernetes.io/hostname": "shop.example.com"}},
                    "spec": {"ingressClassName": "nginx", "tls": [{"hosts": ["shop.example.com"]}], "rules": [{"host": "shop.example.com"}]}}),
                json!({"kind": "Ingress", "metadata": {"annotations": {INGRESS_CLASS: "traefik", "external-dns.alpha.kubernetes.io/hostname": "shop.example.org"}},
                    "spec": {"ingressClassName": "traefik", "tls": [{"hosts": ["shop.example.org"]}], "rules": [{"host": "shop.example.org"}]}}),
            ),
            (
                "a deployment; images have their own mapping",
                json!({"kind": "Deployment", "spec": {"template": {"spec": {"priorityClassName": "high", "priority": 7, "nodeName": "n1", "nodeSelector": {HOSTNAME: "n1", "other": "n1"},
                    "affinity": {"nodeAffinity": {"x": {"nodeSelectorTerms": [{"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": ["n1", "n2"]}]}]}}},
                    "containers": [{"image": "shop.example.com/web:1", "env": [{"name": "U", "value": "https://shop.example.com"}]}]}}}}),
                json!({"kind": "Deployment", "spec": {"template": {"spec": {"priorityClassName": "urgent", "nodeName": "m1", "nodeSelector": {HOSTNAME: "m1", "other": "n1"},
                    "affinity": {"nodeAffinity": {"x": {"nodeSelectorTerms": [{"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": ["m1", "n2"]}]}]}}},
                    "containers": [{"image": "shop.example.com/web:1", "env": [{"name": "U", "value": "https://shop.example.org"}]}]}}}}),
            ),
            (
                "a quota for a class, and a local volume",
                json!({"kind": "X", "spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}}}}),
                json!({"kind": "X", "spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["urgent"]}]},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m1"]}]}]}}}}),
            ),
            (
                "configuration",
                json!({"kind": "ConfigMap", "data": {"url": "https://shop.example.com/", "class": "nginx"}, "binaryData": {"a": "eA=="}}),
                json!({"kind": "ConfigMap", "data": {"url": "https://shop.example.org/", "class": "nginx"}, "binaryData": {"a": "eA=="}}),
            ),
            (
                "an opaque secret",
                json!({"kind": "Secret", "type": "Opaque", "data": {"u": "aHR0cHM6Ly9zaG9wLmV4YW1wbGUuY29tLw=="}}),
                json!({"kind": "Secret", "type": "Opaque", "data": {"u": "aHR0cHM6Ly9zaG9wLmV4YW1wbGUub3JnLw=="}}),
            ),
            (
                "a certificate is for the host it was issued for",
                json!({"kind": "Secret", "type": "kubernetes.io/tls", "data": {"u": "aHR0cHM6Ly9zaG9wLmV4YW1wbGUuY29tLw=="}}),
                json!({"kind": "Secret", "type": "kubernetes.io/tls", "data": {"u": "aHR0cHM6Ly9zaG9wLmV4YW1wbGUuY29tLw=="}}),
            ),
            (
                "a custom resource",
                json!({"kind": "Issuer", "spec": {"acme": {"solvers": [{"http01": {"ingress": {"class": "nginx"}}}]}, "dnsNames": ["x.apps.example.com"]}}),
                json!({"kind": "Issuer", "spec": {"acme": {"solvers": [{"http01": {"ingress": {"class": "traefik"}}}]}, "dnsNames": ["x.apps.example.org"]}}),
            ),
        ];
        for (story, mut object, want) in cases {
            apply(&mapping(), &mut object);
            assert_eq!(object, want, "{story}");
        }
    }
}
