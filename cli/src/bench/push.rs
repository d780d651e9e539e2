//! `bloomery bench push`: from a directory to an answering URL, step by step.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::interrupt::Interrupt;
use super::platform::{self, Platform, run, write_app};
use super::row::{Bounds, Rows, at_most};
use super::{machine, table, write_json};
use crate::up;

/// Of `bloomery bench push`.
#[derive(clap::Args, Debug)]
pub struct Flags {
    #[command(flatten)]
    platform: platform::Basis,
    /// So many pushes of each kind.
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    rounds: u32,
    /// Push with this cf CLI as well.
    #[arg(long, value_name = "PATH")]
    cf: Option<PathBuf>,
}

const READY: &str = "bloomery up until ready, root file system on disk";
const FIRST: &str = "first push of a static app until its URL answers";
const AGAIN: &str = "push of a changed page until its URL shows it";
const CF: &str = "the same with the cf CLI";
/// As `bloomery cf push` calls them.
const STEPS: [&str; 4] = ["manifest", "upload", "staging", "start"];
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures, prints the table and writes the files. An error where a row is missing.
pub fn push(flags: &Flags) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    let platform = Platform::start(&flags.platform)?;
    let mut rows = Rows::default();
    rows.add(READY, "s", vec![platform.until_ready.as_secs_f64()], None, at_most(10.0, 5.0));
    let mut samples = Samples::default();
    if let Some(cf) = &flags.cf {
        log_in(cf, &platform)?;
    }
    for round in 0..flags.rounds {
        interrupt.check()?;
        let app = format!("first-{round}");
        let (took, steps) = timed(&platform, &app, &format!("first {round}"))?;
        samples.first.push(took);
        for (all, step) in samples.steps.iter_mut().zip(steps) {
            all.push(step);
        }
        samples.again.push(timed(&platform, &app, &format!("second {round}"))?.0);
        platform.cf(&["delete", &app, "-f"])?;
        if let Some(cf) = &flags.cf {
            interrupt.check()?;
            samples.cf.push(timed_with(cf, &platform, &format!("cf-{round}"))?);
        }
    }
    rows.add(FIRST, "s", samples.first, None, Bounds::default());
    for (step, samples) in STEPS.iter().zip(samples.steps) {
        rows.add(&format!("  of which {step}"), "s", samples, None, Bounds::default());
    }
    rows.add(AGAIN, "s", samples.again, None, Bounds::default());
    rows.add(CF, "s", samples.cf, None, at_most(8.0, 5.0));
    drop(platform);
    println!("{}\n\n{}", machine::describe(), table::render(rows.all()));
    write_json(flags.platform.json.as_deref(), &rows)?;
    let missing = rows.missing(&[READY, FIRST, AGAIN]);
    if !missing.is_empty() {
        bail!("these rows are required and could not be measured: {}", missing.join("; "));
    }
    Ok(())
}

#[derive(Default)]
struct Samples {
    first: Vec<f64>,
    steps: [Vec<f64>; STEPS.len()],
    again: Vec<f64>,
    cf: Vec<f64>,
}

/// Seconds until the app's URL shows the page, and those of the push's steps.
fn timed(platform: &Platform, app: &str, page: &str) -> anyhow::Result<(f64, [f64; STEPS.len()])> {
    let directory = platform.directory().join(app);
    write_app(&directory, page)?;
    let path = directory.to_string_lossy();
    let began = Instant::now();
    let said = platform.cf(&["push", app, "-p", &path, "-m", "64M", "--no-manifest"])?;
    wait_for(platform, app, page)?;
    Ok((began.elapsed().as_secs_f64(), steps(&said)?))
}

/// The figures of the line `Took 1.83 s: manifest 0.05, …`.
fn steps(said: &str) -> anyhow::Result<[f64; STEPS.len()]> {
    let line = said.lines().rev().find_map(|line| line.strip_prefix("Took "));
    let line = line.context("the push did not say how long it took")?;
    let mut figures = [0.0; STEPS.len()];
    for (figure, step) in figures.iter_mut().zip(STEPS) {
        *figure = line
            .split([':', ','])
            .find_map(|part| part.trim().strip_prefix(step)?.trim().parse().ok())
            .with_context(|| format!("the push did not say how long its step {step} took"))?;
    }
    Ok(figures)
}

fn wait_for(platform: &Platform, app: &str, page: &str) -> anyhow::Result<()> {
    let host = platform.url(&format!("{app}.apps"));
    let host = host.trim_start_matches("http://");
    up::wait_for_answer(host, platform.port(), PATIENCE, |answer| {
        answer.starts_with("HTTP/1.1 200") && answer.ends_with(page)
    })
    .with_context(|| format!("http://{host} does not show the page {page:?}"))
}

fn cf(program: &PathBuf, platform: &Platform) -> Command {
    let mut command = Command::new(program);
    command.env("CF_HOME", platform.directory()).env("CF_COLOR", "false").stdin(Stdio::null());
    command
}

fn log_in(program: &PathBuf, platform: &Platform) -> anyhow::Result<()> {
    run(cf(program, platform).args(["api", &platform.url("api")]))
        .context("the cf CLI cannot reach the platform: are its names in /etc/hosts?")?;
    run(cf(program, platform).args(["auth", "admin", &platform.password()?]))?;
    run(cf(program, platform).args(["target", "-o", "dev", "-s", "dev"]))?;
    Ok(())
}

/// Seconds that a cf CLI takes for the same.
fn timed_with(program: &PathBuf, platform: &Platform, app: &str) -> anyhow::Result<f64> {
    let directory = platform.directory().join(app);
    write_app(&directory, app)?;
    let began = Instant::now();
    run(cf(program, platform).args(["push", app, "-m", "64M", "-p"]).arg(&directory))?;
    wait_for(platform, app, app)?;
    let took = began.elapsed().as_secs_f64();
    run(cf(program, platform).args(["delete", app, "-f", "-r"]))?;
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::steps;

    #[test]
    fn steps_are_read_from_the_last_line_and_must_all_be_there() {
        let said =
            "name: hello\n\nTook 1.83 s: manifest 0.05, upload 0.20, staging 0.92, start 0.41\n";
        assert_eq!(steps(said).unwrap(), [0.05, 0.20, 0.92, 0.41]);
        assert!(steps("Took 1 s: manifest 0.05\n").is_err());
        assert!(steps("OK\n").is_err());
    }
}
