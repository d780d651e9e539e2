//! Calls of the original's client library, made on our client.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bloomery_garden::client::{Client, Error, ProcessIo, RunningProcess};
use garden_api::go_json::encode;
use garden_api::{Properties, Signal, TtySpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What a call comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// As the recorder wrote it.
    pub value: Value,
    /// Go's type and the text.
    pub error: Option<(String, String)>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.error, &self.value) {
            (None, value) => sorted(value).fmt(f),
            (Some((kind, text)), Value::Null) => write!(f, "{kind}: {text}"),
            (Some((kind, text)), value) => write!(f, "{kind}: {text} and {}", sorted(value)),
        }
    }
}

impl Outcome {
    /// Shortens long texts where the recorder has done so: to their beginning and their length.
    pub fn shorten_as(&mut self, recorded: &Outcome) {
        let (Some(ours), Some(recorded)) = (self.value.as_object_mut(), recorded.value.as_object())
        else {
            return;
        };
        for (name, value) in ours {
            let (Some(text), Some(short)) =
                (value.as_str(), recorded.get(name).and_then(Value::as_str))
            else {
                continue;
            };
            let beginning = short.strip_suffix(&format!("…({} bytes in all)", text.len()));
            if beginning.is_some_and(|beginning| text.starts_with(beginning)) {
                *value = json!(short);
            }
        }
    }
}

/// The same with all keys in order.
fn sorted(value: &Value) -> Value {
    let Some(object) = value.as_object() else { return value.clone() };
    let sorted: BTreeMap<_, _> =
        object.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
    sorted.into_iter().collect()
}

/// A process's input that comes piece by piece and ends when its sender is dropped.
#[derive(Debug)]
pub struct Feed {
    pieces: mpsc::UnboundedReceiver<Vec<u8>>,
    piece: Vec<u8>,
}

impl Feed {
    /// One that waits for its first piece.
    pub fn new() -> (mpsc::UnboundedSender<Vec<u8>>, Self) {
        let (sender, pieces) = mpsc::unbounded_channel();
        (sender, Self { pieces, piece: Vec::new() })
    }
}

impl AsyncRead for Feed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.piece.is_empty() {
            let Some(piece) = ready!(self.pieces.poll_recv(context)) else {
                return Poll::Ready(Ok(()));
            };
            self.piece = piece;
        }
        let length = buffer.remaining().min(self.piece.len());
        buffer.put_slice(&self.piece[..length]);
        self.piece.drain(..length);
        Poll::Ready(Ok(()))
    }
}

/// An archive to send, by a reader or as it is.
#[derive(Debug)]
pub enum Upload {
    /// Of unknown length.
    Reader(Vec<u8>),
    /// Of known length.
    Whole(Vec<u8>),
}

/// A process that a call has opened.
#[derive(Debug)]
struct Opened {
    /// `Run` or `Attach`.
    by: String,
    running: Arc<RunningProcess>,
    /// By name, as far as they were asked for.
    outputs: Vec<(&'static str, JoinHandle<Vec<u8>>)>,
    waited: bool,
}

/// A call to be made.
#[derive(Debug)]
pub struct Call {
    /// The library's name for it.
    pub function: String,
    /// As the recorder wrote them.
    pub args: Value,
    /// Input of a process.
    pub input: Option<Feed>,
    /// For `StreamIn`.
    pub upload: Option<Upload>,
}

/// The program that uses the library.
#[derive(Clone, Debug)]
pub struct Program {
    /// Our client.
    pub client: Client,
    processes: Arc<Mutex<Vec<Opened>>>,
}

impl Program {
    /// One that has made no call yet.
    pub fn new(client: Client) -> Self {
        Self { client, processes: Arc::default() }
    }

    /// Makes a call.
    pub async fn make(self, call: Call) -> anyhow::Result<Outcome> {
        match self.try_make(call).await {
            Ok(value) => Ok(Outcome { value, error: None }),
            Err(Failed::Client { error, value }) => {
                let told = (go_type(&error).to_owned(), error.to_string());
                Ok(Outcome { value, error: Some(told) })
            }
            Err(Failed::Other(error)) => Err(error),
        }
    }

