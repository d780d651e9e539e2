//! Containers' files on disk: a writable layer of their own, joined with an image's layers by a
//! detached overlay, and the files that the host gives them names by.
//!
//! ```text
//! <store>/volumes/<number>/{upper,work}         the writable layer, and overlay's own
//!                          hosts, resolv.conf   mounted on those of the image
//!         layers/                               what images are made of (the `rootfs` crate)
//! ```
//!
//! The store is closed to others, so that the modes in it are the images' and the containers' own.
//!
//! A volume has the number of its cgroup slot, so it can be made before anybody knows whose it is
//! going to be; one whose number no record has is nobody's.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use garden_sys::mounts::{self, Access};
use rootfs::layers::{self, Held, Layers, bytes_below};
use rootfs::overlay::{self, Shift};
use rootfs::reference::{Place, References};

use crate::error::Error;
use crate::identity::MAPPED_ROOT;

use crate::image::{Made, SpecMount};

/// What a root stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its variables, as `NAME=value`.
    pub environment: Vec<String>,
    /// Bytes that it takes, if it is made of layers of ours.
    pub size: u64,
    foundation: Foundation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Foundation {
    /// Directories, the topmost first, under a writable one of the container's own.
    Layers(Vec<PathBuf>),
    /// The container's own already, as a plugin has made it.
    Made { root: PathBuf, mounts: Vec<SpecMount> },
}

impl Image {
    /// What a plugin wants mounted in it.
    pub fn mounts(&self) -> &[SpecMount] {
        match &self.foundation {
            Foundation::Layers(_) => &[],
            Foundation::Made { mounts, .. } => mounts,
        }
    }

    fn layers(&self) -> &[PathBuf] {
        match &self.foundation {
            Foundation::Layers(layers) => layers,
            Foundation::Made { .. } => &[],
        }
    }
}

impl From<layers::Image> for Image {
    fn from(image: layers::Image) -> Self {
        let layers::Image { layers, environment, size } = image;
        Self { environment, size, foundation: Foundation::Layers(layers) }
    }
}

impl From<Made> for Image {
    fn from(made: Made) -> Self {
        let Made { root, environment, mounts } = made;
        Self { environment, size: 0, foundation: Foundation::Made { root, mounts } }
    }
}

/// What a container's files take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What it has written.
    pub exclusive: u64,
    /// That and its image.
    pub total: u64,
}

/// Files that a volume has for the container's `/etc`.
pub const NAMES: [&str; 2] = ["hosts", "resolv.conf"];

/// One container's directory, its files belonging to the container's root.
#[derive(Debug)]
pub struct Volume {
    /// Its name.
    pub number: u32,
    path: PathBuf,
}

impl Volume {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content of one of [`NAMES`].
    pub fn write(&self, name: &str, content: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        fs::write(&path, content).map_err(failed("write", &path))
    }
}

/// What an image was when a root was built of it: identity and time of change of the directories that
/// this looked at. All others are read when somebody needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Likeness {
    image: Image,
    seen: Vec<Option<(u64, u64, i64, i64)>>,
}

impl Likeness {
    /// The image as it is now.
    pub fn of(image: &Image) -> Self {
        let look = |path: PathBuf| {
            let data = fs::symlink_metadata(path).ok()?;
            Some((data.dev(), data.ino(), data.ctime(), data.ctime_nsec()))
        };
        let look = |layer: &PathBuf| [look(layer.clone()), look(layer.join("etc"))];
        Self { seen: image.layers().iter().flat_map(look).collect(), image: image.clone() }
    }
}

/// A mounted root file system.
#[derive(Debug)]
pub struct Overlay {
    /// The detached mount.
    pub mount: OwnedFd,
    /// Mounts that it was made of and does not need any more. Closing them takes long.
    pub spent: Vec<OwnedFd>,
}

/// The image that was asked for last.
#[derive(Debug)]
struct Latest {
    image: Image,
    /// It is used as it is. Copies of it would have to be compared with it every time.
    as_it_is: bool,
}

/// The images that references name, and all volumes.
#[derive(Debug)]
pub struct Volumes {
    store: PathBuf,
    references: References,
    layers: Layers,
    shift_by_copy: bool,
    latest: Mutex<Option<Latest>>,
    trash: mpsc::SyncSender<PathBuf>,
}

