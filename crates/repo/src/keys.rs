//! Key objects: what stands between what a user holds and the secrets of the repository.
//!
//! `keys/<id>` is one bundle of secrets under one wrapping key. What the wrapping key is made of (a passphrase, a
//! key file, the recovery key, a KMS plugin) is the only thing that adding, removing and rotating keys changes: no
//! data is touched (R5). A key object is never changed either; rotation makes a new one, opens it once, and only
//! then deletes the old.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::{Keys, hkdf};
use crate::env::{Env, rfc3339};
use crate::error::Error;
use crate::id::KEYS;
use crate::monitor::{Finding, Outcome};
use crate::object::Capability;
use crate::repo::Repository;
use crate::secret::{Kdf, KeyWrap, RecoveryKey, Unlock, WrapError, WrappedKey};
use crate::store::{Put, Store, StoreError};

/// `keys/<id>`
#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeyObject {
    version: u64,
    capability: String,
    label: String,
    created: String,
    kdf: Lock,
    nonce: String,
    bundle: String,
}

/// What the wrapping key is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "name")]
enum Lock {
    #[serde(rename = "argon2id")]
    Passphrase { memory_kib: u32, passes: u32, lanes: u32, salt: String },
    #[serde(rename = "key-file")]
    KeyFile { salt: String },
    #[serde(rename = "recovery-key")]
    RecoveryKey { salt: String },
    #[serde(rename = "kms-v2")]
    Kms { salt: String, key_id: String, wrapped: String, annotations: BTreeMap<String, String> },
    /// Of a later release.
    #[serde(other)]
    Unknown,
}

/// What opens a key object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// A passphrase.
    Passphrase,
    /// A key file.
    KeyFile,
    /// The recovery key.
    RecoveryKey,
    /// A KMS plugin.
    Kms,
    /// Something a later release knows.
    Unknown,
}

impl KeyKind {
    /// The kind of key that this opens.
    pub fn of(unlock: Unlock<'_>) -> KeyKind {
        match unlock {
            Unlock::Passphrase(_) => KeyKind::Passphrase,
            Unlock::KeyFile(_) => KeyKind::KeyFile,
            Unlock::RecoveryKey(_) => KeyKind::RecoveryKey,
            Unlock::Plugin(_) => KeyKind::Kms,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            KeyKind::Passphrase => "passphrase",
            KeyKind::KeyFile => "key file",
            KeyKind::RecoveryKey => "recovery key",
            KeyKind::Kms => "KMS plugin",
            KeyKind::Unknown => "unknown",
        })
    }
}

/// A key object as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Its name in `keys/`.
    pub id: String,
    /// What opens it.
    pub kind: KeyKind,
    /// What it allows.
    pub capability: Capability,
    /// What its maker called it.
    pub label: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Which of its keys the plugin used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// Whether this repository was opened with it.
    pub current: bool,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// The key object that was.
    pub old: String,
    /// The one that is.
    pub new: String,
    /// Why the old one is still there: a bucket may have it locked for a while. It opens until it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_stays: Option<String>,
}

/// The key object a repository was opened with.
#[derive(Clone)]
pub(crate) struct Opened {
    pub keys: Keys,
    pub key_id: String,
    /// What the user should know of it.
    pub note: Option<String>,
}

impl Lock {
    fn kind(&self) -> KeyKind {
        match self {
            Lock::Passphrase { .. } => KeyKind::Passphrase,
            Lock::KeyFile { .. } => KeyKind::KeyFile,
            Lock::RecoveryKey { .. } => KeyKind::RecoveryKey,
            Lock::Kms { .. } => KeyKind::Kms,
            Lock::Unknown => KeyKind::Unknown,
        }
    }

    /// A fresh one that `unlock` opens, and the wrapping key it makes.
    fn new(unlock: Unlock<'_>, kdf: Kdf, env: &Env) -> Result<(Lock, Zeroizing<[u8; 32]>), Error> {
        let mut salt = [0; 32];
        env.random(&mut salt)?;
        let text = HEXLOWER.encode(&salt);
        Ok(match unlock {
            Unlock::Passphrase(words) if words.is_empty() => {
                return Err(Error::invalid("the passphrase is empty; a repository has no default password"));
            }
            Unlock::Passphrase(words) => {
                let Kdf { memory_kib, passes, lanes } = kdf;
                let key = kdf.derive(words, &salt).map_err(Error::failed)?;
                (Lock::Passphrase { memory_kib, passes, lanes, salt: text }, key)
            }
            Unlock::KeyFile(file) => (Lock::KeyFile { salt: text }, hkdf(&salt, file.bytes(), "key file")?),
            Unlock::RecoveryKey(key) => {
                (Lock::RecoveryKey { salt: text }, hkdf(&salt, key.bytes(), "recovery key")?)
            }
            Unlock::Plugin(plugin) => {
                let mut local = Zeroizing::new([0; 32]);
                env.random(local.as_mut_slice())?;
                let wrapped = wrap_checked(plugin, &local)?;
                let lock = Lock::Kms {
                    salt: text,
                    key_id: wrapped.key_id,
                    wrapped: HEXLOWER.encode(&wrapped.ciphertext),
                    annotations: wrapped
                        .annotations
                        .into_iter()
                        .map(|(name, value)| (name, HEXLOWER.encode(&value)))
                        .collect(),
                };
                (lock, hkdf(&salt, local.as_slice(), "kms")?)
            }
        })
    }

