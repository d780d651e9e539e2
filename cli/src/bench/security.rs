//! The security work that every contender does, as data: what their bundles are made from, and what
//! a process inside then has to see.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use bloomery_garden::bundle::MASKED;
use bloomery_garden::identity;

/// Memory limit in bytes.
pub const MEMORY: u64 = 128 << 20;
/// CPU shares (cgroup v1; a weight is computed from it on v2).
pub const SHARES: u64 = 512;
/// Limit of tasks.
pub const TASKS: u64 = 256;

/// Capabilities that processes hold, cut by what this process may hand on.
pub fn capabilities() -> anyhow::Result<u64> {
    let own = identity::own_bounds().context("cannot read the own capabilities")?;
    Ok(identity::bounds(false, own).root)
}

/// The same in capabilities(7)'s names, for OCI bundles.
pub fn capability_names(set: u64) -> Vec<String> {
    const NAMES: [(u32, &str); 14] = [
        (0, "CHOWN"),
        (1, "DAC_OVERRIDE"),
        (3, "FOWNER"),
        (4, "FSETID"),
        (5, "KILL"),
        (6, "SETGID"),
        (7, "SETUID"),
        (8, "SETPCAP"),
        (10, "NET_BIND_SERVICE"),
        (13, "NET_RAW"),
        (18, "SYS_CHROOT"),
        (27, "MKNOD"),
        (29, "AUDIT_WRITE"),
        (31, "SETFCAP"),
    ];
    let held = |&&(bit, _): &&(u32, &str)| set & (1 << bit) != 0;
    NAMES.iter().filter(held).map(|(_, name)| format!("CAP_{name}")).collect()
}

/// The list, for people; `instructions` is the length of the seccomp program.
pub fn list(instructions: usize) -> Vec<String> {
    vec![
        "namespaces: user (root is host id 4294967294), pid, mount, network, ipc, uts".into(),
        format!(
            "seccomp: Garden's default profile for x86-64, x86 and x32; the floor and ours load \
             the compact program ({instructions} instructions), the others what they make of it"
        ),
        "capabilities: 14 in bounding, permitted and effective, none inheritable or ambient".into(),
        format!(
            "limits: memory {} MiB, cpu shares {SHARES}, {TASKS} tasks; device allow list",
            MEMORY >> 20
        ),
        format!("masked paths: {}", MASKED.join(" ")),
        "mounts: overlay root, own /proc, /dev with 6 nodes, pts, shm, mqueue, read-only /sys and \
         cgroups; then pivot_root"
            .into(),
        "network: loopback up everywhere; ours besides a veth pair, addresses and rules".into(),
    ]
}

/// What is run inside, once per contender: `key=value` lines.
pub const SCRIPT: &str = r#"
while read -r key value; do
  case $key in CapInh:|CapPrm:|CapEff:|CapBnd:|CapAmb:|Seccomp:) echo "${key%:}=$value";; esac
done < /proc/self/status
for n in user pid mnt net ipc uts; do echo "ns.$n=$(readlink /proc/self/ns/$n)"; done
read -r a b c < /proc/self/uid_map; echo "uid_map=$a $b $c"
read -r a b c < /proc/self/gid_map; echo "gid_map=$a $b $c"
for f in /proc/kcore /proc/keys /proc/timer_list; do
  [ -e $f ] && echo "masked.$f=$(head -c 1 $f | wc -c)"
done
[ -d /sys/firmware ] && echo "masked./sys/firmware=$(ls -A /sys/firmware | wc -l)"
c=/sys/fs/cgroup
echo "memory=$(cat $c/memory/memory.limit_in_bytes $c/memory.max 2>/dev/null)"
echo "tasks=$(cat $c/pids/pids.max $c/pids.max 2>/dev/null)"
echo "cpu=$(cat $c/cpu/cpu.shares $c/cpu,cpuacct/cpu.shares $c/cpu.weight 2>/dev/null)"
echo "root=$(while read -r s t k r; do [ $t = / ] && echo $k; done < /proc/mounts)"
echo "lo=$(cat /sys/class/net/lo/flags)"
echo "sys=$(mkdir /sys/fs/x 2>/dev/null && echo writable || echo read-only)"
echo "pid=$$"
for d in null zero full random urandom tty; do [ -c /dev/$d ] && echo "dev.$d=yes"; done
"#;

/// Compares what a process inside has seen with what it has to see.
pub fn check(who: &str, seen: &str, capabilities: u64) -> anyhow::Result<()> {
    let lines: BTreeMap<&str, &str> =
        seen.lines().filter_map(|line| line.trim_end().split_once('=')).collect();
    let get = |key: &str| lines.get(key).copied();
    let set = format!("{capabilities:016x}");
    let none = format!("{:016x}", 0);
    let (memory, tasks) = (MEMORY.to_string(), TASKS.to_string());
    let mut wanted: Vec<(String, &str)> = vec![
        ("CapInh".into(), &none),
        ("CapPrm".into(), &set),
        ("CapEff".into(), &set),
        ("CapBnd".into(), &set),
        ("CapAmb".into(), &none),
        ("Seccomp".into(), "2"),
        ("uid_map".into(), "0 4294967294 1"),
        ("gid_map".into(), "0 4294967294 1"),
        ("memory".into(), &memory),
        ("tasks".into(), &tasks),
        ("root".into(), "overlay"),
        ("lo".into(), "0x9"),
        ("sys".into(), "read-only"),
        ("masked./proc/kcore".into(), "0"),
        ("masked./proc/keys".into(), "0"),
        ("masked./sys/firmware".into(), "0"),
    ];
    let devices = ["null", "zero", "full", "random", "urandom", "tty"];
    wanted.extend(devices.map(|device| (format!("dev.{device}"), "yes")));
    let mut wrong: Vec<String> = wanted
        .iter()
        .filter(|(key, value)| get(key) != Some(*value))
        // What this host does not have need not be hidden.
        .filter(|(key, _)| {
            key.strip_prefix("masked.").is_none_or(|path| std::path::Path::new(path).exists())
        })
        .map(|(key, value)| format!("{key} is {:?} and not {value:?}", get(key).unwrap_or("")))
        .collect();
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}"))
            .with_context(|| format!("cannot read the own {kind} namespace"))?;
        let inside = get(&format!("ns.{kind}")).unwrap_or("");
        if inside.is_empty() || inside == host.to_string_lossy() {
            wrong.push(format!("its {kind} namespace is {inside:?}, not its own"));
        }
    }
    if matches!(get("cpu"), None | Some("" | "1024" | "100")) {
        wrong.push(format!("cpu is {:?}, as if it had no shares", get("cpu").unwrap_or("")));
    }
    if !wrong.is_empty() {
        bail!("{who} does not do the same security work: {}", wrong.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_are_the_same_capabilities() {
        assert_eq!(capability_names(0xa804_25fb).len(), 14);
        assert_eq!(capability_names(1 << 31 | 1), ["CAP_CHOWN", "CAP_SETFCAP"]);
    }

    #[test]
    fn who_does_less_is_found_out() {
        let error = check("nobody", "Seccomp=0\nns.pid=pid:[1]\n", 0xa804_25fb).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("Seccomp is \"0\" and not \"2\""), "{text}");
        assert!(text.contains("its user namespace is \"\""), "{text}");
        assert!(text.contains("cpu is"), "{text}");
    }
}