/// How many volumes may wait to be deleted; then whoever comes with one deletes it.
const BACKLOG: usize = 256;

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let attempt = format!("cannot {attempt} {}", path.display());
    move |error| Error::because(attempt, &error)
}

impl Volumes {
    /// Opens the store.
    pub fn open(store: &Path, references: References, shift_by_copy: bool) -> Result<Self, Error> {
        let volumes = store.join("volumes");
        // Nobody else is to read what containers write, or to run what their root made set-uid.
        for closed in [store, &volumes] {
            private::directory(closed).map_err(failed("make", closed))?;
        }
        let (trash, doomed) = mpsc::sync_channel::<PathBuf>(BACKLOG);
        std::thread::Builder::new()
            .name("trash".into())
            .spawn(move || delete_all(&doomed))
            .map_err(|error| {
                Error::because("cannot start the thread that deletes volumes", &error)
            })?;
        let layers = Layers::open(store).map_err(|error| image_error(&error))?;
        let volumes = Self {
            store: store.to_path_buf(),
            references,
            layers,
            shift_by_copy,
            latest: Mutex::default(),
            trash,
        };
        volumes.references.unusable().for_each(|error| {
            tracing::warn!(%error, "containers of an image that the server was given cannot be made");
        });
        Ok(volumes)
    }

    /// Has the default image ready before somebody asks for it. What has to be unpacked is unpacked
    /// on a thread; a create that needs it meanwhile waits for that.
    pub fn foresee(self: &Arc<Self>) -> Result<(), Error> {
        // Whoever asks for an image that does not exist will hear of it.
        let Ok(place) = self.references.resolve("") else { return Ok(()) };
        if let Place::Directory(_) = place {
            return self.image("").map(drop);
        }
        let volumes = Arc::clone(self);
        let unpack = move || {
            let begun = Instant::now();
            match volumes.image("") {
                Ok(_) => tracing::info!(took = ?begun.elapsed(), "the default image is ready"),
                Err(error) => tracing::warn!(%error, "the default image cannot be made ready"),
            }
        };
        std::thread::Builder::new()
            .name("image".into())
            .spawn(unpack)
            .map(drop)
            .map_err(|error| Error::because("cannot start a thread that unpacks", &error))
    }

    fn latest(&self) -> MutexGuard<'_, Option<Latest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image that a reference (`image.uri` or `rootfs`) names; unpacks it the first time.
    pub fn find(&self, reference: &str) -> Result<Image, Error> {
        let place = self.references.resolve(reference);
        place
            .and_then(|place| self.layers.image(&place))
            .map(Image::from)
            .map_err(|error| image_error(&error))
    }

    /// The same for a container: the next one is likely to have it, too.
    pub fn image(&self, reference: &str) -> Result<Image, Error> {
        let image = self.find(reference)?;
        let mut latest = self.latest();
        if latest.as_ref().is_none_or(|latest| latest.image != image) {
            *latest = Some(Latest { image: image.clone(), as_it_is: !self.shift_by_copy });
        }
        Ok(image)
    }

    /// The image that the next container is likely to have, if a root can be made of it ahead.
    pub fn likely(&self) -> Option<Image> {
        self.latest().as_ref().filter(|latest| latest.as_it_is).map(|latest| latest.image.clone())
    }

    fn directory(&self, number: u32) -> PathBuf {
        self.store.join("volumes").join(number.to_string())
    }

    /// Makes the volume of a number whose files belong to `root`, a host's id.
    pub fn make(&self, number: u32, root: u32) -> Result<Volume, Error> {
        let directory = self.directory(number);
        let made = (|| {
            fs::create_dir(&directory)?;
            fs::create_dir(directory.join("upper"))?;
            fs::create_dir(directory.join("work"))?;
            for name in NAMES {
                fs::write(directory.join(name), "")?;
            }
            // The root directory's owner is the upper layer's.
            for file in ["upper"].iter().chain(&NAMES) {
                chown(directory.join(file), Some(root), Some(root))?;
            }
            Ok(())
        })();
        made.map_err(|error| {
            self.destroy(number);
            failed("make the volume", &directory)(error)
        })?;
        Ok(Volume { number, path: directory })
    }

    /// A volume that has been made.
    pub fn at(&self, number: u32) -> Volume {
        Volume { number, path: self.directory(number) }
    }

