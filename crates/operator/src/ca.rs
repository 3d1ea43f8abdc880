//! The operator's certificate authority (docs/node-agent.md, Authentication): who signs, for how long, and when that changes.
//!
//! Pure but for making keys: what is kept and what time it is go in; what to do next comes out. The one rule is that nobody ever
//! meets a certificate whose root they cannot have heard of. So a new root is told for two days before anything is signed by it,
//! and an old one is trusted until the last certificate of it has ended. A clock that leaps back changes nothing.

use crate::ca::Turn::{Announce, Change, Forget, Stay};
use api::node::{agent_uri, operator_uri};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a root is valid. It signs for half of that.
pub const ROOT: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// From the making of a root to its replacement.
pub const SIGNS_FOR: SignedDuration = SignedDuration::from_hours(5 * 365 * 24);
/// A root is told so long before it signs.
pub const TOLD_BEFORE: SignedDuration = SignedDuration::from_hours(48);
/// How long what it signs is valid.
pub const LEAF: SignedDuration = SignedDuration::from_hours(24);
/// A certificate begins so long before it was made, for the sake of clocks that are behind.
const CLOCKS_BEHIND: SignedDuration = SignedDuration::from_mins(10);

/// SubjectPublicKeyInfo of a P-256 key is always this and a point.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why something is not signed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// What an agent sent is no key that certificates are made for.
    #[error("only P-256 keys are signed, as SubjectPublicKeyInfo in DER")]
    Key,
    /// A name that no node can have.
    #[error("{0:?} cannot stand in a certificate: it has other characters than a node's name")]
    Name(String),
    /// Of the library, or of a Secret that somebody changed.
    #[error(
        "the certificate authority cannot be used ({0}); if its Secret was changed, restore it or delete it: agents enrol anew"
    )]
    Unusable(#[from] rcgen::Error),
}

/// A root and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Root {
    /// In DER.
    pub certificate: Vec<u8>,
    /// In PKCS #8.
    pub key: Zeroizing<Vec<u8>>,
    /// When.
    pub made: Timestamp,
}

/// What the Secret holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// Signs.
    pub signing: Root,
    /// Will sign, and is told already.
    pub next: Option<Root>,
    /// Signed, and is trusted until then: its certificate in DER.
    pub former: Option<(Vec<u8>, Timestamp)>,
    /// The annotation that the signing root was last replaced for.
    pub asked: String,
}

/// What to do with what is kept. After each but [`Turn::Stay`]: write it down, tell the roots, look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing until then.
    Stay(Timestamp),
    /// Make the root that will sign, and tell it.
    Announce,
    /// Sign with it from now on.
    Change,
    /// The former root is trusted no longer.
    Forget,
}

/// What to do now. `asked` is the annotation by which an administrator has the root replaced: any new text does it, once.
pub fn turn(kept: &Kept, asked: &str, now: Timestamp) -> Turn {
    if let Some((_, until)) = &kept.former {
        // One thing at a time: who is told three roots has not yet forgotten the first.
        return if now >= *until { Forget } else { Stay(*until) };
    }
    let due = match &kept.next {
        Some(next) => after(next.made, TOLD_BEFORE),
        None if !asked.is_empty() && asked != kept.asked => return Announce,
        None => after(kept.signing.made, SIGNS_FOR),
    };
    match (now >= due, kept.next.is_some()) {
        (false, _) => Stay(due),
        (true, true) => Change,
        (true, false) => Announce,
    }
}

/// What is kept after that turn.
pub fn turned(mut kept: Kept, turn: Turn, asked: &str, now: Timestamp) -> Result<Kept, CaError> {
    match turn {
        Stay(_) => {}
        Announce => {
            kept.next = Some(root(now)?);
            kept.asked = asked.into();
        }
        Change => {
            if let Some(next) = kept.next.take() {
                let former = std::mem::replace(&mut kept.signing, next);
                // Its last certificate was signed a moment ago; another operator may have signed one while this was written.
                kept.former = Some((former.certificate, after(now, LEAF + LEAF)));
            }
        }
        Forget => kept.former = None,
    }
    Ok(kept)
}

/// A time so much later; at the end of all times that one.
fn after(time: Timestamp, later: SignedDuration) -> Timestamp {
    time.checked_add(later).unwrap_or(Timestamp::MAX)
}

/// Of a cluster that has none yet.
pub fn first(now: Timestamp) -> Result<Kept, CaError> {
    Ok(Kept { signing: root(now)?, next: None, former: None, asked: String::new() })
}

/// Makes a root. No two have one name: a verifier would try the wrong one first.
fn root(now: Timestamp) -> Result<Root, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = root_params(now);
    lasts(&mut params, now, ROOT);
    let certificate = params.self_signed(&key)?.der().to_vec();
    Ok(Root { certificate, key: Zeroizing::new(key.serialize_der()), made: now })
}

/// What a root's certificate and what it signs have to agree on.
fn root_params(made: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("holdfast-ca {}", made.as_second()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn lasts(params: &mut CertificateParams, from: Timestamp, so_long: SignedDuration) {
    let date = |time: Timestamp| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_second().max(0).cast_unsigned())
    };
    params.not_before = date(after(from, -CLOCKS_BEHIND));
    params.not_after = date(after(from, so_long));
}

/// Whom to trust: what signs, what will, and what did. Told to agents, and to the operator itself.
pub fn roots(kept: &Kept) -> Vec<Vec<u8>> {
    let next = kept.next.iter().map(|next| &next.certificate);
    let former = kept.former.iter().map(|(certificate, _)| certificate);
    [&kept.signing.certificate].into_iter().chain(next).chain(former).cloned().collect()
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder<'a> {
    /// Calls agents, and is called by them.
    Operator,
    /// Is called, and calls nobody with it: that of this node.
    Agent(&'a str),
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// In DER. Its root comes right after it.
    pub certificate: Vec<u8>,
    /// In seconds since 1970.
    pub from: i64,
    /// In seconds since 1970.
    pub until: i64,
}

/// Signs a key for a holder whom somebody has proved. `serial` comes from the dice: no two certificates share one.
pub fn issue(
    kept: &Kept,
    cluster: &str,
    holder: Holder<'_>,
    public_key: &[u8],
    serial: [u8; 16],
    now: Timestamp,
) -> Result<Issued, CaError> {
    let point = public_key.strip_prefix(P256).filter(|point| point.len() == 65 && point[0] == 4);
    let key = PublicKey(point.ok_or(CaError::Key)?);
    let uri = match holder {
        Holder::Operator => operator_uri(plain(cluster)?),
        Holder::Agent(node) => agent_uri(plain(cluster)?, plain(node)?),
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = named("holdfast");
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if holder == Holder::Operator {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    params.use_authority_key_identifier_extension = true;
    lasts(&mut params, now, LEAF);
    let root = &kept.signing;
    let signs = KeyPair::from_pkcs8_der_and_sign_algo(&root.key.as_slice().into(), &PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &Issuer::new(root_params(root.made), signs))?;
    Ok(Issued {
        certificate: certificate.der().to_vec(),
        from: now.as_second(),
        until: after(now, LEAF).as_second(),
    })
}

/// Letters of names in Kubernetes: nothing in it ends a part of a URI.
fn plain(name: &str) -> Result<&str, CaError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    match name.bytes().all(fits) && !name.is_empty() && name.len() <= 253 && !name.contains("..") {
        true => Ok(name),
        false => Err(CaError::Name(name.into())),
    }
}

/// A point on P-256, as whoever wants a certificate has sent it.
struct PublicKey<'a>(&'a [u8]);

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests;
