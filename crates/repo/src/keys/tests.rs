//! What opens a repository, what does not, and what a rotation leaves.

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
    let second = repo.add_key(&Passphrase::new("second"), Capability::Read, "second", Kdf::cheap()).unwrap();
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
    assert_eq!((by_recovery.capability(), by_recovery.key_id()), (Capability::Read, recovery_id.as_str()));
    let told = open_with(&store, &other_file).unwrap_err().to_string();
    assert_eq!(
        told,
        "the key file opens none of the 1 key(s) of its kind at mem://; other keys were not tried: 1 by passphrase, 1 by recovery key, 1 by KMS plugin"
    );
    assert!(matches!(
        open_with(&store, &RecoveryKey::generate(&env).unwrap()),
        Err(Error::WrongKey { given: KeyKind::RecoveryKey, tried: 1, .. })
    ));
    let kinds: Vec<_> = repo.keys().unwrap().done.iter().map(|k| (k.kind, k.kms_key_id.clone())).collect();
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
    let label = next.keys().unwrap().done.into_iter().find(|key| key.kind == KeyKind::KeyFile).unwrap().label;
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
    let second = repo.add_key(&Passphrase::new("second"), Capability::Read, "second", Kdf::cheap()).unwrap();
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
    let repo = Repository::init(Arc::new(store.clone()), Unlock::Plugin(&plugin), &cheap(), &env).unwrap();
    assert_eq!(open().unwrap().key_note(), None);
    plugin.generation.store(1, Ordering::Relaxed);
    let opened = open().unwrap();
    let note = opened.key_note().unwrap().to_owned();
    assert!(note.contains("\"key-1\"") && note.contains("\"key-0\"") && note.contains("rotate"), "{note}");
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
    assert!(matches!(told, Error::KeyPlugin { .. }) && told.to_string().contains("nobody listens"), "{told}");
}

#[test]
fn what_a_later_release_adds_is_passed_over() {
    let store = MemStore::new();
    let repo = init(&store).unwrap();
    let text = String::from_utf8(store.get(&format!("{KEYS}{}", repo.key_id())).unwrap().to_vec()).unwrap();
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
