//! `bloomery bench idle`: what a platform costs that nobody asks.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::interrupt::Interrupt;
use super::platform::{self, Platform, write_app};
use super::row::{Bounds, Rows, at_most};
use super::{machine, table, write_json};
use crate::processes;

/// Of `bloomery bench idle`.
#[derive(clap::Args, Debug)]
pub struct Flags {
    #[command(flatten)]
    platform: platform::Basis,
    /// Watch for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    seconds: u64,
}

const MEMORY: &str = "memory of all processes";
const CPU: &str = "CPU of all processes";
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Measures with one app that serves nobody, prints the table and writes the files.
pub fn idle(flags: &Flags) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    let platform = Platform::start(&flags.platform)?;
    let directory = platform.directory().join("app");
    write_app(&directory, "idle")?;
    let path = directory.to_string_lossy();
    platform.cf(&["push", "idle", "-p", &path, "-m", "64M", "--no-manifest"])?;

    let own = platform.processes()?;
    let cpu = || own.iter().filter_map(|(_, pid)| processes::cpu(*pid, false)).sum::<f64>();
    let mut memory = vec![Vec::new(); own.len()];
    let mut total = Vec::new();
    let (began, before) = (Instant::now(), cpu());
    while began.elapsed() < Duration::from_secs(flags.seconds) {
        interrupt.check()?;
        std::thread::sleep(LOOK_EVERY);
        let mut sum = 0.0;
        for ((name, pid), samples) in own.iter().zip(&mut memory) {
            let kib = processes::memory(*pid).with_context(|| format!("{name} has ended"))?;
            samples.push(kib / 1024.0);
            sum += kib / 1024.0;
        }
        total.push(sum);
    }
    let share = (cpu() - before) / 10.0 / began.elapsed().as_secs_f64();
    let mut rows = Rows::default();
    rows.add(MEMORY, "MiB", total, None, at_most(200.0, 100.0));
    for ((name, _), samples) in own.iter().zip(memory) {
        rows.add(&format!("  of which {name}"), "MiB", samples, None, Bounds::default());
    }
    rows.add(CPU, "% of a core", vec![share], None, Bounds::default());
    drop(platform);
    println!("{}\n\n{}", machine::describe(), table::render(rows.all()));
    write_json(flags.platform.json.as_deref(), &rows)?;
    let missing = rows.missing(&[MEMORY, CPU]);
    if !missing.is_empty() {
        bail!("these rows are required and could not be measured: {}", missing.join("; "));
    }
    Ok(())
}
