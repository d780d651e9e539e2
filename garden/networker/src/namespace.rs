//! Work inside another network namespace.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `work` in a network namespace (setns(2)), on a thread that ends with it: no other work can
/// ever find itself in a container's network.
pub(crate) fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let worker = move || {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
        work()
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, worker)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
