//! The cluster as we speak to it: raw requests, JSON values, and errors a caller can act on.
//!
//! Every request goes through one door, [`Cluster::send`], so time limits, error words and the tests' transports
//! are the same everywhere. Nothing here knows what a kind means. Which kinds exist is asked by
//! [`crate::discovery`].

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, StatusCode};
use kube::client::Body;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::object::{Gvk, Object, ObjectKey, join_api_version};

/// How long one request may take; a list page of a slow server stays well below it.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a request is sent to a server that has too much to do, and the pauses if it does not say how long; they double.
const BUSY_TRIES: u32 = 6;
const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// How often a question is asked again after the line went dead; a server that is gone is to be told soon.
const HUNG_UP_MAX: u32 = 1;
/// A server may ask for minutes; we look sooner.
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Objects a page; what kubectl and the API server's own tests use.
const PAGE_OBJECTS: usize = 500;
/// How often a list starts anew when its continue token expired (410) before we give up.
const LIST_RESTARTS_MAX: usize = 5;

/// The name our server-side applies are recorded under.
pub const FIELD_MANAGER: &str = "holdfast";

/// A request that did not do what was asked, by what a caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 401 or 403: these credentials may not.
    #[error("{what}: denied: {message}")]
    Denied {
        /// The request.
        what: String,
        /// The server's words.
        message: String,
    },
    /// No answer, or none from the server meant: worth a retry later.
    #[error("{what}: no answer from the cluster: {message}")]
    Unreachable {
        /// The request.
        what: String,
        /// What went wrong.
        message: String,
    },
    /// 404.
    #[error("{what}: not found")]
    NotFound {
        /// The request.
        what: String,
    },
    /// 409: it exists, or changed meanwhile, or another manager owns the field.
    #[error("{what}: conflict: {message}")]
    Conflict {
        /// The request.
        what: String,
        /// The server's words.
        message: String,
    },
    /// 400, 405, 415, 422: the server refuses the object or the request as it is.
    #[error("{what}: refused: {message}")]
    Invalid {
        /// The request.
        what: String,
        /// The server's words.
        message: String,
    },
    /// Any other status, or an answer that is not what the API promises.
    #[error("{what}: status {status}: {message}")]
    Other {
        /// The request.
        what: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
}

impl ApiError {
    fn status(what: String, status: StatusCode, message: String) -> ApiError {
        match status.as_u16() {
            401 | 403 => ApiError::Denied { what, message },
            404 => ApiError::NotFound { what },
            409 => ApiError::Conflict { what, message },
            400 | 405 | 415 | 422 => ApiError::Invalid { what, message },
            status => ApiError::Other { what, status, message },
        }
    }

    /// 410: the continue token or the resource version is too old.
    pub fn is_gone(&self) -> bool {
        matches!(self, ApiError::Other { status: 410, .. })
    }
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// One served resource in one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceType {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Name in paths: `deployments`.
    pub plural: String,
    /// Lives in namespaces.
    #[serde(default)]
    pub namespaced: bool,
    /// The version to use for this kind, of those served.
    #[serde(default, skip_serializing_if = "is_false")]
    pub preferred: bool,
    /// `deployment`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub singular: String,
    /// `deploy`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub short_names: Vec<String>,
    /// `all`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// `get`, `list`, ….
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<String>,
    /// `status`, `scale`, ….
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subresources: Vec<String>,
}

impl ResourceType {
    /// Group, version, kind.
    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    /// `apps/v1`.
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }

    /// Can it be asked for this verb?
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Only what identifies it, as it stands beside every stored object.
    pub fn bare(&self) -> ResourceType {
        ResourceType {
            group: self.group.clone(),
            version: self.version.clone(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
            namespaced: self.namespaced,
            ..ResourceType::default()
        }
    }

    /// `deployments`, `certificates.cert-manager.io`: as kubectl and RBAC write it.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Path of the collection. Without a namespace: all namespaces, or cluster scope.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{root}/{}/namespaces/{}/{}", self.version, segment(namespace), self.plural)
            }
            _ => format!("{root}/{}/{}", self.version, self.plural),
        }
    }

    /// Path of one object.
    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.path(self.namespaced.then_some(namespace)), segment(name))
    }
}

/// An API group version that was announced and did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenGroup {
    /// `metrics.k8s.io/v1beta1`.
    pub group_version: String,
    /// What it said instead.
    pub message: String,
}

