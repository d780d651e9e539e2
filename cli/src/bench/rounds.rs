//! Turns of all contenders, round by round in random order, and what they took.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use garden_sys::floor;

use super::contender::{Contender, STAMP};
use super::interrupt::Interrupt;
use super::row::{Bounds, Rows, at_most};
use super::statistics::Shuffle;

/// What a turn yields, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// From nothing to the process's first instruction.
    FirstInstruction,
    /// From nothing to nothing.
    Cycle,
    /// The call that creates.
    Create,
    /// From the call that runs to the process's first instruction.
    Run,
    /// The call that destroys.
    Destroy,
}

/// Samples by contender and quantity.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<(String, Quantity), Vec<f64>>);

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    /// So many rounds.
    Rounds(u32),
    /// Rounds until this time is over, but at least [`FEWEST`] and at most [`MOST`].
    Time(Duration),
}

/// Fewer say nothing about a tail.
const FEWEST: u32 = 10;
/// More say nothing new.
const MOST: u32 = 60;

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Takes samples. The first round is for warming up and is not counted.
pub fn measure(
    contenders: &mut [Box<dyn Contender>],
    extent: Extent,
    shuffle: &mut Shuffle,
    interrupt: &Interrupt,
) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    let started = Instant::now();
    let progress = std::io::stderr().is_terminal();
    for round in 0.. {
        let over = match extent {
            Extent::Rounds(rounds) => round > rounds,
            Extent::Time(time) => round > MOST || round > FEWEST && started.elapsed() >= time,
        };
        if over {
            break;
        }
        if progress {
            eprint!("\rround {round} ");
            let _ = std::io::stderr().flush();
        }
        for index in shuffle.order(contenders.len()) {
            interrupt.check()?;
            let contender = &mut contenders[index];
            let cycle = contender.cycle(&[STAMP])?;
            std::thread::sleep(contender.settles());
            let first = floor::stamped(&cycle.output).with_context(|| {
                format!("{}: {:?} is not the stamp's output", contender.name(), cycle.output)
            })?;
            let (Some(whole), Some(run)) = (
                first.checked_sub(cycle.began),
                first.checked_sub(cycle.running.unwrap_or(cycle.began)),
            ) else {
                bail!("{}: the process ran before it was asked for", contender.name());
            };
            if round == 0 {
                continue;
            }
            let mut note = |quantity, time: Duration| {
                let key = (contender.name().to_owned(), quantity);
                samples.0.entry(key).or_default().push(milliseconds(time));
            };
            note(Quantity::FirstInstruction, Duration::from_nanos(whole));
            note(Quantity::Cycle, cycle.total);
            if cycle.running.is_some() {
                note(Quantity::Run, Duration::from_nanos(run));
            }
            if let Some(create) = cycle.create {
                note(Quantity::Create, create);
            }
            if let Some(destroy) = cycle.destroy {
                note(Quantity::Destroy, destroy);
            }
        }
    }
    if progress {
        eprint!("\r\x1b[K");
    }
    Ok(samples)
}

/// What the floor's own cycle may be of `runc run`'s; 0.09 was measured.
pub const FLOOR: f64 = 0.12;
/// The row that is held to it. It compares the quickest tenths: a cycle of a few milliseconds
/// suffers more from a busy machine than one of a hundred does, and the quickest of either suffered
/// least.
pub const FLOOR_ROW: &str = "full cycle, quickest tenth, floor";
/// The 95th percentile of a create over HTTP by its median.
pub const TAIL_ROW: &str = "p95/p50 of create with network, ours, HTTP, pool";
const RUNC_QUICKEST: &str = "full cycle, quickest tenth, runc run";
/// Names of contenders, as rows have them.
pub mod name {
    #![allow(missing_docs, reason = "the names say it")]
    pub const RUNC: &str = "runc run";
    pub const FLOOR: &str = "floor";
    pub const HTTP: &str = "ours, HTTP, pool";
    pub const HTTP_COLD: &str = "ours, HTTP, no pool";
    pub const INSIDE: &str = "ours, in process, pool";
    pub const INSIDE_COLD: &str = "ours, in process, no pool";
    pub const GUARDIAN: &str = "Guardian, HTTP";
}

/// The most and the wish for a contender's quantity, as ratios to `runc run`'s cycle or first
/// instruction.
fn bounds(contender: &str, quantity: Quantity) -> Bounds {
    match (contender, quantity) {
        (name::HTTP, Quantity::Cycle) => at_most(1.0 / 8.0, 1.0 / 10.0),
        (name::HTTP, Quantity::Create) => at_most(0.20, 0.05),
        (name::HTTP | name::HTTP_COLD, Quantity::FirstInstruction) => {
            at_most(1.0 / 8.0, 1.0 / 15.0)
        }
        (name::INSIDE | name::INSIDE_COLD, Quantity::Cycle) => at_most(1.0 / 10.0, 1.0 / 30.0),
        (name::INSIDE | name::INSIDE_COLD, Quantity::FirstInstruction) => {
            at_most(1.0 / 8.0, 1.0 / 15.0)
        }
        // Guardian's run takes as long as a `runc run`, its destroy 6.5 times as long.
        (name::HTTP, Quantity::Run) => at_most(1.0 / 15.0, 1.0 / 40.0),
        (name::HTTP, Quantity::Destroy) => at_most(6.5 / 25.0, 3.0 / 40.0),
        _ => Bounds::default(),
    }
}

