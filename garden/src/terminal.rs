//! Terminals: a pseudoterminal of the container's or the pea's own devpts, opened from outside.
//!
//! The container's root owns everything on the way to its `/dev/pts/ptmx`, so the path is resolved
//! inside the container's root without symbolic links, and what is found is checked to be devpts's
//! multiplexer before it is used. A pea's devpts is made here, before anybody else has seen it.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use garden_api::WindowSize;
use garden_sys::terminals;
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchown, fstat, fstatfs, major, minor,
    openat, openat2,
};
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

const MASTER: OFlags =
    OFlags::RDWR.union(OFlags::NOCTTY).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// A detached devpts whose files belong to `owner`, a host's id.
pub fn file_system(owner: u32) -> std::io::Result<OwnedFd> {
    let terminals = terminals::file_system()?;
    let (user, group) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    chownat(&terminals, "", user, group, AtFlags::EMPTY_PATH)?;
    chownat(&terminals, "ptmx", user, group, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(terminals)
}

/// The master of a new terminal in [`file_system`].
pub fn master_in(terminals: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    Ok(openat(terminals, "ptmx", MASTER, Mode::empty())?)
}

/// The master of a new terminal in the container whose process 1 is `init` (a pid of the daemon's
/// namespace).
pub fn master_of(init: i32) -> std::io::Result<OwnedFd> {
    let root = File::open(format!("/proc/{init}/root"))?;
    let master = openat2(
        &root,
        "dev/pts/ptmx",
        MASTER,
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
    Ok(master)
}

/// The terminal of a master, whose process's root is `owner` on the host.
pub fn open(master: OwnedFd, owner: u32, size: WindowSize) -> std::io::Result<Terminal> {
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
