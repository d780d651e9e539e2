//! Unpacked layers, kept by what they are made of, each made once.
//!
//! ```text
//! <store>/layers/<key>/root     its files
//!                      size     bytes they take
//!                .new-<number>  being made; a leftover is removed at the next start
//! ```
//!
//! A layer gets its name by rename(2) when all of it is on disk, so one that has a name is whole.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;

use crate::archive::{self, Containment, Owners, Policy};
use crate::digest::{Digest, Digesting};
use crate::error::Error;
use crate::layout::{self, LayoutLayer};
use crate::reference::Place;
use crate::shift;

/// An image that can be used: its layers are unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its layers' directories, the topmost first.
    pub layers: Vec<PathBuf>,
    /// Its variables, as `NAME=value`.
    pub environment: Vec<String>,
    /// Bytes that its layers take.
    pub size: u64,
}

/// What a store has unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Layers, copies of other images for containers' root among them.
    pub layers: usize,
    /// Bytes that they take.
    pub bytes: u64,
}

/// All layers of a store.
#[derive(Debug)]
pub struct Layers {
    directory: PathBuf,
    number: AtomicU64,
    making: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// Sizes of image directories that are not ours, measured once.
    measured: Mutex<HashMap<PathBuf, u64>>,
}

const BUFFER: usize = 256 * 1024;

