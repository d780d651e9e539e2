//! What makes this clone differ from its template and all other clones.

use std::io;
use std::process::Stdio;

use garden_sys::entropy;
use machine_agent::wire::Identity;
use rustix::mount::{MountFlags, mount};
use rustix::system::sethostname;
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::reaper;

/// The machine's disk, an empty ext4, and its place. It is read after the template was taken, so
/// each clone may have another.
const DISK: (&str, &str) = ("/dev/vda", "/var/lib");

/// Takes on an identity, entropy first: whatever comes later may draw random numbers.
pub fn become_(identity: &Identity) -> io::Result<()> {
    entropy::add(&identity.seed)?;
    let seconds = i64::try_from(identity.time.as_secs()).map_err(io::Error::other)?;
    let now = Timespec { tv_sec: seconds, tv_nsec: identity.time.subsec_nanos().into() };
    clock_settime(ClockId::Realtime, now)?;
    sethostname(identity.name.as_bytes())?;
    std::fs::write("/etc/hostname", format!("{}\n", identity.name))?;
    mount(DISK.0, DISK.1, "ext4", MountFlags::empty(), c"")?;
    let [a, b, c, d, e, f] = identity.hardware;
    let mut script =
        format!("ip link set eth0 address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    if let Some((address, prefix)) = identity.address {
        script += &format!(" && ip addr add {address}/{prefix} dev eth0 && ip link set eth0 up");
    }
    let mut shell = std::process::Command::new("/bin/busybox");
    // Its own ip, within the shell's process: nothing else is executed.
    shell.args(["sh", "-c", &script]).stdin(Stdio::null());
    match reaper::run(&mut shell)? {
        0 => Ok(()),
        status => Err(io::Error::other(format!("`{script}` ended with {status}"))),
    }
}
