//! A NATS server, as far as these tests need one: the text protocol over a local bus.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::HashMap;
use std::io;

use bus::{Bus, Servers};
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

#[derive(Debug)]
pub struct Server {
    address: String,
    cut: broadcast::Sender<()>,
    accepting: tokio::task::JoinHandle<()>,
    /// What clients say and hear, whether they are connected or not.
    pub bus: Bus,
}

/// An address where nobody listens.
pub async fn unused() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Server {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cut, _) = broadcast::channel(1);
        let cuts = cut.clone();
        let bus = Bus::local();
        let all = bus.clone();
        let accepting = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (bus, mut cut) = (all.clone(), cuts.subscribe());
                clients.spawn(async move {
                    tokio::select! {
                        _ = serve(stream, bus) => {}
                        _ = cut.recv() => {}
                    }
                });
            }
        });
        Self { address, cut, accepting, bus }
    }

    pub fn servers(&self) -> Servers {
        Servers {
            addresses: vec![format!("nats://{}", self.address)],
            login: Some(("nats".into(), "nats-pass".into())),
            tls: None,
        }
    }

    /// Cuts the connections there are.
    pub fn cut(&self) {
        let _ = self.cut.send(());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, bus: Bus) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    writing
        .write_all(b"INFO {\"server_id\":\"T\",\"server_name\":\"T\",\"version\":\"2.10.22\",\"proto\":1,\"go\":\"\",\"host\":\"127.0.0.1\",\"port\":4222,\"headers\":true,\"auth_required\":true,\"max_payload\":1048576,\"client_id\":5,\"client_ip\":\"127.0.0.1\"} \r\n")
        .await?;
    let (lines, mut written) = mpsc::unbounded_channel::<Vec<u8>>();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(bytes) = written.recv().await {
            if writing.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    let mut subscriptions = HashMap::new();
    let mut reading = BufReader::new(reading);
    let mut line = String::new();
    loop {
        line.clear();
        if reading.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["PING"] => drop(lines.send(b"PONG\r\n".to_vec())),
            ["SUB", subject, number] => {
                let mut subscription = bus.subscribe(subject).await.unwrap();
                let (number, lines) = (number.to_owned(), lines.clone());
                let task = tasks.spawn({
                    let number = number.clone();
                    async move {
                        while let Some(message) = subscription.next().await {
                            let reply = message.reply.map(|reply| reply + " ").unwrap_or_default();
                            let mut bytes = format!(
                                "MSG {} {number} {reply}{}\r\n",
                                message.subject,
                                message.payload.len()
                            )
                            .into_bytes();
                            bytes.extend_from_slice(&message.payload);
                            bytes.extend_from_slice(b"\r\n");
                            if lines.send(bytes).is_err() {
                                break;
                            }
                        }
                    }
                });
                subscriptions.insert(number, task);
            }
            ["UNSUB", number, ..] => {
                if let Some(task) = subscriptions.remove(number) {
                    task.abort();
                }
            }
            ["PUB", subject, ref reply @ .., length] => {
                let mut payload = vec![0; length.parse::<usize>().unwrap() + 2];
                reading.read_exact(&mut payload).await?;
                payload.truncate(payload.len() - 2);
                let payload = Bytes::from(payload);
                match reply {
                    [reply] => bus.publish_with_reply(subject, reply, payload).await.unwrap(),
                    _ => bus.publish(subject, payload).await.unwrap(),
                }
            }
            _ => {}
        }
    }
}
