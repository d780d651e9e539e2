//! A process and the operator's standard streams, until one of them leaves.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bloomery_garden::client::{Client, Error, Output, ProcessIo, RunningProcess};
use garden_api::Signal;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::terminal::{self, Raw};
use super::text::Whole;
use super::{complain, explain};

/// The key that leaves a process which runs on a terminal: Ctrl-].
const LEAVE: u8 = 0x1d;
const BUFFER: usize = 32 * 1024;
/// How long a server may take to pass a last signal on.
const PATIENCE: Duration = Duration::from_secs(5);
/// Exit status of who writes where nobody reads: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// What the process is to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The operator started it, and interrupts end it.
    Owner,
    /// It was there before and stays; interrupts end only the session.
    Guest,
}

/// One operator at one process.
#[derive(Debug)]
pub struct Session<'a> {
    /// The server.
    pub client: &'a Client,
    /// The container.
    pub handle: String,
    /// The process; its outputs are connected and nobody has taken them.
    pub process: RunningProcess,
    /// The operator's part in it.
    pub standing: Standing,
    /// The process has a terminal.
    pub tty: bool,
    /// Standard input is passed on.
    pub input: bool,
}

/// What the standard streams have to say.
enum Event {
    /// The key to leave was pressed.
    Leave,
    /// Standard output takes no more.
    Deaf(io::Error),
}

/// How a session ends.
enum End {
    /// With the process.
    Process(Result<i64, Error>),
    /// By the operator's wish.
    Left,
    /// By a signal of this number, the process running on.
    Signal(u8),
    /// Nobody reads standard output.
    Deaf(io::Error),
}

impl Session<'_> {
    /// Passes streams and signals on until the process has ended, and exits as it did.
    pub async fn hold(self) -> anyhow::Result<ExitCode> {
        let Self { client, handle, process, standing, tty, input } = self;
        let process = Arc::new(process);
        let signals = Signals::listen().context("cannot listen to signals")?;
        // Restored when the session ends, in whatever way.
        let raw =
            if tty && input { Raw::enter().context("cannot use the terminal")? } else { None };
        let passes_keys = raw.is_some();
        if tty && standing == Standing::Guest {
            resize(&process).await;
        }
        let (events, happened) = mpsc::channel(4);
        let outputs = [
            process.take_stdout().map(|output| {
                let events = events.clone();
                tokio::spawn(async move {
                    if let Err(error) = pass_on(output, tokio::io::stdout()).await {
                        let _ = events.send(Event::Deaf(error)).await;
                    }
                })
            }),
            process.take_stderr().map(|output| {
                tokio::spawn(async move {
                    // Whoever has closed standard error does not want to read of that, either.
                    let _ = pass_on(output, tokio::io::stderr()).await;
                })
            }),
        ];
        tokio::spawn(send_input(Arc::clone(&process), input, passes_keys, events));

        let signaller = Signaller { client, handle: &handle, process: process.id() };
        let mut talk = Talk { standing, passes_keys, tty, signals, happened };
        let end = talk.until_the_end(&process, outputs, &signaller).await;
        drop(raw);
        match end {
            End::Process(Ok(status)) => Ok(u8::try_from(status).unwrap_or(u8::MAX).into()),
            End::Process(Err(error @ Error::Disconnected { .. })) => Err(anyhow!(
                "{error}\nIt may well run on: `bloomery ctl attach {handle} {}` takes part in it \
                 again.",
                process.id()
            )),
            End::Process(Err(error)) => Err(explain(error)),
            End::Left => {
                complain(format_args!("left process {} of {handle} running", process.id()));
                Ok(ExitCode::SUCCESS)
            }
            End::Signal(number) => Ok((128 + number).into()),
            End::Deaf(error) => {
                if standing == Standing::Owner {
                    // A process on this machine would get SIGPIPE.
                    let signal = signaller.start(Signal::Terminate);
                    let _ = tokio::time::timeout(PATIENCE, signal).await;
                }
                if error.kind() == io::ErrorKind::BrokenPipe {
                    return Ok(BROKEN_PIPE.into());
                }
                Err(error).context("cannot write to standard output; the process was sent SIGTERM")
            }
        }
    }
}

struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    quit: unix::Signal,
    hang_up: unix::Signal,
    resized: unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            quit: unix::signal(SignalKind::quit())?,
            hang_up: unix::signal(SignalKind::hangup())?,
            resized: unix::signal(SignalKind::window_change())?,
        })
    }
}

