//! Clients that ask an app while something happens to what serves it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::within;

/// So many ask the app at a time. A killed router may lose what each of them has in flight.
pub const CLIENTS: usize = 4;

/// How many answers clients get at least.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Before anything happens.
    pub before: u64,
    /// After it has happened.
    pub after: u64,
    /// How long either may take.
    pub patience: Duration,
}

/// What clients have seen.
#[derive(Debug, Default)]
pub struct Seen {
    answers: AtomicU64,
    lost: Mutex<Vec<String>>,
    lives: Mutex<BTreeSet<String>>,
    slowest: Mutex<Duration>,
}

impl Seen {
    /// How many answers there were.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::SeqCst)
    }

    /// What was said in place of answers.
    pub fn lost(&self) -> Vec<String> {
        self.lost.lock().unwrap().clone()
    }

    /// What the app's processes that answered call their lives.
    pub fn lives(&self) -> BTreeSet<String> {
        self.lives.lock().unwrap().clone()
    }

    /// The longest that a client has waited.
    pub fn slowest(&self) -> Duration {
        *self.slowest.lock().unwrap()
    }

    fn take(&self, asked: Result<String, String>, took: Duration) {
        match asked {
            Ok(life) => {
                self.lives.lock().unwrap().insert(life);
                self.answers.fetch_add(1, Ordering::SeqCst);
            }
            Err(instead) => self.lost.lock().unwrap().push(instead),
        }
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = (*slowest).max(took);
    }
}

/// Clients ask an app while something happens, and for a while after that. `ask` gives the life of the
/// process that answers.
pub fn meanwhile(
    ask: impl Fn() -> Result<String, String> + Sync,
    extent: Extent,
    happens: impl FnOnce(),
) -> Seen {
    let seen = Seen::default();
    let is_over = AtomicBool::new(false);
    let client = || {
        while !is_over.load(Ordering::SeqCst) {
            let started = Instant::now();
            seen.take(ask(), started.elapsed());
            // They are users, and no flood.
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let more = |number| {
        let wanted = seen.answers() + number;
        within(extent.patience, "clients get answers", || {
            let now = seen.answers();
            if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted}: {seen:?}")) }
        });
    };
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        for _ in 0..CLIENTS {
            scope.spawn(client);
        }
        more(extent.before);
        happens();
        more(extent.after);
    });
    seen
}

/// Clients end with it, however what they wait for ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
