//! Versions and locks of an S3 bucket.

use bytes::Bytes;

use super::request::Request;
use super::{S3Store, xml};
use crate::env::{parse_rfc3339, rfc3339};
use crate::store::remote::{Answer, Failure, Kind};
use crate::store::vault::{BucketSays, DefaultLock, Lock, LockMode, Vault, Version};
use crate::store::{Put, Store, StoreError};

/// Every service hands out versions in pages of so many.
const PAGE: &str = "1000";

/// Where a page of versions begins: after this key and version.
type Marker = (String, String);

impl S3Store {
    /// Where a key is in the bucket, as text.
    pub(super) fn place(&self, key: &str) -> Result<String, StoreError> {
        Ok(self.remote.path(key)?.as_ref().to_owned())
    }

    /// A small request that is answered at once.
    pub(super) fn ask(&self, key: &str, request: Request) -> Result<Answer, StoreError> {
        let (signer, silence) = (self.signer.clone(), self.remote.silence);
        self.remote.run(key, async move { signer.send(request, silence).await })
    }

    /// One put of any kind. True: it was created; false: the condition did not hold.
    pub(super) fn put_as(
        &self,
        key: &str,
        bytes: Bytes,
        lock: Option<&Lock>,
        if_absent: bool,
    ) -> Result<bool, StoreError> {
        let limit = self.remote.upload_limit(bytes.len());
        let mut request = Request::new("PUT", self.place(key)?).body(bytes);
        if if_absent {
            request = request.header("if-none-match", "*");
        }
        if let Some(lock) = lock {
            request = request
                .header("x-amz-object-lock-mode", lock.mode.to_string())
                .header("x-amz-object-lock-retain-until-date", rfc3339(lock.until));
        }
        let signer = self.signer.clone();
        self.remote.run(key, async move {
            match signer.send(request, limit).await {
                Ok(_) => Ok(true),
                Err(Failure { kind: Kind::Status(409 | 412), .. }) if if_absent => Ok(false),
                Err(failure) => Err(failure),
            }
        })
    }

    /// Removes every version of a key; the newest first, so that a lock on it stops all.
    pub(super) fn delete_versions(&self, key: &str, versions: Vec<Version>) -> Result<(), StoreError> {
        versions.into_iter().try_for_each(|version| self.delete_version(key, &version.id))
    }

    /// The lock of one version, or of the newest.
    fn lock_of_version(&self, key: &str, id: Option<&str>) -> Result<Option<Lock>, StoreError> {
        let mut request = Request::new("GET", self.place(key)?).query("retention", "");
        if let Some(id) = id {
            request = request.query("versionId", id);
        }
        let answer = match self.ask(key, request) {
            Ok(answer) => answer,
            // No lock at all is an error to the services, each in its own words. An object that is not there
            // is told apart by asking for it.
            Err(StoreError::NotFound { .. } | StoreError::Invalid { .. } | StoreError::Other { .. })
                if id.is_some() || self.remote.size(key).is_ok() =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // A service that does not know the question answers with the object, and with its lock in the headers.
        let said = |element, header: &str| {
            answer.header(header).map(str::to_owned).or_else(|| xml::text(&answer.text(), element))
        };
        let mode = said("Mode", "x-amz-object-lock-mode").filter(|mode| !mode.is_empty());
        let Some(mode) = mode else { return Ok(None) };
        let until = said("RetainUntilDate", "x-amz-object-lock-retain-until-date");
        let until = until.and_then(|date| parse_rfc3339(&date));
        match (mode.parse(), until) {
            (Ok(mode), Some(until)) => Ok(Some(Lock { until, mode })),
            _ => Err(self.remote.strange(key, "a lock without a mode or a date")),
        }
    }

    /// The next page of versions: what it holds, and where the next begins.
    fn page_of_versions(
        &self,
        prefix: &str,
        from: Option<Marker>,
    ) -> Result<(Vec<Version>, Option<Marker>), StoreError> {
        let below = self.remote.below(prefix);
        let mut request = Request::new("GET", String::new())
            .query("versions", "")
            .query("prefix", below)
            .query("max-keys", PAGE);
        if let Some((key, version)) = from {
            request = request.query("key-marker", key);
            if !version.is_empty() {
                request = request.query("version-id-marker", version);
            }
        }
        let answer = match self.ask(prefix, request) {
            Ok(answer) => answer.text(),
            Err(StoreError::NotFound { .. }) => return Err(self.remote.no_place(prefix)),
            Err(error) => return Err(error),
        };
        let mut page = Vec::new();
        for (name, inner) in xml::elements(&answer, &["Version", "DeleteMarker"]) {
            let field = |field| xml::text(inner, field).ok_or_else(|| self.remote.strange(prefix, field));
            let marker = name == "DeleteMarker";
            let Some(key) = self.remote.key_of(&field("Key")?).map(str::to_owned) else { continue };
            let size = if marker {
                0
            } else {
                field("Size")?.parse().map_err(|_| self.remote.strange(&key, "Size"))?
            };
            let modified = parse_rfc3339(&field("LastModified")?);
            page.push(Version {
                id: field("VersionId")?,
                marker,
                latest: field("IsLatest")? == "true",
                size,
                modified: modified.ok_or_else(|| self.remote.strange(&key, "LastModified"))?,
                key,
            });
        }
        let more = xml::text(&answer, "IsTruncated").as_deref() == Some("true");
        let next = match (more, xml::text(&answer, "NextKeyMarker")) {
            (true, Some(key)) => Some((key, xml::text(&answer, "NextVersionIdMarker").unwrap_or_default())),
            (true, None) => {
                return Err(self
                    .remote
                    .strange(prefix, "a page of versions that does not say where to go on"));
            }
            (false, _) => None,
        };
        Ok((page, next))
    }
}

impl Vault for S3Store {
    fn bucket(&self) -> Result<BucketSays, StoreError> {
        let ask = |what| self.ask("", Request::new("GET", String::new()).query(what, ""));
        let versions = match ask("versioning") {
            Ok(answer) => xml::text(&answer.text(), "Status").as_deref() == Some("Enabled"),
            // A service that has never heard of it.
            Err(StoreError::Other { .. } | StoreError::NotFound { .. } | StoreError::NotSupported { .. }) => {
                false
            }
            Err(error) => return Err(error),
        };
        let mut says = BucketSays { versions, ..BucketSays::default() };
        let answer = match ask("object-lock") {
            Ok(answer) => answer.text(),
            Err(StoreError::Other { .. } | StoreError::NotFound { .. } | StoreError::NotSupported { .. }) => {
                return Ok(says);
            }
            Err(error) => return Err(error),
        };
        says.lock = xml::text(&answer, "ObjectLockEnabled").as_deref() == Some("Enabled");
        let number = |name| xml::text(&answer, name).and_then(|text| text.parse::<u64>().ok());
        let mode = xml::text(&answer, "Mode").and_then(|mode| mode.parse::<LockMode>().ok());
        let days = number("Days").or_else(|| number("Years").map(|years| years.saturating_mul(365)));
        if let (Some(mode), Some(days)) = (mode, days) {
            says.default_lock = Some(DefaultLock { mode, days });
        }
        Ok(says)
    }

