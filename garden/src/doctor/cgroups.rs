//! What enforces containers' limits.

use std::path::Path;

use garden_cgroup::{Enforcer, Requirement, Survey};

use super::{Fact, NO_CONTAINER, chain};
use crate::gardener::CGROUPS;

pub fn controllers() -> Vec<Fact> {
    let survey = match Survey::of(Path::new(CGROUPS)) {
        Ok(survey) => survey,
        Err(error) => {
            return vec![Fact::new("cgroup v2", chain(&error)).missing(
                NO_CONTAINER,
                format!(
                    "mount -t cgroup2 none {CGROUPS}/unified beside v1, or boot with \
                     systemd.unified_cgroup_hierarchy=1"
                ),
            )];
        }
    };
    let mut facts = vec![hierarchy(&survey)];
    for (name, requirement, lost) in [
        ("CPU limits", Requirement::Cpu, "containers have neither shares nor quotas of CPU"),
        (
            "memory limits",
            Requirement::Memory,
            "containers may use all memory, and nobody learns who ran out of it",
        ),
        ("process limits", Requirement::Pids, "a container may use up the host's processes"),
    ] {
        facts.push(limit(&survey, name, requirement, lost));
    }
    facts.push(devices(&survey));
    facts
}

fn hierarchy(survey: &Survey) -> Fact {
    let fact = |found: String| Fact::new("cgroup v2", found);
    let path = survey.path().display();
    let missing = survey.not_enabled();
    if missing.is_empty() {
        return fact(format!("at {path}"));
    }
    let names = missing.join(", ");
    match survey.is_occupied() {
        Ok(false) => fact(format!("at {path}; the server will enable {names} there")),
        Ok(true) => fact(format!("at {path}, which is not the root and has processes")).missing(
            format!("{names} cannot be enabled, so the server does not start"),
            "move these processes to a cgroup below it, or delegate one without processes",
        ),
        Err(error) => fact(chain(&error)).missing(NO_CONTAINER, "let root read the hierarchy"),
    }
}

fn limit(survey: &Survey, name: &str, requirement: Requirement, lost: &str) -> Fact {
    let fact = |found: String| Fact::new(name, found);
    match survey.enforcer(requirement) {
        Some(Enforcer::V1(path)) => fact(format!("by cgroup v1 at {}", path.display())),
        Some(_) => fact("by cgroup v2".into()),
        None => fact("no controller".into()).degraded(
            lost,
            "enable the controller (cgroup_enable=memory or cgroup_no_v1= on the kernel's command \
             line), or have it delegated to this cgroup",
        ),
    }
}

fn devices(survey: &Survey) -> Fact {
    let fact = |found: String| Fact::new("device policy", found);
    match survey.enforcer(Requirement::Devices) {
        Some(Enforcer::V1(path)) => fact(format!("by cgroup v1 at {}", path.display())),
        Some(_) => fact("by a BPF program".into()),
        None => fact("neither BPF programs nor cgroup v1's controller".into()).missing(
            "privileged containers could use every device of the host",
            "a kernel with CONFIG_CGROUP_BPF, and root with the capabilities BPF and NET_ADMIN",
        ),
    }
}
