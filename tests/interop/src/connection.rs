//! A connection of a replay, and how far it has come.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::message::{Hijack, Spoken};

/// How long the other side may leave bytes unread.
const PATIENCE: Duration = Duration::from_secs(15);

/// What has come on a connection.
#[derive(Debug, Default)]
pub struct Received {
    /// In order.
    pub bytes: Vec<u8>,
    /// Nothing more will come.
    pub closed: bool,
}

/// One end of a connection, read by a thread of its own.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    received: Arc<(Mutex<Received>, Condvar)>,
    /// What this end has sent.
    pub sent: Vec<u8>,
}

impl Connection {
    /// Connects to a server.
    pub fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        Self::over(stream)
    }

    /// A connection that is open.
    pub fn over(stream: UnixStream) -> anyhow::Result<Self> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reading = stream.try_clone()?;
        let received = Arc::<(Mutex<Received>, Condvar)>::default();
        let shared = Arc::clone(&received);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                // A reset is an end as good as any.
                let length = reading.read(&mut buffer).unwrap_or(0);
                let mut received = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                received.bytes.extend_from_slice(&buffer[..length]);
                received.closed = length == 0;
                shared.1.notify_all();
                if length == 0 {
                    break;
                }
            }
        });
        Ok(Self { stream, received, sent: Vec::new() })
    }

    /// What has come so far.
    pub fn look(&self) -> MutexGuard<'_, Received> {
        self.received.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something holds of what has come; whether it does.
    pub fn wait(&self, deadline: Instant, holds: impl Fn(&Received) -> bool) -> bool {
        let mut received = self.look();
        loop {
            if holds(&received) {
                return true;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            let waited = self.received.1.wait_timeout(received, left);
            received = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends bytes, if the other side takes them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        // The other side may be gone, as it was in some recordings; what it said is compared.
        let _ = self.stream.write_all(bytes);
    }

    /// Ends one direction or both.
    pub fn shutdown(&self, how: Shutdown) {
        // That of a connection that has ended is no loss.
        let _ = self.stream.shutdown(how);
    }
}

/// How far a side has come on a connection: whole messages, then frames or bytes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress(usize, usize);

/// How far it has come.
pub fn progress(spoken: &Spoken) -> Progress {
    let whole = spoken.messages.iter().filter(|message| message.complete).count();
    let raw = spoken.raw.as_ref().map_or(0, |raw| match raw.hijack {
        Hijack::Control => raw.bytes.iter().filter(|byte| **byte == b'\n').count(),
        Hijack::Stream => raw.bytes.len(),
    });
    Progress(whole, raw)
}
