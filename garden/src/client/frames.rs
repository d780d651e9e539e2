//! Frames of a process's control connection.

use std::io;

use garden_api::Payload;
use garden_api::go_json::{Scanned, decode_value, encode_compact, scan};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Stdin bytes in one frame, at most.
pub(super) const MOST_BYTES: usize = 32 * 1024;
/// A frame from the server, at most.
const LONGEST_FRAME: usize = 1 << 20;
const READ: usize = 4096;

/// Cuts input into pieces for frames, not inside a character if that can be helped.
pub(super) fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let is_inside = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        let mut cut = bytes.len().min(MOST_BYTES);
        if let Some(boundary) = (0..4).find(|back| cut > *back && !is_inside(cut - back)) {
            cut -= boundary;
        }
        let (piece, rest) = bytes.split_at(cut);
        bytes = rest;
        Some(piece).filter(|piece| !piece.is_empty())
    })
}

/// A frame of input. JSON is text: each byte that is not part of a character becomes U+FFFD, in
/// the original's spelling.
pub(super) fn input(process: &str, bytes: &[u8]) -> Vec<u8> {
    let mut frame = b"{\"process_id\":".to_vec();
    frame.extend_from_slice(&encode_compact(process));
    frame.extend_from_slice(b",\"source\":0,\"data\":\"");
    for chunk in bytes.utf8_chunks() {
        let quoted = encode_compact(chunk.valid());
        frame.extend_from_slice(&quoted[1..quoted.len() - 1]);
        frame.extend_from_slice("\\ufffd".repeat(chunk.invalid().len()).as_bytes());
    }
    frame.extend_from_slice(b"\"}\n");
    frame
}

/// Reads frames, which may come in any pieces.
#[derive(Debug)]
pub(super) struct Frames<R> {
    ahead: Vec<u8>,
    read: R,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(ahead: Vec<u8>, read: R) -> Self {
        Self { ahead, read }
    }

    /// The next frame; an end of the stream is `UnexpectedEof`.
    pub(super) async fn next(&mut self) -> io::Result<Payload> {
        let broken = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        loop {
            let scanned = scan(&self.ahead, false).map_err(|error| broken(error.to_string()))?;
            if let Scanned::Value { value, length } = scanned {
                let frame = decode_value(&value).map_err(|error| broken(error.to_string()));
                self.ahead.drain(..length);
                return frame;
            }
            if self.ahead.len() > LONGEST_FRAME {
                return Err(broken("a frame is too long".into()));
            }
            self.ahead.reserve(READ);
            if self.read.read_buf(&mut self.ahead).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_spelled_as_the_original_spells_it() {
        let bytes =
            b"quote\" back\\slash <&> tab\t nul\0 \xc3\xbc \xe2\x80\xa8\n \xff\xfe \xe2\x82";
        assert_eq!(
            String::from_utf8(input("p1", bytes)).unwrap(),
            "{\"process_id\":\"p1\",\"source\":0,\"data\":\"quote\\\" back\\\\slash \
             \\u003c\\u0026\\u003e tab\\t nul\\u0000 ü \\u2028\\n \\ufffd\\ufffd \\ufffd\\ufffd\"}\n"
        );
    }

    #[test]
    fn pieces_are_not_cut_inside_a_character() {
        let lengths = |bytes: &[u8]| pieces(bytes).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[b'y'; 40000]), [32768, 7232]);
        assert_eq!(lengths("a€".repeat(10000).as_bytes()), [32768, 7232]);
        assert_eq!(lengths("€".repeat(20000).as_bytes()), [32766, 27234]);
        assert_eq!(lengths(&[0x80; 32769]), [32768, 1]);
        assert_eq!(lengths(&[0x80]), [1]);
        assert_eq!(lengths(b""), [0; 0]);
    }

    #[tokio::test]
    async fn frames_come_in_any_pieces() {
        let text = b"{\"process_id\":\"p\",\"stream_id\":\"1\"}{\"exit_status\":0}\n";
        for cut in 0..text.len() {
            let (ahead, rest) = text.split_at(cut);
            let mut frames = Frames::new(ahead.to_vec(), rest);
            assert_eq!(frames.next().await.unwrap().stream_id, "1");
            assert_eq!(frames.next().await.unwrap().exit_status, Some(0));
            let end = frames.next().await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        }
        Frames::new(Vec::new(), &b"nonsense"[..]).next().await.unwrap_err();
    }
}
