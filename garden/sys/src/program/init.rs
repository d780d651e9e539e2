//! Process 1 of a container: parked until it is needed, then building the container's root around
//! itself, then reaping orphans until it is killed.
//!
//! ```text
//!  clone3 ──> parked ──Setup──> [plan's records] ──> built ──Commit──> reaping for ever
//!                │ daemon gone           ^             │ │ daemon gone
//!                └────────────> exit <───┼─────────────┘ │
//!                                        └─────Setup─────┘
//! ```
//!
//! Most of a root does not depend on whose it will be, so it can be built ahead by one plan and
//! completed by another. A plan that brings a root of its own replaces the one that there is.
//!
//! It is a fork of the keeper that never executes anything, so its memory belongs to the host's
//! user namespace and the container's root can neither trace it nor look into it (ptrace(2)).

use core::ffi::CStr;

use super::ledger::{self, Slot};
use super::plan::{Record, Records, tag};
use super::raw::{self, Answer, Errno, Fd, attribute};
use super::store;
use super::wire::{self, Step};

/// What the daemon writes to a parked init, one byte each.
pub mod order {
    /// Build the root, or go on building it: the plan and the descriptors it names come along.
    pub const SETUP: u8 = 1;
    /// The container is written down: live.
    pub const COMMIT: u8 = 2;
}

const CONTROL: Fd = 3;
const MOST_PLAN: usize = 1 << 20;
/// Directory of the supervisor's own root on which the new root is attached.
const NEW_ROOT: &CStr = c"/root";

/// The parked process: `control` is its end of the socket to the daemon.
pub fn parked(control: Fd, joins: &[Fd], slot: &Slot, unshared: Fd) -> ! {
    let Ok(()) = settle(control, joins, slot, unshared) else { raw::exit(1) };
    let mut order = [0_u8; 1];
    let mut inside = false;
    loop {
        let Ok(received) = raw::receive(CONTROL, &mut order, true) else { raw::exit(1) };
        match order[0] {
            order::SETUP if received.length == 1 => {
                let answer = match build(received.descriptors(), &mut inside) {
                    Ok(()) => [0; wire::RESULT],
                    Err((step, errno, detail)) => wire::encode_result(step, errno.0, detail),
                };
                let _ = raw::send(CONTROL, &answer, &[]);
            }
            order::COMMIT if received.length == 1 && inside => break,
            _ => raw::exit(0),
        }
    }
    let _ = raw::close_range(0, u32::MAX, false);
    const SIGCHLD: i32 = 17;
    raw::set_signal_action(SIGCHLD, false, true);
    loop {
        raw::pause();
    }
}

fn settle(control: Fd, joins: &[Fd], slot: &Slot, unshared: Fd) -> Answer<()> {
    raw::close_range(store::BASE, u32::MAX, true)?;
    slot.set(ledger::flag::UNSHARED);
    let _ = raw::write(unshared, &1_u64.to_ne_bytes());
    raw::set_undumpable();
    raw::set_name(c"bloomery-init");
    for join in joins {
        raw::write(*join, b"0")?;
    }
    raw::dup3(control, CONTROL, true)?;
    raw::close_range(CONTROL + 1, u32::MAX, false)?;
    raw::set_loopback_up()?;
    raw::set_signal_mask(0);
    raw::setsid();
    raw::umask(0o022);
    keep_mounts_private()
}

/// What is mounted from now on in this process's mount namespace is seen in no other.
pub fn keep_mounts_private() -> Answer<()> {
    const PRIVATE: usize = 0x4_4000;
    raw::mount(c"none", c"/", c"", PRIVATE)
}

/// The step that failed, why, and which record of the plan was followed.
type Failed = (Step, Errno, u32);

