//! The few verbs a repository asks of an object store, and the stores that answer them.
//!
//! What every store promises (the contract, [`suite`], runs on all of them):
//! - `put` creates the whole object or reports that the name is taken. It never replaces, never leaves half
//!   an object, and has reached the disk (or the service's promise of durability) when it returns.
//! - `get_range` returns exactly the bytes asked for or an error; it is never short.
//! - `list` calls back for every object whose key begins with the prefix, in ascending order within a folder.
//!   (Where a folder stands among its neighbours differs between services.)
//! - `delete` of a key that is not there succeeds, so that it can be tried again.
//! - Errors are sorted by what the caller does next: retry ([`StoreError::Unavailable`]), ask for rights,
//!   ask for space, correct the URL, or treat the object as missing or damaged.
//!
//! Keys are `/`-joined components of ASCII letters, digits, `.`, `_` and `-`. Nothing else is ever used by the
//! format, and refusing the rest here keeps escaping rules of five services out of the code.
//!
//! Stores: [`local`] (a directory), [`s3`] (S3 and what speaks it), [`gcs`] (Google Cloud Storage), [`azure`] (Azure Blob
//! Storage), [`mem`] and [`versioned`] (tests and the demo). What a store does beyond these verbs is in [`vault`] (versions,
//! locks) and in [`keeper`] (what a bucket keeps by itself); [`probe`] has it proved.
//! Wrappers: [`retry`], [`limit`] (bytes a second), [`spool`] (packs are acknowledged from disk); usable from the tests of other crates: [`record`], [`faulty`].

pub mod azure;
pub(crate) mod direct;
pub mod faulty;
pub mod gcs;
pub mod keeper;
pub mod limit;
pub mod local;
pub(crate) mod locked;
pub mod mem;
pub mod probe;
pub mod record;
mod remote;
#[cfg(test)]
mod responder;
pub mod retry;
pub mod s3;
pub mod settings;
pub mod spool;
pub mod suite;
pub mod vault;
pub mod versioned;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Cancel, Env, Timestamp};
use keeper::Keeper;
pub use settings::settings;
use vault::Vault;

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there now, whole and durable, and this call made it.
    Created,
    /// The name was taken; nothing was written. The caller compares the content if it matters.
    Exists,
}

/// One object as `list` reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// The key, relative to the store's root.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When the store took it in, by the store's own clock, which may be coarse and wrong. Times of one store
    /// are compared with each other and with nothing else.
    pub modified: Timestamp,
}

/// The verbs. See the module page for what each promises.
pub trait Store: Send + Sync + fmt::Debug {
    /// Creates `key` with these bytes, whole or not at all; never replaces.
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError>;
    /// The whole object.
    fn get(&self, key: &str) -> Result<Bytes, StoreError>;
    /// Exactly `len` bytes from `offset`, or an error ([`StoreError::Short`] when the object ends before).
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError>;
    /// The object's size in bytes.
    fn size(&self, key: &str) -> Result<u64, StoreError>;
    /// Calls `each` for every object whose key begins with `prefix`; an error from `each` ends the listing.
    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;
    /// Removes the object; one that is not there is no error.
    fn delete(&self, key: &str) -> Result<(), StoreError>;
    /// Where this is, for messages; never a secret.
    fn url(&self) -> String;
    /// Its versions and locks, if it is a kind of store that may have them.
    fn vault(&self) -> Option<&dyn Vault> {
        None
    }
    /// What it keeps by itself, if it is a kind of store that may.
    fn keeper(&self) -> Option<&dyn Keeper> {
        None
    }
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        (**self).put(key, bytes)
    }
    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        (**self).get(key)
    }
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        (**self).get_range(key, offset, len)
    }
    fn size(&self, key: &str) -> Result<u64, StoreError> {
        (**self).size(key)
    }
    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        (**self).list(prefix, each)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        (**self).delete(key)
    }
    fn url(&self) -> String {
        (**self).url()
    }
    fn vault(&self) -> Option<&dyn Vault> {
        (**self).vault()
    }
    fn keeper(&self) -> Option<&dyn Keeper> {
        (**self).keeper()
    }
}