impl Layers {
    /// Opens a store, which one daemon uses at a time, and removes what an earlier one left half
    /// made.
    pub fn open(store: &Path) -> Result<Self, Error> {
        let directory = store.join("layers");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(Error::on("make", &directory))?;
        for entry in fs::read_dir(&directory).map_err(Error::on("list", &directory))?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".new-") {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(Error::on("remove", &path))?;
            }
        }
        Ok(Self {
            directory,
            number: AtomicU64::new(0),
            making: Mutex::default(),
            measured: Mutex::default(),
        })
    }

    /// Makes an image usable. Takes long the first time; whoever asks for the same meanwhile waits.
    pub fn image(&self, place: &Place) -> Result<Image, Error> {
        match place {
            Place::Directory(path) => {
                let size = self.measure(path);
                Ok(Image { layers: vec![path.clone()], environment: Vec::new(), size })
            }
            Place::Tar(path) => {
                let layer = self.tar(path)?;
                let size = size_of_layer(&layer)?;
                Ok(Image { layers: vec![layer.join("root")], environment: Vec::new(), size })
            }
            Place::Layout(path, name) => {
                let described = layout::read(path, name.as_deref())?;
                let mut image =
                    Image { layers: Vec::new(), environment: described.environment, size: 0 };
                let mut chain: Option<Digest> = None;
                for layer in &described.layers {
                    // ChainID of the image specification: a layer and all that is below it.
                    let next = match &chain {
                        None => layer.diff.clone(),
                        Some(below) => Digest::of(format!("{below} {}", layer.diff)),
                    };
                    let made = self.blob(layer, &next, &image.layers)?;
                    image.size += size_of_layer(&made)?;
                    image.layers.insert(0, made.join("root"));
                    chain = Some(next);
                }
                if image.layers.is_empty() {
                    return Err(Error::image(path, "an image without layers"));
                }
                Ok(image)
            }
        }
    }

    /// All layers that are whole.
    pub fn held(&self) -> Result<Held, Error> {
        let mut held = Held::default();
        let entries = fs::read_dir(&self.directory);
        for entry in entries.map_err(Error::on("list", &self.directory))?.flatten() {
            if !entry.file_name().as_encoded_bytes().starts_with(b".new-") {
                held.layers += 1;
                held.bytes += size_of_layer(&entry.path())?;
            }
        }
        Ok(held)
    }

    /// A tar that changes is another layer: its time and size are in the key.
    fn tar(&self, path: &Path) -> Result<PathBuf, Error> {
        let file = File::open(path).map_err(Error::on("open", path))?;
        let data = file.metadata().map_err(Error::on("stat", path))?;
        let absolute = fs::canonicalize(path).map_err(Error::on("find", path))?;
        let identity = format!(
            "{}\0{}.{}\0{}\0{}",
            absolute.display(),
            data.mtime(),
            data.mtime_nsec(),
            data.size(),
            data.ino()
        );
        let key = format!("tar-{}", Digest::of(identity).digits());
        self.make(&key, |root| {
            let policy = Policy {
                containment: Containment::Root,
                owners: Owners::Archive,
                absolute_names: false,
                whiteouts: false,
                goes_on: false,
                below: Vec::new(),
            };
            let mut content = decompressed(BufReader::with_capacity(BUFFER, &file), path)?;
            unpack(&mut content, root, &policy, path)?;
            // The end of a compressed file has its checksum.
            io::copy(&mut content, &mut io::sink()).map(drop).map_err(Error::on("read", path))
        })
    }

    fn blob(
        &self,
        layer: &LayoutLayer,
        chain: &Digest,
        below: &[PathBuf],
    ) -> Result<PathBuf, Error> {
        let path = &layer.blob;
        self.make(&format!("sha256-{}", chain.digits()), |root| {
            let file = File::open(path).map_err(Error::on("open", path))?;
            let below: Vec<File> = below
                .iter()
                .map(|lower| File::open(lower).map_err(Error::on("open", lower)))
                .collect::<Result<_, _>>()?;
            let policy = Policy {
                containment: Containment::Root,
                owners: Owners::Archive,
                absolute_names: false,
                whiteouts: true,
                goes_on: false,
                below: below.iter().map(AsFd::as_fd).collect(),
            };
            let mut blob = Digesting::new(file);
            let content = decompressed(BufReader::with_capacity(BUFFER, &mut blob), path)?;
            let mut content = BufReader::with_capacity(BUFFER, Digesting::new(content));
            unpack(&mut content, root, &policy, path)?;
            io::copy(&mut content, &mut io::sink()).map_err(Error::on("read", path))?;
            let (diff, rest) = content.into_inner().finish().map_err(Error::on("read", path))?;
            drop(rest);
            let (digest, _) = blob.finish().map_err(Error::on("read", path))?;
            for (found, wanted) in [(digest, &layer.digest), (diff, &layer.diff)] {
                if found != *wanted {
                    let reason = format!("its digest is {found} and should be {wanted}");
                    return Err(Error::image(path, reason));
                }
            }
            Ok(())
        })
    }

    /// A copy of an image's directory in which root's files belong to `root`, for file systems that
    /// cannot show them so. A directory that changes is copied again.
    pub fn shifted(&self, source: &Path, root: u32) -> Result<PathBuf, Error> {
        let identity = shift::fingerprint(source).map_err(Error::on("look through", source))?;
        let key = format!("shifted-{root}-{}", Digest::of(identity).digits());
        let made = self.make(&key, |target| {
            let from = File::open(source).map_err(Error::on("open", source))?;
            shift::copy(from.as_fd(), target, root).map_err(Error::on("copy", source))
        })?;
        Ok(made.join("root"))
    }

    fn make(
        &self,
        key: &str,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let layer = self.directory.join(key);
        if layer.exists() {
            return Ok(layer);
        }
        let turn = Arc::clone(lock(&self.making).entry(key.to_owned()).or_default());
        let _turn = lock(&turn);
        if layer.exists() {
            return Ok(layer);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let new = self.directory.join(format!(".new-{number}"));
        let made = self.fill(&new, &layer, fill);
        if made.is_err()
            && let Err(error) = fs::remove_dir_all(&new)
        {
            tracing::warn!(path = %new.display(), %error, "a half made layer is not removed");
        }
        lock(&self.making).remove(key);
        made.map(|()| layer)
    }

    fn fill(
        &self,
        new: &Path,
        layer: &Path,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let root = new.join("root");
        fs::create_dir(new).map_err(Error::on("make", new))?;
        fs::create_dir(&root).map_err(Error::on("make", &root))?;
        let open = File::open(&root).map_err(Error::on("open", &root))?;
        rustix::fs::fchmod(&open, 0o755.into()).map_err(Error::on("change the mode of", &root))?;
        fill(open.as_fd())?;
        let size = bytes_below(&root).map_err(Error::on("measure", &root))?;
        fs::write(new.join("size"), size.to_string()).map_err(Error::on("write", new))?;
        // A layer outlives the host's restarts; its name must not come to disk before its files.
        rustix::fs::syncfs(&open).map_err(Error::on("sync", new))?;
        fs::rename(new, layer).map_err(Error::on("name", layer))
    }

    fn measure(&self, path: &Path) -> u64 {
        if let Some(size) = lock(&self.measured).get(path) {
            return *size;
        }
        let size = bytes_below(path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "an image cannot be measured");
            0
        });
        lock(&self.measured).insert(path.to_path_buf(), size);
        size
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unpack(
    content: &mut impl Read,
    root: BorrowedFd<'_>,
    policy: &Policy<'_>,
    path: &Path,
) -> Result<(), Error> {
    let unpacked = archive::unpack(content, root, policy)
        .map_err(|source| Error::Layer { path: path.to_path_buf(), source })?;
    if unpacked.devices > 0 {
        tracing::debug!(path = %path.display(), unpacked.devices, "devices are left out of a layer");
    }
    Ok(())
}

/// Plain or gzip, by the first bytes: media types are not always right.
fn decompressed<'a, R: io::BufRead + 'a>(
    mut source: R,
    path: &Path,
) -> Result<Box<dyn Read + 'a>, Error> {
    let start = source.fill_buf().map_err(Error::on("read", path))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(source))));
    }
    for (magic, name) in
        [(b"\x28\xb5\x2f\xfd".as_slice(), "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")]
    {
        if start.starts_with(magic) {
            let reason = format!("compressed with {name}; only plain and gzip are supported");
            return Err(Error::image(path, reason));
        }
    }
    Ok(Box::new(source))
}

fn size_of_layer(layer: &Path) -> Result<u64, Error> {
    let path = layer.join("size");
    let text = fs::read_to_string(&path).map_err(Error::on("read", &path))?;
    text.parse().map_err(|_| Error::image(&path, "not a number"))
}

/// Bytes that a directory's files take on disk. Of a file with several names each counts.
pub fn bytes_below(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // A container may be removing it just now.
        let data = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        bytes += data.blocks() * 512;
        if data.is_dir() {
            match bytes_below(&entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                below => bytes += below?,
            }
        }
    }
    Ok(bytes)
}
