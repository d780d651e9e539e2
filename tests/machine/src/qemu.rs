//! One QEMU process, as a template or as its clone.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use garden_sys::child::spawn_bound;

use crate::host::call;
use crate::qmp::Qmp;

const PROGRAM: &str = "qemu-system-x86_64";
/// Each clone touches 50 to 150 MiB of it.
const MEMORY: &str = "512M";
/// `panic=-1` ends QEMU at a panic. No controller can be anything but cgroup v2's.
const KERNEL_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr \
    random.trust_cpu=on cgroup_no_v1=all";
/// Longer than QEMU needs to make its sockets.
const PATIENCE: Duration = Duration::from_secs(60);

/// What QEMU calls itself; part of what a template depends on.
pub fn version() -> anyhow::Result<String> {
    let output = call(PROGRAM, ["--version"], Path::new("/"))
        .context("test machines need QEMU: apt-get install qemu-system-x86")?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It boots `kernel` and `image`; its memory is the file `ram`.
    Template,
    /// It goes on from `template/ram` and `template/state`, and its disk is forgotten.
    Clone,
    /// The same with a disk that stays: `disk`.
    CloneWithDisk,
}

/// The command line. All paths are relative to the machine's directory, so all machines of a
/// template have the same line but for their network, and no socket's path is too long.
///
/// Machine type, devices and their order must be the same in template and clone.
pub fn arguments(role: Role, net: &str) -> Vec<String> {
    let accelerator = match std::env::var("VM_ACCEL").as_deref() {
        Ok("kvm") => ["-accel", "kvm", "-cpu", "host"],
        // Debian's programs and ours need no more than the first x86-64; rdrand seeds the boot.
        _ => ["-accel", "tcg,thread=multi", "-cpu", "qemu64,+rdrand"],
    };
    // Where `snapshot` is on, what is written to the disk goes to a temporary file without a name.
    let (ram, share, disk) = match role {
        Role::Template => ("ram", "on", "file=disk,snapshot=on"),
        Role::Clone => ("template/ram", "off", "file=template/disk,snapshot=on"),
        Role::CloneWithDisk => ("template/ram", "off", "file=disk,cache=unsafe"),
    };
    let words: &[&str] = &[
        "-M",
        "q35,memory-backend=memory",
        "-smp",
        "1",
        "-m",
        MEMORY,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "file:console.log",
        "-qmp",
        "unix:qmp,server=on,wait=off",
        "-device",
        "virtio-serial-pci",
        "-chardev",
        "socket,id=agent,path=agent,server=on,wait=off",
        "-device",
        "virtserialport,chardev=agent,name=agent",
        "-device",
        "virtio-blk-pci,drive=disk",
        "-device",
        "virtio-net-pci,netdev=net,mac=52:54:00:00:00:01,romfile=",
    ];
    let mut arguments: Vec<String> =
        accelerator.iter().chain(words).map(ToString::to_string).collect();
    let memory =
        format!("memory-backend-file,id=memory,size={MEMORY},mem-path={ram},share={share}");
    let disk = format!("if=none,id=disk,{disk},format=raw");
    for pair in [["-object", &memory], ["-drive", &disk], ["-netdev", net]] {
        arguments.extend(pair.map(str::to_owned));
    }
    match role {
        Role::Template => arguments.extend(
            ["-kernel", "kernel", "-initrd", "image", "-append", KERNEL_LINE].map(str::to_owned),
        ),
        Role::Clone | Role::CloneWithDisk => arguments.extend(
            [
                "-kernel",
                "template/kernel",
                "-initrd",
                "template/image",
                "-append",
                KERNEL_LINE,
                "-incoming",
                "defer",
            ]
            .map(str::to_owned),
        ),
    }
    arguments
}

/// A network card's other end when there is no network.
pub const NO_NETWORK: &str = "hubport,id=net,hubid=0";
/// A datagram for each Ethernet frame.
pub const SWITCHED: &str = "dgram,id=net,local.type=unix,local.path=net,\
    remote.type=unix,remote.path=switch";

/// A running QEMU; it dies with this value, and with this process.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
}

impl Qemu {
    /// Starts it in a directory; what it says goes to `qemu.log` there.
    pub fn start(directory: &Path, arguments: &[String]) -> anyhow::Result<Self> {
        let log = File::create(directory.join("qemu.log"))?;
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(directory)
            .env("TMPDIR", directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = spawn_bound(command)
            .with_context(|| format!("cannot start {PROGRAM}: apt-get install qemu-system-x86"))?;
        Ok(Self { child })
    }

    /// Connects to a socket that QEMU makes.
    pub fn connect(&mut self, socket: &Path) -> anyhow::Result<UnixStream> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Ok(stream),
                Err(err) if Instant::now() > deadline => {
                    return Err(err).with_context(|| format!("cannot connect to {socket:?}"));
                }
                Err(_) => self.check()?,
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn control(&mut self, directory: &Path) -> anyhow::Result<Qmp> {
        Qmp::new(self.connect(&directory.join("qmp"))?)
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("QEMU has ended: {status}"),
        }
    }

    /// Ends it as a loss of power ends a machine.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}
