//! The child of a launch: from clone3(2) in the keeper to execve(2) of the tenant's program.
//!
//! It is a copy of the keeper and owes it nothing: the keeper does not wait for any of this. All
//! that a tenant can slow down (path look-up, reading `/etc/passwd`, execve(2)) happens here.
//! Nothing returns: the result pipe is closed by a successful exec, or carries the [`Step`] that
//! failed.

use core::ffi::CStr;

use super::init;
use super::ledger::{self, Slot};
use super::passwd::{self, Unknown};
use super::plan::{Records, tag};
use super::raw::{self, Answer, CloneArguments, Errno, Fd};
use super::store;
use super::wire::{self, Step};

/// The descriptors of one launch, all of the keeper's table and above [`HIGHEST_MOVED`].
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// pidfd of the container's process 1.
    pub init: Fd,
    /// The plan's memory file.
    pub plan: Fd,
    /// What becomes descriptors 0, 1, 2.
    pub standard: [Fd; 3],
    /// Write end of the result pipe.
    pub result: Fd,
    /// An executable to run instead of the plan's program.
    pub image: Option<Fd>,
    /// Socket in which the plan of a root of its own waits, and what that is made of.
    pub root: Option<Fd>,
    /// v1 cgroup files to join by.
    pub joins: &'a [Fd],
    /// Eventfd that tells the keeper that this child has its own descriptors.
    pub unshared: Fd,
    /// Standard streams are a terminal.
    pub terminal: bool,
    /// The container has no user namespace.
    pub privileged: bool,
}

const RESULT: Fd = 3;
const PLAN: Fd = 4;
const INIT: Fd = 5;
const IMAGE: Fd = 6;
const ROOT: Fd = 7;
/// Descriptors up to here are given new meanings in the child.
pub const HIGHEST_MOVED: Fd = ROOT;
const MOST_PLAN: usize = 16 << 20;
const MOST_ACCOUNTS: usize = 4 << 20;
const MOST_GROUPS: usize = 1024;

struct Failure {
    step: Step,
    errno: Errno,
    detail: u32,
}

fn at(step: Step) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { step, errno, detail: 0 }
}

/// The child's whole life before exec.
pub fn child(launch: &Launch<'_>, slot: &Slot) -> ! {
    let Err(failure) = start(launch, slot);
    let record = wire::encode_result(failure.step, failure.errno.0, failure.detail);
    // Until the descriptors have moved the pipe has its old number, afterwards that one is closed.
    if raw::write(if slot.has(ledger::flag::MOVED) { RESULT } else { launch.result }, &record)
        .is_err()
    {
        raw::exit(126);
    }
    raw::exit(127)
}

fn start(launch: &Launch<'_>, slot: &Slot) -> Result<core::convert::Infallible, Failure> {
    own_descriptors(launch, slot).map_err(at(Step::Descriptors))?;
    raw::set_undumpable();
    raw::set_signal_mask(0);
    raw::setsid();
    if launch.terminal {
        raw::set_controlling_terminal(0).map_err(at(Step::Terminal))?;
    }
    let plan = read_plan().map_err(at(Step::Plan))?;
    // To raise one is the host's to allow. A root is built before they are lowered: that takes
    // descriptors.
    let lowered = launch.root.is_none();
    set_rlimits(&plan, lowered)?;
    if let Some(profile) = plan.first(tag::APPARMOR) {
        profile.text().and_then(confine_at_exec).map_err(at(Step::AppArmor))?;
    }
    enter(launch).map_err(at(Step::Namespaces))?;
    raw::umask(0o022);
    if launch.root.is_some() {
        build_root()?;
        set_rlimits(&plan, true)?;
    }

    let passwd = read_file(c"/etc/passwd");
    let group = read_file(c"/etc/group");
    let wanted = match plan.first(tag::USER) {
        Some(record) => record.text().map_err(at(Step::Plan))?.to_bytes(),
        None => b"",
    };
    let user = passwd::find(wanted, passwd, group).map_err(|unknown| match unknown {
        Unknown::User => at(Step::User)(Errno::ENOENT),
        Unknown::Group => at(Step::Group)(Errno::ENOENT),
    })?;
    give_streams(launch.terminal, &user);
    change_directory(&plan, &user).map_err(at(Step::Directory))?;
    let command = Command::assemble(&plan, &user, wanted).map_err(at(Step::Plan))?;
    drop_privileges(&plan, &user, group)?;
    Err(command.execute(launch.image.is_some()))
}

