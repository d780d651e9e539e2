//! An X.509 certificate with several organizational units, which rcgen cannot write: its names hold
//! one value of each kind.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{KeyPair, PublicKeyData as _, SignatureAlgorithm, SigningKey as _};
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, DERWriterSeq, Tag};

use super::Subject;

/// UTCTime, X.680 8.4.
const UTC_TIME: Tag = Tag { tag_class: yasna::TagClass::Universal, tag_number: 23 };

const ORGANIZATIONAL_UNIT: &[u64] = &[2, 5, 4, 11];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SUBJECT_ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
const SERVER_AUTHENTICATION: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTHENTICATION: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// How an authority's key signs: its algorithm, and whether NULL parameters follow (RFC 4055).
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature {
    algorithm: &'static [u64],
    null: bool,
}

impl Signature {
    /// None for keys that authorities do not have.
    pub(super) fn of(key: &KeyPair) -> Option<Self> {
        let is = |algorithm: &'static SignatureAlgorithm| key.algorithm() == algorithm;
        if is(&rcgen::PKCS_ECDSA_P256_SHA256) {
            Some(Self { algorithm: &[1, 2, 840, 10045, 4, 3, 2], null: false })
        } else if is(&rcgen::PKCS_ECDSA_P384_SHA384) {
            Some(Self { algorithm: &[1, 2, 840, 10045, 4, 3, 3], null: false })
        } else if is(&rcgen::PKCS_RSA_SHA256) {
            Some(Self { algorithm: &[1, 2, 840, 113_549, 1, 1, 11], null: true })
        } else if is(&rcgen::PKCS_ED25519) {
            Some(Self { algorithm: &[1, 3, 101, 112], null: false })
        } else {
            None
        }
    }

    fn write(self, writer: DERWriter<'_>) {
        writer.write_sequence(|writer| {
            oid(writer.next(), self.algorithm);
            if self.null {
                writer.next().write_null();
            }
        });
    }
}

/// Signs a certificate (RFC 5280, 4.1) for `key` in the name of an authority: the DER of its name, its
/// key, and how that signs. It is valid from a minute ago, as clocks differ, for `validity` from now.
pub(super) fn sign(
    subject: &Subject,
    key: &KeyPair,
    issuer: &[u8],
    authority: &KeyPair,
    signature: Signature,
    validity: Duration,
) -> Result<Vec<u8>, rcgen::Error> {
    let now = SystemTime::now();
    let times = [now - Duration::from_secs(60), now + validity];
    let serial = uuid::Uuid::new_v4();
    let to_be_signed = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
            writer.next().write_bigint_bytes(serial.as_bytes(), true);
            signature.write(writer.next());
            writer.next().write_der(issuer);
            writer.next().write_sequence(|writer| {
                for time in times {
                    writer.next().write_tagged_implicit(UTC_TIME, |writer| {
                        writer.write_bytes(utc(time).as_bytes());
                    });
                }
            });
            name(writer.next(), subject);
            writer.next().write_der(&key.subject_public_key_info());
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| extensions(writer, subject));
            });
        });
    });
    let signed = authority.sign(&to_be_signed)?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&to_be_signed);
            signature.write(writer.next());
            writer.next().write_bitvec_bytes(&signed, signed.len() * 8);
        });
    }))
}

fn oid(writer: DERWriter<'_>, components: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(components));
}

/// RFC 5280 wants UTCTime through the year 2049.
fn utc(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::MIN);
    time.to_zoned(TimeZone::UTC).strftime("%y%m%d%H%M%SZ").to_string()
}

fn name(writer: DERWriter<'_>, subject: &Subject) {
    writer.write_sequence(|writer| {
        let mut attribute = |kind: &[u64], value: &str| {
            writer.next().write_set(|writer| {
                writer.next().write_sequence(|writer| {
                    oid(writer.next(), kind);
                    writer.next().write_utf8_string(value);
                });
            });
        };
        for unit in &subject.organizational_units {
            attribute(ORGANIZATIONAL_UNIT, unit);
        }
        attribute(COMMON_NAME, &subject.guid);
    });
}

fn extensions(writer: &mut DERWriterSeq<'_>, subject: &Subject) {
    let mut extension = |kind: &[u64], critical: bool, content: Vec<u8>| {
        writer.next().write_sequence(|writer| {
            oid(writer.next(), kind);
            if critical {
                writer.next().write_bool(true);
            }
            writer.next().write_bytes(&content);
        });
    };
    // digitalSignature, keyEncipherment and keyAgreement: bits 0, 2 and 4 of 5.
    let usage = yasna::construct_der(|writer| writer.write_bitvec_bytes(&[0b1010_1000], 5));
    extension(KEY_USAGE, true, usage);
    let extended = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            oid(writer.next(), CLIENT_AUTHENTICATION);
            oid(writer.next(), SERVER_AUTHENTICATION);
        });
    });
    extension(EXTENDED_KEY_USAGE, false, extended);
    let names = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            // GeneralName: dNSName is [2], iPAddress [7].
            writer.next().write_tagged_implicit(Tag::context(2), |writer| {
                writer.write_ia5_string(&subject.guid);
            });
            if let Some(address) = subject.address {
                let bytes = match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                writer
                    .next()
                    .write_tagged_implicit(Tag::context(7), |writer| writer.write_bytes(&bytes));
            }
        });
    });
    extension(SUBJECT_ALTERNATIVE_NAME, false, names);
}
