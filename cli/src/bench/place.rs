//! The bench's own place on the host, under a name that no other run has.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bloomery_garden::config::{Config, Listen, NetworkConfig};
use garden_sys::floor;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::contender::STAMP;

/// Two directories that end with this value: one where the image and containers' layers are, below
/// the directory for temporary files, and one for what lives no longer than the host runs, below
/// `/run`. So each thing is on the kind of file system where a daemon without flags has it.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    volatile: PathBuf,
    number: u32,
}

/// Two letters or digits tell apart so many runs.
const NUMBERS: u32 = 36 * 36;
/// Gardens of one run.
pub const GARDENS: u32 = 4;

impl Place {
    /// Makes the directory, and in it the image that all contenders use: busybox and the stamp.
    pub fn make() -> anyhow::Result<Self> {
        sweep();
        let mut random = [0; 4];
        fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut random))
            .context("cannot read /dev/urandom")?;
        let number = u32::from_ne_bytes(random) % (NUMBERS / GARDENS);
        let own = format!("bloomery-bench.{}", std::process::id());
        let place = Self {
            directory: std::env::temp_dir().join(&own),
            volatile: Path::new("/run").join(&own),
            number,
        };
        for directory in [&place.directory, &place.volatile] {
            // Containers' root is none of the host's users and must be able to get at its image.
            let mode = fs::Permissions::from_mode(0o711);
            fs::create_dir(directory)
                .and_then(|()| fs::set_permissions(directory, mode))
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        place.move_into_memory().with_context(|| {
            format!("cannot mount a file system in memory on {}", place.volatile.display())
        })?;
        let busybox = rootfs::busybox::find().context("the image needs a static busybox")?;
        rootfs::busybox::build(&place.image(), &busybox).context("cannot make the image")?;
        let stamp = place.image().join(STAMP.trim_start_matches('/'));
        fs::write(&stamp, floor::STAMP)
            .and_then(|()| fs::set_permissions(&stamp, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", stamp.display()))?;
        Ok(place)
    }

    /// On a host whose `/run` is on a disk: what is there would wait for everybody's writing.
    fn move_into_memory(&self) -> rustix::io::Result<()> {
        // linux/magic.h
        const TMPFS: rustix::fs::FsWord = 0x0102_1994;
        if rustix::fs::statfs(&self.volatile)?.f_type == TMPFS {
            return Ok(());
        }
        mount("tmpfs", &self.volatile, "tmpfs", MountFlags::NOSUID, c"mode=711,size=256m")
    }

    /// A directory on a file system in memory.
    pub fn volatile(&self) -> &Path {
        &self.volatile
    }

    /// The image.
    pub fn image(&self) -> PathBuf {
        self.directory.join("image")
    }

    /// A name for cgroups and containers.
    pub fn name(&self) -> String {
        format!("bloomery-bench-{}", tag(self.number * GARDENS))
    }

    /// The configuration of the `which`th Garden of this run, below [`GARDENS`].
    pub fn garden(&self, which: u32, pool: usize) -> Config {
        let number = self.number * GARDENS + which;
        let directory = self.volatile.join(format!("garden-{which}"));
        Config {
            listen: Listen::Unix { path: directory.join("garden.sock"), mode: 0o600 },
            depot: directory.join("depot"),
            run: directory.join("run"),
            store: self.directory.join(format!("store-{which}")),
            tag: tag(number),
            default_rootfs: Some(self.image()),
            pool,
            network: NetworkConfig {
                // 2,048 subnets of four addresses, from a range of 10.0.0.0/8 that little uses.
                pool: format!("10.{}.{}.0/19", 176 + number / 8 % 64, number % 8 * 32),
                ..NetworkConfig::default()
            },
            ..Config::default()
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // EINVAL where nothing is mounted.
        let _ = unmount(&self.volatile, UnmountFlags::DETACH);
        for directory in [&self.directory, &self.volatile] {
            match fs::remove_dir_all(directory) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    eprintln!("cannot remove {}: {error}", directory.display());
                }
                _ => {}
            }
        }
    }
}

/// Removes the directories of runs that were killed.
fn sweep() {
    for parent in [std::env::temp_dir(), PathBuf::from("/run")] {
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix("bloomery-bench."));
            let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
            if !Path::new("/proc").join(pid.to_string()).exists() {
                let _ = unmount(entry.path(), UnmountFlags::DETACH);
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn tag(number: u32) -> String {
    [number / 36 % 36, number % 36]
        .iter()
        .filter_map(|digit| char::from_digit(*digit, 36))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_two_characters_and_differ() {
        let tags: std::collections::BTreeSet<_> = (0..NUMBERS).map(tag).collect();
        assert_eq!(tags.len(), 36 * 36);
        assert!(tags.iter().all(|tag| tag.len() == 2));
    }
}
