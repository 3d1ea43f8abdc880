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
    /// The keys themselves, from another process; no key object is of this kind.
    Bundle,
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
            Unlock::Bundle(_) => KeyKind::Bundle,
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
            KeyKind::Bundle => "bundle",
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

/// What a repository was opened with.
#[derive(Clone)]
pub(crate) struct Opened {
    pub keys: Keys,
    /// The key object; empty if a bundle opened it.
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
            Unlock::Bundle(_) => {
                return Err(Error::invalid(
                    "a bundle opens a repository and is nothing that a key could be made of; name a passphrase, a key file, a recovery key or a KMS plugin",
                ));
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
        if self.key_id().is_empty() {
            return Err(Error::invalid(
                "whoever was handed a bundle of keys removes none; open the repository with a key of its own",
            ));
        }
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
mod tests;
