//! `static-server ROOT`: answers GET and HEAD with the files below ROOT, on `$PORT` (8080).
//!
//! It goes into droplets, so it is a program of the standard library alone: half a megabyte, no
//! libraries of the root file system, a few threads. What lies outside ROOT is never served, also
//! not through a symbolic link.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// Connections served at once; more wait in the kernel's queue.
const THREADS: usize = 32;

/// How long a connection may be idle, and how long one read or write may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request head longer than this is refused.
const HEAD_LIMIT: u64 = 64 << 10;

fn main() -> ExitCode {
    let Some(root) = std::env::args_os().nth(1) else {
        eprintln!("usage: static-server ROOT");
        return ExitCode::FAILURE;
    };
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let started = fs::canonicalize(&root)
        .map_err(|error| format!("{}: {error}", Path::new(&root).display()))
        .and_then(|root| {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
                .map(|listener| (root, listener))
                .map_err(|error| format!("listening on port {port}: {error}"))
        });
    match started {
        Ok((root, listener)) => {
            println!("serving {} on port {port}", root.display());
            serve(&listener, &Arc::from(root));
            ExitCode::SUCCESS
        }
        Err(cause) => {
            eprintln!("static-server: {cause}");
            ExitCode::FAILURE
        }
    }
}

fn serve(listener: &TcpListener, root: &Arc<Path>) {
    let (hand_over, accepted) = mpsc::sync_channel::<TcpStream>(0);
    let accepted = Arc::new(Mutex::new(accepted));
    for _ in 0..THREADS {
        let accepted = Arc::clone(&accepted);
        let root = Arc::clone(root);
        thread::spawn(move || {
            loop {
                let next = accepted.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(stream) = next else { return };
                // A client that goes away is its own business.
                let _ = converse(&stream, &root);
            }
        });
    }
    for stream in listener.incoming().flatten() {
        if hand_over.send(stream).is_err() {
            return;
        }
    }
}

/// The requests of one connection, one after another.
fn converse(stream: &TcpStream, root: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let Some(request) = Request::read(&mut reader)? else { return Ok(()) };
        let stays = request.keep_alive && request.is_readable();
        let answer = answer(&request, root);
        answer.write(stream, request.method == "HEAD", stays)?;
        if !stays {
            return Ok(());
        }
    }
}

/// The part of a request that decides the answer.
#[derive(Debug, Default)]
struct Request {
    method: String,
    target: String,
    keep_alive: bool,
    has_body: bool,
    if_none_match: Option<String>,
    range: Option<String>,
}

impl Request {
    /// The next request, or none at the end of the connection.
    fn read(reader: &mut impl io::BufRead) -> io::Result<Option<Self>> {
        let mut head = reader.take(HEAD_LIMIT);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(method), Some(target), Some(version)) =
            (words.next(), words.next(), words.next())
        else {
            return Ok(Some(Self::default()));
        };
        let mut request = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            keep_alive: version == "HTTP/1.1",
            ..Self::default()
        };
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                return Ok(Some(Self::default()));
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(Some(request));
            }
            let Some((name, value)) = line.split_once(':') else {
                return Ok(Some(Self::default()));
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "connection" => request.keep_alive &= !value.eq_ignore_ascii_case("close"),
                "content-length" => request.has_body |= value != "0",
                "transfer-encoding" => request.has_body = true,
                "if-none-match" => request.if_none_match = Some(value.to_owned()),
                "range" => request.range = Some(value.to_owned()),
                _ => {}
            }
        }
    }

    /// Whether what follows on the connection is the next request: bodies are not read.
    fn is_readable(&self) -> bool {
        !self.method.is_empty() && !self.has_body
    }
}

/// An answer, its body a text or a piece of a file.
struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

enum Body {
    Text(String),
    Piece { file: File, start: u64, length: u64 },
}

impl Answer {
    fn text(status: &'static str) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", "text/plain; charset=utf-8".into())],
            body: Body::Text(format!("{status}\n")),
        }
    }

    fn write(self, stream: &TcpStream, is_head: bool, stays: bool) -> io::Result<()> {
        let mut stream = stream;
        let length = match &self.body {
            Body::Text(text) => text.len() as u64,
            Body::Piece { length, .. } => *length,
        };
        let mut head = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let bodiless = self.status.starts_with("304");
        if !bodiless {
            head += &format!("Content-Length: {length}\r\n");
        }
        if !stays {
            head += "Connection: close\r\n";
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        if is_head || bodiless {
            return Ok(());
        }
        match self.body {
            Body::Text(text) => stream.write_all(text.as_bytes()),
            Body::Piece { mut file, start, length } => {
                file.seek(SeekFrom::Start(start))?;
                let sent = io::copy(&mut file.take(length), &mut stream)?;
                // A file that shrank meanwhile: the promised length cannot be kept.
                if sent == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            }
        }
    }
}

