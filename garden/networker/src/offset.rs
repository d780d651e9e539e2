//! The head of the port queue on disk, so that a restart does not hand out ports that have just
//! been released.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An open file `{"offset":<n>}`, padded to one length so that one write replaces all of it.
#[derive(Debug)]
pub(crate) struct OffsetFile {
    file: File,
    initial: u16,
}

#[derive(serde::Deserialize)]
struct Content {
    offset: u16,
}

impl OffsetFile {
    /// Opens the file, making it if absent. Rubbish in it counts as 0.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let initial = serde_json::from_str(&text).map_or(0, |content: Content| content.offset);
        Ok(Self { file, initial })
    }

    /// What was in it.
    pub(crate) fn initial(&self) -> u16 {
        self.initial
    }

    pub(crate) fn save(&self, offset: u16) -> io::Result<()> {
        self.file.write_all_at(format!("{{\"offset\":{offset:>5}}}").as_bytes(), 0)
    }
}
