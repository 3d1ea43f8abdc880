//! A repository in Google Cloud Storage, through its own protocols.
//!
//! The same promises as [`super::s3`], by the same means ([`super::remote`]). Puts are requests of our own to the JSON API,
//! each with `ifGenerationMatch=0`, so the service itself keeps two writers from replacing each other (R1); the library
//! reads, lists and deletes through the XML API.
//!
//! Locks: what the bucket's retention policy keeps by itself is read and tried ([`Keeper`]). Object retention and versions
//! of this service are not used.

use std::sync::Arc;

use bytes::Bytes;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use object_store::{ObjectStoreExt, PutPayload, RetryConfig};
use serde_json::{Value, json};

use super::keeper::{Fate, Keeper, KeeperSays, Kept, Retention, refused};
use super::remote::{
    Answer, Failure, Kind, NO_PLACE, Remote, Shared, bucket_and_prefix, client_options, encode, exchange,
    http, limited,
};
use super::vault::LockMode;
use super::{GcsOptions, Object, Put, Store, StoreError};
use crate::env::parse_rfc3339;

/// Google's own address.
const ENDPOINT: &str = "https://storage.googleapis.com";

/// A bucket, or a prefix in one, as a store.
pub struct GcsStore {
    remote: Remote,
    client: Arc<object_store::gcp::GoogleCloudStorage>,
    requests: Arc<Requests>,
}

/// What our own requests need.
struct Requests {
    http: HttpClient,
    /// An emulator asks for none.
    credentials: Option<GcpCredentialProvider>,
    endpoint: String,
    bucket: String,
}

impl std::fmt::Debug for GcsStore {
    // By hand: the client prints its credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GcsStore").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl GcsStore {
    /// The store at `BUCKET[/PREFIX]`. Asks nothing of the service yet.
    pub fn new(place: &str, options: &GcsOptions) -> Result<GcsStore, StoreError> {
        let url = format!("gs://{place}");
        let (bucket, prefix) = bucket_and_prefix(place, &url)?;
        let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
        builder = match (&options.service_account_json, &options.endpoint) {
            (Some(account), None) => builder.with_service_account_key(account),
            // An emulator, which asks for no credentials.
            (_, Some(endpoint)) => builder.with_service_account_key(
                json!({
                    "gcs_base_url": endpoint.trim_end_matches('/'), "disable_oauth": true, "client_email": "",
                    "private_key": "", "private_key_id": "",
                })
                .to_string(),
            ),
            // What the machine itself is allowed.
            (None, None) => builder,
        };
        let setup = |error: object_store::Error| StoreError::Invalid {
            key: String::new(),
            url: url.clone(),
            reason: format!("the client cannot be set up: {error}"),
        };
        let client_options = client_options(options.endpoint.as_deref());
        let http = http(&client_options).map_err(setup)?;
        let client = builder
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_client_options(client_options)
            .with_http_connector(Shared(http.clone()))
            .build()
            .map_err(setup)?;
        let client = Arc::new(client);
        let requests = Requests {
            http,
            credentials: options.endpoint.is_none().then(|| client.credentials().clone()),
            endpoint: options.endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/').to_owned(),
            bucket: bucket.to_owned(),
        };
        Ok(GcsStore {
            remote: Remote::new(client.clone(), &url, prefix, Box::new(sort))?,
            client,
            requests: Arc::new(requests),
        })
    }

    /// The bucket's place in the JSON API.
    fn bucket_url(&self) -> String {
        format!("{}/storage/v1/b/{}", self.requests.endpoint, self.requests.bucket)
    }

    /// A small question to the JSON API.
    fn ask(&self, key: &str, mut url: String, fields: &str) -> Result<Value, StoreError> {
        url.push_str("?fields=");
        encode(&mut url, fields, false);
        let (requests, limit) = (self.requests.clone(), self.remote.silence);
        let request = async move { requests.send("GET", url, PutPayload::new(), "", limit).await };
        let answer = self.remote.run(key, request)?;
        serde_json::from_slice(&answer.body).map_err(|error| self.remote.strange(key, &error.to_string()))
    }

