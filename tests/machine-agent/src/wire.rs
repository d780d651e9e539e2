//! Frames on the virtio-serial port between harness and agent:
//! `[kind: u8][number: u32 LE][length: u32 LE][body]`.
//!
//! The harness numbers what it asks for; every frame about it, in both directions, has that
//! number. Who speaks is who was built last: both ends are of one build, so there is no version.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The longest body. It keeps a frame of output from delaying all other processes' frames.
pub const MOST: usize = 64 * 1024;

/// What the harness asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Become somebody: all clones of a template are the same until they are told. Answered by
    /// [`Reply::Done`].
    Identify(Identity),
    /// Start a process. Answered by [`Reply::Done`] and, if it was started, one day by
    /// [`Reply::Exit`].
    Execute(Command),
    /// Input for a process, answered by [`Reply::Done`] when it is in the pipe. The harness sends
    /// one at a time, so that a process that does not read holds up nobody else.
    Input(Vec<u8>),
    /// The process's input ends.
    EndInput,
    /// A signal for the process and all of its process group.
    Signal(i32),
    /// A new size for the process's terminal.
    Window(Window),
    /// Begin a file under a temporary name.
    Put(File),
    /// More of the file's content.
    Content(Vec<u8>),
    /// The file is complete and gets its name; answered by [`Reply::Done`].
    EndPut,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The machine has booted. Its number is 0.
    Ready,
    /// What was asked for has been done, or why not.
    Done(Result<(), String>),
    /// The process wrote to its standard output, or to its terminal.
    Output(Vec<u8>),
    /// The process wrote to its standard error.
    Error(Vec<u8>),
    /// The process has ended, with this status or 128 and the signal's number; nothing follows.
    Exit(i32),
}

/// What makes a clone different from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The time now, since the Unix epoch.
    pub time: Duration,
    /// Entropy for the kernel's pool.
    pub seed: Vec<u8>,
    /// The host name.
    pub name: String,
    /// The hardware address of `eth0`.
    pub hardware: [u8; 6],
    /// The address of `eth0` and its prefix length; without one it stays down.
    pub address: Option<(Ipv4Addr, u8)>,
}

/// A process to be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The program, looked up in PATH, and its arguments.
    pub arguments: Vec<String>,
    /// `NAME=value`, added to the agent's own PATH, HOME and TERM.
    pub environment: Vec<String>,
    /// Where it starts; empty for `/`.
    pub directory: String,
    /// It gets a terminal of this size instead of three pipes.
    pub terminal: Option<Window>,
}

impl Command {
    /// A program and its arguments.
    pub fn new(words: &[&str]) -> Self {
        Self { arguments: words.iter().map(ToString::to_string).collect(), ..Self::default() }
    }
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Window {
    pub rows: u16,
    pub columns: u16,
}

/// A file to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// An absolute path; missing directories are made.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
}

impl Request {
    /// Writes the frame.
    pub fn write(&self, number: u32, to: &mut impl Write) -> io::Result<()> {
        let mut body = Body::default();
        let kind = match self {
            Self::Identify(identity) => {
                body.number(identity.time.as_secs());
                body.number(identity.time.subsec_nanos().into());
                body.bytes(&identity.seed);
                body.bytes(identity.name.as_bytes());
                body.bytes(&identity.hardware);
                let (address, prefix) = identity.address.unwrap_or((Ipv4Addr::UNSPECIFIED, 0));
                body.bytes(&address.octets());
                body.number(prefix.into());
                b'T'
            }
            Self::Execute(command) => {
                body.texts(&command.arguments);
                body.texts(&command.environment);
                body.bytes(command.directory.as_bytes());
                body.number(command.terminal.is_some().into());
                body.window(command.terminal.unwrap_or(Window { rows: 0, columns: 0 }));
                b'X'
            }
            Self::Input(bytes) => {
                body.0.extend_from_slice(bytes);
                b'I'
            }
            Self::EndInput => b'i',
            Self::Signal(signal) => {
                body.0.extend_from_slice(&signal.to_le_bytes());
                b'K'
            }
            Self::Window(window) => {
                body.window(*window);
                b'W'
            }
            Self::Put(file) => {
                body.bytes(file.path.as_bytes());
                body.number(file.mode.into());
                b'P'
            }
            Self::Content(bytes) => {
                body.0.extend_from_slice(bytes);
                b'C'
            }
            Self::EndPut => b'p',
        };
        body.write(kind, number, to)
    }

