//! The machine's first file system: an archive that the kernel unpacks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::cpio::Archive;
use crate::host::{call, find};
use crate::kernel::Files;
use crate::{modules, programs};

/// Programs of the host that tests use inside, and their packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("runc", "runc"),
    ("crun", "crun"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("tc", "iproute2"),
    ("bash", "bash"),
    ("tar", "tar"),
    ("setpriv", "util-linux"),
];

const USERS: &str = "root:x:0:0::/root:/bin/sh\nvcap:x:2000:2000::/home/vcap:/bin/sh\n";

/// Uncompressed: an emulated machine unpacks more slowly than it copies.
pub fn build(kernel: &Files) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in [
        "dev",
        "etc",
        "home",
        "home/vcap",
        "mnt",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "var",
        "var/lib",
        "var/tmp",
        "opt",
    ] {
        archive.directory(directory, 0o755);
    }
    for directory in ["bin", "sbin", "lib", "lib64"] {
        archive.link(directory, &format!("usr/{directory}"));
    }
    // What the kernel gives process 1 as its standard files, and what Rust falls back to.
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.character_device("dev/null", 0o666, (1, 3));
    for (path, content) in [
        ("etc/passwd", USERS),
        ("etc/group", "root:x:0:\nvcap:x:2000:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
        // nft names protocols by it.
        ("etc/protocols", "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\n"),
        ("etc/nsswitch.conf", "hosts: files dns\n"),
    ] {
        archive.file(path, 0o644, content.as_bytes());
    }
    let program = programs::agent()?;
    let program = fs::read(&program).with_context(|| format!("cannot read {program:?}"))?;
    archive.file("init", 0o755, &program);
    host_programs(&mut archive)?;
    archive.directory("usr/lib/modules", 0o755);
    let mut order = String::new();
    for (name, content) in modules::in_order(&kernel.modules)? {
        let path = format!("/usr/lib/modules/{name}.ko");
        archive.file(&path, 0o644, &content);
        order += format!("{path} {}", modules::parameters(&name)).trim_end();
        order.push('\n');
    }
    archive.file("usr/lib/modules/order", 0o644, order.as_bytes());
    Ok(archive.finish())
}

/// Busybox with all of its applets but those that a real program stands for, and the real ones.
fn host_programs(archive: &mut Archive) -> anyhow::Result<()> {
    let path = rootfs::busybox::find()?;
    let busybox = fs::read(&path).with_context(|| format!("cannot read {path:?}"))?;
    archive.file("usr/bin/busybox", 0o755, &busybox);
    let applets = String::from_utf8(call(&path, ["--list"], Path::new("/"))?)?;
    for applet in applets.lines() {
        if applet != "busybox" && PROGRAMS.iter().all(|(name, _)| *name != applet) {
            archive.link(&format!("usr/bin/{applet}"), "busybox");
        }
    }
    let mut libraries = BTreeSet::new();
    for (name, package) in PROGRAMS {
        let path =
            find(name).with_context(|| format!("no program {name}: apt-get install {package}"))?;
        let content = fs::read(&path).with_context(|| format!("cannot read {path:?}"))?;
        archive.file(&format!("usr/bin/{name}"), 0o755, &content);
        libraries.extend(linked(&path)?);
    }
    // runc, crun, ip and nft are at home in sbin on Debian; whoever names the path finds them.
    for name in ["runc", "nft", "ip", "bridge", "tc"] {
        archive.link(&format!("usr/sbin/{name}"), &format!("../bin/{name}"));
    }
    let mut made = BTreeSet::new();
    for library in libraries {
        let place = library.strip_prefix("/usr").unwrap_or(&library);
        let place = Path::new("usr").join(place.strip_prefix("/").unwrap_or(place));
        for directory in place.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            let known = directory.components().count() < 3;
            if !known && made.insert(directory.to_path_buf()) {
                archive.directory(text(directory)?, 0o755);
            }
        }
        let content = fs::read(&library).with_context(|| format!("cannot read {library:?}"))?;
        archive.file(text(&place)?, 0o755, &content);
    }
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{path:?} is not UTF-8"))
}

/// The shared libraries and the loader that a program needs, by ldd(1).
fn linked(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = call("ldd", [program], Path::new("/"))?;
    let output = String::from_utf8_lossy(&output).into_owned();
    ensure!(!output.contains("not found"), "{program:?} lacks a library: {output}");
    // `name => /path (0x…)`, `/path (0x…)`, and the kernel's own without a path.
    let words = output.lines().filter_map(|line| {
        let line = line.split_once("=> ").map_or(line, |(_, path)| path);
        line.split_whitespace().next()
    });
    Ok(words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
