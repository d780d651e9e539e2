//! The authority that vouches for app instances, made once (diego.md 10.5).

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SignatureAlgorithm,
};

use crate::error::Error;
use crate::secrets;

const ALGORITHM: &SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;

/// Where it is.
#[derive(Debug)]
pub struct Authority {
    /// A directory with its certificate and nothing else, which containers get.
    pub trusted: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key, which its owner alone may read.
    pub key: PathBuf,
}

impl Authority {
    /// Finds it in a data directory, or makes it there at the first start.
    pub fn ensure(data: &Path) -> Result<Self, Error> {
        let trusted = data.join("trusted-certificates");
        let authority = Self {
            certificate: trusted.join("instance-identity-ca.crt"),
            trusted,
            key: data.join("instance-identity-ca.key"),
        };
        // The certificate comes last: where it is, its key is.
        if !authority.certificate.exists() {
            authority.make()?;
        }
        Ok(authority)
    }

    fn make(&self) -> Result<(), Error> {
        let made = || -> Result<_, rcgen::Error> {
            let key = KeyPair::generate_for(ALGORITHM)?;
            let mut params = CertificateParams::new(Vec::new())?;
            params.distinguished_name.push(DnType::CommonName, "Bloomery instance identity CA");
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
        };
        let (certificate, key) = made().map_err(Error::start("the instance identity authority"))?;
        // Users of containers read it.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.trusted)
            .map_err(Error::file("make", &self.trusted))?;
        secrets::write(&self.key, key.as_bytes(), 0o600)?;
        secrets::write(&self.certificate, certificate.as_bytes(), 0o644)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_made_once_and_its_key_is_its_owner_s() {
        let data = tempfile::tempdir().unwrap();
        let read = |authority: &Authority| {
            [&authority.certificate, &authority.key].map(|path| fs::read_to_string(path).unwrap())
        };
        let made = Authority::ensure(data.path()).unwrap();
        let first = read(&made);
        assert_eq!(read(&Authority::ensure(data.path()).unwrap()), first);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&made.key), mode(&made.certificate)), (0o600, 0o644));

        // Killed before the certificate was there.
        fs::remove_file(&made.certificate).unwrap();
        let again = read(&Authority::ensure(data.path()).unwrap());
        assert!(again[0] != first[0] && again[1] != first[1]);
    }
}
