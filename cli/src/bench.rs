//! `bloomery bench`: what a container costs, side by side with the runtimes here; what a push takes
//! ([`push()`]), and what a platform costs that nobody asks ([`idle()`]).
//!
//! ```text
//! place ─> contenders ─> check from inside ─> rounds ─> the rest ─> rows ─> table, plot, JSON
//! ```

mod bundle;
mod contender;
mod floor;
mod http;
mod idle;
mod inside;
mod interrupt;
mod live;
mod machine;
mod network;
mod oci;
mod place;
mod platform;
mod plot;
mod push;
mod rounds;
mod row;
mod security;
mod server;
mod statistics;
mod sustained;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use garden_seccomp::garden_default;

pub use idle::{Flags as Idle, idle};
pub use push::{Flags as Push, push};

use contender::Contender;
use floor::Floor;
use http::Http;
use inside::Inside;
use interrupt::Interrupt;
use oci::{Ground, Runtime};
use place::Place;
use plot::Chart;
use rounds::{Extent, Quantity, name, row_name};
use row::Rows;
use server::Server;
use statistics::Shuffle;

/// Of `bloomery bench containers`.
#[derive(clap::Args, Debug)]
pub struct Flags {
    /// Take so many rounds instead of as many as fit into the time.
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<u32>,
    /// The seed of the order within rounds.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Also measure among up to 1,000 live containers with a process each, 1,000 of them back to back
    /// however long it takes, and the networker alone.
    #[arg(long)]
    full: bool,
    /// Compare with the original server behind this unix socket, too.
    #[arg(long, value_name = "SOCKET")]
    guardian: Option<PathBuf>,
    /// Write a plot of the main rows, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write all rows with their samples, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Time for rounds where no number is given.
const ROUNDS: Duration = Duration::from_secs(20);
/// Time for containers back to back, unless all are asked for.
const BACK_TO_BACK: Duration = Duration::from_secs(6);

/// Containers kept parked in the contenders that have a pool.
const POOL: usize = 8;

/// Measures, prints the table and writes the files. An error where a required row is missing, or
/// the floor is not where it was found.
pub fn containers(flags: &Flags) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the bench makes containers and needs to be root");
    }
    let interrupt = Interrupt::catch()?;
    let place = Place::make()?;
    let (rows, names) = run(flags, &place, &interrupt)?;
    let machine = machine::describe();
    println!("{machine}\n\n{}", table::render(rows.all()));
    write_json(flags.json.as_deref(), &rows)?;
    if let Some(path) = &flags.plot {
        let svg = plot::render(&charts(&rows), &machine);
        fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let missing = rows.missing(&names);
    if !missing.is_empty() {
        bail!("these rows are required and could not be measured: {}", missing.join("; "));
    }
    let floor = rows.get(rounds::FLOOR_ROW).and_then(|row| row.ratio);
    match floor {
        Some(ratio) if ratio <= rounds::FLOOR => Ok(()),
        ratio => bail!(
            "the floor's quickest cycles are {:.3} of the quickest of `runc run`, more than {}: \
             something is wrong with this measurement, or the machine is too busy for one",
            ratio.unwrap_or(f64::NAN),
            rounds::FLOOR
        ),
    }
}

/// What `--json` promises: all rows with their samples.
fn write_json(path: Option<&Path>, rows: &Rows) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let json = serde_json::to_vec_pretty(rows.all())?;
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// All rows, and the names of those that there have to be.
fn run(flags: &Flags, place: &Place, interrupt: &Interrupt) -> anyhow::Result<(Rows, Vec<String>)> {
    let seed = flags.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::from(now.subsec_nanos()) + 1
    });
    let profile = garden_default();
    let seccomp = profile.compile().context("cannot compile the seccomp profile")?;
    let capabilities = security::capabilities()?;

    let ground = Ground::prepare(place, profile, capabilities)?;
    let (warm, warm_caller) = Server::start(place.garden(2, POOL))?;
    let (cold, cold_caller) = Server::start(place.garden(3, 0))?;
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(Http::ours(name::HTTP, &warm_caller)),
        Box::new(Http::ours(name::HTTP_COLD, &cold_caller)),
        Box::new(Runtime::required(&ground, "runc")?),
        Box::new(Runtime::required(&ground, "crun")?),
        Box::new(Floor::prepare(place, seccomp.bytes(), capabilities)?),
        Box::new(Inside::start(name::INSIDE, place.garden(0, POOL))?),
        Box::new(Inside::start(name::INSIDE_COLD, place.garden(1, 0))?),
    ];
    if let Some(youki) = Runtime::youki(&ground)? {
        contenders.push(Box::new(youki));
    }
    if let Some(socket) = &flags.guardian {
        contenders.push(Box::new(Http::guardian(socket, &place.image())?));
    }
    let names: Vec<_> = contenders.iter().map(|contender| contender.name().to_owned()).collect();

    println!("The same security work for {}, checked from inside:", names.join("; "));
    for contender in &mut contenders {
        interrupt.check()?;
        let cycle = contender.cycle(&["/bin/sh", "-c", security::SCRIPT])?;
        let seen = String::from_utf8_lossy(&cycle.output);
        match security::check(contender.name(), &seen, capabilities) {
            // What the original does is its own affair; how it differs is said.
            Err(error) if contender.name() == name::GUARDIAN => println!("  but {error:#}"),
            checked => checked?,
        }
    }
    for line in security::list(seccomp.insns().len()) {
        println!("  {line}");
    }
    println!("Seed {seed}\n");

    let extent = flags.rounds.map_or(Extent::Time(ROUNDS), Extent::Rounds);
    let samples = rounds::measure(&mut contenders, extent, &mut Shuffle::new(seed), interrupt)?;
    let mut rows = Rows::default();
    samples.rows(&mut rows);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut required = rounds::required(&names);
    // Those in this process would only take part in what follows.
    drop(contenders);

    sustained::aftermath(&cold, &cold_caller, &mut rows, interrupt)?;
    let time = (!flags.full).then_some(BACK_TO_BACK);
    sustained::measure(&warm, &warm_caller, time, &mut rows, interrupt)?;
    let levels: &[u32] = if flags.full { &[0, 250, 500, 1000] } else { &[0, 250] };
    live::measure(&warm, &warm_caller, levels, flags.full, &mut rows, interrupt)?;
    required.extend(sustained::REQUIRED.into_iter().chain(live::REQUIRED).map(str::to_owned));
    if flags.full {
        required.extend(live::required_in_full(levels));
        drop((warm, cold));
        network::measure(&place.volatile().join("network"), &mut rows, interrupt)?;
        required.extend(network::required());
    }
    Ok((rows, required))
}

/// What the plot shows.
fn charts(rows: &Rows) -> Vec<Chart<'_>> {
    let labels = [
        (name::HTTP, "Bloomery, HTTP"),
        (name::HTTP_COLD, "Bloomery, HTTP, no pool"),
        (name::INSIDE, "Bloomery, in process"),
        (name::FLOOR, "minimal system calls"),
        (name::RUNC, "runc run"),
        ("crun run", "crun run"),
        ("youki create, start, delete", "youki"),
        (name::GUARDIAN, "Guardian, HTTP"),
    ];
    let chart = |title, quantity| {
        let bar = |(contender, label): (&str, _)| {
            rows.get(&row_name(quantity, contender)).map(|row| (label, row))
        };
        Chart { title, bars: labels.into_iter().filter_map(bar).collect() }
    };
    vec![
        chart("A container's whole life: create, run, wait, destroy", Quantity::Cycle),
        chart("From create to the process's first instruction", Quantity::FirstInstruction),
    ]
}
