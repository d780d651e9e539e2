//! The plot's Garden on its socket, and clients that speak to it byte by byte.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use bloomery_garden::config::Listen;
use bloomery_garden::server::{self, Listener, Settings};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{PATIENCE, Plot};

/// A server that runs.
pub struct Server {
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Plot {
    /// Begins to serve on the plot's socket.
    pub fn serve(&mut self) {
        self.serve_as(Settings::default());
    }

    pub fn serve_as(&mut self, settings: Settings) {
        assert!(self.server.is_none(), "one server at a time");
        let (stop, stopped) = watch::channel(false);
        let listener = {
            let _runtime = self.runtime.enter();
            Listener::bind(&self.config.listen).unwrap()
        };
        let garden = Arc::clone(self.garden());
        let serving = self.runtime.spawn(server::serve(listener, garden, settings, stopped));
        self.server = Some(Server { stop, serving });
    }

    /// Tells the server to stop, and does not wait.
    pub fn begin_stop(&self) {
        self.server.as_ref().unwrap().stop.send_replace(true);
    }

    /// Stops the server and waits for its end.
    pub fn stop_serving(&mut self) {
        let Some(Server { stop, serving }) = self.server.take() else { return };
        stop.send_replace(true);
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE * 2, serving).await })
            .expect("the server stops")
            .unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        match &self.config.listen {
            Listen::Unix { path, .. } => path.clone(),
            Listen::Tcp(_) => panic!("a plot listens on a unix socket"),
        }
    }

    pub fn connect(&self) -> Peer {
        let socket = UnixStream::connect(self.socket()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Peer { socket, ahead: Vec::new() }
    }

    /// One plain call on a connection of its own, as the official client makes it.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut peer = self.connect();
        let length = body.len();
        peer.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {length}\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\r\n{body}"
        ));
        let answer = peer.response();
        assert_eq!(peer.rest(), "", "the server closes after its answer");
        answer
    }

    /// Starts a shell script; its control connection and its token.
    pub fn run_sh(&self, handle: &str, id: &str, script: &str) -> (Peer, String) {
        let mut peer = self.connect();
        let spec = serde_json::json!({"id": id, "path": "/bin/sh", "args": ["-c", script]});
        peer.request("POST", &format!("/containers/{handle}/processes"), &spec.to_string());
        let token = peer.opened("201 Created", id);
        (peer, token)
    }

    /// Attaches to a process; the control connection and the token.
    pub fn attach_to(&self, handle: &str, id: &str) -> (Peer, String) {
        let mut peer = self.connect();
        peer.request("GET", &format!("/containers/{handle}/processes/{id}"), "");
        let token = peer.opened("200 OK", id);
        (peer, token)
    }

    /// Opens an attach's stdout or stderr.
    pub fn stream(&self, handle: &str, id: &str, token: &str, stream: &str) -> Peer {
        let mut peer = self.connect();
        peer.request(
            "GET",
            &format!("/containers/{handle}/processes/{id}/attaches/{token}/{stream}"),
            "",
        );
        let head = peer.head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{head}");
        assert!(head.ends_with(" GMT\r\nTransfer-Encoding: chunked\r\n\r\n"), "{head}");
        peer
    }
}

/// A client's side of a connection.
pub struct Peer {
    socket: UnixStream,
    ahead: Vec<u8>,
}

impl Peer {
    pub fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).unwrap();
    }

    /// Sends as much as the server takes; whether that was all.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    pub fn request(&mut self, method: &str, path: &str, body: &str) {
        let length = body.len();
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {length}\r\n\
             Content-Type: application/json\r\n\r\n{body}"
        ));
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        let length = loop {
            match self.socket.read(&mut buffer) {
                // With a time-out a read is not restarted (signal(7)).
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.expect("the server answers in time"),
            }
        };
        self.ahead.extend_from_slice(&buffer[..length]);
        length > 0
    }

    /// Everything up to and with `end`.
    pub fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.ahead.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let rest = self.ahead.split_off(at + end.len());
                let taken = std::mem::replace(&mut self.ahead, rest);
                return String::from_utf8(taken).unwrap();
            }
            assert!(self.fill(), "{:?} and no {end:?}", String::from_utf8_lossy(&self.ahead));
        }
    }

    pub fn line(&mut self) -> String {
        self.until("\n")
    }

    pub fn head(&mut self) -> String {
        self.until("\r\n\r\n")
    }

    /// A whole response: its status and its body.
    pub fn response(&mut self) -> (u16, String) {
        let head = self.head();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = if head.contains("\r\nTransfer-Encoding: chunked\r\n") {
            let mut body = String::new();
            loop {
                let size = self.until("\r\n");
                let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
                body.push_str(&self.exactly(size));
                assert_eq!(self.exactly(2), "\r\n");
                if size == 0 {
                    break body;
                }
            }
        } else {
            let length = head.split("\r\nContent-Length: ").nth(1).expect("a length");
            self.exactly(length.split("\r\n").next().unwrap().parse().unwrap())
        };
        (status, body)
    }

    pub fn exactly(&mut self, length: usize) -> String {
        while self.ahead.len() < length {
            assert!(self.fill(), "{:?} and no more", String::from_utf8_lossy(&self.ahead));
        }
        let rest = self.ahead.split_off(length);
        String::from_utf8(std::mem::replace(&mut self.ahead, rest)).unwrap()
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8(std::mem::take(&mut self.ahead)).unwrap()
    }

    /// The head of a hijacked call, exactly, and the first frame; the token in it.
    fn opened(&mut self, status: &str, id: &str) -> String {
        let head = self.head();
        let begin = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nDate: ");
        assert!(head.starts_with(&begin), "{head}{:?}", String::from_utf8_lossy(&self.ahead));
        assert!(head.ends_with(" GMT\r\nTransfer-Encoding: chunked\r\n\r\n"), "{head}");
        let first = self.line();
        let token = first
            .strip_prefix(&format!("{{\"process_id\":\"{id}\",\"stream_id\":\""))
            .and_then(|rest| rest.strip_suffix("\"}\n"))
            .unwrap_or_else(|| panic!("{first}"));
        token.to_owned()
    }

    /// The final frame, and nothing behind it.
    pub fn exit_status(&mut self) -> u32 {
        let frames = self.rest();
        let status =
            frames.split("\"exit_status\":").nth(1).unwrap_or_else(|| panic!("{frames:?}"));
        status.strip_suffix("}\n").unwrap_or_else(|| panic!("{frames:?}")).parse().unwrap()
    }

    pub fn half_close(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }
}
