//! The image of the recording, which has a variable: an OCI layout around a directory's files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Packs `files` as the one layer of an image with these variables, `NAME=value`, whose layout
/// becomes the directory `layout`.
pub fn wrap(files: &Path, variables: &[&str], layout: &Path) -> anyhow::Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let packed = Command::new("tar").arg("-C").arg(files).args(["-c", "."]).output()?;
    ensure!(packed.status.success(), "tar: {}", String::from_utf8_lossy(&packed.stderr));
    let layer = add(&blobs, &packed.stdout)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": variables},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    let config = add(&blobs, config.to_string().as_bytes())?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = add(&blobs, manifest.to_string().as_bytes())?;
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(manifest_type, &manifest)]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .with_context(|| format!("{}", layout.display()))
}

/// Writes a blob and returns its digest.
fn add(blobs: &Path, content: &[u8]) -> anyhow::Result<String> {
    let digits = Sha256::digest(content).iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    });
    fs::write(blobs.join(&digits), content)?;
    Ok(format!("sha256:{digits}"))
}

fn descriptor(media_type: &str, digest: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": 1})
}
