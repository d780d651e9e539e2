//! Who a container's users are on the host, and what they may do.
//!
//! All unprivileged containers share one map (Garden's "maximus"): root is the highest usable id,
//! every other id is itself. So only files of root differ between an image and a container.

/// What uid and gid 0 of an unprivileged container are on the host.
pub const MAPPED_ROOT: u32 = u32::MAX - 1;

/// What root of a container is on the host.
pub fn root(privileged: bool) -> u32 {
    if privileged { 0 } else { MAPPED_ROOT }
}

/// The map in the form of `/proc/<pid>/uid_map` (user_namespaces(7)).
pub const ID_MAP: &str = "0 4294967294 1\n1 1 4294967293\n";

/// Bits of capabilities(7).
mod capability {
    pub const SYS_ADMIN: u64 = 1 << 21;
    /// CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW
    /// SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP.
    pub const UNPRIVILEGED: u64 = 0xa804_25fb;
    /// Everything up to AUDIT_READ: neither PERFMON, BPF nor CHECKPOINT_RESTORE.
    pub const PRIVILEGED: u64 = 0x3f_ffff_ffff;
    /// By number; as many as [`PRIVILEGED`] has.
    pub const NAMES: [&str; 38] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
    ];
}

/// Bounding sets of a process: for its root, and for everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of uid 0.
    pub root: u64,
    /// Of all other users.
    pub others: u64,
}

/// What processes of a container may hold, cut by what the daemon itself may hand on.
pub fn bounds(privileged: bool, own: u64) -> Bounds {
    let root = if privileged { capability::PRIVILEGED } else { capability::UNPRIVILEGED };
    let others = root & (capability::UNPRIVILEGED | capability::SYS_ADMIN);
    Bounds { root: root & own, others: others & own }
}

/// The daemon's own bounding set, from `/proc/self/status`.
pub fn own_bounds() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| std::io::Error::other("/proc/self/status has no CapBnd line"))
}

/// Names of the capabilities that a privileged container should have and this daemon cannot give.
pub fn missing(own: u64) -> Vec<&'static str> {
    let missing = capability::PRIVILEGED & !own;
    let names = capability::NAMES.iter().enumerate();
    names.filter(|(number, _)| missing & (1 << number) != 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_those_of_the_reference() {
        assert_eq!(bounds(false, u64::MAX), Bounds { root: 0xa804_25fb, others: 0xa804_25fb });
        assert_eq!(bounds(true, u64::MAX), Bounds { root: 0x3f_ffff_ffff, others: 0xa824_25fb });
    }

    #[test]
    fn nothing_is_given_that_the_daemon_has_not() {
        let without_resource = !(1 << 24);
        assert_eq!(bounds(true, without_resource).root, 0x3f_feff_ffff);
        assert_eq!(missing(without_resource), ["SYS_RESOURCE"]);
        assert_eq!(missing(!0x3f_ffff_ffff).last(), Some(&"AUDIT_READ"));
    }
}
