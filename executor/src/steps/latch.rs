//! Something that happens once, and that anybody may wait for.

use futures_util::future::join_all;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Closed until it is opened; then open for ever. Clones are the same latch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latch(CancellationToken);

impl Latch {
    pub(crate) fn open(&self) {
        self.0.cancel();
    }

    pub(crate) fn opened(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }

    /// Waits for `work`, and meanwhile opens `whole` when all of `parts` are open.
    pub(crate) async fn when_all<T>(
        parts: &[Self],
        whole: &Self,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(work);
        let all = join_all(parts.iter().map(Self::opened));
        tokio::select! {
            biased;
            output = &mut work => return output,
            _ = all => whole.open(),
        }
        work.await
    }
}
