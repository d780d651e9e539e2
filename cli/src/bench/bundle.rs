//! The OCI bundle with the same security work, for runtimes of that kind (OCI runtime-spec 1.0).

use bloomery_garden::bundle::MASKED;
use garden_seccomp::{Action, Comparison, Profile};
use serde_json::{Value, json};

use super::security::{self, capability_names};

/// What tells one bundle from another.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    /// The root file system, a path of the host.
    pub root: &'a str,
    /// What to run.
    pub command: &'a [&'a str],
    /// Its cgroup in every hierarchy.
    pub cgroup: &'a str,
    /// Capabilities that it holds.
    pub capabilities: u64,
}

impl Bundle<'_> {
    /// The content of `config.json`.
    pub fn config(&self, profile: &Profile) -> Value {
        let capabilities = capability_names(self.capabilities);
        let map = json!([
            { "containerID": 0, "hostID": 4_294_967_294_u32, "size": 1 },
            { "containerID": 1, "hostID": 1, "size": 4_294_967_293_u32 },
        ]);
        let namespaces = ["user", "pid", "mount", "network", "ipc", "uts"];
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": self.command,
                "cwd": "/",
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "capabilities": {
                    "bounding": capabilities,
                    "effective": capabilities,
                    "permitted": capabilities,
                    "inheritable": [],
                    "ambient": [],
                },
                "noNewPrivileges": false,
            },
            "root": { "path": self.root, "readonly": false },
            "hostname": "bench",
            "mounts": [
                mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts",
                    &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
                mount("/dev/shm", "tmpfs",
                    &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
            ],
            "linux": {
                "namespaces": namespaces.map(|kind| json!({ "type": kind })),
                "uidMappings": map,
                "gidMappings": map,
                "cgroupsPath": self.cgroup,
                "resources": {
                    "devices": devices(),
                    "memory": { "limit": security::MEMORY },
                    "cpu": { "shares": security::SHARES },
                    "pids": { "limit": security::TASKS },
                },
                "seccomp": seccomp(profile),
                "maskedPaths": MASKED,
                "readonlyPaths": [],
            },
        })
    }
}

fn mount(target: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": kind, "source": kind, "options": options })
}

/// Nothing but the devices in `/dev`, terminals, and making nodes of any kind.
fn devices() -> Value {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(["c", "b"].map(|kind| json!({ "allow": true, "type": kind, "access": "m" })));
    let nodes = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
    rules.extend(nodes.map(|(major, minor)| {
        json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" })
    }));
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    Value::Array(rules)
}

/// A profile as OCI has it; rules of the same name are alternatives there, too.
fn seccomp(profile: &Profile) -> Value {
    let number = |action: Action| match action {
        Action::Errno(errno) => Some(errno),
        Action::Allow | Action::KillProcess => None,
    };
    let rules: Vec<_> = profile
        .rules
        .iter()
        .map(|rule| {
            let conditions: Vec<_> = rule
                .conditions
                .iter()
                .map(|condition| condition_of(condition.argument, condition.comparison))
                .collect();
            let mut value = json!({ "names": rule.syscalls, "action": action(rule.action) });
            if let Some(errno) = number(rule.action) {
                value["errnoRet"] = json!(errno);
            }
            if !conditions.is_empty() {
                value["args"] = json!(conditions);
            }
            value
        })
        .collect();
    json!({
        "defaultAction": action(profile.default),
        "defaultErrnoRet": number(profile.default),
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "SCMP_ACT_ALLOW",
        Action::Errno(_) => "SCMP_ACT_ERRNO",
        Action::KillProcess => "SCMP_ACT_KILL_PROCESS",
    }
}

fn condition_of(index: u8, comparison: Comparison) -> Value {
    let (op, value, two) = match comparison {
        Comparison::Eq(value) => ("SCMP_CMP_EQ", value, 0),
        Comparison::Ne(value) => ("SCMP_CMP_NE", value, 0),
        Comparison::Lt(value) => ("SCMP_CMP_LT", value, 0),
        Comparison::Le(value) => ("SCMP_CMP_LE", value, 0),
        Comparison::Gt(value) => ("SCMP_CMP_GT", value, 0),
        Comparison::Ge(value) => ("SCMP_CMP_GE", value, 0),
        // The mask comes first there.
        Comparison::MaskedEq { mask, value } => ("SCMP_CMP_MASKED_EQ", mask, value),
    };
    json!({ "index": index, "value": value, "valueTwo": two, "op": op })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_has_the_same_profile_masks_and_limits() {
        let command = ["/bin/stamp"];
        let bundle =
            Bundle { root: "/r", command: &command, cgroup: "/c", capabilities: 0xa804_25fb };
        let config = bundle.config(&garden_seccomp::garden_default());
        assert_eq!(config["linux"]["maskedPaths"].as_array().unwrap().len(), MASKED.len());
        assert_eq!(config["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
        let seccomp = &config["linux"]["seccomp"];
        assert_eq!(seccomp["defaultAction"], "SCMP_ACT_ERRNO");
        let rules = seccomp["syscalls"].as_array().unwrap();
        let clone = rules.iter().find(|rule| rule["names"] == json!(["clone"])).unwrap();
        assert_eq!(clone["args"][0]["op"], "SCMP_CMP_MASKED_EQ");
        assert_eq!(clone["args"][0]["value"], 0x7c02_0000);
        let clone3 = rules.iter().find(|rule| rule["names"] == json!(["clone3"])).unwrap();
        assert_eq!(clone3["errnoRet"], 38);
    }
}
