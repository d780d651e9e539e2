//! How slow a client may be in a transfer.

use std::io;
use std::time::{Duration, Instant};

/// Bytes after which a client has its patience anew, so that a transfer may last as long as it moves
/// and a trickle is none.
const PROGRESS: usize = 128 * 1024;

/// What is left of the patience with a client. It is used up by waiting for the client alone, never
/// by what its container takes.
#[derive(Debug)]
pub(super) struct Pace {
    patience: Duration,
    left: Duration,
    moved: usize,
}

impl Pace {
    /// The client may take `patience` for each [`PROGRESS`] bytes.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, left: patience, moved: 0 }
    }

    /// Waits for the client; `TimedOut` when its time is over.
    pub(super) async fn wait<T>(
        &mut self,
        client: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let begun = Instant::now();
        let done = tokio::time::timeout(self.left, client).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        done.unwrap_or_else(|_| {
            let patience = self.patience;
            let slow = format!("{PROGRESS} bytes took the client more than {patience:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, slow))
        })
    }

    /// So many bytes have come from the client or gone to it.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved += bytes;
        if self.moved >= PROGRESS {
            *self = Self::new(self.patience);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_is_waited_for_as_long_as_it_moves_enough() {
        let piece = || async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(())
        };
        let mut fast = Pace::new(Duration::from_millis(200));
        for _ in 0..20 {
            fast.wait(piece()).await.unwrap();
            fast.moved(PROGRESS);
        }
        let mut slow = Pace::new(Duration::from_millis(200));
        let mut moved = 0;
        let error = loop {
            match slow.wait(piece()).await {
                Ok(()) => slow.moved(1),
                Err(error) => break error,
            }
            moved += 1;
        };
        assert!(moved < 10, "{moved} bytes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "131072 bytes took the client more than 200ms");
    }
}
