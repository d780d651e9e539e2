//! Tokens of attaches: who has one may fetch the attach's output on other connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Shared, watch};

use crate::process::Output;

/// How long a token is good after its process has ended, so that a client slower than the process
/// still gets all output.
const AFTER_THE_END: Duration = Duration::from_secs(60);

/// One attach's output. Connections that share a token share the queues: each piece goes to one.
#[derive(Debug)]
pub(super) struct Outputs {
    /// Of stdout and stderr.
    pub queues: [Shared<Output>; 2],
    /// The attach's client has gone, and its streams with it.
    pub cut: watch::Sender<bool>,
}

/// All tokens of a server.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    issued: AtomicU64,
    outputs: Mutex<HashMap<String, Arc<Outputs>>>,
}

impl Tokens {
    fn outputs(&self) -> MutexGuard<'_, HashMap<String, Arc<Outputs>>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Issues a token: a decimal number, from 1, as the original's are.
    pub(super) fn issue(self: &Arc<Self>, outputs: (Output, Output)) -> Ticket {
        let token = (self.issued.fetch_add(1, Ordering::Relaxed) + 1).to_string();
        let queues = [Shared::new(outputs.0), Shared::new(outputs.1)];
        let outputs = Arc::new(Outputs { queues, cut: watch::Sender::new(false) });
        self.outputs().insert(token.clone(), Arc::clone(&outputs));
        Ticket { tokens: Arc::clone(self), token, outputs, ended: false }
    }

    /// The output behind a token that is still good.
    pub(super) fn find(&self, token: &str) -> Option<Arc<Outputs>> {
        self.outputs().get(token).cloned()
    }

    fn withdraw(&self, token: &str) {
        self.outputs().remove(token);
    }
}

/// An attach's hold on its token. Dropped before the end, it closes the attach's streams at once.
#[derive(Debug)]
pub(super) struct Ticket {
    tokens: Arc<Tokens>,
    pub token: String,
    outputs: Arc<Outputs>,
    ended: bool,
}

impl Ticket {
    /// The process has ended: streams go on to the end of the output, and new ones may come for a
    /// minute.
    pub(super) fn end(mut self) {
        self.ended = true;
        let (tokens, token) = (Arc::clone(&self.tokens), self.token.clone());
        tokio::spawn(async move {
            tokio::time::sleep(AFTER_THE_END).await;
            tokens.withdraw(&token);
        });
    }
}

impl Ticket {
    /// The client has gone: its streams are closed at once, and no more may come.
    pub(super) fn cut(&self) {
        self.tokens.withdraw(&self.token);
        self.outputs.cut.send_replace(true);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            self.cut();
        }
    }
}
