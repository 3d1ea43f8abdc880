//! What Google documents, played by a [responder](super::super::responder): retention policies, which no emulator has.
//! The store against an emulator: `tests/store_cloud.rs`.

use std::sync::Arc;

use super::super::probe::{Probe, probe};
use super::super::responder::{Objects, Reply, Request, serve};
use super::*;
use crate::Env;
use crate::env::rfc3339;

const DAY: u64 = 86_400;

/// A bucket as its owner made it, and what it really does.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    period: Option<u64>,
    locked: bool,
    /// Whether the credentials may read the bucket.
    tells: bool,
    /// Whether it does what its policy says.
    holds: bool,
}

const KEPT: Bucket = Bucket { period: Some(33 * DAY), locked: true, tells: true, holds: true };

fn said(status: u16, reason: &str, message: &str) -> Reply {
    let body = json!({"error": {"code": status, "message": message, "errors": [{"reason": reason}]}});
    (status, vec![("content-type", "application/json".into())], body.to_string().into_bytes())
}

fn plays_google(bucket: Bucket, env: &Env) -> (GcsStore, Objects) {
    let objects = Objects::new(env);
    let shared = objects.clone();
    let endpoint = serve(move |request| answer(bucket, &shared, request));
    let options = GcsOptions { endpoint: Some(endpoint), ..GcsOptions::default() };
    (GcsStore::new("bucket/some/prefix", &options).unwrap(), objects)
}

fn answer(bucket: Bucket, objects: &Objects, request: &Request) -> Reply {
    let ends = |since: i64| bucket.period.map(|seconds| since + seconds as i64 * 1_000_000_000);
    let not_met = || {
        said(
            403,
            "retentionPolicyNotMet",
            "Object 'x' is subject to bucket's retention policy and cannot be deleted",
        )
    };
    let is_kept = |name: &str| {
        let since = objects.find(name).map(|(_, since)| since);
        bucket.holds && since.and_then(ends).is_some_and(|ends| ends > objects.env.now())
    };
    if request.path == "/upload/storage/v1/b/bucket/o" {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let name = body.split("\"name\":\"").nth(1).unwrap().split('"').next().unwrap();
        let boundary = request.header("content-type").unwrap().split("boundary=").nth(1).unwrap();
        let start = request.body.windows(4).enumerate().filter(|(_, window)| window == b"\r\n\r\n").nth(1);
        let content = &request.body[start.unwrap().0 + 4..request.body.len() - boundary.len() - 8];
        return match objects.find(name) {
            Some(_) if request.query.contains("ifGenerationMatch=0") => said(412, "conditionNotMet", "no"),
            Some(_) if is_kept(name) => not_met(),
            _ => {
                objects.put(name, content);
                (200, vec![], b"{\"generation\":\"1\"}".to_vec())
            }
        };
    }
    if let Some(rest) = request.path.strip_prefix("/storage/v1/b/bucket") {
        if let Some(name) = rest.strip_prefix("/o/") {
            let Some((_, since)) = objects.find(name) else { return said(404, "notFound", "No such object") };
            let mut object = json!({ "timeCreated": rfc3339(since) });
            if let Some(ends) = ends(since) {
                object["retentionExpirationTime"] = rfc3339(ends).into();
            }
            return (200, vec![], object.to_string().into_bytes());
        }
        if !bucket.tells {
            return said(403, "forbidden", "x does not have storage.buckets.get access");
        }
        let mut answer = json!({ "softDeletePolicy": { "retentionDurationSeconds": "604800" } });
        if let Some(period) = bucket.period {
            answer["retentionPolicy"] =
                json!({ "retentionPeriod": period.to_string(), "isLocked": bucket.locked });
        }
        return (200, vec![], answer.to_string().into_bytes());
    }
    let Some(name) = request.path.strip_prefix("/bucket/") else {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/bucket"));
        let mut found = String::new();
        let prefix = request.query.split("prefix=").nth(1).unwrap_or_default().replace("%2F", "/");
        let prefix = prefix.split('&').next().unwrap();
        for (name, (bytes, since)) in
            objects.all.lock().unwrap().iter().filter(|(n, _)| n.starts_with(prefix))
        {
            let (size, time) = (bytes.len(), rfc3339(*since));
            found += &format!(
                "<Contents><Key>{name}</Key><Size>{size}</Size><LastModified>{time}</LastModified><ETag>\"e\"</ETag></Contents>"
            );
        }
        return (200, vec![], format!("<ListBucketResult>{found}</ListBucketResult>").into_bytes());
    };
    match request.method.as_str() {
        "DELETE" if is_kept(name) => not_met(),
        "DELETE" => match objects.all.lock().unwrap().remove(name) {
            Some(_) => (204, vec![], vec![]),
            None => (404, vec![], vec![]),
        },
        _ => objects.read(request, name, vec![]),
    }
}