    /// The wrapping key; `None` if this is of another kind than `unlock`.
    fn open(&self, unlock: Unlock<'_>) -> Result<Option<Zeroizing<[u8; 32]>>, KeyProblem> {
        let failed = |error: Error| KeyProblem::Damaged(error.to_string());
        Ok(Some(match (self, unlock) {
            (Lock::Passphrase { memory_kib, passes, lanes, salt }, Unlock::Passphrase(words)) => {
                let kdf = Kdf { memory_kib: *memory_kib, passes: *passes, lanes: *lanes };
                kdf.derive(words, &salt_bytes(salt)?)?
            }
            (Lock::KeyFile { salt }, Unlock::KeyFile(file)) => {
                hkdf(&salt_bytes(salt)?, file.bytes(), "key file").map_err(failed)?
            }
            (Lock::RecoveryKey { salt }, Unlock::RecoveryKey(key)) => {
                hkdf(&salt_bytes(salt)?, key.bytes(), "recovery key").map_err(failed)?
            }
            (Lock::Kms { salt, .. }, Unlock::Plugin(plugin)) => {
                let local = match plugin.unwrap(&self.wrapped()?) {
                    Ok(local) => local,
                    Err(WrapError::Refused(what)) => return Err(KeyProblem::Refused(what)),
                    Err(WrapError::Unavailable(what)) => {
                        return Err(KeyProblem::Failed(Error::KeyPlugin { plugin: plugin.name(), what }));
                    }
                };
                hkdf(&salt_bytes(salt)?, &local, "kms").map_err(failed)?
            }
            _ => return Ok(None),
        }))
    }

    /// What the plugin is to undo.
    fn wrapped(&self) -> Result<WrappedKey, String> {
        let Lock::Kms { key_id, wrapped, annotations, .. } = self else {
            return Err("it is not under a KMS plugin".into());
        };
        let annotations = annotations.iter().map(|(name, value)| Ok((name.clone(), hex(value)?)));
        let wrapped = WrappedKey {
            key_id: key_id.clone(),
            ciphertext: hex(wrapped)?,
            annotations: annotations.collect::<Result<_, String>>()?,
        };
        wrapped.check()?;
        Ok(wrapped)
    }

    /// What the user should know of the key that was opened.
    fn note(&self, unlock: Unlock<'_>) -> Option<String> {
        let (Lock::Kms { key_id, .. }, Unlock::Plugin(plugin)) = (self, unlock) else { return None };
        match plugin.key_id() {
            Ok(now) if now == *key_id => None,
            Ok(now) => Some(format!(
                "the KMS plugin now encrypts with key {now:?}, and this repository's key is under {key_id:?}; run `holdfast repo key rotate` before the old one is retired"
            )),
            // It has just decrypted: what a restore needs is there.
            Err(error) => Some(format!("the KMS plugin decrypts, and reports trouble: {error}")),
        }
    }
}

/// Has the plugin encrypt the local key, and decrypt it again: what it could not undo must not be stored.
fn wrap_checked(plugin: &dyn KeyWrap, local: &[u8; 32]) -> Result<WrappedKey, Error> {
    let failed = |what: String| Error::KeyPlugin { plugin: plugin.name(), what };
    plugin.key_id().map_err(|error| failed(error.to_string()))?;
    let wrapped = plugin.wrap(local).map_err(|error| failed(error.to_string()))?;
    wrapped.check().map_err(|what| failed(format!("it answered with {what}")))?;
    let back = plugin.unwrap(&wrapped).map_err(|error| failed(error.to_string()))?;
    if *back != local.as_slice() {
        return Err(failed("it decrypts something else than it encrypted".into()));
    }
    Ok(wrapped)
}

enum KeyProblem {
    Damaged(String),
    /// The plugin will not decrypt it.
    Refused(String),
    Failed(Error),
}

impl From<String> for KeyProblem {
    fn from(what: String) -> KeyProblem {
        KeyProblem::Damaged(what)
    }
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    HEXLOWER.decode(text.as_bytes()).map_err(|_| "broken hexadecimal".to_string())
}

fn salt_bytes(text: &str) -> Result<[u8; 32], String> {
    hex(text)?.try_into().map_err(|_| "a salt that is not 32 bytes".to_string())
}

fn key_name(bytes: &[u8]) -> String {
    HEXLOWER.encode(&blake3::hash(bytes).as_bytes()[..16])
}

fn key_ids(store: &dyn Store) -> Result<Vec<String>, Error> {
    let mut ids = Vec::new();
    store.list(KEYS, &mut |object| {
        ids.extend(object.key.strip_prefix(KEYS).map(String::from));
        Ok(())
    })?;
    ids.sort();
    Ok(ids)
}

fn read_key(store: &dyn Store, id: &str) -> Result<(KeyObject, Capability), KeyProblem> {
    let bytes = store.get(&format!("{KEYS}{id}")).map_err(|error| match error {
        StoreError::NotFound { .. } => KeyProblem::Damaged("it was listed and is gone".into()),
        error => KeyProblem::Failed(error.into()),
    })?;
    parse_key(id, &bytes).map_err(KeyProblem::Damaged)
}

fn parse_key(id: &str, bytes: &[u8]) -> Result<(KeyObject, Capability), String> {
    if key_name(bytes) != id {
        return Err("its bytes do not hash to its name".into());
    }
    let object: KeyObject =
        serde_json::from_slice(bytes).map_err(|error| format!("it does not parse: {error}"))?;
    if object.version != 1 {
        return Err(format!("version {}, which this release does not know", object.version));
    }
    let capability = object.capability.parse()?;
    Ok((object, capability))
}

