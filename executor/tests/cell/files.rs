//! A server of files on the cell's host.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// It has `/app.tar`, an archive of the file `file` with a line `content`, takes what is posted to
/// `/taken`, and refuses everything else.
pub struct Files {
    port: u16,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Files {
    pub fn serve(runtime: &Runtime) -> Self {
        // This thread is elsewhere; the runtime's are on the cell's host.
        let bound = runtime.spawn(TcpListener::bind("127.0.0.1:0"));
        let listener = runtime.block_on(bound).unwrap().unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let take = Arc::clone(&taken);
        runtime.spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(client, Arc::clone(&take)));
            }
        });
        Self { port, taken }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What was posted to `/taken`.
    pub fn taken(&self) -> Vec<Vec<u8>> {
        self.taken.lock().unwrap().clone()
    }
}

/// Answers one request. A client that goes away is not waited for.
async fn answer(mut client: TcpStream, taken: Arc<Mutex<Vec<Vec<u8>>>>) -> Option<()> {
    let mut asked = Vec::new();
    let end = loop {
        if let Some(end) = asked.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        client.read_buf(&mut asked).await.ok().filter(|read| *read > 0)?;
    };
    let head = String::from_utf8_lossy(&asked[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().unwrap());
    while asked.len() < end + length {
        client.read_buf(&mut asked).await.ok().filter(|read| *read > 0)?;
    }
    let (status, body) = if head.starts_with("get /app.tar ") {
        match head.contains("if-none-match: \"1\"") {
            true => ("304 Not Modified", Vec::new()),
            false => ("200 OK", archive()),
        }
    } else if head.starts_with("post /taken ") {
        taken.lock().unwrap().push(asked[end..].to_vec());
        ("201 Created", Vec::new())
    } else {
        ("404 Not Found", Vec::new())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: \"1\"\r\nContent-Type: application/x-tar\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(&[head.into_bytes(), body].concat()).await.ok()
}

fn archive() -> Vec<u8> {
    let content = b"content\n";
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "file", content.as_slice()).unwrap();
    archive.into_inner().unwrap()
}
