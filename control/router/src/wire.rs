//! A connection of either side with what was read of it and not used yet.

use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::sockopt;
use tokio::io::{
    AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use transport::Stream;

/// What is read at a time.
const PIECE: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) reading: Reading,
    pub(crate) writing: WriteHalf<Stream>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Reading {
    half: ReadHalf<Stream>,
    pub(crate) bytes: BytesMut,
}

impl Wire {
    pub(crate) fn new(stream: Stream, peer: SocketAddr, local: SocketAddr) -> Self {
        let (half, writing) = tokio::io::split(stream);
        Self { reading: Reading { half, bytes: BytesMut::new() }, writing, peer, local }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        send(&mut self.writing, bytes).await
    }

    /// Whether the peer has said nothing and has not gone. It must have been silent before.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let half = &mut self.reading.half;
        std::future::poll_fn(|context| {
            let read = std::pin::Pin::new(&mut *half).poll_read(context, &mut byte);
            Poll::Ready(read.is_pending())
        })
        .await
    }

    /// Ends our side and reads what the peer still sends for a moment: closing at once would take
    /// from it what it has not read yet.
    pub(crate) async fn linger(mut self) {
        let _ = self.writing.shutdown().await;
        let drained = async {
            for _ in 0..16 {
                self.reading.bytes.clear();
                if !matches!(self.reading.fill().await, Ok(1..)) {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(500), drained).await;
    }
}

impl Reading {
    /// Reads more; 0 at the end. Nothing is lost when it is given up.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.bytes.reserve(PIECE);
        self.half.read_buf(&mut self.bytes).await
    }
}

pub(crate) async fn send(writing: &mut WriteHalf<Stream>, bytes: &[u8]) -> io::Result<()> {
    writing.write_all(bytes).await?;
    writing.flush().await
}

/// Small messages are not held back, and a peer whose host died is noticed.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}
