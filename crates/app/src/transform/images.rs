//! Image names: another registry, or another path in it.
//!
//! An image is whatever stands under `image` (or `imageName`, or `image.reference`, `image.repository`)
//! outside a map that belongs to the user, so pod templates are found at any depth: CronJobs, custom
//! resources of operators, image volumes. A prefix matches whole path segments only, the longest wins.
//! `docker.io` also matches names without a registry (`nginx` is `docker.io/library/nginx`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::is_opaque;

/// Rewrites the image names in one object.
pub(super) fn apply(registries: &BTreeMap<String, String>, object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        walk(registries, spec);
    }
    // Kinds without a spec whose images matter: PodTemplate.
    if let Some(template) = object.get_mut("template") {
        walk(registries, template);
    }
}

fn walk(registries: &BTreeMap<String, String>, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(name) if key == "image" || key == "imageName" => rewrite(registries, name),
                    Value::Object(image) if key == "image" => {
                        for part in ["reference", "repository"] {
                            if let Some(Value::String(name)) = image.get_mut(part) {
                                rewrite(registries, name);
                            }
                        }
                    }
                    _ if is_opaque(key) => {}
                    _ => walk(registries, value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(registries, item)),
        _ => {}
    }
}

fn rewrite(registries: &BTreeMap<String, String>, name: &mut String) {
    let full = full_name(name);
    let best = registries
        .iter()
        .filter_map(|(old, new)| {
            rest_after(&full, old).or_else(|| rest_after(name, old)).map(|rest| (old, new, rest))
        })
        .max_by_key(|(old, ..)| old.len());
    if let Some((_, new, rest)) = best {
        *name = format!("{new}{rest}");
    }
}

/// What follows `prefix`, if it ends where a segment, tag or digest begins.
fn rest_after<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix)?;
    // A prefix without a slash is a registry host: a tag after it would be an image of that name.
    let ends = if prefix.contains('/') { ['/', ':', '@'].as_slice() } else { ['/'].as_slice() };
    rest.starts_with(ends).then_some(rest)
}

/// The name with the registry that is meant when none is written.
fn full_name(name: &str) -> String {
    let name = name
        .strip_prefix("index.docker.io/")
        .map_or_else(|| name.to_owned(), |rest| format!("docker.io/{rest}"));
    let path = name.strip_prefix("docker.io/");
    match (path, name.split_once('/')) {
        (Some(path), _) if path.contains('/') => name,
        (Some(path), _) => format!("docker.io/library/{path}"),
        (None, Some((host, _))) if host.contains(['.', ':']) || host == "localhost" => name,
        (None, Some(_)) => format!("docker.io/{name}"),
        (None, None) => format!("docker.io/library/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_comes_from_the_new_registry_and_keeps_its_tag_and_digest() {
        let registries: BTreeMap<String, String> = [
            ("docker.io", "registry.local/hub"),
            ("quay.io/team", "registry.local/team"),
            ("quay.io/team/special", "other.local/special"),
            ("localhost:5000", "registry.local"),
        ]
        .map(|(old, new)| (old.to_owned(), new.to_owned()))
        .into();
        let cases = [
            ("nginx", "registry.local/hub/library/nginx"),
            ("nginx:1.27", "registry.local/hub/library/nginx:1.27"),
            ("nginx@sha256:0a", "registry.local/hub/library/nginx@sha256:0a"),
            ("bitnami/redis:7", "registry.local/hub/bitnami/redis:7"),
            ("docker.io/nginx:1", "registry.local/hub/library/nginx:1"),
            ("index.docker.io/library/nginx", "registry.local/hub/library/nginx"),
            ("quay.io/team/app:1", "registry.local/team/app:1"),
            ("quay.io/team/special:1", "other.local/special:1"),
            ("quay.io/team2/app:1", "quay.io/team2/app:1"),
            ("localhost:5000/app", "registry.local/app"),
            ("localhost:50001/app", "localhost:50001/app"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ];
        for (old, want) in cases {
            let mut name = old.to_owned();
            rewrite(&registries, &mut name);
            assert_eq!(name, want, "{old}");
        }
    }

    #[test]
    fn images_are_found_at_any_depth_and_labels_are_left() {
        let registries = BTreeMap::from([("a.io".to_owned(), "b.io".to_owned())]);
        let pod = |r: &str| {
            json!({"containers": [{"name": "c", "image": format!("{r}/c")}], "initContainers": [{"image": format!("{r}/i")}],
                "ephemeralContainers": [{"image": format!("{r}/e")}], "volumes": [{"image": {"reference": format!("{r}/v")}}]})
        };
        let cases = [
            ("a pod", json!({"spec": pod("a.io")}), json!({"spec": pod("b.io")})),
            (
                "a cron job",
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": pod("a.io")}}}}}),
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": pod("b.io")}}}}}),
            ),
            (
                "operators' ways",
                json!({"kind": "Cluster", "spec": {"imageName": "a.io/pg:16", "image": {"repository": "a.io/pg", "tag": "16"}}}),
                json!({"kind": "Cluster", "spec": {"imageName": "b.io/pg:16", "image": {"repository": "b.io/pg", "tag": "16"}}}),
            ),
            (
                "labels and data",
                json!({"metadata": {"labels": {"image": "a.io/x"}}, "data": {"image": "a.io/x"}, "spec": {"matchLabels": {"image": "a.io/x"}}}),
                json!({"metadata": {"labels": {"image": "a.io/x"}}, "data": {"image": "a.io/x"}, "spec": {"matchLabels": {"image": "a.io/x"}}}),
            ),
        ];
        for (story, mut object, want) in cases {
            apply(&registries, &mut object);
            assert_eq!(object, want, "{story}");
        }
    }
}
