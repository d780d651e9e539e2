//! Layers joined by overlay, as a detached mount (kernel, "overlayfs"; fsopen(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use garden_sys::mounts::{self, Access};
use garden_sys::overlay::{self as sys, Writable};

use crate::error::Error;
use crate::layers::Layers;

/// How root's files of an image become the files of a container's root.
#[derive(Clone, Copy, Debug)]
pub struct Shift<'a> {
    /// The container's user namespace, whose map the layers' mounts get.
    pub users: BorrowedFd<'a>,
    /// The host's id of the container's root, for copies.
    pub root: u32,
    /// Copy at once, as on a file system that has no idmapped mounts.
    pub copy: bool,
}

/// Detached mounts of an image's layers, in the same order.
pub fn mount_layers(
    layers: &Layers,
    paths: &[PathBuf],
    shift: Option<Shift<'_>>,
) -> Result<Vec<OwnedFd>, Error> {
    let mount = |path: &PathBuf| {
        let bind = |path: &Path| {
            mounts::bind(path, Access::default()).map_err(Error::on("mount the layer", path))
        };
        let lower = bind(path)?;
        let Some(shift) = shift else { return Ok(lower) };
        let refusal = match shift.copy {
            true => None,
            false => mounts::map_ids(lower.as_fd(), shift.users).err(),
        };
        if let Some(error) = &refusal {
            // EINVAL is the file system's answer; on a strange one, a copy is right for any.
            tracing::debug!(path = %path.display(), %error, "no idmapped mount; using a copy");
        }
        if shift.copy || refusal.is_some() {
            return bind(&layers.shifted(path, shift.root)?);
        }
        Ok(lower)
    };
    paths.iter().map(mount).collect()
}

/// The kernel takes no longer text for one parameter.
const LONGEST: usize = 255;

/// Lays a writable directory over `lower`, topmost first. Nothing of it is ever synced: it ends with
/// its container. More layers than one overlay's parameter can name are joined in groups first.
pub fn mount(lower: Vec<OwnedFd>, upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let lower = grouped(lower, LONGEST)?;
    sys::mount(&lower, Some(Writable { upper, work }))
}

/// Joins layers to fewer until all of their names fit.
fn grouped(mut layers: Vec<OwnedFd>, longest: usize) -> io::Result<Vec<OwnedFd>> {
    if joined(&layers).len() <= longest {
        return Ok(layers);
    }
    let mut groups = Vec::new();
    while !layers.is_empty() {
        let mut size = layers.len().min(2);
        while size < layers.len() && joined(&layers[..=size]).len() <= longest {
            size += 1;
        }
        let rest = layers.split_off(size);
        groups.push(match layers.as_slice() {
            [_] => layers.remove(0),
            group => sys::mount(group, None)?,
        });
        layers = rest;
    }
    if joined(&groups).len() > longest {
        return Err(io::Error::other("more layers than two overlays can name"));
    }
    Ok(groups)
}

fn joined(layers: &[OwnedFd]) -> String {
    let names: Vec<_> =
        layers.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd())).collect();
    names.join(":")
}
