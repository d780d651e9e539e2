//! What can be wrong with images, layers and volumes.

use std::io;
use std::path::{Path, PathBuf};

use crate::{archive, uri};

/// Why there is no root file system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing here serves this reference; the text says what to pass.
    #[error("{0}")]
    Unknown(String),
    /// A reference is no URI.
    #[error(transparent)]
    Reference(uri::Error),
    /// An image's description is wrong.
    #[error("image {}: {reason}", .path.display())]
    Image {
        /// The image's directory or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack the layer {}", .path.display())]
    Layer {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: archive::Error,
    },
    /// The file system refuses.
    #[error("cannot {attempt} {}", .path.display())]
    File {
        /// What was attempted, as a verb.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn on<E: Into<io::Error>>(
        attempt: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { attempt, path, source: source.into() }
    }

    pub(crate) fn image(path: &Path, reason: impl Into<String>) -> Self {
        Self::Image { path: path.to_path_buf(), reason: reason.into() }
    }
}
