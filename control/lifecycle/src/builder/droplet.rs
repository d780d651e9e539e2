//! The droplet and the build cache: gzipped tars.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::{Contents, Failure};

/// Droplets are written once and read at each start: a fast level costs a few percent of size and
/// saves most of the time of a push.
const LEVEL: u32 = 1;

/// Ids of `vcap`, to whom the files of a droplet belong.
const VCAP: u64 = 2000;

type Archive = Builder<GzEncoder<BufWriter<File>>>;

/// Writes the droplet: what a cell unpacks in the app's home.
pub(crate) fn write(
    path: &Path,
    app: &Path,
    contents: &Contents,
    staging_info: &[u8],
) -> Result<(), Failure> {
    let mut droplet = create(path)?;
    let fails = || Failure::file("writing the droplet", path);
    directory(&mut droplet, ".").map_err(fails())?;
    droplet.append_dir_all("./app", app).map_err(fails())?;
    droplet.append_dir_all("./deps", &contents.deps).map_err(fails())?;
    droplet.append_dir_all("./profile.d", &contents.profiles).map_err(fails())?;
    for name in ["./logs", "./tmp"] {
        directory(&mut droplet, name).map_err(fails())?;
    }
    let mut header = Header::new_gnu();
    header.set_size(staging_info.len() as u64);
    header.set_mode(0o644);
    header.set_uid(VCAP);
    header.set_gid(VCAP);
    header.set_cksum();
    droplet.append_data(&mut header, "./staging_info.yml", staging_info).map_err(fails())?;
    finish(droplet, path)
}

/// Writes what buildpacks keep for the next build.
pub(crate) fn write_cache(path: &Path, cache: &Path) -> Result<(), Failure> {
    let mut archive = create(path)?;
    archive.append_dir_all(".", cache).map_err(Failure::file("writing the build cache", path))?;
    finish(archive, path)
}

fn create(path: &Path) -> Result<Archive, Failure> {
    let file = File::create(path).map_err(Failure::file("creating", path))?;
    let mut archive = Builder::new(GzEncoder::new(BufWriter::new(file), Compression::new(LEVEL)));
    // An app's symbolic links are its own; what they point at may not even exist.
    archive.follow_symlinks(false);
    Ok(archive)
}

fn directory(archive: &mut Archive, name: &str) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    header.set_uid(VCAP);
    header.set_gid(VCAP);
    header.set_cksum();
    archive.append_data(&mut header, name, std::io::empty())
}

fn finish(archive: Archive, path: &Path) -> Result<(), Failure> {
    let fails = || Failure::file("writing", path);
    let mut file = archive.into_inner().map_err(fails())?.finish().map_err(fails())?;
    file.flush().map_err(fails())
}
