//! An app's files on their way into a package: matched with files that are known already, checked,
//! put together.

use std::fs::File;
use std::io;
use std::path::{Component, Path};

use blobstore::{Blobstore, Bucket, Key};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::config::ResourcePool;
use crate::error::ApiError;

/// A file of an app, as clients list it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Octal; `0644` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    pub checksum: Checksum,
    /// Bytes.
    pub size_in_bytes: u64,
}

/// SHA-1 in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checksum {
    pub value: String,
}

impl Resource {
    fn key(&self) -> Option<Key> {
        let sha1 = &self.checksum.value;
        let good = sha1.len() == 40 && sha1.chars().all(|c| c.is_ascii_hexdigit());
        good.then(|| Key::new(Bucket::Resources, sha1)).flatten()
    }

    /// The permission bits; the owner can always read and write.
    fn mode(&self) -> Result<u32, ApiError> {
        let text = self.mode.as_deref().unwrap_or("0644");
        let mode = u32::from_str_radix(text, 8).map_err(|_| {
            ApiError::unprocessable(format!("The resource file mode is invalid: {text}"))
        })?;
        Ok((mode & 0o777) | 0o600)
    }
}

/// Those of the files that are known already, as they were given.
pub(crate) async fn known(
    blobs: &Blobstore,
    pool: &ResourcePool,
    resources: Vec<Resource>,
) -> Result<Vec<Resource>, blobstore::Error> {
    let mut known = Vec::new();
    for resource in resources {
        let size = resource.size_in_bytes;
        if !(pool.minimum_size..=pool.maximum_size).contains(&size) {
            continue;
        }
        let Some(key) = resource.key() else { continue };
        if blobs.size(&key).await? == Some(size) {
            known.push(resource);
        }
    }
    Ok(known)
}

/// A relative path within the app that stays within it.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\0', '\\'])
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

fn invalid(reason: impl std::fmt::Display) -> ApiError {
    ApiError::unprocessable(format!("The app package is invalid: {reason}"))
}

/// The zip of a package: the uploaded one, with the matched files added to it.
pub(crate) async fn assemble(
    blobs: &Blobstore,
    spool: &Path,
    bits: Option<NamedTempFile>,
    matched: Vec<Resource>,
) -> Result<NamedTempFile, ApiError> {
    let mut files = Vec::with_capacity(matched.len());
    for resource in matched {
        let path = resource.path.clone().unwrap_or_default();
        if !is_inside(&path) {
            return Err(invalid(format!("the path {path:?} leads out of the app")));
        }
        let mode = resource.mode()?;
        let unknown = || invalid(format!("the file {path:?} is not known"));
        let key = resource.key().ok_or_else(unknown)?;
        let file = NamedTempFile::new_in(spool)?;
        let mut sink = tokio::fs::File::from_std(file.reopen()?);
        if !blobs.copy_to(&key, &mut sink).await? {
            return Err(unknown());
        }
        files.push((path, mode, file));
    }
    let spool = spool.to_owned();
    tokio::task::spawn_blocking(move || join(&spool, bits, &files))
        .await
        .map_err(|err| ApiError::unknown(&err))?
}

fn join(
    spool: &Path,
    bits: Option<NamedTempFile>,
    files: &[(String, u32, NamedTempFile)],
) -> Result<NamedTempFile, ApiError> {
    if let Some(bits) = &bits {
        check(bits.reopen()?)?;
    }
    if files.is_empty()
        && let Some(bits) = bits
    {
        return Ok(bits);
    }
    let whole = NamedTempFile::new_in(spool)?;
    let mut zip = ZipWriter::new(whole.reopen()?);
    if let Some(bits) = bits {
        let mut archive = ZipArchive::new(bits.reopen()?).map_err(invalid)?;
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(invalid)?;
            // One that was matched too is taken from the matched files.
            let name = entry.name().map_err(invalid)?.into_owned();
            if files.iter().all(|(path, ..)| *path != name) {
                zip.raw_copy_file(entry).map_err(invalid)?;
            }
        }
    }
    for (path, mode, file) in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(*mode)
            .large_file(file.as_file().metadata()?.len() >= u64::from(u32::MAX));
        zip.start_file(path.as_str(), options).map_err(invalid)?;
        io::copy(&mut file.reopen()?, &mut zip)?;
    }
    zip.finish().map_err(invalid)?;
    Ok(whole)
}

/// Refuses what is no zip, and names that lead out of the app.
fn check(file: File) -> Result<(), ApiError> {
    let mut archive = ZipArchive::new(file).map_err(invalid)?;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(invalid)?;
        let name = entry.name().map_err(invalid)?;
        if !is_inside(name.trim_end_matches('/')) {
            return Err(invalid(format!("the path {name:?} leads out of the app")));
        }
    }
    Ok(())
}

