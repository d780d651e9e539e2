//! Ours in this process: the gardener's own calls, without HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bloomery_garden::Gardener;
use bloomery_garden::config::Config;
use bloomery_garden::process::Output;
use garden_api::{ContainerSpec, CpuLimits, Limits, MemoryLimits, PidLimits, ProcessSpec};
use garden_sys::supervisor::Exit;
use tokio::runtime::Runtime;

use super::contender::{Contender, Cycle, now, since};
use super::security;

/// What to ask a Garden for.
pub fn container(handle: &str) -> ContainerSpec {
    ContainerSpec {
        handle: handle.to_owned(),
        limits: Limits {
            memory: MemoryLimits { limit_in_bytes: security::MEMORY },
            cpu: CpuLimits { weight: security::SHARES, ..CpuLimits::default() },
            pid: PidLimits { max: security::TASKS },
            ..Limits::default()
        },
        ..ContainerSpec::default()
    }
}

/// What to run in it.
pub fn process(command: &[&str]) -> ProcessSpec {
    let (path, args) = command.split_first().map_or(("", &[][..]), |(path, args)| (*path, args));
    ProcessSpec {
        path: path.to_owned(),
        args: args.iter().map(|&argument| argument.to_owned()).collect(),
        ..ProcessSpec::default()
    }
}

/// A Garden in this process.
#[derive(Debug)]
pub struct Inside {
    name: String,
    garden: Arc<Gardener>,
    runtime: Runtime,
    turns: u32,
}

impl Inside {
    /// Starts it.
    pub fn start(name: &str, config: Config) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        crate::descriptors::raise_limit();
        let garden = Gardener::start(config, runtime.handle().clone())
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), garden, runtime, turns: 0 })
    }

    fn run(&self, handle: &str, command: &[&str]) -> anyhow::Result<(u64, Vec<u8>)> {
        let running = now();
        let process = self.garden.run(handle, &process(command))?;
        let mut attachment = process.attach();
        let outputs = attachment.take_outputs();
        attachment.end_input();
        let (exit, output) = self.runtime.block_on(async {
            let output = match outputs {
                Some((output, _)) => collect(output).await,
                None => Vec::new(),
            };
            (attachment.ended().await, output)
        });
        match exit {
            Exit::Status(0) => Ok((running, output)),
            other => bail!("the process ended with {other:?}"),
        }
    }
}

async fn collect(mut pieces: Output) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = pieces.recv().await {
        all.extend_from_slice(&piece);
    }
    all
}

impl Contender for Inside {
    fn name(&self) -> &str {
        &self.name
    }

    fn cycle(&mut self, command: &[&str]) -> anyhow::Result<Cycle> {
        self.turns += 1;
        let spec = container(&format!("inside-{}", self.turns));
        let began = now();
        let handle = self.garden.create(spec).with_context(|| self.name.clone())?;
        let create = since(began);
        let run = self.run(&handle, command);
        let destroying = now();
        let destroyed = self.garden.destroy(&handle);
        let (total, destroy) = (since(began), since(destroying));
        let (running, output) = run.with_context(|| self.name.clone())?;
        destroyed.with_context(|| self.name.clone())?;
        let (create, destroy) = (Some(create), Some(destroy));
        Ok(Cycle { began, running: Some(running), total, create, destroy, output })
    }

    fn settles(&self) -> Duration {
        Duration::from_millis(20)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = self.garden.raze() {
            eprintln!("{} leaves something behind: {error}", self.name);
        }
    }
}
