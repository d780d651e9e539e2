//! The program that is loaded: a balanced search over ranges of numbers.
//!
//! The kernel runs a new filter once for every call number of every interface
//! to learn which answers are constant (`seccomp_cache_prepare`), so depth and
//! length decide what loading costs. It only follows loads, `AND`, `RET` and
//! jumps there; no other instruction is used before a decision.
//!
//! ```text
//! arch ─┬─ x86-64 ─┬─ bit 30 clear ──────────────> tree of x86-64
//!       │          └─ x32: clear it ─> tree of the differences ─ none ─┘
//!       ├─ i386 ─> tree of i386
//!       └─ else kill
//! ```
//!
//! Instructions are laid down from the last to the first, so every jump goes to
//! a known place. A target out of an 8-bit offset's reach gets a nearer copy
//! (returns) or a `JA` to it.

use std::collections::HashMap;

use crate::abi::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, Abi, X32_BIT};
use crate::bpf::{ARCH, BpfInsn, Filter, NR, Test};
use crate::clause::{Decision, decisions};
use crate::profile::{Action, Error, Profile};

/// Compiles to a small program for all three interfaces that decides as
/// [`compile_plain`](crate::compile_plain)'s does.
pub fn compile(profile: &Profile) -> Result<Filter, Error> {
    profile.check()?;
    let native = ranges(profile, Abi::X86_64);
    let x32 = differences(&ranges(profile, Abi::X32), &native);

    let mut program = Program::default();
    let i386 = program.tree(&ranges(profile, Abi::I386), None)?;
    program.goto(i386);
    let i386 = program.push(BpfInsn::load(NR));
    let x86_64 = program.tree(&native, None)?;
    let x32 = program.tree(&x32, Some(x86_64))?;
    program.goto(x32);
    let x32 = program.push(BpfInsn::and(!X32_BIT));
    program.branch(Test::AnyBit, X32_BIT, x32, x86_64);
    let x86_64 = program.push(BpfInsn::load(NR));
    let kill = program.push(BpfInsn::ret(Action::KillProcess));
    let foreign = program.branch(Test::Equal, AUDIT_ARCH_I386, i386, kill);
    program.branch(Test::Equal, AUDIT_ARCH_X86_64, x86_64, foreign);
    program.push(BpfInsn::load(ARCH));
    program.finish()
}

/// What a range of numbers leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Goal {
    Decide(Decision),
    /// The x86-64 tree, which decides this x32 number the same way.
    Native,
}

/// From this number up to the next range's first.
#[derive(Clone, Debug)]
struct Range {
    first: u32,
    goal: Goal,
}

/// Adjacent ranges differ and the first starts at 0.
fn merge(ranges: impl IntoIterator<Item = Range>) -> Vec<Range> {
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        if merged.last().is_none_or(|last| last.goal != range.goal) {
            merged.push(range);
        }
    }
    merged
}

fn ranges(profile: &Profile, abi: Abi) -> Vec<Range> {
    let unknown = |first| Range { first, goal: Goal::Decide(Decision::always(profile.unknown)) };
    let mut ranges = Vec::new();
    let mut next = 0;
    for (nr, decision) in decisions(profile, abi) {
        if nr > next {
            ranges.push(unknown(next));
        }
        ranges.push(Range { first: nr, goal: Goal::Decide(decision) });
        next = nr + 1;
    }
    ranges.push(unknown(next));
    merge(ranges)
}

fn differences(x32: &[Range], native: &[Range]) -> Vec<Range> {
    let goal_at = |ranges: &[Range], nr| {
        ranges[ranges.partition_point(|range| range.first <= nr) - 1].goal.clone()
    };
    let mut edges: Vec<u32> = x32.iter().chain(native).map(|range| range.first).collect();
    edges.sort_unstable();
    edges.dedup();
    merge(edges.into_iter().map(|first| {
        let goal = goal_at(x32, first);
        Range { first, goal: if goal == goal_at(native, first) { Goal::Native } else { goal } }
    }))
}

/// How to search a slice of ranges.
#[derive(Clone, Copy, Debug)]
enum Search {
    /// All but single numbers lead to the goal of this range: test those one by one.
    Pick { rest: usize },
    /// Compare with the first number of this range.
    Split { at: usize },
}

/// At most this many numbers are tested one by one: depth costs time at load.
const PICKS: usize = 3;

/// The cheapest search found of every slice met, as (instructions, how).
struct Plan<'a> {
    ranges: &'a [Range],
    found: HashMap<(usize, usize), (usize, Search)>,
}

impl<'a> Plan<'a> {
    fn new(ranges: &'a [Range]) -> Self {
        Self { ranges, found: HashMap::new() }
    }

