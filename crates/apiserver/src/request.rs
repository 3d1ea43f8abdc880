//! Reads a request: which resource, which verb, which representation, with which options.

use std::sync::Arc;

use axum::http::{HeaderMap, Method};
use serde_json::Value;

use crate::kinds::{Kind, Kinds};
use crate::status::{Cause, Fault};

/// What a path below `/api` or `/apis` points at.
#[derive(Debug, Clone)]
pub struct Target {
    /// The kind.
    pub kind: Arc<Kind>,
    /// The version asked for.
    pub version: String,
    /// Namespace, or empty: cluster-scoped, or all namespaces.
    pub namespace: String,
    /// Object name, or empty for the collection.
    pub name: String,
    /// Subresource, or empty.
    pub sub: String,
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub enum Route {
    /// A stored resource.
    Resource(Target),
    /// A kind that is posted and answered: plural, namespace.
    Review(&'static str, String),
    /// An aggregated API without a server.
    Absent,
    /// A subresource that a custom kind does not have.
    NoSub(Arc<Kind>, String),
    /// Nothing.
    Unknown,
}

/// Finds what a resource path means: `parts` are the segments after group and version.
pub fn route(kinds: &Kinds, group: &str, version: &str, parts: &[&str]) -> Route {
    if kinds.is_absent(group, version) {
        return Route::Absent;
    }
    let (namespace, rest) = match parts {
        // `namespaces/NAME` and its subresources are the namespace itself; anything longer is inside.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] if group.is_empty() => ("", parts),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, sub) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, sub] => (*plural, *name, *sub),
        _ => return Route::Unknown,
    };
    if let Some(review) = crate::kinds::REVIEWS.iter().find(|r| r.0 == group && r.1 == plural)
        && version == "v1"
        && name.is_empty()
    {
        return Route::Review(review.1, namespace.to_string());
    }
    let Some(kind) = kinds.get(group, plural) else { return Route::Unknown };
    let Some(served) = kind.version(version) else { return Route::Unknown };
    let scoped =
        if kind.namespaced { !namespace.is_empty() || name.is_empty() } else { namespace.is_empty() };
    let known_sub = match sub {
        "" => true,
        "status" => served.status,
        "scale" => served.scale.is_some(),
        other => kind.extra.iter().any(|e| e.0 == other),
    };
    if scoped && !known_sub && kind.custom {
        return Route::NoSub(kind.clone(), name.to_string());
    }
    if !scoped || !known_sub {
        return Route::Unknown;
    }
    Route::Resource(Target {
        kind: kind.clone(),
        version: version.to_string(),
        namespace: namespace.to_string(),
        name: name.to_string(),
        sub: sub.to_string(),
    })
}

/// The verbs of the Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// Make one.
    Create,
    /// Replace one.
    Update,
    /// Change one.
    Patch,
    /// Remove one.
    Delete,
    /// Remove many.
    DeleteCollection,
}

impl Verb {
    /// The verb of a method; a `watch=true` list is a watch.
    pub fn of(method: &Method, named: bool, sub: bool, watch: bool) -> Option<Verb> {
        Some(match (method.as_str(), named) {
            ("GET" | "HEAD", _) if watch => Verb::Watch,
            ("GET" | "HEAD", true) => Verb::Get,
            ("GET" | "HEAD", false) => Verb::List,
            // Subresources are posted to; objects are not.
            ("POST", _) if !named || sub => Verb::Create,
            ("PUT", true) => Verb::Update,
            ("PATCH", true) => Verb::Patch,
            ("DELETE", true) => Verb::Delete,
            ("DELETE", false) => Verb::DeleteCollection,
            _ => return None,
        })
    }

    /// Its name in roles and policies.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }

    /// Does it change nothing?
    pub fn reads(self) -> bool {
        matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// The query string.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses it.
    pub fn parse(query: &str) -> Query {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (unescape(key), unescape(value))
        };
        Query(query.split('&').filter(|p| !p.is_empty()).map(pair).collect())
    }

    /// The first value of a parameter; empty if absent.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str())
    }

