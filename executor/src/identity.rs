//! Instance identity: a certificate and key for each container, which says what runs in it
//! (diego.md 10.5).
//!
//! Keys are elliptic (P-256): making one takes a fraction of a millisecond, where the original's
//! 3072-bit RSA keys are the longest wait of a start.

mod certificate;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use x509_parser::pem::Pem;

use certificate::Signature;

/// Where a container finds its identity.
pub(crate) const INSIDE: &str = "/etc/cf-instance-credentials";

/// No certificate can be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The authority's files.
    #[error("reading the instance identity authority from {path}: {what}")]
    Authority {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Signing.
    #[error("signing the certificate of {guid}")]
    Sign {
        /// Whose.
        guid: String,
        /// Why not.
        source: rcgen::Error,
    },
    /// Writing.
    #[error("writing the credentials to {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// The authority that vouches for instances.
pub struct Authority {
    key: KeyPair,
    signature: Signature,
    /// Its name, DER.
    name: Vec<u8>,
    certificate: String,
    validity: Duration,
    directory: PathBuf,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// Who a certificate is for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) guid: String,
    pub(crate) address: Option<IpAddr>,
    /// `organization:…`, `space:…`, `app:…`.
    pub(crate) organizational_units: Vec<String>,
}

impl Authority {
    /// Reads the authority's certificate and key; certificates are valid for `validity` and lie in
    /// directories below `directory`, which is made, and is nobody else's to read.
    pub fn load(
        certificate: &Path,
        key: &Path,
        validity: Duration,
        directory: PathBuf,
    ) -> Result<Self, Error> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| Error::Authority {
                path: path.to_owned(),
                what: error.to_string(),
            })
        };
        let wrong = |path: &Path, what: String| Error::Authority { path: path.to_owned(), what };
        let text = read(certificate)?;
        let pair = KeyPair::from_pem(&read(key)?).map_err(|error| wrong(key, error.to_string()))?;
        let signature = Signature::of(&pair)
            .ok_or_else(|| wrong(key, format!("keys of the kind {pair:?} do not sign here")))?;
        let name = Pem::iter_from_buffer(text.as_bytes())
            .next()
            .ok_or_else(|| wrong(certificate, "there is no PEM in it".into()))?
            .map_err(|error| wrong(certificate, error.to_string()))?
            .parse_x509()
            .map_err(|error| wrong(certificate, error.to_string()))?
            .subject()
            .as_raw()
            .to_vec();
        let write = |source| Error::Write { path: directory.clone(), source };
        private::directory(&directory).map_err(write)?;
        Ok(Self { key: pair, signature, name, certificate: text, validity, directory })
    }

    /// The directory that a container's credentials lie in, made. It is mounted into the container
    /// before there is a certificate, since its address is not known yet.
    pub(crate) fn directory(&self, guid: &str) -> Result<PathBuf, Error> {
        let path = self.directory.join(guid);
        match fs::create_dir(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::Write { path, source })
            }
            _ => Ok(path),
        }
    }

    /// Makes a key and a certificate and puts them in place of the older ones, in one step each.
    pub(crate) fn issue(&self, subject: &Subject) -> Result<(), Error> {
        let (chain, key) = self
            .sign(subject)
            .map_err(|source| Error::Sign { guid: subject.guid.clone(), source })?;
        let directory = self.directory(&subject.guid)?;
        // The key first: whoever finds the new certificate finds its key.
        for (name, text) in [("instance.key", key), ("instance.crt", chain)] {
            let (path, new) = (directory.join(name), directory.join(format!("{name}.new")));
            fs::write(&new, text)
                .and_then(|()| fs::rename(&new, &path))
                .map_err(|source| Error::Write { path, source })?;
        }
        Ok(())
    }

    /// Forgets a container. Nothing happens if nothing is there.
    pub(crate) fn forget(&self, guid: &str) {
        let path = self.directory.join(guid);
        if let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "credentials cannot be removed");
        }
    }

    /// Forgets all containers but these.
    pub(crate) fn retain(&self, guids: &dyn Fn(&str) -> bool) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if let Some(guid) = entry.file_name().to_str().filter(|guid| !guids(guid)) {
                self.forget(guid);
            }
        }
    }

    /// How long after its making a certificate is replaced: half an hour before its end, or after
    /// seven eighths of a short life.
    pub(crate) fn rotation(&self) -> Duration {
        const SHORT: Duration = Duration::from_secs(4 * 3600);
        const BEFORE: Duration = Duration::from_secs(30 * 60);
        if self.validity <= SHORT { self.validity * 7 / 8 } else { self.validity - BEFORE }
    }

    fn sign(&self, subject: &Subject) -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate =
            certificate::sign(subject, &key, &self.name, &self.key, self.signature, self.validity)?;
        Ok((pem("CERTIFICATE", &certificate) + &self.certificate, key.serialize_pem()))
    }
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem += line;
        pem += "\n";
        rest = after;
    }
    pem + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::{Authority, Subject};

    fn authority(directory: &std::path::Path, validity: Duration) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (cert_file, key_file) = (directory.join("ca.crt"), directory.join("ca.key"));
        std::fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        Authority::load(&cert_file, &key_file, validity, directory.join("instances")).unwrap()
    }

    #[test]
    fn certificates_say_who_runs() {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority(directory.path(), Duration::from_secs(24 * 3600));
        let subject = Subject {
            guid: "ig-1".into(),
            address: Some("10.254.0.2".parse().unwrap()),
            organizational_units: vec!["organization:o".into(), "space:s".into(), "app:a".into()],
        };
        let start = Instant::now();
        authority.issue(&subject).unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "a start waits for this");

        let place = directory.path().join("instances/ig-1");
        let chain = std::fs::read(place.join("instance.crt")).unwrap();
        let certificates: Vec<_> =
            x509_parser::pem::Pem::iter_from_buffer(&chain).map(Result::unwrap).collect();
        assert_eq!(certificates.len(), 2, "the leaf, then the authority");
        let (_, leaf) = X509Certificate::from_der(&certificates[0].contents).unwrap();
        let (_, issuer) = X509Certificate::from_der(&certificates[1].contents).unwrap();
        leaf.verify_signature(Some(issuer.public_key())).unwrap();
        let name = leaf.subject().to_string();
        assert_eq!(name, "OU=organization:o, OU=space:s, OU=app:a, CN=ig-1");
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let names: Vec<_> = names.value.general_names.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let validity = leaf.validity();
        let days = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(days, 24 * 3600 + 60);
        KeyPair::from_pem(&std::fs::read_to_string(place.join("instance.key")).unwrap()).unwrap();

        authority.retain(&|guid| guid == "another");
        assert!(!place.exists());
        authority.forget("ig-1");
    }

    #[test]
    fn certificates_are_replaced_before_their_end() {
        let directory = tempfile::tempdir().unwrap();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(
            authority(directory.path(), hours(24)).rotation(),
            hours(24) - Duration::from_secs(1800)
        );
        assert_eq!(authority(directory.path(), hours(4)).rotation(), hours(4) * 7 / 8);
    }
}
