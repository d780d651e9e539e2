//! OCI image layouts (image-spec, "Image Layout", "Image Manifest", "Image Configuration").

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};
use serde::de::DeserializeOwned;

use crate::digest::Digest;
use crate::error::Error;

/// Of an index, a manifest or a configuration, in bytes; registries refuse larger ones.
const MOST_JSON: u64 = 4 << 20;
/// Indexes in indexes.
const MOST_NESTED: usize = 4;
const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";

/// An image in a layout.
#[derive(Debug)]
pub struct LayoutImage {
    /// From the lowest to the topmost.
    pub layers: Vec<LayoutLayer>,
    /// Variables, as `NAME=value`.
    pub environment: Vec<String>,
}

/// A layer's archive.
#[derive(Debug)]
pub struct LayoutLayer {
    /// Where it is.
    pub blob: PathBuf,
    /// Of the file.
    pub digest: Digest,
    /// Of what is in it when decompressed.
    pub diff: Digest,
}

/// Reads an image's description; `name` chooses among several.
pub fn read(layout: &Path, name: Option<&str>) -> Result<LayoutImage, Error> {
    let wrong = |reason: String| Error::image(layout, reason);
    let index: ImageIndex = parse(layout, &json(&layout.join("index.json"))?)?;
    let manifest = choose(layout, index, name, 0)?;
    let manifest: ImageManifest = blob(layout, &manifest)?;
    let config: ImageConfiguration = blob(layout, manifest.config())?;
    let diffs = config.rootfs().diff_ids();
    if diffs.len() != manifest.layers().len() {
        return Err(wrong(format!(
            "its manifest has {} layers and its configuration {}",
            manifest.layers().len(),
            diffs.len()
        )));
    }
    let layers = manifest.layers().iter().zip(diffs).map(|(layer, diff)| {
        let digest = digest(layout, layer)?;
        let diff = Digest::parse(diff)
            .ok_or_else(|| wrong(format!("{diff:?} is no digest of a kind known here")))?;
        Ok(LayoutLayer { blob: blob_path(layout, &digest), digest, diff })
    });
    let variables = config.config().as_ref().and_then(|config| config.env().clone());
    Ok(LayoutImage {
        layers: layers.collect::<Result<_, _>>()?,
        environment: variables.unwrap_or_default(),
    })
}

fn choose(
    layout: &Path,
    index: ImageIndex,
    name: Option<&str>,
    depth: usize,
) -> Result<Descriptor, Error> {
    let named = |descriptor: &&Descriptor| {
        let annotations = descriptor.annotations().as_ref();
        let called = annotations.and_then(|all| all.get(REFERENCE_NAME));
        name.is_none_or(|name| depth > 0 || called.is_some_and(|called| called == name))
    };
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_none_or(|platform| {
            *platform.architecture() == Arch::Amd64 && *platform.os() == Os::Linux
        })
    };
    let found: Vec<_> = index.manifests().iter().filter(named).filter(fits).collect();
    let [descriptor] = found.as_slice() else {
        let of = name.map(|name| format!(" of the name {name:?}")).unwrap_or_default();
        return Err(Error::image(
            layout,
            format!(
                "it has {} images{of} for this machine; name one as oci://PATH#NAME",
                found.len()
            ),
        ));
    };
    let is_index = descriptor.media_type().to_string().contains("index")
        || descriptor.media_type().to_string().contains("manifest.list");
    if !is_index {
        return Ok((*descriptor).clone());
    }
    if depth == MOST_NESTED {
        return Err(Error::image(layout, "its indexes are nested too deeply"));
    }
    choose(layout, blob(layout, descriptor)?, name, depth + 1)
}

fn digest(layout: &Path, descriptor: &Descriptor) -> Result<Digest, Error> {
    let text = descriptor.digest().to_string();
    Digest::parse(&text)
        .ok_or_else(|| Error::image(layout, format!("{text:?} is no digest of a kind known here")))
}

fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.digits())
}

/// A JSON blob that is what its descriptor says.
fn blob<T: DeserializeOwned>(layout: &Path, descriptor: &Descriptor) -> Result<T, Error> {
    let digest = digest(layout, descriptor)?;
    let path = blob_path(layout, &digest);
    let bytes = json(&path)?;
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(Error::image(layout, format!("{} has the digest {found}", path.display())));
    }
    parse(layout, &bytes)
}

fn json(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_JSON + 1).read_to_end(&mut bytes))
        .map_err(Error::on("read", path))?;
    if bytes.len() as u64 > MOST_JSON {
        return Err(Error::image(path, format!("longer than {MOST_JSON} bytes")));
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(layout: &Path, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::image(layout, error.to_string()))
}
