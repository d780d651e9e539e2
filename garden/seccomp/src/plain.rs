//! The program a reader can check: one test per call, in order of numbers.

use crate::abi::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, Abi, X32_BIT};
use crate::bpf::{ARCH, BpfInsn, Filter, NR, Test};
use crate::clause::decisions;
use crate::profile::{Action, Error, Profile};

/// Compiles call by call. Too long to be loaded for every process (the kernel
/// runs it for each number when it is installed), but plain enough to check
/// [`compile`](crate::compile) against.
pub fn compile_plain(profile: &Profile) -> Result<Filter, Error> {
    profile.check()?;
    let x86_64 = interface(profile, Abi::X86_64)?;
    let x32 = interface(profile, Abi::X32)?;
    let i386 = interface(profile, Abi::I386)?;

    let mut code = vec![
        BpfInsn::load(ARCH),
        BpfInsn::branch(Test::Equal, AUDIT_ARCH_X86_64, 2, 0),
        BpfInsn::branch(Test::Equal, AUDIT_ARCH_I386, 3, 0),
        BpfInsn::ret(Action::KillProcess),
        BpfInsn::load(NR),
        BpfInsn::branch(Test::AnyBit, X32_BIT, 1, 2),
        BpfInsn::jump(distance(2 + x86_64.len() + x32.len())?),
        BpfInsn::jump(distance(x86_64.len())?),
    ];
    code.extend(x86_64);
    code.push(BpfInsn::and(!X32_BIT));
    code.extend(x32);
    code.push(BpfInsn::load(NR));
    code.extend(i386);
    let len = code.len();
    Filter::new(code).ok_or(Error::TooLong(len))
}

fn interface(profile: &Profile, abi: Abi) -> Result<Vec<BpfInsn>, Error> {
    let mut code = Vec::new();
    for (nr, decision) in decisions(profile, abi) {
        let block = decision.code()?;
        let over = u8::try_from(block.len()).map_err(|_| Error::RuleTooLong)?;
        code.push(BpfInsn::branch(Test::Equal, nr, 0, over));
        code.extend(block);
    }
    code.push(BpfInsn::ret(profile.unknown));
    Ok(code)
}

fn distance(insns: usize) -> Result<u32, Error> {
    u32::try_from(insns).map_err(|_| Error::TooLong(insns))
}
