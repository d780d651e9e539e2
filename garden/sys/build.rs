//! Builds the small static programs with the compiler that cargo uses, without a nested cargo: static
//! executables without a C library, the supervisor from `src/program/main.rs` and the benchmark's
//! stamp from `src/floor/stamp.rs`.
//!
//! The package `garden-sys-previous` is built by it too, from the same sources, as the build before this
//! one would have been.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let package = env::var("CARGO_PKG_NAME").expect("cargo sets CARGO_PKG_NAME");
    let previous = package == "garden-sys-previous";
    let sources = if previous { "../../../garden/sys/src" } else { "src" };
    let sources = Path::new(sources);
    if previous {
        println!("cargo::rustc-cfg=previous_state");
    }
    for directory in ["program", "floor"] {
        println!("cargo::rerun-if-changed={}", sources.join(directory).display());
    }
    compile("supervisor", &sources.join("program/main.rs"), previous);
    compile("stamp", &sources.join("floor/stamp.rs"), previous);
}

fn compile(name: &str, source: &Path, previous: bool) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(name);
    let compiler = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let status = Command::new(compiler)
        .args(["--edition", "2024", "--crate-name", name, "--crate-type", "bin"])
        .args(["--target", &env::var("TARGET").expect("cargo sets TARGET")])
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "relocation-model=static"])
        .args(["-C", "target-feature=+crt-static", "-C", "strip=symbols", "-C", "codegen-units=1"])
        .args(["-C", "lto=fat", "-C", "force-unwind-tables=no"])
        .args([
            "-C",
            "link-arg=-nostartfiles",
            "-C",
            "link-arg=-nostdlib",
            "-C",
            "link-arg=-static",
        ])
        .args(["-C", "link-arg=-Wl,--build-id=none,-z,noexecstack,--gc-sections"])
        .args(["--check-cfg", "cfg(previous_state)"])
        .args(if previous { &["--cfg", "previous_state"][..] } else { &[] })
        .arg("-o")
        .arg(&out)
        .arg(source)
        .status()
        .expect("the compiler that builds this crate can be started");
    assert!(status.success(), "{} does not compile: {status}", source.display());
}
