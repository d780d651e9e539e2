//! Downloads and uploads over HTTP (diego.md 11).

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, LOCATION,
};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use md5::Digest as _;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;
use transport::{BadTarget, Client, Identity, Target, Timeouts, without_credentials};

/// How often a download is tried.
const ATTEMPTS: u32 = 4;

/// How long one attempt may take, from the first byte to the last.
const LIMIT: Duration = Duration::from_secs(600);

const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(10), answer: Some(LIMIT) };

const REDIRECTS: usize = 5;

/// A transfer that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none that this program can follow.
    #[error("{url}: {what}")]
    Url {
        /// Without name and password.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// The server gave another answer than the file.
    #[error("Download failed: Status code {0}")]
    Download(u16),
    /// The server did not take the file.
    #[error("Upload failed: Status code {0}")]
    Upload(u16),
    /// The file is not the expected one.
    #[error("the {algorithm} checksum of {url} is {found}, not {expected}")]
    Checksum {
        /// Whose.
        url: String,
        /// `md5`, `sha1` or `sha256`.
        algorithm: String,
        /// What was expected, hexadecimal.
        expected: String,
        /// What came, hexadecimal.
        found: String,
    },
    /// A checksum of a kind that there is not.
    #[error("there is no checksum {0:?}: md5, sha1 and sha256 are")]
    Algorithm(String),
    /// Nobody could be asked, or the answer broke off.
    #[error("{url}")]
    Transport {
        /// Whose.
        url: String,
        /// What became of the connection.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of this machine.
    #[error("{doing} {path}")]
    File {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { doing, path, source }
    }

    fn transport<E>(url: &str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let url = without_credentials(url);
        move |source| Self::Transport { url, source: source.into() }
    }

    fn url(url: &str, what: String) -> Self {
        Self::Url { url: without_credentials(url), what }
    }

    /// Whether another attempt may do better.
    fn is_temporary(&self) -> bool {
        matches!(self, Self::Transport { .. } | Self::Download(_) | Self::Upload(_))
    }
}

/// What the server calls the version of a file that it sent, to ask later whether it has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// Its ETag.
    pub etag: Option<String>,
    /// Its Last-Modified.
    pub last_modified: Option<String>,
}

impl Version {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            etag: text(ETAG).map(ToOwned::to_owned),
            last_modified: text(LAST_MODIFIED).map(ToOwned::to_owned),
        }
    }

    /// Whether a change could be noticed. What has no version is not kept.
    pub fn is_known(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// A digest that a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// `md5`, `sha1` or `sha256`.
    pub algorithm: String,
    /// Hexadecimal.
    pub value: String,
}

impl Checksum {
    /// None where nothing is given.
    pub fn new(algorithm: &str, value: &str) -> Option<Self> {
        (!algorithm.is_empty() || !value.is_empty())
            .then(|| Self { algorithm: algorithm.to_lowercase(), value: value.to_lowercase() })
    }
}

/// How a download ended.
#[derive(Debug)]
pub enum Fetched {
    /// The file is there.
    New {
        /// What the server calls it.
        version: Version,
        /// Bytes.
        size: u64,
    },
    /// It is still the version that is known.
    Unchanged,
}

/// Fetches and sends files.
#[derive(Clone, Debug)]
pub struct Transfers {
    identity: Option<Identity>,
}

impl Transfers {
    /// `identity` is shown to `https` servers; without one those cannot be asked.
    pub fn new(identity: Option<Identity>) -> Self {
        Self { identity }
    }