    /// Joins a volume's writable layer with an image that is none itself, once in the volume's life;
    /// whether copies were needed. `user_namespace` is the container's, absent for privileged ones.
    pub fn mount(
        &self,
        volume: &Volume,
        image: &Image,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(Overlay, bool), Error> {
        if let Foundation::Made { root, .. } = &image.foundation {
            let access = Access { recursive: true, ..Access::default() };
            let mount = mounts::bind(root, access).map_err(failed("mount the image", root))?;
            return Ok((Overlay { mount, spent: Vec::new() }, false));
        }
        let copy = self.shift_by_copy;
        let shift = user_namespace.map(|users| Shift { users, root: MAPPED_ROOT, copy });
        let lower = overlay::mount_layers(&self.layers, image.layers(), shift)
            .map_err(|error| image_error(&error))?;
        if lower.copied
            && let Some(latest) = self.latest().as_mut().filter(|latest| latest.image == *image)
        {
            latest.as_it_is = false;
        }
        let (upper, work) = (volume.path().join("upper"), volume.path().join("work"));
        let mounted = (|| {
            if let Some(top) = image.layers().first() {
                fs::set_permissions(&upper, fs::metadata(top)?.permissions())?;
            }
            overlay::mount(lower.mounts, &upper, &work)
        })();
        let (mount, spent) = mounted.map_err(failed("mount the volume", volume.path()))?;
        Ok((Overlay { mount, spent }, lower.copied))
    }

    /// Has a volume deleted before long; one that does not exist is no error. What a daemon that is
    /// killed has not deleted is found by the next one.
    pub fn destroy(&self, number: u32) {
        let doomed = self.directory(number);
        if let Err(mpsc::TrySendError::Full(doomed) | mpsc::TrySendError::Disconnected(doomed)) =
            self.trash.try_send(doomed)
            && let Err(error) = delete(&doomed)
        {
            tracing::warn!(path = %doomed.display(), %error, "a volume cannot be deleted");
        }
    }

    /// Numbers of all volumes there are.
    pub fn list(&self) -> Result<Vec<u32>, Error> {
        let volumes = self.store.join("volumes");
        let entries = fs::read_dir(&volumes).map_err(failed("list", &volumes))?;
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        Ok(entries.flatten().filter_map(number).collect())
    }

    /// What is unpacked; `None` if it cannot be looked at.
    pub fn layers_held(&self) -> Option<Held> {
        self.layers.held().ok()
    }

    /// What a container's files take, its image so much.
    pub fn usage(&self, number: u32, image: u64) -> Usage {
        let exclusive = bytes_below(&self.directory(number).join("upper")).unwrap_or(0);
        Usage { exclusive, total: exclusive + image }
    }
}

/// Deletes volumes until nobody sends any more. What cannot be deleted now, for want of descriptors
/// for example, is tried again.
fn delete_all(doomed: &mpsc::Receiver<PathBuf>) {
    const AGAIN: Duration = Duration::from_millis(500);
    let mut later: Vec<PathBuf> = Vec::new();
    loop {
        let next = if later.is_empty() {
            doomed.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            doomed.recv_timeout(AGAIN)
        };
        match next {
            Ok(path) => later.push(path),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        later.retain(|path| match delete(path) {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a volume cannot be deleted yet");
                true
            }
        });
    }
}

fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn image_error(error: &rootfs::Error) -> Error {
    // The whole chain is in the text of the cause.
    match std::error::Error::source(error) {
        Some(cause) => Error::because(error, cause),
        None => Error::Plain(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_container_is_likely_to_have_the_image_of_the_last_one() {
        let place = tempfile::tempdir().unwrap();
        let image = |name: &str| {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            path.display().to_string()
        };
        let (first, second, of_a_pea) = (image("first"), image("second"), image("pea"));
        let volumes =
            Volumes::open(&place.path().join("store"), References::default(), false).unwrap();
        let likely = || volumes.likely().map(|image| image.layers()[0].display().to_string());
        assert_eq!(likely(), None);
        volumes.image(&first).unwrap();
        volumes.find(&of_a_pea).unwrap();
        assert_eq!(likely().as_ref(), Some(&first));
        volumes.image(&second).unwrap();
        assert_eq!(likely(), Some(second));
    }
}
