//! What is made once and kept below the target directory: the program, the root file system, the
//! Python client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use machine::Programs;
use sha2::{Digest as _, Sha256};

/// What the root file system is made by and of.
const STACK: &[u8] = include_bytes!("../../../cli/src/up/stack.rs");
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/requirements.txt");

/// The `bloomery` program of this workspace, or the one that `BLOOMERY_PROGRAM` names.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("BLOOMERY_PROGRAM") {
        Some(path) => path.into(),
        None => Programs::binary("bloomery").unwrap().path("cli", "bloomery").unwrap(),
    })
}

/// A directory that holds `base.tar`, made by the program itself if it is not there. It takes
/// minutes then.
pub fn stack() -> PathBuf {
    once("stack", STACK, |data| {
        eprintln!("platform: making the root file system once");
        let mut command = Command::new(program());
        succeed(command.arg("stack").arg("--data").arg(data));
    })
    .join("stack")
}

/// A directory for `PYTHONPATH` with the packages of `python/requirements.txt`.
pub fn python_packages() -> PathBuf {
    once("python", &fs::read(PYTHON).unwrap(), |directory| {
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        command.args(["--no-warn-conflicts", "--root-user-action", "ignore"]);
        command.args(["--only-binary", ":all:", "--require-hashes", "--requirement", PYTHON]);
        succeed(command.arg("--target").arg(directory));
    })
}

/// A directory of the cache that depends on what it is made of; others wait while it is made.
fn once(name: &str, of: &[u8], make: impl FnOnce(&Path)) -> PathBuf {
    let cache = machine::directory("platform").unwrap();
    let _lock = machine::lock(&cache.join(format!("{name}.lock"))).unwrap();
    let key: String = Sha256::digest(of).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let directory = cache.join(format!("{name}-{key}"));
    if !directory.exists() {
        let new = cache.join(format!("{name}.new"));
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        make(&new);
        machine::keep(&new, &directory).unwrap();
    }
    directory
}

fn succeed(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
