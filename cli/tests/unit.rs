//! The unit by which systemd runs the server, as systemd itself reads it.

use std::path::Path;
use std::process::Command;

/// The unit, in a directory of its own, running the program under test with flags from `file`.
fn unit(place: &Path, file: &Path) -> std::path::PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../garden/systemd/bloomery-garden.service");
    let text = std::fs::read_to_string(source).unwrap();
    let program = "/usr/local/bin/bloomery ";
    let settings = "/etc/bloomery/garden.ini";
    assert!(text.contains(program) && text.contains(settings), "{text}");
    let text = text
        .replace(program, concat!(env!("CARGO_BIN_EXE_bloomery"), " "))
        .replace(settings, file.to_str().unwrap());
    let unit = place.join("bloomery-garden.service");
    std::fs::write(&unit, text).unwrap();
    unit
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    let place = tempfile::tempdir().unwrap();
    let unit = unit(place.path(), &place.path().join("garden.ini"));
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&unit)
        .output()
        .expect("the tests need systemd-analyze");
    let said = String::from_utf8_lossy(&verified.stderr);
    let of_ours: Vec<_> = said.lines().filter(|line| line.contains("bloomery-garden")).collect();
    assert!(verified.status.success() && of_ours.is_empty(), "{said}");
}

#[test]
fn the_units_command_line_is_understood() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("garden.ini");
    std::fs::write(&file, "no-such-flag = 1\n").unwrap();
    let text = std::fs::read_to_string(unit(place.path(), &file)).unwrap();
    let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words: Vec<_> = start.split(' ').collect();
    // Nothing of the line itself is refused, but what it reads is: no server starts.
    let refused = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("--no-such-flag"), "{said}");
    assert!(text.contains("\nType=notify\n") && text.contains("\nKillMode=process\n"), "{text}");
}
