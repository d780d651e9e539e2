//! The router with its bus, and sockets for who speaks with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bus::Bus;
use router::{AccessLog, Config, Listeners, Record};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::normal::Ports;
use crate::authority::Ca;

#[derive(Default)]
pub struct Lines(pub Mutex<Vec<String>>);

impl AccessLog for Lines {
    fn log(&self, record: Record) {
        self.0.lock().unwrap().push(record.to_string());
    }
}

/// A connection of the stage's side.
pub struct Connection {
    pub stream: Arc<TcpStream>,
    pub seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
pub struct Seen {
    pub bytes: Vec<u8>,
    pub ended: bool,
}

impl Connection {
    /// A back end ends its side when the router has.
    pub fn new(stream: TcpStream, is_backend: bool) -> Self {
        let stream = Arc::new(stream);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = tokio::spawn({
            let (stream, seen) = (stream.clone(), seen.clone());
            async move {
                let mut piece = vec![0; 64 << 10];
                loop {
                    let read = match stream.readable().await {
                        Ok(()) => stream.try_read(&mut piece),
                        Err(error) => Err(error),
                    };
                    let mut seen = seen.lock().unwrap();
                    match read {
                        Ok(read @ 1..) => seen.bytes.extend_from_slice(&piece[..read]),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Ok(0) | Err(_) => {
                            seen.ended = true;
                            if is_backend {
                                let _ =
                                    rustix::net::shutdown(&*stream, rustix::net::Shutdown::Write);
                            }
                            return;
                        }
                    }
                }
            }
        });
        Self { stream, seen, reader }
    }

    /// What the other side does not take is its own affair.
    pub async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.stream.writable().await.is_err() {
                return;
            }
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    pub async fn close(self, reset: bool) {
        self.reader.abort();
        let _ = self.reader.await;
        if reset {
            self.stream.set_zero_linger().unwrap();
        }
    }
}

pub struct Stage {
    pub bus: Bus,
    pub log: Arc<Lines>,
    pub ports: Ports,
    addresses: HashMap<String, String>,
    tls: TlsConnector,
    backends: HashMap<u16, u16>,
    silent: Vec<TcpSocket>,
    accepting: mpsc::UnboundedSender<(u16, TcpStream)>,
    accepted: mpsc::UnboundedReceiver<(u16, TcpStream)>,
    registered: Vec<String>,
    tasks: HashMap<u16, JoinHandle<()>>,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), router::Error>>,
}

impl Stage {
    pub async fn set(changes: &Value) -> Self {
        let mut config = json!({
            "status": {"user": "router-status", "pass": "status-pass"},
            "endpoint_timeout": "60s",
            "drain_timeout": "1s",
        });
        merge(&mut config, changes);
        let mut config: Config = serde_json::from_value(config).unwrap();
        let ca = Ca::new();
        let (pem, tls) = (ca.pem(HOST), ca.client());
        config.tls_pem = vec![pem];
        let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (http, https, status, routes) = (bind(), bind(), bind(), bind());
        let names =
            [("router", &http), ("router-tls", &https), ("status", &status), ("routes", &routes)];
        let addresses = names
            .map(|(name, listener)| (name.to_owned(), listener.local_addr().unwrap().to_string()));
        let listeners = Listeners {
            http: vec![http],
            https: vec![https],
            status: Some(status),
            routes: Some(routes),
            filled: None,
        };
        let (bus, log, stop) = (Bus::local(), Arc::<Lines>::default(), CancellationToken::new());
        let mut starts = bus.subscribe("router.start").await.unwrap();
        let serving =
            tokio::spawn(router::serve(config, listeners, bus.clone(), log.clone(), stop.clone()));
        starts.next().await.unwrap();
        let (accepting, accepted) = mpsc::unbounded_channel();
        Self {
            bus,
            log,
            ports: Ports::new(),
            addresses: addresses.into(),
            tls,
            backends: HashMap::new(),
            silent: Vec::new(),
            accepting,
            accepted,
            registered: Vec::new(),
            tasks: HashMap::new(),
            stop,
            serving,
        }
    }

    /// Publishes a recorded message with our ports in it, and waits until the router has taken it.
    pub async fn publish(&mut self, subject: &str, payload: &str) {
        let payload = match serde_json::from_str::<Value>(payload) {
            Ok(mut message) if message.is_object() => {
                for key in ["port", "Port", "tls_port"] {
                    if let Some(port) =
                        message[key].as_u64().and_then(|port| u16::try_from(port).ok())
                    {
                        message[key] = self.backend(port).await.into();
                    } else if message[key].is_null() {
                        message.as_object_mut().unwrap().remove(key);
                    }
                }
                // Duplicate keys and such are read by our router as they came.
                if payload.matches("\"app\"").count() > 1 {
                    payload.to_owned()
                } else {
                    message.to_string()
                }
            }
            _ => payload.to_owned(),
        };
        if subject == "router.register" {
            self.registered.push(payload.clone());
        }
        self.bus.publish(subject, payload).await.unwrap();
        self.bus.request("router.greet", "{}", std::time::Duration::from_secs(30)).await.unwrap();
    }

    /// Takes back all that was registered.
    pub async fn unregister_all(&mut self) {
        for payload in std::mem::take(&mut self.registered) {
            self.bus.publish("router.unregister", payload).await.unwrap();
        }
    }

    /// Our port of a recorded one. At 195xx nothing listens; below 1024 it is the same.
    async fn backend(&mut self, recorded: u16) -> u16 {
        if recorded < 1024 {
            return recorded;
        }
        if let Some(ours) = self.backends.get(&recorded) {
            return *ours;
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let ours = socket.local_addr().unwrap().port();
        self.backends.insert(recorded, ours);
        self.ports.insert(ours, recorded);
        if recorded / 100 == 195 || recorded == 19009 {
            self.silent.push(socket);
            return ours;
        }
        let listener: TcpListener = socket.listen(64).unwrap();
        let accepted = self.accepting.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if accepted.send((recorded, stream)).is_err() {
                    return;
                }
            }
        });
        self.tasks.insert(recorded, task);
        ours
    }

    /// A back end stops listening.
    pub async fn silence(&mut self, recorded: u16) {
        if let Some(task) = self.tasks.remove(&recorded) {
            task.abort();
            let _ = task.await;
        }
    }

    pub async fn connect(&self, to: &str) -> Connection {
        let stream = TcpStream::connect(&self.addresses[to]).await.unwrap();
        let stream = if to == "router-tls" { self.encrypted(stream).await } else { stream };
        Connection::new(stream, false)
    }

    /// A connection whose bytes go through this one as TLS.
    async fn encrypted(&self, stream: TcpStream) -> TcpStream {
        let name = ServerName::try_from(HOST).unwrap();
        let mut encrypted = self.tls.connect(name, stream).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut passed, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            // Either side may leave without a word.
            let _ = tokio::io::copy_bidirectional(&mut passed, &mut encrypted).await;
        });
        plain
    }

    /// A connection that the router has made since, with the recorded port.
    pub fn accepted(&mut self) -> Option<(u16, Connection)> {
        let (port, stream) = self.accepted.try_recv().ok()?;
        Some((port, Connection::new(stream, true)))
    }

    pub async fn clear(self) {
        self.stop.cancel();
        self.tasks.values().for_each(JoinHandle::abort);
        self.serving.await.unwrap().unwrap();
    }
}

/// Who clients with TLS ask.
const HOST: &str = "app.example.com";

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, changes) => *into = changes.clone(),
    }
}
