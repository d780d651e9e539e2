//! Descriptors: reading, writing, closing, duplicating.

use super::{Answer, Fd, call, fd_word, number};

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

/// Makes a file so long and backs all of it with memory or disk (fallocate(2)).
pub fn allocate(fd: Fd, length: usize) -> Answer<()> {
    // SAFETY: takes no pointer.
    unsafe { call(number::FALLOCATE, [fd_word(fd), 0, 0, length, 0, 0]) }.map(drop)
}

/// Frees the pages of a range of a memory file, leaving zeroes (fallocate(2) PUNCH_HOLE).
pub fn punch_hole(fd: Fd, offset: usize, length: usize) -> Answer<()> {
    // SAFETY: takes no pointer.
    unsafe { call(number::FALLOCATE, [fd_word(fd), 3, offset, length, 0, 0]) }.map(drop)
}
