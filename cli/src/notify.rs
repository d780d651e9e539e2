//! What a service tells systemd (sd_notify(3)): it is ready, it ends, it is alive.
//!
//! Without `NOTIFY_SOCKET` nobody is told. That a watchdog is fed is the caller's word that calls are
//! answered, so it says how to find out.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Who is to be told.
#[derive(Debug)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear of us, at least.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says.
    pub fn from_environment() -> io::Result<Self> {
        let manager = match std::env::var_os("NOTIFY_SOCKET") {
            None => None,
            Some(name) => {
                let address = match name.as_bytes() {
                    [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                    _ => SocketAddr::from_pathname(&name)?,
                };
                let socket = UnixDatagram::unbound()?;
                // A manager that does not read must not stop us.
                socket.set_nonblocking(true)?;
                Some((socket, address))
            }
        };
        let number = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0);
        Ok(Self { manager, watchdog: watchdog.map(Duration::from_micros) })
    }

    /// Tells a state, lines of `NAME=value`.
    pub fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.manager
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::warn!(state, %error, "the service manager cannot be told");
        }
    }

    /// Feeds the watchdog for as long as `answers` comes back in time; never ends where there is none.
    pub async fn feed<F: Future<Output = bool>>(&self, answers: impl Fn() -> F) {
        let Some(watchdog) = self.watchdog.filter(|_| self.manager.is_some()) else {
            return std::future::pending().await;
        };
        // sd_watchdog_enabled(3) recommends half of the time.
        let mut turns = tokio::time::interval(watchdog / 2);
        loop {
            turns.tick().await;
            if answers().await {
                self.tell("WATCHDOG=1");
            }
        }
    }
}