/// Whether these bytes belong to a key object of this name.
pub(crate) fn key_id_fits(id: &str, bytes: &[u8]) -> bool {
    key_name(bytes) == id
}

/// Whether `unlock` opens this key object together with this header.
pub(crate) fn opens(header: &[u8], key: &[u8], unlock: Unlock<'_>) -> bool {
    parse_key(&key_name(key), key)
        .map_err(KeyProblem::Damaged)
        .and_then(|(object, capability)| object.open(capability, unlock, header))
        .is_ok_and(|keys| keys.is_some())
}

/// What the fuzzer asks: a key object read, everything that is opened later read too, and written again.
pub(crate) fn recode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (object, _) = parse_key(&key_name(bytes), bytes)?;
    hex(&object.nonce)?;
    hex(&object.bundle)?;
    match &object.kdf {
        Lock::Passphrase { salt, .. } | Lock::KeyFile { salt } | Lock::RecoveryKey { salt } => {
            salt_bytes(salt)?;
        }
        Lock::Kms { salt, .. } => {
            salt_bytes(salt)?;
            object.kdf.wrapped()?;
        }
        Lock::Unknown => return Err("of a later release".into()),
    }
    serde_json::to_vec(&object).map_err(|error| error.to_string())
}

/// The key under which a key object of these bytes lies.
pub(crate) fn name_of(bytes: &[u8]) -> String {
    format!("{KEYS}{}", key_name(bytes))
}

impl KeyObject {
    /// Opens it; `None` if `unlock` is of another kind or not the one.
    fn open(
        &self,
        capability: Capability,
        unlock: Unlock<'_>,
        header: &[u8],
    ) -> Result<Option<Keys>, KeyProblem> {
        let nonce = hex(&self.nonce)?.try_into().map_err(|_| "a nonce that is not 12 bytes".to_string())?;
        let bundle = hex(&self.bundle)?;
        match self.kdf.open(unlock)? {
            Some(key) => Ok(Keys::unwrap(&key, nonce, &bundle, capability, header)?),
            None => Ok(None),
        }
    }
}

/// Puts a new key object around `keys` and returns its name.
pub(crate) fn put(
    store: &dyn Store,
    keys: &Keys,
    unlock: Unlock<'_>,
    kdf: Kdf,
    label: &str,
    header: &[u8],
    env: &Env,
) -> Result<String, Error> {
    let (lock, key) = Lock::new(unlock, kdf, env)?;
    let mut nonce = [0; 12];
    env.random(&mut nonce)?;
    let object = KeyObject {
        version: 1,
        capability: keys.capability().to_string(),
        label: label.into(),
        created: rfc3339(env.now()),
        kdf: lock,
        nonce: HEXLOWER.encode(&nonce),
        bundle: HEXLOWER.encode(&keys.wrap(&key, nonce, header)?),
    };
    let bytes =
        serde_json::to_vec(&object).map_err(|error| Error::failed(format!("a key object: {error}")))?;
    let id = key_name(&bytes);
    let name = format!("{KEYS}{id}");
    let bytes = Bytes::from(bytes);
    if store.put(&name, bytes.clone())? == Put::Exists && store.get(&name)? != bytes {
        return Err(Error::damaged(name, "an object of this name is there, and its bytes are others"));
    }
    Ok(id)
}

/// The first key object that `unlock` opens.
pub(crate) fn open(store: &dyn Store, unlock: Unlock<'_>, header: &[u8]) -> Result<Opened, Error> {
    let kind = KeyKind::of(unlock);
    let (mut tried, mut problems) = (0, Vec::new());
    let mut others: BTreeMap<KeyKind, usize> = BTreeMap::new();
    for key_id in key_ids(store)? {
        let opened = read_key(store, &key_id).and_then(|(object, capability)| {
            if object.kdf.kind() != kind {
                *others.entry(object.kdf.kind()).or_default() += 1;
                return Ok(None);
            }
            tried += 1;
            let keys = object.open(capability, unlock, header)?;
            Ok(keys.map(|keys| (keys, object.kdf.note(unlock))))
        });
        match opened {
            Ok(Some((keys, note))) => return Ok(Opened { keys, key_id, note }),
            Ok(None) => {}
            Err(KeyProblem::Damaged(what)) => problems.push(format!("{KEYS}{key_id} is damaged: {what}")),
            Err(KeyProblem::Refused(what)) => problems.push(format!("{KEYS}{key_id}: {what}")),
            Err(KeyProblem::Failed(error)) => return Err(error),
        }
    }
    if tried == 0 && problems.is_empty() && others.is_empty() {
        problems.push("it has no key at all, so nobody can open it".into());
    } else if !others.is_empty() {
        let counts: Vec<String> = others.iter().map(|(kind, count)| format!("{count} by {kind}")).collect();
        problems.push(format!("other keys were not tried: {}", counts.join(", ")));
    }
    let note = problems.iter().map(|problem| format!("; {problem}")).collect();
    Err(Error::WrongKey { url: store.url(), given: kind, tried, note })
}

