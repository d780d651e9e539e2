//! Finding the first value in a buffer that may still grow.

use super::Error;

/// Go refuses deeper nesting at 10,000; nothing of Garden's comes near a hundredth of it.
const MAX_DEPTH: usize = 100;

/// A JSON value, its numbers still as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// As written.
    Number(&'a str),
    /// Unescaped; what was no Unicode is U+FFFD.
    String(String),
    /// In order.
    Array(Vec<Value<'a>>),
    /// In order, equal keys included.
    Object(Vec<(String, Value<'a>)>),
}

impl Value<'_> {
    /// Go's word for the kind of value, a number's text aside.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// What a buffer begins with.
#[derive(Clone, Debug, PartialEq)]
pub enum Scanned<'a> {
    /// A complete value, which with the white space before it takes `length` bytes.
    Value {
        /// The value.
        value: Value<'a>,
        /// Bytes of the buffer up to its end.
        length: usize,
    },
    /// Only white space, or nothing.
    Blank,
    /// The beginning of a value.
    Partial,
}

/// Looks at the first value of `text`. With `at_end`, nothing will follow, so that a number that
/// reaches the end of the buffer is complete.
///
/// # Errors
/// [`Error::Syntax`] as soon as no continuation could make it JSON.
pub fn scan(text: &[u8], at_end: bool) -> Result<Scanned<'_>, Error> {
    let mut scanner = Scanner { text, at: 0, at_end };
    scanner.skip_space();
    if scanner.at == text.len() {
        return Ok(Scanned::Blank);
    }
    match scanner.value(0) {
        Ok(value) => Ok(Scanned::Value { value, length: scanner.at }),
        Err(Stop::Partial) => Ok(Scanned::Partial),
        Err(Stop::Syntax(text)) => Err(Error::Syntax(text)),
    }
}

pub(super) enum Stop {
    Partial,
    Syntax(String),
}

pub(super) struct Scanner<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    pub(super) at_end: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn peek(&self) -> Result<u8, Stop> {
        self.text.get(self.at).copied().ok_or(Stop::Partial)
    }

    pub(super) fn next(&mut self) -> Result<u8, Stop> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn skip_space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    pub(super) fn value(&mut self, depth: usize) -> Result<Value<'a>, Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Syntax("exceeded max depth".to_owned()));
        }
        self.skip_space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Value::String),
            b't' => self.literal("true").map(|()| Value::Bool(true)),
            b'f' => self.literal("false").map(|()| Value::Bool(false)),
            b'n' => self.literal("null").map(|()| Value::Null),
            b'-' | b'0'..=b'9' => self.number(),
            other => Err(invalid(other, "looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, Stop> {
        self.at += 1;
        let mut members = Vec::new();
        self.skip_space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            match self.peek()? {
                b'"' => {}
                other => return Err(invalid(other, "looking for beginning of object key string")),
            }
            let key = self.string()?;
            self.skip_space();
            match self.next()? {
                b':' => {}
                other => return Err(invalid(other, "after object key")),
            }
            members.push((key, self.value(depth + 1)?));
            self.skip_space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(Value::Object(members)),
                other => return Err(invalid(other, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, Stop> {
        self.at += 1;
        let mut elements = Vec::new();
        self.skip_space();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.skip_space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(Value::Array(elements)),
                other => return Err(invalid(other, "after array element")),
            }
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Stop> {
        self.at += 1;
        for expected in word.bytes().skip(1) {
            match self.next()? {
                byte if byte == expected => {}
                other => {
                    let expected = char::from(expected);
                    return Err(invalid(
                        other,
                        &format!("in literal {word} (expecting '{expected}')"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value<'a>, Stop> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            other => return Err(invalid(other, "in numeric literal")),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        if self.at == self.text.len() && !self.at_end {
            return Err(Stop::Partial);
        }
        let digits = &self.text[start..self.at];
        Ok(Value::Number(std::str::from_utf8(digits).unwrap_or_default()))
    }

    fn digits(&mut self) {
        while matches!(self.text.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, place: &str) -> Result<(), Stop> {
        match self.next()? {
            b'0'..=b'9' => {
                self.digits();
                Ok(())
            }
            other => Err(invalid(other, place)),
        }
    }

    pub(super) fn string(&mut self) -> Result<String, Stop> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' => self.escape(&mut bytes)?,
                control @ 0..=0x1f => return Err(invalid(control, "in string literal")),
                byte => bytes.push(byte),
            }
        }
        Ok(String::from_utf8(bytes).unwrap_or_else(|err| replace_invalid(err.as_bytes())))
    }

    pub(super) fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), Stop> {
        let byte = match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let character = self.unicode_escape()?;
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            other => return Err(invalid(other, "in string escape code")),
        };
        bytes.push(byte);
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<char, Stop> {
        let first = self.hex4()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        let before_second = self.at;
        if (0xd800..0xdc00).contains(&first) && self.peek()? == b'\\' {
            self.at += 1;
            if self.peek()? == b'u' {
                self.at += 1;
                let second = self.hex4()?;
                if (0xdc00..0xe000).contains(&second) {
                    let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
            }
        }
        self.at = before_second;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, Stop> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.next()?;
            let digit = char::from(byte)
                .to_digit(16)
                .ok_or_else(|| invalid(byte, "in \\u hexadecimal character escape"))?;
            code = code * 16 + digit;
        }
        Ok(code)
    }
}

/// One U+FFFD for each byte that is in no valid sequence, as Go does.
fn replace_invalid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for _ in chunk.invalid() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

fn invalid(byte: u8, place: &str) -> Stop {
    let shown = match byte {
        b'\'' => r"\'".to_owned(),
        b'"' => "\"".to_owned(),
        b'\\' => r"\\".to_owned(),
        7 => r"\a".to_owned(),
        8 => r"\b".to_owned(),
        b'\t' => r"\t".to_owned(),
        b'\n' => r"\n".to_owned(),
        11 => r"\v".to_owned(),
        12 => r"\f".to_owned(),
        b'\r' => r"\r".to_owned(),
        0..=0x1f | 0x7f => format!("\\x{byte:02x}"),
        0x80..=0xa0 | 0xad => format!("\\u{byte:04x}"),
        _ => char::from(byte).to_string(),
    };
    Stop::Syntax(format!("invalid character '{shown}' {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn syntax(text: &str) -> String {
        match scan(text.as_bytes(), true) {
            Err(Error::Syntax(text)) => text,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn errors_are_in_gos_words() {
        assert_eq!(
            syntax(r#"{"a":1,}"#),
            "invalid character '}' looking for beginning of object key string"
        );
        assert_eq!(syntax("\u{feff}{}"), "invalid character 'ï' looking for beginning of value");
        assert_eq!(syntax("nul!"), "invalid character '!' in literal null (expecting 'l')");
        assert_eq!(syntax("[1 2]"), "invalid character '2' after array element");
        assert_eq!(syntax("\"\n\""), "invalid character '\\n' in string literal");
    }

    #[test]
    fn surrogates_pair_up_or_are_replaced() {
        let scanned = scan(br#""\ud83d\ude00 \ud83d! \ude00""#, true).unwrap();
        let Scanned::Value { value: Value::String(text), .. } = scanned else { panic!() };
        assert_eq!(text, "😀 \u{fffd}! \u{fffd}");
    }

    #[test]
    fn a_growing_buffer_is_partial_until_its_value_is_whole() {
        let text = br#" {"a":[1,true,"x\u00e9"],"b":null} rest"#;
        for cut in 2..34 {
            assert_eq!(scan(&text[..cut], false).unwrap(), Scanned::Partial, "{cut}");
        }
        let Scanned::Value { length, .. } = scan(text, false).unwrap() else { panic!() };
        assert_eq!(&text[length..], b" rest");
        assert_eq!(scan(b"12", false).unwrap(), Scanned::Partial);
        assert_eq!(
            scan(b"12", true).unwrap(),
            Scanned::Value { value: Value::Number("12"), length: 2 }
        );
    }
}
