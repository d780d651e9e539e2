//! Containers' root file systems: an image's layers below, a writable one above, joined by a
//! detached overlay.
//!
//! ```text
//! <store>/volumes/<handle>/{upper,work,image-size}
//!         trash/<number>                  what has been destroyed and not yet deleted
//!         layers/                         what images are made of (the `rootfs` crate)
//! ```

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use rootfs::layers::{Layers, bytes_below};
use rootfs::overlay::{self, Shift};
use rootfs::reference::References;

use crate::error::Error;
use crate::identity::MAPPED_ROOT;

pub use rootfs::layers::Image;

/// What a container's files take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What it has written.
    pub exclusive: u64,
    /// That and its image.
    pub total: u64,
}

/// The images that references name, and every container's writable layer.
#[derive(Debug)]
pub struct Volumes {
    store: PathBuf,
    references: References,
    layers: Layers,
    shift_by_copy: bool,
    deleted: AtomicU64,
    trash: mpsc::SyncSender<PathBuf>,
}

/// Beside a container's layer: bytes of its image when it was made.
const IMAGE_SIZE: &str = "image-size";
/// How many destroyed layers may wait to be deleted; then a destroy deletes its own.
const BACKLOG: usize = 256;

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let attempt = format!("cannot {attempt} {}", path.display());
    move |error| Error::because(attempt, &error)
}

impl Volumes {
    /// Opens the store and deletes what an earlier daemon left in the trash.
    pub fn open(store: &Path, references: References, shift_by_copy: bool) -> Result<Self, Error> {
        for directory in ["volumes", "trash"] {
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
            references,
            layers: Layers::open(store).map_err(|error| image_error(&error))?,
            shift_by_copy,
            deleted: AtomicU64::new(unique()),
            trash,
        })
    }

    /// The image that a reference (`image.uri` or `rootfs`) names; unpacks it the first time.
    pub fn image(&self, reference: &str) -> Result<Image, Error> {
        let place = self.references.resolve(reference);
        place.and_then(|place| self.layers.image(&place)).map_err(|error| image_error(&error))
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
        let copy = self.shift_by_copy;
        let shift = user_namespace.map(|users| Shift { users, root: MAPPED_ROOT, copy });
        let lower = overlay::mount_layers(&self.layers, &image.layers, shift)
            .map_err(|error| image_error(&error))?;
        let made = (|| {
            fs::create_dir(&directory)?;
            fs::write(directory.join(IMAGE_SIZE), image.size.to_string())?;
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
            if let Some(top) = image.layers.first() {
                let mode = fs::metadata(top)?.permissions();
                fs::set_permissions(directory.join("upper"), mode)?;
            }
            overlay::mount(lower, &directory.join("upper"), &directory.join("work"))
        })();
        made.map_err(|error| {
            let _ = self.destroy(handle);
            failed("make the volume", &directory)(error)
        })
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

    /// What a container's files take.
    pub fn usage(&self, handle: &str) -> Usage {
        let directory = self.directory(handle);
        let exclusive = bytes_below(&directory.join("upper")).unwrap_or(0);
        let image = fs::read_to_string(directory.join(IMAGE_SIZE));
        let image: u64 = image.ok().and_then(|size| size.parse().ok()).unwrap_or(0);
        Usage { exclusive, total: exclusive + image }
    }
}

fn image_error(error: &rootfs::Error) -> Error {
    // The whole chain is in the text of the cause.
    match std::error::Error::source(error) {
        Some(cause) => Error::because(error, cause),
        None => Error::Plain(error.to_string()),
    }
}

/// A number that no earlier daemon of this store has used.
fn unique() -> u64 {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2)
}
