//! Classic BPF as seccomp accepts it: instructions, a finished program, and an
//! interpreter that answers as the kernel would.

use crate::profile::Action;

/// `seccomp_data` of seccomp(2): what a filter sees of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeccompData {
    /// The number, with bit 30 for x32.
    pub nr: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Where the call was made; Garden's profiles do not look at it.
    pub instruction_pointer: u64,
    /// The six argument registers; the upper halves are zero for i386.
    pub args: [u64; 6],
}

/// One `struct sock_filter` (`linux/filter.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfInsn {
    /// Class, size and operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// `BPF_LD | BPF_W | BPF_ABS`
const LD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`
const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`
const JA: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`
const JEQ: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`
const JGT: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`
const JGE: u16 = 0x35;
/// `BPF_JMP | BPF_JSET | BPF_K`
const JSET: u16 = 0x45;
/// `BPF_RET | BPF_K`
const RET: u16 = 0x06;

/// Offset of `seccomp_data.nr`.
pub(crate) const NR: u32 = 0;
/// Offset of `seccomp_data.arch`.
pub(crate) const ARCH: u32 = 4;

/// Offset of the lower half of an argument on a little-endian machine; the
/// upper half follows it.
pub(crate) fn argument_offset(argument: u8) -> u32 {
    16 + 8 * u32::from(argument)
}

/// The comparisons a conditional jump can make with its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

impl BpfInsn {
    pub(crate) fn load(offset: u32) -> Self {
        Self { code: LD, jt: 0, jf: 0, k: offset }
    }

    pub(crate) fn and(mask: u32) -> Self {
        Self { code: AND, jt: 0, jf: 0, k: mask }
    }

    pub(crate) fn jump(skip: u32) -> Self {
        Self { code: JA, jt: 0, jf: 0, k: skip }
    }

    pub(crate) fn branch(test: Test, k: u32, jt: u8, jf: u8) -> Self {
        let code = match test {
            Test::Equal => JEQ,
            Test::Greater => JGT,
            Test::GreaterOrEqual => JGE,
            Test::AnyBit => JSET,
        };
        Self { code, jt, jf, k }
    }

    pub(crate) fn ret(action: Action) -> Self {
        Self { code: RET, jt: 0, jf: 0, k: action.to_kernel() }
    }

    pub(crate) fn is_return(self) -> bool {
        self.code == RET
    }

    fn to_bytes(self) -> [u8; 8] {
        let [c0, c1] = self.code.to_ne_bytes();
        let [k0, k1, k2, k3] = self.k.to_ne_bytes();
        [c0, c1, self.jt, self.jf, k0, k1, k2, k3]
    }
}

/// A program the kernel will accept: at most 4096 instructions, every jump
/// inside it, a return at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    insns: Vec<BpfInsn>,
}

impl Filter {
    /// `BPF_MAXINSNS` (`linux/bpf_common.h`).
    pub const MAX_LEN: usize = 4096;

    /// `None` if the program is longer than the kernel takes.
    pub(crate) fn new(insns: Vec<BpfInsn>) -> Option<Self> {
        (insns.len() <= Self::MAX_LEN).then_some(Self { insns })
    }

    /// The program.
    pub fn insns(&self) -> &[BpfInsn] {
        &self.insns
    }

    /// The program as `struct sock_filter[]`, eight bytes each in this
    /// machine's byte order: what `sock_fprog.filter` points at.
    pub fn bytes(&self) -> Vec<u8> {
        self.insns.iter().flat_map(|insn| insn.to_bytes()).collect()
    }
}

/// Why a program has no answer; the kernel would have refused to load it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Control left the program.
    #[error("instruction {at} is outside the program")]
    OutOfProgram {
        /// Index of the missing instruction.
        at: usize,
    },
    /// An operation, load offset or return value no Garden filter has.
    #[error("instruction {at} is not one that seccomp filters here use")]
    UnknownInstruction {
        /// Its index.
        at: usize,
    },
}

/// What the kernel would do with a call, and how many instructions it would
/// execute to find out.
pub fn emulate(program: &[BpfInsn], data: &SeccompData) -> Result<(Action, usize), Malformed> {
    let mut accumulator = 0u32;
    let mut at = 0usize;
    for steps in 1.. {
        let insn = program.get(at).ok_or(Malformed::OutOfProgram { at })?;
        let unknown = Malformed::UnknownInstruction { at };
        at += 1;
        let holds = match insn.code {
            LD => {
                accumulator = load(data, insn.k).ok_or(unknown)?;
                continue;
            }
            AND => {
                accumulator &= insn.k;
                continue;
            }
            JA => {
                at += usize::try_from(insn.k).map_err(|_| unknown)?;
                continue;
            }
            RET => return Ok((Action::from_kernel(insn.k).ok_or(unknown)?, steps)),
            JEQ => accumulator == insn.k,
            JGT => accumulator > insn.k,
            JGE => accumulator >= insn.k,
            JSET => accumulator & insn.k != 0,
            _ => return Err(unknown),
        };
        at += usize::from(if holds { insn.jt } else { insn.jf });
    }
    Err(Malformed::OutOfProgram { at })
}

fn load(data: &SeccompData, offset: u32) -> Option<u32> {
    let halves = |value: u64| {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
    };
    let word = usize::try_from(offset / 4).ok().filter(|_| offset.is_multiple_of(4))?;
    match word {
        0 => Some(data.nr),
        1 => Some(data.arch),
        2 | 3 => Some(halves(data.instruction_pointer)[word - 2]),
        _ => data.args.get((word - 4) / 2).map(|&arg| halves(arg)[word % 2]),
    }
}
