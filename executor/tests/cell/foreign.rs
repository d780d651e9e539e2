//! A Garden that takes no notice of what is asked of Bloomery's alone, as the original.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;

/// Serves on `socket` what the Garden at `behind` serves.
pub fn relay(runtime: &Runtime, socket: &Path, behind: PathBuf) {
    let _runtime = runtime.enter();
    let listener = UnixListener::bind(socket).unwrap();
    runtime.spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(pass(client, behind.clone()));
        }
    });
}

async fn pass(mut client: UnixStream, behind: PathBuf) {
    // Whoever was connected sees the connection end, with Garden as well as without.
    let Ok(mut garden) = UnixStream::connect(behind).await else { return };
    let mut head = vec![0; 4096];
    let Ok(length) = client.read(&mut head).await else { return };
    let question = b"GET /ping?server=true ";
    let rest = head[..length].strip_prefix(question.as_slice());
    let sent = match rest {
        Some(rest) => [b"GET /ping ", rest].concat(),
        None => head[..length].to_vec(),
    };
    if garden.write_all(&sent).await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut garden).await;
    }
}
