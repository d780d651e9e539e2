//! An authority for instances' certificates.

use std::fs;
use std::time::Duration;

use executor::Authority;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::Cell;

impl Cell {
    /// The containers that there are credentials for.
    pub fn identities(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data.path().join("identities")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The cell's authority, the same for every executor of it.
    pub(super) fn authority(&self, validity: Duration) -> Authority {
        let place = |name: &str| self.data.path().join(name);
        let (certificate, key) = (place("ca.crt"), place("ca.key"));
        if !certificate.exists() {
            let pair = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            fs::write(&certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
            fs::write(&key, pair.serialize_pem()).unwrap();
        }
        Authority::load(&certificate, &key, validity, place("identities")).unwrap()
    }
}
