//! The kernel's news of processes that end, whosever children they are: the process events
//! connector (Documentation/driver-api/connector.rst, `linux/cn_proc.h`; CONFIG_PROC_EVENTS).
//!
//! The kernel sends them in its first network namespace only, and listens only to who is privileged
//! in its first user and pid namespaces.

use super::endings::shell_status;
use super::{Answer, Fd, call, close, fd_word, number, small};

/// A thread that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadExit {
    /// Its process.
    pub process: i32,
    /// It was the process's first thread, whose status is the process's unless one that ends later
    /// says otherwise.
    pub leader: bool,
    /// Exit code, or 128 + signal.
    pub status: i32,
}

const NETLINK: u16 = 16;
const CONNECTOR: usize = 11;
/// CN_IDX_PROC and CN_VAL_PROC: the group of process events.
const PROCESS_EVENTS: u32 = 1;
/// PROC_EVENT_EXIT.
const EXIT: u32 = 0x8000_0000;
/// Bytes of struct nlmsghdr and struct cn_msg, before an event.
const HEADS: usize = 16 + 20;
/// Where the exit's own fields begin in an event: after its kind, a cpu and a time.
const FIELDS: usize = HEADS + 16;
/// Room for what waits to be read: some thousand ends.
const QUEUE: u32 = 1 << 20;

/// struct sockaddr_nl.
#[repr(C)]
#[derive(Default)]
struct Address {
    family: u16,
    padding: u16,
    port: u32,
    groups: u32,
}

/// A non-blocking, close-on-exec socket on which the kernel tells of every thread that ends.
pub fn exit_events() -> Answer<Fd> {
    // SAFETY: takes no pointer. SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK.
    let socket = unsafe {
        call(number::SOCKET, [NETLINK.into(), 2 | 0o2_000_000 | 0o4000, CONNECTOR, 0, 0, 0])
    }
    .map(small)?;
    let ready = (|| {
        select_exits(socket)?;
        // More than others get, where we may: SO_RCVBUFFORCE.
        // SAFETY: the option takes an integer of four bytes.
        let _ = unsafe { set_option(socket, 33, &QUEUE) };
        let address = Address { family: NETLINK, groups: PROCESS_EVENTS, ..Address::default() };
        // SAFETY: the kernel reads one sockaddr_nl, whose size is given.
        unsafe {
            let at = (&raw const address) as usize;
            call(number::BIND, [fd_word(socket), at, size_of::<Address>(), 0, 0, 0])
        }?;
        ask_for_events(socket, true)
    })();
    if ready.is_err() {
        close(socket);
    }
    ready.map(|()| socket)
}

/// Lets nothing but ends through, so that a host where much begins does not wake us.
fn select_exits(socket: Fd) -> Answer<()> {
    #[repr(C)]
    struct Instruction(u16, u8, u8, u32);
    #[repr(C)]
    struct Filter {
        length: u16,
        instructions: *const Instruction,
    }
    // BPF_LD|BPF_W|BPF_ABS reads in network order; BPF_JMP|BPF_JEQ|BPF_K; BPF_RET|BPF_K.
    const KIND: u32 = 36;
    let instructions = [
        Instruction(0x20, 0, 0, KIND),
        Instruction(0x15, 0, 1, EXIT.swap_bytes()),
        Instruction(0x06, 0, 0, u32::MAX),
        Instruction(0x06, 0, 0, 0),
    ];
    let filter = Filter { length: 4, instructions: instructions.as_ptr() };
    // SAFETY: SO_ATTACH_FILTER takes one struct sock_fprog, which names so many live instructions.
    unsafe { set_option(socket, 26, &filter) }
}

/// setsockopt(2) at SOL_SOCKET.
///
/// # Safety
/// `T` must be what the kernel reads for this option, and any address in it valid.
unsafe fn set_option<T>(socket: Fd, option: usize, value: &T) -> Answer<()> {
    let at = core::ptr::from_ref(value) as usize;
    // SAFETY: the value is alive and its size is given; the rest is the caller's promise.
    unsafe { call(number::SETSOCKOPT, [fd_word(socket), 1, option, at, size_of::<T>(), 0]) }
        .map(drop)
}

