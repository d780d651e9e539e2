//! The buildpacks that come with the platform, as the archives that `cf create-buildpack` would
//! upload.
//!
//! They are scripts for bash, and the static file server; they need nothing from a network.

use std::io::{Cursor, Write as _};

use zip::write::SimpleFileOptions;
use zip::{DateTime, ZipWriter};

/// A buildpack: its name, and its files.
#[derive(Debug, Clone, Copy)]
pub struct Buildpack {
    /// The name under which it is installed, as the original's buildpacks are named.
    pub name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

/// All of them, in the order in which they are asked: the first that knows an app builds it.
pub const ALL: &[Buildpack] = &[
    Buildpack {
        name: "staticfile_buildpack",
        files: &[
            ("bin/detect", include_bytes!("../buildpacks/staticfile/bin/detect")),
            ("bin/finalize", include_bytes!("../buildpacks/staticfile/bin/finalize")),
            ("bin/static-server", include_bytes!(concat!(env!("OUT_DIR"), "/static-server"))),
        ],
    },
    Buildpack {
        name: "python_buildpack",
        files: &[
            ("bin/detect", include_bytes!("../buildpacks/python/bin/detect")),
            ("bin/finalize", include_bytes!("../buildpacks/python/bin/finalize")),
        ],
    },
    Buildpack {
        name: "binary_buildpack",
        files: &[
            ("bin/detect", include_bytes!("../buildpacks/binary/bin/detect")),
            ("bin/finalize", include_bytes!("../buildpacks/binary/bin/finalize")),
            ("bin/release", include_bytes!("../buildpacks/binary/bin/release")),
        ],
    },
];

impl Buildpack {
    /// Its archive, a zip. The same bytes each time, so that a digest tells whether it has changed.
    pub fn archive(&self) -> Result<Vec<u8>, zip::result::ZipError> {
        let options = SimpleFileOptions::default()
            .unix_permissions(0o755)
            .last_modified_time(DateTime::default());
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in self.files {
            archive.start_file(*name, options)?;
            archive.write_all(bytes)?;
        }
        Ok(archive.finish()?.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    #[test]
    fn archives_are_the_same_each_time_and_executable() {
        for buildpack in super::ALL {
            let bytes = buildpack.archive().unwrap();
            assert_eq!(bytes, buildpack.archive().unwrap(), "{}", buildpack.name);
            let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
            for index in 0..archive.len() {
                let file = archive.by_index(index).unwrap();
                assert_eq!(file.unix_mode().unwrap() & 0o777, 0o755, "{:?}", file.name());
            }
        }
    }
}
