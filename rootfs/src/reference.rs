//! What an image reference (`image.uri`, `rootfs`) names. Nothing is fetched from a network: a
//! registry's images are served from local places that the operator names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::uri;

/// Where an image is, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory that is a root file system.
    Directory(PathBuf),
    /// A tar of a root file system, plain or gzip.
    Tar(PathBuf),
    /// An OCI layout, and the name of one of its images if it has several.
    Layout(PathBuf, Option<String>),
}

/// How references are resolved.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// The image of containers that name none.
    pub default: Option<PathBuf>,
    /// Local places (or references of the other kinds) of references.
    pub aliases: BTreeMap<String, PathBuf>,
}

impl References {
    /// Why the default or an alias leads to no image at this moment.
    pub fn unusable(&self) -> impl Iterator<Item = Error> {
        let paths = self.default.iter().chain(self.aliases.values());
        paths.filter_map(|path| local(path, None).err())
    }

    /// Finds the image.
    pub fn resolve(&self, reference: &str) -> Result<Place, Error> {
        if let Some(path) = self.aliases.get(reference) {
            return local(path, None);
        }
        if reference.is_empty() {
            let default = self.default.as_deref().ok_or_else(|| {
                Error::Unknown("no image was given, and the server has no --default-rootfs".into())
            })?;
            return local(default, None);
        }
        uri::check(reference).map_err(Error::Reference)?;
        let Some((scheme, rest)) = reference.split_once(':') else {
            return local(reference.as_ref(), None);
        };
        match (scheme, rest.strip_prefix("//")) {
            ("file" | "raw", Some(path)) => local(path.as_ref(), None),
            ("oci", Some(path)) => {
                let (path, name) = match path.split_once('#') {
                    Some((path, name)) => (path, Some(name.to_owned())),
                    None => (path, None),
                };
                match local(path.as_ref(), name)? {
                    layout @ Place::Layout(..) => Ok(layout),
                    _ => Err(Error::image(path.as_ref(), "not an OCI layout")),
                }
            }
            // A path may have a colon; a scheme has no slash before it.
            _ if scheme.contains('/') => local(reference.as_ref(), None),
            _ => Err(Error::Unknown(format!(
                "image {reference:?} is not here: start the server with --image-alias \
                 {reference}=PATH, where PATH is a directory, a tar or an OCI layout"
            ))),
        }
    }
}

fn local(path: &Path, name: Option<String>) -> Result<Place, Error> {
    let kind = fs::metadata(path).map_err(Error::on("use the image", path))?;
    let path = path.to_path_buf();
    if kind.is_file() {
        Ok(Place::Tar(path))
    } else if !kind.is_dir() {
        Err(Error::image(&path, "neither a directory nor a file"))
    } else if path.join("oci-layout").is_file() {
        Ok(Place::Layout(path, name))
    } else {
        Ok(Place::Directory(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_local_places() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for directory in ["dir", "layout", "with:colon"] {
            fs::create_dir(path(directory)).unwrap();
        }
        fs::write(path("layout/oci-layout"), "{}").unwrap();
        fs::write(path("image.tar"), "").unwrap();
        let references = References {
            default: Some(path("dir")),
            aliases: BTreeMap::from([("docker:///a/b#c".into(), path("image.tar"))]),
        };
        let at = |name: &str| path(name).to_str().unwrap().to_owned();
        let resolve = |reference: &str| references.resolve(reference).unwrap();
        assert_eq!(resolve(""), Place::Directory(path("dir")));
        assert_eq!(resolve(&at("dir")), Place::Directory(path("dir")));
        assert_eq!(resolve(&at("with:colon")), Place::Directory(path("with:colon")));
        assert_eq!(resolve(&format!("file://{}", at("image.tar"))), Place::Tar(path("image.tar")));
        assert_eq!(resolve(&format!("raw://{}", at("dir"))), Place::Directory(path("dir")));
        assert_eq!(resolve("docker:///a/b#c"), Place::Tar(path("image.tar")));
        assert_eq!(
            resolve(&format!("oci://{}#x", at("layout"))),
            Place::Layout(path("layout"), Some("x".into()))
        );
        assert_eq!(resolve(&at("layout")), Place::Layout(path("layout"), None));
    }

    #[test]
    fn what_is_not_here_is_an_error_that_says_what_to_pass() {
        let references = References::default();
        let said = |reference: &str| references.resolve(reference).unwrap_err().to_string();
        assert!(said("").contains("--default-rootfs"));
        for reference in ["docker:///busybox", "preloaded:cflinuxfs4", "preloaded+layer:/x?y=z"] {
            assert!(said(reference).contains(&format!("--image-alias {reference}=PATH")));
        }
        assert_eq!(said("/no/such/place"), "cannot use the image /no/such/place");
        assert!(said("oci:///tmp").contains("not an OCI layout"));
    }
}
