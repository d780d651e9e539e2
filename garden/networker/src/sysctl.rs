//! Kernel settings of the host's network that containers need, and their way back.
//!
//! Several daemons may need them on one host, and the last one to go puts them back, whichever
//! found them as they were. So a daemon writes what it found in a file of its own, where it
//! survives a flush of all rules, and in the comment of its table, where daemons that start later
//! read it: these find the settings changed already.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What must be set, and to what.
const NEEDED: [(&str, &str); 1] = [("net.ipv4.ip_forward", "1")];

/// The kernel changes these together with `net.ipv4.ip_forward` (ip-sysctl): whether redirects are
/// believed, and every interface's own forwarding.
const REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";
const INTERFACES: &str = "net/ipv4/conf";
/// In a table's comment; the kernel takes no more than 128 bytes of it.
const LONGEST_COMMENT: usize = 120;

/// How long another daemon may take to read and change the settings.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// The right to change the settings of a network namespace. One daemon at a time has it, and it
/// ends with it.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its name")] Option<UnixDatagram>);

impl Turn {
    /// Waits for the right in the calling thread's network namespace. Anybody there may hold its
    /// name, an abstract address (unix(7)), so it is not waited for without end.
    pub(crate) fn take() -> io::Result<Self> {
        let name = SocketAddr::from_abstract_name("bloomery-sysctls")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixDatagram::bind_addr(&name) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound.map(|socket| Self(Some(socket))),
            }
            if Instant::now() >= deadline {
                tracing::warn!("somebody holds @bloomery-sysctls; not waiting for its end");
                return Ok(Self(None));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Settings as they were before any daemon changed them: name and value. Names are written with
/// slashes where an interface's is in them, which may have dots; `net.ipv4.ip_forward` sorts before
/// what changes with it, and is put back first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Before(BTreeMap<String, String>);

/// As in a table's comment, as far as it has room.
impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = LONGEST_COMMENT;
        for (place, (name, value)) in self.0.iter().enumerate() {
            let pair = format!("{}{name}={value}", if place > 0 { " " } else { "" });
            let Some(left) = room.checked_sub(pair.len()) else { break };
            room = left;
            f.write_str(&pair)?;
        }
        Ok(())
    }
}

/// Whether it is something that we would put back.
fn is_ours(name: &str) -> bool {
    let interface = |rest: &str| {
        let name = rest.strip_prefix('/').and_then(|rest| rest.strip_suffix("/forwarding"));
        name.is_some_and(|name| !name.contains('/') && !matches!(name, "" | "." | ".."))
    };
    name == REDIRECTS
        || NEEDED.iter().any(|(needed, _)| name == *needed)
        || name.strip_prefix(INTERFACES).is_some_and(interface)
}

/// What putting `net.ipv4.ip_forward` back to 0 would change beside it.
fn beside_forwarding() -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let redirects = fs::read_to_string(file(REDIRECTS))?;
    if redirects.trim() != "1" {
        found.push((REDIRECTS.to_owned(), redirects.trim().to_owned()));
    }
    for interface in fs::read_dir(file(INTERFACES))?.flatten() {
        let Ok(interface) = interface.file_name().into_string() else { continue };
        let name = format!("{INTERFACES}/{interface}/forwarding");
        // One may go meanwhile.
        let Ok(forwarding) = fs::read_to_string(file(&name)) else { continue };
        if forwarding.trim() != "0" && is_ours(&name) {
            found.push((name, forwarding.trim().to_owned()));
        }
    }
    Ok(found)
}

impl Before {
    /// What there is to remember in the calling thread's network namespace: what `memory`, this
    /// daemon's file, says from an earlier life; else what other daemons' tables say; else what is
    /// set now, if it must be changed. It is in the file afterwards.
    pub(crate) fn learn<'a>(
        memory: &Path,
        comments: impl Iterator<Item = &'a str>,
    ) -> io::Result<Self> {
        let mut before = Self::read(memory)?;
        for comment in comments {
            let pairs = comment.split_whitespace().filter_map(|pair| pair.split_once('='));
            // Anybody may write comments: nothing is believed but values for what we would set.
            let pairs = pairs.filter(|(name, _)| is_ours(name));
            for (name, value) in pairs {
                before.0.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        for (name, value) in NEEDED {
            let present = fs::read_to_string(file(name))?;
            let present = present.trim();
            if present != value && !before.0.contains_key(name) {
                before.0.insert(name.to_owned(), present.to_owned());
                before.0.extend(beside_forwarding()?);
            }
        }
        if !before.0.is_empty() {
            fs::write(memory, serde_json::to_vec(&before.0)?)?;
        }
        Ok(before)
    }

    fn read(memory: &Path) -> io::Result<Self> {
        match fs::read(memory) {
            Ok(bytes) => Ok(Self(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

/// Sets what is needed in the calling thread's network namespace. What was there must have been
/// learnt: a daemon killed in between puts back what is there anyway.
pub(crate) fn set() -> io::Result<()> {
    for (name, value) in NEEDED {
        let present = fs::read_to_string(file(name))?;
        let present = present.trim();
        if present != value {
            fs::write(file(name), value)?;
            tracing::info!(sysctl = name, old = present, new = value, "set");
        }
    }
    Ok(())
}

/// Puts back what `memory` says, in the calling thread's network namespace, and forgets it.
pub(crate) fn restore(memory: &Path) -> io::Result<()> {
    for (name, value) in Before::read(memory)?.0 {
        match fs::write(file(&name), &value) {
            // An interface that has gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            written => written?,
        }
        tracing::info!(sysctl = name, value, "put back");
    }
    match fs::remove_file(memory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file(name: &str) -> PathBuf {
    let below = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    Path::new("/proc/sys").join(below)
}