/// Leaves the keeper's table: only 0-2 and the few descriptors that are still needed remain, and
/// those close on exec. Joins the cgroups in between, while their files are still open.
fn own_descriptors(launch: &Launch<'_>, slot: &Slot) -> Answer<()> {
    raw::close_range(store::BASE, u32::MAX, true)?;
    slot.set(ledger::flag::UNSHARED);
    let _ = raw::write(launch.unshared, &1_u64.to_ne_bytes());
    for join in launch.joins {
        raw::write(*join, b"0")?;
    }
    for (number, stream) in (0..).zip(launch.standard) {
        raw::dup3(stream, number, false)?;
    }
    raw::dup3(launch.result, RESULT, true)?;
    raw::dup3(launch.plan, PLAN, true)?;
    raw::dup3(launch.init, INIT, true)?;
    for (wanted, number) in [(launch.image, IMAGE), (launch.root, ROOT)] {
        match wanted {
            Some(wanted) => raw::dup3(wanted, number, true)?,
            None => raw::close(number),
        }
    }
    raw::close_range(HIGHEST_MOVED + 1, u32::MAX, false)?;
    slot.set(ledger::flag::MOVED);
    Ok(())
}

fn read_plan() -> Answer<Records<'static>> {
    let length = raw::file_size(PLAN)?;
    if length == 0 || length > MOST_PLAN {
        return Err(Errno::EPROTO);
    }
    let at = raw::map_private(PLAN, length)?;
    raw::close(PLAN);
    // SAFETY: `length` bytes are mapped, the mapping is never undone, and the file is sealed
    // against change by the daemon that wrote it.
    Ok(Records(unsafe { core::slice::from_raw_parts(at, length) }))
}

/// Sets the limits of the plan; those below what the process has now only if `lowered`.
fn set_rlimits(plan: &Records<'_>, lowered: bool) -> Result<(), Failure> {
    for record in plan.filter(|record| record.tag == tag::RLIMIT) {
        let read = |index| record.long(index).map_err(at(Step::Plan));
        let resource = u32::try_from(read(0)?).map_err(|_| at(Step::Plan)(Errno::EPROTO))?;
        let failed = |errno| Failure { step: Step::Rlimit, errno, detail: resource };
        let value = read(1)?;
        if lowered || value > raw::hard_rlimit(resource).map_err(failed)? {
            raw::set_rlimit(resource, value).map_err(failed)?;
        }
    }
    Ok(())
}

/// Has execve(2) change to an AppArmor profile (apparmor.7, `attr/apparmor/exec`). By the host's /proc,
/// before the container is joined: whoever is led to another file by one of its own runs unconfined
/// (CVE-2025-52881). The kernel keeps the choice until the exec, across changes of credentials.
fn confine_at_exec(profile: &CStr) -> Answer<()> {
    let mut text = [0; 512];
    let request = text_in(&mut text, &[b"exec ", profile.to_bytes()])?.to_bytes();
    let file = raw::open(raw::AT_FDCWD, c"/proc/self/attr/apparmor/exec", raw::flag::WRONLY, 0)?;
    let written = raw::write(file, request);
    raw::close(file);
    if written? == request.len() { Ok(()) } else { Err(Errno::EPROTO) }
}

/// Joins the container, but for its mounts if the process is to have its own, and becomes its root.
/// A process that has not yet been in the container's user namespace is none of its ids.
fn enter(launch: &Launch<'_>) -> Answer<()> {
    use raw::clone::{NEWIPC, NEWNET, NEWNS, NEWUSER, NEWUTS};
    let mut namespaces = NEWNET | NEWIPC | NEWUTS;
    if launch.root.is_none() {
        namespaces |= NEWNS;
    }
    if !launch.privileged {
        namespaces |= NEWUSER;
    }
    raw::setns(INIT, namespaces)?;
    raw::close(INIT);
    raw::setgroups(&[])?;
    raw::set_gid(0)?;
    raw::set_uid(0)?;
    raw::set_undumpable();
    Ok(())
}

