//! Files into the container, and out of it.

use std::io;
use std::path::Path;

use bbs_models::{DownloadAction, UploadAction};
use bloomery_garden::client::{Client, Error};
use tokio::fs::File;
use tokio::io::AsyncRead;

use super::{Failure, Outcome, Steps};
use crate::absence::{self, Absence};
use crate::cache::Wanted;
use crate::fetch::Checksum;

impl Steps {
    pub(super) async fn download(&self, action: &DownloadAction) -> Outcome {
        let source = action.log_source.as_str();
        let say = |is_error, text: String| {
            if !action.artifact.is_empty() {
                self.log.platform(source, is_error, &text);
            }
        };
        say(false, format!("Downloading {}...", action.artifact));
        let wanted = Wanted {
            url: &action.from,
            key: &action.cache_key,
            checksum: Checksum::new(&action.checksum_algorithm, &action.checksum_value),
        };
        let kept = self.cache.tar(&wanted).await.map_err(|error| {
            let cause = chain(&error);
            say(true, format!("Failed to download {}: {cause}", action.artifact));
            tracing::info!(
                handle = self.handle,
                url = action.from,
                error = cause,
                "download failed"
            );
            Failure::Failed("Downloading failed".into())
        })?;
        self.stream_in(kept.path(), &action.user, &action.to).await.map_err(|cause| {
            say(true, format!("Failed to copy {} into the container: {cause}", action.artifact));
            Failure::Failed("Copying into the container failed".into())
        })?;
        match kept.downloaded {
            Some(bytes) => say(false, format!("Downloaded {} ({})", action.artifact, size(bytes))),
            None => say(false, format!("Downloaded {} (cached)", action.artifact)),
        }
        Ok(())
    }

    pub(super) async fn upload(&self, action: &UploadAction) -> Outcome {
        let source = action.log_source.as_str();
        let say = |is_error, text: String| {
            if !action.artifact.is_empty() {
                self.log.platform(source, is_error, &text);
            }
        };
        let _slot = self.uploads.acquire().await;
        say(false, format!("Uploading {}...", action.artifact));
        let sent = async {
            let scratch = tempfile::Builder::new()
                .prefix("upload-")
                .tempdir_in(&self.scratch)
                .map_err(|error| format!("{}: {error}", self.scratch.display()))?;
            let file = scratch.path().join("file");
            let bytes = take_file(&self.garden, &self.handle, &action.user, &action.from, &file)
                .await
                .map_err(|error| chain(&error))?;
            self.transfers.upload(&action.to, &file).await.map_err(|error| chain(&error))?;
            Ok(bytes)
        };
        let bytes = sent.await.map_err(|cause: String| {
            say(true, format!("Failed to upload {}: {cause}", action.artifact));
            tracing::info!(handle = self.handle, url = action.to, error = cause, "upload failed");
            Failure::Failed("Uploading failed".into())
        })?;
        say(false, format!("Uploaded {} ({})", action.artifact, size(bytes)));
        Ok(())
    }

    /// Unpacks a tar archive into the container; else why not, in words. What an interrupted call has
    /// unpacked is unpacked again.
    async fn stream_in(&self, tar: &Path, user: &str, to: &str) -> Result<(), String> {
        let mut absence = Absence::new(&self.handle, absence::OF_CALLS);
        loop {
            let tar = File::open(tar).await.map_err(|error| error.to_string())?;
            match self.garden.stream_in(&self.handle, user, to, tar).await {
                Ok(()) => return Ok(()),
                Err(error) => absence.bear(error).await.map_err(|error| chain(&error))?,
            }
        }
    }
}

/// Why a file does not come out of a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untaken {
    /// Garden does not give it.
    #[error(transparent)]
    Garden(#[from] Error),
    /// What came is no whole archive with a file in it, or it cannot be written.
    #[error("reading {path}")]
    Archive {
        /// In the container.
        path: String,
        /// What is wrong.
        source: io::Error,
    },
}

/// How often an archive that ends too early is asked for: with Garden away, or because Garden cannot
/// finish it.
const ARCHIVES: u32 = 3;

/// Copies a file out of a container to `to`; its length.
pub(crate) async fn take_file(
    garden: &Client,
    handle: &str,
    user: &str,
    from: &str,
    to: &Path,
) -> Result<u64, Untaken> {
    let mut absence = Absence::new(handle, absence::OF_CALLS);
    let mut archives = 0;
    loop {
        let archive = match garden.stream_out(handle, user, from).await {
            Ok(archive) => archive,
            Err(error) => {
                absence.bear(error).await?;
                continue;
            }
        };
        archives += 1;
        match first_entry(archive, to).await {
            Err(error) if is_cut(&error) && archives < ARCHIVES => {
                tracing::info!(handle, path = from, %error, "a file is asked for again");
            }
            taken => {
                return taken.map_err(|source| Untaken::Archive { path: from.to_owned(), source });
            }
        }
    }
}

fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Writes the first file of a tar stream to `to`, and reads the stream to its end, which tells
/// whether it was whole.
async fn first_entry(
    archive: impl AsyncRead + Send + Unpin + 'static,
    to: &Path,
) -> io::Result<u64> {
    let mut bridge = tokio_util::io::SyncIoBridge::new(archive);
    let to = to.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut archive = tar::Archive::new(&mut bridge);
        let mut copied = None;
        for entry in archive.entries()? {
            let mut entry = entry?;
            if copied.is_none() && entry.header().entry_type().is_file() {
                copied = Some(io::copy(&mut entry, &mut std::fs::File::create(&to)?)?);
            }
        }
        io::copy(&mut bridge, &mut io::sink())?;
        copied.ok_or_else(|| io::Error::other("there is no file in what came out"))
    })
    .await
    .map_err(io::Error::other)?
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Bytes as users read them: `1.2M`, `512B`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "K", "M", "G"];
    let mut unit = 0;
    #[allow(clippy::cast_precision_loss)] // One decimal is shown.
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{}{}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_one_decimal() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(1023), "1023B");
        assert_eq!(size(1536), "1.5K");
        assert_eq!(size(2 << 20), "2M");
        assert_eq!(size(5 << 40), "5120G");
    }
}
