//! A process and everybody who listens to it.
//!
//! ```text
//!             ┌─ stdout pump ─┐                 ┌─> attachment (queue per stream)
//!  pipes, pty ┤               ├─> fan-out ──────┼─> attachment
//!             └─ stderr pump ─┘                 └─> nobody yet: the first one gets it
//!  exit ──> wait for the pumps, briefly ──> record it ──> tell the attachments ──> release it
//! ```
//!
//! A client that reads slowly holds the process up, as a pipe would, and loses nothing. One that does
//! not read is waited for once, for a bounded time; from then on what its queue has no room for is
//! dropped for this client alone. A process never sees SIGPIPE.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use garden_api::{Signal, WindowSize};
use garden_sys::supervisor::Exit;
use rustix::process::Signal as Number;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::error::Error;
use crate::fault;
use crate::meters::METERS;
use crate::terminal;

/// A piece of output in one client's queue.
#[derive(Debug)]
pub struct Piece {
    bytes: Arc<[u8]>,
    /// Holds it until it is dropped.
    queue: Arc<Queue>,
}

impl Piece {
    fn new(bytes: Arc<[u8]>, queue: &Arc<Queue>) -> Self {
        queue.held.fetch_add(bytes.len(), Ordering::Relaxed);
        queue.pieces.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes, queue: Arc::clone(queue) }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let length = self.bytes.len();
        HELD.fetch_sub(length, Ordering::Relaxed);
        self.queue.held.fetch_sub(length, Ordering::Relaxed);
        self.queue.pieces.fetch_sub(1, Ordering::Relaxed);
        self.queue.taken.fetch_add(length, Ordering::Relaxed);
        self.queue.room.notify_one();
    }
}

/// Pieces queued for one stream of one client.
const MOST_QUEUED: usize = 4000;
/// And bytes, as long as all queues together hold less than [`MOST_HELD`].
const MOST_QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// Bytes in all queues of this daemon, beyond which each may hold no more than [`LEAST_QUEUED`]. So a
/// thousand clients that do not read cost no more than this and as many times a little.
const MOST_HELD: usize = 256 * 1024 * 1024;
/// Bytes that may be in a queue however many others there are.
const LEAST_QUEUED: usize = 256 * 1024;
/// How long a client with a full queue may take to read [`PROGRESS`]; the process waits meanwhile.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that a client must read in that time to be waited for again.
const PROGRESS: usize = 128 * 1024;
/// How long after its attach a client may take to ask for its output. Until it does, it may not want
/// any.
const ASK_PATIENCE: Duration = Duration::from_secs(5);
/// Pieces beyond [`MOST_QUEUED`] that hold the rest of what a process that has ended wrote.
const LAST_PIECES: usize = 2 * MOST_PIPED / MOST_BYTES;

/// Bytes in the queues of all clients.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// Bytes of output that wait for clients.
pub(crate) fn held_output() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// Bytes in a piece at most.
const MOST_BYTES: usize = 32 * 1024;
/// Bytes kept for the first client, the newest; as much as the keeper keeps while no daemon listens.
const MOST_EARLY: usize = 256 * 1024;
/// Bytes in a pipe at most, unless a process has enlarged its own (pipe(7)).
const MOST_PIPED: usize = 1024 * 1024;
/// How long after a process's end output is waited for that descendants could still write.
const LINGER: Duration = Duration::from_millis(200);

/// Names of the streams, by their place among a process's.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// The daemon's ends of a process's streams.
#[derive(Debug)]
pub enum Streams {
    /// A terminal's master.
    Terminal(OwnedFd),
    /// Pipes.
    Pipes {
        /// Write end of stdin, unless that has been ended.
        input: Option<OwnedFd>,
        /// Read end of stdout.
        output: OwnedFd,
        /// Read end of stderr.
        error: OwnedFd,
    },
}