/// Builds the process's own root, in a mount namespace that belongs to the container's user namespace
/// and begins as a copy of the supervisor's, in which nothing of the host's is.
fn build_root() -> Result<(), Failure> {
    // The plan was sent before the process was asked for.
    let received = raw::receive(ROOT, &mut [0], false).map_err(at(Step::Root))?;
    raw::unshare(raw::clone::NEWNS).map_err(at(Step::Namespaces))?;
    init::keep_mounts_private().map_err(at(Step::Root))?;
    init::build(received.descriptors(), &mut false).map_err(|(step, errno, detail)| Failure {
        step,
        errno,
        detail,
    })?;
    // The socket, and what has come by it.
    raw::close_range(PLAN, u32::MAX, false).map_err(at(Step::Descriptors))
}

/// Makes the user the owner of its pipes or terminal, so that it can open them again by name
/// (`/dev/stdout`, `$(tty)`). Anything else, such as the host's `/dev/null`, stays whose it is.
fn give_streams(terminal: bool, user: &passwd::User<'_>) {
    const FORMAT: u32 = 0o170_000;
    const FIFO: u32 = 0o010_000;
    for stream in 0..3 {
        if terminal || raw::file_mode(stream).is_ok_and(|mode| mode & FORMAT == FIFO) {
            // Where the container's root may not, the process has what it was given all the same.
            let _ = raw::chown(stream, c"", user.uid, u32::MAX);
        }
    }
}

/// A regular file of the container, of bounded size; `None` where there is none. Opened without
/// waiting, so that a FIFO in its place cannot hold us.
fn read_file(path: &CStr) -> Option<&'static [u8]> {
    const FORMAT: u32 = 0o170_000;
    const REGULAR: u32 = 0o100_000;
    let file = raw::open(raw::AT_FDCWD, path, raw::flag::RDONLY | raw::flag::NONBLOCK, 0).ok()?;
    let size = raw::file_size(file).ok()?.min(MOST_ACCOUNTS);
    let regular = raw::file_mode(file).ok()? & FORMAT == REGULAR;
    let content = (regular && size > 0).then(|| read_content(file, size)).flatten();
    raw::close(file);
    if regular { Some(content.unwrap_or(&[])) } else { None }
}

fn read_content(file: Fd, size: usize) -> Option<&'static [u8]> {
    let at = raw::map_memory(size).ok()?;
    // SAFETY: fresh zeroed memory of `size` bytes that nobody else knows and that is never freed.
    let buffer = unsafe { core::slice::from_raw_parts_mut(at, size) };
    let mut filled = 0;
    while filled < size {
        match raw::read(file, &mut buffer[filled..]) {
            Ok(0) | Err(_) => break,
            Ok(count) => filled += count,
        }
    }
    Some(&buffer[..filled])
}

/// Enters the working directory, making what is missing as root and giving it to the user.
fn change_directory(plan: &Records<'_>, user: &passwd::User<'_>) -> Answer<()> {
    let mut buffer = [0_u8; 4096];
    let path = match plan.first(tag::DIRECTORY) {
        Some(record) => record.text()?,
        None => text_in(&mut buffer, &[user.home])?,
    };
    if path.to_bytes().first() != Some(&b'/') {
        return Err(Errno::EINVAL);
    }
    match raw::chdir(path) {
        Err(Errno::ENOENT) if plan.first(tag::KEEP_DIRECTORY).is_none() => {}
        other => return other,
    }
    raw::chdir(c"/")?;
    let mut piece = [0_u8; 256];
    for name in path.to_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let name = text_in(&mut piece, &[name])?;
        match raw::mkdir(raw::AT_FDCWD, name, 0o755) {
            Ok(()) => raw::chown(raw::AT_FDCWD, name, user.uid, user.gid)?,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        raw::chdir(name)?;
    }
    Ok(())
}

