//! What daemon and keeper say to each other: fixed records over a SEQPACKET socket, with the
//! descriptors they speak of.
//!
//! A request is answered once, under the same sequence number; `Ended` comes unasked. Both sides
//! are root and of one depot, but each checks what it reads: a record of another size, an unknown
//! operation or too few descriptors is EPROTO.

/// Operations.
pub mod operation {
    /// Daemon attached: answered with [ledger, rings] and the number of slots; the keeper stops
    /// draining.
    pub const HELLO: u32 = 1;
    /// Clone a container's process 1 and park it: [control, cgroup?, join files...].
    pub const PARK: u32 = 2;
    /// Clone a process in a container, see [`super::launch_descriptor`].
    pub const LAUNCH: u32 = 3;
    /// Forget an ended child.
    pub const RELEASE: u32 = 4;
    /// Ask for duplicates of a child's kept descriptors.
    pub const TAKE: u32 = 5;
    /// The rings of a child have been read: empty them.
    pub const EMPTY: u32 = 6;
    /// Replace keeper and anchor by the program in the descriptor, under the same pids.
    pub const UPGRADE: u32 = 7;
    /// Close the supervisor's ends of a child's stdin.
    pub const END_INPUT: u32 = 8;
    /// SIGKILL a child.
    pub const KILL: u32 = 9;
    /// The supervisor ends with this daemon's connection, unless there are children or another
    /// daemon then.
    pub const LEAVE: u32 = 10;
    /// As LAUNCH, of a process that builds a root of its own and shares the container's other
    /// namespaces. A request of its own, so that a keeper of an older build refuses it.
    pub const LAUNCH_PEA: u32 = 11;
    /// Keeper to daemon: a child has ended.
    pub const ENDED: u32 = 100;
}

/// Bits of [`Message::flags`].
pub mod flag {
    /// The container shares the host's user namespace.
    pub const PRIVILEGED: u32 = 1;
    /// A cgroup v2 directory to be born in comes along.
    pub const CGROUP: u32 = 2;
    /// Standard streams are a terminal; its master is the only kept stream.
    pub const TERMINAL: u32 = 4;
    /// An executable comes along, to be run instead of a path.
    pub const IMAGE: u32 = 8;
    /// In `ENDED`: nobody knows how.
    pub const LOST: u32 = 16;
}

/// Order of the descriptors of a LAUNCH. Kept streams follow (one with a terminal, else three),
/// then the cgroup and the executable where their flags say so, of a LAUNCH_PEA the socket in which
/// the root's plan waits, then the join files.
pub mod launch_descriptor {
    /// pidfd of the container's process 1.
    pub const INIT: usize = 0;
    /// The plan, see `plan`.
    pub const PLAN: usize = 1;
    /// What becomes descriptors 0, 1, 2.
    pub const STANDARD: usize = 2;
    /// Write end of the result pipe.
    pub const RESULT: usize = 5;
    /// First kept stream.
    pub const KEPT: usize = 6;
}

/// Most v1 cgroup files that a child joins by.
pub const MOST_JOINS: usize = 9;

/// A request, an answer or an event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// See [`operation`]; an answer repeats it.
    pub operation: u32,
    /// See [`flag`].
    pub flags: u32,
    /// Names the child.
    pub ticket: u64,
    /// Chosen by the daemon, repeated in the answer; 0 in events.
    pub sequence: u64,
    /// Answers: 0 or the errno.
    pub errno: i32,
    /// Answers: the child's pid as the keeper sees it.
    pub pid: i32,
    /// Answers: the child's slot, or (HELLO) the number of slots.
    pub slot: u32,
    /// Events: exit code or 128 + signal.
    pub status: i32,
}

/// Bytes of a [`Message`].
pub const MESSAGE: usize = 40;

impl Message {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; MESSAGE] {
        let mut bytes = [0; MESSAGE];
        bytes[0..4].copy_from_slice(&self.operation.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.ticket.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.errno.to_ne_bytes());
        bytes[28..32].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[32..36].copy_from_slice(&self.slot.to_ne_bytes());
        bytes[36..40].copy_from_slice(&self.status.to_ne_bytes());
        bytes
    }

    /// Reads a record; `None` when the size is wrong.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; MESSAGE] = bytes.try_into().ok()?;
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let long = |at: usize| {
            let mut out = [0; 8];
            out.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(out)
        };
        Some(Self {
            operation: u32::from_ne_bytes(word(0)),
            flags: u32::from_ne_bytes(word(4)),
            ticket: long(8),
            sequence: long(16),
            errno: i32::from_ne_bytes(word(24)),
            pid: i32::from_ne_bytes(word(28)),
            slot: u32::from_ne_bytes(word(32)),
            status: i32::from_ne_bytes(word(36)),
        })
    }
}

/// Where a launch failed. Written with the errno to the result pipe, which is otherwise closed
/// empty by execve(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Leaving the keeper's descriptors behind.
    Descriptors = 1,
    /// Joining the container's cgroups.
    Cgroup = 2,
    /// Reading the plan.
    Plan = 3,
    /// Setting a resource limit; `detail` is the resource.
    Rlimit = 4,
    /// Joining the container's namespaces.
    Namespaces = 5,
    /// Finding the user: no such user.
    User = 6,
    /// Finding the group: no such group.
    Group = 7,
    /// Becoming the user.
    Credentials = 8,
    /// The working directory.
    Directory = 9,
    /// The seccomp filter.
    Seccomp = 10,
    /// Capabilities.
    Capabilities = 11,
    /// The executable was not found in `$PATH`.
    PathSearch = 12,
    /// execve(2) itself.
    Execute = 13,
    /// Making the terminal the controlling one.
    Terminal = 14,
    /// Building a root: mounting; `detail` is the index of the step in its plan.
    Mount = 15,
    /// Building a root: having its plan, or leaving the old root.
    Root = 16,
    /// Process 1: naming the host.
    Hostname = 17,
    /// Choosing the AppArmor profile.
    AppArmor = 18,
}

impl Step {
    /// The step of a number in a result record.
    pub fn from_word(word: u32) -> Option<Self> {
        const ALL: [Step; 18] = [
            Step::Descriptors,
            Step::Cgroup,
            Step::Plan,
            Step::Rlimit,
            Step::Namespaces,
            Step::User,
            Step::Group,
            Step::Credentials,
            Step::Directory,
            Step::Seccomp,
            Step::Capabilities,
            Step::PathSearch,
            Step::Execute,
            Step::Terminal,
            Step::Mount,
            Step::Root,
            Step::Hostname,
            Step::AppArmor,
        ];
        ALL.into_iter().find(|step| *step as u32 == word)
    }
}

/// Bytes of a result record: step, errno, detail.
pub const RESULT: usize = 12;

/// A result record.
pub fn encode_result(step: Step, errno: i32, detail: u32) -> [u8; RESULT] {
    let mut bytes = [0; RESULT];
    bytes[0..4].copy_from_slice(&(step as u32).to_ne_bytes());
    bytes[4..8].copy_from_slice(&errno.to_ne_bytes());
    bytes[8..12].copy_from_slice(&detail.to_ne_bytes());
    bytes
}

/// Step, errno and detail of a record; `None` for one that no launch writes.
pub fn decode_result(bytes: &[u8]) -> Option<(Step, i32, u32)> {
    let bytes: &[u8; RESULT] = bytes.try_into().ok()?;
    let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    let step = Step::from_word(u32::from_ne_bytes(word(0)))?;
    Some((step, i32::from_ne_bytes(word(4)), u32::from_ne_bytes(word(8))))
}