/// What others do for a process at two moments of its life; called on a thread that may block.
pub trait Upkeep: Send + Sync {
    /// All clients have ended its input.
    fn end_input(&self);
    /// It has ended and its output has been read; its clients are told after this.
    fn note(&self, exit: Exit);
    /// Its clients have been told.
    fn release(&self);
}

/// One stream's listeners.
#[derive(Debug, Default)]
struct Fan {
    /// What the first client will get; none once there has been one.
    early: Option<VecDeque<u8>>,
    /// Until when a first client is expected. The process waits for it, so that who has started it
    /// and is slow to listen loses nothing.
    expected_until: Option<Instant>,
    clients: Vec<Client>,
    ended: bool,
    /// Nothing more is read: it is the next daemon's.
    held: bool,
    /// Bytes that clients have lost that are gone.
    lost: usize,
    room: Arc<Notify>,
}

/// What a client's queue holds, seen from both of its ends.
#[derive(Debug)]
struct Queue {
    /// Bytes and pieces that it holds.
    held: AtomicUsize,
    pieces: AtomicUsize,
    /// Bytes that the client has taken out so far.
    taken: AtomicUsize,
    /// The client has asked for its output.
    asked: AtomicBool,
    /// The stream's, told whenever a piece leaves.
    room: Arc<Notify>,
}

impl Queue {
    fn is_full(&self) -> bool {
        let held = self.held.load(Ordering::Relaxed) + MOST_BYTES;
        held > MOST_QUEUED_BYTES
            || self.pieces.load(Ordering::Relaxed) >= MOST_QUEUED
            || (held > LEAST_QUEUED && HELD.load(Ordering::Relaxed) > MOST_HELD)
    }
}

/// A client's queue of one stream.
#[derive(Debug)]
pub struct Output {
    pieces: mpsc::Receiver<Piece>,
    queue: Arc<Queue>,
}

impl Output {
    /// The next piece; `None` at the end. A piece counts as read when it is dropped.
    pub async fn recv(&mut self) -> Option<Piece> {
        self.queue.asked.store(true, Ordering::Relaxed);
        self.pieces.recv().await
    }
}

#[derive(Debug)]
struct Client {
    sender: mpsc::Sender<Piece>,
    queue: Arc<Queue>,
    joined: Instant,
    /// When its queue was found full, and what it had taken by then.
    waiting: Option<(Instant, usize)>,
    /// It has not read in time and is not waited for any more.
    given_up: bool,
    dropped: usize,
}

