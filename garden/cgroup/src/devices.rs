//! Which devices the processes of a slot may open and make.
//!
//! A filter is a list of what is allowed. It becomes a BPF program on the slot's
//! v2 directory, on hybrid hosts too, so that it holds from a process's birth;
//! where the kernel takes no such programs, it becomes the lists of v1's devices
//! controller.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use garden_sys::bpf::DeviceProgram;

use crate::directory::Directory;
use crate::error::Error;

/// What kind of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Both.
    Any,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// What is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceAccess {
    /// open(2) for reading.
    pub read: bool,
    /// open(2) for writing.
    pub write: bool,
    /// mknod(2).
    pub mknod: bool,
}

/// Something that is allowed. Displayed and parsed as in v1's `devices.allow`:
/// `c 1:3 rwm`, `b *:* m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    /// Which nodes.
    pub kind: DeviceKind,
    /// `None` for all.
    pub major: Option<u32>,
    /// `None` for all.
    pub minor: Option<u32>,
    /// An access is allowed if one rule covers all of it.
    pub access: DeviceAccess,
}

/// Why text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no device rule like \"c 10:200 rwm\"")]
pub struct BadRule(String);

/// What Garden allows every container: mknod(2) of anything, and the use of
/// null, zero, full, random, urandom, tty, ptys, tun and fuse.
pub fn garden_default_devices() -> Vec<DeviceRule> {
    let mknod = DeviceAccess { read: false, write: false, mknod: true };
    let all = DeviceAccess { read: true, write: true, mknod: true };
    let any = DeviceRule { kind: DeviceKind::Any, major: None, minor: None, access: mknod };
    let used = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(2)),
        (136, None),
        (10, Some(200)),
        (10, Some(229)),
    ];
    std::iter::once(any)
        .chain(used.map(|(major, minor)| DeviceRule {
            kind: DeviceKind::Char,
            major: Some(major),
            minor,
            access: all,
        }))
        .collect()
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            DeviceKind::Any => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (set, letter) in
            [(self.access.read, "r"), (self.access.write, "w"), (self.access.mknod, "m")]
        {
            f.write_str(if set { letter } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for DeviceRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        parse(text).ok_or_else(|| BadRule(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<DeviceRule> {
    let mut words = text.split_ascii_whitespace();
    let kind = match words.next()? {
        "a" => DeviceKind::Any,
        "b" => DeviceKind::Block,
        "c" => DeviceKind::Char,
        _ => return None,
    };
    let number = |digits: &str, max: u32| match digits {
        "*" => Some(None),
        _ if !digits.bytes().all(|byte| byte.is_ascii_digit()) => None,
        _ => digits.parse().ok().filter(|&number| number <= max).map(Some),
    };
    let (major, minor) = words.next()?.split_once(':')?;
    let letters = words.next()?;
    let rule = DeviceRule {
        kind,
        major: number(major, MAX_MAJOR)?,
        minor: number(minor, MAX_MINOR)?,
        access: DeviceAccess {
            read: letters.contains('r'),
            write: letters.contains('w'),
            mknod: letters.contains('m'),
        },
    };
    let known = letters.bytes().all(|letter| b"rwm".contains(&letter));
    (known && words.next().is_none()).then_some(rule)
}

/// A `dev_t` of the kernel has 12 and 20 bits.
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;

/// A filter ready for any number of slots.
#[derive(Debug)]
pub struct DeviceFilter {
    rules: Vec<DeviceRule>,
    program: Option<DeviceProgram>,
}

impl DeviceFilter {
    /// Prepares a filter that allows what the rules say and nothing else.
    pub fn new(rules: Vec<DeviceRule>) -> Result<Self, Error> {
        let program = match DeviceProgram::load(&compile(&rules)) {
            Ok(program) => Some(program),
            Err(_) if !kernel_takes_filters() => None,
            Err(source) => return Err(Error::Devices { action: "load", source }),
        };
        Ok(Self { rules, program })
    }

    /// The new program is on before the old ones are off, so that there is no
    /// moment without any.
    pub(crate) fn apply(
        &self,
        cgroup: BorrowedFd<'_>,
        v1: Option<&Directory>,
    ) -> Result<(), Error> {
        let failed = |action| move |source| Error::Devices { action, source };
        if let Some(program) = &self.program {
            let old = DeviceProgram::attached(cgroup).map_err(failed("look for"))?;
            program.attach(cgroup).map_err(failed("attach"))?;
            return old.iter().try_for_each(|old| old.detach(cgroup)).map_err(failed("detach"));
        }
        let lists = v1.ok_or_else(|| failed("attach")(std::io::ErrorKind::Unsupported.into()))?;
        lists.write("devices.deny", "a")?;
        self.rules.iter().try_for_each(|rule| lists.write("devices.allow", &rule.to_string()))
    }
}

pub(crate) fn kernel_takes_filters() -> bool {
    DeviceProgram::load(&[insn(MOV64, 0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)]).is_ok()
}

/// `BPF_DEVCG_*` (`linux/bpf.h`).
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// `BPF_LDX | BPF_MEM | BPF_W`
const LDX: u8 = 0x61;
/// `BPF_ALU | BPF_AND | BPF_K`
const AND: u8 = 0x54;
/// `BPF_ALU | BPF_RSH | BPF_K`
const RSH: u8 = 0x74;
/// `BPF_ALU | BPF_MOV | BPF_X`
const MOV: u8 = 0xbc;
/// `BPF_ALU64 | BPF_MOV | BPF_K`
const MOV64: u8 = 0xb7;
/// `BPF_JMP | BPF_JNE | BPF_K`
const JNE: u8 = 0x55;
/// `BPF_JMP | BPF_EXIT`
const EXIT: u8 = 0x95;

fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let [o0, o1] = offset.to_ne_bytes();
    let [i0, i1, i2, i3] = immediate.to_ne_bytes();
    [code, src << 4 | dst, o0, o1, i0, i1, i2, i3]
}

/// A program on `struct bpf_cgroup_dev_ctx` that returns 1 to allow.
///
/// r1 is the context and then scratch; r2 is the kind, r3 the access, r4 major,
/// r5 minor.
fn compile(rules: &[DeviceRule]) -> Vec<[u8; 8]> {
    let mut program = vec![
        insn(LDX, 2, 1, 0, 0),
        insn(AND, 2, 0, 0, 0xffff),
        insn(LDX, 3, 1, 0, 0),
        insn(RSH, 3, 0, 0, 16),
        insn(LDX, 4, 1, 4, 0),
        insn(LDX, 5, 1, 8, 0),
    ];
    for rule in rules {
        let tests = tests(rule);
        let unconditional = tests.is_empty();
        program.extend(tests);
        program.extend([insn(MOV64, 0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)]);
        if unconditional {
            // The verifier refuses instructions that cannot be reached.
            return program;
        }
    }
    program.extend([insn(MOV64, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    program
}

/// Instructions that pass over the two of "allow" unless the rule covers all.
fn tests(rule: &DeviceRule) -> Vec<[u8; 8]> {
    let refused =
        [(rule.access.mknod, MKNOD), (rule.access.read, READ), (rule.access.write, WRITE)]
            .into_iter()
            .filter(|&(allowed, _)| !allowed)
            .fold(0, |bits, (_, bit)| bits | bit);
    let kind = match rule.kind {
        DeviceKind::Any => None,
        DeviceKind::Block => Some(BLOCK),
        DeviceKind::Char => Some(CHAR),
    };
    // Out of range, a number matches no device, as -1 does not.
    let operand = |number: Option<u32>| number.map(|n| i32::try_from(n).unwrap_or(-1));
    let comparisons = [
        kind.map(|kind| (2, kind)),
        (refused != 0).then_some((1, 0)),
        operand(rule.major).map(|major| (4, major)),
        operand(rule.minor).map(|minor| (5, minor)),
    ];
    let mut left = comparisons.iter().flatten().count();
    let mut code = Vec::new();
    for (register, value) in comparisons.into_iter().flatten() {
        if register == 1 {
            code.extend([insn(MOV, 1, 3, 0, 0), insn(AND, 1, 0, 0, refused)]);
        }
        left -= 1;
        // Two instructions before the register 1 test, if that is still to come.
        let masks = if register == 2 && refused != 0 { 2 } else { 0 };
        let skip = i16::try_from(left + masks + 2).unwrap_or(i16::MAX);
        code.push(insn(JNE, register, 0, skip, value));
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<DeviceRule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Runs a program as the kernel would; registers start as garbage.
    fn run(program: &[[u8; 8]], kind: i32, access: i32, major: u32, minor: u32) -> u64 {
        let context = [(access << 16 | kind).cast_unsigned(), major, minor];
        let mut registers = [u64::MAX; 11];
        let mut at = 0usize;
        loop {
            let [code, operands, o0, o1, i0, i1, i2, i3] = program[at];
            let (dst, src) = (usize::from(operands & 15), usize::from(operands >> 4));
            let offset = i16::from_ne_bytes([o0, o1]);
            let immediate = i32::from_ne_bytes([i0, i1, i2, i3]);
            let extended = i64::from(immediate).cast_unsigned();
            let low = |value: u64| value & u64::from(u32::MAX);
            at += 1;
            match code {
                LDX => registers[dst] = context[usize::try_from(offset / 4).unwrap()].into(),
                AND => registers[dst] = low(registers[dst] & extended),
                RSH => registers[dst] = low(registers[dst]) >> immediate,
                MOV => registers[dst] = low(registers[src]),
                MOV64 => registers[dst] = extended,
                JNE if registers[dst] != extended => at += usize::try_from(offset).unwrap(),
                JNE => {}
                EXIT => return registers[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn covers(rule: &DeviceRule, kind: i32, access: i32, major: u32, minor: u32) -> bool {
        let kind_fits = match rule.kind {
            DeviceKind::Any => true,
            DeviceKind::Block => kind == BLOCK,
            DeviceKind::Char => kind == CHAR,
        };
        kind_fits
            && rule.major.is_none_or(|wanted| wanted == major)
            && rule.minor.is_none_or(|wanted| wanted == minor)
            && (rule.access.read || access & READ == 0)
            && (rule.access.write || access & WRITE == 0)
            && (rule.access.mknod || access & MKNOD == 0)
    }

    #[test]
    fn programs_decide_as_their_rules() {
        let lists = [
            vec![],
            garden_default_devices(),
            rules(&["a *:* rwm"]),
            rules(&["c *:* r", "b 8:* rw", "b *:1 m", "c 4095:1048575 rwm", "a 1:3 w"]),
            rules(&["c 1:3 r", "a *:* rwm", "c 1:5 r"]),
            rules(&["b *:* rwm", "c 5:* rwm"]),
        ];
        for list in lists {
            let program = compile(&list);
            for (kind, access) in
                [BLOCK, CHAR].into_iter().flat_map(|k| (1..8).map(move |a| (k, a)))
            {
                for major in [0, 1, 5, 8, 10, 136, 137, 4095] {
                    for minor in [0, 1, 3, 5, 9, 200, 229, 1_048_575] {
                        let wanted =
                            list.iter().any(|rule| covers(rule, kind, access, major, minor));
                        assert_eq!(
                            run(&program, kind, access, major, minor),
                            u64::from(wanted),
                            "kind {kind} access {access} {major}:{minor} of {list:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rules_read_as_they_print() {
        for text in ["c 1:3 rwm", "b *:* m", "a *:5 r", "c 136:* rw"] {
            assert_eq!(text.parse::<DeviceRule>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "a",
            "c",
            "c 1:3",
            "c 1 rwm",
            "x 1:3 r",
            "c 1:3 x",
            "c -1:3 r",
            "c 1:3 r extra",
            "c 4096:0 r",
            "c 0:1048576 r",
            "c +1:1 r",
            "c :1 r",
        ] {
            assert!(text.parse::<DeviceRule>().is_err(), "{text:?}");
        }
    }
}