    fn put_locked(&self, key: &str, bytes: Bytes, lock: &Lock) -> Result<Put, StoreError> {
        self.put_if_absent(key, bytes, Some(lock))
    }

    fn lock_of(&self, key: &str) -> Result<Option<Lock>, StoreError> {
        self.lock_of_version(key, None)
    }

    fn set_lock(&self, key: &str, lock: &Lock) -> Result<(), StoreError> {
        let until = xml::escaped(&rfc3339(lock.until));
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>",
            lock.mode
        );
        let request = Request::new("PUT", self.place(key)?).query("retention", "").body(body.into());
        self.ask(key, request).map(|_| ())
    }

    fn versions(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Version) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut from = None;
        loop {
            let (page, next) = self.page_of_versions(prefix, from.clone())?;
            page.into_iter().try_for_each(&mut *each)?;
            match next {
                // A service that goes round in circles would keep us for ever.
                Some(next) if from.as_ref() == Some(&next) => {
                    return Err(self.remote.strange(prefix, "the next page of versions is this one"));
                }
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn get_version(&self, key: &str, id: &str) -> Result<Bytes, StoreError> {
        let request = Request::new("GET", self.place(key)?).query("versionId", id);
        let (signer, limit) = (self.signer.clone(), self.remote.upload_limit(64 << 20));
        self.remote.run(key, async move { signer.send(request, limit).await }).map(|answer| answer.body)
    }

    fn delete_version(&self, key: &str, id: &str) -> Result<(), StoreError> {
        let request = Request::new("DELETE", self.place(key)?).query("versionId", id);
        match self.ask(key, request) {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error @ StoreError::Unavailable { .. }) => Err(error),
            // "No" has many reasons, and a lock is the one that passes by itself.
            Err(error) => match self.lock_of_version(key, Some(id)) {
                Ok(Some(Lock { until, mode })) => {
                    Err(StoreError::Locked { key: key.to_owned(), url: self.url(), until, mode })
                }
                _ => Err(error),
            },
        }
    }

    fn put_over(&self, key: &str, bytes: Bytes, lock: Option<&Lock>) -> Result<(), StoreError> {
        self.put_as(key, bytes, lock, false).map(|_| ())
    }

    fn hide(&self, key: &str) -> Result<(), StoreError> {
        match self.ask(key, Request::new("DELETE", self.place(key)?)) {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn refuses_damage(&self, key: &str) -> Result<bool, StoreError> {
        let mut request = Request::new("PUT", self.place(key)?).body(Bytes::from_static(b"these bytes"));
        request.checksum = Some([7; 32]);
        match self.ask(key, request) {
            Ok(_) => Ok(false),
            Err(StoreError::Other { .. } | StoreError::Invalid { .. } | StoreError::Denied { .. }) => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}