    /// Reads a frame with its number. An orderly end before a frame is an `UnexpectedEof`, as any
    /// other end is: the port never ends while the machine runs.
    pub fn read(from: &mut impl Read) -> io::Result<(u32, Self)> {
        let (kind, number, body) = read(from)?;
        let mut rest = Rest(&body);
        let request = match kind {
            b'T' => {
                let seconds = Duration::from_secs(rest.number()?);
                let time = seconds + Duration::from_nanos(rest.number()?);
                let seed = rest.bytes()?.to_vec();
                let name = rest.text()?;
                let hardware = rest.array()?;
                let address = Ipv4Addr::from(rest.array::<4>()?);
                let prefix = u8::try_from(rest.number()?).map_err(|_| malformed())?;
                let address = (prefix != 0).then_some((address, prefix));
                Self::Identify(Identity { time, seed, name, hardware, address })
            }
            b'X' => {
                let (arguments, environment) = (rest.texts()?, rest.texts()?);
                let directory = rest.text()?;
                let has_terminal = rest.number()? != 0;
                let window = rest.window()?;
                let terminal = has_terminal.then_some(window);
                Self::Execute(Command { arguments, environment, directory, terminal })
            }
            b'I' => Self::Input(body),
            b'i' => Self::EndInput,
            b'K' => Self::Signal(i32::from_le_bytes(whole(&body)?)),
            b'W' => Self::Window(rest.window()?),
            b'P' => {
                let path = rest.text()?;
                let mode = u32::try_from(rest.number()?).map_err(|_| malformed())?;
                Self::Put(File { path, mode })
            }
            b'C' => Self::Content(body),
            b'p' => Self::EndPut,
            _ => return Err(malformed()),
        };
        Ok((number, request))
    }
}

impl Reply {
    /// Writes the frame.
    pub fn write(&self, number: u32, to: &mut impl Write) -> io::Result<()> {
        let mut body = Body::default();
        let kind = match self {
            Self::Ready => b'R',
            Self::Done(Ok(())) => b'q',
            Self::Done(Err(reason)) => {
                body.0.extend_from_slice(reason.as_bytes());
                b'!'
            }
            Self::Output(bytes) => {
                body.0.extend_from_slice(bytes);
                b'o'
            }
            Self::Error(bytes) => {
                body.0.extend_from_slice(bytes);
                b'e'
            }
            Self::Exit(status) => {
                body.0.extend_from_slice(&status.to_le_bytes());
                b'x'
            }
        };
        body.write(kind, number, to)
    }

