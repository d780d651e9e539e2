//! A container's root: what it is made of is opened here, and process 1 builds it. So does a pea with
//! its own.
//!
//! Nearly all of a root depends on its image alone. So a parked container has one ahead, of the image
//! that was asked for last, and only a container's own wishes are left for its create.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use garden_api::{BindMount, BindMountMode};
use garden_cgroup::Slot;
use garden_sys::mounts::{self, Access};

use crate::bundle::{self, Attachment, Bundle, Furniture, Wishes};
use crate::devices;
use crate::error::Error;
use crate::identity;
use crate::image::parts::ImagePart;
use crate::pool::{Maker, Unit};
use crate::volumes::{Image, Likeness, NAMES, Overlay, Volume};

/// How long process 1 may take to build the root; a bind mount of a dead network file system is
/// the slow part.
const PATIENCE: Duration = Duration::from_secs(30);

/// A detached mount, where it goes, and whether it is a file.
pub type Mounted = (OwnedFd, String, bool);

/// Whose a root will be.
#[derive(Debug)]
pub(crate) struct Owner<'a> {
    /// The container's user namespace; none for a privileged one.
    pub(crate) users: Option<OwnedFd>,
    /// Where what is written goes.
    pub(crate) volume: &'a Volume,
    /// The cgroup that is shown inside.
    pub(crate) slot: &'a Slot,
}

impl Owner<'_> {
    fn is_privileged(&self) -> bool {
        self.users.is_none()
    }
}

/// All descriptors of a root's furniture.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) overlay: Overlay,
    image: Vec<ImagePart>,
    dev: OwnedFd,
    cgroups: Vec<Mounted>,
}

impl Maker {
    /// Builds a root ahead, of the image that the next container is likely to have. Where that cannot
    /// be, nothing is built.
    pub(crate) fn build_ahead(&self, unit: &mut Unit) -> Result<(), Error> {
        let Some(image) = self.volumes.likely() else { return Ok(()) };
        let likeness = Likeness::of(&image);
        let owner = owner_of(unit)?;
        let (opened, copied) = self.open(&owner, &image)?;
        let mut bundle = Bundle::default();
        bundle.furnish(&self.furniture(&owner, &opened))?;
        build(unit, bundle)?;
        // A copy is right for a container that is made now, not for a later one.
        unit.root = (!copied).then_some(likeness);
        if copied {
            self.renew_volume(unit)?;
        }
        Ok(())
    }

    /// Builds what is left of a root: all of it unless the unit has one of this image. Answers mounts
    /// that are not needed any more and take long to close.
    pub(crate) fn build(
        &self,
        unit: &mut Unit,
        image: &Image,
        wishes: &Wishes<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let mut bundle = Bundle::default();
        if unit.root.is_some() {
            bundle.fulfil(wishes)?;
            return build(unit, bundle).map(|()| Vec::new());
        }
        let owner = owner_of(unit)?;
        let (opened, _) = self.open(&owner, image)?;
        bundle.furnish(&self.furniture(&owner, &opened))?;
        bundle.fulfil(wishes)?;
        build(unit, bundle)?;
        Ok(opened.overlay.spent)
    }

    /// Makes sure that a unit's root, if it has one, is of this image as it is now, and that its
    /// volume has not been used for another.
    pub(crate) fn suit(&self, unit: &mut Unit, image: &Image) -> Result<(), Error> {
        match &unit.root {
            Some(root) if *root != Likeness::of(image) => {
                unit.root = None;
                self.renew_volume(unit)
            }
            _ => Ok(()),
        }
    }

    /// A volume is mounted once in its life.
    fn renew_volume(&self, unit: &mut Unit) -> Result<(), Error> {
        let fresh = self.make_volume(unit.privileged)?;
        let spent = std::mem::replace(&mut unit.volume, fresh);
        self.volumes.destroy(spent.number);
        Ok(())
    }

    /// Opens what a root of this image is made of; whether copies of the image were needed.
    pub(crate) fn open(&self, owner: &Owner<'_>, image: &Image) -> Result<(Opened, bool), Error> {
        let privileged = owner.is_privileged();
        let users = owner.users.as_ref().map(AsFd::as_fd);
        let (overlay, copied) = self.volumes.mount(owner.volume, image, users)?;
        let image = image.mounts().iter().map(ImagePart::open).collect::<Result<_, _>>()?;
        let dev = devices::file_system(identity::root(privileged), privileged)
            .map_err(|error| Error::because("cannot make a /dev", &error))?;
        let cgroups = if privileged { Vec::new() } else { cgroup_views(owner.slot)? };
        Ok((Opened { overlay, image, dev, cgroups }, copied))
    }

