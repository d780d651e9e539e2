//! Containers' root file systems: an image directory below, a writable layer above, joined by a
//! detached overlay.
//!
//! ```text
//! <store>/volumes/<handle>/{upper,work}
//!         trash/<number>                  what has been destroyed and not yet deleted
//!         shifted/<name>                  copies for file systems that cannot shift owners
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use garden_sys::mounts::{self, Access};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::error::Error;
use crate::identity::MAPPED_ROOT;

/// An image that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its root directory.
    pub path: PathBuf,
    /// Its variables.
    pub environment: Vec<String>,
}

/// The images that references name, and every container's writable layer.
#[derive(Debug)]
pub struct Volumes {
    store: PathBuf,
    default: Option<PathBuf>,
    aliases: BTreeMap<String, PathBuf>,
    deleted: AtomicU64,
    trash: mpsc::SyncSender<PathBuf>,
}

/// How many destroyed layers may wait to be deleted; then a destroy deletes its own.
const BACKLOG: usize = 256;

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let attempt = format!("cannot {attempt} {}", path.display());
    move |error| Error::because(attempt, &error)
}

impl Volumes {
    /// Opens the store and deletes what an earlier daemon left in the trash.
    pub fn open(
        store: &Path,
        default: Option<PathBuf>,
        aliases: BTreeMap<String, PathBuf>,
    ) -> Result<Self, Error> {
        for directory in ["volumes", "trash", "shifted"] {
            let path = store.join(directory);
            fs::create_dir_all(&path).map_err(failed("make", &path))?;
        }
        let (trash, doomed) = mpsc::sync_channel::<PathBuf>(BACKLOG);
        let left: Vec<_> = fs::read_dir(store.join("trash"))
            .map_err(failed("list", store))?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        std::thread::Builder::new()
            .name("trash".into())
            .spawn(move || {
                for path in left.into_iter().chain(doomed) {
                    if let Err(error) = fs::remove_dir_all(&path) {
                        tracing::warn!(path = %path.display(), %error, "a destroyed volume cannot be deleted");
                    }
                }
            })
            .map_err(|error| Error::because("cannot start the thread that deletes volumes", &error))?;
        Ok(Self {
            store: store.to_path_buf(),
            default,
            aliases,
            deleted: AtomicU64::new(unique()),
            trash,
        })
    }

    /// The image that a reference (`image.uri` or `rootfs`) names.
    pub fn image(&self, reference: &str) -> Result<Image, Error> {
        let path = if let Some(path) = self.aliases.get(reference) {
            path.clone()
        } else if reference.is_empty() {
            self.default.clone().ok_or_else(|| {
                Error::Plain("no image was given, and the server has no --default-rootfs".into())
            })?
        } else if let Some((scheme, rest)) = reference.split_once("://") {
            match scheme {
                "raw" | "file" => PathBuf::from(rest),
                _ => {
                    return Err(Error::Plain(format!(
                        "image {reference:?} is not here: start the server with --image-alias {reference}=PATH"
                    )));
                }
            }
        } else {
            PathBuf::from(reference)
        };
        let kind = fs::metadata(&path).map_err(failed("use the image", &path))?;
        if !kind.is_dir() {
            return Err(Error::Plain(format!(
                "cannot use the image {}: not a directory",
                path.display()
            )));
        }
        Ok(Image { path, environment: Vec::new() })
    }

    fn directory(&self, handle: &str) -> PathBuf {
        self.store.join("volumes").join(handle)
    }

    /// Makes a writable layer for `handle` and answers the detached overlay. `user_namespace` is the
    /// container's, absent for privileged ones.
    pub fn create(
        &self,
        handle: &str,
        image: &Image,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd, Error> {
        let directory = self.directory(handle);
        let made = (|| {
            fs::create_dir(&directory)?;
            fs::create_dir(directory.join("upper"))?;
            fs::create_dir(directory.join("work"))?;
            if user_namespace.is_some() {
                // The root directory's owner is the upper layer's.
                std::os::unix::fs::chown(
                    directory.join("upper"),
                    Some(MAPPED_ROOT),
                    Some(MAPPED_ROOT),
                )?;
            }
            let mode = fs::metadata(&image.path)?.permissions();
            fs::set_permissions(directory.join("upper"), mode)?;
            self.overlay(&directory, image, user_namespace)
        })();
        made.map_err(|error| {
            let _ = self.destroy(handle);
            failed("make the volume", &directory)(error)
        })
    }

    fn overlay(
        &self,
        directory: &Path,
        image: &Image,
        users: Option<BorrowedFd<'_>>,
    ) -> io::Result<OwnedFd> {
        let lower = mounts::bind(&image.path, Access::default())?;
        if let Some(users) = users {
            mounts::map_ids(lower.as_fd(), users)?;
        }
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let lower_path = format!("/proc/self/fd/{}", lower.as_raw_fd());
        fsconfig_set_string(fs.as_fd(), "lowerdir", &lower_path)?;
        fsconfig_set_string(fs.as_fd(), "upperdir", directory.join("upper"))?;
        fsconfig_set_string(fs.as_fd(), "workdir", directory.join("work"))?;
        // The layer ends with the container, so nothing need ever be synced.
        fsconfig_set_flag(fs.as_fd(), "volatile")?;
        fsconfig_create(fs.as_fd())?;
        Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
    }

    /// Forgets a layer at once and deletes it later; one that does not exist is no error.
    pub fn destroy(&self, handle: &str) -> Result<(), Error> {
        let directory = self.directory(handle);
        let doomed =
            self.store.join("trash").join(self.deleted.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::rename(&directory, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed("destroy the volume", &directory))?,
        }
        if let Err(mpsc::TrySendError::Full(doomed) | mpsc::TrySendError::Disconnected(doomed)) =
            self.trash.try_send(doomed)
        {
            fs::remove_dir_all(&doomed).map_err(failed("delete the volume", &doomed))?;
        }
        Ok(())
    }

    /// Handles of all layers there are.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        let volumes = self.store.join("volumes");
        let entries = fs::read_dir(&volumes).map_err(failed("list", &volumes))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// Bytes that a container has written.
    pub fn usage(&self, handle: &str) -> u64 {
        fn below(path: &Path) -> u64 {
            let Ok(entries) = fs::read_dir(path) else { return 0 };
            entries
                .flatten()
                .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
                .map(|(path, data)| {
                    data.blocks() * 512 + if data.is_dir() { below(&path) } else { 0 }
                })
                .sum()
        }
        below(&self.directory(handle).join("upper"))
    }
}

/// A number that no earlier daemon of this store has used.
fn unique() -> u64 {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2)
}
