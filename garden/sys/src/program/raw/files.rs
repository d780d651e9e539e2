//! Files and directories.

use core::ffi::CStr;

use super::{Answer, Errno, Fd, call, fd_word, number, small};

/// Descriptor of the current directory, open(2).
pub const AT_FDCWD: Fd = -100;

/// Let the descriptor itself be the object.
pub const AT_EMPTY_PATH: i32 = 0x1000;

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

/// Device and inode of an open file, which tell it from all others (fstat(2)).
pub fn identity(fd: Fd) -> Answer<(u64, u64)> {
    let mut stat = [0_u64; 18];
    // SAFETY: as in `file_size`.
    unsafe { call(number::FSTAT, [fd_word(fd), stat.as_mut_ptr() as usize, 0, 0, 0, 0]) }?;
    Ok((stat[0], stat[1]))
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
