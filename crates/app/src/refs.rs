//! Reads the references out of one object: what it names, where the name stands, and whether it can do without.
//!
//! Looks at nothing but the object itself. What a selector selects, whether a named object exists, and whether a host is a
//! Service, is for those who know the rest of the cluster (`resolve`).

use serde_json::Value;

use crate::graph::{By, RefKind};
use crate::kinds::{self, RefRule, To, Where, podspec};
use crate::names::{self, Mention};
use crate::object::{Object, ObjectKey, split_api_version};
use crate::selector::Selector;
use crate::shapes;

/// What a reference points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One object.
    Object(ObjectKey),
    /// The pods with these labels in this namespace, and the workloads that make such pods.
    Pods(String, Selector),
    /// The objects of a kind with these labels.
    Objects {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
        /// Where.
        namespaces: Namespaces,
        /// Their labels.
        selector: Selector,
    },
    /// All definitions of an API group.
    Definitions(String),
    /// Whatever stands behind a host named in text.
    Host(Mention),
}

/// Namespaces that a selector looks in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// This one; empty for what is cluster-scoped.
    One(String),
    /// All of them.
    Any,
    /// These.
    Named(Vec<String>),
    /// Those with these labels.
    Labelled(Selector),
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
    /// How it is known.
    pub by: By,
}

impl Found {
    /// A reference.
    pub fn to(target: Target, via: RefKind, at: impl Into<String>) -> Found {
        Found { target, via, at: at.into(), optional: false, by: By::Table }
    }

    /// A reference to one object.
    pub fn object(key: ObjectKey, via: RefKind, at: impl Into<String>) -> Found {
        Found::to(Target::Object(key), via, at)
    }

    /// The same, and the object can do without.
    pub fn optional(mut self) -> Found {
        self.optional = true;
        self
    }

    /// The same, known in another way. What is not known from a table need not be there.
    pub fn by(mut self, by: By) -> Found {
        self.by = by;
        self.optional = true;
        self
    }
}

/// All references of an object that stand in it: those of its kind's table, its pod spec, its owners, its namespace, its
/// shapes if it is a custom resource, and hosts in its plain text.
pub fn of(object: &Object) -> Vec<Found> {
    let info = kinds::of(object);
    let mut found = Vec::new();
    by_rules(object, "", info.refs, &mut found);
    if let Some(base) = info.pod_spec {
        pod_rules(object, base, &mut found);
        podspec::find(object, base, &mut found);
    }
    for base in info.like_pods {
        pod_rules(object, base, &mut found);
        podspec::text(object, base, &mut found);
    }
    if let Some(find) = info.find {
        find(object, &mut found);
    }
    if !kinds::is_built_in(&object.gvk().group) {
        shapes::find(object, info.pod_spec, &mut found);
    }
    about(object, &mut found);
    found
}

