//! A process in the container, from its start to its exit status.

use std::time::Duration;

use bbs_models::RunAction;
use bloomery_garden::client::{Error, Output, ProcessIo, RunningProcess};
use garden_api::{ProcessSpec, ResourceLimits, Signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, Latch, Mark, Outcome, Steps};
use crate::absence::{self, Absence, is_away};
use crate::environment;

/// After KILL, a process that is still there is given up.
const LAST: Duration = Duration::from_secs(1);

impl Steps {
    pub(super) async fn process(
        &self,
        run: &RunAction,
        path: &str,
        ready: &Latch,
        stop: &CancellationToken,
    ) -> Outcome {
        if self.is_done(path) {
            ready.open();
            return Ok(());
        }
        let source = run.log_source.as_str();
        let process = match self.begin(run, path, stop).await {
            Ok(process) => process,
            Err(_) if stop.is_cancelled() => return Err(Failure::Cancelled),
            Err(error) => {
                self.log.platform(source, true, &format!("failed to run: {error}"));
                return Err(Failure::Failed(named(source, &error.to_string())));
            }
        };
        ready.open();
        let mut ending = Ending { stop, asked: None };
        let status = self.follow(process, run, path, &mut ending).await;
        let stopped = ending.asked;
        match status {
            Ok(status) => self.exited(status, source, path, stopped).await,
            Err(_) if stopped == Some(Stage::GivenUp) => {
                Err(Failure::Failed(named(source, "process did not exit")))
            }
            Err(_) if stopped.is_some() => Err(Failure::Cancelled),
            Err(error) => Err(Failure::Failed(named(source, &error.to_string()))),
        }
    }

    /// Starts the process, or finds it where it was started before.
    async fn begin(
        &self,
        run: &RunAction,
        path: &str,
        stop: &CancellationToken,
    ) -> Result<RunningProcess, Error> {
        let id = process_id(&self.handle, path);
        // A process that Garden has forgotten must not be started a second time, so it is written
        // down that there was one. Monitors' processes are probes, of no interest afterwards.
        let is_forgotten = self.resumed && self.was_begun(path);
        let spec = ProcessSpec {
            id: id.clone(),
            path: run.path.clone(),
            args: run.args.clone(),
            env: environment::of_process(&run.env, &self.network),
            dir: run.dir.clone(),
            user: run.user.clone(),
            rlimits: ResourceLimits {
                nofile: run.resource_limits.nofile,
                ..ResourceLimits::default()
            },
            ..ProcessSpec::default()
        };
        let mut may_be_there = self.resumed;
        let mut absence = Absence::new(&self.handle, absence::OF_CALLS).until(stop);
        loop {
            if may_be_there {
                match self.garden.attach(&self.handle, &id, ProcessIo::outputs()).await {
                    // It was never started, so it is started now.
                    Err(Error::ProcessNotFound(_)) if !is_forgotten => {}
                    Err(error) => {
                        absence.bear(error).await?;
                        continue;
                    }
                    attached => return attached,
                }
            }
            let run = self.garden.run(&self.handle, &spec, ProcessIo::outputs());
            let started = if is_recorded(path) {
                let begun = self.record(Mark::Begun, path);
                tokio::join!(run, begun).0
            } else {
                run.await
            };
            match started {
                Err(error) => absence.bear(error).await?,
                started => return started,
            }
            may_be_there = true;
        }
    }

    /// Waits for the exit status, over any number of Gardens that come and go.
    async fn follow(
        &self,
        mut process: RunningProcess,
        run: &RunAction,
        path: &str,
        ending: &mut Ending<'_>,
    ) -> Result<i64, Error> {
        loop {
            let result = self.watch(&process, run, path, ending).await;
            match result {
                // The daemon went away; the process has not, or its status is kept.
                Err(error) if is_away(&error) => process = self.again(path, ending).await?,
                result => return result,
            }
        }
    }

