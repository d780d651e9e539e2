//! Downloaded archives, whatever their form, as plain tar.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

/// The forms in which archives come, told by their first bytes and not by what a server calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Gzip,
    Zip,
    Tar,
}

impl Form {
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A zip, or an empty one, which is its end record alone.
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            _ => Self::Tar,
        }
    }
}

/// Writes the archive `from` as plain tar to `to`. Blocks.
pub(crate) fn to_tar(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut start = Vec::new();
    (&mut source).take(4).read_to_end(&mut start)?;
    source.rewind()?;
    let mut target = BufWriter::new(File::create(to)?);
    match Form::of(&start) {
        Form::Tar => {
            io::copy(&mut source, &mut target)?;
        }
        Form::Gzip => {
            let mut tar = flate2::read::MultiGzDecoder::new(BufReader::new(source));
            io::copy(&mut tar, &mut target)?;
        }
        Form::Zip => zip_to_tar(source, &mut target)?,
    }
    target.flush()
}

fn zip_to_tar(source: File, target: &mut impl Write) -> io::Result<()> {
    let mut zip = zip::ZipArchive::new(BufReader::new(source)).map_err(io::Error::other)?;
    let mut tar = tar::Builder::new(target);
    for index in 0..zip.len() {
        let mut member = zip.by_index(index).map_err(io::Error::other)?;
        // A name that leads out of the archive is refused here; what unpacks the tar refuses it too.
        let Some(name) = member.enclosed_name() else {
            let name = member.name().map(std::borrow::Cow::into_owned).unwrap_or_default();
            return Err(io::Error::other(format!("the archive's member {name:?} leads out of it")));
        };
        if name.as_os_str().is_empty() {
            continue;
        }
        let mut header = tar::Header::new_gnu();
        let kind = member.unix_mode().unwrap_or(0) & 0o170_000;
        let (directory, link) = (member.is_dir(), kind == 0o120_000);
        let otherwise = if directory { 0o755 } else { 0o644 };
        header.set_mode(member.unix_mode().map_or(otherwise, |mode| mode & 0o7777));
        header.set_mtime(0);
        if directory {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            tar.append_data(&mut header, &name, io::empty())?;
        } else if link {
            let mut to = Vec::new();
            (&mut member).take(4096).read_to_end(&mut to)?;
            let to = String::from_utf8(to).map_err(io::Error::other)?;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, &name, to)?;
        } else {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(member.size());
            tar.append_data(&mut header, &name, &mut member)?;
        }
    }
    tar.finish()
}

/// Unpacks a plain tar into the directory `into`, which is there. Blocks.
pub(crate) fn unpack(tar: &Path, into: &Path) -> io::Result<()> {
    use rootfs::archive::{Containment, Owners, Policy};
    let policy = Policy {
        containment: Containment::Below,
        owners: Owners::Caller { umask: 0o022 },
        absolute_names: false,
        whiteouts: false,
        goes_on: false,
        below: Vec::new(),
    };
    let directory = File::open(into)?;
    let source = BufReader::new(File::open(tar)?);
    rootfs::archive::unpack(source, directory.as_fd(), &policy).map(drop).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};
    use std::path::Path;

    use super::{to_tar, unpack};

    fn unpacked(archive: &[u8]) -> std::io::Result<tempfile::TempDir> {
        let work = tempfile::tempdir()?;
        let (packed, plain) = (work.path().join("packed"), work.path().join("plain"));
        std::fs::write(&packed, archive)?;
        to_tar(&packed, &plain)?;
        let into = tempfile::tempdir()?;
        unpack(&plain, into.path())?;
        Ok(into)
    }

    fn tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o755);
        tar.append_data(&mut header, "bin/run", &b"hello"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    fn assert_is_the_file(directory: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = directory.join("bin/run");
        assert_eq!(std::fs::read(&file).unwrap(), b"hello");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn tar_gzip_and_zip_become_the_same_files() {
        assert_is_the_file(unpacked(&tar()).unwrap().path());

        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar()).unwrap();
        assert_is_the_file(unpacked(&gzip.finish().unwrap()).unwrap().path());

        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
        zip.add_directory("bin/", options).unwrap();
        zip.start_file("bin/run", options).unwrap();
        zip.write_all(b"hello").unwrap();
        zip.add_symlink("bin/also", "run", options).unwrap();
        let files = unpacked(&zip.finish().unwrap().into_inner()).unwrap();
        assert_is_the_file(files.path());
        assert_eq!(std::fs::read_link(files.path().join("bin/also")).unwrap(), Path::new("run"));
    }

    #[test]
    fn members_that_lead_out_are_refused() {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("../out", zip::write::SimpleFileOptions::default()).unwrap();
        let error = unpacked(&zip.finish().unwrap().into_inner()).unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
        assert!(unpacked(b"no archive at all").is_err());
    }
}
