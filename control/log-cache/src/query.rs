//! The query strings of reads, as the original's gateway takes them.

use crate::messages::logcache::v1::{EnvelopeType, ReadRequest};

/// What a query says about one name, decoded, in its order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// What is wrong with a query, in the original's words.
type Wrong = String;

impl Query {
    pub fn parse(raw: &str) -> Result<Self, Wrong> {
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            if pair.contains(';') {
                return Err("invalid semicolon separator in query".into());
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((unescape(name, true)?, unescape(value, true)?));
        }
        Ok(Self(pairs))
    }

    fn all<'a>(&'a self, names: [&'a str; 2]) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| names.contains(&name.as_str())).map(|(_, it)| &**it)
    }

    /// The value of a field that may be given once, under either of its names.
    fn one<'a>(&'a self, names: [&'a str; 2]) -> Result<Option<&'a str>, Wrong> {
        let values: Vec<_> = self.all(names).collect();
        match values[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => {
                let [name, _] = names;
                Err(format!("too many values for field {name:?}: {}", values.join(", ")))
            }
        }
    }

    fn number(&self, names: [&str; 2]) -> Result<i64, Wrong> {
        let Some(text) = self.one(names)? else { return Ok(0) };
        text.parse().map_err(|_| {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let what = if is_number { "value out of range" } else { "invalid syntax" };
            wrong_field(names[0], "ParseInt", text, what)
        })
    }

    fn flag(&self, names: [&str; 2]) -> Result<bool, Wrong> {
        match self.one(names)? {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(text) => Err(wrong_field(names[0], "ParseBool", text, "invalid syntax")),
        }
    }

    /// A read of `source_id`. Names that mean nothing are ignored.
    pub fn read(&self, source_id: String) -> Result<ReadRequest, Wrong> {
        let types = self.all(["envelope_types", "envelopeTypes"]).map(|text| {
            let known = EnvelopeType::from_str_name(text);
            let known = known.or_else(|| EnvelopeType::try_from(text.parse::<i32>().ok()?).ok());
            let wrong =
                || format!("parsing list \"envelope_types\": {text:?} is not a valid value");
            known.map(i32::from).ok_or_else(wrong)
        });
        Ok(ReadRequest {
            source_id,
            start_time: self.number(["start_time", "startTime"])?,
            end_time: self.number(["end_time", "endTime"])?,
            limit: self.number(["limit"; 2])?,
            envelope_types: types.collect::<Result<_, _>>()?,
            descending: self.flag(["descending"; 2])?,
            name_filter: self.one(["name_filter", "nameFilter"])?.unwrap_or_default().into(),
        })
    }

    /// Whether a question about all sources can be understood; there is one node, so its only
    /// parameter changes nothing.
    pub fn meta(&self) -> Result<(), Wrong> {
        self.flag(["local_only", "localOnly"]).map(drop)
    }
}

fn wrong_field(name: &str, call: &str, text: &str, what: &str) -> Wrong {
    format!("parsing field {name:?}: strconv.{call}: parsing {text:?}: {what}")
}

/// Undoes percent-encoding, and `+` where it is a space.
pub(crate) fn unescape(text: &str, plus: bool) -> Result<String, Wrong> {
    for (at, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            let shown: String = text[at..].chars().take(3).collect();
            return Err(format!("invalid URL escape {shown:?}"));
        }
    }
    let spaced = if plus { text.replace('+', " ") } else { text.to_owned() };
    Ok(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}
