//! What the clients of remote stores share: threads of their own, time limits, the reading verbs, and what a failure
//! means.
//!
//! The client library is async and the repository is not: requests run on two threads of our own and callers wait
//! for them, so a call is fine on any thread, inside an async runtime too. Tries and pauses are not made here but
//! in [`super::retry`], which counts them and can be told to stop.
//!
//! Time limits follow the work: what does not connect in 10 s, or does not move for a minute, is unavailable;
//! an upload gets a minute and what its size needs at 64 KiB/s, so a slow line is not a dead one.

use std::cell::Cell;
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{Object, StoreError, check_key, range_end};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer, or the next piece of it, may take.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// The slowest line on which an upload is given its time.
const UPLOAD_BYTES_PER_SECOND: u64 = 64 * 1024;
/// Objects fetched before the callback of a listing hears of them: a page of the service.
const LIST_PAGE: usize = 1000;

/// What a service says of a bucket that is not there.
pub(super) const NO_PLACE: &str = "NoSuchBucket";

/// What a failure means to the service: its key, the store's URL, and what happened.
type Sort = Box<dyn Fn(&str, &str, Failure) -> StoreError + Send + Sync>;

/// A bucket or container, or a prefix in one.
pub(super) struct Remote {
    client: Arc<dyn ObjectStore>,
    /// Without slashes at the ends; may be empty.
    pub(super) prefix: String,
    pub(super) url: String,
    /// [`SILENCE_LIMIT`], but for tests.
    pub(super) silence: Duration,
    sort: Sort,
    /// Taken only by `drop`.
    runtime: Option<Runtime>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Not the plain drop: that one blocks, and panics inside an async runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Remote {
    pub(super) fn new(
        client: Arc<dyn ObjectStore>,
        url: &str,
        prefix: &str,
        sort: Sort,
    ) -> Result<Remote, StoreError> {
        let (url, prefix) = (url.trim_end_matches('/').to_owned(), prefix.trim_end_matches('/').to_owned());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("holdfast-store")
            .enable_all()
            .build()
            .map_err(|error| StoreError::Other {
                key: String::new(),
                url: url.clone(),
                reason: format!("no threads for the client: {error}"),
            })?;
        Ok(Remote { client, prefix, url, silence: SILENCE_LIMIT, sort, runtime: Some(runtime) })
    }

    /// Where a key is in the bucket.
    pub(super) fn path(&self, key: &str) -> Result<Path, StoreError> {
        check_key(key, &self.url)?;
        self.parse(key, self.below(key))
    }

    /// A key or a prefix of keys in the bucket.
    pub(super) fn below(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    fn parse(&self, key: &str, whole: String) -> Result<Path, StoreError> {
        Path::parse(whole).map_err(|error| StoreError::Invalid {
            key: key.to_owned(),
            url: self.url.clone(),
            reason: error.to_string(),
        })
    }

    /// The key of what lies at a place in the bucket; `None` outside of the prefix.
    pub(super) fn key_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.get(if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 }..)
    }

