//! Builds the small static programs with the compiler that cargo uses, without a nested cargo: static
//! executables without a C library, the supervisor from `src/program/main.rs` and the benchmark's
//! stamp from `src/floor/stamp.rs`.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/program");
    println!("cargo::rerun-if-changed=src/floor");
    compile("supervisor", "src/program/main.rs");
    compile("stamp", "src/floor/stamp.rs");
}

fn compile(name: &str, source: &str) {
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(name);
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
        .arg("-o")
        .arg(&out)
        .arg(source)
        .status()
        .expect("the compiler that builds this crate can be started");
    assert!(status.success(), "{source} does not compile: {status}");
}
