//! Who a part is: its certificate, its key, and the CA that it and its peers trust.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::connector::Protocol;
use crate::error::{BoxError, Error};

/// How often files are looked at: a handshake costs more than the three stat(2) calls do, but a
/// storm of handshakes need not repeat them.
const LOOK: Duration = Duration::from_secs(1);

/// Where an identity's parts are, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificates of the CAs whose signature a peer's certificate must carry.
    pub ca: PathBuf,
    /// The own certificate, then those between it and the CA.
    pub certificate: PathBuf,
    /// The private key of the own certificate: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// A certificate and the trust in its CA, for servers and clients alike. Both ends of every
/// connection must show a certificate of this CA; nothing else decides who may call. When the
/// files change, later connections use the new ones; while they do not fit together (one is
/// written after the other) the old ones stay in use.
#[derive(Clone)]
pub struct Identity(Arc<Source>);

struct Source {
    files: Files,
    current: Mutex<Current>,
}

struct Current {
    seen: Seen,
    looked: Instant,
    configs: Configs,
}

#[derive(Clone)]
struct Configs {
    server: Arc<ServerConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// What tells one version of the files from the next: device, inode, size and time of change.
type Seen = [Option<(u64, u64, u64, i64, i64)>; 3];

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.0.files).finish()
    }
}

impl Identity {
    /// Reads the files.
    pub fn load(files: Files) -> Result<Self, Error> {
        let seen = files.look();
        let configs = files.read()?;
        let current = Mutex::new(Current { seen, looked: Instant::now(), configs });
        Ok(Self(Arc::new(Source { files, current })))
    }

    /// For the accepting side: a client certificate is required.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.configs().server
    }

    /// For the connecting side.
    pub fn client_config(&self, protocol: Protocol) -> Arc<ClientConfig> {
        let configs = self.configs();
        match protocol {
            Protocol::Http1 => configs.http1,
            Protocol::Http2 => configs.http2,
        }
    }

    fn configs(&self) -> Configs {
        let Source { files, current } = &*self.0;
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            let seen = files.look();
            if seen != current.seen {
                current.seen = seen;
                match files.read() {
                    Ok(configs) => current.configs = configs,
                    Err(error) => {
                        let reason = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, reason, "the certificate is not replaced");
                    }
                }
            }
        }
        current.configs.clone()
    }
}

impl Files {
    fn look(&self) -> Seen {
        [&self.ca, &self.certificate, &self.key].map(|file| {
            let found = std::fs::metadata(file).ok()?;
            Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        })
    }

    fn read(&self) -> Result<Configs, Error> {
        let provider = Arc::new(provider());
        let cannot = |what: &'static str, file: &Path| {
            let file = file.to_owned();
            move |source: BoxError| Error::Identity { what, file, source }
        };
        let refused = |error: rustls::Error| {
            cannot("the certificate with its key", &self.certificate)(error.into())
        };

        let mut roots = RootCertStore::empty();
        for root in certificates(&self.ca).map_err(cannot("the CA", &self.ca))? {
            roots.add(root).map_err(|error| cannot("the CA", &self.ca)(error.into()))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&self.certificate)
            .map_err(cannot("the certificate", &self.certificate))?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| cannot("the key", &self.key)(error.into()))?;

        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| cannot("the CA", &self.ca)(error.into()))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(refused)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http1 = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(refused)?;
        let mut http2 = http1.clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Configs { server: server.into(), http1: http1.into(), http2: http2.into() })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let found = CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err("there is no certificate in it".into()) } else { Ok(found) }
}

/// TLS 1.2 and 1.3 with what the originals offer: elliptic-curve key exchange and AES-GCM.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| match suite {
        SupportedCipherSuite::Tls13(_) => true,
        SupportedCipherSuite::Tls12(_) => matches!(
            suite.suite(),
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        ),
    });
    provider
}
