//! What a node can do with what it is handed: the keys of a capability as a bundle.
//!
//! A node agent has no key of its own. It opens the repository with a put bundle, writes with it, and must not be able
//! to do anything else with it (R5).

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::sync::Arc;

use common::{commit, fresh, noise, owned, read_back, reader};
use repo::check::{CheckOptions, check};
use repo::copy::{CopyOptions, copy};
use repo::delete::Plan;
use repo::gc::GcOptions;
use repo::repair::RepairOptions;
use repo::store::Store;
use repo::store::mem::MemStore;
use repo::store::record::{Record, Verb};
use repo::{
    Bundle, Cancel, Capability, Env, Error, InitOptions, Kdf, Passphrase, ReaderOptions, Repository, Unlock,
};

/// A repository opened as another process does that was sent these bytes.
fn open(store: impl Store + 'static, bytes: &[u8], seed: u64) -> Result<Repository, Error> {
    let bundle = Bundle::from_bytes(bytes)?;
    Repository::open(Arc::new(store), &bundle, &Env::fixed(common::NOW + seed as i64, 2_000 + seed))
}

fn bundle(repo: &Repository, capability: Capability) -> Vec<u8> {
    repo.bundle(capability).unwrap().as_bytes().to_vec()
}

#[test]
fn r5_a_put_bundle_writes_and_neither_reads_nor_lists_nor_deletes() {
    let (store, repo) = fresh();
    let content = noise(1, 300_000);
    let first = commit(&repo, &[("s", &content)]).unwrap();
    let recorded = Arc::new(Record::new(store.clone()));
    let node = open(recorded.clone(), &bundle(&repo, Capability::Put), 1).unwrap();
    assert_eq!((node.id(), node.capability()), (repo.id(), Capability::Put));
    for verb in [Verb::Get, Verb::List] {
        assert_eq!(recorded.count(verb, "keys/"), 0, "no key object is even looked at");
    }

    let more = [&content[..], b"more"].concat();
    let info = commit(&node, &[("s", &more)]).unwrap();
    let new = info.summary.figures["bytes_new_plain"];
    assert!(new < 30_000, "it deduplicates, but for nodes: {new}");
    assert_eq!(read_back(&reader(&repo), &info.id).unwrap(), owned(&[("s", &more)]));

    let (_, far) = fresh();
    let before = store.snapshot();
    let refused: Vec<(&str, Result<(), Error>)> = vec![
        ("lists points", node.commits().map(drop)),
        ("looks at a point", node.commit(&first.id).map(drop)),
        ("finds the latest", node.find_commit("latest").map(drop)),
        ("finds by name", node.find_commit("a").map(drop)),
        ("looks at holds", node.holds().map(drop)),
        ("opens a manifest", node.manifest_root(&first.id).map(drop)),
        ("reads", node.reader(ReaderOptions::default()).map(drop)),
        ("checks", check(&node, &CheckOptions::default(), &()).map(drop)),
        ("collects", repo::gc::plan(&node, GcOptions::default(), &()).map(drop)),
        ("repairs", repo::repair::plan(&node, &RepairOptions::default(), &()).map(drop)),
        ("copies from it", copy(&node, &far, &CopyOptions::default(), &()).map(drop)),
        ("copies into it", copy(&far, &node, &CopyOptions::default(), &()).map(drop)),
        ("deletes", {
            let points = repo::delete::points(&repo.commits().unwrap().done, &[], 0);
            let plan = Plan::of(&node, points, &[first.id].into(), true).unwrap().unwrap();
            plan.execute(&node, &Cancel::new(), &()).map(drop)
        }),
        ("makes a read key", {
            node.add_key(&Passphrase::new("x"), Capability::Read, "x", Kdf::cheap()).map(drop)
        }),
        ("makes a list key", {
            node.add_key(&Passphrase::new("x"), Capability::List, "x", Kdf::cheap()).map(drop)
        }),
        ("makes a recovery key", node.add_recovery_key("x").map(drop)),
        ("takes over the read key", {
            let key = repo.key_ids().unwrap().remove(0);
            node.rotate_key(&key, &Passphrase::new("x"), Kdf::cheap()).map(drop)
        }),
        ("makes a list bundle", node.bundle(Capability::List).map(drop)),
        ("makes a read bundle", node.bundle(Capability::Read).map(drop)),
    ];
    for (what, result) in refused {
        assert!(matches!(result, Err(Error::NotPermitted { .. })), "{what}: {result:?}");
    }
    let key = repo.key_ids().unwrap().remove(0);
    let refused = node.remove_key(&key).unwrap_err().to_string();
    assert!(refused.contains("removes none"), "{refused}");
    assert_eq!(store.snapshot(), before, "none of it changed anything");
}

