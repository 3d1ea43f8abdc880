//! Versions and locks against a real service: `tests/real/with s3 -- cargo test -p repo --test store_vault`.
//!
//! What the service claims is proved by the probe; what the probe proved is attacked here with every verb a thief of
//! the credentials has.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot run fails and says why")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use repo::check::{CheckOptions, check};
use repo::immutable::{RenewOptions, renew};
use repo::store::probe::probe;
use repo::store::vault::{Lock, LockMode, Vault, list_versions};
use repo::store::{
    Object, Put, S3Options, Store, StoreError, StoreOptions, list_all, open, s3::S3Store, suite,
};
use repo::{
    CommitDraft, CommitId, EntryKind, Env, InitOptions, Kdf, Lane, LockPolicy, ManifestEntry, Passphrase,
    ReaderOptions, Repository, WriterOptions,
};

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run through `tests/real/with s3 -- cargo test …`"))
}

fn options() -> S3Options {
    S3Options {
        endpoint: Some(variable("HOLDFAST_TEST_S3_ENDPOINT")),
        access_key_id: Some(variable("AWS_ACCESS_KEY_ID")),
        secret_access_key: Some(variable("AWS_SECRET_ACCESS_KEY")),
        ..S3Options::default()
    }
}

/// A signed request of our own, for what a repository never asks.
fn curl(method: &str, path: &str, more: &[&str]) -> (bool, String) {
    let user = format!("{}:{}", variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    let output = Command::new("curl")
        .args(["-sS", "--fail-with-body", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user])
        // curl signs a body that it does not name; the service wants the name.
        .args(["-X", method, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
        .args(more)
        .arg(format!("{}/{path}", variable("HOLDFAST_TEST_S3_ENDPOINT")))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// A bucket of its own for every test, with object lock (and so with versions) or without.
fn bucket(name: &str, lock: bool) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let bucket = format!("{}-{name}-{process}-{n}", variable("HOLDFAST_TEST_S3_BUCKET"));
    let lock: &[&str] = if lock { &["-H", "x-amz-bucket-object-lock-enabled: true"] } else { &[] };
    let (made, said) = curl("PUT", &bucket, lock);
    assert!(made, "{said}");
    bucket
}

const MINUTE: i64 = 60 * 1_000_000_000;
const BOTH: [LockMode; 2] = [LockMode::Compliance, LockMode::Governance];

#[test]
fn s3_what_the_service_really_does_is_proved() {
    let env = Env::real();
    let store = S3Store::new(&format!("{}/x", bucket("proved", true)), &options()).unwrap();
    let found = probe(&store, &BOTH, &env).unwrap();
    assert!(found.conditional_put && found.versions && found.checksums == Some(true), "{found:?}");
    assert_eq!((found.locks.as_slice(), found.notes.as_slice()), (&BOTH[..], &[][..]));
    assert_eq!(list_all(&store, "").unwrap(), [], "nothing is left to be seen");

    let plain = S3Store::new(&bucket("plain", false), &options()).unwrap();
    let found = probe(&plain, &[], &env).unwrap();
    assert!(found.conditional_put && !found.versions && found.locks.is_empty(), "{found:?}");
    let found = probe(&plain, &BOTH, &env).unwrap();
    assert!(found.locks.is_empty() && found.notes.len() >= 2, "{found:?}");
}

#[test]
fn s3_keeps_the_contract_in_a_bucket_with_versions() {
    let store = S3Store::new(&bucket("contract", true), &options()).unwrap();
    suite::run(&store);
    assert_eq!(list_versions(&store, "").unwrap(), [], "a deletion leaves no version and no marker");
}

#[test]
fn s3_a_locked_object_says_until_when_and_goes_afterwards() {
    let store = S3Store::new(&bucket("until", true), &options()).unwrap();
    // A busy SeaweedFS may answer the first put into a new bucket with 500, while it makes room for it; Retry asks again.
    for _ in 0..20 {
        match store.put("packs/first", Bytes::from_static(b"x")) {
            Err(StoreError::Unavailable { .. }) => std::thread::sleep(std::time::Duration::from_millis(500)),
            _ => break,
        }
    }
    let env = Env::real();
    let lock = Lock::new(LockMode::Compliance, env.now() + MINUTE / 20);
    assert_eq!(store.put_locked("packs/a", Bytes::from_static(b"x"), &lock).unwrap(), Put::Created);
    assert_eq!(store.put_locked("packs/a", Bytes::from_static(b"y"), &lock).unwrap(), Put::Exists);
    assert_eq!(store.lock_of("packs/a").unwrap(), Some(lock));
    assert!(store.lock_of("packs/b").unwrap_err().is_not_found());
    store.put("packs/c", Bytes::from_static(b"x")).unwrap();
    assert_eq!(store.lock_of("packs/c").unwrap(), None);
    match store.delete("packs/a") {
        Err(StoreError::Locked { until, mode, .. }) => assert_eq!((until, mode), (lock.until, lock.mode)),
        other => panic!("{other:?}"),
    }
    while env.now() < lock.until + MINUTE / 60 {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    store.delete("packs/a").unwrap();
    assert_eq!(list_versions(&store, "packs/a").unwrap(), []);
}

fn entry(root: repo::Root) -> ManifestEntry {
    ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures: BTreeMap::new() }
}

fn backup(repo: &Repository, content: &[u8]) -> CommitId {
    let writer = repo.writer(WriterOptions::default()).unwrap();
    let mut stream = writer.stream(Lane::Data);
    stream.write_all(content).unwrap();
    let manifest = vec![entry(stream.finish().unwrap())];
    writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() }).unwrap().id
}

fn restore(repo: &Repository, id: &CommitId) -> Vec<u8> {
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    let entry = reader.manifest(id).unwrap().remove(0);
    reader.bytes(&entry.root, 1 << 30).unwrap()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    content
}

fn locked_repository(place: &str) -> (Repository, Arc<dyn Store>) {
    let store =
        open(&format!("s3://{place}"), &StoreOptions { s3: options(), ..Default::default() }).unwrap();
    let lock = Some(LockPolicy::new(LockMode::Compliance, 3_600).unwrap());
    let init = InitOptions { kdf: Kdf::cheap(), lock, ..InitOptions::default() };
    (Repository::init(store.clone(), &Passphrase::new("x"), &init, &Env::real()).unwrap(), store)
}

/// What points need. Leases and marks of collection come and go, and are not locked.
fn kept(store: &dyn Store) -> Vec<Object> {
    let mut objects = list_all(store, "").unwrap();
    let passing = ["leases/", "gc/", "locks/"];
    objects.retain(|object| !passing.iter().any(|folder| object.key.starts_with(folder)));
    objects
}

/// Every object is locked from its first moment for what was promised, and a renewal moves the dates, each once.
#[test]
fn s3_everything_of_a_locked_repository_is_locked_and_renewed() {
    let (repo, store) = locked_repository(&format!("{}/r", bucket("renew", true)));
    backup(&repo, &noise(1, 3_000_000));
    let promised = repo.env().now() + 60 * MINUTE;
    let vault = store.vault().unwrap();
    let kept = kept(&*store);
    assert!(kept.len() >= 6, "{kept:?}");
    for object in &kept {
        let lock = vault.lock_of(&object.key).unwrap().unwrap();
        assert!(lock.mode == LockMode::Compliance && lock.until >= promised, "{}: {lock:?}", object.key);
    }
    let options = RenewOptions { protect_seconds: Some(7_200), ..RenewOptions::default() };
    let plan = renew(&repo, &RenewOptions { plan: true, ..options.clone() }).unwrap();
    let done = renew(&repo, &options).unwrap();
    assert_eq!((done.done.extended, done.findings.len()), (kept.len() as u64, 0), "{done:?}");
    assert_eq!(plan.done.extended, done.done.extended);
    for object in &kept {
        assert!(vault.lock_of(&object.key).unwrap().unwrap().until >= promised + 59 * MINUTE);
    }
    assert_eq!(renew(&repo, &options).unwrap().done.extended, 0);
    assert_eq!(renew(&repo, &RenewOptions { look: true, ..options }).unwrap().done.extended, 0);
}

#[test]
fn s3_a_bucket_that_locks_by_itself_is_seen() {
    let bucket = bucket("default", true);
    let retention = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                     <Mode>GOVERNANCE</Mode><Days>2</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    let (set, said) = curl("PUT", &format!("{bucket}?object-lock="), &["--data-binary", retention]);
    assert!(set, "{said}");
    let store =
        open(&format!("s3://{bucket}/r"), &StoreOptions { s3: options(), ..Default::default() }).unwrap();
    let init = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repo = Repository::init(store, &Passphrase::new("x"), &init, &Env::real()).unwrap();
    let default = repo.probe().unwrap().default_lock.unwrap();
    assert_eq!((default.mode, default.days), (LockMode::Governance, 2));
    let content = noise(1, 100_000);
    let id = backup(&repo, &content);
    assert_eq!(restore(&repo, &id), content);
}

/// A thief has credentials that may do everything the service lets anybody do, and tries every verb on every object. A
/// full restore afterwards is byte-identical.
#[test]
fn s3_a_thief_with_every_verb_destroys_nothing() {
    let bucket = bucket("thief", true);
    let (repo, store) = locked_repository(&format!("{bucket}/r"));
    let content = noise(3, 20_000_000);
    let points = [backup(&repo, &content), backup(&repo, &content[..7_000_000])];
    drop(repo);
    let vault = store.vault().unwrap();
    let kept = kept(&*store);
    assert!(kept.len() >= 8);
    let now = Env::real().now();
    for (number, object) in kept.iter().enumerate() {
        let key = object.key.as_str();
        let locked_until = vault.lock_of(key).unwrap().unwrap().until;
        let good = list_versions(vault, key).unwrap();
        assert_eq!(good.len(), 1);
        // Shorten and weaken the lock.
        for weaker in
            [Lock::new(LockMode::Compliance, now + MINUTE), Lock::new(LockMode::Governance, locked_until)]
        {
            assert!(vault.set_lock(key, &weaker).is_err(), "{key}: {weaker:?}");
        }
        // Delete the version; with the right to bypass governance, too.
        assert!(matches!(vault.delete_version(key, &good[0].id), Err(StoreError::Locked { .. })), "{key}");
        let path = format!("{bucket}/r/{key}?versionId={}", good[0].id);
        let (removed, said) = curl("DELETE", &path, &["-H", "x-amz-bypass-governance-retention: true"]);
        assert!(!removed, "{key}: {said}");
        // Overwrite, delete, or both.
        if number % 3 != 1 {
            vault.put_over(key, Bytes::from_static(b"garbage"), None).unwrap();
        }
        if number % 3 != 0 {
            vault.hide(key).unwrap();
        }
    }
    let open = || Repository::open(store.clone(), &Passphrase::new("x"), &Env::real());
    assert!(open().is_err(), "it looks destroyed");
    let plan = repo::undelete::plan(&*store, Some((&Passphrase::new("x")).into())).unwrap();
    assert_eq!((plan.steps.len(), plan.findings.len()), (kept.len(), 0), "{plan:?}");
    let done = plan.execute(&*store, &Env::real()).unwrap();
    assert_eq!(done.findings, []);
    let repo = open().unwrap();
    assert_eq!(restore(&repo, &points[0]), content);
    assert_eq!(restore(&repo, &points[1]), content[..7_000_000]);
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    assert_eq!(check(&repo, &options, &()).unwrap().findings, []);
}
