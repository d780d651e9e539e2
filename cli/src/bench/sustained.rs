//! Containers made and destroyed one after another for longer than any pool lasts, with the work
//! that was put off charged to them; and how long that work takes after a single destroy.

use std::time::{Duration, Instant};

use super::contender::{now, since};
use super::http::Caller;
use super::interrupt::Interrupt;
use super::rounds::{Quantity, name, row_name};
use super::row::{Bounds, Rows, at_most};
use super::server::Server;

/// Rows of this module that every run has.
pub const REQUIRED: [&str; 4] = [
    "create and destroy, back to back, until all is clean",
    "CPU time of it, put-off work included",
    "create with network, back to back",
    "clean-up complete after a destroy",
];

/// So many containers, of which fewer have to do when the time is over.
const CONTAINERS: u32 = 1000;
/// Fewer would mostly measure the pool.
const FEWEST: u32 = 100;
/// Destroys whose aftermath is timed.
const DESTROYS: u32 = 10;

/// Adds the rows of the run back to back; `time` bounds it where it is given.
pub fn measure(
    server: &Server,
    caller: &Caller,
    time: Option<Duration>,
    rows: &mut Rows,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    // The pool's own units are there before and after.
    std::thread::sleep(Duration::from_millis(200));
    let parked = server.leavings();
    let cpu = server.cpu()?;
    let started = Instant::now();
    let mut creates = Vec::new();
    let mut made = 0;
    while made < CONTAINERS && (made < FEWEST || time.is_none_or(|time| started.elapsed() < time)) {
        interrupt.check()?;
        let began = now();
        let handle = caller.create(&format!("run-{made}"), None)?;
        creates.push(since(began).as_secs_f64() * 1000.0);
        caller.destroy(&handle)?;
        made += 1;
    }
    server.settle(parked)?;
    let each = |total: f64| total / f64::from(made);
    let wall = each(started.elapsed().as_secs_f64() * 1000.0);
    let cpu = each(server.cpu()? - cpu);
    // 150 and 400 a second.
    rows.add(REQUIRED[0], "ms", vec![wall], None, at_most(1000.0 / 150.0, 1000.0 / 400.0));
    rows.add(REQUIRED[1], "ms", vec![cpu], None, Bounds::default());
    let against = row_name(Quantity::Cycle, name::RUNC);
    rows.add(REQUIRED[2], "ms", creates, Some(&against), at_most(0.20, 0.05));
    Ok(())
}

/// Adds the row of what is left after a destroy's answer. The server has no pool, so that all it has
/// is the container's.
pub fn aftermath(
    server: &Server,
    caller: &Caller,
    rows: &mut Rows,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for index in 0..DESTROYS {
        interrupt.check()?;
        let handle = caller.create(&format!("left-{index}"), None)?;
        caller.destroy(&handle)?;
        samples.push(server.settle(0)?.as_secs_f64() * 1000.0);
    }
    rows.add(REQUIRED[3], "ms", samples, None, at_most(1000.0, 100.0));
    Ok(())
}