/// The API as it is served: every type in every version, and what was announced but did not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiResources {
    /// `v1.33.1`.
    #[serde(default)]
    pub version: String,
    /// All types in all served versions, sorted by group, kind, then preference.
    pub types: Vec<ResourceType>,
    /// Groups that did not answer: what they hold is not known.
    #[serde(default)]
    pub broken: Vec<BrokenGroup>,
    /// The hash the server gave each OpenAPI document when it was captured, by its path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub openapi: BTreeMap<String, String>,
}

impl ApiResources {
    /// One type a kind: the version to use.
    pub fn preferred(&self) -> impl Iterator<Item = &ResourceType> {
        self.types.iter().filter(|t| t.preferred)
    }

    /// The version to use of a kind.
    pub fn find(&self, group: &str, kind: &str) -> Option<&ResourceType> {
        self.types.iter().find(|t| t.preferred && t.group == group && t.kind == kind)
    }

    /// A kind in exactly this version.
    pub fn find_version(&self, gvk: &Gvk) -> Option<&ResourceType> {
        self.types.iter().find(|t| t.group == gvk.group && t.version == gvk.version && t.kind == gvk.kind)
    }

    /// What a user means by `deploy`, `deployments`, `Deployment` or `deployments.apps`.
    pub fn named(&self, name: &str) -> Option<&ResourceType> {
        let lower = name.to_ascii_lowercase();
        let is = |t: &&ResourceType| {
            t.plural == lower
                || t.singular == lower
                || t.kind.eq_ignore_ascii_case(name)
                || t.short_names.contains(&lower)
                || t.full_name() == lower
        };
        // A name without a group means Kubernetes' own kind where there is one, as in kubectl.
        self.preferred()
            .filter(is)
            .min_by_key(|t| (t.group.contains('.') && !t.group.ends_with(".k8s.io"), t.group.clone()))
    }
}

/// Percent-encodes a path segment; names of Kubernetes objects rarely need it (`system:node`).
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// An answer: its status and body, whatever the status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// `Content-Type`.
    pub content_type: String,
    /// `ETag`; empty if there is none.
    pub etag: String,
    /// The body.
    pub body: Bytes,
}

/// Options of [`Cluster::apply`].
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// Take fields over that another manager owns.
    pub force: bool,
    /// Let the server check and answer, but change nothing.
    pub dry_run: bool,
}

/// A request without an answer.
enum Lost {
    /// The connection ended.
    HungUp(ApiError),
    /// It was never sent, or took too long.
    Other(ApiError),
}

/// How a deletion treats what the object owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector removes dependents later.
    #[default]
    Background,
    /// Dependents go first.
    Foreground,
    /// Dependents stay.
    Orphan,
}

/// A cluster: a client, and what its API serves.
#[derive(Clone)]
pub struct Cluster {
    /// The connection.
    pub client: kube::Client,
    /// What is served.
    pub resources: ApiResources,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("version", &self.resources.version)
            .field("types", &self.resources.types.len())
            .finish()
    }
}

impl Cluster {
    /// Discovers what the cluster serves. Fails if nobody answers or the credentials are refused; groups that
    /// do not answer are in `resources.broken`.
    pub async fn connect(client: kube::Client) -> Result<Cluster, ApiError> {
        let mut cluster = Cluster { client, resources: ApiResources::default() };
        cluster.resources = crate::discovery::discover(&cluster).await?;
        Ok(cluster)
    }

    /// The one door: a request and its answer, whatever its status. A server that has too much to do (429) is asked again
    /// when it says so; one that hangs up on a question, at once.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, ApiError> {
        let (mut pause, mut hung_up) = (BUSY_PAUSE, 0);
        for left in (0..BUSY_TRIES).rev() {
            match self.send_once(&method, path, headers, body.clone()).await {
                // Told before anything was done, so that any request may be sent again.
                Ok((answer, after)) if answer.status == StatusCode::TOO_MANY_REQUESTS && left > 0 => {
                    tokio::time::sleep(after.unwrap_or(pause).min(BUSY_PAUSE_MAX)).await;
                    pause *= 2;
                }
                // Whether a change was made is not known then; whoever wanted it looks. To ask does no harm.
                Err(Lost::HungUp(_)) if method == Method::GET && left > 0 && hung_up < HUNG_UP_MAX => {
                    hung_up += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Ok((answer, _)) => return Ok(answer),
                Err(Lost::HungUp(error) | Lost::Other(error)) => return Err(error),
            }
        }
        Err(ApiError::Unreachable { what: format!("{method} {path}"), message: "it is too busy".into() })
    }

