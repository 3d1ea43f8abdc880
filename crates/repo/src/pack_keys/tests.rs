//! A pack's key opens that pack and nothing else; and how keys wait, travel and lie on a disk.

use std::sync::Arc;
use std::thread;

use bytes::BytesMut;

use super::*;
use crate::crypto::{Keys, PackOpener};
use crate::env::Env;
use crate::object::Capability;
use crate::pack::{Compressor, Decompressor, FinishedPack, PackBuilder};
use crate::repo::InitOptions;
use crate::secret::{Kdf, Passphrase};
use crate::store::mem::MemStore;

/// A pack with three chunks, whose content tells which it is.
fn pack(keys: &Keys, seed: u64) -> FinishedPack {
    let sealer = keys.pack_sealer(Lane::Data.kind(), &Env::fixed(1, seed)).unwrap();
    let mut builder = PackBuilder::new(sealer, BytesMut::new());
    let (mut compressor, ids) = (Compressor::new(1).unwrap(), keys.chunk_ids().unwrap());
    for n in 0..3 {
        let plain = format!("chunk {n} of pack {seed}").into_bytes();
        builder.add(ids.id(&plain), plain.len(), &compressor.compress(&plain)).unwrap();
    }
    builder.finish().unwrap()
}

fn header(pack: &FinishedPack) -> &[u8; PACK_HEADER_LEN] {
    pack.bytes.first_chunk().unwrap()
}

/// How many of a pack's chunks a key opens.
fn opens(key: &PackKey, header: &[u8; PACK_HEADER_LEN], pack: &FinishedPack) -> usize {
    let opener = PackOpener::new(header, key).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    let mut open = |entry: &crate::pack::PackEntry| {
        let sealed = &pack.bytes[entry.offset as usize..(entry.offset + entry.sealed) as usize];
        decompressor.open(&opener, entry.offset, sealed, entry.plain as usize).is_ok()
    };
    pack.entries.iter().filter(|entry| open(entry)).count()
}

#[test]
fn r5_a_packs_key_opens_that_pack_and_nothing_else() {
    let keys = Keys::generate(&Env::fixed(1, 1)).unwrap();
    let packs: Vec<FinishedPack> = (10..20).map(|seed| pack(&keys, seed)).collect();
    for one in &packs {
        assert!(keys.pack_key(header(one)).unwrap() == one.key, "the read key derives what the writer had");
        for other in &packs {
            let same = one.id == other.id;
            assert_eq!(opens(&one.key, header(other), other), if same { 3 } else { 0 });
            // Nor with the header that belongs to the key.
            assert_eq!(opens(&one.key, header(one), other), if same { 3 } else { 0 });
        }
        // Neither the directory, which takes the index key, nor what else is sealed to the read key.
        let opener = PackOpener::new(header(one), &one.key).unwrap();
        let (directory, mut out) = (one.entries.last().unwrap(), Vec::new());
        let begin = (directory.offset + directory.sealed) as usize;
        let sealed = &one.bytes[begin..one.bytes.len() - 16];
        assert!(
            !opener.open_chunk(0, sealed, &mut out) && !opener.open_chunk(begin as u32, sealed, &mut out)
        );
        let root = keys.seal_root(b"aad", b"root", &Env::fixed(1, 2)).unwrap();
        assert!(!opener.open_chunk(0, &root[32..], &mut out));
    }
    let put = keys.restrict(Capability::Put).unwrap();
    let list = keys.restrict(Capability::List).unwrap();
    for less in [put, list] {
        assert!(matches!(less.pack_key(header(&packs[0])), Err(Error::NotPermitted { .. })));
    }
}

fn key(n: u8) -> (PackId, PackKey) {
    (PackId([n; 32]), PackKey::from_bytes(&[n; 32]))
}

