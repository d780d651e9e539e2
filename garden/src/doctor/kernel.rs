//! The kernel itself, and what we may do with it.

use std::fs;
use std::os::fd::OwnedFd;

use garden_seccomp::garden_default;
use garden_sys::trial;

use super::{Fact, NO_CONTAINER, chain};
use crate::config::Config;
use crate::{apparmor, identity};

pub fn release() -> Fact {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    Fact::new("kernel", [name.sysname(), name.release(), name.machine()].map(text).join(" "))
}

/// Whether we are root, with root's capabilities.
pub fn privileges() -> Fact {
    /// What making containers takes: namespaces and mounts, links and rules.
    const NEEDED: [(u32, &str); 2] = [(21, "SYS_ADMIN"), (12, "NET_ADMIN")];
    let fact = |found: String| Fact::new("privileges", found);
    let user = rustix::process::geteuid();
    if !user.is_root() {
        return fact(format!("user {}", user.as_raw())).missing(
            "a Garden must be started as root",
            "sudo bloomery doctor, which sees the rest",
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let effective = effective.unwrap_or(0);
    if let Some((_, name)) = NEEDED.iter().find(|(bit, _)| effective & (1 << bit) == 0) {
        return fact(format!("root without the capability {name}"))
            .missing(NO_CONTAINER, "start this and the server as root of the host itself");
    }
    match identity::own_bounds().map(identity::missing) {
        Ok(missing) if missing.is_empty() => fact("root with all capabilities".into()),
        Ok(missing) => {
            let names = missing.join(", ");
            fact(format!("root without the capabilities {names}")).degraded(
                "privileged containers lack them",
                "start the server with a full bounding set (CapabilityBoundingSet= in its unit)",
            )
        }
        Err(error) => fact(error.to_string())
            .degraded("what privileged containers get is unknown", "mount /proc"),
    }
}

/// Whether exit statuses outlive the deaths of those who wait for them; `ended` is the pidfd of a
/// process that has been reaped.
pub fn exit_statuses(ended: Option<OwnedFd>) -> Fact {
    let fact = |found| Fact::new("exit statuses", found);
    let kept = ended.is_some_and(|process| trial::status_of_reaped(&process).is_some());
    if kept {
        return fact("kept by the kernel (PIDFD_GET_INFO)");
    }
    if trial::tells_of_ends() {
        return fact("told by the kernel's process events").degraded(
            "when keeper and anchor are killed within a second, a status may become unknown",
            "a kernel of 6.15 or newer",
        );
    }
    fact("neither kept nor told by the kernel").degraded(
        "when keeper and anchor are killed one after the other, statuses become unknown",
        "a kernel of 6.15 or newer, or one with CONFIG_PROC_EVENTS and this in its first network \
         namespace",
    )
}

/// The filter that containers get, on a thread.
pub fn seccomp() -> Fact {
    let fact = |found: String| Fact::new("seccomp", found);
    let unconfined = |fact: Fact| {
        fact.missing(
            NO_CONTAINER,
            "a kernel with CONFIG_SECCOMP_FILTER; if this is a container, \
                     one that may load filters",
        )
    };
    let filter = match garden_default().compile() {
        Ok(filter) => filter.bytes(),
        Err(error) => return unconfined(fact(chain(&error))),
    };
    match trial::filters_calls(&filter) {
        Ok(true) => fact("the filter of containers refuses what it is to refuse".into()),
        Ok(false) => {
            unconfined(fact("the filter of containers is loaded and refuses nothing".into()))
        }
        Err(error) => {
            unconfined(fact(format!("the filter of containers cannot be loaded: {error}")))
        }
    }
}

/// Whether processes are confined as the operator wants it.
pub fn apparmor(config: &Config) -> Fact {
    let fact = |found: String| Fact::new("AppArmor", found);
    let Some(profile) = &config.apparmor else {
        let enabled = if apparmor::is_enabled() { "enabled" } else { "not enabled" };
        return fact(format!("{enabled}; containers run without a profile (--apparmor)"));
    };
    match apparmor::require(profile) {
        Ok(()) => fact(format!("the profile {profile} is loaded")),
        Err(error) => fact(error.to_string()).missing(
            "the server does not start",
            "apparmor_parser -r with the file of the profile, or no --apparmor",
        ),
    }
}
