//! A process's output on connections of its own: raw bytes until the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::tokens::Outputs;
use super::{Shared, connection, reply};
use crate::http::wire::Halves;
use crate::http::{RequestHead, Wire};
use crate::process::Piece;

/// How long a client may take what has been read for it when the server stops.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// Serves one stream of the attach that a token names. An unknown token gets an empty stream.
pub(super) async fn serve(
    shared: &Shared,
    mut wire: Wire,
    head: &RequestHead,
    token: &str,
    stream: usize,
) {
    let opening = reply::hijack_head(head, 200, "");
    if shared.write(&mut wire, opening.as_bytes()).await.is_err() {
        return;
    }
    let Some(outputs) = shared.tokens.find(token) else { return connection::close(wire).await };
    let mut cut = outputs.cut.subscribe();
    let mut halves = wire.split();
    tokio::select! {
        biased;
        _ = cut.wait_for(|cut| *cut) => {}
        () = copy(shared, &outputs, stream, &mut halves) => {}
        () = overstayed(shared) => {}
    }
    // What the peer sent has been read, so this is no reset.
    let _ = halves.write.shutdown().await;
}

/// A client has had its time since the server was told to stop.
async fn overstayed(shared: &Shared) {
    shared.stopped().await;
    tokio::time::sleep(LAST_OUTPUT).await;
}

/// Copies to the end of the output; of a server that stops, to the end of what waits.
async fn copy(shared: &Shared, outputs: &Arc<Outputs>, stream: usize, halves: &mut Halves) {
    let mut ignored = [0; 4096];
    let mut listens = true;
    loop {
        let piece = tokio::select! {
            biased;
            piece = next(outputs, stream) => piece,
            () = shared.stopped() => return,
            // Nothing is expected from the client. Whether it has closed its side or all of the
            // connection cannot be told by reading, so neither ends the stream.
            read = halves.read.read(&mut ignored), if listens => {
                listens = matches!(read, Ok(1..));
                continue;
            }
        };
        let Some(piece) = piece else { return };
        if halves.write.write_all(&piece).await.is_err() {
            return;
        }
    }
}

async fn next(outputs: &Outputs, stream: usize) -> Option<Piece> {
    outputs.queues[stream].lock().await.recv().await
}
