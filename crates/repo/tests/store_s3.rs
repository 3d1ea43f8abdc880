//! The S3 store against a real service: `tests/real/with s3 -- cargo test -p repo --test store_s3`.
//!
//! Every test here is named `s3_…`, so that a run without a service can leave them out by name; started
//! without one they fail and say how to run them.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot run fails and says why")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use repo::check::{CheckOptions, check};
use repo::store::record::{Record, Verb};
use repo::store::retry::RetryPolicy;
use repo::store::{Put, S3Options, Store, StoreError, StoreOptions, list_all, open, s3::S3Store, suite};
use repo::{
    CommitDraft, EntryKind, Env, InitOptions, Kdf, Lane, ManifestEntry, Passphrase, ReaderOptions,
    Repository, WriterOptions,
};

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run through `tests/real/with s3 -- cargo test …`"))
}

fn options() -> S3Options {
    S3Options {
        endpoint: Some(variable("HOLDFAST_TEST_S3_ENDPOINT")),
        region: None,
        access_key_id: Some(variable("AWS_ACCESS_KEY_ID")),
        secret_access_key: Some(variable("AWS_SECRET_ACCESS_KEY")),
        ..S3Options::default()
    }
}

/// A prefix of its own for every test, so that they run side by side.
fn place(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{}/store-s3/{process}-{n}-{name}", variable("HOLDFAST_TEST_S3_BUCKET"))
}

/// Options that fail at once instead of waiting for a service to come back.
fn impatient(s3: S3Options) -> StoreOptions {
    let retry = RetryPolicy { deadline: Duration::ZERO, ..RetryPolicy::default() };
    StoreOptions { s3, retry, ..StoreOptions::default() }
}

#[test]
fn s3_keeps_the_contract() {
    suite::run(&S3Store::new(&place("contract"), &options()).unwrap());
}

#[test]
fn s3_keeps_the_contract_as_users_open_it() {
    let url = format!("s3://{}/", place("opened with a space"));
    let store = open(&url, &impatient(options())).unwrap();
    suite::run(&store);
    assert_eq!(store.url(), url.trim_end_matches('/'));
}

#[test]
fn s3_two_prefixes_do_not_see_each_other() {
    let shared = place("shared");
    let one = S3Store::new(&shared, &options()).unwrap();
    let two = S3Store::new(&format!("{shared}-2"), &options()).unwrap();
    one.put("keys/a", Bytes::from_static(b"1")).unwrap();
    two.put("keys/b", Bytes::from_static(b"2")).unwrap();
    let seen: Vec<String> = list_all(&one, "").unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(seen, ["keys/a"]);
    assert!(one.get("keys/b").unwrap_err().is_not_found());
}

#[test]
fn s3_works_inside_an_async_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = S3Store::new(&place("async"), &options()).unwrap();
        assert_eq!(store.put("a", Bytes::from_static(b"x")).unwrap(), Put::Created);
        assert_eq!(store.get("a").unwrap(), "x");
    });
}

#[test]
fn s3_wrong_secrets_and_missing_buckets_are_told_apart() {
    let wrong_secret = S3Options { secret_access_key: Some("wrong".into()), ..options() };
    let wrong_id = S3Options { access_key_id: Some("nobody".into()), ..options() };
    let nobody_there = S3Options { endpoint: Some("http://127.0.0.1:1".into()), ..options() };
    let tls_to_plain =
        S3Options { endpoint: options().endpoint.map(|url| url.replace("http://", "https://")), ..options() };
    let here = place("errors");
    let missing = "holdfast-no-such-bucket/x".to_owned();
    for (place, options, kind, hint) in [
        (&here, wrong_secret, "Denied", "SignatureDoesNotMatch"),
        (&here, wrong_id, "Denied", "credentials"),
        (&here, nobody_there, "Unavailable", "Connection refused"),
        (&here, tls_to_plain, "Unavailable", "https://127.0.0.1"),
        (&missing, options(), "Invalid", "does not exist"),
    ] {
        let store = open(&format!("s3://{place}"), &impatient(options)).unwrap();
        let mut errors = vec![store.get("a").unwrap_err(), store.list("", &mut |_| Ok(())).unwrap_err()];
        // (The service of our tests makes a missing bucket when an administrator puts into it.)
        if kind != "Invalid" {
            errors.push(store.put("a", Bytes::from_static(b"x")).unwrap_err());
        }
        for error in errors {
            assert!(format!("{error:?}").starts_with(kind), "{kind}: {error:?}");
            assert!(error.to_string().contains(hint), "{hint}: {error}");
        }
    }
}

