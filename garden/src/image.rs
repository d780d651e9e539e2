//! Image plugins: programs of the operator's that make root file systems, as the original has them
//! (guardian, `imageplugin`).
//!
//! ```text
//! <program> <extra arguments> create [--disk-limit-size-bytes N [--exclude-image-from-quota]]
//!                                    [--username U] [--password P] <uri> <handle>
//!                             delete <handle>
//!                             stats <handle>
//!                             capacity
//! ```
//!
//! One makes those of unprivileged containers, whose root is a mapped id, another those of
//! privileged ones; neither has to be there. A record says that an image is going to be made before
//! it is, so `delete` follows in any case. It goes to both, and must bear what it does not know.

mod layout;
pub mod parts;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use garden_api::{DiskLimitScope, DiskLimits, ImageRef, go_json};
use garden_cgroup::Hierarchy;
use rootfs::uri;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::error::Error;
use crate::plugin::{Failure, Plugin, Request};
use crate::volumes::Usage;
use layout::Layered;

/// A root file system that a plugin has made.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// The directory; its files belong to the container's root already.
    pub root: PathBuf,
    /// The image's variables, as `NAME=value`.
    pub environment: Vec<String>,
    /// What the plugin wants mounted in it, in this order.
    pub mounts: Vec<SpecMount>,
}

/// A mount of the OCI runtime specification (config.md, "Mounts").
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SpecMount {
    /// Where, inside.
    pub destination: String,
    /// Of which kind; `bind`, or a file system.
    #[serde(rename = "type")]
    pub kind: String,
    /// What.
    pub source: String,
    /// As for mount(8).
    pub options: Vec<String>,
}

