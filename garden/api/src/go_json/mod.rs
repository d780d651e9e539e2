//! JSON as Go's `encoding/json` writes and reads it.
//!
//! Clients compare error texts and rely on leniencies, so both directions follow Go: output escapes
//! `<`, `>` and `&` and ends in a newline; input matches keys whatever their letter case, takes
//! `null` for a zero value, lets the last of several equal keys win, replaces invalid UTF-8, and
//! fails with Go's words.

mod decode;
mod encode;
mod open;
mod scan;

use serde::de::DeserializeOwned;

pub use decode::decode_value;
pub use encode::{encode, encode_compact};
pub use open::{OpenString, open_string};
pub use scan::{Scanned, Value, scan};

/// Why a value could not be read; displayed in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no value, only white space.
    Eof,
    /// The value is cut short.
    UnexpectedEof,
    /// The text is not JSON.
    Syntax(String),
    /// The value does not fit the type asked for.
    Mismatch(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Eof => f.write_str("EOF"),
            Self::UnexpectedEof => f.write_str("unexpected EOF"),
            Self::Syntax(text) | Self::Mismatch(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// Reads the first value of `text`; what follows it is ignored, as by Go's `Decoder.Decode`.
///
/// # Errors
/// See [`Error`].
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    match scan(text, true)? {
        Scanned::Value { value, .. } => decode_value(&value),
        Scanned::Blank => Err(Error::Eof),
        Scanned::Partial => Err(Error::UnexpectedEof),
    }
}