impl Client {
    /// Queues a piece; for a client that has been given up only if there is room. `false` if it is
    /// gone.
    fn put(&mut self, bytes: &Arc<[u8]>) -> bool {
        if self.sender.is_closed() {
            return false;
        }
        if self.given_up && self.queue.is_full() {
            self.lose(bytes.len());
            return true;
        }
        match self.sender.try_send(Piece::new(Arc::clone(bytes), &self.queue)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(piece)) => {
                self.lose(piece.len());
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    fn lose(&mut self, bytes: usize) {
        self.dropped += bytes;
        METERS.dropped_output.add(bytes as u64);
    }

    /// Until when the process waits for this client to read; `None` if it need not wait.
    fn waited_for_until(&mut self, now: Instant) -> Option<Instant> {
        if self.given_up || self.sender.is_closed() || !self.queue.is_full() {
            self.waiting = None;
            return None;
        }
        let until = if self.queue.asked.load(Ordering::Relaxed) {
            let taken = self.queue.taken.load(Ordering::Relaxed);
            let waiting = self.waiting.get_or_insert((now, taken));
            if taken - waiting.1 >= PROGRESS {
                *waiting = (now, taken);
            }
            waiting.0 + READ_PATIENCE
        } else {
            self.joined + ASK_PATIENCE
        };
        if until > now {
            return Some(until);
        }
        self.given_up = true;
        None
    }
}

impl Fan {
    fn new(early: Vec<u8>) -> Self {
        Self {
            early: Some(early.into()),
            expected_until: Some(Instant::now() + ASK_PATIENCE),
            ..Self::default()
        }
    }

    fn put(&mut self, bytes: &[u8], now: Instant) {
        if let Some(early) = &mut self.early {
            early.extend(bytes);
            // What an ended process still had in its pipe may be more.
            if self.expected_until.is_none_or(|until| until <= now) {
                let excess = early.len().saturating_sub(MOST_EARLY);
                early.drain(..excess);
            }
            return;
        }
        let piece: Arc<[u8]> = bytes.into();
        self.clients.retain_mut(|client| {
            let stays = client.put(&piece);
            if !stays {
                self.lost += client.dropped;
            }
            stays
        });
    }

    /// Until when the process waits for clients that have no room; `None` if it need not wait.
    fn waits_until(&mut self, now: Instant) -> Option<Instant> {
        if self.held {
            return None;
        }
        if let Some(early) = &self.early {
            let full = early.len() + MOST_BYTES > MOST_EARLY;
            return self.expected_until.filter(|until| full && *until > now);
        }
        self.clients.iter_mut().filter_map(|client| client.waited_for_until(now)).min()
    }

    fn join(&mut self) -> Output {
        let (sender, pieces) = mpsc::channel(MOST_QUEUED + LAST_PIECES);
        let queue = Arc::new(Queue {
            held: AtomicUsize::new(0),
            pieces: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            room: Arc::clone(&self.room),
        });
        let mut client = Client {
            sender,
            queue: Arc::clone(&queue),
            joined: Instant::now(),
            waiting: None,
            given_up: false,
            dropped: 0,
        };
        if let Some(early) = self.early.take() {
            self.room.notify_one();
            for chunk in Vec::from(early).chunks(MOST_BYTES) {
                client.put(&chunk.into());
            }
        }
        if !self.ended {
            self.clients.push(client);
        }
        Output { pieces, queue }
    }

    /// Ends it for all; answers the bytes that clients have lost.
    fn end(&mut self) -> usize {
        self.ended = true;
        let lost: usize = self.clients.drain(..).map(|client| client.dropped).sum();
        lost + std::mem::take(&mut self.lost)
    }
}

#[derive(Debug, Default)]
struct Input {
    file: Option<Arc<AsyncFd<OwnedFd>>>,
    /// Clients that have not ended their input.
    holders: usize,
}

/// A process of a container.
pub struct Process {
    handle: String,
    id: String,
    ticket: u64,
    terminal: bool,
    pidfd: OnceLock<Arc<OwnedFd>>,
    master: OnceLock<Arc<AsyncFd<OwnedFd>>>,
    input: Mutex<Input>,
    fans: [Mutex<Fan>; 2],
    /// The end, before the output has been read.
    exit: watch::Sender<Option<Exit>>,
    /// The end, as clients are told.
    finished: watch::Sender<Option<Exit>>,
    upkeep: OnceLock<Box<dyn Upkeep>>,
    runtime: Handle,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("id", &self.id)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    /// A process that is about to be started, or has been taken over. `early` is output that was
    /// kept while no daemon listened.
    pub fn new(
        handle: String,
        id: String,
        ticket: u64,
        terminal: bool,
        early: [Vec<u8>; 2],
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            handle,
            id,
            ticket,
            terminal,
            pidfd: OnceLock::new(),
            master: OnceLock::new(),
            input: Mutex::default(),
            fans: early.map(|early| Mutex::new(Fan::new(early))),
            exit: watch::Sender::new(None),
            finished: watch::Sender::new(None),
            upkeep: OnceLock::new(),
            runtime,
        })
    }

    /// A process that has ended, of which only the status is left.
    pub fn ended(
        handle: String,
        id: String,
        ticket: u64,
        exit: Exit,
        runtime: Handle,
    ) -> Arc<Self> {
        let process = Self::new(handle, id, ticket, false, [Vec::new(), Vec::new()], runtime);
        (0..STREAMS.len()).for_each(|stream| process.end_stream(stream));
        process.exit.send_replace(Some(exit));
        process.finished.send_replace(Some(exit));
        process
    }

