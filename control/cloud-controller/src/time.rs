//! Points in time: microseconds since the epoch in the database, RFC 3339 with seconds outside.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Microseconds since the epoch.
pub(crate) type Micros = i64;

pub(crate) fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// `2026-11-21T00:00:00Z`.
pub(crate) fn show(time: Micros) -> String {
    let time = Timestamp::from_microsecond(time).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time of a query, with seconds and a zone.
pub(crate) fn parse(text: &str) -> Option<Micros> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_seconds_and_are_utc() {
        assert_eq!(show(1_795_219_200_999_999), "2026-11-21T00:00:00Z");
        assert_eq!(parse("2026-11-21T00:00:00Z"), Some(1_795_219_200_000_000));
        assert_eq!(parse("yesterday"), None);
    }
}