    async fn try_make(&self, call: Call) -> Result<Value, Failed> {
        let Call { function, args, input, upload } = call;
        let client = &self.client;
        let text = |name: &str| args[name].as_str().unwrap_or_default();
        let handle = args.as_str().unwrap_or_else(|| text("handle"));
        let value = match function.as_str() {
            "Ping" => done(client.ping().await?),
            "Capacity" => wire(&client.capacity().await?),
            "Create" => json!(client.create(&parsed(&args)?).await?),
            "List" => {
                json!(client.list(&parsed::<Option<Properties>>(&args)?.unwrap_or_default()).await?)
            }
            "Lookup" => {
                client.lookup(handle).await?;
                json!(handle)
            }
            "Destroy" => done(client.destroy(handle).await?),
            "Stop" => done(client.stop(handle, args["kill"] == true).await?),
            "Info" => wire(&client.info(handle).await?),
            "BulkInfo" => wire(&client.bulk_info(&handles(&args)?).await?),
            "Metrics" => wire(&client.metrics(handle).await?),
            "BulkMetrics" => wire(&client.bulk_metrics(&handles(&args)?).await?),
            "Properties" => wire(&client.properties(handle).await?),
            // Of a long one the recorder wrote the name and the length.
            "Property" if args.is_string() => {
                json!({"length": client.property("box", handle).await?.len()})
            }
            "Property" => json!(client.property(handle, text("name")).await?),
            "SetProperty" => {
                let value = repeated(text("value"));
                done(client.set_property(handle, text("name"), &value).await?)
            }
            "RemoveProperty" => done(client.remove_property(handle, text("name")).await?),
            "SetGraceTime" => {
                let time = Duration::from_nanos(parsed(&args["ns"])?);
                done(client.set_grace_time(handle, time).await?)
            }
            "CurrentBandwidthLimits" => wire(&client.bandwidth_limits(handle).await?),
            "CurrentCPULimits" => wire(&client.cpu_limits(handle).await?),
            "CurrentDiskLimits" => wire(&client.disk_limits(handle).await?),
            "CurrentMemoryLimits" => wire(&client.memory_limits(handle).await?),
            "NetIn" => {
                let (host, container) =
                    (parsed(&args["host_port"])?, parsed(&args["container_port"])?);
                let ports = client.net_in(handle, host, container).await?;
                json!([ports.host_port, ports.container_port])
            }
            "NetOut" => done(client.net_out(handle, &parsed(&args["rule"])?).await?),
            "BulkNetOut" => {
                let rules = parsed::<Option<Vec<_>>>(&args["rules"])?.unwrap_or_default();
                done(client.bulk_net_out(handle, &rules).await?)
            }
            "StreamIn" => {
                let (user, path) = (text("user"), text("path"));
                match upload.context("no archive")? {
                    Upload::Whole(archive) => {
                        done(client.stream_in_bytes(handle, user, path, &archive).await?)
                    }
                    Upload::Reader(archive) => {
                        done(client.stream_in(handle, user, path, Cursor::new(archive)).await?)
                    }
                }
            }
            "StreamOut" => {
                let mut archive = client.stream_out(handle, text("user"), text("path")).await?;
                let mut bytes = Vec::new();
                archive.read_to_end(&mut bytes).await.context("the archive ends early")?;
                json!({"bytes": bytes.len()})
            }
            "Run" | "Attach" => {
                let wanted = |name: &str| args["io"][name] == true;
                let stdin = input.map(|feed| Box::new(feed) as Box<dyn AsyncRead + Send + Unpin>);
                let (stdout, stderr) = (wanted("stdout"), wanted("stderr"));
                let io = ProcessIo { stdin, stdout, stderr };
                let running = if function == "Run" {
                    client.run(handle, &parsed(&args["spec"])?, io).await?
                } else {
                    client.attach(handle, text("id"), io).await?
                };
                self.opened(function, running)
            }
            "Wait" => return self.wait(text("of"), text("id")).await,
            "Signal" => {
                let signal: Signal = parsed(&args["signal"])?;
                done(self.process(text("id"))?.signal(signal).await?)
            }
            "SetTTY" => {
                let terminal: TtySpec = parsed(&args["tty"])?;
                let size = terminal.window_size.context("no size")?;
                done(self.process(text("id"))?.resize(size).await?)
            }
            other => return Err(Failed::Other(anyhow::anyhow!("unknown call {other}"))),
        };
        Ok(value)
    }

    fn opened(&self, by: String, running: RunningProcess) -> Value {
        let outputs = [("stdout", running.take_stdout()), ("stderr", running.take_stderr())];
        let collected = |(name, output): (&'static str, Option<_>)| {
            let mut output = output?;
            let collecting = tokio::spawn(async move {
                let mut bytes = Vec::new();
                // What had come before an error is what a caller has.
                let _ = AsyncReadExt::read_to_end(&mut output, &mut bytes).await;
                bytes
            });
            Some((name, collecting))
        };
        let outputs = outputs.into_iter().filter_map(collected).collect();
        let value = json!({"id": running.id()});
        let running = Arc::new(running);
        self.processes().push(Opened { by, running, outputs, waited: false });
        value
    }

    fn processes(&self) -> std::sync::MutexGuard<'_, Vec<Opened>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process that was opened under this id, by the first call that was.
    fn process(&self, id: &str) -> anyhow::Result<Arc<RunningProcess>> {
        let processes = self.processes();
        let found = processes.iter().find(|process| process.running.id() == id);
        found.map(|process| Arc::clone(&process.running)).context("no such process")
    }

