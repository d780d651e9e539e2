//! Files into the container, and out of it.

use bbs_models::{DownloadAction, UploadAction};
use tokio::fs::File;

use super::{Failure, Outcome, Steps};
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
        let copied = async {
            let tar = File::open(kept.path()).await.map_err(|error| error.to_string())?;
            self.garden
                .stream_in(&self.handle, &action.user, &action.to, tar)
                .await
                .map_err(|error| chain(&error))
        };
        copied.await.map_err(|cause| {
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
            let archive = self
                .garden
                .stream_out(&self.handle, &action.user, &action.from)
                .await
                .map_err(|error| chain(&error))?;
            let bytes = first_entry(archive, &file).await.map_err(|error| error.to_string())?;
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
}

/// Writes the first file of a tar stream to `to`, and reads the stream to its end, which tells
/// whether it was whole.
pub(crate) async fn first_entry(
    archive: impl tokio::io::AsyncRead + Send + Unpin + 'static,
    to: &std::path::Path,
) -> std::io::Result<u64> {
    let mut bridge = tokio_util::io::SyncIoBridge::new(archive);
    let to = to.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut archive = tar::Archive::new(&mut bridge);
        let mut copied = None;
        for entry in archive.entries()? {
            let mut entry = entry?;
            if copied.is_none() && entry.header().entry_type().is_file() {
                copied = Some(std::io::copy(&mut entry, &mut std::fs::File::create(&to)?)?);
            }
        }
        std::io::copy(&mut bridge, &mut std::io::sink())?;
        copied.ok_or_else(|| std::io::Error::other("there is no file in what came out"))
    })
    .await
    .map_err(std::io::Error::other)?
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
