//! A repository: made, opened, and asked for its commits and keys.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::chunk::{ChunkBytes, Chunker};
use crate::commit::Sealed;
use crate::crypto::Keys;
use crate::env::{Env, Timestamp, parse_rfc3339, rfc3339};
use crate::error::Error;
use crate::id::{CLAIMS, COMMITS, CommitId, HEADER, KEYS, PackId, RepositoryId, SegmentId};
use crate::immutable::LockPolicy;
use crate::index::{self, Index, Segment};
use crate::keys::{self, Opened};
use crate::lease::{self, Notes};
use crate::local::{Budget, Local, LocalOptions};
use crate::monitor::{Finding, Outcome};
use crate::object::{Capability, CommitInfo, Root};
use crate::pack::Pack;
use crate::secret::{Kdf, Unlock};
use crate::store::probe::{PROBES, Probe, probe};
use crate::store::vault::LockMode;
use crate::store::{Object, Put, Store, StoreError, holds, list_all};
use crate::summaries::Summaries;

/// The highest format version this release reads, and the one it writes.
pub const FORMAT_VERSION: u64 = 1;
const FORMAT_NAME: &str = "holdfast-repository";

/// `holdfast.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u64,
    id: String,
    created: String,
    chunk_bytes: ChunkBytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<LockPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<Probe>,
}

/// What can be chosen when a repository is made.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Chunk sizes; fixed for the life of the repository.
    pub chunk_bytes: ChunkBytes,
    /// How dear a guess at the passphrase is; nothing else that opens a repository can be guessed.
    pub kdf: Kdf,
    /// Label of the first key.
    pub label: String,
    /// How long objects are locked; fixed for the life of the repository.
    pub lock: Option<LockPolicy>,
    /// Cut and name chunks as this repository does, and take its chunk sizes. Then a copy between the two
    /// knows what the other side has without reading it, and what is backed up into either shares chunks with
    /// copies. All other secrets are different. Whoever has a put key of one can tell for the other, too,
    /// whether it has given content, if they see its index.
    pub like: Option<Repository>,
}

impl Default for InitOptions {
    fn default() -> InitOptions {
        InitOptions {
            chunk_bytes: ChunkBytes::default(),
            kdf: Kdf::default(),
            label: "first".into(),
            lock: None,
            like: None,
        }
    }
}

/// An open repository. Clones are the same one.
#[derive(Clone)]
pub struct Repository(Arc<Inner>, Arc<Local>);

struct Inner {
    store: Arc<dyn Store>,
    env: Env,
    id: RepositoryId,
    header: Bytes,
    chunk_bytes: ChunkBytes,
    lock: Option<LockPolicy>,
    probe: Option<Probe>,
    created: Timestamp,
    opened: Opened,
    fetchers: AtomicUsize,
}

/// How many small objects are fetched at a time: over a network the latency is what counts.
const FETCHERS: usize = 8;

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({} at {}, {} key)", self.id(), self.url(), self.capability())
    }
}

