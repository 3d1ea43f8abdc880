//! What each role's credentials can do, verb by verb: `tests/real/with s3 -- cargo test -p repo --test store_roles`.
//!
//! The policies are those of `docs/object-store.md`, taken from the page. The passphrases' own limits (R5) are
//! shown without a store in `promises.rs` and `repo.rs`; here both hold together.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot run fails and says why")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use repo::check::{CheckOptions, check};
use repo::store::faulty::{Faults, Faulty};
use repo::store::retry::{Retry, RetryPolicy};
use repo::store::spool::{Spool, SpoolOptions};
use repo::store::vault::{Lock, LockMode, list_versions};
use repo::store::{S3Options, Store, StoreError, StoreOptions, list_all, open};
use repo::{
    Bundle, Cancel, Capability, CommitDraft, CommitId, EntryKind, Env, Error, InitOptions, Kdf, Lane,
    LockPolicy, ManifestEntry, PackKeys, Passphrase, ReaderOptions, Remember, Repository, Root,
    WriterOptions,
};
use serde_json::{Value, json};

const ROLES: [&str; 5] = ["put", "node", "list", "read", "gc"];

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run through `tests/real/with s3 -- cargo test …`"))
}

/// The credentials of a role; of the owner, if it has no name.
fn options(role: &str) -> S3Options {
    let suffix = if role.is_empty() { String::new() } else { format!("-{role}") };
    S3Options {
        endpoint: Some(variable("HOLDFAST_TEST_S3_ENDPOINT")),
        access_key_id: Some(variable("AWS_ACCESS_KEY_ID") + &suffix),
        secret_access_key: Some(variable("AWS_SECRET_ACCESS_KEY") + &suffix),
        ..S3Options::default()
    }
}

/// A request as the owner.
fn curl(method: &str, path: &str, more: &[&str]) {
    let user = format!("{}:{}", variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    let output = Command::new("curl")
        .args(["-sS", "--fail-with-body", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user])
        .args(["-X", method, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
        .args(more)
        .arg(format!("{}/{path}", variable("HOLDFAST_TEST_S3_ENDPOINT")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The policy of a role, as the page has it, for this bucket and for the identity of that role.
fn statements(role: &str, bucket: &str) -> Vec<Value> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/object-store.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!("```json {role}\n")).unwrap();
    let (policy, _) = rest.split_once("```").unwrap();
    let policy = policy.replace("BUCKET", bucket).replace("PREFIX", "r");
    let mut policy: Value = serde_json::from_str(&policy).unwrap();
    let statements = policy["Statement"].as_array_mut().unwrap();
    for statement in statements.iter_mut() {
        statement["Principal"] = json!({ "AWS": format!("arn:aws:iam::000000000000:user/{role}") });
    }
    std::mem::take(statements)
}

struct Site {
    place: String,
    content: Vec<u8>,
    point: CommitId,
}

/// A repository with a point, a key for each capability, and the policies of all roles.
fn site(name: &str, lock: bool) -> Site {
    let bucket = format!("{}-roles-{name}-{}", variable("HOLDFAST_TEST_S3_BUCKET"), std::process::id());
    curl("PUT", &bucket, &["-H", "x-amz-bucket-object-lock-enabled: true"]);
    let all: Vec<Value> = ROLES.iter().flat_map(|role| statements(role, &bucket)).collect();
    let policy = json!({ "Version": "2012-10-17", "Statement": all }).to_string();
    curl("PUT", &format!("{bucket}?policy="), &["--data-binary", &policy]);
    let mut site = Site { place: format!("{bucket}/r"), content: vec![0; 3_000_000], point: CommitId::ZERO };
    blake3::Hasher::new().finalize_xof().fill(&mut site.content);
    let lock = lock.then(|| LockPolicy::new(LockMode::Governance, 3_600).unwrap());
    let init = InitOptions { kdf: Kdf::cheap(), lock, ..InitOptions::default() };
    let repo = Repository::init(site.store(""), &Passphrase::new("read"), &init, &Env::real()).unwrap();
    for (words, capability) in [("put", Capability::Put), ("list", Capability::List)] {
        repo.add_key(&Passphrase::new(words), capability, words, Kdf::cheap()).unwrap();
    }
    site.point = site.backup(&repo, &site.content).unwrap();
    site
}

impl Site {
    fn store(&self, role: &str) -> Arc<dyn Store> {
        let retry = RetryPolicy { tries_max: 1, ..RetryPolicy::default() };
        let options = StoreOptions { s3: options(role), retry, ..StoreOptions::default() };
        open(&format!("s3://{}", self.place), &options).unwrap()
    }

    /// With the credentials of a role and the passphrase of a capability.
    fn open(&self, role: &str, words: &str) -> Repository {
        Repository::open(self.store(role), &Passphrase::new(words), &Env::real()).unwrap()
    }

    fn backup(&self, repo: &Repository, content: &[u8]) -> Result<CommitId, Error> {
        let writer = repo.writer(WriterOptions::default())?;
        let mut stream = writer.stream(Lane::Data);
        stream.write_all(content).unwrap();
        let (root, figures) = (stream.finish()?, BTreeMap::new());
        let manifest = vec![ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures }];
        Ok(writer.commit(CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() })?.id)
    }

    fn restore(&self, repo: &Repository) -> Result<Vec<u8>, Error> {
        let reader = repo.reader(ReaderOptions::default())?;
        let entry = reader.manifest(&self.point)?.remove(0);
        reader.bytes(&entry.root, 1 << 30)
    }

    /// One object of each kind.
    fn objects(&self) -> Vec<String> {
        let all = list_all(&*self.store(""), "").unwrap();
        let kinds = ["holdfast.json", "keys/", "packs/", "index/", "commits/"];
        let one = |kind: &&str| all.iter().find(|object| object.key.starts_with(kind)).unwrap().key.clone();
        kinds.iter().map(one).collect()
    }
}

fn denied<T: std::fmt::Debug>(what: &str, result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Denied { .. })), "{what}: {result:?}");
}

