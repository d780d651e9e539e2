//! Writing.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// One line: the value and a newline.
///
/// # Panics
/// If `value`'s own serialisation fails, which the types of this crate never do.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut line = encode_compact(value);
    line.push(b'\n');
    line
}

/// As [`encode`], without the newline.
///
/// # Panics
/// If `value`'s own serialisation fails, which the types of this crate never do.
#[must_use]
pub fn encode_compact<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut text = Vec::with_capacity(128);
    value
        .serialize(&mut Serializer::with_formatter(&mut text, HtmlSafe))
        .expect("wire types have string keys and a vector takes every byte");
    text
}

/// Go's default: safe inside HTML and JavaScript.
struct HtmlSafe;

impl Formatter for HtmlSafe {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = special.chars();
            let character = chars.next().map_or(0, u32::from);
            write!(writer, "\\u{character:04x}")?;
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}
