//! The lifecycle bundle that cells fetch: one program under three names.

use std::fs::{self, File};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use lifecycle::Program;

use crate::error::Error;

/// The bundle's path at the file server.
pub const PATH: &str = "buildpack_app_lifecycle/buildpack_app_lifecycle.tgz";

/// Writes the bundle below the file server's directory. It is the same for the same program, so
/// that cells keep what they have.
pub fn write(program: &Path, directory: &Path) -> Result<(), Error> {
    let path = directory.join(PATH);
    let parent = path.parent().unwrap_or(directory);
    fs::create_dir_all(parent).map_err(Error::file("make", parent))?;
    let source = File::open(program).map_err(Error::file("open", program))?;
    let pack = || {
        let new = tempfile::NamedTempFile::new_in(parent)?;
        // It is fetched on this machine: packing it would take longer than it saves.
        let mut archive = tar::Builder::new(GzEncoder::new(new, Compression::none()));
        let mut names = Program::ALL.into_iter().map(Program::name);
        let first = names.next().unwrap_or("builder");
        let mut header = tar::Header::new_gnu();
        header.set_size(source.metadata()?.len());
        header.set_mode(0o755);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, first, &source)?;
        for name in names {
            let mut link = tar::Header::new_gnu();
            link.set_size(0);
            link.set_mode(0o777);
            link.set_mtime(0);
            link.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut link, name, first)?;
        }
        let new = archive.into_inner()?.finish()?;
        new.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    pack().map_err(Error::file("write", &path))
}