impl Repository {
    /// The key objects. A damaged one is a finding.
    pub fn keys(&self) -> Result<Outcome<Vec<KeyInfo>>, Error> {
        let mut outcome = Outcome::clean(Vec::new());
        for id in self.key_ids()? {
            match read_key(&**self.store(), &id) {
                Ok((object, capability)) => outcome.done.push(KeyInfo {
                    current: id == self.key_id(),
                    id,
                    kind: object.kdf.kind(),
                    capability,
                    label: object.label,
                    created: object.created,
                    kms_key_id: match object.kdf {
                        Lock::Kms { key_id, .. } => Some(key_id),
                        _ => None,
                    },
                }),
                Err(KeyProblem::Damaged(what) | KeyProblem::Refused(what)) => {
                    outcome.findings.push(Finding::error(
                        "key-damaged",
                        format!("{KEYS}{id}"),
                        format!("{what}; what was to open it opens nothing"),
                    ));
                }
                Err(KeyProblem::Failed(error)) => return Err(error),
            }
        }
        outcome.done.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        Ok(outcome)
    }

    /// The names of all key objects, damaged ones included.
    pub fn key_ids(&self) -> Result<Vec<String>, Error> {
        key_ids(&**self.store())
    }

    /// Adds a key for what this one allows, or for less; no data is touched (R5). `kdf` counts for passphrases only.
    /// Returns its name.
    pub fn add_key<'k>(
        &self,
        unlock: impl Into<Unlock<'k>>,
        capability: Capability,
        label: &str,
        kdf: Kdf,
    ) -> Result<String, Error> {
        self.put_checked(&self.secrets().restrict(capability)?, unlock.into(), kdf, label)
    }

    /// Adds a recovery key: a read key for paper. Returns its name and the key, which is nowhere else.
    pub fn add_recovery_key(&self, label: &str) -> Result<(String, RecoveryKey), Error> {
        let key = RecoveryKey::generate(self.env())?;
        Ok((self.add_key(&key, Capability::Read, label, Kdf::default())?, key))
    }

    /// Puts the key object `id` under something else to open it with, for the same capability and with the same label:
    /// a new key object, opened once to see that it works, and then the old one is deleted, if the store allows that. No
    /// data is touched (R5).
    pub fn rotate_key<'k>(
        &self,
        id: &str,
        unlock: impl Into<Unlock<'k>>,
        kdf: Kdf,
    ) -> Result<Rotated, Error> {
        let (object, capability) = match read_key(&**self.store(), id) {
            Ok(read) => read,
            Err(KeyProblem::Damaged(what) | KeyProblem::Refused(what)) => {
                return Err(Error::damaged(format!("{KEYS}{id}"), what));
            }
            Err(KeyProblem::Failed(error)) => return Err(error),
        };
        let keys = self.secrets().restrict(capability)?;
        let new = self.put_checked(&keys, unlock.into(), kdf, &object.label)?;
        let old_stays = self.store().delete(&format!("{KEYS}{id}")).err().map(|error| error.to_string());
        Ok(Rotated { old: id.into(), new, old_stays })
    }

    /// Removes a key object by its name. Neither the key this repository was opened with goes, nor the last one that
    /// could read: whoever removes that loses the repository.
    pub fn remove_key(&self, id: &str) -> Result<(), Error> {
        if id == self.key_id() {
            return Err(Error::invalid(
                "this is the key in use; open the repository with another key to remove it",
            ));
        }
        if !self.key_ids()?.iter().any(|known| known == id) {
            return Err(Error::missing(format!("{KEYS}{id}"), "there is no key of this name"));
        }
        let keys = self.keys()?.done;
        let reads = |key: &&KeyInfo| key.capability == Capability::Read;
        let known = keys.iter().find(|key| key.id == id);
        if known.is_none_or(|key| reads(&key)) && !keys.iter().filter(reads).any(|key| key.id != id) {
            return Err(Error::invalid(
                "this is the last key that can read: without it nothing could ever be restored; add another read key first",
            ));
        }
        Ok(self.store().delete(&format!("{KEYS}{id}"))?)
    }

    /// A new key object, opened again from the store before anybody relies on it.
    fn put_checked(&self, keys: &Keys, unlock: Unlock<'_>, kdf: Kdf, label: &str) -> Result<String, Error> {
        let store = &**self.store();
        let id = put(store, keys, unlock, kdf, label, self.header(), self.env())?;
        let opened = read_key(store, &id)
            .and_then(|(object, capability)| object.open(capability, unlock, self.header()));
        let what = match opened {
            Ok(Some(_)) => return Ok(id),
            Ok(None) => "the new key object does not open".to_string(),
            Err(KeyProblem::Damaged(what) | KeyProblem::Refused(what)) => what,
            Err(KeyProblem::Failed(error)) => return Err(error),
        };
        Err(Error::damaged(format!("{KEYS}{id}"), what))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;
    use crate::immutable::LockPolicy;
    use crate::repo::InitOptions;
    use crate::secret::{KeyFile, Passphrase};
    use crate::store::mem::MemStore;
    use crate::store::vault::LockMode;
    use crate::store::versioned::{Flaws, VersionedStore};

    fn cheap() -> InitOptions {
        InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() }
    }

    fn init(store: &MemStore) -> Result<Repository, Error> {
        Repository::init(Arc::new(store.clone()), &Passphrase::new("first"), &cheap(), &Env::fixed(1, 1))
    }

    fn open(store: &MemStore, passphrase: &str) -> Result<Repository, Error> {
        open_with(store, &Passphrase::new(passphrase))
    }

    fn open_with<'k>(store: &MemStore, unlock: impl Into<Unlock<'k>>) -> Result<Repository, Error> {
        Repository::open(Arc::new(store.clone()), unlock, &Env::fixed(2, 2))
    }

    #[test]
    fn r5_keys_are_added_for_what_they_may_and_removed_again() {
        let store = MemStore::new();
        let repo = init(&store).unwrap();
        let before = store.snapshot();
        repo.add_key(&Passphrase::new("agent"), Capability::Put, "agent", Kdf::cheap()).unwrap();
        let list =
            repo.add_key(&Passphrase::new("operator"), Capability::List, "operator", Kdf::cheap()).unwrap();
        for (key, bytes) in before {
            assert_eq!(store.get(&key).unwrap(), bytes, "rotation rewraps and touches nothing else");
        }
        let agent = open(&store, "agent").unwrap();
        assert_eq!((agent.capability(), agent.id()), (Capability::Put, repo.id()));
        assert!(matches!(agent.commits(), Err(Error::NotPermitted { .. })));
        assert!(matches!(agent.reader(Default::default()), Err(Error::NotPermitted { .. })));
        assert!(agent.writer(Default::default()).is_ok());
        let refused = agent.add_key(&Passphrase::new("x"), Capability::Read, "x", Kdf::cheap());
        assert!(matches!(refused, Err(Error::NotPermitted { .. })));
        let operator = open(&store, "operator").unwrap();
        assert_eq!(operator.commits().unwrap(), Outcome::clean(vec![]));
        assert!(matches!(operator.writer(Default::default()), Err(Error::NotPermitted { .. })));

        let listed = repo.keys().unwrap();
        let words: Vec<_> = listed.done.iter().map(|key| (key.capability, key.current)).collect();
        assert_eq!((words.len(), listed.findings.len()), (3, 0));
        assert!(words.contains(&(Capability::Read, true)) && words.contains(&(Capability::Put, false)));
        repo.remove_key(&list).unwrap();
        assert!(matches!(open(&store, "operator"), Err(Error::WrongKey { tried: 2, .. })));
        assert!(repo.remove_key(&list).is_err());
        let own = listed.done.iter().find(|key| key.current).unwrap();
        assert!(matches!(repo.remove_key(&own.id), Err(Error::Invalid { .. })));
    }

    #[test]
    fn a_damaged_key_is_told_and_the_others_still_open() {
        let store = MemStore::new();
        let repo = init(&store).unwrap();
        let second =
            repo.add_key(&Passphrase::new("second"), Capability::Read, "second", Kdf::cheap()).unwrap();
        let key = format!("{KEYS}{second}");
        let mut bytes = store.get(&key).unwrap().to_vec();
        bytes[30] ^= 1;
        store.tamper(&key, Some(bytes.into()));
        assert!(open(&store, "first").is_ok());
        let refused = open(&store, "second").unwrap_err();
        assert!(refused.to_string().contains(&key), "{refused}");
        assert_eq!(repo.keys().unwrap().findings.len(), 1);
    }

    /// A plugin in memory: "encrypts" by xor with a key named after its generation.
    #[derive(Default)]
    struct Plugin {
        generation: AtomicU32,
        oldest: AtomicU32,
        down: Mutex<Option<&'static str>>,
        forgets: bool,
    }

    impl Plugin {
        fn apply(generation: u32, bytes: &[u8]) -> Vec<u8> {
            bytes.iter().map(|byte| byte ^ (0x50 + generation as u8)).collect()
        }

        fn up(&self) -> Result<(), WrapError> {
            match *self.down.lock().unwrap() {
                Some(what) => Err(WrapError::Unavailable(what.into())),
                None => Ok(()),
            }
        }
    }

    impl KeyWrap for Plugin {
        fn name(&self) -> String {
            "unix:///kms.sock".into()
        }

        fn key_id(&self) -> Result<String, WrapError> {
            self.up()?;
            Ok(format!("key-{}", self.generation.load(Ordering::Relaxed)))
        }

        fn wrap(&self, plain: &[u8]) -> Result<WrappedKey, WrapError> {
            let key_id = self.key_id()?;
            let ciphertext = Plugin::apply(self.generation.load(Ordering::Relaxed), plain);
            let annotations = BTreeMap::from([("kms.example.com/check".to_string(), b"\x00\xff".to_vec())]);
            Ok(WrappedKey { key_id, ciphertext, annotations })
        }

        fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, WrapError> {
            self.up()?;
            let refused = |what: &str| WrapError::Refused(what.into());
            let generation = wrapped.key_id.strip_prefix("key-").and_then(|n| n.parse::<u32>().ok());
            let generation = generation.ok_or_else(|| refused("no such key"))?;
            if generation < self.oldest.load(Ordering::Relaxed) {
                return Err(refused("that key is retired"));
            }
            if wrapped.annotations.get("kms.example.com/check").map(Vec::as_slice) != Some(b"\x00\xff") {
                return Err(refused("the annotations differ"));
            }
            let mut plain = Plugin::apply(generation, &wrapped.ciphertext);
            if self.forgets {
                plain[0] ^= 1;
            }
            Ok(Zeroizing::new(plain))
        }
    }

    #[test]
    fn r5_every_kind_of_key_opens_its_own_objects_and_no_others() {
        let (store, env) = (MemStore::new(), Env::fixed(9, 9));
        let plugin = Plugin::default();
        let [file, other_file] = [KeyFile::generate(&env).unwrap(), KeyFile::generate(&env).unwrap()];
        let repo = Repository::init(Arc::new(store.clone()), &file, &cheap(), &env).unwrap();
        repo.add_key(&Passphrase::new("words"), Capability::List, "l", Kdf::cheap()).unwrap();
        repo.add_key(Unlock::Plugin(&plugin), Capability::Put, "p", Kdf::cheap()).unwrap();
        let (recovery_id, recovery) = repo.add_recovery_key("recovery").unwrap();
        assert_eq!(open_with(&store, &file).unwrap().capability(), Capability::Read);
        assert_eq!(open(&store, "words").unwrap().capability(), Capability::List);
        let by_plugin = open_with(&store, Unlock::Plugin(&plugin)).unwrap();
        assert_eq!((by_plugin.capability(), by_plugin.key_note()), (Capability::Put, None));
        // As somebody types it.
        let typed = RecoveryKey::parse(&recovery.to_text().to_lowercase().replace('-', " ")).unwrap();
        let by_recovery = open_with(&store, &typed).unwrap();
        assert_eq!(
            (by_recovery.capability(), by_recovery.key_id()),
            (Capability::Read, recovery_id.as_str())
        );
        let told = open_with(&store, &other_file).unwrap_err().to_string();
        assert_eq!(
            told,
            "the key file opens none of the 1 key(s) of its kind at mem://; other keys were not tried: 1 by passphrase, 1 by recovery key, 1 by KMS plugin"
        );
        assert!(matches!(
            open_with(&store, &RecoveryKey::generate(&env).unwrap()),
            Err(Error::WrongKey { given: KeyKind::RecoveryKey, tried: 1, .. })
        ));
        let kinds: Vec<_> =
            repo.keys().unwrap().done.iter().map(|k| (k.kind, k.kms_key_id.clone())).collect();
        for kind in [KeyKind::KeyFile, KeyKind::Passphrase, KeyKind::RecoveryKey] {
            assert!(kinds.contains(&(kind, None)), "{kinds:?}");
        }
        assert!(kinds.contains(&(KeyKind::Kms, Some("key-0".into()))), "{kinds:?}");
    }

    /// The bytes of every object that is not under `keys/`, and how often the store was asked for one of them.
    fn data(store: &MemStore) -> BTreeMap<String, Bytes> {
        store.snapshot().into_iter().filter(|(key, _)| !key.starts_with(KEYS)).collect()
    }

    #[test]
    fn r5_rotation_rewraps_one_key_object_and_asks_the_store_for_nothing_else() {
        let store = MemStore::new();
        let repo = init(&store).unwrap();
        repo.add_key(&Passphrase::new("agent"), Capability::Put, "agent", Kdf::cheap()).unwrap();
        let writer = repo.writer(Default::default()).unwrap();
        let mut stream = writer.stream(crate::pack::Lane::Data);
        std::io::Write::write_all(&mut stream, &[7; 100_000]).unwrap();
        stream.finish().unwrap();
        writer.commit(crate::object::CommitDraft::default()).unwrap();
        let before = data(&store);
        assert!(before.len() >= 4, "header, pack, segment, commit");

        let recorded = Arc::new(crate::store::record::Record::new(store.clone()));
        let env = Env::fixed(3, 3);
        let opened = Repository::open(recorded.clone(), &Passphrase::new("first"), &env).unwrap();
        let done = opened.rotate_key(opened.key_id(), &Passphrase::new("next"), Kdf::cheap()).unwrap();
        let agent = opened.keys().unwrap().done.into_iter().find(|key| key.label == "agent").unwrap();
        let file = KeyFile::generate(&env).unwrap();
        opened.rotate_key(&agent.id, &file, Kdf::cheap()).unwrap();
        for call in recorded.log() {
            let of_keys = call.key.starts_with(KEYS) || call.key == crate::id::HEADER;
            assert!(of_keys, "rotation touched {call:?}");
        }
        assert_eq!(data(&store), before, "no data is touched");

        assert!(matches!(open(&store, "first"), Err(Error::WrongKey { .. })));
        assert!(matches!(open(&store, "agent"), Err(Error::WrongKey { .. })));
        let next = open(&store, "next").unwrap();
        assert_eq!((next.capability(), next.key_id()), (Capability::Read, done.new.as_str()));
        assert_eq!(next.commits().unwrap().done.len(), 1);
        let rotated = open_with(&store, &file).unwrap();
        assert_eq!(rotated.capability(), Capability::Put);
        let label =
            next.keys().unwrap().done.into_iter().find(|key| key.kind == KeyKind::KeyFile).unwrap().label;
        assert_eq!(label, "agent");
        // A lesser key cannot rotate a greater one.
        let refused = rotated.rotate_key(&done.new, &Passphrase::new("mine"), Kdf::cheap());
        assert!(matches!(refused, Err(Error::NotPermitted { .. })));
        open(&store, "next").unwrap();
    }

    /// A locked bucket, or a store role that may not delete: the new key is there all the same, and it is told.
    #[test]
    fn a_rotated_key_that_cannot_be_deleted_is_told() {
        let env = Env::fixed(20_000 * 86_400_000_000_000, 1);
        let bucket = VersionedStore::new(&env, Flaws::default());
        let lock = Some(LockPolicy::new(LockMode::Compliance, 86_400).unwrap());
        let options = InitOptions { kdf: Kdf::cheap(), lock, ..InitOptions::default() };
        let words = Passphrase::new("first");
        let repo = Repository::init(Arc::new(bucket.clone()), &words, &options, &env).unwrap();
        let rotated = repo.rotate_key(repo.key_id(), &Passphrase::new("next"), Kdf::cheap()).unwrap();
        assert!(rotated.old_stays.is_some(), "{rotated:?}");
        let open = |words: &str| Repository::open(Arc::new(bucket.clone()), &Passphrase::new(words), &env);
        assert_eq!(open("next").unwrap().key_id(), rotated.new);
        // It opens until the lock has ended and it is removed.
        open("first").unwrap();
        env.advance(30 * 86_400_000_000_000);
        open("next").unwrap().remove_key(&rotated.old).unwrap();
        assert!(matches!(open("first"), Err(Error::WrongKey { .. })));
    }

    #[test]
    fn the_last_key_that_can_read_stays() {
        let store = MemStore::new();
        let repo = init(&store).unwrap();
        let read = repo.key_id().to_owned();
        repo.add_key(&Passphrase::new("agent"), Capability::Put, "agent", Kdf::cheap()).unwrap();
        let agent = open(&store, "agent").unwrap();
        let refused = agent.remove_key(&read).unwrap_err().to_string();
        assert!(refused.contains("last key that can read"), "{refused}");
        // A key object that is damaged cannot be counted on to read.
        let second =
            repo.add_key(&Passphrase::new("second"), Capability::Read, "second", Kdf::cheap()).unwrap();
        let name = format!("{KEYS}{second}");
        let good = store.get(&name).unwrap();
        store.tamper(&name, Some(good.slice(1..)));
        assert!(matches!(agent.remove_key(&read), Err(Error::Invalid { .. })));
        store.tamper(&name, Some(good));
        agent.remove_key(&read).unwrap();
        assert!(matches!(agent.remove_key(&second), Err(Error::Invalid { .. })));
        open(&store, "second").unwrap();
    }

    #[test]
    fn a_plugins_new_key_is_noticed_and_rotation_moves_to_it() {
        let (store, env) = (MemStore::new(), Env::fixed(9, 9));
        let plugin = Plugin::default();
        let open = || open_with(&store, Unlock::Plugin(&plugin));
        let repo =
            Repository::init(Arc::new(store.clone()), Unlock::Plugin(&plugin), &cheap(), &env).unwrap();
        assert_eq!(open().unwrap().key_note(), None);
        plugin.generation.store(1, Ordering::Relaxed);
        let opened = open().unwrap();
        let note = opened.key_note().unwrap().to_owned();
        assert!(
            note.contains("\"key-1\"") && note.contains("\"key-0\"") && note.contains("rotate"),
            "{note}"
        );
        let rotated = opened.rotate_key(repo.key_id(), Unlock::Plugin(&plugin), Kdf::cheap()).unwrap();
        plugin.oldest.store(1, Ordering::Relaxed);
        let opened = open().unwrap();
        assert_eq!((opened.key_note(), opened.key_id()), (None, rotated.new.as_str()));
        // Without the rotation the retired key would have been the end.
        plugin.oldest.store(2, Ordering::Relaxed);
        let refused = open().unwrap_err();
        assert!(matches!(refused, Error::WrongKey { given: KeyKind::Kms, tried: 1, .. }));
        assert!(refused.to_string().contains("that key is retired"), "{refused}");
    }

    #[test]
    fn a_plugin_that_is_down_or_wrong_makes_no_key_and_opens_none() {
        let (store, env) = (MemStore::new(), Env::fixed(9, 9));
        let init = |store: &MemStore, plugin: &Plugin| {
            Repository::init(Arc::new(store.clone()), Unlock::Plugin(plugin), &cheap(), &env)
        };
        let forgetful = Plugin { forgets: true, ..Plugin::default() };
        let refused = init(&store, &forgetful).unwrap_err().to_string();
        assert!(refused.contains("decrypts something else"), "{refused}");
        let plugin = Plugin::default();
        *plugin.down.lock().unwrap() = Some("nobody listens");
        assert!(matches!(init(&store, &plugin), Err(Error::KeyPlugin { .. })));
        assert_eq!(store.snapshot().len(), 0, "nothing is made with a key that may not open");
        *plugin.down.lock().unwrap() = None;
        init(&store, &plugin).unwrap();
        *plugin.down.lock().unwrap() = Some("nobody listens");
        let told = open_with(&store, Unlock::Plugin(&plugin)).unwrap_err();
        assert!(
            matches!(told, Error::KeyPlugin { .. }) && told.to_string().contains("nobody listens"),
            "{told}"
        );
    }

    #[test]
    fn what_a_later_release_adds_is_passed_over() {
        let store = MemStore::new();
        let repo = init(&store).unwrap();
        let text =
            String::from_utf8(store.get(&format!("{KEYS}{}", repo.key_id())).unwrap().to_vec()).unwrap();
        let from = text.find("\"kdf\":{").unwrap();
        let to = from + text[from..].find('}').unwrap() + 1;
        let later =
            format!("{}\"kdf\":{{\"name\":\"passkey\",\"credential\":[1]}}{}", &text[..from], &text[to..]);
        store.put(&format!("{KEYS}{}", key_name(later.as_bytes())), later.into()).unwrap();
        let opened = open(&store, "first").unwrap();
        let kinds: Vec<_> = opened.keys().unwrap().done.into_iter().map(|key| key.kind).collect();
        assert!(kinds.contains(&KeyKind::Unknown) && kinds.len() == 2);
        let refused = open(&store, "second").unwrap_err().to_string();
        assert!(refused.contains("1 by unknown"), "{refused}");
    }

    #[test]
    fn a_hostile_key_object_does_not_exhaust_its_reader() {
        for (memory_kib, passes, lanes) in
            [(u32::MAX, 1, 1), (8, 65, 1), (8, 1, 0), (8, 0, 1), (8, 1, 64), (0, 0, 0)]
        {
            let lock = Lock::Passphrase { memory_kib, passes, lanes, salt: "00".repeat(32) };
            let words = Passphrase::new("p");
            assert!(lock.open(Unlock::Passphrase(&words)).is_err(), "{lock:?}");
        }
        // Nor does it make us hand a plugin more than Kubernetes would.
        let long = |bytes: usize| "00".repeat(bytes);
        for (key_id, wrapped, note) in
            [("", long(1), 0), ("k", long(0), 0), ("k", long(1025), 0), ("k", long(1), 40_000)]
        {
            let annotations = BTreeMap::from([("a".to_string(), long(note))]);
            let lock = Lock::Kms { salt: long(32), key_id: key_id.into(), wrapped, annotations };
            assert!(matches!(lock.open(Unlock::Plugin(&Plugin::default())), Err(KeyProblem::Damaged(_))));
        }
    }

    /// Whatever is printed of what holds a secret, in whatever form: the secrets are not in it.
    #[test]
    fn no_debug_output_and_no_error_shows_a_secret() {
        let (store, env) = (MemStore::new(), Env::fixed(9, 9));
        let repo = init(&store).unwrap();
        let plugin = Plugin::default();
        let (file, other) = (KeyFile::generate(&env).unwrap(), KeyFile::generate(&env).unwrap());
        repo.add_key(&file, Capability::Put, "file", Kdf::cheap()).unwrap();
        let (_, recovery) = repo.add_recovery_key("recovery").unwrap();
        repo.add_key(Unlock::Plugin(&plugin), Capability::List, "plugin", Kdf::cheap()).unwrap();
        let (put, words) = (open_with(&store, &file).unwrap(), Passphrase::new("first"));

        // The secrets in the clear: every 32 bytes of the bundle that are one, and what opens it.
        let bundle = repo.secrets().encode();
        let mut secrets: Vec<Vec<u8>> = bundle
            .windows(34)
            .filter(|window| window[..2] == [0x58, 32])
            .map(|window| window[2..].to_vec())
            .collect();
        assert_eq!(secrets.len(), 8);
        secrets.extend([file.bytes().to_vec(), other.bytes().to_vec(), recovery.bytes().to_vec()]);
        let mut texts: Vec<String> = Vec::new();
        for secret in &secrets {
            let list: Vec<String> = secret[..4].iter().map(u8::to_string).collect();
            texts.extend([HEXLOWER.encode(&secret[..8]), list.join(", "), list.join(",\n    ")]);
        }
        texts.extend([file.to_text()[20..40].to_string(), recovery.to_text()[..14].to_string()]);

        let mut said = vec![
            format!("{repo:?} {repo:#?} {put:?}"),
            format!("{:?} {:#?}", repo.secrets(), put.secrets()),
            format!("{:?} {:?}", repo.secrets().chunk_ids().unwrap(), repo.keys().unwrap()),
            format!("{file:?} {file:#?} {recovery:?} {words:?} {:?}", Unlock::from(&file)),
            format!("{:?} {:?}", repo.chunker().map(|_| ()), InitOptions::default()),
        ];
        *plugin.down.lock().unwrap() = Some("nobody listens");
        let errors = [
            open_with(&store, &other).unwrap_err(),
            open_with(&store, &Passphrase::new(file.to_text().as_bytes())).unwrap_err(),
            open_with(&store, &RecoveryKey::generate(&env).unwrap()).unwrap_err(),
            open_with(&store, Unlock::Plugin(&plugin)).unwrap_err(),
            put.add_key(&other, Capability::Read, "", Kdf::cheap()).unwrap_err(),
            put.commits().unwrap_err(),
            KeyFile::parse(&file.to_text().as_bytes()[..80]).unwrap_err(),
            KeyFile::parse(&file.to_text().as_bytes()[1..]).unwrap_err(),
            RecoveryKey::parse(&recovery.to_text()[1..]).unwrap_err(),
            RecoveryKey::parse(&file.to_text()).unwrap_err(),
            Keys::decode(&bundle[..bundle.len() - 1]).map_err(Error::invalid).unwrap_err(),
            Keys::decode(&bundle[1..]).map_err(Error::invalid).unwrap_err(),
        ];
        said.extend(errors.iter().map(|error| format!("{error} {error:?} {error:#?}")));
        for said in &said {
            for text in &texts {
                assert!(!said.contains(text), "{said:?} shows {text:?}");
            }
            assert!(!said.contains("first") || said.contains("label"), "{said:?} shows a passphrase");
        }
    }

    #[test]
    fn there_is_no_default_password() {
        let (store, env) = (MemStore::new(), Env::fixed(1, 1));
        let refused = Repository::init(Arc::new(store.clone()), &Passphrase::new(""), &cheap(), &env);
        assert!(matches!(refused, Err(Error::Invalid { .. })));
        assert!(store.snapshot().is_empty());
        let refused = init(&store).unwrap().add_key(&Passphrase::new(""), Capability::Put, "", Kdf::cheap());
        assert!(matches!(refused, Err(Error::Invalid { .. })));
    }

    proptest! {
        #[test]
        fn hostile_key_objects_are_refused(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [text.as_bytes(), &bytes] {
                prop_assert!(parse_key(&key_name(bytes), bytes).is_err());
            }
        }
    }
}
