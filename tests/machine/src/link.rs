//! The harness's end of the wire to a machine's agent, and the processes that it asks for.

use std::collections::HashMap;
use std::fmt;
use std::io::BufReader;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use machine_agent::wire::{Command, File, Identity, MOST, Reply, Request, Window};

/// How long the agent may take to answer anything but a process's end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It wrote to its standard output or its terminal.
    Output(Vec<u8>),
    /// It wrote to its standard error.
    Error(Vec<u8>),
    /// It ended with this status, or with 128 and a signal's number. Nothing follows.
    Exit(i32),
}

/// All that a process did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in Event")]
pub struct Outcome {
    pub status: i32,
    pub output: String,
    pub error: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}\n{}{}", self.status, self.output, self.error)
    }
}

/// The agent's answers to requests about one number, in order.
type Done = Receiver<Result<(), String>>;

/// Where the answers to one number go.
#[derive(Debug)]
struct Route {
    done: Sender<Result<(), String>>,
    events: Sender<Event>,
}

#[derive(Debug, Default)]
struct State {
    is_ready: bool,
    is_closed: bool,
    routes: HashMap<u32, Route>,
    /// What was asked for and how it ended, for people who look for a failure's reason.
    transcript: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    stream: UnixStream,
    sending: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
    next: AtomicU32,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, number: u32, request: &Request) -> anyhow::Result<()> {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        request.write(number, &mut &self.stream).context("cannot write to the machine's agent")
    }

    /// Takes replies to where they belong until the machine is gone.
    fn receive(&self) {
        let mut stream = BufReader::new(&self.stream);
        while let Ok((number, reply)) = Reply::read(&mut stream) {
            let mut state = self.state();
            if reply == Reply::Ready {
                state.is_ready = true;
                self.changed.notify_all();
                continue;
            }
            let Some(route) = state.routes.get(&number) else { continue };
            // Whoever does not listen any more has lost interest.
            match reply {
                Reply::Ready => {}
                Reply::Done(result) => {
                    let _ = route.done.send(result);
                }
                Reply::Output(bytes) => {
                    let _ = route.events.send(Event::Output(bytes));
                }
                Reply::Error(bytes) => {
                    let _ = route.events.send(Event::Error(bytes));
                }
                Reply::Exit(status) => {
                    let _ = route.events.send(Event::Exit(status));
                    state.routes.remove(&number);
                    state.transcript.push(format!("{number}: status {status}"));
                }
            }
        }
        let mut state = self.state();
        state.is_closed = true;
        state.routes.clear();
        self.changed.notify_all();
    }
}

/// The wire to one agent.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
}

impl Link {
    pub fn new(stream: UnixStream) -> anyhow::Result<Self> {
        // A machine that is paused reads nothing.
        stream.set_write_timeout(Some(PATIENCE))?;
        let shared = Arc::new(Shared {
            stream,
            sending: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            next: AtomicU32::new(1),
        });
        let receiver = shared.clone();
        thread::spawn(move || receiver.receive());
        Ok(Self { shared })
    }

    /// Waits a little for the agent to say that the machine has booted.
    pub fn wait_ready(&self, patience: Duration) -> bool {
        let state = self.shared.state();
        let waiting = |state: &mut State| !state.is_ready && !state.is_closed;
        let waited = self.shared.changed.wait_timeout_while(state, patience, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_ready
    }

    pub fn identify(&self, identity: Identity) -> anyhow::Result<()> {
        let (number, done, _) = self.route()?;
        self.shared.send(number, &Request::Identify(identity))?;
        self.finish(number, &done)
    }

    pub fn put(&self, content: &[u8], path: &str, mode: u32) -> anyhow::Result<()> {
        let (number, done, _) = self.route()?;
        self.note(number, || format!("put {path}, {} bytes", content.len()));
        self.shared.send(number, &Request::Put(File { path: path.to_owned(), mode }))?;
        for piece in content.chunks(MOST) {
            self.shared.send(number, &Request::Content(piece.to_vec()))?;
        }
        self.shared.send(number, &Request::EndPut)?;
        self.finish(number, &done).with_context(|| format!("cannot put {path}"))
    }

    pub fn execute(&self, command: &Command) -> anyhow::Result<Process> {
        let (number, done, events) = self.route()?;
        self.note(number, || command.arguments.join(" "));
        let request = Request::Execute(command.clone());
        let started = self.shared.send(number, &request).and_then(|()| answer(&done));
        if let Err(err) = started {
            self.shared.state().routes.remove(&number);
            return Err(err);
        }
        let shared = self.shared.clone();
        Ok(Process {
            number,
            shared: shared.clone(),
            events,
            input: Some(Input { number, shared, done }),
        })
    }

    /// What was asked for and how it ended, a line each.
    pub fn transcript(&self) -> String {
        self.shared.state().transcript.join("\n")
    }

    fn note(&self, number: u32, text: impl FnOnce() -> String) {
        self.shared.state().transcript.push(format!("{number}: {}", text()));
    }

    fn route(&self) -> anyhow::Result<(u32, Done, Receiver<Event>)> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (done, answers) = mpsc::channel();
        let (events, received) = mpsc::channel();
        let mut state = self.shared.state();
        if state.is_closed {
            bail!("the machine is gone");
        }
        state.routes.insert(number, Route { done, events });
        Ok((number, answers, received))
    }

