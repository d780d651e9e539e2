//! Debian's cloud kernels, unpacked into the cache, never installed.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};

use crate::cache;
use crate::host::call;
use crate::package;

/// A kernel that test machines can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Debian 12's own.
    V6_1,
    /// Debian 12's backport of Debian 13's.
    V6_12,
}

impl Kernel {
    /// All of them, the oldest first.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The package that depends on the newest kernel of this line.
    fn meta_package(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }

    /// Answers where the kernel is, and downloads it first if it is not there.
    pub(crate) fn files(self) -> anyhow::Result<Files> {
        let home = cache::directory("machine/kernels")?.join(self.name());
        let _lock = cache::lock(&cache::directory("machine")?.join(format!("kernel-{self}.lock")))?;
        if !home.exists() {
            self.download(&home).with_context(|| {
                format!("cannot get Debian's kernel {self} (package {})", self.meta_package())
            })?;
        }
        Files::find(&home)
    }

    fn download(self, home: &Path) -> anyhow::Result<()> {
        let package = package::find(self.meta_package(), || self.package())?;
        // Modules of newer kernels are compressed; once is enough to unpack them.
        let unpack = r#"find lib/modules -name '*.ko.xz' -exec "$0" unxz {} +"#;
        let busybox = rootfs::busybox::find()?;
        package::unpack(&package, home, |files| {
            call("sh", [OsStr::new("-c"), unpack.as_ref(), busybox.as_os_str()], files).map(drop)
        })
    }

    /// The package that the meta package of this line depends on.
    fn package(self) -> anyhow::Result<Option<String>> {
        let text = package::described(self.meta_package())?;
        let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "));
        Ok(depends.and_then(|names| {
            let mut names = names.split(',').filter_map(|name| name.split_whitespace().next());
            names.find(|name| name.starts_with("linux-image-")).map(str::to_owned)
        }))
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kernel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|kernel| kernel.name() == text);
        found.with_context(|| format!("there is no kernel {text}: 6.1 or 6.12"))
    }
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The image that boots.
    pub image: PathBuf,
    /// The directory with all module files.
    pub modules: PathBuf,
}

impl Files {
    fn find(home: &Path) -> anyhow::Result<Self> {
        let only = |directory: &str, prefix: &str| -> anyhow::Result<PathBuf> {
            let directory = home.join(directory);
            let entries = fs::read_dir(&directory)
                .with_context(|| format!("cannot read {directory:?}; remove {home:?}"))?;
            for entry in entries {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    return Ok(entry.path());
                }
            }
            bail!("there is no {prefix}* in {directory:?}; remove {home:?}")
        };
        Ok(Self { image: only("boot", "vmlinuz-")?, modules: only("lib/modules", "")? })
    }
}