/// Every verb that removes or weakens, on every kind of object.
fn nothing_can_be_removed(site: &Site, role: &str) {
    let store = site.store(role);
    let (owner, vault) = (site.store(""), store.vault().unwrap());
    for key in site.objects() {
        let before = list_versions(owner.vault().unwrap(), &key).unwrap();
        denied(&format!("{role} hides {key}"), vault.hide(&key));
        let deleted = vault.delete_version(&key, &before[0].id);
        let refused = matches!(deleted, Err(StoreError::Denied { .. } | StoreError::Locked { .. }));
        assert!(refused, "{role} deletes {key}: {deleted:?}");
        assert!(store.delete(&key).is_err(), "{role} deletes {key}");
        assert_eq!(list_versions(owner.vault().unwrap(), &key).unwrap(), before, "{role}: {key}");
    }
}

#[test]
fn s3_a_stolen_put_key_can_back_up_and_neither_read_nor_remove() {
    let site = site("put", false);
    let repo = site.open("put", "put");
    site.backup(&repo, &site.content).unwrap();
    site.backup(&repo, &site.content[1_000_000..]).unwrap();
    // On a bad line too: a put whose answer was lost is met again, and cannot be read back for a comparison.
    let faults = Faults { seed: 4, lost_per_mille: 200, ..Faults::default() };
    let line = Faulty::new(site.store("put"), faults);
    let line = Retry::with_sleep(line, RetryPolicy::default(), Env::real(), Cancel::new(), Arc::new(|_| {}));
    let flaky = Repository::open(Arc::new(line), &Passphrase::new("put"), &Env::real()).unwrap();
    for n in 0..4_u64 {
        let new: Vec<u8> = (n..n + 60_000).flat_map(u64::to_le_bytes).collect();
        site.backup(&flaky, &new).unwrap();
    }
    // Its passphrase does not let it read, and its credentials do not let it fetch.
    assert!(matches!(repo.commits(), Err(Error::NotPermitted { .. })));
    assert!(matches!(site.restore(&repo), Err(Error::NotPermitted { .. })));
    let store = site.store("put");
    for key in site.objects() {
        let get = store.get(&key);
        match key.split('/').next().unwrap() {
            "packs" | "commits" => denied(&key, get),
            _ => assert!(get.is_ok(), "{key}: {get:?}"),
        }
    }
    denied("puts a key", store.put("keys/00000000000000000000000000000000", Bytes::from_static(b"x")));
    denied("puts a hold", store.put("holds/x/y", Bytes::from_static(b"x")));
    denied("puts a header", store.vault().unwrap().put_over("holdfast.json", Bytes::from_static(b"x"), None));
    nothing_can_be_removed(&site, "put");
    // Where the service has no condition for puts it can lay garbage over objects; that is seen, and undone.
    for key in site.objects().iter().filter(|key| key.starts_with("packs/") || key.starts_with("commits/")) {
        assert!(store.put(key, Bytes::from_static(b"garbage")).is_ok(), "a put never replaces");
        store.vault().unwrap().put_over(key, Bytes::from_static(b"garbage"), None).unwrap();
    }
    let (owner, passphrase) = (site.store("gc"), Passphrase::new("read"));
    let plan = repo::undelete::plan(&*owner, Some((&passphrase).into())).unwrap();
    assert_eq!((plan.steps.len(), plan.findings.len()), (2, 0), "{plan:?}");
    assert_eq!(plan.execute(&*owner, &Env::real()).unwrap().findings, []);
    assert_eq!(site.restore(&site.open("read", "read")).unwrap(), site.content);
}

