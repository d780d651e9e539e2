//! Bearing that Garden is away: one that is started again has its containers and processes still.

use std::time::Duration;

use bloomery_garden::client::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::steps::{chain, go_duration};

/// Before the next try: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// For a call.
pub(crate) const OF_CALLS: Duration = Duration::from_secs(60);
/// For a process that runs meanwhile, whose end is known only to Garden.
pub(crate) const OF_PROCESSES: Duration = Duration::from_secs(600);

/// One call's patience with a Garden that is away.
///
/// A call whose connection broke may have been carried out: it is for the caller to know whether it
/// may be repeated ([`Self::answer`]) or what else is to be done first ([`Self::bear`]).
#[derive(Debug)]
pub(crate) struct Absence<'a> {
    handle: &'a str,
    limit: Duration,
    stop: Option<&'a CancellationToken>,
    since: Option<Instant>,
    pause: Duration,
}

impl<'a> Absence<'a> {
    /// None yet. `handle`: whom the call is about.
    pub(crate) fn new(handle: &'a str, limit: Duration) -> Self {
        Self { handle, limit, stop: None, since: None, pause: PAUSES.0 }
    }

    /// The same, which ends when `stop` is cancelled.
    pub(crate) fn until(self, stop: &'a CancellationToken) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// What Garden answers to a call that may be repeated.
    pub(crate) async fn answer<T, F>(mut self, mut call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        loop {
            match call().await {
                Err(error) => self.bear(error).await?,
                answer => return answer,
            }
        }
    }

    /// Returns when it is time to try again; at once with the error if that says that Garden has
    /// answered, if it has been away for too long or if there is no reason to wait any more.
    pub(crate) async fn bear(&mut self, error: Error) -> Result<(), Error> {
        if !is_away(&error) {
            return Err(error);
        }
        let since = *self.since.get_or_insert_with(|| {
            let error = chain(&error);
            tracing::warn!(handle = self.handle, error, "Garden is away: it is asked again");
            Instant::now()
        });
        if since.elapsed() >= self.limit {
            let waited = go_duration(Duration::from_secs(since.elapsed().as_secs()));
            tracing::error!(handle = self.handle, waited, "Garden does not come back");
            return Err(error);
        }
        let pause = tokio::time::sleep(self.pause);
        let is_over = match self.stop {
            Some(stop) => stop.run_until_cancelled(pause).await.is_some(),
            None => {
                pause.await;
                true
            }
        };
        if !is_over {
            return Err(error);
        }
        self.pause = (self.pause * 2).min(PAUSES.1);
        Ok(())
    }
}

/// Whether an error says that there was no Garden, not what it has said.
pub(crate) fn is_away(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Broken { .. } | Error::Disconnected { .. } => true,
        Error::NoStream { source, .. } => is_away(source),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bloomery_garden::client::{Address, Client};

    use super::*;

    fn unreachable() -> Error {
        let source = std::io::ErrorKind::ConnectionRefused.into();
        Error::Unreachable { call: "Ping", address: Address::Unix("./nowhere".into()), source }
    }

    #[tokio::test]
    async fn pauses_grow_and_have_an_end() {
        const LIMIT: Duration = Duration::from_millis(300);
        let begun = Instant::now();
        let mut absence = Absence::new("a", LIMIT);
        let mut tries = 0;
        let error = loop {
            match absence.bear(unreachable()).await {
                Ok(()) => tries += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(begun.elapsed() >= LIMIT);
        // 50, 100 and 200 ms.
        assert!(tries <= 3, "{tries}");
    }

    #[tokio::test]
    async fn who_is_told_to_stop_does_not_wait() {
        let stop = CancellationToken::new();
        stop.cancel();
        let mut absence = Absence::new("a", OF_CALLS).until(&stop);
        absence.bear(unreachable()).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_answer_ends_it() {
        let mut absence = Absence::new("a", OF_CALLS);
        let error = absence.bear(Error::Plain("no".into())).await.unwrap_err();
        assert!(matches!(error, Error::Plain(_)), "{error}");
        // What the client says of a server that is not there is borne.
        let nowhere = Client::new(Address::Unix("/nowhere/garden.sock".into()));
        absence.bear(nowhere.ping().await.unwrap_err()).await.unwrap();
    }
}
