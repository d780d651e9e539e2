//! Programs the kernel runs for us: eBPF device filters of cgroups, and the
//! classic BPF of seccomp.
//!
//! Both are checked by the kernel before it takes them, so any bytes may be
//! passed; bad ones are an error, never undefined behaviour.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `enum bpf_cmd` (`linux/bpf.h`).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The most programs the kernel keeps on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_ATTACHED: usize = 64;

/// The `BPF_PROG_LOAD` part of `union bpf_attr`, as far as it is used.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The `BPF_PROG_ATTACH` and `BPF_PROG_DETACH` part.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// The `BPF_PROG_GET_FD_BY_ID` part.
#[repr(C)]
struct GetById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The `BPF_PROG_QUERY` part.
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// A loaded `BPF_PROG_TYPE_CGROUP_DEVICE` program. Attachments outlive it and
/// end with their cgroup.
#[derive(Debug)]
pub struct DeviceProgram {
    program: OwnedFd,
}

impl DeviceProgram {
    /// Loads `struct bpf_insn`s of eight bytes each. Needs `CAP_BPF` and
    /// `CAP_NET_ADMIN`; `EACCES` and `EINVAL` are the verifier's refusals.
    pub fn load(insns: &[[u8; 8]]) -> io::Result<Self> {
        let license = c"Apache-2.0";
        let mut attr = Load {
            prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
            insn_cnt: u32::try_from(insns.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            insns: address(insns.as_ptr()),
            license: address(license.as_ptr()),
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name: *b"garden_devices\0\0",
        };
        // SAFETY: bpf(2) reads `insn_cnt` instructions of eight bytes at `insns`
        // and a NUL-terminated string at `license`; both are borrowed past the
        // call and hold that much. It writes nothing, as no log is asked for.
        let program = unsafe { bpf(BPF_PROG_LOAD, &mut attr)? };
        Ok(Self { program: owned(program)? })
    }

    /// The programs on this very cgroup, without its ancestors'. Needs
    /// `CAP_SYS_ADMIN`.
    pub fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<Self>> {
        let mut ids = [0u32; MAX_ATTACHED];
        let mut attr = Query {
            target_fd: raw(cgroup)?,
            attach_type: BPF_CGROUP_DEVICE,
            query_flags: 0,
            attach_flags: 0,
            prog_ids: address(ids.as_mut_ptr()),
            prog_cnt: 64,
            padding: 0,
        };
        // SAFETY: bpf(2) writes at most `prog_cnt` ids of four bytes at
        // `prog_ids`; `ids` holds that many, is not otherwise used during the
        // call and takes any value. The counts are written back into `attr`.
        unsafe { bpf(BPF_PROG_QUERY, &mut attr)? };
        let count = usize::try_from(attr.prog_cnt).unwrap_or(MAX_ATTACHED).min(MAX_ATTACHED);
        ids[..count].iter().map(|&id| Self::by_id(id)).collect()
    }

    fn by_id(id: u32) -> io::Result<Self> {
        let mut attr = GetById { id, next_id: 0, open_flags: 0 };
        // SAFETY: this command of bpf(2) takes no addresses.
        let program = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr)? };
        Ok(Self { program: owned(program)? })
    }

    /// Puts the program on a cgroup, beside others that are there: a device is
    /// open to a process if all of them, here and on ancestors, agree.
    pub fn attach(&self, cgroup: BorrowedFd<'_>) -> io::Result<()> {
        self.change(BPF_PROG_ATTACH, cgroup, BPF_F_ALLOW_MULTI)
    }

    /// Takes the program off a cgroup.
    pub fn detach(&self, cgroup: BorrowedFd<'_>) -> io::Result<()> {
        self.change(BPF_PROG_DETACH, cgroup, 0)
    }

    fn change(&self, command: libc::c_int, cgroup: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
        let mut attr = Attach {
            target_fd: raw(cgroup)?,
            attach_bpf_fd: raw(self.program.as_fd())?,
            attach_type: BPF_CGROUP_DEVICE,
            attach_flags: flags,
        };
        // SAFETY: attaching and detaching take no addresses; both descriptors
        // are borrowed past the call.
        unsafe { bpf(command, &mut attr) }.map(drop)
    }
}

/// bpf(2) with one part of its attribute union.
///
/// # Safety
///
/// `A` must be a `repr(C)` prefix of the union part that `command` uses, and
/// every address in it must be good for what the command reads or writes there.
unsafe fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads, and for some commands writes back, at most the
    // given size of `attr`, which is exclusively borrowed; it takes a shorter
    // attribute as one whose rest is zero. Addresses inside are the caller's
    // promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: both commands whose results come here return a new descriptor
    // (close-on-exec) that nothing else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

fn address<T>(pointer: *const T) -> u64 {
    // Addresses are 64 bits wide on every machine the filters are for.
    pointer.expose_provenance() as u64
}