    /// Fetches `url` into the file `target`, which is made anew. A failure that may pass is tried
    /// again after a pause.
    pub async fn download(
        &self,
        url: &str,
        known: &Version,
        checksum: Option<&Checksum>,
        target: &Path,
    ) -> Result<Fetched, Error> {
        let mut attempt = 1;
        loop {
            let result = tokio::time::timeout(LIMIT, self.attempt(url, known, checksum, target))
                .await
                .unwrap_or_else(|elapsed| Err(Error::transport(url)(elapsed)));
            match result {
                Err(error) if error.is_temporary() && attempt < ATTEMPTS => {
                    tracing::info!(url = without_credentials(url), attempt, %error, "download failed, trying again");
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn attempt(
        &self,
        url: &str,
        known: &Version,
        checksum: Option<&Checksum>,
        target: &Path,
    ) -> Result<Fetched, Error> {
        let mut hash = checksum.map(|checksum| Hash::new(&checksum.algorithm)).transpose()?;
        let mut followed = url.to_owned();
        let mut redirects = 0;
        let answer = loop {
            let Place { client, path, credentials } = self.place(&followed)?;
            let mut request = Request::get(path)
                .body(transport::empty())
                .map_err(|error| Error::url(&followed, error.to_string()))?;
            if let Some(credentials) = credentials {
                request.headers_mut().insert(AUTHORIZATION, credentials);
            }
            for (name, value) in
                [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)]
            {
                if let Some(value) = value.as_deref().and_then(|v| HeaderValue::from_str(v).ok()) {
                    request.headers_mut().insert(name, value);
                }
            }
            let answer = client.send(request).await.map_err(Error::transport(url))?;
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            match location.filter(|_| answer.status().is_redirection()) {
                Some(location) if redirects < REDIRECTS => {
                    redirects += 1;
                    followed = resolve(&followed, location)?;
                }
                _ => break answer,
            }
        };
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => return Ok(Fetched::Unchanged),
            status => return Err(Error::Download(status.as_u16())),
        }
        let version = Version::of(answer.headers());
        let mut file = File::create(target).await.map_err(Error::file("creating", target))?;
        let mut body = answer.into_body();
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(Error::transport(url))?;
            if let Some(bytes) = frame.data_ref() {
                if let Some(hash) = &mut hash {
                    hash.update(bytes);
                }
                size += bytes.len() as u64;
                file.write_all(bytes).await.map_err(Error::file("writing", target))?;
            }
        }
        file.flush().await.map_err(Error::file("writing", target))?;
        if let (Some(hash), Some(checksum)) = (hash, checksum) {
            let found = hash.hex();
            if found != checksum.value {
                return Err(Error::Checksum {
                    url: without_credentials(url),
                    algorithm: checksum.algorithm.clone(),
                    expected: checksum.value.clone(),
                    found,
                });
            }
        }
        Ok(Fetched::New { version, size })
    }

    /// Posts the file `source` to `url`.
    pub async fn upload(&self, url: &str, source: &Path) -> Result<(), Error> {
        const ATTEMPTS: u32 = 3;
        let digests = digests(source).await?;
        let mut attempt = 1;
        loop {
            let result = tokio::time::timeout(LIMIT, self.post(url, source, &digests))
                .await
                .unwrap_or_else(|elapsed| Err(Error::transport(url)(elapsed)));
            match result {
                Err(error) if error.is_temporary() && attempt < ATTEMPTS => {
                    tracing::info!(url = without_credentials(url), attempt, %error, "upload failed, trying again");
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn post(&self, url: &str, source: &Path, digests: &Digests) -> Result<(), Error> {
        let Place { client, path, credentials } = self.place(url)?;
        let file = File::open(source).await.map_err(Error::file("opening", source))?;
        let frames = futures_util::StreamExt::map(ReaderStream::new(file), |bytes| {
            bytes.map(hyper::body::Frame::data)
        });
        let body = http_body_util::StreamBody::new(frames).map_err(Into::into).boxed_unsync();
        let mut request = Request::post(path)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, digests.length)
            .header("Content-MD5", &digests.md5)
            .header("Content-Digest", format!("sha-256=:{}:", digests.sha256))
            .body(body)
            .map_err(|error| Error::url(url, error.to_string()))?;
        if let Some(credentials) = credentials {
            request.headers_mut().insert(AUTHORIZATION, credentials);
        }
        let answer = client.send(request).await.map_err(Error::transport(url))?;
        let status = answer.status().as_u16();
        if status < 400 { Ok(()) } else { Err(Error::Upload(status)) }
    }

    /// Where a URL leads to.
    fn place(&self, url: &str) -> Result<Place, Error> {
        let Target { address, path, credentials } =
            url.parse().map_err(|bad: BadTarget| Error::url(url, bad.to_string()))?;
        let client =
            Client::new(address, self.identity.clone(), TIMEOUTS).map_err(Error::transport(url))?;
        Ok(Place { client, path, credentials })
    }
}

/// Whom a URL asks, for which path, and what is shown for it.
struct Place {
    client: Client,
    path: String,
    credentials: Option<HeaderValue>,
}

/// Doubling from half a second, five seconds at most.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(500 << (attempt - 1).min(8)).min(Duration::from_secs(5))
}

fn resolve(base: &str, location: &str) -> Result<String, Error> {
    if location.contains("://") {
        return Ok(location.to_owned());
    }
    let bad = || Error::url(base, format!("it redirects to {location:?}, which is no URL"));
    let origin_end = base.find("://").map(|at| at + 3).ok_or_else(bad)?;
    let path_start = base[origin_end..].find('/').map_or(base.len(), |at| origin_end + at);
    if location.starts_with('/') {
        Ok(format!("{}{location}", &base[..path_start]))
    } else {
        Err(bad())
    }
}

enum Hash {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl Hash {
    fn new(algorithm: &str) -> Result<Self, Error> {
        match algorithm {
            "md5" => Ok(Self::Md5(md5::Md5::new())),
            "sha1" => Ok(Self::Sha1(sha1::Sha1::new())),
            "sha256" => Ok(Self::Sha256(sha2::Sha256::new())),
            other => Err(Error::Algorithm(other.to_owned())),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hash) => hash.update(bytes),
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    fn hex(self) -> String {
        match self {
            Self::Md5(hash) => hex(&hash.finalize()),
            Self::Sha1(hash) => hex(&hash.finalize()),
            Self::Sha256(hash) => hex(&hash.finalize()),
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug)]
struct Digests {
    length: u64,
    md5: String,
    sha256: String,
}

async fn digests(source: &Path) -> Result<Digests, Error> {
    let path = source.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(&path).map_err(Error::file("opening", &path))?;
        let (mut md5, mut sha256) = (md5::Md5::new(), sha2::Sha256::new());
        let mut length = 0;
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = std::io::Read::read(&mut file, &mut piece)
                .map_err(Error::file("reading", &path))?;
            if read == 0 {
                break;
            }
            md5.update(&piece[..read]);
            sha256.update(&piece[..read]);
            length += read as u64;
        }
        Ok(Digests {
            length,
            md5: BASE64_STANDARD.encode(md5.finalize()),
            sha256: BASE64_STANDARD.encode(sha256.finalize()),
        })
    })
    .await
    .unwrap_or_else(|error| Err(Error::transport("digest")(error)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Checksum, Error, pause, resolve};

    #[test]
    fn errors_show_no_password() {
        let error = Error::url("http://cell:secret@host/a", "bad".into());
        assert_eq!(error.to_string(), "http://host/a: bad");
    }

    #[test]
    fn pauses_grow_to_five_seconds() {
        let pauses: Vec<u128> = (1..7).map(|n| pause(n).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(pause(100), Duration::from_secs(5));
    }

    #[test]
    fn redirects_are_absolute_or_of_the_same_host() {
        let base = "http://cc:9022/v3/droplets/x/download?a=b";
        assert_eq!(resolve(base, "/blob?k=1").unwrap(), "http://cc:9022/blob?k=1");
        assert_eq!(resolve(base, "https://store/x").unwrap(), "https://store/x");
        assert!(resolve(base, "blob").is_err());
        assert_eq!(resolve("http://cc", "/x").unwrap(), "http://cc/x");
    }

    #[test]
    fn no_checksum_is_none() {
        assert_eq!(Checksum::new("", ""), None);
        assert_eq!(Checksum::new("SHA256", "AB").unwrap().value, "ab");
    }
}