struct Talk {
    standing: Standing,
    passes_keys: bool,
    tty: bool,
    signals: Signals,
    happened: mpsc::Receiver<Event>,
}

impl Talk {
    async fn until_the_end(
        &mut self,
        process: &RunningProcess,
        outputs: [Option<JoinHandle<()>>; 2],
        signaller: &Signaller<'_>,
    ) -> End {
        let ended = async {
            let ended = process.wait().await;
            for output in outputs.into_iter().flatten() {
                // What was read has been written when this is done.
                let _ = output.await;
            }
            ended
        };
        tokio::pin!(ended);
        let mut interrupts = 0;
        loop {
            let number = tokio::select! {
                // An output that cannot be written ends as well; the reason must come first.
                biased;
                Some(event) = self.happened.recv() => match event {
                    Event::Leave => return End::Left,
                    Event::Deaf(error) => return End::Deaf(error),
                },
                ended = &mut ended => return End::Process(ended),
                _ = self.signals.hang_up.recv() => return End::Signal(1),
                _ = self.signals.resized.recv() => {
                    if self.tty {
                        resize(process).await;
                    }
                    continue;
                }
                _ = self.signals.interrupt.recv() => 2,
                _ = self.signals.quit.recv() => 3,
                _ = self.signals.terminate.recv() => 15,
            };
            // With the terminal in raw mode keys make no signals: this one is meant for us.
            if self.passes_keys || self.standing == Standing::Guest {
                return End::Signal(number);
            }
            interrupts += 1;
            match interrupts {
                1 => {
                    complain("sent SIGTERM; once more sends SIGKILL");
                    signaller.start(Signal::Terminate);
                }
                2 => {
                    complain("sent SIGKILL; once more leaves without waiting");
                    signaller.start(Signal::Kill);
                }
                _ => return End::Signal(number),
            }
        }
    }
}

/// Signals a process over a connection of its own: on the session's, a signal would wait behind
/// all input that the process has not read.
struct Signaller<'a> {
    client: &'a Client,
    handle: &'a str,
    process: &'a str,
}

impl Signaller<'_> {
    /// Begins to send it; done when the server has it.
    fn start(&self, signal: Signal) -> JoinHandle<()> {
        let client = self.client.clone();
        let (handle, process) = (self.handle.to_owned(), self.process.to_owned());
        tokio::spawn(async move {
            let send = async {
                let side = client.attach(&handle, &process, ProcessIo::default()).await?;
                side.signal(signal).await?;
                side.end_stdin().await
            };
            match send.await {
                // It has ended in the meantime, which is what was wanted.
                Ok(()) | Err(Error::ProcessNotFound(_) | Error::Ended { .. }) => {}
                Err(error) => complain(format_args!("cannot send the signal: {error}")),
            }
        })
    }
}

async fn resize(process: &RunningProcess) {
    if let Some(size) = terminal::size() {
        // A process that has ended needs no size.
        let _ = process.resize(size).await;
    }
}

async fn pass_on(mut output: Output, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        // An output that breaks off ends; the control connection tells why.
        let length = output.read(&mut buffer).await.unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
    }
}

/// Passes standard input on up to its end. When the process takes no more, so does this.
async fn send_input(
    process: Arc<RunningProcess>,
    input: bool,
    passes_keys: bool,
    events: mpsc::Sender<Event>,
) {
    if !input {
        let _ = process.end_stdin().await;
        return;
    }
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; BUFFER];
    let mut text = Whole::default();
    let mut warned = false;
    loop {
        let length = match stdin.read(&mut buffer).await {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => {
                // Ending the process's input would make a part look like the whole.
                complain(format_args!("cannot read standard input: {error}"));
                return;
            }
        };
        let typed = &buffer[..length];
        let leave = typed.iter().position(|byte| passes_keys && *byte == LEAVE);
        let piece = text.add(&typed[..leave.unwrap_or(length)]);
        if text.torn && !std::mem::replace(&mut warned, true) {
            complain(
                "standard input is not UTF-8, and Garden's input is text: other bytes are \
                 replaced. Use stream-in for files.",
            );
        }
        if process.write_stdin(&piece).await.is_err() {
            return;
        }
        if leave.is_some() {
            let _ = events.send(Event::Leave).await;
            return;
        }
    }
    if process.write_stdin(&text.end()).await.is_ok() {
        let _ = process.end_stdin().await;
    }
}
