//! Processes: made, executed, signalled, moved between namespaces.

use core::ffi::CStr;

use super::{AT_EMPTY_PATH, Answer, Errno, Fd, call, close, fd_word, number, small};

/// clone3(2) flags.
pub mod clone {
    #![allow(missing_docs, reason = "the names are those of clone(2)")]
    pub const PIDFD: u64 = 0x1000;
    pub const FILES: u64 = 0x400;
    pub const PARENT_SETTID: u64 = 0x10_0000;
    pub const NEWNS: u64 = 0x2_0000;
    pub const NEWUTS: u64 = 0x0400_0000;
    pub const NEWIPC: u64 = 0x0800_0000;
    pub const NEWUSER: u64 = 0x1000_0000;
    pub const NEWPID: u64 = 0x2000_0000;
    pub const NEWNET: u64 = 0x4000_0000;
    pub const INTO_CGROUP: u64 = 0x2_0000_0000;
}

/// getpid(2).
pub fn getpid() -> i32 {
    // SAFETY: takes no argument.
    unsafe { call(number::GETPID, [0; 6]) }.map_or(0, small)
}

/// Ends the process at once.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: takes no pointer and does not return.
        let _ = unsafe { call(number::EXIT_GROUP, [fd_word(code), 0, 0, 0, 0, 0]) };
    }
}

/// pause(2): sleeps until a signal handler ran.
pub fn pause() {
    // SAFETY: takes no argument.
    let _ = unsafe { call(number::PAUSE, [0; 6]) };
}

/// kill(2).
pub fn kill(pid: i32, signal: i32) -> Answer<()> {
    // SAFETY: takes no pointer.
    unsafe { call(number::KILL, [fd_word(pid), fd_word(signal), 0, 0, 0, 0]) }.map(drop)
}

/// pidfd_open(2); close-on-exec by the kernel.
pub fn pidfd_open(pid: i32) -> Answer<Fd> {
    // SAFETY: takes no pointer.
    unsafe { call(number::PIDFD_OPEN, [fd_word(pid), 0, 0, 0, 0, 0]) }.map(small)
}

/// pidfd_send_signal(2).
pub fn pidfd_signal(pidfd: Fd, signal: i32) -> Answer<()> {
    // SAFETY: a null siginfo is allowed and means what kill(2) would send.
    unsafe { call(number::PIDFD_SEND_SIGNAL, [fd_word(pidfd), fd_word(signal), 0, 0, 0, 0]) }
        .map(drop)
}

/// setns(2).
pub fn setns(fd: Fd, kinds: u64) -> Answer<()> {
    #[expect(clippy::cast_possible_truncation, reason = "64-bit target")]
    // SAFETY: takes no pointer.
    unsafe { call(number::SETNS, [fd_word(fd), kinds as usize, 0, 0, 0, 0]) }.map(drop)
}

