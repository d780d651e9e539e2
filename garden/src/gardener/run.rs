//! Processes: started, attached to, remembered.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use garden_api::{ProcessSpec, TtySpec};
use garden_cgroup::Leaf;
use garden_sys::plan::Plan;
use garden_sys::program::plan::tag;
use garden_sys::supervisor::{Exit, Kept, Launch, Taken};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Gardener;
use super::pea::{Ground, Seed};
use crate::command;
use crate::container::{Body, Container};
use crate::depot::{ExitRecord, PeaRecord, ProcessRecord};
use crate::error::Error;
use crate::fault;
use crate::identity;
use crate::meters::METERS;
use crate::process::{Process, Streams, Upkeep};
use crate::terminal;

/// What must be done when a process of a container ends; holds nothing alive.
struct Keeping {
    gardener: Weak<Gardener>,
    container: Weak<Container>,
    id: String,
    ticket: u64,
    pea: Option<PeaRecord>,
    /// Its end is on disk, or nothing will be written any more.
    noted: AtomicBool,
}

impl Upkeep for Keeping {
    fn end_input(&self) {
        let Some(gardener) = self.gardener.upgrade() else { return };
        if gardener.leaving.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = gardener.supervisor.end_input(self.ticket) {
            tracing::warn!(process = self.id, %error, "a process's input is not ended");
        }
    }

    fn note(&self, exit: Exit) {
        let Some(gardener) = self.gardener.upgrade() else { return };
        let container = self.container.upgrade();
        fault::step("end/heard");
        let handle = container.as_ref().map(|container| container.handle.as_str());
        tracing::debug!(handle, process = self.id, ?exit, "ended");
        METERS.exits.increment();
        if exit == Exit::Unknown {
            METERS.unknown_exits.increment();
        }
        // The status must be on disk before a client is told and before the keeper forgets it.
        let noted = container.as_ref().map_or(Ok(()), |container| {
            gardener.note_memory_kills(container);
            container.change(&gardener.depot, |record| {
                if let Some(process) = record.processes.get_mut(&self.id) {
                    process.exit = Some(exit_record(exit));
                    process.pea = None;
                }
            })
        });
        match noted {
            Ok(()) | Err(Error::ContainerNotFound(_)) => self.noted.store(true, Ordering::SeqCst),
            Err(error) => {
                tracing::warn!(handle, process = self.id, %error, "a process's end is not recorded");
            }
        }
        fault::step("end/recorded");
    }

    fn release(&self) {
        let Some(gardener) = self.gardener.upgrade() else { return };
        // Where it is not on disk, the next daemon hears it from the keeper.
        let noted = self.noted.load(Ordering::SeqCst);
        if noted && let Err(error) = gardener.supervisor.release(self.ticket) {
            tracing::warn!(process = self.id, %error, "an ended process is not released");
        }
        fault::step("end/released");
        if noted && let Some(pea) = &self.pea {
            gardener.clear_away(self.container.upgrade().as_deref(), pea);
        }
    }
}

pub(super) fn exit_record(exit: Exit) -> ExitRecord {
    match exit {
        Exit::Status(status) => ExitRecord::Status(status),
        Exit::Unknown => ExitRecord::Unknown,
    }
}

/// What a process is started with.
struct Start<'a> {
    spec: &'a ProcessSpec,
    plan: Plan,
    ends: Ends,
    seed: Option<Seed>,
}

/// The two ends of a process's streams.
struct Ends {
    /// What becomes descriptors 0, 1, 2.
    theirs: [OwnedFd; 3],
    ours: Streams,
}

impl Gardener {
    /// Starts a process. Its output is kept until the first client attaches.
    pub fn run(self: &Arc<Self>, handle: &str, spec: &ProcessSpec) -> Result<Arc<Process>, Error> {
        METERS.runs.time(|| self.start_process(handle, spec))
    }

