//! The benchmark after the demonstration: this program, started again.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A benchmark that runs; dropping it ends it as Ctrl-C does, and waits until it has removed what
/// it made.
#[derive(Debug)]
struct Benchmark(Child);

/// Measures.
pub async fn run() -> anyhow::Result<()> {
    let mut benchmark = Benchmark(
        Command::new(std::env::current_exe()?)
            .args(["bench", "containers"])
            // Ctrl-C is for us: it is passed on, and waited for.
            .process_group(0)
            .spawn()
            .context("cannot start the benchmark")?,
    );
    let status = benchmark.end().await?;
    if !status.success() {
        bail!("the benchmark failed: {status}");
    }
    Ok(())
}

impl Benchmark {
    async fn end(&mut self) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait().context("cannot wait for the benchmark")? {
                return Ok(status);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Benchmark {
    fn drop(&mut self) {
        // A child that nobody has waited for keeps its number.
        if let (Ok(None), Ok(pid)) = (self.0.try_wait(), i32::try_from(self.0.id())) {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::INT));
            let _ = self.0.wait();
        }
    }
}
