//! Run and Attach: connections that stop being HTTP and carry frames until the process ends.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use garden_api::go_json::{self, Scanned};
use garden_api::{Payload, ProcessSpec, Signal};
use garden_sys::supervisor::Exit;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::calls::{self, Forms};
use super::reply::{self, Reply};
use super::tokens::Ticket;
use super::{Shared, connection};
use crate::container::Call;
use crate::error::Error;
use crate::gardener::Gardener;
use crate::http::{RequestHead, Wire};
use crate::process::{Attachment, Process};

/// A frame, at most, apart from its stdin. That may have any length: the official client sends what a
/// reader writes by itself (Go's `io.WriterTo`, as `bytes.Reader` is) as one frame.
const LONGEST_FRAME: usize = 1 << 20;
/// Up to this length an incomplete frame is looked at whenever more of it comes; beyond it the stdin
/// in it is taken in pieces.
const SHORT_FRAME: usize = 64 * 1024;
/// Frames of stdin that wait for the process to read.
const QUEUED: usize = 8;
/// How long stdin that came before its client went may wait for the process to read it.
const LAST_INPUT: Duration = Duration::from_secs(5);

/// A client's part in a process, before it has been told.
pub(super) struct Attached {
    status: u16,
    handle: String,
    process: Arc<Process>,
    attachment: Attachment,
    ticket: Ticket,
    /// Its connection's place among those of processes.
    _seat: OwnedSemaphorePermit,
    /// The container's grace time stands still for as long as the client is connected.
    hold: Call,
}

/// Starts a process, and attaches to it before its first output can be lost.
pub(super) async fn run(
    shared: &Shared,
    wire: &mut Wire,
    head: &mut RequestHead,
    handle: String,
) -> Result<Attached, Reply> {
    let body = calls::read_body(shared, wire, head, Forms::AreLost).await?;
    let seat = shared.hijack().map_err(|error| Reply::failure(&error))?;
    let start = move |gardener: &Arc<Gardener>| {
        let spec: ProcessSpec = calls::decode(&body)?;
        let hold = gardener.hold(&handle)?;
        let process = gardener.run(&handle, &spec)?;
        Ok((handle, process, hold))
    };
    let started = shared.call(start).await;
    started
        .and_then(|(handle, process, hold)| join(shared, 201, handle, process, hold, seat))
        .map_err(|error| Reply::failure(&error))
}

/// Attaches to a process that runs, or has ended and is remembered.
pub(super) async fn attach(
    shared: &Shared,
    wire: &mut Wire,
    head: &mut RequestHead,
    handle: String,
    id: String,
) -> Result<Attached, Reply> {
    // What follows the head is frames; a body that somebody sent is none.
    calls::read_body(shared, wire, head, Forms::AreRead).await?;
    let seat = shared.hijack().map_err(|error| Reply::failure(&error))?;
    let gardener = &shared.gardener;
    gardener
        .hold(&handle)
        .and_then(|hold| Ok((gardener.process(&handle, &id)?, hold)))
        .and_then(|(process, hold)| join(shared, 200, handle, process, hold, seat))
        .map_err(|error| Reply::failure(&error))
}

fn join(
    shared: &Shared,
    status: u16,
    handle: String,
    process: Arc<Process>,
    hold: Call,
    seat: OwnedSemaphorePermit,
) -> Result<Attached, Error> {
    let mut attachment = process.attach();
    let outputs = attachment.take_outputs();
    let outputs = outputs.ok_or_else(|| Error::Plain("an attach without output".into()))?;
    let ticket = shared.tokens.issue(outputs);
    Ok(Attached { status, handle, process, attachment, ticket, _seat: seat, hold })
}

/// How a conversation ends.
enum End {
    /// With the process.
    Exit(Exit),
    /// The daemon leaves.
    Stopping,
}

/// Talks with a client until the process ends, the client goes, or the server stops.
pub(super) async fn converse(
    shared: &Shared,
    mut wire: Wire,
    head: &RequestHead,
    attached: Attached,
) {
    let Attached { status, handle, process, mut attachment, ticket, _seat, hold } = attached;
    let id = process.id().to_owned();
    let first =
        Payload { process_id: id.clone(), stream_id: ticket.token.clone(), ..Payload::default() };
    let mut opening = reply::hijack_head(head, status, reply::JSON).into_bytes();
    opening.extend_from_slice(&go_json::encode(&first));
    if shared.write(&mut wire, &opening).await.is_err() {
        return;
    }
    if status == 201 {
        tracing::debug!(process = id, "spawned");
    }
    let end = {
        let (stdin, pieces) = mpsc::channel(QUEUED);
        let mut feeding = pin!(feed(&mut attachment, pieces));
        let end = tokio::select! {
            biased;
            exit = process.wait() => Some(End::Exit(exit)),
            () = shared.stopped() => Some(End::Stopping),
            () = read_frames(&mut wire, &process, stdin) => None,
            () = &mut feeding => None,
        };
        let Some(end) = end else {
            // The client has gone, or sent what is no frame. Streams and connection go at once;
            // stdin that came before still counts.
            ticket.cut();
            drop(wire);
            let _ = tokio::time::timeout(LAST_INPUT, feeding).await;
            return;
        };
        end
    };
    match end {
        End::Exit(exit) => {
            // The streams go on to their end by themselves.
            ticket.end();
            drop(hold);
            let forgotten = shared.call({
                let id = id.clone();
                move |gardener| {
                    gardener.waited(&handle, &id);
                    Ok(())
                }
            });
            if let Err(error) = forgotten.await {
                tracing::warn!(process = id, %error, "a process is not forgotten");
            }
            let last = go_json::encode(&final_frame(id, exit));
            if shared.write(&mut wire, &last).await.is_ok() {
                connection::close(wire).await;
            }
        }
        End::Stopping => {
            attachment.leave_input();
            // The streams still pass on what has been read.
            ticket.end();
        }
    }
}