    /// What of a root depends on its image and its owner alone.
    pub(crate) fn furniture<'a>(&self, owner: &Owner<'_>, opened: &'a Opened) -> Furniture<'a> {
        let privileged = owner.is_privileged();
        Furniture {
            root: opened.overlay.mount.as_fd(),
            image: opened.image.iter().map(ImagePart::borrow).collect(),
            dev: opened.dev.as_fd(),
            terminals: None,
            cgroups: attachments(&opened.cgroups),
            many_hierarchies: self.hierarchy.is_hybrid(),
            masked: !privileged,
            open_ping: self.no_new_privileges && !privileged,
            files: NAMES.map(|name| format!("/etc/{name}")).into(),
        }
    }
}

fn owner_of(unit: &Unit) -> Result<Owner<'_>, Error> {
    let users = (!unit.privileged).then(|| unit.init.namespace("user")).transpose();
    let users = users
        .map_err(|error| Error::because("cannot reach the container's user namespace", &error))?;
    Ok(Owner { users, volume: &unit.volume, slot: &unit.slot })
}

fn build(unit: &Unit, bundle: Bundle<'_>) -> Result<(), Error> {
    let plan = bundle
        .plan
        .seal()
        .map_err(|error| Error::because("cannot write the plan of a root", &error))?;
    let built = unit
        .init
        .setup(plan.as_fd(), &bundle.descriptors, PATIENCE)
        .map_err(|error| Error::because("cannot build the container's root", &error))?;
    built.map_err(|failure| {
        bundle::explain("cannot build the container's root", &failure, &bundle.into_parts())
    })
}

/// Mounts as parts of a plan.
pub(crate) fn attachments(mounts: &[Mounted]) -> Vec<Attachment<'_>> {
    mounts
        .iter()
        .map(|(mount, target, file)| Attachment {
            mount: mount.as_fd(),
            target: target.clone(),
            file: *file,
        })
        .collect()
}

/// `/etc/hosts` and `/etc/resolv.conf`, as files of the container's root.
pub(crate) fn name_files(volume: &Volume) -> Result<Vec<Mounted>, Error> {
    let mounted = |name: &&str| {
        let path = volume.path().join(name);
        let mount = mounts::bind(&path, Access { inert: true, ..Access::default() })
            .map_err(|error| Error::because(format!("cannot mount {}", path.display()), &error))?;
        Ok((mount, format!("/etc/{name}"), true))
    };
    NAMES.iter().map(mounted).collect()
}

/// What a client asks to have bind-mounted.
pub(crate) fn bind_mounts(binds: &[BindMount]) -> Result<Vec<Mounted>, Error> {
    let mut mounts = Vec::with_capacity(binds.len());
    for bind in binds {
        if !bind.dst_path.starts_with('/') {
            return Err(Error::Plain(format!(
                "bind mount target {:?} is not an absolute path",
                bind.dst_path
            )));
        }
        if bind.dst_path.split('/').all(|name| matches!(name, "" | ".")) {
            return Err(Error::Plain(format!(
                "bind mount target {:?} is the container's root",
                bind.dst_path
            )));
        }
        let source = Path::new(&bind.src_path);
        let access = Access {
            read_only: bind.mode == BindMountMode::ReadOnly,
            recursive: true,
            ..Access::default()
        };
        let made = std::fs::metadata(source)
            .and_then(|kind| Ok((mounts::bind(source, access)?, !kind.is_dir())));
        let (mount, file) = made.map_err(|error| {
            Error::because(format!("cannot bind mount {}", bind.src_path), &error)
        })?;
        mounts.push((mount, bind.dst_path.clone(), file));
    }
    Ok(mounts)
}

/// Read-only views of the container's own cgroups.
fn cgroup_views(slot: &Slot) -> Result<Vec<Mounted>, Error> {
    let mut mounts = Vec::new();
    for (name, path) in slot.views() {
        let access = Access { read_only: true, inert: true, ..Access::default() };
        let mount = mounts::bind(&path, access).map_err(|error| {
            Error::because(format!("cannot show the cgroup {}", path.display()), &error)
        })?;
        let target = if name.is_empty() {
            "/sys/fs/cgroup".to_owned()
        } else {
            format!("/sys/fs/cgroup/{name}")
        };
        mounts.push((mount, target, false));
    }
    Ok(mounts)
}
