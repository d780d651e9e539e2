//! Bodies of HTTP/1 messages, decoded and encoded piece by piece.

use bytes::{Bytes, BytesMut};

use crate::fields::{Fields, canonicalize};

/// How a body's end is known (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The longest line of chunked coding.
const LINE: usize = 4096;
/// The most bytes of trailers.
const TRAILERS: usize = 64 << 10;

/// Takes a body out of the bytes of its connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    trailers: Fields,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// What was found in the bytes there are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Data(Bytes),
    /// More bytes are needed.
    Nothing,
    End,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, trailers: Fields::default(), trailer_bytes: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    pub(crate) fn ends_by_close(&self) -> bool {
        self.state == State::UntilClose
    }

    pub(crate) fn trailers(&mut self) -> &mut Fields {
        &mut self.trailers
    }

    /// Errors are in the original's words.
    pub(crate) fn take(&mut self, bytes: &mut BytesMut) -> Result<Found, &'static str> {
        loop {
            match self.state {
                State::Done => return Ok(Found::End),
                _ if bytes.is_empty() => return Ok(Found::Nothing),
                State::UntilClose => return Ok(Found::Data(bytes.split().freeze())),
                State::Length(left) => {
                    let data = split(bytes, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Found::Data(data));
                }
                State::Chunk(left) => {
                    let data = split(bytes, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Found::Data(data));
                }
                State::ChunkEnd => match bytes[..] {
                    [b'\r', b'\n', ..] => {
                        let _ = bytes.split_to(2);
                        self.state = State::ChunkSize;
                    }
                    [b'\r'] => return Ok(Found::Nothing),
                    _ => return Err("malformed chunked encoding"),
                },
                State::ChunkSize => {
                    let Some(line) = line(bytes)? else { return Ok(Found::Nothing) };
                    self.state = match size(&line)? {
                        0 => State::Trailers,
                        size => State::Chunk(size),
                    };
                }
                State::Trailers => {
                    let Some(line) = line(bytes)? else { return Ok(Found::Nothing) };
                    self.trailer_bytes += line.len();
                    if line.is_empty() {
                        self.state = State::Done;
                    } else if self.trailer_bytes > TRAILERS {
                        return Err("trailers too long");
                    } else {
                        self.trailer(line)?;
                    }
                }
            }
        }
    }

    fn trailer(&mut self, mut line: BytesMut) -> Result<(), &'static str> {
        const BAD: &str = "malformed MIME header line";
        let colon = line.iter().position(|byte| *byte == b':').ok_or(BAD)?;
        canonicalize(&mut line[..colon]).ok_or(BAD)?;
        if line.iter().any(|byte| *byte != b'\t' && *byte < b' ' || *byte == 0x7f) {
            return Err(BAD);
        }
        let line = line.freeze();
        let value = line.slice_ref(line[colon + 1..].trim_ascii());
        self.trailers.push(line.slice(..colon), value);
        Ok(())
    }
}

fn split(bytes: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_to(length).freeze()
}

/// The next line without its end, if it is there.
fn line(bytes: &mut BytesMut) -> Result<Option<BytesMut>, &'static str> {
    let Some(newline) = bytes.iter().take(LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() >= LINE { Err("header line too long") } else { Ok(None) };
    };
    let mut line = bytes.split_to(newline + 1);
    if newline == 0 || line[newline - 1] != b'\r' {
        return Err("chunked line ends with bare LF");
    }
    line.truncate(newline - 1);
    if line.contains(&b'\r') { Err("malformed chunked encoding") } else { Ok(Some(line)) }
}

/// A chunk's size; what follows a semicolon is ignored.
fn size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() {
        return Err("empty hex number for chunk length");
    }
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("invalid byte in chunk length");
    }
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    match u64::from_str_radix(digits, 16) {
        Ok(size) if digits.len() <= 16 => Ok(size),
        _ => Err("http chunk length too large"),
    }
}

/// Begins a chunk of that many bytes, of which there must be at least one.
pub(crate) fn begin_chunk(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(format!("{length:x}\r\n").as_bytes());
}

/// Ends a chunked body.
pub(crate) fn end_chunks(out: &mut Vec<u8>, trailers: &mut Fields) {
    out.extend_from_slice(b"0\r\n");
    trailers.write(out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), &'static str> {
        let mut decoder = Decoder::new(framing);
        let (mut bytes, mut data) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            bytes.extend_from_slice(piece);
            while let Found::Data(found) = decoder.take(&mut bytes)? {
                data.extend_from_slice(&found);
            }
        }
        Ok((data, decoder.is_done()))
    }

    #[test]
    fn bad_chunks_are_told() {
        for (bytes, error) in [
            ("zz\r\n", "invalid byte in chunk length"),
            ("0x4\r\n", "invalid byte in chunk length"),
            ("\r\n", "empty hex number for chunk length"),
            ("fffffffffffffffff\r\n", "http chunk length too large"),
            ("00000000000000001\r\nx", "http chunk length too large"),
            ("4\ndata", "chunked line ends with bare LF"),
            ("4;a\ndata", "chunked line ends with bare LF"),
            ("3\r\ndata\r\n", "malformed chunked encoding"),
            ("4;\rdata\r\n", "malformed chunked encoding"),
        ] {
            assert_eq!(decode(Framing::Chunked, &[bytes.as_bytes()]), Err(error), "{bytes:?}");
        }
        let long = "4;".to_owned() + &"e".repeat(LINE);
        assert_eq!(decode(Framing::Chunked, &[long.as_bytes()]), Err("header line too long"));
    }

    #[test]
    fn what_follows_a_body_is_left() {
        let mut bytes = BytesMut::from("helloGET /");
        let mut decoder = Decoder::new(Framing::Length(5));
        assert_eq!(decoder.take(&mut bytes), Ok(Found::Data("hello".into())));
        assert_eq!(decoder.take(&mut bytes), Ok(Found::End));
        assert_eq!(bytes, "GET /");
    }

    proptest! {
        #[test]
        fn chunks_are_read_however_they_are_cut(
            chunks in proptest::collection::vec("[a-z]{1,30}", 0..6),
            cuts in proptest::collection::vec(1_usize..20, 0..40),
        ) {
            let mut out = Vec::new();
            for chunk in &chunks {
                begin_chunk(&mut out, chunk.len());
                out.extend_from_slice(chunk.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            end_chunks(&mut out, &mut Fields::default());
            let (mut pieces, mut rest) = (Vec::new(), &out[..]);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(
                decode(Framing::Chunked, &pieces),
                Ok((chunks.concat().into_bytes(), true))
            );
        }
    }
}
