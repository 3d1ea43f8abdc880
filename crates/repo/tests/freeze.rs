//! R7, the other way round: what a later release may add to format version 1 is passed over by this one, and what it
//! may not is refused, as `docs/formats/repository.md` says («What may change, and how»).
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::NOW;
use repo::check::{CheckOptions, check};
use repo::decoders::{self, Decoder};
use repo::gc::GcOptions;
use repo::store::mem::MemStore;
use repo::store::{Store, list_all};
use repo::{Env, Error, InitOptions, Kdf, Passphrase, Repository, Severity};

fn decoder(name: &str) -> Decoder {
    decoders::all().unwrap().into_iter().find(|decoder| decoder.name == name).unwrap()
}

/// A map of CBOR with one more numeric key than this release knows, greater than all it knows.
fn one_key_more(map: &[u8]) -> Vec<u8> {
    assert!((0xa0..0xb7).contains(&map[0]), "a map of few keys: {:02x}", map[0]);
    let mut more = map.to_vec();
    more[0] += 1;
    more.extend([0x18, 200, 0x82, 0x01, 0x61, b'x']);
    more
}

#[test]
fn r7_a_numeric_key_of_a_later_release_is_passed_over_in_every_map() {
    for name in ["summary", "commit-root", "hold", "check-note", "lease", "mark", "verdict", "bundle", "tree"]
    {
        let decoder = decoder(name);
        // Of a tree the entries one by one; the last sample is all of them.
        let count = if name == "tree" { decoder.samples.len() - 1 } else { decoder.samples.len() };
        for sample in &decoder.samples[..count] {
            let read = (decoder.recode)(&one_key_more(sample));
            assert_eq!(read, Ok(Some(sample.clone())), "{name}");
        }
    }
}

#[test]
fn r7_a_name_of_a_later_release_is_passed_over_in_json() {
    for (name, inner) in [("header", "\"chunk_bytes\":{"), ("key-object", "\"kdf\":{")] {
        let decoder = decoder(name);
        for sample in &decoder.samples {
            let text = String::from_utf8(sample.clone()).unwrap();
            let more = text
                .replacen('{', "{\"later\":[{\"a\":1}],", 1)
                .replace(inner, &format!("{inner}\"later\":1,"));
            let plain = (decoder.recode)(sample).unwrap();
            assert_eq!((decoder.recode)(more.as_bytes()).unwrap(), plain, "{name}: {more}");
        }
    }
}

#[test]
fn r7_what_must_be_understood_is_refused_if_it_is_not() {
    let refused = |name: &str, bytes: &[u8], what: &str| {
        let said = (decoder(name).recode)(bytes);
        assert!(said.is_err(), "{name}, {what}: {said:?}");
    };
    let sample = |name: &str| decoder(name).samples[0].clone();
    let replaced = |name: &str, from: &str, to: &str| {
        let text = String::from_utf8(sample(name)).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        text.replace(from, to).into_bytes()
    };
    refused("header", &replaced("header", "\"version\":1", "\"version\":2"), "a later version");
    refused("header", &replaced("header", "holdfast-repository", "something-else"), "another format");
    refused(
        "header",
        &replaced(
            "header",
            "\"store\":",
            "\"lock\":{\"mode\":\"COMPLIANCE\",\"seconds\":9,\"slack_seconds\":9,\"by\":\"moon\"},\"store\":",
        ),
        "another way to lock",
    );
    refused("key-object", &replaced("key-object", "\"version\":1", "\"version\":2"), "a later version");
    // An array has the elements it has: one more is another form.
    let name = "manifest";
    let mut bytes = sample(name);
    assert_eq!(bytes[0], 0x84, "{name}");
    bytes[0] = 0x85;
    bytes.push(1);
    refused(name, &bytes, "an element more");
    // A kind of manifest entry: `[name, kind, …]`; the first is named "objects".
    let mut manifest = sample("manifest");
    let kind = 2 + "objects".len();
    assert_eq!(manifest[kind], 0);
    manifest[kind] = 2;
    refused("manifest", &manifest, "kind 2");
    // A type of tree entry: the socket, the last there is.
    let tree = decoder("tree");
    let socket = &tree.samples[tree.samples.len() - 2];
    let at = socket.windows(2).position(|pair| pair == [1, 7]).unwrap();
    let mut later = socket.clone();
    later[at + 1] = 8;
    refused("tree", &later, "type 8");
    let mut header = sample("pack-header");
    header[8] = 2;
    refused("pack-header", &header, "a third kind of pack");
    let mut chunk = sample("chunk");
    chunk[8] = 2;
    refused("chunk", &chunk, "a method of compression");
    // A flag in a length, as that of a part is, where this release knows none.
    let mut node = decoder("node-above").samples[0].clone();
    node[8 + 39] = 0x80;
    refused("node-above", &node, "a part above level 1");
    let mut node = sample("node");
    node[8 + 39] = 0x40;
    refused("node", &node, "another flag");
    for name in ["pack-header", "lock-record"] {
        let mut bytes = sample(name);
        bytes[7] = b'2';
        refused(name, &bytes, "another magic");
    }
}

