//! A process at the other end of a control connection.
//!
//! ```text
//! callers ──frames──> writer task ─┐
//!                                  ├─ control connection ── server
//!     end <── reader task ─────────┘
//! Output <──────────── one connection each for stdout and stderr
//! ```

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use garden_api::go_json::encode;
use garden_api::{Payload, Signal, Source, TtySpec, WindowSize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::frames::{self, Frames};
use super::request::{Request, segment};
use super::{Client, Error};
use crate::http::{Socket, Wire};

/// What a client wants to have of a process's streams.
#[derive(Default)]
pub struct ProcessIo {
    /// Sent to the process's input from the start, its end included. With `None` the input stays
    /// open until [`RunningProcess::end_stdin`] or the end of the connection.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Connect stdout.
    pub stdout: bool,
    /// Connect stderr.
    pub stderr: bool,
}

impl ProcessIo {
    /// Both outputs.
    pub fn outputs() -> Self {
        Self { stdin: None, stdout: true, stderr: true }
    }
}

impl fmt::Debug for ProcessIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessIo")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish()
    }
}

/// How the control connection ended.
#[derive(Clone, Debug)]
enum End {
    Status(i64),
    Unknown(String),
    Lost(String),
}

/// A frame to send, and whom to tell that it has been sent.
struct Outgoing {
    frame: Vec<u8>,
    sent: oneshot::Sender<()>,
}