/// unshare(2).
pub fn unshare(kinds: u64) -> Answer<()> {
    #[expect(clippy::cast_possible_truncation, reason = "64-bit target")]
    // SAFETY: takes no pointer.
    unsafe { call(number::UNSHARE, [kinds as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// setsid(2).
pub fn setsid() {
    // SAFETY: takes no argument.
    let _ = unsafe { call(number::SETSID, [0; 6]) };
}

/// Makes the terminal behind `fd` the controlling one (ioctl_tty(2) TIOCSCTTY).
pub fn set_controlling_terminal(fd: Fd) -> Answer<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    unsafe { call(number::IOCTL, [fd_word(fd), 0x540e, 0, 0, 0, 0]) }.map(drop)
}

/// Sets the name that ps(1) shows (PR_SET_NAME; 15 bytes and a NUL).
pub fn set_name(name: &CStr) {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string.
    let _ = unsafe { call(number::PRCTL, [15, name.as_ptr() as usize, 0, 0, 0, 0]) };
}

/// sethostname(2).
pub fn sethostname(name: &[u8]) -> Answer<()> {
    // SAFETY: the kernel reads `len` bytes of a live slice.
    unsafe { call(number::SETHOSTNAME, [name.as_ptr() as usize, name.len(), 0, 0, 0, 0]) }.map(drop)
}

/// Brings the loopback interface of this network namespace up (netdevice(7), SIOCSIFFLAGS).
pub fn set_loopback_up() -> Answer<()> {
    const SIOCSIFFLAGS: usize = 0x8914;
    const UP_RUNNING: u8 = 0x41;
    // SAFETY: takes no pointer. AF_INET, SOCK_DGRAM | SOCK_CLOEXEC.
    let socket = unsafe { call(number::SOCKET, [2, 2 | 0o2_000_000, 0, 0, 0, 0]) }.map(small)?;
    // struct ifreq: 16 bytes of name, then the flags in a union of 24 bytes.
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16] = UP_RUNNING;
    // SAFETY: the kernel reads one struct ifreq, the array's size.
    let set = unsafe {
        call(number::IOCTL, [fd_word(socket), SIOCSIFFLAGS, request.as_ptr() as usize, 0, 0, 0])
    };
    close(socket);
    set.map(drop)
}

/// The kernel's struct clone_args, up to `cgroup`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct CloneArguments {
    /// CLONE_* bits.
    pub flags: u64,
    /// Where the kernel stores the pidfd (address of a `Fd`).
    pub pidfd: u64,
    /// Unused.
    pub child_tid: u64,
    /// Where the kernel stores the child's pid before it runs (CLONE_PARENT_SETTID).
    pub parent_tid: u64,
    /// Signal at the child's end.
    pub exit_signal: u64,
    /// Unused: the child goes on with a copy of this stack.
    pub stack: u64,
    /// Unused.
    pub stack_size: u64,
    /// Unused.
    pub tls: u64,
    /// Unused.
    pub set_tid: u64,
    /// Unused.
    pub set_tid_size: u64,
    /// Descriptor of a cgroup v2 directory (CLONE_INTO_CGROUP).
    pub cgroup: u64,
}

/// clone3(2) as a fork: `Ok(0)` in the child, the pid in the parent.
///
/// # Safety
/// `arguments` must not ask for shared memory (CLONE_VM), the addresses in it must be valid for
/// the kernel's writes, and the caller must be single-threaded or the child must stay with this
/// module's calls until it execs.
#[inline(always)]
pub unsafe fn clone3(arguments: &CloneArguments) -> Answer<i32> {
    let at = core::ptr::from_ref(arguments) as usize;
    // SAFETY: the caller's promise; the structure is alive and its size is given.
    unsafe { call(number::CLONE3, [at, size_of::<CloneArguments>(), 0, 0, 0, 0]) }.map(small)
}

/// fork(2): `Ok(0)` in the child.
///
/// # Safety
/// The process must be single-threaded, or the child must stay with this module's calls.
pub unsafe fn fork() -> Answer<i32> {
    // SAFETY: the caller's promise; nothing but a copy is asked for.
    unsafe { clone3(&CloneArguments { exit_signal: 17, ..CloneArguments::default() }) }
}

/// Executes the program behind `program` with these arguments and an empty environment. Returns
/// only when that failed.
pub fn execute(program: Fd, arguments: &[&CStr]) -> Errno {
    let mut pointers = [core::ptr::null::<u8>(); 6];
    for (place, argument) in pointers.iter_mut().take(5).zip(arguments) {
        *place = argument.as_ptr().cast();
    }
    // SAFETY: at most five of six places are filled with NUL-terminated texts; the environment is
    // the null that ends them.
    unsafe { execveat(program, c"", pointers.as_ptr(), &raw const pointers[5], AT_EMPTY_PATH) }
}

/// execveat(2) of `path` relative to `at`.
///
/// # Safety
/// `argv` and `envp` must be null-terminated arrays of NUL-terminated strings.
pub unsafe fn execveat(
    at: Fd,
    path: &CStr,
    argv: *const *const u8,
    envp: *const *const u8,
    flags: i32,
) -> Errno {
    // SAFETY: the caller's promise.
    let result = unsafe {
        call(
            number::EXECVEAT,
            [fd_word(at), path.as_ptr() as usize, argv as usize, envp as usize, fd_word(flags), 0],
        )
    };
    result.err().unwrap_or(Errno::EINVAL)
}
