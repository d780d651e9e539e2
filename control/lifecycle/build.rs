//! Builds the static file server that goes into droplets, with the compiler that cargo uses: one
//! static program of the standard library alone.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    const SOURCE: &str = "src/static-server/main.rs";
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("static-server");
    let compiler = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let status = Command::new(compiler)
        .args(["--edition", "2024", "--crate-name", "static_server", "--crate-type", "bin"])
        .args(["--target", &env::var("TARGET").expect("cargo sets TARGET")])
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "target-feature=+crt-static"])
        .args(["-C", "strip=symbols", "-C", "codegen-units=1", "-C", "lto=fat"])
        .arg("-o")
        .arg(&out)
        .arg(SOURCE)
        .status()
        .expect("the compiler that builds this crate can be started");
    assert!(status.success(), "{SOURCE} does not compile: {status}");
}
