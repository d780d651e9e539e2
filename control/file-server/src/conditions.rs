//! Conditions and ranges of requests, RFC 9110 sections 13 and 14.

use std::ops::Range;

use http::{HeaderMap, HeaderName, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// What a request is to be answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of the file.
    All,
    /// These bytes of it.
    Part(Range<u64>),
    /// Nothing, the client has it.
    Unchanged,
    /// Nothing, the file is not what the client wants to go on with.
    Failed,
    /// Nothing, the file is shorter than that.
    Beyond,
}

/// Decides by the file's ETag with its quotes, the second it was modified in, and its size.
pub(crate) fn wanted(headers: &HeaderMap, etag: &str, modified: i64, size: u64) -> Wanted {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let since = |name| text(name).and_then(seconds);
    let lists = |list: &str, weak: bool| {
        list.split(',').map(str::trim).any(|tag| {
            let tag = if weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
            tag == "*" || tag == etag
        })
    };
    match text(header::IF_MATCH) {
        Some(list) if !lists(list, false) => return Wanted::Failed,
        Some(_) => {}
        None if since(header::IF_UNMODIFIED_SINCE).is_some_and(|time| modified > time) => {
            return Wanted::Failed;
        }
        None => {}
    }
    match text(header::IF_NONE_MATCH) {
        Some(list) if lists(list, true) => return Wanted::Unchanged,
        Some(_) => {}
        None if since(header::IF_MODIFIED_SINCE).is_some_and(|time| modified <= time) => {
            return Wanted::Unchanged;
        }
        None => {}
    }
    let Some(range) = text(header::RANGE) else { return Wanted::All };
    // Half of an old file is no use to who has the other half of a new one.
    let same = text(header::IF_RANGE).is_none_or(|known| {
        known == etag || !known.contains('"') && seconds(known) == Some(modified)
    });
    if same { part(range, size) } else { Wanted::All }
}

/// One range; several are answered with all of the file, as a server may.
fn part(range: &str, size: u64) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Ok(0) => Wanted::Beyond,
            Ok(_) if size == 0 => Wanted::All,
            Ok(count) => Wanted::Part(size.saturating_sub(count)..size),
            Err(_) => Wanted::All,
        },
        (first, last) => {
            let end = if last.is_empty() { Ok(u64::MAX) } else { number(last) };
            match (number(first), end) {
                (Ok(first), Ok(last)) if first > last => Wanted::All,
                (Ok(first), Ok(_)) if first >= size => Wanted::Beyond,
                (Ok(first), Ok(last)) => Wanted::Part(first..last.saturating_add(1).min(size)),
                _ => Wanted::All,
            }
        }
    }
}

fn seconds(date: &str) -> Option<i64> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    PARSER.parse_timestamp(date).ok().map(Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"abc\"";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn ask(conditions: &[(&'static str, &str)]) -> Wanted {
        let mut headers = HeaderMap::new();
        for (name, value) in conditions {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        wanted(&headers, ETAG, 784_111_777, 10)
    }

    #[test]
    fn conditions_go_by_etag_before_time() {
        for (conditions, expected) in [
            (&[][..], Wanted::All),
            (&[("if-none-match", ETAG)], Wanted::Unchanged),
            (&[("if-none-match", "\"x\", W/\"abc\"")], Wanted::Unchanged),
            (&[("if-none-match", "*")], Wanted::Unchanged),
            (&[("if-none-match", "\"x\""), ("if-modified-since", MODIFIED)], Wanted::All),
            (&[("if-modified-since", MODIFIED)], Wanted::Unchanged),
            (&[("if-modified-since", BEFORE)], Wanted::All),
            (&[("if-modified-since", "yesterday")], Wanted::All),
            (&[("if-match", "\"x\"")], Wanted::Failed),
            (&[("if-match", "W/\"abc\"")], Wanted::Failed),
            (&[("if-match", ETAG), ("if-unmodified-since", BEFORE)], Wanted::All),
            (&[("if-unmodified-since", BEFORE)], Wanted::Failed),
        ] {
            assert_eq!(ask(conditions), expected, "{conditions:?}");
        }
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        for (range, expected) in [
            ("bytes=0-3", Wanted::Part(0..4)),
            ("bytes=4-", Wanted::Part(4..10)),
            ("bytes=4-400", Wanted::Part(4..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("lines=1-2", Wanted::All),
        ] {
            assert_eq!(ask(&[("range", range)]), expected, "{range}");
        }
        assert_eq!(ask(&[("range", "bytes=0-3"), ("if-range", "\"x\"")]), Wanted::All);
        assert_eq!(ask(&[("range", "bytes=0-3"), ("if-range", ETAG)]), Wanted::Part(0..4));
        assert_eq!(ask(&[("range", "bytes=0-3"), ("if-range", MODIFIED)]), Wanted::Part(0..4));
        assert_eq!(ask(&[("range", "bytes=0-3"), ("if-range", BEFORE)]), Wanted::All);
    }
}
