//! Kernel settings of the host's network that containers need, and their way back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What must be set, and to what.
const NEEDED: [(&str, &str); 1] = [("net.ipv4.ip_forward", "1")];

fn file(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

/// Sets what is needed in the calling thread's network namespace. Old values go to `memory`, a file
/// that keeps what it has: the first value of all is the one to go back to.
pub(crate) fn set(memory: &Path) -> io::Result<()> {
    let mut old = read(memory)?;
    for (name, value) in NEEDED {
        let present = fs::read_to_string(file(name))?;
        let present = present.trim();
        if present == value {
            continue;
        }
        old.entry(name.to_owned()).or_insert_with(|| present.to_owned());
        // Written down first: a daemon killed in between puts back what is there anyway.
        fs::write(memory, serde_json::to_vec(&old)?)?;
        fs::write(file(name), value)?;
        tracing::info!(sysctl = name, old = present, new = value, "set");
    }
    Ok(())
}

/// Puts back what [`set`] found, in the calling thread's network namespace, and forgets it.
pub(crate) fn restore(memory: &Path) -> io::Result<()> {
    for (name, value) in read(memory)? {
        fs::write(file(&name), &value)?;
        tracing::info!(sysctl = name, value, "put back");
    }
    match fs::remove_file(memory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(memory: &Path) -> io::Result<BTreeMap<String, String>> {
    match fs::read(memory) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}