/// A process that this client has started or attached to. All methods may be called at once from
/// several tasks. Dropping it disconnects; the process runs on.
#[derive(Debug)]
pub struct RunningProcess {
    id: String,
    control: mpsc::Sender<Outgoing>,
    end: watch::Receiver<Option<End>>,
    stdout: Stream,
    stderr: Stream,
    /// An output that was asked for and could not be connected.
    missing: Option<(&'static str, Arc<Error>)>,
    tasks: Vec<AbortHandle>,
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl RunningProcess {
    /// Run or Attach, in the original's order: the control connection, its first frame, stdin,
    /// stdout, stderr.
    pub(super) async fn open(
        client: &Client,
        handle: &str,
        request: Request,
        io: ProcessIo,
    ) -> Result<Self, Error> {
        let call = request.call;
        let halves = client.exchange(&request, true).await?.wire.split();
        let mut frames = Frames::new(halves.ahead, halves.read);
        let first = frames.next().await.map_err(|error| client.broken(call, error))?;
        let (id, token) = (first.process_id, first.stream_id);

        let (control, outgoing) = mpsc::channel(1);
        let (ended, end) = watch::channel(None);
        let writer = tokio::spawn(write_frames(halves.write, outgoing)).abort_handle();
        let reader = tokio::spawn(read_frames(frames, ended, writer.clone())).abort_handle();
        let mut process = Self {
            id,
            control,
            end,
            stdout: Stream::default(),
            stderr: Stream::default(),
            missing: None,
            tasks: vec![writer, reader],
        };
        if let Some(stdin) = io.stdin {
            let (id, control) = (process.id.clone(), process.control.clone());
            process.tasks.push(tokio::spawn(send_input(id, control, stdin)).abort_handle());
        }
        let path = format!(
            "/containers/{}/processes/{}/attaches/{}",
            segment(handle),
            segment(&process.id),
            segment(&token)
        );
        for (name, wanted) in [("stdout", io.stdout), ("stderr", io.stderr)] {
            if !wanted || process.missing.is_some() {
                continue;
            }
            let call = if name == "stdout" { "Stdout" } else { "Stderr" };
            let request = Request::stream(call, format!("{path}/{name}"));
            match client.exchange(&request, true).await {
                Ok(answer) if name == "stdout" => process.stdout = Stream::new(answer.wire),
                Ok(answer) => process.stderr = Stream::new(answer.wire),
                // The process runs; its caller must come to know it.
                Err(error) => process.missing = Some((name, Arc::new(error))),
            }
        }
        Ok(process)
    }

    /// Its name in its container.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its output from the start of this connection on, if asked for. Once; whoever takes it must
    /// read it to its end or drop it, since [`Self::wait`] waits for that.
    pub fn take_stdout(&self) -> Option<Output> {
        self.stdout.take()
    }

    /// As [`Self::take_stdout`], for stderr. A process on a terminal writes nothing there.
    pub fn take_stderr(&self) -> Option<Output> {
        self.stderr.take()
    }

    /// Sends input, and returns once it is on its way. Garden's input is text: a byte that belongs
    /// to no character arrives as U+FFFD. When several tasks write, pieces of up to 32 KiB stay
    /// whole. A cancelled call may have sent a part.
    pub async fn write_stdin(&self, bytes: &[u8]) -> Result<(), Error> {
        for piece in frames::pieces(bytes) {
            self.send(frames::input(&self.id, piece)).await?;
        }
        Ok(())
    }

    /// Ends the input for this client; the process sees its end once every client has done so.
    pub async fn end_stdin(&self) -> Result<(), Error> {
        self.send(encode(&end_of_input(&self.id))).await
    }

    /// Sends a signal to this one process.
    pub async fn signal(&self, signal: Signal) -> Result<(), Error> {
        let process_id = self.id.clone();
        self.send(encode(&Payload { process_id, signal: Some(signal), ..Payload::default() })).await
    }

    /// Resizes its terminal. Zeros are the default, 80 columns and 24 rows.
    pub async fn resize(&self, size: WindowSize) -> Result<(), Error> {
        let process_id = self.id.clone();
        let tty = Some(TtySpec { window_size: Some(size) });
        self.send(encode(&Payload { process_id, tty, ..Payload::default() })).await
    }

    async fn send(&self, frame: Vec<u8>) -> Result<(), Error> {
        if send(&self.control, frame).await {
            return Ok(());
        }
        // Nobody listens any more; why, the other direction tells.
        let process = self.id.clone();
        match self.ended().await {
            End::Lost(reason) => Err(Error::Disconnected { process, reason }),
            End::Status(_) | End::Unknown(_) => Err(Error::Ended { process }),
        }
    }

    async fn ended(&self) -> End {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| end.clone()).unwrap_or_else(|| End::Lost("closed".into()))
    }

    /// Waits for the process's end and for the end of its outputs, and returns the exit code, or
    /// 128 + the signal that ended it. Outputs that nobody has taken are discarded. May be called
    /// again.
    pub async fn wait(&self) -> Result<i64, Error> {
        let (ended, ()) = tokio::join!(self.ended(), async {
            // Without a server the outputs end with the connections, or never.
            let mut lost = self.end.clone();
            tokio::select! {
                _ = async { tokio::join!(self.stdout.ended(), self.stderr.ended()) } => {}
                Ok(_) = lost.wait_for(|end| matches!(end, Some(End::Lost(_)))) => {}
            }
        });
        if let Some((stream, error)) = &self.missing {
            let (process, source) = (self.id.clone(), Arc::clone(error));
            return Err(Error::NoStream { process, stream, source });
        }
        let process = self.id.clone();
        match ended {
            End::Status(status) => Ok(status),
            End::Unknown(reason) => Err(Error::StatusUnknown { process, reason }),
            End::Lost(reason) => Err(Error::Disconnected { process, reason }),
        }
    }
}

fn end_of_input(process: &str) -> Payload {
    let process_id = process.to_owned();
    Payload { process_id, source: Some(Source::Stdin), ..Payload::default() }
}

/// Has a frame written as a whole, even if this is cancelled; false if nobody listens any more.
async fn send(control: &mpsc::Sender<Outgoing>, frame: Vec<u8>) -> bool {
    let (sent, written) = oneshot::channel();
    control.send(Outgoing { frame, sent }).await.is_ok() && written.await.is_ok()
}

async fn write_frames(
    mut socket: WriteHalf<Box<dyn Socket>>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) {
    while let Some(Outgoing { frame, sent }) = outgoing.recv().await {
        if socket.write_all(&frame).await.is_err() {
            break;
        }
        let _ = sent.send(());
    }
}

/// Reads up to the final frame; then the connection has served its purpose.
async fn read_frames(
    mut frames: Frames<ReadHalf<Box<dyn Socket>>>,
    ended: watch::Sender<Option<End>>,
    writer: AbortHandle,
) {
    let end = loop {
        match frames.next().await {
            Ok(Payload { exit_status: Some(status), .. }) => break End::Status(status),
            Ok(Payload { error: Some(text), .. }) => break End::Unknown(text),
            Ok(_) => {}
            Err(error) => break End::Lost(error.to_string()),
        }
    };
    writer.abort();
    ended.send_replace(Some(end));
}

async fn send_input(
    process: String,
    control: mpsc::Sender<Outgoing>,
    mut stdin: Box<dyn AsyncRead + Send + Unpin>,
) {
    let mut buffer = vec![0; frames::MOST_BYTES];
    loop {
        let frame = match stdin.read(&mut buffer).await {
            Ok(0) => {
                // The process may have ended without having read it.
                let _ = send(&control, encode(&end_of_input(&process))).await;
                return;
            }
            Ok(length) => frames::input(&process, &buffer[..length]),
            Err(error) => {
                // To end the input here would make a part of it look like the whole.
                tracing::warn!(process, %error, "cannot read a process's input; it stays open");
                return;
            }
        };
        if !send(&control, frame).await {
            return;
        }
    }
}

/// One output and whether it has ended; by default, one that was not asked for.
#[derive(Debug, Default)]
struct Stream {
    output: Mutex<Option<Output>>,
    done: Option<watch::Receiver<bool>>,
}

impl Stream {
    fn new(wire: Wire) -> Self {
        let halves = wire.split();
        let (sender, done) = watch::channel(false);
        let output = Output { ahead: halves.ahead, taken: 0, read: halves.read, done: sender };
        Self { output: Mutex::new(Some(output)), done: Some(done) }
    }

    fn take(&self) -> Option<Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until whoever has taken it has seen its end, or drains it.
    async fn ended(&self) {
        if let Some(mut output) = self.take() {
            // A read error is an end like any other here.
            let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
        }
        if let Some(mut done) = self.done.clone() {
            let _ = done.wait_for(|done| *done).await;
        }
    }
}

/// A process's stdout or stderr.
pub struct Output {
    ahead: Vec<u8>,
    taken: usize,
    read: ReadHalf<Box<dyn Socket>>,
    done: watch::Sender<bool>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("done", &*self.done.borrow()).finish_non_exhaustive()
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken < self.ahead.len() {
            let length = buffer.remaining().min(self.ahead.len() - self.taken);
            buffer.put_slice(&self.ahead[self.taken..self.taken + length]);
            self.taken += length;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.remaining();
        let polled = Pin::new(&mut self.read).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Ok(())) if before > 0 && buffer.remaining() == before => {
                self.done.send_replace(true);
            }
            Poll::Ready(Err(_)) => {
                self.done.send_replace(true);
            }
            _ => {}
        }
        polled
    }
}
