//! Azure against Microsoft's emulator and Google against fake-gcs-server:
//! `tests/real/with azurite,gcs -- cargo test -p repo --test store_cloud`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot run fails and says why")]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use repo::check::{CheckOptions, check};
use repo::store::retry::RetryPolicy;
use repo::store::vault::LockMode;
use repo::store::{AzureOptions, GcsOptions, Store, StoreError, StoreOptions, open, suite};
use repo::{
    CommitDraft, EntryKind, Env, Error, InitOptions, Kdf, Lane, LockPolicy, ManifestEntry, Passphrase,
    ReaderOptions, Repository, WriterOptions,
};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run through `tests/real/with azurite,gcs -- cargo test …`")
    })
}

fn azure() -> StoreOptions {
    let azure = AzureOptions {
        account: Some("devstoreaccount1".into()),
        access_key: Some(variable("HOLDFAST_TEST_AZURE_KEY")),
        endpoint: Some(variable("HOLDFAST_TEST_AZURE_ENDPOINT")),
    };
    StoreOptions { azure, ..impatient() }
}

/// Fails at once instead of waiting for a service to come back.
fn impatient() -> StoreOptions {
    let retry = RetryPolicy { deadline: Duration::ZERO, ..RetryPolicy::default() };
    StoreOptions { retry, ..StoreOptions::default() }
}

fn place(name: &str) -> String {
    format!("az://holdfast-test/{}/{name}", std::process::id())
}

/// Writes two points into a new repository, checks every byte and reads them back.
fn live_in(store: &Arc<dyn Store>) {
    let (env, passphrase) = (Env::real(), Passphrase::new("x"));
    let init = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    // No locks where none were proved.
    let lock = Some(LockPolicy::new(LockMode::Compliance, 3_600).unwrap());
    let locked = Repository::init(store.clone(), &passphrase, &InitOptions { lock, ..init.clone() }, &env);
    assert!(locked.unwrap_err().to_string().contains("keeps nothing by itself that was proved"));
    let repo = Repository::init(store.clone(), &passphrase, &init, &env).unwrap();
    assert!(repo.probe().unwrap().conditional_put, "{:?}", repo.probe());
    let again = Repository::init(store.clone(), &passphrase, &init, &env);
    assert!(matches!(again, Err(Error::Exists { .. })));
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
    let repo = Repository::open(store.clone(), &passphrase, &env).unwrap();
    let report = check(&repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
    assert_eq!((report.findings, report.counts.commits), (vec![], 2));
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    for id in repo.commit_ids().unwrap() {
        let entry = reader.manifest(&id).unwrap().remove(0);
        assert!(reader.bytes(&entry.root, 1 << 30).unwrap() == content);
    }
}

#[test]
fn azure_keeps_the_contract() {
    suite::run(&open(&place("contract"), &azure()).unwrap());
}

#[test]
fn azure_a_repository_lives_in_a_container() {
    live_in(&open(&place("lives"), &azure()).unwrap());
}

#[test]
fn azure_wrong_keys_and_missing_containers_are_told_apart() {
    let mut wrong = azure();
    wrong.azure.access_key = Some("d3Jvbmc=".into());
    let error = open(&place("x"), &wrong).unwrap().get("a").unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    let error = open("az://no-such-container/x", &azure()).unwrap().put("a", "x".into()).unwrap_err();
    assert!(error.to_string().contains("does not exist; create it"), "{error:?}");
    let mut nobody = azure();
    nobody.azure.endpoint = Some("http://127.0.0.1:1/devstoreaccount1".into());
    assert!(open(&place("x"), &nobody).unwrap().get("a").unwrap_err().is_unavailable());
}

fn google() -> StoreOptions {
    let gcs = GcsOptions { endpoint: Some(variable("HOLDFAST_TEST_GCS_ENDPOINT")), ..GcsOptions::default() };
    StoreOptions { gcs, ..impatient() }
}

fn bucket(name: &str) -> String {
    format!("gs://holdfast-test/{}/{name}", std::process::id())
}

#[test]
fn gcs_keeps_the_contract() {
    suite::run(&open(&bucket("contract"), &google()).unwrap());
}

#[test]
fn gcs_a_repository_lives_in_a_bucket() {
    live_in(&open(&bucket("lives"), &google()).unwrap());
}

#[test]
fn gcs_missing_buckets_and_services_are_told_apart() {
    let store = open("gs://no-such-bucket/x", &google()).unwrap();
    let error = store.put("a", "x".into()).unwrap_err();
    assert!(error.to_string().contains("does not exist; create it"), "{error:?}");
    let mut nobody = google();
    nobody.gcs.endpoint = Some("http://127.0.0.1:1".into());
    assert!(open(&bucket("x"), &nobody).unwrap().get("a").unwrap_err().is_unavailable());
}
