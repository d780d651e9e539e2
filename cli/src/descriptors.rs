//! How many descriptors this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For a thousand containers with a process each.
const PLENTY: u64 = 10_000;

/// Raises the limit as far as is allowed: shells and service managers give 1,024, for the sake of
/// programs that use select(2), and allow many more. Says so where that is few for a Garden.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of descriptors cannot be raised");
    }
    if let Some(limit) = limit.maximum.filter(|limit| *limit < PLENTY) {
        tracing::warn!(
            limit,
            "few descriptors (ulimit -Hn): each container with a process takes eight to ten of them"
        );
    }
}
