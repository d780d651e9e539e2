//! Downloads that are kept: one copy per cell of what many containers want (diego.md 11).
//!
//! An entry is a directory named for its key, which holds `entry.json`, written last, and `tar` or
//! `files` or both. What has no `entry.json` is the rest of a download that was broken off, and goes
//! at the next start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use md5::Digest as _;
use serde::{Deserialize, Serialize};

use crate::archive;
use crate::fetch::{self, Checksum, Error, Fetched, Transfers, Version};

const ENTRY: &str = "entry.json";

/// What is to be fetched.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a str,
    /// Empty: it is fetched for this one use.
    pub(crate) key: &'a str,
    pub(crate) checksum: Option<Checksum>,
}

/// The form in which it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Tar,
    Files,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Files => "files",
        }
    }
}

/// A fetched archive; it stays on disk as long as this lives.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    /// What it was downloaded as, in bytes; nothing where the copy here was still good.
    pub(crate) downloaded: Option<u64>,
    _hold: Hold,
}

impl Kept {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[derive(Debug)]
enum Hold {
    Entry { cache: Arc<Inner>, name: String },
    Once(#[allow(dead_code)] tempfile::TempDir), // Removed when dropped.
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Self::Entry { cache, name } = self {
            let mut entries = cache.entries();
            if let Some(entry) = entries.get_mut(name) {
                entry.users -= 1;
            }
        }
    }
}

/// A directory of downloads with a bound on its size.
#[derive(Clone, Debug)]
pub(crate) struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    transfers: Transfers,
    /// Bytes beyond which what nobody uses is given up, the longest unused first.
    limit: u64,
    slots: tokio::sync::Semaphore,
    entries: Mutex<BTreeMap<String, Entry>>,
    fetching: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Entry {
    record: Record,
    users: usize,
    /// Value of the cache's clock at the last use.
    used: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    version: Version,
    /// Bytes on disk.
    size: u64,
    /// Two contents of one key lie side by side while the older one is in use.
    generation: u64,
}

impl Inner {
    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Cache {
    /// Opens the directory, which is made if it is missing. `slots` downloads run at once.
    pub(crate) fn open(
        directory: PathBuf,
        limit: u64,
        slots: usize,
        transfers: Transfers,
    ) -> Result<Self, Error> {
        private::directory(&directory).map_err(Error::file("making the directory", &directory))?;
        let mut entries = BTreeMap::new();
        let mut used = 0;
        let mut found: Vec<(SystemTime, String, Record)> = Vec::new();
        let listed =
            fs::read_dir(&directory).map_err(Error::file("reading the directory", &directory))?;
        for file in listed.flatten() {
            let path = file.path();
            let record = fs::read(path.join(ENTRY))
                .ok()
                .and_then(|json| serde_json::from_slice::<Record>(&json).ok());
            match (record, file.file_name().into_string()) {
                (Some(record), Ok(name)) => {
                    let time = file.metadata().and_then(|metadata| metadata.modified());
                    found.push((time.unwrap_or(SystemTime::UNIX_EPOCH), name, record));
                }
                _ => remove(&path),
            }
        }
        found.sort_by_key(|(time, ..)| *time);
        for (_, name, record) in found {
            used += 1;
            entries.insert(name, Entry { record, users: 0, used });
        }
        let inner = Inner {
            directory,
            transfers,
            limit,
            slots: tokio::sync::Semaphore::new(slots),
            entries: Mutex::new(entries),
            fetching: Mutex::default(),
            clock: AtomicU64::new(used),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The archive as a plain tar.
    pub(crate) async fn tar(&self, wanted: &Wanted<'_>) -> Result<Kept, Error> {
        self.get(wanted, Form::Tar).await
    }

    /// The archive's files, in a directory. What has no version on its server cannot be had so.
    pub(crate) async fn files(&self, wanted: &Wanted<'_>) -> Result<Kept, Error> {
        self.get(wanted, Form::Files).await
    }

    async fn get(&self, wanted: &Wanted<'_>, form: Form) -> Result<Kept, Error> {
        if wanted.key.is_empty() {
            return self.once(wanted, form).await;
        }
        let key = fetch::hex(&md5::Md5::digest(wanted.key.as_bytes()));
        let turn = {
            let mut fetching = self.0.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(fetching.entry(key.clone()).or_default())
        };
        // One download per key; who waited looks again, and finds it.
        let _turn = turn.lock().await;
        let (name, known) = self.newest(&key);
        let known = known.unwrap_or_default();
        let work = self.scratch()?;
        let packed = work.path().join("packed");
        let slot = self.0.slots.acquire().await;
        let fetched = self
            .0
            .transfers
            .download(wanted.url, &known.version, wanted.checksum.as_ref(), &packed)
            .await;
        drop(slot);
        match (fetched?, name) {
            (Fetched::Unchanged, Some(name)) => {
                self.complete(&name, form).await?;
                Ok(self.hold(&name, form, None))
            }
            (Fetched::Unchanged, None) => Err(Error::Download(304)),
            (Fetched::New { version, size }, older) => {
                if !version.is_known() {
                    // It could never be told whether it is still good.
                    return self.convert(work, form).await.map(|path| Kept {
                        path: path.1,
                        downloaded: Some(size),
                        _hold: Hold::Once(path.0),
                    });
                }
                let generation = older.map_or(0, |_| known.generation + 1);
                let name = format!("{key}.{generation}");
                let record = Record { version, size: 0, generation };
                self.store(&name, work, form, record).await?;
                let kept = self.hold(&name, form, Some(size));
                self.evict();
                Ok(kept)
            }
        }
    }

    async fn once(&self, wanted: &Wanted<'_>, form: Form) -> Result<Kept, Error> {
        let work = self.scratch()?;
        let packed = work.path().join("packed");
        let slot = self.0.slots.acquire().await;
        let fetched = self
            .0
            .transfers
            .download(wanted.url, &Version::default(), wanted.checksum.as_ref(), &packed)
            .await?;
        drop(slot);
        let downloaded = match fetched {
            Fetched::New { size, .. } => Some(size),
            Fetched::Unchanged => return Err(Error::Download(304)),
        };
        let (work, path) = self.convert(work, form).await?;
        Ok(Kept { path, downloaded, _hold: Hold::Once(work) })
    }

    /// A directory beside the entries, so that it can be renamed to become one.
    fn scratch(&self) -> Result<tempfile::TempDir, Error> {
        tempfile::Builder::new()
            .prefix("fetching-")
            .tempdir_in(&self.0.directory)
            .map_err(Error::file("making a directory in", &self.0.directory))
    }

    fn newest(&self, key: &str) -> (Option<String>, Option<Record>) {
        let prefix = format!("{key}.");
        let entries = self.0.entries();
        let newest = entries
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .max_by_key(|(_, entry)| entry.record.generation);
        match newest {
            Some((name, entry)) => (Some(name.clone()), Some(entry.record.clone())),
            None => (None, None),
        }
    }

    /// Turns `packed` into the wanted form, in place.
    async fn convert(
        &self,
        work: tempfile::TempDir,
        form: Form,
    ) -> Result<(tempfile::TempDir, PathBuf), Error> {
        blocking(move || {
            let path = unfold(work.path(), form)?;
            let packed = work.path().join("packed");
            let _ = fs::remove_file(packed);
            Ok((work, path))
        })
        .await
    }

    async fn store(
        &self,
        name: &str,
        work: tempfile::TempDir,
        form: Form,
        mut record: Record,
    ) -> Result<(), Error> {
        let target = self.0.path(name);
        let record = blocking(move || {
            unfold(work.path(), form)?;
            fs::remove_file(work.path().join("packed"))
                .map_err(Error::file("removing the download in", work.path()))?;
            record.size = size(work.path());
            write_record(work.path(), &record)?;
            remove(&target);
            // From here on it is no temporary directory any more.
            let work = work.keep();
            fs::set_permissions(&work, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .and_then(|()| fs::rename(&work, &target))
                .map_err(Error::file("renaming to", &target))?;
            Ok(record)
        })
        .await?;
        self.0.entries().insert(name.to_owned(), Entry { record, users: 0, used: 0 });
        Ok(())
    }

    /// Makes the form that an entry lacks from the one that it has.
    async fn complete(&self, name: &str, form: Form) -> Result<(), Error> {
        let path = self.0.path(name);
        if path.join(form.name()).exists() {
            return Ok(());
        }
        let record = self.0.entries().get(name).map(|entry| entry.record.clone());
        let record = blocking(move || {
            match form {
                Form::Files => drop(files_of_tar(&path)?),
                Form::Tar => tar_of_files(&path)?,
            }
            let record = Record { size: size(&path), ..record.unwrap_or_default() };
            write_record(&path, &record)?;
            Ok(record)
        })
        .await?;
        if let Some(entry) = self.0.entries().get_mut(name) {
            entry.record = record;
        }
        Ok(())
    }

    fn hold(&self, name: &str, form: Form, downloaded: Option<u64>) -> Kept {
        let used = self.0.clock.fetch_add(1, Ordering::Relaxed) + 1;
        let mut entries = self.0.entries();
        let entry = entries.entry(name.to_owned()).or_default();
        entry.users += 1;
        entry.used = used;
        drop(entries);
        let path = self.0.path(name).join(form.name());
        let hold = Hold::Entry { cache: Arc::clone(&self.0), name: name.to_owned() };
        Kept { path, downloaded, _hold: hold }
    }

    /// Gives up what nobody uses until the rest is within the limit, and older contents of a key.
    fn evict(&self) {
        let mut entries = self.0.entries();
        let mut total: u64 = entries.values().map(|entry| entry.record.size).sum();
        let mut idle: Vec<(bool, u64, String)> = entries
            .iter()
            .filter(|(_, entry)| entry.users == 0)
            .map(|(name, entry)| (!is_superseded(&entries, name), entry.used, name.clone()))
            .collect();
        idle.sort();
        for (current, _, name) in idle {
            if current && total <= self.0.limit {
                break;
            }
            if let Some(entry) = entries.remove(&name) {
                total -= entry.record.size;
                remove(&self.0.path(&name));
            }
        }
    }
}

/// Whether there is a newer content of the same key.
fn is_superseded(entries: &BTreeMap<String, Entry>, name: &str) -> bool {
    let key = name.split('.').next().unwrap_or_default();
    let generation = entries.get(name).map_or(0, |entry| entry.record.generation);
    entries.iter().any(|(other, entry)| {
        other.split('.').next() == Some(key) && entry.record.generation > generation
    })
}

fn unfold(work: &Path, form: Form) -> Result<PathBuf, Error> {
    let (packed, tar) = (work.join("packed"), work.join("tar"));
    archive::to_tar(&packed, &tar).map_err(Error::file("reading the archive", &packed))?;
    match form {
        Form::Tar => Ok(tar),
        Form::Files => {
            let files = files_of_tar(work)?;
            fs::remove_file(&tar).map_err(Error::file("removing", &tar))?;
            Ok(files)
        }
    }
}

fn files_of_tar(entry: &Path) -> Result<PathBuf, Error> {
    let (tar, files, partial) = (entry.join("tar"), entry.join("files"), entry.join("partial"));
    remove(&partial);
    fs::create_dir(&partial).map_err(Error::file("making the directory", &partial))?;
    archive::unpack(&tar, &partial).map_err(Error::file("unpacking", &tar))?;
    fs::rename(&partial, &files).map_err(Error::file("renaming to", &files))?;
    Ok(files)
}

fn tar_of_files(entry: &Path) -> Result<(), Error> {
    let (files, partial, tar) = (entry.join("files"), entry.join("partial"), entry.join("tar"));
    let write = || -> std::io::Result<()> {
        let mut archive = tar::Builder::new(std::io::BufWriter::new(fs::File::create(&partial)?));
        archive.follow_symlinks(false);
        archive.append_dir_all(".", &files)?;
        std::io::Write::flush(&mut archive.into_inner()?)?;
        fs::rename(&partial, &tar)
    };
    write().map_err(Error::file("writing", &tar))
}

fn write_record(entry: &Path, record: &Record) -> Result<(), Error> {
    let (path, new) = (entry.join(ENTRY), entry.join("entry.new"));
    let json = serde_json::to_vec(record).expect("texts and numbers are always JSON");
    fs::write(&new, json)
        .and_then(|()| fs::rename(&new, &path))
        .map_err(Error::file("writing", &path))
}

/// Bytes of all files below.
fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

/// Removes a file or a tree. What cannot be removed is only logged: it is tried again at the next
/// start.
fn remove(path: &Path) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "an old download cannot be removed");
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::Transport { url: "a download".into(), source: error.into() })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::{Cache, Wanted};
    use crate::fetch::{Checksum, Error, Transfers};

    /// A server of one archive with a version that can change; it remembers what it answered.
    struct Server {
        url: String,
        version: Arc<Mutex<u32>>,
        answered: Arc<Mutex<Vec<u16>>>,
    }

    impl Server {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let (version, answered) = (Arc::new(Mutex::new(1)), Arc::new(Mutex::new(Vec::new())));
            let server = Self { url, version: version.clone(), answered: answered.clone() };
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = vec![0; 8192];
                    let read = stream.read(&mut request).await.unwrap();
                    let head = String::from_utf8_lossy(&request[..read]).to_lowercase();
                    let version = *version.lock().unwrap();
                    let (status, answer) =
                        if head.contains(&format!("if-none-match: \"{version}\"")) {
                            (304, b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec())
                        } else {
                            let archive = archive(version);
                            let head = format!(
                                "HTTP/1.1 200 OK\r\nETag: \"{version}\"\r\nContent-Length: {}\r\n\
                             Connection: close\r\n\r\n",
                                archive.len()
                            );
                            (200, [head.into_bytes(), archive].concat())
                        };
                    answered.lock().unwrap().push(status);
                    stream.write_all(&answer).await.unwrap();
                }
            });
            server
        }

        fn answered(&self) -> Vec<u16> {
            std::mem::take(&mut *self.answered.lock().unwrap())
        }
    }

    /// A tar with one file, `version`.
    fn archive(version: u32) -> Vec<u8> {
        let text = version.to_string();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "version", text.as_bytes()).unwrap();
        tar.into_inner().unwrap()
    }

    fn open(directory: &std::path::Path, limit: u64) -> Cache {
        Cache::open(directory.to_owned(), limit, 5, Transfers::new(None)).unwrap()
    }

    #[tokio::test]
    async fn what_is_kept_is_asked_for_and_not_fetched_again() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start().await;
        let wanted = |key| Wanted { url: &server.url, key, checksum: None };
        let cache = open(directory.path(), 1 << 30);
        let first = cache.files(&wanted("k")).await.unwrap();
        assert_eq!(std::fs::read(first.path().join("version")).unwrap(), b"1");
        assert!(first.downloaded.is_some());
        let again = cache.tar(&wanted("k")).await.unwrap();
        assert!(again.downloaded.is_none() && again.path().is_file());
        assert_eq!(server.answered(), [200, 304]);

        // A later executor finds it; what is half there goes.
        drop((first, again, cache));
        std::fs::create_dir(directory.path().join("fetching-x")).unwrap();
        let cache = open(directory.path(), 1 << 30);
        assert!(!directory.path().join("fetching-x").exists());
        let found = cache.files(&wanted("k")).await.unwrap();
        assert_eq!(server.answered(), [304]);

        // A new content does not take the old one away from those who use it.
        *server.version.lock().unwrap() = 2;
        let newer = cache.files(&wanted("k")).await.unwrap();
        assert_eq!(std::fs::read(newer.path().join("version")).unwrap(), b"2");
        assert_eq!(std::fs::read(found.path().join("version")).unwrap(), b"1");
        assert_eq!(server.answered(), [200]);

        // Without a key nothing is kept.
        let once = cache.tar(&wanted("")).await.unwrap();
        let path = once.path().to_owned();
        drop(once);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_longest_unused_goes_when_room_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start().await;
        let wanted = |key| Wanted { url: &server.url, key, checksum: None };
        let cache = open(directory.path(), 1);
        let used = cache.files(&wanted("used")).await.unwrap();
        drop(cache.files(&wanted("idle")).await.unwrap());
        server.answered();
        drop(cache.files(&wanted("new")).await.unwrap());
        assert!(used.path().exists(), "what is in use stays");
        cache.files(&wanted("idle")).await.unwrap();
        cache.files(&wanted("used")).await.unwrap();
        assert_eq!(server.answered(), [200, 200, 304]);
    }

    #[tokio::test]
    async fn a_wrong_checksum_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start().await;
        let checksum = Checksum::new("sha256", "00");
        let cache = open(directory.path(), 1 << 30);
        let wanted = Wanted { url: &server.url, key: "k", checksum };
        let error = cache.tar(&wanted).await.unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }), "{error}");
        assert_eq!(server.answered(), [200], "it is not tried again");
        let unknown = Wanted { checksum: Checksum::new("crc", "0"), ..wanted };
        assert!(matches!(cache.tar(&unknown).await.unwrap_err(), Error::Algorithm(_)));
    }
}
