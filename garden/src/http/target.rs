//! Request targets: the path's segments and the query's pairs, decoded.

/// Percent signs and plus signs decoded; `None` where a percent sign begins no escape.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&decoded).into_owned())
}

/// A path segment or query value as it goes on the wire: everything but unreserved characters
/// (RFC 3986) is escaped.
pub fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A request target, cut but not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The path, beginning with `/` (or `*`).
    pub path: String,
    query: String,
}

impl Target {
    /// Cuts a target; one in absolute form loses its scheme and authority. `None` if an escape in
    /// the path is broken.
    pub fn parse(text: &str) -> Option<Self> {
        let local = match text.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                rest.find('/').map_or("/", |at| &rest[at..])
            }
            _ => text,
        };
        let (path, query) = local.split_once('?').unwrap_or((local, ""));
        decode(path)?;
        Some(Self { path: path.to_owned(), query: query.to_owned() })
    }

    /// The query's pairs in their order. Pairs that cannot be decoded, or contain a semicolon, are
    /// passed over.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(
            |pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(key)?, decode(value)?))
            },
        )
    }

    /// The first value of a key.
    pub fn value(&self, key: &str) -> Option<String> {
        self.pairs().find(|(found, _)| found == key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_or_refused() {
        assert_eq!(decode("a%20b+c%2Fd").as_deref(), Some("a b c/d"));
        for broken in ["%", "%2", "%zz", "a%+1"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for text in ["", "a b", "a/b%+ä\0", "x~y"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
    }

    #[test]
    fn broken_pairs_are_passed_over_and_the_first_value_wins() {
        let target = Target::parse("http://other/containers?a=1&a=2&%zz=3&b;c=4&d").unwrap();
        assert_eq!(target.path, "/containers");
        let pairs: Vec<_> = target.pairs().collect();
        assert_eq!(
            pairs,
            [("a", "1"), ("a", "2"), ("d", "")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(target.value("a").as_deref(), Some("1"));
    }
}
