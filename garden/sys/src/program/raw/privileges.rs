//! What a process may: ids, capabilities, seccomp, limits.

use super::{Answer, Errno, call, number};

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