fn final_frame(process_id: String, exit: Exit) -> Payload {
    let nothing = Payload { process_id, ..Payload::default() };
    match exit {
        Exit::Status(status) => Payload { exit_status: Some(status.into()), ..nothing },
        Exit::Unknown => {
            let error = "the process ended while nobody could learn its exit status";
            Payload { error: Some(error.into()), ..nothing }
        }
    }
}

/// Stdin on its way from the connection to the process.
enum Input {
    Text(String),
    End,
}

/// Writes stdin for as long as the client sends some, at the process's pace.
async fn feed(attachment: &mut Attachment, mut pieces: mpsc::Receiver<Input>) {
    while let Some(piece) = pieces.recv().await {
        match piece {
            Input::Text(text) => attachment.write(text.as_bytes()).await,
            Input::End => attachment.end_input(),
        }
    }
}

/// Reads frames until the client goes or sends something else. Frames may be cut and joined
/// anywhere, white space between them is optional, and neither the end of stdin nor an unknown frame
/// ends the reading: a signal may follow.
async fn read_frames(wire: &mut Wire, process: &Process, stdin: mpsc::Sender<Input>) {
    loop {
        let (payload, length) = match go_json::scan(wire.ahead(), false) {
            Ok(Scanned::Value { value, length }) => {
                (go_json::decode_value::<Payload>(&value), length)
            }
            Ok(Scanned::Blank) => {
                let blanks = wire.ahead().len();
                wire.consume(blanks);
                if !matches!(wire.fill().await, Ok(true)) {
                    return;
                }
                continue;
            }
            Ok(Scanned::Partial) => {
                let taken = match take_stdin(wire) {
                    Ok(Some(text)) => {
                        if stdin.send(Input::Text(text)).await.is_err() {
                            return;
                        }
                        true
                    }
                    Ok(None) => false,
                    Err(error) => {
                        tracing::info!(process = process.id(), %error, "a client sends no frames");
                        return;
                    }
                };
                if !taken && !more_of_a_frame(wire).await {
                    return;
                }
                continue;
            }
            Err(error) => {
                tracing::info!(process = process.id(), %error, "a client sends no frames");
                return;
            }
        };
        wire.consume(length);
        let sent = match payload {
            Ok(payload) => act(payload, process, &stdin).await,
            Err(error) => {
                tracing::info!(process = process.id(), %error, "a client sends no frames");
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Takes what there is of the stdin in a long frame that has not come to its end. What stays is the
/// same frame without it.
fn take_stdin(wire: &mut Wire) -> Result<Option<String>, go_json::Error> {
    if wire.ahead().len() < SHORT_FRAME {
        return Ok(None);
    }
    let Some(open) = go_json::open_string(wire.ahead())? else { return Ok(None) };
    let before: Payload = go_json::decode_value(&open.members)?;
    let is_stdin =
        before.source.is_some() && before.tty.is_none() && open.key.eq_ignore_ascii_case("data");
    if !is_stdin || open.text.is_empty() {
        return Ok(None);
    }
    let (text, taken) = (open.text, open.start..open.start + open.length);
    wire.cut(taken);
    Ok(Some(text))
}

/// Reads on in an incomplete frame, until it is worth another look; `false` if there is no more.
async fn more_of_a_frame(wire: &mut Wire) -> bool {
    loop {
        let seen = wire.ahead().len();
        if seen > LONGEST_FRAME || !matches!(wire.fill().await, Ok(true)) {
            return false;
        }
        // A frame ends in a brace; looking at every piece of a long one again would be slow.
        if seen < SHORT_FRAME || wire.ahead()[seen..].contains(&b'}') {
            return true;
        }
    }
}

/// A frame does one thing: the first of `tty`, `source` and `signal` that is there. One without any
/// ends stdin, as in the original.
async fn act(
    payload: Payload,
    process: &Process,
    stdin: &mpsc::Sender<Input>,
) -> Result<(), mpsc::error::SendError<Input>> {
    let done = match payload {
        Payload { tty: Some(tty), .. } => match tty.window_size {
            Some(size) => process.resize(size.or_default()),
            None => Ok(()),
        },
        Payload { source: Some(_), data: Some(text), .. } => {
            if !text.is_empty() {
                stdin.send(Input::Text(text)).await?;
            }
            Ok(())
        }
        Payload { source: None, signal: Some(signal), .. } => {
            if let Signal::Other(number) = signal {
                tracing::info!(process = process.id(), number, "an unknown signal is ignored");
            }
            process.signal(signal)
        }
        _ => {
            stdin.send(Input::End).await?;
            Ok(())
        }
    };
    if let Err(error) = done {
        tracing::warn!(process = process.id(), %error, "a client's frame has no effect");
    }
    Ok(())
}