    /// Is a boolean parameter on?
    pub fn on(&self, key: &str) -> bool {
        matches!(self.get(key), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }

    /// Every value of a parameter.
    pub fn every(&self, key: &str) -> Vec<&str> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect()
    }

    /// `dryRun=All`; any other value is refused, in the name of the verb's options.
    pub fn dry_run(&self, verb: Verb) -> Result<bool, Fault> {
        let values = self.every("dryRun");
        match values.iter().find(|v| **v != "All") {
            Some(other) => {
                let kind = match verb {
                    Verb::Create => "CreateOptions",
                    Verb::Update => "UpdateOptions",
                    Verb::Patch => "PatchOptions",
                    _ => "DeleteOptions",
                };
                let message =
                    format!("Unsupported value: []string{{\"{other}\"}}: supported values: \"All\"");
                let cause = Cause { reason: "FieldValueNotSupported", field: "dryRun".into(), message };
                Err(Fault::invalid("meta.k8s.io", kind, "", vec![cause]))
            }
            None => Ok(!values.is_empty()),
        }
    }
}

/// Decodes `%41`, and `+` as a space, as query strings have it.
fn unescape(text: &str) -> String {
    unescape_path(&text.replace('+', " "))
}

/// Decodes `%41`.
pub fn unescape_path(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let pair = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                let hex = std::str::from_utf8(&pair).ok().and_then(|h| u8::from_str_radix(h, 16).ok());
                out.push(hex.unwrap_or(b'?'));
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// One media type a client accepts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Media {
    /// Such as `application/json`.
    pub kind: String,
    /// The `as` parameter, such as `Table`.
    pub as_kind: String,
    /// The `g` parameter.
    pub group: String,
    /// The `v` parameter.
    pub version: String,
}

/// The media types of an `Accept` header, in order.
pub fn accepts(headers: &HeaderMap) -> Vec<Media> {
    let text: Vec<&str> = headers.get_all("accept").iter().filter_map(|v| v.to_str().ok()).collect();
    let text = text.join(",");
    let mut list: Vec<Media> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        let mut media = Media::default();
        for (i, part) in item.split(';').map(str::trim).enumerate() {
            match part.split_once('=') {
                _ if i == 0 => media.kind = part.to_ascii_lowercase(),
                Some(("as", value)) => media.as_kind = value.into(),
                Some(("g", value)) => media.group = value.into(),
                Some(("v", value)) => media.version = value.into(),
                _ => {}
            }
        }
        list.push(media);
    }
    if list.is_empty() {
        list.push(Media { kind: "*/*".into(), ..Media::default() });
    }
    list
}

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// As they are.
    Full,
    /// As the rows of a Table, in this version of `meta.k8s.io`.
    Table(&'static str),
    /// Only their metadata.
    Metadata,
}

/// The first view a client accepts, and whether it wants YAML.
pub fn view(headers: &HeaderMap) -> Result<(View, bool), Fault> {
    for media in accepts(headers) {
        let yaml = match media.kind.as_str() {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" => true,
            _ => continue,
        };
        match (media.as_kind.as_str(), media.group.as_str(), media.version.as_str()) {
            ("", ..) => return Ok((View::Full, yaml)),
            ("Table", "meta.k8s.io", "v1") => return Ok((View::Table("v1"), yaml)),
            ("Table", "meta.k8s.io", "v1beta1") => return Ok((View::Table("v1beta1"), yaml)),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                return Ok((View::Metadata, yaml));
            }
            _ => {}
        }
    }
    Err(Fault::not_acceptable(
        "only the following media types are accepted: application/json, application/yaml",
    ))
}

/// The content type of a body, without parameters.
pub fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    text.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// Who is writing: the field manager given, or the first word of the user agent.
pub fn manager(query: &Query, headers: &HeaderMap) -> String {
    let given = query.get("fieldManager");
    if !given.is_empty() {
        return given.to_string();
    }
    let agent = headers.get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or("");
    let name: String = agent.split('/').next().unwrap_or("").chars().take(128).collect();
    if name.is_empty() { "unknown".into() } else { name }
}