    /// One put. True: it was created; false: the condition did not hold.
    fn put_as(&self, key: &str, bytes: Bytes, if_absent: bool) -> Result<bool, StoreError> {
        let limit = self.remote.upload_limit(bytes.len());
        let name = self.remote.path(key)?.to_string();
        // Derived from the content, so that it does not occur in it.
        let boundary = format!("holdfast-{}", blake3::hash(&bytes).to_hex());
        let head = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{}\r\n\
             --{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n",
            json!({ "name": name })
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let body: PutPayload = [head.into(), bytes, tail.into()].into_iter().collect();
        let condition = if if_absent { "&ifGenerationMatch=0" } else { "" };
        let url = format!(
            "{}/upload/storage/v1/b/{}/o?uploadType=multipart&fields=generation{condition}",
            self.requests.endpoint, self.requests.bucket
        );
        let requests = self.requests.clone();
        self.remote.run(key, async move {
            let kind = format!("multipart/related; boundary={boundary}");
            match requests.send("POST", url, body, &kind, limit).await {
                Ok(_) => Ok(true),
                Err(Failure { kind: Kind::Status(409 | 412), .. }) if if_absent => Ok(false),
                Err(failure) => Err(failure),
            }
        })
    }
}

impl Requests {
    async fn send(
        &self,
        method: &str,
        url: String,
        body: PutPayload,
        kind: &str,
        limit: std::time::Duration,
    ) -> Result<Answer, Failure> {
        let odd = |what: &str| Failure {
            kind: Kind::Other,
            text: format!("a request that cannot be sent: {what}"),
        };
        let length = body.content_length();
        let mut request = HttpRequest::new(HttpRequestBody::from(body));
        *request.method_mut() = method.parse().map_err(|_| odd(method))?;
        *request.uri_mut() = url.parse().map_err(|_| odd(&url))?;
        if !kind.is_empty() {
            // Said, or a body of several pieces is sent in chunks, which not every service takes.
            request.headers_mut().insert("content-length", length.into());
            request.headers_mut().insert("content-type", kind.parse().map_err(|_| odd(kind))?);
        }
        if let Some(credentials) = &self.credentials {
            let credential = limited(limit, credentials.get_credential()).await?;
            let bearer = format!("Bearer {}", credential.bearer);
            let bearer = bearer.parse().map_err(|_| odd("its credentials"))?;
            request.headers_mut().insert("authorization", bearer);
        }
        exchange(&self.http, request, limit).await
    }
}

/// Sorts a failure by what the caller does next.
fn sort(key: &str, url: &str, failure: Failure) -> StoreError {
    let (key, url, Failure { kind, text: reason }) = (key.to_owned(), url.to_owned(), failure);
    match kind {
        Kind::Status(404) if reason.contains(NO_PLACE) || reason.contains("bucket does not exist") => {
            StoreError::Invalid {
                key,
                url,
                reason: "the bucket does not exist; create it, or correct the name".to_owned(),
            }
        }
        Kind::Status(404) => StoreError::NotFound { key, url },
        Kind::Status(401 | 403) => StoreError::Denied {
            key,
            url,
            reason: format!("{reason}; check the credentials and what they are allowed"),
        },
        Kind::Connection | Kind::Silent | Kind::Status(408 | 409 | 412 | 429 | 500 | 502..) => {
            StoreError::Unavailable { key, url, reason }
        }
        Kind::Status(501) => StoreError::NotSupported { key, url, reason },
        Kind::Status(_) | Kind::Other => StoreError::Other { key, url, reason },
    }
}

impl Store for GcsStore {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        match self.put_as(key, bytes, true) {
            Ok(true) => Ok(Put::Created),
            // Only the object itself tells a conflict with another put from an object that is there.
            Ok(false) => match self.size(key) {
                Ok(_) => Ok(Put::Exists),
                Err(StoreError::NotFound { .. }) => Err(self
                    .remote
                    .unavailable(key, "the put met a conflict, and yet there is no such object")),
                Err(StoreError::Denied { .. }) => Ok(Put::Exists),
                Err(error) => Err(error),
            },
            // A put finds no object to miss: it is the bucket.
            Err(StoreError::NotFound { .. }) => Err(self.remote.no_place(key)),
            Err(error) => Err(error),
        }
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.remote.get(key)
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.remote.get_range(key, offset, len)
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.remote.size(key)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.remote.list(prefix, each)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (client, path, limit) = (self.client.clone(), self.remote.path(key)?, self.remote.silence);
        match self.remote.run(key, async move { limited(limit, client.delete(&path)).await }) {
            Err(StoreError::NotFound { .. }) => Ok(()),
            // "No" has many reasons, and retention is the one that passes by itself.
            Err(error @ StoreError::Denied { .. }) => match self.kept(key) {
                Ok(Some(kept)) => Err(StoreError::Locked {
                    key: key.to_owned(),
                    url: self.url(),
                    until: kept.until,
                    mode: kept.mode.unwrap_or(LockMode::Governance),
                }),
                _ => Err(error),
            },
            other => other,
        }
    }

    fn url(&self) -> String {
        self.remote.url.clone()
    }

    fn keeper(&self) -> Option<&dyn Keeper> {
        Some(self)
    }
}

impl Keeper for GcsStore {
    fn policy(&self) -> Result<KeeperSays, StoreError> {
        let bucket = self.ask("", self.bucket_url(), "retentionPolicy,versioning,softDeletePolicy")?;
        let seconds = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
        let policy = &bucket["retentionPolicy"];
        let retention = seconds(&policy["retentionPeriod"]).map(|seconds| Retention {
            mode: match policy["isLocked"].as_bool() {
                Some(true) => LockMode::Compliance,
                _ => LockMode::Governance,
            },
            seconds,
        });
        let mut notes = Vec::new();
        match seconds(&bucket["softDeletePolicy"]["retentionDurationSeconds"]) {
            Some(seconds) if seconds > 0 => notes.push(format!(
                "the bucket says that it keeps deleted objects for {} days (soft delete); the owner can bring them back",
                seconds / 86_400
            )),
            _ => {}
        }
        if bucket["versioning"]["enabled"].as_bool() == Some(true) {
            notes.push("the bucket says that it keeps versions; the owner can bring them back".to_owned());
        }
        Ok(KeeperSays { keeps: retention.is_some(), retention, notes })
    }

    fn kept(&self, key: &str) -> Result<Option<Kept>, StoreError> {
        let mut url = self.bucket_url() + "/o/";
        encode(&mut url, self.remote.path(key)?.as_ref(), false);
        let object = self.ask(key, url, "retentionExpirationTime,timeCreated")?;
        let time = |name: &str| object[name].as_str().and_then(parse_rfc3339);
        Ok(match (time("timeCreated"), time("retentionExpirationTime")) {
            (Some(since), Some(until)) if until > since => Some(Kept { since, until, mode: None }),
            _ => None,
        })
    }

    fn attack(&self, key: &str, content: &Bytes) -> Result<Fate, StoreError> {
        let overwritten = !refused(self.put_as(key, Bytes::from_static(b"garbage"), false).map(|_| ()))?;
        let deleted = !refused(self.delete(key))?;
        match self.get(key) {
            Ok(bytes) if bytes == *content && !overwritten && !deleted => Ok(Fate::Stays),
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Fate::Lost),
        }
    }
}

#[cfg(test)]
mod tests;
