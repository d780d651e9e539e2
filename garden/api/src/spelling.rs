//! How Go spells absent and odd values in JSON.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A `time.Duration` on the wire: an integer count of nanoseconds, possibly negative.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename = "time.Duration")]
pub struct Nanoseconds(pub i64);

impl Nanoseconds {
    /// Saturates at about 292 years.
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }

    /// `None` for zero and below, which the wire uses for "not set".
    #[must_use]
    pub fn as_duration(self) -> Option<Duration> {
        u64::try_from(self.0).ok().filter(|ns| *ns > 0).map(Duration::from_nanos)
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Serialises an empty collection as `null`, as Go does with a nil slice or map.
pub(crate) mod null_if_empty {
    use serde::ser::{Serialize, Serializer};

    pub(crate) trait MaybeEmpty: Serialize {
        fn is_empty(&self) -> bool;
    }

    impl<T: Serialize> MaybeEmpty for Vec<T> {
        fn is_empty(&self) -> bool {
            Vec::is_empty(self)
        }
    }

    impl<K: Serialize, V: Serialize> MaybeEmpty for std::collections::BTreeMap<K, V> {
        fn is_empty(&self) -> bool {
            std::collections::BTreeMap::is_empty(self)
        }
    }

    pub(crate) fn serialize<T: MaybeEmpty, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if value.is_empty() { serializer.serialize_none() } else { value.serialize(serializer) }
    }
}

/// `net.IP` as text: empty is no address, and an IPv4-mapped IPv6 address is the IPv4 one.
pub(crate) mod ip_text {
    use super::{Deserializer, IpAddr, Serialize, Serializer, Visitor, de, fmt};

    #[expect(clippy::ref_option, reason = "serde's `with` passes a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(
        ip: &Option<IpAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match ip {
            Some(ip) => ip.to_string().serialize(serializer),
            None => "".serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpAddr>, D::Error> {
        deserializer.deserialize_str(IpVisitor)
    }

    struct IpVisitor;

    impl Visitor<'_> for IpVisitor {
        type Value = Option<IpAddr>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an IP address")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            if text.is_empty() {
                return Ok(None);
            }
            let ip: IpAddr =
                text.parse().map_err(|_| E::custom(format_args!("invalid IP address: {text}")))?;
            Ok(Some(match ip {
                IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
                v4 @ IpAddr::V4(_) => v4,
            }))
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped = IpVisitor.visit_str::<serde_json::Error>("::ffff:10.0.0.1").unwrap();
        assert_eq!(mapped, Some(IpAddr::from([10, 0, 0, 1])));
        let v6 = IpVisitor.visit_str::<serde_json::Error>("::1").unwrap();
        assert_eq!(v6, Some(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)));
    }
}

/// An integer enumeration whose unknown values are kept.
macro_rules! wire_integer {
    ($(#[$doc:meta])* $name:ident: $int:ty as $go:literal { $($(#[$vdoc:meta])* $variant:ident = $value:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            /// Any other number.
            Other($int),
        }

        impl $name {
            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> $int {
                match self {
                    $(Self::$variant => $value,)+
                    Self::Other(number) => number,
                }
            }
        }

        impl From<$int> for $name {
            fn from(number: $int) -> Self {
                match number {
                    $($value => Self::$variant,)+
                    other => Self::Other(other),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.number().serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(rename = $go)]
                struct Number($int);
                Number::deserialize(deserializer).map(|number| Self::from(number.0))
            }
        }
    };
}
pub(crate) use wire_integer;
