//! Archives on their way into a container and out of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::exchange::{Answer, Nothing};
use super::request::{Length, Request};
use super::{Client, Error};
use crate::http::{ResponseHead, Wire};

/// A chunk, at most.
const CHUNK: usize = 32 * 1024;
/// Pieces read from the server before anybody asks for them.
const MOST_QUEUED: usize = 4;

/// Why sending ended early.
enum Unsent {
    /// The archive cannot be read.
    Source(io::Error),
    /// The connection takes no more.
    Wire(io::Error),
}

/// What an upload sends.
enum Content<'a> {
    Whole(&'a [u8]),
    Read(&'a mut (dyn AsyncRead + Send + Unpin)),
}

impl Content<'_> {
    fn length(&self) -> Length {
        match self {
            Self::Whole(archive) => Length::Known(archive.len()),
            Self::Read(_) => Length::Chunked,
        }
    }

    async fn send(self, socket: &mut (impl AsyncWrite + Unpin)) -> Result<(), Unsent> {
        let archive = match self {
            Self::Whole(archive) => return socket.write_all(archive).await.map_err(Unsent::Wire),
            Self::Read(archive) => archive,
        };
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = archive.read(&mut buffer).await.map_err(Unsent::Source)?;
            let mut chunk = format!("{length:x}\r\n").into_bytes();
            chunk.extend_from_slice(&buffer[..length]);
            chunk.extend_from_slice(b"\r\n");
            socket.write_all(&chunk).await.map_err(Unsent::Wire)?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}

impl Client {
    pub(super) async fn send_archive(
        &self,
        request: Request,
        mut archive: impl AsyncRead + Send + Unpin,
    ) -> Result<(), Error> {
        self.upload(request, Content::Read(&mut archive)).await
    }

    pub(super) async fn send_whole_archive(
        &self,
        request: Request,
        archive: &[u8],
    ) -> Result<(), Error> {
        self.upload(request, Content::Whole(archive)).await
    }

    /// Sends a body while listening for the answer, which may come before the body is through:
    /// then the rest of it is of no interest to the server.
    async fn upload(&self, request: Request, content: Content<'_>) -> Result<(), Error> {
        let request = request.into_upload(content.length());
        let call = request.call;
        let halves = self.connect(call).await?.split();
        let mut socket = halves.write;
        // Nothing has been read yet, so nothing is read ahead.
        let mut wire = Wire::new(tokio::io::join(halves.read, tokio::io::sink()));
        let message = self.message(&request, false);
        let sending = async {
            socket.write_all(&message).await.map_err(Unsent::Wire)?;
            content.send(&mut socket).await
        };
        let head = {
            let receiving = ResponseHead::read(&mut wire);
            tokio::pin!(sending, receiving);
            tokio::select! {
                head = &mut receiving => head,
                sent = &mut sending => match sent {
                    Ok(()) => receiving.await,
                    Err(Unsent::Source(source)) => return Err(Error::Source { call, source }),
                    // The server may have said why before it stopped listening.
                    Err(Unsent::Wire(error)) => receiving.await.map_err(|_| error),
                },
            }
        };
        let head = head.map_err(|error| self.broken(call, error))?;
        let answer = self.succeeded(call, head, wire).await?;
        self.value::<Nothing>(call, answer).await.map(drop)
    }

    pub(super) async fn receive_archive(&self, request: Request) -> Result<Archive, Error> {
        let Answer { mut body, mut wire, .. } = self.exchange(&request, false).await?;
        let (sender, pieces) = mpsc::channel(MOST_QUEUED);
        let reading = tokio::spawn(async move {
            while let Some(piece) = body.next(&mut wire).await.transpose() {
                let failed = piece.is_err();
                if sender.send(piece).await.is_err() || failed {
                    break;
                }
            }
        });
        Ok(Archive { pieces, piece: Vec::new(), taken: 0, reading })
    }
}

/// A tar archive that comes out of a container. An archive that the server could not finish is an
/// error, never a short archive. Dropping it breaks the transfer off.
#[derive(Debug)]
pub struct Archive {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    taken: usize,
    reading: JoinHandle<()>,
}

impl AsyncRead for Archive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.taken == self.piece.len() {
            match ready!(self.pieces.poll_recv(context)) {
                Some(Ok(piece)) => (self.piece, self.taken) = (piece, 0),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = buffer.remaining().min(self.piece.len() - self.taken);
        buffer.put_slice(&self.piece[self.taken..self.taken + length]);
        self.taken += length;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
