//! `healthcheck`: probes an app from inside its container (diego.md 13.4).
//!
//! With none of the interval flags it probes once. `-startup-interval` probes until one passes,
//! `-until-ready-interval` likewise without an end, `-liveness-interval` and `-readiness-interval`
//! until one fails. The exit status and the last line say why.

use std::ffi::OsString;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::flags::{FlagError, Flags};

/// A probe that did not pass.
#[derive(Debug)]
enum Unhealthy {
    NoInterface,
    Tcp { address: SocketAddr, cause: Cause },
    Http { path: String, port: u16, cause: Cause },
    Status { path: String, port: u16, status: u16, took: Duration },
}

#[derive(Debug)]
enum Cause {
    TimedOut(Duration),
    Other(String),
}

impl Unhealthy {
    fn exit_status(&self) -> u8 {
        match self {
            Self::NoInterface => 3,
            Self::Tcp { cause: Cause::TimedOut(_), .. } => 64,
            Self::Tcp { .. } => 4,
            Self::Http { cause: Cause::TimedOut(_), .. } => 65,
            Self::Http { .. } => 5,
            Self::Status { .. } => 6,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => {
                write!(f, "timed out after {:.2} seconds", limit.as_secs_f64())
            }
            Self::Other(cause) => f.write_str(cause),
        }
    }
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface => {
                f.write_str("failure to get interfaces: no IPv4 address but loopback")
            }
            Self::Tcp { address, cause } => {
                write!(f, "failed to make TCP connection to {address}: {cause}")
            }
            Self::Http { path, port, cause } => {
                write!(f, "failed to make HTTP request to '{path}' on port {port}: {cause}")
            }
            Self::Status { path, port, status, took } => write!(
                f,
                "failed to make HTTP request to '{path}' on port {port}: received status code {status} in {}ms",
                took.as_millis()
            ),
        }
    }
}

/// What is probed.
#[derive(Debug)]
struct Probe {
    port: u16,
    timeout: Duration,
    /// HTTP is spoken where there is a path.
    path: Option<String>,
}

/// How often, and until what.
#[derive(Debug)]
enum Mode {
    Once,
    Startup { interval: Duration, limit: Duration },
    UntilReady { interval: Duration },
    Liveness { interval: Duration },
    Readiness { interval: Duration },
}

pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let (probe, mode) = match parse(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("healthcheck: {error}");
            return ExitCode::from(127);
        }
    };
    let outcome = match mode {
        Mode::Once => {
            probe.attempt().map(|()| "healthcheck passed").map_err(|e| (String::new(), e))
        }
        Mode::Startup { interval, limit } => probe.until_passes(interval, Some(limit)),
        Mode::UntilReady { interval } => probe.until_passes(interval, None),
        Mode::Liveness { interval } => Err(probe.until_fails(interval, "Liveness")),
        Mode::Readiness { interval } => Err(probe.until_fails(interval, "Readiness")),
    };
    match outcome {
        Ok(passed) => {
            println!("{passed}");
            ExitCode::SUCCESS
        }
        Err((prefix, unhealthy)) => {
            eprintln!("{prefix}{unhealthy}");
            unhealthy.exit_status().into()
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<(Probe, Mode), FlagError> {
    let valued = [
        "network",
        "port",
        "timeout",
        "uri",
        "startup-interval",
        "startup-timeout",
        "until-ready-interval",
        "liveness-interval",
        "readiness-interval",
    ];
    let (flags, _) = Flags::parse(arguments, &valued, &[])?;
    let port = flags.text("port", "8080");
    let port = port.parse().map_err(|_| FlagError::Invalid {
        name: "port",
        value: port,
        wanted: "1 to 65535",
    })?;
    let interval = |name| match flags.given(name) {
        Some(text) => duration(name, text).map(Some),
        None => Ok(None),
    };
    let probe = Probe {
        port,
        timeout: duration("timeout", &flags.text("timeout", "1s"))?,
        path: flags.given("uri").map(ToOwned::to_owned),
    };
    let limit = duration("startup-timeout", &flags.text("startup-timeout", "60s"))?;
    let mode = if let Some(interval) = interval("startup-interval")? {
        Mode::Startup { interval, limit }
    } else if let Some(interval) = interval("until-ready-interval")? {
        Mode::UntilReady { interval }
    } else if let Some(interval) = interval("liveness-interval")? {
        Mode::Liveness { interval }
    } else if let Some(interval) = interval("readiness-interval")? {
        Mode::Readiness { interval }
    } else {
        Mode::Once
    };
    Ok((probe, mode))
}

/// A duration in Go's notation, as far as these flags use it: a sum of numbers with `h`, `m`, `s`,
/// `ms`, `us` or `ns`.
fn duration(name: &'static str, text: &str) -> Result<Duration, FlagError> {
    let invalid =
        || FlagError::Invalid { name, value: text.to_owned(), wanted: "a duration like 1.5s" };
    let mut rest = text;
    let mut seconds = 0.0;
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..letters] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(invalid()),
            };
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

impl Probe {
    fn until_passes(
        &self,
        interval: Duration,
        limit: Option<Duration>,
    ) -> Result<&'static str, (String, Unhealthy)> {
        let start = Instant::now();
        let mut attempts = 0_u32;
        loop {
            attempts += 1;
            let unhealthy = match self.attempt() {
                Ok(()) => return Ok("healthcheck passed"),
                Err(unhealthy) => unhealthy,
            };
            let elapsed = start.elapsed();
            if limit.is_some_and(|limit| !limit.is_zero() && elapsed + interval > limit) {
                let prefix = format!(
                    "Timed out after {:.2}s ({attempts} attempts) waiting for startup check to succeed: ",
                    elapsed.as_secs_f64()
                );
                return Err((prefix, unhealthy));
            }
            std::thread::sleep(interval);
        }
    }

    fn until_fails(&self, interval: Duration, what: &str) -> (String, Unhealthy) {
        loop {
            if let Err(unhealthy) = self.attempt() {
                return (format!("{what} check unsuccessful: "), unhealthy);
            }
            std::thread::sleep(interval);
        }
    }

    /// One probe, within the timeout as a whole.
    fn attempt(&self) -> Result<(), Unhealthy> {
        let address = SocketAddr::new(own_address().ok_or(Unhealthy::NoInterface)?, self.port);
        let deadline = Instant::now() + self.timeout;
        let Some(path) = &self.path else {
            return TcpStream::connect_timeout(&address, self.timeout)
                .map(drop)
                .map_err(|error| Unhealthy::Tcp { address, cause: self.cause(&error) });
        };
        let start = Instant::now();
        match self.status(address, path, deadline) {
            Ok(200) => Ok(()),
            Ok(status) => Err(Unhealthy::Status {
                path: path.clone(),
                port: self.port,
                status,
                took: start.elapsed(),
            }),
            Err(error) => Err(Unhealthy::Http {
                path: path.clone(),
                port: self.port,
                cause: self.cause(&error),
            }),
        }
    }

    fn cause(&self, error: &std::io::Error) -> Cause {
        use std::io::ErrorKind::{ConnectionRefused, TimedOut, WouldBlock};
        match error.kind() {
            TimedOut | WouldBlock => Cause::TimedOut(self.timeout),
            ConnectionRefused => Cause::Other("connection refused".into()),
            _ => Cause::Other(error.to_string()),
        }
    }

    /// The status of GET `path`, after redirects to paths of the same app.
    fn status(&self, address: SocketAddr, path: &str, deadline: Instant) -> std::io::Result<u16> {
        const REDIRECTS: usize = 10;
        let mut path = path.to_owned();
        for _ in 0..=REDIRECTS {
            let (status, location) = get(address, &path, deadline)?;
            match location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308)) {
                Some(location) => path = same_app(&location, address)?,
                None => return Ok(status),
            }
        }
        Err(std::io::Error::other(format!("stopped after {REDIRECTS} redirects")))
    }
}

/// The path of a redirect. To another host it is not followed: only this app is probed.
fn same_app(location: &str, address: SocketAddr) -> std::io::Result<String> {
    if location.starts_with('/') {
        return Ok(location.to_owned());
    }
    let own = format!("http://{address}");
    match location.strip_prefix(&own) {
        Some("") => Ok("/".into()),
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        _ => Err(std::io::Error::other(format!("it redirects to another host: {location}"))),
    }
}