/// Why a store did not do what was asked. Every variant names the key (empty when the whole store is meant)
/// and the store's URL.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{} is not there", place(.url, .key))]
    NotFound {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
    },
    /// The store refuses: credentials or permissions.
    #[error("{}: access denied: {reason}", place(.url, .key))]
    Denied {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
        /// What the store said, and what to do.
        reason: String,
    },
    /// No space, no quota, or a read-only file system.
    #[error("{}: cannot be written: {reason}", place(.url, .key))]
    Full {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
        /// What the store said, and what to do.
        reason: String,
    },
    /// The store cannot be reached or is overloaded; the same call may succeed later.
    #[error("{}: the store is not reachable: {reason}", place(.url, .key))]
    Unavailable {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The object ends before the range that was asked for.
    #[error("{}: is cut short: it has {size} bytes, {wanted} were expected", place(.url, .key))]
    Short {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
        /// The bytes it has.
        size: u64,
        /// The bytes it should have at least.
        wanted: u64,
    },
    /// The object is there and its medium does not give its bytes: a bad sector, a broken file system.
    #[error("{}: cannot be read: {reason}", place(.url, .key))]
    Unreadable {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
        /// What the medium said.
        reason: String,
    },
    /// The URL, the place or the key cannot be used like this; trying again will not help.
    #[error("{}: {reason}", place(.url, .key))]
    Invalid {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The object is locked against removal, and will not be for ever.
    #[error("{}: is locked until {} ({mode}); it can be removed after that", place(.url, .key), crate::env::rfc3339(*.until))]
    Locked {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
        /// When the lock ends.
        until: Timestamp,
        /// Who could remove it before.
        mode: vault::LockMode,
    },
    /// The store has no such function.
    #[error("{}: the store cannot do this: {reason}", place(.url, .key))]
    NotSupported {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
        /// What it said.
        reason: String,
    },
    /// Anything else the store said.
    #[error("{}: {reason}", place(.url, .key))]
    Other {
        /// The object's key.
        key: String,
        /// The store's URL.
        url: String,
        /// What happened.
        reason: String,
    },
}

impl StoreError {
    /// The key that was asked for; empty when the error is about the whole store.
    pub fn key(&self) -> &str {
        match self {
            StoreError::NotFound { key, .. }
            | StoreError::Denied { key, .. }
            | StoreError::Full { key, .. }
            | StoreError::Unavailable { key, .. }
            | StoreError::Short { key, .. }
            | StoreError::Unreadable { key, .. }
            | StoreError::Invalid { key, .. }
            | StoreError::Locked { key, .. }
            | StoreError::NotSupported { key, .. }
            | StoreError::Other { key, .. } => key,
        }
    }

    /// True for "there is no such object".
    pub fn is_not_found(&self) -> bool {
        matches!(self, StoreError::NotFound { .. })
    }

    /// True when the object is not there, not whole or not readable, so that its content counts as lost.
    pub fn is_loss(&self) -> bool {
        matches!(self, StoreError::NotFound { .. } | StoreError::Short { .. } | StoreError::Unreadable { .. })
    }

    /// True when the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. })
    }
}

/// `url/key`, or the URL alone when no key is meant.
fn place(url: &str, key: &str) -> String {
    if key.is_empty() { url.to_owned() } else { format!("{}/{key}", url.trim_end_matches('/')) }
}

/// How to reach a store. Nothing here is read from the environment: whoever starts the process fills it in, or has it
/// filled in ([`settings()`]).
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// For `s3://` URLs.
    pub s3: S3Options,
    /// For `gs://` URLs.
    pub gcs: GcsOptions,
    /// For `az://` URLs.
    pub azure: AzureOptions,
    /// How long to keep trying when a remote store does not answer.
    pub retry: retry::RetryPolicy,
    /// Clock and dice, for the pauses between tries; [`Env::real`] when absent.
    pub env: Option<Env>,
    /// Ends the pauses between tries early, and the waiting for bandwidth.
    pub cancel: Cancel,
    /// How many bytes a second may go, shared by all stores that are opened with it. `None`: as many as go.
    pub bandwidth: Option<Arc<limit::Bandwidth>>,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("s3", &self.s3)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// How to reach Google Cloud Storage.
#[derive(Clone, Default)]
pub struct GcsOptions {
    /// The key of a service account, as JSON; what the machine itself is allowed when absent.
    pub service_account_json: Option<String>,
    /// An emulator's URL. It is asked without credentials.
    pub endpoint: Option<String>,
}

/// How to reach Azure Blob Storage.
#[derive(Clone, Default)]
pub struct AzureOptions {
    /// The storage account.
    pub account: Option<String>,
    /// Its access key, in base64.
    pub access_key: Option<String>,
    /// The service's URL with the account (`http://127.0.0.1:10000/devstoreaccount1`); Azure's own when absent.
    pub endpoint: Option<String>,
}

