//! OpenAPI v3: an index, and one document per group version.
//!
//! `kubectl apply` looks here for the patch paths and the merge keys of a kind, `kubectl explain` for
//! its fields. Built-in schemas come from the type table, custom ones from their definitions.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kinds::{Kind, Kinds, Version};
use crate::types::{self, Field, Merge, Ty, Type};

/// `/openapi/v3`.
pub fn index(kinds: &Kinds) -> Value {
    let mut paths = Map::new();
    for group in kinds.groups() {
        for version in kinds.versions(&group) {
            if kinds.is_absent(&group, &version) {
                continue;
            }
            let path =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            // What is described changes only with the kinds that are served.
            let url = format!("/openapi/v3/{path}?hash={:016X}", kinds.changes());
            paths.insert(path.clone(), json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// The index of captured documents, if there are any of version 3. A document's URL changes with its content, as
/// clients that keep them expect.
pub fn captured_index(documents: &BTreeMap<String, bytes::Bytes>) -> Option<Value> {
    let mut paths = Map::new();
    for (path, content) in documents {
        let Some(path) = path.strip_prefix("v3/") else { continue };
        let mut hash = std::hash::DefaultHasher::new();
        std::hash::Hasher::write(&mut hash, content);
        let hash = std::hash::Hasher::finish(&hash);
        let url = format!("/openapi/v3/{path}?hash={hash:016X}");
        paths.insert(path.to_string(), json!({ "serverRelativeURL": url }));
    }
    (!paths.is_empty()).then(|| json!({ "paths": paths }))
}

/// `/openapi/v3/apis/GROUP/VERSION`.
pub fn document(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    if !kinds.versions(group).iter().any(|v| v == version) {
        return None;
    }
    let mut schemas = BTreeMap::new();
    let mut paths = Map::new();
    reach("meta.v1.ObjectMeta", &mut schemas);
    reach("meta.v1.ListMeta", &mut schemas);
    for kind in kinds.within(group, version) {
        let Some(served) = kind.version(version) else { continue };
        let reference = if kind.custom {
            custom(&kind, served, &mut schemas)
        } else {
            let name = format!("{}.{version}.{}", types::short_group(group), kind.kind);
            reach(&name, &mut schemas);
            // A version older than the table: its fields are not known.
            schemas.entry(full_name(&name)).or_insert_with(
                || json!({ "type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": true }),
            );
            if let Some(schema) = schemas.get_mut(&full_name(&name)) {
                head(schema, group, version, &kind.kind);
            }
            full_name(&name)
        };
        list_of(&kind, version, &reference, &mut schemas);
        operations(&kind, served, &reference, &mut paths);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "unversioned" },
        "paths": paths,
        "components": { "schemas": schemas },
    }))
}

/// `core.v1.PodSpec` → `io.k8s.api.core.v1.PodSpec`, as real documents name it.
fn full_name(name: &str) -> String {
    match name.split('.').next() {
        Some("meta") => format!("io.k8s.apimachinery.pkg.apis.{name}"),
        Some("apiextensions") => format!("io.k8s.apiextensions-apiserver.pkg.apis.{name}"),
        Some("apiregistration") => format!("io.k8s.kube-aggregator.pkg.apis.{name}"),
        _ => format!("io.k8s.api.{name}"),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Adds the schema of a type and of every type it mentions.
fn reach(name: &str, schemas: &mut BTreeMap<String, Value>) {
    let full = full_name(name);
    if schemas.contains_key(&full) {
        return;
    }
    let Some(ty) = types::get(name) else { return };
    schemas.insert(full.clone(), Value::Null);
    let schema = of_type(ty, schemas);
    schemas.insert(full, schema);
}

fn of_type(ty: &Type, schemas: &mut BTreeMap<String, Value>) -> Value {
    let mut properties = Map::new();
    for field in &ty.fields {
        properties.insert(field.name.to_string(), of_field(field, schemas));
    }
    let mut schema = json!({ "type": "object", "properties": properties });
    if ty.atomic {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    schema
}

fn of_field(field: &Field, schemas: &mut BTreeMap<String, Value>) -> Value {
    let mut schema = of(&field.ty, schemas);
    match &field.apply {
        Merge::Replace if matches!(field.ty, Ty::List(_)) => {
            schema["x-kubernetes-list-type"] = json!("atomic")
        }
        Merge::Replace => {}
        Merge::Set => schema["x-kubernetes-list-type"] = json!("set"),
        Merge::Keys(keys) => {
            schema["x-kubernetes-list-type"] = json!("map");
            schema["x-kubernetes-list-map-keys"] = json!(keys);
        }
    }
    let retain = if field.retain_keys { ",retainKeys" } else { "" };
    match &field.strategic {
        Merge::Replace if field.retain_keys => schema["x-kubernetes-patch-strategy"] = json!("retainKeys"),
        Merge::Replace => {}
        Merge::Set => schema["x-kubernetes-patch-strategy"] = json!("merge"),
        Merge::Keys(keys) => {
            schema["x-kubernetes-patch-strategy"] = json!(format!("merge{retain}"));
            schema["x-kubernetes-patch-merge-key"] = json!(keys.first());
        }
    }
    schema
}

fn of(ty: &Ty, schemas: &mut BTreeMap<String, Value>) -> Value {
    match ty {
        Ty::Scalar(letter) => match letter {
            'b' => json!({ "type": "boolean" }),
            'i' => json!({ "type": "integer", "format": "int32" }),
            'l' => json!({ "type": "integer", "format": "int64" }),
            'n' => json!({ "type": "number", "format": "double" }),
            'y' => json!({ "type": "string", "format": "byte" }),
            't' => json!({ "type": "string", "format": "date-time" }),
            'x' => {
                json!({ "oneOf": [{ "type": "integer" }, { "type": "string" }], "format": "int-or-string" })
            }
            'q' => json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
            '*' => json!({ "type": "object" }),
            _ => json!({ "type": "string" }),
        },
        Ty::List(inner) => json!({ "type": "array", "items": of(inner, schemas) }),
        Ty::Map(inner) => json!({ "type": "object", "additionalProperties": of(inner, schemas) }),
        Ty::Named(name) => {
            reach(name, schemas);
            // A bare `$ref` may have no siblings, and fields add their own.
            json!({ "allOf": [reference(&full_name(name))], "default": {} })
        }
    }
}

/// Whole objects have `apiVersion` and `kind`, and say which kind they are.
fn head(schema: &mut Value, group: &str, version: &str, kind: &str) {
    for key in ["apiVersion", "kind"] {
        schema["properties"][key] = json!({ "type": "string" });
    }
    schema["x-kubernetes-group-version-kind"] = json!([{ "group": group, "version": version, "kind": kind }]);
}

fn custom(kind: &Kind, version: &Version, schemas: &mut BTreeMap<String, Value>) -> String {
    let reversed: Vec<&str> = kind.group.rsplit('.').collect();
    let name = format!("{}.{}.{}", reversed.join("."), version.name, kind.kind);
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let mut schema = version.schema.clone().unwrap_or(open);
    head(&mut schema, &kind.group, &version.name, &kind.kind);
    schema["properties"]["metadata"] = json!({ "allOf": [reference(&full_name("meta.v1.ObjectMeta"))] });
    schemas.insert(name.clone(), schema);
    name
}

fn list_of(kind: &Kind, version: &str, item: &str, schemas: &mut BTreeMap<String, Value>) {
    let mut schema = json!({ "type": "object", "required": ["items"], "properties": {
        "metadata": { "type": "object" },
        "items": { "type": "array", "items": reference(item) } } });
    head(&mut schema, &kind.group, version, &kind.list_kind);
    schemas.insert(format!("{item}List"), schema);
}

fn operations(kind: &Kind, version: &Version, schema: &str, paths: &mut Map<String, Value>) {
    let root = match kind.group.as_str() {
        "" => format!("/api/{}", version.name),
        group => format!("/apis/{group}/{}", version.name),
    };
    let root = if kind.namespaced { format!("{root}/namespaces/{{namespace}}") } else { root };
    let collection = format!("{root}/{}", kind.plural);
    let one = format!("{collection}/{{name}}");
    let gvk = json!({ "group": kind.group, "version": version.name, "kind": kind.kind });
    let tag = types::short_group(&kind.group).replace('-', "");
    let json_content = |name: &str| json!({ "application/json": { "schema": reference(name) } });
    let operation = |action: &str, verb: &str, answer: &str, body: Option<Value>, parameters: &[&str]| {
        let parameters: Vec<Value> = parameters.iter().map(|name| parameter(name)).collect();
        let mut operation = json!({
            "tags": [tag],
            "operationId": format!("{verb}{}{}", kind.kind, version.name),
            "parameters": parameters,
            "responses": { "200": { "description": "OK", "content": json_content(answer) } },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        });
        if let Some(body) = body {
            operation["requestBody"] = json!({ "content": body });
        }
        operation
    };
    const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
    const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
    const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
    const LIST: &[&str] = &[
        "allowWatchBookmarks",
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "resourceVersion",
        "watch",
    ];
    let list = format!("{schema}List");
    paths.insert(
        collection,
        json!({
            "get": operation("list", "list", &list, None, LIST),
            "post": operation("post", "create", schema, Some(json_content(schema)), WRITE),
            "delete": operation("deletecollection", "deleteCollection", schema, None, DELETE),
        }),
    );
    let patch = json!({ "schema": { "type": "object" } });
    let mut bodies = Map::new();
    for kind_of in
        ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]
    {
        bodies.insert(kind_of.into(), patch.clone());
    }
    if !kind.custom {
        bodies.insert("application/strategic-merge-patch+json".into(), patch);
    }
    let item = json!({
        "get": operation("get", "read", schema, None, &[]),
        "put": operation("put", "replace", schema, Some(json_content(schema)), WRITE),
        "patch": operation("patch", "patch", schema, Some(Value::Object(bodies)), PATCH),
        "delete": operation("delete", "delete", schema, None, DELETE),
    });
    if version.status {
        paths.insert(format!("{one}/status"), item.clone());
    }
    paths.insert(one, item);
}

fn parameter(name: &str) -> Value {
    let kind = match name {
        "force" | "watch" | "allowWatchBookmarks" | "orphanDependents" => "boolean",
        "limit" | "gracePeriodSeconds" => "integer",
        _ => "string",
    };
    json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_finds_the_merge_keys_and_the_patch_path() {
        let kinds = Kinds::default();
        let document = document(&kinds, "apps", "v1").unwrap();
        let schemas = &document["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
        assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        // Every reference leads somewhere.
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.get(name).is_some_and(Value::is_object), "{name}");
        }
    }
}
