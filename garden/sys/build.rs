//! Builds the supervisor's program with the compiler that cargo uses, without a nested cargo: one
//! static executable, no C library, from `src/program/main.rs`.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/program");
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("supervisor");
    let compiler = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let status = Command::new(compiler)
        .args(["--edition", "2024", "--crate-name", "supervisor", "--crate-type", "bin"])
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
        .arg("-o")
        .arg(&out)
        .arg("src/program/main.rs")
        .status()
        .expect("the compiler that builds this crate can be started");
    assert!(status.success(), "the supervisor's program does not compile: {status}");
}
