//! System calls without a C library, for code that runs between clone(2) and execve(2) and for the
//! static programs, which have no C library at all.
//!
//! Every function is one system call (x86_64 calling convention of the kernel's
//! `Documentation/arch/x86/entry_64.rst`) and returns the kernel's answer: `Err` carries the
//! errno. Nothing here allocates, locks or touches thread-local state, so all of it may be called
//! in a child that shares nothing but a copy of its parent's memory.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("Bloomery's supervisor knows only the x86_64 system call convention so far");

use core::arch::asm;
use core::ffi::CStr;

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
    /// No space (here: a table of ours is full).
    pub const ENOSPC: Self = Self(28);
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
    pub const SOCKETPAIR: usize = 53;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const KILL: usize = 62;
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

/// Descriptor of the current directory, open(2).
pub const AT_FDCWD: Fd = -100;
/// Let the descriptor itself be the object.
pub const AT_EMPTY_PATH: i32 = 0x1000;
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

/// read(2).
pub fn read(fd: Fd, buffer: &mut [u8]) -> Answer<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the exclusively borrowed buffer.
    unsafe {
        call(number::READ, [fd_word(fd), buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0])
    }
}

/// write(2).
pub fn write(fd: Fd, bytes: &[u8]) -> Answer<usize> {
    // SAFETY: the kernel reads `len` bytes of a live slice.
    unsafe { call(number::WRITE, [fd_word(fd), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) }
}

/// pwrite(2).
pub fn write_at(fd: Fd, bytes: &[u8], offset: usize) -> Answer<usize> {
    // SAFETY: the kernel reads `len` bytes of a live slice.
    unsafe {
        call(number::PWRITE64, [fd_word(fd), bytes.as_ptr() as usize, bytes.len(), offset, 0, 0])
    }
}

/// close(2); the number is free afterwards whatever is answered.
pub fn close(fd: Fd) {
    // SAFETY: takes no pointer; a wrong number is answered with EBADF.
    let _ = unsafe { call(number::CLOSE, [fd_word(fd), 0, 0, 0, 0, 0]) };
}

/// Closes `first..=last`; with `unshare` the descriptor table is made private first, copying only
/// what lies below `first` (close_range(2)).
pub fn close_range(first: Fd, last: u32, unshare: bool) -> Answer<()> {
    let flags = if unshare { 2 } else { 0 };
    // SAFETY: takes no pointer.
    unsafe { call(number::CLOSE_RANGE, [fd_word(first), last as usize, flags, 0, 0, 0]) }.map(drop)
}

/// Marks `first..=last` close-on-exec (close_range(2), CLOSE_RANGE_CLOEXEC).
pub fn close_range_on_exec(first: Fd, last: u32) -> Answer<()> {
    // SAFETY: takes no pointer.
    unsafe { call(number::CLOSE_RANGE, [fd_word(first), last as usize, 4, 0, 0, 0]) }.map(drop)
}

/// dup3(2): `to` becomes a duplicate of `from`; close-on-exec as asked.
pub fn dup3(from: Fd, to: Fd, on_exec: bool) -> Answer<()> {
    let flags = if on_exec { 0o2_000_000 } else { 0 };
    // SAFETY: takes no pointer.
    unsafe { call(number::DUP3, [fd_word(from), fd_word(to), flags, 0, 0, 0]) }.map(drop)
}

/// Clears or sets close-on-exec, fcntl(2) F_SETFD.
pub fn set_close_on_exec(fd: Fd, on: bool) -> Answer<()> {
    // SAFETY: takes no pointer.
    unsafe { call(number::FCNTL, [fd_word(fd), 2, usize::from(on), 0, 0, 0]) }.map(drop)
}

/// Whether a descriptor number is in use (fcntl(2) F_GETFD).
pub fn is_open(fd: Fd) -> bool {
    // SAFETY: takes no pointer.
    unsafe { call(number::FCNTL, [fd_word(fd), 1, 0, 0, 0, 0]) }.is_ok()
}

/// Sets O_NONBLOCK on the open file description (fcntl(2) F_SETFL).
pub fn set_nonblocking(fd: Fd) -> Answer<()> {
    // SAFETY: takes no pointer.
    let flags = unsafe { call(number::FCNTL, [fd_word(fd), 3, 0, 0, 0, 0]) }?;
    // SAFETY: takes no pointer.
    unsafe { call(number::FCNTL, [fd_word(fd), 4, flags | 0o4000, 0, 0, 0]) }.map(drop)
}

/// Size of an open file in bytes (fstat(2)).
pub fn file_size(fd: Fd) -> Answer<usize> {
    let mut stat = [0_u64; 18];
    // SAFETY: struct stat of x86_64 is 144 bytes, the array's size.
    unsafe { call(number::FSTAT, [fd_word(fd), stat.as_mut_ptr() as usize, 0, 0, 0, 0]) }?;
    usize::try_from(stat[6]).map_err(|_| Errno::EINVAL)
}

/// Type bits and permissions of a path (newfstatat(2) semantics through an O_PATH open).
pub fn file_mode(fd: Fd) -> Answer<u32> {
    let mut stat = [0_u64; 18];
    // SAFETY: as in `file_size`.
    unsafe { call(number::FSTAT, [fd_word(fd), stat.as_mut_ptr() as usize, 0, 0, 0, 0]) }?;
    #[expect(clippy::cast_possible_truncation, reason = "st_mode is the low half of the word")]
    Ok(stat[3] as u32)
}

/// Maps `length` bytes of `fd` shared and writable; the mapping lives until the process ends.
pub fn map_shared(fd: Fd, length: usize) -> Answer<*mut u8> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    unsafe { call(number::MMAP, [0, length, 3, 1, fd_word(fd), 0]) }.map(|at| at as *mut u8)
}

