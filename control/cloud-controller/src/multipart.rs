//! Uploads as `multipart/form-data`, read while they arrive.
//!
//! A part with a file name goes to a file below the spool directory, any other one stays in memory
//! and may hold little. Nothing depends on the order of the parts, nor on the case of their headers.

use std::path::Path;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, header};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use crate::error::ApiError;

/// The most that the headers of a part may take.
const HEAD_LIMIT: usize = 16 << 10;

/// One part.
#[derive(Debug)]
pub(crate) struct Part {
    pub name: String,
    pub filename: Option<String>,
    pub content: Content,
}

/// What a part holds.
#[derive(Debug)]
pub(crate) enum Content {
    Memory(Bytes),
    /// Removed when it is dropped.
    File(NamedTempFile),
}

/// How much an upload may hold, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// All files together.
    pub files: u64,
    /// Everything else together.
    pub memory: usize,
}

/// Reads all parts of a request.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    spool: &Path,
    limits: Limits,
) -> Result<Vec<Part>, ApiError> {
    let boundary = boundary(headers)
        .ok_or_else(|| ApiError::bad_request("The upload must be multipart/form-data"))?;
    let mut reader =
        Reader { stream: body.into_data_stream(), buffer: BytesMut::new(), ended: false };
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter may stand at the very beginning, without a line break before it.
    reader.buffer.extend_from_slice(b"\r\n");
    let mut used = Used { files: 0, memory: 0, limits };
    reader.pass(delimiter.as_bytes(), &mut Sink::Nowhere, &mut used).await?;
    let mut parts = Vec::new();
    while reader.another_part().await? {
        let (name, filename) = reader.head().await?;
        let mut sink = match filename {
            Some(_) => {
                let file = NamedTempFile::new_in(spool)?;
                let handle = tokio::fs::File::from_std(file.reopen()?);
                Sink::File(file, handle)
            }
            None => Sink::Memory(BytesMut::new()),
        };
        reader.pass(delimiter.as_bytes(), &mut sink, &mut used).await?;
        let content = match sink {
            Sink::File(file, mut handle) => {
                handle.flush().await?;
                Content::File(file)
            }
            Sink::Memory(bytes) => Content::Memory(bytes.freeze()),
            Sink::Nowhere => Content::Memory(Bytes::new()),
        };
        parts.push(Part { name, filename, content });
    }
    Ok(parts)
}

enum Sink {
    Nowhere,
    Memory(BytesMut),
    File(NamedTempFile, tokio::fs::File),
}

struct Used {
    files: u64,
    memory: usize,
    limits: Limits,
}

impl Sink {
    async fn take(&mut self, bytes: &[u8], used: &mut Used) -> Result<(), ApiError> {
        match self {
            Self::Nowhere => {}
            Self::Memory(memory) => {
                used.memory += bytes.len();
                if used.memory > used.limits.memory {
                    return Err(ApiError::too_large("The fields of the upload are too large"));
                }
                memory.extend_from_slice(bytes);
            }
            Self::File(_, handle) => {
                used.files += bytes.len() as u64;
                if used.files > used.limits.files {
                    return Err(ApiError::unprocessable(format!(
                        "The upload is larger than the maximum of {} bytes",
                        used.limits.files
                    )));
                }
                handle.write_all(bytes).await?;
            }
        }
        Ok(())
    }
}

struct Reader {
    stream: axum::body::BodyDataStream,
    buffer: BytesMut,
    ended: bool,
}

impl Reader {
    /// Waits for more bytes; at the end of the body that is an error.
    async fn fill(&mut self) -> Result<(), ApiError> {
        let cut = || ApiError::bad_request("The upload ended before it was complete");
        if self.ended {
            return Err(cut());
        }
        match self.stream.next().await {
            Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
            Some(Err(err)) => {
                tracing::debug!(error = %err, "an upload broke off");
                return Err(cut());
            }
            None => self.ended = true,
        }
        Ok(())
    }

    /// Moves bytes to `sink` up to the delimiter, which is dropped.
    async fn pass(
        &mut self,
        delimiter: &[u8],
        sink: &mut Sink,
        used: &mut Used,
    ) -> Result<(), ApiError> {
        loop {
            if let Some(at) = find(&self.buffer, delimiter) {
                let content = self.buffer.split_to(at);
                self.buffer.advance(delimiter.len());
                return sink.take(&content, used).await;
            }
            // The end may be the beginning of a delimiter.
            let sure = self.buffer.len().saturating_sub(delimiter.len() - 1);
            let content = self.buffer.split_to(sure);
            sink.take(&content, used).await?;
            self.fill().await?;
        }
    }

    /// After a delimiter: a line break if a part follows, two hyphens at the end.
    async fn another_part(&mut self) -> Result<bool, ApiError> {
        loop {
            if self.buffer.starts_with(b"--") {
                return Ok(false);
            }
            // White space may follow the delimiter.
            match self.buffer.iter().position(|byte| !b" \t".contains(byte)) {
                Some(at) if self.buffer[at..].starts_with(b"\r\n") => {
                    self.buffer.advance(at + 2);
                    return Ok(true);
                }
                Some(at) if self.buffer.len() - at >= 2 || at > 80 => {
                    return Err(ApiError::bad_request("The upload is malformed"));
                }
                _ => self.fill().await?,
            }
        }
    }

