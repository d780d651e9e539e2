//! Mounts: the new mount API, and what is left of the old one.

use core::ffi::CStr;

use super::{AT_EMPTY_PATH, AT_FDCWD, Answer, Fd, call, fd_word, number, small};

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