    async fn send_once(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<(Answer, Option<Duration>), Lost> {
        let what = format!("{method} {path}");
        let mut request = Request::builder().method(method.clone()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Body::from(body))
            .map_err(|e| Lost::Other(ApiError::Invalid { what: what.clone(), message: e.to_string() }))?;
        let exchange = async {
            let response = self.client.send(request).await.map_err(|e| Lost::HungUp(transport(&what, e)))?;
            let (parts, body) = response.into_parts();
            let body = body.collect_bytes().await.map_err(|e| Lost::HungUp(transport(&what, e)))?;
            let header = |name| parts.headers.get(name).and_then(|v| v.to_str().ok());
            let content_type = header(http::header::CONTENT_TYPE).unwrap_or("").to_owned();
            let etag = header(http::header::ETAG).unwrap_or("").to_owned();
            let after = header(http::header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
            Ok((Answer { status: parts.status, content_type, etag, body }, after.map(Duration::from_secs)))
        };
        match tokio::time::timeout(REQUEST_TIME_MAX, exchange).await {
            Ok(done) => done,
            Err(_) => Err(Lost::Other(ApiError::Unreachable {
                what: what.clone(),
                message: format!("none within {} s", REQUEST_TIME_MAX.as_secs()),
            })),
        }
    }

    /// A request whose answer is JSON; a failing status is an error.
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let what = format!("{method} {path}");
        let bytes = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        let mut headers = vec![("accept", "application/json")];
        if body.is_some() {
            headers.push(("content-type", content_type));
        }
        parse(what, self.send(method, path, &headers, bytes).await?)
    }

    /// GET of a path.
    pub async fn get_path(&self, path: &str) -> Result<Value, ApiError> {
        self.json(Method::GET, path, "", None).await
    }

    /// All objects of a type: in one namespace, or everywhere. Pages through; starts anew if the server
    /// forgot the list meanwhile. Every object carries its `apiVersion` and `kind`, which list items lack.
    pub async fn list(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Vec<Object>, ApiError> {
        self.list_as(resource, namespace, labels, |object| object).await
    }

    /// The same, and of each object only what is made of it: many objects take less memory as something else than as
    /// they are looked at.
    pub async fn list_as<T>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        labels: Option<&str>,
        make: impl Fn(Object) -> T,
    ) -> Result<Vec<T>, ApiError> {
        let base = resource.path(namespace);
        let labels = labels.map(|l| format!("&labelSelector={}", segment(l))).unwrap_or_default();
        let mut restarts = 0;
        'anew: loop {
            let mut objects = Vec::new();
            let mut token = String::new();
            loop {
                let next =
                    if token.is_empty() { String::new() } else { format!("&continue={}", segment(&token)) };
                let path = format!("{base}?limit={PAGE_OBJECTS}{labels}{next}");
                let what = format!("GET {path}");
                let answer =
                    self.send(Method::GET, &path, &[("accept", "application/json")], Vec::new()).await?;
                if answer.status == StatusCode::GONE && restarts < LIST_RESTARTS_MAX {
                    restarts += 1;
                    continue 'anew;
                }
                if !answer.status.is_success() {
                    return Err(refusal(what, &answer));
                }
                // One object is opened after the other.
                let unreadable = |e: serde_json::Error| match e.classify() {
                    serde_json::error::Category::Data => not_a_list(&base),
                    _ => not_json(what.clone(), &answer, &e),
                };
                let page: Page<'_> = serde_json::from_slice(&answer.body).map_err(unreadable)?;
                // An empty list of an old server: Go writes a nil slice as null.
                let items: Option<Vec<&RawValue>> =
                    serde_json::from_str(page.items.get()).map_err(unreadable)?;
                for item in items.into_iter().flatten() {
                    let item =
                        serde_json::from_str(item.get()).map_err(|e| not_json(what.clone(), &answer, &e))?;
                    objects.push(make(typed(item, resource)));
                }
                token = page.metadata.and_then(|metadata| metadata.goes_on).unwrap_or_default();
                if token.is_empty() {
                    return Ok(objects);
                }
            }
        }
    }