/// Follows the plan in the first descriptor with what the others are, as the root of the user
/// namespace. `inside` is whether the container's root is this process's own by now.
pub fn build(descriptors: &[Fd], inside: &mut bool) -> Result<(), Failed> {
    let plan = read_plan(descriptors).map_err(|errno| (Step::Plan, errno, 0))?;
    // The id maps have been written since the clone.
    let become_root = || {
        raw::setgroups(&[])?;
        raw::set_gid(0)?;
        raw::set_uid(0)
    };
    become_root().map_err(|errno| (Step::Credentials, errno, 0))?;
    raw::set_undumpable();
    let mut root = None;
    let mut new = false;
    if *inside {
        root = Some(open_directory(c"/").map_err(|errno| (Step::Root, errno, 0))?);
    }
    for (index, record) in (0_u32..).zip(plan) {
        let failed = |errno| {
            (if record.tag == tag::HOSTNAME { Step::Hostname } else { Step::Mount }, errno, index)
        };
        if record.tag == tag::ATTACH {
            let (mount, _, target) = attachment(&record, descriptors).map_err(failed)?;
            if target == c"/" {
                attach_root(mount, *inside).map_err(failed)?;
                (root, new) = (Some(mount), true);
                continue;
            }
        }
        let root = root.ok_or(Errno::EPROTO).map_err(failed)?;
        follow(root, &record, descriptors).map_err(failed)?;
    }
    let root = root.ok_or((Step::Root, Errno::EPROTO, 0))?;
    if new {
        enter(root).map_err(|errno| (Step::Root, errno, 0))?;
        *inside = true;
    }
    raw::close(root);
    Ok(())
}

fn open_directory(path: &CStr) -> Answer<Fd> {
    raw::open(raw::AT_FDCWD, path, raw::flag::PATH | raw::flag::DIRECTORY, 0)
}

fn read_plan(descriptors: &[Fd]) -> Answer<Records<'static>> {
    let plan = *descriptors.first().ok_or(Errno::EPROTO)?;
    let length = raw::file_size(plan)?;
    if length == 0 || length > MOST_PLAN {
        return Err(Errno::EPROTO);
    }
    let at = raw::map_private(plan, length)?;
    // SAFETY: `length` bytes are mapped, the mapping is never undone, and the file is sealed
    // against change by the daemon that wrote it.
    Ok(Records(unsafe { core::slice::from_raw_parts(at, length) }))
}

/// The descriptor that an ATTACH record names, and its target.
fn attachment<'a>(record: &Record<'a>, descriptors: &[Fd]) -> Answer<(Fd, u32, &'a CStr)> {
    let mount = *descriptors.get(record.word(0)? as usize).ok_or(Errno::EPROTO)?;
    let (target, _) = Record::first_text(record.payload.get(8..).ok_or(Errno::EPROTO)?)?;
    Ok((mount, record.word(1)?, target))
}

/// Attaches the new root where it is out of the way of the old one. Its descriptor then stands for
/// the attached root.
fn attach_root(mount: Fd, inside: bool) -> Answer<()> {
    let target = open_directory(if inside { c"/" } else { NEW_ROOT })?;
    let attached = raw::move_mount(mount, target);
    raw::close(target);
    attached
}