    /// Reads a frame with its number.
    pub fn read(from: &mut impl Read) -> io::Result<(u32, Self)> {
        let (kind, number, body) = read(from)?;
        let reply = match kind {
            b'R' => Self::Ready,
            b'q' => Self::Done(Ok(())),
            b'!' => Self::Done(Err(String::from_utf8_lossy(&body).into_owned())),
            b'o' => Self::Output(body),
            b'e' => Self::Error(body),
            b'x' => Self::Exit(i32::from_le_bytes(whole(&body)?)),
            _ => return Err(malformed()),
        };
        Ok((number, reply))
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed frame between harness and agent")
}

fn whole<const N: usize>(body: &[u8]) -> io::Result<[u8; N]> {
    body.try_into().map_err(|_| malformed())
}

fn read(from: &mut impl Read) -> io::Result<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    from.read_exact(&mut head)?;
    let [kind, a, b, c, d, length @ ..] = head;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST {
        return Err(malformed());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok((kind, u32::from_le_bytes([a, b, c, d]), body))
}

#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn texts(&mut self, texts: &[String]) {
        self.number(texts.len() as u64);
        for text in texts {
            self.bytes(text.as_bytes());
        }
    }

    fn window(&mut self, window: Window) {
        self.number(window.rows.into());
        self.number(window.columns.into());
    }

    /// In one write, so that two threads' frames do not mix when each holds the port for it.
    fn write(self, kind: u8, number: u32, to: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(self.0.len()).ok().filter(|length| *length as usize <= MOST);
        let length = length.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "too much for one frame to the agent")
        })?;
        let mut frame = Vec::with_capacity(9 + self.0.len());
        frame.push(kind);
        frame.extend_from_slice(&number.to_le_bytes());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&self.0);
        to.write_all(&frame)?;
        to.flush()
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(whole(self.take(8)?)?))
    }

    fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = usize::try_from(self.number()?).map_err(|_| malformed())?;
        self.take(length)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        whole(self.bytes()?)
    }

    fn text(&mut self) -> io::Result<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| malformed())
    }

    fn texts(&mut self) -> io::Result<Vec<String>> {
        (0..self.number()?).map(|_| self.text()).collect()
    }

    fn window(&mut self) -> io::Result<Window> {
        let mut side = || u16::try_from(self.number()?).map_err(|_| malformed());
        Ok(Window { rows: side()?, columns: side()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_as_they_were() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let identity = Identity {
            time: Duration::new(1_700_000_000, 999_999_999),
            seed: vec![7; 32],
            name: "cell-1".into(),
            hardware: [0x52, 0x54, 0, 0, 1, 1],
            address: Some((Ipv4Addr::new(10, 0, 16, 1), 24)),
        };
        for request in [
            Request::Identify(Identity { address: None, ..identity.clone() }),
            Request::Identify(identity),
            Request::Execute(Command {
                arguments: texts(&["sh", "-c", ""]),
                environment: texts(&["A=b"]),
                directory: "/tmp".into(),
                terminal: Some(Window { rows: 24, columns: 80 }),
            }),
            Request::Execute(Command::default()),
            Request::Input(vec![0; MOST]),
            Request::EndInput,
            Request::Signal(-1),
            Request::Window(Window { rows: 1, columns: u16::MAX }),
            Request::Put(File { path: "/bin/x".into(), mode: 0o755 }),
            Request::Content(Vec::new()),
            Request::EndPut,
        ] {
            let mut frame = Vec::new();
            request.write(77, &mut frame).unwrap();
            assert_eq!(Request::read(&mut frame.as_slice()).unwrap(), (77, request));
        }
    }

    #[test]
    fn replies_come_back_as_they_were() {
        for reply in [
            Reply::Ready,
            Reply::Done(Ok(())),
            Reply::Done(Err("no".into())),
            Reply::Output(vec![1, 2]),
            Reply::Error(Vec::new()),
            Reply::Exit(137),
        ] {
            let mut frame = Vec::new();
            reply.write(3, &mut frame).unwrap();
            assert_eq!(Reply::read(&mut frame.as_slice()).unwrap(), (3, reply));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let long = u32::try_from(MOST).unwrap() + 1;
        let head =
            |kind: u8, length: u32| [&[kind, 0, 0, 0, 0][..], &length.to_le_bytes()].concat();
        for bytes in [
            head(b'I', long),
            head(b'?', 0),
            head(b'K', 0),
            [head(b'P', 8), vec![0xff; 8]].concat(),
            head(b'X', 0),
        ] {
            let refused = Request::read(&mut bytes.as_slice()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        let too_much = Request::Input(vec![0; MOST + 1]).write(1, &mut Vec::new()).unwrap_err();
        assert_eq!(too_much.kind(), io::ErrorKind::InvalidInput);
        let cut = Request::read(&mut [b'i', 0].as_slice()).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
