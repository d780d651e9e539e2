//! `cargo xtask vm`: commands, a shell and the demonstration in test machines.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use machine::{Command, Event, Input, Kernel, Machine, Process, Programs, Window};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::packages;

/// A command may say nothing for this long.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What to do with a machine.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Run a command in a fresh machine; its output, its exit status.
    Run {
        /// The machine's kernel: 6.1 or 6.12.
        #[arg(long, default_value = "6.12")]
        kernel: Kernel,
        /// A file to copy into the machine first, as FILE:PATH.
        #[arg(long, value_name = "FILE:PATH")]
        put: Vec<String>,
        /// The command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Open a shell in a fresh machine.
    Shell {
        /// The machine's kernel: 6.1 or 6.12.
        #[arg(long, default_value = "6.12")]
        kernel: Kernel,
        /// A file to copy into the machine first, as FILE:PATH.
        #[arg(long, value_name = "FILE:PATH")]
        put: Vec<String>,
    },
    /// Run the demonstration and the tests of limits in a machine of each kernel.
    Demo,
}

/// Does it; the exit status is that of the command inside.
pub fn run(action: Action) -> anyhow::Result<ExitCode> {
    packages::provide(&[packages::GARDEN, packages::BENCH, packages::MACHINES])?;
    match action {
        Action::Run { kernel, put, command } => {
            let machine = start(kernel, &put)?;
            let command = Command { arguments: command, ..Command::default() };
            let mut process = machine.spawn(&command)?;
            pass_input(&mut process);
            stream(&process)
        }
        Action::Shell { kernel, put } => shell(&start(kernel, &put)?),
        Action::Demo => demo(),
    }
}

fn start(kernel: Kernel, files: &[String]) -> anyhow::Result<Machine> {
    let machine = Machine::start(kernel, "machine")?;
    for file in files {
        let (file, path) = file.split_once(':').context("--put takes FILE:PATH")?;
        ensure!(path.starts_with('/'), "--put: {path} is not an absolute path");
        machine.put(Path::new(file), path)?;
    }
    Ok(machine)
}

/// Our standard input becomes the process's, on a thread that ends with us.
fn pass_input(process: &mut Process) {
    let Some(input) = process.take_input() else { return };
    std::thread::spawn(move || copy_input(input));
}

fn copy_input(input: Input) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match std::io::stdin().read(&mut buffer)? {
            0 => return input.end(),
            length => input.write(&buffer[..length])?,
        }
    }
}

/// Shows what a process writes until its end.
fn stream(process: &Process) -> anyhow::Result<ExitCode> {
    loop {
        match process.next(PATIENCE)? {
            Event::Output(bytes) => {
                let mut stdout = std::io::stdout();
                stdout.write_all(&bytes)?;
                stdout.flush()?;
            }
            Event::Error(bytes) => std::io::stderr().write_all(&bytes)?,
            Event::Exit(status) => return Ok(ExitCode::from(u8::try_from(status).unwrap_or(255))),
        }
    }
}

/// The user's terminal as it was; raw while this lives.
struct Raw(Termios);

impl Raw {
    fn new() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn window() -> Window {
    match tcgetwinsize(std::io::stdin()) {
        Ok(size) => Window { rows: size.ws_row, columns: size.ws_col },
        Err(_) => Window { rows: 24, columns: 80 },
    }
}

fn shell(machine: &Machine) -> anyhow::Result<ExitCode> {
    if !std::io::stdin().is_terminal() {
        bail!("a shell needs a terminal; `cargo xtask vm run -- sh` does without one");
    }
    println!("a machine of your own; it is gone when the shell ends (exit or Ctrl-D)");
    let terminal = Some(window());
    let environment = vec![format!("TERM={}", std::env::var("TERM").unwrap_or("linux".into()))];
    let command = Command { terminal, environment, ..Command::new(&["sh", "-l"]) };
    let mut process = machine.spawn(&command)?;
    let _raw = Raw::new()?;
    pass_input(&mut process);
    let mut size = window();
    loop {
        // The size is looked at now and then: to be told of its change takes a signal handler.
        match process.try_next(Duration::from_millis(200))? {
            Some(Event::Output(bytes) | Event::Error(bytes)) => {
                let mut stdout = std::io::stdout();
                stdout.write_all(&bytes)?;
                stdout.flush()?;
            }
            Some(Event::Exit(status)) => {
                return Ok(ExitCode::from(u8::try_from(status).unwrap_or(255)));
            }
            None => {}
        }
        if size != window() {
            size = window();
            process.resize(size)?;
        }
    }
}

/// Tests of limits: a package's directory and a test of it.
const LIMITS: &[(&str, &str)] = &[("garden/cgroup", "kernel"), ("garden", "limits")];

fn demo() -> anyhow::Result<ExitCode> {
    let binary = Programs::binary("bloomery")?;
    let tests = Programs::tests(LIMITS)?;
    for kernel in Kernel::ALL {
        println!("==> a machine with kernel {kernel}");
        let machine = Machine::start(kernel, "demo")?;
        let bloomery = binary.put(&machine, "cli", "bloomery")?;
        show(&machine, Command::new(&[&bloomery, "demo"]))?;
        for (package, name) in LIMITS {
            let program = tests.put(&machine, package, name)?;
            // Container images and layers are on its disk, as they would be in use.
            let environment = vec!["TMPDIR=/var/lib".into()];
            show(&machine, Command { environment, ..Command::new(&[&program]) })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that must succeed.
fn show(machine: &Machine, command: Command) -> anyhow::Result<()> {
    println!("==> in the machine: {}", command.arguments.join(" "));
    let mut process = machine.spawn(&command)?;
    process.end_input()?;
    let status = stream(&process)?;
    if status != ExitCode::SUCCESS {
        let evidence: PathBuf = machine.keep_evidence()?;
        bail!("{} failed in the machine; see {}", command.arguments.join(" "), evidence.display());
    }
    Ok(())
}