#[test]
fn r5_a_bundle_grants_what_it_was_made_for_and_nobody_makes_a_greater_one() {
    let (store, repo) = fresh();
    let info = commit(&repo, &[("s", b"content")]).unwrap();
    let all = [Capability::Put, Capability::List, Capability::Read];
    for made in all {
        let bytes = bundle(&repo, made);
        let held = open(store.clone(), &bytes, 1).unwrap();
        let taken = Bundle::from_bytes(&bytes).unwrap();
        assert_eq!((held.capability(), taken.capability(), taken.repository()), (made, made, repo.id()));
        for wanted in all {
            let greater = held.bundle(wanted);
            match made == wanted || made == Capability::Read {
                true => assert_eq!(greater.unwrap().as_bytes(), bundle(&repo, wanted), "{made} → {wanted}"),
                false => assert!(matches!(greater, Err(Error::NotPermitted { .. })), "{made} → {wanted}"),
            }
        }
        assert_eq!(held.commits().is_ok(), made != Capability::Put);
        assert_eq!(held.manifest_root(&info.id).is_ok(), made == Capability::Read);
        assert_eq!(commit(&held, &[("s", b"more")]).is_ok(), made != Capability::List);
    }
    // It opens and is no key that could be put into the store.
    let put = repo.bundle(Capability::Put).unwrap();
    for refused in [
        repo.add_key(&put, Capability::Put, "x", Kdf::cheap()).map(drop),
        repo.rotate_key(&repo.key_ids().unwrap()[0], &put, Kdf::cheap()).map(drop),
        Repository::init(Arc::new(MemStore::new()), &put, &InitOptions::default(), &Env::fixed(1, 1))
            .map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert!(matches!(&refused, Error::Invalid { what } if what.contains("a bundle opens")), "{refused}");
    }
}

#[test]
fn a_bundle_that_is_cut_changed_or_foreign_is_told_and_shows_nothing() {
    let (store, repo) = fresh();
    let good = bundle(&repo, Capability::Put);
    let told = |bytes: &[u8]| Bundle::from_bytes(bytes).unwrap_err().to_string();
    for length in 0..good.len() {
        assert!(Bundle::from_bytes(&good[..length]).is_err(), "{length} bytes");
    }
    assert!(told(&[]).contains("0 bytes are no bundle"));
    assert!(told(&good[..good.len() - 1]).contains("damaged on its way"));
    assert!(told(&[&good[..], b"x"].concat()).contains("damaged on its way"));
    assert!(told(&vec![7; 300]).contains("no bundle of keys, or one of another release"));
    assert!(told(&vec![7; 5_000]).contains("5000 bytes are no bundle"));
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(Bundle::from_bytes(&changed).is_err(), "byte {at}");
    }

    let other = MemStore::new();
    let dice = Env::fixed(1, 99);
    let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
    let theirs = Repository::init(Arc::new(other.clone()), &Passphrase::new("x"), &options, &dice).unwrap();
    let foreign = open(other, &good, 1).unwrap_err();
    assert!(matches!(foreign, Error::Invalid { .. }), "{foreign:?}");
    for named in [repo.id().to_string(), theirs.id().to_string()] {
        assert!(foreign.to_string().contains(&named), "{foreign}");
    }
    assert!(matches!(open(MemStore::new(), &good, 1), Err(Error::NoRepository { .. })));

    // R4: a header that parses and says something else opens no bundle either.
    let header = String::from_utf8(store.get("holdfast.json").unwrap().to_vec()).unwrap();
    store.tamper("holdfast.json", Some(header.replace("\"avg\":256", "\"avg\":512").into()));
    let changed = open(store.clone(), &good, 1).unwrap_err();
    assert!(matches!(&changed, Error::Damaged { object, .. } if object == "holdfast.json"), "{changed:?}");
    store.tamper("holdfast.json", Some(header.into()));
    open(store, &good, 1).unwrap();

    let bundle = Bundle::from_bytes(&good).unwrap();
    assert_eq!(format!("{bundle:?} {:?}", Unlock::from(&bundle)), "Bundle(…) Unlock(bundle)");
}

/// A key of a repository that was made like another names chunks the same, and opens nothing of it.
#[test]
fn a_bundle_of_a_repository_made_alike_opens_only_its_own() {
    let (store, repo) = fresh();
    let alike = MemStore::new();
    let options = InitOptions { kdf: Kdf::cheap(), like: Some(repo.clone()), ..InitOptions::default() };
    let dice = Env::fixed(1, 98);
    let twin = Repository::init(Arc::new(alike.clone()), &Passphrase::new("x"), &options, &dice).unwrap();
    assert!(open(store, &bundle(&twin, Capability::Read), 1).is_err());
    assert!(open(alike, &bundle(&repo, Capability::Read), 1).is_err());
}
