//! A repository in Google Cloud Storage or in Azure Blob Storage, through their own protocols.
//!
//! The same promises as [`super::s3`], by the same means: conditional puts (`x-goog-if-generation-match: 0`,
//! `If-None-Match: *`), threads of our own, time limits that follow the work, tries made in [`super::retry`].
//!
//! Versions and locks of these services are not used: there is no [`Store::vault`], and a repository with
//! locks is refused. What retention policy a bucket has by itself is the owner's to know.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::s3::{
    CONNECT_LIMIT, Failure, Kind, LIST_PAGE, SILENCE_LIMIT, STATUS, UPLOAD_BYTES_PER_SECOND,
    WatchedConnector, limited, read_body,
};
use super::{AzureOptions, GcsOptions, Object, Put, Store, StoreError, check_key, range_end};

/// A bucket or container, or a prefix in one, as a store.
pub struct CloudStore {
    client: Arc<dyn ObjectStore>,
    /// Without slashes at the ends; may be empty.
    prefix: String,
    url: String,
    /// Taken only by `drop`.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for CloudStore {
    // By hand: the client prints its credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudStore").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Drop for CloudStore {
    fn drop(&mut self) {
        // Not the plain drop: that one blocks, and panics inside an async runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn client_options(endpoint: Option<&str>) -> ClientOptions {
    // `http://` is spoken only if it is written.
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new().with_connect_timeout(CONNECT_LIMIT).with_timeout_disabled().with_allow_http(plain)
}

impl CloudStore {
    /// The store at `BUCKET[/PREFIX]` of Google Cloud Storage. Asks nothing of the service yet.
    pub fn gcs(place: &str, options: &GcsOptions) -> Result<CloudStore, StoreError> {
        let url = format!("gs://{place}");
        let (bucket, prefix) = split(place, &url)?;
        let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
        builder = match (&options.service_account_json, &options.endpoint) {
            (Some(account), None) => builder.with_service_account_key(account),
            // An emulator, which asks for no credentials.
            (_, Some(endpoint)) => builder.with_service_account_key(
                serde_json::json!({
                    "gcs_base_url": endpoint.trim_end_matches('/'), "disable_oauth": true, "client_email": "",
                    "private_key": "", "private_key_id": "",
                })
                .to_string(),
            ),
            // What the machine itself is allowed.
            (None, None) => builder,
        };
        let client = builder
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_client_options(client_options(options.endpoint.as_deref()))
            .with_http_connector(WatchedConnector)
            .build();
        CloudStore::assemble(client.map(|client| Arc::new(client) as _), prefix, url)
    }

    /// The store at `CONTAINER[/PREFIX]` of Azure Blob Storage. Asks nothing of the service yet.
    pub fn azure(place: &str, options: &AzureOptions) -> Result<CloudStore, StoreError> {
        let url = format!("az://{place}");
        let (container, prefix) = split(place, &url)?;
        let (Some(account), Some(key)) = (&options.account, &options.access_key) else {
            return Err(StoreError::Denied {
                key: String::new(),
                url,
                reason: "no credentials were given; set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY"
                    .to_owned(),
            });
        };
        let mut builder = MicrosoftAzureBuilder::new()
            .with_container_name(container)
            .with_account(account)
            .with_access_key(key)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_client_options(client_options(options.endpoint.as_deref()))
            .with_http_connector(WatchedConnector);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        CloudStore::assemble(builder.build().map(|client| Arc::new(client) as _), prefix, url)
    }

    fn assemble(
        client: object_store::Result<Arc<dyn ObjectStore>>,
        prefix: &str,
        url: String,
    ) -> Result<CloudStore, StoreError> {
        let url = url.trim_end_matches('/').to_owned();
        let failed = |reason: String| StoreError::Invalid { key: String::new(), url: url.clone(), reason };
        let client = client.map_err(|error| failed(format!("the client cannot be set up: {error}")))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("holdfast-cloud")
            .enable_all()
            .build()
            .map_err(|error| failed(format!("no threads for the client: {error}")))?;
        Ok(CloudStore { client, prefix: prefix.to_owned(), url, runtime: Some(runtime) })
    }

    fn path(&self, key: &str) -> Result<Path, StoreError> {
        check_key(key, &self.url)?;
        let whole = if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        self.parse(key, whole)
    }

    fn parse(&self, key: &str, whole: String) -> Result<Path, StoreError> {
        Path::parse(whole).map_err(|error| StoreError::Invalid {
            key: key.to_owned(),
            url: self.url.clone(),
            reason: error.to_string(),
        })
    }

    /// Runs a request on our own threads and waits for it.
    fn run<T: Send + 'static>(
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
        wait.recv().map_err(|_| gone())?.map_err(|failure| self.error(key, failure))
    }

