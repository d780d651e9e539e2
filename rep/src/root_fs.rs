//! The root file systems of a cell: which it has, and what Garden is asked for.

use std::collections::{BTreeMap, BTreeSet};

use bbs_models::Provider;
use rep_api::{RootFsProvider, root_fs_parts};

const PRELOADED: &str = "preloaded";
const LAYERED: &str = "preloaded+layer";

/// A root file system that the cell does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this cell has no root file system {0:?}")]
pub struct Unknown(pub String);

/// What a cell has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootFses {
    /// Stacks, and what Garden calls them: a path.
    pub preloaded: BTreeMap<String, String>,
    /// URL schemes that Garden itself understands, such as `docker`.
    pub schemes: Vec<String>,
}

impl RootFses {
    /// As the auctioneer reads them.
    pub fn providers(&self) -> BTreeMap<String, RootFsProvider> {
        let stacks: BTreeSet<String> = self.preloaded.keys().cloned().collect();
        let preloaded = [PRELOADED, LAYERED]
            .map(|scheme| (scheme.to_owned(), RootFsProvider::FixedSet(stacks.clone())));
        let arbitrary =
            self.schemes.iter().map(|scheme| (scheme.clone(), RootFsProvider::Arbitrary));
        preloaded.into_iter().chain(arbitrary).collect()
    }

    /// As the presence tells them.
    pub fn announced(&self) -> Vec<Provider> {
        let stacks: Vec<String> = self.preloaded.keys().cloned().collect();
        let provider = |name: &str, properties: Vec<String>| Provider {
            name: name.into(),
            properties,
            ..Provider::default()
        };
        let preloaded = [PRELOADED, LAYERED].map(|scheme| provider(scheme, stacks.clone()));
        let arbitrary = self.schemes.iter().map(|scheme| provider(scheme, Vec::new()));
        preloaded.into_iter().chain(arbitrary).collect()
    }

    /// What Garden is asked for where a root file system of this URL is wanted. A scheme that is
    /// not ours is Garden's to understand.
    pub fn image(&self, url: &str) -> Result<String, Unknown> {
        let unknown = || Unknown(url.to_owned());
        let (scheme, name) = root_fs_parts(url).ok_or_else(unknown)?;
        match scheme {
            PRELOADED => self.preloaded.get(name).cloned().ok_or_else(unknown),
            LAYERED => {
                let path = self.preloaded.get(name).ok_or_else(unknown)?;
                let query = url.split_once('?').map_or("", |(_, query)| query);
                Ok(format!("{LAYERED}:{path}?{query}"))
            }
            _ => Ok(url.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_what_garden_is_asked_for() {
        let cell = RootFses {
            preloaded: [("cflinuxfs4".to_owned(), "/images/cflinuxfs4".to_owned())].into(),
            schemes: vec!["docker".into()],
        };
        for (url, image) in [
            ("preloaded:cflinuxfs4", Some("/images/cflinuxfs4")),
            (
                "preloaded+layer:cflinuxfs4?layer=http://a/b&layer_path=/c",
                Some("preloaded+layer:/images/cflinuxfs4?layer=http://a/b&layer_path=/c"),
            ),
            ("docker:///library/busybox#tag", Some("docker:///library/busybox#tag")),
            ("preloaded:windows", None),
            ("preloaded+layer:windows?layer=x", None),
            ("cflinuxfs4", None),
        ] {
            assert_eq!(cell.image(url).ok().as_deref(), image, "{url}");
        }
        let names: Vec<String> = cell.announced().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["preloaded", "preloaded+layer", "docker"]);
        assert_eq!(cell.providers()["docker"], RootFsProvider::Arbitrary);
    }
}