// By hand, so that no log line ever holds a secret.
impl fmt::Debug for GcsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsOptions").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl fmt::Debug for AzureOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, endpoint, .. } = self;
        f.debug_struct("AzureOptions")
            .field("account", account)
            .field("endpoint", endpoint)
            .finish_non_exhaustive()
    }
}

/// How to reach an S3 service.
#[derive(Clone, Default)]
pub struct S3Options {
    /// The service's URL; AWS when absent. `http://` is spoken only if it is written here.
    pub endpoint: Option<String>,
    /// The region; `us-east-1` when absent.
    pub region: Option<String>,
    /// The access key's id.
    pub access_key_id: Option<String>,
    /// The access key's secret.
    pub secret_access_key: Option<String>,
    /// The token of temporary credentials.
    pub session_token: Option<String>,
    /// Put the bucket into the host name instead of the path.
    pub virtual_hosted: bool,
    /// Certificates (PEM) to trust besides the system's, for a service with a private authority.
    pub extra_roots_pem: Option<Vec<u8>>,
}

impl fmt::Debug for S3Options {
    // Written by hand so that no log line ever holds a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "…"))
            .field("session_token", &self.session_token.as_ref().map(|_| "…"))
            .field("virtual_hosted", &self.virtual_hosted)
            .finish_non_exhaustive()
    }
}

/// Opens the store a URL names: a path or `file://PATH`, `s3://BUCKET[/PREFIX]`, `gs://BUCKET[/PREFIX]` or
/// `az://CONTAINER[/PREFIX]`.
///
/// Touches nothing yet: whether the place exists and lets us in shows at the first call. A remote store comes
/// wrapped in [`retry::Retry`]; any, if a bandwidth is given, in [`limit::Limited`].
pub fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let store = open_unlimited(url, options)?;
    Ok(match &options.bandwidth {
        None => store,
        Some(bandwidth) => Arc::new(limit::Limited::new(store, bandwidth.clone(), options.cancel.clone())),
    })
}

fn open_unlimited(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let invalid = |reason: &str| StoreError::Invalid {
        key: String::new(),
        url: url.to_owned(),
        reason: reason.to_owned(),
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        if url.is_empty() {
            return Err(invalid("the repository's URL is empty; give a directory or s3://BUCKET/PREFIX"));
        }
        return Ok(Arc::new(local::LocalStore::new(Path::new(url))?));
    };
    match scheme {
        "file" => {
            if !rest.starts_with('/') {
                return Err(invalid("a file URL needs an absolute path: file:///srv/backup"));
            }
            Ok(Arc::new(local::LocalStore::new(Path::new(rest))?))
        }
        "s3" => {
            let store = s3::S3Store::new(rest, &options.s3)?;
            let env = options.env.clone().unwrap_or_else(Env::real);
            Ok(Arc::new(retry::Retry::new(store, options.retry.clone(), env, options.cancel.clone())))
        }
        "gs" | "az" => {
            let store: Arc<dyn Store> = match scheme {
                "gs" => Arc::new(gcs::GcsStore::new(rest, &options.gcs)?),
                _ => Arc::new(azure::AzureStore::new(rest, &options.azure)?),
            };
            let env = options.env.clone().unwrap_or_else(Env::real);
            Ok(Arc::new(retry::Retry::new(store, options.retry.clone(), env, options.cancel.clone())))
        }
        "mem" => {
            Err(invalid("a store in memory would be gone when the command ends; use a directory or s3://"))
        }
        _ => Err(invalid("unknown kind of store; use a directory, file:///PATH or s3://BUCKET/PREFIX")),
    }
}

/// Whether the store at this URL lies behind a network, where every call waits.
pub(crate) fn is_remote(url: &str) -> bool {
    ["s3://", "gs://", "az://"].iter().any(|scheme| url.starts_with(scheme))
}

/// Every object whose key begins with `prefix`, in one list: for tests, and where a listing is known to be short.
pub fn list_all(store: &dyn Store, prefix: &str) -> Result<Vec<Object>, StoreError> {
    let mut found = Vec::new();
    store.list(prefix, &mut |object| {
        found.push(object);
        Ok(())
    })?;
    Ok(found)
}