    fn start_process(
        self: &Arc<Self>,
        handle: &str,
        spec: &ProcessSpec,
    ) -> Result<Arc<Process>, Error> {
        let (container, _call) = self.call(handle)?;
        let body = container.body().ok_or_else(|| Error::ContainerNotFound(handle.to_owned()))?;
        let id =
            if spec.id.is_empty() { uuid::Uuid::new_v4().to_string() } else { spec.id.clone() };
        let record = container.record();
        let privileged = record.spec.privileged;
        let seed = self.seed(spec, privileged)?;
        let mut around = self.surroundings(&record);
        if let Some(seed) = &seed {
            around.environment = seed.image.environment.iter().map(String::as_str).collect();
        }
        let plan = command::plan(spec, &around)?;
        let ends = open_streams(spec.tty, privileged, || {
            match seed.as_ref().and_then(|seed| seed.terminals.as_ref()) {
                Some(terminals) => terminal::master_in(terminals.as_fd()),
                None => terminal::master_of(body.init.pid),
            }
        })?;

        let process = Process::new(
            handle.to_owned(),
            id.clone(),
            self.maker.ticket(),
            spec.tty.is_some(),
            Default::default(),
            self.runtime.clone(),
        );
        container.add_process(&process)?;
        let pea = seed.as_ref().map(|seed| seed.record);
        let started = self.launch(&container, &body, &process, Start { spec, plan, ends, seed });
        if started.is_err() {
            container.remove_process(&id);
            self.exits.forget(process.ticket());
            let forgotten = container.change(&self.depot, |record| {
                record.processes.remove(&id);
            });
            if let Err(error) = forgotten {
                tracing::warn!(handle, process = id, %error, "a process that was not started is not forgotten");
            }
            if let Some(pea) = &pea {
                self.clear_away(Some(&container), pea);
            }
        }
        started.map(|()| process)
    }

    fn launch(
        self: &Arc<Self>,
        container: &Arc<Container>,
        body: &Body,
        process: &Arc<Process>,
        start: Start<'_>,
    ) -> Result<(), Error> {
        let Start { spec, plan, ends, seed } = start;
        let pea = seed.as_ref().map(|seed| seed.record);
        let (id, ticket) = (process.id().to_owned(), process.ticket());
        let privileged = container.look(|record| record.spec.privileged);
        fault::step("run/entered");
        // Written before the keeper is asked: a child of a ticket that no record has is nobody's.
        let recorded = ProcessRecord { ticket, terminal: spec.tty.is_some(), exit: None, pea };
        container.change(&self.depot, |record| {
            let _former = record.processes.insert(id.clone(), recorded);
        })?;
        fault::step("run/recorded");
        let ground = match &seed {
            Some(seed) => self.sow(seed, spec, body, privileged)?,
            None => Ground::of(body),
        };
        let plan =
            plan.seal().map_err(|error| Error::because("cannot write a process's plan", &error))?;
        let cgroup = |error: garden_cgroup::Error| {
            Error::because("cannot reach the container's cgroup", &error)
        };
        let birth = ground.slot.birth(ground.leaf).map_err(cgroup)?;
        let joins = ground.slot.joins(ground.leaf).map_err(cgroup)?;
        let ended = Arc::downgrade(process);
        self.exits.listen(ticket, move |exit| {
            if let Some(process) = ended.upgrade() {
                process.exited(exit);
            }
        });
        let kept = match &ends.ours {
            Streams::Terminal(master) => Kept::Terminal(master.as_fd()),
            Streams::Pipes { input: Some(input), output, error } => {
                Kept::Pipes([input.as_fd(), output.as_fd(), error.as_fd()])
            }
            Streams::Pipes { input: None, .. } => {
                return Err(Error::Plain("a process without stdin".into()));
            }
        };
        let launch = Launch {
            init: body.init.pidfd.as_fd(),
            plan: plan.as_fd(),
            standard: ends.theirs.each_ref().map(AsFd::as_fd),
            kept,
            cgroup: Some(birth.as_fd()),
            joins: joins.iter().map(AsFd::as_fd).collect(),
            image: None,
            root: ground.root(),
            privileged,
        };
        fault::step("run/asked");
        let launched = self
            .supervisor
            .launch(ticket, &launch)
            .map_err(|error| Error::because("cannot start the process", &error))?
            .map_err(|failure| ground.explain(&failure, spec))?;
        fault::step("run/launched");
        // Where the keeper was lost meanwhile, the next one may have been alone with the child for so long
        // that it has drained what the child wrote.
        let drained = self.supervisor.drained(ticket).map_err(|error| {
            Error::because("cannot read what the process has written so far", &error)
        })?;
        process.put_first(drained.map(|stream| stream.bytes));
        let keeping = Keeping {
            gardener: Arc::downgrade(self),
            container: Arc::downgrade(container),
            id,
            ticket,
            pea,
            noted: AtomicBool::new(false),
        };
        process
            .follow(launched.pidfd, ends.ours, Box::new(keeping))
            .map_err(|error| Error::because("cannot follow the process", &error))?;
        fault::step("run/followed");
        Ok(())
    }

