//! Archives into containers and out of them.

use std::io;
use std::pin::pin;

use tokio::io::AsyncWriteExt;

use super::pace::Pace;
use super::reply::{self, Reply};
use super::{Shared, calls};
use crate::error::Error;
use crate::gardener::{Packing, Unpacking};
use crate::http::{RequestHead, Wire};

/// An archive of which the first piece is there.
pub(super) struct Packed {
    first: Vec<u8>,
    rest: Packing,
}

/// Unpacks the request's body into the container.
pub(super) async fn stream_in(
    shared: &Shared,
    wire: &mut Wire,
    head: &mut RequestHead,
    handle: String,
) -> Reply {
    match unpack(shared, wire, head, handle).await {
        Ok(()) => Reply::done(),
        Err(error) => Reply::failure(&error),
    }
}

async fn unpack(
    shared: &Shared,
    wire: &mut Wire,
    head: &mut RequestHead,
    handle: String,
) -> Result<(), Error> {
    let user = head.target.value("user").unwrap_or_default();
    let destination = head.target.value("destination").unwrap_or_default();
    let Unpacking { archive: mut feed, helper } =
        shared.call(move |gardener| gardener.stream_in(&handle, &user, &destination)).await?;
    let feeding = async move {
        let mut pace = Pace::new(shared.settings.body_patience);
        pace.wait(calls::welcome(wire, head)).await?;
        while let Some(piece) = pace.wait(head.body.next(wire)).await? {
            pace.moved(piece.len());
            // What a form's body says is lost. A helper that reads no more says why by itself.
            if !head.is_form && feed.write_all(&piece).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let mut unpacked = pin!(helper.ended());
    let fed: io::Result<()> = tokio::select! {
        biased;
        // With an error in the archive, or with the container: nobody waits for the client then.
        unpacked = &mut unpacked => return unpacked,
        fed = feeding => fed,
    };
    let unpacked = unpacked.await;
    fed.map_err(|error| Error::because("error streaming in: the archive ends early", &error))?;
    unpacked
}

/// Begins to pack; a failure before the first byte is an error with a status.
pub(super) async fn stream_out(
    shared: &Shared,
    head: &RequestHead,
    handle: String,
) -> Result<Packed, Reply> {
    let user = head.target.value("user").unwrap_or_default();
    let source = head.target.value("source").unwrap_or_default();
    let packed = async {
        let mut rest =
            shared.call(move |gardener| gardener.stream_out(&handle, &user, &source)).await?;
        let lost = || Error::Plain("error streaming out: an archive without bytes".into());
        Ok(Packed { first: rest.next().await?.ok_or_else(lost)?, rest })
    };
    packed.await.map_err(|error: Error| Reply::failure(&error))
}

/// Sends an archive. An error means that the client must not take what it got for all of it.
pub(super) async fn send(
    shared: &Shared,
    wire: &mut Wire,
    head: &RequestHead,
    archive: Packed,
) -> io::Result<()> {
    let broken = |error: &dyn std::fmt::Display| {
        tracing::warn!(path = head.target.path, %error, "an archive breaks off");
    };
    // A client that goes is no reason to say anything.
    let slow = |error: &io::Error| {
        if error.kind() == io::ErrorKind::TimedOut {
            broken(error);
        }
    };
    let mut pace = Pace::new(shared.settings.body_patience);
    pace.wait(wire.write(reply::archive_head(head).as_bytes())).await?;
    let Packed { first, mut rest } = archive;
    let mut next = Some(first);
    while let Some(piece) = next {
        let written = if head.old {
            pace.wait(wire.write(&piece)).await
        } else {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(&piece);
            chunk.extend_from_slice(b"\r\n");
            pace.wait(wire.write(&chunk)).await
        };
        written.inspect_err(slow)?;
        pace.moved(piece.len());
        next = rest.next().await.inspect_err(|error| broken(error)).map_err(io::Error::other)?;
    }
    if head.old { Ok(()) } else { pace.wait(wire.write(b"0\r\n\r\n")).await }
}