/// What opens a repository in a way of a later release is passed over; the others still open it.
#[test]
fn r7_a_key_of_a_kind_of_a_later_release_does_not_keep_the_others_from_opening() {
    let store = MemStore::new();
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let env = Env::fixed(NOW, 1);
    Repository::init(Arc::new(store.clone()), &Passphrase::new("x"), &options, &env).unwrap();
    let (key, bytes) = store.snapshot().into_iter().find(|(key, _)| key.starts_with("keys/")).unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let later = text.replace("\"name\":\"argon2id\"", "\"name\":\"dice\"");
    assert_ne!(text, later);
    let name: String = blake3::hash(later.as_bytes()).to_hex()[..32].into();
    store.put(&format!("keys/{name}"), later.into()).unwrap();
    let repo = Repository::open(Arc::new(store.clone()), &Passphrase::new("x"), &env).unwrap();
    assert_eq!(repo.keys().unwrap().done.len(), 2);
    store.tamper(&key, None);
    assert!(Repository::open(Arc::new(store), &Passphrase::new("x"), &env).is_err());
}

/// Objects of kinds that are to come are neither read nor collected, and a check calls them strange, not damaged. A
/// repository of a later version is not touched at all.
#[test]
fn r7_objects_of_a_later_release_are_left_alone() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let store = MemStore::new();
    let mut folders = vec![golden.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(&golden).unwrap().to_str().unwrap().to_owned();
                store.put(&key, std::fs::read(path).unwrap().into()).unwrap();
            }
        }
    }
    let later =
        ["signatures/abc", "gc/plan-0001", "leases/x-y", "locks/later", "packs/ab/later", "extents/1/2"];
    for key in later {
        store.put(key, "of a later release".into()).unwrap();
    }
    let env = Env::fixed(NOW, 1);
    let repo = Repository::open(Arc::new(store.clone()), &Passphrase::new("golden read"), &env).unwrap();
    assert_eq!(repo.commits().unwrap().done.len(), 2);
    let report = check(&repo, &CheckOptions { read_data: true, ..CheckOptions::default() }, &()).unwrap();
    let worse: Vec<_> = report.findings.iter().filter(|f| f.severity == Severity::Error).collect();
    assert!(worse.is_empty(), "{worse:#?}");
    for _ in 0..2 {
        let options = GcOptions { grace: std::time::Duration::ZERO, threads: 1, ..GcOptions::default() };
        repo::gc::plan(&repo, options, &()).unwrap().execute(&()).unwrap();
        env.advance(7 * 86_400_000_000_000);
    }
    let left: Vec<String> = list_all(&store, "").unwrap().into_iter().map(|object| object.key).collect();
    for key in later {
        assert!(left.iter().any(|there| there == key), "{key} was collected");
    }

    let header = String::from_utf8(store.get("holdfast.json").unwrap().to_vec()).unwrap();
    store.tamper("holdfast.json", Some(header.replace("\"version\":1", "\"version\":2").into()));
    let before = store.snapshot();
    let refused =
        Repository::open(Arc::new(store.clone()), &Passphrase::new("golden read"), &env).unwrap_err();
    assert!(matches!(refused, Error::NewerFormat { version: 2, known: 1, .. }), "{refused}");
    assert!(store.snapshot() == before);
}
