//! A repository in an S3 bucket, or in what speaks S3.
//!
//! Every put is one `PUT` with `If-None-Match: *`, so the service itself keeps two writers from replacing each
//! other (R1), and with the date until which the object is locked if the repository wants that. What a service
//! makes of either is found out by [`super::probe`], never believed.
//!
//! A deletion removes every version of the object: a marker put over it would free no space. Reads, listings
//! and retries of the connection are the client library's; puts, versions and locks are signed requests of our own
//! (`request`), for which it has no call.
//!
//! How requests run and what their failures mean is shared with the other remote stores ([`super::remote`]).

mod request;
mod vault;
mod xml;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::{ClientOptions, RetryConfig};

use self::request::{Request, Signer};
use super::remote::{Failure, Kind, NO_PLACE, Remote, Shared, client_options, http};
use super::vault::{Lock, Vault, Version, list_versions};
use super::{Object, Put, S3Options, Store, StoreError};

const DEFAULT_REGION: &str = "us-east-1";

/// A bucket, or a prefix in one, as a store.
pub struct S3Store {
    remote: Remote,
    signer: Arc<Signer>,
    /// The service does not know conditional puts: noted when it says so.
    unconditional: AtomicBool,
    /// The bucket keeps no versions, as far as the last deletion told.
    one_version: AtomicBool,
}