    /// A process by id.
    pub fn process(&self, handle: &str, id: &str) -> Result<Arc<Process>, Error> {
        let (container, _call) = self.call(handle)?;
        container.process(id).ok_or_else(|| Error::ProcessNotFound(id.to_owned()))
    }

    /// A client has had a process's status; where it is so configured, the process is forgotten.
    pub fn waited(&self, handle: &str, id: &str) {
        if !self.config.forget_processes_on_wait {
            return;
        }
        let Ok(container) = self.find(handle) else { return };
        container.remove_process(id);
        if let Err(error) = container.change(&self.depot, |record| {
            record.processes.remove(id);
        }) {
            tracing::warn!(handle, process = id, %error, "a process is not forgotten");
        }
    }

    /// Takes up a process of an earlier daemon; `false` for one whose start was broken off, so that nobody
    /// was told of it.
    pub(super) fn take_up(
        self: &Arc<Self>,
        container: &Arc<Container>,
        id: &str,
        record: &ProcessRecord,
    ) -> Result<bool, Error> {
        let taken = |error: garden_sys::supervisor::Error| {
            Error::because(format!("cannot take up process {id}"), &error)
        };
        let ticket = record.ticket;
        let [output, error] = self.supervisor.drained(ticket).map_err(taken)?;
        for (stream, drained) in [("stdout", &output), ("stderr", &error)] {
            if drained.dropped > 0 {
                METERS.dropped_output.add(drained.dropped);
                tracing::warn!(
                    process = id,
                    stream,
                    bytes = drained.dropped,
                    "output was dropped while no daemon ran"
                );
            }
        }
        let (streams, pidfd) = match self.supervisor.take(ticket) {
            Err(garden_sys::supervisor::Error::Incomplete) => return Ok(false),
            other => other.map_err(taken)?,
        };
        let streams = match streams {
            Taken::Terminal(master) => Streams::Terminal(master),
            Taken::Pipes { input, output, error } => Streams::Pipes { input, output, error },
            Taken::Nothing => return Err(Error::Plain(format!("process {id} has no streams"))),
        };
        let early = [output.bytes, error.bytes];
        let process = Process::new(
            container.handle.clone(),
            id.to_owned(),
            ticket,
            record.terminal,
            early,
            self.runtime.clone(),
        );
        container.add_process(&process)?;
        let ended = Arc::downgrade(&process);
        self.exits.listen(ticket, move |exit| {
            if let Some(process) = ended.upgrade() {
                process.exited(exit);
            }
        });
        let keeping = Keeping {
            gardener: Arc::downgrade(self),
            container: Arc::downgrade(container),
            id: id.to_owned(),
            ticket,
            pea: record.pea,
            noted: AtomicBool::new(false),
        };
        process
            .follow(pidfd, streams, Box::new(keeping))
            .map_err(|error| Error::because(format!("cannot follow process {id}"), &error))?;
        // It may have ended before we listened.
        if let Some(exit) =
            self.supervisor.child(ticket).map_err(taken)?.and_then(|child| child.exit)
        {
            process.exited(exit);
        }
        Ok(true)
    }

