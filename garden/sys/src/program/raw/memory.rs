//! Mappings. None is undone before the process ends, but by [`unmap`].

use super::{Answer, Fd, call, fd_word, number};

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