    /// Waits for the answer to a request that has only one.
    fn finish(&self, number: u32, done: &Done) -> anyhow::Result<()> {
        let result = answer(done);
        self.shared.state().routes.remove(&number);
        result
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The thread that receives sees the end.
        let _ = self.shared.stream.shutdown(Shutdown::Both);
    }
}

fn answer(done: &Done) -> anyhow::Result<()> {
    match done.recv_timeout(PATIENCE) {
        Ok(result) => result.map_err(|reason| anyhow!(reason)),
        Err(RecvTimeoutError::Timeout) => bail!("the agent has not answered in {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => bail!("the process or its machine is gone"),
    }
}

/// A process inside a machine. Dropping it leaves the process alone.
#[derive(Debug)]
pub struct Process {
    number: u32,
    shared: Arc<Shared>,
    events: Receiver<Event>,
    input: Option<Input>,
}

impl Process {
    /// The next thing it does, in time.
    pub fn next(&self, patience: Duration) -> anyhow::Result<Event> {
        let event = self.try_next(patience)?;
        event.with_context(|| format!("it has done nothing for {patience:?}"))
    }

    /// The next thing it does, if it does something in time.
    pub fn try_next(&self, patience: Duration) -> anyhow::Result<Option<Event>> {
        match self.events.recv_timeout(patience) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("its machine is gone"),
        }
    }

    /// Ends its input if nobody has taken it, and waits for its end. An error tells what it has
    /// written until then.
    pub fn outcome(mut self, patience: Duration) -> anyhow::Result<Outcome> {
        self.end_input()?;
        let deadline = Instant::now() + patience;
        let (mut output, mut error) = (Vec::new(), Vec::new());
        let end = loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Output(piece)) => output.extend_from_slice(&piece),
                Ok(Event::Error(piece)) => error.extend_from_slice(&piece),
                Ok(Event::Exit(status)) => break Ok(status),
                Err(err) => break Err(err),
            }
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let outcome = Outcome { status: 0, output: text(&output), error: text(&error) };
        match end {
            Ok(status) => Ok(Outcome { status, ..outcome }),
            Err(err) => Err(err.context(format!("not ended in {patience:?}; so far:\n{outcome}"))),
        }
    }

    /// Sends a signal to it and all of its process group.
    pub fn signal(&self, signal: i32) -> anyhow::Result<()> {
        self.shared.send(self.number, &Request::Signal(signal))
    }

    /// Gives its terminal another size.
    pub fn resize(&self, window: Window) -> anyhow::Result<()> {
        self.shared.send(self.number, &Request::Window(window))
    }

    /// Its input, for another thread; once.
    pub fn take_input(&mut self) -> Option<Input> {
        self.input.take()
    }

    /// Ends its input if nobody has taken it.
    pub fn end_input(&mut self) -> anyhow::Result<()> {
        self.input.take().map_or(Ok(()), Input::end)
    }
}

/// A process's standard input. Dropping it leaves it open.
#[derive(Debug)]
pub struct Input {
    number: u32,
    shared: Arc<Shared>,
    done: Done,
}

impl Input {
    /// Writes all of it; waits while the process does not read.
    pub fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        for piece in bytes.chunks(MOST) {
            self.shared.send(self.number, &Request::Input(piece.to_vec()))?;
            answer(&self.done).context("cannot write to the process's input")?;
        }
        Ok(())
    }

    /// The input ends.
    pub fn end(self) -> anyhow::Result<()> {
        self.shared.send(self.number, &Request::EndInput)
    }
}
