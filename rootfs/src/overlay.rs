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

/// An image's layers as detached mounts, in the same order.
///
/// Closing such a mount takes the kernel a grace period, a millisecond or more.
#[derive(Debug)]
pub struct Lower {
    /// The mounts.
    pub mounts: Vec<OwnedFd>,
    /// Some are of copies, which tell what their layers were when they were made.
    pub copied: bool,
}

/// Mounts an image's layers.
pub fn mount_layers(
    layers: &Layers,
    paths: &[PathBuf],
    shift: Option<Shift<'_>>,
) -> Result<Lower, Error> {
    let mut copied = false;
    let mut mount = |path: &PathBuf| {
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
            copied = true;
            return bind(&layers.shifted(path, shift.root)?);
        }
        Ok(lower)
    };
    let mounts = paths.iter().map(&mut mount).collect::<Result<_, _>>()?;
    Ok(Lower { mounts, copied })
}

/// The kernel takes no longer text for one parameter.
const LONGEST: usize = 255;

/// Lays a writable directory over `lower`, topmost first. Nothing of it is ever synced: it ends with
/// its container. More layers than one overlay's parameter can name are joined in groups first.
/// Answers the overlay, and the mounts below it, which it does not need to stay open.
pub fn mount(
    lower: Vec<OwnedFd>,
    upper: &Path,
    work: &Path,
) -> io::Result<(OwnedFd, Vec<OwnedFd>)> {
    let lower = grouped(lower, LONGEST)?;
    let overlay = sys::mount(&lower, Some(Writable { upper, work }))?;
    Ok((overlay, lower))
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