fn probed(bucket: Bucket) -> Probe {
    let env = Env::fixed(20_000 * DAY as i64 * 1_000_000_000, 1);
    probe(&plays_google(bucket, &env).0, &[], &env).unwrap()
}

/// A bucket as it may be, and what the probe makes of it.
#[test]
fn a_policy_counts_as_far_as_it_was_seen_to_hold() {
    let compliance = Some(Retention { mode: LockMode::Compliance, seconds: 33 * DAY });
    let governance = Some(Retention { mode: LockMode::Governance, seconds: 33 * DAY });
    for (bucket, expected, told) in [
        (KEPT, compliance, "soft delete"),
        (Bucket { locked: false, ..KEPT }, governance, ""),
        // What cannot be read is told by each object; that it cannot be taken back is not believed.
        (Bucket { tells: false, ..KEPT }, governance, "storage.buckets.get"),
        (Bucket { period: None, ..KEPT }, None, "soft delete"),
        (Bucket { holds: false, ..KEPT }, None, "could be overwritten or deleted"),
    ] {
        let found = probed(bucket);
        assert_eq!(found.retention, expected, "{bucket:?}: {found:?}");
        assert!(found.conditional_put && found.locks.is_empty() && !found.versions, "{found:?}");
        assert!(
            told.is_empty() || found.notes.iter().any(|note| note.contains(told)),
            "{bucket:?}: {told}: {found:?}"
        );
    }
}

#[test]
fn what_is_kept_cannot_be_deleted_before_its_date_and_says_so() {
    let env = Env::fixed(20_000 * DAY as i64 * 1_000_000_000, 1);
    let (store, _) = plays_google(KEPT, &env);
    store.put("packs/ab/x", Bytes::from_static(b"x")).unwrap();
    let refused = store.delete("packs/ab/x").unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused:?}");
    assert!(refused.to_string().contains("is locked until 2024-"), "{refused}");
    env.advance(34 * DAY as i64 * 1_000_000_000);
    store.delete("packs/ab/x").unwrap();
    assert!(store.get("packs/ab/x").unwrap_err().is_not_found());
}

#[test]
fn keeps_the_contract() {
    let env = Env::real();
    let bucket = Bucket { period: None, ..KEPT };
    super::super::suite::run(&plays_google(bucket, &env).0);
}