fn missing(result: Result<PackKey, Error>) -> String {
    match result {
        Err(error @ Error::KeyMissing { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_lacks_a_key_waits_for_it_until_it_comes_or_none_will() {
    let (wanted, right) = key(7);
    let find = |keys: &PackKeys| keys.find(&wanted, &Cancel::new());
    let complete = PackKeys::new();
    complete.give(key(6).0, key(6).1);
    let told = missing(find(&complete));
    assert!(told.contains(&wanted.key()) && told.contains("was not handed in"), "{told}");
    let told = missing(find(&PackKeys::awaited(Duration::ZERO)));
    assert!(told.contains("no key has come for 0 seconds"), "{told}");
    let told = missing(find(&PackKeys::awaited(Duration::from_millis(1))));
    assert!(told.contains("no key has come"), "{told}");

    // What another thread does while this one waits.
    let hour = Duration::from_secs(3_600);
    let during = |act: &(dyn Fn(&PackKeys, &Cancel) + Sync)| {
        let (keys, cancel) = (PackKeys::awaited(hour), Cancel::new());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| keys.find(&wanted, &cancel));
            act(&keys, &cancel);
            waiting.join().unwrap()
        })
    };
    let found = during(&|keys, _| {
        keys.give(key(1).0, key(1).1);
        keys.give_bytes(&[]).unwrap();
        let list = PackKeys::new();
        list.give(wanted, right.clone());
        keys.give_bytes(&list.to_bytes()).unwrap();
    });
    assert!(found.unwrap() == right);
    assert!(missing(during(&|keys, _| keys.end())).contains("was not handed in"));
    assert!(matches!(during(&|_, cancel| cancel.cancel()), Err(Error::Cancelled)));
    // A later one counts: the first may have been wrong.
    complete.give(wanted, key(1).1);
    complete.give(wanted, right.clone());
    assert!(find(&complete).unwrap() == right);
}

#[test]
fn a_list_of_keys_is_read_back_and_one_that_is_cut_is_refused() {
    let keys = PackKeys::new();
    assert!(keys.is_empty() && keys.to_bytes().is_empty());
    for n in [9, 3, 200, 3] {
        keys.give(key(n).0, key(n).1);
    }
    let bytes = keys.to_bytes();
    assert_eq!((keys.len(), bytes.len()), (3, 3 * PackKeys::LINE_LEN));
    assert!(bytes[..32] == [3; 32] && bytes[32..64] == [3; 32]);
    let again = PackKeys::new();
    again.give_bytes(&bytes).unwrap();
    assert_eq!(*again.to_bytes(), *bytes);
    assert!(again.has(&key(200).0) && !again.has(&key(4).0));
    again.retain(|pack| *pack == key(9).0);
    assert_eq!(*again.to_bytes(), bytes[64..128]);
    for length in [1, 63, 65, 191] {
        let refused = PackKeys::new().give_bytes(&bytes[..length]).unwrap_err().to_string();
        assert!(refused.contains("no multiple of 64"), "{refused}");
    }
    assert_eq!(format!("{keys:?} {:?}", key(1).1), "PackKeys(3) PackKey(…)");
}

#[test]
fn r5_keys_on_a_nodes_disk_open_for_the_put_key_and_not_for_the_list_key() {
    let init = |seed| {
        let options = InitOptions { kdf: Kdf::cheap(), ..InitOptions::default() };
        let store = Arc::new(MemStore::new());
        Repository::init(store, &Passphrase::new("p"), &options, &Env::fixed(1, seed)).unwrap()
    };
    let repo = init(1);
    let with = |capability| {
        let bundle = repo.bundle(capability).unwrap();
        Repository::open(repo.store().clone(), &bundle, &Env::fixed(2, 2)).unwrap()
    };
    let (put, list) = (with(Capability::Put), with(Capability::List));
    let keys = PackKeys::new();
    keys.give(key(5).0, key(5).1);
    keys.give(key(6).0, key(6).1);
    let sealed = keys.seal(&put).unwrap();
    assert!(!sealed.windows(16).any(|part| part == [5; 16]), "neither names nor keys are seen");
    assert_ne!(sealed, keys.seal(&put).unwrap(), "a salt of its own each time");
    for opened in [&put, &repo].map(|repo| PackKeys::unseal(repo, &sealed).unwrap()) {
        assert_eq!(*opened.to_bytes(), *keys.to_bytes());
    }
    assert!(matches!(PackKeys::unseal(&list, &sealed), Err(Error::NotPermitted { .. })));
    assert!(matches!(keys.seal(&list), Err(Error::NotPermitted { .. })));
    assert!(matches!(PackKeys::unseal(&init(2), &sealed), Err(Error::Invalid { .. })));
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(PackKeys::unseal(&put, &changed).is_err(), "byte {at}");
        assert!(PackKeys::unseal(&put, &sealed[..at]).is_err(), "{at} bytes");
    }
    assert!(PackKeys::unseal(&put, &PackKeys::new().seal(&put).unwrap()).unwrap().is_empty());
}
