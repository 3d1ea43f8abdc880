//! What the API serves, asked in our own way, so that one broken group costs a finding and never the backup.
//!
//! Two ways lead there. Aggregated discovery (1.26 and later) answers everything in two requests; we use it
//! only if the answer's Content-Type says that is what it is, since an older server answers the same request
//! with the old list, which parses as "no groups at all". Else every group is asked by itself; one that does
//! not answer (a dead metrics-server behind its APIService) is noted in `broken` and the rest goes on.

use std::collections::BTreeMap;

use futures::StreamExt;
use http::Method;
use serde_json::Value;

use crate::api::{ApiError, ApiResources, BrokenGroup, Cluster, ResourceType, parse};
use crate::object::split_api_version;

const ACCEPT_AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
     application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
/// Groups asked at the same time in the legacy way.
const AT_ONCE: usize = 8;

/// Asks the cluster what it serves.
pub(crate) async fn discover(cluster: &Cluster) -> Result<ApiResources, ApiError> {
    let (version, core, groups) = tokio::join!(version(cluster), ask(cluster, "/api"), ask(cluster, "/apis"));
    let mut found = ApiResources { version: version?, ..ApiResources::default() };
    // Without the core group there is no application to find: that is an error, not a finding.
    for root in [core?, groups?] {
        match root {
            Root::Aggregated(list) => aggregated(&list, &mut found),
            Root::Legacy(list) => legacy(cluster, &list, &mut found).await,
        }
    }
    choose(&mut found);
    Ok(found)
}

enum Root {
    Aggregated(Value),
    Legacy(Value),
}

async fn version(cluster: &Cluster) -> Result<String, ApiError> {
    match cluster.get_path("/version").await {
        Ok(info) => Ok(text(&info, "gitVersion").to_owned()),
        // Some hardened servers hide it; nothing depends on it but messages.
        Err(ApiError::Denied { .. } | ApiError::NotFound { .. }) => Ok(String::new()),
        Err(e) => Err(e),
    }
}