/// What a node agent is: a put bundle, the keys of the packs it wrote, a spool, and credentials of its own.
#[test]
fn s3_a_node_backs_up_reads_its_own_packs_and_no_others_and_removes_nothing() {
    let site = site("node", false);
    let owner = site.open("", "read");
    let bundle = owner.bundle(Capability::Put).unwrap();
    let bundle = Bundle::from_bytes(bundle.as_bytes()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = SpoolOptions { dir: dir.path().to_owned(), room_bytes: 64 << 20, senders: 2 };
    let spool = Spool::new(site.store("node"), &options, &Env::real()).unwrap();
    let repo = Repository::open(Arc::new(spool), &bundle, &Env::real()).unwrap();

    // Some of it is there already, in a pack that is not the node's.
    let new: Vec<u8> = site.content.iter().enumerate().map(|(at, byte)| byte ^ (at >> 8) as u8 ^ 1).collect();
    let writer = repo.writer(WriterOptions { remember: Remember::All, ..WriterOptions::default() }).unwrap();
    let mut roots = Vec::new();
    for content in [&site.content, &new] {
        let mut stream = writer.stream(Lane::Data);
        stream.write_all(content).unwrap();
        roots.push(stream.finish().unwrap());
    }
    let keys = writer.pack_keys();
    let entry = |(at, root): (usize, &Root)| {
        let (name, figures) = (format!("s{at}"), BTreeMap::new());
        ManifestEntry { name, kind: EntryKind::Bytes, root: *root, figures }
    };
    let manifest = roots.iter().enumerate().map(entry).collect();
    let point =
        writer.commit(CommitDraft { kind: "piece".into(), manifest, ..CommitDraft::default() }).unwrap();

    let with = |keys| {
        let options = ReaderOptions { pack_keys: Some(keys), ..ReaderOptions::default() };
        repo.reader(options).unwrap()
    };
    let own = with(keys);
    assert_eq!(own.bytes(&roots[1], 1 << 30).unwrap(), new);
    let foreign = own.bytes(&roots[0], 1 << 30);
    assert!(matches!(foreign, Err(Error::KeyMissing { .. })), "{foreign:?}");
    let given = PackKeys::new();
    let streams = [(EntryKind::Bytes, roots[0])];
    let mut give = |pack, key| {
        given.give(pack, key);
        Ok(())
    };
    owner.pack_keys(&streams, true, &Cancel::new(), &mut give).unwrap();
    assert_eq!(with(given).bytes(&roots[0], 1 << 30).unwrap(), site.content);
    assert!(matches!(repo.commits(), Err(Error::NotPermitted { .. })));
    assert!(repo.manifest_root(&point.id).is_err());

    let store = site.store("node");
    for key in site.objects() {
        let get = store.get(&key);
        match key.split('/').next().unwrap() {
            "commits" | "keys" => denied(&key, get),
            _ => assert!(get.is_ok(), "{key}: {get:?}"),
        }
    }
    denied("puts a key", store.put("keys/00000000000000000000000000000000", Bytes::from_static(b"x")));
    denied("puts a hold", store.put("holds/x/y", Bytes::from_static(b"x")));
    nothing_can_be_removed(&site, "node");
}

#[test]
fn s3_a_put_key_renews_the_locks_of_what_it_reuses_and_shortens_none() {
    let site = site("renew", true);
    let repo = site.open("put", "put");
    site.backup(&repo, &site.content).unwrap();
    let vault = repo.store().vault().unwrap();
    let pack = site.objects().remove(2);
    let there = vault.lock_of(&pack).unwrap().unwrap();
    let minute = 60_000_000_000;
    vault.set_lock(&pack, &Lock::new(there.mode, there.until + minute)).unwrap();
    assert!(vault.set_lock(&pack, &Lock::new(there.mode, there.until - minute)).is_err());
    assert_eq!(vault.lock_of(&pack).unwrap().unwrap().until, there.until + minute);
    nothing_can_be_removed(&site, "put");
}

#[test]
fn s3_a_stolen_list_key_sees_points_and_no_data() {
    let site = site("list", false);
    let repo = site.open("list", "list");
    assert_eq!(repo.commits().unwrap().done.len(), 1);
    repo.add_hold(&site.point, "audit", "me", None).unwrap();
    assert!(matches!(site.restore(&repo), Err(Error::NotPermitted { .. })));
    assert!(matches!(site.backup(&repo, b"x"), Err(Error::NotPermitted { .. })));
    let store = site.store("list");
    denied("gets a pack", store.get(&site.objects()[2]));
    denied("gets a part of a pack", store.get_range(&site.objects()[2], 0, 100));
    for key in ["packs/ab/x", "index/x", "commits/x", "keys/x", "holdfast.json", "gc/mark-x"] {
        let put = store.vault().unwrap().put_over(key, Bytes::from_static(b"x"), None);
        denied(&format!("puts {key}"), put);
    }
    nothing_can_be_removed(&site, "list");
    // Whatever it may fetch is sealed for others: nothing of the content is in it.
    let seen: Vec<u8> =
        list_all(&*store, "").unwrap().iter().filter_map(|o| store.get(&o.key).ok()).flatten().collect();
    assert!(!seen.windows(16).any(|window| window == &site.content[..16]));
}

#[test]
fn s3_a_read_key_restores_and_changes_nothing() {
    let site = site("read", false);
    let repo = site.open("read", "read");
    assert_eq!(site.restore(&repo).unwrap(), site.content);
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    assert_eq!(check(&repo, &options, &()).unwrap().findings, []);
    assert!(site.backup(&repo, b"something new").is_err());
    let store = site.store("read");
    for key in ["packs/ab/x", "index/x", "commits/x", "keys/x", "holdfast.json", "holds/x/y"] {
        denied(&format!("puts {key}"), store.put(key, Bytes::from_static(b"x")));
    }
    nothing_can_be_removed(&site, "read");
}

#[test]
fn s3_the_gc_role_removes_what_is_not_locked_and_cannot_bypass_a_lock() {
    let site = site("gc", true);
    let store = site.store("gc");
    store.put("gc/mark-x", Bytes::from_static(b"x")).unwrap();
    store.delete("gc/mark-x").unwrap();
    assert_eq!(list_versions(store.vault().unwrap(), "gc/").unwrap(), []);
    for key in site.objects() {
        let refused = store.delete(&key);
        assert!(matches!(refused, Err(StoreError::Locked { .. })), "{key}: {refused:?}");
    }
    assert_eq!(site.restore(&site.open("gc", "read")).unwrap(), site.content);
}