fn follow(root: Fd, record: &Record<'_>, descriptors: &[Fd]) -> Answer<()> {
    match record.tag {
        tag::ATTACH => {
            let (mount, kind, target) = attachment(record, descriptors)?;
            let at = if kind == 0 { place_in(root, target)? } else { file_in(root, target)? };
            raw::move_mount(mount, at)?;
            raw::close(at);
            raw::close(mount);
            Ok(())
        }
        tag::MOUNT => mount(root, record),
        tag::MASK => mask(root, record.text()?),
        tag::LINK => {
            let (target, rest) = Record::first_text(record.payload)?;
            let (path, _) = Record::first_text(rest)?;
            let (parent, name) = parent_in(root, path)?;
            let made = raw::symlink(target, parent, name.as_c());
            raw::close(parent);
            match made {
                Err(Errno::EEXIST) => Ok(()),
                other => other,
            }
        }
        tag::MAKE_DIRECTORY => directory_in(root, record.text()?).map(raw::close),
        tag::MAKE_FILE => file_in(root, record.text()?).map(raw::close),
        tag::READ_ONLY => {
            let at = raw::open_in_root(root, record.text()?, raw::flag::PATH, 0)?;
            let set = raw::mount_setattr(at, attribute::RDONLY, false);
            raw::close(at);
            set
        }
        tag::HOSTNAME => raw::sethostname(record.text()?.to_bytes()),
        tag::SYSCTL => {
            let (path, rest) = Record::first_text(record.payload)?;
            let (value, _) = Record::first_text(rest)?;
            let file = raw::open_in_root(root, path, raw::flag::WRONLY, 0)?;
            let written = raw::write(file, value.to_bytes());
            raw::close(file);
            written.map(drop)
        }
        _ => Err(Errno::EPROTO),
    }
}

fn mount(root: Fd, record: &Record<'_>) -> Answer<()> {
    let attributes = record.long(0)?;
    let (target, rest) = Record::first_text(record.payload.get(8..).ok_or(Errno::EPROTO)?)?;
    let (kind, mut rest) = Record::first_text(rest)?;
    let fs = raw::fsopen(kind)?;
    while !rest.is_empty() {
        let (option, after) = Record::first_text(rest)?;
        rest = after;
        set_option(fs, option)?;
    }
    let mount = raw::fsmount(fs, usize::try_from(attributes).map_err(|_| Errno::EPROTO)?)?;
    raw::close(fs);
    let at = place_in(root, target)?;
    raw::move_mount(mount, at)?;
    raw::close(at);
    raw::close(mount);
    Ok(())
}

fn set_option(fs: Fd, option: &CStr) -> Answer<()> {
    let mut key = [0_u8; 64];
    let bytes = option.to_bytes();
    let Some(split) = bytes.iter().position(|byte| *byte == b'=') else {
        return raw::fsconfig(fs, option, c"");
    };
    key.get_mut(..split)
        .filter(|_| split < 63)
        .ok_or(Errno::E2BIG)?
        .copy_from_slice(&bytes[..split]);
    let key = CStr::from_bytes_until_nul(&key).map_err(|_| Errno::EPROTO)?;
    let value = CStr::from_bytes_with_nul(&option.to_bytes_with_nul()[split + 1..])
        .map_err(|_| Errno::EPROTO)?;
    raw::fsconfig(fs, key, value)
}

fn mask(root: Fd, path: &CStr) -> Answer<()> {
    let at = match raw::open_in_root(root, path, raw::flag::PATH, 0) {
        Ok(at) => at,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let cover = if is_directory(at)? {
        let fs = raw::fsopen(c"tmpfs")?;
        raw::fsconfig(fs, c"size", c"0")?;
        raw::fsconfig(fs, c"mode", c"555")?;
        raw::fsconfig(fs, c"ro", c"")?;
        let cover = raw::fsmount(fs, mask_attributes())?;
        raw::close(fs);
        cover
    } else {
        let null = raw::open_in_root(root, c"/dev/null", raw::flag::PATH, 0)?;
        let cover = raw::clone_mount(null, c"")?;
        raw::close(null);
        cover
    };
    raw::move_mount(cover, at)?;
    raw::close(cover);
    raw::close(at);
    Ok(())
}

fn is_directory(at: Fd) -> Answer<bool> {
    const FORMAT: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    Ok(raw::file_mode(at)? & FORMAT == DIRECTORY)
}

#[expect(clippy::cast_possible_truncation, reason = "64-bit target")]
fn mask_attributes() -> usize {
    (attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC) as usize
}

/// A path component with its NUL.
struct Name {
    bytes: [u8; 256],
    length: usize,
}

impl Name {
    fn new(name: &[u8]) -> Answer<Self> {
        let mut bytes = [0; 256];
        bytes
            .get_mut(..name.len())
            .filter(|_| name.len() < 256)
            .ok_or(Errno(36))?
            .copy_from_slice(name);
        Ok(Self { bytes, length: name.len() })
    }

    fn as_c(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.bytes[..=self.length]).unwrap_or(c"")
    }
}

