//! What a recovery point says is read as the word of a stranger: whoever holds a put key can write a commit of any bytes.
//! Seeded mutations of every document of a point, through the types that read it and through the point as a whole: nothing
//! panics, what is accepted is written again as the same value, and what is refused is called damage, with its name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use app::api::ApiResources;
use app::certificate::Certificate;
use app::point::{Contents, PointMeta, StoredObject, VolumeRecord};
use repo::store::mem::MemStore;
use repo::{
    CommitDraft, EntryKind, Env, InitOptions, Kdf, Lane, ManifestEntry, Passphrase, ReaderOptions,
    Repository, WriterOptions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Pseudo-random numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

/// The documents of a point, with everything optional in them.
fn documents() -> BTreeMap<&'static str, String> {
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment", "plural": "deployments", "namespaced": true});
    let key = json!({"group": "apps", "kind": "Deployment", "namespace": "shop", "name": "web"});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}});
    let stored = json!({
        "resource": kind, "key": key, "role": "member", "restore": "yes", "original": object, "clean": object,
    });
    let time = "2026-11-21T11:45:20.5Z";
    let point = json!({
        "format": 1, "application": "shop", "cluster": {"id": "u-1", "version": "v1.33.1"}, "namespaces": ["shop"],
        "started": time, "cut": time, "finished": time, "consistency": "fuzzy", "selection": {"names": ["web"]},
        "rules": [{"name": "r", "members": 2, "held_ms": 30, "kept": true}], "holdfast": "0.1.0",
    });
    let volumes = json!([{
        "namespace": "shop", "claim": "data", "volume": "pv-1", "entry": "volume/shop/data", "consistency": "fuzzy",
        "bytes": 7, "files": 1, "started": time, "note": "read while in use", "missing": null,
    }]);
    let certificate = json!({
        "complete": false,
        "references": [{"from": key, "to": key, "via": "config", "at": "/spec/x", "state": "missing", "reason": "it is nowhere"}],
        "volumes": [], "findings": [{"severity": "warning", "code": "forbidden", "what": "secrets", "message": "no"}],
    });
    let discovery = json!({"version": "v1.33.1", "types": [kind], "broken": []});
    BTreeMap::from([
        ("point.json", point.to_string()),
        ("volumes.json", volumes.to_string()),
        ("certificate.json", certificate.to_string()),
        ("discovery.json", discovery.to_string()),
        ("objects.jsonl", format!("{stored}\n{stored}\n")),
    ])
}

/// A change of the text, or of the value in it.
fn mutate(text: &str, dice: &mut Dice) -> Vec<u8> {
    const VALUES: [&str; 12] = [
        "null",
        "true",
        "-1",
        "18446744073709551616",
        "1e999",
        "\"\"",
        "[]",
        "{}",
        "\"\\ud800\"",
        "\"2026-13-45T99:99:99Z\"",
        "[[[[[[]]]]]]",
        "\"\\u0000\"",
    ];
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        match dice.below(7) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            2 => drop(bytes.splice(at..at, b"\n".iter().copied())),
            3 => {
                // The same name or value twice, or a piece of it.
                let piece = bytes[at..(at + dice.below(40)).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            _ => {
                // Another value after a colon.
                let colons: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b':').collect();
                let Some(colon) = colons.get(dice.below(colons.len())) else { continue };
                let end = bytes[colon + 1..].iter().position(|b| matches!(b, b',' | b'}')).unwrap_or(0);
                let value = VALUES[dice.below(VALUES.len())].bytes();
                drop(bytes.splice(colon + 1..colon + 1 + end, value));
            }
        }
    }
    if dice.below(50) == 0 {
        bytes = "[".repeat(100_000).into_bytes();
    }
    bytes
}

/// Accepted: written again as the same value. True if it was.
fn hold<T: DeserializeOwned + Serialize + PartialEq + Debug>(name: &str, input: &[u8]) -> bool {
    let read = catch_unwind(AssertUnwindSafe(|| serde_json::from_slice::<T>(input)));
    let Ok(read) = read else { panic!("{name} panics on {}", String::from_utf8_lossy(input)) };
    let Ok(value) = read else { return false };
    let again: T = serde_json::from_slice(&serde_json::to_vec(&value).unwrap()).unwrap();
    assert_eq!(again, value, "{name}: {}", String::from_utf8_lossy(input));
    true
}

