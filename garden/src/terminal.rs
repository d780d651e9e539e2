//! Terminals: a pseudoterminal of the container's own devpts, opened from outside.
//!
//! The container's root owns everything on the way to its `/dev/pts/ptmx`, so the path is resolved
//! inside the container's root without symbolic links, and what is found is checked to be devpts's
//! multiplexer before it is used.

use std::fs::File;
use std::os::fd::OwnedFd;

use garden_api::WindowSize;
use rustix::fs::{Mode, OFlags, ResolveFlags, Uid, fchown, fstat, fstatfs, major, minor, openat2};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

/// `f_type` of devpts (statfs(2)).
const DEVPTS_MAGIC: u64 = 0x1cd1;
/// `/dev/ptmx` and `/dev/pts/ptmx` (pts(4)).
const MULTIPLEXER: (u32, u32) = (5, 2);

/// Both ends of a new terminal.
#[derive(Debug)]
pub struct Terminal {
    /// The daemon's end.
    pub master: OwnedFd,
    /// The process's end.
    pub slave: OwnedFd,
}

/// Opens a terminal in the container whose process 1 is `init` (a pid of the daemon's namespace) and
/// whose root is `owner` on the host.
pub fn open(init: i32, owner: u32, size: WindowSize) -> std::io::Result<Terminal> {
    let root = File::open(format!("/proc/{init}/root"))?;
    let master = openat2(
        &root,
        "dev/pts/ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    let device = fstat(&master)?.st_rdev;
    #[expect(clippy::cast_sign_loss, reason = "f_type is a bit pattern")]
    let file_system = fstatfs(&master)?.f_type as u64;
    if file_system != DEVPTS_MAGIC || (major(device), minor(device)) != MULTIPLEXER {
        return Err(std::io::Error::other(
            "the container's /dev/pts/ptmx is no terminal multiplexer",
        ));
    }
    unlockpt(&master)?;
    let slave =
        ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    fchown(&slave, Some(Uid::from_raw(owner)), None)?;
    resize(&master, size)?;
    Ok(Terminal { master, slave })
}

/// Tells a terminal its size; a missing dimension becomes the default. Answers whether that changed
/// anything: if so, the kernel has told the foreground processes.
pub fn resize(master: impl std::os::fd::AsFd, size: WindowSize) -> std::io::Result<bool> {
    let size = size.or_default();
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    let old = tcgetwinsize(&master)?;
    tcsetwinsize(master, size)?;
    Ok((old.ws_row, old.ws_col) != (size.ws_row, size.ws_col))
}
