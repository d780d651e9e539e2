//! Waiting for links to go. The kernel removes a veth pair with the network namespace of its peer,
//! many at a time; asking it to delete one takes tens of milliseconds, so that is done only to a
//! link that stays.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::link;
use crate::networker::Shared;
use crate::socket::Socket;
use crate::subnets::Lease;

/// After which time somebody else must be holding the namespace.
const STAYS: Duration = Duration::from_secs(3);
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A link on its way out, and what is free once it is gone.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    link: String,
    pub(crate) lease: Option<Lease>,
    /// Of the pool.
    pub(crate) ports: Vec<u16>,
    since: Instant,
}

impl Leaving {
    pub(crate) fn new(link: String, lease: Option<Lease>, ports: Vec<u16>) -> Self {
        Self { link, lease, ports, since: Instant::now() }
    }
}

/// Watches leaving links until the networker closes.
pub(crate) fn start(shared: Arc<Shared>, socket: Socket) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("links".into()).spawn(move || watch(&shared, socket))
}

fn watch(shared: &Shared, mut socket: Socket) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let mut state = shared.state();
        while state.leaving.is_empty() && !state.closing {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            pause = SHORTEST_PAUSE;
        }
        if state.closing {
            return;
        }
        let leaving = state.leaving.clone();
        drop(state);
        let gone: Vec<bool> = leaving.iter().map(|link| is_gone(&mut socket, link)).collect();
        let mut state = shared.state();
        // New ones have come at the end at most: nobody else takes any out.
        let mut gone = gone.into_iter();
        let mut freed = Vec::new();
        state.leaving.retain(|link| {
            let stays = !gone.next().unwrap_or(false);
            if !stays {
                freed.push(link.clone());
            }
            stays
        });
        freed.iter().for_each(|link| state.free(link));
        if freed.is_empty() {
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            pause = SHORTEST_PAUSE;
            shared.changed.notify_all();
        }
        if !state.closing {
            let waited = shared.changed.wait_timeout(state, pause);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn is_gone(socket: &mut Socket, leaving: &Leaving) -> bool {
    let found = link::find(socket, &leaving.link);
    if matches!(found, Ok(Some(_))) && leaving.since.elapsed() > STAYS {
        tracing::warn!(link = leaving.link, "its namespace does not go; deleting the link");
        if let Err(error) = link::delete(socket, &leaving.link) {
            tracing::warn!(link = leaving.link, %error, "a link is not deleted");
        }
        return matches!(link::find(socket, &leaving.link), Ok(None));
    }
    matches!(found, Ok(None))
}
