//! Twelve years of a certificate authority, and what stands in its certificates.

use super::*;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

const START: Timestamp = Timestamp::constant(1_900_000_000, 0);

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn key() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let public = key.subject_public_key_info();
    (key, public)
}

/// Whether a certificate proves its holder at this time, to somebody who trusts these roots.
fn proves(issued: &Issued, roots: &[Vec<u8>], usage: KeyUsage, at: Timestamp) -> bool {
    let roots: Vec<CertificateDer<'_>> =
        roots.iter().map(|root| CertificateDer::from(root.as_slice())).collect();
    let anchors: Vec<_> = roots.iter().map(|root| anchor_from_trusted_cert(root).unwrap()).collect();
    let certificate = CertificateDer::from(issued.certificate.as_slice());
    let time = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().cast_unsigned()));
    let algorithms = [webpki::aws_lc_rs::ECDSA_P256_SHA256];
    let leaf = EndEntityCert::try_from(&certificate).unwrap();
    leaf.verify_for_usage(&algorithms, &anchors, &[], time, usage, None, None).is_ok()
}

/// Every hour of twelve years: whoever heard of the roots up to two days ago accepts every certificate that has not ended.
#[test]
fn nobody_meets_a_root_that_they_have_not_heard_of() {
    let mut kept = first(START).unwrap();
    let (mut asked, mut now) = (String::new(), START);
    let mut told: Vec<(Timestamp, Vec<Vec<u8>>)> = vec![(START, roots(&kept))];
    let mut signed: Vec<(Timestamp, Vec<u8>)> = Vec::new();
    let mut turns = Vec::new();
    while now < after(START, hours(12 * 365 * 24)) {
        // An administrator asks once, in the third year, and does not take it back.
        if now == after(START, hours(3 * 365 * 24)) {
            asked = "leaked".into();
        }
        // The operator looks when it was told to, and sometimes a day late: it was down.
        let turn = turn(&kept, &asked, now);
        if !matches!(turn, Stay(_)) && now.as_second() / 3600 % 24 == 0 {
            kept = turned(kept, turn, &asked, now).unwrap();
            turns.push((turn, now.as_second()));
            told.push((now, roots(&kept)));
        }
        signed.push((now, kept.signing.certificate.clone()));
        signed.retain(|(at, _)| after(*at, LEAF) >= now);
        // The slowest listener heard of what was told 48 hours ago and has not looked since; the quickest, of all.
        let slow = told.iter().rev().find(|(at, _)| after(*at, TOLD_BEFORE) <= now).unwrap_or(&told[0]);
        for heard in [&slow.1, &told.last().unwrap().1] {
            assert!(signed.iter().all(|(_, root)| heard.contains(root)), "{now}");
        }
        assert!(
            after(kept.signing.made, ROOT) > after(now, LEAF),
            "{now}: the root ends before what it signs"
        );
        now = after(now, hours(1));
    }
    let days = |seconds: i64| (seconds - START.as_second()) / 86_400;
    let found: Vec<_> = turns.iter().map(|(turn, at)| (*turn, days(*at))).collect();
    let years = |years: i64, days: i64| years * 365 + days;
    assert_eq!(found.len(), 6, "{found:?}");
    for ((turn, day), (expected, at)) in found.iter().zip([
        (Announce, years(3, 0)),
        (Change, years(3, 2)),
        (Forget, years(3, 4)),
        // Five years after the making of the one that signs.
        (Announce, years(8, 0)),
        (Change, years(8, 2)),
        (Forget, years(8, 4)),
    ]) {
        assert!(*turn == expected && (at..=at + 3).contains(day), "{found:?}");
    }
}

#[test]
fn a_turn_is_taken_once_and_a_clock_that_leaps_back_takes_none() {
    let kept = first(START).unwrap();
    assert_eq!(turn(&kept, "", START), Stay(after(START, SIGNS_FOR)));
    assert_eq!(turn(&kept, "", after(START, hours(-100_000))), Stay(after(START, SIGNS_FOR)));
    assert_eq!(turn(&kept, "now", START), Announce);
    let kept = turned(kept, Announce, "now", START).unwrap();
    assert_eq!(turn(&kept, "now", START), Stay(after(START, TOLD_BEFORE)));
    // A second wish waits for the first to come about.
    assert_eq!(turn(&kept, "again", START), Stay(after(START, TOLD_BEFORE)));
    let changed = after(START, TOLD_BEFORE);
    assert_eq!(turn(&kept, "now", changed), Change);
    let kept = turned(kept, Change, "now", changed).unwrap();
    assert_eq!(turn(&kept, "again", changed), Stay(after(changed, hours(48))));
    let kept = turned(kept, Forget, "again", after(changed, hours(48))).unwrap();
    assert_eq!(turn(&kept, "now", after(changed, hours(48))), Stay(after(START, SIGNS_FOR)));
    assert_eq!(turn(&kept, "again", after(changed, hours(48))), Announce);
    assert_eq!(turn(&kept, "", after(changed, hours(48))), Stay(after(START, SIGNS_FOR)));
}

