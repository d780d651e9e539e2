//! The compact program, the plain one and the profile's meaning agree on every
//! call number of every interface with every argument near a boundary.

use garden_seccomp::{
    Abi, Action, Comparison, Condition, Filter, Profile, Rule, SeccompData, compile, compile_plain,
    emulate, garden_default,
};
use proptest::prelude::*;

const X32_BIT: u32 = 0x4000_0000;

/// One past every number the tables may hold, then some.
const NUMBERS: u32 = 620;

/// Interfaces by `arch` and number bits, whatever the number.
fn numbers() -> impl Iterator<Item = (u32, u32)> {
    let far = [u32::MAX, !X32_BIT, 0x3fff_ffff, 0x8000_0000, 0xbfff_ffff];
    Abi::ALL.into_iter().flat_map(move |abi| {
        let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
        (0..NUMBERS).map(move |nr| nr | bit).chain(far).map(move |nr| (abi.audit_arch(), nr))
    })
}

fn data(arch: u32, nr: u32, args: [u64; 6]) -> SeccompData {
    SeccompData { nr, arch, instruction_pointer: 0x7fff_1234_5678, args }
}

/// Values at and beside each constant of a comparison, in both halves.
fn boundaries(comparison: Comparison) -> Vec<u64> {
    let constants = match comparison {
        Comparison::Eq(v)
        | Comparison::Ne(v)
        | Comparison::Lt(v)
        | Comparison::Le(v)
        | Comparison::Gt(v)
        | Comparison::Ge(v) => vec![v],
        Comparison::MaskedEq { mask, value } => {
            let mut all = vec![mask, value, !mask, !value, mask | value, value & !mask];
            all.extend((0..64).map(|bit| value ^ (1 << bit)));
            all
        }
    };
    let mut values: Vec<u64> = constants
        .into_iter()
        .flat_map(|v| {
            [
                v,
                v.wrapping_add(1),
                v.wrapping_sub(1),
                v ^ (1 << 32),
                v ^ (1 << 31),
                v << 32,
                v >> 32,
            ]
        })
        .chain([0, u64::MAX])
        .collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// All combinations of boundary values of the arguments that any rule looks at.
fn argument_sets(profile: &Profile) -> Vec<[u64; 6]> {
    let mut of_argument = [const { Vec::new() }; 6];
    for condition in profile.rules.iter().flat_map(|rule| &rule.conditions) {
        of_argument[usize::from(condition.argument)].extend(boundaries(condition.comparison));
    }
    let mut sets = vec![[0; 6], [u64::MAX; 6]];
    for (argument, values) in of_argument.iter_mut().enumerate() {
        values.sort_unstable();
        values.dedup();
        let with = |set: &[u64; 6], value| {
            let mut set = *set;
            set[argument] = value;
            set
        };
        let grown: Vec<_> =
            sets.iter().flat_map(|set| values.iter().map(|&v| with(set, v))).collect();
        sets.extend(grown);
    }
    sets
}

fn answer(filter: &Filter, data: &SeccompData) -> Action {
    emulate(filter.insns(), data).unwrap_or_else(|err| panic!("{data:x?}: {err}")).0
}

#[test]
fn garden_default_compact_is_plain_everywhere() {
    let profile = garden_default();
    let (compact, plain) = (profile.compile().unwrap(), compile_plain(&profile).unwrap());
    let sets = argument_sets(&profile);
    assert!(sets.len() > 100, "boundaries were generated");
    for (arch, nr) in numbers() {
        for args in &sets {
            let data = data(arch, nr, *args);
            assert_eq!(answer(&compact, &data), answer(&plain, &data), "{data:x?}");
        }
        for args in [[0; 6], [8; 6], [0x1000_0000; 6], [0xffff_ffff; 6], [u64::MAX; 6]] {
            let data = data(arch, nr, args);
            assert_eq!(answer(&plain, &data), profile.decide(&data), "{data:x?}");
        }
    }
}

#[test]
fn a_foreign_architecture_is_killed() {
    const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
    let filter = garden_default().compile().unwrap();
    for nr in 0..NUMBERS {
        let data = data(AUDIT_ARCH_AARCH64, nr, [0; 6]);
        assert_eq!(answer(&filter, &data), Action::KillProcess);
    }
}

#[test]
fn the_compact_program_is_small_and_shallow() {
    let profile = garden_default();
    let compact = profile.compile().unwrap();
    assert!(compact.insns().len() < 400, "{} instructions", compact.insns().len());
    assert_eq!(compact.bytes().len(), compact.insns().len() * 8);
    let steps: usize = numbers()
        .map(|(arch, nr)| emulate(compact.insns(), &data(arch, nr, [0; 6])).unwrap().1)
        .max()
        .unwrap();
    assert!(steps < 30, "{steps} steps in the worst case");
}

fn comparison() -> impl Strategy<Value = Comparison> {
    let value = prop_oneof![0..4u64, any::<u64>(), any::<u32>().prop_map(u64::from)];
    prop_oneof![
        value.clone().prop_map(Comparison::Eq),
        value.clone().prop_map(Comparison::Ne),
        value.clone().prop_map(Comparison::Lt),
        value.clone().prop_map(Comparison::Le),
        value.clone().prop_map(Comparison::Gt),
        value.clone().prop_map(Comparison::Ge),
        (value.clone(), value).prop_map(|(mask, value)| Comparison::MaskedEq { mask, value }),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let names = prop::sample::subsequence(
        vec!["read", "write", "ioctl", "clone", "socketcall", "mq_notify", "accept", "execve"],
        1..4,
    );
    let condition = (0..2u8, comparison())
        .prop_map(|(argument, comparison)| Condition { argument, comparison });
    (names, prop::collection::vec(condition, 0..3), action()).prop_map(
        |(names, conditions, action)| Rule {
            syscalls: names.into_iter().map(String::from).collect(),
            conditions,
            action,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        (0..4096u16).prop_map(Action::Errno),
        Just(Action::KillProcess)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_profile_compiles_to_its_meaning(
        default in action(),
        unknown in action(),
        rules in prop::collection::vec(rule(), 0..6),
    ) {
        let profile = Profile { default, unknown, rules };
        let (compact, plain) = (compile(&profile).unwrap(), compile_plain(&profile).unwrap());
        let mut args: Vec<u64> = profile
            .rules
            .iter()
            .flat_map(|rule| &rule.conditions)
            .flat_map(|condition| {
                let mut values = boundaries(condition.comparison);
                values.truncate(8);
                values
            })
            .chain([0])
            .collect();
        args.sort_unstable();
        args.dedup();
        for (arch, nr) in numbers() {
            let ruled = profile.rules.iter().any(|rule| {
                rule.syscalls.iter().any(|name| {
                    Abi::ALL.iter().any(|&abi| {
                        abi.audit_arch() == arch && garden_seccomp::syscall_number(abi, name) == Some(nr)
                    })
                })
            });
            let args = if ruled { &args[..] } else { &args[..1] };
            for &first in args {
                let second = args[args.len() / 2];
                let data = data(arch, nr, [first, second, 0, 0, 0, 0]);
                let wanted = answer(&plain, &data);
                prop_assert_eq!(answer(&compact, &data), wanted, "{:x?}", data);
                if ruled {
                    prop_assert_eq!(profile.decide(&data), wanted, "{:x?}", data);
                }
            }
        }
    }
}