/// Maps `length` bytes of `fd` private and read-only.
pub fn map_private(fd: Fd, length: usize) -> Answer<*const u8> {
    // SAFETY: as in `map_shared`.
    unsafe { call(number::MMAP, [0, length, 1, 2, fd_word(fd), 0]) }.map(|at| at as *const u8)
}

/// Fresh zeroed memory.
pub fn map_memory(length: usize) -> Answer<*mut u8> {
    // SAFETY: as in `map_shared`.
    unsafe { call(number::MMAP, [0, length, 3, 0x22, usize::MAX, 0]) }.map(|at| at as *mut u8)
}

/// munmap(2).
///
/// # Safety
/// Nothing may use the range afterwards.
pub unsafe fn unmap(at: *mut u8, length: usize) -> Answer<()> {
    // SAFETY: the caller promises that the range is not used again.
    unsafe { call(number::MUNMAP, [at as usize, length, 0, 0, 0, 0]) }.map(drop)
}

/// Frees the pages of a range of a memory file, leaving zeroes (fallocate(2) PUNCH_HOLE).
pub fn punch_hole(fd: Fd, offset: usize, length: usize) -> Answer<()> {
    // SAFETY: takes no pointer.
    unsafe { call(number::FALLOCATE, [fd_word(fd), 3, offset, length, 0, 0]) }.map(drop)
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

/// umask(2).
pub fn umask(mask: usize) {
    // SAFETY: takes no pointer.
    let _ = unsafe { call(number::UMASK, [mask, 0, 0, 0, 0, 0]) };
}

/// setgroups(2) of this process alone.
pub fn setgroups(groups: &[u32]) -> Answer<()> {
    // SAFETY: the kernel reads `len` ids of a live slice.
    unsafe { call(number::SETGROUPS, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0]) }
        .map(drop)
}

/// Real, effective and saved user id at once (setresuid(2)).
pub fn set_uid(uid: u32) -> Answer<()> {
    let uid = uid as usize;
    // SAFETY: takes no pointer.
    unsafe { call(number::SETRESUID, [uid, uid, uid, 0, 0, 0]) }.map(drop)
}

/// Real, effective and saved group id at once (setresgid(2)).
pub fn set_gid(gid: u32) -> Answer<()> {
    let gid = gid as usize;
    // SAFETY: takes no pointer.
    unsafe { call(number::SETRESGID, [gid, gid, gid, 0, 0, 0]) }.map(drop)
}

/// Permitted = effective = `mask`, inheritable empty (capset(2), version 3).
pub fn set_capabilities(mask: u64) -> Answer<()> {
    let header = [0x2008_0522_u32, 0];
    #[expect(clippy::cast_possible_truncation, reason = "split into halves")]
    let (low, high) = (mask as u32, (mask >> 32) as u32);
    let data = [low, low, 0, high, high, 0];
    // SAFETY: header and two data elements have the layout of version 3.
    unsafe { call(number::CAPSET, [header.as_ptr() as usize, data.as_ptr() as usize, 0, 0, 0, 0]) }
        .map(drop)
}