/// Reads a body that holds one object; protobuf too, which typed clients prefer for built-in kinds.
pub fn object(kind: &Kind, version: &str, content_type: &str, bytes: &[u8]) -> Result<Value, Fault> {
    if content_type == crate::protobuf::CONTENT_TYPE
        && let Some(ty) = crate::types::of_kind(&kind.group, version, &kind.kind)
    {
        return crate::protobuf::object(ty, bytes);
    }
    body(content_type, bytes)
}

/// Reads a JSON or YAML body.
pub fn body(content_type: &str, bytes: &[u8]) -> Result<Value, Fault> {
    match content_type {
        "application/json" | "" => serde_json::from_slice(bytes)
            .map_err(|e| Fault::bad_request(format!("couldn't get version/kind; json parse error: {e}"))),
        "application/yaml" | "text/yaml" | "application/x-yaml" => yaml(bytes),
        _ => Err(Fault::unsupported_media(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// Reads YAML the way Kubernetes does: YAML 1.1 numbers and booleans.
pub fn yaml(bytes: &[u8]) -> Result<Value, Fault> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| Fault::bad_request(format!("body is not UTF-8: {e}")))?;
    // JSON is YAML, and by far the more common.
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let mut value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| Fault::bad_request(format!("error decoding YAML: {e}")))?;
    whole_numbers(&mut value);
    Ok(value)
}

/// The YAML reader gives `089` as 89.0; JSON would say 89.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64()
                && !number.is_i64()
                && !number.is_u64()
                && float.fract() == 0.0
                && float.abs() < 9.0e15
            {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_a_real_server_leads_them() {
        let kinds = Kinds::default();
        let check = |group: &str, version: &str, path: &str, expect: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            let got = match route(&kinds, group, version, &parts) {
                Route::Resource(t) => {
                    format!("{} ns={} name={} sub={}", t.kind.plural, t.namespace, t.name, t.sub)
                }
                Route::Review(plural, ns) => format!("review {plural} ns={ns}"),
                Route::Absent => "absent".into(),
                Route::NoSub(..) | Route::Unknown => "404".into(),
            };
            assert_eq!(got, expect, "{group}/{version}/{path}");
        };
        check("", "v1", "namespaces", "namespaces ns= name= sub=");
        check("", "v1", "namespaces/shop", "namespaces ns= name=shop sub=");
        check("", "v1", "namespaces/shop/status", "namespaces ns= name=shop sub=status");
        check("", "v1", "namespaces/shop/pods", "pods ns=shop name= sub=");
        check("", "v1", "namespaces/shop/pods/a/log", "pods ns=shop name=a sub=log");
        check("", "v1", "pods", "pods ns= name= sub=");
        check("", "v1", "pods/a", "404");
        check("", "v1", "nodes/a", "nodes ns= name=a sub=");
        check(
            "apps",
            "v1",
            "namespaces/shop/deployments/web/scale",
            "deployments ns=shop name=web sub=scale",
        );
        check("apps", "v1", "namespaces/shop/daemonsets/web/scale", "404");
        check("apps", "v1beta1", "deployments", "404");
        check(
            "authorization.k8s.io",
            "v1",
            "selfsubjectaccessreviews",
            "review selfsubjectaccessreviews ns=",
        );
    }

    #[test]
    fn yaml_is_read_as_kubectl_reads_it() {
        let value = yaml(b"mode: 0644\nbig: 89\nname: \"yes\"\n").unwrap();
        assert_eq!(value, serde_json::json!({"mode": 420, "big": 89, "name": "yes"}));
    }

    #[test]
    fn a_client_that_prefers_tables_gets_one() {
        let check = |accept: &str, expect: Option<View>| {
            let mut headers = HeaderMap::new();
            headers.insert("accept", accept.parse().unwrap());
            assert_eq!(view(&headers).ok().map(|v| v.0), expect, "{accept}");
        };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(table, Some(View::Table("v1")));
        check("application/vnd.kubernetes.protobuf,application/json", Some(View::Full));
        check("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some(View::Metadata));
        check("application/vnd.kubernetes.protobuf", None);
    }
}
