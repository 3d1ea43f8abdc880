//! Reads the references out of one object: what it names, where the name stands, and whether it can do without.
//!
//! Looks at nothing but the object itself. What a selector selects, and whether a named object exists, is for
//! those who know the rest of the cluster (`discover`).

use serde_json::Value;

use crate::graph::RefKind;
use crate::kinds::{self, RefRule, To, podspec};
use crate::object::{Object, ObjectKey};
use crate::selector::Selector;

/// What a reference points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One object.
    Object(ObjectKey),
    /// The pods with these labels in this namespace, and the workloads that make such pods.
    Pods(String, Selector),
}

/// One reference of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it points at.
    pub target: Target,
    /// What it means.
    pub via: RefKind,
    /// JSON pointer to the evidence.
    pub at: String,
    /// The object can do without.
    pub optional: bool,
}

impl Found {
    /// A reference to one object.
    pub fn object(key: ObjectKey, via: RefKind, at: impl Into<String>) -> Found {
        Found { target: Target::Object(key), via, at: at.into(), optional: false }
    }

    /// The same, and the object can do without.
    pub fn optional(mut self) -> Found {
        self.optional = true;
        self
    }
}

/// All references of an object: those of its kind's table, its pod spec, its owners, its namespace, and names
/// of other namespaces' services in its plain configuration.
pub fn of(object: &Object) -> Vec<Found> {
    let info = kinds::of(object);
    let mut found = Vec::new();
    by_rules(object, "", info.refs, &mut found);
    if let Some(base) = info.pod_spec {
        for rules in podspec::REFS {
            by_rules(object, base, rules, &mut found);
        }
        podspec::find(object, base, &mut found);
    }
    if let Some(find) = info.find {
        find(object, &mut found);
    }
    let namespace = object.namespace();
    for (index, owner) in object.owner_references().iter().enumerate() {
        // An owner is in the same namespace or cluster-scoped; the table knows which for Kubernetes' own kinds,
        // and `discover` looks for the other one if this is not it.
        let key = ObjectKey::new(&owner.gvk.group, &owner.gvk.kind, namespace, &owner.name);
        found.push(Found::object(key, RefKind::Owner, format!("/metadata/ownerReferences/{index}")));
    }
    if !namespace.is_empty() {
        found.push(Found::object(
            ObjectKey::new("", "Namespace", "", namespace),
            RefKind::Namespace,
            "/metadata/namespace",
        ));
    }
    found
}

/// Reads names by a reference table; rule pointers are relative to `base`.
pub(crate) fn by_rules(object: &Object, base: &str, rules: &[RefRule], found: &mut Vec<Found>) {
    let Some(root) = object.at(base) else { return };
    for rule in rules {
        walk(root, rule.at, base.to_owned(), false, &mut |name, at, optional| {
            let Some(name) = name.as_str().filter(|n| !n.is_empty()) else { return };
            let key = match rule.to {
                To::Here(group, kind) => ObjectKey::new(group, kind, object.namespace(), name),
                To::Cluster(group, kind) => ObjectKey::new(group, kind, "", name),
            };
            found.push(Found { target: Target::Object(key), via: rule.via, at, optional });
        });
    }
}

/// Visits what a pattern of a JSON pointer with `*` leads to, with the exact pointer and whether the object
/// holding it is marked `optional: true`.
pub(crate) fn walk(
    value: &Value,
    pattern: &str,
    at: String,
    optional: bool,
    visit: &mut dyn FnMut(&Value, String, bool),
) {
    let Some(rest) = pattern.strip_prefix('/') else {
        visit(value, at, optional);
        return;
    };
    let (head, tail) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let marked = optional || value.get("optional").and_then(Value::as_bool).unwrap_or(false);
    match (head, value) {
        ("*", Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, tail, format!("{at}/{index}"), optional, visit);
            }
        }
        ("*", Value::Object(fields)) => {
            for (name, field) in fields {
                walk(field, tail, format!("{at}/{}", escape(name)), optional, visit);
            }
        }
        (_, Value::Object(fields)) => {
            if let Some(field) = fields.get(&unescape(head)) {
                walk(field, tail, format!("{at}/{head}"), marked, visit);
            }
        }
        _ => {}
    }
}

/// A member's name as a segment of a JSON pointer.
pub fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// Names of services in free text, as (name, namespace): `db.shop.svc`, `db.shop.svc.cluster.local`.
pub fn service_names(text: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let mut names = Vec::new();
    for (at, _) in text.match_indices(".svc") {
        // `.svc` must end there or go on with another label: `.svcs` is something else.
        if text[at + 4..].chars().next().is_some_and(|c| is_name(c) || c == '_') {
            continue;
        }
        let head = &text[..at];
        let start = head
            .rfind(|c: char| !is_name(c) && c != '.')
            .map_or(0, |i| i + head[i..].chars().next().map_or(1, char::len_utf8));
        let mut labels = head[start..].rsplit('.');
        // A pod of a headless service is `pod.service.namespace.svc`: the two labels next to `.svc` are meant.
        let (Some(namespace), Some(name)) = (labels.next(), labels.next()) else { continue };
        let fine = |label: &str| {
            !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
        };
        if fine(name) && fine(namespace) && !names.contains(&(name, namespace)) {
            names.push((name, namespace));
        }
    }
    names
}

/// Adds the services named in a text.
pub(crate) fn services_in(text: &str, at: &str, found: &mut Vec<Found>) {
    for (name, namespace) in service_names(text) {
        found.push(
            Found::object(ObjectKey::new("", "Service", namespace, name), RefKind::Names, at).optional(),
        );
    }
}

/// Adds the services named in any string below a value.
pub(crate) fn services_below(value: &Value, at: &str, found: &mut Vec<Found>) {
    match value {
        Value::String(text) => services_in(text, at, found),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                services_below(item, &format!("{at}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                services_below(field, &format!("{at}/{}", escape(name)), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_another_namespace_is_found_in_plain_text() {
        for (text, names) in [
            ("postgres://u:p@db.data.svc:5432/x", vec![("db", "data")]),
            ("http://web-0.web.shop.svc.cluster.local/", vec![("web", "shop")]),
            ("a.b.svc,c.d.svc.cluster.local;a.b.svc", vec![("a", "b"), ("c", "d")]),
            ("db.svc", vec![]),
            ("x.y.svcs z.svc_1", vec![]),
            ("café.b.svc", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(service_names(text), names, "{text}");
        }
    }
}
