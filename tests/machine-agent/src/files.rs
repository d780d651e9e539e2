//! Files that the harness puts into the machine.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use machine_agent::wire;

/// A file that is being sent. What goes wrong on the way is told at its end.
#[derive(Debug)]
pub struct Incoming {
    wanted: wire::File,
    written: io::Result<File>,
}

impl Incoming {
    /// Makes the file under a temporary name beside its own: a program that runs cannot be
    /// written, but replaced.
    pub fn begin(wanted: wire::File) -> Self {
        let written = (|| {
            let partial = partial(&wanted);
            if let Some(directory) = partial.parent() {
                fs::create_dir_all(directory)?;
            }
            File::create(partial)
        })();
        Self { wanted, written }
    }

    pub fn append(&mut self, bytes: &[u8]) {
        if let Ok(file) = &mut self.written
            && let Err(err) = file.write_all(bytes)
        {
            self.written = Err(err);
            let _ = fs::remove_file(partial(&self.wanted));
        }
    }

    pub fn finish(self) -> io::Result<()> {
        self.written?.set_permissions(Permissions::from_mode(self.wanted.mode))?;
        fs::rename(partial(&self.wanted), &self.wanted.path)
    }
}

fn partial(wanted: &wire::File) -> PathBuf {
    PathBuf::from(format!("{}.partial", wanted.path))
}
