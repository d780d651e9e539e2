//! Message bodies: by length, in chunks, or to the end of the connection (RFC 9112, section 6).

use std::io;

use super::wire::Wire;

/// Bytes handed out at once, at most.
const PIECE: usize = 64 * 1024;
/// A chunk's size line, or one trailer, at most.
const LONGEST_LINE: usize = 4096;
/// Trailers in all, at most.
const MOST_TRAILERS: usize = 64 * 1024;

/// What is left of a body that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks; so many bytes are left of the current one, `None` before its size line.
    Chunked(Option<u64>),
    /// Everything until the peer closes.
    UntilClose,
    /// Nothing.
    Done,
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn more(wire: &mut Wire) -> io::Result<()> {
    if wire.fill().await? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn line(wire: &mut Wire) -> io::Result<Vec<u8>> {
    loop {
        if let Some(end) = wire.ahead().iter().position(|byte| *byte == b'\n') {
            let mut line = wire.take(end + 1);
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(line);
        }
        if wire.ahead().len() > LONGEST_LINE {
            return Err(broken("a line between chunks is too long"));
        }
        more(wire).await?;
    }
}

// The failure is in the original's words.
fn chunk_size(line: &[u8]) -> io::Result<u64> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    let hexadecimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16)
        .ok()
        .filter(|_| hexadecimal)
        .ok_or_else(|| broken("invalid byte in chunk length"))
}

impl Body {
    /// The next piece; `None` at the end. A body that ends early is `UnexpectedEof`. Must not be
    /// cancelled unless the connection is given up.
    pub async fn next(&mut self, wire: &mut Wire) -> io::Result<Option<Vec<u8>>> {
        loop {
            match *self {
                Self::Done => return Ok(None),
                Self::Length(0) => *self = Self::Done,
                Self::Length(left) => {
                    let piece = some(wire, left).await?;
                    *self = Self::Length(left - piece.len() as u64);
                    return Ok(Some(piece));
                }
                Self::UntilClose => {
                    if wire.ahead().is_empty() && !wire.fill().await? {
                        *self = Self::Done;
                        return Ok(None);
                    }
                    return Ok(Some(wire.take(PIECE)));
                }
                Self::Chunked(None) => match chunk_size(&line(wire).await?)? {
                    0 => {
                        let mut length = 0;
                        loop {
                            let trailer = line(wire).await?;
                            if trailer.is_empty() {
                                break;
                            }
                            length += trailer.len();
                            if length > MOST_TRAILERS {
                                return Err(broken("too many trailers"));
                            }
                        }
                        *self = Self::Done;
                    }
                    size => *self = Self::Chunked(Some(size)),
                },
                Self::Chunked(Some(0)) => {
                    if !line(wire).await?.is_empty() {
                        return Err(broken("a chunk is longer than its size"));
                    }
                    *self = Self::Chunked(None);
                }
                Self::Chunked(Some(left)) => {
                    let piece = some(wire, left).await?;
                    *self = Self::Chunked(Some(left - piece.len() as u64));
                    return Ok(Some(piece));
                }
            }
        }
    }

    /// All that is left, at most `most` bytes; `None` if there is more.
    pub async fn collect(&mut self, wire: &mut Wire, most: usize) -> io::Result<Option<Vec<u8>>> {
        let mut all = Vec::new();
        while let Some(piece) = self.next(wire).await? {
            all.extend_from_slice(&piece);
            if all.len() > most {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }
}

async fn some(wire: &mut Wire, left: u64) -> io::Result<Vec<u8>> {
    if wire.ahead().is_empty() {
        more(wire).await?;
    }
    Ok(wire.take(usize::try_from(left).unwrap_or(usize::MAX).min(PIECE)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn read(sent: &[u8], mut body: Body, cut: usize) -> io::Result<Vec<u8>> {
        let (mut theirs, ours) = tokio::io::duplex(cut);
        let sent = sent.to_vec();
        let sending = tokio::spawn(async move {
            let _ = theirs.write_all(&sent).await;
        });
        let mut wire = Wire::new(ours);
        let all = body.collect(&mut wire, 1 << 20).await;
        drop(wire);
        sending.await.unwrap();
        all.map(Option::unwrap_or_default)
    }

    #[tokio::test]
    async fn chunks_may_come_in_any_pieces() {
        let sent = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nA: b\r\n\r\n";
        for cut in 1..sent.len() {
            assert_eq!(read(sent, Body::Chunked(None), cut).await.unwrap(), b"hello world");
        }
    }

    #[tokio::test]
    async fn bodies_that_lie_are_errors() {
        for (sent, body) in [
            (&b"abc"[..], Body::Length(4)),
            (b"5\r\nhel", Body::Chunked(None)),
            (b"3\r\nhello\r\n0\r\n\r\n", Body::Chunked(None)),
            (b"-1\r\n", Body::Chunked(None)),
            (b"fffffffffffffffff\r\n", Body::Chunked(None)),
            (b"5\r\nhello\r\n0\r\n", Body::Chunked(None)),
        ] {
            assert!(read(sent, body, 64).await.is_err(), "{sent:?}");
        }
    }
}
