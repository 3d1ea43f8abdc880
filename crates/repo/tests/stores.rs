//! The S3 store against servers that do less than they say: `tests/real/with moto,rclone -- cargo test -p repo --test stores`.
//!
//! moto knows every call of S3 and holds few of its promises; rclone's server has no conditional put, no versions and
//! no locks. The contract of a store is shown on both as far as they can keep it, and the probe has to tell the rest.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot run fails and says why")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

use repo::check::{CheckOptions, check};
use repo::store::probe::{Probe, probe};
use repo::store::vault::LockMode;
use repo::store::{S3Options, StoreOptions, list_all, open, s3::S3Store, suite};
use repo::{
    CommitDraft, EntryKind, Env, Error, InitOptions, Kdf, Lane, LockPolicy, ManifestEntry, Passphrase,
    ReaderOptions, Repository, WriterOptions,
};

const MODES: [LockMode; 2] = [LockMode::Compliance, LockMode::Governance];

fn endpoint(server: &str) -> String {
    let name = format!("HOLDFAST_TEST_{}_ENDPOINT", server.to_uppercase());
    std::env::var(&name).unwrap_or_else(|_| {
        panic!("{name} is not set: run through `tests/real/with {server} -- cargo test …`")
    })
}

fn options(server: &str) -> S3Options {
    S3Options {
        endpoint: Some(endpoint(server)),
        access_key_id: Some("holdfast-test".into()),
        secret_access_key: Some("holdfast-test-secret".into()),
        ..S3Options::default()
    }
}

/// A bucket of its own for every test.
fn bucket(server: &str, name: &str, lock: bool) -> String {
    let bucket = format!("{name}-{}", std::process::id());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail-with-body", "--aws-sigv4", "aws:amz:us-east-1:s3", "-X", "PUT"])
        .args(["--user", "holdfast-test:holdfast-test-secret"])
        .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
    if lock {
        curl.args(["-H", "x-amz-bucket-object-lock-enabled: true"]);
    }
    let output = curl.arg(format!("{}/{bucket}", endpoint(server))).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    bucket
}

fn probed(server: &str, name: &str, lock: bool) -> Probe {
    let store = S3Store::new(&format!("{}/p", bucket(server, name, lock)), &options(server)).unwrap();
    let found = probe(&store, &MODES, &Env::real()).unwrap();
    assert_eq!(list_all(&store, "").unwrap(), [], "nothing is left to be seen");
    found
}

/// Writes two points, checks every byte, and reads them back.
fn live_in(server: &str, place: &str) -> Repository {
    let store = open(&format!("s3://{place}"), &StoreOptions { s3: options(server), ..Default::default() });
    let store = store.unwrap();
    let (env, passphrase) = (Env::real(), Passphrase::new("x"));
    let init = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repo = Repository::init(store.clone(), &passphrase, &init, &env).unwrap();
    assert!(matches!(Repository::init(store.clone(), &passphrase, &init, &env), Err(Error::Exists { .. })));
    let mut content = vec![0; 20_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    for _ in 0..2 {
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let mut stream = writer.stream(Lane::Data);
        stream.write_all(&content).unwrap();
        let root = stream.finish().unwrap();
        let figures = BTreeMap::new();
        let manifest = vec![ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures }];
        writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() }).unwrap();
    }
    let repo = Repository::open(store, &passphrase, &env).unwrap();
    let report = check(&repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
    assert_eq!((report.findings, report.counts.commits), (vec![], 2));
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    for id in repo.commit_ids().unwrap() {
        let entry = reader.manifest(&id).unwrap().remove(0);
        assert!(reader.bytes(&entry.root, 1 << 30).unwrap() == content);
    }
    repo
}

#[test]
fn moto_keeps_the_contract() {
    suite::run(&S3Store::new(&bucket("moto", "contract", false), &options("moto")).unwrap());
}

#[test]
fn moto_a_repository_lives_in_it() {
    let repo = live_in("moto", &format!("{}/r", bucket("moto", "lives", false)));
    assert!(repo.probe().unwrap().conditional_put);
}

/// moto lets a COMPLIANCE lock be shortened: nobody may count on it.
#[test]
fn moto_is_found_out_by_the_probe() {
    let found = probed("moto", "probed", true);
    assert!(found.versions && found.locks.is_empty(), "{found:?}");
    assert!(found.notes.iter().any(|note| note.contains("moved back")), "{found:?}");
    let place = format!("{}/r", bucket("moto", "refused", true));
    let store = open(&format!("s3://{place}"), &StoreOptions { s3: options("moto"), ..Default::default() });
    let lock = Some(LockPolicy::new(LockMode::Compliance, 3_600).unwrap());
    let init = InitOptions { kdf: Kdf::cheap(), lock, ..InitOptions::default() };
    let refused = Repository::init(store.unwrap(), &Passphrase::new("x"), &init, &Env::real()).unwrap_err();
    assert!(refused.to_string().contains("was not proved to hold COMPLIANCE locks"), "{refused}");
}

/// rclone's server ignores the condition of a put; the repository says so and works by its names.
#[test]
fn rclone_lacks_conditional_put_and_a_repository_lives_in_it_all_the_same() {
    let repo = live_in("rclone", &format!("{}/r", bucket("rclone", "lives", false)));
    let found = repo.probe().unwrap();
    assert!(!found.conditional_put && !found.versions && found.locks.is_empty(), "{found:?}");
    assert!(!found.notes.is_empty());
}

#[test]
fn rclone_is_found_out_by_the_probe() {
    let found = probed("rclone", "probed", false);
    assert!(!found.conditional_put && !found.versions && found.locks.is_empty(), "{found:?}");
}
