//! What a cluster says of its own API beyond discovery: OpenAPI documents, and the rows of kinds only it can print.
//!
//! A point is looked at years later and far from its cluster, with tools that ask for these. They are taken with
//! every point, and stored once for all points: equal bytes are one object in the repository, and a document whose
//! hash did not change since the last point is not even asked for.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, StatusCode};
use repo::{Finding, ManifestEntry, Reader, Writer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{Answer, ApiError, Cluster, ResourceType, parse};
use crate::error::Error;
use crate::object::ObjectKey;
use crate::select::Selected;

/// Requests at the same time.
const AT_ONCE: usize = 4;
/// A document larger than this is not an OpenAPI document of any cluster there is.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;
const ACCEPT_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Manifest entries of documents begin with this.
pub const DOCUMENTS: &str = "openapi/";
/// The manifest entry of printed rows.
pub const TABLES: &str = "tables.json";

/// The rows a cluster printed for a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Printed {
    /// API group.
    pub group: String,
    /// Such as `nodemetrics`.
    pub plural: String,
    /// Column definitions, as the server gave them.
    pub columns: Vec<Value>,
    /// One for each object.
    pub rows: Vec<Row>,
}

/// One printed object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its cells.
    pub cells: Vec<Value>,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// `v2`, `v3/api/v1`, `v3/apis/apps/v1`.
    pub path: String,
    /// As it was served.
    pub content: Bytes,
}

/// Everything captured for one point.
#[derive(Debug, Default)]
pub struct Captured {
    /// Documents that are new.
    pub fresh: Vec<Document>,
    /// Documents the last point has, as they lie there.
    pub kept: Vec<ManifestEntry>,
    /// The hash the cluster gave each document, for the next point to compare.
    pub hashes: BTreeMap<String, String>,
    /// Rows.
    pub tables: Vec<Printed>,
    /// What could not be had: none of it keeps an application from being restored.
    pub findings: Vec<Finding>,
}

/// The documents of the last point: its entries, and the hashes its cluster gave them.
#[derive(Debug, Default)]
pub struct Before {
    /// Entries by path.
    pub entries: BTreeMap<String, ManifestEntry>,
    /// Hashes by path.
    pub hashes: BTreeMap<String, String>,
}

/// A document the cluster announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Where it belongs: `v3/apis/apps/v1`.
    pub path: String,
    /// Where it is to be fetched.
    pub url: String,
    /// What the cluster says of its content; empty if nothing.
    pub hash: String,
    /// The document itself, where asking for its hash gave it.
    pub content: Option<Bytes>,
}

const V2: &str = "v2";

/// Which documents there are. A cluster without version 3 has one of version 2. `before` are the hashes of the last point.
pub async fn announced(
    cluster: &Cluster,
    before: Option<&BTreeMap<String, String>>,
) -> Result<Vec<Announced>, ApiError> {
    let index = match cluster.get_path("/openapi/v3").await {
        Ok(index) => index,
        Err(ApiError::NotFound { .. }) => {
            let hash = before.and_then(|hashes| hashes.get(V2)).map_or("", String::as_str);
            return Ok(vec![second_version(cluster, hash).await]);
        }
        Err(error) => return Err(error),
    };
    let paths = index.get("paths").and_then(Value::as_object).into_iter().flatten();
    Ok(paths
        // What is not of a group is not asked for by any client: logs, version.
        .filter(|(path, _)| path.starts_with("api/") || path.starts_with("apis/"))
        .filter_map(|(path, told)| {
            let url = told.get("serverRelativeURL")?.as_str()?;
            let hash = url.split_once("hash=").map_or("", |(_, hash)| hash);
            let hash = hash.split('&').next().unwrap_or("");
            let (path, url, hash) = (format!("v3/{path}"), url.to_owned(), hash.to_owned());
            Some(Announced { path, url, hash, content: None })
        })
        .collect())
}

/// The one document of version 2, megabytes of it: asked for on the condition that it is not what the last point has.
async fn second_version(cluster: &Cluster, before: &str) -> Announced {
    let mut v2 = Announced { path: V2.into(), url: "/openapi/v2".into(), hash: String::new(), content: None };
    let mut headers = vec![("accept", "application/json")];
    if !before.is_empty() {
        headers.push(("if-none-match", before));
    }
    // Whatever else is wrong is told when it is fetched.
    if let Ok(answer) = cluster.send(Method::GET, &v2.url, &headers, Vec::new()).await {
        if answer.status == StatusCode::NOT_MODIFIED {
            v2.hash = before.to_owned();
        } else if answer.status.is_success() {
            v2.hash = answer.etag.clone();
            v2.content = checked(answer).ok();
        }
    }
    v2
}

/// Documents that the last point has under the same hash, still whole in the repository, are kept.
pub fn keep(
    announced: Vec<Announced>,
    before: &Before,
    reader: &Reader,
    writer: &Writer,
    into: &mut Captured,
) -> Vec<Announced> {
    announced
        .into_iter()
        .filter(|document| {
            let same = !document.hash.is_empty() && before.hashes.get(&document.path) == Some(&document.hash);
            let entry = before.entries.get(&document.path).filter(|_| same);
            match entry.filter(|entry| writer.has_stream(reader, &entry.root)) {
                Some(entry) => {
                    into.kept.push(entry.clone());
                    into.hashes.insert(document.path.clone(), document.hash.clone());
                    false
                }
                None => true,
            }
        })
        .collect()
}

