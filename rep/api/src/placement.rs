//! What an instance or task needs, and which cells have it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::List;

/// Where something may run: flat in the messages that hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PlacementConstraint {
    /// Names that the cell must have, all of them.
    pub placement_tags: List<String>,
    /// Volume drivers that the cell must have.
    pub volume_drivers: List<String>,
    /// The root file system, a URL: `preloaded:STACK`, `docker:///IMAGE#TAG`.
    pub root_fs: String,
}

/// How much something takes: flat in the messages that hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// Memory in MiB.
    #[serde(rename = "MemoryMB")]
    pub memory_mb: i32,
    /// Disk in MiB.
    #[serde(rename = "DiskMB")]
    pub disk_mb: i32,
    /// Processes and threads; 0 is no limit.
    #[serde(rename = "MaxPids")]
    pub max_pids: i32,
}

/// Which root file systems of one URL scheme a cell has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootFsProvider {
    /// Any.
    Arbitrary,
    /// These.
    FixedSet(BTreeSet<String>),
}

#[derive(Serialize, Deserialize)]
struct ProviderWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set: Option<BTreeMap<String, Nothing>>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
struct Nothing {}

impl Serialize for RootFsProvider {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = match self {
            Self::Arbitrary => ProviderWire { set: None, kind: "arbitrary".into() },
            Self::FixedSet(names) => ProviderWire {
                set: Some(names.iter().map(|name| (name.clone(), Nothing {})).collect()),
                kind: "fixed_set".into(),
            },
        };
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RootFsProvider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = ProviderWire::deserialize(deserializer)?;
        match wire.kind.as_str() {
            "arbitrary" => Ok(Self::Arbitrary),
            "fixed_set" => Ok(Self::FixedSet(wire.set.unwrap_or_default().into_keys().collect())),
            other => Err(serde::de::Error::custom(format!("unknown rootfs provider {other:?}"))),
        }
    }
}

impl RootFsProvider {
    /// Whether it has the one of this name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Arbitrary => true,
            Self::FixedSet(names) => names.contains(name),
        }
    }
}

/// The scheme of a root file system's URL, and the name behind it where the URL is not a path:
/// `preloaded+layer:cflinuxfs4?layer=x` is (`preloaded+layer`, `cflinuxfs4`), `docker:///busybox`
/// is (`docker`, ``). `None` if there is no scheme.
pub fn root_fs_parts(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    // RFC 3986, 3.1.
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(inner)
    {
        return None;
    }
    let name = rest.split(['?', '#']).next().unwrap_or_default();
    Some((scheme, if name.starts_with('/') { "" } else { name }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_root_file_systems_are_taken_apart() {
        for (url, parts) in [
            ("preloaded:cflinuxfs4", Some(("preloaded", "cflinuxfs4"))),
            (
                "preloaded+layer:cflinuxfs4?layer=https://x/y&layer_path=/z",
                Some(("preloaded+layer", "cflinuxfs4")),
            ),
            ("docker:///library/busybox#tag", Some(("docker", ""))),
            ("docker://registry/x", Some(("docker", ""))),
            ("preloaded:", Some(("preloaded", ""))),
            ("cflinuxfs4", None),
            (":x", None),
            ("1x:y", None),
            ("a b:c", None),
            ("", None),
        ] {
            assert_eq!(root_fs_parts(url), parts, "{url}");
        }
    }
}