/// Whether these bytes lie under a name that was taken: then an earlier try of ours landed. For names that are the hash
/// of the bytes.
pub(crate) fn holds(store: &dyn Store, key: &str, bytes: &Bytes) -> Result<bool, StoreError> {
    match store.get(key) {
        Ok(there) => Ok(there == *bytes),
        // Credentials that may put and not get. Who puts the name first knew the bytes; the size is what can be compared.
        Err(StoreError::Denied { .. }) => {
            Ok(list_all(store, key)?.iter().any(|o| o.key == key && o.size == bytes.len() as u64))
        }
        Err(error) => Err(error),
    }
}

/// Refuses keys outside the format's alphabet, so that no key can leave the store's root.
pub(crate) fn check_key(key: &str, url: &str) -> Result<(), StoreError> {
    let fine = key.len() <= 512
        && key.split('/').all(|part| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        });
    if fine {
        return Ok(());
    }
    Err(StoreError::Invalid {
        key: key.to_owned(),
        url: url.to_owned(),
        reason: "not a key this repository format uses".to_owned(),
    })
}

/// The end of a range, or [`StoreError::Short`] when an object of `size` bytes does not hold it.
pub(crate) fn range_end(key: &str, url: &str, offset: u64, len: usize, size: u64) -> Result<u64, StoreError> {
    let wanted = offset.saturating_add(len as u64);
    if wanted > size {
        return Err(StoreError::Short { key: key.to_owned(), url: url.to_owned(), size, wanted });
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lies_behind_a_network_whoever_keeps_it() {
        let remote = |url| is_remote(url);
        assert!(["s3://b/p", "gs://b/p", "az://c/p"].into_iter().all(remote));
        assert!(!["/srv/backup", "s3", "file:///srv/backup", "mem://x"].into_iter().any(remote));
    }

    #[test]
    fn urls_lead_to_the_right_store_or_say_what_to_write_instead() {
        let options = StoreOptions::default();
        for (url, expected) in [
            ("/srv/backup", Ok("/srv/backup")),
            ("relative/dir", Ok("relative/dir")),
            ("file:///srv/backup", Ok("/srv/backup")),
            ("file://srv/backup", Err("absolute path")),
            ("", Err("is empty")),
            ("mem://x", Err("gone when the command ends")),
            ("gs://Bad Bucket/x", Err("write gs://BUCKET/PREFIX")),
            ("az://container//x", Err("write gs://BUCKET/PREFIX")),
            ("az://container/x", Err("AZURE_STORAGE_ACCOUNT")),
            ("ftp://host/x", Err("unknown kind of store")),
            ("s3://", Err("names no bucket")),
            ("s3://Bad_Bucket!/x", Err("not a bucket name")),
            ("s3://bucket/a//b", Err("empty component")),
            ("s3://bucket/prefix", Err("AWS_ACCESS_KEY_ID")),
        ] {
            match (open(url, &options), expected) {
                (Ok(store), Ok(part)) => assert!(store.url().ends_with(part), "{url}: {}", store.url()),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{url}: {error}"),
                (got, _) => panic!("{url}: {got:?}"),
            }
        }
    }

    #[test]
    fn no_key_leaves_the_root() {
        for key in ["", "/", "/etc/passwd", "a/../b", "..", ".", "a//b", "a/", "a b", "ä", "a\0b", "a\\b"] {
            assert!(check_key(key, "x").is_err(), "{key:?}");
        }
        for key in ["holdfast.json", "packs/ab/abcdef", "a_b-c.d", "...x"] {
            assert!(check_key(key, "x").is_ok(), "{key:?}");
        }
    }

    #[test]
    fn a_store_that_is_opened_with_a_bandwidth_keeps_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let bandwidth = Some(limit::Bandwidth::new(limit::Rates { up: 1, down: 0 }));
        let options = StoreOptions { bandwidth, ..StoreOptions::default() };
        let store = open(folder.path().to_str().unwrap(), &options).unwrap();
        store.put("a", Bytes::from_static(b"hours of bytes, at one a second")).unwrap();
        options.cancel.cancel();
        let waits = store.put("b", Bytes::from_static(b"x")).unwrap_err();
        assert!(waits.to_string().contains("bandwidth"), "{waits}");
    }

    #[test]
    fn options_print_no_secret() {
        let options = StoreOptions {
            s3: S3Options {
                access_key_id: Some("id".into()),
                secret_access_key: Some("verysecret".into()),
                session_token: Some("verysecret".into()),
                ..S3Options::default()
            },
            ..StoreOptions::default()
        };
        assert!(!format!("{options:?}").contains("verysecret"));
    }
}
