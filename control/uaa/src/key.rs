//! The RSA key that signs tokens.
//!
//! It is made at the first start and kept as PKCS#8 in the data directory, readable by its owner
//! alone: tokens stay good over restarts, since no client but one refreshes a token that is refused.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// A public key as `/token_keys` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Jwk {
    pub kty: String,
    pub e: String,
    #[serde(rename = "use", default)]
    pub usage: String,
    pub kid: String,
    #[serde(default)]
    pub alg: String,
    #[serde(default)]
    pub value: String,
    pub n: String,
}

/// The key pair.
pub(crate) struct SigningKey {
    pub public: Jwk,
    pair: RsaKeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.public.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads the key of `dir`, or makes it. Blocks; making one takes some hundred milliseconds.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("signing-key.der");
        let unusable = |reason: String| Error::Key { path: path.clone(), reason };
        let der = match fs::read(&path) {
            Ok(der) => der,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048)
                    .map_err(|_| unusable("cannot generate it".into()))?;
                let der: Pkcs8V1Der<'_> =
                    pair.as_der().map_err(|_| unusable("cannot encode it".into()))?;
                write(&path, der.as_ref())?;
                der.as_ref().to_vec()
            }
            Err(source) => return Err(Error::File { action: "read", path, source }),
        };
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|err| unusable(err.to_string()))?;
        let public = pair.public_key();
        let spki: PublicKeyX509Der<'_> =
            public.as_der().map_err(|_| unusable("cannot encode its public half".into()))?;
        let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        let public = Jwk {
            kty: "RSA".into(),
            kid: URL_SAFE_NO_PAD.encode(&Sha256::digest(spki.as_ref())[..9]),
            usage: "sig".into(),
            alg: "RS256".into(),
            value: pem(spki.as_ref()),
            e,
            n,
        };
        Ok(Self { public, pair })
    }

    /// A JWT of these claims; `jku` tells where the public key is to be had. Takes about a
    /// millisecond of a core.
    pub fn sign(&self, claims: &impl Serialize, jku: &str) -> Result<String, Error> {
        let header = json!({"alg": "RS256", "jku": jku, "kid": self.public.kid, "typ": "JWT"});
        let claims = serde_json::to_vec(claims).map_err(|err| Error::Sign(err.to_string()))?;
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|err| Error::Sign(err.to_string()))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// Durable before it is used: a key that a crash takes away again would log everybody out.
fn write(path: &Path, der: &[u8]) -> Result<(), Error> {
    let fresh: PathBuf = path.with_extension("new");
    let failed = |action| {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    };
    match fs::remove_file(&fresh) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(err)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(failed("create"))?;
    file.write_all(der).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    fs::rename(&fresh, path).map_err(failed("rename"))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync the directory of"))
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PUBLIC KEY-----");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_stays_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = SigningKey::open(dir.path()).unwrap();
        let second = SigningKey::open(dir.path()).unwrap();
        assert_eq!(first.public.kid, second.public.kid);
        assert_eq!(first.public.n, second.public.n);
        let claims = json!({"jti": "x"});
        assert_eq!(first.sign(&claims, "u").unwrap(), second.sign(&claims, "u").unwrap());
        let mode = fs::metadata(dir.path().join("signing-key.der")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(first.public.value.starts_with("-----BEGIN PUBLIC KEY-----\nMII"));
    }

    #[test]
    fn a_spoilt_key_is_an_error_and_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("signing-key.der"), b"no key").unwrap();
        assert!(matches!(SigningKey::open(dir.path()), Err(Error::Key { .. })));
        assert_eq!(fs::read(dir.path().join("signing-key.der")).unwrap(), b"no key");
    }

    #[test]
    fn a_key_cut_short_by_a_crash_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("signing-key.new"), b"half").unwrap();
        SigningKey::open(dir.path()).unwrap();
    }
}
