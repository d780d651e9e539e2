//! The profile of unprivileged containers.
//!
//! The calls Guardian allows, with its two argument rules, and the newer
//! harmless ones that programs have come to expect. Privileged containers get
//! no filter at all, and no capability changes this one.

use crate::profile::{Action, Comparison, Condition, Profile, Rule};

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// `CLONE_NEWNS`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID` and `NEWNET`; like
/// Guardian, without `NEWCGROUP`.
const NAMESPACE_FLAGS: u64 = 0x7c02_0000;

/// What Garden lets an unprivileged container call, on all three interfaces.
///
/// Anything else in the kernel's tables fails with `EPERM`, `clone3` and calls
/// newer than the tables with `ENOSYS`, so that libc falls back to the older one
/// (`clone3` hides its flags in memory that a filter cannot read).
pub fn garden_default() -> Profile {
    let allowed = [
        FILES,
        ATTRIBUTES,
        DESCRIPTORS,
        EVENTS,
        SOCKETS,
        MEMORY,
        PROCESSES,
        IDENTITY,
        SIGNALS,
        SCHEDULING,
        CLOCKS,
        IPC,
        SYSTEM,
        SANDBOXING,
        NEWER,
    ];
    let mut rules = vec![Rule {
        syscalls: allowed.iter().flat_map(|group| names(group)).collect(),
        conditions: Vec::new(),
        action: Action::Allow,
    }];
    // PER_LINUX, PER_LINUX32, and the value that only asks (personality(2)).
    rules.extend([0, 8, 0xffff_ffff].map(|persona| Rule {
        syscalls: names("personality").collect(),
        conditions: vec![Condition { argument: 0, comparison: Comparison::Eq(persona) }],
        action: Action::Allow,
    }));
    rules.push(Rule {
        syscalls: names("clone").collect(),
        conditions: vec![Condition {
            argument: 0,
            comparison: Comparison::MaskedEq { mask: NAMESPACE_FLAGS, value: 0 },
        }],
        action: Action::Allow,
    });
    rules.push(Rule {
        syscalls: names("clone3").collect(),
        conditions: Vec::new(),
        action: Action::Errno(ENOSYS),
    });
    Profile { default: Action::Errno(EPERM), unknown: Action::Errno(ENOSYS), rules }
}

fn names(group: &str) -> impl Iterator<Item = String> {
    group.split_ascii_whitespace().map(str::to_owned)
}

const FILES: &str = "
    access chdir chmod chown chown32 chroot creat faccessat fchdir fchmod fchmodat fchown fchown32
    fchownat fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd getdents getdents64 lchown
    lchown32 link linkat lstat lstat64 mkdir mkdirat mknod mknodat newfstatat open openat openat2
    readlink readlinkat rename renameat renameat2 rmdir stat stat64 statfs statfs64 statx symlink
    symlinkat sync syncfs truncate truncate64 umask unlink unlinkat utime utimensat utimes";

const ATTRIBUTES: &str = "
    fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr
    lremovexattr lsetxattr removexattr setxattr";

const DESCRIPTORS: &str = "
    _llseek close copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64
    fdatasync flock fsync ftruncate ftruncate64 ioctl lseek pipe pipe2 pread64 preadv pwrite64
    pwritev read readahead readv sendfile sendfile64 splice sync_file_range tee vmsplice write
    writev";

const EVENTS: &str = "
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_wait
    epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_setup io_submit poll ppoll pselect6
    select signalfd signalfd4";

const SOCKETS: &str = "
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg
    sendmmsg sendmsg sendto setsockopt shutdown socket socketcall socketpair";

const MEMORY: &str = "
    brk madvise memfd_create mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap msync munlock
    munlockall munmap remap_file_pages";

const PROCESSES: &str = "
    arch_prctl execve execveat exit exit_group fork get_robust_list get_thread_area getpgid getpgrp
    getpid getppid getrlimit getrusage getsid gettid kill modify_ldt prctl prlimit64 ptrace
    set_robust_list set_thread_area set_tid_address setpgid setrlimit setsid tgkill times tkill
    ugetrlimit vfork wait4 waitid waitpid";