impl std::fmt::Debug for S3Store {
    // By hand: the client prints its credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Store").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl S3Store {
    /// The store at `BUCKET[/PREFIX]`. Asks nothing of the service yet.
    pub fn new(place: &str, options: &S3Options) -> Result<S3Store, StoreError> {
        let url = format!("s3://{place}");
        let invalid = |reason: String| StoreError::Invalid { key: String::new(), url: url.clone(), reason };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        check_place(bucket, prefix).map_err(|reason| invalid(reason.to_owned()))?;
        let (Some(id), Some(secret)) = (&options.access_key_id, &options.secret_access_key) else {
            return Err(StoreError::Denied {
                key: String::new(),
                url: url.clone(),
                reason: "no credentials were given; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                    .to_owned(),
            });
        };
        let mut client = client_options(options.endpoint.as_deref());
        if let Some(pem) = &options.extra_roots_pem {
            let roots = object_store::Certificate::from_pem_bundle(pem)
                .map_err(|error| invalid(format!("the extra certificates cannot be used: {error}")))?;
            if roots.is_empty() {
                return Err(invalid("the extra certificates cannot be used: the file holds none".to_owned()));
            }
            client = roots.into_iter().fold(client, ClientOptions::with_root_certificate);
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(options.region.as_deref().unwrap_or(DEFAULT_REGION))
            .with_access_key_id(id)
            .with_secret_access_key(secret)
            .with_virtual_hosted_style_request(options.virtual_hosted)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        if let Some(token) = &options.session_token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = &options.endpoint {
            if !["https://", "http://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
                return Err(invalid(format!(
                    "the endpoint {endpoint:?} must begin with https:// (or http:// for a service without TLS)"
                )));
            }
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let setup = |error: object_store::Error| invalid(format!("the client cannot be set up: {error}"));
        let http = http(&client).map_err(setup)?;
        let builder = builder.with_http_connector(Shared(http.clone()));
        let client = builder.with_client_options(client).build().map_err(setup)?;
        let signer = Signer {
            http,
            credential: AwsCredential {
                key_id: id.clone(),
                secret_key: secret.clone(),
                token: options.session_token.clone(),
            },
            bucket_url: bucket_url(options, bucket),
            region: options.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        };
        let (bucket, endpoint) = (bucket.to_owned(), options.endpoint.clone());
        let sort = move |key: &str, url: &str, failure| {
            sort(key, url, &bucket, endpoint.as_deref().unwrap_or("AWS"), failure)
        };
        Ok(S3Store {
            remote: Remote::new(Arc::new(client), &url, prefix, Box::new(sort))?,
            signer: Arc::new(signer),
            unconditional: AtomicBool::new(false),
            one_version: AtomicBool::new(false),
        })
    }

    /// A put, locked or not, that never replaces.
    fn put_if_absent(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<Put, StoreError> {
        let created = if self.unconditional.load(Ordering::Relaxed) {
            Err(StoreError::NotSupported { key: key.to_owned(), url: self.url(), reason: String::new() })
        } else {
            self.put_as(key, bytes.clone(), lock, true)
        };
        match created {
            Ok(true) => Ok(Put::Created),
            // A conflict with a delete, or with a put that then failed, answers the same as an object that is
            // there; and nothing of ours may have landed. Only the object itself tells.
            Ok(false) => match self.remote.size(key) {
                Ok(_) => Ok(Put::Exists),
                Err(StoreError::NotFound { .. }) => Err(self
                    .remote
                    .unavailable(key, "the put met a conflict, and yet there is no such object")),
                // Keys that may put but not get: the service's word has to do, and the put comes again if
                // the caller wants to compare.
                Err(StoreError::Denied { .. }) => Ok(Put::Exists),
                Err(error) => Err(error),
            },
            // A put finds no object to miss: it is the bucket.
            Err(StoreError::NotFound { .. }) => Err(self.remote.no_place(key)),
            // No conditions: look first. Two who put the same name at once put the same content, since names are
            // hashes; where they are not (the header), `init` takes care.
            Err(StoreError::NotSupported { .. }) => {
                self.unconditional.store(true, Ordering::Relaxed);
                match self.remote.size(key) {
                    Ok(_) => Ok(Put::Exists),
                    Err(StoreError::NotFound { .. }) => {
                        self.put_as(key, bytes, lock, false).map(|_| Put::Created)
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

impl Store for S3Store {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.put_if_absent(key, bytes, None)
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
        let path = self.place(key)?;
        if !self.one_version.load(Ordering::Relaxed) {
            match list_versions(self, key) {
                Ok(mut versions) => {
                    versions.retain(|version| version.key == key);
                    // The name every service gives the version of an object that has but one.
                    if versions.iter().any(|version| version.id != "null") {
                        return self.delete_versions(key, versions);
                    }
                    // Without versions for all we know: not asked again as long as deletions bear it out.
                    self.one_version.store(!versions.is_empty(), Ordering::Relaxed);
                }
                Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                // Whoever may not list versions, or a service without: the plain deletion tells.
                Err(_) => {}
            }
        }
        match self.ask(key, Request::new("DELETE", path)) {
            // The bucket keeps versions after all, and the object is hidden, not gone.
            Ok(answer) if answer.header("x-amz-delete-marker") == Some("true") => {
                self.one_version.store(false, Ordering::Relaxed);
                let mut versions: Vec<Version> = list_versions(self, key)?;
                versions.retain(|version| version.key == key);
                self.delete_versions(key, versions)
            }
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn url(&self) -> String {
        self.remote.url.clone()
    }

    fn vault(&self) -> Option<&dyn Vault> {
        Some(self)
    }
}

/// Sorts a failure by what the caller does next.
fn sort(key: &str, url: &str, bucket: &str, endpoint: &str, failure: Failure) -> StoreError {
    let (key, url) = (key.to_owned(), url.to_owned());
    let Failure { kind, text } = failure;
    match kind {
        Kind::Status(404) if text.contains(NO_PLACE) => StoreError::Invalid {
            key,
            url,
            reason: format!("the bucket {bucket:?} does not exist; create it, or correct the name"),
        },
        Kind::Status(404) => StoreError::NotFound { key, url },
        Kind::Status(400) if text.contains("RequestTimeout") => {
            StoreError::Unavailable { key, url, reason: text }
        }
        Kind::Status(400) if text.contains("ExpiredToken") || text.contains("InvalidToken") => {
            StoreError::Denied { key, url, reason: format!("{text}; get new temporary credentials") }
        }
        Kind::Status(401 | 403) => StoreError::Denied {
            key,
            url,
            reason: format!("{text}; check the credentials, the bucket's policy and this machine's clock"),
        },
        Kind::Status(301 | 302 | 307 | 308) => StoreError::Invalid {
            key,
            url,
            reason: format!("{text}; the bucket is in another region: set AWS_REGION"),
        },
        Kind::Status(507) => StoreError::Full { key, url, reason: text },
        Kind::Connection if text.contains("invalid peer certificate") => StoreError::Invalid {
            key,
            url,
            reason: format!("{endpoint}: {text}; trust the service's authority, or correct the endpoint"),
        },
        Kind::Connection | Kind::Silent => {
            StoreError::Unavailable { key, url, reason: format!("{endpoint}: {text}") }
        }
        Kind::Status(501) => StoreError::NotSupported { key, url, reason: text },
        Kind::Status(408 | 409 | 429 | 500..) => StoreError::Unavailable { key, url, reason: text },
        Kind::Status(_) | Kind::Other => StoreError::Other { key, url, reason: text },
    }
}

/// The bucket's address, as the client library has it.
fn bucket_url(options: &S3Options, bucket: &str) -> String {
    let region = options.region.as_deref().unwrap_or(DEFAULT_REGION);
    match (&options.endpoint, options.virtual_hosted) {
        (Some(endpoint), true) => endpoint.trim_end_matches('/').to_owned(),
        (Some(endpoint), false) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        (None, true) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        (None, false) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
    }
}

/// What a bucket and a prefix may look like.
fn check_place(bucket: &str, prefix: &str) -> Result<(), &'static str> {
    if bucket.is_empty() {
        return Err("the URL names no bucket; write s3://BUCKET/PREFIX");
    }
    if !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return Err("this is not a bucket name; write s3://BUCKET/PREFIX");
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("the prefix has an empty component (or `.` or `..`); write s3://BUCKET/PREFIX");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