    /// One object, or `None`.
    pub async fn get(
        &self,
        resource: &ResourceType,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, ApiError> {
        match self.get_path(&resource.object_path(namespace, name)).await {
            Ok(value) => Ok(Some(typed(value, resource))),
            Err(ApiError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// One object by its key, in the preferred version; `None` if it or its kind is not there.
    pub async fn get_key(&self, key: &ObjectKey) -> Result<Option<Object>, ApiError> {
        match self.resources.find(&key.group, &key.kind) {
            Some(resource) => self.get(resource, &key.namespace, &key.name).await,
            None => Ok(None),
        }
    }

    /// Server-side apply.
    pub async fn apply(
        &self,
        resource: &ResourceType,
        object: &Object,
        options: &ApplyOptions,
    ) -> Result<Object, ApiError> {
        let mut path = format!(
            "{}?fieldManager={FIELD_MANAGER}&fieldValidation=Ignore",
            resource.object_path(object.namespace(), object.name())
        );
        if options.force {
            path.push_str("&force=true");
        }
        if options.dry_run {
            path.push_str("&dryRun=All");
        }
        // JSON is YAML, and every server since 1.16 reads it under this type.
        self.json(Method::PATCH, &path, "application/apply-patch+yaml", Some(&object.0)).await.map(Object)
    }

    /// Creates an object; [`ApiError::Conflict`] if it exists.
    pub async fn create(
        &self,
        resource: &ResourceType,
        object: &Object,
        dry_run: bool,
    ) -> Result<Object, ApiError> {
        self.create_as(FIELD_MANAGER, resource, object, dry_run).await
    }

    /// [`Cluster::create`], recorded under another name.
    pub async fn create_as(
        &self,
        manager: &str,
        resource: &ResourceType,
        object: &Object,
        dry_run: bool,
    ) -> Result<Object, ApiError> {
        let path = format!(
            "{}?fieldManager={manager}{}",
            resource.path(Some(object.namespace())),
            if dry_run { "&dryRun=All" } else { "" }
        );
        self.json(Method::POST, &path, "application/json", Some(&object.0)).await.map(Object)
    }

    /// Replaces an object; its `resourceVersion`, if set, must be the current one.
    pub async fn replace(
        &self,
        resource: &ResourceType,
        object: &Object,
        dry_run: bool,
    ) -> Result<Object, ApiError> {
        let path = format!(
            "{}?fieldManager={FIELD_MANAGER}{}",
            resource.object_path(object.namespace(), object.name()),
            if dry_run { "&dryRun=All" } else { "" }
        );
        self.json(Method::PUT, &path, "application/json", Some(&object.0)).await.map(Object)
    }

    /// JSON merge patch of an object or (`"status"`, `"scale"`) of a subresource of it.
    pub async fn merge_patch(
        &self,
        resource: &ResourceType,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Object, ApiError> {
        let mut path = resource.object_path(namespace, name);
        if let Some(subresource) = subresource {
            path.push('/');
            path.push_str(subresource);
        }
        path.push_str(&format!("?fieldManager={FIELD_MANAGER}"));
        self.json(Method::PATCH, &path, "application/merge-patch+json", Some(patch)).await.map(Object)
    }

    /// Deletes an object; false if it was not there. With a UID, only that very object.
    pub async fn delete(
        &self,
        resource: &ResourceType,
        namespace: &str,
        name: &str,
        propagation: Propagation,
        uid: Option<&str>,
    ) -> Result<bool, ApiError> {
        let mut options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": format!("{propagation:?}"),
        });
        if let Some(uid) = uid {
            options["preconditions"] = json!({ "uid": uid });
        }
        match self
            .json(Method::DELETE, &resource.object_path(namespace, name), "application/json", Some(&options))
            .await
        {
            Ok(_) => Ok(true),
            Err(ApiError::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The cluster's identity: the UID of `kube-system`, empty if we may not see it.
    pub async fn id(&self) -> Result<String, ApiError> {
        match self.get_path("/api/v1/namespaces/kube-system").await {
            Ok(namespace) => Ok(Object(namespace).uid().to_owned()),
            Err(ApiError::Denied { .. } | ApiError::NotFound { .. }) => Ok(String::new()),
            Err(e) => Err(e),
        }
    }

    /// Lists many (type, namespace) pairs, some at a time; every pair has its own result. Of each object there is what is
    /// made of it.
    pub async fn list_all<T>(
        &self,
        wanted: Vec<(ResourceType, Option<String>)>,
        at_once: usize,
        make: impl Fn(&ResourceType, Object) -> T,
    ) -> Vec<(ResourceType, Option<String>, Result<Vec<T>, ApiError>)> {
        let make = &make;
        let mut lists: Vec<_> = futures::stream::iter(wanted.into_iter().enumerate())
            .map(|(order, (resource, namespace))| async move {
                let made = |object| make(&resource, object);
                let result = self.list_as(&resource, namespace.as_deref(), None, made).await;
                (order, resource, namespace, result)
            })
            .buffer_unordered(at_once.max(1))
            .collect()
            .await;
        lists.sort_by_key(|(order, ..)| *order);
        lists.into_iter().map(|(_, resource, namespace, result)| (resource, namespace, result)).collect()
    }
}

/// A page of a list, its objects not looked at yet.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: &'a RawValue,
    metadata: Option<PageMetadata>,
}

#[derive(Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue")]
    goes_on: Option<String>,
}

fn not_a_list(path: &str) -> ApiError {
    ApiError::Other { what: format!("GET {path}"), status: 200, message: "the answer is not a list".into() }
}

/// Gives an object its `apiVersion` and `kind`, first, as people write them.
fn typed(value: Value, resource: &ResourceType) -> Object {
    let Value::Object(mut fields) = value else { return Object(value) };
    if fields.contains_key("apiVersion") && fields.contains_key("kind") {
        return Object(Value::Object(fields));
    }
    let mut object = serde_json::Map::with_capacity(fields.len() + 2);
    object.insert("apiVersion".into(), resource.api_version().into());
    object.insert("kind".into(), resource.kind.clone().into());
    object.append(&mut fields);
    Object(Value::Object(object))
}

/// Reads a JSON answer, or the Status in a failing one.
pub(crate) fn parse(what: String, answer: Answer) -> Result<Value, ApiError> {
    if !answer.status.is_success() {
        return Err(refusal(what, &answer));
    }
    serde_json::from_slice(&answer.body).map_err(|e| not_json(what, &answer, &e))
}

/// What a failing answer says.
fn refusal(what: String, answer: &Answer) -> ApiError {
    let message = serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|status| status.get("message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(&answer.body).chars().take(300).collect());
    ApiError::status(what, answer.status, message)
}

fn not_json(what: String, answer: &Answer, error: &serde_json::Error) -> ApiError {
    let message = format!("the answer is not JSON: {error}");
    ApiError::Other { what, status: answer.status.as_u16(), message }
}

fn transport(what: &str, error: kube::Error) -> ApiError {
    let what = what.to_owned();
    match error {
        // The credentials' own machinery failed (an exec plugin, an expired token): asking again is no use.
        kube::Error::Auth(e) => ApiError::Denied { what, message: e.to_string() },
        kube::Error::Api(status) => {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            ApiError::status(what, code, status.message.clone())
        }
        error => {
            // The reason ("connection refused") is at the end of the chain; the front says only that sending failed.
            let mut message = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                let text = cause.to_string();
                if !message.contains(&text) {
                    message = format!("{message}: {text}");
                }
                source = cause.source();
            }
            ApiError::Unreachable { what, message }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let pods = ResourceType {
            version: "v1".into(),
            plural: "pods".into(),
            namespaced: true,
            ..Default::default()
        };
        let roles = ResourceType {
            group: "rbac.authorization.k8s.io".into(),
            version: "v1".into(),
            plural: "clusterroles".into(),
            ..Default::default()
        };
        assert_eq!(pods.path(None), "/api/v1/pods");
        assert_eq!(pods.object_path("shop", "web"), "/api/v1/namespaces/shop/pods/web");
        assert_eq!(
            roles.object_path("", "system:node/x"),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node%2Fx"
        );
    }

    #[test]
    fn a_user_names_a_kind_as_kubectl_lets_them() {
        let of = |group: &str, kind: &str, plural: &str, short: &str| ResourceType {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: vec![short.into()],
            preferred: true,
            ..Default::default()
        };
        let api = ApiResources {
            types: vec![
                of("serving.knative.dev", "Service", "services", "ksvc"),
                of("", "Service", "services", "svc"),
                of("apps", "Deployment", "deployments", "deploy"),
            ],
            ..Default::default()
        };
        for (name, group) in [
            ("svc", ""),
            ("services", ""),
            ("Service", ""),
            ("ksvc", "serving.knative.dev"),
            ("services.serving.knative.dev", "serving.knative.dev"),
            ("deploy", "apps"),
        ] {
            assert_eq!(api.named(name).map(|t| t.group.as_str()), Some(group), "{name}");
        }
        assert_eq!(api.named("nonsense"), None);
    }
}
