//! The id that follows one request through all parts.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries a [`TraceId`] between parts, and on to Garden.
pub const TRACE_HEADER: HeaderName = HeaderName::from_static("x-vcap-request-id");

/// A client's own id for its request, passed on as it came. Parts also pass on that there is none:
/// the header is then sent empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TraceId(String);

impl TraceId {
    /// Longer ones are not ours to carry; a UUID has 36.
    const LONGEST: usize = 128;

    /// The id of a request. Empty if it has none, or one that is too long or not printable ASCII.
    pub fn of(headers: &HeaderMap) -> Self {
        headers
            .get(TRACE_HEADER)
            .and_then(|value| value.to_str().ok())
            .map_or_else(Self::default, Self::from)
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id as it came.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Sets it in a request's headers, also when it is empty.
    pub fn put(&self, headers: &mut HeaderMap) {
        let value =
            HeaderValue::from_str(&self.0).unwrap_or(const { HeaderValue::from_static("") });
        headers.insert(TRACE_HEADER, value);
    }
}

impl From<&str> for TraceId {
    /// Empty for what cannot stand in a header.
    fn from(text: &str) -> Self {
        let carried = text.len() <= Self::LONGEST
            && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        Self(if carried { text.to_owned() } else { String::new() })
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_passed_on_as_it_came() {
        let mut headers = HeaderMap::new();
        assert!(TraceId::of(&headers).is_empty());
        headers.insert("X-Vcap-Request-Id", HeaderValue::from_static("b3f1-c0de"));
        let trace = TraceId::of(&headers);
        let mut onward = HeaderMap::new();
        trace.put(&mut onward);
        assert_eq!(onward[TRACE_HEADER], "b3f1-c0de");
        TraceId::default().put(&mut onward);
        assert_eq!(onward[TRACE_HEADER], "");
    }

    #[test]
    fn hostile_ids_are_dropped() {
        for hostile in ["a\r\nX: y".to_owned(), "é".to_owned(), "x".repeat(129)] {
            assert!(TraceId::from(hostile.as_str()).is_empty(), "{hostile:?}");
        }
    }
}