/// What any object may say in its metadata: owners, its namespace, what keeps it in step with Git.
fn about(object: &Object, found: &mut Vec<Found>) {
    let namespace = object.namespace();
    for (index, owner) in object.owner_references().iter().enumerate() {
        // An owner is in the same namespace or cluster-scoped; the table knows which for Kubernetes' own kinds,
        // and `resolve` looks for the other one if this is not it.
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
    for (group, kind) in
        [("kustomize.toolkit.fluxcd.io", "Kustomization"), ("helm.toolkit.fluxcd.io", "HelmRelease")]
    {
        let label = |what: &str| object.label(&format!("{group}/{what}"));
        if let (Some(name), Some(namespace)) = (label("name"), label("namespace")) {
            let at = format!("/metadata/labels/{}", escape(&format!("{group}/name")));
            let key = ObjectKey::new(group, kind, namespace, name);
            found.push(Found::object(key, RefKind::Tracked, at).optional());
        }
    }
}

/// Reads what a pod spec names, by the one table for all of them.
pub(crate) fn pod_rules(object: &Object, base: &str, found: &mut Vec<Found>) {
    for rules in podspec::REFS {
        by_rules(object, base, rules, found);
    }
}

/// Reads names by a reference table; rule pointers are relative to `base`.
pub(crate) fn by_rules(object: &Object, base: &str, rules: &[RefRule], found: &mut Vec<Found>) {
    let Some(root) = object.at(base) else { return };
    for rule in rules {
        walk(root, rule.at, base.to_owned(), false, &mut |value, at, optional| {
            let optional = optional || rule.optional || says_optional(value);
            if rule.to == To::Host {
                if let Some(text) = value.as_str() {
                    let key = at.rsplit('/').next().unwrap_or("").to_owned();
                    // The field is one for hosts, whatever its name.
                    let mentions = match names::Host::parse(text) {
                        Some(_) => names::in_value(&format!("{key} host"), text),
                        None => names::in_value(&key, text),
                    };
                    hosts(mentions, &at, found);
                }
            } else if let Some(target) = target(object, rule.to, value, &at) {
                found.push(Found { target, via: rule.via, at, optional, by: By::Table });
            }
        });
    }
}

fn says_optional(value: &Value) -> bool {
    value.get("optional").and_then(Value::as_bool).unwrap_or(false)
}

/// What stands at a rule's place.
fn target(object: &Object, to: To, value: &Value, at: &str) -> Option<Target> {
    let own = object.namespace();
    let name = || value.as_str().filter(|name| !name.is_empty());
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or("");
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    // What is cluster-scoped has no namespace, whatever is written beside its name.
    let one = |group: &str, kind: &str, namespace: &str, name: &str| {
        if name.is_empty() {
            return None;
        }
        let namespace = if kinds::lookup(group, kind).cluster_scoped { "" } else { namespace };
        Some(Target::Object(ObjectKey::new(group, kind, namespace, name)))
    };
    match to {
        To::Here(group, kind) => one(group, kind, own, name()?),
        To::Cluster(group, kind) => one(group, kind, "", name()?),
        To::In(namespace, group, kind) => one(group, kind, namespace, name()?),
        To::There(group, kind) => one(group, kind, &or(text("namespace"), own), text("name")),
        To::Named(group, kind, name_field, namespace_field) => {
            one(group, kind, &or(text(namespace_field), own), text(name_field))
        }
        To::Says(group, kind) => {
            let (said_group, said_kind) = said(value);
            // Who says the kind means a group by silence: the core group in Kubernetes' own references.
            let (group, kind) = match (said_group, said_kind) {
                (Some(group), Some(kind)) => (group, kind),
                (None, Some(said)) if said == kind || !is_kind_of_core(said) => (group, said),
                (None, Some(said)) => ("", said),
                (Some(group), None) => (group, kind),
                (None, None) => (group, kind),
            };
            one(group, kind, &or(text("namespace"), own), text("name"))
        }
        To::Slashed(group, kind) => {
            let (namespace, name) = name()?.split_once('/').unwrap_or((own, name()?));
            one(group, kind, namespace, name)
        }
        To::Pods => Some(Target::Pods(own.to_owned(), Selector::from_json(value))),
        To::PodLabels => {
            let selector = Selector::from_map(Some(value));
            (!selector.is_empty()).then(|| Target::Pods(own.to_owned(), selector))
        }
        To::Objects(group, kind, place) => {
            let namespaces = match place {
                Where::Here => Namespaces::One(own.to_owned()),
                Where::Cluster => Namespaces::One(String::new()),
                Where::Beside(field) => {
                    let parent = at.rsplit_once('/').map_or("", |(parent, _)| parent);
                    beside(object.at(&format!("{parent}/{field}")), own)
                }
            };
            let selector = Selector::from_json(value);
            Some(Target::Objects { group: group.into(), kind: kind.into(), namespaces, selector })
        }
        To::Host => None,
    }
}

/// The group and kind that a reference says.
fn said(value: &Value) -> (Option<&str>, Option<&str>) {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let group = text("apiVersion")
        .filter(|v| !v.is_empty())
        .map(|v| split_api_version(v).0)
        .or_else(|| text("apiGroup"))
        .or_else(|| text("group"));
    // Certificate authorities are given as `type: Secret` in some places.
    let kind = text("kind")
        .filter(|k| !k.is_empty())
        .or_else(|| text("type").filter(|t| matches!(*t, "Secret" | "ConfigMap")));
    (group, kind)
}

/// Kinds that are said without their group because everybody knows them.
pub(crate) fn is_kind_of_core(kind: &str) -> bool {
    matches!(
        kind,
        "ConfigMap"
            | "Secret"
            | "Service"
            | "ServiceAccount"
            | "Pod"
            | "PersistentVolumeClaim"
            | "Namespace"
            | "Node"
    )
}

/// The namespaces said beside a selector.
fn beside(said: Option<&Value>, own: &str) -> Namespaces {
    let Some(said) = said.filter(|v| v.is_object()) else { return Namespaces::One(own.to_owned()) };
    if said.get("any").and_then(Value::as_bool).unwrap_or(false) {
        return Namespaces::Any;
    }
    if let Some(names) = said.get("matchNames").and_then(Value::as_array) {
        return Namespaces::Named(names.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect());
    }
    if said.get("any").is_some() {
        return Namespaces::One(own.to_owned());
    }
    match Selector::from_json(said) {
        selector if selector.is_empty() => Namespaces::Any,
        selector => Namespaces::Labelled(selector),
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
    let marked = optional || says_optional(value);
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

/// Adds what is named in a text. A name that says it is a Service of the cluster needs nobody to look it up.
pub(crate) fn hosts(mentions: Vec<Mention>, at: &str, found: &mut Vec<Found>) {
    for mention in mentions {
        let target = match service(&mention.host) {
            Some((name, namespace)) => Target::Object(ObjectKey::new("", "Service", namespace, name)),
            None => Target::Host(mention),
        };
        found.push(Found::to(target, RefKind::Names, at).by(By::Text));
    }
}

/// The Service behind `db.shop.svc`, `db.shop.svc.cluster.local` or `db-0.db.shop.svc`, as (name, namespace).
pub fn service(host: &str) -> Option<(&str, &str)> {
    let (head, tail) = host.split_once(".svc")?;
    if !tail.is_empty() && !tail.starts_with('.') {
        return None;
    }
    // The two labels next to `.svc` are meant; what stands before them is a pod's name.
    let mut labels = head.rsplit('.');
    let (namespace, name) = (labels.next()?, labels.next()?);
    (!namespace.is_empty() && !name.is_empty()).then_some((name, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_another_namespace_is_found_in_plain_text() {
        for (host, expected) in [
            ("db.data.svc", Some(("db", "data"))),
            ("web-0.web.shop.svc.cluster.local", Some(("web", "shop"))),
            ("db.svc", None),
            ("x.y.svcs", None),
            ("db", None),
            ("", None),
        ] {
            assert_eq!(service(host), expected, "{host}");
        }
    }
}