    /// Runs a request on our own threads and waits for it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        key: &str,
        request: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = crossbeam_channel::bounded(1);
        let gone = || self.unavailable(key, "the client has been shut down");
        let Some(runtime) = &self.runtime else { return Err(gone()) };
        runtime.spawn(STATUS.scope(Cell::new(None), async move {
            // If nobody waits any more the answer is of no use.
            let _ = answer.send(request.await);
        }));
        // A request that panicked drops its end of the channel.
        wait.recv().map_err(|_| gone())?.map_err(|failure| self.error(key, failure))
    }

    /// What a failure means.
    pub(super) fn error(&self, key: &str, failure: Failure) -> StoreError {
        (self.sort)(key, &self.url, failure)
    }

    /// The bucket is not there.
    pub(super) fn no_place(&self, key: &str) -> StoreError {
        self.error(key, Failure { kind: Kind::Status(404), text: NO_PLACE.to_owned() })
    }

    pub(super) fn unavailable(&self, key: &str, reason: &str) -> StoreError {
        StoreError::Unavailable { key: key.to_owned(), url: self.url.clone(), reason: reason.to_owned() }
    }

    /// An answer that makes no sense.
    pub(super) fn strange(&self, key: &str, what: &str) -> StoreError {
        StoreError::Other {
            key: key.to_owned(),
            url: self.url.clone(),
            reason: format!("the service's answer cannot be understood: {what}"),
        }
    }

    /// How long an upload of so many bytes may take.
    pub(super) fn upload_limit(&self, bytes: usize) -> Duration {
        self.silence + Duration::from_secs(bytes as u64 / UPLOAD_BYTES_PER_SECOND)
    }

    pub(super) fn size(&self, key: &str) -> Result<u64, StoreError> {
        let (client, path, silence) = (self.client.clone(), self.path(key)?, self.silence);
        self.run(key, async move { Ok(limited(silence, client.head(&path)).await?.size) })
    }

    pub(super) fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let (client, path, silence) = (self.client.clone(), self.path(key)?, self.silence);
        self.run(key, async move {
            let result = limited(silence, client.get_opts(&path, GetOptions::default())).await?;
            read_body(result, silence).await
        })
    }

    pub(super) fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let (client, path, silence) = (self.client.clone(), self.path(key)?, self.silence);
        let Some(end) = offset.checked_add(len as u64).filter(|_| len > 0) else {
            // Nothing to transfer, or past the end of any object.
            range_end(key, &self.url, offset, len, self.size(key)?)?;
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
                range_end(key, &self.url, offset, len, self.size(key)?)?;
                match other {
                    // Some services answer a range that is the whole object, or any, with all of it and no
                    // word of the range. Objects are at most 64 MiB.
                    Err(StoreError::Other { .. }) => {
                        let whole = self.get(key)?;
                        range_end(key, &self.url, offset, len, whole.len() as u64)?;
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

    /// Every object below the prefix.
    pub(super) fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // The services list by folder; the rest of the prefix is compared here.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = match (self.prefix.is_empty(), folder.is_empty()) {
            (true, true) => None,
            (false, true) => Some(self.parse(prefix, self.prefix.clone())?),
            (_, false) => Some(self.path(folder)?),
        };
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
                Err(StoreError::NotFound { .. }) => return Err(self.no_place(prefix)),
                Err(error) => return Err(error),
            };
            for meta in page {
                let Some(key) = self.key_of(meta.location.as_ref()) else { continue };
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
}

/// How the clients connect. `http://` is spoken only if it is written in the endpoint.
pub(super) fn client_options(endpoint: Option<&str>) -> ClientOptions {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new().with_connect_timeout(CONNECT_LIMIT).with_timeout_disabled().with_allow_http(plain)
}

/// The bucket and the prefix of `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
pub(super) fn bucket_and_prefix<'p>(place: &'p str, url: &str) -> Result<(&'p str, &'p str), StoreError> {
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = prefix.trim_end_matches('/');
    let strange = !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | ".."));
    let fine = !bucket.is_empty()
        && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if fine && !strange {
        return Ok((bucket, prefix));
    }
    Err(StoreError::Invalid {
        key: String::new(),
        url: url.to_owned(),
        reason: "write gs://BUCKET/PREFIX or az://CONTAINER/PREFIX; no part of it may be empty".to_owned(),
    })
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
async fn read_body(result: GetResult, silence: Duration) -> Result<Bytes, Failure> {
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
    pub(super) fn connection(error: &HttpError) -> Failure {
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

/// What the service said, from the XML or JSON of its answer: `AccessDenied: Access Denied. (HTTP 403)`.
pub(super) fn say(status: u16, text: &str) -> String {
    let part = |open: &str, close: &str| {
        let (_, rest) = text.split_once(open)?;
        rest.split_once(close).map(|(part, _)| part)
    };
    match (part("<Code>", "</Code>"), part("<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!("{code}: {message} (HTTP {status})"),
        (Some(code), None) => format!("{code} (HTTP {status})"),
        _ => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(said) if said["error"]["message"].is_string() => {
                let reason = said["error"]["errors"][0]["reason"].as_str().unwrap_or("error");
                format!("{reason}: {} (HTTP {status})", said["error"]["message"].as_str().unwrap_or_default())
            }
            _ => format!("the service answered with HTTP status {status}"),
        },
    }
}

tokio::task_local! {
    /// The HTTP status of the last answer in this task. The client keeps it to itself and says "generic
    /// error" of most, so it is noted where answers pass through.
    static STATUS: Cell<Option<u16>>;
}

/// An HTTP client that notes the status of answers: one pool of connections for the library's requests and ours.
pub(super) fn http(options: &ClientOptions) -> object_store::Result<HttpClient> {
    let client = ReqwestConnector::default().connect(options)?;
    Ok(HttpClient::new(Watched(client)))
}

/// Hands the library the one client there is.
#[derive(Debug)]
pub(super) struct Shared(pub(super) HttpClient);

impl HttpConnector for Shared {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

/// What came back from a request of our own, when it was a success.
pub(super) struct Answer {
    headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request of our own and reads the answer, each within `limit`. Any status but a success is a failure.
pub(super) async fn exchange(
    http: &HttpClient,
    request: HttpRequest,
    limit: Duration,
) -> Result<Answer, Failure> {
    let answer = match timeout(limit, http.execute(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(Failure::connection(&error)),
        Err(_) => return Err(Failure::silent()),
    };
    let status = answer.status().as_u16();
    let headers = answer
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    let headers = headers.collect();
    let body = match timeout(limit, answer.into_body().bytes()).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return Err(Failure::connection(&error)),
        Err(_) => return Err(Failure::silent()),
    };
    let answer = Answer { headers, body };
    if (200..300).contains(&status) {
        return Ok(answer);
    }
    let text = match answer.header("x-ms-error-code") {
        // Without a body (HEAD) Azure says it in a header.
        Some(code) if answer.body.is_empty() => format!("{code} (HTTP {status})"),
        _ => say(status, &answer.text()),
    };
    Err(Failure { kind: Kind::Status(status), text })
}

/// Percent-encodes all but the unreserved characters, and slashes only if asked.
pub(super) fn encode(url: &mut String, text: &str, keep_slashes: bool) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(char::from(byte)),
            b'/' if keep_slashes => url.push('/'),
            // Writing to a string does not fail.
            _ => drop(write!(url, "%{byte:02X}")),
        }
    }
}

#[derive(Debug)]
struct Watched(HttpClient);

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