#[test]
fn a_certificate_says_who_and_is_believed_for_a_day() {
    let kept = first(START).unwrap();
    let (_, public) = key();
    let agent = issue(&kept, "c-1", Holder::Agent("node-1.example"), &public, [1; 16], START).unwrap();
    let operator = issue(&kept, "c-1", Holder::Operator, &public, [2; 16], START).unwrap();
    for (issued, uri, client) in
        [(&agent, "spiffe://c-1/node/node-1.example", false), (&operator, "spiffe://c-1/operator", true)]
    {
        let der = CertificateDer::from(issued.certificate.as_slice());
        let read = EndEntityCert::try_from(&der).unwrap();
        assert_eq!(read.valid_uri_names().collect::<Vec<_>>(), [uri]);
        assert_eq!(read.valid_dns_names().count(), 0);
        let roots = roots(&kept);
        for (at, valid) in [(-11, false), (-9, true), (0, true), (24 * 60 - 1, true), (24 * 60 + 1, false)] {
            let at = after(START, SignedDuration::from_mins(at));
            assert_eq!(proves(issued, &roots, KeyUsage::server_auth(), at), valid, "{uri} {at}");
            assert_eq!(proves(issued, &roots, KeyUsage::client_auth(), at), valid && client, "{uri} {at}");
        }
        assert_eq!((issued.from, issued.until), (START.as_second(), START.as_second() + 86_400));
    }
    // Over a change of the root, by everybody who has heard of it.
    let kept = turned(kept, Announce, "x", START).unwrap();
    let before = roots(&kept);
    let changed = after(START, TOLD_BEFORE);
    let kept = turned(kept, Change, "x", changed).unwrap();
    let new = issue(&kept, "c-1", Holder::Operator, &public, [3; 16], changed).unwrap();
    assert!(proves(&new, &before, KeyUsage::server_auth(), changed));
    assert!(!proves(&new, &before[..1], KeyUsage::server_auth(), changed));
    assert!(proves(&new, &roots(&kept), KeyUsage::server_auth(), changed));
    let late = issue(
        &turned(first(START).unwrap(), Stay(START), "", START).unwrap(),
        "c-1",
        Holder::Operator,
        &public,
        [4; 16],
        START,
    );
    assert!(!proves(&late.unwrap(), &before, KeyUsage::server_auth(), START), "another cluster's");
}

#[test]
fn what_is_no_key_and_no_name_is_not_signed() {
    let kept = first(START).unwrap();
    let (_, public) = key();
    let sign = |cluster: &str, node: &str, key: &[u8]| {
        issue(&kept, cluster, Holder::Agent(node), key, [0; 16], START)
    };
    assert!(sign("c", "node", &public).is_ok());
    for at in 0..public.len() {
        assert!(matches!(sign("c", "node", &public[..at]), Err(CaError::Key)), "{at}");
    }
    let mut compressed = public.clone();
    compressed[P256.len()] = 2;
    let larger = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().subject_public_key_info();
    for key in [&compressed[..], &larger, &[&public[..], &[0]].concat(), b""] {
        assert!(matches!(sign("c", "node", key), Err(CaError::Key)));
    }
    for name in [
        "",
        "a/../operator",
        "a/b",
        "A",
        "a b",
        "a%2e",
        "ä",
        "a?b",
        "a#b",
        "a:b",
        "..",
        "a..b",
        &"a".repeat(254),
    ] {
        assert!(matches!(sign("c", name, &public), Err(CaError::Name(_))), "{name}");
        assert!(matches!(sign(name, "node", &public), Err(CaError::Name(_))), "{name}");
    }
    let mut spoiled = kept.clone();
    spoiled.signing.key = Zeroizing::new(vec![0; 138]);
    assert!(issue(&spoiled, "c", Holder::Operator, &public, [0; 16], START).is_err());
}
