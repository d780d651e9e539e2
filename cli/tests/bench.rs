//! `bloomery bench containers`, run for as short as it goes.

use std::process::{Command, Stdio};

use serde_json::Value;

/// Everything that a run without options promises.
const REQUIRED: [&str; 18] = [
    "full cycle, quickest tenth, floor",
    "full cycle, runc run",
    "full cycle, crun run",
    "full cycle, floor",
    "full cycle, ours, in process, pool",
    "full cycle, ours, in process, no pool",
    "create to first instruction, runc run",
    "create to first instruction, crun run",
    "create to first instruction, floor",
    "create to first instruction, ours, in process, pool",
    "create to first instruction, ours, in process, no pool",
    "create with network, ours, in process, pool",
    "create with network, ours, in process, no pool",
    "run to first instruction, ours, in process, pool",
    "run to first instruction, ours, in process, no pool",
    "destroy, ours, in process, pool",
    "destroy, ours, in process, no pool",
    "full cycle, quickest tenth, runc run",
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
    // Two rounds on a busy machine may find the floor anywhere; nothing else may be amiss.
    let amiss = said.lines().find(|line| !line.contains("the floor's quickest cycles are"));
    assert_eq!(amiss, None, "{told}\n{said}");

    let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for name in REQUIRED {
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("no row {name:?} in {told}"));
        let samples = row["samples"].as_array().unwrap();
        assert!(!samples.is_empty(), "{name}");
        assert!(samples.iter().all(|sample| sample.as_f64().unwrap() > 0.0), "{name}: {samples:?}");
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
