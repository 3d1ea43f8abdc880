//! TLS 1.3 between parts of Holdfast: who they are is a URI in their certificate, not a name in the DNS.
//!
//! Certificates live for a day, so what proves and what is trusted is swapped while connections are there: a new
//! connection takes what is there then. Connections of before go on, also beyond the end of a certificate; sessions are not
//! resumed, because a resumed one would not be proved anew.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::io;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
const HTTP2: &[u8] = b"h2";

/// Why something that should prove or be trusted cannot.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Unusable {
    what: &'static str,
    why: String,
}

fn unusable(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Unusable {
    move |why| Unusable { what, why: why.to_string() }
}

/// Proves who we are: a certificate, those that lead from it to a root, and its key.
#[derive(Debug, Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Of certificates in DER, our own first, and its key in PKCS #8.
    pub fn new(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Identity, Unusable> {
        let bad = unusable("certificate and key cannot be used");
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::Pkcs8(key.into());
        let certified = CertifiedKey::from_der(chain, key, &PROVIDER).map_err(|error| bad(&error))?;
        Ok(Identity(Arc::new(certified)))
    }
}

/// Whom we trust to say who others are.
#[derive(Debug, Clone)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// Of certificates in DER; at least one.
    pub fn new(roots: Vec<Vec<u8>>) -> Result<Roots, Unusable> {
        let bad = unusable("a root certificate cannot be used");
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(CertificateDer::from(root)).map_err(|error| bad(&error))?;
        }
        if store.is_empty() {
            return Err(bad(&"there is none"));
        }
        Ok(Roots(Arc::new(store)))
    }
}

/// Whether clients have to prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Nobody else is let in.
    Proved,
    /// Those who show a certificate must show a good one; others come without a URI.
    Anybody,
}

/// Who we are and whom we trust, from one moment to the next.
#[derive(Debug)]
pub struct Tls {
    now: RwLock<(Option<Identity>, Roots)>,
}

impl Tls {
    /// Without an identity there is nothing to serve with, and servers see nobody in particular.
    pub fn new(identity: Option<Identity>, roots: Roots) -> Tls {
        Tls { now: RwLock::new((identity, roots)) }
    }

    /// From the next connection on.
    pub fn set_identity(&self, identity: Identity) {
        self.now.write().unwrap_or_else(PoisonError::into_inner).0 = Some(identity);
    }

    /// From the next connection on.
    pub fn set_roots(&self, roots: Roots) {
        self.now.write().unwrap_or_else(PoisonError::into_inner).1 = roots;
    }

    fn now(&self) -> (Option<Identity>, Roots) {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Greets a client; the URI is that of its certificate.
    pub(crate) async fn accept<T>(
        &self,
        io: T,
        clients: Clients,
    ) -> io::Result<(server::TlsStream<T>, Option<String>)>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let (identity, roots) = self.now();
        let identity =
            identity.ok_or_else(|| io::Error::other("there is no certificate to serve with yet"))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.0, Arc::clone(&PROVIDER));
        let verifier = match clients {
            Clients::Proved => verifier,
            Clients::Anybody => verifier.allow_unauthenticated(),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.0)));
        config.alpn_protocols = vec![HTTP2.into()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let stream = TlsAcceptor::from(Arc::new(config)).accept(io).await?;
        let uri =
            stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(only_uri).transpose();
        Ok((stream, uri.map_err(io::Error::other)?))
    }

    /// Greets a server, which must show that it is this URI.
    pub(crate) async fn connect<T>(&self, io: T, uri: &str) -> io::Result<client::TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let (identity, roots) = self.now();
        let config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Named { roots, uri: uri.into() }));
        let mut config = match identity {
            Some(identity) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.0))),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP2.into()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        // A name is demanded, and neither sent nor checked: the URI is.
        let name = ServerName::try_from("holdfast").map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, io).await
    }
}

/// The URI of a certificate that has exactly one.
fn only_uri(certificate: &CertificateDer<'_>) -> Result<String, rustls::Error> {
    let unnamed = || rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(|_| unnamed())?;
    let mut uris = certificate.valid_uri_names();
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.into()),
        _ => Err(unnamed()),
    }
}

/// Trusts servers by their URI.
#[derive(Debug)]
struct Named {
    roots: Roots,
    uri: String,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots.0,
            intermediates,
            now,
            PROVIDER.signature_verification_algorithms.all,
        )?;
        let uri = only_uri(end_entity)?;
        if uri != self.uri {
            return Err(rustls::Error::General(format!("the server is {uri}, not {}", self.uri)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
