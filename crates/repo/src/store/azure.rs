//! A repository in Azure Blob Storage, through its own protocol.
//!
//! The same promises as [`super::s3`], by the same means ([`super::remote`]): every put carries `If-None-Match: *`.
//!
//! Locks: what the container's immutability policy keeps by itself is read and tried ([`Keeper`]). For how long is told by
//! each blob where immutability is per version; for a policy of the whole container only the management interface tells,
//! which an account key does not open. Then nothing is relied on. Versions are not used.

use std::sync::Arc;

use bytes::Bytes;
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::{ObjectStore, PutMode, PutOptions, RetryConfig};

use super::keeper::{Fate, Keeper, KeeperSays, Kept, refused};
use super::remote::{
    Answer, Failure, Kind, NO_PLACE, Remote, Shared, bucket_and_prefix, client_options, encode, exchange,
    http, limited,
};
use super::vault::LockMode;
use super::{AzureOptions, Object, Put, Store, StoreError};
use crate::env::{Timestamp, parse_rfc3339};

/// A container, or a prefix in one, as a store.
pub struct AzureStore {
    remote: Remote,
    client: Arc<MicrosoftAzure>,
    requests: Arc<Requests>,
}

/// What our own requests need.
struct Requests {
    http: HttpClient,
    credentials: AzureCredentialProvider,
    account: String,
    /// Without a slash at the end.
    container_url: String,
}

impl std::fmt::Debug for AzureStore {
    // By hand: the client prints its credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AzureStore").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl AzureStore {
    /// The store at `CONTAINER[/PREFIX]`. Asks nothing of the service yet.
    pub fn new(place: &str, options: &AzureOptions) -> Result<AzureStore, StoreError> {
        let url = format!("az://{place}");
        let (container, prefix) = bucket_and_prefix(place, &url)?;
        let (Some(account), Some(key)) = (&options.account, &options.access_key) else {
            return Err(StoreError::Denied {
                key: String::new(),
                url,
                reason: "no credentials were given; set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY"
                    .to_owned(),
            });
        };
        let setup = |error: object_store::Error| StoreError::Invalid {
            key: String::new(),
            url: url.clone(),
            reason: format!("the client cannot be set up: {error}"),
        };
        let client_options = client_options(options.endpoint.as_deref());
        let http = http(&client_options).map_err(setup)?;
        let mut builder = MicrosoftAzureBuilder::new()
            .with_container_name(container)
            .with_account(account)
            .with_access_key(key)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_client_options(client_options)
            .with_http_connector(Shared(http.clone()));
        let endpoint = match &options.endpoint {
            Some(endpoint) => {
                let endpoint = endpoint.trim_end_matches('/');
                builder = builder.with_endpoint(endpoint.to_owned());
                endpoint.to_owned()
            }
            None => format!("https://{account}.blob.core.windows.net"),
        };
        let client = Arc::new(builder.build().map_err(setup)?);
        let requests = Requests {
            http,
            credentials: client.credentials().clone(),
            account: account.clone(),
            container_url: format!("{endpoint}/{container}"),
        };
        Ok(AzureStore {
            remote: Remote::new(client.clone(), &url, prefix, Box::new(sort))?,
            client,
            requests: Arc::new(requests),
        })
    }

    /// A request of our own about a blob.
    fn ask(&self, method: &'static str, key: &str, query: &[(&str, &str)]) -> Result<Answer, StoreError> {
        let mut url = format!("{}/", self.requests.container_url);
        encode(&mut url, self.remote.path(key)?.as_ref(), true);
        self.send(method, key, url, query)
    }

    fn send(
        &self,
        method: &'static str,
        key: &str,
        mut url: String,
        query: &[(&str, &str)],
    ) -> Result<Answer, StoreError> {
        for (at, (name, value)) in query.iter().enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            encode(&mut url, value, false);
        }
        let (requests, limit) = (self.requests.clone(), self.remote.silence);
        self.remote.run(key, async move {
            let odd = |what: &str| Failure {
                kind: Kind::Other,
                text: format!("a request that cannot be sent: {what}"),
            };
            let mut request = HttpRequest::new(HttpRequestBody::from(Bytes::new()));
            *request.method_mut() = method.parse().map_err(|_| odd(method))?;
            *request.uri_mut() = url.parse().map_err(|_| odd(&url))?;
            let credential = limited(limit, requests.credentials.get_credential()).await?;
            AzureAuthorizer::new(&credential, &requests.account)
                .try_authorize(&mut request)
                .map_err(|error| odd(&error.to_string()))?;
            exchange(&requests.http, request, limit).await
        })
    }

    fn put_as(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<bool, StoreError> {
        let (client, path) = (self.client.clone(), self.remote.path(key)?);
        let limit = self.remote.upload_limit(bytes.len());
        self.remote.run(key, async move {
            let if_absent = mode == PutMode::Create;
            let options = PutOptions { mode, ..PutOptions::default() };
            match limited(limit, client.put_opts(&path, bytes.into(), options)).await {
                Ok(_) => Ok(true),
                Err(Failure { kind: Kind::Status(409 | 412), .. }) if if_absent => Ok(false),
                Err(failure) => Err(failure),
            }
        })
    }
}

