//! Archives into containers and out of them.

use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::reply::{self, Reply};
use super::{Shared, calls};
use crate::error::Error;
use crate::gardener::Gardener;
use crate::http::{RequestHead, Wire};

/// Pieces between a connection and the thread that packs or unpacks.
const QUEUED: usize = 4;
/// Bytes of an archive in a chunk, at most.
const PIECE: usize = 32 * 1024;

type Piece = io::Result<Vec<u8>>;
type Pieces = mpsc::Receiver<Piece>;

/// An archive of which the first piece is there.
pub(super) struct Packed {
    first: Piece,
    rest: Pieces,
}

/// A call on a thread of its own: how long it takes is the client's choice, and the runtime's
/// threads are for calls that end.
fn on_own_thread<T: Send + 'static>(
    shared: &Shared,
    name: &str,
    call: impl FnOnce(Arc<Gardener>) -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, Error> {
    let (sender, outcome) = oneshot::channel();
    let gardener = Arc::clone(&shared.gardener);
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let _ = sender.send(call(gardener));
        })
        .map_err(|error| Error::because("cannot start a thread", &error))?;
    Ok(outcome)
}

fn thread_failed(_: oneshot::error::RecvError) -> Error {
    Error::Plain("the server failed in this call".into())
}

/// Unpacks the request's body into the container.
pub(super) async fn stream_in(
    shared: &Shared,
    wire: &mut Wire,
    head: &mut RequestHead,
    handle: String,
) -> Reply {
    let user = head.target.value("user").unwrap_or_default();
    let destination = head.target.value("destination").unwrap_or_default();
    let (sender, pieces) = mpsc::channel(QUEUED);
    let unpacking = on_own_thread(shared, "stream-in", move |gardener| {
        let mut archive = Archive { pieces, rest: Vec::new(), at: 0 };
        gardener.stream_in(&handle, &user, &destination, &mut archive)
    });
    let unpacking = match unpacking {
        Ok(unpacking) => unpacking,
        Err(error) => return Reply::failure(&error),
    };
    let feeding = async {
        if let Err(error) = calls::welcome(wire, head).await {
            let _ = sender.send(Err(error)).await;
        }
        loop {
            match head.body.next(wire).await {
                // What a form's body says is lost.
                Ok(Some(_)) if head.is_form => {}
                Ok(Some(piece)) => {
                    if sender.send(Ok(piece)).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    break;
                }
            }
        }
        drop(sender);
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        biased;
        outcome = unpacking => outcome,
        () = feeding => return Reply::failure(&Error::Plain("the archive's feed ended".into())),
    };
    match outcome.map_err(thread_failed).and_then(|unpacked| unpacked) {
        Ok(()) => Reply::done(),
        Err(error) => Reply::failure(&error),
    }
}

/// Begins to pack; a failure before the first byte is an error with a status.
pub(super) async fn stream_out(
    shared: &Shared,
    head: &RequestHead,
    handle: String,
) -> Result<Packed, Reply> {
    let user = head.target.value("user").unwrap_or_default();
    let source = head.target.value("source").unwrap_or_default();
    let (sender, mut pieces) = mpsc::channel(QUEUED);
    let packing = on_own_thread(shared, "stream-out", move |gardener| {
        let mut archive = gardener.stream_out(&handle, &user, &source)?;
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match archive.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => Ok(buffer[..length].to_vec()),
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return Ok(());
            }
        }
    });
    let packing = packing.map_err(|error| Reply::failure(&error))?;
    match pieces.recv().await {
        Some(first) => Ok(Packed { first, rest: pieces }),
        None => {
            let packed = packing.await.map_err(thread_failed).and_then(|packed| packed);
            let lost = || Error::Plain("error streaming out: an archive without bytes".into());
            Err(Reply::failure(&packed.err().unwrap_or_else(lost)))
        }
    }
}

/// Sends an archive. An error means that the client must not take what it got for all of it.
pub(super) async fn send(
    wire: &mut Wire,
    head: &RequestHead,
    mut archive: Packed,
) -> io::Result<()> {
    wire.write(reply::archive_head(head).as_bytes()).await?;
    let mut next = Some(archive.first);
    while let Some(piece) = next {
        let piece = piece.inspect_err(|error| {
            tracing::warn!(path = head.target.path, %error, "an archive breaks off");
        })?;
        if head.old {
            wire.write(&piece).await?;
        } else {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(&piece);
            chunk.extend_from_slice(b"\r\n");
            wire.write(&chunk).await?;
        }
        next = archive.rest.recv().await;
    }
    if head.old { Ok(()) } else { wire.write(b"0\r\n\r\n").await }
}

/// The body of a StreamIn for a thread that blocks on it.
struct Archive {
    pieces: Pieces,
    rest: Vec<u8>,
    at: usize,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.rest.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.rest, self.at) = (piece?, 0),
                None => return Ok(0),
            }
        }
        let length = (&self.rest[self.at..]).read(buffer)?;
        self.at += length;
        Ok(length)
    }
}
