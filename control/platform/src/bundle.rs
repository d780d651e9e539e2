//! The lifecycle bundle that cells fetch: one program under three names.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use lifecycle::Program;

use crate::error::Error;

/// The bundle's path at the file server.
pub const PATH: &str = "buildpack_app_lifecycle/buildpack_app_lifecycle.tgz";

/// Writes the bundle below the file server's directory, unless it is there and of the same program:
/// `stamp` is a file that says of which. What was written before the machine was last started is
/// written again, since it may not have reached the disk.
pub fn ensure(program: &Path, directory: &Path, stamp: &Path) -> Result<(), Error> {
    let file = fs::metadata(program).map_err(Error::file("look at", program))?;
    let boot = Path::new("/proc/sys/kernel/random/boot_id");
    let boot = fs::read_to_string(boot).map_err(Error::file("read", boot))?;
    let of = format!(
        "{} {} {} {}.{} {}.{} {boot}",
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    );
    let is_same = fs::read_to_string(stamp).is_ok_and(|before| before == of);
    if is_same && directory.join(PATH).exists() {
        return Ok(());
    }
    // Killed here or below, there is a bundle of which nothing is said.
    match fs::remove_file(stamp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("remove", stamp)(error));
        }
        _ => {}
    }
    write(program, directory)?;
    fs::write(stamp, of).map_err(Error::file("write", stamp))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_written_once_for_a_program() {
        let place = tempfile::tempdir().unwrap();
        let (program, stamp) = (place.path().join("program"), place.path().join("stamp"));
        let files = place.path().join("static");
        let bundle = files.join(PATH);
        let written = || {
            ensure(&program, &files, &stamp).unwrap();
            let file = fs::metadata(&bundle).unwrap();
            (file.ino(), file.mtime(), file.mtime_nsec())
        };
        fs::write(&program, "one").unwrap();
        let first = written();
        assert_eq!(written(), first);

        fs::remove_file(&bundle).unwrap();
        written();
        assert!(bundle.exists());

        let one = fs::read(&bundle).unwrap();
        fs::write(place.path().join("new"), "two").unwrap();
        fs::rename(place.path().join("new"), &program).unwrap();
        written();
        assert_ne!(fs::read(&bundle).unwrap(), one);
    }
}
