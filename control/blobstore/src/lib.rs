//! Packages, droplets, buildpacks and application files, by key.
//!
//! The layout is Cloud Controller's: a bucket is a directory (`cc-packages`, `cc-droplets`,
//! `cc-buildpacks`, `cc-resources`), a key `abcdef` lies at `ab/cd/abcdef` in it, in lower case. So a
//! store that the original has filled is read as it is.
//!
//! A blob appears whole or not at all: it is written under a temporary name, synced and renamed
//! before [`Blobstore::put`] returns. Blobs do not change; putting one again replaces it atomically,
//! and who is reading the old one reads it to the end.

#![forbid(unsafe_code)]

mod digest;
mod key;

use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::io::{AsyncWrite, AsyncWriteExt};

pub use digest::{Digesting, Digests};
pub use key::{Bucket, Key};

/// Bytes sent to the store at a time: the least that object stores take as a part.
const PART: usize = 5 << 20;

/// Why a blob cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("cannot {action} blob {key}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// On which blob.
        key: String,
        /// Why it failed.
        source: object_store::Error,
    },
    /// What should become or take up a blob failed.
    #[error("cannot {action} blob {key}")]
    Peer {
        /// What was tried.
        action: &'static str,
        /// On which blob.
        key: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The directory of a local store cannot be used.
    #[error("blobstore directory {dir}: {reason}")]
    Directory {
        /// The directory.
        dir: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A blob being read.
pub struct Blob {
    /// Length in bytes.
    pub size: u64,
    /// The contents. A read error ends it.
    pub bytes: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob").field("size", &self.size).finish_non_exhaustive()
    }
}

/// A store of blobs. A clone is the same store.
#[derive(Clone, Debug)]
pub struct Blobstore {
    store: Arc<dyn ObjectStore>,
}

impl Blobstore {
    /// A store in a directory, which is made if missing and closed to other users; what a killed
    /// process left half-written is removed. Blocks. One process writes to a directory.
    pub fn local(dir: &FilePath) -> Result<Self, Error> {
        let unusable = |reason: String| Error::Directory { dir: dir.display().to_string(), reason };
        private::directory(dir).map_err(|err| unusable(err.to_string()))?;
        remove_unfinished(dir).map_err(|err| unusable(err.to_string()))?;
        let store =
            LocalFileSystem::new_with_prefix(dir).map_err(|err| unusable(err.to_string()))?;
        Ok(Self { store: Arc::new(store.with_fsync(true)) })
    }

    /// Keeps what `bytes` yields. When this returns, the blob survives a crash; when `bytes` fails,
    /// nothing is kept.
    pub async fn put<S>(&self, key: &Key, bytes: S) -> Result<Digests, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let mut digesting = Digesting::default();
        let mut bytes = std::pin::pin!(bytes);
        let mut part = BytesMut::new();
        let mut upload: Option<Box<dyn MultipartUpload>> = None;
        let failed = |source| Error::Store { action: "write", key: key.to_string(), source };
        while let Some(chunk) = bytes.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(source) => {
                    if let Some(mut upload) = upload {
                        let _ = upload.abort().await;
                    }
                    return Err(Error::Peer { action: "receive", key: key.to_string(), source });
                }
            };
            digesting.update(&chunk);
            part.extend_from_slice(&chunk);
            while part.len() >= PART {
                let full = part.split_to(PART).freeze();
                let upload = match &mut upload {
                    Some(upload) => upload,
                    None => {
                        let begun = self.store.put_multipart(key.path()).await;
                        upload.insert(begun.map_err(failed)?)
                    }
                };
                upload.put_part(PutPayload::from(full)).await.map_err(failed)?;
            }
        }
        match upload {
            None => {
                let whole = PutPayload::from(part.freeze());
                self.store.put(key.path(), whole).await.map_err(failed)?;
            }
            Some(mut upload) => {
                if !part.is_empty() {
                    upload.put_part(PutPayload::from(part.freeze())).await.map_err(failed)?;
                }
                upload.complete().await.map_err(failed)?;
            }
        }
        Ok(digesting.finish())
    }

    /// Keeps the contents of a file.
    pub async fn put_file(&self, key: &Key, file: &FilePath) -> Result<Digests, Error> {
        let failed = |source| Error::Peer { action: "read for", key: key.to_string(), source };
        let file = tokio::fs::File::open(file).await.map_err(failed)?;
        let chunks = futures_util::stream::try_unfold(file, |mut file| async move {
            let mut chunk = BytesMut::with_capacity(256 << 10);
            let read = tokio::io::AsyncReadExt::read_buf(&mut file, &mut chunk).await?;
            Ok((read > 0).then(|| (chunk.freeze(), file)))
        });
        self.put(key, chunks).await
    }

    /// The blob, or `None` if there is none.
    pub async fn get(&self, key: &Key) -> Result<Option<Blob>, Error> {
        match self.store.get(key.path()).await {
            Ok(found) => {
                let size = found.meta.size;
                let bytes = found.into_stream().map_err(io::Error::other).boxed();
                Ok(Some(Blob { size, bytes }))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(Error::Store { action: "read", key: key.to_string(), source }),
        }
    }

    /// Writes the blob to `sink` and flushes it. False if there is none.
    pub async fn copy_to(
        &self,
        key: &Key,
        sink: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<bool, Error> {
        let Some(mut blob) = self.get(key).await? else { return Ok(false) };
        let failed = |source| Error::Peer { action: "copy", key: key.to_string(), source };
        while let Some(chunk) = blob.bytes.next().await {
            sink.write_all(&chunk.map_err(failed)?).await.map_err(failed)?;
        }
        sink.flush().await.map_err(failed)?;
        Ok(true)
    }

    /// Length of the blob in bytes, or `None` if there is none.
    pub async fn size(&self, key: &Key) -> Result<Option<u64>, Error> {
        match self.store.head(key.path()).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(Error::Store { action: "look at", key: key.to_string(), source }),
        }
    }

    /// Makes `to` a copy of `from`. False if there is no `from`.
    pub async fn copy(&self, from: &Key, to: &Key) -> Result<bool, Error> {
        match self.store.copy(from.path(), to.path()).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(Error::Store { action: "copy", key: from.to_string(), source }),
        }
    }

    /// Removes the blob; one that does not exist is removed already.
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.delete_path(key.path()).await
    }

    /// Removes every blob whose key begins with this one and a slash.
    pub async fn delete_below(&self, key: &Key) -> Result<(), Error> {
        let failed = |source| Error::Store { action: "list", key: key.to_string(), source };
        let below = self.store.list(Some(key.path()));
        let below: Vec<_> = below.try_collect().await.map_err(failed)?;
        for meta in below {
            self.delete_path(&meta.location).await?;
        }
        Ok(())
    }

    async fn delete_path(&self, path: &Path) -> Result<(), Error> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::Store { action: "delete", key: path.to_string(), source }),
        }
    }
}

/// The store writes to `<name>#<number>` before it renames; keys never hold a `#`.
fn remove_unfinished(dir: &FilePath) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_unfinished(&entry.path())?;
        } else if entry.file_name().to_string_lossy().contains('#') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