fn title(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::FirstInstruction => "create to first instruction",
        Quantity::Cycle => "full cycle",
        Quantity::Create => "create with network",
        Quantity::Run => "run to first instruction",
        Quantity::Destroy => "destroy",
    }
}

/// The name of a contender's row.
pub fn row_name(quantity: Quantity, contender: &str) -> String {
    format!("{}, {contender}", title(quantity))
}

impl Samples {
    /// Adds the rows, each beside `runc run` in the same rounds.
    pub fn rows(&self, rows: &mut Rows) {
        use Quantity::{Create, Cycle, Destroy, FirstInstruction, Run};
        for quantity in [FirstInstruction, Cycle, Create, Run, Destroy] {
            // What runc has in one call is compared with its whole call.
            let other = if quantity == FirstInstruction { FirstInstruction } else { Cycle };
            let against = row_name(other, name::RUNC);
            let mut contenders: Vec<_> =
                self.0.iter().filter(|((_, of), _)| *of == quantity).collect();
            contenders.sort_by_key(|((contender, _), _)| contender != name::RUNC);
            for ((contender, _), samples) in contenders {
                let own = row_name(quantity, contender);
                let against = (own != against).then_some(against.as_str());
                rows.add(&own, "ms", samples.clone(), against, bounds(contender, quantity));
            }
        }
        let create = row_name(Create, name::HTTP);
        if let Some(row) = rows.get(&create).filter(|row| row.value > 0.0) {
            let tail = row.p95() / row.value;
            rows.add(TAIL_ROW, "", vec![tail], None, at_most(2.0, 1.5));
        }
        let quickest = |contender: &str| self.quickest(contender, Cycle);
        rows.add(RUNC_QUICKEST, "ms", quickest(name::RUNC), None, Bounds::default());
        let bounds = at_most(FLOOR, 0.09);
        rows.add(FLOOR_ROW, "ms", quickest(name::FLOOR), Some(RUNC_QUICKEST), bounds);
    }

    /// The quickest tenth of a contender's samples, at least one.
    fn quickest(&self, contender: &str, quantity: Quantity) -> Vec<f64> {
        let samples = self.0.get(&(contender.to_owned(), quantity));
        let mut sorted = samples.cloned().unwrap_or_default();
        sorted.sort_by(f64::total_cmp);
        sorted.truncate(sorted.len().div_ceil(10));
        sorted
    }
}

/// Names of the rows without which a run has failed.
pub fn required(contenders: &[&str]) -> Vec<String> {
    let mut names = vec![FLOOR_ROW.to_owned()];
    if contenders.contains(&name::HTTP) {
        names.push(TAIL_ROW.to_owned());
    }
    for contender in contenders {
        names.push(row_name(Quantity::FirstInstruction, contender));
        names.push(row_name(Quantity::Cycle, contender));
        if contender.starts_with("ours") {
            let calls = [Quantity::Create, Quantity::Run, Quantity::Destroy];
            names.extend(calls.map(|quantity| row_name(quantity, contender)));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contender::{Cycle, now};

    struct Steady(&'static str);

    impl Contender for Steady {
        fn name(&self) -> &str {
            self.0
        }

        fn cycle(&mut self, command: &[&str]) -> anyhow::Result<Cycle> {
            assert_eq!(command, [STAMP]);
            let began = now() - 2_000_000;
            let output = [0_u64, began + 1_000_000].map(u64::to_ne_bytes).concat();
            let total = Duration::from_millis(if self.0 == name::RUNC { 40 } else { 4 });
            Ok(Cycle { began, total, output, ..Cycle::default() })
        }

        fn settles(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[test]
    fn rounds_become_rows_beside_runcs() {
        let mut contenders: Vec<Box<dyn Contender>> =
            vec![Box::new(Steady(name::FLOOR)), Box::new(Steady(name::RUNC))];
        let mut shuffle = Shuffle::new(1);
        let interrupt = Interrupt::default();
        let samples =
            measure(&mut contenders, Extent::Rounds(3), &mut shuffle, &interrupt).unwrap();
        let mut rows = Rows::default();
        samples.rows(&mut rows);
        let floor = rows.get("full cycle, floor").unwrap();
        assert_eq!(floor.samples, [4.0; 3]);
        assert!((floor.ratio.unwrap() - 0.1).abs() < 1e-9);
        assert_eq!(rows.get(FLOOR_ROW).unwrap().met, Some(true));
        assert_eq!(rows.value("create to first instruction, runc run"), Some(1.0));
        assert_eq!(rows.get("full cycle, runc run").unwrap().against, None);
        let required = required(&[name::FLOOR, name::RUNC]);
        let required: Vec<_> = required.iter().map(String::as_str).collect();
        assert_eq!(rows.missing(&required), Vec::<&str>::new());
        assert_eq!(rows.missing(&["full cycle, crun run"]), ["full cycle, crun run"]);
    }
}