#[test]
fn a_repository_counts_on_a_verified_policy_and_on_no_other() {
    use crate::{InitOptions, Kdf, LockPolicy, Passphrase, Repository};
    let init = |bucket: Bucket, mode, days: u64| {
        let env = Env::fixed(20_000 * DAY as i64 * 1_000_000_000, 1);
        let (store, objects) = plays_google(bucket, &env);
        let lock = Some(LockPolicy::new(mode, days * DAY).unwrap());
        let options = InitOptions { kdf: Kdf::cheap(), lock, ..InitOptions::default() };
        Repository::init(Arc::new(store), &Passphrase::new("x"), &options, &env).map(|repo| (repo, objects))
    };
    let (repo, objects) = init(KEPT, LockMode::Compliance, 30).unwrap();
    let lock = repo.lock().unwrap();
    assert_eq!((lock.seconds, lock.slack_seconds), (30 * DAY, 3 * DAY));
    let header = objects.find("some/prefix/holdfast.json").unwrap().0;
    assert!(String::from_utf8_lossy(&header).contains(r#""by":"bucket""#), "{header:?}");
    init(Bucket { locked: false, ..KEPT }, LockMode::Governance, 30).unwrap();
    for (bucket, mode, days, said) in [
        (KEPT, LockMode::Compliance, 31, "34 days"),
        (KEPT, LockMode::Compliance, 400, "403 days"),
        (Bucket { locked: false, ..KEPT }, LockMode::Compliance, 30, "not locked"),
        (Bucket { tells: false, ..KEPT }, LockMode::Compliance, 30, "storage.buckets.get"),
        (Bucket { period: None, ..KEPT }, LockMode::Governance, 1, "keeps nothing by itself"),
        (Bucket { holds: false, ..KEPT }, LockMode::Governance, 1, "could be overwritten or deleted"),
    ] {
        let refused = init(bucket, mode, days).err().unwrap().to_string();
        assert!(refused.contains(said), "{said}: {refused}");
    }
}

/// The promise where nothing can be extended, for two months of daily backups: what a point needs is kept as long as
/// the point. What all of them share is stored again when its pack gets too old, and not every day.
#[test]
fn r1_no_point_outlives_what_it_needs_where_only_the_bucket_keeps() {
    use crate::check::{CheckOptions, check, packs_of};
    use crate::{
        CommitDraft, EntryKind, InitOptions, Kdf, Lane, LockPolicy, ManifestEntry, Passphrase, ReaderOptions,
        Repository, WriterOptions,
    };
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Write;

    const NANOS: i64 = 1_000_000_000;
    let env = Env::fixed(20_000 * DAY as i64 * NANOS, 1);
    let bucket = Bucket { period: Some(38 * DAY), ..KEPT };
    let (store, objects) = plays_google(bucket, &env);
    let lock = Some(LockPolicy::new(LockMode::Compliance, 30 * DAY).unwrap());
    let options = InitOptions { kdf: Kdf::cheap(), lock, ..InitOptions::default() };
    let repo = Repository::init(Arc::new(store), &Passphrase::new("x"), &options, &env).unwrap();
    let mut shared = vec![0; 100_000];
    blake3::Hasher::new().finalize_xof().fill(&mut shared);
    let mut stored = BTreeSet::new();
    for day in 0..60 {
        let writer = repo.writer(WriterOptions::default()).unwrap();
        let mut stream = writer.stream(Lane::Data);
        stream.write_all(&shared).unwrap();
        stream.write_all(&[day; 10_000]).unwrap();
        let root = stream.finish().unwrap();
        let figures = BTreeMap::new();
        let manifest = vec![ManifestEntry { name: "a".into(), kind: EntryKind::Bytes, root, figures }];
        let draft = CommitDraft { kind: "volume".into(), manifest, ..CommitDraft::default() };
        let commit = writer.commit(draft).unwrap();
        let promised = commit.summary.time + 30 * DAY as i64 * NANOS;
        let reader = repo.reader(ReaderOptions::default()).unwrap();
        for number in packs_of(&repo, &reader, &[commit.id]).unwrap().numbers() {
            let (pack, size) = reader.index().pack(number).unwrap();
            let (_, since) = objects.find(&format!("some/prefix/{}", pack.key())).unwrap();
            // Which of several places of a chunk is read does not matter: one that is kept is enough, and the newest is.
            if size > 50_000 && since == commit.summary.time {
                stored.insert(since);
            }
        }
        let last = *stored.last().unwrap() + 38 * DAY as i64 * NANOS;
        assert!(last >= promised, "day {day}: what all share unlocks {}", rfc3339(last));
        env.advance(DAY as i64 * NANOS);
    }
    assert!(
        (8..=13).contains(&stored.len()),
        "once in three quarters of a slack of 8 days: {}",
        stored.len()
    );
    let report = check(&repo, &CheckOptions::default(), &()).unwrap();
    let codes: Vec<&str> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(
        codes.iter().filter(|code| **code == "kept-too-short").count(),
        2,
        "header and key: {codes:?}"
    );
    assert!(!report.is_damaged() && !codes.contains(&"retention-shorter"), "{codes:?}");
    // Somebody shortened the policy, or made the repository's bucket anew.
    let (shorter, _) = plays_google(Bucket { period: Some(2 * DAY), ..KEPT }, &env);
    for object in super::super::list_all(&**repo.store(), "").unwrap() {
        shorter.put(&object.key, repo.store().get(&object.key).unwrap()).unwrap();
    }
    let repo = Repository::open(Arc::new(shorter), &Passphrase::new("x"), &env).unwrap();
    let report = check(&repo, &CheckOptions::default(), &()).unwrap();
    assert!(report.findings.iter().any(|finding| finding.code == "retention-shorter"), "{report:?}");
    let renewed = crate::immutable::renew(&repo, &crate::immutable::RenewOptions::default()).unwrap_err();
    assert!(renewed.to_string().contains("nothing of it can be extended"), "{renewed}");
}