    async fn wait(&self, by: &str, id: &str) -> Result<Value, Failed> {
        let (running, outputs) = {
            let mut processes = self.processes();
            let waiting = processes
                .iter_mut()
                .find(|process| !process.waited && process.by == by && process.running.id() == id);
            let process = waiting.context("nothing to wait for")?;
            process.waited = true;
            (Arc::clone(&process.running), std::mem::take(&mut process.outputs))
        };
        let ended = running.wait().await;
        let mut value = json!({});
        for (name, collecting) in outputs {
            let bytes = collecting.await.context("an output is not collected")?;
            value[name] = json!(String::from_utf8_lossy(&bytes));
        }
        match ended {
            Ok(status) => {
                value["exit_status"] = json!(status);
                Ok(value)
            }
            Err(error) => Err(Failed::Client { error, value }),
        }
    }
}

/// Why a call gives no value.
#[derive(Debug)]
enum Failed {
    /// The client says so; what else the caller has.
    Client { error: Error, value: Value },
    /// The recording is not understood.
    Other(anyhow::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Client { error, value: Value::Null }
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// The type that the original's library gives an error; ours where it has none.
fn go_type(error: &Error) -> &'static str {
    match error {
        Error::ContainerNotFound(_) => "garden.ContainerNotFoundError",
        Error::ProcessNotFound(_) => "garden.ProcessNotFoundError",
        Error::ExecutableNotFound(_) => "garden.ExecutableNotFoundError",
        Error::ServiceUnavailable(_) => "garden.ServiceUnavailableError",
        Error::Unrecoverable(_) => "garden.UnrecoverableError",
        Error::Plain(_) => "errors.errorString",
        Error::Unreachable { .. } => "Unreachable",
        Error::Broken { .. } => "Broken",
        Error::BadResponse { .. } => "BadResponse",
        Error::Source { .. } => "Source",
        Error::StatusUnknown { .. } => "StatusUnknown",
        Error::Disconnected { .. } => "Disconnected",
        Error::NoStream { .. } => "NoStream",
        Error::Ended { .. } => "Ended",
    }
}

fn done((): ()) -> Value {
    Value::Null
}

/// As it goes over the wire.
fn wire(value: &impl Serialize) -> Value {
    serde_json::from_slice(&encode(value)).unwrap_or_default()
}

fn parsed<T: DeserializeOwned>(args: &Value) -> anyhow::Result<T> {
    serde_json::from_value(args.clone()).with_context(|| format!("arguments {args}"))
}

fn handles(args: &Value) -> anyhow::Result<Vec<String>> {
    Ok(parsed::<Option<_>>(args)?.unwrap_or_default())
}

/// The recorder wrote a long value as `<number> times <text>`.
fn repeated(value: &str) -> String {
    let written = value.split_once(" times ");
    let times = written.and_then(|(number, text)| Some((number.parse::<usize>().ok()?, text)));
    times.map_or_else(|| value.to_owned(), |(number, text)| text.repeat(number))
}

/// The input in a client's frames: a piece for each, and whether it ends. A byte that the frame has
/// as `\ufffd` was none of a character.
pub fn input(frames: &[u8]) -> anyhow::Result<(Vec<Vec<u8>>, bool)> {
    /// Stands for such a byte; no recording has it.
    const NO_CHARACTER: &str = "\u{e000}";
    let mut pieces = Vec::new();
    for frame in frames.split_inclusive(|byte| *byte == b'\n') {
        let text = std::str::from_utf8(frame)?.replace("\\ufffd", NO_CHARACTER);
        let Some(text) = text.strip_suffix('\n') else { break };
        let frame: Value = serde_json::from_str(text)?;
        match (&frame["source"], &frame["data"]) {
            (Value::Null, _) => {}
            (_, Value::Null) => return Ok((pieces, true)),
            (_, Value::String(data)) => {
                let whole: Vec<_> = data.split(NO_CHARACTER).map(str::as_bytes).collect();
                pieces.push(whole.join(&0xff));
            }
            _ => bail!("{text} is no input"),
        }
    }
    Ok((pieces, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_read_back_from_frames() {
        let frames = b"{\"process_id\":\"p\",\"source\":0,\"data\":\"a\\ufffd\\u003c\"}\n\
                       {\"process_id\":\"p\",\"signal\":0}\n{\"process_id\":\"p\",\"source\":0}\n";
        assert_eq!(input(frames).unwrap(), (vec![b"a\xff<".to_vec()], true));
        assert_eq!(input(&frames[..60]).unwrap(), (vec![b"a\xff<".to_vec()], false));
    }

    #[test]
    fn a_long_text_is_its_beginning_and_its_length() {
        let outcome = |stdout: &str| Outcome { value: json!({"stdout": stdout}), error: None };
        let recorded = outcome("xx…(5 bytes in all)");
        for (ours, equal) in [("xxxyz", true), ("xxxy", false), ("yxxyz", false)] {
            let mut ours = outcome(ours);
            ours.shorten_as(&recorded);
            assert_eq!(ours == recorded, equal);
        }
    }

    #[tokio::test]
    async fn a_feed_gives_a_piece_at_a_time_and_ends_with_its_sender() {
        let (sender, mut feed) = Feed::new();
        for piece in [b"one".to_vec(), b"two".to_vec()] {
            sender.send(piece).unwrap();
        }
        drop(sender);
        let mut buffer = [0; 16];
        for expected in [&b"one"[..], b"two", b""] {
            let length = feed.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], expected);
        }
    }
}
