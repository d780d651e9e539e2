//! Connections to endpoints.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};
use transport::Stream;

use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::failure::Failure;
use crate::wire::{Wire, prepare};

/// Makes connections, and takes those that are idle.
#[derive(Debug)]
pub(crate) struct Dialer {
    tls: Arc<ClientConfig>,
    handshake: Duration,
    most: usize,
    most_of_one: usize,
    /// As of the last sweep, and what was put back since.
    idle: AtomicUsize,
}

/// A connection, and whether it has served requests before.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) wire: Wire,
    pub(crate) used: bool,
}

impl Dialer {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            tls: Arc::new(tls(config)?),
            handshake: config.tls_handshake_timeout,
            most: if config.disable_keep_alives { 0 } else { config.max_idle_conns },
            most_of_one: config.max_idle_conns_per_host,
            idle: AtomicUsize::new(0),
        })
    }

    pub(crate) async fn dial(
        &self,
        endpoint: &Endpoint,
        patience: Duration,
    ) -> Result<Dialed, Failure> {
        if let Some(wire) = endpoint.connections.take().await {
            let less = |idle: usize| Some(idle.saturating_sub(1));
            let _ = self.idle.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            return Ok(Dialed { wire, used: true });
        }
        let said = &endpoint.said;
        let connecting = TcpStream::connect((said.host.as_str(), said.port));
        let connected = match tokio::time::timeout(patience, connecting).await {
            Ok(connected) => connected,
            Err(_) => return Err(Failure::dial(&said.address, "i/o timeout")),
        };
        let ready = connected.and_then(|stream| {
            prepare(&stream)?;
            let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
            Ok((stream, peer, local))
        });
        let (stream, peer, local) = ready.map_err(|error| {
            Failure::dial(&said.address, &format!("connect: {}", in_words(&error)))
        })?;
        let stream =
            if said.tls { self.shake_hands(endpoint, stream).await? } else { Stream::Tcp(stream) };
        Ok(Dialed { wire: Wire::new(stream, peer, local), used: false })
    }

    /// Keeps a connection for the endpoint's next request.
    pub(crate) fn keep(&self, endpoint: &Endpoint, wire: Wire) {
        if self.idle.load(Ordering::Relaxed) < self.most {
            self.idle.fetch_add(1, Ordering::Relaxed);
            endpoint.connections.put(wire, self.most_of_one);
        }
    }

    pub(crate) fn set_idle(&self, idle: usize) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    async fn shake_hands(&self, endpoint: &Endpoint, stream: TcpStream) -> Result<Stream, Failure> {
        let said = &endpoint.said;
        let name = match said.server_cert_domain_san.as_str() {
            "" => said.host.clone(),
            name => name.to_owned(),
        };
        let name = ServerName::try_from(name).map_err(|_| {
            Failure::tls(503, "the endpoint's name cannot be in a certificate".into())
        })?;
        let shaking = TlsConnector::from(self.tls.clone()).connect(name, stream);
        match tokio::time::timeout(self.handshake, shaking).await {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(TlsStream::Client(stream)))),
            Ok(Err(error)) => Err(handshake_failure(&error)),
            Err(_) => Err(Failure::tls(502, "net/http: TLS handshake timeout".into())),
        }
    }
}

fn handshake_failure(error: &io::Error) -> Failure {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let (status, text) = match cause {
        Some(rustls::Error::InvalidCertificate(error)) => {
            let status = match error {
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => 503,
                _ => 526,
            };
            let why = match error {
                CertificateError::UnknownIssuer => {
                    "x509: certificate signed by unknown authority".to_owned()
                }
                error => format!("x509: {error}"),
            };
            (status, format!("tls: failed to verify certificate: {why}"))
        }
        Some(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)) => {
            (525, "remote error: tls: handshake failure".to_owned())
        }
        Some(rustls::Error::AlertReceived(alert)) => (496, format!("remote error: tls: {alert:?}")),
        Some(rustls::Error::InvalidMessage(_)) => {
            (525, "tls: first record does not look like a TLS handshake".to_owned())
        }
        Some(error) => (525, format!("tls: {error}")),
        None if error.kind() == io::ErrorKind::UnexpectedEof => (502, "EOF".to_owned()),
        None => (502, in_words(error)),
    };
    Failure::tls(status, text)
}

/// The original's words for what a system call said.
pub(crate) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::BrokenPipe => "broken pipe".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

fn tls(config: &Config) -> Result<ClientConfig, Error> {
    let Config { ca_certs, backends: own, skip_ssl_validation, .. } = config;
    let keys = ["ca_certs", "backends.cert_chain", "backends.private_key"];
    client_tls(keys, [ca_certs, &own.cert_chain, &own.private_key], *skip_ssl_validation)
}

/// What a client speaks that trusts a CA and has a certificate and a key, all PEM. `keys` are their
/// names.
pub(crate) fn client_tls(
    keys: [&'static str; 3],
    [ca, own_chain, own_key]: [&str; 3],
    unchecked: bool,
) -> Result<ClientConfig, Error> {
    let cannot = |what: &'static str| {
        move |error: rustls::Error| Error::Certificate { what, source: error.into() }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in certificates(keys[0], ca)? {
        roots.add(root).map_err(cannot(keys[0]))?;
    }
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(cannot("the TLS versions"))?;
    let builder = if unchecked {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
    } else if roots.is_empty() {
        // Without a CA nobody is trusted.
        builder.with_root_certificates(roots)
    } else {
        let checked =
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| Error::Certificate { what: keys[0], source: error.into() })?;
        builder.with_webpki_verifier(checked)
    };
    if own_chain.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = certificates(keys[1], own_chain)?;
    let key = key(keys[2], own_key)?;
    builder.with_client_auth_cert(chain, key).map_err(cannot(keys[1]))
}

pub(crate) fn certificates(
    what: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Certificate { what, source: error.into() })
}

pub(crate) fn key(what: &'static str, pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| Error::Certificate { what, source: error.into() })
}

/// For `skip_ssl_validation`: any certificate is good, but its key must be there.
#[derive(Debug)]
struct Unchecked(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
