//! The debug server: variables, metrics and the level of logging, for operators.
//!
//! ```text
//! GET  /debug/vars   expvar's JSON, as the original's
//! GET  /metrics      Prometheus's text
//! PUT  /log-level    debug, info, warn, error or fatal
//! ```
//!
//! Off unless asked for, and a listener of its own: Garden's socket is as good as root, which who
//! only watches need not have. Whoever reaches it can read numbers and make logs longer, no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::error::Error;
use crate::gardener::Gardener;
use crate::http::date::http_date;
use crate::http::head::Received;
use crate::http::{RequestHead, Wire};
use crate::meters::exposition;

/// From which level on is logged; the words of lager and, of `warn`, of those who came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What may go wrong.
    Warn,
    /// What goes wrong.
    Error,
    /// Nothing but the end.
    Fatal,
}

impl Verbosity {
    /// A word, its first letter or its number, in either case.
    fn parse(text: &str) -> Option<Self> {
        Some(match text.trim().to_ascii_lowercase().as_str() {
            "debug" | "d" | "0" => Self::Debug,
            "info" | "i" | "1" => Self::Info,
            "warn" | "w" | "2" => Self::Warn,
            "error" | "e" | "3" => Self::Error,
            "fatal" | "f" | "4" => Self::Fatal,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

/// Changes from which level on is logged.
pub type SetVerbosity = Arc<dyn Fn(Verbosity) + Send + Sync>;

/// Who asks, at once.
const CONNECTIONS: usize = 16;
/// How long a request, and the reading of its answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a body.
const LONGEST: usize = 64;
/// How long accepting pauses when there are no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

const PROFILES: &str = "there are no profiles of Go's kind here; use perf: \
                        perf record -g -p PID, perf top -p PID, or strace -cf -p PID\n";

/// A bound debug server.
#[derive(Debug)]
pub struct DebugListener {
    listener: TcpListener,
    address: SocketAddr,
}

struct Answer {
    status: &'static str,
    content: &'static str,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, content: "text/plain; charset=utf-8", body: body.into() }
    }

    fn bytes(&self) -> String {
        let Self { status, content, body } = self;
        let (date, length) = (http_date(SystemTime::now()), body.len());
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nDate: {date}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    }
}

impl DebugListener {
    /// Binds. Must be called inside a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        let bound = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let failed = |error: std::io::Error| {
            Error::because(format!("the debug server cannot listen on {address}"), &error)
        };
        let listener = bound.map_err(failed)?;
        let address = listener.local_addr().unwrap_or(address);
        Ok(Self { listener, address })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is true. A request per connection: who asks comes every some seconds.
    pub async fn serve(
        self,
        gardener: Arc<Gardener>,
        verbosity: SetVerbosity,
        mut stop: watch::Receiver<bool>,
    ) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let admitted = async {
                // It is never closed.
                let place = Arc::clone(&room).acquire_owned().await.ok();
                (place, self.listener.accept().await)
            };
            let stopped = async {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            let (place, accepted) = tokio::select! {
                () = stopped => return,
                admitted = admitted => admitted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (gardener, verbosity) = (Arc::clone(&gardener), Arc::clone(&verbosity));
            tokio::spawn(async move {
                // Who takes longer is not waited for.
                let _ = tokio::time::timeout(PATIENCE, exchange(stream, gardener, verbosity)).await;
                drop(place);
            });
        }
    }
}

async fn exchange(
    stream: TcpStream,
    gardener: Arc<Gardener>,
    verbosity: SetVerbosity,
) -> std::io::Result<()> {
    let mut wire = Wire::new(stream);
    let answer = match RequestHead::read(&mut wire).await? {
        Received::Head(mut head) => {
            if std::mem::take(&mut head.expects_continue) {
                wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            match head.body.collect(&mut wire, LONGEST).await? {
                Some(body) => answer(&head, &body, gardener, verbosity).await,
                None => Answer::text("413 Request Entity Too Large", "the body is too long\n"),
            }
        }
        Received::Bad(bad) => Answer::text(bad.0, format!("{bad}\n")),
        Received::Closed => return Ok(()),
    };
    wire.write(answer.bytes().as_bytes()).await?;
    wire.finish().await
}

async fn answer(
    head: &RequestHead,
    body: &[u8],
    gardener: Arc<Gardener>,
    verbosity: SetVerbosity,
) -> Answer {
    let reads = matches!(head.method.as_str(), "GET" | "HEAD");
    let path = head.target.path.as_str();
    match path {
        "/debug/vars" | "/metrics" if !reads => Answer::text("405 Method Not Allowed", "GET\n"),
        "/debug/vars" => {
            let variables = tokio::task::spawn_blocking(move || variables(&gardener)).await;
            match variables {
                Ok(variables) => Answer {
                    status: "200 OK",
                    content: "application/json; charset=utf-8",
                    body: format!("{variables:#}\n"),
                },
                Err(error) => failed(&error),
            }
        }
        "/metrics" => {
            let exposed = tokio::task::spawn_blocking(move || exposition::expose(&gardener)).await;
            match exposed {
                Ok(body) => Answer { status: "200 OK", content: exposition::CONTENT_TYPE, body },
                Err(error) => failed(&error),
            }
        }
        "/log-level" => set_verbosity(&head.method, body, &verbosity),
        _ if path.starts_with("/debug/pprof") => Answer::text("404 Not Found", PROFILES),
        _ => Answer::text("404 Not Found", "404 page not found\n"),
    }
}

fn failed(error: &tokio::task::JoinError) -> Answer {
    tracing::error!(%error, "a request to the debug server failed");
    Answer::text("500 Internal Server Error", "the debug server failed\n")
}

/// In the original's words; older ones take a PUT, newer ones nothing but a POST.
fn set_verbosity(method: &str, body: &[u8], verbosity: &SetVerbosity) -> Answer {
    let bad = |text: &str| Answer::text("400 Bad Request", format!("{text}\n"));
    if !matches!(method, "PUT" | "POST") {
        return bad("method not allowed, use PUT or POST");
    }
    let text = String::from_utf8_lossy(body);
    if text.is_empty() {
        return bad("log level cannot be empty");
    }
    let Some(wanted) = Verbosity::parse(&text) else {
        return bad(&format!("invalid log level: {text}"));
    };
    verbosity(wanted);
    let word = wanted.word();
    Answer::text("200 OK", format!("/log-level was invoked with Level: {word}\n"))
}

/// The original's variables. It has had loop devices and backing stores once, and says 0 since.
fn variables(gardener: &Gardener) -> Value {
    let heap = garden_sys::heap::usage();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    let threads: usize = threads.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
    let arguments: Vec<_> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    json!({
        "backingStores": 0,
        "cmdline": arguments,
        "depotDirs": gardener.depot_directories().map_or(json!(-1), |count| json!(count)),
        "loopDevices": 0,
        "memstats": {
            "Alloc": heap.in_use,
            "HeapAlloc": heap.in_use,
            "HeapIdle": heap.idle,
            "HeapInuse": heap.in_use,
            "HeapSys": heap.obtained,
            "Sys": heap.obtained,
        },
        "numCPUS": std::thread::available_parallelism().map_or(1, usize::from),
        // What runs beside each other here: the runtime's tasks, and threads.
        "numGoRoutines": gardener.tasks() + threads,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn levels_are_words_letters_and_numbers() {
        let set = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&set);
        let verbosity: SetVerbosity = Arc::new(move |level| heard.lock().unwrap().push(level));
        for body in ["debug", "D\n", "0", " Info ", "2", "error", "f"] {
            assert_eq!(
                set_verbosity("PUT", body.as_bytes(), &verbosity).status,
                "200 OK",
                "{body}"
            );
        }
        use Verbosity::{Debug, Error, Fatal, Info, Warn};
        assert_eq!(*set.lock().unwrap(), [Debug, Debug, Debug, Info, Warn, Error, Fatal]);
        for (method, body) in [("GET", "debug"), ("PUT", ""), ("POST", "loud"), ("PUT", "\u{fffd}")]
        {
            let refused = set_verbosity(method, body.as_bytes(), &verbosity);
            assert_eq!(refused.status, "400 Bad Request", "{method} {body}");
        }
        assert_eq!(set.lock().unwrap().len(), 7, "what is refused changes nothing");
    }
}
