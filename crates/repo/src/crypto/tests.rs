//! What a key seals no other opens, and what is changed opens with none.

use proptest::prelude::*;

use super::*;

fn keys() -> Keys {
    Keys::generate(&Env::fixed(1, 1)).unwrap()
}

const CAPABILITIES: [Capability; 3] = [Capability::Put, Capability::List, Capability::Read];

#[test]
fn r5_a_wrapping_key_opens_its_bundle_and_nothing_else_does() {
    let (header, right, wrong, nonce) = (b"{header}", [1; 32], [2; 32], [3; 12]);
    for capability in CAPABILITIES {
        let keys = keys().restrict(capability).unwrap();
        let wrapped = keys.wrap(&right, nonce, header).unwrap();
        let open = |bundle: &[u8], capability, key, header: &[u8]| {
            Keys::unwrap(key, nonce, bundle, capability, header).unwrap()
        };
        let opened = open(&wrapped, capability, &right, header).unwrap();
        assert_eq!(*opened.encode(), *keys.encode());
        assert!(open(&wrapped, capability, &wrong, header).is_none());
        assert!(open(&wrapped, capability, &right, b"{changed}").is_none(), "a changed header opens no key");
        for other in CAPABILITIES.into_iter().filter(|other| *other != capability) {
            assert!(open(&wrapped, other, &right, header).is_none(), "the word in the object is bound in");
        }
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(open(&changed, capability, &right, header).is_none());
        }
    }
}

#[test]
fn r5_what_a_key_grants_is_decided_by_its_secrets() {
    let keys = keys();
    let put = keys.restrict(Capability::Put).unwrap();
    let list = keys.restrict(Capability::List).unwrap();
    assert!(put.list_secret.is_none() && put.read_secret.is_none() && put.id_key.is_some());
    assert!(list.list_secret.is_some() && list.read_secret.is_none() && list.id_key.is_none());
    assert!(list.chunk_ids().is_err() && list.gear().is_err() && put.chunk_ids().is_ok());
    // Nobody makes a greater key of a lesser one.
    for (held, wanted) in [(&put, Capability::Read), (&put, Capability::List), (&list, Capability::Put)] {
        assert!(matches!(held.restrict(wanted), Err(Error::NotPermitted { .. })));
    }
    // A bundle that claims more than its secrets make, or less, is refused.
    for claimed in CAPABILITIES {
        let mut lying = put.clone();
        lying.capability = claimed;
        assert_eq!(Keys::decode(&lying.encode()).is_ok(), claimed == Capability::Put);
    }
    let mut foreign = keys.clone();
    foreign.read_public[0] ^= 1;
    assert!(Keys::decode(&foreign.encode()).unwrap_err().contains("does not belong"));
}

#[test]
fn messages_open_with_their_key_in_their_place_only() {
    let (keys, env) = (keys(), Env::fixed(1, 2));
    let sealed = keys.seal_summary(b"head", b"plain", &env).unwrap();
    assert_eq!(keys.open_summary(b"head", &sealed).unwrap(), b"plain");
    assert!(matches!(keys.open_summary(b"feet", &sealed), Err(OpenError::Changed)));
    assert!(matches!(keys.open_root(b"head", &sealed), Err(OpenError::Changed)));
    assert!(matches!(keys.open_summary(b"head", &sealed[..40]), Err(OpenError::Changed)));
    assert!(matches!(keys.open_summary(b"head", &[]), Err(OpenError::Changed)));
    let low_order = [&[0; 32][..], &sealed[32..]].concat();
    assert!(matches!(keys.open_summary(b"head", &low_order), Err(OpenError::Changed)));
    assert_ne!(sealed, keys.seal_summary(b"head", b"plain", &env).unwrap(), "every key is fresh");
}

/// Ids, gear and keys of fixed secrets: part of the format.
#[test]
fn derived_values_of_fixed_secrets_are_fixed() {
    let mut keys = keys();
    keys.id_key = Some(Secret([1; 32]));
    keys.chunker_key = Some(Secret([2; 32]));
    let id = keys.chunk_ids().unwrap().id(b"holdfast");
    let gear = keys.gear().unwrap();
    let expanded = hkdf(&[3; 32], &[4; 32], "index").unwrap();
    let seen =
        format!("{id} {:016x} {:016x} {}", gear[0], gear[255], data_encoding::HEXLOWER.encode(&*expanded));
    assert_eq!(seen, GOLDEN);
}

const GOLDEN: &str = "1f46b6dd6264e29932384a1c35d5c4a0e073c44da5f21298965b92f84fe0a6e0 \
    0ad7af686a447550 f9b75a53d8801308 \
    e54e869c207c7de5e58943322c1789b8b8005523f65e74f5db32c0bef0bf43a2";

proptest! {
    #[test]
    fn hostile_bundles_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Keys::decode(&bytes).is_err());
    }

    #[test]
    fn a_changed_bundle_is_refused_or_means_the_same_form(at: prop::sample::Index, with in 1_u8..) {
        let mut bytes = keys().encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        if let Ok(changed) = Keys::decode(&bytes) {
            prop_assert_eq!(&*changed.encode(), &bytes);
        }
    }

    #[test]
    fn hostile_segments_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        prop_assert!(keys().open_segment(&mut bytes).is_err());
    }
}
