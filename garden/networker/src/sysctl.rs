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

/// Settings as they were before any daemon changed them: name and value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Before(BTreeMap<String, String>);

/// As in a table's comment.
impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={value}", if place > 0 { " " } else { "" })?;
        }
        Ok(())
    }
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
            let pairs = pairs.filter(|(name, _)| NEEDED.iter().any(|(needed, _)| name == needed));
            for (name, value) in pairs {
                before.0.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        for (name, value) in NEEDED {
            let present = fs::read_to_string(file(name))?;
            let present = present.trim();
            if present != value {
                before.0.entry(name.to_owned()).or_insert_with(|| present.to_owned());
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
        fs::write(file(&name), &value)?;
        tracing::info!(sysctl = name, value, "put back");
    }
    match fs::remove_file(memory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}
