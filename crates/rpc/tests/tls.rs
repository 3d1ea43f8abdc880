//! Who may speak to whom, and what changes while they speak.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test may: its helpers are tests too.

mod support;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType, date_time_ymd,
};
use rpc::{Client, Clients, Code, Identity, Listener, Options, Roots, Server, Status, Tls};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::{Note, note, soon};
use tokio::net::{TcpListener, TcpStream};

const WHO: &str = "/test.v1.Who/Am";
const AGENT: &str = "spiffe://one/node/a";
const OPERATOR: &str = "spiffe://one/operator";

type Ca = CertifiedIssuer<'static, KeyPair>;

/// Each with a name of its own.
fn ca() -> Ca {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut params = CertificateParams::default();
    let name = format!("ca {}", COUNT.fetch_add(1, Ordering::SeqCst));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn roots(of: &[&Ca]) -> Roots {
    Roots::new(of.iter().map(|ca| ca.der().to_vec()).collect()).unwrap()
}

/// A certificate with these URIs, which `change` spoils.
fn identity(ca: &Ca, uris: &[&str], change: impl Fn(&mut CertificateParams)) -> Identity {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    Identity::new(vec![certificate.der().to_vec()], key.serialize_der()).unwrap()
}

fn good(ca: &Ca, uri: &str) -> Identity {
    identity(ca, &[uri], |_| {})
}

/// A server that tells callers who they are.
async fn serve(tls: Tls, clients: Clients) -> (String, Arc<Tls>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = Arc::new(tls);
    let admit = |peer: &rpc::Peer, _: &str| match peer.uri.as_deref() {
        Some("spiffe://one/thief") => Err(Status::new(Code::PermissionDenied, "this is no place for you")),
        _ => Ok(()),
    };
    let server = Server::new(Options::default(), admit)
        .unary(WHO, |context: rpc::Context, _: Note| async move {
            Ok(note(context.peer.uri.as_deref().unwrap_or("nobody")))
        });
    let listener = Listener::Tls(listener, Arc::clone(&tls), clients);
    tokio::spawn(Arc::new(server).serve(listener, std::future::pending(), Duration::ZERO));
    (address, tls)
}

/// What a server says to this client, which wants to speak to `uri`; without an answer, why.
async fn ask(address: &str, tls: &Tls, uri: &str) -> Result<String, String> {
    let client = soon(Client::tls(address, tls, uri, Options::default())).await.map_err(|e| e.to_string())?;
    let answer = soon(client.unary::<Note, Note>(WHO, &note(""), None)).await.map_err(|e| e.to_string())?;
    Ok(answer.text)
}

#[tokio::test]
async fn both_sides_know_who_the_other_is() {
    let (ours, theirs) = (ca(), ca());
    let (address, _) = serve(Tls::new(Some(good(&ours, AGENT)), roots(&[&ours])), Clients::Proved).await;
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(4001, 1, 1);
    let for_servers = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let cases = [
        ("itself", Some(good(&ours, OPERATOR)), Ok(OPERATOR)),
        ("nobody", None, Err("")),
        ("of another cluster", Some(good(&theirs, OPERATOR)), Err("")),
        ("not admitted", Some(good(&ours, "spiffe://one/thief")), Err("no place for you")),
        ("expired", Some(identity(&ours, &[OPERATOR], past)), Err("")),
        ("not yet valid", Some(identity(&ours, &[OPERATOR], future)), Err("")),
        ("for another use", Some(identity(&ours, &[OPERATOR], for_servers)), Err("")),
        ("without a URI", Some(identity(&ours, &[], |_| {})), Err("")),
        ("with two", Some(identity(&ours, &[OPERATOR, AGENT], |_| {})), Err("")),
    ];
    for (what, identity, expected) in cases {
        let answer = ask(&address, &Tls::new(identity, roots(&[&ours])), AGENT).await;
        match expected {
            Ok(uri) => assert_eq!(answer, Ok(uri.to_owned()), "{what}"),
            Err(says) => assert!(answer.as_ref().is_err_and(|e| e.contains(says)), "{what}: {answer:?}"),
        }
    }
    // A client that does not trust the server, or means another.
    let me = || Some(good(&ours, OPERATOR));
    let stranger = ask(&address, &Tls::new(me(), roots(&[&theirs])), AGENT).await.unwrap_err();
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    let other = ask(&address, &Tls::new(me(), roots(&[&ours])), "spiffe://one/node/b").await.unwrap_err();
    assert!(other.contains("spiffe://one/node/a, not spiffe://one/node/b"), "{other}");
    // Servers whose certificates are no good.
    for (what, identity) in [
        ("expired", Some(identity(&ours, &[AGENT], past))),
        ("without a URI", Some(identity(&ours, &[], |_| {}))),
        ("with two", Some(identity(&ours, &[AGENT, OPERATOR], |_| {}))),
        ("of another cluster", Some(good(&theirs, AGENT))),
        ("without a certificate", None),
    ] {
        let (address, _) = serve(Tls::new(identity, roots(&[&ours])), Clients::Proved).await;
        let answer = ask(&address, &Tls::new(me(), roots(&[&ours])), AGENT).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn where_anybody_may_ask_nobody_is_somebody_else() {
    let (ours, theirs) = (ca(), ca());
    let (address, _) = serve(Tls::new(Some(good(&ours, OPERATOR)), roots(&[&ours])), Clients::Anybody).await;
    let ask = async |identity| ask(&address, &Tls::new(identity, roots(&[&ours])), OPERATOR).await;
    assert_eq!(ask(None).await, Ok("nobody".into()));
    assert_eq!(ask(Some(good(&ours, AGENT))).await, Ok(AGENT.into()));
    assert!(ask(Some(good(&theirs, AGENT))).await.is_err());
}

#[tokio::test]
async fn identities_and_roots_change_while_connections_are_there() {
    let (old, new) = (ca(), ca());
    let (address, server) = serve(Tls::new(Some(good(&old, AGENT)), roots(&[&old])), Clients::Proved).await;
    let mine = Tls::new(Some(good(&old, OPERATOR)), roots(&[&old]));
    let client = Client::tls(&address, &mine, AGENT, Options::default()).await.unwrap();
    let lives = async || soon(client.unary::<Note, Note>(WHO, &note(""), None)).await.unwrap().text;
    assert_eq!(lives().await, OPERATOR);

    // New roots are told before anything is signed by them; then certificates follow, one side after the other.
    server.set_roots(roots(&[&old, &new]));
    mine.set_roots(roots(&[&old, &new]));
    assert_eq!(ask(&address, &mine, AGENT).await, Ok(OPERATOR.into()));
    server.set_identity(good(&new, AGENT));
    assert_eq!(ask(&address, &mine, AGENT).await, Ok(OPERATOR.into()));
    let late = Tls::new(Some(good(&old, OPERATOR)), roots(&[&old]));
    assert!(ask(&address, &late, AGENT).await.is_err(), "it never heard of the new root");
    mine.set_identity(good(&new, "spiffe://one/operator-2"));
    assert_eq!(ask(&address, &mine, AGENT).await, Ok("spiffe://one/operator-2".into()));
    // The old root goes; so do those who have nothing else.
    server.set_roots(roots(&[&new]));
    assert_eq!(ask(&address, &mine, AGENT).await, Ok("spiffe://one/operator-2".into()));
    mine.set_identity(good(&old, OPERATOR));
    assert!(ask(&address, &mine, AGENT).await.is_err());
    // A connection of before goes on.
    assert_eq!(lives().await, OPERATOR);
}

#[tokio::test]
async fn nothing_older_than_tls_1_3_is_spoken() {
    let ours = ca();
    let (address, _) = serve(Tls::new(Some(good(&ours, AGENT)), roots(&[&ours])), Clients::Anybody).await;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for (versions, spoken) in [(&[&rustls::version::TLS12][..], false), (&[&rustls::version::TLS13], true)] {
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Blind(Arc::clone(&provider))))
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let io = TcpStream::connect(&address).await.unwrap();
        let greeted = soon(connector.connect("x".try_into().unwrap(), io)).await;
        assert_eq!(greeted.is_ok(), spoken, "{versions:?}");
    }
    // Nor is anything plain, and nobody waits for ever for a greeting.
    let io = TcpStream::connect(&address).await.unwrap();
    let plain = Client::over(io, http::uri::Scheme::HTTP, "localhost", Options::default()).await.unwrap();
    let refused = soon(plain.unary::<Note, Note>(WHO, &note(""), None)).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { handshake: Duration::from_millis(200), ..Options::default() };
    let mine = Tls::new(None, roots(&[&ours]));
    let address = silent.local_addr().unwrap().to_string();
    let waited = soon(Client::tls(&address, &mine, AGENT, options)).await.unwrap_err();
    assert!(waited.message.contains("no answer in 200ms"), "{waited}");
}

#[test]
fn what_cannot_be_used_is_refused_when_it_is_given() {
    let ours = ca();
    assert!(Roots::new(vec![]).is_err());
    assert!(Roots::new(vec![b"no certificate".to_vec()]).is_err());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().signed_by(&key, &ours).unwrap().der().to_vec();
    let other = KeyPair::generate().unwrap().serialize_der();
    for (chain, key) in [
        (vec![certificate.clone()], other),
        (vec![certificate.clone()], b"no key".to_vec()),
        (vec![], key.serialize_der()),
        (vec![b"no certificate".to_vec()], key.serialize_der()),
    ] {
        assert!(Identity::new(chain, key).is_err());
    }
    assert!(Identity::new(vec![certificate], key.serialize_der()).is_ok());
}

/// Believes every server: what is tested is not whom one believes.
#[derive(Debug)]
struct Blind(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