impl Repository {
    /// Makes a repository in an empty place, with one read key that `unlock` (a passphrase, a key file, …) opens.
    pub fn init<'k>(
        store: Arc<dyn Store>,
        unlock: impl Into<Unlock<'k>>,
        options: &InitOptions,
        env: &Env,
    ) -> Result<Repository, Error> {
        let chunk_bytes = options.like.as_ref().map_or(options.chunk_bytes, Repository::chunk_bytes);
        chunk_bytes.check().map_err(Error::invalid)?;
        refuse_what_is_there(&*store)?;
        let modes: Vec<LockMode> = options.lock.iter().map(|policy| policy.mode).collect();
        // What R1 and the locks rest on, the store proves once; it is recorded and not asked again.
        let probe = probe(&*store, &modes, env)?;
        let lock = options.lock.map(|policy| policy.settle(&*store, &probe)).transpose()?;
        let store = match &lock {
            None => store,
            Some(policy) => policy.wrap(store, env),
        };
        let claim = if probe.conditional_put { None } else { Some(Claim::make(&*store, env)?) };
        let mut id = RepositoryId::ZERO;
        env.random(&mut id.0)?;
        let header = Header {
            format: FORMAT_NAME.into(),
            version: FORMAT_VERSION,
            id: id.to_string(),
            created: rfc3339(env.now()),
            chunk_bytes,
            lock,
            store: Some(probe),
        };
        let header = to_json(&header)?;
        let keys = match &options.like {
            Some(other) => Keys::generate_like(other.secrets(), env)?,
            None => Keys::generate(env)?,
        };
        // The header last: where it is, the repository is complete.
        let key_id = keys::put(&*store, &keys, unlock.into(), options.kdf, &options.label, &header, env)?;
        if store.put(HEADER, header.clone())? == Put::Exists && store.get(HEADER)? != header {
            // Somebody else was faster. Our key opens nothing of theirs.
            store.delete(&format!("{KEYS}{key_id}"))?;
            return Err(Error::Exists { url: store.url() });
        }
        if let Some(claim) = claim {
            claim.release(&*store)?;
        }
        Repository::assemble(store, env, header, Opened { keys, key_id, note: None })
    }

    /// Opens a repository with the first key that `unlock` (a passphrase, a key file, …) opens, or with the keys that it
    /// is (a bundle).
    pub fn open<'k>(
        store: Arc<dyn Store>,
        unlock: impl Into<Unlock<'k>>,
        env: &Env,
    ) -> Result<Repository, Error> {
        let header = match store.get(HEADER) {
            Ok(header) => header,
            Err(StoreError::NotFound { .. }) => return Err(Error::NoRepository { url: store.url() }),
            Err(error) => return Err(error.into()),
        };
        // Before anything else, so that a newer release can change all the rest.
        check_version(&header, &*store)?;
        let opened = match unlock.into() {
            Unlock::Bundle(bundle) => bundle.opened(&header, parse_header(&header)?.1, &store.url())?,
            unlock => keys::open(&*store, unlock, &header)?,
        };
        Repository::assemble(store, env, header, opened)
    }

    fn assemble(
        store: Arc<dyn Store>,
        env: &Env,
        header: Bytes,
        opened: Opened,
    ) -> Result<Repository, Error> {
        let (parsed, id, created) = parse_header(&header)?;
        let store = match &parsed.lock {
            None => store,
            Some(policy) => policy.wrap(store, env),
        };
        let inner = Inner {
            store,
            env: env.clone(),
            id,
            header,
            chunk_bytes: parsed.chunk_bytes,
            lock: parsed.lock,
            probe: parsed.store,
            created,
            opened,
            fetchers: AtomicUsize::new(FETCHERS),
        };
        Ok(Repository(Arc::new(inner), Arc::new(Local::new(&LocalOptions::default(), id))))
    }

    /// The same repository by another way to its store and another clock: for tests of many at once.
    #[cfg(test)]
    pub(crate) fn elsewhere(&self, store: Arc<dyn Store>, env: &Env) -> Result<Repository, Error> {
        Repository::assemble(store, env, self.0.header.clone(), self.0.opened.clone())
    }

    /// The same repository, with what this machine lends it: a cache between runs, a place for temporary files,
    /// and a bound on memory. Without this call everything is in memory and nothing is kept.
    pub fn with_local(self, options: &LocalOptions) -> Repository {
        let local = Arc::new(Local::new(options, self.id()));
        Repository(self.0, local)
    }

    /// How the memory it may use is divided.
    pub fn budget(&self) -> Budget {
        self.1.budget
    }

    /// How many small objects are fetched at a time. One: every store call follows from the one before, so that a
    /// simulation can repeat them.
    pub fn set_fetchers(&self, fetchers: usize) {
        self.0.fetchers.store(fetchers, Ordering::Relaxed);
    }

    /// How many small objects are fetched at a time.
    pub(crate) fn fetchers(&self) -> usize {
        self.0.fetchers.load(Ordering::Relaxed).max(1)
    }

    pub(crate) fn local(&self) -> &Arc<Local> {
        &self.1
    }

    /// Its name.
    pub fn id(&self) -> RepositoryId {
        self.0.id
    }

    /// What the key it was opened with allows.
    pub fn capability(&self) -> Capability {
        self.0.opened.keys.capability()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.0.store.url()
    }

    /// What it lies in.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Its clock and dice.
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// Its chunk sizes.
    pub fn chunk_bytes(&self) -> ChunkBytes {
        self.0.chunk_bytes
    }

    /// How long its objects are locked, if they are.
    pub fn lock(&self) -> Option<&LockPolicy> {
        self.0.lock.as_ref()
    }

    /// What its store was proved to do when it was made; `None` in a repository older than that proof.
    pub fn probe(&self) -> Option<&Probe> {
        self.0.probe.as_ref()
    }

    /// When it was made.
    pub fn created(&self) -> Timestamp {
        self.0.created
    }

    /// The header's bytes, as it was opened with.
    pub(crate) fn header(&self) -> &Bytes {
        &self.0.header
    }

    /// The name of the key object it was opened with; empty if it was a bundle.
    pub(crate) fn key_id(&self) -> &str {
        &self.0.opened.key_id
    }

    /// What the user should know of the key it was opened with: that a KMS plugin's own key has changed, and what to
    /// do.
    pub fn key_note(&self) -> Option<&str> {
        self.0.opened.note.as_deref()
    }

    pub(crate) fn secrets(&self) -> &Keys {
        &self.0.opened.keys
    }

    /// Its cutter, for callers that cut themselves. Needs the put or the read key.
    pub fn chunker(&self) -> Result<Chunker, Error> {
        Ok(Chunker::new(self.0.chunk_bytes, &*self.0.opened.keys.gear()?))
    }

    /// A digest of bytes that are no part of the repository: the same for the same bytes, and without the repository's keys
    /// nobody can make it, or find out by trying what it is of. Needs the put or the read key.
    ///
    /// # Errors
    /// If the key may only list.
    pub fn digest(&self, bytes: &[u8]) -> Result<crate::id::ChunkId, Error> {
        // No chunk begins with these words by any accident that matters: even then only the names would be equal.
        Ok(self.0.opened.keys.chunk_ids()?.id(&[b"digest of what is no chunk\0", bytes].concat()))
    }

    /// [`Error::NotPermitted`] unless the key allows it.
    pub fn require(&self, needed: Capability) -> Result<(), Error> {
        match (self.capability(), needed) {
            (Capability::Read, _) => Ok(()),
            (held, needed) if held == needed => Ok(()),
            (held, needed) => Err(Error::NotPermitted { needed, held }),
        }
    }

    /// All commits, oldest first. A damaged one is a finding. Reads those this machine has not seen. Needs the list
    /// or the read key.
    pub fn commits(&self) -> Result<Outcome<Vec<CommitInfo>>, Error> {
        self.require(Capability::List)?;
        let listed = self.commit_ids()?;
        let (mut seen, ids) = Summaries::load(&self.1, &self.0.opened.keys, listed);
        let merged = Mutex::new((Outcome::clean(Vec::with_capacity(ids.len())), None));
        let next = AtomicUsize::new(0);
        let fetch = || {
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                let info = self.commit(id);
                let mut merged = merged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let (outcome, failed): &mut (Outcome<Vec<CommitInfo>>, Option<Error>) = &mut merged;
                match info {
                    Ok(info) => outcome.done.push(info),
                    Err(error) if error.is_damage() => {
                        outcome.findings.push(Finding::error("commit-damaged", id.key(), error.to_string()));
                    }
                    Err(error) => {
                        failed.get_or_insert(error);
                        next.store(ids.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        // Over a network the latency of each small object is what counts.
        std::thread::scope(|scope| {
            for _ in 1..self.0.fetchers.load(Ordering::Relaxed).min(ids.len() / 4) {
                scope.spawn(fetch);
            }
            fetch();
        });
        let (mut outcome, failed) = merged.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(error) = failed {
            return Err(error);
        }
        seen.keep(&self.1, &self.0.opened.keys, &outcome.done);
        outcome.done.append(&mut seen.known);
        outcome.done.sort_by_key(|info| (info.summary.time, info.id));
        outcome.findings.sort_by(|a, b| a.what.cmp(&b.what));
        Ok(outcome)
    }

    /// The names of all commits, in no order. Those that were never acknowledged and say so are left out, as far as
    /// the key allows to see it.
    pub fn commit_ids(&self) -> Result<Vec<CommitId>, Error> {
        let mut ids = self.all_commit_ids()?;
        if self.capability() != Capability::Put {
            let voided = lease::voided(self, &Notes::list(self)?)?;
            ids.retain(|id| !voided.contains(id));
        }
        Ok(ids)
    }

    /// The names of all commits in the store.
    pub(crate) fn all_commit_ids(&self) -> Result<Vec<CommitId>, Error> {
        let mut ids = Vec::new();
        self.0.store.list(COMMITS, &mut |object| {
            ids.extend(CommitId::from_key(&object.key));
            Ok(())
        })?;
        Ok(ids)
    }

    /// One commit by its full name.
    pub fn commit(&self, id: &CommitId) -> Result<CommitInfo, Error> {
        let bytes = self.get_promised(&id.key(), "the listing")?;
        let sealed = Sealed::parse(self.secrets(), id, &bytes)?;
        Ok(CommitInfo { id: *id, summary: sealed.summary(self.secrets())? })
    }

    /// The root of a commit's manifest stream. Needs the read key.
    pub fn manifest_root(&self, id: &CommitId) -> Result<Root, Error> {
        let bytes = self.get_promised(&id.key(), "the caller")?;
        Sealed::parse(self.secrets(), id, &bytes)?.manifest(self.secrets())
    }

    /// The commit whose name begins with `wanted`, or the newest for `latest`.
    pub fn find_commit(&self, wanted: &str) -> Result<CommitInfo, Error> {
        let none = || Error::NoSuchCommit { wanted: wanted.into(), url: self.url() };
        if wanted == "latest" {
            let mut commits = self.commits()?;
            return match (commits.done.pop(), commits.findings.pop()) {
                (Some(info), _) => Ok(info),
                (None, Some(finding)) => Err(Error::damaged(finding.what, finding.message)),
                (None, None) => Err(none()),
            };
        }
        self.require(Capability::List)?;
        let prefix = wanted.to_ascii_lowercase();
        let mut fitting = self.commit_ids()?;
        fitting.retain(|id| !prefix.is_empty() && id.to_string().starts_with(&prefix));
        match fitting.as_slice() {
            [] => Err(none()),
            [id] => self.commit(id),
            several => Err(Error::Ambiguous { wanted: wanted.into(), count: several.len() }),
        }
    }

    fn get_promised(&self, key: &str, by: &str) -> Result<Bytes, Error> {
        self.0.store.get(key).map_err(|error| match error {
            StoreError::NotFound { .. } => Error::missing(key, format!("{by} names it")),
            error => error.into(),
        })
    }

    /// Opens the index; fetches of it what this machine does not have. What is wrong with it is in
    /// [`Index::findings`].
    pub fn index(&self) -> Result<Index, Error> {
        Index::open(&self.index_source(), false)
    }

    /// Reads every segment of the index again, whatever this machine has of it.
    pub fn index_verified(&self) -> Result<Index, Error> {
        Index::open(&self.index_source(), true)
    }

    fn index_source(&self) -> index::Source {
        index::Source {
            store: self.0.store.clone(),
            keys: self.0.opened.keys.clone(),
            local: self.1.clone(),
            fetchers: self.0.fetchers.load(Ordering::Relaxed),
        }
    }

    /// One index segment, whole.
    pub fn read_segment(&self, id: &SegmentId) -> Result<Segment, Error> {
        let bytes = self.get_promised(&id.key(), "the listing")?;
        self.open_segment(id, bytes)
    }

    /// One index segment from its bytes.
    pub(crate) fn open_segment(&self, id: &SegmentId, bytes: Bytes) -> Result<Segment, Error> {
        let damaged = |what: String| Error::damaged(id.key(), what);
        if *blake3::hash(&bytes).as_bytes() != id.0 {
            return Err(damaged("its bytes do not hash to its name".into()));
        }
        let mut bytes = Vec::from(bytes);
        let body = self.0.opened.keys.open_segment(&mut bytes).map_err(damaged)?;
        Segment::decode(body).map_err(damaged)
    }

    /// One pack, whole, its name checked and its directory opened. Any key will do.
    pub fn read_pack(&self, id: &PackId) -> Result<Pack, Error> {
        let bytes = self.get_promised(&id.key(), "the index or the listing")?;
        Pack::parse(&self.0.opened.keys, id, bytes).map_err(|what| Error::damaged(id.key(), what))
    }

    /// Writes an object that is named by its content. An object that is there already must be the same: an
    /// earlier try of ours that landed.
    pub(crate) fn put_content(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        if self.0.store.put(key, bytes.clone())? == Put::Created || holds(&*self.0.store, key, &bytes)? {
            return Ok(());
        }
        Err(Error::damaged(key, "an object of this name is there, and its bytes are others"))
    }
}

fn refuse_what_is_there(store: &dyn Store) -> Result<(), Error> {
    match store.size(HEADER) {
        Ok(_) => return Err(Error::Exists { url: store.url() }),
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let mut found: Option<Object> = None;
    let stop = || StoreError::Other { key: String::new(), url: String::new(), reason: String::new() };
    let listed = store.list("", &mut |object| {
        // What an earlier try had to leave.
        if object.key.starts_with(PROBES) || object.key.starts_with(CLAIMS) {
            return Ok(());
        }
        found = Some(object);
        // One is enough: a bucket may hold millions.
        Err(stop())
    });
    match (found, listed) {
        (Some(object), _) => Err(Error::NotEmpty { url: store.url(), found: object.key }),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => Ok(()),
    }
}

fn check_version(header: &[u8], store: &dyn Store) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Versioned {
        format: String,
        version: u64,
    }
    let versioned: Versioned = serde_json::from_slice(header)
        .map_err(|error| Error::damaged(HEADER, format!("it does not parse: {error}")))?;
    if versioned.format != FORMAT_NAME || versioned.version == 0 {
        return Err(Error::damaged(HEADER, "it is not the header of a repository"));
    }
    if versioned.version > FORMAT_VERSION {
        let (url, version) = (store.url(), versioned.version);
        return Err(Error::NewerFormat { url, version, known: FORMAT_VERSION });
    }
    Ok(())
}

/// Whoever makes a repository where puts are not conditional says so first, under a name of its own, and goes on only if
/// nobody else does: two who begin at once both see the other and both give up. Who comes later finds the header.
struct Claim(String);

impl Claim {
    fn make(store: &dyn Store, env: &Env) -> Result<Claim, Error> {
        let mut salt = [0; 8];
        env.random(&mut salt)?;
        let claim = Claim(format!("{CLAIMS}{}", HEXLOWER.encode(&salt)));
        store.put(&claim.0, Bytes::from_static(b"{}"))?;
        let other = list_all(store, CLAIMS)?.into_iter().find(|object| object.key != claim.0);
        // After the claims: who has finished meanwhile put the header before it took its claim away.
        let taken = store.size(HEADER).is_ok();
        if let Some(other) = other.filter(|_| !taken) {
            claim.release(store)?;
            return Err(Error::invalid(format!(
                "somebody else makes a repository at {} right now, or was interrupted: try again, and if nobody does, remove {} first",
                store.url(),
                other.key
            )));
        }
        if taken {
            claim.release(store)?;
            return Err(Error::Exists { url: store.url() });
        }
        Ok(claim)
    }

    fn release(&self, store: &dyn Store) -> Result<(), Error> {
        Ok(store.delete(&self.0)?)
    }
}

fn parse_header(header: &[u8]) -> Result<(Header, RepositoryId, Timestamp), Error> {
    let parsed: Header = serde_json::from_slice(header)
        .map_err(|error| Error::damaged(HEADER, format!("it does not parse: {error}")))?;
    let id = parsed.id.parse().map_err(|_| Error::damaged(HEADER, "its id is not 32 hex digits"))?;
    parsed.chunk_bytes.check().map_err(|what| Error::damaged(HEADER, what))?;
    if let Some(policy) = &parsed.lock {
        policy.check().map_err(|what| Error::damaged(HEADER, what))?;
    }
    let created = parse_rfc3339(&parsed.created)
        .ok_or_else(|| Error::damaged(HEADER, "its time of creation is no time"))?;
    Ok((parsed, id, created))
}

/// What the fuzzer asks: a header read and written again.
pub(crate) fn recode_header(header: &[u8]) -> Result<Vec<u8>, Error> {
    check_version(header, &crate::store::mem::MemStore::new())?;
    to_json(&parse_header(header)?.0).map(|bytes| bytes.to_vec())
}

fn to_json(value: &impl Serialize) -> Result<Bytes, Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::failed(format!("JSON: {error}")))?;
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Passphrase;
    use crate::store::mem::MemStore;

    fn cheap() -> InitOptions {
        InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() }
    }

    fn init(store: &MemStore) -> Result<Repository, Error> {
        Repository::init(Arc::new(store.clone()), &Passphrase::new("first"), &cheap(), &Env::fixed(1, 1))
    }

    fn open(store: &MemStore, passphrase: &str) -> Result<Repository, Error> {
        Repository::open(Arc::new(store.clone()), &Passphrase::new(passphrase), &Env::fixed(2, 2))
    }

    #[test]
    fn a_repository_is_made_once_in_an_empty_place() {
        let store = MemStore::new();
        assert!(matches!(open(&store, "first"), Err(Error::NoRepository { .. })));
        let made = init(&store).unwrap();
        assert_eq!(open(&store, "first").unwrap().id(), made.id());
        assert!(matches!(init(&store), Err(Error::Exists { .. })));
        let other = MemStore::new();
        other.put("photos/cat.jpg", Bytes::from_static(b"meow")).unwrap();
        assert!(matches!(init(&other), Err(Error::NotEmpty { found, .. }) if found == "photos/cat.jpg"));
        assert_eq!(other.snapshot().len(), 1, "nothing was written beside it");
    }

    #[test]
    fn a_wrong_passphrase_a_later_format_and_no_header_are_told_apart() {
        let store = MemStore::new();
        init(&store).unwrap();
        assert!(matches!(open(&store, "second"), Err(Error::WrongKey { tried: 1, .. })));
        let header = store.get(HEADER).unwrap();
        let text = String::from_utf8(header.to_vec()).unwrap();
        let later = text.replace("\"version\":1", "\"version\":2,\"news\":[]");
        store.tamper(HEADER, Some(later.into()));
        assert!(matches!(open(&store, "first"), Err(Error::NewerFormat { version: 2, .. })));
        for broken in ["{", "[]", "{\"format\":\"x\",\"version\":1}", "", "\u{0}"] {
            store.tamper(HEADER, Some(broken.to_string().into()));
            assert!(matches!(open(&store, "first"), Err(Error::Damaged { .. })), "{broken:?}");
        }
        // R4: a header that still parses and says something else opens no key.
        store.tamper(HEADER, Some(text.replace("32768", "65536").into()));
        assert!(matches!(open(&store, "first"), Err(Error::WrongKey { .. })));
        store.tamper(HEADER, Some(header));
        open(&store, "first").unwrap();
    }

    proptest! {
        #[test]
        fn hostile_headers_are_refused(text in "\\PC{0,200}", version: u64) {
            let store = MemStore::new();
            prop_assert!(check_version(text.as_bytes(), &store).is_err());
            let named = format!("{{\"format\":\"{FORMAT_NAME}\",\"version\":{version}}}");
            prop_assert_eq!(check_version(named.as_bytes(), &store).is_ok(), version == FORMAT_VERSION);
        }
    }
}