    /// Name and file name of a part.
    async fn head(&mut self) -> Result<(String, Option<String>), ApiError> {
        let end = loop {
            // A part may have no headers at all.
            if self.buffer.starts_with(b"\r\n") {
                self.buffer.advance(2);
                return Ok((String::new(), None));
            }
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(ApiError::bad_request("The headers of the upload are too large"));
            }
            self.fill().await?;
        };
        let head = self.buffer.split_to(end);
        self.buffer.advance(4);
        let head = String::from_utf8_lossy(&head);
        let disposition = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then(|| value.to_owned())
        });
        let disposition = disposition.unwrap_or_default();
        Ok((
            parameter(&disposition, "name").unwrap_or_default(),
            parameter(&disposition, "filename"),
        ))
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        let at = from + at;
        if bytes[at..].starts_with(what) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (kind, _) = value.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(value, "boundary").filter(|boundary| (1..=200).contains(&boundary.len()))
}

/// The value of `name=value` or `name="value"` after a semicolon.
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(';') {
        let after = after.trim_start();
        let Some((key, value)) = after.split_once('=') else { break };
        let (value, left) = match value.strip_prefix('"') {
            Some(quoted) => {
                let mut out = String::new();
                let mut chars = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, char)) = chars.next() {
                    match char {
                        '\\' => out.extend(chars.next().map(|(_, char)| char)),
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        char => out.push(char),
                    }
                }
                (out, &quoted[end..])
            }
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_owned(), &value[end..])
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = left;
    }
    None
}

/// The first file of that name, with its file name.
pub(crate) fn file(parts: Vec<Part>, name: &str) -> Option<(String, NamedTempFile)> {
    parts.into_iter().filter(|part| part.name == name).find_map(|part| match part.content {
        Content::File(file) => Some((part.filename.unwrap_or_default(), file)),
        Content::Memory(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    use proptest::prelude::*;

    const LIMITS: Limits = Limits { files: 1000, memory: 1000 };

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = "multipart/form-data; boundary=\"x y\"".parse().unwrap();
        headers.insert(header::CONTENT_TYPE, value);
        headers
    }

    fn body(pieces: Vec<Vec<u8>>) -> Body {
        let pieces = pieces.into_iter().map(|piece| Ok::<_, io::Error>(Bytes::from(piece)));
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    async fn parts(bytes: &[u8], size: usize) -> Result<Vec<(String, Vec<u8>)>, ApiError> {
        let dir = tempfile::tempdir().unwrap();
        let pieces = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        let parts = read(&headers(), body(pieces), dir.path(), LIMITS).await?;
        Ok(parts
            .into_iter()
            .map(|part| {
                let content = match part.content {
                    Content::Memory(bytes) => bytes.to_vec(),
                    Content::File(file) => std::fs::read(file.path()).unwrap(),
                };
                (part.name, content)
            })
            .collect())
    }

    const UPLOAD: &[u8] =
        b"--x y\r\nContent-Disposition: form-data; name=\"resources\"\r\n\r\n[]\r\n\
        --x y\r\ncontent-disposition: form-data; name=\"bits\"; filename=\"a;b.zip\"\r\n\
        Content-Type: application/octet-stream\r\n\r\nPK\r\n--x \r\n-\r\n--x y--\r\n";

    #[tokio::test]
    async fn parts_are_read_however_they_arrive() {
        for size in [1, 2, 3, 7, 1000] {
            let found = parts(UPLOAD, size).await.unwrap();
            let expected = [
                ("resources".to_owned(), b"[]".to_vec()),
                ("bits".to_owned(), b"PK\r\n--x \r\n-".to_vec()),
            ];
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn what_is_cut_off_is_refused() {
        for end in 0..UPLOAD.len() - 4 {
            assert!(parts(&UPLOAD[..end], 10).await.is_err(), "{end}");
        }
    }

    #[tokio::test]
    async fn limits_hold() {
        let mut large =
            b"--x y\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n".to_vec();
        large.extend([b'z'; 1001]);
        large.extend(b"\r\n--x y--");
        let err = parts(&large, 100).await.unwrap_err();
        assert_eq!(err.status.as_u16(), 422);
        let endless = [b"--x y\r\n".to_vec(), vec![b'h'; HEAD_LIMIT + 10]].concat();
        assert!(parts(&endless, 1000).await.is_err());
    }

    proptest! {
        #[test]
        fn any_content_comes_through(content: Vec<u8>, size in 1usize..50) {
            prop_assume!(content.len() < 900 && find(&content, b"\r\n--x y").is_none());
            let mut upload = b"--x y\r\nContent-Disposition: form-data; name=f; filename=g\r\n\r\n".to_vec();
            upload.extend(&content);
            upload.extend(b"\r\n--x y--");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(parts(&upload, size)).unwrap();
            prop_assert_eq!(&found[0].1, &content);
        }
    }
}