/// Joins pieces to a NUL-terminated text.
fn text_in<'a>(buffer: &'a mut [u8], pieces: &[&[u8]]) -> Answer<&'a CStr> {
    const ENAMETOOLONG: Errno = Errno(36);
    let mut length = 0;
    for piece in pieces {
        buffer.get_mut(length..length + piece.len()).ok_or(ENAMETOOLONG)?.copy_from_slice(piece);
        length += piece.len();
    }
    *buffer.get_mut(length).ok_or(ENAMETOOLONG)? = 0;
    CStr::from_bytes_with_nul(&buffer[..=length]).map_err(|_| Errno::EINVAL)
}

/// Seccomp first (it needs CAP_SYS_ADMIN in the container's user namespace), then the bounding
/// set, the groups and the user. The inheritable and ambient sets stay empty (CVE-2022-29162).
fn drop_privileges(
    plan: &Records<'_>,
    user: &passwd::User<'_>,
    group: Option<&[u8]>,
) -> Result<(), Failure> {
    let mut groups = [0; MOST_GROUPS];
    let count = passwd::supplementary(user, group, &mut groups);
    let bounding = match plan.first(tag::CAPABILITIES) {
        Some(record) => record.long(usize::from(user.uid != 0)).map_err(at(Step::Plan))?,
        None => 0,
    };
    if plan.first(tag::NO_NEW_PRIVILEGES).is_some() {
        raw::set_no_new_privileges().map_err(at(Step::Seccomp))?;
    }
    if let Some(filter) = plan.first(tag::SECCOMP) {
        raw::set_seccomp_filter(filter.payload).map_err(at(Step::Seccomp))?;
    }
    raw::clear_ambient_capabilities();
    raw::bound_capabilities(bounding).map_err(at(Step::Capabilities))?;
    raw::setgroups(&groups[..count]).map_err(at(Step::Credentials))?;
    raw::set_gid(user.gid).map_err(at(Step::Credentials))?;
    raw::set_uid(user.uid).map_err(at(Step::Credentials))?;
    raw::set_capabilities(if user.uid == 0 { bounding } else { 0 }).map_err(at(Step::Capabilities))
}

/// What execve(2) is given.
struct Command {
    program: &'static CStr,
    search: &'static [u8],
    arguments: *const *const u8,
    environment: *const *const u8,
}

impl Command {
    /// Arguments and environment as the plan has them; `PATH`, `USER` and `HOME` are added where
    /// they are missing, by Garden's rules.
    fn assemble(
        plan: &Records<'static>,
        user: &passwd::User<'static>,
        wanted: &[u8],
    ) -> Answer<Self> {
        const ROOT_PATH: &CStr =
            c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        const USER_PATH: &CStr = c"PATH=/usr/local/bin:/usr/bin:/bin";
        let program = plan.first(tag::PROGRAM).ok_or(Errno::EPROTO)?.text()?;
        let mut arguments = Pointers::with_room(plan.count_of(tag::ARGUMENT))?;
        for record in plan.filter(|record| record.tag == tag::ARGUMENT) {
            arguments.push(record.text()?)?;
        }
        let mut environment = Pointers::with_room(plan.count_of(tag::ENVIRONMENT) + 3)?;
        let (mut path, mut has_user, mut has_home) = (None, false, false);
        for record in plan.filter(|record| record.tag == tag::ENVIRONMENT) {
            let text = record.text()?;
            let bytes = text.to_bytes();
            if let Some(value) = bytes.strip_prefix(b"PATH=") {
                path = Some(value);
            }
            has_user |= bytes.starts_with(b"USER=");
            has_home |= bytes.starts_with(b"HOME=");
            environment.push(text)?;
        }
        let search = match path {
            Some(path) => path,
            None => {
                let default = if user.uid == 0 { ROOT_PATH } else { USER_PATH };
                environment.push(default)?;
                &default.to_bytes()[b"PATH=".len()..]
            }
        };
        if !has_user {
            environment
                .push(kept_text(&[b"USER=", if wanted.is_empty() { b"root" } else { wanted }])?)?;
        }
        if !has_home {
            environment.push(kept_text(&[b"HOME=", user.home])?)?;
        }
        Ok(Self { program, search, arguments: arguments.at, environment: environment.at })
    }