fn answer(request: &Request, root: &Path) -> Answer {
    match request.method.as_str() {
        "GET" | "HEAD" => {}
        "" => return Answer::text("400 Bad Request"),
        _ => {
            let mut refusal = Answer::text("405 Method Not Allowed");
            refusal.headers.push(("Allow", "GET, HEAD".into()));
            return refusal;
        }
    }
    let (path, query) = split_target(&request.target);
    let Some(relative) = decode(path) else { return Answer::text("400 Bad Request") };
    let Some(mut found) = inside(root, &relative) else { return missing(root) };
    if found.is_dir() {
        if !path.ends_with('/') {
            let mut redirect = Answer::text("301 Moved Permanently");
            // Of two slashes in front the second would begin another server's name.
            let path = path.trim_start_matches('/');
            redirect.headers.push(("Location", format!("/{path}/{query}")));
            return redirect;
        }
        let Some(index) = inside(root, &relative.join("index.html")) else { return missing(root) };
        found = index;
    }
    file(&found, request).unwrap_or_else(|| missing(root))
}

/// Path and query, which begins with its `?`, of a request's target. A router passes on the absolute
/// form (RFC 9112, 3.2.2), which clients of a proxy send.
fn split_target(target: &str) -> (&str, &str) {
    let target = target.split('#').next().unwrap_or_default();
    let (place, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let path = match place.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => place,
    };
    (path, query)
}

/// The app's own page for what is not there, or ours.
fn missing(root: &Path) -> Answer {
    let own = inside(root, Path::new("404.html")).and_then(|page| file(&page, &Request::default()));
    match own {
        Some(page) => Answer { status: "404 Not Found", ..page },
        None => Answer::text("404 Not Found"),
    }
}

/// A file's bytes, or what the request's conditions leave of them.
fn file(path: &Path, request: &Request) -> Option<Answer> {
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
    let size = metadata.len();
    let modified =
        metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok())?;
    let tag = format!("\"{:x}-{size:x}\"", modified.as_nanos());
    let mut headers = vec![
        ("Content-Type", content_type(path).to_owned()),
        ("ETag", tag.clone()),
        ("Accept-Ranges", "bytes".into()),
    ];
    let known = request.if_none_match.as_deref().is_some_and(|tags| {
        tags.split(',').any(|known| matches!(known.trim(), "*") || known.trim() == tag)
    });
    if known {
        return Some(Answer { status: "304 Not Modified", headers, body: Body::Text(String::new()) });
    }
    let (status, start, length) = match request.range.as_deref().and_then(|range| piece(range, size)) {
        None => ("200 OK", 0, size),
        Some(Some((start, length))) => {
            headers.push(("Content-Range", format!("bytes {start}-{}/{size}", start + length - 1)));
            ("206 Partial Content", start, length)
        }
        Some(None) => {
            let mut refusal = Answer::text("416 Range Not Satisfiable");
            refusal.headers.push(("Content-Range", format!("bytes */{size}")));
            return Some(refusal);
        }
    };
    Some(Answer { status, headers, body: Body::Piece { file, start, length } })
}

/// Start and length of a single range (RFC 9110, 14.1.2): none where there is no readable one, which
/// means the whole file; `Some(None)` where it lies beyond the end.
fn piece(range: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        let length = suffix.min(size);
        return Some((length > 0).then_some((size - length, length)));
    }
    let first: u64 = first.parse().ok()?;
    let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    if last < first {
        return None;
    }
    Some((first < size).then(|| (first, last.min(size - 1) - first + 1)))
}

/// A path below the root: percent-decoded, without any step upwards and without NUL.
fn decode(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        if byte == b'%' {
            let digits = [*rest.next()?, *rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let mut relative = PathBuf::new();
    for segment in text.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
        if segment == ".." || segment.contains('\0') {
            return None;
        }
        relative.push(segment);
    }
    Some(relative)
}

/// The real path of `relative`, if it is there and, links followed, below `root`.
fn inside(root: &Path, relative: &Path) -> Option<PathBuf> {
    fs::canonicalize(root.join(relative)).ok().filter(|path| path.starts_with(root))
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        _ => "application/octet-stream",
    }
}