/// prctl(2) with integer arguments.
pub fn prctl(option: usize, argument: usize, second: usize) -> Answer<usize> {
    // SAFETY: only options that take integers are used, see the constants of this module.
    unsafe { call(number::PRCTL, [option, argument, second, 0, 0, 0]) }
}

/// prctl(2) options with integer arguments.
pub mod option {
    #![allow(missing_docs, reason = "the names are those of prctl(2)")]
    pub const SET_PDEATHSIG: usize = 1;
    pub const SET_DUMPABLE: usize = 4;
    pub const CAPBSET_READ: usize = 23;
    pub const CAPBSET_DROP: usize = 24;
    pub const SET_CHILD_SUBREAPER: usize = 36;
    pub const SET_NO_NEW_PRIVS: usize = 38;
    pub const CAP_AMBIENT: usize = 47;
    pub const CAP_AMBIENT_CLEAR_ALL: usize = 4;
}

/// Sets the name that ps(1) shows (PR_SET_NAME; 15 bytes and a NUL).
pub fn set_name(name: &CStr) {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string.
    let _ = unsafe { call(number::PRCTL, [15, name.as_ptr() as usize, 0, 0, 0, 0]) };
}

/// Loads a seccomp filter of `instructions` (8 bytes each) for this process (seccomp(2)).
pub fn set_seccomp_filter(program: &[u8]) -> Answer<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const u8,
    }
    let length = u16::try_from(program.len() / 8).map_err(|_| Errno::EINVAL)?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: SECCOMP_SET_MODE_FILTER reads one struct sock_fprog, whose instructions are alive.
    unsafe { call(number::SECCOMP, [1, 0, (&raw const program) as usize, 0, 0, 0]) }.map(drop)
}

/// Soft and hard limit of one resource (prlimit(2)).
pub fn set_rlimit(resource: u32, value: u64) -> Answer<()> {
    let limit = [value, value];
    // SAFETY: struct rlimit64 is two u64.
    unsafe { call(number::PRLIMIT64, [0, resource as usize, limit.as_ptr() as usize, 0, 0, 0]) }
        .map(drop)
}

/// Raises the soft limit of descriptors to the hard one.
pub fn raise_descriptor_limit() -> Answer<()> {
    const NOFILE: usize = 7;
    let mut limit = [0_u64; 2];
    // SAFETY: struct rlimit64 is two u64; a null new limit asks for the old one only.
    unsafe { call(number::PRLIMIT64, [0, NOFILE, 0, limit.as_mut_ptr() as usize, 0, 0]) }?;
    limit[0] = limit[1];
    // SAFETY: as above, the other way round.
    unsafe { call(number::PRLIMIT64, [0, NOFILE, limit.as_ptr() as usize, 0, 0, 0]) }.map(drop)
}

/// Milliseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let mut time = [0_u64; 2];
    // SAFETY: struct timespec is two 64-bit words.
    let _ = unsafe { call(number::CLOCK_GETTIME, [1, time.as_mut_ptr() as usize, 0, 0, 0, 0]) };
    time[0] * 1000 + time[1] / 1_000_000
}

/// Sleeps for so many milliseconds, or until a signal.
pub fn sleep(milliseconds: u64) {
    let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    // SAFETY: struct timespec is two 64-bit words; the remainder is not asked for.
    let _ = unsafe { call(number::NANOSLEEP, [time.as_ptr() as usize, 0, 0, 0, 0, 0]) };
}

/// sethostname(2).
pub fn sethostname(name: &[u8]) -> Answer<()> {
    // SAFETY: the kernel reads `len` bytes of a live slice.
    unsafe { call(number::SETHOSTNAME, [name.as_ptr() as usize, name.len(), 0, 0, 0, 0]) }.map(drop)
}