    /// Its name in its container.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name between daemon and keeper.
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Output that was drained before anybody follows it.
    pub fn put_first(&self, drained: [Vec<u8>; 2]) {
        for (fan, bytes) in self.fans.iter().zip(drained) {
            lock(fan).put(&bytes, Instant::now());
        }
    }

    /// Begins to read its output and to wait for its end. Once only.
    pub fn follow(
        self: &Arc<Self>,
        pidfd: Arc<OwnedFd>,
        streams: Streams,
        upkeep: Box<dyn Upkeep>,
    ) -> io::Result<()> {
        let _entered = self.runtime.enter();
        let watched = |fd: OwnedFd| -> io::Result<Arc<AsyncFd<OwnedFd>>> {
            rustix::io::ioctl_fionbio(&fd, true)?;
            #[expect(
                deprecated,
                reason = "an OwnedFd's number stays its own, so the safe constructor is sound for it"
            )]
            Ok(Arc::new(AsyncFd::new(fd)?))
        };
        let mut sources = Vec::new();
        match streams {
            Streams::Terminal(master) => {
                let master = watched(master)?;
                lock(&self.input).file = Some(Arc::clone(&master));
                let _ = self.master.set(Arc::clone(&master));
                sources.push(master);
                self.end_stream(1);
            }
            Streams::Pipes { input, output, error } => {
                lock(&self.input).file = input.map(watched).transpose()?;
                sources.push(watched(output)?);
                sources.push(watched(error)?);
            }
        }
        let _ = self.pidfd.set(pidfd);
        let _ = self.upkeep.set(upkeep);
        let (hurry, hurried) = watch::channel(false);
        let pumps: Vec<_> = sources
            .into_iter()
            .enumerate()
            .map(|(stream, source)| {
                self.runtime.spawn(Arc::clone(self).pump(stream, source, hurried.clone()))
            })
            .collect();
        self.runtime.spawn(Arc::clone(self).see_to_the_end(pumps, hurry));
        Ok(())
    }

    /// Leaves what it writes from now on to the next daemon; answers what has been read and that no
    /// client has had. Clients get what is in their queues.
    pub fn hold(&self) -> [Vec<u8>; 2] {
        self.fans.each_ref().map(|fan| {
            let mut fan = lock(fan);
            fan.held = true;
            fan.room.notify_one();
            fan.early.take().unwrap_or_default().into()
        })
    }

    /// It has ended.
    pub fn exited(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
    }

    /// How it ended, once it has and its output has been read.
    pub fn outcome(&self) -> Option<Exit> {
        *self.finished.borrow()
    }

    /// Reads a stream to its end, or until nothing is there to read any more once `hurry` says so.
    async fn pump(
        self: Arc<Self>,
        stream: usize,
        source: Arc<AsyncFd<OwnedFd>>,
        mut hurry: watch::Receiver<bool>,
    ) {
        let mut buffer = vec![0; MOST_BYTES];
        loop {
            let ready = tokio::select! {
                ready = self.readable(stream, &source) => ready,
                _ = hurry.wait_for(|hurry| *hurry) => {
                    self.read_rest(stream, &source, &mut buffer);
                    break;
                }
            };
            let Ok(mut ready) = ready else { break };
            match ready.try_io(|source| self.pass_on(stream, source, &mut buffer)) {
                Ok(Ok(1..)) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_would_block) => {}
                // End of file, or EIO of a terminal that nobody has open any more.
                Ok(_) => break,
            }
        }
        self.end_stream(stream);
    }

    /// Waits until there is something to read and room for it with all clients that read.
    async fn readable<'s>(
        &self,
        stream: usize,
        source: &'s AsyncFd<OwnedFd>,
    ) -> io::Result<AsyncFdReadyGuard<'s, OwnedFd>> {
        let room = Arc::clone(&lock(&self.fans[stream]).room);
        while let Some(until) = self.waits_until(stream) {
            // Both say only that another look is worth it.
            let _ = tokio::time::timeout_at(until, room.notified()).await;
        }
        source.readable().await
    }

    /// As [`Fan::waits_until`]; says whom it gives up.
    fn waits_until(&self, stream: usize) -> Option<Instant> {
        let mut fan = lock(&self.fans[stream]);
        let given_up = |fan: &Fan| fan.clients.iter().filter(|client| client.given_up).count();
        let before = given_up(&fan);
        let until = fan.waits_until(Instant::now());
        let clients = given_up(&fan) - before;
        drop(fan);
        if clients > 0 {
            let (handle, process) = (&self.handle, &self.id);
            let stream = STREAMS[stream];
            tracing::warn!(
                handle,
                process,
                stream,
                clients,
                "a client does not read its output in time; what it has no room for is dropped"
            );
        }
        until
    }

    /// Ends a stream, unless it is the next daemon's.
    fn end_stream(&self, stream: usize) {
        let mut fan = lock(&self.fans[stream]);
        if fan.held {
            return;
        }
        let dropped = fan.end();
        drop(fan);
        if dropped > 0 {
            let (handle, process) = (&self.handle, &self.id);
            let stream = STREAMS[stream];
            tracing::warn!(handle, process, stream, bytes = dropped, "output has been dropped");
        }
    }

    /// Reads once, for all who listen. Under their lock: what has been read when a stream is held
    /// is in their queues.
    fn pass_on(
        &self,
        stream: usize,
        source: &AsyncFd<OwnedFd>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let mut fan = lock(&self.fans[stream]);
        if fan.held {
            return Ok(0);
        }
        let length = rustix::io::read(source.as_fd(), &mut *buffer)?;
        fan.put(&buffer[..length], Instant::now());
        Ok(length)
    }

    /// What a process wrote before it ended is in the pipe by now, which holds so much at most.
    fn read_rest(&self, stream: usize, source: &AsyncFd<OwnedFd>, buffer: &mut [u8]) {
        let mut left = MOST_PIPED;
        while let Ok(length @ 1..) = self.pass_on(stream, source, buffer) {
            left = left.saturating_sub(length);
            if left == 0 {
                break;
            }
        }
    }

    async fn see_to_the_end(
        self: Arc<Self>,
        pumps: Vec<tokio::task::JoinHandle<()>>,
        hurry: watch::Sender<bool>,
    ) {
        let mut exit = self.exit.subscribe();
        let Ok(ended) = exit.wait_for(Option::is_some).await.map(|exit| *exit) else { return };
        let deadline = Instant::now() + LINGER;
        for mut pump in pumps {
            // Whoever still holds the pipe is a descendant, which may hold it for ever.
            if tokio::time::timeout_at(deadline, &mut pump).await.is_err() {
                hurry.send_replace(true);
                let _ = pump.await;
            }
        }
        if self.fans.iter().any(|fan| lock(fan).held) {
            // The rest of its output and its end are the next daemon's.
            return;
        }
        (0..STREAMS.len()).for_each(|stream| self.end_stream(stream));
        lock(&self.input).file = None;
        let process = Arc::clone(&self);
        let noted = self.runtime.spawn_blocking(move || {
            let (Some(upkeep), Some(exit)) = (process.upkeep.get(), ended) else { return };
            upkeep.note(exit);
            process.finished.send_replace(ended);
            fault::step("end/told");
            upkeep.release();
        });
        // Without an upkeep, or if that panicked, clients must hear of the end all the same.
        let _ = noted.await;
        self.finished.send_if_modified(|finished| {
            let late = finished.is_none();
            *finished = ended;
            late
        });
    }

    /// Sends it a signal; a process that has ended is no error.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let number = match signal {
            Signal::Terminate => Number::TERM,
            Signal::Kill => Number::KILL,
            Signal::Other(_) => return Ok(()),
        };
        let Some(pidfd) = self.pidfd.get() else { return Ok(()) };
        match rustix::process::pidfd_send_signal(pidfd, number) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::because(
                format!("cannot signal process {}", self.id),
                &io::Error::from(errno),
            )),
        }
    }

    /// Resizes its terminal; without one nothing happens.
    pub fn resize(&self, size: WindowSize) -> Result<(), Error> {
        let Some(master) = self.master.get() else { return Ok(()) };
        let failed = |error: io::Error| {
            Error::because(format!("cannot resize the terminal of process {}", self.id), &error)
        };
        // The original tells the process of every resize, also where nothing changes and the kernel
        // is silent: a client asks so for the screen to be drawn again.
        if !terminal::resize(master.get_ref(), size).map_err(failed)?
            && let Some(pidfd) = self.pidfd.get()
        {
            match rustix::process::pidfd_send_signal(pidfd, Number::WINCH) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        Ok(())
    }

    /// Waits until it has ended and its output has been read.
    pub async fn wait(&self) -> Exit {
        let mut finished = self.finished.subscribe();
        let exit = finished.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        exit.unwrap_or(Exit::Unknown)
    }

    /// A client begins to listen. The first one gets what was written before.
    pub fn attach(self: &Arc<Self>) -> Attachment {
        lock(&self.input).holders += 1;
        let [output, error] = &self.fans;
        let outputs = (lock(output).join(), lock(error).join());
        Attachment { process: Arc::clone(self), outputs: Some(outputs), holds_input: true }
    }
}

