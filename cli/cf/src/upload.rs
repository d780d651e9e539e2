//! From files to a package.

use std::collections::HashSet;
use std::fs::File;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Method, header};
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use crate::apps::App;
use crate::client::{Client, pause};
use crate::error::Error;
use crate::files::{Entry, Files};

/// Files asked about at once.
const CHUNK: usize = 5000;

/// Uploads what the server does not have yet, and waits until the package is ready. Returns its
/// guid.
pub(crate) async fn upload(client: &mut Client, app: &App, files: Files) -> Result<String, Error> {
    let known = match_resources(client, &files.entries).await?;
    let body = json!({"type": "bits", "relationships": {"app": {"data": {"guid": app.guid}}}});
    let package = client.post("/v3/packages", &body).await?;
    let guid = package["guid"].as_str().unwrap_or_default().to_owned();

    let matched: HashSet<String> =
        known.iter().filter_map(|it| Some(it["path"].as_str()?.to_owned())).collect();
    let zip = tokio::task::spawn_blocking(move || files.zip(|entry| matched.contains(&entry.path)));
    let zip = zip.await.map_err(|panic| Error::said(format!("packaging the files: {panic}")))??;
    let path = format!("/v3/packages/{guid}/upload");
    let (length, kind, body) = multipart(&Value::from(known), zip)?;
    let request = client.request(Method::POST, &path).await?;
    let request = request
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, length)
        .body(body);
    let (mut seen, _) = client.finish(request, &Method::POST, &path).await?;

    println!("\nWaiting for API to complete processing files...");
    loop {
        match seen["state"].as_str() {
            Some("READY") => return Ok(guid),
            Some("FAILED" | "EXPIRED") => {
                return Err(Error::said("Package failed to process correctly after upload"));
            }
            _ => pause().await,
        }
        seen = client.get(&format!("/v3/packages/{guid}")).await?;
    }
}

/// The files that the server has already.
async fn match_resources(client: &mut Client, entries: &[Entry]) -> Result<Vec<Value>, Error> {
    let sent: Vec<Value> = entries
        .iter()
        .filter(|entry| entry.size > 0)
        .map(|entry| {
            json!({
                "path": entry.path,
                "mode": format!("{:o}", entry.mode),
                "checksum": {"value": entry.sha1},
                "size_in_bytes": entry.size,
            })
        })
        .collect();
    let mut known = Vec::new();
    for chunk in sent.chunks(CHUNK) {
        let answer = client.post("/v3/resource_matches", &json!({"resources": chunk})).await?;
        known.extend(answer["resources"].as_array().cloned().unwrap_or_default());
    }
    Ok(known)
}

/// Length, content type and body of what an upload sends.
fn multipart(known: &Value, zip: Option<File>) -> Result<(u64, String, Body), Error> {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let mut head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"resources\"\r\n\r\n{known}\r\n"
    );
    let tail = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let kind = format!("multipart/form-data; boundary={boundary}");
    let Some(zip) = zip else {
        // Its own line end is the one before the last boundary.
        head.truncate(head.len() - 2);
        let body = [head.as_bytes(), &tail].concat();
        return Ok((body.len() as u64, kind, body.into()));
    };
    head += &format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"bits\"; \
         filename=\"package.zip\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    let size = zip.metadata().map_err(|error| Error::said(format!("the package: {error}")))?.len();
    let length = head.len() as u64 + size + tail.len() as u64;
    let zip = ReaderStream::with_capacity(tokio::fs::File::from_std(zip), 64 << 10);
    let before = stream::iter([Ok::<_, std::io::Error>(Bytes::from(head))]);
    let body = before.chain(zip).chain(stream::iter([Ok(tail)]));
    Ok((length, kind, Body::wrap_stream(body)))
}
