//! `bloomery bench containers`, run for as short as it goes.

use std::process::{Command, Stdio};

use serde_json::Value;

/// Everything that a run without options promises.
const REQUIRED: [&str; 41] = [
    "full cycle, quickest tenth, floor",
    "full cycle, quickest tenth, runc run",
    "create to first instruction, runc run",
    "full cycle, runc run",
    "create to first instruction, crun run",
    "full cycle, crun run",
    "create to first instruction, floor",
    "full cycle, floor",
    "create to first instruction, ours, HTTP, pool",
    "full cycle, ours, HTTP, pool",
    "create with network, ours, HTTP, pool",
    "run to first instruction, ours, HTTP, pool",
    "destroy, ours, HTTP, pool",
    "create to first instruction, ours, HTTP, no pool",
    "full cycle, ours, HTTP, no pool",
    "create with network, ours, HTTP, no pool",
    "run to first instruction, ours, HTTP, no pool",
    "destroy, ours, HTTP, no pool",
    "create to first instruction, ours, in process, pool",
    "full cycle, ours, in process, pool",
    "create with network, ours, in process, pool",
    "run to first instruction, ours, in process, pool",
    "destroy, ours, in process, pool",
    "create to first instruction, ours, in process, no pool",
    "full cycle, ours, in process, no pool",
    "create with network, ours, in process, no pool",
    "run to first instruction, ours, in process, no pool",
    "destroy, ours, in process, no pool",
    "p95/p50 of create with network, ours, HTTP, pool",
    "create and destroy, back to back, until all is clean",
    "CPU time of it, put-off work included",
    "create with network, back to back",
    "clean-up complete after a destroy",
    "create with network, among 0 live",
    "create with network, among 250 live",
    "memory of the daemon, empty",
    "memory of the daemon, per container",
    "memory of a container's process 1 (PSS)",
    "kernel memory, per container",
    "memory of the daemon and its supervisor, per running process",
    "helper processes, per running process",
];

#[test]
fn a_tiny_run_yields_every_required_row_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (json, plot) = (directory.path().join("rows.json"), directory.path().join("plot.svg"));
    let bench = Command::new(env!("CARGO_BIN_EXE_bloomery"))
        .args(["bench", "containers", "--rounds", "2", "--json"])
        .arg(&json)
        .arg("--plot")
        .arg(&plot)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = bench.id();
    let output = bench.wait_with_output().unwrap();
    let (told, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Two rounds on a busy machine may find the floor anywhere, which fails the run; nothing else may
    // be amiss.
    let amiss = said.lines().find(|line| !line.contains("the floor's quickest cycles are"));
    assert_eq!(amiss, None, "{told}\n{said}");
    assert_eq!(output.status.success(), said.is_empty(), "{:?}\n{said}", output.status);

    let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for name in REQUIRED {
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("no row {name:?} in {told}"));
        let samples = row["samples"].as_array().unwrap();
        assert!(!samples.is_empty(), "{name}");
        assert!(
            samples.iter().all(|sample| sample.as_f64().unwrap() >= 0.0),
            "{name}: {samples:?}"
        );
        assert!(told.contains(name), "the table lacks {name:?}: {told}");
    }
    assert!(std::fs::read_to_string(&plot).unwrap().ends_with("</svg>\n"));

    let own = format!("bloomery-bench.{pid}");
    for parent in [std::env::temp_dir(), "/run".into()] {
        assert!(!parent.join(&own).exists(), "{} is left", parent.join(&own).display());
    }
    assert!(!std::fs::read_to_string("/proc/self/mounts").unwrap().contains(&own));
}

#[test]
fn a_bench_without_its_peers_says_how_to_get_them() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bloomery"))
        .args(["bench", "containers", "--rounds", "1"])
        .env("PATH", empty.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("apt-get install runc"), "{said}");
}
