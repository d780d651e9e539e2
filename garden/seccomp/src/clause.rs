//! A profile seen from one call: its clauses in order, and their instructions.

use std::collections::HashMap;

use crate::abi::Abi;
use crate::bpf::{BpfInsn, Test, argument_offset};
use crate::profile::{Action, Comparison, Condition, Error, Profile};

/// What a filter does once it knows the call: the first clause whose conditions
/// hold decides, else `otherwise`. No clauses means that arguments do not matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Decision {
    clauses: Vec<(Vec<Condition>, Action)>,
    otherwise: Action,
}

impl Decision {
    pub(crate) fn always(action: Action) -> Self {
        Self { clauses: Vec::new(), otherwise: action }
    }

    /// Instructions that end in a return on every path.
    pub(crate) fn code(&self) -> Result<Vec<BpfInsn>, Error> {
        let mut code = Vec::new();
        for (conditions, action) in &self.clauses {
            code.extend(clause_code(conditions, *action)?);
        }
        code.push(BpfInsn::ret(self.otherwise));
        Ok(code)
    }
}

/// The decision on every call of an interface, by number; calls that no rule
/// names are left out.
pub(crate) fn decisions(profile: &Profile, abi: Abi) -> Vec<(u32, Decision)> {
    let mut by_name: HashMap<&str, Vec<(&[Condition], Action)>> = HashMap::new();
    for rule in &profile.rules {
        for name in &rule.syscalls {
            by_name.entry(name).or_default().push((&rule.conditions, rule.action));
        }
    }
    abi.calls()
        .into_iter()
        .map(|(nr, name)| {
            let rules = by_name.get(name).map_or(&[][..], Vec::as_slice);
            (nr, decision(rules, profile.default))
        })
        .collect()
}

fn decision(rules: &[(&[Condition], Action)], default: Action) -> Decision {
    let unconditional = rules.iter().position(|(conditions, _)| conditions.is_empty());
    let otherwise = unconditional.map_or(default, |at| rules[at].1);
    let mut clauses: Vec<_> = rules[..unconditional.unwrap_or(rules.len())]
        .iter()
        .map(|(conditions, action)| (conditions.to_vec(), *action))
        .collect();
    while clauses.pop_if(|(_, action)| *action == otherwise).is_some() {}
    Decision { clauses, otherwise }
}

/// Where a comparison leads: on, over some instructions of the same condition,
/// or out of the clause.
#[derive(Clone, Copy)]
enum Then {
    Next,
    Skip(u8),
    Fail,
}

enum Step {
    Plain(BpfInsn),
    Branch(Test, u32, Then, Then),
}

/// Falls off its end when a condition fails.
fn clause_code(conditions: &[Condition], action: Action) -> Result<Vec<BpfInsn>, Error> {
    let steps: Vec<Step> = conditions.iter().flat_map(|c| condition_steps(*c)).collect();
    let len = steps.len();
    let mut code = Vec::with_capacity(len + 1);
    for (at, step) in steps.into_iter().enumerate() {
        let skip = |then| match then {
            Then::Next => Ok(0),
            Then::Skip(count) => Ok(count),
            Then::Fail => u8::try_from(len - at).map_err(|_| Error::RuleTooLong),
        };
        code.push(match step {
            Step::Plain(insn) => insn,
            Step::Branch(test, k, yes, no) => BpfInsn::branch(test, k, skip(yes)?, skip(no)?),
        });
    }
    code.push(BpfInsn::ret(action));
    Ok(code)
}

fn condition_steps(condition: Condition) -> Vec<Step> {
    use Test::{Equal, Greater, GreaterOrEqual};
    use Then::{Fail, Next, Skip};

    let offset = argument_offset(condition.argument);
    let low = || Step::Plain(BpfInsn::load(offset));
    let high = || Step::Plain(BpfInsn::load(offset + 4));
    let above = |value: u64, last: Test| {
        let (l, h) = halves(value);
        vec![
            high(),
            Step::Branch(Greater, h, Skip(3), Next),
            Step::Branch(Equal, h, Next, Fail),
            low(),
            Step::Branch(last, l, Next, Fail),
        ]
    };
    let below = |value: u64, last: Test| {
        let (l, h) = halves(value);
        vec![
            high(),
            Step::Branch(Greater, h, Fail, Next),
            Step::Branch(Equal, h, Next, Skip(2)),
            low(),
            Step::Branch(last, l, Fail, Next),
        ]
    };
    match condition.comparison {
        Comparison::Eq(value) => {
            let (l, h) = halves(value);
            vec![
                high(),
                Step::Branch(Equal, h, Next, Fail),
                low(),
                Step::Branch(Equal, l, Next, Fail),
            ]
        }
        Comparison::Ne(value) => {
            let (l, h) = halves(value);
            vec![
                high(),
                Step::Branch(Equal, h, Next, Skip(2)),
                low(),
                Step::Branch(Equal, l, Fail, Next),
            ]
        }
        Comparison::Gt(value) => above(value, Greater),
        Comparison::Ge(value) => above(value, GreaterOrEqual),
        Comparison::Lt(value) => below(value, GreaterOrEqual),
        Comparison::Le(value) => below(value, Greater),
        Comparison::MaskedEq { mask, value } => {
            let ((mask_l, mask_h), (l, h)) = (halves(mask), halves(value));
            let mut steps = masked_half(offset + 4, mask_h, h);
            steps.extend(masked_half(offset, mask_l, l));
            steps
        }
    }
}

fn masked_half(offset: u32, mask: u32, value: u32) -> Vec<Step> {
    let load = Step::Plain(BpfInsn::load(offset));
    match (mask, value) {
        (0, 0) => Vec::new(),
        (_, 0) => vec![load, Step::Branch(Test::AnyBit, mask, Then::Fail, Then::Next)],
        (u32::MAX, _) => vec![load, Step::Branch(Test::Equal, value, Then::Next, Then::Fail)],
        _ => vec![
            load,
            Step::Plain(BpfInsn::and(mask)),
            Step::Branch(Test::Equal, value, Then::Next, Then::Fail),
        ],
    }
}

/// Lower, upper.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}