const IDENTITY: &str = "
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setuid setuid32";

const SIGNALS: &str = "
    pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack sigreturn";

const SCHEDULING: &str = "
    futex getcpu getpriority ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority";

const CLOCKS: &str = "
    alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
    timerfd_gettime timerfd_settime";

const IPC: &str = "
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv
    msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget";

const SYSTEM: &str = "getrandom sysinfo syslog uname";

const SANDBOXING: &str = "
    landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp";

/// Not in Guardian's list; each does no more than an allowed call does, and
/// libc and language runtimes take `EPERM` from them for a failure.
const NEWER: &str = "
    cachestat clock_getres_time64 clock_gettime64 clock_nanosleep_time64 close_range epoll_pwait2
    faccessat2 fchmodat2 futex_requeue futex_time64 futex_wait futex_waitv futex_wake getxattrat
    io_pgetevents io_pgetevents_time64 listxattrat map_shadow_stack membarrier mq_timedreceive_time64
    mq_timedsend_time64 mseal pidfd_open pidfd_send_signal pkey_alloc pkey_free pkey_mprotect
    ppoll_time64 preadv2 pselect6_time64 pwritev2 recvmmsg_time64 removexattrat rseq
    rt_sigtimedwait_time64 sched_rr_get_interval_time64 semtimedop_time64 setxattrat sigaction
    signal sigpending sigprocmask sigsuspend timer_gettime64 timer_settime64 timerfd_gettime64
    timerfd_settime64 uretprobe utimensat_time64";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Abi, syscall_number};
    use crate::bpf::SeccompData;

    fn decide(name: &str, first: u64) -> Action {
        let nr = syscall_number(Abi::X86_64, name).unwrap();
        garden_default().decide(&SeccompData {
            nr,
            arch: Abi::X86_64.audit_arch(),
            instruction_pointer: 0,
            args: [first, 0, 0, 0, 0, 0],
        })
    }

    #[test]
    fn every_name_is_a_call_and_appears_once() {
        let profile = garden_default();
        profile.check().unwrap();
        let mut names = profile.rules[0].syscalls.clone();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "a name is listed twice");
    }

    #[test]
    fn calls_that_reach_the_host_are_refused() {
        for name in [
            "mount",
            "umount2",
            "unshare",
            "setns",
            "keyctl",
            "add_key",
            "request_key",
            "bpf",
            "perf_event_open",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "reboot",
            "swapon",
            "swapoff",
            "userfaultfd",
            "quotactl",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "open_by_handle_at",
            "pivot_root",
            "settimeofday",
            "clock_settime",
            "acct",
            "ioperm",
            "iopl",
            "fsopen",
            "move_mount",
            "mount_setattr",
            "open_tree",
        ] {
            assert_eq!(decide(name, 0), Action::Errno(EPERM), "{name}");
        }
    }

    #[test]
    fn clone_makes_threads_and_processes_but_no_namespaces() {
        const SIGCHLD: u64 = 17;
        const PTHREAD: u64 = 0x003d_0f00;
        for flags in [0, SIGCHLD, PTHREAD] {
            assert_eq!(decide("clone", flags), Action::Allow, "{flags:#x}");
        }
        for bit in [0x0002_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(decide("clone", SIGCHLD | bit), Action::Errno(EPERM), "{bit:#x}");
        }
        assert_eq!(decide("clone3", 0), Action::Errno(ENOSYS));
    }

    #[test]
    fn personality_takes_three_values() {
        for persona in [0, 8, 0xffff_ffff] {
            assert_eq!(decide("personality", persona), Action::Allow);
        }
        for persona in [1, 0x0004_0000, 0x0008_0008, u64::MAX, 1 << 32] {
            assert_eq!(decide("personality", persona), Action::Errno(EPERM), "{persona:#x}");
        }
    }
}
