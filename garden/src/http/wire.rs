//! A socket and the bytes read from it ahead of need.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// What a [`Wire`] runs over: a unix or a TCP stream.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

const READ: usize = 16 * 1024;

/// A connection.
pub struct Wire {
    socket: Box<dyn Socket>,
    /// Read and not yet consumed.
    ahead: Vec<u8>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

impl Wire {
    /// A wire over a fresh connection.
    pub fn new(socket: impl Socket + 'static) -> Self {
        Self { socket: Box::new(socket), ahead: Vec::new() }
    }

    /// What has been read and not consumed.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Consumes bytes that have been read.
    pub fn consume(&mut self, length: usize) {
        self.ahead.drain(..length);
    }

    /// Removes a part of what has been read.
    pub fn cut(&mut self, part: std::ops::Range<usize>) {
        self.ahead.drain(part);
    }

    /// Takes everything that has been read, at most `most` bytes.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        if most >= self.ahead.len() {
            return std::mem::take(&mut self.ahead);
        }
        let rest = self.ahead.split_off(most);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads on; `false` at the end of the stream. Nothing is lost when it is cancelled.
    pub async fn fill(&mut self) -> io::Result<bool> {
        self.ahead.reserve(READ);
        Ok(self.socket.read_buf(&mut self.ahead).await? > 0)
    }

    /// Writes all of it.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Says that no more is written.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }

    /// Splits the wire, so that both directions can be served at once.
    pub fn split(self) -> Halves {
        let (read, write) = tokio::io::split(self.socket);
        Halves { ahead: self.ahead, read, write }
    }
}

/// A wire's two directions.
#[expect(missing_debug_implementations, reason = "any kind of socket is behind it")]
pub struct Halves {
    /// What had been read and not consumed; comes before what `read` gives.
    pub ahead: Vec<u8>,
    /// From the peer.
    pub read: ReadHalf<Box<dyn Socket>>,
    /// To the peer.
    pub write: WriteHalf<Box<dyn Socket>>,
}
