//! The machine that was measured, in words.

use std::fs;

use super::oci;

/// One line for the table and the plot.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let memory = rustix::system::sysinfo();
    let memory = (memory.totalram * u64::from(memory.mem_unit)) >> 30;
    let kernel = rustix::system::uname();
    let kernel = kernel.release().to_string_lossy().into_owned();
    let cgroups = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "cgroup v2"
    } else {
        "hybrid cgroups"
    };
    let runtimes: Vec<_> = ["runc", "crun", "youki"]
        .into_iter()
        .filter_map(|program| oci::version(program).map(|version| format!("{program} {version}")))
        .collect();
    format!(
        "{model}, {cores} cores, {memory} GiB, Linux {kernel}, {cgroups}; {}",
        runtimes.join(", ")
    )
}
