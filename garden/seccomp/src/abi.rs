//! The three system call interfaces an x86-64 kernel offers to one process.

use crate::table::{ABSENT, SYSCALLS};

/// Set in the number of every x32 call (`__X32_SYSCALL_BIT`, `asm/unistd.h`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// `AUDIT_ARCH_X86_64` (`linux/audit.h`); x32 shares it.
pub(crate) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// `AUDIT_ARCH_I386` (`linux/audit.h`).
pub(crate) const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// A system call interface. Any process may use all three, whatever it was
/// built for, so a filter that forgets one has a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    /// 64-bit calls of x86-64.
    X86_64,
    /// 32-bit pointers on x86-64; its numbers carry bit 30.
    X32,
    /// 32-bit calls (`int 0x80`, `sysenter`).
    I386,
}

impl Abi {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::X32, Self::I386];

    /// The interface a call came through and its number without the x32 bit;
    /// `None` for an architecture no x86-64 kernel reports.
    pub(crate) fn of(arch: u32, nr: u32) -> Option<(Self, u32)> {
        match arch {
            AUDIT_ARCH_X86_64 if nr & X32_BIT != 0 => Some((Self::X32, nr & !X32_BIT)),
            AUDIT_ARCH_X86_64 => Some((Self::X86_64, nr)),
            AUDIT_ARCH_I386 => Some((Self::I386, nr)),
            _ => None,
        }
    }

    /// The value of `seccomp_data.arch` for calls of this interface.
    pub fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => AUDIT_ARCH_X86_64,
            Self::I386 => AUDIT_ARCH_I386,
        }
    }

    /// Every call of this interface, as (number without the x32 bit, name), by
    /// number.
    pub(crate) fn calls(self) -> Vec<(u32, &'static str)> {
        let mut calls: Vec<_> = SYSCALLS
            .iter()
            .map(|&(name, x86_64, x32, i386)| match self {
                Self::X86_64 => (x86_64, name),
                Self::X32 => (x32, name),
                Self::I386 => (i386, name),
            })
            .filter(|&(nr, _)| nr != ABSENT)
            .map(|(nr, name)| (u32::from(nr), name))
            .collect();
        calls.sort_unstable();
        calls
    }
}

/// The number of a call as `seccomp_data.nr` shows it (x32 numbers with their
/// bit 30), or `None` where the interface lacks the call.
pub fn syscall_number(abi: Abi, name: &str) -> Option<u32> {
    let row = SYSCALLS.binary_search_by_key(&name, |row| row.0).ok()?;
    let (_, x86_64, x32, i386) = SYSCALLS[row];
    let (nr, bit) = match abi {
        Abi::X86_64 => (x86_64, 0),
        Abi::X32 => (x32, X32_BIT),
        Abi::I386 => (i386, 0),
    };
    (nr != ABSENT).then_some(u32::from(nr) | bit)
}

/// Whether any of the three interfaces has a call of this name.
pub(crate) fn is_syscall(name: &str) -> bool {
    SYSCALLS.binary_search_by_key(&name, |row| row.0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_unambiguous() {
        assert!(SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
        for abi in Abi::ALL {
            assert!(abi.calls().is_sorted_by(|a, b| a.0 < b.0), "{abi:?}: one number, one name");
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        for (name, x86_64, x32, i386) in [
            ("read", Some(0), Some(X32_BIT), Some(3)),
            ("ioctl", Some(16), Some(X32_BIT | 514), Some(54)),
            ("accept", Some(43), Some(X32_BIT | 43), None),
            ("socketcall", None, None, Some(102)),
            ("clone3", Some(435), Some(X32_BIT | 435), Some(435)),
            ("mseal", Some(462), Some(X32_BIT | 462), Some(462)),
            ("uretprobe", Some(335), None, None),
            ("no_such_call", None, None, None),
        ] {
            assert_eq!(syscall_number(Abi::X86_64, name), x86_64, "{name}");
            assert_eq!(syscall_number(Abi::X32, name), x32, "{name}");
            assert_eq!(syscall_number(Abi::I386, name), i386, "{name}");
        }
    }
}