/// chdir(2).
pub fn chdir(path: &CStr) -> Answer<()> {
    // SAFETY: a NUL-terminated string.
    unsafe { call(number::CHDIR, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// chroot(2).
pub fn chroot(path: &CStr) -> Answer<()> {
    // SAFETY: a NUL-terminated string.
    unsafe { call(number::CHROOT, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// fchdir(2).
pub fn fchdir(fd: Fd) -> Answer<()> {
    // SAFETY: takes no pointer.
    unsafe { call(number::FCHDIR, [fd_word(fd), 0, 0, 0, 0, 0]) }.map(drop)
}

/// openat(2); O_CLOEXEC is always added.
pub fn open(at: Fd, path: &CStr, flags: usize, mode: usize) -> Answer<Fd> {
    // SAFETY: a NUL-terminated string.
    unsafe {
        call(number::OPENAT, [fd_word(at), path.as_ptr() as usize, flags | 0o2_000_000, mode, 0, 0])
    }
    .map(small)
}

/// open(2) flags.
pub mod flag {
    #![allow(missing_docs, reason = "the names are those of open(2)")]
    pub const RDONLY: usize = 0;
    pub const WRONLY: usize = 1;
    pub const RDWR: usize = 2;
    pub const CREAT: usize = 0o100;
    pub const EXCL: usize = 0o200;
    pub const NONBLOCK: usize = 0o4000;
    pub const DIRECTORY: usize = 0o200_000;
    pub const PATH: usize = 0o10_000_000;
}

/// Opens `path` below `root` as if that were `/`: symlinks and `..` cannot leave it, magic links
/// are refused (openat2(2) RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS). Close-on-exec.
pub fn open_in_root(root: Fd, path: &CStr, flags: usize, mode: u64) -> Answer<Fd> {
    let how = [(flags | 0o2_000_000) as u64, mode, 0x10 | 0x02];
    // SAFETY: struct open_how is three u64; the path is NUL-terminated.
    unsafe {
        call(
            number::OPENAT2,
            [fd_word(root), path.as_ptr() as usize, how.as_ptr() as usize, 24, 0, 0],
        )
    }
    .map(small)
}

/// mkdirat(2).
pub fn mkdir(at: Fd, path: &CStr, mode: usize) -> Answer<()> {
    // SAFETY: a NUL-terminated string.
    unsafe { call(number::MKDIRAT, [fd_word(at), path.as_ptr() as usize, mode, 0, 0, 0]) }.map(drop)
}

/// Changes the owner of the object itself, not of what a symlink points to (fchownat(2)).
pub fn chown(at: Fd, path: &CStr, uid: u32, gid: u32) -> Answer<()> {
    // SAFETY: a NUL-terminated string.
    unsafe {
        call(
            number::FCHOWNAT,
            [fd_word(at), path.as_ptr() as usize, uid as usize, gid as usize, 0x100 | 0x1000, 0],
        )
    }
    .map(drop)
}

/// symlinkat(2).
pub fn symlink(target: &CStr, at: Fd, path: &CStr) -> Answer<()> {
    // SAFETY: NUL-terminated strings.
    unsafe {
        call(
            number::SYMLINKAT,
            [target.as_ptr() as usize, fd_word(at), path.as_ptr() as usize, 0, 0, 0],
        )
    }
    .map(drop)
}

/// mount(2) without data; `source` and `kind` may be any text where the flags ignore them.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: usize) -> Answer<()> {
    mount_with(source, target, kind, flags, None)
}

/// mount(2) of a new file system with its options as data.
pub fn mount_new(kind: &CStr, target: &CStr, flags: usize, options: &CStr) -> Answer<()> {
    mount_with(kind, target, kind, flags, Some(options))
}

fn mount_with(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: usize,
    options: Option<&CStr>,
) -> Answer<()> {
    let data = options.map_or(core::ptr::null(), CStr::as_ptr);
    // SAFETY: NUL-terminated strings; a file system's options are one, or there are none and the
    // data pointer is null.
    unsafe {
        call(
            number::MOUNT,
            [
                source.as_ptr() as usize,
                target.as_ptr() as usize,
                kind.as_ptr() as usize,
                flags,
                data as usize,
                0,
            ],
        )
    }
    .map(drop)
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

/// pivot_root(2) with "." for both, the idiom of its man page.
pub fn pivot_root_here() -> Answer<()> {
    let dot = c".".as_ptr() as usize;
    // SAFETY: NUL-terminated strings.
    unsafe { call(number::PIVOT_ROOT, [dot, dot, 0, 0, 0, 0]) }.map(drop)
}

/// Lazily detaches what is mounted at `path` (umount2(2) MNT_DETACH).
pub fn detach(path: &CStr) -> Answer<()> {
    // SAFETY: a NUL-terminated string.
    unsafe { call(number::UMOUNT2, [path.as_ptr() as usize, 2, 0, 0, 0, 0]) }.map(drop)
}

/// fsopen(2), close-on-exec.
pub fn fsopen(kind: &CStr) -> Answer<Fd> {
    // SAFETY: a NUL-terminated string.
    unsafe { call(number::FSOPEN, [kind.as_ptr() as usize, 1, 0, 0, 0, 0]) }.map(small)
}

/// fsconfig(2) FSCONFIG_SET_STRING, or FSCONFIG_SET_FLAG where `value` is empty.
pub fn fsconfig(fs: Fd, key: &CStr, value: &CStr) -> Answer<()> {
    let (command, value) = if value.is_empty() { (0, 0) } else { (1, value.as_ptr() as usize) };
    // SAFETY: NUL-terminated strings, or null for a flag.
    unsafe { call(number::FSCONFIG, [fd_word(fs), command, key.as_ptr() as usize, value, 0, 0]) }
        .map(drop)
}

/// fsconfig(2) FSCONFIG_CMD_CREATE, then fsmount(2) with `attributes` (MOUNT_ATTR_*): a detached
/// mount.
pub fn fsmount(fs: Fd, attributes: usize) -> Answer<Fd> {
    // SAFETY: FSCONFIG_CMD_CREATE takes neither key nor value.
    unsafe { call(number::FSCONFIG, [fd_word(fs), 6, 0, 0, 0, 0]) }?;
    // SAFETY: takes no pointer.
    unsafe { call(number::FSMOUNT, [fd_word(fs), 1, attributes, 0, 0, 0]) }.map(small)
}

/// A detached copy of the mount at `path` (open_tree(2) OPEN_TREE_CLONE).
pub fn clone_mount(at: Fd, path: &CStr) -> Answer<Fd> {
    let flags = 1 | 0o2_000_000 | AT_EMPTY_PATH.cast_unsigned() as usize;
    // SAFETY: a NUL-terminated string.
    unsafe { call(number::OPEN_TREE, [fd_word(at), path.as_ptr() as usize, flags, 0, 0, 0]) }
        .map(small)
}

/// A detached copy of the mount at a path of the current root, with what is mounted below it when
/// `recursive`; a symbolic link at its end is followed.
pub fn clone_mount_at(path: &CStr, recursive: bool) -> Answer<Fd> {
    let flags = 1 | 0o2_000_000 | if recursive { 0x8000 } else { 0 };
    // SAFETY: a NUL-terminated string.
    unsafe { call(number::OPEN_TREE, [fd_word(AT_FDCWD), path.as_ptr() as usize, flags, 0, 0, 0]) }
        .map(small)
}

/// Attaches a detached mount on the object `target` refers to (move_mount(2), both by descriptor).
pub fn move_mount(mount: Fd, target: Fd) -> Answer<()> {
    let empty = c"".as_ptr() as usize;
    // SAFETY: NUL-terminated strings.
    unsafe {
        call(number::MOVE_MOUNT, [fd_word(mount), empty, fd_word(target), empty, 0x04 | 0x40, 0])
    }
    .map(drop)
}

/// MOUNT_ATTR_* of mount_setattr(2).
pub mod attribute {
    #![allow(missing_docs, reason = "the names are those of mount_setattr(2)")]
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    pub const STRICTATIME: u64 = 0x20;
}

/// Sets attributes on the mount behind `fd`, and on all below it when `recursive`.
pub fn mount_setattr(fd: Fd, set: u64, recursive: bool) -> Answer<()> {
    let attributes = [set, 0, 0, 0_u64];
    let flags = AT_EMPTY_PATH.cast_unsigned() as usize | if recursive { 0x8000 } else { 0 };
    // SAFETY: struct mount_attr is four u64 (its first size), the path is NUL-terminated.
    unsafe {
        call(
            number::MOUNT_SETATTR,
            [fd_word(fd), c"".as_ptr() as usize, flags, attributes.as_ptr() as usize, 32, 0],
        )
    }
    .map(drop)
}

/// Gives the detached mount behind `fd` the id map of a user namespace (MOUNT_ATTR_IDMAP).
pub fn map_mount_ids(fd: Fd, user_namespace: Fd) -> Answer<()> {
    const IDMAP: u64 = 0x0010_0000;
    let attributes = [IDMAP, 0, 0, u64::from(user_namespace.cast_unsigned())];
    // SAFETY: struct mount_attr is four u64 (its first size), the path is NUL-terminated.
    unsafe {
        call(
            number::MOUNT_SETATTR,
            [
                fd_word(fd),
                c"".as_ptr() as usize,
                AT_EMPTY_PATH.cast_unsigned() as usize,
                attributes.as_ptr() as usize,
                32,
                0,
            ],
        )
    }
    .map(drop)
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

/// How a child ended, from waitid(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its pid.
    pub pid: i32,
    /// Exit code, or 128 + signal.
    pub status: i32,
}

/// Looks at one ended child without reaping it; `None` when none has ended. `pid` 0 means any.
pub fn peek_ended(pid: i32) -> Answer<Option<Ended>> {
    // WNOHANG | WEXITED | WNOWAIT
    wait(pid, 1 | 4 | 0x0100_0000)
}

/// Reaps a child that has ended.
pub fn reap(pid: i32) -> Answer<Option<Ended>> {
    wait(pid, 1 | 4)
}

fn wait(pid: i32, options: usize) -> Answer<Option<Ended>> {
    let mut info = [0_i32; 32];
    let kind = if pid == 0 { 0 } else { 1 };
    // SAFETY: siginfo_t is 128 bytes, the array's size; a null rusage is allowed.
    unsafe {
        call(number::WAITID, [kind, fd_word(pid), info.as_mut_ptr() as usize, options, 0, 0])
    }?;
    // siginfo_t: si_signo, si_errno, si_code, pad, si_pid, si_uid, si_status
    let (code, ended, status) = (info[2], info[3 + 1], info[6]);
    if info[0] == 0 {
        return Ok(None);
    }
    const CLD_EXITED: i32 = 1;
    let status = if code == CLD_EXITED { status } else { 128 + status };
    Ok(Some(Ended { pid: ended, status }))
}

/// Blocks or unblocks signals: the whole mask is replaced (rt_sigprocmask(2) SIG_SETMASK).
pub fn set_signal_mask(mask: u64) {
    // SAFETY: the kernel reads eight bytes, the size given.
    let _ = unsafe { call(number::RT_SIGPROCMASK, [2, (&raw const mask) as usize, 0, 8, 0, 0]) };
}

/// What a signal does from now on, for actions that need no handler.
pub fn set_signal_action(signal: i32, ignore: bool, no_zombies: bool) {
    // struct kernel_sigaction: handler (SIG_DFL 0, SIG_IGN 1), flags, restorer, mask.
    let action = [usize::from(ignore), if no_zombies { 2 } else { 0 }, 0, 0];
    // SAFETY: the kernel reads one kernel_sigaction; no handler is installed.
    let _ = unsafe {
        call(number::RT_SIGACTION, [fd_word(signal), action.as_ptr() as usize, 0, 8, 0, 0])
    };
}

/// A descriptor that becomes readable when one of the (blocked) signals in `mask` is pending.
pub fn signalfd(mask: u64) -> Answer<Fd> {
    // SAFETY: the kernel reads eight bytes, the size given.
    unsafe {
        call(
            number::SIGNALFD4,
            [fd_word(-1), (&raw const mask) as usize, 8, 0o2_000_000 | 0o4000, 0, 0],
        )
    }
    .map(small)
}

/// The bit of a signal in a mask.
pub const fn signal_bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// One readiness report, struct epoll_event of x86_64 (packed).
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Event {
    /// EPOLLIN 1, EPOLLHUP 16, EPOLLERR 8.
    pub events: u32,
    /// What was registered.
    pub data: u64,
}

/// eventfd2(2), non-blocking and close-on-exec.
pub fn eventfd() -> Answer<Fd> {
    // SAFETY: takes no pointer.
    unsafe { call(number::EVENTFD2, [0, 0o2_000_000 | 0o4000, 0, 0, 0, 0]) }.map(small)
}

/// epoll_create1(2), close-on-exec.
pub fn epoll_create() -> Answer<Fd> {
    // SAFETY: takes no pointer.
    unsafe { call(number::EPOLL_CREATE1, [0o2_000_000, 0, 0, 0, 0, 0]) }.map(small)
}

/// Watches `fd` for input and hang-up under the name `data`.
pub fn epoll_add(epoll: Fd, fd: Fd, data: u64) -> Answer<()> {
    let event = Event { events: 1, data };
    // SAFETY: the kernel reads one epoll_event.
    unsafe {
        call(number::EPOLL_CTL, [fd_word(epoll), 1, fd_word(fd), (&raw const event) as usize, 0, 0])
    }
    .map(drop)
}

/// Stops watching `fd`.
pub fn epoll_remove(epoll: Fd, fd: Fd) {
    // SAFETY: EPOLL_CTL_DEL reads no event.
    let _ = unsafe { call(number::EPOLL_CTL, [fd_word(epoll), 2, fd_word(fd), 0, 0, 0]) };
}

/// Waits for events, at most `timeout` milliseconds (-1: for ever). Interrupted means none.
pub fn epoll_wait(epoll: Fd, events: &mut [Event], timeout: i32) -> usize {
    // SAFETY: the kernel writes at most `len` events into the exclusively borrowed slice.
    unsafe {
        call(
            number::EPOLL_WAIT,
            [fd_word(epoll), events.as_mut_ptr() as usize, events.len(), fd_word(timeout), 0, 0],
        )
    }
    .unwrap_or(0)
}

/// A connected pair of close-on-exec SOCK_SEQPACKET sockets.
pub fn socketpair() -> Answer<[Fd; 2]> {
    let mut pair = [0; 2];
    // SAFETY: the kernel writes two descriptors. AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC.
    unsafe { call(number::SOCKETPAIR, [1, 5 | 0o2_000_000, 0, pair.as_mut_ptr() as usize, 0, 0]) }?;
    Ok(pair)
}

/// accept4(2), close-on-exec.
pub fn accept(socket: Fd) -> Answer<Fd> {
    // SAFETY: no address is asked for.
    unsafe { call(number::ACCEPT4, [fd_word(socket), 0, 0, 0o2_000_000, 0, 0]) }.map(small)
}

/// At most this many descriptors travel with one message.
pub const MOST_DESCRIPTORS: usize = 240;

#[repr(C)]
struct Slice {
    at: usize,
    length: usize,
}

#[repr(C)]
struct Header {
    name: usize,
    name_length: u32,
    pieces: usize,
    piece_count: usize,
    control: usize,
    control_length: usize,
    flags: i32,
}

#[repr(C, align(8))]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    descriptors: [Fd; MOST_DESCRIPTORS],
}

/// Sends one message with descriptors (sendmsg(2), SCM_RIGHTS), without SIGPIPE, without waiting.
pub fn send(socket: Fd, bytes: &[u8], descriptors: &[Fd]) -> Answer<()> {
    let mut control = Control {
        length: 16 + descriptors.len() * 4,
        level: 1,
        kind: 1,
        descriptors: [0; MOST_DESCRIPTORS],
    };
    control
        .descriptors
        .get_mut(..descriptors.len())
        .ok_or(Errno::EINVAL)?
        .copy_from_slice(descriptors);
    let piece = Slice { at: bytes.as_ptr() as usize, length: bytes.len() };
    let with_control = !descriptors.is_empty();
    let header = Header {
        name: 0,
        name_length: 0,
        pieces: (&raw const piece) as usize,
        piece_count: 1,
        control: if with_control { (&raw const control) as usize } else { 0 },
        control_length: if with_control {
            (16 + descriptors.len() * 4).next_multiple_of(8)
        } else {
            0
        },
        flags: 0,
    };
    // MSG_NOSIGNAL | MSG_DONTWAIT
    // SAFETY: struct msghdr with one live piece and one live control message.
    unsafe {
        call(
            number::SENDMSG,
            [fd_word(socket), (&raw const header) as usize, 0x4000 | 0x40, 0, 0, 0],
        )
    }
    .map(drop)
}

/// One received message.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the buffer; 0 means that the other side is gone.
    pub length: usize,
    descriptors: [Fd; MOST_DESCRIPTORS],
    count: usize,
}

impl Received {
    /// The descriptors that came along (close-on-exec), now owned by the receiver.
    pub fn descriptors(&self) -> &[Fd] {
        &self.descriptors[..self.count]
    }

    /// Closes all of them.
    pub fn close_all(&self) {
        self.descriptors().iter().copied().for_each(close);
    }
}

/// Receives one message; with `wait` false, EAGAIN says that none is there. A message that was
/// cut (bytes or descriptors) is EPROTO and its descriptors are closed.
pub fn receive(socket: Fd, buffer: &mut [u8], wait: bool) -> Answer<Received> {
    let mut control = Control { length: 0, level: 0, kind: 0, descriptors: [-1; MOST_DESCRIPTORS] };
    let piece = Slice { at: buffer.as_mut_ptr() as usize, length: buffer.len() };
    let mut header = Header {
        name: 0,
        name_length: 0,
        pieces: (&raw const piece) as usize,
        piece_count: 1,
        control: (&raw mut control) as usize,
        control_length: size_of::<Control>(),
        flags: 0,
    };
    // MSG_CMSG_CLOEXEC, MSG_DONTWAIT
    let flags = 0x4000_0000 | if wait { 0 } else { 0x40 };
    // SAFETY: struct msghdr with one exclusively borrowed piece and room for one control message.
    let length = unsafe {
        call(number::RECVMSG, [fd_word(socket), (&raw mut header) as usize, flags, 0, 0, 0])
    }?;
    let mut received = Received { length, descriptors: [-1; MOST_DESCRIPTORS], count: 0 };
    if header.control_length >= 16 && control.level == 1 && control.kind == 1 {
        received.count = (control.length.saturating_sub(16) / 4).min(MOST_DESCRIPTORS);
        received.descriptors = control.descriptors;
    }
    // MSG_TRUNC | MSG_CTRUNC
    if header.flags & (0x20 | 0x08) != 0 {
        received.close_all();
        return Err(Errno::EPROTO);
    }
    Ok(received)
}

/// Exit status of a process that somebody else has reaped, by its pidfd, where the kernel keeps it
/// (6.15 and later): ioctl PIDFD_GET_INFO with PIDFD_INFO_EXIT. Exit code, or 128 + signal.
pub fn reaped_status(pidfd: Fd) -> Option<i32> {
    const EXIT: u64 = 1 << 3;
    // struct pidfd_info: mask, cgroupid, pid..sgid (4 bytes each, 11 of them), exit_code.
    let mut info = [0_u64; 8];
    info[0] = EXIT;
    // _IOWR(0xff, 11, 64 bytes)
    let request = (3 << 30) | (64 << 16) | (0xff << 8) | 11;
    // SAFETY: the kernel writes at most the 64 bytes that the request's size field names.
    unsafe { call(number::IOCTL, [fd_word(pidfd), request, info.as_mut_ptr() as usize, 0, 0, 0]) }
        .ok()?;
    if info[0] & EXIT == 0 {
        return None;
    }
    let code = u32::from_ne_bytes([
        info[7].to_ne_bytes()[4],
        info[7].to_ne_bytes()[5],
        info[7].to_ne_bytes()[6],
        info[7].to_ne_bytes()[7],
    ]);
    Some(shell_status(code))
}

/// Exit status of a process that has ended and that its parent, somebody else, has not yet reaped:
/// the last field of `/proc/<pid>/stat` (proc_pid_stat(5)). The pidfd proves that the pid was still
/// that process's when the file was read.
pub fn zombie_status(pid: i32, pidfd: Fd) -> Option<i32> {
    let mut path = *b"/proc/\0\0\0\0\0\0\0\0\0\0\0/stat\0\0";
    let mut digits = [0; 12];
    let number = decimal(pid, &mut digits).to_bytes();
    path[6..6 + number.len()].copy_from_slice(number);
    path[6 + number.len()..12 + number.len()].copy_from_slice(b"/stat\0");
    let file = open(AT_FDCWD, CStr::from_bytes_until_nul(&path).ok()?, flag::RDONLY, 0).ok()?;
    let mut content = [0; 1024];
    let length = read(file, &mut content);
    close(file);
    let content = content.get(..length.ok()?)?;
    pidfd_signal(pidfd, 0).ok()?;
    let after_name = content.get(content.iter().rposition(|byte| *byte == b')')? + 2..)?;
    if after_name.first() != Some(&b'Z') {
        return None;
    }
    let last =
        after_name.split(|byte| matches!(byte, b' ' | b'\n')).rfind(|field| !field.is_empty())?;
    let mut code = 0_u32;
    for digit in last {
        code = code
            .checked_mul(10)?
            .checked_add(u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?))?;
    }
    Some(shell_status(code))
}

/// The kernel's wait status as an exit code, or 128 + signal.
fn shell_status(code: u32) -> i32 {
    let status = if code & 0x7f == 0 { (code >> 8) & 0xff } else { 128 + (code & 0x7f) };
    status.cast_signed()
}

/// A positive number as text.
pub fn decimal(mut number: i32, digits: &mut [u8; 12]) -> &CStr {
    let mut at = digits.len() - 1;
    digits[at] = 0;
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(number % 10).unsigned_abs() as usize];
        number /= 10;
        if number == 0 || at == 0 {
            break;
        }
    }
    CStr::from_bytes_until_nul(&digits[at..]).unwrap_or(c"")
}