/// A claim about cost: what is created anew is one request, and only a taken name is looked at.
#[test]
fn s3_a_new_object_costs_one_call() {
    let store = Record::new(S3Store::new(&place("cost"), &options()).unwrap());
    store.put("a", Bytes::from_static(b"x")).unwrap();
    assert_eq!(store.log().len(), 1);
    assert_eq!(store.calls(Verb::Put), ["a"]);
}

#[test]
fn s3_many_threads_share_one_store() {
    let store = Arc::new(S3Store::new(&place("threads"), &options()).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..10 {
                    let key = format!("packs/{thread}/{n}");
                    let content = vec![thread; 100_000 + n];
                    assert_eq!(store.put(&key, content.clone().into()).unwrap(), Put::Created);
                    assert!(store.get(&key).unwrap() == content);
                    assert!(store.get_range(&key, 7, 1000).unwrap() == content[7..1007]);
                }
            });
        }
    });
    assert_eq!(list_all(&store, "packs/").unwrap().len(), 80);
}

#[test]
fn s3_an_error_of_the_callback_is_the_callers() {
    let store = S3Store::new(&place("callback"), &options()).unwrap();
    store.put("a", Bytes::new()).unwrap();
    let theirs = || StoreError::Other { key: "mine".into(), url: String::new(), reason: "stop".into() };
    assert_eq!(store.list("", &mut |_| Err(theirs())).unwrap_err().key(), "mine");
}

/// Writes two points into a new repository, checks it and reads it back with a reader of its own.
fn live_in(place: &str) {
    let open = || open(&format!("s3://{place}"), &impatient(options())).unwrap();
    let (env, passphrase) = (Env::real(), Passphrase::new("x"));
    let init = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let repo = Repository::init(open(), &passphrase, &init, &env).unwrap();
    assert!(Repository::init(open(), &passphrase, &init, &env).is_err(), "there is one now");
    let mut content = vec![0; 40_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    for point in 0..2_u64 {
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let mut stream = writer.stream(Lane::Data);
        stream.write_all(&content).unwrap();
        let root = stream.finish().unwrap();
        let figures = BTreeMap::from([("point".to_owned(), point)]);
        let manifest = vec![ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures }];
        writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() }).unwrap();
    }
    let repo = Repository::open(open(), &passphrase, &env).unwrap();
    let report = check(&repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.counts.bytes_read >= 40_000_000 && report.counts.commits == 2);
    let reader = repo.reader(ReaderOptions::default()).unwrap();
    for id in repo.commit_ids().unwrap() {
        let entry = reader.manifest(&id).unwrap().remove(0);
        assert!(reader.bytes(&entry.root, 1 << 30).unwrap() == content);
    }
}

#[test]
fn s3_a_repository_lives_in_a_bucket() {
    live_in(&place("repository"));
}

/// A signed request of our own, for what a repository never asks.
fn curl(method: &str, path: &str, more: &[&str]) -> (bool, String) {
    let user = format!("{}:{}", variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    let output = Command::new("curl")
        .args([
            "-sS",
            "--fail-with-body",
            "--aws-sigv4",
            "aws:amz:us-east-1:s3",
            "--user",
            &user,
            "-X",
            method,
        ])
        // curl signs a body that it does not name; the service wants the name.
        .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
        .args(more)
        .arg(format!("{}/{path}", variable("HOLDFAST_TEST_S3_ENDPOINT")))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// R1: a bucket in which nothing can be replaced or removed for a day works as it is.
#[test]
fn s3_a_worm_bucket_holds_a_repository() {
    let bucket = format!("{}-worm-{}", variable("HOLDFAST_TEST_S3_BUCKET"), std::process::id());
    let (made, said) = curl("PUT", &bucket, &["-H", "x-amz-bucket-object-lock-enabled: true"]);
    assert!(made, "{said}");
    let retention = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                     <Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    let (set, said) = curl("PUT", &format!("{bucket}?object-lock="), &["--data-binary", retention]);
    assert!(set, "{said}");
    live_in(&format!("{bucket}/repository"));

    // That the bucket is what it should be: a version of a pack cannot be removed.
    let store = S3Store::new(&format!("{bucket}/repository"), &options()).unwrap();
    let pack = list_all(&store, "packs/").unwrap().remove(0).key;
    // (curl signs a query as it is: sorted, every name with its sign, every slash encoded.)
    let query = format!("prefix=repository/{pack}").replace('/', "%2F");
    let (listed, versions) = curl("GET", &format!("{bucket}?{query}&versions="), &[]);
    let version = versions.split_once("<VersionId>").and_then(|(_, rest)| rest.split_once("</VersionId>"));
    assert!(listed && version.is_some(), "{versions}");
    let (version, _) = version.unwrap();
    let (removed, said) = curl("DELETE", &format!("{bucket}/repository/{pack}?versionId={version}"), &[]);
    assert!(!removed, "{said}");
    assert!(store.get(&pack).is_ok());
}
