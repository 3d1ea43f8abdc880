//! The few verbs asked of a place that holds objects.
//!
//! A store keeps whole, immutable objects under keys such as `packs/ab/ab…`. It promises R1: a put creates
//! the whole object or reports that one is there, and never replaces. Nothing else is asked, so a WORM
//! bucket will do.

use std::sync::Arc;

use bytes::Bytes;

pub mod mem;

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there now, whole and durable.
    Created,
    /// An object of this key was there before; it was not touched.
    Exists,
}

/// One object met in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A place that holds objects.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Creates the object, whole and durable or not at all; never replaces one.
    fn put(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError>;
    /// The whole object.
    fn get(&self, key: &str) -> Result<Bytes, StoreError>;
    /// Exactly `len` bytes from `offset`, or an error.
    fn get_range(&self, key: &str, offset: u64, len: usize) -> Result<Bytes, StoreError>;
    /// The object's size.
    fn size(&self, key: &str) -> Result<u64, StoreError>;
    /// Calls `each` for every object whose key starts with `prefix`, in no promised order. `prefix` is
    /// empty or ends with `/`. An error from `each` ends the listing and is returned.
    fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;
    /// Deletes the object; it is no error if it is not there.
    fn delete(&self, key: &str) -> Result<(), StoreError>;
    /// Where this is, for messages; never contains a secret.
    fn url(&self) -> String;
}

/// Why a store call failed. Every variant names the key (empty if the whole place is meant) and the place.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No such object.
    #[error("{url} has no object {key:?}")]
    NotFound {
        /// Which object.
        key: String,
        /// Where.
        url: String,
    },
    /// The credentials do not allow it.
    #[error("{url} refused access to {key:?}: {reason}; check the credentials and their policy")]
    Denied {
        /// Which object.
        key: String,
        /// Where.
        url: String,
        /// What the store said.
        reason: String,
    },
    /// No space, quota used up, or read-only.
    #[error("{url} cannot take {key:?}: {reason}; make space, or choose another place")]
    Full {
        /// Which object.
        key: String,
        /// Where.
        url: String,
        /// What the store said.
        reason: String,
    },
    /// Unreachable or busy; worth a retry.
    #[error("{url} is not reachable for {key:?}: {reason}")]
    Unavailable {
        /// Which object.
        key: String,
        /// Where.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The place itself is not usable: a bad URL, not a folder, an unknown scheme.
    #[error("{url} cannot be used: {reason}")]
    Invalid {
        /// Which object, if one is meant.
        key: String,
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// Anything else.
    #[error("{url} failed on {key:?}: {reason}")]
    Other {
        /// Which object.
        key: String,
        /// Where.
        url: String,
        /// What went wrong.
        reason: String,
    },
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
}