    fn unavailable(&self, key: &str, reason: &str) -> StoreError {
        StoreError::Unavailable { key: key.to_owned(), url: self.url.clone(), reason: reason.to_owned() }
    }

    /// Sorts a failure by what the caller does next.
    fn error(&self, key: &str, failure: Failure) -> StoreError {
        let (key, url, Failure { kind, text: reason }) = (key.to_owned(), self.url.clone(), failure);
        let no_place = reason.contains("ContainerNotFound") || reason.contains("NoSuchBucket");
        match kind {
            Kind::Status(404) if no_place => self.no_place(&key),
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

    fn no_place(&self, key: &str) -> StoreError {
        StoreError::Invalid {
            key: key.to_owned(),
            url: self.url.clone(),
            reason: "the bucket or container does not exist; create it, or correct the name".to_owned(),
        }
    }
}

/// Bucket and prefix.
fn split<'p>(place: &'p str, url: &str) -> Result<(&'p str, &'p str), StoreError> {
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

impl Store for CloudStore {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        let (client, path) = (self.client.clone(), self.path(key)?);
        let limit = SILENCE_LIMIT + Duration::from_secs(bytes.len() as u64 / UPLOAD_BYTES_PER_SECOND);
        let created = self.run(key, async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match limited(limit, client.put_opts(&path, bytes.into(), options)).await {
                Ok(_) => Ok(true),
                Err(Failure { kind: Kind::Status(409 | 412), .. }) => Ok(false),
                Err(failure) => Err(failure),
            }
        });
        match created {
            Ok(true) => Ok(Put::Created),
            // Only the object itself tells a conflict with another put from an object that is there.
            Ok(false) => match self.size(key) {
                Ok(_) => Ok(Put::Exists),
                Err(StoreError::NotFound { .. }) => {
                    Err(self.unavailable(key, "the put met a conflict, and yet there is no such object"))
                }
                Err(StoreError::Denied { .. }) => Ok(Put::Exists),
                Err(error) => Err(error),
            },
            Err(StoreError::NotFound { .. }) => Err(self.no_place(key)),
            Err(error) => Err(error),
        }
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let (client, path) = (self.client.clone(), self.path(key)?);
        self.run(key, async move {
            let result = limited(SILENCE_LIMIT, client.get_opts(&path, GetOptions::default())).await?;
            read_body(result, SILENCE_LIMIT).await
        })
    }

    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let (client, path) = (self.client.clone(), self.path(key)?);
        let Some(end) = offset.checked_add(len as u64).filter(|_| len > 0) else {
            range_end(key, &self.url, offset, len, self.size(key)?)?;
            return Ok(Bytes::new());
        };
        let read = self.run(key, async move {
            let options = GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
            let result = limited(SILENCE_LIMIT, client.get_opts(&path, options)).await?;
            if result.range != (offset..end) {
                return Ok(None);
            }
            read_body(result, SILENCE_LIMIT).await.map(Some)
        });
        match read {
            Ok(Some(bytes)) if bytes.len() == len => Ok(bytes),
            Err(error @ (StoreError::NotFound { .. } | StoreError::Denied { .. })) => Err(error),
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Invalid { .. })) => Err(error),
            // A range beyond the end comes back shorter or as an error, as the service likes: the size tells.
            other => {
                range_end(key, &self.url, offset, len, self.size(key)?)?;
                other?;
                Err(self.unavailable(key, "the answer did not hold the range that was asked for"))
            }
        }
    }

    fn size(&self, key: &str) -> Result<u64, StoreError> {
        let (client, path) = (self.client.clone(), self.path(key)?);
        self.run(key, async move { Ok(limited(SILENCE_LIMIT, client.head(&path)).await?.size) })
    }

    fn list(
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
        let skip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let mut pages = self.client.list(path.as_ref());
        loop {
            let fetched = self.run(prefix, async move {
                let mut page = Vec::new();
                while page.len() < LIST_PAGE {
                    match timeout(SILENCE_LIMIT, pages.next()).await {
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
                Err(StoreError::NotFound { .. }) => return Err(self.no_place(prefix)),
                Err(error) => return Err(error),
            };
            for meta in page {
                let Some(key) = meta.location.as_ref().get(skip..) else { continue };
                if key.starts_with(prefix) {
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
        let (client, path) = (self.client.clone(), self.path(key)?);
        let deleted = self.run(key, async move {
            // Azure's client deletes by a request for many keys, whose own status is a success.
            limited(SILENCE_LIMIT, async {
                match client.delete(&path).await {
                    Err(object_store::Error::NotFound { .. }) => Ok(()),
                    other => other,
                }
            })
            .await
        });
        match deleted {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    fn url(&self) -> String {
        self.url.clone()
    }
}