/// Fetches documents.
pub async fn fetch(cluster: &Cluster, wanted: Vec<Announced>, into: &mut Captured) {
    let answers: Vec<_> = futures::stream::iter(wanted)
        .map(|mut document| async move {
            let answer = match document.content.take() {
                Some(content) => Ok(content),
                None => fetch_one(cluster, &document.url).await,
            };
            (document, answer)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    for (document, answer) in answers {
        match answer {
            Ok(content) => {
                if !document.hash.is_empty() {
                    into.hashes.insert(document.path.clone(), document.hash);
                }
                into.fresh.push(Document { path: document.path, content });
            }
            Err(error) => into.findings.push(Finding::note(
                "openapi-not-captured",
                document.url,
                format!("kinds described there are browsed without descriptions: {error}"),
            )),
        }
    }
}

async fn fetch_one(cluster: &Cluster, url: &str) -> Result<Bytes, ApiError> {
    let what = format!("GET {url}");
    let answer = cluster.send(Method::GET, url, &[("accept", "application/json")], Vec::new()).await?;
    if !answer.status.is_success() {
        parse(what.clone(), answer.clone())?;
    }
    let status = answer.status.as_u16();
    checked(answer).map_err(|message| ApiError::Other { what, status, message: message.to_owned() })
}

/// It is stored as it came; that it is JSON at all is looked at now, while it can still be told.
fn checked(answer: Answer) -> Result<Bytes, &'static str> {
    let begins = answer.body.iter().find(|byte| !byte.is_ascii_whitespace());
    match begins == Some(&b'{') && answer.body.len() <= DOCUMENT_BYTES_MAX {
        true => Ok(answer.body),
        false => Err("the answer is no OpenAPI document"),
    }
}

/// Kinds of a selection that nobody but their server can print: not Kubernetes' own, and without a definition that
/// says how.
fn only_there(selected: &Selected) -> BTreeMap<(String, String), (ResourceType, BTreeSet<String>)> {
    // Each kind is judged once: there are many more objects than kinds.
    type Unprinted<'s> = Option<(&'s ResourceType, BTreeSet<&'s str>)>;
    let mut kinds: BTreeMap<(&str, &str), Unprinted<'_>> = BTreeMap::new();
    for (key, picked) in &selected.objects {
        let resource = picked.seen.resource.as_ref();
        let kind = kinds.entry((&resource.group, &resource.plural)).or_insert_with(|| {
            let name = format!("{}.{}", resource.plural, resource.group);
            let definition = ObjectKey::new("apiextensions.k8s.io", "CustomResourceDefinition", "", &name);
            let is_printed = apiserver::prints(&resource.group, &resource.plural)
                || selected.objects.contains_key(&definition);
            (!is_printed).then(|| (resource, BTreeSet::new()))
        });
        if let Some((_, namespaces)) = kind {
            namespaces.insert(&key.namespace);
        }
    }
    let found = kinds.into_iter().filter_map(|((group, plural), kind)| {
        let (resource, namespaces) = kind?;
        let namespaces = namespaces.into_iter().map(str::to_owned).collect();
        Some(((group.to_owned(), plural.to_owned()), (resource.clone(), namespaces)))
    });
    found.collect()
}

/// Asks the cluster to print what only it can print.
pub async fn tables(cluster: &Cluster, selected: &Selected, into: &mut Captured) -> Result<(), Error> {
    for ((group, plural), (resource, namespaces)) in only_there(selected) {
        let mut printed = Printed { group, plural, ..Printed::default() };
        for namespace in namespaces {
            let path = resource.path(Some(&namespace));
            let answer = cluster.send(Method::GET, &path, &[("accept", ACCEPT_TABLE)], Vec::new()).await;
            let table = answer.and_then(|answer| parse(format!("GET {path}"), answer));
            match table {
                Ok(table) if table.get("kind").and_then(Value::as_str) == Some("Table") => {
                    let list =
                        |key: &str| table.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
                    printed.columns = list("columnDefinitions");
                    printed.rows.extend(list("rows").into_iter().filter_map(row));
                }
                // A server that cannot print leaves it to the client.
                Ok(_) => {}
                Err(error) => into.findings.push(Finding::note(
                    "table-not-captured",
                    resource.full_name(),
                    format!("they are browsed by name and age only: {error}"),
                )),
            }
        }
        if !printed.columns.is_empty() {
            printed.rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
            into.tables.push(printed);
        }
    }
    Ok(())
}

fn row(row: Value) -> Option<Row> {
    let text = |pointer: &str| row.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let name = text("/object/metadata/name");
    let cells = row.get("cells").and_then(Value::as_array).cloned()?;
    (!name.is_empty()).then(|| Row { namespace: text("/object/metadata/namespace"), name, cells })
}
