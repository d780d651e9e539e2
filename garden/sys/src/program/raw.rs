//! System calls without a C library, for code that runs between clone(2) and execve(2) and for the
//! static programs, which have no C library at all.
//!
//! Every function is one system call (x86_64 calling convention of the kernel's
//! `Documentation/arch/x86/entry_64.rst`) and returns the kernel's answer: `Err` carries the
//! errno. Nothing here allocates, locks or touches thread-local state, so all of it may be called
//! in a child that shares nothing but a copy of its parent's memory.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("Bloomery's supervisor knows only the x86_64 system call convention so far");

mod connector;
mod descriptors;
mod endings;
mod events;
mod files;
mod memory;
mod mounts;
mod privileges;
mod processes;
mod sockets;

use core::arch::asm;

pub use connector::*;
pub use descriptors::*;
pub use endings::*;
pub use events::*;
pub use files::*;
pub use memory::*;
pub use mounts::*;
pub use privileges::*;
pub use processes::*;
pub use sockets::*;

/// A positive errno(3) value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Operation not permitted.
    pub const EPERM: Self = Self(1);
    /// No such file or directory.
    pub const ENOENT: Self = Self(2);
    /// Interrupted by a signal.
    pub const EINTR: Self = Self(4);
    /// Bad descriptor.
    pub const EBADF: Self = Self(9);
    /// Nobody is at the other end any more.
    pub const EPIPE: Self = Self(32);
    /// The other end was closed with something unread.
    pub const ECONNRESET: Self = Self(104);
    /// No such process.
    pub const ESRCH: Self = Self(3);
    /// No child to wait for.
    pub const ECHILD: Self = Self(10);
    /// Would block.
    pub const EAGAIN: Self = Self(11);
    /// Permission denied.
    pub const EACCES: Self = Self(13);
    /// Exists already.
    pub const EEXIST: Self = Self(17);
    /// Not a directory.
    pub const ENOTDIR: Self = Self(20);
    /// Is a directory.
    pub const EISDIR: Self = Self(21);
    /// Invalid argument.
    pub const EINVAL: Self = Self(22);
    /// Too long.
    pub const E2BIG: Self = Self(7);
    /// Out of memory.
    pub const ENOMEM: Self = Self(12);
    /// Busy.
    pub const EBUSY: Self = Self(16);
    /// The kernel had to drop what nobody read in time.
    pub const ENOBUFS: Self = Self(105);
    /// No space (here: a table of ours is full).
    pub const ENOSPC: Self = Self(28);
    /// Symbolic links that lead in a circle, or where they must not.
    pub const ELOOP: Self = Self(40);
    /// Protocol error: a message that the other side must not send.
    pub const EPROTO: Self = Self(71);
}

/// What a system call returns.
pub type Answer<T> = Result<T, Errno>;

/// A descriptor number, owned by whoever the surrounding code says.
pub type Fd = i32;

mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const FSTAT: usize = 5;
    pub const MMAP: usize = 9;
    pub const MUNMAP: usize = 11;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const PAUSE: usize = 34;
    pub const NANOSLEEP: usize = 35;
    pub const PWRITE64: usize = 18;
    pub const CHROOT: usize = 161;
    pub const CLOCK_GETTIME: usize = 228;
    pub const GETPID: usize = 39;
    pub const SOCKET: usize = 41;
    pub const BIND: usize = 49;
    pub const SOCKETPAIR: usize = 53;
    pub const SETSOCKOPT: usize = 54;
    pub const SENDTO: usize = 44;
    pub const RECVFROM: usize = 45;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const KILL: usize = 62;
    pub const UNAME: usize = 63;
    pub const FCNTL: usize = 72;
    pub const CHDIR: usize = 80;
    pub const FCHDIR: usize = 81;
    pub const MKDIRAT: usize = 258;
    pub const FCHOWNAT: usize = 260;
    pub const SYMLINKAT: usize = 266;
    pub const UMASK: usize = 95;
    pub const SETSID: usize = 112;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const CAPSET: usize = 126;
    pub const PIVOT_ROOT: usize = 155;
    pub const PRCTL: usize = 157;
    pub const MOUNT: usize = 165;
    pub const UMOUNT2: usize = 166;
    pub const SETHOSTNAME: usize = 170;
    pub const EXIT_GROUP: usize = 231;
    pub const EPOLL_WAIT: usize = 232;
    pub const EPOLL_CTL: usize = 233;
    pub const WAITID: usize = 247;
    pub const OPENAT: usize = 257;
    pub const UNSHARE: usize = 272;
    pub const SIGNALFD4: usize = 289;
    pub const EPOLL_CREATE1: usize = 291;
    pub const EVENTFD2: usize = 290;
    pub const DUP3: usize = 292;
    pub const ACCEPT4: usize = 288;
    pub const FALLOCATE: usize = 285;
    pub const PRLIMIT64: usize = 302;
    pub const SETNS: usize = 308;
    pub const SECCOMP: usize = 317;
    pub const EXECVEAT: usize = 322;
    pub const PIDFD_SEND_SIGNAL: usize = 424;
    pub const MOVE_MOUNT: usize = 429;
    pub const FSOPEN: usize = 430;
    pub const FSCONFIG: usize = 431;
    pub const FSMOUNT: usize = 432;
    pub const OPEN_TREE: usize = 428;
    pub const PIDFD_OPEN: usize = 434;
    pub const CLONE3: usize = 435;
    pub const CLOSE_RANGE: usize = 436;
    pub const OPENAT2: usize = 437;
    pub const MOUNT_SETATTR: usize = 442;
}

/// One system call with up to six arguments.
///
/// # Safety
/// As for the call itself: every pointer among the arguments must be valid for what the kernel
/// does with it, and the call must not break an invariant of the running program.
#[inline(always)]
unsafe fn call(number: usize, arguments: [usize; 6]) -> Answer<usize> {
    let result: isize;
    // SAFETY: the `syscall` instruction follows the kernel's x86_64 convention: arguments in
    // rdi rsi rdx r10 r8 r9, number and result in rax, rcx and r11 clobbered, no stack used. What
    // the kernel does to memory is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number.cast_signed() => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer(result)
}

fn answer(result: isize) -> Answer<usize> {
    if (-4095..0).contains(&result) {
        #[expect(clippy::cast_possible_truncation, reason = "between 1 and 4095")]
        return Err(Errno((-result) as i32));
    }
    Ok(result.cast_unsigned())
}

/// A descriptor as a system call argument, sign-extended as AT_FDCWD needs.
fn fd_word(fd: Fd) -> usize {
    (fd as isize).cast_unsigned()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "descriptors and pids fit i32"
)]
fn small(value: usize) -> i32 {
    value as i32
}
