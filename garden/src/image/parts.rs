//! Mounts that an image plugin wants in the image.

use std::os::fd::AsFd;
use std::path::Path;

use garden_sys::mounts::{self, Access};
use rustix::mount::MountAttrFlags as Attributes;

use super::SpecMount;
use crate::bundle::{Attachment, ImageMount};
use crate::error::Error;
use crate::root::Mounted;

/// One of them, opened.
#[derive(Debug)]
pub enum ImagePart {
    /// A part of the host's file system.
    Bound(Mounted),
    /// A file system in memory, made in the container.
    Memory(Memory),
}

/// What is to be made.
#[derive(Debug)]
pub struct Memory {
    target: String,
    options: Vec<String>,
    attributes: Attributes,
}

impl ImagePart {
    pub fn open(mount: &SpecMount) -> Result<Self, Error> {
        let SpecMount { destination, kind, source, options } = mount;
        let strange = |why: &str| {
            Error::Plain(format!("the image plugin wants a mount at {destination:?} {why}"))
        };
        if !destination.starts_with('/')
            || destination.split('/').all(|name| matches!(name, "" | "."))
        {
            return Err(strange("which is no place inside"));
        }
        let bound = |option: &String| matches!(option.as_str(), "bind" | "rbind");
        if kind == "bind" || options.iter().any(bound) {
            let has =
                |names: &[&str]| options.iter().any(|option| names.contains(&option.as_str()));
            let access = Access {
                read_only: has(&["ro"]),
                inert: has(&["nosuid", "nodev"]),
                no_exec: has(&["noexec"]),
                recursive: has(&["rbind"]),
            };
            let made = std::fs::metadata(source)
                .and_then(|found| Ok((mounts::bind(Path::new(source), access)?, !found.is_dir())));
            let (bound, file) =
                made.map_err(|error| Error::because(strange(&format!("of {source}")), &error))?;
            return Ok(Self::Bound((bound, destination.clone(), file)));
        }
        if kind != "tmpfs" {
            return Err(strange(&format!("of type {kind:?}; only bind and tmpfs are supported")));
        }
        let (attributes, options) = divided(options);
        Ok(Self::Memory(Memory { target: destination.clone(), options, attributes }))
    }

    pub fn borrow(&self) -> ImageMount<'_> {
        match self {
            Self::Bound((mount, target, file)) => ImageMount::Bound(Attachment {
                mount: mount.as_fd(),
                target: target.clone(),
                file: *file,
            }),
            Self::Memory(Memory { target, options, attributes }) => ImageMount::Memory {
                target: target.clone(),
                options: options.clone(),
                attributes: *attributes,
            },
        }
    }
}

/// Attributes of the mount, and options of the file system.
fn divided(options: &[String]) -> (Attributes, Vec<String>) {
    let mut attributes = Attributes::empty();
    let mut others = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => attributes |= Attributes::MOUNT_ATTR_RDONLY,
            "nosuid" => attributes |= Attributes::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= Attributes::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= Attributes::MOUNT_ATTR_NOEXEC,
            "noatime" => attributes |= Attributes::MOUNT_ATTR_NOATIME,
            "strictatime" => attributes |= Attributes::MOUNT_ATTR_STRICTATIME,
            "nodiratime" => attributes |= Attributes::MOUNT_ATTR_NODIRATIME,
            // What is so anyway, and the propagation, which a container has none of.
            "rw" | "suid" | "dev" | "exec" | "relatime" | "defaults" | "private" | "rprivate"
            | "slave" | "rslave" => {}
            other => others.push(other.to_owned()),
        }
    }
    (attributes, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_the_mounts_or_the_file_systems() {
        let options = ["rw", "nosuid", "size=1m", "noexec", "mode=755"].map(str::to_owned);
        let (attributes, others) = divided(&options);
        assert_eq!(attributes, Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC);
        assert_eq!(others, ["size=1m", "mode=755"]);
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        let said = |destination: &str, kind: &str, source: &str| {
            let mount = SpecMount {
                destination: destination.into(),
                kind: kind.into(),
                source: source.into(),
                options: Vec::new(),
            };
            ImagePart::open(&mount).err().unwrap().to_string()
        };
        for nowhere in ["", "/", "a/b", "/./"] {
            assert!(said(nowhere, "tmpfs", "").contains("no place inside"), "{nowhere}");
        }
        assert!(said("/a", "overlay", "overlay").contains("of type \"overlay\""));
        assert!(said("/a", "bind", "/no/such").contains("of /no/such: No such file"));
    }
}
