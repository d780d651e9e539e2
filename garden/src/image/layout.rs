//! `preloaded+layer:/base.tar?layer=URL&layer_path=/dst&layer_digest=SHA256`: a base of the operator's
//! with one layer upon it, told to an image plugin as an OCI layout that it fetches the layer by
//! (guardian, `imageplugin/oci_image_spec_creator.go`).

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rootfs::digest::Digest;
use serde_json::{Value, json};

use crate::error::Error;

const SCHEME: &str = "preloaded+layer:";
/// Of the manifest's layer: where in the root it goes.
const BASE_DIRECTORY: &str = "org.cloudfoundry.experimental.image.base-directory";
const BASE: &str = "application/vnd.oci.image.layer.v1.tar";
const TOP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A base with a layer upon it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layered {
    base: PathBuf,
    url: String,
    path: String,
    digest: String,
}

impl Layered {
    /// `None` if the reference is of another kind.
    pub(super) fn parse(reference: &str) -> Result<Option<Self>, Error> {
        let Some(rest) = reference.strip_prefix(SCHEME) else { return Ok(None) };
        let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
        let value = |key: &str| {
            let found =
                query.split('&').filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == key);
            found.map(|(_, value)| decoded(&value.replace('+', " "))).ok_or_else(|| {
                let missing = format!("no query parameter '{key}' found in URL {reference}");
                Error::Plain(format!("creating image spec: {missing}"))
            })
        };
        Ok(Some(Self {
            url: value("layer")?,
            path: value("layer_path")?,
            digest: value("layer_digest")?,
            base: decoded(base.strip_prefix("//").unwrap_or(base)).into(),
        }))
    }

    /// Writes the layout; the reference that names it.
    pub(super) fn write(&self, directory: &Path) -> Result<String, Error> {
        self.write_to(directory).map_err(|error| {
            Error::because(format!("creating image spec: {}", directory.display()), &error)
        })?;
        Ok(format!("oci://{}", directory.display()))
    }

    fn write_to(&self, directory: &Path) -> io::Result<()> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let found = fs::metadata(&self.base)?;
        // Not of its content, which may be large; it changes when the file does.
        let time = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
        let base =
            Digest::of(format!("{}-{time}", self.base.display()).as_bytes()).digits().to_owned();
        symlink(&self.base, blobs.join(&base))?;
        let put = |value: &Value| {
            let text = value.to_string();
            let digest = Digest::of(text.as_bytes()).digits().to_owned();
            fs::write(blobs.join(&digest), &text).map(|()| format!("sha256:{digest}"))
        };
        let (base, top) = (format!("sha256:{base}"), format!("sha256:{}", self.digest));
        let config = put(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [base, top] },
        }))?;
        let manifest = put(&json!({
            "schemaVersion": 2,
            "config": { "mediaType": CONFIG, "digest": config, "size": 0 },
            "layers": [
                { "mediaType": BASE, "digest": base, "size": 0 },
                {
                    "mediaType": TOP,
                    "digest": top,
                    "size": 0,
                    "urls": [self.url],
                    "annotations": { BASE_DIRECTORY: self.path },
                },
            ],
        }))?;
        let manifests = [json!({ "mediaType": MANIFEST, "digest": manifest, "size": 0 })];
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(directory.join("index.json"), index.to_string())
    }
}

/// Undoes the escapes of a URI; the reference has been checked to be one.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let escaped = || u8::from_str_radix(std::str::from_utf8(more.get(..2)?).ok()?, 16).ok();
        match (first, escaped()) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_has_the_base_by_a_link_and_the_layer_by_its_address() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().join("base.tar");
        fs::write(&base, "tar").unwrap();
        let reference = format!(
            "preloaded+layer:{}?layer=https%3A%2F%2Fblobs%2Fdroplet%3Fa%3Db&layer_path=%2Fhome%2Fvcap&\
             layer_digest=1a2b",
            base.display()
        );
        let layered = Layered::parse(&reference).unwrap().unwrap();
        let directory = place.path().join("image");
        assert_eq!(layered.write(&directory).unwrap(), format!("oci://{}", directory.display()));
        let read = |path: &str| -> Value {
            serde_json::from_slice(&fs::read(directory.join(path)).unwrap()).unwrap()
        };
        let blob =
            |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replacen(':', "/", 1));
        let manifest = read(&blob(&read("index.json")["manifests"][0]["digest"]));
        let layers = &manifest["layers"];
        assert_eq!(fs::read_link(directory.join(blob(&layers[0]["digest"]))).unwrap(), base);
        assert_eq!(layers[1]["digest"], "sha256:1a2b");
        assert_eq!(layers[1]["urls"][0], "https://blobs/droplet?a=b");
        assert_eq!(layers[1]["annotations"][BASE_DIRECTORY], "/home/vcap");
        let config = read(&blob(&manifest["config"]["digest"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], layers[0]["digest"]);
        assert_eq!(config["rootfs"]["diff_ids"][1], layers[1]["digest"]);
    }

    #[test]
    fn what_a_layer_needs_must_be_said() {
        assert_eq!(Layered::parse("docker:///a").unwrap(), None);
        let said =
            Layered::parse("preloaded+layer:/b?layer=x&layer_path=/y").unwrap_err().to_string();
        assert_eq!(
            said,
            "creating image spec: no query parameter 'layer_digest' found in URL \
             preloaded+layer:/b?layer=x&layer_path=/y"
        );
    }
}