/// One request; the body is not read.
fn get(
    address: SocketAddr,
    path: &str,
    deadline: Instant,
) -> std::io::Result<(u16, Option<String>)> {
    const HEAD_LIMIT: usize = 64 << 10;
    let left = || {
        deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::TimedOut))
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: diego-healthcheck\r\n\
         X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
    )?;
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some((length, status, location)) = answer(&head)? {
            // An interim answer is not the answer.
            if !(100..200).contains(&status) || status == 101 {
                return Ok((status, location));
            }
            head.drain(..length);
            continue;
        }
        stream.set_read_timeout(Some(left()?))?;
        let read = stream.read(&mut piece)?;
        head.extend_from_slice(&piece[..read]);
        if read == 0 {
            return Err(std::io::Error::other("the connection was closed without an answer"));
        }
        if head.len() > HEAD_LIMIT {
            return Err(std::io::Error::other("the head of the answer is too long"));
        }
    }
}

/// The length, status and Location of a whole head at the beginning of `bytes`.
fn answer(bytes: &[u8]) -> std::io::Result<Option<(usize, u16, Option<String>)>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) =
        response.parse(bytes).map_err(std::io::Error::other)?
    else {
        return Ok(None);
    };
    let location = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("location"))
        .map(|header| String::from_utf8_lossy(header.value).into_owned());
    Ok(response.code.map(|status| (length, status, location)))
}

/// The first IPv4 address of any interface but loopback: an app that listens on 127.0.0.1 alone is
/// not reachable for anybody.
///
/// A datagram socket tells which address the kernel would send from, without sending anything.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // TEST-NET-1 (RFC 5737): any address that only the default route leads to.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{Mode, duration, get, parse, same_app};

    /// A server that gives each connection the next of `answers`, and the request heads it saw.
    fn serve(answers: Vec<&'static str>) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = thread::spawn(move || {
            let mut heads = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while reader.read_line(&mut head).unwrap() > 2 {}
                heads.push(head);
                stream.write_all(answer.as_bytes()).unwrap();
            }
            heads
        });
        (address, served)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn asks_as_the_platform_does() {
        let (address, served) = serve(vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]);
        assert_eq!(get(address, "/up", soon()).unwrap(), (200, None));
        let head = served.join().unwrap().remove(0);
        assert!(head.starts_with("GET /up HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("User-Agent: diego-healthcheck\r\n"), "{head}");
        assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
    }

    #[test]
    fn passes_over_interim_answers() {
        let (address, served) = serve(vec![
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
        ]);
        assert_eq!(get(address, "/", soon()).unwrap(), (503, None));
        served.join().unwrap();
    }

    #[test]
    fn an_answer_that_never_comes_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = get(address, "/", deadline).unwrap_err();
        assert!(
            matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock),
            "{error:?}"
        );
    }

    #[test]
    fn redirects_stay_with_the_app() {
        let address = "10.0.0.1:8080".parse().unwrap();
        assert_eq!(same_app("/login", address).unwrap(), "/login");
        assert_eq!(same_app("http://10.0.0.1:8080/x", address).unwrap(), "/x");
        assert_eq!(same_app("http://10.0.0.1:8080", address).unwrap(), "/");
        assert!(same_app("http://10.0.0.1:80800/", address).is_err());
        assert!(same_app("https://example.org/", address).is_err());
    }

    #[test]
    fn reads_durations_as_go_writes_them() {
        assert_eq!(duration("timeout", "1000ms"), Ok(Duration::from_secs(1)));
        assert_eq!(duration("timeout", "1m0.5s"), Ok(Duration::from_millis(60_500)));
        assert_eq!(duration("timeout", "0"), Ok(Duration::ZERO));
        for wrong in ["", "1", "s", "1x", "-1s", "1s2"] {
            assert!(duration("timeout", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_interval_tells_the_mode() {
        let mode = |line: &[&str]| {
            let line: Vec<_> = line.iter().map(std::ffi::OsString::from).collect();
            parse(&line).unwrap().1
        };
        assert!(matches!(mode(&["-port=1"]), Mode::Once));
        assert!(matches!(
            mode(&["-startup-interval=2s", "-startup-timeout=3s"]),
            Mode::Startup { interval, limit } if interval.as_secs() == 2 && limit.as_secs() == 3
        ));
        assert!(matches!(mode(&["-liveness-interval=30s"]), Mode::Liveness { .. }));
        assert!(matches!(mode(&["-readiness-interval=30s"]), Mode::Readiness { .. }));
        assert!(matches!(mode(&["-until-ready-interval=2s"]), Mode::UntilReady { .. }));
    }
}
