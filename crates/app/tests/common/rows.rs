//! Every row of every kind's reference table as a pair of objects: one that has a name at the row's place, and the one that is named.
#![allow(dead_code)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests: clippy knows only test functions as tests.

use app::graph::RefKind;
use app::kinds::{self, KindInfo, RefRule, To, Where};
use serde_json::{Value, json};

/// A row, and an object that has something at its place. All cases live in one cluster, each in namespaces `home-N` and
/// `away-N` of its own, with names of its own.
pub struct Case {
    pub story: String,
    /// Refers.
    pub object: Value,
    /// Is referred to.
    pub target: Value,
    /// What else has to be there.
    pub others: Vec<Value>,
    pub at: String,
    pub via: Option<RefKind>,
    pub optional: bool,
    pub is_selector: bool,
}

/// Puts a value where a pattern leads; `*` becomes the first element of a list.
fn put(object: &mut Value, pattern: &str, value: Value) {
    let Some(rest) = pattern.strip_prefix('/') else {
        *object = value;
        return;
    };
    let (head, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if head == "*" {
        if !object.is_array() {
            *object = json!([{}]);
        }
        put(&mut object[0], tail, value);
    } else {
        if !object.is_object() {
            *object = json!({});
        }
        put(&mut object[head.replace("~1", "/")], tail, value);
    }
}

/// The names of one case.
#[derive(Clone, Copy)]
pub struct Names(pub usize);

impl Names {
    pub fn home(self) -> String {
        format!("home-{}", self.0)
    }
    pub fn away(self) -> String {
        format!("away-{}", self.0)
    }
    pub fn it(self) -> String {
        format!("it-{}", self.0)
    }
    pub fn target(self) -> String {
        format!("target-{}", self.0)
    }
    /// A label that only the named object of this case has.
    pub fn labels(self) -> Value {
        json!({"chosen": format!("for-{}", self.0)})
    }
}

/// An object of a kind, as small as it can be.
fn bare(info: &KindInfo, name: &str, namespace: &str) -> Value {
    let api = if info.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", info.group) };
    let mut object = json!({"apiVersion": api, "kind": info.kind, "metadata": {"name": name}});
    if !info.cluster_scoped {
        object["metadata"]["namespace"] = json!(namespace);
    }
    if info.kind == "APIService" {
        // Without a Service it is the API server's own, and never stored.
        object["spec"] = json!({"service": {"name": "api", "namespace": "elsewhere"}});
    }
    object
}

/// The named object, of a kind that may have no entry.
fn thing(group: &str, kind: &str, names: Names, namespace: &str) -> Value {
    let name = &names.target();
    let mut object = match kinds::all().find(|i| i.kind == kind && i.group == group) {
        Some(info) => bare(info, name, namespace),
        None => {
            json!({"apiVersion": if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") }, "kind": kind,
                "metadata": {"name": name, "namespace": namespace}})
        }
    };
    object["metadata"]["labels"] = names.labels();
    object
}

/// What stands at a row's place, and the object it names.
fn ends(to: To, is_cluster_scoped: bool, names: Names) -> (Value, Value) {
    // What is cluster-scoped can name nothing in a namespace of its own.
    let (target, away) = (names.target(), names.away());
    let here = if is_cluster_scoped { away.clone() } else { names.home() };
    let named = |group: &str, kind: &str, namespace: &str| thing(group, kind, names, namespace);
    let selector = json!({"matchLabels": names.labels()});
    match to {
        To::Here(g, k) => (json!(target), named(g, k, &here)),
        To::Cluster(g, k) => (json!(target), named(g, k, "")),
        To::In(n, g, k) => (json!(target), named(g, k, n)),
        To::There(g, k) => (json!({"name": target, "namespace": away}), named(g, k, &away)),
        To::Named(g, k, name, namespace) => (json!({name: target, namespace: away}), named(g, k, &away)),
        To::Says(g, k) => {
            let object = named(g, k, &away);
            (
                json!({"kind": k, "apiVersion": object["apiVersion"], "name": target, "namespace": away}),
                object,
            )
        }
        To::Slashed(g, k) => (json!(format!("{away}/{target}")), named(g, k, &away)),
        To::Pods => (selector, named("", "Pod", &here)),
        To::PodLabels => (names.labels(), named("", "Pod", &here)),
        To::Objects(g, k, Where::Cluster) => (selector, named(g, k, "")),
        To::Objects(g, k, _) => (selector, named(g, k, &here)),
        To::Host => (json!(format!("{target}.{here}.svc:80")), named("", "Service", &here)),
    }
}

fn case(info: &KindInfo, base: &str, rule: &RefRule, names: Names) -> Case {
    // Some rows lie at the name, which is then the named object's too.
    let is_name = rule.at == "/metadata/name";
    let mut object = bare(info, &if is_name { names.target() } else { names.it() }, &names.home());
    let (value, target) = ends(rule.to, info.cluster_scoped, names);
    let pattern = format!("{base}{}", rule.at);
    if !is_name {
        put(&mut object, &pattern, value);
    }
    // A class of a volume made by hand pairs it with claims, and need not exist.
    let is_pairing = info.kind == "PersistentVolume" && rule.at == "/spec/storageClassName";
    Case {
        story: format!("{}/{} {pattern}", info.group, info.kind),
        object,
        target,
        others: Vec::new(),
        at: pattern.replace("/*", "/0"),
        via: Some(rule.via),
        optional: rule.optional || is_pairing,
        is_selector: matches!(rule.to, To::Pods | To::PodLabels | To::Objects(..)),
    }
}

/// All rows of all kinds, those of pod specs for every kind that has one.
pub fn rows() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for info in kinds::all().filter(|info| info.ignored.is_none()) {
        for rule in info.refs {
            cases.push(case(info, "", rule, Names(cases.len())));
        }
        for base in info.pod_spec.iter().chain(info.like_pods) {
            for rule in kinds::POD_RULES.iter().copied().flatten() {
                cases.push(case(info, base, rule, Names(cases.len())));
            }
        }
    }
    cases
}