    /// Runs this program inside a container, as `arguments` say, with `input` as its stdin; answers
    /// its exit, its output and what it complained about.
    pub(super) fn run_own(
        &self,
        container: &Arc<Container>,
        arguments: &[&str],
        input: OwnedFd,
        output: OwnedFd,
    ) -> Result<(Exit, String), Error> {
        let body =
            container.body().ok_or_else(|| Error::ContainerNotFound(container.handle.clone()))?;
        let record = container.record();
        let around = self.surroundings(&record);
        let mut plan = Plan::new();
        let text = |text: &str| {
            std::ffi::CString::new(text)
                .map_err(|_| Error::Plain(format!("{text:?} contains a NUL byte")))
        };
        plan.text(tag::PROGRAM, &text("bloomery")?);
        for argument in arguments {
            plan.text(tag::ARGUMENT, &text(argument)?);
        }
        plan.text(tag::DIRECTORY, &text("/")?);
        plan.capabilities(around.bounds.root, around.bounds.others);
        if let Some(filter) = around.seccomp {
            plan.seccomp(&filter.bytes());
        }
        let plan = plan.seal().map_err(|error| Error::because("cannot write a plan", &error))?;
        let pipe = || {
            pipe_with(PipeFlags::CLOEXEC)
                .map_err(|errno| Error::because("cannot make a pipe", &std::io::Error::from(errno)))
        };
        let (complaints, complaints_theirs) = pipe()?;
        let (unused_input, unused) = pipe()?;
        let (unused_output, _) = pipe()?;
        drop(unused_input);
        let cgroup = |error: garden_cgroup::Error| {
            Error::because("cannot reach the container's cgroup", &error)
        };
        let birth = body.slot.birth(Leaf::Processes).map_err(cgroup)?;
        let joins = body.slot.joins(Leaf::Processes).map_err(cgroup)?;
        let ticket = self.maker.ticket();
        let (sender, ended) = std::sync::mpsc::channel();
        self.exits.listen(ticket, move |exit| {
            let _ = sender.send(exit);
        });
        let launched = self.supervisor.launch(
            ticket,
            &Launch {
                init: body.init.pidfd.as_fd(),
                plan: plan.as_fd(),
                standard: [input.as_fd(), output.as_fd(), complaints_theirs.as_fd()],
                // Nobody but us needs these streams, and nothing of them is worth keeping.
                kept: Kept::Pipes([unused.as_fd(), unused_output.as_fd(), complaints.as_fd()]),
                cgroup: Some(birth.as_fd()),
                joins: joins.iter().map(AsFd::as_fd).collect(),
                image: Some(self.own_image.as_fd()),
                root: None,
                privileged: record.spec.privileged,
            },
        );
        drop((input, output, complaints_theirs));
        let failed = |reason: String| {
            self.exits.forget(ticket);
            Error::Plain(reason)
        };
        launched
            .map_err(|error| {
                failed(Error::because("cannot start a helper in the container", &error).to_string())
            })?
            .map_err(|failure| {
                failed(format!("cannot start a helper in the container: {failure:?}"))
            })?;
        let mut said = Vec::new();
        let _ = std::fs::File::from(complaints).take(64 * 1024).read_to_end(&mut said);
        let exit = ended.recv().unwrap_or(Exit::Unknown);
        self.supervisor
            .release(ticket)
            .map_err(|error| Error::because("cannot release a helper", &error))?;
        Ok((exit, String::from_utf8_lossy(&said).trim().to_owned()))
    }
}

fn open_streams(
    tty: Option<TtySpec>,
    privileged: bool,
    master: impl FnOnce() -> std::io::Result<OwnedFd>,
) -> Result<Ends, Error> {
    let owner = identity::root(privileged);
    if let Some(tty) = tty {
        let size = tty.window_size.unwrap_or_default();
        let opened = master().and_then(|master| terminal::open(master, owner, size));
        let terminal = opened.map_err(|error| Error::because("cannot open a terminal", &error))?;
        let duplicate = || {
            terminal
                .slave
                .try_clone()
                .map_err(|error| Error::because("cannot duplicate a terminal", &error))
        };
        let theirs = [duplicate()?, duplicate()?, duplicate()?];
        return Ok(Ends { theirs, ours: Streams::Terminal(terminal.master) });
    }
    let pipe = || {
        let made = pipe_with(PipeFlags::CLOEXEC).and_then(|(read, write)| {
            // The container's root gives them on to the process's user.
            if !privileged {
                let user = Some(rustix::fs::Uid::from_raw(owner));
                let group = Some(rustix::fs::Gid::from_raw(owner));
                rustix::fs::fchown(&read, user, group)?;
                rustix::fs::fchown(&write, user, group)?;
            }
            Ok((read, write))
        });
        made.map_err(|errno| {
            Error::because("cannot make a process's pipes", &std::io::Error::from(errno))
        })
    };
    let (input_theirs, input) = pipe()?;
    let (output, output_theirs) = pipe()?;
    let (error, error_theirs) = pipe()?;
    Ok(Ends {
        theirs: [input_theirs, output_theirs, error_theirs],
        ours: Streams::Pipes { input: Some(input), output, error },
    })
}