async fn ask(cluster: &Cluster, path: &str) -> Result<Root, ApiError> {
    let answer = cluster.send(Method::GET, path, &[("accept", ACCEPT_AGGREGATED)], Vec::new()).await?;
    let is_aggregated = answer.content_type.contains("as=APIGroupDiscoveryList");
    let list = parse(format!("GET {path}"), answer)?;
    Ok(if is_aggregated { Root::Aggregated(list) } else { Root::Legacy(list) })
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("")
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    array(value, name).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn group_version(group: &str, version: &str) -> String {
    crate::object::join_api_version(group, version)
}

fn aggregated(list: &Value, found: &mut ApiResources) {
    for item in array(list, "items") {
        let group = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
        for version in array(item, "versions") {
            let name = text(version, "version");
            if text(version, "freshness") == "Stale" {
                // What it lists is an old memory or nothing; what it holds now is not known.
                found.broken.push(BrokenGroup {
                    group_version: group_version(group, name),
                    message: "its API server does not answer (stale in aggregated discovery)".into(),
                });
                continue;
            }
            for resource in array(version, "resources") {
                let kind = resource.get("responseKind").map_or("", |k| text(k, "kind"));
                found.types.push(ResourceType {
                    group: group.into(),
                    version: name.into(),
                    kind: kind.into(),
                    plural: text(resource, "resource").into(),
                    namespaced: text(resource, "scope") == "Namespaced",
                    preferred: false,
                    singular: text(resource, "singularResource").into(),
                    short_names: texts(resource, "shortNames"),
                    categories: texts(resource, "categories"),
                    verbs: texts(resource, "verbs"),
                    subresources: array(resource, "subresources")
                        .iter()
                        .map(|s| text(s, "subresource").to_owned())
                        .collect(),
                });
            }
        }
    }
}

async fn legacy(cluster: &Cluster, list: &Value, found: &mut ApiResources) {
    // /api lists versions of the core group; /apis lists groups with theirs, the preferred one named apart.
    let mut wanted: Vec<(String, String)> = Vec::new();
    for version in texts(list, "versions") {
        wanted.push((format!("/api/{version}"), version));
    }
    for group in array(list, "groups") {
        let preferred = group.get("preferredVersion").map_or("", |p| text(p, "groupVersion"));
        let mut versions: Vec<&str> =
            array(group, "versions").iter().map(|v| text(v, "groupVersion")).collect();
        versions.sort_by_key(|v| *v != preferred);
        wanted.extend(versions.into_iter().map(|v| (format!("/apis/{v}"), v.to_owned())));
    }
    let mut answers: Vec<(usize, String, Result<Value, ApiError>)> =
        futures::stream::iter(wanted.into_iter().enumerate())
            .map(|(order, (path, group_version))| async move {
                (order, group_version, cluster.get_path(&path).await)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
    answers.sort_by_key(|(order, ..)| *order);
    for (_, group_version, answer) in answers {
        match answer {
            Ok(resources) => legacy_group(&group_version, &resources, found),
            Err(e) => found.broken.push(BrokenGroup { group_version, message: e.to_string() }),
        }
    }
}

fn legacy_group(group_version: &str, list: &Value, found: &mut ApiResources) {
    let (group, version) = split_api_version(group_version);
    let mut subresources: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for resource in array(list, "resources") {
        if let Some((parent, sub)) = text(resource, "name").split_once('/') {
            subresources.entry(parent).or_default().push(sub.to_owned());
        }
    }
    for resource in array(list, "resources") {
        let plural = text(resource, "name");
        if plural.contains('/') {
            continue;
        }
        found.types.push(ResourceType {
            group: group.into(),
            version: version.into(),
            kind: text(resource, "kind").into(),
            plural: plural.into(),
            namespaced: resource.get("namespaced").and_then(Value::as_bool).unwrap_or(false),
            preferred: false,
            singular: text(resource, "singularName").into(),
            short_names: texts(resource, "shortNames"),
            categories: texts(resource, "categories"),
            verbs: texts(resource, "verbs"),
            subresources: subresources.remove(plural).unwrap_or_default(),
        });
    }
}

/// Marks one version a kind as the one to use: the first that serves it, since groups list their versions in
/// order of preference. A kind that only an older version serves (CronJob in batch/v1beta1 on 1.20) gets that.
fn choose(found: &mut ApiResources) {
    let mut order: BTreeMap<(String, String), usize> = BTreeMap::new();
    for resource in &mut found.types {
        let seen = order.entry((resource.group.clone(), resource.plural.clone())).or_default();
        resource.preferred = *seen == 0;
        *seen += 1;
    }
    // Stable: within a kind the order of preference stays.
    found.types.sort_by(|a, b| (&a.group, &a.kind, &a.plural).cmp(&(&b.group, &b.kind, &b.plural)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(found: &ApiResources) -> Vec<String> {
        found
            .types
            .iter()
            .map(|t| format!("{}{} {}", if t.preferred { "*" } else { "" }, t.api_version(), t.plural))
            .collect()
    }

    #[test]
    fn a_kind_that_only_an_old_version_serves_is_found_there() {
        let mut found = ApiResources::default();
        legacy_group(
            "batch/v1",
            &json!({"resources":[{"name":"jobs","kind":"Job","namespaced":true},{"name":"jobs/status","kind":"Job"}]}),
            &mut found,
        );
        legacy_group(
            "batch/v1beta1",
            &json!({"resources":[{"name":"cronjobs","kind":"CronJob","namespaced":true}]}),
            &mut found,
        );
        legacy_group(
            "autoscaling/v2",
            &json!({"resources":[{"name":"horizontalpodautoscalers","kind":"HorizontalPodAutoscaler"}]}),
            &mut found,
        );
        legacy_group(
            "autoscaling/v1",
            &json!({"resources":[{"name":"horizontalpodautoscalers","kind":"HorizontalPodAutoscaler"}]}),
            &mut found,
        );
        choose(&mut found);
        assert_eq!(
            said(&found),
            [
                "*autoscaling/v2 horizontalpodautoscalers",
                "autoscaling/v1 horizontalpodautoscalers",
                "*batch/v1beta1 cronjobs",
                "*batch/v1 jobs"
            ]
        );
        assert_eq!(found.types[3].subresources, ["status"]);
    }

    #[test]
    fn a_stale_group_is_broken_and_the_rest_is_found() {
        let mut found = ApiResources::default();
        aggregated(
            &json!({"items":[
                {"metadata":{"name":"apps"},"versions":[{"version":"v1","freshness":"Current","resources":[
                    {"resource":"deployments","responseKind":{"group":"apps","version":"v1","kind":"Deployment"},"scope":"Namespaced",
                     "singularResource":"deployment","verbs":["list"],"shortNames":["deploy"],"subresources":[{"subresource":"scale"}]}]}]},
                {"metadata":{"name":"metrics.k8s.io"},"versions":[{"version":"v1beta1","freshness":"Stale"}]}]}),
            &mut found,
        );
        choose(&mut found);
        assert_eq!(said(&found), ["*apps/v1 deployments"]);
        assert!(
            found.types[0].namespaced
                && found.types[0].can("list")
                && found.types[0].subresources == ["scale"]
        );
        assert_eq!(found.broken.len(), 1);
        assert_eq!(found.broken[0].group_version, "metrics.k8s.io/v1beta1");
    }
}
