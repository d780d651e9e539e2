//! The root file system `base`: Debian's smallest, with bash, certificates and Python.

use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

/// Its name in manifests.
pub const NAME: &str = "base";
/// One line about it.
pub const DESCRIPTION: &str = "Debian's minimal system with bash, certificates and Python";

const SUITE: &str = "bookworm";
const PACKAGES: &str = "bash,ca-certificates,python3";
/// Apps run as this user, as in the original's root file systems.
const VCAP: &str = "chroot \"$1\" groupadd -g 2000 vcap && \
                    chroot \"$1\" useradd -m -d /home/vcap -s /bin/bash -u 2000 -g 2000 vcap";
/// What no app reads.
const NEEDLESS: &str = "rm -rf \"$1\"/usr/share/doc/* \"$1\"/usr/share/man/* \"$1\"/usr/share/locale/* \
                        \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/*";

/// Where it is; made by mmdebstrap if it is not there.
pub fn ensure(data: &Path) -> anyhow::Result<PathBuf> {
    let stack = data.join(format!("stack/{NAME}.tar"));
    if stack.exists() {
        return Ok(stack);
    }
    let parent = data.join("stack");
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let new = parent.join(format!("{NAME}.new.tar"));
    let started = Instant::now();
    println!("  stack     {NAME}: made once from Debian's packages; this takes a minute or two");
    let mut child = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--format=tar", "--mode=root"])
        .arg(format!("--include={PACKAGES}"))
        .arg(format!("--customize-hook={VCAP}"))
        .arg(format!("--customize-hook={NEEDLESS}"))
        .arg(SUITE)
        .arg(&new)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context(
            "cannot start mmdebstrap, which makes the root file system; install the package \
             mmdebstrap, or name a root file system with --stack",
        )?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if std::io::stdout().is_terminal() && line.starts_with("I: ") {
                print!(
                    "\r\x1b[K  stack     {:>4} s  {}",
                    started.elapsed().as_secs(),
                    line[3..].trim()
                );
                std::io::stdout().flush()?;
            }
            said.push(line);
        }
    }
    let status = child.wait()?;
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[K");
    }
    if !status.success() {
        let _ = fs::remove_file(&new);
        let last = &said[said.len().saturating_sub(5)..];
        bail!("mmdebstrap ended with {status}:\n  {}", last.join("\n  "));
    }
    fs::rename(&new, &stack).with_context(|| format!("cannot name {}", stack.display()))?;
    println!("  stack     {NAME}                  {:.1} s", started.elapsed().as_secs_f64());
    Ok(stack)
}
