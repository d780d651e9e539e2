//! Strings that are longer than what one wants to hold.

use super::scan::{Scanner, Stop};
use super::{Error, Scanned, Value, scan};

/// The beginning of an object, up to a member whose string has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenString<'a> {
    /// The members before it.
    pub members: Value<'a>,
    /// Its key.
    pub key: String,
    /// Where its content begins in the buffer, behind the quotation mark.
    pub start: usize,
    /// What there is of its content, unescaped, as far as more of it will not change that.
    pub text: String,
    /// Bytes of the buffer that this took. Without them, the buffer is the beginning of the same
    /// object with the rest of the string.
    pub length: usize,
}

/// Looks for an object in whose member's string the buffer ends; `None` if it ends anywhere else.
///
/// # Errors
/// [`Error::Syntax`] if no continuation could make it JSON.
pub fn open_string(text: &[u8]) -> Result<Option<OpenString<'_>>, Error> {
    let mut scanner = Scanner { text, at: 0, at_end: false };
    match members(&mut scanner) {
        Ok(Some((members, key, start))) => {
            let length = settled(&text[start..]);
            let mut quoted = Vec::with_capacity(length + 2);
            quoted.push(b'"');
            quoted.extend_from_slice(&text[start..start + length]);
            quoted.push(b'"');
            let Scanned::Value { value: Value::String(content), .. } = scan(&quoted, true)? else {
                return Ok(None);
            };
            let members = Value::Object(members);
            Ok(Some(OpenString { members, key, start, text: content, length }))
        }
        Ok(None) | Err(Stop::Partial) => Ok(None),
        Err(Stop::Syntax(text)) => Err(Error::Syntax(text)),
    }
}

type Members<'a> = Vec<(String, Value<'a>)>;

/// Members up to the open string, its key, and where it begins.
fn members<'a>(scanner: &mut Scanner<'a>) -> Result<Option<(Members<'a>, String, usize)>, Stop> {
    let mut members = Vec::new();
    scanner.skip_space();
    if scanner.next()? != b'{' {
        return Ok(None);
    }
    loop {
        scanner.skip_space();
        if scanner.peek()? != b'"' {
            return Ok(None);
        }
        let key = scanner.string()?;
        scanner.skip_space();
        if scanner.next()? != b':' {
            return Ok(None);
        }
        scanner.skip_space();
        if scanner.peek()? == b'"' {
            let start = scanner.at + 1;
            match scanner.string() {
                Ok(text) => members.push((key, Value::String(text))),
                Err(Stop::Partial) => return Ok(Some((members, key, start))),
                Err(stop) => return Err(stop),
            }
        } else {
            members.push((key, scanner.value(1)?));
        }
        scanner.skip_space();
        if scanner.next()? != b',' {
            return Ok(None);
        }
    }
}

/// How much of a string without an end stands for itself, whatever follows: no escape, no pair of
/// surrogates and no character is cut.
fn settled(text: &[u8]) -> usize {
    let mut scanner = Scanner { text, at: 0, at_end: false };
    let mut escaped = Vec::new();
    while let Some(&byte) = text.get(scanner.at) {
        let begin = scanner.at;
        scanner.at += 1;
        if byte == b'\\' {
            // What is no escape is found when it is read.
            if let Err(Stop::Partial) = scanner.escape(&mut escaped) {
                return begin;
            }
            escaped.clear();
        }
    }
    // A character takes four bytes at most, and begins with one that no other has inside.
    let last = text.len().saturating_sub(3)..text.len();
    let lead = last.rev().find(|&at| !(0x80..0xc0).contains(&text[at]));
    match lead.map(|at| (at, text[at])) {
        Some((at, 0xc2..=0xf4)) => at,
        _ => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a growing buffer's string piece by piece, `step` bytes at a time.
    fn in_pieces(whole: &[u8], step: usize) -> (String, Vec<u8>) {
        let (mut buffer, mut text) = (Vec::new(), String::new());
        for more in whole.chunks(step) {
            buffer.extend_from_slice(more);
            let Some(open) = open_string(&buffer).unwrap() else { continue };
            if open.key == "data" {
                text.push_str(&open.text);
                let taken = open.start..open.start + open.length;
                buffer.drain(taken);
            }
        }
        (text, buffer)
    }

    #[test]
    fn however_a_string_is_cut_its_pieces_are_the_whole() {
        let whole = "{\"id\":\"a\\\"b\",\"source\":0 , \"data\" : \"\u{e9}\u{20ac}\u{1f600}\\n\\\\\\u00e9\
                     \\ud83d\\ude00\\ud83d!\\ude00x\u{fffd}end\",\"tty\":null}";
        let mut bytes = whole.as_bytes().to_vec();
        let broken = bytes.windows(3).position(|three| three == "\u{fffd}".as_bytes()).unwrap();
        bytes[broken + 1] = 0xff;
        let Scanned::Value { value: Value::Object(members), .. } = scan(&bytes, true).unwrap()
        else {
            panic!()
        };
        let Value::String(expected) = &members[2].1 else { panic!() };
        for step in 1..=bytes.len() {
            let (text, rest) = in_pieces(&bytes, step);
            let Scanned::Value { value: Value::Object(members), .. } = scan(&rest, true).unwrap()
            else {
                panic!("{step}: {}", String::from_utf8_lossy(&rest))
            };
            let Value::String(last) = &members[2].1 else { panic!() };
            assert_eq!(&(text + last), expected, "{step}");
            assert_eq!(members[3], ("tty".to_owned(), Value::Null));
        }
    }

    #[test]
    fn only_strings_of_the_object_itself_are_open() {
        for other in
            ["", "{", "{\"a", "{\"a\":", "{\"a\":1", "{\"a\":{\"b\":\"x", "[\"x", "{\"a\":\"x\""]
        {
            assert_eq!(open_string(other.as_bytes()), Ok(None), "{other}");
        }
        open_string(b"{\"a\":\"x\ny").unwrap_err();
        open_string(b"{\"a\":\"\\x00").unwrap_err();
    }
}
