//! Discovery: which groups, versions and resources are served, in both the aggregated and the old form.
//!
//! A group that nobody serves is still listed, as real servers do: in the aggregated form as stale,
//! in the old form by name only, with a 503 for its resources.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::kinds::{Kind, Kinds, REVIEWS, Version};
use crate::request::accepts;

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// `/version`.
pub fn version(text: &str) -> Value {
    let mut numbers = text.trim_start_matches('v').split('.');
    let major = numbers.next().unwrap_or("1");
    let minor = numbers.next().unwrap_or("33");
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": text,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2025-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

/// `/api` and `/apis`, in the form the client prefers; with the content type.
pub fn root(kinds: &Kinds, core: bool, headers: &HeaderMap) -> (String, Value) {
    for media in accepts(headers) {
        let aggregated = media.as_kind == "APIGroupDiscoveryList" && media.group == "apidiscovery.k8s.io";
        if aggregated && matches!(media.version.as_str(), "v2" | "v2beta1") {
            let kind = format!(
                "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList",
                media.version
            );
            return (kind, aggregated_list(kinds, core, &media.version));
        }
        if media.as_kind.is_empty() {
            break;
        }
    }
    let plain = "application/json".to_string();
    if core {
        let value = json!({ "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "" }] });
        return (plain, value);
    }
    let groups: Vec<Value> =
        kinds.groups().iter().filter(|g| !g.is_empty()).filter_map(|g| group_entry(kinds, g)).collect();
    (plain, json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
}

fn group_entry(kinds: &Kinds, group: &str) -> Option<Value> {
    let versions: Vec<Value> = kinds
        .versions(group)
        .iter()
        .map(|v| json!({ "groupVersion": api_version(group, v), "version": v }))
        .collect();
    let preferred = versions.first().cloned()?;
    Some(json!({ "name": group, "versions": versions, "preferredVersion": preferred }))
}

/// `/apis/GROUP`.
pub fn group(kinds: &Kinds, group: &str) -> Option<Value> {
    let mut value = group_entry(kinds, group)?;
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

/// `/apis/GROUP/VERSION` and `/api/v1`.
pub fn group_version(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds.within(group, version) {
        let Some(served) = kind.version(version) else { continue };
        let mut entry = json!({ "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": verbs(&kind) });
        if !kind.short.is_empty() {
            entry["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        resources.push(entry);
        for sub in subresources(&kind, served) {
            let mut entry = json!({ "name": format!("{}/{}", kind.plural, sub.name), "singularName": "",
                "namespaced": kind.namespaced, "kind": sub.kind, "verbs": sub.verbs });
            if let Some((group, version)) = sub.gv {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            resources.push(entry);
        }
    }
    for review in REVIEWS.iter().filter(|r| r.0 == group && version == "v1") {
        resources
            .push(json!({ "name": review.1, "singularName": review.2.to_lowercase(), "namespaced": review.3,
            "kind": review.2, "verbs": ["create"] }));
    }
    if resources.is_empty() && !kinds.versions(group).iter().any(|v| v == version) {
        return None;
    }
    let mut list = json!({ "kind": "APIResourceList" });
    if !group.is_empty() {
        // The core group's list has never had one.
        list["apiVersion"] = json!("v1");
    }
    list["groupVersion"] = json!(api_version(group, version));
    list["resources"] = json!(resources);
    Some(list)
}

fn verbs(kind: &Kind) -> Vec<&str> {
    if !kind.verbs.is_empty() {
        return kind.verbs.iter().map(String::as_str).collect();
    }
    // A namespace takes its content along; a collection of them is not deleted in one go.
    if kind.custom {
        // The order of the server that serves custom kinds.
        return vec!["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    }
    VERBS.iter().copied().filter(|v| *v != "deletecollection" || !kind.is("", "namespaces")).collect()
}

struct Sub {
    name: &'static str,
    kind: String,
    verbs: Vec<&'static str>,
    /// Group and version of its kind, where they are not those of the resource.
    gv: Option<(&'static str, &'static str)>,
}

fn subresources(kind: &Kind, version: &Version) -> Vec<Sub> {
    let change = vec!["get", "patch", "update"];
    let mut subs: Vec<Sub> = kind
        .extra
        .iter()
        .map(|(name, of, verbs)| Sub {
            name,
            kind: (*of).to_string(),
            verbs: verbs.split(',').collect(),
            gv: match *of {
                "Eviction" => Some(("policy", "v1")),
                "TokenRequest" => Some(("authentication.k8s.io", "v1")),
                _ => None,
            },
        })
        .collect();
    if version.scale.is_some() {
        subs.push(Sub {
            name: "scale",
            kind: "Scale".into(),
            verbs: change.clone(),
            gv: Some(("autoscaling", "v1")),
        });
    }
    if version.status {
        subs.push(Sub { name: "status", kind: kind.kind.clone(), verbs: change, gv: None });
    }
    subs.sort_by_key(|s| s.name);
    if kind.custom {
        // The server of custom kinds tells status before scale.
        subs.reverse();
    }
    subs
}

fn aggregated_list(kinds: &Kinds, core: bool, version: &str) -> Value {
    let groups = kinds.groups().into_iter().filter(|g| g.is_empty() == core);
    let items: Vec<Value> = groups.filter_map(|g| aggregated_group(kinds, &g)).collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items })
}

fn aggregated_group(kinds: &Kinds, group: &str) -> Option<Value> {
    let versions: Vec<Value> =
        kinds.versions(group).iter().map(|v| aggregated_version(kinds, group, v)).collect();
    if versions.is_empty() {
        return None;
    }
    let mut metadata = json!({ "creationTimestamp": null });
    if !group.is_empty() {
        metadata["name"] = json!(group);
    }
    Some(json!({ "metadata": metadata, "versions": versions }))
}

fn aggregated_version(kinds: &Kinds, group: &str, version: &str) -> Value {
    if kinds.is_absent(group, version) {
        return json!({ "version": version, "freshness": "Stale" });
    }
    let mut resources = Vec::new();
    for kind in kinds.within(group, version) {
        let Some(served) = kind.version(version) else { continue };
        let gvk = json!({ "group": group, "version": version, "kind": kind.kind });
        let mut entry = json!({ "resource": kind.plural, "responseKind": gvk, "scope": scope(kind.namespaced),
            "singularResource": kind.singular, "verbs": verbs(&kind) });
        if !kind.short.is_empty() {
            entry["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        let subs: Vec<Value> = subresources(&kind, served)
            .into_iter()
            .map(|sub| {
                let (g, v) = sub.gv.unwrap_or((group, version));
                json!({ "subresource": sub.name, "verbs": sub.verbs,
                    "responseKind": { "group": g, "version": v, "kind": sub.kind } })
            })
            .collect();
        if !subs.is_empty() {
            entry["subresources"] = json!(subs);
        }
        resources.push(entry);
    }
    for review in REVIEWS.iter().filter(|r| r.0 == group && version == "v1") {
        resources.push(json!({ "resource": review.1, "scope": scope(review.3), "verbs": ["create"],
            "singularResource": review.2.to_lowercase(),
            "responseKind": { "group": group, "version": version, "kind": review.2 } }));
    }
    json!({ "version": version, "freshness": "Current", "resources": resources })
}

fn scope(namespaced: bool) -> &'static str {
    if namespaced { "Namespaced" } else { "Cluster" }
}
