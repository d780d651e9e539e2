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

/// Options of prctl(2) whose arguments are integers, so that none of them can be an address.
#[derive(Clone, Copy)]
enum IntegerOption {
    SetDumpable = 4,
    CapbsetRead = 23,
    CapbsetDrop = 24,
    SetChildSubreaper = 36,
    SetNoNewPrivs = 38,
    CapAmbient = 47,
}

fn prctl(option: IntegerOption, argument: usize) -> Answer<usize> {
    // SAFETY: prctl(2) reads and writes no memory for these options, whatever their arguments.
    unsafe { call(number::PRCTL, [option as usize, argument, 0, 0, 0, 0]) }
}

/// Keeps processes of other users from looking into this one (PR_SET_DUMPABLE, prctl(2)); it
/// is undone by a change of user or an execve(2).
pub fn set_undumpable() {
    // Refused for values other than 0 and 1 only.
    let _ = prctl(IntegerOption::SetDumpable, 0);
}

/// Makes this process the parent of its descendants' orphans (PR_SET_CHILD_SUBREAPER, prctl(2)).
pub fn adopt_orphans() {
    // No kernel since 3.4 refuses.
    let _ = prctl(IntegerOption::SetChildSubreaper, 1);
}

/// No execve(2) gives this process privileges any more (PR_SET_NO_NEW_PRIVS, prctl(2)).
pub fn set_no_new_privileges() -> Answer<()> {
    prctl(IntegerOption::SetNoNewPrivs, 1).map(drop)
}

/// Empties the ambient set (PR_CAP_AMBIENT, prctl(2)).
pub fn clear_ambient_capabilities() {
    const CLEAR_ALL: usize = 4;
    // No kernel since 4.3 refuses.
    let _ = prctl(IntegerOption::CapAmbient, CLEAR_ALL);
}

/// Takes all capabilities out of the bounding set but those in `mask` (PR_CAPBSET_DROP, prctl(2)).
/// Those that are not in it already need no privilege.
pub fn bound_capabilities(mask: u64) -> Answer<()> {
    for capability in 0..64 {
        if mask & (1 << capability) != 0 {
            continue;
        }
        match prctl(IntegerOption::CapbsetRead, capability) {
            Ok(1) => drop(prctl(IntegerOption::CapbsetDrop, capability)?),
            Ok(_) => {}
            // A number beyond the kernel's last capability is EINVAL: that was the last one.
            Err(_) => break,
        }
    }
    Ok(())
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

/// Hard limit of one resource of this process (prlimit(2)).
pub fn hard_rlimit(resource: u32) -> Answer<u64> {
    let mut limit = [0_u64; 2];
    let old = limit.as_mut_ptr() as usize;
    // SAFETY: struct rlimit64 is two u64; a null new limit asks for the old one only.
    unsafe { call(number::PRLIMIT64, [0, resource as usize, 0, old, 0, 0]) }?;
    Ok(limit[1])
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