    /// Splits are tried near the middle only, which keeps the tree balanced.
    fn search(&mut self, from: usize, to: usize) -> (usize, Search) {
        if let Some(&found) = self.found.get(&(from, to)) {
            return found;
        }
        let best = self.pick(from, to).unwrap_or_else(|| {
            let middle = usize::midpoint(from, to);
            let reach = (to - from) / 8 + 1;
            (middle.saturating_sub(reach).max(from + 1)..=(middle + reach).min(to - 1))
                .map(|at| {
                    let cost = 1 + self.search(from, at).0 + self.search(at, to).0;
                    (cost, Search::Split { at })
                })
                .min_by_key(|&(cost, _)| cost)
                .unwrap_or((usize::MAX, Search::Pick { rest: from }))
        });
        self.found.insert((from, to), best);
        best
    }

    fn pick(&self, from: usize, to: usize) -> Option<(usize, Search)> {
        (from..to.min(from + 2)).find_map(|rest| {
            let goal = &self.ranges[rest].goal;
            let others = (from..to).filter(|&at| self.ranges[at].goal != *goal);
            let picks = others.clone().count();
            (picks <= PICKS && others.clone().all(|at| self.is_single(at)))
                .then_some((picks, Search::Pick { rest }))
        })
    }

    fn is_single(&self, at: usize) -> bool {
        self.ranges.get(at + 1).is_some_and(|next| next.first == self.ranges[at].first + 1)
    }
}

/// An instruction's distance from the end of the program.
type Place = usize;

/// A program under construction, last instruction first.
#[derive(Default)]
struct Program {
    reversed: Vec<BpfInsn>,
    /// The nearest place of each decision.
    decisions: HashMap<Decision, Place>,
    /// The nearest `JA` to each place that was out of reach.
    relays: HashMap<Place, Place>,
}

impl Program {
    fn push(&mut self, insn: BpfInsn) -> Place {
        self.reversed.push(insn);
        self.reversed.len() - 1
    }

    /// Instructions to skip from the next one laid down to `target`.
    fn skip(&self, target: Place) -> usize {
        self.reversed.len() - target - 1
    }

    /// A place from which control reaches `target`, near enough for a branch
    /// even after a few more instructions.
    fn near(&mut self, target: Place) -> Place {
        const NEAR: usize = 250;
        if self.skip(target) <= NEAR {
            return target;
        }
        if let Some(&relay) = self.relays.get(&target)
            && self.skip(relay) <= NEAR
        {
            return relay;
        }
        let relay = match self.reversed[target] {
            insn if insn.is_return() => self.push(insn),
            _ => self.push_jump(target),
        };
        self.relays.insert(target, relay);
        relay
    }

    fn push_jump(&mut self, target: Place) -> Place {
        // A program is refused long before its length leaves 32 bits.
        let skip = u32::try_from(self.skip(target)).unwrap_or(u32::MAX);
        self.push(BpfInsn::jump(skip))
    }

    /// Makes what is laid down next continue at `target`.
    fn goto(&mut self, target: Place) {
        if self.skip(target) != 0 {
            self.push_jump(target);
        }
    }

    fn branch(&mut self, test: Test, k: u32, yes: Place, no: Place) -> Place {
        let (yes, no) = (self.near(yes), self.near(no));
        let skip = |program: &Self, place| u8::try_from(program.skip(place)).unwrap_or(u8::MAX);
        let (yes, no) = (skip(self, yes), skip(self, no));
        self.push(BpfInsn::branch(test, k, yes, no))
    }

    fn decide(&mut self, decision: &Decision) -> Result<Place, Error> {
        if let Some(&place) = self.decisions.get(decision) {
            return Ok(place);
        }
        for insn in decision.code()?.into_iter().rev() {
            self.push(insn);
        }
        let place = self.reversed.len() - 1;
        self.decisions.insert(decision.clone(), place);
        Ok(place)
    }

    fn tree(&mut self, ranges: &[Range], native: Option<Place>) -> Result<Place, Error> {
        self.subtree(&mut Plan::new(ranges), 0, ranges.len(), native)
    }

    fn subtree(
        &mut self,
        plan: &mut Plan<'_>,
        from: usize,
        to: usize,
        native: Option<Place>,
    ) -> Result<Place, Error> {
        let ranges = plan.ranges;
        match plan.search(from, to).1 {
            Search::Split { at } => {
                let above = self.subtree(plan, at, to, native)?;
                let below = self.subtree(plan, from, at, native)?;
                Ok(self.branch(Test::GreaterOrEqual, ranges[at].first, above, below))
            }
            Search::Pick { rest } => {
                let mut place = self.goal(&ranges[rest].goal, native)?;
                for range in ranges[from..to].iter().filter(|r| r.goal != ranges[rest].goal) {
                    let goal = self.goal(&range.goal, native)?;
                    place = self.branch(Test::Equal, range.first, goal, place);
                }
                Ok(place)
            }
        }
    }

    fn goal(&mut self, goal: &Goal, native: Option<Place>) -> Result<Place, Error> {
        match (goal, native) {
            (Goal::Decide(decision), _) => self.decide(decision),
            (Goal::Native, Some(place)) => Ok(place),
            (Goal::Native, None) => unreachable!("only the x32 tree refers to the native one"),
        }
    }

    fn finish(mut self) -> Result<Filter, Error> {
        self.reversed.reverse();
        let len = self.reversed.len();
        Filter::new(self.reversed).ok_or(Error::TooLong(len))
    }
}