    fn run(&self, at: Fd, path: &CStr, flags: i32) -> Errno {
        // SAFETY: both arrays were filled with NUL-terminated texts that live for ever, and end
        // with a null pointer because their memory was zeroed and has one place more.
        unsafe { raw::execveat(at, path, self.arguments, self.environment, flags) }
    }

    fn execute(&self, image: bool) -> Failure {
        if image {
            return at(Step::Execute)(self.run(IMAGE, c"", raw::AT_EMPTY_PATH));
        }
        if self.program.to_bytes().contains(&b'/') {
            return at(Step::Execute)(self.run(raw::AT_FDCWD, self.program, 0));
        }
        let mut refused = None;
        let mut buffer = [0_u8; 4096];
        for directory in self.search.split(|byte| *byte == b':') {
            let directory = if directory.is_empty() { b".".as_slice() } else { directory };
            let Ok(path) = text_in(&mut buffer, &[directory, b"/", self.program.to_bytes()]) else {
                continue;
            };
            match self.run(raw::AT_FDCWD, path, 0) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => refused = Some(Errno::EACCES),
                errno => return at(Step::Execute)(errno),
            }
        }
        match refused {
            Some(errno) => at(Step::Execute)(errno),
            None => at(Step::PathSearch)(Errno::ENOENT),
        }
    }
}

/// A null-terminated array of pointers in memory that is never freed.
struct Pointers {
    at: *const *const u8,
    room: usize,
    length: usize,
}

impl Pointers {
    fn with_room(room: usize) -> Answer<Self> {
        let at = raw::map_memory((room + 1) * size_of::<*const u8>())?;
        Ok(Self { at: at.cast::<*const u8>().cast_const(), room, length: 0 })
    }

    fn push(&mut self, text: &CStr) -> Answer<()> {
        if self.length == self.room {
            return Err(Errno::E2BIG);
        }
        // SAFETY: `length < room`, so the place lies in the mapping, which only this value knows.
        unsafe { self.at.cast_mut().add(self.length).write(text.as_ptr().cast()) };
        self.length += 1;
        Ok(())
    }
}

/// A joined text in memory that is never freed.
fn kept_text(pieces: &[&[u8]]) -> Answer<&'static CStr> {
    let length = pieces.iter().map(|piece| piece.len()).sum::<usize>() + 1;
    let at = raw::map_memory(length)?;
    // SAFETY: fresh zeroed memory of `length` bytes that nobody else knows and that is never freed.
    text_in(unsafe { core::slice::from_raw_parts_mut(at, length) }, pieces)
}

/// Clones a child into the namespaces that `flags` asks for; in the child `run` takes over.
/// Answers the child's pid and pidfd.
///
/// # Safety
/// The process must be single-threaded: the child is a copy of it that goes on running its code.
pub unsafe fn spawn(
    flags: u64,
    cgroup: Option<Fd>,
    slot: &Slot,
    run: impl FnOnce() -> u8,
) -> Answer<(i32, Fd)> {
    const SIGCHLD: u64 = 17;
    let mut pidfd: Fd = -1;
    let arguments = CloneArguments {
        flags: flags
            | raw::clone::PIDFD
            | raw::clone::FILES
            | raw::clone::PARENT_SETTID
            | if cgroup.is_some() { raw::clone::INTO_CGROUP } else { 0 },
        pidfd: (&raw mut pidfd) as u64,
        parent_tid: slot.pid.as_ptr() as u64,
        exit_signal: SIGCHLD,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.cast_unsigned())),
        ..CloneArguments::default()
    };
    // SAFETY: no CLONE_VM; `pidfd` and the slot's pid are valid for the kernel's writes; the
    // caller is single-threaded.
    match unsafe { raw::clone3(&arguments) }? {
        0 => raw::exit(i32::from(run())),
        pid => Ok((pid, pidfd)),
    }
}