#[test]
fn whatever_a_document_of_a_point_says_it_is_read_exactly_or_refused() {
    let documents = documents();
    let line = documents["objects.jsonl"].lines().next().unwrap().to_owned();
    type Hold = fn(&str, &[u8]) -> bool;
    let rows: [(&str, &str, Hold); 5] = [
        ("point.json", &documents["point.json"], hold::<PointMeta>),
        ("volumes.json", &documents["volumes.json"], hold::<Vec<VolumeRecord>>),
        ("certificate.json", &documents["certificate.json"], hold::<Certificate>),
        ("discovery.json", &documents["discovery.json"], hold::<ApiResources>),
        ("objects.jsonl", &line, hold::<StoredObject>),
    ];
    for (name, sample, hold) in rows {
        assert!(hold(name, sample.as_bytes()), "{name}: a good one is refused: {sample}");
        let mut dice = Dice(name.len() as u64);
        let accepted = (0..5_000).filter(|_| hold(name, &mutate(sample, &mut dice))).count();
        assert!((10..4_990).contains(&accepted), "{name}: {accepted} of 5000 accepted");
    }
}

/// A commit whose documents are these, as somebody with a put key could have written it.
fn commit(store: &MemStore, documents: &BTreeMap<&'static str, Vec<u8>>) -> Repository {
    let env = Env::fixed(1_700_000_000_000_000_000, 7);
    let repo = Repository::open(Arc::new(store.clone()), &Passphrase::new("x"), &env).unwrap();
    let options = WriterOptions { threads: 1, uploads: 1, ..WriterOptions::default() };
    let writer = repo.writer(options).unwrap();
    let manifest = documents.iter().map(|(name, bytes)| {
        let mut stream = writer.stream(Lane::Data);
        stream.append(bytes).unwrap();
        let root = stream.finish().unwrap();
        ManifestEntry { name: (*name).into(), kind: EntryKind::Bytes, root, figures: BTreeMap::new() }
    });
    let manifest = manifest.collect();
    writer.commit(CommitDraft { kind: "application".into(), manifest, ..CommitDraft::default() }).unwrap();
    repo
}

/// Reads all of it, as a restore does; the first thing that is wrong.
fn read(repo: &Repository) -> Result<usize, repo::Error> {
    let info = repo.find_commit("latest")?;
    let reader = repo.reader(ReaderOptions::default())?;
    let contents = Contents::open(&reader, &info)?;
    contents.meta()?;
    contents.certificate()?;
    contents.volumes()?;
    contents.discovery()?;
    contents.objects()?.try_fold(0, |count, object| object.map(|_| count + 1))
}

#[test]
fn a_point_whose_documents_are_hostile_is_called_damaged_and_names_the_document() {
    let store = MemStore::new();
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let env = Env::fixed(1_700_000_000_000_000_000, 1);
    Repository::init(Arc::new(store.clone()), &Passphrase::new("x"), &options, &env).unwrap();
    let blank = store.snapshot();
    let good: BTreeMap<&'static str, Vec<u8>> =
        documents().into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
    assert_eq!(read(&commit(&MemStore::from_snapshot(blank.clone()), &good)).unwrap(), 2);
    let mut refused = BTreeMap::new();
    for (name, text) in documents() {
        let mut dice = Dice(99 + name.len() as u64);
        for round in 0..40 {
            let mut hostile = good.clone();
            hostile.insert(name, mutate(&text, &mut dice));
            let repo = commit(&MemStore::from_snapshot(blank.clone()), &hostile);
            let story = format!("{name}, round {round}: {}", String::from_utf8_lossy(&hostile[name]));
            let said = catch_unwind(AssertUnwindSafe(|| read(&repo)));
            match said {
                Err(_) => panic!("{story}: it panics"),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    let newer = matches!(error, repo::Error::NewerFormat { .. });
                    assert!(
                        newer || error.is_damage() && error.to_string().contains(name),
                        "{story}: {error}"
                    );
                    *refused.entry(name).or_insert(0) += 1;
                }
            }
        }
    }
    for (name, count) in refused {
        assert!(count >= 5, "{name}: {count} refused");
    }
    // One that is left out, and one of a later format.
    for name in good.keys() {
        let mut less = good.clone();
        less.remove(name);
        let error = read(&commit(&MemStore::from_snapshot(blank.clone()), &less)).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(name), "{error}");
    }
    let mut later: Value = serde_json::from_slice(&good["point.json"]).unwrap();
    later["format"] = json!(99);
    let mut newer = good.clone();
    newer.insert("point.json", later.to_string().into_bytes());
    let error = read(&commit(&MemStore::from_snapshot(blank), &newer)).unwrap_err();
    assert!(matches!(error, repo::Error::NewerFormat { version: 99, .. }), "{error}");
}
