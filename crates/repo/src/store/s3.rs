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
//! The client is async and the repository is not: requests run on two threads of our own and callers wait
//! for them, so a call is fine on any thread, inside an async runtime too. Tries and pauses are not made here but
//! in [`super::retry`], which counts them and can be told to stop.
//!
//! Time limits follow the work: what does not connect in 10 s, or does not move for a minute, is unavailable;
//! an upload gets a minute and what its size needs at 64 KiB/s, so a slow line is not a dead one.

mod request;
mod vault;
mod xml;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::path::{Error as PathError, Path};
use object_store::{
    ClientOptions, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, RetryConfig,
};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use self::request::{Request, Signer};
use super::vault::{Lock, Vault, Version, list_versions};
use super::{Object, Put, S3Options, Store, StoreError, check_key, range_end};

pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer, or the next piece of it, may take.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// The slowest line on which an upload is given its time.
pub(super) const UPLOAD_BYTES_PER_SECOND: u64 = 64 * 1024;
const DEFAULT_REGION: &str = "us-east-1";
/// Objects fetched before the callback of a listing hears of them: a page of the service.
pub(super) const LIST_PAGE: usize = 1000;

/// A bucket, or a prefix in one, as a store.
pub struct S3Store {
    client: Arc<AmazonS3>,
    signer: Arc<Signer>,
    /// The service does not know conditional puts: noted when it says so.
    unconditional: AtomicBool,
    /// The bucket keeps no versions, as far as the last deletion told.
    one_version: AtomicBool,
    /// Without slashes at the ends; may be empty.
    prefix: String,
    bucket: String,
    /// For messages.
    endpoint: String,
    /// [`SILENCE_LIMIT`], but for tests.
    silence: Duration,
    /// Taken only by `drop`.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for S3Store {
    // By hand: the client prints its credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Store").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // Not the plain drop: that one blocks, and panics inside an async runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
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
        let mut client = ClientOptions::new().with_connect_timeout(CONNECT_LIMIT).with_timeout_disabled();
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
            match endpoint.split_once("://") {
                Some(("https", _)) => {}
                Some(("http", _)) => client = client.with_allow_http(true),
                _ => {
                    return Err(invalid(format!(
                        "the endpoint {endpoint:?} must begin with https:// (or http:// for a service without TLS)"
                    )));
                }
            }
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let setup = |error: object_store::Error| invalid(format!("the client cannot be set up: {error}"));
        // One pool of connections for the library's requests and ours.
        let http = WatchedConnector.connect(&client).map_err(setup)?;
        let builder = builder.with_http_connector(SharedConnector(http.clone()));
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("holdfast-s3")
            .enable_all()
            .build()
            .map_err(|error| StoreError::Other {
                key: String::new(),
                url: url.clone(),
                reason: format!("no threads for the S3 client: {error}"),
            })?;
        Ok(S3Store {
            client: Arc::new(client),
            signer: Arc::new(signer),
            unconditional: AtomicBool::new(false),
            one_version: AtomicBool::new(false),
            prefix: prefix.trim_end_matches('/').to_owned(),
            bucket: bucket.to_owned(),
            endpoint: options.endpoint.clone().unwrap_or_else(|| "AWS".to_owned()),
            silence: SILENCE_LIMIT,
            runtime: Some(runtime),
        })
    }

    /// Where a key is in the bucket.
    fn path(&self, key: &str) -> Result<Path, StoreError> {
        check_key(key, &self.url())?;
        let whole = if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        Path::parse(whole).map_err(|error| self.bad_path(key, &error))
    }

    fn bad_path(&self, key: &str, error: &PathError) -> StoreError {
        StoreError::Invalid { key: key.to_owned(), url: self.url(), reason: error.to_string() }
    }

    /// Runs a request on our own threads and waits for it.
    fn run<T: Send + 'static>(
        &self,
        key: &str,
        request: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = crossbeam_channel::bounded(1);
        let gone = || self.unavailable(key, "the S3 client has been shut down");
        let Some(runtime) = &self.runtime else { return Err(gone()) };
        runtime.spawn(STATUS.scope(Cell::new(None), async move {
            // If nobody waits any more the answer is of no use.
            let _ = answer.send(request.await);
        }));
        // A request that panicked drops its end of the channel.
        wait.recv().map_err(|_| gone())?.map_err(|failure| self.error(key, failure))
    }

    fn unavailable(&self, key: &str, reason: &str) -> StoreError {
        StoreError::Unavailable { key: key.to_owned(), url: self.url(), reason: reason.to_owned() }
    }

    /// Sorts a failure by what the caller does next.
    fn error(&self, key: &str, failure: Failure) -> StoreError {
        let (key, url) = (key.to_owned(), self.url());
        let Failure { kind, text } = failure;
        match kind {
            Kind::Status(404) if text.contains("NoSuchBucket") => self.no_bucket(&key),
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
                reason: format!(
                    "{text}; check the credentials, the bucket's policy and this machine's clock"
                ),
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
                reason: format!(
                    "{}: {text}; trust the service's authority, or correct the endpoint",
                    self.endpoint
                ),
            },
            Kind::Connection | Kind::Silent => {
                StoreError::Unavailable { key, url, reason: format!("{}: {text}", self.endpoint) }
            }
            Kind::Status(501) => StoreError::NotSupported { key, url, reason: text },
            Kind::Status(408 | 409 | 429 | 500..) => StoreError::Unavailable { key, url, reason: text },
            Kind::Status(_) | Kind::Other => StoreError::Other { key, url, reason: text },
        }
    }

    fn no_bucket(&self, key: &str) -> StoreError {
        StoreError::Invalid {
            key: key.to_owned(),
            url: self.url(),
            reason: format!("the bucket {:?} does not exist; create it, or correct the name", self.bucket),
        }
    }

    /// How long an upload of so many bytes may take.
    fn upload_limit(&self, bytes: usize) -> Duration {
        self.silence + Duration::from_secs(bytes as u64 / UPLOAD_BYTES_PER_SECOND)
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
            Ok(false) => match self.head(key) {
                Ok(_) => Ok(Put::Exists),
                Err(StoreError::NotFound { .. }) => {
                    Err(self.unavailable(key, "the put met a conflict, and yet there is no such object"))
                }
                // Keys that may put but not get: the service's word has to do, and the put comes again if
                // the caller wants to compare.
                Err(StoreError::Denied { .. }) => Ok(Put::Exists),
                Err(error) => Err(error),
            },
            // A put finds no object to miss: it is the bucket.
            Err(StoreError::NotFound { .. }) => Err(self.no_bucket(key)),
            // No conditions: look first. Two who put the same name at once put the same content, since names are
            // hashes; where they are not (the header), `init` takes care.
            Err(StoreError::NotSupported { .. }) => {
                self.unconditional.store(true, Ordering::Relaxed);
                match self.head(key) {
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

    fn head(&self, key: &str) -> Result<u64, StoreError> {
        let (client, path, silence) = (self.client.clone(), self.path(key)?, self.silence);
        self.run(key, async move {
            let meta = limited(silence, client.head(&path)).await?;
            Ok(meta.size)
        })
    }
}

impl Store for S3Store {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.put_if_absent(key, bytes, None)
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let (client, path, silence) = (self.client.clone(), self.path(key)?, self.silence);
        self.run(key, async move {
            let result = limited(silence, client.get_opts(&path, GetOptions::default())).await?;
            read_body(result, silence).await
        })
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let (client, path, silence) = (self.client.clone(), self.path(key)?, self.silence);
        let Some(end) = offset.checked_add(len as u64).filter(|_| len > 0) else {
            // Nothing to transfer, or past the end of any object.
            let size = self.head(key)?;
            range_end(key, &self.url(), offset, len, size)?;
            return Ok(Bytes::new());
        };
        let read = self.run(key, async move {
            let options = GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
            let result = limited(silence, client.get_opts(&path, options)).await?;
            if result.range != (offset..end) {
                return Ok(None);
            }
            read_body(result, silence).await.map(Some)
        });
        match read {
            Ok(Some(bytes)) if bytes.len() == len => Ok(bytes),
            Err(error @ (StoreError::NotFound { .. } | StoreError::Denied { .. })) => Err(error),
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Invalid { .. })) => Err(error),
            // A range beyond the end comes back shorter or as an error, as the service likes: the size tells.
            other => {
                range_end(key, &self.url(), offset, len, self.head(key)?)?;
                match other {
                    // Some services answer a range that is the whole object, or any, with all of it and no
                    // word of the range. Objects are at most 64 MiB.
                    Err(StoreError::Other { .. }) => {
                        let whole = self.get(key)?;
                        range_end(key, &self.url(), offset, len, whole.len() as u64)?;
                        Ok(whole.slice(offset as usize..end as usize))
                    }
                    Err(error) => Err(error),
                    Ok(_) => {
                        Err(self.unavailable(key, "the answer did not hold the range that was asked for"))
                    }
                }
            }
        }
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.head(key)
    }

    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // The service lists by folder; the rest of the prefix is compared here.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = match (self.prefix.is_empty(), folder.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Path::parse(&self.prefix).map_err(|e| self.bad_path(prefix, &e))?),
            (_, false) => Some(self.path(folder)?),
        };
        let skip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let mut pages = self.client.list(path.as_ref());
        let silence = self.silence;
        loop {
            // One page at a time on our threads; the callback runs here, where it may call the store.
            let fetched = self.run(prefix, async move {
                let mut page = Vec::new();
                while page.len() < LIST_PAGE {
                    match timeout(silence, pages.next()).await {
                        Ok(Some(Ok(meta))) => page.push(meta),
                        Ok(Some(Err(error))) => return Err(Failure::of(&error)),
                        Ok(None) => return Ok((page, None)),
                        Err(_) => return Err(Failure::silent()),
                    }
                }
                Ok((page, Some(pages)))
            });
            let (page, rest) = match fetched {
                Ok(fetched) => fetched,
                // A listing misses no object: a 404 is the bucket.
                Err(StoreError::NotFound { .. }) => return Err(self.no_bucket(prefix)),
                Err(error) => return Err(error),
            };
            for meta in page {
                let Some(key) = meta.location.as_ref().get(skip..) else { continue };
                if key.starts_with(prefix) {
                    // To the second, on most services.
                    let modified = meta.last_modified.timestamp_nanos_opt().unwrap_or(0);
                    each(Object { key: key.to_owned(), size: meta.size, modified })?;
                }
            }
            match rest {
                Some(rest) => pages = rest,
                None => return Ok(()),
            }
        }
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
        if self.prefix.is_empty() {
            format!("s3://{}", self.bucket)
        } else {
            format!("s3://{}/{}", self.bucket, self.prefix)
        }
    }

    fn vault(&self) -> Option<&dyn Vault> {
        Some(self)
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

/// A request under a time limit.
pub(super) async fn limited<T>(
    limit: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Failure> {
    match timeout(limit, request).await {
        Ok(result) => result.map_err(|error| Failure::of(&error)),
        Err(_) => Err(Failure::silent()),
    }
}

/// The bytes of an answer, which may come slowly but not stop.
pub(super) async fn read_body(result: GetResult, silence: Duration) -> Result<Bytes, Failure> {
    // What the service promises is not trusted with all our memory at once.
    const AHEAD_MAX: u64 = 64 * 1024 * 1024;
    let size = result.range.end - result.range.start;
    let mut stream = result.into_stream();
    let mut whole = BytesMut::new();
    loop {
        match timeout(silence, stream.next()).await {
            Ok(Some(Ok(piece))) if whole.is_empty() && piece.len() as u64 == size => return Ok(piece),
            Ok(Some(Ok(piece))) => {
                if whole.is_empty() {
                    whole.reserve(size.min(AHEAD_MAX) as usize);
                }
                whole.extend_from_slice(&piece);
            }
            Ok(Some(Err(error))) => return Err(Failure::of(&error)),
            Ok(None) if whole.len() as u64 == size => return Ok(whole.freeze()),
            Ok(None) => {
                let text = format!("the answer broke off after {} of {size} bytes", whole.len());
                return Err(Failure { kind: Kind::Connection, text });
            }
            Err(_) => return Err(Failure::silent()),
        }
    }
}

/// A request that failed, before we know what it means for the verb.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The service answered with this HTTP status.
    Status(u16),
    /// No connection, or it broke.
    Connection,
    /// Nothing came for too long.
    Silent,
    Other,
}

impl Failure {
    /// From our own requests.
    fn connection(error: &HttpError) -> Failure {
        let mut cause: &(dyn std::error::Error + 'static) = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Failure { kind: Kind::Connection, text: cause.to_string() }
    }

    pub(super) fn silent() -> Failure {
        Failure { kind: Kind::Silent, text: "no answer in time".to_owned() }
    }

    /// From the client's error. The status is not in it, so the last one of this task is taken.
    pub(super) fn of(error: &object_store::Error) -> Failure {
        let mut cause: &(dyn std::error::Error + 'static) = error;
        let mut connection = false;
        while let Some(source) = cause.source() {
            connection |= source.downcast_ref::<HttpError>().is_some();
            cause = source;
        }
        if connection {
            return Failure { kind: Kind::Connection, text: cause.to_string() };
        }
        let text = error.to_string();
        match STATUS.try_with(Cell::get).ok().flatten().filter(|status| !(200..300).contains(status)) {
            Some(status) => Failure { kind: Kind::Status(status), text: say(status, &text) },
            None => Failure { kind: Kind::Other, text },
        }
    }
}

/// What the service said, from the XML of its answer: `AccessDenied: Access Denied. (HTTP 403)`.
fn say(status: u16, text: &str) -> String {
    let part = |open: &str, close: &str| {
        let (_, rest) = text.split_once(open)?;
        rest.split_once(close).map(|(part, _)| part)
    };
    match (part("<Code>", "</Code>"), part("<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!("{code}: {message} (HTTP {status})"),
        (Some(code), None) => format!("{code} (HTTP {status})"),
        _ => format!("the service answered with HTTP status {status}"),
    }
}

tokio::task_local! {
    /// The HTTP status of the last answer in this task. The client keeps it to itself and says "generic
    /// error" of most, so it is noted where answers pass through.
    pub(super) static STATUS: Cell<Option<u16>>;
}

/// Makes HTTP clients that note the status of answers.
#[derive(Debug)]
pub(super) struct WatchedConnector;

/// Hands out the one client there is.
#[derive(Debug)]
struct SharedConnector(HttpClient);

impl HttpConnector for SharedConnector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

#[derive(Debug)]
struct Watched(HttpClient);

impl HttpConnector for WatchedConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched(client)))
    }
}

impl HttpService for Watched {
    fn call<'s, 'a>(
        &'s self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(async move {
            let result = self.0.execute(request).await;
            let status = result.as_ref().ok().map(|answer| answer.status().as_u16());
            // Outside of a request of ours nobody asks for the status.
            let _ = STATUS.try_with(|last| last.set(status));
            result
        })
    }
}

#[cfg(test)]
mod tests;