/// Opens the directory at `path` below the root as a place to mount on, making what is missing. An
/// image's symlink may lead to the root itself, where a mount would be the root of every process
/// that joins the namespace later, and without the masks that were laid over the path.
fn place_in(root: Fd, path: &CStr) -> Answer<Fd> {
    let at = directory_in(root, path)?;
    if raw::identity(at)? == raw::identity(root)? { Err(Errno::ELOOP) } else { Ok(at) }
}

/// Opens the directory at `path` below the root, making what is missing. Symlinks are followed as
/// the container would follow them.
fn directory_in(root: Fd, path: &CStr) -> Answer<Fd> {
    let whole = raw::flag::PATH | raw::flag::DIRECTORY;
    match raw::open_in_root(root, path, whole, 0) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    // Component by component from the root, each time resolving the whole prefix in the root, so
    // that an absolute symlink on the way means what it means inside.
    let mut prefix = [0_u8; 4096];
    let mut length = 0;
    for name in
        path.to_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
    {
        let parent = prefix_in(root, &prefix[..=length], whole)?;
        let made = raw::mkdir(parent, Name::new(name)?.as_c(), 0o755);
        raw::close(parent);
        match made {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        let end = length + 1 + name.len();
        prefix.get_mut(length..=end).ok_or(Errno(36))?[0] = b'/';
        prefix[length + 1..end].copy_from_slice(name);
        length = end;
    }
    prefix_in(root, &prefix[..=length], whole)
}

fn prefix_in(root: Fd, prefix: &[u8], flags: usize) -> Answer<Fd> {
    let path = CStr::from_bytes_with_nul(prefix).map_err(|_| Errno::EPROTO)?;
    raw::open_in_root(root, if path.is_empty() { c"/" } else { path }, flags, 0)
}

/// The directory that holds `path`, and the last component.
fn parent_in(root: Fd, path: &CStr) -> Answer<(Fd, Name)> {
    let bytes = path.to_bytes();
    let split = bytes.iter().rposition(|byte| *byte == b'/').ok_or(Errno::EINVAL)?;
    let name = Name::new(&bytes[split + 1..])?;
    let mut buffer = [0_u8; 4096];
    buffer
        .get_mut(..split)
        .filter(|_| split < 4095)
        .ok_or(Errno(36))?
        .copy_from_slice(&bytes[..split]);
    let parent = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::EPROTO)?;
    Ok((directory_in(root, if parent.is_empty() { c"/" } else { parent })?, name))
}

/// Opens the file at `path` below the root as a place to mount on, making an empty one where
/// there is none.
fn file_in(root: Fd, path: &CStr) -> Answer<Fd> {
    match raw::open_in_root(root, path, raw::flag::PATH, 0) {
        Err(Errno::ENOENT) => {}
        Ok(at) if is_directory(at)? => return Err(Errno::EISDIR),
        other => return other,
    }
    let (parent, _) = parent_in(root, path)?;
    raw::close(parent);
    let made = raw::open_in_root(
        root,
        path,
        raw::flag::WRONLY | raw::flag::CREAT | raw::flag::NONBLOCK,
        0o644,
    )?;
    raw::close(made);
    raw::open_in_root(root, path, raw::flag::PATH, 0)
}

/// Makes the new root the only one (pivot_root(2)).
fn enter(root: Fd) -> Answer<()> {
    raw::fchdir(root)?;
    raw::pivot_root_here()?;
    raw::detach(c".")?;
    raw::chdir(c"/")
}