/// Begins or ends to listen (PROC_CN_MCAST_LISTEN, PROC_CN_MCAST_IGNORE).
pub fn ask_for_events(socket: Fd, wanted: bool) -> Answer<()> {
    let (length, order) = (HEADS + 4, if wanted { 1_u32 } else { 2 });
    let mut message = [0_u8; HEADS + 4];
    message[0..4].copy_from_slice(&u32::try_from(length).unwrap_or(0).to_ne_bytes());
    // NLMSG_DONE
    message[4..6].copy_from_slice(&3_u16.to_ne_bytes());
    message[16..20].copy_from_slice(&PROCESS_EVENTS.to_ne_bytes());
    message[20..24].copy_from_slice(&PROCESS_EVENTS.to_ne_bytes());
    message[32..34].copy_from_slice(&4_u16.to_ne_bytes());
    message[36..40].copy_from_slice(&order.to_ne_bytes());
    // SAFETY: the kernel reads the live array; no address means that it is for the kernel.
    unsafe {
        call(number::SENDTO, [fd_word(socket), message.as_ptr() as usize, length, 0x4000, 0, 0])
    }
    .map(drop)
}

/// The oldest end that waits to be read; it stays there unless it is to be `taken`. What is
/// none of the kernel's ends is `Ok(None)`; EAGAIN says that nothing waits, ENOBUFS that some were
/// dropped.
pub fn next_exit(socket: Fd, taken: bool) -> Answer<Option<ThreadExit>> {
    let mut message = [0_u8; 128];
    let mut from = Address { port: u32::MAX, ..Address::default() };
    let mut from_length = 12_u32;
    const PEEK: usize = 2;
    // SAFETY: the kernel writes at most the array's size, and at most 12 bytes of the address.
    let length = unsafe {
        call(
            number::RECVFROM,
            [
                fd_word(socket),
                message.as_mut_ptr() as usize,
                message.len(),
                if taken { 0 } else { PEEK },
                (&raw mut from) as usize,
                (&raw mut from_length) as usize,
            ],
        )
    }?;
    let word = |at: usize| {
        let bytes = message.get(at..at + 4).filter(|_| at + 4 <= length)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let parts = (word(HEADS), word(FIELDS), word(FIELDS + 4), word(FIELDS + 8));
    let (Some(EXIT), Some(thread), Some(process), Some(code)) = parts else { return Ok(None) };
    if from.port != 0 {
        return Ok(None);
    }
    Ok(Some(ThreadExit {
        process: process.cast_signed(),
        leader: thread == process,
        status: shell_status(code),
    }))
}

/// Whether a pidfd tells how its process has ended, also once it has been reaped: from Linux 6.15 on.
pub fn pidfds_tell_exits() -> bool {
    // struct utsname: six texts of 65 bytes, the third is the release.
    let mut names = [0_u8; 6 * 65];
    // SAFETY: the kernel writes one struct utsname, the array's size.
    if unsafe { call(number::UNAME, [names.as_mut_ptr() as usize, 0, 0, 0, 0, 0]) }.is_err() {
        return false;
    }
    let mut numbers = names[2 * 65..3 * 65].split(|byte| !byte.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0_u32, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
        })
    });
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::super::Errno;
    use super::*;

    /// Waits for what an expected thread's end is; each that waits is looked at twice.
    fn hear(socket: Fd, expected: impl Fn(&ThreadExit) -> bool) -> ThreadExit {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < deadline, "the kernel tells of the end");
            match next_exit(socket, false) {
                Ok(seen) => {
                    assert_eq!(next_exit(socket, true), Ok(seen), "it waits until it is taken");
                    if let Some(exit) = seen.filter(&expected) {
                        return exit;
                    }
                }
                Err(errno) => {
                    assert_eq!(errno, Errno::EAGAIN);
                    std::thread::yield_now();
                }
            }
        }
    }

    #[test]
    fn the_kernel_tells_how_every_thread_has_ended() {
        let socket = exit_events().unwrap();
        for (script, status) in [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)] {
            let mut shell = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let process = shell.id().cast_signed();
            shell.wait().unwrap();
            let heard = hear(socket, |exit| exit.process == process);
            assert_eq!(heard, ThreadExit { process, leader: true, status }, "{script}");
        }
        let process = std::process::id().cast_signed();
        std::thread::spawn(|| {}).join().unwrap();
        assert!(!hear(socket, |exit| exit.process == process).leader);
        ask_for_events(socket, false).unwrap();
        close(socket);
    }
}