/// One client's part in a process.
#[derive(Debug)]
pub struct Attachment {
    process: Arc<Process>,
    outputs: Option<(Output, Output)>,
    holds_input: bool,
}

impl Attachment {
    /// The process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// This client's queues of stdout and stderr; they end when the process's output does. Once.
    pub fn take_outputs(&mut self) -> Option<(Output, Output)> {
        self.outputs.take()
    }

    /// Writes to stdin, waiting while the process does not read. Bytes that nobody will read are
    /// dropped without an error.
    pub async fn write(&self, mut bytes: &[u8]) {
        let file = lock(&self.process.input).file.clone();
        let (Some(file), true) = (file, self.holds_input) else { return };
        let mut exit = self.process.exit.subscribe();
        while !bytes.is_empty() {
            let writable = tokio::select! {
                writable = file.writable() => writable,
                _ = exit.wait_for(Option::is_some) => return,
            };
            let Ok(mut ready) = writable else { return };
            match ready.try_io(|file| Ok(rustix::io::write(file.as_fd(), bytes)?)) {
                Ok(Ok(written)) => bytes = &bytes[written..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }

    /// This client sends no more input. The process sees the end of its input once all have.
    pub fn end_input(&mut self) {
        if !std::mem::replace(&mut self.holds_input, false) {
            return;
        }
        let mut input = lock(&self.process.input);
        input.holders -= 1;
        if input.holders > 0 || self.process.terminal || input.file.take().is_none() {
            return;
        }
        drop(input);
        let process = Arc::clone(&self.process);
        self.process.runtime.spawn_blocking(move || {
            if let Some(upkeep) = process.upkeep.get() {
                upkeep.end_input();
            }
        });
    }

    /// Leaves with the daemon: the input stays open for whoever comes back.
    pub fn leave_input(&mut self) {
        self.holds_input = false;
    }

    /// Waits until the process has ended and its output has been read.
    pub async fn ended(&self) -> Exit {
        let mut finished = self.process.finished.subscribe();
        match finished.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            Ok(None) | Err(_) => Exit::Unknown,
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.end_input();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts pieces as soon as no client is waited for; when the last was put.
    fn fill(fan: &mut Fan, mut now: Instant, pieces: usize) -> Instant {
        for _ in 0..pieces {
            while let Some(until) = fan.waits_until(now) {
                now = until;
            }
            fan.put(&[b'x'; MOST_BYTES], now);
        }
        now
    }

    fn asking(fan: &mut Fan) -> Output {
        let output = fan.join();
        output.queue.asked.store(true, Ordering::Relaxed);
        output
    }

    const ROOM: usize = MOST_QUEUED_BYTES / MOST_BYTES;

    #[test]
    fn a_client_that_does_not_read_is_waited_for_once_and_loses_what_others_get() {
        let mut fan = Fan::default();
        let (mut idle, mut busy) = (asking(&mut fan), asking(&mut fan));
        let begun = Instant::now();
        let mut now = begun;
        for _ in 0..2 * ROOM {
            now = fill(&mut fan, now, 1);
            assert_eq!(busy.pieces.try_recv().unwrap().len(), MOST_BYTES);
        }
        assert_eq!(now - begun, READ_PATIENCE);
        assert_eq!(idle.pieces.len(), ROOM);
        drop(idle.pieces.try_recv().unwrap());
        assert_eq!(fill(&mut fan, now, 3), now, "it is not waited for again");
        assert_eq!(idle.pieces.len(), ROOM, "room that is made is used");
        assert_eq!(fan.clients[0].dropped, (ROOM + 2) * MOST_BYTES);
        drop((idle, busy));
        fan.put(b"x", now);
        assert!(fan.clients.is_empty());
        assert_eq!(fan.end(), (ROOM + 2) * MOST_BYTES, "what is lost is told");
    }

    #[test]
    fn a_client_that_asks_for_nothing_is_waited_for_only_after_its_attach() {
        let mut fan = Fan::default();
        let unwanted = fan.join();
        let joined = fan.clients[0].joined;
        assert_eq!(fill(&mut fan, joined, 2 * ROOM), joined + ASK_PATIENCE);
        drop(unwanted);
    }

    #[test]
    fn a_slow_client_is_waited_for_as_long_as_it_reads() {
        let mut fan = Fan::default();
        let mut slow = asking(&mut fan);
        let mut now = fill(&mut fan, Instant::now(), ROOM);
        for _ in 0..200 {
            assert!(fan.waits_until(now).is_some());
            now += READ_PATIENCE / 8;
            drop(slow.pieces.try_recv().unwrap());
            assert_eq!(fan.waits_until(now), None);
            fan.put(&[b'x'; MOST_BYTES], now);
        }
        assert_eq!(fan.end(), 0);
    }

    #[test]
    fn the_first_client_is_waited_for_and_then_the_newest_is_kept() {
        let mut fan = Fan::new(Vec::new());
        let until = fan.expected_until.unwrap();
        let begun = until - ASK_PATIENCE;
        let pieces = MOST_EARLY / MOST_BYTES;
        assert_eq!(fill(&mut fan, begun, pieces), begun);
        assert_eq!(fan.waits_until(begun), Some(until));
        // The rest of what an ended process wrote.
        fan.put(&[b'y'; MOST_BYTES], begun);
        assert_eq!(fan.early.as_ref().unwrap().len(), MOST_EARLY + MOST_BYTES);
        assert_eq!(fill(&mut fan, begun, 1), until);
        assert_eq!(fan.early.as_ref().unwrap().len(), MOST_EARLY);
        let first = fan.join();
        assert_eq!(first.pieces.len(), pieces);
        assert_eq!(fan.waits_until(until), None);
    }

    #[test]
    fn the_first_client_alone_gets_what_was_written_before() {
        let mut fan = Fan::new(b"old".to_vec());
        fan.put(b" new", Instant::now());
        let (mut first, mut second) = (fan.join(), fan.join());
        fan.end();
        assert_eq!(&*first.pieces.try_recv().unwrap(), b"old new");
        for client in [&mut first, &mut second] {
            assert_eq!(
                client.pieces.try_recv().unwrap_err(),
                mpsc::error::TryRecvError::Disconnected
            );
        }
        assert_eq!(
            fan.join().pieces.try_recv().unwrap_err(),
            mpsc::error::TryRecvError::Disconnected
        );
    }
}