/// What of an OCI runtime specification says something about an image.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    root: Root,
    process: Process,
    mounts: Vec<SpecMount>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Root {
    path: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Process {
    env: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Stats {
    disk_usage: DiskUsage,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DiskUsage {
    total_bytes_used: u64,
    exclusive_bytes_used: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Capacity {
    capacity: u64,
}

/// What a container is to stand on.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Its handle.
    pub handle: &'a str,
    /// Its image's reference and the credentials for it.
    pub image: &'a ImageRef,
    /// Where an image's description may be written; nothing is there.
    pub directory: &'a Path,
    /// It has no user namespace.
    pub privileged: bool,
    /// How much it may write.
    pub limits: DiskLimits,
}

/// Both plugins.
#[derive(Debug)]
pub struct ImagePlugins {
    unprivileged: Option<Plugin>,
    privileged: Option<Plugin>,
    default: Option<PathBuf>,
    aliases: BTreeMap<String, PathBuf>,
}

/// A directory that is used as it is: no plugin is asked, and all who name it share it.
pub fn raw(reference: &str) -> Option<&Path> {
    reference.strip_prefix("raw://").map(Path::new)
}

impl ImagePlugins {
    /// `None` if no plugin is configured.
    pub fn new(config: &Config, hierarchy: &Hierarchy) -> Result<Option<Self>, Error> {
        let plugin = |name: &str, plugin: &Option<_>| {
            plugin.as_ref().map(|plugin| Plugin::new(name, plugin, hierarchy)).transpose()
        };
        let unprivileged = plugin("image", &config.image_plugin)?;
        let privileged = plugin("privileged image", &config.privileged_image_plugin)?;
        if unprivileged.is_none() && privileged.is_none() {
            return Ok(None);
        }
        let (default, aliases) = (config.default_rootfs.clone(), config.image_aliases.clone());
        Ok(Some(Self { unprivileged, privileged, default, aliases }))
    }

    /// Has an image made.
    pub fn create(&self, wanted: &Wanted<'_>) -> Result<Made, Error> {
        let uri = self.uri(&wanted.image.uri, wanted.directory)?;
        // They would be taken for options.
        if uri.as_encoded_bytes().starts_with(b"-") || wanted.handle.starts_with('-') {
            let (uri, handle) = (uri.display(), wanted.handle);
            return Err(Error::Plain(format!(
                "an image plugin cannot be told of the image {uri} for {handle}: neither may begin \
                 with '-'"
            )));
        }
        let plugin = self.of(wanted.privileged).ok_or_else(|| {
            let kind = if wanted.privileged { "privileged_image_plugin" } else { "image_plugin" };
            Error::Plain(format!("creating create command: no {kind} provided"))
        })?;
        let mut arguments: Vec<&OsStr> = vec![OsStr::new("create")];
        let limit = wanted.limits.byte_hard.to_string();
        if wanted.limits.byte_hard > 0 {
            arguments.extend(["--disk-limit-size-bytes", &limit].map(OsStr::new));
            if wanted.limits.scope == DiskLimitScope::Exclusive {
                arguments.push(OsStr::new("--exclude-image-from-quota"));
            }
        }
        for (option, value) in
            [("--username", &wanted.image.username), ("--password", &wanted.image.password)]
        {
            if !value.is_empty() {
                arguments.extend([option, value].map(OsStr::new));
            }
        }
        arguments.extend([&uri, OsStr::new(wanted.handle)]);
        let output = run(plugin, "create", wanted.handle, &arguments)?;
        let spec: Spec = parsed("parsing image plugin create", &output)?;
        let root = PathBuf::from(spec.root.path);
        if !root.is_absolute() {
            return Err(Error::Plain(format!(
                "the image plugin answered {:?} as the root of {}, which is no absolute path",
                root, wanted.handle
            )));
        }
        Ok(Made { root, environment: spec.process.env, mounts: spec.mounts })
    }

    /// Has an image deleted, whoever made it and whether it was made or not.
    pub fn delete(&self, handle: &str) -> Result<(), Error> {
        for plugin in [&self.unprivileged, &self.privileged].into_iter().flatten() {
            run(plugin, "delete", handle, &["delete", handle].map(OsStr::new))?;
        }
        Ok(())
    }

    /// What an image takes on the disk.
    pub fn stats(&self, handle: &str, privileged: bool) -> Result<Usage, Error> {
        let plugin = self
            .of(privileged)
            .ok_or_else(|| Error::Plain("requested image plugin not available".into()))?;
        let output = run(plugin, "stats", handle, &["stats", handle].map(OsStr::new))?;
        let Stats { disk_usage } = parsed("parsing stats", &output)?;
        Ok(Usage { exclusive: disk_usage.exclusive_bytes_used, total: disk_usage.total_bytes_used })
    }

    /// Bytes that there are for all images; `None` if there is nobody to ask.
    pub fn capacity(&self) -> Result<Option<u64>, Error> {
        let Some(plugin) = &self.unprivileged else { return Ok(None) };
        let output = run(plugin, "capacity", "", &[OsStr::new("capacity")])?;
        let Capacity { capacity } = parsed("parsing capacity", &output)?;
        Ok(Some(capacity))
    }

    fn of(&self, privileged: bool) -> Option<&Plugin> {
        if privileged { self.privileged.as_ref() } else { self.unprivileged.as_ref() }
    }

    /// The reference as a plugin is told it: a tag follows a colon there.
    fn uri(&self, reference: &str, directory: &Path) -> Result<OsString, Error> {
        if let Some(path) = self.aliases.get(reference) {
            return Ok(path.clone().into());
        }
        if reference.is_empty() {
            return self.default.clone().map(OsString::from).ok_or_else(|| {
                let missing = "no image was given, and the server has no --default-rootfs";
                Error::Plain(missing.into())
            });
        }
        uri::check(reference).map_err(|error| Error::Plain(error.to_string()))?;
        match Layered::parse(reference)? {
            Some(layered) => layered.write(directory).map(OsString::from),
            None => Ok(reference.replacen('#', ":", 1).into()),
        }
    }
}

/// An action, and the original's word for it in an error.
fn run(
    plugin: &Plugin,
    action: &'static str,
    handle: &str,
    arguments: &[&OsStr],
) -> Result<Vec<u8>, Error> {
    let request = Request { action, handle, arguments, input: &[] };
    plugin.run(&request).map_err(|Failure { reason, output }| {
        let called = match action {
            "delete" => "destroy",
            "stats" => "metrics",
            other => other,
        };
        Error::Plain(format!("running image plugin {called}: {output}: {reason}"))
    })
}

fn parsed<T: DeserializeOwned>(attempt: &str, output: &[u8]) -> Result<T, Error> {
    go_json::decode(output).map_err(|error| {
        Error::Plain(format!("{attempt}: {}: {error}", String::from_utf8_lossy(output)))
    })
}