    /// Passes on a process's output and what is asked of it, until its end or Garden's.
    async fn watch(
        &self,
        process: &RunningProcess,
        run: &RunAction,
        path: &str,
        ending: &mut Ending<'_>,
    ) -> Result<i64, Error> {
        let (stdout, stderr) = (process.take_stdout(), process.take_stderr());
        let streams = async {
            tokio::join!(self.copy(run, false, stdout), self.copy(run, true, stderr));
        };
        let exit = async { tokio::join!(process.wait(), streams).0 };
        tokio::pin!(exit);
        loop {
            tokio::select! {
                result = &mut exit => return result,
                stage = ending.next(self.grace) => match stage {
                    Stage::Terminated => drop(process.signal(Signal::Terminate).await),
                    Stage::Killed => drop(process.signal(Signal::Kill).await),
                    Stage::GivenUp => return Err(Error::Ended { process: path.to_owned() }),
                },
            }
        }
    }

    async fn copy(&self, run: &RunAction, is_error: bool, output: Option<Output>) {
        // An output that is dropped is read by nobody, and fills no pipe.
        if let Some(output) = output.filter(|_| !run.suppress_log_output) {
            self.log.stream(&run.log_source, is_error, output).await;
        }
    }

    async fn again(&self, path: &str, ending: &mut Ending<'_>) -> Result<RunningProcess, Error> {
        let id = process_id(&self.handle, path);
        let mut absence = Absence::new(&self.handle, absence::OF_PROCESSES);
        loop {
            match self.garden.attach(&self.handle, &id, ProcessIo::outputs()).await {
                Ok(process) => {
                    // What was asked while nobody listened is asked again.
                    match ending.asked {
                        Some(Stage::Terminated) => drop(process.signal(Signal::Terminate).await),
                        Some(Stage::Killed | Stage::GivenUp) => {
                            drop(process.signal(Signal::Kill).await);
                        }
                        None => {}
                    }
                    return Ok(process);
                }
                Err(error) if ending.asked == Some(Stage::GivenUp) => return Err(error),
                Err(error) => absence.bear(error).await?,
            }
        }
    }

    async fn exited(
        &self,
        status: i64,
        source: &str,
        path: &str,
        stopped: Option<Stage>,
    ) -> Outcome {
        let out_of_memory = status != 0 && self.ran_out_of_memory().await;
        let mut text = format!("Exit status {status}");
        if out_of_memory {
            text += " (out of memory)";
        }
        if stopped >= Some(Stage::Killed) {
            let grace = super::go_duration(self.grace);
            text += &format!(" (exceeded {grace} graceful shutdown interval)");
        }
        self.log.platform(source, false, &text);
        if stopped.is_some() {
            return Err(Failure::Cancelled);
        }
        if status == 0 {
            if is_recorded(path) {
                self.record(Mark::Done, path).await;
            }
            return Ok(());
        }
        let mut text = format!("Exited with status {status}");
        if out_of_memory {
            text += " (out of memory)";
        }
        Err(Failure::Failed(named(source, &text)))
    }

    async fn ran_out_of_memory(&self) -> bool {
        let info = Absence::new(&self.handle, absence::OF_CALLS)
            .answer(|| self.garden.info(&self.handle))
            .await;
        info.is_ok_and(|info| {
            info.events.iter().any(|event| event.to_lowercase().contains("out of memory"))
        })
    }
}

/// What a process is called at Garden: it must be found again by its place in the tree.
pub(crate) fn process_id(handle: &str, path: &str) -> String {
    format!("{handle}-{}", path.replace('/', "-"))
}

fn is_recorded(path: &str) -> bool {
    !path.starts_with(super::MONITOR)
}

fn named(source: &str, text: &str) -> String {
    if source.is_empty() { text.to_owned() } else { format!("{source}: {text}") }
}

/// How far the ending of a process has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Terminated,
    Killed,
    GivenUp,
}

/// Asks a process to end, in stages.
struct Ending<'a> {
    stop: &'a CancellationToken,
    asked: Option<Stage>,
}

impl Ending<'_> {
    /// The next stage, when its time has come. May be dropped and called again: then the wait for a
    /// stage begins anew, so it is only dropped when the process is over.
    async fn next(&mut self, grace: Duration) -> Stage {
        let stage = match self.asked {
            None => {
                self.stop.cancelled().await;
                Stage::Terminated
            }
            Some(Stage::Terminated) => {
                tokio::time::sleep(grace).await;
                Stage::Killed
            }
            Some(Stage::Killed) => {
                tokio::time::sleep(LAST).await;
                Stage::GivenUp
            }
            Some(Stage::GivenUp) => std::future::pending().await,
        };
        self.asked = Some(stage);
        stage
    }
}
