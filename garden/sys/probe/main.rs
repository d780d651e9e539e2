//! Runs inside a container: makes system calls and says what the kernel answered.
//!
//! Without arguments every call of [`CALLS`] on the native interface, with `ia32` and `x32` the
//! few of these interfaces. One line each: name, then `0` or the errno. The calls are chosen so
//! that one that is let through fails for its nonsense arguments, or does no harm.

use std::arch::asm;

/// An address that is mapped in no process.
const NOWHERE: usize = 8;
const NONE: usize = usize::MAX;
const NAMESPACES: [(&str, usize); 6] = [
    ("mnt", 0x2_0000),
    ("uts", 0x400_0000),
    ("ipc", 0x800_0000),
    ("user", 0x1000_0000),
    ("pid", 0x2000_0000),
    ("net", 0x4000_0000),
];
const SIGCHLD: usize = 17;

/// Name, number (x86_64), arguments.
const CALLS: &[(&str, i64, [usize; 4])] = &[
    ("getpid", libc::SYS_getpid, [0; 4]),
    ("clone", libc::SYS_clone, [SIGCHLD, 0, 0, 0]),
    ("clone3", libc::SYS_clone3, [NOWHERE, 8, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [NONE, NONE, 0, 0]),
    ("faccessat2", libc::SYS_faccessat2, [NONE, NOWHERE, 0, 0]),
    ("membarrier", libc::SYS_membarrier, [0; 4]),
    ("close_range", libc::SYS_close_range, [9, 8, 0, 0]),
    ("pidfd_open", libc::SYS_pidfd_open, [NONE, 0, 0, 0]),
    ("rseq", libc::SYS_rseq, [NOWHERE, 0, 7, 0]),
    ("seccomp", libc::SYS_seccomp, [NONE, 0, 0, 0]),
    ("prctl", libc::SYS_prctl, [NONE, 0, 0, 0]),
    ("socket", libc::SYS_socket, [NONE, 0, 0, 0]),
    ("chroot", libc::SYS_chroot, [NOWHERE, 0, 0, 0]),
    ("mknodat", libc::SYS_mknodat, [NONE, NOWHERE, 0, 0]),
    ("setuid", libc::SYS_setuid, [NONE, 0, 0, 0]),
    ("personality-0", libc::SYS_personality, [0, 0, 0, 0]),
    ("personality-8", libc::SYS_personality, [8, 0, 0, 0]),
    ("personality-ask", libc::SYS_personality, [0xffff_ffff, 0, 0, 0]),
    ("personality-no-randomize", libc::SYS_personality, [0x4_0000, 0, 0, 0]),
    ("personality-read-implies-exec", libc::SYS_personality, [0x40_0000, 0, 0, 0]),
    ("mount", libc::SYS_mount, [NOWHERE, NOWHERE, NOWHERE, 0]),
    ("umount2", libc::SYS_umount2, [NOWHERE, 0, 0, 0]),
    ("pivot_root", libc::SYS_pivot_root, [NOWHERE, NOWHERE, 0, 0]),
    ("fsopen", libc::SYS_fsopen, [NOWHERE, 0, 0, 0]),
    ("fsconfig", libc::SYS_fsconfig, [NONE, 0, 0, 0]),
    ("fsmount", libc::SYS_fsmount, [NONE, 0, 0, 0]),
    ("fspick", libc::SYS_fspick, [NONE, NOWHERE, 0, 0]),
    ("open_tree", libc::SYS_open_tree, [NONE, NOWHERE, 0, 0]),
    ("move_mount", libc::SYS_move_mount, [NONE, NOWHERE, NONE, NOWHERE]),
    ("mount_setattr", libc::SYS_mount_setattr, [NONE, NOWHERE, 0, 0]),
    ("unshare", libc::SYS_unshare, [0, 0, 0, 0]),
    ("setns", libc::SYS_setns, [NONE, 0, 0, 0]),
    ("keyctl", libc::SYS_keyctl, [NONE, 0, 0, 0]),
    ("add_key", libc::SYS_add_key, [NOWHERE, NOWHERE, 0, 0]),
    ("request_key", libc::SYS_request_key, [NOWHERE, NOWHERE, 0, 0]),
    ("bpf", libc::SYS_bpf, [NONE, NOWHERE, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [NOWHERE, NONE, NONE, NONE]),
    ("kexec_load", libc::SYS_kexec_load, [0, NONE, NOWHERE, NONE]),
    ("kexec_file_load", libc::SYS_kexec_file_load, [NONE, NONE, 0, 0]),
    ("init_module", libc::SYS_init_module, [NOWHERE, 1, NOWHERE, 0]),
    ("finit_module", libc::SYS_finit_module, [NONE, NOWHERE, 0, 0]),
    ("delete_module", libc::SYS_delete_module, [NOWHERE, 0, 0, 0]),
    ("reboot", libc::SYS_reboot, [0, 0, 0, 0]),
    ("swapon", libc::SYS_swapon, [NOWHERE, 0, 0, 0]),
    ("swapoff", libc::SYS_swapoff, [NOWHERE, 0, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, [NONE, 0, 0, 0]),
    ("quotactl", libc::SYS_quotactl, [NONE, NOWHERE, 0, NOWHERE]),
    ("quotactl_fd", libc::SYS_quotactl_fd, [NONE, NONE, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, NOWHERE, 0, 0]),
    ("io_uring_enter", libc::SYS_io_uring_enter, [NONE, 0, 0, 0]),
    ("io_uring_register", libc::SYS_io_uring_register, [NONE, 0, 0, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [NONE, NOWHERE, 0, 0]),
    ("name_to_handle_at", libc::SYS_name_to_handle_at, [NONE, NOWHERE, 0, 0]),
    ("acct", libc::SYS_acct, [NOWHERE, 0, 0, 0]),
    ("settimeofday", libc::SYS_settimeofday, [NOWHERE, NOWHERE, 0, 0]),
    ("clock_settime", libc::SYS_clock_settime, [NONE, NOWHERE, 0, 0]),
    ("adjtimex", libc::SYS_adjtimex, [NOWHERE, 0, 0, 0]),
    ("sethostname", libc::SYS_sethostname, [NOWHERE, NONE, 0, 0]),
    ("setdomainname", libc::SYS_setdomainname, [NOWHERE, NONE, 0, 0]),
    ("iopl", libc::SYS_iopl, [NONE, 0, 0, 0]),
    ("ioperm", libc::SYS_ioperm, [NONE, 1, 1, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [NONE, NOWHERE, 1, NOWHERE]),
    ("process_vm_writev", libc::SYS_process_vm_writev, [NONE, NOWHERE, 1, NOWHERE]),
    ("kcmp", libc::SYS_kcmp, [NONE, NONE, 0, 0]),
    ("move_pages", libc::SYS_move_pages, [NONE, 1, NOWHERE, NOWHERE]),
    ("mbind", libc::SYS_mbind, [NOWHERE, 1, NONE, NOWHERE]),
    ("set_mempolicy", libc::SYS_set_mempolicy, [NONE, NOWHERE, 1, 0]),
    ("fanotify_init", libc::SYS_fanotify_init, [NONE, 0, 0, 0]),
    ("lookup_dcookie", libc::SYS_lookup_dcookie, [0, NOWHERE, 0, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [NONE, NONE, 0, 0]),
    ("process_madvise", libc::SYS_process_madvise, [NONE, NOWHERE, 0, 0]),
    ("memfd_secret", libc::SYS_memfd_secret, [NONE, 0, 0, 0]),
    ("vhangup", libc::SYS_vhangup, [0; 4]),
    ("uselib", libc::SYS_uselib, [NOWHERE, 0, 0, 0]),
    ("ustat", libc::SYS_ustat, [NONE, NOWHERE, 0, 0]),
    ("sysfs", libc::SYS_sysfs, [NONE, 0, 0, 0]),
    ("no-such-call", 0x0fff_ffff, [0; 4]),
];

fn main() {
    match std::env::args().nth(1).as_deref() {
        None => native(),
        Some("x32") => x32(),
        Some("ia32") => ia32(),
        Some(other) => panic!("no interface {other:?}"),
    }
}

fn say(name: &str, answer: i64) {
    println!("{name} {}", if answer < 0 { -answer } else { 0 });
}

fn native() {
    for (name, number, arguments) in CALLS {
        say(name, call(*number, *arguments));
    }
    for (name, flag) in NAMESPACES {
        say(&format!("clone-{name}"), call(libc::SYS_clone, [flag | SIGCHLD, 0, 0, 0]));
        say(&format!("unshare-{name}"), call(libc::SYS_unshare, [flag, 0, 0, 0]));
    }
}

fn x32() {
    const X32: i64 = 0x4000_0000;
    say("getpid", call(X32 | libc::SYS_getpid, [0; 4]));
    say("mount", call(X32 | libc::SYS_mount, [0; 4]));
    say("unshare", call(X32 | libc::SYS_unshare, [0; 4]));
    say("keyctl", call(X32 | libc::SYS_keyctl, [0; 4]));
}

/// Numbers of `asm/unistd_32.h`.
fn ia32() {
    say("getpid", old_call(20, 0));
    say("personality-0", old_call(136, 0));
    say("personality-no-randomize", old_call(136, 0x4_0000));
    say("mount", old_call(21, 0));
    say("unshare", old_call(310, 0));
    say("keyctl", old_call(288, 0));
    say("clone3", old_call(435, 0));
}

/// The kernel's answer, a negative errno or not. A child that a call has made ends at once.
fn call(number: i64, arguments: [usize; 4]) -> i64 {
    let [first, second, third, fourth] = arguments;
    let answer: i64;
    // SAFETY: the table's calls neither write to memory of this process (their pointers are null
    // or unmapped) nor close or unmap what it uses; the instruction clobbers rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") number => answer, in("rdi") first, in("rsi") second,
            in("rdx") third, in("r10") fourth, in("r8") 0, in("r9") 0,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    let made_a_child = number == libc::SYS_clone;
    if made_a_child && answer == 0 {
        // SAFETY: exit_group(2) of a copy of this process takes nothing from the original.
        unsafe { libc::_exit(0) }
    }
    answer
}

/// The same by the 32-bit interface.
fn old_call(number: i32, first: i32) -> i64 {
    let answer: i32;
    // SAFETY: as above; the interrupt keeps all registers but eax, and r8 to r11 on some kernels.
    // rbx belongs to the compiler, so it is put back.
    unsafe {
        asm!("xchg rbx, {first:r}", "int 0x80", "xchg rbx, {first:r}", first = inout(reg) first => _,
            inlateout("eax") number => answer, in("ecx") 0, in("edx") 0, in("esi") 0, in("edi") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, options(nostack));
    }
    i64::from(answer)
}
