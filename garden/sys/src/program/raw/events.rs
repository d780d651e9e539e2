//! Waiting: signals, epoll, time.

use super::{Answer, Fd, call, fd_word, number, small};

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