/// Sorts a failure by what the caller does next.
fn sort(key: &str, url: &str, failure: Failure) -> StoreError {
    let (key, url, Failure { kind, text: reason }) = (key.to_owned(), url.to_owned(), failure);
    match kind {
        Kind::Status(404) if reason.contains("ContainerNotFound") || reason.contains(NO_PLACE) => {
            StoreError::Invalid {
                key,
                url,
                reason: "the container does not exist; create it, or correct the name".to_owned(),
            }
        }
        Kind::Status(404) => StoreError::NotFound { key, url },
        Kind::Status(401 | 403) => StoreError::Denied {
            key,
            url,
            reason: format!("{reason}; check the credentials and what they are allowed"),
        },
        // `BlobImmutableDueToPolicy`, and a legal hold.
        Kind::Status(409) if reason.contains("Immutable") || reason.contains("LegalHold") => {
            StoreError::Denied { key, url, reason }
        }
        Kind::Connection | Kind::Silent | Kind::Status(408 | 409 | 412 | 429 | 500 | 502..) => {
            StoreError::Unavailable { key, url, reason }
        }
        Kind::Status(501) => StoreError::NotSupported { key, url, reason },
        Kind::Status(_) | Kind::Other => StoreError::Other { key, url, reason },
    }
}

impl Store for AzureStore {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        match self.put_as(key, bytes, PutMode::Create) {
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
            // A put finds no object to miss: it is the container.
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
        // Not the library's: it deletes by a request for many keys, whose own status is a success.
        match self.ask("DELETE", key, &[]) {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            // "No" has many reasons, and an immutability policy is the one that passes by itself.
            Err(error @ StoreError::Denied { .. }) => match self.kept(key) {
                Ok(Some(kept)) => Err(StoreError::Locked {
                    key: key.to_owned(),
                    url: self.url(),
                    until: kept.until,
                    mode: kept.mode.unwrap_or(LockMode::Governance),
                }),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn url(&self) -> String {
        self.remote.url.clone()
    }

    fn keeper(&self) -> Option<&dyn Keeper> {
        Some(self)
    }
}

impl Keeper for AzureStore {
    fn policy(&self) -> Result<KeeperSays, StoreError> {
        let container = self.requests.container_url.clone();
        let answer = self.send("HEAD", "", container, &[("restype", "container")])?;
        let says = |name| answer.header(name) == Some("true");
        let (policy, versions) =
            (says("x-ms-has-immutability-policy"), says("x-ms-immutable-storage-with-versioning-enabled"));
        let mut notes = Vec::new();
        if policy && !versions {
            notes.push(
                "the container has an immutability policy, and for how long it keeps blobs only Azure's management \
                 interface tells, which an account key does not open: nothing is relied on; with immutability per version \
                 each blob tells its date"
                    .to_owned(),
            );
        }
        if says("x-ms-has-legal-hold") {
            notes.push("the container is under legal hold: nothing can be removed until it ends".to_owned());
        }
        // For how long, each blob says.
        Ok(KeeperSays { keeps: versions, retention: None, notes })
    }

    fn kept(&self, key: &str) -> Result<Option<Kept>, StoreError> {
        let answer = self.ask("HEAD", key, &[])?;
        let time = |name| answer.header(name).and_then(parse_http_date);
        let since = time("x-ms-creation-time").or_else(|| time("last-modified"));
        let mode = match answer.header("x-ms-immutability-policy-mode").unwrap_or_default() {
            mode if mode.eq_ignore_ascii_case("locked") => LockMode::Compliance,
            _ => LockMode::Governance,
        };
        Ok(match (since, time("x-ms-immutability-policy-until-date")) {
            (Some(since), Some(until)) if until > since => Some(Kept { since, until, mode: Some(mode) }),
            _ => None,
        })
    }

    fn attack(&self, key: &str, content: &Bytes) -> Result<Fate, StoreError> {
        let version = self.ask("HEAD", key, &[])?.header("x-ms-version-id").map(str::to_owned);
        let garbage = Bytes::from_static(b"garbage");
        let overwritten = !refused(self.put_as(key, garbage, PutMode::Overwrite).map(|_| ()))?;
        let deleted = !refused(self.ask("DELETE", key, &[]).map(|_| ()))?;
        if !overwritten && !deleted && self.get(key).is_ok_and(|bytes| bytes == *content) {
            return Ok(Fate::Stays);
        }
        let Some(version) = version else { return Ok(Fate::Lost) };
        let version = [("versionid", version.as_str())];
        let removed = !refused(self.ask("DELETE", key, &version).map(|_| ()))?;
        match self.ask("GET", key, &version) {
            Ok(answer) if answer.body == *content && !removed => Ok(Fate::Hidden),
            Err(error) if error.is_unavailable() => Err(error),
            _ => Ok(Fate::Lost),
        }
    }
}

/// A date as HTTP headers have it: `Sat, 21 Nov 2026 11:45:20 GMT`.
fn parse_http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut parts = rest.strip_suffix(" GMT")?.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z"))
}

#[cfg(test)]
mod tests;
