//! What a container may ask of the kernel, as data.
//!
//! [`Profile::decide`] is the meaning of a profile; the compilers are held to it.

use crate::abi::{Abi, is_syscall};
use crate::bpf::{Filter, SeccompData};

/// `SECCOMP_RET_*` (`linux/seccomp.h`).
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The kernel performs it.
    Allow,
    /// It fails with this errno and has no effect.
    Errno(u16),
    /// The whole process dies of SIGSYS.
    KillProcess,
}

impl Action {
    pub(crate) fn to_kernel(self) -> u32 {
        match self {
            Self::Allow => RET_ALLOW,
            Self::Errno(errno) => RET_ERRNO | u32::from(errno),
            Self::KillProcess => RET_KILL_PROCESS,
        }
    }

    pub(crate) fn from_kernel(value: u32) -> Option<Self> {
        match (value & 0xffff_0000, u16::try_from(value & 0xffff)) {
            (RET_ALLOW, Ok(0)) => Some(Self::Allow),
            (RET_ERRNO, Ok(errno)) => Some(Self::Errno(errno)),
            (RET_KILL_PROCESS, Ok(0)) => Some(Self::KillProcess),
            _ => None,
        }
    }
}

/// A test of one argument, always of all 64 bits.
///
/// The kernel itself looks only at the lower 32 bits of many arguments (an
/// `int` domain, an `unsigned int` ioctl request). A rule that *refuses* a value
/// of such an argument has to mask the upper half away, or a caller puts noise
/// there and walks past it (CVE-2017-5226's first fix failed so).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// What has to hold.
    pub comparison: Comparison,
}

/// Unsigned comparisons of an argument with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Equal.
    Eq(u64),
    /// Not equal.
    Ne(u64),
    /// Less.
    Lt(u64),
    /// Less or equal.
    Le(u64),
    /// Greater.
    Gt(u64),
    /// Greater or equal.
    Ge(u64),
    /// `argument & mask == value`.
    MaskedEq {
        /// The bits looked at.
        mask: u64,
        /// What they have to be.
        value: u64,
    },
}

impl Condition {
    fn holds(self, args: &[u64; 6]) -> bool {
        let argument = args[usize::from(self.argument)];
        match self.comparison {
            Comparison::Eq(value) => argument == value,
            Comparison::Ne(value) => argument != value,
            Comparison::Lt(value) => argument < value,
            Comparison::Le(value) => argument <= value,
            Comparison::Gt(value) => argument > value,
            Comparison::Ge(value) => argument >= value,
            Comparison::MaskedEq { mask, value } => argument & mask == value,
        }
    }
}

/// What to do with some calls when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Names as in the kernel's tables. A call that only some of the three
    /// interfaces have is ruled where it exists.
    pub syscalls: Vec<String>,
    /// Empty means always.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub action: Action,
}

/// A whole policy. The first rule that names the call and whose conditions all
/// hold decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// For calls of the tables that no rule decides.
    pub default: Action,
    /// For numbers that name no call in the tables: newer than they are, or
    /// never given out. libc takes `ENOSYS` as "use the older call" and
    /// anything else as a failure of the newer one.
    pub unknown: Action,
    /// In order of precedence.
    pub rules: Vec<Rule>,
}

/// Why a profile cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A misspelt call would otherwise silently stay forbidden or allowed.
    #[error("no x86 interface has a system call named {0:?}")]
    UnknownSyscall(String),
    /// Calls have six arguments.
    #[error("a rule for {syscall:?} looks at argument {argument}, the last is 5")]
    NoSuchArgument {
        /// First call of the rule.
        syscall: String,
        /// What the rule says.
        argument: u8,
    },
    /// `MAX_ERRNO`; the kernel would cut a larger one.
    #[error("errno {0} is not between 0 and 4095")]
    NoSuchErrno(u16),
    /// The kernel takes 4096 instructions.
    #[error("the program would have {0} instructions, the kernel takes 4096")]
    TooLong(usize),
    /// One call has so many conditions that a conditional jump cannot pass over them.
    #[error("too many conditions in one rule")]
    RuleTooLong,
}

impl Profile {
    /// What becomes of a call. A foreign architecture is always killed: no
    /// x86-64 kernel reports one.
    pub fn decide(&self, data: &SeccompData) -> Action {
        let Some((abi, nr)) = Abi::of(data.arch, data.nr) else { return Action::KillProcess };
        let Some((_, name)) = abi.calls().into_iter().find(|call| call.0 == nr) else {
            return self.unknown;
        };
        self.rules
            .iter()
            .filter(|rule| rule.syscalls.iter().any(|syscall| syscall == name))
            .find(|rule| rule.conditions.iter().all(|condition| condition.holds(&data.args)))
            .map_or(self.default, |rule| rule.action)
    }

    /// The program to load; see [`compile`](crate::compile).
    pub fn compile(&self) -> Result<Filter, Error> {
        crate::compact::compile(self)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let actions = self.rules.iter().map(|rule| rule.action);
        for action in actions.chain([self.default, self.unknown]) {
            if let Action::Errno(errno @ 4096..) = action {
                return Err(Error::NoSuchErrno(errno));
            }
        }
        for rule in &self.rules {
            if let Some(name) = rule.syscalls.iter().find(|name| !is_syscall(name)) {
                return Err(Error::UnknownSyscall(name.clone()));
            }
            if let Some(condition) = rule.conditions.iter().find(|c| c.argument > 5) {
                return Err(Error::NoSuchArgument {
                    syscall: rule.syscalls.first().cloned().unwrap_or_default(),
                    argument: condition.argument,
                });
            }
        }
        Ok(())
    }
}
