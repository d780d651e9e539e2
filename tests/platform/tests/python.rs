//! Python's client of Cloud Foundry, an unmodified release, against the platform.

use std::path::Path;

use platform_tests::{Platform, apps, python_packages};

#[test]
fn the_python_client_makes_its_v3_calls() {
    let packages = python_packages();
    let platform = Platform::started(0);
    let directory = platform.world().directory();
    let archive = directory.join("app.zip");
    std::fs::write(&archive, apps::server("snake", "one").archive_without(&[])).unwrap();
    let output = platform
        .world()
        .command(Path::new("python3"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/calls.py"))
        .args(["http://api.bloomery.localhost", &platform.password()])
        .arg(&archive)
        .current_dir(directory)
        .env("PYTHONPATH", packages)
        // Nothing is written beside the script.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");
    println!("{said}");
}