/// Keeps the files of a package for the next matching. Only a cache: what fails is skipped.
pub(crate) async fn pool(blobs: Blobstore, pool: ResourcePool, spool: &Path, package: Key) {
    let kept = async {
        let file = NamedTempFile::new_in(spool)?;
        let mut sink = tokio::fs::File::from_std(file.reopen()?);
        if !blobs.copy_to(&package, &mut sink).await.map_err(io::Error::other)? {
            return Ok(());
        }
        let spool = spool.to_owned();
        let handle = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let mut archive = ZipArchive::new(file.reopen()?).map_err(io::Error::other)?;
            for index in 0..archive.len() {
                let mut entry = archive.by_index(index).map_err(io::Error::other)?;
                if entry.is_file()
                    && (pool.minimum_size..=pool.maximum_size).contains(&entry.size())
                {
                    keep(&handle, &blobs, &spool, &mut entry, pool.maximum_size)?;
                }
            }
            Ok(())
        })
        .await
        .map_err(io::Error::other)?
    };
    let kept: io::Result<()> = kept.await;
    if let Err(err) = kept {
        tracing::debug!(error = %err, "files of a package are not kept for matching");
    }
}

fn keep(
    handle: &tokio::runtime::Handle,
    blobs: &Blobstore,
    spool: &Path,
    entry: &mut impl io::Read,
    most: u64,
) -> io::Result<()> {
    let copy = NamedTempFile::new_in(spool)?;
    // A zip may lie about its sizes.
    let mut limited = io::Read::take(entry, most + 1);
    let written = io::copy(&mut limited, &mut copy.as_file())?;
    if written > most {
        return Ok(());
    }
    let mut sha1 = Sha1::new();
    io::copy(&mut copy.reopen()?, &mut HashWriter(&mut sha1))?;
    let name: String = sha1.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let Some(key) = Key::new(Bucket::Resources, &name) else { return Ok(()) };
    handle.block_on(async {
        if blobs.size(&key).await.map_err(io::Error::other)? != Some(written) {
            blobs.put_file(&key, copy.path()).await.map_err(io::Error::other)?;
        }
        Ok(())
    })
}

struct HashWriter<'a>(&'a mut Sha1);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn zip_of(files: &[(&str, &str)]) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        let mut zip = ZipWriter::new(file.reopen().unwrap());
        for (name, content) in files {
            zip.start_file(*name, SimpleFileOptions::default().unix_permissions(0o644)).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        file
    }

    fn read_zip(file: &NamedTempFile) -> Vec<(String, u32, String)> {
        let mut archive = ZipArchive::new(file.reopen().unwrap()).unwrap();
        let mut found = Vec::new();
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let mode = entry.unix_mode().unwrap_or_default() & 0o777;
            let name = entry.name().unwrap().into_owned();
            found.push((name, mode, content));
        }
        found.sort();
        found
    }

    fn resource(path: &str, mode: &str, content: &str) -> Resource {
        let sha1: String = Sha1::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        Resource {
            path: Some(path.into()),
            mode: Some(mode.into()),
            checksum: Checksum { value: sha1 },
            size_in_bytes: content.len() as u64,
        }
    }

    const POOL: ResourcePool = ResourcePool { minimum_size: 3, maximum_size: 10 };

    #[tokio::test]
    async fn files_of_one_package_come_back_in_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobstore::local(&dir.path().join("blobs")).unwrap();
        let first = zip_of(&[("a", "content"), ("b", "no"), ("c", "larger than the most")]);
        let package = Key::new(Bucket::Packages, "package-1").unwrap();
        blobs.put_file(&package, first.path()).await.unwrap();
        pool(blobs.clone(), POOL, dir.path(), package).await;
        let listed = vec![
            resource("x/a.sh", "755", "content"),
            resource("b", "644", "no"),
            resource("c", "644", "larger than the most"),
            resource("d", "644", "unknown"),
        ];
        let matched = known(&blobs, &POOL, listed).await.unwrap();
        assert_eq!(matched, [resource("x/a.sh", "755", "content")]);
        let rest = zip_of(&[("new", "file")]);
        let whole = assemble(&blobs, dir.path(), Some(rest), matched.clone()).await.unwrap();
        let expected = [
            ("new".to_owned(), 0o644, "file".to_owned()),
            ("x/a.sh".to_owned(), 0o755, "content".to_owned()),
        ];
        assert_eq!(read_zip(&whole), expected);
        let alone = assemble(&blobs, dir.path(), None, matched).await.unwrap();
        assert_eq!(read_zip(&alone).len(), 1);
    }

    #[tokio::test]
    async fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobstore::local(dir.path()).unwrap();
        for name in ["../a", "/etc/a", "a/../../b"] {
            let bits = zip_of(&[(name, "x")]);
            assert!(assemble(&blobs, dir.path(), Some(bits), Vec::new()).await.is_err(), "{name}");
            let matched = vec![resource(name, "644", "content")];
            assert!(assemble(&blobs, dir.path(), None, matched).await.is_err(), "{name}");
        }
        let unknown = vec![resource("a", "644", "content")];
        assert!(assemble(&blobs, dir.path(), None, unknown).await.is_err());
        let no_zip = NamedTempFile::new().unwrap();
        std::fs::write(no_zip.path(), "no zip").unwrap();
        assert!(assemble(&blobs, dir.path(), Some(no_zip), Vec::new()).await.is_err());
    }
}
