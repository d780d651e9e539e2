//! What can go wrong with a cgroup.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a cgroup is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root's name is not one directory name of its own.
    #[error("{0:?} cannot name a cgroup")]
    BadName(String),
    /// Processes are born into a v2 cgroup and killed by it, on every host.
    #[error("no cgroup v2 hierarchy is mounted at or below {}", .0.display())]
    NoUnified(PathBuf),
    /// Another process has claimed it.
    #[error("cgroup {}: another process has claimed it", .path.display())]
    InUse {
        /// The root.
        path: PathBuf,
        /// For whom; absent for as long as it has not said so.
        owner: Option<PathBuf>,
    },
    /// It has slots of another owner, whose process is gone.
    #[error("cgroup {}: what is in it belongs to {}", .path.display(), .owner.display())]
    Owned {
        /// The root.
        path: PathBuf,
        /// Whose it is.
        owner: PathBuf,
    },
    /// The kernel refused something.
    #[error("cgroup {}: cannot {action}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A file of the kernel does not read as documented.
    #[error("cgroup file {} reads {text:?}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it says, cut to a line.
        text: String,
    },
    /// Processes survived, mostly in uninterruptible sleep.
    #[error("cgroup {}: not empty {waited:?} after SIGKILL", .path.display())]
    NotEmpty {
        /// The slot's directory.
        path: PathBuf,
        /// How long it was given.
        waited: Duration,
    },
    /// Directories below the slot are nested deeper than any honest use.
    #[error("cgroup {}: too many levels below it", .0.display())]
    TooDeep(PathBuf),
    /// The device filter was not taken.
    #[error("cannot {action} the device filter")]
    Devices {
        /// What was attempted.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The notification interface failed.
    #[error("cannot {action}")]
    Watch {
        /// What was attempted.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl Error {
    /// Whether the cgroup or file is not there (any more).
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_gone(source),
            _ => false,
        }
    }
}

/// A removed cgroup's open files answer `ENODEV`.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV))
}
